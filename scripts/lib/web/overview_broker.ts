/** JetStream's own state for the overview: how much each stream holds, and how much of it the store has not acknowledged. */
import type { NatsConnection } from 'nats';
import { shownUrl } from '../config.ts';
import { consumerInfo } from '../durables.ts';
import { connectOnce, streamInfo } from '../jetstream.ts';
import { durableName, streamDefinitions } from '../streams.ts';
import { whyOf } from './overview_services.ts';
import type { WebContext } from './route.ts';

/** A broker that answers later than this is away for the overview, ms. */
const TIMEOUT_MS = 2000;
/** Nobody has asked for this long: the connection is given back, ms. */
const IDLE_MS = 60_000;

export interface StreamFigures {
  name: string;
  messages: number;
  bytes: number;
  max_bytes: number;
  /** Messages that the store has not acknowledged; null: it has no durable there. */
  unread: number | null;
  /** Of the last message; 0: there was none yet. */
  last_seq: number;
  /** When the stream was made, as the broker tells it: another time means other sequences. */
  created: string;
}

export interface BrokerFigures {
  version: string;
  streams: StreamFigures[];
  /** Streams that should be there, and are not. */
  missing: string[];
}

/** One connection, kept while somebody looks. */
export class BrokerLook {
  private connection: NatsConnection | null = null;
  /** One at a time: whoever asks meanwhile waits for the same. */
  private connecting: Promise<NatsConnection> | null = null;
  private timer: NodeJS.Timeout | null = null;

  constructor(private readonly context: WebContext) {
    context.stop.addEventListener('abort', () => this.leave(), { once: true });
  }

  /** @returns the streams of ours, or why they are not known, in a line */
  async ask(): Promise<{ figures: BrokerFigures } | { fault: string }> {
    const { config, stop } = this.context;
    const late = new Promise<never>((_, fail) => {
      setTimeout(() => fail(new Error('no answer in time')), TIMEOUT_MS).unref();
    });
    try {
      return { figures: await Promise.race([this.figures(), late]) };
    } catch (error) {
      // Whatever it was: the next look begins with a connection of its own.
      this.leave();
      const { message } = error as Error;
      const isTold = message.startsWith('the broker at');
      return { fault: isTold ? message : `the broker at ${shownUrl(config.natsUrl)} does not answer: ${whyOf(error)}` };
    } finally {
      if (stop.aborted) this.leave();
      else this.leaveWhenIdle();
    }
  }

  private async figures(): Promise<BrokerFigures> {
    const { config } = this.context;
    this.connecting ??= this.connection === null ? this.connect().finally(() => (this.connecting = null)) : null;
    const connection = this.connection ?? (await this.connecting!);
    const manager = await connection.jetstreamManager();
    const all = await Promise.all(
      streamDefinitions(config).map(async ({ name, types }) => {
        const info = await streamInfo(manager, name);
        if (info === null) return name;
        const durables = await Promise.all(types.map((type) => consumerInfo(manager, name, durableName(type))));
        const known = durables.filter((each) => each !== null);
        const unread = known.reduce((sum, each) => sum + each.num_pending + each.num_ack_pending, 0);
        return {
          ...{ name, messages: info.state.messages, bytes: info.state.bytes, max_bytes: info.config.max_bytes },
          // One that is not there would have everything unread.
          unread: known.length === types.length ? unread : null,
          ...{ last_seq: info.state.last_seq, created: String(info.created) },
        };
      }),
    );
    return {
      version: connection.info?.version ?? '',
      streams: all.filter((each) => typeof each !== 'string'),
      missing: all.filter((each) => typeof each === 'string'),
    };
  }

  private async connect(): Promise<NatsConnection> {
    const connection = await connectOnce(this.context.config.natsUrl, 'marketprism-web overview');
    // It may have taken longer than the service went on.
    if (this.context.stop.aborted) await connection.close();
    this.connection = connection;
    void connection.closed().then(() => {
      if (this.connection === connection) this.connection = null;
    });
    return connection;
  }

  private leaveWhenIdle(): void {
    if (this.timer !== null) clearTimeout(this.timer);
    this.timer = setTimeout(() => this.leave(), IDLE_MS);
    this.timer.unref();
  }

  private leave(): void {
    if (this.timer !== null) clearTimeout(this.timer);
    this.timer = null;
    const { connection } = this;
    this.connection = null;
    // It has nothing under way that anybody waits for.
    void connection?.close().catch((error: unknown) => {
      this.context.log.debug({ event: 'broker_not_left', reason: (error as Error).message });
    });
  }
}
