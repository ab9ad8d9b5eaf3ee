const USAGE = `
up.ts (npm start): brings up broker, database, store and collector, and watches them.

Usage:   npm start [-- FLAGS]
Example: npm start -- --demo --for 60s --report r.json

Flags:
  --live               the exchanges' real hosts; fails when none can be reached
  --demo               simulated exchanges, own databases (marketprism_demo_*) and own data (data/demo), emptied first
                       (neither: live when an exchange answers within a few seconds, else demo)
  --for TIME           stop the sources after this time (60s, 10m), store everything, print the ledger; exit 0 only when it
                       balances
  --report FILE        also write the ledger as JSON
  --nats-port N        the own broker's port (default 4222; its monitoring on N + 4000)
  --clickhouse-port N  the embedded database's port (default 8123)
  --seed N             the demo's market (default 1)

Needs nothing set up by hand. With MARKETPRISM_NATS_URL or CLICKHOUSE_URL set, that broker or database is used instead of an own
one (not in a demo). Logs: data/logs/NAME.log, in a demo data/demo/logs/NAME.log. Ctrl-C stops all in order.
`;

import { accessSync, constants, mkdirSync, readFileSync, rmSync, statfsSync } from 'node:fs';
import { createServer } from 'node:net';
import { join, resolve } from 'node:path';
import { createClient } from '@clickhouse/client';
import { connect, type NatsConnection } from 'nats';
import { request } from 'undici';
import { exchangeModule } from './exchanges/index.ts';
import { brokerPlan, findNatsServer, MONITOR_OFFSET, natsAnswers } from './lib/broker.ts';
import { duration, flags, OperatorError, runAsScript, UsageError, wholeNumber } from './lib/cli.ts';
import { createClickHouse } from './lib/clickhouse.ts';
import { type Config, loadConfig, type Mode } from './lib/config.ts';
import { DEFAULT_SESSIONS, engineEnvironment } from './lib/embedded/environment.ts';
import { readJson, writeJsonAtomic } from './lib/files.ts';
import { ensureStreams } from './lib/jetstream.ts';
import {
  balance,
  countGaps,
  countPublished,
  countStored,
  type Figures,
  type LedgerReport,
  ledgerKey,
  ledgerTable,
  type Published,
} from './lib/ledger.ts';
import { type Lock, takeLock } from './lib/lock.ts';
import { createLogger } from './lib/log.ts';
import { Child, type ChildPlan, scriptPlan, waitFor } from './lib/processes.ts';
import type { DataType } from './lib/rows.ts';
import { type StreamName, streamDefinitions } from './lib/streams.ts';

const PROBE_LIMIT_MS = 4000;
/** A first start reads 540 MB of engine from a cold disk. */
const START_LIMIT_MS = 120_000;
/** Less free disk than this would end in a full one within minutes. */
const LEAST_FREE_BYTES = 2 ** 30;
/** At the end of a timed run: the sources count as dry when nothing new came for this long. */
const QUIET_MS = 2000;
const DRAIN_LIMIT_MS = 120_000;
const STATUS_MS = 1000;
/** A service that has just begun has not had its first rows yet; its faults are told after that. */
const SETTLING_SECONDS = 10;
/** Without a terminal a status line is told this often. */
const PLAIN_STATUS_MS = 10_000;

const OPTIONS = {
  live: { type: 'boolean', default: false },
  demo: { type: 'boolean', default: false },
  for: { type: 'string' },
  report: { type: 'string' },
  'nats-port': { type: 'string', default: '4222' },
  'clickhouse-port': { type: 'string', default: '8123' },
  seed: { type: 'string', default: '1' },
} as const;

interface Plan {
  mode: Mode;
  config: Config;
  /** Null: no own broker. */
  natsPort: number | null;
  /** Null: no own database. */
  clickhousePort: number | null;
  forMs: number | null;
  report: string | null;
  seed: string;
  /** For the children. */
  env: NodeJS.ProcessEnv;
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
  if (mode === 'demo') env.MARKETPRISM_ENDPOINTS = join(config.dataDir, 'endpoints.json');
  return {
    mode,
    config,
    natsPort: ownNats ? natsPort : null,
    clickhousePort: ownClickhouse ? clickhousePort : null,
    forMs,
    report: options.report ?? null,
    seed: options.seed,
    env,
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
    [config.healthPort, 'HEALTH_CHECK_PORT'],
    [config.metricsPort, 'METRICS_PORT'],
  ];
  for (const [port, setting] of ports) {
    if (port !== null && port !== 0 && !(await portFree(port))) {
      throw new OperatorError(`port ${port} is in use: stop what listens there, or choose another one with ${setting}`);
    }
  }
}

function portFree(port: number): Promise<boolean> {
  return new Promise((done) => {
    const server = createServer();
    server.once('error', () => done(false));
    server.listen(port, '127.0.0.1', () => server.close(() => done(true)));
  });
}

/** The running set: children in the order of their start, and what is known of this run. */
class System {
  readonly children = new Map<string, Child>();
  startedAt = Date.now();
  bases: Record<StreamName, number> = { MARKET_DATA: 0, ORDERBOOK_SNAP: 0 };
  private startFailure: Error | null = null;
  private starting = true;
  private stopping = false;

  constructor(readonly plan: Plan) {}

  get restarts(): number {
    return [...this.children.values()].reduce((sum, child) => sum + child.restarts, 0);
  }

  /** Starts everything in order; each part waits for what it stands on. */
  async start(): Promise<void> {
    const { plan } = this;
    const { config, env } = plan;
    const logDir = join(config.dataDir, 'logs');
    const definitions = streamDefinitions(config.streamMaxBytes ?? streamBudget(config.dataDir));
    const streamBytes = definitions.reduce((sum, each) => sum + each.maxBytes, 0);
    env.MARKETPRISM_STREAM_MAX_BYTES ??= String(streamBytes);
    if (plan.natsPort !== null) {
      const directory = resolve(config.dataDir, 'nats');
      this.launch(brokerPlan(findNatsServer()!, directory, plan.natsPort, streamBytes, logDir));
    }
    if (plan.clickhousePort !== null) {
      const args = ['--data-dir', join(config.dataDir, 'clickhouse'), '--port', String(plan.clickhousePort)];
      // With its environment set from outside it needs no process of its own for that.
      const engineEnv = { ...env, ...engineEnvironment(DEFAULT_SESSIONS) };
      this.launch(scriptPlan('clickhouse_embedded', args, engineEnv, logDir));
    }
    if (plan.mode === 'demo') this.launch(scriptPlan('exchange_sim', this.simulatorArgs(), env, logDir));
    if (plan.natsPort !== null) await this.ready('nats-server', () => natsAnswers(plan.natsPort!));
    await this.ready('the database', () => this.databaseAnswers());
    if (plan.mode === 'demo')
      await this.ready('exchange_sim', async () => readJson(env.MARKETPRISM_ENDPOINTS!) !== null);
    await this.withNats(async (nats) => {
      const manager = await nats.jetstreamManager();
      await ensureStreams(manager, definitions, createLogger('up', 'error'));
      for (const { name } of definitions) this.bases[name] = (await manager.streams.info(name)).state.last_seq;
    });
    this.startedAt = Date.now();
    this.launch(scriptPlan('store', [], env, logDir));
    this.launch(scriptPlan('collector', [], env, logDir));
    await this.ready('store', async () => (await getJson(config.storePort)) !== null);
    await this.ready('collector', async () => (await getJson(config.healthPort)) !== null);
    this.starting = false;
  }

  /** Stops in order: sources first, so that all that they gave is stored by what still runs. */
  async stop(): Promise<void> {
    this.starting = false;
    this.stopping = true;
    await this.children.get('collector')?.stop();
    if (this.children.get('store')?.running) await this.drained(5000);
    for (const name of ['store', 'exchange_sim', 'clickhouse_embedded', 'nats-server'])
      await this.children.get(name)?.stop();
  }

  /** The ledger of this run: the sources stop, everything is stored, then both ends are counted. */
  async settle(): Promise<LedgerReport> {
    const { plan } = this;
    const seconds = (Date.now() - this.startedAt) / 1000;
    const sent = plan.mode === 'demo' ? await this.stopSimulator() : null;
    await this.children.get('collector')!.stop();
    await this.drained(DRAIN_LIMIT_MS);
    const client = createClickHouse(clickhouseServer(plan.config), 'marketprism-up');
    const published: Published = { rows: new Map(), byBoot: new Map() };
    try {
      await this.withNats(async (nats) => {
        for (const name of Object.keys(this.bases) as StreamName[]) {
          await countPublished(nats, name, this.bases[name], published);
        }
      });
      const figures: Figures = {
        received: this.received(published),
        published: published.rows,
        stored: await countStored(client, plan.config.hotDatabase, this.bases),
        gaps: await countGaps(client, plan.config.hotDatabase, this.bases.MARKET_DATA),
        sent,
      };
      return balance(plan.mode, Math.round(seconds * 10) / 10, figures);
    } finally {
      await client.close();
    }
  }

  /** One line of figures; null while a service does not answer. */
  async figures(): Promise<{ received: number; stored: number; backlog: number; faults: string[] }> {
    const { config } = this.plan;
    const [collector, store] = await Promise.all([getJson(config.healthPort), getJson(config.storePort)]);
    const faults: string[] = [];
    for (const [name, document] of [
      ['collector', collector],
      ['store', store],
    ] as const) {
      if (document === null) {
        faults.push(`${name} does not answer`);
        continue;
      }
      if (document.uptime < SETTLING_SECONDS) continue;
      for (const [check, state] of Object.entries(document.checks)) {
        if (state.status === 'unhealthy') faults.push(`${check}: ${state.error_message}`);
      }
    }
    const checks = Object.values(store?.checks ?? {});
    const sum = (field: 'inserted' | 'backlog') =>
      checks.reduce((total, each) => total + (each.details?.[field] ?? 0), 0);
    const received = (collector?.received ?? []).reduce((total, each) => total + each.received, 0);
    return { received, stored: sum('inserted'), backlog: sum('backlog'), faults };
  }

  private launch(plan: ChildPlan): void {
    if (this.stopping) throw new OperatorError('stopped while starting');
    const child = new Child(plan, ({ code, signal, lastLine }) => {
      const how = signal ? `was killed (${signal})` : `ended with code ${code}`;
      if (this.starting) {
        this.startFailure = new OperatorError(
          `${plan.name} ${how}: ${lastLine || `see ${plan.logDir}/${plan.name}.log`}`,
        );
        return false;
      }
      say(`${plan.name} ${how}: starting it again${lastLine ? ` (${lastLine})` : ''}`);
      return true;
    });
    this.children.set(plan.name, child);
    child.start();
  }

  private ready(what: string, probe: () => Promise<boolean>): Promise<void> {
    const failed = () => (this.stopping ? new OperatorError('stopped while starting') : this.startFailure);
    return waitFor(what, START_LIMIT_MS, probe, failed);
  }

  private simulatorArgs(): string[] {
    const { config, seed, env } = this.plan;
    const exchanges = ['--exchanges', config.exchanges.join(','), '--symbols', config.symbols.join(',')];
    return ['--port', '0', '--seed', seed, ...exchanges, '--endpoints', env.MARKETPRISM_ENDPOINTS!];
  }

  private async databaseAnswers(): Promise<boolean> {
    const { config } = this.plan;
    const client = createClient({ url: config.clickhouseUrl, log: { level: 127 } });
    try {
      return (await client.ping()).success;
    } finally {
      await client.close();
    }
  }

  private async withNats(work: (nats: NatsConnection) => Promise<void>): Promise<void> {
    const nats = await connect({ servers: this.plan.config.natsUrl.split(','), name: 'up' });
    try {
      await work(nats);
    } finally {
      await nats.close();
    }
  }

  /** Waits until the store has acknowledged everything, or the time is over. */
  private async drained(limitMs: number): Promise<void> {
    await this.withNats(async (nats) => {
      const manager = await nats.jetstreamManager();
      const deadline = Date.now() + limitMs;
      while (Date.now() < deadline) {
        let open = 0;
        for (const { name } of streamDefinitions()) {
          for await (const info of manager.consumers.list(name)) open += info.num_pending + info.num_ack_pending;
        }
        if (open === 0) return;
        await sleep(200);
      }
    });
  }

  /** Stops the simulated markets, waits until the collector has read what is on the way. @returns what was sent */
  private async stopSimulator(): Promise<Map<string, number>> {
    const control = this.simulatorControl();
    await request(`${control}/control`, { method: 'POST', body: JSON.stringify({ action: 'stop' }) });
    const deadline = Date.now() + DRAIN_LIMIT_MS;
    let last = -1;
    for (let quietSince = Date.now(); Date.now() - quietSince < QUIET_MS && Date.now() < deadline; await sleep(100)) {
      const { received } = await this.figures();
      if (received !== last) quietSince = Date.now();
      last = received;
    }
    const { body } = await request(`${control}/ledger`);
    const ledger = (await body.json()) as { streams: { exchange: string; data_type: string; sent: number }[] };
    const sent = new Map<string, number>();
    for (const stream of ledger.streams) {
      const key = ledgerKey(stream.exchange, stream.data_type);
      sent.set(key, (sent.get(key) ?? 0) + stream.sent);
    }
    return sent;
  }

  /** The simulator logs where it listens. */
  private simulatorControl(): string {
    const log = readFileSync(join(this.plan.config.dataDir, 'logs', 'exchange_sim.log'), 'utf8');
    const controls = [...log.matchAll(/"control":"([^"]+)"/g)];
    const last = controls[controls.length - 1]?.[1];
    if (!last) throw new OperatorError('exchange_sim has not said where it listens');
    return last;
  }

  /** Of the collector's last run its own count; of runs that were killed, what they had published. */
  private received(published: Published): Map<string, number> {
    const { config } = this.plan;
    const report = readJson(join(config.dataDir, 'state', `collector-${config.collectorId}.json`)) as {
      boot: string;
      started: number;
      rows: { exchange: string; data_type: DataType; received: number }[];
    } | null;
    const current = report !== null && report.started >= this.startedAt ? report : null;
    const out = new Map(current?.rows.map((row) => [ledgerKey(row.exchange, row.data_type), row.received]));
    for (const [boot, counts] of published.byBoot) {
      if (boot === current?.boot) continue;
      for (const [key, rows] of counts) out.set(key, (out.get(key) ?? 0) + rows);
    }
    return out;
  }
}

/** Both streams together take at most half of the free disk. */
function streamBudget(directory: string): number | undefined {
  const disk = statfsSync(directory);
  const full = streamDefinitions().reduce((sum, each) => sum + each.maxBytes, 0);
  const half = Math.floor((disk.bavail * disk.bsize) / 2);
  return half < full ? half : undefined;
}

function clickhouseServer(config: Config) {
  return { url: config.clickhouseUrl, username: config.clickhouseUser, password: config.clickhousePassword };
}

interface StatusDocument {
  uptime: number;
  checks: Record<
    string,
    { status: string; error_message: string | null; details?: { inserted?: number; backlog?: number } }
  >;
  received?: { received: number }[];
}

/** A service's /health, or null when it does not answer. */
async function getJson(port: number): Promise<StatusDocument | null> {
  try {
    const { body } = await request(`http://127.0.0.1:${port}/health`, { signal: AbortSignal.timeout(2000) });
    return (await body.json()) as StatusDocument;
  } catch {
    // Starting, restarting or hanging: for a status line it is all the same, and the caller says so.
    return null;
  }
}

/** Shows a line that is always fresh on a terminal, and now and then elsewhere. */
class StatusLine {
  private shownAt = 0;
  private last = { received: 0, stored: 0, at: Date.now() };

  constructor(private readonly system: System) {}

  async show(): Promise<void> {
    const { received, stored, backlog, faults } = await this.system.figures();
    const now = Date.now();
    const seconds = (now - this.last.at) / 1000;
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
    }
  }

  end(): void {
    if (process.stdout.isTTY) process.stdout.write('\n');
  }
}

function clock(ms: number): string {
  return new Date(ms).toISOString().slice(11, 19);
}

function say(line: string): void {
  process.stdout.write(process.stdout.isTTY ? `\r\x1b[K${line}\n` : `${line}\n`);
}

function sleep(ms: number): Promise<void> {
  return new Promise((done) => setTimeout(done, ms));
}

/** Resolves at the first SIGINT or SIGTERM; a second one ends at once. */
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
  });
}

/** Watches until interrupted or the time is over. */
async function watch(system: System, stopped: Promise<'stopped'>): Promise<'stopped' | 'elapsed'> {
  const { forMs } = system.plan;
  const status = new StatusLine(system);
  const deadline = forMs === null ? Number.POSITIVE_INFINITY : system.startedAt + forMs;
  let end: 'stopped' | 'elapsed' | null = null;
  void stopped.then((word) => {
    end ??= word;
  });
  while (end === null) {
    await status.show();
    await Promise.race([stopped, sleep(Math.max(Math.min(STATUS_MS, deadline - Date.now()), 0))]);
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
      `${plan.mode}: database ${config.clickhouseUrl} (${config.hotDatabase}), broker ${config.natsUrl}, data ${config.dataDir}`,
    );
    const end = await watch(system, stopped);
    if (end === 'stopped' || plan.forMs === null) {
      say('stopping: collector, store, database, broker');
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
  const lock: Lock = await takeLock(config.dataDir, 'npm start');
  const stopped = interrupted();
  if (plan.mode === 'demo') {
    for (const part of ['nats', 'clickhouse', 'state', 'deadletter', 'logs', 'endpoints.json']) {
      rmSync(join(config.dataDir, part), { recursive: true, force: true });
    }
  }
  try {
    return await run(plan, stopped);
  } finally {
    await lock.release();
  }
}

runAsScript(import.meta.url, main);
