/**
 * Rows of the harvest that a sink could not take: kept with the reason and the sinks that lack them, found, read, and told by cause. `letters_replay.ts`
 * delivers them after all.
 *
 *   appendHarvestLetters(dataDir, letters, now): string[]; on disk when it returns
 *   lettersOf(error, rows): HarvestLetter[]; what storeRows could not store
 *
 * Files: `DATA/deadletter/<kind>/<symbol>_<YYYYmmdd_HHMMSS>_<rows>.ndjson`, each written once and never added to.
 */
import { randomBytes } from 'node:crypto';
import { closeSync, fsyncSync, linkSync, mkdirSync, openSync, rmSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { inspect } from 'node:util';
import { z } from 'zod';
import { type Cause, causeOf, deadletterRoot, filesOf, HARVEST_LETTER_FILE, parsedJson } from '../deadletter.ts';
import { syncDirectory } from '../files.ts';
import { EXCHANGES, type Exchange } from '../rows.ts';
import { HARVEST_KINDS, type HarvestKind, harvestRoot, isRaw } from './kinds.ts';
import { type HarvestLine, NotStored } from './table.ts';

/** Where a row has to be: in its file and, unless it is raw, in its table. */
export const SINKS = ['jsonl', 'clickhouse'] as const;
export type Sink = (typeof SINKS)[number];

export interface HarvestLetter {
  row: HarvestLine;
  /** That lack the row. */
  sinks: readonly Sink[];
  reason: string;
}

/** A replay has a file's letters in memory. */
const MAX_ROWS_A_FILE = 20_000;
/** Text is handed to the system in pieces of so many letters. */
const LETTERS_A_WRITE = 1000;

/** The harvest's folder of an exchange. */
export function rootOf(dataDir: string, exchange: Exchange): string {
  const root = harvestRoot(dataDir);
  return exchange === 'binance_derivatives' ? root : `${root}-${exchange}`;
}

// ------------------------------------------------------------------------------------------------------------- appending

/** Why something failed, beginning with its code: causes are told by it. */
export function reasonOf(error: unknown): string {
  const { type, code, message } = error as { type?: string; code?: string; message?: string };
  const name = type ?? code;
  const text = message || String(error);
  return (name === undefined || text.startsWith(name) ? text : `${name}: ${text}`).slice(0, 500);
}

/** The letters of a failed `storeRows`. @param lacking the sinks that a row lacks besides its table */
export function lettersOf(
  error: unknown,
  rows: readonly HarvestLine[],
  lacking: readonly Sink[] = [],
): HarvestLetter[] {
  const sinks = [...new Set<Sink>([...lacking, 'clickhouse'])];
  if (!(error instanceof NotStored)) return rows.map((row) => ({ row, sinks, reason: reasonOf(error) }));
  const why = error.cause === undefined ? error.message : reasonOf(error.cause);
  return [
    ...error.refused.map(({ row, reason }) => ({ row, sinks, reason })),
    ...error.unconfirmed.map((row) => ({ row, sinks, reason: why })),
  ];
}

/**
 * A row as text on one line. What JSON has no word for becomes text of its own, and a row that cannot be JSON at all is shown as it is: a replay tells
 * of it, and it is not lost.
 */
function rowText(row: object): string {
  try {
    return JSON.stringify(row, (_, value: unknown) => {
      if (typeof value === 'bigint') return value.toString();
      if (typeof value === 'number' && !Number.isFinite(value)) return String(value);
      return value === undefined ? null : value;
    });
  } catch {
    return inspect(row, {
      depth: 6,
      maxStringLength: null,
      maxArrayLength: null,
      breakLength: Number.POSITIVE_INFINITY,
    });
  }
}

/**
 * Keeps letters, a file per kind, exchange and symbol. All are on disk when it returns; killed before, a file is there whole or not at all.
 * @returns the files
 * @throws when the disk does not take them: those that are not in a returned file are the caller's
 */
export function appendHarvestLetters(dataDir: string, letters: readonly HarvestLetter[], now: Date): string[] {
  const groups = new Map<string, HarvestLetter[]>();
  for (const letter of letters) {
    const { exchange, symbol } = letter.row;
    const kind = kindOf(letter.row);
    if (letter.sinks.length === 0) throw new Error(`a letter of ${kind} lacks no sink`);
    if (isRaw(kind) && letter.sinks.includes('clickhouse')) throw new Error(`${kind} has no table`);
    const name = `${kind}\n${exchange}\n${symbol}`;
    const group = groups.get(name);
    if (group) group.push(letter);
    else groups.set(name, [letter]);
  }
  return [...groups.values()].flatMap((group) => {
    const paths: string[] = [];
    for (let at = 0; at < group.length; at += MAX_ROWS_A_FILE)
      paths.push(writeLetters(dataDir, group.slice(at, at + MAX_ROWS_A_FILE), now));
    return paths;
  });
}

export function kindOf({ kind }: HarvestLine): HarvestKind {
  if (!HARVEST_KINDS.includes(kind as HarvestKind)) throw new Error(`${kind} is no kind of the harvest`);
  return kind as HarvestKind;
}

function writeLetters(dataDir: string, letters: readonly HarvestLetter[], now: Date): string {
  const { row } = letters[0]!;
  const kind = kindOf(row);
  const at = now.toISOString();
  const directory = join(deadletterRoot(dataDir), kind);
  mkdirSync(directory, { recursive: true });
  const time = at.slice(0, 19).replaceAll(/[-:]/g, '').replace('T', '_');
  const stem = `${encodeURIComponent(String(row.symbol))}_${time}_${letters.length}`;
  const lines = letters.map(({ row, sinks, reason }) =>
    JSON.stringify({ at, reason, kind, exchange: row.exchange, sinks, row: rowText(row) }),
  );
  const temporary = join(directory, `.${stem}.${process.pid}-${randomBytes(4).toString('hex')}.tmp`);
  try {
    writeLines(temporary, lines);
    for (let n = 0; ; n += 1) {
      const path = join(directory, `${stem}${n === 0 ? '' : `-${n}`}.ndjson`);
      if (!linked(temporary, path)) continue;
      syncDirectory(directory);
      return path;
    }
  } finally {
    rmSync(temporary, { force: true });
  }
}

/** @returns false when the name is taken: nothing is ever replaced */
function linked(from: string, to: string): boolean {
  try {
    linkSync(from, to);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false;
    throw error;
  }
}

/** A new file with these lines, on disk. */
export function writeLines(path: string, lines: readonly string[], encoding: BufferEncoding = 'utf8'): void {
  const file = openSync(path, 'w');
  try {
    for (let at = 0; at < lines.length; at += LETTERS_A_WRITE) {
      const bytes = Buffer.from(
        lines
          .slice(at, at + LETTERS_A_WRITE)
          .map((line) => `${line}\n`)
          .join(''),
        encoding,
      );
      for (let done = 0; done < bytes.length; ) done += writeSync(file, bytes, done);
    }
    fsyncSync(file);
  } finally {
    closeSync(file);
  }
}

// ---------------------------------------------------------------------------------------------------------------- causes

/** Why a row of the harvest is a letter, besides what a table says of its rows. */
const CAUSES: Cause[] = [
  {
    name: 'disk full or not writable',
    pattern: /^(?:ENOSPC|EDQUOT|EROFS|EACCES|EPERM|EIO|EMFILE|ENFILE)\b/,
    heals: true,
    advice: 'Make room on the disk with the data directory; a running harvester then replays by itself.',
  },
  {
    name: 'database away',
    pattern:
      /^(?:ECONN\w+|EPIPE|ETIMEDOUT|EHOSTUNREACH|ENETUNREACH|ENOTFOUND|EAI_AGAIN|SOCKET_TIMEOUT|NETWORK_ERROR|UNEXPECTED_END_OF_FILE|SERVER_OVERLOADED|QUERY_WAS_CANCELLED\w*|TOO_MANY_SIMULTANEOUS_QUERIES)\b|^(?:Timeout error|socket hang up|read ECONN|This operation was aborted|no server\b)|Service Unavailable|Bad Gateway|Gateway Time/i,
    heals: true,
    advice:
      'The database did not answer. When it does, a running harvester replays by itself, else: deadletter.ts replay.',
  },
  {
    name: 'buffer full',
    pattern: /\b(?:emergency|watermark)\b/i,
    heals: true,
    advice: 'Rows came faster than they could be saved, and left memory. Nothing is wrong with them: replay.',
  },
  {
    name: 'wrong kind',
    pattern: /^its kind is /,
    heals: false,
    advice:
      "The row was given to another kind's table. The harvester of this project never does this: report it with this letter.",
  },
];

/** The cause of a harvest letter. */
export function harvestCauseOf(reason: string): Cause {
  return CAUSES.find(({ pattern }) => pattern.test(reason)) ?? causeOf(reason);
}

// --------------------------------------------------------------------------------------------------------------- reading

const letterShape = z.object({
  at: z.iso.datetime(),
  reason: z.string(),
  kind: z.enum(HARVEST_KINDS),
  exchange: z.enum(EXCHANGES),
  sinks: z.array(z.enum(SINKS)).min(1),
  row: z.string().regex(/\S/, 'is empty'),
});
export type KeptHarvestLetter = z.infer<typeof letterShape>;

/** What a replay must know of a row; a table says more. */
const rowShape = z.looseObject({
  kind: z.enum(HARVEST_KINDS),
  ts_ms: z.number().int().min(0).max(8_640_000_000_000),
  exchange: z.enum(EXCHANGES),
  symbol: z.string().min(1).max(200),
  row_id: z.string().regex(/^[0-9a-f]{32}$/, 'is no md5'),
});

function fault({ issues }: z.ZodError, what: string): string {
  return `${what}: ${issues[0]!.path.join('.') || 'all of it'}: ${issues[0]!.message}`;
}

/** The letter on a line, or why there is none. */
export function readHarvestLetter(bytes: Buffer): KeptHarvestLetter | string {
  const parsed = parsedJson(bytes.toString());
  if (typeof parsed === 'string') return parsed;
  const letter = letterShape.safeParse(parsed.value);
  return letter.success ? letter.data : fault(letter.error, 'no letter');
}

/** The row of a letter, or why it is none of this kind. */
export function rowOf(letter: KeptHarvestLetter, kind: HarvestKind): HarvestLine | string {
  const parsed = parsedJson(letter.row);
  if (typeof parsed === 'string') return `its row is ${parsed}`;
  const row = rowShape.safeParse(parsed.value);
  if (!row.success) return fault(row.error, 'no row');
  if (letter.kind !== kind || row.data.kind !== kind)
    return `it belongs to ${letter.kind}, its row to ${row.data.kind}`;
  if (row.data.exchange !== letter.exchange) return `its row is of ${row.data.exchange}`;
  if (isRaw(kind) && letter.sinks.includes('clickhouse')) return `${kind} has no table`;
  return parsed.value as HarvestLine;
}

export interface HarvestLetterFile {
  kind: HarvestKind;
  directory: string;
  name: string;
}

/** Files with letters of the harvest that no replay has dealt with, oldest first within a kind and symbol. */
export function harvestLetterFiles(
  dataDir: string,
  kinds: readonly HarvestKind[] = HARVEST_KINDS,
): HarvestLetterFile[] {
  return kinds.flatMap((kind) => {
    const { directory, names } = filesOf(dataDir, kind);
    return names.filter((name) => HARVEST_LETTER_FILE.test(name)).map((name) => ({ kind, directory, name }));
  });
}

/** Files with the bad lines of files that were replayed. */
export function badHarvestFiles(dataDir: string, kinds: readonly HarvestKind[] = HARVEST_KINDS): HarvestLetterFile[] {
  return kinds.flatMap((kind) => {
    const { directory, names } = filesOf(dataDir, kind);
    const isBad = (name: string) => name.endsWith('.bad') && HARVEST_LETTER_FILE.test(name.slice(0, -'.bad'.length));
    return names.filter(isBad).map((name) => ({ kind, directory, name }));
  });
}
