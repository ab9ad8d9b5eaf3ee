/** Rounds of checks and soak reports of any length, of exactly the shape in which monitor.ts and soak.ts keep them. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import type { Coverage } from '../scripts/lib/checks/coverage.ts';
import { CHECKS } from '../scripts/lib/checks/index.ts';
import { LIMITS } from '../scripts/lib/checks/limits.ts';
import type { Depth } from '../scripts/lib/checks/round.ts';
import { SPANS } from '../scripts/lib/checks/round.ts';
import type { ShownRound } from '../scripts/lib/monitor.ts';
import { DATA_TYPES, EXCHANGES } from '../scripts/lib/rows.ts';
import {
  FLOW_METRICS,
  PROCESS_METRICS,
  reportPath,
  type SoakCriterion,
  type SoakReport,
  verdictOfCriterion,
  verdictOfRun,
} from '../scripts/lib/soak/report.ts';

const MINUTE = 60_000;
const QUARTER = 15 * MINUTE;

/** @param percent of all rows @param found findings of `continuity` */
function keptRound(at: number, type: Depth, n: number, percent: number, found = 0): ShownRound {
  const limits = LIMITS.parse({});
  const coverage = EXCHANGES.flatMap((exchange) =>
    DATA_TYPES.filter((each) => each !== 'gap').map(
      (data_type): Coverage => ({
        ...{ exchange, market_type: exchange.endsWith('spot') ? 'spot' : 'perpetual', data_type },
        ...{ hot: 1000 + n, cold: 900 + n, missing: 0, uncounted: 0, completeness: 100, newest: at - 1000 },
      }),
    ),
  );
  const findings = Array.from({ length: found }, (_, i) => ({
    kind: 'undeclared' as const,
    subject: `trade okx_spot spot ${i % 2 === 0 ? 'BTC' : 'ETH'}-USDT`,
    what: `${20 + i} rows from 8371982066 to 8371982085 are missing, and nobody said so`,
    severity: i === 0 ? ('high' as const) : ('low' as const),
    evidence: 'SELECT 1',
  }));
  const checks = CHECKS.map(({ name, question, fix, repairs, limit }) => ({
    ...{ name, question, fix, ...(repairs === undefined ? {} : { repairs }), limit: limit(limits) },
    verdict: name === 'continuity' && found > 0 ? 'unhealthy' : 'healthy',
    figure: `${1000 + n} rows`,
    findings: name === 'continuity' ? findings : [],
    ms: 400,
  }));
  return {
    ...{ id: `${at}-${n}`, type, asked_by: 'schedule', began: new Date(at).toISOString(), ms: 7200 },
    ...{ status: found > 0 ? 'unhealthy' : 'healthy', exit_code: found > 0 ? 2 : 0 },
    ...{ from: new Date(at - SPANS[type]).toISOString(), to: new Date(at).toISOString(), coverage },
    ...{ completeness: percent, checks, news: [] },
  };
}

/**
 * A round each quarter of an hour, as the schedule has them.
 * @param foundOf findings of the round with this number
 * @returns what is in the files, the oldest first
 */
export function keptRounds(
  begin: number,
  end: number,
  percentOf: (n: number) => number,
  foundOf = (n: number) => (percentOf(n) < 100 ? 2 : 0),
): ShownRound[] {
  const rounds: ShownRound[] = [];
  for (let at = Math.ceil(begin / QUARTER) * QUARTER; at < end; at += QUARTER) {
    const n = rounds.length;
    const [hour, minute] = [new Date(at).getUTCHours(), new Date(at).getUTCMinutes()];
    const type = minute !== 0 ? 'quick' : hour === 18 ? 'deep' : 'full';
    rounds.push(keptRound(at, type, n, percentOf(n), foundOf(n)));
  }
  return rounds;
}

/** In a file a day. */
export function writeRounds(dataDir: string, rounds: readonly ShownRound[]): void {
  const byDay = new Map<string, string>();
  for (const each of rounds) {
    const day = each.began.slice(0, 10).replaceAll('-', '');
    byDay.set(day, `${byDay.get(day) ?? ''}${JSON.stringify(each)}\n`);
  }
  for (const [day, text] of byDay) {
    const path = join(dataDir, 'monitoring_results', `monitoring_${day}.jsonl`);
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, text);
  }
}

interface SoakOptions {
  id: string;
  began: number;
  /** Of the plan, and of what is done of it. */
  minutes: number;
  done?: number;
  /** Samples that were not taken. */
  missing?: number;
  /** MiB per hour that the store's memory grows. */
  leak?: number;
}

const PROCESSES = ['collector', 'store', 'replicate', 'monitor', 'web', 'clickhouse_embedded', 'correlation_alert'];
/** Where the highest memory of the collector is. */
export const PEAK_AT = 0.61;
export const PEAK_BYTES = 777 * 2 ** 20;

/** A run: whole, going on, with gaps, or with a leak. */
export function soakReport({ id, began, minutes, done = minutes, missing = 0, leak = 0 }: SoakOptions): SoakReport {
  const due = done;
  const times = Array.from({ length: due - missing }, (_, i) => began + (i + 1 + (i > due / 2 ? missing : 0)) * MINUTE);
  const wave = (i: number, n: number) => Math.sin(i / (17 + n)) + Math.sin(i / 3 + n) / 4;
  const column = (of: (i: number) => number | null) => times.map((_, i) => of(i));
  const peak = Math.floor(times.length * PEAK_AT);
  const processes = PROCESSES.map((name, n) => {
    const grown = name === 'store' ? leak / 60 : 0;
    const of: Record<(typeof PROCESS_METRICS)[number], (i: number) => number | null> = {
      rss_bytes: (i) =>
        n === 0 && i === peak ? PEAK_BYTES : Math.round((110 + 30 * n + 6 * wave(i, n) + grown * i) * 2 ** 20),
      cpu_percent: (i) => Math.round((8 + 3 * n + 4 * wave(i, n)) * 10) / 10,
      threads: () => 11 + n,
      fds: (i) => 30 + n + (i % 7),
      // The engine is no Node process.
      loop_delay_ms: (i) => (name === 'clickhouse_embedded' ? null : Math.round((12 + 5 * wave(i, n)) * 10) / 10),
      connections: () => 3 + (n % 4),
    };
    const columns = Object.fromEntries(PROCESS_METRICS.map((metric) => [metric, column(of[metric])]));
    return { name, restarts: 0, ...columns } as SoakReport['processes'][number];
  });
  const flowOf: Record<(typeof FLOW_METRICS)[number], (i: number) => number> = {
    rows: (i) => 120_000 + Math.round(9000 * wave(i, 1)),
    errors: () => 0,
    latency_p50_ms: (i) => Math.round(140 + 30 * wave(i, 2)),
    latency_p99_ms: (i) => Math.round(480 + 90 * wave(i, 3)),
    cache_hit_rate: (i) => Math.round((0.93 + 0.03 * wave(i, 4)) * 1000) / 1000,
    cache_staleness_ms: (i) => 60_000 + (i % 5) * 60_000,
  };
  const flow = Object.fromEntries(FLOW_METRICS.map((name) => [name, column(flowOf[name])])) as SoakReport['flow'];
  const criterion = (
    name: string,
    words: [string, string],
    limit: SoakCriterion['limit'],
    unit: string,
    measured: number | null,
  ): SoakCriterion => {
    const own = { limit, measured, samples: measured === null ? 0 : times.length, missing };
    const note = measured === null ? 'not reached yet' : null;
    return { name, title: words[0], zh: words[1], unit, note, ...own, verdict: verdictOfCriterion(own) };
  };
  const isOver = done >= minutes;
  const criteria = [
    criterion(
      'rss_growth',
      ['Resident memory grows', '常驻内存增长'],
      { comparison: '<', value: 10 },
      '%',
      leak * 2 + 1.2,
    ),
    criterion('connections', ['Connections to the database', '数据库连接数'], { comparison: '<=', value: 10 }, '', 6),
    criterion('coin_time', ['Time per coin', '单币耗时'], { comparison: '<', value: 500 }, 'ms', 212.5),
    criterion('error_rate', ['Errors of requests', '请求错误率'], { comparison: '<', value: 1 }, '%', 0),
    criterion('cache_hits', ['Cache hits', '缓存命中率'], { comparison: '>', value: 80 }, '%', 93.1),
    criterion('stop_time', ['Stops within', '停止耗时'], { comparison: '<=', value: 60 }, 's', isOver ? 3.4 : null),
  ];
  const base = {
    ...{ version: 1 as const, id, code: '0.1.0', host: 'desk', began, duration_ms: done * MINUTE },
    ...{ ended: isOver ? began + done * MINUTE : null, written: began + done * MINUTE, error: null, criteria, times },
    plan: {
      ...{ for_ms: minutes * MINUTE, sample_ms: MINUTE, checkpoint_ms: 240 * MINUTE, mode: 'demo' as const },
      ...{ exchanges: ['binance_spot', 'okx_spot'], symbols: ['BTC-USDT', 'ETH-USDT'] },
    },
    ...{ samples_due: due, samples_missing: missing, processes, flow },
    memory: PROCESSES.map((process, n) => {
      const slope = ((process === 'store' ? leak : 0) + (n % 3) * 0.04 - 0.05) * 2 ** 20;
      const [low, high] = [slope - 0.4 * 2 ** 20, slope + 0.4 * 2 ** 20];
      const bounds = { bytes_per_hour: slope, low, high, confidence: 0.95 };
      return { process, method: 'Theil-Sen', samples: times.length, ...bounds };
    }),
    checkpoints: Array.from({ length: Math.floor(done / 240) }, (_, i) => ({
      ...{ at: began + (i + 1) * 240 * MINUTE, verdict: 'passed' as const, rows: (i + 1) * 28_800_000, errors: 0 },
      note: null,
    })),
  };
  return { ...base, verdict: verdictOfRun(base) };
}

export function writeSoak(dataDir: string, report: SoakReport): void {
  const path = reportPath(dataDir, report.id);
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, `${JSON.stringify(report)}\n`);
}
