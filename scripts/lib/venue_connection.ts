/**
 * One WebSocket to a venue from its opening to its end: subscribes at the venue's pace, and compares what was granted with what was
 * asked.
 */
import { WebSocket } from 'ws';
import type { Connection, ExchangeModule } from './exchange.ts';
import { steadyNow } from './steady.ts';

const HANDSHAKE_TIMEOUT_MS = 10_000;
/** A control message must be answered within this time. */
const ACK_TIMEOUT_MS = 10_000;
const HOUR_MS = 3_600_000;
/** No venue sends a frame near this size; a snapshot of 400 levels has 40 KB. */
const MAX_FRAME_BYTES = 16 * 1024 * 1024;

type Purpose = 'subscribe' | 'unsubscribe' | 'list';

interface ControlMessage {
  /** Null: no answer is awaited. */
  id: number | null;
  text: string;
  purpose: Purpose | 'other';
}

export interface VenueConnectionOptions {
  module: ExchangeModule;
  /** `wss://host[:port]`, without path. */
  host: string;
  connection: Connection;
  /** Reserves ids of control messages; no id is used twice on any connection of a socket. @returns the first */
  takeIds(count: number): number;
  opened(): void;
  /** A frame's text and when it arrived (µs since the epoch). */
  frame(text: string, receivedAt: number): void;
  /** A text ping was sent. */
  pinged(): void;
  /** It is given up because nothing comes. */
  silent(): void;
  /** Something is wrong that does not end the connection by itself. */
  fault(message: string): void;
  /** The end, whoever brought it. `refused`: HTTP status in place of an opening. */
  closed(end: { code: number; reason: string; refused: number | null }): void;
}

export class VenueConnection {
  /** These are times of the steady clock, ms. Null until the handshake is done. */
  openedAt: number | null = null;
  lastInboundAt = 0;
  lastPingAt = 0;
  /** Channels that were asked for and that the venue does not list as granted. */
  missing: string[] = [];
  private readonly socket: WebSocket;
  private refused: number | null = null;
  private lastFault: string | null = null;
  /** Control messages that wait for an answer, by id. */
  private readonly unanswered = new Map<number, { sentAt: number; purpose: ControlMessage['purpose'] }>();
  /** Channels that the venue has named as granted. */
  private readonly granted = new Set<string>();
  /** Control messages that wait for their turn, and the earliest time of the next one. */
  private readonly outgoing: ControlMessage[] = [];
  /** When channels were subscribed anew, ms. */
  private resubscribed: number[] = [];
  private nextSendAt = 0;
  private nextPingAt = Number.POSITIVE_INFINITY;
  private sendTimer: NodeJS.Timeout | undefined;
  private paused: boolean;

  constructor(
    private readonly options: VenueConnectionOptions,
    paused: boolean,
  ) {
    this.paused = paused;
    const socket = new WebSocket(options.host + options.connection.path, {
      perMessageDeflate: false,
      handshakeTimeout: HANDSHAKE_TIMEOUT_MS,
      maxPayload: MAX_FRAME_BYTES,
    });
    this.socket = socket;
    socket.on('open', () => this.opened());
    socket.on('message', (data: Buffer) => {
      this.lastInboundAt = steadyNow();
      options.frame(data.toString(), nowMicros());
    });
    // The ws package answers pings by itself; they count as a sign of life.
    socket.on('ping', () => {
      this.lastInboundAt = steadyNow();
    });
    socket.on('error', (error) => {
      this.refused = Number(/^Unexpected server response: (\d{3})$/.exec(error.message)?.[1] ?? 0) || null;
      this.fault(error.message);
    });
    socket.on('close', (code, reason) => {
      clearTimeout(this.sendTimer);
      options.closed({ code, reason: reason.toString() || (this.lastFault ?? ''), refused: this.refused });
    });
  }

  get isOpen(): boolean {
    return this.socket.readyState === WebSocket.OPEN;
  }

  /** Everything asked for is granted. */
  get isReady(): boolean {
    const waits = this.outgoing.length > 0 || this.unanswered.size > 0;
    return this.isOpen && !waits && this.granted.size > 0 && this.missing.length === 0;
  }

  /** Channels granted so far. */
  get grantedCount(): number {
    return this.granted.size;
  }

  /** The feed read an answer to a control message. `granted`: what the venue lists as subscribed, if it was asked for. */
  onAck(id: number | null, error: string | null, granted: string[] | null): void {
    const asked = id === null ? undefined : this.unanswered.get(id);
    if (id !== null) this.unanswered.delete(id);
    if (error !== null) this.fault(`control message ${id ?? ''} refused: ${error}`);
    // Some venues answer the end of a subscription with the list of what was ended.
    if (granted === null || asked?.purpose === 'unsubscribe') return;
    for (const name of granted) this.granted.add(name);
    this.missing = this.options.connection.channels.map((each) => each.name).filter((name) => !this.granted.has(name));
    if (this.missing.length > 0 && asked?.purpose === 'list') this.faultMissing();
  }

  /** Sends the venue's own heartbeat or an answer to one, at its turn. */
  reply(text: string): void {
    this.enqueue([{ id: null, text, purpose: 'other' }]);
  }

  /**
   * Ends and renews subscriptions: on some venues only that brings a new snapshot. Names of other connections are passed over.
   * @returns false when this connection has used up what the venue allows: only a new one can subscribe then
   */
  resubscribe(names: string[], now = steadyNow()): boolean {
    const { module, connection } = this.options;
    const channels = connection.channels.filter((each) => names.includes(each.name));
    if (channels.length === 0 || !this.isOpen) return true;
    this.resubscribed = this.resubscribed.filter((at) => now - at < HOUR_MS);
    // Each is an end and a beginning; a tenth is left for whatever else must be said.
    if (
      2 * (this.resubscribed.length + channels.length) >
      0.9 * (module.subscribesPerHour ?? Number.POSITIVE_INFINITY)
    ) {
      return false;
    }
    this.resubscribed.push(...channels.map(() => now));
    for (const { name } of channels) this.granted.delete(name);
    for (const purpose of ['unsubscribe', 'subscribe'] as const) {
      // How many messages it makes is seen only when they are made.
      const messages = module[purpose]?.(channels, this.options.takeIds(channels.length + 1)) ?? [];
      this.enqueue(messages.map((each) => ({ ...each, purpose })));
    }
    return true;
  }

  /** Stops reading, so that the venue's frames wait in the socket; `resume` goes on. */
  pause(): void {
    this.paused = true;
    if (this.isOpen) this.socket.pause();
  }

  resume(): void {
    this.paused = false;
    this.socket.resume();
  }

  /** Ends it at once. `closed` is told of it. */
  terminate(reason: string | null = null): void {
    if (reason !== null) this.fault(reason);
    this.socket.terminate();
  }

  /** Looked at each second: pings that are due, silence, answers that did not come. Terminates what is dead. */
  check(now: number): void {
    if (!this.isOpen || this.openedAt === null || this.paused) return;
    const { module } = this.options;
    if (now - this.lastInboundAt > module.silenceLimitMs) {
      this.options.silent();
      this.terminate(`silent for ${Math.round((now - this.lastInboundAt) / 1000)} s`);
      return;
    }
    for (const [id, { sentAt }] of this.unanswered) {
      if (now - sentAt <= ACK_TIMEOUT_MS) continue;
      this.unanswered.delete(id);
      this.terminate(`control message ${id} was not answered`);
      return;
    }
    if (module.ping && now >= this.nextPingAt) {
      this.nextPingAt = now + module.ping.everyMs;
      this.lastPingAt = now;
      this.options.pinged();
      this.reply(module.ping.text);
    }
    // Where the venue names each granted channel, those that it leaves out show by now.
    if (this.granted.size > 0 && this.missing.length > 0 && now - this.openedAt > ACK_TIMEOUT_MS) this.faultMissing();
  }

  private opened(): void {
    const now = steadyNow();
    this.openedAt = now;
    this.lastInboundAt = now;
    if (this.paused) this.socket.pause();
    const { module, connection, takeIds } = this.options;
    const { channels } = connection;
    const subscribe = module.subscribe(channels, takeIds(channels.length + 1));
    const messages: ControlMessage[] = subscribe.map((each) => ({ ...each, purpose: 'subscribe' }));
    if (module.listSubscriptions) {
      const id = takeIds(1);
      messages.push({ id, text: module.listSubscriptions(id), purpose: 'list' });
    }
    if (module.ping) this.nextPingAt = now + module.ping.everyMs;
    this.options.opened();
    this.enqueue(messages);
  }

  private enqueue(messages: ControlMessage[]): void {
    this.outgoing.push(...messages);
    if (this.sendTimer === undefined) this.sendNext();
  }

  /** Sends what waits, no faster than the venue allows. */
  private sendNext(): void {
    this.sendTimer = undefined;
    const now = steadyNow();
    if (now >= this.nextSendAt && this.isOpen) {
      const message = this.outgoing.shift();
      if (message === undefined) return;
      if (message.id !== null) this.unanswered.set(message.id, { sentAt: now, purpose: message.purpose });
      this.socket.send(message.text);
      this.nextSendAt = now + 1000 / this.options.module.messagesPerSecond;
    }
    if (this.outgoing.length === 0 || !this.isOpen) return;
    this.sendTimer = setTimeout(() => this.sendNext(), Math.max(this.nextSendAt - now, 1));
  }

  private faultMissing(): void {
    const message = `not granted: ${this.missing.slice(0, 10).join(', ')}`;
    if (this.lastFault !== message) this.fault(message);
  }

  private fault(message: string): void {
    this.lastFault = message;
    this.options.fault(message);
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
