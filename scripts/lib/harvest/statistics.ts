/** Small statistics over short windows: each costs the same however long the harvest runs. */

/** A normal distribution's standard deviation is so many times its median absolute deviation. */
export const MAD_TO_SIGMA = 1.4826;

/** The middle value, of an even number the mean of the two in the middle. @throws RangeError when there is none */
export function median(values: readonly number[]): number {
  if (values.length === 0) throw new RangeError('no values, no median');
  const sorted = Float64Array.from(values).sort();
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

/** Median absolute deviation from `center`. @throws RangeError when there is no value */
export function medianDeviation(values: readonly number[], center = median(values)): number {
  return median(values.map((value) => Math.abs(value - center)));
}

/** Mean and standard deviation of a sample (divided by n − 1), in two passes. @throws RangeError below two values */
export function meanAndDeviation(values: readonly number[]): { mean: number; deviation: number } {
  const count = values.length;
  if (count < 2) throw new RangeError('no deviation below two values');
  let sum = 0;
  for (const value of values) sum += value;
  const mean = sum / count;
  let squares = 0;
  for (const value of values) squares += (value - mean) ** 2;
  return { mean, deviation: Math.sqrt(squares / (count - 1)) };
}

/** Adds to a window that holds the last `size` values. */
export function pushTo<T>(window: T[], value: T, size: number): void {
  window.push(value);
  if (window.length > size) window.shift();
}

export function clamp(value: number, limit: number): number {
  return Math.max(-limit, Math.min(limit, value));
}
