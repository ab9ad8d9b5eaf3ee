/**
 * Rows on their way from memory into files and tables.
 *
 * Rows of a kind wait in a buffer until it is time, or until there are many of them (high watermark). At the emergency watermark, of what waits and what is
 * being saved together, derived rows leave memory for the deadletter, and of received ones no more are read until they are saved. A save that fails
 * puts what it did not write into the deadletter, once.
 */

import { readdirSync, rmSync, statSync } from 'node:fs';
import { join, relative } from 'node:path';
import type { ClickHouseClient } from '@clickhouse/client';
import type { Watermark } from '../config.ts';
import { JsonlWriter, objectsOf } from '../jsonl.ts';
import type { Logger } from '../log.ts';
import { pause } from '../pause.ts';
import { steadyNow } from '../steady.ts';
import { signOfLife } from '../vital_signs.ts';
import {
  HARVEST_KINDS,
  type HarvestKind,
  type HarvestRow,
  isRaw,
  placeOf,
  placePath,
  type SignalKind,
} from './kinds.ts';
import { appendHarvestLetters, type HarvestLetter, lettersOf, reasonOf } from './letters.ts';
import { storeRows } from './table.ts';

/**
 * A save that is under way is waited for so long before more is read than the high watermark, ms. What is slower than that must not keep signals from
 * being derived: then the emergency watermark is the bound.
 */
const SAVE_WAIT_MS = 5000;
/** A disk that takes not even letters is tried again after this, ms. */
const FULL_DISK_MS = 1000;
/** Rows that were written and not derived again by a row that arrived so much later never will be: a letter's, ms. */
const UNDONE_MS = 600_000;
/** Files that are kept open. */
const MOST_OPEN = 200;

export interface SaverOptions {
  dataDir: string;
  /** The harvest's folder. */
  root: string;
  client: ClickHouseClient;
  database: string;
  watermarks: Record<HarvestKind, Watermark>;
  /** Saves that are under way at once. */
  concurrency: number;
  log: Logger;
  /** Ends everything at once: what was not saved is derived again. */
  stop: AbortSignal;
}

export interface SaverFigures {
  /** Rows in files, and in letters. */
  written: number;
  letters: number;
  /** Times that each watermark was reached. */
  high: number;
  emergency: number;
}

interface Undone {
  /** The file's size at the last checkpoint by which all of it was derived. */
  from: number;
  ids: Set<string>;
  /** When the newest frame of them arrived, ms. */
  received: number;
}

interface Lane {
  waiting: HarvestRow[];
  /** Rows that are being saved. */
  saving: number;
  /** When the save that is under way began, steady clock, ms. */
  since: number;
  /** Saves of a kind follow each other: its files are in the order in which rows came. */
  tail: Promise<void>;
}

export class Saver {
  readonly figures: SaverFigures = { written: 0, letters: 0, high: 0, emergency: 0 };
  private readonly lanes = new Map<HarvestKind, Lane>(
    HARVEST_KINDS.map((kind) => [kind, { waiting: [], saving: 0, since: 0, tail: Promise.resolve() }]),
  );
  private readonly writers = new Map<string, JsonlWriter>();
  /** Of tables only: what needs none does not wait for a database that hangs. */
  private readonly tableSlots: Slots;
  /** By file, rows that a process before this one wrote after its last checkpoint: they are derived again, and are there. */
  private readonly undone = new Map<string, Undone>();
  /** One thing at a time is done with files. */
  private files: Promise<unknown> = Promise.resolve();

  constructor(private readonly options: SaverOptions) {
    this.tableSlots = new Slots(options.concurrency);
  }

  /** @param sizes of the files at the last checkpoint: what is in them beyond that is derived again */
  async remember(sizes: ReadonlyMap<string, number>): Promise<void> {
    for (const [path, size] of filesBelow(this.options.root)) {
      const from = sizes.get(path) ?? 0;
      if (from === size) continue;
      const undone: Undone = { from, ids: new Set(), received: 0 };
      for await (const line of objectsOf(join(this.options.root, path), from)) {
        if ('bad' in line) continue;
        const { row_id, recv_ts_ms } = line.value as Partial<HarvestRow>;
        if (typeof row_id !== 'string') continue;
        undone.ids.add(row_id);
        undone.received = Math.max(undone.received, recv_ts_ms ?? 0);
      }
      if (undone.ids.size > 0) this.undone.set(path, undone);
    }
  }

  /**
   * Each file's size for a checkpoint, by its path below the harvest's folder: where rows are still to be derived again, that of the checkpoint
   * before.
   * @param received of the newest row that was taken, ms: what lies long before it is not derived any more
   */
  sizes(received: number): Map<string, number> {
    for (const [path, undone] of this.undone) {
      if (undone.ids.size === 0 || received > undone.received + UNDONE_MS) this.undone.delete(path);
    }
    const sizes = new Map(filesBelow(this.options.root));
    for (const [path, { from }] of this.undone) sizes.set(path, from);
    return sizes;
  }

  add(row: HarvestRow): void {
    this.lanes.get(row.kind)!.waiting.push(row);
  }

  /** Rows of a kind that are in memory. */
  held(kind: HarvestKind): number {
    const { waiting, saving } = this.lanes.get(kind)!;
    return waiting.length + saving;
  }

  /** Acts on the watermarks, and waits where reading on would only fill memory. To be called between rows. */
  async relieve(): Promise<void> {
    for (const [kind, lane] of this.lanes) {
      if (lane.waiting.length < this.options.watermarks[kind].high) continue;
      if (lane.saving === 0) {
        this.figures.high += 1;
        // Who waits for it is told; here it goes on beside everything else.
        this.save(kind).catch(() => undefined);
        continue;
      }
      const left = lane.since + SAVE_WAIT_MS - steadyNow();
      if (left > 0) await this.settled(lane, left);
      else await this.escape(kind, lane);
    }
  }

  /** What is derived leaves memory; of what was received no more is read until it is saved. */
  private async escape(kind: HarvestKind, lane: Lane): Promise<void> {
    const { high, emergency } = this.options.watermarks[kind];
    // In pieces, not row by row.
    if (this.held(kind) < emergency || lane.waiting.length < emergency - high) return;
    this.figures.emergency += 1;
    if (isRaw(kind)) {
      this.options.log.warn({ event: 'reading_stops', kind, emergency }, 'until rows of this kind are saved');
      await this.settled(lane);
      return;
    }
    const rows = lane.waiting.splice(0);
    this.options.log.warn({ event: 'spill', kind, rows: rows.length, emergency }, 'more rows than can be saved');
    const reason = `emergency watermark: ${emergency} rows of ${kind} in memory`;
    await this.bury(rows.map((row) => ({ row, sinks: ['jsonl', 'clickhouse'], reason })));
  }

  /** Resolves when what is being saved of a kind is, or after `ms`. A save that fails ends as well. */
  private async settled({ tail }: Lane, ms?: number): Promise<void> {
    const end = tail.catch(() => undefined);
    if (ms === undefined) return end;
    const timer = new AbortController();
    await Promise.race([end, pause(ms, timer.signal).catch(() => undefined)]);
    timer.abort();
  }

  /** Saves everything. @throws when it was stopped before all was in files or letters */
  async flush(): Promise<void> {
    await Promise.all(HARVEST_KINDS.map((kind) => this.save(kind)));
  }

  /** Runs `work` while no file of the harvest is written to. */
  exclusively<T>(work: () => Promise<T>): Promise<T> {
    const done = this.files.then(work);
    this.files = done.catch(() => undefined);
    return done;
  }

  close(): void {
    for (const writer of this.writers.values()) writer.close();
    this.writers.clear();
  }

  /** Takes what waits of a kind, and saves it after what is being saved. */
  private save(kind: HarvestKind): Promise<void> {
    const lane = this.lanes.get(kind)!;
    const rows = lane.waiting.splice(0);
    if (rows.length === 0) return lane.tail;
    return this.queue(lane, rows.length, () => this.write(kind, rows));
  }

  private queue(lane: Lane, rows: number, work: () => Promise<void>): Promise<void> {
    lane.saving += rows;
    const begin = () => {
      lane.since = steadyNow();
      return work();
    };
    const done = lane.tail.then(begin).finally(() => {
      lane.saving -= rows;
    });
    lane.tail = done;
    // Told to whoever waits for it; a stop is no news to the others.
    done.catch(() => undefined);
    return done;
  }

  private async write(kind: HarvestKind, rows: readonly HarvestRow[]): Promise<void> {
    const { options } = this;
    options.stop.throwIfAborted();
    const letters: HarvestLetter[] = [];
    const failed = await this.exclusively(async () => this.writeFiles(kind, rows));
    for (const { rows: unwritten, reason } of failed) {
      const sinks = isRaw(kind) ? (['jsonl'] as const) : (['jsonl', 'clickhouse'] as const);
      letters.push(...unwritten.map((row) => ({ row, sinks, reason })));
    }
    const unwritten = new Set(letters.map(({ row }) => row));
    const written = unwritten.size === 0 ? rows : rows.filter((row) => !unwritten.has(row));
    this.figures.written += written.length;
    if (!isRaw(kind)) letters.push(...(await this.tableSlots.run(() => this.store(kind, written))));
    await this.bury(letters);
  }

  private async store(kind: SignalKind, rows: readonly HarvestRow[]): Promise<HarvestLetter[]> {
    const { client, database, log, stop } = this.options;
    try {
      await storeRows(client, database, kind, rows, stop);
      return [];
    } catch (error) {
      stop.throwIfAborted();
      log.error({ event: 'not_stored', kind, reason: reasonOf(error) });
      return lettersOf(error, rows);
    }
  }

  /** Appends rows to their files, group by group: one that fails leaves the others as they are. */
  private writeFiles(kind: HarvestKind, rows: readonly HarvestRow[]): { rows: HarvestRow[]; reason: string }[] {
    const groups = new Map<string, HarvestRow[]>();
    for (const row of rows) {
      const path = `${placePath(row)}.jsonl`;
      const group = groups.get(path);
      if (group) group.push(row);
      else groups.set(path, [row]);
    }
    const failed: { rows: HarvestRow[]; reason: string }[] = [];
    for (const [path, group] of groups) {
      const undone = this.undone.get(path);
      const missing = undone === undefined ? group : group.filter(({ row_id }) => !undone.ids.delete(row_id));
      try {
        this.writer(path).append(missing);
      } catch (error) {
        const reason = reasonOf(error);
        this.options.log.error({ event: 'not_written', kind, path, rows: missing.length, reason });
        failed.push({ rows: missing, reason });
      }
    }
    return failed;
  }

  private writer(path: string): JsonlWriter {
    const known = this.writers.get(path);
    if (known !== undefined) return known;
    for (const [oldest, writer] of this.writers) {
      if (this.writers.size < MOST_OPEN) break;
      writer.close();
      this.writers.delete(oldest);
    }
    const writer = new JsonlWriter(join(this.options.root, path), this.options.log);
    this.writers.set(path, writer);
    return writer;
  }

  /** Into the deadletter, once; a disk that does not take even that is waited for, and nothing is read meanwhile. */
  private async bury(letters: readonly HarvestLetter[]): Promise<void> {
    const { dataDir, log, stop } = this.options;
    if (letters.length === 0) return;
    for (;;) {
      stop.throwIfAborted();
      try {
        appendHarvestLetters(dataDir, letters, new Date());
        this.figures.letters += letters.length;
        return;
      } catch (error) {
        // To wait for a disk is no hanging.
        signOfLife();
        log.error({
          event: 'deadletter_failed',
          rows: letters.length,
          reason: reasonOf(error),
          retry_ms: FULL_DISK_MS,
        });
        await pause(FULL_DISK_MS, stop);
      }
    }
  }
}

/** Files of rows by their path below `root`, with their sizes. */
export function* filesBelow(root: string): Generator<[path: string, size: number]> {
  for (const entry of list(root)) {
    if (!entry.isDirectory() || !entry.name.startsWith('date=')) continue;
    for (const file of readdirSync(join(root, entry.name), { recursive: true, withFileTypes: true })) {
      const path = relative(root, join(file.parentPath, file.name));
      if (!file.isFile() || !path.endsWith('.jsonl') || placeOf(path) === null) continue;
      const size = statSync(join(root, path), { throwIfNoEntry: false })?.size;
      if (size !== undefined) yield [path, size];
    }
  }
}

function list(root: string) {
  return statSync(root, { throwIfNoEntry: false })?.isDirectory() ? readdirSync(root, { withFileTypes: true }) : [];
}

/** Removes days that are older than are to be kept. @returns their names */
export function removeOldDays(root: string, days: number, now: number): string[] {
  const oldest = new Date(now - days * 86_400_000).toISOString().slice(0, 10);
  const old = list(root)
    .map(({ name }) => name)
    .filter((name) => /^date=\d{4}-\d\d-\d\d$/.test(name) && name.slice('date='.length) < oldest);
  for (const name of old) rmSync(join(root, name), { recursive: true });
  return old;
}

/** So many at once; the others wait their turn. */
class Slots {
  private free: number;
  private readonly waiting: (() => void)[] = [];

  constructor(count: number) {
    this.free = count;
  }

  async run<T>(work: () => Promise<T>): Promise<T> {
    if (this.free > 0) this.free -= 1;
    else await new Promise<void>((go) => this.waiting.push(go));
    try {
      return await work();
    } finally {
      const next = this.waiting.shift();
      if (next === undefined) this.free += 1;
      else next();
    }
  }
}
