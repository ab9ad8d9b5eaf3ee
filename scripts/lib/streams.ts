/** JetStream streams, durables and subjects: their one definition. */
import { DATA_TYPES, type DataType, type Exchange, type MarketType } from './rows.ts';

export const STREAM_NAMES = ['MARKET_DATA', 'ORDERBOOK_SNAP'] as const;
export type StreamName = (typeof STREAM_NAMES)[number];

export interface StreamDefinition {
  name: StreamName;
  types: DataType[];
  maxBytes: number;
  maxAgeMs: number;
  duplicateWindowMs: number;
  /** Messages that may be delivered and unacknowledged, per durable. */
  maxAckPending: number;
  /** Servers that keep it; absent: one where it is made, and as many as it has where it is there. */
  replicas?: number;
}

/** What the operator may set of the streams. */
export interface StreamSettings {
  /** Of all streams together; absent: the defaults. */
  streamMaxBytes?: number | undefined;
  streamReplicas?: number | undefined;
}

const GIB = 2 ** 30;
const HOUR_MS = 3_600_000;
const BOOK_TYPES: DataType[] = ['orderbook', 'orderbook_update'];

/** Default limits; `MARKETPRISM_STREAM_MAX_BYTES` scales both to a total. */
const DEFINITIONS: StreamDefinition[] = [
  {
    name: 'MARKET_DATA',
    types: DATA_TYPES.filter((type) => !BOOK_TYPES.includes(type)),
    maxBytes: 2 * GIB,
    maxAgeMs: 48 * HOUR_MS,
    duplicateWindowMs: 120_000,
    maxAckPending: 2000,
  },
  {
    name: 'ORDERBOOK_SNAP',
    types: BOOK_TYPES,
    maxBytes: 5 * GIB,
    maxAgeMs: 24 * HOUR_MS,
    duplicateWindowMs: 60_000,
    maxAckPending: 5000,
  },
];

/** The streams as configured, their sizes scaled so that together they take `streamMaxBytes`. */
export function streamDefinitions({ streamMaxBytes, streamReplicas }: StreamSettings = {}): StreamDefinition[] {
  const sum = DEFINITIONS.reduce((total, each) => total + each.maxBytes, 0);
  const bytes = streamMaxBytes ?? sum;
  const replicas = streamReplicas === undefined ? {} : { replicas: streamReplicas };
  return DEFINITIONS.map((each) => ({ ...each, maxBytes: Math.floor((each.maxBytes * bytes) / sum), ...replicas }));
}

export function streamOf(type: DataType): StreamDefinition {
  return DEFINITIONS.find((each) => each.types.includes(type))!;
}

/** The stream that takes a subject of ours. */
export function streamNameOf(subject: string): StreamName {
  return streamOf(subject.slice(0, subject.indexOf('.')) as DataType).name;
}

/** The store's durable of one data type. */
export function durableName(type: DataType): string {
  return `store_${type}`;
}

/** Whose rows a message carries. */
export interface Stream {
  type: DataType;
  exchange: Exchange;
  market_type: MarketType;
  symbol: string;
}

/** `{data_type}.{exchange}.{market_type}.{symbol}`; characters other than letters, digits, `-`, `_` are %-escaped. */
export function subjectOf(stream: Stream): string {
  return [stream.type, stream.exchange, stream.market_type, escapeToken(stream.symbol)].join('.');
}

function escapeToken(text: string): string {
  let out = '';
  for (const byte of Buffer.from(text, 'utf8')) {
    const character = String.fromCharCode(byte);
    out += /[A-Za-z0-9_-]/.test(character) ? character : `%${byte.toString(16).toUpperCase().padStart(2, '0')}`;
  }
  return out;
}

/** The stream of a subject, or null when it is none of ours. */
export function parseSubject(subject: string): Stream | null {
  const [type, exchange, marketType, token, ...rest] = subject.split('.');
  if (!type || !exchange || !marketType || !token || rest.length > 0) return null;
  if (!(DATA_TYPES as string[]).includes(type)) return null;
  try {
    return {
      type: type as DataType,
      exchange: exchange as Exchange,
      market_type: marketType as MarketType,
      symbol: decodeURIComponent(token),
    };
  } catch (error) {
    if (error instanceof URIError) return null;
    throw error;
  }
}
