/**
 * OKX frames and REST answers to rows.
 *
 * Sources: OKX API v5 documents of 2026-06 and 2026-07, and recorded frames of 2022 to 2026.
 */

import { divide, liquidationId, sharesOfRatio } from '../lib/arithmetic.ts';
import { BookSampler, orderbookRow, PUBLISHED_LEVELS } from '../lib/book_rows.ts';
import { plainDecimal } from '../lib/decimal.ts';
import type { Channel, Feed, FeedOptions, FeedOutput, Instrument, RestRequest } from '../lib/exchange.ts';
import { GuardedFeed } from '../lib/guarded_feed.ts';
import { type DataType, type Level, type OpenInterestRow, ValueError } from '../lib/rows.ts';
import { MinuteSampler } from '../lib/sampling.ts';
import { array, eventTime, positive, record, safeInteger, sortedLevels, type WireRecord } from '../lib/wire.ts';
import { type BookUpdate, OkxBook } from './okx_book.ts';
import { baseQuantity, familyOf, INST_TYPES, okxInstrument, type Units, unitsOf } from './okx_units.ts';

const MINUTE_MS = 60_000;
const HOUR_MS = 3_600_000;
/** Instruments whose units are asked for one by one; garbage could name any number of them. */
const MAX_UNIT_REQUESTS = 100;

export const INSTRUMENTS_PATH = '/api/v5/public/instruments';
export const TOP_POSITION_PATH = '/api/v5/rubik/stat/contracts/long-short-position-ratio-contract-top-trader';
export const ALL_ACCOUNT_PATH = '/api/v5/rubik/stat/contracts/long-short-account-ratio-contract';
/** The older form: one ratio for all contracts of a coin. */
const COIN_ACCOUNT_PATH = '/api/v5/rubik/stat/contracts/long-short-account-ratio';
/** The period of trading statistics that is asked for, and the venue's default. */
export const RATIO_PERIOD = '5m';
export const STATISTICS_PERIOD_MS = 5 * MINUTE_MS;

export const FUNDING_HISTORY_PATH = '/api/v5/public/funding-rate-history';
export const OPEN_INTEREST_HISTORY_PATH = '/api/v5/rubik/stat/contracts/open-interest-history';

export const HISTORY_TRADES_PATH = '/api/v5/market/history-trades';
/** Single fills by id, as in `trades-all`. */
const TRADE_PATHS = new Set(['/api/v5/market/trades', HISTORY_TRADES_PATH]);

/** Channels with the rules of `books`: a snapshot, then chained updates. */
const BOOK_CHANNELS = new Set(['books', 'books-l2-tbt', 'books50-l2-tbt']);

/** Channels that can be subscribed and that no table keeps; candles are told by their prefixes. */
const NOT_STORED = new Set([
  'tickers',
  'index-tickers',
  'mark-price',
  'books5',
  'bbo-tbt',
  'books-elp',
  'books-rpi',
  'price-limit',
  'estimated-price',
  'opt-summary',
  'status',
  'adl-warning',
]);
const CANDLES = /^(?:mark-price-|index-)?candle\d/;

type OkxExchange = 'okx_spot' | 'okx_derivatives';

/** What is kept per instrument. */
interface Market {
  instrument: Instrument;
  book: OkxBook;
}

export class OkxFeed extends GuardedFeed implements Feed {
  private readonly markets = new Map<string, Market>();
  private readonly configured: Set<string>;
  /** Of all listed contracts. */
  private readonly units = new Map<string, Units>();
  /** Contracts that a frame told of and whose units no list has told. */
  private readonly unitsWanted = new Map<string, Instrument>();
  private readonly minutes = new MinuteSampler();

  constructor(
    private readonly exchange: OkxExchange,
    private readonly options: FeedOptions,
  ) {
    super();
    this.configured = new Set(options.instruments.map((each) => each.instrument));
    for (const instrument of options.instruments) this.addMarket(instrument);
  }

  frame(text: string, receivedAt: number, out: FeedOutput): void {
    this.guarded(out, () => {
      if (text === 'pong') {
        this.out.event({ kind: 'ignored', reason: 'pong' });
        return;
      }
      const message = record(JSON.parse(text), 'frame');
      if (message.event !== undefined) this.control(message.event, message);
      else this.data(record(message.arg, 'arg'), message, receivedAt);
    });
  }

  rest(path: string, body: unknown, receivedAt: number, out: FeedOutput): boolean {
    return this.guarded(out, () => {
      const [pathname = '', query = ''] = path.split('?', 2);
      const answer = record(body, 'answer');
      // Errors come under HTTP 200 too.
      if (answer.code !== '0') {
        throw new ValueError(`${pathname} answered an error: ${JSON.stringify(answer).slice(0, 200)}`);
      }
      this.answer(pathname, new URLSearchParams(query), array(answer.data, 'data'), receivedAt);
    });
  }

  /** Units that a frame lacked. Lists are loaded before anything is subscribed; this is for what was listed later. */
  requests(): RestRequest[] {
    return [...this.unitsWanted.values()].map((instrument) => {
      const { market_type, instrument: id } = instrument;
      const family = market_type === 'options' ? `&instFamily=${encodeURIComponent(familyOf(id))}` : '';
      const path = `${INSTRUMENTS_PATH}?instType=${INST_TYPES[market_type]}${family}&instId=${encodeURIComponent(id)}`;
      return { instrument, path, weight: 1 };
    });
  }

  disconnected(channels: Channel[], out: FeedOutput): void {
    this.guarded(out, () => {
      for (const each of channels) {
        if (each.types.includes('orderbook_update')) this.markets.get(each.instrument.instrument)?.book.onDisconnect();
      }
    });
  }

  private records(list: unknown[], what: string, work: (item: WireRecord) => void): void {
    this.each(list, (item) => work(record(item, what)));
  }

  private control(event: unknown, message: WireRecord): void {
    const id = typeof message.id === 'string' && /^\d{1,15}$/.test(message.id) ? Number(message.id) : null;
    const code = String(message.code ?? '').slice(0, 40);
    if (event === 'subscribe' || event === 'unsubscribe') {
      const granted = event === 'subscribe' ? [channelName(record(message.arg, 'arg'))] : null;
      this.out.event({ kind: 'ack', id, error: null, granted });
    } else if (event === 'error') {
      this.out.event({ kind: 'ack', id, error: `${code} ${String(message.msg).slice(0, 200)}`, granted: null });
    } else if (event === 'notice' && code === '64008') {
      this.out.event({ kind: 'closing', reason: 'notice 64008' });
    } else if (event === 'notice' || event === 'channel-conn-count') {
      this.out.event({ kind: 'ignored', reason: `${event} ${code}`.trim() });
    } else {
      this.out.event({ kind: 'rejected', reason: `unknown event ${JSON.stringify(event).slice(0, 40)}` });
    }
  }

  private data(arg: WireRecord, message: WireRecord, receivedAt: number): void {
    const name = arg.channel;
    if (typeof name !== 'string') throw new ValueError(`arg.channel is ${JSON.stringify(name)}`);
    if (NOT_STORED.has(name) || CANDLES.test(name)) {
      this.out.event({ kind: 'ignored', reason: name.startsWith('candle') ? 'candle' : name });
      return;
    }
    const list = () => array(message.data, 'data');
    const items = (work: (item: WireRecord) => void) =>
      this.records(list(), 'data[]', (item) => {
        if (arg.instId !== undefined && item.instId !== undefined && arg.instId !== item.instId) {
          throw new ValueError(`${name}: ${JSON.stringify(item.instId)} under ${JSON.stringify(arg.instId)}`);
        }
        work(item);
      });
    if (name === 'trades-all' || name === 'trades') items((item) => this.trade(item, receivedAt));
    else if (BOOK_CHANNELS.has(name)) items((item) => this.book(arg.instId, message.action, item, receivedAt));
    else if (name === 'funding-rate') items((item) => this.fundingRate(item, receivedAt));
    else if (name === 'open-interest') items((item) => this.openInterest(item, receivedAt));
    else if (name === 'liquidation-orders') items((item) => this.liquidations(item, receivedAt));
    else if (name === 'instruments') this.instruments(list());
    else this.out.event({ kind: 'rejected', reason: `unknown channel ${name.slice(0, 40)}` });
  }

  private answer(pathname: string, query: URLSearchParams, list: unknown[], receivedAt: number): void {
    const items = (work: (item: WireRecord) => void) => this.records(list, 'data[]', work);
    if (pathname === INSTRUMENTS_PATH) this.instruments(list);
    else if (TRADE_PATHS.has(pathname)) items((item) => this.trade(item, receivedAt));
    else if (pathname === '/api/v5/public/funding-rate') items((item) => this.fundingRate(item, receivedAt));
    else if (pathname === FUNDING_HISTORY_PATH) items((item) => this.settledRate(item, receivedAt));
    else if (pathname === OPEN_INTEREST_HISTORY_PATH) this.pastOpenInterest(query, list, receivedAt);
    else if (pathname === '/api/v5/public/open-interest') items((item) => this.openInterest(item, receivedAt));
    else if (pathname === '/api/v5/public/liquidation-orders') items((item) => this.liquidations(item, receivedAt));
    else if (pathname === TOP_POSITION_PATH || pathname === ALL_ACCOUNT_PATH) {
      this.ratios(pathname, this.instrumentOf(query.get('instId')), query, list, receivedAt);
    } else if (pathname === COIN_ACCOUNT_PATH) {
      this.ratios(pathname, this.coin(query.get('ccy')), query, list, receivedAt);
    } else {
      this.out.event({ kind: 'rejected', reason: `no rule for ${pathname.slice(0, 80)}` });
    }
  }

  private trade(data: WireRecord, receivedAt: number): void {
    const instrument = this.instrumentOf(data.instId);
    const side = sideOf(data.side);
    const price = positive(data.px, 'px');
    this.out.row('trade', {
      ...this.source(instrument, timeOf(data.ts, 'ts'), receivedAt),
      trade_id: tradeIdOf(data.tradeId),
      sequence: null,
      price,
      quantity: baseQuantity(positive(data.sz, 'sz'), price, this.unitsOf(instrument)),
      side,
      is_maker: side === 'sell',
    });
  }

  /**
   * Each frame is a row, kept by its seqId. That number may fall at the venue's maintenance and pass through old values
   * again. A value that comes back later than the store looks for copies (the time span of a batch) is stored as a row of its
   * own; within it the store takes it for a copy, and the broken chain of prev_update_id declares the hole.
   */
  private book(id: unknown, action: unknown, data: WireRecord, receivedAt: number): void {
    const market = this.marketOf(id);
    if (action !== 'snapshot' && action !== 'update') throw new ValueError(`books: action ${JSON.stringify(action)}`);
    const update = bookUpdate(data, action === 'snapshot', receivedAt);
    if (!update.sequenced && (update.checksum === 0 || (market.book.needsIds && !update.snapshot))) {
      throw new ValueError(`books: seqId is ${JSON.stringify(data.seqId)}`);
    }
    const units = this.unitsOf(market.instrument);
    const { snapshot, sequenced, bids, asks } = update;
    if (!snapshot && sequenced && update.id === update.prev && bids.length + asks.length === 0) {
      this.out.event({ kind: 'ignored', reason: 'unchanged book' });
    } else {
      this.out.row('orderbook_update', {
        ...this.source(market.instrument, update.time, receivedAt),
        first_update_id: null,
        last_update_id: update.id,
        prev_update_id: update.prev,
        is_snapshot: snapshot,
        bids: inBaseUnits(bids, units),
        asks: inBaseUnits(asks, units),
      });
    }
    market.book.take(update);
  }

  private fundingRate(data: WireRecord, receivedAt: number): void {
    const instrument = this.instrumentOf(data.instId);
    if (this.unwanted(instrument)) return;
    const fundingTime = optionalTime(data.fundingTime, 'fundingTime');
    const next = optionalTime(data.nextFundingTime, 'nextFundingTime');
    const span = fundingTime === null || next === null ? 0 : next - fundingTime;
    // Frames before 2023 tell no time of their own; then it is the minute of their arrival.
    const time = optionalTime(data.ts, 'ts') ?? Math.floor(receivedAt / 1000 / MINUTE_MS) * MINUTE_MS;
    const row = {
      ...this.source(instrument, time, receivedAt),
      funding_rate: plainDecimal(data.fundingRate),
      funding_time: fundingTime,
      next_funding_time: next,
      funding_interval_hours: span > 0 ? divide(String(span), String(HOUR_MS)) : null,
      mark_price: null,
      index_price: null,
    };
    if (this.due('funding_rate', instrument, time)) this.out.row('funding_rate', row);
  }

  /** A rate at its settlement: the one that was paid, which may be another than the last one that was foretold. */
  private settledRate(data: WireRecord, receivedAt: number): void {
    const instrument = this.instrumentOf(data.instId);
    if (this.unwanted(instrument)) return;
    const time = timeOf(data.fundingTime, 'fundingTime');
    this.out.row('funding_rate', {
      ...this.source(instrument, time, receivedAt),
      funding_rate: plainDecimal(isAbsent(data.realizedRate) ? data.fundingRate : data.realizedRate),
      funding_time: time,
      next_funding_time: null,
      funding_interval_hours: null,
      mark_price: null,
      index_price: null,
    });
  }

  private openInterest(data: WireRecord, receivedAt: number): void {
    const instrument = this.instrumentOf(data.instId);
    if (this.unwanted(instrument)) return;
    const row = this.openInterestRow(instrument, timeOf(data.ts, 'ts'), data, receivedAt);
    if (this.due('open_interest', instrument, row.timestamp)) this.out.row('open_interest', row);
  }

  /**
   * `[ts, oi, oiCcy, oiUsd]`, one in five minutes, under the venue's own time. A period that is not over may still change, and
   * the table has no column that would tell longer periods apart.
   */
  private pastOpenInterest(query: URLSearchParams, list: unknown[], receivedAt: number): void {
    const instrument = this.instrumentOf(query.get('instId'));
    const period = query.get('period') || RATIO_PERIOD;
    if (period !== RATIO_PERIOD) throw new ValueError(`open interest of the period ${JSON.stringify(period)}`);
    this.each(list, (item) => {
      const [ts, oi, oiCcy, oiUsd] = array(item, 'data[]');
      const row = this.openInterestRow(instrument, timeOf(ts, 'ts'), { oi, oiCcy, oiUsd }, receivedAt);
      if (row.timestamp + STATISTICS_PERIOD_MS <= receivedAt / 1000) this.out.row('open_interest', row);
      else this.out.event({ kind: 'ignored', reason: 'open interest of a period that is not over' });
    });
  }

  private openInterestRow(
    instrument: Instrument,
    time: number,
    { oi, oiCcy, oiUsd }: WireRecord,
    receivedAt: number,
  ): OpenInterestRow {
    return {
      ...this.source(instrument, time, receivedAt),
      open_interest: notNegative(oiCcy, 'oiCcy'),
      open_interest_value: isAbsent(oiUsd) ? null : notNegative(oiUsd, 'oiUsd'),
      contracts: isAbsent(oi) ? null : notNegative(oi, 'oi'),
    };
  }

  /** One row per detail. The venue gives no ids, tells a sample only, and not in the order of time. */
  private liquidations(data: WireRecord, receivedAt: number): void {
    const instrument = this.instrumentOf(data.instId);
    if (this.unwanted(instrument)) return;
    this.records(array(data.details, 'details'), 'details[]', (detail) => {
      const side = sideOf(detail.side);
      const price = positive(detail.bkPx, 'bkPx');
      const quantity = baseQuantity(positive(detail.sz, 'sz'), price, this.unitsOf(instrument));
      const time = timeOf(detail.ts, 'ts');
      this.out.row('liquidation', {
        ...this.source(instrument, time, receivedAt),
        liquidation_id: liquidationId(instrument.symbol, side, price, quantity, time),
        side,
        price,
        quantity,
      });
    });
  }

  /** Every row of the answer: what a late start or an outage missed comes with the next one. */
  private ratios(path: string, instrument: Instrument, query: URLSearchParams, list: unknown[], receivedAt: number) {
    const period = query.get('period') || RATIO_PERIOD;
    for (const item of list) {
      this.sound(() => {
        const [ts, sent] = array(item, 'data[]');
        const ratio = notNegative(sent, 'ratio');
        const { long, short } = sharesOfRatio(ratio);
        const row = { ...this.source(instrument, timeOf(ts, 'ts'), receivedAt), period, long_short_ratio: ratio };
        if (path === TOP_POSITION_PATH) {
          this.out.row('lsr_top_position', { ...row, long_position_ratio: long, short_position_ratio: short });
        } else {
          this.out.row('lsr_all_account', { ...row, long_account_ratio: long, short_account_ratio: short });
        }
      });
    }
  }

  /** Learns the units of contracts. Lines of what is not traded yet leave them empty. */
  private instruments(list: unknown[]): void {
    this.records(list, 'data[]', (entry) => {
      const { instId, instType, ctVal } = entry;
      if (typeof instId !== 'string') throw new ValueError(`instruments: instId is ${JSON.stringify(instId)}`);
      if (instType === 'SPOT' || instType === 'MARGIN') return;
      if (isAbsent(ctVal)) {
        this.out.event({ kind: 'ignored', reason: 'instrument without units' });
        return;
      }
      this.units.set(instId, unitsOf(entry, instId));
      this.unitsWanted.delete(instId);
    });
  }

  private applied(market: Market, sampler: BookSampler, update: BookUpdate, bids: Level[], asks: Level[]): void {
    if (!sampler.due(update.time)) return;
    const units = this.unitsOf(market.instrument);
    const row = orderbookRow(market.instrument, this.options.dataSource, {
      ...update,
      bids: inBaseUnits(bids, units),
      asks: inBaseUnits(asks, units),
      verified: update.checksum !== 0,
    });
    if (row === null) this.out.event({ kind: 'ignored', reason: 'book with an empty side' });
    else this.out.row('orderbook', row);
  }

  private due(type: DataType, instrument: Instrument, time: number): boolean {
    if (this.minutes.due(`${type} ${instrument.instrument}`, time)) return true;
    this.out.event({ kind: 'ignored', reason: `${type} within a minute that has one` });
    return false;
  }

  /** True for what an answer or a channel for all instruments tells of others than those that were asked for. */
  private unwanted(instrument: Instrument): boolean {
    if (this.configured.size === 0 || this.configured.has(instrument.instrument)) return false;
    this.out.event({ kind: 'ignored', reason: 'instrument that was not asked for' });
    return true;
  }

  private source({ exchange, market_type, symbol, instrument }: Instrument, timestamp: number, receivedAt: number) {
    const { dataSource } = this.options;
    return { exchange, market_type, symbol, instrument, timestamp, received_at: receivedAt, data_source: dataSource };
  }

  /** Null for spot. A contract without units gives no row: its size would be a wrong number of coins. */
  private unitsOf(instrument: Instrument): Units | null {
    if (instrument.market_type === 'spot') return null;
    const units = this.units.get(instrument.instrument);
    if (units) return units;
    if (this.unitsWanted.size < MAX_UNIT_REQUESTS) this.unitsWanted.set(instrument.instrument, instrument);
    throw new ValueError(`${instrument.instrument}: no instrument list has told what a contract is worth`);
  }

  private coin(ccy: string | null): Instrument {
    if (this.exchange === 'okx_spot' || !ccy) throw new ValueError(`ratio of a coin: ccy is ${JSON.stringify(ccy)}`);
    return { exchange: this.exchange, market_type: 'perpetual', symbol: ccy.toUpperCase(), instrument: ccy };
  }

  private instrumentOf(id: unknown): Instrument {
    if (typeof id !== 'string') throw new ValueError(`instId is ${JSON.stringify(id)}`);
    return this.markets.get(id)?.instrument ?? okxInstrument(this.exchange, id);
  }

  private marketOf(id: unknown): Market {
    const instrument = this.instrumentOf(id);
    return this.markets.get(instrument.instrument) ?? this.addMarket(instrument);
  }

  private addMarket(instrument: Instrument): Market {
    const sampler = new BookSampler(this.options.orderbookIntervalMs);
    const market: Market = {
      instrument,
      book: new OkxBook({
        applied: (update, book) => {
          const { bids, asks } = book.top(PUBLISHED_LEVELS);
          this.applied(market, sampler, update, bids, asks);
        },
        resync: (cause, last, update) =>
          this.out.event({ kind: 'resync', instrument, cause, last, next: update?.id ?? null }),
        resubscribe: () => this.out.event({ kind: 'resubscribe', channels: [`books:${instrument.instrument}`] }),
      }),
    };
    this.markets.set(instrument.instrument, market);
    return market;
  }
}

/** The name that a subscription's argument stands for. */
function channelName(arg: WireRecord): string {
  const subject = arg.instId ?? arg.instFamily ?? arg.instType ?? '';
  return `${String(arg.channel)}:${String(subject)}`;
}

function bookUpdate(data: WireRecord, snapshot: boolean, receivedAt: number): BookUpdate {
  const time = timeOf(data.ts, 'ts');
  const sequenced = data.seqId !== undefined;
  const checksum = data.checksum ?? 0;
  if (typeof checksum !== 'number' || !Number.isInteger(checksum)) {
    throw new ValueError(`checksum is ${JSON.stringify(checksum)}`);
  }
  // A snapshot follows nothing, which the venue writes as -1.
  const prev = snapshot || !sequenced || data.prevSeqId === -1 ? null : safeInteger(data.prevSeqId, 'prevSeqId');
  return {
    snapshot,
    id: sequenced ? safeInteger(data.seqId, 'seqId') : time,
    prev,
    sequenced,
    time,
    receivedAt,
    checksum,
    bids: sortedLevels(data.bids, 1, 'bids'),
    asks: sortedLevels(data.asks, -1, 'asks'),
  };
}

function inBaseUnits(levels: Level[], units: Units | null): Level[] {
  if (units === null) return levels;
  return levels.map(([price, size]) => [price, baseQuantity(size, price, units)]);
}

/** OKX leaves out what it has no value for, or sends an empty text; `Number('')` would make a 0 of it. */
function isAbsent(value: unknown): boolean {
  return value === undefined || value === null || value === '';
}

/** OKX sends times as text. */
function timeOf(value: unknown, what: string): number {
  return eventTime(typeof value === 'string' && /^\d{13}$/.test(value) ? Number(value) : value, what);
}

function optionalTime(value: unknown, what: string): number | null {
  return isAbsent(value) ? null : timeOf(value, what);
}

function notNegative(value: unknown, what: string): string {
  const text = plainDecimal(value);
  if (text.startsWith('-')) throw new ValueError(`${what} is negative: ${text}`);
  return text;
}

function sideOf(value: unknown): 'buy' | 'sell' {
  if (value === 'buy' || value === 'sell') return value;
  throw new ValueError(`side is ${JSON.stringify(value)}`);
}

function tradeIdOf(value: unknown): string {
  if (typeof value === 'string' && /^\d{1,20}$/.test(value)) return value;
  throw new ValueError(`tradeId is ${JSON.stringify(value)}`);
}
