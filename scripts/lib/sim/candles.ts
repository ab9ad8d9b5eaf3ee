/** Trades of a simulated market as candles. */
import type { Trade } from './market.ts';

/** The trades of one span of time; prices are indexes of the grid, quantities its units. */
export interface Candle {
  /** ms. */
  start: number;
  open: number;
  high: number;
  low: number;
  close: number;
  quantity: number;
  /** Sum of index × units. */
  worth: number;
  /** Sum of units ÷ price: what they are in coins where the units are money. */
  perPrice: number;
  trades: number;
}

export interface CandleOptions {
  /** ms. */
  width: number;
  timeOf(trade: Trade): number;
  /** The price of a grid index. */
  priceOf(index: number): number;
  /** Trades before the first one may be gone. */
  isCut: boolean;
}

/** Candles of trades in their order, oldest first. Spans without any trade have none; the first one is left out where its first trades may be gone. */
export function candlesOf(trades: readonly Trade[], { width, timeOf, priceOf, isCut }: CandleOptions): Candle[] {
  const candles = new Map<number, Candle>();
  for (const trade of trades) {
    const start = Math.floor(timeOf(trade) / width) * width;
    const { price, quantity } = trade;
    const candle = candles.get(start) ?? {
      ...{ start, open: price, high: price, low: price, close: price },
      ...{ quantity: 0, worth: 0, perPrice: 0, trades: 0 },
    };
    candles.set(start, {
      ...candle,
      ...{ high: Math.max(candle.high, price), low: Math.min(candle.low, price), close: price },
      quantity: candle.quantity + quantity,
      worth: candle.worth + price * quantity,
      perPrice: candle.perPrice + quantity / priceOf(price),
      trades: candle.trades + 1,
    });
  }
  return [...candles.values()].slice(isCut ? 1 : 0);
}
