/**
 * The report of a soak run, `DATA/soak/<id>/report.json`: written whole each minute while the run goes on, and a last time at its end. A verdict follows
 * from the criteria and from nothing else, and what was not measured never passes: a report that says otherwise is no report.
 */
import { join } from 'node:path';
import { z } from 'zod';
import { MODES } from '../config.ts';

export const SOAK_VERDICTS = ['passed', 'failed', 'incomplete'] as const;
export type SoakVerdict = (typeof SOAK_VERDICTS)[number];

/** What each process is asked for, once a sample. Resident bytes; percent of one core; counts; ms of event-loop delay at the 99th percentile. */
export const PROCESS_METRICS = ['rss_bytes', 'cpu_percent', 'threads', 'fds', 'loop_delay_ms', 'connections'] as const;
export type ProcessMetric = (typeof PROCESS_METRICS)[number];

/**
 * What the pipeline as a whole is asked for, once a sample. Rows stored and errors since the sample before; from received to queryable, ms; shares
 * of 1 that the cache answered, and how old its newest candle was, ms.
 */
export const FLOW_METRICS = [
  'rows',
  'errors',
  'latency_p50_ms',
  'latency_p99_ms',
  'cache_hit_rate',
  'cache_staleness_ms',
] as const;
export type FlowMetric = (typeof FLOW_METRICS)[number];

const ms = z.number().int().min(0);
const count = z.number().int().min(0);
/** One per time; null: not measured, which is not 0. */
const values = z.array(z.number().nullable());
const text = z.string().min(1).max(500);

export const COMPARISONS = ['<', '<=', '>', '>=', '='] as const;

const CRITERION = z.object({
  /** Such as `rss_growth`. */
  name: z.string().regex(/^[a-z][a-z0-9_]{0,63}$/),
  /** In words. */
  title: text,
  zh: text,
  verdict: z.enum(SOAK_VERDICTS),
  /** The measured value must be so. */
  limit: z.object({ comparison: z.enum(COMPARISONS), value: z.number() }),
  /** Of limit and measured value, such as `%`, `ms`, `MiB/h`. */
  unit: z.string().max(20),
  /** null: it could not be measured (yet). */
  measured: z.number().nullable(),
  /** Samples that it stands on, and those that it should have had by then and has not. */
  samples: count,
  missing: count,
  /** One line: where it was worst, or why it is incomplete. */
  note: text.nullable(),
});
export type SoakCriterion = z.infer<typeof CRITERION>;

const PROCESS = z.object({
  name: text,
  /** Of those that nobody asked for. */
  restarts: count,
  /** Its process ids, each since the sample that saw it first; a process that was started again has another one. */
  pids: z.array(z.object({ pid: count, since: ms })).optional(),
  ...(Object.fromEntries(PROCESS_METRICS.map((name) => [name, values])) as Record<ProcessMetric, typeof values>),
});

/** How resident memory went, as a line through the samples. */
const SLOPE = z.object({
  process: text,
  /** How the line was laid, such as `Theil-Sen`. */
  method: text,
  samples: count,
  /** null: too few samples for one. */
  bytes_per_hour: z.number().nullable(),
  /** Within these the slope is with `confidence`; null: not known. */
  low: z.number().nullable(),
  high: z.number().nullable(),
  confidence: z.number().gt(0).lt(1),
  /** What it is fitted to: a line for each time that the process ran, all of one slope. */
  segments: count.optional(),
  /** How long the longest of them is. */
  longest_ms: ms.optional(),
  /** Median of what is fitted, bytes; slope and interval over the whole run in percent of it. */
  level_bytes: z.number().nullable().optional(),
  growth_percent: z.number().nullable().optional(),
  growth_low: z.number().nullable().optional(),
  growth_high: z.number().nullable().optional(),
  /** Why it does not count for the criterion; null: it does. */
  left_out: text.nullable().optional(),
});
export type SoakSlope = z.infer<typeof SLOPE>;

const CHECKPOINT = z.object({
  at: ms,
  verdict: z.enum(SOAK_VERDICTS),
  /** Rows stored and errors since the beginning. */
  rows: count.nullable(),
  errors: count.nullable(),
  note: text.nullable(),
});

/** Rows of a table that there are, by `count()`; null: it could not be counted. */
const TABLE = z.object({ database: text, table: text, rows: count.nullable() });
export type SoakTable = z.infer<typeof TABLE>;

/** What was sent (null: nobody can know), received (null: not known), stored, declared missing and lost, by exchange and type. */
const LEDGER = z.object({
  balanced: z.boolean(),
  rows: z.array(
    z.object({
      ...{ exchange: text, data_type: text, sent: count.nullable(), received: count.nullable() },
      ...{ hot: count, cold: count, gap: count, lost: count, duplicated: count },
    }),
  ),
});
export type SoakLedger = z.infer<typeof LEDGER>;

/** A stop of all, of which each step must go well: a process that ends, or what is looked at after all have ended. */
const STOP = z.object({
  at: ms,
  /** Of the process, or of what is looked at. */
  what: text,
  ok: z.boolean(),
  /** How long it took; null: it took no time. */
  took_ms: z.number().min(0).nullable(),
  note: text.nullable(),
});
export type SoakStop = z.infer<typeof STOP>;

/** What else went on: the mean of all cores' load, and the machine. */
const MACHINE = z.object({
  ...{ cores: count, memory_bytes: count },
  /** 1-minute load average at the samples. */
  ...{ load_mean: z.number().nullable(), load_max: z.number().nullable() },
});

export const SOAK_REPORT = z
  .object({
    version: z.literal(1),
    /** The name of its folder. */
    id: z.string().regex(/^[\w.-]{1,80}$/),
    /** Of the code that ran. */
    code: text,
    host: text,
    plan: z.object({
      for_ms: ms,
      sample_ms: ms.min(1000),
      checkpoint_ms: ms,
      mode: z.enum(MODES),
      exchanges: z.array(text),
      symbols: z.array(text),
    }),
    /** ms since the epoch. */
    began: ms,
    /** null: it goes on. */
    ended: ms.nullable(),
    duration_ms: ms,
    /** When this was written. */
    written: ms,
    verdict: z.enum(SOAK_VERDICTS),
    /** One line: why it ended early; null: it did not. */
    error: text.nullable(),
    criteria: z.array(CRITERION),
    /** Moments of the samples, ascending. All columns below are as long. */
    times: z.array(ms),
    /** Samples that are due by `written`, and those of them that were not taken. */
    samples_due: count,
    samples_missing: count,
    processes: z.array(PROCESS),
    flow: z.object(Object.fromEntries(FLOW_METRICS.map((name) => [name, values])) as Record<FlowMetric, typeof values>),
    memory: z.array(SLOPE),
    checkpoints: z.array(CHECKPOINT),
    tables: z.array(TABLE).optional(),
    /** null: not drawn yet. */
    ledger: LEDGER.nullable().optional(),
    stops: z.array(STOP).optional(),
    /** Spans in which all was stopped on purpose, ms: figures of these are null, and none is missing for it. */
    pauses: z.array(z.object({ from: ms, to: ms.nullable() })).optional(),
    /** Worth a look, a line each: ends that nobody asked for, tables without a row. */
    problems: z.array(text).optional(),
    machine: MACHINE.optional(),
  })
  .superRefine((report, context) => {
    for (const [path, message] of contradictions(report)) context.addIssue({ code: 'custom', path, message });
  });
export type SoakReport = z.infer<typeof SOAK_REPORT>;
export type SoakProcess = z.infer<typeof PROCESS>;
export type SoakCheckpoint = z.infer<typeof CHECKPOINT>;

/** Whether a measured value is within its limit. */
export function isWithin(measured: number, { comparison, value }: SoakCriterion['limit']): boolean {
  if (comparison === '<') return measured < value;
  if (comparison === '<=') return measured <= value;
  if (comparison === '>') return measured > value;
  if (comparison === '>=') return measured >= value;
  return measured === value;
}

/** What a criterion comes to: beyond its limit is failed, however much is missing; passed needs every sample. */
export function verdictOfCriterion({
  measured,
  limit,
  samples,
  missing,
}: Pick<SoakCriterion, 'measured' | 'limit' | 'samples' | 'missing'>): SoakVerdict {
  if (measured === null || Number.isNaN(measured)) return 'incomplete';
  if (!isWithin(measured, limit)) return 'failed';
  return samples > 0 && missing === 0 ? 'passed' : 'incomplete';
}

type Judged = Pick<SoakReport, 'criteria' | 'ended' | 'error' | 'samples_missing'> & {
  duration_ms: number;
  plan: { for_ms: number };
};

/** What a run comes to. It passes when it ran to its planned end, took every sample, and each of its criteria passed. */
export function verdictOfRun({ criteria, ended, error, samples_missing, duration_ms, plan }: Judged): SoakVerdict {
  if (criteria.some(({ verdict }) => verdict === 'failed')) return 'failed';
  const isWhole = ended !== null && error === null && duration_ms >= plan.for_ms && samples_missing === 0;
  const isProven = criteria.length > 0 && criteria.every(({ verdict }) => verdict === 'passed');
  return isWhole && isProven ? 'passed' : 'incomplete';
}

/** Where a run is kept. @param dataDir the configured one */
export function soakRoot(dataDir: string): string {
  return join(dataDir, 'soak');
}

/** Where a run's report is. @param id the name of its folder */
export function reportPath(dataDir: string, id: string): string {
  return join(soakRoot(dataDir), id, 'report.json');
}

interface Claims extends Judged {
  verdict: SoakVerdict;
  began: number;
  times: number[];
  samples_due: number;
  processes: ({ name: string } & Record<ProcessMetric, (number | null)[]>)[];
  flow: Record<FlowMetric, (number | null)[]>;
}

/** What a report says that cannot be so, by member. */
function* contradictions(report: Claims): Generator<[path: (string | number)[], message: string]> {
  const { times, processes, flow, criteria, began, ended } = report;
  if (times.some((at, i) => i > 0 && at <= times[i - 1]!)) yield [['times'], 'are not ascending'];
  if (ended !== null && ended < began) yield [['ended'], 'is before it began'];
  if (times.length + report.samples_missing < report.samples_due)
    yield [['samples_missing'], `${report.samples_due} were due, ${times.length} are there`];
  const columns: [(string | number)[], (number | null)[]][] = [
    ...processes.flatMap((each, i) =>
      PROCESS_METRICS.map((name): [(string | number)[], (number | null)[]] => [['processes', i, name], each[name]]),
    ),
    ...FLOW_METRICS.map((name): [(string | number)[], (number | null)[]] => [['flow', name], flow[name]]),
  ];
  for (const [path, column] of columns)
    if (column.length !== times.length) yield [path, `has ${column.length} values, of ${times.length} samples`];
  for (const [i, criterion] of criteria.entries()) {
    const verdict = verdictOfCriterion(criterion);
    if (criterion.verdict !== verdict)
      yield [['criteria', i, 'verdict'], `says ${criterion.verdict}: what it measured makes it ${verdict}`];
  }
  const verdict = verdictOfRun(report);
  if (report.verdict !== verdict)
    yield [['verdict'], `says ${report.verdict}: its criteria and samples make it ${verdict}`];
}
