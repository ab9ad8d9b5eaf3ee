/** Rows that cannot be stored: kept with the reason, never dropped; found, read, and told by cause. `deadletter_replay.ts` publishes them again. */
import {
  closeSync,
  existsSync,
  fstatSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readdirSync,
  readSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { hasName, syncDirectory } from './files.ts';
import { DATA_TYPES, type DataType } from './rows.ts';

export interface DeadLetter {
  reason: string;
  subject: string;
  js_epoch: number;
  js_seq: number;
  /** The row's text as it came. */
  row: string;
}

/**
 * Appends to `data/deadletter/<type>/<day>.ndjson` and returns once it is on disk: only then may the message be
 * acknowledged.
 *
 * A replay renames the file before it reads it. If that comes between our opening and our writing, what we wrote may stand behind
 * what the replay has read. So the name is looked at after the write: while it still names the file written to, a rename can only come
 * later, and who reads after it reads our lines too. Otherwise they are written again, into the new file: twice in the deadletter at
 * worst, lost never, and the store stores a row once however often it comes.
 */
export function appendDeadLetters(dataDir: string, type: string, letters: DeadLetter[], now: Date): void {
  const directory = join(dataDir, 'deadletter', type);
  mkdirSync(directory, { recursive: true });
  const path = join(directory, `${now.toISOString().slice(0, 10)}.ndjson`);
  const at = now.toISOString();
  const text = letters.map((letter) => `${JSON.stringify({ at, ...letter })}\n`).join('');
  while (!appendAt(path, text));
  syncDirectory(directory);
}

/** @returns whether `path` still names the file that was written to */
function appendAt(path: string, text: string): boolean {
  const file = openSync(path, 'a+');
  try {
    // A crash in the middle of a write left half a line. It is a line of its own, or it would spoil the next one.
    const { size } = fstatSync(file);
    const last = Buffer.alloc(1);
    const isTorn = size > 0 && readSync(file, last, 0, 1, size - 1) === 1 && last[0] !== LINE_FEED;
    writeFileSync(file, isTorn ? `\n${text}` : text);
    fsyncSync(file);
    return hasName(file, path);
  } finally {
    closeSync(file);
  }
}

const LINE_FEED = 0x0a;

// ---------------------------------------------------------------------------------------------------------------- causes

export interface Cause {
  name: string;
  pattern: RegExp;
  /** Whether it can pass without anybody touching the row. */
  heals: boolean;
  advice: string;
}

const COLLECTOR_DEFECT =
  'A collector of this project never writes this: report it with this letter. When the row is needed, mend its text in the file and replay.';

/** Why rows cannot be stored, the first that fits. ClickHouse's own reasons begin with the name of its error code. */
const CAUSES: Cause[] = [
  {
    name: 'other mode',
    pattern: /^Mp-Mode is /,
    heals: false,
    advice:
      'A message of the other mode, or of a program that is not ours: simulated rows never enter a live database. It is never replayed. Look for a publisher at the wrong broker.',
  },
  {
    name: 'no subject of ours',
    pattern: /^no subject of ours$/,
    heals: false,
    advice: 'Some other program publishes below our subjects: find and stop it. Such a letter is not replayed.',
  },
  {
    name: 'no row text',
    pattern: /^(?:does not begin with|does not end with|has no \w+ where it belongs|\w+ has no end)/,
    heals: false,
    advice: `The line does not begin with the members of its key, is cut off, or belongs to another subject. ${COLLECTOR_DEFECT}`,
  },
  {
    name: 'wrong key',
    pattern: /^\w+ cannot be a key: /,
    heals: false,
    advice: `A member of the key has a value that no key may have. ${COLLECTOR_DEFECT}`,
  },
  {
    name: 'unknown member',
    pattern: /Unknown field found|^NO_SUCH_COLUMN_IN_TABLE: /,
    heals: true,
    advice:
      'The table lacks a column that the row has: after an upgrade bring the tables up (compare sql/hot.sql, ALTER TABLE … ADD COLUMN), then replay. When no version has this member, it is a defect of the collector: report it.',
  },
  {
    name: 'constraint of the table',
    pattern: /^VIOLATED_CONSTRAINT: |^Constraint .* is violated/,
    heals: true,
    advice:
      'Somebody gave the table a constraint; ours have none. When the row is right: ALTER TABLE … DROP CONSTRAINT, then replay.',
  },
  {
    name: 'table not there or not writable',
    pattern:
      /^(?:UNKNOWN_TABLE|UNKNOWN_DATABASE|TABLE_IS_READ_ONLY|READONLY|ACCESS_DENIED|NOT_ENOUGH_SPACE|MEMORY_LIMIT_EXCEEDED|TOO_MANY_PARTS|TIMEOUT_EXCEEDED|TABLE_IS_DROPPED): /,
    heals: true,
    advice: 'The database was not ready for rows: npx tsx scripts/manage.ts init makes what is missing; then replay.',
  },
  {
    name: 'a member is absent',
    pattern: /^FUNCTION_THROW_IF_VALUE_IS_NON_ZERO: |^CANNOT_INSERT_NULL_IN_ORDINARY_COLUMN: |\b\w+ is absent\b/,
    heals: false,
    advice: `The row lacks a member that it must have, or has null there. ${COLLECTOR_DEFECT}`,
  },
  {
    name: 'unknown word',
    pattern: /^UNKNOWN_ELEMENT_OF_ENUM: |Unknown element .* enum/i,
    heals: false,
    advice: `A member has a word that its column does not know. ${COLLECTOR_DEFECT}`,
  },
  {
    name: 'value too large',
    pattern:
      /^(?:DECIMAL_OVERFLOW|ARGUMENT_OUT_OF_BOUND|VALUE_IS_OUT_OF_RANGE_OF_DATA_TYPE|TOO_LARGE_STRING_SIZE): |too many digits/i,
    heals: false,
    advice:
      'A value has more than 20 digits before or 18 after the point. It is never rounded: look at what the exchange sent, and report it.',
  },
  {
    name: 'wrong value',
    pattern: /^(?:CANNOT_\w+|TYPE_MISMATCH|INCORRECT_DATA): |Cannot (?:parse|read|convert)/i,
    heals: false,
    advice: `A value is not of its column's type, such as a decimal that is no number. ${COLLECTOR_DEFECT}`,
  },
];

const UNKNOWN_CAUSE: Cause = {
  name: 'unknown',
  pattern: /^/,
  heals: false,
  advice: 'No known cause: read the reason, mend the row in the file or the table, and replay.',
};

export function causeOf(reason: string): Cause {
  return CAUSES.find((cause) => cause.pattern.test(reason)) ?? UNKNOWN_CAUSE;
}

const SHORT_REASON = 150;

/** A reason without what differs from row to row, so that many rows of one cause are one line. */
export function shortReason(reason: string): string {
  const common = reason
    .replace(/(cannot be a key): .*$/s, '$1')
    .replace(/: (?:\(at row \d+\)|while executing\b).*$/is, '')
    .replace(/(["'`])(?:\\.|(?!\1).)*(?:\1|$)/gs, '$1…$1')
    .replace(/\d+(?:\.\d+)?/g, 'N')
    .replace(/\s+/g, ' ')
    .trim();
  return common.length > SHORT_REASON ? `${common.slice(0, SHORT_REASON - 1)}…` : common;
}

// ---------------------------------------------------------------------------------------------------------------- reading

export interface LetterFile {
  kind: DataType;
  directory: string;
  /** As it is on disk: `DAY.ndjson`, or `DAY.ndjson.replaying-PID` while and after a replay that did not end. */
  name: string;
  /** `DAY.ndjson`. */
  base: string;
}

/** `.rest`: what a replay leaves over, see `replayFile` (`deadletter_replay.ts`). */
const LETTER_FILE = /^(.+\.ndjson)(?:\.replaying-[\d-]+(?:\.rest)?)?$/;
/** Letters of the harvest (`harvest/letters.ts`), whose kind `orderbook` has its folder in common with the store's: not ours. */
export const HARVEST_LETTER_FILE = /^.+_\d{8}_\d{6}_\d+(?:-\d+)?(?:\.r\d+)?\.ndjson$/;

export function deadletterRoot(dataDir: string): string {
  return join(dataDir, 'deadletter');
}

/** Files with letters that no replay has dealt with, oldest first. */
export function letterFiles(dataDir: string, kinds: DataType[] = DATA_TYPES): LetterFile[] {
  return kinds.flatMap((kind) => {
    const { directory, names } = filesOf(dataDir, kind);
    return names.flatMap((name) => {
      const base = LETTER_FILE.exec(name)?.[1];
      // While the file that it is taken from is still there, that one counts.
      const isDoubled = name.endsWith('.rest') && names.includes(name.slice(0, -'.rest'.length));
      const isOurs = base !== undefined && !HARVEST_LETTER_FILE.test(base);
      return isOurs && !isDoubled ? [{ kind, directory, name, base }] : [];
    });
  });
}

/** Files with the bad lines of files that were replayed. */
export function badFiles(dataDir: string, kinds: DataType[] = DATA_TYPES): LetterFile[] {
  return kinds.flatMap((kind) => {
    const { directory, names } = filesOf(dataDir, kind);
    const bad = names.filter((name) => name.endsWith('.ndjson.bad'));
    return bad
      .map((name) => ({ kind, directory, name, base: name.slice(0, -'.bad'.length) }))
      .filter(({ base }) => !HARVEST_LETTER_FILE.test(base));
  });
}

/** The files of a kind, by name. Links are not followed: what lies elsewhere is not ours. */
export function filesOf(dataDir: string, kind: string): { directory: string; names: string[] } {
  const root = deadletterRoot(dataDir);
  const directory = join(root, kind);
  const isThere =
    existsSync(root) &&
    readdirSync(root, { withFileTypes: true }).some((each) => each.name === kind && each.isDirectory());
  const entries = isThere ? readdirSync(directory, { withFileTypes: true }) : [];
  const names = entries.filter((each) => each.isFile()).map(({ name }) => name);
  return { directory, names: names.sort() };
}

const letterShape = z.object({
  at: z.iso.datetime(),
  reason: z.string(),
  subject: z.string(),
  js_epoch: z.number(),
  js_seq: z.number(),
  row: z.string().regex(/\S/, 'is empty'),
});
export type KeptLetter = z.infer<typeof letterShape>;

/** The value that a text stands for, or why there is none. */
export function parsedJson(text: string): { value: unknown } | string {
  try {
    return { value: JSON.parse(text) };
  } catch (error) {
    return `no JSON: ${(error as Error).message.slice(0, 120)}`;
  }
}

/** The letter on a line, or why there is none. */
export function readLetter(bytes: Buffer): KeptLetter | string {
  const parsed = parsedJson(bytes.toString());
  if (typeof parsed === 'string') return parsed;
  const letter = letterShape.safeParse(parsed.value);
  if (letter.success) return letter.data;
  const issue = letter.error.issues[0]!;
  return `no letter: ${issue.path.join('.') || 'the line'}: ${issue.message}`;
}
