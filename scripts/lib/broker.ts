/** Our own nats-server: found, configured, started. */
import { accessSync, constants, mkdirSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { delimiter, join } from 'node:path';
import type { ChildPlan } from './processes.ts';

/** The monitoring port stands this far above the client port: 4222 and 8222 are the usual pair. */
export const MONITOR_OFFSET = 4000;
/** The streams' sizes are reserved at the broker; this much beyond them is for what it needs itself. */
const SPARE_BYTES = 2 ** 30;
/**
 * nats-server collects its garbage in time to stay near this. Left alone it lets the heap double before it does, and after a backlog
 * holds what it took then: up to 950 MiB in ten minutes of chaos, a fourth of a small server. Data that is in use may go beyond.
 */
export const BROKER_MEMORY = '256MiB';

/** The path of nats-server, or null when it is not installed. */
export function findNatsServer(): string | null {
  const places = [...(process.env.PATH ?? '').split(delimiter), '/usr/sbin', '/usr/local/bin'];
  for (const place of places) {
    const path = join(place, 'nats-server');
    try {
      accessSync(path, constants.X_OK);
      return path;
    } catch {
      // Not here: the next place is looked at.
    }
  }
  return null;
}

/**
 * The configuration of an own broker.
 * @param directory absolute, where its streams are @param streamBytes what they may take together
 */
export function brokerConfig(directory: string, port: number, streamBytes: number): string {
  return [
    `listen: "127.0.0.1:${port}"`,
    `http: "127.0.0.1:${port + MONITOR_OFFSET}"`,
    `jetstream { store_dir: ${JSON.stringify(directory)}, max_memory_store: 67108864, max_file_store: ${streamBytes + SPARE_BYTES} }`,
    '',
  ].join('\n');
}

/** Writes the configuration and tells how to start the broker on 127.0.0.1:`port` with its streams under `directory`. */
export function brokerPlan(
  binary: string,
  directory: string,
  port: number,
  streamBytes: number,
  logDir: string,
): ChildPlan {
  mkdirSync(directory, { recursive: true });
  const file = join(directory, 'nats.conf');
  writeFileSync(file, brokerConfig(directory, port, streamBytes));
  const env = { ...process.env, GOMEMLIMIT: process.env.GOMEMLIMIT ?? BROKER_MEMORY };
  // After SIGTERM, too, it closes its files in order, but ends with code 1, as if something had failed (seen with 2.9.10).
  return { name: 'nats-server', command: binary, args: ['-c', file], env, logDir, stopSignal: 'SIGINT' };
}

/** True when a NATS server greets on this port. */
export function natsAnswers(port: number): Promise<boolean> {
  return new Promise((done) => {
    const socket = connect(port, '127.0.0.1');
    const finish = (answer: boolean) => {
      socket.destroy();
      done(answer);
    };
    socket.setTimeout(1000, () => finish(false));
    socket.once('data', (chunk) => finish(chunk.toString().startsWith('INFO ')));
    socket.once('error', () => finish(false));
  });
}
