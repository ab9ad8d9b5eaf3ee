/**
 * The desk's five major events, minute by minute, by data time alone. Pure: a state, a reading and limits in, a state and events out; the state is
 * plain JSON, and all of it, so that a process that goes on from it decides as if it had never ended.
 *
 * - E1 strong top: signals of two hours reach `strong_top_count`; within `top_hours` of the last such reading one is from `strong_low_count` to below
 *   it, while the 27 coins are up in sum.
 * - E2 weak top: a reading from `weak_top_count` to below `strong_top_count`; within `top_hours` of the highest one it is lower, and not 0. Only a rise
 *   begins one: what comes down from a strong top, or goes on coming down, is not told as a further top.
 * - E3, E4: liquidations of an hour reach `liquidation_usd`. When `liquidation_minutes` are over the price decides: up by `price_rise_percent` or more is
 *   E3 (strong), anything less, also after it was as high in between, E4 (weak).
 * - E5: `anchor_count` shorts of the anchor account in loss are green, as many with a profit of 120 % and more red; both at once or neither say nothing. A
 *   change of colour is a reversal.
 *
 * Each event rests for `cooldown_minutes`. Of E1, E2 and E5, what still holds then is told then; E3 and E4 rest together, as one
 * liquidation has one outcome, and what comes in between begins nothing.
 *
 * The original's thresholds could not all be reached. Recalibrated:
 *
 * | limit              | original                | here                  | why                                                                             |
 * | ------------------ | ----------------------- | --------------------- | ------------------------------------------------------------------------------- |
 * | strong_top_count   | 120 of 120 snapshots    | 12 of 24              | counts are of five-minute data in two hours, at most 24; all of them would ask  |
 * |                    |                         |                       | the market to top without a break for two hours: half of them is one hour       |
 * | strong_low_count   | 10 of 120               | 2 of 24               | the same share                                                                  |
 * | weak_top_count     | 20 of 120               | 4 of 24               | the same share                                                                  |
 * | liquidation_usd    | 30 million              | 10 million            | the original asked a source that sums all coins; ours are samples (Binance and  |
 * |                    |                         |                       | OKX tell at most one per symbol and second), by default of BTC and ETH alone:   |
 * |                    |                         |                       | a third of it is our estimate                                                   |
 * | price_rise_percent | 5 in 10 minutes         | 1.5                   | BTC moves about 0.2 % in ten minutes (one standard deviation at 50 % a year):   |
 * |                    |                         |                       | 5 % is beyond anything but a crash, 1.5 % a strong answer to liquidations       |
 * | anchor_count       | 3                       | 3                     | positions, not signals: as it was                                               |
 */
import { z } from 'zod';
import { beijingText } from './beijing.ts';
import { textsOf } from './major_event_text.ts';

export const MINUTE_MS = 60_000;
/** Rises when a rule comes to mean something else. */
const RULE_VERSION = 1;
/** Five-minute data in two hours. */
const MOST_COUNT = 24;
/** Changes of colour that are kept. */
const MOST_MARKS = 10;

export const EVENTS = ['E1', 'E2', 'E3', 'E4', 'E5'] as const;
export type EventName = (typeof EVENTS)[number];

const count = z.number().int().min(1).max(MOST_COUNT);
const positive = z.number().positive();

/** What an operator may set, each with its default; an unknown name is refused, so that a misspelled one is not thought to be set. */
export const MAJOR_LIMITS = z
  .strictObject({
    strong_top_count: count.default(12),
    strong_low_count: count.default(2),
    weak_top_count: count.default(4),
    top_hours: positive.default(10),
    /** Dollars. */
    liquidation_usd: positive.default(10_000_000),
    liquidation_minutes: z.number().int().positive().default(10),
    price_rise_percent: positive.default(1.5),
    anchor_count: z.number().int().positive().default(3),
    cooldown_minutes: z.number().int().min(0).default(60),
  })
  .refine(({ strong_low_count: low, strong_top_count: top }) => low < top, {
    path: ['strong_low_count'],
    message: 'takes less than strong_top_count',
  })
  .refine(({ weak_top_count: weak, strong_top_count: top }) => weak < top, {
    path: ['weak_top_count'],
    message: 'takes less than strong_top_count',
  });
export type MajorLimits = z.infer<typeof MAJOR_LIMITS>;

const minute = z
  .number()
  .int()
  .refine((time) => time % MINUTE_MS === 0, 'is no whole minute');
const amount = z.number().min(0).nullable().default(null);
const positions = z.number().int().min(0);

/** What is known of one minute; null: not known, which is no 0. */
export const READING = z.strictObject({
  /** ms since the epoch. */
  minute,
  /** Five-minute data of the last two hours that are signals. */
  signal_2h_count: z.number().int().min(0).max(MOST_COUNT).nullable().default(null),
  /** Of the 27 coins since their day began, percent, summed. */
  total_change: z.number().nullable().default(null),
  /** Dollars. */
  liquidation_1h: amount,
  /** Of BTC. */
  price: z.number().positive().nullable().default(null),
  /** Shorts in loss, and with a profit of 120 % of their margin or more. */
  anchor: z.object({ loss: positions, gte_120: positions }).nullable().default(null),
});
export type Reading = z.infer<typeof READING>;
export type Figure = Exclude<keyof Reading, 'minute'>;

/** What each event cannot be judged without. */
export const NEEDS: Record<EventName, readonly Figure[]> = {
  E1: ['signal_2h_count', 'total_change'],
  E2: ['signal_2h_count'],
  E3: ['liquidation_1h', 'price'],
  E4: ['liquidation_1h', 'price'],
  E5: ['anchor'],
};

const colour = z.enum(['green', 'red']);
export type Colour = z.infer<typeof colour>;
const TOP = z.object({ minute, count: z.number().int() });

/** All that the rules remember; minutes in ms since the epoch. */
export const RULE_STATE = z.strictObject({
  /** The last that was judged. */
  minute: minute.nullable(),
  /** The last count that was known. */
  last_count: z.number().int().nullable(),
  /** The last minute of a strong top, with its highest count; null: none that is waited for. */
  strong: TOP.nullable(),
  /** The highest reading of a weak top. */
  weak: TOP.nullable(),
  /** Liquidations whose outcome is waited for: what they were, the price then, and the highest since. */
  liquidation: z.object({ minute, amount: z.number(), price: z.number(), highest: z.number() }).nullable(),
  /** The colour that the last reversal led to, or that was there first. */
  colour: colour.nullable(),
  /** The last changes of colour, told or not. */
  marks: z.array(z.object({ minute, colour, loss: positions, gte_120: positions })).max(MOST_MARKS),
  /** When each event was last told. */
  fired: z.partialRecord(z.enum(EVENTS), minute),
});
export type RuleState = z.infer<typeof RULE_STATE>;

export const FRESH_STATE: RuleState = {
  ...{ minute: null, last_count: null, strong: null, weak: null, liquidation: null },
  ...{ colour: null, marks: [], fired: {} },
};

export const SEVERITY: Record<EventName, 'high' | 'medium'> = {
  E1: 'high',
  E2: 'medium',
  E3: 'high',
  E4: 'medium',
  E5: 'medium',
};

/** The figures that made an event, and the limits that they are beyond. */
export type Values = Record<string, number | string>;

/** A line of major_events.jsonl. */
export const MAJOR_EVENT = z.object({
  /** The same however often the minute is judged. */
  id: z.string(),
  event: z.enum(EVENTS),
  name: z.string(),
  name_zh: z.string(),
  /** Of the data that decided, ms since the epoch, and in Beijing. */
  minute,
  time: z.string(),
  action: z.string(),
  severity: z.enum(['high', 'medium']),
  values: z.record(z.string(), z.union([z.number(), z.string()])),
  rule_version: z.number(),
  text: z.string(),
  text_zh: z.string(),
});
export type MajorEvent = z.infer<typeof MAJOR_EVENT>;

/** One minute of the rules; what they write into is their own. */
interface Turn {
  reading: Reading;
  limits: MajorLimits;
  state: RuleState;
  tell(event: EventName, values: Values): void;
  rests(event: EventName): boolean;
}

/**
 * Judges one minute.
 * @returns the state after it, and the events that it brings, in the order of their names
 * @throws when the minute is not later than the last one
 */
export function step(
  before: RuleState,
  reading: Reading,
  limits: MajorLimits,
): { state: RuleState; events: MajorEvent[] } {
  const now = reading.minute;
  if (before.minute !== null && now <= before.minute)
    throw new Error(`minute ${now} is not later than ${before.minute}, which is judged already`);
  const state: RuleState = { ...structuredClone(before), minute: now };
  const events: MajorEvent[] = [];
  const turn: Turn = {
    ...{ reading, limits, state },
    tell(event, values) {
      state.fired[event] = now;
      events.push(eventOf(event, now, values));
    },
    rests: (event) => now - (state.fired[event] ?? Number.NEGATIVE_INFINITY) < limits.cooldown_minutes * MINUTE_MS,
  };
  strongTop(turn);
  weakTop(turn);
  if (reading.signal_2h_count !== null) state.last_count = reading.signal_2h_count;
  liquidations(turn);
  reversal(turn);
  return { state, events };
}

/** Events that cannot be judged, by the figure that they lack. */
export function blindOf(reading: Reading): Map<Figure, EventName[]> {
  const blind = new Map<Figure, EventName[]>();
  for (const event of EVENTS)
    for (const figure of NEEDS[event])
      if (reading[figure] === null) blind.set(figure, [...(blind.get(figure) ?? []), event]);
  return blind;
}

function strongTop({ reading, limits, state, tell, rests }: Turn): void {
  const { minute: now, signal_2h_count: signals, total_change: change } = reading;
  const { strong_top_count, strong_low_count, top_hours } = limits;
  if (isOver(state.strong, now, top_hours)) state.strong = null;
  if (signals === null) return;
  if (signals >= strong_top_count) {
    state.strong = { minute: now, count: Math.max(signals, state.strong?.count ?? 0) };
    return;
  }
  const { strong } = state;
  if (strong === null || signals < strong_low_count || change === null || change <= 0 || rests('E1')) return;
  const { minute: top_minute, count: top_count } = strong;
  tell('E1', {
    ...{ signal_2h_count: signals, total_change: change, top_count, top_minute },
    ...{ strong_top_count, strong_low_count },
  });
  state.strong = null;
}

function weakTop({ reading, limits, state, tell, rests }: Turn): void {
  const { minute: now, signal_2h_count: signals } = reading;
  const { strong_top_count, weak_top_count, top_hours } = limits;
  if (isOver(state.weak, now, top_hours)) state.weak = null;
  if (signals === null) return;
  // What becomes a strong top is no weak one.
  if (signals >= strong_top_count) state.weak = null;
  const { weak, last_count } = state;
  if (weak !== null && signals > 0 && signals < weak.count) {
    if (rests('E2')) return;
    const { minute: top_minute, count: top_count } = weak;
    tell('E2', { signal_2h_count: signals, top_count, top_minute, weak_top_count, strong_top_count });
    state.weak = null;
    return;
  }
  const isWeak = signals >= weak_top_count && signals < strong_top_count;
  const isTop = weak === null ? last_count === null || signals > last_count : signals >= weak.count;
  if (isWeak && isTop) state.weak = { minute: now, count: signals };
}

function isOver(top: RuleState['strong'], now: number, hours: number): boolean {
  return top !== null && now - top.minute > hours * 60 * MINUTE_MS;
}

function liquidations({ reading, limits, state, tell, rests }: Turn): void {
  const { minute: now, liquidation_1h, price } = reading;
  const { liquidation_usd, liquidation_minutes, price_rise_percent } = limits;
  const watch = state.liquidation;
  if (watch === null) {
    if (liquidation_1h === null || price === null || liquidation_1h < liquidation_usd) return;
    if (!rests('E3') && !rests('E4'))
      state.liquidation = { minute: now, amount: liquidation_1h, price, highest: price };
    return;
  }
  if (price !== null) watch.highest = Math.max(watch.highest, price);
  const waited = (now - watch.minute) / MINUTE_MS;
  if (waited < liquidation_minutes) return;
  if (price !== null && waited < 2 * liquidation_minutes) {
    // As it is told, so that the rounding of a fraction decides nothing that a reader cannot see.
    const [change_percent, highest_percent] = [percent(watch.price, price), percent(watch.price, watch.highest)];
    tell(change_percent >= price_rise_percent ? 'E3' : 'E4', {
      ...{ liquidation_1h: watch.amount, trigger_minute: watch.minute, trigger_price: watch.price, price },
      ...{ change_percent, highest_percent, liquidation_usd, liquidation_minutes, price_rise_percent },
    });
  } else if (waited < 2 * liquidation_minutes) return;
  // A price that comes much later says nothing of these liquidations.
  state.liquidation = null;
}

/** From one price to another, percent with 4 decimals. */
function percent(from: number, to: number): number {
  return Math.round(((to - from) / from) * 1e6) / 1e4;
}

function reversal({ reading, limits, state, tell, rests }: Turn): void {
  const { minute: now, anchor } = reading;
  if (anchor === null) return;
  const { loss, gte_120 } = anchor;
  const { anchor_count } = limits;
  const [isGreen, isRed] = [loss >= anchor_count, gte_120 >= anchor_count];
  if (isGreen === isRed) return;
  const shown: Colour = isGreen ? 'green' : 'red';
  if (state.marks.at(-1)?.colour !== shown)
    state.marks = [...state.marks, { minute: now, colour: shown, loss, gte_120 }].slice(-MOST_MARKS);
  const from = state.colour;
  if (from === shown || (from !== null && rests('E5'))) return;
  state.colour = shown;
  if (from !== null) tell('E5', { from, to: shown, loss, gte_120, anchor_count });
}

function eventOf(event: EventName, time: number, values: Values): MajorEvent {
  const { name, name_zh, action, text, text_zh } = textsOf(event, values);
  return {
    id: `${event}-${time}`,
    ...{ event, name, name_zh, minute: time, time: beijingText(time), action },
    ...{ severity: SEVERITY[event], values, rule_version: RULE_VERSION, text, text_zh },
  };
}
