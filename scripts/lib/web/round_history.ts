/** Rounds of checks as monitor.ts keeps them, a file a day: their heads in memory, the rest read where it lies. They outlive the monitor. */
import { readdirSync } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { SEVERITIES } from '../checks/check.ts';
import { DEPTHS } from '../checks/round.ts';
import { WebError } from './route.ts';

const LINE_FEED = 0x0a;
const DAY_MS = 86_400_000;
const DAY_FILE = /^monitoring_(\d{4})(\d\d)(\d\d)\.jsonl$/;

const VERDICTS = ['healthy', 'degraded', 'unhealthy', 'unchecked'] as const;
const moment = z.iso.datetime().transform((text) => Date.parse(text));

const FINDING = z.object({
  kind: z.string(),
  subject: z.string(),
  what: z.string(),
  severity: z.enum(SEVERITIES),
  evidence: z.string(),
});
const CHECK = z.object({
  name: z.string(),
  question: z.string(),
  fix: z.string(),
  repairs: z.array(z.string()).optional(),
  limit: z.string(),
  verdict: z.enum([...VERDICTS, 'not applicable']),
  figure: z.string(),
  findings: z.array(FINDING),
  ms: z.number(),
});
const COVERAGE = z.object({
  ...{ exchange: z.string(), market_type: z.string(), data_type: z.string() },
  ...{ hot: z.number(), cold: z.number(), missing: z.number(), uncounted: z.number() },
  completeness: z.number().nullable(),
  newest: z.number().nullable(),
});
/** A line, as `ShownRound` of the monitor is written. */
export const KEPT_ROUND = z.object({
  id: z.string(),
  type: z.enum(DEPTHS),
  asked_by: z.enum(['schedule', 'api']),
  began: moment,
  ms: z.number(),
  status: z.enum(VERDICTS),
  exit_code: z.number(),
  from: moment,
  to: moment,
  completeness: z.number().nullable(),
  coverage: z.array(COVERAGE).nullable(),
  checks: z.array(CHECK),
  news: z.array(z.object({ event: z.string(), fingerprint: z.string() })),
});
export type KeptRound = z.infer<typeof KEPT_ROUND>;

/** As much of a line as is needed for its head: there are thousands of them. */
const KEPT_HEAD = KEPT_ROUND.omit({ exit_code: true, coverage: true }).extend({
  checks: z.array(
    z.object({ verdict: CHECK.shape.verdict, findings: z.array(z.object({ severity: FINDING.shape.severity })) }),
  ),
});

/** What is in memory of a round. */
export const ROUND_HEAD = z.object({
  id: z.string(),
  type: z.enum(DEPTHS),
  asked_by: z.enum(['schedule', 'api']),
  began: z.number(),
  ms: z.number().describe('How long it took.'),
  status: z.enum(VERDICTS),
  from: z.number(),
  to: z.number(),
  completeness: z.number().nullable().describe('Rows stored of rows expected, percent.'),
  findings: z.record(z.enum(SEVERITIES), z.number()),
  unchecked: z.number().describe('Checks that could not be asked.'),
  raised: z.number().describe('Alerts that it raised, or that got worse.'),
});
export type RoundHead = z.infer<typeof ROUND_HEAD>;

interface Place {
  head: RoundHead;
  offset: number;
  length: number;
}

interface Day {
  path: string;
  /** When it begins, UTC, ms. */
  at: number;
  ino: number;
  /** Bytes that were read: whole lines. */
  end: number;
  rounds: Place[];
  /** Lines that are no round. */
  bad: number;
}

export class RoundHistory {
  private readonly days = new Map<string, Day>();
  private tail: Promise<unknown> = Promise.resolve();

  /** @param directory of the files */
  constructor(private readonly directory: string) {}

  /** Heads of the rounds that began in a span, the oldest first, and how many lines there are no round. @param from ms @param to ms */
  async between(from: number, to: number): Promise<{ rounds: RoundHead[]; bad: number }> {
    const days = await this.look(from, to);
    const heads = days.flatMap(({ rounds }) => rounds.map(({ head }) => head));
    const rounds = heads.filter(({ began }) => began >= from && began <= to).sort((one, two) => one.began - two.began);
    return { rounds, bad: days.reduce((sum, { bad }) => sum + bad, 0) };
  }

  /** A whole round. @param id as the monitor names it: the time that it looked up to, and a number @returns null when there is none */
  async round(id: string): Promise<KeptRound | null> {
    const at = Number(/^(\d{12,14})-\d+$/.exec(id)?.[1] ?? Number.NaN);
    if (Number.isNaN(at)) return null;
    for (const day of await this.look(at, at)) {
      const place = day.rounds.find(({ head }) => head.id === id);
      if (place === undefined) continue;
      const bytes = await readAt(day.path, place.offset, place.length);
      if (parse(bytes, KEPT_HEAD)?.id !== id) throw new WebError(503, 'a file is being replaced: ask again');
      const round = parse(bytes, KEPT_ROUND);
      if (round === null) throw new WebError(500, `the line of round ${id} is damaged`);
      return round;
    }
    return null;
  }

  /** Days of a span, read as far as they are written. One look after the other: each goes on where the one before it ended. */
  private look(from: number, to: number): Promise<Day[]> {
    const looked = this.tail.then(async () => {
      const days: Day[] = [];
      for (const { name, at } of filesIn(this.directory)) {
        if (at + DAY_MS <= from || at > to) continue;
        days.push(await this.take(name, at));
      }
      return days;
    });
    this.tail = looked.catch(() => null);
    return looked;
  }

  private async take(name: string, at: number): Promise<Day> {
    const path = join(this.directory, name);
    const file = await open(path, 'r');
    try {
      const { ino, size } = await file.stat();
      let day = this.days.get(name);
      // Another file, or one that was cut: nothing that is known of it counts.
      if (day === undefined || day.ino !== ino || size < day.end) {
        day = { path, at, ino, end: 0, rounds: [], bad: 0 };
        this.days.set(name, day);
      }
      if (size > day.end) takeLines(day, await bytesOf(file, day.end, size - day.end));
      return day;
    } finally {
      await file.close();
    }
  }
}

/** Oldest first. */
function filesIn(directory: string): { name: string; at: number }[] {
  let names: string[];
  try {
    names = readdirSync(directory);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw error;
  }
  return names
    .flatMap((name) => {
      const [, year, month, day] = DAY_FILE.exec(name) ?? [];
      return year === undefined ? [] : [{ name, at: Date.UTC(Number(year), Number(month) - 1, Number(day)) }];
    })
    .sort((one, other) => one.at - other.at);
}

/** A last line without an end is being written. */
function takeLines(day: Day, bytes: Buffer): void {
  let start = 0;
  for (let end = bytes.indexOf(LINE_FEED); end >= 0; end = bytes.indexOf(LINE_FEED, start)) {
    const line = bytes.subarray(start, end);
    const round = parse(line, KEPT_HEAD);
    if (round !== null) day.rounds.push({ head: headOf(round), offset: day.end + start, length: line.length });
    else if (line.length > 0) day.bad += 1;
    start = end + 1;
  }
  day.end += start;
}

function headOf(round: z.infer<typeof KEPT_HEAD>): RoundHead {
  const { id, type, asked_by, began, ms, status, from, to, completeness, checks, news } = round;
  const findings = Object.fromEntries(SEVERITIES.map((each) => [each, 0])) as RoundHead['findings'];
  for (const check of checks) for (const { severity } of check.findings) findings[severity] += 1;
  return {
    ...{ id, type, asked_by, began, ms, status, from, to, completeness, findings },
    unchecked: checks.filter(({ verdict }) => verdict === 'unchecked').length,
    raised: news.filter(({ event }) => event === 'raised' || event === 'escalated').length,
  };
}

function parse<T>(line: Buffer, schema: z.ZodType<T>): T | null {
  try {
    return schema.safeParse(JSON.parse(line.toString())).data ?? null;
  } catch (error) {
    // Damaged: it is counted, and told with the list.
    if (error instanceof SyntaxError) return null;
    throw error;
  }
}

async function readAt(path: string, offset: number, length: number): Promise<Buffer> {
  const file = await open(path, 'r');
  try {
    return await bytesOf(file, offset, length);
  } finally {
    await file.close();
  }
}

async function bytesOf(file: FileHandle, offset: number, length: number): Promise<Buffer> {
  const { buffer, bytesRead } = await file.read(Buffer.allocUnsafe(length), 0, length, offset);
  return buffer.subarray(0, bytesRead);
}
