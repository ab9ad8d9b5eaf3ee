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
  readSync,
  writeSync,
} from 'node:fs';
import { dirname } from 'node:path';
import { hasName } from './files.ts';
import { holdsOpen, letGo } from './hangup.ts';
import type { Logger } from './log.ts';
import { GZIP, openRotated, READ_BYTES, rotatedSet, streamOf } from './rotated.ts';

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
export function linesOf(path: string, start = 0): AsyncGenerator<Line> {
  return linesIn(createReadStream(path, { highWaterMark: READ_BYTES, start }));
}

async function* linesIn(chunks: AsyncIterable<Buffer>): AsyncGenerator<Line> {
  let number = 0;
  let pieces: Buffer[] = [];
  const line = (end: Buffer): Line => {
    number += 1;
    const bytes = pieces.length === 0 ? end : Buffer.concat([...pieces, end]);
    pieces = [];
    return { number, bytes };
  };
  const isBlank = ({ bytes }: Line) => bytes.every((byte) => byte <= 0x20);
  for await (const chunk of chunks) {
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
  for await (const line of linesOf(path, start)) yield parsedLine(line);
}

function parsedLine({ number, bytes }: Line): Parsed {
  try {
    const value: unknown = JSON.parse(bytes.toString());
    if (typeof value === 'object' && value !== null && !Array.isArray(value))
      return { number, value: value as Record<string, unknown> };
    return { number, bad: 'no object' };
  } catch (error) {
    return { number, bad: (error as Error).message };
  }
}

/** The lines of a file and of all that it was renamed to, as `linesOf`; `number` counts in its own file. @param since as of `openRotated` */
export async function* linesOfAll(path: string, since?: number): AsyncGenerator<Line & { path: string }> {
  const files = await openRotated(path, since);
  try {
    for (const file of files) for await (const line of linesIn(streamOf(file))) yield { ...line, path: file.path };
  } finally {
    await Promise.all(files.map(({ handle }) => handle.close()));
  }
}

/** Their objects, as `objectsOf`. @param since as of `openRotated` */
export async function* objectsOfAll(path: string, since?: number): AsyncGenerator<Parsed & { path: string }> {
  for await (const { path: own, ...line } of linesOfAll(path, since)) yield { ...parsedLine(line), path: own };
}

/** True when the file is there, and ends in the middle of a line. */
export function isTorn(path: string): boolean {
  if (!existsSync(path)) return false;
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
 * left as it is, and a new one begun: seen at each append, so that no signal has to come in time. Who opens it takes care that nobody else writes
 * to it.
 */
export class JsonlWriter {
  private file: number | null = null;

  constructor(
    readonly path: string,
    private readonly log: Logger,
  ) {
    mkdirSync(dirname(path), { recursive: true });
    this.mendRotated();
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
    if (this.file === null) return;
    letGo(this.release);
    this.release();
  }

  private readonly release = (): void => {
    if (this.file !== null) closeSync(this.file);
    this.file = null;
  };

  /** The file that has the name now. */
  private present(): number {
    if (this.file !== null && hasName(this.file, this.path)) return this.file;
    this.release();
    return this.open();
  }

  private open(): number {
    // Read, too: its end is looked at.
    const file = openSync(this.path, 'a+');
    this.file = file;
    holdsOpen(this.release);
    mendEnd(file, this.path, this.log);
    return file;
  }

  /** Where the writer was killed while logrotate renamed its file, the end that is torn has another name by now. */
  private mendRotated(): void {
    const newest = rotatedSet(this.path).findLast((each) => each !== this.path);
    if (newest === undefined || newest.endsWith(GZIP) || !isTorn(newest)) return;
    const file = openSync(newest, 'r+');
    try {
      mendEnd(file, this.path, this.log);
    } finally {
      closeSync(file);
    }
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
