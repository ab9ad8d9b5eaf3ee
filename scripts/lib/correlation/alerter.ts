/** Rounds of correlations: candles up to now, every coin against BTC, what is kept of it, and who is told. */
import { createClickHouse, hotServer } from '../clickhouse.ts';
import type { DeskContext, DeskWork } from '../desk/service.ts';
import { type Lock, takeLock } from '../lock.ts';
import { Progress } from '../progress.ts';
import { ensureSignals } from '../schema.ts';
import { AlertBook } from './alert_book.ts';
import { askedRows, follow, leave } from './alerts.ts';
import { CandleTable, EXCHANGE, newestFinished, type SeriesName, symbolOf } from './candles.ts';
import { CandleKeeper, type Extended } from './keeper.ts';
import { fenceAll } from './once_table.ts';
import { BASE, type Period, TIMEFRAMES, type Timeframe } from './periods.ts';
import { lossesOf, ResultTable, reasonsOf, roundTable, type ShownCoin } from './results.ts';
import { TimeframeRound } from './round.ts';
import { type CorrelationLimits, type CorrelationRow, judge } from './rule.ts';
import { CandleStream } from './stream.ts';
import { HyperliquidRest } from './venue.ts';

/** BTC that is older than so many bars makes a round of the past: it is computed, and said to be stale. */
const STALE_BARS = 10;
/** A round in which something could not be had is followed by another after this, or sooner. */
const AGAIN_MS = 300_000;
/** Reasons that a log line or a terminal names. */
const SHOWN_REASONS = 8;
/** How far the computing is, is shown so often. */
const COINS_PER_BREATH = 8;

export interface CorrelationOptions {
  isOnce: boolean;
  intervalMs: number;
  /** This one alone; null: all. */
  coin: string | null;
  timeframes: readonly Timeframe[];
  periods: readonly Period[];
  limits: CorrelationLimits;
  /** Where the table and the progress go; null: nowhere. */
  terminal: NodeJS.WriteStream | null;
  /** Of the venue's weight, where it is not the venue's own. */
  weightPerMinute?: number;
}

export class CorrelationAlerter implements DeskWork {
  private readonly rounds: readonly TimeframeRound[];
  private readonly asked: readonly string[];
  /** Series of the last round, whose sockets are listened to. */
  private series: SeriesName[] = [];
  /** Coins of the last round. */
  private coins: string[] = [];
  /** When the last round began, and how long after that the next one does; ms. */
  private roundAt: number | null = null;
  private pauseMs = 0;
  private isReady = false;
  private errors = 0;

  private constructor(
    private readonly context: DeskContext,
    private readonly options: CorrelationOptions,
    private readonly client: ReturnType<typeof createClickHouse>,
    private readonly lock: Lock,
    private readonly rest: HyperliquidRest,
    private readonly table: CandleTable,
    private readonly results: ResultTable,
    private readonly stream: CandleStream | null,
    private readonly keeper: CandleKeeper,
    readonly book: AlertBook,
  ) {
    this.rounds = options.timeframes.map((timeframe) => new TimeframeRound(timeframe, options.periods));
    this.asked = askedRows(options.timeframes, options.periods);
  }

  /** @throws OperatorError when another process does this, or what is kept cannot be read */
  static async open(context: DeskContext, options: CorrelationOptions): Promise<CorrelationAlerter> {
    const { config, log, clock } = context;
    const lock = await takeLock(config.dataDir, 'correlation alerts');
    try {
      const book = await AlertBook.open(context);
      const client = createClickHouse(hotServer(config), 'marketprism-correlation');
      const rest = new HyperliquidRest(config, log, options.weightPerMinute);
      const table = new CandleTable(client, config.signalsDatabase, log);
      const results = new ResultTable(client, config.signalsDatabase, log);
      const stream = options.isOnce ? null : new CandleStream(config, log);
      const keeper = new CandleKeeper(table, rest, log, clock, stream?.tape ?? null);
      return new CorrelationAlerter(context, options, client, lock, rest, table, results, stream, keeper, book);
    } catch (error) {
      await lock.release();
      throw error;
    }
  }

  /** Null where there are none. */
  get sockets() {
    return this.stream?.state ?? null;
  }

  async turn(stop: AbortSignal): Promise<string[]> {
    const faults: string[] = [];
    try {
      if (this.isDue()) faults.push(...(await this.wholeRound(stop)));
      else await this.keeper.flushIfDue(this.series, stop);
    } catch (error) {
      // A stop in the middle of a round is no fault: the next process goes on where this one was.
      if (stop.aborted) return [];
      this.errors += 1;
      faults.push((error as Error).message);
      this.book.failed((error as Error).message);
    }
    faults.push(...(await this.book.tell(stop)));
    return faults;
  }

  async close(): Promise<void> {
    this.stream?.stop();
    this.book.close();
    await this.rest.close();
    await this.client.close();
    await this.lock.release();
  }

  private isDue(): boolean {
    const { roundAt, pauseMs, context } = this;
    return roundAt === null || Math.abs(context.clock() - roundAt) >= pauseMs;
  }

  private async wholeRound(stop: AbortSignal): Promise<string[]> {
    const { context, book, options } = this;
    await this.prepare(stop);
    const began = context.clock();
    const { faults, ...figures } = await this.round(stop);
    this.roundAt = began;
    this.pauseMs = faults.length === 0 ? options.intervalMs : Math.min(options.intervalMs, AGAIN_MS);
    book.ran(figures, faults);
    context.log.info({ event: 'round', ...figures, standing: Object.keys(book.standing) });
    return faults;
  }

  /** What must be there before anything can be kept; tried until it is. */
  private async prepare(stop: AbortSignal): Promise<void> {
    if (this.isReady) return;
    const { config, log } = this.context;
    await ensureSignals(this.client, config.signalsDatabase, log);
    await fenceAll(this.client, config.signalsDatabase, stop);
    await this.keeper.load();
    this.isReady = true;
  }

  /** One round, from the list of coins to what stands after it. */
  async round(stop: AbortSignal) {
    const { options, context, stream, keeper, rest, table } = this;
    const began = performance.now();
    const weightBefore = rest.figures.weight;
    const storedBefore = table.figures.stored;
    const listed = await this.listed(stop);
    if (options.coin !== null && !listed.includes(options.coin))
      throw new Error(`the venue lists no ${options.coin} beside ${BASE}`);
    this.coins = options.coin === null ? listed : [options.coin];
    this.series = [BASE, ...this.coins].flatMap((coin) => options.timeframes.map((timeframe) => ({ coin, timeframe })));
    stream?.want(this.series);
    const extended = await this.extend(stop);
    if (stream !== null) await keeper.audit(this.series, stop);
    const computing = performance.now();
    const rows = await this.compute(stop);
    const computed = (performance.now() - computing) / 1000;
    const fresh = await this.results.keep(rows, stop);
    const shown = this.judgeAll(rows, listed);
    const warned = lossesOf(rows);
    for (const { coin, timeframe, period, lost_share } of warned)
      context.log.warn({ event: 'rows_lost', coin, timeframe, period, lost_share: rounded(lost_share) });
    const age = this.baseAge();
    const faults = [...extended.faults, ...(age.isStale ? [`BTC is ${age.seconds} s old`] : [])];
    this.errors += extended.faults.length;
    this.show(shown, rows);
    return {
      data_time: rows.length === 0 ? null : Math.max(...rows.map(({ timestamp }) => timestamp)),
      seconds: rounded((performance.now() - began) / 1000),
      compute_seconds: rounded(computed),
      coins: this.coins.length,
      rows: rows.length,
      rows_without_corr: rows.filter(({ corr }) => corr === null).length,
      rows_kept: fresh,
      rows_warned: warned.length,
      reasons: reasonsOf(rows).slice(0, SHOWN_REASONS),
      cache_hit_rate: extended.series === 0 ? null : rounded(extended.hits / extended.series),
      btc_age_seconds: age.seconds,
      candles_stored: table.figures.stored - storedBefore,
      candles_different: table.figures.different,
      candles_lost: keeper.figures.lostForGood,
      bad_candles: rest.figures.badCandles + (stream?.tape.figures.bad ?? 0),
      weight_used: rest.figures.weight - weightBefore,
      sockets: stream?.state ?? null,
      errors: this.errors,
      faults,
    };
  }

  /** Coins that are traded, without BTC. */
  private async listed(stop: AbortSignal): Promise<string[]> {
    const coins = await this.rest.universe(stop);
    if (!coins.includes(BASE)) throw new Error(`the venue lists no ${BASE}`);
    return coins.filter((coin) => coin !== BASE);
  }

  private async extend(stop: AbortSignal): Promise<Extended> {
    const progress = this.progress();
    const { series } = this;
    const extended = await this.keeper.extend(series, stop, (done, left, { coin, timeframe }) =>
      progress?.show(
        done / series.length,
        `candles ${done} of ${series.length}, ${coin} ${timeframe}, ${timeText(left)} left`,
      ),
    );
    progress?.clear();
    return extended;
  }

  /** All coins against BTC as it is now: its candles are read anew in each round. */
  private async compute(stop: AbortSignal): Promise<CorrelationRow[]> {
    const progress = this.progress();
    const rows: CorrelationRow[] = [];
    const total = this.coins.length * this.rounds.length;
    let done = 0;
    for (const round of this.rounds) {
      const { timeframe, bars } = round;
      const end = this.keeper.newest({ coin: BASE, timeframe });
      if (end === null) throw new Error(`no candle of ${BASE} of ${timeframe} could be had`);
      const from = end - (bars - 1) * TIMEFRAMES[timeframe];
      round.setBase(await this.table.closes({ coin: BASE, timeframe }, from, end), end);
      for (const coin of this.coins) {
        stop.throwIfAborted();
        rows.push(...round.rows(coin, await this.table.closes({ coin, timeframe }, from, end)));
        done += 1;
        if (done % COINS_PER_BREATH === 0) progress?.show(done / total, `correlations ${done} of ${total}`);
      }
    }
    progress?.clear();
    return rows;
  }

  private judgeAll(rows: readonly CorrelationRow[], listed: readonly string[]): ShownCoin[] {
    const { book, asked, options } = this;
    const shown: ShownCoin[] = [];
    let standing = book.standing;
    const events = [];
    for (const coin of this.coins) {
      const own = rows.filter((row) => row.coin === coin);
      const followed = follow(standing, listingOf(coin), own, judge(own, options.limits), asked);
      standing = followed.standing;
      if (followed.event !== null) events.push(followed.event);
      shown.push({ coin, rows: own, word: wordOf(standing[coin]) });
    }
    const newest = Math.max(0, ...rows.map(({ timestamp }) => timestamp));
    for (const coin of Object.keys(standing).filter((name) => !listed.includes(name))) {
      const left = leave(standing, listingOf(coin), newest);
      standing = left.standing;
      if (left.event !== null) events.push(left.event);
    }
    book.take(standing, events);
    return shown;
  }

  /** How old the newest candle of BTC is, of the timeframe that is most behind. */
  private baseAge(): { seconds: number | null; isStale: boolean } {
    const now = this.context.clock();
    let [seconds, isStale]: [number | null, boolean] = [null, false];
    for (const { timeframe } of this.rounds) {
      const newest = this.keeper.newest({ coin: BASE, timeframe });
      if (newest === null) continue;
      const width = TIMEFRAMES[timeframe];
      seconds = Math.max(seconds ?? 0, Math.round((now - newest - width) / 1000));
      isStale ||= newestFinished(timeframe, now) - newest > STALE_BARS * width;
    }
    return { seconds, isStale };
  }

  private progress(): Progress | null {
    return this.options.terminal === null ? null : new Progress(this.options.terminal);
  }

  private show(coins: readonly ShownCoin[], rows: readonly CorrelationRow[]): void {
    const { terminal } = this.options;
    if (terminal === null) return;
    const lines = roundTable(coins, this.asked);
    const reasons = reasonsOf(rows).slice(0, SHOWN_REASONS);
    terminal.write(`${[...lines, ...reasons.map((reason) => `without correlation: ${reason}`)].join('\n')}\n`);
  }
}

function listingOf(coin: string) {
  return { exchange: EXCHANGE, coin, symbol: symbolOf(coin) };
}

function wordOf(standing: { since: number; awaits: readonly string[] } | undefined): string {
  if (standing === undefined) return '';
  const since = new Date(standing.since).toISOString().slice(0, 16).replace('T', ' ');
  const awaits = standing.awaits.length === 0 ? '' : `, awaits ${standing.awaits.join(', ')}`;
  return `anomaly since ${since}${awaits}`;
}

function rounded(value: number): number {
  return Math.round(value * 1000) / 1000;
}

function timeText(ms: number): string {
  const seconds = Math.ceil(ms / 1000);
  return seconds < 60 ? `${seconds} s` : `${Math.ceil(seconds / 60)} min`;
}
