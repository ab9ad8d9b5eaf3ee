/**
 * Wilder's parabolic SAR over five-minute candles, and the slope signals that the desk derives from it.
 *
 * Source: J. Welles Wilder, New Concepts in Technical Trading Systems (1978), with what he leaves open decided as the desk always had it: the
 * first candle's colour is the first direction; a flip is looked for before the candle's own extreme is taken; after a flip the SAR is the
 * extreme point up to the previous candle, not held by the candle's own high or low. Libraries differ in these.
 */
import { beijingText } from './beijing.ts';

export const CANDLE_MS = 300_000;
const AF_START = 0.02;
const AF_STEP = 0.02;
const AF_MOST = 0.2;
/** Points of the slope's window. */
const WINDOW = 10;
/** Candles whose lows and highs hold the SAR. */
const HOLDING = 2;

/** A finished candle. */
export interface SarCandle {
  /** Open time, ms since the epoch. */
  timestamp: number;
  open: number;
  high: number;
  low: number;
  close: number;
}

export type Position = 'bullish' | 'bearish';
export type Quadrant = 'Q1' | 'Q2' | 'Q3' | 'Q4';

/** A record of sar_slope_data.jsonl. */
export interface SarRow extends SarCandle {
  symbol: string;
  /** Open time in Beijing. */
  datetime: string;
  /** The close. */
  price: number;
  sar_value: number;
  sar_position: Position;
  /** Above (Q1) or below the SAR while bullish (Q2), below (Q3) or above it while bearish (Q4). */
  sar_quadrant: Quadrant;
  /** Candles since the flip, its own included; 1 again after a gap. */
  sequence: number;
  /** The same in minutes. */
  position_duration: number;
  /** Of the last ten candles: last SAR less the first, by their number; null while there is one only. */
  sar_slope: number | null;
  /** Share of their steps in which SAR and price moved the same way, 0 to 1. */
  direction_ratio: number | null;
  /** That share, negative while bearish. */
  slope_value: number | null;
  slope_direction: 'up' | 'down' | null;
  /** Extreme point and acceleration factor: with them the next SAR follows from the row. */
  ep: number;
  af: number;
  /** Candles that are missing before this one. */
  gap: number;
}

/** What `Chain` goes on from: rows have it all. */
type Stored = Pick<
  SarRow,
  'timestamp' | 'high' | 'low' | 'close' | 'sar_value' | 'sar_position' | 'sequence' | 'ep' | 'af'
>;

/** The SAR of one coin, candle by candle. */
export class SarChain {
  private readonly recent: Stored[] = [];

  /** @param stored the last rows of the coin, oldest first: ten are enough; none: the chain begins */
  constructor(
    readonly symbol: string,
    stored: readonly Stored[] = [],
  ) {
    for (const row of stored) this.keep(row);
  }

  /** Open time of the last candle, ms; null before the first. */
  get last(): number | null {
    return this.recent.at(-1)?.timestamp ?? null;
  }

  /** @throws when the candle is not later than the last one */
  add(candle: SarCandle): SarRow {
    const before = this.recent.at(-1);
    if (before !== undefined && candle.timestamp <= before.timestamp)
      throw new Error(`${this.symbol}: candle ${candle.timestamp} is not later than ${before.timestamp}`);
    const point = before === undefined ? firstPoint(candle) : nextPoint(candle, before, this.recent.slice(-HOLDING));
    const gap = before === undefined ? 0 : Math.round((candle.timestamp - before.timestamp) / CANDLE_MS) - 1;
    const sequence = gap > 0 ? 1 : point.sequence;
    const { timestamp, open, high, low, close } = candle;
    this.keep({ timestamp, high, low, close, ...point, sequence });
    const { sar_value, sar_position, ep, af } = point;
    return {
      ...{ symbol: this.symbol, timestamp, datetime: beijingText(timestamp), open, high, low, close, price: close },
      ...{ sar_value, sar_position, sar_quadrant: quadrantOf(sar_position, close, sar_value) },
      ...{ sequence, position_duration: (sequence * CANDLE_MS) / 60_000 },
      ...slopeOf(this.recent, sar_position),
      ...{ ep, af, gap },
    };
  }

  private keep(row: Stored): void {
    this.recent.push(row);
    if (this.recent.length > WINDOW) this.recent.shift();
  }
}

type Point = Pick<Stored, 'sar_value' | 'sar_position' | 'sequence' | 'ep' | 'af'>;

function firstPoint({ open, high, low, close }: SarCandle): Point {
  const isLong = close > open;
  const position: Position = isLong ? 'bullish' : 'bearish';
  const [sar_value, ep] = isLong ? [low, high] : [high, low];
  return { sar_value, sar_position: position, sequence: 1, ep, af: AF_START };
}

/** @param held the candles before, whose lows and highs hold the SAR */
function nextPoint({ high, low }: SarCandle, before: Point, held: readonly Pick<Stored, 'high' | 'low'>[]): Point {
  const { sar_value, sar_position, sequence, ep, af } = before;
  const isLong = sar_position === 'bullish';
  const moved = sar_value + af * (ep - sar_value);
  const sar = isLong
    ? Math.min(moved, ...held.map((each) => each.low))
    : Math.max(moved, ...held.map((each) => each.high));
  if (isLong ? low < sar : high > sar) {
    const [position, extreme] = isLong ? (['bearish', low] as const) : (['bullish', high] as const);
    return { sar_value: ep, sar_position: position, sequence: 1, ep: extreme, af: AF_START };
  }
  const isNew = isLong ? high > ep : low < ep;
  return {
    sar_value: sar,
    sar_position,
    sequence: sequence + 1,
    ep: isNew ? (isLong ? high : low) : ep,
    // Steps of 0.02 summed up would drift: 0.02 * n is one multiplication.
    af: isNew ? Math.min(Math.round(af / AF_STEP + 1) * AF_STEP, AF_MOST) : af,
  };
}

function quadrantOf(position: Position, price: number, sar: number): Quadrant {
  if (position === 'bullish') return price > sar ? 'Q1' : 'Q2';
  return price < sar ? 'Q3' : 'Q4';
}

function slopeOf(
  points: readonly Pick<Stored, 'sar_value' | 'close'>[],
  position: Position,
): Pick<SarRow, 'sar_slope' | 'direction_ratio' | 'slope_value' | 'slope_direction'> {
  if (points.length < 2) return { sar_slope: null, direction_ratio: null, slope_value: null, slope_direction: null };
  const sarSlope = (points.at(-1)!.sar_value - points[0]!.sar_value) / points.length;
  let together = 0;
  for (let i = 1; i < points.length; i += 1) {
    const [sar, price] = [
      points[i]!.sar_value - points[i - 1]!.sar_value,
      points[i]!.close - points[i - 1]!.close,
    ] as const;
    if ((sar > 0 && price > 0) || (sar < 0 && price < 0)) together += 1;
  }
  const ratio = together / (points.length - 1);
  return {
    sar_slope: sarSlope,
    direction_ratio: ratio,
    // No negative zero in a file.
    slope_value: position === 'bullish' || ratio === 0 ? ratio : -ratio,
    slope_direction: sarSlope > 0 ? 'up' : 'down',
  };
}

/** A record of sar_slope_summary.jsonl: how the coins stand in a minute, by the candles that are closed by then. */
export interface SarSummary {
  /** The minute, ms since the epoch, and in Beijing. */
  timestamp: number;
  datetime: string;
  /** Open time of the candles. */
  data_timestamp: number;
  /** Coins with that candle; of the others nothing is counted. */
  total_symbols: number;
  missing_symbols: string[];
  bullish_count: number | null;
  bearish_count: number | null;
  /** slope_value above 0.8, below -0.8. */
  bullish_80_plus_count: number | null;
  bearish_80_plus_count: number | null;
  bullish_80_plus: string[];
  bearish_80_plus: string[];
}

const STEEP = 0.8;

/** The candle that is the newest closed one at `minute`. @returns its open time, ms */
export function candleOf(minute: number): number {
  return Math.floor(minute / CANDLE_MS) * CANDLE_MS - CANDLE_MS;
}

/** @param rows of the candle `candleOf(minute)` @param symbols all that should be there */
export function summaryOf(
  minute: number,
  rows: readonly Pick<SarRow, 'symbol' | 'sar_position' | 'slope_value'>[],
  symbols: readonly string[],
): SarSummary {
  const present = new Map(rows.map((row) => [row.symbol, row]));
  const list = symbols.flatMap((symbol) => present.get(symbol) ?? []);
  const count = (position: Position) =>
    list.length === 0 ? null : list.filter((row) => row.sar_position === position).length;
  const steep = (isSteep: (value: number) => boolean) =>
    list.filter(({ slope_value }) => slope_value !== null && isSteep(slope_value)).map(({ symbol }) => symbol);
  const [up, down] = [steep((value) => value > STEEP), steep((value) => value < -STEEP)];
  return {
    ...{ timestamp: minute, datetime: beijingText(minute), data_timestamp: candleOf(minute) },
    total_symbols: list.length,
    missing_symbols: symbols.filter((symbol) => !present.has(symbol)),
    ...{ bullish_count: count('bullish'), bearish_count: count('bearish') },
    bullish_80_plus_count: list.length === 0 ? null : up.length,
    bearish_80_plus_count: list.length === 0 ? null : down.length,
    ...{ bullish_80_plus: up, bearish_80_plus: down },
  };
}
