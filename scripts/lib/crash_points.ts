/**
 * Named steps at which a process can be made to die as by `kill -9`, from outside: `MARKETPRISM_CRASH_AT=outbox.written@3` ends
 * it when it comes there for the third time. This is how it is proved, step by step, that a crash there loses and doubles nothing.
 */
import { UsageError } from './cli.ts';

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
] as const;
export type CrashPoint = (typeof CRASH_POINTS)[number];

const { point: chosen, times } = parse(process.env.MARKETPRISM_CRASH_AT ?? '');
let passed = 0;

/** Dies here when this is the chosen point, at its chosen time. */
export function crashPoint(name: CrashPoint): void {
  if (name !== chosen) return;
  passed += 1;
  if (passed === times) process.kill(process.pid, 'SIGKILL');
}

/** @throws UsageError when the text names no point */
function parse(text: string): { point: CrashPoint | null; times: number } {
  if (text === '') return { point: null, times: 0 };
  const [name, count = '1'] = text.split('@', 2) as [string, string?];
  const point = CRASH_POINTS.find((each) => each === name);
  if (!point || !/^[1-9]\d{0,8}$/.test(count)) {
    throw new UsageError(
      `MARKETPRISM_CRASH_AT: takes POINT or POINT@TIMES of ${CRASH_POINTS.join(', ')}, not "${text}"`,
    );
  }
  return { point, times: Number(count) };
}
