/** A book channel of Deribit: a snapshot for who joins, then changes that chain to it. */
import { amountText, type Contract, float } from './deribit_contracts.ts';
import type { KeyLedger } from './ledger.ts';
import type { Diff, Indexes, Market } from './market.ts';
import type { Peer, Topic, Wire } from './venue.ts';

/** Depths of the grouped channels, whose every message is the whole top of the book. */
const GROUPED_DEPTHS = [1, 10, 20] as const;

type Side = 'bid' | 'ask';

/** A frame of a subscribed channel. */
export function notification(channel: string, data: string): string {
  return `{"jsonrpc":"2.0","method":"subscription","params":{"channel":"${channel}","data":${data}}}`;
}

/** Counts the snapshots of one book: one id, one row of the collector, whoever got it. */
export class SnapshotCount implements KeyLedger {
  private last = -1;

  constructor(private readonly wire: Wire) {}

  record(id: number): void {
    if (id === this.last) return;
    this.last = id;
    this.wire.ledger.counters.book_snapshots++;
  }

  withhold(): void {
    // A lost snapshot is asked for again; no count stands for it.
  }
}

/**
 * `book.<instrument>.<interval>` and its grouped relatives. Who subscribes waits for the next boundary between two changes, at
 * most one interval, because only there a snapshot and the changes after it meet in one id.
 */
export class BookChannel {
  readonly topics: readonly Topic[];
  private readonly changes: Topic;
  private readonly snapshots: Topic;
  private readonly grouped: readonly { topic: Topic; depth: number }[];
  private readonly joining = new Set<Peer>();
  /** Prices that the readers know of: what is there now is `new` or a `change` by it. */
  private readonly told: Record<Side, Set<number>> = { bid: new Set(), ask: new Set() };

  constructor(
    private readonly contract: Contract,
    private readonly market: Market,
    private readonly wire: Wire,
    interval: string,
    ledgers: { changes: KeyLedger; snapshots: KeyLedger },
  ) {
    const { instrument, symbol } = contract;
    const name = `book.${instrument}.${interval}`;
    this.changes = wire.topic(name, 'orderbook_update', symbol, ledgers.changes);
    this.snapshots = wire.topic(name, 'orderbook_update', symbol, ledgers.snapshots);
    this.grouped = GROUPED_DEPTHS.map((depth) => ({
      depth,
      topic: wire.topic(`book.${instrument}.none.${depth}.${interval}`, 'book_ticker', symbol, null),
    }));
    this.topics = [this.changes, this.snapshots, ...this.grouped.map(({ topic }) => topic)];
  }

  /** The channel with snapshot and changes; the grouped ones have readers like any other topic. */
  get name(): string {
    return this.changes.name;
  }

  /** Takes a reader over at the next boundary. */
  subscribe(peer: Peer): void {
    if (!this.changes.subscribers.has(peer)) this.joining.add(peer);
  }

  unsubscribe(peer: Peer): void {
    for (const readers of [this.joining, this.snapshots.subscribers, this.changes.subscribers]) readers.delete(peer);
  }

  /**
   * Between two changes: who joins gets the book as it is. True when the next change has readers.
   * @param time of the last event, ms
   */
  boundary(time: number): boolean {
    if (this.joining.size > 0) this.welcome(time);
    return this.changes.subscribers.size > 0 || this.grouped.some(({ topic }) => topic.subscribers.size > 0);
  }

  /** What changed since the boundary before. */
  change({ time, last, previous, bids, asks }: Diff): void {
    if (this.changes.subscribers.size > 0) {
      const data =
        `{"type":"change","timestamp":${time},"prev_change_id":${previous},"instrument_name":"${this.contract.instrument}",` +
        `"change_id":${last},"bids":[${this.actions('bid', bids)}],"asks":[${this.actions('ask', asks)}]}`;
      this.wire.publish(this.changes, last, notification(this.name, data));
      // Where a fault holds a snapshot back, the change after it has come first by now.
      if (this.snapshots.held) {
        this.wire.ledger.counters.reordered++;
        this.wire.release(this.snapshots);
        this.snapshots.subscribers.clear();
      }
    }
    for (const { topic, depth } of this.grouped) {
      if (topic.subscribers.size > 0)
        this.wire.publish(topic, last, notification(topic.name, this.top(depth, last, time)));
    }
  }

  private welcome(time: number): void {
    const { market, contract, snapshots, changes, joining } = this;
    const id = market.updateId;
    for (const peer of joining) {
      snapshots.subscribers.add(peer);
      changes.subscribers.add(peer);
    }
    joining.clear();
    const side = (name: Side): string => {
      const levels = market.levels(name, Number.POSITIVE_INFINITY);
      this.told[name] = new Set(levels);
      return levels.map((index) => `["new",${this.level(name, index)}]`).join(',');
    };
    const data =
      `{"type":"snapshot","timestamp":${time},"instrument_name":"${contract.instrument}","change_id":${id},` +
      `"bids":[${side('bid')}],"asks":[${side('ask')}]}`;
    this.wire.publish(snapshots, id, notification(this.name, data));
    if (!snapshots.held) snapshots.subscribers.clear();
  }

  /** The levels of one side as actions. What came and went between two boundaries was never told, and is not taken back. */
  private actions(side: Side, indexes: Indexes): string {
    const told = this.told[side];
    const rows: string[] = [];
    for (const index of indexes) {
      const isThere = this.quantityAt(side, index) > 0;
      if (isThere) rows.push(`["${told.has(index) ? 'change' : 'new'}",${this.level(side, index)}]`);
      else if (told.has(index)) rows.push(`["delete",${float(Number(this.market.priceText(index)))},0.0]`);
      if (isThere) told.add(index);
      else told.delete(index);
    }
    return rows.join(',');
  }

  private top(depth: number, id: number, time: number): string {
    return (
      `{"timestamp":${time},"instrument_name":"${this.contract.instrument}","change_id":${id},` +
      `"bids":[${this.rows('bid', depth)}],"asks":[${this.rows('ask', depth)}]}`
    );
  }

  /** The best levels of a side as `[price, amount]`, best first. */
  rows(side: Side, depth: number): string {
    return this.market
      .levels(side, depth)
      .map((index) => `[${this.level(side, index)}]`)
      .join(',');
  }

  private level(side: Side, index: number): string {
    const price = float(Number(this.market.priceText(index)));
    return `${price},${amountText(this.contract, this.quantityAt(side, index))}`;
  }

  private quantityAt(side: Side, index: number): number {
    return side === 'bid' ? this.market.bidAt(index) : this.market.askAt(index);
  }
}
