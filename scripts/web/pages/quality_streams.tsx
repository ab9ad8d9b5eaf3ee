/** What there is of each exchange, market and type, and what is missing, as the monitor's last counting round has it. */
import { useState } from 'preact/hooks';
import type { MonitorMetrics } from '../../lib/monitor_api.ts';
import { useData } from '../ui/data.ts';
import { figure } from '../ui/format.ts';
import { Card, Figure, Figures, Loaded, Select, Table, Time } from '../ui/parts.tsx';
import { texts } from '../ui/settings.ts';
import { completenessText, depthWord, useTurn } from './quality_parts.tsx';

const TEXT = texts({
  title: ['Completeness by stream', '各数据流完整率'],
  none: [
    'monitor.ts has counted no rows since its start: its first round runs two minutes after it.',
    'monitor.ts 启动后尚未统计行数：首轮检查在启动两分钟后进行。',
  ],
  exchange: ['Exchange', '交易所'],
  all: ['all', '全部'],
  market: ['Market', '市场'],
  type: ['Data', '数据类型'],
  hot: ['Hot', '热库'],
  cold: ['Cold', '冷库'],
  missing: ['Missing', '缺失'],
  completeness: ['Complete', '完整率'],
  newest: ['Newest event', '最新事件'],
  rowsHot: ['Rows in hot', '热库行数'],
  rowsCold: ['Rows in cold', '冷库行数'],
  rowsMissing: ['Rows missing', '缺失行数'],
  of: ['Round', '轮次'],
  unknown: ['and gaps of unknown size', '另有大小未知的缺口'],
});

const ALL = 'all';

export function StreamsCard({ turn }: { turn: number }) {
  const [exchange, setExchange] = useState(ALL);
  const data = useData<MonitorMetrics>('/api/monitoring/data-consistency/metrics', 15_000);
  useTurn(data, turn);
  const names = [...new Set((data.value?.streams ?? []).map((each) => each.exchange))];
  return (
    <Card
      wide
      title={TEXT.title}
      actions={
        <Select
          label={TEXT.exchange}
          choices={[ALL, ...names]}
          chosen={exchange}
          onChoose={setExchange}
          name={(each) => (each === ALL ? TEXT.all : each)}
        />
      }
    >
      <Loaded data={data}>
        {(metrics) => (
          <>
            {'rows_hot' in metrics ? (
              <Figures>
                <Figure label={TEXT.rowsHot} name="rows-hot" value={figure(metrics.rows_hot)} />
                <Figure label={TEXT.rowsCold} name="rows-cold" value={figure(metrics.rows_cold)} />
                <Figure
                  label={TEXT.rowsMissing}
                  name="rows-missing"
                  tone={metrics.rows_missing === 0 ? undefined : 'warn'}
                  value={figure(metrics.rows_missing)}
                />
                <Figure
                  label={TEXT.of}
                  value={
                    <>
                      {depthWord(metrics.type)} · <Time ms={Date.parse(metrics.to)} detail="minute" />
                    </>
                  }
                />
              </Figures>
            ) : null}
            <div class="low">
              <Table
                label={TEXT.title}
                rows={metrics.streams.filter((each) => exchange === ALL || each.exchange === exchange)}
                keyOf={(each) => `${each.exchange} ${each.market_type} ${each.data_type}`}
                empty={TEXT.none}
                columns={[
                  { title: TEXT.exchange, cell: (each) => each.exchange },
                  { title: TEXT.market, cell: ({ market_type }) => market_type },
                  { title: TEXT.type, cell: ({ data_type }) => data_type },
                  { title: TEXT.hot, isNumber: true, cell: ({ hot }) => figure(hot) },
                  { title: TEXT.cold, isNumber: true, cell: ({ cold }) => figure(cold) },
                  {
                    title: TEXT.missing,
                    isNumber: true,
                    tone: ({ missing, uncounted }) => (missing + uncounted === 0 ? undefined : 'warn'),
                    cell: ({ missing, uncounted }) => (
                      <span title={uncounted === 0 ? undefined : TEXT.unknown}>
                        {figure(missing)}
                        {uncounted === 0 ? '' : ' + ?'}
                      </span>
                    ),
                  },
                  {
                    title: TEXT.completeness,
                    isNumber: true,
                    tone: ({ completeness }) => (completeness === null || completeness === 100 ? undefined : 'warn'),
                    cell: ({ completeness }) => completenessText(completeness),
                  },
                  { title: TEXT.newest, cell: ({ newest }) => <Time ms={newest} /> },
                ]}
              />
            </div>
          </>
        )}
      </Loaded>
    </Card>
  );
}
