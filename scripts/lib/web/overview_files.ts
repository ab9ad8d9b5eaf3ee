/** What lies in the data directory and should not for long: the outbox, dead letters; and the room that is left. */
import { existsSync, readdirSync, statSync } from 'node:fs';
import { statfs } from 'node:fs/promises';
import { join } from 'node:path';
import { badFiles, letterFiles, readLetter } from '../deadletter.ts';
import { badHarvestFiles, harvestLetterFiles } from '../harvest/letters.ts';
import { linesOf } from '../jsonl.ts';

export interface LetterFigures {
  /** Rows of the market that could not be stored. */
  rows: number;
  /** Rows of the harvest that a sink could not take. */
  harvest_rows: number;
  /** Lines that nobody can read. */
  unreadable: number;
  /** Files with lines that no replay could read. */
  set_aside_files: number;
}

interface Counted {
  size: number;
  changed: number;
  good: number;
  bad: number;
}

/** Letters that wait. A file is read again only when it changed. */
export class LetterCounter {
  private counted = new Map<string, Counted>();

  constructor(private readonly dataDir: string) {}

  async count(): Promise<LetterFigures> {
    const kept = new Map<string, Counted>();
    const figures = { rows: 0, harvest_rows: 0, unreadable: 0 };
    for (const { directory, name } of letterFiles(this.dataDir)) {
      const { good, bad } = await this.of(join(directory, name), kept, (line) => typeof readLetter(line) !== 'string');
      figures.rows += good;
      figures.unreadable += bad;
    }
    for (const { directory, name } of harvestLetterFiles(this.dataDir))
      figures.harvest_rows += (await this.of(join(directory, name), kept, () => true)).good;
    this.counted = kept;
    return { ...figures, set_aside_files: badFiles(this.dataDir).length + badHarvestFiles(this.dataDir).length };
  }

  private async of(path: string, kept: Map<string, Counted>, isGood: (line: Buffer) => boolean): Promise<Counted> {
    const stat = statSync(path, { throwIfNoEntry: false });
    // A replay has dealt with it since the folder was read.
    if (stat === undefined) return { size: 0, changed: 0, good: 0, bad: 0 };
    const known = this.counted.get(path);
    if (known !== undefined && known.size === stat.size && known.changed === stat.mtimeMs) {
      kept.set(path, known);
      return known;
    }
    const counted = { size: stat.size, changed: stat.mtimeMs, good: 0, bad: 0 };
    try {
      for await (const { bytes } of linesOf(path)) counted[isGood(bytes) ? 'good' : 'bad'] += 1;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
      return { size: 0, changed: 0, good: 0, bad: 0 };
    }
    kept.set(path, counted);
    return counted;
  }
}

/** Bytes of the outbox's files of all collectors that use this data directory: what waits, and what is kept for a while after it was taken. */
export function outboxFileBytes(dataDir: string): number {
  const root = join(dataDir, 'outbox');
  if (!existsSync(root)) return 0;
  let bytes = 0;
  for (const entry of readdirSync(root, { withFileTypes: true, recursive: true })) {
    if (!entry.isFile() || !entry.name.endsWith('.ndjson')) continue;
    // Segments are deleted at any moment.
    bytes += statSync(join(entry.parentPath, entry.name), { throwIfNoEntry: false })?.size ?? 0;
  }
  return bytes;
}

export interface DiskFigures {
  /** For others than root. */
  free_bytes: number;
  size_bytes: number;
}

/** The disk with the data directory. @returns null while there is no such directory */
export async function diskOf(dataDir: string): Promise<DiskFigures | null> {
  if (!existsSync(dataDir)) return null;
  const { bavail, blocks, bsize } = await statfs(dataDir);
  return { free_bytes: bavail * bsize, size_bytes: blocks * bsize };
}
