const USAGE = `
replicate.ts: hot → cold, by arrival, each window compared before it counts; and hot days dropped that cold holds.

Usage:   npx tsx scripts/replicate.ts [--once | --backfill FROM TO]
Example: npx tsx scripts/replicate.ts --backfill 2026-11-20 2026-11-21T12:00:00Z

Flags:
  --once               replicate what the store has stored by now, then stop; exit 0 only when all of it is in cold
  --backfill FROM TO   make cold hold everything that hot has of these event times (UTC), whatever was written down before

A window is what arrived between two sequences of JetStream, up to where the store has acknowledged everything. Its rows are copied as far
as cold lacks them, then counted and hashed in both; only what is equal is written down, beside cold. Where cold holds more than hot, or
other values, the table stops and says so, and is looked at again every MARKETPRISM_STOPPED_RETRY (5m): mended, it goes on by itself.

Environment: MARKETPRISM_NATS_URL, CLICKHOUSE_URL, CLICKHOUSE_USER, CLICKHOUSE_PASSWORD, MARKETPRISM_COLD_CLICKHOUSE_URL (the hot server),
MARKETPRISM_HOT_DATABASE, MARKETPRISM_COLD_DATABASE, MARKETPRISM_DATA_DIR, MARKETPRISM_MODE, MARKETPRISM_STOPPED_RETRY,
MARKETPRISM_REPLICATION_SECONDS (10), COLD_STORAGE_HTTP_PORT (8086, /health and /metrics), LOG_LEVEL.
`;

import { setMaxListeners } from 'node:events';
import { mkdirSync } from 'node:fs';
import type { ClickHouseClient } from '@clickhouse/client';
import { Cron } from 'croner';
import type { JetStreamManager, NatsConnection } from 'nats';
import { flags, moment, OperatorError, runAsScript, UsageError } from './lib/cli.ts';
import { coldServer, createClickHouse, fence, hotServer, resetConnections, type Server } from './lib/clickhouse.ts';
import { type Config, loadConfig, shownUrl } from './lib/config.ts';
import { ackFloor } from './lib/durables.ts';
import { ConnectionWatch, connectNats } from './lib/jetstream.ts';
import { Lease, LeaseLost, leaseCheck, openLeases, placeOf } from './lib/lease.ts';
import { takeLock } from './lib/lock.ts';
import { createLogger, type Logger } from './lib/log.ts';
import { pause } from './lib/pause.ts';
import { Progress } from './lib/progress.ts';
import {
  Disagreement,
  dropOldDays,
  type Place,
  QUERY_PREFIX,
  type ReplicationOptions,
  replications,
  settledPlaces,
  type TableReplication,
} from './lib/replication.ts';
import { ensureTier, ensureViews } from './lib/schema.ts';
import { type Check, createRegistry, gaugeMaker, healthDocument, serveStatus, untilStopped } from './lib/service.ts';
import { tellReady } from './lib/service_manager.ts';
import { steadyNow } from './lib/steady.ts';
import { durableName, streamOf } from './lib/streams.ts';
import { signOfLife, Vital, type VitalPart } from './lib/vital_signs.ts';

/** Windows of one table before the next table has its turn. */
const MAX_WINDOWS = 20;
/** A window that failed is tried again, on fresh connections, so often and after these waits: doubling from the first. */
const RETRIES = 3;
const FIRST_WAIT_MS = 1000;
/** Hot keeps what arrived in the last three days. */
const KEEP_MS = 3 * 86_400_000;
/** Days are looked at this often. */
const DAYS_EVERY_MS = 3_600_000;
/** Minutes of lag that are told in health, and those that are alarmed; hot's own end is seven days. */
const LAG_DEGRADED_MIN = 60;
const LAG_ALARMS_H = [12, 24, 48];
/** Above `max_execution_time`. */
const REQUEST_TIMEOUT_MS = 120_000;
/** Longer than the longest statement. */
const STUCK_MS = 300_000;
const HOUR_MS = 3_600_000;

class Replicator {
  readonly tables: TableReplication[];
  readonly lease: Lease;
  private readonly options: ReplicationOptions;
  private clients: ClickHouseClient[] = [];
  private lastDaysAt = 0;
  /** Of the thresholds of lag, those that are said. */
  private alarmed = 0;
  /** When a table that stopped is looked at again; this and `lastDaysAt` are of the steady clock, ms. */
  private readonly lookAgainAt = new Map<string, number>();
  lastPassAt = 0;
  /** Why it has not begun. */
  lastError: string | null = null;

  constructor(
    readonly config: Config,
    nats: NatsConnection,
    private readonly manager: JetStreamManager,
    private readonly stop: AbortSignal,
    private readonly log: Logger,
  ) {
    this.lease = new Lease(() => openLeases(nats, config.streamReplicas), {
      ...{ name: 'replicate', place: placeOf(config.dataDir), state: () => null, log },
      // A copy on its way when another one may already be at it must not arrive.
      onLapse: () => this.clients.forEach(resetConnections),
    });
    this.options = {
      lease: this.lease,
      hot: { client: this.connect(hotServer(config)), database: config.hotDatabase },
      cold: { client: this.connect(coldServer(config)), database: config.coldDatabase },
      isOneServer: config.clickhouseUrl === config.coldClickhouseUrl,
      log,
    };
    this.tables = replications(this.options);
  }

  private connect(server: Server): ClickHouseClient {
    const client = createClickHouse(server, 'marketprism-replicate', REQUEST_TIMEOUT_MS);
    this.clients.push(client);
    return client;
  }

  /** Takes the lease. @param patient whether it waits while another one holds it @param onLost told when another one has taken it */
  async take(patient: boolean, onLost: (error: unknown) => void): Promise<void> {
    await this.lease.take(this.stop, patient);
    void this.lease.keep(this.stop).catch(onLost);
  }

  /** Waits for the lease and both servers, makes sure of tables and views, and of no query of an earlier run. */
  async prepare(): Promise<void> {
    const { hot, cold } = this.options;
    const { config } = this;
    for (let wait = FIRST_WAIT_MS; ; wait = Math.min(wait * 2, 10_000)) {
      try {
        await this.lease.whenHeld(this.stop, signOfLife);
        await ensureTier(hot.client, 'hot', config.hotDatabase, this.log);
        await ensureTier(cold.client, 'cold', config.coldDatabase, this.log);
        await ensureViews(hot.client, config, this.log);
        await this.fenced();
        this.lastError = null;
        return;
      } catch (error) {
        this.stop.throwIfAborted();
        if (error instanceof OperatorError) throw error;
        this.lastError = (error as Error).message.slice(0, 300);
        // That it tries is progress, too.
        signOfLife();
        const urls = [config.clickhouseUrl, config.coldClickhouseUrl].map(shownUrl);
        this.log.warn({ event: 'database_away', urls, err: error, wait_ms: wait });
        await pause(wait, this.stop);
      }
    }
  }

  /** One round over all tables. @returns whether all that is settled is in cold */
  async pass(onWindow?: (rows: number) => void): Promise<boolean> {
    let isComplete = true;
    let attempts = RETRIES;
    for (const table of this.tables) {
      await this.lease.whenHeld(this.stop, signOfLife);
      if (steadyNow() < (this.lookAgainAt.get(table.name) ?? 0)) {
        isComplete = false;
        continue;
      }
      if (await this.replicate(table, attempts, onWindow)) continue;
      isComplete = false;
      // A server is away rather than this one table: the others need not wait for it one after the other.
      if (table.stats.disagreement === null) attempts = 1;
    }
    await this.measure();
    if (steadyNow() - this.lastDaysAt > DAYS_EVERY_MS) await this.dropDays();
    this.lastPassAt = Date.now();
    return isComplete;
  }

  /** @returns whether all of this table that is settled is in cold */
  private async replicate(
    table: TableReplication,
    attempts: number,
    onWindow?: (rows: number) => void,
  ): Promise<boolean> {
    for (let attempt = 1, wait = FIRST_WAIT_MS; ; attempt += 1, wait *= 2) {
      try {
        const settled = await this.settled(table);
        while (await table.run(settled, MAX_WINDOWS, onWindow)) this.stop.throwIfAborted();
        if (this.lookAgainAt.delete(table.name)) this.log.info({ event: 'table_goes_on', table: table.name });
        return true;
      } catch (error) {
        this.stop.throwIfAborted();
        const figures = { table: table.name, attempt, err: error };
        if (error instanceof Disagreement) {
          this.lookAgainAt.set(table.name, steadyNow() + this.config.stoppedRetryMs);
          this.log.error(
            { event: 'table_stopped', ...figures },
            'cold holds what hot does not say: look before it goes on',
          );
          return false;
        }
        this.log.warn({ event: 'window_failed', ...figures, wait_ms: wait });
        if (attempt >= attempts) return false;
        await pause(wait, this.stop);
        await this.reconnect();
      }
    }
  }

  /** After an unclear answer: fresh connections, and no copy that may still be under way. */
  private async reconnect(): Promise<void> {
    const old = this.clients;
    this.clients = [];
    this.options.hot.client = this.connect(hotServer(this.config));
    this.options.cold.client = this.connect(coldServer(this.config));
    await Promise.all(old.map((client) => client.close()));
    await this.fenced().catch((error: unknown) => this.log.warn({ event: 'fence_failed', err: error }));
  }

  private async fenced(): Promise<void> {
    const { hot, cold, isOneServer } = this.options;
    await fence(cold.client, QUERY_PREFIX, cold.database, this.stop);
    if (!isOneServer) await fence(hot.client, QUERY_PREFIX, null, this.stop);
  }

  private async settled(table: TableReplication): Promise<Place[]> {
    try {
      return await settledPlaces(this.options.hot, table.type, async (type) => {
        const info = await this.manager.consumers.info(streamOf(type).name, durableName(type));
        return ackFloor(info);
      });
    } catch (error) {
      table.failed(error as Error);
      throw error;
    }
  }

  private async measure(): Promise<void> {
    for (const table of this.tables) {
      try {
        await table.measureLag(Date.now());
      } catch (error) {
        table.stats.lag_minutes = null;
        this.log.warn({ event: 'lag_unknown', table: table.name, err: error });
      }
    }
    this.alarm();
  }

  /** Says each threshold once on the way up, and once that it is over: when the lag of every table is known, and below the first. */
  private alarm(): void {
    const lags = this.tables.map(({ stats }) => stats.lag_minutes);
    const worst = Math.max(0, ...lags.map((lag) => lag ?? 0)) / 60;
    const reached = LAG_ALARMS_H.filter((threshold) => worst >= threshold).length;
    const hours = Math.round(worst * 10) / 10;
    if (reached > this.alarmed) {
      this.log.error({ event: 'replication_lag', threshold_hours: LAG_ALARMS_H[reached - 1], hours });
    } else if (reached === 0 && this.alarmed > 0 && !lags.includes(null)) {
      this.log.info({ event: 'replication_lag_over', hours });
    } else return;
    this.alarmed = reached;
  }

  private async dropDays(): Promise<void> {
    this.lastDaysAt = steadyNow();
    for (const table of this.tables) {
      try {
        await dropOldDays(table, this.options, KEEP_MS, Date.now());
      } catch (error) {
        // The day stays, and is looked at again.
        this.log.warn({ event: 'days_not_dropped', table: table.name, err: error });
      }
    }
  }

  /** Event times hour by hour. @returns rows of hot in that time */
  async backfill(from: number, to: number, onHour: (done: number, rows: number) => void): Promise<number> {
    let rows = 0;
    const hours = Math.ceil((to - from) / HOUR_MS);
    for (let hour = 0; hour < hours; hour += 1) {
      const [begin, end] = [from + hour * HOUR_MS, Math.min(from + (hour + 1) * HOUR_MS, to)];
      const where = `timestamp >= fromUnixTimestamp64Milli(toInt64(${begin}), 'UTC') AND timestamp < fromUnixTimestamp64Milli(toInt64(${end}), 'UTC')`;
      for (const table of this.tables) {
        this.stop.throwIfAborted();
        const { wanted } = await table.transfer(
          where,
          `${new Date(begin).toISOString()} to ${new Date(end).toISOString()}`,
        );
        rows += wanted.rows;
      }
      onHour((hour + 1) / hours, rows);
    }
    return rows;
  }

  health() {
    const checks: Record<string, Check> = { lease: leaseCheck([this.lease]) };
    // What another one replicates is not known here.
    for (const { name, stats } of this.lease.isStandingBy ? [] : this.tables) {
      const { disagreement, lag_minutes: lag, lastError } = stats;
      const isLate = lag === null || lag >= LAG_ALARMS_H[0]! * 60;
      const parts = [
        disagreement === null ? null : `stopped: ${disagreement}`,
        lag === null ? 'its lag is not known' : lag > LAG_DEGRADED_MIN ? `${Math.round(lag)} minutes behind` : null,
        lastError === disagreement ? null : lastError,
        this.lastError,
      ].filter((part) => part !== null);
      checks[name] = {
        status: disagreement !== null || isLate ? 'unhealthy' : parts.length === 0 ? 'healthy' : 'degraded',
        error_message: parts.length === 0 ? null : parts.join('; '),
        details: stats,
      };
    }
    const sum = (field: 'success_windows' | 'failed_windows') =>
      this.tables.reduce((total, { stats }) => total + stats[field], 0);
    return healthDocument('replicate', this.config.healthGraceSeconds, checks, {
      success_windows: sum('success_windows'),
      failed_windows: sum('failed_windows'),
      lag_minutes: Object.fromEntries(this.tables.map(({ name, stats }) => [name, stats.lag_minutes])),
      last_pass: this.lastPassAt === 0 ? null : new Date(this.lastPassAt).toISOString(),
    });
  }

  async close(): Promise<void> {
    await Promise.all(this.clients.map((client) => client.close()));
  }
}

function registerMetrics(replicator: Replicator, watch: ConnectionWatch) {
  const registry = createRegistry({ dataDir: replicator.config.dataDir });
  const gauge = gaugeMaker(registry);
  for (const [name, help] of [
    ['success_windows', 'windows that are equal in hot and cold'],
    ['failed_windows', 'windows that could not be brought to that'],
    ['rows', 'rows that were compared'],
    ['copied', 'rows that cold had lacked'],
    ['lag_minutes', 'since the arrival of the oldest row that is not in cold'],
  ] as const) {
    gauge(`replication_${name}`, help, ['table'], (each) => {
      for (const table of replicator.tables) {
        const value = table.stats[name];
        if (value !== null) each.set({ table: table.name }, value);
      }
    });
  }
  const stopped = '1 while cold holds what hot does not say: somebody must look';
  gauge('replication_stopped', stopped, ['table'], (each) => {
    for (const { name, stats } of replicator.tables) each.set({ table: name }, stats.disagreement === null ? 0 : 1);
  });
  const lastPass = 'when the last round over all tables ended; absent before the first';
  gauge('replication_last_pass_timestamp_seconds', lastPass, [], (each) => {
    if (replicator.lastPassAt > 0) each.set(replicator.lastPassAt / 1000);
  });
  gauge('nats_connected', 'whether the broker is there', [], (each) => each.set(watch.connected ? 1 : 0));
  return registry;
}

/** Replicates on schedule until stopped. */
async function serve(
  replicator: Replicator,
  watch: ConnectionWatch,
  abort: AbortController,
  log: Logger,
): Promise<void> {
  const stop = abort.signal;
  const { config } = replicator;
  const http = { health: () => replicator.health(), registry: registerMetrics(replicator, watch), log };
  const server = await serveStatus({ ...http, port: config.replicatePort, portName: 'COLD_STORAGE_HTTP_PORT' });
  log.info({ event: 'started', health: server.port });
  try {
    // Health is served already: that a server is away is seen there.
    await replicator.take(true, (error) => abort.abort(error));
    await replicator.prepare();
    const round = async () => {
      try {
        await replicator.pass();
      } catch (error) {
        if (!stop.aborted) log.error({ event: 'pass_failed', err: error });
      } finally {
        // One that ends at once, as the database is away, is no hanging.
        signOfLife();
      }
    };
    await round();
    const cron = new Cron(`*/${config.replicationSeconds} * * * * *`, { protect: true, timezone: 'UTC' }, round);
    await new Promise<void>((done) => {
      if (stop.aborted) done();
      stop.addEventListener('abort', () => done(), { once: true });
    });
    cron.stop();
    // What is under way ends by itself or at the next start's fence.
    while (cron.isBusy()) await pause(50);
  } finally {
    await server.close();
  }
}

async function main(): Promise<number> {
  const { span, rest } = readSpan(process.argv.slice(2));
  const options = flags(USAGE, { once: { type: 'boolean', default: false } }, rest);
  const config = loadConfig();
  const log = createLogger('replicate');
  mkdirSync(config.dataDir, { recursive: true });
  const lock = await takeLock(config.dataDir, 'replicate');
  const abort = new AbortController();
  const stop = abort.signal;
  setMaxListeners(0, stop);
  void untilStopped(log).then(() => abort.abort(new Error('stopped')));
  // Up before its broker is: it waits for that one as long as it takes.
  const parts: VitalPart[] = [];
  tellReady(log, parts);
  const nats: NatsConnection = await connectNats(config.natsUrl, 'replicate', log);
  parts.push(new Vital('rounds', STUCK_MS));
  const watch = new ConnectionWatch(nats);
  const replicator = new Replicator(config, nats, await nats.jetstreamManager({ checkAPI: false }), stop, log);
  let code = 0;
  try {
    if (span !== null || options.once) await replicator.take(false, (error) => abort.abort(error));
    if (span !== null) {
      await replicator.prepare();
      const progress = new Progress();
      const rows = await replicator.backfill(span.from, span.to, (done, count) => progress.show(done, `${count} rows`));
      progress.clear();
      process.stdout.write(`${rows} rows of hot in that time are in cold\n`);
    } else if (options.once) {
      await replicator.prepare();
      code = (await replicator.pass()) ? 0 : 1;
      log.info({
        event: 'replicated',
        complete: code === 0,
        rows: replicator.tables.map(({ name, stats }) => [name, stats.rows]),
      });
    } else await serve(replicator, watch, abort, log);
  } catch (error) {
    if (!stop.aborted) throw error;
  }
  if (stop.reason instanceof LeaseLost) throw stop.reason;
  // Nothing is under way any more: whoever stands by need not wait. A run that was not stopped has its lease still renewed.
  abort.abort(new Error('done'));
  await replicator.lease.release();
  log.info({ event: 'stopped' });
  await Promise.all([replicator.close(), nats.close()]);
  await lock.release();
  if (options.once || span !== null) process.exit(code);
  return code;
}

/** Takes `--backfill FROM TO` out of the arguments. @throws UsageError when that are no two times */
function readSpan(argv: string[]): { span: { from: number; to: number } | null; rest: string[] } {
  const place = argv.indexOf('--backfill');
  if (place < 0) return { span: null, rest: argv };
  const [from, to] = argv.slice(place + 1, place + 3).map((text) => moment('--backfill', text));
  if (from === undefined || to === undefined || !(from < to))
    throw new UsageError(
      '--backfill takes FROM TO as UTC times such as 2026-11-20 2026-11-21T12:00:00Z, the first before the second',
    );
  return { span: { from, to }, rest: [...argv.slice(0, place), ...argv.slice(place + 3)] };
}

runAsScript(import.meta.url, main);
