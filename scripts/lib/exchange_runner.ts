/** One exchange inside the collector: its sockets, its feed, its snapshots, and what is known of each stream. */
import { Cron } from 'croner';
import type { Batcher } from './batcher.ts';
import type { Config } from './config.ts';
import { DistinctCounter } from './distinct.ts';
import type {
  Connection,
  ExchangeModule,
  Feed,
  FeedEvent,
  FeedOutput,
  Instrument,
  Poll,
  RestRequest,
} from './exchange.ts';
import type { Logger } from './log.ts';
import { pause } from './pause.ts';
import { DATA_TYPES, type DataType, type Rows, TABLES } from './rows.ts';
import type { Check } from './service.ts';
import { UnknownSample } from './unknown.ts';
import { VenueRest } from './venue_rest.ts';
import { nowMicros, VenueSocket } from './venue_socket.ts';

/** How often the feed is asked what it needs; a snapshot is late by at most this. */
const REQUEST_CHECK_MS = 50;
/** Waits between snapshot requests of one symbol: doubling from the first to the last. */
const FIRST_RETRY_MS = 500;
const LAST_RETRY_MS = 30_000;
/** A poll refused for longer than this waits for its next round. */
const LONGEST_POLL_WAIT_MS = 60_000;
/** Requests under way to one host. */
const MAX_REQUESTS = 2;
/** A stream whose last row is older than this is stale, s. */
const AGE_LIMITS: Partial<Record<DataType, number>> = {
  trade: 60,
  orderbook: 60,
  orderbook_update: 60,
  liquidation: 3600,
};
const OTHER_AGE_LIMIT = 8 * 3600;
/** Distinct reasons that are counted apart; garbage could make up any number of them. */
const MAX_REASONS = 200;

interface StreamState {
  type: DataType;
  instrument: Instrument;
  lastRowAt: number | null;
}

interface Retry {
  notBefore: number;
  attempts: number;
  running: boolean;
}

export class ExchangeRunner implements FeedOutput {
  readonly sockets: VenueSocket[] = [];
  private readonly wsHost: string;
  private readonly connections: Connection[];
  private readonly polls: Poll[];
  private readonly crons: Cron[] = [];
  private readonly feed: Feed;
  private readonly rest: VenueRest;
  /** Streams that were asked for, by `type instrument`. */
  private readonly streams = new Map<string, StreamState>();
  private readonly distinct = new Map<string, { type: DataType; counter: DistinctCounter }>();
  private readonly events = new Map<string, { kind: string; reason: string; count: number }>();
  private readonly retries = new Map<string, Retry>();
  private readonly timer: NodeJS.Timeout;
  /** The socket whose frame is being read. */
  private reading: VenueSocket | null = null;
  private frame: { text: string; receivedAt: number } | null = null;
  private readonly unknown: UnknownSample;
  private running = 0;
  private paused = false;
  private readonly stopping = new AbortController();

  private get stopped(): boolean {
    return this.stopping.signal.aborted;
  }

  constructor(
    readonly module: ExchangeModule,
    config: Config,
    private readonly batcher: Batcher,
    private readonly rowsWait: () => void,
    private readonly log: Logger,
  ) {
    const hosts = config.endpoints[module.exchange] ?? module.hosts;
    const instruments = module.marketTypes.flatMap((type) =>
      config.symbols.map((pair) => module.instrument(pair, type)),
    );
    this.wsHost = hosts.ws;
    this.unknown = new UnknownSample(config.dataDir, module.exchange);
    this.rest = new VenueRest(hosts.rest, module.restWeightPerMinute, module.restWeightHeader, log);
    this.feed = module.createFeed({
      instruments,
      dataSource: config.mode,
      orderbookIntervalMs: config.orderbookIntervalMs,
    });
    this.connections = module.connections(instruments);
    this.polls = module.polls?.(instruments) ?? [];
    for (const { types, instrument } of this.connections.flatMap((each) => each.channels)) {
      for (const type of types) this.expect(type, instrument);
    }
    for (const { type, instrument } of this.polls) if (instrument !== null) this.expect(type, instrument);
    this.timer = setInterval(() => this.fetchNeeded(Date.now()), REQUEST_CHECK_MS);
    void this.open();
  }

  private expect(type: DataType, instrument: Instrument): void {
    this.streams.set(streamKey(type, instrument.instrument), { type, instrument, lastRowAt: null });
  }

  /** Instrument lists first, where units come from them; then sockets, and what is polled. */
  private async open(): Promise<void> {
    for (const { path, weight, optional } of this.module.instrumentLists ?? []) {
      if (optional) await this.ask(path, weight);
      else await this.fetchUntilServed(path, weight);
    }
    if (this.stopped) return;
    for (const connection of this.connections) this.sockets.push(this.openSocket(connection));
    if (this.paused) this.pause();
    for (const poll of this.polls) {
      // Once at the start, then shortly after the venue publishes; a slow round delays the next one instead of meeting it.
      const ask = () => this.poll(poll);
      this.crons.push(new Cron(poll.cron, { protect: true, timezone: 'UTC' }, ask));
      void ask();
    }
  }

  private openSocket(connection: Connection): VenueSocket {
    const socket: VenueSocket = new VenueSocket({
      module: this.module,
      host: this.wsHost,
      connection,
      log: this.log,
      random: Math.random,
      onFrame: (text, receivedAt) => {
        this.reading = socket;
        this.frame = { text, receivedAt };
        this.feed.frame(text, receivedAt, this);
        this.frame = null;
      },
      onLost: () => this.feed.disconnected(connection.channels, this),
    });
    return socket;
  }

  row<T extends DataType>(type: T, row: Rows[T]): void {
    this.batcher.add(type, row);
    this.rowsWait();
    const key = streamKey(type, row.instrument);
    const stream = this.streams.get(key);
    if (stream) stream.lastRowAt = Date.now();
    let entry = this.distinct.get(key);
    if (!entry) this.distinct.set(key, (entry = { type, counter: new DistinctCounter() }));
    entry.counter.add(distinctKey(type, row));
  }

  event(event: FeedEvent): void {
    const reason = reasonOf(event);
    const count = this.count(event.kind, reason);
    if (event.kind === 'ack') this.reading?.onAck(event.id, event.error, event.granted);
    else if (event.kind === 'closing') this.reading?.restart(event.reason);
    else if (event.kind === 'reply') this.reading?.reply(event.text);
    else if (event.kind === 'resubscribe') for (const socket of this.sockets) socket.resubscribe(event.channels);
    else if (event.kind === 'resync') {
      const { symbol, exchange } = event.instrument;
      this.log.warn({ event: 'resync', exchange, symbol, cause: event.cause, last: event.last, next: event.next });
    } else if (event.kind === 'rejected') {
      this.keepSample(reason);
      // A storm of garbage must not become a storm of log lines: the 1st, 2nd, 4th, 8th … of a reason is told.
      if (!isPowerOfTwo(count)) return;
      this.log.warn({ event: 'frame_rejected', exchange: this.module.exchange, reason, count });
    }
  }

  /** A full disk must not cost more than the sample. */
  private keepSample(reason: string): void {
    if (this.frame === null) return;
    try {
      this.unknown.add(reason, this.frame.text, this.frame.receivedAt);
    } catch (error) {
      this.log.warn({ event: 'sample_not_kept', exchange: this.module.exchange, err: error });
    }
  }

  pause(): void {
    this.paused = true;
    for (const socket of this.sockets) socket.pause();
  }

  resume(): void {
    this.paused = false;
    for (const socket of this.sockets) socket.resume();
  }

  stop(): void {
    this.stopping.abort();
    clearInterval(this.timer);
    for (const socket of this.sockets) socket.stop();
    for (const cron of this.crons) cron.stop();
    void this.rest.close();
  }

  /** Distinct rows accepted, per type. */
  received(): { exchange: string; data_type: DataType; received: number }[] {
    return DATA_TYPES.flatMap((type) => {
      const counters = [...this.distinct.values()].filter((entry) => entry.type === type);
      if (counters.length === 0) return [];
      const received = counters.reduce((sum, entry) => sum + entry.counter.count, 0);
      return [{ exchange: this.module.exchange, data_type: type, received }];
    });
  }

  eventCounts() {
    return this.events.values();
  }

  /** Streams that were asked for and never gave a row. */
  silentStreams(): StreamState[] {
    return [...this.streams.values()].filter((stream) => stream.lastRowAt === null);
  }

  check(now: number): Check {
    const down = this.sockets.filter((socket) => !socket.state.connected);
    const missing = this.sockets.flatMap((socket) => socket.state.missing);
    // Hours without a liquidation are normal, so its age is only a hint.
    const judged = [...this.streams.values()].filter((stream) => stream.type !== 'liquidation');
    const stale = judged.filter((stream) => this.status(stream, now) !== 'healthy');
    const blocked = this.rest.blocked(now);
    const names = (streams: StreamState[]) =>
      streams
        .map(({ type, instrument }) => `${type} ${instrument.symbol}`)
        .slice(0, 5)
        .join(', ');
    const message =
      down.length > 0
        ? `${down.length} of ${this.sockets.length} sockets are down: ${down[0]!.state.lastError ?? 'connecting'}`
        : missing.length > 0
          ? `not granted: ${missing.slice(0, 5).join(', ')}`
          : stale.length > 0
            ? `${stale.length} of ${judged.length} streams have no fresh row: ${names(stale)}`
            : blocked;
    return {
      status: message === null ? 'healthy' : down.length > 0 || stale.length > 0 ? 'unhealthy' : 'degraded',
      error_message: message,
      details: {
        sockets: this.sockets.map((socket) => socket.state),
        events: [...this.events.values()],
      },
    };
  }

  /** Every stream that was asked for, with the age of its last row. */
  coverage(now: number) {
    return [...this.streams.values()].map((stream) => ({
      type: stream.type,
      instrument: stream.instrument,
      last_success_ts: stream.lastRowAt,
      age_seconds: stream.lastRowAt === null ? null : (now - stream.lastRowAt) / 1000,
      status: this.status(stream, now),
    }));
  }

  private status(stream: StreamState, now: number): 'healthy' | 'stale' | 'never' {
    if (stream.lastRowAt === null) return 'never';
    const limit = AGE_LIMITS[stream.type] ?? OTHER_AGE_LIMIT;
    return now - stream.lastRowAt > limit * 1000 ? 'stale' : 'healthy';
  }

  /** Ends early at a stop; who waits asks `stopped` then. */
  private wait(ms: number): Promise<void> {
    return pause(ms, this.stopping.signal).catch(() => undefined);
  }

  private async fetchUntilServed(path: string, weight: number): Promise<void> {
    for (let wait = FIRST_RETRY_MS; !this.stopped; wait = Math.min(wait * 2, LAST_RETRY_MS)) {
      const until = await this.ask(path, weight);
      if (until === null) return;
      await this.wait(Math.max(until - Date.now(), wait));
    }
  }

  /** One round of a poll; a round that the venue refused is made up for as soon as it allows, within the same period. */
  private async poll({ path, weight }: Poll): Promise<void> {
    const until = await this.ask(path, weight);
    if (until === null || this.stopped || until - Date.now() > LONGEST_POLL_WAIT_MS) return;
    await this.wait(Math.max(until - Date.now(), FIRST_RETRY_MS));
    if (!this.stopped) await this.ask(path, weight);
  }

  /** Asks once and feeds the answer. @returns null when served, else when to ask again (ms) */
  private async ask(path: string, weight: number): Promise<number | null> {
    const answer = await this.rest.get(path, weight);
    if (this.stopped) return null;
    if (answer.kind === 'ok') {
      this.feed.rest(path, answer.body, nowMicros(), this);
      return null;
    }
    this.count('request_failed', answer.kind);
    const { exchange } = this.module;
    this.log.warn({ event: 'request_failed', exchange, path, reason: answer.reason });
    return answer.kind === 'wait' ? answer.until : Date.now();
  }

  private fetchNeeded(now: number): void {
    for (const request of this.feed.requests()) {
      if (this.running >= MAX_REQUESTS) return;
      let retry = this.retries.get(request.path);
      if (!retry) this.retries.set(request.path, (retry = { notBefore: 0, attempts: 0, running: false }));
      if (retry.running || now < retry.notBefore) continue;
      void this.fetch(request, retry);
    }
  }

  private async fetch(request: RestRequest, retry: Retry): Promise<void> {
    retry.running = true;
    this.running += 1;
    const until = await this.ask(request.path, request.weight);
    this.running -= 1;
    retry.running = false;
    const now = Date.now();
    // A snapshot older than the first held diff is normal in a race, and asked for again soon.
    const served = until === null && !this.feed.requests().some((each) => each.path === request.path);
    retry.attempts = served ? 0 : retry.attempts + 1;
    const wait =
      retry.attempts === 0 ? FIRST_RETRY_MS : Math.min(FIRST_RETRY_MS * 2 ** (retry.attempts - 1), LAST_RETRY_MS);
    retry.notBefore = Math.max(until ?? 0, now + wait);
  }

  private count(kind: string, reason: string): number {
    const full = this.events.size >= MAX_REASONS && !this.events.has(`${kind} ${reason}`);
    const name = full ? 'other' : reason;
    const key = `${kind} ${name}`;
    const entry = this.events.get(key) ?? { kind, reason: name, count: 0 };
    entry.count += 1;
    this.events.set(key, entry);
    return entry.count;
  }
}

/** What an event is counted under. */
function reasonOf(event: FeedEvent): string {
  if (event.kind === 'resync') return event.cause;
  if (event.kind === 'ack') return event.error ? 'error' : 'ok';
  return 'reason' in event ? event.reason : event.kind;
}

function isPowerOfTwo(count: number): boolean {
  return (count & (count - 1)) === 0;
}

function streamKey(type: DataType, instrument: string): string {
  return `${type} ${instrument}`;
}

/** The natural key as one value; numeric where it rises. */
function distinctKey<T extends DataType>(type: T, row: Rows[T]): number | string {
  const values = row as unknown as Record<string, unknown>;
  const [first, ...rest] = TABLES[type].key.map((member) => values[member]);
  if (rest.length > 0 && rest.some((value) => value !== false)) return [first, ...rest].join(' ');
  const number = Number(first);
  return Number.isSafeInteger(number) ? number : String(first);
}
