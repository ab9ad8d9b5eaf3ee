/** What is in `marketprism_signals`: correlations, and the harvest of microstructure, whose raw kinds are files. */
import { z } from 'zod';
import { CORRELATION_ALERT, STANDING } from '../correlation/alerts.ts';
import { HARVEST_KINDS, isRaw, type SignalKind } from '../harvest/kinds.ts';
import { rootOf } from '../harvest/letters.ts';
import { EXCHANGES } from '../rows.ts';
import { SIGNAL_TABLES } from '../signal_tables.ts';
import { lookInto, newestOfAll, SCRIPT_STATE, stateOf } from './desk_files.ts';
import { HARVEST_PARAMS } from './harvest_series.ts';
import { newestRows } from './harvest_tail.ts';
import { beijingTime, coin, limit, offset, utcTime } from './parameters.ts';
import { type Asked, type Route, route, type WebContext, WebError } from './route.ts';

/** Rows are few, and whoever waits for them waits no longer. */
const SETTINGS = {
  max_execution_time: 10,
  // ms and counts are far below what a double holds.
  output_format_json_quote_64bit_integers: 0,
} as const;
/** Members that files and tables name differently. */
const RENAMED: Record<string, string> = { timestamp: 'ts_ms', received_at: 'recv_ts_ms' };
/** The view picks one revision of each second, and so looks at all that it is asked for: without a `from` at this much. */
const FEATURES_SPAN_MS = 6 * 3_600_000;

const figure = z.number().nullable();
const SUCCESS = { success: z.literal(true) };
const CORRELATION = z.object({
  ...{
    timestamp: z.number().describe('Start of the last candle that it stands on, ms.'),
    symbol: z.string(),
    coin: z.string(),
  },
  ...{ timeframe: z.string(), period: z.string(), corr: figure, lag: figure, p_value: figure, pairs: figure },
  ...{ points: z.number(), lost: z.number(), reason: z.string().nullable() },
});
/** What the script says of its last whole round; a state of an older version may lack some of it. */
const ROUND = z.object({
  seconds: figure.default(null).describe('How long it took.'),
  compute_seconds: figure.default(null),
  ...{ coins: figure.default(null), rows: figure.default(null), rows_without_corr: figure.default(null) },
  btc_age_seconds: figure.default(null).describe('Of BTC’s newest candle, when it was done.'),
});
const ALERT_STATE = SCRIPT_STATE.extend({
  standing: STANDING.default({}),
  round: ROUND.nullable().default(null).catch(null),
});
export const CORRELATIONS_ANSWER = z.object({
  ...{ ...SUCCESS, total_count: z.number(), count: z.number(), data_time: figure },
  is_known: z.boolean().describe('There is a state file: the script has run here.'),
  ...{ last_run: figure, last_success: figure, error: z.string().nullable(), round: ROUND.nullable() },
  standing: z.array(
    z.object({
      ...{ coin: z.string(), since: z.number(), long: figure, short: figure },
      ...{ spoke: z.array(z.string()), awaits: z.array(z.string()) },
    }),
  ),
  data: z.array(CORRELATION),
});
export type Correlations = z.infer<typeof CORRELATIONS_ANSWER>;
export const CORRELATION_ALERTS_ANSWER = z.object({
  ...{ ...SUCCESS, total_count: z.number(), count: z.number(), data: z.array(CORRELATION_ALERT) },
});
export type CorrelationAlerts = z.infer<typeof CORRELATION_ALERTS_ANSWER>;

async function rowsOf(
  context: WebContext,
  query: string,
  query_params: Record<string, unknown>,
  gone: AbortSignal,
): Promise<Record<string, unknown>[]> {
  const asked = {
    query,
    query_params,
    format: 'JSONEachRow',
    clickhouse_settings: SETTINGS,
    abort_signal: gone,
  } as const;
  return (await context.client.query(asked)).json<Record<string, unknown>>();
}

interface AskedRound {
  symbol?: string | undefined;
  limit: number;
  offset: number;
}

async function correlations(context: WebContext, asked: AskedRound, gone: AbortSignal) {
  const table = `${context.config.signalsDatabase}.${SIGNAL_TABLES.correlations.name}`;
  // A round is known by its candles: of each timeframe the newest one within a day of the newest of all.
  const round = `(timeframe, timestamp) IN (SELECT timeframe, max(timestamp) FROM ${table}
  WHERE timestamp > (SELECT max(timestamp) FROM ${table}) - INTERVAL 1 DAY GROUP BY timeframe)`;
  const rows = await rowsOf(
    context,
    `SELECT toUnixTimestamp64Milli(timestamp) AS time, symbol, timeframe, period, corr, lag, p_value, pairs, points, lost, reason,
  count() OVER () AS total
FROM ${table}
WHERE ${round} AND ({symbol:String} = '' OR startsWith(symbol, concat({symbol:String}, '-')))
ORDER BY symbol, timeframe, period LIMIT {limit:UInt32} OFFSET {offset:UInt32}`,
    { symbol: asked.symbol ?? '', limit: asked.limit, offset: asked.offset },
    gone,
  );
  const state = stateOf(context, 'correlation_alert.json', ALERT_STATE);
  const data = rows.map(({ time, total, ...row }) => ({
    timestamp: time,
    coin: String(row.symbol).split('-')[0],
    ...row,
  }));
  return {
    ...{ success: true, total_count: Number(rows[0]?.total ?? 0), count: data.length },
    data_time: data.length === 0 ? null : Math.max(...data.map(({ timestamp }) => Number(timestamp))),
    ...{ is_known: state !== null, last_run: state?.last_run ?? null, last_success: state?.last_success ?? null },
    ...{ error: state?.error ?? null, round: state?.round ?? null },
    standing: Object.entries(state?.standing ?? {}).map(([name, anomaly]) => ({ coin: name, ...anomaly })),
    data,
  };
}

const HARVEST_QUERY = z.strictObject({
  kind: z.enum(HARVEST_KINDS).default('features'),
  exchange: z.enum(EXCHANGES).default('binance_derivatives'),
  from: utcTime.optional(),
  to: utcTime.optional(),
  limit: limit(500, 10_000),
});
type AskedHarvest = Asked<z.infer<typeof HARVEST_PARAMS>, z.infer<typeof HARVEST_QUERY>>;

async function harvest(context: WebContext, { params: { symbol }, query, gone }: AskedHarvest) {
  const { kind, exchange, from, to } = query;
  if (from !== undefined && to !== undefined && from > to) throw new WebError(400, 'is after to', 'from');
  const found = isRaw(kind)
    ? await newestRows(rootOf(context.config.dataDir, exchange), { kind, symbol, from, to, limit: query.limit }, gone)
    : { rows: await storedRows(context, kind, symbol, query, gone), is_complete: true };
  return {
    success: true,
    symbol,
    exchange,
    kind,
    count: found.rows.length,
    is_complete: found.is_complete,
    data: found.rows,
  };
}

async function storedRows(
  context: WebContext,
  kind: SignalKind,
  symbol: string,
  { exchange, from, to, limit: most }: z.infer<typeof HARVEST_QUERY>,
  gone: AbortSignal,
): Promise<Record<string, unknown>[]> {
  const table = SIGNAL_TABLES[kind];
  const database = context.config.signalsDatabase;
  const columns = table.columns
    .filter(({ name }) => name !== 'created_at')
    .map(({ name, type }) =>
      type.startsWith('DateTime64') ? `toUnixTimestamp64Milli(${name}) AS ${RENAMED[name] ?? `${name}_ms`}` : name,
    );
  const own =
    'exchange = {exchange:String} AND symbol = {symbol:String} AND timestamp <= fromUnixTimestamp64Milli({to:Int64})';
  const begin =
    from === undefined && kind === 'features'
      ? `timestamp > (SELECT max(timestamp) FROM ${database}.features WHERE ${own}) - INTERVAL ${FEATURES_SPAN_MS / 1000} SECOND`
      : 'timestamp >= fromUnixTimestamp64Milli({from:Int64})';
  const rows = await rowsOf(
    context,
    `SELECT ${columns.join(', ')}
FROM ${database}.${kind === 'features' ? 'features_now' : table.name} WHERE ${own} AND ${begin}
ORDER BY exchange DESC, market_type DESC, symbol DESC, timestamp DESC, row_id DESC LIMIT {limit:UInt32}`,
    { exchange, symbol, from: from ?? 0, to: to ?? context.clock() + 86_400_000, limit: most },
    gone,
  );
  return rows.map(({ second_ts_ms, ...row }) => ({
    kind,
    ...row,
    ...(second_ts_ms === undefined ? {} : { second_ts: second_ts_ms }),
  }));
}

export const SIGNAL_ROUTES: Route[] = [
  route({
    ...{
      method: 'GET',
      path: '/api/correlation/latest',
      summary: 'The newest round of correlations against BTC, and the anomalies that stand.',
    },
    query: z.strictObject({ symbol: coin.optional(), limit: limit(5000, 20_000), offset }),
    answer: CORRELATIONS_ANSWER,
    handle: (context, { query, gone }) => correlations(context, query, gone),
  }),
  route({
    ...{ method: 'GET', path: '/api/correlation/alerts', summary: 'Begins and ends of anomalies, the newest first.' },
    query: z.strictObject({
      ...{ event: z.enum(['begin', 'end']).optional(), coin: coin.optional(), limit: limit(100, 5000), offset },
      ...{ from: beijingTime.optional(), to: beijingTime.optional() },
    }),
    answer: CORRELATION_ALERTS_ANSWER,
    async handle(context, { query }) {
      const index = await lookInto(context, 'correlation_alerts');
      const keys = index.keys.filter((key) => {
        const [event, name] = key.split(' ');
        return (query.event ?? event) === event && (query.coin ?? name) === name;
      });
      const { total, places } = newestOfAll(index, keys, query);
      const data = await index.read(places);
      return { success: true, total_count: total, count: data.length, data };
    },
  }),
  route({
    ...{ method: 'GET', path: '/api/harvest/:symbol' },
    summary:
      'Rows of microstructure, the newest first: ofi, cvd, fusion, events and features from the database, prices and orderbook from files.',
    params: HARVEST_PARAMS,
    query: HARVEST_QUERY,
    answer: z.object({
      ...{
        ...SUCCESS,
        symbol: z.string(),
        exchange: z.enum(EXCHANGES),
        kind: z.enum(HARVEST_KINDS),
        count: z.number(),
      },
      is_complete: z.boolean().describe('false: files are long, and only their newest part was looked at.'),
      data: z.array(
        z.looseObject({ kind: z.enum(HARVEST_KINDS), ts_ms: z.number(), recv_ts_ms: z.number(), row_id: z.string() }),
      ),
    }),
    handle: harvest,
  }),
];
