/** A report as Markdown: what was held to which limit first, then what it stands on. */
import { spreadOf, thirdsOf } from './history.ts';
import type { DrawnPlot } from './plots.ts';
import type { SoakCriterion, SoakReport } from './report.ts';

const MIB = 2 ** 20;
const GIB = 2 ** 30;
const SIGNS = { '<': '<', '<=': '≤', '>': '>', '>=': '≥', '=': '=' } as const;
const NONE = '–';

/** @param plots files beside it */
export function markdownOf(report: SoakReport, plots: readonly DrawnPlot[]): string {
  const sections = [
    `# Soak run ${report.id}: ${report.verdict}`,
    head(report),
    `## Criteria\n\n${criteria(report)}`,
    `## Processes\n\n${processes(report)}`,
    `## Memory\n\n${memory(report)}`,
    ...plots.map(({ file, title }) => `![${title}](${file})`),
    `## Rows\n\n${tables(report)}`,
    `## Ledger\n\n${ledger(report)}`,
    `## Stops\n\n${stops(report)}`,
    `## Checkpoints\n\n${checkpoints(report)}`,
    `## Worth a look\n\n${problems(report)}`,
  ];
  return `${sections.join('\n\n')}\n`;
}

function head(report: SoakReport): string {
  const { plan, began, ended, duration_ms, error, machine, times, samples_due, samples_missing } = report;
  const lines = [
    `${utc(began)} to ${ended === null ? 'now (it goes on)' : utc(ended)}: ${spanText(duration_ms)} of ${spanText(plan.for_ms)} and what comes after it, ${plan.mode}, version ${report.code}.`,
    `${times.length} of ${samples_due} samples, one each ${plan.sample_ms / 1000} s; ${samples_missing} missing.`,
    ...(machine === undefined
      ? []
      : [
          `${machine.cores} cores, ${figure(machine.memory_bytes / GIB)} GiB; load average ${figure(machine.load_mean)}, at most ${figure(machine.load_max)}.`,
        ]),
    `Exchanges: ${plan.exchanges.join(', ')}. Symbols: ${plan.symbols.join(', ')}.`,
    ...(error === null ? [] : [`**It ended early: ${cell(error)}**`]),
  ];
  return lines.join('  \n');
}

function criteria({ criteria: all }: SoakReport): string {
  return table(
    ['Criterion', 'Verdict', 'Measured', 'Limit', 'Samples', 'Missing', 'Note'],
    all.map((each) => [
      ...[each.title, each.verdict === 'passed' ? 'passed' : `**${each.verdict}**`, measured(each), limit(each)],
      ...[String(each.samples), String(each.missing), each.note ?? ''],
    ]),
    [2, 3, 4, 5],
  );
}

/** A criterion's measured value with its unit. */
export function measured({ measured: value, unit }: SoakCriterion): string {
  return value === null ? NONE : `${figure(value)} ${unit}`.trim();
}

/** Its limit with its unit. */
export function limit({ limit: { comparison, value }, unit }: SoakCriterion): string {
  return `${SIGNS[comparison]} ${figure(value)} ${unit}`.trim();
}

function processes({ processes: all }: SoakReport): string {
  return table(
    [
      ...['Process', 'Restarts', 'CPU mean', 'CPU most', 'Threads', 'Descriptors', 'Connections', 'Loop delay p99'],
      'pids',
    ],
    all.map((each) => {
      const [cpu, threads, fds] = [spreadOf(each.cpu_percent), spreadOf(each.threads), spreadOf(each.fds)];
      const [connections, delay] = [spreadOf(each.connections), spreadOf(each.loop_delay_ms)];
      const range = (spread: ReturnType<typeof spreadOf>) =>
        spread === null ? NONE : `${figure(spread.least)} to ${figure(spread.most)}`;
      return [
        ...[each.name, String(each.restarts), unit(cpu?.mean, '%'), unit(cpu?.most, '%'), range(threads), range(fds)],
        ...[range(connections), delay === null ? NONE : `${figure(delay.mean)}, most ${figure(delay.most)} ms`],
        (each.pids ?? []).map(({ pid }) => pid).join(', '),
      ];
    }),
    [1, 2, 3, 4, 5, 6, 7],
  );
}

function memory({ memory: all, processes: each }: SoakReport): string {
  const rows = all.map((slope) => {
    const values = each.find(({ name }) => name === slope.process)?.rss_bytes ?? [];
    const { first, last } = thirdsOf(values);
    const { bytes_per_hour, low, high, growth_percent, growth_low, growth_high, left_out } = slope;
    return [
      ...[slope.process, mib(first), mib(last), mib(spreadOf(values)?.most ?? null), rate(bytes_per_hour)],
      ...[range(low, high, rate), percent(growth_percent), range(growth_low, growth_high, percent)],
      ...[String(slope.samples), left_out ?? ''],
    ];
  });
  const method =
    all[0] === undefined
      ? ''
      : `\n\nSlope: ${all[0].method}; the range holds it with ${Math.round(all[0].confidence * 100)} %. The first third of each run of a process, at most an hour, is left out of the line; growth is the slope over the whole run, in percent of the median.`;
  return `${table(['Process', 'First third', 'Last third', 'Most', 'Slope', 'Range', 'Growth', 'Range', 'Samples', ''], rows, [1, 2, 3, 4, 5, 6, 7, 8])}${method}`;
}

function range(
  low: number | null | undefined,
  high: number | null | undefined,
  text: (value: number) => string,
): string {
  return low == null || high == null ? NONE : `${text(low)} to ${text(high)}`;
}

function tables({ tables: all = [] }: SoakReport): string {
  if (all.length === 0) return 'No table was counted.';
  return table(
    ['Database', 'Table', 'Rows'],
    all.map(({ database, table: name, rows }) => [
      database,
      name,
      rows === null ? '**not counted**' : rows === 0 ? '**0**' : String(rows),
    ]),
    [2],
  );
}

function ledger({ ledger: drawn }: SoakReport): string {
  if (drawn === null || drawn === undefined) return 'It is drawn at the end of a run, and was not drawn.';
  const count = (value: number | null) => (value === null ? NONE : String(value));
  const rows = drawn.rows.map((row) => [
    ...[row.exchange, row.data_type, count(row.sent), count(row.received), count(row.hot), count(row.cold)],
    ...[count(row.gap), count(row.lost), count(row.duplicated)],
  ]);
  const titles = ['Exchange', 'Type', 'Sent', 'Received', 'Hot', 'Cold', 'Gap', 'Lost', 'Doubled'];
  return `${table(titles, rows, [2, 3, 4, 5, 6, 7, 8])}\n\n${drawn.balanced ? 'Balanced.' : '**Not balanced.**'} Sent: distinct ids that the simulated exchange wrote to a subscribed socket, where it counts them.`;
}

function stops({ stops: all = [] }: SoakReport): string {
  if (all.length === 0) return 'Nothing was stopped yet.';
  return table(
    ['At', 'What', 'Went well', 'Took', 'Note'],
    all.map(({ at, what, ok, took_ms, note }) => [
      ...[utc(at), what, ok ? 'yes' : '**no**', took_ms === null ? '' : `${took_ms} ms`, note ?? ''],
    ]),
    [3],
  );
}

function checkpoints({ checkpoints: all }: SoakReport): string {
  if (all.length === 0) return 'None was reached.';
  return table(
    ['At', 'Verdict so far', 'Rows', 'Errors', 'Note'],
    all.map(({ at, verdict, rows, errors, note }) => [
      ...[utc(at), verdict, rows === null ? NONE : String(rows), errors === null ? NONE : String(errors), note ?? ''],
    ]),
    [2, 3],
  );
}

function problems({ problems: all = [] }: SoakReport): string {
  return all.length === 0 ? 'Nothing.' : all.map((line) => `- ${cell(line)}`).join('\n');
}

function table(titles: readonly string[], rows: readonly (readonly string[])[], numbers: readonly number[]): string {
  const line = (cells: readonly string[]) => `| ${cells.map(cell).join(' | ')} |`;
  const rule = titles.map((_, i) => (numbers.includes(i) ? '---:' : '---'));
  return [line(titles), `| ${rule.join(' | ')} |`, ...rows.map(line)].join('\n');
}

/** Text within a line of a table. */
function cell(text: string): string {
  return text
    .replace(/[\r\n]+/g, ' ')
    .replaceAll('|', '\\|')
    .replaceAll('<', '&lt;');
}

function utc(ms: number): string {
  return new Date(ms).toISOString().slice(0, 19).replace('T', ' ');
}

/** Such as `12 h 5 min`. */
export function spanText(ms: number): string {
  const seconds = Math.round(ms / 1000);
  const [hours, minutes] = [Math.floor(seconds / 3600), Math.floor((seconds % 3600) / 60)];
  if (hours > 0) return `${hours} h ${minutes} min`;
  return minutes > 0 ? `${minutes} min ${seconds % 60} s` : `${seconds} s`;
}

/** Three digits that count, whole numbers whole. */
export function figure(value: number | null | undefined): string {
  if (value === null || value === undefined) return NONE;
  return String(Number.isInteger(value) || Math.abs(value) >= 1000 ? Math.round(value) : Number(value.toPrecision(3)));
}

function unit(value: number | null | undefined, name: string): string {
  return value === null || value === undefined ? NONE : `${figure(value)} ${name}`;
}

function mib(bytes: number | null): string {
  return bytes === null ? NONE : `${(bytes / MIB).toFixed(1)} MiB`;
}

function signed(value: number | null | undefined, digits: number): string {
  if (value === null || value === undefined) return NONE;
  return `${value < 0 ? '−' : '+'}${Math.abs(value).toFixed(digits)}`;
}

function rate(bytesPerHour: number | null): string {
  return bytesPerHour === null ? NONE : `${signed(bytesPerHour / MIB, 2)} MiB/h`;
}

function percent(value: number | null | undefined): string {
  return value === null || value === undefined ? NONE : `${signed(value, 1)} %`;
}
