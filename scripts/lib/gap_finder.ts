/**
 * Holes in what hot holds, found by SQL over what came since the last look: numbers that are missing between two rows of a stream, whether
 * ids of trades or steps of time in which a reading belongs. Hot is the judge: what one collector missed and another had is no hole.
 */
import { streamKey } from './arrivals.ts';
import { selectText } from './clickhouse.ts';
import type { Mark, ReadingSeries } from './exchange.ts';
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
  type Settled,
  STREAM,
  STREAMS_PER_QUERY,
  where,
} from './gap_rows.ts';
import { type DataType, type Exchange, type GapRow, type MarketType, TABLES } from './rows.ts';
import { WHOLE_BOOK_MS } from './sampling.ts';

/** Rows of one type in which a number counts up by one. */
export interface Sequence {
  /** Names it among all sequences. */
  name: string;
  type: DataType;
  /** Whose streams are one. */
  covers(stream: GapStream): boolean;
  /** SQL of the number; 0 where a row has none. */
  number: string;
  /** SQL by which rows are told apart from others of the table. */
  only: string;
  /** A gap's id is the number times this. */
  unit: bigint;
  /** ms from one number to the next; 0 where they come as they come. */
  stepMs: number;
  /** Numbers in a row that may be absent although nothing is missing. */
  quiet: number;
  /** Whether each absent number is a missing row. */
  counts: boolean;
  /** Whether the venue serves the past. */
  isServed: boolean;
}

/** Trades: all venues but Hyperliquid, whose ids do not count. */
export const TRADES: Sequence = {
  name: 'trade',
  type: 'trade',
  covers: ({ exchange }) => exchange !== 'hyperliquid',
  number: "if(exchange = 'deribit_derivatives', ifNull(sequence, 0), toUInt64OrZero(trade_id))",
  only: 'number > 0',
  unit: 1n,
  stepMs: 0,
  quiet: 0,
  counts: true,
  isServed: true,
};

const UNCOUNTED =
  'more time than lies between two: how many are missing, if any, cannot be known, and the venue serves no past ones';

/**
 * Whole books: how many are missing in a time that is too long for none, nobody can tell. Where a subscription began anew the venue tells
 * one at once, whatever its turn, so that less time may hide one: that the collector tells (exchanges/hyperliquid.ts).
 */
export const WHOLE_BOOKS: Sequence = {
  name: 'whole books',
  type: 'orderbook_update',
  covers: ({ exchange }) => exchange === 'hyperliquid',
  number: 'last_update_id',
  only: '1',
  unit: 1n,
  stepMs: WHOLE_BOOK_MS,
  quiet: WHOLE_BOOK_MS * 1.5,
  counts: false,
  isServed: false,
};

/** A venue's readings of one type, one in each step of time. */
export function readingSequence(exchange: Exchange, series: ReadingSeries): Sequence {
  const { type, stepMs, quietSteps, of, marketTypes, history } = series;
  const only = [
    of === undefined ? '1' : `${of.name} = '${of.value}'`,
    // The few that can be had afterwards do not make one hole into several.
    history?.keeps === undefined ? '1' : "data_source NOT LIKE 'backfill:%'",
  ];
  return {
    name: `${exchange} ${type}`,
    type,
    covers: (stream) =>
      stream.exchange === exchange && (marketTypes === undefined || marketTypes.includes(stream.market_type)),
    number: `intDiv(toUInt64(toUnixTimestamp64Milli(timestamp)), ${stepMs})`,
    only: only.join(' AND '),
    unit: BigInt(stepMs),
    stepMs,
    quiet: quietSteps,
    counts: true,
    isServed: history !== undefined,
  };
}

/** Looks for missing rows of a sequence after `marks`. @param now ms */
export async function findMissing(
  options: FinderOptions,
  sequence: Sequence,
  streams: GapStream[],
  marks: ReadonlyMap<string, Mark>,
  now: number,
  settled: Settled,
): Promise<Look> {
  const look: Look = { gaps: [], marks: new Map() };
  for (const part of chunks(streams, STREAMS_PER_QUERY)) {
    const rows = await selectText(options.client, missingQuery(options.database, sequence, part, marks), QUERY_LIMITS);
    /** Streams with a hole that is too young stay marked before it. */
    const held = new Set<string>();
    for (const cells of rows) {
      const hole = readHole(cells as Cells, marks);
      const { key, number, previous, after } = hole;
      const isHole = previous !== null && number > previous + 1n + BigInt(sequence.quiet);
      if (isHole && (now - hole.created < options.ageMs || isLate(after, settled))) {
        if (!held.has(key)) look.marks.set(key, { id: String(previous), time: hole.before.time });
        held.add(key);
      } else if (isHole) {
        look.gaps.push(await declare(options, sequence, { ...hole, previous }, now));
      }
      if (!held.has(key)) look.marks.set(key, { id: String(number), time: after.time });
    }
  }
  return look;
}

type Cells = [Exchange, MarketType, string, string, string, string, ...string[]];

/** A row of `missingQuery`: what is before it, if anything is. Times in ms. */
function readHole(cells: Cells, marks: ReadonlyMap<string, Mark>) {
  const [exchange, market_type, symbol, instrument, number, before, ...numbers] = cells;
  const [time, beforeTime, created, received, beforeReceived, epoch, seq] = numbers.map(Number) as [
    time: number,
    beforeTime: number,
    created: number,
    received: number,
    beforeReceived: number,
    epoch: number,
    seq: number,
  ];
  const key = streamKey(exchange, market_type, symbol);
  const hole = {
    key,
    stream: { exchange, market_type, symbol, instrument },
    number: BigInt(number),
    previous: before === '0' ? null : BigInt(before),
    before: { time: beforeTime, received: beforeReceived },
    after: { time, received, epoch, seq },
    created,
  };
  const mark = marks.get(key);
  // What was last may have left hot since; the mark knows it.
  if (hole.previous !== null || mark === undefined || BigInt(mark.id) >= hole.number) return hole;
  return { ...hole, previous: BigInt(mark.id), before: { time: mark.time, received: mark.time } };
}

type Hole = ReturnType<typeof readHole> & { previous: bigint };

async function declare(
  options: FinderOptions,
  { type, unit, counts, isServed }: Sequence,
  { stream, number, previous, before, after }: Hole,
  now: number,
): Promise<GapRow> {
  const [from, to] = [previous + 1n, number - 1n];
  return gapRow(options, now, {
    stream,
    data_type: type,
    from_id: String(from * unit),
    to_id: String(to * unit),
    from_time: before.time,
    to_time: after.time,
    cause: await causeOf(options, type, before, after, 'missing_ids'),
    status: isServed ? 'open' : 'unfillable',
    rows: counts ? Number(to - from + 1n) : null,
    reason: isServed ? null : counts ? 'the venue does not serve the past of these' : UNCOUNTED,
  });
}

/** The first row of each stream, rows after a hole, and the last one, in the order of their numbers within each stream. */
function missingQuery(
  database: string,
  { type, number, only, quiet }: Sequence,
  streams: GapStream[],
  marks: ReadonlyMap<string, Mark>,
): string {
  const conditions = streams.map((stream) => {
    const mark = marks.get(keyOf(stream));
    const since = mark ? ` AND timestamp >= ${at(mark.time - DISORDER_MS)} AND number >= ${mark.id}` : '';
    return `(${where(stream)}${since})`;
  });
  return [
    `WITH numbered AS (SELECT ${STREAM}, instrument, ${number} AS number, timestamp, created_at, received_at, js_epoch, js_seq`,
    `FROM ${database}.${TABLES[type].name} WHERE ${only} AND (${conditions.join(' OR ')})),`,
    `ordered AS (SELECT *, lagInFrame(number, 1, 0) OVER before AS previous, lagInFrame(timestamp, 1, timestamp) OVER before AS previous_time,`,
    `lagInFrame(received_at, 1, received_at) OVER before AS previous_received, max(number) OVER (PARTITION BY ${STREAM}) AS newest`,
    `FROM numbered WINDOW before AS (PARTITION BY ${STREAM} ORDER BY number ROWS BETWEEN 1 PRECEDING AND CURRENT ROW))`,
    `SELECT ${STREAM}, instrument, toString(number), toString(previous), ${ms('timestamp')}, ${ms('previous_time')}, ${ms('created_at')},`,
    `intDiv(toUnixTimestamp64Micro(received_at), 1000), intDiv(toUnixTimestamp64Micro(previous_received), 1000), js_epoch, js_seq`,
    `FROM ordered WHERE previous = 0 OR number > previous + ${1 + quiet} OR number = newest ORDER BY ${STREAM}, number`,
  ].join(' ');
}

/** Open gaps of which hot has every row by now. @param now ms */
export async function findFilled(
  options: FinderOptions,
  sequences: Sequence[],
  open: GapRow[],
  now: number,
): Promise<GapRow[]> {
  const filled: GapRow[] = [];
  for (const gap of open) {
    const sequence = sequences.find((each) => each.type === gap.data_type && each.covers(gap));
    if (sequence === undefined) continue;
    const found = await countWithin(options, sequence, gap);
    if (found < Number(gap.rows)) continue;
    filled.push({ ...gap, status: 'filled', filled_rows: found, closed_at: now, received_at: now * 1000 });
  }
  return filled;
}

/** Distinct numbers that hot has within the gap. */
export async function countWithin(
  { client, database }: FinderOptions,
  { type, number, only, unit }: Sequence,
  gap: GapRow,
): Promise<number> {
  const span = `timestamp BETWEEN ${at(gap.from_time - DISORDER_MS)} AND ${at(gap.to_time + DISORDER_MS)}`;
  const range = `number BETWEEN ${BigInt(gap.from_id) / unit} AND ${BigInt(gap.to_id) / unit}`;
  const query = `SELECT uniqExact(number) FROM (SELECT ${number} AS number FROM ${database}.${TABLES[type].name} WHERE ${where(gap)} AND ${span} AND ${only} AND ${range})`;
  return Number((await selectText(client, query, QUERY_LIMITS))[0]?.[0] ?? 0);
}
