/** Pulling from a durable. */
import { createInbox, Events, type Msg, type NatsConnection, nanos } from 'nats';
import { MODE_HEADER } from './jetstream.ts';
import type { Logger } from './log.ts';
import { connectAnew } from './quorum.ts';
import { steadyNow } from './steady.ts';

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
/**
 * A durable that answers nothing for longer than a request lives, and than a cluster needs to find it a leader, was removed: it is made anew, as
 * after a reconnect. (A request that was held up in a cut link can remove one long after another was made.)
 */
const DURABLE_GONE_MS = 30_000;
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
  /** Since when requests go unanswered, steady clock, ms; null: none does. */
  private unansweredSince: number | null = null;
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
    private readonly goneMs = DURABLE_GONE_MS,
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

  /** Whoever waits for a message looks again whether it still wants to. */
  nudge(): void {
    this.wake?.();
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
        this.unansweredSince = null;
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
    if (this.closed || this.suspended || this.connection.isClosed()) return;
    if (this.unansweredSince !== null && now - this.unansweredSince >= this.goneMs) {
      this.unansweredSince = null;
      this.log.warn({ event: 'durable_gone', durable: this.durable }, 'connecting anew');
      void connectAnew(this.connection);
      return;
    }
    if (this.requested > 0 && now < this.deadline) return;
    const room = this.maxBytes - this.bufferedBytes;
    // A request for less than a message could never be served.
    if (room < this.maxBytes / 2) return;
    this.requested = PULL_MESSAGES;
    this.unansweredSince ??= now;
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
        this.unansweredSince = null;
        this.requested = 0;
        this.pull(steadyNow());
      }
      return;
    }
    this.unansweredSince = null;
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
