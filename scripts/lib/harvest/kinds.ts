/** What the harvest writes: seven kinds of rows, their members, their files, and which of them are tables of `marketprism_signals`. */
import { createHash } from 'node:crypto';
import { join } from 'node:path';
import type { Exchange, MarketType } from '../rows.ts';

export const HARVEST_KINDS = ['prices', 'orderbook', 'ofi', 'cvd', 'fusion', 'events', 'features'] as const;
export type HarvestKind = (typeof HARVEST_KINDS)[number];

/** What was received, as against what is derived from it: never spilled. Hot and cold hold these rows too, so they are no signals. */
export const RAW_KINDS = ['prices', 'orderbook'] as const satisfies readonly HarvestKind[];
export type RawKind = (typeof RAW_KINDS)[number];
/** Kinds with a table in `marketprism_signals`. */
export const SIGNAL_KINDS = ['ofi', 'cvd', 'fusion', 'events', 'features'] as const satisfies readonly HarvestKind[];
export type SignalKind = (typeof SIGNAL_KINDS)[number];

export function isRaw(kind: HarvestKind): kind is RawKind {
  return (RAW_KINDS as readonly string[]).includes(kind);
}

/** Members that every row ends with. */
export interface HarvestPlace {
  /** UTC, of ts_ms. */
  date: string;
  hour: string;
  source_tier: 'raw' | 'preview';
}

/** Members that all rows begin with; between them and the last ones each kind has its own. */
export interface HarvestRow extends HarvestPlace {
  [member: string]: unknown;
  kind: HarvestKind;
  /** Event time, ms. */
  ts_ms: number;
  /** When the newest frame that the row stands on arrived, ms. */
  recv_ts_ms: number;
  exchange: Exchange;
  market_type: MarketType;
  symbol: string;
  /** md5 of what makes the row one. */
  row_id: string;
  /** recv_ts_ms − ts_ms; null where the clocks differ so much that it would be negative. */
  latency_ms: number | null;
  /** How often the book of this symbol had to be begun anew. */
  reconnect_count: number;
  /** Trades of this symbol that are known to be missing, by the venue's numbers. */
  queue_dropped: number;
}

export interface Place {
  date: string;
  hour: string;
  symbol: string;
  kind: HarvestKind;
}

/** The folder of the harvest below the data directory. */
export function harvestRoot(dataDir: string): string {
  return join(dataDir, 'harvest');
}

/** `date=2026-11-30/hour=07/symbol=BTC-USDT/kind=ofi`, without a suffix. Symbols are names of files here: what may not be in one is escaped. */
export function placePath({ date, hour, symbol, kind }: Place): string {
  return join(`date=${date}`, `hour=${hour}`, `symbol=${encodeURIComponent(symbol)}`, `kind=${kind}`);
}

/** The place that a path below the harvest's folder names, whatever its suffix; null when it names none. */
export function placeOf(path: string): Place | null {
  const found = /^date=(\d{4}-\d\d-\d\d)\/hour=(\d\d)\/symbol=([^/]+)\/kind=([a-z]+)\./.exec(path);
  const kind = found?.[4] as HarvestKind;
  if (!found || !HARVEST_KINDS.includes(kind)) return null;
  return { date: found[1]!, hour: found[2]!, symbol: decodeURIComponent(found[3]!), kind };
}

/** UTC date and hour of a time in ms. */
export function dateHour(ms: number): { date: string; hour: string } {
  const text = new Date(ms).toISOString();
  return { date: text.slice(0, 10), hour: text.slice(11, 13) };
}

export function rowId(...identity: (string | number)[]): string {
  return createHash('md5').update(identity.join('|')).digest('hex');
}
