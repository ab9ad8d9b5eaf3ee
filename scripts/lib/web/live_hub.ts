/**
 * What the broker has now, passed on to whoever listens: one connection and one subscription a type for the whole process, however many listen.
 * Nobody's slowness holds up another one, or grows in memory: what a listener has no room for is counted, and told him.
 */
import { Readable } from 'node:stream';
import { Events, type Msg, type NatsConnection, type Subscription } from 'nats';
import { connectNats } from '../jetstream.ts';
import { memberText } from '../json_text.ts';
import { pause } from '../pause.ts';
import type { DataType, OrderbookRow } from '../rows.ts';
import { parseSubject } from '../streams.ts';
import { type WebContext, WebError } from './route.ts';

/** Each costs a socket and its queue. */
const MOST_LISTENERS = 200;
/** Text that waits for one listener; more is dropped. */
const MOST_WAITING_BYTES = 1_048_576;
/** Nothing else may come for a while: so often a listener is told that the line stands, ms. */
const HEARTBEAT_MS = 5000;
/** A browser that lost the line comes again after this, ms. */
const RETRY_MS = 2000;
/** A broker that was not there at first is looked for again after this, ms. */
const AWAY_PAUSE_MS = 500;
const NAME = 'marketprism-web';

/** Types that can be listened to. Changes of books are too many for a browser: their best prices come with the samples. */
export const LIVE_TYPES = [
  ...(['trade', 'orderbook', 'funding_rate', 'open_interest', 'liquidation'] as const),
  ...(['lsr_top_position', 'lsr_all_account', 'volatility_index', 'gap'] as const),
];
export type LiveType = (typeof LIVE_TYPES)[number];

/** What somebody listens to. */
export interface Wanted {
  /** Null: all. */
  symbols: ReadonlySet<string> | null;
  types: ReadonlySet<LiveType>;
}

type BrokerState = 'connecting' | 'here' | 'away';

const HUBS = new WeakMap<WebContext, LiveHub>();

/** The part of a process that listens to the broker. */
export class LiveHub {
  private readonly listeners = new Set<Listener>();
  private readonly subscriptions = new Map<DataType, Subscription>();
  private connection: NatsConnection | null = null;
  private state: BrokerState = 'connecting';
  private sent = 0;

  private constructor(private readonly context: WebContext) {
    void this.connect();
    context.stop.addEventListener('abort', () => void this.close(), { once: true });
  }

  /** The one of this service; it connects when it is asked for first. */
  static of(context: WebContext): LiveHub {
    let hub = HUBS.get(context);
    if (hub === undefined) HUBS.set(context, (hub = new LiveHub(context)));
    return hub;
  }

  get listening(): number {
    return this.listeners.size;
  }

  /** Resolves when the broker knows of all subscriptions: what is published from then on comes. */
  async subscribed(): Promise<void> {
    await this.connection?.flush();
  }

  /** Bytes that wait for the listener for whom most do. */
  get mostWaitingBytes(): number {
    return Math.max(0, ...[...this.listeners].map((each) => each.waitingBytes));
  }

  /** Subjects that are subscribed to at the broker. */
  get subjects(): string[] {
    return [...this.subscriptions.values()].map((each) => each.getSubject());
  }

  /** Events for one listener, until `gone`. @throws WebError when there are too many */
  listen(wanted: Wanted, gone: AbortSignal): Readable {
    if (this.listeners.size >= MOST_LISTENERS) throw new WebError(503, 'too many listen: come again later');
    const { clock } = this.context;
    const listener = new Listener(wanted, clock);
    this.listeners.add(listener);
    const heart = setInterval(() => listener.tell('heartbeat', { time: clock() }), HEARTBEAT_MS);
    const leave = () => {
      clearInterval(heart);
      gone.removeEventListener('abort', leave);
      listener.end();
      if (this.listeners.delete(listener)) this.subscribe();
    };
    listener.once('close', leave);
    gone.addEventListener('abort', leave, { once: true });
    listener.open(RETRY_MS);
    listener.tell('broker', { state: this.state, time: clock() });
    this.subscribe();
    if (gone.aborted) leave();
    return listener;
  }

  /** Waits for the broker as long as the service runs; what it lost later it finds again by itself. */
  private async connect(): Promise<void> {
    const connection = await this.reached();
    if (connection === null) return;
    if (this.context.stop.aborted) return connection.close();
    this.connection = connection;
    this.turn('here');
    this.subscribe();
    for await (const { type } of connection.status()) {
      if (type === Events.Disconnect) this.turn('away');
      if (type === Events.Reconnect) this.turn('here');
    }
  }

  /** Null: the service stopped before the broker was there. */
  private async reached(): Promise<NatsConnection | null> {
    const { config, log, stop } = this.context;
    while (!stop.aborted) {
      try {
        return await connectNats(config.natsUrl, NAME, log, 'tried');
      } catch {
        // Told to whoever listens; the broker's own service says why.
        this.turn('away');
        await pause(AWAY_PAUSE_MS, stop).catch(() => undefined);
      }
    }
    return null;
  }

  private turn(state: BrokerState): void {
    if (state === this.state) return;
    this.state = state;
    for (const each of this.listeners) each.tell('broker', { state, time: this.context.clock() });
  }

  /** Subscribes to what somebody listens to, and to no more: each message costs something. */
  private subscribe(): void {
    const { connection, subscriptions } = this;
    if (connection === null || connection.isClosed()) return;
    const wanted = new Set([...this.listeners].flatMap(({ wanted: { types } }) => [...types]));
    for (const type of wanted) {
      if (subscriptions.has(type)) continue;
      const callback = (error: Error | null, message: Msg) => {
        if (error !== null) this.context.log.warn({ event: 'live_subscription_failed', type, reason: error.message });
        else this.pass(message);
      };
      subscriptions.set(type, connection.subscribe(`${type}.>`, { callback }));
    }
    for (const [type, subscription] of subscriptions) {
      if (wanted.has(type as LiveType)) continue;
      subscription.unsubscribe();
      subscriptions.delete(type);
    }
  }

  /** Rows of one message, to all who want them: the text is made once. */
  private pass({ subject, data }: Msg): void {
    const stream = parseSubject(subject);
    if (stream === null) return;
    const type = stream.type as LiveType;
    const takers = [...this.listeners].filter(
      ({ wanted: { types, symbols } }) => types.has(type) && symbols?.has(stream.symbol) !== false,
    );
    if (takers.length === 0) return;
    for (const line of Buffer.from(data).toString('utf8').split('\n')) {
      if (line === '') continue;
      const text = this.eventOf(type, line);
      if (text !== null) for (const each of takers) each.pass(type, text);
    }
  }

  private eventOf(type: LiveType, line: string): string | null {
    try {
      const row = type === 'orderbook' ? bestPrices(line) : line;
      this.sent += 1;
      return eventText(type, row, `${this.context.clock()}-${this.sent}`);
    } catch (error) {
      // The store puts such a line into the deadletter; nobody can show it.
      this.context.log.warn({ event: 'live_line_unreadable', type, reason: (error as Error).message });
      return null;
    }
  }

  private async close(): Promise<void> {
    // One that never came up is ended when it does.
    await this.connection?.close();
  }
}

/** An order book as its best prices; four hundred levels a side are for who asks for them. */
function bestPrices(line: string): string {
  const { bids, asks, ...row } = JSON.parse(line) as OrderbookRow;
  // As it is written: a number may have lost digits.
  return JSON.stringify({ ...row, last_update_id: memberText(line, 'last_update_id') });
}

function eventText(name: string, data: string, id?: string): string {
  return `event: ${name}\n${id === undefined ? '' : `id: ${id}\n`}data: ${data}\n\n`;
}

/** Events on their way to one listener. */
class Listener extends Readable {
  private readonly waiting: string[] = [];
  waitingBytes = 0;
  private isReading = false;
  /** Nothing comes any more; and what came has been handed over, too. */
  private isOver = false;
  private isWhole = false;
  /** What there was no room for since it was told last, by type. */
  private missed = new Map<LiveType, number>();
  private missedSince = 0;

  constructor(
    readonly wanted: Wanted,
    private readonly clock: () => number,
  ) {
    super({ highWaterMark: 65_536 });
  }

  open(retryMs: number): void {
    this.add(`retry: ${retryMs}\n\n`);
  }

  /** A row; dropped where there is no room. */
  pass(type: LiveType, text: string): void {
    if (this.missed.size > 0 || this.waitingBytes + text.length > MOST_WAITING_BYTES) this.miss(type);
    else this.add(text);
  }

  /** What is told of the line itself always has room, as it is little; a heartbeat tells nothing to who does not read. */
  tell(name: 'broker' | 'heartbeat' | 'dropped' | 'end', data: object): void {
    if (name === 'heartbeat' && this.waiting.length > 0) return;
    this.add(eventText(name, JSON.stringify(data)));
  }

  end(): void {
    if (this.isOver || this.destroyed) return;
    if (this.missed.size > 0) this.tellMissed();
    this.tell('end', { time: this.clock() });
    this.isOver = true;
    this.flow();
  }

  override _read(): void {
    this.isReading = true;
    this.flow();
  }

  private miss(type: LiveType): void {
    if (this.missed.size === 0) this.missedSince = this.clock();
    this.missed.set(type, (this.missed.get(type) ?? 0) + 1);
  }

  private add(text: string): void {
    if (this.isOver || this.destroyed) return;
    this.waiting.push(text);
    this.waitingBytes += text.length;
    this.flow();
  }

  /** Hands over as much as is asked for. Once half of the room is free again, it is told first what was missed. */
  private flow(): void {
    while (this.isReading && this.waiting.length > 0) {
      const text = this.waiting.shift()!;
      this.waitingBytes -= text.length;
      this.isReading = this.push(text);
    }
    if (this.missed.size > 0 && this.waitingBytes <= MOST_WAITING_BYTES / 2) this.tellMissed();
    if (!this.isOver || this.waiting.length > 0 || this.isWhole) return;
    this.isWhole = true;
    this.push(null);
  }

  private tellMissed(): void {
    const by_type = Object.fromEntries(this.missed);
    const count = [...this.missed.values()].reduce((sum, each) => sum + each, 0);
    const since = this.missedSince;
    this.missed = new Map();
    this.tell('dropped', { count, by_type, since, time: this.clock() });
  }
}
