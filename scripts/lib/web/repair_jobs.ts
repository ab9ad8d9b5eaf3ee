/**
 * repair.ts as a child, one at a time. What it does goes on when whoever asked for it has gone, or this service: it writes to files, not to us, and
 * a service that begins anew finds it again. Records are files, too: `DATA/state/repair_jobs/ID.json`, with what was printed beside them.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { closeSync, fstatSync, mkdirSync, openSync, readdirSync, readFileSync, readSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { readJson, writeJsonAtomic } from '../files.ts';
import { environmentOf, flagsOf, hashOf, PLANNED, type Planned, planLines, rowsOf } from './repair_plan.ts';
import { type WebContext, WebError } from './route.ts';

const SCRIPT = join(import.meta.dirname, '..', '..', 'repair.ts');
/** Older ones are forgotten. */
const MOST_JOBS = 50;
/** The end of what was printed is given. */
const MOST_OUTPUT_BYTES = 262_144;
/** A plan that takes longer is asked for less. */
const PLAN_LIMIT_MS = 15 * 60_000;

export const JOB_KINDS = ['plan', 'apply', 'rollback'] as const;
export type JobKind = (typeof JOB_KINDS)[number];
const IN_WORDS: Record<JobKind, string> = { plan: 'a plan', apply: 'an apply', rollback: 'a rollback' };

const RECORD = z.object({
  id: z.string(),
  kind: z.enum(JOB_KINDS),
  /** What a plan, or what is applied, is about; null: of a rollback. */
  planned: PLANNED.nullable(),
  /** The plan that is applied, or the repair that is undone. */
  of: z.string().nullable(),
  /** ms. */
  began: z.number(),
  ended: z.number().nullable(),
  /** Of repair.ts; null: it runs, or how it ended is not known. */
  exit_code: z.number().nullable(),
  /** One line that repair.ts did not say; null: there is none. */
  message: z.string().nullable(),
  /** What is there is no longer what the plan said: nothing was done. */
  is_changed: z.boolean(),
  /** Of the child that runs. */
  pid: z.number().nullable(),
});
export type JobRecord = z.infer<typeof RECORD>;

export interface Printed {
  output: string;
  errors: string;
}

export class RepairJobs {
  private readonly directory: string;
  private readonly records = new Map<string, JobRecord>();
  private child: ChildProcess | null = null;

  constructor(private readonly context: WebContext) {
    this.directory = join(context.config.dataDir, 'state', 'repair_jobs');
    for (const name of namesIn(this.directory)) {
      const record = read(join(this.directory, name));
      if (typeof record === 'string') context.log.error({ event: 'bad_record', name }, record);
      else this.records.set(record.id, record);
    }
    // A look changes nothing, and nobody would read it; what changes something goes on.
    context.stop.addEventListener('abort', () => {
      if (this.running?.kind === 'plan') this.child?.kill('SIGTERM');
    });
  }

  /** The newest first. */
  get all(): JobRecord[] {
    return [...this.records.keys()]
      .sort()
      .reverse()
      .flatMap((id) => this.get(id) ?? []);
  }

  get(id: string): JobRecord | null {
    const record = this.records.get(id) ?? null;
    // Of a child of an earlier process nobody tells how it ended.
    if (record !== null && record.ended === null && this.child === null && !isRepair(record.pid)) {
      record.ended = this.context.clock();
      record.message ??= 'the service was stopped meanwhile: how it ended is in what it printed, and in the journal';
      this.save(record);
    }
    return record;
  }

  get running(): JobRecord | null {
    return this.all.find(({ ended }) => ended === null) ?? null;
  }

  plan(planned: Planned): JobRecord {
    const record = this.begin('plan', planned, null);
    void this.settle(record, this.run(record, ['--dry-run', ...flagsOf(planned)], ''));
    return record;
  }

  /** Looks once more, and does what was planned if that is still the same. @param hash of the plan that was seen */
  apply(plan: JobRecord, planned: Planned, hash: string, rows: number): JobRecord {
    const record = this.begin('apply', planned, plan.id);
    const work = async () => {
      const looked = await this.run(record, ['--dry-run', ...flagsOf(planned)], '.look');
      const { output } = this.printed(record, '.look');
      const lines = planLines(output);
      if (lines === null || (looked !== 0 && looked !== 1)) return looked;
      if (hashOf(planned, lines) !== hash) {
        record.is_changed = true;
        return looked;
      }
      // As many rows as were shown, and no more.
      const most = `--max-rows=${Math.max(rows, 1)}`;
      return this.run(record, ['--apply', most, ...flagsOf(planned)], '');
    };
    void this.settle(record, work());
    return record;
  }

  rollback(repair: string): JobRecord {
    const record = this.begin('rollback', null, repair);
    void this.settle(record, this.run(record, [`--rollback=${repair}`], ''));
    return record;
  }

  /** What it printed so far, or the end of it. @param suffix of which of its children */
  printed({ id }: JobRecord, suffix: '' | '.look' = ''): Printed {
    return { output: this.tail(`${id}${suffix}.out`), errors: this.tail(`${id}${suffix}.err`) };
  }

  /** @throws WebError 503 while another one runs */
  private begin(kind: JobKind, planned: Planned | null, of: string | null): JobRecord {
    const { running } = this;
    if (running !== null)
      throw new WebError(503, `${IN_WORDS[running.kind]} is under way (${running.id}): ask again when it is over`);
    const began = this.context.clock();
    const stamp = new Date(began).toISOString().replace(/[-:.]/g, '');
    const record: JobRecord = {
      ...{ id: `${stamp}-${randomBytes(3).toString('hex')}`, kind, planned, of, began },
      ...{ ended: null, exit_code: null, message: null, is_changed: false, pid: null },
    };
    mkdirSync(this.directory, { recursive: true });
    this.save(record);
    this.records.set(record.id, record);
    this.context.log.info({ event: 'repair_asked', kind, id: record.id, of, planned });
    this.forgetOld();
    return record;
  }

  /** Writes down how it ended, also where that was before it began. */
  private async settle(record: JobRecord, work: Promise<number | null>): Promise<void> {
    const { log, clock } = this.context;
    const { kind, id, of } = record;
    try {
      record.exit_code = await work;
    } catch (error) {
      record.message = `it could not be run: ${(error as Error).message.split('\n')[0]}`;
      log.error({ event: 'repair_failed', kind, id, err: error });
    }
    record.ended = clock();
    record.pid = null;
    this.child = null;
    log.info({ event: 'repair_ended', kind, id, of, code: record.exit_code, is_changed: record.is_changed });
    try {
      this.save(record);
    } catch (error) {
      // This process knows it all the same; the next one looks whether the child is there.
      log.error({ event: 'record_not_kept', id, err: error });
    }
  }

  /** @returns its exit code; null: it was killed, or could not be started */
  private async run(record: JobRecord, args: string[], suffix: '' | '.look'): Promise<number | null> {
    const { config, clock } = this.context;
    const files = ['out', 'err'].map((each) => openSync(join(this.directory, `${record.id}${suffix}.${each}`), 'w'));
    try {
      // A group of its own: what stops this service from a terminal does not reach it.
      const child = spawn(process.execPath, ['--import', 'tsx', SCRIPT, ...args], {
        env: environmentOf(config, process.env),
        stdio: ['ignore', files[0]!, files[1]!],
        detached: true,
      });
      child.unref();
      this.child = child;
      record.pid = child.pid ?? null;
      this.save(record);
      const isLook = args[0] === '--dry-run';
      const timer = isLook ? setTimeout(() => this.giveUp(record, child), PLAN_LIMIT_MS).unref() : undefined;
      return await new Promise((done) => {
        child.once('error', (error) => {
          record.message = `repair.ts cannot be started: ${error.message}`;
          clearTimeout(timer);
          done(null);
        });
        child.once('exit', (code, signal) => {
          if (code === null) record.message ??= `repair.ts was ended by ${signal} after ${clock() - record.began} ms`;
          clearTimeout(timer);
          done(code);
        });
      });
    } finally {
      for (const file of files) closeSync(file);
    }
  }

  private giveUp(record: JobRecord, child: ChildProcess): void {
    record.message = `it took more than ${PLAN_LIMIT_MS / 60_000} min: ask for less`;
    child.kill('SIGTERM');
  }

  private tail(name: string): string {
    let file: number;
    try {
      file = openSync(join(this.directory, name), 'r');
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return '';
      throw error;
    }
    try {
      const { size } = fstatSync(file);
      const length = Math.min(size, MOST_OUTPUT_BYTES);
      const bytes = Buffer.alloc(length);
      return bytes.subarray(0, readSync(file, bytes, 0, length, size - length)).toString();
    } finally {
      closeSync(file);
    }
  }

  private save(record: JobRecord): void {
    writeJsonAtomic(join(this.directory, `${record.id}.json`), record);
  }

  private forgetOld(): void {
    for (const id of [...this.records.keys()].sort().slice(0, -MOST_JOBS)) {
      this.records.delete(id);
      for (const name of ['.json', '.out', '.err', '.look.out', '.look.err'])
        rmSync(join(this.directory, id + name), { force: true });
    }
  }
}

function namesIn(directory: string): string[] {
  try {
    return readdirSync(directory).filter((name) => name.endsWith('.json'));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw error;
  }
}

/** @returns why it is no record, where it is none */
function read(path: string): JobRecord | string {
  try {
    const kept = RECORD.safeParse(readJson(path));
    return kept.success ? kept.data : kept.error.issues[0]!.message;
  } catch (error) {
    if (error instanceof SyntaxError) return error.message;
    throw error;
  }
}

/** Whether a process of that number is a repair; another one may have got its number. */
function isRepair(pid: number | null): boolean {
  if (pid === null) return false;
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes('repair.ts');
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'ESRCH') return false;
    throw error;
  }
}

/** The one line that says what came of it. */
export function lineOf(record: JobRecord, { output, errors }: Printed): string | null {
  if (record.message !== null) return record.message;
  if (record.is_changed)
    return 'what is to be done is no longer what the plan said: nothing was done, look at a new one';
  const last = (text: string) => text.trim().split('\n').at(-1)!;
  return last(errors) || last(output) || null;
}

/** What a plan came to; null: it is none, is not ready, or failed. */
export function planOf(record: JobRecord, { output }: Printed) {
  const { kind, planned, exit_code } = record;
  if (kind !== 'plan' || planned === null || (exit_code !== 0 && exit_code !== 1)) return null;
  const lines = planLines(output);
  return lines === null ? null : { hash: hashOf(planned, lines), rows: rowsOf(lines), lines };
}
