/** Ports for processes that are started together and told each other's addresses. */
import { createServer } from 'node:net';

/**
 * Below the range from which the kernel gives ports to outgoing connections and to `listen(0)`: a port of that range may be taken
 * by anybody between its choice and its use.
 */
const FIRST_PORT = 10_000;
const LAST_PORT = 31_999;

/** A port on which nothing listens, and nothing `offset` above it. */
export async function freePort(offset = 0): Promise<number> {
  for (;;) {
    const port = FIRST_PORT + Math.floor(Math.random() * (LAST_PORT - offset - FIRST_PORT));
    if ((await isPortFree(port)) && (offset === 0 || (await isPortFree(port + offset)))) return port;
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
