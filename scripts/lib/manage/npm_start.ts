/** npm start in the background: begun, found again by its lock, stopped, and one of its services told to begin anew. */
import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, existsSync, mkdirSync, openSync, renameSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { OperatorError } from '../cli.ts';
import { pause } from '../pause.ts';
import { readProcesses } from '../procfs.ts';
import { childrenOf, type Up } from './set.ts';
import type { Waiting } from './waiting.ts';

const SCRIPT = join(import.meta.dirname, '..', '..', 'up.ts');
const LOOK_EVERY_MS = 200;
/** Each of its services has 15 s to stop, one after the other where they stand on each other. */
const STOP_LIMIT_MS = 180_000;
/** A service stops within 15 s, and is started again after a wait that is short unless it died often. */
const RESTART_LIMIT_MS = 60_000;

/** Where it says what it does. Beside the live set's logs, also of a demo: it chooses which it will be, and empties a demo's directory. */
export function upLog(env: NodeJS.ProcessEnv): string {
  return join(resolve(env.MARKETPRISM_DATA_DIR || 'data'), 'logs', 'up.log');
}

/** Starts it so that it outlives this process and its terminal. The log of the one before is kept as `up.log.1`. */
export function spawnUp(flags: readonly string[], env: NodeJS.ProcessEnv): ChildProcess {
  const path = upLog(env);
  mkdirSync(dirname(path), { recursive: true });
  if (existsSync(path)) renameSync(path, `${path}.1`);
  const log = openSync(path, 'a');
  try {
    const argv = ['--import', 'tsx', SCRIPT, ...flags];
    const child = spawn(process.execPath, argv, { env, detached: true, stdio: ['ignore', log, log] });
    child.unref();
    return child;
  } finally {
    closeSync(log);
  }
}

/** Stops it, and with it in their order all that it started. @throws OperatorError where it does not end */
export async function stopUp({ pid }: Up, waiting: Waiting, stop: AbortSignal): Promise<void> {
  const { startedAt } = readProcesses().get(pid) ?? {};
  signal(pid, 'SIGTERM');
  const isGone = () => {
    const now = readProcesses();
    if (now.get(pid)?.startedAt !== startedAt) return true;
    waiting.show(`stopping; still there: ${[...childrenOf(pid, now).keys()].join(', ') || 'npm start'}`);
    return false;
  };
  if (await until(isGone, STOP_LIMIT_MS, stop)) return;
  throw new OperatorError(
    stop.aborted
      ? 'no longer waited for; it goes on stopping (manage.ts status)'
      : `npm start (pid ${pid}) still runs after ${STOP_LIMIT_MS / 1000} s: kill -KILL ${pid} ends it and all its services`,
  );
}

/** Tells a service to stop; npm start starts it again, as it does after any end. @throws OperatorError where it does not come back */
export async function restartChild(name: string, { pid: up }: Up, waiting: Waiting, stop: AbortSignal): Promise<void> {
  const children = childrenOf(up);
  // Started after all that a start waits for: before that an end would be taken for a failed start.
  if (!children.has('replicate')) throw new OperatorError('npm start is not done with starting: try again in a moment');
  const before = children.get(name);
  if (before !== undefined) signal(before.pid, 'SIGTERM');
  const isBack = () => {
    const now = childrenOf(up).get(name);
    waiting.show(`restarting ${name}`);
    return now !== undefined && now.pid !== before?.pid;
  };
  if (!(await until(isBack, RESTART_LIMIT_MS, stop)))
    throw new OperatorError(
      `${name} is not back after ${RESTART_LIMIT_MS / 1000} s: manage.ts logs ${name} tells more`,
    );
}

function signal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'EPERM') throw new OperatorError(`process ${pid} is another user's: sudo kill -TERM ${pid}`);
    // Gone already, which is what is wanted.
    if (code !== 'ESRCH') throw error;
  }
}

/** @returns false when the time is over, or `stop` has fired */
async function until(isDone: () => boolean, limitMs: number, stop: AbortSignal): Promise<boolean> {
  for (const deadline = performance.now() + limitMs; !stop.aborted && performance.now() < deadline; ) {
    if (isDone()) return true;
    await pause(LOOK_EVERY_MS, stop).catch(() => undefined);
  }
  return isDone();
}
