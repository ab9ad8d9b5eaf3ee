/** The outbox's writing end: gathers records, writes them in few calls, brings them to the disk, and never gives one up. */
import type { FileHandle } from 'node:fs/promises';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { crashPoint } from './crash_points.ts';
import type { Logger } from './log.ts';
import { NEWLINE, openSegment, type Segment } from './outbox_file.ts';
import { pause } from './pause.ts';
import type { OutgoingMessage } from './publisher.ts';

/** One call takes no more: records (three buffers each; the kernel takes 1024) and bytes. */
const MAX_WRITE_RECORDS = 340;
const MAX_WRITE_BYTES = 4 * 1024 * 1024;
/** A write that fails again and again is tried again after this time at the latest, ms. */
const LAST_RETRY_MS = 5000;

/** A record that is not in the file yet. */
export interface Unwritten {
  message: OutgoingMessage;
  header: Buffer;
  segment: Segment;
  /** Positions. */
  start: number;
  end: number;
  /** When it was added, ms. */
  at: number;
}

type Trouble = 'write' | 'sync' | 'read' | 'floor' | 'delete' | 'publish';
const STOPPING: ReadonlySet<Trouble> = new Set<Trouble>(['write', 'sync']);

/** What fails at present. Each kind is logged when it begins and when it ends; `write` and `sync` by the alarm that they make. */
export class Troubles {
  private readonly open = new Map<Trouble, string>();

  constructor(
    private readonly log: Logger,
    private readonly dir: string,
  ) {}

  begin(trouble: Trouble, error: unknown): void {
    const text = error instanceof Error ? error.message : String(error);
    const isNew = !this.open.has(trouble);
    this.open.set(trouble, text);
    if (isNew && !STOPPING.has(trouble)) {
      this.log.error({ event: 'outbox_trouble', dir: this.dir, trouble, err: text });
    }
  }

  end(trouble: Trouble): void {
    if (!this.open.delete(trouble) || STOPPING.has(trouble)) return;
    this.log.info({ event: 'outbox_trouble_over', dir: this.dir, trouble });
  }

  has(trouble: Trouble): boolean {
    return this.open.has(trouble);
  }

  /** No message is safe while one of these lasts. */
  get isStopping(): boolean {
    return this.open.has('write') || this.open.has('sync');
  }

  /** The text of the newest of them; null when all is well. */
  get any(): string | null {
    return [...this.open.values()].at(-1) ?? null;
  }
}

export interface WriterOptions {
  dir: string;
  /** What is written is brought to the disk after this time or these bytes, whichever comes first. */
  syncMs: number;
  syncBytes: number;
  /** After a failure the first new try comes after this time, ms. */
  retryMs: number;
  troubles: Troubles;
  /** Records have come into the file, or could not. */
  onWrite(): void;
  /** Deletes a file that can be spared when the disk is full; false when there is none. */
  makeRoom(): Promise<boolean>;
}

/**
 * Writes records to where they belong, in order. A record's place is settled before it is written, so that a write that failed
 * in the middle is simply done again.
 */
export class OutboxWriter {
  /** Records that are not written, oldest first. */
  readonly queue: Unwritten[] = [];
  waitingBytes = 0;
  waitingRows = 0;
  /** Positions up to which everything is in the files, and on the disk. */
  written: number;
  synced: number;
  private file: { segment: Segment; handle: FileHandle } | null = null;
  private running: Promise<void> | null = null;
  private syncing: Promise<void> | null = null;
  private timer: NodeJS.Timeout | null = null;
  private readonly givenUp = new AbortController();

  constructor(
    private readonly options: WriterOptions,
    position: number,
  ) {
    this.written = position;
    this.synced = position;
  }

  add(record: Unwritten): void {
    this.queue.push(record);
    this.waitingBytes += record.end - record.start;
    this.waitingRows += record.message.rows;
    this.running ??= this.run();
  }

  /** Whether a write to this segment's file may be under way. */
  holds(segment: Segment): boolean {
    return this.file?.segment === segment && this.running !== null;
  }

  /** Closes a segment that is to be deleted. */
  async release(segment: Segment): Promise<void> {
    if (this.file?.segment !== segment) return;
    const { handle } = this.file;
    this.file = null;
    await handle.close();
  }

  /** Writes and syncs what waits, for at most `limitMs`. @returns whether everything is on the disk */
  async close(limitMs: number): Promise<boolean> {
    const timer = setTimeout(() => this.givenUp.abort(), limitMs);
    await this.running;
    await this.sync();
    await this.sync();
    clearTimeout(timer);
    if (this.timer) clearTimeout(this.timer);
    await this.file?.handle.close();
    this.file = null;
    return this.queue.length === 0 && this.synced === this.written;
  }

  private async run(): Promise<void> {
    const { troubles, retryMs } = this.options;
    let wait = retryMs;
    // Everything that is added in this turn leaves together.
    await nextTurn();
    while (this.queue.length > 0 && !this.givenUp.signal.aborted) {
      try {
        await this.writeBatch();
        wait = retryMs;
        troubles.end('write');
      } catch (error) {
        if (isFull(error) && (await this.options.makeRoom())) continue;
        troubles.begin('write', error);
        await pause(wait, this.givenUp.signal).catch(() => undefined);
        wait = Math.min(wait * 2, LAST_RETRY_MS);
      } finally {
        this.options.onWrite();
      }
    }
    this.running = null;
  }

  private async writeBatch(): Promise<void> {
    const { segment } = this.queue[0]!;
    const handle = await this.open(segment);
    const buffers: Uint8Array[] = [];
    const from = this.written;
    let taken = 0;
    let end = from;
    for (const record of this.queue) {
      if (record.segment !== segment || taken === MAX_WRITE_RECORDS || end - from >= MAX_WRITE_BYTES) break;
      buffers.push(record.header, record.message.payload, NEWLINE);
      end = record.end;
      taken += 1;
    }
    let reached = from;
    try {
      reached += (await handle.writev(buffers, from - segment.base)).bytesWritten;
      // What ended a short write is told by the next one only; without an error there is space again by now.
      if (reached < this.queue[0]!.end) await handle.write(NEWLINE, 0, 1, reached - segment.base);
    } finally {
      if (reached < end) await this.cutPartial(handle, segment, reached);
    }
    const whole = this.queue.findIndex((record) => record.end > reached);
    this.settle(whole < 0 ? taken : whole);
  }

  /** A reader of the file sees whole records only, and so does the next start if no other write succeeds. */
  private async cutPartial(handle: FileHandle, segment: Segment, reached: number): Promise<void> {
    const whole = this.queue.findLast((record) => record.end <= reached)?.end ?? this.written;
    await handle.truncate(whole - segment.base);
  }

  private settle(records: number): void {
    if (records === 0) return;
    const end = this.queue[records - 1]!.end;
    for (const { message } of this.queue.splice(0, records)) this.waitingRows -= message.rows;
    this.waitingBytes -= end - this.written;
    this.written = end;
    crashPoint('outbox.written');
    this.planSync();
  }

  private async open(segment: Segment): Promise<FileHandle> {
    if (this.file?.segment === segment) return this.file.handle;
    if (this.file) {
      // `synced` speaks of all segments up to the present one. A sync under way may have begun before the last write.
      await this.sync();
      await this.sync();
      if (this.synced < this.written) throw new Error('the segment before is not on the disk');
      const { handle } = this.file;
      this.file = null;
      await handle.close();
    }
    const handle = await openSegment(this.options.dir, segment.number);
    this.file = { segment, handle };
    return handle;
  }

  private planSync(): void {
    const { syncBytes, syncMs, troubles } = this.options;
    const open = this.written - this.synced;
    if (open === 0) return;
    if (open >= syncBytes && !troubles.has('sync')) void this.sync();
    else this.timer ??= setTimeout(() => void this.sync(), syncMs);
  }

  /** Brings what is written so far to the disk; one at a time. */
  private sync(): Promise<void> {
    if (this.syncing) return this.syncing;
    if (this.timer) clearTimeout(this.timer);
    this.timer = null;
    if (!this.file || this.synced === this.written) return Promise.resolve();
    this.syncing = this.syncFile(this.file.handle, this.written);
    return this.syncing;
  }

  private async syncFile(handle: FileHandle, upTo: number): Promise<void> {
    try {
      await handle.datasync();
      this.synced = upTo;
      crashPoint('outbox.synced');
      this.options.troubles.end('sync');
    } catch (error) {
      this.options.troubles.begin('sync', error);
    }
    this.syncing = null;
    this.planSync();
    this.options.onWrite();
  }
}

function isFull(error: unknown): boolean {
  const { code } = error as NodeJS.ErrnoException;
  return code === 'ENOSPC' || code === 'EDQUOT';
}
