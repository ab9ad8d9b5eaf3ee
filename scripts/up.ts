const USAGE = `
up.ts (npm start): brings up broker, database, store, collector, replication, the monitor, the scripts of signals and the pages, and watches them.

Usage:   npm start [-- FLAGS]
Example: npm start -- --demo --for 60s --report r.json

Flags:
  --live               the exchanges' real hosts; fails when none can be reached
  --demo               simulated exchanges, own databases (marketprism_demo_*) and own data (data/demo), emptied first
                       (neither: live when an exchange answers within a few seconds, else demo)
  --core               only what captures and stores: no monitor, no signals, no pages
  --for TIME           stop the sources after this time (60s, 10m), store everything, print the ledger; exit 0 only when it
                       balances
  --report FILE        also write the ledger as JSON
  --nats-port N        the own broker's port (default 4222; its monitoring on N + 4000)
  --clickhouse-port N  the embedded database's port (default 8123)
  --seed N             the demo's market (default 1)

Needs nothing set up by hand. With MARKETPRISM_NATS_URL or CLICKHOUSE_URL set, that broker or database is used instead of an own
one (not in a demo). Pages: http://127.0.0.1:5000 (WEB_HTTP_PORT). What changes something there needs MARKETPRISM_API_TOKEN; in a demo
that is "marketprism-demo" unless set. Logs: data/logs/NAME.log, in a demo data/demo/logs/NAME.log. Ctrl-C stops all in order.
`;

import { accessSync, constants, mkdirSync, readdirSync, rmSync, statfsSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { request } from 'undici';
import { exchangeModule } from './exchanges/index.ts';
import { findNatsServer, MONITOR_OFFSET } from './lib/broker.ts';
import { duration, flags, OperatorError, runAsScript, UsageError, wholeNumber } from './lib/cli.ts';
import { type Config, DEMO_ENDPOINTS, loadConfig, type Mode, shownUrl } from './lib/config.ts';
import { writeJsonAtomic } from './lib/files.ts';
import { isPortFree } from './lib/free_port.ts';
import { heedHangup } from './lib/hangup.ts';
import { ledgerTable } from './lib/ledger.ts';
import { takeLock } from './lib/lock.ts';
import { pause } from './lib/pause.ts';
import { SERVICES } from './lib/services.ts';
import { System, type SystemPlan } from './lib/system.ts';

const PROBE_LIMIT_MS = 4000;
/** Less free disk than this would end in a full one within minutes. */
const LEAST_FREE_BYTES = 2 ** 30;
const STATUS_MS = 1000;
/** Without a terminal a status line is told this often. */
const PLAIN_STATUS_MS = 10_000;

/** They read what the others store. The pages come first: they are there at once. */
const READERS = SERVICES.filter(({ role }) => role === 'reader').map(({ name }) => name);
/** They ask for the owner's own positions, and are of use only to who has given keys. */
const POSITIONS_READERS = SERVICES.filter(({ role }) => role === 'keys').map(({ name }) => name);
const DEMO_TOKEN = 'marketprism-demo';

const OPTIONS = {
  live: { type: 'boolean', default: false },
  demo: { type: 'boolean', default: false },
  core: { type: 'boolean', default: false },
  for: { type: 'string' },
  report: { type: 'string' },
  'nats-port': { type: 'string', default: '4222' },
  'clickhouse-port': { type: 'string', default: '8123' },
  seed: { type: 'string', default: '1' },
} as const;

interface Plan extends SystemPlan {
  forMs: number | null;
  report: string | null;
}

/** Flags and environment to one plan; nothing is started or written yet. */
async function makePlan(argv?: string[]): Promise<Plan> {
  const options = flags(USAGE, OPTIONS, argv);
  if (options.live && options.demo) throw new UsageError('--live and --demo exclude each other');
  const natsPort = wholeNumber('--nats-port', options['nats-port'], 1, 65_535 - MONITOR_OFFSET);
  const clickhousePort = wholeNumber('--clickhouse-port', options['clickhouse-port'], 1, 65_535);
  const forMs = options.for === undefined ? null : duration('--for', options.for);
  // A wrong variable is told before the exchanges are probed.
  const given = loadConfig();
  for (const name of given.exchanges) exchangeModule(name);
  const mode = await chooseMode(options.live, options.demo || process.env.MARKETPRISM_MODE === 'demo', given);
  const ownNats = !process.env.MARKETPRISM_NATS_URL && !process.env.NATS_URL;
  const ownClickhouse = !process.env.CLICKHOUSE_URL;
  if (mode === 'demo') {
    const foreign = ['MARKETPRISM_NATS_URL', 'NATS_URL', 'CLICKHOUSE_URL', 'MARKETPRISM_COLD_CLICKHOUSE_URL'];
    const set = foreign.filter((name) => process.env[name]);
    if (set.length > 0) {
      throw new UsageError(`a demo uses only a broker and a database that it starts itself: unset ${set.join(', ')}`);
    }
  }
  const env: NodeJS.ProcessEnv = { ...process.env, MARKETPRISM_MODE: mode };
  if (ownNats) env.MARKETPRISM_NATS_URL = `nats://127.0.0.1:${natsPort}`;
  if (ownClickhouse) env.CLICKHOUSE_URL = `http://127.0.0.1:${clickhousePort}`;
  const config = loadConfig(env);
  if (mode === 'demo') {
    env.MARKETPRISM_ENDPOINTS = join(config.dataDir, DEMO_ENDPOINTS);
    env.MARKETPRISM_API_TOKEN ??= DEMO_TOKEN;
  }
  return {
    mode,
    config,
    natsPort: ownNats ? natsPort : null,
    clickhousePort: ownClickhouse ? clickhousePort : null,
    forMs,
    report: options.report ?? null,
    seed: options.seed,
    readers: options.core ? [] : config.okxKey === undefined ? READERS : [...READERS, ...POSITIONS_READERS],
    env,
    say,
  };
}

async function chooseMode(live: boolean, demo: boolean, config: Config): Promise<Mode> {
  if (demo) return 'demo';
  const answers = await Promise.all(
    config.exchanges.map((name) => reachable(config.endpoints[name]?.rest ?? exchangeModule(name).hosts.rest)),
  );
  const open = config.exchanges.filter((_, index) => answers[index] === null);
  if (open.length > 0) {
    say(`live: ${open.join(', ')} answer`);
    return 'live';
  }
  const reason = answers[0] ?? 'no exchange is configured';
  if (live)
    throw new OperatorError(`no exchange can be reached (${reason}); npm start -- --demo runs with simulated ones`);
  say(`no exchange can be reached (${reason}): demo with simulated exchanges`);
  return 'demo';
}

/** Null when the host serves us, else why not. */
async function reachable(host: string): Promise<string | null> {
  try {
    const { statusCode, body } = await request(host, { signal: AbortSignal.timeout(PROBE_LIMIT_MS) });
    await body.dump();
    return statusCode === 403 || statusCode === 451 ? `${host} answers HTTP ${statusCode}` : null;
  } catch (error) {
    const { message, code } = error as NodeJS.ErrnoException;
    return `${host}: ${code ?? message}`;
  }
}

/** Everything that can be wrong before anything is started, each as one clear line. */
async function checkMachine(plan: Plan): Promise<void> {
  const { config } = plan;
  const directory = resolve(config.dataDir);
  try {
    mkdirSync(directory, { recursive: true });
    accessSync(directory, constants.W_OK);
  } catch (error) {
    throw new OperatorError(
      `cannot write to the data directory ${directory}: ${(error as NodeJS.ErrnoException).code}`,
    );
  }
  const disk = statfsSync(directory);
  const free = disk.bavail * disk.bsize;
  if (free < LEAST_FREE_BYTES) {
    const mib = Math.floor(free / 2 ** 20);
    throw new OperatorError(
      `only ${mib} MiB are free at ${directory}: at least ${LEAST_FREE_BYTES / 2 ** 20} MiB are needed`,
    );
  }
  if (plan.natsPort !== null && findNatsServer() === null) {
    throw new OperatorError(
      'nats-server is not installed: run npm start (it installs it), or apt-get install nats-server',
    );
  }
  const ports: [number | null, string][] = [
    [plan.natsPort, '--nats-port'],
    [plan.natsPort === null ? null : plan.natsPort + MONITOR_OFFSET, '--nats-port'],
    [plan.clickhousePort, '--clickhouse-port'],
    [config.storePort, 'HOT_STORAGE_HTTP_PORT'],
    [config.replicatePort, 'COLD_STORAGE_HTTP_PORT'],
    [config.healthPort, 'HEALTH_CHECK_PORT'],
    [config.metricsPort, 'METRICS_PORT'],
    ...(plan.readers?.length === 0
      ? []
      : ([
          [config.monitorPort, 'MONITOR_HTTP_PORT'],
          [config.webPort, 'WEB_HTTP_PORT'],
        ] as [number, string][])),
  ];
  for (const [port, setting] of ports) {
    if (port === 0)
      throw new UsageError(`${setting} must be a fixed port here, because npm start asks the services there`);
    if (port !== null && !(await isPortFree(port))) {
      throw new OperatorError(`port ${port} is in use: stop what listens there, or choose another one with ${setting}`);
    }
  }
}

/** Shows a line that is always fresh on a terminal, and now and then elsewhere. */
class StatusLine {
  private shownAt = 0;
  private unshown = '';
  private last = { received: 0, stored: 0, at: Date.now() };

  constructor(private readonly system: System) {}

  async show(): Promise<void> {
    const { received, stored, backlog, faults } = await this.system.figures();
    const now = Date.now();
    // Two lines close together would tell a rate of nothing.
    const seconds = Math.max((now - this.last.at) / 1000, 1);
    const rate = (value: number, before: number) => Math.max(Math.round((value - before) / seconds), 0);
    const text = [
      `${clock(now - this.system.startedAt)} ${this.system.plan.mode}`,
      `received ${received} (${rate(received, this.last.received)}/s)`,
      `stored ${stored} (${rate(stored, this.last.stored)}/s)`,
      `backlog ${backlog}`,
      `restarts ${this.system.restarts}`,
      faults.length === 0 ? 'ok' : `${faults.length} faults: ${faults[0]}`,
    ].join('  ');
    this.last = { received, stored, at: now };
    if (process.stdout.isTTY) process.stdout.write(`\r\x1b[K${text.slice(0, (process.stdout.columns || 120) - 1)}`);
    else if (now - this.shownAt >= PLAIN_STATUS_MS) {
      process.stdout.write(`${text}\n`);
      this.shownAt = now;
      this.unshown = '';
    } else this.unshown = `${text}\n`;
  }

  /** The last figures stay to be read. */
  end(): void {
    process.stdout.write(process.stdout.isTTY ? '\n' : this.unshown);
  }
}

function clock(ms: number): string {
  return new Date(ms).toISOString().slice(11, 19);
}

function say(line: string): void {
  process.stdout.write(process.stdout.isTTY ? `\r\x1b[K${line}\n` : `${line}\n`);
}

/** Resolves at the first SIGINT or SIGTERM, or when the terminal is closed; a second signal ends at once. */
function interrupted(): Promise<'stopped'> {
  return new Promise((done) => {
    const onSignal = () => {
      for (const each of ['SIGINT', 'SIGTERM'] as const) {
        process.off(each, onSignal);
        process.once(each, () => process.exit(1));
      }
      done('stopped');
    };
    process.on('SIGINT', onSignal);
    process.on('SIGTERM', onSignal);
    heedHangup(onSignal);
  });
}

/** Watches until interrupted or the time is over. */
async function watch(system: System, plan: Plan, stopped: Promise<'stopped'>): Promise<'stopped' | 'elapsed'> {
  const { forMs } = plan;
  const status = new StatusLine(system);
  const deadline = forMs === null ? Number.POSITIVE_INFINITY : system.startedAt + forMs;
  let end: 'stopped' | 'elapsed' | null = null;
  void stopped.then((word) => {
    end ??= word;
  });
  while (end === null) {
    await status.show();
    await Promise.race([stopped, pause(Math.max(Math.min(STATUS_MS, deadline - Date.now()), 0))]);
    if (Date.now() >= deadline) end ??= 'elapsed';
  }
  status.end();
  return end;
}

/** Runs the plan. @returns the exit code */
async function run(plan: Plan, stopped: Promise<'stopped'>): Promise<number> {
  const system = new System(plan);
  try {
    const started = system.start().then(() => 'started' as const);
    if ((await Promise.race([started, stopped])) === 'stopped') {
      // What is still being started ends with the others; its complaint about that is no news.
      void started.catch(() => undefined);
      return 0;
    }
    const { config } = plan;
    say(
      `${plan.mode}: database ${shownUrl(config.clickhouseUrl)} (${config.hotDatabase}), broker ${shownUrl(config.natsUrl)}, data ${config.dataDir}`,
    );
    if (plan.readers?.includes('web')) say(`pages: http://127.0.0.1:${config.webPort}`);
    const end = await watch(system, plan, stopped);
    if (end === 'stopped' || plan.forMs === null) {
      say('stopping: pages and signals, collector, replication, store, database, broker');
      return 0;
    }
    say('time is over: storing what was received');
    const report = await system.settle();
    process.stdout.write(`${ledgerTable(report)}\n${report.balanced ? 'balanced' : 'NOT balanced'}\n`);
    if (plan.report !== null) writeJsonAtomic(plan.report, report);
    return report.balanced ? 0 : 1;
  } finally {
    await system.stop();
  }
}

async function main(): Promise<number> {
  const plan = await makePlan();
  await checkMachine(plan);
  const { config } = plan;
  const lock = await takeLock(config.dataDir, 'npm start');
  const stopped = interrupted();
  if (plan.mode === 'demo') {
    for (const part of readdirSync(config.dataDir)) rmSync(join(config.dataDir, part), { recursive: true });
  }
  try {
    return await run(plan, stopped);
  } finally {
    await lock.release();
  }
}

runAsScript(import.meta.url, main);
