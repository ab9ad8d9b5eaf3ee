/**
 * One perpetual of Hyperliquid over its seeded market: blocks of trades, whole books, best prices, and its context.
 *
 * Trades are told block by block, all of a block in one message and at the block's time. Prices have at most five significant
 * digits, and every number at least one decimal.
 */
import { createHash } from 'node:crypto';
import type { StreamIdentity } from './ledger.ts';
import { type Grid, type Market, type MarketSink, seedFor, type Trade } from './market.ts';
import { OnceLedger } from './once_ledger.ts';
import type { Perpetual } from './perpetual.ts';
import type { FrameKey, Listed, Peer, Topic, Wire } from './venue.ts';

export const EXCHANGE = 'hyperliquid';
/** All perpetuals of the venue itself are quoted in it. */
const QUOTE = 'USDC';

/** How often the venue's chain closes a block, about. */
export const BLOCK_MS = 100;
/** Whole books and fast ones, at the usual rate of changes or below; with more of them books come more often in proportion. */
const BOOK_EVERY_MS = 5000;
const FAST_BOOK_EVERY_MS = 500;
const USUAL_DIFFS_PER_SECOND = 10;
const BOOK_LEVELS = 20;
const FAST_BOOK_LEVELS = 5;
/** Trades in the first message of a subscription, and in the answer to `recentTrades`. */
const BACKLOG_TRADES = 30;
const RECENT_TRADES = 10;
/** Keys that may be written again: those of the backlog and of the last book. */
const KEYS_REMEMBERED = 10_000;
/** The funding of an hour is an eighth of what the venues with eight-hour periods tell. */
const HOURS_PER_RATE = 8;
const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;
/** Settlements are hourly since this one, in ms; nothing older is told. */
const FIRST_SETTLEMENT_MS = 1_686_186_000_000;
const FUNDING_ROWS = 500;
const CANDLE_ROWS = 5000;
/** A settlement is told within this time after the hour. */
const SETTLEMENT_SPREAD_MS = 200;

/** Decimals of sizes; a coin that is not well known has as many as make its smallest size worth about a cent to a dollar. */
const SIZE_DECIMALS: Readonly<Record<string, number>> = { BTC: 5, ETH: 4, SOL: 2, BNB: 3, XRP: 0, DOGE: 0 };
/** The venue allows prices six decimals less those of the size, and five significant digits. */
const PRICE_DECIMALS = 6;
const SIGNIFICANT_DIGITS = 5;

/** The venue's grid of a coin that costs about `price` dollars. */
export function gridOf(coin: string, price: number): Grid {
  const magnitude = Math.floor(Math.log10(price));
  const quantityDecimals = SIZE_DECIMALS[coin] ?? Math.max(0, magnitude + 1);
  const finest = Math.max(0, SIGNIFICANT_DIGITS - 1 - magnitude);
  return {
    priceDecimals: Math.max(0, Math.min(PRICE_DECIMALS - quantityDecimals, finest)),
    tickUnits: 1,
    quantityDecimals,
    pricePadding: '',
    quantityPadding: '',
  };
}

/** A coin's perpetual under the common names. */
export function listed(coin: string, { priceDecimals, quantityDecimals }: Grid): Listed {
  return {
    symbol: `${coin}-${QUOTE}`,
    instrument: coin,
    base: coin,
    quote: QUOTE,
    tickSize: number(10 ** -priceDecimals, priceDecimals),
    stepSize: number(10 ** -quantityDecimals, quantityDecimals),
    pricePrecision: priceDecimals,
    quantityPrecision: quantityDecimals,
  };
}

/** How a coin's streams stand in the ledger. */
export function identity(coin: string, dataType: string): StreamIdentity {
  const symbol = `${coin}-${QUOTE}`;
  return { exchange: EXCHANGE, market_type: 'perpetual', symbol, data_type: dataType, instrument: coin };
}

export interface CoinOptions {
  readonly coin: string;
  readonly grid: Grid;
  readonly market: Market;
  readonly perpetual: Perpetual;
  readonly wire: Wire;
  readonly seed: number;
  readonly diffsPerSecond: number;
  /** Trades that the market keeps. */
  readonly history: number;
  /** Told of each trade, with the time of its block. */
  readonly traded: (trade: Trade, time: number) => void;
}

export class Coin implements MarketSink {
  readonly name: string;
  readonly listed: Listed;
  readonly market: Market;
  readonly trades: Topic;
  readonly books: readonly [whole: Topic, fast: Topic];
  readonly best: Topic;
  readonly context: Topic;
  readonly topics: readonly Topic[];
  private readonly wire: Wire;
  /** Trades of blocks that are not told yet, and the newest one that is. */
  private pending: Trade[] = [];
  private lastTold = -1;
  /** First messages of subscriptions that a fault lets wait for the next message. */
  private heldBacklogs: Topic[] = [];
  /** The newest state of the book that has a time, and the states last sent as books. */
  private stamped = { updateId: -1, time: 0 };
  private readonly sentBooks: [whole: number, fast: number] = [-1, -1];
  private isTopNew = false;

  constructor(private readonly options: CoinOptions) {
    const { coin, grid, market, wire, diffsPerSecond } = options;
    this.name = coin;
    this.wire = wire;
    this.market = market;
    this.listed = listed(coin, grid);
    const { symbol } = this.listed;
    const once = (dataType: string): OnceLedger =>
      new OnceLedger(wire.ledger.stream(identity(coin, dataType)), KEYS_REMEMBERED);
    this.trades = wire.topic(`trades:${coin}`, 'trade', symbol, once('trade'));
    this.books = [
      wire.topic(`l2Book:${coin}`, 'orderbook_update', symbol, once('orderbook_update')),
      // Five levels under the time of a whole book: nothing that could be kept beside it.
      wire.topic(`l2Book:${coin}:fast`, 'book_ticker', symbol, null),
    ];
    this.best = wire.topic(`bbo:${coin}`, 'book_ticker', symbol, null);
    this.context = wire.topic(`activeAssetCtx:${coin}`, 'ticker', symbol, null, { counter: 'reading_frames' });
    this.topics = [this.trades, ...this.books, this.best, this.context];
    const pace = Math.min(USUAL_DIFFS_PER_SECOND / diffsPerSecond, 1);
    market.connect(
      this,
      [BOOK_EVERY_MS, FAST_BOOK_EVERY_MS].map((everyMs) => ({
        everyMs: everyMs * pace,
        // A whole book needs no time to be gathered in: a new reader gets the next one, not the one after it.
        wanted: () => true,
      })),
    );
  }

  trade(trade: Trade): void {
    this.pending.push(trade);
    this.options.traded(trade, blockOf(trade));
  }

  /** The venue tells single fills. */
  aggregate(): void {}

  top(): void {
    this.isTopNew = true;
  }

  diff(channel: number, { time }: { time: number }): void {
    this.tellBook(channel as 0 | 1, time);
  }

  /** Tells all blocks that ended by `end`, oldest first, and the best prices if they moved. */
  closeBlocks(now: number, end = now): void {
    const { pending } = this;
    let from = 0;
    while (from < pending.length) {
      const at = blockOf(pending[from] as Trade);
      if (at + BLOCK_MS > end) break;
      let to = from + 1;
      while (to < pending.length && blockOf(pending[to] as Trade) === at) to++;
      this.tellTrades(pending.slice(from, to));
      from = to;
    }
    if (from > 0) this.pending = pending.slice(from);
    if (!this.isTopNew) return;
    this.isTopNew = false;
    if (this.best.subscribers.size > 0) this.wire.publish(this.best, this.market.updateId, this.bestText(now));
  }

  /** Tells everything that is not told yet, so that subscribers and the market agree. */
  finish(now: number): void {
    this.closeBlocks(now, Number.POSITIVE_INFINITY);
    this.market.flush();
    for (const channel of [0, 1] as const) {
      const isTold = this.sentBooks[channel] === this.market.updateId;
      if (!isTold && (this.books[channel] as Topic).subscribers.size > 0) this.tellBook(channel, now);
    }
    this.releaseBacklogs();
  }

  /** The first messages of a new subscription: past trades, or how things stand. Faults hold for them as for all others. */
  welcome(peer: Peer, topic: Topic, now: number): void {
    // A stream of one reader, so that the others do not get it.
    const own: Topic = { ...topic, subscribers: new Set([peer]), held: null };
    const send = (key: FrameKey, text: string): void => this.wire.publish(own, key, text);
    if (topic === this.trades) {
      const past = this.told(BACKLOG_TRADES);
      if (past.length > 0)
        send(
          past.map(({ id }) => this.tid(id)),
          this.tradesText(past),
        );
    } else if (topic === this.best) {
      send(this.market.updateId, this.bestText(now));
    } else if (topic === this.context) {
      send(now, this.contextText(now));
    } else {
      const isFast = topic !== this.books[0];
      const time = this.stamp(now);
      send(time, frame('l2Book', this.bookText(time, isFast)));
    }
    if (own.held !== null) this.heldBacklogs.push(own);
  }

  /** The whole book as data; the time stands for one state of it only. */
  book(now: number): string {
    return this.bookText(this.stamp(now), false);
  }

  recentTrades(): string[] {
    return this.told(RECENT_TRADES)
      .reverse()
      .map((trade) => this.tradeText(trade));
  }

  mid(): string {
    const { priceDecimals } = this.options.grid;
    const [bid, ask] = [this.market.bestBid, this.market.bestAsk].map((index) => Number(this.market.priceText(index)));
    return number(((bid as number) + (ask as number)) / 2, priceDecimals + 1);
  }

  contextData(now: number): string {
    const { perpetual, grid } = this.options;
    const { market } = this;
    const at = Math.floor(now / 1000) * 1000;
    const decimals = grid.priceDecimals + 1;
    const { mark, index, rate } = perpetual.mark(at);
    const held = perpetual.openInterest(at);
    // As much is traded in a day as is held, about.
    const traded = Number(perpetual.openInterest(at - DAY_MS));
    return JSON.stringify({
      funding: number(Number(rate) / HOURS_PER_RATE, 10),
      openInterest: number(Number(held), grid.quantityDecimals),
      prevDayPx: number(Number(perpetual.mark(at - DAY_MS).mark), grid.priceDecimals),
      dayNtlVlm: number(traded * Number(mark), 10),
      premium: number(premiumOf(mark, index), 10),
      oraclePx: number(Number(index), decimals),
      markPx: number(Number(mark), decimals),
      midPx: this.mid(),
      impactPxs: [market.bestBid, market.bestAsk].map((place) => padded(market.priceText(place))),
      dayBaseVlm: number(traded, grid.quantityDecimals),
    });
  }

  contextText(now: number): string {
    return frame('activeAssetCtx', `{"coin":"${this.name}","ctx":${this.contextData(now)}}`);
  }

  /** Settlements by the hour, told a little after it. */
  funding(from: number, to: number, now: number): string[] {
    const rows: string[] = [];
    const first = Math.ceil(Math.max(from - SETTLEMENT_SPREAD_MS, FIRST_SETTLEMENT_MS) / HOUR_MS) * HOUR_MS;
    for (let hour = first; hour <= Math.min(to, now) && rows.length < FUNDING_ROWS; hour += HOUR_MS) {
      const time = hour + (seedFor(this.options.seed, `settlement ${this.name} ${hour}`) % SETTLEMENT_SPREAD_MS);
      if (time < from || time > Math.min(to, now)) continue;
      const { mark, index, rate } = this.options.perpetual.mark(hour);
      const fundingRate = number(Number(rate) / HOURS_PER_RATE, 10);
      const premium = number(premiumOf(mark, index), 10);
      rows.push(JSON.stringify({ coin: this.name, fundingRate, premium, time }));
    }
    return rows;
  }

  candles(interval: string, width: number, from: number, to: number): string[] {
    const price = (index: number): string => padded(this.market.priceText(index));
    return this.market
      .candles(width, from, to, blockOf)
      .slice(-CANDLE_ROWS)
      .map(({ start, open, high, low, close, quantity, trades }) =>
        JSON.stringify({
          ...{ t: start, T: start + width - 1, s: this.name, i: interval },
          ...{ o: price(open), c: price(close), h: price(high), l: price(low) },
          ...{ v: padded(this.market.quantityText(quantity)), n: trades },
        }),
      );
  }

  private tellTrades(block: readonly Trade[]): void {
    this.lastTold = (block.at(-1) as Trade).id;
    if (this.trades.subscribers.size > 0) {
      const keys = block.map(({ id }) => this.tid(id));
      this.wire.publish(this.trades, keys, this.tradesText(block));
    }
    this.releaseBacklogs();
  }

  private tellBook(channel: 0 | 1, now: number): void {
    const topic = this.books[channel];
    if (topic.subscribers.size === 0) return;
    const time = this.stamp(now);
    this.sentBooks[channel] = this.market.updateId;
    this.wire.publish(topic, time, frame('l2Book', this.bookText(time, channel === 1)));
    this.releaseBacklogs();
  }

  private releaseBacklogs(): void {
    for (const topic of this.heldBacklogs) {
      this.wire.ledger.counters.reordered++;
      this.wire.release(topic);
    }
    this.heldBacklogs = [];
  }

  /** The newest trades of told blocks, oldest first. */
  private told(limit: number): Trade[] {
    if (this.lastTold < 0) return [];
    return this.market.tradesFrom(this.lastTold - limit + 1, limit).filter(({ id }) => id <= this.lastTold);
  }

  /** A time of its own for each state of the book that is told. */
  private stamp(now: number): number {
    const { updateId } = this.market;
    if (updateId !== this.stamped.updateId) {
      this.stamped = { updateId, time: Math.max(Math.floor(now), this.stamped.time + 1) };
    }
    return this.stamped.time;
  }

  /** Ids that do not rise and are below 2^50, one for each trade. */
  private tid(id: number): number {
    return Number((BigInt(id) * TID_FACTOR + BigInt(seedFor(this.options.seed, this.name))) & TID_MASK);
  }

  private tradesText(trades: readonly Trade[]): string {
    return frame('trades', `[${trades.map((trade) => this.tradeText(trade)).join(',')}]`);
  }

  private tradeText(trade: Trade): string {
    const { market, name } = this;
    const { id, price, quantity, buyerIsMaker } = trade;
    // The fills of one order stand in one transaction. Nobody checks these names, but no two are alike.
    const names = createHash('sha512').update(`${name} ${trade.aggregate}`).digest('hex');
    const users = `["0x${names.slice(64, 104)}","0x${names.slice(88)}"]`;
    return (
      `{"coin":"${name}","side":"${buyerIsMaker ? 'A' : 'B'}","px":"${padded(market.priceText(price))}",` +
      `"sz":"${padded(market.quantityText(quantity))}","time":${blockOf(trade)},"hash":"0x${names.slice(0, 64)}",` +
      `"tid":${this.tid(id)},"users":${users}}`
    );
  }

  private bestText(now: number): string {
    const { market, name } = this;
    const bid = this.level(market.bestBid, market.bidAt(market.bestBid));
    const ask = this.level(market.bestAsk, market.askAt(market.bestAsk));
    return frame('bbo', `{"coin":"${name}","time":${this.stamp(now)},"bbo":[${bid},${ask}]}`);
  }

  private bookText(time: number, isFast: boolean): string {
    const { market, name } = this;
    const limit = isFast ? FAST_BOOK_LEVELS : BOOK_LEVELS;
    const bids = market.levels('bid', limit).map((index) => this.level(index, market.bidAt(index)));
    const asks = market.levels('ask', limit).map((index) => this.level(index, market.askAt(index)));
    const fast = isFast ? ',"fast":true' : '';
    return `{"coin":"${name}","time":${time},"levels":[[${bids.join(',')}],[${asks.join(',')}]]${fast}}`;
  }

  private level(index: number, quantity: number): string {
    // How many orders rest there is told, but no market here has orders.
    const orders = 1 + ((index * 31 + quantity) % 9);
    return `{"px":"${padded(this.market.priceText(index))}","sz":"${padded(this.market.quantityText(quantity))}","n":${orders}}`;
  }
}

/** An odd factor turns over all numbers of 50 bits without meeting one twice. */
const TID_FACTOR = 683_790_146_230_321n;
const TID_MASK = (1n << 50n) - 1n;

/** When the block of a trade began, which is its time. */
function blockOf({ time }: Trade): number {
  return Math.floor(time / BLOCK_MS) * BLOCK_MS;
}

function premiumOf(mark: string, index: string): number {
  return (Number(mark) - Number(index)) / Number(index);
}

function frame(channel: string, data: string): string {
  return `{"channel":"${channel}","data":${data}}`;
}

/** A number with at most `decimals` decimals, and no fewer than one. */
function number(value: number, decimals: number): string {
  return padded(value.toFixed(decimals));
}

/** Decimal text without needless zeros, but with one decimal at least: `61837.0`, `0.0219`. */
export function padded(text: string): string {
  if (!text.includes('.')) return `${text}.0`;
  return text.replace(/0+$/, '').replace(/\.$/, '.0');
}
