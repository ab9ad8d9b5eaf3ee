/** All traffic with NATS JetStream: connecting, bringing streams and durables up to their definition, publishing. */
import {
  AckPolicy,
  type ConsumerInfo,
  connect,
  consumerOpts,
  createInbox,
  DeliverPolicy,
  DiscardPolicy,
  Events,
  headers,
  type JetStreamManager,
  type Msg,
  type NatsConnection,
  NatsError,
  nanos,
  RetentionPolicy,
  StorageType,
  type StoredMsg,
  type StreamInfo,
} from 'nats';
import { shownUrl } from './config.ts';
import { crashPoint, isGuarded } from './crash_points.ts';
import type { Logger } from './log.ts';
import { pause } from './pause.ts';
import type { DataType } from './rows.ts';
import { steadyNow } from './steady.ts';
import { durableName, type StreamDefinition, streamDefinitions } from './streams.ts';

/** JetStream's API error codes that this file tells apart. */
const STREAM_NOT_FOUND = 10059;
const CONSUMER_NOT_FOUND = 10014;

/** A broker that is away is told once in this time while a service waits for it. */
const WAITING_LOG_MS = 10_000;

/** Between attempts to reach a broker that was lost. */
const RECONNECT_WAIT_MS = 500;
const TIMER_SLACK_MS = 10;

/** Broker versions below this one are known to lose acknowledged data in rare crashes. */
const SAFE_VERSION = [2, 10, 23] as const;

/** Connects, waiting as long as it takes (a service outlives its broker); says so while it waits. */
export async function connectNats(url: string, name: string, log: Logger): Promise<NatsConnection> {
  const timer = setInterval(
    () => log.warn({ event: 'broker_away', url: shownUrl(url) }, 'waiting for the broker'),
    WAITING_LOG_MS,
  );
  try {
    const connection = await connect({
      servers: url.split(','),
      name,
      maxReconnectAttempts: -1,
      waitOnFirstConnect: true,
      reconnectDelayHandler: reconnectDelays(),
      pingInterval: 15_000,
      maxPingOut: 2,
      noEcho: true,
    });
    warnOldVersion(connection, log);
    void followStatus(connection, log);
    return connection;
  } finally {
    clearInterval(timer);
  }
}

/**
 * When the client may try again. It reckons by the wall clock, and would try nothing for minutes after that was set back: it is told to try
 * at once when it is time by the steady clock, otherwise to wait.
 */
function reconnectDelays(): () => number {
  let nextAt = 0;
  return () => {
    const now = steadyNow();
    // Timers may end a little early.
    if (now < nextAt - TIMER_SLACK_MS) return RECONNECT_WAIT_MS;
    nextAt = now + RECONNECT_WAIT_MS;
    return Number.NEGATIVE_INFINITY;
  };
}

/** Connects, and makes sure of the streams; both for as long as it takes. */
export async function connectWithStreams(
  url: string,
  name: string,
  definitions: StreamDefinition[],
  log: Logger,
): Promise<NatsConnection> {
  const connection = await connectNats(url, name, log);
  for (;;) {
    try {
      await ensureStreams(await connection.jetstreamManager(), definitions, log);
      return connection;
    } catch (error) {
      log.error({ event: 'streams_not_made', err: error, wait_ms: WAITING_LOG_MS });
      await pause(WAITING_LOG_MS);
    }
  }
}

/** Whether a connection stands at present, kept up to date from its own events. */
export class ConnectionWatch {
  connected = true;

  constructor(connection: NatsConnection) {
    void this.follow(connection);
  }

  private async follow(connection: NatsConnection): Promise<void> {
    for await (const status of connection.status()) {
      if (status.type === Events.Disconnect) this.connected = false;
      if (status.type === Events.Reconnect) this.connected = true;
    }
  }
}

function warnOldVersion(connection: NatsConnection, log: Logger): void {
  const version = connection.info?.version ?? '0.0.0';
  const parts = version.split('.').map((part) => Number.parseInt(part, 10));
  const difference = SAFE_VERSION.map((wanted, i) => (parts[i] ?? 0) - wanted).find((each) => each !== 0) ?? 0;
  if (difference < 0) {
    log.warn(
      { event: 'old_broker', version },
      `nats-server ${version} is older than ${SAFE_VERSION.join('.')}: it works, but has known data-loss bugs`,
    );
  }
}

async function followStatus(connection: NatsConnection, log: Logger): Promise<void> {
  for await (const status of connection.status()) {
    if (status.type === Events.Disconnect || status.type === Events.Reconnect || status.type === Events.Error) {
      log.warn({ event: `broker_${status.type}`, detail: String(status.data) });
    }
  }
}

/** Creates what is missing; a stream that differs is updated, or reported when the broker refuses. Never deletes. */
export async function ensureStreams(
  manager: JetStreamManager,
  definitions: StreamDefinition[],
  log: Logger,
): Promise<void> {
  for (const definition of definitions) {
    const wanted = {
      subjects: definition.types.map((type) => `${type}.>`),
      retention: RetentionPolicy.Limits,
      storage: StorageType.File,
      discard: DiscardPolicy.Old,
      max_bytes: definition.maxBytes,
      max_age: nanos(definition.maxAgeMs),
      duplicate_window: nanos(definition.duplicateWindowMs),
    };
    const info = await streamInfo(manager, definition.name);
    if (info === null) {
      await manager.streams.add({ name: definition.name, ...wanted });
      log.info({ event: 'stream_created', stream: definition.name, max_bytes: definition.maxBytes });
      continue;
    }
    // A stream that has to keep unread messages longer than usual goes on doing so.
    if (info.config.max_age > wanted.max_age) wanted.max_age = info.config.max_age;
    const differing = differences(wanted, info.config);
    if (differing.length === 0) continue;
    try {
      await manager.streams.update(definition.name, { ...info.config, ...wanted });
      log.warn({ event: 'stream_updated', stream: definition.name, differing });
    } catch (error) {
      log.error({ event: 'stream_differs', stream: definition.name, differing, err: error });
    }
  }
}

function differences(wanted: Record<string, unknown>, live: object): string[] {
  const config = live as Record<string, unknown>;
  return Object.keys(wanted).filter((key) => JSON.stringify(wanted[key]) !== JSON.stringify(config[key]));
}

/** A stream's state, or null when there is no such stream. */
export async function streamInfo(manager: JetStreamManager, name: string): Promise<StreamInfo | null> {
  try {
    return await manager.streams.info(name);
  } catch (error) {
    if (apiErrorCode(error) === STREAM_NOT_FOUND) return null;
    throw error;
  }
}

/** A message that the store has acknowledged, with all before it of its type that are not delivered again. */
export interface Checkpoint {
  seq: number;
  /** When JetStream stored it, ns since the epoch, as text: another message under the same sequence has another time. */
  storedAt: string;
}

/**
 * Makes the store's durable of one type deliver, at once, whatever hot may lack; at a start of the store, and after the broker was away. What
 * such a broker says of a durable cannot be relied on: one that lost the end of a stream remembers what it had delivered, and never delivers
 * the messages that get these sequences anew (measured with 2.9.10). So the durable is made anew from what the store itself knows; what it
 * delivers twice, the look-up drops.
 * @param checkpoint null: nothing is known, and everything in the stream is delivered again
 * @returns whether the stream still has the message of the checkpoint; false: its numbering began anew
 */
export async function placeDurable(
  manager: JetStreamManager,
  definition: StreamDefinition,
  type: DataType,
  ackWaitSeconds: number,
  checkpoint: Checkpoint | null,
): Promise<boolean> {
  const durable_name = durableName(type);
  const info = await consumerInfo(manager, definition.name, durable_name);
  if (info !== null && !isGuarded('checkpoint')) return true;
  const isIntact = checkpoint === null || (await holdsCheckpoint(manager, definition.name, checkpoint));
  const start = info === null || checkpoint === null || !isIntact ? 1 : Math.min(ackFloor(info), checkpoint.seq) + 1;
  if (info !== null) await manager.consumers.delete(definition.name, durable_name);
  // Dying here, the next start finds none, and reads everything.
  await manager.consumers.add(definition.name, {
    durable_name,
    filter_subject: `${type}.>`,
    deliver_policy: DeliverPolicy.StartSequence,
    opt_start_seq: start,
    ack_policy: AckPolicy.Explicit,
    ack_wait: nanos(ackWaitSeconds * 1000),
    max_ack_pending: definition.maxAckPending,
    max_deliver: -1,
  });
  return isIntact;
}

/** Up to here a durable of the store has acknowledged everything. Before its first acknowledgement nats-server tells 0 of one that began further on. */
export function ackFloor({ ack_floor, config }: ConsumerInfo): number {
  return Math.max(ack_floor.stream_seq, (config.opt_start_seq ?? 1) - 1);
}

async function consumerInfo(manager: JetStreamManager, stream: string, durable: string): Promise<ConsumerInfo | null> {
  try {
    return await manager.consumers.info(stream, durable);
  } catch (error) {
    if (apiErrorCode(error) !== CONSUMER_NOT_FOUND) throw error;
    return null;
  }
}

/** Whether a stream has the message, or has let it go because of its age. */
async function holdsCheckpoint(
  manager: JetStreamManager,
  stream: string,
  { seq, storedAt }: Checkpoint,
): Promise<boolean> {
  const { state } = await manager.streams.info(stream);
  if (seq > state.last_seq) return false;
  if (seq < state.first_seq) return true;
  const message = await messageAt(manager, stream, { seq });
  return message !== null && nanosOf(message.timestamp) === storedAt;
}

/** `2026-11-23T18:40:50.165162123Z` as ns since the epoch. @throws when it is no such time */
function nanosOf(time: string): string {
  const found = /^(.+?)(?:\.(\d{1,9}))?Z$/.exec(time);
  const seconds = Date.parse(`${found?.[1]}Z`) / 1000;
  if (!found || !Number.isInteger(seconds)) throw new Error(`JetStream tells the time as ${JSON.stringify(time)}`);
  return String(BigInt(seconds) * 1_000_000_000n + BigInt((found[2] ?? '').padEnd(9, '0')));
}

/** Messages that the store's durables have not acknowledged yet, delivered or not. One that is just being placed anew counts as one. */
export async function unacknowledged(manager: JetStreamManager): Promise<number> {
  let open = 0;
  for (const { name, types } of streamDefinitions()) {
    const awaited = new Set(types.map(durableName));
    // Others follow the streams, too, and may have gone away with messages left.
    for await (const info of manager.consumers.list(name)) {
      if (awaited.delete(info.name)) open += info.num_pending + info.num_ack_pending;
    }
    open += awaited.size;
  }
  return open;
}

function apiErrorCode(error: unknown): number | undefined {
  return error instanceof NatsError ? error.api_error?.err_code : undefined;
}

/** Header names of our messages; the first one is the broker's, which takes a second message of the same id for a copy. */
const ID_HEADER = 'Nats-Msg-Id';
export const MODE_HEADER = 'Mp-Mode';
export const ROWS_HEADER = 'Mp-Rows';
export const BOOT_HEADER = 'Mp-Boot';
/** When the process that published was started, ms. */
export const STARTED_HEADER = 'Mp-Started';

export interface OutgoingMessage {
  subject: string;
  payload: Uint8Array;
  /** Number of rows inside. */
  rows: number;
  /** Nats-Msg-Id: subject and hash of the keys inside. */
  id: string;
}

interface InFlight {
  message: OutgoingMessage;
  /** Steady clock, ms. */
  sentAt: number;
  attempts: number;
  /** Added to the id once the broker took the first publish for a copy of an older one. */
  suffix: string;
}

export interface PublisherOptions {
  mode: string;
  /** Names this run of this process; see `duplicate` in PublisherStats. */
  boot: string;
  /** When it was started, ms. */
  startedAt: number;
  /** Messages and bytes without an answer at one time. */
  maxInFlight: number;
  maxInFlightBytes: number;
  /** Without an answer after this time the message is sent again under the same id, ms. */
  ackTimeoutMs: number;
  /** Called for each message that JetStream has stored, with the seconds since it was last sent. */
  onStored(message: OutgoingMessage, seconds: number): void;
  /** Called for each refusal; the message is sent again. */
  onRefused?(subject: string, reason: string): void;
  log: Logger;
}

/**
 * Publishes with many messages in flight, each until JetStream has acknowledged it: sent again under the same id when no
 * answer comes or the broker refuses, in the order of arrival otherwise. `push` never drops; the caller watches
 * `waitingBytes` and stops its sources.
 */
export class Publisher {
  readonly stats = {
    stored: 0,
    retries: 0,
    /** Answers "duplicate" to a retry: the first publish had arrived. */
    absorbed: 0,
    /** Answers "duplicate" to a first publish: another run had published the same keys. Sent again under an own id. */
    duplicate: 0,
    refused: 0,
  };
  /** By stream: the message of ours that it stored last. */
  readonly lastStored = new Map<string, { seq: number; id: string }>();
  private readonly queue: OutgoingMessage[] = [];
  private readonly inFlight = new Map<string, InFlight>();
  private readonly inbox = createInbox();
  private readonly timer: NodeJS.Timeout;
  private next = 0;
  private inFlightBytes = 0;
  private queuedBytes = 0;
  private idle: (() => void)[] = [];
  private connected = false;
  private connection: NatsConnection | null = null;
  /** The last refusal, for health. */
  lastError: string | null = null;
  /** From sending to acknowledgement, s, of the message acknowledged last. */
  lastSeconds: number | null = null;

  /** @param connection absent: there is none yet, see `attach` */
  constructor(
    private readonly options: PublisherOptions,
    connection?: NatsConnection,
  ) {
    this.timer = setInterval(() => this.retryOverdue(steadyNow()), 250);
    if (connection) this.attach(connection);
  }

  /** The broker was reached for the first time: what waits leaves now. */
  attach(connection: NatsConnection): void {
    this.connection = connection;
    connection.subscribe(`${this.inbox}.*`, { callback: (error, answer) => this.onAnswer(error, answer) });
    this.connected = true;
    void this.followConnection(connection);
    this.pump();
  }

  /** False while the broker is away: what is pushed then waits. */
  get isConnected(): boolean {
    return this.connected;
  }

  /** Bytes that are not yet acknowledged, sent or not. */
  get waitingBytes(): number {
    return this.queuedBytes + this.inFlightBytes;
  }

  get waitingMessages(): number {
    return this.queue.length + this.inFlight.size;
  }

  push(message: OutgoingMessage): void {
    this.queue.push(message);
    this.queuedBytes += message.payload.length;
    this.pump();
  }

  /** Resolves when everything pushed so far and since is acknowledged. */
  drained(): Promise<void> {
    if (this.waitingMessages === 0) return Promise.resolve();
    return new Promise((done) => this.idle.push(done));
  }

  close(): void {
    clearInterval(this.timer);
  }

  private pump(): void {
    // While disconnected the client would buffer without bound, so nothing is handed to it.
    let taken = 0;
    while (
      this.connected &&
      taken < this.queue.length &&
      this.inFlight.size < this.options.maxInFlight &&
      this.inFlightBytes < this.options.maxInFlightBytes
    ) {
      const message = this.queue[taken++]!;
      this.queuedBytes -= message.payload.length;
      this.inFlightBytes += message.payload.length;
      const entry: InFlight = { message, sentAt: steadyNow(), attempts: 1, suffix: '' };
      const token = String(this.next++);
      this.inFlight.set(token, entry);
      this.send(token, entry);
    }
    if (taken > 0) this.queue.splice(0, taken);
  }

  private send(token: string, entry: InFlight): void {
    const { message } = entry;
    const head = headers();
    head.set(ID_HEADER, message.id + entry.suffix);
    head.set(MODE_HEADER, this.options.mode);
    head.set(ROWS_HEADER, String(message.rows));
    head.set(BOOT_HEADER, this.options.boot);
    head.set(STARTED_HEADER, String(this.options.startedAt));
    this.connection!.publish(message.subject, message.payload, { headers: head, reply: `${this.inbox}.${token}` });
    crashPoint('publish.sent');
  }

  private onAnswer(error: Error | null, answer: Msg): void {
    if (error) {
      this.options.log.error({ event: 'publish_inbox', err: error });
      return;
    }
    const token = answer.subject.slice(this.inbox.length + 1);
    const entry = this.inFlight.get(token);
    // A late answer to an attempt that another answer has settled.
    if (!entry) return;
    // No responders: the stream is not there (yet). The timer sends it again.
    if (answer.headers?.code === 503) {
      this.refuse('no stream takes this subject (503)', entry.message.subject);
      return;
    }
    const ack = answer.json<{
      error?: { description?: string };
      duplicate?: boolean;
      stream?: string;
      seq?: number;
    }>();
    if (ack.error) {
      this.refuse(ack.error.description ?? 'error without text', entry.message.subject);
      return;
    }
    if (ack.duplicate && entry.attempts === 1) {
      this.stats.duplicate += 1;
      entry.suffix = `:${this.options.boot}`;
      this.resend(token, entry);
      return;
    }
    if (ack.duplicate) this.stats.absorbed += 1;
    else if (ack.stream && ack.seq) {
      this.lastStored.set(ack.stream, { seq: ack.seq, id: entry.message.id + entry.suffix });
    }
    this.settle(token, entry);
  }

  private settle(token: string, entry: InFlight): void {
    crashPoint('publish.acknowledged');
    this.inFlight.delete(token);
    this.inFlightBytes -= entry.message.payload.length;
    this.stats.stored += 1;
    this.lastError = null;
    this.lastSeconds = (steadyNow() - entry.sentAt) / 1000;
    this.options.onStored(entry.message, this.lastSeconds);
    this.pump();
    if (this.waitingMessages === 0) for (const done of this.idle.splice(0)) done();
  }

  private refuse(reason: string, subject: string): void {
    this.stats.refused += 1;
    this.options.onRefused?.(subject, reason);
    if (this.lastError !== reason) this.options.log.error({ event: 'publish_refused', reason, subject });
    this.lastError = reason;
  }

  private retryOverdue(now: number): void {
    if (!this.connected) return;
    for (const [token, entry] of this.inFlight) {
      if (now - entry.sentAt < this.options.ackTimeoutMs) continue;
      this.stats.retries += 1;
      this.resend(token, entry);
    }
  }

  private resend(token: string, entry: InFlight): void {
    entry.attempts += 1;
    entry.sentAt = steadyNow();
    this.send(token, entry);
  }

  private async followConnection(connection: NatsConnection): Promise<void> {
    for await (const status of connection.status()) {
      if (status.type === Events.Disconnect) this.connected = false;
      if (status.type !== Events.Reconnect) continue;
      this.connected = true;
      // Answers to what was in flight may be lost; under the same ids a second copy is absorbed.
      for (const entry of this.inFlight.values()) entry.sentAt = 0;
      this.retryOverdue(steadyNow());
      this.pump();
    }
  }
}

/** A message from a durable; it is redelivered until `ack`. */
export interface Delivery {
  subject: string;
  data: Uint8Array;
  /** Stream sequence. */
  seq: number;
  /** When JetStream stored it, ns since the epoch, as text. */
  storedAt: string;
  /** The consumer's when it came. */
  generation: number;
  redelivered: boolean;
  /** Our own headers; null where absent. */
  mode: string | null;
  ack(): void;
  /** Starts the ack wait anew. */
  working(): void;
}

/** A pull request lives this long at the broker; then the next one is sent. */
const PULL_EXPIRES_MS = 10_000;
/** Without the broker's closing word this long after that, the request counts as lost. */
const PULL_GRACE_MS = 3000;
/** Where there is no such durable (yet), it is asked for again after this time. */
const NO_DURABLE_WAIT_MS = 1000;
/** Largest share of the buffer that one request may bring. */
const PULL_MESSAGES = 1000;

/**
 * Pulls from a durable into a bounded buffer. A request that the broker forgot (restart, lost connection) is replaced after
 * its own deadline, so that the flow never stalls for good.
 */
export class PullConsumer {
  private readonly buffer: Delivery[] = [];
  private bufferedBytes = 0;
  private readonly inbox = createInbox();
  private requested = 0;
  /** Steady clock, ms. */
  private deadline = 0;
  private serial = 0;
  private readonly timer: NodeJS.Timeout;
  private wake: (() => void) | null = null;
  private closed = false;
  private suspended = false;
  /** Counts the times that the broker was away: a message of before may bear a number that is another's now. */
  generation = 0;

  constructor(
    private readonly connection: NatsConnection,
    private readonly stream: string,
    private readonly durable: string,
    /** The buffer's bound, bytes. */
    private readonly maxBytes: number,
    /** Awaited after each reconnect, before anything is pulled again: the broker may not be the one it was. */
    private readonly recheck: () => Promise<void>,
    private readonly log: Logger,
  ) {
    connection.subscribe(`${this.inbox}.*`, { callback: (error, message) => this.onMessage(error, message) });
    this.timer = setInterval(() => this.pull(steadyNow()), 250);
    this.pull(steadyNow());
    void this.followConnection();
  }

  /** Messages that are here and not yet taken. */
  get waiting(): readonly Delivery[] {
    return this.buffer;
  }

  /** The next message, or null when none came within `waitMs`. */
  async next(waitMs: number): Promise<Delivery | null> {
    if (this.buffer.length === 0 && waitMs > 0 && !this.closed) {
      await new Promise<void>((done) => {
        const timer = setTimeout(done, waitMs);
        this.wake = () => {
          clearTimeout(timer);
          done();
        };
      });
      this.wake = null;
    }
    const message = this.buffer.shift();
    if (!message) return null;
    this.bufferedBytes -= message.data.length;
    if (this.requested === 0) this.pull(steadyNow());
    return message;
  }

  close(): void {
    this.closed = true;
    clearInterval(this.timer);
    this.wake?.();
  }

  /** What was delivered and not taken comes again from a broker that was away; it may have forgotten the request, too. */
  private async followConnection(): Promise<void> {
    for await (const status of this.connection.status()) {
      if (status.type === Events.Disconnect) {
        this.suspended = true;
        this.generation += 1;
        this.buffer.length = 0;
        this.bufferedBytes = 0;
      }
      if (status.type !== Events.Reconnect) continue;
      await this.recheck();
      this.suspended = false;
      this.requested = 0;
      this.pull(steadyNow());
    }
  }

  private pull(now: number): void {
    if (this.closed || this.suspended || this.connection.isClosed() || (this.requested > 0 && now < this.deadline))
      return;
    const room = this.maxBytes - this.bufferedBytes;
    // A request for less than a message could never be served.
    if (room < this.maxBytes / 2) return;
    this.requested = PULL_MESSAGES;
    this.deadline = now + PULL_EXPIRES_MS + PULL_GRACE_MS;
    this.serial += 1;
    const request = { batch: PULL_MESSAGES, max_bytes: room, expires: nanos(PULL_EXPIRES_MS) };
    this.connection.publish(`$JS.API.CONSUMER.MSG.NEXT.${this.stream}.${this.durable}`, JSON.stringify(request), {
      reply: `${this.inbox}.${this.serial}`,
    });
  }

  private onMessage(error: Error | null, message: Msg): void {
    if (error) {
      this.log.error({ event: 'pull_inbox', durable: this.durable, err: error });
      return;
    }
    if (!message.reply || message.headers?.code) {
      // 404 none, 408 expired, 409 over the byte limit, 503 no such durable (yet): the request is over.
      if (!message.subject.endsWith(`.${this.serial}`) || message.headers?.code === 100) return;
      if (message.headers?.code === 503) this.deadline = steadyNow() + NO_DURABLE_WAIT_MS;
      else {
        this.requested = 0;
        this.pull(steadyNow());
      }
      return;
    }
    // From the broker before: it comes again, once its numbering is known.
    if (this.suspended) return;
    this.buffer.push(this.toDelivery(message));
    this.bufferedBytes += message.data.length;
    if (this.requested > 0 && --this.requested === 0) this.pull(steadyNow());
    this.wake?.();
  }

  /** The reply subject tells what was delivered: `$JS.ACK.<stream>.<durable>.<times>.<seq>.<delivery>.<ns>.<pending>`. */
  private toDelivery(message: Msg): Delivery {
    const reply = message.reply!;
    const tokens = reply.split('.');
    // Newer brokers put a domain and an account hash in front.
    const at = tokens.length > 9 ? 4 : 2;
    const { generation } = this;
    // After the broker was away its word for this sequence may mean another message.
    const answer = (word: string) => {
      if (generation === this.generation) this.connection.publish(reply, word);
    };
    return {
      subject: message.subject,
      data: message.data,
      redelivered: Number(tokens[at + 2]) > 1,
      seq: Number(tokens[at + 3]),
      storedAt: tokens[at + 5]!,
      generation,
      mode: message.headers?.get(MODE_HEADER) || null,
      ack: () => answer('+ACK'),
      working: () => answer('+WPI'),
    };
  }
}

/** The Nats-Msg-Id of the message at a sequence; null when there is none. */
export async function messageId(manager: JetStreamManager, stream: string, seq: number): Promise<string | null> {
  return (await messageAt(manager, stream, { seq }))?.header.get(ID_HEADER) ?? null;
}

/** A stored message by its sequence, or the last one of a subject; null when it is not there. */
export async function storedMessage(
  manager: JetStreamManager,
  stream: string,
  which: number | string,
): Promise<{ subject: string; data: Uint8Array; startedAt: number | null } | null> {
  const found = await messageAt(manager, stream, typeof which === 'number' ? { seq: which } : { last_by_subj: which });
  if (found === null) return null;
  const startedAt = Number(found.header.get(STARTED_HEADER));
  return { subject: found.subject, data: found.data, startedAt: startedAt > 0 ? startedAt : null };
}

/**
 * Whether another run than `boot` was the first to publish a row of `subject` that `isOne` knows, since `sinceMs` (by the broker's clock, ms).
 * Not the first: it may have come back at the same time, and know no more. Reads what came since then.
 */
export async function publishedByOthers(
  nats: NatsConnection,
  stream: string,
  subject: string,
  { boot, sinceMs, isOne }: { boot: string; sinceMs: number; isOne(row: string): boolean },
): Promise<boolean> {
  const last = await messageAt(await nats.jetstreamManager(), stream, { last_by_subj: subject });
  if (last === null || last.time.getTime() < sinceMs) return false;
  const options = consumerOpts();
  options.orderedConsumer();
  options.bindStream(stream);
  options.startTime(new Date(sinceMs));
  for await (const message of await nats.jetstream().subscribe(subject, options)) {
    if (message.string().split('\n').some(isOne)) return message.headers?.get(BOOT_HEADER) !== boot;
    if (message.seq >= last.seq) break;
  }
  return false;
}

async function messageAt(
  manager: JetStreamManager,
  stream: string,
  query: { seq: number } | { last_by_subj: string },
): Promise<StoredMsg | null> {
  try {
    return await manager.streams.getMessage(stream, query);
  } catch (error) {
    if (error instanceof NatsError && (error.api_error?.code === 404 || error.code === '404')) return null;
    throw error;
  }
}
