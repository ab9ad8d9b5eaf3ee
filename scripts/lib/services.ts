/**
 * The services: one table from which npm start, the systemd units, manage.ts and soak.ts know what runs, in which order, within which limits. A new
 * service is one line here, and its unit is written by `npm run units`.
 */
import type { Config } from './config.ts';
import { EXCHANGES } from './rows.ts';
import { STREAM_NAMES } from './streams.ts';

/**
 * `core` captures and stores; `reader` reads what is stored; `demo` is there in a demo only; `keys` only for who has given keys.
 */
export type Role = 'core' | 'reader' | 'demo' | 'keys';

export interface Service {
  /** The script's name, also that of its log; the broker's is no script. */
  name: string;
  /** Its unit is `marketprism-UNIT.service`. */
  unit: string;
  /** One line for people. */
  what: string;
  role: Role;
  /** Names of those that it stands on: started before it, stopped after it. */
  after: readonly string[];
  /** Bound of the long-lived part of V8's heap, MiB; null: no JavaScript. */
  heapMb: number | null;
  /** Above this the kernel takes memory back, and slows it down; MiB. */
  memoryHighMb: number;
  /** Above this it is killed, and started again; MiB. */
  memoryMaxMb: number;
  /** Where /health is answered; null: nowhere. */
  port: ((config: Config) => number) | null;
}

/** Services of which one process may do all, or several a part each, by templates of systemd: what a part is, and the variable of its port. */
export const INSTANCED: ReadonlyMap<string, { parts: readonly string[]; portSetting: string }> = new Map([
  ['collector', { parts: EXCHANGES, portSetting: 'HEALTH_CHECK_PORT' }],
  ['store', { parts: STREAM_NAMES, portSetting: 'HOT_STORAGE_HTTP_PORT' }],
]);

const STORED = ['store'];

/** In the order of their start. */
export const SERVICES: readonly Service[] = [
  {
    ...{ name: 'nats-server', unit: 'nats', what: 'the broker: NATS JetStream', role: 'core', after: [] },
    ...{ heapMb: null, memoryHighMb: 512, memoryMaxMb: 768, port: null },
  },
  {
    ...{ name: 'clickhouse_embedded', unit: 'clickhouse', what: 'the database: ClickHouse, embedded', role: 'core' },
    ...{ after: [], heapMb: 128, memoryHighMb: 1536, memoryMaxMb: 2048, port: null },
  },
  {
    ...{ name: 'exchange_sim', unit: 'exchange-sim', what: 'simulated exchanges (a demo only)', role: 'demo' },
    ...{ after: [], heapMb: 256, memoryHighMb: 400, memoryMaxMb: 512, port: null },
  },
  {
    ...{ name: 'store', unit: 'store', what: 'JetStream to ClickHouse, every row once', role: 'core' },
    ...{ after: ['nats-server', 'clickhouse_embedded'], heapMb: 256, memoryHighMb: 400, memoryMaxMb: 512 },
    port: (config) => config.storePort,
  },
  {
    ...{ name: 'collector', unit: 'collector', what: 'exchanges to JetStream', role: 'core' },
    ...{ after: ['nats-server', 'exchange_sim'], heapMb: 512, memoryHighMb: 640, memoryMaxMb: 800 },
    port: (config) => config.healthPort,
  },
  {
    ...{ name: 'replicate', unit: 'replicate', what: 'hot to cold, verified', role: 'core' },
    ...{ after: ['nats-server', 'clickhouse_embedded', 'store'], heapMb: 96, memoryHighMb: 256, memoryMaxMb: 384 },
    port: (config) => config.replicatePort,
  },
  {
    ...{ name: 'web', unit: 'web', what: 'API and pages', role: 'reader', after: STORED },
    ...{ heapMb: 192, memoryHighMb: 384, memoryMaxMb: 512, port: (config) => config.webPort },
  },
  {
    ...{ name: 'monitor', unit: 'monitor', what: 'integrity on a schedule, alerts', role: 'reader', after: STORED },
    ...{ heapMb: 128, memoryHighMb: 256, memoryMaxMb: 384, port: (config) => config.monitorPort },
  },
  signals('sar_slope_collector', 'sar-slope-collector', 'SAR and its slope, 27 coins'),
  signals('escape_signal_calc', 'escape-signal-calc', 'escape signals by the minute'),
  signals('coin_price_tracker', 'coin-price-tracker', 'prices of 27 coins each 30 minutes'),
  signals('unified_data_collector', 'unified-data-collector', 'breadth and panic by the minute'),
  signals('major_events_monitor', 'major-events-monitor', 'major events'),
  signals('ofi_cvd_harvester', 'ofi-cvd-harvester', 'OFI, CVD and their signals', 96),
  signals('correlation_alert', 'correlation-alert', 'coins that left BTC', 96),
  { ...signals('anchor_data_collector', 'anchor-data-collector', 'own positions at OKX (needs keys)'), role: 'keys' },
];

function signals(name: string, unit: string, what: string, heapMb = 64): Service {
  const limits = { heapMb, memoryHighMb: 160 + heapMb, memoryMaxMb: 256 + heapMb };
  return { name, unit, what, role: 'reader', after: STORED, ...limits, port: null };
}

/** @throws Error when there is none of this name: a slip in our own code */
export function serviceOf(name: string): Service {
  const found = SERVICES.find((each) => each.name === name);
  if (found === undefined) throw new Error(`there is no service ${name}`);
  return found;
}

/**
 * Flags of node for a service. V8 left alone lets young objects fill 16 MiB three times over, and takes a thread per core to clean up: much
 * for a script that handles a few rows a second (measured: 103 MiB resident at the start without, 85 MiB with; and it stays so).
 */
export function nodeFlags(name: string): string[] {
  const service = SERVICES.find((each) => each.name === name);
  if (service?.heapMb == null) return [];
  const heap = [`--max-old-space-size=${service.heapMb}`];
  if (service.role === 'reader' || service.role === 'keys')
    return [...heap, '--max-semi-space-size=1', '--v8-pool-size=0'];
  return BUSY.has(name) ? [...heap, ...roomFor(service.heapMb)] : heap;
}

/** Tens of thousands of rows a second pass through these, and live for a moment. */
const BUSY: ReadonlySet<string> = new Set(['store', 'exchange_sim']);

/**
 * With room for young objects they are gone before they would be copied; and what the old ones may grow to before all is marked counts buffers
 * outside of the heap, too, which come and go with each message. It saves a third of the CPU at 28,000 rows a second, and costs memory at any rate:
 * the collector, which would take 250 MB instead of 190 in a demo, is left as it was.
 */
function roomFor(heapMb: number): string[] {
  const old = Math.round(heapMb * 0.375);
  return ['--max-semi-space-size=32', `--initial-old-space-size=${old}`];
}
