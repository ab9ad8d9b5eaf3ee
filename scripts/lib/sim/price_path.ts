/**
 * A price that nobody had to trade: what a coin was worth before its market began, and what coins are worth that have none.
 *
 * Pure: everything is a function of the seed, the coin and the time, so that a bar is the same however often and by whichever
 * simulator it is asked, and bars of all lengths are made of the same ticks.
 */
import { seededRandom, seedFor } from './market.ts';

/** One tick each ten seconds, in the middle of them: no bar begins or ends on a tick. */
export const TICK_MS = 10_000;
/** Ticks are computed an hour at a time. */
const BLOCK_MS = 3_600_000;
const BLOCK_TICKS = BLOCK_MS / TICK_MS;

/** Periods (ms) and heights (share of the price) of the waves that all coins share, each to its own degree: so that many top at once. */
const SHARED_WAVES = [
  [2.3 * 3_600_000, 0.0035],
  [7.1 * 3_600_000, 0.007],
  [26.3 * 3_600_000, 0.018],
  [5.2 * 86_400_000, 0.03],
  [23 * 86_400_000, 0.06],
] as const;
/** Those of a coin's own; each coin has other periods, near these. */
const OWN_WAVES = [
  [19 * 60_000, 0.0008],
  [47 * 60_000, 0.002],
  [1.9 * 3_600_000, 0.004],
  [5.7 * 3_600_000, 0.007],
  [17 * 3_600_000, 0.012],
  [3.7 * 86_400_000, 0.025],
  [61 * 86_400_000, 0.12],
] as const;
/** Waves longer than this are straight within an hour: only its ends are computed. */
const SLOW_MS = 12 * 3_600_000;
/** By how much a period of its own differs from another coin's, at most, each way. */
const PERIOD_SPREAD = 0.25;
/** Degree to which a coin takes part in the shared waves. */
const SHARE = { least: 0.6, most: 1.5 } as const;
/** A tick lies off the waves by up to this share of the price: candles have wicks. */
const JITTER = 0.0006;
/** Most of what one tick trades, in quote units, about. */
const LARGEST_TICK_VALUE = 300_000;

/** What happened in one span of time. Prices in units of the last decimal that is printed, quantity in units of its own. */
export interface Bar {
  /** ms. */
  readonly start: number;
  readonly open: number;
  readonly high: number;
  readonly low: number;
  readonly close: number;
  readonly quantity: number;
  /** Sum of price × quantity. */
  readonly worth: number;
}

export interface PricePathOptions {
  readonly seed: number;
  readonly base: string;
  /** The price at `anchor`, or, without one, the middle of all prices; in printed units. */
  readonly price: number;
  /** ms since the epoch. */
  readonly anchor: number | null;
  /** Units of quantity that cost one quote unit, about. */
  readonly quantityPerQuote: number;
}

interface Wave {
  readonly period: number;
  readonly height: number;
  readonly phase: number;
}

interface Block {
  readonly place: number;
  readonly prices: Float64Array;
  readonly quantities: Float64Array;
}

export class PricePath {
  private readonly slow: readonly Wave[];
  private readonly quick: readonly Wave[];
  private readonly hashSeed: number;
  private readonly scale: number;
  private readonly largestTick: number;
  /** The one asked for last: who reads bars goes through time in order. */
  private block: Block | null = null;

  constructor(options: PricePathOptions) {
    const { seed, base, price, anchor, quantityPerQuote } = options;
    const waves = [...sharedWaves(seed, base), ...ownWaves(seed, base)];
    this.slow = waves.filter(({ period }) => period >= SLOW_MS);
    this.quick = waves.filter(({ period }) => period < SLOW_MS);
    this.hashSeed = seedFor(seed, `ticks ${base}`);
    this.largestTick = Math.max(2, LARGEST_TICK_VALUE * quantityPerQuote);
    this.scale = 1;
    if (anchor === null) this.scale = price;
    else {
      const tick = lastTick(anchor);
      const level = this.levels(Math.floor(tick / BLOCK_TICKS))[tick - firstOf(tick)] as number;
      this.scale = price / Math.exp(level);
    }
  }

  /** The price of the last tick before `time`. */
  priceAt(time: number): number {
    return this.at(lastTick(time)).price;
  }

  /** What the last tick before `time` traded. */
  quantityAt(time: number): number {
    return this.at(lastTick(time)).quantity;
  }

  /** The ticks from `from` until `to`, which is not included; it opens where the tick before it closed. */
  bar(from: number, to: number): Bar {
    const open = this.priceAt(from);
    let [high, low, close, quantity, worth] = [open, open, open, 0, 0];
    const last = lastTick(to);
    for (let tick = lastTick(from) + 1; tick <= last; ) {
      const { prices, quantities } = this.blockOf(tick);
      const first = firstOf(tick);
      const end = Math.min(last - first, BLOCK_TICKS - 1);
      for (let place = tick - first; place <= end; place++) {
        close = prices[place] as number;
        if (close > high) high = close;
        if (close < low) low = close;
        const traded = quantities[place] as number;
        quantity += traded;
        worth += traded * close;
      }
      tick = first + BLOCK_TICKS;
    }
    return { start: from, open, high, low, close, quantity, worth };
  }

  private at(tick: number): { price: number; quantity: number } {
    const { prices, quantities } = this.blockOf(tick);
    const place = tick - firstOf(tick);
    return { price: prices[place] as number, quantity: quantities[place] as number };
  }

  private blockOf(tick: number): Block {
    const place = Math.floor(tick / BLOCK_TICKS);
    if (this.block?.place === place) return this.block;
    const prices = this.levels(place);
    const quantities = new Float64Array(BLOCK_TICKS);
    for (let index = 0; index < BLOCK_TICKS; index++) {
      prices[index] = Math.max(1, Math.round(this.scale * Math.exp(prices[index] as number)));
      const share = hashOf(this.hashSeed ^ 0x5bd1e995, place * BLOCK_TICKS + index);
      quantities[index] = 1 + Math.floor(this.largestTick * share * share * share);
    }
    this.block = { place, prices, quantities };
    return this.block;
  }

  /** Logarithms of the prices of an hour. Quick waves are turned from tick to tick, from the hour's beginning on: a sine each would cost more. */
  private levels(place: number): Float64Array {
    const levels = new Float64Array(BLOCK_TICKS);
    const start = place * BLOCK_MS + TICK_MS / 2;
    const slow = heightAt(this.slow, start);
    const rise = (heightAt(this.slow, start + BLOCK_MS) - slow) / BLOCK_TICKS;
    for (let index = 0; index < BLOCK_TICKS; index++) levels[index] = slow + index * rise;
    for (const { period, height, phase } of this.quick) {
      const angle = angleAt(period, phase, start);
      const step = (TICK_MS / period) * 2 * Math.PI;
      const [turnSine, turnCosine] = [Math.sin(step), Math.cos(step)];
      let [sine, cosine] = [height * Math.sin(angle), height * Math.cos(angle)];
      for (let index = 0; index < BLOCK_TICKS; index++) {
        levels[index] = (levels[index] as number) + sine;
        const turned = sine * turnCosine + cosine * turnSine;
        cosine = cosine * turnCosine - sine * turnSine;
        sine = turned;
      }
    }
    for (let index = 0; index < BLOCK_TICKS; index++) {
      const off = hashOf(this.hashSeed, place * BLOCK_TICKS + index) * 2 - 1;
      levels[index] = (levels[index] as number) + JITTER * off * off * off;
    }
    return levels;
  }
}

/** The number of the last tick before `time`. */
function lastTick(time: number): number {
  return Math.ceil((time - TICK_MS / 2) / TICK_MS) - 1;
}

/** The first tick of the hour of a tick. */
function firstOf(tick: number): number {
  return Math.floor(tick / BLOCK_TICKS) * BLOCK_TICKS;
}

function sharedWaves(seed: number, base: string): Wave[] {
  const random = seededRandom(seedFor(seed, 'shared waves'));
  const share = SHARE.least + (SHARE.most - SHARE.least) * seededRandom(seedFor(seed, `share ${base}`))();
  return SHARED_WAVES.map(([period, height]) => ({ period, height: height * share, phase: random() * 2 * Math.PI }));
}

function ownWaves(seed: number, base: string): Wave[] {
  const random = seededRandom(seedFor(seed, `own waves ${base}`));
  return OWN_WAVES.map(([period, height]) => ({
    period: Math.round(period * (1 + PERIOD_SPREAD * (2 * random() - 1))),
    height,
    phase: random() * 2 * Math.PI,
  }));
}

function angleAt(period: number, phase: number, time: number): number {
  return ((time % period) / period) * 2 * Math.PI + phase;
}

function heightAt(waves: readonly Wave[], time: number): number {
  return waves.reduce((sum, { period, height, phase }) => sum + height * Math.sin(angleAt(period, phase, time)), 0);
}

/** A number from 0 up to 1 for each place, without an order in them. */
function hashOf(seed: number, place: number): number {
  let mixed = Math.imul(seed ^ place, 0x9e3779b1);
  mixed = Math.imul(mixed ^ (mixed >>> 15), 0x85ebca6b);
  mixed = Math.imul(mixed ^ (mixed >>> 13), 0xc2b2ae35);
  return ((mixed ^ (mixed >>> 16)) >>> 0) / 4_294_967_296;
}
