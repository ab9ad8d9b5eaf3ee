/** All traffic with NATS JetStream: connecting, bringing streams and durables up to their definition, publishing. */
import {
  AckPolicy,
  connect,
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
  type StreamInfo,
} from 'nats';
import type { Logger } from './log.ts';
import type { DataType } from './rows.ts';
import { durableName, type StreamDefinition } from './streams.ts';

/** JetStream's API error codes that this file tells apart. */
const STREAM_NOT_FOUND = 10059;
const CONSUMER_NOT_FOUND = 10014;

/** A broker that is away is told once in this time while a service waits for it. */
const WAITING_LOG_MS = 10_000;

/** Broker versions below this one are known to lose acknowledged data in rare crashes. */
const SAFE_VERSION = [2, 10, 23] as const;

/** Connects, waiting as long as it takes (a service outlives its broker); says so while it waits. */
export async function connectNats(url: string, name: string, log: Logger): Promise<NatsConnection> {
  const timer = setInterval(() => log.warn({ event: 'broker_away', url }, 'waiting for the broker'), WAITING_LOG_MS);
  try {
    const connection = await connect({
      servers: url.split(','),
      name,
      maxReconnectAttempts: -1,
      waitOnFirstConnect: true,
      reconnectTimeWait: 500,
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

/** Creates the store's durable of one type when it is missing, and brings its waits up to date. Never re-creates one. */
export async function ensureDurable(
  manager: JetStreamManager,
  definition: StreamDefinition,
  type: DataType,
  ackWaitSeconds: number,
): Promise<void> {
  const name = durableName(type);
  const wanted = { ack_wait: nanos(ackWaitSeconds * 1000), max_ack_pending: definition.maxAckPending };
  try {
    const info = await manager.consumers.info(definition.name, name);
    if (differences(wanted, info.config).length > 0) await manager.consumers.update(definition.name, name, wanted);
  } catch (error) {
    if (apiErrorCode(error) !== CONSUMER_NOT_FOUND) throw error;
    await manager.consumers.add(definition.name, {
      durable_name: name,
      filter_subject: `${type}.>`,
      deliver_policy: DeliverPolicy.All,
      ack_policy: AckPolicy.Explicit,
      max_deliver: -1,
      ...wanted,
    });
  }
}

function apiErrorCode(error: unknown): number | undefined {
  return error instanceof NatsError ? error.api_error?.err_code : undefined;
}

/** Header names of our messages. */
export const MODE_HEADER = 'Mp-Mode';
export const ROWS_HEADER = 'Mp-Rows';
export const BOOT_HEADER = 'Mp-Boot';

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
  sentAt: number;
  attempts: number;
  /** Added to the id once the broker took the first publish for a copy of an older one. */
  suffix: string;
}

export interface PublisherOptions {
  mode: string;
  /** Names this run of this process; see `duplicate` in PublisherStats. */
  boot: string;
  /** Messages and bytes without an answer at one time. */
  maxInFlight: number;
  maxInFlightBytes: number;
  /** Without an answer after this time the message is sent again under the same id, ms. */
  ackTimeoutMs: number;
  /** Called for each message that JetStream has stored. */
  onStored(message: OutgoingMessage): void;
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
  private readonly queue: OutgoingMessage[] = [];
  private readonly inFlight = new Map<string, InFlight>();
  private readonly inbox = createInbox();
  private readonly timer: NodeJS.Timeout;
  private next = 0;
  private inFlightBytes = 0;
  private queuedBytes = 0;
  private idle: (() => void)[] = [];
  private connected = true;
  /** The last refusal, for health. */
  lastError: string | null = null;

  constructor(
    private readonly connection: NatsConnection,
    private readonly options: PublisherOptions,
  ) {
    connection.subscribe(`${this.inbox}.*`, { callback: (error, answer) => this.onAnswer(error, answer) });
    this.timer = setInterval(() => this.retryOverdue(Date.now()), 250);
    void this.followConnection();
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
      const entry: InFlight = { message, sentAt: Date.now(), attempts: 1, suffix: '' };
      const token = String(this.next++);
      this.inFlight.set(token, entry);
      this.send(token, entry);
    }
    if (taken > 0) this.queue.splice(0, taken);
  }

  private send(token: string, entry: InFlight): void {
    const { message } = entry;
    const head = headers();
    head.set('Nats-Msg-Id', message.id + entry.suffix);
    head.set(MODE_HEADER, this.options.mode);
    head.set(ROWS_HEADER, String(message.rows));
    head.set(BOOT_HEADER, this.options.boot);
    this.connection.publish(message.subject, message.payload, { headers: head, reply: `${this.inbox}.${token}` });
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
    const ack = answer.json<{ error?: { description?: string }; duplicate?: boolean; seq?: number }>();
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
    this.settle(token, entry);
  }

  private settle(token: string, entry: InFlight): void {
    this.inFlight.delete(token);
    this.inFlightBytes -= entry.message.payload.length;
    this.stats.stored += 1;
    this.lastError = null;
    this.options.onStored(entry.message);
    this.pump();
    if (this.waitingMessages === 0) for (const done of this.idle.splice(0)) done();
  }

  private refuse(reason: string, subject: string): void {
    this.stats.refused += 1;
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
    entry.sentAt = Date.now();
    this.send(token, entry);
  }

  private async followConnection(): Promise<void> {
    for await (const status of this.connection.status()) {
      if (status.type === Events.Disconnect) this.connected = false;
      if (status.type !== Events.Reconnect) continue;
      this.connected = true;
      // Answers to what was in flight may be lost; under the same ids a second copy is absorbed.
      for (const entry of this.inFlight.values()) entry.sentAt = 0;
      this.retryOverdue(Date.now());
      this.pump();
    }
  }
}
