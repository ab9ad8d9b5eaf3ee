/**
 * An order book kept from a snapshot and diffs, and the sequence rules that say whether a diff may be applied.
 *
 * `Ladder` is one side, `OrderBook` both, `BookSync` the state machine around them: one per symbol, so that one symbol's
 * trouble stays its own. All pure: snapshots are asked for through the returned step, never fetched here.
 */
import { isZero } from './decimal.ts';
import type { Level } from './rows.ts';

/** Levels kept a side. Diffs far from the market would otherwise pile up for months; 400 are published. */
const MAX_LEVELS = 5000;
/** Diffs held while a snapshot is on its way: at 10 to 50 a second, minutes. */
const MAX_HELD = 20_000;
/**
 * A diff with an old id but an event time this much after the last applied one means that the venue began to count anew;
 * ignoring it as "old" would freeze the book for good.
 */
const RESTARTED_IDS_MS = 5000;

/** One side of a book: price levels sorted from worst to best, so that changes near the top move few entries. */
export class Ladder {
  private prices: number[] = [];
  private levels: Level[] = [];

  /** @param sign 1 for bids (the highest price is best), -1 for asks */
  constructor(private readonly sign: 1 | -1) {}

  get size(): number {
    return this.levels.length;
  }

  best(): Level | undefined {
    return this.levels[this.levels.length - 1];
  }

  /** The best price as a number, for comparisons only; NaN when the side is empty. */
  bestPrice(): number {
    const rank = this.prices[this.prices.length - 1];
    return rank === undefined ? Number.NaN : rank * this.sign;
  }

  /** Sets a level to an absolute quantity; zero removes it (removing an absent one is normal). */
  set(level: Level): void {
    const rank = Number(level[0]) * this.sign;
    const index = this.indexOf(rank);
    const present = this.prices[index] === rank;
    if (isZero(level[1])) {
      if (!present) return;
      this.prices.splice(index, 1);
      this.levels.splice(index, 1);
    } else if (present) {
      this.levels[index] = level;
    } else {
      this.prices.splice(index, 0, rank);
      this.levels.splice(index, 0, level);
      if (this.levels.length > MAX_LEVELS) {
        this.prices.shift();
        this.levels.shift();
      }
    }
  }

  /** Up to `depth` levels, best first, none worse than `bound` (a price; NaN: no bound). */
  top(depth: number, bound = Number.NaN): Level[] {
    const out: Level[] = [];
    for (let i = this.levels.length - 1; i >= 0 && out.length < depth; i--) {
      if (this.prices[i]! < bound * this.sign) break;
      out.push(this.levels[i]!);
    }
    return out;
  }

  /** First index whose rank is not below `rank`. The market moves near the end, so the search starts there. */
  private indexOf(rank: number): number {
    let high = this.prices.length;
    let step = 1;
    let low = high - 1;
    while (low >= 0 && this.prices[low]! >= rank) {
      high = low;
      low -= step;
      step *= 2;
    }
    low = Math.max(low + 1, 0);
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.prices[middle]! < rank) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}

/** Both sides of a book, with how deep the snapshot reached. */
export class OrderBook {
  readonly bids = new Ladder(1);
  readonly asks = new Ladder(-1);
  /** Beyond these prices the snapshot told nothing, so only changed levels are known there. NaN: all is known. */
  private bidBound = Number.NaN;
  private askBound = Number.NaN;

  /** @param fullSide levels a side from which on the snapshot is taken as cut off (the limit that was asked for) */
  constructor(bids: Level[], asks: Level[], fullSide: number) {
    for (let i = bids.length - 1; i >= 0; i--) this.bids.set(bids[i]!);
    for (let i = asks.length - 1; i >= 0; i--) this.asks.set(asks[i]!);
    if (bids.length >= fullSide) this.bidBound = Number(bids[bids.length - 1]![0]);
    if (asks.length >= fullSide) this.askBound = Number(asks[asks.length - 1]![0]);
  }

  apply(bids: Level[], asks: Level[]): void {
    for (const level of bids) this.bids.set(level);
    for (const level of asks) this.asks.set(level);
  }

  /** True when the best bid is not below the best ask: no venue's book can be so, hence ours is wrong. */
  crossed(): boolean {
    return this.bids.bestPrice() >= this.asks.bestPrice();
  }

  /** True when a side shows fewer than `depth` complete levels because the snapshot was cut off there. */
  shallow(depth: number): boolean {
    const { bids, asks, complete } = this.top(depth);
    const cut = (levels: Level[], bound: number) => !Number.isNaN(bound) && levels.length < depth;
    return !complete || cut(bids, this.bidBound) || cut(asks, this.askBound);
  }

  /**
   * The levels that are certainly complete, best first, at most `depth` a side. When the market has left what the snapshot
   * told (`complete` is false), the known levels there are shown instead.
   */
  top(depth: number): { bids: Level[]; asks: Level[]; complete: boolean } {
    const complete = !(this.bids.bestPrice() < this.bidBound || this.asks.bestPrice() > this.askBound);
    if (!complete) return { bids: this.bids.top(depth), asks: this.asks.top(depth), complete };
    return { bids: this.bids.top(depth, this.bidBound), asks: this.asks.top(depth, this.askBound), complete };
  }
}

export interface Diff {
  first: number;
  last: number;
  /** The id of the diff before, where the venue tells it. */
  prev: number | null;
  /** Event time, ms. */
  time: number;
  /** When it arrived, µs. */
  receivedAt: number;
  bids: Level[];
  asks: Level[];
}

export interface Snapshot {
  id: number;
  /** Event time, ms; null where the venue tells none. */
  time: number | null;
  /** When it arrived, µs. */
  receivedAt: number;
  bids: Level[];
  asks: Level[];
  /** Levels a side that were asked for. */
  limit: number;
}

export type Verdict = 'old' | 'apply' | 'gap';

/** A venue's sequence rules, as a pure function each. */
export interface SequenceRule {
  /** May `diff` be the first one applied to a snapshot with this id? `gap`: the snapshot is too old, fetch another. */
  first(diff: Diff, snapshotId: number): Verdict;
  /** May `diff` follow the one whose last id is `last`? */
  next(diff: Diff, last: number): Verdict;
}

/** Why a book was dropped to be built anew. */
export type ResyncCause = 'gap' | 'crossed' | 'checksum' | 'ids_restarted' | 'disconnect';

export interface BookListener {
  /** A snapshot became the base of the book; `diff` is the first one that was applied to it. */
  based(snapshot: Snapshot, diff: Diff): void;
  /** A diff was applied and the book stands at it. */
  applied(diff: Diff, book: OrderBook): void;
  /** The book was dropped at `diff` (null: no diff was the cause); `last` is the last id that had been applied. */
  resync(cause: ResyncCause, last: number | null, diff: Diff | null): void;
}

/**
 * Keeps one symbol's book: holds diffs until a snapshot brackets them, then applies each by the venue's rule. On a break it
 * drops the book and wants a new snapshot (`needsSnapshot`); the diff that broke it opens the new buffer. A refresh wants one
 * too, but the book in use stays until the new one has caught up with it.
 */
export class BookSync {
  private book: OrderBook | null = null;
  private last: number | null = null;
  private lastTime = 0;
  /** Diffs for a snapshot that is on its way; null while none is wanted. */
  private held: Diff[] | null = [];
  /** A snapshot that is newer than every diff so far. */
  private pending: Snapshot | null = null;

  constructor(
    private readonly rule: SequenceRule,
    private readonly listener: BookListener,
  ) {}

  /** The book, once a snapshot and a diff after it are in; null before and after a break. */
  get current(): OrderBook | null {
    return this.book;
  }

  /** True while diffs wait and no snapshot that could serve them is in. */
  get needsSnapshot(): boolean {
    return this.held !== null && this.held.length > 0 && this.pending === null;
  }

  onDiff(diff: Diff): void {
    if (this.book !== null) this.applyNext(diff, this.book, this.last!);
    if (this.held === null) return;
    // A break starts the buffer with the diff that broke the book.
    if (this.held[this.held.length - 1] !== diff) this.held.push(diff);
    // The oldest held diffs are the first that any coming snapshot makes useless.
    if (this.held.length > MAX_HELD) this.held.shift();
    if (this.pending !== null) this.onSnapshot(this.pending);
  }

  /** Takes a snapshot; one that is older than what is held is dropped, and `needsSnapshot` stays true. */
  onSnapshot(snapshot: Snapshot): void {
    if (this.held === null) return;
    this.pending = null;
    for (const [index, diff] of this.held.entries()) {
      const verdict = this.rule.first(diff, snapshot.id);
      if (verdict === 'old') continue;
      if (verdict === 'apply') this.rebase(snapshot, this.held.slice(index));
      else this.held = this.held.slice(index);
      return;
    }
    this.held = [];
    this.pending = snapshot;
  }

  /** The connection was lost: diffs may be missing, so the book is dropped, and the held diffs with it. */
  onDisconnect(): void {
    if (this.book !== null) this.listener.resync('disconnect', this.last, null);
    this.drop([]);
  }

  /** Wants a new snapshot although nothing broke: the old one did not reach deep enough for where the market is now. */
  refresh(): void {
    this.held ??= [];
  }

  /** Starts a book at `snapshot`. Of a refresh, the diffs up to the book in use have been told already. */
  private rebase(snapshot: Snapshot, diffs: Diff[]): void {
    const told = this.book === null ? null : this.last;
    this.book = new OrderBook(snapshot.bids, snapshot.asks, snapshot.limit);
    this.held = null;
    this.listener.based(snapshot, diffs[0]!);
    for (const [index, diff] of diffs.entries()) {
      if (this.book === null) this.onDiff(diff);
      else if (index === 0) this.apply(diff, this.book, told);
      else this.applyNext(diff, this.book, this.last!, told);
    }
  }

  private applyNext(diff: Diff, book: OrderBook, last: number, told: number | null = null): void {
    const verdict = this.rule.next(diff, last);
    if (verdict === 'apply') this.apply(diff, book, told);
    else if (verdict === 'gap') this.resync('gap', diff);
    else if (diff.time > this.lastTime + RESTARTED_IDS_MS) this.resync('ids_restarted', diff);
  }

  private apply(diff: Diff, book: OrderBook, told: number | null): void {
    book.apply(diff.bids, diff.asks);
    if (book.crossed()) {
      this.resync('crossed', diff);
      return;
    }
    this.last = diff.last;
    this.lastTime = diff.time;
    if (told === null || diff.last > told) this.listener.applied(diff, book);
  }

  private resync(cause: ResyncCause, diff: Diff): void {
    this.listener.resync(cause, this.last, diff);
    this.drop([diff]);
  }

  private drop(held: Diff[]): void {
    this.book = null;
    this.pending = null;
    this.last = null;
    this.held = held;
  }
}
