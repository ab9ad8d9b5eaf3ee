/** How everything stands: services by their /health, the database by a query, the desk's scripts by the state files that they write. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { healthOf } from '../joint_health.ts';
import { SERIES_STATE, STATE_FILE } from '../series.ts';
import type { Check, CheckStatus } from '../service.ts';
import { SCRIPT_STATE } from './desk_files.ts';
import type { WebContext } from './route.ts';

/** What answers later than this is not well. */
const TIMEOUT_MS = 3000;
const MINUTE_MS = 60_000;
/** A script looks each two seconds, waits up to a minute after a failure, and writes its times each minute. */
const LOOKS_WITHIN_MS = 5 * MINUTE_MS;
/** Scripts wait for each other: a slot may be so late and one more. */
const LATE_MS = 15 * MINUTE_MS;
/** A round of correlations is due each hour unless told otherwise, and takes up to one the first time. */
const CORRELATION_MS = 125 * MINUTE_MS;
/** A harvester writes its figures at each checkpoint. */
const HARVEST_MS = 5 * MINUTE_MS;

/** Series that there should be, and who writes them. */
const SERIES = {
  sar_slope: 'sar_slope_collector.ts',
  sar_slope_summary: 'sar_slope_collector.ts',
  escape_signal: 'escape_signal_calc.ts',
  coin_prices: 'coin_price_tracker.ts',
  sar_top_count: 'unified_data_collector.ts',
  liquidation_1h: 'unified_data_collector.ts',
  coin_change_total: 'unified_data_collector.ts',
} as const;
const ANCHOR = 'anchor_data_collector.ts';
const HARVESTER = /^ofi_cvd_harvester_(\w+)\.json$/;

/** The script that a check of `deskChecks` is about, without `.ts`; null where nobody knows whose series it is. */
export function writerOf(check: string): string | null {
  if (check === 'major_events') return 'major_events_monitor';
  if (check === 'correlation_alert') return check;
  if (check.startsWith('ofi_cvd_harvester')) return 'ofi_cvd_harvester';
  const series: Record<string, string> = { ...SERIES, anchor: ANCHOR };
  return series[check.replace(/^series_/, '')]?.replace(/\.ts$/, '') ?? null;
}

const SERVICE = z.object({
  status: z.enum(['healthy', 'degraded', 'unhealthy']),
  checks: z.record(z.string(), z.looseObject({ status: z.string(), error_message: z.string().nullable() })).default({}),
});

/** All checks by their name. What cannot be asked is one that says so. */
export async function serviceChecks(context: WebContext): Promise<Record<string, Check>> {
  const { collectorPorts, storePorts, replicatePort, monitorPort } = context.config;
  const services = {
    collector: collectorPorts,
    store: storePorts,
    replicate: [replicatePort],
    monitor: [monitorPort],
  };
  const asked = Object.entries(services).map(async ([name, ports]) => [name, await askService(ports)] as const);
  const database = askDatabase(context);
  return { ...Object.fromEntries(await Promise.all(asked)), clickhouse: await database, ...deskChecks(context) };
}

/** @param ports of one service; of several collectors or stores */
async function askService(ports: readonly number[]): Promise<Check> {
  const began = performance.now();
  const [port] = ports;
  try {
    const { status, checks } = SERVICE.parse(await healthOf(ports, TIMEOUT_MS));
    const faults = Object.entries(checks).filter(([, check]) => check.status !== 'healthy');
    const told = faults.map(([name, { error_message }]) => `${name}: ${error_message ?? 'not healthy'}`).join('; ');
    const error_message = status === 'healthy' ? null : told || `it says ${status}`;
    return { status, error_message, response_time: (performance.now() - began) / 1000, details: { port } };
  } catch (error) {
    return {
      status: 'unhealthy',
      error_message: `port ${ports.join(', ')} does not answer as a service: ${whyOf(error)}`,
      details: { port },
    };
  }
}

async function askDatabase({ client }: WebContext): Promise<Check> {
  const began = performance.now();
  try {
    const asked = { query: 'SELECT 1', format: 'TabSeparated', abort_signal: AbortSignal.timeout(TIMEOUT_MS) } as const;
    await (await client.query(asked)).text();
    return { status: 'healthy', error_message: null, response_time: (performance.now() - began) / 1000 };
  } catch (error) {
    return { status: 'unhealthy', error_message: `the database does not answer: ${whyOf(error)}` };
  }
}

/** A code rather than a message: messages of the database hold queries. */
function whyOf(error: unknown): string {
  const { code, name, cause } = error as Error & { code?: string; cause?: { code?: string } };
  return cause?.code ?? code ?? name;
}

/** Of the state files. */
export function deskChecks(context: WebContext): Record<string, Check> {
  const { config } = context;
  const folder = join(config.dataDir, 'state');
  const files = existsSync(folder) ? readdirSync(folder) : [];
  const expected: Record<string, string> = { ...SERIES, ...(config.okxKey === undefined ? {} : { anchor: ANCHOR }) };
  const names = new Set([...Object.keys(expected), ...files.flatMap((file) => STATE_FILE.exec(file)?.[1] ?? [])]);
  const checks: Record<string, Check> = {};
  for (const name of [...names].sort())
    checks[`series_${name}`] = seriesCheck(
      context,
      join(folder, `series-${name}.json`),
      expected[name] ?? 'its script',
    );
  const script = (file: string, writer: string, ranMs: number, dataMs: number) =>
    stateCheck(context, join(folder, file), writer, SCRIPT_STATE, ranMs, (state) => [state.data_time, dataMs]);
  checks.major_events = script('major_events.json', 'major_events_monitor.ts', LOOKS_WITHIN_MS, 45 * MINUTE_MS);
  checks.correlation_alert = script('correlation_alert.json', 'correlation_alert.ts', CORRELATION_MS, CORRELATION_MS);
  const harvesters = files.filter((file) => HARVESTER.test(file)).sort();
  for (const file of harvesters.length === 0 ? ['ofi_cvd_harvester_binance_derivatives.json'] : harvesters)
    checks[file.slice(0, -'.json'.length)] = script(file, 'ofi_cvd_harvester.ts', HARVEST_MS, HARVEST_MS);
  return checks;
}

function seriesCheck(context: WebContext, path: string, writer: string): Check {
  return stateCheck(context, path, writer, SERIES_STATE, LOOKS_WITHIN_MS, (state) => [
    state.last_slot,
    2 * state.cadence_ms + state.delay_ms + LATE_MS,
  ]);
}

interface Times {
  last_run: number | null;
  last_success: number | null;
  error: string | null;
}

/** @param dataOf how far the data are, and how far behind they may be, ms */
function stateCheck<T extends Times>(
  { clock }: WebContext,
  path: string,
  writer: string,
  schema: z.ZodType<T>,
  ranWithinMs: number,
  dataOf: (state: T) => [time: number | null, limit: number],
): Check {
  const state = read(path, schema);
  if (state === null) return { status: 'degraded', error_message: `${writer} has never run here` };
  if (typeof state === 'string') return { status: 'unhealthy', error_message: state };
  const now = clock();
  const age = (time: number | null) => (time === null ? null : Math.round((now - time) / 1000));
  const [dataTime, limit] = dataOf(state);
  const ages = {
    last_run_age: age(state.last_run),
    last_success_age: age(state.last_success),
    data_age: age(dataTime),
  };
  const details = { ...ages, last_run: state.last_run, last_success: state.last_success, data_time: dataTime };
  const is = (status: CheckStatus, error_message: string | null): Check => ({ status, error_message, details });
  if (state.last_run === null) return is('degraded', `${writer} has not looked yet`);
  if (now - state.last_run > ranWithinMs)
    return is('unhealthy', `${writer} last looked ${spanOf(now - state.last_run)} ago`);
  if (state.error !== null) return is('degraded', state.error);
  if (dataTime === null) return is('degraded', `${writer} has no data yet`);
  if (now - dataTime > limit) return is('degraded', `its data are ${spanOf(now - dataTime)} old`);
  return is('healthy', null);
}

/** @returns null when there is no file; why it is none of ours in a line */
function read<T>(path: string, schema: z.ZodType<T>): T | null | string {
  if (!existsSync(path)) return null;
  try {
    const parsed = schema.safeParse(JSON.parse(readFileSync(path, 'utf8')));
    if (parsed.success) return parsed.data;
    const { path: member, message } = parsed.error.issues[0]!;
    return `its state file is damaged: ${member.join('.')}: ${message}`;
  } catch (error) {
    return `its state file cannot be read: ${(error as Error).message.split('\n')[0]}`;
  }
}

function spanOf(ms: number): string {
  const minutes = Math.round(ms / MINUTE_MS);
  return minutes < 120 ? `${minutes} min` : `${Math.round(minutes / 60)} h`;
}
