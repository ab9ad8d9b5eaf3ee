/** Deribit's volatility indexes: pure functions of the seed and of the time, so that stream and candles agree. */
import { float } from './deribit_contracts.ts';
import { seededRandom, seedFor } from './market.ts';

const SECOND_MS = 1000;
/** Periods (ms) and heights of the waves around the middle, in percent points. */
const WAVES = [
  [41_000, 0.05],
  [17 * 60_000, 0.6],
  [7 * 3_600_000, 2.5],
  [90 * 3_600_000, 6],
] as const;
/** Points of a candle at which high and low are looked for; the index is smooth, so a few are enough. */
const POINTS = 12;
const CANDLES_PER_ANSWER = 1000;

/** Candle lengths in ms by the name that a request gives them. */
export const RESOLUTIONS: Readonly<Record<string, number>> = {
  1: SECOND_MS,
  60: 60 * SECOND_MS,
  3600: 3600 * SECOND_MS,
  43200: 43_200 * SECOND_MS,
  '1D': 86_400 * SECOND_MS,
};

/** The 30-day volatility that the options of one coin imply, in percent points: between 30 and 80, two decimals. */
export class VolatilityIndex {
  private readonly middle: number;
  private readonly waves: { period: number; height: number; phase: number }[];

  constructor(
    readonly coin: string,
    seed: number,
  ) {
    const random = seededRandom(seedFor(seed, `volatility ${coin}`));
    this.middle = 40 + 30 * random();
    this.waves = WAVES.map(([period, height]) => ({ period, height, phase: random() * 2 * Math.PI }));
  }

  /** The venue's name of the index, such as `btc_usd`. */
  get name(): string {
    return `${this.coin.toLowerCase()}_usd`;
  }

  /** The index at a time (ms since the epoch). */
  at(time: number): number {
    const sum = this.waves.reduce(
      (total, { period, height, phase }) => total + height * Math.sin((time * 2 * Math.PI) / period + phase),
      this.middle,
    );
    return Number(sum.toFixed(2));
  }

  /**
   * The answer to a request for candles that begin from `from` up to `to` (both ms, both included), as text. The newest thousand
   * come first, in ascending order; `continuation` is then the `to` of the next request. The candle of `now` is still open.
   */
  candles(from: number, to: number, resolution: number, now: number): string {
    const last = Math.floor(Math.min(to, now) / resolution) * resolution;
    const first = Math.max(Math.ceil(from / resolution) * resolution, last - (CANDLES_PER_ANSWER - 1) * resolution);
    const rows: string[] = [];
    for (let start = first; start <= last; start += resolution) rows.push(this.candle(start, resolution, now));
    const next = first - resolution;
    return `{"data":[${rows.join(',')}],"continuation":${rows.length > 0 && next >= from ? next : null}}`;
  }

  private candle(start: number, resolution: number, now: number): string {
    const end = Math.min(start + resolution - SECOND_MS, Math.floor(now / SECOND_MS) * SECOND_MS);
    const points = Array.from({ length: POINTS }, (_, index) =>
      this.at(start + Math.floor(((end - start) * index) / (POINTS - 1))),
    );
    const values = [points[0] as number, Math.max(...points), Math.min(...points), points[POINTS - 1] as number];
    return `[${start},${values.map(float).join(',')}]`;
  }
}
