/**
 * Pearson correlation of a coin's returns with those of BTC a little earlier: pure.
 *
 * Both lie on one grid of time, a place for each candle. A return stands only where both coins have this candle and the one right before it:
 * it spans one bar, never a hole, and the first candle of a period has none. So lag t pairs BTC's return with the coin's exactly t bars later.
 * Means and variances of a lag are those of its own pairs; they come from running sums, and no return is copied for a lag or a period.
 */
import { largestOf } from './significance.ts';

/** Lags 0 to this, bars: a coin may follow BTC, and is not asked whether it leads. */
export const MOST_LAG = 48;
export const LAGS = MOST_LAG + 1;
/** Fewer pairs than these make no correlation, fewer candles no period. */
const LEAST_PAIRS = 30;
const LEAST_POINTS = 100;
/** A period is one when its candles reach over so much of it, from the first to the last. */
const COVERED = 0.95;
/** So much of BTC's candles of a period must be there: what is missing of them we missed, and not the market. */
const BASE_ROWS = 0.95;
/** A period of which more of the coin's candles are missing is not the one that is named. */
const LEAST_ALIGNED = 0.75;
const MOST_MISSING_RETURNS = 0.05;
/** More lost to the alignment than this is warned of. */
export const WARNED_LOSS = 0.1;
/** Returns that deviate less than this from their mean (standard deviation) are those of a price that does not move. */
const FLAT = 1e-12;
/** Correlations nearer to each other than this are equal: sums are rounded. */
const TIE = 1e-12;

/** Candles by time: as long as each other, ascending. */
export interface Closes {
  /** Starts, ms since the epoch. */
  readonly times: ArrayLike<number>;
  readonly closes: ArrayLike<number>;
}

/** What a period says. Absent is null, and then `reason` tells why. */
export interface Correlation {
  /** The largest over all lags, −1 to 1. */
  corr: number | null;
  /** Bars by which the coin follows BTC there; of equal ones the smallest. */
  lag: number | null;
  /** The chance of a largest one like this where there is no correlation; see significance.ts. */
  p_value: number | null;
  /** Pairs of returns at this lag. */
  pairs: number | null;
  /** Candles that both have. */
  points: number;
  /** Candles that only one of them has: of the one that has more. */
  lost: number;
  /** `lost` as a share of that one's candles, 0 to 1. */
  lost_share: number;
  reason: string | null;
}

/** Works on one coin after the other; its arrays are made once. */
export class Correlator {
  private readonly base: Float64Array;
  private readonly coin: Float64Array;
  /** Returns less their mean (of the period computed last), and 0 where there is none. */
  private readonly x: Float64Array;
  private readonly y: Float64Array;
  /** 1 where there is a return. */
  private readonly has: Uint8Array;
  private readonly holes: Int32Array;

  /** @param bars places of the longest period @param width ms from one candle to the next */
  constructor(
    private readonly bars: number,
    private readonly width: number,
  ) {
    const numbers = () => new Float64Array(bars);
    [this.base, this.coin, this.x, this.y] = [numbers(), numbers(), numbers(), numbers()];
    this.has = new Uint8Array(bars);
    this.holes = new Int32Array(bars);
  }

  /** The candles of BTC. @param end start of the last one that counts, ms */
  setBase(candles: Closes, end: number): void {
    this.place(candles, end, this.base);
  }

  /** The candles of a coin, up to the same end. */
  setCoin(candles: Closes, end: number): void {
    this.place(candles, end, this.coin);
    const { base, coin, x, y, has, bars } = this;
    for (let i = 0; i < bars; i++) {
      const xi = i === 0 ? Number.NaN : base[i]! / base[i - 1]! - 1;
      const yi = i === 0 ? Number.NaN : coin[i]! / coin[i - 1]! - 1;
      // NaN where either candle is absent, of either coin.
      const stands = Number.isFinite(xi) && Number.isFinite(yi);
      has[i] = stands ? 1 : 0;
      x[i] = stands ? xi : 0;
      y[i] = stands ? yi : 0;
    }
  }

  /** The correlation over the newest `length` bars. */
  period(length: number): Correlation {
    const from = this.bars - length;
    const rows = this.rows(from);
    const most = Math.max(rows.base.count, rows.coin.count);
    const lost = most - rows.points;
    const none = (reason: string): Correlation => ({
      ...{ corr: null, lag: null, p_value: null, pairs: null },
      ...{ points: rows.points, lost, lost_share: most === 0 ? 0 : lost / most, reason },
    });
    const lack = this.lackOf(rows, length);
    if (lack !== null) return none(lack);
    const first = from + 1;
    const returns = this.countReturns(first);
    const missing = 1 - returns / (rows.points - 1);
    if (missing > MOST_MISSING_RETURNS) return none(`${percent(missing)} of the returns are missing`);
    this.centre(this.x, first, returns);
    this.centre(this.y, first, returns);
    const best = this.largest(first);
    if (typeof best === 'string') return none(best);
    const { corr, lag, pairs } = best;
    return { ...none(''), corr, lag, pairs, p_value: largestOf(LAGS, corr, pairs), reason: null };
  }

  private place({ times, closes }: Closes, end: number, into: Float64Array): void {
    into.fill(Number.NaN);
    const begin = end - (this.bars - 1) * this.width;
    for (let i = 0; i < times.length; i++) {
      const at = (times[i]! - begin) / this.width;
      if (at >= 0 && at < this.bars && Number.isInteger(at)) into[at] = closes[i]!;
    }
  }

  private rows(from: number): { base: Extent; coin: Extent; points: number } {
    const { base, coin, bars } = this;
    const [ofBase, ofCoin] = [new Extent(), new Extent()];
    let points = 0;
    for (let i = from; i < bars; i++) {
      const isBase = !Number.isNaN(base[i]);
      const isCoin = !Number.isNaN(coin[i]);
      if (isBase) ofBase.add(i);
      if (isCoin) ofCoin.add(i);
      if (isBase && isCoin) points++;
    }
    return { base: ofBase, coin: ofCoin, points };
  }

  /** Why these candles are not the period, or null. */
  private lackOf({ base, coin, points }: ReturnType<Correlator['rows']>, length: number): string | null {
    if (base.count === 0) return 'BTC: no candles';
    if (base.span < COVERED * length) return `BTC: ${this.days(base.span)} of ${this.days(length)} days`;
    if (base.count < BASE_ROWS * length) return `BTC: ${base.count} of ${length} candles`;
    if (coin.count === 0) return 'no candles';
    if (coin.span < COVERED * length) return `${this.days(coin.span)} of ${this.days(length)} days`;
    if (points < LEAST_ALIGNED * length) return `${points} of ${length} candles`;
    return points < LEAST_POINTS ? `${points} candles, fewer than ${LEAST_POINTS}` : null;
  }

  private days(bars: number): string {
    return String(Math.floor((bars * this.width) / 8_640_000) / 10);
  }

  /** Counts the returns from `first` on, and notes the places that have none. */
  private countReturns(first: number): number {
    const { has, holes, bars } = this;
    let found = 0;
    for (let i = first; i < bars; i++) if (has[i] === 0) holes[found++] = i;
    holes.fill(-1, found);
    return bars - first - found;
  }

  /** Takes the mean of a period off all returns: about it, the sums of squares lose no digits. */
  private centre(returns: Float64Array, first: number, count: number): void {
    const { has, bars } = this;
    let sum = 0;
    for (let i = first; i < bars; i++) sum += returns[i]!;
    const mean = sum / count;
    for (let i = 0; i < bars; i++) if (has[i] !== 0) returns[i]! -= mean;
  }

  private largest(first: number): { corr: number; lag: number; pairs: number } | string {
    const { x, y, bars } = this;
    const sums = new Sums(this.x, this.y, this.has, this.holes, first);
    let best: { corr: number; lag: number; pairs: number } | null = null;
    const deviations = { x: 0, y: 0 };
    for (let lag = 0; lag <= MOST_LAG; lag++) {
      const { pairs, sumX, sumY, squaresX, squaresY } = sums.at(lag);
      if (pairs < LEAST_PAIRS) continue;
      const varianceX = squaresX - (sumX * sumX) / pairs;
      const varianceY = squaresY - (sumY * sumY) / pairs;
      deviations.x = Math.max(deviations.x, varianceX / pairs);
      deviations.y = Math.max(deviations.y, varianceY / pairs);
      if (varianceX <= pairs * FLAT * FLAT || varianceY <= pairs * FLAT * FLAT) continue;
      const covariance = products(x, y, first, bars - lag, lag) - (sumX * sumY) / pairs;
      const corr = Math.min(1, Math.max(-1, covariance / Math.sqrt(varianceX * varianceY)));
      if (best === null || corr > best.corr + TIE) best = { corr, lag, pairs };
    }
    if (best !== null) return best;
    if (deviations.x <= FLAT * FLAT) return 'BTC does not move';
    return deviations.y <= FLAT * FLAT ? 'the price does not move' : `fewer than ${LEAST_PAIRS} pairs`;
  }
}

/** Where candles are: how many, and from which place to which. */
class Extent {
  count = 0;
  private first = -1;
  private last = -1;

  add(place: number): void {
    if (this.count++ === 0) this.first = place;
    this.last = place;
  }

  get span(): number {
    return this.count === 0 ? 0 : this.last - this.first + 1;
  }
}

/** Sums over the pairs of a lag: those of all returns, less what has no partner, which is few. */
class Sums {
  private readonly total = { pairs: 0, sumX: 0, sumY: 0, squaresX: 0, squaresY: 0 };
  private lag = 0;

  constructor(
    private readonly x: Float64Array,
    private readonly y: Float64Array,
    private readonly has: Uint8Array,
    private readonly holes: Int32Array,
    private readonly first: number,
  ) {
    const { total } = this;
    for (let i = first; i < x.length; i++) {
      total.pairs += has[i]!;
      total.sumX += x[i]!;
      total.sumY += y[i]!;
      total.squaresX += x[i]! * x[i]!;
      total.squaresY += y[i]! * y[i]!;
    }
  }

  /** @param lag 0, and then one more each time */
  at(lag: number): { pairs: number; sumX: number; sumY: number; squaresX: number; squaresY: number } {
    const { x, y, has, holes, first, total } = this;
    const end = x.length;
    // BTC's last returns, and the coin's first ones, have no partner any more.
    for (; this.lag < lag && first + this.lag < end; this.lag++) {
      const [late, early] = [end - 1 - this.lag, first + this.lag];
      total.pairs -= has[late]!;
      total.sumX -= x[late]!;
      total.squaresX -= x[late]! * x[late]!;
      total.sumY -= y[early]!;
      total.squaresY -= y[early]! * y[early]!;
    }
    const of = { ...total };
    for (let k = 0; k < holes.length && holes[k]! >= 0; k++) {
      const [partnerX, partnerY] = [holes[k]! - lag, holes[k]! + lag];
      if (partnerX >= first) {
        // A return of BTC without one of the coin; 0 where it is itself a hole.
        of.pairs -= has[partnerX]!;
        of.sumX -= x[partnerX]!;
        of.squaresX -= x[partnerX]! * x[partnerX]!;
      }
      if (partnerY < end) {
        of.sumY -= y[partnerY]!;
        of.squaresY -= y[partnerY]! * y[partnerY]!;
      }
    }
    return of;
  }
}

/** Σ x[i]·y[i + lag] for i from `from` to `end`, which is not included: four sums at a time, as one waits for its own last addition. */
function products(x: Float64Array, y: Float64Array, from: number, end: number, lag: number): number {
  let [one, two, three, four] = [0, 0, 0, 0];
  let i = from;
  for (; i + 3 < end; i += 4) {
    one += x[i]! * y[i + lag]!;
    two += x[i + 1]! * y[i + 1 + lag]!;
    three += x[i + 2]! * y[i + 2 + lag]!;
    four += x[i + 3]! * y[i + 3 + lag]!;
  }
  for (; i < end; i++) one += x[i]! * y[i + lag]!;
  return one + two + (three + four);
}

function percent(share: number): string {
  return `${Math.floor(share * 1000) / 10} %`;
}
