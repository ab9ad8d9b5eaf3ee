/**
 * Binance USDⓈ-M beside trades and books: funding, open interest, liquidations, long/short ratios.
 *
 * Sources: USDⓈ-M API documents and the stream notices of 2026-04 and 2026-06. Liquidations are samples: at most one per
 * symbol and second is sent, so they are never totals.
 */
import { liquidationId, subtract } from '../lib/arithmetic.ts';
import { plainDecimal } from '../lib/decimal.ts';
import type { FeedOutput, Instrument, Poll } from '../lib/exchange.ts';
import { type DataType, type RowSource, ValueError } from '../lib/rows.ts';
import type { MinuteSampler } from '../lib/sampling.ts';
import { array, eventTime, positive, record, type WireRecord } from '../lib/wire.ts';

/** What a symbol that `fundingInfo` does not list is settled at. */
const USUAL_FUNDING_HOURS = '8';
/** Ratios are published some seconds after their period; a minute later they are there. */
const RATIO_CRON = '40 */5 * * * *';
const OPEN_INTEREST_CRON = '1 * * * * *';
const FUNDING_INFO_CRON = '30 7 * * * *';
/** Rows that a ratio poll asks for: a missed period or two is made up for. */
const RATIO_ROWS = 6;
/** How far the two shares of a ratio may miss 1 by the venue's own rounding to four digits. */
const SHARE_ROUNDING = 0.001;

export const TOP_POSITION = '/futures/data/topLongShortPositionRatio';
export const ALL_ACCOUNT = '/futures/data/globalLongShortAccountRatio';
const OPEN_INTEREST = '/fapi/v1/openInterest';
export const PAST_OPEN_INTEREST = '/futures/data/openInterestHist';
export const SETTLED_RATES = '/fapi/v1/fundingRate';
const PREMIUM_INDEX = '/fapi/v1/premiumIndex';
const FUNDING_INFO = '/fapi/v1/fundingInfo';

/** Without it the first rows would not know their funding interval; they do without when the host does not answer. */
export const READING_LISTS = [{ path: FUNDING_INFO, weight: 1, optional: true }];

/** What the readings need from the feed around them. */
export interface ReadingContext {
  /** Stream, arrival and time of a row about this instrument id; null when it is not one that was asked for. */
  source(id: string, time: number, receivedAt: number): RowSource | null;
  sampler: MinuteSampler;
  out(): FeedOutput;
  /** Runs `work` on each item of an answer; one that is not sound is told, and does not cost the others. */
  each(items: unknown[], work: (item: unknown) => void): void;
}

/** Polls of all USDⓈ-M readings that have no stream. */
export function readingPolls(instruments: Instrument[]): Poll[] {
  const perInstrument = instruments.flatMap((instrument): Poll[] => {
    const symbol = encodeURIComponent(instrument.instrument);
    const ratio = `?symbol=${symbol}&period=5m&limit=${RATIO_ROWS}`;
    return [
      {
        type: 'open_interest',
        instrument,
        path: `${OPEN_INTEREST}?symbol=${symbol}`,
        weight: 1,
        cron: OPEN_INTEREST_CRON,
      },
      { type: 'lsr_top_position', instrument, path: TOP_POSITION + ratio, weight: 1, cron: RATIO_CRON },
      { type: 'lsr_all_account', instrument, path: ALL_ACCOUNT + ratio, weight: 1, cron: RATIO_CRON },
    ];
  });
  return [
    { type: 'funding_rate', instrument: null, path: FUNDING_INFO, weight: 1, cron: FUNDING_INFO_CRON },
    ...perInstrument,
  ];
}

export class Readings {
  /** Hours between settlements by instrument id; null until `fundingInfo` was read. */
  private fundingHours: Map<string, string> | null = null;

  constructor(private readonly context: ReadingContext) {}

  /** `markPriceUpdate`: r is the rate of the period that ends at T; P is an estimated settle price and no rate. */
  markPrice(data: WireRecord, receivedAt: number): void {
    if (data.r === '') this.context.out().event({ kind: 'ignored', reason: 'markPriceUpdate of a delivery contract' });
    else this.funding(data.s, data.E, data.r, data.T, data.p, data.i, receivedAt);
  }

  /** `forceOrder`: what the liquidating order did, by its average price and filled quantity. */
  forceOrder(data: WireRecord, receivedAt: number): void {
    const order = record(data.o, 'o');
    if (data.st === 2 || order.st === 2) {
      this.context.out().event({ kind: 'ignored', reason: 'COIN-M' });
      return;
    }
    const time = eventTime(order.T, 'o.T');
    const source = this.source(order.s, time, receivedAt);
    if (source === null) return;
    if (order.S !== 'BUY' && order.S !== 'SELL') throw new ValueError(`forceOrder: S is ${JSON.stringify(order.S)}`);
    const side = order.S === 'BUY' ? 'buy' : 'sell';
    const price = positive(order.ap ?? order.p, 'o.ap');
    const quantity = positive(order.z ?? order.q, 'o.z');
    this.context.out().row('liquidation', {
      ...source,
      liquidation_id: liquidationId(source.instrument, side, price, quantity, time),
      side,
      price,
      quantity,
    });
  }

  /** REST answers of these types. @returns false when the path is none of them */
  rest(path: string, query: URLSearchParams, body: unknown, receivedAt: number): boolean {
    if (path === OPEN_INTEREST) this.openInterest(record(body, 'answer'), receivedAt);
    else if (path === PREMIUM_INDEX)
      for (const each of listOf(body)) this.premiumIndex(record(each, 'premiumIndex'), receivedAt);
    else if (path === FUNDING_INFO) this.fundingInfo(array(body, 'fundingInfo'));
    else if (path === SETTLED_RATES) this.settledRates(array(body, 'answer'), receivedAt);
    else if (path === PAST_OPEN_INTEREST) this.pastOpenInterest(array(body, 'answer'), receivedAt);
    else if (path === TOP_POSITION) this.ratios('lsr_top_position', body, query, receivedAt);
    else if (path === ALL_ACCOUNT) this.ratios('lsr_all_account', body, query, receivedAt);
    else return false;
    return true;
  }

  /** `lastFundingRate` is the running estimate for `nextFundingTime`, in spite of its name. */
  private premiumIndex(row: WireRecord, receivedAt: number): void {
    if (row.lastFundingRate === '') return;
    this.funding(
      row.symbol,
      row.time,
      row.lastFundingRate,
      row.nextFundingTime,
      row.markPrice,
      row.indexPrice,
      receivedAt,
    );
  }

  private funding(
    id: unknown,
    at: unknown,
    rate: unknown,
    next: unknown,
    mark: unknown,
    index: unknown,
    receivedAt: number,
  ): void {
    const time = eventTime(at, 'E');
    const source = this.source(id, time, receivedAt);
    if (source === null || !this.due('funding_rate', source)) return;
    this.context.out().row('funding_rate', {
      ...source,
      funding_rate: plainDecimal(rate),
      funding_time: null,
      next_funding_time: next === 0 ? null : eventTime(next, 'T'),
      funding_interval_hours: this.hoursOf(source.instrument),
      mark_price: optional(mark),
      index_price: optional(index),
    });
  }

  /** Rates that were paid. There is one in some hours, so that nothing is to be sampled. `fundingTime` may be some ms after the hour. */
  private settledRates(rows: unknown[], receivedAt: number): void {
    this.context.each(rows, (each) => {
      const { symbol, fundingRate, fundingTime, markPrice } = record(each, 'answer[]');
      const time = eventTime(fundingTime, 'fundingTime');
      const source = this.source(symbol, time, receivedAt);
      if (source === null) return;
      this.context.out().row('funding_rate', {
        ...source,
        funding_rate: plainDecimal(fundingRate),
        funding_time: time,
        next_funding_time: null,
        funding_interval_hours: this.hoursOf(source.instrument),
        mark_price: optional(markPrice),
        index_price: null,
      });
    });
  }

  /** Null before the list was read: then nobody knows. */
  private hoursOf(instrument: string): string | null {
    return this.fundingHours === null ? null : (this.fundingHours.get(instrument) ?? USUAL_FUNDING_HOURS);
  }

  private fundingInfo(list: unknown[]): void {
    const hours = new Map<string, string>();
    for (const each of list) {
      const { symbol, fundingIntervalHours } = record(each, 'fundingInfo[]');
      if (typeof symbol === 'string') hours.set(symbol, positive(fundingIntervalHours, 'fundingIntervalHours'));
    }
    this.fundingHours = hours;
  }

  private openInterest(answer: WireRecord, receivedAt: number): void {
    const source = this.source(answer.symbol, eventTime(answer.time, 'time'), receivedAt);
    if (source === null || !this.due('open_interest', source)) return;
    this.context.out().row('open_interest', {
      ...source,
      open_interest: plainDecimal(answer.openInterest),
      open_interest_value: null,
      contracts: null,
    });
  }

  /** One reading in each period, at its very beginning: none of them is one too many. */
  private pastOpenInterest(rows: unknown[], receivedAt: number): void {
    this.context.each(rows, (each) => {
      const { symbol, sumOpenInterest, sumOpenInterestValue, timestamp } = record(each, 'answer[]');
      const source = this.source(symbol, periodTime(timestamp), receivedAt);
      if (source === null) return;
      this.context.out().row('open_interest', {
        ...source,
        open_interest: plainDecimal(sumOpenInterest),
        open_interest_value: optional(sumOpenInterestValue),
        contracts: null,
      });
    });
  }

  /** `longAccount` and `shortAccount` carry these names for positions, too. The shares are made to add to exactly 1. */
  private ratios(
    type: 'lsr_top_position' | 'lsr_all_account',
    body: unknown,
    query: URLSearchParams,
    receivedAt: number,
  ): void {
    const period = query.get('period');
    if (!period) throw new ValueError('a ratio answer without period= in its path');
    this.context.each(array(body, 'answer'), (each) => {
      const { symbol, longShortRatio, longAccount, shortAccount, timestamp } = record(each, 'answer[]');
      const source = this.source(symbol, periodTime(timestamp), receivedAt);
      if (source === null) return;
      const long = plainDecimal(longAccount);
      if (Math.abs(Number(long) + Number(plainDecimal(shortAccount)) - 1) > SHARE_ROUNDING) {
        throw new ValueError(`shares ${long} and ${String(shortAccount)} do not add to 1`);
      }
      const short = subtract('1', long);
      const common = { ...source, period, long_short_ratio: plainDecimal(longShortRatio) };
      if (type === 'lsr_top_position') {
        this.context.out().row(type, { ...common, long_position_ratio: long, short_position_ratio: short });
      } else this.context.out().row(type, { ...common, long_account_ratio: long, short_account_ratio: short });
    });
  }

  private source(id: unknown, time: number, receivedAt: number): RowSource | null {
    if (typeof id !== 'string' || id === '') throw new ValueError(`symbol is ${JSON.stringify(id)}`);
    const source = this.context.source(id, time, receivedAt);
    if (source === null) this.context.out().event({ kind: 'ignored', reason: 'symbol not asked for' });
    return source;
  }

  private due(type: DataType, source: RowSource): boolean {
    return this.context.sampler.due(`${type} ${source.instrument}`, source.timestamp);
  }
}

/** Time of a row of /futures/data: a number in live answers, a text in the documents. */
function periodTime(timestamp: unknown): number {
  return eventTime(typeof timestamp === 'string' ? Number(timestamp || Number.NaN) : timestamp, 'timestamp');
}

function listOf(body: unknown): unknown[] {
  return Array.isArray(body) ? body : [body];
}

/** Absent values come as "" or not at all. */
function optional(value: unknown): string | null {
  return value === undefined || value === '' || value === null ? null : plainDecimal(value);
}
