/** What all scripts of the desk share: they do what is due at once, again and again, or once, and stop cleanly. */
import { mkdirSync } from 'node:fs';
import { Cron } from 'croner';
import { type Config, loadConfig } from '../config.ts';
import { createLogger, type Logger } from '../log.ts';
import { untilStopped } from '../service.ts';
import { tellReady } from '../service_manager.ts';
import { steadyNow } from '../steady.ts';
import { signOfLife, Vital } from '../vital_signs.ts';

/** What is due is looked for this often: a clock that was set, or a machine that slept, costs no more. */
const LOOK = '*/2 * * * * *';
/** Waits after a turn that failed: doubling from the first to the last, ms. */
const FIRST_RETRY_MS = 5000;
const LAST_RETRY_MS = 60_000;
/** A turn that gets no answer and writes nothing for so long hangs: a venue's limit makes it wait for a minute, a ban for some more. */
const STUCK_MS = 900_000;

export interface DeskContext {
  config: Config;
  log: Logger;
  /** Wall clock, ms. */
  clock(): number;
}

export interface DeskWork {
  /** Does all that is due. @returns what could not be done, each in a line: it is tried again */
  turn(stop: AbortSignal): Promise<string[]>;
  close(): Promise<void>;
}

/**
 * Runs `work` until it is stopped, or once.
 * @returns the exit code: 1 when it ran once and something could not be done
 */
export async function runDesk(
  name: string,
  once: boolean,
  open: (context: DeskContext) => Promise<DeskWork>,
): Promise<number> {
  const config = loadConfig();
  const log = createLogger(name);
  mkdirSync(config.dataDir, { recursive: true });
  const stopped = untilStopped(log);
  const stop = new AbortController();
  void stopped.then(() => stop.abort());
  const work = await open({ config, log, clock: Date.now });
  log.info({ event: 'started' });
  const turns = new Turns(work, log, stop.signal);
  let failed = false;
  if (once) failed = !(await turns.take());
  else {
    const cron = new Cron(LOOK, { protect: true }, () => turns.due());
    tellReady(log, [new Vital('turns', STUCK_MS)]);
    void turns.due();
    await stopped;
    cron.stop();
    await turns.running;
  }
  await work.close();
  log.info({ event: 'stopped' });
  return failed ? 1 : 0;
}

/** Turns one after the other; one that failed is waited for. */
class Turns {
  running: Promise<boolean> = Promise.resolve(true);
  private isRunning = false;
  private failures = 0;
  private notBefore = 0;

  constructor(
    private readonly work: DeskWork,
    private readonly log: Logger,
    private readonly stop: AbortSignal,
  ) {}

  async due(): Promise<void> {
    if (this.isRunning) return;
    signOfLife();
    if (this.stop.aborted || steadyNow() < this.notBefore) return;
    this.isRunning = true;
    this.running = this.take();
    await this.running;
    this.isRunning = false;
  }

  /** @returns whether all that was due is done */
  async take(): Promise<boolean> {
    const faults = await this.work.turn(this.stop).catch((error: unknown) => {
      this.log.error({ event: 'turn_failed', err: error });
      return [(error as Error).message];
    });
    if (faults.length === 0) {
      if (this.failures > 0) this.log.info({ event: 'well_again', after_tries: this.failures });
      this.failures = 0;
      return true;
    }
    this.failures += 1;
    const wait = Math.min(FIRST_RETRY_MS * 2 ** (this.failures - 1), LAST_RETRY_MS);
    this.notBefore = steadyNow() + wait;
    this.log.warn({
      event: 'not_done',
      faults: faults.slice(0, 5),
      more: Math.max(faults.length - 5, 0),
      retry_ms: wait,
    });
    return false;
  }
}
