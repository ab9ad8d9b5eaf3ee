/**
 * `/api/gaps` and `/api/gaps/timeline`: what is known to be missing, over all symbols, each gap in its present state. The time line stays small on a
 * busy day: gaps of one exchange, type and state that begin in the same stretch of time are one mark, which says how many they are.
 */
import { z } from 'zod';
import { DATA_TYPES, EXCHANGES } from '../rows.ts';
import { MarketDatabase, type Source } from './market_database.ts';
import { timeOf } from './market_lists.ts';
import { exchange, type Span, spanOf, time } from './market_query.ts';
import { limit, offset, wholeNumber } from './parameters.ts';
import type { Asked, WebContext } from './route.ts';

const DAY_MS = 24 * 3_600_000;
const MOST_PAGE = 1000;
/** Stretches of the time line. */
const BUCKETS = { least: 10, usual: 96, most: 288 };
const SETTINGS = { max_execution_time: 15 };

const STATUSES = ['open', 'filled', 'unfillable'] as const;
const ms = z.number();
const count = z.number().int();

const spanQuery = {
  from: time.optional().meta({ description: 'venue time, included; default: 24 h before `to`' }),
  to: time.optional().meta({ description: 'venue time, not included; default: now' }),
};
const filters = {
  exchange: exchange.optional(),
  data_type: z.enum(DATA_TYPES).optional(),
  status: z.enum(STATUSES).optional(),
};
export const GAPS_QUERY = z.strictObject({ ...spanQuery, ...filters, limit: limit(100, MOST_PAGE), offset });
export const TIMELINE_QUERY = z.strictObject({
  ...spanQuery,
  buckets: wholeNumber(BUCKETS.least, BUCKETS.most).default(BUCKETS.usual),
});

const COUNTS = z.object({
  gaps: count,
  rows: count.describe('Rows that the gaps had when they were declared, as far as that is known.'),
  missing_rows: count.describe('Of them those that are not there now, as far as that is known.'),
  uncounted: count.describe('Gaps of which nobody can know how many rows they have.'),
});
const BY_STATUS = z.object({ open: COUNTS, filled: COUNTS, unfillable: COUNTS });
export type GapCounts = z.infer<typeof COUNTS>;

const GAP = z.object({
  gap_id: z.string(),
  ...{ exchange: z.string(), market_type: z.string(), symbol: z.string(), data_type: z.string() },
  status: z.enum(STATUSES),
  cause: z.string(),
  reason: z.string().nullable(),
  ...{ from_time: ms, to_time: ms },
  ...{ from_id: z.string(), to_id: z.string() },
  rows: count.nullable().describe('null: nobody can know.'),
  filled_rows: count.nullable(),
  missing_rows: count.nullable().describe('Of `rows` those that are not there now; null: nobody can know.'),
  detected_at: ms,
  closed_at: ms.nullable(),
});

export const GAPS_ANSWER = z.object({
  ...{ from: ms, to: ms },
  total: count.describe('Gaps that reach into the time, and fit what was asked for.'),
  counts: BY_STATUS,
  gaps: z.array(GAP).describe('Those that began last come first.'),
});
export type GapsAnswer = z.infer<typeof GAPS_ANSWER>;

const MARK = z.object({
  exchange: z.string(),
  data_type: z.string(),
  status: z.enum(STATUSES),
  from: ms.describe('When the first of its gaps begins, at the earliest the time that was asked for.'),
  to: ms.describe('When the last of them ends, at the latest the time that was asked for.'),
  gaps: count,
  symbols: count,
  rows: count,
  missing_rows: count,
  uncounted: count,
  causes: z.array(z.string()),
});
export type GapMark = z.infer<typeof MARK>;

export const TIMELINE_ANSWER = z.object({
  ...{ from: ms, to: ms },
  bucket_ms: ms.describe('Gaps that begin within so much time are one mark.'),
  total: count.describe('Gaps in all: the sum over the marks.'),
  counts: BY_STATUS,
  marks: z.array(MARK),
});
export type TimelineAnswer = z.infer<typeof TIMELINE_ANSWER>;

/** Of the present state: what is counted and placed, and what is shown besides. */
const COUNTED_COLUMNS = ['data_type', 'from_time', 'to_time', 'cause', 'status', 'rows', 'filled_rows'] as const;
const SHOWN_COLUMNS = [...COUNTED_COLUMNS, 'from_id', 'to_id', 'reason', 'detected_at', 'closed_at'] as const;
const STREAM = ['exchange', 'market_type', 'symbol', 'gap_id'];
/** Of an open gap what was filled so far is there; a filled one lacks nothing. */
const MISSING = `if(each.rows IS NULL, NULL, if(each.status = 'filled', 0, each.rows - least(ifNull(each.filled_rows, 0), each.rows)))`;
const SUMS = `count(), sum(ifNull(each.rows, 0)), sum(ifNull(${MISSING}, 0)), countIf(each.rows IS NULL)`;

/**
 * The present state of each gap that reaches into the time, by `{from}` and `{to}`. Filled is the last one, whatever comes after it, as the view
 * gaps_now has it. States are told from all of a gap's, also where only one of them reaches into the time.
 * @param columns of the state; the fewer, the sooner it is there
 */
function gapsNow(table: string, columns: readonly string[], wheres: readonly string[] = []): string {
  // One aggregate for all columns: one for each takes several times as long.
  const last = `argMax(tuple(${columns.map((name) => `state.${name}`).join(', ')}), (state.status = 'filled', state.js_epoch, state.js_seq))`;
  const state = columns.map((name, i) => `tupleElement(last, ${i + 1}) AS ${name}`);
  const reaches = (name: string) => `${name}.to_time >= ${timeOf('from')} AND ${name}.from_time < ${timeOf('to')}`;
  const grouped =
    `SELECT ${STREAM.map((name) => `state.${name} AS ${name}`).join(', ')}, ${last} AS last FROM ${table} AS state ` +
    `WHERE state.gap_id IN (SELECT some.gap_id FROM ${table} AS some WHERE ${reaches('some')}) ` +
    `GROUP BY ${STREAM.map((name) => `state.${name}`).join(', ')}`;
  const named = `SELECT ${[...STREAM, ...state].join(', ')} FROM (${grouped})`;
  return `(${named}) AS each WHERE ${[reaches('each'), ...wheres].join(' AND ')}`;
}

/** Answers a page of gaps. @throws WebError where `from` is not before `to` */
export async function answerGaps(
  context: WebContext,
  { query, gone }: Asked<unknown, z.output<typeof GAPS_QUERY>>,
): Promise<GapsAnswer> {
  const span = spanOf(query, context.clock(), DAY_MS);
  const database = MarketDatabase.of(context);
  const source = database.source(span.from);
  const params: Record<string, unknown> = { ...span };
  const wheres: string[] = [];
  for (const name of ['exchange', 'data_type', 'status'] as const) {
    if (query[name] === undefined) continue;
    wheres.push(`each.${name} = {${name}:String}`);
    params[name] = query[name];
  }
  const table = source.table('gap');
  const by = `SELECT toString(each.status), ${SUMS} FROM ${gapsNow(table, COUNTED_COLUMNS, wheres)} GROUP BY each.status`;
  const counted = await database.rows<string[]>(source, { query: by, params, settings: SETTINGS }, gone);
  const shown = [
    ...STREAM.map((name) => `each.${name}`),
    ...['data_type', 'toString(status)', 'cause', 'reason', 'from_id', 'to_id', 'rows', 'filled_rows'],
    MISSING,
    ...['from_time', 'to_time', 'detected_at', 'closed_at'].map((name) => `toUnixTimestamp64Milli(each.${name})`),
  ];
  const page = {
    query: `SELECT ${shown.join(', ')} FROM ${gapsNow(table, SHOWN_COLUMNS, wheres)} ORDER BY each.from_time DESC, ${STREAM.map((name) => `each.${name}`).join(', ')} LIMIT {limit:UInt32} OFFSET {offset:UInt32}`,
    params: { ...params, limit: query.limit, offset: query.offset },
    settings: SETTINGS,
  };
  const rows = await database.rows<(string | null)[]>(source, page, gone);
  const counts = countsOf(counted.map(([status, ...sums]) => [status!, sums] as const));
  return { ...span, total: totalOf(counts), counts, gaps: rows.map(gapOf) };
}

function gapOf(row: (string | null)[]): GapsAnswer['gaps'][number] {
  const [exchange, market_type, symbol, gap_id, data_type, status, cause, reason, from_id, to_id] = row as string[];
  const [rows, filled, missing, from, to, detected, closed] = row.slice(10).map(numberOrNull);
  return {
    ...{ gap_id: gap_id!, exchange: exchange!, market_type: market_type!, symbol: symbol!, data_type: data_type! },
    ...{ status: status as 'open' | 'filled' | 'unfillable', cause: cause!, reason: reason ?? null },
    ...{ from_time: from!, to_time: to!, from_id: from_id!, to_id: to_id! },
    ...{ rows: rows ?? null, filled_rows: filled ?? null, missing_rows: missing ?? null },
    ...{ detected_at: detected!, closed_at: closed ?? null },
  };
}

/** Answers the marks of a time line. @throws WebError where `from` is not before `to` */
export async function answerTimeline(
  context: WebContext,
  { query, gone }: Asked<unknown, z.output<typeof TIMELINE_QUERY>>,
): Promise<TimelineAnswer> {
  const span = spanOf(query, context.clock(), DAY_MS);
  const database = MarketDatabase.of(context);
  const source = database.source(span.from);
  const bucket_ms = Math.max(Math.ceil((span.to - span.from) / query.buckets), 1);
  const marks = await marksOf(database, source, span, bucket_ms, gone);
  const counts = countsOf(
    marks.map((mark) => [mark.status, [mark.gaps, mark.rows, mark.missing_rows, mark.uncounted]] as const),
  );
  return { ...span, bucket_ms, total: totalOf(counts), counts, marks };
}

async function marksOf(
  database: MarketDatabase,
  source: Source,
  { from, to }: Span,
  bucket: number,
  gone: AbortSignal,
): Promise<GapMark[]> {
  const begin = 'greatest(toUnixTimestamp64Milli(each.from_time), {from:Int64})';
  const place = `intDiv(${begin} - {from:Int64}, {bucket:Int64})`;
  // Rows are bounded by what they are grouped by.
  const query =
    `SELECT each.exchange, each.data_type, toString(each.status), min(${begin}), max(least(toUnixTimestamp64Milli(each.to_time), {to:Int64})), ` +
    `${SUMS}, uniqExact(each.market_type, each.symbol), arraySort(groupUniqArray(20)(each.cause)) FROM ${gapsNow(source.table('gap'), COUNTED_COLUMNS)} ` +
    `GROUP BY each.exchange, each.data_type, each.status, ${place} ORDER BY each.exchange, each.data_type, ${place}, each.status LIMIT {most:UInt32}`;
  const most = EXCHANGES.length * DATA_TYPES.length * STATUSES.length * (BUCKETS.most + 1);
  const rows = await database.rows<unknown[]>(
    source,
    { query, params: { from, to, bucket, most }, settings: SETTINGS },
    gone,
  );
  return rows.map(([exchange, data_type, status, ...figures]) => {
    const [first, last, gaps, own, missing, uncounted, symbols] = figures.slice(0, 7).map(Number);
    return {
      ...{ exchange: exchange as string, data_type: data_type as string, status: status as GapMark['status'] },
      ...{ from: first!, to: last!, gaps: gaps!, symbols: symbols!, rows: own! },
      ...{ missing_rows: missing!, uncounted: uncounted!, causes: figures[7] as string[] },
    };
  });
}

function countsOf(rows: readonly (readonly [status: string, sums: readonly (string | number)[]])[]) {
  const none = (): GapCounts => ({ gaps: 0, rows: 0, missing_rows: 0, uncounted: 0 });
  const counts = { open: none(), filled: none(), unfillable: none() };
  for (const [status, sums] of rows) {
    const own = counts[status as keyof typeof counts];
    const [gaps, all, missing, uncounted] = sums.map(Number);
    own.gaps += gaps!;
    own.rows += all!;
    own.missing_rows += missing!;
    own.uncounted += uncounted!;
  }
  return counts;
}

function totalOf({ open, filled, unfillable }: Record<(typeof STATUSES)[number], GapCounts>): number {
  return open.gaps + filled.gaps + unfillable.gaps;
}

function numberOrNull(text: string | null): number | null {
  return text === null ? null : Number(text);
}
