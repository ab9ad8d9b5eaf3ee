/**
 * Validates the files of the harvest: they are read once, what is in them is counted (validate_figures.ts) and judged (validate_gates.ts), manifests
 * are held against them, and all of it is told.
 */
import { Progress } from '../progress.ts';
import { type Manifest, manifestHours, readManifest } from './manifest.ts';
import {
  choiceOf,
  type Extent,
  extentOf,
  HOUR_MS,
  IdSet,
  reachesInto,
  readSlice,
  type Slice,
  type SliceChoice,
  type SliceFlags,
  slicesOf,
} from './slices.ts';
import { Latencies, SymbolCheck, together } from './validate_figures.ts';
import {
  type GateStatus,
  gatesOf,
  manifestGate,
  statusOf,
  VALIDATION_CODES,
  type Validation,
  type Verdict,
} from './validate_gates.ts';

const DAY_MS = 24 * HOUR_MS;

/** So many of each fault are shown; all are counted. */
const SHOWN = 50;

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
  manifests.lookForLostHours(slices, options);
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

  /** Hours of which a manifest tells, and no file is left. Whole days before the first file went as too old. */
  lookForLostHours(slices: readonly Slice[], span: SliceChoice): void {
    const first = slices.reduce((least, { start }) => Math.min(least, start), Number.POSITIVE_INFINITY);
    const day = Math.floor(first / DAY_MS) * DAY_MS;
    for (const start of this.isWhole ? manifestHours(this.root) : []) {
      if (start < day || !reachesInto(start, span) || this.manifests.has(start)) continue;
      const manifest = readManifest(this.root, start);
      if (manifest !== null) this.manifests.set(start, manifest);
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
