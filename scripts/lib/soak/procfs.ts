/** What Linux tells of a process in /proc. Source: proc(5), proc_pid_stat(5), proc_net(5). */
import { existsSync, readdirSync, readFileSync, readlinkSync } from 'node:fs';

/** Of utime and stime: a constant of Linux' interface to user space on all machines that Node 20 runs on. */
const TICKS_PER_SECOND = 100;
/** `st` of a connection that is up, and of a socket that listens. */
const ESTABLISHED = '01';
const KIB = 1024;

/** A process that is ending has no memory any more, before it is gone. */
class NoMemory extends Error {}

export interface TcpSocket {
  localPort: number;
  remotePort: number;
  inode: string;
}

/** CPU seconds in user and system mode since the process began. @throws Error when it is no such text */
export function cpuSeconds(stat: string): number {
  // The name stands in parentheses, and may have spaces and parentheses in it.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  const [user, system] = [Number(fields[11]), Number(fields[12])];
  if (!Number.isFinite(user) || !Number.isFinite(system)) throw new Error('/proc/PID/stat has no CPU times');
  return (user + system) / TICKS_PER_SECOND;
}

/** Resident bytes and threads. @throws Error when they are not there, as of a process that is ending, or has ended and is not waited for */
export function memoryAndThreads(status: string): { rssBytes: number; threads: number } {
  const figure = (name: string) => new RegExp(`^${name}:\\s+(\\d+)`, 'm').exec(status)?.[1];
  const [rss, threads] = [figure('VmRSS'), figure('Threads')];
  if (rss === undefined || threads === undefined) throw new NoMemory('/proc/PID/status has no VmRSS or no Threads');
  return { rssBytes: Number(rss) * KIB, threads: Number(threads) };
}

/** Established connections of /proc/net/tcp or tcp6. */
export function establishedSockets(text: string): TcpSocket[] {
  const sockets: TcpSocket[] = [];
  for (const line of text.split('\n').slice(1)) {
    const [, local, remote, state, , , , , , inode] = line.trim().split(/\s+/);
    if (state !== ESTABLISHED || inode === undefined) continue;
    sockets.push({ localPort: portOf(local!), remotePort: portOf(remote!), inode });
  }
  return sockets;
}

function portOf(address: string): number {
  return Number.parseInt(address.slice(address.lastIndexOf(':') + 1), 16);
}

/** Names of sockets in the abstract namespace by inode, as /proc/net/unix tells them: with `@` for the leading zero byte. */
export function abstractSockets(text: string): Map<string, string> {
  const out = new Map<string, string>();
  for (const line of text.split('\n').slice(1)) {
    const found = /^\S+: \S+ \S+ \S+ \S+ \S+ +(\d+) (@.*)$/.exec(line);
    if (found) out.set(found[1]!, found[2]!);
  }
  return out;
}

/** The inode in what a descriptor of /proc/PID/fd points to; null: it is no socket. */
export function socketInode(target: string): string | null {
  return /^socket:\[(\d+)\]$/.exec(target)?.[1] ?? null;
}

/** One look at a process. */
export interface ProcessFigures {
  rssBytes: number;
  threads: number;
  fds: number;
  cpuSeconds: number;
  /** Inodes of its sockets. */
  sockets: ReadonlySet<string>;
}

/** What the system says of a process that has gone, or is just going: to read one that is ending is refused, too. */
const GONE = ['ENOENT', 'ESRCH', 'EACCES'];

/** @returns null when the process is not there (any more), or may not be looked at */
export function readProcess(pid: number): ProcessFigures | null {
  const path = `/proc/${pid}`;
  try {
    const targets = readdirSync(`${path}/fd`).map((fd) => linkTarget(`${path}/fd/${fd}`));
    const sockets = new Set(targets.flatMap((each) => (each === null ? [] : (socketInode(each) ?? []))));
    const own = memoryAndThreads(readFileSync(`${path}/status`, 'utf8'));
    return { ...own, fds: targets.length, cpuSeconds: cpuSeconds(readFileSync(`${path}/stat`, 'utf8')), sockets };
  } catch (error) {
    if (error instanceof NoMemory || GONE.includes((error as NodeJS.ErrnoException).code ?? '')) return null;
    throw error;
  }
}

function linkTarget(path: string): string | null {
  try {
    return readlinkSync(path);
  } catch (error) {
    // Closed since the directory was read.
    if (GONE.includes((error as NodeJS.ErrnoException).code ?? '')) return null;
    throw error;
  }
}

/** Established connections over IPv4 and IPv6 of this network namespace. */
export function readSockets(): TcpSocket[] {
  return ['/proc/net/tcp', '/proc/net/tcp6'].flatMap((path) =>
    existsSync(path) ? establishedSockets(readFileSync(path, 'utf8')) : [],
  );
}

/** Connections that a process opened to one of these ports. */
export function connectionsTo(
  ports: ReadonlySet<number>,
  sockets: readonly TcpSocket[],
  own: ReadonlySet<string>,
): number {
  return sockets.filter(({ remotePort, inode }) => ports.has(remotePort) && own.has(inode)).length;
}
