/** The order book at a time: the nearest whole book before it, and the updates from there on by their chain. */
import { z } from 'zod';
import { OrderBook } from '../book.ts';
import { WHOLE_BOOKS } from '../gap_finder.ts';
import { bookVenue } from '../harvest/book_track.ts';
import type { Level } from '../rows.ts';
import { MarketDatabase, type Source } from './market_database.ts';
import { timeOf } from './market_lists.ts';
import { type AskedStream, type MarketStream, OF_STREAM, streamOf } from './market_streams.ts';
import { wholeNumber } from './parameters.ts';
import { type Asked, type WebContext, WebError } from './route.ts';

/** A whole book that is older is none to stand on: one comes each ten seconds. */
const LOOK_BACK_MS = 3_600_000;
/** Updates of an hour without a whole book; beyond it the chain is told as too long. */
const MOST_UPDATES = 50_000;
/** Times are not quite in the order of ids. */
const DISORDER_MS = 2000;
/** An old id with a time this much newer: the venue counts anew. */
const RESTARTED_IDS_MS = 5000;
/** Of what comes after the time, so much is looked at for what follows the book. */
const MOST_AFTER = 50;
/** Levels a side from which on a whole book is taken as cut off (book_track.ts). */
const FULL_SIDE = 400;
const MOST_DEPTH = 5000;
export const DEFAULT_DEPTH = 20;

/** Which book, when, and how much of it. */
export interface BookQuery extends AskedStream {
  at: number;
  /** Levels a side. */
  depth: number;
}

export const depth = wholeNumber(1, MOST_DEPTH);

const REASONS = ['missing_updates', 'crossed', 'ids_restarted', 'too_shallow', 'too_long', 'not_known_yet'] as const;
export type Reason = (typeof REASONS)[number];
const levels = z.array(z.tuple([z.string(), z.string()])).meta({ description: '[price, quantity], best first' });

export const bookAnswer = z.object({
  ...{ exchange: z.string(), market_type: z.string(), symbol: z.string(), at: z.number() },
  bids: levels,
  asks: levels,
  last_update_id: z.string(),
  time: z.number().meta({ description: 'event time of the last update in it, ms' }),
  age_ms: z.number().meta({ description: 'from then to `at`' }),
  base: z.object({ kind: z.enum(['sample', 'snapshot', 'whole']), last_update_id: z.string(), time: z.number() }),
  updates: z.number().meta({ description: 'applied since the base' }),
  complete: z.boolean().nullable().meta({
    description:
      'whether no update up to `at` is missing; false: the book is that of before the break; null: nothing after it is there yet',
  }),
  reason: z.enum(REASONS).nullable(),
  cut: z.boolean().meta({ description: 'fewer levels than were asked for are known' }),
});

/** A whole book that updates stand on. */
export interface Base {
  kind: 'sample' | 'snapshot' | 'whole';
  last: bigint;
  time: number;
  bids: Level[];
  asks: Level[];
  /** Levels a side from which on it is cut off. */
  fullSide: number;
}

export interface Update {
  first: bigint | null;
  last: bigint;
  prev: bigint | null;
  time: number;
  bids: Level[];
  asks: Level[];
}

export interface Standing {
  book: OrderBook;
  last: bigint;
  time: number;
  updates: number;
  reason: Reason | null;
}

export async function answerBook(
  context: WebContext,
  { query, gone }: Asked<unknown, BookQuery>,
): Promise<z.output<typeof bookAnswer>> {
  const database = MarketDatabase.of(context);
  const { at } = query;
  const source = database.source(at - LOOK_BACK_MS);
  const stream = await streamOf(database, source, query, ['orderbook', 'orderbook_update'], gone);
  const { exchange, market_type, symbol } = stream;
  const base = market_type === null ? null : await baseOf(database, source, stream, at, gone);
  if (base === null || market_type === null)
    throw new WebError(404, `no book of ${symbol} of ${exchange} is known in the hour before`, 'at');
  const { updates, after } = await updatesOf(database, source, stream, base, at, gone);
  const standing = bookFrom(base, updates);
  const { book, last } = standing;
  const { bids, asks, complete: isDeep } = book.top(query.depth);
  const reason = standing.reason ?? (isDeep ? doubt(base, standing, after) : 'too_shallow');
  return {
    ...{ exchange, market_type, symbol, at, bids, asks },
    ...{ last_update_id: String(last), time: standing.time, age_ms: at - standing.time },
    base: { kind: base.kind, last_update_id: String(base.last), time: base.time },
    updates: standing.updates,
    complete: reason === null ? true : reason === 'not_known_yet' ? null : false,
    reason,
    cut: book.shallow(query.depth),
  };
}

/**
 * Applies updates as long as each follows the one before. Pure.
 * @param updates by their last id
 */
export function bookFrom(base: Base, updates: readonly Update[]): Standing {
  const whole = applied(base, updates, Number.POSITIVE_INFINITY);
  // What crosses a book is in it already: it is built once more up to there.
  return whole.reason === 'crossed' ? { ...applied(base, updates, whole.updates), reason: 'crossed' } : whole;
}

function applied(base: Base, updates: readonly Update[], most: number): Standing {
  const book = new OrderBook(base.bids, base.asks, base.fullSide);
  const standing: Standing = { book, last: base.last, time: base.time, updates: 0, reason: null };
  if (book.crossed()) return { ...standing, reason: 'crossed' };
  let isRestarted = false;
  for (const update of updates) {
    // The base has it; numbers that begin anew are all below.
    if (update.last <= base.last) isRestarted ||= update.time > base.time + RESTARTED_IDS_MS;
    if (update.last <= standing.last) continue;
    if (standing.updates >= most) break;
    if (!follows(update, standing.last)) return { ...standing, reason: 'missing_updates' };
    book.apply(update.bids, update.asks);
    if (book.crossed()) return { ...standing, reason: 'crossed' };
    standing.last = update.last;
    standing.time = Math.max(standing.time, update.time);
    standing.updates += 1;
  }
  return isRestarted
    ? { ...standing, reason: 'ids_restarted' }
    : updates.length > MOST_UPDATES
      ? { ...standing, reason: 'too_long' }
      : standing;
}

/** Whether nothing is missing between `last` and an update; after a whole book, that may lie within the update. */
function follows({ first, prev }: Update, last: bigint): boolean {
  const before = prev ?? (first === null ? null : first - 1n);
  return before !== null && before <= last;
}

/** What is against an unbroken chain being all of it: only the next update can tell. */
function doubt({ kind }: Base, { last, time }: Standing, after: readonly Update[]): Reason | null {
  if (after.length === 0) return 'not_known_yet';
  const longest = WHOLE_BOOKS.stepMs + WHOLE_BOOKS.quiet;
  const isNext = (update: Update) =>
    kind === 'whole' ? update.time - time <= longest : update.last > last && follows(update, last);
  return after.some(isNext) ? null : 'missing_updates';
}

const WHOLE_COLUMNS = 'toUnixTimestamp64Milli(each.timestamp) AS ms, each.last_update_id, each.bids, each.asks';

/** The newest whole book up to a time; null: there is none. */
async function baseOf(
  database: MarketDatabase,
  source: Source,
  stream: MarketStream,
  at: number,
  gone: AbortSignal,
): Promise<Base | null> {
  const { isWhole, isCut } = bookVenue(stream.exchange);
  const params = { ...stream, from: at - LOOK_BACK_MS, to: at };
  const newest = async (kind: Base['kind'], only: string): Promise<Base[]> => {
    const table = source.table(kind === 'sample' ? 'orderbook' : 'orderbook_update');
    const query = `SELECT ${WHOLE_COLUMNS} FROM ${table} AS each WHERE ${OF_STREAM} AND each.timestamp >= ${timeOf('from')} AND each.timestamp <= ${timeOf('to')} AND ${only} ORDER BY each.timestamp DESC, each.last_update_id DESC LIMIT 1`;
    const rows = await database.rows<[string, string, Level[], Level[]]>(source, { query, params }, gone);
    const fullSide = isWhole ? Number.POSITIVE_INFINITY : isCut && kind === 'sample' ? 1 : FULL_SIDE;
    return rows.map(([time, last, bids, asks]) => ({
      kind,
      last: BigInt(last),
      time: Number(time),
      bids,
      asks,
      fullSide,
    }));
  };
  if (isWhole) return (await newest('whole', '1'))[0] ?? null;
  // What Binance's collector knows not to be complete is no base.
  const samples = await newest('sample', isCut ? "each.verified = 'verified'" : '1');
  const found = [...samples, ...(await newest('snapshot', 'each.is_snapshot'))];
  return found.sort((one, other) => other.time - one.time || (one.last < other.last ? 1 : -1))[0] ?? null;
}

/** Updates since the base by their ids, and the first ones that came after the time. */
async function updatesOf(
  database: MarketDatabase,
  source: Source,
  stream: MarketStream,
  base: Base,
  at: number,
  gone: AbortSignal,
): Promise<{ updates: Update[]; after: Update[] }> {
  const isWhole = base.kind === 'whole';
  const asked = async (columns: string, only: string, order: string, most: number) => {
    const query = `SELECT toUnixTimestamp64Milli(each.timestamp) AS ms, each.first_update_id, each.last_update_id, each.prev_update_id, ${columns} FROM ${source.table('orderbook_update')} AS each WHERE ${OF_STREAM} AND ${isWhole ? '1' : 'NOT each.is_snapshot'} AND ${only} ORDER BY ${order} LIMIT {most:UInt32}`;
    const params = { ...stream, from: base.time - DISORDER_MS, at, until: at + LOOK_BACK_MS, most };
    return (await database.rows<Cells>(source, { query, params }, gone)).map(updateOf);
  };
  const between = `each.timestamp >= ${timeOf('from')} AND each.timestamp <= ${timeOf('at')}`;
  const later = `each.timestamp > ${timeOf('at')} AND each.timestamp <= ${timeOf('until')}`;
  const [updates, after] = await Promise.all([
    isWhole ? [] : asked('each.bids, each.asks', between, 'each.last_update_id', MOST_UPDATES + 1),
    asked('[], []', later, 'each.timestamp, each.last_update_id', MOST_AFTER),
  ]);
  return { updates, after };
}

type Cells = [ms: string, first: string | null, last: string, prev: string | null, bids: Level[], asks: Level[]];

function updateOf([ms, first, last, prev, bids, asks]: Cells): Update {
  const id = (text: string | null) => (text === null ? null : BigInt(text));
  return { time: Number(ms), first: id(first), last: BigInt(last), prev: id(prev), bids, asks };
}
