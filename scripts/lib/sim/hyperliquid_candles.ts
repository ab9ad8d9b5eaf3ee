/**
 * Candles on a socket: the one under way as it changes, and each once more as it ended.
 *
 * Source: the venue's API documents have the shape; how often it is told they do not say. Here a coin with a market is told each second in which
 * it changed, one without each ten seconds.
 */
import type { HyperliquidChart } from './hyperliquid_chart.ts';
import { type Subscription, streamOf } from './hyperliquid_source.ts';
import { INTERVALS } from './intervals.ts';
import type { Peer, Topic, Wire } from './venue.ts';

const SECOND_MS = 1000;
/** Between two frames of one stream, for a coin whose price is a function of time. */
const PACE_SECONDS = 10;

interface CandleTopic {
  readonly topic: Topic;
  readonly chart: HyperliquidChart;
  readonly interval: string;
  readonly width: number;
  /** The second of its ten in which it is told. */
  readonly turn: number;
  /** What was told last. */
  start: number;
  text: string;
}

export class CandleTopics {
  private readonly topics = new Map<string, CandleTopic>();

  constructor(
    private readonly charts: ReadonlyMap<string, HyperliquidChart>,
    private readonly wire: Wire,
  ) {}

  /** A new reader is told how the candle stands when it changes next. */
  subscribe(peer: Peer, subscription: Subscription): void {
    const { coin, interval = '1m' } = subscription;
    const name = streamOf(subscription);
    let found = this.topics.get(name);
    if (!found) {
      const chart = this.charts.get(coin) as HyperliquidChart;
      const topic = this.wire.topic(name, 'candle', `${coin}-USDC`, null, { counter: 'reading_frames' });
      const turn = this.topics.size % PACE_SECONDS;
      found = { topic, chart, interval, width: INTERVALS[interval], turn, start: 0, text: '' };
      this.topics.set(name, found);
    }
    found.topic.subscribers.add(peer);
  }

  unsubscribe(peer: Peer, stream: string): void {
    this.topics.get(stream)?.topic.subscribers.delete(peer);
  }

  leave(peer: Peer): void {
    for (const { topic } of this.topics.values()) topic.subscribers.delete(peer);
  }

  /** @param at the beginning of a second, ms */
  tell(at: number): void {
    for (const each of this.topics.values()) {
      if (each.topic.subscribers.size === 0) continue;
      const start = Math.floor(at / each.width) * each.width;
      // What was told of the last one may not be how it ended.
      if (start !== each.start && each.start > 0) this.publish(each, each.start, at);
      const isTurn = each.chart.hasMarket || (at / SECOND_MS) % PACE_SECONDS === each.turn;
      if (isTurn) this.publish(each, start, at);
      else if (start !== each.start) each.start = 0;
    }
  }

  private publish(each: CandleTopic, start: number, at: number): void {
    const { topic, chart, interval, width } = each;
    const candle = chart.candle(start, width, at);
    if (candle === null) return;
    const text = chart.text(candle, interval, width);
    if (start === each.start && text === each.text) return;
    Object.assign(each, { start, text });
    this.wire.publish(topic, at, `{"channel":"candle","data":${text}}`);
  }
}
