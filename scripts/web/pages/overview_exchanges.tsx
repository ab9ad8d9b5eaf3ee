/** One line for each exchange: what comes, how old the last row is, and what went wrong. */
import type { ExchangeFigures, OverviewAnswer } from '../../lib/web/overview_answer.ts';
import type { Data } from '../ui/data.ts';
import { figure, span, UNKNOWN } from '../ui/format.ts';
import { Badge, Card, type Column, Loaded, Table, Time } from '../ui/parts.tsx';
import { texts } from '../ui/settings.ts';
import { perSecond, STATUS_TONES } from './overview_pipeline.tsx';

const TEXT = texts({
  title: ['Exchanges', '交易所'],
  note: ['Counts are of the present run of the collector.', '计数自采集器本次启动起。'],
  exchange: ['Exchange', '交易所'],
  state: ['State', '状态'],
  rate: ['Rows/s', '行/秒'],
  rows: ['Rows', '行数'],
  age: ['Last row, age', '最新行距今'],
  at: ['Last row', '最新行'],
  sockets: ['Sockets', '连接'],
  reconnects: ['Reconnects', '重连'],
  resyncs: ['Books rebuilt', '订单簿重建'],
  rejected: ['Rejected', '拒收'],
  failed: ['Requests failed', '请求失败'],
  why: ['Why', '原因'],
  healthy: ['healthy', '正常'],
  degraded: ['degraded', '降级'],
  unhealthy: ['unhealthy', '异常'],
  unknown: ['not known', '未知'],
  none: [
    'No exchange is configured: MARKETPRISM_EXCHANGES names them for collector.ts.',
    '未配置交易所：由 MARKETPRISM_EXCHANGES 为 collector.ts 指定。',
  ],
});

const ofErrors = (count: number | null) => (count !== null && count > 0 ? 'warn' : undefined);

function columns(hasFaults: boolean): Column<ExchangeFigures>[] {
  const named = (name: string, text: (each: ExchangeFigures) => string) => (each: ExchangeFigures) => (
    <span data-figure={`${each.exchange}-${name}`}>{text(each)}</span>
  );
  return [
    { title: TEXT.exchange, cell: ({ exchange }) => exchange },
    {
      title: TEXT.state,
      cell: ({ exchange, status }) => (
        <span data-figure={`${exchange}-status`}>
          <Badge tone={status === null ? 'plain' : STATUS_TONES[status]}>{TEXT[status ?? 'unknown']}</Badge>
        </span>
      ),
    },
    { title: TEXT.rate, isNumber: true, cell: named('rate', ({ rate }) => perSecond(rate)) },
    { title: TEXT.rows, isNumber: true, cell: named('rows', ({ rows }) => figure(rows)) },
    { title: TEXT.at, cell: ({ last_row }) => <Time ms={last_row} /> },
    { title: TEXT.age, isNumber: true, cell: named('age', (each) => span(each.last_row_age_ms)) },
    {
      ...{ title: TEXT.sockets, isNumber: true },
      cell: named('sockets', ({ connected, sockets }) =>
        sockets === null ? UNKNOWN : `${figure(connected)} / ${figure(sockets)}`,
      ),
      tone: ({ connected, sockets }) => (connected === sockets ? undefined : 'bad'),
    },
    { title: TEXT.reconnects, isNumber: true, cell: ({ reconnects }) => figure(reconnects) },
    {
      title: TEXT.resyncs,
      isNumber: true,
      cell: ({ resyncs }) => figure(resyncs),
      tone: ({ resyncs }) => ofErrors(resyncs),
    },
    {
      ...{ title: TEXT.rejected, isNumber: true, cell: named('rejected', ({ rejected }) => figure(rejected)) },
      tone: ({ rejected }) => ofErrors(rejected),
    },
    {
      ...{ title: TEXT.failed, isNumber: true, cell: ({ failed_requests }) => figure(failed_requests) },
      tone: ({ failed_requests }) => ofErrors(failed_requests),
    },
    ...(hasFaults
      ? [{ title: TEXT.why, cell: ({ reason }: ExchangeFigures) => <span class="wraps">{reason ?? ''}</span> }]
      : []),
  ];
}

export function ExchangesCard({ overview }: { overview: Data<OverviewAnswer> }) {
  return (
    <Card wide title={TEXT.title} note={TEXT.note}>
      <Loaded data={overview}>
        {({ exchanges }) => (
          <div class="overview-table">
            <Table
              label={TEXT.title}
              rows={exchanges}
              keyOf={({ exchange }) => exchange}
              empty={TEXT.none}
              columns={columns(exchanges.some(({ reason }) => reason !== null))}
            />
          </div>
        )}
      </Loaded>
    </Card>
  );
}
