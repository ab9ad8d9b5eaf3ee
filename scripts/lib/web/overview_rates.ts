/** Rates of counters that others keep: how much they rose between looks, over a short time. Pure: the clock is the caller's. */

/** A rate is usually over so much time, ms: long enough to be steady, short enough to tell a stop. */
const WINDOW_MS = 10_000;
/** Looks that are further apart say nothing of now, ms. */
const MOST_APART_MS = 30_000;

/** What one look found. */
export interface CounterLook {
  /** Steady clock, ms. */
  at: number;
  /**
   * Names who counts: another one, such as a new start of the process, began anew at 0, and a counter that it does not name yet is 0 there. Null:
   * only the counters tell.
   */
  origin: string | null;
  counters: ReadonlyMap<string, number>;
}

/** The counters of one source. */
export class Rates {
  /** Oldest first; all of one origin. */
  private looks: CounterLook[] = [];

  /**
   * @param windowMs over which rates are
   * @param leastMs below which none is told: of what rises at once and then rests, less than a turn says 0 or far too much
   */
  constructor(
    private readonly windowMs = WINDOW_MS,
    private readonly leastMs = 0,
  ) {}

  /** A look that found something. One that found the source away is told by `forget`. */
  take(look: CounterLook): void {
    const last = this.looks.at(-1);
    if (last !== undefined && (last.origin !== look.origin || look.at - last.at > MOST_APART_MS)) this.looks = [];
    this.looks.push(look);
    // One that is as old as the window, or older, stays: from there it is measured.
    while (this.looks.length > 2 && look.at - this.looks[1]!.at >= this.windowMs) this.looks.shift();
  }

  /** The source is away: what it says when it is back is not to be compared with what it said before. */
  forget(): void {
    this.looks = [];
  }

  /** Time between the looks of a rate, ms; null while there is none. */
  get measuredMs(): number | null {
    const [first, last] = [this.looks[0], this.looks.at(-1)];
    if (first === undefined || last === undefined || last.at <= first.at) return null;
    return last.at - first.at < this.leastMs ? null : last.at - first.at;
  }

  /**
   * Per second.
   * @returns null while it is not known: before the second look, and after the counter began anew, until it was looked at twice again
   */
  rate(name: string): number | null {
    let [from, to] = [null as { at: number; value: number } | null, null as { at: number; value: number } | null];
    for (const { at, origin, counters } of this.looks) {
      const value = counters.get(name) ?? (origin === null ? undefined : 0);
      if (value === undefined) {
        [from, to] = [null, null];
        continue;
      }
      // Counters only rise: one that fell began anew, and by how much it had risen before that nobody knows.
      if (from === null || (to !== null && value < to.value)) from = { at, value };
      to = { at, value };
    }
    if (from === null || to === null || to.at <= from.at || to.at - from.at < this.leastMs) return null;
    return ((to.value - from.value) * 1000) / (to.at - from.at);
  }

  /** Of several counters together: of none it is 0. @returns null where one of them is not known */
  sum(names: readonly string[]): number | null {
    if (this.measuredMs === null) return null;
    let total = 0;
    for (const name of names) {
      const rate = this.rate(name);
      if (rate === null) return null;
      total += rate;
    }
    return total;
  }

  /** The counters of the last look. */
  get names(): string[] {
    return [...(this.looks.at(-1)?.counters.keys() ?? [])];
  }
}
