/**
 * All rows of a symbol in the order in which they were received, as `normalize.ts` writes them. What was received in an hour is counted first, by
 * seconds; windows of no more rows than fit into memory are then read whole one after another, so that a slow reader holds up nothing.
 */
import { Readable } from 'node:stream';
import { z } from 'zod';
import { type Column, DATA_TYPES, type DataType, TABLES, textColumns } from '../rows.ts';
import { MarketDatabase, type MarketQuery, type Source } from './market_database.ts';
import { timeOf } from './market_lists.ts';
import { exchange, marketType, type Span, spanOf, symbol, time } from './market_query.ts';
import { Answer, type Asked, type WebContext, WebError } from './route.ts';

const DAY_MS = 24 * 3_600_000;
const MOST_SPAN_MS = 31 * DAY_MS;
/** Received within this is counted at once. */
const COUNTED_MS = 3_600_000;
const SECOND_MS = 1000;
/** Rows of one window, where a second has no more. */
const WINDOW_ROWS = 20_000;
/** A whole book counts as so many rows. */
const BOOK_ROWS = 50;
/** A row that was fetched back, or waited on a collector's disk, may have been received so long after it happened. */
const LATE_MS = 3 * DAY_MS;
/** The clocks of venues are ahead of ours by no more. */
const AHEAD_MS = 60_000;
const PIECE_BYTES = 65_536;

export const replayQuery = z.strictObject({
  symbol,
  exchange: exchange.optional(),
  market_type: marketType.optional(),
  from: time.optional().meta({ description: 'when it was received, included; default: an hour before `to`' }),
  to: time.optional().meta({ description: 'when it was received, not included; default: now' }),
});
type ReplayQuery = z.output<typeof replayQuery>;

/** Rows that are read at once: when they were received, and when they happened, by type. */
interface Window extends Span {
  rows: number;
  happened: Map<DataType, Span>;
}

interface Part {
  database: MarketDatabase;
  source: Source;
  query: ReplayQuery;
  gone: AbortSignal;
}

export async function answerReplay(context: WebContext, { query, gone }: Asked<unknown, ReplayQuery>): Promise<Answer> {
  const span = spanOf(query, context.clock());
  if (span.to - span.from > MOST_SPAN_MS) throw new WebError(400, 'a replay is of no more than 31 days', 'from');
  const database = MarketDatabase.of(context);
  const source = database.source(span.from);
  const lines = replayed({ database, source, query, gone }, span);
  // The first window comes before the answer's head, so that what is wrong at once is told with its own status.
  const first = await lines.next();
  async function* all() {
    if (first.done !== true) yield first.value;
    yield* lines;
  }
  return new Answer(Readable.from(all(), { objectMode: false }), 'application/x-ndjson; charset=utf-8', 200, {
    'x-tier': source.tier,
  });
}

/** Text of the windows, of which the next one is read while one is sent. */
async function* replayed(part: Part, span: Span): AsyncGenerator<Buffer> {
  let ahead: Promise<Buffer> | null = null;
  try {
    for await (const window of windows(part, span)) {
      const text = part.database.bytes(part.source, windowSql(part, window), part.gone);
      // Whoever ends in between does not wait for it.
      text.catch(() => undefined);
      if (ahead !== null) yield* pieces(await ahead);
      ahead = text;
    }
    if (ahead !== null) yield* pieces(await ahead);
  } finally {
    ahead = null;
  }
}

/** A reader is asked for more after each piece. */
function* pieces(text: Buffer): Generator<Buffer> {
  for (let at = 0; at < text.length; at += PIECE_BYTES) yield text.subarray(at, at + PIECE_BYTES);
}

async function* windows(part: Part, { from, to }: Span): AsyncGenerator<Window> {
  for (let hour = from; hour < to; hour += COUNTED_MS) {
    const counted = { from: hour, to: Math.min(hour + COUNTED_MS, to) };
    const asked = { query: countSql(part), params: { ...ofQuery(part.query), ...counted } };
    yield* windowsOf(await part.database.rows<Second>(part.source, asked, part.gone), counted);
  }
}

/** Of a type: a second in which rows were received, how many, and when the first and last of them happened, ms. */
type Second = [type: DataType, second: string, rows: string, first: string, last: string];

/** Neighbouring seconds as long as their rows fit together. Pure. @param seconds in their order */
export function windowsOf(seconds: readonly Second[], span: Span): Window[] {
  const out: Window[] = [];
  let window: Window | null = null;
  let second = Number.NaN;
  for (const [type, text, rows, first, last] of seconds) {
    const start = Number(text) * SECOND_MS;
    const weight = Number(rows) * (type === 'orderbook' ? BOOK_ROWS : 1);
    // Rows of one second stay together: they are sorted among each other.
    if (window === null || (start !== second && window.rows + weight > WINDOW_ROWS)) {
      window = { from: Math.max(start, span.from), to: 0, rows: 0, happened: new Map() };
      out.push(window);
    }
    second = start;
    window.to = Math.min(start + SECOND_MS, span.to);
    window.rows += weight;
    const { from, to } = window.happened.get(type) ?? { from: Number(first), to: Number(last) };
    window.happened.set(type, { from: Math.min(from, Number(first)), to: Math.max(to, Number(last)) });
  }
  return out;
}

function ofQuery({ symbol, exchange, market_type }: ReplayQuery): Record<string, unknown> {
  return {
    symbol,
    ...(exchange === undefined ? {} : { exchange }),
    ...(market_type === undefined ? {} : { market_type }),
  };
}

/** Rows of a type that were received within the span, looked for where they may have happened. */
function rowsOf({ source, query }: Part, type: DataType, from: string, to: string): string {
  const where = Object.keys(ofQuery(query)).map((name) => `each.${name} = {${name}:String}`);
  const received = `each.received_at >= ${timeOf('from')} AND each.received_at < ${timeOf('to')}`;
  return `FROM ${source.table(type)} AS each WHERE ${where.join(' AND ')} AND ${received} AND each.timestamp >= ${from} AND each.timestamp <= ${to}`;
}

function countSql(part: Part): string {
  const from = `${timeOf('from')} - toIntervalMillisecond(${LATE_MS})`;
  const to = `${timeOf('to')} + toIntervalMillisecond(${AHEAD_MS})`;
  const each = DATA_TYPES.map(
    (type) =>
      `SELECT '${type}' AS type, intDiv(toUnixTimestamp64Micro(each.received_at), 1000000) AS second, count(), toUnixTimestamp64Milli(min(each.timestamp)), toUnixTimestamp64Milli(max(each.timestamp)) ${rowsOf(part, type, from, to)} GROUP BY second`,
  );
  return `SELECT * FROM (${each.join(' UNION ALL ')}) ORDER BY second, type`;
}

/** Rows of a window as lines. What was received at once comes by its place in the stream, then by type, time and number. */
function windowSql(part: Part, { from, to, happened }: Window): MarketQuery {
  const params: Record<string, unknown> = { ...ofQuery(part.query), from, to };
  const each = [...happened].map(([type, span]) => {
    params[`${type}_from`] = span.from;
    params[`${type}_to`] = span.to;
    const members = textColumns(type);
    const values = members.map((column) => `${textValue(column)} AS ${column.name}`);
    const rows = `SELECT each.received_at AS received, each.js_epoch AS epoch, each.js_seq AS seq, ${DATA_TYPES.indexOf(type)} AS place, toUnixTimestamp64Milli(each.timestamp) AS ms, ${numberOf(type)} AS number, ${values.join(', ')} ${rowsOf(part, type, timeOf(`${type}_from`), timeOf(`${type}_to`))}`;
    const line = `concat('{"type":"${type}",', substring(formatRowNoNewline('JSONEachRow', ${members.map(({ name }) => name).join(', ')}), 2))`;
    return `SELECT received, epoch, seq, place, ms, number, ${line} AS line FROM (${rows})`;
  });
  return {
    query: `SELECT line FROM (${each.join(' UNION ALL ')}) ORDER BY received, epoch, seq, place, ms, number, line FORMAT TSVRaw`,
    params,
    settings: { output_format_json_quote_64bit_integers: 0 },
  };
}

/** As `encodeRow` writes it: times in the column's own ticks, decimals as text, ids as bare integers. */
function textValue({ name, kind }: Column): string {
  if (kind === 'ticks') return `toUnixTimestamp64${name === 'received_at' ? 'Micro' : 'Milli'}(each.${name})`;
  return `each.${name}`;
}

/** What counts up within a stream's message, for its order. */
function numberOf(type: DataType): string {
  if (type === 'trade') return 'toUInt64OrZero(each.trade_id)';
  return TABLES[type].columns.some(({ name }) => name === 'last_update_id') ? 'each.last_update_id' : 'toUInt64(0)';
}
