/** Ports for processes that are started together and told each other's addresses. */
import { createServer } from 'node:net';

/**
 * Below the range from which the kernel gives ports to outgoing connections and to `listen(0)`: a port of that range may be taken
 * by anybody between its choice and its use.
 */
const FIRST_PORT = 10_000;
const LAST_PORT = 31_999;

/** Processes that look for ports at the same time begin this far apart, as long as their ids are neighbours. */
const PORTS_PER_PROCESS = 97;

const given = new Set<number>();
let next = FIRST_PORT + ((process.pid * PORTS_PER_PROCESS) % (LAST_PORT - FIRST_PORT));

/**
 * A port on which nothing listens, and nothing `offset` above it; never one that this process was given before. One drawn at random
 * would be given twice in one of some hundred sets of ten, before anybody listens on it.
 */
export async function freePort(offset = 0): Promise<number> {
  for (;;) {
    const port = next;
    next = port < LAST_PORT ? port + 1 : FIRST_PORT;
    const both = [port, port + offset];
    if (port + offset > LAST_PORT || both.some((each) => given.has(each))) continue;
    if (!(await isPortFree(port)) || (offset !== 0 && !(await isPortFree(port + offset)))) continue;
    for (const each of both) given.add(each);
    return port;
  }
}

/** Whether nothing listens on this port of 127.0.0.1. */
export function isPortFree(port: number): Promise<boolean> {
  return new Promise((done) => {
    const server = createServer();
    server.once('error', () => done(false));
    server.listen(port, '127.0.0.1', () => server.close(() => done(true)));
  });
}
