/**
 * Binance spot and USDⓈ-M: endpoints, subscriptions, frames to rows, book rules.
 *
 * Sources: Binance spot API documents of 2026-07 and the USDⓈ-M notices of 2026-04 (public and market sockets apart) and
 * 2026-06 (COIN-M rows on shared streams).
 */

import { BookSync, type Diff, type OrderBook, type SequenceRule, type Snapshot } from '../lib/book.ts';
import type {
  Channel,
  Connection,
  ExchangeModule,
  Feed,
  FeedOptions,
  FeedOutput,
  Instrument,
  RestRequest,
} from '../lib/exchange.ts';
import { GuardedFeed, NOWHERE } from '../lib/guarded_feed.ts';
import { type MarketType, type RowSource, ValueError } from '../lib/rows.ts';
import { MinuteSampler } from '../lib/sampling.ts';
import {
  array,
  eventTime,
  positive,
  record,
  ScannedLevels,
  safeInteger,
  sortedLevels,
  type WireRecord,
} from '../lib/wire.ts';
import { type BinanceHistory, SPOT_HISTORY, USDM_HISTORY } from './binance_history.ts';
import { READING_LISTS, Readings, readingPolls } from './binance_readings.ts';
import { BINANCE_SERIES } from './binance_series.ts';
import { scanDiff, scanTrade } from './binance_text.ts';

/** Levels a side that a snapshot asks for: the deepest that costs 50 (spot) or 20 (USDⓈ-M) of the minute's weight. */
const SNAPSHOT_LIMIT = 1000;
/** A fresh snapshot, because the market left the old one's depth, at most this often per symbol (venue time). */
const REFRESH_PAUSE_MS = 60_000;
/** Levels a side in an orderbook row. */
const PUBLISHED_LEVELS = 400;
/** A subscribe message stays well under the venue's size limit, a socket under its 1024 streams. */
const CHANNELS_PER_MESSAGE = 100;
const CHANNELS_PER_CONNECTION = 400;

/** Quote assets, longest first where one ends another, for ids that no instrument list has explained yet. */
const QUOTES = [
  'FDUSD',
  'USDT',
  'USDC',
  'TUSD',
  'BUSD',
  'USD1',
  'DAI',
  'TRY',
  'BRL',
  'JPY',
  'EUR',
  'GBP',
  'USD',
  'BTC',
  'ETH',
  'BNB',
];

/**
 * Prints that are not from the order book: insurance fund, auto-deleveraging, and placeholders of price 0. Counting them
 * as volume would be wrong. RPI is a real trade.
 */
const OFF_BOOK_TRADES = new Set(['INSURANCE_FUND', 'ADL', 'NA']);

/** Events that these streams can carry and that no table keeps. */
const NOT_STORED = new Set([
  'bookTicker',
  'kline',
  'continuous_kline',
  '24hrTicker',
  '24hrMiniTicker',
  '1hTicker',
  'avgPrice',
  'compositeIndex',
  'contractInfo',
  'assetIndexUpdate',
  'tradingSession',
  'referencePrice',
]);

/** Spot (API documents, "How to manage a local order book correctly"): ids without holes from one diff to the next. */
export const SPOT_RULE: SequenceRule = {
  first: (diff, id) => (diff.last <= id ? 'old' : diff.first <= id + 1 ? 'apply' : 'gap'),
  next: (diff, last) => (diff.last <= last ? 'old' : diff.first <= last + 1 ? 'apply' : 'gap'),
};

/** USDⓈ-M: ids have holes, so only `pu` tells whether a diff follows the last one. */
export const USDM_RULE: SequenceRule = {
  first: (diff, id) => (diff.last < id ? 'old' : diff.first <= id ? 'apply' : 'gap'),
  next: (diff, last) => (diff.last <= last ? 'old' : diff.prev === last ? 'apply' : 'gap'),
};

interface Product {
  exchange: 'binance_spot' | 'binance_derivatives';
  rule: SequenceRule;
  depthPath: string;
  depthWeight: number;
  exchangeInfoPath: string;
  history: BinanceHistory;
  defaultMarketType: MarketType;
  /** Has funding, open interest, liquidations and ratios. */
  readings: boolean;
}

const SPOT: Product = {
  exchange: 'binance_spot',
  rule: SPOT_RULE,
  depthPath: '/api/v3/depth',
  depthWeight: 50,
  exchangeInfoPath: '/api/v3/exchangeInfo',
  history: SPOT_HISTORY,
  defaultMarketType: 'spot',
  readings: false,
};

const USDM: Product = {
  exchange: 'binance_derivatives',
  rule: USDM_RULE,
  depthPath: '/fapi/v1/depth',
  depthWeight: 20,
  exchangeInfoPath: '/fapi/v1/exchangeInfo',
  history: USDM_HISTORY,
  defaultMarketType: 'perpetual',
  readings: true,
};

export const binanceSpot: ExchangeModule = {
  exchange: 'binance_spot',
  marketTypes: ['spot'],
  hosts: { ws: 'wss://stream.binance.com:9443', rest: 'https://api.binance.com' },
  instrument: (symbol, marketType) => pairInstrument(SPOT, symbol, marketType),
  instrumentOf: (id) => instrumentOf(SPOT, id),
  connections: (instruments) => {
    const channels = instruments.flatMap((instrument) => [
      channel(instrument, 'trade', ['trade']),
      channel(instrument, 'depth@100ms', ['orderbook', 'orderbook_update']),
    ]);
    return split('/stream', channels);
  },
  subscribe,
  listSubscriptions,
  tradeHistory: SPOT_HISTORY,
  createFeed: (options) => new BinanceFeed(SPOT, options),
  messagesPerSecond: 5,
  // 300 in five minutes.
  connectsPerSecond: 1,
  restWeightPerMinute: 6000,
  restWeightHeader: 'x-mbx-used-weight-1m',
  silenceLimitMs: 60_000,
};

export const binanceDerivatives: ExchangeModule = {
  exchange: 'binance_derivatives',
  marketTypes: ['perpetual'],
  hosts: { ws: 'wss://fstream.binance.com', rest: 'https://fapi.binance.com' },
  instrument: (symbol, marketType) => pairInstrument(USDM, symbol, marketType),
  instrumentOf: (id) => instrumentOf(USDM, id),
  // A stream on the wrong socket is acknowledged and stays silent, so the two classes have sockets of their own.
  connections: (instruments) => [
    ...split(
      '/public/stream',
      instruments.map((each) => channel(each, 'depth@100ms', ['orderbook', 'orderbook_update'])),
    ),
    ...split(
      '/market/stream',
      instruments.flatMap((each) => [
        channel(each, 'aggTrade', ['trade']),
        channel(each, 'markPrice@1s', ['funding_rate']),
        // One symbol's stream carries the same samples as !forceOrder@arr, without other symbols' and COIN-M's.
        channel(each, 'forceOrder', ['liquidation']),
      ]),
    ),
  ],
  instrumentLists: READING_LISTS,
  polls: readingPolls,
  subscribe,
  listSubscriptions,
  tradeHistory: USDM_HISTORY,
  readings: BINANCE_SERIES,
  besideLiquidations: 'trade',
  createFeed: (options) => new BinanceFeed(USDM, options),
  messagesPerSecond: 10,
  connectsPerSecond: 1,
  restWeightPerMinute: 2400,
  restWeightHeader: 'x-mbx-used-weight-1m',
  silenceLimitMs: 240_000,
};

/** An instrument from its id alone: `BTCUSDT` → BTC-USDT, `BTCUSDT_261225` → a dated future under its own id. */
function instrumentOf(product: Product, id: string, marketType = product.defaultMarketType): Instrument {
  const base = { exchange: product.exchange, instrument: id };
  if (id.includes('_')) return { ...base, market_type: 'futures', symbol: id.toUpperCase() };
  const quote = QUOTES.find((each) => id.endsWith(each) && id.length > each.length);
  if (!quote) throw new ValueError(`cannot tell base and quote of ${JSON.stringify(id)} without the instrument list`);
  return { ...base, market_type: marketType, symbol: `${id.slice(0, -quote.length)}-${quote}` };
}

function pairInstrument(product: Product, symbol: string, marketType: MarketType): Instrument {
  return { exchange: product.exchange, market_type: marketType, symbol, instrument: symbol.replace('-', '') };
}

function channel(instrument: Instrument, stream: string, types: Channel['types']): Channel {
  return { name: `${instrument.instrument.toLowerCase()}@${stream}`, types, instrument };
}

function split(path: string, channels: Channel[]): Connection[] {
  return chunks(channels, CHANNELS_PER_CONNECTION).map((part) => ({ path, channels: part }));
}

function subscribe(channels: Channel[], firstId: number): { id: number; text: string }[] {
  return chunks(channels, CHANNELS_PER_MESSAGE).map((part, index) => {
    const id = firstId + index;
    return { id, text: JSON.stringify({ method: 'SUBSCRIBE', params: part.map((each) => each.name), id }) };
  });
}

function listSubscriptions(id: number): string {
  return JSON.stringify({ method: 'LIST_SUBSCRIPTIONS', id });
}

function chunks<T>(items: T[], size: number): T[][] {
  return Array.from({ length: Math.ceil(items.length / size) }, (_, index) =>
    items.slice(index * size, (index + 1) * size),
  );
}

/** An error may come with HTTP 200, where a list or a book is expected. */
function refuseError(path: string, body: unknown): void {
  if (typeof body !== 'object' || body === null || Array.isArray(body)) return;
  const { code, status } = body as WireRecord;
  if (code === undefined && status !== 'ERROR') return;
  throw new ValueError(`${path} answered an error: ${JSON.stringify(body).slice(0, 200)}`);
}

/** What is kept per instrument. */
interface Market {
  instrument: Instrument;
  sync: BookSync;
  /** Number of the last sampling slot of venue time that has its orderbook row. */
  slot: number;
  /** Venue time of the snapshot that the book stands on, ms. */
  snapshotTime: number;
}

class BinanceFeed extends GuardedFeed implements Feed {
  private readonly markets = new Map<string, Market>();
  private readonly marketType: MarketType;
  /** Ids that were asked for; empty: all. */
  private readonly asked: Set<string>;
  private readonly readings: Readings | null;

  constructor(
    private readonly product: Product,
    private readonly options: FeedOptions,
  ) {
    super();
    this.marketType = options.marketType ?? product.defaultMarketType;
    this.asked = new Set(options.instruments.map((each) => each.instrument));
    for (const instrument of options.instruments) this.addMarket(instrument);
    this.readings = product.readings
      ? new Readings({
          source: (id, time, receivedAt) => this.readingSource(id, time, receivedAt),
          sampler: new MinuteSampler(),
          out: () => this.out,
          each: (items, work) => this.each(items, work),
        })
      : null;
  }

  frame(text: string, receivedAt: number, out: FeedOutput): void {
    this.out = out;
    try {
      this.read(text, receivedAt);
    } catch (error) {
      this.rejected(error);
    } finally {
      this.out = NOWHERE;
    }
  }

  rest(path: string, body: unknown, receivedAt: number, out: FeedOutput): boolean {
    return this.guarded(out, () => {
      const { pathname, searchParams } = new URL(path, 'http://host');
      refuseError(pathname, body);
      if (this.readings?.rest(pathname, searchParams, body, receivedAt)) return;
      if (pathname === this.product.history.path) {
        this.pastTrades(searchParams, array(body, 'answer'), receivedAt);
        return;
      }
      const answer = record(body, 'answer');
      if (pathname === this.product.depthPath) this.snapshot(searchParams, answer, receivedAt);
      else if (pathname === this.product.exchangeInfoPath) this.exchangeInfo(answer);
      else out.event({ kind: 'rejected', reason: `no rule for ${pathname}` });
    });
  }

  requests(): RestRequest[] {
    const wanting = [...this.markets.values()].filter((market) => market.sync.needsSnapshot);
    return wanting.map(({ instrument }) => ({
      instrument,
      path: `${this.product.depthPath}?symbol=${encodeURIComponent(instrument.instrument)}&limit=${SNAPSHOT_LIMIT}`,
      weight: this.product.depthWeight,
    }));
  }

  disconnected(channels: Channel[], out: FeedOutput): void {
    this.guarded(out, () => {
      for (const each of channels) {
        if (each.types.includes('orderbook_update')) this.markets.get(each.instrument.instrument)?.sync.onDisconnect();
      }
    });
  }

  private read(text: string, receivedAt: number): void {
    const trade = scanTrade(text);
    if (trade !== null) {
      this.tradeRow(trade, trade.id, receivedAt);
      return;
    }
    const diff = scanDiff(text);
    if (diff !== null) {
      this.depthUpdate(diff, receivedAt);
      return;
    }
    const message = record(JSON.parse(text), 'frame');
    if (Array.isArray(message.data) && message.data.length > 0) {
      // A stream of all symbols: each is an event of its own.
      this.each(message.data, (each) => {
        const data = record(each, 'data[]');
        this.event(String(data.e), data, receivedAt);
      });
      return;
    }
    const data = message.data === undefined ? message : record(message.data, 'data');
    if (typeof data.e === 'string') this.event(data.e, data, receivedAt);
    else this.control(message, data);
  }

  private event(name: string, data: WireRecord, receivedAt: number): void {
    if (data.st === 2) this.out.event({ kind: 'ignored', reason: 'COIN-M' });
    else if (name === 'trade') this.trade(data, data.t, receivedAt);
    else if (name === 'aggTrade') this.trade(data, data.a, receivedAt);
    else if (name === 'depthUpdate') this.depthUpdate(data, receivedAt);
    else if (name === 'markPriceUpdate' && this.readings) this.readings.markPrice(data, receivedAt);
    else if (name === 'forceOrder' && this.readings) this.readings.forceOrder(data, receivedAt);
    else if (name === 'serverShutdown') this.out.event({ kind: 'closing', reason: 'serverShutdown' });
    else if (NOT_STORED.has(name)) this.out.event({ kind: 'ignored', reason: name });
    else this.out.event({ kind: 'rejected', reason: `unknown event ${name.slice(0, 40)}` });
  }

  /** Frames without an event name: acknowledgements, errors, the spot book ticker. */
  private control(message: WireRecord, data: WireRecord): void {
    const failure = message.error ?? (message.code === undefined ? undefined : message);
    if (failure !== undefined) {
      const id = typeof message.id === 'number' ? message.id : -1;
      this.out.event({ kind: 'ack', id, error: JSON.stringify(failure).slice(0, 200), granted: null });
    } else if ('result' in message && typeof message.id === 'number') {
      const granted = Array.isArray(message.result) ? message.result.map(String) : null;
      this.out.event({ kind: 'ack', id: message.id, error: null, granted });
    } else if ('u' in data && 'B' in data && 'A' in data) {
      this.out.event({ kind: 'ignored', reason: 'bookTicker' });
    } else {
      this.out.event({ kind: 'rejected', reason: 'unknown frame' });
    }
  }

  private trade(data: WireRecord, id: unknown, receivedAt: number): void {
    if (typeof data.X === 'string' && OFF_BOOK_TRADES.has(data.X)) {
      this.out.event({ kind: 'ignored', reason: `trade ${data.X}` });
      return;
    }
    this.tradeRow(data, String(safeInteger(id, 'trade id')), receivedAt);
  }

  private tradeRow(data: WireRecord, id: string, receivedAt: number): void {
    if (typeof data.m !== 'boolean') throw new ValueError(`trade: m is ${JSON.stringify(data.m)}`);
    const { exchange, market_type, symbol, instrument } = this.marketOf(data).instrument;
    this.out.row('trade', {
      exchange,
      market_type,
      symbol,
      instrument,
      timestamp: eventTime(data.T, 'T'),
      received_at: receivedAt,
      data_source: this.options.dataSource,
      trade_id: id,
      sequence: null,
      price: positive(data.p, 'p'),
      quantity: positive(data.q, 'q'),
      side: data.m ? 'sell' : 'buy',
      is_maker: data.m,
    });
  }

  /** Past trades go the way of the stream's, so that both give the same rows. */
  private pastTrades(query: URLSearchParams, rows: unknown[], receivedAt: number): void {
    const symbol = query.get('symbol');
    if (!symbol) throw new ValueError('past trades without symbol= in their path');
    this.each(rows, (row) => {
      const frame = this.product.history.frameOf(record(row, 'answer[]'), symbol);
      this.event(String(frame.e), frame, receivedAt);
    });
  }

  private depthUpdate(data: WireRecord, receivedAt: number): void {
    // USDⓈ-M tells the matching engine's time (T) besides the publisher's (E); spot has only E.
    const time = eventTime(data.T ?? data.E, 'T');
    const diff: Diff = {
      first: safeInteger(data.U, 'U'),
      last: safeInteger(data.u, 'u'),
      prev: data.pu === undefined ? null : safeInteger(data.pu, 'pu'),
      time,
      receivedAt,
      bids: sortedLevels(data.b, 1, 'b'),
      asks: sortedLevels(data.a, -1, 'a'),
      bidPrices: data.b instanceof ScannedLevels ? data.b.prices : undefined,
      askPrices: data.a instanceof ScannedLevels ? data.a.prices : undefined,
    };
    const [bids, asks] = [data.b, data.a].map((side) => (side instanceof ScannedLevels ? side.json : null));
    if (diff.first > diff.last) throw new ValueError(`depthUpdate: U ${diff.first} is above u ${diff.last}`);
    const market = this.marketOf(data);
    const { exchange, market_type, symbol, instrument } = market.instrument;
    const row = {
      exchange,
      market_type,
      symbol,
      instrument,
      timestamp: time,
      received_at: receivedAt,
      data_source: this.options.dataSource,
      first_update_id: diff.first,
      last_update_id: diff.last,
      prev_update_id: diff.prev,
      is_snapshot: false,
      bids: diff.bids,
      asks: diff.asks,
    };
    this.out.row('orderbook_update', row, bids && asks ? { bids, asks } : undefined);
    market.sync.onDiff(diff);
  }

  private snapshot(query: URLSearchParams, answer: WireRecord, receivedAt: number): void {
    const id = query.get('symbol');
    if (!id) throw new ValueError('a depth answer without symbol= in its path');
    this.market(id).sync.onSnapshot({
      id: safeInteger(answer.lastUpdateId, 'lastUpdateId'),
      time: answer.T === undefined ? null : eventTime(answer.T, 'T'),
      receivedAt,
      bids: sortedLevels(answer.bids, 1, 'bids'),
      asks: sortedLevels(answer.asks, -1, 'asks'),
      limit: Number(query.get('limit') ?? SNAPSHOT_LIMIT),
    });
  }

  /** Learns the exact base and quote of each id, and which ids are dated futures. */
  private exchangeInfo(answer: WireRecord): void {
    for (const each of array(answer.symbols, 'symbols')) {
      const { symbol, baseAsset, quoteAsset, contractType } = record(each, 'symbols[]');
      if (typeof symbol !== 'string' || typeof baseAsset !== 'string' || typeof quoteAsset !== 'string') {
        throw new ValueError('symbols[]: symbol, baseAsset or quoteAsset is missing');
      }
      if (this.markets.has(symbol)) continue;
      const dated = typeof contractType === 'string' && /QUARTER|MONTH/.test(contractType);
      this.addMarket({
        exchange: this.product.exchange,
        market_type: dated ? 'futures' : this.marketType,
        symbol: dated ? symbol : `${baseAsset}-${quoteAsset}`,
        instrument: symbol,
      });
    }
  }

  private snapshotRow(market: Market, snapshot: Snapshot, diff: Diff): void {
    market.snapshotTime = diff.time;
    this.out.row('orderbook_update', {
      ...market.instrument,
      // Spot tells no time with a snapshot. The diff that brackets it is the same for every collector, and so is its time.
      timestamp: snapshot.time ?? diff.time,
      received_at: snapshot.receivedAt,
      data_source: this.options.dataSource,
      first_update_id: null,
      last_update_id: snapshot.id,
      prev_update_id: null,
      is_snapshot: true,
      bids: snapshot.bids,
      asks: snapshot.asks,
    });
  }

  private applied(market: Market, diff: Diff, book: OrderBook): void {
    const interval = this.options.orderbookIntervalMs;
    const slot = interval === 0 ? market.slot + 1 : Math.floor(diff.time / interval);
    if (slot <= market.slot) return;
    market.slot = slot;
    this.orderbookRow(market, diff, book);
    if (diff.time - market.snapshotTime > REFRESH_PAUSE_MS && book.shallow(PUBLISHED_LEVELS)) market.sync.refresh();
  }

  private orderbookRow(market: Market, diff: Diff, book: OrderBook): void {
    const { bids, asks, complete } = book.top(PUBLISHED_LEVELS);
    if (bids.length === 0 || asks.length === 0) {
      this.out.event({ kind: 'ignored', reason: 'book with an empty side' });
      return;
    }
    this.out.row('orderbook', {
      ...market.instrument,
      timestamp: diff.time,
      received_at: diff.receivedAt,
      data_source: this.options.dataSource,
      last_update_id: diff.last,
      best_bid_price: bids[0]![0],
      best_bid_quantity: bids[0]![1],
      best_ask_price: asks[0]![0],
      best_ask_quantity: asks[0]![1],
      bids,
      asks,
      verified: complete ? 'verified' : 'unverifiable',
    });
  }

  /** Readings may come for symbols that nobody asked for. */
  private readingSource(id: string, time: number, receivedAt: number): RowSource | null {
    if (this.asked.size > 0 && !this.asked.has(id)) return null;
    const { exchange, market_type, symbol, instrument } = this.market(id).instrument;
    return {
      exchange,
      market_type,
      symbol,
      instrument,
      timestamp: time,
      received_at: receivedAt,
      data_source: this.options.dataSource,
    };
  }

  private marketOf(data: WireRecord): Market {
    if (typeof data.s !== 'string' || data.s === '') throw new ValueError(`s is ${JSON.stringify(data.s)}`);
    return this.market(data.s);
  }

  private market(id: string): Market {
    return this.markets.get(id) ?? this.addMarket(instrumentOf(this.product, id, this.marketType));
  }

  private addMarket(instrument: Instrument): Market {
    const market: Market = {
      instrument,
      slot: -1,
      snapshotTime: 0,
      sync: new BookSync(this.product.rule, {
        based: (snapshot, diff) => this.snapshotRow(market, snapshot, diff),
        applied: (diff, book) => this.applied(market, diff, book),
        resync: (cause, last, diff) =>
          this.out.event({ kind: 'resync', instrument, cause, last, next: diff?.first ?? null }),
      }),
    };
    this.markets.set(instrument.instrument, market);
    return market;
  }
}
