/** Looks at everything once: processes in /proc, services over /metrics, tables by count(), logs by what was added. */
import { loadavg } from 'node:os';
import { join } from 'node:path';
import type { ClickHouseClient } from '@clickhouse/client';
import { request } from 'undici';
import { z } from 'zod';
import { createClickHouse, hotServer, selectText } from '../clickhouse.ts';
import { BASE, TIMEFRAMES } from '../correlation/periods.ts';
import { readJson } from '../files.ts';
import { connectionsTo, lookAt, readSockets, type TcpSocket } from '../procfs.ts';
import { DATA_TYPES, TABLES } from '../rows.ts';
import { SERVICES } from '../services.ts';
import { SIGNAL_TABLES } from '../signal_tables.ts';
import { steadyNow } from '../steady.ts';
import type { ProcessSample, Sample } from './history.ts';
import { LogTail, type Round } from './logs.ts';
import {
  bucketsOf,
  CounterTrack,
  HistogramTrack,
  type MetricSample,
  metricSamples,
  quantileOf,
  sumOf,
} from './metrics_text.ts';
import type { SoakTable } from './report.ts';
import type { SoakStage } from './stage.ts';

/** Longer ones are not waited for: the next sample must not be late for it. */
const ANSWER_WITHIN_MS = 3000;
const QUERY_WITHIN_MS = 10_000;
const LOOP_DELAY = 'marketprism_nodejs_eventloop_lag_p99_seconds';
const LATENCY = 'marketprism_storage_latency_seconds';
const QUERIES = {
  done: 'marketprism_clickhouse_queries_done_total',
  failed: 'marketprism_clickhouse_queries_failed_total',
};
const WANTED = new Set([LOOP_DELAY, `${LATENCY}_bucket`, QUERIES.done, QUERIES.failed]);
const CANDLES = '5m';
/** What a process without /metrics wrote is of this sample or of the one before. */
const MOST_AGE_SAMPLES = 2;
const MS = 1000;

const TOLD = z.object({ pid: z.number(), at: z.number(), p99_ms: z.number().nullable() });

export class Sampler {
  private readonly client: ClickHouseClient;
  private readonly tails = new Map<string, LogTail>();
  private readonly cpu = new Map<string, { pid: number; seconds: number; at: number }>();
  private readonly latency = new HistogramTrack();
  private readonly queries = { done: new CounterTrack(), failed: new CounterTrack() };
  /** Errors by what they say, of which the most frequent are told. */
  readonly problems = new Map<string, number>();

  constructor(
    private readonly stage: SoakStage,
    private readonly sampleMs: number,
    /** All but the simulated exchanges is stopped on purpose, or starts again. */
    private readonly isPaused: () => boolean,
  ) {
    this.client = createClickHouse(hotServer(stage.config), 'marketprism-soak', QUERY_WITHIN_MS);
  }

  /** What counters and CPU times are before the first sample. @returns rows of market data that are stored by now; null: not counted */
  async prepare(): Promise<number | null> {
    const metrics = await this.allMetrics();
    this.processes(metrics);
    this.latency.add(bucketsOf(metrics.get('store') ?? [], LATENCY));
    this.queriesSince(metrics.get('clickhouse_embedded') ?? []);
    return this.marketRows(await this.tables());
  }

  /** Rows of hot, where all of its tables are counted. */
  private marketRows(tables: readonly SoakTable[] | null): number | null {
    const { hotDatabase } = this.stage.config;
    const names = new Set(DATA_TYPES.map((type) => TABLES[type].name));
    const hot = tables?.filter(({ database, table }) => database === hotDatabase && names.has(table)) ?? [];
    return hot.length > 0 && hot.every(({ rows }) => rows !== null)
      ? hot.reduce((sum, { rows }) => sum + rows!, 0)
      : null;
  }

  /** @param at when this sample is, ms since the epoch */
  async take(at: number): Promise<Sample> {
    const wasPaused = this.isPaused();
    const metrics = await this.allMetrics();
    const processes = this.processes(metrics);
    const tables = wasPaused ? null : await this.tables();
    const logs = this.logs();
    const store = metrics.get('store') ?? [];
    const buckets = bucketsOf(store, LATENCY);
    const observed = buckets.length === 0 ? null : this.latency.add(buckets);
    const quantile = (share: number) => {
      const seconds = observed === null ? null : quantileOf(observed, share);
      return seconds === null ? null : seconds * MS;
    };
    return {
      ...{ at, processes, tables, ...logs, isPaused: wasPaused || this.isPaused() },
      rows: this.marketRows(tables),
      ...{ latencyP50Ms: quantile(0.5), latencyP99Ms: quantile(0.99) },
      candleAgeMs: hasCandles(tables) ? await this.candleAge() : null,
      queries: this.queriesSince(metrics.get('clickhouse_embedded') ?? []),
      load: loadavg()[0]!,
    };
  }

  async close(): Promise<void> {
    await this.client.close();
  }

  /** What was logged since the last time. */
  logs(): { errors: Map<string, number>; rounds: Round[] } {
    const errors = new Map<string, number>();
    const rounds: Round[] = [];
    for (const name of this.stage.system.children.keys()) {
      let tail = this.tails.get(name);
      if (tail === undefined) this.tails.set(name, (tail = new LogTail(join(this.stage.config.dataDir, 'logs'), name)));
      const figures = tail.read();
      if (figures.errors > 0) errors.set(name, figures.errors);
      rounds.push(...figures.rounds);
      for (const text of figures.texts) this.note(`${name}: ${text}`);
    }
    return { errors, rounds };
  }

  /** Something that went wrong, of which it is told how often. */
  note(text: string): void {
    // Figures in it differ each time.
    const problem = text.replace(/\d+/g, '#');
    this.problems.set(problem, (this.problems.get(problem) ?? 0) + 1);
  }

  private async allMetrics(): Promise<Map<string, MetricSample[]>> {
    const { config } = this.stage;
    const urls = SERVICES.flatMap(({ name, port }): [string, string][] =>
      port === null ? [] : [[name, `http://127.0.0.1:${port(config)}/metrics`]],
    );
    urls.push(['clickhouse_embedded', new URL('/metrics', config.clickhouseUrl).href]);
    const answers = await Promise.all(urls.map(async ([name, url]) => [name, await metricsOf(url)] as const));
    return new Map(answers.flatMap(([name, samples]) => (samples === null ? [] : [[name, samples]])));
  }

  private processes(metrics: ReadonlyMap<string, MetricSample[]>): Map<string, ProcessSample | null> {
    const sockets = readSockets();
    const out = new Map<string, ProcessSample | null>();
    for (const [name, { pid }] of this.stage.system.children)
      out.set(name, pid === undefined ? null : this.process(name, pid, sockets, metrics.get(name)));
    return out;
  }

  private process(
    name: string,
    pid: number,
    sockets: readonly TcpSocket[],
    metrics: readonly MetricSample[] | undefined,
  ): ProcessSample | null {
    const found = lookAt(pid);
    if (found === null) return null;
    const { rssBytes, threads, fds, cpuSeconds } = found;
    const [before, now] = [this.cpu.get(name), steadyNow()];
    this.cpu.set(name, { pid, seconds: cpuSeconds, at: now });
    const isSame = before?.pid === pid && now > before.at;
    return {
      ...{ pid, rss_bytes: rssBytes, threads, fds },
      cpu_percent: isSame ? (100 * (cpuSeconds - before.seconds)) / ((now - before.at) / MS) : null,
      loop_delay_ms: metrics === undefined ? this.toldLoopDelay(name, pid) : loopDelayIn(metrics),
      connections: connectionsTo(this.stage.backends, sockets, found.sockets),
    };
  }

  /** Of a process without /metrics; null: it is none of Node, or has not said it lately. */
  private toldLoopDelay(name: string, pid: number): number | null {
    const { data } = TOLD.safeParse(readJson(this.stage.loopDelayFile(name)));
    const isOwn = data?.pid === pid && Math.abs(Date.now() - data.at) < MOST_AGE_SAMPLES * this.sampleMs;
    return isOwn ? data.p99_ms : null;
  }

  private queriesSince(metrics: readonly MetricSample[]): { done: number; failed: number } | null {
    const done = this.queries.done.add(sumOf(metrics, QUERIES.done));
    const failed = this.queries.failed.add(sumOf(metrics, QUERIES.failed));
    return done === null || failed === null ? null : { done, failed };
  }

  /** All tables that there should be, and any other that there is. @returns null when the database does not answer */
  async tables(client = this.client): Promise<SoakTable[] | null> {
    const known = knownTables(this.stage);
    try {
      const names = [...new Set(known.map(({ database }) => `'${database}'`))].join(', ');
      const query = `SELECT database, name FROM system.tables WHERE database IN (${names}) AND engine LIKE '%MergeTree'`;
      const there = await selectText(client, query);
      const counts = there.map(([database, name]) => `SELECT '${database}.${name}', count() FROM ${database}.${name}`);
      const found = counts.length === 0 ? [] : await selectText(client, counts.join(' UNION ALL '));
      const rows = new Map(found.map(([table, count]) => [table!, Number(count)]));
      const others = there.map(([database, table]) => ({ database: database!, table: table! }));
      const all = new Map([...known, ...others].map((each) => [`${each.database}.${each.table}`, each]));
      return [...all].map(([name, each]) => ({ ...each, rows: rows.get(name) ?? null }));
    } catch (error) {
      this.note(`tables are not counted: ${(error as Error).message}`);
      return null;
    }
  }

  /** Age of BTC's newest finished candle in the database, whatever the alerter says of it. */
  private async candleAge(): Promise<number | null> {
    const query = `SELECT count(), toUnixTimestamp64Milli(max(timestamp)) FROM ${this.stage.config.signalsDatabase}.candles WHERE instrument = '${BASE}' AND interval = '${CANDLES}'`;
    try {
      const [[count, newest] = []] = await selectText(this.client, query);
      return count === '0' ? null : Date.now() - Number(newest) - TIMEFRAMES[CANDLES];
    } catch (error) {
      this.note(`the newest candle is not known: ${(error as Error).message}`);
      return null;
    }
  }
}

/** The alerter makes them with its first round. */
function hasCandles(tables: readonly SoakTable[] | null): boolean {
  return tables?.some(({ table, rows }) => table === SIGNAL_TABLES.candles.name && rows !== null) ?? false;
}

/** Tables that a whole system has. */
export function knownTables({ config }: SoakStage): { database: string; table: string }[] {
  const market = DATA_TYPES.map((type) => TABLES[type].name);
  const signals = Object.values(SIGNAL_TABLES).map(({ name }) => name);
  return [
    ...[config.hotDatabase, config.coldDatabase].flatMap((database) => market.map((table) => ({ database, table }))),
    ...signals.map((table) => ({ database: config.signalsDatabase, table })),
  ];
}

function loopDelayIn(metrics: readonly MetricSample[]): number | null {
  const seconds = sumOf(metrics, LOOP_DELAY);
  return seconds === null ? null : seconds * MS;
}

/** @returns null when it does not answer */
async function metricsOf(url: string): Promise<MetricSample[] | null> {
  try {
    const { statusCode, body } = await request(url, { signal: AbortSignal.timeout(ANSWER_WITHIN_MS) });
    const text = await body.text();
    return statusCode === 200 ? metricSamples(text, WANTED) : null;
  } catch {
    // Down, starting or hanging: what it would have told is missing, and counted as that.
    return null;
  }
}
