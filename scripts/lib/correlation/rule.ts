/**
 * When a coin has left BTC: for weeks it moved with it, and in the last day it does so no longer.
 *
 * Of all timeframes together: long = the largest correlation over 7d, 30d and 60d, short = the smallest over 1d. An anomaly is long > 0.6 and
 * short < 0.3 and (long − short > 0.5 or a lag above 0 in some 1d). With `significant`, a lag counts only where its correlation is
 * one that noise has with no more than that chance: without a limit, almost each lag of pure noise is above 0 (48 of 49).
 *
 * Source of the rule and of its limits: the original alerter.
 */
import type { Correlation } from './correlator.ts';
import { PERIOD_NAMES, type Period, SHORT_PERIOD, TIMEFRAME_NAMES, type Timeframe } from './periods.ts';

export interface CorrelationLimits {
  /** A coin is one that follows BTC when its long correlation is above this. */
  long: number;
  /** It follows no longer when its short one is below this, */
  short: number;
  /** and the two differ by more than this, or it lags behind. */
  diff: number;
  /** The chance up to which a lag counts, 0 to 1; null: each counts. */
  significant: number | null;
}

/** One coin, timeframe and period. */
export interface CorrelationRow extends Correlation {
  /** Start of the last candle that it stands on, ms. */
  timestamp: number;
  coin: string;
  timeframe: Timeframe;
  period: Period;
}

/** What the rule says of one coin. */
export interface Judgement {
  /** `unknown`: no long or no short correlation is there. */
  verdict: 'anomaly' | 'normal' | 'unknown';
  long: number | null;
  short: number | null;
  /** Whether a lag of a 1d counts. */
  lags: boolean;
  /** Rows that spoke, as `5m 1d`. */
  spoke: string[];
}

/** @param rows all of one coin; a row without a correlation says nothing, for or against */
export function judge(rows: readonly CorrelationRow[], limits: CorrelationLimits): Judgement {
  let [long, short, lags]: [number | null, number | null, boolean] = [null, null, false];
  const spoke: string[] = [];
  for (const row of rows) {
    const { corr, lag, p_value, period } = row;
    if (corr === null) continue;
    spoke.push(nameOf(row));
    if (period !== SHORT_PERIOD) long = Math.max(long ?? corr, corr);
    else {
      short = Math.min(short ?? corr, corr);
      const counts = limits.significant === null || p_value! <= limits.significant;
      lags ||= lag! > 0 && counts;
    }
  }
  if (long === null || short === null) return { verdict: 'unknown', long, short, lags, spoke };
  const isOff = long > limits.long && short < limits.short && (long - short > limits.diff || lags);
  return { verdict: isOff ? 'anomaly' : 'normal', long, short, lags, spoke };
}

export function nameOf({ timeframe, period }: Pick<CorrelationRow, 'timeframe' | 'period'>): string {
  return `${timeframe} ${period}`;
}

/** Rows in the order in which they are shown: timeframes, and periods within, from short to long. */
export function inOrder(rows: readonly CorrelationRow[]): CorrelationRow[] {
  const place = ({ timeframe, period }: CorrelationRow) =>
    TIMEFRAME_NAMES.indexOf(timeframe) * PERIOD_NAMES.length + PERIOD_NAMES.indexOf(period);
  return [...rows].sort((one, other) => place(one) - place(other));
}
