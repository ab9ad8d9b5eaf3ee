/** Where the data of a simulated Hyperliquid comes from, and how its streams are named. */
import type { InfoSource } from './hyperliquid_rest.ts';
import type { Interval } from './intervals.ts';
import type { Peer } from './venue.ts';

/** A subscription as the venue repeats it, with its defaults filled in. */
export interface Subscription {
  readonly type: 'trades' | 'l2Book' | 'bbo' | 'activeAssetCtx' | 'allMids' | 'candle';
  /** Empty where a stream is about all coins. */
  readonly coin: string;
  readonly fast: boolean;
  /** Of candles. */
  readonly interval?: Interval;
}

/** A seeded market or a recorded session. */
export interface HyperliquidSource extends InfoSource {
  /** True when streams of this coin can be subscribed. */
  isTraded(coin: string): boolean;
  /** True when its candles can be subscribed; absent where only a recording is served. */
  hasCandles?(coin: string): boolean;
  /** From a time on (ms) until another, or until it is told otherwise, the coin follows BTC no longer. False: it has no such coin. */
  leaveBase?(coin: string, from: number, to: number | null): boolean;
  /** It follows again from this time on. False: it has no such coin, or that follows. */
  joinBase?(coin: string, at: number): boolean;
  subscribe(peer: Peer, subscription: Subscription): void;
  unsubscribe(peer: Peer, subscription: Subscription): void;
  leave(peer: Peer): void;
  advance(now: number): void;
  stop(): void;
  start(now: number): void;
  done(): boolean | null;
}

/** A name for each stream: `trades:BTC`, `l2Book:BTC`, `l2Book:BTC:fast`, `candle:BTC:5m`, `allMids`. */
export function streamOf({ type, coin, fast, interval }: Subscription): string {
  return [type, coin, fast ? 'fast' : '', interval ?? ''].filter((part) => part !== '').join(':');
}
