/** One stream of rows: which one a request means. */
import { type DataType, type Exchange, MARKET_TYPES, type MarketType } from '../rows.ts';
import type { MarketDatabase, Source } from './market_database.ts';
import { WebError } from './route.ts';

export interface MarketStream {
  exchange: Exchange;
  /** Null: nothing is known of such a stream. */
  market_type: MarketType | null;
  symbol: string;
}

export interface AskedStream {
  exchange: Exchange;
  market_type?: MarketType | undefined;
  symbol: string;
}

/** What selects a stream's rows, by parameters of the same names. */
export const OF_STREAM =
  'each.exchange = {exchange:String} AND each.market_type = {market_type:String} AND each.symbol = {symbol:String}';

/**
 * The stream, where its market type need not be told since the exchange has the symbol on one market only.
 * @throws WebError where it is on several
 */
export async function streamOf(
  database: MarketDatabase,
  source: Source,
  { exchange, market_type, symbol }: AskedStream,
  types: readonly DataType[],
  gone: AbortSignal,
): Promise<MarketStream> {
  if (market_type !== undefined) return { exchange, market_type, symbol };
  // The first row of each market is found by the tables' order; to look for the distinct ones would read all.
  const each = types.flatMap((type) =>
    MARKET_TYPES.map(
      (market) =>
        `(SELECT '${market}' AS market_type FROM ${source.table(type)} AS each WHERE each.exchange = {exchange:String} AND each.market_type = '${market}' AND each.symbol = {symbol:String} LIMIT 1)`,
    ),
  );
  const query = `SELECT DISTINCT market_type FROM (${each.join(' UNION ALL ')}) ORDER BY market_type`;
  const found = await database.rows<[MarketType]>(source, { query, params: { exchange, symbol } }, gone);
  if (found.length > 1)
    throw new WebError(400, `${symbol} is on several markets of ${exchange}: ${found.join(', ')}`, 'market_type');
  return { exchange, market_type: found[0]?.[0] ?? null, symbol };
}
