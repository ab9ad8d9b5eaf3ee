/** Answers as ClickHouse's HTTP interface gives them: headers, compression, errors before and after the first byte. */
import { randomBytes } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import type { Writable } from 'node:stream';
import * as zlib from 'node:zlib';
import type { QueryResult } from './engine.ts';
import { type ClickHouseFault, ClientGone, faultText, httpStatus } from './faults.ts';
import type { Running } from './running.ts';

/** So much of a result is held back, so that an error that comes early still gets its own HTTP status. */
const HOLD_BYTES = 256 * 1024;

/** With wait_end_of_query=1 a result up to this size is held back whole. */
const HOLD_WHOLE_BYTES = 64 * 1024 * 1024;

/** A reader that takes no byte for this long has gone: its session is worth more. */
const SEND_TIMEOUT_MS = 300_000;

/** Announced to clients, who close idle sockets before it (the official one after 2.5 s). */
export const KEEP_ALIVE_SECONDS = 10;

export interface Summary {
  read_rows: number;
  read_bytes: number;
  written_rows: number;
  written_bytes: number;
}

export interface AnswerOptions {
  queryId: string;
  version: string;
  timezone: string;
  /** wait_end_of_query: nothing is sent before the end. */
  whole: boolean;
  /** enable_http_compression. */
  compress: boolean;
}

/** The encoding that both sides want, if any. */
function encodingFor(request: IncomingMessage): 'gzip' | 'deflate' | 'br' | undefined {
  const accepted = String(request.headers['accept-encoding'] ?? '')
    .split(',')
    .map((part) => part.trim().split(';'))
    .filter(([, quality]) => !/q=0(\.0*)?$/.test(quality?.trim() ?? ''))
    .map(([name]) => name!.trim().toLowerCase());
  return (['br', 'gzip', 'deflate'] as const).find((encoding) => accepted.includes(encoding));
}

/** Content type of a format, as its writer in ClickHouse tells it. */
export function contentType(format: string): string {
  if (/^(JSON.*EachRow|JSONLines|NDJSON)/.test(format) && format !== 'JSONObjectEachRow') {
    return 'application/x-ndjson; charset=UTF-8';
  }
  if (format.startsWith('JSON')) return 'application/json; charset=UTF-8';
  if (format.startsWith('CSV'))
    return `text/csv; charset=UTF-8; header=${format.includes('WithNames') ? 'present' : 'absent'}`;
  if (/^(TSV|TabSeparated|TSKV)/.test(format)) return 'text/tab-separated-values; charset=UTF-8';
  if (format === 'XML') return 'application/xml; charset=UTF-8';
  if (/^(Pretty|Vertical|Values|SQLInsert|Markdown|Null|PostgreSQLWire)/.test(format))
    return 'text/plain; charset=UTF-8';
  return 'application/octet-stream';
}

/** One answer to one request. */
export class Answer {
  readonly #request: IncomingMessage;
  readonly #response: ServerResponse;
  readonly #options: AnswerOptions;
  readonly #tag = randomBytes(8).toString('hex');
  readonly #startedAt = process.hrtime.bigint();
  #out: Writable | undefined;
  bytesSent = 0;

  constructor(request: IncomingMessage, response: ServerResponse, options: AnswerOptions) {
    this.#request = request;
    this.#response = response;
    this.#options = options;
  }

  #headers(type: string, summary: Partial<Summary>): Record<string, string> {
    const counted = {
      read_rows: 0,
      read_bytes: 0,
      written_rows: 0,
      written_bytes: 0,
      total_rows_to_read: 0,
      result_rows: 0,
      result_bytes: 0,
    };
    const elapsed = (process.hrtime.bigint() - this.#startedAt).toString();
    const texts = Object.entries({ ...counted, ...summary }).map(([name, value]) => [name, String(value)]);
    return {
      'Content-Type': type,
      'X-ClickHouse-Server-Display-Name': 'marketprism-embedded',
      'X-ClickHouse-Query-Id': this.#options.queryId,
      'X-ClickHouse-Timezone': this.#options.timezone,
      'X-ClickHouse-Exception-Tag': this.#tag,
      'X-ClickHouse-Summary': JSON.stringify({ ...Object.fromEntries(texts), elapsed_ns: elapsed }),
      'Keep-Alive': `timeout=${KEEP_ALIVE_SECONDS}`,
    };
  }

  #start(format: string | undefined, summary: Partial<Summary>): Writable {
    const headers = this.#headers(format === undefined ? 'text/plain; charset=UTF-8' : contentType(format), summary);
    if (format !== undefined) headers['X-ClickHouse-Format'] = format;
    const encoding = this.#options.compress ? encodingFor(this.#request) : undefined;
    if (encoding) headers['Content-Encoding'] = encoding;
    this.#response.writeHead(200, headers);
    if (!encoding) {
      this.#out = this.#response;
      return this.#response;
    }
    // Level 3 as ClickHouse (http_zlib_compression_level): speed over the last percent.
    const encoder =
      encoding === 'br'
        ? zlib.createBrotliCompress({ params: { [zlib.constants.BROTLI_PARAM_QUALITY]: 3 } })
        : encoding === 'gzip'
          ? zlib.createGzip({ level: 3 })
          : zlib.createDeflate({ level: 3 });
    encoder.on('error', () => this.#response.destroy());
    encoder.pipe(this.#response);
    this.#out = encoder;
    return encoder;
  }

  /** A short result, or none. */
  ok(format: string | undefined, body: Buffer, summary: Partial<Summary>): void {
    this.bytesSent += body.length;
    this.#start(format, summary).end(body);
  }

  /**
   * Passes a result on at the reader's pace.
   * @throws ClientGone when the reader went away; the caller stops the query then.
   * @throws ClickHouseFault when the query failed; if bytes were sent, the reader has been told by `broken`.
   */
  async stream(
    format: string,
    result: { stream: Socket; done: Promise<QueryResult> },
    running: Running,
  ): Promise<void> {
    const { stream, done } = result;
    const hold = this.#options.whole ? HOLD_WHOLE_BYTES : HOLD_BYTES;
    const held: Buffer[] = [];
    let heldBytes = 0;
    let gone = this.#response.destroyed;
    let stalled: NodeJS.Timeout | undefined;
    const goOn = () => {
      clearTimeout(stalled);
      stream.resume();
    };
    // The pipe is read to its end even for nobody: without a reader the engine would stand still for ever in opening it,
    // where no KILL reaches it.
    const onClose = () => {
      gone = true;
      goOn();
    };
    this.#response.on('close', onClose);
    const write = (out: Writable, data: Buffer) => {
      this.bytesSent += data.length;
      if (out.write(data) || gone || running.cancelled) return;
      stream.pause();
      stalled = setTimeout(() => this.#response.destroy(), SEND_TIMEOUT_MS);
      out.once('drain', goOn);
    };
    // A cancelled query may stand still in a write to the full pipe: it ends only when somebody reads on.
    const beforeCancel = running.onCancel;
    running.onCancel = () => {
      beforeCancel();
      goOn();
    };
    stream.on('data', (data: Buffer) => {
      if (gone || running.cancelled) return;
      if (this.#out) {
        write(this.#out, data);
        return;
      }
      held.push(data);
      heldBytes += data.length;
      if (heldBytes > hold) write(this.#start(format, {}), Buffer.concat(held.splice(0)));
    });
    stream.on('error', () => stream.destroy());
    const drained = new Promise<void>((closed) => stream.once('close', () => closed()));
    if (gone) onClose();
    try {
      const figures = await done;
      await drained;
      if (gone) throw new ClientGone('the reader went away');
      if (this.#out) this.#out.end();
      else this.ok(format, Buffer.concat(held), { read_rows: figures.rowsRead, read_bytes: figures.bytesRead });
    } finally {
      stream.resume();
      stream.destroy();
      await drained;
      clearTimeout(stalled);
      this.#response.off('close', onClose);
    }
  }

  /** Tells an error: with its own status when nothing was sent, else at the end of the stream, whose connection then breaks. */
  fail(fault: ClickHouseFault): void {
    const text = faultText(fault, this.#options.version);
    if (!this.#response.headersSent) {
      this.#response.writeHead(httpStatus(fault.code), {
        ...this.#headers('text/plain; charset=UTF-8', {}),
        'X-ClickHouse-Exception-Code': String(fault.code),
      });
      this.#response.end(text);
      return;
    }
    const out = this.#out;
    if (!out || out.destroyed) {
      this.#response.destroy();
      return;
    }
    const block = `\r\n__exception__\r\n${this.#tag}\r\n${text}${Buffer.byteLength(text)} ${this.#tag}\r\n__exception__\r\n`;
    // The final chunk is never sent, so that no reader can take this for a complete result.
    const cut = () => setTimeout(() => this.#response.socket?.destroySoon(), 0);
    if (out instanceof zlib.Gzip || out instanceof zlib.Deflate || out instanceof zlib.BrotliCompress) {
      out.write(block);
      (out as zlib.Gzip).flush(cut);
    } else {
      out.write(block, cut);
    }
  }
}
