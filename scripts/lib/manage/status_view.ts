/** `manage.ts status` as people and programs read it. Pure. */
import { EXIT, streamsDocument, streamsText, textTable, type Verdict, verdictOf } from '../status.ts';
import type { StageName } from '../web/overview_answer.ts';
import type { ServiceNow } from './services_now.ts';
import { worstOf } from './services_now.ts';
import type { SystemStatus } from './status_look.ts';

export interface Host {
  mode: string;
  supervisor: string;
  host: string;
  version: string;
}

const MIB = 2 ** 20;
const GIB = 2 ** 30;
const DAY_SECONDS = 86_400;

/** What is known to be bad outweighs what is not known. */
export function systemVerdict({ services, streams }: SystemStatus): Verdict {
  return worstOf([verdictOf(streams), ...services.map(({ health }) => health)]);
}

export function systemText(host: Host, status: SystemStatus): string {
  return [
    `${summaryText(host, status)}\n`,
    streamsText(status.streams),
    ...(status.streamsAgeMs >= 1000
      ? [`\nstreams and gaps as of ${Math.round(status.streamsAgeMs / 1000)} s ago`]
      : []),
    `\nstatus: ${systemVerdict(status)}`,
  ].join('\n');
}

/** What matters most stands first: a small terminal shows the beginning. */
function summaryText(host: Host, status: SystemStatus): string {
  const { time, services, overview } = status;
  const { measured_ms, broker, outbox, disk, deadletters } = overview;
  const [received, stored, copied] = (['collector', 'store', 'replicate'] as const).map((name) =>
    shown(rounded(rateOf(status, name))),
  );
  const over = measured_ms === null ? '' : ` (over ${(measured_ms / 1000).toFixed(1)} s)`;
  const letters = deadletters.rows + deadletters.harvest_rows;
  const up = `up ${spanOf(longestOf(services))}`;
  return [
    `MarketPrism ${host.version}  ${host.mode}  ${host.host}  run by ${host.supervisor}  ${up}  ${new Date(time).toISOString()}  ${systemVerdict(status)}`,
    `rows/s: received ${received}, stored ${stored}, copied to cold ${copied}${over}`,
    `backlog ${shown(broker.unread)} messages, outbox ${bytesOf(outbox.waiting_bytes)}, dead letters ${letters}, open gaps ${shown(openGaps(status))}`,
    `replication lag ${secondsOf(lagOf(status))}, disk ${diskText(disk)}\n`,
    servicesText(services),
  ].join('\n');
}

function servicesText(services: readonly ServiceNow[]): string {
  const table = textTable(
    ['service', 'state', 'pid', 'uptime', 'restarts', 'RSS MiB', 'CPU %', 'health'],
    services.map((each) => [
      ...[each.name, each.state, shown(each.pid), spanOf(each.uptime_seconds), shown(each.restarts)],
      ...[shown(mebibytes(each.rss_bytes)), shown(rounded(each.cpu_percent)), each.health],
    ]),
    2,
  );
  const reasons = services.flatMap(({ name, health, reason }) =>
    reason === null ? [] : [`  ${name} ${health}: ${reason}`],
  );
  const known = services.flatMap(({ rss_bytes }) => rss_bytes ?? []);
  const sum = known.reduce((total, each) => total + each, 0);
  return [
    table,
    ...reasons,
    `  ${known.length} services, ${mebibytes(sum)} MiB resident together (what they share is counted in each)`,
  ].join('\n');
}

function diskText(disk: SystemStatus['overview']['disk']): string {
  if (disk === null) return '–';
  const [free, size] = [disk.free_bytes / GIB, disk.size_bytes / GIB];
  return `${Math.round((100 * free) / size)} % free (${free.toFixed(1)} of ${size.toFixed(1)} GiB)`;
}

function mebibytes(bytes: number | null): number | null {
  return bytes === null ? null : Math.round(bytes / MIB);
}

/** One document; times ISO or ms, spans ms unless named otherwise, null: not known. */
export function systemJson(host: Host, status: SystemStatus): string {
  const { time, services, overview } = status;
  const verdict = systemVerdict(status);
  return JSON.stringify({
    ...{ status: verdict, exit_code: EXIT[verdict], time: new Date(time).toISOString(), ...host },
    ...{ uptime_seconds: longestOf(services), services },
    rates: {
      measured_ms: overview.measured_ms,
      received_per_second: rateOf(status, 'collector'),
      stored_per_second: rateOf(status, 'store'),
      replicated_per_second: rateOf(status, 'replicate'),
    },
    ...{ backlog_messages: overview.broker.unread, outbox: overview.outbox, deadletters: overview.deadletters },
    ...{ gaps_open: openGaps(status), replication_lag_ms: lagOf(status), disk: overview.disk },
    ...{ streams_age_ms: status.streamsAgeMs, ...streamsDocument(status.streams) },
  });
}

function rateOf({ overview }: SystemStatus, name: StageName): number | null {
  return overview.stages.find((stage) => stage.name === name)?.rate ?? null;
}

function lagOf({ overview }: SystemStatus): number | null {
  return overview.stages.find(({ name }) => name === 'replicate')?.lag_ms ?? null;
}

/** null while the database does not answer. */
function openGaps({ streams: { hot } }: SystemStatus): number | null {
  return 'fault' in hot ? null : hot.figures.gaps.reduce((sum, { open }) => sum + open, 0);
}

/** Of the service that has run for longest. */
function longestOf(services: readonly ServiceNow[]): number | null {
  const known = services.flatMap(({ uptime_seconds: uptime }) => uptime ?? []);
  return known.length === 0 ? null : Math.max(...known);
}

/** `2d 03:04:05` of seconds. */
export function spanOf(seconds: number | null): string {
  if (seconds === null) return '–';
  const days = Math.floor(seconds / DAY_SECONDS);
  const clock = new Date((seconds % DAY_SECONDS) * 1000).toISOString().slice(11, 19);
  return days === 0 ? clock : `${days}d ${clock}`;
}

/** A size as people say it; null is not known. */
export function bytesOf(bytes: number | null): string {
  if (bytes === null) return '–';
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  const power = bytes < 1 ? 0 : Math.min(Math.floor(Math.log2(bytes) / 10), units.length - 1);
  return `${power === 0 ? bytes : (bytes / 1024 ** power).toFixed(1)} ${units[power]}`;
}

function secondsOf(ms: number | null): string {
  return ms === null ? '–' : `${(ms / 1000).toFixed(1)} s`;
}

function rounded(value: number | null): number | null {
  return value === null ? null : Math.round(value * 10) / 10;
}

function shown(value: number | null): string {
  return value === null ? '–' : String(value);
}

/** As many lines as a terminal has, each as wide as it is; how many more there are stands in the last one. */
export function fitted(text: string, columns: number, rows: number): string[] {
  const lines = text.split('\n');
  const cut =
    lines.length <= rows
      ? lines
      : [...lines.slice(0, rows - 1), `… ${lines.length - rows + 1} more lines: --once shows all`];
  return cut.map((line) => [...line].slice(0, columns).join(''));
}
