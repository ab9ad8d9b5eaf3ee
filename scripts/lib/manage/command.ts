/** What a command of manage.ts is, and what all of them are given. */
import { type ParseArgsConfig, parseArgs } from 'node:util';
import { UsageError } from '../cli.ts';
import type { Systemd } from './systemd.ts';

/** Standard output or error, as far as it is used here. */
export interface Output {
  write(text: string): unknown;
  isTTY?: boolean;
  columns?: number;
  rows?: number;
}

export interface ManageContext {
  /** Of the shell. */
  env: NodeJS.ProcessEnv;
  systemd: Systemd;
  /** Fires at SIGINT and SIGTERM. */
  stop: AbortSignal;
  out: Output;
  err: Output;
}

export interface Command {
  name: string;
  /** Its arguments, as --help shows them. */
  takes: string;
  /** One line for people. */
  what: string;
  /** Further lines for its own --help: flags, exit codes, an example. */
  more?: string;
  /** @param argv what comes after the name @returns the exit code */
  run(argv: string[], context: ManageContext): Promise<number>;
}

type Options = NonNullable<ParseArgsConfig['options']>;
type Parsed<O extends Options> = ReturnType<typeof parseArgs<{ options: O; strict: true; allowPositionals: true }>>;

/**
 * Parses a command's flags, and the names that stand among them. `--help` prints its help and exits 0.
 * @throws UsageError that names the unknown or incomplete flag
 */
export function commandFlags<const O extends Options>(
  command: Omit<Command, 'run'>,
  options: O,
  argv: string[],
): Parsed<O> {
  if (argv.includes('--help') || argv.includes('-h')) {
    process.stdout.write(`${helpOf(command)}\n`);
    process.exit(0);
  }
  try {
    return parseArgs({ args: argv, options, strict: true, allowPositionals: true }) as Parsed<O>;
  } catch (error) {
    throw new UsageError(`${(error as Error).message.split('\n')[0]} (manage.ts ${command.name} --help tells more)`);
  }
}

/** The same for a command that takes no names. @throws UsageError for one that is given */
export function onlyFlags<const O extends Options>(command: Omit<Command, 'run'>, options: O, argv: string[]) {
  const { values, positionals } = commandFlags(command, options, argv);
  if (positionals.length > 0)
    throw new UsageError(`${command.name} takes no "${positionals[0]}" (manage.ts ${command.name} --help tells more)`);
  return values;
}

export function helpOf({ name, takes, what, more }: Omit<Command, 'run'>): string {
  const usage = `manage.ts ${name}: ${what}\n\nUsage:   npx tsx scripts/manage.ts ${name} ${takes}`.trimEnd();
  return more === undefined ? usage : `${usage}\n\n${more.trim()}`;
}
