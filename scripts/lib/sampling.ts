/** Which readings of a fast stream are stored: by venue time, so that two collectors pick the same ones. */

const MINUTE_MS = 60_000;

/** Hyperliquid tells each book whole under its time, at most one in this (the venue's notice of 2026-07-25); ms. */
export const WHOLE_BOOK_MS = 5000;

/**
 * Tells the first message at or after each whole minute of venue time, per stream; the first message after a start too.
 * Messages that come late, or again, are never due.
 */
export class MinuteSampler {
  private readonly last = new Map<string, number>();

  /** @param time venue time of the message, ms */
  due(stream: string, time: number): boolean {
    const minute = Math.floor(time / MINUTE_MS);
    if (minute <= (this.last.get(stream) ?? -1)) return false;
    this.last.set(stream, minute);
    return true;
  }
}
