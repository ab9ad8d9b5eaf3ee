/** The parabolic SAR of the coins: how they lean, each coin's newest row, and one of them by itself. */
import { useState } from 'preact/hooks';
import type { BiasColumns } from '../../lib/web/desk_chart_routes.ts';
import type { SarBias, SarLatest } from '../../lib/web/sar_routes.ts';
import { Chart } from '../ui/chart.tsx';
import { useChoice, useData, withQuery } from '../ui/data.ts';
import { exact, figure, fixed, percent } from '../ui/format.ts';
import { Card, Choice, type Column, Empty, Figure, Figures, Loaded, Select, Table, Time } from '../ui/parts.tsx';
import { texts } from '../ui/settings.ts';
import { Caption, CoinButton, CoinPlace, DAY_MARKS, daysOf, Missing, type Range } from './desk_parts.tsx';
import { SarCoin } from './escape_coin.tsx';

const TEXT = texts({
  title: ['SAR slope', 'SAR 斜率'],
  note: [
    'Of finished five-minute candles. Shares are of the coins that have the newest candle.',
    '基于已收盘的 5 分钟 K 线。比例以拥有最新 K 线的币种为准。',
  ],
  candle: ['Newest candle', '最新 K 线'],
  coins: ['Coins', '币种数'],
  bullish: ['Bullish', '多头'],
  bearish: ['Bearish', '空头'],
  steepUp: ['Bullish, slope > 0.8', '多头且斜率 > 0.8'],
  steepDown: ['Bearish, slope < -0.8', '空头且斜率 < -0.8'],
  duration: ['Mean duration (min)', '平均持续（分钟）'],
  bias: ['Coins by position (coins)', '多空币种数（个）'],
  table: ['Each coin’s newest row', '各币种最新数据'],
  sort: ['Sorted by', '排序'],
  position: ['Position', '方向'],
  all: ['All', '全部'],
  coin: ['Coin', '币种'],
  quadrant: ['Quadrant', '象限'],
  price: ['Close (USDT)', '收盘价（USDT）'],
  sar: ['SAR (USDT)', 'SAR（USDT）'],
  slope: ['Slope value', '斜率值'],
  direction: ['SAR goes', 'SAR 走向'],
  up: ['up', '上'],
  down: ['down', '下'],
  minutes: ['Since flip (min)', '翻转后（分钟）'],
  old: ['of', '数据时间'],
  look: ['history and current cycle', '历史与当前周期'],
  empty: [
    'There is no SAR row yet: sar_slope_collector.ts writes them.',
    '暂无 SAR 数据：由 sar_slope_collector.ts 写入。',
  ],
});
const REFRESH_MS = 60_000;
type Row = SarLatest['data'][number];

const SORTS = ['coin', 'slope', 'minutes', 'position', 'quadrant'] as const;
type Sort = (typeof SORTS)[number];
const byCoin = (one: Row, other: Row) => one.symbol.localeCompare(other.symbol);
/** Highest first where they are figures; what is not known comes last. */
const ORDER: Record<Sort, (one: Row, other: Row) => number> = {
  coin: byCoin,
  slope: (one, other) => (other.slope_value ?? -2) - (one.slope_value ?? -2) || byCoin(one, other),
  minutes: (one, other) => other.position_duration - one.position_duration || byCoin(one, other),
  position: (one, other) => other.sar_position.localeCompare(one.sar_position) || byCoin(one, other),
  quadrant: (one, other) => one.sar_quadrant.localeCompare(other.sar_quadrant) || byCoin(one, other),
};
const POSITIONS = ['all', 'bullish', 'bearish'] as const;

export function SarCard({ range, day }: { range: Range; day: string | null }) {
  const latest = useData<SarLatest>('/api/sar-slope/latest', REFRESH_MS);
  return (
    <>
      <Card wide title={TEXT.title} note={TEXT.note}>
        <Loaded data={latest}>
          {(value) =>
            value.count === 0 ? <Empty>{TEXT.empty}</Empty> : <Bias latest={value} range={range} day={day} />
          }
        </Loaded>
      </Card>
      {latest.value === null || latest.value.count === 0 ? null : <Coins rows={latest.value.data} />}
    </>
  );
}

function Bias({ latest, range, day }: { latest: SarLatest; range: Range; day: string | null }) {
  const span = day === null ? daysOf(range) : { from: day, to: `${day} 23:59:59` };
  const bias = useData<SarBias>('/api/sar-slope/bias-ratios', REFRESH_MS);
  const columns = useData<BiasColumns>(withQuery('/api/sar-slope/columns', span), 2 * REFRESH_MS);
  const { stats, data_time } = latest;
  return (
    <>
      <Loaded data={bias}>
        {({ bullish_ratio, bearish_ratio, summary }) => (
          <Figures>
            <Figure name="sar-candle" label={TEXT.candle} value={<Time ms={data_time} detail="minute" />} />
            <Figure name="sar-coins" label={TEXT.coins} value={figure(stats.total_symbols)} />
            <Figure
              name="sar-bullish"
              label={TEXT.bullish}
              tone="up"
              value={`${figure(stats.bullish_count)} (${percent(bullish_ratio, 1)})`}
            />
            <Figure
              name="sar-bearish"
              label={TEXT.bearish}
              tone="down"
              value={`${figure(stats.bearish_count)} (${percent(bearish_ratio, 1)})`}
            />
            <Figure label={TEXT.steepUp} value={figure(countOf(summary, 'bullish_80_plus_count'))} />
            <Figure label={TEXT.steepDown} value={figure(countOf(summary, 'bearish_80_plus_count'))} />
            <Figure label={TEXT.duration} value={fixed(stats.avg_duration, 1)} />
          </Figures>
        )}
      </Loaded>
      <Caption>{TEXT.bias}</Caption>
      <Loaded data={columns}>
        {({ times, bullish_count, bearish_count, missing_slots, is_complete }) => (
          <>
            <Missing missing={missing_slots} isComplete={is_complete} />
            <Chart
              label={TEXT.bias}
              times={times}
              height={200}
              sync="escape"
              plugins={DAY_MARKS}
              least={[0, stats.total_symbols]}
              series={[
                { label: TEXT.bullish, values: bullish_count, colour: 3 },
                { label: TEXT.bearish, values: bearish_count, colour: 4 },
              ]}
            />
          </>
        )}
      </Loaded>
    </>
  );
}

function countOf(summary: SarBias['summary'], name: string): number | null {
  const value = summary?.[name];
  return typeof value === 'number' ? value : null;
}

function Coins({ rows }: { rows: readonly Row[] }) {
  const coins = rows.map(({ symbol }) => symbol);
  const [coin, setCoin] = useChoice<string>('coin', coins, coins.includes('BTC') ? 'BTC' : coins[0]!);
  const [sort, setSort] = useChoice<Sort>('sort', SORTS, 'slope');
  const [position, setPosition] = useState<(typeof POSITIONS)[number]>('all');
  const shown = rows.filter(({ sar_position }) => position === 'all' || sar_position === position).sort(ORDER[sort]);
  const sortNames: Record<Sort, string> = {
    ...{ coin: TEXT.coin, slope: TEXT.slope, minutes: TEXT.minutes, position: TEXT.position, quadrant: TEXT.quadrant },
  };
  const positionNames = { all: TEXT.all, bullish: TEXT.bullish, bearish: TEXT.bearish };
  const columns: Column<Row>[] = [
    {
      title: TEXT.coin,
      cell: ({ symbol, slot, is_current }) => (
        <>
          <CoinButton coin={symbol} isChosen={symbol === coin} label={TEXT.look} onChoose={setCoin} />
          {is_current ? null : (
            <span class="warn">
              {' '}
              {TEXT.old} <Time ms={slot} detail="minute" />
            </span>
          )}
        </>
      ),
    },
    {
      title: TEXT.position,
      cell: ({ sar_position }) => positionNames[sar_position],
      tone: ({ sar_position }) => (sar_position === 'bullish' ? 'up' : 'down'),
    },
    { title: TEXT.quadrant, cell: ({ sar_quadrant }) => sar_quadrant },
    {
      title: TEXT.direction,
      cell: ({ slope_direction }) => (slope_direction === null ? '–' : TEXT[slope_direction]),
      tone: ({ slope_direction }) => slope_direction ?? undefined,
    },
    {
      title: TEXT.price,
      isNumber: true,
      cell: ({ symbol, price }) => <span data-figure={`sar-price-${symbol}`}>{exact(price)}</span>,
    },
    { title: TEXT.sar, isNumber: true, cell: ({ sar_value }) => figure(sar_value) },
    {
      title: TEXT.slope,
      isNumber: true,
      cell: ({ symbol, slope_value }) => <span data-figure={`sar-slope-${symbol}`}>{fixed(slope_value, 3)}</span>,
    },
    { title: TEXT.minutes, isNumber: true, cell: ({ position_duration }) => figure(position_duration) },
  ];
  return (
    <div class="split table-first">
      <Card title={TEXT.table}>
        <div class="bar">
          <Select label={TEXT.sort} choices={SORTS} chosen={sort} name={(each) => sortNames[each]} onChoose={setSort} />
          <Choice
            label={TEXT.position}
            choices={POSITIONS}
            chosen={position}
            name={(each) => positionNames[each]}
            onChoose={(each) => setPosition(each)}
          />
        </div>
        <Table label={TEXT.table} rows={shown} keyOf={({ symbol }) => symbol} columns={columns} />
      </Card>
      <CoinPlace>
        <SarCoin key={coin} symbol={coin} />
      </CoinPlace>
    </div>
  );
}
