/**
 * The channels of one connection, for as long as they are wanted: one WebSocket after the other. A lost one is opened again with
 * back-off and jitter; one that grows old, or whose end the venue has announced, is followed by a new one before it is closed.
 */
import type { Connection, ExchangeModule, Feed, FeedEvent } from './exchange.ts';
import type { Logger } from './log.ts';
import { steadyNow, wallTime } from './steady.ts';
import { VenueConnection } from './venue_connection.ts';

/** Reconnect waits: doubling from the first to the last, each drawn between half and the whole of it. */
const FIRST_WAIT_MS = 1000;
const LAST_WAIT_MS = 30_000;
/** A connection that held this long was sound: the next loss starts the waits anew. */
const STABLE_MS = 60_000;
/** Venues close a connection after 24 hours; ours is followed by another between these shares of that, so that not all go at once. */
const SOCKET_LIFE_MS = 24 * 3_600_000;
const RENEW_SHARE = { least: 0.9, most: 0.96 };
/** How long the new connection must be at work before the old one is closed: what is on its way on the old one arrives meanwhile. */
const OVERLAP_MS = 2000;
/** A new connection that is not ready by then is given up, and another one tried later. */
const READY_LIMIT_MS = 30_000;
const RENEW_RETRY_MS = 60_000;
/** What the new connection has sent waits in memory until the old one is closed; more than this is not waited for. */
const MAX_HELD_CHARACTERS = 64 * 2 ** 20;
const CHECK_MS = 1000;

export interface VenueSocketOptions {
  module: ExchangeModule;
  /** `wss://host[:port]`, without path. */
  host: string;
  connection: Connection;
  log: Logger;
  random(): number;
  /** ms to wait before a connection may be opened: the venue limits how many are opened in a time. Reserves the place. */
  openingWait(): number;
  /** A host that refuses this region (403, 451) is asked again after this time. */
  blockedRetryMs: number;
  /** Reads a new connection's answers while the old one is still at work. */
  createProbe(): Feed;
  /** A frame's text and when it arrived (µs since the epoch). */
  onFrame(text: string, receivedAt: number): void;
  /** The socket was lost, or given up; its channels may miss frames from now on. */
  onLost(): void;
}

/** State for health and metrics. */
export interface SocketState {
  connected: boolean;
  /** The venue answers the handshake with 403 or 451. */
  blocked: boolean;
  /** Losses. */
  reconnects: number;
  /** Planned successions without a loss. */
  renewals: number;
  frames: number;
  /** Text pings sent, and connections given up because they were silent. */
  pings: number;
  silences: number;
  /** Wall clock, ms; 0 before the first. */
  lastInboundAt: number;
  /** Channels that were asked for and that the venue does not list as granted. */
  missing: string[];
  lastError: string | null;
}

/** A connection that is to follow the present one. */
interface Successor {
  connection: VenueConnection;
  probe: Feed;
  reason: string;
  startedAt: number;
  readyAt: number | null;
  held: { text: string; receivedAt: number }[];
  heldCharacters: number;
}

export class VenueSocket {
  private current: VenueConnection | null = null;
  private successor: Successor | null = null;
  /** True while held frames are read: answers in them were read once already. */
  private isReplaying = false;
  private stopped = false;
  private paused = false;
  private attempts = 0;
  private nextId = 1;
  private reconnects = 0;
  private renewals = 0;
  private frames = 0;
  private pings = 0;
  private silences = 0;
  private lastError: string | null = null;
  private blocked = false;
  private renewAt = Number.POSITIVE_INFINITY;
  private openTimer: NodeJS.Timeout | undefined;
  private readonly checkTimer: NodeJS.Timeout;

  constructor(private readonly options: VenueSocketOptions) {
    this.checkTimer = setInterval(() => this.check(steadyNow()), CHECK_MS);
    this.openLater(0);
  }

  get state(): SocketState {
    return {
      connected: this.current?.isOpen ?? false,
      blocked: this.blocked,
      reconnects: this.reconnects,
      renewals: this.renewals,
      frames: this.frames,
      pings: this.pings,
      silences: this.silences,
      lastInboundAt: this.current?.lastInboundAt ? wallTime(this.current.lastInboundAt) : 0,
      missing: this.current?.missing ?? [],
      lastError: this.lastError,
    };
  }

  /** Of the present connection, by the steady clock, ms; null before the first. */
  get openedAt(): number | null {
    return this.current?.openedAt ?? null;
  }

  /** When the last text ping was sent, wall clock, ms; 0 before the first. */
  get lastPingAt(): number {
    return this.current?.lastPingAt ? wallTime(this.current.lastPingAt) : 0;
  }

  get connection(): Connection {
    return this.options.connection;
  }

  /** The feed read an answer to a control message. */
  onAck(id: number | null, error: string | null, granted: string[] | null): void {
    if (this.isReplaying || this.current === null) return;
    const wasReady = this.current.isReady;
    this.current.onAck(id, error, granted);
    if (!wasReady && this.current.isReady) this.log('subscribed', { channels: this.current.grantedCount });
  }

  /** Sends the venue's own heartbeat answer. */
  reply(text: string): void {
    if (!this.isReplaying) this.current?.reply(text);
  }

  /** Ends and renews subscriptions, by a new connection where the present one may not do so any more. */
  resubscribe(names: string[]): void {
    if (this.current?.resubscribe(names) === false) this.renew('subscriptions of this hour are used up');
  }

  pause(): void {
    this.paused = true;
    this.current?.pause();
    this.successor?.connection.pause();
  }

  resume(): void {
    this.paused = false;
    this.current?.resume();
    this.successor?.connection.resume();
  }

  /** Opens a new connection beside this one, and closes this one once the new one is at work: nothing is missed. */
  renew(reason: string): void {
    if (this.stopped || this.paused || this.isReplaying || this.successor !== null || !this.current?.isOpen) return;
    this.log('renewal', { reason });
    this.renewAt = Number.POSITIVE_INFINITY;
    const wait = this.options.openingWait();
    if (wait === 0) this.startSuccessor(reason);
    else this.openTimer = setTimeout(() => this.startSuccessor(reason), wait);
  }

  /** Closes for good. */
  stop(): void {
    this.stopped = true;
    clearInterval(this.checkTimer);
    clearTimeout(this.openTimer);
    this.successor?.connection.terminate();
    this.current?.terminate();
  }

  private openLater(ms: number): void {
    const wait = Math.max(ms, this.options.openingWait());
    if (wait === 0) this.open();
    else this.openTimer = setTimeout(() => this.open(), wait);
  }

  private open(): void {
    const connection: VenueConnection = this.connect({
      opened: () => {
        this.blocked = false;
        this.planRenewal();
        this.log('connected', { channels: this.options.connection.channels.length });
      },
      frame: (text, receivedAt) => {
        if (this.current === connection) this.read(text, receivedAt);
      },
      closed: (end) => this.lost(connection, end),
    });
    this.current = connection;
  }

  private connect(
    handlers: Pick<ConstructorParameters<typeof VenueConnection>[0], 'opened' | 'frame' | 'closed'>,
  ): VenueConnection {
    const { module, host, connection } = this.options;
    const takeIds = (count: number) => {
      this.nextId += count;
      return this.nextId - count;
    };
    const pinged = () => {
      this.pings += 1;
    };
    const silent = () => {
      this.silences += 1;
    };
    const fault = (message: string) => this.fault(message);
    return new VenueConnection({ module, host, connection, takeIds, pinged, silent, fault, ...handlers }, this.paused);
  }

  private read(text: string, receivedAt: number): void {
    this.frames += 1;
    this.options.onFrame(text, receivedAt);
  }

  private planRenewal(): void {
    const { module, random } = this.options;
    const share = RENEW_SHARE.least + (RENEW_SHARE.most - RENEW_SHARE.least) * random();
    this.renewAt = steadyNow() + (module.socketLifeMs ?? SOCKET_LIFE_MS) * share;
  }

  private lost(connection: VenueConnection, end: { code: number; reason: string; refused: number | null }): void {
    if (this.current !== connection || this.stopped) return;
    const { openedAt } = connection;
    if (openedAt !== null) this.options.onLost();
    if (openedAt !== null && steadyNow() - openedAt > STABLE_MS) this.attempts = 0;
    this.reconnects += 1;
    this.blocked = end.refused === 403 || end.refused === 451;
    if (this.successor?.connection.isOpen) {
      this.log('disconnected', { code: end.code, reason: end.reason, wait_ms: 0 });
      this.succeed(this.successor);
      return;
    }
    this.dropSuccessor();
    this.current = null;
    const ceiling = Math.min(FIRST_WAIT_MS * 2 ** this.attempts, LAST_WAIT_MS);
    const chance = 0.5 + 0.5 * this.options.random();
    const wait = Math.round(this.blocked ? this.options.blockedRetryMs * (1 + 0.1 * chance) : ceiling * chance);
    this.attempts += 1;
    this.log('disconnected', { code: end.code, reason: end.reason, wait_ms: wait });
    this.openLater(wait);
  }

  private startSuccessor(reason: string): void {
    // Meanwhile it may have been lost, or two reasons have come at once.
    if (this.stopped || this.successor !== null || !this.current?.isOpen) return;
    const successor: Successor = {
      connection: this.connect({
        opened: () => undefined,
        frame: (text, receivedAt) =>
          this.successor === successor
            ? this.hold(successor, text, receivedAt)
            : this.readOf(successor, text, receivedAt),
        closed: (end) => {
          if (this.successor === successor) this.giveUp(`the new connection ended: ${end.reason || end.code}`);
          else this.lost(successor.connection, end);
        },
      }),
      probe: this.options.createProbe(),
      reason,
      startedAt: steadyNow(),
      readyAt: null,
      held: [],
      heldCharacters: 0,
    };
    this.successor = successor;
  }

  /** Frames of a successor that took over, as long as it is the present one. */
  private readOf(successor: Successor, text: string, receivedAt: number): void {
    if (this.current === successor.connection) this.read(text, receivedAt);
  }

  /** Keeps a frame for later; only answers and heartbeats in it are looked at now. */
  private hold(successor: Successor, text: string, receivedAt: number): void {
    successor.held.push({ text, receivedAt });
    successor.heldCharacters += text.length;
    if (successor.heldCharacters > MAX_HELD_CHARACTERS) {
      this.giveUp('the new connection sent too much before it was ready');
      return;
    }
    const event = (each: FeedEvent) => {
      if (each.kind === 'ack') successor.connection.onAck(each.id, each.error, each.granted);
      else if (each.kind === 'reply') successor.connection.reply(each.text);
    };
    successor.probe.frame(text, receivedAt, { row: () => undefined, event });
  }

  private giveUp(reason: string): void {
    this.fault(reason);
    this.dropSuccessor();
    this.renewAt = steadyNow() + RENEW_RETRY_MS;
  }

  private dropSuccessor(): void {
    const dropped = this.successor;
    this.successor = null;
    dropped?.connection.terminate();
  }

  /** The new connection takes over: first what it has sent so far, in its order. */
  private succeed(successor: Successor): void {
    const old = this.current;
    this.current = successor.connection;
    this.successor = null;
    old?.terminate();
    this.isReplaying = true;
    for (const { text, receivedAt } of successor.held) this.read(text, receivedAt);
    this.isReplaying = false;
    this.planRenewal();
    this.log('renewed', { reason: successor.reason, held: successor.held.length });
  }

  private check(now: number): void {
    this.current?.check(now);
    const { successor } = this;
    if (successor !== null) {
      successor.connection.check(now);
      if (successor.connection.isReady) successor.readyAt ??= now;
      if (successor.readyAt !== null && now - successor.readyAt >= OVERLAP_MS) {
        this.renewals += 1;
        this.succeed(successor);
      } else if (successor.readyAt === null && now - successor.startedAt > READY_LIMIT_MS && !this.paused) {
        this.giveUp('the new connection was not ready in time');
      }
    } else if (now >= this.renewAt) this.renew('age');
  }

  private fault(message: string): void {
    this.lastError = message;
    const { module, connection, log } = this.options;
    log.warn({ event: 'socket_fault', exchange: module.exchange, path: connection.path }, message);
  }

  private log(event: string, fields: object): void {
    const { module, connection, log } = this.options;
    log.info({ event: `socket_${event}`, exchange: module.exchange, path: connection.path, ...fields });
  }
}
