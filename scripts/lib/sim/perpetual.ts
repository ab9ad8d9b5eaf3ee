/**
 * What a perpetual has beside trades and a book: mark price, funding, open interest, long/short ratios, liquidations.
 *
 * Pure: everything is a function of the seed and of the time asked for, so that a reading is the same however often and in
 * whatever order it is asked, and a ratio row is the same after a restart.
 */
import { decimalText, type Grid, seededRandom, seedFor } from './market.ts';

const SECOND_MS = 1000;
const MINUTE_MS = 60_000;
const HOUR_MS = 3_600_000;
/** Settlement is told with the second after it: until then T still names the old time. */
export const SETTLEMENT_LAG_MS = 1000;
/** How long after the full hour a settlement may be booked, ms: its time is told as it is. */
const BOOKING_MS = 15;
/** At most one liquidation per symbol in this time. */
const LIQUIDATION_GAP_MS = 1000;
/** Liquidation to frame, at most. */
const LIQUIDATION_DELAY_MS = 900;
/** The estimated settle price looks back over this time. */
const SETTLE_SPAN_MS = HOUR_MS;

/** Periods (ms) and heights of the waves of a reading. Rates drift slowly; the smallest step of a rate is 1e-8. */
const RATE_WAVES = [
  [7 * MINUTE_MS, 0.000_002],
  [95 * MINUTE_MS, 0.000_02],
  [31 * HOUR_MS, 0.000_1],
] as const;
const PREMIUM_WAVES = [
  [11_000, 0.000_01],
  [13 * MINUTE_MS, 0.000_2],
] as const;
const INTEREST_WAVES = [
  [50_000, 0.000_2],
  [37 * MINUTE_MS, 0.004],
  [29 * HOUR_MS, 0.05],
] as const;
const SHARE_WAVES = [
  [47 * MINUTE_MS, 0.02],
  [11 * HOUR_MS, 0.06],
] as const;
const BASE_RATE = 0.000_05;
/** Open interest and the largest liquidation in quote units, about. */
const INTEREST_VALUE = 3e9;
const LARGEST_LIQUIDATION_VALUE = 200_000;

export const RATIOS = ['topLongShortPositionRatio', 'topLongShortAccountRatio', 'globalLongShortAccountRatio'] as const;
export type RatioKind = (typeof RATIOS)[number];

export interface PerpetualOptions {
  readonly symbol: string;
  readonly seed: number;
  readonly grid: Grid;
  readonly startPrice: number;
  /** The fair price that the pair's market follows, and when it began. */
  readonly fair: (elapsed: number) => number;
  readonly start: number;
  readonly fundingHours: number;
  /** 0 = none; 60 is the most that a venue which sends one per second can show. */
  readonly liquidationsPerMinute: number;
}

/** Texts as a venue prints them. */
export interface Mark {
  readonly mark: string;
  readonly average: string;
  readonly settle: string;
  readonly index: string;
  readonly rate: string;
  readonly nextFunding: number;
}

/** A funding rate that was paid: the last one told for its hour, and the mark price then. */
export interface Settlement {
  /** ms, on the full hour or a little after. */
  readonly time: number;
  readonly rate: string;
  readonly mark: string;
}

export interface Ratio {
  readonly long: string;
  readonly short: string;
  readonly ratio: string;
}

export interface Liquidation {
  /** When it is told, and when it happened. */
  readonly at: number;
  readonly time: number;
  /** Of the order: SELL closes a long. */
  readonly side: 'BUY' | 'SELL';
  /** Limit at the bankruptcy price, and average price of the fills. */
  readonly limit: string;
  readonly average: string;
  readonly quantity: string;
  readonly lastFill: string;
}

type Wave = (at: number) => number;

/** A sum of sines with phases from the seed, around 0. */
function waves(seed: number, name: string, shape: readonly (readonly [period: number, height: number])[]): Wave {
  const random = seededRandom(seedFor(seed, name));
  const parts = shape.map(([period, height]) => ({ period, height, phase: random() * 2 * Math.PI }));
  return (at) =>
    parts.reduce((sum, { period, height, phase }) => sum + height * Math.sin((at * 2 * Math.PI) / period + phase), 0);
}

export class Perpetual {
  readonly fundingHours: number;
  private readonly rateWave: Wave;
  private readonly premium: Wave;
  private readonly interest: Wave;
  private readonly shares: Record<RatioKind, { middle: number; wave: Wave }>;
  private readonly slotMs: number;

  constructor(private readonly options: PerpetualOptions) {
    const { seed, symbol, liquidationsPerMinute } = options;
    this.fundingHours = options.fundingHours;
    this.rateWave = waves(seed, `rate ${symbol}`, RATE_WAVES);
    this.premium = waves(seed, `premium ${symbol}`, PREMIUM_WAVES);
    this.interest = waves(seed, `interest ${symbol}`, INTEREST_WAVES);
    const share = (kind: RatioKind) => ({
      middle: 0.5 + 0.15 * seededRandom(seedFor(seed, `middle ${kind} ${symbol}`))(),
      wave: waves(seed, `${kind} ${symbol}`, SHARE_WAVES),
    });
    this.shares = {
      topLongShortPositionRatio: share('topLongShortPositionRatio'),
      topLongShortAccountRatio: share('topLongShortAccountRatio'),
      globalLongShortAccountRatio: share('globalLongShortAccountRatio'),
    };
    this.slotMs =
      liquidationsPerMinute > 0
        ? Math.max(LIQUIDATION_GAP_MS, Math.round(MINUTE_MS / liquidationsPerMinute))
        : Number.POSITIVE_INFINITY;
  }

  mark(at: number): Mark {
    const average = (this.markPrice(at) + this.markPrice(at - SECOND_MS) + this.markPrice(at - 2 * SECOND_MS)) / 3;
    const settle = (this.indexPrice(at) + this.indexPrice(at - SETTLE_SPAN_MS / 2)) / 2;
    const period = this.fundingHours * HOUR_MS;
    return {
      mark: this.markPrice(at).toFixed(8),
      average: average.toFixed(8),
      settle: settle.toFixed(8),
      index: this.indexPrice(at).toFixed(8),
      rate: (BASE_RATE + this.rateWave(at)).toFixed(8),
      nextFunding: (Math.floor((at - SETTLEMENT_LAG_MS) / period) + 1) * period,
    };
  }

  /** Settlements from `from` to `to`, both included, oldest first. */
  *settlements(from: number, to: number): Generator<Settlement> {
    const { seed, symbol } = this.options;
    const period = this.fundingHours * HOUR_MS;
    for (let hour = Math.ceil((from - BOOKING_MS) / period) * period; hour <= to; hour += period) {
      const random = seededRandom(seedFor(seed, `settlement ${symbol} ${hour}`));
      // Every other one is booked on the hour itself.
      const time = hour + (random() < 0.5 ? 0 : 1 + Math.floor(random() * BOOKING_MS));
      const { rate, mark } = this.mark(hour);
      if (time >= from && time <= to) yield { time, rate, mark };
    }
  }

  /** Open contracts in base units. */
  openInterest(at: number): string {
    const { startPrice, grid } = this.options;
    const base = (INTEREST_VALUE / startPrice) * (1 + this.interest(at));
    return decimalText(Math.round(base * 10 ** grid.quantityDecimals), grid.quantityDecimals);
  }

  ratio(kind: RatioKind, at: number): Ratio {
    const { middle, wave } = this.shares[kind];
    const long = Math.round(10_000 * (middle + wave(at)));
    const text = (units: number): string => decimalText(units, 4);
    return { long: text(long), short: text(10_000 - long), ratio: (long / (10_000 - long)).toFixed(4) };
  }

  /** Liquidations told after `from` and up to `to`, oldest first: one in each slot of time, at a place of its own in it. */
  *liquidations(from: number, to: number): Generator<Liquidation> {
    if (this.slotMs === Number.POSITIVE_INFINITY) return;
    for (let slot = Math.floor(from / this.slotMs); slot * this.slotMs <= to; slot++) {
      const random = seededRandom(seedFor(this.options.seed, `liquidation ${this.options.symbol} ${slot}`));
      const at = slot * this.slotMs + Math.floor(random() * (this.slotMs - LIQUIDATION_GAP_MS + 1));
      if (at > from && at <= to) yield this.liquidation(at, random);
    }
  }

  /** A price in units of the venue's own decimals, on its tick. */
  private tick(price: number): number {
    const { priceDecimals, tickUnits } = this.options.grid;
    return Math.round((price * 10 ** priceDecimals) / tickUnits) * tickUnits;
  }

  private liquidation(at: number, random: () => number): Liquidation {
    const { grid, startPrice } = this.options;
    const isLong = random() < 0.5;
    const fill = this.markPrice(at) * (1 + (isLong ? -1 : 1) * random() * 0.000_5);
    const limit = fill * (1 + (isLong ? -1 : 1) * (0.001 + random() * 0.005));
    const largest = Math.max(2, (LARGEST_LIQUIDATION_VALUE / startPrice) * 10 ** grid.quantityDecimals);
    const quantity = 1 + Math.floor(largest * random() ** 4);
    const lastFill = random() < 0.5 ? quantity : 1 + Math.floor(random() * quantity);
    return {
      at,
      time: at - Math.floor(random() * LIQUIDATION_DELAY_MS) - 1,
      side: isLong ? 'SELL' : 'BUY',
      limit: decimalText(this.tick(limit), grid.priceDecimals),
      average: decimalText(this.tick(fill), grid.priceDecimals),
      quantity: decimalText(quantity, grid.quantityDecimals),
      lastFill: decimalText(lastFill, grid.quantityDecimals),
    };
  }

  private indexPrice(at: number): number {
    return this.options.startPrice * this.options.fair(at - this.options.start);
  }

  private markPrice(at: number): number {
    return this.indexPrice(at) * (1 + this.premium(at));
  }
}
