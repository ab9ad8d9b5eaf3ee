/** What the monitor raised last. */
import type { shownAlert } from '../../lib/alert_text.ts';
import { KINDS } from '../../lib/checks/kinds.ts';
import { useData } from '../ui/data.ts';
import { figure } from '../ui/format.ts';
import { Badge, Card, Loaded, Table, Time, type Tone } from '../ui/parts.tsx';
import { settings, texts } from '../ui/settings.ts';

const TEXT = texts({
  title: ['Last alerts', '最近告警'],
  all: ['All of them, with their history', '全部告警与历史'],
  shown: ['shown', '显示'],
  of: ['of', '/'],
  severity: ['Severity', '级别'],
  state: ['State', '状态'],
  what: ['What', '内容'],
  since: ['Raised', '触发时间'],
  seen: ['Last seen', '最后出现'],
  times: ['Rounds', '次数'],
  standing: ['standing', '未恢复'],
  over: ['over', '已恢复'],
  hint: ['hint', '提示'],
  low: ['low', '低'],
  medium: ['medium', '中'],
  high: ['high', '高'],
  critical: ['critical', '严重'],
  none: [
    'No alert: the monitor has raised none. monitor.ts asks its checks every 15 minutes.',
    '无告警：监控未触发任何告警。monitor.ts 每 15 分钟检查一轮。',
  ],
});

type ShownAlert = ReturnType<typeof shownAlert>;
interface Alerts {
  total: number;
  alerts: ShownAlert[];
}

const TONES: Record<ShownAlert['severity'], Tone> = {
  hint: 'plain',
  low: 'plain',
  medium: 'warn',
  high: 'bad',
  critical: 'bad',
};
const MOST = 8;
/** A round runs each quarter of an hour, and whoever asks for one. */
const EVERY_MS = 10_000;

function whatOf({ alert_type, subject, details }: ShownAlert): string {
  return `${KINDS[alert_type][settings().language]}: ${subject}: ${details.what}`;
}

export function AlertsCard() {
  const alerts = useData<Alerts>(`/api/monitoring/alerts?limit=${MOST}`, EVERY_MS);
  const total = alerts.value?.total ?? 0;
  return (
    <Card
      title={TEXT.title}
      note={
        <>
          <a href="/quality">{TEXT.all}</a>
          {total > MOST ? ` (${TEXT.shown} ${MOST} ${TEXT.of} ${figure(total)})` : null}
        </>
      }
    >
      <Loaded data={alerts}>
        {(value) => (
          <Table
            label={TEXT.title}
            rows={value.alerts}
            keyOf={({ fingerprint }) => fingerprint}
            empty={TEXT.none}
            columns={[
              { title: TEXT.severity, cell: ({ severity }) => <Badge tone={TONES[severity]}>{TEXT[severity]}</Badge> },
              {
                title: TEXT.state,
                cell: ({ state }) => <span class={state === 'standing' ? 'bad' : 'good'}>{TEXT[state]}</span>,
              },
              { title: TEXT.what, cell: (alert) => <span class="wraps">{whatOf(alert)}</span> },
              { title: TEXT.since, cell: ({ created_at }) => <Time ms={Date.parse(created_at)} /> },
              { title: TEXT.seen, cell: ({ last_seen }) => <Time ms={Date.parse(last_seen)} /> },
              { title: TEXT.times, isNumber: true, cell: ({ occurrences }) => figure(occurrences) },
            ]}
          />
        )}
      </Loaded>
    </Card>
  );
}
