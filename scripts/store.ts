const USAGE = `
store.ts: rows from JetStream into ClickHouse hot, each exactly once. The only way in for market rows.

Usage:   npx tsx scripts/store.ts [--once]
Example: CLICKHOUSE_URL=http://127.0.0.1:8123 npx tsx scripts/store.ts

Flags:
  --once   store what is there now, then stop

Before each insert it asks the database which of the batch's keys it holds; a message is acknowledged after its rows are
confirmed. After an unclear answer it waits until the insert cannot happen any more, looks again, and inserts what is missing.

A stream has one store at a time, whichever machine it runs on: it holds a lease in the broker. A second one stands by, and takes over half a
minute after the first was heard of last, at once when that stopped in order. MARKETPRISM_STORE_STREAMS gives streams to stores of their own.

Environment: MARKETPRISM_NATS_URL, CLICKHOUSE_URL, CLICKHOUSE_USER, CLICKHOUSE_PASSWORD, MARKETPRISM_COLD_CLICKHOUSE_URL,
MARKETPRISM_HOT_DATABASE, MARKETPRISM_COLD_DATABASE, MARKETPRISM_ACK_WAIT_SECONDS (60), MARKETPRISM_DATA_DIR,
MARKETPRISM_MODE, MARKETPRISM_STORE_STREAMS (MARKET_DATA,ORDERBOOK_SNAP), MARKETPRISM_DEADLETTER_RETRY (1m), HOT_STORAGE_HTTP_PORT (8085, /health and /metrics), LOG_LEVEL.
`;

import { randomBytes } from 'node:crypto';
import { setMaxListeners } from 'node:events';
import { mkdirSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import type { ClickHouseClient } from '@clickhouse/client';
import type { JetStreamManager, NatsConnection } from 'nats';
import { EXCHANGE_MODULES } from './exchanges/index.ts';
import { Batcher } from './lib/batcher.ts';
import { Checkpoints, checkpointsLeft } from './lib/checkpoints.ts';
import { flags, OperatorError, runAsScript } from './lib/cli.ts';
import { coldServer, createClickHouse, fence, hotServer, resetConnections, selectText } from './lib/clickhouse.ts';
import { type Config, loadConfig, shownUrl } from './lib/config.ts';
import { isGuarded, tellLeftOut } from './lib/crash_points.ts';
import { replayHealing } from './lib/deadletter_replay.ts';
import { ackFloor, type Checkpoint, placeDurable } from './lib/durables.ts';
import { currentEpoch } from './lib/epochs.ts';
import { GapKeeper } from './lib/gap_keeper.ts';
import { sequences } from './lib/gap_sequences.ts';
import { ConnectionWatch, connectNats, ensureStreams, storedMessage } from './lib/jetstream.ts';
import { Lease, leaseCheck, openLeases, placeOf } from './lib/lease.ts';
import { type Lock, takeLock } from './lib/lock.ts';
import { createLogger, type Logger } from './lib/log.ts';
import { pause } from './lib/pause.ts';
import { Publisher } from './lib/publisher.ts';
import { PullConsumer } from './lib/pull_consumer.ts';
import { type DataType, TABLES } from './lib/rows.ts';
import { ensureTier } from './lib/schema.ts';
import { type Check, createRegistry, healthDocument, serveStatus, untilStopped } from './lib/service.ts';
import { tellReady } from './lib/service_manager.ts';
import { createStoreMeters, registerStoreGauges, type StoreMeters } from './lib/store_metrics.ts';
import { durableName, type StreamDefinition, type StreamName, streamDefinitions, streamOf } from './lib/streams.ts';
import { insertPrefix, TableStore } from './lib/table_store.ts';
import { Vital, type VitalPart } from './lib/vital_signs.ts';

/** What one type may hold in memory ahead of its table, bytes. Ten types, of which four or five are busy. */
const BUFFER_BYTES = 8 * 1024 * 1024;
/** Waits while ClickHouse is away at the start: doubling from the first to the last. */
const FIRST_WAIT_MS = 500;
const LAST_WAIT_MS = 10_000;
/** How often the durables' backlog is asked for, for health and metrics. */
const BACKLOG_MS = 5000;
/** A table that has not confirmed anything for this long although rows wait is unhealthy. */
const STALLED_MS = 60_000;

/** Hot is looked at for holes this often, or three times within the age of a gap. */
const GAP_LOOK_MS = 10_000;
const CHECKPOINT_MS = 1000;
/** Gap rows are few. */
const GAP_MESSAGES = 64;
const GAP_BYTES = 4 * 1024 * 1024;
const ACK_TIMEOUT_MS = 5000;

/** What the database has not answered this long after a stop is left: the next store waits until it is over, and looks. */
const LEAVE_MS = 5000;
/** Longer than the longest that a table waits for one answer. */
const STUCK_MS = 180_000;

/** The parts of a running store. */
interface Store {
  config: Config;
  log: Logger;
  startedAt: number;
  nats: NatsConnection;
  watch: ConnectionWatch;
  manager: JetStreamManager;
  hot: ClickHouseClient;
  cold: ClickHouseClient;
  /** What it stores. */
  definitions: StreamDefinition[];
  types: DataType[];
  leases: Map<StreamName, Lease>;
  checkpoints: Map<StreamName, Checkpoints>;
  meters: StoreMeters;
  tables: TableStore[];
  gaps: GapKeeper | null;
  /** Messages not yet delivered, by durable. */
  backlog: Map<string, number>;
  /** By durable: up to where everything was acknowledged when that was known last. */
  floors: Map<string, number>;
  /** Looks at the numbering so far, and whether one is under way: what a durable says of itself meanwhile may be of the one before. */
  looks: { count: number; isUnderWay: boolean };
}

function health(store: Store) {
  const checks: Record<string, Check> = {
    nats: store.watch.connected
      ? { status: 'healthy', error_message: null }
      : { status: 'unhealthy', error_message: `the broker at ${shownUrl(store.config.natsUrl)} is away` },
  };
  checks.lease = leaseCheck([...store.leases.values()]);
  const now = Date.now();
  for (const { type, stats } of store.tables) {
    const stalled = stats.holding > 0 && now - Math.max(stats.lastConfirmedAt, stats.holdingSince) > STALLED_MS;
    checks[type] = {
      status: stalled ? 'unhealthy' : stats.lastError !== null || stats.deadletters > 0 ? 'degraded' : 'healthy',
      error_message: stats.lastError ?? (stats.deadletters > 0 ? `${stats.deadletters} rows in the deadletter` : null),
      details: { ...stats, backlog: store.backlog.get(durableName(type)) ?? null },
    };
  }
  if (store.gaps !== null) {
    const { stats } = store.gaps;
    checks.gaps = {
      status: stats.lastError === null ? 'healthy' : 'degraded',
      error_message: stats.lastError,
      details: { ...stats, counts: store.gaps.counts },
    };
  }
  return healthDocument('store', store.config.healthGraceSeconds, checks, {
    nats_connected: store.watch.connected,
    is_running: true,
    subscriptions: store.tables.length,
  });
}

/** Waits for the database, then makes sure of its tables. */
async function prepareDatabase(store: Omit<Store, 'tables' | 'gaps'>, stop: AbortSignal): Promise<void> {
  for (let wait = FIRST_WAIT_MS; ; wait = Math.min(wait * 2, LAST_WAIT_MS)) {
    try {
      await selectText(store.hot, 'SELECT 1');
      await ensureTier(store.hot, 'hot', store.config.hotDatabase, store.log);
      await ensureTier(store.cold, 'cold', store.config.coldDatabase, store.log);
      return;
    } catch (error) {
      if (stop.aborted || error instanceof OperatorError) throw error;
      store.log.warn({ event: 'database_away', url: shownUrl(store.config.clickhouseUrl), err: error, wait_ms: wait });
      await pause(wait, stop);
    }
  }
}

interface Numbering {
  epochs: Map<string, number>;
  /** Types of which the stream has not what was acknowledged. */
  lost: Set<DataType>;
}

/** Makes sure of streams and durables, and tells each stream's epoch. Waits as long as the database or the broker is away. */
async function findEpochs(
  store: Omit<Store, 'tables' | 'gaps'>,
  checkpoints: ReadonlyMap<DataType, Checkpoint>,
  stop: AbortSignal,
): Promise<Numbering> {
  const { config, log, manager, hot, definitions, types } = store;
  const prefixes = types.map(insertPrefix);
  const written = types.map((type) => `${config.hotDatabase}.${TABLES[type].name}`);
  for (let wait = FIRST_WAIT_MS; ; wait = Math.min(wait * 2, LAST_WAIT_MS)) {
    try {
      await ensureStreams(manager, definitions, log);
      for (const lease of store.leases.values()) await lease.whenHeld(stop);
      if (isGuarded('fence')) await fence(hot, prefixes, written, stop);
      const epochs = new Map<string, number>();
      const lost = new Set<DataType>();
      // All at once: in a cluster each may have to wait for its leader.
      await Promise.all(
        definitions.flatMap((definition) =>
          definition.types.map(async (type) => {
            const checkpoint = checkpoints.get(type) ?? null;
            if (await placeSurely(store, definition, type, checkpoint, stop)) return;
            log.error(
              { event: 'checkpoint_gone', type, ...checkpoint },
              'the broker lost what it had: all is read again',
            );
            lost.add(type);
          }),
        ),
      );
      for (const definition of definitions) {
        const isIntact = !definition.types.some((type) => lost.has(type));
        epochs.set(definition.name, await currentEpoch(hot, config.hotDatabase, manager, definition, isIntact, log));
      }
      return { epochs, lost };
    } catch (error) {
      stop.throwIfAborted();
      log.warn({ event: 'epochs_unknown', err: error, wait_ms: wait });
      await pause(wait, stop);
    }
  }
}

/** Places a durable, however long that takes: of several, one that has no leader yet must not have the others placed again. */
async function placeSurely(
  { config, log, manager, floors }: Omit<Store, 'tables' | 'gaps'>,
  definition: StreamDefinition,
  type: DataType,
  checkpoint: Checkpoint | null,
  stop: AbortSignal,
): Promise<boolean> {
  for (let wait = FIRST_WAIT_MS; ; wait = Math.min(wait * 2, LAST_WAIT_MS)) {
    const isRetry = wait !== FIRST_WAIT_MS;
    try {
      return await placeDurable(manager, definition, type, config.ackWaitSeconds, checkpoint, floors, isRetry);
    } catch (error) {
      stop.throwIfAborted();
      log.warn({ event: 'durable_not_placed', type, reason: (error as Error).message, wait_ms: wait });
      await pause(wait, stop);
    }
  }
}

/**
 * Takes the leases of the streams, and keeps them from then on.
 * @returns what is known to be acknowledged, by whoever had them last
 */
async function takeLeases(
  store: Omit<Store, 'tables' | 'gaps'>,
  patient: boolean,
  onLost: (error: unknown) => void,
  stop: AbortSignal,
): Promise<Map<DataType, Checkpoint>> {
  const { config, log, leases, checkpoints } = store;
  const known = new Map<DataType, Checkpoint>();
  const take = async (name: StreamName, lease: Lease, turn: Promise<unknown>) => {
    const before = await lease.take(stop, patient, turn);
    void lease.keep(stop).catch(onLost);
    const own = checkpoints.get(name)!.read();
    const left = checkpointsLeft(before?.state, config.hotDatabase);
    // What is on this disk may be of long ago, if another one had it since.
    const newest = left !== null && (before!.isOthers || own.size === 0) ? left : own;
    for (const [type, checkpoint] of newest) known.set(type, checkpoint);
    log.info({ event: 'checkpoints', stream: name, types: newest.size, from: newest === own ? 'disk' : 'lease' });
  };
  const takes: Promise<void>[] = [];
  // In one order everywhere: two that want both do not hold one each.
  for (const [name, lease] of leases) takes.push(take(name, lease, Promise.all(takes)));
  await Promise.all(takes);
  return known;
}

async function openTables(
  store: Omit<Store, 'tables' | 'gaps'>,
  known: Map<DataType, Checkpoint>,
  stop: AbortSignal,
): Promise<TableStore[]> {
  const { config, log, hot, cold, nats, types, meters, looks } = store;
  const { epochs, lost } = await findEpochs(store, known, stop);
  for (const type of lost) known.delete(type);
  // All durables come back at the same moment: one look at the broker serves them all.
  let looking: Promise<void> | null = null;
  const lookAgain = async () => {
    looks.count += 1;
    looks.isUnderWay = true;
    // What was taken before is stored under its numbers, or left, before anybody asks which numbering that was.
    await Promise.all(tables.map(({ inHand }) => inHand));
    const found = await findEpochs(store, checkpointsOf(tables), stop);
    for (const table of tables) {
      table.epoch = found.epochs.get(streamOf(table.type).name)!;
      if (found.lost.has(table.type)) table.checkpoint = null;
    }
    looks.isUnderWay = false;
  };
  const recheck = () => {
    looking ??= lookAgain()
      .catch((error: unknown) => {
        if (!stop.aborted) throw error;
      })
      .finally(() => {
        looking = null;
      });
    return looking;
  };
  const tables = types.map((type) => {
    const stream = streamOf(type);
    const options = {
      type,
      mode: config.mode,
      dataDir: config.dataDir,
      hot: { client: hot, database: config.hotDatabase },
      cold: { client: cold, database: config.coldDatabase },
      ackWaitMs: config.ackWaitSeconds * 1000,
      consumer: new PullConsumer(nats, stream.name, durableName(type), BUFFER_BYTES, recheck, log),
      lease: store.leases.get(stream.name)!,
      meters,
      stop,
      log,
    };
    return new TableStore(options, epochs.get(stream.name)!, known.get(type) ?? null);
  });
  return tables;
}

/** @param stream absent: of all */
function checkpointsOf(tables: TableStore[], stream?: StreamName): Map<DataType, Checkpoint> {
  const own = tables.filter(({ type }) => stream === undefined || streamOf(type).name === stream);
  return new Map(own.flatMap(({ type, checkpoint }) => (checkpoint === null ? [] : [[type, checkpoint]])));
}

/** Writes down now and then what is acknowledged: an older one only costs time. */
async function keepCheckpoints({ checkpoints, tables }: Store, stop: AbortSignal): Promise<void> {
  const write = () => {
    for (const [stream, file] of checkpoints) file.write(checkpointsOf(tables, stream));
  };
  while (!stop.aborted) {
    write();
    await pause(CHECKPOINT_MS, stop).catch(() => undefined);
  }
  write();
}

/** Keeps the backlog figures fresh. */
async function watchBacklog(store: Store, stop: AbortSignal): Promise<void> {
  while (!stop.aborted) {
    try {
      for (const { type } of store.tables) {
        const { count, isUnderWay } = store.looks;
        const info = await store.manager.consumers.info(streamOf(type).name, durableName(type));
        store.backlog.set(durableName(type), info.num_pending);
        if (!isUnderWay && count === store.looks.count) store.floors.set(durableName(type), ackFloor(info));
      }
    } catch (error) {
      store.log.warn({ event: 'backlog_unknown', err: error });
      store.backlog.clear();
    }
    await pause(BACKLOG_MS, stop).catch(() => undefined);
  }
}

/** Replays, by itself, what its table refused for a cause that heals, such as a schema that was older than a row. */
async function heal({ config, nats, log, types }: Store, stop: AbortSignal): Promise<void> {
  const { dataDir, mode, deadletterRetryMs } = config;
  while (!stop.aborted) {
    await pause(deadletterRetryMs, stop).catch(() => undefined);
    if (stop.aborted) return;
    try {
      const { replayed } = await replayHealing({
        dataDir,
        mode,
        nats,
        log,
        kinds: types,
        firstWaitMs: deadletterRetryMs,
      });
      if (replayed > 0) log.info({ event: 'deadletters_replayed', rows: replayed });
    } catch (error) {
      // A replay by hand is under way, or the broker is away: the letters are still there.
      log.warn({ event: 'deadletters_not_replayed', err: error });
    }
  }
}

/** The watch over holes in hot, and its way to JetStream. */
function keepGaps(store: Store): { keeper: GapKeeper; publisher: Publisher } {
  const { config, log, nats, manager, hot, tables } = store;
  const publisher = new Publisher(
    {
      mode: config.mode,
      boot: randomBytes(6).toString('hex'),
      startedAt: store.startedAt,
      maxInFlight: GAP_MESSAGES,
      maxInFlightBytes: GAP_BYTES,
      ackTimeoutMs: ACK_TIMEOUT_MS,
      onStored: () => undefined,
      log,
    },
    nats,
  );
  const tableOf = (type: DataType) => tables.find((table) => table.type === type)!;
  const keeper = new GapKeeper({
    client: hot,
    database: config.hotDatabase,
    types: store.types,
    dataSource: config.mode,
    dataDir: config.dataDir,
    ageMs: config.gapAgeMs,
    everyMs: Math.min(GAP_LOOK_MS, config.gapAgeMs / 3),
    // Usually 150 s: beyond the stream's duplicate window.
    announceMs: config.gapAgeMs * 5,
    publisher,
    batcher: new Batcher((message) => publisher.push(message)),
    sequences: sequences(),
    besideLiquidations: Object.fromEntries(
      Object.values(EXCHANGE_MODULES).map(({ exchange, besideLiquidations }) => [exchange, besideLiquidations]),
    ),
    seen: (type) => tableOf(type).streams,
    collectorStart: async (type, seq) => (await storedMessage(manager, streamOf(type).name, seq))?.startedAt ?? null,
    settled: async (type) => {
      const { epoch } = tableOf(type);
      const info = await manager.consumers.info(streamOf(type).name, durableName(type));
      return { epoch, seq: ackFloor(info) };
    },
    log,
  });
  return { keeper, publisher };
}

async function main(): Promise<number> {
  const options = flags(USAGE, { once: { type: 'boolean', default: false } });
  const config = loadConfig();
  const log = createLogger('store');
  tellLeftOut(log);
  mkdirSync(config.dataDir, { recursive: true });
  const definitions = streamDefinitions(config).filter(({ name }) => config.storeStreams.includes(name));
  const locks: Lock[] = [];
  for (const { name } of definitions) locks.push(await takeLock(config.dataDir, `store ${name}`));
  const abort = new AbortController();
  const stop = abort.signal;
  // Every table waits on it, several times over.
  setMaxListeners(0, stop);
  const stopped = untilStopped(log).then(() => abort.abort(new Error('stopped')));
  // Up before broker and database are: it waits for them as long as it takes, and /health says so.
  const parts: VitalPart[] = [];
  tellReady(log, parts);
  const hot = createClickHouse(hotServer(config), 'marketprism-store');
  const cold = createClickHouse(coldServer(config), 'marketprism-store');
  const nats = await connectNats(config.natsUrl, 'store', log);
  // Asks nothing: a cluster that has just no leader must not end the store.
  const manager = await nats.jetstreamManager({ checkAPI: false });
  const watch = new ConnectionWatch(nats);
  const registry = createRegistry({ dataDir: config.dataDir });
  const base = {
    config,
    log,
    startedAt: Date.now(),
    nats,
    watch,
    manager,
    hot,
    cold,
    backlog: new Map<string, number>(),
    floors: new Map<string, number>(),
    looks: { count: 0, isUnderWay: false },
    definitions,
    types: definitions.flatMap(({ types }) => types),
    leases: new Map<StreamName, Lease>(),
    checkpoints: new Map(
      definitions.map(({ name }) => [name, new Checkpoints(config.dataDir, config.hotDatabase, name, log)]),
    ),
    meters: createStoreMeters(registry, config.mode),
  };
  const store: Store = { ...base, tables: [], gaps: null };
  const place = placeOf(config.dataDir);
  for (const { name } of definitions) {
    const state = () => {
      if (store.tables.length === 0) return undefined;
      return base.checkpoints.get(name)!.stateOf(checkpointsOf(store.tables, name));
    };
    // An insert on its way when another store may already be at it must not arrive.
    const onLapse = () => resetConnections(hot);
    const options = { name: `store.${name}`, place, state, onLapse, log };
    base.leases.set(name, new Lease(() => openLeases(nats, config.streamReplicas), options));
  }
  registerStoreGauges(registry, store);
  const http = { health: () => health(store), registry, log };
  const server = await serveStatus({ ...http, port: config.storePort, portName: 'HOT_STORAGE_HTTP_PORT' });
  let onLost: (error: unknown) => void = () => undefined;
  const lost = new Promise<never>((_, fail) => {
    onLost = fail;
  });
  const work = async () => {
    const known = await takeLeases(base, !options.once, onLost, stop);
    await prepareDatabase(base, stop);
    store.tables = await openTables(base, known, stop);
    parts.push(...store.tables.map((table) => new Vital(`table of ${table.type}`, STUCK_MS, () => table.steps)));
    log.info({ event: 'started', health: server.port, database: config.hotDatabase });
    const watching = Promise.all([watchBacklog(store, stop), keepCheckpoints(store, stop)]);
    const keeper = options.once ? null : keepGaps(store);
    store.gaps = keeper?.keeper ?? null;
    const loops = store.tables.map((table) => (options.once ? table.runUntilEmpty() : table.run()));
    if (options.once) void Promise.all(loops).then(() => abort.abort(new Error('done')));
    await Promise.all([...loops, watching, keeper?.keeper.run(stop), options.once ? undefined : heal(store, stop)]);
    keeper?.publisher.close();
    // Nothing is under way any more: whoever stands by need not wait.
    for (const lease of base.leases.values()) await lease.release();
  };
  const left = stopped.then(() => delay(LEAVE_MS, 'left', { ref: false }));
  try {
    if ((await Promise.race([work(), left, lost])) === 'left') log.warn({ event: 'work_left' });
  } catch (error) {
    if (!stop.aborted) throw error;
  }
  if (!options.once) await stopped;
  log.info({ event: 'stopped', inserted: store.tables.reduce((sum, table) => sum + table.stats.inserted, 0) });
  // Acknowledgements are on their way until the connection is flushed.
  await nats.drain();
  await Promise.all([server.close(), hot.close(), cold.close()]);
  await Promise.all(locks.map((lock) => lock.release()));
  return 0;
}

runAsScript(import.meta.url, main);
