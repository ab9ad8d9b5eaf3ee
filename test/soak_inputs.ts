/** Samples of soak runs for tests: as many as are asked for, in which everything is well unless a test makes it otherwise. */
import type { Evidence } from '../scripts/lib/soak/criterion.ts';
import { History, type ProcessSample, type Sample } from '../scripts/lib/soak/history.ts';
import type { Round } from '../scripts/lib/soak/logs.ts';
import type { SoakStop } from '../scripts/lib/soak/report.ts';

export const BEGAN = Date.UTC(2026, 10, 24, 8);
export const MINUTE = 60_000;
export const MIB = 2 ** 20;
export const NAMES = ['store', 'collector', 'correlation_alert', 'exchange_sim'];

export function process(changes: Partial<ProcessSample> = {}): ProcessSample {
  const counts = { threads: 12, fds: 30, loop_delay_ms: 11, connections: 4 };
  return { pid: 100, rss_bytes: 100 * MIB, cpu_percent: 5, ...counts, ...changes };
}

export function round(at: number, changes: Partial<Round> = {}): Round {
  return { at, seconds: 2, computeSeconds: 1, coins: 20, hitRate: 0.95, btcAgeSeconds: 120, ...changes };
}

export function sample(i: number, changes: Partial<Sample> = {}): Sample {
  const at = BEGAN + i * MINUTE;
  return {
    ...{ at, isPaused: false, errors: new Map(), rounds: [round(at)], queries: { done: 500, failed: 0 }, load: 1 },
    processes: new Map(NAMES.map((name, n) => [name, process({ pid: 100 + n, rss_bytes: (100 + (i % 3)) * MIB })])),
    tables: [
      { database: 'hot', table: 'trades', rows: i * 1000 },
      { database: 'hot', table: 'gaps', rows: 0 },
    ],
    ...{ rows: i * 1000, latencyP50Ms: 150, latencyP99Ms: 400, candleAgeMs: 120_000 },
    ...changes,
  };
}

/** @param change what differs in a sample, from 1 */
export function historyOf(count: number, change: (i: number) => Partial<Sample> = () => ({})): History {
  const history = new History();
  for (let i = 1; i <= count; i++) history.add(sample(i, change(i)));
  return history;
}

export const STOPPED: SoakStop = { at: BEGAN, what: 'store', ok: true, took_ms: 900, note: null };

/** A run of a sample a minute that is over. */
export function evidenceOf(history: History, changes: Partial<Evidence> = {}): Evidence {
  const elapsedMs = history.times.length * MINUTE;
  const row = { exchange: 'okx_spot', data_type: 'trade', sent: 10, received: 10, hot: 10, cold: 10, gap: 0 };
  return {
    ...{ forMs: elapsedMs, elapsedMs, isOver: true, history, samplesMissing: 0, roundSeconds: 60, roundsMissing: 0 },
    ...{ analysisErrors: 0, unplannedEnds: 0, stops: [STOPPED], stopsDone: 2 },
    ledger: { balanced: true, rows: [{ ...row, lost: 0, duplicated: 0 }] },
    ...changes,
  };
}
