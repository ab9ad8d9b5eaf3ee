/** Embedded ClickHouse servers as processes, and requests of them. */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { type Agent, request as httpRequest, type IncomingHttpHeaders } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { type ClickHouseClient, type ClickHouseError, createClient } from '@clickhouse/client';

const SCRIPT = join(import.meta.dirname, '..', 'scripts', 'clickhouse_embedded.ts');

/** A query that would run for minutes. */
export const ENDLESS =
  'SELECT count() FROM numbers(1000000000000) WHERE NOT ignore(sipHash64(number)) SETTINGS max_threads = 1';

export interface Server {
  process: ChildProcess;
  pid: number;
  port: number;
  url: string;
  client: ClickHouseClient;
  /** All of stdout so far. */
  log: () => string;
}

interface Reply {
  status: number;
  headers: IncomingHttpHeaders;
  body: Buffer;
  text: string;
}

/** A size that the environment sets makes the started process the engine itself, so that a kill hits it. */
const OWN_PROCESS = { UV_THREADPOOL_SIZE: '10' };

export function launch(args: string[], env: Record<string, string> = OWN_PROCESS): ChildProcess {
  return spawn(process.execPath, ['--import', 'tsx', SCRIPT, ...args], {
    env: { ...process.env, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
}

export const q = (sql: string, values: Record<string, string> = {}) =>
  `/?${new URLSearchParams({ ...values, query: sql })}`;

/** Waits for a state of the server, which the test asserts then; the time it takes is not asserted. */
export async function until(what: string, holds: () => Promise<boolean>, state?: () => unknown): Promise<void> {
  for (let i = 0; i < 300; i++) {
    if (await holds()) return;
    await sleep(50);
  }
  assert.fail(`never: ${what} ${state ? JSON.stringify(state()) : ''}`);
}

export const fails = (code: string, type?: string) => (error: unknown) => {
  assert.equal((error as ClickHouseError).code, code, String(error));
  if (type) assert.equal((error as ClickHouseError).type, type);
  return true;
};

/** The servers of one test file, in a directory of their own; the main one is asked where no other is told. */
export function embeddedServers() {
  const root = mkdtempSync(join(tmpdir(), 'clickhouse-embedded-'));
  const servers: Server[] = [];
  let main: Server;

  async function start(
    dataDir: string,
    args: string[] = [],
    env = OWN_PROCESS as Record<string, string>,
  ): Promise<Server> {
    const child = launch(['--data-dir', dataDir, '--port', '0', ...args], env);
    let log = '';
    let errors = '';
    child.stderr!.on('data', (data: Buffer) => {
      errors += data.toString();
    });
    const port = await new Promise<number>((done, fail) => {
      createInterface({ input: child.stdout! }).on('line', (line) => {
        log += `${line}\n`;
        const event = JSON.parse(line) as { event: string; port: number };
        if (event.event === 'listening') done(event.port);
      });
      child.once('exit', (code) => fail(new Error(`exit ${code}: ${errors}`)));
    });
    const url = `http://127.0.0.1:${port}`;
    const client = createClient({ url, request_timeout: 30_000, log: { level: 127 } });
    const pid = Number(/"pid":(\d+)/.exec(log)![1]);
    const server = { process: child, pid, port, url, client, log: () => log };
    servers.push(server);
    return server;
  }

  async function stop(server: Server, signal: NodeJS.Signals = 'SIGTERM'): Promise<number | null> {
    servers.splice(servers.indexOf(server), 1);
    await server.client.close();
    if (server.process.exitCode !== null || server.process.signalCode !== null) return server.process.exitCode;
    const exit = once(server.process, 'exit');
    server.process.kill(signal);
    const [code] = (await exit) as [number | null];
    return code;
  }

  async function startMain(): Promise<Server> {
    main = await start(join(root, 'main'));
    return main;
  }

  /** Ends what still runs, and removes the directory. */
  async function end(): Promise<void> {
    for (const server of [...servers]) await stop(server, 'SIGKILL');
    rmSync(root, { recursive: true, force: true });
  }

  /** One HTTP request of its own connection. */
  function http(
    path: string,
    {
      method = 'POST',
      body,
      headers = {},
      port = main.port,
      agent = false,
    }: {
      method?: string;
      body?: string | Buffer | undefined;
      headers?: Record<string, string>;
      port?: number;
      agent?: Agent | false;
    } = {},
  ): Promise<Reply> {
    return new Promise((done, fail) => {
      const call = httpRequest({ port, host: '127.0.0.1', path, method, headers, agent }, (response) => {
        const pieces: Buffer[] = [];
        response.on('data', (piece: Buffer) => pieces.push(piece));
        response.on('error', fail);
        response.on('end', () => {
          const all = Buffer.concat(pieces);
          done({ status: response.statusCode!, headers: response.headers, body: all, text: all.toString() });
        });
      });
      call.on('error', fail);
      call.end(body);
    });
  }

  async function rows<T = Record<string, unknown>>(query: string, client = main.client): Promise<T[]> {
    return (await client.query({ query, format: 'JSONEachRow' })).json<T>();
  }

  async function command(query: string, client = main.client): Promise<void> {
    await client.command({ query });
  }

  return { root, start, startMain, stop, end, http, rows, command };
}
