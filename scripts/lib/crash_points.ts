/**
 * Named steps at which a process can be made to die as by `kill -9`, from outside: `MARKETPRISM_CRASH_AT=outbox.written@3` ends
 * it when it comes there for the third time. This is how it is proved, step by step, that a crash there loses and doubles nothing.
 */
import { UsageError } from './cli.ts';
import type { Logger } from './log.ts';

export const CRASH_POINTS = [
  /** The collector has rows in a message that is nowhere else yet. */
  'outbox.adding',
  /** The message is in the file, and may not be on the disk. */
  'outbox.written',
  /** It is on the disk. */
  'outbox.synced',
  /** It was handed to the broker, which has not answered. */
  'publish.sent',
  /** The broker has it; nothing of that is written down. */
  'publish.acknowledged',
  /** How far the broker has everything is written down; the files that this makes superfluous are still there. */
  'outbox.floor_kept',
  /** A message of an earlier run, or of a time without a broker, was read back. */
  'outbox.read_back',
  /** The store has taken messages and asked nothing yet. */
  'store.taken',
  /** It knows which rows hot has, and has inserted nothing. */
  'store.looked',
  /** Half of an insert's body is on its way. */
  'store.inserting',
  /** The insert is confirmed; no message is acknowledged. */
  'store.inserted',
  /** The acknowledgements are on their way. */
  'store.acknowledged',
  /** A poison row is in the deadletter; its message is not acknowledged. */
  'store.buried',
  /** The replication has a window of rows in cold, and has not compared it. */
  'replicate.copied',
  /** It is equal in both; nothing of that is written down. */
  'replicate.verified',
  /** It is written down. */
  'replicate.recorded',
  /** A repair has written down what it will take out of a table. */
  'repair.removing',
  /** It is taken out; nothing of that is written down. */
  'repair.removed',
  /** It has written down what it will give to the store, copy to cold, or declare. */
  'repair.publishing',
  'repair.copying',
  'repair.declaring',
  /** One statement of a change of the tables was done. */
  'schema.statement',
  /** All of it was done; its version is not written down. */
  'schema.applied',
] as const;
export type CrashPoint = (typeof CRASH_POINTS)[number];

const [chosen = '', times = '1'] = (process.env.MARKETPRISM_CRASH_AT ?? '').split('@', 2);
let passed = 0;

/** Dies here when this is the chosen point, at its chosen time. */
export function crashPoint(name: CrashPoint): void {
  if (name !== chosen) return;
  passed += 1;
  if (passed === Number(times)) process.kill(process.pid, 'SIGKILL');
}

/** What keeps rows from being lost or doubled, and can be left out to show that a proof would notice. */
export const SAFEGUARDS = [
  /** The store asks hot which rows it has before it inserts. */
  'look',
  /** A message is acknowledged only after its rows are stored. */
  'order',
  /** The store knows by itself up to where it has acknowledged, and asks for the rest again; the broker alone is not believed. */
  'checkpoint',
  /** After an unclear answer the store waits until the insert cannot happen any more. */
  'fence',
  /** What was received is in a file until the broker has it. */
  'outbox',
  /** A server of a cluster that is cut off from the others is left for another one. */
  'switch',
] as const;
export type Safeguard = (typeof SAFEGUARDS)[number];

export function isSafeguard(name: string): name is Safeguard {
  return SAFEGUARDS.some((each) => each === name);
}

const left = namesIn(process.env.MARKETPRISM_WITHOUT);

/** Whether a safeguard works; it does, unless `MARKETPRISM_WITHOUT` names it, which loses data and is for proofs only. */
export function isGuarded(name: Safeguard): boolean {
  return !left.includes(name);
}

/** Says loudly, at a start, what is left out. */
export function tellLeftOut(log: Logger): void {
  if (left.length > 0)
    log.error({ event: 'safeguards_left_out', names: left }, 'rows will be lost or doubled: for proofs only');
}

/** @throws UsageError when `MARKETPRISM_CRASH_AT` or `MARKETPRISM_WITHOUT` names what there is not */
export function checkProofs(env: NodeJS.ProcessEnv): void {
  const crash = env.MARKETPRISM_CRASH_AT ?? '';
  const [point, count = '1'] = crash.split('@', 2);
  if (crash !== '' && !(CRASH_POINTS.some((each) => each === point) && /^[1-9]\d{0,8}$/.test(count))) {
    throw new UsageError(
      `MARKETPRISM_CRASH_AT: takes POINT or POINT@TIMES of ${CRASH_POINTS.join(', ')}, not "${crash}"`,
    );
  }
  const unknown = namesIn(env.MARKETPRISM_WITHOUT).find((name) => !isSafeguard(name));
  if (unknown !== undefined) {
    throw new UsageError(`MARKETPRISM_WITHOUT: takes names of ${SAFEGUARDS.join(', ')}, not "${unknown}"`);
  }
}

function namesIn(text = ''): string[] {
  return text.split(',').filter((name) => name !== '');
}
