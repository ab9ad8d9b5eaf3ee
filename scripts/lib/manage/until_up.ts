/** Waits until services are up: whoever can be asked answers, and all others have run for a while. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { pause } from '../pause.ts';
import type { ManageContext } from './command.ts';
import { HealthLook, lookingContext } from './health.ts';
import { lastWord } from './log_files.ts';
import { type ServiceNow, ServicesLook } from './services_now.ts';
import { findSet, type ServiceSet } from './set.ts';
import { runProgram, unitOf } from './systemd.ts';
import type { Waiting } from './waiting.ts';

/** A first start reads 540 MB of engine from a cold disk. */
const START_LIMIT_MS = 180_000;
const LOOK_EVERY_MS = 500;
/** A script that fails at its start has done so by then, s. */
const STABLE_SECONDS = 3;
const LAST_LINE_WITHIN_MS = 5000;

/**
 * @param names absent: all that should run
 * @param failed why there is no use in waiting any longer
 * @returns the exit code: 0 all are up; 1 one is not, and which and why was told
 */
export async function untilUp(
  names: readonly string[] | null,
  context: ManageContext,
  waiting: Waiting,
  failed: () => Error | null = () => null,
): Promise<number> {
  const deadline = performance.now() + START_LIMIT_MS;
  for (;;) {
    const failure = failed();
    if (failure !== null) {
      waiting.clear();
      throw failure;
    }
    const set = await findSet(context.env, context.systemd);
    // npm start that has not taken its lock yet has started nothing.
    const services = set.supervisor === 'none' ? [] : await lookOnce(set);
    const wanted = services.filter(({ name }) => names === null || names.includes(name));
    const down = wanted.filter((service) => !isUp(service));
    if (wanted.length > 0 && down.length === 0) {
      waiting.clear();
      context.out.write(`${wanted.length === 1 ? `${wanted[0]!.name} is` : `all ${wanted.length} services are`} up\n`);
      return 0;
    }
    const isHopeless = down.length > 0 && down.every(({ state }) => state === 'failed');
    if (isHopeless || context.stop.aborted || performance.now() > deadline) {
      waiting.clear();
      for (const service of down) context.err.write(`${await whyDown(service, set)}\n`);
      if (context.stop.aborted) context.err.write('no longer waited for (manage.ts status tells how it goes on)\n');
      return 1;
    }
    waiting.show(`waiting for ${down.map(({ name }) => name).join(', ') || 'the first service'}`);
    await pause(LOOK_EVERY_MS, context.stop).catch(() => undefined);
  }
}

/** One look at the services of a set. */
export async function lookOnce(set: ServiceSet): Promise<ServiceNow[]> {
  const looking = lookingContext(set.config);
  try {
    return await new ServicesLook().look(set, await new HealthLook(looking).ask());
  } finally {
    await looking.close();
  }
}

/** @returns false also for one that has not run for long enough to tell */
export function isUp({ answers, pid, uptime_seconds: uptime }: ServiceNow): boolean {
  return answers ?? (pid !== null && uptime !== null && uptime >= STABLE_SECONDS);
}

async function whyDown({ name, reason }: ServiceNow, set: ServiceSet): Promise<string> {
  const last = await lastLineOf(name, set);
  return `${name} is not up: ${reason ?? 'it has just been started'}${last === null ? '' : `; its last line: ${last}`}`;
}

async function lastLineOf(name: string, { supervisor, config }: ServiceSet): Promise<string | null> {
  if (supervisor === 'systemd') {
    const args = ['--no-pager', '-q', '-o', 'cat', '-n', '1', '-u', unitOf(name)];
    const { stdout } = await runProgram('journalctl', args, LAST_LINE_WITHIN_MS);
    return stdout.trim() || null;
  }
  const path = join(config.dataDir, 'logs', `${name}.log`);
  return existsSync(path) ? lastWord(path) : null;
}
