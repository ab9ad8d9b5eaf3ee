/** What a table holds, as counts and hashes: two that hold the same rows, in whatever order and however they came, give the same. */
import type { ClickHouseClient } from '@clickhouse/client';
import { selectText } from './clickhouse.ts';
import { ABOUT_ARRIVAL, type DataType, STREAM_COLUMNS, TABLES } from './rows.ts';

export interface Contents {
  rows: number;
  /** Distinct keys. */
  unique: number;
  /** Sum of the hashes of all values that are not about the arrival. */
  hash: string;
}

export const NOTHING: Contents = { rows: 0, unique: 0, hash: '0' };

const SETTINGS = { max_execution_time: 300 };

/** Contents of a table by stream, named `exchange market_type symbol`. @param condition SQL; absent: all rows */
export async function contentsByStream(
  client: ClickHouseClient,
  database: string,
  type: DataType,
  condition = '1',
): Promise<Map<string, Contents>> {
  const rows = await selectText(client, contentsQuery(database, type, condition), SETTINGS);
  return new Map(
    rows.map(([exchange, market_type, symbol, count, unique, hash]) => [
      `${exchange} ${market_type} ${symbol}`,
      { rows: Number(count), unique: Number(unique), hash: hash! },
    ]),
  );
}

/** SQL: the hash of what a row says. */
export function contentHash(type: DataType): string {
  const values = TABLES[type].columns.map((column) => column.name).filter((column) => !ABOUT_ARRIVAL.has(column));
  return `cityHash64(formatRow('JSONCompactEachRow', ${values.join(', ')}))`;
}

export function contentsQuery(database: string, type: DataType, condition = '1'): string {
  const { name, key } = TABLES[type];
  const stream = STREAM_COLUMNS.join(', ');
  return [
    `SELECT ${stream}, toString(count()), toString(uniqExact(${key.join(', ')})), toString(sum(${contentHash(type)}))`,
    `FROM ${database}.${name} WHERE ${condition} GROUP BY ${stream}`,
  ].join(' ');
}
