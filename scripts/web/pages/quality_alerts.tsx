/** Alerts that stand and that are over; who knows of one says so, and is told no more of it as it is. */
import { useState } from 'preact/hooks';
import type { ShownAlert } from '../../lib/alert_text.ts';
import { ask, useChoice, useData, withQuery } from '../ui/data.ts';
import { figure, span, UNKNOWN } from '../ui/format.ts';
import { Badge, Card, Choice, Loaded, Pager, Table, Time } from '../ui/parts.tsx';
import { texts } from '../ui/settings.ts';
import { Outcome, SeverityBadge, useAction, useTurn, WriteButton } from './quality_parts.tsx';

const TEXT = texts({
  alerts: ['Alerts', '告警'],
  state: ['Shown', '显示'],
  standing: ['standing', '未恢复'],
  over: ['over', '已恢复'],
  all: ['all', '全部'],
  noneOver: ['No alert is over.', '没有已恢复的告警。'],
  noneStanding: ['No alert stands.', '没有未恢复的告警。'],
  none: [
    'No alert was raised yet: monitor.ts raises them by what its rounds find.',
    '尚无告警：由 monitor.ts 根据检查结果产生。',
  ],
  severity: ['Severity', '级别'],
  what: ['What', '内容'],
  since: ['Since', '开始时间'],
  lasted: ['Lasted', '持续'],
  rounds: ['Rounds', '轮次'],
  status: ['State', '状态'],
  seen: ['Last seen', '最近一次'],
  acknowledged: ['acknowledged', '已确认'],
  muted: ['follows from', '源于'],
  flapping: ['comes and goes', '反复抖动'],
  acknowledge: ['Acknowledge', '确认'],
  again: ['Acknowledge anew', '重新确认'],
  who: ['Who', '确认人'],
  note: ['What is done about it', '处理说明'],
  cancel: ['Cancel', '取消'],
  told: [
    'is told again only when it gets worse, or when it was over and comes again.',
    '仅在级别上升或恢复后再次出现时才会重新通知。',
  ],
});

const STATES = ['standing', 'over', 'all'] as const;
const PAGE = 15;

export interface AlertList {
  total: number;
  alerts: ShownAlert[];
}

interface AlertsProps {
  token: string;
  turn: number;
  onChange(): void;
}

export function AlertsCard({ token, turn, onChange }: AlertsProps) {
  const [state, setState] = useChoice('alerts', STATES, 'standing');
  const [offset, setOffset] = useState(0);
  const [chosen, setChosen] = useState<ShownAlert | null>(null);
  const data = useData<AlertList>(withQuery('/api/monitoring/alerts', { state, limit: PAGE, offset }), 10_000);
  useTurn(data, turn);
  const choose = (next: (typeof STATES)[number]) => {
    setOffset(0);
    setState(next);
  };
  return (
    <Card
      wide
      title={TEXT.alerts}
      actions={
        <Choice label={TEXT.state} choices={STATES} chosen={state} onChoose={choose} name={(each) => TEXT[each]} />
      }
    >
      {chosen === null ? null : (
        <AcknowledgeForm
          key={chosen.fingerprint}
          alert={chosen}
          token={token}
          onEnd={(isDone) => {
            setChosen(null);
            if (!isDone) return;
            data.again();
            onChange();
          }}
        />
      )}
      <Loaded data={data}>
        {({ total, alerts }) => (
          <>
            <Table
              label={TEXT.alerts}
              rows={alerts}
              keyOf={({ fingerprint }) => fingerprint}
              empty={state === 'standing' ? TEXT.noneStanding : state === 'over' ? TEXT.noneOver : TEXT.none}
              columns={[
                { title: TEXT.severity, cell: ({ severity }) => <SeverityBadge severity={severity} /> },
                {
                  title: TEXT.what,
                  cell: ({ check, message, details }) => (
                    <span class="wraps" title={`${details.evidence}\n${details.fix}`}>
                      <span class="plain">{check}</span> · {message}
                    </span>
                  ),
                },
                { title: TEXT.since, cell: ({ created_at }) => <Time ms={Date.parse(created_at)} /> },
                { title: TEXT.lasted, isNumber: true, cell: lasted },
                { title: TEXT.rounds, isNumber: true, cell: ({ occurrences }) => figure(occurrences) },
                { title: TEXT.status, cell: (alert) => <State alert={alert} /> },
                {
                  title: '',
                  cell: (alert) =>
                    alert.state === 'standing' ? (
                      <WriteButton token={token} onClick={() => setChosen(alert)}>
                        {alert.acknowledged === null ? TEXT.acknowledge : TEXT.again}
                      </WriteButton>
                    ) : null,
                },
              ]}
            />
            <Pager total={total} size={PAGE} offset={offset} onTurn={setOffset} />
          </>
        )}
      </Loaded>
    </Card>
  );
}

function lasted({ created_at, over_at, last_seen }: ShownAlert): string {
  return span(Date.parse(over_at ?? last_seen) - Date.parse(created_at));
}

function State({ alert }: { alert: ShownAlert }) {
  const { state, acknowledged, muted_by, is_flapping, over_at } = alert;
  return (
    <span class="wraps">
      {state === 'over' ? (
        <>
          <Badge tone="good">{TEXT.over}</Badge> <Time ms={over_at === null ? null : Date.parse(over_at)} />{' '}
        </>
      ) : acknowledged === null ? (
        <Badge tone="bad">{TEXT.standing}</Badge>
      ) : null}
      {acknowledged === null ? null : (
        <span data-figure={`acknowledged-${alert.fingerprint}`}>
          <Badge tone="plain">{TEXT.acknowledged}</Badge> {acknowledged.by ?? UNKNOWN}{' '}
          <Time ms={Date.parse(acknowledged.at)} detail="minute" />
          {acknowledged.note === null ? null : `: ${acknowledged.note}`}
        </span>
      )}{' '}
      {muted_by === null || state === 'over' ? null : (
        <Badge tone="plain">
          {TEXT.muted} {muted_by}
        </Badge>
      )}
      {is_flapping ? <Badge tone="warn">{TEXT.flapping}</Badge> : null}
    </span>
  );
}

interface FormProps {
  alert: ShownAlert;
  token: string;
  onEnd(isDone: boolean): void;
}

function AcknowledgeForm({ alert, token, onEnd }: FormProps) {
  const [by, setBy] = useState('');
  const [note, setNote] = useState('');
  const action = useAction();
  const send = async () => {
    const body = { ...(by.trim() === '' ? {} : { by }), ...(note.trim() === '' ? {} : { note }) };
    const path = `/api/monitoring/alerts/${alert.fingerprint}/acknowledge`;
    const isDone = await action.run(async () => {
      await ask(path, { method: 'POST', body, token });
      return null;
    });
    if (isDone) onEnd(true);
  };
  return (
    <Card title={`${TEXT.acknowledge}: ${alert.message}`} note={`${alert.check} · ${alert.subject} ${TEXT.told}`}>
      <Outcome action={action} />
      <form
        class="form"
        onSubmit={(event) => {
          event.preventDefault();
          void send();
        }}
      >
        <label class="select">
          <span>{TEXT.who}</span>
          <input name="by" maxLength={100} value={by} onInput={(event) => setBy(event.currentTarget.value)} />
        </label>
        <label class="select grows">
          <span>{TEXT.note}</span>
          <input name="note" maxLength={1000} value={note} onInput={(event) => setNote(event.currentTarget.value)} />
        </label>
        <button type="submit" class="button" disabled={action.isBusy}>
          {TEXT.acknowledge}
        </button>
        <button type="button" class="button" onClick={() => onEnd(false)}>
          {TEXT.cancel}
        </button>
      </form>
    </Card>
  );
}
