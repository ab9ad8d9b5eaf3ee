/**
 * A series: records by slots of time in one JSONL file, each slot once. What was missed while nobody was there is known, and is completed
 * by records that say so. Its health file tells integrity.ts all that it must know.
 */
import { join } from 'node:path';
import { z } from 'zod';
import { readJson, writeJsonAtomic } from './files.ts';
import { JsonlWriter, objectsOf, rotatedSet } from './jsonl.ts';
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
  /** So many slots back a missed one is still completed. */
  catchUpSlots: number;
}

const SLOT = z.number().int();
/** `data/state/series-NAME.json`: all times in ms since the epoch. */
export const SERIES_STATE = z.object({
  name: z.string(),
  file: z.string(),
  cadence_ms: z.number().int().positive(),
  offset_ms: z.number().int(),
  /** The first slot that the series ever had, and the last. */
  first_slot: SLOT.nullable(),
  last_slot: SLOT.nullable(),
  last_write: z.number().nullable(),
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
   * @throws OperatorError when another process has it
   */
  static async open(dataDir: string, plan: SeriesPlan, clock: () => number, log: Logger): Promise<Series> {
    if (!/^\w+$/.test(plan.name)) throw new Error(`a series is named by letters, digits and _, not ${plan.name}`);
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

  /** Slots that are over at `now` and have no record, oldest first. A series that has none yet begins with the last one. */
  due(now: number): number[] {
    const { cadenceMs, catchUpSlots } = this.plan;
    const { last_slot: last, missing } = this.state;
    const present = slotOf(now, this.plan);
    const oldest = present - catchUpSlots * cadenceMs;
    if (last === null) return [present];
    const since: number[] = [];
    for (let slot = Math.max(last + cadenceMs, oldest); slot <= present; slot += cadenceMs) since.push(slot);
    return [...missing.filter((slot) => slot >= oldest), ...since];
  }

  /**
   * Writes all records of a slot at once. One that comes after a later slot is marked `correction: true`.
   * @throws when the slot has records already, or is none of this series
   */
  write(slot: number, records: readonly object[]): void {
    const { cadenceMs, catchUpSlots } = this.plan;
    const { state } = this;
    if (slot !== slotOf(slot, this.plan)) throw new Error(`${slot} is no slot of ${this.plan.name}`);
    if (records.length === 0)
      throw new Error(`no records for slot ${slot} of ${this.plan.name}: what is absent is missing, not empty`);
    const isLate = state.last_slot !== null && slot <= state.last_slot;
    if (isLate && !state.missing.includes(slot)) throw new Error(`slot ${slot} of ${this.plan.name} is there already`);
    this.writer.append(records.map((record) => ({ slot, ...(isLate ? { correction: true } : {}), ...record })));
    if (isLate) {
      state.missing = state.missing.filter((each) => each !== slot);
      state.corrections += 1;
    } else {
      for (let each = (state.last_slot ?? slot) + cadenceMs; each < slot; each += cadenceMs) state.missing.push(each);
      // What is too old to be completed is missing for good, which the file itself shows.
      state.missing = state.missing.filter((each) => each >= slot - catchUpSlots * cadenceMs);
      state.first_slot ??= slot;
      state.last_slot = slot;
    }
    state.last_write = this.clock();
    this.save();
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
   * @param compute the records of a slot @returns slots that failed
   */
  async turn(compute: (slot: number) => Promise<object[]>, stop: AbortSignal): Promise<number[]> {
    const failed: number[] = [];
    this.state.error = null;
    for (const slot of this.due(this.clock())) {
      if (stop.aborted) break;
      try {
        this.write(slot, await compute(slot));
      } catch (error) {
        failed.push(slot);
        this.state.error = `${new Date(slot).toISOString()}: ${(error as Error).message}`;
      }
    }
    this.save();
    return failed;
  }

  async close(): Promise<void> {
    this.writer.close();
    await this.lock.release();
  }

  private save(): void {
    writeJsonAtomic(this.path, this.state);
  }
}

/** What the files say; the health file knows what they do not: how the series began, and how often it was corrected. */
async function stateOf(plan: SeriesPlan, path: string, file: string, now: number): Promise<SeriesState> {
  const { name, cadenceMs, offsetMs = 0, catchUpSlots } = plan;
  const known = SERIES_STATE.safeParse(readJson(path)).data ?? null;
  const slots = await slotsOf(file);
  const sorted = [...slots].sort((one, other) => one - other);
  const first = known?.first_slot ?? sorted[0] ?? null;
  const last = sorted.at(-1) ?? known?.last_slot ?? null;
  const missing: number[] = [];
  const oldest = slotOf(now, plan) - catchUpSlots * cadenceMs;
  if (first !== null && last !== null) {
    for (let slot = Math.max(first, oldest); slot < last; slot += cadenceMs) if (!slots.has(slot)) missing.push(slot);
  }
  return {
    ...{ name, file: plan.file, cadence_ms: cadenceMs, offset_ms: offsetMs, first_slot: first, last_slot: last },
    ...{ last_write: known?.last_write ?? null, missing, corrections: known?.corrections ?? 0, error: null },
  };
}

async function slotsOf(file: string): Promise<Set<number>> {
  const slots = new Set<number>();
  for (const path of rotatedSet(file)) {
    for await (const line of objectsOf(path)) {
      const slot = 'value' in line ? SLOT.safeParse(line.value.slot) : null;
      if (slot?.success) slots.add(slot.data);
    }
  }
  return slots;
}
