/**
 * A recorded session as a venue's source of data: the recorded bytes in the recorded order, and the book that goes with them.
 *
 * A session is a text file, gzip or plain: each line `<local receive time, ns> <raw JSON>`. Lines with `stream` and `data`
 * are WebSocket frames; a line with `lastUpdateId` is the answer to a depth request made meanwhile.
 */
import { readFileSync } from 'node:fs';
import { gunzipSync } from 'node:zlib';
import { z } from 'zod';
import { OperatorError } from '../cli.ts';
import { identity, type Product, symbolOf } from './binance.ts';
import type { DataKind, Verdict } from './faults.ts';
import type { StreamLedger } from './ledger.ts';
import { type BookState, type Change, RecordedBook, type Top } from './recorded_book.ts';
import {
  type BookSnapshot,
  encodeFrame,
  type Level,
  type Listed,
  type Peer,
  type Source,
  type TradeRow,
  type Wire,
} from './venue.ts';

/** Frames begin to flow this long after a connection's last SUBSCRIBE, so that several requests take part from the start. */
const SETTLE_MS = 50;
/** Frames per write: enough to keep the line busy, little enough to let others in between. */
const FRAMES_PER_WRITE = 200;
const GZIP_MAGIC = 0x1f8b;

/** What happened to a key so far. */
const UNTOUCHED = 0;
const WITHHELD = 1;
const SENT = 2;

const LEVELS = z.array(z.tuple([z.string(), z.string()]));
const SNAPSHOT = z.object({
  lastUpdateId: z.number(),
  E: z.number().optional(),
  T: z.number().optional(),
  bids: LEVELS,
  asks: LEVELS,
});
const FRAME = z.object({ stream: z.string(), data: z.looseObject({}) });
const TRADE = z.object({
  s: z.string(),
  t: z.number().optional(),
  a: z.number().optional(),
  f: z.number().optional(),
  l: z.number().optional(),
  p: z.string(),
  q: z.string(),
  T: z.number(),
  m: z.boolean(),
});
const DEPTH = z.object({
  s: z.string(),
  U: z.number(),
  u: z.number(),
  pu: z.number().optional(),
  E: z.number(),
  T: z.number().optional(),
  b: LEVELS,
  a: LEVELS,
});
const TICKER = z.object({ s: z.string(), u: z.number(), b: z.string(), B: z.string(), a: z.string(), A: z.string() });

interface Frame {
  /** What a subscription must name to get it. */
  readonly family: string;
  readonly kind: DataKind | null;
  readonly instrument: string;
  readonly id: number;
  /** Place of the first frame with the same key. */
  readonly keyPlace: number;
  /** Receive time in ms. */
  readonly at: number;
  readonly text: string;
  readonly isKeptBack: boolean;
}

interface Instrument {
  readonly listed: Listed;
  readonly snapshot: string | null;
  readonly book: RecordedBook | null;
  readonly trades: TradeRow[];
  readonly tradePlaces: number[];
}

/** A parsed session. */
export interface Recording {
  readonly frames: readonly Frame[];
  readonly instruments: ReadonlyMap<string, Instrument>;
}

export interface ReplaySpeed {
  readonly speed: number | 'max';
  /** Place of a depth update (from 1) that is not written; 0 = none. */
  readonly dropDiff: number;
}

/** One connection's way through the session. */
interface Reader {
  readonly peer: Peer;
  readonly families: Set<string>;
  /** Instruments whose book this connection follows from the beginning, and whose recorded snapshot was not asked for yet. */
  readonly awaitsSnapshot: Set<string>;
  subscribedAt: number;
  cursor: number;
  isFlowing: boolean;
  isPumping: boolean;
  held: { family: string; frame: string } | null;
}

/** All depth cadences are one family, and all trades, whatever was recorded: a session has one of each. */
function familyOf(stream: string): string {
  const [stem = '', ...rest] = stream.split('@');
  const channel = rest.join('@');
  if (/^depth(@\d+ms)?$/.test(channel)) return `${stem}@depth`;
  return channel === 'aggTrade' ? `${stem}@trade` : stream;
}

function kindOf(family: string): DataKind | null {
  if (family.endsWith('@depth')) return 'orderbook_update';
  if (family.endsWith('@trade')) return 'trade';
  return family.endsWith('@bookTicker') ? 'book_ticker' : null;
}

/** Reads and parses a session. @throws OperatorError naming the file and the line. */
export function readRecording(file: string, dropDiff: number): Recording {
  let bytes: Buffer;
  try {
    bytes = readFileSync(file);
    if (bytes.length > 1 && bytes.readUInt16BE(0) === GZIP_MAGIC) bytes = gunzipSync(bytes);
  } catch (error) {
    throw new OperatorError(`--replay: cannot read ${file}: ${(error as Error).message}`);
  }
  const reading = new RecordingReader(dropDiff);
  // One byte is one character here, so that what goes out is byte for byte what came in.
  const lines = bytes.toString('latin1').split('\n');
  for (const [index, line] of lines.entries()) {
    if (line.trim() === '') continue;
    try {
      reading.line(line.trimEnd());
    } catch (error) {
      throw new OperatorError(`--replay: ${file} line ${index + 1}: ${(error as Error).message.split('\n')[0]}`);
    }
  }
  return reading.finish(file);
}

/** Gathers a session line by line. */
class RecordingReader {
  private readonly frames: Frame[] = [];
  private readonly firstPlaces = new Map<string, number>();
  private readonly snapshots: { text: string; state: BookState }[] = [];
  private readonly changes = new Map<string, Change[]>();
  private readonly tops = new Map<string, Top[]>();
  private readonly trades = new Map<string, { row: TradeRow; place: number }[]>();
  private diffs = 0;

  constructor(private readonly dropDiff: number) {}

  line(line: string): void {
    const match = /^(\d+) (\{.*\})$/.exec(line);
    if (!match) throw new Error('expected "<time in ns> <JSON>"');
    const [, nanoseconds = '', text = ''] = match;
    const parsed: unknown = JSON.parse(text);
    if (typeof parsed === 'object' && parsed !== null && 'lastUpdateId' in parsed) this.snapshot(text, parsed);
    else this.frame(Number(nanoseconds) / 1e6, text, FRAME.parse(parsed));
  }

  finish(file: string): Recording {
    const instruments = new Map<string, Instrument>();
    for (const name of new Set([...this.changes.keys(), ...this.trades.keys(), ...this.tops.keys()])) {
      // A recorded answer does not name its instrument; in a session of one it can only be that one.
      const snapshot = this.snapshots[0];
      const changes = this.changes.get(name) ?? [];
      if (changes.length > 0 && !snapshot) {
        throw new OperatorError(`--replay: ${file} has depth updates of ${name}, but no depth snapshot (lastUpdateId)`);
      }
      const trades = this.trades.get(name) ?? [];
      instruments.set(name, {
        listed: this.listed(file, name, snapshot?.state, trades[0]?.row),
        snapshot: snapshot?.text ?? null,
        book: snapshot ? new RecordedBook(snapshot.state, changes, this.tops.get(name) ?? []) : null,
        trades: trades.map(({ row }) => row),
        tradePlaces: trades.map(({ place }) => place),
      });
    }
    if (instruments.size === 0) throw new OperatorError(`--replay: ${file} holds no frames`);
    if (instruments.size > 1 && this.snapshots.length > 0) {
      throw new OperatorError(`--replay: ${file} holds several instruments: ${[...instruments.keys()].join(', ')}`);
    }
    return { frames: this.frames, instruments };
  }

  private snapshot(text: string, parsed: unknown): void {
    const { lastUpdateId, E = 0, T = 0, bids, asks } = SNAPSHOT.parse(parsed);
    this.snapshots.push({ text, state: { lastUpdateId, time: E, changedAt: T, bids, asks } });
  }

  private frame(at: number, text: string, { stream, data }: z.output<typeof FRAME>): void {
    const family = familyOf(stream);
    const kind = kindOf(family);
    const place = this.frames.length;
    const { id, instrument } = this.content(kind, family, data, place);
    const key = `${family} ${id}`;
    let keyPlace = kind === null ? place : this.firstPlaces.get(key);
    if (keyPlace === undefined) this.firstPlaces.set(key, (keyPlace = place));
    const isKeptBack = kind === 'orderbook_update' && ++this.diffs === this.dropDiff;
    this.frames.push({ family, kind, instrument, id, keyPlace, at, text, isKeptBack });
  }

  private content(
    kind: DataKind | null,
    family: string,
    data: object,
    place: number,
  ): { id: number; instrument: string } {
    if (kind === 'trade') {
      const { s, t, a, f, l, p, q, T, m } = TRADE.parse(data);
      const id = a ?? t;
      if (id === undefined) throw new Error('a trade without an id');
      const row = { id, first: f ?? id, last: l ?? id, price: p, quantity: q, time: T, buyerIsMaker: m };
      listIn(this.trades, s).push({ row, place });
      return { id, instrument: s };
    }
    if (kind === 'orderbook_update') {
      const { s, U, u, pu = null, E, T = E, b, a } = DEPTH.parse(data);
      listIn(this.changes, s).push({ place, first: U, last: u, previous: pu, time: E, changedAt: T, bids: b, asks: a });
      return { id: u, instrument: s };
    }
    if (kind === 'book_ticker') {
      const { s, u, b, B, a, A } = TICKER.parse(data);
      listIn(this.tops, s).push({ updateId: u, bid: [b, B], ask: [a, A] });
      return { id: u, instrument: s };
    }
    return { id: place, instrument: family.split('@')[0]?.toUpperCase() ?? '' };
  }

  private listed(file: string, name: string, book: BookState | undefined, trade: TradeRow | undefined): Listed {
    const symbol = symbolOf(name);
    if (symbol === undefined) throw new OperatorError(`--replay: ${file}: the quote currency of ${name} is not known`);
    const [base = '', quote = ''] = symbol.split('-');
    const levels: readonly Level[] = [
      ...(book ? [...book.bids, ...book.asks] : []),
      ...(trade ? [[trade.price, trade.quantity] as const] : []),
    ];
    const price = finest(levels.map(([text]) => text));
    const quantity = finest(levels.map(([, text]) => text));
    return {
      symbol,
      instrument: name,
      base,
      quote,
      tickSize: price.unit,
      stepSize: quantity.unit,
      pricePrecision: price.decimals,
      quantityPrecision: quantity.decimals,
    };
  }
}

function listIn<T>(lists: Map<string, T[]>, name: string): T[] {
  let list = lists.get(name);
  if (!list) lists.set(name, (list = []));
  return list;
}

/** The smallest unit in use, written with as many digits as the texts have. */
function finest(texts: readonly string[]): { unit: string; decimals: number } {
  let used = 0;
  let printed = 0;
  for (const text of texts) {
    const decimals = text.split('.')[1] ?? '';
    printed = Math.max(printed, decimals.length);
    used = Math.max(used, decimals.replace(/0+$/, '').length);
  }
  const unit = used === 0 ? '1' : `0.${'1'.padStart(used, '0')}`;
  return { unit: printed > used ? unit + (used === 0 ? '.' : '') + '0'.repeat(printed - used) : unit, decimals: used };
}

export class Replay implements Source {
  readonly listed: readonly Listed[];
  readonly servesAnyRoute = true;
  private readonly readers = new Map<Peer, Reader>();
  private readonly families: ReadonlySet<string>;
  private readonly ledgers = new Map<string, StreamLedger>();
  private readonly keyStates: Uint8Array;
  private readonly speed: number | 'max';
  /** With a shared clock: when it started, and how far it is. */
  private clockStart: number | null = null;
  private position = 0;
  private pausedAt: number | null = null;
  private hasFinished = false;

  /** Opens a session file. @throws OperatorError saying what is wrong with it. */
  static open(product: Product, exchange: string, file: string, wire: Wire, options: ReplaySpeed): Replay {
    return new Replay(readRecording(file, options.dropDiff), product, exchange, wire, options.speed);
  }

  constructor(
    private readonly recording: Recording,
    product: Product,
    exchange: string,
    private readonly wire: Wire,
    speed: number | 'max',
  ) {
    this.speed = speed;
    this.listed = [...recording.instruments.values()].map(({ listed }) => listed);
    this.families = new Set(recording.frames.map(({ family }) => family));
    this.keyStates = new Uint8Array(recording.frames.length);
    for (const { listed } of recording.instruments.values()) {
      for (const kind of ['trade', 'orderbook_update']) {
        const ledger = wire.ledger.stream(identity(product, exchange, listed, kind));
        this.ledgers.set(`${kind} ${listed.instrument}`, ledger);
      }
    }
  }

  subscribe(peer: Peer, stream: string): void {
    const family = familyOf(stream);
    if (!this.families.has(family)) return;
    const now = this.wire.clock();
    let reader = this.readers.get(peer);
    if (!reader) {
      reader = {
        peer,
        families: new Set(),
        awaitsSnapshot: new Set(),
        subscribedAt: now,
        cursor: 0,
        isFlowing: false,
        isPumping: false,
        held: null,
      };
      this.readers.set(peer, reader);
    }
    reader.families.add(family);
    reader.subscribedAt = now;
    if (kindOf(family) === 'orderbook_update' && !reader.isFlowing) {
      reader.awaitsSnapshot.add(family.split('@')[0]?.toUpperCase() ?? '');
    }
    this.pump(reader);
  }

  unsubscribe(peer: Peer, stream: string): void {
    this.readers.get(peer)?.families.delete(familyOf(stream));
  }

  leave(peer: Peer): void {
    this.readers.delete(peer);
  }

  book(name: string, limit: number): BookSnapshot | string {
    const { snapshot, book } = this.instrument(name);
    if (!snapshot || !book) return { lastUpdateId: 0, time: 0, changedAt: 0, bids: [], asks: [] };
    const followers = [...this.readers.values()].filter(({ families }) => families.has(`${name.toLowerCase()}@depth`));
    const beginner = followers.find(({ awaitsSnapshot }) => awaitsSnapshot.has(name));
    if (this.speed === 'max' && beginner) {
      beginner.awaitsSnapshot.delete(name);
      return snapshot;
    }
    const cursor = this.speed === 'max' ? Math.max(0, ...followers.map((reader) => reader.cursor)) : this.position;
    return book.at(cursor, limit) ?? snapshot;
  }

  trades(name: string, fromId: number | undefined, limit: number): TradeRow[] {
    const { trades, tradePlaces } = this.instrument(name);
    // With a clock there is no future; without one each connection has its own present, so the whole session is past.
    const known =
      this.speed === 'max' ? trades : trades.filter((_, index) => (tradePlaces[index] ?? 0) < this.position);
    return fromId === undefined ? known.slice(-limit) : known.filter(({ id }) => id >= fromId).slice(0, limit);
  }

  aggregates(name: string, fromId: number | undefined, limit: number): TradeRow[] {
    return this.trades(name, fromId, limit);
  }

  advance(now: number): void {
    if (this.pausedAt !== null) return;
    for (const reader of this.readers.values()) {
      if (reader.isFlowing || now - reader.subscribedAt < SETTLE_MS) continue;
      reader.isFlowing = true;
      if (this.speed === 'max') this.pump(reader);
      else reader.cursor = this.position;
    }
    if (this.speed !== 'max') this.followClock(now, this.speed);
    this.hasFinished ||= this.areReadersDone();
  }

  stop(): void {
    this.pausedAt ??= this.wire.clock();
  }

  start(now: number): void {
    if (this.pausedAt === null) return;
    if (this.clockStart !== null) this.clockStart += now - this.pausedAt;
    this.pausedAt = null;
    for (const reader of this.readers.values()) this.pump(reader);
  }

  done(): boolean {
    return this.readers.size === 0 ? this.hasFinished : this.areReadersDone();
  }

  private areReadersDone(): boolean {
    const { length } = this.recording.frames;
    return (
      this.readers.size > 0 &&
      [...this.readers.values()].every(({ peer, cursor }) => cursor === length && peer.unread === 0)
    );
  }

  private instrument(name: string): Instrument {
    const instrument = this.recording.instruments.get(name);
    if (!instrument) throw new Error(`no recording of ${name}`);
    return instrument;
  }

  /** Moves the shared clock, which starts with the first reader, and every reader with it. */
  private followClock(now: number, speed: number): void {
    const { frames } = this.recording;
    if (this.clockStart === null) {
      if (![...this.readers.values()].some(({ isFlowing }) => isFlowing)) return;
      this.clockStart = now;
    }
    const until = (frames[0]?.at ?? 0) + (now - this.clockStart) * speed;
    while (this.position < frames.length && (frames[this.position] as Frame).at <= until) this.position++;
    for (const reader of this.readers.values()) {
      if (!reader.isFlowing) continue;
      while (reader.cursor < this.position) this.step(reader);
      reader.peer.flush();
    }
  }

  /** Writes as much as the reader takes, in pieces, then waits for it. */
  private pump(reader: Reader): void {
    if (this.speed !== 'max' || !reader.isFlowing || reader.isPumping) return;
    reader.isPumping = true;
    const more = (): void => {
      const { length } = this.recording.frames;
      const mayGoOn = this.pausedAt === null && reader.peer.open && reader.families.size > 0;
      if (!mayGoOn || reader.cursor === length) {
        reader.isPumping = false;
        return;
      }
      const end = Math.min(length, reader.cursor + FRAMES_PER_WRITE);
      while (reader.cursor < end) this.step(reader);
      reader.peer.flush();
      // Even a reader that keeps up leaves room for the others between two pieces.
      if (reader.peer.full) reader.peer.onceDrained(() => setImmediate(more));
      else setImmediate(more);
    };
    more();
  }

  /** Gives the reader its next frame, if it asked for that kind and no fault takes it. */
  private step(reader: Reader): void {
    const frame = this.recording.frames[reader.cursor++] as Frame;
    if (reader.families.has(frame.family)) this.write(reader, frame);
    const isEnd = reader.cursor === this.recording.frames.length;
    if (isEnd && reader.held) this.release(reader);
  }

  private write(reader: Reader, frame: Frame): void {
    const verdict = this.verdict(reader, frame);
    if (verdict === 'withhold') {
      this.note(frame, WITHHELD);
      return;
    }
    const encoded = encodeFrame(reader.peer.combined ? frame.text : payloadOf(frame.text));
    this.note(frame, SENT);
    if (verdict === 'hold') {
      reader.held = { family: frame.family, frame: encoded };
      return;
    }
    reader.peer.push(encoded);
    if (verdict === 'twice') {
      reader.peer.push(encoded);
      this.wire.ledger.counters.repeated++;
    }
    if (reader.held?.family === frame.family) {
      this.wire.ledger.counters.reordered++;
      this.release(reader);
    }
  }

  private verdict(reader: Reader, frame: Frame): Verdict {
    const { faults } = this.wire;
    if (frame.isKeptBack) return 'withhold';
    if (frame.kind === null || faults.idle || reader.held !== null) return 'send';
    const symbol = this.recording.instruments.get(frame.instrument)?.listed.symbol ?? frame.instrument;
    return faults.verdict(symbol, frame.kind);
  }

  private release(reader: Reader): void {
    if (reader.held) reader.peer.push(reader.held.frame);
    reader.held = null;
  }

  /** A key counts once, whoever gets it; it is withheld only as long as nobody got it. */
  private note(frame: Frame, state: typeof WITHHELD | typeof SENT): void {
    const ledger = this.ledgers.get(`${frame.kind} ${frame.instrument}`);
    const before = this.keyStates[frame.keyPlace] ?? UNTOUCHED;
    if (before >= state) return;
    this.keyStates[frame.keyPlace] = state;
    if (frame.kind === 'book_ticker' && state === SENT) this.wire.ledger.counters.book_tickers++;
    if (!ledger) return;
    if (before === WITHHELD) ledger.unwithhold();
    if (state === WITHHELD) ledger.withhold();
    else ledger.record(frame.id);
  }
}

/** The frame without its wrapping, still as recorded. */
function payloadOf(text: string): string {
  return text.slice(text.indexOf('"data":') + '"data":'.length, -1);
}
