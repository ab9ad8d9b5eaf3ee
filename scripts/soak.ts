const USAGE = `
soak.ts (npm run soak): runs the whole system for hours, looks at it all the time, stops and starts everything in the middle, and tells by measured
figures whether it holds out: memory, connections, speed, errors, cache, stops, and every row.

Usage:   npx tsx scripts/soak.ts --duration 24h
Example: npx tsx scripts/soak.ts --duration 10m
         npm run soak -- --duration 24h --id before-release --keep

Flags:
  --duration TIME    how long samples are taken, 30s to 60h (default 24h); starting, and the balance at the end, come on top
  --demo             simulated exchanges (default)
  --live             the exchanges' real hosts (a live system of the same address shares the venues' limits with it)
  --sample TIME      one sample each so long (default 60s; below an hour 30s)
  --checkpoint TIME  the verdict so far is noted each so long (default 4h; below 8 hours a quarter of the run)
  --id NAME          of the run (default: its time of day and duration)
  --report DIR       where report.json, report.md and plots go (default DATA/soak/ID, where the page /soak finds them)
  --coins N          of the simulated Hyperliquid beside those of the symbols, for the correlation alerter (default 20)
  --seed N           the demo's market (default 1)
  --keep             keeps the run's data (without it they are removed; of a run that did not pass, the logs are kept)
  --plain            lines instead of the page on a terminal

It starts everything itself, with ports, broker, database and data of its own (in data beside the report), so that it runs beside a live system. Nobody is
told of its alerts. Ctrl-C ends it early: the report says so, and the verdict is incomplete. A day needs about 25 GiB of disk.

Environment: MARKETPRISM_DATA_DIR (data), and what is captured: MARKETPRISM_EXCHANGES, MARKETPRISM_SYMBOLS, MARKETPRISM_INSTRUMENTS,
MARKETPRISM_ORDERBOOK_INTERVAL, MARKETPRISM_DESK_COINS, MARKETPRISM_REPLICATION_SECONDS, MARKETPRISM_STREAM_MAX_BYTES.
Exit code: 0 every criterion passed, 1 one failed or could not be measured, 64 wrong usage.
`;

import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { findNatsServer } from './lib/broker.ts';
import { duration, flags, OperatorError, runAsScript, UsageError, wholeNumber } from './lib/cli.ts';
import { loadConfig, type Mode } from './lib/config.ts';
import { VERSION } from './lib/service.ts';
import { summaryOf, viewOf } from './lib/soak/dashboard.ts';
import { soakRoot } from './lib/soak/report.ts';
import { type SoakPlan, SoakRun } from './lib/soak/run.ts';
import { openStage, type SoakStage } from './lib/soak/stage.ts';

const SECOND = 1000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;
/** From one in which something can be seen at all, to as long as hot keeps every row: the balance counts there. */
const DURATION = { least: 30 * SECOND, most: 60 * HOUR };
/** Below that, looking is what is measured. */
const LEAST_SAMPLE = 2 * SECOND;
/** Fewer tell nothing. */
const LEAST_SAMPLES = 6;
const SHORT_RUN = HOUR;
const PLANNED_CHECKPOINT = 4 * HOUR;
const QUARTER = 4;
/** Rounds of the alerter in a run, unless they come more seldom than the soak plan's half hour; s. */
const ROUNDS = 20;
const ROUND_SECONDS = { least: 10, most: 1800 };
const ID = /^[\w.-]{1,80}$/;

const OPTIONS = {
  duration: { type: 'string', default: '24h' },
  demo: { type: 'boolean', default: false },
  live: { type: 'boolean', default: false },
  sample: { type: 'string' },
  checkpoint: { type: 'string' },
  id: { type: 'string' },
  report: { type: 'string' },
  coins: { type: 'string', default: '20' },
  seed: { type: 'string', default: '1' },
  keep: { type: 'boolean', default: false },
  plain: { type: 'boolean', default: false },
} as const;

interface Given extends Omit<SoakPlan, 'exchanges' | 'symbols' | 'code'> {
  dataDir: string;
  seed: string;
  coins: number;
  keep: boolean;
  isPlain: boolean;
}

/** Flags to a plan; nothing is started or written yet. @param now ms since the epoch @throws UsageError */
export function givenPlan(argv: string[] | undefined, now: number): Given {
  const given = flags(USAGE, OPTIONS, argv);
  if (given.live && given.demo) throw new UsageError('--live and --demo exclude each other');
  const forMs = duration('--duration', given.duration);
  if (forMs < DURATION.least || forMs > DURATION.most)
    throw new UsageError(`--duration takes 30s to 60h (hot keeps every row for 3 days), not "${given.duration}"`);
  const sampleMs =
    given.sample === undefined ? (forMs < SHORT_RUN ? 30 : 60) * SECOND : duration('--sample', given.sample);
  if (sampleMs < LEAST_SAMPLE || forMs / sampleMs < LEAST_SAMPLES)
    throw new UsageError(
      `--sample takes 2s or more, and ${LEAST_SAMPLES} of them or more fit into --duration: not ${sampleMs / SECOND}s in ${given.duration}`,
    );
  const checkpointMs =
    given.checkpoint === undefined
      ? Math.min(PLANNED_CHECKPOINT, forMs / QUARTER)
      : duration('--checkpoint', given.checkpoint);
  if (checkpointMs < sampleMs) throw new UsageError('--checkpoint takes no less than the time of a sample');
  const time = new Date(now).toISOString().slice(0, 19).replaceAll('-', '').replaceAll(':', '').replace('T', '-');
  const id = given.id ?? `${time}-${given.duration}`;
  if (!ID.test(id) || /^\.+$/.test(id))
    throw new UsageError(`--id takes up to 80 letters, digits, ., _ and -, not "${id}"`);
  // A run is kept beside all others, whatever mode is set.
  const { dataDir } = loadConfig({ ...process.env, MARKETPRISM_MODE: 'live', MARKETPRISM_ENDPOINTS: '' });
  const mode: Mode = given.live ? 'live' : 'demo';
  const seconds = Math.floor(forMs / SECOND / ROUNDS);
  return {
    ...{ id, mode, forMs, sampleMs, checkpointMs, dataDir, keep: given.keep, isPlain: given.plain },
    directory: given.report ?? join(soakRoot(dataDir), id),
    roundSeconds: Math.min(Math.max(seconds, ROUND_SECONDS.least), ROUND_SECONDS.most),
    coins: wholeNumber('--coins', given.coins, 1, 500),
    seed: String(wholeNumber('--seed', given.seed, 0, 2 ** 31)),
  };
}

/** What is running, as far as it is known: a release has no history beside it. */
function codeName(): string {
  try {
    const said = execFileSync('git', ['describe', '--always', '--dirty'], {
      ...{ cwd: import.meta.dirname, encoding: 'utf8' },
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    return `${VERSION} ${said.trim()}`;
  } catch {
    return VERSION;
  }
}

/** Aborts at the first signal; the second one ends it at once. */
function interrupted(): AbortSignal {
  const stop = new AbortController();
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.on(signal, () => {
      if (stop.signal.aborted) process.exit(1);
      stop.abort(new OperatorError(`stopped by ${signal}`));
    });
  }
  return stop.signal;
}

/** Removes the run's data; of one that did not pass, what its processes said is kept. */
function tidy({ dir, config }: SoakStage, { keep, directory }: Given, hasPassed: boolean): void {
  if (keep) return;
  const logs = join(config.dataDir, 'logs');
  if (!hasPassed && existsSync(logs)) renameSync(logs, join(directory, 'logs'));
  rmSync(dir, { recursive: true, force: true });
}

async function main(): Promise<number> {
  const given = givenPlan(undefined, Date.now());
  if (findNatsServer() === null)
    throw new OperatorError('nats-server is not installed: npm run soak installs it, or apt-get install nats-server');
  if (existsSync(join(given.directory, 'report.json')) || existsSync(join(given.directory, 'data')))
    throw new UsageError(`there is a run in ${given.directory} already: choose another --id, or another --report`);
  const stop = interrupted();
  let say = (line: string): void => {
    process.stdout.write(`${line}\n`);
  };
  const options = { ...given, sampleMs: given.sampleMs, environment: process.env, say: (line: string) => say(line) };
  const stage = await openStage(options);
  const { exchanges, symbols } = stage.config;
  mkdirSync(given.directory, { recursive: true });
  say(`soak ${given.id}: report ${given.directory}, pages of the run ${stage.page}`);
  const view = viewOf(process.stdout, given.isPlain, stage.page);
  const run = new SoakRun({ ...given, code: codeName(), exchanges, symbols }, stage, view);
  say = (line) => run.note(line);
  try {
    const report = await run.run(stop);
    view.close();
    const hasPassed = report.verdict === 'passed';
    tidy(stage, given, hasPassed);
    process.stdout.write(`${summaryOf(report)}\nreport: ${join(given.directory, 'report.md')}\n`);
    return hasPassed ? 0 : 1;
  } finally {
    view.close();
  }
}

runAsScript(import.meta.url, main);
