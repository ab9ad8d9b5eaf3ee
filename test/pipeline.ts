/** The real parts of the pipeline as processes on free ports with a data directory of their own, for end-to-end tests. */
import { cpSync, existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import type { ClickHouseClient } from '@clickhouse/client';
import { connect, type NatsConnection } from 'nats';
import { keyTexts } from '../scripts/lib/arrivals.ts';
import { brokerPlan, findNatsServer, natsAnswers } from '../scripts/lib/broker.ts';
import { createClickHouse, selectText } from '../scripts/lib/clickhouse.ts';
import { unacknowledged } from '../scripts/lib/durables.ts';
import { DEFAULT_SESSIONS, engineEnvironment } from '../scripts/lib/embedded/environment.ts';
import { freePort } from '../scripts/lib/free_port.ts';
import { Child, scriptPlan, waitFor } from '../scripts/lib/processes.ts';
import { type DataType, TABLES } from '../scripts/lib/rows.ts';
import { parseSubject, streamDefinitions } from '../scripts/lib/streams.ts';

/** Generous: several tests share two cores, and a first start reads the engine from a cold disk. */
export const READY_MS = 60_000;

export interface HealthDocument {
  status: string;
  checks: Record<string, { status: string; error_message: string | null; details: Record<string, unknown> }>;
  received?: { exchange: string; data_type: string; received: number }[];
}

/** A second collector has a name, ports and, as on another machine, a data directory of its own. */
export type CollectorName = 'collector' | 'collector_b';
export type ServiceName =
  | 'nats-server'
  | 'clickhouse_embedded'
  | 'exchange_sim'
  | 'store'
  | 'replicate'
  | CollectorName;

export class Pipeline {
  readonly dir = mkdtempSync(join(tmpdir(), 'marketprism-'));
  readonly children = new Map<ServiceName, Child>();
  private readonly opened: { close(): Promise<void> }[] = [];
  ports = {
    nats: 0,
    clickhouse: 0,
    health: 0,
    metrics: 0,
    store: 0,
    replicate: 0,
    healthB: 0,
    metricsB: 0,
    monitor: 0,
    web: 0,
  };

  /** @param extra environment of store and collector */
  constructor(private readonly extra: NodeJS.ProcessEnv = {}) {}

  get logDir(): string {
    return join(this.dir, 'logs');
  }

  get env(): NodeJS.ProcessEnv {
    const { ports } = this;
    return {
      PATH: process.env.PATH,
      MARKETPRISM_NATS_URL: `nats://127.0.0.1:${ports.nats}`,
      CLICKHOUSE_URL: `http://127.0.0.1:${ports.clickhouse}`,
      MARKETPRISM_DATA_DIR: this.dir,
      MARKETPRISM_COLLECTOR_ID: 'test',
      // Unless a test is about all: each exchange costs the machine something.
      MARKETPRISM_EXCHANGES: 'binance_spot,binance_derivatives',
      MARKETPRISM_ACK_WAIT_SECONDS: '3',
      MARKETPRISM_REPLICATION_SECONDS: '2',
      // Unless a test is about gaps: what it compares must not be filled in between.
      MARKETPRISM_GAP_AGE: '1h',
      HEALTH_CHECK_PORT: String(ports.health),
      METRICS_PORT: String(ports.metrics),
      HOT_STORAGE_HTTP_PORT: String(ports.store),
      COLD_STORAGE_HTTP_PORT: String(ports.replicate),
      MONITOR_HTTP_PORT: String(ports.monitor),
      WEB_HTTP_PORT: String(ports.web),
      ...this.extra,
    };
  }

  /** As an operator's shell has it: the exchanges are those of the simulator. */
  get operatorEnv(): NodeJS.ProcessEnv {
    return { ...this.env, MARKETPRISM_ENDPOINTS: join(this.dir, 'endpoints.json') };
  }

  async choosePorts(): Promise<void> {
    this.ports = {
      nats: await freePort(4000),
      clickhouse: await freePort(),
      health: await freePort(),
      metrics: await freePort(),
      store: await freePort(),
      replicate: await freePort(),
      healthB: await freePort(),
      metricsB: await freePort(),
      monitor: await freePort(),
      web: await freePort(),
    };
  }

  async startBroker(): Promise<void> {
    const bytes = streamDefinitions().reduce((sum, each) => sum + each.maxBytes, 0);
    this.launch(
      'nats-server',
      brokerPlan(findNatsServer()!, join(this.dir, 'nats'), this.ports.nats, bytes, this.logDir),
    );
    await this.brokerReady();
  }

  brokerReady(): Promise<void> {
    return waitFor('nats-server', READY_MS, () => natsAnswers(this.ports.nats));
  }

  /** @param more flags of it */
  async startDatabase(more: string[] = []): Promise<void> {
    const args = ['--data-dir', join(this.dir, 'clickhouse'), '--port', String(this.ports.clickhouse), ...more];
    this.launch(
      'clickhouse_embedded',
      scriptPlan('clickhouse_embedded', args, { ...this.env, ...engineEnvironment(DEFAULT_SESSIONS) }, this.logDir),
    );
    await this.databaseReady();
  }

  async databaseReady(): Promise<void> {
    const client = this.client();
    await waitFor('clickhouse_embedded', READY_MS, async () => (await client.ping()).success);
  }

  async startSimulator(args: string[]): Promise<void> {
    const named = args.includes('--exchanges') ? [] : ['--exchanges', this.env.MARKETPRISM_EXCHANGES!];
    const all = ['--port', '0', '--endpoints', join(this.dir, 'endpoints.json'), ...named, ...args];
    rmSync(join(this.dir, 'endpoints.json'), { force: true });
    this.launch('exchange_sim', scriptPlan('exchange_sim', all, this.env, this.logDir));
    await waitFor('exchange_sim', READY_MS, async () => existsSync(join(this.dir, 'endpoints.json')));
  }

  async startStore(): Promise<void> {
    this.launch('store', scriptPlan('store', [], this.env, this.logDir));
    await waitFor('store', READY_MS, async () => (await this.health('store'))?.checks.trade !== undefined);
  }

  async startCollector(env: NodeJS.ProcessEnv = {}, name: CollectorName = 'collector'): Promise<void> {
    const own = name === 'collector_b' ? this.environmentOfB : {};
    const all = { ...this.env, MARKETPRISM_ENDPOINTS: join(this.dir, 'endpoints.json'), ...own, ...env };
    this.launch(name, { ...scriptPlan('collector', [], all, this.logDir), name });
    await waitFor(name, READY_MS, async () => (await this.health(name)) !== null);
  }

  /** All parts, in their order. @param simulator its arguments */
  async startAll(simulator: string[] = []): Promise<void> {
    await this.choosePorts();
    await this.startBroker();
    await this.startDatabase();
    await this.startSimulator(simulator);
    await this.startStore();
    await this.startCollector();
    await this.startReplicate();
  }

  async startReplicate(): Promise<void> {
    this.launch('replicate', scriptPlan('replicate', [], this.env, this.logDir));
    await waitFor('replicate', READY_MS, async () => (await this.health('replicate')) !== null);
  }

  private get environmentOfB(): NodeJS.ProcessEnv {
    return {
      MARKETPRISM_COLLECTOR_ID: 'test-b',
      MARKETPRISM_DATA_DIR: join(this.dir, 'b'),
      HEALTH_CHECK_PORT: String(this.ports.healthB),
      METRICS_PORT: String(this.ports.metricsB),
    };
  }

  /** Ends a service with SIGKILL; it is started again by its supervisor. */
  async kill(name: ServiceName): Promise<void> {
    const child = this.children.get(name)!;
    const before = child.pid;
    process.kill(before!, 'SIGKILL');
    await waitFor(
      `restart of ${name}`,
      READY_MS,
      async () => child.pid !== undefined && child.pid !== before && child.running,
    );
  }

  async stop(name: ServiceName) {
    const exit = (await this.children.get(name)?.stop()) ?? null;
    this.children.delete(name);
    return exit;
  }

  async close(): Promise<void> {
    for (const each of this.opened) await each.close();
    for (const name of [
      'collector',
      'collector_b',
      'store',
      'replicate',
      'exchange_sim',
      'clickhouse_embedded',
      'nats-server',
    ] as const)
      await this.stop(name);
    // To look at what the services said in a run that failed.
    const kept = process.env.MARKETPRISM_TEST_LOGS;
    if (kept !== undefined && existsSync(this.logDir))
      cpSync(this.logDir, join(kept, basename(this.dir)), { recursive: true });
    rmSync(this.dir, { recursive: true, force: true });
  }

  log(name: ServiceName): string {
    try {
      return readFileSync(join(this.logDir, `${name}.log`), 'utf8');
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return '';
      throw error;
    }
  }

  /** Log lines of a service with this event. */
  events(name: ServiceName, event: string): Record<string, unknown>[] {
    return this.log(name)
      .split('\n')
      .filter((line) => line.includes(`"event":"${event}"`))
      .map((line) => JSON.parse(line));
  }

  client(): ClickHouseClient {
    const client = createClickHouse({ url: this.env.CLICKHOUSE_URL!, username: 'default', password: '' }, 'test');
    this.opened.push(client);
    return client;
  }

  async query(sql: string): Promise<string[][]> {
    const client = createClickHouse({ url: this.env.CLICKHOUSE_URL!, username: 'default', password: '' }, 'test');
    try {
      return await selectText(client, sql);
    } finally {
      await client.close();
    }
  }

  async nats(): Promise<NatsConnection> {
    return connect({ servers: this.env.MARKETPRISM_NATS_URL!.split(',') });
  }

  async health(name: 'store' | 'replicate' | CollectorName): Promise<HealthDocument | null> {
    const { store, replicate, health, healthB } = this.ports;
    const port = { store, replicate, collector: health, collector_b: healthB }[name];
    return fetch(`http://127.0.0.1:${port}/health`).then(
      (answer) => answer.json() as Promise<HealthDocument>,
      () => null,
    );
  }

  /** Of all collectors that run. */
  async received(): Promise<number> {
    const documents = [await this.health('collector'), await this.health('collector_b')];
    return documents.flatMap((each) => each?.received ?? []).reduce((sum, each) => sum + each.received, 0);
  }

  /** The simulator's control address. */
  get control(): string {
    const found = [...this.log('exchange_sim').matchAll(/"control":"([^"]+)"/g)];
    return found[found.length - 1]![1]!;
  }

  async simulate(action: object): Promise<void> {
    const answer = await fetch(`${this.control}/control`, { method: 'POST', body: JSON.stringify(action) });
    if (!answer.ok) throw new Error(await answer.text());
  }

  async ledger(): Promise<{
    replay_done: boolean | null;
    sockets: Record<string, number>;
    streams: { exchange: string; symbol: string; data_type: string; sent: number }[];
  }> {
    return (await fetch(`${this.control}/ledger`)).json() as never;
  }

  /** Waits until the collectors receive nothing new, and the store has acknowledged everything. */
  async settled(): Promise<void> {
    let last = -1;
    let since = Date.now();
    await waitFor('a quiet collector', READY_MS, async () => {
      const received = await this.received();
      if (received !== last) since = Date.now();
      last = received;
      return Date.now() - since > 1500;
    });
    await this.drained();
  }

  /** Waits until the store has acknowledged everything in the streams. */
  async drained(): Promise<void> {
    const nats = await this.nats();
    try {
      const manager = await nats.jetstreamManager();
      // A cluster may have no leader just then, and say so.
      const left = () =>
        unacknowledged(manager).catch((error: { code?: string }) => {
          if (error.code !== '503') throw error;
          return null;
        });
      await waitFor('an empty backlog', READY_MS, async () => (await left()) === 0);
    } finally {
      await nats.close();
    }
  }

  /**
   * Every key in JetStream against every key in hot, per table.
   * @returns by table: distinct keys published, rows in hot, distinct keys in hot, published keys that hot lacks
   */
  async compare(): Promise<Map<string, { published: number; rows: number; distinct: number; missing: string[] }>> {
    for (;;) {
      const before = await this.lastSequences();
      const compared = await this.compareOnce();
      // A minute that turned meanwhile brought readings that only one side has.
      if ((await this.lastSequences()) === before) return compared;
      await this.drained();
    }
  }

  private async lastSequences(): Promise<string> {
    const nats = await this.nats();
    try {
      const manager = await nats.jetstreamManager();
      const infos = await Promise.all(streamDefinitions().map(({ name }) => manager.streams.info(name)));
      return infos.map(({ state }) => state.last_seq).join(' ');
    } finally {
      await nats.close();
    }
  }

  private async compareOnce(): Promise<
    Map<string, { published: number; rows: number; distinct: number; missing: string[] }>
  > {
    const out = new Map<string, { published: number; rows: number; distinct: number; missing: string[] }>();
    const published = await this.publishedKeys();
    for (const [type, keys] of published) {
      const { name } = TABLES[type];
      const members = ['exchange', 'market_type', 'symbol', ...keyTexts(type)];
      const rows = (await this.query(`SELECT ${members.join(', ')} FROM marketprism_hot.${name}`)).map((row) =>
        row.join('\t'),
      );
      const hot = new Set(rows);
      const missing = [...keys].filter((each) => !hot.has(each));
      out.set(type, { published: keys.size, rows: rows.length, distinct: hot.size, missing });
    }
    return out;
  }

  /** The keys of all rows in both streams, by type, as `compare` writes them. */
  private async publishedKeys() {
    const out = new Map<DataType, Set<string>>();
    const nats = await this.nats();
    try {
      const jetstream = nats.jetstream();
      const manager = await nats.jetstreamManager();
      for (const { name } of streamDefinitions()) {
        const { state } = await manager.streams.info(name);
        if (state.messages === 0) continue;
        const messages = await (await jetstream.consumers.get(name)).consume({ max_messages: 5000 });
        for await (const message of messages) {
          const { type } = parseSubject(message.subject)!;
          let keys = out.get(type);
          if (!keys) out.set(type, (keys = new Set()));
          for (const line of message.string().split('\n')) {
            const row = JSON.parse(line) as Record<string, unknown>;
            keys.add(
              ['exchange', 'market_type', 'symbol', ...TABLES[type].key].map((each) => String(row[each])).join('\t'),
            );
          }
          if (message.seq >= state.last_seq) break;
        }
      }
    } finally {
      await nats.close();
    }
    return out;
  }

  private launch(name: ServiceName, plan: ConstructorParameters<typeof Child>[0]): void {
    const child = new Child(plan, ({ code, lastLine }) => {
      // Wrong usage does not get better by starting again.
      if (code === 64) throw new Error(`${name}: ${lastLine}`);
      return true;
    });
    this.children.set(name, child);
    child.start();
  }
}
