/** Microstructure over a time as few points: of each bucket its lowest, highest and last value, so that peaks survive; and events by bucket. */
import { z } from 'zod';
import { SIGNAL_KINDS, type SignalKind } from '../harvest/kinds.ts';
import { EXCHANGES, type Exchange, MARKET_TYPES, type MarketType } from '../rows.ts';
import { SIGNAL_TABLES } from '../signal_tables.ts';
import { MarketDatabase, type Source } from './market_database.ts';
import type { Span } from './market_query.ts';
import { utcTime, wholeNumber } from './parameters.ts';
import { type WebContext, WebError } from './route.ts';

const SECOND_MS = 1000;
const MINUTE_MS = 60 * SECOND_MS;
const DAY_MS = 1440 * MINUTE_MS;
/** More is asked for in parts: one answer reads no more of a market than this. */
const MOST_SPAN_MS = 31 * DAY_MS;
/** Whoever waits for a chart waits no longer, s. */
const SETTINGS = { max_execution_time: 20 };
const MOST_POINTS = 2000;
const FEWEST_POINTS = 10;
const MOST_FIELDS = 12;
/** Lengths of buckets, s: those that a clock face and a calendar have; with the longest the fewest points are enough for the longest span. */
const STEPS_S = [
  ...[1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400, 21_600, 43_200],
  ...[1, 2, 4].map((days) => (days * DAY_MS) / SECOND_MS),
];

/** Kinds of the harvest with a table, and the sampled books, whose best level the harvest's tables do not have. */
export const SERIES_KINDS = [...SIGNAL_KINDS, 'depth'] as const;
export type SeriesKind = (typeof SERIES_KINDS)[number];
export const STATS = ['min', 'max', 'last', 'mean', 'sum'] as const;
export type Stat = (typeof STATS)[number];

export const HARVEST_PARAMS = z.strictObject({
  symbol: z
    .string()
    .regex(/^[A-Za-z0-9][A-Za-z0-9_.:-]{0,63}$/, 'takes a symbol such as BTC-USDT')
    .meta({ description: 'Such as BTC-USDT.' }),
});

/** Which market: of an exchange, a symbol may be traded in several ways. */
export const MARKET_QUERY = {
  exchange: z.enum(EXCHANGES).default('binance_derivatives'),
  market_type: z
    .enum(MARKET_TYPES)
    .optional()
    .meta({ description: 'Default: spot of a spot exchange, else perpetual.' }),
};
export const SPAN_QUERY = {
  from: utcTime.optional().describe('Included. Default: `minutes` before `to`.'),
  to: utcTime.optional().describe('Not included. Default: now.'),
  minutes: wholeNumber(1, MOST_SPAN_MS / MINUTE_MS).default(60),
};
export const POINTS = wholeNumber(FEWEST_POINTS, MOST_POINTS)
  .default(720)
  .describe(
    `Buckets at most, ${FEWEST_POINTS} to ${MOST_POINTS}: their length is the shortest of a list that is enough.`,
  );

const list = (what: string) =>
  z
    .string()
    .regex(/^[a-z0-9_]{1,40}(?:,[a-z0-9_]{1,40})*$/, `takes ${what}, with commas between them`)
    .transform((text) => [...new Set(text.split(','))]);

export const SERIES_QUERY = z.strictObject({
  ...MARKET_QUERY,
  ...SPAN_QUERY,
  kind: z.enum(SERIES_KINDS).default('features'),
  fields: list('names of fields').describe('Numeric columns of the kind, with commas between them.'),
  stats: list('names of figures')
    .default(['min', 'max', 'last'])
    .describe(`Of each field in each bucket: ${STATS.join(', ')}, with commas between them.`),
  points: POINTS,
});

/** One market's stream of rows. */
export interface HarvestMarket {
  exchange: Exchange;
  market_type: MarketType;
  symbol: string;
}

export function marketOf(
  symbol: string,
  { exchange, market_type }: { exchange: Exchange; market_type?: MarketType | undefined },
): HarvestMarket {
  return { exchange, market_type: market_type ?? (exchange.endsWith('_spot') ? 'spot' : 'perpetual'), symbol };
}

/** The rows of `marketOf`, in the order of the tables' key. */
export const OWN = 'exchange = {exchange:String} AND market_type = {market_type:String} AND symbol = {symbol:String}';
export const WITHIN =
  "timestamp >= fromUnixTimestamp64Milli({from:Int64}, 'UTC') AND timestamp < fromUnixTimestamp64Milli({to:Int64}, 'UTC')";

/** Where the signals are. */
export function signalsSource({ client }: WebContext): Source {
  return { client, tier: 'hot', table: (type) => type };
}

/** Whole buckets over a span, ms. */
export interface Grid extends Span {
  step: number;
}

interface AskedSpan {
  from?: number | undefined;
  to?: number | undefined;
  minutes: number;
}

/** @throws WebError 400 naming `from` when the span is empty or too long */
export function harvestSpan(asked: AskedSpan, now: number): Span {
  const to = asked.to ?? now;
  const from = asked.from ?? Math.max(to - asked.minutes * MINUTE_MS, 0);
  if (from >= to) throw new WebError(400, 'is not before to', 'from');
  if (to - from > MOST_SPAN_MS) throw new WebError(400, `is more than ${MOST_SPAN_MS / DAY_MS} days before to`, 'from');
  return { from, to };
}

/**
 * The buckets that a span is told in: whole ones since the epoch, as many as `points` or a few more where the ends reach into further ones.
 * @throws WebError as `harvestSpan`
 */
export function gridOf(asked: AskedSpan & { points: number }, now: number): Grid {
  const { from, to } = harvestSpan(asked, now);
  const seconds = STEPS_S.find((each) => (to - from) / (each * SECOND_MS) <= asked.points) ?? STEPS_S.at(-1)!;
  const step = seconds * SECOND_MS;
  return { step, from: Math.floor(from / step) * step, to: Math.ceil(to / step) * step };
}

const NUMERIC = /^(?:Nullable\()?(?:Float64|U?Int\d+|Decimal)/;

/** Best quantities of the sampled books; imbalance: −1 only asks, 1 only bids. */
const DEPTH: Record<string, string> = {
  best_bid_quantity: 'toFloat64(each.best_bid_quantity)',
  best_ask_quantity: 'toFloat64(each.best_ask_quantity)',
  imbalance:
    '(toFloat64(each.best_bid_quantity) - toFloat64(each.best_ask_quantity)) / nullIf(toFloat64(each.best_bid_quantity) + toFloat64(each.best_ask_quantity), 0)',
};

/** What can be asked of a kind, by name: its numeric columns as expressions. */
export function fieldsOf(kind: SeriesKind): Record<string, string> {
  if (kind === 'depth') return DEPTH;
  const numeric = SIGNAL_TABLES[kind].columns.filter(({ type }) => NUMERIC.test(type));
  return Object.fromEntries(numeric.map(({ name }) => [name, `each.${name}`]));
}

/**
 * Within a millisecond trades are ordered by their numbers, where these are numbers: as one number beside the time, since tuples are compared ten
 * times as slowly. The other kinds have nothing that says which came last: any of that millisecond is.
 */
function placeOf(kind: SeriesKind): string {
  if (kind !== 'cvd') return 'each.timestamp';
  return 'bitShiftLeft(toUInt128(toUnixTimestamp64Milli(each.timestamp)), 64) + toUInt64OrZero(each.trade_id)';
}

function statSql(stat: Stat, expression: string, place: string): string {
  // Sums of decimals are exact up to the last step.
  if (stat === 'last') return `toFloat64(argMax(${expression}, ${place}))`;
  return `toFloat64(${stat === 'mean' ? 'avg' : stat}(${expression}))`;
}

/**
 * Of a second that was corrected only the newest revision. Corrections are few: those seconds are looked up, and the others are taken as they
 * are, where sorting all revisions, as `features_now` does, takes many times as long.
 */
function newestRevisions(table: string): string {
  const corrected = `SELECT timestamp, max(revision) FROM ${table} WHERE ${OWN} AND ${WITHIN} AND revision > 0 GROUP BY timestamp`;
  return `((each.timestamp, each.revision) IN (${corrected}) OR each.timestamp NOT IN (SELECT timestamp FROM ${table} WHERE ${OWN} AND ${WITHIN} AND revision > 0))`;
}

/** A field's figures, one per bucket; null: nothing is known of it there. */
const figures = z.array(z.number().nullable()).optional();
export const SERIES_ANSWER = z.object({
  ...{ success: z.literal(true), symbol: z.string(), exchange: z.enum(EXCHANGES), market_type: z.enum(MARKET_TYPES) },
  kind: z.enum(SERIES_KINDS),
  ...{
    from: z.number().describe('Start of the first bucket, ms.'),
    to: z.number().describe('End of the last one, ms.'),
  },
  bucket_ms: z.number(),
  times: z.array(z.number()).describe('Starts of all buckets, ms; the last one may not be over.'),
  rows: z.array(z.number()).describe('That a bucket stands on.'),
  fields: z.record(
    z.string(),
    z.object({ min: figures, max: figures, last: figures.describe('That is known.'), mean: figures, sum: figures }),
  ),
});
export type HarvestSeries = z.infer<typeof SERIES_ANSWER>;
type AskedSeries = z.output<typeof SERIES_QUERY>;

/** @throws WebError 400 naming `fields` or `stats` when one of them is none of the kind */
function checked({ kind, fields, stats }: AskedSeries): { fields: string[]; stats: Stat[] } {
  const known = fieldsOf(kind);
  const unknown = fields.find((name) => !Object.hasOwn(known, name));
  if (unknown !== undefined)
    throw new WebError(400, `${kind} has no figure ${unknown}: it has ${Object.keys(known).join(', ')}`, 'fields');
  if (fields.length > MOST_FIELDS) throw new WebError(400, `takes ${MOST_FIELDS} at most`, 'fields');
  const odd = stats.find((name) => !(STATS as readonly string[]).includes(name));
  if (odd !== undefined) throw new WebError(400, `there is no ${odd}: there are ${STATS.join(', ')}`, 'stats');
  return { fields, stats: stats as Stat[] };
}

/** @throws WebError */
export async function harvestSeries(
  context: WebContext,
  symbol: string,
  asked: AskedSeries,
  gone: AbortSignal,
): Promise<HarvestSeries> {
  const { kind } = asked;
  const { fields, stats } = checked(asked);
  const market = marketOf(symbol, asked);
  const { step, from, to } = gridOf(asked, context.clock());
  const database = MarketDatabase.of(context);
  const source = kind === 'depth' ? database.source(from) : signalsSource(context);
  const table = kind === 'depth' ? source.table('orderbook') : `${context.config.signalsDatabase}.${kind}`;
  const expressions = fieldsOf(kind);
  const columns = fields.flatMap((name) => stats.map((stat) => statSql(stat, expressions[name]!, placeOf(kind))));
  const where = [OWN, WITHIN, ...(kind === 'features' ? [newestRevisions(table)] : [])];
  const query = `SELECT intDiv(toUnixTimestamp64Milli(each.timestamp) - {from:Int64}, {step:Int64}) AS bucket, count(), ${columns.join(', ')}
FROM ${table} AS each WHERE ${where.join(' AND ')} GROUP BY bucket ORDER BY bucket LIMIT ${MOST_POINTS + 2}`;
  const params = { ...market, from, to, step };
  const found = await database.rows<(string | number | null)[]>(source, { query, params, settings: SETTINGS }, gone);
  const count = (to - from) / step;
  const rows = Array<number>(count).fill(0);
  const all = columns.map(() => Array<number | null>(count).fill(null));
  for (const [bucket, n, ...values] of found) {
    rows[Number(bucket)] = Number(n);
    for (const [i, value] of values.entries()) all[i]![Number(bucket)] = value === null ? null : Number(value);
  }
  return {
    ...{ success: true, ...market, kind, from, to, bucket_ms: step },
    times: Array.from({ length: count }, (_, i) => from + i * step),
    rows,
    fields: Object.fromEntries(
      fields.map((name, i) => [name, Object.fromEntries(stats.map((stat, j) => [stat, all[i * stats.length + j]!]))]),
    ),
  };
}

export const MARKS_QUERY = z.strictObject({ ...MARKET_QUERY, ...SPAN_QUERY, points: POINTS });
export const MARKS_ANSWER = z.object({
  ...{ success: z.literal(true), symbol: z.string(), exchange: z.enum(EXCHANGES), market_type: z.enum(MARKET_TYPES) },
  ...{ from: z.number(), to: z.number(), bucket_ms: z.number(), total_count: z.number() },
  marks: z.array(
    z.object({
      ...{ event_type: z.string(), direction: z.string().nullable(), count: z.number() },
      times: z.array(z.number()).describe('Starts of the buckets that have such events, ms.'),
      counts: z.array(z.number()).describe('How many each has.'),
    }),
  ),
});
export type HarvestMarks = z.infer<typeof MARKS_ANSWER>;

/** How many events of each type and direction there are, bucket by bucket. @throws WebError */
export async function harvestMarks(
  context: WebContext,
  symbol: string,
  asked: z.output<typeof MARKS_QUERY>,
  gone: AbortSignal,
): Promise<HarvestMarks> {
  const market = marketOf(symbol, asked);
  const { step, from, to } = gridOf(asked, context.clock());
  const table: `${string}.${SignalKind}` = `${context.config.signalsDatabase}.events`;
  const query = `SELECT event_type, direction, sum(n) AS count, groupArray(bucket), groupArray(n)
FROM (SELECT event_type, direction, intDiv(toUnixTimestamp64Milli(timestamp) - {from:Int64}, {step:Int64}) AS bucket, count() AS n
  FROM ${table} WHERE ${OWN} AND ${WITHIN} GROUP BY event_type, direction, bucket ORDER BY bucket)
GROUP BY event_type, direction ORDER BY count DESC, event_type, direction LIMIT 100`;
  type Found = [string, string | null, string, (string | number)[], (string | number)[]];
  const found = await MarketDatabase.of(context).rows<Found>(
    signalsSource(context),
    { query, params: { ...market, from, to, step }, settings: SETTINGS },
    gone,
  );
  const marks = found.map(([event_type, direction, count, buckets, counts]) => ({
    ...{ event_type, direction, count: Number(count) },
    times: buckets.map((bucket) => from + Number(bucket) * step),
    counts: counts.map(Number),
  }));
  const total_count = marks.reduce((sum, { count }) => sum + count, 0);
  return { ...{ success: true, ...market, from, to, bucket_ms: step, total_count }, marks };
}
