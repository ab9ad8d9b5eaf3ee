/** Files of one JSON object a line: appended whole by one writer, read back line by line. */
import {
  closeSync,
  createReadStream,
  existsSync,
  fdatasyncSync,
  fstatSync,
  ftruncateSync,
  mkdirSync,
  openSync,
  readdirSync,
  readSync,
  statSync,
  writeSync,
} from 'node:fs';
import { basename, dirname, join } from 'node:path';
import type { Logger } from './log.ts';

const LINE_FEED = 0x0a;
/** A line is looked for backwards in steps of this. */
const STEP_BYTES = 65_536;

export interface Line {
  /** From 1. */
  number: number;
  bytes: Buffer;
}

/**
 * A file's lines, blank ones left out but counted. By bytes: `readline` would also split at characters that may stand in a row.
 * @param start bytes before it are left out, and its lines are counted from there
 */
export async function* linesOf(path: string, start = 0): AsyncGenerator<Line> {
  let number = 0;
  let pieces: Buffer[] = [];
  const line = (end: Buffer): Line => {
    number += 1;
    const bytes = pieces.length === 0 ? end : Buffer.concat([...pieces, end]);
    pieces = [];
    return { number, bytes };
  };
  const isBlank = ({ bytes }: Line) => bytes.every((byte) => byte <= 0x20);
  for await (const chunk of createReadStream(path, { highWaterMark: 2 ** 20, start }) as AsyncIterable<Buffer>) {
    let from = 0;
    for (let end = chunk.indexOf(LINE_FEED); end >= 0; end = chunk.indexOf(LINE_FEED, from)) {
      const found = line(chunk.subarray(from, end));
      if (!isBlank(found)) yield found;
      from = end + 1;
    }
    if (from < chunk.length) pieces.push(chunk.subarray(from));
  }
  if (pieces.length === 0) return;
  const last = line(Buffer.alloc(0));
  if (!isBlank(last)) yield last;
}

/** An object of a line, or why there is none. */
export type Parsed = { number: number; value: Record<string, unknown> } | { number: number; bad: string };

/** A file's objects; a line that is none is told, and the next ones are read. @param start bytes before it are left out */
export async function* objectsOf(path: string, start = 0): AsyncGenerator<Parsed> {
  for await (const { number, bytes } of linesOf(path, start)) {
    try {
      const value: unknown = JSON.parse(bytes.toString());
      if (typeof value === 'object' && value !== null && !Array.isArray(value))
        yield { number, value: value as Record<string, unknown> };
      else yield { number, bad: 'no object' };
    } catch (error) {
      yield { number, bad: (error as Error).message };
    }
  }
}

/** A file and those that it was renamed to when it was rotated (`NAME.1`, `NAME-20261124`), oldest first; compressed ones are left out. */
export function rotatedSet(path: string): string[] {
  const [directory, name] = [dirname(path), basename(path)];
  if (!existsSync(directory)) return [];
  const rotated = readdirSync(directory).filter(
    (each) => each.startsWith(name) && /^[.-]\d[\d-]*$/.test(each.slice(name.length)),
  );
  const paths = [...rotated, ...(existsSync(path) ? [name] : [])].map((each) => join(directory, each));
  const changed = new Map(paths.map((each) => [each, statSync(each).mtimeMs]));
  return paths.sort((one, other) => changed.get(one)! - changed.get(other)!);
}

/** True when the file ends in the middle of a line. */
export function isTorn(path: string): boolean {
  const file = openSync(path, 'r');
  try {
    const { size } = fstatSync(file);
    const last = Buffer.alloc(1);
    return size > 0 && readSync(file, last, 0, 1, size - 1) === 1 && last[0] !== LINE_FEED;
  } finally {
    closeSync(file);
  }
}

/**
 * Appends to one file. Lines are in the file whole or not at all, and on disk when `append` returns. A file that was renamed (logrotate) is
 * left as it is, and a new one begun. Who opens it takes care that nobody else writes to it.
 */
export class JsonlWriter {
  private file: number | null = null;

  constructor(
    readonly path: string,
    private readonly log: Logger,
  ) {
    mkdirSync(dirname(path), { recursive: true });
    this.open();
  }

  /** @throws when the disk takes not all of it: nothing of it is in the file then */
  append(records: readonly object[]): void {
    if (records.length === 0) return;
    const bytes = Buffer.from(records.map((record) => `${JSON.stringify(record)}\n`).join(''));
    const file = this.present();
    const { size } = fstatSync(file);
    try {
      for (let done = 0; done < bytes.length; ) done += writeSync(file, bytes, done);
      fdatasyncSync(file);
    } catch (error) {
      ftruncateSync(file, size);
      throw error;
    }
  }

  close(): void {
    if (this.file !== null) closeSync(this.file);
    this.file = null;
  }

  /** The file that has the name now. */
  private present(): number {
    const ours = this.file === null ? null : fstatSync(this.file);
    const named = statSync(this.path, { throwIfNoEntry: false });
    if (ours !== null && named !== undefined && named.ino === ours.ino && named.dev === ours.dev) return this.file!;
    this.close();
    return this.open();
  }

  private open(): number {
    // Read, too: its end is looked at.
    const file = openSync(this.path, 'a+');
    this.file = file;
    mendEnd(file, this.path, this.log);
    return file;
  }
}

/** What was being written when its writer died goes to `FILE.torn`: it is no line, and must not be glued to the next one. */
function mendEnd(file: number, path: string, log: Logger): void {
  const { size } = fstatSync(file);
  const end = endOfLastLine(file, size);
  if (end === size) return;
  const torn = Buffer.alloc(size - end);
  readSync(file, torn, 0, torn.length, end);
  const aside = openSync(`${path}.torn`, 'a');
  try {
    writeSync(aside, Buffer.concat([torn, Buffer.from('\n')]));
    fdatasyncSync(aside);
  } finally {
    closeSync(aside);
  }
  ftruncateSync(file, end);
  log.warn({ event: 'torn_line', path, bytes: torn.length }, `kept in ${path}.torn`);
}

function endOfLastLine(file: number, size: number): number {
  const buffer = Buffer.alloc(STEP_BYTES);
  for (let end = size; end > 0; ) {
    const from = Math.max(end - STEP_BYTES, 0);
    const found = buffer.subarray(0, readSync(file, buffer, 0, end - from, from)).lastIndexOf(LINE_FEED);
    if (found >= 0) return from + found + 1;
    end = from;
  }
  return 0;
}
