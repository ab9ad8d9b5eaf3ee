/**
 * REST requests to one venue's host: one budget of weight for all of them, and the venue's own word on limits obeyed.
 */
import { Pool } from 'undici';
import type { Logger } from './log.ts';

const REQUEST_TIMEOUT_MS = 10_000;
/** Share of the venue's weight that we use: other programs may run behind the same address. */
const BUDGET_SHARE = 0.5;
/** Without a `retry-after`, a refusal (429, 418) is obeyed this long; a region block (403, 451) is asked again then. */
const REFUSED_WAIT_MS = 60_000;
const BLOCKED_WAIT_MS = 600_000;

/** What came of a request. `wait`: not sent, or refused; nothing may be sent before `until` (ms). */
export type RestAnswer =
  | { kind: 'ok'; body: unknown }
  | { kind: 'wait'; until: number; reason: string }
  | { kind: 'failed'; reason: string };

export class VenueRest {
  private readonly pool: Pool;
  private closedUntil = 0;
  private closedReason = '';
  private usedWeight = 0;
  private usedMinute = 0;

  constructor(
    private readonly host: string,
    private readonly weightPerMinute: number,
    private readonly weightHeader: string,
    private readonly log: Logger,
  ) {
    this.pool = new Pool(host, {
      connections: 2,
      headersTimeout: REQUEST_TIMEOUT_MS,
      bodyTimeout: REQUEST_TIMEOUT_MS,
    });
  }

  /** Why nothing may be sent at present, or null. */
  blocked(now: number): string | null {
    return now < this.closedUntil ? this.closedReason : null;
  }

  /** GET of `path` (with query), costing `weight`. Never throws. */
  async get(path: string, weight: number): Promise<RestAnswer> {
    const now = Date.now();
    if (now < this.closedUntil) return { kind: 'wait', until: this.closedUntil, reason: this.closedReason };
    const minute = Math.floor(now / 60_000);
    if (minute !== this.usedMinute) {
      this.usedMinute = minute;
      this.usedWeight = 0;
    }
    if (this.usedWeight + weight > this.weightPerMinute * BUDGET_SHARE) {
      return { kind: 'wait', until: (minute + 1) * 60_000, reason: `weight ${this.usedWeight} used in this minute` };
    }
    this.usedWeight += weight;
    try {
      const { statusCode, headers, body } = await this.pool.request({ path, method: 'GET' });
      const text = await body.text();
      const told = Number(headers[this.weightHeader]);
      if (Number.isFinite(told) && this.usedMinute === minute) this.usedWeight = Math.max(this.usedWeight, told);
      if (statusCode === 200) return { kind: 'ok', body: JSON.parse(text) };
      return this.refused(statusCode, headers['retry-after'], text);
    } catch (error) {
      return { kind: 'failed', reason: `${path.split('?')[0]}: ${(error as Error).message}` };
    }
  }

  close(): Promise<void> {
    return this.pool.destroy();
  }

  private refused(status: number, retryAfter: string | string[] | undefined, text: string): RestAnswer {
    const reason = `HTTP ${status}: ${text.slice(0, 200)}`;
    const blocked = status === 403 || status === 451;
    if (status !== 429 && status !== 418 && !blocked) return { kind: 'failed', reason };
    const seconds = Number(retryAfter);
    const wait = seconds > 0 ? seconds * 1000 : blocked ? BLOCKED_WAIT_MS : REFUSED_WAIT_MS;
    // The end of a ban is told in the text too, and may be later than the header says.
    const bannedUntil = Number(/banned until (\d{13})/.exec(text)?.[1] ?? 0);
    const until = Math.max(Date.now() + wait, bannedUntil);
    // A later, shorter refusal does not end a ban.
    if (until > this.closedUntil) {
      this.closedUntil = until;
      this.closedReason = reason;
    }
    this.log.warn({ event: 'rest_refused', host: this.host, until: new Date(this.closedUntil).toISOString() }, reason);
    return { kind: 'wait', until: this.closedUntil, reason };
  }
}
