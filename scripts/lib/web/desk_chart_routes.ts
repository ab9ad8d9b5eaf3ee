/** The desk's series as columns for charts, and the table of escape signals with what the coins did: what its pages draw. */
import { z } from 'zod';
import { RULES } from '../desk/escape.ts';
import { CANDLE_MS } from '../desk/sar.ts';
import {
  type AskedColumns,
  COLUMN,
  COLUMNS_ANSWER,
  COLUMNS_QUERY,
  chartOf,
  indexed,
  MOST_READ,
  memberOf,
  numberOf,
  spanOf,
  timesOf,
  type Values,
} from './desk_columns.ts';
import { lookInto, newestOf, UNIFIED } from './desk_files.ts';
import { changesAt, RECORD, rule } from './escape_routes.ts';
import { keypoints } from './keypoints.ts';
import { beijingTime, coin, limit, offset } from './parameters.ts';
import { type Route, route, type WebContext, WebError } from './route.ts';
import { rowsOf } from './sar_routes.ts';

const MINUTE_MS = 60_000;
const HALF_HOUR_MS = 30 * MINUTE_MS;
const DAY_MS = 86_400_000;
/** A span of so few minutes is read minute by minute: a day is. */
const EACH_MINUTE = 2000;

const figure = z.number().nullable();

/** Of a series that is written each minute and follows five-minute candles: the first minute of each candle. @returns places in `times` */
function firstOfCandles(times: readonly number[]): number[] {
  const candle = (time: number) => Math.floor(time / CANDLE_MS);
  return [...times.keys()].filter((i) => i === 0 || candle(times[i]!) !== candle(times[i - 1]!));
}

const ESCAPE_COLUMNS = z.object({
  ...{ ...COLUMNS_ANSWER, rule: z.enum(RULES) },
  ...{ signal_24h_count: COLUMN, signal_2h_count: COLUMN },
  ...{ decline_strength_level: COLUMN, rise_strength_level: COLUMN },
  breadth: COLUMN.describe('Coins that the rule counts.'),
});
export type EscapeColumns = z.infer<typeof ESCAPE_COLUMNS>;

const COUNTS = ['signal_24h_count', 'signal_2h_count'] as const;
const LEVELS = ['decline_strength_level', 'rise_strength_level', 'breadth'] as const;

async function escapeColumns(
  context: WebContext,
  asked: AskedColumns & { rule: (typeof RULES)[number] },
): Promise<EscapeColumns> {
  const index = await lookInto(context, 'escape_signal');
  const records = index.of(asked.rule);
  const [begin, end] = spanOf(records, asked);
  const times = timesOf(records, begin, end);
  const counts = {
    signal_24h_count: indexed(records, 'signal_24h_count', begin, end),
    signal_2h_count: indexed(records, 'signal_2h_count', begin, end),
  };
  // Levels and breadth are of the newest candle: over a long time the first minute of each stands for all five.
  const firsts = times.length <= EACH_MINUTE ? [...times.keys()] : firstOfCandles(times);
  const looked = firsts.slice(-MOST_READ);
  const read = await index.read(looked.map((i) => records.place(begin + i)));
  const held = (name: string): Values => {
    const values = Array<number | null>(times.length).fill(null);
    for (const [n, value] of memberOf(read, name).entries())
      values.fill(value, looked[n]!, looked[n + 1] ?? times.length);
    return values;
  };
  // Their peaks are looked for among the candles, which are fewer than the minutes.
  const few = Math.floor(asked.points / 3);
  const peaks = keypoints(
    LEVELS.map((name) => memberOf(read, name)),
    few,
  ).map((n) => looked[n]!);
  const levels = {
    decline_strength_level: held('decline_strength_level'),
    rise_strength_level: held('rise_strength_level'),
    breadth: held('breadth'),
  };
  return {
    ...{ success: true, rule: asked.rule, total_count: times.length, is_complete: looked.length === firsts.length },
    ...chartOf(
      times,
      { ...counts, ...levels },
      { cadenceMs: MINUTE_MS, points: asked.points, by: COUNTS, also: peaks },
    ),
  };
}

const ESCAPE_TABLE = z.object({
  ...{ success: z.literal(true), rule: z.enum(RULES), date: z.string().nullable() },
  ...{ total_count: z.number().describe('Records that there are of what was asked.'), count: z.number() },
  data: z.array(
    RECORD.extend({
      total_change: figure.describe('Sum of the coins’ changes since midnight in Beijing by that minute, %.'),
      ...{ average_change: figure, valid_coins: figure, total_coins: figure },
    }),
  ),
});
export type EscapeTable = z.infer<typeof ESCAPE_TABLE>;

async function escapeTable(
  context: WebContext,
  asked: {
    rule: (typeof RULES)[number];
    date?: string | undefined;
    to?: number | undefined;
    limit: number;
    offset: number;
  },
): Promise<EscapeTable> {
  const prices = (await lookInto(context, 'coin_prices')).of('');
  const index = await lookInto(context, 'escape_signal');
  const from = asked.date === undefined ? undefined : Date.parse(`${asked.date}T00:00:00+08:00`);
  const ends = [asked.to, from === undefined ? undefined : from + DAY_MS - 1].filter((end) => end !== undefined);
  const to = ends.length === 0 ? undefined : Math.min(...ends);
  const { total, places } = newestOf(index.of(asked.rule), { limit: asked.limit, offset: asked.offset, from, to });
  const changes = places.map(({ time }) => changesAt(prices, time));
  const read = (await index.read(places)) as unknown as z.infer<typeof RECORD>[];
  const data = read.map((record, i) => ({ ...record, ...changes[i]! }));
  return {
    ...{ success: true, rule: asked.rule, date: asked.date ?? null },
    ...{ total_count: total, count: data.length, data },
  };
}

const PRICE_COLUMNS = z.object({
  ...{ ...COLUMNS_ANSWER, coin: z.string().nullable() },
  total_change: COLUMN.describe('Sum of the coins’ changes since midnight in Beijing, %.'),
  average_change: COLUMN.describe('That sum by the coins whose change is known, %.'),
  ...{ valid_coins: COLUMN, total_coins: COLUMN },
  change_pct: COLUMN.nullable().describe('Of the coin, %; null: none was asked for.'),
  current_price: COLUMN.nullable().describe('Of the coin.'),
});
export type PriceColumns = z.infer<typeof PRICE_COLUMNS>;

async function priceColumns(
  context: WebContext,
  asked: AskedColumns & { coin?: string | undefined },
): Promise<PriceColumns> {
  const index = await lookInto(context, 'coin_prices');
  const records = index.of('');
  const [first, end] = spanOf(records, asked);
  const begin = asked.coin === undefined ? first : Math.max(first, end - MOST_READ);
  const times = timesOf(records, begin, end);
  const sums = {
    total_change: indexed(records, 'total_change', begin, end),
    average_change: indexed(records, 'average_change', begin, end),
    valid_coins: indexed(records, 'valid_coins', begin, end),
    total_coins: indexed(records, 'total_coins', begin, end),
  };
  const plan = { cadenceMs: HALF_HOUR_MS, points: asked.points };
  const head = { success: true, total_count: end - first, is_complete: begin === first } as const;
  if (asked.coin === undefined)
    return { ...head, coin: null, ...chartOf(times, sums, plan), change_pct: null, current_price: null };
  const symbol = asked.coin;
  const read = await index.read(times.map((_, i) => records.place(begin + i)));
  const days = read.map(({ day_changes }) => (day_changes as Record<string, Record<string, unknown>>)[symbol]);
  if (days.length > 0 && days.every((day) => day === undefined))
    throw new WebError(404, `there is no record of ${symbol}`, 'coin');
  const own = {
    change_pct: days.map((day) => numberOf(day?.change_pct)),
    current_price: days.map((day) => numberOf(day?.current_price)),
  };
  return { ...head, coin: symbol, ...chartOf(times, { ...sums, ...own }, plan) };
}

const SAR_COLUMNS = z.object({
  ...{ ...COLUMNS_ANSWER, symbol: z.string(), price: COLUMN },
  sar_bullish: COLUMN.describe('The SAR of candles while it is bullish.'),
  sar_bearish: COLUMN.describe('The SAR of candles while it is bearish.'),
  slope_value: COLUMN.describe('Share of steps in which SAR and price moved the same way, negative while bearish.'),
});
export type SarColumns = z.infer<typeof SAR_COLUMNS>;

async function sarColumns(context: WebContext, asked: string, span: AskedColumns): Promise<SarColumns> {
  const { index, symbol } = await rowsOf(context, asked);
  const records = index.of(symbol);
  const [first, end] = spanOf(records, span);
  const begin = Math.max(first, end - MOST_READ);
  const times = timesOf(records, begin, end);
  const read = await index.read(times.map((_, i) => records.place(begin + i)));
  const all = { price: memberOf(read, 'price'), sar: memberOf(read, 'sar_value') };
  const chart = chartOf(
    times,
    {
      ...{ ...all, slope_value: memberOf(read, 'slope_value') },
      isBullish: read.map(({ sar_position }) => (sar_position === 'bullish' ? 1 : 0)),
    },
    { cadenceMs: CANDLE_MS, points: span.points },
  );
  const { sar, isBullish, ...shown } = chart;
  const ofSide = (side: 0 | 1) => sar.map((value, i) => (isBullish[i] === side ? value : null));
  return {
    ...{ success: true, symbol, total_count: end - first, is_complete: begin === first, ...shown },
    ...{ sar_bullish: ofSide(1), sar_bearish: ofSide(0) },
  };
}

const BIAS = ['bullish_count', 'bearish_count', 'bullish_80_plus_count', 'bearish_80_plus_count'] as const;
const BIAS_COLUMNS = z.object({
  ...COLUMNS_ANSWER,
  ...{ bullish_count: COLUMN, bearish_count: COLUMN, total_symbols: COLUMN.describe('Coins with that candle.') },
  bullish_80_plus_count: COLUMN.describe('Coins with a slope_value above 0.8.'),
  bearish_80_plus_count: COLUMN.describe('Coins with a slope_value below -0.8.'),
});
export type BiasColumns = z.infer<typeof BIAS_COLUMNS>;

async function biasColumns(context: WebContext, asked: AskedColumns): Promise<BiasColumns> {
  const index = await lookInto(context, 'sar_slope_summary');
  const records = index.of('');
  const [begin, end] = spanOf(records, asked);
  const times = timesOf(records, begin, end);
  const firsts = firstOfCandles(times);
  const looked = firsts.slice(-MOST_READ);
  const read = await index.read(looked.map((i) => records.place(begin + i)));
  const of = (name: string) => memberOf(read, name);
  const columns = Object.fromEntries(BIAS.map((name) => [name, of(name)])) as Record<(typeof BIAS)[number], Values>;
  return {
    ...{ success: true, total_count: end - begin, is_complete: looked.length === firsts.length },
    ...chartOf(
      looked.map((i) => times[i]!),
      { ...columns, total_symbols: of('total_symbols') },
      { cadenceMs: CANDLE_MS, points: asked.points },
    ),
  };
}

/** What a record of each unified series tells. */
const TOLD: Record<(typeof UNIFIED)[number], string> = {
  sar_top_count: 'count',
  liquidation_1h: 'amount',
  coin_change_total: 'total_change',
};
const UNIFIED_COLUMNS = z.object({
  ...{ ...COLUMNS_ANSWER, series: z.enum(UNIFIED) },
  values: COLUMN.describe('sar_top_count: coins; liquidation_1h: dollars; coin_change_total: %.'),
  latest: z.looseObject({ slot: z.number() }).nullable().describe('The newest record of all.'),
});
export type UnifiedColumns = z.infer<typeof UNIFIED_COLUMNS>;

async function unifiedColumns(
  context: WebContext,
  series: (typeof UNIFIED)[number],
  asked: AskedColumns,
): Promise<UnifiedColumns> {
  const index = await lookInto(context, series);
  const records = index.of('');
  const [first, end] = spanOf(records, asked);
  const begin = Math.max(first, end - MOST_READ);
  const times = timesOf(records, begin, end);
  const newest = newestOf(records, { limit: 1, offset: 0 }).places;
  const read = await index.read([...newest, ...times.map((_, i) => records.place(begin + i))]);
  const latest = newest.length === 0 ? null : (read[0] as { slot: number });
  const values = memberOf(read.slice(newest.length), TOLD[series]);
  return {
    ...{ success: true, series, total_count: end - first, is_complete: begin === first, latest },
    ...chartOf(times, { values }, { cadenceMs: CANDLE_MS, points: asked.points }),
  };
}

export const DESK_CHART_ROUTES: Route[] = [
  route({
    ...{
      method: 'GET',
      path: '/api/escape-signal-stats/columns',
      summary: 'Escape signals as columns for a chart: few points, peaks kept.',
    },
    query: z.strictObject({ rule, ...COLUMNS_QUERY }),
    answer: ESCAPE_COLUMNS,
    handle: (context, { query }) => escapeColumns(context, query),
  }),
  route({
    ...{ method: 'GET', path: '/api/escape-signal-stats/table' },
    summary: 'Escape signals with what the coins had changed by each minute, the newest first; of all days, or of one.',
    query: z.strictObject({
      rule,
      date: z.iso.date('takes a day such as 2026-11-20').optional(),
      to: beijingTime.optional(),
      ...{ limit: limit(50, 1440), offset },
    }),
    answer: ESCAPE_TABLE,
    handle: (context, { query }) => escapeTable(context, query),
  }),
  route({
    ...{ method: 'GET', path: '/api/coin-price-tracker/columns' },
    summary: 'What coins have moved since midnight in Beijing as columns for a chart: all of them, and one of them.',
    query: z.strictObject({ coin: coin.optional(), ...COLUMNS_QUERY }),
    answer: PRICE_COLUMNS,
    handle: (context, { query }) => priceColumns(context, query),
  }),
  route({
    ...{ method: 'GET', path: '/api/sar-slope/columns', summary: 'How coins leaned, as columns for a chart.' },
    query: z.strictObject(COLUMNS_QUERY),
    answer: BIAS_COLUMNS,
    handle: (context, { query }) => biasColumns(context, query),
  }),
  route({
    ...{ method: 'GET', path: '/api/sar-slope/columns/:symbol', summary: 'A coin’s SAR as columns for a chart.' },
    params: z.strictObject({ symbol: coin }),
    query: z.strictObject(COLUMNS_QUERY),
    answer: SAR_COLUMNS,
    handle: (context, { params, query }) => sarColumns(context, params.symbol, query),
  }),
  route({
    ...{ method: 'GET', path: '/api/unified/:series/columns', summary: 'A unified series as columns for a chart.' },
    params: z.strictObject({ series: z.enum(UNIFIED) }),
    query: z.strictObject(COLUMNS_QUERY),
    answer: UNIFIED_COLUMNS,
    handle: (context, { params, query }) => unifiedColumns(context, params.series, query),
  }),
];
