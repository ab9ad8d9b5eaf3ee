/** What the suites share that run the real processes: their CPU time, and rows as they stand in hot. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { ClickHouseClient } from '@clickhouse/client';
import { createClickHouse } from '../../scripts/lib/clickhouse.ts';
import { readProcesses, treeOf } from '../../scripts/lib/procfs.ts';
import { Pipeline } from '../pipeline.ts';

/** The bulk of the rows: the other tables get some a second. */
export const BULK_TABLES = ['trades', 'orderbook_updates'] as const;

/** Pairs that the simulated venue makes up where it does not know them. */
export function symbols(count: number): string[] {
  const known = ['BTC-USDT', 'ETH-USDT', 'SOL-USDT', 'BNB-USDT', 'XRP-USDT', 'DOGE-USDT'];
  return Array.from({ length: count }, (_, i) => known[i] ?? `C${i}-USDT`);
}

/** Rows of the bulk tables in hot. */
export async function rowsInHot(pipeline: Pipeline): Promise<number> {
  const counts = BULK_TABLES.map((table) => `(SELECT count() FROM marketprism_hot.${table})`);
  return Number((await pipeline.query(`SELECT ${counts.join(' + ')}`))[0]![0]);
}

/** CPU seconds of each process of the pipeline so far, its children included. */
export function cpuSeconds(pipeline: Pipeline): Map<string, number> {
  const processes = readProcesses();
  return new Map(
    [...pipeline.children].flatMap(([name, { pid }]) =>
      pid === undefined ? [] : [[name, treeOf(processes, pid).reduce((sum, each) => sum + each.cpuSeconds, 0)]],
    ),
  );
}

/** What each process took between two looks, µs of CPU per row, the dearest first; and the share of its time that each was at work. */
export function costOf(
  before: ReadonlyMap<string, number>,
  after: ReadonlyMap<string, number>,
  seconds: number,
  rows: number,
): string {
  const used = [...after].map(([name, now]) => ({ name, cpu: now - before.get(name)! }));
  used.sort((one, other) => other.cpu - one.cpu);
  const total = used.reduce((sum, { cpu }) => sum + cpu, 0);
  const shown = used.map(
    ({ name, cpu }) => `${name} ${((cpu / rows) * 1e6).toFixed(2)} (${Math.round((100 * cpu) / seconds)} % of a core)`,
  );
  return `µs of CPU a row: ${((total / rows) * 1e6).toFixed(2)}, of which ${shown.join(', ')}`;
}

/** Of the rows; the others are depth updates with 20 levels. */
const TRADE_SHARE = 0.8;
/** Compilers and merges have settled by then. */
const WARM_UP_MS = 15_000;

/**
 * A market that begins at its highest rate meets a collector whose code no compiler has seen yet, and which asks for all books at once: what is
 * measured is what can be kept up. So it sends for a part of each half second first, and for more of it from step to step.
 */
const WARM_UP_SHARES = [0.25, 0.5, 0.75];
const SHARE_MS = 3000;
const STROKE_MS = 500;

async function runFor(pipeline: Pipeline, share: number): Promise<void> {
  for (let ms = 0; ms < SHARE_MS; ms += STROKE_MS) {
    await pipeline.simulate({ action: 'start' });
    await sleep(STROKE_MS * share);
    await pipeline.simulate({ action: 'stop' });
    await sleep(STROKE_MS * (1 - share));
  }
}

export interface FlowOptions {
  /** Rows a second that the venue sends, one a frame, over all symbols. */
  offered: number;
  symbols: number;
}

/** The simulated venue, collector, broker, store and database, all warm and in full flow, for as long as `work` takes. */
export async function inFlow<T>(
  { offered, symbols: count }: FlowOptions,
  work: (pipeline: Pipeline) => Promise<T>,
): Promise<T> {
  const names = symbols(count);
  const pipeline = new Pipeline({
    MARKETPRISM_EXCHANGES: 'binance_spot',
    MARKETPRISM_SYMBOLS: names.join(','),
    // As an operator has them, and not as tests hurry.
    MARKETPRISM_ACK_WAIT_SECONDS: '60',
    MARKETPRISM_GAP_AGE: '30s',
  });
  const [trades, diffs] = [TRADE_SHARE, 1 - TRADE_SHARE].map((share) => String((offered / count) * share));
  try {
    await pipeline.choosePorts();
    await pipeline.startBroker();
    await pipeline.startDatabase();
    await pipeline.startStore();
    const rates = ['--trades-per-second', trades!, '--diffs-per-second', diffs!];
    await pipeline.startSimulator(['--symbols', names.join(','), ...rates]);
    await pipeline.startCollector();
    for (const share of WARM_UP_SHARES) await runFor(pipeline, share);
    await pipeline.simulate({ action: 'start' });
    await sleep(WARM_UP_MS);
    return await work(pipeline);
  } finally {
    await pipeline.close();
  }
}

export interface Window {
  rowsPerSecond: number;
  seconds: number;
  /** µs of CPU a row, all processes together. */
  microsPerRow: number;
  cost: string;
}

/** What is stored, and what it costs, for a while. @throws Error when a process ended meanwhile: what it took is not known then */
export async function watch(pipeline: Pipeline, ms: number): Promise<Window> {
  const pids = new Map([...pipeline.children].map(([name, { pid }]) => [name, pid]));
  const [cpu, rows, begun] = [cpuSeconds(pipeline), await rowsInHot(pipeline), performance.now()];
  await sleep(ms);
  const stored = (await rowsInHot(pipeline)) - rows;
  const seconds = (performance.now() - begun) / 1000;
  const after = cpuSeconds(pipeline);
  for (const [name, { pid }] of pipeline.children) {
    if (pid !== pids.get(name)) throw new Error(`${name} ended while it was measured, and was started again`);
  }
  const used = [...after].reduce((sum, [name, now]) => sum + now - cpu.get(name)!, 0);
  return {
    rowsPerSecond: stored / seconds,
    seconds,
    microsPerRow: (used / stored) * 1e6,
    cost: costOf(cpu, after, seconds, stored),
  };
}

/** A database of its own, for as long as `work` takes. */
export async function withDatabase<T>(
  work: (client: ClickHouseClient, pipeline: Pipeline) => Promise<T>,
  requestTimeoutMs?: number,
): Promise<T> {
  const pipeline = new Pipeline();
  await pipeline.choosePorts();
  await pipeline.startDatabase();
  const server = { url: pipeline.env.CLICKHOUSE_URL!, username: 'default', password: '' };
  const client = createClickHouse(server, 'bench', requestTimeoutMs);
  try {
    return await work(client, pipeline);
  } finally {
    await client.close();
    await pipeline.close();
  }
}
