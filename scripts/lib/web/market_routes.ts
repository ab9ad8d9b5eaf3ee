/** `/api/market/…`: what the tables hold of the market. */
import { z } from 'zod';
import { answerBook, bookAnswer, DEFAULT_DEPTH, depth } from './market_book.ts';
import { answerCandles, candlesAnswer, candlesQuery } from './market_candles.ts';
import { answerDepth, depthAnswer, depthQuery } from './market_depth.ts';
import { answerList, FORMATS, type ListSource } from './market_lists.ts';
import { listQuery, time } from './market_query.ts';
import { answerReplay, replayQuery } from './market_replay.ts';
import { answerSeries, seriesAnswer, seriesQuery } from './market_series.ts';
import { answerSymbols, symbolsAnswer } from './market_symbols.ts';
import { type Asked, type Route, route, type WebContext, WebError } from './route.ts';

/** What is this old does not change but by a gap that is filled, ms. */
const SETTLED_MS = 24 * 3_600_000;
const KEPT_S = 60;

const listAnswer = z.object({
  data: z.array(z.record(z.string(), z.unknown())).meta({
    description:
      'rows as the table has them: decimals and ids as text, timestamp and other times in ms, received_at in µs. The other formats are these rows alone; Parquet keeps Decimal(38, 18), integers and times as types of its own',
  }),
  next: z
    .string()
    .nullable()
    .meta({ description: 'cursor of the last row, also in the header x-next-cursor; null: no row' }),
  more: z
    .boolean()
    .meta({ description: 'whether the page is full: ask again with `cursor`; also in the header x-more' }),
});
const LIST_TYPES = Object.values(FORMATS)
  .map(({ type }) => type.split(';')[0]!)
  .filter((type) => type !== 'application/json');

function list(name: string, summary: string, source: ListSource): Route {
  return route({
    ...{
      method: 'GET' as const,
      path: `/api/market/${name}`,
      summary,
      query: listQuery,
      answer: listAnswer,
      types: LIST_TYPES,
    },
    maxAge: ({ query }, now) => (query.to !== undefined && query.to < now - SETTLED_MS ? KEPT_S : 0),
    handle: (context, asked) => answerList(context, source, asked),
  });
}

const RATIOS = { top_position: 'lsr_top_position', all_account: 'lsr_all_account' } as const;
const ratioQuery = listQuery.extend({ kind: z.enum(['top_position', 'all_account']).default('top_position') });

const bookQuery = listQuery.extend({
  at: time.optional().meta({ description: 'the book at this event time; `exchange` is needed then' }),
  depth: depth.optional().meta({ description: `levels a side, with \`at\`; default ${DEFAULT_DEPTH}` }),
});
/** Of lists only. */
const LIST_ONLY = ['from', 'to', 'cursor'] as const;

/** One path for both, as the samples and the book at a time are asked for by the same name. */
async function answerBookOrList(
  context: WebContext,
  { query: { at, depth, ...query }, ...asked }: Asked<unknown, z.output<typeof bookQuery>>,
): Promise<object> {
  if (at === undefined) {
    if (depth !== undefined) throw new WebError(400, 'goes with `at`', 'depth');
    return answerList(context, { type: 'orderbook' }, { ...asked, query });
  }
  const wrong = LIST_ONLY.find((name) => query[name] !== undefined);
  if (wrong !== undefined) throw new WebError(400, 'does not go with `at`', wrong);
  const { symbol, exchange, market_type } = query;
  if (exchange === undefined) throw new WebError(400, 'is needed with `at`', 'exchange');
  const book = { symbol, exchange, market_type, at, depth: depth ?? DEFAULT_DEPTH };
  return answerBook(context, { ...asked, query: book });
}

export const MARKET_ROUTES: Route[] = [
  list('trades', 'Trades, by event time.', { type: 'trade' }),
  list('orderbook-updates', 'Every change of order books: the levels that changed, quantity 0 removes.', {
    type: 'orderbook_update',
  }),
  list('funding', 'Funding rates, one a minute.', { type: 'funding_rate' }),
  list('open-interest', 'Open interest.', { type: 'open_interest' }),
  list('liquidations', 'Liquidations.', { type: 'liquidation' }),
  list('volatility', 'Volatility indices.', { type: 'volatility_index' }),
  list('gaps', 'Gaps that reach into the time, each in its present state.', { type: 'gap', isGaps: true }),
  route({
    ...{ method: 'GET' as const, path: '/api/market/lsr', query: ratioQuery, answer: listAnswer, types: LIST_TYPES },
    summary: 'Long/short ratios: of the positions of top traders, or of all accounts.',
    handle: (context, { query: { kind, ...query }, ...asked }) =>
      answerList(context, { type: RATIOS[kind] }, { ...asked, query }),
  }),
  route({
    ...{ method: 'GET' as const, path: '/api/market/candles', query: candlesQuery, answer: candlesAnswer },
    summary: 'Candles from trades, and whether all trades of each are known.',
    handle: answerCandles,
  }),
  route({
    ...{ method: 'GET' as const, path: '/api/market/symbols', answer: symbolsAnswer },
    summary: 'Which symbols there are, on which markets, and each one’s last trade.',
    handle: answerSymbols,
  }),
  route({
    ...{ method: 'GET' as const, path: '/api/market/series', query: seriesQuery, answer: seriesAnswer },
    summary:
      'Funding, open interest, long/short ratios, volatility or liquidations over time, in points that keep the lowest, the highest and the last value: of liquidations the sums by side.',
    handle: answerSeries,
  }),
  route({
    ...{ method: 'GET' as const, path: '/api/market/depth', query: depthQuery, answer: depthAnswer },
    summary: 'The order book as it is known now: levels with the quantity up to each, the spread, and how old it is.',
    handle: answerDepth,
  }),
  route({
    ...{ method: 'GET' as const, path: '/api/market/orderbook', query: bookQuery, types: LIST_TYPES },
    answer: z.union([bookAnswer, listAnswer]),
    summary:
      'With `at`: the order book at that time, rebuilt from the nearest whole book and the updates after it. Else a list of samples of whole books, to 400 levels a side.',
    handle: answerBookOrList,
  }),
  route({
    ...{ method: 'GET' as const, path: '/api/market/replay', query: replayQuery, types: ['application/x-ndjson'] },
    summary: 'All rows of a symbol in the order in which they were received, as lines of normalize.ts.',
    handle: answerReplay,
  }),
];
