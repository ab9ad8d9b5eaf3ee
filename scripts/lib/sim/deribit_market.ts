/** One perpetual of Deribit over its seeded market: its channels, and what REST tells of its trades, book and ticker. */
import { BookChannel, notification, SnapshotCount } from './deribit_book.ts';
import { amountText, type Contract, float, identityOf, priceText, tradeIdOf } from './deribit_contracts.ts';
import type { TradeRange } from './deribit_rpc.ts';
import type { DistinctLedger, StreamLedger } from './ledger.ts';
import { type Diff, type Market, type MarketSink, seededRandom, seedFor, type Trade } from './market.ts';
import type { Perpetual } from './perpetual.ts';
import type { Peer, Topic, Wire } from './venue.ts';

/** A trade's flag of a liquidation is there this long after the trade; the venue itself takes about an hour. */
export const LIQUIDATION_DELAY_MS = 5000;

/** Cadences of the channels that need no login, in ms. */
const INTERVALS = { '100ms': 100, agg2: 1000 } as const;
type Interval = keyof typeof INTERVALS;
const INTERVAL_NAMES = Object.keys(INTERVALS) as Interval[];
/** Mark and index are looked at this often; a trade tells those of its moment. */
const MARK_MS = 100;
const HOUR_MS = 3_600_000;
/** Hourly rows per answer. */
const FUNDING_ROWS = 744;
/** Bounds of the price around the mark. */
const PRICE_BAND = 0.015;
/** Below this a moment has no funding of its own. */
const FUNDING_DAMPER = 0.000_05;
/** What became of the price with a trade. */
const TICKS = { plus: 0, zeroPlus: 1, minus: 2, zeroMinus: 3 } as const;

/** Trades of one interval that wait for its end. */
interface Batch {
  readonly topic: Topic;
  readonly everyMs: number;
  readonly sequences: number[];
  readonly rows: string[];
  endsAt: number;
}

export interface DeribitMarketOptions {
  readonly exchange: string;
  readonly contract: Contract;
  readonly market: Market;
  readonly perpetual: Perpetual;
  readonly wire: Wire;
  readonly seed: number;
  /** Depth updates per second of the 100 ms channel. */
  readonly diffsPerSecond: number;
  /** Share of the trades that are liquidations. */
  readonly liquidationShare: number;
  /** Trades that the market keeps. */
  readonly history: number;
}

/** What the venue tells of one perpetual, on its channels and over REST. The ledger counts trades by `trade_seq`. */
export class DeribitMarket implements MarketSink {
  readonly contract: Contract;
  readonly topics: readonly Topic[];
  private readonly market: Market;
  private readonly wire: Wire;
  private readonly batches: readonly Batch[];
  private readonly books: readonly BookChannel[];
  private readonly tickers: readonly { topic: Topic; everyMs: number }[];
  private readonly liquidations: DistinctLedger;
  /** Tick directions by sequence in a ring as long as the market's history. */
  private readonly ticks: Uint8Array;
  private readonly stats: { high: number; low: number; first: number; contracts: number; usd: number };
  private lastPrice: number;
  private lastTick: number = TICKS.plus;
  /** Time of the last event, and up to which tickers were told, ms. */
  private time: number;
  private told: number;
  private marks = { at: 0, mark: 0, index: 0 };

  constructor(private readonly options: DeribitMarketOptions) {
    const { exchange, contract, market, wire, diffsPerSecond } = options;
    this.contract = contract;
    this.market = market;
    this.wire = wire;
    this.time = this.told = Math.floor(wire.clock());
    this.ticks = new Uint8Array(options.history);
    this.lastPrice = Number(market.priceText(market.bestBid));
    this.stats = { high: this.lastPrice, low: this.lastPrice, first: this.lastPrice, contracts: 0, usd: 0 };
    const stream = (dataType: string): StreamLedger => wire.ledger.stream(identityOf(exchange, contract, dataType));
    // The slow channels tell the same trades and other changes again, so that each has a line of its own in the ledger.
    const typeOf = (interval: Interval, dataType: string): string =>
      interval === '100ms' ? dataType : `${dataType}_${interval}`;
    const { instrument, symbol } = contract;
    this.batches = INTERVAL_NAMES.map((interval) => {
      const ledger = stream(typeOf(interval, 'trade'));
      const topic = wire.topic(`trades.${instrument}.${interval}`, 'trade', symbol, ledger);
      return { topic, everyMs: INTERVALS[interval], sequences: [], rows: [], endsAt: 0 };
    });
    const snapshots = new SnapshotCount(wire);
    this.books = INTERVAL_NAMES.map((interval) => {
      const changes = stream(typeOf(interval, 'orderbook_update'));
      return new BookChannel(contract, market, wire, interval, { changes, snapshots });
    });
    this.tickers = INTERVAL_NAMES.map((interval) => ({
      topic: wire.topic(`ticker.${instrument}.${interval}`, 'ticker', symbol, null, { counter: 'reading_frames' }),
      everyMs: INTERVALS[interval],
    }));
    this.liquidations = wire.ledger.distinct(identityOf(exchange, contract, 'liquidation'));
    this.topics = [
      ...this.batches.map(({ topic }) => topic),
      ...this.books.flatMap(({ topics }) => topics),
      ...this.tickers.map(({ topic }) => topic),
    ];
    market.connect(
      this,
      this.books.map((book, index) => ({
        everyMs: index === 0 ? 1000 / diffsPerSecond : INTERVALS.agg2,
        // Asked at each boundary between two diffs, and so the place where a snapshot fits.
        wanted: () => book.boundary(this.time),
      })),
    );
  }

  /** False when there is no such channel. */
  subscribe(peer: Peer, channel: string): boolean {
    const book = this.books.find(({ name }) => name === channel);
    const topic = this.topics.find(({ name }) => name === channel);
    if (book) book.subscribe(peer);
    else topic?.subscribers.add(peer);
    return topic !== undefined;
  }

  unsubscribe(peer: Peer, channel: string): void {
    for (const book of this.books) if (book.name === channel) book.unsubscribe(peer);
    for (const { name, subscribers } of this.topics) if (name === channel) subscribers.delete(peer);
  }

  leave(peer: Peer): void {
    for (const book of this.books) book.unsubscribe(peer);
    for (const { subscribers } of this.topics) subscribers.delete(peer);
  }

  trade(trade: Trade): void {
    this.time = trade.time;
    const price = Number(this.market.priceText(trade.price));
    const isZero = price === this.lastPrice;
    const isUp = isZero ? this.lastTick <= TICKS.zeroPlus : price > this.lastPrice;
    this.lastTick = isUp ? (isZero ? TICKS.zeroPlus : TICKS.plus) : isZero ? TICKS.zeroMinus : TICKS.minus;
    this.lastPrice = price;
    this.ticks[trade.id % this.ticks.length] = this.lastTick;
    const { stats, contract } = this;
    stats.high = Math.max(stats.high, price);
    stats.low = Math.min(stats.low, price);
    stats.contracts += trade.quantity;
    stats.usd += trade.quantity * contract.contractSize * (contract.inverse ? 1 : price);
    for (const batch of this.batches) {
      if (batch.topic.subscribers.size === 0) continue;
      if (batch.rows.length > 0 && trade.time >= batch.endsAt) this.tell(batch);
      if (batch.rows.length === 0) batch.endsAt = (Math.floor(trade.time / batch.everyMs) + 1) * batch.everyMs;
      batch.sequences.push(trade.id);
      batch.rows.push(
        this.tradeText(trade, `,"starbase_match_id":"${trade.id}00001","starbase_timestamp":${trade.time}208300`),
      );
    }
  }

  aggregate(): void {
    // The venue tells single trades only.
  }

  top(time: number): void {
    this.time = time;
  }

  diff(channel: number, diff: Diff): void {
    this.time = diff.time;
    this.books[channel]?.change(diff);
  }

  /** Lets the market run up to `now`, and tells what is due by then. */
  advance(now: number): void {
    this.market.advance(now);
    for (const batch of this.batches) if (batch.rows.length > 0 && now >= batch.endsAt) this.tell(batch);
    const from = Math.max(this.told, now - INTERVALS.agg2);
    this.told = now;
    for (let at = (Math.floor(from / MARK_MS) + 1) * MARK_MS; at <= now; at += MARK_MS) {
      for (const { topic, everyMs } of this.tickers) {
        if (at % everyMs !== 0 || topic.subscribers.size === 0) continue;
        this.wire.publish(topic, at, notification(topic.name, `{${this.tickerText(at)}}`));
      }
    }
  }

  /** Tells all that was not told yet, so that books and readers end at the same id. */
  stop(): void {
    this.market.flush();
    for (const batch of this.batches) if (batch.rows.length > 0) this.tell(batch);
    for (const topic of this.topics) this.wire.release(topic);
  }

  resume(now: number): void {
    this.market.resume(now);
    this.told = now;
  }

  /** The answer to a request for trades, as text. Flags of liquidations are there once a trade is old enough. */
  trades(range: TradeRange, now: number): string {
    const { market } = this;
    const oldest = market.tradesFrom(0, 1)[0]?.id ?? 0;
    const newest = market.tradesFrom(undefined, 1)[0]?.id ?? -1;
    const first = Math.max(range.fromSequence, oldest, this.firstSince(oldest, newest, range.from));
    const last = Math.min(range.toSequence, newest, this.firstSince(oldest, newest, range.to + 1) - 1);
    const from = range.descending ? Math.max(first, last - range.count + 1) : first;
    const found = last < first ? [] : market.tradesFrom(from, Math.min(range.count, last - from + 1));
    const rows = found.map((trade) => this.tradeText(trade, this.liquidationText(trade, now)));
    if (range.descending) rows.reverse();
    return `{"trades":[${rows.join(',')}],"has_more":${last - first + 1 > found.length}}`;
  }

  /** The answer to a request for the book with that many levels a side at a time (ms), as text. */
  orderBook(depth: number, at: number): string {
    const book = this.books[0] as BookChannel;
    const sides = `"bids":[${book.rows('bid', depth)}],"asks":[${book.rows('ask', depth)}]`;
    return `{"change_id":${this.market.updateId},${sides},${this.tickerText(at)}}`;
  }

  /** The answer to a request for the ticker at a time (ms), as text. */
  ticker(at: number): string {
    return `{${this.tickerText(at)}}`;
  }

  /** Candles of the trades that are kept; `volume` in coins, `cost` in the quote currency. */
  chart(from: number, to: number, width: number): string {
    const { contract, market } = this;
    const candles = market.candles(width, from, to);
    const prices = (member: 'open' | 'high' | 'low' | 'close') =>
      candles.map((each) => float(Number(market.priceText(each[member])))).join(',');
    const amount = (units: number) => Number(amountText(contract, units));
    const volumes = candles.map(({ quantity, perPrice }) => float(amount(contract.inverse ? perPrice : quantity)));
    const costs = candles.map(({ quantity, worth }) =>
      float(contract.inverse ? amount(quantity) : Number(market.worthText(worth))),
    );
    return (
      `{"status":"ok","ticks":[${candles.map(({ start }) => start).join(',')}],"open":[${prices('open')}],"high":[${prices('high')}],` +
      `"low":[${prices('low')}],"close":[${prices('close')}],"volume":[${volumes.join(',')}],"cost":[${costs.join(',')}]}`
    );
  }

  /** Hourly rows from `from` up to `to` (ms), the newest ones where there are too many. */
  fundingHistory(from: number, to: number): string {
    const last = Math.floor(to / HOUR_MS) * HOUR_MS;
    const first = Math.max(Math.ceil(from / HOUR_MS) * HOUR_MS, last - (FUNDING_ROWS - 1) * HOUR_MS);
    const rows: string[] = [];
    for (let at = first; at <= last; at += HOUR_MS) {
      const [index, before] = [this.pricesAt(at).index, this.pricesAt(at - HOUR_MS).index];
      const { rate } = this.options.perpetual.mark(at);
      rows.push(
        `{"timestamp":${at},"index_price":${this.fine(index)},"prev_index_price":${this.fine(before)},` +
          `"interest_8h":${float(Number(rate))},"interest_1h":${float(Number(rate) / 8)}}`,
      );
    }
    return `[${rows.join(',')}]`;
  }

  /** What holding the perpetual from `from` to `to` (ms) cost, as a share of its value. */
  fundingValue(from: number, to: number): string {
    const { rate } = this.options.perpetual.mark(to);
    return String(Number(((Number(rate) * (to - from)) / (8 * HOUR_MS)).toPrecision(6)));
  }

  private tell(batch: Batch): void {
    const sequences = batch.sequences.splice(0);
    const rows = batch.rows.splice(0);
    if (batch.topic.subscribers.size === 0) return;
    this.wire.publish(batch.topic, sequences, notification(batch.topic.name, `[${rows.join(',')}]`));
  }

  private tradeText({ id, time, price, quantity, buyerIsMaker }: Trade, more: string): string {
    const { contract } = this;
    const { mark, index } = this.pricesAt(time);
    return (
      `{"timestamp":${time},"price":${float(Number(this.market.priceText(price)))},` +
      `"direction":"${buyerIsMaker ? 'sell' : 'buy'}","index_price":${this.fine(index)},` +
      `"trade_id":"${tradeIdOf(contract, id)}","instrument_name":"${contract.instrument}","trade_seq":${id},` +
      `"amount":${amountText(contract, quantity)},"mark_price":${this.fine(mark)},` +
      `"tick_direction":${this.ticks[id % this.ticks.length]},"contracts":${float(quantity)}${more}}`
    );
  }

  /** The flag that a trade has by now. The ledger counts a liquidation as told with the first answer that has it. */
  private liquidationText(trade: Trade, now: number): string {
    const flag = this.liquidationOf(trade);
    if (flag === null || now - trade.time < LIQUIDATION_DELAY_MS) return '';
    this.liquidations.name(trade.id, tradeIdOf(this.contract, trade.id));
    this.liquidations.record(trade.id);
    return `,"liquidation":"${flag}"`;
  }

  /** Who was liquidated by a trade: a property of its sequence alone. */
  private liquidationOf({ id }: Trade): 'M' | 'T' | 'MT' | null {
    const { seed, contract, liquidationShare } = this.options;
    if (liquidationShare === 0) return null;
    const random = seededRandom(seedFor(seed, `liquidation ${contract.symbol} ${id}`));
    if (random() >= liquidationShare) return null;
    const side = random();
    return side < 0.45 ? 'T' : side < 0.9 ? 'M' : 'MT';
  }

  /** The first sequence whose trade is not before `time`; one past the newest when there is none. */
  private firstSince(oldest: number, newest: number, time: number): number {
    let [low, high] = [oldest, newest + 1];
    while (low < high) {
      const middle = Math.floor((low + high) / 2);
      if ((this.market.tradesFrom(middle, 1)[0]?.time ?? 0) < time) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** Members of a ticker, without braces. */
  private tickerText(at: number): string {
    const { market, contract, stats } = this;
    const { mark, index } = this.pricesAt(at);
    const { perpetual } = this.options;
    const rate = Number(perpetual.mark(at).rate);
    const coins = Number(perpetual.openInterest(at));
    const contracts = Math.round((contract.inverse ? coins * contract.startPrice : coins) / contract.contractSize);
    const price = (value: number): string => priceText(value, contract.grid.priceDecimals);
    const level = (index: number, quantity: number): [string, string] => [
      float(Number(market.priceText(index))),
      amountText(contract, quantity),
    ];
    const [bid, bidAmount] = level(market.bestBid, market.bidAt(market.bestBid));
    const [ask, askAmount] = level(market.bestAsk, market.askAt(market.bestAsk));
    const coinsTraded = contract.inverse ? stats.usd / this.lastPrice : stats.contracts * contract.contractSize;
    const current = Math.abs(rate) > FUNDING_DAMPER ? rate - Math.sign(rate) * FUNDING_DAMPER : 0;
    return (
      `"timestamp":${at},"state":"open","stats":{"high":${price(stats.high)},"low":${price(stats.low)},` +
      `"price_change":${priceText((this.lastPrice / stats.first - 1) * 100, 4)},"volume":${priceText(coinsTraded, 8)},` +
      `"volume_usd":${priceText(stats.usd, 2)},"volume_notional":${priceText(stats.usd, 2)}},` +
      `"index_price":${this.fine(index)},"instrument_name":"${contract.instrument}","last_price":${float(this.lastPrice)},` +
      `"settlement_price":${this.fine(stats.first)},"min_price":${price(mark * (1 - PRICE_BAND))},` +
      `"max_price":${price(mark * (1 + PRICE_BAND))},"open_interest":${amountText(contract, contracts)},` +
      `"mark_price":${this.fine(mark)},"interest_value":${float(Number((rate * 100).toFixed(10)))},` +
      `"best_ask_price":${ask},"best_bid_price":${bid},"estimated_delivery_price":${this.fine(index)},` +
      `"best_ask_amount":${askAmount},"best_bid_amount":${bidAmount},"current_funding":${float(Number(current.toFixed(8)))},` +
      `"funding_8h":${float(rate)}`
    );
  }

  /** A price that is no order's: one digit more than those have. */
  private fine(price: number): string {
    return priceText(price, this.contract.grid.priceDecimals + 1);
  }

  /** Mark and index of a moment: the same for a trade on the socket and over REST. */
  private pricesAt(time: number): { mark: number; index: number } {
    const at = Math.floor(time / MARK_MS) * MARK_MS;
    if (at !== this.marks.at) {
      const { mark, index } = this.options.perpetual.mark(at);
      this.marks = { at, mark: Number(mark), index: Number(index) };
    }
    return this.marks;
  }
}
