/** What an hour of the harvest has in its files, counted in them: `ROOT/manifest/slices_manifest_YYYYMMDD_HH.json`. */
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { UsageError } from '../cli.ts';
import { readJson, writeJsonAtomic } from '../files.ts';
import { Progress } from '../progress.ts';
import { HARVEST_KINDS } from './kinds.ts';
import {
  byHour,
  choiceOf,
  type Extent,
  extentOf,
  HOUR_MS,
  IdSet,
  readSlice,
  type Slice,
  type SliceChoice,
  type SliceFlags,
  slicesOf,
} from './slices.ts';

/** Active or quiet, high or low volatility. */
export const SCENARIOS = ['A_H', 'A_L', 'Q_H', 'Q_L'] as const;
const EXIT_NO_FILES = 3;

const fileFigures = z.object({
  rows: z.number().int(),
  bytes: z.number().int(),
  /** Of the rows, event time, ms; null without rows. */
  first_ts_ms: z.number().nullable(),
  last_ts_ms: z.number().nullable(),
  unique_row_ids: z.number().int(),
  /** Lines that are no row. */
  bad_lines: z.number().int(),
  /** When the file was last written to, ms. */
  changed_ms: z.number().int(),
});
const symbolFigures = z.object({
  kinds: z.partialRecord(z.enum(HARVEST_KINDS), fileFigures),
  /** Highest less lowest reconnect_count; null without rows. */
  reconnects: z.number().nullable(),
  /** Seconds of features, each once, and the share of each scenario in them; null without any. */
  seconds: z.number().int(),
  scenarios: z.record(z.enum(SCENARIOS), z.number().nullable()),
  /** The share of seconds whose scenario is not known. */
  scenario_unknown: z.number().nullable(),
  /** Scenarios that no second was in; null where none is known. */
  scene_coverage_miss: z.array(z.enum(SCENARIOS)).nullable(),
});
export const MANIFEST = z.object({
  date: z.string(),
  hour: z.string(),
  /** From 1; the next one when a file of the hour has changed since. */
  revision: z.number().int().positive(),
  written_at: z.iso.datetime(),
  rows: z.number().int(),
  bytes: z.number().int(),
  symbols: z.record(z.string(), symbolFigures),
});
export type Manifest = z.infer<typeof MANIFEST>;
type FileFigures = z.infer<typeof fileFigures>;
type SymbolFigures = z.infer<typeof symbolFigures>;

export function manifestPath(root: string, start: number): string {
  const text = new Date(start).toISOString();
  return join(root, 'manifest', `slices_manifest_${text.slice(0, 10).replaceAll('-', '')}_${text.slice(11, 13)}.json`);
}

/** The hours that have a manifest, whether files of theirs are there or not; ms, in order. */
export function manifestHours(root: string): number[] {
  const directory = join(root, 'manifest');
  if (!existsSync(directory)) return [];
  const names = readdirSync(directory).map((name) => /^slices_manifest_(\d{4})(\d\d)(\d\d)_(\d\d)\.json$/.exec(name));
  return names
    .flatMap((each) => (each === null ? [] : [Date.parse(`${each[1]}-${each[2]}-${each[3]}T${each[4]}:00:00Z`)]))
    .sort((one, other) => one - other);
}

/** The manifest of an hour; null when there is none that can be read. */
export function readManifest(root: string, start: number): Manifest | null {
  try {
    return MANIFEST.safeParse(readJson(manifestPath(root, start))).data ?? null;
  } catch (error) {
    if (error instanceof SyntaxError) return null;
    throw error;
  }
}

export interface ManifestSummary {
  /** Hours that are over and have files. */
  hours: number;
  written: string[];
  unchanged: number;
}

/**
 * Writes the manifests of hours that are over at `now` (ms) and whose files are not as the last one says. Memory: 48 bytes a row of the largest file.
 * Choosing symbols is not possible: a manifest is about all of an hour.
 */
export async function writeManifests(options: {
  root: string;
  now: number;
  from?: number | null;
  to?: number | null;
  onProgress?(done: number, hours: number): void;
}): Promise<ManifestSummary> {
  const { root, now, onProgress } = options;
  const hours = [...byHour(slicesOf(root, options))].filter(([start]) => start + HOUR_MS <= now);
  const summary: ManifestSummary = { hours: hours.length, written: [], unchanged: 0 };
  for (const [index, [start, slices]] of hours.entries()) {
    const extents = new Map(slices.map((slice) => [slice.path, extentOf(slice.path)]));
    const known = readManifest(root, start);
    if (known !== null && isOfThese(known, slices, extents)) summary.unchanged += 1;
    else {
      const path = manifestPath(root, start);
      writeJsonAtomic(path, await manifestOf(slices, extents, (known?.revision ?? 0) + 1, now));
      summary.written.push(path);
    }
    onProgress?.(index + 1, hours.length);
  }
  return summary;
}

/** Whether a manifest is about these files as they are. */
function isOfThese({ symbols }: Manifest, slices: readonly Slice[], extents: ReadonlyMap<string, Extent>): boolean {
  const files = Object.values(symbols).reduce((sum, { kinds }) => sum + Object.keys(kinds).length, 0);
  return (
    files === slices.length &&
    slices.every(({ symbol, kind, path }) => {
      const told = symbols[symbol]?.kinds[kind];
      const { bytes, changed } = extents.get(path)!;
      return told?.bytes === bytes && told.changed_ms === changed;
    })
  );
}

async function manifestOf(
  slices: readonly Slice[],
  extents: ReadonlyMap<string, Extent>,
  revision: number,
  now: number,
): Promise<Manifest> {
  const { date, hour } = slices[0]!;
  const counters = new Map<string, SymbolCounter>();
  for (const slice of slices) {
    let counter = counters.get(slice.symbol);
    if (!counter) counters.set(slice.symbol, (counter = new SymbolCounter()));
    await counter.count(slice, extents.get(slice.path)!);
  }
  const symbols = Object.fromEntries([...counters].map(([symbol, counter]) => [symbol, counter.figures()]));
  const files = Object.values(symbols).flatMap(({ kinds }) => Object.values(kinds));
  const sum = (of: (file: FileFigures) => number) => files.reduce((total, each) => total + of(each), 0);
  return {
    ...{ date, hour, revision, written_at: new Date(now).toISOString() },
    ...{ rows: sum(({ rows }) => rows), bytes: sum(({ bytes }) => bytes), symbols },
  };
}

class SymbolCounter {
  private readonly kinds: SymbolFigures['kinds'] = {};
  private reconnects: { least: number; most: number } | null = null;
  /** Each second's last revision. */
  private readonly seconds = new Map<number, { revision: number; scenario: string | null }>();

  async count({ path, kind }: Slice, extent: Extent): Promise<void> {
    const ids = new IdSet();
    const file: FileFigures = {
      ...{ rows: 0, bytes: extent.bytes, first_ts_ms: null, last_ts_ms: null },
      ...{ unique_row_ids: 0, bad_lines: 0, changed_ms: extent.changed },
    };
    await readSlice(
      path,
      extent,
      (row) => {
        const time = row.ts_ms as number;
        file.rows += 1;
        file.first_ts_ms = Math.min(file.first_ts_ms ?? time, time);
        file.last_ts_ms = Math.max(file.last_ts_ms ?? time, time);
        ids.add(row.row_id as string);
        if (typeof row.reconnect_count === 'number') this.reconnected(row.reconnect_count);
        if (kind === 'features') this.second(row);
      },
      () => {
        file.bad_lines += 1;
      },
    );
    this.kinds[kind] = { ...file, unique_row_ids: ids.size };
  }

  private reconnected(count: number): void {
    const { least, most } = this.reconnects ?? { least: count, most: count };
    this.reconnects = { least: Math.min(least, count), most: Math.max(most, count) };
  }

  private second({ second_ts, revision, scenario_2x2 }: Record<string, unknown>): void {
    if (typeof second_ts !== 'number' || typeof revision !== 'number') return;
    if ((this.seconds.get(second_ts)?.revision ?? -1) > revision) return;
    this.seconds.set(second_ts, { revision, scenario: typeof scenario_2x2 === 'string' ? scenario_2x2 : null });
  }

  figures(): SymbolFigures {
    const all = [...this.seconds.values()].map(({ scenario }) => scenario);
    const of = (scenario: string | null) => all.filter((each) => each === scenario).length;
    const share = (count: number) => (all.length === 0 ? null : count / all.length);
    const isKnown = all.some((each) => each !== null);
    return {
      kinds: this.kinds,
      reconnects: this.reconnects === null ? null : this.reconnects.most - this.reconnects.least,
      seconds: all.length,
      scenarios: Object.fromEntries(
        SCENARIOS.map((each) => [each, isKnown ? share(of(each)) : null]),
      ) as SymbolFigures['scenarios'],
      scenario_unknown: share(of(null)),
      scene_coverage_miss: isKnown ? SCENARIOS.filter((each) => of(each) === 0) : null,
    };
  }
}

/**
 * `--manifest [--from] [--to] [--json]`.
 * @param now wall clock, ms
 * @returns the exit code: 0 all hours that are over have their manifest, 3 there is no file
 */
export async function runManifest(options: {
  root: string;
  flags: SliceFlags;
  now: number;
  out?: NodeJS.WriteStream;
}): Promise<number> {
  const { root, flags, now, out = process.stdout } = options;
  if (flags.symbol !== undefined)
    throw new UsageError('--symbol does not belong to --manifest: it is about all of an hour');
  const progress = new Progress(flags.json ? process.stderr : out);
  const { from = null, to = null }: SliceChoice = choiceOf(flags);
  const onProgress = (done: number, hours: number) => progress.show(done / hours, `${done} of ${hours} hours`);
  const summary = await writeManifests({ root, now, from, to, onProgress });
  progress.clear();
  const text =
    summary.hours === 0
      ? `no files of an hour that is over under ${root}`
      : `${summary.written.length} manifests written, ${summary.unchanged} as they were, of ${summary.hours} hours`;
  out.write(`${flags.json ? JSON.stringify(summary) : [...summary.written, text].join('\n')}\n`);
  return summary.hours === 0 ? EXIT_NO_FILES : 0;
}
