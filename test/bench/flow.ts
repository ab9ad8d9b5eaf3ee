/** What the suites share that run the real processes: their CPU time, and rows as they stand in hot. */
import { readProcesses, treeOf } from '../../scripts/lib/procfs.ts';
import type { Pipeline } from '../pipeline.ts';

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
    [...pipeline.children].flatMap(([name, child]) =>
      child.pid === undefined
        ? []
        : [[name, treeOf(processes, child.pid).reduce((sum, each) => sum + each.cpuSeconds, 0)]],
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
  const used = [...after].map(([name, now]) => ({ name, cpu: now - (before.get(name) ?? 0) }));
  used.sort((one, other) => other.cpu - one.cpu);
  const total = used.reduce((sum, { cpu }) => sum + cpu, 0);
  const shown = used.map(
    ({ name, cpu }) => `${name} ${((cpu / rows) * 1e6).toFixed(2)} (${Math.round((100 * cpu) / seconds)} % of a core)`,
  );
  return `µs of CPU a row: ${((total / rows) * 1e6).toFixed(2)}, of which ${shown.join(', ')}`;
}
