/** The embedded ClickHouse: the engine in this process, served over ClickHouse's HTTP interface. */
import { spawn } from 'node:child_process';
import { accessSync, constants, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { flags, OperatorError, runAsScript, UsageError, wholeNumber } from './lib/cli.ts';
import { loadConfig } from './lib/config.ts';
import { DiskGuard, untilRoom } from './lib/embedded/disk_guard.ts';
import { Engine } from './lib/embedded/engine.ts';
import { DEFAULT_SESSIONS, engineEnvironment, SPARE_THREADS } from './lib/embedded/environment.ts';
import { EmbeddedServer } from './lib/embedded/server.ts';
import { heedHangup } from './lib/hangup.ts';
import { type Lock, takeLock } from './lib/lock.ts';
import { createLogger, type Logger } from './lib/log.ts';
import { tellManager, tellReady } from './lib/service_manager.ts';
import { Answering } from './lib/vital_signs.ts';

const USAGE = `
Usage: npx tsx scripts/clickhouse_embedded.ts [flags]

Runs the ClickHouse engine (npm chdb) on one data directory and serves the ClickHouse HTTP interface, so that
@clickhouse/client and curl work as with a server. One process per data directory.

  --data-dir DIR    where the data is kept (made when missing; default: clickhouse in MARKETPRISM_DATA_DIR, of a demo in its demo folder)
  --port N          port, 0 picks a free one (default 8123)
  --host ADDRESS    address to listen on (default 127.0.0.1; there are no passwords)
  --sessions N      queries that run side by side, 3 to 64 (default 6)
  --memory SIZE     memory limit of the engine, such as 1GiB or 512MiB (default 1GiB)
  --cluster NAME    be the only server of a cluster of that name: Distributed tables, cluster() and clusterAllReplicas() work
  --help            this text

  GET /ping, /health, /metrics

With UV_THREADPOOL_SIZE in the environment (sessions + 4) this process is the engine itself; without, it starts a child that is.

Example:
  npx tsx scripts/clickhouse_embedded.ts --data-dir data/clickhouse
  curl 'http://127.0.0.1:8123/?query=SELECT%201'
`;

const DEFAULT_PORT = 8123;

const DEFAULT_MEMORY_BYTES = 1024 ** 3;

/** Below this the engine cannot merge. */
const MIN_MEMORY_BYTES = 256 * 1024 ** 2;

/** As in MARKETPRISM_CLICKHOUSE_CLUSTER. */
const CLUSTER_NAME = /^[A-Za-z_][\w-]*$/;

/** A killed holder of the data directory is gone within this time. */
const LOCK_WAIT_MS = 1000;

/** A busy engine answers this within a second or two: it has a session of its own. */
const ANSWER_LIMIT_MS = 20_000;

/** Set in the child that does the work, so that it does not start another one. */
const CHILD_MARK = 'MARKETPRISM_EMBEDDED_CHILD';

export interface EmbeddedOptions {
  dataDir: string;
  /** 0 picks a free one. */
  port: number;
  host: string;
  sessions: number;
  memoryBytes: number;
  cluster: string | null;
  log: Logger;
  /** Ends the wait for room on a full disk. */
  stop: AbortSignal;
}

export interface Embedded {
  port: number;
  /** Stops within ten seconds: running queries may end, then are cancelled. */
  close(): Promise<void>;
}

/**
 * Bytes of a size such as `512MiB`, `1GiB` or `1.5GB`.
 * @throws UsageError naming `what`.
 */
export function byteSize(what: string, text: string): number {
  const match = /^(\d+(?:\.\d+)?)\s*([KMGT]i?B?)?$/i.exec(text);
  if (!match) throw new UsageError(`${what} takes a size such as 1GiB or 512MiB, not "${text}"`);
  const unit = (match[2] ?? '').toUpperCase();
  const base = unit.includes('I') || unit.length === 1 ? 1024 : 1000;
  const power = unit === '' ? 0 : 'KMGT'.indexOf(unit[0]!) + 1;
  return Math.round(Number(match[1]) * base ** power);
}

/**
 * Opens the engine on `dataDir` and serves it.
 * @throws OperatorError when the directory is held or not writable, the port taken, or chdb not installed.
 */
export async function startEmbedded(options: EmbeddedOptions): Promise<Embedded> {
  const { dataDir, log } = options;
  try {
    mkdirSync(dataDir, { recursive: true });
    accessSync(dataDir, constants.W_OK | constants.X_OK);
  } catch (error) {
    throw new OperatorError(`the data directory ${dataDir} cannot be written: ${(error as Error).message}`);
  }
  const lock = await lockSoon(dataDir);
  const threads = Number(process.env.UV_THREADPOOL_SIZE ?? 4);
  if (threads < options.sessions + SPARE_THREADS) {
    log.warn({ event: 'few_threads', threads, wanted: options.sessions + SPARE_THREADS });
  }
  await untilRoom(dataDir, log, options.stop);
  const engine = new Engine(options);
  const disk = new DiskGuard({
    path: dataDir,
    log,
    merge: (isAllowed) => engine.merge(isAllowed),
    end: () => process.kill(process.pid, 'SIGKILL'),
  });
  const server = new EmbeddedServer({ engine, disk, log });
  try {
    const port = await server.listen(options.port, options.host);
    log.info({
      event: 'listening',
      port,
      host: options.host,
      pid: process.pid,
      version: engine.version,
      data_dir: dataDir,
    });
    return {
      port,
      close: async () => {
        disk.close();
        await server.close();
        if (server.runningCount === 0) engine.close();
        await lock.release();
      },
    };
  } catch (error) {
    engine.close();
    await lock.release();
    throw error;
  }
}

/** Takes the lock; a holder that was just killed may need a moment to be gone. */
async function lockSoon(dataDir: string): Promise<Lock> {
  for (const deadline = Date.now() + LOCK_WAIT_MS; ; ) {
    try {
      return await takeLock(dataDir, 'clickhouse_embedded');
    } catch (error) {
      if (Date.now() > deadline) throw error;
      await sleep(LOCK_WAIT_MS / 20);
    }
  }
}

/** Runs until SIGINT or SIGTERM. */
async function serve(options: Omit<EmbeddedOptions, 'stop'>): Promise<number> {
  // Listened for before the port is: whoever sees the first log line may stop us at once.
  const abort = new AbortController();
  const asked = new Promise<string>((stop) => {
    for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => stop(signal));
    heedHangup(() => stop('SIGHUP'), options.log);
  });
  void asked.then(() => abort.abort());
  // A killed parent is a crash: to end at once frees the directory and the port for whoever is started next.
  process.on('disconnect', () => process.kill(process.pid, 'SIGKILL'));
  const embedded = await startEmbedded({ ...options, stop: abort.signal }).catch((error: unknown) => {
    if (!abort.signal.aborted) throw error;
    return null;
  });
  if (embedded === null) process.exit(0);
  // A query as anybody sends it, through its own port.
  const host = options.host === '0.0.0.0' ? '127.0.0.1' : options.host;
  const question = `http://${host}:${embedded.port}/?query=SELECT%201`;
  tellReady(options.log, [new Answering(question, ANSWER_LIMIT_MS)]);
  const why = await asked;
  tellManager('STOPPING=1');
  options.log.info({ event: 'stopping', why });
  await embedded.close();
  options.log.info({ event: 'stopped' });
  process.exit(0);
}

/**
 * Native calls take threads of a pool whose size is read once, before any code of a script runs (the loader of TypeScript uses it
 * first). When the environment does not set it, the work is done by a child that has it; the child ends with this process,
 * however that ends.
 */
function serveInChild(sessions: number): Promise<number> {
  const child = spawn(
    process.execPath,
    [...process.execArgv, fileURLToPath(import.meta.url), ...process.argv.slice(2)],
    {
      stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
      env: { ...process.env, ...engineEnvironment(sessions), [CHILD_MARK]: '1' },
    },
  );
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => child.kill(signal));
  return new Promise((done, fail) => {
    child.on('error', fail);
    child.on('exit', (code) => done(code ?? 1));
  });
}

async function main(): Promise<number> {
  const given = flags(USAGE, {
    'data-dir': { type: 'string' },
    port: { type: 'string', default: String(DEFAULT_PORT) },
    host: { type: 'string', default: '127.0.0.1' },
    sessions: { type: 'string', default: String(DEFAULT_SESSIONS) },
    memory: { type: 'string', default: String(DEFAULT_MEMORY_BYTES) },
    cluster: { type: 'string' },
  });
  const options: Omit<EmbeddedOptions, 'stop'> = {
    dataDir: given['data-dir'] ?? join(loadConfig().dataDir, 'clickhouse'),
    port: wholeNumber('--port', given.port, 0, 65_535),
    host: given.host,
    sessions: wholeNumber('--sessions', given.sessions, 3, 64),
    memoryBytes: byteSize('--memory', given.memory),
    cluster: given.cluster ?? null,
    log: createLogger('clickhouse_embedded'),
  };
  if (options.memoryBytes < MIN_MEMORY_BYTES) throw new UsageError('--memory takes 256MiB or more');
  if (!CLUSTER_NAME.test(given.cluster ?? 'none'))
    throw new UsageError(`--cluster takes letters, digits, _ and -, not "${given.cluster}"`);
  if (process.env[CHILD_MARK] || process.env.UV_THREADPOOL_SIZE) return serve(options);
  return serveInChild(options.sessions);
}

runAsScript(import.meta.url, main);
