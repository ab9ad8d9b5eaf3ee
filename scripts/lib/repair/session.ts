/** The few things that a repair does to rows. Each is written down before it is done, and what is there afterwards is counted. */
import { createHash, randomBytes } from 'node:crypto';
import { existsSync, renameSync } from 'node:fs';
import { basename, join } from 'node:path';
import { Readable } from 'node:stream';
import type { JetStreamManager, NatsConnection } from 'nats';
import { Batcher } from '../batcher.ts';
import { OperatorError } from '../cli.ts';
import { INSERT_SETTINGS, selectText } from '../clickhouse.ts';
import { altered } from '../cluster.ts';
import type { Config } from '../config.ts';
import { contentHash } from '../contents.ts';
import { crashPoint } from '../crash_points.ts';
import { badFiles } from '../deadletter.ts';
import { replayLetters } from '../deadletter_replay.ts';
import { ackFloor } from '../durables.ts';
import { chunks } from '../gap_rows.ts';
import type { Logger } from '../log.ts';
import { pause } from '../pause.ts';
import { Publisher } from '../publisher.ts';
import { TableReplication } from '../replication.ts';
import { DATA_TYPES, type DataType, type GapRow, type Rows } from '../rows.ts';
import { steadyNow } from '../steady.ts';
import { durableName, streamOf } from '../streams.ts';
import type { Journal, StepOf } from './journal.ts';
import {
  countRows,
  LIMITS,
  named,
  nameOf,
  nameSql,
  type Place,
  readRows,
  tableOf,
  type Window,
  writtenColumns,
} from './rows.ts';

/** A merge may move rows between the look and the removal; then they are looked for again. */
const REMOVALS = 20;
/** Messages without an answer at one time, and the wait before one is sent again. */
const MAX_IN_FLIGHT = 64;
const MAX_IN_FLIGHT_BYTES = 16 * 2 ** 20;
const ACK_TIMEOUT_MS = 2000;
/** Broker or store that get nothing done for this long are away. */
const STALLED_MS = 60_000;
const LOOK_AGAIN_MS = 200;

/** See `Session.remove`. */
export const COPIES = 'copies';

export interface SessionOptions {
  config: Config;
  hot: Place;
  cold: Place;
  nats: NatsConnection;
  manager: JetStreamManager;
  /** Rows of one step at most. */
  batchSize: number;
  log: Logger;
  /** Told of each step. */
  onRows?(rows: number): void;
}

export class Session {
  private readonly publisher: Publisher;
  private readonly batcher: Batcher;

  constructor(
    readonly options: SessionOptions,
    readonly journal: Journal,
  ) {
    const { config, nats, log } = options;
    this.publisher = new Publisher(
      {
        mode: config.mode,
        boot: this.source,
        startedAt: Date.now(),
        maxInFlight: MAX_IN_FLIGHT,
        maxInFlightBytes: MAX_IN_FLIGHT_BYTES,
        ackTimeoutMs: ACK_TIMEOUT_MS,
        onStored: () => undefined,
        log,
      },
      nats,
    );
    // An id of its own: the broker would take the rows for copies of those that were lost.
    this.batcher = new Batcher((message) => this.publisher.push({ ...message, id: `${message.id}:${this.source}` }));
  }

  /** What rows of this repair carry. */
  get source(): string {
    return `repair:${this.journal.id}`;
  }

  close(): void {
    this.publisher.close();
  }

  /**
   * Takes rows out of a table; they are kept in full.
   * @param only SQL: of the rows with these names; `COPIES`: of several that say the same, all but the one that came first
   * @returns rows that were taken out
   */
  async remove(place: Place, type: DataType, window: Window, names: Iterable<string>, only = '1'): Promise<number> {
    let removed = 0;
    for (const part of chunks([...names], this.options.batchSize)) {
      const where = named(type, window, part);
      const before = await countRows(place, type, where);
      const rows = await this.chosen(place, type, where, only);
      if (rows.length === 0) continue;
      const n = this.journal.next;
      const file = this.journal.keep(n, 'tsv', rows.map(({ line }) => `${line}\n`).join(''));
      this.journal.add({ op: 'remove', n, tier: place.tier, type, window, rows: rows.length, before, file });
      crashPoint('repair.removing');
      await this.removeChosen(place, type, where, rows, before - rows.length, only);
      crashPoint('repair.removed');
      this.done(n, rows.length);
      removed += rows.length;
    }
    return removed;
  }

  private async removeChosen(
    place: Place,
    type: DataType,
    where: string,
    first: ChosenRow[],
    left: number,
    only: string,
  ): Promise<void> {
    let rows = first;
    for (let attempt = 1; ; attempt += 1) {
      // What a condition names needs no place, at which young rows do not stay for long: parts of a table that is written to are merged all the time.
      const chosen = only === COPIES ? atPlaces(rows) : `(${only}) AND ${ofMessages(rows)}`;
      // A place is one on the shard of the stream: other shards have parts of the same names.
      await place.client.command({
        query: `DELETE FROM ${altered(place.client, tableOf(place, type))} WHERE ${where} AND ${chosen}`,
        query_id: this.queryId('remove'),
        clickhouse_settings: { ...LIMITS, lightweight_deletes_sync: '2' },
      });
      const now = await countRows(place, type, where);
      if (now === left) return;
      if (now < left || attempt === REMOVALS) {
        throw new OperatorError(
          `${tableOf(place, type)}: ${now} rows are left where ${left} should be; the journal has all that were taken out`,
          2,
        );
      }
      await pause(LOOK_AGAIN_MS);
      rows = await this.chosen(place, type, where, only);
    }
  }

  /** Rows with the places at which they lie now. */
  private async chosen(place: Place, type: DataType, where: string, only: string): Promise<ChosenRow[]> {
    const order = 'js_epoch, js_seq, created_at, _part, _part_offset';
    // Only copies that say the same are copies.
    const isCopy = `row_number() OVER (PARTITION BY ${nameSql(type)}, ${contentHash(type)} ORDER BY ${order}) > 1`;
    const isChosen = only === COPIES ? isCopy : only;
    const places = `SELECT _part, _part_offset FROM (SELECT _part, _part_offset, ${isChosen} AS chosen FROM ${tableOf(place, type)} WHERE ${where}) WHERE chosen`;
    const columns = writtenColumns(type).join(', ');
    const query = `SELECT _part, _part_offset, js_epoch, js_seq, ${columns} FROM ${tableOf(place, type)} WHERE ${where} AND (_part, _part_offset) IN (${places}) ORDER BY ${order}`;
    return (await selectText(place.client, query, LIMITS)).map(([part, offset, epoch, seq, ...cells]) => ({
      part: part!,
      offset: offset!,
      message: `(${epoch}, ${seq})`,
      line: cells.join('\t'),
    }));
  }

  /** Gives rows of cold to the store, so that hot has them again. @returns rows that hot has now */
  async restore(type: DataType, window: Window, names: Iterable<string>): Promise<number> {
    const { hot, cold, batchSize } = this.options;
    let restored = 0;
    for (const part of chunks([...names], batchSize)) {
      const where = named(type, window, part);
      const rows = await readRows(cold, type, where);
      const n = this.journal.next;
      this.journal.add({ op: 'publish', n, type, window, rows: rows.length });
      crashPoint('repair.publishing');
      await this.publish(type, rows);
      const found = await countRows(hot, type, where);
      this.done(n, found);
      restored += found;
    }
    return restored;
  }

  /** Resolves when the store has dealt with all of them. */
  async publish<T extends DataType>(type: T, rows: Rows[T][]): Promise<void> {
    for (const row of rows) this.batcher.add(type, { ...row, data_source: this.source });
    this.batcher.flush();
    await this.until(() => this.publisher.waitingMessages, 'the broker does not take the rows');
    await this.stored(type);
  }

  /** Everything that is in the stream of this type by now is in hot. */
  async stored(type: DataType): Promise<void> {
    const { manager } = this.options;
    const { name } = streamOf(type);
    const last = this.publisher.lastStored.get(name)?.seq ?? 0;
    const durable = durableName(type);
    await this.until(async () => {
      const info = await manager.consumers.info(name, durable);
      return info.num_pending === 0 && info.num_ack_pending === 0 ? 0 : Math.max(last - ackFloor(info), 0);
    }, 'the store does not take the rows');
  }

  /** Copies rows of hot to cold, and compares them. @returns rows that cold had lacked */
  async copyToCold(type: DataType, window: Window, names: Iterable<string>): Promise<number> {
    const { hot, cold, config, log, batchSize } = this.options;
    const isOneServer = config.clickhouseUrl === config.coldClickhouseUrl;
    let copied = 0;
    for (const part of chunks([...names], batchSize)) {
      const n = this.journal.next;
      const file = this.journal.keep(n, 'names', part.map((name) => `${name}\n`).join(''));
      this.journal.add({ op: 'copy', n, type, window, rows: part.length, file });
      crashPoint('repair.copying');
      const replication = new TableReplication(type, { hot, cold, isOneServer, log });
      const what = `${type} ${window.exchange} ${window.symbol}`;
      const { copied: rows } = await replication.transfer(named(type, window, part), what);
      this.done(n, rows);
      copied += rows;
    }
    return copied;
  }

  /** Declares a gap, so that the collectors fill it. @returns its id */
  async declare(gap: GapRow): Promise<string> {
    const n = this.journal.next;
    // One that began with the same row may have been there before, and been filled: this is another one.
    const gap_id = createHash('sha256').update(`${gap.gap_id}|${this.source}`).digest('hex').slice(0, 24);
    this.journal.add({ op: 'declare', n, type: gap.data_type as DataType, gap: gap_id, rows: Number(gap.rows ?? 0) });
    crashPoint('repair.declaring');
    await this.publish('gap', [{ ...gap, gap_id }]);
    this.done(n, 0);
    return gap_id;
  }

  /** Publishes dead letters again. @returns what could not be done, or null */
  async replay(): Promise<string | null> {
    const { config, nats, log } = this.options;
    const n = this.journal.next;
    this.journal.add({ op: 'letters', n, rows: 0 });
    const { replayed, bad, refused } = await replayLetters({ dataDir: config.dataDir, mode: config.mode, nats, log });
    for (const type of DATA_TYPES) await this.stored(type);
    this.done(n, replayed);
    for (const { directory, name } of bad > 0 ? badFiles(config.dataDir) : []) this.putAside(join(directory, name));
    return refused > 0 ? `${refused} letters are of the other mode, and stay` : null;
  }

  /** Moves a file to the journal, unless it was moved already. */
  putAside(path: string): void {
    if (!existsSync(path)) return;
    const n = this.journal.next;
    const to = join(this.journal.directory, `${String(n).padStart(6, '0')}.${basename(path)}`);
    this.journal.add({ op: 'aside', n, from: path, to });
    renameSync(path, to);
    this.done(n, 0);
  }

  /**
   * Puts rows that were taken out back as they were, as far as they are not there again.
   * @param unless rows that this tier has again are left out
   * @returns rows that were put back
   */
  async putBack(step: StepOf<'remove'>, unless?: Place): Promise<number> {
    const place = step.tier === 'hot' ? this.options.hot : this.options.cold;
    const type = step.type;
    const lines = this.journal.kept(step.file).trimEnd().split('\n');
    const names = lines.map((line) => nameOf(type, line));
    const where = named(type, step.window, new Set(names));
    const now = await countRows(place, type, where);
    if (unless === undefined && now === step.before) return 0;
    if (unless === undefined && now === step.before - step.rows) return this.insert(place, type, lines);
    // Some are there again, by a repair that was cut off or from the venue: the others are told by their names.
    const query = `SELECT DISTINCT ${nameSql(type)} FROM ${tableOf(unless ?? place, type)} WHERE ${where}`;
    const there = new Set((await selectText((unless ?? place).client, query, LIMITS)).map(([name]) => name!));
    const absent = lines.filter((_, index) => !there.has(names[index]!));
    return this.insert(place, type, absent);
  }

  private async insert(place: Place, type: DataType, lines: string[]): Promise<number> {
    if (lines.length === 0) return 0;
    const columns = writtenColumns(type).join(', ');
    const { stream } = await place.client.exec({
      query: `INSERT INTO ${tableOf(place, type)} (${columns}) FORMAT TabSeparated`,
      query_id: this.queryId('insert'),
      clickhouse_settings: INSERT_SETTINGS,
      values: Readable.from([Buffer.from(`${lines.join('\n')}\n`)], { objectMode: false }),
    });
    for await (const _chunk of stream) {
      // The body is empty; reading it to its end frees the connection.
    }
    return lines.length;
  }

  /** Takes out what a condition names, and keeps nothing of it. @returns rows that were there */
  async erase(place: Place, type: DataType, where: string): Promise<number> {
    const rows = await countRows(place, type, where);
    if (rows === 0) return 0;
    await place.client.command({
      query: `DELETE FROM ${altered(place.client, tableOf(place, type))} WHERE ${where}`,
      query_id: this.queryId('erase'),
      clickhouse_settings: { ...LIMITS, lightweight_deletes_sync: '2' },
    });
    return rows;
  }

  private done(n: number, rows: number): void {
    this.journal.add({ op: 'done', n });
    this.options.onRows?.(rows);
  }

  private async until(left: () => number | Promise<number>, otherwise: string): Promise<void> {
    let [least, since] = [Number.POSITIVE_INFINITY, steadyNow()];
    for (;;) {
      const now = await left();
      if (now === 0) return;
      if (now < least) [least, since] = [now, steadyNow()];
      if (steadyNow() - since > STALLED_MS) {
        throw new OperatorError(`${otherwise} (${this.publisher.lastError ?? `${now} wait`}): run it again`, 3);
      }
      await pause(LOOK_AGAIN_MS);
    }
  }

  private queryId(step: string): string {
    return `repair:${this.journal.id}:${step}:${randomBytes(4).toString('hex')}`;
  }
}

interface ChosenRow {
  part: string;
  offset: string;
  /** SQL: epoch and sequence of the message that it came in. */
  message: string;
  /** All columns, tab-separated. */
  line: string;
}

/** SQL: the rows that lie there now. */
function atPlaces(rows: ChosenRow[]): string {
  const byPart = new Map<string, string[]>();
  for (const { part, offset } of rows) byPart.set(part, [...(byPart.get(part) ?? []), offset]);
  const places = [...byPart].map(([part, offsets]) => `(_part = '${part}' AND _part_offset IN (${offsets.join()}))`);
  return `(${places.join(' OR ')})`;
}

/** SQL: rows that came in the messages of these; of one that comes meanwhile nothing is kept, and it stays. */
function ofMessages(rows: ChosenRow[]): string {
  return `(js_epoch, js_seq) IN (${[...new Set(rows.map(({ message }) => message))].join()})`;
}
