/** One data type's way from its durable into its table: gather, look, insert, confirm, acknowledge. */
import { randomBytes } from 'node:crypto';
import { setImmediate as nextTurn } from 'node:timers/promises';
import type { ClickHouseClient } from '@clickhouse/client';
import {
  type Arrival,
  dropFound,
  type Fault,
  insertBody,
  LineReader,
  lookupQuery,
  type StreamArrivals,
  streamKey,
} from './arrivals.ts';
import { fence, insertLines, isPoison, selectText } from './clickhouse.ts';
import { crashPoint, isGuarded } from './crash_points.ts';
import { appendDeadLetters, type DeadLetter } from './deadletter.ts';
import type { Checkpoint } from './durables.ts';
import { type Lease, LeaseLapsed } from './lease.ts';
import type { Logger } from './log.ts';
import { pause } from './pause.ts';
import type { Delivery, PullConsumer } from './pull_consumer.ts';
import { type DataType, TABLES } from './rows.ts';
import { steadyNow, wallTime } from './steady.ts';
import type { StoreMeters } from './store_metrics.ts';
import { parseSubject, type Stream } from './streams.ts';

/**
 * A batch is closed when it is full, or old enough and its turn has come: while one is stored, the next is gathered. Larger ones gain nothing,
 * younger ones make too many parts.
 */
const MAX_ROWS = 50_000;
const MAX_BYTES = 12 * 1024 * 1024;
const MAX_AGE_MS = 250;
/**
 * A batch that holds so much by then may become older: an insert and its look-up cost some 20 ms of CPU whatever is in them, and parts that
 * are larger from the start are merged less often.
 */
const BUSY_BYTES = 1.5 * 1024 * 1024;
const BUSY_AGE_MS = 600;
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
  /** Without it nothing is looked up nor inserted: another store may be at it. */
  lease: Lease;
  meters: StoreMeters;
  stop: AbortSignal;
  log: Logger;
}

interface Batch {
  /** The consumer's when its messages came. */
  generation: number;
  messages: Delivery[];
  streams: Map<string, StreamArrivals>;
  /** When its first message was taken, by the steady clock, ms. */
  since: number;
  /** Tells the broker again and again that its messages are worked on. */
  timer: NodeJS.Timeout;
}

/** The broker went away while a batch was in hand: its messages come again, under whatever numbers they have then. */
class Outdated extends Error {}

/** Of the ids of all inserts into a type's table. */
export function insertPrefix(type: DataType): string {
  return `store:${TABLES[type].name}:`;
}

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
    lastError: null as string | null,
  };
  /** Taken and not yet confirmed: what is being stored, and what is being gathered meanwhile. */
  private readonly batches = new Set<Batch>();
  private isStoring = false;
  /** Of the steady clock, ms. */
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
    const [oldest] = this.batches;
    return {
      ...this.figures,
      /** Messages taken and not yet confirmed. */
      holding: [...this.batches].reduce((sum, { messages }) => sum + messages.length, 0),
      holdingSince: shown(oldest?.since ?? null),
      lastConfirmedAt: shown(this.confirmedAt),
    };
  }

  /** Streams that rows have come of. */
  get streams(): Stream[] {
    return [...this.readers.keys()].flatMap((subject) => parseSubject(subject) ?? []);
  }

  /** Stores until stopped. */
  run(): Promise<void> {
    return this.runWhile(() => true);
  }

  /** Stores what is there, and returns once nothing came for a while. */
  async runUntilEmpty(): Promise<void> {
    let empty = 0;
    await this.runWhile((batch) => {
      empty = batch === null ? empty + 1 : 0;
      return empty < 4;
    });
    this.options.consumer.close();
  }

  /** Gathers one batch while the one before is stored. @param goesOn asked after each; null: nothing came for a while */
  private async runWhile(goesOn: (batch: Batch | null) => boolean): Promise<void> {
    const { consumer, stop } = this.options;
    stop.addEventListener('abort', () => consumer.close(), { once: true });
    let next = this.gatherNext();
    try {
      while (!stop.aborted) {
        this.steps += 1;
        const batch = await next;
        if (!goesOn(batch)) return;
        this.isStoring = batch !== null;
        next = this.gatherNext();
        if (batch === null) continue;
        const work = this.work(batch);
        this.inHand = work.catch(() => undefined);
        await work;
        this.turnCame();
      }
    } finally {
      this.turnCame();
      const left = await next.catch(() => null);
      if (left !== null && this.batches.has(left)) this.leave(left);
    }
  }

  /** Nothing is being stored: what is gathered may be old enough to be. */
  private turnCame(): void {
    this.isStoring = false;
    if (this.batches.size > 0) this.options.consumer.nudge();
  }

  private gatherNext(): Promise<Batch | null> {
    const next = this.gather();
    // Whoever takes the batch is told; until then it is nobody's error.
    next.catch(() => undefined);
    return next;
  }

  private async work(batch: Batch): Promise<void> {
    const { stop } = this.options;
    try {
      crashPoint('store.taken');
      if (!isGuarded('order')) this.acknowledge(batch);
      await this.store(batch);
      this.refuseOutdated(batch);
      this.acknowledge(batch);
      // The client hands them to the system before the next turn.
      await nextTurn();
      crashPoint('store.acknowledged');
      this.confirmedAt = steadyNow();
      this.release(batch);
    } catch (error) {
      // What is not acknowledged comes again, and is looked up then.
      if (!stop.aborted && !(error instanceof Outdated)) throw error;
      this.leave(batch);
    }
  }

  private leave(batch: Batch): void {
    this.release(batch);
    this.options.log.info({ event: 'batch_left', type: this.type, messages: batch.messages.length });
  }

  private release(batch: Batch): void {
    clearInterval(batch.timer);
    this.batches.delete(batch);
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

  /** Takes messages until the batch is full, or old enough and its turn has come. @returns null when nothing came for a while */
  private async gather(): Promise<Batch | null> {
    const { consumer, stop } = this.options;
    let first = await consumer.next(IDLE_MS);
    // While one is stored nobody asks for the next: it is gathered however late it comes.
    while (first === null && this.isStoring && !stop.aborted) first = await consumer.next(IDLE_MS);
    if (first === null) return null;
    let batch = this.open(first);
    let rows = this.take(batch, first);
    let bytes = first.data.length;
    while (rows < MAX_ROWS && bytes < MAX_BYTES && !stop.aborted) {
      const left = batch.since + (bytes < BUSY_BYTES ? MAX_AGE_MS : BUSY_AGE_MS) - steadyNow();
      if (left <= 0 && !this.isStoring) break;
      const message = await consumer.next(left > 0 ? left : IDLE_MS);
      if (message === null) continue;
      if (message.generation !== batch.generation) {
        // What came before the broker was away comes again.
        this.leave(batch);
        batch = this.open(message);
        rows = bytes = 0;
      } else batch.messages.push(message);
      rows += this.take(batch, message);
      bytes += message.data.length;
    }
    return batch;
  }

  private open(first: Delivery): Batch {
    const { consumer, ackWaitMs } = this.options;
    const messages = [first];
    // From its delivery on the broker waits for an answer; what takes long says that it is being worked on.
    const timer = setInterval(() => {
      for (const message of messages) message.working();
      for (const message of consumer.waiting) message.working();
    }, ackWaitMs / 3);
    const batch = { generation: first.generation, messages, streams: new Map(), since: steadyNow(), timer };
    this.batches.add(batch);
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
    const { stop, log, hot, lease } = this.options;
    for (let wait = FIRST_WAIT_MS; ; wait = Math.min(wait * 2, LAST_WAIT_MS)) {
      let asked = false;
      this.steps += 1;
      await lease.whenHeld(stop, () => (this.steps += 1));
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
        // Nothing was sent.
        if (error instanceof LeaseLapsed) continue;
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
        if (isGuarded('fence')) await this.fenced(hot.client);
      }
    }
  }

  /** Waits until no insert of this table can happen any more, however long the database is away. */
  private async fenced(client: ClickHouseClient): Promise<void> {
    const { stop, log } = this.options;
    for (let wait = FIRST_WAIT_MS; ; wait = Math.min(wait * 2, LAST_WAIT_MS)) {
      this.steps += 1;
      try {
        await fence(client, insertPrefix(this.type), this.table, stop);
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
    const lines = insertBody(rows);
    const queryId = `${insertPrefix(this.type)}${randomBytes(8).toString('hex')}`;
    this.options.lease.check();
    try {
      await insertLines(this.options.hot.client, this.table, lines, queryId);
      crashPoint('store.inserted');
      this.figures.inserts += 1;
      this.figures.inserted += rows.length;
      this.options.meters.inserted(this.type, rows, Date.now());
    } catch (error) {
      if (!isPoison(error)) throw error;
      if (rows.length === 1) {
        const row = rows[0]!;
        const { seq } = row.message;
        const subject = batch.messages.find((message) => message.seq === seq)?.subject ?? '';
        const reason = `${(error as { type?: string }).type}: ${(error as Error).message}`.slice(0, 500);
        this.bury([{ line: row.message.text.slice(row.start, row.end), reason, seq }], subject);
        // Buried once, even when a later part of this batch has to be tried again.
        for (const arrivals of batch.streams.values()) {
          if (arrivals.rows.get(row.key) === row) arrivals.rows.delete(row.key);
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
