/** What Linux says of processes and sockets under /proc. What ends meanwhile is left out. Source: proc(5), proc_pid_stat(5), proc_net(5). */
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';

/** Linux tells times of processes in hundredths of a second, whatever the kernel counts in (USER_HZ). */
const TICKS_PER_SECOND = 100;
/** `st` of a connection that is up, and of a socket that listens. */
const ESTABLISHED = '01';
const LISTEN = '0A';
/** Flags of a listening socket in /proc/net/unix (__SO_ACCEPTCON). */
const UNIX_LISTENING = '00010000';
const KIB = 1024;
/** What the system says of a process that has gone, is just going, or is another user's. */
const NOT_THERE = ['ENOENT', 'ESRCH', 'EACCES', 'EPERM'];

/** A process that is ending has no memory any more, before it is gone. */
class NoMemory extends Error {}

/** @returns null for what has gone meanwhile, or is somebody else's */
function ifThere<T>(read: () => T): T | null {
  try {
    return read();
  } catch (error) {
    if (error instanceof NoMemory || NOT_THERE.includes((error as NodeJS.ErrnoException).code ?? '')) return null;
    throw error;
  }
}

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
  for (const pid of pids()) {
    const process = ifThere(() => readProcess(pid));
    if (process !== null) found.set(pid, process);
  }
  return found;
}

function pids(): number[] {
  return readdirSync('/proc').flatMap((name) => (/^\d+$/.test(name) ? Number(name) : []));
}

function readProcess(pid: number): ProcessNow {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
  const status = readFileSync(`/proc/${pid}/status`, 'utf8');
  const argv = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0').slice(0, -1);
  // One that has ended and is not waited for has none.
  return { pid, argv, ...statFigures(stat), residentBytes: residentBytes(status) ?? 0 };
}

/**
 * Of a line of /proc/PID/stat. The name in brackets may hold blanks and brackets itself.
 * @throws Error when it is no such text
 */
export function statFigures(stat: string): Pick<ProcessNow, 'parent' | 'startedAt' | 'cpuSeconds'> {
  // From the third member on: state, parent; user and system time are the 14th and 15th, the start is the 22nd.
  const members = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  const ticks = (place: number) => Number(members[place - 3]) / TICKS_PER_SECOND;
  const figures = { parent: Number(members[1]), cpuSeconds: ticks(14) + ticks(15), startedAt: ticks(22) };
  if (!Object.values(figures).every(Number.isFinite)) throw new Error('/proc/PID/stat has no CPU times');
  return figures;
}

/** Of /proc/PID/status. @returns null: it has ended and is not waited for */
export function residentBytes(status: string): number | null {
  const kib = /^VmRSS:\s+(\d+) kB$/m.exec(status)?.[1];
  return kib === undefined ? null : Number(kib) * KIB;
}

/** Resident bytes and threads. @throws Error when they are not there, as of a process that is ending, or has ended and is not waited for */
export function memoryAndThreads(status: string): { rssBytes: number; threads: number } {
  const [rssBytes, threads] = [residentBytes(status), /^Threads:\s+(\d+)$/m.exec(status)?.[1]];
  if (rssBytes === null || threads === undefined) throw new NoMemory('/proc/PID/status has no VmRSS or no Threads');
  return { rssBytes, threads: Number(threads) };
}

/** @returns null for a process that has gone */
export function residentOf(pid: number): number | null {
  const status = ifThere(() => readFileSync(`/proc/${pid}/status`, 'utf8'));
  return status === null ? null : residentBytes(status);
}

/** One look at a process, its descriptors included. */
export interface ProcessFigures {
  rssBytes: number;
  threads: number;
  fds: number;
  cpuSeconds: number;
  /** Inodes of its sockets. */
  sockets: ReadonlySet<string>;
}

/** @returns null when the process is not there (any more), or may not be looked at */
export function lookAt(pid: number): ProcessFigures | null {
  return ifThere(() => {
    const { fds, sockets } = descriptorsOf(pid);
    const own = memoryAndThreads(readFileSync(`/proc/${pid}/status`, 'utf8'));
    const { cpuSeconds } = statFigures(readFileSync(`/proc/${pid}/stat`, 'utf8'));
    return { ...own, fds, cpuSeconds, sockets };
  });
}

/** @throws Error of a process that is not there, or may not be looked at */
function descriptorsOf(pid: number): { fds: number; sockets: Set<string> } {
  const names = readdirSync(`/proc/${pid}/fd`);
  // One may have been closed since the directory was read.
  const targets = names.map((name) => ifThere(() => readlinkSync(`/proc/${pid}/fd/${name}`)));
  return { fds: names.length, sockets: new Set(targets.flatMap((each) => socketInode(each ?? '') ?? [])) };
}

/** The inode in what a descriptor of /proc/PID/fd points to; null: it is no socket. */
export function socketInode(target: string): string | null {
  return /^socket:\[(\d+)\]$/.exec(target)?.[1] ?? null;
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

export interface TcpSocket {
  localPort: number;
  remotePort: number;
  inode: string;
}

/** Sockets of /proc/net/tcp or tcp6 in one state. */
function socketsIn(text: string, wanted: string): TcpSocket[] {
  return text.split('\n').flatMap((line) => {
    const [, local, remote, state, , , , , , inode] = line.trim().split(/\s+/);
    if (state !== wanted || inode === undefined) return [];
    return { localPort: portOf(local!), remotePort: portOf(remote!), inode };
  });
}

function portOf(address: string): number {
  return Number.parseInt(address.slice(address.lastIndexOf(':') + 1), 16);
}

/** Both of IPv4 and IPv6, of this network namespace; without IPv6 there is no such file. */
function tcpTables(): string[] {
  return ['/proc/net/tcp', '/proc/net/tcp6'].flatMap((path) => ifThere(() => readFileSync(path, 'utf8')) ?? []);
}

/** Connections that are up. @param text of /proc/net/tcp or tcp6 */
export function establishedSockets(text: string): TcpSocket[] {
  return socketsIn(text, ESTABLISHED);
}

/** Connections of this machine that are up. */
export function readSockets(): TcpSocket[] {
  return tcpTables().flatMap(establishedSockets);
}

/** Connections that a process opened to one of these ports. @param own inodes of its sockets */
export function connectionsTo(
  ports: ReadonlySet<number>,
  sockets: readonly TcpSocket[],
  own: ReadonlySet<string>,
): number {
  return sockets.filter(({ remotePort, inode }) => ports.has(remotePort) && own.has(inode)).length;
}

/** Inodes of the sockets that listen, by port; of all addresses. @param text of /proc/net/tcp or tcp6 */
export function listenersFrom(text: string): Map<number, string[]> {
  const found = new Map<number, string[]>();
  for (const { localPort, inode } of socketsIn(text, LISTEN))
    found.set(localPort, [...(found.get(localPort) ?? []), inode]);
  return found;
}

/** Who listens on each of these ports: pids, null for a process that this user may not see into; absent: nobody. */
export function listenersOn(ports: readonly number[]): Map<number, (number | null)[]> {
  const inodes = listenersFrom(tcpTables().join('\n'));
  const owners = socketOwners();
  const known = ports.filter((port) => inodes.has(port));
  return new Map(
    known.map((port) => [port, [...new Set(inodes.get(port)!.map((inode) => owners.get(inode) ?? null))]]),
  );
}

interface UnixSocket {
  inode: string;
  /** With `@` for the leading zero byte. */
  name: string;
  isListening: boolean;
}

/** Sockets of the abstract namespace. @param text of /proc/net/unix */
function unixSockets(text: string): UnixSocket[] {
  return text.split('\n').flatMap((line) => {
    const [, , , flags, , , inode, name] = line.trim().split(/\s+/);
    if (inode === undefined || !name?.startsWith('@')) return [];
    // Node fills a name up with zeros, which are shown as `@`, too.
    return { inode, name: name.replace(/@+$/, ''), isListening: flags === UNIX_LISTENING };
  });
}

/** Names of sockets in the abstract namespace by inode. @param text of /proc/net/unix */
export function abstractSockets(text: string): Map<string, string> {
  return new Map(unixSockets(text).map(({ inode, name }) => [inode, name]));
}

/** The same of this machine. */
export function readAbstractSockets(): Map<string, string> {
  return abstractSockets(readFileSync('/proc/net/unix', 'utf8'));
}

/** Who listens on a Unix socket of the abstract namespace, whether it answers or not. @returns null where this user may not see into it */
export function listenerOnSocket(path: string): number | null {
  const found = unixSockets(readFileSync('/proc/net/unix', 'utf8')).find(
    ({ name, isListening }) => isListening && name === `@${path.slice(1)}`,
  );
  return (found && socketOwners().get(found.inode)) ?? null;
}

function socketOwners(): Map<string, number> {
  const owners = new Map<string, number>();
  for (const pid of pids())
    for (const inode of ifThere(() => descriptorsOf(pid))?.sockets ?? []) owners.set(inode, pid);
  return owners;
}
