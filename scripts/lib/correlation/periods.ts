/** Timeframes and periods of the correlations, and what a candle's close is to them. */

/** Lengths of candles, ms. The venue serves the newest 5000 of each. */
export const TIMEFRAMES = { '1m': 60_000, '5m': 300_000, '15m': 900_000, '1h': 3_600_000 } as const;
export type Timeframe = keyof typeof TIMEFRAMES;
export const TIMEFRAME_NAMES = Object.keys(TIMEFRAMES) as [Timeframe, ...Timeframe[]];

const DAY_MS = 86_400_000;
/** Lengths of the periods, ms: the first is the short one of the rule, the others are the long ones. */
export const PERIODS = { '1d': DAY_MS, '7d': 7 * DAY_MS, '30d': 30 * DAY_MS, '60d': 60 * DAY_MS } as const;
export type Period = keyof typeof PERIODS;
export const PERIOD_NAMES = Object.keys(PERIODS) as [Period, ...Period[]];
export const SHORT_PERIOD: Period = '1d';

/** The coin that all others are compared with. */
export const BASE = 'BTC';

/** Candles of a period that has all of them. */
export function barsOf(timeframe: Timeframe, period: Period): number {
  return PERIODS[period] / TIMEFRAMES[timeframe];
}
