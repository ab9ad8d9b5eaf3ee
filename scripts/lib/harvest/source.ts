/** Trades and books out of JetStream, in the order of their streams, from where the last checkpoint left off. */
import { createHash } from 'node:crypto';
import { realpathSync } from 'node:fs';
import { AckPolicy, DeliverPolicy, type JetStreamManager, type NatsConnection, nanos, ReplayPolicy } from 'nats';
import { type Checkpoint, consumerInfo, holdsCheckpoint } from '../durables.ts';
import type { Logger } from '../log.ts';
import { pause } from '../pause.ts';
import { type Delivery, PullConsumer } from '../pull_consumer.ts';
import type { Exchange } from '../rows.ts';
import { steadyNow } from '../steady.ts';
import type { StreamName } from '../streams.ts';

/** What a stream is read for. */
export type SourceKind = 'trade' | 'book';

const STREAMS: Record<SourceKind, { stream: StreamName; subject(exchange: Exchange): string }> = {
  trade: { stream: 'MARKET_DATA', subject: (exchange) => `trade.${exchange}.>` },
  // Samples and updates, in their order: one filter cannot say that of an exchange, so that those of others are passed by here.
  book: { stream: 'ORDERBOOK_SNAP', subject: () => '>' },
};
/** Messages in memory, of each stream. */
const BUFFER_BYTES = 8 * 2 ** 20;
/** A durable that nobody reads from is removed by the broker after this: where it goes on is ours to know, ms. */
const UNUSED_MS = 24 * 3_600_000;
/** A broker that has just come back may not answer at once, ms. */
const RETRY_MS = 1000;

export class Source {
  private consumer: PullConsumer | null = null;
  /** Steady clock, ms: when a message last came. */
  lastAt = steadyNow();

  private constructor(
    readonly kind: SourceKind,
    private readonly exchange: Exchange,
    /** Tells harvesters of other data directories apart. */
    private readonly owner: string,
    private readonly nats: NatsConnection,
    private readonly manager: JetStreamManager,
    /** The last message that was taken; null before the first. */
    public position: Checkpoint | null,
    private readonly log: Logger,
    private readonly stop: AbortSignal,
  ) {}

  static async open(
    kind: SourceKind,
    exchange: Exchange,
    dataDir: string,
    nats: NatsConnection,
    position: Checkpoint | null,
    log: Logger,
    stop: AbortSignal,
  ): Promise<Source> {
    const source = new Source(
      kind,
      exchange,
      ownerOf(dataDir),
      nats,
      await nats.jetstreamManager(),
      position,
      log,
      stop,
    );
    await source.placeAgain();
    const { stream } = STREAMS[kind];
    source.consumer = new PullConsumer(nats, stream, source.durable, BUFFER_BYTES, () => source.placeAgain(), log);
    return source;
  }

  get durable(): string {
    return `harvester_${this.exchange}_${this.kind}_${this.owner}`;
  }

  /** A message is here. */
  get isReady(): boolean {
    return this.consumer!.waiting.length > 0;
  }

  /** The next message, or null when none of this exchange came within `waitMs`. It counts as taken. */
  async next(waitMs: number): Promise<Delivery | null> {
    const message = await this.consumer!.next(waitMs);
    if (message === null) return null;
    // Numbers rise, but for what is delivered again.
    if (this.position !== null && message.seq <= this.position.seq) return null;
    this.position = { seq: message.seq, storedAt: message.storedAt };
    if (message.subject.split('.', 2)[1] !== this.exchange) return null;
    this.lastAt = steadyNow();
    return message;
  }

  /** Messages that the broker has and has not delivered, and those that wait here. */
  async pending(): Promise<number> {
    const info = await consumerInfo(this.manager, STREAMS[this.kind].stream, this.durable);
    if (info === null) throw new Error(`the durable ${this.durable} is gone: somebody removed it`);
    return info.num_pending + this.consumer!.waiting.length;
  }

  close(): void {
    this.consumer?.close();
  }

  /** At a start, and after the broker was away: what it delivered and was not taken would come late, or never. */
  private async placeAgain(): Promise<void> {
    while (!this.stop.aborted && !this.nats.isClosed()) {
      try {
        return await this.place();
      } catch (error) {
        this.log.warn({ event: 'durable_not_placed', durable: this.durable, reason: (error as Error).message });
        await pause(RETRY_MS, this.stop).catch(() => undefined);
      }
    }
  }

  /** Makes the durable anew, so that it delivers what comes after our position, in order. What was taken is ours to know: nothing is acknowledged. */
  private async place(): Promise<void> {
    const { stream, subject } = STREAMS[this.kind];
    const { manager, position, durable, exchange, log } = this;
    const isIntact = position === null || (await holdsCheckpoint(manager, stream, position));
    if ((await consumerInfo(manager, stream, durable)) !== null) await manager.consumers.delete(stream, durable);
    const from =
      position === null
        ? { deliver_policy: DeliverPolicy.All }
        : isIntact
          ? { deliver_policy: DeliverPolicy.StartSequence, opt_start_seq: position.seq + 1 }
          : { deliver_policy: DeliverPolicy.StartTime, opt_start_time: timeOf(position.storedAt) };
    await manager.consumers.add(stream, {
      ...{ durable_name: durable, filter_subject: subject(exchange), ack_policy: AckPolicy.None },
      ...{ replay_policy: ReplayPolicy.Instant, inactive_threshold: nanos(UNUSED_MS), ...from },
    });
    if (isIntact) return;
    // What both numberings have is known by its own ids.
    log.error({ event: 'stream_began_anew', stream, seq: position!.seq }, 'the broker lost the end of this stream');
    this.position = null;
  }
}

function timeOf(nanoseconds: string): string {
  return new Date(Number(BigInt(nanoseconds) / 1_000_000n)).toISOString();
}

function ownerOf(dataDir: string): string {
  return createHash('sha256').update(realpathSync(dataDir)).digest('hex').slice(0, 8);
}
