/** Order flow imbalance: what the top of a book gained and lost between two states of it. */
import { decimalNumber } from '../decimal.ts';
import type { Level } from '../rows.ts';
import { clamp, MAD_TO_SIGMA, meanAndDeviation, median, medianDeviation, pushTo } from './statistics.ts';

/** The best levels of both sides, best first; a thin book has fewer. */
export interface Top {
  bids: Level[];
  asks: Level[];
}

export const TOP_LEVELS = 5;
/** Weights of the levels, the best first; they add to 1. */
export const OFI_WEIGHTS = [0.4, 0.25, 0.2, 0.1, 0.05] as const;

/** Values that z-scores are taken over: the ones before, never the present one. */
const Z_WINDOW = 100;
/** So many of them must be there: the fifth part, and at least five. */
const Z_LEAST = Math.max(5, Z_WINDOW / 5);
/** Below this a deviation counts as none: base units. */
const DEVIATION_FLOOR = 1e-4;
/** For the fusion, values that lie further from the median than so many deviations count as if they lay there. */
const SOFT_CLIP_SIGMAS = 5;
/** And z no further than this. Events are judged by `z_raw`, which nothing clips. */
const Z_LIMIT = 3;
const EMA_ALPHA = 0.1;

/**
 * The textbook form (Cont, Kukanov, Stoikov, "The price impact of order book events"), per level and weighted:
 * e = [Pb ≥ Pb′]·qb − [Pb ≤ Pb′]·qb′ − [Pa ≤ Pa′]·qa + [Pa ≥ Pa′]·qa′, with ′ for the state before.
 * @returns base units; positive: bids gained, or asks lost
 */
export function orderFlowImbalance(before: Top, now: Top): number {
  let sum = 0;
  for (let level = 0; level < TOP_LEVELS; level++) sum += OFI_WEIGHTS[level]! * levelImbalance(before, now, level);
  return sum;
}

function levelImbalance(before: Top, now: Top, level: number): number {
  // A level that is not there is worse than any price, with nothing in it.
  const bid = numbersOf(now.bids[level], Number.NEGATIVE_INFINITY);
  const bidBefore = numbersOf(before.bids[level], Number.NEGATIVE_INFINITY);
  const ask = numbersOf(now.asks[level], Number.POSITIVE_INFINITY);
  const askBefore = numbersOf(before.asks[level], Number.POSITIVE_INFINITY);
  let e = 0;
  if (bid.price >= bidBefore.price) e += bid.quantity;
  if (bid.price <= bidBefore.price) e -= bidBefore.quantity;
  if (ask.price <= askBefore.price) e -= ask.quantity;
  if (ask.price >= askBefore.price) e += askBefore.quantity;
  return e;
}

function numbersOf(level: Level | undefined, absent: number): { price: number; quantity: number } {
  if (level === undefined) return { price: absent, quantity: 0 };
  return { price: decimalNumber(level[0]), quantity: decimalNumber(level[1]) };
}

/** Kept between two changes; plain data, so that it can be written and read back. */
export interface OfiState {
  window: number[];
  ema: number | null;
}

export function freshOfi(): OfiState {
  return { window: [], ema: null };
}

export interface OfiFigures {
  ofi_value: number;
  /** Clipped, for the fusion; null while there are too few values before it. */
  ofi_z: number | null;
  ofi_z_raw: number | null;
  ema_ofi: number;
  warmup: boolean;
  /** The values before hardly differ: their deviation is taken as 1e-4. */
  std_zero: boolean;
}

/** Takes a value in. The z-score is over the values before it only. */
export function takeOfi(state: OfiState, value: number): OfiFigures {
  const { window } = state;
  const warmup = window.length < Z_LEAST;
  let [z, raw, isFlat]: [number | null, number | null, boolean] = [null, null, false];
  if (!warmup) {
    const { mean, deviation } = meanAndDeviation(window);
    isFlat = deviation < DEVIATION_FLOOR;
    const divisor = Math.max(deviation, DEVIATION_FLOOR);
    raw = (value - mean) / divisor;
    z = clamp((softClip(value, window) - mean) / divisor, Z_LIMIT);
  }
  state.ema = state.ema === null ? value : EMA_ALPHA * value + (1 - EMA_ALPHA) * state.ema;
  pushTo(window, value, Z_WINDOW);
  return { ofi_value: value, ofi_z: z, ofi_z_raw: raw, ema_ofi: state.ema, warmup, std_zero: isFlat };
}

function softClip(value: number, window: readonly number[]): number {
  const center = median(window);
  const sigma = MAD_TO_SIGMA * medianDeviation(window, center);
  // More than half of them are equal: that tells nothing of how far values lie.
  return sigma === 0 ? value : center + clamp(value - center, SOFT_CLIP_SIGMAS * sigma);
}
