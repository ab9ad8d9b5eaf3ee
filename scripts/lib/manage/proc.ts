/** What Linux says of processes and sockets under /proc. A process that ends meanwhile is left out. */
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { join } from 'node:path';

/** Linux tells times of processes in hundredths of a second, whatever the kernel counts in (USER_HZ). */
const TICKS_PER_SECOND = 100;
/** State of a listening socket in /proc/net/tcp. */
const LISTEN = '0A';
/** Flags of a listening socket in /proc/net/unix (__SO_ACCEPTCON). */
const UNIX_LISTENING = '00010000';

export interface ProcessNow {
  pid: number;
  parent: number;
  argv: readonly string[];
  /** Since the boot, s: with the pid it names one process. */
  startedAt: number;
  /** Taken so far, s. */
  cpuSeconds: number;
  residentBytes: number;
}

/** All processes by their ids. */
export function readProcesses(): Map<number, ProcessNow> {
  const found = new Map<number, ProcessNow>();
  for (const name of readdirSync('/proc')) {
    if (!/^\d+$/.test(name)) continue;
    const process = ifThere(() => readProcess(Number(name)));
    if (process !== null) found.set(process.pid, process);
  }
  return found;
}

function readProcess(pid: number): ProcessNow {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
  const status = readFileSync(`/proc/${pid}/status`, 'utf8');
  const argv = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0').slice(0, -1);
  return { pid, argv, ...statFigures(stat), residentBytes: residentOf(status) };
}

/** Of a line of /proc/PID/stat. The name in brackets may hold blanks and brackets itself. */
export function statFigures(stat: string): Pick<ProcessNow, 'parent' | 'startedAt' | 'cpuSeconds'> {
  // From the third member on (proc(5)): state, parent; user and system time are the 14th and 15th, the start is the 22nd.
  const members = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  const ticks = (place: number) => Number(members[place - 3]) / TICKS_PER_SECOND;
  return { parent: Number(members[1]), cpuSeconds: ticks(14) + ticks(15), startedAt: ticks(22) };
}

/** Of /proc/PID/status; a process that has ended and is not reaped has none. */
function residentOf(status: string): number {
  return Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)?.[1] ?? 0) * 1024;
}

/** Since the boot, s. */
export function secondsSinceBoot(): number {
  return Number(readFileSync('/proc/uptime', 'utf8').split(' ')[0]);
}

/** A process and all that it started, as far as that still lives. */
export function treeOf(processes: ReadonlyMap<number, ProcessNow>, pid: number): ProcessNow[] {
  const root = processes.get(pid);
  if (root === undefined) return [];
  const children = [...processes.values()].filter(({ parent }) => parent === pid);
  return [root, ...children.flatMap((child) => treeOf(processes, child.pid))];
}

/** CPU of process trees between two looks. */
export class CpuMeter {
  private last = new Map<number, { at: number; cpuSeconds: number; startedAt: number }>();

  /** @param at steady, s @returns percent of one core since the look before; null at the first look */
  percent(at: number, tree: readonly ProcessNow[]): number | null {
    const [root] = tree;
    if (root === undefined) return null;
    const cpuSeconds = tree.reduce((sum, each) => sum + each.cpuSeconds, 0);
    const before = this.last.get(root.pid);
    this.last.set(root.pid, { at, cpuSeconds, startedAt: root.startedAt });
    // The same id may be another process by now; and of a child that ended, what it took is no longer counted.
    if (before === undefined || before.startedAt !== root.startedAt || at <= before.at) return null;
    return Math.max((100 * (cpuSeconds - before.cpuSeconds)) / (at - before.at), 0);
  }
}

/** The environment that a process was started with. @throws Error EACCES where it belongs to somebody else */
export function environmentOf(pid: number): Record<string, string> {
  const pairs = readFileSync(`/proc/${pid}/environ`, 'utf8').split('\0').slice(0, -1);
  return Object.fromEntries(pairs.map((pair) => [pair.slice(0, pair.indexOf('=')), pair.slice(pair.indexOf('=') + 1)]));
}

/** @throws Error EACCES where it belongs to somebody else */
export function directoryOf(pid: number): string {
  return readlinkSync(`/proc/${pid}/cwd`);
}

/** Inodes of the sockets that listen, by port; of all addresses. @param text of /proc/net/tcp or tcp6 */
export function listenersFrom(text: string): Map<number, string[]> {
  const found = new Map<number, string[]>();
  for (const line of text.split('\n').slice(1)) {
    const [, local, , state, , , , , , inode] = line.trim().split(/\s+/);
    if (local === undefined || inode === undefined || state !== LISTEN) continue;
    const port = Number.parseInt(local.slice(local.lastIndexOf(':') + 1), 16);
    found.set(port, [...(found.get(port) ?? []), inode]);
  }
  return found;
}

/** Who listens on each of these ports: pids, null for a process that this user may not see into; absent: nobody. */
export function listenersOn(ports: readonly number[]): Map<number, (number | null)[]> {
  const inodes = new Map<number, string[]>();
  for (const file of ['/proc/net/tcp', '/proc/net/tcp6']) {
    // Without IPv6 there is no such file.
    const text = ifThere(() => readFileSync(file, 'utf8'));
    for (const [port, found] of listenersFrom(text ?? '')) inodes.set(port, [...(inodes.get(port) ?? []), ...found]);
  }
  const owners = socketOwners();
  const known = ports.filter((port) => inodes.has(port));
  return new Map(
    known.map((port) => [port, [...new Set(inodes.get(port)!.map((inode) => owners.get(inode) ?? null))]]),
  );
}

/** Who listens on a Unix socket of the abstract namespace, whether it answers or not. @returns null where this user may not see into it */
export function listenerOnSocket(path: string): number | null {
  const lines = readFileSync('/proc/net/unix', 'utf8').split('\n').slice(1);
  const found = lines
    .map((line) => line.trim().split(/\s+/))
    // Node fills a name up with zeros, which are shown as `@`, too.
    .find(([, , , flags, , , , name]) => flags === UNIX_LISTENING && name?.replace(/@+$/, '') === `@${path.slice(1)}`);
  return (found && socketOwners().get(found[6]!)) ?? null;
}

function socketOwners(): Map<string, number> {
  const owners = new Map<string, number>();
  for (const pid of readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
    for (const file of ifThere(() => readdirSync(`/proc/${pid}/fd`)) ?? []) {
      const inode = /^socket:\[(\d+)\]$/.exec(ifThere(() => readlinkSync(join('/proc', pid, 'fd', file))) ?? '')?.[1];
      if (inode !== undefined) owners.set(inode, Number(pid));
    }
  }
  return owners;
}

/** @returns null for what has gone meanwhile, or is somebody else's */
function ifThere<T>(read: () => T): T | null {
  try {
    return read();
  } catch (error) {
    if (['ENOENT', 'ESRCH', 'EACCES', 'EPERM'].includes((error as NodeJS.ErrnoException).code ?? '')) return null;
    throw error;
  }
}
