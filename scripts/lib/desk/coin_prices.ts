/** What coins have moved since midnight in Beijing, and the queue of those that could not be had: what coin_price_tracker.ts is made of. */
import { z } from 'zod';
import { OperatorError } from '../cli.ts';
import { isZero, plainDecimal, ValueError } from '../decimal.ts';
import { readJson, writeJsonAtomic } from '../files.ts';
import { beijingDate, beijingDayStart, beijingText } from './beijing.ts';

/** A change of 1 % in units of the fourth decimal. */
const UNITS = 10_000;
/** Times from here on are ms; one in seconds would be a day in 1970. */
const FIRST_MS = 1_000_000_000_000;
const LAST_MS = 9_999_999_999_999;

/** A price as text or number, as plain decimal text; 0 is what a venue says of a coin that was never traded. */
const PRICE = z.union([z.string(), z.number()]).transform((value, context) => {
  try {
    const text = plainDecimal(value);
    if (!text.startsWith('-')) return text;
  } catch (error) {
    if (!(error instanceof ValueError)) throw error;
  }
  context.issues.push({ code: 'custom', message: `${JSON.stringify(value)} is no price`, input: value });
  return z.NEVER;
});
const PRICES = z.record(z.string().regex(/^[A-Z0-9]+$/, 'is no coin'), PRICE.nullable());
/** What the pure core reads on standard input. */
export const INPUT = z.object({ slot: z.number().int().min(FIRST_MS).max(LAST_MS), prices: PRICES, bases: PRICES });

/** By coin: plain decimal text; null or absent where unknown. */
export type Prices = Readonly<Record<string, string | null>>;

const CHANGE = z.object({
  /** Open of the day in Beijing. */
  base_price: z.number().nullable(),
  current_price: z.number().nullable(),
  /** 100 × (current − base) ÷ base, to four decimals. */
  change_pct: z.number().nullable(),
});
export type DayChange = z.infer<typeof CHANGE>;

/** A record as it is read back: only what a correction goes on from. */
export const STORED = z.looseObject({ slot: z.number(), day_changes: z.record(z.string(), CHANGE) });
export type StoredRecord = z.infer<typeof STORED>;

/** A record of coin_prices_30min.jsonl, after its slot. */
export interface CoinRecord {
  /** The slot in Beijing. */
  collect_time: string;
  /** The slot, ms since the epoch. */
  timestamp: number;
  /** The day in Beijing of which the opens are. */
  base_date: string;
  day_changes: Record<string, DayChange>;
  /** Sum of the changes that are known, %; null: none is. */
  total_change: number | null;
  /** That sum by their number. */
  average_change: number | null;
  total_coins: number;
  /** Coins whose change is known. */
  valid_coins: number;
  success_count: number;
  failed_count: number;
  /** Coins that lack their price or their base. */
  failed: string[];
}

/** True when `text` is a price above 0 that a record can hold. */
export function isPrice(text: string): boolean {
  const { success, data } = PRICE.safeParse(text);
  return success && !isZero(data);
}

/**
 * The record of a slot. A price or base that is absent or 0 is unknown, and so is what follows from it.
 * @param slot ms since the epoch
 * @param prices at the slot
 * @param bases opens of the slot's day in Beijing
 * @throws ValueError when a price is no number
 */
export function recordOf(slot: number, coins: readonly string[], prices: Prices, bases: Prices): CoinRecord {
  const changes: Record<string, DayChange> = {};
  const failed: string[] = [];
  let total = 0n;
  for (const coin of coins) {
    const [current, base] = [known(prices[coin]), known(bases[coin])];
    const change = current === null || base === null ? null : changeOf(current, base);
    changes[coin] = { base_price: numberOf(base), current_price: numberOf(current), change_pct: percentOf(change) };
    if (change === null) failed.push(coin);
    else total += change;
  }
  const valid = coins.length - failed.length;
  return {
    collect_time: beijingText(slot),
    timestamp: slot,
    base_date: beijingDate(slot),
    day_changes: changes,
    total_change: valid === 0 ? null : percentOf(total),
    average_change: valid === 0 ? null : percentOf(quotient(total, BigInt(valid))),
    total_coins: coins.length,
    valid_coins: valid,
    success_count: valid,
    failed_count: failed.length,
    failed,
  };
}

function known(price: string | null | undefined): string | null {
  if (price === null || price === undefined) return null;
  const text = plainDecimal(price);
  return isZero(text) ? null : text;
}

function numberOf(text: string | null): number | null {
  return text === null ? null : Number(text);
}

/** Both are whole and small: the double is the one nearest to the decimal. */
function percentOf(units: bigint | null): number | null {
  return units === null ? null : Number(units) / UNITS;
}

/** 100 × (current − base) ÷ base in units of the fourth decimal. In one step: a quotient that was rounded before would be rounded twice. */
function changeOf(current: string, base: string): bigint {
  const places = Math.max(placesOf(current), placesOf(base));
  const [now, then] = [scaled(current, places), scaled(base, places)];
  return quotient((now - then) * BigInt(100 * UNITS), then);
}

function placesOf(text: string): number {
  return text.includes('.') ? text.length - text.indexOf('.') - 1 : 0;
}

function scaled(text: string, places: number): bigint {
  return BigInt(text.replace('.', '') + '0'.repeat(places - placesOf(text)));
}

/** n ÷ d for d > 0, half away from zero. */
function quotient(n: bigint, d: bigint): bigint {
  const rounded = (2n * (n < 0n ? -n : n) + d) / (2n * d);
  return n < 0n ? -rounded : rounded;
}

/** The record of a stored slot again, with what is known now of what it lacks; what it has stays. */
export function completedRecord(
  { slot, day_changes }: StoredRecord,
  { prices, bases }: { prices: Prices; bases: Prices },
): CoinRecord {
  const coins = Object.keys(day_changes);
  const all = (member: 'current_price' | 'base_price', found: Prices): Prices =>
    Object.fromEntries(
      coins.map((coin) => {
        const value = day_changes[coin]![member];
        return [coin, value === null ? (found[coin] ?? null) : plainDecimal(value)];
      }),
    );
  return recordOf(slot, coins, all('current_price', prices), all('base_price', bases));
}

/** The record of an input, as it would stand in the file. Its coins are those that the input names, those with a price first. */
export function recordOfInput({ slot, prices, bases }: z.infer<typeof INPUT>): CoinRecord & { slot: number } {
  const coins = [...new Set([...Object.keys(prices), ...Object.keys(bases)])];
  return { slot, ...recordOf(slot, coins, prices, bases) };
}

/** What could be had of a coin: prices by slot, opens by the beginning of their day; and why not all of it, as far as that was told. */
export interface Found {
  prices: Map<number, string>;
  bases: Map<number, string>;
  fault: string | null;
}

/** Puts a price there, where it is one. */
export function takePrice(into: Map<number, string>, at: number, text: string | null): void {
  if (text !== null && isPrice(text)) into.set(at, text);
}

/** What was found for one slot, by coin. */
export function quotesAt(slot: number, found: ReadonlyMap<string, Found>): { prices: Prices; bases: Prices } {
  const at = (of: (each: Found) => string | undefined): Prices =>
    Object.fromEntries([...found].map(([coin, each]) => [coin, of(each) ?? null]));
  return { prices: at(({ prices }) => prices.get(slot)), bases: at(({ bases }) => bases.get(beijingDayStart(slot))) };
}

/** Why a coin is not whole at a slot. */
export function reasonOf(slot: number, { prices, bases, fault }: Found): string {
  if (fault !== null) return fault;
  const lacking = [
    prices.has(slot) ? null : 'price at the slot',
    bases.has(beijingDayStart(slot)) ? null : 'open of the day',
  ];
  return `the venue has no ${lacking.filter((each) => each !== null).join(' and no ')}`;
}

const ENTRY = z.strictObject({
  symbol: z.string(),
  /** ms since the epoch. */
  slot: z.number().int(),
  /** The slot in Beijing. */
  collect_time: z.string(),
  /** When it failed last, or was last begun to be tried, ms since the epoch. */
  failed_at: z.number(),
  reason: z.string(),
  /** Tries so far, the first failure not among them. */
  retry_count: z.number().int().min(0),
});
export type QueueEntry = z.infer<typeof ENTRY>;

function keyOf({ symbol, slot }: Pick<QueueEntry, 'symbol' | 'slot'>): string {
  return `${symbol} ${slot}`;
}

/** Coins that wait for a later try; what is in the file is what is here. */
export class FailedQueue {
  private entries: Map<string, QueueEntry>;

  /** @throws OperatorError when the file is damaged: what waits in it is not to be forgotten silently */
  constructor(private readonly path: string) {
    try {
      const entries = z.array(ENTRY).parse(readJson(path) ?? []);
      this.entries = new Map(entries.map((entry) => [keyOf(entry), entry]));
    } catch (error) {
      if (!(error instanceof SyntaxError || error instanceof z.ZodError)) throw error;
      throw new OperatorError(`${path} is no queue of failed coins: mend it, or move it away`);
    }
  }

  /** Those that failed `waitMs` ago; a clock that was set back holds nobody up. */
  due(now: number, waitMs: number): QueueEntry[] {
    return [...this.entries.values()].filter(({ failed_at }) => now - failed_at >= waitMs || failed_at > now);
  }

  has(entry: Pick<QueueEntry, 'symbol' | 'slot'>): boolean {
    return this.entries.has(keyOf(entry));
  }

  /** On disk when it returns. */
  update(put: readonly QueueEntry[], drop: readonly QueueEntry[]): void {
    if (put.length + drop.length === 0) return;
    const entries = new Map(this.entries);
    for (const entry of put) entries.set(keyOf(entry), entry);
    for (const entry of drop) entries.delete(keyOf(entry));
    writeJsonAtomic(this.path, [...entries.values()]);
    this.entries = entries;
  }
}
