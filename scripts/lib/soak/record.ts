/** The report of a run as it is now, from what is known: `report.json` at each sample, with the text and the plots beside it now and then. */
import { mkdirSync, renameSync, writeFileSync } from 'node:fs';
import { cpus, hostname, totalmem } from 'node:os';
import { join } from 'node:path';
import type { Mode } from '../config.ts';
import { writeJsonAtomic } from '../files.ts';
import { criteriaOf, nameOf } from './criteria.ts';
import type { Evidence } from './criterion.ts';
import { type History, spreadOf } from './history.ts';
import { markdownOf } from './markdown.ts';
import { slopesOf } from './memory.ts';
import { plotsOf } from './plots.ts';
import { PROCESS_METRICS, type SoakCheckpoint, type SoakReport, verdictOfRun } from './report.ts';

/** The most frequent of them. */
const MOST_PROBLEMS = 20;
const LINE_CHARACTERS = 490;

export interface RunPlan {
  id: string;
  code: string;
  mode: Mode;
  forMs: number;
  sampleMs: number;
  checkpointMs: number;
  exchanges: string[];
  symbols: string[];
}

/** What goes on in a run, beside its samples. */
export interface RunState extends Omit<Evidence, 'history' | 'forMs' | 'elapsedMs'> {
  /** ms since the epoch. */
  began: number;
  ended: number | null;
  written: number;
  samplesDue: number;
  /** Why it ended early. */
  error: string | null;
  checkpoints: SoakCheckpoint[];
  pauses: { from: number; to: number | null }[];
  /** Lines for people, and errors of logs by how often they came. */
  notes: readonly string[];
  problems: ReadonlyMap<string, number>;
}

/** The report. Its verdict follows from its criteria. */
export function reportOf(plan: RunPlan, state: RunState, history: History): SoakReport {
  const durationMs = (state.ended ?? state.written) - state.began;
  const elapsedMs = Math.min(durationMs, plan.forMs);
  const criteria = criteriaOf({ ...state, history, forMs: plan.forMs, elapsedMs });
  const { began, ended, written, error, checkpoints, ledger, stops, pauses } = state;
  const loads = spreadOf(history.loads);
  const columns = (process: History['processes'][number]) =>
    Object.fromEntries(PROCESS_METRICS.map((metric) => [metric, process[metric]])) as Pick<
      SoakReport['processes'][number],
      (typeof PROCESS_METRICS)[number]
    >;
  const body = {
    ...{ version: 1 as const, id: plan.id, code: plan.code, host: hostname() },
    plan: {
      ...{ for_ms: plan.forMs, sample_ms: plan.sampleMs, checkpoint_ms: plan.checkpointMs, mode: plan.mode },
      ...{ exchanges: plan.exchanges, symbols: plan.symbols },
    },
    ...{ began, ended, duration_ms: durationMs, written, error, criteria, times: history.times },
    ...{ samples_due: state.samplesDue, samples_missing: state.samplesMissing, flow: history.flow },
    processes: history.processes.map((each) => {
      const { name, restarts, pids } = each;
      return { name, restarts, pids, ...columns(each) };
    }),
    ...{
      memory: slopesOf({ history, elapsedMs }),
      checkpoints,
      tables: [...history.tables],
      ledger,
      stops: [...stops],
    },
    ...{ pauses, problems: problemsOf(state, history) },
    machine: {
      ...{ cores: cpus().length, memory_bytes: totalmem() },
      ...{ load_mean: loads?.mean ?? null, load_max: loads?.most ?? null },
    },
  };
  return { ...body, verdict: verdictOfRun(body) };
}

function problemsOf({ notes, problems, isOver }: RunState, history: History): string[] {
  const frequent = [...problems].sort(([, one], [, other]) => other - one).slice(0, MOST_PROBLEMS);
  const more = problems.size - frequent.length;
  const empty = isOver ? history.tables.filter(({ rows }) => rows === 0).map(nameOf) : [];
  const changed = history.processes
    .filter(({ pids }) => pids.length > 1)
    .map(({ name, pids }) => `${name} ${pids.map(({ pid }) => pid).join(' → ')}`);
  return [
    ...notes,
    ...frequent.map(([text, count]) => `${count} × ${text}`),
    ...(more > 0 ? [`${more} further errors of other kinds`] : []),
    ...(empty.length === 0 ? [] : [`tables without a row: ${empty.join(', ')}`]),
    ...(changed.length === 0 ? [] : [`process ids: ${changed.join(', ')}`]),
  ].map((line) => line.slice(0, LINE_CHARACTERS));
}

/** Replaces `report.json`. */
export function writeReport(directory: string, report: SoakReport): void {
  writeJsonAtomic(join(directory, 'report.json'), report);
}

/** Replaces the text and the plots beside it. */
export function writeText(directory: string, report: SoakReport): void {
  mkdirSync(directory, { recursive: true });
  const plots = plotsOf(report);
  for (const { file, svg } of plots) replace(join(directory, file), svg);
  replace(join(directory, 'report.md'), markdownOf(report, plots));
}

function replace(path: string, text: string): void {
  writeFileSync(`${path}.tmp`, text);
  renameSync(`${path}.tmp`, path);
}
