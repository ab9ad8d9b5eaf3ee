/** A recorded session of Deribit, parsed: its frames by what they are, its books at any place, its lists of instruments. */
import { existsSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { z } from 'zod';
import { OperatorError } from '../cli.ts';
import { recordedAnswers, recordedFrames } from './cryptofeed.ts';
import { float } from './deribit_contracts.ts';
import type { DataKind } from './faults.ts';
import type { StreamIdentity } from './ledger.ts';

const LEVELS = z.array(z.tuple([z.enum(['new', 'change', 'delete']), z.number(), z.number()])).default([]);
const BOOK = z.object({
  instrument_name: z.string(),
  type: z.enum(['snapshot', 'change']),
  timestamp: z.number(),
  change_id: z.number(),
  bids: LEVELS,
  asks: LEVELS,
});
const TRADE = z.looseObject({ instrument_name: z.string(), trade_seq: z.number(), timestamp: z.number() });
const FRAME = z.object({
  method: z.literal('subscription'),
  params: z.object({ channel: z.string(), data: z.unknown() }),
});
const LIST = z.object({
  result: z.array(z.looseObject({ instrument_name: z.string(), kind: z.string(), base_currency: z.string() })),
});

export type RecordedTrade = z.output<typeof TRADE>;
export type RecordedInstrument = z.output<typeof LIST>['result'][number];
type BookMessage = z.output<typeof BOOK>;

export interface Frame {
  readonly channel: string;
  /** The channel without its interval. */
  readonly family: string;
  readonly kind: DataKind | null;
  readonly instrument: string;
  /** What stands for it in the ledger: trade sequences, or the id of a change; none for the rest. */
  readonly keys: readonly number[];
  readonly book: BookMessage | null;
  readonly trades: readonly RecordedTrade[];
  /** When it was received, ms since the epoch. */
  readonly at: number;
  readonly text: string;
  readonly isKeptBack: boolean;
}

export interface BookState {
  readonly id: number;
  readonly timestamp: number;
  /** Amounts by price, best first. */
  readonly bids: readonly (readonly [number, number])[];
  readonly asks: readonly (readonly [number, number])[];
}

export interface Recording {
  readonly frames: readonly Frame[];
  readonly lists: ReadonlyMap<string, readonly RecordedInstrument[]>;
}

/** A channel without its interval: what was recorded with one serves subscribers of all. */
export function familyOf(channel: string): string {
  return channel.replace(/\.(raw|100ms|agg2)$/, '');
}

/** How a stream of a recorded instrument stands in the ledger: with the name that the collector gives it. */
export function recordedIdentity(exchange: string, instrument: string, dataType: string): StreamIdentity {
  const [, base = '', quote = 'USD'] = /^([A-Z0-9]+)(?:_([A-Z0-9]+))?-PERPETUAL$/.exec(instrument) ?? [];
  const market_type = base !== '' ? 'perpetual' : /-[CP]$/.test(instrument) ? 'options' : 'futures';
  const symbol = base !== '' ? `${base}-${quote}` : instrument.toUpperCase();
  return { exchange, market_type, symbol, data_type: dataType, instrument };
}

/**
 * Reads the frames of a session, and the lists that were recorded with it: `X.ws.1.0` has them beside it in `X.0`.
 * @param dropDiff place of the change (from 1) that is kept from the wire; 0 = none
 * @throws OperatorError naming the file and the frame
 */
export function readRecording(file: string, dropDiff: number): Recording {
  let changes = 0;
  const frames = recordedFrames(file).flatMap(({ at, text }, index) => {
    try {
      const frame = frameOf(at, text);
      if (frame === null) return [];
      const isChange = frame.book?.type === 'change';
      return [{ ...frame, isKeptBack: isChange && ++changes === dropDiff }];
    } catch (error) {
      throw new OperatorError(`--replay: ${file} frame ${index + 1}: ${(error as Error).message.split('\n')[0]}`);
    }
  });
  if (frames.length === 0) throw new OperatorError(`--replay: ${file} holds no frame of a channel`);
  const opened = new Set<string>();
  for (const { book, family } of frames) {
    if (book?.type === 'snapshot') opened.add(family);
    else if (book && !opened.has(family)) throw new OperatorError(`--replay: ${file}: ${family} has no snapshot`);
  }
  return { frames, lists: readLists(file) };
}

/** The book of a family after all its messages before `place`; null before its first snapshot. */
export function bookAt(frames: readonly Frame[], family: string, place: number): BookState | null {
  let last: BookMessage | null = null;
  const sides = { bids: new Map<number, number>(), asks: new Map<number, number>() };
  for (const { family: own, book } of frames.slice(0, place)) {
    if (own !== family || book === null) continue;
    last = book;
    for (const side of ['bids', 'asks'] as const) {
      if (book.type === 'snapshot') sides[side].clear();
      for (const [action, price, amount] of book[side]) {
        if (action === 'delete') sides[side].delete(price);
        else sides[side].set(price, amount);
      }
    }
  }
  if (last === null) return null;
  const sorted = (side: Map<number, number>, sign: 1 | -1) => [...side].sort(([one], [other]) => sign * (one - other));
  return {
    id: last.change_id,
    timestamp: last.timestamp,
    bids: sorted(sides.bids, -1),
    asks: sorted(sides.asks, 1),
  };
}

/** A state of a book as the data of a snapshot. */
export function snapshotText(instrument: string, { id, timestamp, bids, asks }: BookState): string {
  const side = (levels: BookState['bids']): string =>
    levels.map(([price, amount]) => `["new",${float(price)},${float(amount)}]`).join(',');
  return (
    `{"type":"snapshot","timestamp":${timestamp},"instrument_name":"${instrument}","change_id":${id},` +
    `"bids":[${side(bids)}],"asks":[${side(asks)}]}`
  );
}

/** Null for answers to the recording client. */
function frameOf(at: number, text: string): Omit<Frame, 'isKeptBack'> | null {
  const message: unknown = JSON.parse(text);
  if (typeof message !== 'object' || message === null || !('params' in message)) return null;
  const parsed = FRAME.safeParse(message);
  // Heartbeats have parameters, and no channel.
  if (!parsed.success) return null;
  const { channel, data } = parsed.data.params;
  const [word = '', instrument = ''] = channel.split('.');
  const common = { channel, family: familyOf(channel), instrument, at, text, book: null, trades: [], keys: [] };
  if (word === 'book') {
    const book = BOOK.parse(data);
    return { ...common, kind: 'orderbook_update', book, keys: book.type === 'change' ? [book.change_id] : [] };
  }
  if (word === 'trades') {
    const trades = z.array(TRADE).parse(data);
    return { ...common, kind: 'trade', trades, keys: trades.map(({ trade_seq }) => trade_seq) };
  }
  return {
    ...common,
    kind: word === 'ticker' ? 'ticker' : word === 'deribit_volatility_index' ? 'volatility_index' : null,
  };
}

function readLists(file: string): Map<string, readonly RecordedInstrument[]> {
  const lists = new Map<string, readonly RecordedInstrument[]>();
  const beside = join(dirname(file), basename(file).replace(/\.ws\.\d+(\.\d+)$/, '$1'));
  if (beside === file || !existsSync(beside)) return lists;
  for (const { path, body } of recordedAnswers(beside)) {
    const { pathname, searchParams } = new URL(path, 'http://host');
    const currency = searchParams.get('currency');
    if (!pathname.endsWith('/get_instruments') || currency === null) continue;
    try {
      lists.set(currency, LIST.parse(JSON.parse(body)).result);
    } catch (error) {
      throw new OperatorError(`--replay: ${beside}, list of ${currency}: ${(error as Error).message.split('\n')[0]}`);
    }
  }
  return lists;
}
