const USAGE = `
collector.ts: public market data of the configured exchanges, from their sockets to JetStream.

Usage:   npx tsx scripts/collector.ts [--once]
Example: MARKETPRISM_EXCHANGES=binance_spot MARKETPRISM_SYMBOLS=BTC-USDT npx tsx scripts/collector.ts

Flags:
  --once   stop after the first row of every stream, or after 60 s (exit 1) when one stays silent

Environment: MARKETPRISM_EXCHANGES, MARKETPRISM_SYMBOLS (default BTC-USDT,ETH-USDT), MARKETPRISM_NATS_URL,
MARKETPRISM_ENDPOINTS, MARKETPRISM_ORDERBOOK_INTERVAL (10s), MARKETPRISM_COLLECTOR_ID, MARKETPRISM_DATA_DIR,
HEALTH_CHECK_PORT (8087, /health), METRICS_PORT (9093, /metrics), LOG_LEVEL. The README tells more.
`;

import { randomBytes } from 'node:crypto';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import type { NatsConnection } from 'nats';
import { exchangeModule } from './exchanges/index.ts';
import { Batcher } from './lib/batcher.ts';
import { flags, runAsScript } from './lib/cli.ts';
import { type CollectorMeters, createMeters, registerGauges } from './lib/collector_metrics.ts';
import { type Config, loadConfig, shownUrl } from './lib/config.ts';
import { Delivery, type OutboxHealth } from './lib/delivery.ts';
import type { Instrument, Mark, UnnumberedType } from './lib/exchange.ts';
import { ExchangeRunner, type RowSink } from './lib/exchange_runner.ts';
import { writeJsonAtomic } from './lib/files.ts';
import { answerOthers, isFollowed } from './lib/followers.ts';
import { GapFiller } from './lib/gap_filler.ts';
import { connectWithStreams, storedMessage } from './lib/jetstream.ts';
import { takeLock } from './lib/lock.ts';
import { createLogger, type Logger } from './lib/log.ts';
import { pause } from './lib/pause.ts';
import type { Publisher } from './lib/publisher.ts';
import { type Check, createRegistry, healthDocument, serveStatus, untilStopped } from './lib/service.ts';
import { tellReady } from './lib/service_manager.ts';
import { streamDefinitions, streamOf, subjectOf } from './lib/streams.ts';
import { Vital } from './lib/vital_signs.ts';

/** At a stop, acknowledgements are awaited this long: the whole stop has 10 s. */
const DRAIN_LIMIT_MS = 6000;
/**
 * Messages a second that the linger aims at: each costs collector, broker and store some tens of µs, whatever it holds. Where rows of many streams
 * come at once they linger longer, so that a message holds several of them; but never so long that anybody would wait for them.
 */
const MESSAGES_PER_SECOND = 1000;
const LONGEST_LINGER_MS = 200;
/** How often it is looked whether sockets may be read again, if nothing else tells. */
const BALANCE_MS = 250;
const ONCE_LIMIT_MS = 60_000;
/** An exchange from which nothing comes, and which is not even tried: this long, beyond the wait after a region block. */
const STUCK_MS = 300_000;
/** At a start the broker is there by then, or away. */
const BROKER_WITHIN_MS = 1000;
/** Between questions to a broker that does not answer. */
const ASK_AGAIN_MS = 500;

/** All exchanges of one collector, their common way to JetStream, and what is told about them. */
class Collector {
  readonly startedAt = Date.now();
  readonly runners: ExchangeRunner[];
  readonly batcher: Batcher;
  readonly filler: GapFiller;
  private lingering: NodeJS.Timeout | null = null;
  private lingerMs: number;
  private readonly timer: NodeJS.Timeout;
  private paused = false;
  pauses = 0;

  constructor(
    readonly config: Config,
    /** Names this run, in message headers and in the report. */
    readonly boot: string,
    readonly delivery: Delivery,
    meters: CollectorMeters,
    private readonly nats: Promise<NatsConnection>,
    private readonly log: Logger,
  ) {
    this.lingerMs = config.lingerMs;
    this.batcher = new Batcher((message) => delivery.push(message));
    this.timer = setInterval(() => this.balance(), BALANCE_MS);
    const sink: RowSink = {
      batcher: this.batcher,
      rowsWait: () => this.rowsWait(),
      lastRows: (type, instrument) => this.lastRows(type, instrument),
      isFollowedByOthers: (type, instrument, after) => this.isFollowedByOthers(type, instrument, after),
    };
    this.runners = config.exchanges.map((name) => new ExchangeRunner(exchangeModule(name), config, sink, meters, log));
    this.filler = new GapFiller({ runners: this.runners, sink, log });
    void nats.then((connection) => {
      this.filler.start(connection);
      answerOthers(connection, (type, instrument) => this.unbrokenSince(type, instrument));
    });
  }

  /** Rows were added: they leave together after the linger. */
  private rowsWait(): void {
    this.lingering ??= setTimeout(() => {
      this.lingering = null;
      const messages = this.batcher.flush();
      this.lingerMs = nextLinger(messages, this.config.lingerMs);
      this.balance();
    }, this.lingerMs);
  }

  get publisher(): Publisher {
    return this.delivery.publisher;
  }

  /** Stops reading the sockets while neither broker nor disk take what comes, so that memory stays bounded and nothing is dropped. */
  balance(): void {
    if (!this.paused && this.delivery.mustPause) {
      this.paused = true;
      this.pauses += 1;
      for (const runner of this.runners) runner.pause();
    } else if (this.paused && this.delivery.mayGoOn) {
      this.paused = false;
      for (const runner of this.runners) runner.resume();
    }
  }

  /** Closes the sockets and waits until JetStream has everything that was received. @returns false when it had not in time */
  async stop(): Promise<boolean> {
    this.filler.stop();
    for (const runner of this.runners) runner.stop();
    clearInterval(this.timer);
    if (this.lingering) clearTimeout(this.lingering);
    this.batcher.flush();
    return this.delivery.stop(DRAIN_LIMIT_MS);
  }

  /**
   * The rows in the last message of an instrument, oldest first: this collector's own from its disk, else the broker's. For that it waits for
   * the broker, and for what an earlier run left in the outbox: not to know them would be a gap that nobody is told of.
   */
  private async lastRows(type: UnnumberedType, { exchange, market_type, symbol }: Instrument): Promise<Mark[]> {
    const subject = subjectOf({ type, exchange, market_type, symbol });
    const own = await this.delivery.lastOfEarlierRun(subject).catch((error: unknown) => {
      this.log.warn({ event: 'own_rows_unread', subject, err: error });
      return null;
    });
    if (own !== null) return marksOf(own);
    const nats = await this.nats;
    for (;;) {
      try {
        while (this.delivery.isSpilling) await pause(ASK_AGAIN_MS);
        const message = await storedMessage(await nats.jetstreamManager(), streamOf(type).name, subject);
        return message === null ? [] : marksOf(message.data);
      } catch (error) {
        this.log.warn({ event: 'last_rows_unknown', subject, err: error, wait_ms: ASK_AGAIN_MS });
        await pause(ASK_AGAIN_MS);
      }
    }
  }

  private async isFollowedByOthers(type: UnnumberedType, instrument: Instrument, after: Mark): Promise<boolean> {
    try {
      // Where nobody can be asked, what may be missing is declared.
      const nats = await Promise.race([this.nats, pause(BROKER_WITHIN_MS).then(() => null)]);
      return nats !== null && (await isFollowed(nats, type, instrument, after.time));
    } catch (error) {
      this.log.warn({ event: 'others_unknown', type, symbol: instrument.symbol, err: error });
      return false;
    }
  }

  private unbrokenSince(type: UnnumberedType, instrument: Instrument): number | null {
    const runner = this.runners.find(({ module }) => module.exchange === instrument.exchange);
    return runner?.unbrokenSince(type, instrument) ?? null;
  }

  /** What this run accepted, for the ledger of `npm start`. */
  report() {
    return {
      boot: this.boot,
      collector_id: this.config.collectorId,
      started: this.startedAt,
      ended: Date.now(),
      rows: this.runners.flatMap((runner) => runner.received()),
    };
  }

  /** Every stream that was asked for: type → exchange → market type → symbol. */
  private coverage() {
    const out: Record<string, Record<string, Record<string, Record<string, object>>>> = {};
    for (const { type, instrument, ...state } of this.runners.flatMap((runner) => runner.coverage())) {
      const ofExchange = ((out[type] ??= {})[instrument.exchange] ??= {});
      (ofExchange[instrument.market_type] ??= {})[instrument.symbol] = state;
    }
    return out;
  }

  /** How far each book can be trusted: exchange → market type → symbol. */
  private books() {
    const out: Record<string, Record<string, Record<string, object>>> = {};
    for (const { instrument, ...quality } of this.runners.flatMap((runner) => runner.bookQuality())) {
      const ofExchange = (out[instrument.exchange] ??= {});
      (ofExchange[instrument.market_type] ??= {})[instrument.symbol] = quality;
    }
    return out;
  }

  health() {
    const waiting = this.delivery.waitingBytes;
    const outboxes = this.delivery.health();
    const fault = !this.publisher.isConnected
      ? `the broker at ${shownUrl(this.config.natsUrl)} is away; ${waiting} bytes wait for it`
      : this.publisher.lastError;
    const broker: Check = {
      status: fault === null ? 'healthy' : 'unhealthy',
      error_message: fault,
      response_time: this.publisher.lastSeconds,
      details: { waiting_bytes: waiting, waiting_messages: this.publisher.waitingMessages, ...this.publisher.stats },
    };
    const outbox = outboxCheck(outboxes, this.paused);
    const checks: Record<string, Check> = { broker, outbox };
    for (const runner of this.runners) checks[runner.module.exchange] = runner.check();
    return healthDocument('collector', this.config.healthGraceSeconds, checks, {
      boot: this.boot,
      received: this.runners.flatMap((runner) => runner.received()),
      metrics: {
        messages_published: this.publisher.stats.stored,
        waiting_bytes: waiting,
        pauses: this.pauses,
        process_rss_bytes: process.memoryUsage.rss(),
      },
      coverage: this.coverage(),
      books: this.books(),
      gaps: { pending: this.filler.pendingCount, ...this.filler.stats },
    });
  }
}

/** How long rows linger after a flush that gave so many messages, ms. @param least what is configured, which may be longer than the longest */
export function nextLinger(messages: number, least: number): number {
  return Math.max(least, Math.min((1000 * messages) / MESSAGES_PER_SECOND, LONGEST_LINGER_MS));
}

function outboxCheck(outboxes: OutboxHealth[], isPaused: boolean): Check {
  const broken = outboxes.find(({ isFull, lastError }) => isFull || lastError !== null);
  const waiting = outboxes.find(({ spilledBytes }) => spilledBytes > 0);
  const left = ({ minutes_left }: OutboxHealth) => (minutes_left === null ? '' : `, full in ${minutes_left} minutes`);
  const message = isPaused
    ? `neither broker nor disk take what comes: sockets are paused${broken?.lastError ? ` (${broken.lastError})` : ''}`
    : broken
      ? `${broken.stream}: ${broken.lastError ?? 'the outbox is full'}`
      : waiting
        ? `${waiting.stream}: ${waiting.spilledBytes} bytes wait on disk${waiting.diverted ? ', as the store does not keep up' : ''}${left(waiting)}`
        : null;
  return {
    status: isPaused || broken ? 'unhealthy' : waiting ? 'degraded' : 'healthy',
    error_message: message,
    details: { paused: isPaused, streams: outboxes },
  };
}

function marksOf(message: Uint8Array): Mark[] {
  const rows = Buffer.from(message).toString().split('\n');
  const marks = rows.map((row) => {
    const {
      trade_id,
      last_update_id,
      timestamp: time,
    } = JSON.parse(row) as {
      trade_id?: string;
      last_update_id?: number;
      timestamp: number;
    };
    return { id: trade_id ?? String(last_update_id), time };
  });
  return marks.sort((one, other) => one.time - other.time);
}

async function main(): Promise<number> {
  const options = flags(USAGE, { once: { type: 'boolean', default: false } });
  const config = loadConfig();
  const log = createLogger('collector');
  mkdirSync(config.dataDir, { recursive: true });
  // Asked for early: a name without a module is wrong usage, and nothing should have begun then.
  for (const name of config.exchanges) exchangeModule(name);
  const lock = await takeLock(config.dataDir, `collector ${config.collectorId}`);
  const stopped = untilStopped(log);
  // Nothing waits for the broker: until it is there, the outbox takes what comes.
  let broker: NatsConnection | null = null;
  const definitions = streamDefinitions(config);
  const nats = connectWithStreams(config.natsUrl, `collector ${config.collectorId}`, definitions, log);
  void nats.then((connection) => {
    broker = connection;
  });
  const boot = randomBytes(6).toString('hex');
  const registry = createRegistry({ dataDir: config.dataDir });
  const meters = createMeters(registry);
  const delivery = await Delivery.open({
    nats,
    config,
    boot,
    startedAt: Date.now(),
    onStored: ({ subject, rows }, seconds) => meters.published(subject, rows, seconds),
    onRefused: (subject, reason) => meters.publishRefused(subject, reason),
    log,
  });
  const collector: Collector = new Collector(config, boot, delivery, meters, nats, log);
  registerGauges(registry, collector);
  const health = () => collector.health();
  const http = { health, registry, log };
  const healthServer = await serveStatus({ ...http, port: config.healthPort, portName: 'HEALTH_CHECK_PORT' });
  const metricsServer = await serveStatus({ ...http, port: config.metricsPort, portName: 'METRICS_PORT' });
  const stuckMs = config.blockedRetryMs + STUCK_MS;
  const parts = collector.runners.map((each) => new Vital(each.module.exchange, stuckMs, () => each.steps));
  tellReady(log, parts);
  log.info({ event: 'started', boot: collector.boot, health: healthServer.port, metrics: metricsServer.port });
  const finished = options.once ? await Promise.race([stopped, firstRows(collector)]) : await stopped;
  const complete = await collector.stop();
  const report = collector.report();
  writeJsonAtomic(join(config.dataDir, 'state', `collector-${config.collectorId}.json`), report);
  log.info({ event: 'stopped', complete, rows: report.rows });
  await Promise.all([healthServer.close(), metricsServer.close(), (broker as NatsConnection | null)?.close()]);
  await lock.release();
  // What the broker does not have is in the outbox.
  const code = finished !== false ? 0 : 1;
  // A client that has never reached its server cannot be closed, and would try for ever.
  if (broker === null) process.exit(code);
  return code;
}

/** True once every stream has had a row; false when that took too long. */
async function firstRows(collector: Collector): Promise<boolean> {
  const deadline = Date.now() + ONCE_LIMIT_MS;
  while (Date.now() < deadline) {
    if (collector.runners.every((runner) => runner.silentStreams().length === 0)) return true;
    await new Promise((done) => setTimeout(done, 100));
  }
  return false;
}

runAsScript(import.meta.url, main);
