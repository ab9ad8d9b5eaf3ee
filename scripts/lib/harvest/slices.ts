/** Finding and reading files of the harvest: an hour, a symbol and a kind each. A harvester may append to them meanwhile. */

import { createHash } from 'node:crypto';
import { existsSync, readdirSync, statSync } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { join } from 'node:path';
import { moment, UsageError } from '../cli.ts';
import { type Place, placeOf, placePath } from './kinds.ts';

export const HOUR_MS = 3_600_000;
/** A file is read in pieces of this. */
const BLOCK_BYTES = 4 * 2 ** 20;
const LINE_FEED = 0x0a;

/** Flags that --export, --validate and --manifest have in common, as they were given. */
export interface SliceFlags {
  from?: string | undefined;
  to?: string | undefined;
  symbol?: string | undefined;
  json?: boolean | undefined;
}

export interface SliceChoice {
  /** Event time, ms: hours that reach into this span. Absent or null: no limit. */
  from?: number | null;
  to?: number | null;
  symbols?: readonly string[];
}

/** @throws UsageError naming the flag */
export function choiceOf({ from, to, symbol }: SliceFlags): SliceChoice {
  const choice: SliceChoice = {
    from: from === undefined ? null : moment('--from', from),
    to: to === undefined ? null : moment('--to', to),
    ...(symbol === undefined ? {} : { symbols: symbol.split(',').filter((each) => each !== '') }),
  };
  if (choice.from != null && choice.to != null && choice.from >= choice.to)
    throw new UsageError('--from takes a time before that of --to');
  return choice;
}

export interface Slice extends Place {
  /** Of the hour, ms. */
  start: number;
  /** `kind=K.jsonl`, from the root of the file system or as `root` was given. */
  path: string;
}

/** Files of the harvest, by hour, symbol and kind. */
export function slicesOf(root: string, { from, to, symbols }: SliceChoice = {}): Slice[] {
  if (!existsSync(root)) return [];
  const slices: Slice[] = [];
  for (const date of foldersIn(root, /^date=(\d{4}-\d\d-\d\d)$/)) {
    for (const hour of foldersIn(join(root, date), /^hour=(\d\d)$/)) {
      const start = Date.parse(`${date.slice('date='.length)}T${hour.slice('hour='.length)}:00:00Z`);
      if (!reachesInto(start, { from, to })) continue;
      for (const folder of foldersIn(join(root, date, hour), /^symbol=(.+)$/)) {
        for (const name of readdirSync(join(root, date, hour, folder)).sort()) {
          const place = name.endsWith('.jsonl') ? placeOf(`${date}/${hour}/${folder}/${name}`) : null;
          if (place === null || !(symbols?.includes(place.symbol) ?? true)) continue;
          slices.push({ ...place, start, path: join(root, `${placePath(place)}.jsonl`) });
        }
      }
    }
  }
  return slices;
}

/** Whether some of an hour lies in the span. */
export function reachesInto(start: number, { from, to }: Pick<SliceChoice, 'from' | 'to'>): boolean {
  return start + HOUR_MS > (from ?? Number.NEGATIVE_INFINITY) && start < (to ?? Number.POSITIVE_INFINITY);
}

function foldersIn(directory: string, pattern: RegExp): string[] {
  const entries = readdirSync(directory, { withFileTypes: true });
  return entries
    .filter((each) => each.isDirectory() && pattern.test(each.name))
    .map(({ name }) => name)
    .sort();
}

/** Slices by hour, in order. */
export function byHour(slices: readonly Slice[]): Map<number, Slice[]> {
  const hours = new Map<number, Slice[]>();
  for (const slice of slices) {
    const same = hours.get(slice.start);
    if (same) same.push(slice);
    else hours.set(slice.start, [slice]);
  }
  return hours;
}

/** What a file was when it was looked at: read up to there, it is what it was then. */
export interface Extent {
  bytes: number;
  /** ms. */
  changed: number;
}

export function extentOf(path: string): Extent {
  const { size, mtimeMs } = statSync(path);
  return { bytes: size, changed: Math.floor(mtimeMs) };
}

export interface Block {
  /** Whole lines. */
  bytes: Buffer;
  /** Number of the first line, from 1. */
  line: number;
}

/** A file's lines in large pieces, up to an extent. Half a line at its end is one only when nobody is writing it. */
export async function* blocksOf(path: string, { bytes: end }: Extent): AsyncGenerator<Block> {
  const file = await open(path);
  try {
    let line = 1;
    let rest: Buffer = Buffer.alloc(0);
    for (let at = 0; at < end; ) {
      const piece = await readPiece(file, at, Math.min(BLOCK_BYTES, end - at));
      if (piece.length === 0) break;
      at += piece.length;
      const cut = piece.lastIndexOf(LINE_FEED) + 1;
      if (cut === 0) {
        rest = Buffer.concat([rest, piece]);
        continue;
      }
      const bytes = Buffer.concat([rest, piece.subarray(0, cut)]);
      yield { bytes, line };
      line += countLines(bytes);
      rest = Buffer.from(piece.subarray(cut));
    }
    if (rest.length > 0 && (await file.stat()).size === end) yield { bytes: rest, line };
  } finally {
    await file.close();
  }
}

async function readPiece(file: FileHandle, at: number, length: number): Promise<Buffer> {
  const { buffer, bytesRead } = await file.read(Buffer.allocUnsafe(length), 0, length, at);
  return buffer.subarray(0, bytesRead);
}

function countLines(bytes: Buffer): number {
  let count = 0;
  for (let at = bytes.indexOf(LINE_FEED); at >= 0; at = bytes.indexOf(LINE_FEED, at + 1)) count += 1;
  return count;
}

/** The lines of a block, blank ones left out. */
export function* linesIn({ bytes, line }: Block): Generator<{ number: number; bytes: Buffer }> {
  let number = line;
  for (let start = 0; start < bytes.length; number += 1) {
    const found = bytes.indexOf(LINE_FEED, start);
    const end = found < 0 ? bytes.length : found;
    const text = bytes.subarray(start, end);
    if (text.some((byte) => byte > 0x20)) yield { number, bytes: text };
    start = end + 1;
  }
}

export type SliceRow = Record<string, unknown>;

/** Tells each row of a file, or why a line is none. */
export async function readSlice(
  path: string,
  extent: Extent,
  onRow: (row: SliceRow, line: number) => void,
  onBad: (line: number, why: string) => void,
): Promise<void> {
  for await (const block of blocksOf(path, extent)) {
    for (const { number, bytes } of linesIn(block)) {
      const row = rowOn(bytes);
      if (typeof row === 'string') onBad(number, row);
      else onRow(row, number);
    }
  }
}

function rowOn(bytes: Buffer): SliceRow | string {
  let value: unknown;
  try {
    value = JSON.parse(bytes.toString());
  } catch (error) {
    return (error as Error).message.slice(0, 120);
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return 'no object';
  const row = value as SliceRow;
  if (!Number.isInteger(row.ts_ms)) return 'ts_ms is no whole number';
  return typeof row.row_id === 'string' && row.row_id !== '' ? row : 'row_id is no text';
}

const WORDS = 4;
const FIRST_SLOTS = 1024;

/** Ids of 128 bits, at 16 to 48 bytes each. */
export class IdSet {
  size = 0;
  private words = new Uint32Array(FIRST_SLOTS * WORDS);
  /** The id of zeros, which marks an empty place. */
  private hasZero = false;

  /** @param id 32 hexadecimal digits; any other text is hashed @returns whether it is new */
  add(id: string): boolean {
    const hex = /^[0-9a-f]{32}$/.test(id) ? id : createHash('md5').update(id).digest('hex');
    const [a, b, c, d] = [0, 8, 16, 24].map((at) => Number.parseInt(hex.slice(at, at + 8), 16)) as [
      number,
      number,
      number,
      number,
    ];
    if (!this.put(a, b, c, d)) return false;
    this.size += 1;
    if (this.size * 3 > (this.words.length / WORDS) * 2) this.grow();
    return true;
  }

  private put(a: number, b: number, c: number, d: number): boolean {
    if ((a | b | c | d) === 0) {
      const isNew = !this.hasZero;
      this.hasZero = true;
      return isNew;
    }
    const { words } = this;
    const mask = words.length / WORDS - 1;
    for (let slot = a & mask; ; slot = (slot + 1) & mask) {
      const at = slot * WORDS;
      if ((words[at]! | words[at + 1]! | words[at + 2]! | words[at + 3]!) === 0) {
        words.set([a, b, c, d], at);
        return true;
      }
      if (words[at] === a && words[at + 1] === b && words[at + 2] === c && words[at + 3] === d) return false;
    }
  }

  private grow(): void {
    const old = this.words;
    this.words = new Uint32Array(old.length * 2);
    for (let at = 0; at < old.length; at += WORDS) {
      if ((old[at]! | old[at + 1]! | old[at + 2]! | old[at + 3]!) !== 0)
        this.put(old[at]!, old[at + 1]!, old[at + 2]!, old[at + 3]!);
    }
  }
}
