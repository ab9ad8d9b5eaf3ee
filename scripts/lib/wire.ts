/** Reading values out of parsed frames: each helper names the member and the value when it is not what it must be. */
import { decimalEnd, decimalNumber, isZero, plainDecimal, ValueError } from './decimal.ts';
import type { Level } from './rows.ts';

export type WireRecord = Record<string, unknown>;

/** Event times outside of these are a wrong unit (s, µs, ns) or garbage: 2009-01-03 and 2100-01-01, ms. */
const EARLIEST_MS = 1_230_940_800_000;
const LATEST_MS = 4_102_444_800_000;

export function record(value: unknown, what: string): WireRecord {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw new ValueError(`${what} is no object`);
  return value as WireRecord;
}

export function array(value: unknown, what: string): unknown[] {
  if (!Array.isArray(value)) throw new ValueError(`${what} is no list`);
  return value;
}

/** An id that a double holds exactly. */
export function safeInteger(value: unknown, what: string): number {
  if (typeof value === 'number' && Number.isSafeInteger(value) && value >= 0) return value;
  throw new ValueError(`${what} is no exact id: ${JSON.stringify(value)}`);
}

/** Event time in ms. */
export function eventTime(value: unknown, what: string): number {
  if (typeof value === 'number' && Number.isInteger(value) && value >= EARLIEST_MS && value < LATEST_MS) return value;
  throw new ValueError(`${what} is no time in ms: ${JSON.stringify(value)}`);
}

/** A price or quantity above zero, as plain decimal text. */
export function positive(value: unknown, what: string): string {
  const text = plainDecimal(value);
  if (text.startsWith('-') || isZero(text)) throw new ValueError(`${what} is not above zero: ${text}`);
  return text;
}

/**
 * Price levels as plain decimal text, best first. Venues sort their diffs in either direction.
 * @param sign 1 for bids (highest first), -1 for asks
 */
export function sortedLevels(value: unknown, sign: 1 | -1, what: string): Level[] {
  if (value instanceof ScannedLevels) return value.bestFirst(sign);
  const levels = array(value, what);
  let rises = 0;
  let falls = 0;
  let before = Number.NaN;
  for (let i = 0; i < levels.length; i++) {
    const level = levels[i];
    if (!Array.isArray(level) || level.length < 2) throw new ValueError(`${what}[${i}] is no [price, quantity]`);
    const price = plainDecimal(level[0]);
    const quantity = plainDecimal(level[1]);
    if (price.startsWith('-') || quantity.startsWith('-')) throw new ValueError(`${what}[${i}] is negative`);
    if (level.length > 2 || price !== level[0] || quantity !== level[1]) levels[i] = [price, quantity];
    const number = decimalNumber(price);
    if (number > before) rises += 1;
    else if (number < before) falls += 1;
    before = number;
  }
  return sort(levels as Level[], orderOf(levels.length, rises, falls, sign), sign);
}

type Order = 'sorted' | 'reversed' | 'mixed';

/** @param rises,falls how many prices are above, and below, the one before them */
function orderOf(count: number, rises: number, falls: number, sign: 1 | -1): Order {
  const [wrong, right] = sign === 1 ? [rises, falls] : [falls, rises];
  if (wrong === 0) return 'sorted';
  // Only without equal prices: those keep their order, in which a later one overrides an earlier one.
  return right === 0 && wrong === count - 1 ? 'reversed' : 'mixed';
}

/** Best first. */
function sort(levels: Level[], order: Order, sign: 1 | -1): Level[] {
  if (order === 'sorted') return levels;
  if (order === 'reversed') return levels.reverse();
  return levels.sort((a, b) => (Number(b[0]) - Number(a[0])) * sign);
}

/** Levels that `scanLevels` has read: two plain decimals each, none negative. JSON.parse cannot make one of these. */
export class ScannedLevels {
  list: Level[] = [];
  /** Each level's price, for comparisons only. */
  prices: number[] = [];
  /** How many prices are above, and below, the one before them. */
  rises = 0;
  falls = 0;
  /** Where the text goes on. */
  end = 0;
  /** The text that was read, which is `list` as JSON; null once the list has another order. */
  json: string | null = null;

  bestFirst(sign: 1 | -1): Level[] {
    const order = orderOf(this.list.length, this.rises, this.falls, sign);
    if (order !== 'sorted') this.json = null;
    if (order === 'reversed') this.prices.reverse();
    sort(this.list, order, sign);
    if (order === 'mixed') this.prices = this.list.map(([price]) => decimalNumber(price));
    return this.list;
  }
}

const QUOTE = 0x22;
const COMMA = 0x2c;
const OPEN = 0x5b;
const CLOSE = 0x5d;

/** Longer slices of a string are views of it (V8): a level in a book would keep its whole frame in memory. */
const LONGEST_COPIED_SLICE = 12;

/**
 * Levels in JSON's own text, `[["price","quantity"],…]` at `start`, in a fraction of JSON.parse's time. Null when anything
 * else is there, be it a blank: JSON.parse has to look at it then. What this reads, JSON.parse would read the same.
 */
export function scanLevels(text: string, start: number): ScannedLevels | null {
  if (text.charCodeAt(start) !== OPEN) return null;
  const levels = new ScannedLevels();
  let at = start + 1;
  if (text.charCodeAt(at) !== CLOSE) {
    let before = Number.NaN;
    for (; ; at++) {
      if (text.charCodeAt(at) !== OPEN || text.charCodeAt(at + 1) !== QUOTE) return null;
      const price = at + 2;
      const priceEnd = decimalEnd(text, price);
      const quantity = priceEnd + 3;
      if (priceEnd < 0 || text.charCodeAt(priceEnd) !== QUOTE) return null;
      if (text.charCodeAt(priceEnd + 1) !== COMMA || text.charCodeAt(priceEnd + 2) !== QUOTE) return null;
      at = decimalEnd(text, quantity);
      if (at < 0 || text.charCodeAt(at) !== QUOTE || text.charCodeAt(at + 1) !== CLOSE) return null;
      levels.list.push([copy(text, price, priceEnd), copy(text, quantity, at)]);
      const number = decimalNumber(text, price, priceEnd);
      levels.prices.push(number);
      if (number > before) levels.rises += 1;
      else if (number < before) levels.falls += 1;
      before = number;
      at += 2;
      if (text.charCodeAt(at) !== COMMA) break;
    }
    if (text.charCodeAt(at) !== CLOSE) return null;
  }
  levels.end = at + 1;
  levels.json = text.slice(start, levels.end);
  return levels;
}

function copy(text: string, start: number, end: number): string {
  if (end - start <= LONGEST_COPIED_SLICE) return text.slice(start, end);
  const middle = end - LONGEST_COPIED_SLICE;
  return copy(text, start, middle) + text.slice(middle, end);
}
