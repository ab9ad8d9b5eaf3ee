/** How the memory of each process went over a run, and whether it may go so. */
import { criterion, type Evidence, missingOf, signed } from './criterion.ts';
import { type History, memorySegments } from './history.ts';
import { isWithin, type SoakCriterion, type SoakSlope } from './report.ts';
import { CONFIDENCE, TREND_METHOD, trendOf } from './trend.ts';

/** A part of the simulator's work is to remember all that it sent, so that the run can be judged by it. */
const REMEMBERS = 'exchange_sim';
/** Limit of issue 12. */
const MOST_GROWTH_PERCENT = 10;
/** Before so much of the plan is over, memory tells only of the start. */
const EARLY_SHARE = 0.25;
/** In less time a process is still warming up: its growth says nothing of the hours after it. */
const WARM_MS = 1_800_000;
const HOUR_MS = 3_600_000;
const PERCENT = 100;

/** A line for each process. @param elapsedMs what growth is told over: the run so far */
export function slopesOf({ history, elapsedMs }: { history: History; elapsedMs: number }): SoakSlope[] {
  return history.processes.map((process): SoakSlope => {
    const segments = memorySegments(history.times, process);
    const trend = trendOf(segments);
    const perHour = (slope: number | null) => (slope === null ? null : slope * HOUR_MS);
    const growth = (slope: number | null) =>
      slope === null || trend === null ? null : (PERCENT * slope * elapsedMs) / trend.level;
    return {
      ...{ process: process.name, method: TREND_METHOD, confidence: CONFIDENCE, segments: segments.length },
      samples: trend?.samples ?? 0,
      longest_ms: Math.max(0, ...segments.map(({ times }) => (times.at(-1) ?? 0) - (times[0] ?? 0))),
      bytes_per_hour: perHour(trend?.slope ?? null),
      low: perHour(trend?.low ?? null),
      high: perHour(trend?.high ?? null),
      level_bytes: trend?.level ?? null,
      growth_percent: growth(trend?.slope ?? null),
      growth_low: growth(trend?.low ?? null),
      growth_high: growth(trend?.high ?? null),
      left_out: process.name === REMEMBERS ? 'it keeps the ids of all that it sent, to judge the run by' : null,
    };
  });
}

/** The worst process decides. */
export function memoryCriterion(evidence: Evidence): SoakCriterion {
  const { history, elapsedMs, forMs } = evidence;
  const judged = slopesOf(evidence).filter(({ left_out }) => left_out === null);
  const known = judged.filter((each) => each.growth_percent !== null);
  const worst = mostOf(known);
  const isEarly = elapsedMs < EARLY_SHARE * forMs;
  const limit = { comparison: '<', value: MOST_GROWTH_PERCENT } as const;
  const unknown = judged.filter((each) => each.growth_percent === null).map(({ process }) => process);
  // One that grows beyond the limit, by more than noise and for longer than it warms up, fails, however little is known of others. Where noise or
  // warming up may make that much, it is not known to be bad, nor to be good: a longer run tells. To pass, all must be known.
  const beyond = known.filter((each) => !isWithin(each.growth_percent!, limit));
  const failing = mostOf(
    beyond.filter(({ growth_low, longest_ms = 0 }) => growth_low != null && growth_low > 0 && longest_ms >= WARM_MS),
  );
  const isTold = !isEarly && (failing !== null || (known.length > 0 && unknown.length + beyond.length === 0));
  const growth = (failing ?? worst)?.growth_percent ?? null;
  const notes = isEarly
    ? ['too early: processes are still warming up']
    : [
        ...(failing === null ? [] : [`fails: ${rangeOf(failing)}`]),
        ...(worst === null || worst === failing ? [] : [`worst ${rangeOf(worst)}`]),
        ...noiseOf(known, beyond, failing),
        ...(unknown.length === 0 ? [] : [`too few samples of ${unknown.join(', ')}`]),
      ];
  return criterion(
    'rss_growth',
    [
      'Resident memory grows over the run, by the slope of its worst process',
      '运行期间常驻内存增长（取最差进程的斜率）',
    ],
    limit,
    '%',
    {
      ...{ measured: isTold ? growth : null, samples: history.times.length, missing: missingOf(evidence) },
      note: notes.join('; ') || null,
    },
  );
}

function rangeOf({ process, growth_percent, growth_low, growth_high }: SoakSlope): string {
  const range =
    growth_low == null || growth_high == null ? 'of unknown width' : `${signed(growth_low)} to ${signed(growth_high)}`;
  return `${process} ${signed(growth_percent!)} %, with 95 % ${range}`;
}

function mostOf(slopes: readonly SoakSlope[]): SoakSlope | null {
  return slopes.reduce<SoakSlope | null>(
    (most, each) => (most === null || each.growth_percent! > most.growth_percent! ? each : most),
    null,
  );
}

/** What the intervals leave open. */
function noiseOf(known: readonly SoakSlope[], beyond: readonly SoakSlope[], failing: SoakSlope | null): string[] {
  if (failing !== null) return [];
  const names = (slopes: readonly SoakSlope[]) => slopes.map(({ process }) => process).join(', ');
  if (beyond.length > 0) return [`not told from noise, nor from warming up: ${names(beyond)}; a longer run tells`];
  const open = known.filter(({ growth_high }) => growth_high == null || growth_high >= MOST_GROWTH_PERCENT);
  return open.length === 0 ? [] : [`holds within noise only: of ${names(open)} the interval reaches beyond it`];
}
