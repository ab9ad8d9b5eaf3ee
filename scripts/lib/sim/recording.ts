/**
 * Recorded sessions of Binance, read: the frames in their order, and per instrument its snapshot, book and trades.
 *
 * Two formats are known. In the one a session is a text file, gzip or plain: each line `<local receive time, ns> <raw JSON>`;
 * lines with `stream` and `data` are WebSocket frames, a line with `lastUpdateId` is the answer to a depth request made
 * meanwhile. The other is cryptofeed's: `X.ws.1.0` holds the frames, and beside it are `X.http.0.0` with the depth answers and
 * `X.0` with the list of instruments.
 */
import { basename, dirname, join } from 'node:path';
import { z } from 'zod';
import { OperatorError } from '../cli.ts';
import { symbolOf } from './binance.ts';
import { recordedAnswers, recordedFrames } from './cryptofeed.ts';
import type { DataKind } from './faults.ts';
import { sessionText } from './playback.ts';
import { type BookState, type Change, RecordedBook, type Top } from './recorded_book.ts';
import type { Level, Listed, TradeRow } from './venue.ts';

/** What cryptofeed's file of frames begins with: the address of the socket. */
const CRYPTOFEED_START = /^wss?:\/\//;
const CRYPTOFEED_FRAMES = /\.ws\.\d+\.\d+$/;

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
const INSTRUMENTS = z.object({
  symbols: z.array(
    z.object({
      symbol: z.string(),
      baseAsset: z.string(),
      quoteAsset: z.string(),
      filters: z.array(
        z.object({ filterType: z.string(), tickSize: z.string().optional(), stepSize: z.string().optional() }),
      ),
    }),
  ),
});

/** One frame as it was recorded. */
export interface Frame {
  /** What a subscription must name to get it. */
  readonly family: string;
  readonly kind: DataKind | null;
  readonly instrument: string;
  readonly id: number;
  /** Receive time in ms. */
  readonly at: number;
  readonly text: string;
  readonly isKeptBack: boolean;
}

/** Trades and their places in the session. */
export interface RecordedTrades {
  readonly rows: readonly TradeRow[];
  readonly places: readonly number[];
}

export interface Instrument {
  readonly listed: Listed;
  readonly snapshot: string | null;
  readonly book: RecordedBook | null;
  readonly trades: RecordedTrades;
  /** Those that were recorded as aggregates. */
  readonly aggregates: RecordedTrades;
}

/** A parsed session. */
export interface Recording {
  readonly frames: readonly Frame[];
  readonly instruments: ReadonlyMap<string, Instrument>;
}

/** The family of a stream's frames: all depth cadences are one, because a session has one of them. */
export function familyOf(stream: string): string {
  return stream.replace(/@depth(@\d+ms)?$/, '@depth');
}

/** True for families of aggregated trades. */
export function isAggregate(family: string): boolean {
  return family.endsWith('@aggTrade');
}

/** What the frames of a family are; null where no fault can mean them. */
export function kindOf(family: string): DataKind | null {
  if (family.endsWith('@depth')) return 'orderbook_update';
  if (family.endsWith('@trade') || isAggregate(family)) return 'trade';
  return family.endsWith('@bookTicker') ? 'book_ticker' : null;
}

/** Reads and parses a session. @throws OperatorError naming the file and the line. */
export function readRecording(file: string, dropDiff: number): Recording {
  const text = sessionText(file);
  const reading = new RecordingReader(file, dropDiff);
  if (CRYPTOFEED_START.test(text)) readCryptofeed(file, reading);
  else readLines(text, reading);
  return reading.finish();
}

function readLines(text: string, reading: RecordingReader): void {
  for (const [index, line] of text.split('\n').entries()) {
    if (line.trim() !== '') reading.attempt(`line ${index + 1}`, () => reading.line(line.trimEnd()));
  }
}

function readCryptofeed(file: string, reading: RecordingReader): void {
  if (!CRYPTOFEED_FRAMES.test(file)) {
    throw new OperatorError(`--replay: ${file}: a file of frames in this format is named like X.ws.1.0`);
  }
  const beside = (ending: string): string =>
    join(dirname(file), basename(file).replace(CRYPTOFEED_FRAMES, `.${ending}`));
  for (const { path, body } of recordedAnswers(beside('0'))) {
    if (path.includes('/exchangeInfo')) reading.attempt(path, () => reading.instruments(JSON.parse(body)));
  }
  for (const { path, body } of recordedAnswers(beside('http.0.0'))) {
    const symbol = new URL(path, 'http://host').searchParams.get('symbol');
    if (path.includes('/depth?') && symbol) {
      reading.attempt(path, () => reading.snapshot(symbol, body, JSON.parse(body)));
    }
  }
  for (const [index, { at, text }] of recordedFrames(file).entries()) {
    reading.attempt(`frame ${index + 1}`, () => reading.frame(at, text, FRAME.parse(JSON.parse(text))));
  }
}

/** Gathers a session piece by piece. */
class RecordingReader {
  private readonly frames: Frame[] = [];
  /** By instrument; under the empty name when the answer does not tell. */
  private readonly snapshots = new Map<string, { text: string; state: BookState }>();
  private readonly known = new Map<string, Listed>();
  private readonly changes = new Map<string, Change[]>();
  private readonly tops = new Map<string, Top[]>();
  private readonly trades = new Map<string, { row: TradeRow; place: number }[]>();
  private readonly aggregates = new Map<string, { row: TradeRow; place: number }[]>();
  private diffs = 0;

  constructor(
    private readonly file: string,
    private readonly dropDiff: number,
  ) {}

  /** Reads one piece. @throws OperatorError naming it */
  attempt(what: string, read: () => void): void {
    try {
      read();
    } catch (error) {
      throw new OperatorError(`--replay: ${this.file} ${what}: ${(error as Error).message.split('\n')[0]}`);
    }
  }

  line(line: string): void {
    const match = /^(\d+) (\{.*\})$/.exec(line);
    if (!match) throw new Error('expected "<time in ns> <JSON>"');
    const [, nanoseconds = '', text = ''] = match;
    const parsed: unknown = JSON.parse(text);
    if (typeof parsed === 'object' && parsed !== null && 'lastUpdateId' in parsed) this.snapshot('', text, parsed);
    else this.frame(Number(nanoseconds) / 1e6, text, FRAME.parse(parsed));
  }

  instruments(parsed: unknown): void {
    for (const { symbol: name, baseAsset: base, quoteAsset: quote, filters } of INSTRUMENTS.parse(parsed).symbols) {
      const tickSize = filters.find((each) => each.filterType === 'PRICE_FILTER')?.tickSize ?? '';
      const stepSize = filters.find((each) => each.filterType === 'LOT_SIZE')?.stepSize ?? '';
      const [pricePrecision, quantityPrecision] = [finest([tickSize]).decimals, finest([stepSize]).decimals];
      const symbol = `${base}-${quote}`;
      this.known.set(name, {
        symbol,
        instrument: name,
        base,
        quote,
        tickSize,
        stepSize,
        pricePrecision,
        quantityPrecision,
      });
    }
  }

  /** The first answer for an instrument is the one of the session's beginning. */
  snapshot(name: string, text: string, parsed: unknown): void {
    const { lastUpdateId, E = 0, T = 0, bids, asks } = SNAPSHOT.parse(parsed);
    if (this.snapshots.has(name)) return;
    this.snapshots.set(name, { text, state: { lastUpdateId, time: E, changedAt: T, bids, asks } });
  }

  frame(at: number, text: string, { stream, data }: z.output<typeof FRAME>): void {
    const family = familyOf(stream);
    const kind = kindOf(family);
    const { id, instrument } = this.content(kind, family, data);
    const isKeptBack = kind === 'orderbook_update' && ++this.diffs === this.dropDiff;
    this.frames.push({ family, kind, instrument, id, at, text, isKeptBack });
  }

  finish(): Recording {
    const { file, frames } = this;
    const names = new Set([this.changes, this.trades, this.aggregates, this.tops].flatMap((each) => [...each.keys()]));
    if (names.size === 0) throw new OperatorError(`--replay: ${file} holds no frames`);
    if (names.size > 1 && this.snapshots.has('')) {
      throw new OperatorError(`--replay: ${file} holds several instruments: ${[...names].join(', ')}`);
    }
    return { frames, instruments: new Map([...names].map((name) => [name, this.instrument(name)])) };
  }

  private instrument(name: string): Instrument {
    // An answer that does not name its instrument can only be about the one that the session has.
    const snapshot = this.snapshots.get(name) ?? this.snapshots.get('');
    const changes = this.changes.get(name) ?? [];
    if (changes.length > 0 && !snapshot) {
      throw new OperatorError(
        `--replay: ${this.file} has depth updates of ${name}, but no depth snapshot (lastUpdateId)`,
      );
    }
    const all = (lists: ReadonlyMap<string, { row: TradeRow; place: number }[]>): RecordedTrades => {
      const list = lists.get(name) ?? [];
      return { rows: list.map(({ row }) => row), places: list.map(({ place }) => place) };
    };
    const trades = all(this.trades);
    const aggregates = all(this.aggregates);
    return {
      listed: this.known.get(name) ?? this.guessed(name, snapshot?.state, trades.rows[0] ?? aggregates.rows[0]),
      snapshot: snapshot?.text ?? null,
      book: snapshot ? new RecordedBook(snapshot.state, changes, this.tops.get(name) ?? []) : null,
      trades,
      aggregates,
    };
  }

  private content(kind: DataKind | null, family: string, data: object): { id: number; instrument: string } {
    const place = this.frames.length;
    if (kind === 'trade') {
      const { s, t, a, f, l, p, q, T, m } = TRADE.parse(data);
      const id = a ?? t;
      if (id === undefined) throw new Error('a trade without an id');
      const row = { id, first: f ?? id, last: l ?? id, price: p, quantity: q, time: T, buyerIsMaker: m };
      listIn(isAggregate(family) ? this.aggregates : this.trades, s).push({ row, place });
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

  /** How an instrument is listed, told from what was recorded of it. */
  private guessed(name: string, book: BookState | undefined, trade: TradeRow | undefined): Listed {
    const symbol = symbolOf(name);
    if (symbol === undefined) {
      throw new OperatorError(`--replay: ${this.file}: the quote currency of ${name} is not known`);
    }
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
