/** One instrument of OKX over its seeded market: fills, trades, best prices and books on sockets, and the same over REST. */

import type { Aggregate, Market, MarketSink, Trade } from './market.ts';
import { levelText, OkxBooks, priceText } from './okx_books.ts';
import { type OkxInstrument, okxIdentity, sizeText, unitsOf } from './okx_instruments.ts';
import { cursorOf, limitOf, okxFault, okxOk, pageOf, wrongParameter } from './okx_rest.ts';
import { TradeTape } from './trade_tape.ts';
import { encodeFrame, type Peer, type RestAnswer, type Topic, type Wire } from './venue.ts';

/** The two paths on which channels are served, each on one of them only. */
export type Route = 'public' | 'business';

/** One name that can be subscribed. */
export interface OkxChannel {
  readonly route: Route;
  /** `books:BTC-USDT`: the channel, and what it is about. */
  readonly name: string;
  readonly subscribers: Set<Peer>;
  /** What a new reader is told at once. */
  readonly greet?: (peer: Peer) => void;
}

const TRADES_LIMIT = { usual: 100, most: 500 };
const HISTORY_LIMIT = { usual: 100, most: 100 };

export class OkxPair implements MarketSink {
  readonly channels: readonly OkxChannel[];
  /** Its trades by minutes, since the market began. */
  readonly tape: TradeTape;
  private readonly fills: Topic;
  private readonly trades: Topic;
  private readonly best: Topic;
  private readonly books: OkxBooks;

  constructor(
    exchange: string,
    readonly listed: OkxInstrument,
    readonly market: Market,
    private readonly wire: Wire,
    diffsPerSecond: number,
    /** Trades that the market keeps. */
    private readonly history: number,
  ) {
    const { symbol, instrument } = listed;
    this.tape = new TradeTape(unitsOf(market.priceText(1), listed));
    // The ledger's trades are the single fills, which REST tells too; the merged form has ids of its own grain.
    const ledger = (type: string) => wire.ledger.stream(okxIdentity(exchange, listed, type));
    this.fills = wire.topic(`trades-all:${instrument}`, 'trade', symbol, ledger('trade'));
    this.trades = wire.topic(`trades:${instrument}`, 'trade', symbol, ledger('agg_trade'));
    this.best = wire.topic(`bbo-tbt:${instrument}`, 'book_ticker', symbol, null);
    this.books = new OkxBooks(exchange, listed, market, wire);
    const { topic } = this.books;
    this.channels = [
      { route: 'business', name: this.fills.name, subscribers: this.fills.subscribers },
      { route: 'public', name: this.trades.name, subscribers: this.trades.subscribers },
      {
        route: 'public',
        name: this.best.name,
        subscribers: this.best.subscribers,
        greet: (peer) => this.showBest(peer),
      },
      { route: 'public', name: topic.name, subscribers: topic.subscribers, greet: (peer) => this.books.greet(peer) },
    ];
    // Also without readers: a new one builds on the last update, whoever got it.
    market.connect(this, [{ everyMs: 1000 / diffsPerSecond, wanted: () => true }]);
  }

  trade({ id, price, quantity, buyerIsMaker, time }: Trade): void {
    this.tape.add({ price, quantity, time });
    if (this.fills.subscribers.size === 0) return;
    const row = this.row(id, price, quantity, buyerIsMaker, time, ',"source":"0"');
    this.wire.publish(this.fills, id, this.frame('trades-all', row));
  }

  /** Fills of one taker order at one price, under the id of the last one. */
  aggregate({ first, last, price, quantity, buyerIsMaker, time }: Aggregate): void {
    if (this.trades.subscribers.size === 0) return;
    const rest = `,"count":"${last - first + 1}","source":"0","seqId":${this.market.updateId}`;
    const row = this.row(last, price, quantity, buyerIsMaker, time, rest);
    this.wire.publish(this.trades, last, this.frame('trades', row));
  }

  top(time: number): void {
    if (this.best.subscribers.size === 0) return;
    this.wire.publish(this.best, this.market.updateId, this.bestText(time));
  }

  diff(_: number, { time }: { time: number }): void {
    this.books.update(time);
  }

  advance(now: number): void {
    this.market.advance(now);
    this.books.keepAlive(now);
  }

  /** Tells what was not told yet, so that readers and REST end at the same id. */
  stop(): void {
    this.market.flush();
    for (const topic of [this.fills, this.trades, this.best]) this.wire.release(topic);
    this.books.release();
  }

  resume(now: number): void {
    this.market.resume(now);
  }

  /** The answer to `/api/v5/market/books`. */
  bookAnswer(query: URLSearchParams): RestAnswer {
    this.wire.ledger.counters.snapshots++;
    return okxOk([this.books.answer(limitOf(query, 1, 400, 'sz'))]);
  }

  /** The newest fills, newest first. */
  tradesAnswer(query: URLSearchParams): RestAnswer {
    const newest = this.market.tradesFrom(undefined, limitOf(query, TRADES_LIMIT.usual, TRADES_LIMIT.most));
    return okxOk(newest.reverse().map((trade) => this.restRow(trade)));
  }

  /** Fills before a cursor or after one, newest first. The cursor is an id (type 1) or a time (type 2). */
  historyAnswer(query: URLSearchParams): RestAnswer {
    const limit = limitOf(query, HISTORY_LIMIT.usual, HISTORY_LIMIT.most);
    const [after, before] = [cursorOf(query, 'after'), cursorOf(query, 'before')];
    if (after === null) return wrongParameter('after');
    if (before === null) return wrongParameter('before');
    const type = query.get('type') ?? '1';
    if (type !== '1' && type !== '2') return wrongParameter('type');
    if (type === '2' && before !== undefined)
      return okxFault('50039', 'Before parameter cannot be used when type is 2');
    const from = type === '1' && after !== undefined ? after - limit : undefined;
    const kept = this.market.tradesFrom(from, from === undefined ? this.history : limit).reverse();
    const page = pageOf(kept, ({ id, time }) => (type === '1' ? id : time), { after, before, limit });
    return okxOk(page.map((trade) => this.restRow(trade)));
  }

  private restRow({ id, price, quantity, buyerIsMaker, time }: Trade): string {
    return this.row(id, price, quantity, buyerIsMaker, time, ',"source":"0"');
  }

  private row(id: number, price: number, lots: number, buyerIsMaker: boolean, time: number, rest: string): string {
    const { instrument } = this.listed;
    return (
      `{"instId":"${instrument}","tradeId":"${id}","px":"${priceText(this.market, price)}",` +
      `"sz":"${sizeText(this.listed, lots)}","side":"${buyerIsMaker ? 'sell' : 'buy'}","ts":"${time}"${rest}}`
    );
  }

  private frame(channel: string, row: string): string {
    return `{"arg":{"channel":"${channel}","instId":"${this.listed.instrument}"},"data":[${row}]}`;
  }

  private bestText(time: number): string {
    const { listed, market } = this;
    const ask = levelText(listed, market, market.bestAsk, market.askAt(market.bestAsk));
    const bid = levelText(listed, market, market.bestBid, market.bidAt(market.bestBid));
    return this.frame('bbo-tbt', `{"asks":[${ask}],"bids":[${bid}],"ts":"${time}","seqId":${market.updateId}}`);
  }

  private showBest(peer: Peer): void {
    tellOne(this.wire, this.best, peer, this.bestText(Math.floor(this.wire.clock())));
  }
}

/** Gives a new reader of a topic the reading of this moment, unless a fault keeps the topic's frames back. */
export function tellOne(wire: Wire, topic: Topic, peer: Peer, text: string): void {
  if (!wire.faults.idle && wire.faults.verdict(topic.symbol, topic.kind) === 'withhold') return;
  peer.push(encodeFrame(text));
  wire.ledger.counters[topic.counter]++;
}
