/**
 * Hyperliquid's REST: posts of `/info`, what each costs, and the lists that only name things.
 *
 * Source: the venue's API documents. Of refusals only the status is sure: a request over the limit is told nothing but 429.
 */
import { z } from 'zod';
import { INTERVALS, type Interval } from './intervals.ts';
import type { RestAnswer, RestRequest } from './venue.ts';

/** Weight per minute and address. */
const WEIGHT_LIMIT = 1200;
const MINUTE_MS = 60_000;
/** What a request costs, and the rows of an answer that cost one more. */
const LIGHT_WEIGHT = 2;
const USUAL_WEIGHT = 20;
const ROWS_PER_WEIGHT = 20;
const CANDLES_PER_WEIGHT = 60;

const coin = z.string();
const time = z.number().int().min(0);
const dex = z.literal('').optional();
const INFO = z.discriminatedUnion('type', [
  z.object({ type: z.literal('meta'), dex }),
  z.object({ type: z.literal('metaAndAssetCtxs'), dex }),
  z.object({ type: z.literal('allMids'), dex }),
  z.object({ type: z.literal('allPerpMetas') }),
  z.object({ type: z.literal('spotMeta') }),
  z.object({ type: z.literal('perpDexs') }),
  // Books of fewer digits are not simulated.
  z.object({ type: z.literal('l2Book'), coin, nSigFigs: z.null().optional(), mantissa: z.null().optional() }),
  z.object({ type: z.literal('recentTrades'), coin }),
  z.object({ type: z.literal('fundingHistory'), coin, startTime: time, endTime: time.nullish() }),
  z.object({
    type: z.literal('candleSnapshot'),
    req: z.object({
      coin,
      interval: z.enum(Object.keys(INTERVALS) as [Interval, ...Interval[]]),
      startTime: time,
      endTime: time.nullish(),
    }),
  }),
]);
type Info = z.output<typeof INFO>;

/** A perpetual as the venue lists it. */
export interface ListedCoin {
  readonly name: string;
  readonly szDecimals: number;
  readonly isDelisted?: true;
}

/** Where the answers come from. Texts are JSON; undefined: there is nothing of the kind. */
export interface InfoSource {
  readonly coins: readonly ListedCoin[];
  /** Contexts in the order of `coins`. */
  contexts(): string[] | undefined;
  mids(): string | undefined;
  book(coin: string): string | undefined;
  /** Newest first. */
  recentTrades(coin: string): string[] | undefined;
  /** Oldest first, `from` and `to` (ms) included. */
  funding(coin: string, from: number, to: number): string[] | undefined;
  candles(coin: string, interval: Interval, width: number, from: number, to: number): string[] | undefined;
}

interface Answered {
  readonly answer: RestAnswer;
  /** Rows that cost extra, and how many of them cost one. */
  readonly rows?: number;
  readonly rowsPerWeight?: number;
}

/** Answers posts of `/info` within the limit of weight. */
export class InfoDesk {
  private weight = 0;
  private minute = 0;

  constructor(
    private readonly source: InfoSource,
    private readonly clock: () => number,
    /** Told which request is answered. */
    private readonly count: (type: Info['type']) => void,
  ) {}

  answer({ method, path, body }: RestRequest): RestAnswer {
    if (path !== '/info') return { status: 404, body: '' };
    if (method !== 'POST') return { status: 405, body: '' };
    const minute = Math.floor(this.clock() / MINUTE_MS);
    if (minute !== this.minute) this.weight = 0;
    this.minute = minute;
    const request = parsed(body);
    this.weight += request && (request.type === 'l2Book' || request.type === 'allMids') ? LIGHT_WEIGHT : USUAL_WEIGHT;
    if (this.weight > WEIGHT_LIMIT) return TOO_MANY;
    if (!request) return UNREADABLE;
    this.count(request.type);
    const { answer, rows = 0, rowsPerWeight = 1 } = this.look(request);
    this.weight += Math.floor(rows / rowsPerWeight);
    return answer;
  }

  private look(request: Info): Answered {
    const { source } = this;
    switch (request.type) {
      case 'meta':
        return { answer: ok(meta(source.coins)) };
      case 'allPerpMetas':
        return { answer: ok(`[${meta(source.coins)}]`) };
      case 'metaAndAssetCtxs': {
        const contexts = source.contexts();
        return { answer: contexts ? ok(`[${meta(source.coins)},[${contexts.join(',')}]]`) : FAILED };
      }
      case 'spotMeta':
        return { answer: ok(SPOT_META) };
      case 'perpDexs':
        return { answer: ok('[null]') };
      case 'allMids':
        return { answer: ok(source.mids() ?? '{}') };
      case 'l2Book':
        return { answer: ok(source.book(request.coin) ?? 'null') };
      case 'recentTrades':
        return list(source.recentTrades(request.coin), ROWS_PER_WEIGHT);
      case 'fundingHistory': {
        const { coin, startTime, endTime } = request;
        return list(source.funding(coin, startTime, endTime ?? this.clock()), ROWS_PER_WEIGHT);
      }
      case 'candleSnapshot': {
        const { coin, interval, startTime, endTime } = request.req;
        const to = endTime ?? this.clock();
        return list(source.candles(coin, interval, INTERVALS[interval], startTime, to), CANDLES_PER_WEIGHT);
      }
    }
  }
}

/** The venue's answer when it refuses: limits come without a word on how long, the firewall in front of it with a page. */
export function refusalOf(status: number): RestAnswer {
  if (status !== 403) return { ...TOO_MANY, status };
  return {
    status,
    body: '<HTML><HEAD><TITLE>ERROR</TITLE></HEAD><BODY><H1>403</H1>Request blocked.</BODY></HTML>',
    headers: { 'content-type': 'text/html' },
  };
}

const TOO_MANY: RestAnswer = { status: 429, body: 'null' };
const FAILED: RestAnswer = { status: 500, body: 'null' };
const UNREADABLE: RestAnswer = {
  status: 422,
  body: 'Failed to deserialize the JSON body into the target type',
  headers: { 'content-type': 'text/plain; charset=utf-8' },
};

function parsed(body: string): Info | undefined {
  try {
    return INFO.safeParse(JSON.parse(body)).data;
  } catch (error) {
    if (error instanceof SyntaxError) return undefined;
    throw error;
  }
}

function ok(body: string): RestAnswer {
  return { status: 200, body };
}

function list(rows: readonly string[] | undefined, rowsPerWeight: number): Answered {
  return rows ? { answer: ok(`[${rows.join(',')}]`), rows: rows.length, rowsPerWeight } : { answer: FAILED };
}

function meta(coins: readonly ListedCoin[]): string {
  return JSON.stringify({
    universe: coins.map(({ name, szDecimals, isDelisted }) => ({
      szDecimals,
      name,
      maxLeverage: 40,
      marginTableId: 40,
      ...(isDelisted && { isDelisted }),
    })),
    marginTables: [[40, { description: '', marginTiers: [{ lowerBound: '0.0', maxLeverage: 40 }] }]],
    collateralToken: 0,
  });
}

/** One pair, so that there is a list: spot is not simulated. */
const SPOT_META = JSON.stringify({
  tokens: [
    { name: 'USDC', szDecimals: 8, weiDecimals: 8, index: 0, tokenId: `0x${'6d'.repeat(16)}`, isCanonical: true },
    { name: 'PURR', szDecimals: 0, weiDecimals: 5, index: 1, tokenId: `0x${'c1'.repeat(16)}`, isCanonical: true },
  ],
  universe: [{ name: 'PURR/USDC', tokens: [1, 0], index: 0, isCanonical: true }],
});
