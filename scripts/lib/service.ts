/** What every long-running script shares: /health and /metrics over HTTP, and a clean stop. */
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { collectDefaultMetrics, Registry } from 'prom-client';
import { OperatorError } from './cli.ts';
import type { Logger } from './log.ts';

/** A stop that takes longer than this is given up: what was not confirmed is redelivered or fetched again. */
const STOP_LIMIT_MS = 10_000;

export const VERSION = '0.1.0';

/** A registry with the process' own figures (CPU, memory, event-loop lag) under `marketprism_`. */
export function createRegistry(): Registry {
  const registry = new Registry();
  collectDefaultMetrics({ register: registry, prefix: 'marketprism_' });
  return registry;
}

export type CheckStatus = 'healthy' | 'degraded' | 'unhealthy';

export interface Check {
  status: CheckStatus;
  /** One line when it is not healthy. */
  error_message: string | null;
  /** s, of the last exchange with what is checked; null: none yet, or it answers nothing. */
  response_time?: number | null;
  details?: object;
}

/** The /health document: the worst check decides, except that nothing is unhealthy in the first `graceSeconds`. */
export function healthDocument(service: string, graceSeconds: number, checks: Record<string, Check>, more: object) {
  const now = Date.now();
  // Not from the wall clock, which may have been set since the start.
  const uptime = process.uptime();
  const statuses = Object.values(checks).map((check) => check.status);
  const worst: CheckStatus = statuses.includes('unhealthy')
    ? 'unhealthy'
    : statuses.includes('degraded')
      ? 'degraded'
      : 'healthy';
  const graceApplied = worst === 'unhealthy' && uptime < graceSeconds;
  return {
    status: graceApplied ? 'degraded' : worst,
    service,
    timestamp: new Date(now).toISOString(),
    version: VERSION,
    uptime,
    checks: Object.fromEntries(
      Object.entries(checks).map(([name, check]) => [
        name,
        { response_time: null, ...check, last_check: new Date(now).toISOString() },
      ]),
    ),
    summary: {
      total_services: statuses.length,
      healthy_services: statuses.filter((status) => status === 'healthy').length,
      unhealthy_services: statuses.filter((status) => status === 'unhealthy').length,
    },
    grace: { applied: graceApplied, uptime, grace_seconds: graceSeconds },
    ...more,
  };
}

export type HealthDocument = ReturnType<typeof healthDocument>;

export interface HttpOptions {
  port: number;
  /** The environment variable that sets the port, for the message when it is in use. */
  portName: string;
  health(): HealthDocument;
  registry: Registry;
  log: Logger;
}

/**
 * Serves /health (200, or 503 when unhealthy), /metrics, /ping and /version on 127.0.0.1.
 * @throws OperatorError when the port is in use.
 */
export async function serveStatus(options: HttpOptions): Promise<{ port: number; close(): Promise<void> }> {
  const { health, registry, log } = options;
  const server = createServer((request, response) => {
    const send = (status: number, type: string, body: string) => {
      response.writeHead(status, { 'content-type': type, 'cache-control': 'no-store' });
      response.end(request.method === 'HEAD' ? undefined : body);
    };
    const path = request.url?.split('?')[0];
    if (path === '/health' || path === '/status') {
      const document = health();
      send(document.status === 'unhealthy' ? 503 : 200, 'application/json', `${JSON.stringify(document)}\n`);
    } else if (path === '/metrics') {
      registry.metrics().then(
        (text) => send(200, registry.contentType, text),
        (error: unknown) => {
          log.error({ event: 'metrics_failed', err: error });
          send(500, 'text/plain', `${String(error)}\n`);
        },
      );
    } else if (path === '/ping') send(200, 'text/plain', 'pong\n');
    else if (path === '/version') send(200, 'application/json', `${JSON.stringify({ version: VERSION })}\n`);
    else send(404, 'text/plain', 'there are /health, /metrics, /ping and /version\n');
  });
  await listen(server, options.port, options.portName);
  const { port } = server.address() as AddressInfo;
  const close = () =>
    new Promise<void>((done) => {
      server.close(() => done());
      server.closeAllConnections();
    });
  return { port, close };
}

function listen(server: Server, port: number, portName: string): Promise<void> {
  return new Promise((done, fail) => {
    server.once('error', (error: NodeJS.ErrnoException) => {
      const taken = `port ${port} is in use: stop what listens there, or set ${portName} to another one`;
      fail(error.code === 'EADDRINUSE' ? new OperatorError(taken) : error);
    });
    server.listen(port, '127.0.0.1', done);
  });
}

/**
 * Resolves at the first SIGINT or SIGTERM. From then on the process has 10 s; a second signal ends it at once.
 */
export function untilStopped(log: Logger): Promise<NodeJS.Signals> {
  return new Promise((done) => {
    const onSignal = (signal: NodeJS.Signals) => {
      log.info({ event: 'stopping', signal });
      setTimeout(() => {
        log.error({ event: 'stop_forced' }, `not stopped within ${STOP_LIMIT_MS / 1000} s`);
        process.exit(1);
      }, STOP_LIMIT_MS).unref();
      for (const each of ['SIGINT', 'SIGTERM'] as const) {
        process.off(each, onSignal);
        process.once(each, () => process.exit(1));
      }
      done(signal);
    };
    process.on('SIGINT', onSignal);
    process.on('SIGTERM', onSignal);
  });
}
