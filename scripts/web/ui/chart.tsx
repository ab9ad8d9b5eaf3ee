/** Long time series as a chart: uPlot draws it, and this file gives it the look, the zone and the size of the page. */
import { useEffect, useRef } from 'preact/hooks';
import uPlot from 'uplot';
import { BEIJING, figure, time, UNKNOWN } from './format.ts';
import { settings } from './settings.ts';
import 'uplot/dist/uPlot.min.css';

/** Of style.css, `--series-1` to `--series-8`. */
export type Colour = 1 | 2 | 3 | 4 | 5 | 6 | 7 | 8;

export interface ChartSeries {
  label: string;
  /** One per time; null: not known, the line is broken there. */
  values: readonly (number | null)[];
  colour?: Colour;
  /** line: as the values go; steps: each holds until the next one; bars: from zero; points: each alone. Default: line. */
  kind?: 'line' | 'steps' | 'bars' | 'points';
  /** The axis on the left, or the one on the right. Default: left. */
  axis?: 'left' | 'right';
  /** How a value is written. */
  format?(value: number | null): string;
  /** Up to the series with this place in the list the space between is filled: of a lowest value its highest one. */
  bandTo?: number;
  /** Not drawn by itself; others are drawn from it. */
  isHidden?: boolean;
}

export interface ChartProps {
  /** What the chart shows, for who does not see it. */
  label: string;
  /** ms, ascending. */
  times: readonly number[];
  series: readonly ChartSeries[];
  /** CSS pixels. */
  height?: number;
  /** Charts of one name point at the same moment together. */
  sync?: string;
  /** Where the time axis begins and ends, ms; absent: with the data. */
  range?: readonly [from: number, to: number];
  /** Values that the left axis shows at least. */
  least?: readonly [low: number, high: number];
  /** Draws besides the series; the plugins of one chart must not change. */
  plugins?: readonly uPlot.Plugin[];
}

const HEIGHT = 220;
/** Of an axis, CSS pixels; its font is one of 11. */
const LEAST_AXIS_WIDTH = 62;
const DIGIT_WIDTH = 6.7;
const AXIS_MARGIN = 17;
const TIME_ZONES = { local: undefined, beijing: BEIJING } as const;

export function Chart(props: ChartProps) {
  const holder = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const { label, times, series, height = HEIGHT, sync, range, least } = props;
  const { theme, zone, language } = settings();
  // What is part of a chart's making; its data are not.
  const shape = JSON.stringify([
    ...[theme, zone, language, height, sync, range, least],
    series.map(({ values, ...rest }) => rest),
  ]);

  useEffect(() => {
    const element = holder.current!;
    const made = new uPlot(optionsOf(props, element), dataOf(props), element);
    plot.current = made;
    const watcher = new ResizeObserver(() => made.setSize({ width: element.clientWidth, height }));
    watcher.observe(element);
    return () => {
      watcher.disconnect();
      made.destroy();
      plot.current = null;
    };
  }, [shape]);
  useEffect(() => {
    if (plot.current !== null) renew(plot.current, dataOf(props));
  }, [times, ...series.map(({ values }) => values)]);

  const shown = series.filter(({ isHidden }) => !isHidden);
  const last = shown.map((each) => `${each.label} ${(each.format ?? figure)(lastOf(each.values))}`).join(', ');
  return (
    <div class="chart" ref={holder} role="img" aria-label={`${label}: ${last}`} style={{ minHeight: `${height}px` }} />
  );
}

/** New data leave a reader where they have zoomed to. */
function renew(plot: uPlot, data: uPlot.AlignedData): void {
  const { min, max } = plot.scales.x!;
  const [first, last] = [plot.data[0]![0], plot.data[0]!.at(-1)];
  const isZoomed = min != null && max != null && first != null && last != null && (min > first || max < last);
  plot.setData(data, !isZoomed);
  if (isZoomed) plot.setScale('x', { min, max });
}

function lastOf(values: readonly (number | null)[]): number | null {
  return values.findLast((value) => value !== null) ?? null;
}

function dataOf({ times, series }: ChartProps): uPlot.AlignedData {
  return [times as number[], ...series.map(({ values }) => values as (number | null)[])];
}

function optionsOf(props: ChartProps, element: HTMLElement): uPlot.Options {
  const { series, height = HEIGHT, sync, range, least, plugins = [] } = props;
  const style = getComputedStyle(element);
  const colourOf = (name: string) => style.getPropertyValue(name).trim();
  const zone = TIME_ZONES[settings().zone];
  const [ink, grid] = [colourOf('--muted'), colourOf('--line')];
  const axis = {
    stroke: ink,
    grid: { stroke: grid, width: 1 },
    ticks: { stroke: grid, width: 1 },
    font: '11px system-ui, sans-serif',
  };
  const hasRight = series.some((each) => each.axis === 'right');
  const formatOf = (side: 'left' | 'right') => series.find((each) => (each.axis ?? 'left') === side)?.format ?? figure;
  const values = (side: 'left' | 'right') => (_plot: uPlot, splits: number[]) =>
    splits.map((each) => formatOf(side)(each));
  return {
    ...{ width: Math.max(element.clientWidth, 200), height, ms: 1, plugins: [...plugins] },
    ...(zone === undefined ? {} : { tzDate: (at: number) => uPlot.tzDate(new Date(at), zone) }),
    cursor: { ...(sync === undefined ? {} : { sync: { key: sync } }), points: { size: 6 } },
    scales: {
      x: { time: true, ...(range === undefined ? {} : { range: () => [...range] as [number, number] }) },
      left: {
        range: (_plot, low, high) => {
          if (low === null || high === null) return [0, 1];
          const [from, to] = [Math.min(low, least?.[0] ?? low), Math.max(high, least?.[1] ?? high)];
          return uPlot.rangeNum(from, to, 0.1, true) as [number, number];
        },
      },
    },
    axes: [
      { ...axis, space: 70, values: timeLabels },
      { ...axis, scale: 'left', size: axisWidth, values: values('left') },
      ...(hasRight
        ? [
            {
              ...axis,
              scale: 'right',
              side: 1 as const,
              size: axisWidth,
              grid: { show: false },
              values: values('right'),
            },
          ]
        : []),
    ],
    series: [
      {
        label: settings().language === 'zh' ? '时间' : 'Time',
        value: (_plot, at: number | null) => (at === null ? UNKNOWN : time(at)),
      },
      ...series.map((each, index) => seriesOf(each, colourOf(`--series-${each.colour ?? (index % 8) + 1}`))),
    ],
    bands: series.flatMap(({ bandTo, colour }, index) =>
      bandTo === undefined
        ? []
        : [
            {
              series: [bandTo + 1, index + 1] as [number, number],
              fill: `${colourOf(`--series-${colour ?? (index % 8) + 1}`)}33`,
            },
          ],
    ),
  };
}

/** As wide as its longest label needs, CSS pixels: a figure without its first digit is another figure. */
function axisWidth(_plot: uPlot, labels: string[] | null): number {
  const longest = Math.max(0, ...(labels ?? []).map((label) => label.length));
  return Math.max(LEAST_AXIS_WIDTH, longest * DIGIT_WIDTH + AXIS_MARGIN);
}

const DAY_MS = 86_400_000;
const MINUTE_MS = 60_000;

/** Moments of the time axis in the chosen zone, by a clock of 24 hours; the day where it begins, and at the first of them. */
function timeLabels(_plot: uPlot, splits: number[], _axis: number, _space: number, step: number): string[] {
  let before = '';
  return splits.map((at) => {
    const text = time(at);
    const day = text.slice(0, 10);
    if (step >= DAY_MS) return day;
    const clock = text.slice(11, step < MINUTE_MS ? 19 : 16);
    const label = day === before ? clock : `${clock}\n${day}`;
    before = day;
    return label;
  });
}

function seriesOf(
  { label, kind = 'line', axis = 'left', format = figure, isHidden }: ChartSeries,
  stroke: string,
): uPlot.Series {
  const paths =
    kind === 'steps'
      ? uPlot.paths.stepped!({ align: 1 })
      : kind === 'bars'
        ? uPlot.paths.bars!({ size: [0.8, 40] })
        : null;
  return {
    ...{ label, scale: axis, stroke, width: isHidden ? 0 : kind === 'bars' ? 0 : 1.5, spanGaps: false },
    value: (_plot, value: number | null) => format(value),
    ...(paths === null ? {} : { paths }),
    ...(kind === 'bars' ? { fill: stroke } : {}),
    points: {
      ...{ show: kind === 'points', size: kind === 'points' ? 6 : 3, fill: stroke },
      ...(kind === 'points' || kind === 'bars' || isHidden ? {} : { filter: lonely }),
    },
    ...(kind === 'points' ? { paths: () => null } : {}),
  };
}

/** A line has no length at a value between two that are not known: it is shown as a point, or it would not be seen. */
function lonely(plot: uPlot, series: number): number[] | null {
  const values = plot.data[series]!;
  const found: number[] = [];
  for (let i = 0; i < values.length; i++)
    if (values[i] != null && values[i - 1] == null && values[i + 1] == null) found.push(i);
  return found.length === 0 ? null : found;
}
