/** The desk's five major events: how each rule stands, what it last told, and all that was told. */
import { useState } from 'preact/hooks';
import type { EventsNow } from '../../lib/web/events_now.ts';
import type { AnchorLatest, EventsPage as EventsList } from '../../lib/web/series_routes.ts';
import { useData, withQuery } from '../ui/data.ts';
import { figure, span } from '../ui/format.ts';
import { Badge, Card, Choice, Empty, Figure, Figures, Loaded, Problem, Table, Time } from '../ui/parts.tsx';
import { settings, texts } from '../ui/settings.ts';
import { fill, Late, PinnedPager, usePinned } from './desk_parts.tsx';
import { EVENT_NAMES, EVENTS, type EventName, InputsCard, RuleCard } from './events_rules.tsx';

const TEXT = texts({
  monitor: ['Monitor', '监控'],
  judged: ['Judged up to', '已判断至'],
  ran: ['Last run', '最近运行'],
  untold: ['Events not yet told to people', '尚未通知的事件'],
  blind: ['Rules that cannot be judged', '无法判断的规则'],
  fault: ['Last fault', '最近故障'],
  none: ['none', '无'],
  limits: ['The limits cannot be shown', '无法显示阈值'],
  unknown: [
    'There is no state of the rules yet: major_events_monitor.ts writes it.',
    '暂无规则状态：由 major_events_monitor.ts 写入。',
  ],
  limitsNote: [
    'Limits are those of the operator’s file as it is now; the monitor takes them when it starts. Times within sentences are Beijing’s.',
    '阈值取自当前的配置文件；监控程序在启动时读取。句中时间为北京时间。',
  ],
  history: ['What was told', '事件历史'],
  filter: ['Event', '事件'],
  all: ['All', '全部'],
  time: ['Minute of the data', '数据分钟'],
  event: ['Event', '事件'],
  severity: ['Severity', '级别'],
  high: ['high', '高'],
  medium: ['medium', '中'],
  text: ['What happened', '内容'],
  version: ['Rule', '规则版本'],
  empty: [
    'No such event has been told yet. major_events_monitor.ts writes what happens.',
    '尚无此类事件。major_events_monitor.ts 会写入发生的事件。',
  ],
  anchor: ['Anchor positions', '锚定持仓'],
  anchorNote: [
    'Of the owner’s account, by profit in percent of the margin. One that wins 120 % is among those of 80 %, too.',
    '所有者账户的持仓，按保证金收益率统计。盈利达 120% 的也计入 80%。',
  ],
  slot: ['At', '时间'],
  mode: ['Account', '账户'],
  real: ['real', '实盘'],
  simulated: ['simulated', '模拟'],
  positions: ['Positions', '持仓数'],
  unclear: ['Profit not known', '盈利未知'],
  side: ['Side', '方向'],
  long: ['Long', '多'],
  short: ['Short', '空'],
  loss: ['In loss', '亏损'],
  lte40: ['40 % or less', '不超过 40%'],
  gte80: ['80 % or more', '80% 及以上'],
  gte120: ['120 % or more', '120% 及以上'],
  old: [
    'These are {age} old: anchor_data_collector.ts takes them each five minutes.',
    '这些数据已是 {age} 前的：anchor_data_collector.ts 每 5 分钟采集一次。',
  ],
});
const REFRESH_MS = 30_000;
const SIZE = 25;
/** Positions are taken each five minutes: two of them missed. */
const ANCHOR_OLD_S = 900;

export function EventsPage() {
  const now = useData<EventsNow>('/api/major-events/current-status', REFRESH_MS);
  const anchor = useData<AnchorLatest>('/api/anchor/latest', REFRESH_MS);
  return (
    <>
      <Card wide title={TEXT.monitor} note={TEXT.limitsNote}>
        <Loaded data={now}>{(value) => <Monitor now={value} />}</Loaded>
      </Card>
      {now.value === null ? null : (
        <>
          <div class="rules">
            {EVENTS.map((event) => (
              <RuleCard key={event} event={event} now={now.value!} />
            ))}
          </div>
          <div class="grid spaced">
            <InputsCard now={now.value} />
            {anchor.value?.data === null ? null : <AnchorCard anchor={anchor} />}
          </div>
        </>
      )}
      <HistoryCard />
    </>
  );
}

function Monitor({ now }: { now: EventsNow }) {
  const blind = EVENTS.filter((event) => now.standing[event].state === 'blind');
  return (
    <>
      <Late isCurrent={now.is_current} ageSeconds={now.age_seconds} script="major_events_monitor.ts" />
      {now.limits_fault === null ? null : <Problem error={`${TEXT.limits}: ${now.limits_fault}`} />}
      {now.is_known ? null : <Empty>{TEXT.unknown}</Empty>}
      <Figures>
        <Figure name="events-judged" label={TEXT.judged} value={<Time ms={now.data_time} detail="minute" />} />
        <Figure name="events-ran" label={TEXT.ran} value={<Time ms={now.last_run} />} />
        <Figure
          name="events-blind"
          label={TEXT.blind}
          value={now.is_known ? (blind.length === 0 ? TEXT.none : blind.join(', ')) : '–'}
          tone={blind.length > 0 ? 'warn' : undefined}
        />
        <Figure
          name="events-untold"
          label={TEXT.untold}
          value={figure(now.untold_count)}
          tone={(now.untold_count ?? 0) > 0 ? 'warn' : undefined}
        />
      </Figures>
      {now.error === null ? null : <Problem error={`${TEXT.fault}: ${now.error}`} />}
    </>
  );
}

const FILTERS = ['all', ...EVENTS] as const;

function HistoryCard() {
  const [event, setEvent] = useState<(typeof FILTERS)[number]>('all');
  return (
    <Card
      wide
      title={TEXT.history}
      actions={
        <Choice
          label={TEXT.filter}
          choices={FILTERS}
          chosen={event}
          name={(each) => (each === 'all' ? TEXT.all : each)}
          onChoose={(each) => setEvent(each)}
        />
      }
    >
      <History key={event} event={event === 'all' ? null : event} />
    </Card>
  );
}

function History({ event }: { event: EventName | null }) {
  const [page, turn] = usePinned();
  const path = withQuery('/api/major-events/history', { event, limit: SIZE, offset: page.offset, to: page.to });
  const history = useData<EventsList>(path, REFRESH_MS);
  const isZh = settings().language === 'zh';
  return (
    <Loaded data={history}>
      {({ data, total_count }) => (
        <>
          <Table
            label={TEXT.history}
            rows={data}
            keyOf={({ id }) => id}
            empty={TEXT.empty}
            columns={[
              {
                title: TEXT.time,
                cell: ({ minute }) => (
                  <span data-figure="history-time">
                    <Time ms={minute} detail="minute" />
                  </span>
                ),
              },
              {
                title: TEXT.event,
                cell: (row) => (
                  <span data-figure="history-event">
                    {row.event} {EVENT_NAMES[row.event]}
                  </span>
                ),
              },
              {
                title: TEXT.severity,
                cell: ({ severity }) => <Badge tone={severity === 'high' ? 'bad' : 'warn'}>{TEXT[severity]}</Badge>,
              },
              {
                title: TEXT.text,
                cell: ({ text, text_zh }) => (
                  <span class="wraps" data-figure="history-text">
                    {isZh ? text_zh : text}
                  </span>
                ),
              },
              { title: TEXT.version, isNumber: true, cell: ({ rule_version }) => `v${rule_version}` },
            ]}
          />
          <PinnedPager page={page} total={total_count} size={SIZE} newest={data[0]?.minute ?? null} onTurn={turn} />
        </>
      )}
    </Loaded>
  );
}

function AnchorCard({ anchor }: { anchor: ReturnType<typeof useData<AnchorLatest>> }) {
  return (
    <Card title={TEXT.anchor} note={TEXT.anchorNote}>
      <Loaded data={anchor}>
        {({ data, age_seconds }) =>
          data === null ? null : (
            <>
              {(age_seconds ?? 0) > ANCHOR_OLD_S ? (
                <p class="note warn">{fill(TEXT.old, { age: span((age_seconds ?? 0) * 1000) })}</p>
              ) : null}
              <Figures>
                <Figure label={TEXT.slot} value={<Time ms={data.slot} detail="minute" />} />
                <Figure label={TEXT.mode} value={modeName(data.trade_mode)} />
                <Figure name="anchor-positions" label={TEXT.positions} value={figure(data.positions_count)} />
                <Figure
                  label={TEXT.unclear}
                  value={figure(data.unknown)}
                  tone={(data.unknown ?? 0) > 0 ? 'warn' : undefined}
                />
              </Figures>
              <Table
                label={TEXT.anchor}
                rows={
                  data.stats === undefined
                    ? []
                    : (['short', 'long'] as const).map((side) => ({ side, ...data.stats![side] }))
                }
                keyOf={({ side }) => side}
                columns={[
                  { title: TEXT.side, cell: ({ side }) => TEXT[side] },
                  {
                    title: TEXT.loss,
                    isNumber: true,
                    cell: ({ side, loss }) => <span data-figure={`anchor-${side}-loss`}>{figure(loss)}</span>,
                  },
                  { title: TEXT.lte40, isNumber: true, cell: ({ lte_40 }) => figure(lte_40) },
                  { title: TEXT.gte80, isNumber: true, cell: ({ gte_80 }) => figure(gte_80) },
                  {
                    title: TEXT.gte120,
                    isNumber: true,
                    cell: ({ side, gte_120 }) => <span data-figure={`anchor-${side}-120`}>{figure(gte_120)}</span>,
                  },
                ]}
              />
            </>
          )
        }
      </Loaded>
    </Card>
  );
}

function modeName(mode: string | undefined): string {
  return mode === 'real' || mode === 'simulated' ? TEXT[mode] : (mode ?? '–');
}
