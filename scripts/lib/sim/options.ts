/** What a simulator is started with; every venue takes from it what concerns it. */
import type { Logger } from '../log.ts';
import type { Venue, Wire } from './venue.ts';

/** Trades kept per pair for the REST answers, where `tradeHistory` says nothing else. */
export const TRADE_HISTORY = 50_000;

export interface ReplayOptions {
  readonly exchange: string;
  readonly file: string;
  /** `max`: each connection at its own pace from the beginning; N: one clock at N times the recorded pace. */
  readonly speed?: number | 'max';
  readonly dropDiff?: number;
}

export interface SimulatorOptions {
  readonly port?: number;
  readonly seed?: number;
  readonly exchanges?: readonly string[];
  readonly symbols?: readonly string[];
  readonly tradesPerSecond?: number;
  readonly diffsPerSecond?: number;
  readonly liquidationsPerMinute?: number;
  readonly replays?: readonly ReplayOptions[];
  /** Instead of the venues' own heartbeat, for tests that cannot wait minutes. */
  readonly heartbeat?: { readonly pingEveryMs: number; readonly pongWithinMs: number };
  readonly tradeHistory?: number;
  /** Of Hyperliquid, beside those of `symbols`: candles alone, which have a past then; 0: none, and no past. */
  readonly perpetuals?: number;
  readonly log?: Logger;
}

/** Builds one venue over seeded markets, or over the recorded session that `options.replays` has for this name. */
export type VenueMaker = (name: string, wire: Wire, options: SimulatorOptions) => Venue;
