/** The balance of one run: what was sent, received, published and stored, per exchange and type. */
import type { ClickHouseClient } from '@clickhouse/client';
import { consumerOpts, type NatsConnection } from 'nats';
import { type Arrival, dropFound, LineReader, lookupQuery, type StreamArrivals, streamKey } from './arrivals.ts';
import { selectText } from './clickhouse.ts';
import { BOOT_HEADER, ROWS_HEADER } from './jetstream.ts';
import { DATA_TYPES, type DataType, STREAM_COLUMNS, TABLES } from './rows.ts';
import { parseSubject, type StreamName, streamOf } from './streams.ts';

/** A subscription that gives nothing for so long gives nothing any more, ms; so many in a row, and the stream does not. */
const SILENT_MS = 15_000;
const MOST_SILENT = 3;

export interface LedgerRow {
  exchange: string;
  data_type: DataType;
  /** Distinct keys that the collector accepted. */
  received: number;
  /** Rows in JetStream. */
  published: number;
  /** Rows in hot. */
  hot: number;
  /** Rows in cold. */
  cold: number;
  /** Rows declared missing. */
  gap: number;
  /** Sent and neither stored nor declared missing. */
  lost: number;
  duplicated: number;
}

export interface LedgerReport {
  mode: string;
  seconds: number;
  rows: LedgerRow[];
  balanced: boolean;
}

/** Rows in JetStream by exchange and type, and by the run of the collector that published them. */
export interface Published {
  rows: Map<string, number>;
  byBoot: Map<string, Map<string, number>>;
}

/** Name of a (exchange, type). */
export function ledgerKey(exchange: string, type: string): string {
  return `${exchange} ${type}`;
}

/** Counts the rows that came into `stream` after sequence `base`, from the messages' headers. */
export async function countPublished(
  nats: NatsConnection,
  stream: StreamName,
  base: number,
  into: Published,
): Promise<void> {
  for await (const message of messagesAfter(nats, stream, base, true)) {
    const about = parseSubject(message.subject);
    if (about === null) continue;
    const rows = Number(message.headers?.get(ROWS_HEADER) ?? 0);
    const key = ledgerKey(about.exchange, about.type);
    add(into.rows, key, rows);
    add(mapOf(into.byBoot, message.headers?.get(BOOT_HEADER) ?? ''), key, rows);
  }
}

/** Distinct rows, by (exchange, type): of all runs of the collector together, and of one of them. */
export interface DistinctPublished {
  all: Map<string, Set<string>>;
  ofBoot: Map<string, Set<string>>;
}

/** Reads the keys of all rows that came into `stream` after sequence `base`. For runs in which a collector was killed. */
export async function distinctPublished(
  nats: NatsConnection,
  stream: StreamName,
  base: number,
  boot: string,
  into: DistinctPublished,
): Promise<void> {
  const readers = new Map<string, LineReader>();
  for await (const message of messagesAfter(nats, stream, base, false)) {
    const about = parseSubject(message.subject);
    if (about === null) continue;
    let reader = readers.get(message.subject);
    if (!reader) readers.set(message.subject, (reader = new LineReader(about)));
    const rows = new Map<string, Arrival>();
    reader.read(message.data, 0, message.seq, rows);
    const name = ledgerKey(about.exchange, about.type);
    const own = message.headers?.get(BOOT_HEADER) === boot;
    for (const key of rows.keys()) {
      const whole = `${about.market_type} ${about.symbol} ${key}`;
      setOf(into.all, name).add(whole);
      if (own) setOf(into.ofBoot, name).add(whole);
    }
  }
}

/**
 * How many distinct rows of these (exchange, type)s that came into `stream` after sequence `base` hot holds, whenever they
 * were stored: what is polled is published again in each run, and stored once.
 */
export async function countFound(
  nats: NatsConnection,
  client: ClickHouseClient,
  database: string,
  stream: StreamName,
  base: number,
  names: Set<string>,
): Promise<Map<string, number>> {
  const readers = new Map<string, { reader: LineReader; arrivals: StreamArrivals }>();
  for await (const message of messagesAfter(nats, stream, base, false)) {
    const about = parseSubject(message.subject);
    if (about === null || !names.has(ledgerKey(about.exchange, about.type))) continue;
    let entry = readers.get(message.subject);
    if (!entry) {
      entry = { reader: new LineReader(about), arrivals: { stream: about, rows: new Map() } };
      readers.set(message.subject, entry);
    }
    entry.reader.read(message.data, 0, message.seq, entry.arrivals.rows);
  }
  const out = new Map<string, number>();
  for (const { arrivals } of readers.values()) {
    const { type, exchange, market_type, symbol } = arrivals.stream;
    const query = lookupQuery(type, database, [arrivals]);
    if (query === null) continue;
    const streams = new Map([[streamKey(exchange, market_type, symbol), arrivals]]);
    const found = await selectText(client, query, { max_query_size: '16777216' });
    add(out, ledgerKey(exchange, type), dropFound(streams, found));
  }
  return out;
}

/**
 * Messages of a stream above a sequence, up to the last one that there is now. A subscription from which nothing comes any more (seen once, with
 * nats-server 2.9.10 on a busy machine) is followed by another one from where it stopped.
 * @param silentMs one from which nothing came for so long gives nothing any more
 * @throws Error when several in a row give nothing
 */
export async function* messagesAfter(
  nats: NatsConnection,
  stream: StreamName,
  base: number,
  headersOnly: boolean,
  silentMs = SILENT_MS,
) {
  const manager = await nats.jetstreamManager();
  const { state } = await manager.streams.info(stream);
  if (state.messages === 0) return;
  let next = Math.max(base + 1, state.first_seq);
  for (let empty = 0; next <= state.last_seq; ) {
    const from = next;
    const options = consumerOpts();
    options.orderedConsumer();
    if (headersOnly) options.headersOnly();
    options.startSequence(next);
    options.bindStream(stream);
    const subscription = await nats.jetstream().subscribe('>', options);
    let before = next;
    const guard = setInterval(() => {
      if (next === before) subscription.unsubscribe();
      before = next;
    }, silentMs);
    try {
      for await (const message of subscription) {
        next = message.seq + 1;
        yield message;
        if (next > state.last_seq) return;
      }
    } finally {
      clearInterval(guard);
    }
    empty = next === from ? empty + 1 : 0;
    if (empty >= MOST_SILENT)
      throw new Error(`${stream} gives no message from ${next} on, and should up to ${state.last_seq}`);
  }
}

function mapOf<V>(maps: Map<string, Map<string, V>>, key: string): Map<string, V> {
  let found = maps.get(key);
  if (!found) maps.set(key, (found = new Map()));
  return found;
}

function setOf(sets: Map<string, Set<string>>, key: string): Set<string> {
  let found = sets.get(key);
  if (!found) sets.set(key, (found = new Set()));
  return found;
}

function add(counts: Map<string, number>, key: string, value: number): void {
  counts.set(key, (counts.get(key) ?? 0) + value);
}

/** Hyperliquid's book has no changes: each of its messages is a whole book. */
export const STREAMED_UPDATE = "(NOT is_snapshot OR exchange = 'hyperliquid')";

export interface Stored {
  count: number;
  unique: number;
  /** Distinct rows that stand for a frame of a stream: without snapshots on which the changes build. */
  streamed: number;
}

/** What arrived in hot with a sequence above the stream's base, by exchange and type. */
export async function countStored(
  client: ClickHouseClient,
  database: string,
  bases: Record<StreamName, number>,
): Promise<Map<string, Stored>> {
  const out = new Map<string, Stored>();
  for (const type of DATA_TYPES) {
    const { name, key } = TABLES[type];
    const identity = [...STREAM_COLUMNS, ...key].join(', ');
    const streamed = type === 'orderbook_update' ? STREAMED_UPDATE : '1';
    const query = `SELECT exchange, count(), uniqExact(${identity}), uniqExactIf((${identity}), ${streamed}) FROM ${database}.${name} WHERE js_seq > ${bases[streamOf(type).name]} GROUP BY exchange`;
    for (const [exchange, count, unique, frames] of await selectText(client, query)) {
      out.set(ledgerKey(exchange!, type), { count: Number(count), unique: Number(unique), streamed: Number(frames) });
    }
  }
  return out;
}

/** Rows declared missing and not filled, by exchange and type: the last state of each gap. */
export async function countGaps(
  client: ClickHouseClient,
  database: string,
  base: number,
): Promise<Map<string, number>> {
  const query = `SELECT exchange, data_type, sum(missing) FROM (SELECT exchange, any(data_type) AS data_type, gap_id, argMax(ifNull(rows, 0) - ifNull(filled_rows, 0), (status = 'filled', js_seq)) AS missing FROM ${database}.gaps WHERE js_seq > ${base} GROUP BY exchange, gap_id) GROUP BY exchange, data_type`;
  const rows = await selectText(client, query);
  return new Map(rows.map(([exchange, type, missing]) => [ledgerKey(exchange!, type!), Number(missing)]));
}

/**
 * How a liquidation is named by the simulator: only Deribit's have ids. Digits that stand for nothing are left out.
 * @see plainKey
 */
export const LIQUIDATION_KEY =
  "if(exchange = 'deribit_derivatives', liquidation_id, concat(toString(side), '|', toString(price), '|', toString(quantity), '|', toString(toUnixTimestamp64Milli(timestamp))))";

/** The simulator's INSTRUMENT|SIDE|PRICE|QUANTITY|MS with the venue's digits, as `LIQUIDATION_KEY` has it; other keys as they are. */
export function plainKey(key: string): string {
  const [, ...parts] = key.split('|');
  return parts.length === 0 ? key : parts.map((part) => part.replace(/(\.\d*?)0+$/, '$1').replace(/\.$/, '')).join('|');
}

/**
 * A stream with gaps of which only the range is known: a break in the chain of a book, an interruption of Hyperliquid's trades, whose ids
 * do not even rise, or one of liquidations.
 */
export interface GappedStream {
  exchange: string;
  symbol: string;
  data_type: DataType;
  /** Ids, of liquidations times in ms; both ends included. */
  ranges: { from: bigint; to: bigint }[];
}

/** Streams with such gaps that were declared in this run: how many rows they had, only the sender can tell. */
export async function gapsOfUnknownSize(
  client: ClickHouseClient,
  database: string,
  base: number,
): Promise<GappedStream[]> {
  const range = (id: string, time: string) =>
    `if(data_type = 'liquidation', toString(toUnixTimestamp64Milli(${time})), ${id})`;
  const query = [
    `SELECT DISTINCT exchange, symbol, data_type, ${range('from_id', 'from_time')}, ${range('to_id', 'to_time')} FROM ${database}.gaps`,
    `WHERE js_seq > ${base} AND data_type IN ('orderbook_update', 'trade', 'liquidation') AND rows IS NULL`,
  ].join(' ');
  const streams = new Map<string, GappedStream>();
  for (const [exchange, symbol, type, from, to] of await selectText(client, query)) {
    const key = `${exchange} ${symbol} ${type}`;
    let stream = streams.get(key);
    if (!stream) {
      stream = { exchange: exchange!, symbol: symbol!, data_type: type as DataType, ranges: [] };
      streams.set(key, stream);
    }
    stream.ranges.push({ from: BigInt(from!), to: BigInt(to!) });
  }
  return [...streams.values()];
}

/** Key and condition of the rows that were streamed, by type. */
const UNCOUNTED_KEYS = {
  orderbook_update: ['toString(last_update_id)', STREAMED_UPDATE],
  trade: ['trade_id', '1'],
  liquidation: [LIQUIDATION_KEY, '1'],
} as const;

/**
 * How many of the rows that were sent are not in hot, and lie within a gap of their stream; of ids that do not rise, all that are not in hot,
 * as nobody can tell which of them lie within.
 */
export async function countInGaps(
  client: ClickHouseClient,
  database: string,
  { exchange, symbol, data_type, ranges }: GappedStream,
  sentIds: string[],
): Promise<number> {
  const text = (value: string) => `'${value.replace(/['\\]/g, (each) => `\\${each}`)}'`;
  const [id, only] = UNCOUNTED_KEYS[data_type as keyof typeof UNCOUNTED_KEYS];
  const query = `SELECT DISTINCT ${id} FROM ${database}.${TABLES[data_type].name} WHERE exchange = ${text(exchange)} AND symbol = ${text(symbol)} AND ${only}`;
  const stored = new Set((await selectText(client, query)).map(([each]) => each!));
  const missing = sentIds.map(plainKey).filter((each) => !stored.has(each));
  return data_type === 'trade' ? missing.length : missing.filter((each) => isWithin(each, ranges)).length;
}

/** Of a liquidation the last part of its key, the time. */
function isWithin(id: string, ranges: GappedStream['ranges']): boolean {
  const number = BigInt(id.slice(id.lastIndexOf('|') + 1));
  return ranges.some(({ from, to }) => number >= from && number <= to);
}

/** The figures of one run as they were measured. Keys by `ledgerKey`. */
export interface Figures {
  received: Map<string, number>;
  published: Map<string, number>;
  stored: Map<string, Stored>;
  /** The same in cold. */
  cold: Map<string, Stored>;
  /** Of (exchange, type)s with fewer rows stored in this run than received: rows of this run that hot holds from whenever. */
  found: Map<string, number>;
  gaps: Map<string, number>;
  /** Distinct keys that the simulator wrote to sockets; absent in live mode, where nobody can know. */
  sent: Map<string, number> | null;
}

/**
 * The balance. `lost` counts what was sent on a socket (live: received) and is neither in hot nor declared missing. Sampled
 * types and fetched snapshots have no count at the sender, so for them what was received must be in hot.
 */
export function balance(mode: string, seconds: number, figures: Figures): LedgerReport {
  const keys = new Set([
    ...figures.received.keys(),
    ...figures.published.keys(),
    ...figures.stored.keys(),
    ...(figures.sent?.keys() ?? []),
  ]);
  const rows = [...keys].sort().map((key): LedgerRow => {
    const [exchange, type] = key.split(' ') as [string, DataType];
    const received = figures.received.get(key) ?? 0;
    const stored = figures.stored.get(key) ?? { count: 0, unique: 0, streamed: 0 };
    const gap = figures.gaps.get(key) ?? 0;
    const sent = figures.sent?.get(key);
    const kept = Math.max(stored.unique, figures.found.get(key) ?? 0);
    const missing = Math.max(received - kept, sent === undefined ? 0 : sent - stored.streamed);
    return {
      exchange,
      data_type: type,
      received,
      published: figures.published.get(key) ?? 0,
      hot: stored.count,
      cold: figures.cold.get(key)?.count ?? 0,
      gap,
      lost: Math.max(missing - gap, 0),
      duplicated: stored.count - stored.unique,
    };
  });
  const balanced = rows.every((row) => row.lost === 0 && row.duplicated === 0 && row.cold === row.hot);
  return { mode, seconds, rows, balanced };
}

/** The report as a table for people. */
export function ledgerTable(report: LedgerReport): string {
  const head = ['exchange', 'data_type', 'received', 'published', 'hot', 'cold', 'gap', 'lost', 'duplicated'] as const;
  const lines = report.rows.map((row) => head.map((column) => String(row[column])));
  const widths = head.map((title, i) => Math.max(title.length, ...lines.map((line) => line[i]!.length)));
  const format = (line: readonly string[]) =>
    line.map((cell, i) => (i < 2 ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!))).join('  ');
  return [format(head), ...lines.map(format)].join('\n');
}
