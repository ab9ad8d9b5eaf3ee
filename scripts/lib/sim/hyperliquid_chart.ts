/**
 * Hyperliquid's candles with a past: of its markets from their trades, before these and of coins without a market from prices that are
 * functions of time. Computed when they are asked for.
 */
import { gridOf, padded } from './hyperliquid_coin.ts';
import { baseWalk, chanceOf, Follower } from './hyperliquid_walk.ts';
import { decimalText, type Grid, seedFor, type Trade } from './market.ts';
import { startPriceOf } from './pairs.ts';
import { TradeTape } from './trade_tape.ts';

const MINUTE_MS = 60_000;
/** The venue tells so many of the newest candles of each length. */
const CANDLE_ROWS = 5000;
/** Minutes whose trades are counted: those of the venue's 5000 candles of five minutes, and more. */
const COUNTED_MINUTES = 40_000;
/** Of BTC, which all others follow: those of 5000 candles of five minutes, and more. */
const REMEMBERED_MINUTES = 60_000;
export const BASE = 'BTC';
/** A wick is at most this share of the price. */
const WICK = 0.0004;
const MOST_TRADES = 60;
/** The coin that trades so seldom that some minutes have no candle, and the one that follows late: by their place in the list. */
const QUIET_PLACE = 3;
const LATE_PLACE = 1;
const QUIET_SHARE = 0.01;
const LATE_MS = 10 * MINUTE_MS;

/** Perpetuals beside the captured ones; further ones are numbered. */
const NAMES =
  'BTC,SOL,BNB,XRP,DOGE,AVAX,LINK,SUI,APT,ARB,OP,NEAR,INJ,TIA,SEI,AAVE,UNI,LDO,CRV,DOT,ADA,LTC,BCH,ATOM,FIL,ETC,TRX,TON,WLD,ENA'.split(
    ',',
  );

/** Names of `count` perpetuals beside the `taken` ones. BTC is the first, unless it is taken. */
export function furtherCoins(count: number, taken: ReadonlySet<string>): string[] {
  const names = NAMES.filter((name) => !taken.has(name)).slice(0, count);
  for (let number = 1; names.length < count; number++) names.push(`P${String(number).padStart(3, '0')}`);
  return names;
}

interface Candle {
  start: number;
  open: number;
  high: number;
  low: number;
  close: number;
  quantity: number;
  trades: number;
}

/** A market's trades as they happen. */
class Traded {
  private readonly tape = new TradeTape(1);
  private readonly counts = new Map<number, number>();

  /** @param since the first minute that is told from trades alone, ms */
  constructor(readonly since: number) {}

  /** @param time of the block, ms */
  add(trade: Trade, time: number): void {
    this.tape.add({ ...trade, time });
    const minute = Math.floor(time / MINUTE_MS);
    this.counts.set(minute, (this.counts.get(minute) ?? 0) + 1);
    for (const oldest of this.counts.keys()) {
      if (this.counts.size <= COUNTED_MINUTES) break;
      this.counts.delete(oldest);
    }
  }

  minute(start: number): Candle | null {
    const bar = this.tape.bar(start, start + MINUTE_MS);
    return bar === null ? null : { ...bar, trades: this.counts.get(start / MINUTE_MS) ?? 0 };
  }

  /** The price of the last trade before a time; null where there is none. */
  before(time: number): number | null {
    return this.tape.closeBefore(time);
  }
}

/** One coin through time. */
export class HyperliquidChart {
  readonly grid: Grid;
  private readonly follower: Follower | null;
  private readonly traded: Traded | null;
  private readonly seed: number;
  private readonly isQuiet: boolean;
  private readonly height: (time: number) => number;
  private readonly heights = new Map<number, number>();
  private lastAsked = { time: Number.NaN, units: 0 };
  /** The price at height 0, in printed units. */
  private readonly level: number;

  /**
   * @param since when its market began, ms; null where it has none
   * @param base BTC's chart; null: this is BTC
   */
  constructor(
    readonly name: string,
    place: number,
    seed: number,
    since: number | null,
    base: HyperliquidChart | null,
  ) {
    const price = startPriceOf(name, seed);
    this.grid = gridOf(name, price);
    this.seed = seedFor(seed, `chart ${name}`);
    this.isQuiet = place === QUIET_PLACE;
    const late = place === LATE_PLACE ? LATE_MS : 0;
    this.follower = base === null ? null : new Follower(seed, name, (time) => base.logAt(time), late);
    const follower = this.follower;
    this.height = follower === null ? baseWalk(seed) : (time) => follower.at(time);
    this.traded = since === null ? null : new Traded(Math.floor(since / MINUTE_MS) * MINUTE_MS);
    // Where its market begins, the past has come to the market's first price.
    const anchor = this.traded === null ? 0 : this.height(this.traded.since);
    this.level = (price * 10 ** this.grid.priceDecimals) / Math.exp(anchor);
  }

  get hasMarket(): boolean {
    return this.traded !== null;
  }

  add(trade: Trade, time: number): void {
    this.traded?.add(trade, time);
  }

  /** From a time on (ms) until another, or until further notice, it does not follow. False: it never does. */
  leaveBase(from: number, to: number | null): boolean {
    this.lastAsked.time = Number.NaN;
    this.follower?.absences.push({ from, to });
    return this.follower !== null;
  }

  /** It follows again. False: it does. */
  joinBase(at: number): boolean {
    this.lastAsked.time = Number.NaN;
    const open = this.follower?.absences.find(({ to }) => to === null || to > at);
    if (open) open.to = at;
    return open !== undefined;
  }

  /** The logarithm of its price at a time, from a fixed price on: what others follow. */
  logAt(time: number): number {
    const live = this.traded !== null && time > this.traded.since ? this.traded.before(time) : null;
    return live === null ? this.pastAt(Math.min(time, this.traded?.since ?? time)) : Math.log(live / this.level);
  }

  /** The candle that begins at `start`, up to `now` where it is not over; null where nothing was traded. */
  candle(start: number, width: number, now: number): Candle | null {
    let candle: Candle | null = null;
    for (let minute = start; minute < Math.min(start + width, now + 1); minute += MINUTE_MS) {
      const next = this.minute(minute, now);
      if (next === null) continue;
      if (candle === null) candle = { ...next, start };
      else {
        candle.high = Math.max(candle.high, next.high);
        candle.low = Math.min(candle.low, next.low);
        candle.close = next.close;
        candle.quantity += next.quantity;
        candle.trades += next.trades;
      }
    }
    return candle;
  }

  /** The newest candles of those that end after `from` and begin by `to`, oldest first, as the venue writes them. */
  texts(interval: string, width: number, from: number, to: number, now: number): string[] {
    const last = Math.floor(Math.min(to, now) / width) * width;
    const newest = Math.floor(now / width) * width;
    const first = Math.max(Math.floor(from / width) * width, newest - (CANDLE_ROWS - 1) * width);
    const rows: string[] = [];
    for (let start = first; start <= last; start += width) {
      const candle = this.candle(start, width, now);
      if (candle !== null) rows.push(this.text(candle, interval, width));
    }
    return rows;
  }

  text({ start, open, high, low, close, quantity, trades }: Candle, interval: string, width: number): string {
    const price = (units: number) => padded(decimalText(units, this.grid.priceDecimals));
    return JSON.stringify({
      ...{ t: start, T: start + width - 1, s: this.name, i: interval },
      ...{ o: price(open), c: price(close), h: price(high), l: price(low) },
      ...{ v: padded(decimalText(quantity, this.grid.quantityDecimals)), n: trades },
    });
  }

  /** The last price, printed. */
  priceText(now: number): string {
    return padded(decimalText(this.unitsAt(now), this.grid.priceDecimals));
  }

  /** Whole minutes are asked for again by each coin that follows. */
  private pastAt(time: number): number {
    if (time % MINUTE_MS !== 0) return this.height(time);
    let height = this.heights.get(time);
    if (height === undefined) {
      if (this.heights.size >= REMEMBERED_MINUTES) this.heights.clear();
      this.heights.set(time, (height = this.height(time)));
    }
    return height;
  }

  private minute(start: number, now: number): Candle | null {
    const { traded, seed } = this;
    if (traded !== null && start >= traded.since) return traded.minute(start);
    const number = start / MINUTE_MS;
    if (this.isQuiet && chanceOf(seed + 11, number) < QUIET_SHARE) return null;
    const [open, close] = [this.unitsAt(start), this.unitsAt(Math.min(start + MINUTE_MS, now))];
    const wick = (place: number) => 1 + WICK * chanceOf(seed + place, number) ** 2;
    const share = Math.min(1, (now - start) / MINUTE_MS);
    return {
      ...{ start, open, close },
      high: Math.max(open, close, Math.round(Math.max(open, close) * wick(12))),
      low: Math.min(open, close, Math.round(Math.min(open, close) / wick(13))),
      quantity: 1 + Math.floor(share * 10 ** this.grid.quantityDecimals * (1 + 9 * chanceOf(seed + 14, number))),
      trades: 1 + Math.floor(share * MOST_TRADES * chanceOf(seed + 15, number)),
    };
  }

  private unitsAt(time: number): number {
    // A minute opens where the last one closed.
    if (time !== this.lastAsked.time)
      this.lastAsked = { time, units: Math.max(1, Math.round(this.level * Math.exp(this.height(time)))) };
    return this.lastAsked.units;
  }
}
