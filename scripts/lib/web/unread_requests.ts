/** Requests that cannot be read at all: node's own answer to them would lack the headers that every other one has. */
import { STATUS_CODES } from 'node:http';
import type { Duplex } from 'node:stream';

/** What a parser says, by its code; all else is 400. */
const REASONS: Record<string, { status: number; error: string }> = {
  HPE_HEADER_OVERFLOW: { status: 431, error: 'the path or the headers are too long' },
  ERR_HTTP_REQUEST_TIMEOUT: { status: 408, error: 'the request did not come whole in time' },
};
const UNREADABLE = { status: 400, error: 'this is no HTTP request' };

/** Says in one line what is wrong with the request, and closes the connection. */
export function refuseUnread(
  socket: Duplex,
  code: string | undefined,
  headers: Readonly<Record<string, string>>,
): void {
  const { status, error } = REASONS[code ?? ''] ?? UNREADABLE;
  const body = `${JSON.stringify({ error, field: 'request' })}\n`;
  const lines = Object.entries({
    ...headers,
    'cache-control': 'no-store',
    'content-type': 'application/json; charset=utf-8',
    'content-length': String(Buffer.byteLength(body)),
    connection: 'close',
  }).map(([name, value]) => `${name}: ${value}\r\n`);
  socket.end(`HTTP/1.1 ${status} ${STATUS_CODES[status]}\r\n${lines.join('')}\r\n${body}`, () => socket.destroy());
}
