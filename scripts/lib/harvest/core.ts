/**
 * The harvest of one exchange: rows of trades and books in, rows of seven kinds out. Pure, and by event time only.
 *
 * Two stages. The first puts each market's trades and book updates in order, each by itself, and computes what stands on one of both alone. The second
 * goes through both by event time, a book before the trades of the same millisecond. Nothing is told before everything of its time is here: so
 * it does not matter how the two came interleaved, live or replayed.
 */
import type { Exchange, MarketType } from '../rows.ts';
import {
  type BookChange,
  type BookGap,
  type BookStep,
  BookTrack,
  type BookTrackDump,
  bookVenue,
  DISORDER_MS,
} from './book_track.ts';
import { type CvdFigures, type CvdState, freshCvd, takeCvd } from './cvd.ts';
import type { HarvestInput } from './input.ts';
import type { HarvestRow } from './kinds.ts';
import { MarketHarvest, type MarketHarvestState } from './market.ts';
import { freshOfi, type OfiFigures, type OfiState, orderFlowImbalance, takeOfi } from './ofi.ts';
import { type OrderedTrade, TradeTrack, type TradeTrackState } from './trade_track.ts';

/** Books of these come whole, every few seconds: a longer pause is a gap there, ms. */
const WHOLE_BOOK_PAUSE_MS = 15_000;
/** A pause of the book after which what it told before is no measure any more, ms. */
const PAUSE_MS = 2000;
const DAY_MS = 86_400_000;
/** A time that lies further than this after the arrival of its row, ms, says nothing of how far the others are. */
const AHEAD_MS = 1000;

/** A change of the book with its order flow, or where states of the book are not known. */
export type BookItem =
  | {
      type: 'book';
      order: number;
      change: BookChange;
      figures: OfiFigures | null;
      isReset: boolean;
      restarts: number;
      bad: number;
    }
  | { type: 'book_gap'; order: number; gap: BookGap; restarts: number };
export interface TradeItem {
  type: 'trade';
  order: number;
  ordered: OrderedTrade;
  figures: CvdFigures;
}

interface Stream {
  exchange: Exchange;
  market_type: MarketType;
  symbol: string;
}

/** Plain data: what one market stands on. */
interface MarketState {
  stream: Stream;
  trades: TradeTrackState;
  book: BookTrackDump;
  ofi: OfiState;
  cvd: CvdState;
  /** The day of the last value, and whether the next one is the first after a reset. */
  ofiDay: number | null;
  ofiReset: boolean;
  /** In the order of the second stage, waiting for the other kind. */
  tradeItems: TradeItem[];
  bookItems: BookItem[];
  tradeOrder: number;
  bookOrder: number;
  harvest: MarketHarvestState;
}

/** Plain data: everything that the harvest knows. Written and read back, it goes on as if nothing had been. */
export interface HarvestState {
  /** Event time of the newest trade, and of the newest row of a book, of the exchange, ms. */
  marks: { trade: number; book: number };
  markets: MarketState[];
}

interface Market {
  stream: Stream;
  trades: TradeTrack;
  book: BookTrack;
  state: Omit<MarketState, 'stream' | 'trades' | 'book' | 'harvest'>;
  harvest: MarketHarvest;
}

export class HarvestCore {
  private readonly markets = new Map<string, Market>();
  private readonly marks: HarvestState['marks'];
  /** When the newest row that was taken arrived, ms; 0 before the first. */
  received = 0;

  /** @param write told each row, in order */
  constructor(
    private readonly write: (row: HarvestRow) => void,
    state?: HarvestState,
  ) {
    this.marks = { ...(state?.marks ?? { trade: Number.NEGATIVE_INFINITY, book: Number.NEGATIVE_INFINITY }) };
    // JSON has no infinities.
    for (const name of ['trade', 'book'] as const) this.marks[name] ??= Number.NEGATIVE_INFINITY;
    for (const each of state?.markets ?? []) this.restore(each);
  }

  /** Takes a row in, and tells what is known by it. */
  take({ type, row }: HarvestInput): void {
    const market = this.marketOf(row);
    const received = Math.floor(row.received_at / 1000);
    this.received = Math.max(this.received, received);
    const time = Math.min(row.timestamp, received + AHEAD_MS);
    // What was in order before this row came is so whether or not anybody looked.
    this.order(market, null);
    if (type === 'trade') {
      market.trades.take(row, this.marks.trade);
      this.marks.trade = Math.max(this.marks.trade, time);
    } else {
      const steps: BookStep[] = [];
      if (type === 'orderbook') market.book.sample(row, this.marks.book, steps);
      else market.book.update(row, this.marks.book, steps);
      this.marks.book = Math.max(this.marks.book, time);
      this.queueBook(market, steps);
    }
    this.settle(market);
  }

  /**
   * Tells what no later row can change of markets that had none lately. To be called now and then, between rows: what is told does not depend on
   * when.
   * @param idle a kind of which nothing comes any more is not waited for
   */
  settleAll(idle: { trade?: boolean; book?: boolean } = {}): void {
    const { marks } = this;
    if (idle.trade) marks.trade = Math.max(marks.trade, marks.book);
    if (idle.book) marks.book = Math.max(marks.book, marks.trade);
    for (const market of this.markets.values()) this.settle(market);
  }

  /** The input is over: everything that is here is told, and each second that is over by the newest row. */
  end(): void {
    const newest = Math.max(this.marks.trade, this.marks.book);
    for (const market of this.markets.values()) {
      this.order(market, Number.POSITIVE_INFINITY);
      this.merge(market, Number.POSITIVE_INFINITY);
      market.harvest.takeLate(market.trades.state.late.splice(0));
      market.harvest.closeUntil(newest);
    }
  }

  /** How far both kinds are, ms: what is older has been told. −∞ before both have begun. */
  get frontier(): number {
    return Math.min(this.marks.trade, this.marks.book) - DISORDER_MS;
  }

  get markTimes(): { trade: number; book: number } {
    return { ...this.marks };
  }

  /** Rows that wait for the other kind. */
  get waiting(): number {
    let count = 0;
    for (const { state } of this.markets.values()) count += state.tradeItems.length + state.bookItems.length;
    return count;
  }

  dump(): HarvestState {
    const markets = [...this.markets.values()].map(({ stream, trades, book, state, harvest }) => ({
      ...{ stream, trades: trades.state, book: book.dump(), harvest: harvest.state },
      ...state,
    }));
    return { marks: this.marks, markets };
  }

  private marketOf({ exchange, market_type, symbol }: Stream): Market {
    const key = `${exchange} ${market_type} ${symbol}`;
    const known = this.markets.get(key);
    if (known !== undefined) return known;
    const stream = { exchange, market_type, symbol };
    const market: Market = {
      stream,
      trades: new TradeTrack(),
      book: new BookTrack(bookVenue(exchange)),
      state: {
        ...{ ofi: freshOfi(), cvd: freshCvd(), ofiDay: null, ofiReset: false },
        ...{ tradeItems: [], bookItems: [], tradeOrder: 0, bookOrder: 0 },
      },
      harvest: new MarketHarvest(stream, this.write),
    };
    this.markets.set(key, market);
    return market;
  }

  private restore({ stream, trades, book, harvest, ...state }: MarketState): void {
    this.markets.set(`${stream.exchange} ${stream.market_type} ${stream.symbol}`, {
      ...{ stream, state: structuredClone(state), trades: new TradeTrack(trades) },
      ...{ book: new BookTrack(bookVenue(stream.exchange), book) },
      harvest: new MarketHarvest(stream, this.write, harvest),
    });
  }

  private settle(market: Market): void {
    this.order(market, null);
    const { frontier } = this;
    if (frontier === Number.NEGATIVE_INFINITY) return;
    this.merge(market, frontier);
    market.harvest.closeUntil(frontier);
  }

  /** First stage. @param mark null: each kind's own */
  private order(market: Market, mark: number | null): void {
    const { state, trades, book, stream } = market;
    const ordered: OrderedTrade[] = [];
    trades.settle(mark ?? this.marks.trade, ordered);
    for (const each of ordered) {
      const { trade, late, gap } = each;
      const { time, quantity, is_maker } = trade;
      const base = stream.symbol.split('-')[0]!;
      const figures = takeCvd(state.cvd, { time, quantity, is_maker, late, afterGap: gap !== null, base });
      state.tradeOrder = Math.max(state.tradeOrder, time);
      state.tradeItems.push({ type: 'trade', order: state.tradeOrder, ordered: each, figures });
    }
    const steps: BookStep[] = [];
    book.settle(mark ?? this.marks.book, steps);
    this.queueBook(market, steps);
  }

  private queueBook({ state, book, stream }: Market, steps: readonly BookStep[]): void {
    for (const step of steps) {
      const { time } = 'change' in step ? step.change : step.gap;
      state.bookOrder = Math.max(state.bookOrder, Math.min(time, this.marks.book), step.floor);
      const order = state.bookOrder;
      if ('gap' in step) {
        Object.assign(state, { ofi: freshOfi(), ofiReset: true });
        state.bookItems.push({ type: 'book_gap', order, gap: step.gap, restarts: book.restarts });
        continue;
      }
      const { change } = step;
      const { figures, isReset } = this.flowOf(state, change, stream.exchange === 'hyperliquid');
      state.bookItems.push({ type: 'book', order, change, figures, isReset, restarts: book.restarts, bad: book.bad });
    }
  }

  /** Order flow of a change; after a long pause, and with each UTC day, what came before is no measure any more. */
  private flowOf(
    state: Market['state'],
    { time, top, before, quiet }: BookChange,
    isWhole: boolean,
  ): { figures: OfiFigures | null; isReset: boolean } {
    const day = Math.floor(time / DAY_MS);
    const isNew = state.ofiDay !== null && day !== state.ofiDay;
    const isPause = quiet !== null && quiet > (isWhole ? WHOLE_BOOK_PAUSE_MS : PAUSE_MS);
    state.ofiDay = day;
    if (isNew || isPause) Object.assign(state, { ofi: freshOfi(), ofiReset: true });
    if (before === null) return { figures: null, isReset: false };
    const isReset = state.ofiReset;
    state.ofiReset = false;
    return { figures: takeOfi(state.ofi, orderFlowImbalance(before, top)), isReset };
  }

  /** Second stage: everything up to `frontier`, by time. */
  private merge({ state, harvest }: Market, frontier: number): void {
    const { tradeItems, bookItems } = state;
    let [trades, books] = [0, 0];
    for (;;) {
      const trade = tradeItems[trades];
      const book = bookItems[books];
      const isBook = book !== undefined && (trade === undefined || book.order <= trade.order);
      const next = isBook ? book : trade;
      if (next === undefined || next.order > frontier) break;
      if (isBook) books += 1;
      else trades += 1;
      harvest.take(next);
    }
    tradeItems.splice(0, trades);
    bookItems.splice(0, books);
  }
}
