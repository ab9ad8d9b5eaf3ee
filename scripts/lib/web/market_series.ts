/** `/api/market/series`: readings and liquidations over time in so few points that a chart can show them, and no peak is lost. */
import { z } from 'zod';
import type { DataType } from '../rows.ts';
import { MarketDatabase } from './market_database.ts';
import { timeOf } from './market_lists.ts';
import { exchange, marketType, type Span, spanOf, symbol, time } from './market_query.ts';
import { wholeNumber } from './parameters.ts';
import { type Asked, type WebContext, WebError } from './route.ts';

const SECOND_MS = 1000;
const MINUTE_MS = 60 * SECOND_MS;
const HOUR_MS = 60 * MINUTE_MS;
const DAY_MS = 24 * HOUR_MS;
/** Lengths that a point may stand for; beyond the last one, whole days. */
const STEPS_MS = [
  ...[1, 2, 5, 10, 15, 30].map((minutes) => minutes * MINUTE_MS),
  ...[1, 2, 4, 6, 12, 24].map((hours) => hours * HOUR_MS),
];
const DEFAULT_POINTS = 500;
const MOST_POINTS = 2000;
/** Points of all streams together: about fifty streams at the finest. */
const MOST_ROWS = 100_000;

interface Reading {
  table: DataType;
  value: string;
  /** What tells rows of one stream and time apart; they are no readings of the same thing. */
  variant: string | null;
  /** Of one reading to the next, ms: finer points would only be empty. */
  everyMs: number;
}

const READINGS = {
  funding: { table: 'funding_rate', value: 'funding_rate', variant: null, everyMs: MINUTE_MS },
  open_interest: { table: 'open_interest', value: 'open_interest', variant: null, everyMs: MINUTE_MS },
  lsr_top_position: {
    ...{ table: 'lsr_top_position', value: 'long_short_ratio', variant: 'period', everyMs: 5 * MINUTE_MS },
  },
  lsr_all_account: {
    ...{ table: 'lsr_all_account', value: 'long_short_ratio', variant: 'period', everyMs: 5 * MINUTE_MS },
  },
  volatility: { table: 'volatility_index', value: 'index_value', variant: 'resolution', everyMs: MINUTE_MS },
} as const satisfies Record<string, Reading>;
const READING_TYPES = ['funding', 'open_interest', 'lsr_top_position', 'lsr_all_account', 'volatility'] as const;
export type ReadingType = (typeof READING_TYPES)[number];

export const seriesQuery = z.strictObject({
  symbol: symbol.meta({ description: 'as BTC-USDT; of `volatility` the index of its base is given' }),
  type: z.enum([...READING_TYPES, 'liquidations']),
  exchange: exchange.optional(),
  market_type: marketType.optional(),
  from: time.optional().meta({ description: 'event time; default: a day before `to`' }),
  to: time.optional().meta({ description: 'event time, not included; default: now' }),
  points: wholeNumber(2, MOST_POINTS)
    .default(DEFAULT_POINTS)
    .meta({ description: `at most so many a stream, 2 to ${MOST_POINTS}` }),
});
export type SeriesQuery = z.output<typeof seriesQuery>;

const decimals = z.array(z.string().nullable());
const counts = z.array(z.number().nullable());
const stream = { exchange: z.string(), market_type: z.string() };
const frame = {
  symbol: z.string().meta({ description: 'whose rows these are' }),
  from: z.number().meta({ description: 'where the first point begins, ms' }),
  to: z.number().meta({ description: 'where the last point ends, ms; it may not be over yet' }),
  step_ms: z.number().meta({ description: 'how long a point is' }),
  times: z.array(z.number()).meta({ description: 'where each point begins, ms; whole steps since the epoch, in UTC' }),
};
const PER_POINT = 'one per point; null: no row lies in it';

const readingSeries = z.object({
  ...stream,
  variant: z.string().nullable().meta({ description: 'period of a ratio, resolution of an index in s; else null' }),
  min: decimals.meta({ description: PER_POINT }),
  max: decimals.meta({ description: PER_POINT }),
  last: decimals.meta({ description: PER_POINT }),
  rows: counts.meta({ description: PER_POINT }),
  latest: z.object({ time: z.number(), value: z.string() }).meta({
    description: 'the newest row between `from` and `to` of this answer, which are whole points; event time, ms',
  }),
});
const READINGS_ANSWER = z.object({ type: z.enum(READING_TYPES), ...frame, series: z.array(readingSeries) });
export type ReadingSeries = z.infer<typeof READINGS_ANSWER>;

const BUYS = 'Σ quantity × price of orders that bought, which ends shorts; quote units';
const SELLS = 'Σ quantity × price of orders that sold, which ends longs; quote units';
const sums = {
  buy_value: decimals.meta({ description: `${BUYS}; ${PER_POINT}` }),
  sell_value: decimals.meta({ description: `${SELLS}; ${PER_POINT}` }),
  buy_count: counts.meta({ description: PER_POINT }),
  sell_count: counts.meta({ description: PER_POINT }),
};
const whole = z
  .object({
    buy_value: z.string().meta({ description: BUYS }),
    sell_value: z.string().meta({ description: SELLS }),
    ...{ buy_count: z.number(), sell_count: z.number() },
  })
  .nullable();
const LIQUIDATIONS_ANSWER = z.object({
  type: z.literal('liquidations'),
  ...frame,
  series: z.array(z.object({ ...stream, ...sums })),
  total: z.object(sums).meta({ description: 'of all streams that were asked for' }),
  whole: whole.meta({
    description: 'of all streams, from `from` to `to` of this answer, which are whole points; null: no row',
  }),
});
export type LiquidationSeries = z.infer<typeof LIQUIDATIONS_ANSWER>;

export const seriesAnswer = z.union([READINGS_ANSWER, LIQUIDATIONS_ANSWER]);

/** Points of a series: whole steps that cover a span. */
export interface Points {
  from: number;
  to: number;
  step: number;
  times: number[];
}

/**
 * The finest points of which no more than `most` cover the span. Pure.
 * @param span from and to, ms
 * @param everyMs no point is shorter
 */
export function pointsOf({ from, to }: Span, most: number, everyMs: number): Points {
  const count = (step: number) => Math.ceil(to / step) - Math.floor(from / step);
  let step = STEPS_MS.find((each) => each >= everyMs && count(each) <= most);
  for (let days = Math.max(Math.floor((to - from) / most / DAY_MS), 1); step === undefined; days++) {
    if (count(days * DAY_MS) <= most) step = days * DAY_MS;
  }
  const first = Math.floor(from / step);
  const times = Array.from({ length: count(step) }, (_, i) => (first + i) * step);
  return { from: first * step, to: (first + times.length) * step, step, times };
}

export async function answerSeries(
  context: WebContext,
  { query, gone }: Asked<unknown, SeriesQuery>,
): Promise<z.infer<typeof seriesAnswer>> {
  const span = spanOf(query, context.clock(), DAY_MS);
  return query.type === 'liquidations'
    ? liquidations(context, query, pointsOf(span, query.points, MINUTE_MS), gone)
    : readings(context, query, query.type, span, gone);
}

type ReadingCells = [
  ...[exchange: string, market: string, variant: string, start: string],
  ...[min: string, max: string, last: string, rows: string, newest: string],
];

async function readings(
  context: WebContext,
  query: SeriesQuery,
  type: ReadingType,
  span: Span,
  gone: AbortSignal,
): Promise<ReadingSeries> {
  const { table, value, variant, everyMs } = READINGS[type];
  const points = pointsOf(span, query.points, everyMs);
  // An index is of a coin, whatever is traded against it.
  const asked = type === 'volatility' ? query.symbol.split('-')[0]! : query.symbol;
  const members = [
    ...[`min(each.${value})`, `max(each.${value})`, `argMax(each.${value}, each.timestamp)`, 'count()'],
    'toUnixTimestamp64Milli(max(each.timestamp))',
  ];
  const rows = await selected<ReadingCells>(context, table, { ...query, symbol: asked }, points, gone, {
    columns: [variant === null ? "''" : `each.${variant}`, START, ...members.map(asText)],
    groups: `each.exchange, each.market_type, ${variant === null ? '' : `each.${variant}, `}start`,
  });
  const series = new Map<string, ReadingSeries['series'][number]>();
  for (const [exchange, market_type, of, start, min, max, last, count, newest] of rows) {
    const key = `${exchange} ${market_type} ${of}`;
    const latest = { time: Number(newest), value: last };
    const none = { min: empty<string>(points), max: empty<string>(points), last: empty<string>(points) };
    const made = series.get(key) ?? {
      ...{ exchange, market_type, variant: variant === null ? null : of, ...none, rows: empty<number>(points), latest },
    };
    series.set(key, made);
    // Points come in the order of time.
    made.latest = latest;
    const at = placeOf(start, points);
    made.min[at] = min;
    made.max[at] = max;
    made.last[at] = last;
    made.rows[at] = Number(count);
  }
  return { type, ...frameOf(asked, points), series: [...series.values()] };
}

type Sums = LiquidationSeries['total'];
/** 0: of one stream and point; 1: of all streams in a point; 2: of all. */
type SumCells = [
  ...[exchange: string, market: string, level: string, start: string],
  ...[buys: string, sells: string, buyCount: string, sellCount: string],
];

async function liquidations(
  context: WebContext,
  query: SeriesQuery,
  points: Points,
  gone: AbortSignal,
): Promise<LiquidationSeries> {
  const value = 'toDecimal256(each.price, 18) * toDecimal256(each.quantity, 18)';
  const members = [
    ...['buy', 'sell'].map((side) => `sumIf(${value}, each.side = '${side}')`),
    ...['buy', 'sell'].map((side) => `countIf(each.side = '${side}')`),
  ];
  const rows = await selected<SumCells>(context, 'liquidation', query, points, gone, {
    columns: ['grouping(each.exchange) + grouping(start) AS level', START, ...members.map(asText)],
    groups: 'GROUPING SETS ((each.exchange, each.market_type, start), (start), ())',
  });
  const series = new Map<string, LiquidationSeries['series'][number]>();
  const total = noSums(points);
  let whole: LiquidationSeries['whole'] = null;
  for (const [exchange, market_type, level, start, buy_value, sell_value, buys, sells] of rows) {
    const [buy_count, sell_count] = [Number(buys), Number(sells)];
    if (level === '2') {
      if (buy_count + sell_count > 0) whole = { buy_value, sell_value, buy_count, sell_count };
      continue;
    }
    const own = series.get(`${exchange} ${market_type}`) ?? { exchange, market_type, ...noSums(points) };
    if (level === '0') series.set(`${exchange} ${market_type}`, own);
    const made: Sums = level === '0' ? own : total;
    const at = placeOf(start, points);
    made.buy_value[at] = buy_value;
    made.sell_value[at] = sell_value;
    made.buy_count[at] = buy_count;
    made.sell_count[at] = sell_count;
  }
  return { type: 'liquidations', ...frameOf(query.symbol, points), series: [...series.values()], total, whole };
}

const START = 'intDiv(toUnixTimestamp64Milli(each.timestamp), {step:Int64}) * {step:Int64} AS start';
const asText = (expression: string) => `toString(${expression})`;

/** @throws WebError when there are more streams than can be told with so many points */
async function selected<Cells extends readonly unknown[]>(
  context: WebContext,
  type: DataType,
  { symbol, exchange, market_type }: Pick<SeriesQuery, 'symbol' | 'exchange' | 'market_type'>,
  { from, to, step }: Points,
  gone: AbortSignal,
  { columns, groups }: { columns: string[]; groups: string },
): Promise<Cells[]> {
  const database = MarketDatabase.of(context);
  const source = database.source(from);
  const where = [
    ...['each.symbol = {symbol:String}', `each.timestamp >= ${timeOf('from')}`, `each.timestamp < ${timeOf('to')}`],
    ...(exchange === undefined ? [] : ['each.exchange = {exchange:String}']),
    ...(market_type === undefined ? [] : ['each.market_type = {market_type:String}']),
  ];
  const query = `SELECT each.exchange, each.market_type, ${columns.join(', ')} FROM ${source.table(type)} AS each WHERE ${where.join(' AND ')} GROUP BY ${groups} ORDER BY each.exchange, each.market_type, start LIMIT ${MOST_ROWS + 1}`;
  const params = { symbol, from, to, step, ...(exchange && { exchange }), ...(market_type && { market_type }) };
  const rows = await database.rows<Cells>(source, { query, params }, gone);
  // A series that was cut off would look as if nothing had happened any more.
  if (rows.length > MOST_ROWS) throw new WebError(400, 'are too many for so many streams: ask for fewer', 'points');
  return rows;
}

function frameOf(symbol: string, { from, to, step, times }: Points) {
  return { symbol, from, to, step_ms: step, times };
}

function empty<T>({ times }: Points): (T | null)[] {
  return times.map(() => null);
}

function noSums(points: Points): Sums {
  const [values, counts] = [() => empty<string>(points), () => empty<number>(points)];
  return { buy_value: values(), sell_value: values(), buy_count: counts(), sell_count: counts() };
}

function placeOf(start: string, { from, step }: Points): number {
  return (Number(start) - from) / step;
}
