/** Reading values out of parsed frames: each helper names the member and the value when it is not what it must be. */
import { isZero, plainDecimal, ValueError } from './decimal.ts';
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
  const levels = array(value, what);
  let sorted = true;
  let before = Number.POSITIVE_INFINITY;
  for (let i = 0; i < levels.length; i++) {
    const level = levels[i];
    if (!Array.isArray(level) || level.length < 2) throw new ValueError(`${what}[${i}] is no [price, quantity]`);
    const price = plainDecimal(level[0]);
    const quantity = plainDecimal(level[1]);
    if (price.startsWith('-') || quantity.startsWith('-')) throw new ValueError(`${what}[${i}] is negative`);
    if (level.length > 2 || price !== level[0] || quantity !== level[1]) levels[i] = [price, quantity];
    const rank = Number(price) * sign;
    if (rank > before) sorted = false;
    before = rank;
  }
  const out = levels as Level[];
  return sorted ? out : out.sort((a, b) => (Number(b[0]) - Number(a[0])) * sign);
}
