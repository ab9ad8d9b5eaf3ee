/** Names and figures that the parts of a market's page share. */

import type { Colour } from '../ui/chart.tsx';
import { decimal, UNKNOWN } from '../ui/format.ts';

/** One symbol on one market of one exchange. */
export interface MarketName {
  exchange: string;
  market_type: string;
}

export const nameOf = ({ exchange, market_type }: MarketName) => `${exchange}.${market_type}`;
export const titleOf = ({ exchange, market_type }: MarketName) => `${exchange} ${market_type}`;

/** An exchange has the same colour in each chart. */
const COLOURS: Record<string, Colour> = {
  binance_spot: 2,
  binance_derivatives: 2,
  okx_spot: 1,
  okx_derivatives: 1,
  deribit_derivatives: 5,
  hyperliquid: 6,
};
export function colourOf(exchange: string): Colour {
  return COLOURS[exchange] ?? 8;
}

/** Digits before and after the point that a price of any coin has at most; what is beyond them comes from somebody's arithmetic. */
const MOST_DIGITS = 10;

/** Digits after the point that prices have, of those given. */
export function digitsOf(prices: readonly (string | null)[]): number {
  const own = prices.map((price) => {
    const [whole = '', fraction = ''] = price?.split('.') ?? [];
    return Math.min(fraction.length, Math.max(MOST_DIGITS - whole.length, 0));
  });
  return Math.max(0, ...own);
}

/** A decimal with at least so many digits after the point, so that prices stand below each other; none is cut off. */
export function padded(text: string | null | undefined, digits: number): string {
  if (text === null || text === undefined) return UNKNOWN;
  const [whole = '', fraction = ''] = text.split('.');
  return decimal(digits === 0 && fraction === '' ? whole : `${whole}.${fraction.padEnd(digits, '0')}`);
}

/** The coin of a symbol, and what it is traded against; null where the name does not say. */
export function coinsOf(symbol: string): { base: string; quote: string | null } {
  const [base = symbol, quote, ...rest] = symbol.split('-');
  return { base, quote: quote === undefined || rest.length > 0 || /^\d/.test(quote) ? null : quote };
}
