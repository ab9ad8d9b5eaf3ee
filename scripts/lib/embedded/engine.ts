/**
 * The engine behind the server: a pool of chDB sessions on one data directory.
 *
 * A session runs its queries one after another and keeps what SET and USE did. So each query leases one session for
 * itself, its settings are set before and taken back after it, and a session that cannot be brought back is replaced.
 */
import { execFileSync } from 'node:child_process';
import { closeSync, constants, mkdirSync, openSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { Socket } from 'node:net';
import { join } from 'node:path';
import type { Session } from 'chdb';
import { OperatorError } from '../cli.ts';
import { quoteName, quoteString } from '../sql_text.ts';
import { asFault, ClickHouseFault } from './faults.ts';
import { cancelledFault, type Running } from './running.ts';

/**
 * A setting that only Distributed tables read, which the embedded engine has none of: it carries the query's tag into the
 * engine's list of processes, where KILL QUERY finds it. (log_comment would do, but belongs to the user.)
 */
const TAG_SETTING = 'distributed_replica_max_ignored_errors';

/**
 * Parts are merged when about so many of a size are there, and not when there are five: each row is written anew less often. Merges took a third of
 * the engine's CPU at full rate; with twelve all of it took 15 µs a row instead of 18 (measured twice, in turns). A table has more parts for it.
 */
const MERGE_SELECTOR_BASE = 12;

/** More queries than this waiting for a session are refused. */
const MAX_WAITING = 200;

/** A cancel can arrive just before the engine knows the query: it is repeated until the query has ended. */
const KILL_REPEAT_MS = 100;

/**
 * Settings of every session. async_insert (on by default in 26.x) would acknowledge through a queue; implicit_select is a trait of
 * the command-line tool and turns typing errors into queries; formatting in parallel costs memory for each reader.
 */
const BASE_SETTINGS: ReadonlyMap<string, string> = new Map([
  ['async_insert', '0'],
  ['implicit_select', '0'],
  ['allow_introspection_functions', '0'],
  ['output_format_parallel_formatting', '0'],
]);

/**
 * Settings of an insert with rows: one body is one block and so one part (whole or not at all). The engine would otherwise cut at
 * 1,048,449 rows or 256 MB, or at the pieces of its parallel parser. Not for INSERT … SELECT, which would gather it all.
 */
export const ONE_BLOCK_SETTINGS: ReadonlyMap<string, string> = new Map([
  ['max_insert_block_size', '100000000'],
  ['max_insert_block_size_bytes', '0'],
  ['min_insert_block_size_rows', '100000000'],
  ['min_insert_block_size_bytes', '4000000000'],
  ['max_insert_threads', '1'],
  ['input_format_parallel_parsing', '0'],
]);

/** Settings of a request that the server answers for itself: an insert is always written before it is acknowledged. */
const FIXED_SETTINGS = new Set(['async_insert', 'wait_for_async_insert', TAG_SETTING]);

/** Which sessions a query may take. Long ones (selects) leave one to inserts and short work; control has one of its own. */
export type Lane = 'long' | 'short' | 'control';

export interface QueryResult {
  bytes: Buffer;
  rowsRead: number;
  bytesRead: number;
}

export interface InsertResult {
  rowsWritten: number;
  bytesWritten: number;
}

/** chDB's native insert; its public wrapper allows neither quoted names nor settings of its own kind. */
interface NativeInsert {
  InsertRawAsyncConnection(
    connection: unknown,
    prefix: string,
    payload: Buffer,
    countLines: boolean,
  ): Promise<{ rowsWritten: number; bytesWritten: number }>;
}

interface Chdb {
  Session: new (path: string, options?: { connectionArgs?: readonly string[] }) => Session;
}

interface Slot {
  session: Session;
  readonly fifo: string;
  database: string;
  /** Settings to take back: name → value outside of the query. */
  changed: Set<string>;
  broken: boolean;
}

interface Waiter {
  running: Running | undefined;
  give: (slot: Slot) => void;
}

/** One session for one query; `release` brings it back clean. */
export interface Lease {
  query(sql: string, format: string): Promise<QueryResult>;
  insert(prefix: string, payload: Buffer): Promise<InsertResult>;
  /** Runs a SELECT whose text is cut at `outputAt`; the result comes as bytes of the format from `stream`. */
  select(before: string, after: string, format: string): { stream: Socket; done: Promise<QueryResult> };
  /** The session keeps state that cannot be taken back: replace it. */
  spoil(): void;
  release(): Promise<void>;
}

export interface EngineOptions {
  dataDir: string;
  sessions: number;
  memoryBytes: number;
  cluster: string | null;
}

/**
 * Loads chDB.
 * @throws OperatorError when the package or its library is not installed.
 */
export function loadChdb(): { chdb: Chdb; native: NativeInsert } {
  const load = createRequire(import.meta.url);
  try {
    const chdb = load('chdb') as Chdb;
    const fromChdb = createRequire(load.resolve('chdb'));
    const native = fromChdb(
      `@chdb/lib-${process.platform}-${process.arch}${process.platform === 'linux' ? '-gnu' : ''}`,
    );
    return { chdb, native: native as NativeInsert };
  } catch (error) {
    const why = (error as Error).message.split('\n')[0];
    throw new OperatorError(
      `the embedded ClickHouse needs the package chdb (npm install chdb), or set CLICKHOUSE_URL to a server: ${why}`,
    );
  }
}

/**
 * Server settings: caches sized for a small machine, few background threads, no system log tables, one memory limit for
 * everything (a query above it fails with MEMORY_LIMIT_EXCEEDED instead of taking the machine down).
 * @param cluster of which this is the only server; null: of none
 */
export function engineConfig(memoryBytes: number, cluster: string | null): string {
  const cache = Math.floor(memoryBytes / 32);
  const entries: Record<string, number> = {
    max_server_memory_usage: memoryBytes,
    // Otherwise the limit is held against the whole control group, that is against all else in the same container or service.
    memory_worker_use_cgroup: 0,
    memory_worker_dynamic_hard_limit: 0,
    mark_cache_size: cache,
    primary_index_cache_size: cache,
    index_mark_cache_size: Math.floor(cache / 4),
    uncompressed_cache_size: 0,
    index_uncompressed_cache_size: 0,
    query_condition_cache_size: 1_048_576,
    compiled_expression_cache_size: 8_388_608,
    mmap_cache_size: 64,
    max_thread_pool_size: 512,
    max_io_thread_pool_size: 8,
    max_active_parts_loading_thread_pool_size: 4,
    max_outdated_parts_loading_thread_pool_size: 2,
    max_parts_cleaning_thread_pool_size: 2,
    background_pool_size: 2,
    background_common_pool_size: 2,
    background_move_pool_size: 1,
    background_fetches_pool_size: 1,
    background_schedule_pool_size: 4,
  };
  const lines = Object.entries(entries).map(([name, value]) => `  <${name}>${value}</${name}>`);
  lines.push(`  <merge_tree><merge_selector_base>${MERGE_SELECTOR_BASE}</merge_selector_base></merge_tree>`);
  if (cluster !== null) lines.push(...clusterConfig(cluster));
  return `<clickhouse>\n${lines.join('\n')}\n</clickhouse>\n`;
}

/** Nothing listens on that port: a replica at the port that the server has itself is this server, and is not called. */
function clusterConfig(cluster: string): string[] {
  const replica = '<replica><host>127.0.0.1</host><port>9000</port></replica>';
  const shard = `<shard><internal_replication>true</internal_replication>${replica}</shard>`;
  return [
    '  <tcp_port>9000</tcp_port>',
    `  <remote_servers><${cluster}>${shard}</${cluster}></remote_servers>`,
    `  <macros><cluster>${cluster}</cluster><shard>1</shard><replica>1</replica></macros>`,
  ];
}

export class Engine {
  readonly #chdb: Chdb;
  readonly #native: NativeInsert;
  readonly #options: EngineOptions;
  readonly #workDir: string;
  readonly #idle: Slot[] = [];
  readonly #control: Slot;
  /** Only for KILL and for liveness: no user's query may ever stand in its way. */
  readonly #killer: Slot;
  #controlTail: Promise<void> = Promise.resolve();
  readonly #waiting: Record<'long' | 'short', Waiter[]> = { long: [], short: [] };
  readonly #sessions: number;
  #long = 0;
  #busy = 0;
  readonly version: string;
  readonly timezone: string;
  /** The columns of system.processes, for a table function. */
  readonly processColumns: string;

  /**
   * Opens the data directory.
   * @throws OperatorError when it cannot be opened.
   */
  constructor(options: EngineOptions) {
    ({ chdb: this.#chdb, native: this.#native } = loadChdb());
    this.#options = options;
    this.#sessions = options.sessions - 1;
    this.#workDir = join(options.dataDir, 'bridge');
    try {
      rmSync(this.#workDir, { recursive: true, force: true });
      mkdirSync(this.#workDir, { mode: 0o700 });
      writeFileSync(join(this.#workDir, 'config.xml'), engineConfig(options.memoryBytes, options.cluster));
      const fifos = Array.from({ length: options.sessions }, (_, i) => join(this.#workDir, `result-${i}`));
      execFileSync('mkfifo', ['-m', '600', ...fifos]);
      const slots = fifos.map((fifo) => this.#open(fifo));
      this.#killer = this.#open('');
      this.#control = slots.pop()!;
      this.#idle.push(...slots);
      const ask = (sql: string) => this.#control.session.query(sql, 'TabSeparatedRaw').trim();
      this.version = ask('SELECT version()');
      this.timezone = ask('SELECT timezone()');
      this.processColumns = ask(
        "SELECT arrayStringConcat(groupArray(name || ' ' || type), ', ') FROM system.columns WHERE database = 'system' AND table = 'processes' AND name NOT LIKE '%.%'",
      );
    } catch (error) {
      if (error instanceof OperatorError) throw error;
      throw new OperatorError(`cannot open the data directory ${options.dataDir}: ${firstLine(error)}`);
    }
  }

  #open(fifo: string): Slot {
    const session = new this.#chdb.Session(this.#options.dataDir, {
      connectionArgs: [`--config-file=${join(this.#workDir, 'config.xml')}`],
    });
    session.query(`SET ${[...BASE_SETTINGS].map(([name, value]) => `${name} = ${quoteString(value)}`).join(', ')}`);
    return { session, fifo, database: 'default', changed: new Set(), broken: false };
  }

  /** Sessions that run a query now, and how many there are. */
  get load(): { busy: number; sessions: number; waiting: number } {
    return {
      busy: this.#busy,
      sessions: this.#sessions + 1,
      waiting: this.#waiting.long.length + this.#waiting.short.length,
    };
  }

  /**
   * Waits for a session and sets it up for one query.
   * @throws ClickHouseFault: 202 when too many wait, 81 or 115 for the database or settings, 394 when cancelled.
   */
  async lease(lane: Lane, running: Running, database: string, settings: ReadonlyMap<string, string>): Promise<Lease> {
    if (lane === 'control') return this.#leaseControl(running, database, settings);
    const slot = await this.#take(lane, running);
    return this.#prepare(slot, running, database, settings, () => this.#giveBack(slot, lane));
  }

  async #leaseControl(running: Running, database: string, settings: ReadonlyMap<string, string>): Promise<Lease> {
    let next: () => void = () => {};
    const before = this.#controlTail;
    this.#controlTail = new Promise((done) => {
      next = done;
    });
    await before;
    return this.#prepare(this.#control, running, database, settings, next);
  }

  async #prepare(
    slot: Slot,
    running: Running,
    database: string,
    settings: ReadonlyMap<string, string>,
    giveBack: () => void,
  ): Promise<Lease> {
    this.#busy++;
    const release = async () => {
      try {
        await this.#clean(slot);
      } finally {
        this.#busy--;
        giveBack();
      }
    };
    try {
      if (running.cancelled) throw cancelledFault();
      running.phase = 'running';
      if (slot.database !== database) {
        await slot.session.queryAsync(`USE ${quoteName(database)}`);
        slot.database = database;
      }
      const assignments = [`${TAG_SETTING} = ${running.tag}`];
      slot.changed.add(TAG_SETTING);
      for (const [name, value] of settings) {
        if (FIXED_SETTINGS.has(name)) continue;
        if (!/^[A-Za-z_][A-Za-z0-9_.]*$/.test(name)) {
          throw new ClickHouseFault(115, 'UNKNOWN_SETTING', `Unknown setting '${name}'`);
        }
        assignments.push(`${name} = ${quoteString(value)}`);
      }
      for (const name of settings.keys()) slot.changed.add(name);
      await slot.session.queryAsync(`SET ${assignments.join(', ')}`);
      return this.#leaseOf(slot, running, release);
    } catch (error) {
      await release();
      throw asFault(error);
    }
  }

  #leaseOf(slot: Slot, running: Running, release: () => Promise<void>): Lease {
    const guarded = async <T>(work: () => Promise<T>): Promise<T> => {
      if (running.cancelled) throw cancelledFault();
      // From here on a cancel must reach into the engine, again and again until the query has ended.
      let ended = false;
      let timer: NodeJS.Timeout | undefined;
      const kill = () => {
        this.#killInEngine(running.tag)
          .catch(() => {
            // Refused by the engine (out of memory, say): the next turn asks again.
          })
          .then(() => {
            if (!ended) timer = setTimeout(kill, KILL_REPEAT_MS);
          });
      };
      const before = running.onCancel;
      running.onCancel = () => {
        before();
        kill();
      };
      try {
        return await work();
      } catch (error) {
        throw asFault(error);
      } finally {
        ended = true;
        clearTimeout(timer);
        running.onCancel = before;
      }
    };
    return {
      query: (sql, format) =>
        guarded(async () => {
          const result = await slot.session.queryAsync(sql, { format });
          return { bytes: Buffer.from(result.bytes()), rowsRead: result.rowsRead, bytesRead: result.bytesRead };
        }),
      insert: (prefix, payload) =>
        guarded(() => this.#native.InsertRawAsyncConnection(slot.session.connection, prefix, payload, false)),
      select: (before, after, format) => {
        const { socket, closeWriter } = openFifo(slot.fifo);
        const sql = `${before}\nINTO OUTFILE ${quoteString(slot.fifo)} APPEND ${after}`;
        const done = guarded(async () => {
          const result = await slot.session.queryAsync(sql, { format });
          return { bytes: Buffer.alloc(0), rowsRead: result.rowsRead, bytesRead: result.bytesRead };
        }).finally(closeWriter);
        return { stream: socket, done };
      },
      spoil: () => {
        slot.broken = true;
      },
      release,
    };
  }

  async #killInEngine(tag: number): Promise<void> {
    await this.#killer.session.queryAsync(`KILL QUERY WHERE Settings['${TAG_SETTING}'] = '${tag}' ASYNC`);
  }

  /** Stops all merges, those that run, too, or lets them go on. */
  async merge(isAllowed: boolean): Promise<void> {
    await this.#killer.session.queryAsync(`SYSTEM ${isAllowed ? 'START' : 'STOP'} MERGES`);
  }

  /** Resolves when the engine answers. */
  async alive(): Promise<void> {
    await this.#killer.session.queryAsync('SELECT 1');
  }

  /** The engine's own view of a query: figures such as memory and rows, by tag. */
  async figures(lease: Lease): Promise<Map<number, Record<string, unknown>>> {
    const { bytes } = await lease.query(
      `SELECT * FROM system.processes WHERE Settings['${TAG_SETTING}'] != '' FORMAT JSONEachRow SETTINGS output_format_json_quote_64bit_integers = 1`,
      'JSONEachRow',
    );
    const rows = bytes.toString().trim().split('\n').filter(Boolean);
    return new Map(
      rows.map((line) => {
        const row = JSON.parse(line) as Record<string, unknown> & { Settings: Record<string, string> };
        return [Number(row.Settings[TAG_SETTING]), row];
      }),
    );
  }

  /** Brings a session back: an ended query also leaves the engine's list only when its session runs the next one. */
  async #clean(slot: Slot): Promise<void> {
    if (!slot.broken) {
      const resets = [...slot.changed].map((name) => {
        const base = BASE_SETTINGS.get(name);
        return `${name} = ${base === undefined ? 'DEFAULT' : quoteString(base)}`;
      });
      slot.changed.clear();
      try {
        await slot.session.queryAsync(resets.length > 0 ? `SET ${resets.join(', ')}` : 'SELECT 1');
      } catch {
        // An unknown setting or readonly=1: what is set cannot be taken back, so the session goes.
        slot.broken = true;
      }
    }
    if (!slot.broken) return;
    slot.session.close();
    const fresh = this.#open(slot.fifo);
    slot.session = fresh.session;
    slot.database = fresh.database;
    slot.changed = fresh.changed;
    slot.broken = false;
  }

  #take(lane: 'long' | 'short', running: Running): Promise<Slot> {
    if (running.cancelled) throw cancelledFault();
    running.phase = 'waiting';
    if (this.#mayTake(lane)) {
      if (lane === 'long') this.#long++;
      return Promise.resolve(this.#idle.pop()!);
    }
    const queue = this.#waiting[lane];
    if (queue.length >= MAX_WAITING) {
      throw new ClickHouseFault(
        202,
        'TOO_MANY_SIMULTANEOUS_QUERIES',
        `Too many simultaneous queries: ${this.#sessions} sessions are busy and ${queue.length} queries wait`,
      );
    }
    return new Promise((give, fail) => {
      const before = running.onCancel;
      const waiter: Waiter = {
        running,
        give: (slot) => {
          running.onCancel = before;
          give(slot);
        },
      };
      running.onCancel = () => {
        before();
        const at = queue.indexOf(waiter);
        if (at >= 0) {
          queue.splice(at, 1);
          fail(cancelledFault());
        }
      };
      queue.push(waiter);
    });
  }

  #mayTake(lane: 'long' | 'short'): boolean {
    return this.#idle.length > 0 && (lane === 'short' || this.#long < Math.max(1, this.#sessions - 1));
  }

  #giveBack(slot: Slot, lane: 'long' | 'short'): void {
    if (lane === 'long') this.#long--;
    this.#idle.push(slot);
    for (const next of ['short', 'long'] as const) {
      while (this.#waiting[next].length > 0 && this.#mayTake(next)) {
        if (next === 'long') this.#long++;
        this.#waiting[next].shift()!.give(this.#idle.pop()!);
      }
    }
  }

  /** Closes every session; all leases must have been released. */
  close(): void {
    for (const slot of [...this.#idle, this.#control, this.#killer]) slot.session.close();
    rmSync(this.#workDir, { recursive: true, force: true });
  }
}

/**
 * Opens both ends of a result pipe. The writing end is held until the query is over, so that the reader sees the end then and
 * not before the engine opened it. Through a pipe the engine writes one whole document in any format, at the reader's pace.
 */
function openFifo(path: string): { socket: Socket; closeWriter: () => void } {
  const reader = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  const writer = openSync(path, constants.O_WRONLY | constants.O_NONBLOCK);
  const socket = new Socket({ fd: reader, readable: true, writable: false });
  return { socket, closeWriter: () => closeSync(writer) };
}

function firstLine(error: unknown): string {
  return (error instanceof Error ? error.message : String(error)).split('\n')[0]!;
}
