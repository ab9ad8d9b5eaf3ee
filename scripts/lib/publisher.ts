/** Publishing to JetStream: pipelined, each message until it is acknowledged. */
import { createInbox, Events, headers, type Msg, type NatsConnection, nuid } from 'nats';
import { crashPoint } from './crash_points.ts';
import { BOOT_HEADER, ID_HEADER, MODE_HEADER, ROWS_HEADER, STARTED_HEADER } from './jetstream.ts';
import type { Logger } from './log.ts';
import { steadyNow } from './steady.ts';

export interface OutgoingMessage {
  subject: string;
  payload: Uint8Array;
  /** Number of rows inside. */
  rows: number;
  /** Its Nats-Msg-Id begins with it: subject and event time of the first row, or where a letter came from. */
  id: string;
}

interface InFlight {
  message: OutgoingMessage;
  /** Steady clock, ms. */
  sentAt: number;
  attempts: number;
  /** Its Nats-Msg-Id, which nothing else that was ever published has: a "duplicate" answer can only mean an earlier attempt of this very publish. */
  id: string;
}

export interface PublisherOptions {
  mode: string;
  /** Names this run of this process. */
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
    /** Answers "duplicate": an earlier attempt had arrived. */
    absorbed: 0,
    refused: 0,
  };
  /** By stream: the message of ours that it stored last. */
  readonly lastStored = new Map<string, { seq: number; id: string }>();
  private readonly queue: OutgoingMessage[] = [];
  private readonly inFlight = new Map<string, InFlight>();
  private readonly inbox = createInbox();
  /** Makes ids unique, whatever other publisher sends the same rows. */
  private readonly unique = nuid.next();
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
      const token = String(this.next++);
      const id = `${message.id}:${this.unique}:${token}`;
      const entry: InFlight = { message, sentAt: steadyNow(), attempts: 1, id };
      this.inFlight.set(token, entry);
      this.send(token, entry);
    }
    if (taken > 0) this.queue.splice(0, taken);
  }

  private send(token: string, entry: InFlight): void {
    const { message } = entry;
    const head = headers();
    head.set(ID_HEADER, entry.id);
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
    // It waits at the leader for its followers, which it may never reach: the next try must not be taken for a copy of this one.
    if (ack.duplicate && !ack.seq) {
      entry.id = `${entry.message.id}:${this.unique}:${token}:${entry.attempts}`;
      return;
    }
    if (ack.duplicate) this.stats.absorbed += 1;
    if (ack.stream && ack.seq) {
      // Of an attempt whose own answer was lost it may be older than what is known.
      const isNewest = !ack.duplicate || ack.seq > (this.lastStored.get(ack.stream)?.seq ?? 0);
      if (isNewest) this.lastStored.set(ack.stream, { seq: ack.seq, id: entry.id });
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
