/** Rows of hot and cold by their names: which are there, which differ, and the rows themselves as they came. */
import type { ClickHouseClient, ClickHouseSettings } from '@clickhouse/client';
import { selectText } from '../clickhouse.ts';
import { contentHash } from '../contents.ts';
import { at, STREAM } from '../gap_rows.ts';
import { type DataType, type Level, type Rows, STREAM_COLUMNS, TABLES } from '../rows.ts';
import type { Tier } from '../schema_sql.ts';

/** Names of a step stand in the text of its queries. */
export const LIMITS: ClickHouseSettings = { max_execution_time: 110, max_query_size: '67108864' };

/** A tier's tables. */
export interface Place {
  tier: Tier;
  client: ClickHouseClient;
  database: string;
}

/** Event times of one stream, ms; `to` is not in it. */
export interface Window {
  exchange: string;
  market_type: string;
  symbol: string;
  from: number;
  to: number;
}

export function tableOf({ database }: Place, type: DataType): string {
  return `${database}.${TABLES[type].name}`;
}

/** SQL: what names a row within its stream, as text. */
export function nameSql(type: DataType): string {
  const members = TABLES[type].key.filter((member) => member !== 'timestamp').map((member) => `toString(${member})`);
  return `concat_ws('|', ${['toString(toUnixTimestamp64Milli(timestamp))', ...members].join(', ')})`;
}

export function inWindow(window: Window): string {
  const stream = STREAM_COLUMNS.map((column) => `${column} = ${quoted(window[column])}`);
  return [...stream, `timestamp >= ${at(window.from)}`, `timestamp < ${at(window.to)}`].join(' AND ');
}

/** What `nameSql` tells of a row, from its tab-separated `writtenColumns`. */
export function nameOf(type: DataType, line: string): string {
  const columns = writtenColumns(type);
  const cells = line.split('\t');
  const cell = (column: string) => cells[columns.indexOf(column)]!;
  const time = Date.parse(`${cell('timestamp').replace(' ', 'T')}Z`);
  return [time, ...TABLES[type].key.filter((member) => member !== 'timestamp').map(cell)].join('|');
}

/** SQL: rows of a window with these names. */
export function named(type: DataType, window: Window, names: Iterable<string>): string {
  return `${inWindow(window)} AND ${nameSql(type)} IN (${[...names].map(quoted).join(', ')})`;
}

export function quoted(text: string): string {
  return `'${text.replace(/['\\]/g, '\\$&')}'`;
}

export async function countRows(place: Place, type: DataType, where: string): Promise<number> {
  const query = `SELECT count() FROM ${tableOf(place, type)} WHERE ${where}`;
  return Number((await selectText(place.client, query, LIMITS))[0]![0]);
}

/** Columns that are written, in the table's order: what a table computes is left to it, except when a row arrived. */
export function writtenColumns(type: DataType): string[] {
  return TABLES[type].columns.filter(({ expression }) => !expression?.startsWith('ALIAS')).map(({ name }) => name);
}

/** Rows and summed hashes by stream and span of time. @param spanMs divides an hour, or is one @param where SQL */
export async function sums(
  place: Place,
  type: DataType,
  where: string,
  spanMs: number,
): Promise<Map<string, { window: Window; rows: number; hash: string }>> {
  const span = `intDiv(toUnixTimestamp64Milli(timestamp), ${spanMs})`;
  const query = `SELECT ${STREAM}, ${span} AS span, count(), toString(sum(${contentHash(type)})) FROM ${tableOf(place, type)} WHERE ${where} GROUP BY ${STREAM}, span`;
  const rows = await selectText(place.client, query, LIMITS);
  return new Map(
    rows.map(([exchange, market_type, symbol, number, count, hash]) => {
      const from = Number(number) * spanMs;
      const window = { exchange: exchange!, market_type: market_type!, symbol: symbol!, from, to: from + spanMs };
      return [`${exchange} ${market_type} ${symbol} ${number}`, { window, rows: Number(count), hash: hash! }];
    }),
  );
}

export interface NamedRow {
  /** Hashes of what the copies say: more than one when they disagree. */
  hashes: Set<string>;
  copies: number;
  /** Whether the condition that was asked for holds. */
  flag: boolean;
}

/** Rows by name. @param where SQL @param flag SQL condition told of each */
export async function rowsByName(
  place: Place,
  type: DataType,
  where: string,
  flag: string,
): Promise<Map<string, NamedRow>> {
  const query = `SELECT ${nameSql(type)} AS name, toString(${contentHash(type)}) AS hash, count(), max(${flag}) FROM ${tableOf(place, type)} WHERE ${where} GROUP BY name, hash`;
  const found = new Map<string, NamedRow>();
  for (const [name, hash, copies, holds] of await selectText(place.client, query, LIMITS)) {
    const row = found.get(name!) ?? { hashes: new Set(), copies: 0, flag: false };
    row.hashes.add(hash!);
    row.copies += Number(copies);
    row.flag ||= holds === '1';
    found.set(name!, row);
  }
  return found;
}

/** Rows as they came over the wire, by their columns. */
export async function readRows<T extends DataType>(place: Place, type: T, where: string): Promise<Rows[T][]> {
  const columns = TABLES[type].columns.filter(({ kind }) => kind !== undefined);
  const selected = columns.map(({ name, kind, type: sql }) => {
    if (kind !== 'ticks') return name;
    const ticks = sql.includes('DateTime64(6') ? 'toUnixTimestamp64Micro' : 'toUnixTimestamp64Milli';
    return `${ticks}(t.${name}) AS ${name}`;
  });
  const result = await place.client.query({
    query: `SELECT ${selected.join(', ')} FROM (SELECT * FROM ${tableOf(place, type)} WHERE ${where}) AS t`,
    format: 'JSONEachRow',
    clickhouse_settings: LIMITS,
  });
  const rows = await result.json<Record<string, unknown>>();
  for (const row of rows) {
    for (const { name, kind } of columns) {
      const value = row[name];
      if (kind === 'ticks' && value !== null) row[name] = Number(value);
      if (kind === 'levels') row[name] = (value as Level[]).map(([price, quantity]) => [price, quantity]);
    }
  }
  // The columns are those of the type: rows.ts defines both.
  return rows as unknown as Rows[T][];
}
