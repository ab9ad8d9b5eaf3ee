/**
 * Hyperliquid over REST: which perpetuals are active, and their candles; within the venue's limit of weight, and leaving some of it to others.
 *
 * Source: the venue's API documents: candleSnapshot serves the newest 5000 candles of a coin and interval, weighs 20 and one more for each 60
 * of its rows; 1200 may be used in a minute. What it tells of minutes without a trade they do not say: none here is taken as none.
 */
import { z } from 'zod';
import { hyperliquid } from '../../exchanges/hyperliquid.ts';
import type { Config } from '../config.ts';
import type { Logger } from '../log.ts';
import { pause } from '../pause.ts';
import { steadyNow } from '../steady.ts';
import { VenueRest } from '../venue_rest.ts';
import { type Candle, candleOf, type SeriesName, seriesKey } from './candles.ts';
import { TIMEFRAMES } from './periods.ts';

/** The venue serves no candle that is older than so many. */
export const SERVED_BARS = 5000;
const WEIGHT = 20;
const ROWS_PER_WEIGHT = 60;
/** Of the venue's weight; the collector, behind the same address, uses the rest. */
const SHARE = 0.8;
/** Weight that may be used at once after a pause, in ms of the pace. */
const BURST_MS = 10_000;
/** A refusal that ends later is not waited for: the turn ends, and another comes. */
const LONGEST_WAIT_MS = 90_000;
/** A request that has waited so often is given up: the weight is used by others, or it is refused again and again. */
const MOST_WAITS = 3;
const MINUTE_MS = 60_000;

const META = z.object({
  universe: z.array(z.object({ name: z.string().min(1), isDelisted: z.boolean().optional() })).min(1),
});

/** The venue or the way to it is at fault, or asks us to wait for long. */
export class VenueFailed extends Error {}

export class HyperliquidRest {
  /** Since the start of this process. */
  readonly figures = { weight: 0, requests: 0, failed: 0, badCandles: 0 };
  private readonly rest: VenueRest;
  /** When the weight that was used is worked off, steady clock, ms. */
  private nextAt = 0;

  /** @param weightPerMinute of the venue */
  constructor(
    config: Config,
    private readonly log: Logger,
    private readonly weightPerMinute = hyperliquid.restWeightPerMinute,
  ) {
    const { restWeightHeader: weightHeader, hosts } = hyperliquid;
    const { dataDir, blockedRetryMs } = config;
    const host = (config.endpoints.hyperliquid ?? hosts).rest;
    this.rest = new VenueRest({ host, dataDir, weightPerMinute, weightHeader, blockedRetryMs, log });
  }

  /** Coins of the perpetuals that are traded. @throws VenueFailed */
  async universe(stop: AbortSignal): Promise<string[]> {
    const parsed = META.safeParse(await this.ask({ type: 'meta' }, WEIGHT, stop));
    if (!parsed.success) throw new VenueFailed('meta: an answer that is none of the venue’s');
    return parsed.data.universe.filter(({ isDelisted }) => isDelisted !== true).map(({ name }) => name);
  }

  /** Weight of a request for so many candles. */
  static weightOf(bars: number): number {
    return WEIGHT + Math.floor(Math.min(bars, SERVED_BARS) / ROWS_PER_WEIGHT);
  }

  /** Time that so much weight takes, ms. */
  timeOf(weight: number): number {
    return (weight / (this.weightPerMinute * SHARE)) * MINUTE_MS;
  }

  /**
   * Candles that begin from `from` to `to` (ms, both included), ascending, each once. One that is not sound is left out and told.
   * @throws VenueFailed
   */
  async candles(series: SeriesName, from: number, to: number, stop: AbortSignal): Promise<Candle[]> {
    const width = TIMEFRAMES[series.timeframe];
    const { coin, timeframe: interval } = series;
    const bars = Math.floor((to - from) / width) + 1;
    const req = { coin, interval, startTime: from, endTime: to + width - 1 };
    const answer = await this.ask({ type: 'candleSnapshot', req }, HyperliquidRest.weightOf(bars), stop);
    if (!Array.isArray(answer)) throw new VenueFailed(`candleSnapshot ${seriesKey(series)}: an answer that is no list`);
    const found = new Map<number, Candle>();
    for (const row of answer) {
      try {
        const candle = candleOf(row);
        if (candle.coin !== coin || candle.timeframe !== interval) throw new Error(`it is one of ${seriesKey(candle)}`);
        if (candle.start >= from && candle.start <= to) found.set(candle.start, candle);
      } catch (error) {
        this.figures.badCandles += 1;
        this.log.warn({ event: 'bad_candle', series: seriesKey(series), reason: (error as Error).message });
      }
    }
    return [...found.values()].sort((one, other) => one.start - other.start);
  }

  close(): Promise<void> {
    return this.rest.close();
  }

  private async ask(body: object, weight: number, stop: AbortSignal): Promise<unknown> {
    const what = (body as { type: string }).type;
    for (let waits = 0; ; waits++) {
      await this.turn(weight, stop);
      const answer = await this.rest.ask('/info', weight, JSON.stringify(body), SHARE);
      if (answer.kind === 'ok') {
        this.figures.requests += 1;
        this.figures.weight += weight;
        return answer.body;
      }
      this.figures.failed += answer.kind === 'failed' ? 1 : 0;
      if (answer.kind === 'failed') throw new VenueFailed(`${what}: ${answer.reason}`);
      const wait = answer.until - steadyNow();
      if (wait > LONGEST_WAIT_MS || waits >= MOST_WAITS) throw new VenueFailed(`${what}: ${answer.reason}`);
      await pause(Math.max(wait, 0), stop);
    }
  }

  /** Weight is used evenly, so that at any time of a minute there is some left for others. */
  private async turn(weight: number, stop: AbortSignal): Promise<void> {
    const at = Math.max(this.nextAt, steadyNow() - BURST_MS);
    this.nextAt = at + this.timeOf(weight);
    await pause(Math.max(at - steadyNow(), 0), stop);
  }
}
