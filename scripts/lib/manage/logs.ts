/** `manage.ts logs`: the log of a service or of all, from systemd's journal or from the files of npm start. */
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { OperatorError, UsageError, wholeNumber } from '../cli.ts';
import { type Command, commandFlags, type ManageContext } from './command.ts';
import { follow, lastLines } from './log_files.ts';
import { isAtLeast, LEVELS, type LogLine, merged, pretty, readLine } from './log_lines.ts';
import { namesFor } from './names.ts';
import { upLog } from './npm_start.ts';
import { findSet, type ServiceSet } from './set.ts';
import { unitOf } from './systemd.ts';

const OPTIONS = {
  follow: { type: 'boolean', short: 'f', default: false },
  lines: { type: 'string', short: 'n', default: '20' },
  level: { type: 'string' },
  pretty: { type: 'boolean', default: false },
} as const;
const MOST_LINES = 1_000_000;
/** npm start's own output, and not a service's. */
const UP_LOG = 'up';

const HEAD = {
  name: 'logs',
  takes: 'NAME | all [-f] [-n N] [--level LEVEL] [--pretty]',
  what: 'the last lines of a service, from the journal or from DATA/logs',
  more: `
Flags:
  -f, --follow     and what comes from then on, until Ctrl-C; over rotations
  -n, --lines N    so many lines (default 20); of several services so many each. In the journal of several, and with -f, N
                   counts lines of all levels
  --level LEVEL    only what is at least so severe: ${LEVELS.join(', ')}; a line that names no level is always shown
  --pretty         for people; otherwise lines are as they were written: JSON, one a line

NAME is that of a service (manage.ts status lists them), "up" for what npm start itself said, "all" for all.
Example: npx tsx scripts/manage.ts logs store -f --level warn
Exit code: 0; 1 there is no such log; 64 wrong usage.
`,
};

interface Wanted {
  count: number;
  isWanted(line: LogLine): boolean;
  shown(line: LogLine, name: string): string;
  follow: boolean;
}

export const logs: Command = {
  ...HEAD,
  async run(argv, context) {
    const { values, positionals } = commandFlags(HEAD, OPTIONS, argv);
    const [name, ...more] = positionals;
    if (name === undefined || more.length > 0) throw new UsageError('logs takes one NAME, or all');
    const level = LEVELS.find((each) => each === values.level);
    if (values.level !== undefined && level === undefined)
      throw new UsageError(`--level takes one of ${LEVELS.join(', ')}, not "${values.level}"`);
    const wanted: Wanted = {
      count: wholeNumber('--lines', values.lines, 0, MOST_LINES),
      isWanted: (line) => level === undefined || isAtLeast(line, level),
      shown: (line, of) => (values.pretty ? pretty(line, of) : line.text),
      follow: values.follow,
    };
    const set = await findSet(context.env, context.systemd);
    const known = set.expected.map((each) => each.name);
    const names = name === 'all' ? known : name === UP_LOG ? [UP_LOG] : namesFor([name], known);
    return set.supervisor === 'systemd' && name !== UP_LOG
      ? fromJournal(names, wanted, context)
      : fromFiles(names, set, wanted, context);
  },
};

/** Where the log of a service is without systemd. */
function logFile(name: string, { config, env }: ServiceSet): string {
  return name === UP_LOG ? upLog(env) : join(config.dataDir, 'logs', `${name}.log`);
}

async function fromFiles(
  names: string[],
  set: ServiceSet,
  wanted: Wanted,
  { out, stop }: ManageContext,
): Promise<number> {
  const files = names.map((name) => ({ name, path: logFile(name, set) }));
  const there = files.filter(({ path }) => existsSync(path));
  if (there.length === 0 && !wanted.follow)
    throw new OperatorError(`there is no log ${files[0]!.path}: manage.ts status tells what runs`);
  const read = files.map(({ name, path }) => {
    const tail = lastLines(path, wanted.count, (text) => wanted.isWanted(readLine(text)));
    return { name, path, tail, lines: tail.lines.map((text) => ({ ...readLine(text), name })) };
  });
  const say = (line: LogLine, name: string) => void out.write(`${wanted.shown(line, name)}\n`);
  for (const line of merged(read.map(({ lines }) => lines))) say(line, (line as LogLine & { name: string }).name);
  if (!wanted.follow) return 0;
  await Promise.all(
    read.map(({ name, path, tail }) => {
      const told = (text: string) => {
        const line = readLine(text);
        if (wanted.isWanted(line)) say(line, name);
      };
      return follow(path, tail, told, stop);
    }),
  );
  return 0;
}

/** The journal's lines are filtered here: what a service logs is a text to systemd, with its level inside. */
async function fromJournal(names: string[], wanted: Wanted, { out, stop }: ManageContext): Promise<number> {
  const units = names.flatMap((name) => ['-u', unitOf(name)]);
  const args = [
    '--no-pager',
    '-q',
    '-o',
    'cat',
    '-n',
    String(wanted.count),
    ...(wanted.follow ? ['-f'] : []),
    ...units,
  ];
  const child = spawn('journalctl', args, { stdio: ['ignore', 'pipe', 'inherit'], signal: stop });
  const ended = new Promise<number>((done, fail) => {
    child.once('close', (code) => done(code ?? 0));
    child.once('error', (error) => {
      if (stop.aborted) done(0);
      else fail(new OperatorError(`journalctl cannot be run: ${error.message}`));
    });
  });
  for await (const text of createInterface({ input: child.stdout })) {
    const line = readLine(text);
    if (wanted.isWanted(line)) out.write(`${wanted.shown(line, names.length === 1 ? names[0]! : 'marketprism')}\n`);
  }
  const code = await ended;
  if (code !== 0) throw new OperatorError(`journalctl ended with code ${code}: may this user read the journal? (sudo)`);
  return 0;
}
