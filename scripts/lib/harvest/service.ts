/** The harvester at work: reads, derives, saves, and keeps checkpoints from which it goes on as if it had never stopped. */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { ClickHouseError } from '@clickhouse/client';
import type { NatsConnection } from 'nats';
import { OperatorError } from '../cli.ts';
import { createClickHouse, hotServer } from '../clickhouse.ts';
import type { Config } from '../config.ts';
import type { Checkpoint } from '../durables.ts';
import { writeJsonAtomic } from '../files.ts';
import { connectWithStreams } from '../jetstream.ts';
import type { Lock } from '../lock.ts';
import type { Logger } from '../log.ts';
import { pause } from '../pause.ts';
import type { Delivery } from '../pull_consumer.ts';
import type { Exchange } from '../rows.ts';
import { ensureSignals } from '../schema.ts';
import { steadyNow } from '../steady.ts';
import { parseSubject, streamDefinitions } from '../streams.ts';
import { signOfLife } from '../vital_signs.ts';
import { HarvestCore, type HarvestState } from './core.ts';
import { harvestInput } from './input.ts';
import { HARVEST_KINDS } from './kinds.ts';
import { rootOf } from './letters.ts';
import { HarvestHealer } from './letters_replay.ts';
import { writeManifests } from './manifest.ts';
import { removeOldDays, Saver } from './saver.ts';
import { Source, type SourceKind } from './source.ts';
import { harvestLock } from './table.ts';

/** Letters are looked at so often, and days that are too old, ms. */
const TIDY_MS = 60_000;
/** What is known by now is told so often, ms. */
const SETTLE_MS = 200;
/** The figures are written so often, ms. */
const FIGURES_MS = 5000;
/** Rows that wait for the other kind; beyond, the stream that is ahead is not read. */
const MOST_WAITING = 200_000;
/** A stream from which nothing has come for so long is not waited for, ms. */
const IDLE_MS = 60_000;
const WAIT_MS = 20;
const DATABASE_RETRY_MS = 2000;
/** The manifest of an hour is made so long after it, and again while its files change, up to a time back; ms. */
const MANIFEST_DELAY_MS = 180_000;
const MANIFEST_BACK_MS = 4 * 3_600_000;
const STATE_VERSION = 1;
/** Of the ten seconds that a stop has, for what is in memory, ms. */
const STOP_SAVING_MS = 7000;

interface KeptState {
  version: number;
  positions: Record<SourceKind, Checkpoint | null>;
  /** Sizes of the harvest's files, by their path below its folder. */
  sizes: Record<string, number>;
  core: HarvestState;
}

export interface ServiceOptions {
  config: Config;
  exchange: Exchange;
  log: Logger;
  /** Null: all that the collector captures. */
  symbols: ReadonlySet<string> | null;
  stop: AbortSignal;
}

export class HarvestService {
  private readonly core: HarvestCore;
  private readonly statePath: string;
  private readonly healer: HarvestHealer;
  private healing: Promise<void> = Promise.resolve();
  private readonly counts = { messages: 0, rows: 0, rejected: 0, other_mode: 0, checkpoints: 0 };
  private lastCheckpoint: number | null = null;

  private constructor(
    private readonly options: ServiceOptions,
    private readonly lock: Lock,
    private readonly nats: NatsConnection,
    private readonly saver: Saver,
    private readonly sources: Record<SourceKind, Source>,
    private readonly client: ReturnType<typeof createClickHouse>,
    state: KeptState | null,
  ) {
    const { config, exchange, log, stop } = options;
    this.statePath = statePath(config.dataDir, exchange);
    this.core = new HarvestCore((row) => saver.add(row), state?.core);
    this.healer = new HarvestHealer({
      ...{ dataDir: config.dataDir, client, database: config.signalsDatabase, log, stop, held: [exchange] },
      exclusively: (work) => saver.exclusively(work),
    });
  }

  /** @throws OperatorError when another process harvests this exchange, or its state cannot be read */
  static async open(options: ServiceOptions): Promise<HarvestService> {
    const { config, exchange, log, stop } = options;
    const { dataDir, signalsDatabase: database } = config;
    const lock = await harvestLock(dataDir, exchange);
    try {
      const state = readState(statePath(dataDir, exchange));
      const client = createClickHouse(hotServer(config), 'marketprism-harvester');
      const giveUp = new AbortController();
      const saver = new Saver({
        ...{ dataDir, root: rootOf(dataDir, exchange), client, database, watermarks: config.watermarks },
        ...{ concurrency: config.saveConcurrency, log, stop: giveUp.signal },
      });
      stop.addEventListener('abort', () => setTimeout(() => giveUp.abort(), STOP_SAVING_MS).unref(), { once: true });
      await saver.remember(new Map(Object.entries(state?.sizes ?? {})));
      await tablesReady(client, database, log, stop);
      const nats = await connectWithStreams(config.natsUrl, `harvester ${exchange}`, streamDefinitions(config), log);
      const open = (kind: SourceKind) =>
        Source.open(kind, exchange, dataDir, nats, state?.positions[kind] ?? null, log, stop);
      const sources = { trade: await open('trade'), book: await open('book') };
      return new HarvestService(options, lock, nats, saver, sources, client, state);
    } catch (error) {
      await lock.release();
      throw error;
    }
  }

  /** Works until it is stopped, or, `once`, until everything that is there is read; then all is saved. */
  async run(once: boolean): Promise<void> {
    const { stop, config } = this.options;
    let [checkpointAt, settleAt, figuresAt, tidyAt] = [steadyNow() + config.harvestCheckpointMs, 0, 0, 0];
    while (!stop.aborted) {
      signOfLife();
      const message = await this.read();
      const now = steadyNow();
      if (message !== null) this.take(message);
      if (now >= settleAt) {
        this.core.settleAll(this.idle(now));
        settleAt = now + SETTLE_MS;
      }
      await this.saver.relieve();
      if (now >= figuresAt) {
        this.tellFigures();
        figuresAt = now + FIGURES_MS;
      }
      if (now >= checkpointAt) {
        await this.checkpoint();
        checkpointAt = steadyNow() + config.harvestCheckpointMs;
      }
      if (now >= tidyAt) {
        this.tidy();
        tidyAt = now + TIDY_MS;
      }
      if (once && message === null && (await this.isDone())) break;
    }
  }

  /** Saves what is in memory and keeps a checkpoint: within the time that a stop has, or it is derived again at the next start. */
  async close(): Promise<void> {
    await this.checkpoint().catch((error: unknown) => {
      this.options.log.warn(
        { event: 'not_saved', reason: (error as Error).message },
        'it is derived again at the next start',
      );
    });
    this.tellFigures();
    for (const source of Object.values(this.sources)) source.close();
    await this.healing;
    this.saver.close();
    await this.nats.close();
    await this.client.close();
    await this.lock.release();
  }

  /** Of both streams the one that is behind goes on first, so that little has to wait for the other. */
  private async read(): Promise<Delivery | null> {
    const { trade, book } = this.sources;
    const { markTimes, waiting } = this.core;
    const [behind, ahead] = markTimes.trade <= markTimes.book ? [trade, book] : [book, trade];
    if (behind.isReady || !ahead.isReady || waiting >= MOST_WAITING) return behind.next(WAIT_MS);
    return ahead.next(0);
  }

  private take({ subject, data, mode }: Delivery): void {
    const { config, log, symbols } = this.options;
    this.counts.messages += 1;
    const stream = parseSubject(subject);
    if (stream === null || (symbols !== null && !symbols.has(stream.symbol))) return;
    if (mode !== config.mode) {
      this.counts.other_mode += 1;
      return;
    }
    for (const line of Buffer.from(data).toString().split('\n')) {
      if (line === '') continue;
      try {
        const input = harvestInput(stream.type, JSON.parse(line));
        if (input !== null) this.core.take(input);
        this.counts.rows += 1;
      } catch (error) {
        this.counts.rejected += 1;
        log.error({ event: 'row_rejected', subject, reason: (error as Error).message });
      }
    }
  }

  private idle(now: number): { trade: boolean; book: boolean } {
    const { trade, book } = this.sources;
    const isIdle = (source: Source) => now - source.lastAt > IDLE_MS;
    // While nothing comes at all, nothing is to be told.
    if (isIdle(trade) && isIdle(book)) return { trade: false, book: false };
    return { trade: isIdle(trade), book: isIdle(book) };
  }

  private async isDone(): Promise<boolean> {
    const open = await Promise.all(Object.values(this.sources).map((source) => source.pending()));
    return open.every((count) => count === 0);
  }

  private async checkpoint(): Promise<void> {
    const { saver, core, sources, statePath: path } = this;
    await saver.flush();
    const positions = { trade: sources.trade.position, book: sources.book.position };
    const sizes = Object.fromEntries(saver.sizes(core.received));
    writeJsonAtomic(path, { version: STATE_VERSION, positions, sizes, core: core.dump() } satisfies KeptState);
    this.counts.checkpoints += 1;
    this.lastCheckpoint = Date.now();
  }

  /** Days that are too old go, hours that are over get their manifest; and what could not be saved is tried again, beside everything else. */
  private tidy(): void {
    const { log, stop, config, exchange } = this.options;
    const root = rootOf(config.dataDir, exchange);
    for (const day of removeOldDays(root, config.harvestDays, Date.now())) log.info({ event: 'day_removed', day });
    const now = Date.now();
    const work = async () => {
      try {
        // Rows of an hour come a little after it.
        await writeManifests({ root, now: now - MANIFEST_DELAY_MS, from: now - MANIFEST_BACK_MS });
        const { replayed, files } = await this.healer.turn(steadyNow());
        if (files > 0) log.info({ event: 'letters_delivered', files, rows: replayed });
      } catch (error) {
        if (!stop.aborted) log.warn({ event: 'not_tidy', reason: (error as Error).message });
      }
    };
    this.healing = this.healing.then(work);
  }

  private tellFigures(): void {
    const { config, exchange } = this.options;
    const { core, saver, counts } = this;
    const { trade, book } = core.markTimes;
    const time = (value: number) => (Number.isFinite(value) ? value : null);
    writeJsonAtomic(join(config.dataDir, 'state', `ofi_cvd_harvester_${exchange}.json`), {
      ...{ exchange, last_run: Date.now(), last_checkpoint: this.lastCheckpoint },
      data_time: time(core.frontier),
      ...{ newest_trade: time(trade), newest_book: time(book), waiting_rows: core.waiting },
      rows_in_memory: Object.fromEntries(HARVEST_KINDS.map((kind) => [kind, saver.held(kind)])),
      ...counts,
      ...saver.figures,
    });
  }
}

function statePath(dataDir: string, exchange: Exchange): string {
  return join(dataDir, 'state', `harvest_${exchange}.json`);
}

function readState(path: string): KeptState | null {
  if (!existsSync(path)) return null;
  let state: KeptState;
  try {
    state = JSON.parse(readFileSync(path, 'utf8')) as KeptState;
  } catch (error) {
    throw new OperatorError(`${path}: ${(error as Error).message}: remove it, and the harvest begins anew`);
  }
  if (state.version === STATE_VERSION) return state;
  throw new OperatorError(
    `${path} is of version ${state.version}, not ${STATE_VERSION}: remove it, and the harvest begins anew`,
  );
}

async function tablesReady(
  client: ReturnType<typeof createClickHouse>,
  database: string,
  log: Logger,
  stop: AbortSignal,
): Promise<void> {
  for (;;) {
    try {
      return await ensureSignals(client, database, log);
    } catch (error) {
      if (error instanceof OperatorError) throw error;
      if (error instanceof ClickHouseError) throw new OperatorError(`the tables of ${database}: ${error.message}`);
      log.warn({ event: 'database_away', reason: (error as Error).message, retry_ms: DATABASE_RETRY_MS });
      await pause(DATABASE_RETRY_MS, stop);
    }
  }
}
