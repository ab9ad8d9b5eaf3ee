/** What every command shares: flags, `--help`, exit codes, and running only when it is the entry point. */
import { realpathSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { type ParseArgsConfig, parseArgs } from 'node:util';

/** Exit code for a wrong flag or a wrong environment value (sysexits EX_USAGE; DESIGN section 8). */
export const EXIT_USAGE = 64;

/** A fault that the operator can mend: shown as one line, without a stack trace, and ends the process with `exitCode`. */
export class OperatorError extends Error {
  constructor(
    message: string,
    readonly exitCode = 1,
  ) {
    super(message);
    this.name = 'OperatorError';
  }
}

/** A wrong flag or environment value: one line, exit 64. */
export class UsageError extends OperatorError {
  constructor(message: string) {
    super(message, EXIT_USAGE);
    this.name = 'UsageError';
  }
}

type Options = NonNullable<ParseArgsConfig['options']>;
type Parsed<O extends Options> = ReturnType<typeof parseArgs<{ options: O; strict: true; allowPositionals: false }>>;

/**
 * Parses flags. `--help` prints `usage` and exits 0.
 * @throws UsageError that names the unknown or incomplete flag.
 */
export function flags<const O extends Options>(
  usage: string,
  options: O,
  argv = process.argv.slice(2),
): Parsed<O>['values'] {
  if (argv.includes('--help') || argv.includes('-h')) {
    process.stdout.write(`${usage.trim()}\n`);
    process.exit(0);
  }
  try {
    return parseArgs({ args: argv, options, strict: true, allowPositionals: false }).values as Parsed<O>['values'];
  } catch (error) {
    throw new UsageError(`${(error as Error).message.split('\n')[0]} (--help lists the flags)`);
  }
}

/**
 * A whole number from a flag or environment value.
 * @throws UsageError naming `what` and the accepted range.
 */
export function wholeNumber(what: string, text: string, min: number, max: number): number {
  const value = Number(text);
  if (!/^\d+$/.test(text) || value < min || value > max) {
    throw new UsageError(`${what} takes a whole number from ${min} to ${max}, not "${text}"`);
  }
  return value;
}

/**
 * A span of time such as `250ms`, `60s`, `10m`, `2h`; a bare `0` is zero.
 * @returns milliseconds
 * @throws UsageError naming `what`.
 */
export function duration(what: string, text: string): number {
  if (text === '0') return 0;
  const match = /^(\d+(?:\.\d+)?)(ms|s|m|h|d)$/.exec(text);
  if (!match) throw new UsageError(`${what} takes a time such as 500ms, 60s, 10m or 2h, not "${text}"`);
  const unit = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 }[match[2] as 'ms' | 's' | 'm' | 'h' | 'd'];
  return Number(match[1]) * unit;
}

/**
 * A time such as `2026-11-20`, `2026-11-20T08:00` or `2026-11-20T08:00:00+08:00`; without a zone it is UTC.
 * @returns ms since the epoch
 * @throws UsageError naming `what`.
 */
export function moment(what: string, text: string): number {
  const isDay = /^\d{4}-\d\d-\d\d$/.test(text);
  const ms = Date.parse(/[zZ]$|[+-]\d\d:?\d\d$/.test(text) && !isDay ? text : `${text}${isDay ? 'T00:00:00' : ''}Z`);
  if (Number.isNaN(ms)) throw new UsageError(`${what} takes a time such as 2026-11-20T08:00:00Z, not "${text}"`);
  return ms;
}

/** True when the module with this `import.meta.url` is the script that node was started with. */
export function isEntryPoint(moduleUrl: string): boolean {
  const started = process.argv[1];
  return started !== undefined && realpathSync(started) === realpathSync(fileURLToPath(moduleUrl));
}

/** Runs `main` when its module is the entry point; an OperatorError becomes one line on stderr and its exit code. */
export function runAsScript(moduleUrl: string, main: () => Promise<number | undefined>): void {
  if (!isEntryPoint(moduleUrl)) return;
  // A reader that went away (`… | head`) is no fault of ours.
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code === 'EPIPE') process.exit(0);
    throw error;
  });
  main().then(
    (code) => {
      process.exitCode = code ?? 0;
    },
    (error: unknown) => {
      if (error instanceof OperatorError) {
        process.stderr.write(`${error.message}\n`);
        process.exit(error.exitCode);
      }
      process.stderr.write(`${error instanceof Error ? (error.stack ?? error.message) : String(error)}\n`);
      process.exit(1);
    },
  );
}
