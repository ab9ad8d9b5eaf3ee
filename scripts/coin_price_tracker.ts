const USAGE = `
coin_price_tracker.ts: at each :00 and :30 what the desk's coins have moved since midnight in Beijing, by OKX's swaps.

Usage:   npx tsx scripts/coin_price_tracker.ts [--once]
Example: tail -F data/coin_price_tracker/coin_prices_30min.jsonl
         echo '{"slot":1795478400000,"prices":{"BTC":"110.5"},"bases":{"BTC":"100"}}' | npx tsx scripts/coin_price_tracker.ts --stdin

Flags:
  --once    does what is due, and ends: exit 1 when a slot could not be had; a coin that waits in the queue is no fault
  --stdin   reads {"slot" (ms), "prices": {COIN: text, number or null}, "bases": …}, writes a record a line; exit 1 when a line was not sound

Files: DATA/coin_price_tracker/coin_prices_30min.jsonl, one record a slot, and failed_queue.json: coins that wait for a later try.
The base is the venue's own open of the day of UTC+8. A slot that was missed is completed from candles, up to ten days back. A coin that
cannot be had while the venue answers is null in its record and waits in the queue: after a minute it is tried again, three times at the
most, and completes the record by a later one of the same slot ("correction": true). While the venue is away, or when no coin can be had,
the slot is missing, and no try is counted.

Environment: MARKETPRISM_DESK_COINS (27 coins), MARKETPRISM_DATA_DIR, MARKETPRISM_ENDPOINTS, LOG_LEVEL.
`;

import { join } from 'node:path';
import { z } from 'zod';
import { flags, runAsScript, UsageError } from './lib/cli.ts';
import { beijingDayStart, beijingText } from './lib/desk/beijing.ts';
import {
  type CoinRecord,
  completedRecord,
  FailedQueue,
  type Found,
  INPUT,
  type QueueEntry,
  quotesAt,
  reasonOf,
  recordOf,
  recordOfInput,
  STORED,
  type StoredRecord,
  takePrice,
} from './lib/desk/coin_prices.ts';
import { BARS, type Bar, DeskRequestFailed, type DeskTicker, OkxDesk, swapOf } from './lib/desk/okx.ts';
import { type DeskContext, type DeskWork, runDesk } from './lib/desk/service.ts';
import { transformStdin } from './lib/desk/stdin.ts';
import { objectsOfAll } from './lib/jsonl.ts';
import type { Logger } from './lib/log.ts';
import { Series, slotOf } from './lib/series.ts';

const NAME = 'coin_price_tracker';
export const PRICES_FILE = `${NAME}/coin_prices_30min.jsonl`;
export const QUEUE_FILE = `${NAME}/failed_queue.json`;

const CADENCE_MS = BARS['30m'];
/** Ten days. */
const CATCH_UP_SLOTS = 480;
/** By then most tickers have changed since the slot began; asked for earlier each coin would cost a request of its own. */
const SETTLE_MS = 5000;
/** So long after a slot the last price is taken for the slot's. */
const PRESENT_MS = 60_000;
/** The venue may tell the open of the day before for a moment after midnight. */
const NEW_DAY_MS = 60_000;
const RETRY_AFTER_MS = 60_000;
const MOST_TRIES = 3;

type Tickers = ReadonlyMap<string, DeskTicker>;

/** Asks the venue for coins at slots: one request for a whole run of missed ones. */
class CoinQuotes {
  /** Opens of days by coin and day: they never change. */
  private readonly known = new Map<string, string>();

  constructor(private readonly desk: OkxDesk) {}

  /**
   * @param wanted slots of each coin, oldest first
   * @param present the slot whose price may be a ticker's last one; null: none is
   * @throws DeskRequestFailed while the venue is away
   */
  async find(
    wanted: ReadonlyMap<string, readonly number[]>,
    tickers: Tickers,
    present: number | null,
    now: number,
    stop: AbortSignal,
  ): Promise<Map<string, Found>> {
    const all = new Map<string, Found>();
    for (const [coin, slots] of wanted) {
      const ticker = tickers.get(swapOf(coin));
      const found: Found = { prices: new Map(), bases: new Map(), fault: null };
      all.set(coin, found);
      if (present !== null && ticker && ticker.time >= present && ticker.time < present + PRESENT_MS)
        takePrice(found.prices, present, ticker.last);
      try {
        await this.addBases(coin, slots, ticker, found, now, stop);
        await this.addOpens(coin, '30m', slots, found.prices, now, stop);
      } catch (error) {
        if (!(error instanceof DeskRequestFailed || error instanceof z.ZodError)) throw error;
        found.fault = error instanceof z.ZodError ? 'candles that are not sound' : error.message;
        // A coin's own fault, or everybody's: then this fails, too.
        if (error instanceof DeskRequestFailed && !error.isUnknownInstrument) await this.desk.tickers();
      }
    }
    return all;
  }

  private async addBases(
    coin: string,
    slots: readonly number[],
    ticker: DeskTicker | undefined,
    { bases }: Found,
    now: number,
    stop: AbortSignal,
  ): Promise<void> {
    const days = [...new Set(slots.map(beijingDayStart))];
    for (const day of days) {
      const known = this.known.get(`${coin} ${day}`);
      if (known !== undefined) bases.set(day, known);
      else if (ticker && ticker.time >= day + NEW_DAY_MS && beijingDayStart(ticker.time) === day)
        takePrice(bases, day, ticker.dayOpen);
    }
    await this.addOpens(coin, '1D', days, bases, now, stop);
    for (const [day, open] of bases) this.known.set(`${coin} ${day}`, open);
    const oldest = beijingDayStart(now) - (CATCH_UP_SLOTS + 1) * CADENCE_MS;
    for (const key of this.known.keys()) if (Number(key.split(' ')[1]) < oldest) this.known.delete(key);
  }

  /** Adds the opens of the bars that begin at `starts` and are not in `opens` yet. */
  private async addOpens(
    coin: string,
    bar: Bar,
    starts: readonly number[],
    opens: Map<number, string>,
    now: number,
    stop: AbortSignal,
  ): Promise<void> {
    stop.throwIfAborted();
    const absent = starts.filter((start) => !opens.has(start));
    const over = absent.filter((start) => start + BARS[bar] <= now);
    if (over.length > 0) {
      const candles = await this.desk.candles(swapOf(coin), bar, Math.min(...over), Math.max(...over));
      for (const { start, open } of candles) if (over.includes(start)) takePrice(opens, start, open);
    }
    for (const start of absent.filter((each) => !over.includes(each))) {
      stop.throwIfAborted();
      takePrice(opens, start, await this.desk.openAt(swapOf(coin), bar, start));
    }
  }
}

export class CoinPriceTracker implements DeskWork {
  private readonly quotes: CoinQuotes;

  private constructor(
    private readonly context: DeskContext,
    private readonly desk: OkxDesk,
    private readonly series: Series,
    private readonly queue: FailedQueue,
  ) {
    this.quotes = new CoinQuotes(desk);
  }

  static async open(context: DeskContext): Promise<CoinPriceTracker> {
    const { config, log, clock } = context;
    const plan = { cadenceMs: CADENCE_MS, delayMs: SETTLE_MS, catchUpSlots: CATCH_UP_SLOTS };
    const queue = new FailedQueue(join(config.dataDir, QUEUE_FILE));
    const series = await Series.open(config.dataDir, { name: 'coin_prices', file: PRICES_FILE, ...plan }, clock, log);
    return new CoinPriceTracker(context, new OkxDesk(config, log, clock), series, queue);
  }

  async turn(stop: AbortSignal): Promise<string[]> {
    const now = this.context.clock();
    const due = this.series.due(now);
    const waiting = this.queue.due(now, RETRY_AFTER_MS);
    let records = new Map<number, CoinRecord>();
    let fault: string | null = null;
    try {
      if (due.length + waiting.length > 0) {
        const tickers = await this.desk.tickers();
        await this.retry(waiting, tickers, now, stop);
        records = await this.collect(due, tickers, now, stop);
      }
    } catch (error) {
      if (stop.aborted) return [];
      if (!(error instanceof DeskRequestFailed)) throw error;
      fault = error.message;
    }
    const compute = async (slot: number) => {
      const record = records.get(slot);
      if (record === undefined) throw new Error(fault ?? 'no coin could be had');
      return [record];
    };
    const failed = await this.series.turn(compute, stop, now);
    if (failed.length === 0) return fault === null ? [] : [fault];
    return failed.map((slot) => `${beijingText(slot)}: ${fault ?? 'no coin could be had'}`);
  }

  async close(): Promise<void> {
    await this.desk.close();
    await this.series.close();
  }

  /** The records of slots of which at least one coin could be had; the others wait in the queue before a record lacks them. */
  private async collect(
    slots: readonly number[],
    tickers: Tickers,
    now: number,
    stop: AbortSignal,
  ): Promise<Map<number, CoinRecord>> {
    const records = new Map<number, CoinRecord>();
    if (slots.length === 0) return records;
    const { config, log } = this.context;
    const coins = config.deskCoins;
    const newest = slotOf(now, { cadenceMs: CADENCE_MS });
    const present = now - newest < PRESENT_MS && slots.includes(newest) ? newest : null;
    const found = await this.quotes.find(new Map(coins.map((coin) => [coin, slots])), tickers, present, now, stop);
    const failures: QueueEntry[] = [];
    for (const slot of slots) {
      const { prices, bases } = quotesAt(slot, found);
      const record = recordOf(slot, coins, prices, bases);
      if (record.valid_coins === 0) continue;
      records.set(slot, record);
      for (const symbol of record.failed) {
        const reason = reasonOf(slot, found.get(symbol)!);
        failures.push({ symbol, slot, collect_time: record.collect_time, failed_at: now, reason, retry_count: 0 });
      }
    }
    this.queue.update(
      failures.filter((entry) => !this.queue.has(entry)),
      [],
    );
    if (failures.length > 0) log.warn({ event: 'coins_failed', count: failures.length, first: failures.slice(0, 3) });
    return records;
  }

  /** Tries coins again whose slot lacks them, at candles only. */
  private async retry(waiting: readonly QueueEntry[], tickers: Tickers, now: number, stop: AbortSignal): Promise<void> {
    if (waiting.length === 0) return;
    const stored = await this.storedAt(waiting.map(({ slot }) => slot));
    const due = new Set(this.series.due(now));
    const [tries, gone]: [QueueEntry[], QueueEntry[]] = [[], []];
    for (const entry of waiting) {
      const record = stored.get(entry.slot);
      if (record === undefined && due.has(entry.slot)) continue;
      const change = record?.day_changes[entry.symbol];
      const isThere = typeof change?.change_pct === 'number';
      if (change !== undefined && !isThere && entry.retry_count < MOST_TRIES) {
        tries.push(entry);
        continue;
      }
      gone.push(entry);
      if (!isThere) giveUp(entry, this.context.log);
    }
    // Counted before it is made: a crash in the middle of it counts.
    const tried = tries.map((entry) => ({ ...entry, failed_at: now, retry_count: entry.retry_count + 1 }));
    this.queue.update(tried, gone);
    const wanted = new Map<string, number[]>();
    for (const { symbol, slot } of tried) wanted.set(symbol, [...(wanted.get(symbol) ?? []), slot]);
    let found: Map<string, Found>;
    try {
      found = await this.quotes.find(wanted, tickers, null, now, stop);
    } catch (error) {
      // The venue went away, or we stop: that was no try.
      this.queue.update(tries, []);
      throw error;
    }
    this.settle(tried, found, stored);
  }

  /** Corrects what was found, then takes it out of the queue; a crash in between is seen by the next look at the record. */
  private settle(
    tried: readonly QueueEntry[],
    found: ReadonlyMap<string, Found>,
    stored: Map<number, StoredRecord>,
  ): void {
    const [failed, gone]: [QueueEntry[], QueueEntry[]] = [[], []];
    for (const slot of new Set(tried.map((entry) => entry.slot))) {
      const entries = tried.filter((entry) => entry.slot === slot);
      const ofSlot = new Map(entries.map(({ symbol }) => [symbol, found.get(symbol)!]));
      const record = completedRecord(stored.get(slot)!, quotesAt(slot, ofSlot));
      const had = entries.filter(({ symbol }) => !record.failed.includes(symbol));
      if (had.length > 0) this.series.correct(slot, [record]);
      gone.push(...had);
      for (const entry of entries.filter((each) => !had.includes(each))) {
        const failure = { ...entry, reason: reasonOf(slot, found.get(entry.symbol)!) };
        if (entry.retry_count < MOST_TRIES) failed.push(failure);
        else {
          gone.push(failure);
          giveUp(failure, this.context.log);
        }
      }
    }
    this.queue.update(failed, gone);
  }

  /** The last record of each of these slots. */
  private async storedAt(slots: readonly number[]): Promise<Map<number, StoredRecord>> {
    const wanted = new Set(slots);
    const stored = new Map<number, StoredRecord>();
    const file = join(this.context.config.dataDir, PRICES_FILE);
    // A damaged line must not hold up the others: integrity.ts tells of it.
    for await (const line of objectsOfAll(file, Math.min(...wanted))) {
      const { data } = STORED.safeParse('value' in line ? line.value : null);
      if (data !== undefined && wanted.has(data.slot)) stored.set(data.slot, data);
    }
    return stored;
  }
}

function giveUp({ symbol, slot, collect_time, retry_count, reason }: QueueEntry, log: Logger): void {
  log.error({ event: 'coin_given_up', symbol, slot, collect_time, tries: retry_count, reason });
}

async function main(): Promise<number> {
  const { once, stdin } = flags(USAGE, {
    once: { type: 'boolean', default: false },
    stdin: { type: 'boolean', default: false },
  });
  if (once && stdin) throw new UsageError('--stdin ends with its input: it does not go with --once');
  if (stdin) return transformStdin(INPUT, (input) => [recordOfInput(input)]);
  return runDesk(NAME, once, (context) => CoinPriceTracker.open(context));
}

runAsScript(import.meta.url, main);
