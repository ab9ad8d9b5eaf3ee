/** What a repair did, written down before it is done, so that it can be undone, whatever happened in between. */
import { closeSync, existsSync, fsyncSync, mkdirSync, openSync, readdirSync, readFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { OperatorError } from '../cli.ts';
import { DATA_TYPES, type DataType } from '../rows.ts';

const tier = z.enum(['hot', 'cold']);
const type = z.enum(DATA_TYPES as [DataType, ...DataType[]]);
const window = z.object({
  ...{ exchange: z.string(), market_type: z.string(), symbol: z.string() },
  /** Event time, ms; `to` is not in it. */
  ...{ from: z.number(), to: z.number() },
});
const n = z.number().int();
const scope = z.object({
  ...{ from: n, to: n, types: z.array(type) },
  ...{ exchange: z.string().nullable(), symbol: z.string().nullable(), now: n },
});
const contents = z.record(z.string(), z.object({ rows: z.number(), unique: z.number(), hash: z.string() }));

const ENTRY = z.discriminatedUnion('op', [
  z.object({ op: z.literal('begin'), id: z.string(), at: z.string(), mode: z.string(), args: z.array(z.string()) }),
  /**
   * Contents by `tier type exchange market_type symbol` of what was looked at: of rows created up to `created`, in cold those that were
   * replicated by then, by type up to `(epoch, sequence)`.
   */
  z.object({
    op: z.literal('contents'),
    scope,
    created: z.string(),
    replicated: z.record(z.string(), z.string().regex(/^\(\d+, \d+\)$/)),
    of: contents,
  }),
  /** Rows taken out of a table: `file` holds them in full. `before`: rows of these names then. */
  z.object({ op: z.literal('remove'), n, tier, type, window, rows: n, before: n, file: z.string() }),
  /** Rows given to the store, under `repair:<id>`. */
  z.object({ op: z.literal('publish'), n, type, window, rows: n }),
  /** Rows copied to cold as hot has them: `file` names them. */
  z.object({ op: z.literal('copy'), n, type, window, rows: n, file: z.string() }),
  /** A gap declared, which collectors fill under `backfill:<gap>`. */
  z.object({ op: z.literal('declare'), n, type, gap: z.string(), rows: n }),
  z.object({ op: z.literal('letters'), n, rows: n }),
  z.object({ op: z.literal('aside'), n, from: z.string(), to: z.string() }),
  z.object({ op: z.literal('done'), n }),
  z.object({ op: z.literal('end'), at: z.string(), left: n }),
  z.object({ op: z.literal('undone'), n, could_not: z.string().nullable() }),
  z.object({ op: z.literal('rolled_back'), at: z.string(), exact: z.boolean() }),
]);
export type Entry = z.infer<typeof ENTRY>;
export type Step = Extract<Entry, { n: number; rows: number }> | Extract<Entry, { op: 'aside' }>;
export type StepOf<Op extends Step['op']> = Extract<Step, { op: Op }>;

export class Journal {
  readonly entries: Entry[] = [];

  private constructor(
    readonly id: string,
    readonly directory: string,
  ) {}

  static root(dataDir: string): string {
    return join(dataDir, 'state', 'repair');
  }

  static begin(dataDir: string, id: string, mode: string, args: string[], now: Date): Journal {
    const journal = new Journal(id, join(Journal.root(dataDir), id));
    mkdirSync(journal.directory, { recursive: true });
    journal.add({ op: 'begin', id, at: now.toISOString(), mode, args });
    return journal;
  }

  /** @throws OperatorError when there is no such repair, or its journal is damaged */
  static read(dataDir: string, id: string): Journal {
    const directory = join(Journal.root(dataDir), id);
    const path = join(directory, 'journal.jsonl');
    if (!/^[\w-]+$/.test(id) || !existsSync(path)) {
      throw new OperatorError(`there is no repair ${id}: --list tells those that there are`, 64);
    }
    const journal = new Journal(id, directory);
    const lines = readFileSync(path, 'utf8').split('\n');
    for (const [place, line] of lines.entries()) {
      // A last line without an end was being written when the machine stopped: what it announces was not begun.
      if (place === lines.length - 1) break;
      const entry = ENTRY.safeParse(parsed(line));
      if (!entry.success)
        throw new OperatorError(`${path}:${place + 1} is no entry of a journal: ${line.slice(0, 100)}`);
      journal.entries.push(entry.data);
    }
    return journal;
  }

  /** All repairs, oldest first. */
  static all(dataDir: string): Journal[] {
    const root = Journal.root(dataDir);
    if (!existsSync(root)) return [];
    return readdirSync(root)
      .sort()
      .map((id) => Journal.read(dataDir, id));
  }

  get steps(): Step[] {
    return this.entries.filter((entry): entry is Step => 'n' in entry && entry.op !== 'done' && entry.op !== 'undone');
  }

  entry<Op extends Entry['op']>(op: Op): Extract<Entry, { op: Op }> | undefined {
    return this.entries.find((entry): entry is Extract<Entry, { op: Op }> => entry.op === op);
  }

  isUndone({ n: number }: { n: number }): boolean {
    return this.entries.some((entry) => entry.op === 'undone' && entry.n === number && entry.could_not === null);
  }

  get next(): number {
    return this.steps.length + 1;
  }

  /** On disk when it returns. */
  add(entry: Entry): void {
    append(join(this.directory, 'journal.jsonl'), `${JSON.stringify(entry)}\n`);
    this.entries.push(entry);
  }

  /** A file beside the journal; on disk when it returns. @returns its name */
  keep(number: number, suffix: string, text: string): string {
    const name = `${String(number).padStart(6, '0')}.${suffix}`;
    append(join(this.directory, name), text, 'w');
    return name;
  }

  kept(name: string): string {
    return readFileSync(join(this.directory, name), 'utf8');
  }
}

function append(path: string, text: string, flag: 'a' | 'w' = 'a'): void {
  const file = openSync(path, flag);
  try {
    writeSync(file, text);
    fsyncSync(file);
  } finally {
    closeSync(file);
  }
}

function parsed(line: string): unknown {
  try {
    return JSON.parse(line);
  } catch {
    return null;
  }
}
