/** What a soak run is held to. Pure: from what was measured to criteria with their verdicts, each of its worst. */
import { meanAndDeviation } from '../harvest/statistics.ts';
import { criterion, type Evidence, type Figures, missingOf, rounded } from './criterion.ts';
import { wrongRows } from './ledger.ts';
import type { Round } from './logs.ts';
import { memoryCriterion } from './memory.ts';
import { isWithin, type SoakCriterion, type SoakTable } from './report.ts';

const PERCENT = 100;
/** Limits of issue 12 and of the soak plan. */
const LIMITS = {
  connections: 10,
  connectionsDeviation: 2,
  secondsPerCoin: 0.5,
  errorPercent: 1,
  hitPercent: 80,
};

function connections(evidence: Evidence): SoakCriterion[] {
  const { history } = evidence;
  const known = history.processes.flatMap((process) => {
    // While everything is stopped and started, connections come and go as they should.
    const values = process.connections.filter((each, i): each is number => each !== null && !history.isPaused[i]);
    return values.length === 0 ? [] : [{ name: process.name, values }];
  });
  const most = worstOf(known.map(({ name, values }) => ({ name, value: Math.max(...values) })));
  const deviation = worstOf(
    known.flatMap(({ name, values }) =>
      values.length < 2 ? [] : [{ name, value: meanAndDeviation(values).deviation }],
    ),
  );
  const figures = (worst: Worst | null): Figures => ({
    ...{ measured: worst?.value ?? null, samples: history.times.length, missing: missingOf(evidence) },
    note: worst === null ? 'too few samples' : `most: ${worst.name}`,
  });
  return [
    criterion(
      'connections',
      ['Connections of a process to ClickHouse and NATS together', '单个进程到 ClickHouse 与 NATS 的连接数'],
      { comparison: '<=', value: LIMITS.connections },
      '',
      figures(most),
    ),
    criterion(
      'connections_stable',
      ['Standard deviation of these connections', '上述连接数的标准差'],
      { comparison: '<', value: LIMITS.connectionsDeviation },
      '',
      figures(deviation),
    ),
  ];
}

interface Worst {
  name: string;
  value: number;
}

function worstOf(all: readonly Worst[]): Worst | null {
  return all.reduce<Worst | null>((most, each) => (most === null || each.value > most.value ? each : most), null);
}

function speed({ history, roundsMissing }: Evidence): SoakCriterion {
  const rounds = history.rounds.filter(({ coins }) => coins > 0);
  const perCoin = rounds.map(({ computeSeconds, coins }) => computeSeconds / coins);
  const whole = rounds.map(({ seconds, coins }) => seconds / coins);
  return criterion(
    'analysis_speed',
    ['Analysis of a coin, in the slowest round', '单币分析耗时（最慢一轮）'],
    { comparison: '<', value: LIMITS.secondsPerCoin },
    's',
    {
      ...{
        measured: perCoin.length === 0 ? null : Math.max(...perCoin),
        samples: rounds.length,
        missing: roundsMissing,
      },
      note:
        rounds.length === 0
          ? 'no round of the alerter is over yet'
          : `reading candles and computing; with waiting for the venue's request limit ${rounded(Math.max(...whole))} s in the slowest of ${rounds.length} rounds${missed(roundsMissing)}`,
    },
  );
}

function missed(rounds: number): string {
  return rounds === 0 ? '' : `; ${rounds} rounds did not come`;
}

function errors(evidence: Evidence): SoakCriterion {
  const { history, analysisErrors } = evidence;
  const coins = history.rounds.reduce((sum, each) => sum + each.coins, 0);
  const { done, failed } = history.queries;
  const failedIntervals = history.processes.reduce((sum, each) => sum + each.failedIntervals, 0);
  const shares = [
    share('samples of a process with an error in its log', failedIntervals, history.intervals),
    share('errors per analysed coin', analysisErrors, coins),
    share('failed of the queries', failed, done + failed),
  ];
  const known = shares.flatMap((each) => (each.value === null ? [] : [{ name: each.text, value: each.value }]));
  const worst = worstOf(known);
  const noisy = [...history.processes].filter((each) => each.errors > 0).map((each) => `${each.name} ${each.errors}`);
  const isKnown = known.length === shares.length;
  const limit = { comparison: '<', value: LIMITS.errorPercent } as const;
  const isTold = worst !== null && (isKnown || !isWithin(worst.value, limit));
  return criterion(
    'errors',
    ['Errors per operation, the worst of three shares', '操作错误率（三项中最差者）'],
    limit,
    '%',
    {
      ...{ measured: isTold ? worst.value : null, samples: history.times.length, missing: evidence.samplesMissing },
      note: `${shares.map(({ text }) => text).join('; ')}${noisy.length === 0 ? '' : `; errors: ${noisy.join(', ')}`}`,
    },
  );
}

function share(what: string, part: number, all: number): { text: string; value: number | null } {
  return { text: `${what}: ${part} of ${all}`, value: all === 0 ? null : (PERCENT * part) / all };
}

/** Older than this, the newest candle is not of this round: s. A candle of five minutes is never younger than its own end. */
export function oldestHit(roundSeconds: number): number {
  return Math.max(roundSeconds, 300);
}

/** What a round's cache hits count: all, or none when what was hit is older than one interval. */
export function countedHits({ hitRate, btcAgeSeconds }: Round, roundSeconds: number): number {
  return hitRate !== null && btcAgeSeconds !== null && btcAgeSeconds < oldestHit(roundSeconds) ? hitRate : 0;
}

function cache({ history, roundSeconds, roundsMissing }: Evidence): SoakCriterion {
  const { rounds } = history;
  const stale = rounds.filter(
    ({ btcAgeSeconds }) => btcAgeSeconds === null || btcAgeSeconds >= oldestHit(roundSeconds),
  );
  const mean = (values: number[]) => values.reduce((sum, each) => sum + each, 0) / values.length;
  const raw = mean(rounds.map(({ hitRate }) => hitRate ?? 0));
  return criterion(
    'cache_hits',
    [
      'Hits of the candle cache whose newest candle of BTC is younger than one interval',
      'K 线缓存命中率（仅计 BTC 最新 K 线不超过一个间隔的命中）',
    ],
    { comparison: '>', value: LIMITS.hitPercent },
    '%',
    {
      measured: rounds.length === 0 ? null : PERCENT * mean(rounds.map((each) => countedHits(each, roundSeconds))),
      ...{ samples: rounds.length, missing: roundsMissing },
      note:
        rounds.length === 0
          ? 'no round of the alerter is over yet'
          : `${rounds.length} rounds, the filling of the empty cache among them; without regard to age ${rounded(PERCENT * raw)} %; ${stale.length} rounds with BTC older than ${oldestHit(roundSeconds)} s${missed(roundsMissing)}`,
    },
  );
}

function stop({ stops, stopsDone }: Evidence): SoakCriterion {
  const bad = stops.filter(({ ok }) => !ok);
  const slowest = worstOf(stops.map(({ what, took_ms }) => ({ name: what, value: took_ms ?? 0 })));
  return criterion(
    'graceful_stop',
    [
      'Processes that stop by themselves, well and within 10 s, and leave nothing',
      '优雅停止成功率（10 秒内自行退出且无残留）',
    ],
    { comparison: '=', value: PERCENT },
    '%',
    {
      measured: stops.length === 0 ? null : (PERCENT * (stops.length - bad.length)) / stops.length,
      ...{ samples: stops.length, missing: Math.max(0, 2 - stopsDone) },
      note:
        bad.length > 0
          ? bad.map(({ what, note }) => `${what}: ${note}`).join('; ')
          : slowest === null
            ? 'all are stopped in the middle of the run, and at its end'
            : `slowest: ${slowest.name} ${slowest.value} ms`,
    },
  );
}

function balance({ ledger }: Evidence): SoakCriterion {
  const wrong = ledger?.rows.filter((row) => wrongRows(row) > 0) ?? [];
  const unknown = ledger?.rows.some(({ received }) => received === null) ?? false;
  const figure = ledger === null ? null : ledger.rows.reduce((sum, row) => sum + wrongRows(row), 0);
  const text = wrong.map((row) => {
    const { exchange, data_type, lost, duplicated, hot, cold } = row;
    return `${exchange} ${data_type}: ${lost} lost, ${duplicated} doubled, hot ${hot}, cold ${cold}`;
  });
  return criterion(
    'ledger',
    ['Rows lost, doubled, or in one store only', '丢失、重复或仅存于一处的行数'],
    { comparison: '=', value: 0 },
    'rows',
    {
      measured: figure,
      ...{ samples: ledger?.rows.length ?? 0, missing: unknown ? 1 : 0 },
      note:
        ledger === null
          ? 'drawn at the end'
          : [...text, ...(unknown ? ['a collector that died has not told what it had accepted'] : [])].join('; ') ||
            null,
    },
  );
}

function tables({ history }: Evidence): SoakCriterion {
  const uncounted = history.tables.filter(({ rows }) => rows === null).map(nameOf);
  const empty = history.tables.filter(({ rows }) => rows === 0).map(nameOf);
  const isKnown = history.tables.length > 0;
  return criterion(
    'tables',
    ['Tables that could not be counted', '无法计数的表'],
    { comparison: '=', value: 0 },
    'tables',
    {
      ...{ measured: isKnown ? uncounted.length : null, samples: history.tablesCounted },
      missing: history.tablesMissing,
      note:
        [
          ...(uncounted.length === 0 ? [] : [`not counted: ${uncounted.join(', ')}`]),
          ...(empty.length === 0 ? [] : [`without a row: ${empty.join(', ')}`]),
        ].join('; ') || null,
    },
  );
}

/** A table with its database. */
export function nameOf({ database, table }: SoakTable): string {
  return `${database}.${table}`;
}

/** All criteria, in the order in which they are shown. */
export function criteriaOf(evidence: Evidence): SoakCriterion[] {
  const { history, samplesMissing, unplannedEnds } = evidence;
  const samples = history.times.length;
  const ended = history.processes
    .filter(({ restarts }) => restarts > 0)
    .map(({ name, restarts }) => `${name} ${restarts}`);
  return [
    memoryCriterion(evidence),
    ...connections(evidence),
    speed(evidence),
    errors(evidence),
    cache(evidence),
    stop(evidence),
    balance(evidence),
    criterion(
      'unplanned_ends',
      ['Ends of processes that nobody asked for', '非计划的进程退出'],
      { comparison: '=', value: 0 },
      '',
      {
        ...{ measured: unplannedEnds, samples, missing: 0, note: ended.join(', ') || null },
      },
    ),
    tables(evidence),
    criterion(
      'samples',
      ['Samples that were taken, of which none may be missing', '已采集的样本（不得缺失）'],
      { comparison: '>=', value: 1 },
      '',
      {
        ...{ measured: samples === 0 ? null : samples, samples, missing: samplesMissing },
        note: samplesMissing === 0 ? null : `${samplesMissing} were not taken`,
      },
    ),
  ];
}
