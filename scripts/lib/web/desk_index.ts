/**
 * Where the records of a JSONL series lie, by time and key, so that a question costs what it gives and not what the files hold. Extended as the
 * files grow; of one time and key the line that was written last counts.
 */
import type { FileHandle } from 'node:fs/promises';
import { GZIP, inflated, openAs, type RotatedFile, rotatedFiles } from '../rotated.ts';
import { WebError } from './route.ts';

export type DeskRecord = Record<string, unknown>;

export interface IndexPlan {
  /** ms; null: it is no record. */
  time(record: DeskRecord): number | null;
  /** What else makes a record one: the coin, the rule. */
  key(record: DeskRecord): string;
  /** Members that are kept in memory as numbers, for what looks at all records. */
  columns?: readonly string[];
}

/** Files are read in pieces of this. */
const PIECE_BYTES = 2 ** 20;
/** A line that is longer is no record. */
const MOST_LINE_BYTES = 4 * 2 ** 20;
/** Lines that lie so near to each other are read together. */
const NEAR_BYTES = 16_384;
/** Of one key so many are known, the newest ones: a year of minutes. */
const MOST_OF_KEY = 527_040;
/** Coins and rules are dozens. */
const MOST_KEYS = 2000;
const LINE_FEED = 0x0a;

interface IndexedFile {
  ino: number;
  handle: FileHandle;
  /** Bytes that it has, where it is compressed; null: it may grow. */
  inflated: number | null;
  /** Bytes that are in the index. */
  end: number;
  /** The last line before it: whether it is still there tells whether this is still the same file. */
  last: Buffer | null;
  readers: number;
  isGone: boolean;
}

/** Where a record is. */
export interface Place {
  time: number;
  file: IndexedFile;
  offset: number;
  length: number;
}

/** The records of one key, by time. */
export class KeyRecords {
  size = 0;
  private times = new Float64Array(64);
  private offsets = new Float64Array(64);
  private lengths = new Uint32Array(64);
  private files: IndexedFile[] = [];
  private columns: Float64Array[];

  constructor(private readonly names: readonly string[]) {
    this.columns = names.map(() => new Float64Array(64));
  }

  time(at: number): number {
    return this.times[at]!;
  }

  place(at: number): Place {
    return { time: this.times[at]!, file: this.files[at]!, offset: this.offsets[at]!, length: this.lengths[at]! };
  }

  /** Of a column; null: not known. */
  value(name: string, at: number): number | null {
    const value = this.columns[this.names.indexOf(name)]![at]!;
    return Number.isNaN(value) ? null : value;
  }

  /** The first record at or after a time. */
  from(time: number): number {
    let [low, high] = [0, this.size];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.times[middle]! < time) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  put(place: Place, record: DeskRecord): void {
    const at = this.size > 0 && this.times[this.size - 1]! < place.time ? this.size : this.from(place.time);
    if (at === this.size || this.times[at] !== place.time) this.makeRoom(at);
    this.times[at] = place.time;
    this.offsets[at] = place.offset;
    this.lengths[at] = place.length;
    this.files[at] = place.file;
    for (const [i, name] of this.names.entries()) {
      const value = record[name];
      this.columns[i]![at] = typeof value === 'number' ? value : Number.NaN;
    }
  }

  /** Forgets what is in a file. */
  drop(file: IndexedFile): void {
    let kept = 0;
    for (let at = 0; at < this.size; at += 1) {
      if (this.files[at] === file) continue;
      this.files[kept] = this.files[at]!;
      for (const each of this.arrays) each[kept] = each[at]!;
      kept += 1;
    }
    this.files.length = kept;
    this.size = kept;
  }

  private get arrays(): (Float64Array | Uint32Array)[] {
    return [this.times, this.offsets, this.lengths, ...this.columns];
  }

  private makeRoom(at: number): void {
    if (this.size === this.times.length) {
      const double = (from: Float64Array) => {
        const to = new Float64Array(from.length * 2);
        to.set(from);
        return to;
      };
      [this.times, this.offsets] = [double(this.times), double(this.offsets)];
      this.lengths = Uint32Array.from(double(Float64Array.from(this.lengths)));
      this.columns = this.columns.map(double);
    }
    for (const each of this.arrays) each.copyWithin(at + 1, at, this.size);
    if (at === this.size) this.files.push(undefined as unknown as IndexedFile);
    else this.files.splice(at, 0, this.files[at]!);
    this.size += 1;
  }

  /** Leaves room for newer ones. */
  trim(most: number): void {
    if (this.size <= most) return;
    const gone = this.size - most;
    for (const each of this.arrays) each.copyWithin(0, gone, this.size);
    this.files.splice(0, gone);
    this.size = most;
  }
}

export class DeskIndex {
  private files: IndexedFile[] = [];
  private records = new Map<string, KeyRecords>();
  private running: Promise<void> | null = null;
  private queued: Promise<void> | null = null;

  /** @param file the one that is written to; those that it was renamed to belong to it */
  constructor(
    readonly file: string,
    private readonly plan: IndexPlan,
  ) {}

  /** Takes what was written since. What is looked up afterwards is to be looked up before the next wait. */
  look(): Promise<void> {
    if (this.running === null) {
      const own = this.extend().finally(() => (this.running = null));
      this.running = own;
      return own;
    }
    // Who comes while one runs may ask for what it has passed already.
    this.queued ??= this.running
      .catch(() => undefined)
      .then(() => {
        this.queued = null;
        return this.look();
      });
    return this.queued;
  }

  get keys(): string[] {
    return [...this.records.keys()];
  }

  of(key: string): KeyRecords {
    return this.records.get(key) ?? new KeyRecords(this.plan.columns ?? []);
  }

  /** The records at these places, in their order. */
  async read(places: readonly Place[]): Promise<DeskRecord[]> {
    const out = new Array<DeskRecord>(places.length);
    const order = places
      .map((_, i) => i)
      .sort((one, other) => {
        const [a, b] = [places[one]!, places[other]!];
        return a.file === b.file ? a.offset - b.offset : a.file.ino - b.file.ino;
      });
    for (const { file } of places) file.readers += 1;
    try {
      for (let i = 0; i < order.length; ) i = await readRun(places, order, i, out);
    } finally {
      for (const { file } of places) await release(file);
    }
    return out;
  }

  async close(): Promise<void> {
    await this.running?.catch(() => undefined);
    await this.forgetAll();
  }

  private async extend(): Promise<void> {
    const present = rotatedFiles(this.file);
    const inodes = present.map(({ ino }) => ino);
    const gone = this.files.filter(({ ino }) => !inodes.includes(ino));
    // The oldest go by and by. If another one goes, what it had replaced counts again.
    const areOldest = gone.every((file, i) => this.files[i] === file);
    if (areOldest) for (const file of gone) await this.forget(file);
    // What came before others that are known, as one that was compressed by now, must not be taken after them.
    const areFirst = this.files.every(({ ino }, i) => ino === inodes[i]);
    if (!areOldest || !areFirst) await this.forgetAll();
    for (const each of present) {
      let file = this.files.find(({ ino }) => ino === each.ino);
      if (file === undefined) {
        file = (await opened(each)) ?? undefined;
        if (file === undefined) return this.extend();
        this.files.push(file);
      }
      const size = file.inflated ?? each.size;
      if (size === file.end) continue;
      if (size < file.end || !(await isSame(file))) {
        await this.forgetAll();
        return this.extend();
      }
      await this.take(file);
    }
    for (const each of this.records.values()) each.trim(MOST_OF_KEY);
  }

  /** Reads whole lines to the end of a file. */
  private async take(file: IndexedFile): Promise<void> {
    let rest: Buffer = Buffer.alloc(0);
    let at = file.end;
    for (;;) {
      const { buffer, bytesRead } = await file.handle.read(Buffer.allocUnsafe(PIECE_BYTES), 0, PIECE_BYTES, at);
      if (bytesRead === 0) return;
      const bytes =
        rest.length === 0 ? buffer.subarray(0, bytesRead) : Buffer.concat([rest, buffer.subarray(0, bytesRead)]);
      at += bytesRead;
      let start = 0;
      for (let end = bytes.indexOf(LINE_FEED); end >= 0; end = bytes.indexOf(LINE_FEED, start)) {
        this.line(file, bytes.subarray(start, end));
        start = end + 1;
      }
      rest = Buffer.from(bytes.subarray(start));
      if (rest.length > MOST_LINE_BYTES) {
        // Its end is left, and will be no record.
        file.end += rest.length;
        rest = Buffer.alloc(0);
      }
    }
  }

  private line(file: IndexedFile, bytes: Buffer): void {
    const offset = file.end;
    file.end += bytes.length + 1;
    file.last = bytes;
    const record = recordOn(bytes);
    const time = record === null ? null : this.plan.time(record);
    if (record === null || time === null) return;
    const key = this.plan.key(record);
    let own = this.records.get(key);
    if (own === undefined) {
      if (this.records.size >= MOST_KEYS) return;
      this.records.set(key, (own = new KeyRecords(this.plan.columns ?? [])));
    }
    own.put({ time, file, offset, length: bytes.length }, record);
    // Only in bulk: what it moves is much.
    if (own.size > 2 * MOST_OF_KEY) own.trim(MOST_OF_KEY);
  }

  private async forget(file: IndexedFile): Promise<void> {
    this.files = this.files.filter((each) => each !== file);
    for (const [key, each] of this.records) {
      each.drop(file);
      if (each.size === 0) this.records.delete(key);
    }
    file.isGone = true;
    if (file.readers === 0) await file.handle.close();
  }

  private async forgetAll(): Promise<void> {
    this.records.clear();
    for (const file of [...this.files]) await this.forget(file);
  }
}

/** @returns null where the path is another file by now */
async function opened(plan: RotatedFile): Promise<IndexedFile | null> {
  const { path, ino } = plan;
  const handle = await openAs(plan);
  if (handle === null) return null;
  const file = { ino, handle, inflated: null, end: 0, last: null, readers: 0, isGone: false };
  if (!path.endsWith(GZIP)) return file;
  try {
    const whole = await inflated({ path, handle });
    return { ...file, handle: whole, inflated: (await whole.stat()).size };
  } finally {
    await handle.close();
  }
}

async function isSame({ handle, end, last }: IndexedFile): Promise<boolean> {
  if (last === null) return true;
  const { buffer } = await handle.read(Buffer.alloc(last.length), 0, last.length, end - 1 - last.length);
  return buffer.equals(last);
}

async function release(file: IndexedFile): Promise<void> {
  file.readers -= 1;
  if (file.isGone && file.readers === 0) await file.handle.close();
}

/** Reads what lies together. @returns the index in `order` of what is next */
async function readRun(
  places: readonly Place[],
  order: readonly number[],
  first: number,
  out: DeskRecord[],
): Promise<number> {
  const { file, offset } = places[order[first]!]!;
  let [end, next] = [offset, first];
  for (; next < order.length; next += 1) {
    const place = places[order[next]!]!;
    const isNear = place.file === file && place.offset - end <= NEAR_BYTES && place.offset - offset <= PIECE_BYTES;
    if (!isNear) break;
    end = Math.max(end, place.offset + place.length);
  }
  const { buffer } = await file.handle.read(Buffer.allocUnsafe(end - offset), 0, end - offset, offset);
  for (let i = first; i < next; i += 1) {
    const place = places[order[i]!]!;
    const from = place.offset - offset;
    const record = recordOn(buffer.subarray(from, from + place.length));
    if (record === null) throw new WebError(503, 'a file is being replaced: ask again');
    out[order[i]!] = record;
  }
  return next;
}

function recordOn(bytes: Buffer): DeskRecord | null {
  if (bytes[0] !== 0x7b) return null;
  try {
    return JSON.parse(bytes.toString()) as DeskRecord;
  } catch {
    // Damaged: no record, of which integrity.ts tells.
    return null;
  }
}
