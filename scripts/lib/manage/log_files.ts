/** The last lines of a log file, and what is appended to it from then on, also when it is rotated meanwhile. */
import { closeSync, fstatSync, openSync, readSync, statSync } from 'node:fs';
import { StringDecoder } from 'node:string_decoder';
import { pause } from '../pause.ts';

const STEP_BYTES = 65_536;
const LINE_FEED = 0x0a;
/** A stack with its cause has fewer lines; node ends it by its own version, or by the error's members. */
const STACK_LINES = 60;
const END_OF_STACK = /^(Node\.js v|\}|\s+at )/;
const ERROR_LINE = /^(Uncaught )?\w*(Error|Exception)\b/;
/** What is appended is shown within this time, ms. */
const LOOK_EVERY_MS = 250;

export interface Tail {
  lines: string[];
  /** Where the last whole line ends: who follows begins there. */
  end: number;
  /** The file that was read; null: there is none. */
  inode: number | null;
}

/** The last `count` lines for which `isWanted`, oldest first; a line that is not ended yet is not among them. */
export function lastLines(path: string, count: number, isWanted: (line: string) => boolean = () => true): Tail {
  const file = openIfThere(path);
  if (file === null) return { lines: [], end: 0, inode: null };
  try {
    const { size, ino } = fstatSync(file);
    const found: string[] = [];
    let end: number | null = null;
    let rest: Buffer = Buffer.alloc(0);
    for (let from = size; from > 0 && found.length < count; ) {
      const start = Math.max(from - STEP_BYTES, 0);
      const piece = Buffer.concat([readExactly(file, start, from - start), rest]);
      from = start;
      const breaks = piece.lastIndexOf(LINE_FEED);
      if (end === null && breaks >= 0) end = start + breaks + 1;
      const first = start === 0 ? -1 : piece.indexOf(LINE_FEED);
      // The first line of the piece may begin in the one before it.
      if (breaks > first) take(piece.subarray(first + 1, breaks), found, count, isWanted);
      rest = start === 0 ? Buffer.alloc(0) : piece.subarray(0, first < 0 ? piece.length : first + 1);
    }
    return { lines: found.reverse(), end: end ?? 0, inode: ino };
  } finally {
    closeSync(file);
  }
}

/** What a process said last: its last line, or of an error with its stack the line that names it. @returns null when it said nothing */
export function lastWord(path: string): string | null {
  const { lines } = lastLines(path, STACK_LINES);
  const last = lines.at(-1) ?? null;
  if (last === null || !END_OF_STACK.test(last)) return last;
  return lines.findLast((line) => ERROR_LINE.test(line)) ?? last;
}

/** Takes lines from the last on. */
function take(piece: Buffer, found: string[], count: number, isWanted: (line: string) => boolean): void {
  const lines = piece.toString().split('\n');
  for (let i = lines.length - 1; i >= 0 && found.length < count; i--) {
    if (lines[i] !== '' && isWanted(lines[i]!)) found.push(lines[i]!);
  }
}

/** Tells each line that comes after `tail`, until `stop` fires. A file that is renamed is read to its end first; one that is cut off begins anew. */
export async function follow(path: string, tail: Tail, told: (line: string) => void, stop: AbortSignal): Promise<void> {
  let file = openIfThere(path);
  let inode = file === null ? null : fstatSync(file).ino;
  let place = inode === tail.inode ? tail.end : 0;
  let lines = new LineReader(told);
  try {
    while (!stop.aborted) {
      if (file !== null) {
        const { size } = fstatSync(file);
        if (size < place) [place, lines] = [0, new LineReader(told)];
        place += lines.read(file, place);
      }
      const named = statSync(path, { throwIfNoEntry: false })?.ino ?? null;
      if (named !== null && named !== inode) {
        // What its writer still wrote between the last look and the rename.
        if (file !== null) {
          lines.read(file, place);
          closeSync(file);
        }
        file = openIfThere(path);
        inode = file === null ? null : fstatSync(file).ino;
        [place, lines] = [0, new LineReader(told)];
        continue;
      }
      await pause(LOOK_EVERY_MS, stop).catch(() => undefined);
    }
  } finally {
    if (file !== null) closeSync(file);
  }
}

/** Cuts what is read into lines. */
class LineReader {
  private readonly decoder = new StringDecoder('utf8');
  private rest = '';

  constructor(private readonly told: (line: string) => void) {}

  /** Reads to the end. @returns bytes that were read */
  read(file: number, from: number): number {
    const buffer = Buffer.alloc(STEP_BYTES);
    let place = from;
    for (let got = -1; got !== 0; place += got) {
      got = readSync(file, buffer, 0, STEP_BYTES, place);
      const parts = (this.rest + this.decoder.write(buffer.subarray(0, got))).split('\n');
      this.rest = parts.pop()!;
      for (const line of parts) if (line !== '') this.told(line);
    }
    return place - from;
  }
}

function readExactly(file: number, from: number, length: number): Buffer {
  const bytes = Buffer.alloc(length);
  let done = 0;
  for (let got = -1; got !== 0 && done < length; done += got)
    got = readSync(file, bytes, done, length - done, from + done);
  return bytes.subarray(0, done);
}

function openIfThere(path: string): number | null {
  try {
    return openSync(path, 'r');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw error;
  }
}
