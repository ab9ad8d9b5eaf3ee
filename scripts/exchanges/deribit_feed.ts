/** Deribit's frames and answers to rows. */
import { OrderBook, type ResyncCause } from '../lib/book.ts';
import { BookSampler, orderbookRow, PUBLISHED_LEVELS } from '../lib/book_rows.ts';
import { plainDecimal } from '../lib/decimal.ts';
import type { Channel, Feed, FeedOptions, FeedOutput, Instrument, RestRequest } from '../lib/exchange.ts';
import { GuardedFeed } from '../lib/guarded_feed.ts';
import { quoteLongNumbers } from '../lib/json_numbers.ts';
import { type Id, integerText, type Level, ValueError } from '../lib/rows.ts';
import { MinuteSampler } from '../lib/sampling.ts';
import { array, eventTime, positive, record, type WireRecord } from '../lib/wire.ts';
import {
  baseAmount,
  type Contract,
  contractOf,
  EXCHANGE,
  isIndex,
  isLeveraged,
  levels,
  listedContract,
  notNegative,
  openInterest,
  optional,
  volatilityIndex,
} from './deribit_contracts.ts';
import { LiquidationSearch } from './deribit_liquidations.ts';

/** Id of the answers to its tests: those of control messages begin at 1. */
const TEST_ID = 0;
/** A book that still has no snapshot is asked for again after this much venue time. */
const RESUBSCRIBE_RETRY_MS = 10_000;
/** An older id this long after the last applied one means that the venue began to count anew. */
const RESTARTED_IDS_MS = 5000;
/** Funding accrues all the time and has no settlement instants; its rates are told per this many hours. */
const FUNDING_HOURS = '8';
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

export class DeribitFeed extends GuardedFeed implements Feed {
  private readonly markets = new Map<string, Market>();
  private readonly listed = new Map<string, Contract>();
  private readonly readings = new MinuteSampler();
  private readonly searches = new Map<string, LiquidationSearch>();
  /** When the last frame arrived, ms. */
  private now = 0;

  constructor(private readonly options: FeedOptions) {
    super();
    for (const each of options.instruments) {
      const id = each.instrument;
      if (isIndex(each)) continue;
      this.addMarket(each, contractOf(id));
      if (isLeveraged(each.market_type)) this.searches.set(id, new LiquidationSearch(id, options.liquidationDelayMs));
    }
  }

  frame(text: string, receivedAt: number, out: FeedOutput): void {
    this.now = receivedAt / 1000;
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
          this.history(path, record(result, 'result'), receivedAt);
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

  /** Snapshots come on the socket. What is fetched is the history of trades, for the liquidations among them. */
  requests(): RestRequest[] {
    if (this.now === 0) return [];
    return [...this.searches].flatMap(([id, search]) => {
      const path = search.due(this.now);
      return path === null ? [] : [{ instrument: this.market(id).instrument, path, weight: 1 }];
    });
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

  /** Trades of the past. Of those that are read again, only the liquidations: the trades were stored when they happened. */
  private history(path: string, { trades, has_more }: WireRecord, receivedAt: number): void {
    const search = [...this.searches.values()].find((each) => each.asked(path));
    if (!search) {
      this.trades(trades, receivedAt);
      return;
    }
    let newest: number | null = null;
    this.each(array(trades, 'trades'), (each) => {
      const data = record(each, 'trades[]');
      newest = Math.max(newest ?? 0, eventTime(data.timestamp, 'timestamp'));
      if (data.liquidation !== undefined) this.trade(data, receivedAt, false);
    });
    search.answered(newest, has_more === true);
  }

  /**
   * One row per trade. A combo's trade is one row under the combo's own id; its legs, and the parts of a block trade, are
   * trades of their own instruments and come on those channels, each with an id of its own.
   */
  private trade(data: WireRecord, receivedAt: number, isNew = true): void {
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
    if (isNew) {
      this.out.row('trade', {
        ...common,
        trade_id: id,
        sequence: exactId(data.trade_seq, 'trade_seq'),
        side: direction,
        is_maker: direction === 'sell',
      });
    }
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
    const market = {
      instrument,
      contract,
      sampler,
      book: null,
      last: null,
      lastTime: 0,
      askedAt: 0,
      rereadUntil: null,
      reread: null,
    };
    this.markets.set(instrument.instrument, market);
    return market;
  }
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

/**
 * An id: a number, or its digits as text when a double cannot hold it. Frames bring long numbers as text and answers over REST
 * do not, so which of the two it becomes goes by the value alone.
 */
function exactId(value: unknown, what: string): Id {
  try {
    const text = integerText(value);
    return Number.isSafeInteger(Number(text)) ? Number(text) : text;
  } catch (error) {
    throw new ValueError(`${what} is ${(error as Error).message}`);
  }
}

function isAbove(a: Id, b: Id): boolean {
  return typeof a === 'number' && typeof b === 'number' ? a > b : BigInt(a) > BigInt(b);
}

/** A control message: a call of a public method. */
export function call(method: string, params: object, id: number): { id: number; text: string } {
  return { id, text: JSON.stringify({ jsonrpc: '2.0', id, method: `public/${method}`, params }) };
}
