/** What the processes log while they run: errors, turns that failed, and the rounds of the correlation alerter. */
import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';

/** So much of a log is read at once. */
const CHUNK_BYTES = 2 ** 20;
/** Of a problem that is told. */
const SHOWN_CHARACTERS = 240;
const ERROR_LEVELS = new Set(['error', 'fatal']);
/** nats-server's own way to say so. */
const BROKER_ERROR = /\[(ERR|FTL)\]/;
const BROKER_LINE = /^\[\d+\] \d{4}\/\d\d\/\d\d /;
/** Node warns of what it may change; that is no fault of a run. */
const NODE_WARNING = /^\(node:\d+\)|^\(Use `node /;

const LINE = z.looseObject({ level: z.string(), event: z.string().optional(), time: z.string().optional() });

const ROUND = z.looseObject({
  event: z.literal('round'),
  time: z.string(),
  seconds: z.number(),
  compute_seconds: z.number(),
  coins: z.number().int(),
  cache_hit_rate: z.number().nullable(),
  btc_age_seconds: z.number().nullable(),
});

/** One round of the correlation alerter. */
export interface Round {
  /** Its end, ms since the epoch; how long it took, s; of that, reading candles from the database and computing. */
  at: number;
  seconds: number;
  computeSeconds: number;
  coins: number;
  /** Share of the series that needed no request; null: there was none. */
  hitRate: number | null;
  /** Of the newest candle of BTC, when the round was over; null: there was none. */
  btcAgeSeconds: number | null;
}

/** What a piece of a log says. */
export interface LogFigures {
  /** Lines of level error and above, and turns that failed. */
  errors: number;
  rounds: Round[];
  /** The errors as text, of which some may be the same. */
  texts: string[];
}

/** The pure part: takes the lines of one process as they come. */
export class LogReader {
  /** Several lines of a stack trace, or of whatever else a process wrote that is no log, are one error. */
  private isInText = false;

  read(lines: readonly string[]): LogFigures {
    const figures: LogFigures = { errors: 0, rounds: [], texts: [] };
    for (const line of lines) this.take(line, figures);
    return figures;
  }

  private take(line: string, figures: LogFigures): void {
    if (line.trim() === '') return;
    const isText = !line.startsWith('{') && !BROKER_LINE.test(line);
    const isNew = !(isText && this.isInText);
    this.isInText = isText && !NODE_WARNING.test(line);
    if (isText ? isNew && this.isInText : isError(line)) {
      figures.errors += 1;
      figures.texts.push(textOf(line));
    }
    const round = isText ? null : roundOf(line);
    if (round !== null) figures.rounds.push(round);
  }
}

function isError(line: string): boolean {
  const parsed = parsedLine(line);
  if (parsed === null) return BROKER_ERROR.test(line);
  // A turn that threw is told by a line of its own, and then as not done: it is one.
  if (parsed.event === 'turn_failed') return false;
  return parsed.event === 'not_done' || ERROR_LEVELS.has(parsed.level);
}

function parsedLine(line: string): z.infer<typeof LINE> | null {
  try {
    return LINE.safeParse(JSON.parse(line)).data ?? null;
  } catch (error) {
    if (error instanceof SyntaxError) return null;
    throw error;
  }
}

function textOf(line: string): string {
  const parsed = parsedLine(line);
  if (parsed === null) return line.slice(0, SHOWN_CHARACTERS);
  const { level: _level, service: _service, time: _time, event, ...rest } = parsed;
  return `${event ?? ''} ${JSON.stringify(rest)}`.trim().slice(0, SHOWN_CHARACTERS);
}

function roundOf(line: string): Round | null {
  const { data } = ROUND.safeParse(parsedLine(line));
  if (data === undefined) return null;
  return {
    ...{ at: Date.parse(data.time), seconds: data.seconds, computeSeconds: data.compute_seconds, coins: data.coins },
    ...{ hitRate: data.cache_hit_rate, btcAgeSeconds: data.btc_age_seconds },
  };
}

/** Follows the log of one process from its beginning, by whole lines. */
export class LogTail {
  private offset = 0;
  private inode: number | null = null;
  private rest = Buffer.alloc(0);
  private readonly reader = new LogReader();
  private readonly path: string;

  constructor(directory: string, name: string) {
    this.path = join(directory, `${name}.log`);
  }

  /** What was added since the last time. @throws when the file cannot be read */
  read(): LogFigures {
    const figures: LogFigures = { errors: 0, rounds: [], texts: [] };
    for (const chunk of this.chunks()) {
      const bytes = Buffer.concat([this.rest, chunk]);
      const end = bytes.lastIndexOf('\n') + 1;
      this.rest = bytes.subarray(end);
      const { errors, rounds, texts } = this.reader.read(bytes.toString('utf8', 0, end).split('\n'));
      figures.errors += errors;
      figures.rounds.push(...rounds);
      figures.texts.push(...texts);
    }
    return figures;
  }

  private *chunks(): Generator<Buffer> {
    const file = this.opened();
    if (file === null) return;
    try {
      const { size, ino } = fstatSync(file);
      // Another file has the name now, and is read from its beginning.
      if (this.inode !== ino) this.offset = 0;
      this.inode = ino;
      while (this.offset < size) {
        const chunk = Buffer.alloc(Math.min(CHUNK_BYTES, size - this.offset));
        const length = readSync(file, chunk, 0, chunk.length, this.offset);
        if (length === 0) return;
        this.offset += length;
        yield chunk.subarray(0, length);
      }
    } finally {
      closeSync(file);
    }
  }

  /** @returns null: the process has logged nothing yet */
  private opened(): number | null {
    try {
      return openSync(this.path, 'r');
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
      throw error;
    }
  }
}
