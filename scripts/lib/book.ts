/**
 * An order book kept from a snapshot and diffs, and the sequence rules that say whether a diff may be applied.
 *
 * `Ladder` is one side, `OrderBook` both, `BookSync` the state machine around them: one per symbol, so that one symbol's
 * trouble stays its own. All pure: snapshots are asked for through the returned step, never fetched here.
 */
import { decimalNumber, isZero } from './decimal.ts';
import type { Level } from './rows.ts';

/** Levels kept a side. Diffs far from the market would otherwise pile up for months; 400 are published. */
const MAX_LEVELS = 5000;
/**
 * Diffs held while a snapshot is on its way, and levels in them: at 10 to 50 a second, minutes. A recorded session that is replayed as fast
 * as it is read needs as many.
 */
const MAX_HELD = 20_000;
const MAX_HELD_LEVELS = 500_000;
/**
 * A diff with an old id but an event time this much after the last applied one means that the venue began to count anew;
 * ignoring it as "old" would freeze the book for good.
 */
const RESTARTED_IDS_MS = 5000;

/** Levels in a block of a Ladder before it is split: of 8 to 256, 32 was fastest on the recorded sessions. */
const BLOCK_LEVELS = 32;

/** A level of a book that goes on. */
export type StandingLevel = readonly [price: string, quantity: string];

/** A run of neighbouring levels. */
interface Block {
  /** Price times sign: the higher, the better. */
  ranks: number[];
  levels: Level[];
}

/**
 * One side of a book: price levels sorted from worst to best, in short blocks. A change moves a few entries of its block,
 * wherever it lies; in one long list, half of all changes in real books would move hundreds. Its levels are its own: what is given to it, and what
 * it gives, stays as it is. So a change of a quantity, which most are, keeps nothing of its diff but that text, and the collection of garbage
 * has little to copy.
 */
export class Ladder {
  private readonly blocks: Block[] = [];
  private count = 0;

  /** @param sign 1 for bids (the highest price is best), -1 for asks */
  constructor(private readonly sign: 1 | -1) {}

  get size(): number {
    return this.count;
  }

  best(): Level | undefined {
    return this.top(1)[0];
  }

  /** The best price as a number, for comparisons only; NaN when the side is empty. */
  bestPrice(): number {
    const last = this.blocks[this.blocks.length - 1];
    return last === undefined ? Number.NaN : last.ranks[last.ranks.length - 1]! * this.sign;
  }

  /** Sets a level to an absolute quantity; zero removes it (removing an absent one is normal). */
  set(level: Level, price = decimalNumber(level[0])): void {
    const rank = price * this.sign;
    const gone = isZero(level[1]);
    const index = this.blockOf(rank);
    const block = this.blocks[index];
    if (block === undefined) {
      if (!gone) this.addFirst(rank, level);
      return;
    }
    let place = block.ranks.length;
    while (place > 0 && block.ranks[place - 1]! >= rank) place -= 1;
    const present = block.ranks[place] === rank;
    if (gone) {
      if (present) this.remove(index, block, place);
    } else if (present) {
      const own = block.levels[place]!;
      own[1] = level[1];
      // One price in two writings (1.5, 1.50) differs in length. A checksum goes by the last one.
      if (own[0].length !== level[0].length) own[0] = level[0];
    } else this.insert(index, block, place, rank, level);
  }

  /** Up to `depth` levels, best first, none worse than `bound` (a price; NaN: no bound). */
  top(depth: number, bound = Number.NaN): Level[] {
    return this.peek(depth, bound).map(([price, quantity]) => [price, quantity]);
  }

  /** The same without copying them: they are as they are now only until the next `set`. */
  peek(depth: number, bound = Number.NaN): StandingLevel[] {
    const out: StandingLevel[] = [];
    const worst = bound * this.sign;
    for (let index = this.blocks.length - 1; index >= 0; index--) {
      const { ranks, levels } = this.blocks[index]!;
      for (let i = levels.length - 1; i >= 0; i--) {
        if (out.length >= depth || ranks[i]! < worst) return out;
        out.push(levels[i]!);
      }
    }
    return out;
  }

  /** The last block that begins at or below `rank`, else the first. The market moves near the end: the search starts there. */
  private blockOf(rank: number): number {
    const { blocks } = this;
    let high = blocks.length;
    let low = high - 1;
    for (let step = 1; low > 0 && blocks[low]!.ranks[0]! > rank; step *= 2) {
      high = low;
      low = Math.max(low - step, 0);
    }
    while (high - low > 1) {
      const middle = (low + high) >>> 1;
      if (blocks[middle]!.ranks[0]! <= rank) low = middle;
      else high = middle;
    }
    return low;
  }

  private addFirst(rank: number, [price, quantity]: Level): void {
    this.blocks.push({ ranks: [rank], levels: [[price, quantity]] });
    this.count = 1;
  }

  private insert(index: number, { ranks, levels }: Block, place: number, rank: number, given: Level): void {
    const level: Level = [given[0], given[1]];
    // By hand, since `splice` costs more than so short a move.
    ranks.push(rank);
    levels.push(level);
    for (let i = ranks.length - 1; i > place; i--) {
      ranks[i] = ranks[i - 1]!;
      levels[i] = levels[i - 1]!;
    }
    ranks[place] = rank;
    levels[place] = level;
    this.count += 1;
    if (ranks.length > BLOCK_LEVELS) {
      const half = ranks.length >>> 1;
      this.blocks.splice(index + 1, 0, { ranks: ranks.splice(half), levels: levels.splice(half) });
    }
    if (this.count > MAX_LEVELS) this.remove(0, this.blocks[0]!, 0);
  }

  private remove(index: number, { ranks, levels }: Block, place: number): void {
    for (let i = place + 1; i < ranks.length; i++) {
      ranks[i - 1] = ranks[i]!;
      levels[i - 1] = levels[i]!;
    }
    ranks.pop();
    levels.pop();
    this.count -= 1;
    if (ranks.length === 0) this.blocks.splice(index, 1);
  }
}

/** A book as plain data: levels best first, bounds null where all is known. */
export interface BookDump {
  bids: Level[];
  asks: Level[];
  bidBound: number | null;
  askBound: number | null;
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

  /** The book that a dump was made of. */
  static restored({ bids, asks, bidBound, askBound }: BookDump): OrderBook {
    const book = new OrderBook(bids, asks, Number.POSITIVE_INFINITY);
    book.bidBound = bidBound ?? Number.NaN;
    book.askBound = askBound ?? Number.NaN;
    return book;
  }

  dump(): BookDump {
    const bound = (value: number) => (Number.isNaN(value) ? null : value);
    return {
      bids: this.bids.top(MAX_LEVELS),
      asks: this.asks.top(MAX_LEVELS),
      bidBound: bound(this.bidBound),
      askBound: bound(this.askBound),
    };
  }

  apply(bids: Level[], asks: Level[], bidPrices?: number[], askPrices?: number[]): void {
    for (let i = 0; i < bids.length; i++) this.bids.set(bids[i]!, bidPrices?.[i]);
    for (let i = 0; i < asks.length; i++) this.asks.set(asks[i]!, askPrices?.[i]);
  }

  /** True when the best bid is not below the best ask: no venue's book can be so, hence ours is wrong. */
  crossed(): boolean {
    return this.bids.bestPrice() >= this.asks.bestPrice();
  }

  /** True when a side shows fewer than `depth` complete levels because the snapshot was cut off there. */
  shallow(depth: number): boolean {
    const { bids, asks, complete } = this.peek(depth);
    const cut = (levels: StandingLevel[], bound: number) => !Number.isNaN(bound) && levels.length < depth;
    return !complete || cut(bids, this.bidBound) || cut(asks, this.askBound);
  }

  /**
   * The levels that are certainly complete, best first, at most `depth` a side. When the market has left what the snapshot
   * told (`complete` is false), the known levels there are shown instead.
   */
  top(depth: number): { bids: Level[]; asks: Level[]; complete: boolean } {
    const { isComplete: complete, bidBound, askBound } = this.told;
    return { bids: this.bids.top(depth, bidBound), asks: this.asks.top(depth, askBound), complete };
  }

  /** The same without copying the levels: they are as they are now only until the next `apply`. */
  peek(depth: number): { bids: StandingLevel[]; asks: StandingLevel[]; complete: boolean } {
    const { isComplete: complete, bidBound, askBound } = this.told;
    return { bids: this.bids.peek(depth, bidBound), asks: this.asks.peek(depth, askBound), complete };
  }

  /** Whether the market is within what the snapshot told, and up to where levels are shown. */
  private get told() {
    const isComplete = !(this.bids.bestPrice() < this.bidBound || this.asks.bestPrice() > this.askBound);
    if (!isComplete) return { isComplete, bidBound: Number.NaN, askBound: Number.NaN };
    return { isComplete, bidBound: this.bidBound, askBound: this.askBound };
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
  /** The levels' prices as numbers, where the reader had them anyway. */
  bidPrices?: number[] | undefined;
  askPrices?: number[] | undefined;
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
  private heldLevels = 0;
  /** A snapshot that is newer than every diff so far. */
  private pending: Snapshot | null = null;
  /** Venue time of the first diff since then, ms. */
  private pendingSince: number | null = null;

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
    if (this.held[this.held.length - 1] !== diff) {
      this.held.push(diff);
      this.heldLevels += levelsOf(diff);
    }
    // The oldest held diffs are the first that any coming snapshot makes useless.
    while (this.held.length > MAX_HELD || (this.heldLevels > MAX_HELD_LEVELS && this.held.length > 1)) {
      this.heldLevels -= levelsOf(this.held.shift()!);
    }
    if (this.pending === null) return;
    // A snapshot is some diffs ahead at most; one that stays ahead of them has ids of before a restart.
    this.pendingSince ??= diff.time;
    if (diff.time > this.pendingSince + RESTARTED_IDS_MS) this.pending = null;
    else this.onSnapshot(this.pending);
  }

  /** Takes a snapshot; one that is older than what is held is dropped, and `needsSnapshot` stays true. */
  onSnapshot(snapshot: Snapshot): void {
    if (this.held === null) return;
    const waiting = this.pending;
    this.pending = null;
    for (const [index, diff] of this.held.entries()) {
      const verdict = this.rule.first(diff, snapshot.id);
      if (verdict === 'old') continue;
      if (verdict === 'apply') this.rebase(snapshot, this.held.slice(index));
      else this.hold(this.held.slice(index));
      return;
    }
    this.hold([]);
    if (snapshot !== waiting) this.pendingSince = null;
    this.pending = snapshot;
  }

  /** The connection was lost: diffs may be missing, so the book is dropped, and the held diffs with it. */
  onDisconnect(): void {
    if (this.book !== null) this.listener.resync('disconnect', this.last, null);
    this.drop([]);
  }

  /** Wants a new snapshot although nothing broke: the old one did not reach deep enough for where the market is now. */
  refresh(): void {
    if (this.held === null) this.hold([]);
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
    book.apply(diff.bids, diff.asks, diff.bidPrices, diff.askPrices);
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
    this.hold(held);
  }

  private hold(diffs: Diff[]): void {
    this.held = diffs;
    this.heldLevels = diffs.reduce((sum, diff) => sum + levelsOf(diff), 0);
  }
}

function levelsOf({ bids, asks }: Diff): number {
  return bids.length + asks.length;
}
