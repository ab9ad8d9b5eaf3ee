/** The charts of one market's microstructure: each bucket with its lowest, highest and last value, all pointing at the same moment. */
import { useEffect, useMemo, useRef } from 'preact/hooks';
import type uPlot from 'uplot';
import type { HarvestMarks, HarvestSeries } from '../../lib/web/harvest_series.ts';
import { Chart, type ChartSeries } from '../ui/chart.tsx';
import type { Data } from '../ui/data.ts';
import { exact, figure, fixed, span } from '../ui/format.ts';
import { Empty, Loaded } from '../ui/parts.tsx';
import { settings, texts } from '../ui/settings.ts';
import { MarksPlugin, sharedPlugin } from './micro_marks.ts';

const TEXT = texts({
  price: ['Price', '价格'],
  mid: ['mid', '中间价'],
  lastPrice: ['last trade', '最新成交价'],
  lowest: ['low', '最低'],
  highest: ['high', '最高'],
  ofi: ['Order flow imbalance (OFI)', '订单流不平衡（OFI）'],
  sumPer: ['sum per', '每'],
  sumPerEnd: ['', '求和'],
  up: ['up', '正'],
  down: ['down', '负'],
  cvd: ['Cumulative volume delta (CVD)', '累计成交量差（CVD）'],
  delta: ['delta', '成交量差'],
  scores: ['z scores', 'z 值'],
  bought: ['more bought', '净买入'],
  sold: ['more sold', '净卖出'],
  fusion: ['Fusion score', '融合评分'],
  score: ['score', '评分'],
  spread: ['Spread and depth', '价差与深度'],
  spreadBps: ['spread', '价差'],
  imbalance: ['imbalance of the best level', '最优档不平衡'],
  counts: ['Activity per second', '每秒活动'],
  trades: ['trades', '成交'],
  changes: ['book changes', '盘口变化'],
  mean: ['mean', '均值'],
  bucket: ['a point is', '每点为'],
  none: [
    'No seconds of this market in this time. ofi_cvd_harvester.ts writes them.',
    '此时段内该市场没有逐秒数据。由 ofi_cvd_harvester.ts 写入。',
  ],
});

const HIGH_HEIGHT = 240;
const HEIGHT = 140;
const SYNC = 'micro';

export interface MicroSeries {
  features: Data<HarvestSeries>;
  ofi: Data<HarvestSeries>;
  cvd: Data<HarvestSeries>;
  depth: Data<HarvestSeries>;
}

type Values = readonly (number | null)[];
const NONE: Values = [];
const of = (series: HarvestSeries, name: string, stat: 'min' | 'max' | 'last' | 'mean' | 'sum'): Values =>
  series.fields[name]?.[stat] ?? NONE;

interface LineOptions {
  label: string;
  name: string;
  colour: ChartSeries['colour'];
  axis?: 'left' | 'right';
  format?(value: number | null): string;
}

/** The last values as a line, and from the lowest to the highest a band. @param at the place of the first of the three in the chart's list */
function banded(series: HarvestSeries, at: number, { name, label, ...rest }: LineOptions): ChartSeries[] {
  return [
    { ...rest, label: `${label} ${TEXT.highest}`, values: of(series, name, 'max'), isHidden: true },
    { ...rest, label: `${label} ${TEXT.lowest}`, values: of(series, name, 'min'), isHidden: true, bandTo: at },
    { ...rest, label, values: of(series, name, 'last') },
  ];
}

/** What is above zero, and what is below it, in two colours. */
function signed(values: Values, up: string, down: string, axis: 'left' | 'right' = 'left'): ChartSeries[] {
  const above = values.map((each) => (each !== null && each >= 0 ? each : null));
  const below = values.map((each) => (each !== null && each < 0 ? each : null));
  return [
    { label: up, values: above, colour: 3, kind: 'bars', axis },
    { label: down, values: below, colour: 4, kind: 'bars', axis },
  ];
}

const zText = (value: number | null) => fixed(value, 2);

interface PlotProps {
  title: string;
  /** Units of the axes. */
  units: string;
  data: HarvestSeries;
  series: readonly ChartSeries[];
  height?: number;
  plugins: readonly uPlot.Plugin[];
  least?: readonly [number, number];
}

function Plot({ title, units, data, series, height = HEIGHT, plugins, least }: PlotProps) {
  return (
    <section class="micro-plot" aria-label={title}>
      <h3>
        {title} <span>{units}</span>
      </h3>
      <Chart
        label={title}
        times={data.times}
        series={series}
        height={height}
        sync={SYNC}
        plugins={plugins}
        {...(least === undefined ? {} : { least })}
      />
    </section>
  );
}

interface ChartsProps {
  series: MicroSeries;
  marks: HarvestMarks['marks'];
  /** Of the symbol. */
  base: string;
  quote: string;
  onSpan(from: number, to: number): void;
}

export function MicroCharts({ series, marks, base, quote, onSpan }: ChartsProps) {
  // A chart keeps the plugins that it was made with.
  const spanTo = useRef(onSpan);
  spanTo.current = onSpan;
  const plugins = useMemo(() => {
    const made = (hasRight: boolean, hasTimes = false) => [
      sharedPlugin({ hasRight, hasTimes, onSpan: (from, to) => spanTo.current(from, to) }),
    ];
    const onPrice = new MarksPlugin();
    return {
      onPrice,
      price: [...made(false, true), onPrice.plugin],
      plain: made(false),
      axed: made(true),
      last: made(true, true),
    };
  }, []);
  const { features, ofi, cvd, depth } = series;
  const seconds = features.value;
  useEffect(() => {
    plugins.onPrice.show({ prices: pricesOf(seconds), marks });
  }, [plugins, seconds, marks]);
  return (
    <>
      <Loaded data={features}>
        {(data) =>
          data.rows.every((rows) => rows === 0) ? (
            <Empty>{TEXT.none}</Empty>
          ) : (
            <PricePlot data={data} quote={quote} plugins={plugins.price} />
          )
        }
      </Loaded>
      <Loaded data={ofi}>{(data) => <FlowPlot data={data} base={base} plugins={plugins.plain} />}</Loaded>
      <Loaded data={cvd}>{(data) => <VolumePlot data={data} base={base} plugins={plugins.axed} />}</Loaded>
      {ofi.value === null || cvd.value === null ? null : (
        <ScoresPlot data={ofi.value} cvd={cvd.value} plugins={plugins.plain} />
      )}
      {seconds === null ? null : <FusionPlot data={seconds} plugins={plugins.plain} />}
      <Loaded data={depth}>{() => null}</Loaded>
      {seconds === null ? null : <SpreadPlot data={seconds} depth={depth.value} plugins={plugins.axed} />}
      {seconds === null ? null : <CountPlot data={seconds} plugins={plugins.last} />}
    </>
  );
}

function pricesOf(seconds: HarvestSeries | null): Map<number, readonly [number, number]> {
  const prices = new Map<number, readonly [number, number]>();
  if (seconds === null) return prices;
  const [low, high] = [of(seconds, 'mid', 'min'), of(seconds, 'mid', 'max')];
  for (const [i, at] of seconds.times.entries()) {
    if (low[i] != null && high[i] != null) prices.set(at, [low[i], high[i]]);
  }
  return prices;
}

interface PartProps {
  data: HarvestSeries;
  plugins: PlotProps['plugins'];
}

function PricePlot({ data, quote, plugins }: PartProps & { quote: string }) {
  const { language } = settings();
  const series = useMemo(
    () => [
      ...banded(data, 0, { name: 'mid', label: TEXT.mid, colour: 1, format: exact }),
      { label: TEXT.lastPrice, values: of(data, 'last_price', 'last'), colour: 2 as const, format: exact },
    ],
    [data, language],
  );
  const units = `${quote}, ${TEXT.bucket} ${span(data.bucket_ms)}`;
  return <Plot title={TEXT.price} units={units} {...{ data, plugins, series }} height={HIGH_HEIGHT} />;
}

function FusionPlot({ data, plugins }: PartProps) {
  const { language } = settings();
  const series = useMemo(
    () => banded(data, 0, { name: 'fusion_score', label: TEXT.score, colour: 5, format: zText }),
    [data, language],
  );
  const units = '0.6 z(OFI) + 0.4 z(CVD)';
  return <Plot title={TEXT.fusion} units={units} {...{ data, plugins, series, least: [-2, 2] as const }} />;
}

function perBucket({ bucket_ms }: HarvestSeries): string {
  return `${TEXT.sumPer} ${span(bucket_ms)} ${TEXT.sumPerEnd}`.trim();
}

function FlowPlot({ data, base, plugins }: PartProps & { base: string }) {
  const { language } = settings();
  const series = useMemo(() => signed(of(data, 'ofi_value', 'sum'), TEXT.up, TEXT.down), [data, language]);
  return <Plot title={TEXT.ofi} units={`${base}, ${perBucket(data)}`} {...{ data, plugins, series }} />;
}

function VolumePlot({ data, base, plugins }: PartProps & { base: string }) {
  const { language } = settings();
  const series = useMemo(
    () => [
      ...signed(of(data, 'delta', 'sum'), TEXT.bought, TEXT.sold, 'right'),
      ...banded(data, 2, { name: 'cvd', label: 'CVD', colour: 6 }),
    ],
    [data, language],
  );
  const units = `${base} · ${TEXT.delta}, ${base}, ${perBucket(data)} →`;
  return <Plot title={TEXT.cvd} units={units} {...{ data, plugins, series }} height={HEIGHT + 40} />;
}

/** Values of another answer at the same moments: the two may have been asked for a moment apart. */
function placed(data: HarvestSeries, other: HarvestSeries | null, values: Values): Values {
  if (other === null) return data.times.map(() => null);
  const byTime = new Map(other.times.map((at, i) => [at, values[i] ?? null]));
  return data.times.map((at) => byTime.get(at) ?? null);
}

function ScoresPlot({ data, cvd, plugins }: PartProps & { cvd: HarvestSeries }) {
  const { language } = settings();
  const series = useMemo(
    () => [
      ...banded(data, 0, { name: 'ofi_z', label: 'z OFI', colour: 1, format: zText }),
      ...banded(cvd, 3, { name: 'z_cvd', label: 'z CVD', colour: 2, format: zText }).map((each) => ({
        ...each,
        values: placed(data, cvd, each.values),
      })),
    ],
    [data, cvd, language],
  );
  return <Plot title={TEXT.scores} units="σ" {...{ data, plugins, series, least: [-3, 3] as const }} />;
}

function SpreadPlot({ data, depth, plugins }: PartProps & { depth: HarvestSeries | null }) {
  const { language } = settings();
  const series = useMemo(
    () => [
      ...banded(data, 0, { name: 'spread_bps', label: TEXT.spreadBps, colour: 7, format: (value) => fixed(value, 3) }),
      {
        ...{ label: TEXT.imbalance, colour: 8 as const, axis: 'right' as const, format: zText },
        values: placed(data, depth, depth === null ? NONE : of(depth, 'imbalance', 'last')),
      },
    ],
    [data, depth, language],
  );
  const title = TEXT.spread;
  return (
    <Plot title={title} units={`bps · ${TEXT.imbalance}, −1 … 1 →`} {...{ data, plugins, series }} height={HEIGHT} />
  );
}

function CountPlot({ data, plugins }: PartProps) {
  const { language } = settings();
  const series = useMemo(
    () => [
      {
        ...{ label: `${TEXT.trades} ${TEXT.highest}`, colour: 1 as const, isHidden: true },
        values: of(data, 'trades', 'max'),
      },
      { label: `${TEXT.trades}, ${TEXT.mean}`, values: of(data, 'trades', 'mean'), colour: 1 as const, format: figure },
      {
        ...{ label: `${TEXT.changes}, ${TEXT.mean}`, colour: 2 as const, axis: 'right' as const },
        values: of(data, 'book_changes', 'mean'),
      },
    ],
    [data, language],
  );
  const units = `${TEXT.trades} · ${TEXT.changes} →`;
  return <Plot title={TEXT.counts} units={units} {...{ data, plugins, series }} height={HEIGHT} least={[0, 1]} />;
}
