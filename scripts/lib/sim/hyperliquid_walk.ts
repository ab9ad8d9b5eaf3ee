/**
 * Prices of Hyperliquid's coins as functions of time: each follows BTC, in its own proportion, with noise of its own, and one may be made
 * to leave BTC for a while.
 *
 * Pure: a random walk is put together from midpoints of ever shorter spans, so that any minute of any year costs the same few steps, and is
 * the same however often it is asked.
 */
import { seededRandom, seedFor } from './market.ts';

const MINUTE_MS = 60_000;
/** The longest span of a walk is 2 to this many minutes, about 91 days; at its ends the walk is at 0. */
const DEPTH = 17;
/** Of one minute's move, as a share of the price (standard deviation). */
const BASE_MOVE = 0.0005;
const OWN_MOVE = { least: 0.00025, most: 0.00045 } as const;
/** In which proportion coins follow BTC. */
const SHARE = { least: 0.8, most: 1.4 } as const;

/** A walk of about normal moves, one a minute: its height at a time in ms, in moves. */
export class Walk {
  constructor(private readonly seed: number) {}

  at(time: number): number {
    const minutes = time / MINUTE_MS;
    let height = 0;
    // Between two minutes it is straight.
    for (let depth = 1; depth <= DEPTH; depth++) {
      const length = 2 ** depth;
      const place = Math.floor(minutes / length);
      const within = minutes / length - place;
      // Within its span a midpoint counts the less the farther it is.
      const near = 1 - Math.abs(2 * within - 1);
      if (near > 0) height += (Math.sqrt(length) / 2) * near * bell(this.seed + depth * 7919, place);
    }
    return height;
  }
}

/** A span in which a coin does not follow; `to` null: until further notice. ms. */
export interface Absence {
  readonly from: number;
  to: number | null;
}

/** What a coin is worth compared with its start, as a logarithm. */
export class Follower {
  readonly absences: Absence[] = [];
  private readonly own: Walk;
  /** Where it goes while it does not follow. */
  private readonly away: Walk;
  private readonly share: number;
  private readonly move: number;

  /** @param base the logarithm of BTC at a time @param lagMs how much later than BTC it moves */
  constructor(
    seed: number,
    coin: string,
    private readonly base: (time: number) => number,
    private readonly lagMs: number,
  ) {
    const random = seededRandom(seedFor(seed, `follower ${coin}`));
    this.share = SHARE.least + (SHARE.most - SHARE.least) * random();
    this.move = OWN_MOVE.least + (OWN_MOVE.most - OWN_MOVE.least) * random();
    this.own = new Walk(seedFor(seed, `own ${coin}`));
    this.away = new Walk(seedFor(seed, `away ${coin}`));
  }

  at(time: number): number {
    const { share, move, own, away, lagMs } = this;
    let followed = this.base(time - lagMs);
    for (const { from, to } of this.absences) {
      if (time <= from) continue;
      const end = Math.min(time, to ?? time);
      // What BTC did meanwhile is taken back, and something else done in its place: no price leaps.
      followed += BASE_MOVE * (away.at(end) - away.at(from)) - (this.base(end - lagMs) - this.base(from - lagMs));
    }
    return share * followed + move * own.at(time);
  }
}

/** The logarithm of BTC itself where nobody trades it. */
export function baseWalk(seed: number): (time: number) => number {
  const walk = new Walk(seedFor(seed, 'base walk'));
  return (time) => BASE_MOVE * walk.at(time);
}

/** About normal, mean 0 and deviation 1, for each place: three even chances together. */
export function bell(seed: number, place: number): number {
  return 2 * (chanceOf(seed, place) + chanceOf(seed + 1, place) + chanceOf(seed + 2, place) - 1.5);
}

/** A number from 0 up to 1 for each place, without an order in them. */
export function chanceOf(seed: number, place: number): number {
  let mixed = Math.imul((seed ^ 0x2545f491) | 0, 0x9e3779b1) ^ Math.imul(place | 0, 0x85ebca6b);
  mixed = Math.imul(mixed ^ (mixed >>> 16), 0x7feb352d);
  mixed = Math.imul(mixed ^ (mixed >>> 15), 0x846ca68b);
  return ((mixed ^ (mixed >>> 16)) >>> 0) / 4_294_967_296;
}
