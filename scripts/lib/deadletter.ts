/** Rows that cannot be stored: kept with the reason, never dropped; read, explained, and published again. */
import { createHash, randomBytes } from 'node:crypto';
import {
  closeSync,
  existsSync,
  fstatSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import type { NatsConnection } from 'nats';
import { z } from 'zod';
import { OperatorError } from './cli.ts';
import { readJson, writeJsonAtomic } from './files.ts';
import { type Line, linesOf } from './jsonl.ts';
import { takeLock } from './lock.ts';
import type { Logger } from './log.ts';
import { pause } from './pause.ts';
import { type OutgoingMessage, Publisher } from './publisher.ts';
import { DATA_TYPES, type DataType, EXCHANGES, MARKET_TYPES } from './rows.ts';
import { steadyNow } from './steady.ts';
import { parseSubject, subjectOf } from './streams.ts';

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
    const written = fstatSync(file);
    const named = statSync(path, { throwIfNoEntry: false });
    return named?.ino === written.ino && named.dev === written.dev;
  } finally {
    closeSync(file);
  }
}

const LINE_FEED = 0x0a;

/** New and changed names are on disk, too. */
function syncDirectory(directory: string): void {
  const file = openSync(directory, 'r');
  try {
    fsyncSync(file);
  } finally {
    closeSync(file);
  }
}

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

/** `.rest`: what a replay leaves over, see `replayFile`. */
const LETTER_FILE = /^(.+\.ndjson)(?:\.replaying-[\d-]+(?:\.rest)?)?$/;
/** Letters of the harvest (`harvest/letters.ts`), whose kind `orderbook` has its folder in common with the store's: not ours. */
export const HARVEST_LETTER_FILE = /^.+_\d{8}_\d{6}_\d+(?:-\d+)?(?:\.r\d+)?\.ndjson$/;

export function deadletterRoot(dataDir: string): string {
  return join(dataDir, 'deadletter');
}

/** Files with letters that no replay has dealt with, oldest first. Links are not followed: what lies elsewhere is not ours. */
export function letterFiles(dataDir: string, kinds: DataType[] = DATA_TYPES): LetterFile[] {
  return kinds.flatMap((kind) => {
    const { directory, names } = filesOf(dataDir, kind);
    return names.sort().flatMap((name) => {
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
    const bad = names.filter((name) => name.endsWith('.ndjson.bad')).sort();
    return bad
      .map((name) => ({ kind, directory, name, base: name.slice(0, -'.bad'.length) }))
      .filter(({ base }) => !HARVEST_LETTER_FILE.test(base));
  });
}

function filesOf(dataDir: string, kind: DataType): { directory: string; names: string[] } {
  const root = deadletterRoot(dataDir);
  const directory = join(root, kind);
  const isThere =
    existsSync(root) &&
    readdirSync(root, { withFileTypes: true }).some((each) => each.name === kind && each.isDirectory());
  const entries = isThere ? readdirSync(directory, { withFileTypes: true }) : [];
  return { directory, names: entries.filter((each) => each.isFile()).map((each) => each.name) };
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

/** The letter on a line, or why there is none. */
export function readLetter(bytes: Buffer): KeptLetter | string {
  let value: unknown;
  try {
    value = JSON.parse(bytes.toString());
  } catch (error) {
    return `no JSON: ${(error as Error).message.slice(0, 120)}`;
  }
  const parsed = letterShape.safeParse(value);
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0]!;
  return `no letter: ${issue.path.join('.') || 'the line'}: ${issue.message}`;
}

/** Why a letter may not be published, or null. What stands in a file is a name for the broker only when it is exactly one of ours. */
function subjectFault({ subject }: KeptLetter, kind: DataType): string | null {
  const stream = parseSubject(subject);
  if (stream === null) return `no subject of ours: ${subject.slice(0, 120)}`;
  const known = (EXCHANGES as readonly string[]).includes(stream.exchange) && MARKET_TYPES.includes(stream.market_type);
  if (!known || subjectOf(stream) !== subject) return `no subject of ours: ${subject.slice(0, 120)}`;
  return stream.type === kind ? null : `its subject belongs to ${stream.type}`;
}

/** A message of the other mode, or a row that says so itself. */
function isOfOtherMode({ reason, row }: KeptLetter, mode: string): boolean {
  return causeOf(reason).name === 'other mode' || (mode !== 'demo' && row.includes('"data_source":"demo"'));
}

type Judged = { bad: string } | { letter: KeptLetter; refused: boolean };

function judge({ bytes }: Line, kind: DataType, mode: string): Judged {
  const letter = readLetter(bytes);
  if (typeof letter === 'string') return { bad: letter };
  // Before the subject: a message of the other mode is not ours, whatever its subject.
  if (isOfOtherMode(letter, mode)) return { letter, refused: true };
  const fault = subjectFault(letter, kind);
  return fault === null ? { letter, refused: false } : { bad: fault };
}

// --------------------------------------------------------------------------------------------------------------- replaying

/** Messages at the broker without an answer, and waiting behind them. */
const MAX_IN_FLIGHT = 256;
const MAX_IN_FLIGHT_BYTES = 16 * 2 ** 20;
const MAX_WAITING = 1024;
const ACK_TIMEOUT_MS = 2000;
/** A broker that acknowledges nothing for this long is away. */
const STALLED_MS = 8000;
/** What the broker counts into its limit besides the row. */
const HEADER_BYTES = 1024;

export interface ReplaySummary {
  files: number;
  /** Acknowledged by JetStream; in a dry run: that would be published. */
  replayed: number;
  /** Lines that are no letter, or of no subject of ours; kept in `.bad`. */
  bad: number;
  /** Of the other mode: never published. */
  refused: number;
  /** Not asked for (`sinceMs`, healing): they stay. */
  left: number;
  /** Files whose next attempt is not due, or that have had all. */
  postponed: number;
}

export interface ReplayOptions {
  dataDir: string;
  mode: string;
  kinds?: DataType[];
  /** Only letters of this time (ms) and later. */
  sinceMs?: number | null;
  /** Null: a dry run, which changes nothing and takes no lock. */
  nats: NatsConnection | null;
  log: Logger;
  /** Told of each line that cannot be replayed. */
  onBad?(file: LetterFile, line: number, why: string): void;
  onProgress?(summary: Readonly<ReplaySummary>, total: number): void;
}

/** Which letters are meant. */
interface Choice {
  select(letter: KeptLetter): boolean;
  /** False: a file is dealt with also when no letter of it is published. */
  partial: boolean;
  /** Whether a file may be tried now. */
  admits(file: LetterFile): boolean;
  /** A file is about to be tried. */
  starts(file: LetterFile): void;
}

/**
 * Publishes letters again. A file whose lines are all acknowledged goes to `done/`. Killed at any moment, the next replay goes on; what
 * was published then is published again, under an id of its own, and the store finds it in hot.
 */
export function replayLetters(options: ReplayOptions): Promise<ReplaySummary> {
  const since = options.sinceMs ?? null;
  return run(options, {
    select: ({ at }) => since === null || Date.parse(at) >= since,
    partial: since !== null,
    admits: () => true,
    starts: () => undefined,
  });
}

/** Attempts a day's file gets by itself, and the wait after the first, which doubles. */
const MAX_ATTEMPTS = 5;
const FIRST_WAIT_MS = 60_000;
/** Attempts of files that are older are forgotten. */
const FORGET_MS = 14 * 86_400_000;

export interface HealingOptions extends ReplayOptions {
  maxAttempts?: number;
  firstWaitMs?: number;
  now?: number;
}

const attemptsShape = z.record(z.string(), z.object({ attempts: z.number(), last_at: z.number() }));

/**
 * Replays only letters whose cause may have passed by itself. What has not passed comes back from the store as a letter of the day, so
 * attempts are counted by kind and day, in `data/state/deadletter.json`, before anything is published.
 */
export function replayHealing(options: HealingOptions): Promise<ReplaySummary> {
  const { maxAttempts = MAX_ATTEMPTS, firstWaitMs = FIRST_WAIT_MS, now = Date.now() } = options;
  const since = options.sinceMs ?? null;
  const path = join(options.dataDir, 'state', 'deadletter.json');
  const known = attemptsShape.safeParse(readJson(path)).data ?? {};
  const begun = new Set<string>();
  return run(options, {
    select: ({ at, reason }) => causeOf(reason).heals && (since === null || Date.parse(at) >= since),
    partial: true,
    admits: (file) => {
      const before = known[attemptKey(file)];
      // Several files of one day are one attempt.
      if (before === undefined || begun.has(attemptKey(file))) return true;
      return before.attempts < maxAttempts && now >= before.last_at + firstWaitMs * 2 ** (before.attempts - 1);
    },
    starts: (file) => {
      const key = attemptKey(file);
      if (begun.has(key)) return;
      begun.add(key);
      known[key] = { attempts: (known[key]?.attempts ?? 0) + 1, last_at: now };
      const kept = Object.entries(known).filter(([, each]) => now - each.last_at < FORGET_MS);
      writeJsonAtomic(path, Object.fromEntries(kept));
    },
  });
}

function attemptKey({ kind, base }: LetterFile): string {
  return `${kind}/${stemOf(base)}`;
}

/** `DAY` of `DAY.ndjson` and `DAY.1.ndjson`. */
function stemOf(base: string): string {
  return base.replace(/(?:\.\d+)*\.ndjson$/, '');
}

async function run(options: ReplayOptions, choice: Choice): Promise<ReplaySummary> {
  const { dataDir, nats, kinds } = options;
  const summary: ReplaySummary = { files: 0, replayed: 0, bad: 0, refused: 0, left: 0, postponed: 0 };
  if (!existsSync(deadletterRoot(dataDir))) return summary;
  const lock = nats === null ? null : await takeLock(dataDir, 'deadletter');
  const sender = nats === null ? null : new Sender(nats, options);
  try {
    const chosen: LetterFile[] = [];
    let total = 0;
    for (const file of letterFiles(dataDir, kinds)) {
      const found = await survey(file, options, choice);
      const isMeant = !choice.partial || found.replayed > 0;
      if (isMeant && choice.admits(file)) {
        chosen.push(file);
        total += found.replayed;
        if (sender === null) addTo(summary, found);
      } else {
        summary.left += found.replayed + found.left;
        if (isMeant) summary.postponed += 1;
      }
    }
    if (sender !== null) {
      for (const file of chosen) {
        choice.starts(file);
        await replayFile(file, options, choice, sender, summary, total);
      }
    }
    return summary;
  } finally {
    sender?.close();
    await lock?.release();
  }
}

type Counts = Pick<ReplaySummary, 'replayed' | 'bad' | 'refused' | 'left'>;

function addTo(summary: ReplaySummary, counts: Counts): void {
  summary.files += 1;
  for (const name of ['replayed', 'bad', 'refused', 'left'] as const) summary[name] += counts[name];
}

/** What a replay of the file would do. */
async function survey(file: LetterFile, { mode, nats, onBad }: ReplayOptions, choice: Choice): Promise<Counts> {
  const counts: Counts = { replayed: 0, bad: 0, refused: 0, left: 0 };
  for await (const line of linesOf(join(file.directory, file.name))) {
    const judged = judge(line, file.kind, mode);
    if ('bad' in judged) {
      counts.bad += 1;
      if (nats === null) onBad?.(file, line.number, judged.bad);
    } else if (!choice.select(judged.letter)) counts.left += 1;
    else if (judged.refused) counts.refused += 1;
    else counts.replayed += 1;
  }
  return counts;
}

/**
 * Publishes a file's letters, and moves it to `done/` once all are acknowledged.
 *
 * It is renamed first, so that what the store appends meanwhile begins a new file; a store that had it open writes its letters again
 * (see `appendDeadLetters`), so nothing that comes after our reading is needed. Under its new name the file is found again after a
 * crash. What is not meant goes to `.rest` first, which counts from the moment that the file is in `done/`: before, the file itself has it.
 */
async function replayFile(
  file: LetterFile,
  options: ReplayOptions,
  choice: Choice,
  sender: Sender,
  summary: ReplaySummary,
  total: number,
): Promise<void> {
  const { kind, directory, base } = file;
  const name = claim(file);
  const rest = new LineFile(join(directory, `${name}.rest`));
  const bad = new LineFile(join(directory, `${base}.bad`));
  // Of a replay that did not end.
  rmSync(rest.path, { force: true });
  bad.readKnown();
  const counts: Counts = { replayed: 0, bad: 0, refused: 0, left: 0 };
  let published = 0;
  const before = sender.stored;
  for await (const line of linesOf(join(directory, name))) {
    const judged = judge(line, kind, options.mode);
    const fault = 'bad' in judged ? judged.bad : sender.sizeFault(judged.letter.row);
    if (fault !== null) {
      counts.bad += 1;
      bad.add(Buffer.concat([Buffer.from(`${line.number}\t${fault.replace(/\s+/g, ' ')}\t`), line.bytes]));
      options.onBad?.({ ...file, name }, line.number, fault);
    } else if ('bad' in judged) continue;
    else if (!choice.select(judged.letter)) {
      counts.left += 1;
      rest.add(line.bytes);
    } else if (judged.refused) counts.refused += 1;
    else {
      published += 1;
      await sender.send(judged.letter, `${kind}/${encodeURIComponent(base)}:${line.number}`);
      options.onProgress?.({ ...summary, replayed: summary.replayed + sender.stored - before }, total);
    }
  }
  await sender.settled();
  counts.replayed = published;
  bad.close();
  rest.close();
  syncDirectory(directory);
  const done = join(directory, 'done');
  mkdirSync(done, { recursive: true });
  const whole = base.slice(0, -'.ndjson'.length);
  renameSync(
    join(directory, name),
    join(
      done,
      freeName(done, 0, (n) => `${whole}${n === 0 ? '' : `.${n}`}.ndjson`),
    ),
  );
  syncDirectory(done);
  // A number of its own: the day's name is the store's, which may make that file at this moment.
  if (counts.left > 0) {
    renameSync(
      rest.path,
      join(
        directory,
        freeName(directory, 1, (n) => `${stemOf(base)}.${n}.ndjson`),
      ),
    );
  }
  syncDirectory(directory);
  addTo(summary, counts);
  options.onProgress?.(summary, total);
}

/** Takes a file for a replay, unless one has already. @returns its name from now on */
function claim({ directory, name, base }: LetterFile): string {
  if (/\.replaying-[\d-]+$/.test(name)) return name;
  const claimed = freeName(directory, 0, (n) => `${base}.replaying-${process.pid}${n === 0 ? '' : `-${n}`}`);
  renameSync(join(directory, name), join(directory, claimed));
  syncDirectory(directory);
  return claimed;
}

/** The first name that nothing has. Only replays make such names, and the lock lets one of them run. */
function freeName(directory: string, first: number, nameOf: (n: number) => string): string {
  for (let n = first; ; n++) {
    const taken = existsSync(join(directory, nameOf(n))) || existsSync(join(directory, `${nameOf(n)}.rest`));
    if (!taken) return nameOf(n);
  }
}

/** Lines put aside, each once, opened with the first. */
class LineFile {
  private file: number | null = null;
  private known = new Set<string>();
  private isTorn = false;

  constructor(readonly path: string) {}

  /** What an earlier replay has put aside is not put aside again. */
  readKnown(): void {
    if (!existsSync(this.path)) return;
    const lines = readFileSync(this.path, 'latin1').split('\n');
    this.isTorn = lines.pop() !== '';
    this.known = new Set(lines);
  }

  add(bytes: Buffer): void {
    if (this.known.has(bytes.toString('latin1'))) return;
    if (this.file === null) {
      this.file = openSync(this.path, 'a');
      if (this.isTorn) writeFileSync(this.file, '\n');
    }
    writeFileSync(this.file, Buffer.concat([bytes, Buffer.from('\n')]));
  }

  close(): void {
    if (this.file === null) return;
    fsyncSync(this.file);
    closeSync(this.file);
  }
}

/** Publishes with a bounded number of messages open, and gives up when the broker has gone. */
class Sender {
  private readonly publisher: Publisher;
  /** The attempt: each run's messages have ids of their own, or the broker would take them for copies of an earlier one's. */
  private readonly boot = `deadletter-${randomBytes(6).toString('hex')}`;
  private progressAt = 0;
  stored = 0;

  constructor(
    private readonly nats: NatsConnection,
    { mode, log }: ReplayOptions,
  ) {
    this.publisher = new Publisher(
      {
        mode,
        boot: this.boot,
        // Not known: who received the rows was another process.
        startedAt: 0,
        maxInFlight: MAX_IN_FLIGHT,
        maxInFlightBytes: MAX_IN_FLIGHT_BYTES,
        ackTimeoutMs: ACK_TIMEOUT_MS,
        onStored: () => {
          this.stored += 1;
          this.progressAt = steadyNow();
        },
        log,
      },
      nats,
    );
  }

  /** A message beyond its limit makes the broker close the connection. */
  sizeFault(row: string): string | null {
    const limit = (this.nats.info?.max_payload ?? 2 ** 20) - HEADER_BYTES;
    const bytes = Buffer.byteLength(row);
    return bytes > limit ? `a row of ${bytes} bytes, the broker takes ${limit}` : null;
  }

  async send({ subject, row }: KeptLetter, origin: string): Promise<void> {
    if (this.publisher.waitingMessages === 0) this.progressAt = steadyNow();
    const digest = createHash('md5').update(row).digest('base64url');
    const message: OutgoingMessage = {
      subject,
      payload: Buffer.from(row),
      rows: row.trimEnd().split('\n').length,
      // The digest is of the whole row, keys included: a poison row's keys may not be readable.
      id: `${subject}:${digest}:${origin}:${this.boot}`,
    };
    this.publisher.push(message);
    await this.until(MAX_WAITING);
  }

  settled(): Promise<void> {
    return this.until(0);
  }

  close(): void {
    this.publisher.close();
  }

  private async until(atMost: number): Promise<void> {
    while (this.publisher.waitingMessages > atMost) {
      if (steadyNow() - this.progressAt > STALLED_MS) {
        const { lastError, isConnected } = this.publisher;
        const why = !isConnected ? 'the broker is away' : (lastError ?? 'the broker does not answer');
        throw new OperatorError(`${why}: ${this.stored} rows were replayed; run replay again, it goes on there`, 3);
      }
      await pause(5);
    }
  }
}
