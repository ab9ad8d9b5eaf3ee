/** One exchange inside the collector: its sockets, its feed, its snapshots, and what is known of each stream. */
import { Cron } from 'croner';
import { checkLimits, instrumentsOf } from './asked_instruments.ts';
import type { Batcher } from './batcher.ts';
import type { Config } from './config.ts';
import { type BookQuality, Coverage, type StreamState, type StreamStatus, statusOf } from './coverage.ts';
import { DistinctCounter, distinctKey } from './distinct.ts';
import type {
  Connection,
  ExchangeModule,
  Feed,
  FeedEvent,
  FeedOptions,
  FeedOutput,
  History,
  IdRange,
  Instrument,
  Mark,
  Poll,
  RestRequest,
  UnnumberedType,
} from './exchange.ts';
import { gapRow } from './gap_rows.ts';
import type { Logger } from './log.ts';
import { pause } from './pause.ts';
import { PerStream } from './per_stream.ts';
import { DATA_TYPES, type DataType, type LevelTexts, type RowSource, type Rows } from './rows.ts';
import type { Check } from './service.ts';
import { SilenceWatch } from './silence.ts';
import { steadyNow, wallTime } from './steady.ts';
import { UnknownSample } from './unknown.ts';
import { nowMicros } from './venue_connection.ts';
import { VenueRest } from './venue_rest.ts';
import { VenueSocket } from './venue_socket.ts';

/** How often the feed is asked what it needs; a snapshot is late by at most this. */
const REQUEST_CHECK_MS = 50;
/** Waits between snapshot requests of one symbol: doubling from the first to the last. */
const FIRST_RETRY_MS = 500;
const LAST_RETRY_MS = 30_000;
/** A poll refused for longer than this waits for its next round. */
const LONGEST_POLL_WAIT_MS = 60_000;
/** Requests under way to one host. */
const MAX_REQUESTS = 2;
/** Connections that may be opened at once after a while without any; no venue allows fewer. */
const OPENING_BURST = 3;
/** Filling gaps leaves half of our share of the venue's weight for what is needed now. */
const HISTORY_SHARE = 0.25;
/** How often the sockets' streams are looked at for silence. */
const SILENCE_CHECK_MS = 1000;
/** At a start, other collectors that follow the streams answer within milliseconds. */
const ANSWERS_WITHIN_MS = 250;
/** Distinct reasons that are counted apart; garbage could make up any number of them. */
const MAX_REASONS = 200;

interface Retry {
  notBefore: number;
  attempts: number;
  running: boolean;
}

/** Told as it happens, for metrics. */
export interface RunnerHooks {
  /** A frame with a book update was read. */
  bookFrame(exchange: string, seconds: number): void;
  request(endpoint: string, method: string, seconds: number): void;
}

/** Where the rows of a runner go. */
export interface RowSink {
  batcher: Batcher;
  /** Rows were added. */
  rowsWait(): void;
  /** The newest rows of an instrument that were received before this start, oldest first. */
  lastRows(type: UnnumberedType, instrument: Instrument): Promise<Mark[]>;
  /** Whether another collector has missed nothing of this stream after this row. */
  isFollowedByOthers(type: UnnumberedType, instrument: Instrument, after: Mark): Promise<boolean>;
}

export class ExchangeRunner implements FeedOutput {
  readonly sockets: VenueSocket[] = [];
  readonly rest: VenueRest;
  private readonly wsHost: string;
  private readonly feedOptions: FeedOptions;
  private readonly connections: Connection[];
  private readonly polls: Poll[];
  private readonly crons: Cron[] = [];
  private readonly feed: Feed;
  private readonly coverageBoard = new Coverage();
  private readonly watches = new Map<VenueSocket, SilenceWatch>();
  private readonly distinct = new PerStream<DistinctCounter>();
  private readonly events = new Map<string, { kind: string; reason: string; count: number }>();
  private readonly retries = new Map<string, Retry>();
  private readonly polling = new Set<Poll>();
  private readonly timers: NodeJS.Timeout[];
  /** The socket whose frame is being read. */
  private reading: VenueSocket | null = null;
  private frame: { text: string; receivedAt: number } | null = null;
  /** What the frame being read has become: its first row's type, else its event's kind. */
  private frameType: string | null = null;
  private readonly frames = new Map<string, number>();
  private readonly requests = new Map<string, { instrument: Instrument; status: string; count: number }>();
  private readonly unknown: UnknownSample;
  /** By interrupted stream: after which row another collector goes on, as far as it has answered. */
  private readonly followed = new PerStream<Mark>();
  /** Questions to other collectors that have no answer yet. */
  private readonly asking = new Set<Promise<void>>();
  private running = 0;
  /** Frames read and requests ended, one way or the other. */
  private work = 0;
  private paused = false;
  /** The instrument lists are there: before, nobody can tell what an answer's sizes are in. */
  private isListed = false;
  /** When the next page of the past may be asked for; this and all waits here are by the steady clock, ms. */
  private nextHistoryAt = 0;
  /** When the next connection may be opened, ms. */
  private nextOpeningAt = 0;
  private readonly stopping = new AbortController();

  private get stopped(): boolean {
    return this.stopping.signal.aborted;
  }

  constructor(
    readonly module: ExchangeModule,
    private readonly config: Config,
    private readonly sink: RowSink,
    private readonly hooks: RunnerHooks,
    private readonly log: Logger,
  ) {
    const { exchange, restWeightPerMinute: weightPerMinute, restWeightHeader: weightHeader } = module;
    const { dataDir, blockedRetryMs } = config;
    const hosts = config.endpoints[exchange] ?? module.hosts;
    const instruments = instrumentsOf(module, config, log);
    this.wsHost = hosts.ws;
    this.unknown = new UnknownSample(dataDir, exchange);
    this.rest = new VenueRest({
      host: hosts.rest,
      dataDir,
      weightPerMinute,
      weightHeader,
      blockedRetryMs,
      onAnswer: hooks.request,
      log,
    });
    const { mode: dataSource, orderbookIntervalMs, liquidationDelayMs } = config;
    this.feedOptions = { instruments, dataSource, orderbookIntervalMs, liquidationDelayMs };
    this.feed = module.createFeed(this.feedOptions);
    this.connections = module.connections(instruments);
    checkLimits(module, this.connections);
    this.polls = module.polls?.(instruments) ?? [];
    for (const { types, instrument } of this.connections.flatMap((each) => each.channels)) {
      for (const type of types) this.coverageBoard.expect(type, instrument, 'socket');
    }
    for (const { type, instrument } of this.polls) {
      if (instrument !== null) this.coverageBoard.expect(type, instrument, 'poll');
    }
    this.timers = [
      setInterval(() => this.fetchNeeded(steadyNow()), REQUEST_CHECK_MS),
      setInterval(() => this.checkSilence(steadyNow()), SILENCE_CHECK_MS),
    ];
    void this.open();
  }

  /** Instrument lists first, where units come from them; then sockets, and what is polled. */
  private async open(): Promise<void> {
    const lists = this.module.instrumentLists ?? [];
    for (const { path, weight, optional } of lists) {
      if (optional) await this.ask(path, weight);
      else await this.fetchUntilServed(path, weight);
    }
    this.isListed = true;
    await this.remember();
    if (this.stopped) return;
    for (const connection of this.connections) this.sockets.push(this.openSocket(connection));
    if (this.paused) this.pause();
    for (const poll of this.polls) {
      // Once at the start, then shortly after the venue publishes.
      const ask = () => this.poll(poll);
      this.crons.push(new Cron(poll.cron, { protect: true, timezone: 'UTC' }, ask));
      void ask();
    }
    if (lists.length === 0) return;
    // Contract sizes change, and new instruments come. Each process at a time of its own within the hour.
    const [second, minute] = [Math.floor(Math.random() * 60), Math.floor(Math.random() * 60)];
    const reload = async () => {
      for (const { path, weight } of lists) await this.ask(path, weight);
    };
    this.crons.push(new Cron(`${second} ${minute} * * * *`, { protect: true, timezone: 'UTC' }, reload));
  }

  /** Where only known rows can tell whether any was missed, the last ones before this start are read. */
  private async remember(): Promise<void> {
    if (!this.feed.remember) return;
    for (const instrument of this.feedOptions.instruments) {
      for (const type of ['trade', 'orderbook_update'] as const) {
        const rows = await this.sink.lastRows(type, instrument);
        if (rows.length > 0) this.feed.remember(type, instrument, rows, this);
      }
    }
    // Before anything comes that may need the answers; where there are none, what is missed by waiting is worse.
    await Promise.race([Promise.all(this.asking), this.wait(ANSWERS_WITHIN_MS)]);
  }

  /** What it did so far, attempts included: it moves as long as the venue is read, or waited for. While its sockets are paused there is nothing to do. */
  get steps(): number {
    if (this.paused) this.work += 1;
    return this.sockets.reduce((sum, { state }) => sum + state.reconnects, this.work);
  }

  /** From when on nothing was missed of a stream that nothing numbers: venue time, ms; null where that is not known. */
  unbrokenSince(type: UnnumberedType, instrument: Instrument): number | null {
    return this.feed.unbrokenSince?.(type, instrument) ?? null;
  }

  private openSocket(connection: Connection): VenueSocket {
    const socket: VenueSocket = new VenueSocket({
      module: this.module,
      host: this.wsHost,
      connection,
      log: this.log,
      random: Math.random,
      openingWait: () => this.openingWait(steadyNow()),
      blockedRetryMs: this.config.blockedRetryMs,
      createProbe: () => this.module.createFeed(this.feedOptions),
      onFrame: (text, receivedAt) => {
        this.reading = socket;
        this.read(text, receivedAt);
      },
      onLost: () => this.feed.disconnected(connection.channels, this),
    });
    const { exchange } = this.module;
    const { path } = connection;
    const watch = new SilenceWatch(connection.channels, this.coverageBoard, {
      classSilent: (type, seconds) => {
        this.count('silent', type);
        this.log.warn({ event: 'class_silent', exchange, path, type, seconds });
        socket.renew(`no ${type} for ${seconds} s`);
      },
      neverDelivered: (streams) => {
        for (const { type, instrument } of streams) {
          this.count('never_delivered', type);
          this.log.warn({ event: 'never_delivered', exchange, path, type, instrument: instrument.instrument });
        }
        socket.renew(`${streams.length} streams were granted and gave nothing`);
      },
    });
    this.watches.set(socket, watch);
    return socket;
  }

  private read(text: string, receivedAt: number): void {
    const begun = performance.now();
    this.work += 1;
    this.frame = { text, receivedAt };
    this.frameType = null;
    this.feed.frame(text, receivedAt, this);
    this.frame = null;
    const type: string = this.frameType ?? 'other';
    this.frames.set(type, (this.frames.get(type) ?? 0) + 1);
    if (type === 'orderbook_update') this.hooks.bookFrame(this.module.exchange, (performance.now() - begun) / 1000);
  }

  /** Venues limit the connections that one address may open in a time: each takes its place in the row. */
  private openingWait(now: number): number {
    const interval = 1000 / this.module.connectsPerSecond;
    const at = Math.max(this.nextOpeningAt, now - (OPENING_BURST - 1) * interval);
    this.nextOpeningAt = at + interval;
    return Math.max(at - now, 0);
  }

  private checkSilence(now: number): void {
    if (this.paused) return;
    for (const [socket, watch] of this.watches) {
      if (socket.openedAt !== null && socket.state.connected) watch.check(now, socket.openedAt);
    }
  }

  row<T extends DataType>(type: T, row: Rows[T], texts?: LevelTexts): void {
    this.sink.batcher.add(type, row, texts);
    this.sink.rowsWait();
    this.frameType ??= type;
    const now = steadyNow();
    this.coverageBoard.row(type, row.instrument, now);
    if (type === 'orderbook_update') {
      this.coverageBoard.bookUpdate(row.instrument, now, (row as Rows['orderbook_update']).is_snapshot);
    } else if (type === 'orderbook') {
      this.coverageBoard.bookPublished(row.instrument, now, (row as Rows['orderbook']).verified);
    }
    this.countDistinct(type, row);
  }

  private countDistinct<T extends DataType>(type: T, row: Rows[T]): void {
    let counter = this.distinct.get(type, row.instrument);
    if (!counter) this.distinct.set(type, row.instrument, (counter = new DistinctCounter()));
    counter.add(distinctKey(type, row));
  }

  event(event: FeedEvent): void {
    const reason = reasonOf(event);
    this.frameType ??= event.kind;
    const count = this.count(event.kind, reason);
    if (event.kind === 'ack') this.reading?.onAck(event.id, event.error, event.granted);
    else if (event.kind === 'closing') this.reading?.renew(event.reason);
    else if (event.kind === 'reply') this.reading?.reply(event.text);
    else if (event.kind === 'resubscribe') for (const socket of this.sockets) socket.resubscribe(event.channels);
    else if (event.kind === 'resync') {
      const { symbol, exchange, instrument } = event.instrument;
      this.coverageBoard.bookBroken(instrument, steadyNow());
      this.log.warn({ event: 'resync', exchange, symbol, cause: event.cause, last: event.last, next: event.next });
    } else if (event.kind === 'interrupted') {
      const asking = this.askOthers(event).finally(() => this.asking.delete(asking));
      this.asking.add(asking);
    } else if (event.kind === 'unprovable') {
      this.unprovable(event);
    } else if (event.kind === 'rejected') {
      this.keepSample(reason);
      // A storm of garbage must not become a storm of log lines: the 1st, 2nd, 4th, 8th … of a reason is told.
      if (!isPowerOfTwo(count)) return;
      this.log.warn({ event: 'frame_rejected', exchange: this.module.exchange, reason, count });
    }
  }

  /**
   * Asked when a stream is interrupted, not when it goes on: by then it must be known what is declared, as a collector that is killed while
   * it asks would have forgotten what it asked for.
   */
  private async askOthers({ type, instrument, after }: FeedEvent & { kind: 'interrupted' }): Promise<void> {
    const id = instrument.instrument;
    if (this.followed.get(type, id)?.id === after.id) return;
    if (await this.sink.isFollowedByOthers(type, instrument, after)) this.followed.set(type, id, after);
  }

  /**
   * Rows may be missing, as far as this collector knows. Nothing is if another one followed the stream when this one lost it, and still does:
   * what that one missed meanwhile, it would tell itself, but it may be gone for good.
   */
  private unprovable(event: FeedEvent & { kind: 'unprovable' }): void {
    const { type, instrument, after } = event;
    const wasFollowed = this.followed.get(type, instrument.instrument)?.id === after.id;
    if (wasFollowed) void this.askAgain(event);
    else this.declare(event);
  }

  private async askAgain(event: FeedEvent & { kind: 'unprovable' }): Promise<void> {
    const { type, instrument, after, before } = event;
    if (!(await this.sink.isFollowedByOthers(type, instrument, after))) {
      this.declare(event);
      return;
    }
    const { exchange, symbol } = instrument;
    this.log.info({ event: 'gap_bridged', exchange, symbol, type, after, before });
  }

  private declare({ type, instrument, after, before }: FeedEvent & { kind: 'unprovable' }): void {
    const { exchange, symbol } = instrument;
    const isBook = type === 'orderbook_update';
    const gap = gapRow({ dataSource: this.config.mode }, Date.now(), {
      stream: instrument,
      data_type: type,
      // A book's id is its time: the gap is named as by whoever sees it in what is stored.
      from_id: isBook ? String(after.time + 1) : after.id,
      to_id: isBook ? String(before.time - 1) : before.id,
      from_time: after.time,
      to_time: before.time,
      cause: 'outage',
      status: 'unfillable',
      rows: null,
      reason: 'the venue does not number these: whether any is missing cannot be known',
    });
    this.sink.batcher.add('gap', gap);
    this.sink.rowsWait();
    this.log.warn({ event: 'gap_unprovable', exchange, symbol, type, after, before });
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
    for (const timer of this.timers) clearInterval(timer);
    for (const socket of this.sockets) socket.stop();
    for (const cron of this.crons) cron.stop();
    void this.rest.close();
  }

  /** Distinct rows accepted, per type. */
  received(): { exchange: string; data_type: DataType; received: number }[] {
    return DATA_TYPES.flatMap((type) => {
      const counters = this.distinct.values(type);
      if (counters.length === 0) return [];
      const received = counters.reduce((sum, { count }) => sum + count, 0);
      return [{ exchange: this.module.exchange, data_type: type, received }];
    });
  }

  eventCounts() {
    return this.events.values();
  }

  eventCount(kind: string, reason: string): number {
    return this.events.get(`${kind} ${reason}`)?.count ?? 0;
  }

  /** Frames by what they became: a type of rows, or a kind of event. */
  frameCounts() {
    return [...this.frames];
  }

  /** What the feed needed fetched, by how that ended. */
  feedRequests() {
    return [...this.requests.values()];
  }

  /** Streams that were asked for and never gave a row. */
  silentStreams(): StreamState[] {
    return this.coverageBoard.silent;
  }

  /** How long each book could be trusted. @param now steady clock, ms; the times that are told are the wall clock's */
  bookQuality(now = steadyNow()): BookQuality[] {
    return this.coverageBoard
      .quality(now)
      .map(({ last_update_ts: at, ...quality }) => ({ ...quality, last_update_ts: at === null ? null : wallTime(at) }));
  }

  /** Whether the source of streams of this kind refuses us. */
  private isBlocked(source: StreamState['source'], now: number): boolean {
    return source === 'poll' ? this.rest.blocked(now) : this.sockets.some((socket) => socket.state.blocked);
  }

  /** @param now the time to judge at, steady clock, ms */
  check(now = steadyNow()): Check {
    const down = this.sockets.filter((socket) => !socket.state.connected);
    const missing = this.sockets.flatMap((socket) => socket.state.missing);
    // Hours without a liquidation are normal, so its age is only a hint.
    const judged = this.coverageBoard.all.filter((stream) => stream.type !== 'liquidation');
    const stale = judged.filter((stream) => this.status(stream, now) !== 'healthy');
    const refused = this.rest.refused(now);
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
            : refused;
    return {
      status: message === null ? 'healthy' : down.length > 0 || stale.length > 0 ? 'unhealthy' : 'degraded',
      error_message: message,
      response_time: this.rest.lastSeconds,
      details: {
        sockets: this.sockets.map((socket) => socket.state),
        events: [...this.events.values()],
      },
    };
  }

  /** Every stream that was asked for, with the age of its last row. @param now steady clock, ms; the times that are told are the wall clock's */
  coverage(now = steadyNow()) {
    return this.coverageBoard.all.map((stream) => ({
      type: stream.type,
      instrument: stream.instrument,
      last_success_ts: stream.lastRowAt === null ? null : wallTime(stream.lastRowAt),
      age_seconds: stream.lastRowAt === null ? null : (now - stream.lastRowAt) / 1000,
      rows: stream.rows,
      status: this.status(stream, now),
    }));
  }

  private status(stream: StreamState, now: number): StreamStatus {
    return statusOf(stream, now, this.isBlocked(stream.source, now));
  }

  /** Ends early at a stop; who waits asks `stopped` then. */
  private wait(ms: number): Promise<void> {
    return pause(ms, this.stopping.signal).catch(() => undefined);
  }

  private async fetchUntilServed(path: string, weight: number): Promise<void> {
    for (let wait = FIRST_RETRY_MS; !this.stopped; wait = Math.min(wait * 2, LAST_RETRY_MS)) {
      const until = await this.ask(path, weight);
      if (until === null) return;
      await this.wait(Math.max(until - steadyNow(), wait));
    }
  }

  /** One round of a poll; a round that the venue refused is made up for as soon as it allows, within the same period. */
  private async poll(poll: Poll): Promise<void> {
    // A slow round delays the next one instead of meeting it.
    if (this.polling.has(poll)) return;
    this.polling.add(poll);
    const { path, weight } = poll;
    const ask = () => this.ask(typeof path === 'string' ? path : path(Date.now()), weight);
    const until = await ask();
    if (until !== null && !this.stopped && until - steadyNow() <= LONGEST_POLL_WAIT_MS) {
      await this.wait(Math.max(until - steadyNow(), FIRST_RETRY_MS));
      if (!this.stopped) await ask();
    }
    this.polling.delete(poll);
  }

  /** Asks once and feeds the answer. @returns null when served, else when to ask again */
  private async ask(path: string, weight: number): Promise<number | null> {
    const answer = await this.rest.ask(path, weight, this.module.postBody?.(path) ?? null);
    this.work += 1;
    if (this.stopped) return null;
    if (answer.kind === 'ok') {
      if (this.feed.rest(path, answer.body, nowMicros(), this)) return null;
      this.count('request_failed', 'answer');
      return steadyNow();
    }
    this.count('request_failed', answer.kind);
    const { exchange } = this.module;
    this.log.warn({ event: 'request_failed', exchange, path, reason: answer.reason });
    return answer.kind === 'wait' ? answer.until : steadyNow();
  }

  /**
   * Fetches one page of the past, and takes the rows of `type` with an id within `range`.
   * @returns the ids of all rows of that type in the page, or when to ask again (steady clock, ms); a limit that is obeyed is no failure.
   * `refusal`: the venue's word that it does not take such a request
   */
  async fetchHistory(
    { path, weight }: { path: string; weight: number },
    type: DataType,
    range: IdRange,
    idMember: History['idMember'],
    dataSource: string,
  ): Promise<{ ids: number[] } | { retryAt: number; isFailure: boolean; refusal: string | null }> {
    if (!this.isListed) return { retryAt: steadyNow() + FIRST_RETRY_MS, isFailure: false, refusal: null };
    await this.historyTurn(weight);
    const answer = await this.rest.ask(path, weight, this.module.postBody?.(path) ?? null, HISTORY_SHARE);
    if (answer.kind !== 'ok') {
      this.count('history_failed', answer.kind);
      if (answer.kind === 'wait') return { retryAt: answer.until, isFailure: false, refusal: null };
      return { retryAt: steadyNow(), isFailure: true, refusal: answer.isOurs ? answer.reason : null };
    }
    const ids: number[] = [];
    const row = <T extends DataType>(rowType: T, row: Rows[T]) => {
      if (rowType !== type) return;
      const id = Number((row as RowSource & Partial<Rows['trade']>)[idMember]);
      ids.push(id);
      if (id < range.from || id > range.to) return;
      this.sink.batcher.add(rowType, { ...row, data_source: dataSource });
      this.sink.rowsWait();
      this.countDistinct(rowType, row);
    };
    let rejected = 0;
    const event = (each: FeedEvent) => {
      rejected += each.kind === 'rejected' ? 1 : 0;
      this.event(each);
    };
    const understood = this.feed.rest(path, answer.body, nowMicros(), { row, event });
    // Rows that nobody understands are there all the same: that is no word on what the venue has.
    if (understood && (ids.length > 0 || rejected === 0)) return { ids };
    this.count('history_failed', 'answer');
    return { retryAt: steadyNow(), isFailure: true, refusal: null };
  }

  /** Spread over the minute, as venues limit bursts, too: OKX counts in windows of two seconds. */
  private async historyTurn(weight: number): Promise<void> {
    const intervalMs = (60_000 * weight) / (this.module.restWeightPerMinute * HISTORY_SHARE);
    const at = Math.max(this.nextHistoryAt, steadyNow());
    this.nextHistoryAt = at + intervalMs;
    await this.wait(at - steadyNow());
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
    this.countRequest(request.instrument, until === null ? 'ok' : 'failed');
    const now = steadyNow();
    // A snapshot older than the first held diff is normal in a race, and asked for again soon.
    const served = until === null && !this.feed.requests().some((each) => each.path === request.path);
    if (served) {
      // The next one may be for another path, and never for this one again.
      this.retries.delete(request.path);
      return;
    }
    retry.attempts += 1;
    const wait = Math.min(FIRST_RETRY_MS * 2 ** (retry.attempts - 1), LAST_RETRY_MS);
    retry.notBefore = Math.max(until ?? 0, now + wait);
  }

  private countRequest(instrument: Instrument, status: string): void {
    const key = `${instrument.instrument} ${status}`;
    const entry = this.requests.get(key) ?? { instrument, status, count: 0 };
    entry.count += 1;
    this.requests.set(key, entry);
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
