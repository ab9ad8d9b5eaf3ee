/** What is told of a symbol beside its trades, over time: funding, open interest, ratios, volatility and liquidations. */
import { useMemo } from 'preact/hooks';
import type { LiquidationSeries, ReadingSeries, ReadingType } from '../../lib/web/market_series.ts';
import { Chart, type ChartSeries, type Colour } from '../ui/chart.tsx';
import { useData, withQuery } from '../ui/data.ts';
import { decimal, figure, fixed, percent } from '../ui/format.ts';
import { Card, Empty, Figure, Figures, Loaded, Time } from '../ui/parts.tsx';
import { texts } from '../ui/settings.ts';
import { quietBands } from './market_draw.ts';
import { PLANS, type Range, useRangeStart } from './market_ranges.ts';
import { coinsOf, colourOf, titleOf } from './market_words.ts';

const TEXT = texts({
  funding: ['Funding rate', '资金费率'],
  fundingNote: ['% per funding interval of the venue', '每个资金费率周期的 %'],
  fundingEmpty: [
    'No funding rate of this symbol in this range. collector.ts and store.ts write it; only perpetuals have one.',
    '此范围内没有该交易对的资金费率。由 collector.ts 与 store.ts 写入；仅永续合约有资金费率。',
  ],
  open_interest: ['Open interest', '持仓量'],
  openInterestEmpty: [
    'No open interest of this symbol in this range. collector.ts and store.ts write it; only derivatives have one.',
    '此范围内没有该交易对的持仓量。由 collector.ts 与 store.ts 写入；仅衍生品有持仓量。',
  ],
  lsr_top_position: ['Long/short ratio, positions of top traders', '大户持仓多空比'],
  lsr_all_account: ['Long/short ratio, all accounts', '全部账户多空比'],
  ratioNote: ['long ÷ short', '多 ÷ 空'],
  ratioEmpty: [
    'No ratio of this symbol in this range. collector.ts and store.ts write it, of Binance and OKX derivatives.',
    '此范围内没有该交易对的多空比。由 collector.ts 与 store.ts 写入，来自 Binance 与 OKX 衍生品。',
  ],
  volatility: ['Volatility index', '波动率指数'],
  volatilityNote: ['annualised %', '年化 %'],
  volatilityEmpty: [
    'No volatility index of this coin in this range. Deribit has one of BTC and ETH; collector.ts and store.ts write it.',
    '此范围内没有该币种的波动率指数。Deribit 提供 BTC 与 ETH；由 collector.ts 与 store.ts 写入。',
  ],
  liquidations: ['Liquidations', '强平'],
  liquidationsNote: [
    'Σ quantity × price. Binance and OKX tell samples only, at most one a second: what was really liquidated is more.',
    'Σ 数量 × 价格。Binance 与 OKX 仅推送抽样（每秒至多一条）：实际强平量更大。',
  ],
  liquidationsEmpty: [
    'No liquidation of this symbol in this range. collector.ts and store.ts write those that venues tell.',
    '此范围内没有该交易对的强平。由 collector.ts 与 store.ts 写入交易所公布的强平。',
  ],
  longs: ['Longs (sold)', '多头（卖出）'],
  shorts: ['Shorts (bought)', '空头（买入）'],
  orders: ['orders', '笔'],
  band: ['line: the last value of each', '线：每段最后值，每段'],
  bandRange: ['shade: the lowest to the highest', '阴影：最低至最高'],
  resolution: ['resolution', '精度'],
});

const OTHER_COLOURS: readonly Colour[] = [7, 3, 4, 8];
const BANDS = [quietBands()];
const POINTS = 360;
const HEIGHT = 200;
/** Not all at once: the candles come first. */
const EVERY: Record<Range, number> = { '1h': 15_000, '24h': 60_000, '7d': 300_000, '30d': 600_000 };

interface Look {
  title(): string;
  unit(base: string): string;
  empty(): string;
  /** Of an axis, and of the newest value. */
  format(value: number | null): string;
  newest(text: string, base: string): string;
}

const ratio = (title: () => string): Look => ({
  ...{ title, unit: () => TEXT.ratioNote, empty: () => TEXT.ratioEmpty, format: (value) => fixed(value, 3) },
  newest: (text) => decimal(text),
});
const LOOKS: Record<ReadingType, Look> = {
  funding: {
    ...{ title: () => TEXT.funding, unit: () => TEXT.fundingNote, empty: () => TEXT.fundingEmpty },
    ...{ format: (value) => percent(value, 4), newest: (text) => percent(Number(text), 6) },
  },
  open_interest: {
    ...{ title: () => TEXT.open_interest, unit: (base) => base, empty: () => TEXT.openInterestEmpty },
    ...{ format: figure, newest: (text, base) => `${decimal(text)} ${base}` },
  },
  lsr_top_position: ratio(() => TEXT.lsr_top_position),
  lsr_all_account: ratio(() => TEXT.lsr_all_account),
  volatility: {
    ...{ title: () => TEXT.volatility, unit: () => TEXT.volatilityNote, empty: () => TEXT.volatilityEmpty },
    ...{ format: (value) => fixed(value, 2), newest: (text) => decimal(text) },
  },
};

function useSeries<T>(symbol: string, type: ReadingType | 'liquidations', range: Range) {
  const from = useRangeStart(PLANS[range]);
  return useData<T>(withQuery('/api/market/series', { symbol, type, from, points: POINTS }), EVERY[range]);
}

interface Asked {
  symbol: string;
  range: Range;
}

export function Readings({ symbol, range }: Asked) {
  return (
    <div class="grid readings">
      {(['funding', 'open_interest', 'lsr_top_position', 'lsr_all_account', 'volatility'] as const).map((type) => (
        <ReadingCard key={type} {...{ type, symbol, range }} />
      ))}
      <LiquidationsCard {...{ symbol, range }} />
    </div>
  );
}

function ReadingCard({ type, symbol, range }: Asked & { type: ReadingType }) {
  const data = useSeries<ReadingSeries>(symbol, type, range);
  const { title, unit, empty } = LOOKS[type];
  const { base } = coinsOf(symbol);
  const of = type === 'volatility' ? ` · ${base}` : '';
  return (
    <Card title={`${title()}${of}`} actions={<span class="unit">{unit(base)}</span>}>
      <Loaded data={data}>
        {(answer) =>
          answer.series.length === 0 ? (
            <Empty>{empty()}</Empty>
          ) : (
            <ReadingChart key={range} {...{ type, answer, base }} />
          )
        }
      </Loaded>
    </Card>
  );
}

type Series = ReadingSeries['series'][number];

/** Whose it is, and what tells it apart from others of its exchange. */
function nameOf({ exchange, market_type, variant }: Series, type: ReadingType): string {
  const name = titleOf({ exchange, market_type });
  if (variant === null) return name;
  return type === 'volatility'
    ? `${name}, ${TEXT.resolution} ${/^\d+$/.test(variant) ? `${variant} s` : variant}`
    : `${name}, ${variant}`;
}

/** As tests and scripts find it. */
const figureName = ({ exchange, market_type, variant }: Series, type: ReadingType) =>
  [type, exchange, market_type, ...(variant === null ? [] : [variant])].join('.');

/** Those of one exchange differ, too. */
function coloursOf(series: readonly Series[]): Colour[] {
  const taken = new Set<Colour>();
  return series.map(({ exchange }) => {
    const own = [colourOf(exchange), ...OTHER_COLOURS].find((each) => !taken.has(each)) ?? 8;
    taken.add(own);
    return own;
  });
}

const numbers = (texts: readonly (string | null)[]) => texts.map((text) => (text === null ? null : Number(text)));

function ReadingChart({ type, answer, base }: { type: ReadingType; answer: ReadingSeries; base: string }) {
  const { title, unit, format, newest } = LOOKS[type];
  const { times, series, step_ms } = answer;
  const drawn = useMemo(
    () =>
      series.map((each) => ({ of: each, min: numbers(each.min), max: numbers(each.max), last: numbers(each.last) })),
    [series],
  );
  const colours = coloursOf(series);
  const all = drawn.flatMap(({ of, min, max, last }, i): ChartSeries[] => {
    const colour = colours[i]!;
    return [
      { label: nameOf(of, type), values: last, colour, format },
      { label: `${nameOf(of, type)} ↓`, values: min, colour, format, isHidden: true },
      { label: `${nameOf(of, type)} ↑`, values: max, colour, format, isHidden: true, bandTo: 3 * i + 1 },
    ];
  });
  return (
    <>
      <Figures>
        {series.map((each) => (
          <Figure
            key={nameOf(each, type)}
            label={nameOf(each, type)}
            value={
              <>
                <span data-figure={figureName(each, type)}>{newest(each.latest.value, base)}</span>
                <small>
                  <Time ms={each.latest.time} />
                </small>
              </>
            }
          />
        ))}
      </Figures>
      <Chart
        {...{
          label: `${title()} (${unit(base)})`,
          times,
          series: all,
          height: HEIGHT,
          plugins: BANDS,
          sync: 'candles',
        }}
      />
      <p class="note">
        {TEXT.band} {stepText(step_ms)}; {TEXT.bandRange}.
      </p>
    </>
  );
}

function stepText(ms: number): string {
  const minutes = ms / 60_000;
  if (minutes < 60) return `${minutes} min`;
  return minutes < 1440 ? `${minutes / 60} h` : `${minutes / 1440} d`;
}

function LiquidationsCard({ symbol, range }: Asked) {
  const data = useSeries<LiquidationSeries>(symbol, 'liquidations', range);
  const { quote } = coinsOf(symbol);
  return (
    <Card title={TEXT.liquidations} note={TEXT.liquidationsNote} actions={<span class="unit">{quote}</span>}>
      <Loaded data={data}>
        {(answer) =>
          answer.whole === null ? (
            <Empty>{TEXT.liquidationsEmpty}</Empty>
          ) : (
            <LiquidationChart key={range} {...{ answer, whole: answer.whole, quote: quote ?? '' }} />
          )
        }
      </Loaded>
    </Card>
  );
}

interface LiquidationProps {
  answer: LiquidationSeries;
  whole: NonNullable<LiquidationSeries['whole']>;
  quote: string;
}

function LiquidationChart({ answer: { times, total, series, step_ms }, whole, quote }: LiquidationProps) {
  const shorts = useMemo(() => numbers(total.buy_value), [total]);
  // Below the line, so that neither side hides the other.
  const longs = useMemo(() => numbers(total.sell_value).map((value) => (value === null ? null : -value)), [total]);
  const size = (value: number | null) => figure(value === null ? null : Math.round(Math.abs(value)));
  const figures = [
    { name: 'liquidations.sell', label: TEXT.longs, value: whole.sell_value, count: whole.sell_count, tone: 'down' },
    { name: 'liquidations.buy', label: TEXT.shorts, value: whole.buy_value, count: whole.buy_count, tone: 'up' },
  ] as const;
  return (
    <>
      <Figures>
        {figures.map(({ name, label, value, count, tone }) => (
          <Figure
            key={name}
            {...{ label, tone }}
            value={
              <>
                <span data-figure={name} title={decimal(value)}>
                  {size(Number(value))}
                </span>{' '}
                {quote}
                <small>
                  <span data-figure={`${name}_count`}>{figure(count)}</span> {TEXT.orders}
                </small>
              </>
            }
          />
        ))}
      </Figures>
      <Chart
        {...{ label: `${TEXT.liquidations} (${quote})`, times, height: HEIGHT, sync: 'candles' }}
        least={[0, 0]}
        series={[
          { label: TEXT.shorts, values: shorts, kind: 'bars', colour: 3, format: size },
          { label: TEXT.longs, values: longs, kind: 'bars', colour: 4, format: size },
        ]}
      />
      <p class="note">
        {series.map(titleOf).join(', ')}; {stepText(step_ms)}
      </p>
    </>
  );
}
