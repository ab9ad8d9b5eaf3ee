/**
 * Letters of the harvest, delivered after all: by a replay that somebody asks for, or by the running harvester that wrote them.
 *
 *   replayHarvest(options): Promise<HarvestReplay>; each row into the sinks that lack it, once
 *   HarvestHealer: what a running harvester does about its own letters
 *
 * Whoever writes an exchange's rows, into files or tables, holds `harvestLock`: a harvester for as long as it runs, a replay for as long as it takes. What
 * letters are, and where they lie, is in `letters.ts`.
 */
import { existsSync, mkdirSync, readFileSync, renameSync, statSync } from 'node:fs';
import { join } from 'node:path';
import type { ClickHouseClient } from '@clickhouse/client';
import { OperatorError } from '../cli.ts';
import { syncDirectory } from '../files.ts';
import { JsonlWriter, linesOf } from '../jsonl.ts';
import type { Lock } from '../lock.ts';
import type { Logger } from '../log.ts';
import type { Exchange } from '../rows.ts';
import { dateHour, type HarvestKind, placePath, type SignalKind } from './kinds.ts';
import {
  type HarvestLetterFile,
  harvestCauseOf,
  harvestLetterFiles,
  type KeptHarvestLetter,
  kindOf,
  readHarvestLetter,
  reasonOf,
  rootOf,
  rowOf,
  writeLines,
} from './letters.ts';
import { type HarvestLine, harvestLock, NotStored, storeRows } from './table.ts';

/** A sink was not there to be given anything. */
const EXIT_NOT_ASKED = 3;

export interface HarvestReplay {
  /** Dealt with: moved to `done/`. */
  files: number;
  /** Letters whose row no sink lacks any more; in a dry run: that would be tried. */
  replayed: number;
  /** Rows that were written now: into files, and into tables. */
  written: number;
  stored: number;
  /** Letters whose row the table still does not take: they stay, with its reason. */
  refused: number;
  /** Lines that are no letter, or whose row is none; kept in `.bad`. */
  bad: number;
  /** Letters that were not asked for. */
  left: number;
  /** Files of exchanges whose harvester runs, which delivers them itself. */
  busy: number;
}

export interface HarvestReplayOptions {
  dataDir: string;
  client: ClickHouseClient;
  database: string;
  log: Logger;
  stop: AbortSignal;
  kinds?: readonly HarvestKind[];
  /** Changes nothing, and takes no lock. */
  dryRun?: boolean;
  /** Which letters are meant; absent: all. */
  select?(letter: KeptHarvestLetter, file: HarvestLetterFile): boolean;
  /** Which files may be tried now; absent: all. */
  admits?(file: HarvestLetterFile): boolean;
  /** Exchanges whose `harvestLock` the caller holds: only their letters are delivered. Absent: the lock of each is taken. */
  held?: readonly Exchange[];
  /** Runs what writes to files of the harvest while nobody else in this process does. Absent: nobody else does. */
  exclusively?<T>(work: () => Promise<T>): Promise<T>;
  /** The harvest's folder of an exchange; absent: that of `rootOf`. */
  rootOf?(exchange: Exchange): string;
  /** Told of each line that cannot be delivered. */
  onBad?(file: HarvestLetterFile, line: number, why: string): void;
  onProgress?(replay: Readonly<HarvestReplay>, files: number): void;
}

const NOTHING: HarvestReplay = {
  ...{ files: 0, replayed: 0, written: 0, stored: 0, refused: 0, bad: 0, left: 0, busy: 0 },
};

/**
 * Delivers letters. A file whose rows are all where they belong goes to `done/`. Killed at any moment, the next replay goes on: what a file or a
 * table has by then is seen there, and not written again.
 * @throws OperatorError (exit code 3) when a sink is away: the file in hand and those after it are as they were
 */
export async function replayHarvest(options: HarvestReplayOptions): Promise<HarvestReplay> {
  const replay = { ...NOTHING };
  const files = harvestLetterFiles(options.dataDir, options.kinds).filter((file) => options.admits?.(file) ?? true);
  const locks = new Locks(options);
  try {
    for (const [index, file] of files.entries()) {
      options.stop.throwIfAborted();
      const read = await readFile(file, options);
      if (read === null) continue;
      if (options.dryRun) dryCount(read, replay);
      else if (read.chosen.length + read.bad.length === 0) replay.left += read.left.length;
      else if (await locks.areHeld(read.exchanges)) await deliver(file, read, options, replay);
      else replay.busy += 1;
      options.onProgress?.(replay, files.length - index - 1);
    }
    return replay;
  } finally {
    await locks.release();
  }
}

/** A line of a file, as bytes that are kept when it is put aside. */
interface ReadLetter {
  number: number;
  bytes: Buffer;
  letter: KeptHarvestLetter;
  row: HarvestLine;
}

interface ReadLetters {
  exchanges: Set<Exchange>;
  chosen: ReadLetter[];
  left: ReadLetter[];
  bad: { number: number; bytes: Buffer; why: string }[];
}

/** @returns null when the file is gone: another replay has dealt with it */
async function readFile(file: HarvestLetterFile, options: HarvestReplayOptions): Promise<ReadLetters | null> {
  const path = join(file.directory, file.name);
  if (!existsSync(path)) return null;
  const read: ReadLetters = { exchanges: new Set(), chosen: [], left: [], bad: [] };
  for await (const { number, bytes } of linesOf(path)) {
    const letter = readHarvestLetter(bytes);
    const row = typeof letter === 'string' ? letter : rowOf(letter, file.kind);
    if (typeof letter === 'string' || typeof row === 'string') {
      const why = typeof letter === 'string' ? letter : (row as string);
      read.bad.push({ number, bytes, why: why.replace(/\s+/g, ' ') });
      continue;
    }
    read.exchanges.add(letter.exchange);
    const isMeant = options.select?.(letter, file) ?? true;
    read[isMeant ? 'chosen' : 'left'].push({ number, bytes, letter, row });
  }
  if (options.dryRun) tellBad(file, read, options);
  return read;
}

function tellBad(file: HarvestLetterFile, { bad }: ReadLetters, { onBad }: HarvestReplayOptions): void {
  for (const { number, why } of bad) onBad?.(file, number, why);
}

function dryCount({ chosen, left, bad }: ReadLetters, replay: HarvestReplay): void {
  if (chosen.length + bad.length > 0) replay.files += 1;
  replay.replayed += chosen.length;
  replay.left += left.length;
  replay.bad += bad.length;
}

/** Locks of exchanges, each taken when its first letter is met. */
class Locks {
  private readonly locks = new Map<Exchange, Lock | null>();

  constructor(private readonly options: HarvestReplayOptions) {}

  async areHeld(exchanges: ReadonlySet<Exchange>): Promise<boolean> {
    let all = true;
    for (const exchange of exchanges) if (!(await this.isHeld(exchange))) all = false;
    return all;
  }

  private async isHeld(exchange: Exchange): Promise<boolean> {
    const { held, dataDir } = this.options;
    if (held !== undefined) return held.includes(exchange);
    if (!this.locks.has(exchange)) {
      const lock = await harvestLock(dataDir, exchange).catch((error: unknown) => {
        if (error instanceof OperatorError) return null;
        throw error;
      });
      this.locks.set(exchange, lock);
    }
    return this.locks.get(exchange) !== null;
  }

  async release(): Promise<void> {
    for (const lock of this.locks.values()) await lock?.release();
  }
}

/**
 * Delivers a file's chosen letters, first into files and then into the table. What stays is in `FILE.r1` before `FILE` leaves: killed in between, the
 * file is delivered again, which changes nothing, and the same rest written again.
 */
async function deliver(
  file: HarvestLetterFile,
  read: ReadLetters,
  options: HarvestReplayOptions,
  replay: HarvestReplay,
): Promise<void> {
  const { chosen, left, bad } = read;
  tellBad(file, read, options);
  try {
    const files = async () => writeMissing(chosen, options);
    replay.written += await (options.exclusively === undefined ? files() : options.exclusively(files));
    const { stored, refused } = await storeMissing(file.kind, chosen, options);
    replay.stored += stored;
    replay.refused += refused.size;
    replay.replayed += chosen.length - refused.size;
    replay.left += left.length;
    replay.bad += bad.length;
    const isUnchanged = ({ number, letter }: ReadLetter) =>
      refused.get(number) === letter.reason && !letter.sinks.includes('jsonl');
    if (bad.length === 0 && chosen.every(isUnchanged)) return;
    const rest = [...left, ...chosen.filter(({ number }) => refused.has(number))].sort((a, b) => a.number - b.number);
    moveAway(file, restLines(rest, refused), bad);
    replay.files += 1;
  } catch (error) {
    options.stop.throwIfAborted();
    if (!(error instanceof NotStored) && (error as NodeJS.ErrnoException).code === undefined) throw error;
    const why = reasonOf(error instanceof NotStored ? error.cause : error);
    throw new OperatorError(
      `${why}: ${replay.replayed} letters were delivered; run replay again, it goes on there`,
      EXIT_NOT_ASKED,
    );
  }
}

/** What stays of a file, each letter with its newest reason. A row that its table refused is in its file by now. */
function restLines(rest: readonly ReadLetter[], refused: ReadonlyMap<number, string>): string[] {
  return rest.map(({ number, bytes, letter }) => {
    const reason = refused.get(number);
    return reason === undefined ? bytes.toString() : JSON.stringify({ ...letter, sinks: ['clickhouse'], reason });
  });
}

/** Appends rows to the files that lack them. @returns how many */
async function writeMissing(letters: readonly ReadLetter[], options: HarvestReplayOptions): Promise<number> {
  const targets = new Map<string, Map<string, HarvestLine>>();
  for (const { letter, row } of letters) {
    if (!letter.sinks.includes('jsonl')) continue;
    const root = options.rootOf?.(letter.exchange) ?? rootOf(options.dataDir, letter.exchange);
    const place = { ...dateHour(row.ts_ms as number), symbol: row.symbol as string, kind: kindOf(row) };
    const path = `${join(root, placePath(place))}.jsonl`;
    let rows = targets.get(path);
    if (!rows) targets.set(path, (rows = new Map()));
    rows.set(row.row_id as string, row);
  }
  let written = 0;
  for (const [path, rows] of targets) {
    // Its end is mended first: half a line is no row.
    const writer = new JsonlWriter(path, options.log);
    try {
      await dropWritten(path, rows);
      writer.append([...rows.values()]);
      written += rows.size;
    } finally {
      writer.close();
    }
  }
  return written;
}

const ID_MEMBER = '"row_id":"';
const ID_LENGTH = 32;
const CLOSING_BRACE = 0x7d;

/** Drops the rows that a file has. */
async function dropWritten(path: string, rows: Map<string, HarvestLine>): Promise<void> {
  for await (const { bytes } of linesOf(path)) {
    const at = bytes.indexOf(ID_MEMBER);
    if (at < 0 || bytes.at(-1) !== CLOSING_BRACE) continue;
    const start = at + ID_MEMBER.length;
    rows.delete(bytes.toString('latin1', start, start + ID_LENGTH));
  }
}

/** Stores rows that the table lacks. @returns why it refuses the others, by line */
async function storeMissing(
  kind: HarvestKind,
  letters: readonly ReadLetter[],
  { client, database, stop }: HarvestReplayOptions,
): Promise<{ stored: number; refused: Map<number, string> }> {
  const refused = new Map<number, string>();
  const lacking = letters.filter(({ letter }) => letter.sinks.includes('clickhouse'));
  if (lacking.length === 0) return { stored: 0, refused };
  const rows = lacking.map(({ row }) => row);
  try {
    const { stored } = await storeRows(client, database, kind as SignalKind, rows, stop);
    return { stored, refused };
  } catch (error) {
    if (!(error instanceof NotStored) || error.unconfirmed.length > 0) throw error;
    const reasons = new Map(error.refused.map(({ row, reason }) => [row, reason]));
    for (const { row, number } of lacking) {
      const reason = reasons.get(row);
      if (reason !== undefined) refused.set(number, reason);
    }
    return { stored: error.stored, refused };
  }
}

/** Keeps what stays, and moves the file to `done/`. */
function moveAway({ directory, name }: HarvestLetterFile, rest: readonly string[], bad: ReadLetters['bad']): void {
  keepBad(join(directory, `${name}.bad`), bad);
  if (rest.length > 0) keepRest(directory, name, rest);
  const done = join(directory, 'done');
  mkdirSync(done, { recursive: true });
  // A copy that somebody gave back replaces nothing.
  for (let n = 0; ; n += 1) {
    const to = join(done, n === 0 ? name : name.replace(/\.ndjson$/, `.copy-${n}.ndjson`));
    if (existsSync(to)) continue;
    renameSync(join(directory, name), to);
    break;
  }
  syncDirectory(done);
  syncDirectory(directory);
}

/** What stays of `X.ndjson` is in `X.r1.ndjson`, and of that in `X.r2.ndjson`. One that is there already has the same, or other letters: those stay. */
function keepRest(directory: string, name: string, rest: readonly string[]): void {
  const [, stem, number = '0'] = /^(.*?)(?:\.r(\d+))?\.ndjson$/s.exec(name)!;
  const text = rest.map((line) => `${line}\n`).join('');
  for (let n = Number(number) + 1; ; n += 1) {
    const path = join(directory, `${stem}.r${n}.ndjson`);
    if (existsSync(path)) {
      if (readFileSync(path, 'utf8') === text) return;
      continue;
    }
    writeLines(`${path}.tmp`, rest);
    renameSync(`${path}.tmp`, path);
    syncDirectory(directory);
    return;
  }
}

/** What an earlier replay has put aside is not put aside again. */
function keepBad(path: string, bad: ReadLetters['bad']): void {
  if (bad.length === 0) return;
  const known = existsSync(path) ? readFileSync(path, 'latin1').split('\n') : [];
  const lines = bad.map(
    ({ number, why, bytes }) => `${Buffer.from(`${number}\t${why}\t`).toString('latin1')}${bytes.toString('latin1')}`,
  );
  const all = [...known.filter((line) => line !== ''), ...lines.filter((line) => !known.includes(line))];
  const temporary = `${path}.tmp`;
  writeLines(temporary, all, 'latin1');
  renameSync(temporary, path);
}

// ---------------------------------------------------------------------------------------------------------------- healing

/** Waits between two tries of a file that does not change: doubling from the first to the last. */
const FIRST_WAIT_MS = 60_000;
const LAST_WAIT_MS = 3_600_000;

interface Attempts {
  /** Of the file when it was tried. */
  changed: number;
  count: number;
  notBefore: number;
}

/**
 * A running harvester's own letters. A file that it has not seen is tried at the next turn, and so is one that somebody mended; after that only letters
 * whose cause may have passed by itself, ever more rarely.
 */
export class HarvestHealer {
  private readonly attempts = new Map<string, Attempts>();

  /** @param options `held` and `exclusively` are the harvester's */
  constructor(private readonly options: Omit<HarvestReplayOptions, 'admits' | 'select' | 'dryRun'>) {}

  /** @param now steady clock, ms @throws OperatorError when a sink is away; the next turn goes on */
  async turn(now: number): Promise<HarvestReplay> {
    const changed = new Set<string>();
    for (const path of this.attempts.keys()) if (!existsSync(path)) this.attempts.delete(path);
    return replayHarvest({
      ...this.options,
      admits: ({ directory, name }) => this.isDue(join(directory, name), now, changed),
      select: ({ reason }, { directory, name }) => changed.has(join(directory, name)) || harvestCauseOf(reason).heals,
    });
  }

  private isDue(path: string, now: number, changed: Set<string>): boolean {
    const { mtimeMs } = statSync(path);
    const known = this.attempts.get(path);
    if (known === undefined || known.changed !== mtimeMs) {
      changed.add(path);
      this.attempts.set(path, { changed: mtimeMs, count: 1, notBefore: now + FIRST_WAIT_MS });
      return true;
    }
    if (now < known.notBefore) return false;
    known.count += 1;
    known.notBefore = now + Math.min(FIRST_WAIT_MS * 2 ** (known.count - 1), LAST_WAIT_MS);
    return true;
  }
}
