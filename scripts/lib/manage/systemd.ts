/** systemd as manage.ts uses it: what systemctl says of our units, and orders to it. */
import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { OperatorError } from '../cli.ts';
import { INSTANCED, SERVICES } from '../services.ts';
import { TARGET } from '../systemd/units.ts';

/** Of one collector per exchange, of one store per stream. */
const INSTANCES = [...INSTANCED.keys()].map((name) => `marketprism-${name}@*.service`);
const INSTANCE = new RegExp(`^marketprism-((?:${[...INSTANCED.keys()].join('|')})@.+)\\.service$`);
/** A question is answered at once; an order takes as long as the units' own limits. */
const ANSWER_WITHIN_MS = 10_000;
const MOST_OUTPUT_BYTES = 16 * 2 ** 20;
const PROPERTIES =
  'Id,LoadState,ActiveState,SubState,Result,MainPID,NRestarts,ConditionResult,UnitFileState,NeedDaemonReload,Wants,Requires,Environment,EnvironmentFiles,LoadCredential';
/** What systemctl says when an order needs another user. */
const REFUSED = /authentication required|access denied|permission denied|not authorized/i;

export interface Ran {
  /** null: it could not be run at all, or in time. */
  code: number | null;
  stdout: string;
  stderr: string;
}
/** Runs a program to its end. @param limitMs absent: as long as it takes */
export type Run = (command: string, args: readonly string[], limitMs?: number) => Promise<Ran>;

export const runProgram: Run = (command, args, limitMs = 0) =>
  new Promise((done) => {
    const options = { timeout: limitMs, maxBuffer: MOST_OUTPUT_BYTES };
    execFile(command, [...args], options, (error, stdout, stderr) => {
      const { code, message } = (error ?? { code: 0, message: '' }) as { code?: unknown; message: string };
      done({ code: typeof code === 'number' ? code : null, stdout, stderr: stderr || message });
    });
  });

/** A unit by systemd's own names of its properties. */
export interface Unit {
  id: string;
  isLoaded: boolean;
  /** active, inactive, failed, activating, deactivating, … */
  active: string;
  sub: string;
  /** success, exit-code, signal, watchdog, oom-kill, start-limit-hit, … */
  result: string;
  pid: number | null;
  restarts: number | null;
  /** A condition of its own (Condition…= or ExecCondition=) says that it is not needed here. */
  isUnneeded: boolean;
  /** Started at boot: `enabled`, `disabled`, `static`, …; empty where that is no question. */
  atBoot: string;
  /** Its file has changed since systemd read it. */
  isOutdated: boolean;
  wants: readonly string[];
  environment: Record<string, string>;
  environmentFiles: readonly string[];
  /** Folders with a secret a file, named as its variable. */
  credentials: readonly string[];
}

/** Units from the answer of `systemctl show`. */
export function unitsFrom(text: string): Unit[] {
  return text
    .split(/\n\n+/)
    .filter((block) => block.trim() !== '')
    .map((block) => {
      const values = new Map<string, string[]>();
      for (const line of block.trim().split('\n')) {
        const name = line.slice(0, line.indexOf('='));
        values.set(name, [...(values.get(name) ?? []), line.slice(line.indexOf('=') + 1)]);
      }
      const value = (name: string) => values.get(name)?.[0] ?? '';
      const number = (name: string) => (/^\d+$/.test(value(name)) ? Number(value(name)) : null);
      const words = `${value('Wants')} ${value('Requires')}`.split(' ').filter((word) => word !== '');
      return {
        ...{ id: value('Id'), isLoaded: value('LoadState') === 'loaded', active: value('ActiveState') },
        ...{ sub: value('SubState'), result: value('Result'), pid: number('MainPID') || null },
        ...{ restarts: number('NRestarts'), wants: words },
        isUnneeded:
          value('ActiveState') === 'inactive' &&
          (value('ConditionResult') === 'no' || value('Result') === 'exec-condition'),
        ...{ atBoot: value('UnitFileState'), isOutdated: value('NeedDaemonReload') === 'yes' },
        environment: Object.fromEntries(wordsOf(value('Environment')).map(pairOf)),
        // `/etc/…/x.env (ignore_errors=no)`, a line each.
        environmentFiles: (values.get('EnvironmentFiles') ?? []).flatMap((line) => line.replace(/ \(.*\)$/, '') || []),
        // `ID:FOLDER`, a word each.
        credentials: value('LoadCredential')
          .split(' ')
          .flatMap((word) => word.slice(word.indexOf(':') + 1) || []),
      };
    });
}

/** Words as systemd prints them: those with blanks stand in quotes, with \-escapes. */
export function wordsOf(text: string): string[] {
  const found = text.matchAll(/"((?:[^"\\]|\\.)*)"|(\S+)/g);
  return [...found].map(([, quoted, plain]) => (quoted === undefined ? plain! : quoted.replace(/\\(.)/g, '$1')));
}

function pairOf(word: string): [string, string] {
  return [word.slice(0, word.indexOf('=')), word.slice(word.indexOf('=') + 1)];
}

/**
 * The variables of a file for EnvironmentFile= (systemd.exec(5)): NAME=VALUE a line, `#` and `;` begin a comment only at the start of a line, a value
 * may stand in quotes, and a line goes on after a `\` at its end.
 */
export function environmentFrom(text: string): Record<string, string> {
  const lines = text.replaceAll('\\\n', '').split('\n');
  const pairs = lines.map((line) => line.trim()).filter((line) => /^[A-Za-z_]\w*=/.test(line));
  return Object.fromEntries(
    pairs.map((line) => {
      const [name, value] = pairOf(line);
      const [, quote, inside] = /^(["'])(.*)\1$/s.exec(value.trim()) ?? [];
      if (inside === undefined) return [name, value.trim()];
      return [name, quote === '"' ? inside.replace(/\\(["\\$`])/g, '$1') : inside];
    }),
  );
}

/** `marketprism-UNIT.service`. */
export function unitOf(name: string): string {
  if (INSTANCED.has(name.replace(/@.*/, '')) && name.includes('@')) return `marketprism-${name}.service`;
  return `marketprism-${SERVICES.find((each) => each.name === name)?.unit ?? name}.service`;
}

/** The name of the service that a unit runs; null: it is none of ours. */
export function nameOf(id: string): string | null {
  const instance = INSTANCE.exec(id)?.[1];
  if (instance !== undefined) return instance;
  return SERVICES.find(({ unit }) => id === `marketprism-${unit}.service`)?.name ?? null;
}

export class Systemd {
  constructor(
    private readonly run: Run = runProgram,
    /** Whether systemd runs this machine, as sd_booted(3) asks it. */
    readonly isBooted = existsSync('/run/systemd/system'),
  ) {}

  /** The target and all services of ours that are installed; none where systemd does not run or knows none. */
  async units(): Promise<Unit[]> {
    if (!this.isBooted) return [];
    const ids = [TARGET, ...SERVICES.map(({ name }) => unitOf(name)), ...(await this.instances())];
    const { code, stdout, stderr } = await this.ask(['show', `--property=${PROPERTIES}`, ...ids]);
    if (code !== 0) throw new OperatorError(`systemd cannot be asked: ${lineOf(stderr)}`, 3);
    return unitsFrom(stdout).filter(({ isLoaded }) => isLoaded);
  }

  private async instances(): Promise<string[]> {
    const { stdout } = await this.ask(['list-units', '--all', '--plain', '--no-legend', '--full', ...INSTANCES]);
    return stdout.split('\n').flatMap((line) => line.trim().split(/\s+/)[0] || []);
  }

  private ask(args: readonly string[]): Promise<Ran> {
    return this.run('systemctl', ['--no-pager', ...args], ANSWER_WITHIN_MS);
  }

  /** @throws OperatorError with the command for root where this user may not */
  async order(verb: 'start' | 'stop' | 'restart', units: readonly string[]): Promise<void> {
    const { code, stderr } = await this.run('systemctl', ['--no-ask-password', verb, ...units]);
    if (code === 0) return;
    const command = `systemctl ${verb} ${units.join(' ')}`;
    if (REFUSED.test(stderr)) throw new OperatorError(`${command} needs root: sudo ${command}`);
    throw new OperatorError(`${command} failed: ${lineOf(stderr)} (systemctl status ${units.join(' ')} tells more)`);
  }
}

function lineOf(text: string): string {
  return text.trim().split('\n')[0] || 'it says nothing';
}
