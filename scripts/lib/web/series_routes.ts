/** Prices, major events, the anchor account, the unified series. */
import { z } from 'zod';
import { EVENTS, MAJOR_EVENT } from '../desk/major_events.ts';
import { type DeskFile, lookInto, newestOf, newestOfAll, type Page, UNIFIED } from './desk_files.ts';
import { EVENTS_NOW, eventsNow } from './events_now.ts';
import { beijingTime, limit, offset, wholeNumber } from './parameters.ts';
import { type Route, route, type WebContext, WebError } from './route.ts';

const DAY_MS = 86_400_000;
/** From one record of prices to the next, and ten minutes: a venue that is slow is waited for. */
const PRICES_CURRENT_MS = 40 * 60_000;

const figure = z.number().nullable();
const SUCCESS = { success: z.literal(true) };
const COUNTS = { total_count: z.number().describe('Records that there are of what was asked.'), count: z.number() };
const SPAN = { from: beijingTime.optional(), to: beijingTime.optional() };
const SLOT = z.looseObject({ slot: z.number() });
/** A record of coin_prices_30min.jsonl. */
const PRICES = z.looseObject({
  slot: z.number(),
  collect_time: z.string(),
  base_date: z.string(),
  day_changes: z.record(z.string(), z.object({ base_price: figure, current_price: figure, change_pct: figure })),
  total_change: figure,
  average_change: figure,
  total_coins: z.number(),
  valid_coins: z.number(),
});

/** A page of a series with one record per slot. */
async function pageOf(context: WebContext, name: DeskFile, page: Page) {
  const index = await lookInto(context, name);
  const { total, places } = newestOf(index.of(''), page);
  const data = await index.read(places);
  return { total_count: total, count: data.length, data };
}

async function latestPrices(context: WebContext, asked: Page) {
  const records = (await lookInto(context, 'coin_prices')).of('');
  const age = records.size === 0 ? null : context.clock() - records.time(records.size - 1);
  return {
    ...{ success: true, ...(await pageOf(context, 'coin_prices', asked)) },
    age_seconds: age === null ? null : Math.round(age / 1000),
    is_current: age === null ? null : age < PRICES_CURRENT_MS,
  };
}

interface AskedPrices {
  start_time?: number | undefined;
  end_time?: number | undefined;
  days: number;
  all: boolean;
  limit: number;
  offset: number;
}

async function priceHistory(
  context: WebContext,
  { start_time, end_time, days, all, limit: most, offset: skipped }: AskedPrices,
) {
  if (start_time !== undefined && end_time !== undefined && start_time > end_time)
    throw new WebError(400, 'is after end_time', 'start_time');
  const from = all ? undefined : (start_time ?? (end_time ?? context.clock()) - days * DAY_MS);
  const page = { limit: most, offset: skipped, from, to: all ? undefined : end_time };
  return { success: true, ...(await pageOf(context, 'coin_prices', page)) };
}

const PRICES_PAGE = z.object({ ...SUCCESS, ...COUNTS, data: z.array(PRICES) });
const PRICES_LATEST = PRICES_PAGE.extend({
  age_seconds: figure.describe('Of the newest half hour that is recorded.'),
  is_current: z.boolean().nullable().describe('The next one is not overdue by ten minutes; null: there is none.'),
});
export type PricesLatest = z.infer<typeof PRICES_LATEST>;
const EVENTS_PAGE = z.object({ ...SUCCESS, ...COUNTS, data: z.array(MAJOR_EVENT) });
export type EventsPage = z.infer<typeof EVENTS_PAGE>;

const PROFITS = z.looseObject({ loss: figure, lte_40: figure, gte_80: figure, gte_120: figure });
/** A record of anchor_profit_stats.jsonl; one of another shape has no classes. */
const ANCHOR = z.looseObject({
  slot: z.number(),
  trade_mode: z.string().optional(),
  stats: z
    .object({ long: PROFITS, short: PROFITS })
    .optional()
    .describe('Positions by their profit, percent of their margin; one that wins 120 is among those of 80, too.'),
  positions_count: z.number(),
  unknown: z.number().optional().describe('Positions whose profit by margin is not known.'),
});
const ANCHOR_LATEST = z.object({ ...SUCCESS, data: ANCHOR.nullable(), age_seconds: figure.describe('Of its slot.') });
export type AnchorLatest = z.infer<typeof ANCHOR_LATEST>;

export const SERIES_ROUTES: Route[] = [
  route({
    ...{
      method: 'GET',
      path: '/api/coin-price-tracker/latest',
      summary: 'What coins have moved since midnight in Beijing: the newest half hours first.',
    },
    query: z.strictObject({ limit: limit(48, 2000), offset }),
    answer: PRICES_LATEST,
    handle: (context, { query }) => latestPrices(context, query),
  }),
  route({
    ...{ method: 'GET', path: '/api/coin-price-tracker/history', summary: 'The same over a time, the newest first.' },
    query: z.strictObject({
      ...{ start_time: beijingTime.optional(), end_time: beijingTime.optional() },
      days: wholeNumber(1, 3650).default(7).describe('Up to end_time or now, where there is no start_time.'),
      all: z
        .enum(['true', 'false', '1', '0'])
        .default('false')
        .transform((text) => text === 'true' || text === '1'),
      ...{ limit: limit(2000, 20_000), offset },
    }),
    answer: PRICES_PAGE,
    handle: (context, { query }) => priceHistory(context, query),
  }),
  route({
    ...{
      method: 'GET',
      path: '/api/major-events/current-status',
      summary: 'How the rules of major events stand, and each one’s last event.',
    },
    answer: EVENTS_NOW,
    handle: eventsNow,
  }),
  route({
    ...{ method: 'GET', path: '/api/major-events/history', summary: 'Major events, the newest first.' },
    query: z.strictObject({ event: z.enum(EVENTS).optional(), limit: limit(100, 5000), offset, ...SPAN }),
    answer: EVENTS_PAGE,
    async handle(context, { query }) {
      const index = await lookInto(context, 'major_events');
      const { total, places } = newestOfAll(index, query.event === undefined ? index.keys : [query.event], query);
      const data = await index.read(places);
      return { success: true, total_count: total, count: data.length, data };
    },
  }),
  route({
    ...{
      method: 'GET',
      path: '/api/anchor/latest',
      summary: 'The owner’s positions by profit; null: never collected.',
    },
    answer: ANCHOR_LATEST,
    async handle(context) {
      const { data } = await pageOf(context, 'anchor', { limit: 1, offset: 0 });
      const [record = null] = data;
      const age_seconds = record === null ? null : Math.round((context.clock() - Number(record.slot)) / 1000);
      return { success: true, data: record, age_seconds };
    },
  }),
  route({
    ...{ method: 'GET', path: '/api/unified/:series', summary: 'A unified series, the newest first.' },
    params: z.strictObject({ series: z.enum(UNIFIED) }),
    query: z.strictObject({ limit: limit(288, 10_000), offset, ...SPAN }),
    answer: z.object({ ...SUCCESS, series: z.enum(UNIFIED), ...COUNTS, data: z.array(SLOT) }),
    handle: async (context, { params, query }) => ({
      ...{ success: true, series: params.series },
      ...(await pageOf(context, params.series, query)),
    }),
  }),
];
