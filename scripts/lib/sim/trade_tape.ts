/** The trades of a market by minutes, kept as they happen: longer than the trades themselves, and bounded too. */
import type { Trade } from './market.ts';
import type { Bar } from './price_path.ts';

const MINUTE_MS = 60_000;
const DAY_MINUTES = 1440;
/** Days that are kept, 56 KiB each. */
const DAYS_KEPT = 367;

/** The minutes of one day of UTC. Without any quantity a minute had no trade. */
interface Day {
  readonly opens: Int32Array;
  readonly highs: Int32Array;
  readonly lows: Int32Array;
  readonly closes: Int32Array;
  readonly quantities: Float64Array;
  readonly worths: Float64Array;
}

export class TradeTape {
  /** By the number of the day since the epoch, oldest first. */
  private readonly days = new Map<number, Day>();
  private newest: { time: number; price: number; quantity: number } | null = null;

  /** @param unit how many printed units of price one index of the market's grid is */
  constructor(private readonly unit: number) {}

  /** The trade before now; null as long as there was none. */
  get last(): { readonly price: number; readonly quantity: number } | null {
    return this.newest;
  }

  add({ price: index, quantity, time }: Pick<Trade, 'price' | 'quantity' | 'time'>): void {
    const price = index * this.unit;
    const minute = Math.floor(time / MINUTE_MS);
    const day = this.dayOf(Math.floor(minute / DAY_MINUTES));
    const place = minute % DAY_MINUTES;
    if (day.quantities[place] === 0) day.opens[place] = day.highs[place] = day.lows[place] = price;
    day.highs[place] = Math.max(day.highs[place] as number, price);
    day.lows[place] = Math.min(day.lows[place] as number, price);
    day.closes[place] = price;
    day.quantities[place] = (day.quantities[place] as number) + quantity;
    day.worths[place] = (day.worths[place] as number) + price * quantity;
    this.newest = { time, price, quantity };
  }

  /** The trades of whole minutes from `from` until `to`, ms; null where there are none. */
  bar(from: number, to: number): Bar | null {
    const [first, ...rest] = this.traded(from, to);
    if (!first) return null;
    const bar = { ...first, start: from };
    for (const { high, low, close, quantity, worth } of rest) {
      if (high > bar.high) bar.high = high;
      if (low < bar.low) bar.low = low;
      bar.close = close;
      bar.quantity += quantity;
      bar.worth += worth;
    }
    return bar;
  }

  /** The price of the first trade of these minutes; null where there are none. */
  openOf(from: number, to: number): number | null {
    const first = this.traded(from, to).next();
    return first.done ? null : first.value.open;
  }

  /** The price of the last trade before the minute that begins at `time`; null where none is kept. */
  closeBefore(time: number): number | null {
    if (this.newest === null) return null;
    if (this.newest.time < time) return this.newest.price;
    const minute = Math.floor(time / MINUTE_MS);
    for (const [number, day] of [...this.days].reverse()) {
      for (let place = Math.min(DAY_MINUTES, minute - number * DAY_MINUTES) - 1; place >= 0; place--) {
        if (day.quantities[place] !== 0) return day.closes[place] as number;
      }
    }
    return null;
  }

  /** Minutes with trades, in order. */
  private *traded(from: number, to: number): Generator<Bar> {
    const end = Math.ceil(to / MINUTE_MS);
    for (let minute = Math.floor(from / MINUTE_MS); minute < end; ) {
      const number = Math.floor(minute / DAY_MINUTES);
      const day = this.days.get(number);
      const dayEnd = Math.min(end, (number + 1) * DAY_MINUTES);
      for (; day !== undefined && minute < dayEnd; minute++) {
        const place = minute - number * DAY_MINUTES;
        if (day.quantities[place] !== 0) yield barOf(day, place, minute * MINUTE_MS);
      }
      minute = dayEnd;
    }
  }

  private dayOf(number: number): Day {
    const found = this.days.get(number);
    if (found) return found;
    const prices = () => new Int32Array(DAY_MINUTES);
    const sums = () => new Float64Array(DAY_MINUTES);
    const day = {
      opens: prices(),
      highs: prices(),
      lows: prices(),
      closes: prices(),
      quantities: sums(),
      worths: sums(),
    };
    this.days.set(number, day);
    for (const kept of this.days.keys()) {
      if (this.days.size <= DAYS_KEPT) break;
      this.days.delete(kept);
    }
    return day;
  }
}

function barOf({ opens, highs, lows, closes, quantities, worths }: Day, place: number, start: number): Bar {
  const at = (numbers: Int32Array | Float64Array): number => numbers[place] as number;
  return {
    start,
    ...{ open: at(opens), high: at(highs), low: at(lows), close: at(closes) },
    ...{ quantity: at(quantities), worth: at(worths) },
  };
}
