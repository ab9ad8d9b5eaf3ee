/**
 * Letters of the store, published again: by somebody who has mended their cause, or by the store itself when the cause may have passed.
 * Each goes to the broker, and comes to the store as any other row. A file has a name of its own while it is replayed, and is in `done/`
 * once all is acknowledged, so that a replay may be killed at any moment. What letters are, and where they lie, is in `deadletter.ts`.
 */
import { randomBytes } from 'node:crypto';
import {
  closeSync,
  existsSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import type { NatsConnection } from 'nats';
import { z } from 'zod';
import { OperatorError } from './cli.ts';
import { causeOf, deadletterRoot, type KeptLetter, type LetterFile, letterFiles, readLetter } from './deadletter.ts';
import { readJson, syncDirectory, writeJsonAtomic } from './files.ts';
import { type Line, linesOf } from './jsonl.ts';
import { takeLock } from './lock.ts';
import type { Logger } from './log.ts';
import { pause } from './pause.ts';
import { type OutgoingMessage, Publisher } from './publisher.ts';
import { type DataType, EXCHANGES, MARKET_TYPES } from './rows.ts';
import { steadyNow } from './steady.ts';
import { parseSubject, subjectOf } from './streams.ts';

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
  /** Names this replay in the headers of its messages. */
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
    const message: OutgoingMessage = {
      subject,
      payload: Buffer.from(row),
      rows: row.trimEnd().split('\n').length,
      id: `${subject}:${origin}`,
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
