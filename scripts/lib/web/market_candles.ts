/** Candles out of trades, with every digit, and whether all trades of each are known. */
import { z } from 'zod';
import { TRADES } from '../gap_finder.ts';
import { MarketDatabase, type Source } from './market_database.ts';
import { gapsNow, timeOf } from './market_lists.ts';
import { exchange, limit, marketType, type Span, symbol, time } from './market_query.ts';
import { type MarketStream, OF_STREAM, streamOf } from './market_streams.ts';
import { type Asked, type WebContext, WebError } from './route.ts';

const SECOND_MS = 1000;
const MINUTE_MS = 60 * SECOND_MS;
const HOUR_MS = 60 * MINUTE_MS;
export const INTERVALS = {
  ...{ '1s': SECOND_MS, '5s': 5 * SECOND_MS, '15s': 15 * SECOND_MS },
  ...{ '1m': MINUTE_MS, '5m': 5 * MINUTE_MS, '15m': 15 * MINUTE_MS },
  ...{ '1h': HOUR_MS, '4h': 4 * HOUR_MS, '1d': 24 * HOUR_MS },
} as const;
const NAMES = Object.keys(INTERVALS) as (keyof typeof INTERVALS)[];
/** Without `from`. */
const DEFAULT_CANDLES = 100;
const MOST_CANDLES = 20_000;

export const candlesQuery = z.strictObject({
  symbol,
  exchange,
  market_type: marketType
    .optional()
    .meta({ description: 'needed where the exchange has the symbol on several markets' }),
  interval: z.enum(NAMES as [keyof typeof INTERVALS]),
  from: time.optional().meta({ description: `default: ${DEFAULT_CANDLES} candles before \`to\`` }),
  to: time.optional().meta({ description: 'default: now' }),
  limit: limit(MOST_CANDLES, 1000),
});

const decimal = z.string().nullable();
const candle = z.object({
  time: z.number().meta({ description: 'where it begins, ms; whole intervals since the epoch, in UTC' }),
  ...{ open: decimal, high: decimal, low: decimal, close: decimal },
  volume: decimal.meta({ description: 'base units; null where it is not known that nothing was traded' }),
  quote_volume: decimal,
  buy_volume: decimal.meta({ description: 'of trades whose taker bought' }),
  count: z.number().nullable(),
  first_trade_id: z.string().nullable(),
  last_trade_id: z.string().nullable(),
  complete: z.boolean().nullable().meta({
    description: 'false: a known gap lies in it; null: not known, since no trade after it, or none before it, is there',
  }),
  finished: z.boolean().meta({ description: 'whether its time is over' }),
});
export type Candle = z.output<typeof candle>;

export const candlesAnswer = z.object({
  ...{ exchange: z.string(), market_type: z.string().nullable(), symbol: z.string(), interval: z.string() },
  candles: z.array(candle),
  next_from: z.number().nullable().meta({ description: '`from` of the candles that were too many; null: none' }),
});

/** What the trades of an interval make: its begin in ms, and the rest. */
type Traded = [start: string, ...prices: string[]];

/** What is known of a stream's trades, ms. */
export interface Known {
  /** Of the stream's first and last trade; null: it has none. */
  first: number | null;
  last: number | null;
  /** Times in which trades are known to be missing, both ends included. */
  gaps: Span[];
}

export async function answerCandles(
  context: WebContext,
  { query, gone }: Asked<unknown, z.output<typeof candlesQuery>>,
): Promise<z.output<typeof candlesAnswer>> {
  const database = MarketDatabase.of(context);
  const step = INTERVALS[query.interval];
  const now = context.clock();
  const { span, next } = candleSpan(query, step, now);
  const source = database.source(span.from);
  const stream = await streamOf(database, source, query, ['trade', 'gap'], gone);
  const { exchange, market_type, symbol } = stream;
  const [traded, known] =
    market_type === null
      ? [[], { first: null, last: null, gaps: [] }]
      : await Promise.all([
          tradedIn(database, source, stream, span, step, gone),
          knownOf(database, source, stream, span, gone),
        ]);
  const made = new Map(traded.map((each) => [Number(each[0]), each]));
  const candles: Candle[] = [];
  for (let start = span.from; start < span.to; start += step)
    candles.push(candleOf(start, step, made.get(start), known, now));
  return { ...{ exchange, market_type, symbol }, interval: query.interval, candles, next_from: next };
}

/** Whole candles, no more than are asked for. @throws WebError */
function candleSpan(
  { from, to, limit }: { from?: number | undefined; to?: number | undefined; limit: number },
  step: number,
  now: number,
): { span: Span; next: number | null } {
  const end = to ?? now;
  const begin = from ?? Math.max(end - Math.min(limit, DEFAULT_CANDLES) * step, 0);
  if (begin >= end) throw new WebError(400, '`from` is not before `to`', 'from');
  const first = Math.floor(begin / step) * step;
  const last = Math.ceil(end / step) * step;
  const upto = Math.min(last, first + limit * step);
  return { span: { from: first, to: upto }, next: upto < last ? upto : null };
}

/** A candle of the trades that are known, if any. Exported for its rule of what is complete. */
export function candleOf(start: number, step: number, traded: Traded | undefined, known: Known, now: number): Candle {
  const end = start + step;
  const complete = completeness(start, end, known);
  const none = complete === true ? '0' : null;
  const [, open, high, low, close, volume, quote, buys, count, firstId, lastId] = traded ?? [];
  return {
    ...{ time: start, open: open ?? null, high: high ?? null, low: low ?? null, close: close ?? null },
    ...{ volume: volume ?? none, quote_volume: quote ?? none, buy_volume: buys ?? none },
    count: count === undefined ? (none === null ? null : 0) : Number(count),
    ...{ first_trade_id: firstId ?? null, last_trade_id: lastId ?? null },
    ...{ complete, finished: end <= now },
  };
}

/**
 * A gap is only known once a row came after it: beyond the stream's last trade, as before its first one, nothing can be told. What is missing
 * may have the time of the rows beside it.
 */
function completeness(start: number, end: number, { first, last, gaps }: Known): boolean | null {
  if (gaps.some(({ from, to }) => from < end && to >= start)) return false;
  return first !== null && last !== null && first <= start && last >= end ? true : null;
}

/** Within a millisecond, by the trades' numbers where they count, else as they came. */
async function tradedIn(
  database: MarketDatabase,
  source: Source,
  stream: MarketStream,
  span: Span,
  step: number,
  gone: AbortSignal,
): Promise<Traded[]> {
  const number = TRADES.covers({ ...stream, market_type: stream.market_type! }) ? TRADES.number : '0';
  const rows = `SELECT toUnixTimestamp64Milli(each.timestamp) AS ms, each.price AS price, each.quantity AS quantity, each.side AS side, each.trade_id AS trade_id, (ms, ${number}, each.received_at, each.trade_id) AS place FROM ${source.table('trade')} AS each WHERE ${OF_STREAM} AND each.timestamp >= ${timeOf('from')} AND each.timestamp < ${timeOf('to')}`;
  const exact = 'toDecimal256(quantity, 18)';
  const members = [
    ...['argMin(price, place)', 'max(price)', 'min(price)', 'argMax(price, place)'],
    ...[`sum(${exact})`, `sum(toDecimal256(price, 18) * ${exact})`, `sumIf(${exact}, side = 'buy')`],
    ...['count()', 'argMin(trade_id, place)', 'argMax(trade_id, place)'],
  ];
  const query = `SELECT intDiv(ms, {step:Int64}) * {step:Int64} AS start, ${members.map((each) => `toString(${each})`).join(', ')} FROM (${rows}) GROUP BY start`;
  return database.rows<Traded>(source, { query, params: { ...stream, ...span, step } }, gone);
}

async function knownOf(
  database: MarketDatabase,
  source: Source,
  stream: MarketStream,
  span: Span,
  gone: AbortSignal,
): Promise<Known> {
  const end = (order: string) =>
    `(SELECT toUnixTimestamp64Milli(each.timestamp) FROM ${source.table('trade')} AS each WHERE ${OF_STREAM} ORDER BY each.timestamp ${order} LIMIT 1)`;
  const open = `SELECT toUnixTimestamp64Milli(each.from_time), toUnixTimestamp64Milli(each.to_time) FROM (${gapsNow(source.table('gap'))}) AS each WHERE ${OF_STREAM} AND each.data_type = 'trade' AND each.status != 'filled' AND each.from_time < ${timeOf('to')} AND each.to_time >= ${timeOf('from')}`;
  const params = { ...stream, ...span };
  const [ends, gaps] = await Promise.all([
    database.rows<[string | null, string | null]>(
      source,
      { query: `SELECT ${end('ASC')}, ${end('DESC')}`, params },
      gone,
    ),
    database.rows<[string, string]>(source, { query: open, params }, gone),
  ]);
  const [first, last] = ends[0]!.map((each) => (each === null ? null : Number(each))) as [number | null, number | null];
  return { first, last, gaps: gaps.map(([from, to]) => ({ from: Number(from), to: Number(to) })) };
}
