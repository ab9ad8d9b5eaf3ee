/** ClickHouse's HTTP interface in front of the embedded engine. */

import { randomUUID } from 'node:crypto';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { OperatorError } from '../cli.ts';
import type { Logger } from '../log.ts';
import {
  formatClause,
  type InsertText,
  isWord,
  leavesTraceInSession,
  readInsert,
  readKill,
  readStatement,
  type Statement,
  substituteParams,
} from '../sql_text.ts';
import { Answer, KEEP_ALIVE_SECONDS, type Summary } from './answer.ts';
import { Body, Budget, headerOf, insertFormat, lastRowEnd, multipartFields } from './body.ts';
import type { DiskGuard } from './disk_guard.ts';
import { type Engine, type InsertResult, type Lane, type Lease, ONE_BLOCK_SETTINGS } from './engine.ts';
import { asFault, ClickHouseFault, ClientGone } from './faults.ts';
import {
  mayBeQuoted,
  QUOTE_LINE,
  QUOTED_SETTINGS,
  refuseUntold,
  unquotedFault,
  withoutEmptyLines,
} from './insert_rows.ts';
import { createMetrics, type Metrics } from './metrics.ts';
import { KILL_COLUMNS, processRows, rowsAsTable, withProcesses } from './processes.ts';
import { type Running, RunningQueries } from './running.ts';

/** A body up to this size is one insert of one block, so that it is stored whole or not at all. */
const ONE_BLOCK_BYTES = 64 * 1024 * 1024;

/** Bodies of all requests together, decompressed. Sockets are not read further while more would be held. */
const ALL_BODIES_BYTES = 128 * 1024 * 1024;

/** So much of a body is looked at to tell an INSERT with rows from other SQL. */
const HEAD_BYTES = 256 * 1024;

/** SQL text (with VALUES) may be as long as this. */
const MAX_SQL_BYTES = 64 * 1024 * 1024;

/** A refused body that has not ended by then costs its connection. */
const DISCARD_MS = 10_000;

/** On stop, running queries get this long before they are cancelled, and as long again to end. */
const STOP_GRACE_MS = 3000;

/** URL parameters of the HTTP interface itself; every other one is a setting. */
const HTTP_PARAMS = new Set(
  `query query_id database default_format user password quota_key stacktrace session_id session_timeout session_check
  close_session role compress decompress buffer_size wait_end_of_query client_protocol_version`.split(/\s+/),
);

export interface ServerOptions {
  engine: Engine;
  disk: DiskGuard;
  log: Logger;
  host: string;
  port: number;
}

interface Call {
  request: IncomingMessage;
  params: URLSearchParams;
  running: Running;
  answer: Answer;
  settings: Map<string, string>;
  defaultFormat: string;
  readOnly: boolean;
}

export class EmbeddedServer {
  readonly #engine: Engine;
  readonly #disk: DiskGuard;
  readonly #log: Logger;
  readonly #http: Server;
  readonly #running = new RunningQueries();
  readonly #budget = new Budget(ALL_BODIES_BYTES);
  readonly #metrics: Metrics;
  readonly #timezone: string;
  readonly #startedAt = Date.now();
  #stopping = false;

  constructor(options: Pick<ServerOptions, 'engine' | 'disk' | 'log'>) {
    this.#engine = options.engine;
    this.#disk = options.disk;
    this.#log = options.log;
    this.#timezone = this.#engine.timezone;
    this.#metrics = createMetrics(
      () => this.#running.size,
      () => this.#engine.load,
      () => this.#budget.used,
    );
    this.#http = createServer(
      { keepAliveTimeout: (KEEP_ALIVE_SECONDS + 1) * 1000, requestTimeout: 0 },
      (request, response) => {
        this.#serve(request, response).catch((error: unknown) => {
          this.#log.error({ event: 'request_failed', err: error });
          response.destroy();
        });
      },
    );
  }

  /**
   * Starts to listen.
   * @returns the port
   * @throws OperatorError when it is taken.
   */
  listen(port: number, host: string): Promise<number> {
    return new Promise((done, fail) => {
      this.#http.once('error', (error: NodeJS.ErrnoException) => {
        const why = error.code === 'EADDRINUSE' ? 'is in use by another process' : `cannot be opened: ${error.message}`;
        fail(new OperatorError(`port ${port} on ${host} ${why} (--port takes another one)`));
      });
      this.#http.listen(port, host, () => done((this.#http.address() as AddressInfo).port));
    });
  }

  /** Lets running queries end, cancels those that do not, and stops listening. */
  async close(): Promise<void> {
    this.#stopping = true;
    const closed = new Promise<void>((done) => this.#http.close(() => done()));
    this.#http.closeIdleConnections();
    const allEnded = async () => {
      while (this.#running.size > 0) await Promise.all(this.#running.all().map((running) => running.ended));
    };
    if (!(await within(STOP_GRACE_MS, allEnded()))) {
      for (const running of this.#running.all()) this.#running.cancel(running);
      await within(STOP_GRACE_MS, allEnded());
    }
    this.#http.closeAllConnections();
    await closed;
  }

  get runningCount(): number {
    return this.#running.size;
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(request.url ?? '/', 'http://localhost');
    const reading = request.method === 'GET' || request.method === 'HEAD';
    const text = (status: number, body: string, type = 'text/plain; charset=UTF-8') => {
      response.writeHead(status, { 'Content-Type': type, 'Keep-Alive': `timeout=${KEEP_ALIVE_SECONDS}` });
      response.end(body);
    };
    if (reading && url.pathname === '/ping') return text(200, 'Ok.\n');
    if (reading && url.pathname === '/metrics') {
      return text(200, await this.#metrics.text(), this.#metrics.contentType);
    }
    if (reading && url.pathname === '/health') return this.#health(text);
    if (url.pathname !== '/' && url.pathname !== '/query') {
      return text(
        404,
        `There is no handle ${url.pathname}\n\nUse / or /ping for health checks, and POST / with a query.\n`,
      );
    }
    if (!reading && request.method !== 'POST') return text(501, `HTTP method ${request.method} is not supported\n`);
    if (reading && !url.searchParams.has('query') && !hasBody(request)) return text(200, 'Ok.\n');
    if (this.#stopping) return text(503, 'Code: 745. DB::Exception: The server is stopping (SERVER_OVERLOADED)\n');
    await this.#query(request, response, url.searchParams);
  }

  async #health(text: (status: number, body: string, type: string) => void): Promise<void> {
    const { busy, sessions, waiting } = this.#engine.load;
    const figures = {
      version: this.#engine.version,
      uptime_seconds: Math.round((Date.now() - this.#startedAt) / 1000),
      queries_running: this.#running.size,
      queries_waiting: waiting,
      sessions,
      sessions_busy: busy,
      rss_bytes: process.memoryUsage.rss(),
    };
    try {
      await this.#engine.alive();
      text(200, `${JSON.stringify({ status: 'healthy', ...figures })}\n`, 'application/json');
    } catch (error) {
      text(
        503,
        `${JSON.stringify({ status: 'unhealthy', why: asFault(error).message, ...figures })}\n`,
        'application/json',
      );
    }
  }

  /** One query, counted as running from its headers to its end. */
  async #query(request: IncomingMessage, response: ServerResponse, params: URLSearchParams): Promise<void> {
    const queryId = params.get('query_id') || randomUUID();
    const answer = new Answer(request, response, {
      queryId,
      version: this.#engine.version,
      timezone: this.#timezone,
      whole: flag(params.get('wait_end_of_query')),
      compress: flag(params.get('enable_http_compression')),
    });
    let running: Running | undefined;
    let body: Body | undefined;
    try {
      running = this.#running.start({
        queryId,
        user: userOf(request, params),
        database: params.get('database') || header(request, 'x-clickhouse-database') || 'default',
        userAgent: request.headers['user-agent'] ?? '',
        httpMethod: request.method === 'POST' ? 2 : 1,
        address: request.socket.remoteAddress ?? '::1',
        port: request.socket.remotePort ?? 0,
      });
      running.query = params.get('query') ?? '';
      body = new Body(request, this.#budget, running);
      const call: Call = {
        request,
        params,
        running,
        answer,
        settings: settingsOf(params),
        defaultFormat: params.get('default_format') || header(request, 'x-clickhouse-format') || 'TabSeparated',
        readOnly: request.method !== 'POST',
      };
      if (!/^\w+$/.test(call.defaultFormat)) throw new ClickHouseFault(73, 'UNKNOWN_FORMAT', 'Unknown format');
      response.on('close', () => {
        // Nobody wants the answer of a read any more; a write that has begun goes on, one that waits does not begin.
        if (response.writableFinished || !running) return;
        if (running.phase !== 'running' || running.cancelOnClose) this.#running.cancel(running);
      });
      await this.#execute(call, body);
      this.#metrics.done.inc();
    } catch (error) {
      if (error instanceof ClientGone) {
        this.#metrics.dropped.inc();
        this.#log.debug({ event: 'client_gone', query_id: queryId, why: error.message });
        response.destroy();
      } else {
        const fault = asFault(error);
        this.#metrics.failed.inc();
        this.#log.debug({
          event: 'query_failed',
          query_id: queryId,
          code: fault.code,
          why: fault.message.slice(0, 300),
        });
        answer.fail(fault);
      }
    } finally {
      this.#metrics.received.inc(body?.bytes ?? 0);
      this.#metrics.sent.inc(answer.bytesSent);
      body?.close();
      running?.end();
      if (!request.readableEnded) discard(request);
    }
  }

  async #execute(call: Call, body: Body): Promise<void> {
    const contentType = header(call.request, 'content-type');
    const given = call.params.get('query') ?? '';
    if (contentType.startsWith('multipart/form-data')) {
      const fields = multipartFields(contentType, await readAll(body));
      const values = paramsOf(call.params);
      for (const [name, value] of fields) if (name !== 'query') values.set(name.slice('param_'.length), value);
      return this.#statement(call, [given, fields.get('query') ?? ''].filter(Boolean).join('\n'), values);
    }
    const values = paramsOf(call.params);
    if (given !== '') {
      const insert = readInsert(given);
      if (insert?.source === 'inline') {
        const start = given.slice(insert.dataAt);
        return this.#insertRows(call, insert, values, body, start === '' ? [] : [Buffer.from(`${start}\n`)]);
      }
      const more = await readAll(body);
      return this.#statement(call, more.length > 0 ? `${given}\n${more.toString()}` : given, values);
    }
    // Bytes as latin1 keep their offsets; the head is decoded as UTF-8 once its end is known.
    const first = await body.read(HEAD_BYTES);
    const head = first.data.length === 1 ? first.data[0]! : Buffer.concat(first.data);
    const insert = tryReadInsert(head.toString('latin1'));
    if (insert?.source === 'inline') {
      const sql = Buffer.from(insert.head!, 'latin1').toString('utf8');
      call.running.query = sql;
      return this.#insertRows(call, { ...insert, head: sql }, values, body, [head.subarray(insert.dataAt)]);
    }
    const rest = first.end ? Buffer.alloc(0) : await readAll(body);
    return this.#statement(call, Buffer.concat([head, rest]).toString('utf8'), values);
  }

  /** INSERT with rows: one body, one block; a larger one goes in pieces of whole rows, as a server goes block by block. */
  async #insertRows(
    call: Call,
    insert: InsertText,
    values: ReadonlyMap<string, string>,
    body: Body,
    start: Buffer[],
  ): Promise<void> {
    const { running } = call;
    refuseWhenReadOnly(call);
    const headerLines = insertFormat(insert.format!);
    const prefix = substituteParams(insert.head!, values);
    const settings = new Map([...ONE_BLOCK_SETTINGS, ...call.settings]);
    const written: Summary = { read_rows: 0, read_bytes: 0, written_rows: 0, written_bytes: 0 };
    let names = Buffer.alloc(0);
    let held = start;
    let heldBytes = start.reduce((sum, piece) => sum + piece.length, 0);
    for (let first = true, end = false; !end; first = false) {
      const more = await body.read(Math.max(1, ONE_BLOCK_BYTES - heldBytes));
      end = more.end;
      let payload = joined([...(first ? [] : [names]), ...held, ...more.data]);
      held = [];
      let cut = payload.length;
      if (!end) {
        cut = headerLines === undefined ? 0 : lastRowEnd(insert.format!, payload);
        if (cut <= (first ? 0 : names.length)) {
          throw new ClickHouseFault(
            229,
            'QUERY_IS_TOO_LARGE',
            `The embedded engine takes ${insert.format} bodies, and single rows, of up to ${ONE_BLOCK_BYTES} bytes`,
          );
        }
        if (first) names = Buffer.from(headerOf(headerLines!, payload));
        held = [Buffer.from(payload.subarray(cut))];
        payload = payload.subarray(0, cut);
      }
      if (payload.length > (first ? 0 : names.length)) {
        const rows = withoutEmptyLines(insert.format!, payload);
        const isQuoted = mayBeQuoted(prefix, insert.format!, call.settings, rows);
        const all = isQuoted ? new Map([...settings, ...QUOTED_SETTINGS]) : settings;
        const lease = await this.#engine.lease('short', running, running.database, all);
        try {
          const statement = isQuoted ? prefix + QUOTE_LINE : prefix;
          const result = await this.#insert(lease, statement, rows).catch((error: unknown) => {
            throw isQuoted ? unquotedFault(asFault(error)) : error;
          });
          refuseUntold(result.rowsWritten, rows);
          written.written_rows += result.rowsWritten;
          written.written_bytes += result.bytesWritten;
        } finally {
          await lease.release();
        }
      }
      heldBytes = held.reduce((sum, piece) => sum + piece.length, 0);
      body.free(Math.max(0, body.held - heldBytes));
    }
    written.read_rows = written.written_rows;
    written.read_bytes = written.written_bytes;
    call.answer.ok(undefined, Buffer.alloc(0), written);
  }

  /** What the engine acknowledges is believed only while there was room for it. */
  async #insert(lease: Lease, sql: string, payload: Buffer): Promise<InsertResult> {
    this.#disk.refuse();
    const result = await lease.insert(sql, payload);
    this.#disk.look();
    return result;
  }

  /** Any statement that is wholly SQL. */
  async #statement(call: Call, text: string, values: ReadonlyMap<string, string>): Promise<void> {
    const { running, answer } = call;
    running.query = text;
    const statement = readStatement(substituteParams(text, values));
    if (!['select', 'read', 'session'].includes(statement.kind)) refuseWhenReadOnly(call);
    if (statement.kind === 'insert') readInsert(statement.sql);
    if (statement.kind === 'kill') return this.#kill(call, statement);
    running.cancelOnClose = statement.kind === 'select' || statement.kind === 'read';
    const lane = laneOf(statement);
    const oneBlock = statement.kind === 'insert' && lane === 'short' ? ONE_BLOCK_SETTINGS : [];
    const lease = await this.#engine.lease(lane, running, running.database, new Map([...oneBlock, ...call.settings]));
    try {
      if (leavesTraceInSession(statement)) lease.spoil();
      if (statement.kind === 'select' || lane === 'control') {
        const seen =
          lane === 'control' ? await withProcesses(statement, this.#running, lease, this.#engine) : statement;
        await this.#select(call, seen, lease);
      } else if (statement.kind === 'insert') {
        // Through the insert path for its count of written rows; the statement has no rows of its own behind it.
        const result = await this.#insert(lease, statement.sql, Buffer.alloc(0));
        const summary = { written_rows: result.rowsWritten, written_bytes: result.bytesWritten };
        answer.ok(undefined, Buffer.alloc(0), {
          ...summary,
          read_rows: result.rowsWritten,
          read_bytes: result.bytesWritten,
        });
      } else {
        const format = formatClause(statement).format ?? call.defaultFormat;
        const result = await lease.query(statement.sql, format);
        answer.ok(statement.kind === 'read' ? format : undefined, result.bytes, {
          read_rows: result.rowsRead,
          read_bytes: result.bytesRead,
        });
      }
    } finally {
      await lease.release();
    }
  }

  async #select(call: Call, statement: Statement, lease: Lease): Promise<void> {
    const clause = formatClause(statement);
    const format = clause.format ?? call.defaultFormat;
    const after = clause.format === undefined ? `FORMAT ${format}` : statement.sql.slice(clause.outputAt);
    await call.answer.stream(
      format,
      lease.select(statement.sql.slice(0, clause.outputAt), after, format),
      call.running,
    );
  }

  /** KILL QUERY, answered from the server's own table: the engine would wait for ever for queries that have ended. */
  async #kill(call: Call, statement: Statement): Promise<void> {
    const { running } = call;
    const kill = readKill(statement);
    const lease = await this.#engine.lease('control', running, running.database, call.settings);
    let victims: Running[] = [];
    try {
      const table = await processRows(this.#running, lease, this.#engine);
      const { bytes } = await lease.query(
        `SELECT query_id FROM ${table} WHERE (${kill.condition}\n) FORMAT JSONEachRow`,
        'JSONEachRow',
      );
      const ids = bytes.toString().split('\n').filter(Boolean);
      victims = ids
        .map((line) => this.#running.byId((JSON.parse(line) as { query_id: string }).query_id))
        .filter((victim): victim is Running => victim !== undefined && victim !== running);
    } finally {
      await lease.release();
    }
    if (kill.mode !== 'TEST') for (const victim of victims) this.#running.cancel(victim);
    if (kill.mode === 'SYNC') await Promise.all(victims.map((victim) => victim.ended));
    const rows = victims.map((victim) => ({
      kill_status: kill.mode === 'SYNC' ? 'finished' : 'waiting',
      query_id: victim.queryId,
      user: victim.user,
      query: victim.query,
    }));
    const again = await this.#engine.lease('control', running, running.database, call.settings);
    try {
      const sql = `SELECT * FROM ${rowsAsTable(KILL_COLUMNS, rows)} FORMAT ${kill.format ?? call.defaultFormat}`;
      await this.#select(call, readStatement(sql), again);
    } finally {
      await again.release();
    }
  }
}

/** Reads the rest of a refused body for nobody, so that its connection can carry the next request. */
function discard(request: IncomingMessage): void {
  request.unpipe();
  request.resume();
  const timer = setTimeout(() => request.destroy(), DISCARD_MS);
  request.once('close', () => clearTimeout(timer));
  request.once('end', () => clearTimeout(timer));
}

function laneOf(statement: Statement): Lane {
  const [first, second] = statement.tokens;
  if (statement.readsProcesses) return 'control';
  if (statement.kind === 'select') return 'long';
  if (statement.kind === 'insert' && readInsert(statement.sql)?.source === 'select') return 'long';
  return isWord(first, 'OPTIMIZE', 'BACKUP', 'RESTORE') || (isWord(first, 'EXPLAIN') && second !== undefined)
    ? 'long'
    : 'short';
}

function refuseWhenReadOnly(call: Call): void {
  if (!call.readOnly) return;
  throw new ClickHouseFault(
    164,
    'READONLY',
    'Cannot execute query in readonly mode. For queries over HTTP, method GET implies readonly. You should use method POST for modifying queries.',
  );
}

/** The head of a body that is not all there yet may stop inside of a string: then it is no INSERT with rows. */
function tryReadInsert(text: string): InsertText | undefined {
  try {
    return readInsert(text);
  } catch (error) {
    if (asFault(error).code !== 62) throw error;
    return undefined;
  }
}

async function readAll(body: Body): Promise<Buffer> {
  const { data, size, end } = await body.read(MAX_SQL_BYTES + 1);
  if (!end && size > MAX_SQL_BYTES) {
    throw new ClickHouseFault(229, 'QUERY_IS_TOO_LARGE', `The query is longer than ${MAX_SQL_BYTES} bytes`);
  }
  return joined(data);
}

/** One piece stays what it is; only several are copied together. */
function joined(pieces: Buffer[]): Buffer {
  const some = pieces.filter((piece) => piece.length > 0);
  return some.length === 1 ? some[0]! : Buffer.concat(some);
}

function hasBody(request: IncomingMessage): boolean {
  return request.headers['transfer-encoding'] !== undefined || Number(request.headers['content-length'] ?? 0) > 0;
}

function header(request: IncomingMessage, name: string): string {
  const value = request.headers[name];
  return Array.isArray(value) ? value.join(',') : (value ?? '');
}

function flag(value: string | null): boolean {
  return value === '1' || value === 'true';
}

/** Any user is let in, since only this machine can reach the port; the name is shown in system.processes. */
function userOf(request: IncomingMessage, params: URLSearchParams): string {
  const basic = /^Basic\s+(\S+)/i.exec(request.headers.authorization ?? '')?.[1];
  const fromBasic = basic ? Buffer.from(basic, 'base64').toString().split(':')[0] : '';
  return header(request, 'x-clickhouse-user') || params.get('user') || fromBasic || 'default';
}

function paramsOf(params: URLSearchParams): Map<string, string> {
  const values = new Map<string, string>();
  for (const [name, value] of params) if (name.startsWith('param_')) values.set(name.slice('param_'.length), value);
  return values;
}

/** The settings among the URL's parameters. */
function settingsOf(params: URLSearchParams): Map<string, string> {
  const refused: Record<string, string> = {
    session_id: 'Sessions (session_id) are not supported by the embedded engine: send settings with each query',
    role: 'Roles are not supported by the embedded engine',
  };
  const settings = new Map<string, string>();
  for (const [name, value] of params) {
    if (refused[name]) throw new ClickHouseFault(48, 'NOT_IMPLEMENTED', refused[name]);
    if ((name === 'compress' || name === 'decompress') && flag(value)) {
      throw new ClickHouseFault(
        48,
        'NOT_IMPLEMENTED',
        `${name}=1 is not supported: use HTTP compression (enable_http_compression=1)`,
      );
    }
    if (!HTTP_PARAMS.has(name) && !name.startsWith('param_')) settings.set(name, value);
  }
  return settings;
}

/** True when `work` ended within the time. */
async function within(ms: number, work: Promise<void>): Promise<boolean> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<boolean>((done) => {
    timer = setTimeout(() => done(false), ms);
  });
  const result = await Promise.race([work.then(() => true), late]);
  clearTimeout(timer);
  return result;
}
