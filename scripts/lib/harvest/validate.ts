/** What the files of the harvest are worth, measured in the files: gates that are passed, missed, or not judged, which is neither. */
import { Progress } from '../progress.ts';
import { HARVEST_KINDS, type HarvestKind } from './kinds.ts';
import { type Manifest, readManifest } from './manifest.ts';
import {
  choiceOf,
  type Extent,
  extentOf,
  HOUR_MS,
  IdSet,
  readSlice,
  type Slice,
  type SliceChoice,
  type SliceFlags,
  type SliceRow,
  slicesOf,
} from './slices.ts';

/** Of all minutes from the first price to the last, those without one. */
const MOST_EMPTY = 0.001;
/** Of rows, those whose id came before. */
const MOST_DUPLICATES = 0.005;
const P50_BELOW_MS = 60;
const P99_BELOW_MS = 120;
const LEAST_EVENTS = 1000;
const EVENTS_SPAN_MS = 72 * HOUR_MS;
/** Latencies are counted by the ms, up to this; longer ones as this one. */
const LONGEST_MS = 60_000;
const MINUTE_MS = 60_000;
const HOUR_SECONDS = 3600;
/** The harvest tells of a silence after so long without anything, ms. */
const SILENT_AFTER_MS = 60_000;
/** So many of each fault are shown; all are counted. */
const SHOWN = 50;
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

// --------------------------------------------------------------------------------------------------------------- counting

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
class SymbolCheck {
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
function together(all: readonly Figures[], latencies: Latencies): Figures {
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

// ----------------------------------------------------------------------------------------------------------------- gates

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

function manifestGate({ hours, without, faults }: Validation['manifests']): Gate {
  const base = { gate: 'manifest', limit: '0 hours with other rows than their files' } as const;
  const detail = without === 0 ? null : `${without} of ${hours} hours have none`;
  if (hours === without) return { ...base, status: 'not_judged', value: null, detail: detail ?? 'no hour is over' };
  return { ...base, status: judged(faults.length === 0), value: faults.length, detail };
}

/** Faults decide before gates; where nothing could be judged nothing was checked. */
function statusOf(validation: Omit<Validation, 'status'>): ValidationStatus {
  const { all, symbols, bad_line_count } = validation;
  if (all.figures.rows === 0 && bad_line_count === 0) return 'could_not_check';
  if (bad_line_count > 0 || all.figures.duplicates > 0 || all.figures.repeated_seconds > 0) return 'unhealthy';
  const gates = [all, ...Object.values(symbols)].flatMap((each) => each.gates);
  return gates.some(({ status }) => status === 'missed') ? 'degraded' : 'healthy';
}

// ------------------------------------------------------------------------------------------------------------- validating

export interface ValidateOptions extends SliceChoice {
  root: string;
  /** Wall clock, ms: of hours that are not over by then no manifest is expected. */
  now: number;
  onProgress?(done: number, files: number): void;
}

/** Reads the files of a span of event time once, and judges them. */
export async function validate(options: ValidateOptions): Promise<Validation> {
  const { root, now, onProgress, from = null, to = null } = options;
  const slices = slicesOf(root, options);
  const checks = new Map<string, SymbolCheck>();
  const found: Pick<Validation, 'bad_lines' | 'bad_line_count' | 'duplicate_rows'> = {
    ...{ bad_lines: [], bad_line_count: 0, duplicate_rows: [] },
  };
  const manifests = new ManifestCheck(root, now, options.symbols === undefined);
  for (const [index, slice] of slices.entries()) {
    let check = checks.get(slice.symbol);
    if (!check) checks.set(slice.symbol, (check = new SymbolCheck()));
    const extent = extentOf(slice.path);
    const rows = await readFile(slice, extent, check, options, found);
    manifests.compare(slice, extent, rows);
    onProgress?.(index + 1, slices.length);
  }
  const figures = new Map([...checks].map(([symbol, check]) => [symbol, check.figures()]));
  const latencies = new Latencies();
  for (const check of checks.values()) latencies.addAll(check.latencies);
  const inAll = together([...figures.values()], latencies);
  const results = manifests.results(slices);
  const text = (ms: number | null) => (ms === null ? null : new Date(ms).toISOString());
  const validation: Omit<Validation, 'status'> = {
    ...{ root, from: text(from), to: text(to), files: slices.length },
    hours: new Set(slices.map(({ start }) => start)).size,
    symbols: Object.fromEntries(
      [...figures].map(([symbol, each]) => [symbol, { figures: each, gates: gatesOf(each) }]),
    ),
    all: { figures: inAll, gates: [...gatesOf(inAll), manifestGate(results)] },
    ...found,
    manifests: results,
  };
  return { status: statusOf(validation), ...validation };
}

/** @returns rows in the file, of whatever time */
async function readFile(
  { path, kind, start }: Slice,
  extent: Extent,
  check: SymbolCheck,
  { from, to }: SliceChoice,
  found: Pick<Validation, 'bad_lines' | 'bad_line_count' | 'duplicate_rows'>,
): Promise<number> {
  const ids = new IdSet();
  const read = check.reader(kind);
  let rows = 0;
  const onBad = (line: number, why: string) => {
    found.bad_line_count += 1;
    if (found.bad_lines.length < SHOWN) found.bad_lines.push({ path, line, why });
  };
  await readSlice(
    path,
    extent,
    (row, line) => {
      rows += 1;
      const wrong = ['ts_ms', 'second_ts'].find((name) => !isWithin(row[name], start));
      if (wrong !== undefined) {
        onBad(line, `${wrong} is not of the hour of its file`);
        return;
      }
      const time = row.ts_ms as number;
      if (time < (from ?? Number.NEGATIVE_INFINITY) || time >= (to ?? Number.POSITIVE_INFINITY)) return;
      read(row);
      if (ids.add(row.row_id as string)) return;
      check.duplicate(kind);
      if (found.duplicate_rows.length < SHOWN) found.duplicate_rows.push({ path, row_id: row.row_id as string });
    },
    onBad,
  );
  return rows;
}

/** Whether a time, where there is one, lies in the hour. */
function isWithin(time: unknown, start: number): boolean {
  return time === undefined || (typeof time === 'number' && time >= start && time < start + HOUR_MS);
}

/** Manifests against the files as they are. */
class ManifestCheck {
  private readonly manifests = new Map<number, Manifest | null>();
  private readonly faults: string[] = [];

  /** @param isWhole all symbols are read, so that a file that is not there shows */
  constructor(
    private readonly root: string,
    private readonly now: number,
    private readonly isWhole: boolean,
  ) {}

  compare({ start, symbol, kind, path }: Slice, { bytes, changed }: Extent, rows: number): void {
    if (start + HOUR_MS > this.now) return;
    if (!this.manifests.has(start)) this.manifests.set(start, readManifest(this.root, start));
    const manifest = this.manifests.get(start);
    if (manifest == null) return;
    const told = manifest.symbols[symbol]?.kinds[kind];
    if (told === undefined) this.faults.push(`${path}: not in the manifest of its hour`);
    else if (told.rows !== rows) {
      const isOlder = told.bytes !== bytes || told.changed_ms !== changed;
      const why = isOlder ? ', which is older than the file: --manifest writes it anew' : '';
      this.faults.push(`${path}: ${rows} rows, ${told.rows} in the manifest${why}`);
    }
  }

  results(slices: readonly Slice[]): Validation['manifests'] {
    const present = new Set(slices.map(({ start, symbol, kind }) => `${start} ${symbol} ${kind}`));
    for (const [start, manifest] of this.isWhole ? this.manifests : []) {
      for (const [symbol, { kinds }] of Object.entries(manifest?.symbols ?? {})) {
        for (const kind of Object.keys(kinds)) {
          if (!present.has(`${start} ${symbol} ${kind}`))
            this.faults.push(
              `${new Date(start).toISOString()} ${symbol} ${kind}: in the manifest, and there is no file`,
            );
        }
      }
    }
    const all = [...this.manifests.values()];
    return { hours: all.length, without: all.filter((each) => each === null).length, faults: this.faults };
  }
}

// -------------------------------------------------------------------------------------------------------------- the command

/**
 * `--validate [--from] [--to] [--symbol] [--json]`.
 * @param now wall clock, ms
 * @returns the exit code: 0 no gate was missed, 1 one was, 2 duplicates or lines that are no row, 3 there is nothing to check
 */
export async function runValidate(options: {
  root: string;
  flags: SliceFlags;
  now: number;
  out?: NodeJS.WriteStream;
}): Promise<number> {
  const { root, flags, now, out = process.stdout } = options;
  const progress = new Progress(flags.json ? process.stderr : out);
  const onProgress = (done: number, files: number) => progress.show(done / files, `${done} of ${files} files`);
  const validation = await validate({ root, now, ...choiceOf(flags), onProgress });
  progress.clear();
  out.write(`${flags.json ? JSON.stringify(validation) : validationText(validation)}\n`);
  return VALIDATION_CODES[validation.status];
}

const HEAD = [
  '',
  'rows',
  'minutes',
  'empty',
  'known',
  'dup',
  'p50',
  'p99',
  'null',
  'events',
  'seconds',
  'missing',
  'gates',
];

/** A table of all symbols, and below it everything that is not as it should be. */
export function validationText(validation: Validation): string {
  const { status, root, files, hours, symbols, all } = validation;
  if (status === 'could_not_check') return `could not check: no rows of that span under ${root}`;
  const scopes: [string, Verdict][] = [...Object.entries(symbols).sort(([a], [b]) => (a < b ? -1 : 1)), ['all', all]];
  const lines = [HEAD, ...scopes.map(([name, verdict]) => cellsOf(name, verdict))];
  const widths = HEAD.map((_, i) => Math.max(...lines.map((line) => line[i]!.length)));
  const table = lines.map((line) =>
    line
      .map((cell, i) => (i === 0 || i === HEAD.length - 1 ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!)))
      .join('  ')
      .trimEnd(),
  );
  return [...table, '', ...faultLines(validation, scopes), `${status}: ${files} files of ${hours} hours`].join('\n');
}

function cellsOf(name: string, { figures, gates }: Verdict): string[] {
  const count = (status: GateStatus) => gates.filter((each) => each.status === status).length;
  const cells = [
    ...[figures.rows, figures.minutes, figures.empty_minutes, figures.known_empty_minutes, figures.duplicates],
    ...[figures.latency_p50_ms ?? '-', figures.latency_p99_ms ?? '-', figures.latency_unknown, figures.events],
    ...[figures.seconds, figures.missing_seconds],
  ];
  const judgedOnes = `${count('passed')} passed, ${count('missed')} missed, ${count('not_judged')} not judged`;
  return [name, ...cells.map(String), judgedOnes];
}

function faultLines(
  { bad_lines, bad_line_count, duplicate_rows, all, manifests }: Validation,
  scopes: readonly [string, Verdict][],
): string[] {
  const gates = scopes.flatMap(([name, verdict]) => verdict.gates.map((gate) => ({ name, ...gate })));
  const lines = gates
    .filter(({ status }) => status !== 'passed')
    .map(({ name, gate, status, value, limit, detail }) => {
      const measured = value === null ? '' : ` ${Number(value.toPrecision(4))} (${limit})`;
      return `${status === 'missed' ? 'missed' : 'not judged'}: ${name} ${gate}${measured}${detail === null ? '' : `: ${detail}`}`;
    });
  lines.push(...bad_lines.map(({ path, line, why }) => `no row: ${path}:${line}: ${why}`));
  if (bad_line_count > bad_lines.length) lines.push(`no row: ${bad_line_count - bad_lines.length} more lines`);
  lines.push(...duplicate_rows.map(({ path, row_id }) => `duplicate: ${path}: ${row_id}`));
  const { duplicates: count } = all.figures;
  if (count > duplicate_rows.length) lines.push(`duplicate: ${count - duplicate_rows.length} more rows`);
  lines.push(...manifests.faults.map((fault) => `manifest: ${fault}`));
  return lines.length === 0 ? [] : [...lines, ''];
}
