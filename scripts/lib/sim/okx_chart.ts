/** OKX's candles and tickers: of its markets from their trades, and before these, and of coins without a market, from a price that is a function of time. */

import { OKX_BARS } from './intervals.ts';
import { decimalText, type Market } from './market.ts';
import { priceText } from './okx_books.ts';
import { type OkxInstrument, type OkxProduct, plain, sizeText } from './okx_instruments.ts';
import { cursorOf, emptyParameter, limitOf, NO_INSTRUMENT, okxOk, wrongParameter } from './okx_rest.ts';
import type { Bar, PricePath } from './price_path.ts';
import type { TradeTape } from './trade_tape.ts';
import type { RestAnswer, RestRequest } from './venue.ts';

const MINUTE_MS = 60_000;
const DAY_MS = 86_400_000;
/** `/candles` tells so many of the newest bars, `/history-candles` all of about a year. */
const NEAR_BARS = 1440;
const PAST_MS = 366 * DAY_MS;
const LIMIT = { usual: 100, most: 300 };

/** A market of the simulator, its trades, and when it began. */
export interface Traded {
  readonly market: Market;
  readonly tape: TradeTape;
  /** ms. */
  readonly started: number;
}

/** One instrument through time. */
export class OkxChart {
  /** @param traded null where the price is a function of time for ever */
  constructor(
    readonly listed: OkxInstrument,
    private readonly path: PricePath,
    private readonly traded: Traded | null,
  ) {}

  /** What happened from `from` until `to`, which is not included; both are boundaries of minutes, but for the present as an end. */
  bar(from: number, to: number): Bar {
    const { path, traded } = this;
    if (traded === null) return path.bar(from, to);
    const { tape, started } = traded;
    const live = to > started ? tape.bar(from, to) : null;
    if (from >= started) return live ?? flat(from, this.priceBefore(from));
    const past = path.bar(from, Math.min(to, started));
    if (live === null) return past;
    return {
      ...past,
      high: Math.max(past.high, live.high),
      low: Math.min(past.low, live.low),
      close: live.close,
      quantity: past.quantity + live.quantity,
      worth: past.worth + live.worth,
    };
  }

  /** The answer to a request for candles. */
  candles(query: URLSearchParams, isHistory: boolean, now: number): RestAnswer {
    const bar = OKX_BARS[query.get('bar') || '1m'];
    if (bar === undefined) return wrongParameter('bar');
    const [after, before] = [cursorOf(query, 'after'), cursorOf(query, 'before')];
    if (after === null) return wrongParameter('after');
    if (before === null) return wrongParameter('before');
    const [length, shift] = bar;
    const newest = startOf(now, length, shift);
    const oldest = isHistory ? startOf(now - PAST_MS, length, shift) + length : newest - (NEAR_BARS - 1) * length;
    // Both cursors leave out the time that they name.
    const last = after === undefined ? newest : Math.min(newest, startOf(after - 1, length, shift));
    const first = before === undefined ? oldest : Math.max(oldest, startOf(before, length, shift) + length);
    const count = Math.min(limitOf(query, LIMIT.usual, LIMIT.most), Math.floor((last - first) / length) + 1);
    const starts = Array.from({ length: Math.max(0, count) }, (_, place) => last - place * length);
    const bars = starts.reverse().map((start) => this.bar(start, Math.min(start + length, now + 1)));
    return okxOk(bars.reverse().map((each) => this.row(each, each.start + length <= now)));
  }

  /** The line of `/ticker`. The last day is counted by whole minutes. */
  ticker(now: number): string {
    const { listed } = this;
    const { product, baseDecimals } = listed;
    const day = this.bar(Math.floor((now - DAY_MS) / MINUTE_MS) * MINUTE_MS, now + 1);
    const [last, lastSize, [ask, askSize], [bid, bidSize]] = this.present(now);
    const inQuote = this.worthText(day.worth);
    return JSON.stringify({
      instType: product === 'spot' ? 'SPOT' : 'SWAP',
      instId: listed.instrument,
      last: this.price(last),
      lastSz: sizeText(listed, lastSize),
      askPx: ask,
      askSz: askSize,
      bidPx: bid,
      bidSz: bidSize,
      open24h: this.price(day.open),
      high24h: this.price(day.high),
      low24h: this.price(day.low),
      volCcy24h: product === 'spot' ? inQuote : plain(day.quantity, baseDecimals),
      vol24h: sizeText(listed, day.quantity),
      ts: String(now),
      sodUtc0: this.price(this.dayOpen('1Dutc', now)),
      sodUtc8: this.price(this.dayOpen('1D', now)),
    });
  }

  /** The price of the last trade before `time`, in printed units; a boundary of minutes, or past the present. */
  priceBefore(time: number): number {
    const { path, traded } = this;
    if (traded === null) return path.priceAt(time);
    return traded.tape.closeBefore(time) ?? path.priceAt(Math.min(time, traded.started));
  }

  /** A price as the venue prints it. */
  price(units: number): string {
    return plain(units, this.listed.priceDecimals);
  }

  private row({ start, open, high, low, close, quantity, worth }: Bar, isFinished: boolean): string {
    const { listed } = this;
    const prices = [open, high, low, close].map((price) => this.price(price));
    const inQuote = this.worthText(worth);
    const inBase = plain(quantity, listed.baseDecimals);
    const volumes = [sizeText(listed, quantity), listed.product === 'spot' ? inQuote : inBase, inQuote];
    return `["${[start, ...prices, ...volumes, isFinished ? 1 : 0].join('","')}"]`;
  }

  private worthText(worth: number): string {
    const { priceDecimals, baseDecimals } = this.listed;
    const decimals = priceDecimals + baseDecimals;
    return decimals < 0 ? plain(worth, decimals) : decimalText(Math.round(worth), decimals);
  }

  /** The open of the day under way, as its candle has it. */
  private dayOpen(name: '1D' | '1Dutc', now: number): number {
    const [length, shift] = OKX_BARS[name] as readonly [number, number];
    const start = startOf(now, length, shift);
    const { path, traded } = this;
    if (traded === null || start < traded.started) return path.priceAt(start);
    return traded.tape.openOf(start, now + 1) ?? this.priceBefore(start);
  }

  /** The last trade, and the best ask and bid. Without a book they stand a step beside the price. */
  private present(
    now: number,
  ): [last: number, size: number, ask: [price: string, size: string], bid: [price: string, size: string]] {
    const { listed, path, traded } = this;
    const last = this.priceBefore(now + 1);
    if (traded === null) {
      const size = path.quantityAt(now + 1);
      return [last, size, [this.price(last + 1), sizeText(listed, size)], [this.price(last), sizeText(listed, size)]];
    }
    const { market, tape } = traded;
    const { bestAsk, bestBid } = market;
    return [
      last,
      tape.last?.quantity ?? path.quantityAt(traded.started),
      [priceText(market, bestAsk), sizeText(listed, market.askAt(bestAsk))],
      [priceText(market, bestBid), sizeText(listed, market.bidAt(bestBid))],
    ];
  }
}

/** All charts of one product of the venue. */
export class OkxCharts {
  private readonly byId: ReadonlyMap<string, OkxChart>;

  constructor(
    private readonly product: OkxProduct,
    charts: readonly OkxChart[],
    private readonly clock: () => number,
  ) {
    this.byId = new Map(charts.map((chart) => [chart.listed.instrument, chart]));
  }

  /** Undefined for an instrument that is none. */
  of(instrument: string): OkxChart | undefined {
    return this.byId.get(instrument);
  }

  /** The answer to a request for candles or tickers; undefined when it is for something else. */
  rest({ path, query }: RestRequest): RestAnswer | undefined {
    const now = Math.floor(this.clock());
    switch (path) {
      case '/api/v5/market/candles':
        return this.ofInstrument(query, (chart) => chart.candles(query, false, now));
      case '/api/v5/market/history-candles':
        return this.ofInstrument(query, (chart) => chart.candles(query, true, now));
      case '/api/v5/market/ticker':
        return this.ofInstrument(query, (chart) => okxOk([chart.ticker(now)]));
      case '/api/v5/market/tickers':
        return this.tickers(query, now);
      default:
        return undefined;
    }
  }

  private tickers(query: URLSearchParams, now: number): RestAnswer {
    const type = query.get('instType');
    if (!type) return emptyParameter('instType');
    if (!['SPOT', 'SWAP', 'FUTURES', 'OPTION'].includes(type)) return wrongParameter('instType');
    const isOurs = type === (this.product === 'spot' ? 'SPOT' : 'SWAP');
    const family = query.get('instFamily') ?? query.get('uly');
    const found = [...this.byId.values()].filter(
      ({ listed }) => isOurs && (family === null || family === '' || family === listed.symbol),
    );
    return okxOk(found.map((chart) => chart.ticker(now)));
  }

  private ofInstrument(query: URLSearchParams, answer: (chart: OkxChart) => RestAnswer): RestAnswer {
    const id = query.get('instId');
    if (!id) return emptyParameter('instId');
    const chart = this.byId.get(id);
    return chart ? answer(chart) : NO_INSTRUMENT;
  }
}

function startOf(time: number, length: number, shift: number): number {
  return Math.floor((time + shift) / length) * length - shift;
}

/** A bar without a trade stands at the last price. */
function flat(start: number, price: number): Bar {
  return { start, open: price, high: price, low: price, close: price, quantity: 0, worth: 0 };
}
