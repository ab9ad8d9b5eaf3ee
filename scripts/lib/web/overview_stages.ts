/** What a look found, put together as `/api/overview` tells it. Pure but for the state files of the desk's scripts, which it reads. */
import { DATA_TYPES, TABLES } from '../rows.ts';
import type { Check, CheckStatus } from '../service.ts';
import type { ExchangeFigures, OverviewAnswer, Stage, StageName } from './overview_answer.ts';
import type { Found, SourceRates, TierAsked } from './overview_look.ts';
import type { Rates } from './overview_rates.ts';
import {
  type Asked,
  acceptedOf,
  exchangesOf,
  outboxOf,
  reasonOf,
  replicatedOf,
  type ServiceDocument,
  tablesOf,
} from './overview_services.ts';
import type { WebContext } from './route.ts';
import { deskChecks } from './service_health.ts';

const MINUTE_MS = 60_000;
const RANK: readonly CheckStatus[] = ['healthy', 'degraded', 'unhealthy'];

export function composed(context: WebContext, found: Found, rates: SourceRates): OverviewAnswer {
  const { time, broker, hot, cold } = found;
  const measured = [rates.collector, rates.broker, rates.store].flatMap((each) => each.measuredMs ?? []);
  const streams = 'fault' in broker ? null : broker.figures.streams;
  const unread = streams === null || streams.some((each) => each.unread === null) ? null : streams;
  return {
    ...{ time, measured_ms: measured.length === 0 ? null : Math.round(Math.max(...measured)) },
    stages: [...pipelineStages(found, rates), ...readerStages(context, found)],
    exchanges: exchangeFigures(context, found, rates),
    broker: {
      streams:
        streams?.map(({ last_seq: _seq, created: _created, ...each }) => ({
          ...each,
          rate: rounded(rates.broker.rate(each.name)),
        })) ?? null,
      unread: unread?.reduce((sum, each) => sum + (each.unread ?? 0), 0) ?? null,
    },
    tiers: { hot: figuresOf(hot), cold: figuresOf(cold) },
    tables: tableFigures(found, rates),
    outbox: outboxFigures(found),
    ...{ deadletters: found.letters, disk: found.disk },
  };
}

function pipelineStages(found: Found, rates: SourceRates): Stage[] {
  const { collector, store, replicate, broker, hot, cold, time } = found;
  const lag = (ages: (number | null)[]) => {
    const known = ages.filter((each) => each !== null);
    return known.length === 0 ? null : Math.max(...known);
  };
  const oldest = outboxFigures(found).oldest_ms;
  const held = 'fault' in store ? [] : [...tablesOf(store.document).values()];
  const holding = held.map(({ holding: messages, holdingSince }) =>
    messages > 0 && holdingSince > 0 ? Math.max(time - holdingSince, 0) : 0,
  );
  const replicated = 'fault' in replicate ? [] : [...replicatedOf(replicate.document).values()];
  // One table's that is not known might be the worst.
  const behind = replicated.some(({ lag_minutes: each }) => each === null)
    ? null
    : lag(replicated.map(({ lag_minutes: each }) => each! * MINUTE_MS));
  // Of no counter at all nothing is known, which is not 0.
  const sumOf = (counters: Rates) => (counters.names.length === 0 ? null : counters.sum(counters.names));
  const [stored, copied] = [sumOf(rates.store), sumOf(rates.replicate)];
  return [
    serviceStage(
      'collector',
      collector,
      rates.collector.sum(rates.collector.names),
      'fault' in collector || outboxOf(collector.document) === null ? null : (oldest ?? 0),
    ),
    brokerStage(broker, rates),
    serviceStage('store', store, stored, lag(holding)),
    tierStage('hot', hot, stored),
    serviceStage('replicate', replicate, copied, behind === null ? null : Math.round(behind)),
    tierStage('cold', cold, copied),
  ];
}

function serviceStage(
  name: StageName,
  asked: Asked<ServiceDocument>,
  rate: number | null,
  lag_ms: number | null,
): Stage {
  if ('fault' in asked) return { name, status: 'away', reason: asked.fault, rate: null, lag_ms: null };
  const { document } = asked;
  return { name, status: document.status, reason: reasonOf(document), rate: rounded(rate), lag_ms };
}

function brokerStage(broker: Found['broker'], rates: SourceRates): Stage {
  if ('fault' in broker) return { name: 'nats', status: 'away', reason: broker.fault, rate: null, lag_ms: null };
  const { streams, missing } = broker.figures;
  const ownerless = streams.filter(({ unread }) => unread === null).map(({ name }) => name);
  const faults = [
    ...(missing.length === 0 ? [] : [`streams that are not there: ${missing.join(', ')}`]),
    ...(ownerless.length === 0
      ? []
      : [`nobody stores all of ${ownerless.join(', ')}: durables of the store are absent`]),
  ];
  return {
    ...{ name: 'nats', status: faults.length === 0 ? 'healthy' : 'unhealthy', reason: faults.join('; ') || null },
    ...{ rate: rounded(rates.broker.sum(rates.broker.names)), lag_ms: null },
  };
}

function tierStage(name: 'hot' | 'cold', asked: TierAsked, rate: number | null): Stage {
  const isAway = 'fault' in asked;
  return {
    ...{ name, status: isAway ? 'away' : 'healthy', reason: isAway ? asked.fault : null },
    ...{ rate: isAway ? null : rounded(rate), lag_ms: null },
  };
}

/** What reads beside the pipeline: a service, and scripts that are known by the state files that they write. */
function readerStages(context: WebContext, { monitor }: Found): Stage[] {
  const checks = Object.entries(deskChecks(context));
  const [harvest, rest] = split(checks, ([name]) => name.startsWith('ofi_cvd_harvester'));
  const [correlation, desk] = split(rest, ([name]) => name === 'correlation_alert');
  return [
    serviceStage('monitor', monitor, null, null),
    scriptsStage('harvester', harvest),
    scriptsStage('desk', desk),
    scriptsStage('correlation', correlation),
  ];
}

function scriptsStage(name: StageName, checks: [string, Check][]): Stage {
  const worst = checks.reduce((rank, [, { status }]) => Math.max(rank, RANK.indexOf(status)), 0);
  const faults = checks.filter(([, { error_message }]) => error_message !== null);
  // Several series of one script say the same.
  const told = new Set(faults.map(([, { error_message }]) => error_message));
  const ages = checks.flatMap(
    ([, { details }]) => (details as { data_age?: number | null } | undefined)?.data_age ?? [],
  );
  return {
    ...{ name, status: RANK[worst]!, reason: [...told].join('; ') || null, rate: null },
    lag_ms: ages.length === 0 ? null : Math.max(...ages) * 1000,
  };
}

function exchangeFigures({ config }: WebContext, { collector, time }: Found, rates: SourceRates): ExchangeFigures[] {
  const nothing = {
    ...{ status: null, reason: null, rate: null, rows: null, last_row: null, last_row_age_ms: null },
    ...{ sockets: null, connected: null, reconnects: null, resyncs: null, rejected: null, failed_requests: null },
  };
  if ('fault' in collector) return config.exchanges.map((exchange) => ({ exchange, ...nothing }));
  const { document } = collector;
  const known = exchangesOf(document);
  return [...new Set([...config.exchanges, ...known.keys()])].map((exchange) => {
    const figures = known.get(exchange);
    if (figures === undefined) return { exchange, ...nothing, reason: 'the collector that runs does not follow it' };
    const accepted = acceptedOf(document).filter((each) => each.exchange === exchange);
    const times = accepted.flatMap(({ last }) => last ?? []);
    const last = times.length === 0 ? null : Math.max(...times);
    return {
      ...{ exchange, ...figures },
      rate: rounded(rates.collector.sum(accepted.map(({ data_type }) => `${exchange} ${data_type}`))),
      rows: accepted.reduce((sum, each) => sum + each.rows, 0),
      ...{ last_row: last, last_row_age_ms: last === null ? null : Math.max(time - last, 0) },
    };
  });
}

function tableFigures({ store, replicate }: Found, rates: SourceRates): OverviewAnswer['tables'] {
  if ('fault' in store) return [];
  const lags = 'fault' in replicate ? null : replicatedOf(replicate.document);
  const tables = tablesOf(store.document);
  return DATA_TYPES.flatMap((type) => {
    const own = tables.get(type);
    if (own === undefined) return [];
    const lag = lags?.get(TABLES[type].name)?.lag_minutes ?? null;
    return [
      {
        ...{
          data_type: type,
          stored_rate: rounded(rates.store.rate(type)),
          backlog: own.backlog,
          holding: own.holding,
        },
        lag_ms: lag === null ? null : Math.round(lag * MINUTE_MS),
      },
    ];
  });
}

function outboxFigures({ collector, time, outboxFileBytes: file_bytes }: Found): OverviewAnswer['outbox'] {
  const outbox = 'fault' in collector ? null : outboxOf(collector.document);
  if (outbox === null) {
    const unknown = { waiting_bytes: null, spilled_bytes: null, oldest_ms: null, minutes_left: null };
    return { ...unknown, diverted: null, paused: null, file_bytes };
  }
  const { streams, paused } = outbox;
  const sum = (member: 'unacknowledgedBytes' | 'spilledBytes') =>
    streams.reduce((total, each) => total + each[member], 0);
  const since = streams.flatMap(({ oldestUnacknowledgedAt: at }) => at ?? []);
  const left = streams.flatMap(({ minutes_left }) => minutes_left ?? []);
  return {
    ...{ waiting_bytes: sum('unacknowledgedBytes'), spilled_bytes: sum('spilledBytes') },
    oldest_ms: since.length === 0 ? null : Math.max(time - Math.min(...since), 0),
    minutes_left: left.length === 0 ? null : Math.min(...left),
    ...{ diverted: streams.some(({ diverted }) => diverted), paused, file_bytes },
  };
}

function figuresOf(asked: TierAsked): { rows: number; bytes: number } | null {
  return 'fault' in asked ? null : asked.figures;
}

/** Beyond a hundredth of a row a second there is nothing to tell. */
function rounded(rate: number | null): number | null {
  return rate === null ? null : Math.round(rate * 100) / 100;
}

function split<T>(all: readonly T[], is: (each: T) => boolean): [T[], T[]] {
  return [all.filter(is), all.filter((each) => !is(each))];
}
