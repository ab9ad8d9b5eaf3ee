/** Fewer points of a long series, chosen so that what stands out in it still does. */

/** Of a block of so many points the highest one is kept, if it is high at all. */
const BLOCK = 360;
const HIGH = 0.95;
const HIGHEST = 0.999;

/**
 * Points to show, by their index. In the order of what matters: the first and the last; the highest and the lowest; all above the highest
 * thousandth; where the series begins and ceases to be known; the highest of each block of 360 if it is among the highest twentieth, the higher
 * ones first; of what is left half for points at the highest thousandth (of a run of equal values its ends: counts have many), and the rest
 * evenly spread.
 * @param series values of one length; null: not known
 * @param most at least 2
 * @returns indexes, ascending, `most` of them or all
 */
export function keypoints(series: readonly (readonly (number | null)[])[], most: number): number[] {
  const length = series[0]?.length ?? 0;
  if (length <= most) return Array.from({ length }, (_, i) => i);
  const chosen = new Set<number>();
  const choose = (indexes: Iterable<number>) => {
    for (const index of indexes) if (chosen.size < most) chosen.add(index);
  };
  const high = series.map(highestOf);
  choose([0, length - 1]);
  for (const values of series) choose(extremesOf(values));
  for (const { above } of high) choose(above);
  for (const values of series) choose(edgesOf(values));
  const peaks = series.flatMap(peaksOf);
  choose(peaks.sort((one, other) => other.rank - one.rank).map(({ index }) => index));
  const ties = high.flatMap(({ equal }) => equal).filter((index) => !chosen.has(index));
  choose(spread(ties, (most - chosen.size) >> 1));
  const rest = Array.from({ length }, (_, i) => i).filter((index) => !chosen.has(index));
  choose(spread(rest, most - chosen.size));
  return [...chosen].sort((one, other) => one - other);
}

function extremesOf(values: readonly (number | null)[]): number[] {
  let [high, low] = [-1, -1];
  for (const [i, value] of values.entries()) {
    if (value === null) continue;
    if (high < 0 || value > values[high]!) high = i;
    if (low < 0 || value < values[low]!) low = i;
  }
  return [high, low].filter((index) => index >= 0);
}

/** @param share of the values that are at most so high */
function quantile(values: readonly (number | null)[], share: number): number {
  const sorted = Float64Array.from(values.filter((value) => value !== null)).sort();
  return sorted[Math.min(sorted.length - 1, Math.ceil(share * sorted.length) - 1)] ?? Number.POSITIVE_INFINITY;
}

/** Points above the value that a thousandth reaches, the highest first, and those that equal it. */
function highestOf(values: readonly (number | null)[]): { above: number[]; equal: number[] } {
  const least = quantile(values, HIGHEST);
  const of = (isWanted: (value: number) => boolean) =>
    [...values.keys()].filter((i) => values[i] !== null && isWanted(values[i]!));
  const above = of((value) => value > least).sort((one, other) => values[other]! - values[one]!);
  const isInside = (i: number) => values[i - 1] === values[i] && values[i + 1] === values[i];
  return { above, equal: of((value) => value === least).filter((i) => !isInside(i)) };
}

/** Without them a line would be drawn where nothing is known. */
function edgesOf(values: readonly (number | null)[]): number[] {
  return [...values.keys()].filter((i) => i > 0 && (values[i] === null) !== (values[i - 1] === null));
}

function peaksOf(values: readonly (number | null)[]): { index: number; rank: number }[] {
  const [least, highest] = [quantile(values, HIGH), quantile(values, 1)];
  const peaks: { index: number; rank: number }[] = [];
  for (let begin = 0; begin < values.length; begin += BLOCK) {
    const [high] = extremesOf(values.slice(begin, begin + BLOCK));
    if (high === undefined) continue;
    const index = begin + high;
    // Series of different heights are compared by their shares.
    if (values[index]! >= least) peaks.push({ index, rank: highest === 0 ? 0 : values[index]! / highest });
  }
  return peaks;
}

/** So many of them, evenly, or all. */
function spread(indexes: readonly number[], wanted: number): number[] {
  if (indexes.length <= wanted) return [...indexes];
  return Array.from({ length: wanted }, (_, n) => indexes[Math.floor(((n + 0.5) * indexes.length) / wanted)]!);
}
