const USAGE = `
repair.ts: mends what integrity.ts finds in stored rows; says what it would do, does it, and undoes it.

Usage:   npx tsx scripts/repair.ts [--dry-run | --apply] [--only KIND,…] [--from TIME --to TIME] [--exchange X] [--symbol S] [--type T]
         npx tsx scripts/repair.ts --rollback ID
         npx tsx scripts/repair.ts --list
Example: npx tsx scripts/repair.ts --apply --only missing-in-hot --exchange okx_spot
         npx tsx scripts/repair.ts --apply --only refetch --exchange binance_spot --symbol BTC-USDT --from 2026-11-20T08:00:00Z --to 2026-11-20T08:10:00Z

Kinds, in the order in which they are done:
{KINDS}

Flags:
  --dry-run               tell what would be done, with counts; changes nothing (default)
  --apply                 do it
  --only KIND,…           these kinds only
  --check NAME            what mends the findings of this check of integrity.ts
  --from TIME --to TIME   event times, UTC (default: the last 24 hours)
  --exchange X            one exchange      --symbol S   one symbol      --type T   one data type (trade, orderbook, …)
  --trust hot|cold        which one is right where they tell a row differently and both may be
  --batch-size N          rows of one step (default 5000)
  --max-rows N            refuse to change more than this (default 1000000)
  --wait TIME             how long gaps are waited for that the collectors fill (default 60s)
  --rollback ID           undo what a repair did, and only that; says what cannot be undone
  --list                  the repairs that there were

Each step is written down under data/state/repair/ID before it is done. Cut off at any moment, it can be run again: what is left is found again.

Environment: as integrity.ts.
Exit code: 0 nothing (left) to mend, 1 something is, or could not be undone, 2 a table is not as it should be after a step, 3 a server
cannot be reached or gets nothing done, 64 wrong usage.
`;

import { randomBytes } from 'node:crypto';
import { setMaxListeners } from 'node:events';
import { mkdirSync } from 'node:fs';
import type { NatsConnection } from 'nats';
import type { Context } from './lib/checks/check.ts';
import { CHECKS } from './lib/checks/index.ts';
import { readLimits } from './lib/checks/limits.ts';
import { duration, flags, moment, OperatorError, runAsScript, UsageError, wholeNumber } from './lib/cli.ts';
import { coldServer, createClickHouse, hotServer, type Server, selectText } from './lib/clickhouse.ts';
import { type Config, loadConfig, shownUrl } from './lib/config.ts';
import { type Contents, contentsByStream, NOTHING } from './lib/contents.ts';
import { connectOnce } from './lib/jetstream.ts';
import { takeLock } from './lib/lock.ts';
import { createLogger } from './lib/log.ts';
import { Progress } from './lib/progress.ts';
import { inScope, progress, type Scope } from './lib/repair/differences.ts';
import { type Entry, Journal } from './lib/repair/journal.ts';
import { type Patient, type Problem, REPAIRS, type Repair, type Task } from './lib/repair/kinds.ts';
import { REPAIR_NAMES, type RepairName } from './lib/repair/names.ts';
import type { Place } from './lib/repair/rows.ts';
import { Session } from './lib/repair/session.ts';
import { undo } from './lib/repair/undo.ts';
import { DATA_TYPES, EXCHANGES } from './lib/rows.ts';
import { untilStopped } from './lib/service.ts';
import { textTable } from './lib/status.ts';

const DAY_MS = 86_400_000;
/** A comparison of a day reads it all. */
const REQUEST_TIMEOUT_MS = 120_000;
const EXIT = { left: 1, unreachable: 3 } as const;

const OPTIONS = {
  'dry-run': { type: 'boolean', default: false },
  apply: { type: 'boolean', default: false },
  only: { type: 'string' },
  check: { type: 'string' },
  from: { type: 'string' },
  to: { type: 'string' },
  exchange: { type: 'string' },
  symbol: { type: 'string' },
  type: { type: 'string' },
  trust: { type: 'string' },
  'batch-size': { type: 'string', default: '5000' },
  'max-rows': { type: 'string', default: '1000000' },
  wait: { type: 'string', default: '60s' },
  rollback: { type: 'string' },
  list: { type: 'boolean', default: false },
} as const;

interface Asked {
  repairs: Repair[];
  scope: Scope;
  apply: boolean;
  trust: 'hot' | 'cold' | null;
  batchSize: number;
  maxRows: number;
  fillMs: number;
}

type Found = { repair: Repair } & (Task | Problem);

function read(given: ReturnType<typeof flags<typeof OPTIONS>>, now: number): Asked {
  const { apply, from, to, exchange, symbol, type, trust } = given;
  if (apply && given['dry-run']) throw new UsageError('--apply and --dry-run exclude each other');
  if ((from === undefined) !== (to === undefined)) throw new UsageError('--from and --to come together');
  const span = from === undefined || to === undefined ? null : [moment('--from', from), moment('--to', to)];
  if (span !== null && span[0]! >= span[1]!) throw new UsageError(`--from ${from} is not before --to ${to}`);
  const scope: Scope = {
    from: span?.[0] ?? now - DAY_MS,
    to: span?.[1] ?? now,
    types: type === undefined ? DATA_TYPES : [oneOf('--type', type, DATA_TYPES)],
    exchange: exchange === undefined ? null : oneOf('--exchange', exchange, EXCHANGES),
    symbol: symbol ?? null,
    now,
  };
  if (given.only !== undefined && given.check !== undefined)
    throw new UsageError('--only and --check exclude each other');
  const named =
    given.check === undefined
      ? given.only?.split(',').map((each) => oneOf('--only', each, REPAIR_NAMES))
      : repairsOf(given.check);
  return {
    repairs: REPAIRS.filter(({ name, onlyNamed }) => named?.includes(name) ?? !onlyNamed),
    scope,
    apply,
    trust: trust === undefined ? null : oneOf('--trust', trust, ['hot', 'cold'] as const),
    batchSize: wholeNumber('--batch-size', given['batch-size'], 1, 50_000),
    maxRows: wholeNumber('--max-rows', given['max-rows'], 1, Number.MAX_SAFE_INTEGER),
    fillMs: duration('--wait', given.wait),
  };
}

/** @throws UsageError for a check that no repair mends */
function repairsOf(name: string): readonly RepairName[] {
  const check = CHECKS.find((each) => each.name === name);
  if (check?.repairs) return check.repairs;
  const mended = CHECKS.filter(({ repairs }) => repairs).map((each) => each.name);
  throw new UsageError(`--check takes one of ${mended.join(', ')}, not "${name}"${check ? `: ${check.fix}` : ''}`);
}

function oneOf<T extends string>(flag: string, text: string, values: readonly T[]): T {
  const found = values.find((each) => each === text);
  if (found === undefined) throw new UsageError(`${flag} takes one of ${values.join(', ')}, not "${text}"`);
  return found;
}

/** What was there when a repair began. */
type Moment = Pick<Extract<Entry, { op: 'contents' }>, 'scope' | 'created' | 'replicated'>;

/** Both ends, and the broker once rows have to go through it. */
class Surgery {
  readonly hot: Place;
  readonly cold: Place;
  private nats: NatsConnection | null = null;
  private readonly log = createLogger('repair', process.env.LOG_LEVEL ?? 'silent');

  constructor(
    readonly config: Config,
    readonly say: (text: string) => void,
  ) {
    const connect = (server: Server) => createClickHouse(server, 'marketprism-repair', REQUEST_TIMEOUT_MS);
    this.hot = { tier: 'hot', client: connect(hotServer(config)), database: config.hotDatabase };
    this.cold = { tier: 'cold', client: connect(coldServer(config)), database: config.coldDatabase };
  }

  patient({ scope, trust, fillMs }: Asked): Patient {
    const { config, hot, cold } = this;
    const limits = readLimits(config.dataDir);
    const context: Context = { config, hot: hot.client, cold: cold.client, limits, ...scope };
    return { hot, cold, context, scope, trust, fillMs, known: {} };
  }

  /** @param isChange whether rows have to go through the broker @throws OperatorError when a server does not answer */
  async reach(isChange: boolean): Promise<void> {
    const { config, hot, cold } = this;
    for (const [{ client }, url] of [
      [hot, config.clickhouseUrl],
      [cold, config.coldClickhouseUrl],
    ] as const) {
      const answer = await client.ping();
      if (answer.success) continue;
      const why = `${answer.error.message || (answer.error as { code?: string }).code}`;
      throw new OperatorError(`the database at ${shownUrl(url)} does not answer: ${why}`, EXIT.unreachable);
    }
    if (!isChange) return;
    this.nats = await connectOnce(config.natsUrl, 'repair').catch((error: Error) => {
      throw new OperatorError(`${error.message}: nothing was changed`, EXIT.unreachable);
    });
  }

  async session(journal: Journal, batchSize: number, onRows?: (rows: number) => void): Promise<Session> {
    const { config, hot, cold, log } = this;
    if (this.nats === null) throw new Error('reach() comes first');
    const manager = await this.nats.jetstreamManager();
    return new Session({ config, hot, cold, nats: this.nats, manager, batchSize, log, onRows }, journal);
  }

  /** What both hold of the scope that was there at a time: by tier, type and stream. */
  async contents({ scope, created, replicated }: Moment): Promise<Record<string, Contents>> {
    const all: Record<string, Contents> = {};
    for (const { tier, client, database } of [this.hot, this.cold]) {
      for (const type of scope.types) {
        const wasThere = tier === 'hot' ? '1' : `(js_epoch, js_seq) <= ${replicated[type]}`;
        const where = `${inScope(scope)} AND created_at <= '${created}' AND ${wasThere}`;
        for (const [stream, each] of await contentsByStream(client, database, type, where))
          all[`${tier} ${type} ${stream}`] = each;
      }
    }
    return all;
  }

  async close(): Promise<void> {
    await Promise.all([this.hot.client.close(), this.cold.client.close(), this.nats?.close()]);
  }
}

async function planOf(repairs: Repair[], patient: Patient): Promise<Found[]> {
  const found: Found[] = [];
  for (const repair of repairs) found.push(...(await repair.plan(patient)).map((each) => ({ repair, ...each })));
  return found;
}

function planText(found: Found[]): string {
  const rows = found.map((each) => [
    each.repair.name,
    each.subject,
    'problem' in each ? `cannot: ${each.problem}` : each.what,
    'problem' in each ? '-' : String(each.rows),
  ]);
  return textTable(['repair', 'of', 'what', 'rows'], rows, 3);
}

async function dryRun(surgery: Surgery, asked: Asked): Promise<number> {
  const found = await planOf(asked.repairs, surgery.patient(asked));
  if (found.length === 0) {
    surgery.say('nothing to mend\n');
    return 0;
  }
  const rows = found.reduce((sum, each) => sum + ('rows' in each ? each.rows : 0), 0);
  surgery.say(`${planText(found)}\n\n${rows} rows; nothing was changed: --apply does it\n`);
  return EXIT.left;
}

async function apply(surgery: Surgery, asked: Asked, args: string[], stop: AbortSignal): Promise<number> {
  const { config } = surgery;
  const planned = await planOf(asked.repairs, surgery.patient(asked));
  if (planned.length === 0) {
    surgery.say('nothing to mend\n');
    return 0;
  }
  if (planned.every((each) => 'problem' in each)) {
    surgery.say(`${planText(planned)}\n\nnothing of it can be done like this\n`);
    return EXIT.left;
  }
  const rows = planned.reduce((sum, each) => sum + ('rows' in each ? each.rows : 0), 0);
  if (rows > asked.maxRows) {
    throw new OperatorError(
      `${rows} rows would be changed, more than --max-rows ${asked.maxRows}: look at --dry-run`,
      64,
    );
  }
  const id = `${new Date().toISOString().replace(/[-:]|\.\d+/g, '')}-${randomBytes(3).toString('hex')}`;
  const progress = new Progress();
  let done = 0;
  const journal = Journal.begin(config.dataDir, id, config.mode, args, new Date());
  const session = await surgery.session(journal, asked.batchSize, (count) => {
    done += count;
    progress.show(rows === 0 ? 1 : done / rows, `${done} of about ${rows} rows`);
  });
  surgery.say(`repair ${id}\n`);
  try {
    await keepContents(surgery, journal, asked.scope);
    const left: Found[] = [];
    for (const repair of asked.repairs) {
      // Each stands on what the ones before it did.
      for (const each of await planOf([repair], surgery.patient(asked))) {
        stop.throwIfAborted();
        const problem = 'problem' in each ? each.problem : await each.run(session);
        progress.clear();
        if (problem !== null) left.push({ repair, subject: each.subject, problem });
        if (!('problem' in each)) surgery.say(`${repair.name}: ${each.subject}: ${each.rows} rows ${each.what}\n`);
      }
    }
    const after = await planOf(
      asked.repairs.filter(({ onlyNamed }) => !onlyNamed),
      surgery.patient(asked),
    );
    const known = new Set(left.map(({ repair, subject }) => `${repair.name} ${subject}`));
    left.push(...after.filter(({ repair, subject }) => !known.has(`${repair.name} ${subject}`)));
    journal.add({ op: 'end', at: new Date().toISOString(), left: left.length });
    if (left.length > 0) surgery.say(`\nleft:\n${planText(left)}\n`);
    surgery.say(
      `\n${left.length === 0 ? 'all is mended' : `${left.length} are left`}; to undo it: npx tsx scripts/repair.ts --rollback ${id}\n`,
    );
    return left.length === 0 ? 0 : EXIT.left;
  } finally {
    progress.clear();
    session.close();
  }
}

async function keepContents(surgery: Surgery, journal: Journal, scope: Scope): Promise<void> {
  const [[created] = []] = await selectText(surgery.hot.client, "SELECT now64(3, 'UTC')");
  const replicated: Record<string, string> = {};
  for (const type of scope.types) replicated[type] = await progress(surgery.cold, type);
  const then = { scope, created: created!, replicated };
  journal.add({ op: 'contents', ...then, of: await surgery.contents(then) });
}

async function rollback(surgery: Surgery, id: string, asked: Asked, stop: AbortSignal): Promise<number> {
  const journal = Journal.read(surgery.config.dataDir, id);
  const begin = journal.entry('begin');
  if (begin?.mode !== surgery.config.mode) throw new UsageError(`${id} was a repair of ${begin?.mode ?? 'nothing'}`);
  const session = await surgery.session(journal, asked.batchSize);
  try {
    const steps = journal.steps.length;
    const notes = await undo(session, stop);
    const before = journal.entry('contents');
    const different: string[] = [];
    if (before !== undefined) {
      const now = await surgery.contents(before);
      for (const stream of new Set([...Object.keys(before.of), ...Object.keys(now)])) {
        const [one, other] = [before.of[stream] ?? NOTHING, now[stream] ?? NOTHING];
        if (one.rows === other.rows && one.hash === other.hash) continue;
        different.push(
          `${stream}: ${other.rows} rows, ${one.rows} before${one.rows === other.rows ? ', with other values' : ''}`,
        );
      }
    }
    const exact = notes.length + different.length === 0;
    journal.add({ op: 'rolled_back', at: new Date().toISOString(), exact });
    surgery.say(`${steps} steps of ${id} undone\n`);
    for (const note of notes) surgery.say(`not undone: ${note}\n`);
    for (const each of different) surgery.say(`not as before: ${each}\n`);
    if (exact) surgery.say('counts and hashes are those from before the repair\n');
    return exact ? 0 : EXIT.left;
  } finally {
    session.close();
  }
}

function list(config: Config, say: (text: string) => void): number {
  const rows = Journal.all(config.dataDir).map((journal) => {
    const [end, back] = [journal.entry('end'), journal.entry('rolled_back')];
    const state = back ? `undone ${back.at}` : end ? `done, ${end.left} left` : 'cut off';
    const count = journal.steps.reduce((sum, step) => sum + ('rows' in step ? step.rows : 0), 0);
    const begin = journal.entry('begin');
    return [
      journal.id,
      begin?.at ?? '-',
      String(journal.steps.length),
      String(count),
      state,
      begin?.args.join(' ') ?? '',
    ];
  });
  const head = ['id', 'at', 'steps', 'rows', 'state', 'asked'];
  say(rows.length === 0 ? 'no repairs\n' : `${textTable(head, rows, 2)}\n`);
  return 0;
}

/**
 * One run of the command.
 * @param say takes what is printed
 * @returns the exit code
 * @throws OperatorError
 */
export async function repair(
  args: string[],
  env: NodeJS.ProcessEnv,
  say: (text: string) => void,
  stop: AbortSignal,
): Promise<number> {
  const given = flags(usage(), OPTIONS, args);
  const config = loadConfig(env);
  const asked = read(given, Date.now());
  if (given.list) return list(config, say);
  mkdirSync(config.dataDir, { recursive: true });
  const isChange = asked.apply || given.rollback !== undefined;
  const lock = isChange ? await takeLock(config.dataDir, 'repair') : null;
  const surgery = new Surgery(config, say);
  try {
    await surgery.reach(isChange);
    if (given.rollback !== undefined) return await rollback(surgery, given.rollback, asked, stop);
    return await (asked.apply ? apply(surgery, asked, args, stop) : dryRun(surgery, asked));
  } finally {
    await surgery.close();
    await lock?.release();
  }
}

function usage(): string {
  const kinds = REPAIRS.map(
    ({ name, what, onlyNamed }) => `  ${name.padEnd(16)}${what}${onlyNamed ? ' (only when named)' : ''}`,
  );
  return USAGE.replace('{KINDS}', kinds.join('\n'));
}

async function main(): Promise<number> {
  const abort = new AbortController();
  setMaxListeners(0, abort.signal);
  void untilStopped(createLogger('repair', 'silent')).then(() =>
    abort.abort(new OperatorError('stopped: run it again, it goes on', EXIT.left)),
  );
  return repair(process.argv.slice(2), process.env, (text) => process.stdout.write(text), abort.signal);
}

runAsScript(import.meta.url, main);
