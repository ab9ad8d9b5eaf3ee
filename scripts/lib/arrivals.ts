/**
 * From messages to rows that may be inserted, without parsing a line: where each line's key and time stand is fixed by the
 * row text (rows.ts). Pure; the store asks the database and does the insert.
 */
import { type DataType, type Kind, leadingMembers, TABLES, textColumns } from './rows.ts';
import type { Stream } from './streams.ts';

/** Event times further apart than this are looked up as spans of their own, unless somebody says otherwise. */
const SPAN_GAP_MS = 60_000;
/** In a look-up, whose spans hold for all symbols of a market: what one of them has long after the others must not be read of all. */
const LOOKUP_GAP_MS = 1000;
/** Spans a market in one query; beyond it, near ones are joined. */
const MAX_SPANS = 50;

/** A message on its way. */
export interface ArrivedMessage {
  /** Latin-1 text whose characters are the bytes of the message. */
  text: string;
  /** What each of its lines gets in front: the stream's epoch and sequence. */
  splice: string;
  seq: number;
  /** Lines in it, those that are no rows included. */
  lines: number;
}

/** One row on its way: where its text stands, and what identifies it. */
export interface Arrival {
  message: ArrivedMessage;
  /** Its line's place in the message's text. */
  start: number;
  end: number;
  /** Natural key within the stream, its members joined by tabs as the database prints them. */
  key: string;
  /** Event time, ms. */
  timestamp: number;
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
  /** Of the line that was read last. */
  private key = '';
  private timestamp = 0;

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
    const message: ArrivedMessage = { text, splice: `{"js_epoch":${epoch},"js_seq":${seq},`, seq, lines: 0 };
    const faults: Fault[] = [];
    let copies = 0;
    for (let start = 0; start < text.length; ) {
      let end = text.indexOf('\n', start);
      if (end < 0) end = text.length;
      if (end > start) {
        message.lines += 1;
        const fault = this.identify(text, start, end);
        if (fault !== null) faults.push({ line: text.slice(start, end), reason: fault, seq });
        else if (into.has(this.key)) copies += 1;
        else into.set(this.key, { message, start, end, key: this.key, timestamp: this.timestamp });
      }
      start = end + 1;
    }
    return { faults, copies };
  }

  /** Reads key and time of the line. @returns why they cannot be read, or null */
  private identify(text: string, start: number, end: number): string | null {
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
    this.key = key;
    this.timestamp = timestamp;
    return null;
  }
}

/** The row as it is inserted: its own text with its place in the stream in front, newline included. */
export function lineOf({ message, start, end }: Arrival): string {
  return `${message.splice}${message.text.slice(start + 1, end)}\n`;
}

/**
 * The bytes of an insert. Of a message whose rows are all there, which nearly every one is, the text is taken as a whole.
 * @param rows those of one message next to each other
 */
export function insertBody(rows: readonly Arrival[]): Buffer {
  const pieces: string[] = [];
  let length = 0;
  const add = (piece: string) => {
    pieces.push(piece);
    length += piece.length;
  };
  for (let from = 0, to = 0; from < rows.length; from = to) {
    const { message } = rows[from]!;
    for (to = from + 1; to < rows.length && rows[to]!.message === message; ) to += 1;
    // No line holds a line feed: in JSON text it is escaped.
    if (to - from === message.lines)
      add(`${message.splice}${message.text.slice(1).replaceAll('\n{', `\n${message.splice}`)}\n`);
    else for (let i = from; i < to; i += 1) add(lineOf(rows[i]!));
  }
  const body = Buffer.allocUnsafe(length);
  let at = 0;
  for (const piece of pieces) at += body.write(piece, at, 'latin1');
  return body;
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
export function spansOf(times: readonly number[], gapMs = SPAN_GAP_MS): Span[] {
  const sorted = Float64Array.from(times).sort();
  for (let gap = gapMs; ; gap *= 4) {
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
 * The query that tells which of these streams' rows a database holds: exchange, market type, symbol and key members of all rows within
 * the time spans in which a market has rows, of the symbols that have some there; found through the sorting key. A condition for each
 * symbol would say it more narrowly, and be dearer than the rest of an insert: 300 ms of CPU for 500 symbols, against 9 (measured).
 * @param before only spans that begin before this time (ms), for the cold store; absent: all
 */
export function lookupQuery(
  type: DataType,
  database: string,
  streams: readonly StreamArrivals[],
  before = Infinity,
): string | null {
  const markets = new Map<string, StreamArrivals[]>();
  for (const each of streams) {
    const { exchange, market_type } = each.stream;
    const market = `exchange = ${quote(exchange)} AND market_type = ${quote(market_type)}`;
    const others = markets.get(market);
    if (others === undefined) markets.set(market, [each]);
    else others.push(each);
  }
  const conditions = [...markets].flatMap(([market, own]) =>
    marketSpans(own, before).map(([{ from, to }, symbols]) => {
      const names = symbols.map(quote).join(', ');
      return `(${market} AND symbol IN (${names}) AND timestamp BETWEEN ${at(from)} AND ${at(to)})`;
    }),
  );
  if (conditions.length === 0) return null;
  const columns = ['exchange', 'market_type', 'symbol', ...keyTexts(type)];
  return `SELECT ${columns.join(', ')} FROM ${database}.${TABLES[type].name} WHERE ${conditions.join(' OR ')}`;
}

/** The spans in which a market has rows that are old enough, with the symbols that have some there. */
function marketSpans(streams: readonly StreamArrivals[], before: number): [Span, string[]][] {
  const times: number[] = [];
  for (const { rows } of streams)
    for (const { timestamp } of rows.values()) if (timestamp < before) times.push(timestamp);
  const spans = spansOf(times, LOOKUP_GAP_MS);
  const symbols = spans.map(() => new Set<string>());
  for (const { stream, rows } of streams) {
    // Nearly always: rows come as they happen.
    if (spans.length === 1 && before === Infinity) {
      if (rows.size > 0) symbols[0]!.add(stream.symbol);
      continue;
    }
    for (const { timestamp } of rows.values()) {
      const place = spans.findIndex(({ from, to }) => timestamp >= from && timestamp <= to);
      if (place >= 0) symbols[place]!.add(stream.symbol);
    }
  }
  return spans.map((span, place) => [span, [...symbols[place]!]]);
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
