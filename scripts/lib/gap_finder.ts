/**
 * Holes in what hot holds, found by SQL over what came since the last look: ids that are missing between two stored trades, and diffs of
 * a book whose predecessor is not there. Hot is the judge: what one collector missed and another had is no hole.
 */
import { createHash } from 'node:crypto';
import type { ClickHouseClient } from '@clickhouse/client';
import { streamKey } from './arrivals.ts';
import { selectText } from './clickhouse.ts';
import type { Instrument } from './exchange.ts';
import type { Exchange, GapRow, MarketType } from './rows.ts';

/** Rows of a stream whose times are not quite in the order of their ids lie within this, ms. */
const DISORDER_MS = 60_000;
/** A predecessor is looked for as far back as this; a book that changes less often is hardly one, ms. */
const CHAIN_BACK_MS = 24 * 3_600_000;
/** Nothing of the stream for this long, by the venue's clock or ours: the line or we were away. */
const OUTAGE_MS = 5000;
/** Streams per query: its text stays small. */
const STREAMS_PER_QUERY = 100;

/** A stream of one table. */
export interface GapStream {
  exchange: Exchange;
  market_type: MarketType;
  symbol: string;
}

/** Up to here a stream is known: every hole before is declared. `id` of trades, `time` in ms. */
export interface Mark {
  id: string;
  time: number;
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
  marks: Map<string, Mark>;
}

export interface FinderOptions {
  client: ClickHouseClient;
  database: string;
  /** For the rows of gaps. */
  dataSource: string;
  /** A hole is a gap once the row after it has been there this long, ms. */
  ageMs: number;
}

/** Trades of these have ids that count up by one; Hyperliquid's do not. */
export function hasTradeIds({ exchange }: { exchange: Exchange }): boolean {
  return exchange !== 'hyperliquid';
}

/** Books of these are chains of diffs; Hyperliquid's are whole each time. */
export function hasChain({ exchange }: { exchange: Exchange }): boolean {
  return exchange !== 'hyperliquid';
}

/** What counts up by one in a stream of trades. */
export const TRADE_NUMBER = "if(exchange = 'deribit_derivatives', ifNull(sequence, 0), toUInt64OrZero(trade_id))";
/** The id that the diff before must have ended with. */
const PREDECESSOR = "if(exchange = 'binance_spot', first_update_id - 1, prev_update_id)";
const STREAM = 'exchange, market_type, symbol';

/** Looks for missing trades after `marks`. @param now ms */
export async function findMissingTrades(
  options: FinderOptions,
  streams: GapStream[],
  marks: ReadonlyMap<string, Mark>,
  now: number,
  settled: Settled,
): Promise<Look> {
  const look: Look = { gaps: [], marks: new Map() };
  for (const part of chunks(streams, STREAMS_PER_QUERY)) {
    const rows = await selectText(options.client, missingTradesQuery(options.database, part, marks), QUERY_LIMITS);
    /** Streams with a hole that is too young stay marked before it. */
    const held = new Set<string>();
    for (const cells of rows) {
      const [exchange, market_type, symbol, instrument, id, previous, ...numbers] = cells as Cells;
      const key = streamKey(exchange, market_type, symbol);
      const [time, previousTime, created, received, previousReceived, epoch, seq] = numbers.map(Number) as Numbers;
      const isHole = previous !== '0' && BigInt(id) > BigInt(previous) + 1n;
      if (isHole && (now - created < options.ageMs || isLate({ epoch, seq }, settled))) {
        held.add(key);
        if (!look.marks.has(key)) look.marks.set(key, { id: previous, time: previousTime });
      } else if (isHole) {
        const [from, to] = [BigInt(previous) + 1n, BigInt(id) - 1n];
        look.gaps.push(
          gapRow(options, now, {
            stream: { exchange, market_type, symbol, instrument },
            data_type: 'trade',
            from_id: String(from),
            to_id: String(to),
            from_time: previousTime,
            to_time: time,
            cause: Math.max(received - previousReceived, time - previousTime) > OUTAGE_MS ? 'outage' : 'missing_ids',
            status: 'open',
            rows: Number(to - from + 1n),
            reason: null,
          }),
        );
      }
      if (!held.has(key)) look.marks.set(key, { id, time });
    }
  }
  return look;
}

type Cells = [Exchange, MarketType, string, string, string, string, ...string[]];
type Numbers = [
  time: number,
  previousTime: number,
  created: number,
  received: number,
  previousReceived: number,
  epoch: number,
  seq: number,
];

/** Whether messages from before that row may still be on their way to hot. */
function isLate(row: Settled, settled: Settled): boolean {
  return row.epoch === settled.epoch && row.seq > settled.seq;
}

const QUERY_LIMITS = { max_execution_time: 60, max_query_size: '16777216' };

/** Rows after a hole, and the last row of each stream, in the order of ids within each stream. */
function missingTradesQuery(database: string, streams: GapStream[], marks: ReadonlyMap<string, Mark>): string {
  const conditions = streams.map((stream) => {
    const mark = marks.get(keyOf(stream));
    const since = mark ? ` AND timestamp >= ${at(mark.time - DISORDER_MS)} AND number >= ${mark.id}` : '';
    return `(${where(stream)}${since})`;
  });
  return [
    `WITH numbered AS (SELECT ${STREAM}, instrument, ${TRADE_NUMBER} AS number, timestamp, created_at, received_at, js_epoch, js_seq`,
    `FROM ${database}.trades WHERE number > 0 AND (${conditions.join(' OR ')})),`,
    `ordered AS (SELECT *, lagInFrame(number, 1, 0) OVER before AS previous, lagInFrame(timestamp, 1, timestamp) OVER before AS previous_time,`,
    `lagInFrame(received_at, 1, received_at) OVER before AS previous_received, max(number) OVER (PARTITION BY ${STREAM}) AS newest`,
    `FROM numbered WINDOW before AS (PARTITION BY ${STREAM} ORDER BY number ROWS BETWEEN 1 PRECEDING AND CURRENT ROW))`,
    `SELECT ${STREAM}, instrument, toString(number), toString(previous), ${ms('timestamp')}, ${ms('previous_time')}, ${ms('created_at')},`,
    `intDiv(toUnixTimestamp64Micro(received_at), 1000), intDiv(toUnixTimestamp64Micro(previous_received), 1000), js_epoch, js_seq`,
    `FROM ordered WHERE (previous > 0 AND number > previous + 1) OR number = newest ORDER BY ${STREAM}, number`,
  ].join(' ');
}

/** Looks for diffs whose predecessor is not there, after `marks`. No venue serves past diffs, so these gaps cannot be filled. */
export async function findBrokenChains(
  options: FinderOptions,
  streams: GapStream[],
  marks: ReadonlyMap<string, Mark>,
  now: number,
  settled: Settled,
): Promise<Look> {
  const look: Look = { gaps: [], marks: new Map() };
  for (const part of chunks(streams, STREAMS_PER_QUERY)) {
    const heads = await selectText(options.client, newestDiffsQuery(options.database, part, marks), QUERY_LIMITS);
    for (const [exchange, market_type, symbol, id, time] of heads) {
      look.marks.set(streamKey(exchange!, market_type!, symbol!), { id: id!, time: Number(time) });
    }
    const orphans = await selectText(options.client, orphanDiffsQuery(options.database, part, marks), QUERY_LIMITS);
    for (const [exchange, market_type, symbol, instrument, predecessor, ...numbers] of orphans) {
      const stream = { exchange, market_type, symbol, instrument } as GapStream & { instrument: string };
      const [time, created, received, epoch, seq] = numbers.map(Number) as [number, number, number, number, number];
      const key = keyOf(stream);
      if (now - created < options.ageMs || isLate({ epoch, seq }, settled)) {
        const mark = look.marks.get(key);
        if (mark && mark.time >= time) look.marks.set(key, { ...mark, time: time - 1 });
        continue;
      }
      const gap = await brokenChain(options, stream, { predecessor: predecessor!, time, received }, now);
      if (gap) look.gaps.push(gap);
    }
  }
  return look;
}

interface Orphan {
  /** The id that is not there. */
  predecessor: string;
  time: number;
  received: number;
}

/**
 * The gap before a diff whose predecessor is no diff. After a resubscription that is a snapshot: what was between the last diff and it is
 * lost too. Null: it is the stream's first, its predecessor is older than what was looked at, or another collector, which cuts
 * the updates elsewhere, has a diff over the whole of it.
 */
async function brokenChain(
  options: FinderOptions,
  stream: GapStream & { instrument: string },
  { predecessor, time, received }: Orphan,
  now: number,
): Promise<GapRow | null> {
  const table = `${options.database}.orderbook_updates`;
  const span = `${where(stream)} AND timestamp >= ${at(time - CHAIN_BACK_MS)}`;
  const before = `NOT is_snapshot AND timestamp <= ${at(time)} AND last_update_id <= ${predecessor}`;
  const query = [
    `SELECT countIf(NOT is_snapshot AND last_update_id = ${predecessor}), countIf(${before}),`,
    `toString(maxIf(last_update_id, ${before})), ${ms(`maxIf(timestamp, ${before})`)},`,
    `intDiv(toUnixTimestamp64Micro(maxIf(received_at, ${before})), 1000),`,
    `countIf(is_snapshot AND last_update_id >= ${predecessor}), ${ms(`minIf(timestamp, is_snapshot AND last_update_id >= ${predecessor})`)}`,
    `FROM ${table} WHERE ${span}`,
  ].join(' ');
  const [cells = []] = await selectText(options.client, query, QUERY_LIMITS);
  const [known, earlier, last, lastTime, lastReceived, snapshots, snapshotTime] = cells;
  if (known !== '0' || earlier === '0') return null;
  const covering = `NOT is_snapshot AND ${PREDECESSOR} <= ${last} AND last_update_id >= ${predecessor}`;
  const [[covered] = []] = await selectText(
    options.client,
    `SELECT count() FROM ${table} WHERE ${span} AND ${covering}`,
    QUERY_LIMITS,
  );
  if (covered !== '0') return null;
  return gapRow(options, now, {
    stream,
    data_type: 'orderbook_update',
    from_id: String(BigInt(last!) + 1n),
    to_id: predecessor,
    from_time: Number(lastTime),
    // Until a snapshot the book could not be told either.
    to_time: snapshots === '0' ? time : Math.max(time, Number(snapshotTime)),
    cause: Math.max(received - Number(lastReceived), time - Number(lastTime)) > OUTAGE_MS ? 'outage' : 'broken_chain',
    status: 'unfillable',
    rows: null,
    reason: 'no venue serves past book updates',
  });
}

function newestDiffsQuery(database: string, streams: GapStream[], marks: ReadonlyMap<string, Mark>): string {
  return [
    `SELECT ${STREAM}, toString(argMax(last_update_id, timestamp)), ${ms('max(timestamp)')}`,
    `FROM ${database}.orderbook_updates WHERE NOT is_snapshot AND (${conditionsSince(streams, marks, 0)}) GROUP BY ${STREAM}`,
  ].join(' ');
}

function orphanDiffsQuery(database: string, streams: GapStream[], marks: ReadonlyMap<string, Mark>): string {
  const table = `${database}.orderbook_updates`;
  return [
    `WITH diffs AS (SELECT ${STREAM}, instrument, ${PREDECESSOR} AS predecessor, timestamp, created_at, received_at, js_epoch, js_seq FROM ${table}`,
    `WHERE NOT is_snapshot AND predecessor IS NOT NULL AND (${conditionsSince(streams, marks, 1)}))`,
    `SELECT ${STREAM}, instrument, toString(predecessor), ${ms('timestamp')}, ${ms('created_at')}, intDiv(toUnixTimestamp64Micro(received_at), 1000), js_epoch, js_seq`,
    `FROM diffs WHERE (${STREAM}, predecessor) NOT IN (SELECT ${STREAM}, last_update_id FROM ${table}`,
    `WHERE NOT is_snapshot AND (${conditionsSince(streams, marks, -DISORDER_MS)})) ORDER BY ${STREAM}, timestamp`,
  ].join(' ');
}

/** Rows of these streams from their marks on, by `offset` ms later. */
function conditionsSince(streams: GapStream[], marks: ReadonlyMap<string, Mark>, offset: number): string {
  return streams
    .map((stream) => {
      const mark = marks.get(keyOf(stream));
      return `(${where(stream)}${mark ? ` AND timestamp >= ${at(mark.time + offset)}` : ''})`;
    })
    .join(' OR ');
}

/** Open gaps of trades that are filled by now. @param now ms */
export async function findFilled(options: FinderOptions, open: GapRow[], now: number): Promise<GapRow[]> {
  const filled: GapRow[] = [];
  for (const gap of open) {
    const found = await countWithin(options, gap);
    if (found < Number(gap.rows)) continue;
    filled.push({ ...gap, status: 'filled', filled_rows: found, closed_at: now, received_at: now * 1000 });
  }
  return filled;
}

/** Distinct trades in hot with an id within the gap. */
export async function countWithin({ client, database }: FinderOptions, gap: GapRow): Promise<number> {
  const span = `timestamp BETWEEN ${at(gap.from_time - DISORDER_MS)} AND ${at(gap.to_time + DISORDER_MS)}`;
  const query = `SELECT uniqExact(number) FROM (SELECT ${TRADE_NUMBER} AS number FROM ${database}.trades WHERE ${where(gap)} AND ${span} AND number BETWEEN ${gap.from_id} AND ${gap.to_id})`;
  return Number((await selectText(client, query, QUERY_LIMITS))[0]?.[0] ?? 0);
}

/** Gaps whose last state is open, newest first. */
export async function openGaps({ client, database }: FinderOptions): Promise<GapRow[]> {
  const query = [
    `SELECT exchange, market_type, symbol, instrument, gap_id, data_type, from_id, to_id, ${ms('from_time')}, ${ms('to_time')}, cause,`,
    `toString(rows), ${ms('detected_at')}, data_source FROM ${database}.gaps_now WHERE status = 'open' ORDER BY from_time DESC`,
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

/** How many gaps are in which state, and the rows of them. */
export interface GapCount {
  exchange: string;
  data_type: string;
  status: string;
  gaps: number;
  rows: number;
  filled_rows: number;
}

export async function countGaps({ client, database }: FinderOptions): Promise<GapCount[]> {
  const query = `SELECT exchange, data_type, toString(status), count(), sum(ifNull(rows, 0)), sum(ifNull(filled_rows, 0)) FROM ${database}.gaps_now GROUP BY exchange, data_type, status ORDER BY ALL`;
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
  cause: string;
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

export function keyOf({ exchange, market_type, symbol }: GapStream): string {
  return streamKey(exchange, market_type, symbol);
}

function where({ exchange, market_type, symbol }: GapStream): string {
  const equals = (column: string, value: string) => `${column} = '${value.replace(/['\\]/g, (each) => `\\${each}`)}'`;
  return [equals('exchange', exchange), equals('market_type', market_type), equals('symbol', symbol)].join(' AND ');
}

function at(time: number): string {
  return `fromUnixTimestamp64Milli(toInt64(${Math.max(Math.floor(time), 0)}), 'UTC')`;
}

function ms(expression: string): string {
  return `toString(toUnixTimestamp64Milli(${expression}))`;
}

function chunks<T>(items: T[], size: number): T[][] {
  return Array.from({ length: Math.ceil(items.length / size) }, (_, index) =>
    items.slice(index * size, (index + 1) * size),
  );
}
