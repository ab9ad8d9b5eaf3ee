/** What every exchange module offers: endpoints, connections, and a feed that turns frames into rows. */
import type { ResyncCause } from './book.ts';
import type { Endpoint } from './config.ts';
import type { DataType, Exchange, LevelTexts, MarketType, Rows } from './rows.ts';

/** One tradable thing of a venue. */
export interface Instrument {
  exchange: Exchange;
  market_type: MarketType;
  symbol: string;
  /** The venue's own id. */
  instrument: string;
}

/** One subscription. */
export interface Channel {
  /** The venue's own name for it. */
  name: string;
  /** The types that its frames become. */
  types: DataType[];
  instrument: Instrument;
}

/** One socket: where it goes, and what it asks for. */
export interface Connection {
  /** Path and query after the host. */
  path: string;
  channels: Channel[];
}

/** A REST request that the feed needs answered; the answer goes back through `Feed.rest`. */
export interface RestRequest {
  instrument: Instrument;
  /** Path and query after the host. */
  path: string;
  /** The venue's cost of it in its own weight units. */
  weight: number;
}

/** A reading that the venue has no stream for. */
export interface Poll {
  type: DataType;
  /** Null: one request serves all instruments. */
  instrument: Instrument | null;
  /** Path and query after the host; a function where they name a time, ms since the epoch. */
  path: string | ((now: number) => string);
  weight: number;
  /** When to ask, as a cron pattern with seconds, shortly after the venue publishes. */
  cron: string;
}

/** A range of ids, both ends included. */
export interface IdRange {
  from: number;
  to: number;
}

/** How a venue serves the past of one instrument: rows in the order of an id, which for readings is their time in ms. */
export interface History {
  /** The member of a row that counts. */
  idMember: 'trade_id' | 'sequence' | 'timestamp';
  /** Whether a page has the lowest ids of what was asked for, or the highest. */
  order: 'ascending' | 'descending';
  /** The request for as much of `range` as one page holds. Its answer goes through `Feed.rest`, and becomes rows like any others. */
  page(instrument: Instrument, range: IdRange): { path: string; weight: number };
  /** What the venue keeps, where that is less than it had told live, such as "only the rates that were settled". */
  keeps?: string;
}

/** Types of which one row follows another in time. */
export const READING_TYPES = [
  'funding_rate',
  'open_interest',
  'lsr_top_position',
  'lsr_all_account',
  'volatility_index',
] as const satisfies DataType[];
export type ReadingType = (typeof READING_TYPES)[number];

/**
 * How a venue's readings of one type follow each other, so that a missing one can be told: one in each step of time, either at its
 * very beginning (ratios, candles) or the first one that was told in it.
 */
export interface ReadingSeries {
  type: ReadingType;
  /** ms; readings are counted as timestamp ÷ this. */
  stepMs: number;
  /**
   * Steps in a row that may be without a reading although nothing is missing, because the venue tells a reading seldom, or only
   * when it changed.
   */
  quietSteps: number;
  /** A column by which rows of this series are told apart from others of the table, such as `{ name: 'resolution', value: '60' }`. */
  of?: { name: string; value: string };
  /** Only these have the series; absent: all that have rows. */
  marketTypes?: MarketType[];
  /** Absent where the venue serves nothing of the past. */
  history?: History;
}

/** Types of which a venue may number no rows, so that only who was there all the time knows whether one was missed. */
export type UnnumberedType = 'trade' | 'orderbook_update';

/** One row: the venue's id, and its time in ms. */
export interface Mark {
  id: string;
  time: number;
}

/** What happened besides rows. Everything is counted by kind and reason; nothing is dropped in silence. */
export type FeedEvent =
  /** A book was dropped and is built anew. */
  | { kind: 'resync'; instrument: Instrument; cause: ResyncCause; last: number | null; next: number | null }
  /** A frame that is known and not stored: acknowledgements, heartbeats, tickers. */
  | { kind: 'ignored'; reason: string }
  /** An answer to a control message of ours; `granted` is the venue's list of what is subscribed, when that was asked. */
  | { kind: 'ack'; id: number | null; error: string | null; granted: string[] | null }
  /** The venue wants this sent back on the same socket (a heartbeat's answer). */
  | { kind: 'reply'; text: string }
  /** These channels, by name, must be subscribed anew: only that brings a new snapshot of their book. */
  | { kind: 'resubscribe'; channels: string[] }
  /** What follows `after` may be missed: the line was lost, or this feed has just been started. Of streams that nothing numbers. */
  | { kind: 'interrupted'; type: UnnumberedType; instrument: Instrument; after: Mark }
  /**
   * The stream goes on with `before`, and between the two any number of rows may be missing: nothing that this feed knows can tell. It was
   * told as interrupted with the same `after`.
   */
  | { kind: 'unprovable'; type: UnnumberedType; instrument: Instrument; after: Mark; before: Mark }
  /** Not understood, or not sound: no row came of it. */
  | { kind: 'rejected'; reason: string }
  /** The venue announced that it will close: open a new socket first. */
  | { kind: 'closing'; reason: string };

export interface FeedOutput {
  /** @param texts of the levels of an orderbook_update, where they were read as they are written */
  row<T extends DataType>(type: T, row: Rows[T], texts?: LevelTexts): void;
  event(event: FeedEvent): void;
}

/** The pure core of one venue: no clock, no socket. Neither `frame` nor `rest` throws on any input. */
export interface Feed {
  /** @param receivedAt when the frame arrived, µs since the epoch */
  frame(text: string, receivedAt: number, out: FeedOutput): void;
  /**
   * @param path path and query as requested, `body` the parsed JSON answer
   * @returns false when the answer as a whole was none, such as an error under HTTP 200
   */
  rest(path: string, body: unknown, receivedAt: number, out: FeedOutput): boolean;
  /** What must be fetched now, such as snapshots of books that have none. */
  requests(): RestRequest[];
  /** Rows of an instrument that are known from before the start, oldest first, so that what was missed since can be told. */
  remember?(type: UnnumberedType, instrument: Instrument, rows: Mark[], out: FeedOutput): void;
  /** From when on this feed has missed nothing of a stream that nothing numbers: venue time, ms; null while it is interrupted. */
  unbrokenSince?(type: UnnumberedType, instrument: Instrument): number | null;
  /** The socket with these channels was lost. */
  disconnected(channels: Channel[], out: FeedOutput): void;
}

export interface FeedOptions {
  /** What the frames are about; others are split by their quote's name until an instrument list comes. */
  instruments: Instrument[];
  dataSource: string;
  /** Of instruments that only their id tells of; absent: the venue's usual one. */
  marketType?: MarketType;
  /** ms of venue time between two orderbook rows; 0: one per applied update. */
  orderbookIntervalMs: number;
  /** ms after which a venue's history tells which trades were liquidations, where live trades do not; absent: the venue's. */
  liquidationDelayMs?: number | undefined;
}

export interface ExchangeModule {
  exchange: Exchange;
  marketTypes: MarketType[];
  /** The venue's real hosts. */
  hosts: Endpoint;
  /** The venue's instrument for a pair such as BTC-USDT. */
  instrument(symbol: string, marketType: MarketType): Instrument;
  /** What the venue's own id, such as BTC-27MAR26 or BTC-USD-260327-60000-C, stands for. @throws UsageError when it is none */
  instrumentOf(id: string): Instrument;
  connections(instruments: Instrument[]): Connection[];
  /** Control messages that subscribe `channels`, ids from `firstId` on; null where the venue's answers carry no id. */
  subscribe(channels: Channel[], firstId: number): { id: number | null; text: string }[];
  /** Control messages that end subscriptions, for venues whose books are rebuilt by subscribing anew. */
  unsubscribe?(channels: Channel[], firstId: number): { id: number | null; text: string }[];
  /** What the client must send so that the venue keeps the socket. */
  ping?: { text: string; everyMs: number };
  /** Lists to fetch before anything is subscribed: units, names. `optional`: without an answer it goes on all the same. */
  instrumentLists?: { path: string; weight: number; optional?: boolean }[];
  polls?(instruments: Instrument[]): Poll[];
  /** Where requests are posted: the JSON to post for such a path with query. The query itself is not sent then. */
  postBody?(path: string): string;
  /** Absent where trades have no ids that count, or the past is not served. */
  tradeHistory?: History;
  /** Readings of which a missing one is told. */
  readings?: ReadingSeries[];
  /** What comes over the socket of liquidations that have no ids and no past: while rows of this are missing, they may be, too. */
  besideLiquidations?: 'trade' | 'orderbook_update';
  /** A control message that asks for the list of what is subscribed, where the venue has one. */
  listSubscriptions?(id: number): string;
  createFeed(options: FeedOptions): Feed;
  /** Control messages per second that the venue allows on one socket. */
  messagesPerSecond: number;
  /** Subscriptions begun and ended that the venue allows on one connection in an hour, where it limits them. */
  subscribesPerHour?: number;
  /** The venue's budget of weight per minute, and the header that tells how much is used. */
  restWeightPerMinute: number;
  restWeightHeader: string;
  /** ms that the venue keeps a connection; absent: 24 hours. */
  socketLifeMs?: number;
  /** Connections that may be opened per second from one address. */
  connectsPerSecond: number;
  /** What one address may have open in all, where the venue limits it. */
  limits?: { connections: number; subscriptions: number };
  /** ms after which a silent socket counts as dead: the venue pings more often than that. */
  silenceLimitMs: number;
}
