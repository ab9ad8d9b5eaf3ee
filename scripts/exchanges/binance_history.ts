/**
 * Past trades of Binance over REST, by the ids that the streams count.
 *
 * Sources: Binance spot API documents of 2026-07 (historicalTrades), USDⓈ-M API documents of 2026 (aggTrades).
 */
import type { History } from '../lib/exchange.ts';
import type { WireRecord } from '../lib/wire.ts';

/** The most trades that one answer has. */
const PAGE = 1000;

export interface BinanceHistory extends History {
  /** Path of its requests, without the query. */
  path: string;
  /** A row of an answer as the stream's frame of the same trade. A row does not name its symbol, the request does. */
  frameOf(row: WireRecord, symbol: string): WireRecord;
}

/**
 * Single trades, with the ids of `@trade`; no age limit is documented. /api/v3/aggTrades would cost 4 instead of 25, but
 * counts aggregates: its ids are others than those of the stored trades.
 */
export const SPOT_HISTORY: BinanceHistory = {
  ...fromId('/api/v3/historicalTrades', 25),
  frameOf: ({ id, price, qty, time, isBuyerMaker }, symbol) => ({
    e: 'trade',
    s: symbol,
    t: id,
    p: price,
    q: qty,
    T: time,
    m: isBuyerMaker,
  }),
};

/**
 * Aggregates, with the ids of `@aggTrade`, of the last 24 hours. What an older id answers is not known: it may be the first
 * aggregates that are kept, so an answer tells only what its ids say, whatever was asked for.
 *
 * Two members by which the stream's rows are told apart are not in an answer. `st`, the product: this host serves USDⓈ-M only.
 * `X`, what made the trade: of `@aggTrade` too, the venue leaves out insurance fund and auto-deleveraging before it
 * aggregates. Were they sent after all, the stream's rules would hold, as these rows pass through them.
 */
export const USDM_HISTORY: BinanceHistory = {
  ...fromId('/fapi/v1/aggTrades', 20),
  frameOf: (row, symbol) => ({ ...row, e: 'aggTrade', s: symbol }),
};

/** Trades from an id on, oldest first. */
function fromId(path: string, weight: number): History & { path: string } {
  return {
    path,
    idMember: 'trade_id',
    order: 'ascending',
    page: ({ instrument }, { from, to }) => {
      const limit = Math.min(PAGE, to - from + 1);
      return { path: `${path}?symbol=${encodeURIComponent(instrument)}&fromId=${from}&limit=${limit}`, weight };
    },
  };
}
