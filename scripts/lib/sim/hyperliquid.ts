/**
 * Hyperliquid's perpetuals: the conversation on a socket, its limits, and how the venue is put together.
 *
 * Source: the venue's API documents, and error texts as clients met them. Limits hold for an address; here all clients have
 * one. Not simulated: spot, books of fewer digits, users' streams.
 */
import { z } from 'zod';
import { EXCHANGE } from './hyperliquid_coin.ts';
import { HyperliquidMarkets } from './hyperliquid_markets.ts';
import { HyperliquidReplay } from './hyperliquid_replay.ts';
import { InfoDesk, refusalOf } from './hyperliquid_rest.ts';
import { type HyperliquidSource, type Subscription, streamOf } from './hyperliquid_source.ts';
import { INTERVALS, type Interval } from './intervals.ts';
import type { VenueMaker } from './options.ts';
import type { ConnectionRules, Peer, RestAnswer, RestRequest, Session, Venue, Wire } from './venue.ts';

const CONNECTIONS = 10;
const NEW_CONNECTIONS_PER_MINUTE = 30;
const SUBSCRIPTIONS = 1000;
const MESSAGES_PER_MINUTE = 2000;
const MINUTE_MS = 60_000;
/** A client that says nothing for so long is closed; `{"method":"ping"}` is enough. */
const SILENCE_MS = 60_000;
/** Violation of a policy. */
const CLOSE_POLICY = 1008;

const coin = z.string();
const SUBSCRIPTION = z.discriminatedUnion('type', [
  z.object({ type: z.literal('trades'), coin }),
  z.object({
    type: z.literal('l2Book'),
    coin,
    nSigFigs: z.null().default(null),
    mantissa: z.null().default(null),
    fast: z.boolean().default(false),
  }),
  z.object({ type: z.literal('bbo'), coin }),
  z.object({ type: z.literal('activeAssetCtx'), coin }),
  z.object({ type: z.literal('allMids') }),
  z.object({
    type: z.literal('candle'),
    coin,
    interval: z.enum(Object.keys(INTERVALS) as [Interval, ...Interval[]]),
  }),
]);
const MESSAGE = z.discriminatedUnion('method', [
  z.object({ method: z.literal('ping') }),
  z.object({ method: z.literal('subscribe'), subscription: SUBSCRIPTION }),
  z.object({ method: z.literal('unsubscribe'), subscription: SUBSCRIPTION }),
]);

/** The venue over seeded markets or a recorded session. */
export const hyperliquidVenue: VenueMaker = (name, wire, options) => {
  const replay = options.replays?.find((each) => each.exchange === name);
  const source: HyperliquidSource = replay
    ? HyperliquidReplay.open(replay.file, wire, { speed: replay.speed ?? 'max', dropDiff: replay.dropDiff ?? 0 })
    : new HyperliquidMarkets(name, wire, options);
  return new Hyperliquid(source, wire, options.heartbeat?.pongWithinMs ?? SILENCE_MS);
};

class Hyperliquid implements Venue {
  readonly exchange = EXCHANGE;
  readonly rules: ConnectionRules;
  private readonly sessions = new Set<HyperliquidSession>();
  private readonly desk: InfoDesk;
  private readonly opened: MinuteCount;
  private readonly messages: MinuteCount;

  constructor(
    readonly source: HyperliquidSource,
    readonly wire: Wire,
    readonly silenceMs: number,
  ) {
    // The heartbeat is the client's, one level above that of WebSocket, and messages are counted by the minute.
    this.rules = {
      pingEveryMs: Number.POSITIVE_INFINITY,
      pongWithinMs: silenceMs,
      incomingPerSecond: Number.POSITIVE_INFINITY,
      streamsPerConnection: SUBSCRIPTIONS,
    };
    const { counters } = wire.ledger;
    this.opened = new MinuteCount(NEW_CONNECTIONS_PER_MINUTE, wire.clock);
    this.messages = new MinuteCount(MESSAGES_PER_MINUTE, wire.clock);
    this.desk = new InfoDesk(source, wire.clock, (type) => {
      if (type === 'l2Book') counters.snapshots++;
      else if (type === 'metaAndAssetCtxs' || type === 'fundingHistory') counters.reading_answers++;
    });
  }

  rest(request: RestRequest): RestAnswer {
    return this.desk.answer(request);
  }

  /** How long a refusal lasts the venue does not tell. */
  refusal(status: number): RestAnswer {
    return refusalOf(status);
  }

  hasSocketPath(path: string): boolean {
    return path === '/ws';
  }

  open(peer: Peer): Session {
    const { counters } = this.wire.ledger;
    if (!this.opened.take() || this.sessions.size >= CONNECTIONS) {
      counters.closed_rate++;
      peer.answer(errorOf(`Cannot open more than ${CONNECTIONS} connections`));
      peer.close(CLOSE_POLICY, 'too many connections');
      return { message: () => undefined, closed: () => undefined };
    }
    const session = new HyperliquidSession(this, peer);
    this.sessions.add(session);
    return session;
  }

  /** The venue announces nothing: a message that means nothing stands for it. */
  shutdownNotice(): string {
    return PONG;
  }

  garbage(place: number): string {
    const name = this.source.coins[0]?.name ?? 'BTC';
    const forms = [
      `{"channel":"trades","data":[{"coin":"${name}","side":"B","px":"1`,
      'upstream connect error or disconnect/reset before headers',
      `{"channel":"trades","data":[{"coin":"${name}","side":"B","px":null,"sz":"x","time":0,"tid":"none"}]}`,
      '[]',
      `{"channel":"l2Book","data":{"coin":"${name}","time":"now","levels":7}}`,
      `{"channel":"activeAssetCtx","data":{"coin":"${name}","ctx":null}}`,
    ];
    return forms[place % forms.length] as string;
  }

  leaveBase(symbol: string, from: number, to: number | null): boolean {
    return this.source.leaveBase?.(coinOf(symbol), from, to) ?? false;
  }

  joinBase(symbol: string, at: number): boolean {
    return this.source.joinBase?.(coinOf(symbol), at) ?? false;
  }

  advance(now: number): void {
    this.source.advance(now);
  }

  stop(): void {
    this.source.stop();
  }

  start(now: number): void {
    this.source.start(now);
  }

  replayDone(): boolean | null {
    return this.source.done();
  }

  /** True while the clients' messages are within the limit. */
  mayTalk(): boolean {
    return this.messages.take();
  }

  get mayHaveMore(): boolean {
    return [...this.sessions].reduce((sum, { subscribed }) => sum + subscribed, 0) < SUBSCRIPTIONS;
  }

  closed(session: HyperliquidSession): void {
    this.sessions.delete(session);
  }
}

class HyperliquidSession implements Session {
  private readonly streams = new Set<string>();
  private heardAt: number;

  constructor(
    private readonly venue: Hyperliquid,
    private readonly peer: Peer,
  ) {
    this.heardAt = venue.wire.clock();
  }

  get subscribed(): number {
    return this.streams.size;
  }

  message(text: string): void {
    const { venue, peer } = this;
    this.heardAt = venue.wire.clock();
    if (!venue.mayTalk()) {
      // What was on its way when the socket was closed arrives all the same.
      if (peer.open) venue.wire.ledger.counters.closed_rate++;
      peer.close(CLOSE_POLICY, 'too many messages');
      return;
    }
    const request = parsed(text);
    if (!request) peer.answer(errorOf(`Error parsing JSON into valid websocket request: ${text}`));
    else if (request.method === 'ping') peer.answer(PONG);
    else if (request.method === 'subscribe') this.subscribe(request.subscription);
    else this.unsubscribe(request.subscription);
  }

  /** Stricter than the venue's words, by which its own frames keep a connection too: a client that forgets to ping is found. */
  alive(now: number): boolean {
    return now - this.heardAt < this.venue.silenceMs;
  }

  shift(ms: number): void {
    this.heardAt += ms;
  }

  closed(): void {
    this.venue.source.leave(this.peer);
    this.venue.closed(this);
  }

  private subscribe(asked: z.output<typeof SUBSCRIPTION>): void {
    const { venue, peer } = this;
    const { faults, ledger } = venue.wire;
    const subscription = plain(asked);
    const stream = streamOf(subscription);
    const fault = this.objection(asked, subscription, stream);
    if (fault !== null) {
      peer.answer(errorOf(fault));
      return;
    }
    this.streams.add(stream);
    peer.answer(responseOf('subscribe', asked));
    if (faults.takeSilencedSubscribe()) ledger.counters.subscriptions_silenced++;
    else venue.source.subscribe(peer, subscription);
  }

  /** Why a subscription is refused, or null. */
  private objection(asked: object, { type, coin }: Subscription, stream: string): string | null {
    if (this.streams.has(stream)) return `Already subscribed: ${JSON.stringify(asked)}`;
    const { source } = this.venue;
    const isThere = type === 'allMids' || (type === 'candle' ? source.hasCandles?.(coin) : source.isTraded(coin));
    if (!isThere) return `Invalid subscription ${JSON.stringify(asked)}`;
    return this.venue.mayHaveMore ? null : `Cannot track more than ${SUBSCRIPTIONS} subscriptions`;
  }

  private unsubscribe(asked: z.output<typeof SUBSCRIPTION>): void {
    const subscription = plain(asked);
    if (!this.streams.delete(streamOf(subscription))) {
      this.peer.answer(errorOf(`Already unsubscribed: ${JSON.stringify(asked)}`));
      return;
    }
    this.venue.source.unsubscribe(this.peer, subscription);
    this.peer.answer(responseOf('unsubscribe', asked));
  }
}

/** Counts within minutes of the clock. */
class MinuteCount {
  private minute = 0;
  private count = 0;

  constructor(
    private readonly limit: number,
    private readonly clock: () => number,
  ) {}

  /** Takes one; false when it is one too many. */
  take(): boolean {
    const minute = Math.floor(this.clock() / MINUTE_MS);
    if (minute !== this.minute) this.count = 0;
    this.minute = minute;
    this.count++;
    return this.count <= this.limit;
  }
}

const PONG = '{"channel":"pong"}';

function parsed(text: string): z.output<typeof MESSAGE> | undefined {
  try {
    return MESSAGE.safeParse(JSON.parse(text)).data;
  } catch (error) {
    if (error instanceof SyntaxError) return undefined;
    throw error;
  }
}

function plain(asked: z.output<typeof SUBSCRIPTION>): Subscription {
  return {
    type: asked.type,
    coin: asked.type === 'allMids' ? '' : asked.coin,
    fast: asked.type === 'l2Book' && asked.fast,
    ...(asked.type === 'candle' && { interval: asked.interval }),
  };
}

function coinOf(symbol: string): string {
  return symbol.split('-')[0] as string;
}

function responseOf(method: string, subscription: object): string {
  return JSON.stringify({ channel: 'subscriptionResponse', data: { method, subscription } });
}

function errorOf(data: string): string {
  return JSON.stringify({ channel: 'error', data });
}
