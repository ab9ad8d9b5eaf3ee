/** What every long-running script shares: /health and /metrics over HTTP, and a clean stop. */
import { statfs } from 'node:fs/promises';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { collectDefaultMetrics, Gauge, Registry } from 'prom-client';
import { OperatorError } from './cli.ts';
import { heedHangup } from './hangup.ts';
import { KEEP_ALIVE_MS } from './keep_alive.ts';
import type { Logger } from './log.ts';
import { tellManager } from './service_manager.ts';

/** A stop that takes longer than this is given up: what was not confirmed is redelivered or fetched again. */
const STOP_LIMIT_MS = 10_000;

export const VERSION = '0.1.0';

/**
 * A registry with the process' own figures (CPU, memory, event-loop lag, time of its start) under `marketprism_`, and with `dataDir` those of
 * the disk that it lies on.
 */
export function createRegistry({ dataDir }: { dataDir?: string } = {}): Registry {
  const registry = new Registry();
  collectDefaultMetrics({ register: registry, prefix: 'marketprism_' });
  if (dataDir !== undefined) registerDisk(registry, dataDir);
  return registry;
}

export type MakeGauge = (name: string, help: string, labelNames: string[], collect: (gauge: Gauge) => void) => Gauge;

/** Makes gauges under `marketprism_` that are read whenever the metrics are asked for; what `collect` does not set then has no sample. */
export function gaugeMaker(registry: Registry): MakeGauge {
  return (name, help, labelNames, collect) =>
    new Gauge({
      name: `marketprism_${name}`,
      help,
      labelNames,
      registers: [registry],
      collect() {
        this.reset();
        // A gauge without labels is 0 after that.
        if (labelNames.length === 0) this.remove();
        collect(this);
      },
    });
}

/** While the disk cannot be asked, there is no sample of it. */
function registerDisk(registry: Registry, dataDir: string): void {
  const gauge = (name: string, help: string, blocks: 'blocks' | 'bavail') =>
    new Gauge({
      name: `marketprism_${name}`,
      help,
      registers: [registry],
      async collect() {
        const disk = await statfs(dataDir).catch(() => null);
        if (disk === null) this.remove();
        else this.set(disk[blocks] * disk.bsize);
      },
    });
  gauge('disk_free_bytes', 'free on the disk with the data directory, for others than root', 'bavail');
  gauge('disk_size_bytes', 'size of the disk with the data directory', 'blocks');
}

const HEALTH_VALUES: Record<CheckStatus, number> = { unhealthy: 0, degraded: 1, healthy: 2 };

/** What /health says, for alerts: once in a registry, also when that is served on two ports. */
function registerHealth(registry: Registry, health: () => HealthDocument): void {
  const name = 'marketprism_health_status';
  if (registry.getSingleMetric(name) !== undefined) return;
  // The first is read first, and sets the second.
  new Gauge({
    name,
    help: 'the status in /health: 2 healthy, 1 degraded, 0 unhealthy',
    registers: [registry],
    collect() {
      const document = health();
      this.set(HEALTH_VALUES[document.status]);
      checks.reset();
      for (const [check, { status }] of Object.entries(document.checks)) checks.set({ check }, HEALTH_VALUES[status]);
    },
  });
  const checks = new Gauge({
    name: 'marketprism_health_check_status',
    help: 'each check of /health: 2 healthy, 1 degraded, 0 unhealthy',
    labelNames: ['check'],
    registers: [registry],
  });
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

export interface StatusOptions {
  health(): HealthDocument;
  registry: Registry;
  log: Logger;
}

export interface HttpOptions extends StatusOptions {
  port: number;
  /** The environment variable that sets the port, for the message when it is in use. */
  portName: string;
}

export interface StatusAnswer {
  status: number;
  type: string;
  body: string;
}

/** What each service answers on its own: /health (200, or 503 when unhealthy), /metrics, /ping and /version; null for any other path. */
export function statusAnswers({
  health,
  registry,
  log,
}: StatusOptions): (path: string) => Promise<StatusAnswer | null> {
  registerHealth(registry, health);
  const text = (status: number, body: string): StatusAnswer => ({ status, type: 'text/plain', body });
  const json = (status: number, document: object): StatusAnswer => ({
    status,
    type: 'application/json',
    body: `${JSON.stringify(document)}\n`,
  });
  return async (path) => {
    if (path === '/health' || path === '/status') {
      const document = health();
      return json(document.status === 'unhealthy' ? 503 : 200, document);
    }
    if (path === '/ping') return text(200, 'pong\n');
    if (path === '/version') return json(200, { version: VERSION });
    if (path !== '/metrics') return null;
    try {
      return { status: 200, type: registry.contentType, body: await registry.metrics() };
    } catch (error) {
      log.error({ event: 'metrics_failed', err: error });
      return text(500, `${String(error)}\n`);
    }
  };
}

const NOT_FOUND: StatusAnswer = {
  status: 404,
  type: 'text/plain',
  body: 'there are /health, /metrics, /ping and /version\n',
};

/**
 * Serves /health, /metrics, /ping and /version on 127.0.0.1.
 * @throws OperatorError when the port is in use.
 */
export async function serveStatus(options: HttpOptions): Promise<{ port: number; close(): Promise<void> }> {
  const answers = statusAnswers(options);
  const server = createServer({ keepAliveTimeout: KEEP_ALIVE_MS }, async (request, response) => {
    const answer = await answers(request.url?.split('?')[0] ?? '');
    const { status, type, body } = answer ?? NOT_FOUND;
    response.writeHead(status, { 'content-type': type, 'cache-control': 'no-store' });
    response.end(request.method === 'HEAD' ? undefined : body);
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

/** A port that somebody else has, in words. */
export function portTaken(port: number, portName: string): OperatorError {
  return new OperatorError(`port ${port} is in use: stop what listens there, or set ${portName} to another one`);
}

function listen(server: Server, port: number, portName: string): Promise<void> {
  return new Promise((done, fail) => {
    server.once('error', (error: NodeJS.ErrnoException) => {
      fail(error.code === 'EADDRINUSE' ? portTaken(port, portName) : error);
    });
    server.listen(port, '127.0.0.1', done);
  });
}

/**
 * Resolves at the first SIGINT or SIGTERM, or when the terminal is closed. From then on the process has 10 s; a second signal ends it at once.
 */
export function untilStopped(log: Logger): Promise<NodeJS.Signals> {
  return new Promise((done) => {
    const onSignal = (signal: NodeJS.Signals) => {
      log.info({ event: 'stopping', signal });
      tellManager('STOPPING=1');
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
    heedHangup(() => onSignal('SIGHUP'), log);
  });
}
