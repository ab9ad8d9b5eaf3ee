/** Seeded markets as a venue's source of data: they run from the start on, whether or not anybody listens. */
import type { Aggregate, Market, Trade } from './market.ts';
import type {
  BookSnapshot,
  CandleRow,
  Level,
  Listed,
  Peer,
  RestRequest,
  Source,
  Topic,
  TradeRow,
  Weighed,
  Wire,
} from './venue.ts';

/** One pair: how it is listed, its market, and the streams that the venue makes of it. */
export interface SeededPair {
  readonly listed: Listed;
  readonly market: Market;
  readonly topics: readonly Topic[];
}

/** What a venue has beside books and trades. */
export interface Readings {
  readonly topics: readonly Topic[];
  advance(now: number): void;
  resume(now: number): void;
  rest(request: RestRequest): Weighed | undefined;
}

export class SeededSource implements Source {
  readonly listed: readonly Listed[];
  readonly servesAnyRoute = false;
  private readonly markets: Map<string, Market>;
  private readonly topics: readonly Topic[];
  /** The readers of each stream; topics of one name share them. */
  private readonly readers: Map<string, Set<Peer>>;
  private isStopped = false;

  constructor(
    private readonly pairs: readonly SeededPair[],
    private readonly wire: Wire,
    private readonly beside?: Readings,
  ) {
    this.listed = pairs.map(({ listed }) => listed);
    this.markets = new Map(pairs.map(({ listed, market }) => [listed.instrument, market]));
    this.topics = [...pairs.flatMap(({ topics }) => topics), ...(beside?.topics ?? [])];
    this.readers = new Map(this.topics.map(({ name, subscribers }) => [name, subscribers]));
  }

  subscribe(peer: Peer, stream: string): void {
    this.readers.get(stream)?.add(peer);
  }

  unsubscribe(peer: Peer, stream: string): void {
    this.readers.get(stream)?.delete(peer);
  }

  leave(peer: Peer): void {
    for (const readers of this.readers.values()) readers.delete(peer);
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

  candles(instrument: string, width: number, from: number, to: number): CandleRow[] {
    const market = this.market(instrument);
    return market.candles(width, from, to).map(({ start, open, high, low, close, quantity, worth, trades }) => ({
      ...{ start, open: market.priceText(open), high: market.priceText(high), low: market.priceText(low) },
      ...{
        close: market.priceText(close),
        quantity: market.quantityText(quantity),
        worth: market.worthText(worth),
        trades,
      },
    }));
  }

  readings(request: RestRequest): Weighed | undefined {
    return this.beside?.rest(request);
  }

  advance(now: number): void {
    if (this.isStopped) return;
    for (const { market } of this.pairs) market.advance(now);
    this.beside?.advance(now);
  }

  /** Also tells what was not told yet, so that books and subscribers end at the same id. */
  stop(): void {
    if (this.isStopped) return;
    this.isStopped = true;
    for (const { market } of this.pairs) market.flush();
    for (const topic of this.topics) this.wire.release(topic);
  }

  start(now: number): void {
    if (!this.isStopped) return;
    this.isStopped = false;
    for (const { market } of this.pairs) market.resume(now);
    this.beside?.resume(now);
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
