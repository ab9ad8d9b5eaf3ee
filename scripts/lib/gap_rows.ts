/** Rows of `gaps`, and what all who look for holes in hot share. */
import { createHash } from 'node:crypto';
import type { ClickHouseClient } from '@clickhouse/client';
import { streamKey } from './arrivals.ts';
import { selectText } from './clickhouse.ts';
import type { Instrument, Mark } from './exchange.ts';
import type { DataType, Exchange, GapRow, MarketType } from './rows.ts';

/** Rows of a stream whose times are not quite in the order of their ids lie within this, ms. */
export const DISORDER_MS = 60_000;
/** Nothing of the stream for this long, by the venue's clock or ours: the line, the venue or we were away. */
const OUTAGE_MS = 5000;
/** Streams per query: its text stays small. */
export const STREAMS_PER_QUERY = 100;
export const QUERY_LIMITS = { max_execution_time: 60, max_query_size: '16777216' };
export const STREAM = 'exchange, market_type, symbol';

/** A stream of one table. */
export interface GapStream {
  exchange: Exchange;
  market_type: MarketType;
  symbol: string;
}

/**
 * Up to where a table's messages are stored. What was taken by a store that died comes again only after the ack wait: a hole before a row
 * above this may be only late.
 */
export interface Settled {
  epoch: number;
  seq: number;
}

export interface Look {
  gaps: GapRow[];
  /** Up to where each stream is known: every hole before is declared. */
  marks: Map<string, Mark>;
}

/** Why rows are missing, as far as hot and JetStream can tell. */
export type Cause =
  /** The stream went on, and these are not in it. */
  | 'missing_ids'
  /** A diff whose predecessor is not there, while the stream went on. */
  | 'broken_chain'
  /** Nothing of the stream came for a while: its socket was closed or silent, or its requests were refused. */
  | 'outage'
  /** The same, and the collector that brought what came next had been started meanwhile. */
  | 'downtime';

/** What is known of a row next to a hole. Times in ms: `time` the venue's, `received` ours. */
export interface RowBefore {
  time: number;
  received: number;
}
export interface RowAfter extends RowBefore, Settled {}

export interface FinderOptions {
  client: ClickHouseClient;
  database: string;
  /** What is looked at; holes in other types are another store's. */
  types: readonly DataType[];
  /** For the rows of gaps. */
  dataSource: string;
  /** A hole is a gap once the row after it has been there this long, ms. */
  ageMs: number;
  /** When the collector was started that published the row with this sequence; null when that is not known any more. ms */
  collectorStart(type: DataType, seq: number): Promise<number | null>;
}

/** Whether messages from before that row may still be on their way to hot. */
export function isLate(row: Settled, settled: Settled): boolean {
  return row.epoch === settled.epoch && row.seq > settled.seq;
}

/** Why nothing is there between two rows, where `otherwise` holds while a stream goes on. */
export async function causeOf(
  { collectorStart }: FinderOptions,
  type: DataType,
  before: RowBefore,
  after: RowAfter,
  otherwise: Cause,
): Promise<Cause> {
  if (Math.max(after.received - before.received, after.time - before.time) <= OUTAGE_MS) return otherwise;
  const started = await collectorStart(type, after.seq);
  return started !== null && started > before.received && started <= after.received ? 'downtime' : 'outage';
}

/** Gaps whose last state is open, newest first. */
export function openGaps(options: FinderOptions): Promise<GapRow[]> {
  return gapsWhere(options, "status = 'open'");
}

/** Gaps that were given up after `since` (ms), of which it is known how many rows they lack: such rows may come late from a collector's disk. */
export function givenUpGaps(options: FinderOptions, since: number): Promise<GapRow[]> {
  return gapsWhere(options, `status = 'unfillable' AND rows > ifNull(filled_rows, 0) AND closed_at > ${at(since)}`);
}

async function gapsWhere({ client, database, types }: FinderOptions, condition: string): Promise<GapRow[]> {
  const query = [
    `SELECT exchange, market_type, symbol, instrument, gap_id, data_type, from_id, to_id, ${ms('from_time')}, ${ms('to_time')}, cause,`,
    `toString(rows), ${ms('detected_at')}, data_source FROM ${database}.gaps_now WHERE ${condition} AND ${isOf(types)} ORDER BY from_time DESC`,
  ].join(' ');
  return (await selectText(client, query, QUERY_LIMITS)).map((cells) => {
    const [exchange, market_type, symbol, instrument, gap_id, data_type, from_id, to_id, ...rest] = cells as string[];
    const [from_time, to_time, cause, rows, detected_at, data_source] = rest as [string, ...string[]];
    return {
      exchange: exchange as Exchange,
      market_type: market_type as MarketType,
      symbol: symbol!,
      instrument: instrument!,
      timestamp: Number(from_time),
      received_at: Number(detected_at) * 1000,
      data_source: data_source!,
      gap_id: gap_id!,
      data_type: data_type!,
      from_id: from_id!,
      to_id: to_id!,
      from_time: Number(from_time),
      to_time: Number(to_time),
      cause: cause!,
      reason: null,
      status: 'open',
      rows: Number(rows),
      filled_rows: null,
      detected_at: Number(detected_at),
      closed_at: null,
    };
  });
}

function isOf(types: readonly DataType[]): string {
  return `data_type IN (${types.map((type) => `'${type}'`).join(', ')})`;
}

/** How many gaps are in which state, and the rows of them. */
export interface GapCount {
  exchange: string;
  data_type: string;
  status: string;
  gaps: number;
  rows: number;
  filled_rows: number;
}

export async function countGaps({ client, database, types }: FinderOptions): Promise<GapCount[]> {
  const query = `SELECT exchange, data_type, toString(status), count(), sum(ifNull(rows, 0)), sum(ifNull(filled_rows, 0)) FROM ${database}.gaps_now WHERE ${isOf(types)} GROUP BY exchange, data_type, status ORDER BY ALL`;
  return (await selectText(client, query, QUERY_LIMITS)).map(([exchange, data_type, status, ...numbers]) => {
    const [gaps, rows, filled_rows] = numbers.map(Number) as [number, number, number];
    return { exchange: exchange!, data_type: data_type!, status: status!, gaps, rows, filled_rows };
  });
}

/** All streams that a table of hot has rows of. */
export async function storedStreams(client: ClickHouseClient, database: string, table: string): Promise<GapStream[]> {
  const rows = await selectText(client, `SELECT DISTINCT ${STREAM} FROM ${database}.${table}`, QUERY_LIMITS);
  return rows.map(([exchange, market_type, symbol]) => ({ exchange, market_type, symbol }) as GapStream);
}

export interface Hole {
  stream: Instrument;
  data_type: string;
  from_id: string;
  to_id: string;
  from_time: number;
  to_time: number;
  cause: Cause;
  status: 'open' | 'unfillable';
  rows: number | null;
  reason: string | null;
}

/** A hole as a row. Its id and time are the hole's own, so that it is the same row however often it is seen. */
export function gapRow({ dataSource }: { dataSource: string }, now: number, { stream, ...hole }: Hole): GapRow {
  const { exchange, market_type, symbol, instrument } = stream;
  const name = [hole.data_type, exchange, market_type, symbol, hole.from_id].join('|');
  return {
    exchange,
    market_type,
    symbol,
    instrument,
    timestamp: hole.from_time,
    received_at: now * 1000,
    data_source: dataSource,
    gap_id: createHash('sha256').update(name).digest('hex').slice(0, 24),
    ...hole,
    filled_rows: null,
    detected_at: now,
    closed_at: hole.status === 'open' ? null : now,
  };
}

/**
 * A liquidation is told after its time: Binance's sample is the newest of each second, told when that is over, and OKX's come in no order of
 * time. So one of before the gap may have been told within it, ms.
 */
export const LIQUIDATION_TOLD_MS = 5000;

/**
 * The gap of liquidations that may lie beside this one: they have no ids, and of some venues no past, so where rows are missing that come
 * over their socket nobody can know whether they are, too. Empty where this gap says nothing about them.
 * @param beside by exchange: what comes over the socket of its liquidations
 */
export function liquidationsBeside(
  options: { dataSource: string },
  beside: Partial<Record<string, DataType>>,
  gap: GapRow,
  now: number,
): GapRow[] {
  if (beside[gap.exchange] !== gap.data_type || !['perpetual', 'futures'].includes(gap.market_type)) return [];
  const { exchange, market_type, symbol, instrument, from_id, to_id, from_time, to_time, cause } = gap;
  return [
    gapRow(options, now, {
      stream: { exchange, market_type, symbol, instrument },
      data_type: 'liquidation',
      from_id,
      to_id,
      from_time: from_time - LIQUIDATION_TOLD_MS,
      to_time,
      cause: cause as Cause,
      status: 'unfillable',
      rows: null,
      reason: `rows of their socket (${gap.data_type}) were missing: whether any liquidation was, too, cannot be known`,
    }),
  ];
}

export function keyOf({ exchange, market_type, symbol }: GapStream): string {
  return streamKey(exchange, market_type, symbol);
}

export function where({ exchange, market_type, symbol }: GapStream): string {
  const equals = (column: string, value: string) => `${column} = '${value.replace(/['\\]/g, (each) => `\\${each}`)}'`;
  return [equals('exchange', exchange), equals('market_type', market_type), equals('symbol', symbol)].join(' AND ');
}

export function at(time: number): string {
  return `fromUnixTimestamp64Milli(toInt64(${Math.max(Math.floor(time), 0)}), 'UTC')`;
}

export function ms(expression: string): string {
  return `toString(toUnixTimestamp64Milli(${expression}))`;
}

export function chunks<T>(items: T[], size: number): T[][] {
  return Array.from({ length: Math.ceil(items.length / size) }, (_, index) =>
    items.slice(index * size, (index + 1) * size),
  );
}
