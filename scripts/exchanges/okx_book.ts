/**
 * One OKX book: its snapshot and its updates come on the same channel, chained by ids, and proven by a checksum where the
 * venue sends one. Quantities are kept as sent (contracts), because the checksum is over the venue's own text.
 */
import { crc32 } from 'node:zlib';
import { OrderBook, type ResyncCause, type StandingLevel } from '../lib/book.ts';
import type { Level } from '../lib/rows.ts';

/** Levels a side that the checksum covers. */
const CHECKSUM_LEVELS = 25;
/** An id below the last one whose event time is this much later is no late copy: the venue counts anew, unseen by us. */
const RESTARTED_IDS_MS = 5000;
/**
 * A connection has 480 subscribes and unsubscribes an hour. So a book that breaks again and again is renewed after pauses
 * that double, µs of the receive clock; one that held for the longest pause starts them anew. 20 books in constant
 * trouble stay within the limit.
 */
const FIRST_PAUSE_US = 10_000_000;
const LAST_PAUSE_US = 600_000_000;

export interface BookUpdate {
  snapshot: boolean;
  /** seqId; of frames that have none (before 2023) the time. */
  id: number;
  /** prevSeqId; null where the venue tells none. */
  prev: number | null;
  /** False for frames without seqId: only their checksum tells whether one is missing. */
  sequenced: boolean;
  /** Event time, ms. */
  time: number;
  /** When it arrived, µs. */
  receivedAt: number;
  /** 0: absent, as on all books since 2026-06. */
  checksum: number;
  /** Quantities as sent. */
  bids: Level[];
  asks: Level[];
}

export interface OkxBookListener {
  /** The book stands at `update`. */
  applied(update: BookUpdate, book: OrderBook): void;
  /** The book was dropped; `last` is the last id that had been applied. */
  resync(cause: ResyncCause, last: number | null, update: BookUpdate | null): void;
  /** The channel must be subscribed anew, for a snapshot. */
  resubscribe(): void;
}

/** The venue's checksum: bid and ask in turn, best first, where one side is shorter just the other goes on; signed. */
export function checksum(bids: readonly StandingLevel[], asks: readonly StandingLevel[]): number {
  const parts: string[] = [];
  for (let i = 0; i < CHECKSUM_LEVELS; i++) {
    for (const level of [bids[i], asks[i]]) if (level !== undefined) parts.push(level[0], level[1]);
  }
  return crc32(parts.join(':')) | 0;
}

export class OkxBook {
  private book: OrderBook | null = null;
  private last = 0;
  private lastTime = 0;
  private sequenced = false;
  private basedAt = 0;
  private pause = FIRST_PAUSE_US;
  private nextRequestAt = 0;

  constructor(private readonly listener: OkxBookListener) {}

  /** True when the chain of ids would break at a frame without them. */
  get needsIds(): boolean {
    return this.book !== null && this.sequenced;
  }

  take(update: BookUpdate): void {
    if (update.snapshot) this.base(update);
    else if (this.book !== null) this.next(update, this.book);
    // Updates without a snapshot before them: it was lost or unsound, or the one that was asked for did not come.
    else this.requestSnapshot(update.receivedAt);
  }

  /** The connection was lost: updates may be missing. A new one begins with a snapshot. */
  onDisconnect(): void {
    if (this.book !== null) this.listener.resync('disconnect', this.last, null);
    this.book = null;
    this.nextRequestAt = 0;
  }

  private base(update: BookUpdate): void {
    // While an old and a new socket overlap, the new one's snapshot may be behind the book: its updates catch up.
    if (this.book !== null && this.isOld(update)) return;
    if (this.book === null) this.basedAt = update.receivedAt;
    // The venue keeps the 400 best levels itself and removes those that drop out, so nothing beyond them needs care.
    this.book = new OrderBook(update.bids, update.asks, Number.POSITIVE_INFINITY);
    this.sequenced = update.sequenced;
    this.stand(update, this.book, null);
  }

  private next(update: BookUpdate, book: OrderBook): void {
    if (update.sequenced ? update.prev === this.last : update.id >= this.last) {
      // Equal ids: nothing changed for a minute. Levels in such a frame would have no id of their own to be stored under.
      if (update.sequenced && update.id === update.prev) {
        if (update.bids.length + update.asks.length > 0) this.resync('gap', this.last, update);
        return;
      }
      // Also when the id is below prev: after maintenance the venue counts from a lower number, and the chain goes on.
      book.apply(update.bids, update.asks);
      this.stand(update, book, this.last);
    } else if (!this.isOld(update)) {
      this.resync(update.id > this.last ? 'gap' : 'ids_restarted', this.last, update);
    }
  }

  /** What the book already holds: a copy from a socket that overlaps with another one. */
  private isOld(update: BookUpdate): boolean {
    const passed = update.snapshot ? update.id < this.last : update.id <= this.last;
    return passed && update.time <= this.lastTime + RESTARTED_IDS_MS;
  }

  private stand(update: BookUpdate, book: OrderBook, before: number | null): void {
    const top = update.checksum === 0 ? null : book.peek(CHECKSUM_LEVELS);
    if (top !== null && checksum(top.bids, top.asks) !== update.checksum) this.resync('checksum', before, update);
    else if (book.crossed()) this.resync('crossed', before, update);
    else {
      this.last = update.id;
      this.lastTime = update.time;
      this.listener.applied(update, book);
    }
  }

  private resync(cause: ResyncCause, last: number | null, update: BookUpdate): void {
    this.listener.resync(cause, last, update);
    this.book = null;
    if (update.receivedAt - this.basedAt > LAST_PAUSE_US) this.pause = FIRST_PAUSE_US;
    this.requestSnapshot(update.receivedAt);
  }

  private requestSnapshot(now: number): void {
    if (now < this.nextRequestAt) return;
    this.nextRequestAt = now + this.pause;
    this.pause = Math.min(this.pause * 2, LAST_PAUSE_US);
    this.listener.resubscribe();
  }
}
