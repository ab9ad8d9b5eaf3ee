/** What a pair is worth: the same on every simulated exchange, so that their prices stay near each other. */
import { fairPrice, seededRandom, seedFor } from './market.ts';

/** Prices of well-known bases in dollars, at the start. */
const PRICES: Readonly<Record<string, number>> = {
  BTC: 61_837.63,
  ETH: 2681.62,
  SOL: 153.27,
  BNB: 512.4,
  XRP: 0.6137,
  DOGE: 0.10241,
};

/** Start price of a pair such as `BTC-USDT`, in its quote; a base that is not well known has one of its own from the seed, 1 to 1,000. */
export function startPriceOf(symbol: string, seed: number): number {
  const base = baseOf(symbol);
  return PRICES[base] ?? 10 ** (seededRandom(seedFor(seed, base))() * 3);
}

/** The fair price of a pair's base as a multiple of its start price, by the ms since the start. */
export function fairOf(symbol: string, seed: number): (elapsed: number) => number {
  return fairPrice(seededRandom(seedFor(seed, `fair ${baseOf(symbol)}`)));
}

function baseOf(symbol: string): string {
  return symbol.split('-')[0] ?? '';
}
