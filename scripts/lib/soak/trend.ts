/**
 * How something grows, as a robust line through its samples.
 *
 * Slope: Theil-Sen, the median of the slopes of all pairs (Sen 1968), of pairs within one segment only, so that a restart is no growth. Its interval:
 * by the ranks of those slopes, from the variance of Kendall's S summed over the segments with its correction for ties (Hirsch and Slack 1984);
 * widened by the lag-1 autocorrelation of the residuals, as samples of memory that follow each other are no independent ones.
 */
import { median } from '../harvest/statistics.ts';

export const TREND_METHOD = 'Theil-Sen over medians, interval by Kendall ranks';
export const CONFIDENCE = 0.95;
/** Of the normal distribution, for that confidence. */
const Z = 1.96;
/** Longer segments are brought to medians of so many equal parts: less noise, and pairs that can be counted. */
const MOST_POINTS = 60;
/** Fewer points tell no line. */
const LEAST_POINTS = 5;
/** Beyond this the widening says only that nothing is known. */
const MOST_CORRELATION = 0.9;

/** Samples of one process without a restart. Times ascending, ms. */
export interface Segment {
  times: readonly number[];
  values: readonly number[];
}

export interface Trend {
  /** Of the samples that are fitted. */
  samples: number;
  /** Of the values, per ms. */
  slope: number;
  /** Ends of the interval; null: too few samples to tell. */
  low: number | null;
  high: number | null;
  /** Median of the samples. */
  level: number;
}

/** @returns null when there are too few samples for a line */
export function trendOf(segments: readonly Segment[]): Trend | null {
  const points = segments.map(reduced).filter(({ times }) => times.length > 1);
  if (points.reduce((sum, { times }) => sum + times.length, 0) < LEAST_POINTS) return null;
  const slopes = points.flatMap(pairSlopes).sort((one, other) => one - other);
  const slope = median(slopes);
  const values = segments.flatMap((each) => each.values);
  const variance = points.reduce((sum, each) => sum + kendallVariance(each.values), 0);
  const half = Z * Math.sqrt(variance * widening(points, slope));
  const lower = Math.floor((slopes.length - half) / 2) - 1;
  const isBound = lower >= 0;
  return {
    ...{ samples: values.length, slope, level: median(values) },
    low: isBound ? slopes[lower]! : null,
    high: isBound ? slopes[slopes.length - 1 - lower]! : null,
  };
}

/** Medians of equal parts of a long segment. */
function reduced({ times, values }: Segment): Segment {
  if (times.length <= MOST_POINTS) return { times, values };
  const parts = Array.from({ length: MOST_POINTS }, (_, i) => {
    const [from, to] = [i, i + 1].map((each) => Math.floor((each * times.length) / MOST_POINTS));
    return { time: median(times.slice(from, to)), value: median(values.slice(from, to)) };
  });
  return { times: parts.map(({ time }) => time), values: parts.map(({ value }) => value) };
}

function pairSlopes({ times, values }: Segment): number[] {
  const slopes: number[] = [];
  for (let i = 0; i < times.length; i++)
    for (let j = i + 1; j < times.length; j++) slopes.push((values[j]! - values[i]!) / (times[j]! - times[i]!));
  return slopes;
}

/** The variance of Kendall's S where nothing grows. */
function kendallVariance(values: readonly number[]): number {
  const term = (n: number) => n * (n - 1) * (2 * n + 5);
  const ties = new Map<number, number>();
  for (const value of values) ties.set(value, (ties.get(value) ?? 0) + 1);
  return (term(values.length) - [...ties.values()].reduce((sum, n) => sum + term(n), 0)) / 18;
}

/** By what the variance is larger than that of independent samples: (1 + r) / (1 - r), as of a first-order autoregression. */
function widening(segments: readonly Segment[], slope: number): number {
  let [products, squares] = [0, 0];
  for (const { times, values } of segments) {
    const raw = values.map((value, i) => value - slope * (times[i]! - times[0]!));
    const center = median(raw);
    const residuals = raw.map((each) => each - center);
    for (const [i, each] of residuals.entries()) {
      squares += each * each;
      if (i > 0) products += each * residuals[i - 1]!;
    }
  }
  const correlation = squares === 0 ? 0 : Math.min(Math.max(products / squares, 0), MOST_CORRELATION);
  return (1 + correlation) / (1 - correlation);
}
