/** One symbol's trades in the order of their time, each once; which of them came late, and which are missing. */
import type { TradeRow } from '../rows.ts';
import { DISORDER_MS } from './book_track.ts';

/** Ids that are remembered where they do not count. */
const REMEMBERED_IDS = 32_768;
/** Runs of ids that are remembered where they do: a hole between two takes one more. */
const MOST_RUNS = 2000;

/** A trade as the harvest needs it; texts as the venue wrote them. */
export interface Trade {
  time: number;
  received: number;
  id: string;
  /** The venue's count; null where its ids do not count. */
  number: number | null;
  price: string;
  quantity: string;
  is_maker: boolean;
}

/** Trades that should have come before one, by the venue's numbers. */
export interface TradeGap {
  from: number;
  to: number;
  /** How many of them are missing. */
  missing: number;
}

export interface OrderedTrade {
  trade: Trade;
  /** Trades that came after those of their time were told. */
  late: Trade[];
  gap: TradeGap | null;
  /** Of all that was told so far, trades that are missing now. */
  missing: number;
}

/** Plain data. */
export interface TradeTrackState {
  /** Told up to here: time and number. */
  told: { time: number; number: number | null } | null;
  waiting: Trade[];
  late: Trade[];
  missing: number;
  /** The first number, and the highest that was told. */
  first: number | null;
  highest: number | null;
  /** Numbers that came, as runs from and to, rising. */
  runs: [number, number][];
  /** Where ids do not count: those that came lately, with their times. */
  ids: [string, number][];
  /** So late that nobody knows whether they came before: left out. */
  left_out: number;
}

const FRESH: TradeTrackState = {
  ...{ told: null, missing: 0, first: null, highest: null, left_out: 0 },
  ...{ waiting: [], late: [], runs: [], ids: [] },
};

/** The number of a trade among all of its market: as gap_finder.ts finds missing ones by. */
export function numberOf({ exchange, trade_id, sequence }: TradeRow): number | null {
  if (exchange === 'hyperliquid') return null;
  const number = exchange === 'deribit_derivatives' ? Number(sequence ?? Number.NaN) : Number(trade_id);
  return Number.isSafeInteger(number) && number > 0 ? number : null;
}

export class TradeTrack {
  readonly state: TradeTrackState;
  /** The ids of `state.ids`. */
  private readonly known: Set<string>;

  constructor(state: TradeTrackState = FRESH) {
    this.state = structuredClone(state);
    this.known = new Set(this.state.ids.map(([id]) => id));
  }

  /** @param mark as for `settle`, before this row: what is so much older than it may have been told without it */
  take(row: TradeRow, mark: number): void {
    const { state } = this;
    const { timestamp: time, received_at, trade_id: id, price, quantity, is_maker } = row;
    const number = numberOf(row);
    const isNew = number === null ? this.remember(id, time) : addTo(state.runs, number);
    if (!isNew) return;
    const received = Math.floor(received_at / 1000);
    const trade: Trade = { time, received, id, number, price, quantity, is_maker };
    if (time + DISORDER_MS <= mark || (state.told !== null && isBefore(trade, state.told))) {
      state.late.push(trade);
      // Before the first one nothing is known to be missing.
      if (number !== null && state.first !== null && number > state.first && number < state.highest!)
        state.missing -= 1;
      return;
    }
    let place = state.waiting.length;
    while (place > 0 && isBefore(trade, state.waiting[place - 1]!)) place -= 1;
    state.waiting.splice(place, 0, trade);
  }

  /** Trades whose predecessors are all here, or missing. @param mark ms, of the newest trade of this exchange; infinite at the end of the input */
  settle(mark: number, out: OrderedTrade[]): void {
    const { waiting } = this.state;
    let count = 0;
    while (count < waiting.length && waiting[count]!.time + DISORDER_MS <= mark) count += 1;
    for (const trade of waiting.splice(0, count)) out.push(this.tell(trade));
  }

  private tell(trade: Trade): OrderedTrade {
    const { state } = this;
    const { time, number } = trade;
    const gap = number === null ? null : this.gapBefore(number);
    if (number !== null) {
      state.first ??= number;
      state.highest = Math.max(state.highest ?? number, number);
    }
    state.missing += gap?.missing ?? 0;
    state.told = { time, number };
    return { trade, late: state.late.splice(0), gap, missing: state.missing };
  }

  private gapBefore(number: number): TradeGap | null {
    const { highest, runs } = this.state;
    if (highest === null || number <= highest + 1) return null;
    let missing = number - highest - 1;
    for (const [from, to] of runs) missing -= Math.max(Math.min(to, number - 1) - Math.max(from, highest + 1) + 1, 0);
    return missing === 0 ? null : { from: highest + 1, to: number - 1, missing };
  }

  /** @returns false where it came before, or so long ago that it may have */
  private remember(id: string, time: number): boolean {
    const { ids } = this.state;
    if (this.known.has(id)) return false;
    if (ids.length >= REMEMBERED_IDS) {
      if (time < ids[0]![1]) {
        this.state.left_out += 1;
        return false;
      }
      this.known.delete(ids.shift()![0]);
    }
    ids.push([id, time]);
    this.known.add(id);
    return true;
  }
}

function isBefore(one: { time: number; number: number | null }, other: { time: number; number: number | null }) {
  if (one.time !== other.time) return one.time < other.time;
  return one.number !== null && other.number !== null && one.number < other.number;
}

/** Adds a number to rising runs. @returns false when it is in one, or the runs do not reach back so far any more */
function addTo(runs: [number, number][], number: number): boolean {
  let place = runs.length;
  while (place > 0 && runs[place - 1]![0] > number) place -= 1;
  const before = runs[place - 1];
  const after = runs[place];
  if (before !== undefined && before[1] >= number) return false;
  const joins = before !== undefined && before[1] + 1 === number;
  const meets = after !== undefined && after[0] - 1 === number;
  if (joins && meets) {
    before[1] = after[1];
    runs.splice(place, 1);
  } else if (joins) before[1] = number;
  else if (meets) after[0] = number;
  else runs.splice(place, 0, [number, number]);
  // The hole that is longest ago counts as filled: what comes for it is taken for a double from now on.
  if (runs.length > MOST_RUNS) runs.splice(0, 2, [runs[0]![0], runs[1]![1]]);
  return true;
}
