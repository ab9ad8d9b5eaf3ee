/** Seeded markets as a venue's source of data: they run from the start on, whether or not anybody listens. */
import type { Aggregate, Market, Trade } from './market.ts';
import type { BookSnapshot, Level, Listed, Peer, Source, Topic, TradeRow, Wire } from './venue.ts';

/** One pair: how it is listed, its market, and the streams that the venue makes of it. */
export interface SeededPair {
  readonly listed: Listed;
  readonly market: Market;
  readonly topics: readonly Topic[];
}

export class SeededSource implements Source {
  readonly listed: readonly Listed[];
  readonly servesAnyRoute = false;
  private readonly markets: Map<string, Market>;
  private readonly topics: Map<string, Topic>;
  private isStopped = false;

  constructor(
    private readonly pairs: readonly SeededPair[],
    private readonly wire: Wire,
  ) {
    this.listed = pairs.map(({ listed }) => listed);
    this.markets = new Map(pairs.map(({ listed, market }) => [listed.instrument, market]));
    this.topics = new Map(pairs.flatMap(({ topics }) => topics.map((topic) => [topic.name, topic])));
  }

  subscribe(peer: Peer, stream: string): void {
    this.topics.get(stream)?.subscribers.add(peer);
  }

  unsubscribe(peer: Peer, stream: string): void {
    this.topics.get(stream)?.subscribers.delete(peer);
  }

  leave(peer: Peer): void {
    for (const topic of this.topics.values()) topic.subscribers.delete(peer);
  }

  book(instrument: string, limit: number): BookSnapshot {
    const market = this.market(instrument);
    const side = (indexes: readonly number[], quantityAt: (index: number) => number): Level[] =>
      indexes.map((index) => [market.priceText(index), market.quantityText(quantityAt(index))]);
    const time = Math.floor(this.wire.clock());
    return {
      lastUpdateId: market.updateId,
      time,
      changedAt: time,
      bids: side(market.levels('bid', limit), (index) => market.bidAt(index)),
      asks: side(market.levels('ask', limit), (index) => market.askAt(index)),
    };
  }

  trades(instrument: string, fromId: number | undefined, limit: number): TradeRow[] {
    const market = this.market(instrument);
    return market.tradesFrom(fromId, limit).map((trade) => row(market, trade, trade.id, trade.id));
  }

  aggregates(instrument: string, fromId: number | undefined, limit: number): TradeRow[] {
    const market = this.market(instrument);
    return market.aggregatesFrom(fromId, limit).map((each) => row(market, each, each.first, each.last));
  }

  advance(now: number): void {
    if (this.isStopped) return;
    for (const { market } of this.pairs) market.advance(now);
  }

  /** Also tells what was not told yet, so that books and subscribers end at the same id. */
  stop(): void {
    if (this.isStopped) return;
    this.isStopped = true;
    for (const { market } of this.pairs) market.flush();
    for (const topic of this.topics.values()) this.wire.release(topic);
  }

  start(now: number): void {
    if (!this.isStopped) return;
    this.isStopped = false;
    for (const { market } of this.pairs) market.resume(now);
  }

  done(): null {
    return null;
  }

  private market(instrument: string): Market {
    const market = this.markets.get(instrument);
    if (!market) throw new Error(`no market of ${instrument}`);
    return market;
  }
}

function row(
  market: Market,
  { id, price, quantity, time, buyerIsMaker }: Trade | Aggregate,
  first: number,
  last: number,
): TradeRow {
  return {
    id,
    first,
    last,
    price: market.priceText(price),
    quantity: market.quantityText(quantity),
    time,
    buyerIsMaker,
  };
}
