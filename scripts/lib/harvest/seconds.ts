/** Each second of a market once it is over, and what the market was like: how active, how volatile. */
import { meanAndDeviation, median, pushTo } from './statistics.ts';

/** A book that is older tells nothing of a second, ms. */
const BOOK_AGE_MS = 5000;
/** Seconds without anything are told one by one for so long; then it is silent until something comes. */
export const SILENCE_SECONDS = 60;
const MINUTE_MS = 60_000;
/** Seconds that late trades can still correct. */
const CORRECTABLE = 900;
/** Volatility: the deviation of the returns of so many seconds, of which so many must be known. */
const VOLATILITY_SECONDS = 300;
const LEAST_RETURNS = 60;
/** It is high when it is above the median of what it was each minute of the last hours. */
const HISTORY_MINUTES = 360;
const LEAST_HISTORY = 10;

/** What is known at a moment, for the rows of that moment. */
export interface BookView {
  time: number;
  bid: string;
  ask: string;
  bidNumber: number;
  askNumber: number;
}

/** One second. Figures are as of its end; null where there is none. */
export interface Second {
  /** Its start, ms. */
  start: number;
  received: number;
  trades: number;
  book_changes: number;
  mid: number | null;
  last_price: number | null;
  return_1s: number | null;
  ofi_z: number | null;
  cvd_z: number | null;
  fusion_score: number | null;
  lag_ms_ofi: number | null;
  lag_ms_cvd: number | null;
  lag_ms_fusion: number | null;
  best_bid: number | null;
  best_ask: number | null;
  spread_bps: number | null;
  best_buy_fill: number | null;
  best_sell_fill: number | null;
}

export type VolBucket = 'High' | 'Low';

/** A second with what may still correct it. */
export interface KeptSecond {
  second: Second;
  revision: number;
  vol_bucket: VolBucket | null;
  regime: 'Active' | 'Quiet' | null;
  /** Time of its last trade, ms; null without one. */
  lastTrade: number | null;
  /** The last price of the second before. */
  priceBefore: number | null;
}

interface Seen {
  time: number;
  value: number | null;
}

/** Plain data. */
export interface SecondsState {
  /** The second that is being gathered, its start in ms; null before the first, and in silence. */
  open: number | null;
  received: number;
  trades: number;
  changes: number;
  ofi: Seen | null;
  cvd: Seen | null;
  fusion: Seen | null;
  lastTrade: number | null;
  fills: { buy: number; sell: number } | null;
  /** Price of the newest trade, and at the end of the second before the open one. */
  price: number | null;
  priceBefore: number | null;
  quiet: number;
  /** Newest last. */
  kept: KeptSecond[];
  returns: number[];
  volatilities: number[];
  /** As of the newest second that is over. */
  vol: VolBucket | null;
}

export function freshSeconds(): SecondsState {
  return {
    ...{ open: null, received: 0, trades: 0, changes: 0, ofi: null, cvd: null, fusion: null, lastTrade: null },
    ...{ fills: null, price: null, priceBefore: null, quiet: 0, kept: [], returns: [], volatilities: [], vol: null },
  };
}

/** How volatile it is against the last hours; null while too little is known. */
function volBucketOf(now: number | null, volatilities: readonly number[]): VolBucket | null {
  if (now === null || volatilities.length < LEAST_HISTORY) return null;
  return now > median(volatilities) ? 'High' : 'Low';
}

function volatilityOf(returns: readonly number[]): number | null {
  return returns.length < LEAST_RETURNS ? null : meanAndDeviation(returns).deviation;
}

export interface Closing {
  book: BookView | null;
  regime: 'Active' | 'Quiet' | null;
}

/**
 * Ends all seconds before the one that begins at `until`.
 * @returns those, oldest first; in silence there are none after the sixtieth
 */
export function closeSeconds(state: SecondsState, until: number, { book, regime }: Closing): KeptSecond[] {
  const closed: KeptSecond[] = [];
  while (state.open !== null && state.open < until) {
    const isEmpty = state.trades === 0 && state.changes === 0;
    state.quiet = isEmpty ? state.quiet + 1 : 0;
    if (state.quiet > SILENCE_SECONDS) {
      state.open = null;
      break;
    }
    const second = closeOne(state, state.open, book);
    if (second.return_1s !== null) pushTo(state.returns, second.return_1s, VOLATILITY_SECONDS);
    const volatility = volatilityOf(state.returns);
    state.vol = volBucketOf(volatility, state.volatilities);
    const { lastTrade, priceBefore, vol } = state;
    const kept: KeptSecond = { second, revision: 0, vol_bucket: vol, regime, lastTrade, priceBefore };
    // After it was judged: nothing is compared with itself.
    if (volatility !== null && second.start % MINUTE_MS === 0) pushTo(state.volatilities, volatility, HISTORY_MINUTES);
    pushTo(state.kept, kept, CORRECTABLE);
    closed.push(kept);
    Object.assign(state, { open: state.open + 1000, received: 0, trades: 0, changes: 0, lastTrade: null, fills: null });
    Object.assign(state, { ofi: null, cvd: null, fusion: null, priceBefore: state.price });
  }
  return closed;
}

/** Begins the second of `time` where none is open. @returns the end of the silence that was, ms; null: there was none */
export function openSecond(state: SecondsState, time: number): { from: number; to: number } | null {
  if (state.open !== null) return null;
  const before = state.kept.at(-1)?.second.start;
  // What comes after its second was told counts to the next one: no second is told twice.
  const start = Math.max(Math.floor(time / 1000) * 1000, (before ?? Number.NEGATIVE_INFINITY) + 1000);
  state.open = start;
  state.quiet = 0;
  if (before === undefined || start <= before + 1000) return null;
  // What the price was before the silence says nothing of this second's return.
  state.priceBefore = null;
  return { from: before + 1000, to: start };
}

function closeOne(state: SecondsState, start: number, view: BookView | null): Second {
  const end = start + 1000;
  const book = view !== null && end - view.time <= BOOK_AGE_MS ? view : null;
  const mid = book === null ? null : (book.bidNumber + book.askNumber) / 2;
  const lag = (seen: Seen | null) => (seen === null ? null : Math.max(end - seen.time, 0));
  return {
    start,
    received: state.received,
    trades: state.trades,
    book_changes: state.changes,
    mid,
    last_price: state.price,
    return_1s: returnOf(state.price, state.priceBefore),
    ofi_z: state.ofi?.value ?? null,
    cvd_z: state.cvd?.value ?? null,
    fusion_score: state.fusion?.value ?? null,
    lag_ms_ofi: lag(state.ofi),
    lag_ms_cvd: lag(state.cvd),
    lag_ms_fusion: lag(state.fusion),
    best_bid: book?.bidNumber ?? null,
    best_ask: book?.askNumber ?? null,
    spread_bps: book === null || mid === null ? null : ((book.askNumber - book.bidNumber) / mid) * 1e4,
    best_buy_fill: state.fills?.buy ?? null,
    best_sell_fill: state.fills?.sell ?? null,
  };
}

function returnOf(price: number | null, before: number | null): number | null {
  return price === null || before === null ? null : (price - before) / before;
}

/**
 * A trade that came after its second was over: the second has one trade more. Where none in it is younger, it has another last price, and so have
 * the seconds without trades that follow; the returns of all of them, and of the next one with trades, stand on it.
 * @returns the seconds that say something else now, each with its next revision; empty where it is too old to be corrected
 */
export function correctSeconds(state: SecondsState, time: number, received: number, price: number): KeptSecond[] {
  const { kept } = state;
  const start = Math.floor(time / 1000) * 1000;
  const place = kept.findIndex(({ second }) => second.start === start);
  if (place < 0) return [];
  const { second, lastTrade } = kept[place]!;
  kept[place]!.second = { ...second, trades: second.trades + 1, received: Math.max(second.received, received) };
  const isLast = lastTrade === null || time > lastTrade;
  const end = isLast ? spread(state, place, time, price) : place + 1;
  return kept.slice(place, end).map((each) => {
    each.revision += 1;
    return structuredClone(each);
  });
}

/** Carries a last price on from a second to those that follow. @returns the place after the last one that it changes */
function spread(state: SecondsState, place: number, time: number, price: number): number {
  const { kept } = state;
  kept[place]!.lastTrade = time;
  for (let i = place; i < kept.length; i++) {
    const each = kept[i]!;
    if (i > place && each.second.start !== kept[i - 1]!.second.start + 1000) return i;
    if (i > place) each.priceBefore = price;
    const hasOwn = i > place && each.second.trades > 0;
    const last_price = hasOwn ? each.second.last_price : price;
    each.second = { ...each.second, last_price, return_1s: returnOf(last_price, each.priceBefore) };
    if (hasOwn) return i + 1;
  }
  if (state.open === kept.at(-1)!.second.start + 1000) state.priceBefore = price;
  if (state.trades === 0) state.price = price;
  return kept.length;
}

/** A trade of the second that is still open, whether it came in its turn or late. */
export function countTrade(state: SecondsState, time: number, price: number): void {
  state.trades += 1;
  if (state.lastTrade !== null && time < state.lastTrade) return;
  state.lastTrade = time;
  state.price = price;
}
