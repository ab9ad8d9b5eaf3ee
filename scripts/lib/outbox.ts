/**
 * A write-ahead log between the collector's Batcher and its Publisher, one per JetStream stream: whatever was added is in a file
 * until the broker has it, and for a while after that (a broker that syncs its disk every two minutes may lose its tail).
 */
import { mkdir, rm } from 'node:fs/promises';
import { crashPoint } from './crash_points.ts';
import type { Logger } from './log.ts';
import {
  type Chunk,
  type Damage,
  type EarlierMark,
  endOf,
  type Found,
  headerOf,
  keepDamaged,
  newestPayload,
  readChunk,
  readDirectory,
  type Segment,
  segmentPath,
  writeFloor,
} from './outbox_file.ts';
import { Flights } from './outbox_flights.ts';
import { OutboxWriter, Troubles } from './outbox_writer.ts';
import type { OutgoingMessage } from './publisher.ts';

/** In so many of an earlier run's newest files its last message of a subject is looked for: a minute each at most. */
const FILES_LOOKED_THROUGH = 4;
/** An outbox that was full takes more again below this share of its bound, so that the alarm does not flicker. */
const FULL_OVER_SHARE = 0.9;

const LIMITS = {
  /** A segment ends at this size or age. */
  rotateBytes: 16 * 1024 * 1024,
  rotateMs: 60_000,
  /** What is written is brought to the disk after this time or these bytes, whichever comes first. */
  syncMs: 500,
  syncBytes: 4 * 1024 * 1024,
  /** How often the floor is kept, files are deleted, and what failed is tried again. */
  tickMs: 1000,
  /** Spilled messages are read back in pieces of this size, bytes. */
  chunkBytes: 1024 * 1024,
  /** A write that failed is first tried again after this time. */
  retryMs: 100,
  /** `close` waits no longer than this for a disk that does not take the last messages. */
  closeMs: 5000,
};

export interface OutboxOptions {
  dir: string;
  /** Bytes without an answer, from which on messages are spilled; they are read back below half of it. */
  highWatermarkBytes: number;
  /** The same in rows; absent: only the bytes count. */
  highWatermarkRows?: number;
  /** Bound of the files, bytes. */
  maxBytes: number;
  /** A file stays for this long after its last message was added, though the broker has everything in it, ms. */
  keepMs?: number;
  /** Takes a message over; `acknowledged` answers it with the same object, at any time and in any order. */
  publish(message: OutgoingMessage): void;
  /** The newest message of this outbox's stream that the broker has acknowledged; absent: nobody asks for it. */
  lastStored?(): EarlierMark | null;
  /** What `allow` had allowed is handed on. */
  onExhausted?(): void;
  /** ms since the epoch */
  now(): number;
  log: Logger;
  limits?: Partial<typeof LIMITS>;
}

export interface OutboxState {
  /** Segments, and what is written in them. */
  files: number;
  bytes: number;
  /** Handed on and without an answer, or spilled. */
  unacknowledgedBytes: number;
  /** Waiting in the files to be read back. */
  spilledBytes: number;
  /** Waiting in memory to be written. */
  waitingBytes: number;
  isFull: boolean;
  /** Files that were deleted before their time because of the bound or a full disk. */
  droppedCopies: number;
  /** Places in the files where records were unreadable. */
  damaged: number;
  lastError: string | null;
  /** When the oldest message without an answer was added, ms; null when there is none. */
  oldestUnacknowledgedAt: number | null;
  /** Over the last tick. */
  writeBytesPerSecond: number;
}

/** What `republish` asks for: messages before `floor` only when they are new enough. */
interface Again {
  sinceMs: number;
  floor: number;
}

export class Outbox {
  /** False when the run before ended by a crash. */
  readonly wasClean: boolean;
  /** What the broker had acknowledged to the run before. */
  readonly earlierStored: EarlierMark | null;
  private readonly limits: typeof LIMITS;
  /** Files of an earlier run, as they were found. */
  private readonly earlier: readonly Segment[];
  private readonly segments: Segment[];
  /** Where messages are appended; null until there is one. */
  private current: Segment | null = null;
  private nextNumber: number;
  private nextDamaged: number;
  /** Position after the last message added. */
  private tail: number;
  /** Position up to which messages have been handed on: before it they are in flight or acknowledged, after it spilled. */
  private handedOn: number;
  /** What floor.json says. */
  private kept = { position: -1, clean: false };
  private readonly flights = new Flights();
  /** When the first spilled message was added, ms. */
  private spilledAt: number;
  private again: Again | null = null;
  /** Bytes that may be handed on until the owner says anew. */
  private allowance = Number.POSITIVE_INFINITY;
  private closing = false;
  private told = false;
  private pumping = false;
  private reading: Promise<void> | null = null;
  private buffer: Buffer | null = null;
  private ticking: Promise<void> | null = null;
  private timer: NodeJS.Timeout | null = null;
  private rate = { at: 0, written: 0, bytesPerSecond: 0 };
  private droppedCopies = 0;
  private damaged = 0;
  private drainedWaiters: (() => void)[] = [];
  private readonly troubles: Troubles;
  private readonly writer: OutboxWriter;

  /** Opens a directory, new or of an earlier run; what that run left without an answer is published first. */
  static async open(options: OutboxOptions): Promise<Outbox> {
    await mkdir(options.dir, { recursive: true });
    const rotateMs = options.limits?.rotateMs ?? LIMITS.rotateMs;
    const outbox = new Outbox(options, await readDirectory(options.dir, rotateMs, options.now(), options.log));
    // From here on a crash is no clean end.
    await outbox.keepFloor(false);
    const { files, bytes, spilledBytes } = outbox.state;
    const was_clean = outbox.wasClean;
    options.log.info({
      event: 'outbox_opened',
      dir: options.dir,
      files,
      bytes,
      spilled_bytes: spilledBytes,
      was_clean,
    });
    outbox.start();
    return outbox;
  }

  private constructor(
    private readonly options: OutboxOptions,
    found: Found,
  ) {
    this.limits = { ...LIMITS, ...options.limits };
    const { segments } = found;
    this.segments = segments;
    this.earlier = segments.slice(-FILES_LOOKED_THROUGH).map((each) => ({ ...each }));
    this.wasClean = found.wasClean;
    this.earlierStored = found.stored;
    this.nextNumber = found.nextNumber;
    this.nextDamaged = found.nextDamaged;
    this.tail = segments.length === 0 ? 0 : endOf(segments.at(-1)!);
    this.handedOn = found.floor;
    this.spilledAt = segments.find((segment) => endOf(segment) > found.floor)?.firstAt ?? 0;
    this.troubles = new Troubles(options.log, options.dir);
    this.writer = new OutboxWriter(
      {
        ...this.limits,
        dir: options.dir,
        troubles: this.troubles,
        onWrite: () => {
          this.tellFull();
          this.pump();
        },
        makeRoom: () => this.dropOldestCopy(),
      },
      this.tail,
    );
    this.rate = { at: options.now(), written: this.tail, bytesPerSecond: 0 };
  }

  private start(): void {
    this.timer = setInterval(() => {
      this.ticking ??= this.tick().finally(() => {
        this.ticking = null;
      });
    }, this.limits.tickMs);
    // Only when the caller has the outbox that `publish` may want to answer.
    setImmediate(() => this.pump());
  }

  /** Takes a message over for good. Not after `close`. */
  add(message: OutgoingMessage): void {
    crashPoint('outbox.adding');
    const at = Math.round(this.options.now());
    const header = headerOf(message, at);
    const bytes = header.length + message.payload.length + 1;
    const segment = this.segmentFor(bytes, at);
    const start = this.tail;
    this.tail += bytes;
    segment.size += bytes;
    segment.lastAt = Math.max(segment.lastAt, at);
    this.writer.add({ message, header, segment, start, end: this.tail, at });
    if (this.handedOn === start) {
      this.spilledAt = at;
      if (!this.isHeld && !this.closing && this.hasRoom) this.handOn(message, start, bytes, at);
    }
    this.tellFull();
  }

  /** The broker has it. */
  acknowledged(message: OutgoingMessage): void {
    if (!this.flights.settle(message)) return;
    this.tellFull();
    this.pump();
    this.tellDrained();
  }

  /** Publishes again, in order, what was added at or after `sinceMs` and is still in the files. */
  republish(sinceMs: number): void {
    const first = this.segments.find((segment) => segment.size > 0 && segment.lastAt >= sinceMs);
    this.again = { sinceMs, floor: this.floor };
    if (first && first.base < this.handedOn) {
      this.handedOn = first.base;
      this.spilledAt = first.firstAt;
      this.flights.rewind(this.handedOn);
    }
    const { dir, log } = this.options;
    log.warn({ event: 'outbox_republish', dir, since: sinceMs, bytes: this.tail - this.handedOn });
    this.pump();
  }

  /**
   * So many bytes may be handed on until the next word, none: everything stays in the files; without any word there is no bound. What the broker's stream still takes without
   * losing unread rows is known only as often as it is asked, and after an outage far more than that waits here.
   */
  allow(bytes: number): void {
    this.allowance = bytes;
    this.pump();
  }

  private get isHeld(): boolean {
    return this.allowance <= 0;
  }

  /** Resolves when everything added so far and since is acknowledged. */
  drained(): Promise<void> {
    if (this.isDrained) return Promise.resolve();
    return new Promise((done) => this.drainedWaiters.push(done));
  }

  /** The payload of the last message of a subject that an earlier run added here lately; null when there is none. */
  lastOfEarlierRun(subject: string): Promise<Uint8Array | null> {
    return newestPayload(this.options.dir, this.earlier, subject);
  }

  /** Brings everything to the disk. What is without an answer then is published by the next run. */
  async close(): Promise<void> {
    this.closing = true;
    if (this.timer) clearInterval(this.timer);
    await this.reading;
    await this.ticking;
    const complete = await this.writer.close(this.limits.closeMs);
    if (!complete) {
      const { dir, log } = this.options;
      const unwritten = this.writer.queue.length;
      log.error({
        event: 'outbox_unwritten',
        dir,
        messages: unwritten,
        bytes: this.waitingBytes,
        err: this.troubles.any,
      });
    }
    await this.keepFloor(complete);
  }

  /** Bytes that are in memory because they are not written yet; the owner stops its sources when they are many. */
  get waitingBytes(): number {
    return this.writer.waitingBytes;
  }

  /** Their rows. */
  get waitingRows(): number {
    return this.writer.waitingRows;
  }

  /** The disk fails, or the files are as large as they may be and hold what the broker lacks: the owner stops its sources. */
  get isFull(): boolean {
    const { maxBytes } = this.options;
    const bound = this.told ? maxBytes * FULL_OVER_SHARE : maxBytes;
    return this.troubles.isStopping || this.tail - this.floor >= bound;
  }

  get state(): OutboxState {
    const spilledBytes = this.tail - this.handedOn;
    return {
      files: this.segments.length,
      bytes: this.bytes,
      unacknowledgedBytes: this.flights.bytes + spilledBytes,
      spilledBytes,
      waitingBytes: this.waitingBytes,
      isFull: this.isFull,
      droppedCopies: this.droppedCopies,
      damaged: this.damaged,
      lastError: this.troubles.any,
      oldestUnacknowledgedAt: this.flights.first?.at ?? (spilledBytes > 0 ? this.spilledAt : null),
      writeBytesPerSecond: this.rate.bytesPerSecond,
    };
  }

  /** Position below which everything is acknowledged. */
  private get floor(): number {
    return this.flights.first?.start ?? this.handedOn;
  }

  private get hasRoom(): boolean {
    return this.isBelow(1);
  }

  /** Whether what is handed on and without an answer is less than this share of the high watermark. */
  private isBelow(share: number): boolean {
    const { highWatermarkBytes, highWatermarkRows = Number.POSITIVE_INFINITY } = this.options;
    const { bytes, rows } = this.flights;
    return bytes < highWatermarkBytes * share && rows < highWatermarkRows * share;
  }

  /** Written in segments. */
  private get bytes(): number {
    const { written } = this.writer;
    return written - Math.min(this.segments[0]?.base ?? written, written);
  }

  private get isDrained(): boolean {
    return this.flights.size === 0 && this.handedOn === this.tail;
  }

  private segmentFor(bytes: number, at: number): Segment {
    const { rotateBytes, rotateMs } = this.limits;
    const segment = this.current;
    // Either way: a clock that was put back must not make a segment's times unbounded.
    if (segment && segment.size + bytes <= rotateBytes && Math.abs(at - segment.firstAt) < rotateMs) return segment;
    this.current = { number: this.nextNumber++, base: this.tail, size: 0, firstAt: at, lastAt: at };
    this.segments.push(this.current);
    return this.current;
  }

  /** Hands on the message at `handedOn`. @returns false when it stays spilled */
  private handOn(message: OutgoingMessage, start: number, bytes: number, at: number): boolean {
    // An object of its own for each flight, so that an answer tells which one.
    const handed = this.flights.has(message) ? { ...message } : message;
    this.flights.add(handed, start, bytes, at);
    this.handedOn = start + bytes;
    try {
      this.options.publish(handed);
      this.troubles.end('publish');
      this.allowance -= bytes;
      if (this.allowance <= 0) this.options.onExhausted?.();
      return true;
    } catch (error) {
      // Tried again with the next tick.
      this.troubles.begin('publish', error);
      this.flights.settle(handed);
      this.handedOn = start;
      return false;
    }
  }

  /** Hands on spilled messages once there is room. @param again also when it failed before */
  private pump(again = false): void {
    const { troubles } = this;
    if (this.pumping || this.reading || this.isHeld || this.closing || this.handedOn === this.tail) return;
    if (!this.isBelow(0.5)) return;
    if (!again && (troubles.has('read') || troubles.has('publish'))) return;
    if (this.handedOn < this.writer.written) {
      this.reading = this.readBack().then((goOn) => {
        this.reading = null;
        if (this.handedOn === this.tail) this.buffer = null;
        this.tellFull();
        this.tellDrained();
        if (goOn) this.pump();
      });
      return;
    }
    // What comes next has not even been written: it is still here.
    this.pumping = true;
    const { queue } = this.writer;
    for (let i = queue.findIndex(({ start }) => start === this.handedOn); i < queue.length; i += 1) {
      const { message, start, end, at } = queue[i]!;
      this.spilledAt = at;
      if (start !== this.handedOn || this.isHeld || !this.hasRoom) break;
      if (!this.handOn(message, start, end - start, at)) break;
    }
    this.pumping = false;
  }

  /** Reads one chunk of spilled messages and hands it on. @returns false when it is to be tried again later */
  private async readBack(): Promise<boolean> {
    try {
      const from = this.handedOn;
      const segment = this.segments.find((each) => endOf(each) > from)!;
      const available = Math.min(this.writer.written, endOf(segment)) - from;
      const path = segmentPath(this.options.dir, segment.number);
      this.buffer ??= Buffer.allocUnsafeSlow(this.limits.chunkBytes);
      const chunk = await readChunk(path, from - segment.base, available, this.buffer);
      if (chunk.damaged) await this.keepDamaged(chunk.damaged, path, from - segment.base);
      this.troubles.end('read');
      // Otherwise `republish` has moved the place meanwhile.
      const goOn = this.handedOn !== from || this.handOnChunk(chunk);
      crashPoint('outbox.read_back');
      return goOn;
    } catch (error) {
      this.troubles.begin('read', error);
      return false;
    }
  }

  /** @returns false when a message could not be handed on */
  private handOnChunk({ records, damaged }: Chunk): boolean {
    const { again } = this;
    this.handedOn += damaged?.bytes ?? 0;
    for (const { message, at, bytes } of records) {
      const start = this.handedOn;
      this.spilledAt = at;
      if (this.isHeld || this.closing || !this.hasRoom) return true;
      // Acknowledged, and not asked for again.
      if (again && start < again.floor && at < again.sinceMs) this.handedOn += bytes;
      else if (!this.handOn(message, start, bytes, at)) return false;
      else if (this.handedOn !== start + bytes) return true;
    }
    return true;
  }

  private async keepDamaged(damaged: Damage, file: string, offset: number): Promise<void> {
    const { dir, log } = this.options;
    const { bytes, content } = damaged;
    const kept = await keepDamaged(dir, this.nextDamaged, content);
    this.nextDamaged += 1;
    this.damaged += 1;
    log.error({ event: 'outbox_damaged', file, offset, bytes, kept }, 'unreadable records were skipped');
  }

  private tellDrained(): void {
    if (this.isDrained) for (const done of this.drainedWaiters.splice(0)) done();
  }

  private tellFull(): void {
    const { isFull } = this;
    if (isFull === this.told) return;
    this.told = isFull;
    const { dir, log } = this.options;
    const figures = { dir, bytes: this.tail - this.floor, waiting_bytes: this.waitingBytes };
    if (isFull) log.error({ event: 'outbox_full', ...figures, reason: this.troubles.any ?? 'its bound is reached' });
    else log.info({ event: 'outbox_no_longer_full', ...figures });
  }

  private async tick(): Promise<void> {
    this.measure();
    await this.keepFloor(false);
    await this.deleteCopies();
    this.pump(true);
  }

  private measure(): void {
    const { written } = this.writer;
    const at = this.options.now();
    // A clock that stands still or goes back measures nothing.
    const seconds = (at - this.rate.at) / 1000;
    const bytesPerSecond = seconds > 0 ? (written - this.rate.written) / seconds : this.rate.bytesPerSecond;
    this.rate = { at, written, bytesPerSecond };
  }

  private async keepFloor(clean: boolean): Promise<void> {
    // Never beyond what the disk has.
    const position = Math.min(this.floor, this.writer.synced);
    if (position === this.kept.position && clean === this.kept.clean) return;
    const segment = this.segments.findLast(({ base }) => base <= position);
    const place = segment
      ? { segment: segment.number, offset: position - segment.base }
      : { segment: this.nextNumber, offset: 0 };
    // Asked after the place was: it may be newer, never older.
    const stored = this.options.lastStored?.() ?? this.earlierStored;
    try {
      await writeFloor(this.options.dir, { ...place, clean, ...(stored ? { stored } : {}) });
      this.kept = { position, clean };
      this.troubles.end('floor');
      crashPoint('outbox.floor_kept');
    } catch (error) {
      // An older floor costs only that messages are published again.
      this.troubles.begin('floor', error);
    }
  }

  /** Deletes files that the broker has all of and that are old enough, or too much for the bound. */
  private async deleteCopies(): Promise<void> {
    const { keepMs = 240_000, maxBytes, now } = this.options;
    for (let oldest = this.segments[0]; oldest && this.isCopy(oldest); oldest = this.segments[0]) {
      const expired = now() - oldest.lastAt > keepMs;
      if (!expired && this.bytes <= maxBytes) return;
      if (!(await this.delete(oldest))) return;
      if (!expired) this.countDropped(oldest);
    }
  }

  /** The disk is full. */
  private async dropOldestCopy(): Promise<boolean> {
    const [oldest] = this.segments;
    if (!oldest || !this.isCopy(oldest) || !(await this.delete(oldest))) return false;
    this.countDropped(oldest);
    return true;
  }

  private countDropped({ number, size }: Segment): void {
    this.droppedCopies += 1;
    this.options.log.warn({ event: 'outbox_copy_dropped', file: segmentPath(this.options.dir, number), bytes: size });
  }

  /** The broker has all of it; the disk, too, or the writer might still want it. */
  private isCopy(segment: Segment): boolean {
    return endOf(segment) <= Math.min(this.floor, this.writer.synced);
  }

  private async delete(segment: Segment): Promise<boolean> {
    if (this.writer.holds(segment)) return false;
    // First, so that nothing is added to it or read from it any more.
    this.segments.shift();
    if (this.current === segment) this.current = null;
    try {
      await this.writer.release(segment);
      await rm(segmentPath(this.options.dir, segment.number), { force: true });
      this.troubles.end('delete');
    } catch (error) {
      // The next run finds it below the floor.
      this.troubles.begin('delete', error);
      return false;
    }
    return true;
  }
}
