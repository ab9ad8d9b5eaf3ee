/**
 * Deribit: perpetuals, dated futures, options, and the volatility indexes: endpoints, subscriptions, frames to rows.
 *
 * Source: the venue's API 2.1.1 documents of 2026-08. All quantities become base units here: inverse contracts are counted in
 * USD by the venue, so their base amount is amount ÷ price; linear ones and options are counted in the base coin.
 */

import { divide, multiply } from '../lib/arithmetic.ts';
import { OrderBook, type ResyncCause } from '../lib/book.ts';
import { BookSampler, orderbookRow, PUBLISHED_LEVELS } from '../lib/book_rows.ts';
import { isZero, plainDecimal } from '../lib/decimal.ts';
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
import { GuardedFeed } from '../lib/guarded_feed.ts';
import { quoteLongNumbers } from '../lib/json_numbers.ts';
import { type Id, integerText, type Level, type MarketType, ValueError } from '../lib/rows.ts';
import { MinuteSampler } from '../lib/sampling.ts';
import { array, eventTime, positive, record, sortedLevels, type WireRecord } from '../lib/wire.ts';

const EXCHANGE = 'deribit_derivatives';
const SOCKET_PATH = '/ws/api/v2';
/** No limit is documented; others were seen to ask for 100 at a time. */
const CHANNELS_PER_MESSAGE = 100;
const CHANNELS_PER_CONNECTION = 400;
/** The venue tests the connection this often (at least 10 s) and closes it when the test is not answered. */
const HEARTBEAT_SECONDS = 20;
/** Id of the answers to its tests: those of control messages begin at 1. */
const TEST_ID = 0;
/** A book that still has no snapshot is asked for again after this much venue time. */
const RESUBSCRIBE_RETRY_MS = 10_000;
/** An older id this long after the last applied one means that the venue began to count anew. */
const RESTARTED_IDS_MS = 5000;
/** Funding accrues all the time and has no settlement instants; its rates are told per this many hours. */
const FUNDING_HOURS = '8';
/** Coins whose perpetual counts in USD; all others have only the one against USDC. */
const INVERSE_COINS = ['BTC', 'ETH'];
/** Coins with a volatility index. */
const VOLATILITY_COINS = ['BTC', 'ETH'];
/** The index stream tells the value of the moment, once a second; its rows must not be taken for one-second candles. */
const STREAM_RESOLUTION = '1s';
const DAY_SECONDS = 86_400;

/** Channels that no table keeps, by their first word. */
const NOT_STORED = new Set([
  'announcements',
  'block_rfq',
  'block_trade_confirmations',
  'chart',
  'deribit_price_index',
  'deribit_price_ranking',
  'deribit_price_statistics',
  'estimated_expiration_price',
  'incremental_ticker',
  'instrument',
  'markprice',
  'perpetual',
  'platform_state',
  'quote',
]);

const PERPETUAL = /^([A-Z0-9]+)(?:_([A-Z0-9]+))?-PERPETUAL$/;
const SPOT = /^([A-Z0-9]+)_([A-Z0-9]+)$/;
const FUTURE = /^[A-Z0-9]+(_[A-Z0-9]+)?-\d{1,2}[A-Z]{3}\d{2}$/;
const OPTION = /^[A-Z0-9]+(?:_[A-Z0-9]+)?-\d{1,2}[A-Z]{3}\d{2}-[0-9d]+-[CP]$/;
/** `BTC-FS-27DEC26_PERP`: two futures at once; all other combos are of options. */
const FUTURE_SPREAD = /^[A-Z0-9]+(_[A-Z0-9]+)?-FS-/;
const OPTION_COMBO = /^[A-Z0-9]+(?:_[A-Z0-9]+)?-[A-Z]+[A-Z0-9]*-/;

/** What an instrument's numbers mean. */
interface Contract {
  marketType: MarketType;
  symbol: string;
  /** Amounts are USD, to be divided by the price. */
  inverse: boolean;
  /** The price is a difference of prices: it may be 0 or negative. */
  combo: boolean;
  /** Amount per contract; null: only the instrument list tells. */
  size: string | null;
}

export const deribitDerivatives: ExchangeModule = {
  exchange: EXCHANGE,
  marketTypes: ['perpetual'],
  hosts: { ws: 'wss://www.deribit.com', rest: 'https://www.deribit.com' },
  instrument,
  instrumentOf,
  connections,
  subscribe: (channels, firstId) => [
    call('set_heartbeat', { interval: HEARTBEAT_SECONDS }, firstId),
    ...channelCalls('subscribe', channels, firstId + 1),
  ],
  unsubscribe: (channels, firstId) => channelCalls('unsubscribe', channels, firstId),
  instrumentLists: [
    { path: '/api/v2/public/get_instruments?currency=any&kind=future&expired=false', weight: 1, optional: true },
  ],
  createFeed: (options) => new DeribitFeed(options),
  // A subscription costs 3000 of 30,000 credits, which come back at 10,000 a second.
  messagesPerSecond: 3,
  connectsPerSecond: 2,
  limits: { connections: 32, subscriptions: Number.POSITIVE_INFINITY },
  // Counted in requests: what the venue allows without a login is not published; 10 a second is known to be served.
  restWeightPerMinute: 600,
  restWeightHeader: '',
  silenceLimitMs: 3 * HEARTBEAT_SECONDS * 1000,
};

/** The venue's instrument for a pair; where it has the base only against another quote, that one. */
function instrument(symbol: string, marketType: MarketType): Instrument {
  const [base, quote] = symbol.split('-') as [string, string | undefined];
  if (marketType === 'options' && (quote === undefined || /^[A-Z]+$/.test(quote))) return volatilityIndex(base);
  if (marketType === 'spot') return { exchange: EXCHANGE, market_type: 'spot', symbol, instrument: `${base}_${quote}` };
  if (marketType !== 'perpetual') return { exchange: EXCHANGE, market_type: marketType, symbol, instrument: symbol };
  const inverse = INVERSE_COINS.includes(base) && quote !== 'USDC';
  return {
    exchange: EXCHANGE,
    market_type: 'perpetual',
    symbol: inverse ? `${base}-USD` : `${base}-USDC`,
    instrument: inverse ? `${base}-PERPETUAL` : `${base}_USDC-PERPETUAL`,
  };
}

function instrumentOf(id: string): Instrument {
  const { marketType, symbol } = contractOf(id);
  return { exchange: EXCHANGE, market_type: marketType, symbol, instrument: id };
}

function volatilityIndex(coin: string): Instrument {
  return { exchange: EXCHANGE, market_type: 'options', symbol: coin, instrument: `${coin.toLowerCase()}_usd` };
}

function connections(instruments: Instrument[]): Connection[] {
  const coins = new Set(instruments.map((each) => each.symbol.split('-')[0]!));
  const indexes = VOLATILITY_COINS.filter((coin) => coins.has(coin)).map(volatilityIndex);
  const channels = [
    ...instruments.filter((each) => !isIndex(each)).flatMap(marketChannels),
    ...indexes.map(indexChannel),
  ];
  return chunks(channels, CHANNELS_PER_CONNECTION).map((part) => ({ path: SOCKET_PATH, channels: part }));
}

function isIndex({ instrument: id }: Instrument): boolean {
  return /^[a-z0-9]+_usd$/.test(id);
}

/** `.100ms` is the finest that needs no login; one `.raw` channel would fail its whole request. */
function marketChannels(instrument: Instrument): Channel[] {
  const id = instrument.instrument;
  const readings: Channel['types'] = ['open_interest'];
  if (instrument.market_type === 'perpetual') readings.unshift('funding_rate');
  return [
    { name: `trades.${id}.100ms`, types: ['trade'], instrument },
    { name: `book.${id}.100ms`, types: ['orderbook', 'orderbook_update'], instrument },
    { name: `ticker.${id}.100ms`, types: readings, instrument },
  ];
}

function indexChannel(index: Instrument): Channel {
  return { name: `deribit_volatility_index.${index.instrument}`, types: ['volatility_index'], instrument: index };
}

function call(method: string, params: object, id: number): { id: number; text: string } {
  return { id, text: JSON.stringify({ jsonrpc: '2.0', id, method: `public/${method}`, params }) };
}

function channelCalls(method: string, channels: Channel[], firstId: number): { id: number; text: string }[] {
  return chunks(channels, CHANNELS_PER_MESSAGE).map((part, index) =>
    call(method, { channels: part.map((each) => each.name) }, firstId + index),
  );
}

function chunks<T>(items: T[], size: number): T[][] {
  return Array.from({ length: Math.ceil(items.length / size) }, (_, index) =>
    items.slice(index * size, (index + 1) * size),
  );
}

/** What is kept per instrument. */
interface Market {
  instrument: Instrument;
  contract: Contract;
  sampler: BookSampler;
  /** Null until a snapshot came, and after a break. */
  book: OrderBook | null;
  /** Id and time of the last applied message. */
  last: Id | null;
  lastTime: number;
  /** Venue time at which the last new subscription was asked for. */
  askedAt: number;
}

/** One message of a book channel. */
interface BookMessage {
  channel: string;
  id: Id;
  time: number;
  receivedAt: number;
  bids: Level[];
  asks: Level[];
}

class DeribitFeed extends GuardedFeed implements Feed {
  private readonly markets = new Map<string, Market>();
  private readonly listed = new Map<string, Contract>();
  private readonly readings = new MinuteSampler();

  constructor(private readonly options: FeedOptions) {
    super();
    for (const each of options.instruments) if (!isIndex(each)) this.addMarket(each, contractOf(each.instrument));
  }

  frame(text: string, receivedAt: number, out: FeedOutput): void {
    this.guarded(out, () => {
      const message = record(JSON.parse(quoteLongNumbers(text)), 'frame');
      if (message.method === 'subscription') this.subscription(record(message.params, 'params'), receivedAt);
      else if (message.method === 'heartbeat') this.heartbeat(record(message.params, 'params'));
      else if (message.error !== undefined || message.result !== undefined) this.answer(message);
      else out.event({ kind: 'rejected', reason: 'unknown frame' });
    });
  }

  rest(path: string, body: unknown, receivedAt: number, out: FeedOutput): boolean {
    return this.guarded(out, () => {
      const { pathname, searchParams } = new URL(path, 'http://host');
      const method = pathname.slice(pathname.lastIndexOf('/') + 1);
      const { error, result } = record(body, 'answer');
      if (error !== undefined)
        throw new ValueError(`${method} answered an error: ${JSON.stringify(error).slice(0, 200)}`);
      switch (method) {
        case 'get_last_trades_by_instrument':
        case 'get_last_trades_by_instrument_and_time':
          this.trades(record(result, 'result').trades, receivedAt);
          break;
        case 'get_instruments':
          this.each(array(result, 'result'), (each) => this.learn(record(each, 'result[]')));
          break;
        case 'get_instrument':
          this.learn(record(result, 'result'));
          break;
        case 'ticker':
        case 'get_order_book':
          this.ticker(record(result, 'result'), receivedAt);
          break;
        case 'get_funding_rate_history':
          this.fundingHistory(searchParams, array(result, 'result'), receivedAt);
          break;
        case 'get_volatility_index_data':
          this.volatilityCandles(searchParams, record(result, 'result'), receivedAt);
          break;
        default:
          out.event({ kind: 'rejected', reason: `no rule for ${pathname}` });
      }
    });
  }

  /** Snapshots come on the socket; nothing has to be fetched. */
  requests(): RestRequest[] {
    return [];
  }

  disconnected(channels: Channel[], out: FeedOutput): void {
    this.guarded(out, () => {
      for (const each of channels) {
        const market = each.types.includes('orderbook_update')
          ? this.markets.get(each.instrument.instrument)
          : undefined;
        if (!market) continue;
        if (market.book !== null) this.resync(market, 'disconnect', null);
        // The new connection subscribes by itself.
        market.askedAt = 0;
      }
    });
  }

  private subscription({ channel, data }: WireRecord, receivedAt: number): void {
    if (typeof channel !== 'string') throw new ValueError(`channel is ${JSON.stringify(channel)}`);
    const kind = channel.split('.', 1)[0]!;
    if (kind === 'trades') this.trades(data, receivedAt);
    else if (kind === 'book') this.book(channel, record(data, 'data'), receivedAt);
    else if (kind === 'ticker') this.ticker(record(data, 'data'), receivedAt);
    else if (kind === 'deribit_volatility_index') this.volatility(record(data, 'data'), receivedAt);
    else if (NOT_STORED.has(kind)) this.out.event({ kind: 'ignored', reason: kind });
    else this.out.event({ kind: 'rejected', reason: `unknown channel ${kind.slice(0, 40)}` });
  }

  private heartbeat({ type }: WireRecord): void {
    if (type === 'test_request') this.out.event({ kind: 'reply', text: call('test', {}, TEST_ID).text });
    else this.out.event({ kind: 'ignored', reason: 'heartbeat' });
  }

  /** Answers to control messages. Of a list of channels the venue leaves out, in silence, those that it does not know. */
  private answer({ id, error, result }: WireRecord): void {
    const number = typeof id === 'number' ? id : null;
    if (error !== undefined) {
      this.out.event({ kind: 'ack', id: number, error: JSON.stringify(error).slice(0, 200), granted: null });
    } else if (number === TEST_ID) {
      this.out.event({ kind: 'ignored', reason: 'heartbeat' });
    } else {
      const granted = Array.isArray(result) ? result.map(String) : null;
      this.out.event({ kind: 'ack', id: number, error: null, granted });
    }
  }

  private trades(data: unknown, receivedAt: number): void {
    this.each(array(data, 'trades'), (each) => this.trade(record(each, 'trades[]'), receivedAt));
  }

  /**
   * One row per trade. A combo's trade is one row under the combo's own id; its legs, and the parts of a block trade, are
   * trades of their own instruments and come on those channels, each with an id of its own.
   */
  private trade(data: WireRecord, receivedAt: number): void {
    const { instrument, contract } = this.marketOf(data);
    if (contract.combo && contract.inverse) {
      // Its price is a difference, so USD ÷ price would be no quantity of anything. Its legs are stored.
      this.out.event({ kind: 'ignored', reason: 'future spread' });
      return;
    }
    const { direction } = data;
    if (direction !== 'buy' && direction !== 'sell') throw new ValueError(`direction is ${JSON.stringify(direction)}`);
    const price = contract.combo ? plainDecimal(data.price) : positive(data.price, 'price');
    const common = {
      ...instrument,
      timestamp: eventTime(data.timestamp, 'timestamp'),
      received_at: receivedAt,
      data_source: this.options.dataSource,
      price,
      quantity: baseAmount(contract, positive(data.amount, 'amount'), price),
    };
    const id = tradeId(data.trade_id);
    const flag = data.liquidation;
    const side = flag === undefined ? null : liquidatedSide(flag, direction);
    this.out.row('trade', {
      ...common,
      trade_id: id,
      sequence: exactId(data.trade_seq, 'trade_seq'),
      side: direction,
      is_maker: direction === 'sell',
    });
    if (side !== null) this.out.row('liquidation', { ...common, liquidation_id: id, side });
  }

  private book(channel: string, data: WireRecord, receivedAt: number): void {
    const { type } = data;
    if (type === undefined) {
      // `book.X.none.20.100ms`: the top of the book, whole each time and without a chain.
      this.out.event({ kind: 'ignored', reason: 'grouped book' });
      return;
    }
    if (type !== 'snapshot' && type !== 'change') throw new ValueError(`type is ${JSON.stringify(type)}`);
    const market = this.marketOf(data);
    if (market.contract.combo && market.contract.inverse) {
      this.out.event({ kind: 'ignored', reason: 'future spread' });
      return;
    }
    const message: BookMessage = {
      channel,
      id: exactId(data.change_id, 'change_id'),
      time: eventTime(data.timestamp, 'timestamp'),
      receivedAt,
      bids: levels(market.contract, data.bids, 1, 'bids'),
      asks: levels(market.contract, data.asks, -1, 'asks'),
    };
    const prev = type === 'snapshot' ? null : exactId(data.prev_change_id, 'prev_change_id');
    this.out.row('orderbook_update', {
      ...market.instrument,
      timestamp: message.time,
      received_at: receivedAt,
      data_source: this.options.dataSource,
      first_update_id: null,
      last_update_id: message.id,
      prev_update_id: prev,
      is_snapshot: prev === null,
      bids: message.bids,
      asks: message.asks,
    });
    if (prev === null) {
      market.book = new OrderBook(message.bids, message.asks, Number.POSITIVE_INFINITY);
      this.stands(market, market.book, message);
    } else {
      this.change(market, message, prev);
    }
  }

  private change(market: Market, message: BookMessage, prev: Id): void {
    const { book, last } = market;
    if (book === null || last === null) {
      // What was sent before a new subscription took effect. None came of it for long: ask again.
      if (message.time - market.askedAt >= RESUBSCRIBE_RETRY_MS) this.resubscribe(market, message);
    } else if (prev === last) {
      book.apply(message.bids, message.asks);
      this.stands(market, book, message);
    } else if (isAbove(message.id, last)) {
      this.resync(market, 'gap', message);
    } else if (message.time > market.lastTime + RESTARTED_IDS_MS) {
      this.resync(market, 'ids_restarted', message);
    }
  }

  /** The book stands at `message`: whether that can be, and whether it becomes a row. */
  private stands(market: Market, book: OrderBook, message: BookMessage): void {
    if (book.crossed()) {
      this.resync(market, 'crossed', message);
      return;
    }
    market.last = message.id;
    market.lastTime = message.time;
    if (!market.sampler.due(message.time)) return;
    const { bids, asks } = book.top(PUBLISHED_LEVELS);
    const { id, time, receivedAt } = message;
    const standing = { id, time, receivedAt, bids, asks, verified: true };
    const row = orderbookRow(market.instrument, this.options.dataSource, standing);
    if (row === null) this.out.event({ kind: 'ignored', reason: 'book with an empty side' });
    else this.out.row('orderbook', row);
  }

  private resync(market: Market, cause: ResyncCause, message: BookMessage | null): void {
    const { instrument, last, askedAt } = market;
    const next = message === null ? null : Number(message.id);
    this.out.event({ kind: 'resync', instrument, cause, last: last === null ? null : Number(last), next });
    market.book = null;
    market.last = null;
    // A snapshot that cannot be, right after the last one was asked for, would be asked for in an endless hurry.
    if (message !== null && (last !== null || message.time - askedAt >= RESUBSCRIBE_RETRY_MS)) {
      this.resubscribe(market, message);
    }
  }

  private resubscribe(market: Market, message: BookMessage): void {
    market.askedAt = message.time;
    this.out.event({ kind: 'resubscribe', channels: [message.channel] });
  }

  /**
   * Funding and open interest. `funding_rate` is `funding_8h`: what holding the perpetual for the last 8 hours cost, in the
   * unit that its interval tells. `current_funding` is the rate of one moment, 0 for most of the time, and would be lost
   * between two readings.
   */
  private ticker(data: WireRecord, receivedAt: number): void {
    const { instrument, contract } = this.marketOf(data);
    const common = {
      ...instrument,
      timestamp: eventTime(data.timestamp, 'timestamp'),
      received_at: receivedAt,
      data_source: this.options.dataSource,
    };
    const mark = optional(data.mark_price);
    if (contract.marketType === 'perpetual' && data.funding_8h !== undefined && data.funding_8h !== null) {
      const row = {
        ...common,
        funding_rate: plainDecimal(data.funding_8h),
        funding_time: null,
        next_funding_time: null,
        funding_interval_hours: FUNDING_HOURS,
        mark_price: mark,
        index_price: optional(data.index_price),
      };
      if (this.readings.due(`funding_rate ${instrument.instrument}`, row.timestamp)) this.out.row('funding_rate', row);
    }
    // A pair on the spot market, and a combo, has none.
    if (contract.marketType === 'spot' || contract.combo) return;
    const row = { ...common, ...openInterest(contract, notNegative(data.open_interest, 'open_interest'), mark) };
    if (this.readings.due(`open_interest ${instrument.instrument}`, row.timestamp)) this.out.row('open_interest', row);
  }

  private fundingHistory(query: URLSearchParams, rows: unknown[], receivedAt: number): void {
    const { instrument } = this.market(query.get('instrument_name') ?? '');
    this.each(rows, (each) => {
      const { timestamp, interest_8h, index_price } = record(each, 'result[]');
      this.out.row('funding_rate', {
        ...instrument,
        timestamp: eventTime(timestamp, 'timestamp'),
        received_at: receivedAt,
        data_source: this.options.dataSource,
        funding_rate: plainDecimal(interest_8h),
        funding_time: null,
        next_funding_time: null,
        funding_interval_hours: FUNDING_HOURS,
        mark_price: null,
        index_price: optional(index_price),
      });
    });
  }

  private volatility(data: WireRecord, receivedAt: number): void {
    const { index_name: name } = data;
    const coin = typeof name === 'string' ? /^([a-z0-9]+)_usd$/.exec(name)?.[1] : undefined;
    if (coin === undefined) throw new ValueError(`index_name is ${JSON.stringify(name)}`);
    const time = eventTime(data.timestamp, 'timestamp');
    const value = positive(data.volatility, 'volatility');
    if (!this.readings.due(`volatility_index ${coin}`, time)) return;
    this.volatilityRow(coin.toUpperCase(), time, value, STREAM_RESOLUTION, receivedAt);
  }

  /**
   * Candles of the index: the close, under the candle's own time (its start). A candle that ends after the request's end, or
   * after the answer came, may still change, so it is left for a later request.
   */
  private volatilityCandles(query: URLSearchParams, result: WireRecord, receivedAt: number): void {
    const coin = query.get('currency') ?? '';
    const resolution = query.get('resolution') ?? '';
    const seconds = resolution === '1D' ? DAY_SECONDS : Number(resolution);
    if (!/^[A-Z0-9]+$/.test(coin)) throw new ValueError('volatility candles without currency= in their path');
    if (!(seconds >= 1)) throw new ValueError('volatility candles without resolution= in their path');
    const now = Math.floor(receivedAt / 1000);
    const end = Math.min(Number(query.get('end_timestamp') ?? now), now);
    this.each(array(result.data, 'data'), (each) => {
      const [start, , , , close] = array(each, 'data[]');
      const time = eventTime(start, 'data[][0]');
      if (time + seconds * 1000 > end) this.out.event({ kind: 'ignored', reason: 'unfinished candle' });
      else this.volatilityRow(coin, time, positive(close, 'close'), resolution, receivedAt);
    });
  }

  private volatilityRow(coin: string, time: number, value: string, resolution: string, receivedAt: number): void {
    this.out.row('volatility_index', {
      ...volatilityIndex(coin),
      timestamp: time,
      received_at: receivedAt,
      data_source: this.options.dataSource,
      resolution,
      index_value: value,
      underlying_asset: coin,
      maturity_date: null,
    });
  }

  /** Takes an instrument's units from the venue's list. */
  private learn(data: WireRecord): void {
    const name = data.instrument_name;
    if (typeof name !== 'string' || name === '') throw new ValueError('instrument_name is missing');
    const contract = listedContract(name, data);
    this.listed.set(name, contract);
    const market = this.markets.get(name);
    if (market) market.contract = contract;
  }

  private marketOf(data: WireRecord): Market {
    const name = data.instrument_name;
    if (typeof name !== 'string') throw new ValueError(`instrument_name is ${JSON.stringify(name)}`);
    return this.market(name);
  }

  private market(name: string): Market {
    const known = this.markets.get(name);
    if (known) return known;
    const contract = this.listed.get(name) ?? contractOf(name);
    const { marketType: market_type, symbol } = contract;
    return this.addMarket({ exchange: EXCHANGE, market_type, symbol, instrument: name }, contract);
  }

  private addMarket(instrument: Instrument, contract: Contract): Market {
    const sampler = new BookSampler(this.options.orderbookIntervalMs);
    const market = { instrument, contract, sampler, book: null, last: null, lastTime: 0, askedAt: 0 };
    this.markets.set(instrument.instrument, market);
    return market;
  }
}

/** An instrument's meaning from its name alone. */
function contractOf(name: string): Contract {
  const own = { symbol: name.toUpperCase(), inverse: false, combo: false, size: null };
  const linear = name.split('-')[0]!.includes('_');
  const perpetual = PERPETUAL.exec(name);
  if (perpetual) {
    const [, base, quote] = perpetual;
    return { ...own, marketType: 'perpetual', symbol: `${base}-${quote ?? 'USD'}`, inverse: !linear };
  }
  if (SPOT.test(name)) return { ...own, marketType: 'spot', symbol: name.replace('_', '-') };
  if (FUTURE.test(name)) return { ...own, marketType: 'futures', inverse: !linear };
  if (FUTURE_SPREAD.test(name)) return { ...own, marketType: 'futures', inverse: !linear, combo: true };
  if (OPTION.test(name)) return { ...own, marketType: 'options' };
  if (OPTION_COMBO.test(name)) return { ...own, marketType: 'options', combo: true };
  throw new ValueError(`cannot tell what ${JSON.stringify(name.slice(0, 60))} is without the instrument list`);
}

/** An instrument's meaning by the venue's list; lists of before 2022 do not tell whether it is inverse, but its name does. */
function listedContract(name: string, data: WireRecord): Contract {
  const { kind, base_currency: base, counter_currency, quote_currency } = data;
  if (typeof kind !== 'string' || typeof base !== 'string') throw new ValueError(`${name}: kind or base is missing`);
  const quote = counter_currency ?? quote_currency;
  const unit = data.instrument_type ?? data.future_type;
  const reversed = unit === undefined ? !name.split('-')[0]!.includes('_') : unit === 'reversed';
  const future = kind === 'future' || kind === 'future_combo';
  const perpetual = kind === 'future' && data.settlement_period === 'perpetual';
  const pair = perpetual || kind === 'spot';
  if (pair && typeof quote !== 'string') throw new ValueError(`${name}: quote is missing`);
  return {
    marketType: perpetual ? 'perpetual' : kind === 'spot' ? 'spot' : future ? 'futures' : 'options',
    symbol: pair ? `${base}-${quote}` : name.toUpperCase(),
    // An option is counted in its base coin also where it is paid in it.
    inverse: future && reversed,
    combo: kind.endsWith('_combo'),
    size: data.contract_size === undefined ? null : positive(data.contract_size, 'contract_size'),
  };
}

function baseAmount({ inverse }: Contract, amount: string, price: string): string {
  return inverse ? divide(amount, price) : amount;
}

/** `[action, price, amount]` as levels in base units, best first; a deleted one has quantity 0. A side may be absent. */
function levels(contract: Contract, side: unknown, sign: 1 | -1, what: string): Level[] {
  const list = array(side ?? [], what).map((each) => {
    const [action, priced, amount] = array(each, `${what}[]`);
    if (action !== 'new' && action !== 'change' && action !== 'delete') {
      throw new ValueError(`${what}[]: action is ${JSON.stringify(action)}`);
    }
    const price = positive(priced, `${what}[] price`);
    if (action === 'delete') return [price, '0'];
    return [price, baseAmount(contract, positive(amount, `${what}[] amount`), price)];
  });
  return sortedLevels(list, sign, what);
}

/**
 * Open interest in base units and in quote units. Inverse: told in USD, which is the value; in coins at the mark price.
 * Linear: told in coins; the value is at the mark price. Options: in coins; the value of what they cover depends on more than
 * their own price, so it is absent.
 */
function openInterest(contract: Contract, told: string, mark: string | null) {
  const contracts = contract.size === null ? null : divide(told, contract.size);
  if (contract.inverse) {
    if (mark === null) throw new ValueError('open interest in USD without a mark price');
    return { open_interest: divide(told, mark), open_interest_value: told, contracts };
  }
  const valued = contract.marketType !== 'options' && mark !== null;
  return { open_interest: told, open_interest_value: valued ? multiply(told, mark) : null, contracts };
}

/** The order of who was liquidated: the taker (T), the maker (M, who did the opposite), or both (MT: the taker's is told). */
function liquidatedSide(flag: unknown, taker: 'buy' | 'sell'): 'buy' | 'sell' {
  if (flag === 'T' || flag === 'MT') return taker;
  if (flag === 'M') return taker === 'buy' ? 'sell' : 'buy';
  throw new ValueError(`liquidation is ${JSON.stringify(flag)}`);
}

/** `"ETH-123"` or digits; as a number only while a double holds it. */
function tradeId(value: unknown): string {
  if (typeof value === 'string' && value !== '') return value;
  return integerText(value);
}

/** An id: a number, or its digits as text when a double cannot hold it. */
function exactId(value: unknown, what: string): Id {
  try {
    return typeof value === 'number' ? Number(integerText(value)) : integerText(value);
  } catch (error) {
    throw new ValueError(`${what} is ${(error as Error).message}`);
  }
}

function isAbove(a: Id, b: Id): boolean {
  return typeof a === 'number' && typeof b === 'number' ? a > b : BigInt(a) > BigInt(b);
}

function optional(value: unknown): string | null {
  return value === undefined || value === null ? null : plainDecimal(value);
}

function notNegative(value: unknown, what: string): string {
  const text = plainDecimal(value);
  if (text.startsWith('-') && !isZero(text)) throw new ValueError(`${what} is negative: ${text}`);
  return text;
}
