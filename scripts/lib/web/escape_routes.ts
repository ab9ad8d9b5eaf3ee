/** `/api/escape-signal-stats`: how many minutes were signals to leave. */
import { z } from 'zod';
import { beijingDate, beijingDayStart } from '../desk/beijing.ts';
import { RULES } from '../desk/escape.ts';
import { CANDLE_MS } from '../desk/sar.ts';
import { lookInto, newestOf, pathOf } from './desk_files.ts';
import type { KeyRecords } from './desk_index.ts';
import { majorLimits } from './events_now.ts';
import { keypoints } from './keypoints.ts';
import { beijingTime, limit, offset } from './parameters.ts';
import { type Route, route, type WebContext } from './route.ts';

const DAY_MS = 86_400_000;
const SHORT_MS = 7_200_000;
const HALF_HOUR_MS = 1_800_000;
/** A record of prices is of use until the next one should be there, and five minutes more. */
const PRICES_OLDEST_MS = HALF_HOUR_MS + 300_000;
/** A minute is written once its candle is over, five minutes later; two candles more are nothing unusual at a slow venue. */
const CURRENT_MS = 3 * CANDLE_MS;
/** Of the newest records so many are given beside the page. */
const RECENT = 10;

export const rule = z.enum(RULES).default('sar-breadth');
const figure = z.number().nullable();
/** A record of escape_signal_stats.jsonl. */
export const RECORD = z.looseObject({
  slot: z.number(),
  stat_time: z.string(),
  rule: z.enum(RULES),
  signal_24h_count: figure,
  signal_2h_count: figure,
  decline_strength_level: figure,
  rise_strength_level: figure,
  max_signal_24h: figure,
  max_signal_2h: figure,
  created_at: z.string(),
  breadth: figure.optional().describe('Coins that the rule counts, of `coins`.'),
  coins: figure.optional(),
  is_signal: z.boolean().nullable().optional(),
  threshold: figure.optional().describe('So many coins are a signal.'),
  missing_24h: figure.optional().describe('Candles that are missing in the 24 hours: what the counts do not know of.'),
});
const RANGE = z
  .object({ from: z.string(), to: z.string() })
  .nullable()
  .describe('stat_time of the first and last record.');
const OVERVIEW = {
  rule: z.enum(RULES),
  total_count: z.number().describe('Records that there are.'),
  max_signal_24h: figure.describe('The highest signal_24h_count of all records.'),
  max_signal_2h: figure.describe('The highest signal_2h_count of all records.'),
  sample_24h_count: z.number().describe('Records of the 24 hours up to the newest one.'),
  median_24h: figure.describe('The median of their signal_24h_count.'),
  data_source: z.string(),
  timezone: z.literal('Asia/Shanghai'),
  data_range: RANGE,
};

function columnOf(records: KeyRecords, name: string, from = 0): (number | null)[] {
  const values: (number | null)[] = [];
  for (let at = from; at < records.size; at += 1) values.push(records.value(name, at));
  return values;
}

/** The highest; null: none is known. */
function mostOf(values: readonly (number | null)[]): number | null {
  let most: number | null = null;
  for (const value of values) if (value !== null && (most === null || value > most)) most = value;
  return most;
}

function medianOf(values: readonly (number | null)[]): number | null {
  const sorted = values.filter((value) => value !== null).sort((one, other) => one - other);
  const middle = sorted.length >> 1;
  if (sorted.length === 0) return null;
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

/** Of a rule's records; `edges` are to be read. */
function overviewOf(records: KeyRecords) {
  const { size } = records;
  const dayBegin = size === 0 ? 0 : records.from(records.time(size - 1) - DAY_MS + 1);
  return {
    edges: size === 0 ? [] : [records.place(0), records.place(size - 1)],
    figures: {
      total_count: size,
      max_signal_24h: mostOf(columnOf(records, 'signal_24h_count')),
      max_signal_2h: mostOf(columnOf(records, 'signal_2h_count')),
      sample_24h_count: size - dayBegin,
      median_24h: medianOf(columnOf(records, 'signal_24h_count', dayBegin)),
      ...{ data_source: pathOf('escape_signal'), timezone: 'Asia/Shanghai' as const },
    },
  };
}

const statTime = (record: Record<string, unknown> | undefined) => String(record?.stat_time);

async function stats(context: WebContext, asked: { rule: (typeof RULES)[number]; limit: number; offset: number }) {
  const index = await lookInto(context, 'escape_signal');
  const records = index.of(asked.rule);
  const { edges, figures } = overviewOf(records);
  const { places } = newestOf(records, asked);
  const recent = newestOf(records, { limit: RECENT, offset: 0 }).places;
  const read = await index.read([...edges, ...recent, ...places]);
  const [first, last] = edges.length === 0 ? [] : read;
  return {
    ...{ success: true, rule: asked.rule, ...figures },
    data_range: first === undefined ? null : { from: statTime(first), to: statTime(last) },
    recent_data: read.slice(edges.length, edges.length + recent.length),
    history_data: read.slice(edges.length + recent.length),
  };
}

/** What the coins had changed by a minute, by the newest half hour that is young enough. */
export function changesAt(prices: KeyRecords, minute: number) {
  const at = prices.from(minute + 1) - 1;
  const isThere = at >= 0 && minute - prices.time(at) <= PRICES_OLDEST_MS;
  const of = (name: string) => (isThere ? prices.value(name, at) : null);
  return {
    ...{ average_change: of('average_change'), total_change: of('total_change') },
    ...{ valid_coins: of('valid_coins'), total_coins: of('total_coins') },
  };
}

async function keypointsOf(context: WebContext, asked: { rule: (typeof RULES)[number]; limit: number }) {
  await lookInto(context, 'coin_prices');
  const index = await lookInto(context, 'escape_signal');
  const prices = (await lookInto(context, 'coin_prices')).of('');
  const records = index.of(asked.rule);
  const series = [columnOf(records, 'signal_24h_count'), columnOf(records, 'signal_2h_count')];
  const chosen = keypoints(series, asked.limit);
  const changes = chosen.map((at) => changesAt(prices, records.time(at)));
  const total = records.size;
  const read = await index.read(chosen.map((at) => records.place(at)));
  const points = read.map((record, i) => ({
    ...{ slot: record.slot, stat_time: record.stat_time },
    ...{ signal_24h_count: record.signal_24h_count, signal_2h_count: record.signal_2h_count },
    decline_strength_level: record.decline_strength_level,
    rise_strength_level: record.rise_strength_level,
    ...changes[i]!,
  }));
  return {
    ...{ success: true, rule: asked.rule, total_count: total, keypoint_count: points.length },
    compression_rate: total === 0 ? null : 1 - points.length / total,
    ...{ max_signal_24h: mostOf(series[0]!), max_signal_2h: mostOf(series[1]!) },
    keypoints: points,
  };
}

const KEYPOINTS = z.object({
  success: z.literal(true),
  rule: z.enum(RULES),
  total_count: z.number(),
  keypoint_count: z.number(),
  compression_rate: figure.describe('The share of the records that is left out, 0 to 1.'),
  max_signal_24h: figure,
  max_signal_2h: figure,
  keypoints: z.array(
    z.object({
      ...{ slot: z.number(), stat_time: z.string(), signal_24h_count: figure, signal_2h_count: figure },
      ...{ decline_strength_level: figure, rise_strength_level: figure, average_change: figure, total_change: figure },
      ...{ valid_coins: figure, total_coins: figure },
    }),
  ),
});

const INCREMENTAL = z.object({
  ...{ success: z.literal(true), rule: z.enum(RULES), count: z.number() },
  latest_time: z.string().nullable().describe('stat_time of the last one: ask with it as since.'),
  data: z.array(RECORD),
});
export type EscapeIncremental = z.infer<typeof INCREMENTAL>;

const DATES = z.object({
  ...{ success: z.literal(true), rule: z.enum(RULES), count: z.number() },
  dates: z.array(z.object({ date: z.string(), records: z.number(), max_signal_24h: figure, max_signal_2h: figure })),
});
export type EscapeDates = z.infer<typeof DATES>;

const SUMMARY = z.object({
  ...{ success: z.literal(true), ...OVERVIEW, latest: RECORD.nullable() },
  age_seconds: figure.describe('Of the latest minute; five minutes and a little more is as it should be.'),
  is_current: z.boolean().nullable().describe('It is younger than 15 minutes; null: there is none.'),
  most_2h: z.number().describe('The highest signal_2h_count that can be: candles of two hours.'),
  most_24h: z.number().describe('The highest signal_24h_count that can be.'),
  strong_top_count: figure.describe(
    'From this signal_2h_count on it is a strong top; null: of this rule none is made.',
  ),
  weak_top_count: figure.describe('From this one on a weak top.'),
});
export type EscapeSummary = z.infer<typeof SUMMARY>;

async function summary(context: WebContext, asked: (typeof RULES)[number]): Promise<EscapeSummary> {
  const index = await lookInto(context, 'escape_signal');
  const { edges, figures } = overviewOf(index.of(asked));
  const [first, last = null] = (await index.read(edges)) as unknown as z.infer<typeof RECORD>[];
  const age = last === null ? null : context.clock() - last.slot;
  // Major events are made of the first rule alone.
  const limits = asked === RULES[0] ? majorLimits(context).limits : null;
  return {
    ...{ success: true, rule: asked, ...figures },
    ...{ data_range: last === null ? null : { from: statTime(first), to: statTime(last) }, latest: last },
    age_seconds: age === null ? null : Math.round(age / 1000),
    is_current: age === null ? null : age < CURRENT_MS,
    ...{ most_2h: SHORT_MS / CANDLE_MS, most_24h: DAY_MS / CANDLE_MS },
    ...{ strong_top_count: limits?.strong_top_count ?? null, weak_top_count: limits?.weak_top_count ?? null },
  };
}

const BASE = '/api/escape-signal-stats';

export const ESCAPE_ROUTES: Route[] = [
  route({
    ...{ method: 'GET', path: BASE, summary: 'Escape signals of each minute, the newest first.' },
    query: z.strictObject({ rule, limit: limit(1000, 10_000), offset }),
    answer: z.object({
      ...{ success: z.literal(true), ...OVERVIEW },
      ...{ recent_data: z.array(RECORD), history_data: z.array(RECORD) },
    }),
    handle: (context, { query }) => stats(context, query),
  }),
  route({
    ...{
      method: 'GET',
      path: `${BASE}/keypoints`,
      summary: 'The whole history in few points, peaks kept; the oldest first.',
    },
    query: z.strictObject({ rule, limit: limit(500, 2000).pipe(z.number().min(50)) }),
    answer: KEYPOINTS,
    handle: (context, { query }) => keypointsOf(context, query),
  }),
  route({
    ...{ method: 'GET', path: `${BASE}/incremental` },
    summary:
      'Records after a time, the oldest first; without a time the newest ones. Corrections of earlier minutes are not among them.',
    query: z.strictObject({ rule, limit: limit(10, 10_000), since: beijingTime.optional() }),
    answer: INCREMENTAL,
    async handle(context, { query }) {
      const index = await lookInto(context, 'escape_signal');
      const records = index.of(query.rule);
      const begin = query.since === undefined ? Math.max(0, records.size - query.limit) : records.from(query.since + 1);
      const places = [];
      for (let at = begin; at < records.size && places.length < query.limit; at += 1) places.push(records.place(at));
      const data = await index.read(places);
      const latest = data.at(-1);
      const latest_time = latest === undefined ? null : statTime(latest);
      return { success: true, rule: query.rule, count: data.length, latest_time, data };
    },
  }),
  route({
    ...{ method: 'GET', path: `${BASE}/dates`, summary: 'Days of Beijing with records, the newest first.' },
    query: z.strictObject({ rule }),
    answer: DATES,
    async handle(context, { query }) {
      const records = (await lookInto(context, 'escape_signal')).of(query.rule);
      const dates = [];
      for (let end = records.size; end > 0; ) {
        const day = beijingDayStart(records.time(end - 1));
        const begin = records.from(day);
        const most = (name: string) => mostOf(columnOf(records, name, begin).slice(0, end - begin));
        const figures = { max_signal_24h: most('signal_24h_count'), max_signal_2h: most('signal_2h_count') };
        dates.push({ date: beijingDate(day), records: end - begin, ...figures });
        end = begin;
      }
      return { success: true, rule: query.rule, count: dates.length, dates };
    },
  }),
  route({
    ...{ method: 'GET', path: `${BASE}/by-date`, summary: 'The records of one day of Beijing, the newest first.' },
    query: z.strictObject({
      rule,
      date: z.iso.date('takes a day such as 2026-11-20'),
      limit: limit(1440, 1440),
      offset,
    }),
    answer: z.object({
      ...{
        success: z.literal(true),
        rule: z.enum(RULES),
        date: z.string(),
        total_count: z.number(),
        count: z.number(),
      },
      data: z.array(RECORD),
    }),
    async handle(context, { query }) {
      const index = await lookInto(context, 'escape_signal');
      const from = Date.parse(`${query.date}T00:00:00+08:00`);
      const { total, places } = newestOf(index.of(query.rule), { ...query, from, to: from + DAY_MS - 1 });
      const data = await index.read(places);
      return { success: true, rule: query.rule, date: query.date, total_count: total, count: data.length, data };
    },
  }),
  route({
    ...{ method: 'GET', path: `${BASE}/summary`, summary: 'Where the signals stand.' },
    query: z.strictObject({ rule }),
    answer: SUMMARY,
    handle: (context, { query }) => summary(context, query.rule),
  }),
];
