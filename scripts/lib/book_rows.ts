/** Which applied updates of a book become `orderbook` rows, and what such a row says. */
import type { Instrument } from './exchange.ts';
import type { Id, Level, OrderbookRow } from './rows.ts';

/** Levels a side in an orderbook row. */
export const PUBLISHED_LEVELS = 400;

/**
 * Tells the first applied update at or after each boundary of venue time, so that two collectors pick the same one; the
 * first update of all too. One per book.
 */
export class BookSampler {
  private slot = -1;

  /** @param intervalMs ms of venue time between two rows; 0: every applied update */
  constructor(private readonly intervalMs: number) {}

  /** @param time venue time of the update, ms */
  due(time: number): boolean {
    if (this.intervalMs === 0) return true;
    const slot = Math.floor(time / this.intervalMs);
    if (slot <= this.slot) return false;
    this.slot = slot;
    return true;
  }
}

/** The book as it stands at one update. */
export interface StandingBook {
  /** The update's id. */
  id: Id;
  /** Event time, ms. */
  time: number;
  /** When it arrived, µs. */
  receivedAt: number;
  /** Best first, quantities in base units. */
  bids: Level[];
  asks: Level[];
  verified: boolean;
}

/** The row of `book`, or null when a side is empty: such a book has no best price to tell. */
export function orderbookRow(instrument: Instrument, dataSource: string, book: StandingBook): OrderbookRow | null {
  const { bids, asks } = book;
  const [bid, ask] = [bids[0], asks[0]];
  if (bid === undefined || ask === undefined) return null;
  return {
    ...instrument,
    timestamp: book.time,
    received_at: book.receivedAt,
    data_source: dataSource,
    last_update_id: book.id,
    best_bid_price: bid[0],
    best_bid_quantity: bid[1],
    best_ask_price: ask[0],
    best_ask_quantity: ask[1],
    bids,
    asks,
    verified: book.verified ? 'verified' : 'unverifiable',
  };
}
