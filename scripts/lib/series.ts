/**
 * A series: records by slots of time in one JSONL file, each slot once. What was missed while nobody was there is known, and is completed
 * by records that say so. Its health file tells integrity.ts, and whoever shows it, all that they must know.
 */
import { join } from 'node:path';
import { z } from 'zod';
import { OperatorError } from './cli.ts';
import { readJson, writeJsonAtomic } from './files.ts';
import { JsonlWriter, linesOfAll } from './jsonl.ts';
import { type Lock, takeLock } from './lock.ts';
import type { Logger } from './log.ts';

export interface SeriesPlan {
  /** Letters, digits, `_`; unique in a data directory. */
  name: string;
  /** Below the data directory. */
  file: string;
  /** From one slot to the next, ms. */
  cadenceMs: number;
  /** Slots are multiples of the cadence plus this, ms: 57,600,000 for days of UTC+8. Default 0. */
  offsetMs?: number;
  /** A slot can be computed so much after its beginning, ms. Default 0. */
  delayMs?: number;
  /** So many slots back a missed one is still completed: at most 180 days, or what was removed would be written again. */
  catchUpSlots: number;
}

const DAY_MS = 86_400_000;
/** The time of the last look is written this often when nothing else is. */
const RUN_KEPT_MS = 60_000;
/** `logrotate/marketprism` renames the files, and keeps those of every series for longer than this. */
export const LEAST_KEPT_DAYS = 180;
/** Slots that are computed before what came of them is written: one write, one sync. */
const SLOTS_A_WRITE = 200;
/** Each line begins so: its slot is read without parsing the line. */
const SLOT_PREFIX = '{"slot":';

const SLOT = z.number().int();
/** `data/state/series-NAME.json`: all times in ms since the epoch. */
export const SERIES_STATE = z.object({
  name: z.string(),
  file: z.string(),
  cadence_ms: z.number().int().positive(),
  offset_ms: z.number().int(),
  /** A slot is due so much after its beginning. */
  delay_ms: z.number().int().default(0),
  /** The first slot that the series ever had, and the last. */
  first_slot: SLOT.nullable(),
  last_slot: SLOT.nullable(),
  last_write: z.number().nullable(),
  /** When what was due was last looked for, and when last nothing was left of it. */
  last_run: z.number().nullable().default(null),
  last_success: z.number().nullable().default(null),
  /** Slots before the last one that have no record yet. */
  missing: z.array(SLOT),
  corrections: z.number().int(),
  /** Why the last slot that failed did. */
  error: z.string().nullable(),
});
export type SeriesState = z.infer<typeof SERIES_STATE>;

export const STATE_FILE = /^series-(\w+)\.json$/;

/** The slot that a time lies in. @returns ms since the epoch */
export function slotOf(time: number, { cadenceMs, offsetMs = 0 }: Pick<SeriesPlan, 'cadenceMs' | 'offsetMs'>): number {
  return Math.floor((time - offsetMs) / cadenceMs) * cadenceMs + offsetMs;
}

export class Series {
  private begin: number | null = null;
  /** What the health file says of the last look. */
  private saved: Pick<SeriesState, 'error' | 'last_run'> = { error: null, last_run: null };

  private constructor(
    private readonly plan: SeriesPlan,
    private readonly path: string,
    private readonly writer: JsonlWriter,
    private readonly lock: Lock,
    private readonly clock: () => number,
    readonly state: SeriesState,
  ) {}

  /**
   * Reads what is there, and takes the series for this process.
   * @param clock wall clock, ms
   * @throws OperatorError when another process has it, or it is to be completed further back than it is kept
   */
  static async open(dataDir: string, plan: SeriesPlan, clock: () => number, log: Logger): Promise<Series> {
    if (!/^\w+$/.test(plan.name)) throw new Error(`a series is named by letters, digits and _, not ${plan.name}`);
    const days = (plan.catchUpSlots * plan.cadenceMs) / DAY_MS;
    if (days > LEAST_KEPT_DAYS)
      throw new OperatorError(
        `${plan.name} cannot be completed over ${days} days, as its files are kept for ${LEAST_KEPT_DAYS}: set MARKETPRISM_SERIES_DAYS to less`,
      );
    const lock = await takeLock(dataDir, `series ${plan.name}`);
    try {
      const file = join(dataDir, plan.file);
      const writer = new JsonlWriter(file, log);
      const path = join(dataDir, 'state', `series-${plan.name}.json`);
      const state = await stateOf(plan, path, file, clock());
      const series = new Series(plan, path, writer, lock, clock, state);
      series.save();
      return series;
    } catch (error) {
      await lock.release();
      throw error;
    }
  }

  /** A series that has no record yet begins with the slot of this time, and not with the present one. */
  beginAt(time: number): void {
    this.begin = slotOf(time, this.plan);
  }

  /** Slots that are over at `now` and have no record, oldest first. A series that has none yet begins with the last one, unless it was told. */
  due(now: number): number[] {
    const { cadenceMs, catchUpSlots, delayMs = 0 } = this.plan;
    const { last_slot: last, missing } = this.state;
    const present = slotOf(now - delayMs, this.plan);
    const oldest = present - catchUpSlots * cadenceMs;
    const next = last === null ? (this.begin ?? present) : Math.max(last + cadenceMs, oldest);
    const since: number[] = [];
    for (let slot = next; slot <= present; slot += cadenceMs) since.push(slot);
    return [...missing.filter((slot) => slot >= oldest), ...since];
  }

  /**
   * Writes all records of a slot at once. One that comes after a later slot is marked `correction: true`.
   * @throws when the slot has records already, or is none of this series
   */
  write(slot: number, records: readonly object[]): void {
    this.writeAll([[slot, records]]);
  }

  /** Writes several slots at once: all are in the file, or, when it throws, none. */
  writeAll(slots: readonly (readonly [slot: number, records: readonly object[]])[]): void {
    const lines: object[] = [];
    const state = structuredClone(this.state);
    for (const [slot, records] of slots) {
      const isLate = this.place(state, slot, records);
      for (const record of records) lines.push({ slot, ...(isLate ? { correction: true } : {}), ...record });
    }
    if (lines.length === 0) return;
    this.writer.append(lines);
    Object.assign(this.state, state);
    this.state.last_write = this.clock();
    this.save();
  }

  /** Takes a slot as written. @returns whether it comes after a later one */
  private place(state: SeriesState, slot: number, records: readonly object[]): boolean {
    const { name, cadenceMs, catchUpSlots } = this.plan;
    if (slot !== slotOf(slot, this.plan)) throw new Error(`${slot} is no slot of ${name}`);
    if (records.length === 0)
      throw new Error(`no records for slot ${slot} of ${name}: what is absent is missing, not empty`);
    const isLate = state.last_slot !== null && slot <= state.last_slot;
    if (isLate && !state.missing.includes(slot)) throw new Error(`slot ${slot} of ${name} is there already`);
    if (isLate) {
      state.missing = state.missing.filter((each) => each !== slot);
      state.corrections += 1;
      return true;
    }
    for (let each = (state.last_slot ?? slot) + cadenceMs; each < slot; each += cadenceMs) state.missing.push(each);
    // What is too old to be completed is missing for good, which the file itself shows.
    state.missing = state.missing.filter((each) => each >= slot - catchUpSlots * cadenceMs);
    state.first_slot ??= slot;
    state.last_slot = slot;
    return false;
  }

  /** Replaces what a slot says by what it should have said: readers take the last. */
  correct(slot: number, records: readonly object[]): void {
    if (this.state.last_slot === null || slot > this.state.last_slot || this.state.missing.includes(slot))
      throw new Error(`slot ${slot} of ${this.plan.name} has nothing to be corrected`);
    this.writer.append(records.map((record) => ({ slot, correction: true, ...record })));
    this.state.corrections += 1;
    this.state.last_write = this.clock();
    this.save();
  }

  /**
   * Computes and writes what is due. A slot that fails stays missing, and is tried again at the next turn; the others do not wait for it.
   * @param compute the records of a slot
   * @param until ms: what the records are made of is known up to here; absent: up to now
   * @returns slots that failed
   */
  async turn(compute: (slot: number) => Promise<object[]>, stop: AbortSignal, until = this.clock()): Promise<number[]> {
    const failed: number[] = [];
    const done: [number, object[]][] = [];
    this.state.error = null;
    for (const slot of this.due(Math.min(until, this.clock()))) {
      if (stop.aborted) break;
      try {
        done.push([slot, await compute(slot)]);
      } catch (error) {
        failed.push(slot);
        this.state.error = `${new Date(slot).toISOString()}: ${(error as Error).message}`;
      }
      if (done.length >= SLOTS_A_WRITE) this.writeAll(done.splice(0));
    }
    this.writeAll(done);
    this.ran(failed.length === 0);
    return failed;
  }

  /** What was due was looked for. @param error why not all of it is there; absent: as the last turn left it */
  ran(isComplete: boolean, error?: string | null): void {
    this.state.last_run = this.clock();
    if (isComplete) this.state.last_success = this.state.last_run;
    if (error !== undefined) this.state.error = error;
    // Looks are frequent, and most of them find nothing: their times are kept to the minute.
    const age = Math.abs(this.state.last_run - (this.saved.last_run ?? 0));
    if (this.state.error !== this.saved.error || age >= RUN_KEPT_MS) this.save();
  }

  async close(): Promise<void> {
    this.writer.close();
    await this.lock.release();
  }

  private save(): void {
    writeJsonAtomic(this.path, this.state);
    this.saved = { error: this.state.error, last_run: this.state.last_run };
  }
}

/** What the files say; the health file knows what they do not: how the series began, and how often it was corrected. */
async function stateOf(plan: SeriesPlan, path: string, file: string, now: number): Promise<SeriesState> {
  const { name, cadenceMs, offsetMs = 0, delayMs = 0, catchUpSlots } = plan;
  const known = SERIES_STATE.safeParse(readJson(path)).data ?? null;
  const oldest = slotOf(now, plan) - catchUpSlots * cadenceMs;
  const slots = await slotsOf(file, oldest);
  const first = known?.first_slot ?? (await firstSlotOf(file));
  const newest = [...slots].reduce((one, other) => Math.max(one, other), Number.NEGATIVE_INFINITY);
  const last = slots.size > 0 ? newest : (known?.last_slot ?? null);
  const missing: number[] = [];
  if (first !== null && last !== null) {
    for (let slot = Math.max(first, oldest); slot < last; slot += cadenceMs) if (!slots.has(slot)) missing.push(slot);
  }
  return {
    ...{ name, file: plan.file, cadence_ms: cadenceMs, offset_ms: offsetMs, delay_ms: delayMs },
    ...{ first_slot: first, last_slot: last, missing, last_write: known?.last_write ?? null },
    ...{ last_run: known?.last_run ?? null, last_success: known?.last_success ?? null },
    ...{ corrections: known?.corrections ?? 0, error: null },
  };
}

/** All slots of the files that do not end before `since`, ms. */
async function slotsOf(file: string, since: number): Promise<Set<number>> {
  const slots = new Set<number>();
  for await (const { bytes } of linesOfAll(file, since)) {
    const slot = slotIn(bytes);
    if (slot !== null) slots.add(slot);
  }
  return slots;
}

async function firstSlotOf(file: string): Promise<number | null> {
  for await (const { bytes } of linesOfAll(file)) {
    const slot = slotIn(bytes);
    if (slot !== null) return slot;
  }
  return null;
}

/** The slot that a line of a series begins with; null where it is none. */
function slotIn(line: Buffer): number | null {
  if (line.toString('latin1', 0, SLOT_PREFIX.length) !== SLOT_PREFIX) return null;
  let slot = 0;
  for (let at = SLOT_PREFIX.length; ; at += 1) {
    const digit = line[at]! - 0x30;
    if (digit >= 0 && digit <= 9) slot = slot * 10 + digit;
    else
      return at > SLOT_PREFIX.length && (line[at] === 0x2c || line[at] === 0x7d) && line.at(-1) === 0x7d ? slot : null;
  }
}

/**
 * The records of a series from a slot on, in the order in which they were written: a later one of the same slot corrects an earlier one.
 * Lines without a record are left out (integrity.ts tells of them).
 * @param from ms since the epoch
 */
export async function* recordsOf(
  file: string,
  from: number,
): AsyncGenerator<{ slot: number } & Record<string, unknown>> {
  for await (const { bytes } of linesOfAll(file, from)) {
    const slot = slotIn(bytes);
    const record = slot !== null && slot >= from ? parsed(bytes) : null;
    if (record !== null) yield record;
  }
}

function parsed(line: Buffer): ({ slot: number } & Record<string, unknown>) | null {
  try {
    return JSON.parse(line.toString());
  } catch {
    // Damaged: no record, of which integrity.ts tells.
    return null;
  }
}
