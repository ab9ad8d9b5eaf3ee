/**
 * The balance of a soak run, in which everything is stopped and started in the middle. What the exchanges sent is compared with all that is stored;
 * what each run of the collector accepted with what was stored of it. Stream by stream, so that a day of rows is counted in little memory.
 */
import { join } from 'node:path';
import type { ClickHouseClient } from '@clickhouse/client';
import type { NatsConnection } from 'nats';
import { z } from 'zod';
import { LineReader, lookupQuery, type StreamArrivals } from '../arrivals.ts';
import { selectText } from '../clickhouse.ts';
import type { Config } from '../config.ts';
import { readJson } from '../files.ts';
import { countGaps, countInGaps, gapsOfUnknownSize, ledgerKey, messagesAfter, STREAMED_UPDATE } from '../ledger.ts';
import { DATA_TYPES, type DataType, TABLES } from '../rows.ts';
import { parseSubject, type StreamName, streamNameOf, streamOf } from '../streams.ts';
import type { System } from '../system.ts';
import type { SoakLedger } from './report.ts';

/** Rows that are looked up at once. */
const LOOKED_UP_ROWS = 50_000;

export type Sequences = Readonly<Record<StreamName, number>>;

/** One run of the collector. */
export interface Leg {
  /** Its messages are those above `from`, up to `to`. */
  from: Sequences;
  to: Sequences;
  /** Distinct rows that it accepted, by (exchange, type); null: not known. */
  received: ReadonlyMap<string, number> | null;
}

const ACCEPTED = z.object({
  started: z.number(),
  rows: z.array(z.object({ exchange: z.string(), data_type: z.string(), received: z.number() })),
});

/** What the collector that was stopped last says that it accepted; null: it has not said so since `since`, ms. */
export function acceptedRows({ dataDir, collectorId }: Config, since: number): Map<string, number> | null {
  const { data } = ACCEPTED.safeParse(readJson(join(dataDir, 'state', `collector-${collectorId}.json`)));
  if (data === undefined || data.started < since) return null;
  return new Map(data.rows.map((row) => [ledgerKey(row.exchange, row.data_type), row.received]));
}

/** Rows of one (exchange, type) as they are stored. */
export interface StoredRows {
  hot: number;
  /** Distinct keys, those that stand for a frame of a stream, and those of each leg. */
  unique: number;
  streamed: number;
  legs: number[];
  cold: number;
  coldUnique: number;
}

/** Counts what is stored, by (exchange, type). */
export async function countRows(
  client: ClickHouseClient,
  { hotDatabase, coldDatabase }: Config,
  legs: readonly Leg[],
): Promise<Map<string, StoredRows>> {
  const out = new Map<string, StoredRows>();
  for (const type of DATA_TYPES) {
    const { name, key } = TABLES[type];
    const stream = streamOf(type).name;
    const identity = `(${key.join(', ')})`;
    const streamed = type === 'orderbook_update' ? STREAMED_UPDATE : '1';
    const ofLegs = legs.map(
      ({ from, to }) => `uniqExactIf(${identity}, js_seq > ${from[stream]} AND js_seq <= ${to[stream]})`,
    );
    const columns = ['count()', `uniqExact(${identity})`, `uniqExactIf(${identity}, ${streamed})`, ...ofLegs];
    for (const database of [hotDatabase, coldDatabase]) {
      const found = await selectText(client, `SELECT DISTINCT exchange, market_type, symbol FROM ${database}.${name}`);
      for (const each of found) {
        const where = ['exchange', 'market_type', 'symbol'].map((column, i) => `${column} = ${quoted(each[i]!)}`);
        const query = `SELECT ${columns.join(', ')} FROM ${database}.${name} WHERE ${where.join(' AND ')}`;
        const [counts] = await selectText(client, query);
        const [count, unique, frames, ...own] = counts!.map(Number) as [number, number, number, ...number[]];
        const row = rowOf(out, ledgerKey(each[0]!, type), legs.length);
        if (database === hotDatabase) {
          row.hot += count;
          row.unique += unique;
          row.streamed += frames;
          for (const [i, value] of own.entries()) row.legs[i]! += value;
        } else {
          row.cold += count;
          row.coldUnique += unique;
        }
      }
    }
  }
  return out;
}

function rowOf(rows: Map<string, StoredRows>, key: string, legs: number): StoredRows {
  let row = rows.get(key);
  if (row === undefined) {
    row = { hot: 0, unique: 0, streamed: 0, legs: Array<number>(legs).fill(0), cold: 0, coldUnique: 0 };
    rows.set(key, row);
  }
  return row;
}

function quoted(text: string): string {
  return `'${text.replace(/['\\]/g, (each) => `\\${each}`)}'`;
}

/**
 * Rows that came again after `before`, while hot had them from before: what is polled, and what a venue tells of its past at a subscription. A
 * collector that was started anew accepts them, and the store drops them.
 * @returns by (exchange, type)
 */
export async function countComeAgain(
  nats: NatsConnection,
  client: ClickHouseClient,
  database: string,
  before: Sequences,
): Promise<Map<string, number>> {
  const out = new Map<string, number>();
  for (const stream of Object.keys(before) as StreamName[]) {
    let readers = new Map<string, { reader: LineReader; arrivals: StreamArrivals }>();
    let rows = 0;
    const look = async () => {
      for (const { arrivals } of readers.values()) {
        const { type, exchange } = arrivals.stream;
        const query = lookupQuery(type, database, [arrivals]);
        if (query === null) continue;
        const known = query.replace(' WHERE ', ` PREWHERE js_seq <= ${before[stream]} WHERE `);
        const found = await selectText(client, known, { max_query_size: '16777216' });
        const own = found.filter(([, , , ...key]) => arrivals.rows.has(key.join('\t'))).length;
        out.set(ledgerKey(exchange, type), (out.get(ledgerKey(exchange, type)) ?? 0) + own);
      }
      [readers, rows] = [new Map(), 0];
    };
    for await (const message of messagesAfter(nats, stream, before[stream], false)) {
      const about = parseSubject(message.subject);
      if (about === null || streamNameOf(message.subject) !== stream) continue;
      let entry = readers.get(message.subject);
      if (!entry)
        readers.set(
          message.subject,
          (entry = { reader: new LineReader(about), arrivals: { stream: about, rows: new Map() } }),
        );
      const size = entry.arrivals.rows.size;
      entry.reader.read(message.data, 0, message.seq, entry.arrivals.rows);
      rows += entry.arrivals.rows.size - size;
      if (rows >= LOOKED_UP_ROWS) await look();
    }
    await look();
  }
  return out;
}

/** What the ledger is drawn from. Maps by `ledgerKey`. */
export interface LedgerFigures {
  stored: ReadonlyMap<string, StoredRows>;
  /** Distinct keys that the simulator wrote to sockets; null in live mode. */
  sent: ReadonlyMap<string, number> | null;
  legs: readonly Leg[];
  /** Of each leg, rows that it accepted and that were stored before it. */
  comeAgain: readonly ReadonlyMap<string, number>[];
  gaps: ReadonlyMap<string, number>;
}

/** The pure part. Lost is what was sent, or accepted by a run of the collector, and is neither stored nor declared missing. */
export function drawLedger({ stored, sent, legs, comeAgain, gaps }: LedgerFigures): SoakLedger {
  const accepted = legs.flatMap(({ received }) => [...(received?.keys() ?? [])]);
  const keys = [...new Set([...stored.keys(), ...(sent?.keys() ?? []), ...accepted])].sort();
  const rows = keys.map((key): SoakLedger['rows'][number] => {
    const [exchange, data_type] = key.split(' ') as [string, DataType];
    const none = { hot: 0, unique: 0, streamed: 0, legs: legs.map(() => 0), cold: 0, coldUnique: 0 };
    const own = stored.get(key) ?? none;
    const known = legs.map(({ received }, i) =>
      // What comes again twice is counted twice.
      received === null ? null : Math.max((received.get(key) ?? 0) - (comeAgain[i]?.get(key) ?? 0), 0),
    );
    const missing = known.reduce<number>((sum, each, i) => sum + Math.max((each ?? 0) - own.legs[i]!, 0), 0);
    const unsent = sent?.get(key);
    const gap = gaps.get(key) ?? 0;
    const behind = Math.max(missing, unsent === undefined ? 0 : unsent - own.streamed);
    return {
      ...{ exchange, data_type, sent: unsent ?? null, hot: own.hot, cold: own.cold, gap },
      received: known.includes(null) ? null : known.reduce<number>((sum, each) => sum + (each ?? 0), 0),
      lost: Math.max(behind - gap, 0),
      // A row that is there twice in cold is as wrong as one in hot.
      duplicated: own.hot - own.unique + (own.cold - own.coldUnique),
    };
  });
  const isKnown = legs.every(({ received }) => received !== null);
  return { balanced: isKnown && rows.length > 0 && rows.every((row) => wrongRows(row) === 0), rows };
}

/** Rows of a line that should not be as they are. */
export function wrongRows({ lost, duplicated, hot, cold }: SoakLedger['rows'][number]): number {
  return lost + duplicated + Math.abs(hot - cold);
}

/** Rows declared missing and not filled, by (exchange, type); where only the sender knows how many they are, it is asked. */
export async function missingRows(system: System, client: ClickHouseClient): Promise<Map<string, number>> {
  const { config, mode } = system.plan;
  const gaps = await countGaps(client, config.hotDatabase, 0);
  if (mode === 'live') return gaps;
  for (const stream of await gapsOfUnknownSize(client, config.hotDatabase, 0)) {
    const keys = await system.sentKeys(stream);
    const key = ledgerKey(stream.exchange, stream.data_type);
    gaps.set(key, (gaps.get(key) ?? 0) + (await countInGaps(client, config.hotDatabase, stream, keys)));
  }
  return gaps;
}
