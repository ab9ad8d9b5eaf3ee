/**
 * Binance, spot and USDⓈ-M: paths, control messages, frames and REST answers as the exchange gives them.
 *
 * The two differ in their paths, in the fields of their frames and in how update ids chain; each difference stands in the
 * one place that needs it.
 */
import {
  aggregateRow,
  depthText,
  fault,
  historicalTrade,
  klineRow,
  ofSymbol,
  ok,
  spotInfo,
  usdmInfo,
} from './binance_rest.ts';
import { INTERVALS, isInterval } from './intervals.ts';
import type { Ledger, StreamIdentity } from './ledger.ts';
import {
  type Aggregate,
  type Diff,
  decimalText,
  type Grid,
  type Indexes,
  type Market,
  type MarketSink,
  type Trade,
} from './market.ts';
import { startPriceOf } from './pairs.ts';
import type {
  ConnectionRules,
  Listed,
  Peer,
  RestAnswer,
  RestRequest,
  Session,
  Source,
  Topic,
  Venue,
  Weighed,
  Wire,
} from './venue.ts';

export type Product = 'spot' | 'usdm';

/** Connection rules of the two products, from their documentation. */
export const RULES: Record<Product, ConnectionRules> = {
  spot: { pingEveryMs: 20_000, pongWithinMs: 60_000, incomingPerSecond: 5, streamsPerConnection: 1024 },
  usdm: { pingEveryMs: 180_000, pongWithinMs: 600_000, incomingPerSecond: 10, streamsPerConnection: 1024 },
};

/** Request weight per minute and address. */
const WEIGHT_LIMIT: Record<Product, number> = { spot: 6000, usdm: 2400 };
const MINUTE_MS = 60_000;

/** Streams that USDⓈ-M sends on its market route only; all others belong to the public one. */
const MARKET_CLASS =
  /@(aggTrade|markPrice|kline|continuousKline|miniTicker|ticker|forceOrder|compositeIndex|assetIndex)|^!(markPrice|miniTicker|ticker|forceOrder|assetIndex)@arr|^!contractInfo$|^tradingSession$/;

/** Cadence of the plain `@depth` stream. */
const PLAIN_DEPTH_MS: Record<Product, number> = { spot: 1000, usdm: 250 };

const USDM_DEPTH_WEIGHT = new Map([
  [5, 2],
  [10, 2],
  [20, 2],
  [50, 2],
  [100, 5],
  [500, 10],
  [1000, 20],
]);

/** Price decimals, tick in price units and quantity decimals of well-known pairs: spot, then USDⓈ-M. */
const KNOWN: Record<string, Record<Product, readonly [number, number, number]>> = {
  BTC: { spot: [2, 1, 5], usdm: [2, 10, 3] },
  ETH: { spot: [2, 1, 4], usdm: [2, 1, 3] },
  SOL: { spot: [3, 1, 3], usdm: [4, 10, 2] },
  BNB: { spot: [2, 1, 3], usdm: [3, 10, 2] },
  XRP: { spot: [5, 1, 1], usdm: [5, 1, 1] },
  DOGE: { spot: [5, 1, 0], usdm: [6, 10, 0] },
};

const QUOTES = ['USDT', 'USDC', 'FDUSD', 'BUSD', 'TUSD', 'USD', 'EUR', 'BTC', 'ETH', 'BNB'];

/** The venue's numbers of a pair such as `BTC-USDT`. Pairs that are not known get a price of their own from the seed. */
export function gridOf(product: Product, symbol: string, seed: number): { grid: Grid; startPrice: number } {
  const known = KNOWN[symbol.split('-')[0] ?? ''];
  const startPrice = startPriceOf(symbol, seed);
  // Five digits after the leading one are enough for a fine grid at any price.
  const [priceDecimals, tickUnits, quantityDecimals] = known?.[product] ?? [
    5 - Math.floor(Math.log10(startPrice)),
    1,
    Math.max(0, Math.floor(Math.log10(startPrice)) + 1),
  ];
  const padding = (decimals: number): string => (product === 'spot' ? '0'.repeat(8 - decimals) : '');
  return {
    startPrice,
    grid: {
      priceDecimals,
      tickUnits,
      quantityDecimals,
      pricePadding: padding(priceDecimals),
      quantityPadding: padding(quantityDecimals),
    },
  };
}

/** A pair such as `BTC-USDT` as the venue lists it. */
export function listed(symbol: string, grid: Grid): Listed {
  const [base = '', quote = ''] = symbol.split('-');
  return {
    symbol,
    instrument: `${base}${quote}`,
    base,
    quote,
    tickSize: decimalText(grid.tickUnits, grid.priceDecimals, grid.pricePadding),
    stepSize: decimalText(1, grid.quantityDecimals, grid.quantityPadding),
    pricePrecision: grid.priceDecimals,
    quantityPrecision: grid.quantityDecimals,
  };
}

/** `BTCUSDT` as `BTC-USDT`; undefined when its quote is none that we know. */
export function symbolOf(instrument: string): string | undefined {
  const quote = QUOTES.find((candidate) => instrument.endsWith(candidate) && instrument.length > candidate.length);
  return quote === undefined ? undefined : `${instrument.slice(0, -quote.length)}-${quote}`;
}

/** How one pair's streams stand in the ledger. */
export function identity(product: Product, exchange: string, pair: Listed, dataType: string): StreamIdentity {
  return {
    exchange,
    market_type: product === 'spot' ? 'spot' : 'perpetual',
    symbol: pair.symbol,
    data_type: dataType,
    instrument: pair.instrument,
  };
}

/** The streams of one pair over its market. */
export class BinanceStreams implements MarketSink {
  readonly topics: readonly Topic[];
  private readonly trades: Topic;
  private readonly aggregates: Topic;
  private readonly tickers: Topic;
  private readonly depths: readonly Topic[];

  constructor(
    private readonly product: Product,
    exchange: string,
    private readonly pair: Listed,
    private readonly market: Market,
    private readonly wire: Wire,
    diffsPerSecond: number,
  ) {
    const stem = pair.instrument.toLowerCase();
    const topic = (name: string, kind: Topic['kind'], dataType: string | null): Topic => {
      const ledger = dataType === null ? null : wire.ledger.stream(identity(product, exchange, pair, dataType));
      return wire.topic(`${stem}@${name}`, kind, pair.symbol, ledger);
    };
    // A product's trades are counted by the stream that has all of them in the grain that its REST serves; the other grain
    // has ids of its own and so a line of its own in the ledger.
    const [trade, aggregate] = product === 'spot' ? ['trade', 'agg_trade'] : ['raw_trade', 'trade'];
    this.trades = topic('trade', 'trade', trade);
    this.aggregates = topic('aggTrade', 'trade', aggregate);
    this.tickers = topic('bookTicker', 'book_ticker', null);
    this.depths = [
      topic('depth@100ms', 'orderbook_update', 'orderbook_update'),
      topic('depth', 'orderbook_update', 'orderbook_update_slow'),
    ];
    this.topics = [this.trades, this.aggregates, this.tickers, ...this.depths];
    const everyMs = [1000 / diffsPerSecond, PLAIN_DEPTH_MS[product]];
    market.connect(
      this,
      this.depths.map((depth, index) => ({
        everyMs: everyMs[index] as number,
        wanted: () => depth.subscribers.size > 0,
      })),
    );
  }

  trade(trade: Trade): void {
    if (this.trades.subscribers.size === 0) return;
    const { time, id, buyerIsMaker } = trade;
    const price = this.market.priceText(trade.price);
    const quantity = this.market.quantityText(trade.quantity);
    const { instrument } = this.pair;
    this.wire.publish(
      this.trades,
      id,
      this.product === 'spot'
        ? `{"e":"trade","E":${time},"s":"${instrument}","t":${id},"p":"${price}","q":"${quantity}","T":${time},"m":${buyerIsMaker},"M":true}`
        : `{"e":"trade","E":${time},"T":${time},"s":"${instrument}","t":${id},"p":"${price}","q":"${quantity}","X":"MARKET","m":${buyerIsMaker},"st":1}`,
    );
  }

  aggregate(aggregate: Aggregate): void {
    if (this.aggregates.subscribers.size === 0) return;
    const { time, id, first, last, buyerIsMaker } = aggregate;
    const price = this.market.priceText(aggregate.price);
    const quantity = this.market.quantityText(aggregate.quantity);
    const { instrument } = this.pair;
    this.wire.publish(
      this.aggregates,
      id,
      this.product === 'spot'
        ? `{"e":"aggTrade","E":${time},"s":"${instrument}","a":${id},"p":"${price}","q":"${quantity}","f":${first},"l":${last},"T":${time},"m":${buyerIsMaker},"M":true}`
        : `{"e":"aggTrade","E":${time},"s":"${instrument}","a":${id},"p":"${price}","q":"${quantity}","nq":"${quantity}","f":${first},"l":${last},"T":${time},"m":${buyerIsMaker},"st":1}`,
    );
  }

  top(time: number): void {
    if (this.tickers.subscribers.size === 0) return;
    const { market } = this;
    const { instrument } = this.pair;
    const best =
      `"b":"${market.priceText(market.bestBid)}","B":"${market.quantityText(market.bidAt(market.bestBid))}",` +
      `"a":"${market.priceText(market.bestAsk)}","A":"${market.quantityText(market.askAt(market.bestAsk))}"`;
    this.wire.publish(
      this.tickers,
      market.updateId,
      this.product === 'spot'
        ? `{"u":${market.updateId},"s":"${instrument}",${best}}`
        : `{"e":"bookTicker","u":${market.updateId},"E":${time},"T":${time},"s":"${instrument}","ps":"${instrument}",${best},"st":1}`,
    );
  }

  diff(channel: number, diff: Diff): void {
    const topic = this.depths[channel] as Topic;
    if (topic.subscribers.size === 0) return;
    const { market } = this;
    const { time, first, last, previous } = diff;
    const { instrument } = this.pair;
    const bids = levelsText(market, diff.bids, (index) => market.bidAt(index));
    const asks = levelsText(market, diff.asks, (index) => market.askAt(index));
    this.wire.publish(
      topic,
      last,
      this.product === 'spot'
        ? `{"e":"depthUpdate","E":${time},"s":"${instrument}","U":${first},"u":${last},"b":[${bids}],"a":[${asks}]}`
        : `{"e":"depthUpdate","E":${time},"T":${time},"s":"${instrument}","ps":"${instrument}","U":${first},"u":${last},"pu":${previous},"b":[${bids}],"a":[${asks}],"st":1}`,
    );
  }
}

function levelsText(market: Market, indexes: Indexes, quantityAt: (index: number) => number): string {
  let text = '';
  for (const index of indexes) {
    if (text !== '') text += ',';
    text += `["${market.priceText(index)}","${market.quantityText(quantityAt(index))}"]`;
  }
  return text;
}

export interface BinanceOptions {
  readonly product: Product;
  readonly exchange: string;
  readonly source: Source;
  readonly wire: Wire;
  readonly rules: ConnectionRules;
}

/** The exchange as its clients see it. */
export class Binance implements Venue {
  readonly exchange: string;
  readonly rules: ConnectionRules;
  private readonly product: Product;
  private readonly source: Source;
  private readonly wire: Wire;
  private readonly ledger: Ledger;
  private weight = 0;
  private weightMinute = 0;

  constructor(options: BinanceOptions) {
    this.exchange = options.exchange;
    this.rules = options.rules;
    this.product = options.product;
    this.source = options.source;
    this.wire = options.wire;
    this.ledger = options.wire.ledger;
  }

  hasSocketPath(path: string): boolean {
    return this.product === 'spot'
      ? /^\/(stream|ws)(\/|$)/.test(path)
      : /^(\/(public|market))?\/(stream|ws)(\/|$)/.test(path);
  }

  open(peer: Peer, url: URL): Session {
    const [, route = 'public', shape, streams = ''] =
      /^(?:\/(public|market))?\/(stream|ws)(?:\/(.*))?$/.exec(url.pathname) ?? [];
    peer.combined = shape === 'stream';
    // The parser of URLs escapes what stream names may hold, such as the @.
    const wanted = peer.combined ? (url.searchParams.get('streams') ?? '') : streams.replaceAll('%40', '@');
    const isServed = (stream: string): boolean =>
      this.product === 'spot' || this.source.servesAnyRoute || MARKET_CLASS.test(stream) === (route === 'market');
    const session = new BinanceSession(this.product, peer, this.source, this.wire, this.rules, isServed);
    if (wanted !== '') session.subscribe(wanted.split('/'));
    return session;
  }

  shutdownNotice(peer: Peer): string {
    const notice = `{"e":"serverShutdown","E":${Math.floor(this.wire.clock())}}`;
    return peer.combined ? `{"stream":"!serverShutdown","data":${notice}}` : notice;
  }

  garbage(place: number): string {
    const stem = (this.source.listed[0]?.instrument ?? 'BTCUSDT').toLowerCase();
    const forms = [
      `{"stream":"${stem}@trade","data":{"e":"trade","E":17`,
      'upstream connect error or disconnect/reset before headers',
      `{"stream":"${stem}@trade","data":{"e":"trade","t":"not a number","p":null}}`,
      '[]',
      `{"stream":"${stem}@depth@100ms","data":{"e":"depthUpdate","U":"x","u":null,"b":7}}`,
    ];
    return forms[place % forms.length] as string;
  }

  refusal(status: number, retryAfter: number): RestAnswer {
    const until = Math.floor(this.wire.clock() + retryAfter * 1000);
    const limit = WEIGHT_LIMIT[this.product];
    const headers = { 'retry-after': String(retryAfter), 'x-mbx-used-weight-1m': String(this.weight) };
    if (status === 403) return { status, body: '<html><body><h1>403 Forbidden</h1></body></html>' };
    if (status === 418) {
      const msg = `Way too much request weight used; IP banned until ${until}. Please use WebSocket Streams for live updates to avoid bans.`;
      return { status, headers, body: JSON.stringify({ code: -1003, msg }) };
    }
    const msg = `Too much request weight used; current limit is ${limit} request weight per 1 MINUTE. Please use WebSocket Streams for live updates to avoid polling the API.`;
    return { status, headers, body: JSON.stringify({ code: -1003, msg }) };
  }

  rest(request: RestRequest): RestAnswer {
    const now = this.wire.clock();
    const minute = Math.floor(now / MINUTE_MS);
    if (minute !== this.weightMinute) {
      this.weightMinute = minute;
      this.weight = 0;
    }
    const weighed = this.product === 'spot' ? this.spotAnswer(request) : this.usdmAnswer(request);
    const { weight, overLimit, answer } = weighed;
    const wait = overLimit?.(now) ?? null;
    if (wait !== null) return this.refusal(429, wait);
    this.weight += weight;
    if (this.weight > WEIGHT_LIMIT[this.product]) {
      return this.refusal(429, Math.ceil(((minute + 1) * MINUTE_MS - now) / 1000));
    }
    return { headers: { 'x-mbx-used-weight-1m': String(this.weight) }, ...answer() };
  }

  advance(now: number): void {
    this.source.advance(now);
  }

  stop(): void {
    this.source.stop();
  }

  start(now: number): void {
    this.source.start(now);
  }

  replayDone(): boolean | null {
    return this.source.done();
  }

  private spotAnswer({ path, query }: RestRequest): Weighed {
    const time = Math.floor(this.wire.clock());
    switch (path) {
      case '/api/v3/ping':
        return { weight: 1, answer: () => ok('{}') };
      case '/api/v3/time':
        return { weight: 1, answer: () => ok(`{"serverTime":${time}}`) };
      case '/api/v3/exchangeInfo':
        return {
          weight: 20,
          answer: () => this.withOptionalSymbol(query, (pairs) => ok(spotInfo(pairs, time, WEIGHT_LIMIT.spot))),
        };
      case '/api/v3/depth': {
        const limit = Math.min(5000, limitOf(query, 100));
        const weight = limit <= 100 ? 5 : limit <= 500 ? 25 : limit <= 1000 ? 50 : 250;
        return { weight, answer: () => this.withSymbol(query, (pair) => this.depth(pair, limit)) };
      }
      case '/api/v3/trades':
      case '/api/v3/historicalTrades':
        return {
          weight: 25,
          answer: () =>
            this.withSymbol(query, ({ instrument }) => {
              const from = path === '/api/v3/trades' ? undefined : fromIdOf(query);
              const rows = this.source.trades(instrument, from, Math.min(1000, limitOf(query, 500)));
              return ok(`[${rows.map(historicalTrade).join(',')}]`);
            }),
        };
      case '/api/v3/aggTrades':
        return { weight: 4, answer: () => this.aggTrades(query) };
      case '/api/v3/klines':
        return { weight: 2, answer: () => this.klines(query, 1000) };
      default:
        return { weight: 1, answer: () => ({ status: 404, body: '' }) };
    }
  }

  private usdmAnswer(request: RestRequest): Weighed {
    const { path, query } = request;
    const time = Math.floor(this.wire.clock());
    switch (path) {
      case '/fapi/v1/ping':
        return { weight: 1, answer: () => ok('{}') };
      case '/fapi/v1/time':
        return { weight: 1, answer: () => ok(`{"serverTime":${time}}`) };
      case '/fapi/v1/exchangeInfo':
        return { weight: 1, answer: () => ok(usdmInfo(this.source.listed, time, WEIGHT_LIMIT.usdm)) };
      case '/fapi/v1/depth': {
        const limit = limitOf(query, 500);
        const weight = USDM_DEPTH_WEIGHT.get(limit);
        if (weight === undefined) {
          return { weight: 1, answer: () => fault(-4021, `${limit} is not valid depth limit.`) };
        }
        return { weight, answer: () => this.withSymbol(query, (pair) => this.depth(pair, limit)) };
      }
      case '/fapi/v1/aggTrades':
        return { weight: 20, answer: () => this.aggTrades(query) };
      case '/fapi/v1/klines':
        return { weight: 5, answer: () => this.klines(query, 1500) };
      case '/fapi/v1/historicalTrades':
        return { weight: 20, answer: () => ({ ...fault(-2014, 'API-key format invalid.'), status: 401 }) };
      default:
        return this.source.readings?.(request) ?? { weight: 1, answer: () => ({ status: 404, body: '' }) };
    }
  }

  private depth(pair: Listed, limit: number): RestAnswer {
    this.ledger.counters.snapshots++;
    const book = this.source.book(pair.instrument, limit);
    return ok(typeof book === 'string' ? book : depthText(this.product, book));
  }

  /** Candles from `startTime` on, or the newest ones; a span without trades has none here. */
  private klines(query: URLSearchParams, most: number): RestAnswer {
    return this.withSymbol(query, ({ instrument }) => {
      const interval = query.get('interval') ?? '';
      if (!isInterval(interval)) return fault(-1120, 'Invalid interval.');
      const width = INTERVALS[interval];
      const now = Math.floor(this.wire.clock());
      const numberOf = (name: string) => (query.has(name) ? Number(query.get(name)) : undefined);
      const [start, end] = [numberOf('startTime'), numberOf('endTime') ?? now];
      const limit = Math.min(most, limitOf(query, 500));
      // By open time: one that began before does not count.
      const found = (this.source.candles?.(instrument, width, start ?? 0, end) ?? []).filter(
        (each) => each.start >= (start ?? 0),
      );
      const rows = start === undefined ? found.slice(-limit) : found.slice(0, limit);
      return ok(`[${rows.map((row) => klineRow(row, width)).join(',')}]`);
    });
  }

  private aggTrades(query: URLSearchParams): RestAnswer {
    return this.withSymbol(query, ({ instrument }) => {
      if (query.has('startTime') || query.has('endTime')) {
        return fault(-1128, 'Combination of optional parameters invalid.');
      }
      const rows = this.source.aggregates(instrument, fromIdOf(query), Math.min(1000, limitOf(query, 500)));
      return ok(`[${rows.map((row) => aggregateRow(this.product, row)).join(',')}]`);
    });
  }

  private withSymbol(query: URLSearchParams, answer: (pair: Listed) => RestAnswer): RestAnswer {
    return ofSymbol(query, (symbol) => this.source.listed.find(({ instrument }) => instrument === symbol), answer);
  }

  private withOptionalSymbol(query: URLSearchParams, answer: (pairs: readonly Listed[]) => RestAnswer): RestAnswer {
    return query.has('symbol') ? this.withSymbol(query, (pair) => answer([pair])) : answer(this.source.listed);
  }
}

const METHODS = '`SUBSCRIBE`, `UNSUBSCRIBE`, `LIST_SUBSCRIPTIONS`, `SET_PROPERTY`, `GET_PROPERTY`';

interface ControlMessage {
  readonly method?: unknown;
  readonly params?: unknown;
  readonly id?: unknown;
}

class BinanceSession implements Session {
  private readonly streams = new Set<string>();

  constructor(
    private readonly product: Product,
    private readonly peer: Peer,
    private readonly source: Source,
    private readonly wire: Wire,
    private readonly rules: ConnectionRules,
    private readonly isServed: (stream: string) => boolean,
  ) {}

  message(text: string): void {
    this.peer.answer(JSON.stringify(this.respond(text)));
  }

  /** Takes streams over. A well-formed name that nothing stands behind is listed and stays silent, as on the exchange. */
  subscribe(streams: readonly string[]): void {
    const isSilenced = this.wire.faults.takeSilencedSubscribe();
    if (isSilenced) this.wire.ledger.counters.subscriptions_silenced++;
    for (const stream of streams) {
      if (this.streams.has(stream) && isSilenced) continue;
      this.streams.add(stream);
      if (!isSilenced && this.isServed(stream)) this.source.subscribe(this.peer, stream);
    }
    if (this.streams.size > this.rules.streamsPerConnection) {
      this.wire.ledger.counters.closed_streams++;
      this.peer.close(1008, 'too many streams');
    }
  }

  closed(): void {
    this.source.leave(this.peer);
  }

  private unsubscribe(streams: readonly string[]): void {
    for (const stream of streams) {
      this.streams.delete(stream);
      this.source.unsubscribe(this.peer, stream);
    }
  }

  private respond(text: string): object {
    let request: unknown;
    try {
      request = JSON.parse(text);
    } catch {
      return this.refusal(3, 'Invalid JSON: expected value at line 1 column 1', null);
    }
    if (typeof request !== 'object' || request === null || Array.isArray(request)) {
      return this.refusal(2, 'Invalid request: expected an object', null);
    }
    const { method, params, id = null } = request as ControlMessage;
    switch (method) {
      case 'SUBSCRIBE':
      case 'UNSUBSCRIBE':
        if (!isTextList(params)) return this.refusal(2, 'Invalid request: params must be a list of streams', id);
        if (method === 'SUBSCRIBE') this.subscribe(params);
        else this.unsubscribe(params);
        return { result: null, id };
      case 'LIST_SUBSCRIPTIONS':
        return { result: [...this.streams], id };
      case 'SET_PROPERTY':
        if (!Array.isArray(params) || params[0] !== 'combined' || typeof params[1] !== 'boolean') {
          return this.refusal(0, 'Unknown property', id);
        }
        this.peer.combined = params[1];
        return { result: null, id };
      case 'GET_PROPERTY':
        return { result: this.peer.combined, id };
      default:
        return this.refusal(
          2,
          `Invalid request: unknown variant \`${String(method)}\`, expected one of ${METHODS}`,
          id,
        );
    }
  }

  /** Both documented shapes of an error are in use: spot sends the flat one, USDⓈ-M the nested one. */
  private refusal(code: number, msg: string, id: unknown): object {
    return this.product === 'spot' ? { code, msg, id } : { error: { code, msg }, id };
  }
}

function isTextList(value: unknown): value is string[] {
  return Array.isArray(value) && value.every((entry) => typeof entry === 'string');
}

function limitOf(query: URLSearchParams, fallback: number): number {
  const limit = Number(query.get('limit') ?? fallback);
  return Number.isInteger(limit) && limit > 0 ? limit : fallback;
}

function fromIdOf(query: URLSearchParams): number | undefined {
  const text = query.get('fromId');
  return text === null || !/^\d+$/.test(text) ? undefined : Number(text);
}
