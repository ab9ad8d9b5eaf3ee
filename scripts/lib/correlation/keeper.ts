/**
 * Keeps the candles of every series: what is missing is asked for over REST, what comes is taken from the sockets.
 *
 * One thing holds at any moment, however often the process dies: up to the newest stored candle of a series, all that the venue had is stored.
 * So a socket's candle is stored only when nothing before it is missing, and an answer from its oldest candle on.
 */
import type { Logger } from '../log.ts';
import { type Candle, type CandleTable, newestFinished, type SeriesName, seriesKey } from './candles.ts';
import { BASE, TIMEFRAMES } from './periods.ts';
import type { CandleTape } from './stream.ts';
import { HyperliquidRest, SERVED_BARS, VenueFailed } from './venue.ts';

/** Candles that are asked for again, to hear whether the venue still tells them the same; they cost nothing more. */
const OVERLAP_BARS = 5;
/** A coin may be behind by so many bars, as one that is not traded all the time is; more are asked for. BTC may not. */
const TAIL_BARS = 2;
/** A shorter answer is whole; a longer one may have been cut. */
const CUT_ROWS = 500;
/** After so many failures in a row a round goes on with what there is. */
const MOST_FAILURES = 3;
/** Candles of the sockets are stored this often. */
const FLUSH_MS = 60_000;
/** Stored candles that are compared with what the venue tells of them now: so many of a series, of so many series a round, in turn. */
const AUDITED_BARS = 60;
const AUDITED_SERIES = 3;

export interface Extended {
  /** Series that needed no request. */
  hits: number;
  /** Of so many. */
  series: number;
  /** Requests that failed, in words. */
  faults: string[];
}

export class CandleKeeper {
  /** Since the start of this process. */
  readonly figures = { lostForGood: 0 };
  /** Up to this candle all that the venue had is stored, ms. */
  private readonly complete = new Map<string, number>();
  private flushedAt = Number.NEGATIVE_INFINITY;
  private audited = 0;

  constructor(
    private readonly table: CandleTable,
    private readonly rest: HyperliquidRest,
    private readonly log: Logger,
    /** Wall clock, ms. */
    private readonly clock: () => number,
    /** Absent: without sockets. */
    private readonly tape: CandleTape | null,
  ) {}

  /** Reads how far everything is. @throws when the database does not answer */
  async load(): Promise<void> {
    this.complete.clear();
    for (const [key, { last }] of await this.table.extents()) this.complete.set(key, last);
  }

  /** Up to where a series is whole, ms; null: nothing of it is stored. */
  newest(series: SeriesName): number | null {
    return this.complete.get(seriesKey(series)) ?? null;
  }

  /**
   * Brings all series up to now, BTC first. A series whose request fails stays behind.
   * @param progress told before each request: series that are done, and the time that the rest takes, ms
   * @throws when the database does not store, or it is stopped
   */
  async extend(
    all: readonly SeriesName[],
    stop: AbortSignal,
    progress: (done: number, left: number, series: SeriesName) => void,
  ): Promise<Extended> {
    const extended: Extended = { hits: 0, series: all.length, faults: [] };
    const order = [...all].sort((one, other) => Number(other.coin === BASE) - Number(one.coin === BASE));
    await this.flush(all, stop);
    const due = order.filter((series) => this.missing(series) > 0);
    let left = due.reduce((sum, series) => sum + this.rest.timeOf(HyperliquidRest.weightOf(this.missing(series))), 0);
    extended.hits = all.length - due.length;
    let failures = 0;
    for (const [place, series] of due.entries()) {
      progress(extended.hits + place, left, series);
      left -= this.rest.timeOf(HyperliquidRest.weightOf(this.missing(series)));
      try {
        await this.fetch(series, stop);
        failures = 0;
      } catch (error) {
        if (!(error instanceof VenueFailed)) throw error;
        extended.faults.push(`${seriesKey(series)}: ${error.message}`);
        failures += 1;
        if (failures >= MOST_FAILURES) {
          extended.faults.push(`${due.length - place - 1} further series are not asked for`);
          break;
        }
      }
      await this.flushIfDue(all, stop);
    }
    await this.flush(all, stop);
    return extended;
  }

  /** Stores what the sockets have finished, now and then. */
  async flushIfDue(all: readonly SeriesName[], stop: AbortSignal): Promise<void> {
    if (Math.abs(this.clock() - this.flushedAt) >= FLUSH_MS) await this.flush(all, stop);
  }

  /** Asks the venue once more for what is stored, of a few series: what it tells differently is told. */
  async audit(all: readonly SeriesName[], stop: AbortSignal): Promise<void> {
    const stored = all.filter((series) => this.newest(series) !== null);
    const others = Array.from({ length: Math.min(AUDITED_SERIES, stored.length) }, () => {
      this.audited += 1;
      return stored[this.audited % stored.length]!;
    });
    for (const series of others) {
      const last = this.newest(series)!;
      const from = last - (AUDITED_BARS - 1) * TIMEFRAMES[series.timeframe];
      try {
        await this.table.keep(await this.rest.candles(series, from, last, stop), 'rest', stop);
      } catch (error) {
        if (!(error instanceof VenueFailed)) throw error;
        this.log.warn({ event: 'audit_failed', series: seriesKey(series), reason: error.message });
      }
    }
  }

  /** Candles of a series that are to be asked for. */
  private missing(series: SeriesName): number {
    const end = newestFinished(series.timeframe, this.clock());
    const width = TIMEFRAMES[series.timeframe];
    const newest = this.newest(series);
    if (newest === null) return SERVED_BARS;
    const behind = Math.round((end - newest) / width);
    const mayBe = series.coin === BASE ? 0 : TAIL_BARS;
    return behind <= mayBe ? 0 : Math.min(behind + OVERLAP_BARS, SERVED_BARS);
  }

  private async fetch(series: SeriesName, stop: AbortSignal): Promise<void> {
    const width = TIMEFRAMES[series.timeframe];
    const key = seriesKey(series);
    const end = newestFinished(series.timeframe, this.clock());
    const newest = this.newest(series);
    const oldest = end - (SERVED_BARS - 1) * width;
    if (newest !== null && oldest > newest + width) {
      this.figures.lostForGood += (oldest - newest) / width - 1;
      this.log.error(
        {
          event: 'candles_lost',
          series: key,
          after: new Date(newest).toISOString(),
          before: new Date(oldest).toISOString(),
        },
        'the venue serves them no more',
      );
    }
    let from = newest === null ? oldest : Math.max(newest - (OVERLAP_BARS - 1) * width, oldest);
    for (;;) {
      const candles = await this.rest.candles(series, from, end, stop);
      await this.table.keep(candles, 'rest', stop);
      const last = candles.at(-1)?.start;
      if (last !== undefined) this.complete.set(key, Math.max(last, this.complete.get(key) ?? last));
      // An answer that ends early and is long may have been cut.
      if (last === undefined || last >= end || candles.length < CUT_ROWS) break;
      from = last + width;
    }
  }

  /** Stores the finished candles of the sockets of those series that are whole up to them. */
  private async flush(all: readonly SeriesName[], stop: AbortSignal): Promise<void> {
    this.flushedAt = this.clock();
    const { tape } = this;
    if (tape === null) return;
    const batch: Candle[] = [];
    const ends: [SeriesName, number][] = [];
    for (const series of all) {
      const since = tape.since(series);
      const newest = this.newest(series);
      if (since === null || newest === null || since > newest + TIMEFRAMES[series.timeframe]) continue;
      const candles = tape.finished(series, this.clock());
      const last = candles.at(-1)?.start;
      if (last === undefined) continue;
      batch.push(...candles.filter(({ start }) => start > newest));
      ends.push([series, last]);
    }
    await this.table.keep(batch, 'socket', stop);
    for (const [series, last] of ends) {
      const key = seriesKey(series);
      this.complete.set(key, Math.max(last, this.complete.get(key)!));
      tape.taken(series, last);
    }
  }
}
