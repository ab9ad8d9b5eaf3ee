/** One coin's SAR: since its last flip, and over days. */
import { useState } from 'preact/hooks';
import type { SarColumns } from '../../lib/web/desk_chart_routes.ts';
import type { SarCycle } from '../../lib/web/sar_routes.ts';
import { Chart } from '../ui/chart.tsx';
import { useData, withQuery } from '../ui/data.ts';
import { exact, figure, fixed } from '../ui/format.ts';
import { Card, Choice, Figure, Figures, Loaded, Time } from '../ui/parts.tsx';
import { texts } from '../ui/settings.ts';
import { Caption, DAY_MARKS, daysOf, Missing, RANGES, type Range, rangeName, signed, toneOf } from './desk_parts.tsx';

const TEXT = texts({
  title: ['SAR and current cycle', 'SAR 与当前周期'],
  position: ['Position', '方向'],
  bullish: ['Bullish', '多头'],
  bearish: ['Bearish', '空头'],
  candles: ['Candles since flip', '翻转后 K 线数'],
  minutes: ['Minutes since flip', '翻转后分钟数'],
  start: ['Began', '开始于'],
  startPrice: ['Close then (USDT)', '当时收盘价（USDT）'],
  price: ['Close (USDT)', '收盘价（USDT）'],
  change: ['Change since', '此后涨跌'],
  partial: ['Its first candles are not in the files.', '该周期最初的 K 线不在文件中。'],
  chart: ['Close and SAR (USDT)', '收盘价与 SAR（USDT）'],
  close: ['close', '收盘价'],
  sarUp: ['SAR, bullish', 'SAR（多头）'],
  sarDown: ['SAR, bearish', 'SAR（空头）'],
  slope: ['Slope value (-1 to 1)', '斜率值（-1 至 1）'],
  range: ['Range', '时间范围'],
});
const REFRESH_MS = 60_000;

export function SarCoin({ symbol }: { symbol: string }) {
  const [range, setRange] = useState<Range>('1');
  const cycle = useData<SarCycle>(`/api/sar-slope/current-cycle/${symbol}`, REFRESH_MS);
  const columns = useData<SarColumns>(withQuery(`/api/sar-slope/columns/${symbol}`, daysOf(range)), REFRESH_MS);
  return (
    <Card
      wide
      title={`${symbol}: ${TEXT.title}`}
      actions={
        <Choice
          label={TEXT.range}
          choices={RANGES}
          chosen={range}
          name={rangeName}
          onChoose={(each) => setRange(each)}
        />
      }
    >
      <Loaded data={cycle}>
        {(value) => (
          <>
            <Figures>
              <Figure
                name="cycle-position"
                label={TEXT.position}
                value={TEXT[value.position]}
                tone={value.position === 'bullish' ? 'up' : 'down'}
              />
              <Figure name="cycle-candles" label={TEXT.candles} value={figure(value.sequence)} />
              <Figure label={TEXT.minutes} value={figure(value.duration_minutes)} />
              <Figure label={TEXT.start} value={<Time ms={value.data.at(-1)?.slot} detail="minute" />} />
              <Figure label={TEXT.startPrice} value={exact(value.start_price)} />
              <Figure name="cycle-price" label={TEXT.price} value={exact(value.price)} />
              <Figure
                name="cycle-change"
                label={TEXT.change}
                value={signed(value.price_change_pct)}
                tone={toneOf(value.price_change_pct)}
              />
            </Figures>
            {value.is_whole ? null : <p class="note warn">{TEXT.partial}</p>}
          </>
        )}
      </Loaded>
      <Loaded data={columns}>
        {({ times, price, sar_bullish, sar_bearish, slope_value, missing_slots, is_complete }) => (
          <>
            <Missing missing={missing_slots} isComplete={is_complete} />
            <Caption>{TEXT.chart}</Caption>
            <Chart
              label={`${symbol}: ${TEXT.chart}`}
              times={times}
              height={270}
              sync="coin"
              plugins={DAY_MARKS}
              series={[
                { label: TEXT.close, values: price, colour: 1, format: exact },
                { label: TEXT.sarUp, values: sar_bullish, colour: 3 },
                { label: TEXT.sarDown, values: sar_bearish, colour: 4 },
              ]}
            />
            <Caption>{TEXT.slope}</Caption>
            <Chart
              label={`${symbol}: ${TEXT.slope}`}
              times={times}
              height={170}
              sync="coin"
              plugins={DAY_MARKS}
              least={[-1, 1]}
              series={[{ label: TEXT.slope, values: slope_value, colour: 5, format: (value) => fixed(value, 2) }]}
            />
          </>
        )}
      </Loaded>
    </Card>
  );
}
