/** What is asked of market data: the parameters that its routes share, and the places in lists where a page ends. */
import { z } from 'zod';
import { type Column, EXCHANGES, MARKET_TYPES } from '../rows.ts';
import { hasDay, isTime, wholeNumber } from './parameters.ts';
import { WebError } from './route.ts';

const HOUR_MS = 3_600_000;
export const DEFAULT_ROWS = 1000;
export const MAX_ROWS = 1_000_000;

/** Without a zone a time would mean another one on each machine. A plus that was not escaped arrives as a blank. */
const ISO = /^\d{4}-\d\d-\d\d(?:T\d\d:\d\d(?::\d\d(?:\.\d{1,3})?)?(?:Z|[+ -]\d\d:\d\d))?$/;

/** ms since the epoch, or ISO 8601 with its zone; a day alone begins at 00:00 UTC. */
export const time = z
  .string()
  .meta({ description: 'ms since the epoch, or ISO 8601 with a zone (2026-11-30T07:00:00Z); a day alone is UTC' })
  .transform((text, context) => {
    const value = /^\d{1,13}$/.test(text)
      ? Number(text)
      : ISO.test(text) && hasDay(text)
        ? Date.parse(text.replace(' ', '+'))
        : Number.NaN;
    if (isTime(value)) return value;
    context.addIssue({ code: 'custom', message: 'takes ms since the epoch, or ISO 8601 with a zone' });
    return z.NEVER;
  });

const SYMBOL = /^[A-Za-z0-9@][\w.:@/%+-]{0,63}$/;
export const symbol = z
  .string()
  .regex(SYMBOL, 'takes a symbol such as BTC-USDT')
  .meta({ description: 'as BTC-USDT; of dated futures and options the venue’s own name' });
export const exchange = z.enum(EXCHANGES);
export const marketType = z.enum(MARKET_TYPES);
export const limit = (most: number, otherwise: number) => wholeNumber(1, most).default(otherwise);

export const FORMATS = ['json', 'ndjson', 'csv', 'parquet'] as const;
export type Format = (typeof FORMATS)[number];

/** Of every list. */
export const listQuery = z.strictObject({
  symbol,
  exchange: exchange.optional(),
  market_type: marketType.optional(),
  from: time.optional().meta({ description: 'event time, included; default: an hour before `to`' }),
  to: time.optional().meta({ description: 'event time, not included; default: now' }),
  limit: limit(MAX_ROWS, DEFAULT_ROWS),
  order: z.enum(['asc', 'desc']).default('asc'),
  cursor: z
    .string()
    .max(500)
    .optional()
    .meta({ description: '`next` of the page before; all else as it was asked there' }),
  format: z.enum(FORMATS).default('json'),
});
export type ListQuery = z.output<typeof listQuery>;

/** From a time on, and before another, ms. */
export interface Span {
  from: number;
  to: number;
}

/** @throws WebError naming the field */
export function spanOf(
  asked: { from?: number | undefined; to?: number | undefined },
  now: number,
  length = HOUR_MS,
): Span {
  const to = asked.to ?? now;
  const from = asked.from ?? Math.max(to - length, 0);
  if (from >= to) throw new WebError(400, '`from` is not before `to`', 'from');
  return { from, to };
}

/** Where a row stands in a list: its members by which lists are sorted, as text. */
export type Place = string[];

/** A place as a text that goes into an address. */
export function cursorOf(name: string, place: Place): string {
  return Buffer.from(JSON.stringify([name, ...place])).toString('base64url');
}

/**
 * The place that a cursor names.
 * @param columns by which the list is sorted
 * @throws WebError when it is of another list, or of none
 */
export function placeOf(name: string, columns: readonly Column[], cursor: string): Place {
  const [list, ...place] = parsedCursor(cursor);
  const fits = place.length === columns.length && columns.every((column, i) => isValue(column, place[i]!));
  if (list === name && fits) return place;
  throw new WebError(400, 'is no cursor of this list: take it from `next`', 'cursor');
}

function parsedCursor(cursor: string): string[] {
  try {
    const value: unknown = JSON.parse(Buffer.from(cursor, 'base64url').toString());
    return z.array(z.string()).parse(value);
  } catch {
    // Whatever is wrong with it, it is none of ours, which is told by who asks.
    return [];
  }
}

function isValue({ kind }: Column, text: string): boolean {
  if (kind === 'ticks') return /^\d{1,15}$/.test(text);
  if (kind === 'integer') return /^\d{1,20}$/.test(text) && BigInt(text) < 2n ** 64n;
  return kind === 'bool' ? text === 'true' || text === 'false' : true;
}
