/**
 * How surprising a largest correlation is where there is none.
 *
 * Fisher's z = atanh(r)·√(n − 3) is about normal when n pairs of independent, roughly normal values are uncorrelated. The largest of L lags
 * exceeds r with the chance 1 − (1 − p)^L, where p is the chance of one (Šidák), as if the lags were independent. Assumed are returns without
 * autocorrelation and without very heavy tails: where these do not hold, the true chance is larger than the one told.
 */

const ROOT_2 = Math.SQRT2;
const ROOT_PI = Math.sqrt(Math.PI);
/** Below, the series of erf converges quickly; above, the continued fraction of erfc does. */
const SERIES_UP_TO = 2.5;
const LEAST_TERM = 1e-17;
const FRACTION_DEPTH = 60;

/** Chance that a standard normal value exceeds `z`, 0 to 1. The relative error is below 1e-12 also far out. */
export function upperTail(z: number): number {
  const x = Math.abs(z) / ROOT_2;
  const tail = (x < SERIES_UP_TO ? 1 - erfSeries(x) : erfcFraction(x)) / 2;
  return z >= 0 ? tail : 1 - tail;
}

/** erf(x) = 2/√π · e^(−x²) · Σ 2^k x^(2k+1) / (1·3·5…(2k+1)): all terms are positive, so that nothing cancels. */
function erfSeries(x: number): number {
  let [term, sum] = [x, x];
  for (let k = 1; term > LEAST_TERM * sum; k++) {
    term *= (2 * x * x) / (2 * k + 1);
    sum += term;
  }
  return (2 / ROOT_PI) * Math.exp(-x * x) * sum;
}

/** erfc(x) = e^(−x²)/√π · 1/(x + (1/2)/(x + 1/(x + (3/2)/(x + …)))), from the inside out. */
function erfcFraction(x: number): number {
  let fraction = x;
  for (let k = FRACTION_DEPTH; k >= 1; k--) fraction = x + k / 2 / fraction;
  return Math.exp(-x * x) / ROOT_PI / fraction;
}

/**
 * The chance that the largest of `lags` correlations is `corr` or more where there is none, 0 to 1.
 * @param pairs of the largest one, more than 3
 */
export function largestOf(lags: number, corr: number, pairs: number): number {
  if (corr >= 1) return 0;
  if (corr <= -1) return 1;
  const single = upperTail(Math.atanh(corr) * Math.sqrt(pairs - 3));
  return single >= 1 ? 1 : -Math.expm1(lags * Math.log1p(-single));
}
