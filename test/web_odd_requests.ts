/** Bytes that are no request, or hardly one: cut off, several at once, too long, ambiguous. */
import { connect } from 'node:net';

/** Who sends them waits so long at most for the end of the connection, ms. */
const END_MS = 10_000;

interface OddRequest {
  name: string;
  bytes: Buffer;
  /** Whoever sent it goes at once, and waits for no answer. */
  isLeft?: boolean;
}

interface Heads {
  status: number;
  names: string[];
}

const HOST = 'host: 127.0.0.1\r\n';
const CLOSE = 'connection: close\r\n';
const text = (...lines: string[]) => Buffer.from(`${lines.join('\r\n')}\r\n\r\n`, 'latin1');
const get = (path: string, ...more: string[]) => `GET ${path} HTTP/1.1\r\n${HOST}${more.join('')}\r\n`;

/** Each known kind once. @param token of the service */
export function oddRequests(token: string): OddRequest[] {
  const post = (more: string, body: string) =>
    `POST /api/monitoring/data-consistency/check HTTP/1.1\r\n${HOST}authorization: Bearer ${token}\r\ncontent-type: application/json\r\n${more}\r\n${body}`;
  const one = (name: string, request: string): OddRequest => ({ name, bytes: Buffer.from(request, 'latin1') });
  const left = (name: string, request: string): OddRequest => ({ ...one(name, request), isLeft: true });
  return [
    one('no host', 'GET /api/about HTTP/1.1\r\nconnection: close\r\n\r\n'),
    one('two hosts', `GET /api/about HTTP/1.1\r\n${HOST}host: evil.example\r\n${CLOSE}\r\n`),
    one('half a host', `GET /api/about HTTP/1.1\r\nhost: [\r\n${CLOSE}\r\n`),
    one('a wait for a body', post(`content-length: 2\r\nexpect: 100-continue\r\n${CLOSE}`, '{}')),
    one('HTTP/1.0', 'GET /api/about HTTP/1.0\r\n\r\n'),
    one('HTTP/2 by name', `GET /api/about HTTP/2.0\r\n${HOST}\r\n`),
    one('HTTP/0.9', 'GET /api/about\r\n\r\n'),
    one('TLS', '\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03'),
    one('HTTP/2', 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'),
    { name: 'no method of anybody', bytes: text('GOT /api/about HTTP/1.1', HOST.trim()) },
    one('CONNECT', `CONNECT evil.example:443 HTTP/1.1\r\n${HOST}${CLOSE}\r\n`),
    one('every path', `OPTIONS * HTTP/1.1\r\n${HOST}${CLOSE}\r\n`),
    one('as a proxy', `GET http://127.0.0.1/api/about?a=1 HTTP/1.1\r\n${HOST}${CLOSE}\r\n`),
    one('as a proxy to somebody else', `GET http://evil.example HTTP/1.1\r\n${HOST}${CLOSE}\r\n`),
    one('as a proxy to the monitor', `GET http://x@evil.example/api/monitoring/health HTTP/1.1\r\n${HOST}${CLOSE}\r\n`),
    one('a path without a slash', `GET api/about HTTP/1.1\r\n${HOST}${CLOSE}\r\n`),
    one('a fragment', get('/api/about#x', CLOSE)),
    one('bytes above 127', get('/api/market/trades?symbol=\xff\xfe', CLOSE)),
    one('a zero byte', get('/api/about\0', CLOSE)),
    one('dots', get('/api/../../../etc/passwd', CLOSE)),
    one('escaped dots', get('/assets/%2e%2e%2f%2e%2e%2fetc/passwd', CLOSE)),
    one('slashes', get(`/${'/'.repeat(5000)}`, CLOSE)),
    one('a long path', get(`/api/harvest/${'A'.repeat(14_000)}`, CLOSE)),
    one('a path that is too long', get(`/api/about?${'a'.repeat(100_000)}`, CLOSE)),
    one('too many headers', get('/api/about', ...Array.from({ length: 3000 }, (_, n) => `x-${n}: y\r\n`), CLOSE)),
    one(
      'a thousand parameters',
      get(`/api/about?${Array.from({ length: 1500 }, (_, n) => `p${n}=1`).join('&')}`, CLOSE),
    ),
    one('a header without a name', get('/api/about', ': x\r\n', CLOSE)),
    one('a header with a line feed', get('/api/about', 'x: a\n b: c\r\n', CLOSE)),
    one('an upgrade', get('/api/live', 'connection: upgrade\r\nupgrade: websocket\r\n').replace('live', 'about')),
    one('an expectation', get('/api/about', 'expect: nothing\r\n', CLOSE)),
    one('both lengths', post('content-length: 2\r\ntransfer-encoding: chunked\r\n', '2\r\n{}\r\n0\r\n\r\n')),
    one('two lengths', post('content-length: 2\r\ncontent-length: 3\r\n', '{}')),
    one('a negative length', post('content-length: -1\r\n', '{}')),
    one('a huge length', post('content-length: 99999999999999999999\r\n', '{}')),
    one('a length that is too long', post(`content-length: 1000000\r\n${CLOSE}`, '{}')),
    one('a wrong chunk', post('transfer-encoding: chunked\r\n', 'zz\r\n{}\r\n0\r\n\r\n')),
    one('another coding', post('transfer-encoding: gzip\r\n', '{}')),
    one(
      'a body for GET',
      `${get('/api/about', 'content-length: 5\r\ncontent-type: application/json\r\n', CLOSE)}{"a":`,
    ),
    one('several at once', `${get('/api/about').repeat(20)}${get('/api/nothing', CLOSE)}`),
    one('one and then noise', `${get('/api/market/trades?symbol=BTC-USDT')}\0\0\0\0\r\n\r\n`),
    left('cut off in its first line', 'GET /api/ab'),
    left('cut off in its headers', `GET /api/about HTTP/1.1\r\n${HOST}x: `),
    left('cut off in its body', post('content-length: 50\r\n', '{"type":')),
    left(
      'several at once, and gone',
      get('/api/market/candles?symbol=BTC-USDT&exchange=binance_spot&interval=1s').repeat(10),
    ),
    left('many listeners, and gone', get('/api/live').repeat(10)),
    left('a list, and gone', get('/api/market/trades?symbol=BTC-USDT&format=ndjson')),
  ];
}

/** A request with some of its bytes changed, left out or doubled. */
export function damaged(request: Buffer, random: () => number): Buffer {
  const bytes = [...request];
  for (let n = Math.floor(random() * 4); n >= 0; n -= 1) {
    const at = Math.floor(random() * bytes.length);
    const kind = random();
    if (kind < 0.5) bytes[at] = Math.floor(random() * 256);
    else if (kind < 0.75) bytes.splice(at, 1 + Math.floor(random() * 3));
    else bytes.splice(at, 0, ...bytes.slice(at, at + Math.floor(random() * 20)));
  }
  return Buffer.from(bytes);
}

/** Sends the bytes and nothing else, and reads to the end. @returns the heads of all answers; null: the connection was kept open */
export function sendOdd(
  port: number,
  { bytes, isLeft = false }: OddRequest,
): Promise<{ heads: Heads[]; text: string } | null> {
  return new Promise((done) => {
    const parts: Buffer[] = [];
    const socket = connect(port, '127.0.0.1');
    const finish = (isOver: boolean) => {
      clearTimeout(timer);
      socket.destroy();
      const got = Buffer.concat(parts).toString('latin1');
      done(isOver ? { heads: headsOf(got), text: got } : null);
    };
    const timer = setTimeout(() => finish(false), END_MS);
    socket.on('data', (chunk: Buffer) => parts.push(chunk));
    // Refused bytes are reset, too.
    socket.on('error', () => undefined);
    socket.on('close', () => finish(true));
    socket.on('connect', () => {
      if (isLeft) socket.write(bytes, () => setTimeout(() => socket.destroy(), 5));
      else socket.end(bytes);
    });
  });
}

function headsOf(got: string): Heads[] {
  return [...got.matchAll(/HTTP\/1\.[01] (\d{3})[^\r\n]*\r\n((?:[^\r\n]+\r\n)*)\r\n/g)].map(([, status, lines]) => ({
    status: Number(status),
    names: lines!.split('\r\n').map((line) => line.slice(0, line.indexOf(':')).toLowerCase()),
  }));
}
