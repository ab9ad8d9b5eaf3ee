/** All samples of a run, as columns of one length, and what they come to. Pure: what was measured is passed in. */
import type { Round } from './logs.ts';
import { PROCESS_METRICS, type ProcessMetric, type SoakProcess, type SoakReport, type SoakTable } from './report.ts';
import type { Segment } from './trend.ts';

/** One process at one moment; null: not measured. */
export type ProcessSample = { pid: number } & Record<ProcessMetric, number | null>;

/** Everything at one moment. */
export interface Sample {
  /** ms since the epoch. */
  at: number;
  /** All but the simulated exchanges was stopped on purpose, or was starting again: what is not there is not missing. */
  isPaused: boolean;
  /** Every process that should run, null: it could not be looked at, or was not there. */
  processes: ReadonlyMap<string, ProcessSample | null>;
  /** Lines of level error and above and failed turns since the sample before, by process. */
  errors: ReadonlyMap<string, number>;
  /** Rounds of the correlation alerter since the sample before. */
  rounds: readonly Round[];
  /** Every table that there is; null: the database did not tell. */
  tables: readonly SoakTable[] | null;
  /** Rows of market data in hot since the beginning; null: not counted. */
  rows: number | null;
  latencyP50Ms: number | null;
  latencyP99Ms: number | null;
  /** Age of the newest finished candle of BTC in the database. */
  candleAgeMs: number | null;
  /** Queries that the database answered, and that failed, since the sample before; null: not told. */
  queries: { done: number; failed: number } | null;
  /** 1-minute load average. */
  load: number;
}

/** A process over the run. */
export interface ProcessHistory extends SoakProcess {
  pids: { pid: number; since: number }[];
  /** At which samples it was which process; null: it was not there. */
  pidAt: (number | null)[];
  /** Samples in which it should have been measured and was not. */
  missing: number;
  errors: number;
  /** Samples before which it logged an error or failed a turn. */
  failedIntervals: number;
}

export class History {
  readonly times: number[] = [];
  readonly isPaused: boolean[] = [];
  readonly processes: ProcessHistory[] = [];
  readonly flow: SoakReport['flow'] = {
    ...{ rows: [], errors: [], latency_p50_ms: [], latency_p99_ms: [], cache_hit_rate: [], cache_staleness_ms: [] },
  };
  readonly rounds: Round[] = [];
  readonly queries = { done: 0, failed: 0 };
  readonly loads: number[] = [];
  tables: readonly SoakTable[] = [];
  /** Samples in which tables were counted, and in which they should have been. */
  tablesCounted = 0;
  tablesMissing = 0;
  /** Market rows that are stored: before the first sample those that came while everything was started. */
  rows: number | null = null;
  errors = 0;
  /** Process and sample: each is an interval in which a process may log an error. */
  intervals = 0;

  add(sample: Sample): void {
    this.times.push(sample.at);
    this.isPaused.push(sample.isPaused);
    this.loads.push(sample.load);
    for (const [name, each] of sample.processes) this.addProcess(name, each, sample);
    const { rounds, tables, queries } = sample;
    this.rounds.push(...rounds);
    if (tables !== null) this.tables = tables;
    if (tables !== null) this.tablesCounted += 1;
    else if (!sample.isPaused) this.tablesMissing += 1;
    if (queries !== null) {
      this.queries.done += queries.done;
      this.queries.failed += queries.failed;
    }
    this.addFlow(sample);
  }

  /** What was logged after the last sample: an interval more for each that has an error in it. */
  addLate(errors: ReadonlyMap<string, number>): void {
    for (const [name, count] of errors) {
      const own = this.processes.find((each) => each.name === name);
      if (own === undefined) continue;
      own.errors += count;
      own.failedIntervals += 1;
      this.intervals += 1;
      this.errors += count;
    }
  }

  private addProcess(name: string, sample: ProcessSample | null, { at, isPaused, errors }: Sample): void {
    const own = this.processes.find((each) => each.name === name) ?? this.begin(name);
    for (const metric of PROCESS_METRICS) own[metric].push(sample?.[metric] ?? null);
    own.pidAt.push(sample?.pid ?? null);
    if (sample === null && !isPaused) own.missing += 1;
    if (sample !== null && own.pids.at(-1)?.pid !== sample.pid) own.pids.push({ pid: sample.pid, since: at });
    const count = errors.get(name) ?? 0;
    own.errors += count;
    this.intervals += 1;
    if (count > 0) own.failedIntervals += 1;
  }

  /** A process that is seen for the first time has no earlier samples. */
  private begin(name: string): ProcessHistory {
    const before = this.times.length - 1;
    const column = () => Array<number | null>(before).fill(null);
    const columns = Object.fromEntries(PROCESS_METRICS.map((metric) => [metric, column()])) as Record<
      ProcessMetric,
      (number | null)[]
    >;
    const fresh = { name, restarts: 0, pids: [], pidAt: column(), missing: 0, errors: 0, failedIntervals: 0 };
    this.processes.push({ ...fresh, ...columns });
    return this.processes.at(-1)!;
  }

  private addFlow({ rows, errors, rounds, latencyP50Ms, latencyP99Ms, candleAgeMs }: Sample): void {
    const { flow } = this;
    const counted = [...errors.values()].reduce((sum, each) => sum + each, 0);
    // Beside the rows before it: what a restart or a look that failed left out comes with the next one.
    flow.rows.push(rows === null ? null : rows - (this.rows ?? 0));
    flow.errors.push(counted);
    flow.latency_p50_ms.push(latencyP50Ms);
    flow.latency_p99_ms.push(latencyP99Ms);
    const rates = rounds.flatMap(({ hitRate }) => hitRate ?? []);
    flow.cache_hit_rate.push(rates.length === 0 ? null : rates.reduce((sum, each) => sum + each, 0) / rates.length);
    flow.cache_staleness_ms.push(candleAgeMs);
    this.rows = rows ?? this.rows;
    this.errors += counted;
  }
}

/** Of a segment, what is left out while the process warms up, and the most of it, ms. */
const WARM_UP_SHARE = 1 / 3;
const MOST_WARM_UP_MS = 3_600_000;

/** Resident memory of a process, a segment for each time that it ran, each without its beginning. */
export function memorySegments(times: readonly number[], { pidAt, rss_bytes }: ProcessHistory): Segment[] {
  const segments = new Map<number, { times: number[]; values: number[] }>();
  for (const [i, pid] of pidAt.entries()) {
    const value = rss_bytes[i];
    if (pid === null || value === null || value === undefined) continue;
    let own = segments.get(pid);
    if (own === undefined) segments.set(pid, (own = { times: [], values: [] }));
    own.times.push(times[i]!);
    own.values.push(value);
  }
  return [...segments.values()].map(({ times: all, values }) => {
    const span = all.at(-1)! - all[0]!;
    const from = all[0]! + Math.min(span * WARM_UP_SHARE, MOST_WARM_UP_MS);
    const first = all.findIndex((time) => time >= from);
    return { times: all.slice(first), values: values.slice(first) };
  });
}

/**
 * Rounds that should have begun and did not, in time in which the alerter ran: from the end of one to the next begin, and to the end of the run.
 * @param beganAt when the alerter was started, ms @param pauses in which it was not there @param now up to where is looked
 */
export function missedRounds(
  rounds: readonly Round[],
  intervalMs: number,
  beganAt: number,
  pauses: readonly { from: number; to: number | null }[],
  now: number,
): number {
  const begins = [...rounds.map(({ at, seconds }) => at - seconds * 1000), now];
  const ends = [beganAt, ...rounds.map(({ at }) => at)];
  const away = (from: number, to: number) =>
    pauses.reduce((sum, each) => sum + Math.max(0, Math.min(to, each.to ?? to) - Math.max(from, each.from)), 0);
  return begins.reduce((sum, begin, i) => {
    const wait = begin - ends[i]! - away(ends[i]!, begin);
    // One interval is as it should be; the one that is under way at the end may take another.
    return sum + Math.max(0, Math.floor(wait / intervalMs) - 1);
  }, 0);
}

/** Means over the first and the last third of a column; null without a value. */
export function thirdsOf(values: readonly (number | null)[]): { first: number | null; last: number | null } {
  const known = values.filter((each) => each !== null);
  const third = Math.ceil(known.length / 3);
  return { first: meanOf(known.slice(0, third)), last: meanOf(known.slice(known.length - third)) };
}

/** Least, mean and most of a column; null without a value. */
export function spreadOf(values: readonly (number | null)[]): { least: number; mean: number; most: number } | null {
  const known = values.filter((each) => each !== null);
  const mean = meanOf(known);
  return mean === null ? null : { least: Math.min(...known), mean, most: Math.max(...known) };
}

function meanOf(values: readonly number[]): number | null {
  return values.length === 0 ? null : values.reduce((sum, each) => sum + each, 0) / values.length;
}
