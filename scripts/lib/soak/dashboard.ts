/** How a soak run goes: on a terminal a page that is refreshed in place, elsewhere a line for each sample. */
import { figure, limit, measured, spanText } from './markdown.ts';
import type { ProcessMetric, SoakReport } from './report.ts';
import type { SoakView } from './run.ts';

const MIB = 2 ** 20;
const REFRESH_MS = 1000;
const NOTES = 6;
/** A page of its own, that leaves what was there before; home; to the end of a line, and of the screen. */
const OPEN = '\x1b[?1049h\x1b[?25l';
const CLOSE = '\x1b[?25h\x1b[?1049l';
const HOME = '\x1b[H';
const LINE_END = '\x1b[K\n';
const SCREEN_END = '\x1b[J';
const UNKNOWN = '-';

type Out = Pick<NodeJS.WriteStream, 'write' | 'isTTY' | 'rows' | 'columns'>;

/** @param isPlain lines also on a terminal @param page of the run, for people */
export function viewOf(out: Out, isPlain: boolean, page: string): SoakView & { close(): void } {
  return out.isTTY && !isPlain ? new Dashboard(out, page) : new Plain(out);
}

class Plain implements SoakView {
  constructor(private readonly out: Out) {}

  sampled(report: SoakReport): void {
    this.out.write(`${lineOf(report)}\n`);
  }

  note(line: string): void {
    this.out.write(`${line}\n`);
  }

  close(): void {}
}

class Dashboard implements SoakView {
  private report: SoakReport | null = null;
  private nextAt: number | null = null;
  private readonly notes: string[] = [];
  private readonly timer: NodeJS.Timeout;
  private isOpen = true;

  constructor(
    private readonly out: Out,
    private readonly page: string,
  ) {
    out.write(OPEN);
    this.timer = setInterval(() => this.draw(), REFRESH_MS);
    // Also where a second Ctrl-C ends it at once.
    process.once('exit', () => this.close());
    this.draw();
  }

  sampled(report: SoakReport, nextMs: number | null): void {
    this.report = report;
    this.nextAt = nextMs === null ? null : performance.now() + nextMs;
    this.draw();
  }

  note(line: string): void {
    this.notes.push(line);
    this.draw();
  }

  close(): void {
    if (!this.isOpen) return;
    this.isOpen = false;
    clearInterval(this.timer);
    this.out.write(CLOSE);
  }

  private draw(): void {
    const next = this.nextAt === null ? null : Math.max(Math.round((this.nextAt - performance.now()) / 1000), 0);
    const lines = pageOf(this.report, this.page, next, this.notes.slice(-NOTES));
    const [rows, columns] = [this.out.rows ?? 24, this.out.columns ?? 80];
    const shown = lines.slice(0, rows - 1).map((line) => line.slice(0, columns - 1));
    this.out.write(`${HOME}${shown.map((line) => `${line}${LINE_END}`).join('')}${SCREEN_END}`);
  }
}

/** The page. @param report null: everything is being started @param next s until the next sample */
export function pageOf(
  report: SoakReport | null,
  page: string,
  next: number | null,
  notes: readonly string[],
): string[] {
  if (report === null) return ['soak: everything is being started', '', ...notes];
  const { id, plan, times, samples_due, samples_missing, verdict, duration_ms } = report;
  const isWaiting = next === null ? 'the samples are over' : `next sample in ${next} s`;
  return [
    `soak ${id} (${plan.mode}): ${verdict} so far; ${spanText(duration_ms)} of ${spanText(plan.for_ms)}, ${isWaiting}`,
    `${times.length} of ${samples_due} samples, ${samples_missing} missing   ${page}`,
    '',
    ...criteriaOf(report),
    '',
    ...processesOf(report),
    '',
    flowOf(report),
    ...(notes.length === 0 ? [] : ['', ...notes]),
  ];
}

function criteriaOf({ criteria }: SoakReport): string[] {
  return columns(
    [
      ['criterion', 'so far', 'measured', 'limit', 'note'],
      ...criteria.map((each) => [each.name, each.verdict, measured(each), limit(each), each.note ?? '']),
    ],
    new Set([2, 3]),
  );
}

function processesOf({ processes, memory }: SoakReport): string[] {
  const rows = processes.map((each) => {
    const last = (metric: ProcessMetric) => each[metric].at(-1) ?? null;
    const text = (metric: ProcessMetric) => (last(metric) === null ? UNKNOWN : figure(last(metric)));
    const rss = last('rss_bytes');
    const growth = memory.find(({ process }) => process === each.name)?.growth_percent ?? null;
    return [
      ...[each.name, rss === null ? UNKNOWN : (rss / MIB).toFixed(1), growth === null ? UNKNOWN : growth.toFixed(1)],
      ...[text('cpu_percent'), text('threads'), text('fds'), text('connections'), text('loop_delay_ms')],
      String(each.restarts),
    ];
  });
  const titles = ['process', 'RSS MiB', 'growth %', 'CPU %', 'threads', 'fds', 'conns', 'loop p99 ms', 'restarts'];
  return columns([titles, ...rows], new Set([1, 2, 3, 4, 5, 6, 7, 8]));
}

function flowOf({ flow, times, began, machine }: SoakReport): string {
  const last = (values: readonly (number | null)[]) => values.at(-1) ?? null;
  const rows = last(flow.rows);
  const seconds = ((times.at(-1) ?? began) - (times.at(-2) ?? began)) / 1000;
  const rate = rows === null || seconds <= 0 ? UNKNOWN : figure(Math.round(rows / seconds));
  const total = flow.rows.reduce<number>((sum, each) => sum + (each ?? 0), 0);
  const errors = flow.errors.reduce<number>((sum, each) => sum + (each ?? 0), 0);
  const hits = flow.cache_hit_rate.findLast((each) => each !== null) ?? null;
  const age = last(flow.cache_staleness_ms);
  return [
    `rows ${total} (${rate}/s)`,
    `errors ${errors}`,
    `received → queryable p50 ${figure(last(flow.latency_p50_ms))} ms, p99 ${figure(last(flow.latency_p99_ms))} ms`,
    `cache ${hits === null ? UNKNOWN : `${figure(hits * 100)} %`} at ${age === null ? UNKNOWN : spanText(age)}`,
    `load ${figure(machine?.load_mean)}`,
  ].join('   ');
}

/** A sample as one line. */
export function lineOf(report: SoakReport): string {
  const { duration_ms, times, samples_due, samples_missing, processes, criteria } = report;
  const rss = processes.reduce((sum, each) => sum + (each.rss_bytes.at(-1) ?? 0), 0);
  const named = (verdict: string) => criteria.filter((each) => each.verdict === verdict).map(({ name }) => name);
  const [failed, open] = [named('failed'), named('incomplete')];
  return [
    spanText(duration_ms).padStart(12),
    `sample ${times.length} of ${samples_due}${samples_missing > 0 ? `, ${samples_missing} missing` : ''}`,
    flowOf(report),
    `RSS ${Math.round(rss / MIB)} MiB`,
    ...(failed.length === 0 ? [] : [`failed so far: ${failed.join(', ')}`]),
    ...(open.length === 0 ? [] : [`not known yet: ${open.join(', ')}`]),
  ].join('   ');
}

/** The report's end, for whoever was not there. */
export function summaryOf(report: SoakReport): string {
  return [...criteriaOf(report), '', `${report.verdict}${report.error === null ? '' : `: ${report.error}`}`].join('\n');
}

/** Columns beside each other; the last one has what is left of the line. */
function columns(rows: readonly (readonly string[])[], numbers: ReadonlySet<number>): string[] {
  const widths = rows[0]!.map((_, i) => Math.max(...rows.map((row) => row[i]!.length)));
  return rows.map((row) =>
    row
      .map((cell, i) =>
        numbers.has(i) ? cell.padStart(widths[i]!) : i === row.length - 1 ? cell : cell.padEnd(widths[i]!),
      )
      .join('  ')
      .trimEnd(),
  );
}
