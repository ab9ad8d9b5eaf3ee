/** What the unified series share: their slots, how they wait for the series that they are made of, and how they read one. */
import { join } from 'node:path';
import type { z } from 'zod';
import type { Config } from '../config.ts';
import { readJson } from '../files.ts';
import { recordsOf, SERIES_STATE, Series, type SeriesState } from '../series.ts';
import type { DeskContext } from './service.ts';

export const SLOT_MS = 300_000;
const MINUTE_MS = 60_000;
const DAY_MS = 86_400_000;
/** A slot that was missed is completed for so many days. */
const CATCH_UP_DAYS = 10;
/** An input that is later than this is told. */
export const LATE_MS = 10 * MINUTE_MS;

export interface UnifiedPart {
  /** Of its series. */
  readonly name: string;
  turn(stop: AbortSignal): Promise<PartTurn>;
  close(): Promise<void>;
}

/** What came of a turn. */
export interface PartTurn {
  /** What could not be done, each in a line: it is tried again. */
  failed: string[];
  /** Why the next slot is late, where its input is at fault. */
  waiting: string | null;
}

/** The health file of another script's series; null: there is none. @throws when it is damaged */
export function inputState(dataDir: string, name: string): SeriesState | null {
  const content = readJson(join(dataDir, 'state', `series-${name}.json`));
  return content === null ? null : SERIES_STATE.parse(content);
}

/** A record of an input. @returns what is read of it, or in a line why it is none */
export function recordAs<T>(schema: z.ZodType<T>, record: unknown): T | string {
  const parsed = schema.safeParse(record);
  if (parsed.success) return parsed.data;
  const { path, message } = parsed.error.issues[0]!;
  return `${path.join('.')}: ${message}`;
}

/** How far back a series is completed, ms: no further than its records are kept, or what was thrown away would be written again. */
export function catchUpMs({ seriesDays }: Pick<Config, 'seriesDays'>): number {
  return Math.min(CATCH_UP_DAYS, seriesDays - 1) * DAY_MS;
}

/** One of the three files. */
export class UnifiedSeries {
  /** Why the next slot is late, as it was logged. */
  private told: string | null = null;

  private constructor(
    readonly name: string,
    private readonly file: string,
    private readonly context: DeskContext,
    private readonly series: Series,
  ) {}

  /** @param delayMs a slot can be computed so much after it */
  static async open(context: DeskContext, name: string, delayMs = 0): Promise<UnifiedSeries> {
    const { config, clock, log } = context;
    const file = `unified/${name}.jsonl`;
    const plan = { name, file, delayMs, cadenceMs: SLOT_MS, catchUpSlots: catchUpMs(config) / SLOT_MS };
    const series = await Series.open(config.dataDir, plan, clock, log);
    return new UnifiedSeries(name, join(config.dataDir, file), context, series);
  }

  /**
   * Computes and writes what is due.
   * @param prepare from the slots that are due, oldest first, to what computes one
   * @param until the input is known up to here, ms; null: nothing of it is
   * @param waiting why the next slot is late; null: it is not
   */
  async take(
    prepare: (due: readonly number[]) => (slot: number) => Promise<object>,
    stop: AbortSignal,
    until: number | null,
    waiting: string | null = null,
  ): Promise<PartTurn> {
    const { series, name } = this;
    const { state } = series;
    const now = this.context.clock();
    const end = Math.min(until ?? now, now);
    const due = until === null ? [] : series.due(end);
    if (due.length > 0) {
      const compute = prepare(due);
      const failed = await series.turn(async (slot) => [await compute(slot)], stop, end);
      const more = failed.length > 1 ? `, and ${failed.length - 1} other slots` : '';
      if (failed.length > 0) return { failed: [`${name}: ${state.error}${more}`], waiting };
    }
    if (waiting !== null && waiting !== this.told)
      this.context.log.warn({ event: 'input_late', series: name }, waiting);
    this.told = waiting;
    series.ran(waiting === null, waiting);
    return { failed: [], waiting };
  }

  /** The records from `from` on as they stand, by slot. */
  async records(from: number): Promise<Map<number, Record<string, unknown>>> {
    const records = new Map<number, Record<string, unknown>>();
    for await (const record of recordsOf(this.file, from)) records.set(record.slot, record);
    return records;
  }

  /** Replaces what a slot says, where that is something else. @param before what it says */
  correct(slot: number, before: Record<string, unknown>, record: object): void {
    const said = Object.keys(before).filter((key) => key !== 'slot' && key !== 'correction');
    const present = Object.fromEntries(said.map((key) => [key, before[key]]));
    if (JSON.stringify(present) !== JSON.stringify(record)) this.series.correct(slot, [record]);
  }

  close(): Promise<void> {
    return this.series.close();
  }
}
