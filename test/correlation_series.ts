/** Prices and rows for tests of correlations: noise, coins that follow BTC, and what a row says. */
import { TIMEFRAMES, type Timeframe } from '../scripts/lib/correlation/periods.ts';
import type { CorrelationLimits, CorrelationRow } from '../scripts/lib/correlation/rule.ts';
import { seededRandom } from '../scripts/lib/sim/market.ts';

export const END = Date.UTC(2026, 10, 24, 8);
export const LIMITS: CorrelationLimits = { long: 0.6, short: 0.3, diff: 0.5, significant: null };

/** Closes by time, as a market has them. */
export type Series = Map<number, number>;

/** About normal, mean 0, deviation 1. */
export function normal(random: () => number): number {
  return Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
}

/** Noise, one value per bar, the last at END. */
export function noise(seed: number, bars: number): number[] {
  const random = seededRandom(seed);
  return Array.from({ length: bars }, () => normal(random));
}

/** A price that these moves (of 0.1 % each) make, on the grid that ends at END. */
export function priceOf(moves: readonly number[], timeframe: Timeframe): Series {
  const width = TIMEFRAMES[timeframe];
  let price = 100;
  return new Map(
    moves.map((move, i) => [END - (moves.length - 1 - i) * width, (price *= 1 + move / 1000)] as [number, number]),
  );
}

/** The coin's moves: BTC's `lag` bars before, in this proportion, and noise of its own. */
export function following(base: readonly number[], lag: number, share: number, seed: number): number[] {
  const own = noise(seed, base.length);
  return base.map((_, i) => share * (base[i - lag] ?? 0) + Math.sqrt(1 - share * share) * own[i]!);
}

/** A row that says this; the rest is of no matter to the rule. */
export function row(given: Partial<CorrelationRow>): CorrelationRow {
  return {
    ...{ timestamp: END, coin: 'C', timeframe: '5m', period: '1d', corr: 0, lag: 0, p_value: 0.5, pairs: 287 },
    ...{ points: 288, lost: 0, lost_share: 0, reason: null },
    ...given,
  };
}
