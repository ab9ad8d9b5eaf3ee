/** Request bodies: decompressed, complete or refused, and never more of them in memory than the budget allows. */
import type { IncomingMessage } from 'node:http';
import type { Readable } from 'node:stream';
import * as zlib from 'node:zlib';
import { ClickHouseFault, ClientGone } from './faults.ts';
import { cancelledFault, type Running } from './running.ts';

/** A body on which no byte arrives for this long is given up, as by ClickHouse (http_receive_timeout). */
const RECEIVE_TIMEOUT_MS = 30_000;

/**
 * Bytes of all bodies in memory. A reader that finds it used up waits, so that its socket fills and its client waits too. One
 * body at a time may go on beyond it: otherwise several half-read ones could wait for each other for ever.
 */
export class Budget {
  #used = 0;
  #beyond: object | undefined;
  #waiting: { owner: object; bytes: number; go: () => void }[] = [];

  constructor(readonly limit: number) {}

  get used(): number {
    return this.#used;
  }

  /** Counts `bytes` for `owner`, when there is room. */
  async take(owner: object, bytes: number): Promise<void> {
    if (this.#fits(owner, bytes)) {
      this.#used += bytes;
      return;
    }
    await new Promise<void>((go) => this.#waiting.push({ owner, bytes, go }));
  }

  #fits(owner: object, bytes: number): boolean {
    if (this.#used + bytes <= this.limit || this.#beyond === owner) return true;
    if (this.#beyond !== undefined) return false;
    this.#beyond = owner;
    return true;
  }

  /** Gives bytes back; `last` when the owner takes no more. */
  give(owner: object, bytes: number, last: boolean): void {
    this.#used -= bytes;
    if (last && this.#beyond === owner) this.#beyond = undefined;
    this.#waiting = this.#waiting.filter((waiter) => {
      if (!this.#fits(waiter.owner, waiter.bytes)) return true;
      this.#used += waiter.bytes;
      waiter.go();
      return false;
    });
  }
}

/** Reads one request's body in pieces. */
export class Body {
  readonly #request: IncomingMessage;
  readonly #budget: Budget;
  readonly #pieces: AsyncIterator<Buffer>;
  #held = 0;
  #done = false;
  /** Bytes as they came over the wire are not known to zlib: this counts what was decompressed. */
  bytes = 0;

  constructor(request: IncomingMessage, budget: Budget, running: Running) {
    this.#request = request;
    this.#budget = budget;
    this.#pieces = pieces(request, running)[Symbol.asyncIterator]();
  }

  /**
   * The next pieces until at least `wanted` bytes or the end; `end` tells that the body is complete.
   * @throws ClientGone when the connection closed before the end; ClickHouseFault on a damaged body or a cancel.
   */
  async read(wanted: number): Promise<{ data: Buffer[]; size: number; end: boolean }> {
    const data: Buffer[] = [];
    let size = 0;
    while (size < wanted && !this.#done) {
      const next = await this.#pieces.next();
      if (next.done) {
        this.#done = true;
        if (!this.#request.complete) throw new ClientGone('the request ended early');
        break;
      }
      await this.#budget.take(this, next.value.length);
      this.#held += next.value.length;
      this.bytes += next.value.length;
      size += next.value.length;
      data.push(next.value);
    }
    return { data, size, end: this.#done };
  }

  /** Bytes that were read and not freed. */
  get held(): number {
    return this.#held;
  }

  /** Tells that `bytes` of what was read are in memory no more. */
  free(bytes: number): void {
    this.#held -= bytes;
    this.#budget.give(this, bytes, false);
  }

  /** Gives everything back. */
  close(): void {
    this.#budget.give(this, this.#held, true);
    this.#held = 0;
  }
}

/**
 * The decompressed body. It ends normally only when the HTTP message and its compressed stream are complete.
 */
async function* pieces(request: IncomingMessage, running: Running): AsyncGenerator<Buffer> {
  const source = decompressed(request);
  let wake: () => void = () => {};
  let fault: Error | undefined;
  const stop = (error: Error) => {
    fault ??= error;
    wake();
  };
  if (running.cancelled) throw cancelledFault();
  const before = running.onCancel;
  running.onCancel = () => {
    before();
    stop(cancelledFault());
  };
  request.on('close', () => {
    if (!request.readableEnded) stop(new ClientGone('the connection closed before the body was read to its end'));
  });
  request.on('error', () => stop(new ClientGone('the connection failed before the body was complete')));
  source.on('error', (error: NodeJS.ErrnoException) =>
    stop(
      source === request
        ? new ClientGone(error.message)
        : new ClickHouseFault(
            354,
            'ZLIB_INFLATE_FAILED',
            `The compressed body is damaged or cut off: ${error.message}`,
          ),
    ),
  );
  source.on('readable', () => wake());
  source.on('end', () => wake());
  try {
    while (true) {
      if (fault) throw fault;
      const piece = source.read() as Buffer | null;
      if (piece) {
        yield piece;
        continue;
      }
      if (source.readableEnded) return;
      const timer = setTimeout(
        () => stop(new ClickHouseFault(209, 'SOCKET_TIMEOUT', 'Timeout: no byte of the body arrived for 30 s')),
        RECEIVE_TIMEOUT_MS,
      );
      await new Promise<void>((go) => {
        wake = go;
        if (fault || source.readableEnded || source.readableLength > 0) go();
      });
      clearTimeout(timer);
    }
  } finally {
    running.onCancel = before;
  }
}

function decompressed(request: IncomingMessage): Readable {
  const encoding = (request.headers['content-encoding'] ?? 'identity').toLowerCase();
  const decoder = {
    gzip: zlib.createGunzip,
    'x-gzip': zlib.createGunzip,
    deflate: zlib.createInflate,
    br: zlib.createBrotliDecompress,
  }[encoding];
  if (encoding === 'identity' || encoding === '') return request;
  if (!decoder) {
    throw new ClickHouseFault(
      89,
      'UNKNOWN_COMPRESSION_METHOD',
      `Unknown compression method: ${encoding} (gzip, deflate or br)`,
    );
  }
  return request.pipe(decoder());
}

/** The parts of a multipart/form-data body: name → text. */
export function multipartFields(contentType: string, body: Buffer): Map<string, string> {
  const boundary = /boundary="?([^";]+)"?/i.exec(contentType)?.[1];
  if (!boundary) throw new ClickHouseFault(36, 'BAD_ARGUMENTS', 'multipart/form-data without a boundary');
  const fields = new Map<string, string>();
  const text = body.toString('latin1');
  for (const part of `\r\n${text}`.split(`\r\n--${boundary}`).slice(1)) {
    if (part.startsWith('--')) break;
    const split = part.indexOf('\r\n\r\n');
    const name = /name="([^"]*)"/i.exec(part.slice(0, Math.max(0, split)))?.[1];
    if (split < 0 || name === undefined)
      throw new ClickHouseFault(36, 'BAD_ARGUMENTS', 'a multipart part without a name');
    if (name !== 'query' && !name.startsWith('param_')) {
      throw new ClickHouseFault(
        48,
        'NOT_IMPLEMENTED',
        `External data (part "${name}") is not supported by the embedded engine`,
      );
    }
    fields.set(name, Buffer.from(part.slice(split + 4), 'latin1').toString('utf8'));
  }
  return fields;
}

/** Formats in which a line is a row, and how many header lines come first; only these can be cut into several inserts. */
const LINE_FORMATS: ReadonlyMap<string, number> = new Map([
  ...[
    'JSONEachRow',
    'JSONLines',
    'NDJSON',
    'JSONCompactEachRow',
    'JSONStringsEachRow',
    'JSONCompactStringsEachRow',
  ].map((name) => [name, 0] as const),
  ...['TSV', 'TabSeparated', 'TSVRaw', 'TabSeparatedRaw', 'TSKV', 'CSV'].map((name) => [name, 0] as const),
  ...['TSVWithNames', 'TabSeparatedWithNames', 'CSVWithNames', 'JSONCompactEachRowWithNames'].map(
    (name) => [name, 1] as const,
  ),
  ...[
    'TSVWithNamesAndTypes',
    'TabSeparatedWithNamesAndTypes',
    'CSVWithNamesAndTypes',
    'JSONCompactEachRowWithNamesAndTypes',
  ].map((name) => [name, 2] as const),
]);

/** Formats that the engine reads as one document. */
const DOCUMENT_FORMATS = new Set([
  'JSON',
  'JSONCompact',
  'JSONObjectEachRow',
  'JSONColumns',
  'JSONCompactColumns',
  'JSONColumnsWithMetadata',
]);

/**
 * The header lines of a text insert format.
 * @returns undefined when bodies in it cannot be cut
 * @throws ClickHouseFault for formats that the embedded engine does not take.
 */
export function insertFormat(name: string): number | undefined {
  const lines = LINE_FORMATS.get(name);
  if (lines !== undefined) return lines;
  if (DOCUMENT_FORMATS.has(name)) return undefined;
  throw new ClickHouseFault(
    48,
    'NOT_IMPLEMENTED',
    `The embedded engine takes inserts in text formats only (JSONEachRow, JSONCompactEachRow, TabSeparated, CSV, …), not in ${name}`,
  );
}

/**
 * Where the last whole row in `data` ends. In CSV a line end inside quotes is no row's end.
 * @returns the offset behind it, or 0 when there is none.
 */
export function lastRowEnd(format: string, data: Buffer): number {
  if (!format.startsWith('CSV')) return data.lastIndexOf(0x0a) + 1;
  let quoted = false;
  let end = 0;
  for (let i = 0; i < data.length; i++) {
    const byte = data[i];
    if (byte === 0x22) quoted = !quoted;
    else if (byte === 0x0a && !quoted) end = i + 1;
  }
  return end;
}

/** The first `lines` lines, which name the columns of each further piece. */
export function headerOf(lines: number, data: Buffer): Buffer {
  let end = 0;
  for (let i = 0; i < lines; i++) end = data.indexOf(0x0a, end) + 1;
  return data.subarray(0, end);
}
