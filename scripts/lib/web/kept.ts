/** Answers that are kept for a while. */

/** What was asked for last, told again for a while; whoever asks meanwhile waits for the same. */
export class Kept<T> {
  private last: { promise: Promise<T>; at: number } | null = null;
  private isUnderWay = false;

  /**
   * @param freshMs for so long after it was asked for, it is told as it is
   * @param keptMs for so long it is told at once, while it is looked for again
   */
  constructor(
    private readonly freshMs: number,
    private readonly keptMs = freshMs,
  ) {}

  /** @param now the clock, ms @throws what `look` throws; a failure is not kept, the next one who asks waits for a new look */
  get(now: number, look: () => Promise<T>): Promise<T> {
    const { last } = this;
    const age = last === null ? Number.POSITIVE_INFINITY : Math.abs(now - last.at);
    if (age < this.freshMs || (age < this.keptMs && this.isUnderWay)) return last!.promise;
    const made = { promise: look(), at: now };
    this.isUnderWay = true;
    const isKept = age < this.keptMs;
    if (!isKept) this.last = made;
    made.promise
      .then(
        () => (this.last = made),
        () => (this.last = null),
      )
      .finally(() => (this.isUnderWay = false));
    return isKept ? last!.promise : made.promise;
  }
}
