/**
 * REST requests to one venue's host: one budget of weight for all of them, and the venue's own word on limits obeyed.
 */
import { Pool } from 'undici';
import type { Logger } from './log.ts';
import { RequestBudget } from './request_budget.ts';
import { steadyNow, steadyTime } from './steady.ts';
import { signOfLife } from './vital_signs.ts';

const REQUEST_TIMEOUT_MS = 10_000;
/** Share of the venue's weight that we use: other programs may run behind the same address. */
const BUDGET_SHARE = 0.5;
/** Without a `retry-after`, a refusal (429, 418) is obeyed this long. */
const REFUSED_WAIT_MS = 60_000;

/**
 * What came of a request. `wait`: not sent, or refused; nothing may be sent before `until` (steady clock, ms). `failed` with `isOurs`: the
 * venue says that the request itself is wrong (HTTP 4xx), such as a time that is too long ago.
 */
export type RestAnswer =
  | { kind: 'ok'; body: unknown }
  | { kind: 'wait'; until: number; reason: string }
  | { kind: 'failed'; reason: string; isOurs: boolean };

export interface VenueRestOptions {
  /** `https://host[:port]`. */
  host: string;
  /** All processes with this data directory share one budget per host. */
  dataDir: string;
  weightPerMinute: number;
  /** The header that tells the used weight; empty where there is none. */
  weightHeader: string;
  /** A region block (403, 451) is tried again after this time. */
  blockedRetryMs: number;
  /** An answer came, after so long. */
  onAnswer?(endpoint: string, method: string, seconds: number): void;
  log: Logger;
}

export class VenueRest {
  /** Of the last answer, s. */
  lastSeconds: number | null = null;
  private readonly pool: Pool;
  private readonly budget: RequestBudget;

  constructor(private readonly options: VenueRestOptions) {
    const { dataDir, host, log } = options;
    this.budget = new RequestBudget(dataDir, host, (error) => log.warn({ event: 'budget_not_kept', host, err: error }));
    this.pool = new Pool(options.host, {
      connections: 2,
      headersTimeout: REQUEST_TIMEOUT_MS,
      bodyTimeout: REQUEST_TIMEOUT_MS,
    });
  }

  /** Why nothing may be sent at `now` (steady clock, ms), or null. */
  refused(now = steadyNow()): string | null {
    return this.budget.refusal(now)?.reason ?? null;
  }

  /** True while the venue answers 403 or 451: it does not serve this region, or its firewall shut us out. */
  blocked(now = steadyNow()): boolean {
    return this.budget.refusal(now)?.blocked ?? false;
  }

  /**
   * GET of `path` (with query), or a POST of its path with the JSON `body`, costing `weight`. Never throws.
   * @param share of the venue's weight that may be used up to here: what is not urgent leaves some for what is
   * @param headers what a GET needs besides, such as a signature
   */
  async ask(
    path: string,
    weight: number,
    body: string | null = null,
    share = BUDGET_SHARE,
    headers: Record<string, string> = {},
  ): Promise<RestAnswer> {
    const { weightPerMinute, weightHeader } = this.options;
    // Minutes are the wall clock's, as the venue and other processes have them. A wait for the next one is short however it is set.
    const now = Date.now();
    const begun = performance.now();
    try {
      const refusal = this.budget.refusal();
      if (refusal) return { kind: 'wait', until: refusal.endsAt, reason: refusal.reason };
      const used = this.budget.used(now);
      if (used + weight > weightPerMinute * share) {
        const until = steadyTime((Math.floor(now / 60_000) + 1) * 60_000);
        return { kind: 'wait', until, reason: `weight ${used} used in this minute` };
      }
      this.budget.take(now, weight);
      const answer = await this.pool.request(
        body === null
          ? { path, method: 'GET', headers }
          : { path: path.split('?')[0]!, method: 'POST', body, headers: { 'content-type': 'application/json' } },
      );
      const text = await answer.body.text();
      this.lastSeconds = (performance.now() - begun) / 1000;
      signOfLife();
      this.options.onAnswer?.(path.split('?')[0]!, body === null ? 'GET' : 'POST', this.lastSeconds);
      const told = Number(answer.headers[weightHeader]);
      if (Number.isFinite(told)) this.budget.told(now, told);
      if (answer.statusCode === 200) return { kind: 'ok', body: JSON.parse(text) };
      return this.obey(answer.statusCode, answer.headers['retry-after'], text);
    } catch (error) {
      return { kind: 'failed', reason: `${path.split('?')[0]}: ${(error as Error).message}`, isOurs: false };
    }
  }

  close(): Promise<void> {
    return this.pool.destroy();
  }

  private obey(status: number, retryAfter: string | string[] | undefined, text: string): RestAnswer {
    const reason = `HTTP ${status}: ${text.slice(0, 200)}`;
    const blocked = status === 403 || status === 451;
    if (status !== 429 && status !== 418 && !blocked) {
      return { kind: 'failed', reason, isOurs: status >= 400 && status < 500 };
    }
    const now = Date.now();
    const seconds = Number(retryAfter);
    const wait = seconds > 0 ? seconds * 1000 : blocked ? this.options.blockedRetryMs : REFUSED_WAIT_MS;
    // The end of a ban is told in the text too, and may be later than the header says.
    const bannedUntil = Number(/banned until (\d{13})/.exec(text)?.[1] ?? 0);
    const refusal = this.budget.refuse({ until: Math.max(now + wait, bannedUntil), reason, blocked });
    const { host, log } = this.options;
    log.warn({ event: 'rest_refused', host, until: new Date(refusal.until).toISOString() }, reason);
    return { kind: 'wait', until: refusal.endsAt, reason };
  }
}
