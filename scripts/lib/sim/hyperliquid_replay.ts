/**
 * A recorded session of Hyperliquid as a source of data.
 *
 * Each line is `<local receive time, ns> <raw JSON>`, gzip or plain. Trades, books and contexts of coins are served; what else
 * was recorded has no subscription that would get it.
 */
import { z } from 'zod';
import { OperatorError } from '../cli.ts';
import type { DataKind } from './faults.ts';
import { identity } from './hyperliquid_coin.ts';
import type { ListedCoin } from './hyperliquid_rest.ts';
import { type HyperliquidSource, type Subscription, streamOf } from './hyperliquid_source.ts';
import type { KeyLedger } from './ledger.ts';
import { OnceLedger } from './once_ledger.ts';
import { Playback, type PlayedFrame, type ReplaySpeed, sessionText } from './playback.ts';
import type { Peer, Wire } from './venue.ts';

/** Trades in the answer to `recentTrades`. */
const RECENT_TRADES = 10;

const TRADE = z.looseObject({ coin: z.string(), tid: z.number(), sz: z.string() });
const OF_COIN = z.looseObject({ coin: z.string() });
const BOOK_SIDE = z.array(z.looseObject({ sz: z.string() }));
const BOOK = z.looseObject({
  coin: z.string(),
  time: z.number(),
  levels: z.tuple([BOOK_SIDE, BOOK_SIDE]),
  fast: z.boolean().optional(),
});
const FRAME = z.discriminatedUnion('channel', [
  z.object({ channel: z.literal('trades'), data: z.array(TRADE).min(1) }),
  z.object({ channel: z.literal('l2Book'), data: BOOK }),
  z.object({ channel: z.literal('bbo'), data: OF_COIN }),
  z.object({ channel: z.literal('activeAssetCtx'), data: OF_COIN }),
]);
type Frame = z.output<typeof FRAME>;

const KINDS: Record<Frame['channel'], DataKind> = {
  trades: 'trade',
  l2Book: 'orderbook_update',
  bbo: 'book_ticker',
  activeAssetCtx: 'ticker',
};

/** What was recorded of a coin, each with its place in the session. */
interface Recorded {
  readonly ledgers: { readonly trade: KeyLedger; readonly orderbook_update: KeyLedger };
  readonly books: { place: number; text: string }[];
  readonly trades: { place: number; text: string }[];
  szDecimals: number;
}

export class HyperliquidReplay implements HyperliquidSource {
  readonly coins: readonly ListedCoin[];

  private constructor(
    private readonly recorded: ReadonlyMap<string, Recorded>,
    private readonly playback: Playback,
  ) {
    this.coins = [...recorded].map(([name, { szDecimals }]) => ({ name, szDecimals }));
  }

  /** Opens a session file. @throws OperatorError naming the file and the line */
  static open(file: string, wire: Wire, { speed, dropDiff }: ReplaySpeed): HyperliquidReplay {
    const reading = new SessionReader(wire, dropDiff);
    for (const [index, line] of sessionText(file).split('\n').entries()) {
      if (line.trim() === '') continue;
      try {
        reading.line(line.trimEnd());
      } catch (error) {
        throw new OperatorError(`--replay: ${file} line ${index + 1}: ${(error as Error).message.split('\n')[0]}`);
      }
    }
    if (reading.frames.length === 0) throw new OperatorError(`--replay: ${file} holds no frames`);
    return new HyperliquidReplay(reading.coins, new Playback(reading.frames, wire, speed));
  }

  isTraded(coin: string): boolean {
    return this.recorded.has(coin);
  }

  subscribe(peer: Peer, subscription: Subscription): void {
    this.playback.subscribe(peer, streamOf(subscription));
  }

  unsubscribe(peer: Peer, subscription: Subscription): void {
    this.playback.unsubscribe(peer, streamOf(subscription));
  }

  leave(peer: Peer): void {
    this.playback.leave(peer);
  }

  /** A session holds no contexts of all coins at one time. */
  contexts(): undefined {
    return undefined;
  }

  mids(): undefined {
    return undefined;
  }

  /** The last book that is past, and before the first one that. */
  book(coin: string): string | undefined {
    const books = this.recorded.get(coin)?.books ?? [];
    const past = this.playback.past(`l2Book:${coin}`);
    return (books.filter(({ place }) => place < past).at(-1) ?? books[0])?.text;
  }

  recentTrades(coin: string): string[] | undefined {
    const past = this.playback.past(`trades:${coin}`);
    const trades = this.recorded.get(coin)?.trades.filter(({ place }) => place < past);
    return trades
      ?.slice(-RECENT_TRADES)
      .reverse()
      .map(({ text }) => text);
  }

  funding(): undefined {
    return undefined;
  }

  candles(): undefined {
    return undefined;
  }

  advance(now: number): void {
    this.playback.advance(now);
  }

  stop(): void {
    this.playback.stop();
  }

  start(now: number): void {
    this.playback.start(now);
  }

  done(): boolean {
    return this.playback.done();
  }
}

/** Gathers a session line by line. */
class SessionReader {
  readonly frames: PlayedFrame[] = [];
  readonly coins = new Map<string, Recorded>();
  private books = 0;

  constructor(
    private readonly wire: Wire,
    private readonly dropDiff: number,
  ) {}

  line(line: string): void {
    const match = /^(\d+) (\{.*\})$/.exec(line);
    if (!match) throw new Error('expected "<time in ns> <JSON>"');
    const [, nanoseconds = '', text = ''] = match;
    const parsed = FRAME.parse(JSON.parse(text));
    const { channel, data } = parsed;
    const coin = Array.isArray(data) ? (data[0]?.coin ?? '') : data.coin;
    const kind = KINDS[channel];
    const recorded = this.recorded(coin);
    const isFast = channel === 'l2Book' && data.fast === true;
    this.frames.push({
      family: streamOf({ type: channel, coin, fast: isFast }),
      kind,
      symbol: identity(coin, kind).symbol,
      keys: this.keys(parsed, recorded),
      ledger: isFast || (kind !== 'trade' && kind !== 'orderbook_update') ? null : recorded.ledgers[kind],
      at: Number(nanoseconds) / 1e6,
      text,
      isKeptBack: kind === 'orderbook_update' && ++this.books === this.dropDiff,
    });
  }

  /** Keys of the rows in a frame, which is kept for requests meanwhile. */
  private keys({ channel, data }: Frame, recorded: Recorded): number[] {
    const place = this.frames.length;
    if (channel === 'trades') {
      for (const trade of data) recorded.trades.push({ place, text: JSON.stringify(trade) });
      recorded.szDecimals = finest(recorded.szDecimals, data);
      return data.map(({ tid }) => tid);
    }
    if (channel !== 'l2Book' || data.fast === true) return [];
    recorded.books.push({ place, text: JSON.stringify(data) });
    recorded.szDecimals = finest(recorded.szDecimals, data.levels.flat());
    return [data.time];
  }

  private recorded(coin: string): Recorded {
    let found = this.coins.get(coin);
    if (!found) {
      const ledger = (type: string): KeyLedger => new OnceLedger(this.wire.ledger.stream(identity(coin, type)));
      const ledgers = { trade: ledger('trade'), orderbook_update: ledger('orderbook_update') };
      this.coins.set(coin, (found = { ledgers, books: [], trades: [], szDecimals: 0 }));
    }
    return found;
  }
}

/** The most decimals of a size. */
function finest(before: number, rows: readonly { sz: string }[]): number {
  return rows.reduce((most, { sz }) => Math.max(most, sz.replace(/0+$/, '').split('.')[1]?.length ?? 0), before);
}
