/** What an installation consists of: steps that know whether they are done, so that a second run changes nothing, and a dry one only tells. */
import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  readFileSync,
  renameSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { dirname } from 'node:path';
import { OperatorError } from '../cli.ts';

export interface Step {
  /** In a few words, such as `user marketprism`. */
  what: string;
  /** What is to be done, in words; null: all is as it should be. */
  lacks(): string | null;
  apply(): void;
}

export interface Owner {
  uid: number;
  gid: number;
}

/** Does what is lacking, in order, and tells each. @returns whether anything was lacking */
export function carryOut(steps: readonly Step[], isDry: boolean, say: (line: string) => void): boolean {
  let isChanged = false;
  for (const step of steps) {
    const lack = step.lacks();
    say(
      `${lack === null ? 'ok      ' : isDry ? 'would   ' : 'done    '} ${step.what}${lack === null ? '' : `: ${lack}`}`,
    );
    if (lack === null) continue;
    isChanged = true;
    if (!isDry) step.apply();
  }
  return isChanged;
}

/** @returns what it wrote @throws OperatorError with its last line when it failed */
export function run(command: string, args: readonly string[], env: NodeJS.ProcessEnv = process.env): string {
  const { status, error, stdout, stderr } = spawnSync(command, [...args], {
    encoding: 'utf8',
    env,
    maxBuffer: 2 ** 26,
  });
  if (status === 0) return stdout;
  const words = (error?.message ?? `${stdout}${stderr}`).trim().split('\n').at(-1);
  throw new OperatorError(`${command} ${args.join(' ')} failed: ${words || `code ${status}`}`);
}

/** @returns its output; null when it failed */
export function asked(command: string, args: readonly string[]): string | null {
  const { status, stdout } = spawnSync(command, [...args], { encoding: 'utf8' });
  return status === 0 ? stdout.trim() : null;
}

/** A directory with these rights; `owner` null: that of who installs. */
export function directoryStep(path: string, mode: number, owner: () => Owner | null): Step {
  const differs = () => {
    const stat = statSync(path, { throwIfNoEntry: false });
    if (stat === undefined) return 'made';
    const wanted = owner();
    const isOwned = wanted === null || (stat.uid === wanted.uid && stat.gid === wanted.gid);
    return isOwned && (stat.mode & 0o777) === mode ? null : `mode ${mode.toString(8)}, owner`;
  };
  return {
    what: `directory ${path}`,
    lacks: differs,
    apply() {
      mkdirSync(path, { recursive: true });
      chmodSync(path, mode);
      const wanted = owner();
      if (wanted !== null) chownSync(path, wanted.uid, wanted.gid);
    },
  };
}

/** A file that is ours: its text is what we say. */
export function fileStep(path: string, text: string, mode = 0o644): Step {
  return {
    what: `file ${path}`,
    lacks: () => (!existsSync(path) ? 'written' : readFileSync(path, 'utf8') === text ? null : 'replaced'),
    apply: () => writeWhole(path, text, mode),
  };
}

/** A file that is its owner's once it is there. @param text read only when it is made */
export function firstFileStep(path: string, text: () => string, mode: number, owner: () => Owner | null): Step {
  return {
    what: `file ${path}`,
    lacks: () => (existsSync(path) ? null : 'written; from now on it is yours, and left alone'),
    apply() {
      writeWhole(path, text(), mode);
      const wanted = owner();
      if (wanted !== null) chownSync(path, wanted.uid, wanted.gid);
    },
  };
}

/** Readers see the old text or the new one. */
export function writeWhole(path: string, text: string, mode: number): void {
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(`${path}.tmp`, text, { mode });
  chmodSync(`${path}.tmp`, mode);
  renameSync(`${path}.tmp`, path);
}
