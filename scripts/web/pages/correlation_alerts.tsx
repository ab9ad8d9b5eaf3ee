/** Anomalies: those that stand now, and all begins and ends. */
import { useState } from 'preact/hooks';
import type { CorrelationAlerts, Correlations } from '../../lib/web/signal_routes.ts';
import { useData, withQuery } from '../ui/data.ts';
import { fixed } from '../ui/format.ts';
import { Badge, Card, Choice, Loaded, Pager, Table, Time } from '../ui/parts.tsx';
import { texts } from '../ui/settings.ts';

const TEXT = texts({
  standing: ['Anomalies that stand now', '当前异常'],
  standingNote: [
    'Coins that moved with BTC for weeks, and in the last day do so no longer. Long: the largest correlation of the longer periods; short: the smallest of a day.',
    '数周内跟随 BTC、而最近一天不再跟随的币种。长期：较长数据周期中的最大相关系数；短期：一天内的最小相关系数。',
  ],
  noStanding: ['No coin has left BTC, as of the last round.', '截至最近一轮，没有币种脱离 BTC。'],
  coin: ['Coin', '币种'],
  since: ['Since', '始于'],
  long: ['Long', '长期'],
  short: ['Short', '短期'],
  awaits: ['Kept open by missing rows', '因缺少数据而保持'],
  history: ['Begins and ends', '异常历史'],
  all: ['All', '全部'],
  begin: ['Begin', '开始'],
  end: ['End', '结束'],
  which: ['Which events', '事件类型'],
  time: ['Candle', 'K线时间'],
  event: ['Event', '事件'],
  diff: ['Difference', '差值'],
  why: ['Why', '原因'],
  rule: ['rule', '规则'],
  gone: ['traded no more', '已停止交易'],
  rows: ['Correlation / lag', '相关系数 / 延迟'],
  noneOfThese: ['None of these has been told yet.', '尚无此类事件。'],
  noHistory: [
    'No anomaly has begun or ended yet. correlation_alert.ts writes them to data/correlation/correlation_alerts.jsonl.',
    '尚无异常开始或结束。由 correlation_alert.ts 写入 data/correlation/correlation_alerts.jsonl。',
  ],
});

const ROWS = 20;
const EVERY_MS = 30_000;
const EVENTS = ['all', 'begin', 'end'] as const;

export function StandingAnomalies({ standing }: Pick<Correlations, 'standing'>) {
  return (
    <Card wide title={TEXT.standing} note={TEXT.standingNote}>
      <Table
        label={TEXT.standing}
        rows={[...standing].sort((one, other) => other.since - one.since)}
        keyOf={({ coin }) => coin}
        empty={TEXT.noStanding}
        columns={[
          { title: TEXT.coin, cell: ({ coin }) => <Badge tone="bad">{coin}</Badge> },
          { title: TEXT.since, cell: ({ since }) => <Time ms={since} detail="minute" /> },
          {
            title: TEXT.long,
            isNumber: true,
            cell: ({ coin, long }) => <span data-figure={`long ${coin}`}>{fixed(long, 4)}</span>,
          },
          {
            title: TEXT.short,
            isNumber: true,
            cell: ({ coin, short }) => <span data-figure={`short ${coin}`}>{fixed(short, 4)}</span>,
          },
          { title: TEXT.awaits, cell: ({ awaits }) => <span class="wraps">{awaits.join(', ') || '–'}</span> },
        ]}
      />
    </Card>
  );
}

export function AlertHistory() {
  const [event, setEvent] = useState<(typeof EVENTS)[number]>('all');
  const [offset, setOffset] = useState(0);
  const query = { event: event === 'all' ? null : event, limit: ROWS, offset };
  const alerts = useData<CorrelationAlerts>(withQuery('/api/correlation/alerts', query), EVERY_MS);
  return (
    <Card
      wide
      title={TEXT.history}
      actions={
        <Choice
          label={TEXT.which}
          choices={EVENTS}
          chosen={event}
          name={(each) => TEXT[each]}
          onChoose={(each) => {
            setOffset(0);
            setEvent(each);
          }}
        />
      }
    >
      <Loaded data={alerts}>
        {({ data, total_count }) => (
          <>
            <Table
              label={TEXT.history}
              rows={data}
              keyOf={({ id }) => id}
              empty={event === 'all' ? TEXT.noHistory : TEXT.noneOfThese}
              columns={[
                { title: TEXT.time, cell: ({ timestamp }) => <Time ms={timestamp} detail="minute" /> },
                {
                  title: TEXT.event,
                  cell: (each) => <Badge tone={each.event === 'begin' ? 'bad' : 'good'}>{TEXT[each.event]}</Badge>,
                },
                { title: TEXT.coin, cell: ({ coin }) => <b>{coin}</b> },
                { title: TEXT.since, cell: ({ since }) => <Time ms={since} detail="minute" /> },
                { title: TEXT.long, isNumber: true, cell: ({ long }) => fixed(long, 4) },
                { title: TEXT.short, isNumber: true, cell: ({ short }) => fixed(short, 4) },
                { title: TEXT.diff, isNumber: true, cell: ({ diff }) => fixed(diff, 4) },
                { title: TEXT.why, cell: ({ reason }) => TEXT[reason] },
                {
                  title: TEXT.rows,
                  cell: ({ rows }) => <span class="wraps">{rows.map(rowText).join(' · ') || '–'}</span>,
                },
              ]}
            />
            <Pager total={total_count} size={ROWS} offset={offset} onTurn={setOffset} />
          </>
        )}
      </Loaded>
    </Card>
  );
}

function rowText({ timeframe, period, corr, lag }: CorrelationAlerts['data'][number]['rows'][number]): string {
  return `${timeframe} ${period} ${corr === null ? '–' : `${fixed(corr, 2)}/${lag}`}`;
}
