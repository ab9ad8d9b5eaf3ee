/** OKX over REST: the envelope, the errors, and a limit of its own for each endpoint. */
import type { RestAnswer, RestRequest } from './venue.ts';

/** All limits of the venue count in windows of this length. */
const WINDOW_MS = 2000;

/** Requests per window of what is served; the endpoints in the second list count per instrument or type, not for all. */
const LIMITS: Readonly<Record<string, number>> = {
  '/api/v5/public/time': 10,
  '/api/v5/public/instruments': 20,
  '/api/v5/market/books': 40,
  '/api/v5/market/trades': 100,
  '/api/v5/market/history-trades': 20,
  '/api/v5/market/candles': 40,
  '/api/v5/market/history-candles': 20,
  '/api/v5/market/ticker': 20,
  '/api/v5/market/tickers': 20,
  '/api/v5/account/positions': 10,
  '/api/v5/public/funding-rate': 10,
  '/api/v5/public/funding-rate-history': 10,
  '/api/v5/public/open-interest': 20,
  '/api/v5/rubik/stat/contracts/open-interest-history': 10,
  '/api/v5/rubik/stat/contracts/long-short-position-ratio-contract-top-trader': 5,
  '/api/v5/rubik/stat/contracts/long-short-account-ratio-contract-top-trader': 5,
  '/api/v5/rubik/stat/contracts/long-short-account-ratio-contract': 5,
};
const COUNTED_APART = ['/api/v5/rubik/', '/api/v5/public/'];
const OTHER_LIMIT = 20;

export type Answer = (query: URLSearchParams) => RestAnswer;

/** An answer that succeeded; `rows` are JSON texts. */
export function okxOk(rows: readonly string[]): RestAnswer {
  return { status: 200, body: `{"code":"0","msg":"","data":[${rows.join(',')}]}` };
}

/** An answer that did not. The venue says most of them under HTTP 200. */
export function okxFault(code: string, msg: string, status = 200): RestAnswer {
  return { status, body: JSON.stringify({ code, msg, data: [] }) };
}

export function emptyParameter(name: string): RestAnswer {
  return okxFault('50014', `Parameter ${name} can not be empty.`, 400);
}

export function wrongParameter(name: string): RestAnswer {
  return okxFault('51000', `Parameter ${name} error`, 400);
}

export const NO_INSTRUMENT = okxFault('51001', "Instrument ID, Instrument ID code, or Spread ID doesn't exist.");

/** What the venue says to one request too many. It sends no retry-after: who asks has to wait for the next window. */
export const TOO_MANY = okxFault('50011', 'Too Many Requests', 429);

/** What the venue says while it is away. */
export const AWAY = okxFault('50001', 'Service temporarily unavailable. Please try again later', 503);

/** The venue's answer when it refuses on demand: `status` 403 comes from the firewall before it, as a page. */
export function okxRefusal(status: number): RestAnswer {
  if (status !== 403) return { ...TOO_MANY, status };
  const body =
    '<html><head><title>403 Forbidden</title></head><body><center><h1>403 Forbidden</h1></center></body></html>';
  return { status, body, headers: { 'content-type': 'text/html' } };
}

/** Counts requests by endpoint. */
export class RequestLimits {
  private window = 0;
  private readonly counts = new Map<string, number>();

  /** Takes one request. False when it is one too many for its endpoint. */
  take({ path, query }: RestRequest, now: number): boolean {
    const window = Math.floor(now / WINDOW_MS);
    if (window !== this.window) this.counts.clear();
    this.window = window;
    const isApart = COUNTED_APART.some((start) => path.startsWith(start));
    const key = isApart ? `${path} ${query.get('instType') ?? ''} ${query.get('instId') ?? ''}` : path;
    const count = (this.counts.get(key) ?? 0) + 1;
    this.counts.set(key, count);
    return count <= (LIMITS[path] ?? OTHER_LIMIT);
  }
}

/** A whole number from 1 to `most` that a request names, or `usual`; what is beyond is cut. */
export function limitOf(query: URLSearchParams, usual: number, most: number, name = 'limit'): number {
  const limit = Number(query.get(name) ?? usual);
  return Number.isInteger(limit) && limit > 0 ? Math.min(limit, most) : usual;
}

/** A cursor: a whole number; undefined without one, null when it is none. */
export function cursorOf(query: URLSearchParams, name: string): number | undefined | null {
  const text = query.get(name);
  if (text === null || text === '') return undefined;
  return /^\d{1,16}$/.test(text) ? Number(text) : null;
}

/** The rows that `after` (older than) and `before` (newer than) leave of those given newest first. */
export function pageOf<Row>(
  rows: readonly Row[],
  at: (row: Row) => number,
  { after, before, limit }: { after: number | undefined; before: number | undefined; limit: number },
): Row[] {
  return rows
    .filter((row) => (after === undefined || at(row) < after) && (before === undefined || at(row) > before))
    .slice(0, limit);
}
