/**
 * What the files of the harvest amount to: rows of a symbol are counted as they are read, and become figures, by symbol and together. Nothing is
 * judged here; that is done in validate_gates.ts.
 */
import { HARVEST_KINDS, type HarvestKind } from './kinds.ts';
import type { SliceRow } from './slices.ts';

/** Latencies are counted by the ms, up to this; longer ones as this one. */
const LONGEST_MS = 60_000;
const MINUTE_MS = 60_000;
const HOUR_SECONDS = 3600;
/** The harvest tells of a silence after so long without anything, ms. */
const SILENT_AFTER_MS = 60_000;

export interface Figures {
  rows: number;
  rows_of: Partial<Record<HarvestKind, number>>;
  first_ts_ms: number | null;
  last_ts_ms: number | null;
  minutes: number;
  empty_minutes: number;
  /** Of the empty ones, those that an event of type gap tells of. */
  known_empty_minutes: number;
  duplicates: number;
  duplicates_of: Partial<Record<HarvestKind, number>>;
  latency_p50_ms: number | null;
  latency_p99_ms: number | null;
  latency_unknown: number;
  /** Without gaps. */
  events: number;
  gaps: number;
  seconds: number;
  missing_seconds: number;
  known_missing_seconds: number;
  repeated_seconds: number;
}

/** How often each number of whole ms came. */
export class Latencies {
  count = 0;
  unknown = 0;
  private readonly bins = new Uint32Array(LONGEST_MS + 1);

  add(latency: unknown): void {
    if (typeof latency !== 'number' || !(latency >= 0)) {
      this.unknown += 1;
      return;
    }
    const bin = Math.min(Math.floor(latency), LONGEST_MS);
    this.bins[bin] = this.bins[bin]! + 1;
    this.count += 1;
  }

  addAll(other: Latencies): void {
    for (const [bin, count] of other.bins.entries()) this.bins[bin] = this.bins[bin]! + count;
    this.count += other.count;
    this.unknown += other.unknown;
  }

  /** The least latency, in ms, that a share of all does not exceed; null without any. @param share 0 to 1 */
  quantile(share: number): number | null {
    if (this.count === 0) return null;
    const rank = Math.max(Math.ceil(share * this.count), 1);
    let seen = 0;
    for (let bin = 0; ; bin += 1) {
      seen += this.bins[bin]!;
      if (seen >= rank) return bin;
    }
  }
}

interface Span {
  from: number;
  to: number;
}

/** A bit for each second, by hour. */
class Seconds {
  count = 0;
  first = Number.POSITIVE_INFINITY;
  last = Number.NEGATIVE_INFINITY;
  private readonly hours = new Map<number, Uint8Array>();

  /** @param second since the epoch */
  add(second: number): void {
    const hour = Math.floor(second / HOUR_SECONDS);
    let bits = this.hours.get(hour);
    if (!bits) this.hours.set(hour, (bits = new Uint8Array(HOUR_SECONDS / 8)));
    const at = second - hour * HOUR_SECONDS;
    const bit = 1 << (at & 7);
    if ((bits[at >> 3]! & bit) === 0) this.count += 1;
    bits[at >> 3] = bits[at >> 3]! | bit;
    this.first = Math.min(this.first, second);
    this.last = Math.max(this.last, second);
  }

  has(second: number): boolean {
    const hour = Math.floor(second / HOUR_SECONDS);
    const at = second - hour * HOUR_SECONDS;
    return ((this.hours.get(hour)?.[at >> 3] ?? 0) & (1 << (at & 7))) !== 0;
  }
}

/** All rows of one symbol, as they are read. Memory does not depend on their number, but for ids of one file and the minutes. */
export class SymbolCheck {
  readonly latencies = new Latencies();
  private readonly rowsOf: Partial<Record<HarvestKind, number>> = {};
  private readonly duplicatesOf: Partial<Record<HarvestKind, number>> = {};
  private span: Span | null = null;
  private readonly minutes = new Set<number>();
  private readonly silences: Span[] = [];
  /** Minutes of trades before which others are missing. */
  private readonly holes = new Set<number>();
  private readonly seconds = new Seconds();
  private events = 0;
  private gaps = 0;
  private repeated = 0;

  /** Rows of another file. */
  reader(kind: HarvestKind): (row: SliceRow) => void {
    this.rowsOf[kind] ??= 0;
    this.duplicatesOf[kind] ??= 0;
    const told = new Set<string>();
    return (row) => {
      const time = row.ts_ms as number;
      this.rowsOf[kind]! += 1;
      this.span = { from: Math.min(this.span?.from ?? time, time), to: Math.max(this.span?.to ?? time, time) };
      if (kind === 'prices') this.minutes.add(Math.floor(time / MINUTE_MS));
      if (kind === 'prices' || kind === 'orderbook') this.latencies.add(row.latency_ms);
      if (kind === 'events') this.event(row, time);
      if (kind === 'features') this.second(row, told);
    };
  }

  duplicate(kind: HarvestKind): void {
    this.duplicatesOf[kind]! += 1;
  }

  private event({ event_type, meta_json }: SliceRow, time: number): void {
    if (event_type !== 'gap') {
      this.events += 1;
      return;
    }
    this.gaps += 1;
    const { cause, from, to } = metaOf(meta_json);
    if (cause === 'silence' && typeof from === 'number' && typeof to === 'number') this.silences.push({ from, to });
    if (cause === 'missing_trades') this.holes.add(Math.floor(time / MINUTE_MS));
  }

  private second({ second_ts, revision }: SliceRow, told: Set<string>): void {
    const name = `${String(second_ts)} ${String(revision)}`;
    if (told.has(name)) this.repeated += 1;
    told.add(name);
    if (typeof second_ts === 'number') this.seconds.add(Math.floor(second_ts / 1000));
  }

  figures(): Figures {
    const { span, seconds } = this;
    const sum = (of: Partial<Record<HarvestKind, number>>) =>
      Object.values(of).reduce((total, each) => total + each, 0);
    return {
      ...{
        rows: sum(this.rowsOf),
        rows_of: this.rowsOf,
        first_ts_ms: span?.from ?? null,
        last_ts_ms: span?.to ?? null,
      },
      ...this.minuteFigures(),
      ...{ duplicates: sum(this.duplicatesOf), duplicates_of: this.duplicatesOf },
      ...latencyFigures(this.latencies),
      ...{ events: this.events, gaps: this.gaps, seconds: seconds.count, ...this.missingSeconds() },
      repeated_seconds: this.repeated,
    };
  }

  private minuteFigures(): Pick<Figures, 'minutes' | 'empty_minutes' | 'known_empty_minutes'> {
    const sorted = Float64Array.from(this.minutes).sort();
    if (sorted.length === 0) return { minutes: 0, empty_minutes: 0, known_empty_minutes: 0 };
    let known = 0;
    for (const [i, minute] of sorted.entries()) {
      const before = i === 0 ? minute - 1 : sorted[i - 1]!;
      for (let empty = before + 1; empty < minute; empty += 1) if (this.isKnownEmpty(empty, minute)) known += 1;
    }
    const minutes = sorted[sorted.length - 1]! - sorted[0]! + 1;
    return { minutes, empty_minutes: minutes - sorted.length, known_empty_minutes: known };
  }

  /** @param next the next minute that is not empty */
  private isKnownEmpty(minute: number, next: number): boolean {
    if (this.holes.has(next)) return true;
    const [start, end] = [minute * MINUTE_MS, (minute + 1) * MINUTE_MS];
    return this.silences.some(({ from, to }) => from - SILENT_AFTER_MS < end && to > start);
  }

  private missingSeconds(): Pick<Figures, 'missing_seconds' | 'known_missing_seconds'> {
    const { seconds } = this;
    let [missing, known] = [0, 0];
    for (let second = seconds.first; second <= seconds.last; second += 1) {
      if (seconds.has(second)) continue;
      missing += 1;
      if (this.silences.some(({ from, to }) => from <= second * 1000 && second * 1000 < to)) known += 1;
    }
    return { missing_seconds: missing, known_missing_seconds: known };
  }
}

function metaOf(text: unknown): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(String(text));
    return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {};
  } catch {
    // A gap that does not say which explains nothing.
    return {};
  }
}

function latencyFigures(latencies: Latencies) {
  return {
    latency_p50_ms: latencies.quantile(0.5),
    latency_p99_ms: latencies.quantile(0.99),
    latency_unknown: latencies.unknown,
  };
}

/** Of several symbols: what is counted is added up. */
export function together(all: readonly Figures[], latencies: Latencies): Figures {
  const sum = (of: (each: Figures) => number) => all.reduce((total, each) => total + of(each), 0);
  const perKind = (of: (each: Figures) => Partial<Record<HarvestKind, number>>) => {
    const kinds = HARVEST_KINDS.filter((kind) => all.some((each) => of(each)[kind] !== undefined));
    return Object.fromEntries(kinds.map((kind) => [kind, sum((each) => of(each)[kind] ?? 0)]));
  };
  const times = all.flatMap(({ first_ts_ms, last_ts_ms }) => (first_ts_ms === null ? [] : [first_ts_ms, last_ts_ms!]));
  return {
    rows: sum((each) => each.rows),
    rows_of: perKind((each) => each.rows_of),
    first_ts_ms: times.length === 0 ? null : Math.min(...times),
    last_ts_ms: times.length === 0 ? null : Math.max(...times),
    minutes: sum((each) => each.minutes),
    empty_minutes: sum((each) => each.empty_minutes),
    known_empty_minutes: sum((each) => each.known_empty_minutes),
    duplicates: sum((each) => each.duplicates),
    duplicates_of: perKind((each) => each.duplicates_of),
    ...latencyFigures(latencies),
    events: sum((each) => each.events),
    gaps: sum((each) => each.gaps),
    seconds: sum((each) => each.seconds),
    missing_seconds: sum((each) => each.missing_seconds),
    known_missing_seconds: sum((each) => each.known_missing_seconds),
    repeated_seconds: sum((each) => each.repeated_seconds),
  };
}
