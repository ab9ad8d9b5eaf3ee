/** `/api/sar-slope`: the parabolic SAR of each coin, and what its slope says. */
import { z } from 'zod';
import { SERIES_STATE } from '../series.ts';
import { lookInto, newestOf, stateOf } from './desk_files.ts';
import type { DeskIndex, DeskRecord } from './desk_index.ts';
import { beijingTime, coin, limit, offset } from './parameters.ts';
import { type Route, route, type WebContext, WebError } from './route.ts';

const POSITIONS = ['bullish', 'bearish'] as const;
/** A cycle that is longer is given by its newest candles: a week. */
const MOST_OF_CYCLE = 2016;

const figure = z.number().nullable();
/** A row of sar_slope_data.jsonl. */
const ROW = z.looseObject({
  slot: z.number(),
  symbol: z.string(),
  datetime: z.string(),
  price: z.number(),
  sar_value: z.number(),
  sar_position: z.enum(POSITIONS),
  sar_quadrant: z.string(),
  sequence: z.number(),
  position_duration: z.number(),
  slope_value: figure,
  slope_direction: z.enum(['up', 'down']).nullable(),
});
const SUCCESS = { success: z.literal(true) };
const params = z.strictObject({ symbol: coin });

/** The newest row of each coin, by its name, and the newest candle that one has. */
async function latestRows(context: WebContext): Promise<{ rows: DeskRecord[]; newest: number | null }> {
  const index = await lookInto(context, 'sar_slope');
  const places = index.keys.sort().map((key) => index.of(key).place(index.of(key).size - 1));
  const newest = places.length === 0 ? null : Math.max(...places.map(({ time }) => time));
  return { rows: await index.read(places), newest };
}

/** @throws WebError 404 */
export async function rowsOf(context: WebContext, symbol: string): Promise<{ index: DeskIndex; symbol: string }> {
  const index = await lookInto(context, 'sar_slope');
  if (!index.keys.includes(symbol)) throw new WebError(404, `there is no row of ${symbol}`, 'symbol');
  return { index, symbol };
}

async function latest(context: WebContext, asked: { symbol?: string | undefined; position?: string | undefined }) {
  const { rows, newest } = await latestRows(context);
  const data = rows
    .filter(
      ({ symbol, sar_position: position }) =>
        (asked.symbol ?? symbol) === symbol && (asked.position ?? position) === position,
    )
    .map((row) => ({ ...row, is_current: row.slot === newest }));
  const current = data.filter(({ is_current }) => is_current) as unknown as z.infer<typeof ROW>[];
  const count = (position: string) => current.filter((row) => row.sar_position === position).length;
  const durations = current.map(({ position_duration }) => position_duration);
  const average = durations.length === 0 ? null : durations.reduce((sum, each) => sum + each, 0) / durations.length;
  return {
    ...{ success: true, count: data.length, data_time: newest, data },
    stats: {
      total_symbols: current.length,
      ...{ bullish_count: count('bullish'), bearish_count: count('bearish'), avg_duration: average },
    },
  };
}

async function currentCycle(context: WebContext, asked: string) {
  const { index, symbol } = await rowsOf(context, asked);
  const records = index.of(symbol);
  const places = newestOf(records, { limit: MOST_OF_CYCLE, offset: 0 }).places;
  const [last] = (await index.read(places.slice(0, 1))) as unknown as z.infer<typeof ROW>[];
  // A row says how many candles its cycle has; of those that are missing or older than the files it has none.
  const rows = (await index.read(places.slice(0, last!.sequence))) as unknown as z.infer<typeof ROW>[];
  const end = rows.findIndex(({ sequence }, i) => sequence !== last!.sequence - i);
  const cycle = end < 0 ? rows : rows.slice(0, end);
  const first = cycle.at(-1)!;
  return {
    ...{ success: true, symbol, position: last!.sar_position, sequence: last!.sequence },
    ...{ duration_minutes: last!.position_duration, is_whole: first.sequence === 1 },
    ...{ start_time: first.datetime, start_price: first.price, price: last!.price },
    price_change_pct: ((last!.price - first.price) / first.price) * 100,
    ...{ count: cycle.length, data: cycle },
  };
}

async function biasRatios(context: WebContext) {
  const { rows, newest } = await latestRows(context);
  const current = rows.filter(({ slot }) => slot === newest);
  const index = await lookInto(context, 'sar_slope_summary');
  const [summary = null] = await index.read(newestOf(index.of(''), { limit: 1, offset: 0 }).places);
  const share = (position: string) =>
    current.length === 0 ? null : current.filter((row) => row.sar_position === position).length / current.length;
  return {
    ...{ success: true, data_time: newest, total_symbols: current.length },
    ...{ bullish_ratio: share('bullish'), bearish_ratio: share('bearish'), summary },
    data: current.map(({ symbol, datetime, sar_position, direction_ratio, slope_value }) => ({
      ...{ symbol, datetime, sar_position, direction_ratio, slope_value },
    })),
  };
}

async function status(context: WebContext) {
  const now = context.clock();
  const of = async (name: 'sar_slope' | 'sar_slope_summary') => {
    const state = stateOf(context, `series-${name}.json`, SERIES_STATE);
    const index = await lookInto(context, name);
    const records = index.keys.reduce((sum, key) => sum + index.of(key).size, 0);
    if (state === null) return { state: null, records, data_age_seconds: null };
    const { missing, ...rest } = state;
    const age = state.last_slot === null ? null : Math.round((now - state.last_slot) / 1000);
    return { state: { ...rest, missing_count: missing.length }, records, data_age_seconds: age };
  };
  const { keys } = await lookInto(context, 'sar_slope');
  return { success: true, symbols: keys.sort(), rows: await of('sar_slope'), summary: await of('sar_slope_summary') };
}

const STATUS = z.object({
  state: z.looseObject({}).nullable().describe('What its state file says, null: there is none.'),
  records: z.number(),
  data_age_seconds: figure.describe('From the newest slot to now.'),
});
const LATEST = z.object({
  ...{ ...SUCCESS, count: z.number(), data_time: figure.describe('Open time of the newest candle.') },
  data: z.array(ROW.extend({ is_current: z.boolean().describe('It is of the newest candle.') })),
  stats: z.object({
    ...{ total_symbols: z.number(), bullish_count: z.number(), bearish_count: z.number() },
    avg_duration: figure.describe('Minutes.'),
  }),
});
export type SarLatest = z.infer<typeof LATEST>;

const CYCLE = z.object({
  ...{ ...SUCCESS, symbol: z.string(), position: z.enum(POSITIONS), sequence: z.number() },
  ...{ duration_minutes: z.number(), is_whole: z.boolean().describe('Its first candle is there.') },
  ...{ start_time: z.string(), start_price: z.number(), price: z.number(), price_change_pct: z.number() },
  ...{ count: z.number(), data: z.array(ROW) },
});
export type SarCycle = z.infer<typeof CYCLE>;

const BIAS = z.object({
  ...{ ...SUCCESS, data_time: figure, total_symbols: z.number(), bullish_ratio: figure, bearish_ratio: figure },
  summary: z.looseObject({}).nullable().describe('The newest record of sar_slope_summary.jsonl.'),
  data: z.array(
    z.object({
      ...{ symbol: z.string(), datetime: z.string(), sar_position: z.enum(POSITIONS) },
      direction_ratio: figure.describe('Share of steps in which SAR and price moved the same way, 0 to 1.'),
      slope_value: figure.describe('That share, negative while bearish.'),
    }),
  ),
});
export type SarBias = z.infer<typeof BIAS>;

const BASE = '/api/sar-slope';

export const SAR_ROUTES: Route[] = [
  route({
    ...{
      method: 'GET',
      path: `${BASE}/latest`,
      summary: 'The newest row of each coin; what is counted is of the newest candle only.',
    },
    query: z.strictObject({ symbol: coin.optional(), position: z.enum(POSITIONS).optional() }),
    answer: LATEST,
    handle: (context, { query }) => latest(context, query),
  }),
  route({
    ...{ method: 'GET', path: `${BASE}/history/:symbol`, summary: 'Rows of a coin, the newest first.', params },
    query: z.strictObject({
      limit: limit(288, 10_000),
      offset,
      from: beijingTime.optional(),
      to: beijingTime.optional(),
    }),
    answer: z.object({
      ...SUCCESS,
      symbol: z.string(),
      total_count: z.number(),
      count: z.number(),
      data: z.array(ROW),
    }),
    async handle(context, asked) {
      const { index, symbol } = await rowsOf(context, asked.params.symbol);
      const { total, places } = newestOf(index.of(symbol), asked.query);
      const data = await index.read(places);
      return { success: true, symbol, total_count: total, count: data.length, data };
    },
  }),
  route({
    ...{
      method: 'GET',
      path: `${BASE}/current-cycle/:symbol`,
      summary: 'A coin since its last flip, the newest first.',
      params,
    },
    answer: CYCLE,
    handle: (context, asked) => currentCycle(context, asked.params.symbol),
  }),
  route({
    ...{
      method: 'GET',
      path: `${BASE}/bias-ratios`,
      summary: 'How coins lean: shares of the newest candle, and each coin’s.',
    },
    answer: BIAS,
    handle: biasRatios,
  }),
  route({
    ...{ method: 'GET', path: `${BASE}/status`, summary: 'How the collector of these rows stands.' },
    answer: z.object({ ...SUCCESS, symbols: z.array(z.string()), rows: STATUS, summary: STATUS }),
    handle: status,
  }),
];
