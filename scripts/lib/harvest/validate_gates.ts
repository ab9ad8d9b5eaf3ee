/** What figures of the harvest are worth: gates that are passed, missed, or not judged, which is neither, and what they make of the whole. */
import { HOUR_MS } from './slices.ts';
import type { Figures } from './validate_figures.ts';

/** Of all minutes from the first price to the last, those without one. */
const MOST_EMPTY = 0.001;
/** Of rows, those whose id came before. */
const MOST_DUPLICATES = 0.005;
const P50_BELOW_MS = 60;
const P99_BELOW_MS = 120;
const LEAST_EVENTS = 1000;
const EVENTS_SPAN_MS = 72 * HOUR_MS;
/** For shares of few minutes. */
const LEAST_MINUTES = 2;

export type GateStatus = 'passed' | 'missed' | 'not_judged';

export interface Gate {
  gate: 'empty_minutes' | 'duplicates' | 'latency_p50' | 'latency_p99' | 'events' | 'seconds' | 'manifest';
  status: GateStatus;
  /** Null where it could not be measured. */
  value: number | null;
  limit: string;
  /** Why it was not judged, or what belongs to it. */
  detail: string | null;
}

export interface Verdict {
  figures: Figures;
  gates: Gate[];
}

export const VALIDATION_CODES = { healthy: 0, degraded: 1, unhealthy: 2, could_not_check: 3 } as const;
export type ValidationStatus = keyof typeof VALIDATION_CODES;

export interface Validation {
  status: ValidationStatus;
  root: string;
  from: string | null;
  to: string | null;
  files: number;
  hours: number;
  symbols: Record<string, Verdict>;
  all: Verdict;
  /** Lines that are no row, and how many there are in all. */
  bad_lines: { path: string; line: number; why: string }[];
  bad_line_count: number;
  /** Rows whose id came before in their file; the first ones. */
  duplicate_rows: { path: string; row_id: string }[];
  manifests: { hours: number; without: number; faults: string[] };
}

/** What the figures of a symbol, or of all, say of each gate. */
export function gatesOf(figures: Figures): Gate[] {
  return [emptyMinutes(figures), duplicates(figures), ...latency(figures), events(figures), seconds(figures)];
}

const judged = (isPassed: boolean): GateStatus => (isPassed ? 'passed' : 'missed');

/** Minutes that are known to be a gap are empty, too: that is told beside, and excuses nothing. */
function emptyMinutes({ minutes, empty_minutes, known_empty_minutes }: Figures): Gate {
  const base = { gate: 'empty_minutes', limit: `< ${MOST_EMPTY * 100} %` } as const;
  if (minutes < LEAST_MINUTES)
    return { ...base, status: 'not_judged', value: null, detail: `prices of ${minutes} minutes` };
  const value = empty_minutes / minutes;
  const detail =
    empty_minutes === 0 ? null : `${empty_minutes} of ${minutes} minutes, ${known_empty_minutes} known as gaps`;
  return { ...base, status: judged(value < MOST_EMPTY), value, detail };
}

function duplicates({ rows, duplicates: count, duplicates_of }: Figures): Gate {
  const base = { gate: 'duplicates', limit: `< ${MOST_DUPLICATES * 100} %` } as const;
  if (rows === 0) return { ...base, status: 'not_judged', value: null, detail: 'no rows' };
  const of = Object.entries(duplicates_of).filter(([, each]) => each > 0);
  const detail = of.length === 0 ? null : of.map(([kind, each]) => `${kind} ${each}`).join(', ');
  return { ...base, status: judged(count / rows < MOST_DUPLICATES), value: count / rows, detail };
}

function latency({ latency_p50_ms, latency_p99_ms, latency_unknown }: Figures): Gate[] {
  const detail = latency_unknown === 0 ? null : `${latency_unknown} rows without a latency`;
  const gate = (name: 'latency_p50' | 'latency_p99', value: number | null, below: number): Gate => ({
    gate: name,
    status: value === null ? 'not_judged' : judged(value < below),
    value,
    limit: `< ${below} ms`,
    detail: value === null ? (detail ?? 'no prices and no books') : detail,
  });
  return [gate('latency_p50', latency_p50_ms, P50_BELOW_MS), gate('latency_p99', latency_p99_ms, P99_BELOW_MS)];
}

/** Of less than 72 hours nothing is concluded. */
function events({ events: count, first_ts_ms, last_ts_ms }: Figures): Gate {
  const base = { gate: 'events', limit: `>= ${LEAST_EVENTS} in 72 h` } as const;
  const span = first_ts_ms === null ? 0 : last_ts_ms! - first_ts_ms;
  const detail = `${count} in ${(span / HOUR_MS).toFixed(1)} h`;
  if (span < EVENTS_SPAN_MS) return { ...base, status: 'not_judged', value: null, detail };
  const value = (count * EVENTS_SPAN_MS) / span;
  return { ...base, status: judged(value >= LEAST_EVENTS), value, detail };
}

function seconds({ seconds: count, missing_seconds, known_missing_seconds, repeated_seconds }: Figures): Gate {
  const base = { gate: 'seconds', limit: '0 missing without a gap, 0 repeated' } as const;
  if (count === 0) return { ...base, status: 'not_judged', value: null, detail: 'no features' };
  const value = missing_seconds - known_missing_seconds + repeated_seconds;
  const told = `${missing_seconds} missing, ${known_missing_seconds} known as gaps, ${repeated_seconds} repeated`;
  const detail = missing_seconds + repeated_seconds === 0 ? null : told;
  return { ...base, status: judged(value === 0), value, detail };
}

export function manifestGate({ hours, without, faults }: Validation['manifests']): Gate {
  const base = { gate: 'manifest', limit: '0 hours with other rows than their files' } as const;
  const detail = without === 0 ? null : `${without} of ${hours} hours have none`;
  if (hours === without) return { ...base, status: 'not_judged', value: null, detail: detail ?? 'no hour is over' };
  return { ...base, status: judged(faults.length === 0), value: faults.length, detail };
}

/** Faults decide before gates; where nothing could be judged nothing was checked. */
export function statusOf(validation: Omit<Validation, 'status'>): ValidationStatus {
  const { all, symbols, bad_line_count, manifests } = validation;
  if (all.figures.rows === 0 && bad_line_count === 0 && manifests.faults.length === 0) return 'could_not_check';
  if (bad_line_count > 0 || all.figures.duplicates > 0 || all.figures.repeated_seconds > 0) return 'unhealthy';
  const gates = [all, ...Object.values(symbols)].flatMap((each) => each.gates);
  return gates.some(({ status }) => status === 'missed') ? 'degraded' : 'healthy';
}
