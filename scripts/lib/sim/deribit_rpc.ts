/** Deribit's JSON-RPC: what requests carry, the shapes of answers and errors, and the credits that requests cost. */

/** Named parameters: texts over REST, any JSON on a socket. */
export type Params = Readonly<Record<string, unknown>>;

/** Depths of a book that a request may name. */
export const DEPTHS = ['1', '5', '10', '20', '50', '100', '1000', '10000'] as const;
const SORTINGS = ['asc', 'desc', 'default'] as const;
const TRADES = { usual: 10, most: 1000 };
/** The largest sequence and time that a request may name. */
export const LATEST = Number.MAX_SAFE_INTEGER - 1;

/** Which trades a request means: sequences and times (ms), all included. */
export interface TradeRange {
  readonly fromSequence: number;
  readonly toSequence: number;
  readonly from: number;
  readonly to: number;
  readonly count: number;
  /** Order of the answer, and the end of the range from which it is filled. */
  readonly descending: boolean;
}

/** A refusal in the venue's words. */
export class RpcError extends Error {
  constructor(
    readonly code: number,
    message: string,
    readonly data: object | null = null,
  ) {
    super(message);
  }
}

/** A parameter that is missing or wrong. */
export function wrongParam(param: string, reason: string): RpcError {
  return new RpcError(-32602, 'Invalid params', { reason, param });
}

export function tooManyRequests(): RpcError {
  return new RpcError(10028, 'too_many_requests');
}

/** A text that must be there. @throws RpcError */
export function textOf(params: Params, name: string): string {
  const value = params[name];
  if (typeof value !== 'string' || value === '') throw wrongParam(name, 'value required');
  return value;
}

/** A whole number within bounds, as a number or as its digits. Without a fallback it must be there. @throws RpcError */
export function wholeOf(params: Params, name: string, min: number, max: number, fallback?: number): number {
  const given = params[name];
  if (given === undefined && fallback !== undefined) return fallback;
  if (given === undefined) throw wrongParam(name, 'value required');
  const value = typeof given === 'string' && /^-?\d+$/.test(given) ? Number(given) : given;
  if (typeof value !== 'number' || !Number.isSafeInteger(value)) throw wrongParam(name, 'must be an integer');
  if (value < min || value > max) throw wrongParam(name, `must be between ${min} and ${max}`);
  return value;
}

/** One of several texts; numbers count as their digits. @throws RpcError */
export function choiceOf<Choice extends string>(
  params: Params,
  name: string,
  choices: readonly Choice[],
  fallback?: Choice,
): Choice {
  const given = params[name] ?? fallback;
  const found = choices.find((choice) => choice === String(given));
  if (given === undefined) throw wrongParam(name, 'value required');
  if (found === undefined) throw wrongParam(name, `must be one of ${choices.join(', ')}`);
  return found;
}

/** What a request for trades means. Without a start the newest trades come, newest first; with one those from there on, unless the order is asked for. @throws RpcError */
export function rangeOf(params: Params): TradeRange {
  const sorting = choiceOf(params, 'sorting', SORTINGS, 'default');
  const hasStart = params.start_seq !== undefined || params.start_timestamp !== undefined;
  return {
    fromSequence: wholeOf(params, 'start_seq', 0, LATEST, 0),
    toSequence: wholeOf(params, 'end_seq', 0, LATEST, LATEST),
    from: wholeOf(params, 'start_timestamp', 0, LATEST, 0),
    to: wholeOf(params, 'end_timestamp', 0, LATEST, LATEST),
    count: wholeOf(params, 'count', 1, TRADES.most, TRADES.usual),
    descending: sorting === 'desc' || (sorting === 'default' && !hasStart),
  };
}

/** The answer to a request. @param times when it came and when it is answered, µs; @param id as asked, absent where none was */
export function answerText(body: string | RpcError, times: readonly [number, number], id?: unknown): string {
  const own = id === undefined ? '' : `"id":${JSON.stringify(id)},`;
  const content =
    typeof body === 'string'
      ? `"result":${body}`
      : `"error":${JSON.stringify({ code: body.code, message: body.message, data: body.data ?? undefined })}`;
  const [usIn, usOut] = times;
  return `{"jsonrpc":"2.0",${own}${content},"usIn":${usIn},"usOut":${usOut},"usDiff":${usOut - usIn},"testnet":false}`;
}

/** A pool of credits that fills again over time. */
class Pool {
  private left: number;
  private at = 0;

  constructor(
    private readonly size: number,
    private readonly perSecond: number,
  ) {
    this.left = size;
  }

  take(cost: number, now: number): boolean {
    this.left = Math.min(this.size, this.left + ((now - this.at) / 1000) * this.perSecond);
    this.at = now;
    if (this.left < cost) return false;
    this.left -= cost;
    return true;
  }
}

/** What one address may ask; all clients of a simulator have the same one. */
export class Credits {
  private readonly general = new Pool(50_000, 10_000);
  private readonly subscriptions = new Pool(30_000, 10_000);
  private readonly lists = new Pool(50, 1);

  /** Pays for a request at `now` (ms). @throws RpcError when there is too little left */
  pay(method: string, now: number): void {
    const isPaid =
      method === 'subscribe'
        ? this.subscriptions.take(3000, now)
        : method === 'get_instruments'
          ? this.lists.take(1, now)
          : this.general.take(500, now);
    if (!isPaid) throw tooManyRequests();
  }
}
