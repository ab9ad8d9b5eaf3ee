/**
 * A recorded session of OKX, in cryptofeed's format: its frames, its instrument lists, and the books as they stood after any
 * frame. Of 2022: books have checksums and no seqId, and the merged `trades` tell single fills (there was no count yet).
 */
import { z } from 'zod';
import { OperatorError } from '../cli.ts';
import { type RecordedAnswer, recordedAnswers, recordedFrames } from './cryptofeed.ts';
import type { DataKind } from './faults.ts';
import type { StreamIdentity } from './ledger.ts';
import type { OkxProduct } from './okx_instruments.ts';

const LEVELS = z.array(z.tuple([z.string(), z.string()]).rest(z.string()));
const FRAME = z.object({
  arg: z.object({ channel: z.string(), instId: z.string() }),
  action: z.enum(['snapshot', 'update']).optional(),
  data: z.array(z.looseObject({})),
});
const BOOK = z.object({ asks: LEVELS, bids: LEVELS, ts: z.string(), checksum: z.number() });
const FILL = z.looseObject({ tradeId: z.string(), ts: z.string() });

type BookFrame = z.output<typeof BOOK> & { readonly action: 'snapshot' | 'update' };

export interface OkxFrame {
  readonly channel: string;
  readonly instrument: string;
  readonly kind: DataKind | null;
  /** What the ledger accounts for: ids of fills, the time of an update (its id at the client too). */
  readonly keys: readonly number[];
  readonly book: BookFrame | null;
  /** Fills as REST tells them. */
  readonly fills: readonly string[];
  readonly at: number;
  /** The recorded bytes. */
  readonly text: string;
  readonly isKeptBack: boolean;
}

export interface OkxRecording {
  readonly frames: readonly OkxFrame[];
  readonly lists: readonly RecordedAnswer[];
}

/** Reads a session and the lists beside it. @throws OperatorError naming the file */
export function readOkxRecording(product: OkxProduct, file: string, dropDiff: number): OkxRecording {
  let diffs = 0;
  const frames = recordedFrames(file).flatMap(({ at, text }, place): OkxFrame[] => {
    let parsed: z.output<typeof FRAME>;
    try {
      const json: unknown = JSON.parse(text);
      // Answers to what the recording client asked.
      if (typeof json === 'object' && json !== null && 'event' in json) return [];
      parsed = FRAME.parse(json);
      if ((productOf(parsed.arg.instId) === 'spot') !== (product === 'spot')) return [];
      const frame = frameOf(parsed, at, text);
      const isKeptBack = frame.book?.action === 'update' && ++diffs === dropDiff;
      return [{ ...frame, isKeptBack }];
    } catch (error) {
      throw new OperatorError(`--replay: ${file} frame ${place + 1}: ${(error as Error).message.split('\n')[0]}`);
    }
  });
  if (frames.length === 0) throw new OperatorError(`--replay: ${file} has no frame of this exchange`);
  return { frames, lists: recordedAnswers(file.replace(/\.ws\.\d+(?=\.\d+$)/, '')) };
}

function frameOf(
  { arg, action, data }: z.output<typeof FRAME>,
  at: number,
  text: string,
): Omit<OkxFrame, 'isKeptBack'> {
  const { channel, instId: instrument } = arg;
  const base = { channel, instrument, at, text, kind: null, keys: [], book: null, fills: [] };
  if (channel === 'books') {
    if (action === undefined || data.length !== 1) throw new Error('books without an action, or not of one book');
    const book = { ...BOOK.parse(data[0]), action };
    const keys = action === 'update' ? [Number(book.ts)] : [];
    return { ...base, kind: 'orderbook_update', keys, book };
  }
  if (channel === 'trades') {
    const fills = data.map((row) => FILL.parse(row));
    return {
      ...base,
      kind: 'trade',
      keys: fills.map(({ tradeId }) => Number(tradeId)),
      fills: fills.map((fill) => JSON.stringify(fill)),
    };
  }
  return { ...base, kind: channel === 'tickers' ? 'ticker' : null };
}

/** What kind of product an id names: by the number of its parts, and the last of them. */
function productOf(instrument: string): 'spot' | 'perpetual' | 'futures' | 'options' {
  const parts = instrument.split('-');
  if (parts.length < 3) return 'spot';
  return parts[2] === 'SWAP' ? 'perpetual' : parts.length === 3 ? 'futures' : 'options';
}

/** How a recorded stream stands in the ledger. */
export function recordedIdentity(exchange: string, instrument: string, dataType: string): StreamIdentity {
  const market = productOf(instrument);
  const symbol = market === 'perpetual' ? instrument.replace(/-SWAP$/, '') : instrument;
  return { exchange, market_type: market, symbol, data_type: dataType, instrument };
}

/** The book of an instrument after the first `count` frames; undefined before its snapshot. Its checksum is the venue's. */
export function recordedBook(frames: readonly OkxFrame[], instrument: string, count: number): string | undefined {
  const sides = { asks: new Map<string, string>(), bids: new Map<string, string>() };
  let last: BookFrame | undefined;
  for (const { book, instrument: own } of frames.slice(0, count)) {
    if (book === null || own !== instrument) continue;
    if (last === undefined && book.action === 'update') continue;
    last = book;
    for (const side of ['asks', 'bids'] as const) {
      if (book.action === 'snapshot') sides[side].clear();
      for (const level of book[side]) {
        if (Number(level[1]) === 0) sides[side].delete(level[0]);
        else sides[side].set(level[0], JSON.stringify(level));
      }
    }
  }
  if (last === undefined) return undefined;
  const levels = (side: Map<string, string>, direction: 1 | -1): string =>
    [...side]
      .sort(([one], [other]) => (Number(one) - Number(other)) * direction)
      .map(([, text]) => text)
      .join(',');
  const { ts, checksum } = last;
  return `{"asks":[${levels(sides.asks, 1)}],"bids":[${levels(sides.bids, -1)}],"ts":"${ts}","checksum":${checksum}}`;
}
