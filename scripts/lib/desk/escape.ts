/**
 * How many coins are topping, and in how many minutes of the last two and 24 hours so many were that it counts as a signal.
 *
 * Rules, each with a record of its own per minute:
 * - `sar-breadth`: coins whose SAR position is bullish while its slope points down (quadrant Q1 or Q2).
 * - `range-position`: coins whose close lies in the upper tenth of their range of 48 hours.
 * - `range-position-legacy`: in the upper or in the lower tenth, as the original counted both as tops.
 * All times are data times: a row counts in the minute of its candle's open, whenever it came.
 */
import { beijingText } from './beijing.ts';
import { CANDLE_MS } from './sar.ts';
import type { StoredSar } from './sar_file.ts';

export const RULES = ['sar-breadth', 'range-position', 'range-position-legacy'] as const;
export type Rule = (typeof RULES)[number];
/** Rises when a rule comes to mean something else. */
const RULE_VERSION = 1;

export const MINUTE_MS = 60_000;
const HOUR_MS = 60 * MINUTE_MS;
/** Windows of the counts. */
const SHORT_MS = 2 * HOUR_MS;
const LONG_MS = 24 * HOUR_MS;
/** Windows of the ranges. */
const RANGE_SHORT_MS = 48 * HOUR_MS;
export const RANGE_LONG_MS = 7 * 24 * HOUR_MS;
const RANGE_CANDLES = RANGE_LONG_MS / CANDLE_MS;
/** A close in this share of its range is at an end of it. */
const TENTH = 0.1;
/** The levels of strength: the share of the coins from which on a level holds. */
const LEVELS = [0.5, 0.65, 0.8, 0.95] as const;

/** A record of escape_signal_stats.jsonl. */
export interface EscapeRow {
  /** The minute, ms since the epoch. */
  slot: number;
  /** The same in Beijing. */
  stat_time: string;
  rule: Rule;
  rule_version: number;
  /** Minutes of the window that are signals; null: it has no data. */
  signal_24h_count: number | null;
  signal_2h_count: number | null;
  /** 0 to 4: how large a share of the coins falls (bearish, SAR going down), or rises; null without data. */
  decline_strength_level: number | null;
  rise_strength_level: number | null;
  /** The most coins in one minute of the window. */
  max_signal_24h: number | null;
  max_signal_2h: number | null;
  /** When the minute's data are complete: the first moment at which the record can be. */
  created_at: string;
  /** Coins that the rule counts, of `coins`; null: the five minutes before have no data, or none that the rule can judge. */
  breadth: number | null;
  coins: number;
  is_signal: boolean | null;
  /** So many coins are a signal. */
  threshold: number;
  /** The minute that `breadth` is of. */
  data_time: string | null;
  /** Five-minute candles that are missing in the windows: what the counts do not know of. */
  missing_2h: number;
  missing_24h: number;
}
/** Of the ranges' rules: coins in the lower and upper tenth of 7 days (1, 2) and of 48 hours (3, 4); null: no coin's range is whole. */
export type ScenarioRow = EscapeRow & Record<`scenario_${1 | 2 | 3 | 4}`, number | null>;

/** What the model needs of a SAR row; without its prices it has no place in a range. */
export type EscapeInput = Pick<
  StoredSar,
  'symbol' | 'timestamp' | 'sar_position' | 'sar_quadrant' | 'slope_direction'
> & { [Price in 'high' | 'low' | 'close']?: number | undefined };

/** Coins of one minute. */
interface Minute {
  coins: Set<string>;
  topping: Set<string>;
  falling: Set<string>;
  rising: Set<string>;
}

/** What one minute comes to. */
interface Judged {
  time: number;
  coins: number;
  falling: number;
  rising: number;
  scenarios: (number | null)[];
  /** Coins with a whole range of 48 hours. */
  ranged: number;
  value: Record<Rule, number | null>;
}

/** The candles of a coin in the last seven days, by their place in it. */
interface Candles {
  times: Float64Array;
  highs: Float64Array;
  lows: Float64Array;
  closes: Float64Array;
}

export class EscapeModel {
  private readonly minutes = new Map<number, Minute>();
  private readonly candles = new Map<string, Candles>();
  /** Minutes of the last 24 hours, oldest first. */
  private judged: Judged[] = [];
  private evaluated = Number.NEGATIVE_INFINITY;

  /** @param threshold coins at once that make a minute a signal */
  constructor(private readonly threshold: number) {}

  /** Takes a row; of one minute they may come in any order, and all before that minute is evaluated. */
  add(row: EscapeInput): void {
    const minute = Math.floor(row.timestamp / MINUTE_MS) * MINUTE_MS;
    if (minute <= this.evaluated) throw new Error(`${row.symbol}: a row of ${minute}, which is evaluated already`);
    let found = this.minutes.get(minute);
    if (!found) {
      found = { coins: new Set(), topping: new Set(), falling: new Set(), rising: new Set() };
      this.minutes.set(minute, found);
    }
    const { symbol, sar_position: position, sar_quadrant: quadrant, slope_direction: slope } = row;
    found.coins.add(symbol);
    if (position === 'bullish' && slope === 'down' && (quadrant === 'Q1' || quadrant === 'Q2'))
      found.topping.add(symbol);
    if (position === 'bearish' && slope === 'down') found.falling.add(symbol);
    if (position === 'bullish' && slope === 'up') found.rising.add(symbol);
    this.keepCandle(row);
  }

  /** The records of a minute, a rule each. Minutes are evaluated in their order, after all their rows were added. */
  evaluate(slot: number): EscapeRow[] {
    for (const [time, minute] of [...this.minutes].sort(([one], [other]) => one - other)) {
      if (time > slot) break;
      // Older ones are of use to the ranges only.
      if (time > slot - LONG_MS) this.judged.push(this.judge(time, minute));
      this.minutes.delete(time);
    }
    this.evaluated = slot;
    const first = this.judged.findIndex(({ time }) => time > slot - LONG_MS);
    this.judged = first < 0 ? [] : this.judged.slice(first);
    return RULES.map((rule) => this.record(slot, rule));
  }

  private keepCandle({ symbol, timestamp, high, low, close }: EscapeInput): void {
    if (timestamp % CANDLE_MS !== 0 || high === undefined || low === undefined || close === undefined) return;
    let own = this.candles.get(symbol);
    if (!own) {
      const numbers = () => new Float64Array(RANGE_CANDLES);
      this.candles.set(symbol, (own = { times: numbers(), highs: numbers(), lows: numbers(), closes: numbers() }));
    }
    const place = (timestamp / CANDLE_MS) % RANGE_CANDLES;
    own.times[place] = timestamp;
    own.highs[place] = high;
    own.lows[place] = low;
    own.closes[place] = close;
  }

  private judge(time: number, { coins, topping, falling, rising }: Minute): Judged {
    const short: number[] = [];
    const long: number[] = [];
    for (const symbol of coins) {
      const [inShort, inLong] = [RANGE_SHORT_MS, RANGE_LONG_MS].map((range) => this.position(symbol, time, range));
      if (typeof inShort === 'number') short.push(inShort);
      if (typeof inLong === 'number') long.push(inLong);
    }
    const [low7d, high7d] = [atLow(long), atHigh(long)];
    const [low48h, high48h] = [atLow(short), atHigh(short)];
    return {
      ...{ time, coins: coins.size, falling: falling.size, rising: rising.size, ranged: short.length },
      scenarios: [low7d, high7d, low48h, high48h],
      value: {
        'sar-breadth': topping.size,
        'range-position': high48h,
        'range-position-legacy': low48h === null || high48h === null ? null : low48h + high48h,
      },
    };
  }

  /** Where the close of the candle at `time` lies between the low (0) and the high (1) of the range up to it; null: a candle is missing. */
  private position(symbol: string, time: number, range: number): number | null {
    const own = this.candles.get(symbol);
    if (own === undefined || time % CANDLE_MS !== 0) return null;
    let [high, low] = [Number.NEGATIVE_INFINITY, Number.POSITIVE_INFINITY];
    for (let at = time - range + CANDLE_MS; at <= time; at += CANDLE_MS) {
      const place = (at / CANDLE_MS) % RANGE_CANDLES;
      if (own.times[place] !== at) return null;
      if (own.highs[place]! > high) high = own.highs[place]!;
      if (own.lows[place]! < low) low = own.lows[place]!;
    }
    const close = own.closes[(time / CANDLE_MS) % RANGE_CANDLES]!;
    return high > low ? (close - low) / (high - low) : null;
  }

  private record(slot: number, rule: Rule): EscapeRow | ScenarioRow {
    const newest = this.judged.at(-1);
    const present = newest !== undefined && newest.time > slot - CANDLE_MS ? newest : null;
    const [short, long] = [this.window(slot, SHORT_MS, rule), this.window(slot, LONG_MS, rule)];
    const value = present?.value[rule] ?? null;
    const row: EscapeRow = {
      ...{ slot, stat_time: beijingText(slot), rule, rule_version: RULE_VERSION },
      ...{ signal_24h_count: long.signals, signal_2h_count: short.signals },
      decline_strength_level: present === null ? null : levelOf(present.falling / present.coins),
      rise_strength_level: present === null ? null : levelOf(present.rising / present.coins),
      ...{ max_signal_24h: long.most, max_signal_2h: short.most },
      created_at: beijingText(slot + CANDLE_MS),
      ...{ breadth: value, coins: (rule === 'sar-breadth' ? present?.coins : present?.ranged) ?? 0 },
      is_signal: value === null ? null : value >= this.threshold,
      threshold: this.threshold,
      data_time: present === null ? null : beijingText(present.time),
      ...{ missing_2h: short.missing, missing_24h: long.missing },
    };
    if (rule === 'sar-breadth') return row;
    const [scenario_1 = null, scenario_2 = null, scenario_3 = null, scenario_4 = null] = present?.scenarios ?? [];
    return { ...row, scenario_1, scenario_2, scenario_3, scenario_4 };
  }

  private window(slot: number, span: number, rule: Rule) {
    const inside = this.judged.filter(({ time }) => time > slot - span && time <= slot);
    const values = inside.flatMap(({ value }) => value[rule] ?? []);
    const candles = new Set(inside.filter(({ time }) => time % CANDLE_MS === 0).map(({ time }) => time));
    const isKnown = values.length > 0;
    return {
      signals: isKnown ? values.filter((each) => each >= this.threshold).length : null,
      most: isKnown ? Math.max(...values) : null,
      missing: span / CANDLE_MS - candles.size,
    };
  }
}

/** Of positions in ranges; null: no range is whole. */
function atLow(positions: readonly number[]): number | null {
  return positions.length === 0 ? null : positions.filter((each) => each <= TENTH).length;
}

function atHigh(positions: readonly number[]): number | null {
  return positions.length === 0 ? null : positions.filter((each) => each >= 1 - TENTH).length;
}

function levelOf(share: number): number {
  return LEVELS.filter((from) => share >= from).length;
}
