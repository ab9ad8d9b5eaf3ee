const USAGE = `
chaos.ts (npm run chaos): runs the whole pipeline with simulated exchanges and two collectors, breaks it at random moments for a while,
and then proves, row by row, that nothing was lost or doubled that is not declared.

Usage:   npm run chaos -- --for 10m --seed 7 --report r.json
Example: npx tsx scripts/chaos.ts --for 60s --seed 3

Flags:
  --for TIME            how long faults go on (60s, 10m; default 10m); what follows until all is at rest comes on top
  --seed N              draws the faults and the market; the same number does the same again (default: a new one, which is told)
  --report FILE         writes time line, figures and differences as JSON
  --trades-per-second R of each symbol of each exchange (default 450: with 12 symbols above 5,000 rows/s)
  --without NAME        leaves out a safeguard (look, order, checkpoint, fence, outbox): the run must then fail
  --keep                keeps the directory with data and logs (kept anyway when something differs)

Faults: kill -9 and SIGSTOP of collectors, store, replication, ClickHouse, broker; ClickHouse erring, refusing, cutting connections,
answering late or never; broker away; full disks (as root: small ones of their own); stepped clocks; the venues' own faults.
Not covered: power loss and bit rot of the machine's disks.
Exit code: 0 all balances, 1 it does not.
`;

import { setTimeout as sleep } from 'node:timers/promises';
import { grown, type MemoryFigures, MemoryWatch } from './lib/chaos/memory.ts';
import { describeFault, faultPlan, type PlannedFault } from './lib/chaos/plan.ts';
import { Stage } from './lib/chaos/stage.ts';
import { type Verdict, verdictTable } from './lib/chaos/verdict.ts';
import { duration, flags, OperatorError, runAsScript, UsageError, wholeNumber } from './lib/cli.ts';
import { isSafeguard, SAFEGUARDS } from './lib/crash_points.ts';
import { writeJsonAtomic } from './lib/files.ts';
import { seededRandom, seedFor } from './lib/sim/market.ts';

const SAMPLE_MS = 2000;
const STATUS_MS = 15_000;
/** After the faults: most is well again by then (not a stream that a venue acknowledged and keeps silent), and goes on for so long. */
const WELL_LIMIT_MS = 40_000;
const WELL_MS = 12_000;
const LEAST_MS = 20_000;
/** In a shorter run, processes are still warming up in its first third. */
const LEAST_FOR_MEMORY_MS = 300_000;
const MOST_SEED = 2 ** 31;

const OPTIONS = {
  for: { type: 'string', default: '10m' },
  seed: { type: 'string' },
  report: { type: 'string' },
  'trades-per-second': { type: 'string', default: '450' },
  without: { type: 'string' },
  keep: { type: 'boolean', default: false },
} as const;

interface Plan {
  forMs: number;
  seed: number;
  report: string | null;
  tradesPerSecond: number;
  without: string | null;
  keep: boolean;
}

function makePlan(argv?: string[]): Plan {
  const given = flags(USAGE, OPTIONS, argv);
  const forMs = duration('--for', given.for);
  if (forMs < LEAST_MS) throw new UsageError(`--for takes at least ${LEAST_MS / 1000}s, not "${given.for}"`);
  if (given.without !== undefined && !isSafeguard(given.without))
    throw new UsageError(`--without takes one of ${SAFEGUARDS.join(', ')}, not "${given.without}"`);
  return {
    forMs,
    seed: given.seed === undefined ? Date.now() % MOST_SEED : wholeNumber('--seed', given.seed, 0, MOST_SEED),
    report: given.report ?? null,
    tradesPerSecond: wholeNumber('--trades-per-second', given['trades-per-second'], 1, 5000),
    without: given.without ?? null,
    keep: given.keep,
  };
}

interface TimeLineEntry {
  /** s after the sources began. */
  at: number;
  what: string;
}

/** What is done, and what happens by it, as it happens. */
class TimeLine {
  readonly entries: TimeLineEntry[] = [];
  startedAt = Date.now();

  tell(what: string): void {
    const at = Math.round((Date.now() - this.startedAt) / 100) / 10;
    this.entries.push({ at, what });
    process.stdout.write(`${at.toFixed(1).padStart(7)}  ${what}\n`);
  }
}

/** Does the planned faults at their times, while rows flow. */
async function breakThings(stage: Stage, plan: Plan, faults: PlannedFault[], timeLine: TimeLine, stop: AbortSignal) {
  const memory = new MemoryWatch();
  const sampling = setInterval(() => memory.add(stage.memory()), SAMPLE_MS);
  const status = setInterval(() => void tellStatus(stage, timeLine), STATUS_MS);
  const until = (ms: number) => sleep(Math.max(timeLine.startedAt + ms - Date.now(), 0), undefined, { signal: stop });
  const done: Promise<void>[] = [];
  try {
    for (const { atMs, fault } of faults) {
      await until(atMs);
      const what = describeFault(fault);
      timeLine.tell(what);
      done.push(
        stage
          .apply(fault)
          .catch((error: Error) => error.message)
          .then((reason) => {
            if (reason !== null) timeLine.tell(`${what}: not done, ${reason}`);
          }),
      );
    }
    await until(plan.forMs);
    await Promise.all(done);
  } finally {
    clearInterval(sampling);
    clearInterval(status);
  }
  return memory.figures();
}

/** What was lost last is known by what comes after it. */
async function goOn(stage: Stage, stop: AbortSignal): Promise<void> {
  for (const deadline = Date.now() + WELL_LIMIT_MS; Date.now() < deadline; ) {
    await sleep(SAMPLE_MS, undefined, { signal: stop });
    if ((await stage.system.figures()).faults.length === 0) break;
  }
  await sleep(WELL_MS, undefined, { signal: stop });
}

async function tellStatus(stage: Stage, timeLine: TimeLine): Promise<void> {
  const { received, stored, backlog, faults } = await stage.system.figures();
  timeLine.tell(
    `· received ${received}, stored ${stored}, backlog ${backlog}${faults.length > 0 ? `, ${faults.join('; ')}` : ''}`,
  );
}

/** Runs the plan. @returns the exit code */
async function run(plan: Plan, stop: AbortSignal): Promise<number> {
  const random = seededRandom(seedFor(plan.seed, 'chaos'));
  const timeLine = new TimeLine();
  const stage = await Stage.open({ ...plan, random, say: (line) => timeLine.tell(`· ${line}`) });
  let differences: string[] | null = null;
  try {
    process.stdout.write(`seed ${plan.seed}, ${plan.forMs / 1000} s, data in ${stage.dir}\n`);
    if (stage.diskTrouble !== null) process.stdout.write(`full disks are left out: ${stage.diskTrouble}\n`);
    const { exchanges } = stage.config;
    const faults = faultPlan({ forMs: plan.forMs, random, exchanges, disks: [...stage.disks.keys()] });
    await stage.system.start();
    timeLine.startedAt = Date.now();
    timeLine.tell(`everything runs; ${faults.length} faults to come`);
    const memory = await breakThings(stage, plan, faults, timeLine, stop);
    stage.heal();
    timeLine.tell('the faults are over: the sources go on until all are well');
    if (plan.without === null) await goOn(stage, stop);
    const seconds = (Date.now() - timeLine.startedAt) / 1000;
    timeLine.tell('the sources stop: waiting until all is stored, filled and copied');
    await stage.system.quiet();
    timeLine.tell('all is at rest: comparing');
    const verdict = await stage.verdict();
    ({ differences } = verdict);
    if (plan.forMs >= LEAST_FOR_MEMORY_MS) differences.push(...grown(memory));
    const figures = summary(seconds, verdict);
    tell(plan, figures, verdict, memory);
    if (plan.report !== null) {
      writeJsonAtomic(plan.report, {
        ...plan,
        disks: stage.diskTrouble === null,
        ...figures,
        time_line: timeLine.entries,
        memory,
        ...verdict,
      });
    }
    return differences.length === 0 ? 0 : 1;
  } finally {
    const keep = plan.keep || (differences?.length !== 0 && plan.without === null);
    await stage.close(keep);
    if (keep) {
      const mounted =
        stage.disks.size > 0 ? `; to remove it: umount ${stage.dir}/*/demo/*, then rm -r ${stage.dir}` : '';
      process.stdout.write(`data and logs are in ${stage.dir}${mounted}\n`);
    }
  }
}

function summary(seconds: number, { streams, differences }: Verdict) {
  const sum = (field: (each: Verdict['streams'][number]) => number) =>
    streams.reduce((total, each) => total + field(each), 0);
  return {
    sent: sum((each) => each.sent ?? 0),
    rows_per_s: Math.round(sum((each) => each.sent ?? 0) / seconds),
    hot: sum((each) => each.hot),
    filled: sum((each) => each.filled),
    gap: sum((each) => each.gap),
    lost: sum((each) => each.lost),
    doubled: sum((each) => each.hot - each.hot_unique),
    cold: sum((each) => each.cold),
    balanced: differences.length === 0,
  };
}

function tell(plan: Plan, figures: ReturnType<typeof summary>, verdict: Verdict, memory: MemoryFigures[]): void {
  const { rows_per_s, sent, filled, gap } = figures;
  const lines = [
    verdictTable(verdict.streams),
    `seed ${plan.seed}: ${sent} rows sent (${rows_per_s} a second), ${filled} that nobody listened to fetched back, ${gap} declared missing`,
    ...memory.map(
      ({ process: name, first, last, most }) =>
        `${name}: ${first} MiB in the first third, ${last} in the last, at most ${most}`,
    ),
    ...verdict.differences.map((line) => `DIFFERS  ${line}`),
    verdict.differences.length === 0
      ? 'balanced'
      : `NOT balanced: ${verdict.differences.length} differences; again with --seed ${plan.seed}`,
  ];
  process.stdout.write(`${lines.join('\n')}\n`);
}

async function main(): Promise<number> {
  const plan = makePlan();
  const stop = new AbortController();
  for (const signal of ['SIGINT', 'SIGTERM'] as const)
    process.once(signal, () => stop.abort(new OperatorError('stopped')));
  return run(plan, stop.signal);
}

runAsScript(import.meta.url, main);
