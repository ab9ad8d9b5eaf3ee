/**
 * A seeded market: one instrument's order book and trades, as integers on a price grid.
 *
 * Pure: randomness and the clock are passed in, nothing is written or read. The same seed, start and rates always give the
 * same market, however often `advance` is called, because every event has its own due time. A venue turns the events into
 * its frames.
 */
import { type Candle, candlesOf } from './candles.ts';

/** Levels are kept within this many grid steps of their side's best: with FILL_SHARE, about 1,500 levels a side. */
const WINDOW = 2000;
/** Share of the grid steps in the window that hold a level, so that a book has holes as real ones do. */
const FILL_SHARE = 0.75;
/** Below this many levels a side removals become additions: a book always fills a snapshot of 1,000 with room to spare. */
const MIN_LEVELS = 1300;
/** Slots of the ring of quantities: more than both windows, a wide spread and a jump together. */
const RING = 16_384;
/** Prices whose text is kept; a power of two. */
const TOLD_PRICES = 1024;
/** Book changes per depth update: what a liquid pair shows in 100 ms, and what the 20-level benchmark frames hold. */
const CHANGES_PER_DIFF = 20;
/** One change in seven happens at the touch; the rest fall off exponentially from it. */
const TOUCH_SHARE = 0.15;
const MEAN_DEPTH_OF_CHANGE = 40;
/** Grid step as a share of the price: 1,500 levels then span about 2 %, and a minute moves the price a few basis points. */
const GRID_SHARE = 1e-5;
/** Wider than this, makers step in at once: takers, however many, cannot tear the sides apart. */
const MAX_SPREAD = 4;
/** After a stall longer than this, time is skipped instead of being made up for in one burst. */
const MAX_CATCH_UP_MS = 1000;
/** Chance of 1, 2 and 3 fills of one taker order, and their mean. */
const FILL_CHANCES = [0.7, 0.2, 0.1] as const;
const MEAN_FILLS = 0.7 + 2 * 0.2 + 3 * 0.1;
/** Largest resting level in quote units, about. */
const LARGEST_LEVEL_VALUE = 400_000;
/** Periods (ms) and heights (share of the price) of the waves of which the fair price is made. */
const FAIR_WAVES = [
  [23_000, 0.0001],
  [97_000, 0.0003],
  [611_000, 0.001],
  [5_400_000, 0.004],
  [31_000_000, 0.02],
] as const;

export type Random = () => number;

/** How an instrument's numbers are cut and printed. Prices and quantities are whole multiples of their unit. */
export interface Grid {
  /** Decimals of the price unit and the tick as a number of units. */
  readonly priceDecimals: number;
  readonly tickUnits: number;
  readonly quantityDecimals: number;
  /** Zeros printed after the last decimal, where a venue prints more digits than it uses. */
  readonly pricePadding: string;
  readonly quantityPadding: string;
}

export interface Trade {
  readonly id: number;
  /** Trades of one taker order at one price share an aggregate. */
  readonly aggregate: number;
  readonly price: number;
  readonly quantity: number;
  readonly buyerIsMaker: boolean;
  readonly time: number;
}

/** Consecutive trades of one taker order at one price. */
export interface Aggregate {
  readonly id: number;
  readonly first: number;
  readonly last: number;
  readonly price: number;
  readonly quantity: number;
  readonly buyerIsMaker: boolean;
  readonly time: number;
}

/** Prices by their places on the grid. */
export type Indexes = ArrayLike<number> & Iterable<number>;

/** The levels that changed since the depth update before; the quantity is the one now, 0 = gone. */
export interface Diff {
  readonly first: number;
  readonly last: number;
  readonly previous: number;
  readonly time: number;
  /** Best first. */
  readonly bids: Indexes;
  readonly asks: Indexes;
}

/** What a venue does with the events, in the order in which they happen. */
export interface MarketSink {
  trade(trade: Trade): void;
  aggregate(aggregate: Aggregate): void;
  /** The best price or quantity of a side changed; the book is at `market.updateId`. */
  top(time: number): void;
  diff(channel: number, diff: Diff): void;
}

/** One cadence of depth updates. Without a taker nothing is gathered, but the ids go on. */
export interface DepthChannel {
  readonly everyMs: number;
  readonly wanted: () => boolean;
}

export interface MarketOptions {
  readonly grid: Grid;
  readonly startPrice: number;
  readonly random: Random;
  /** Fair price as a multiple of the start price, `elapsed` ms after the start: venues that share it stay together. */
  readonly fair: (elapsed: number) => number;
  readonly start: number;
  readonly tradesPerSecond: number;
  /** What `tradesPerSecond` counts: single trades, or aggregates. */
  readonly tradeGrain: 'trade' | 'aggregate';
  readonly diffsPerSecond: number;
  /** True where a venue's update ids have holes within one instrument. */
  readonly idsHaveHoles: boolean;
  readonly history: number;
}

/** A small fast generator (mulberry32): 32 bits of state, reproducible everywhere. */
export function seededRandom(seed: number): Random {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296;
  };
}

/** A seed of its own for each name under one seed (FNV-1a). */
export function seedFor(seed: number, name: string): number {
  let hash = (0x811c9dc5 ^ seed) >>> 0;
  for (const character of name) hash = Math.imul(hash ^ character.charCodeAt(0), 0x01000193) >>> 0;
  return hash;
}

/** A smooth fair price around 1, a function of time alone. */
export function fairPrice(random: Random): (elapsed: number) => number {
  const waves = FAIR_WAVES.map(([period, height]) => ({ period, height, phase: random() * 2 * Math.PI }));
  const at = (elapsed: number): number =>
    waves.reduce((sum, wave) => sum + wave.height * Math.sin((elapsed * 2 * Math.PI) / wave.period + wave.phase), 0);
  const origin = at(0);
  return (elapsed) => Math.exp(at(elapsed) - origin);
}

/** `units` of 10^-decimals as decimal text with exactly that many decimals, then `padding`. */
export function decimalText(units: number, decimals: number, padding = ''): string {
  if (decimals === 0) return padding === '' ? String(units) : `${units}.${padding}`;
  const digits = String(units);
  const whole = digits.length - decimals;
  if (whole > 0) return `${digits.slice(0, whole)}.${digits.slice(whole)}${padding}`;
  return `0.${'0'.repeat(-whole)}${digits}${padding}`;
}

/** Bounded history of trades with contiguous ids; the oldest fall out. */
class History {
  private readonly numbers: Float64Array;
  private readonly makers: Uint8Array;
  private newest = -1;
  private oldest = 0;

  constructor(private readonly size: number) {
    this.numbers = new Float64Array(size * 4);
    this.makers = new Uint8Array(size);
  }

  add(trade: Trade): void {
    const slot = trade.id % this.size;
    const { numbers } = this;
    numbers[slot * 4] = trade.aggregate;
    numbers[slot * 4 + 1] = trade.price;
    numbers[slot * 4 + 2] = trade.quantity;
    numbers[slot * 4 + 3] = trade.time;
    this.makers[slot] = trade.buyerIsMaker ? 1 : 0;
    if (this.newest < 0) this.oldest = trade.id;
    this.newest = trade.id;
    this.oldest = Math.max(this.oldest, trade.id - this.size + 1);
  }

  get first(): number {
    return this.oldest;
  }

  get last(): number {
    return this.newest;
  }

  at(id: number): Trade {
    const slot = id % this.size;
    const [aggregate = 0, price = 0, quantity = 0, time = 0] = this.numbers.subarray(slot * 4, slot * 4 + 4);
    return { id, aggregate, price, quantity, time, buyerIsMaker: this.makers[slot] === 1 };
  }

  /** The first kept trade whose aggregate is at least `aggregate`; one past the newest when there is none. */
  firstOfAggregate(aggregate: number): number {
    let low = this.oldest;
    let high = this.newest + 1;
    while (low < high) {
      const middle = Math.floor((low + high) / 2);
      if (this.at(middle).aggregate < aggregate) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}

interface ChannelState extends DepthChannel {
  dueAt: number;
  active: boolean;
  first: number;
  previous: number;
  readonly bids: Set<number>;
  readonly asks: Set<number>;
}

export class Market {
  /** The book's state as a number that only rises. */
  updateId: number;
  bestBid: number;
  bestAsk: number;
  private tradeId: number;
  private aggregateId: number;
  /** Quantity by price index in the ring: positive bids, negative asks. */
  private readonly quantities = new Float64Array(RING);
  /** Text of prices, and whose it is: prices near the touch come again and again. */
  private readonly priceTexts: string[] = new Array(TOLD_PRICES).fill('');
  private readonly pricesTold = new Float64Array(TOLD_PRICES).fill(-1);
  private lowest: number;
  private highest: number;
  private bidLevels = 0;
  private askLevels = 0;
  private readonly gridUnits: number;
  private readonly largestLevel: number;
  private readonly trades: History;
  private readonly channels: ChannelState[] = [];
  private sink: MarketSink | null = null;
  private now: number;
  private nextOrder: number;
  private nextChange: number;
  private readonly orderEvery: number;
  private readonly changeEvery: number;

  constructor(private readonly options: MarketOptions) {
    const { grid, random, startPrice, start } = options;
    const priceUnits = startPrice * 10 ** grid.priceDecimals;
    this.gridUnits = Math.max(1, Math.round((priceUnits * GRID_SHARE) / grid.tickUnits)) * grid.tickUnits;
    this.largestLevel = Math.max(100, Math.round((LARGEST_LEVEL_VALUE / startPrice) * 10 ** grid.quantityDecimals));
    this.trades = new History(options.history);
    this.updateId = Math.floor(1e10 + random() * 9e10);
    this.tradeId = Math.floor(1e9 + random() * 8e9);
    this.aggregateId = Math.floor(1e8 + random() * 8e9);
    this.now = start;
    this.orderEvery = 1000 / (options.tradesPerSecond / (options.tradeGrain === 'trade' ? MEAN_FILLS : 1));
    this.changeEvery = 1000 / (options.diffsPerSecond * CHANGES_PER_DIFF);
    this.nextOrder = start + this.orderEvery;
    this.nextChange = start + this.changeEvery;
    this.bestBid = Math.max(WINDOW + 2, Math.round(priceUnits / this.gridUnits));
    this.bestAsk = this.bestBid + 1;
    this.lowest = this.bestBid - WINDOW;
    this.highest = this.bestAsk + WINDOW;
    for (let step = 0; step <= WINDOW; step++) {
      if (step === 0 || random() < FILL_SHARE) this.store(this.bestBid - step, this.levelQuantity());
      if (step === 0 || random() < FILL_SHARE) this.store(this.bestAsk + step, -this.levelQuantity());
    }
  }

  /** Connects the venue. The channels' numbers are their places in the list. */
  connect(sink: MarketSink, channels: readonly DepthChannel[]): void {
    this.sink = sink;
    for (const channel of channels) {
      this.channels.push({
        ...channel,
        dueAt: this.now + channel.everyMs,
        active: channel.wanted(),
        first: 0,
        previous: this.updateId,
        bids: new Set(),
        asks: new Set(),
      });
    }
  }

  /** Lets everything happen that is due by `now`. */
  advance(now: number): void {
    this.skip(now - this.now - MAX_CATCH_UP_MS);
    for (;;) {
      let due = Math.min(this.nextChange, this.nextOrder);
      let dueChannel = -1;
      for (let index = 0; index < this.channels.length; index++) {
        const channel = this.channels[index] as ChannelState;
        if (channel.dueAt < due) {
          due = channel.dueAt;
          dueChannel = index;
        }
      }
      if (due > now) break;
      this.now = due;
      if (dueChannel >= 0) {
        this.emit(dueChannel);
        (this.channels[dueChannel] as ChannelState).dueAt += (this.channels[dueChannel] as ChannelState).everyMs;
      } else if (due === this.nextChange) {
        this.nextChange += this.changeEvery;
        this.changeOnce();
      } else {
        this.nextOrder -= Math.log(1 - this.options.random()) * this.orderEvery;
        this.takeOnce();
      }
    }
    this.now = Math.max(this.now, now);
  }

  /** Sends the changes not yet told, so that the last depth update and the book stand at the same id. */
  flush(): void {
    for (let index = 0; index < this.channels.length; index++) this.emit(index);
  }

  /** Goes on at `now` as if the time since the last `advance` had not been. */
  resume(now: number): void {
    this.skip(now - this.now);
    this.now = now;
  }

  priceText(index: number): string {
    const slot = index & (TOLD_PRICES - 1);
    if (this.pricesTold[slot] !== index) {
      const { priceDecimals, pricePadding } = this.options.grid;
      this.priceTexts[slot] = decimalText(index * this.gridUnits, priceDecimals, pricePadding);
      this.pricesTold[slot] = index;
    }
    return this.priceTexts[slot] as string;
  }

  quantityText(quantity: number): string {
    const { quantityDecimals, quantityPadding } = this.options.grid;
    return decimalText(quantity, quantityDecimals, quantityPadding);
  }

  /** A candle's `worth` in the quote currency. */
  worthText(worth: number): string {
    const { priceDecimals, quantityDecimals } = this.options.grid;
    return decimalText(Math.round(worth * this.gridUnits), priceDecimals + quantityDecimals);
  }

  /** The quantity that bids at this price, 0 when none does. */
  bidAt(index: number): number {
    return index < this.lowest || index > this.bestBid ? 0 : (this.quantities[index & (RING - 1)] as number);
  }

  askAt(index: number): number {
    return index > this.highest || index < this.bestAsk ? 0 : -(this.quantities[index & (RING - 1)] as number);
  }

  /** The best `limit` levels of a side, as price indexes, best first. */
  levels(side: 'bid' | 'ask', limit: number): number[] {
    const found: number[] = [];
    if (side === 'bid') {
      for (let index = this.bestBid; index >= this.lowest && found.length < limit; index--) {
        if (this.bidAt(index) > 0) found.push(index);
      }
    } else {
      for (let index = this.bestAsk; index <= this.highest && found.length < limit; index++) {
        if (this.askAt(index) > 0) found.push(index);
      }
    }
    return found;
  }

  /** Up to `limit` kept trades from `fromId` on, or the newest ones. */
  tradesFrom(fromId: number | undefined, limit: number): Trade[] {
    const from = Math.max(this.trades.first, fromId ?? this.trades.last - limit + 1);
    const found: Trade[] = [];
    for (let id = from; id <= this.trades.last && found.length < limit; id++) found.push(this.trades.at(id));
    return found;
  }

  /** Up to `limit` kept aggregates from `fromId` on, or the newest ones. The oldest kept one may be cut: it is left out. */
  aggregatesFrom(fromId: number | undefined, limit: number): Aggregate[] {
    if (this.trades.last < 0) return [];
    const oldest = this.trades.at(this.trades.first).aggregate;
    const newest = this.trades.at(this.trades.last).aggregate;
    const isCut = this.trades.last - this.trades.first + 1 >= this.options.history;
    const from = Math.max(isCut ? oldest + 1 : oldest, fromId ?? newest - limit + 1);
    const found: Aggregate[] = [];
    let id = this.trades.firstOfAggregate(from);
    while (id <= this.trades.last && found.length < limit) {
      const fills = [this.trades.at(id)];
      while (id + fills.length <= this.trades.last) {
        const next = this.trades.at(id + fills.length);
        if (next.aggregate !== fills[0]?.aggregate) break;
        fills.push(next);
      }
      found.push(aggregateOf(fills));
      id += fills.length;
    }
    return found;
  }

  /** Candles of the trades that are kept; see `candlesOf`. @param timeOf the time that counts, ms */
  candles(width: number, from: number, to: number, timeOf = (trade: Trade) => trade.time): Candle[] {
    const kept = this.tradesFrom(0, Number.POSITIVE_INFINITY);
    const priceOf = (index: number) => Number(this.priceText(index));
    const all = candlesOf(kept, { width, timeOf, priceOf, isCut: kept.length >= this.options.history });
    return all.filter(({ start }) => start + width > from && start <= to);
  }

  private skip(ms: number): void {
    if (ms <= 0) return;
    this.nextOrder += ms;
    this.nextChange += ms;
    for (const channel of this.channels) channel.dueAt += ms;
  }

  private get time(): number {
    return Math.floor(this.now);
  }

  private levelQuantity(): number {
    const random = this.options.random();
    const square = random * random;
    return 1 + Math.floor(this.largestLevel * square * square);
  }

  /** One change of the book: at the touch it may move the price, below it only fills, changes or empties a level. */
  private changeOnce(): void {
    const { random } = this.options;
    if (random() < TOUCH_SHARE) {
      const choice = random();
      if (choice < 0.5) this.movePrice();
      else if (choice < 0.75) this.set(this.bestBid, this.levelQuantity());
      else this.set(this.bestAsk, -this.levelQuantity());
      return;
    }
    const isBid = random() < 0.5;
    const depth = 1 + Math.floor(-Math.log(1 - random()) * MEAN_DEPTH_OF_CHANGE);
    const index = isBid ? Math.max(this.lowest, this.bestBid - depth) : Math.min(this.highest, this.bestAsk + depth);
    const isThere = (this.quantities[index & (RING - 1)] as number) !== 0;
    const mayRemove = (isBid ? this.bidLevels : this.askLevels) > MIN_LEVELS;
    const quantity = isThere && mayRemove && random() > FILL_SHARE ? 0 : this.levelQuantity();
    this.set(index, isBid ? quantity : -quantity);
  }

  /** Moves one side of the touch by a step, more often towards the fair price than away from it. */
  private movePrice(): void {
    const isUp = this.isUpward();
    const hasRoom = this.bestAsk - this.bestBid > 1;
    if (isUp && hasRoom) this.set(this.bestBid + 1, this.levelQuantity());
    else if (isUp) this.set(this.bestAsk, 0);
    else if (hasRoom) this.set(this.bestAsk - 1, -this.levelQuantity());
    else this.set(this.bestBid, 0);
  }

  /** A coin that leans towards the fair price. */
  private isUpward(): boolean {
    const { random, fair, start, startPrice, grid } = this.options;
    const fairIndex = (startPrice * fair(this.now - start) * 10 ** grid.priceDecimals) / this.gridUnits;
    const lean = (fairIndex - (this.bestBid + this.bestAsk) / 2) / 50;
    return random() < 0.5 + Math.max(-0.35, Math.min(0.35, lean));
  }

  /** One taker order: each fill at the touch of its moment, all in one millisecond. */
  private takeOnce(): void {
    const { random } = this.options;
    const buyerIsMaker = !this.isUpward();
    const chance = random();
    const wanted = chance < FILL_CHANCES[0] ? 1 : chance < FILL_CHANCES[0] + FILL_CHANCES[1] ? 2 : 3;
    let fills: Trade[] = [];
    for (let filled = 0; filled < wanted; filled++) {
      const price = buyerIsMaker ? this.bestBid : this.bestAsk;
      if (fills.length === 0 || fills[0]?.price !== price) {
        this.tellAggregate(fills);
        fills = [];
        this.aggregateId++;
      }
      const resting = buyerIsMaker ? this.bidAt(price) : this.askAt(price);
      const quantity = random() < 0.1 ? resting : Math.max(1, Math.floor(resting * random() ** 2));
      const trade: Trade = {
        id: ++this.tradeId,
        aggregate: this.aggregateId,
        price,
        quantity,
        buyerIsMaker,
        time: this.time,
      };
      fills.push(trade);
      this.trades.add(trade);
      this.sink?.trade(trade);
      const left = resting - quantity;
      this.set(price, buyerIsMaker ? left : -left);
    }
    this.tellAggregate(fills);
    while (this.bestAsk - this.bestBid > MAX_SPREAD) this.movePrice();
  }

  private tellAggregate(fills: readonly Trade[]): void {
    if (fills.length > 0) this.sink?.aggregate(aggregateOf(fills));
  }

  /** Changes one level (positive = bid, negative = ask, 0 = gone), moves the touch with it and tells both. */
  private set(index: number, quantity: number): void {
    const isBid = quantity > 0 || (quantity === 0 && index <= this.bestBid);
    this.touch(index, isBid, quantity);
    if (isBid && (index >= this.bestBid || this.bidAt(this.bestBid) === 0)) {
      this.bestBid = this.scan(Math.max(index, this.bestBid), -1);
      this.follow();
      this.sink?.top(this.time);
    } else if (!isBid && (index <= this.bestAsk || this.askAt(this.bestAsk) === 0)) {
      this.bestAsk = this.scan(Math.min(index, this.bestAsk), 1);
      this.follow();
      this.sink?.top(this.time);
    }
  }

  private scan(from: number, step: 1 | -1): number {
    let index = from;
    while ((this.quantities[index & (RING - 1)] as number) * -step <= 0) index += step;
    return index;
  }

  /** Keeps each side's window with its best: levels that are too far go, new far ones come. */
  private follow(): void {
    const { random } = this.options;
    while (this.lowest < this.bestBid - WINDOW) {
      if ((this.quantities[this.lowest & (RING - 1)] as number) !== 0) this.touch(this.lowest, true, 0);
      this.lowest++;
    }
    while (this.lowest > this.bestBid - WINDOW && this.lowest > 1) {
      this.lowest--;
      if (random() < FILL_SHARE) this.touch(this.lowest, true, this.levelQuantity());
    }
    while (this.highest > this.bestAsk + WINDOW) {
      if ((this.quantities[this.highest & (RING - 1)] as number) !== 0) this.touch(this.highest, false, 0);
      this.highest--;
    }
    while (this.highest < this.bestAsk + WINDOW) {
      this.highest++;
      if (random() < FILL_SHARE) this.touch(this.highest, false, -this.levelQuantity());
    }
  }

  /** Gives one level its quantity under a new update id. */
  private touch(index: number, isBid: boolean, quantity: number): void {
    this.updateId += this.options.idsHaveHoles ? 1 + Math.floor(this.options.random() * 40) : 1;
    this.store(index, quantity);
    for (const channel of this.channels) {
      if (!channel.active) continue;
      if (channel.first === 0) channel.first = this.updateId;
      (isBid ? channel.bids : channel.asks).add(index);
    }
  }

  private store(index: number, quantity: number): void {
    const slot = index & (RING - 1);
    const before = this.quantities[slot] as number;
    this.quantities[slot] = quantity;
    this.bidLevels += Number(quantity > 0) - Number(before > 0);
    this.askLevels += Number(quantity < 0) - Number(before < 0);
  }

  /** Ends a depth update's time. One that nobody takes starts to be gathered at its next boundary, so that none is half. */
  private emit(index: number): void {
    const channel = this.channels[index] as ChannelState;
    if (channel.active && channel.first !== 0) {
      this.sink?.diff(index, {
        first: channel.first,
        last: this.updateId,
        previous: channel.previous,
        time: this.time,
        bids: Float64Array.from(channel.bids).sort().reverse(),
        asks: Float64Array.from(channel.asks).sort(),
      });
      channel.bids.clear();
      channel.asks.clear();
    }
    channel.first = 0;
    channel.previous = this.updateId;
    channel.active = channel.wanted();
  }
}

function aggregateOf(fills: readonly Trade[]): Aggregate {
  const first = fills[0] as Trade;
  const { id, aggregate, price, buyerIsMaker, time } = first;
  const quantity = fills.reduce((sum, fill) => sum + fill.quantity, 0);
  return { id: aggregate, price, quantity, buyerIsMaker, time, first: id, last: id + fills.length - 1 };
}
