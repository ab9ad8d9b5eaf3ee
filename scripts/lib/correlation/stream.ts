/**
 * Candles over sockets. A candle is finished when a later one of its series has come on the same subscription: only then was it told as it
 * ended. With a lost connection all that is unfinished is forgotten, and what may be missed is asked for over REST.
 */
import { hyperliquid } from '../../exchanges/hyperliquid.ts';
import type { Config } from '../config.ts';
import type { Channel, Connection, ExchangeModule, Feed, FeedOutput } from '../exchange.ts';
import type { Logger } from '../log.ts';
import { VenueSocket } from '../venue_socket.ts';
import { record, type WireRecord } from '../wire.ts';
import {
  type Candle,
  candleOf,
  EXCHANGE,
  GRACE_MS,
  MARKET_TYPE,
  type SeriesName,
  seriesKey,
  symbolOf,
} from './candles.ts';
import { TIMEFRAMES } from './periods.ts';

/** Of the 1000 subscriptions and 10 connections of an address the collector needs some. */
const CHANNELS_PER_CONNECTION = 200;
const MOST_CONNECTIONS = 4;
/** Finished candles that wait to be kept; a series that has more is begun anew over REST. */
const MOST_WAITING = 2000;
const OPENING_MS = 2000;

/** What a subscription has told of a series. */
interface Live {
  /** The first candle that it told: from here on nothing is missed. ms. */
  since: number;
  /** As it was told last; not finished yet. */
  current: Candle;
  /** Finished ones, ascending, that nobody has taken. */
  waiting: Candle[];
}

/** The pure core: frames of any connections to finished candles. */
export class CandleTape {
  readonly figures = { frames: 0, bad: 0, dropped: 0 };
  private readonly live = new Map<string, Live>();

  constructor(private readonly log: Logger) {}

  /** A candle as the venue tells it now. */
  take(candle: Candle): void {
    this.figures.frames += 1;
    const key = seriesKey(candle);
    const live = this.live.get(key);
    if (live === undefined) {
      this.live.set(key, { since: candle.start, current: candle, waiting: [] });
      return;
    }
    // One that was finished is told again: what it says is compared when the venue is asked.
    if (candle.start < live.current.start) return;
    if (candle.start > live.current.start) live.waiting.push(live.current);
    live.current = candle;
    if (live.waiting.length > MOST_WAITING) {
      this.figures.dropped += live.waiting.length;
      this.log.warn({ event: 'candles_not_taken', series: key, dropped: live.waiting.length });
      this.live.delete(key);
    }
  }

  /** The connection of these series is lost: what waits is asked for with what may be missed. */
  lost(series: readonly SeriesName[]): void {
    for (const each of series) this.live.delete(seriesKey(each));
  }

  /** The first candle since which nothing of a series is missed, ms; null while it is not subscribed. */
  since(series: SeriesName): number | null {
    return this.live.get(seriesKey(series))?.since ?? null;
  }

  /** Finished candles that are over at `now`, ascending: they are the taker's now. */
  finished(series: SeriesName, now: number): Candle[] {
    const live = this.live.get(seriesKey(series));
    if (live === undefined) return [];
    const width = TIMEFRAMES[series.timeframe];
    const count = live.waiting.filter(({ start }) => start + width + GRACE_MS <= now).length;
    return live.waiting.slice(0, count);
  }

  /** They are kept. */
  taken(series: SeriesName, last: number): void {
    const live = this.live.get(seriesKey(series));
    if (live === undefined) return;
    live.waiting = live.waiting.filter(({ start }) => start > last);
    live.since = Math.max(live.since, last);
  }
}

/** Sockets for series that are added as coins are listed. */
export class CandleStream {
  readonly tape: CandleTape;
  private readonly sockets: VenueSocket[] = [];
  private readonly subscribed = new Set<string>();
  /** Series for which there is no connection left. */
  unsubscribed = 0;
  private nextOpening = 0;

  constructor(
    private readonly config: Config,
    private readonly log: Logger,
    private readonly random: () => number = Math.random,
  ) {
    this.tape = new CandleTape(log);
  }

  /** Subscribes what is not subscribed yet. */
  want(series: readonly SeriesName[]): void {
    const fresh = series.filter((each) => !this.subscribed.has(seriesKey(each)));
    for (let from = 0; from < fresh.length; from += CHANNELS_PER_CONNECTION) {
      const some = fresh.slice(from, from + CHANNELS_PER_CONNECTION);
      if (this.sockets.length >= MOST_CONNECTIONS) {
        if (this.unsubscribed !== fresh.length - from)
          this.log.warn({ event: 'no_socket_left', series: fresh.length - from }, 'they are asked for over REST');
        this.unsubscribed = fresh.length - from;
        return;
      }
      for (const each of some) this.subscribed.add(seriesKey(each));
      this.sockets.push(this.open(some));
    }
  }

  get state() {
    const states = this.sockets.map(({ state }) => state);
    const sum = (member: 'reconnects' | 'frames') => states.reduce((total, each) => total + each[member], 0);
    return {
      connections: states.filter(({ connected }) => connected).length,
      of: states.length,
      reconnects: sum('reconnects'),
      frames: sum('frames'),
      not_granted: states.reduce((total, { missing }) => total + missing.length, 0),
    };
  }

  stop(): void {
    for (const socket of this.sockets) socket.stop();
  }

  private open(series: readonly SeriesName[]): VenueSocket {
    const connection: Connection = { path: '/ws', channels: series.map(channelOf) };
    const feed = new CandleFeed(
      (candle) => this.tape.take(candle),
      () => this.tape.figures.bad++,
    );
    const socket: VenueSocket = new VenueSocket({
      module: MODULE,
      host: (this.config.endpoints.hyperliquid ?? hyperliquid.hosts).ws,
      connection,
      log: this.log,
      random: this.random,
      openingWait: () => this.openingWait(),
      blockedRetryMs: this.config.blockedRetryMs,
      createProbe: () => new CandleFeed(),
      onFrame: (text, receivedAt) =>
        feed.frame(text, receivedAt, {
          row: () => undefined,
          event: (event) => {
            if (event.kind === 'ack') socket.onAck(event.id, event.error, event.granted);
            else if (event.kind === 'rejected')
              this.log.warn({ event: 'bad_frame', reason: event.reason, frame: text.slice(0, 300) });
          },
        }),
      onLost: () => this.tape.lost(series),
    });
    return socket;
  }

  /** The venue lets an address open 30 connections a minute. */
  private openingWait(): number {
    const now = performance.now();
    const at = Math.max(this.nextOpening, now);
    this.nextOpening = at + OPENING_MS;
    return Math.round(at - now);
  }
}

/** The venue as the project knows it, but for what is subscribed. */
const MODULE: ExchangeModule = {
  ...hyperliquid,
  subscribe: (channels) => channels.map((channel) => ({ id: null, text: control('subscribe', channel) })),
  unsubscribe: (channels) => channels.map((channel) => ({ id: null, text: control('unsubscribe', channel) })),
};

function channelOf({ coin, timeframe }: SeriesName): Channel {
  return {
    name: `candle:${coin}:${timeframe}`,
    types: [],
    instrument: { exchange: EXCHANGE, market_type: MARKET_TYPE, symbol: symbolOf(coin), instrument: coin },
  };
}

function control(method: string, { name }: Channel): string {
  const [type, coin, interval] = name.split(':');
  return JSON.stringify({ method, subscription: { type, coin, interval } });
}

/** Reads the frames of one connection. */
class CandleFeed implements Feed {
  constructor(
    private readonly onCandle: (candle: Candle) => void = () => undefined,
    private readonly onBad: () => void = () => undefined,
  ) {}

  frame(text: string, _receivedAt: number, out: FeedOutput): void {
    try {
      const { channel, data } = record(JSON.parse(text), 'frame');
      if (channel === 'candle') this.onCandle(candleOf(data));
      else if (channel === 'subscriptionResponse')
        out.event({ kind: 'ack', id: null, error: null, granted: grantedBy(record(data, 'data')) });
      else if (channel === 'error')
        out.event({ kind: 'ack', id: null, error: String(data).slice(0, 200), granted: null });
      else out.event({ kind: 'ignored', reason: String(channel) });
    } catch (error) {
      this.onBad();
      out.event({ kind: 'rejected', reason: (error as Error).message });
    }
  }

  rest(): boolean {
    return false;
  }

  requests(): [] {
    return [];
  }

  disconnected(): void {}
}

function grantedBy({ method, subscription }: WireRecord): string[] | null {
  const { type, coin, interval } = record(subscription, 'subscription');
  return method === 'subscribe' ? [`${String(type)}:${String(coin)}:${String(interval)}`] : null;
}
