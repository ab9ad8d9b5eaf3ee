const USAGE = `
deadletter.ts: rows that could not be stored: what there is, why, and storing them after all.

Usage:   npx tsx scripts/deadletter.ts list [--kind K] [--since TIME] [--json]
         npx tsx scripts/deadletter.ts explain [FILE[:LINE]]
         npx tsx scripts/deadletter.ts replay [--kind K] [--since TIME] [--healing] [--dry-run]
Example: npx tsx scripts/deadletter.ts explain trade/2026-11-23.ndjson:3
         npx tsx scripts/deadletter.ts replay --kind trade --since 2h --dry-run

Commands:
  list      the files under data/deadletter, with their reasons. Exit code: 0 there is none, 1 there are some, 3 they cannot be
            read
  explain   one letter in full (without a line the first, without a file the newest): cause, whether it heals, what to do
  replay    publishes the letters again; the store stores each row once, however often it comes. A file whose rows JetStream has
            acknowledged goes to done/; a line that is no letter is kept in FILE.bad with its number. What the table still
            refuses comes back as a new letter. Stopped at any moment, the next replay goes on.
            Letters of the harvest need no broker: each row goes into the file and the table that lack it, once. While the harvester
            of an exchange runs it does this itself: within a minute for new letters and for a file that somebody mended.
            Exit code: 0 done; 1 there were bad lines, letters of the other mode, which are never replayed, or rows that a table of
            the harvest still refuses; 3 no broker, no database, or a harvester that runs

Flags:
  --kind K      only this data type (trade, orderbook, …), or kind of the harvest (prices, orderbook, ofi, cvd, fusion, events,
                features); orderbook is both
  --since TIME  only letters of this time and later: 2h, 30m, or 2026-11-23T08:00:00Z
  --healing     only letters whose cause may have passed by itself, such as a table without a new column (at most 5 times a day), or
                for the harvest a database that was away or a disk that was full
  --dry-run     tell what would be replayed; changes nothing
  --json        tell as JSON
`;

import { existsSync, realpathSync, statSync } from 'node:fs';
import { basename, join, relative, sep } from 'node:path';
import type { NatsConnection } from 'nats';
import { duration, flags, OperatorError, runAsScript, UsageError, wholeNumber } from './lib/cli.ts';
import { createClickHouse, hotServer } from './lib/clickhouse.ts';
import { type Config, loadConfig, shownUrl } from './lib/config.ts';
import {
  badFiles,
  type Cause,
  causeOf,
  deadletterRoot,
  HARVEST_LETTER_FILE,
  type KeptLetter,
  type LetterFile,
  letterFiles,
  readLetter,
  shortReason,
} from './lib/deadletter.ts';
import { type ReplayOptions, type ReplaySummary, replayHealing, replayLetters } from './lib/deadletter_replay.ts';
import { HARVEST_KINDS, type HarvestKind } from './lib/harvest/kinds.ts';
import {
  badHarvestFiles,
  harvestCauseOf,
  harvestLetterFiles,
  type KeptHarvestLetter,
  readHarvestLetter,
} from './lib/harvest/letters.ts';
import { type HarvestReplay, replayHarvest } from './lib/harvest/letters_replay.ts';
import { connectNats } from './lib/jetstream.ts';
import { linesOf } from './lib/jsonl.ts';
import { createLogger } from './lib/log.ts';
import { Progress } from './lib/progress.ts';
import { DATA_TYPES, type DataType } from './lib/rows.ts';

const COMMANDS = ['list', 'explain', 'replay'] as const;
type Command = (typeof COMMANDS)[number];
/** A command is not for waiting on a broker. */
const CONNECT_MS = 4000;
const EXIT_NOT_ASKED = 3;
/** Bad lines are told one by one up to here, then counted; all are in the .bad file. */
const TOLD_BAD = 10;
const SIGNALS = ['SIGINT', 'SIGTERM'] as const;
const NO_LETTERS = 'no letters: everything that was accepted is stored or on its way';

const OPTIONS = {
  kind: { type: 'string' },
  since: { type: 'string' },
  json: { type: 'boolean', default: false },
  healing: { type: 'boolean', default: false },
  'dry-run': { type: 'boolean', default: false },
} as const;
/** Which command takes which flag. */
const TAKEN: Record<Command, string[]> = {
  list: ['kind', 'since', 'json'],
  explain: [],
  replay: ['kind', 'since', 'healing', 'dry-run', 'json'],
};

interface Asked {
  command: Command;
  kinds: DataType[];
  harvestKinds: HarvestKind[];
  sinceMs: number | null;
  json: boolean;
  healing: boolean;
  dryRun: boolean;
  /** FILE[:LINE] of explain. */
  place: string | null;
}

function readArguments(argv: string[], now: number): Asked {
  const rest = [...argv];
  const command = rest[0] as Command;
  const isCommand = COMMANDS.includes(command);
  if (isCommand) rest.shift();
  const place = command === 'explain' && rest[0] !== undefined && !rest[0].startsWith('-') ? rest.shift()! : null;
  const options = flags(USAGE, OPTIONS, rest);
  if (!isCommand) throw new UsageError(`one of ${COMMANDS.join(', ')} comes first (--help tells more)`);
  for (const [name, value] of Object.entries(options)) {
    if (value !== undefined && value !== false && !TAKEN[command].includes(name))
      throw new UsageError(`--${name} does not belong to ${command} (--help tells more)`);
  }
  const { kind } = options;
  const all = [...new Set<string>([...DATA_TYPES, ...HARVEST_KINDS])];
  if (kind !== undefined && !all.includes(kind))
    throw new UsageError(`--kind takes one of ${all.join(', ')}, not "${kind}"`);
  return {
    command,
    kinds: DATA_TYPES.filter((each) => kind === undefined || each === kind),
    harvestKinds: HARVEST_KINDS.filter((each) => kind === undefined || each === kind),
    sinceMs: options.since === undefined ? null : sinceTime(options.since, now),
    json: options.json,
    healing: options.healing,
    dryRun: options['dry-run'],
    place,
  };
}

/** A time, or a span before `now`, as ms since the epoch. */
export function sinceTime(text: string, now: number): number {
  const time = /^\d{4}-\d\d-\d\d/.test(text) ? Date.parse(text) : Number.NaN;
  if (!Number.isNaN(time)) return time;
  try {
    return now - duration('--since', text);
  } catch {
    throw new UsageError(
      `--since takes a span such as 30m or 2h, or a time such as 2026-11-23T08:00:00Z, not "${text}"`,
    );
  }
}

// ------------------------------------------------------------------------------------------------------------------ list

/** A file of either sort. */
interface AnyFile {
  kind: DataType | HarvestKind;
  directory: string;
  name: string;
}

/** The letter on a line, or why there is none: what a file is called says whose letters it has. */
function letterIn(name: string, bytes: Buffer): KeptLetter | KeptHarvestLetter | string {
  return HARVEST_LETTER_FILE.test(name) ? readHarvestLetter(bytes) : readLetter(bytes);
}

function causeIn(name: string, reason: string): Cause {
  return HARVEST_LETTER_FILE.test(name) ? harvestCauseOf(reason) : causeOf(reason);
}

interface FileFigures {
  kind: DataType | HarvestKind;
  file: string;
  rows: number;
  bad: number;
  first: string | null;
  last: string | null;
  reasons: { reason: string; cause: string; heals: boolean; rows: number }[];
}

async function figuresOf({ kind, directory, name }: AnyFile, sinceMs: number | null): Promise<FileFigures> {
  const figures: FileFigures = { kind, file: name, rows: 0, bad: 0, first: null, last: null, reasons: [] };
  const path = join(directory, name);
  // A bad line tells no time: it counts where its file was written to since then.
  const isYoung = sinceMs === null || statSync(path).mtimeMs >= sinceMs;
  const counts = new Map<string, { cause: string; heals: boolean; rows: number }>();
  for await (const { bytes } of linesOf(path)) {
    const letter = name.endsWith('.bad') ? 'put aside' : letterIn(name, bytes);
    if (typeof letter === 'string') {
      if (isYoung) figures.bad += 1;
      continue;
    }
    if (sinceMs !== null && Date.parse(letter.at) < sinceMs) continue;
    figures.rows += 1;
    if (figures.first === null || letter.at < figures.first) figures.first = letter.at;
    if (figures.last === null || letter.at > figures.last) figures.last = letter.at;
    const reason = shortReason(letter.reason);
    const { name: cause, heals } = causeIn(name, letter.reason);
    const known = counts.get(reason);
    if (known) known.rows += 1;
    else counts.set(reason, { cause, heals, rows: 1 });
  }
  figures.reasons = [...counts].map(([reason, rest]) => ({ reason, ...rest })).sort((a, b) => b.rows - a.rows);
  return figures;
}

function listText(files: FileFigures[]): string {
  if (files.length === 0) return NO_LETTERS;
  const head = ['kind', 'file', 'rows', 'bad', 'first', 'last'];
  const time = (at: string | null) => at?.replace(/\.\d+Z$/, 'Z') ?? '-';
  const lines = files.map((each) =>
    [each.kind, each.file, each.rows, each.bad, time(each.first), time(each.last)].map(String),
  );
  const widths = head.map((title, i) => Math.max(title.length, ...lines.map((line) => line[i]!.length)));
  const show = (line: string[]) =>
    line
      .map((cell, i) => (i === 2 || i === 3 ? cell.padStart(widths[i]!) : cell.padEnd(widths[i]!)))
      .join('  ')
      .trimEnd();
  const out = [show(head)];
  for (const [i, { reasons }] of files.entries()) {
    out.push(show(lines[i]!));
    for (const { reason, rows, heals } of reasons) out.push(`    ${rows} × ${reason}${heals ? '  (may heal)' : ''}`);
  }
  const sum = (of: (file: FileFigures) => number) => files.reduce((total, each) => total + of(each), 0);
  out.push('', `${sum((each) => each.rows)} letters, ${sum((each) => each.bad)} bad lines in ${files.length} files`);
  out.push('explain FILE:LINE tells what to do about one; replay --dry-run what a replay would do');
  return out.join('\n');
}

async function list({ dataDir, mode }: Config, { kinds, harvestKinds, sinceMs, json }: Asked): Promise<number> {
  const files: FileFigures[] = [];
  const letters: AnyFile[] = [...letterFiles(dataDir, kinds), ...harvestLetterFiles(dataDir, harvestKinds)];
  const bad: AnyFile[] = [...badFiles(dataDir, kinds), ...badHarvestFiles(dataDir, harvestKinds)];
  for (const file of [...letters, ...bad]) {
    const figures = await figuresOf(file, sinceMs);
    if (figures.rows + figures.bad > 0) files.push(figures);
  }
  process.stdout.write(`${json ? JSON.stringify({ mode, files }) : listText(files)}\n`);
  return files.length === 0 ? 0 : 1;
}

// --------------------------------------------------------------------------------------------------------------- explain

/** The file that is meant, found below the deadletter, and its line; null when there is no letter at all. */
function placeOf({ dataDir }: Config, place: string | null): { path: string; line: number | null } | null {
  const root = deadletterRoot(dataDir);
  if (place === null) {
    const files: AnyFile[] = [...letterFiles(dataDir), ...harvestLetterFiles(dataDir)];
    const paths = files.map(({ directory, name }) => join(directory, name));
    const newest = paths.sort((a, b) => statSync(b).mtimeMs - statSync(a).mtimeMs)[0];
    return newest === undefined ? null : { path: newest, line: null };
  }
  const [, named, number] = /^(.*?)(?::(\d+))?$/s.exec(place)!;
  const line = number === undefined ? 1 : wholeNumber('the line', number, 1, Number.MAX_SAFE_INTEGER);
  const kinds = [...DATA_TYPES, ...HARVEST_KINDS];
  const candidates = [named!, join(root, named!), ...kinds.map((kind) => join(root, kind, named!))];
  const found = candidates
    .filter((each) => existsSync(each) && statSync(each).isFile())
    .map((each) => realpathSync(each));
  if (found.length === 0) throw new UsageError(`there is no file ${named} under ${root}`);
  const inside = [...new Set(found.filter((each) => each.startsWith(`${realpathSync(root)}${sep}`)))];
  if (inside.length === 0) throw new UsageError(`${named} is not under ${root}: only letters there are explained`);
  if (inside.length > 1)
    throw new UsageError(
      `${named} is ${inside.length} files: say which, such as ${relative(realpathSync(root), inside[0]!)}`,
    );
  return { path: inside[0]!, line };
}

async function explain(config: Config, { place }: Asked): Promise<number> {
  const wanted = placeOf(config, place);
  if (wanted === null) {
    process.stdout.write(`${NO_LETTERS}\n`);
    return 0;
  }
  let shown: { number: number; bytes: Buffer } | null = null;
  for await (const line of linesOf(wanted.path)) {
    if (wanted.line !== null && line.number > wanted.line) break;
    // Without a line the newest is meant, which is the last.
    if (wanted.line === null || line.number === wanted.line) shown = line;
  }
  const name = relative(realpathSync(deadletterRoot(config.dataDir)), realpathSync(wanted.path));
  if (shown === null) throw new UsageError(`${name} has no line ${wanted.line ?? ''}`.trimEnd());
  process.stdout.write(`${explanation(`${name}:${shown.number}`, shown.bytes)}\n`);
  return 0;
}

function explanation(place: string, bytes: Buffer): string {
  const file = basename(place).replace(/:\d+$/, '');
  const letter = letterIn(file, bytes);
  if (typeof letter === 'string') {
    return [place, `${letter}: a replay keeps it in the file's .bad with its number`, '', bytes.toString()].join('\n');
  }
  const { name, heals, advice } = causeIn(file, letter.reason);
  return [
    `${place}, ${letter.at}`,
    `reason   ${letter.reason.replace(/\s+/g, ' ').trim()}`,
    'sinks' in letter
      ? `lacks    ${letter.sinks.join(' and ')}, ${letter.kind} of ${letter.exchange}`
      : `subject  ${letter.subject}, epoch ${letter.js_epoch}, seq ${letter.js_seq}`,
    `cause    ${name}`,
    `heals    ${heals ? 'by a replay, once the cause has passed (replay --healing tries by itself)' : healsNot(name)}`,
    `to do    ${advice}`,
    'row',
    prettyRow(letter),
  ].join('\n');
}

function healsNot(cause: string): string {
  if (cause === 'other mode' || cause === 'no subject of ours') return 'never, and it is not replayed';
  return 'not by a replay alone: the same row would come back';
}

/** Members of a row on lines of their own, in its own text: parsing would round long ids. What is no JSON is shown as it is. */
export function prettyRow({ row }: Pick<KeptLetter, 'row'>): string {
  try {
    JSON.parse(row);
  } catch {
    return row;
  }
  let depth = 0;
  return row.replace(/"(?:[^"\\]|\\.)*"|[{}[\],:]/g, (token) => {
    if (token === '}' || token === ']') depth -= 1;
    const brace = depth === 0 && token === '}' ? '\n}' : token;
    if (token === '{' || token === '[') depth += 1;
    if (depth !== 1) return brace;
    return token === '{' || token === ',' ? `${token}\n  ` : token === ':' ? ': ' : brace;
  });
}

// ---------------------------------------------------------------------------------------------------------------- replay

async function reachBroker(config: Config, log: ReplayOptions['log']): Promise<NatsConnection> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, fail) => {
    const reason = `no broker answers at ${shownUrl(config.natsUrl)}: nothing was replayed (npm start brings one up)`;
    timer = setTimeout(() => fail(new OperatorError(reason, EXIT_NOT_ASKED)), CONNECT_MS);
  });
  try {
    return await Promise.race([connectNats(config.natsUrl, 'deadletter', log), late]);
  } catch (error) {
    if (error instanceof OperatorError) throw error;
    const reason = `the broker at ${shownUrl(config.natsUrl)} refuses: ${(error as Error).message}`;
    throw new OperatorError(reason, EXIT_NOT_ASKED);
  } finally {
    clearTimeout(timer);
  }
}

async function replay(config: Config, asked: Asked): Promise<number> {
  const { dataDir, mode } = config;
  const { json, dryRun } = asked;
  const ofStore = letterFiles(dataDir, asked.kinds).length > 0;
  const ofHarvest = harvestLetterFiles(dataDir, asked.harvestKinds).length > 0;
  if (!ofStore && !ofHarvest) {
    process.stdout.write(
      json ? `${JSON.stringify({ mode, dry_run: dryRun, store: null, harvest: null })}\n` : 'nothing to replay\n',
    );
    return 0;
  }
  const told = new Told(json);
  // First what needs no broker.
  const harvest = ofHarvest ? await replayOfHarvest(config, asked, told) : null;
  if (harvest !== null && !json) process.stdout.write(`${harvestText(harvest, dryRun)}\n`);
  const store = ofStore ? await replayOfStore(config, asked, told) : null;
  if (store !== null && !json) process.stdout.write(`${summaryText(store, mode, dryRun)}\n`);
  if (json) process.stdout.write(`${JSON.stringify({ mode, dry_run: dryRun, store, harvest })}\n`);
  if (harvest !== null && harvest.busy > 0) return EXIT_NOT_ASKED;
  const faults = [store?.bad, store?.refused, harvest?.bad, harvest?.refused];
  return faults.some((count) => (count ?? 0) > 0) ? 1 : 0;
}

/** Bad lines as they are met, beside a bar. */
class Told {
  readonly progress: Progress;
  private count = 0;

  /** @param json its text is alone on stdout */
  constructor(json: boolean) {
    this.progress = new Progress(json ? process.stderr : process.stdout);
  }

  bad(file: string, line: number, why: string): void {
    this.progress.clear();
    if (++this.count <= TOLD_BAD) process.stderr.write(`bad line: ${file}:${line}: ${why}\n`);
  }
}

async function replayOfStore(
  config: Config,
  { kinds, sinceMs, healing, dryRun }: Asked,
  told: Told,
): Promise<ReplaySummary> {
  const { dataDir, mode } = config;
  // What goes wrong is told here, in words.
  const log = createLogger('deadletter', process.env.LOG_LEVEL ?? 'silent');
  const nats = dryRun ? null : await reachBroker(config, log);
  const { progress } = told;
  const onBad = (file: LetterFile, line: number, why: string) => told.bad(`${file.kind}/${file.base}`, line, why);
  try {
    const replayThem = healing ? replayHealing : replayLetters;
    const startedAt = Date.now();
    const onProgress = ({ replayed }: Readonly<ReplaySummary>, total: number) => {
      const rate = Math.round(replayed / Math.max((Date.now() - startedAt) / 1000, 1));
      progress.show(total === 0 ? 1 : replayed / total, `${replayed} of ${total} (${rate}/s)`);
    };
    return await replayThem({ dataDir, mode, kinds, sinceMs, nats, log, onBad, onProgress });
  } finally {
    progress.clear();
    await nats?.close();
  }
}

async function replayOfHarvest(
  config: Config,
  { harvestKinds, sinceMs, healing, dryRun }: Asked,
  told: Told,
): Promise<HarvestReplay> {
  const client = createClickHouse(hotServer(config), 'marketprism-deadletter');
  const stop = new AbortController();
  const onSignal = () => stop.abort(new OperatorError('stopped: run replay again, it goes on there'));
  for (const signal of SIGNALS) process.on(signal, onSignal);
  try {
    return await replayHarvest({
      dataDir: config.dataDir,
      client,
      database: config.signalsDatabase,
      log: createLogger('deadletter', process.env.LOG_LEVEL ?? 'silent'),
      stop: stop.signal,
      kinds: harvestKinds,
      dryRun,
      select: ({ at, reason }) =>
        (sinceMs === null || Date.parse(at) >= sinceMs) && (!healing || harvestCauseOf(reason).heals),
      onBad: ({ kind, name }, line, why) => told.bad(`${kind}/${name}`, line, why),
      onProgress: ({ replayed, files }, left) =>
        told.progress.show(files / Math.max(files + left, 1), `${replayed} letters of the harvest, ${left} files left`),
    });
  } finally {
    told.progress.clear();
    for (const signal of SIGNALS) process.off(signal, onSignal);
    await client.close();
  }
}

function summaryText(summary: ReplaySummary, mode: string, dryRun: boolean): string {
  const { files, replayed, bad, refused, left, postponed } = summary;
  const lines = [`${dryRun ? 'would replay' : 'replayed'} ${replayed} rows of ${files} files`];
  if (bad > 0) lines.push(badText(bad, dryRun));
  if (refused > 0) lines.push(`refused by mode: ${refused} letters; they are never replayed here, which is ${mode}`);
  if (left > 0) lines.push(leftText(left));
  if (postponed > 0)
    lines.push(
      `postponed: ${postponed} files, until their next attempt is due (replay without --healing does not wait)`,
    );
  if (!dryRun && replayed > 0) lines.push('what the tables still refuse comes back within seconds: list tells');
  return lines.join('\n');
}

function badText(bad: number, dryRun: boolean): string {
  return `bad: ${bad} lines, ${dryRun ? 'to be kept' : 'kept'} in FILE.bad with their numbers`;
}

function leftText(left: number): string {
  return `left: ${left} letters that were not asked for`;
}

function harvestText(
  { files, replayed, written, stored, refused, bad, left, busy }: HarvestReplay,
  dryRun: boolean,
): string {
  const lines = [`harvest: ${dryRun ? 'would replay' : 'replayed'} ${replayed} rows of ${files} files`];
  if (!dryRun) lines.push(`written: ${written} rows into files, ${stored} into tables; the others were there`);
  if (bad > 0) lines.push(badText(bad, dryRun));
  if (refused > 0) lines.push(`refused: ${refused} rows, by their tables; they stay: list tells why`);
  if (left > 0) lines.push(leftText(left));
  if (busy > 0)
    lines.push(
      `busy: ${busy} files of exchanges whose harvester runs; it replays new and mended letters itself within a minute`,
    );
  return lines.join('\n');
}

async function main(): Promise<number> {
  const asked = readArguments(process.argv.slice(2), Date.now());
  const config = loadConfig();
  try {
    return await { list, explain, replay }[asked.command](config, asked);
  } catch (error) {
    if (error instanceof OperatorError) throw error;
    const { code, path, message } = error as NodeJS.ErrnoException;
    if (code !== 'EACCES' && code !== 'EPERM' && code !== 'ENOSPC' && code !== 'EROFS') throw error;
    throw new OperatorError(`${path ?? message}: ${code}`, EXIT_NOT_ASKED);
  }
}

runAsScript(import.meta.url, main);
