/**
 * Liquidations of Deribit: live trades no longer say that they were one, the venue's history does after a while. So it is read again,
 * span by span, as far as it is old enough.
 */

/** Spans of this length at most are read, from this long before a start on. */
const SPAN_MS = 10 * 60_000;
const BACK_MS = 180 * 60_000;
/** How long after a trade the history tells it; seen to take about an hour. */
const DELAY_MS = 75 * 60_000;
/** The most trades that one answer has. */
const COUNT = 1000;

/** The way of one instrument through its history. */
export class LiquidationSearch {
  /** Up to when was searched, ms; null: nothing yet. */
  private until: number | null = null;
  /** The request for the span under way. */
  private path: string | null = null;
  private span: { start: number; end: number } = { start: 0, end: 0 };

  /** @param delayMs ms after which the history tells a liquidation */
  constructor(
    private readonly instrument: string,
    private readonly delayMs = DELAY_MS,
  ) {}

  /** The request that is due at `now` (ms), the same until it is answered; null: the next span is not old enough yet. */
  due(now: number): string | null {
    this.path ??= this.next(now - this.delayMs);
    return this.path;
  }

  /** True when `path` is the request under way. */
  asked(path: string): boolean {
    return path === this.path;
  }

  /** @param newest time of the last trade in the answer, ms; null: it had none */
  answered(newest: number | null, hasMore: boolean): void {
    const { start, end } = this.span;
    // The next part begins within the millisecond of the last trade, which may have had more of them.
    this.until = hasMore && newest !== null ? Math.max(newest, start + 1) : end;
    this.path = null;
  }

  private next(oldEnough: number): string | null {
    const start = this.until ?? Math.floor(oldEnough) - BACK_MS;
    const end = Math.min(Math.floor(oldEnough), start + SPAN_MS);
    // A span that is shorter than what it waits for would only cost requests.
    if (end - start < Math.min(SPAN_MS, this.delayMs)) return null;
    this.span = { start, end };
    const times = `start_timestamp=${start}&end_timestamp=${end}`;
    const name = encodeURIComponent(this.instrument);
    return `/api/v2/public/get_last_trades_by_instrument_and_time?instrument_name=${name}&${times}&count=${COUNT}&sorting=asc`;
  }
}
