/**
 * A lock that a crash releases, and that says who holds it.
 *
 * It is a listening socket in Linux' abstract namespace: the kernel drops it with the process, however that ends, and no
 * stale file can remain. Who comes second connects and is told the holder's pid and name.
 */
import { createHash } from 'node:crypto';
import { realpathSync } from 'node:fs';
import { connect, createServer, type Server } from 'node:net';
import { OperatorError } from './cli.ts';

/** A second holder waits no longer than this for the first one's answer. */
const ASK_TIMEOUT_MS = 1000;

export interface Lock {
  release(): Promise<void>;
}

/**
 * Takes the lock `name` within `directory` (its real path is part of the identity, so two data directories never meet).
 * @throws OperatorError saying who holds it.
 */
export async function takeLock(directory: string, name: string): Promise<Lock> {
  const identity = `marketprism-${createHash('sha256')
    .update(`${realpathSync(directory)}\n${name}`)
    .digest('hex')
    .slice(0, 32)}`;
  const path = `\0${identity}`;
  const server = createServer((peer) => peer.end(`pid ${process.pid}, since ${startedAt}`));
  const startedAt = new Date().toISOString();
  try {
    await listen(server, path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EADDRINUSE') throw error;
    throw new OperatorError(`${name} in ${directory} is already held (${await askHolder(path)}): stop that one first`);
  }
  server.unref();
  return { release: () => new Promise((done) => server.close(() => done())) };
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

function askHolder(path: string): Promise<string> {
  return new Promise((done) => {
    let text = '';
    const socket = connect(path);
    const finish = () => done(text || 'it does not answer');
    socket.setTimeout(ASK_TIMEOUT_MS, () => socket.destroy());
    socket.on('data', (chunk) => {
      text += chunk.toString();
    });
    socket.on('error', finish);
    socket.on('close', finish);
  });
}
