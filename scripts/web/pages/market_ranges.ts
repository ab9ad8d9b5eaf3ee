/** The ranges that the page of a market shows, and what each is made of. */
import { useEffect, useState } from 'preact/hooks';

const SECOND_MS = 1000;
const MINUTE_MS = 60 * SECOND_MS;
const HOUR_MS = 60 * MINUTE_MS;
const DAY_MS = 24 * HOUR_MS;

export const RANGES = ['1h', '24h', '7d', '30d'] as const;
export type Range = (typeof RANGES)[number];

export interface RangePlan {
  spanMs: number;
  /** Of candles: as the API calls it, and in ms. */
  interval: '15s' | '5m' | '1h' | '4h';
  stepMs: number;
  /** How often all of it is asked for again; what is newest comes more often. A month of candles costs the database seconds. */
  everyMs: number;
}

export const PLANS: Record<Range, RangePlan> = {
  '1h': { spanMs: HOUR_MS, interval: '15s', stepMs: 15 * SECOND_MS, everyMs: 15 * SECOND_MS },
  '24h': { spanMs: DAY_MS, interval: '5m', stepMs: 5 * MINUTE_MS, everyMs: MINUTE_MS },
  '7d': { spanMs: 7 * DAY_MS, interval: '1h', stepMs: HOUR_MS, everyMs: 10 * MINUTE_MS },
  '30d': { spanMs: 30 * DAY_MS, interval: '4h', stepMs: 4 * HOUR_MS, everyMs: 30 * MINUTE_MS },
};

/**
 * Where a range begins, ms; it moves on by whole candles, so that what is asked for stays the same in between.
 * Only what is shown hangs on the browser's clock: what the figures are of, each answer says itself.
 */
export function useRangeStart({ spanMs, stepMs }: RangePlan): number {
  const startNow = () => Math.floor(Date.now() / stepMs) * stepMs - spanMs;
  const [start, setStart] = useState({ stepMs, spanMs, at: startNow() });
  useEffect(() => {
    const look = () => setStart((last) => (last.at === startNow() ? last : { stepMs, spanMs, at: startNow() }));
    const timer = setInterval(look, SECOND_MS);
    return () => clearInterval(timer);
  }, [stepMs, spanMs]);
  // A range that was chosen just now begins elsewhere at once.
  return start.stepMs === stepMs && start.spanMs === spanMs ? start.at : startNow();
}
