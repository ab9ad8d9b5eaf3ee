/** The plots of a report: memory, CPU, connections, event loop, rows, latency and cache. */
import type { ProcessMetric, SoakReport } from './report.ts';
import { type Line, type Plot, svgOf } from './svg.ts';

const MIB = 2 ** 20;
const MS = 1000;
const PERCENT = 100;

export interface DrawnPlot {
  file: string;
  title: string;
  svg: string;
}

/** A file each. */
export function plotsOf(report: SoakReport): DrawnPlot[] {
  const { began, times, processes, flow, plan, pauses = [] } = report;
  const after = times.map((time) => time - began);
  const spans = pauses.map(({ from, to }) => ({
    ...{ from: from - began, to: (to ?? report.written) - began, name: 'all stopped' },
  }));
  const of = (metric: ProcessMetric, scale = 1): Line[] =>
    processes
      .filter((each) => each[metric].some((value) => value !== null))
      .map((each) => ({
        name: each.name,
        values: each[metric].map((value) => (value === null ? null : value * scale)),
      }));
  const perSecond = flow.rows.map((rows, i) => {
    const before = i === 0 ? began : times[i - 1]!;
    return rows === null ? null : rows / ((times[i]! - before) / MS);
  });
  const scaled = (values: readonly (number | null)[], scale: number) =>
    values.map((value) => (value === null ? null : value * scale));
  const draw = (file: string, plot: Omit<Plot, 'times' | 'spans'>): DrawnPlot => ({
    ...{ file: `${file}.svg`, title: plot.title, svg: svgOf({ ...plot, times: after, spans }) },
  });
  return [
    draw('memory', { title: 'Resident memory by process', left: 'MiB', lines: of('rss_bytes', 1 / MIB) }),
    draw('cpu', { title: 'CPU by process, between samples', left: '% of one core', lines: of('cpu_percent') }),
    draw('connections', {
      ...{ title: 'Connections to ClickHouse and NATS by process', left: 'connections', lines: of('connections') },
      limit: { value: 10, name: 'limit 10' },
    }),
    draw('event_loop', {
      title: 'Event-loop delay by process, 99th percentile',
      left: 'ms',
      lines: of('loop_delay_ms'),
    }),
    draw('rows', {
      ...{ title: 'Rows stored, and errors', left: 'rows per second', right: `errors per ${plan.sample_ms / MS} s` },
      lines: [
        { name: 'rows stored', values: perSecond },
        { name: 'errors', values: flow.errors, isRight: true },
      ],
    }),
    draw('latency', {
      ...{ title: 'From received to queryable in hot', left: 'ms' },
      lines: [
        { name: 'median', values: flow.latency_p50_ms },
        { name: '99th percentile', values: flow.latency_p99_ms },
      ],
    }),
    draw('cache', {
      ...{
        title: 'Candle cache of the correlation alerter',
        left: '% of series',
        right: 'age of the newest candle of BTC, s',
      },
      lines: [
        { name: 'hit rate of the rounds', values: scaled(flow.cache_hit_rate, PERCENT) },
        { name: 'age of the newest candle', values: scaled(flow.cache_staleness_ms, 1 / MS), isRight: true },
      ],
      limit: { value: 80, name: 'limit 80 %' },
    }),
  ];
}
