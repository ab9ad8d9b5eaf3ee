/**
 * What the major events are judged by: five series of other scripts, read by data time. A minute can be judged when each series has passed it;
 * one that stays behind the others is not waited for, and what it would tell is null then.
 */
import { join } from 'node:path';
import { z } from 'zod';
import { readJson } from '../files.ts';
import { recordsOf, SERIES_STATE, type SeriesState, slotOf } from '../series.ts';
import { type Figure, MINUTE_MS, type Reading } from './major_events.ts';

/** A series is late when its next slot is so far behind the newest data of all. */
export const LATE_MS = 30 * MINUTE_MS;
/** And has not moved for so long: after a common outage one of them is the first to catch up. */
export const PATIENCE_MS = 5 * MINUTE_MS;

export const INPUT_NAMES = ['escape_signal', 'coin_prices', 'liquidation_1h', 'sar_slope', 'anchor'] as const;
export type InputName = (typeof INPUT_NAMES)[number];

interface Input {
  figure: Figure;
  /** Below the data directory. */
  file: string;
  /** A record tells of so much after its slot, ms: a candle's close of its end. */
  spanMs: number;
  /** A record tells of minutes up to so much later, ms. */
  ageMs: number;
  /** Where there is no such series at all, none is waited for. */
  isOptional: boolean;
  /** @returns undefined: a record of something else */
  figureOf(record: unknown): Reading[Figure] | undefined;
}

const figure = z.union([z.number(), z.string().regex(/^-?\d+(\.\d+)?$/, 'is no figure')]).pipe(z.coerce.number());
const ESCAPE = z.object({ rule: z.string(), signal_2h_count: z.number().int().min(0).nullable() });
const COINS = z.object({ total_change: figure.nullable() });
const LIQUIDATIONS = z.object({ amount: figure.pipe(z.number().min(0)).nullable() });
const SAR = z.object({ symbol: z.string(), close: figure.pipe(z.number().positive()) });
const positions = z.number().int().min(0);
const ANCHOR = z.object({ stats: z.object({ short: z.object({ loss: positions, gte_120: positions }) }) });

const INPUTS: Record<InputName, Input> = {
  escape_signal: {
    figure: 'signal_2h_count',
    file: 'escape_signal_jsonl/escape_signal_stats.jsonl',
    ...{ spanMs: 0, ageMs: 0, isOptional: false },
    figureOf(record) {
      const { rule, signal_2h_count } = ESCAPE.parse(record);
      return rule === 'sar-breadth' ? signal_2h_count : undefined;
    },
  },
  coin_prices: {
    figure: 'total_change',
    file: 'coin_price_tracker/coin_prices_30min.jsonl',
    ...{ spanMs: 0, ageMs: 35 * MINUTE_MS, isOptional: false },
    figureOf: (record) => COINS.parse(record).total_change,
  },
  liquidation_1h: {
    figure: 'liquidation_1h',
    file: 'unified/liquidation_1h.jsonl',
    ...{ spanMs: 0, ageMs: 10 * MINUTE_MS, isOptional: false },
    figureOf: (record) => LIQUIDATIONS.parse(record).amount,
  },
  sar_slope: {
    figure: 'price',
    file: 'sar_slope_jsonl/sar_slope_data.jsonl',
    ...{ spanMs: 5 * MINUTE_MS, ageMs: 15 * MINUTE_MS, isOptional: false },
    figureOf(record) {
      const { symbol, close } = SAR.parse(record);
      return symbol === 'BTC' ? close : undefined;
    },
  },
  // Of the present only: what was not asked in time stays unknown.
  anchor: {
    figure: 'anchor',
    file: 'anchor/anchor_profit_stats.jsonl',
    ...{ spanMs: 0, ageMs: 15 * MINUTE_MS, isOptional: true },
    figureOf: (record) => ANCHOR.parse(record).stats.short,
  },
};

/** The series whose record a figure is, such as `coin_prices` for `total_change`. */
export function inputOf(name: Figure): InputName {
  return INPUT_NAMES.find((input) => INPUTS[input].figure === name)!;
}

/** Since when a series has not moved while it was late: its last slot then, and the wall clock, ms. Kept between runs. */
export const WAITING = z.partialRecord(
  z.enum(INPUT_NAMES),
  z.object({ last_slot: z.number().nullable(), since: z.number() }),
);
export type Waiting = z.infer<typeof WAITING>;

/** How far each series is: the health files of their scripts, as they are now; null: the series does not exist. */
export type Watermarks = Record<InputName, SeriesState | null>;

/** @throws when a health file is damaged */
export function readWatermarks(dataDir: string): Watermarks {
  const read = (name: InputName) => {
    const path = join(dataDir, 'state', `series-${name}.json`);
    const content = readJson(path);
    if (content === null) return null;
    const state = SERIES_STATE.safeParse(content);
    if (!state.success) throw new Error(`${path} is no health file of a series: ${state.error.issues[0]!.message}`);
    // One that has no record yet is as good as none.
    return state.data.last_slot === null ? null : state.data;
  };
  return Object.fromEntries(INPUT_NAMES.map((name) => [name, read(name)])) as Watermarks;
}

/** The newest minute that any series tells of; null: none tells of any. */
export function headOf(marks: Watermarks): number | null {
  const ends = INPUT_NAMES.flatMap((name) => {
    const last = marks[name]?.last_slot ?? null;
    return last === null ? [] : [Math.floor((last + INPUTS[name].spanMs) / MINUTE_MS) * MINUTE_MS];
  });
  return ends.length === 0 ? null : Math.max(...ends);
}

/** The slot that a series must have before it can tell of `minute`, and does not have; null: it has passed the minute. */
function awaited(name: InputName, mark: SeriesState | null, minute: number, begun: number): number | null {
  const { spanMs, isOptional } = INPUTS[name];
  if (mark === null || mark.last_slot === null) return isOptional ? null : begun;
  const slot = slotOf(minute - spanMs, { cadenceMs: mark.cadence_ms, offsetMs: mark.offset_ms });
  if (slot > mark.last_slot) return mark.last_slot + mark.cadence_ms;
  return mark.missing.includes(slot) ? slot : null;
}

/** Why a series has no figure for a minute that was judged all the same. */
export const LACKS = ['no records', 'late', 'no figure'] as const;

export function lackOf(name: InputName, marks: Watermarks, minute: number): (typeof LACKS)[number] {
  const mark = marks[name];
  if (mark === null || mark.last_slot === null) return 'no records';
  return awaited(name, mark, minute, minute) === null ? 'no figure' : 'late';
}

/** Decides which minutes can be judged. */
export class Gate {
  private readonly head: number | null;

  /**
   * @param begun the first minute that is to be judged
   * @param waiting is kept up to date
   * @param now wall clock, ms: for how long to wait, and for nothing else
   */
  constructor(
    private readonly marks: Watermarks,
    private readonly begun: number,
    private readonly waiting: Waiting,
    private readonly now: number,
  ) {
    this.head = headOf(marks);
  }

  /** The series that `minute` waits for; empty: it can be judged. */
  waitsFor(minute: number): InputName[] {
    if (this.head === null || minute > this.head) return [...INPUT_NAMES];
    return INPUT_NAMES.filter((name) => this.isWaitedFor(name, minute));
  }

  private isWaitedFor(name: InputName, minute: number): boolean {
    const mark = this.marks[name];
    const slot = awaited(name, mark, minute, this.begun);
    if (slot === null) return false;
    const last_slot = mark?.last_slot ?? null;
    if (this.head! - slot <= LATE_MS) return true;
    // A hole: its script has tried, and gone on.
    if (last_slot !== null && slot <= last_slot) return false;
    const known = this.waiting[name];
    if (known === undefined || known.last_slot !== last_slot || known.since > this.now)
      this.waiting[name] = { last_slot, since: this.now };
    return this.now - this.waiting[name]!.since < PATIENCE_MS;
  }
}

/**
 * Readings of the minutes from `from` to `to` (ms, both included).
 * @param bad told of a record that is not sound, which is left out
 */
export async function readingsOf(
  dataDir: string,
  from: number,
  to: number,
  bad: (name: InputName, slot: number, reason: string) => void,
): Promise<Reading[]> {
  const figures = new Map<InputName, Map<number, Reading[Figure]>>();
  for (const name of INPUT_NAMES) figures.set(name, await figuresOf(dataDir, name, from, to, bad));
  const readings: Reading[] = [];
  for (let minute = from; minute <= to; minute += MINUTE_MS) {
    const known = INPUT_NAMES.map((name) => [INPUTS[name].figure, newest(name, figures.get(name)!, minute)]);
    readings.push({ minute, ...Object.fromEntries(known) });
  }
  return readings;
}

/** What a series tells, by the minute from which it does. */
async function figuresOf(
  dataDir: string,
  name: InputName,
  from: number,
  to: number,
  bad: (name: InputName, slot: number, reason: string) => void,
): Promise<Map<number, Reading[Figure]>> {
  const { file, spanMs, ageMs, figureOf } = INPUTS[name];
  const figures = new Map<number, Reading[Figure]>();
  for await (const record of recordsOf(join(dataDir, file), from - ageMs - spanMs)) {
    const time = record.slot + spanMs;
    if (time > to) continue;
    try {
      const value = figureOf(record);
      // A later record of the same slot corrects the earlier one.
      if (value !== undefined) figures.set(Math.ceil(time / MINUTE_MS) * MINUTE_MS, value);
    } catch (error) {
      if (!(error instanceof z.ZodError)) throw error;
      const { path, message } = error.issues[0]!;
      bad(name, record.slot, `${path.join('.') || 'record'}: ${message}`);
    }
  }
  return figures;
}

function newest(name: InputName, figures: Map<number, Reading[Figure]>, minute: number): Reading[Figure] {
  for (let time = minute; time >= minute - INPUTS[name].ageMs; time -= MINUTE_MS) {
    const value = figures.get(time);
    if (value !== undefined) return value;
  }
  return null;
}
