/** The unified series, one chart each, as their units are different. */
import type { UnifiedColumns } from '../../lib/web/desk_chart_routes.ts';
import { Chart, type ChartSeries } from '../ui/chart.tsx';
import { useData, withQuery } from '../ui/data.ts';
import { figure, fixed } from '../ui/format.ts';
import { Card, Empty, Figure, Figures, Loaded, Time } from '../ui/parts.tsx';
import { texts } from '../ui/settings.ts';
import { Caption, DAY_MARKS, daysOf, Missing, type Range, signed, toneOf } from './desk_parts.tsx';

const TEXT = texts({
  title: ['Unified series', '统一序列'],
  note: [
    'Each five minutes. Liquidations are a sample: venues do not tell all of them.',
    '每 5 分钟一条。爆仓额为抽样：交易所不会推送全部爆仓。',
  ],
  sar_top_count: ['Coins topping within 2 h (coins)', '2 小时内见顶币种数（个）'],
  liquidation_1h: ['Liquidations in 1 h (USD)', '1 小时爆仓额（USD）'],
  coin_change_total: ['Change sum of the coins since midnight in Beijing (%)', '币种自北京时间零点以来涨跌幅总和（%）'],
  newest: ['Newest', '最新'],
  at: ['at', '时间'],
  why: ['Not known because', '未知原因'],
  empty: [
    'No record yet: unified_data_collector.ts writes this series.',
    '暂无记录：该序列由 unified_data_collector.ts 写入。',
  ],
});
const REFRESH_MS = 120_000;

interface Shown {
  name: UnifiedColumns['series'];
  series: Omit<ChartSeries, 'values'>;
  format(value: number | null): string;
  isSigned?: boolean;
}
const SHOWN: readonly Shown[] = [
  { name: 'sar_top_count', format: figure, series: { label: 'count', colour: 5, kind: 'steps' } },
  { name: 'liquidation_1h', format: (value) => fixed(value, 0), series: { label: 'USD', colour: 2, format: short } },
  { name: 'coin_change_total', format: (value) => signed(value, 4), series: { label: '%', colour: 6 }, isSigned: true },
];

/** 1,234,567 is 1.23 M: an axis has no room for more. */
function short(value: number | null): string {
  if (value !== null && Math.abs(value) >= 1e6) return `${fixed(value / 1e6, 2)} M`;
  return value !== null && Math.abs(value) >= 1e3 ? `${fixed(value / 1e3, 1)} k` : figure(value);
}

export function UnifiedCard({ range, day }: { range: Range; day: string | null }) {
  return (
    <Card wide title={TEXT.title} note={TEXT.note}>
      <div class="grid">
        {SHOWN.map((shown) => (
          <One key={shown.name} shown={shown} range={range} day={day} />
        ))}
      </div>
    </Card>
  );
}

function One({ shown, range, day }: { shown: Shown; range: Range; day: string | null }) {
  const { name, format, series, isSigned } = shown;
  const span = day === null ? daysOf(range) : { from: day, to: `${day} 23:59:59` };
  const columns = useData<UnifiedColumns>(withQuery(`/api/unified/${name}/columns`, span), REFRESH_MS);
  return (
    <div class="cell">
      <Caption>{TEXT[name]}</Caption>
      <Loaded data={columns}>
        {({ times, values, latest, missing_slots, is_complete }) => {
          if (latest === null) return <Empty>{TEXT.empty}</Empty>;
          const value = newestOf(name, latest);
          return (
            <>
              <Figures>
                <Figure
                  name={`unified-${name}`}
                  label={TEXT.newest}
                  value={format(value)}
                  tone={isSigned ? toneOf(value) : undefined}
                />
                <Figure label={TEXT.at} value={<Time ms={latest.slot} detail="minute" />} />
                {typeof latest.reason === 'string' ? (
                  <Figure label={TEXT.why} value={latest.reason} tone="warn" />
                ) : null}
              </Figures>
              <Missing missing={missing_slots} isComplete={is_complete} />
              <Chart
                label={TEXT[name]}
                times={times}
                height={190}
                sync="escape"
                plugins={DAY_MARKS}
                series={[{ ...series, values }]}
              />
            </>
          );
        }}
      </Loaded>
    </div>
  );
}

const MEMBER: Record<UnifiedColumns['series'], string> = {
  sar_top_count: 'count',
  liquidation_1h: 'amount',
  coin_change_total: 'total_change',
};

function newestOf(name: UnifiedColumns['series'], record: Record<string, unknown>): number | null {
  const value = record[MEMBER[name]];
  return typeof value === 'number' ? value : null;
}
