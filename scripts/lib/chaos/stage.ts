/** The whole pipeline with simulated venues and two collectors, in a place of its own where everything can be made to fail. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { request } from 'undici';
import { createClickHouse, hotServer } from '../clickhouse.ts';
import { type Config, loadConfig } from '../config.ts';
import { freePort } from '../free_port.ts';
import type { ChildPlan } from '../processes.ts';
import { residentOf } from '../procfs.ts';
import type { Random } from '../sim/market.ts';
import { System } from '../system.ts';
import { type ClickHouseFault, ClickHouseProxy } from './clickhouse_proxy.ts';
import { DISKS, type Disk, SmallDisk } from './disks.ts';
import { COLLECTORS, type Fault, type Stepped, type Target } from './plan.ts';
import { judge, type Verdict } from './verdict.ts';

/** Long against a run of a minute, short against one of ten. */
const RESTART_WAIT_MS = 1000;
const GAP_AGE = '5s';
/** Rows may wait this long for company, at most: each collector draws its own. */
const MOST_LINGER_MS = 80;
/** Both streams of the broker: what was read makes room for what comes. */
const STREAM_BYTES = 1024 * 2 ** 20;
/** Gaps are filled at the pace that venues allow. */
const GAPS_LIMIT_MS = 600_000;
/** Trades that a venue serves from its past, per symbol: minutes at hundreds a second. */
const TRADE_HISTORY = '300000';
const STEPPED_CLOCK = join(import.meta.dirname, 'stepped_clock.mjs');
const STEPPED: readonly string[] = [...COLLECTORS, 'store', 'replicate'];
const THROUGH_PROXY = new Set(['store', 'replicate']);

export interface StageOptions {
  seed: number;
  random: Random;
  tradesPerSecond: number;
  /** A safeguard that is left out. */
  without: string | null;
  say(line: string): void;
}

export class Stage {
  readonly disks = new Map<Disk, SmallDisk>();
  /** Why a disk cannot be filled here; null: it can. */
  diskTrouble: string | null = null;
  private clickhouseFaults: ClickHouseFault[] = [];
  /** By process: SIGSTOPped until then. */
  private readonly stopped = new Map<number, NodeJS.Timeout>();
  private readonly clocks = new Map<Stepped, NodeJS.Timeout>();
  private readonly timers = new Set<NodeJS.Timeout>();
  private brokerAway = false;

  private constructor(
    readonly dir: string,
    readonly config: Config,
    /** Where processes keep what they must not lose. */
    readonly dataDirs: [string, string],
    readonly system: System,
    private readonly proxy: ClickHouseProxy,
  ) {}

  /** Prepares everything; nothing runs before `system.start()`. */
  static async open(options: StageOptions): Promise<Stage> {
    const { random, seed, without, say } = options;
    const dir = mkdtempSync(join(tmpdir(), 'marketprism-chaos-'));
    const ports = { nats: await freePort(4000), clickhouse: await freePort(), proxy: await freePort() };
    const own = async (): Promise<NodeJS.ProcessEnv> => ({
      HEALTH_CHECK_PORT: String(await freePort()),
      METRICS_PORT: String(await freePort()),
      MARKETPRISM_LINGER: `${Math.round(random() * MOST_LINGER_MS)}ms`,
    });
    const dataDir = join(dir, 'a');
    const env: NodeJS.ProcessEnv = {
      PATH: process.env.PATH,
      MARKETPRISM_MODE: 'demo',
      MARKETPRISM_DATA_DIR: dataDir,
      MARKETPRISM_NATS_URL: `nats://127.0.0.1:${ports.nats}`,
      CLICKHOUSE_URL: `http://127.0.0.1:${ports.clickhouse}`,
      MARKETPRISM_COLLECTOR_ID: 'a',
      MARKETPRISM_ACK_WAIT_SECONDS: '3',
      MARKETPRISM_GAP_AGE: GAP_AGE,
      MARKETPRISM_ORDERBOOK_INTERVAL: '2s',
      MARKETPRISM_LIQUIDATION_DELAY: '5s',
      MARKETPRISM_BLOCKED_RETRY: '5s',
      MARKETPRISM_STREAM_MAX_BYTES: String(STREAM_BYTES),
      HOT_STORAGE_HTTP_PORT: String(await freePort()),
      COLD_STORAGE_HTTP_PORT: String(await freePort()),
      ...(without === null ? {} : { MARKETPRISM_WITHOUT: without }),
      ...(await own()),
    };
    const ofB = { ...(await own()), MARKETPRISM_COLLECTOR_ID: 'b', MARKETPRISM_DATA_DIR: join(dir, 'b') };
    const config = loadConfig(env);
    const configOfB = loadConfig({ ...env, ...ofB });
    // The simulator writes it.
    env.MARKETPRISM_ENDPOINTS = join(dir, 'endpoints.json');
    const proxy = new ClickHouseProxy(env.CLICKHOUSE_URL!);
    await proxy.listen(ports.proxy);
    const system = new System({
      mode: 'demo',
      config,
      natsPort: ports.nats,
      clickhousePort: ports.clickhouse,
      seed: String(seed),
      env,
      say,
      simulatorFlags: ['--trades-per-second', String(options.tradesPerSecond), '--trade-history', TRADE_HISTORY],
      otherCollectors: [{ name: 'collector_b', env: ofB }],
      gapsLimitMs: GAPS_LIMIT_MS,
      adjust: (plan) => stage.adjust(plan),
    });
    const stage: Stage = new Stage(dir, config, [config.dataDir, configOfB.dataDir], system, proxy);
    proxy.onRequest = () => stage.clickhouseFaults.shift() ?? null;
    stage.mountDisks();
    return stage;
  }

  private mountDisks(): void {
    const [a, b] = this.dataDirs;
    const places: Record<Disk, string> = {
      outbox: join(a, 'outbox'),
      outbox_b: join(b, 'outbox'),
      jetstream: join(a, 'nats'),
      clickhouse: join(a, 'clickhouse'),
    };
    for (const disk of DISKS) {
      try {
        this.disks.set(disk, SmallDisk.mount(places[disk]));
      } catch (error) {
        this.diskTrouble = (error as Error).message;
        return;
      }
    }
  }

  private adjust(plan: ChildPlan): ChildPlan {
    const { name } = plan;
    const adjusted: ChildPlan = { ...plan, restartWaitMs: RESTART_WAIT_MS };
    if (STEPPED.includes(name)) {
      adjusted.args = ['--import', STEPPED_CLOCK, ...plan.args];
      adjusted.env = { ...plan.env, MARKETPRISM_CLOCK_FILE: this.clockFile(name as Stepped) };
    }
    if (THROUGH_PROXY.has(name)) {
      adjusted.env = { ...adjusted.env, CLICKHOUSE_URL: `http://127.0.0.1:${this.proxy.port}` };
    }
    return adjusted;
  }

  private clockFile(name: Stepped): string {
    return join(this.dir, `clock-${name}`);
  }

  /** Does it. @returns null, or why it could not be done now */
  async apply(fault: Fault): Promise<string | null> {
    switch (fault.kind) {
      case 'kill':
        return this.kill(fault.target);
      case 'stop':
        return this.stop(fault.target, fault.forMs);
      case 'clickhouse':
        this.clickhouseFaults.push(...Array<ClickHouseFault>(fault.count).fill(fault.fault));
        return null;
      case 'broker_away':
        return this.takeBrokerAway(fault.forMs);
      case 'disk_full':
        this.disks.get(fault.disk)!.fill();
        this.later(fault.forMs, () => this.disks.get(fault.disk)!.free());
        return null;
      case 'clock':
        clearTimeout(this.clocks.get(fault.target));
        writeFileSync(this.clockFile(fault.target), String(fault.byMs));
        this.clocks.set(
          fault.target,
          this.later(fault.forMs, () => writeFileSync(this.clockFile(fault.target), '0')),
        );
        return null;
      case 'venue':
        return this.simulate({ action: fault.action, exchange: fault.exchange, ...fault.request });
    }
  }

  private kill(target: Target): string | null {
    return this.system.children.get(target)?.signal('SIGKILL') ? null : 'it does not run';
  }

  private stop(target: Target, forMs: number): string | null {
    const pid = this.system.children.get(target)?.pid;
    if (pid === undefined) return 'it does not run';
    clearTimeout(this.stopped.get(pid));
    process.kill(pid, 'SIGSTOP');
    this.stopped.set(
      pid,
      this.later(forMs, () => this.resume(pid)),
    );
    return null;
  }

  private resume(pid: number): void {
    this.stopped.delete(pid);
    try {
      process.kill(pid, 'SIGCONT');
    } catch (error) {
      // Killed meanwhile.
      if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
    }
  }

  private async takeBrokerAway(forMs: number): Promise<string | null> {
    if (this.brokerAway) return 'it is away';
    this.brokerAway = true;
    const broker = this.system.children.get('nats-server')!;
    if (broker.pid !== undefined) this.resume(broker.pid);
    await broker.stop();
    this.later(forMs, () => this.bringBrokerBack());
    return null;
  }

  private bringBrokerBack(): void {
    if (!this.brokerAway) return;
    this.brokerAway = false;
    this.system.children.get('nats-server')!.start();
  }

  private async simulate(action: object): Promise<string | null> {
    const { statusCode, body } = await request(`${await this.system.simulatorControl()}/control`, {
      method: 'POST',
      body: JSON.stringify(action),
    });
    const text = await body.text();
    return statusCode === 200 ? null : text;
  }

  private later(ms: number, work: () => void): NodeJS.Timeout {
    const timer = setTimeout(() => {
      this.timers.delete(timer);
      try {
        work();
      } catch (error) {
        this.system.plan.say(`what was to end now did not: ${(error as Error).message}`);
      }
    }, ms);
    this.timers.add(timer);
    return timer;
  }

  /** Ends all that is still wrong. */
  heal(): void {
    for (const timer of this.timers) clearTimeout(timer);
    this.timers.clear();
    this.clickhouseFaults = [];
    for (const pid of [...this.stopped.keys()]) this.resume(pid);
    for (const disk of this.disks.values()) disk.free();
    for (const name of this.clocks.keys()) writeFileSync(this.clockFile(name), '0');
    this.bringBrokerBack();
  }

  /** Resident memory of each process now, bytes. */
  memory(): Map<string, number> {
    const out = new Map<string, number>();
    for (const [name, { pid }] of this.system.children) {
      if (pid === undefined) continue;
      const bytes = residentOf(pid);
      if (bytes !== null) out.set(name, bytes);
    }
    return out;
  }

  async verdict(): Promise<Verdict> {
    const { config } = this;
    const client = createClickHouse(hotServer(config), 'marketprism-chaos', 310_000);
    try {
      return await judge({
        client,
        hotDatabase: config.hotDatabase,
        coldDatabase: config.coldDatabase,
        control: await this.system.simulatorControl(),
        exchanges: config.exchanges,
        dataDirs: this.dataDirs,
      });
    } finally {
      await client.close();
    }
  }

  /** @param keep leaves the directory, small disks included */
  async close(keep: boolean): Promise<void> {
    this.heal();
    await this.system.stop();
    await this.proxy.close();
    if (keep) return;
    for (const disk of this.disks.values()) disk.unmount();
    rmSync(this.dir, { recursive: true, force: true });
  }
}
