const USAGE = `
replicate.ts: hot → cold, by arrival, each window compared before it counts; and hot days dropped that cold holds.

Usage:   npx tsx scripts/replicate.ts [--once | --backfill FROM TO]
Example: npx tsx scripts/replicate.ts --backfill 2026-11-20 2026-11-21T12:00:00Z

Flags:
  --once               replicate what the store has stored by now, then stop; exit 0 only when all of it is in cold
  --backfill FROM TO   make cold hold everything that hot has of these event times (UTC), whatever was written down before

A window is what arrived between two sequences of JetStream, up to where the store has acknowledged everything. Its rows are copied as far
as cold lacks them, then counted and hashed in both; only what is equal is written down, beside cold. Where cold holds more than hot, or
other values, the table stops and says so.

Environment: MARKETPRISM_NATS_URL, CLICKHOUSE_URL, CLICKHOUSE_USER, CLICKHOUSE_PASSWORD, MARKETPRISM_COLD_CLICKHOUSE_URL (the hot server),
MARKETPRISM_HOT_DATABASE, MARKETPRISM_COLD_DATABASE, MARKETPRISM_DATA_DIR, MARKETPRISM_MODE, COLD_STORAGE_HTTP_PORT (8086, /health and
/metrics), LOG_LEVEL.
`;

import { setMaxListeners } from 'node:events';
import { mkdirSync } from 'node:fs';
import type { ClickHouseClient } from '@clickhouse/client';
import { Cron } from 'croner';
import type { JetStreamManager, NatsConnection } from 'nats';
import { Gauge } from 'prom-client';
import { flags, runAsScript, UsageError } from './lib/cli.ts';
import { createClickHouse, fence } from './lib/clickhouse.ts';
import { type Config, loadConfig, shownUrl } from './lib/config.ts';
import { connectNats } from './lib/jetstream.ts';
import { takeLock } from './lib/lock.ts';
import { createLogger, type Logger } from './lib/log.ts';
import { pause } from './lib/pause.ts';
import {
  Disagreement,
  dropOldDays,
  type Place,
  QUERY_PREFIX,
  type ReplicationOptions,
  replications,
  settledPlaces,
  type TableReplication,
} from './lib/replication.ts';
import { ensureTier, VIEW_DATABASES, viewStatements } from './lib/schema.ts';
import { type Check, createRegistry, healthDocument, serveStatus, untilStopped } from './lib/service.ts';
import { durableName, streamOf } from './lib/streams.ts';

/** Each ten seconds: what is new is little then, and cold is never far behind. */
const SCHEDULE = '*/10 * * * * *';
/** Windows of one table before the next table has its turn. */
const MAX_WINDOWS = 20;
/** A window that failed is tried again, on fresh connections, so often and after these waits: doubling from the first. */
const RETRIES = 3;
const FIRST_WAIT_MS = 1000;
/** Hot keeps what arrived in the last three days. */
const KEEP_MS = 3 * 86_400_000;
/** Days are looked at this often. */
const DAYS_EVERY_MS = 3_600_000;
/** Minutes of lag that are told in health, and those that are alarmed; hot's own end is seven days. */
const LAG_DEGRADED_MIN = 60;
const LAG_ALARMS_H = [12, 24, 48];
/** Above `max_execution_time`. */
const REQUEST_TIMEOUT_MS = 120_000;
const HOUR_MS = 3_600_000;

class Replicator {
  readonly startedAt = Date.now();
  readonly tables: TableReplication[];
  private readonly options: ReplicationOptions;
  private clients: ClickHouseClient[] = [];
  private lastDaysAt = 0;
  private alarmed = 0;
  lastPassAt = 0;
  lastError: string | null = null;

  constructor(
    readonly config: Config,
    private readonly manager: JetStreamManager,
    private readonly stop: AbortSignal,
    private readonly log: Logger,
  ) {
    this.options = {
      hot: { client: this.connect(config.clickhouseUrl), database: config.hotDatabase },
      cold: { client: this.connect(config.coldClickhouseUrl), database: config.coldDatabase },
      isOneServer: config.clickhouseUrl === config.coldClickhouseUrl,
      log,
    };
    this.tables = replications(this.options);
  }

  private connect(url: string): ClickHouseClient {
    const { clickhouseUser: username, clickhousePassword: password } = this.config;
    const client = createClickHouse({ url, username, password }, 'marketprism-replicate', REQUEST_TIMEOUT_MS);
    this.clients.push(client);
    return client;
  }

  /** Waits for both servers, makes sure of tables and views, and of no query of an earlier run. */
  async prepare(): Promise<void> {
    const { hot, cold } = this.options;
    const { config } = this;
    for (let wait = FIRST_WAIT_MS; ; wait = Math.min(wait * 2, 10_000)) {
      try {
        await ensureTier(hot.client, 'hot', config.hotDatabase);
        await ensureTier(cold.client, 'cold', config.coldDatabase);
        if (this.options.isOneServer) {
          const views = viewStatements(VIEW_DATABASES[config.mode], config.hotDatabase, config.coldDatabase);
          for (const query of views) await hot.client.command({ query });
        }
        await this.fenced();
        return;
      } catch (error) {
        this.stop.throwIfAborted();
        this.log.warn({ event: 'database_away', url: shownUrl(config.clickhouseUrl), err: error, wait_ms: wait });
        await pause(wait, this.stop);
      }
    }
  }

  /** One round over all tables. @returns whether all that is settled is in cold */
  async pass(onWindow?: (rows: number) => void): Promise<boolean> {
    let isComplete = true;
    for (const table of this.tables) {
      if (table.stats.isStopped) {
        isComplete = false;
        continue;
      }
      isComplete = (await this.replicate(table, onWindow)) && isComplete;
    }
    await this.measure();
    if (Date.now() - this.lastDaysAt > DAYS_EVERY_MS) await this.dropDays();
    this.lastPassAt = Date.now();
    return isComplete;
  }

  /** @returns whether all of this table that is settled is in cold */
  private async replicate(table: TableReplication, onWindow?: (rows: number) => void): Promise<boolean> {
    for (let attempt = 1, wait = FIRST_WAIT_MS; ; attempt += 1, wait *= 2) {
      try {
        const settled = await this.settled(table);
        while (await table.run(settled, MAX_WINDOWS, onWindow)) this.stop.throwIfAborted();
        this.lastError = null;
        return true;
      } catch (error) {
        this.stop.throwIfAborted();
        this.lastError = (error as Error).message.slice(0, 300);
        const figures = { table: table.name, attempt, err: error };
        if (error instanceof Disagreement) {
          this.log.error(
            { event: 'table_stopped', ...figures },
            'cold holds what hot does not say: look before it goes on',
          );
          return false;
        }
        this.log.warn({ event: 'window_failed', ...figures, wait_ms: wait });
        if (attempt === RETRIES) return false;
        await pause(wait, this.stop);
        await this.reconnect();
      }
    }
  }

  /** After an unclear answer: fresh connections, and no copy that may still be under way. */
  private async reconnect(): Promise<void> {
    const old = this.clients;
    this.clients = [];
    this.options.hot.client = this.connect(this.config.clickhouseUrl);
    this.options.cold.client = this.connect(this.config.coldClickhouseUrl);
    await Promise.all(old.map((client) => client.close()));
    await this.fenced().catch((error: unknown) => this.log.warn({ event: 'fence_failed', err: error }));
  }

  private async fenced(): Promise<void> {
    await fence(this.options.hot.client, QUERY_PREFIX, this.stop);
    if (!this.options.isOneServer) await fence(this.options.cold.client, QUERY_PREFIX, this.stop);
  }

  private settled(table: TableReplication): Promise<Place[]> {
    return settledPlaces(this.options.hot, table.type, async (type) => {
      const info = await this.manager.consumers.info(streamOf(type).name, durableName(type));
      return info.ack_floor.stream_seq;
    });
  }

  private async measure(): Promise<void> {
    for (const table of this.tables) {
      try {
        await table.measureLag(Date.now());
      } catch (error) {
        table.stats.lag_minutes = null;
        this.log.warn({ event: 'lag_unknown', table: table.name, err: error });
      }
    }
    const hours = this.worstLag / 60;
    const reached = LAG_ALARMS_H.filter((alarm) => hours >= alarm).length;
    if (reached > this.alarmed) this.log.error({ event: 'replication_lag', hours: Math.round(hours * 10) / 10 });
    this.alarmed = reached;
  }

  private async dropDays(): Promise<void> {
    this.lastDaysAt = Date.now();
    for (const table of this.tables) {
      try {
        await dropOldDays(table, this.options, KEEP_MS, Date.now());
      } catch (error) {
        // The day stays, and is looked at again.
        this.log.warn({ event: 'days_not_dropped', table: table.name, err: error });
      }
    }
  }

  /** Minutes; a lag that cannot be measured counts as none here, and is told apart. */
  get worstLag(): number {
    return Math.max(0, ...this.tables.map(({ stats }) => stats.lag_minutes ?? 0));
  }

  /** Event times hour by hour. @returns rows of hot in that time */
  async backfill(from: number, to: number, onHour: (done: number, rows: number) => void): Promise<number> {
    let rows = 0;
    const hours = Math.ceil((to - from) / HOUR_MS);
    for (let hour = 0; hour < hours; hour += 1) {
      const [begin, end] = [from + hour * HOUR_MS, Math.min(from + (hour + 1) * HOUR_MS, to)];
      const where = `timestamp >= fromUnixTimestamp64Milli(toInt64(${begin}), 'UTC') AND timestamp < fromUnixTimestamp64Milli(toInt64(${end}), 'UTC')`;
      for (const table of this.tables) {
        this.stop.throwIfAborted();
        const { wanted } = await table.transfer(
          where,
          `${new Date(begin).toISOString()} to ${new Date(end).toISOString()}`,
        );
        rows += wanted.rows;
      }
      onHour((hour + 1) / hours, rows);
    }
    return rows;
  }

  health() {
    const checks: Record<string, Check> = {};
    for (const { name, stats } of this.tables) {
      const { isStopped, lag_minutes: lag, lastError } = stats;
      const isLate = lag === null || lag > LAG_ALARMS_H[0]! * 60;
      const message = isStopped
        ? `stopped: ${lastError}`
        : lag === null
          ? 'its lag cannot be measured'
          : lag > LAG_DEGRADED_MIN
            ? `${Math.round(lag)} minutes behind`
            : lastError;
      checks[name] = {
        status: isStopped || isLate ? 'unhealthy' : message === null ? 'healthy' : 'degraded',
        error_message: message,
        details: stats,
      };
    }
    const sum = (field: 'success_windows' | 'failed_windows') =>
      this.tables.reduce((total, { stats }) => total + stats[field], 0);
    return healthDocument('replicate', this.startedAt, this.config.healthGraceSeconds, checks, {
      success_windows: sum('success_windows'),
      failed_windows: sum('failed_windows'),
      lag_minutes: Object.fromEntries(this.tables.map(({ name, stats }) => [name, stats.lag_minutes])),
      last_pass: this.lastPassAt === 0 ? null : new Date(this.lastPassAt).toISOString(),
    });
  }

  async close(): Promise<void> {
    await Promise.all(this.clients.map((client) => client.close()));
  }
}

function registerMetrics(replicator: Replicator) {
  const registry = createRegistry();
  for (const [name, help] of [
    ['success_windows', 'windows that are equal in hot and cold'],
    ['failed_windows', 'windows that could not be brought to that'],
    ['rows', 'rows that were compared'],
    ['copied', 'rows that cold had lacked'],
    ['lag_minutes', 'since the arrival of the oldest row that is not in cold'],
  ] as const) {
    new Gauge({
      name: `marketprism_replication_${name}`,
      help,
      labelNames: ['table'],
      registers: [registry],
      collect() {
        this.reset();
        for (const table of replicator.tables) {
          const value = table.stats[name];
          if (value !== null) this.set({ table: table.name }, value);
        }
      },
    });
  }
  return registry;
}

/** Replicates on schedule until stopped. */
async function serve(replicator: Replicator, config: Config, stop: AbortSignal, log: Logger): Promise<void> {
  const http = { health: () => replicator.health(), registry: registerMetrics(replicator), log };
  const server = await serveStatus({ ...http, port: config.replicatePort, portName: 'COLD_STORAGE_HTTP_PORT' });
  log.info({ event: 'started', health: server.port });
  const round = async () => {
    try {
      await replicator.pass();
    } catch (error) {
      if (!stop.aborted) log.error({ event: 'pass_failed', err: error });
    }
  };
  await round();
  const cron = new Cron(SCHEDULE, { protect: true, timezone: 'UTC' }, round);
  await new Promise<void>((done) => {
    if (stop.aborted) done();
    stop.addEventListener('abort', () => done(), { once: true });
  });
  cron.stop();
  // What is under way ends by itself or at the next start's fence.
  while (cron.isBusy()) await pause(50);
  await server.close();
}

async function main(): Promise<number> {
  const { span, rest } = readSpan(process.argv.slice(2));
  const options = flags(USAGE, { once: { type: 'boolean', default: false } }, rest);
  const config = loadConfig();
  const log = createLogger('replicate');
  mkdirSync(config.dataDir, { recursive: true });
  const lock = await takeLock(config.dataDir, 'replicate');
  const abort = new AbortController();
  const stop = abort.signal;
  setMaxListeners(0, stop);
  void untilStopped(log).then(() => abort.abort(new Error('stopped')));
  const nats: NatsConnection = await connectNats(config.natsUrl, 'replicate', log);
  const replicator = new Replicator(config, await nats.jetstreamManager(), stop, log);
  let code = 0;
  try {
    await replicator.prepare();
    if (span !== null) {
      const rows = await replicator.backfill(span.from, span.to, progressLine);
      process.stdout.write(`\n${rows} rows of hot in that time are in cold\n`);
    } else if (options.once) {
      code = (await replicator.pass()) ? 0 : 1;
      log.info({
        event: 'replicated',
        complete: code === 0,
        rows: replicator.tables.map(({ name, stats }) => [name, stats.rows]),
      });
    } else await serve(replicator, config, stop, log);
  } catch (error) {
    if (!stop.aborted) throw error;
  }
  log.info({ event: 'stopped' });
  await Promise.all([replicator.close(), nats.close()]);
  await lock.release();
  if (options.once || span !== null) process.exit(code);
  return code;
}

function progressLine(done: number, rows: number): void {
  const width = 30;
  const bar = '#'.repeat(Math.round(done * width)).padEnd(width, '.');
  const line = `[${bar}] ${Math.round(done * 100)} %  ${rows} rows`;
  process.stdout.write(process.stdout.isTTY ? `\r\x1b[K${line}` : `${line}\n`);
}

/** Takes `--backfill FROM TO` out of the arguments. @throws UsageError when that are no two times */
function readSpan(argv: string[]): { span: { from: number; to: number } | null; rest: string[] } {
  const place = argv.indexOf('--backfill');
  if (place < 0) return { span: null, rest: argv };
  const [from, to] = argv.slice(place + 1, place + 3).map((text) => {
    const isUtc = !text.includes('T') || /(Z|[+-]\d\d:?\d\d)$/.test(text);
    return Date.parse(isUtc ? text : `${text}Z`);
  });
  if (from === undefined || to === undefined || !(from < to)) {
    throw new UsageError(
      '--backfill takes FROM TO as UTC times such as 2026-11-20 2026-11-21T12:00:00Z, the first before the second',
    );
  }
  return { span: { from, to }, rest: [...argv.slice(0, place), ...argv.slice(place + 3)] };
}

runAsScript(import.meta.url, main);
