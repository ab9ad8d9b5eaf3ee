/**
 * A lock that a crash releases, and that says who holds it.
 *
 * It is a listening socket in Linux' abstract namespace: the kernel drops it with the process, however that ends, and no
 * stale file can remain. Who comes second connects and is told the holder's pid and name.
 */
import { createHash } from 'node:crypto';
import { existsSync, realpathSync } from 'node:fs';
import { connect, createServer, type Server } from 'node:net';
import { OperatorError } from './cli.ts';

/** A second holder waits no longer than this for the first one's answer. */
const ASK_TIMEOUT_MS = 1000;

/** What a holder says of itself. */
const HOLDER = /^pid (\d+), since (\S+)$/;

export interface Lock {
  release(): Promise<void>;
}

export interface LockHolder {
  /** null: it is held, and its holder does not answer. */
  pid: number | null;
  /** ISO time. */
  since: string | null;
}

/**
 * Takes the lock `name` within `directory` (its real path is part of the identity, so two data directories never meet).
 * @throws OperatorError saying who holds it.
 */
export async function takeLock(directory: string, name: string): Promise<Lock> {
  const path = socketOf(directory, name);
  const server = createServer((peer) => {
    // Who asked and has gone by now is no fault of the holder's: unheard, it would end this process.
    peer.on('error', () => peer.destroy());
    peer.end(`pid ${process.pid}, since ${startedAt}`);
  });
  const startedAt = new Date().toISOString();
  try {
    await listen(server, path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EADDRINUSE') throw error;
    const said = (await askHolder(path)) || 'it does not answer';
    throw new OperatorError(`${name} in ${directory} is already held (${said}): stop that one first`);
  }
  server.unref();
  return { release: () => new Promise((done) => server.close(() => done())) };
}

/** Who holds a lock, without taking it. @returns null when nobody does, or there is no such directory */
export async function lockHolder(directory: string, name: string): Promise<LockHolder | null> {
  if (!existsSync(directory)) return null;
  const said = await askHolder(socketOf(directory, name));
  if (said === null) return null;
  const [, pid, since] = HOLDER.exec(said) ?? [];
  return { pid: pid === undefined ? null : Number(pid), since: since ?? null };
}

/** The socket that is a lock, in Linux' abstract namespace: /proc/net/unix has it with `@` for the first byte. @throws Error ENOENT */
export function socketOf(directory: string, name: string): string {
  const identity = createHash('sha256')
    .update(`${realpathSync(directory)}\n${name}`)
    .digest('hex')
    .slice(0, 32);
  return `\0marketprism-${identity}`;
}

function listen(server: Server, path: string): Promise<void> {
  return new Promise((done, fail) => {
    server.once('error', fail);
    server.listen(path, () => {
      server.off('error', fail);
      done();
    });
  });
}

/** @returns what the holder says, '' when it says nothing in time; null when nobody listens */
function askHolder(path: string): Promise<string | null> {
  return new Promise((done) => {
    let text = '';
    let isThere = true;
    const socket = connect(path);
    socket.setTimeout(ASK_TIMEOUT_MS, () => socket.destroy());
    socket.on('data', (chunk) => {
      text += chunk.toString();
    });
    socket.on('error', (error: NodeJS.ErrnoException) => {
      isThere = error.code !== 'ECONNREFUSED';
    });
    socket.on('close', () => done(isThere ? text : null));
  });
}
