/**
 * A file and those that logrotate renamed it to (`NAME-20261124-000000`, by another configuration also `NAME-20261124`, `NAME.1`, or compressed):
 * found in the order in which they were written, and opened at one moment.
 */
import { randomUUID } from 'node:crypto';
import { readdirSync, statSync } from 'node:fs';
import { type FileHandle, open, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { pipeline } from 'node:stream';
import { createGunzip } from 'node:zlib';

export const GZIP = '.gz';
export const READ_BYTES = 2 ** 20;
/** What follows the name: a date, to the day or to the second, or a number that counts up with age. */
const SUFFIX = /^(?:-(20\d\d)(\d\d)(\d\d)(?:-?\d{1,6})?|\.(\d{1,5}))(?:\.gz)?$/;
/** Dates in names are in the machine's time zone, and its clock may have been set: a file is taken to end so much later, ms. */
const DATE_MARGIN_MS = 2 * 86_400_000;
/** Rotations are minutes apart at the least: a set that changes at each look is another's doing. */
const MOST_TRIES = 20;

interface Rotated {
  name: string;
  /** Of `NAME.1`; null: its name has a date, or is the one that is written to. */
  number: number | null;
  /** No record in it is of a later time, ms; null: not known. */
  end: number | null;
}

/**
 * The paths of a file and of what it was renamed to, oldest first.
 * @param since ms: files that end before it are left out where their names tell, up to the newest one
 */
export function rotatedSet(path: string, since = Number.NEGATIVE_INFINITY): string[] {
  const [directory, name] = [dirname(path), basename(path)];
  const names = namesIn(directory).filter((each) => each.startsWith(name));
  const all = names.flatMap((each) => rotatedOf(name, each) ?? []);
  // While it is being compressed, a file is there twice.
  const plain = new Set(all.map((each) => each.name));
  const files = all.filter((each) => !(each.name.endsWith(GZIP) && plain.has(each.name.slice(0, -GZIP.length))));
  files.sort(byAge);
  const wanted = files.filter(({ end }, i) => end === null || end >= since || i === files.length - 1);
  return [...wanted.map((each) => each.name), ...(names.includes(name) ? [name] : [])].map((each) =>
    join(directory, each),
  );
}

function namesIn(directory: string): string[] {
  try {
    return readdirSync(directory);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw error;
  }
}

function rotatedOf(base: string, name: string): Rotated | null {
  const match = SUFFIX.exec(name.slice(base.length));
  if (match === null) return null;
  const [, year, month, day, number] = match;
  if (number !== undefined) return { name, number: Number(number), end: null };
  return { name, number: null, end: Date.UTC(Number(year), Number(month) - 1, Number(day)) + DATE_MARGIN_MS };
}

/** Numbered ones first: whoever has both changed from numbers, which logrotate has by default, to dates. */
function byAge(one: Rotated, other: Rotated): number {
  if (one.number !== null && other.number !== null) return other.number - one.number;
  if (one.number !== null || other.number !== null) return one.number === null ? 1 : -1;
  const [a, b] = [one, other].map(({ name }) => (name.endsWith(GZIP) ? name.slice(0, -GZIP.length) : name));
  return a! < b! ? -1 : 1;
}

export interface RotatedFile {
  path: string;
  ino: number;
  size: number;
}

/**
 * A file and what it was renamed to, oldest first, as they are at one moment: a rotation in between takes nothing away, and gives nothing twice.
 * @param since as of `rotatedSet`
 * @throws when they change at each look
 */
export function rotatedFiles(path: string, since?: number): RotatedFile[] {
  let before = look(path, since);
  for (let tries = 0; tries < MOST_TRIES; tries += 1) {
    const now = look(path, since);
    if (now !== null && before !== null && isSame(before, now)) return now;
    before = now;
  }
  throw changing(path);
}

/** Null: one was renamed meanwhile. */
function look(path: string, since?: number): RotatedFile[] | null {
  const files: RotatedFile[] = [];
  for (const each of rotatedSet(path, since)) {
    const stat = statSync(each, { throwIfNoEntry: false });
    if (stat === undefined) return null;
    files.push({ path: each, ino: stat.ino, size: stat.size });
  }
  return files;
}

function isSame(before: readonly RotatedFile[], now: readonly RotatedFile[]): boolean {
  return (
    before.length === now.length && now.every(({ path, ino }, i) => before[i]!.path === path && before[i]!.ino === ino)
  );
}

function changing(path: string): Error {
  return new Error(`${path}: what it was renamed to changes at each look`);
}

export interface OpenFile {
  path: string;
  handle: FileHandle;
}

/**
 * Opens them: what is read is what was there at this moment, whatever is renamed, compressed or removed meanwhile. Whoever asks closes them.
 * @param since as of `rotatedSet`
 * @throws when they change at each look
 */
export async function openRotated(path: string, since?: number): Promise<OpenFile[]> {
  for (let tries = 0; tries < MOST_TRIES; tries += 1) {
    const wanted = rotatedFiles(path, since);
    const files = await Promise.all(wanted.map(async (each) => ({ path: each.path, handle: await openAs(each) })));
    const open = files.flatMap(({ path: own, handle }) => (handle === null ? [] : [{ path: own, handle }]));
    if (open.length === files.length) return open;
    await Promise.all(open.map(({ handle }) => handle.close()));
  }
  throw changing(path);
}

/** @returns null where the path is another file by now */
export async function openAs({ path, ino }: RotatedFile): Promise<FileHandle | null> {
  const handle = await open(path, 'r').catch(nothingThere);
  if (handle === null || (await handle.stat()).ino === ino) return handle;
  await handle.close();
  return null;
}

function nothingThere(error: NodeJS.ErrnoException): null {
  if (error.code === 'ENOENT') return null;
  throw error;
}

/** What is in a file, decompressed where it is compressed. The handle stays open. */
export function streamOf({ path, handle }: OpenFile): AsyncIterable<Buffer> {
  const bytes = handle.createReadStream({ highWaterMark: READ_BYTES, start: 0, autoClose: false });
  // A fault of either comes out where it is read.
  return path.endsWith(GZIP) ? pipeline(bytes, createGunzip(), () => undefined) : bytes;
}

/** A compressed file's content in a file without a name, which is gone when it is closed: for who reads here and there. */
export async function inflated(file: OpenFile): Promise<FileHandle> {
  const path = join(tmpdir(), `marketprism-${process.pid}-${randomUUID()}`);
  const handle = await open(path, 'wx+', 0o600);
  await rm(path);
  try {
    for await (const chunk of streamOf(file)) await handle.writeFile(chunk);
    return handle;
  } catch (error) {
    await handle.close();
    throw error;
  }
}
