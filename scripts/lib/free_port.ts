/** Ports for processes that are started together and told each other's addresses. */
import { createServer } from 'node:net';

/**
 * Below the range from which the kernel gives ports to outgoing connections and to `listen(0)`: a port of that range may be taken
 * by anybody between its choice and its use.
 */
const FIRST_PORT = 10_000;
const LAST_PORT = 31_999;

/** Of that range, what browsers and `fetch` refuse to ask (WHATWG Fetch, "bad port"). */
const REFUSED_PORT = 10_080;

/** Processes that look for ports at the same time begin this far apart, mostly. */
const PORTS_PER_PROCESS = 97;

const given = new Set<number>();
let next = FIRST_PORT + ((process.pid * PORTS_PER_PROCESS) % (LAST_PORT - FIRST_PORT));

/**
 * A port on which nothing listens, and nothing `offset` above it; never one that this process was given before, nor one that any process
 * was given that still lives: what it started there may be stopped just now, and come back.
 */
export async function freePort(offset = 0): Promise<number> {
  for (;;) {
    const port = next;
    next = port < LAST_PORT ? port + 1 : FIRST_PORT;
    const both = [port, port + offset];
    if (port + offset > LAST_PORT || both.some((each) => each === REFUSED_PORT || given.has(each))) continue;
    if (!(await isPortFree(port)) || (offset !== 0 && !(await isPortFree(port + offset)))) continue;
    for (const each of both) given.add(each);
    if ((await Promise.all([...new Set(both)].map(claim))).includes(false)) continue;
    return port;
  }
}

/** Marks a port as given, by a socket in Linux' abstract namespace, which the kernel drops with the process. @returns false when another has it */
function claim(port: number): Promise<boolean> {
  return new Promise((done) => {
    const server = createServer();
    server.once('error', () => done(false));
    server.listen(`\0marketprism-port-${port}`, () => done(true));
    server.unref();
  });
}

/** Whether nothing listens on this port of 127.0.0.1. */
export function isPortFree(port: number): Promise<boolean> {
  return new Promise((done) => {
    const server = createServer();
    server.once('error', () => done(false));
    server.listen(port, '127.0.0.1', () => server.close(() => done(true)));
  });
}
