/** When samples are due: at whole multiples of the interval after the beginning, however long each of them takes. */

/** A sample that is due. */
export interface Due {
  /** From 1. */
  index: number;
  /** After the beginning, ms. */
  atMs: number;
  /** Samples before it that nobody took: their time passed while something else was done. */
  missed: number;
}

export class Schedule {
  private done = 0;

  /** @param everyMs from one sample to the next @param count of the whole run */
  constructor(
    readonly everyMs: number,
    readonly count: number,
  ) {}

  /**
   * The next sample. One belongs to its own interval: begun when the one after it is due already, it would tell of another time, and is missed.
   * @param elapsedMs since the beginning, now
   * @returns null: there is none left, and `missed` tells how many the end cut off
   */
  next(elapsedMs: number): Due | { index: null; missed: number } {
    const current = Math.floor(elapsedMs / this.everyMs);
    const index = Math.max(this.done + 1, Math.min(current, this.count + 1));
    const missed = Math.min(index - 1, this.count) - this.done;
    this.done = Math.min(index, this.count);
    return index > this.count ? { index: null, missed } : { index, atMs: index * this.everyMs, missed };
  }

  /** Samples that are due by now. */
  dueBy(elapsedMs: number): number {
    return Math.max(0, Math.min(Math.floor(elapsedMs / this.everyMs), this.count));
  }
}
