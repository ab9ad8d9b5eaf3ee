/** Small files that other processes read: replaced whole, never seen half-written; names that are on disk; and whether a file that is open still has its name. */
import {
  closeSync,
  fstatSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  statSync,
  writeSync,
} from 'node:fs';
import { dirname } from 'node:path';

/** Writes `value` as JSON: temp file, fsync, rename. */
export function writeJsonAtomic(path: string, value: unknown): void {
  mkdirSync(dirname(path), { recursive: true });
  const temporary = `${path}.${process.pid}.tmp`;
  const file = openSync(temporary, 'w');
  try {
    const bytes = Buffer.from(`${JSON.stringify(value)}\n`);
    // A disk that becomes full takes a part without a word, and refuses the rest.
    for (let done = 0; done < bytes.length; ) done += writeSync(file, bytes, done);
    fsyncSync(file);
  } finally {
    closeSync(file);
  }
  renameSync(temporary, path);
}

/** New and changed names in a directory are on disk, too. */
export function syncDirectory(directory: string): void {
  const file = openSync(directory, 'r');
  try {
    fsyncSync(file);
  } finally {
    closeSync(file);
  }
}

/** A JSON file's content, or null when there is none. @throws SyntaxError when it is damaged. */
export function readJson(path: string): unknown {
  try {
    return JSON.parse(readFileSync(path, 'utf8'));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw error;
  }
}

/** Whether the file that is open is the one at `path`: not, once it was renamed, removed or replaced. */
export function hasName(file: number, path: string): boolean {
  const named = statSync(path, { throwIfNoEntry: false });
  // While it is open, no other file can have its number.
  const own = fstatSync(file);
  return named !== undefined && named.ino === own.ino && named.dev === own.dev;
}
