/**
 * One WebSocket connection to a venue, for as long as it is wanted: opens, subscribes at the venue's pace, compares what was
 * granted with what was asked, notices silence, and comes back with back-off and jitter.
 */
import { WebSocket } from 'ws';
import type { Connection, ExchangeModule } from './exchange.ts';
import type { Logger } from './log.ts';

/** Reconnect waits: doubling from the first to the last, each drawn between half and the whole of it. */
const FIRST_WAIT_MS = 1000;
const LAST_WAIT_MS = 30_000;
/** A connection that held this long was sound: the next loss starts the waits anew. */
const STABLE_MS = 60_000;
const HANDSHAKE_TIMEOUT_MS = 10_000;
/** A control message must be answered within this time. */
const ACK_TIMEOUT_MS = 10_000;
/** No venue sends a frame near this size; a snapshot of 400 levels has 40 KB. */
const MAX_FRAME_BYTES = 16 * 1024 * 1024;
const CHECK_MS = 1000;

export interface VenueSocketOptions {
  module: ExchangeModule;
  /** `wss://host[:port]`, without path. */
  host: string;
  connection: Connection;
  log: Logger;
  random(): number;
  /** A frame's text and when it arrived (µs since the epoch). */
  onFrame(text: string, receivedAt: number): void;
  /** The socket was lost, or given up; its channels may miss frames from now on. */
  onLost(): void;
}

/** State for health and metrics. */
export interface SocketState {
  connected: boolean;
  reconnects: number;
  frames: number;
  lastInboundAt: number;
  /** Channels that were asked for and that the venue does not list as granted. */
  missing: string[];
  lastError: string | null;
}

interface ControlMessage {
  /** Null: no answer is awaited. */
  id: number | null;
  text: string;
  /** Its answer is the list of what is subscribed. */
  list: boolean;
}

export class VenueSocket {
  readonly state: SocketState = {
    connected: false,
    reconnects: 0,
    frames: 0,
    lastInboundAt: 0,
    missing: [],
    lastError: null,
  };
  private socket: WebSocket | null = null;
  private stopped = false;
  private paused = false;
  private attempts = 0;
  private openedAt = 0;
  private nextId = 1;
  /** Control messages that wait for an answer, by id. */
  private readonly unanswered = new Map<number, { sentAt: number; list: boolean }>();
  /** Channels that the venue has named as granted on this connection. */
  private readonly granted = new Set<string>();
  /** Control messages that wait for their turn, and the earliest time of the next one. */
  private readonly outgoing: ControlMessage[] = [];
  private nextSendAt = 0;
  private nextPingAt = 0;
  private reconnectAtOnce = false;
  private reconnectTimer: NodeJS.Timeout | undefined;
  private sendTimer: NodeJS.Timeout | undefined;
  private readonly checkTimer: NodeJS.Timeout;

  constructor(private readonly options: VenueSocketOptions) {
    this.checkTimer = setInterval(() => this.check(Date.now()), CHECK_MS);
    this.open();
  }

  /** The feed read an answer to a control message. `granted`: what the venue lists as subscribed, if it was asked for. */
  onAck(id: number | null, error: string | null, granted: string[] | null): void {
    const asked = id === null ? undefined : this.unanswered.get(id);
    if (id !== null) this.unanswered.delete(id);
    if (error !== null) this.fail(`control message ${id ?? ''} refused: ${error}`);
    if (granted === null) return;
    for (const name of granted) this.granted.add(name);
    this.state.missing = this.options.connection.channels
      .map((each) => each.name)
      .filter((name) => !this.granted.has(name));
    if (this.state.missing.length === 0) this.log('subscribed', { channels: this.granted.size });
    else if (asked?.list) this.failMissing();
  }

  /** Sends the venue's own heartbeat answer, at its turn. */
  reply(text: string): void {
    this.enqueue([{ id: null, text, list: false }]);
  }

  /** Ends and renews subscriptions: on some venues only that brings a new snapshot. Names of other sockets are passed over. */
  resubscribe(names: string[]): void {
    const { module, connection } = this.options;
    const channels = connection.channels.filter((each) => names.includes(each.name));
    if (channels.length === 0) return;
    for (const build of [module.unsubscribe, module.subscribe]) {
      const messages = build?.(channels, this.nextId) ?? [];
      this.nextId += messages.length;
      this.enqueue(messages.map((each) => ({ ...each, list: false })));
    }
  }

  /** Stops reading, so that the venue's frames wait in the socket; `resume` goes on. */
  pause(): void {
    this.paused = true;
    if (this.socket?.readyState === WebSocket.OPEN) this.socket.pause();
  }

  resume(): void {
    this.paused = false;
    this.socket?.resume();
  }

  /** The venue announced a close, or we know better: come back at once with a new socket. */
  restart(reason: string): void {
    this.state.lastError = reason;
    this.reconnectAtOnce = true;
    this.socket?.terminate();
  }

  /** Closes for good. */
  stop(): void {
    this.stopped = true;
    clearInterval(this.checkTimer);
    clearTimeout(this.reconnectTimer);
    clearTimeout(this.sendTimer);
    this.socket?.terminate();
  }

  private open(): void {
    const socket = new WebSocket(this.options.host + this.options.connection.path, {
      perMessageDeflate: false,
      handshakeTimeout: HANDSHAKE_TIMEOUT_MS,
      maxPayload: MAX_FRAME_BYTES,
    });
    this.socket = socket;
    socket.on('open', () => this.opened(socket));
    socket.on('message', (data: Buffer) => {
      this.state.frames += 1;
      this.state.lastInboundAt = Date.now();
      this.options.onFrame(data.toString(), nowMicros());
    });
    // The ws package answers pings by itself; they count as a sign of life.
    socket.on('ping', () => {
      this.state.lastInboundAt = Date.now();
    });
    socket.on('error', (error) => {
      this.state.lastError = error.message;
    });
    socket.on('close', (code, reason) => this.closed(socket, code, reason.toString()));
  }

  private opened(socket: WebSocket): void {
    this.openedAt = Date.now();
    this.state.connected = true;
    this.state.lastInboundAt = this.openedAt;
    this.state.missing = [];
    this.granted.clear();
    if (this.paused) socket.pause();
    const { module, connection } = this.options;
    const messages: ControlMessage[] = module
      .subscribe(connection.channels, this.nextId)
      .map((each) => ({ ...each, list: false }));
    this.nextId += messages.length;
    const list = module.listSubscriptions?.(this.nextId);
    if (list !== undefined) messages.push({ id: this.nextId++, text: list, list: true });
    this.nextPingAt = this.openedAt + (module.ping?.everyMs ?? Number.POSITIVE_INFINITY);
    this.log('connected', { messages: messages.length });
    this.enqueue(messages);
  }

  private enqueue(messages: ControlMessage[]): void {
    this.outgoing.push(...messages);
    if (this.sendTimer === undefined) this.sendNext();
  }

  /** Sends what waits, no faster than the venue allows. */
  private sendNext(): void {
    this.sendTimer = undefined;
    const now = Date.now();
    if (now >= this.nextSendAt && this.socket?.readyState === WebSocket.OPEN) {
      const message = this.outgoing.shift();
      if (message === undefined) return;
      if (message.id !== null) this.unanswered.set(message.id, { sentAt: now, list: message.list });
      this.socket.send(message.text);
      this.nextSendAt = now + 1000 / this.options.module.messagesPerSecond;
    }
    if (this.outgoing.length === 0 || this.socket?.readyState !== WebSocket.OPEN) return;
    this.sendTimer = setTimeout(() => this.sendNext(), Math.max(this.nextSendAt - now, 1));
  }

  private closed(socket: WebSocket, code: number, reason: string): void {
    if (this.socket !== socket) return;
    const wasConnected = this.state.connected;
    this.state.connected = false;
    this.unanswered.clear();
    this.outgoing.length = 0;
    clearTimeout(this.sendTimer);
    this.sendTimer = undefined;
    if (this.stopped) return;
    if (wasConnected) this.options.onLost();
    if (wasConnected && Date.now() - this.openedAt > STABLE_MS) this.attempts = 0;
    const ceiling = Math.min(FIRST_WAIT_MS * 2 ** this.attempts, LAST_WAIT_MS);
    const wait = this.reconnectAtOnce ? 0 : Math.round(ceiling * (0.5 + 0.5 * this.options.random()));
    this.reconnectAtOnce = false;
    this.attempts += 1;
    this.state.reconnects += 1;
    this.log('disconnected', { code, reason: reason || this.state.lastError, wait_ms: wait });
    this.reconnectTimer = setTimeout(() => this.open(), wait);
  }

  private check(now: number): void {
    if (!this.state.connected || this.paused) return;
    if (now - this.state.lastInboundAt > this.options.module.silenceLimitMs) {
      this.fail(`silent for ${Math.round((now - this.state.lastInboundAt) / 1000)} s`);
      this.socket?.terminate();
      return;
    }
    for (const [id, { sentAt }] of this.unanswered) {
      if (now - sentAt <= ACK_TIMEOUT_MS) continue;
      this.unanswered.delete(id);
      this.fail(`control message ${id} was not answered`);
      this.socket?.terminate();
      return;
    }
    const { ping } = this.options.module;
    if (ping && now >= this.nextPingAt) {
      this.nextPingAt = now + ping.everyMs;
      this.reply(ping.text);
    }
    // Where the venue names each granted channel, those that it leaves out show by now.
    if (this.granted.size > 0 && this.state.missing.length > 0 && now - this.openedAt > ACK_TIMEOUT_MS)
      this.failMissing();
  }

  private failMissing(): void {
    const message = `not granted: ${this.state.missing.slice(0, 10).join(', ')}`;
    if (this.state.lastError !== message) this.fail(message);
  }

  private fail(message: string): void {
    this.state.lastError = message;
    const { module, connection, log } = this.options;
    log.warn({ event: 'socket_fault', exchange: module.exchange, path: connection.path }, message);
  }

  private log(event: string, fields: object): void {
    const { module, connection, log } = this.options;
    log.info({ event: `socket_${event}`, exchange: module.exchange, path: connection.path, ...fields });
  }
}

/** Wall clock minus the fine clock, ms. The fine clock does not follow corrections of the wall clock. */
let anchor = Date.now() - performance.now();
/** A difference beyond the wall clock's own coarseness is a correction of it. */
const CORRECTION_MS = 2;

/** Wall clock in µs since the epoch, as fine as the platform tells it. */
export function nowMicros(): number {
  const fine = performance.now();
  const wall = Date.now();
  if (Math.abs(anchor + fine - wall) > CORRECTION_MS) anchor = wall - fine;
  return Math.round((anchor + fine) * 1000);
}
