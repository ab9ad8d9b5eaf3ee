/** One symbol's book, rebuilt from the rows of its updates, and how its top five levels changed. */
import { type BookDump, OrderBook } from '../book.ts';
import { decimalNumber } from '../decimal.ts';
import type { Exchange, Level, OrderbookRow, OrderbookUpdateRow } from '../rows.ts';
import { TOP_LEVELS, type Top } from './ofi.ts';

/** Rows may come after later ones by so much, ms: two collectors publish the same stream. What is missing for longer is missing. */
export const DISORDER_MS = 2000;
/** Updates that came before their snapshot are kept for so long: the snapshot is the collector's next row, or the next sample's. */
const HELD_MS = 15_000;
const MAX_HELD = 5000;
/** An old id with a time this much newer means that the venue counts anew. */
const RESTARTED_IDS_MS = 5000;

/** The top of the book after an update that changed it. */
export interface BookChange {
  /** Event time, ms; and when the frame arrived. */
  time: number;
  received: number;
  first: number | null;
  last: number;
  prev: number | null;
  top: Top;
  /** The top before; null where the book begins (anew). */
  before: Top | null;
  /** Since the update before, ms; null where the book begins. */
  quiet: number | null;
}

export type BookGapCause = 'missing_updates' | 'crossed' | 'ids_restarted' | 'differs_from_sample' | 'too_shallow';

/** Between these, states of the book are not known. */
export interface BookGap {
  cause: BookGapCause;
  time: number;
  received: number;
  /** The last id that was applied, and the one that showed the gap. */
  from: number | null;
  to: number;
}

/** `floor`: the time, ms, at which it can be told at the earliest: what is older may have been told without it. */
export type BookStep = ({ change: BookChange } | { gap: BookGap }) & { floor: number };

/** An update, or a whole book that one may begin with. */
interface Update {
  time: number;
  received: number;
  first: number | null;
  last: number;
  prev: number | null;
  bids: Level[];
  asks: Level[];
  /** Of a whole book: levels a side from which on it is cut off. */
  fullSide: number;
}

/** Plain data, but for the book. */
interface State {
  last: number | null;
  lastTime: number;
  top: Top | null;
  /** Updates whose predecessor is not there, by id. */
  held: Update[];
  /** A whole book that is ahead of ours. */
  candidate: Update | null;
  /** Books begun after the first. */
  restarts: number;
  begun: boolean;
  /** Updates that could not be used: they crossed the book. */
  bad: number;
}

export type BookTrackDump = State & { book: BookDump | null };

const FRESH: State = {
  ...{ last: null, lastTime: 0, top: null, candidate: null, restarts: 0, begun: false, bad: 0 },
  held: [],
};

/** How a venue tells its books. */
export interface BookVenue {
  /** Whole each time: each follows the one before. */
  isWhole: boolean;
  /** Whole books are cut off at some depth, also where a sample shows fewer than 400 levels. */
  isCut: boolean;
}

export function bookVenue(exchange: Exchange): BookVenue {
  return { isWhole: exchange === 'hyperliquid', isCut: exchange.startsWith('binance_') };
}

/** Levels a side from which on a whole book is taken as cut off. */
const FULL_SIDE = 400;

/**
 * Applies updates in the order of their chain, whatever order they come in within `DISORDER_MS`, and each once. A break is told as a gap and ends
 * the book; the next whole book that fits begins it again.
 */
export class BookTrack {
  private book: OrderBook | null = null;
  private readonly state: State;
  private floor = Number.NEGATIVE_INFINITY;

  constructor(
    private readonly venue: BookVenue,
    dump?: BookTrackDump,
  ) {
    const { book, ...state } = dump ?? { ...FRESH, book: null };
    this.state = structuredClone(state);
    this.book = book === null ? null : OrderBook.restored(book);
  }

  dump(): BookTrackDump {
    return { ...this.state, book: this.book?.dump() ?? null };
  }

  get restarts(): number {
    return this.state.restarts;
  }

  get bad(): number {
    return this.state.bad;
  }

  /** An update, or the whole book that updates stand on. @param mark as for `settle`, before this row */
  update(row: OrderbookUpdateRow, mark: number, out: BookStep[]): void {
    this.floor = mark - DISORDER_MS + 1;
    const update = updateOf(row, row.first_update_id as number | null, row.prev_update_id as number | null);
    if (this.venue.isWhole) this.replace(update, out);
    else if (row.is_snapshot) this.offer(update, out);
    else this.follow(update, out);
  }

  /** A sample of the whole book: ours must be like it; and where there is none it begins one. */
  sample(row: OrderbookRow, mark: number, out: BookStep[]): void {
    const { state } = this;
    this.floor = mark - DISORDER_MS + 1;
    const sample = updateOf(row, null, null);
    // Whole books are told as updates, too. And what Binance's collector knows not to be complete is no measure.
    if (this.venue.isWhole || (this.venue.isCut && row.verified !== 'verified')) return;
    if (this.venue.isCut) sample.fullSide = 1;
    if (this.book === null || state.last === null || sample.last > state.last) this.offer(sample, out);
    else if (sample.last === state.last && !isSameTop(this.book, sample)) {
      this.end('differs_from_sample', sample, out);
      if (this.book === null) this.begin(sample, out);
    }
  }

  /** Everything of before `mark` − `DISORDER_MS` is here, or missing. @param mark ms, of the newest row of this exchange's books */
  settle(mark: number, out: BookStep[]): void {
    const { state } = this;
    for (;;) {
      const [oldest] = state.held;
      if (this.book === null || oldest === undefined || oldest.time + DISORDER_MS > mark) break;
      // Known as soon as the mark is so far, whenever it is asked.
      this.floor = oldest.time;
      this.end('missing_updates', oldest, out);
    }
    if (this.book === null) while (state.held.length > 0 && state.held[0]!.time + HELD_MS <= mark) state.held.shift();
  }

  private follow(update: Update, out: BookStep[]): void {
    const { state } = this;
    if (this.book !== null && update.last <= state.last!) {
      if (update.time <= state.lastTime + RESTARTED_IDS_MS) return;
      this.restarted(update, out);
    }
    hold(state.held, update);
    this.drain(out);
  }

  /** A whole book: taken where we have none, else kept in case ours breaks before it gets there. */
  private offer(snapshot: Update, out: BookStep[]): void {
    const { state } = this;
    if (this.book === null) this.begin(snapshot, out);
    else if (snapshot.last > state.last!) state.candidate = snapshot;
    else if (snapshot.time > state.lastTime + RESTARTED_IDS_MS) {
      this.restarted(snapshot, out);
      this.begin(snapshot, out);
    }
  }

  private replace(whole: Update, out: BookStep[]): void {
    const { state } = this;
    if (state.last !== null && whole.last <= state.last) return;
    this.book = new OrderBook(whole.bids, whole.asks, Number.POSITIVE_INFINITY);
    if (this.book.crossed()) {
      this.end('crossed', whole, out);
      return;
    }
    this.moved(whole, out);
  }

  private begin(snapshot: Update, out: BookStep[]): void {
    const { state } = this;
    const book = new OrderBook(snapshot.bids, snapshot.asks, snapshot.fullSide);
    state.candidate = null;
    if (book.crossed()) {
      state.bad += 1;
      return;
    }
    this.book = book;
    if (state.begun) state.restarts += 1;
    state.begun = true;
    // What the snapshot has in it already.
    state.held = state.held.filter(({ last }) => last > snapshot.last);
    this.moved(snapshot, out);
    this.drain(out);
  }

  private drain(out: BookStep[]): void {
    const { state } = this;
    while (this.book !== null && state.held.length > 0) {
      const next = state.held[0]!;
      if (next.last > state.last! && !follows(next, state.last!)) return;
      state.held.shift();
      if (next.last > state.last!) this.apply(next, out);
    }
  }

  private apply(update: Update, out: BookStep[]): void {
    const book = this.book!;
    book.apply(update.bids, update.asks);
    const cause = book.crossed() ? 'crossed' : book.top(TOP_LEVELS).complete ? null : 'too_shallow';
    if (cause === null) this.moved(update, out);
    else this.end(cause, update, out);
  }

  private moved({ time, received, first, last, prev }: Update, out: BookStep[]): void {
    const { state } = this;
    const { bids, asks } = this.book!.top(TOP_LEVELS);
    const [before, top] = [state.top, { bids, asks }];
    const quiet = before === null ? null : Math.max(time - state.lastTime, 0);
    Object.assign(state, { last, lastTime: Math.max(time, before === null ? time : state.lastTime), top });
    if (state.candidate !== null && state.candidate.last <= last) state.candidate = null;
    if (before !== null && isEqual(before.bids, bids) && isEqual(before.asks, asks)) return;
    out.push({ change: { time, received, first, last, prev, top, before, quiet }, floor: this.floor });
  }

  /** What waits bears numbers of before. */
  private restarted(by: Update, out: BookStep[]): void {
    this.end('ids_restarted', by, out);
    this.state.held = [];
    this.state.candidate = null;
  }

  /** Ends the book; one that is ahead of it, as after a break, begins it again. */
  private end(cause: BookGapCause, { time, received, last }: Update, out: BookStep[]): void {
    const { state } = this;
    if (cause === 'crossed') state.bad += 1;
    out.push({ gap: { cause, time, received, from: state.last, to: last }, floor: this.floor });
    this.book = null;
    Object.assign(state, { last: null, top: null });
    const { candidate } = state;
    if (candidate !== null && cause !== 'ids_restarted') this.begin(candidate, out);
  }
}

function updateOf(
  { timestamp, received_at, last_update_id, bids, asks }: OrderbookRow | OrderbookUpdateRow,
  first: number | null,
  prev: number | null,
): Update {
  const received = Math.floor(received_at / 1000);
  return { time: timestamp, received, first, last: last_update_id as number, prev, bids, asks, fullSide: FULL_SIDE };
}

/** Whether nothing is missing between `last` and an update; after a snapshot, that may lie within the update. */
function follows({ first, prev }: Update, last: number): boolean {
  const predecessor = prev ?? (first === null ? null : first - 1);
  return predecessor !== null && predecessor <= last;
}

/** Puts an update in its place among those that wait, once. */
function hold(held: Update[], update: Update): void {
  let place = held.length;
  while (place > 0 && held[place - 1]!.last > update.last) place -= 1;
  if (place > 0 && held[place - 1]!.last === update.last) return;
  held.splice(place, 0, update);
  if (held.length > MAX_HELD) held.shift();
}

function isSameTop(book: OrderBook, sample: Update): boolean {
  const { bids, asks } = book.top(TOP_LEVELS);
  return isEqual(bids, sample.bids.slice(0, TOP_LEVELS)) && isEqual(asks, sample.asks.slice(0, TOP_LEVELS));
}

function isEqual(one: Level[], other: Level[]): boolean {
  if (one.length !== other.length) return false;
  return one.every(([price, quantity], i) => isSame(price, other[i]![0]) && isSame(quantity, other[i]![1]));
}

function isSame(one: string, other: string): boolean {
  return one === other || decimalNumber(one) === decimalNumber(other);
}
