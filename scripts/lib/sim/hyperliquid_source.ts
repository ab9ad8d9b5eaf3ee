/** Where the data of a simulated Hyperliquid comes from, and how its streams are named. */
import type { InfoSource } from './hyperliquid_rest.ts';
import type { Peer } from './venue.ts';

/** A subscription as the venue repeats it, with its defaults filled in. */
export interface Subscription {
  readonly type: 'trades' | 'l2Book' | 'bbo' | 'activeAssetCtx' | 'allMids';
  /** Empty where a stream is about all coins. */
  readonly coin: string;
  readonly fast: boolean;
}

/** A seeded market or a recorded session. */
export interface HyperliquidSource extends InfoSource {
  /** True when streams of this coin can be subscribed. */
  isTraded(coin: string): boolean;
  subscribe(peer: Peer, subscription: Subscription): void;
  unsubscribe(peer: Peer, subscription: Subscription): void;
  leave(peer: Peer): void;
  advance(now: number): void;
  stop(): void;
  start(now: number): void;
  done(): boolean | null;
}

/** A name for each stream: `trades:BTC`, `l2Book:BTC`, `l2Book:BTC:fast`, `allMids`. */
export function streamOf({ type, coin, fast }: Subscription): string {
  return `${type}${coin === '' ? '' : `:${coin}`}${fast ? ':fast' : ''}`;
}
