/** `/api/market/depth`: the order book as it is known now, with what lies up to each level. */
import { z } from 'zod';
import { divide, multiply, subtract } from '../arithmetic.ts';
import type { Level } from '../rows.ts';
import { answerBook, bookAnswer } from './market_book.ts';
import { exchange, marketType, symbol } from './market_query.ts';
import { wholeNumber } from './parameters.ts';
import { type Asked, type WebContext, WebError } from './route.ts';

/** As many as a stored sample has. */
const MOST_DEPTH = 400;
const DEFAULT_DEPTH = 100;
/** Of a share of one. */
const BASIS_POINTS = '10000';

export const depthQuery = z.strictObject({
  symbol,
  exchange,
  market_type: marketType
    .optional()
    .meta({ description: 'needed where the exchange has the symbol on several markets' }),
  depth: wholeNumber(1, MOST_DEPTH).default(DEFAULT_DEPTH).meta({ description: 'levels a side' }),
});

const decimal = z.string().nullable();
const levels = z
  .array(
    z.object({
      ...{ price: z.string(), quantity: z.string().meta({ description: 'base units' }) },
      total: z.string().meta({ description: 'quantity of this level and all better ones' }),
    }),
  )
  .meta({ description: 'best first' });

const book = bookAnswer.omit({ exchange: true, market_type: true, symbol: true, at: true }).extend({
  best_bid: decimal.meta({ description: 'null: the side is empty' }),
  best_ask: decimal.meta({ description: 'null: the side is empty' }),
  spread: decimal.meta({ description: 'best ask − best bid' }),
  mid: decimal.meta({ description: 'half way between the two' }),
  spread_bps: decimal.meta({ description: 'the spread as a share of the mid, in basis points' }),
  bids: levels,
  asks: levels,
});
export type DepthBook = z.infer<typeof book>;
export const depthAnswer = z.object({
  ...{ exchange: z.string(), symbol: z.string(), at: z.number().meta({ description: 'now, ms' }) },
  book: book.nullable().meta({ description: 'null: none is known in the last hour' }),
});
export type Depth = z.infer<typeof depthAnswer>;

type DepthLevel = z.infer<typeof levels>[number];

/**
 * Levels with the quantity up to each, exact. Pure.
 * @param levels best first, quantities not negative
 */
export function cumulated(levels: readonly Level[]): DepthLevel[] {
  let total = '0';
  return levels.map(([price, quantity]) => {
    total = add(total, quantity);
    return { price, quantity, total };
  });
}

/** @param b not negative */
function add(a: string, b: string): string {
  return subtract(a, `-${b}`);
}

export async function answerDepth(
  context: WebContext,
  { query, gone }: Asked<unknown, z.output<typeof depthQuery>>,
): Promise<Depth> {
  const at = context.clock();
  const { exchange, symbol } = query;
  try {
    const found = await answerBook(context, { params: {}, query: { ...query, at }, gone });
    const { bids, asks, last_update_id, time, age_ms, base, updates, complete, reason, cut } = found;
    const known = { last_update_id, time, age_ms, base, updates, complete, reason, cut };
    const book = { ...known, ...pricesOf(bids, asks), bids: cumulated(bids), asks: cumulated(asks) };
    return { exchange, symbol, at, book };
  } catch (error) {
    // That there is none is an answer of its own.
    if (error instanceof WebError && error.status === 404) return { exchange, symbol, at, book: null };
    throw error;
  }
}

function pricesOf(bids: readonly Level[], asks: readonly Level[]) {
  const [bid, ask] = [bids[0]?.[0] ?? null, asks[0]?.[0] ?? null];
  const best = { best_bid: bid, best_ask: ask };
  if (bid === null || ask === null) return { ...best, spread: null, mid: null, spread_bps: null };
  const [spread, mid] = [subtract(ask, bid), divide(add(ask, bid), '2')];
  return { ...best, spread, mid, spread_bps: divide(multiply(spread, BASIS_POINTS), mid) };
}
