/** The price of a market as candles, with the volume of each, and what is not known of them. */
import type { ComponentChildren } from 'preact';
import { useMemo, useRef } from 'preact/hooks';
import type { Candle } from '../../lib/web/market_candles.ts';
import { Chart, type ChartSeries } from '../ui/chart.tsx';
import { type Data, useData, withQuery } from '../ui/data.ts';
import { figure, fixed } from '../ui/format.ts';
import { Card, Empty, Loaded } from '../ui/parts.tsx';
import { texts } from '../ui/settings.ts';
import { candlePlugin, knowledgeOf, type Shown, volumePlugin } from './market_draw.ts';
import { PLANS, type Range, useRangeStart } from './market_ranges.ts';
import { coinsOf, colourOf, digitsOf, type MarketName, nameOf, titleOf } from './market_words.ts';

const TEXT = texts({
  title: ['Price', '价格'],
  candles: ['candles', 'K 线'],
  open: ['Open', '开'],
  high: ['High', '高'],
  low: ['Low', '低'],
  close: ['Close', '收'],
  volume: ['Volume', '成交量'],
  partly: ['trades are known to be missing', '已知有成交缺失'],
  unknown: ['not known whether all trades are there', '无法确认成交是否齐全'],
  none: ['no trade at all', '没有成交'],
  zoom: ['Drag to look closer, double-click for all of it.', '拖动放大，双击复原。'],
  empty: [
    'No trade of this market lies in this range. collector.ts and store.ts write them.',
    '此范围内没有该市场的成交。成交由 collector.ts 与 store.ts 写入。',
  ],
});

const PRICE_HEIGHT = 380;
const VOLUME_HEIGHT = 130;
/** More than any range has. */
const MOST_CANDLES = 500;
/** The newest candles come so often, ms; and so many of them: what was the newest may have changed by its last trades. */
const NEWEST_MS = 3000;
const NEWEST = 3;

interface Answer extends MarketName {
  candles: Candle[];
}

interface Asked extends MarketName {
  symbol: string;
}

function pathOf({ symbol, exchange, market_type }: Asked, range: Range, from: number): string {
  const { interval } = PLANS[range];
  return withQuery('/api/market/candles', { symbol, exchange, market_type, interval, from, limit: MOST_CANDLES });
}

/** All candles of a range, of which the newest are asked for again and again. */
function useCandles(asked: Asked, range: Range): Data<Answer> {
  const plan = PLANS[range];
  const from = useRangeStart(plan);
  const all = useData<Answer>(pathOf(asked, range, from), plan.everyMs);
  const newestPath = pathOf(asked, range, from + plan.spanMs - (NEWEST - 1) * plan.stepMs);
  const newest = useData<Answer>(all.value === null ? null : newestPath, NEWEST_MS);
  const value = useMemo(
    () =>
      all.value === null
        ? null
        : { ...all.value, candles: merged(all.value.candles, newest.value?.candles ?? [], from) },
    [all.value, newest.value, from],
  );
  const at = newest.at ?? all.at;
  return { value, error: all.error ?? newest.error, at, again: all.again };
}

/** Later answers over earlier ones, by the begin of each candle. */
function merged(all: readonly Candle[], newest: readonly Candle[], from: number): Candle[] {
  const byTime = new Map([...all, ...newest].map((candle) => [candle.time, candle]));
  return [...byTime.values()].filter(({ time }) => time >= from).sort((a, b) => a.time - b.time);
}

interface CandlesProps {
  symbol: string;
  market: MarketName;
  range: Range;
  /** Whose closes are drawn as a line beside it. */
  other: MarketName | null;
  /** The last price. */
  actions: ComponentChildren;
}

export function CandlesCard({ symbol, market, range, other, actions }: CandlesProps) {
  const data = useCandles({ symbol, ...market }, range);
  const plan = PLANS[range];
  const from = useRangeStart(plan);
  const beside = useData<Answer>(other === null ? null : pathOf({ symbol, ...other }, range, from), plan.everyMs);
  // The answer of the one that was chosen before stays until the next one is there, and is none of its.
  const isOfOther = other !== null && beside.value !== null && nameOf(beside.value) === nameOf(other);
  return (
    <Card
      wide
      title={`${TEXT.title} · ${symbol} · ${titleOf(market)} · ${plan.interval} ${TEXT.candles}`}
      actions={actions}
    >
      <Loaded data={data}>
        {({ candles }) =>
          candles.every(({ open }) => open === null) ? (
            <Empty>{TEXT.empty}</Empty>
          ) : (
            <CandleCharts
              key={`${symbol} ${nameOf(market)} ${range}`}
              {...{ symbol, market, candles, stepMs: plan.stepMs }}
              other={isOfOther ? beside.value : null}
            />
          )
        }
      </Loaded>
    </Card>
  );
}

interface ChartsProps {
  symbol: string;
  market: MarketName;
  candles: readonly Candle[];
  stepMs: number;
  other: Answer | null;
}

const numbers = (texts: readonly (string | null)[]) => texts.map((text) => (text === null ? null : Number(text)));

function CandleCharts({ symbol, market, candles, stepMs, other }: ChartsProps) {
  const shown = useRef<Shown>({ candles, stepMs });
  shown.current = { candles, stepMs };
  const plugins = useMemo(() => ({ price: [candlePlugin(shown)], volume: [volumePlugin(shown)] }), []);
  const { base, quote } = coinsOf(symbol);
  const values = useMemo(() => {
    const of = (name: 'open' | 'high' | 'low' | 'close' | 'volume') => numbers(candles.map((each) => each[name]));
    return {
      ...{ times: candles.map(({ time }) => time), open: of('open'), high: of('high') },
      ...{ low: of('low'), close: of('close'), volume: of('volume') },
      digits: digitsOf([
        ...candles.flatMap(({ open, high, low, close }) => [open, high, low, close]),
        ...(other?.candles ?? []).map(({ close }) => close),
      ]),
    };
  }, [candles, other?.candles]);
  const line = useMemo(() => {
    const closes = new Map(other?.candles.map(({ time, close }) => [time, close]));
    return numbers(candles.map(({ time }) => closes.get(time) ?? null));
  }, [candles, other?.candles]);
  const price = (value: number | null) => fixed(value, values.digits);
  const hidden = (label: string, of: ChartSeries['values']): ChartSeries => ({
    ...{ label, values: of, isHidden: true, colour: 8, format: price },
  });
  const series: ChartSeries[] = [
    ...[hidden(TEXT.open, values.open), hidden(TEXT.high, values.high)],
    ...[hidden(TEXT.low, values.low), hidden(TEXT.close, values.close)],
  ];
  if (other !== null)
    series.push({ label: titleOf(other), values: line, colour: colourOf(other.exchange), format: price });
  return (
    <div class="candles">
      <p class="unit">{quote === null ? TEXT.title : `${TEXT.title}, ${quote}`}</p>
      <Chart
        key={values.digits}
        {...{ label: `${TEXT.title} ${symbol} ${titleOf(market)}`, times: values.times, series, height: PRICE_HEIGHT }}
        {...{ sync: 'candles', plugins: plugins.price }}
      />
      <p class="unit">
        {TEXT.volume}, {base}
      </p>
      <Chart
        {...{
          label: TEXT.volume,
          times: values.times,
          height: VOLUME_HEIGHT,
          sync: 'candles',
          plugins: plugins.volume,
        }}
        least={[0, 0]}
        series={[{ label: `${TEXT.volume} ${base}`, values: values.volume, isHidden: true, colour: 8, format: figure }]}
      />
      <Knowledge candles={candles} />
    </div>
  );
}

/** How many candles are marked, and by what. */
function Knowledge({ candles }: { candles: readonly Candle[] }) {
  const finished = candles.filter(({ finished }) => finished);
  const count = (knowledge: 'partly' | 'unknown') =>
    finished.filter((candle) => knowledgeOf(candle) === knowledge).length;
  const none = finished.filter(({ open, complete }) => open === null && complete !== true).length;
  return (
    <p class="note knowledge">
      <span class="mark partly" /> <b data-figure="candles_partly">{count('partly')}</b> {TEXT.partly}
      <span class="mark unknown" /> <b data-figure="candles_unknown">{count('unknown')}</b> {TEXT.unknown}
      <span class="mark none" /> <b data-figure="candles_none">{none}</b> {TEXT.none}
      <span class="hint">{TEXT.zoom}</span>
    </p>
  );
}
