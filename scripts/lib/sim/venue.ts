/**
 * What every simulated exchange shares: the listener, its sockets, and the way a frame takes to its subscribers.
 *
 * A new exchange is one file with a `Venue`: its REST answers, its conversation on a socket, and how market events become
 * its frames.
 */
import {
  createServer,
  type IncomingHttpHeaders,
  type IncomingMessage,
  type Server,
  type ServerResponse,
} from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Duplex } from 'node:stream';
import { type RawData, WebSocket, WebSocketServer } from 'ws';
import { OperatorError } from '../cli.ts';
import { KEEP_ALIVE_MS } from '../keep_alive.ts';
import { type DataKind, Faults } from './faults.ts';
import type { KeyLedger, Ledger, SampleCounter } from './ledger.ts';

/** A reader that leaves this much unread is closed, as exchanges do; it also bounds our memory. */
const MAX_UNREAD_BYTES = 16 * 2 ** 20;
/** Requests of clients are short; anything longer is no conversation. */
const MAX_MESSAGE_BYTES = 64 * 1024;
/** A socket is closed after a day, whatever it does. */
const SOCKET_LIFE_MS = 24 * 3_600_000;
/** Heartbeats are looked at this often, or four times per interval where that is more. */
const HEARTBEAT_CHECK_MS = 1000;

/** What a proxy says for an exchange that is not there. */
const UNAVAILABLE: RestAnswer = {
  status: 503,
  body: '<html><head><title>503 Service Temporarily Unavailable</title></head><body><center><h1>503 Service Temporarily Unavailable</h1></center></body></html>',
  headers: { 'content-type': 'text/html' },
};

/** The rules of a venue's connections. */
export interface ConnectionRules {
  readonly pingEveryMs: number;
  readonly pongWithinMs: number;
  /** Messages, pings and pongs of a client per second; one more closes the connection. */
  readonly incomingPerSecond: number;
  readonly streamsPerConnection: number;
}

export interface RestRequest {
  readonly method: string;
  readonly path: string;
  readonly query: URLSearchParams;
  /** As sent; empty without one. */
  readonly body: string;
  /** Path and query as they were sent: what a signature is over. */
  readonly target?: string;
  /** By their names in lower case. */
  readonly headers?: IncomingHttpHeaders;
}

export interface RestAnswer {
  readonly status: number;
  readonly body: string;
  readonly headers?: Record<string, string>;
}

/** A request's weight counts before it is answered. */
export interface Weighed {
  readonly weight: number;
  /** Where another limit holds than the weight's: counts the request; when it is one too many, the seconds to wait. */
  readonly overLimit?: (now: number) => number | null;
  readonly answer: () => RestAnswer;
}

/** The conversation on one socket. */
export interface Session {
  message(text: string): void;
  closed(): void;
  /** Looked at each second: the venue's heartbeat above the one of WebSocket. False: the client is given up. */
  alive?(now: number): boolean;
  /** The venue's clock leapt by that much, which is no silence of the client's: moves what `alive` compares with. */
  shift?(ms: number): void;
}

export interface Venue {
  readonly exchange: string;
  readonly rules: ConnectionRules;
  rest(request: RestRequest): RestAnswer;
  /** The venue's own answer when it refuses: rate limit, ban, firewall. */
  refusal(status: number, retryAfter: number): RestAnswer;
  /** The venue's own answer while it is away; absent where what stands before it answers. */
  unavailable?(): RestAnswer;
  hasSocketPath(path: string): boolean;
  /** Opens the conversation of a new socket on such a path. */
  open(peer: Peer, url: URL): Session;
  /** A coin leaves BTC, which it follows, from a time on (ms) until another or until further notice; absent where nothing does. False: no such coin. */
  leaveBase?(symbol: string, from: number, to: number | null): boolean;
  joinBase?(symbol: string, at: number): boolean;
  /** The notice before a planned close, as this socket would get it. */
  shutdownNotice(peer: Peer): string;
  /** Frames that no client can use: cut off, not JSON, of a wrong shape. */
  garbage(place: number): string;
  /** Lets the market run up to now. */
  advance(now: number): void;
  /** Ends or resumes production; the sockets stay open. */
  stop(): void;
  start(now: number): void;
  /** Null where nothing is replayed. */
  replayDone(): boolean | null;
}

/** A server's text frame as one-byte characters, header included: written once, copied to every subscriber. */
export function encodeFrame(text: string): string {
  const size = text.length;
  if (size < 126) return `\x81${String.fromCharCode(size)}${text}`;
  if (size < 65_536) return `\x81\x7e${String.fromCharCode(size >> 8, size & 255)}${text}`;
  const bytes = [24, 16, 8, 0].map((shift) => (size >>> shift) & 255);
  return `\x81\x7f\0\0\0\0${String.fromCharCode(...bytes)}${text}`;
}

/**
 * One client's socket. Data frames are gathered and written as one piece per tick, around the socket library: a write per
 * frame would cost more than making the frame.
 */
export class Peer {
  /** True when data comes as `{"stream":…,"data":…}`. */
  combined = false;
  session: Session | null = null;
  private openedAt: number;
  private batch = '';
  private arrivals: number[] = [];
  private pingedAt: number;
  private awaiting: string | null = null;
  /** More than this left unread, in bytes, closes the connection. */
  private mayLag = MAX_UNREAD_BYTES;
  private isCatchingUp = false;

  constructor(
    private readonly socket: WebSocket,
    private readonly transport: Duplex,
    private readonly ledger: Ledger,
    now: number,
  ) {
    this.openedAt = now;
    this.pingedAt = now;
  }

  get open(): boolean {
    return this.socket.readyState === WebSocket.OPEN;
  }

  get unread(): number {
    return this.transport.writableLength;
  }

  /** Answers at once; for acknowledgements and notices. */
  answer(text: string): void {
    if (this.open) this.socket.send(text);
  }

  /** Adds an encoded frame to the next write. */
  push(frame: string): void {
    this.batch += frame;
    this.ledger.counters.frames++;
    this.ledger.counters.bytes += frame.length;
  }

  /** Writes what was pushed. A reader that is too far behind is closed. */
  flush(): void {
    if (this.batch === '') return;
    const batch = this.batch;
    this.batch = '';
    if (!this.open) return;
    this.transport.write(batch, 'latin1');
    if (this.unread > this.mayLag) {
      this.ledger.counters.closed_slow++;
      this.socket.terminate();
    }
  }

  /** Calls back once everything written so far was taken by the reader's end of the line. */
  onceDrained(callback: () => void): void {
    this.transport.once('drain', callback);
  }

  /** True when the writer should wait for `onceDrained`. */
  get full(): boolean {
    return this.transport.writableNeedDrain;
  }

  /** From here to `endLeap` the reader has no chance to read, and cannot be too far behind. */
  beginLeap(): void {
    this.mayLag = Number.POSITIVE_INFINITY;
  }

  /** The venue's clock leapt by `ms`: for this connection that is no time, and what is unread now does not count against it. */
  endLeap(ms: number): void {
    this.openedAt += ms;
    this.pingedAt += ms;
    this.session?.shift?.(ms);
    this.mayLag = MAX_UNREAD_BYTES + this.unread;
    if (this.isCatchingUp || !this.full) return;
    this.isCatchingUp = true;
    this.onceDrained(() => {
      this.isCatchingUp = false;
      this.mayLag = MAX_UNREAD_BYTES;
    });
  }

  /** True when the connection has lived as long as one may. */
  isOld(now: number): boolean {
    return now - this.openedAt >= SOCKET_LIFE_MS;
  }

  /** Counts one incoming message; false when it is one too many for the last second. */
  mayTalk(now: number, perSecond: number): boolean {
    this.arrivals = this.arrivals.filter((at) => now - at < 1000);
    this.arrivals.push(now);
    return this.arrivals.length <= perSecond;
  }

  ponged(payload: string): void {
    if (payload === this.awaiting) this.awaiting = null;
  }

  /** Pings when it is time. False when the answer to the last ping is overdue. */
  heartbeat(now: number, rules: ConnectionRules): boolean {
    if (this.awaiting !== null && now - this.pingedAt >= rules.pongWithinMs) return false;
    if (this.awaiting === null && now - this.pingedAt >= rules.pingEveryMs && this.open) {
      this.pingedAt = now;
      this.awaiting = String(Math.floor(now));
      this.socket.ping(this.awaiting);
    }
    return true;
  }

  /** Ends the connection: with a close frame where a code is given, else by cutting the line. */
  close(code?: number, reason = ''): void {
    if (code === undefined) this.socket.terminate();
    else this.socket.close(code, reason);
  }
}

/** What a frame is accounted for by: one key, or one of each row that a venue packs into it. */
export type FrameKey = number | readonly number[];

/** One stream of a venue: its name on the wire, what its frames are, and who reads it. */
export interface Topic {
  readonly name: string;
  readonly kind: DataKind;
  readonly symbol: string;
  /** Absent for frames that have no key to account for: these are only counted. */
  readonly ledger: KeyLedger | null;
  readonly counter: SampleCounter;
  readonly subscribers: Set<Peer>;
  held: { key: FrameKey; text: string } | null;
}

/** The way of the frames of one exchange to its subscribers, faults included. */
export class Wire {
  readonly faults: Faults;
  readonly peers = new Set<Peer>();

  constructor(
    readonly ledger: Ledger,
    readonly clock: () => number,
  ) {
    this.faults = new Faults(clock);
  }

  /** Topics of one name share their subscribers: a stream of several symbols is a topic for each. */
  topic(
    name: string,
    kind: DataKind,
    symbol: string,
    ledger: KeyLedger | null,
    { subscribers = new Set(), counter = 'book_tickers' }: Partial<Pick<Topic, 'subscribers' | 'counter'>> = {},
  ): Topic {
    return { name, kind, symbol, ledger, counter, subscribers, held: null };
  }

  /** Sends one frame's payload to the topic's subscribers. Callers skip making the text when there are none. */
  publish(topic: Topic, key: FrameKey, text: string): void {
    // The frame after a held one is its partner, and no business of another fault.
    const mayFail = !this.faults.idle && topic.held === null;
    const verdict = mayFail ? this.faults.verdict(topic.symbol, topic.kind) : 'send';
    if (verdict === 'withhold') {
      for (const each of keysOf(key)) topic.ledger?.withhold(each);
      return;
    }
    if (verdict === 'hold') {
      topic.held = { key, text };
      return;
    }
    this.deliver(topic, key, text);
    if (verdict === 'twice') {
      this.deliver(topic, null, text);
      this.ledger.counters.repeated++;
    }
    if (topic.held !== null) {
      this.ledger.counters.reordered++;
      this.release(topic);
    }
  }

  /** Sends a frame that waits for its successor. */
  release(topic: Topic): void {
    const { held } = topic;
    topic.held = null;
    if (held) this.deliver(topic, held.key, held.text);
  }

  /** Writes everything gathered since the last time. */
  flush(): void {
    for (const peer of this.peers) peer.flush();
  }

  private deliver(topic: Topic, key: FrameKey | null, text: string): void {
    let raw: string | undefined;
    let combined: string | undefined;
    let isWritten = false;
    for (const peer of topic.subscribers) {
      if (!peer.open) continue;
      if (peer.combined) peer.push((combined ??= encodeFrame(`{"stream":"${topic.name}","data":${text}}`)));
      else peer.push((raw ??= encodeFrame(text)));
      isWritten = true;
    }
    if (!isWritten || key === null) return;
    if (!topic.ledger) this.ledger.counters[topic.counter]++;
    else if (typeof key === 'number') topic.ledger.record(key);
    else for (const each of key) topic.ledger.record(each);
  }
}

function keysOf(key: FrameKey): readonly number[] {
  return typeof key === 'number' ? [key] : key;
}

/** An instrument as a venue lists it. */
export interface Listed {
  /** The common name, such as BTC-USDT, and the venue's own. */
  readonly symbol: string;
  readonly instrument: string;
  readonly base: string;
  readonly quote: string;
  readonly tickSize: string;
  readonly stepSize: string;
  readonly pricePrecision: number;
  readonly quantityPrecision: number;
}

export type Level = readonly [price: string, quantity: string];

export interface BookSnapshot {
  readonly lastUpdateId: number;
  /** When it was sent, and when the matching engine last changed it. */
  readonly time: number;
  readonly changedAt: number;
  readonly bids: readonly Level[];
  readonly asks: readonly Level[];
}

/** A trade, or several of one taker order at one price: then `first` to `last` are its trades. */
export interface TradeRow {
  readonly id: number;
  readonly first: number;
  readonly last: number;
  readonly price: string;
  readonly quantity: string;
  readonly time: number;
  readonly buyerIsMaker: boolean;
}

/** Where a venue's data comes from: a seeded market or a recorded session. */
/** A candle as texts; `quantity` in base units, `worth` in quote units. */
export interface CandleRow {
  readonly start: number;
  readonly open: string;
  readonly high: string;
  readonly low: string;
  readonly close: string;
  readonly quantity: string;
  readonly worth: string;
  readonly trades: number;
}

export interface Source {
  readonly listed: readonly Listed[];
  /** True when a stream is served on whichever route it is asked for. */
  readonly servesAnyRoute: boolean;
  subscribe(peer: Peer, stream: string): void;
  unsubscribe(peer: Peer, stream: string): void;
  leave(peer: Peer): void;
  /** The book, or the text of a recorded answer to be given as it is. */
  book(instrument: string, limit: number): BookSnapshot | string;
  /** Ascending from `fromId`, or the newest. */
  trades(instrument: string, fromId: number | undefined, limit: number): TradeRow[];
  aggregates(instrument: string, fromId: number | undefined, limit: number): TradeRow[];
  /** Candles by open time, oldest first; absent where only a recording is served. */
  candles?(instrument: string, width: number, from: number, to: number): CandleRow[];
  /** The answer to a request for what is neither book nor trades; absent where there is nothing of the kind. */
  readings?(request: RestRequest): Weighed | undefined;
  advance(now: number): void;
  stop(): void;
  start(now: number): void;
  done(): boolean | null;
}

export interface Served {
  readonly port: number;
  close(): Promise<void>;
}

/** Listens for one venue on the loopback interface, WebSocket and REST on the same port; 0: a free one. @throws OperatorError when it is in use */
export async function serve(venue: Venue, wire: Wire, wanted: number): Promise<Served> {
  const sockets = new WebSocketServer({ noServer: true, perMessageDeflate: false, maxPayload: MAX_MESSAGE_BYTES });
  const http = createServer({ keepAliveTimeout: KEEP_ALIVE_MS }, (request, response) =>
    answerRest(venue, wire, request, response),
  );
  http.on('upgrade', (request: IncomingMessage, transport: Duplex, head: Buffer) => {
    transport.on('error', () => transport.destroy());
    const url = urlOf(request);
    if (!url || !venue.hasSocketPath(url.pathname)) {
      transport.end('HTTP/1.1 404 Not Found\r\nconnection: close\r\ncontent-length: 0\r\n\r\n');
      return;
    }
    sockets.handleUpgrade(request, transport, head, (socket) => converse(venue, wire, socket, transport, url));
  });
  const heartbeat = setInterval(
    () => checkPeers(venue, wire),
    Math.min(HEARTBEAT_CHECK_MS, venue.rules.pingEveryMs / 4, venue.rules.pongWithinMs / 4),
  );
  const port = await listen(http, wanted);
  return {
    port,
    close: async () => {
      clearInterval(heartbeat);
      for (const peer of wire.peers) peer.close();
      await closeServer(http);
    },
  };
}

/** Starts to listen on loopback; 0: any free port. @returns the port @throws OperatorError when it is in use */
export function listen(server: Server, port: number): Promise<number> {
  return new Promise((done, failed) => {
    server.once('error', (error: NodeJS.ErrnoException) => {
      const inUse = `port ${port} on 127.0.0.1 is in use: choose another --port, or 0 for a free one`;
      failed(error.code === 'EADDRINUSE' ? new OperatorError(inUse) : error);
    });
    server.listen(port, '127.0.0.1', () => {
      server.removeAllListeners('error');
      done((server.address() as AddressInfo).port);
    });
  });
}

/** Stops a server and cuts what is still connected. */
export function closeServer(server: Server): Promise<void> {
  return new Promise((done) => {
    server.close(() => done());
    server.closeAllConnections();
  });
}

/** The address asked for; undefined when it is none, such as `//`. */
export function urlOf(request: IncomingMessage): URL | undefined {
  const text = `http://localhost${request.url ?? '/'}`;
  return URL.canParse(text) ? new URL(text) : undefined;
}

function answerRest(venue: Venue, wire: Wire, request: IncomingMessage, response: ServerResponse): void {
  const url = urlOf(request);
  const pieces: Buffer[] = [];
  let size = 0;
  request.on('data', (piece: Buffer) => {
    pieces.push(piece);
    size += piece.length;
    if (size > MAX_MESSAGE_BYTES) request.destroy();
  });
  request.on('end', () => {
    wire.ledger.counters.rest_requests++;
    const isAway = wire.faults.isAway();
    if (isAway) wire.ledger.counters.rest_away++;
    const fault = isAway ? undefined : wire.faults.refusal();
    const answer = isAway
      ? (venue.unavailable?.() ?? UNAVAILABLE)
      : fault
        ? venue.refusal(fault.status, fault.retryAfter)
        : venue.rest({
            method: request.method ?? 'GET',
            path: url?.pathname ?? '',
            query: url?.searchParams ?? new URLSearchParams(),
            body: Buffer.concat(pieces).toString(),
            target: request.url ?? '',
            headers: request.headers,
          });
    if (answer.status === 429 || answer.status === 418 || answer.status === 403) wire.ledger.counters.rest_refused++;
    response.writeHead(answer.status, { 'content-type': 'application/json;charset=UTF-8', ...answer.headers });
    response.end(Buffer.from(answer.body, 'latin1'));
  });
}

function converse(venue: Venue, wire: Wire, socket: WebSocket, transport: Duplex, url: URL): void {
  const { counters } = wire.ledger;
  const peer = new Peer(socket, transport, wire.ledger, wire.clock());
  const session = venue.open(peer, url);
  peer.session = session;
  wire.peers.add(peer);
  const talk = (handle: () => void): void => {
    if (peer.mayTalk(wire.clock(), venue.rules.incomingPerSecond)) {
      handle();
    } else if (peer.open) {
      counters.closed_rate++;
      peer.close(1008, 'Too many requests');
    }
  };
  socket.on('message', (data: RawData) => talk(() => session.message(textOf(data))));
  socket.on('ping', () => talk(() => undefined));
  socket.on('pong', (payload: Buffer) => talk(() => peer.ponged(payload.toString())));
  // A broken line or a malformed frame: the library closes the socket after it.
  socket.on('error', () => counters.socket_errors++);
  socket.on('close', () => {
    wire.peers.delete(peer);
    session.closed();
  });
}

function textOf(data: RawData): string {
  if (Array.isArray(data)) return Buffer.concat(data).toString();
  return data instanceof ArrayBuffer ? Buffer.from(data).toString() : data.toString();
}

function checkPeers(venue: Venue, wire: Wire): void {
  const now = wire.clock();
  const { counters } = wire.ledger;
  for (const peer of wire.peers) {
    if (!peer.heartbeat(now, venue.rules) || peer.session?.alive?.(now) === false) {
      counters.closed_pong++;
      peer.close();
    } else if (peer.isOld(now)) {
      counters.closed_age++;
      peer.close(1001, '24 hours are over');
    }
  }
}
