/** Figures out of the text of a /metrics, and what became of them since they were read last. Source: Prometheus' text format 0.0.4. */

export interface MetricSample {
  name: string;
  labels: Readonly<Record<string, string>>;
  value: number;
}

const LINE = /^([A-Za-z_:][\w:]*)(?:\{(.*)\})? (\S+)/;
const LABEL = /(\w+)="((?:[^"\\]|\\.)*)"/g;

/** Samples of the metrics with these names. */
export function metricSamples(text: string, names: ReadonlySet<string>): MetricSample[] {
  const samples: MetricSample[] = [];
  for (const line of text.split('\n')) {
    const found = LINE.exec(line);
    if (found === null || !names.has(found[1]!)) continue;
    const labels = Object.fromEntries([...(found[2] ?? '').matchAll(LABEL)].map(([, name, value]) => [name!, value!]));
    samples.push({ name: found[1]!, labels, value: Number(found[3]!.replace('Inf', 'Infinity')) });
  }
  return samples;
}

/** The sum over all labels; null: the metric is not there. */
export function sumOf(samples: readonly MetricSample[], name: string): number | null {
  const own = samples.filter((each) => each.name === name);
  return own.length === 0 ? null : own.reduce((sum, { value }) => sum + value, 0);
}

/** A counter over restarts of its process, which begins again from 0. */
export class CounterTrack {
  private last: number | null = null;
  /** Since the first look. */
  total = 0;

  /** @param value null: not told @returns since the last look, and null while that is not known */
  add(value: number | null): number | null {
    if (value === null) return null;
    const before = this.last;
    this.last = value;
    if (before === null) return null;
    const since = value >= before ? value - before : value;
    this.total += since;
    return since;
  }
}

/** Observations by the upper bound of their bucket (not cumulated), in seconds; the last bound is infinite. */
export type Buckets = readonly { le: number; count: number }[];

/** The buckets of a histogram, summed over its other labels. */
export function bucketsOf(samples: readonly MetricSample[], name: string): Buckets {
  const cumulated = new Map<number, number>();
  for (const { labels, value } of samples.filter((each) => each.name === `${name}_bucket`)) {
    const le = Number((labels.le ?? '').replace('Inf', 'Infinity'));
    cumulated.set(le, (cumulated.get(le) ?? 0) + value);
  }
  const sorted = [...cumulated].sort(([one], [other]) => one - other);
  return sorted.map(([le, count], i) => ({ le, count: count - (sorted[i - 1]?.[1] ?? 0) }));
}

/** A histogram over restarts of its process: what it observed since the last look. */
export class HistogramTrack {
  private last: Buckets | null = null;

  /** @returns null while there was no look before */
  add(buckets: Buckets): Buckets | null {
    const before = this.last;
    this.last = buckets;
    if (before === null) return null;
    const counts = new Map(before.map(({ le, count }) => [le, count]));
    const since = buckets.map(({ le, count }) => ({ le, count: count - (counts.get(le) ?? 0) }));
    // Less than before: it began again.
    return since.some(({ count }) => count < 0) ? buckets : since;
  }
}

/**
 * A quantile by linear interpolation within its bucket, as Prometheus has it.
 * @param share 0 to 1
 * @returns seconds; null: nothing was observed. Beyond the last finite bound it is that bound: at least so much.
 */
export function quantileOf(buckets: Buckets, share: number): number | null {
  const all = buckets.reduce((sum, { count }) => sum + count, 0);
  if (all === 0) return null;
  let below = 0;
  for (const [i, { le, count }] of buckets.entries()) {
    if (below + count < share * all || count === 0) {
      below += count;
      continue;
    }
    const from = buckets[i - 1]?.le ?? 0;
    return le === Number.POSITIVE_INFINITY ? from : from + ((le - from) * (share * all - below)) / count;
  }
  return null;
}
