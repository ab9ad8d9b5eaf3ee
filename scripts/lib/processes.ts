/** Child processes: started, watched, restarted when they die, stopped in order. */
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { OperatorError } from './cli.ts';
import { LineSource, LogFile } from './log_file.ts';
import { pause } from './pause.ts';
import { nodeFlags } from './services.ts';

/** Waits before a restart: doubling from the first to the last; a child that lived this long starts them anew. */
const FIRST_WAIT_MS = 500;
const LAST_WAIT_MS = 30_000;
const STABLE_MS = 60_000;
/** A child that does not stop within this time is killed. */
const STOP_LIMIT_MS = 15_000;
/** Lets the kernel end a child whose parent was killed. Part of util-linux, which Debian always has. */
const SETPRIV = '/usr/bin/setpriv';

/** In the data directory: how often each child was started again, as `npm start` counts it. */
export const RESTARTS_FILE = 'state/restarts.json';

export interface ChildPlan {
  name: string;
  command: string;
  args: string[];
  env: NodeJS.ProcessEnv;
  logDir: string;
  /** Waits this long before each restart, ms; absent: longer each time. */
  restartWaitMs?: number;
  /** How it is asked to stop; absent: SIGTERM. */
  stopSignal?: NodeJS.Signals;
}

/** A script of this project as a child. */
export function scriptPlan(script: string, args: string[], env: NodeJS.ProcessEnv, logDir: string): ChildPlan {
  const path = join(import.meta.dirname, '..', `${script}.ts`);
  const flags = [...nodeFlags(script), '--import', 'tsx'];
  return { name: script, command: process.execPath, args: [...flags, path, ...args], env, logDir };
}

export interface ChildExit {
  code: number | null;
  signal: NodeJS.Signals | null;
  /** The last line the child wrote to stderr. */
  lastLine: string;
}

/** One child that is kept running. Its output goes to `<logDir>/<name>.log`. */
export class Child {
  restarts = 0;
  private process: ChildProcess | null = null;
  private readonly log: LogFile;
  private wanted = false;
  private attempts = 0;
  private startedAt = 0;
  private lastLine = '';
  private timer: NodeJS.Timeout | undefined;

  /** @param onExit told of each end that nobody asked for; returns true to have it started again */
  constructor(
    readonly plan: ChildPlan,
    private readonly onExit: (exit: ChildExit) => boolean,
  ) {
    this.log = new LogFile(join(plan.logDir, `${plan.name}.log`));
  }

  get pid(): number | undefined {
    return this.process?.pid;
  }

  get running(): boolean {
    return this.process !== null;
  }

  /** Sends a signal. @returns false when it does not run */
  signal(name: NodeJS.Signals): boolean {
    return this.process?.kill(name) ?? false;
  }

  start(): void {
    this.wanted = true;
    this.spawn();
  }

  /** Asks to stop, kills after 15 s. Resolves when the process is gone. @returns how it ended, null when it did not run */
  async stop(): Promise<ChildExit | null> {
    this.wanted = false;
    clearTimeout(this.timer);
    const child = this.process;
    if (!child) return null;
    // Ended already, while somebody else still holds its output open.
    if (child.exitCode !== null || child.signalCode !== null) {
      return { code: child.exitCode, signal: child.signalCode, lastLine: this.lastLine };
    }
    const gone = new Promise<ChildExit>((done) => {
      child.once('exit', (code, signal) => done({ code, signal, lastLine: this.lastLine }));
    });
    child.kill(this.plan.stopSignal ?? 'SIGTERM');
    const timer = setTimeout(() => child.kill('SIGKILL'), STOP_LIMIT_MS);
    const exit = await gone;
    clearTimeout(timer);
    return exit;
  }

  private spawn(): void {
    const { command, args, env, logDir } = this.plan;
    mkdirSync(logDir, { recursive: true });
    // There from the start, for whoever follows it.
    this.log.append(Buffer.alloc(0));
    const [file, all] = existsSync(SETPRIV)
      ? [SETPRIV, ['--pdeathsig', 'TERM', '--', command, ...args]]
      : [command, args];
    // A process group of its own: Ctrl-C in the terminal must reach us alone, so that the order of stopping is ours.
    const child = spawn(file, all, { env, stdio: ['ignore', 'pipe', 'pipe'], detached: true });
    this.process = child;
    this.startedAt = Date.now();
    this.lastLine = '';
    const [out, err] = [new LineSource(this.log), new LineSource(this.log)];
    child.stdout!.on('data', (chunk: Buffer) => out.write(chunk));
    child.stderr!.on('data', (chunk: Buffer) => {
      err.write(chunk);
      this.lastLine = chunk.toString().trimEnd().split('\n').pop() ?? '';
    });
    child.once('error', (error) => {
      this.lastLine = error.message;
      if (child.pid === undefined) this.ended(null, null);
    });
    // `close` comes after the last output was read, so the last line is there.
    child.once('close', (code, signal) => {
      out.end();
      err.end();
      this.log.close();
      this.ended(code, signal);
    });
  }

  private ended(code: number | null, signal: NodeJS.Signals | null): void {
    this.process = null;
    if (!this.wanted) return;
    if (Date.now() - this.startedAt > STABLE_MS) this.attempts = 0;
    if (!this.onExit({ code, signal, lastLine: this.lastLine })) return;
    const wait = this.plan.restartWaitMs ?? Math.min(FIRST_WAIT_MS * 2 ** this.attempts, LAST_WAIT_MS);
    this.attempts += 1;
    this.restarts += 1;
    this.timer = setTimeout(() => this.spawn(), wait);
  }
}

/**
 * Waits until `probe` answers true.
 * @throws the reason that `failed` gives, or that the time is over
 */
export async function waitFor(
  what: string,
  limitMs: number,
  probe: () => Promise<boolean>,
  failed: () => Error | null = () => null,
): Promise<void> {
  const deadline = Date.now() + limitMs;
  for (;;) {
    const failure = failed();
    if (failure) throw failure;
    if (await probe()) return;
    if (Date.now() > deadline) throw new OperatorError(`${what} was not ready within ${limitMs / 1000} s`);
    await pause(100);
  }
}
