/** One round's computing: BTC once, then each coin against it. */
import { type Closes, Correlator } from './correlator.ts';
import { barsOf, type Period, TIMEFRAMES, type Timeframe } from './periods.ts';
import type { CorrelationRow } from './rule.ts';

/** One timeframe against BTC; made once, used for each coin of each round. */
export class TimeframeRound {
  private readonly correlator: Correlator;
  private end = 0;

  constructor(
    readonly timeframe: Timeframe,
    private readonly periods: readonly Period[],
  ) {
    this.correlator = new Correlator(this.bars, TIMEFRAMES[timeframe]);
  }

  /** Candles of the longest period. */
  get bars(): number {
    return Math.max(...this.periods.map((period) => barsOf(this.timeframe, period)));
  }

  /** The candles of BTC that this round stands on. @param end start of the last one that counts, ms */
  setBase(candles: Closes, end: number): void {
    this.end = end;
    this.correlator.setBase(candles, end);
  }

  rows(coin: string, candles: Closes): CorrelationRow[] {
    this.correlator.setCoin(candles, this.end);
    return this.periods.map((period) => ({
      ...{ timestamp: this.end, coin, timeframe: this.timeframe, period },
      ...this.correlator.period(barsOf(this.timeframe, period)),
    }));
  }
}
