/**
 * Hyperliquid: perpetuals and spot: endpoints, subscriptions, frames to rows.
 *
 * Source: the venue's API documents and the nktkas SDK of 2026-08. Sizes are in base units already. Every book message is a
 * whole book of 20 levels a side, and trades have no sequence: a loss between two messages cannot be seen in them. So what may have been
 * missed is told when a connection is lost, and when its successor's first message cannot prove that nothing was.
 */

import { multiply } from '../lib/arithmetic.ts';
import { BookSampler, orderbookRow, PUBLISHED_LEVELS } from '../lib/book_rows.ts';
import { plainDecimal } from '../lib/decimal.ts';
import type {
  Channel,
  Connection,
  ExchangeModule,
  Feed,
  FeedOptions,
  FeedOutput,
  Instrument,
  Mark,
  RestRequest,
  UnnumberedType,
} from '../lib/exchange.ts';
import { GuardedFeed } from '../lib/guarded_feed.ts';
import { quoteLongNumbers } from '../lib/json_numbers.ts';
import { integerText, type Level, type MarketType, ValueError } from '../lib/rows.ts';
import { MinuteSampler, WHOLE_BOOK_MS } from '../lib/sampling.ts';
import { array, eventTime, positive, record, safeInteger, sortedLevels, type WireRecord } from '../lib/wire.ts';
import { READINGS } from './hyperliquid_series.ts';

const EXCHANGE = 'hyperliquid';
/** The venue allows 1000 subscriptions in all, on 10 connections. */
const CHANNELS_PER_CONNECTION = 300;
/** It closes a connection on which it has sent nothing for 60 s; a pong counts. */
const PING_MS = 30_000;
const LIST_WEIGHT = 20;
/** A subscription's first message holds about 30 trades; several symbols' worth of haste may lie between. */
const RECENT_TRADES = 200;
/** A book may come this much before its turn, ms. */
const BOOK_JITTER_MS = 500;
const MINUTE_MS = 60_000;
/** What the venue's own perpetuals are margined and quoted in; builders' ones name a token of their own. */
const MAIN_QUOTE = 'USDC';
const MAIN_QUOTE_TOKEN = 0;
/** From this settlement on funding is paid each hour; before, every eight (seen in the venue's own history). */
const HOURLY_SINCE_MS = 1_686_186_000_000;

/** Channels that no table keeps. */
const NOT_STORED = new Set([
  'activeSpotAssetCtx',
  'allDexsAssetCtxs',
  'allMids',
  'assetCtxs',
  'bbo',
  'candle',
  'notification',
  'pong',
]);

type Subscribed = 'trades' | 'l2Book' | 'activeAssetCtx';

export const hyperliquid: ExchangeModule = {
  exchange: EXCHANGE,
  marketTypes: ['perpetual'],
  hosts: { ws: 'wss://api.hyperliquid.xyz', rest: 'https://api.hyperliquid.xyz' },
  instrument,
  // A coin of the venue's own, such as BTC or kPEPE.
  instrumentOf: (id) => ({
    exchange: EXCHANGE,
    market_type: 'perpetual',
    symbol: `${id}-${MAIN_QUOTE}`,
    instrument: id,
  }),
  connections,
  subscribe: (channels) => channels.map((each) => control('subscribe', each)),
  unsubscribe: (channels) => channels.map((each) => control('unsubscribe', each)),
  ping: { text: '{"method":"ping"}', everyMs: PING_MS },
  postBody,
  instrumentLists: [
    { path: '/info?type=spotMeta', weight: LIST_WEIGHT, optional: true },
    { path: '/info?type=allPerpMetas', weight: LIST_WEIGHT, optional: true },
  ],
  readings: READINGS,
  createFeed: (options) => new HyperliquidFeed(options),
  // 2000 messages a minute are allowed; one subscription is one message.
  messagesPerSecond: 20,
  // 30 in a minute.
  connectsPerSecond: 0.5,
  limits: { connections: 10, subscriptions: 1000 },
  restWeightPerMinute: 1200,
  // The venue tells no used weight.
  restWeightHeader: '',
  silenceLimitMs: 2 * PING_MS,
};

/** All requests are posts of one path; `?type=l2Book&coin=BTC` stands for `{"type":"l2Book","coin":"BTC"}`. */
function postBody(path: string): string {
  const { type, ...members } = Object.fromEntries(new URL(path, 'http://host').searchParams) as Record<string, string>;
  const values = Object.entries(members).map(([name, text]) => [name, name.endsWith('Time') ? Number(text) : text]);
  const fields = Object.fromEntries(values) as Record<string, string | number>;
  return JSON.stringify(type === 'candleSnapshot' ? { type, req: fields } : { type, ...fields });
}

/** The venue's instrument for a pair: each coin's perpetual has one quote only. */
function instrument(symbol: string, marketType: MarketType): Instrument {
  const coin = symbol.split('-')[0]!;
  if (marketType === 'spot') {
    return { exchange: EXCHANGE, market_type: 'spot', symbol, instrument: symbol.replace('-', '/') };
  }
  return { exchange: EXCHANGE, market_type: 'perpetual', symbol: `${coin}-${MAIN_QUOTE}`, instrument: coin };
}

function connections(instruments: Instrument[]): Connection[] {
  const channels = instruments.flatMap((each) => {
    const streams = [channel(each, 'trades', ['trade']), channel(each, 'l2Book', ['orderbook', 'orderbook_update'])];
    if (each.market_type === 'perpetual') {
      streams.push(channel(each, 'activeAssetCtx', ['funding_rate', 'open_interest']));
    }
    return streams;
  });
  const count = Math.ceil(channels.length / CHANNELS_PER_CONNECTION);
  return Array.from({ length: count }, (_, index) => ({
    path: '/ws',
    channels: channels.slice(index * CHANNELS_PER_CONNECTION, (index + 1) * CHANNELS_PER_CONNECTION),
  }));
}

function channel(instrument: Instrument, type: Subscribed, types: Channel['types']): Channel {
  return { name: `${type}:${instrument.instrument}`, types, instrument };
}

/** Answers carry no id; they repeat the subscription. */
function control(method: 'subscribe' | 'unsubscribe', { name }: Channel): { id: null; text: string } {
  const colon = name.indexOf(':');
  const subscription = { type: name.slice(0, colon), coin: name.slice(colon + 1) };
  return { id: null, text: JSON.stringify({ method, subscription }) };
}

/** What is kept per coin. */
interface Market {
  instrument: Instrument;
  sampler: BookSampler;
  /** Time of the last book, which is sent again while nothing changes. */
  bookTime: number;
  /** Of the newest one; 0 before the first. */
  newestBook: number;
  /** The book that a subscription began with: it comes at once, whatever its turn is. */
  firstBook: number;
  /** The newest trades, oldest first; as many as a subscription's first message has, and more. */
  recent: Mark[];
  chains: Record<UnnumberedType, Chain>;
}

/** What is known of a stream that nothing numbers. */
interface Chain {
  /** Nothing of this time and later was missed, ms; null before the first row. */
  since: number | null;
  /** Rows may have been missed since the newest one. */
  interrupted: boolean;
}

class HyperliquidFeed extends GuardedFeed implements Feed {
  private readonly markets = new Map<string, Market>();
  private readonly readings = new MinuteSampler();
  /** Names of spot pairs (`@107`), tokens by index, and quotes of builders' exchanges (`xyz`), as far as lists told them. */
  private readonly pairs = new Map<string, string>();
  private readonly tokens = new Map<unknown, string>([[MAIN_QUOTE_TOKEN, MAIN_QUOTE]]);
  private readonly quotes = new Map<string, string>();

  constructor(private readonly options: FeedOptions) {
    super();
    for (const each of options.instruments) this.addMarket(each);
  }

  frame(text: string, receivedAt: number, out: FeedOutput): void {
    this.guarded(out, () => {
      const { channel, data } = record(JSON.parse(quoteLongNumbers(text)), 'frame');
      if (channel === 'trades') this.trades(data, receivedAt);
      else if (channel === 'l2Book') this.book(record(data, 'data'), receivedAt);
      else if (channel === 'activeAssetCtx') this.assetContext(record(data, 'data'), receivedAt);
      else if (channel === 'subscriptionResponse') this.granted(record(data, 'data'));
      else if (channel === 'error') {
        const error = typeof data === 'string' ? data : JSON.stringify(data ?? null);
        out.event({ kind: 'ack', id: null, error: error.slice(0, 200), granted: null });
      } else if (typeof channel === 'string' && NOT_STORED.has(channel)) {
        out.event({ kind: 'ignored', reason: channel });
      } else {
        out.event({ kind: 'rejected', reason: `unknown channel ${String(JSON.stringify(channel)).slice(0, 40)}` });
      }
    });
  }

  /** @param path `/info` with the members of the posted request as a query, such as `/info?type=l2Book&coin=BTC` */
  rest(path: string, body: unknown, receivedAt: number, out: FeedOutput): boolean {
    return this.guarded(out, () => {
      const type = new URL(path, 'http://host').searchParams.get('type');
      if (body === null) throw new ValueError(`${type} answered null`);
      switch (type) {
        case 'l2Book':
          this.book(record(body, 'answer'), receivedAt);
          break;
        case 'recentTrades':
          this.trades(body, receivedAt);
          break;
        case 'fundingHistory':
          this.each(array(body, 'answer'), (each) => this.settledFunding(record(each, 'answer[]'), receivedAt));
          break;
        case 'meta':
          this.learnPerpetuals(record(body, 'answer'));
          break;
        case 'metaAndAssetCtxs':
          this.assetContexts(array(body, 'answer'), receivedAt);
          break;
        case 'allPerpMetas':
          this.each(array(body, 'answer'), (each) => this.learnPerpetuals(record(each, 'answer[]')));
          break;
        case 'spotMeta':
          this.learnPairs(record(body, 'answer'));
          break;
        default:
          out.event({ kind: 'rejected', reason: `no rule for type ${String(type).slice(0, 40)}` });
      }
    });
  }

  /** Books come whole on the socket; nothing has to be fetched. */
  requests(): RestRequest[] {
    return [];
  }

  remember(type: UnnumberedType, { instrument }: Instrument, rows: Mark[], out: FeedOutput): void {
    const market = this.market(instrument);
    if (type === 'trade') market.recent = rows.slice(-RECENT_TRADES);
    // Whether it came in its turn nobody knows any more.
    else market.firstBook = market.newestBook = Math.max(...rows.map(({ time }) => time));
    interrupt(market, type, out);
  }

  unbrokenSince(type: UnnumberedType, { instrument }: Instrument): number | null {
    const chain = this.markets.get(instrument)?.chains[type];
    return chain === undefined || chain.interrupted ? null : chain.since;
  }

  /** Each book is whole by itself, so nothing is dropped with a connection; trades and books may be missed. */
  disconnected(channels: Channel[], out: FeedOutput): void {
    for (const { types, instrument } of channels) {
      const market = this.market(instrument.instrument);
      for (const type of ['trade', 'orderbook_update'] as const) if (types.includes(type)) interrupt(market, type, out);
    }
  }

  private granted({ method, subscription }: WireRecord): void {
    const { type, coin } = record(subscription, 'subscription');
    const granted = method === 'subscribe' ? [`${String(type)}:${String(coin)}`] : null;
    this.out.event({ kind: 'ack', id: null, error: null, granted });
  }

  /** Trades one by one; the first message of a subscription holds about 30 past ones. */
  private trades(data: unknown, receivedAt: number): void {
    const list = array(data, 'trades');
    const told = new Map<Market, Mark[]>();
    this.each(list, (each) => {
      const trade = record(each, 'trades[]');
      const market = this.marketOf(trade);
      if (trade.side !== 'A' && trade.side !== 'B') throw new ValueError(`side is ${JSON.stringify(trade.side)}`);
      const side = trade.side === 'B' ? 'buy' : 'sell';
      this.out.row('trade', {
        ...market.instrument,
        timestamp: eventTime(trade.time, 'time'),
        received_at: receivedAt,
        data_source: this.options.dataSource,
        trade_id: integerText(trade.tid),
        sequence: null,
        price: positive(trade.px, 'px'),
        quantity: positive(trade.sz, 'sz'),
        side,
        is_maker: side === 'sell',
      });
      const mark = { id: integerText(trade.tid), time: eventTime(trade.time, 'time') };
      const marks = told.get(market);
      if (marks) marks.push(mark);
      else told.set(market, [mark]);
    });
    for (const [market, marks] of told) this.continue(market, marks);
  }

  /** After an interruption the first message must reach back to a trade that is known; else nobody can tell what was missed. */
  private continue(market: Market, marks: Mark[]): void {
    const { instrument, recent } = market;
    const chain = market.chains.trade;
    const last = recent[recent.length - 1];
    const oldest = marks.reduce((one, other) => (other.time < one.time ? other : one));
    if (chain.interrupted && last !== undefined) {
      const known = new Set(recent.map(({ id }) => id));
      if (marks.some(({ id }) => known.has(id))) {
        chain.since ??= recent[0]!.time + 1;
      } else {
        this.out.event({ kind: 'unprovable', type: 'trade', instrument, after: last, before: oldest });
        chain.since = oldest.time + 1;
      }
    }
    // Of the oldest one's block some may have been left out.
    chain.since ??= oldest.time + 1;
    chain.interrupted = false;
    market.recent = [...recent, ...marks].slice(-RECENT_TRADES);
  }

  /**
   * After an interruption a book may have been missed, unless the last one came in its turn and the next turn is still to come: only a
   * subscription's first book comes at any time.
   */
  private continueBooks(market: Market, time: number): void {
    const { instrument, newestBook: last, firstBook } = market;
    const chain = market.chains.orderbook_update;
    // One of before, on its way when the line was lost.
    if (chain.interrupted && time < last) return;
    if (chain.interrupted && last > 0 && time > last) {
      const mayHaveMissed = last === firstBook || time - last >= WHOLE_BOOK_MS - BOOK_JITTER_MS;
      if (mayHaveMissed) {
        const [after, before] = [last, time].map((each) => ({ id: String(each), time: each })) as [Mark, Mark];
        this.out.event({ kind: 'unprovable', type: 'orderbook_update', instrument, after, before });
        chain.since = time;
      }
    }
    if (chain.interrupted || chain.since === null) market.firstBook = time;
    chain.since ??= time;
    chain.interrupted = false;
    market.newestBook = Math.max(last, time);
  }

  private book(data: WireRecord, receivedAt: number): void {
    if (data.fast === true) {
      // Five levels only: under the same key as a whole book it would hide one.
      this.out.event({ kind: 'ignored', reason: 'fast book' });
      return;
    }
    const market = this.marketOf(data);
    const time = eventTime(data.time, 'time');
    const sides = array(data.levels, 'levels');
    const bids = sortedLevels(plainLevels(sides[0], 'bids'), 1, 'bids');
    const asks = sortedLevels(plainLevels(sides[1], 'asks'), -1, 'asks');
    if (bids.length > 0 && asks.length > 0 && Number(bids[0]![0]) >= Number(asks[0]![0])) {
      throw new ValueError(`crossed book: bid ${bids[0]![0]}, ask ${asks[0]![0]}`);
    }
    this.continueBooks(market, time);
    if (time === market.bookTime) {
      this.out.event({ kind: 'ignored', reason: 'the same book again' });
      return;
    }
    market.bookTime = time;
    this.out.row('orderbook_update', {
      ...market.instrument,
      timestamp: time,
      received_at: receivedAt,
      data_source: this.options.dataSource,
      first_update_id: null,
      last_update_id: time,
      prev_update_id: null,
      is_snapshot: true,
      bids,
      asks,
    });
    if (!market.sampler.due(time)) return;
    const standing = {
      id: time,
      time,
      receivedAt,
      bids: bids.slice(0, PUBLISHED_LEVELS),
      asks: asks.slice(0, PUBLISHED_LEVELS),
      // The venue gives nothing to check a book by.
      verified: false,
    };
    const row = orderbookRow(market.instrument, this.options.dataSource, standing);
    if (row === null) this.out.event({ kind: 'ignored', reason: 'book with an empty side' });
    else this.out.row('orderbook', row);
  }

  private assetContext(data: WireRecord, receivedAt: number): void {
    this.reading(this.marketOf(data), record(data.ctx, 'ctx'), receivedAt);
  }

  /** Funding (a rate per hour) and open interest. The venue tells no time, so they stand at the minute they came in. */
  private reading({ instrument }: Market, context: WireRecord, receivedAt: number): void {
    const received = Math.floor(receivedAt / 1000);
    const mark = positive(context.markPx, 'markPx');
    const held = plainDecimal(context.openInterest);
    if (held.startsWith('-')) throw new ValueError(`openInterest is negative: ${held}`);
    const common = {
      ...instrument,
      timestamp: eventTime(received - (received % MINUTE_MS), 'receive time'),
      received_at: receivedAt,
      data_source: this.options.dataSource,
    };
    const funding = {
      ...common,
      funding_rate: plainDecimal(context.funding),
      funding_time: null,
      next_funding_time: null,
      funding_interval_hours: '1',
      mark_price: mark,
      index_price: positive(context.oraclePx, 'oraclePx'),
    };
    const interest = { ...common, open_interest: held, open_interest_value: multiply(held, mark), contracts: null };
    if (!this.readings.due(instrument.instrument, received)) return;
    this.out.row('funding_rate', funding);
    this.out.row('open_interest', interest);
  }

  /** The contexts of a list, in the list's order; only of coins that the feed is about, if it was told any. */
  private assetContexts([meta, contexts]: unknown[], receivedAt: number): void {
    const listed = record(meta, 'meta');
    this.learnPerpetuals(listed);
    const universe = array(listed.universe, 'universe');
    const wanted = new Set(this.options.instruments.map((each) => each.instrument));
    const list = array(contexts, 'contexts');
    if (list.length !== universe.length) throw new ValueError(`${list.length} contexts for ${universe.length} coins`);
    this.each([...list.keys()], (index) => {
      const { name, isDelisted } = record(universe[index as number], 'universe[]');
      if (typeof name !== 'string') throw new ValueError(`universe[]: name is ${JSON.stringify(name)}`);
      if (isDelisted === true || (wanted.size > 0 && !wanted.has(name))) return;
      this.reading(this.market(name), record(list[index as number], 'contexts[]'), receivedAt);
    });
  }

  /** A rate that was paid, at its settlement. */
  private settledFunding(data: WireRecord, receivedAt: number): void {
    const time = eventTime(data.time, 'time');
    this.out.row('funding_rate', {
      ...this.marketOf(data).instrument,
      timestamp: time,
      received_at: receivedAt,
      data_source: this.options.dataSource,
      funding_rate: plainDecimal(data.fundingRate),
      funding_time: time,
      next_funding_time: null,
      funding_interval_hours: time < HOURLY_SINCE_MS ? '8' : '1',
      mark_price: null,
      index_price: null,
    });
  }

  /** Learns what the perpetuals of a builder's exchange are quoted in. */
  private learnPerpetuals({ universe, collateralToken }: WireRecord): void {
    const first = array(universe, 'universe')[0];
    const name = first === undefined ? '' : record(first, 'universe[]').name;
    if (typeof name !== 'string') throw new ValueError(`universe[]: name is ${JSON.stringify(name)}`);
    if (!name.includes(':')) return;
    const quote = this.tokens.get(collateralToken ?? MAIN_QUOTE_TOKEN);
    if (quote === undefined) throw new ValueError(`${name}: no name known of token ${JSON.stringify(collateralToken)}`);
    this.quotes.set(name.slice(0, name.indexOf(':')), quote);
  }

  /** Learns the names behind `@107`. */
  private learnPairs({ tokens, universe }: WireRecord): void {
    for (const each of array(tokens, 'tokens')) {
      const { index, name } = record(each, 'tokens[]');
      if (typeof name !== 'string') throw new ValueError(`tokens[]: name is ${JSON.stringify(name)}`);
      this.tokens.set(safeInteger(index, 'tokens[] index'), name);
    }
    this.each(array(universe, 'universe'), (each) => {
      const { name, tokens: sides } = record(each, 'universe[]');
      const [base, quote] = array(sides, 'universe[] tokens').map((index) => this.tokens.get(index));
      if (typeof name !== 'string' || base === undefined || quote === undefined) {
        throw new ValueError(`universe[]: ${JSON.stringify(name)} or one of its tokens has no name`);
      }
      this.pairs.set(name, `${base}-${quote}`);
    });
  }

  private marketOf({ coin }: WireRecord): Market {
    if (typeof coin !== 'string' || coin === '') throw new ValueError(`coin is ${JSON.stringify(coin)}`);
    return this.market(coin);
  }

  private market(coin: string): Market {
    return this.markets.get(coin) ?? this.addMarket(this.instrumentOf(coin));
  }

  /** `BTC` → BTC-USDC, `xyz:TSLA` → the builder's perpetual, `@107` and `PURR/USDC` → spot pairs. */
  private instrumentOf(coin: string): Instrument {
    const base = { exchange: EXCHANGE, instrument: coin } as const;
    if (coin.startsWith('@') || coin.includes('/')) {
      const symbol = this.pairs.get(coin) ?? (coin.includes('/') ? coin.replace('/', '-') : undefined);
      if (symbol === undefined) throw new ValueError(`cannot tell what ${coin.slice(0, 40)} is without spotMeta`);
      return { ...base, market_type: 'spot', symbol };
    }
    const quote = coin.includes(':') ? this.quotes.get(coin.slice(0, coin.indexOf(':'))) : MAIN_QUOTE;
    if (quote === undefined) throw new ValueError(`cannot tell the quote of ${coin.slice(0, 40)} without its meta`);
    return { ...base, market_type: 'perpetual', symbol: `${coin}-${quote}` };
  }

  private addMarket(instrument: Instrument): Market {
    const market = {
      instrument,
      sampler: new BookSampler(this.options.orderbookIntervalMs),
      bookTime: 0,
      newestBook: 0,
      firstBook: 0,
      recent: [],
      chains: {
        trade: { since: null, interrupted: false },
        orderbook_update: { since: null, interrupted: false },
      },
    };
    this.markets.set(instrument.instrument, market);
    return market;
  }
}

/** Rows may be missed from now on. Told with the newest one that is known, if any is. */
function interrupt({ instrument, newestBook, recent, chains }: Market, type: UnnumberedType, out: FeedOutput): void {
  chains[type].interrupted = true;
  const book = newestBook === 0 ? undefined : { id: String(newestBook), time: newestBook };
  const after = type === 'trade' ? recent[recent.length - 1] : book;
  if (after !== undefined) out.event({ kind: 'interrupted', type, instrument, after });
}

/** `{px, sz, n}` as levels; n, how many orders, has no column. */
function plainLevels(side: unknown, what: string): Level[] {
  return array(side, what).map((each) => {
    const { px, sz } = record(each, `${what}[]`);
    return [positive(px, `${what}[] px`), positive(sz, `${what}[] sz`)];
  });
}
