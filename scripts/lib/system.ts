/** The whole set of processes behind `npm start`: started in order, watched, stopped in order, and its rows balanced. */
import { statfsSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { createClient } from '@clickhouse/client';
import { connect, type NatsConnection } from 'nats';
import { request } from 'undici';
import { brokerPlan, findNatsServer, natsAnswers } from './broker.ts';
import { OperatorError } from './cli.ts';
import { type Config, loadConfig, type Mode, shownUrl } from './config.ts';
import { unacknowledged } from './durables.ts';
import { DEFAULT_SESSIONS, engineEnvironment } from './embedded/environment.ts';
import { readJson, writeJsonAtomic } from './files.ts';
import { ensureStreams } from './jetstream.ts';
import { linesOfAll } from './jsonl.ts';
import { type GappedStream, type LedgerReport, ledgerKey } from './ledger.ts';
import { createLogger } from './log.ts';
import { pause } from './pause.ts';
import { Child, type ChildExit, type ChildPlan, RESTARTS_FILE, scriptPlan, waitFor } from './processes.ts';
import { drawLedger } from './run_ledger.ts';
import { steadyNow } from './steady.ts';
import { type StreamName, streamDefinitions } from './streams.ts';

/** A first start reads 540 MB of engine from a cold disk. */
const START_LIMIT_MS = 120_000;
const FOREIGN_LIMIT_MS = 10_000;
/** At the end of a timed run: the sources count as dry when nothing new came for this long. */
const QUIET_MS = 2000;
const DRAIN_LIMIT_MS = 120_000;
/** Gaps that a timed run still has are filled for up to this long at its end. */
const GAPS_LIMIT_MS = 180_000;
/** Rows that came last are in hot after this. */
const GAP_LOOK_MARGIN_MS = 2000;
/** At a plain stop, what is left after this time waits in JetStream for the next start. */
const STOP_DRAIN_MS = 5000;
/** A broker that answers, while its JetStream does not, is asked so often, and given up after so many times without an answer. */
const BROKER_ASKED_EVERY_MS = 5000;
const BROKER_ANSWER_MS = 5000;
const BROKER_SILENT_TIMES = 3;
/** A service that has just begun has not had its first rows yet; its faults are told after that. */
const SETTLING_SECONDS = 10;

export interface SystemPlan {
  mode: Mode;
  config: Config;
  /** Null: no own broker. */
  natsPort: number | null;
  /** Null: no own database. */
  clickhousePort: number | null;
  /** Of the simulated market. */
  seed: string;
  /** For the children. */
  env: NodeJS.ProcessEnv;
  /** Tells the operator a line. */
  say(line: string): void;
  /** Further flags of the simulator. */
  simulatorFlags?: string[];
  /** Collectors of the same markets beside the first: a name, and what differs in the environment. */
  otherCollectors?: { name: string; env: NodeJS.ProcessEnv }[];
  /** So much went wrong that there are gaps nobody has found yet: they are looked for at the end, and filled for up to this long, ms. */
  gapsLimitMs?: number;
  /** Scripts that read what is stored, started last and stopped first; a run balances without them. */
  readers?: readonly string[];
  /** Has the last word on how a child is started. */
  adjust?(plan: ChildPlan): ChildPlan;
}

/** How a child ended that was asked to. */
export interface ChildEnd extends ChildExit {
  name: string;
  /** From the signal to its end. */
  ms: number;
}

interface Collector {
  name: string;
  env: NodeJS.ProcessEnv;
  config: Config;
}

/** The running set: children in the order of their start, and what is known of this run. */
export class System {
  readonly children = new Map<string, Child>();
  startedAt = Date.now();
  bases: Record<StreamName, number> = { MARKET_DATA: 0, ORDERBOOK_SNAP: 0 };
  private readonly restarted = new Map<string, number>();
  private startFailure: Error | null = null;
  private starting = true;
  private stopping = false;
  private readonly collectors: Collector[];

  constructor(readonly plan: SystemPlan) {
    const { env, config, otherCollectors = [] } = plan;
    const others = otherCollectors.map(({ name, env: own }) => ({ name, env: { ...env, ...own } }));
    this.collectors = [
      { name: 'collector', env, config },
      // The simulator writes where the venues are once it runs; nothing here asks them.
      ...others.map((each) => ({ ...each, config: loadConfig({ ...each.env, MARKETPRISM_ENDPOINTS: '' }) })),
    ];
  }

  get restarts(): number {
    return [...this.children.values()].reduce((sum, child) => sum + child.restarts, 0);
  }

  /** Starts everything in order; each part waits for what it stands on. */
  async start(): Promise<void> {
    const { plan } = this;
    const streamMaxBytes = plan.config.streamMaxBytes ?? streamBudget(plan.config.dataDir);
    const definitions = streamDefinitions({ ...plan.config, streamMaxBytes });
    const streamBytes = definitions.reduce((sum, each) => sum + each.maxBytes, 0);
    plan.env.MARKETPRISM_STREAM_MAX_BYTES ??= String(streamBytes);
    await this.startBackends(streamBytes);
    await this.withNats(async (nats) =>
      ensureStreams(await nats.jetstreamManager(), definitions, createLogger('up', 'error')),
    );
    this.bases = await this.lastSequences();
    this.startedAt = Date.now();
    this.tellRestarts();
    await this.startServices();
    if (plan.natsPort !== null) void this.watchBroker(plan.natsPort);
  }

  /** Broker and database, and in a demo the exchanges. */
  private async startBackends(streamBytes: number): Promise<void> {
    const { plan } = this;
    const { config, env } = plan;
    const logDir = join(config.dataDir, 'logs');
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
    await this.ready(
      `the database at ${shownUrl(config.clickhouseUrl)}`,
      () => this.databaseAnswers(),
      plan.clickhousePort === null,
    );
    if (plan.mode === 'demo') {
      await this.ready('exchange_sim', async () => readJson(env.MARKETPRISM_ENDPOINTS!) !== null);
    }
  }

  private async startServices(): Promise<void> {
    const { config, env } = this.plan;
    const logDir = join(config.dataDir, 'logs');
    this.launch(scriptPlan('store', [], env, logDir));
    for (const { name, env: own } of this.collectors) {
      this.launch({ ...scriptPlan('collector', [], own, logDir), name });
    }
    await this.ready('store', async () => isStoring(await getJson(config.storePort)));
    for (const { name, config: own } of this.collectors) {
      await this.ready(name, async () => (await getJson(own.healthPort)) !== null);
    }
    this.launch(scriptPlan('replicate', [], env, logDir));
    this.starting = false;
    for (const name of this.readers) this.launch(scriptPlan(name, [], env, logDir));
  }

  /** Of each stream the last message that there is. */
  private lastSequences(): Promise<Record<StreamName, number>> {
    return this.withNats(async (nats) => {
      const manager = await nats.jetstreamManager();
      const last = { ...this.bases };
      for (const name of Object.keys(last) as StreamName[])
        last[name] = (await manager.streams.info(name)).state.last_seq;
      return last;
    });
  }

  /**
   * Ends a broker whose JetStream hangs, so that it is started again: after a full disk nats-server 2.9 takes connections and calls
   * itself healthy, while no stream answers any more (seen with 2.9.10). What it has acknowledged is on its disk.
   */
  private async watchBroker(port: number): Promise<void> {
    for (let silent = 0; !this.stopping; await pause(BROKER_ASKED_EVERY_MS)) {
      silent = (await this.streamsAnswer()) || !(await natsAnswers(port)) ? 0 : silent + 1;
      if (silent < BROKER_SILENT_TIMES || this.stopping) continue;
      silent = 0;
      this.plan.say('nats-server takes connections and its streams do not answer (a full disk?): ending it');
      this.children.get('nats-server')?.signal('SIGKILL');
    }
  }

  private async streamsAnswer(): Promise<boolean> {
    try {
      return await this.withNats(async (nats) => {
        const manager = await nats.jetstreamManager({ timeout: BROKER_ANSWER_MS });
        for (const name of Object.keys(this.bases)) await manager.streams.info(name);
        return true;
      });
    } catch {
      // Down, starting or hanging: which of them, its port tells.
      return false;
    }
  }

  /** Stops in order: sources first, so that all that they gave is stored by what still runs. @returns how each ended that ran */
  async stop(): Promise<ChildEnd[]> {
    this.starting = false;
    this.stopping = true;
    const { ends } = await this.stopInOrder([
      'replicate',
      'store',
      'exchange_sim',
      'clickhouse_embedded',
      'nats-server',
    ]);
    return ends;
  }

  /**
   * Stops everything but the simulated exchanges, in the order of `stop`, until `resume`: venues go on while we are away, and their ledger counts.
   * @returns how each ended that ran, and the last message of each stream that the collectors gave; null: the broker did not say
   */
  halt(): Promise<{ ends: ChildEnd[]; last: Record<StreamName, number> | null }> {
    return this.stopInOrder(['replicate', 'store', 'clickhouse_embedded', 'nats-server']);
  }

  /** Starts what `halt` stopped, in the order of `start`. */
  async resume(): Promise<void> {
    this.starting = true;
    this.startFailure = null;
    const { exchange_sim: _, ...stopped } = Object.fromEntries(this.children);
    // One that has ended counts as running until its last output is read.
    await this.ready('what was stopped', async () => Object.values(stopped).every((child) => !child.running));
    await this.startBackends(Number(this.plan.env.MARKETPRISM_STREAM_MAX_BYTES));
    await this.startServices();
  }

  /** @param others that are stopped after readers and collectors */
  private async stopInOrder(others: readonly string[]) {
    const ends: ChildEnd[] = [];
    const end = async (name: string) => {
      const began = steadyNow();
      const exit = await this.children.get(name)?.stop();
      if (exit) ends.push({ name, ...exit, ms: Math.round(steadyNow() - began) });
    };
    let last: Record<StreamName, number> | null = null;
    await Promise.all(this.readers.map(end));
    await Promise.all(this.collectors.map(({ name }) => end(name)));
    try {
      if (this.children.get('store')?.running) {
        await this.drained(STOP_DRAIN_MS);
        last = await this.lastSequences();
      }
    } catch (error) {
      // Without a broker nothing can drain; what it holds is stored at the next start.
      this.plan.say(`stopping without a last look at the broker: ${(error as Error).message}`);
    }
    for (const name of others) await end(name);
    return { ends, last };
  }

  /**
   * The sources stop; what they gave is stored, what is missing is filled, all is copied to cold.
   * @returns what the simulator sent, by exchange and type; null in live mode
   */
  async quiet(): Promise<Map<string, number> | null> {
    const sent = this.plan.mode === 'demo' ? await this.stopSimulator() : null;
    await this.outboxesEmpty();
    await this.gapsSettled();
    // What was fetched back went through them, too.
    await this.outboxesEmpty();
    await this.stopCollectors();
    await this.drained(DRAIN_LIMIT_MS);
    await this.replicated();
    return sent;
  }

  /** The ledger of this run: all comes to rest, then both ends are counted. */
  async settle(): Promise<LedgerReport> {
    const { plan } = this;
    const seconds = (Date.now() - this.startedAt) / 1000;
    const sent = await this.quiet();
    const sentKeys = plan.mode === 'demo' ? (stream: GappedStream) => this.sentKeys(stream) : null;
    const run = { ...plan, startedAt: this.startedAt, bases: this.bases, sent, sentKeys };
    return this.withNats((nats) => drawLedger(run, seconds, nats));
  }

  /** A last round of the replication, after all is stored. */
  private async replicated(): Promise<void> {
    const { config, env, say } = this.plan;
    await this.children.get('replicate')!.stop();
    const ended = new Promise<void>((done) => {
      const child = new Child(
        scriptPlan('replicate', ['--once'], env, join(config.dataDir, 'logs')),
        ({ code, lastLine }) => {
          if (code !== 0) say(`not all is in cold: ${lastLine || `replicate --once ended with code ${code}`}`);
          done();
          return false;
        },
      );
      this.children.set('replicate', child);
      child.start();
    });
    await ended;
  }

  private get readers(): readonly string[] {
    return this.plan.readers ?? [];
  }

  private async stopCollectors(): Promise<void> {
    await Promise.all(this.collectors.map(({ name }) => this.children.get(name)?.stop()));
  }

  /** What waited on the collectors' disks for the broker is on its way by now. */
  private async outboxesEmpty(): Promise<void> {
    const deadline = Date.now() + DRAIN_LIMIT_MS;
    const isWaiting = async ({ config }: Collector) =>
      ((await getJson(config.healthPort))?.metrics?.waiting_bytes ?? 0) > 0;
    for (const collector of this.collectors) {
      while ((await isWaiting(collector)) && Date.now() < deadline) await pause(200);
    }
  }

  /**
   * What a collector that died, or a socket, missed is found and fetched before the ledger is drawn. A run in which nothing
   * was missed does not wait.
   */
  private async gapsSettled(): Promise<void> {
    const { config, say, gapsLimitMs } = this.plan;
    const look = async () => {
      const { counts = [], looks = 0, lastFound = 0 } = (await getJson(config.storePort))?.checks.gaps?.details ?? {};
      return {
        open: counts.reduce((sum, each) => sum + (each.status === 'open' ? each.gaps : 0), 0),
        looks,
        lastFound,
      };
    };
    const restarted = this.collectors.some(({ name }) => this.children.get(name)!.restarts > 0);
    const { open } = await look();
    if (!restarted && open === 0 && gapsLimitMs === undefined) return;
    say(!restarted && open > 0 ? `${open} gaps are being filled` : 'looking for what was missed');
    await this.drained(DRAIN_LIMIT_MS);
    const limitMs = gapsLimitMs ?? GAPS_LIMIT_MS;
    const deadline = Date.now() + limitMs;
    // A hole is a gap once the row after it is old enough.
    await pause(config.gapAgeMs + GAP_LOOK_MARGIN_MS);
    // Counted, not timed: the store's clock may have been set, and a look that had begun before tells nothing.
    let { looks: before } = await look();
    for (; Date.now() < deadline; await pause(500)) {
      const now = await look();
      // A store that began anew counts from 0.
      before = Math.min(before, now.looks);
      if (now.looks >= before + 2 && now.open === 0 && now.lastFound === 0) return;
    }
    say(`${(await look()).open} gaps could not be filled in ${limitMs / 1000} s`);
  }

  /** One line of figures; null while a service does not answer. */
  async figures(): Promise<{ received: number; stored: number; backlog: number; faults: string[] }> {
    const { config } = this.plan;
    const services = [
      ...this.collectors.map((each) => ({ name: each.name, port: each.config.healthPort })),
      { name: 'store', port: config.storePort },
    ];
    const documents = await Promise.all(services.map(async ({ name, port }) => [name, await getJson(port)] as const));
    const faults: string[] = [];
    for (const [name, document] of documents) {
      if (document === null) {
        faults.push(`${name} does not answer`);
        continue;
      }
      if (document.uptime < SETTLING_SECONDS) continue;
      for (const [check, state] of Object.entries(document.checks)) {
        if (state.status === 'unhealthy') faults.push(`${check}: ${state.error_message}`);
      }
    }
    const checks = Object.values(documents.at(-1)![1]?.checks ?? {});
    const sum = (field: 'inserted' | 'backlog') =>
      checks.reduce((total, each) => total + (each.details?.[field] ?? 0), 0);
    const received = documents
      .flatMap(([, document]) => document?.received ?? [])
      .reduce((total, each) => total + each.received, 0);
    return { received, stored: sum('inserted'), backlog: sum('backlog'), faults };
  }

  private launch(plan: ChildPlan): void {
    if (this.stopping) throw new OperatorError('stopped while starting');
    const known = this.children.get(plan.name);
    if (known !== undefined) {
      if (!known.running) known.start();
      return;
    }
    const child = new Child(this.plan.adjust?.(plan) ?? plan, ({ code, signal, lastLine }) => {
      const how = signal ? `was killed (${signal})` : `ended with code ${code}`;
      if (this.starting) {
        this.startFailure = new OperatorError(
          `${plan.name} ${how}: ${lastLine || `see ${plan.logDir}/${plan.name}.log`}`,
        );
        return false;
      }
      this.plan.say(`${plan.name} ${how}: starting it again${lastLine ? ` (${lastLine})` : ''}`);
      this.restarted.set(plan.name, (this.restarted.get(plan.name) ?? 0) + 1);
      this.tellRestarts();
      return true;
    });
    this.children.set(plan.name, child);
    child.start();
  }

  /** For integrity.ts, which looks from outside. */
  private tellRestarts(): void {
    const path = join(this.plan.config.dataDir, RESTARTS_FILE);
    try {
      writeJsonAtomic(path, { pid: process.pid, since: this.startedAt, restarts: Object.fromEntries(this.restarted) });
    } catch (error) {
      this.plan.say(`${path} cannot be written: ${(error as Error).message}`);
    }
  }

  /** @param foreign not started by us, so it is there already or not at all */
  private ready(what: string, probe: () => Promise<boolean>, foreign = false): Promise<void> {
    const failed = () => (this.stopping ? new OperatorError('stopped while starting') : this.startFailure);
    return waitFor(what, foreign ? FOREIGN_LIMIT_MS : START_LIMIT_MS, probe, failed);
  }

  private simulatorArgs(): string[] {
    const { config, seed, env } = this.plan;
    const exchanges = ['--exchanges', config.exchanges.join(','), '--symbols', config.symbols.join(',')];
    const others = this.plan.simulatorFlags ?? [];
    return ['--port', '0', '--seed', seed, ...exchanges, '--endpoints', env.MARKETPRISM_ENDPOINTS!, ...others];
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

  async withNats<T>(work: (nats: NatsConnection) => Promise<T>): Promise<T> {
    const { natsUrl } = this.plan.config;
    const nats = await connect({ servers: natsUrl.split(','), name: 'up' }).catch((error: Error) => {
      throw new OperatorError(`the broker at ${shownUrl(natsUrl)} cannot be reached: ${error.message}`);
    });
    try {
      return await work(nats);
    } finally {
      await nats.close();
    }
  }

  /**
   * Waits until the store has acknowledged everything, or the time is over.
   * @throws when the broker cannot be asked by then
   */
  private async drained(limitMs: number): Promise<void> {
    for (const deadline = Date.now() + limitMs; ; await pause(200)) {
      const isOver = Date.now() >= deadline;
      try {
        const left = await this.withNats(async (nats) => unacknowledged(await nats.jetstreamManager()));
        if (left === 0 || isOver) return;
      } catch (error) {
        // It may be on its way back.
        if (isOver) throw error;
      }
    }
  }

  /** Stops the simulated markets, waits until the collector has read what is on the way. @returns what was sent */
  private async stopSimulator(): Promise<Map<string, number>> {
    const control = await this.simulatorControl();
    await request(`${control}/control`, { method: 'POST', body: JSON.stringify({ action: 'stop' }) });
    const deadline = Date.now() + DRAIN_LIMIT_MS;
    let last = -1;
    for (let quietSince = Date.now(); Date.now() - quietSince < QUIET_MS && Date.now() < deadline; await pause(100)) {
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

  /** Distinct ids of a stream that were written to sockets. */
  async sentKeys({ exchange, symbol, data_type }: GappedStream): Promise<string[]> {
    const query = new URLSearchParams({ exchange, symbol, data_type });
    const { body } = await request(`${await this.simulatorControl()}/ledger/keys?${query}`);
    const lines = (await body.text()).trimEnd().split('\n');
    // Of a long run the oldest are not kept; what is not known cannot be told to lie in a gap.
    return lines.filter((line) => /^(\w\S*\|)?\d+$/.test(line));
  }

  /** The simulator logs where it listens; its log may have been rotated since. */
  async simulatorControl(): Promise<string> {
    let last: string | undefined;
    const log = join(this.plan.config.dataDir, 'logs', 'exchange_sim.log');
    for await (const { bytes } of linesOfAll(log)) last = /"control":"([^"]+)"/.exec(bytes.toString())?.[1] ?? last;
    if (last === undefined) throw new OperatorError('exchange_sim has not said where it listens');
    return last;
  }
}

/** Both streams together take at most half of the free disk. */
export function streamBudget(directory: string): number | undefined {
  const disk = statfsSync(directory);
  const full = streamDefinitions().reduce((sum, each) => sum + each.maxBytes, 0);
  const half = Math.floor((disk.bavail * disk.bsize) / 2);
  return half < full ? half : undefined;
}

interface StatusDocument {
  uptime: number;
  checks: Record<
    string,
    {
      status: string;
      error_message: string | null;
      details?: {
        inserted?: number;
        backlog?: number;
        looks?: number;
        lastFound?: number;
        counts?: { status: string; gaps: number }[];
      };
    }
  >;
  received?: { received: number }[];
  metrics?: { waiting_bytes?: number };
}

/** Whether a store has its tables, or stands by for one elsewhere that has. */
function isStoring(document: StatusDocument | null): boolean {
  const { trade, lease } = document?.checks ?? {};
  return trade !== undefined || Object.values(lease?.details ?? {}).some((word) => /^standing by/.test(String(word)));
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
