/** One data type's way from its durable into its table: gather, look, insert, confirm, acknowledge. */
import { randomBytes } from 'node:crypto';
import { setImmediate as nextTurn } from 'node:timers/promises';
import type { ClickHouseClient } from '@clickhouse/client';
import {
  type Arrival,
  dropFound,
  type Fault,
  LineReader,
  lookupQuery,
  type StreamArrivals,
  streamKey,
} from './arrivals.ts';
import { fence, insertLines, isPoison, selectText } from './clickhouse.ts';
import { crashPoint, isGuarded } from './crash_points.ts';
import { appendDeadLetters, type DeadLetter } from './deadletter.ts';
import type { Checkpoint } from './durables.ts';
import type { Logger } from './log.ts';
import { pause } from './pause.ts';
import type { Delivery, PullConsumer } from './pull_consumer.ts';
import { type DataType, TABLES } from './rows.ts';
import { steadyNow, wallTime } from './steady.ts';
import type { StoreMeters } from './store_metrics.ts';
import { parseSubject, type Stream } from './streams.ts';

/** A batch is closed by whichever comes first. Larger ones gain nothing, younger ones make too many parts. */
const MAX_ROWS = 50_000;
const MAX_BYTES = 16 * 1024 * 1024;
const MAX_AGE_MS = 250;
/** While nothing comes, the loop looks for a stop this often. */
const IDLE_MS = 500;
/** Rows older than this may have left hot, so cold is asked too. */
const COLD_AFTER_MS = 2 * 86_400_000;
/** Waits after a failure: doubling from the first to the last. */
const FIRST_WAIT_MS = 500;
const LAST_WAIT_MS = 10_000;

export interface Place {
  client: ClickHouseClient;
  database: string;
}

export interface TableStoreOptions {
  type: DataType;
  mode: string;
  dataDir: string;
  hot: Place;
  cold: Place;
  ackWaitMs: number;
  consumer: PullConsumer;
  meters: StoreMeters;
  stop: AbortSignal;
  log: Logger;
}

interface Batch {
  /** The consumer's when its messages came. */
  generation: number;
  messages: Delivery[];
  streams: Map<string, StreamArrivals>;
}

/** The broker went away while a batch was in hand: its messages come again, under whatever numbers they have then. */
class Outdated extends Error {}

export class TableStore {
  readonly type: DataType;
  private readonly figures = {
    messages: 0,
    rows: 0,
    inserted: 0,
    duplicates: 0,
    deadletters: 0,
    inserts: 0,
    unclear: 0,
    lookupsFailed: 0,
    refused: 0,
    /** Messages taken and not yet confirmed. */
    holding: 0,
    lastError: null as string | null,
  };
  /** Of the steady clock, ms. */
  private heldSince: number | null = null;
  private confirmedAt: number | null = null;
  /** The stream's present numbering; rows read from now on carry it. */
  epoch: number;
  /** The newest message that was acknowledged; null while nothing was. */
  checkpoint: Checkpoint | null;
  /** Looks, inserts and tries so far: while this moves, the table is worked on, whether its database answers or not. */
  steps = 0;
  /** Resolves when no batch is in hand. */
  inHand: Promise<unknown> = Promise.resolve();
  private readonly table: string;
  private readonly readers = new Map<string, LineReader>();

  constructor(
    private readonly options: TableStoreOptions,
    epoch: number,
    checkpoint: Checkpoint | null,
  ) {
    this.type = options.type;
    this.epoch = epoch;
    this.checkpoint = checkpoint;
    this.table = `${options.hot.database}.${TABLES[options.type].name}`;
  }

  /** For health and metrics; times are wall clock, ms, 0 where there is none. */
  get stats() {
    const shown = (at: number | null) => (at === null ? 0 : wallTime(at));
    return { ...this.figures, holdingSince: shown(this.heldSince), lastConfirmedAt: shown(this.confirmedAt) };
  }

  /** Streams that rows have come of. */
  get streams(): Stream[] {
    return [...this.readers.keys()].flatMap((subject) => parseSubject(subject) ?? []);
  }

  /** Stores until stopped. */
  async run(): Promise<void> {
    const { consumer, stop } = this.options;
    stop.addEventListener('abort', () => consumer.close(), { once: true });
    while (!stop.aborted) await this.step(IDLE_MS);
  }

  /** Stores what is there, and returns once nothing came for a while. */
  async runUntilEmpty(): Promise<void> {
    const { consumer, stop } = this.options;
    let empty = 0;
    while (!stop.aborted && empty < 4) empty = (await this.step(IDLE_MS)) ? 0 : empty + 1;
    consumer.close();
  }

  /** Gathers one batch and stores it. @returns false when nothing came */
  private async step(waitMs: number): Promise<boolean> {
    this.steps += 1;
    const first = await this.options.consumer.next(waitMs);
    if (first === null) return false;
    const work = this.work(first);
    this.inHand = work.catch(() => undefined);
    await work;
    return true;
  }

  private async work(first: Delivery): Promise<void> {
    const { consumer, stop, ackWaitMs, log } = this.options;
    const messages: Delivery[] = [first];
    // From its delivery on the broker waits for an answer; what takes long says that it is being worked on.
    const timer = setInterval(() => {
      for (const message of messages) message.working();
      for (const message of consumer.waiting) message.working();
    }, ackWaitMs / 3);
    try {
      const batch = await this.gather(messages);
      crashPoint('store.taken');
      if (!isGuarded('order')) this.acknowledge(batch);
      await this.store(batch);
      this.refuseOutdated(batch);
      this.acknowledge(batch);
      // The client hands them to the system before the next turn.
      await nextTurn();
      crashPoint('store.acknowledged');
      this.confirmedAt = steadyNow();
    } catch (error) {
      // What is not acknowledged comes again, and is looked up then.
      if (!stop.aborted && !(error instanceof Outdated)) throw error;
      log.info({ event: 'batch_left', type: this.type, messages: messages.length });
    } finally {
      clearInterval(timer);
      this.figures.holding = 0;
      this.heldSince = null;
    }
  }

  private acknowledge({ messages }: Batch): void {
    let newest = this.checkpoint;
    for (const message of messages) {
      message.ack();
      if (newest === null || message.seq > newest.seq) newest = { seq: message.seq, storedAt: message.storedAt };
    }
    this.checkpoint = newest;
  }

  /** @throws Outdated when the broker was away since the batch was taken: an acknowledgement could be taken for another message's */
  private refuseOutdated({ generation }: Batch): void {
    if (generation !== this.options.consumer.generation) throw new Outdated();
  }

  /** Takes messages until the batch is full or old enough. */
  private async gather(messages: Delivery[]): Promise<Batch> {
    const { consumer, stop } = this.options;
    const batch: Batch = { generation: messages[0]!.generation, messages, streams: new Map() };
    const deadline = steadyNow() + MAX_AGE_MS;
    this.figures.holding = 1;
    this.heldSince = steadyNow();
    let rows = this.take(batch, messages[0]!);
    let bytes = messages[0]!.data.length;
    while (rows < MAX_ROWS && bytes < MAX_BYTES && !stop.aborted) {
      const left = deadline - steadyNow();
      const message = await consumer.next(Math.max(left, 0));
      if (message === null) break;
      messages.push(message);
      this.figures.holding = messages.length;
      rows += this.take(batch, message);
      bytes += message.data.length;
    }
    return batch;
  }

  /** Reads a message into the batch. @returns rows in it */
  private take(batch: Batch, message: Delivery): number {
    const { mode } = this.options;
    this.figures.messages += 1;
    const stream = parseSubject(message.subject);
    if (message.mode !== mode || stream === null) {
      const reason =
        stream === null ? 'no subject of ours' : `Mp-Mode is ${message.mode ?? 'absent'}, this store is ${mode}`;
      this.figures.refused += 1;
      this.bury([{ line: Buffer.from(message.data).toString('latin1'), reason, seq: message.seq }], message.subject);
      return 0;
    }
    let reader = this.readers.get(message.subject);
    if (!reader) this.readers.set(message.subject, (reader = new LineReader(stream)));
    const key = streamKey(stream.exchange, stream.market_type, stream.symbol);
    let arrivals = batch.streams.get(key);
    if (!arrivals) batch.streams.set(key, (arrivals = { stream, rows: new Map() }));
    const before = arrivals.rows.size;
    const { faults, copies } = reader.read(message.data, this.epoch, message.seq, arrivals.rows);
    const added = arrivals.rows.size - before;
    this.figures.rows += added + copies + faults.length;
    this.figures.duplicates += copies;
    if (faults.length > 0) this.bury(faults, message.subject);
    return added;
  }

  /** Looks, inserts what is missing, and comes back only when every row of the batch is in hot or in the deadletter. */
  private async store(batch: Batch): Promise<void> {
    const { stop, log, hot } = this.options;
    const prefix = `store:${TABLES[this.type].name}:`;
    for (let wait = FIRST_WAIT_MS; ; wait = Math.min(wait * 2, LAST_WAIT_MS)) {
      let asked = false;
      this.steps += 1;
      this.refuseOutdated(batch);
      try {
        if (isGuarded('look')) await this.look(batch);
        asked = true;
        crashPoint('store.looked');
        await this.insert(
          [...batch.streams.values()].flatMap(({ rows }) => [...rows.values()]),
          batch,
        );
        this.figures.lastError = null;
        return;
      } catch (error) {
        stop.throwIfAborted();
        this.figures.lastError = (error as Error).message.slice(0, 300);
        log.warn({ event: asked ? 'insert_unclear' : 'lookup_failed', type: this.type, err: error, wait_ms: wait });
        await pause(wait, stop);
        if (!asked) {
          this.figures.lookupsFailed += 1;
          continue;
        }
        this.figures.unclear += 1;
        // Of what is left here, whoever numbers the stream anew makes sure.
        this.refuseOutdated(batch);
        if (isGuarded('fence')) await this.fenced(hot.client, prefix);
      }
    }
  }

  /** Waits until no insert of this table can happen any more, however long the database is away. */
  private async fenced(client: ClickHouseClient, prefix: string): Promise<void> {
    const { stop, log } = this.options;
    for (let wait = FIRST_WAIT_MS; ; wait = Math.min(wait * 2, LAST_WAIT_MS)) {
      this.steps += 1;
      try {
        await fence(client, prefix, this.table, stop);
        return;
      } catch (error) {
        stop.throwIfAborted();
        log.warn({ event: 'fence_failed', type: this.type, err: error, wait_ms: wait });
        await pause(wait, stop);
      }
    }
  }

  /** Drops the rows that hot (or, for old ones, cold) holds. */
  private async look(batch: Batch): Promise<void> {
    const { hot, cold } = this.options;
    const streams = [...batch.streams.values()];
    const queries: [Place, string | null][] = [
      [hot, lookupQuery(this.type, hot.database, streams)],
      [cold, lookupQuery(this.type, cold.database, streams, Date.now() - COLD_AFTER_MS)],
    ];
    for (const [place, query] of queries) {
      if (query === null) continue;
      const found = await selectText(place.client, query, { max_execution_time: 30, max_query_size: '16777216' });
      this.figures.duplicates += dropFound(batch.streams, found);
    }
  }

  /** Inserts in one block. Rows that the table cannot take are halved out and buried; the others are stored. */
  private async insert(rows: Arrival[], batch: Batch): Promise<void> {
    if (rows.length === 0) return;
    this.steps += 1;
    const lines = Buffer.from(rows.map((row) => row.line).join(''), 'latin1');
    const queryId = `store:${TABLES[this.type].name}:${randomBytes(8).toString('hex')}`;
    try {
      await insertLines(this.options.hot.client, this.table, lines, queryId);
      crashPoint('store.inserted');
      this.figures.inserts += 1;
      this.figures.inserted += rows.length;
      this.options.meters.inserted(this.type, rows, Date.now());
    } catch (error) {
      if (!isPoison(error)) throw error;
      if (rows.length === 1) {
        const { line, seq } = rows[0]!;
        const subject = batch.messages.find((message) => message.seq === seq)?.subject ?? '';
        const reason = `${(error as { type?: string }).type}: ${(error as Error).message}`.slice(0, 500);
        this.bury([{ line: withoutSplice(line), reason, seq }], subject);
        // Buried once, even when a later part of this batch has to be tried again.
        for (const arrivals of batch.streams.values()) {
          if (arrivals.rows.get(rows[0]!.key) === rows[0]) arrivals.rows.delete(rows[0]!.key);
        }
        return;
      }
      const middle = rows.length >> 1;
      await this.insert(rows.slice(0, middle), batch);
      await this.insert(rows.slice(middle), batch);
    }
  }

  private bury(faults: Fault[], subject: string): void {
    const { dataDir, log } = this.options;
    const letters: DeadLetter[] = faults.map(({ line, reason, seq }) => ({
      reason,
      subject,
      js_epoch: this.epoch,
      js_seq: seq,
      row: Buffer.from(line, 'latin1').toString(),
    }));
    appendDeadLetters(dataDir, this.type, letters, new Date());
    crashPoint('store.buried');
    this.figures.deadletters += letters.length;
    log.warn({ event: 'deadletter', type: this.type, rows: letters.length, subject, reason: letters[0]!.reason });
  }
}

/** The line as it came, without what was spliced in for the insert. */
function withoutSplice(line: string): string {
  return line.replace(/^\{"js_epoch":\d+,"js_seq":\d+,/, '{').trimEnd();
}
