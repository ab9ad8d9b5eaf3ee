/** Correlations of candles on standard input: by their own times alone, so that the same input gives the same bytes. */
import { z } from 'zod';
import { askedRows, type CorrelationAlert, follow } from './alerts.ts';
import { BASE, type Period, TIMEFRAMES, type Timeframe } from './periods.ts';
import { TimeframeRound } from './round.ts';
import { type CorrelationLimits, type CorrelationRow, judge } from './rule.ts';

const EXCHANGE = 'hyperliquid';

/** A candle; `symbol` is the coin (BTC) or a pair of it (BTC-USDC), `timestamp` the candle's start in ms. */
export const STDIN_CANDLE = z.object({
  symbol: z.string().min(1),
  timestamp: z.number().int().min(0),
  close: z.coerce.number().positive(),
});
type StdinCandle = z.infer<typeof STDIN_CANDLE>;

export type StdinRow = { kind: 'correlation'; symbol: string } & CorrelationRow;
export type StdinAlert = { kind: 'alert'; text: string } & CorrelationAlert;

/** The coin that stands before the first dash. */
export function coinOf(symbol: string): string {
  return symbol.split('-')[0]!;
}

export class StdinCorrelations {
  private readonly candles = new Map<string, Map<number, number>>();

  constructor(
    private readonly timeframe: Timeframe,
    private readonly periods: readonly Period[],
    private readonly limits: CorrelationLimits,
  ) {}

  /** @throws when it is no candle of this timeframe, or says something else than an earlier one of the same time */
  take({ symbol, timestamp, close }: StdinCandle): [] {
    if (timestamp % TIMEFRAMES[this.timeframe] !== 0)
      throw new Error(`timestamp: no start of a ${this.timeframe} candle`);
    let closes = this.candles.get(symbol);
    if (!closes) this.candles.set(symbol, (closes = new Map()));
    const known = closes.get(timestamp);
    if (known !== undefined && known !== close) throw new Error(`close: ${symbol} had ${known} at ${timestamp} before`);
    closes.set(timestamp, close);
    return [];
  }

  /** One row per coin and period, then the anomalies; the newest candle of BTC is the last that counts. */
  *end(messageOf: (alert: CorrelationAlert) => string): Generator<StdinRow | StdinAlert> {
    const symbols = [...this.candles.keys()].sort();
    const base = symbols.find((symbol) => coinOf(symbol) === BASE);
    const round = new TimeframeRound(this.timeframe, this.periods);
    const all = base === undefined ? symbols : [base];
    const newest = all.reduce((last, symbol) => Math.max(last, lastTime(this.candles.get(symbol)!)), 0);
    round.setBase(closesOf(base === undefined ? undefined : this.candles.get(base)), newest);
    const alerts: StdinAlert[] = [];
    const asked = askedRows([this.timeframe], this.periods);
    for (const symbol of symbols) {
      if (symbol === base) continue;
      const coin = coinOf(symbol);
      const rows = round.rows(coin, closesOf(this.candles.get(symbol)));
      for (const row of rows) yield { kind: 'correlation', symbol, ...row };
      const { event } = follow({}, { exchange: EXCHANGE, coin, symbol }, rows, judge(rows, this.limits), asked);
      if (event !== null) alerts.push({ kind: 'alert', ...event, text: messageOf(event) });
    }
    yield* alerts;
  }
}

function lastTime(closes: ReadonlyMap<number, number>): number {
  let last = 0;
  for (const time of closes.keys()) if (time > last) last = time;
  return last;
}

function closesOf(closes: ReadonlyMap<number, number> = new Map()) {
  return { times: [...closes.keys()], closes: [...closes.values()] };
}
