/** Microstructure for pages: which markets the harvest has and how far it is, a market's newest figures, series, events. */
import { z } from 'zod';
import { EVENT_TYPES } from '../harvest/events.ts';
import { SIGNAL_KINDS, type SignalKind } from '../harvest/kinds.ts';
import { EXCHANGES, type Exchange, MARKET_TYPES, type MarketType } from '../rows.ts';
import { SIGNAL_TABLES } from '../signal_tables.ts';
import { stateOf } from './desk_files.ts';
import {
  HARVEST_PARAMS,
  type HarvestMarket,
  harvestMarks,
  harvestSeries,
  harvestSpan,
  MARKET_QUERY,
  MARKS_ANSWER,
  MARKS_QUERY,
  marketOf,
  OWN,
  SERIES_ANSWER,
  SERIES_QUERY,
  SPAN_QUERY,
  signalsSource,
  WITHIN,
} from './harvest_series.ts';
import { Kept } from './kept.ts';
import { MarketDatabase } from './market_database.ts';
import { limit, offset } from './parameters.ts';
import { type Route, route, type WebContext, WebError } from './route.ts';

const SETTINGS = { max_execution_time: 10 };
/** Markets that are looked for; the harvest has dozens. */
const MOST_MARKETS = 200;
/** A harvest that began a market lately is seen within this time, ms: markets do not come and go by the second. */
const MARKETS_KEPT_MS = 15_000;
/** Besides those of the rules: what is known to be missing. */
const ALL_EVENT_TYPES = [...EVENT_TYPES, 'gap'] as const;

const SUCCESS = { success: z.literal(true) };
const MARKET = { exchange: z.enum(EXCHANGES), market_type: z.enum(MARKET_TYPES), symbol: z.string() };
const time = z.number().nullable();
const REACHED = z
  .object({
    ts_ms: z.number().describe('Event time of the newest row.'),
    recv_ts_ms: z.number().describe('When what it stands on arrived.'),
    lag_ms: z.number().describe('recv_ts_ms − ts_ms.'),
    age_ms: z.number().describe('From its event time to this answer.'),
  })
  .nullable();
type Reached = z.infer<typeof REACHED>;
/** One member per kind that has a table. */
function byKind<T>(make: (kind: SignalKind) => T): Record<SignalKind, T> {
  return Object.fromEntries(SIGNAL_KINDS.map((kind) => [kind, make(kind)])) as Record<SignalKind, T>;
}

export const HARVEST_ANSWER = z.object({
  ...SUCCESS,
  harvesters: z
    .array(z.object({ exchange: z.enum(EXCHANGES), last_run: time, data_time: time.describe('How far it is, ms.') }))
    .describe('Those that have run here.'),
  markets: z.array(z.object(MARKET)),
});
export type Harvest = z.infer<typeof HARVEST_ANSWER>;
export const REACHED_ANSWER = z.object({
  ...SUCCESS,
  markets: z.array(z.object({ ...MARKET, kinds: z.object(byKind(() => REACHED)) })),
});
export type HarvestReached = z.infer<typeof REACHED_ANSWER>;
const STATE = z.looseObject({ last_run: time.default(null), data_time: time.default(null) });

/** By service: who asks again at once is told the same markets. */
const known = new WeakMap<WebContext, Kept<HarvestMarket[]>>();

/**
 * The markets that have seconds. Each is the next one after the one before in the table's order, so that it costs as many short reads as there are
 * markets, however many rows they have.
 */
async function lookForMarkets(context: WebContext): Promise<HarvestMarket[]> {
  const markets: HarvestMarket[] = [];
  const query = `SELECT exchange, market_type, symbol FROM ${context.config.signalsDatabase}.features
WHERE exchange > {exchange:String} OR (exchange = {exchange:String} AND market_type > {market_type:String})
  OR (exchange = {exchange:String} AND market_type = {market_type:String} AND symbol > {symbol:String})
ORDER BY exchange, market_type, symbol LIMIT 1`;
  let last = { exchange: '', market_type: '', symbol: '' };
  for (;;) {
    const [next] = await MarketDatabase.of(context).rows<[Exchange, MarketType, string]>(
      signalsSource(context),
      { query, params: last, settings: SETTINGS },
      // Not one reader's: others wait for it, too.
      context.stop,
    );
    if (next === undefined) return markets;
    if (markets.length === MOST_MARKETS) throw new WebError(500, `the harvest has more than ${MOST_MARKETS} markets`);
    const [exchange, market_type, symbol] = next;
    markets.push((last = { exchange, market_type, symbol }));
  }
}

function marketsOf(context: WebContext): Promise<HarvestMarket[]> {
  let kept = known.get(context);
  if (kept === undefined) known.set(context, (kept = new Kept(MARKETS_KEPT_MS)));
  return kept.get(context.clock(), () => lookForMarkets(context));
}

/** Of each market and kind the newest row's times, all in one query; each is a short read from the end of the market's rows. */
async function reachedBy(
  context: WebContext,
  markets: readonly HarvestMarket[],
  gone: AbortSignal,
): Promise<Map<string, Reached>> {
  if (markets.length === 0) return new Map();
  const params: Record<string, string> = {};
  const parts = markets.flatMap(({ exchange, market_type, symbol }, i) => {
    Object.assign(params, { [`e${i}`]: exchange, [`m${i}`]: market_type, [`s${i}`]: symbol });
    const own = `exchange = {e${i}:String} AND market_type = {m${i}:String} AND symbol = {s${i}:String}`;
    return SIGNAL_KINDS.map(
      (kind) => `(SELECT '${i} ${kind}', toUnixTimestamp64Milli(timestamp), toUnixTimestamp64Milli(received_at)
FROM ${context.config.signalsDatabase}.${kind} WHERE ${own} ORDER BY ${newestFirst(kind)} LIMIT 1)`,
    );
  });
  const query = parts.join(' UNION ALL ');
  const rows = await MarketDatabase.of(context).rows<[string, string, string]>(
    signalsSource(context),
    { query, params, settings: SETTINGS },
    gone,
  );
  const now = context.clock();
  return new Map(
    rows.map(([name, event, received]) => {
      const [ts_ms, recv_ts_ms] = [Number(event), Number(received)];
      return [name, { ts_ms, recv_ts_ms, lag_ms: recv_ts_ms - ts_ms, age_ms: now - ts_ms }];
    }),
  );
}

/** What comes after the time in the order of rows: which of a second, or of a millisecond, is the newest. */
const LAST: Partial<Record<SignalKind, string>> = { features: 'revision', cvd: 'toUInt64OrZero(trade_id)' };

/** In the order of the table's key, so that only its end is read. */
function newestFirst(kind: SignalKind): string {
  const names = ['exchange', 'market_type', 'symbol', 'timestamp', ...(kind in LAST ? [LAST[kind]] : []), 'row_id'];
  return names.map((name) => `${name} DESC`).join(', ');
}

async function harvestNow(context: WebContext): Promise<Harvest> {
  const harvesters = EXCHANGES.flatMap((exchange) => {
    const state = stateOf(context, `ofi_cvd_harvester_${exchange}.json`, STATE);
    return state === null ? [] : [{ exchange, last_run: state.last_run, data_time: state.data_time }];
  });
  return { success: true, harvesters, markets: await marketsOf(context) };
}

async function harvestReached(context: WebContext, gone: AbortSignal): Promise<HarvestReached> {
  const markets = await marketsOf(context);
  const reached = await reachedBy(context, markets, gone);
  const named = markets.map((market, i) => ({
    ...market,
    kinds: byKind((kind) => reached.get(`${i} ${kind}`) ?? null),
  }));
  return { success: true, markets: named };
}

const figure = z.number().nullable();
const text = z.string().nullable();
/** Of each kind's newest row what a reader looks at; decimals are text, with all digits. */
const NEWEST = {
  ofi: z.object({ ofi_value: figure, ofi_z: figure, ofi_z_raw: figure, ema_ofi: figure, warmup: z.boolean() }),
  cvd: z.object({ cvd: z.string(), delta: z.string(), z_cvd: figure, z_raw: figure }),
  fusion: z.object({ score: figure, proba: figure, consistency: figure, signal: text }),
  events: z.object({ event_type: z.string(), direction: text, strength_score: figure }),
  features: z.object({
    ...{ mid: figure, last_price: figure, return_1s: figure, best_bid: figure, best_ask: figure, spread_bps: figure },
    ...{ trades: z.number(), book_changes: z.number(), revision: z.number() },
    ...{ session: z.string(), regime: text, vol_bucket: text, scenario_2x2: text },
    ...{ reconnect_count: z.number(), queue_dropped: z.number() },
  }),
} as const satisfies Record<SignalKind, z.ZodObject>;
const TIMES = { ts_ms: z.number(), recv_ts_ms: z.number(), lag_ms: z.number(), age_ms: z.number() };
export const LATEST_ANSWER = z.object({
  ...{ ...SUCCESS, ...MARKET },
  ofi: NEWEST.ofi.extend(TIMES).nullable(),
  cvd: NEWEST.cvd.extend(TIMES).nullable(),
  fusion: NEWEST.fusion.extend(TIMES).nullable(),
  events: NEWEST.events.extend(TIMES).nullable(),
  features: NEWEST.features.extend(TIMES).nullable(),
});
export type HarvestLatest = z.infer<typeof LATEST_ANSWER>;

async function latestOf(context: WebContext, market: HarvestMarket, gone: AbortSignal): Promise<HarvestLatest> {
  const found = await Promise.all(SIGNAL_KINDS.map((kind) => newestOf(context, market, kind, gone)));
  const rows = Object.fromEntries(SIGNAL_KINDS.map((kind, i) => [kind, found[i]!]));
  return { success: true, ...market, ...rows } as HarvestLatest;
}

async function newestOf(context: WebContext, market: HarvestMarket, kind: SignalKind, gone: AbortSignal) {
  const members = Object.keys(NEWEST[kind].shape);
  const query = `SELECT toUnixTimestamp64Milli(timestamp), toUnixTimestamp64Milli(received_at), ${members.join(', ')}
FROM ${context.config.signalsDatabase}.${SIGNAL_TABLES[kind].name} WHERE ${OWN} ORDER BY ${newestFirst(kind)} LIMIT 1`;
  const asked = { query, params: { ...market }, settings: SETTINGS };
  const [row] = await MarketDatabase.of(context).rows<unknown[]>(signalsSource(context), asked, gone);
  if (row === undefined) return null;
  const [ts_ms, recv_ts_ms] = [Number(row[0]), Number(row[1])];
  const own = Object.fromEntries(members.map((name, i) => [name, row[i + 2]]));
  return { ...own, ts_ms, recv_ts_ms, lag_ms: recv_ts_ms - ts_ms, age_ms: context.clock() - ts_ms };
}

const EVENT = z.object({
  ...{ ts_ms: z.number(), recv_ts_ms: z.number(), row_id: z.string(), event_type: z.string(), direction: text },
  ...{ trigger_by: z.string().describe('Of a gap: its cause.'), strength_score: figure, ofi_z: figure, cvd_z: figure },
  meta_json: z.string().describe('What the event stands on.'),
});
const EVENTS_QUERY = z.strictObject({
  ...MARKET_QUERY,
  ...SPAN_QUERY,
  types: z
    .string()
    .regex(/^[a-z_]{1,40}(?:,[a-z_]{1,40})*$/, 'takes names of events, with commas between them')
    .transform((given) => given.split(','))
    .optional()
    .describe(`Of ${ALL_EVENT_TYPES.join(', ')}; default: all.`),
  ...{ limit: limit(50, 1000), offset },
});
export const EVENTS_ANSWER = z.object({
  ...{ ...SUCCESS, ...MARKET, from: z.number(), to: z.number(), total_count: z.number(), count: z.number() },
  data: z.array(EVENT),
});
export type HarvestEvents = z.infer<typeof EVENTS_ANSWER>;

/** @throws WebError 400 naming `types` or `from` */
async function eventsOf(
  context: WebContext,
  symbol: string,
  asked: z.output<typeof EVENTS_QUERY>,
  gone: AbortSignal,
): Promise<HarvestEvents> {
  const { types = ALL_EVENT_TYPES, limit: most, offset: skipped } = asked;
  const odd = types.find((name) => !(ALL_EVENT_TYPES as readonly string[]).includes(name));
  if (odd !== undefined)
    throw new WebError(400, `there is no ${odd}: there are ${ALL_EVENT_TYPES.join(', ')}`, 'types');
  const market = marketOf(symbol, asked);
  const span = harvestSpan(asked, context.clock());
  const params = { ...market, ...span, types: [...types], most, skipped };
  const from = `FROM ${context.config.signalsDatabase}.events WHERE ${OWN} AND ${WITHIN} AND event_type IN {types:Array(String)}`;
  const database = MarketDatabase.of(context);
  const source = signalsSource(context);
  const [[total] = ['0']] = await database.rows<[string]>(
    source,
    { query: `SELECT count() ${from}`, params, settings: SETTINGS },
    gone,
  );
  const members = Object.keys(EVENT.shape).slice(2);
  const query = `SELECT toUnixTimestamp64Milli(timestamp), toUnixTimestamp64Milli(received_at), ${members.join(', ')} ${from}
ORDER BY ${newestFirst('events')} LIMIT {most:UInt32} OFFSET {skipped:UInt32}`;
  const rows = await database.rows<unknown[]>(source, { query, params, settings: SETTINGS }, gone);
  const data = rows.map(([event, received, ...values]) => ({
    ...{ ts_ms: Number(event), recv_ts_ms: Number(received) },
    ...Object.fromEntries(members.map((name, i) => [name, values[i]])),
  })) as HarvestEvents['data'];
  return { ...{ success: true, ...market, ...span, total_count: Number(total), count: data.length }, data };
}

export const HARVEST_ROUTES: Route[] = [
  route({
    ...{ method: 'GET', path: '/api/harvest' },
    summary: 'Which markets the harvest of microstructure has, and when its processes were last seen.',
    answer: HARVEST_ANSWER,
    handle: (context) => harvestNow(context),
  }),
  route({
    ...{ method: 'GET', path: '/api/harvest/reached' },
    summary: 'How far each kind of each market’s rows is, with its lag behind the exchange and its age.',
    answer: REACHED_ANSWER,
    handle: (context, { gone }) => harvestReached(context, gone),
  }),
  route({
    ...{ method: 'GET', path: '/api/harvest/:symbol/latest' },
    summary: 'The newest figures of a market’s microstructure, each with its lag behind the exchange and its age.',
    params: HARVEST_PARAMS,
    query: z.strictObject(MARKET_QUERY),
    answer: LATEST_ANSWER,
    handle: (context, { params, query, gone }) => latestOf(context, marketOf(params.symbol, query), gone),
  }),
  route({
    ...{ method: 'GET', path: '/api/harvest/:symbol/series' },
    summary:
      'Figures of microstructure over a time: lowest, highest, last, mean, sum of each bucket. Corrected seconds count once.',
    params: HARVEST_PARAMS,
    query: SERIES_QUERY,
    answer: SERIES_ANSWER,
    handle: (context, { params, query, gone }) => harvestSeries(context, params.symbol, query, gone),
  }),
  route({
    ...{ method: 'GET', path: '/api/harvest/:symbol/marks' },
    summary: 'How many events of each type there are, in the same buckets as the series.',
    params: HARVEST_PARAMS,
    query: MARKS_QUERY,
    answer: MARKS_ANSWER,
    handle: (context, { params, query, gone }) => harvestMarks(context, params.symbol, query, gone),
  }),
  route({
    ...{ method: 'GET', path: '/api/harvest/:symbol/events' },
    summary: 'Events of a market, the newest first.',
    params: HARVEST_PARAMS,
    query: EVENTS_QUERY,
    answer: EVENTS_ANSWER,
    handle: (context, { params, query, gone }) => eventsOf(context, params.symbol, query, gone),
  }),
];
