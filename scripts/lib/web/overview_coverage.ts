/**
 * `/api/coverage`: how old the newest row of each exchange and type is, and whether that is too old. What is asked for, and how often a type comes,
 * is what the exchanges' modules say; what counts as late is the collector's rule, and what as silent that of the monitor's checks.
 */
import { z } from 'zod';
import { EXCHANGE_MODULES } from '../../exchanges/index.ts';
import { instrumentsOf } from '../asked_instruments.ts';
import { type Limits, readLimits } from '../checks/limits.ts';
import { OperatorError } from '../cli.ts';
import type { Config } from '../config.ts';
import { AGE_LIMITS } from '../coverage.ts';
import { createLogger } from '../log.ts';
import { DATA_TYPES, type DataType, EXCHANGES, type Exchange, type MarketType } from '../rows.ts';
import { HotStreams, type StreamNewest } from './overview_streams.ts';
import { type WebContext, WebError } from './route.ts';

const SECOND_MS = 1000;
const MINUTE_MS = 60 * SECOND_MS;
const HOUR_MS = 60 * MINUTE_MS;
/** Samples of books come so seldom as they are asked for: two may be missed. */
const BOOK_INTERVALS = 3;
/** Of what comes in steps: half a step for its way, and one that is still due. As `SilenceWatch` waits 150 s for what comes each minute. */
const STEPS_LATE = 2.5;

const CONTINUOUS: readonly DataType[] = ['trade', 'orderbook', 'orderbook_update'];
/** Gaps are no data of a market. */
export const COVERED_TYPES = DATA_TYPES.filter((type) => type !== 'gap');

const STATES = ['good', 'late', 'silent', 'never', 'event'] as const;
const CADENCES = ['continuous', 'steps', 'events'] as const;
const ms = z.number();

const CELL = z.object({
  exchange: z.string(),
  data_type: z.string(),
  state: z
    .enum(STATES)
    .describe(
      'good; late: a stream has no fresh row, or some are silent; silent: all are; never: asked for, and no row of it is in hot; event: comes when it comes, no age is too old.',
    ),
  is_asked: z.boolean().describe('The configuration asks for it.'),
  newest: ms.nullable().describe('Event time of the newest row in hot; null: none.'),
  age_ms: ms.nullable().describe('Since then; below zero where the venue’s clock is ahead.'),
  cadence: z.enum(CADENCES),
  every_ms: ms.nullable().describe('Of steps and samples.'),
  late_after_ms: ms.nullable(),
  silent_after_ms: ms.nullable(),
  streams: z
    .number()
    .int()
    .describe('Symbols with a row in the last 24 h; where there is none, those with any row in hot.'),
  late_streams: z.number().int(),
  silent_streams: z.number().int(),
  oldest: z
    .object({ market_type: z.string(), symbol: z.string(), newest: ms, age_ms: ms })
    .nullable()
    .describe('The stream whose newest row is the oldest.'),
});
export type CoverageCell = z.infer<typeof CELL>;

export const COVERAGE_ANSWER = z.object({
  time: ms.describe('The clock of the service.'),
  exchanges: z.array(z.string()),
  data_types: z.array(z.string()),
  cells: z.array(CELL).describe('What an exchange does not have has no cell.'),
});
export type CoverageAnswer = z.infer<typeof COVERAGE_ANSWER>;

/** How often rows of a type come; limits in ms, null: no age is too old. */
export interface Cadence {
  kind: (typeof CADENCES)[number];
  everyMs: number | null;
  lateMs: number | null;
  silentMs: number | null;
}

const EVENTS: Cadence = { kind: 'events', everyMs: null, lateMs: null, silentMs: null };

/** @param market of the stream: what an exchange tells of one market by the clock it may tell of another one seldom */
export function cadenceOf(
  exchange: Exchange,
  type: DataType,
  market: MarketType,
  limits: Limits,
  orderbookIntervalMs: number,
): Cadence {
  if (CONTINUOUS.includes(type)) {
    const everyMs = type === 'orderbook' && orderbookIntervalMs > 0 ? orderbookIntervalMs : null;
    const lateMs = Math.max(AGE_LIMITS[type]! * SECOND_MS, BOOK_INTERVALS * (everyMs ?? 0));
    return { kind: 'continuous', everyMs, lateMs, silentMs: Math.max(limits.freshness_minutes * MINUTE_MS, lateMs) };
  }
  const series = EXCHANGE_MODULES[exchange]?.readings?.find(
    ({ type: own, marketTypes }) => own === type && (marketTypes === undefined || marketTypes.includes(market)),
  );
  if (series === undefined) return EVENTS;
  const { stepMs, quietSteps } = series;
  const lateMs = (quietSteps + STEPS_LATE) * stepMs;
  return { kind: 'steps', everyMs: stepMs, lateMs, silentMs: Math.max(limits.low_frequency_hours * HOUR_MS, lateMs) };
}

const asked = new WeakMap<Config, Map<Exchange, Map<DataType, MarketType[]>>>();
/** The collector says once which other quote it takes; here nobody needs to hear it. */
const SILENT = createLogger('web', 'silent');

/** What the configuration asks of each exchange, and on which markets. */
export function askedTypes(config: Config): Map<Exchange, Map<DataType, MarketType[]>> {
  const known = asked.get(config);
  if (known !== undefined) return known;
  const out = new Map<Exchange, Map<DataType, MarketType[]>>();
  for (const exchange of config.exchanges) {
    const module = EXCHANGE_MODULES[exchange];
    if (module === undefined) continue;
    const types = new Map<DataType, MarketType[]>();
    const add = (type: DataType, market: MarketType) => {
      const markets = types.get(type) ?? [];
      if (!markets.includes(market)) types.set(type, [...markets, market]);
    };
    const instruments = instrumentsOf(module, config, SILENT);
    for (const { channels } of module.connections(instruments))
      for (const channel of channels) for (const type of channel.types) add(type, channel.instrument.market_type);
    for (const { type, instrument } of module.polls?.(instruments) ?? [])
      if (instrument !== null) add(type, instrument.market_type);
    out.set(exchange, types);
  }
  asked.set(config, out);
  return out;
}

/** @throws WebError where the operator's own limits cannot be read */
function limitsOf({ config }: WebContext): Limits {
  try {
    return readLimits(config.dataDir);
  } catch (error) {
    if (!(error instanceof OperatorError) && !(error instanceof SyntaxError)) throw error;
    throw new WebError(500, 'state/thresholds.json is damaged: mend or remove it');
  }
}

export async function answerCoverage(context: WebContext, gone: AbortSignal): Promise<CoverageAnswer> {
  const { config, clock } = context;
  const limits = limitsOf(context);
  const wanted = askedTypes(config);
  const streams = await HotStreams.of(context).look(wanted, gone);
  const now = clock();
  const cells: CoverageCell[] = [];
  for (const exchange of EXCHANGES) {
    for (const type of COVERED_TYPES) {
      const own = streams.filter((each) => each.exchange === exchange && each.type === type);
      const markets = wanted.get(exchange)?.get(type);
      if (own.length === 0 && markets === undefined) continue;
      const cadence = (market: MarketType) => cadenceOf(exchange, type, market, limits, config.orderbookIntervalMs);
      cells.push(cellOf({ exchange, type, now, streams: own, markets: markets ?? null, cadence }));
    }
  }
  const seen = new Set(cells.map(({ exchange }) => exchange));
  return {
    time: now,
    exchanges: EXCHANGES.filter((each) => seen.has(each)),
    data_types: [...COVERED_TYPES],
    cells,
  };
}

interface CellOf {
  exchange: Exchange;
  type: DataType;
  now: number;
  streams: readonly StreamNewest[];
  /** On which it is asked for; null: it is not. */
  markets: readonly MarketType[] | null;
  cadence(market: MarketType): Cadence;
}

/** One exchange and type. What some of its streams have no cadence for is judged by those that have one. */
export function cellOf({ exchange, type, now, streams, markets, cadence }: CellOf): CoverageCell {
  const judged = streams.map((stream) => ({
    ...stream,
    age: now - stream.newest,
    cadence: cadence(stream.market_type),
  }));
  const beyond = (limit: 'lateMs' | 'silentMs') =>
    judged.filter(({ age, cadence: own }) => own[limit] !== null && age > own[limit]).length;
  const [late, silent] = [beyond('lateMs'), beyond('silentMs')];
  const paced = judged.filter(({ cadence: own }) => own.lateMs !== null);
  const cadences = [...judged.map((each) => each.cadence), ...(markets ?? []).map(cadence)];
  const shown = cadences.find(({ lateMs }) => lateMs !== null) ?? EVENTS;
  const newest = judged.length === 0 ? null : Math.max(...judged.map((each) => each.newest));
  const oldest = (paced.length > 0 ? paced : judged).reduce<(typeof judged)[number] | null>(
    (worst, each) => (worst === null || each.newest < worst.newest ? each : worst),
    null,
  );
  const state = (): CoverageCell['state'] => {
    if (shown.lateMs === null) return 'event';
    if (judged.length === 0) return 'never';
    if (paced.length > 0 && silent === paced.length) return 'silent';
    return late > 0 ? 'late' : 'good';
  };
  return {
    ...{ exchange, data_type: type, state: state(), is_asked: markets !== null },
    ...{ newest, age_ms: newest === null ? null : now - newest },
    ...{ cadence: shown.kind, every_ms: shown.everyMs, late_after_ms: shown.lateMs, silent_after_ms: shown.silentMs },
    ...{ streams: judged.length, late_streams: late, silent_streams: silent },
    oldest:
      oldest === null
        ? null
        : { market_type: oldest.market_type, symbol: oldest.symbol, newest: oldest.newest, age_ms: oldest.age },
  };
}
