/** Everything is asked to stop, and looked at: each process must end by itself, well and in time, and leave nothing behind. */
import { existsSync } from 'node:fs';
import { isPortFree } from '../free_port.ts';
import { lookAt, readAbstractSockets } from '../procfs.ts';
import type { ChildEnd, System } from '../system.ts';
import type { SoakStop } from './report.ts';

/** A process stops within so long (DESIGN section 3). */
export const STOP_WITHIN_MS = 10_000;
/** Our locks are sockets in the abstract namespace whose names begin so. */
const LOCK = /^@marketprism-/;

/** What processes hold, before they are stopped. */
export interface Holdings {
  pids: ReadonlyMap<string, number>;
  /** Names of their locks. */
  locks: ReadonlySet<string>;
}

/** @param kept names of processes that are not stopped */
export function holdingsOf(system: System, kept: readonly string[] = []): Holdings {
  const pids = new Map<string, number>();
  for (const [name, { pid }] of system.children) if (pid !== undefined && !kept.includes(name)) pids.set(name, pid);
  const names = readAbstractSockets();
  const inodes = [...pids.values()].flatMap((pid) => [...(lookAt(pid)?.sockets ?? [])]);
  return { pids, locks: new Set(inodes.map((inode) => names.get(inode) ?? '').filter((name) => LOCK.test(name))) };
}

/** How a process ended, against how it should. */
export function judgeEnd(at: number, { name, code, signal, ms, lastLine }: ChildEnd): SoakStop {
  const how = signal === null ? `ended with code ${code}` : `was ended by ${signal}`;
  const faults = [
    ...(code === 0 ? [] : [`${how}${lastLine === '' ? '' : `: ${lastLine}`}`]),
    ...(ms <= STOP_WITHIN_MS ? [] : [`took longer than ${STOP_WITHIN_MS / 1000} s`]),
  ];
  return { at, what: name, ok: faults.length === 0, took_ms: ms, note: faults.join('; ').slice(0, 400) || null };
}

/**
 * How a stop of all went.
 * @param ends of those that were stopped @param held what they held before @param ports that nobody may listen on now, by whose they are
 */
export async function judgeStop(
  at: number,
  ends: readonly ChildEnd[],
  held: Holdings,
  ports: ReadonlyMap<string, number>,
): Promise<SoakStop[]> {
  const notAsked = [...held.pids.keys()].filter((name) => !ends.some((each) => each.name === name));
  const alive = [...held.pids].filter(([, pid]) => existsSync(`/proc/${pid}`)).map(([name, pid]) => `${name} ${pid}`);
  const open: string[] = [];
  for (const [name, port] of ports) if (!(await isPortFree(port))) open.push(`${name} ${port}`);
  const present = new Set(readAbstractSockets().values());
  const locks = [...held.locks].filter((name) => present.has(name));
  const look = (what: string, left: readonly string[]): SoakStop => ({
    ...{ at, what, ok: left.length === 0, took_ms: null },
    note: left.length === 0 ? null : `left: ${left.join(', ')}`.slice(0, 400),
  });
  return [
    ...ends.map((end) => judgeEnd(at, end)),
    look('no process without an end', notAsked),
    look('no process left', alive),
    look('no port left', open),
    look('no lock left', locks),
  ];
}
