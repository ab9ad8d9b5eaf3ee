/** The whole set of processes for a soak run: ports, data and, in a demo, exchanges of its own, so that it runs beside a live system. */
import { randomBytes } from 'node:crypto';
import { mkdirSync, symlinkSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { MONITOR_OFFSET } from '../broker.ts';
import { type Config, DEMO_ENDPOINTS, loadConfig, type Mode } from '../config.ts';
import { freePort } from '../free_port.ts';
import type { ChildPlan } from '../processes.ts';
import { SERVICES } from '../services.ts';
import { System } from '../system.ts';
import { soakRoot } from './report.ts';

/** Gaps that there are at the end are filled for up to this long. */
const GAPS_LIMIT_MS = 300_000;
const ALERTER = 'correlation_alert';
/** The alerter as the soak plan has it. */
const TIMEFRAME = '5m';
const PERIODS = '1d,7d';
const LOOP_DELAY = join(import.meta.dirname, 'loop_delay.mjs');

/**
 * What a run takes over from the environment: the set that is captured, and how the machine is reached. All else is left out: ports and databases
 * are its own, nobody is told of its alerts, and its logs are as its figures need them.
 */
const TAKEN_OVER =
  /^(PATH|HOME|TMPDIR|LANG|TZ|NODE_EXTRA_CA_CERTS|SSL_CERT_(FILE|DIR)|(HTTPS?|NO)_PROXY|MARKETPRISM_(EXCHANGES|SYMBOLS|INSTRUMENTS|ORDERBOOK_INTERVAL|DESK_COINS|TIMEZONE|LANG|REPLICATION_SECONDS|LINGER|GAP_AGE|STREAM_MAX_BYTES|STREAM_REPLICAS|ENDPOINTS))$/;

export interface StageOptions {
  id: string;
  mode: Mode;
  /** The configured one, in which all soak runs are. */
  dataDir: string;
  /** Of this run: its data are in there while it goes on. */
  directory: string;
  seed: string;
  /** From one round of the correlation alerter to the next, s. */
  roundSeconds: number;
  /** Of the simulated Hyperliquid, beside those of the symbols. */
  coins: number;
  sampleMs: number;
  environment: NodeJS.ProcessEnv;
  say(line: string): void;
}

export interface SoakStage {
  system: System;
  config: Config;
  /** Where it keeps its data; it is removed at the end unless it is to be kept. */
  dir: string;
  /** Those of broker and database. */
  backends: ReadonlySet<number>;
  /** All on which something listens, by what. */
  ports: ReadonlyMap<string, number>;
  /** Where a process without /metrics tells how late its event loop is. */
  loopDelayFile(name: string): string;
  /** The page of this run, on the run's own web service. */
  page: string;
}

/** Prepares everything; nothing runs before `system.start()`. @throws UsageError for a value that the environment may not have */
export async function openStage(options: StageOptions): Promise<SoakStage> {
  const dir = resolve(options.directory, 'data');
  const { env, natsPort, clickhousePort } = await environmentOf(options, dir);
  const config = loadConfig({ ...env, ...(options.mode === 'demo' ? { MARKETPRISM_ENDPOINTS: '' } : {}) });
  if (options.mode === 'demo') env.MARKETPRISM_ENDPOINTS = join(config.dataDir, DEMO_ENDPOINTS);
  mkdirSync(config.dataDir, { recursive: true });
  // So that the run's own pages show it, too.
  symlinkSync(resolve(soakRoot(options.dataDir)), join(config.dataDir, 'soak'));
  const loopDelays = join(dir, 'loop_delay');
  mkdirSync(loopDelays);
  const loopDelayFile = (name: string) => join(loopDelays, `${name}.json`);
  const system = new System({
    ...{ mode: options.mode, config, natsPort, clickhousePort, seed: options.seed, env, say: options.say },
    simulatorFlags: ['--perpetuals', String(options.coins)],
    gapsLimitMs: GAPS_LIMIT_MS,
    readers: SERVICES.filter(({ role }) => role === 'reader').map(({ name }) => name),
    adjust: (plan) => adjusted(plan, options, loopDelayFile(plan.name)),
  });
  const ports = new Map<string, number>([
    ...([
      ['nats-server', natsPort],
      ['nats-server (monitoring)', natsPort + MONITOR_OFFSET],
      ['clickhouse_embedded', clickhousePort],
      ['collector (metrics)', config.metricsPort],
    ] as const),
    ...SERVICES.flatMap(({ name, port }): [string, number][] => (port === null ? [] : [[name, port(config)]])),
  ]);
  const page = `http://127.0.0.1:${config.webPort}/soak?run=${options.id}`;
  return { system, config, dir, backends: new Set([natsPort, clickhousePort]), ports, loopDelayFile, page };
}

/** Whether a process has /metrics, and so tells how late its event loop is. */
export function serves(name: string): boolean {
  return name === 'clickhouse_embedded' || SERVICES.some((each) => each.name === name && each.port !== null);
}

async function environmentOf({ mode, environment }: StageOptions, dir: string) {
  const [natsPort, clickhousePort] = [await freePort(MONITOR_OFFSET), await freePort()];
  const own = async () => String(await freePort());
  const taken = Object.entries(environment).filter(([name]) => TAKEN_OVER.test(name));
  const env: NodeJS.ProcessEnv = {
    ...Object.fromEntries(taken),
    MARKETPRISM_MODE: mode,
    MARKETPRISM_DATA_DIR: dir,
    MARKETPRISM_NATS_URL: `nats://127.0.0.1:${natsPort}`,
    CLICKHOUSE_URL: `http://127.0.0.1:${clickhousePort}`,
    HEALTH_CHECK_PORT: await own(),
    METRICS_PORT: await own(),
    HOT_STORAGE_HTTP_PORT: await own(),
    COLD_STORAGE_HTTP_PORT: await own(),
    MONITOR_HTTP_PORT: await own(),
    WEB_HTTP_PORT: await own(),
    // Anomalies go the whole way to the monitor, which has nobody to tell.
    MARKETPRISM_API_TOKEN: randomBytes(24).toString('hex'),
    LOG_LEVEL: 'info',
  };
  if (mode === 'demo') delete env.MARKETPRISM_ENDPOINTS;
  return { env, natsPort, clickhousePort };
}

function adjusted(plan: ChildPlan, { roundSeconds, sampleMs }: StageOptions, file: string): ChildPlan {
  const isAsked = plan.command === process.execPath && !serves(plan.name);
  const flags =
    plan.name === ALERTER ? ['--interval', String(roundSeconds), '--timeframes', TIMEFRAME, '--periods', PERIODS] : [];
  return {
    ...plan,
    args: [...(isAsked ? ['--import', LOOP_DELAY] : []), ...plan.args, ...flags],
    env: { ...plan.env, MARKETPRISM_LOOP_DELAY_FILE: file, MARKETPRISM_LOOP_DELAY_MS: String(sampleMs) },
  };
}
