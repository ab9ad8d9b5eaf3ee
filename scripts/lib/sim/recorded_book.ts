/** The order book of a recorded session at any place in it, as the exchange would have answered there. */
import type { BookSnapshot, Level } from './venue.ts';

export type BookState = BookSnapshot;

/** One recorded depth update and its place in the session. `previous` is absent where the venue does not send it. */
export interface Change {
  readonly place: number;
  readonly first: number;
  readonly last: number;
  readonly previous: number | null;
  readonly time: number;
  readonly changedAt: number;
  readonly bids: readonly Level[];
  readonly asks: readonly Level[];
}

/** The venue's own best levels at an update id. */
export interface Top {
  readonly updateId: number;
  readonly bid: Level;
  readonly ask: Level;
}

export class RecordedBook {
  private readonly tops: readonly Top[];
  private bids = new Map<string, string>();
  private asks = new Map<string, string>();
  private lastUpdateId = 0;
  private time = 0;
  private changedAt = 0;
  /** The next change to look at. */
  private next = 0;
  private isBroken = false;

  constructor(
    private readonly snapshot: BookState,
    private readonly changes: readonly Change[],
    tops: readonly Top[],
  ) {
    this.tops = [...tops].sort((one, other) => one.updateId - other.updateId);
    this.reset();
  }

  /**
   * The book after every change before `place`; null while that is still the recorded snapshot itself.
   * Where the recording misses a change, the venue's own best levels put the top right again, and what the rest of the session
   * contradicts is left out.
   */
  at(place: number, limit: number): BookState | null {
    if (this.next > 0 && (this.changes[this.next - 1] as Change).place >= place) this.reset();
    for (let change = this.changes[this.next]; change && change.place < place; change = this.changes[++this.next]) {
      if (change.last > this.lastUpdateId) this.apply(change);
    }
    if (this.lastUpdateId === this.snapshot.lastUpdateId) return null;
    if (this.isBroken) this.prune();
    return {
      lastUpdateId: this.lastUpdateId,
      time: this.time,
      changedAt: this.changedAt,
      bids: sorted(this.bids, -1).slice(0, limit),
      asks: sorted(this.asks, 1).slice(0, limit),
    };
  }

  private reset(): void {
    this.bids = new Map(this.snapshot.bids);
    this.asks = new Map(this.snapshot.asks);
    this.lastUpdateId = this.snapshot.lastUpdateId;
    this.next = 0;
    this.isBroken = false;
  }

  private apply(change: Change): void {
    this.isBroken ||= !this.follows(change);
    for (const level of change.bids) put(this.bids, level);
    for (const level of change.asks) put(this.asks, level);
    this.lastUpdateId = change.last;
    this.time = change.time;
    this.changedAt = change.changedAt;
    if (this.isBroken) this.correct();
  }

  /** True when nothing is missing between the book and this change. The first one after the snapshot may begin before it. */
  private follows(change: Change): boolean {
    if (this.lastUpdateId === this.snapshot.lastUpdateId) return change.first <= this.lastUpdateId + 1;
    return change.previous === null ? change.first === this.lastUpdateId + 1 : change.previous === this.lastUpdateId;
  }

  /**
   * Removes levels that the missing change must have removed: a later best price is worse than they are, although no later
   * change touched them.
   */
  private prune(): void {
    const settledBids = new Set<string>();
    const settledAsks = new Set<string>();
    const bids = sorted(this.bids, -1);
    const asks = sorted(this.asks, 1);
    let bid = 0;
    let ask = 0;
    let change = this.next;
    for (const top of this.tops) {
      if (top.updateId <= this.lastUpdateId) continue;
      // The change that covers this id may be what removed a level, so it speaks first.
      for (let each = this.changes[change]; each && each.first <= top.updateId; each = this.changes[++change]) {
        for (const [price] of each.bids) settledBids.add(price);
        for (const [price] of each.asks) settledAsks.add(price);
      }
      for (; bid < bids.length; bid++) {
        const [price] = bids[bid] as Level;
        if (settledBids.has(price)) continue;
        if (Number(price) <= Number(top.bid[0])) break;
        this.bids.delete(price);
      }
      for (; ask < asks.length; ask++) {
        const [price] = asks[ask] as Level;
        if (settledAsks.has(price)) continue;
        if (Number(price) >= Number(top.ask[0])) break;
        this.asks.delete(price);
      }
    }
  }

  /** The newest top that is not newer than the book is the truth about its best levels. */
  private correct(): void {
    let low = 0;
    let high = this.tops.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((this.tops[middle] as Top).updateId <= this.lastUpdateId) low = middle + 1;
      else high = middle;
    }
    const top = this.tops[low - 1];
    if (!top || top.updateId <= this.snapshot.lastUpdateId) return;
    for (const price of this.bids.keys()) if (Number(price) > Number(top.bid[0])) this.bids.delete(price);
    for (const price of this.asks.keys()) if (Number(price) < Number(top.ask[0])) this.asks.delete(price);
    put(this.bids, top.bid);
    put(this.asks, top.ask);
  }
}

function put(side: Map<string, string>, [price, quantity]: Level): void {
  if (Number(quantity) === 0) side.delete(price);
  else side.set(price, quantity);
}

function sorted(side: ReadonlyMap<string, string>, direction: 1 | -1): Level[] {
  return [...side].sort(([one], [other]) => (Number(one) - Number(other)) * direction);
}
