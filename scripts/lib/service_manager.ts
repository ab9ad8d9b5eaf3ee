/**
 * Speaks to systemd (sd_notify(3)): ready, stopping, and the watchdog, which is fed only while the process makes progress. Outside of a unit
 * nothing of it happens.
 */
import { createRequire } from 'node:module';
import { OperatorError } from './cli.ts';
import type { Logger } from './log.ts';
import type { VitalPart } from './vital_signs.ts';

/** Of the watchdog's time: one look that is late or lost does not end the process. */
const LOOKS_PER_WATCHDOG = 4;
/** libsystemd's own soname: a unit runs where systemd is. */
const LIBRARY = 'libsystemd.so.0';

/** `sd_notify`: positive when it was sent. */
type SdNotify = (unsetEnvironment: number, state: string) => number;

let sdNotify: SdNotify | null = null;

/**
 * Tells the service manager `state`, such as `STOPPING=1`; nobody is told where none asked for it.
 * @throws OperatorError when it asked and cannot be told: a unit of Type=notify would be killed without a word
 */
export function tellManager(state: string, env: NodeJS.ProcessEnv = process.env): void {
  if (!env.NOTIFY_SOCKET) return;
  // Node has no datagram sockets of the Unix kind; the C library has. Loaded only here: by hand nobody needs it.
  sdNotify ??= loadSdNotify();
  const sent = sdNotify(0, state);
  if (sent <= 0) throw new OperatorError(`sd_notify(${state.split('\n')[0]}) failed: ${sent}`);
}

function loadSdNotify(): SdNotify {
  try {
    const koffi = createRequire(import.meta.url)('koffi') as typeof import('koffi');
    return koffi.load(LIBRARY).func('int sd_notify(int, const char *)') as unknown as SdNotify;
  } catch (error) {
    const reason = (error as Error).message.split('\n')[0];
    throw new OperatorError(`NOTIFY_SOCKET is set, and ${LIBRARY} cannot be called through koffi: ${reason}`);
  }
}

/** How often the watchdog wants to be fed, ms; null where this process has none. */
export function watchdogMs(env: NodeJS.ProcessEnv = process.env, pid = process.pid): number | null {
  const microseconds = Number(env.WATCHDOG_USEC);
  const isOurs = !env.WATCHDOG_PID || Number(env.WATCHDOG_PID) === pid;
  return isOurs && microseconds > 0 ? microseconds / 1000 : null;
}

/**
 * Told when the service is up. From then on the watchdog is fed as long as no part is stuck; which one is, stands in the log and in
 * `systemctl status`.
 * @param parts looked at each time: some may be added later
 */
export function tellReady(log: Logger, parts: readonly VitalPart[]): void {
  tellManager('READY=1');
  const period = watchdogMs();
  if (period === null) return;
  let isLooking = false;
  const look = async () => {
    // A look that hangs feeds nobody.
    if (isLooking) return;
    isLooking = true;
    const faults = (await Promise.all(parts.map((part) => part.stuck())).finally(() => (isLooking = false))).filter(
      (fault) => fault !== null,
    );
    if (faults.length === 0) tellManager('WATCHDOG=1');
    else {
      log.error({ event: 'stuck', faults }, 'the watchdog is not fed');
      tellManager(`STATUS=stuck: ${faults.join('; ')}`);
    }
  };
  const timer = setInterval(() => {
    look().catch((error: unknown) => log.error({ event: 'watchdog_look_failed', err: error }));
  }, period / LOOKS_PER_WATCHDOG);
  timer.unref();
}
