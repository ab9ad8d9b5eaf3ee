/** Breaks in the chains of books' diffs, found by SQL over what came into hot since the last look. */
import { streamKey } from './arrivals.ts';
import { selectText } from './clickhouse.ts';
import type { Mark } from './exchange.ts';
import {
  at,
  causeOf,
  chunks,
  DISORDER_MS,
  type FinderOptions,
  type GapStream,
  gapRow,
  isLate,
  keyOf,
  type Look,
  ms,
  QUERY_LIMITS,
  type RowAfter,
  type RowBefore,
  type Settled,
  STREAM,
  STREAMS_PER_QUERY,
  where,
} from './gap_rows.ts';
import type { GapRow } from './rows.ts';

/** A predecessor is looked for as far back as this; a book that changes less often is hardly one, ms. */
const CHAIN_BACK_MS = 24 * 3_600_000;

/** Books of these are chains of diffs; Hyperliquid's are whole each time. */
export function hasChain({ exchange }: { exchange: string }): boolean {
  return exchange !== 'hyperliquid';
}

/** The id that the diff before must have ended with. */
const PREDECESSOR = "if(exchange = 'binance_spot', first_update_id - 1, prev_update_id)";

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
        if (mark && mark.time >= time) {
          // What is still to come stands before the orphan, and may have breaks of its own: all after the last diff is looked at again.
          const edge = await lastDiffBefore(options, stream, predecessor!, time);
          look.marks.set(key, { ...mark, time: Math.min(edge ?? time - 1, mark.time) });
        }
        continue;
      }
      const orphan = { predecessor: predecessor!, time, received, epoch, seq };
      const gap = await brokenChain(options, stream, orphan, marks.get(key) ?? null, now);
      if (gap) look.gaps.push(gap);
    }
  }
  return look;
}

/** When the diff was that is the last before a hole, ms; null when hot has none. */
async function lastDiffBefore(
  { client, database }: FinderOptions,
  stream: GapStream,
  predecessor: string,
  time: number,
): Promise<number | null> {
  const query = [
    `SELECT count(), ${ms('max(timestamp)')} FROM ${database}.orderbook_updates WHERE ${where(stream)} AND NOT is_snapshot`,
    `AND timestamp >= ${at(time - CHAIN_BACK_MS)} AND timestamp < ${at(time)} AND last_update_id <= ${predecessor}`,
  ].join(' ');
  const [[count, newest] = []] = await selectText(client, query, QUERY_LIMITS);
  return count === '0' ? null : Number(newest);
}

interface Orphan extends RowAfter {
  /** The id that is not there. */
  predecessor: string;
}

/**
 * The gap before a diff whose predecessor is no diff. After a resubscription that is a snapshot: what was between the last diff and it is
 * lost too. Of a stream that hot has nothing older of, the mark tells what was last. Null: it is the stream's first, or another collector,
 * which cuts the updates elsewhere, has a diff over the whole of it.
 */
async function brokenChain(
  options: FinderOptions,
  stream: GapStream & { instrument: string },
  orphan: Orphan,
  mark: Mark | null,
  now: number,
): Promise<GapRow | null> {
  const { predecessor, time } = orphan;
  const table = `${options.database}.orderbook_updates`;
  const span = `${where(stream)} AND timestamp >= ${at(time - CHAIN_BACK_MS)}`;
  const isBefore = `NOT is_snapshot AND timestamp <= ${at(time)} AND last_update_id <= ${predecessor}`;
  const query = [
    `SELECT countIf(NOT is_snapshot AND last_update_id = ${predecessor}), countIf(${isBefore}),`,
    `toString(maxIf(last_update_id, ${isBefore})), ${ms(`maxIf(timestamp, ${isBefore})`)},`,
    `intDiv(toUnixTimestamp64Micro(maxIf(received_at, ${isBefore})), 1000),`,
    `countIf(is_snapshot AND last_update_id >= ${predecessor}), ${ms(`minIf(timestamp, is_snapshot AND last_update_id >= ${predecessor})`)}`,
    `FROM ${table} WHERE ${span}`,
  ].join(' ');
  const [cells = []] = await selectText(options.client, query, QUERY_LIMITS);
  const [known, earlier, newest, newestTime, newestReceived, snapshots, snapshotTime] = cells;
  if (known !== '0') return null;
  let last = newest!;
  let before: RowBefore = { time: Number(newestTime), received: Number(newestReceived) };
  if (earlier === '0') {
    // Numbers that fell are the venue's new beginning.
    if (mark === null || BigInt(mark.id) >= BigInt(predecessor)) return null;
    last = mark.id;
    before = { time: mark.time, received: mark.time };
  }
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
    from_id: String(BigInt(last) + 1n),
    to_id: predecessor,
    from_time: before.time,
    // Until a snapshot the book could not be told either.
    to_time: snapshots === '0' ? time : Math.max(time, Number(snapshotTime)),
    cause: await causeOf(options, 'orderbook_update', before, orphan, 'broken_chain'),
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
