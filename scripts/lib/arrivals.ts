/**
 * From messages to rows that may be inserted, without parsing a line: where each line's key and time stand is fixed by the
 * row text (rows.ts). Pure; the store asks the database and does the insert.
 */
import { type DataType, type Kind, leadingMembers, TABLES, textColumns } from './rows.ts';
import type { Stream } from './streams.ts';

/** Times of one stream further apart than this are looked up as spans of their own. */
const SPAN_GAP_MS = 60_000;
/** Spans a stream in one query; beyond it, near ones are joined. */
const MAX_SPANS = 50;

/** One row on its way: its text with the stream's epoch and sequence spliced in, and what identifies it. */
export interface Arrival {
  /** Latin-1 text whose characters are the bytes of the line, newline included. */
  line: string;
  /** Natural key within the stream, its members joined by tabs as the database prints them. */
  key: string;
  /** Event time, ms. */
  timestamp: number;
  /** The message it came in. */
  seq: number;
}

/** A line whose start is not what the row text prescribes. */
export interface Fault {
  line: string;
  reason: string;
  seq: number;
}

/** Arrivals of one (exchange, market_type, symbol). */
export interface StreamArrivals {
  stream: Stream;
  /** By key: the second copy of a key is dropped as it comes. */
  rows: Map<string, Arrival>;
}

interface Member {
  /** `"trade_id":"`, comma included where one is due. */
  open: string;
  /** What follows the value. */
  close: string;
  name: string;
  kind: Kind;
}

/** The variable leading members of a type: natural key, then the event time. */
function keyMembers(type: DataType): Member[] {
  const kinds = new Map(textColumns(type).map((column) => [column.name, column.kind!]));
  return leadingMembers(type)
    .slice(3)
    .map((name, index) => {
      const kind = kinds.get(name)!;
      const quote = kind === 'text' ? '"' : '';
      return { open: `${index === 0 ? '' : ','}"${name}":${quote}`, close: quote === '' ? ',' : '"', name, kind };
    });
}

/** Reads the lines of one stream's messages. */
export class LineReader {
  private readonly prefix: string;
  private readonly members: Member[];
  private readonly timeIsKey: boolean;

  constructor(readonly stream: Stream) {
    const { exchange, market_type, symbol } = stream;
    const head = `{"exchange":${JSON.stringify(exchange)},"market_type":${JSON.stringify(market_type)},"symbol":${JSON.stringify(symbol)},`;
    this.prefix = Buffer.from(head, 'utf8').toString('latin1');
    this.members = keyMembers(stream.type);
    this.timeIsKey = TABLES[stream.type].key.includes('timestamp');
  }

  /**
   * Adds the rows of a message to `into`.
   * @returns lines that cannot be read, and how many were second copies of a key
   */
  read(data: Uint8Array, epoch: number, seq: number, into: Map<string, Arrival>): { faults: Fault[]; copies: number } {
    const text = Buffer.from(data.buffer, data.byteOffset, data.byteLength).toString('latin1');
    const splice = `{"js_epoch":${epoch},"js_seq":${seq},`;
    const faults: Fault[] = [];
    let copies = 0;
    for (let start = 0; start < text.length; ) {
      let end = text.indexOf('\n', start);
      if (end < 0) end = text.length;
      if (end > start) {
        const found = this.identify(text, start, end);
        if (typeof found === 'string') faults.push({ line: text.slice(start, end), reason: found, seq });
        else if (into.has(found.key)) copies += 1;
        else into.set(found.key, { ...found, line: `${splice}${text.slice(start + 1, end)}\n`, seq });
      }
      start = end + 1;
    }
    return { faults, copies };
  }

  /** Key and time of the line, or why they cannot be read. */
  private identify(text: string, start: number, end: number): { key: string; timestamp: number } | string {
    if (!text.startsWith(this.prefix, start)) return `does not begin with ${this.prefix}`;
    if (text.charCodeAt(end - 1) !== 0x7d) return 'does not end with }';
    let at = start + this.prefix.length;
    let key = '';
    let timestamp = 0;
    for (const { open, close, name, kind } of this.members) {
      if (!text.startsWith(open, at)) return `has no ${name} where it belongs`;
      const from = at + open.length;
      const to = text.indexOf(close, from);
      if (to < 0 || to >= end) return `${name} has no end`;
      const value = text.slice(from, to);
      if (!VALID[kind].test(value)) return `${name} cannot be a key: ${value.slice(0, 80)}`;
      if (name === 'timestamp') timestamp = Number(value);
      if (name !== 'timestamp' || this.timeIsKey) key = key === '' ? value : `${key}\t${value}`;
      at = to + (close === '"' ? 1 : 0);
    }
    return { key, timestamp };
  }
}

/** What a key member's text may be, so that it equals what the database prints and cannot break out of a query. */
const VALID: Record<Kind, RegExp> = {
  text: /^[ !#-&(-[\]-~]{1,256}$/,
  integer: /^\d{1,20}$/,
  ticks: /^\d{1,16}$/,
  bool: /^(?:true|false)$/,
  decimal: /^\d+$/,
  levels: /^$/,
  date: /^[\d-]+$/,
};

export interface Span {
  from: number;
  to: number;
}

/** The time spans that rows with these event times lie in; times far apart get spans of their own. */
export function spansOf(times: number[]): Span[] {
  const sorted = Float64Array.from(times).sort();
  for (let gap = SPAN_GAP_MS; ; gap *= 4) {
    const spans: Span[] = [];
    for (const time of sorted) {
      const last = spans[spans.length - 1];
      if (last && time - last.to <= gap) last.to = time;
      else spans.push({ from: time, to: time });
    }
    if (spans.length <= MAX_SPANS) return spans;
  }
}

/**
 * The query that tells which of these streams' rows a database holds: exchange, market type, symbol and key members of all
 * rows within the streams' time spans, found through the sorting key.
 * @param before only spans that begin before this time (ms), for the cold store; absent: all
 */
export function lookupQuery(
  type: DataType,
  database: string,
  streams: StreamArrivals[],
  before = Infinity,
): string | null {
  const table = TABLES[type];
  const conditions = streams.flatMap(({ stream, rows }) => {
    const times = [...rows.values()].map((row) => row.timestamp).filter((time) => time < before);
    if (times.length === 0) return [];
    const spans = spansOf(times).map(({ from, to }) => `timestamp BETWEEN ${at(from)} AND ${at(to)}`);
    const { exchange, market_type, symbol } = stream;
    const where = `exchange = ${quote(exchange)} AND market_type = ${quote(market_type)} AND symbol = ${quote(symbol)}`;
    return [`(${where} AND (${spans.join(' OR ')}))`];
  });
  if (conditions.length === 0) return null;
  return `SELECT exchange, market_type, symbol, ${keyTexts(type).join(', ')} FROM ${database}.${table.name} WHERE ${conditions.join(' OR ')}`;
}

/** Expressions that print a type's key members as the row text writes them. */
export function keyTexts(type: DataType): string[] {
  return TABLES[type].key.map((name) =>
    name === 'timestamp' ? 'toString(toUnixTimestamp64Milli(timestamp))' : `toString(${name})`,
  );
}

function at(ms: number): string {
  return `fromUnixTimestamp64Milli(toInt64(${ms}), 'UTC')`;
}

function quote(text: string): string {
  return `'${text.replace(/['\\]/g, (character) => `\\${character}`)}'`;
}

/** One name for (exchange, market_type, symbol). */
export function streamKey(exchange: string, marketType: string, symbol: string): string {
  return `${exchange}\t${marketType}\t${symbol}`;
}

/** Drops the rows that a lookup found. @returns how many */
export function dropFound(streams: Map<string, StreamArrivals>, found: string[][]): number {
  let dropped = 0;
  for (const [exchange, marketType, symbol, ...key] of found) {
    const arrivals = streams.get(streamKey(exchange!, marketType!, symbol!));
    if (arrivals?.rows.delete(key.join('\t'))) dropped += 1;
  }
  return dropped;
}
