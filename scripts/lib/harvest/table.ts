/**
 * Rows of the harvest into their tables in `marketprism_signals`, each once, however often they come.
 *
 *   storeRows(client, database, kind, rows, stop): Promise<{ stored, present }>; throws NotStored, which names every row that is not stored
 *
 * What a row is, its table's `row_id` says: before an insert the table is asked which it has. One process at a time may store rows of an exchange: it
 * holds `harvestLock`, so that nothing is inserted between a look and its insert. What a killed process left at the server is waited for before the
 * first look.
 */
import type { ClickHouseClient } from '@clickhouse/client';
import { spansOf } from '../arrivals.ts';
import { isPoison, selectText } from '../clickhouse.ts';
import { type Lock, takeLock } from '../lock.ts';
import { type InsertLine, insertBlock, lookAndInsert } from '../once_insert.ts';
import type { Exchange } from '../rows.ts';
import { SIGNAL_TABLES, type SignalColumn } from '../signal_tables.ts';
import type { SignalKind } from './kinds.ts';

/** A row as its file has it (`HarvestRow` and its kind's own members): what it really is, is found out here. */
export type HarvestLine = Record<string, unknown> & { kind: string };

/** Rows that one look and one insert are about: one block and so one part a month. */
const MAX_ROWS = 10_000;
const MAX_BYTES = 8 * 2 ** 20;
/** A batch whose rows the table refuses is halved with so many inserts at most; what is not found by then is refused together. */
const MAX_INSERTS = 100;
/** So often in all, and after these waits: who calls has the rows, and can come again. */
const TRIES = 3;
const FIRST_WAIT_MS = 500;
const LOOKUP_SETTINGS = { max_execution_time: 30, max_query_size: '16777216' } as const;

export interface Refusal {
  row: HarvestLine;
  reason: string;
}

/** Some rows are not stored; all others of the call are. */
export class NotStored extends Error {
  /**
   * @param refused that the table does not take
   * @param unconfirmed that may be stored or not: the database is away, or it was stopped; given again, they are stored once
   */
  constructor(
    readonly stored: number,
    readonly present: number,
    readonly refused: readonly Refusal[],
    readonly unconfirmed: readonly HarvestLine[],
    options?: { cause: unknown },
  ) {
    const why = options === undefined ? refused[0]?.reason : (options.cause as Error).message;
    super(`${refused.length} rows refused, ${unconfirmed.length} not confirmed: ${why?.slice(0, 300)}`, options);
    this.name = 'NotStored';
  }
}

/** Makes this process the one that writes an exchange's rows: its files of the harvest and its rows in the tables. @throws OperatorError naming who does */
export function harvestLock(dataDir: string, exchange: Exchange): Promise<Lock> {
  return takeLock(dataDir, `harvest ${exchange}`);
}

// --------------------------------------------------------------------------------------------------------------- columns

/** Members that a file's rows have, and a table's have not. */
const FILE_ONLY = new Set(['kind', 'date', 'hour', 'source_tier']);
/** Columns that are called otherwise in a file. */
const MEMBERS: Record<string, string> = { timestamp: 'ts_ms', received_at: 'recv_ts_ms' };

export interface RowColumn {
  /** In a file. */
  member: string;
  column: SignalColumn;
}

/** A table's columns that come from a file's row. */
export function rowColumns(kind: SignalKind): RowColumn[] {
  const columns: readonly SignalColumn[] = SIGNAL_TABLES[kind].columns;
  return columns
    .filter(({ expression }) => expression === undefined)
    .map((column) => ({ member: MEMBERS[column.name] ?? column.name, column }));
}

const INTEGERS: Record<string, [number, number]> = {
  UInt16: [0, 65_535],
  UInt32: [0, 4_294_967_295],
  Int32: [-2_147_483_648, 2_147_483_647],
  Int64: [Number.MIN_SAFE_INTEGER, Number.MAX_SAFE_INTEGER],
};
/** DateTime64(3): 1970 to 2299, ms. */
const LAST_TIME = 10_413_791_999_999;
const DECIMAL_TEXT = /^-?\d{1,20}(?:\.\d{1,18})?$/;

/** Whether a value is one of a column's, as JSON. */
function isOf(type: string, value: unknown): boolean {
  const inner = /^(?:LowCardinality|Nullable)\((.*)\)$/.exec(type)?.[1];
  if (inner !== undefined) return (value === null && type.includes('Nullable(')) || isOf(inner, value);
  if (type === 'String') return typeof value === 'string';
  if (type === 'Bool') return typeof value === 'boolean';
  if (type === 'Float64') return typeof value === 'number' && Number.isFinite(value);
  if (type === 'FixedString(32)') return typeof value === 'string' && /^[0-9a-f]{32}$/.test(value);
  if (type.startsWith('Decimal(')) return typeof value === 'string' && DECIMAL_TEXT.test(value);
  const [least, most] = type.startsWith('DateTime64(3') ? [0, LAST_TIME] : INTEGERS[type]!;
  return Number.isInteger(value) && (value as number) >= least && (value as number) <= most;
}

const NAMES = new Set(['exchange', 'market_type', 'symbol']);
/** What stands in a query, and comes back as it is; venues name coins in many scripts. */
const NAME_TEXT = /^[^\p{Cc}'"\\]{1,256}$/u;
/** Of a wrong value, characters. */
const SHOWN = 60;

/** Finds what the table would refuse without asking it: a row is then refused by itself, and costs no insert. */
class RowReader {
  private readonly columns: RowColumn[];
  private readonly members: Set<string>;

  constructor(private readonly kind: SignalKind) {
    this.columns = rowColumns(kind);
    this.members = new Set([...this.columns.map(({ member }) => member), ...FILE_ONLY]);
  }

  /** Why the table cannot take it, or null. */
  fault(row: HarvestLine): string | null {
    if (row.kind !== this.kind) return `its kind is ${String(row.kind).slice(0, SHOWN)}, not ${this.kind}`;
    for (const { member, column } of this.columns) {
      const value = row[member];
      if (value === undefined) return `${member} is absent`;
      if (NAMES.has(member) && !NAME_TEXT.test(String(value))) return `TYPE_MISMATCH: ${member} is no name`;
      if (!isOf(column.type, value))
        return `TYPE_MISMATCH: ${member} is no ${column.type}: ${String(JSON.stringify(value)).slice(0, SHOWN)}`;
    }
    const unknown = Object.keys(row).find((member) => !this.members.has(member));
    if (unknown !== undefined) return `Unknown field found: the table ${this.kind} has no ${unknown.slice(0, SHOWN)}`;
    return null;
  }

  /** As the table's columns are called. */
  text(row: HarvestLine): string {
    return `${JSON.stringify(Object.fromEntries(this.columns.map(({ member, column }) => [column.name, row[member]])))}\n`;
  }
}

// --------------------------------------------------------------------------------------------------------------- storing

/** Of a row, what a look asks for. */
interface Identity {
  market_type: string;
  symbol: string;
  ts_ms: number;
  row_id: string;
}

interface Pending {
  row: HarvestLine;
  identity: Identity;
  text: string;
}

/** Rows by what makes them one. */
type Batch = Map<string, Pending>;

interface Counts {
  stored: number;
  present: number;
  refused: Refusal[];
}

/** Of a server, exchange and table: its looks and inserts never overlap. */
interface Lane {
  tail: Promise<unknown>;
  line: InsertLine;
}

const lanes = new WeakMap<ClickHouseClient, Map<string, Lane>>();

function laneOf(client: ClickHouseClient, exchange: string, table: string): Lane {
  let ofClient = lanes.get(client);
  if (!ofClient) lanes.set(client, (ofClient = new Map()));
  const name = `${exchange} ${table}`;
  let lane = ofClient.get(name);
  if (!lane) {
    // Not clear at first: what a process before us sent may still happen.
    const line = { client, table, prefix: `harvest:${exchange}:${table}:`, isClear: false };
    ofClient.set(name, (lane = { tail: Promise.resolve(), line }));
  }
  return lane;
}

/**
 * Stores rows of one kind, each once; rows that the table has are left as they are. All rows of a call are tried, whatever becomes of some.
 * Calls may overlap: those for one table are done one after the other. Use one client per process and server, and hold `harvestLock`.
 * @param rows as in the files
 * @param stop ends it at once: what was under way is unconfirmed
 * @throws NotStored when any row is not known to be stored
 */
export async function storeRows(
  client: ClickHouseClient,
  database: string,
  kind: SignalKind,
  rows: readonly HarvestLine[],
  stop: AbortSignal,
): Promise<{ stored: number; present: number }> {
  const counts: Counts = { stored: 0, present: 0, refused: [] };
  const reader = new RowReader(kind);
  const unconfirmed: HarvestLine[] = [];
  let failure: { cause: unknown } | undefined;
  for (const [exchange, ofExchange] of byExchange(rows)) {
    const writer = new TableWriter(laneOf(client, exchange, `${database}.${kind}`), exchange, stop);
    for (const batch of batchesOf(ofExchange, reader, counts)) {
      const held = [...batch.values()].map(({ row }) => row);
      // Where one batch finds nobody, the next ones do not wait as long again.
      failure ??= await writer.turn(batch, counts);
      if (failure !== undefined) unconfirmed.push(...held);
    }
  }
  if (failure !== undefined || counts.refused.length > 0)
    throw new NotStored(counts.stored, counts.present, [...counts.refused], unconfirmed, failure);
  return { stored: counts.stored, present: counts.present };
}

function byExchange(rows: readonly HarvestLine[]): Map<string, HarvestLine[]> {
  const found = new Map<string, HarvestLine[]>();
  for (const row of rows) {
    const exchange = String(row.exchange);
    const same = found.get(exchange);
    if (same) same.push(row);
    else found.set(exchange, [row]);
  }
  return found;
}

/** Bounded batches of rows that the table may take; the others are refused as they are met. */
function* batchesOf(rows: readonly HarvestLine[], reader: RowReader, counts: Counts): Generator<Batch> {
  let batch: Batch = new Map();
  let bytes = 0;
  for (const row of rows) {
    const reason = reader.fault(row);
    if (reason !== null) {
      counts.refused.push({ row, reason });
      continue;
    }
    const identity = row as unknown as Identity;
    const key = keyOf(identity);
    if (batch.has(key)) {
      counts.present += 1;
      continue;
    }
    const text = reader.text(row);
    if (batch.size >= MAX_ROWS || (batch.size > 0 && bytes + text.length > MAX_BYTES)) {
      yield batch;
      batch = new Map();
      bytes = 0;
    }
    batch.set(key, { row, identity, text });
    bytes += text.length;
  }
  if (batch.size > 0) yield batch;
}

function keyOf({ market_type, symbol, row_id }: Pick<Identity, 'market_type' | 'symbol' | 'row_id'>): string {
  return `${market_type}\t${symbol}\t${row_id}`;
}

/** Looks, inserts what is missing, and after an unclear answer waits and looks again. */
class TableWriter {
  private insertsLeft = 0;

  constructor(
    private readonly lane: Lane,
    private readonly exchange: string,
    private readonly stop: AbortSignal,
  ) {}

  /** Stores a batch when those before it are done. @returns why it is not known to be stored */
  async turn(batch: Batch, counts: Counts): Promise<{ cause: unknown } | undefined> {
    const own: Counts = { stored: 0, present: 0, refused: [] };
    const { lane, stop } = this;
    const work = lane.tail.then(() => this.store(batch, own));
    lane.tail = work.catch(() => undefined);
    try {
      await orStopped(work, stop);
      counts.stored += own.stored;
      counts.present += own.present;
      return undefined;
    } catch (cause) {
      lane.line.isClear = false;
      return { cause };
    } finally {
      counts.refused.push(...own.refused);
    }
  }

  private async store(batch: Batch, counts: Counts): Promise<void> {
    const all = batch.size;
    let present: number | null = null;
    await lookAndInsert(this.lane.line, { most: TRIES, firstWaitMs: FIRST_WAIT_MS }, this.stop, async () => {
      const found = await this.look(batch);
      // What a later look finds besides is of our own insert.
      present ??= found;
      this.stop.throwIfAborted();
      this.insertsLeft = MAX_INSERTS;
      await this.insert([...batch], batch, counts);
    });
    counts.present += present!;
    counts.stored += all - present! - counts.refused.length;
  }

  /** Drops the rows that the table has. @returns how many */
  private async look(batch: Batch): Promise<number> {
    const rows = [...batch.values()].map(({ identity }) => identity);
    const { client, table } = this.lane.line;
    const query = lookupQuery(table, this.exchange, rows);
    // Without an id of ours: a look is not what a fence waits for.
    const found = await selectText(client, query, LOOKUP_SETTINGS);
    let dropped = 0;
    for (const [market_type, symbol, row_id] of found as [string, string, string][])
      if (batch.delete(keyOf({ market_type, symbol, row_id }))) dropped += 1;
    return dropped;
  }

  /** Inserts in one block. Rows that the table does not take are halved out; the others are stored. */
  private async insert(rows: [string, Pending][], batch: Batch, counts: Counts): Promise<void> {
    if (rows.length === 0) return;
    this.insertsLeft -= 1;
    const lines = Buffer.from(rows.map(([, { text }]) => text).join(''));
    try {
      await insertBlock(this.lane.line, lines);
    } catch (error) {
      if (!isPoison(error)) throw error;
      if (rows.length > 1 && this.insertsLeft > 1) {
        const middle = rows.length >> 1;
        await this.insert(rows.slice(0, middle), batch, counts);
        await this.insert(rows.slice(middle), batch, counts);
        return;
      }
      const among = rows.length === 1 ? '' : ` (one of ${rows.length} rows that were refused together)`;
      const reason = `${(error as { type?: string }).type}: ${(error as Error).message.slice(0, 500)}${among}`;
      for (const [key, { row }] of rows) {
        counts.refused.push({ row, reason });
        batch.delete(key);
      }
    }
  }
}

/** Rejects as soon as `stop` fires; the work goes on by itself, and nobody waits for its end. */
async function orStopped<T>(work: Promise<T>, stop: AbortSignal): Promise<T> {
  stop.throwIfAborted();
  let onStop: () => void = () => undefined;
  const stopped = new Promise<never>((_, fail) => {
    onStop = () => fail(stop.reason);
    stop.addEventListener('abort', onStop, { once: true });
  });
  try {
    return await Promise.race([work, stopped]);
  } finally {
    stop.removeEventListener('abort', onStop);
  }
}

/** Which of the rows a table has: found through its sorting key, and never more of them than are asked for. */
function lookupQuery(table: string, exchange: string, rows: readonly Identity[]): string {
  const streams = new Map<string, Identity[]>();
  for (const row of rows) {
    const name = `market_type = ${quote(row.market_type)} AND symbol = ${quote(row.symbol)}`;
    const same = streams.get(name);
    if (same) same.push(row);
    else streams.set(name, [row]);
  }
  const conditions = [...streams].map(([where, ofStream]) => {
    const spans = spansOf(ofStream.map(({ ts_ms }) => ts_ms)).map(
      ({ from, to }) => `timestamp BETWEEN ${timeAt(from)} AND ${timeAt(to)}`,
    );
    return `(${where} AND (${spans.join(' OR ')}))`;
  });
  const ids = rows.map(({ row_id }) => `'${row_id}'`).join(',');
  return `SELECT market_type, symbol, row_id FROM ${table} WHERE exchange = ${quote(exchange)} AND (${conditions.join(' OR ')}) AND row_id IN (${ids})`;
}

function timeAt(ms: number): string {
  return `fromUnixTimestamp64Milli(toInt64(${ms}), 'UTC')`;
}

function quote(text: string): string {
  return `'${text.replace(/['\\]/g, (character) => `\\${character}`)}'`;
}
