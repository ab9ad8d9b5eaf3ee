/** Lists of rows of one type: by event time, in pages that stay what they are while rows arrive, in four formats. */
import { Readable } from 'node:stream';
import type { ClickHouseSettings } from '@clickhouse/client';
import { type Column, type DataType, STREAM_COLUMNS, TABLES } from '../rows.ts';
import { MarketDatabase, type MarketQuery, type Source } from './market_database.ts';
import { cursorOf, type Format, type ListQuery, type Place, placeOf, type Span, spanOf } from './market_query.ts';
import { Answer, type Asked, type WebContext } from './route.ts';

/** As ClickHouse calls it, and as the web does. */
export const FORMATS: Record<Format, { name: string; type: string }> = {
  json: { name: 'JSONEachRow', type: 'application/json; charset=utf-8' },
  ndjson: { name: 'JSONEachRow', type: 'application/x-ndjson; charset=utf-8' },
  csv: { name: 'CSVWithNames', type: 'text/csv; charset=utf-8; header=present' },
  parquet: { name: 'Parquet', type: 'application/vnd.apache.parquet' },
};

/** Rows of a book are a thousand times as large as others: blocks and groups are bounded by bytes, too. */
const OUTPUT: Record<Format, ClickHouseSettings> = {
  json: { output_format_json_array_of_rows: 1, output_format_json_quote_64bit_integers: 0 },
  ndjson: { output_format_json_quote_64bit_integers: 0 },
  csv: { format_csv_null_representation: '', output_format_json_quote_64bit_integers: 0 },
  parquet: {
    output_format_parquet_row_group_size: '50000',
    output_format_parquet_row_group_size_bytes: '32000000',
    output_format_parquet_parallel_encoding: 0,
    output_format_parquet_compression_method: 'zstd',
  },
};
const MOST_BLOCK_ROWS = { max_block_size: '8192' };

/** What a list is of. */
export interface ListSource {
  type: DataType;
  /** Asks for the present state of each gap, where the table has all of them. */
  isGaps?: boolean;
}

interface Page {
  where: string[];
  params: Record<string, unknown>;
}

/** Columns by which a list is sorted: those of the table's own order, the time first, so that several streams come as one. */
export function orderColumns({ type, isGaps }: ListSource): Column[] {
  const { key, columns } = TABLES[type];
  const own = key.filter((name) => name !== 'timestamp' && !(isGaps === true && name === 'status'));
  return ['timestamp', 'exchange', 'market_type', ...own].map(
    (name) => columns.find((column) => column.name === name)!,
  );
}

/** Answers a page of a list. `x-next-cursor` and `x-more` say how it goes on, in JSON `next` and `more`, too. */
export async function answerList(
  context: WebContext,
  list: ListSource,
  { query, gone }: Asked<unknown, ListQuery>,
): Promise<Answer> {
  const database = MarketDatabase.of(context);
  const span = spanOf(query, context.clock());
  const source = database.source(span.from);
  const page = pageOf(list, query, span);
  await narrow(database, source, list, query, page, gone);
  const { last, count } = await lastOf(database, source, list, query, page, gone);
  const next = last === null ? null : cursorOf(TABLES[list.type].name, last);
  const more = count === query.limit;
  const { type } = FORMATS[query.format];
  const headers = {
    'x-tier': source.tier,
    'x-more': String(more),
    ...(next === null ? {} : { 'x-next-cursor': next }),
  };
  const rows = await database.stream(source, listSql(source, list, query, page, last), gone);
  return new Answer(query.format === 'json' ? enclosed(rows, next, more) : rows, type, 200, headers);
}

/** What all queries of a page ask for. @throws WebError */
function pageOf(list: ListSource, query: ListQuery, span: Span): Page {
  const params: Record<string, unknown> = { ...span, symbol: query.symbol };
  // A gap that reaches into the span is one of it.
  const where = ['each.symbol = {symbol:String}', `each.timestamp < ${timeOf('to')}`];
  where.push(`each.${list.isGaps ? 'to_time' : 'timestamp'} >= ${timeOf('from')}`);
  for (const name of ['exchange', 'market_type'] as const) {
    if (query[name] !== undefined) is(name, query[name], { where, params });
  }
  if (query.cursor !== undefined) {
    const columns = orderColumns(list);
    const place = placeOf(TABLES[list.type].name, columns, query.cursor);
    where.push(beyond(columns, place, query.order === 'asc' ? '>' : '<', 'c', params));
  }
  return { where, params };
}

function is(name: string, value: string, { where, params }: Page): void {
  where.push(`each.${name} = {${name}:String}`);
  params[name] = value;
}

/** With the stream known, rows are read in their order; several streams are sorted. */
async function narrow(
  database: MarketDatabase,
  source: Source,
  list: ListSource,
  query: ListQuery,
  page: Page,
  gone: AbortSignal,
): Promise<void> {
  if (query.exchange !== undefined && query.market_type !== undefined) return;
  const asked = `SELECT DISTINCT each.exchange, each.market_type ${from(source, list, page)}`;
  const found = await database.rows<[string, string]>(source, { query: asked, params: page.params }, gone);
  if (found.length !== 1) return;
  const [[exchange, marketType]] = found as [[string, string]];
  if (query.exchange === undefined) is('exchange', exchange, page);
  if (query.market_type === undefined) is('market_type', marketType, page);
}

/** Where the page ends, so that it can be said before its first row; rows that come meanwhile move no page. */
async function lastOf(
  database: MarketDatabase,
  source: Source,
  list: ListSource,
  { limit, order }: ListQuery,
  page: Page,
  gone: AbortSignal,
): Promise<{ last: Place | null; count: number }> {
  const columns = orderColumns(list);
  const names = columns.map(({ name }) => name);
  const inner = `SELECT ${names.map((name) => `each.${name} AS ${name}`).join(', ')} ${from(source, list, page)} ${orderBy(names, order)} LIMIT {limit:UInt32}`;
  const whole = `tuple(${columns.map((column) => plainColumn(column, `inner.${column.name}`)).join(', ')})`;
  const last = columns.map((_, i) => `toString(tupleElement(last, ${i + 1}))`);
  const query = `SELECT count, ${last.join(', ')} FROM (SELECT count() AS count, ${order === 'asc' ? 'max' : 'min'}(${whole}) AS last FROM (${inner}) AS inner)`;
  const [row] = await database.rows<string[]>(source, { query, params: { ...page.params, limit } }, gone);
  const [count, ...place] = row as [string, ...string[]];
  return Number(count) === 0 ? { last: null, count: 0 } : { last: place, count: Number(count) };
}

/** A column as it is compared, and written into a cursor. */
function plainColumn({ kind }: Column, name: string): string {
  if (kind === 'ticks') return `toUnixTimestamp64Milli(${name})`;
  return kind === 'text' ? `toString(${name})` : name;
}

/** The rows of a page: from its place up to where it ends. */
function listSql(source: Source, list: ListSource, query: ListQuery, page: Page, last: Place | null): MarketQuery {
  const columns = orderColumns(list);
  const params = { ...page.params };
  const where =
    last === null ? ['0'] : [...page.where, beyond(columns, last, query.order === 'asc' ? '<=' : '>=', 'l', params)];
  const shown = TABLES[list.type].columns
    .filter(({ kind }) => kind !== undefined)
    .map((column) => `${shownColumn(column, query.format)} AS ${column.name}`);
  const names = columns.map(({ name }) => name);
  return {
    query: `SELECT ${shown.join(', ')} ${from(source, list, { ...page, where })} ${orderBy(names, query.order)} FORMAT ${FORMATS[query.format].name}`,
    params,
    settings: { ...MOST_BLOCK_ROWS, ...OUTPUT[query.format] },
  };
}

/** Text says all digits of a decimal and an id, in whatever reads it. Parquet has types of its own that do. */
function shownColumn({ name, kind, nullable }: Column, format: Format): string {
  const column = `each.${name}`;
  if (format === 'parquet') return kind === 'text' ? (nullable ? column : `toString(${column})`) : column;
  if (kind === 'ticks') return `toUnixTimestamp64${name === 'received_at' ? 'Micro' : 'Milli'}(${column})`;
  if (kind === 'integer') return `toString(${column})`;
  return kind === 'levels' && format === 'csv' ? `toJSONString(${column})` : column;
}

function from(source: Source, { type, isGaps }: ListSource, { where }: Page): string {
  const table = source.table(type);
  const rows = isGaps ? `(${gapsNow(table)})` : table;
  return `FROM ${rows} AS each WHERE ${where.join(' AND ')}`;
}

/** The present state of each gap: filled is the last one, whatever comes after it. As tuples, since argMax passes by what is null. */
export function gapsNow(table: string): string {
  const constant = [...STREAM_COLUMNS, 'gap_id'];
  const newest = TABLES.gap.columns.map(({ name }) => name).filter((name) => !constant.includes(name));
  const states = newest.map(
    (name) => `argMax(tuple(state.${name}), (state.status = 'filled', state.js_epoch, state.js_seq)).1 AS ${name}`,
  );
  const of = constant.map((name) => `state.${name} AS ${name}`);
  return `SELECT ${[...of, ...states].join(', ')} FROM ${table} AS state WHERE state.symbol = {symbol:String} GROUP BY ${constant.map((name) => `state.${name}`).join(', ')}`;
}

function orderBy(names: readonly string[], order: 'asc' | 'desc'): string {
  return `ORDER BY ${names.map((name) => `each.${name} ${order.toUpperCase()}`).join(', ')}`;
}

/** Rows on one side of a place. The time says it twice, once so that the table's order serves it. */
function beyond(
  columns: readonly Column[],
  place: Place,
  sign: string,
  prefix: string,
  params: Record<string, unknown>,
): string {
  const values = columns.map((column, i) => {
    params[`${prefix}${i}`] = place[i];
    return column.kind === 'ticks'
      ? timeOf(`${prefix}${i}`)
      : `{${prefix}${i}:${column.kind === 'text' ? 'String' : column.type}}`;
  });
  const side = sign.endsWith('=') ? sign : `${sign}=`;
  return `each.timestamp ${side} ${values[0]} AND (${columns.map(({ name }) => `each.${name}`).join(', ')}) ${sign} (${values.join(', ')})`;
}

/** A parameter in ms as the columns have times. */
export function timeOf(param: string): string {
  return `fromUnixTimestamp64Milli({${param}:Int64}, 'UTC')`;
}

/** One JSON object around rows that come as one list. */
function enclosed(rows: Readable, next: string | null, more: boolean): Readable {
  async function* parts() {
    yield Buffer.from('{"data":');
    yield* rows as AsyncIterable<Buffer>;
    yield Buffer.from(`,"next":${JSON.stringify(next)},"more":${more}}\n`);
  }
  const readable = Readable.from(parts(), { objectMode: false });
  readable.once('close', () => rows.destroy());
  return readable;
}
