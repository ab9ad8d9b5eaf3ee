/** Repairs as repair.ts writes them down: what each was about, what it did, and whether it was undone. A damaged journal is told, and hides no other. */
import { type Dirent, readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { OperatorError } from '../cli.ts';
import type { Config } from '../config.ts';
import { Journal, type Step } from '../repair/journal.ts';
import { WebError } from './route.ts';

/** As repair.ts makes them. */
export const REPAIR_ID = /^[\w-]{1,80}$/;
/** Journals that are kept as they were read. */
const MOST_KEPT = 500;

const text = z.string().nullable();
const figure = z.number().nullable();

export const REPAIR_HEAD = z.object({
  id: z.string(),
  at: figure.describe('When it began, ms.'),
  mode: text,
  asked: text.describe('The flags it was asked with.'),
  state: z
    .enum(['done', 'not_ended', 'rolled_back', 'partly_rolled_back', 'damaged'])
    .describe('not_ended: it goes on, or was cut off.'),
  steps: z.number(),
  rows: z.number().describe('Rows taken out, given to the store or copied.'),
  left: figure.describe('Findings that were left; null: it has not ended.'),
  last_change: z.number().describe('Of its journal, ms.'),
  rolled_back: figure.describe('When, ms.'),
  is_exact: z.boolean().nullable().describe('After the rollback all was as before it; null: it was not undone.'),
  not_undone: z.array(z.string()),
  error: text,
});
export type RepairHead = z.infer<typeof REPAIR_HEAD>;

export const REPAIR_STEP = z.object({
  n: z.number(),
  op: z.enum(['remove', 'publish', 'copy', 'declare', 'letters', 'aside']),
  ...{ tier: text, type: text, exchange: text, market_type: text, symbol: text },
  ...{ from: figure, to: figure, rows: z.number() },
  is_done: z.boolean(),
  is_undone: z.boolean(),
});
export type RepairStep = z.infer<typeof REPAIR_STEP>;

export class RepairJournals {
  private readonly known = new Map<string, { stamp: string; journal: Journal | string }>();

  constructor(private readonly config: Pick<Config, 'dataDir'>) {}

  /** The newest first: their names begin with their times. */
  get ids(): string[] {
    let entries: Dirent[];
    try {
      entries = readdirSync(Journal.root(this.config.dataDir), { withFileTypes: true });
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
      throw error;
    }
    const ids = entries.filter((each) => each.isDirectory() && REPAIR_ID.test(each.name)).map(({ name }) => name);
    return ids.sort().reverse();
  }

  head(id: string): RepairHead | null {
    const found = this.read(id);
    return found === null ? null : headOf(id, found.journal, found.changed);
  }

  /** @param most of them, the last ones @throws WebError 404, or 500 where the journal is damaged */
  steps(id: string, most: number): { head: RepairHead; steps: RepairStep[] } {
    const found = this.read(id);
    if (found === null) throw new WebError(404, 'there is no such repair', 'id');
    const { journal, changed } = found;
    if (typeof journal === 'string') throw new WebError(500, `the journal of ${id} is damaged: ${journal}`);
    return {
      head: headOf(id, journal, changed),
      steps: journal.steps.slice(-most).map((step) => stepOf(journal, step)),
    };
  }

  private read(id: string): { journal: Journal | string; changed: number } | null {
    const { dataDir } = this.config;
    const path = join(Journal.root(dataDir), id, 'journal.jsonl');
    const stat = statSync(path, { throwIfNoEntry: false });
    if (!REPAIR_ID.test(id) || stat === undefined) return null;
    const stamp = `${stat.ino} ${stat.size} ${stat.mtimeMs}`;
    let own = this.known.get(id);
    if (own?.stamp !== stamp) {
      own = { stamp, journal: readJournal(dataDir, id) };
      this.known.set(id, own);
      for (const oldest of [...this.known.keys()].slice(0, -MOST_KEPT)) this.known.delete(oldest);
    }
    return { journal: own.journal, changed: stat.mtimeMs };
  }
}

/** @returns why it cannot be read, in a line without paths */
function readJournal(dataDir: string, id: string): Journal | string {
  try {
    return Journal.read(dataDir, id);
  } catch (error) {
    if (!(error instanceof OperatorError)) throw error;
    return error.message.replace(`${join(Journal.root(dataDir), id)}/`, '').slice(0, 200);
  }
}

function headOf(id: string, journal: Journal | string, changed: number): RepairHead {
  const nothing = { at: null, mode: null, asked: null, left: null, rolled_back: null, is_exact: null };
  const last_change = Math.round(changed);
  if (typeof journal === 'string')
    return { id, ...nothing, state: 'damaged', steps: 0, rows: 0, last_change, not_undone: [], error: journal };
  const { entries, steps } = journal;
  const [begin, end] = [journal.entry('begin'), journal.entry('end')];
  const back = entries.findLast((entry) => entry.op === 'rolled_back');
  const undone = entries.filter((entry) => entry.op === 'undone');
  const state = back ? 'rolled_back' : undone.length > 0 ? 'partly_rolled_back' : end ? 'done' : 'not_ended';
  return {
    ...{ id, at: begin === undefined ? null : Date.parse(begin.at), mode: begin?.mode ?? null },
    ...{ asked: begin?.args.join(' ') ?? null, state, steps: steps.length, last_change },
    rows: steps.reduce((sum, step) => sum + ('rows' in step ? step.rows : 0), 0),
    left: end?.left ?? null,
    rolled_back: back === undefined ? null : Date.parse(back.at),
    is_exact: back?.exact ?? null,
    not_undone: [...new Set(undone.flatMap(({ could_not }) => could_not ?? []))],
    error: null,
  };
}

function stepOf(journal: Journal, step: Step): RepairStep {
  const window = 'window' in step ? step.window : null;
  return {
    ...{ n: step.n, op: step.op, tier: 'tier' in step ? step.tier : null, type: 'type' in step ? step.type : null },
    ...{ exchange: window?.exchange ?? null, market_type: window?.market_type ?? null, symbol: window?.symbol ?? null },
    ...{ from: window?.from ?? null, to: window?.to ?? null, rows: 'rows' in step ? step.rows : 0 },
    is_done: journal.entries.some((entry) => entry.op === 'done' && entry.n === step.n),
    is_undone: journal.isUndone(step),
  };
}
