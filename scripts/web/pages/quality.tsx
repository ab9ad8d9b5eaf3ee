/** What the checks say, what people were told, and what was mended. */
import { useRef, useState } from 'preact/hooks';
import type { MonitorHealth } from '../../lib/monitor_api.ts';
import type { About } from '../../lib/web/about_routes.ts';
import type { QualityFinding, QualityRound } from '../../lib/web/quality_routes.ts';
import { ask, useData } from '../ui/data.ts';
import { figure } from '../ui/format.ts';
import { Card, Figure, Figures, Loaded, Time, TokenField, useToken } from '../ui/parts.tsx';
import { texts } from '../ui/settings.ts';
import { AlertsCard } from './quality_alerts.tsx';
import { LimitsCard } from './quality_limits.tsx';
import {
  completenessText,
  depthWord,
  Outcome,
  SEVERITIES,
  SEVERITY_TONES,
  severityWord,
  useAction,
  type Verdict,
  VerdictBadge,
  WriteButton,
} from './quality_parts.tsx';
import type { PlanDraft } from './quality_plan.tsx';
import { RepairsSection } from './quality_repairs.tsx';
import { CompletenessCard, RoundCard, RoundsCard, useRounds } from './quality_rounds.tsx';
import { StreamsCard } from './quality_streams.tsx';
import './quality.css';

const TEXT = texts({
  now: ['Now', '当前状态'],
  verdict: ['Last round', '最近一轮'],
  completeness: ['Completeness', '完整率'],
  began: ['Began', '开始时间'],
  alerts: ['Alerts that stand', '未恢复告警'],
  acknowledged: ['Acknowledged', '已确认'],
  runQuick: ['Run a quick round', '运行快速检查'],
  runFull: ['Run a full round', '运行完整检查'],
  running: ['A round runs; it takes up to a minute …', '正在检查，最长约一分钟……'],
  ran: ['The round is over.', '检查已完成。'],
  noToken: [
    'MARKETPRISM_API_TOKEN is not set for web.ts: rounds, limits, acknowledgements and repairs cannot be asked for here.',
    'web.ts 未设置 MARKETPRISM_API_TOKEN：此处无法运行检查、修改阈值、确认告警或修复数据。',
  ],
});
const WORST = SEVERITIES.filter((each) => each !== 'hint');

export function QualityPage() {
  const about = useData<About>('/api/about');
  const health = useData<MonitorHealth>('/api/monitoring/health', 10_000);
  const [token, setToken] = useToken();
  const [offset, setOffset] = useState(0);
  const [turn, setTurn] = useState(0);
  const [chosen, setChosen] = useState<string | null>(null);
  const [draft, setDraft] = useState<PlanDraft>({});
  const repairs = useRef<HTMLDivElement>(null);
  const rounds = useRounds(offset);
  const action = useAction();
  const run = (type: 'quick' | 'full') =>
    action.run(async () => {
      await ask('/api/monitoring/data-consistency/check', { method: 'POST', body: { type }, token });
      for (const each of [health, rounds]) each.again();
      setTurn(turn + 1);
      return TEXT.ran;
    });
  const plan = (check: string, { exchange, symbol, data_type }: QualityFinding, { from, to }: QualityRound) => {
    const stream = { exchange: exchange ?? '', symbol: symbol ?? '', type: data_type ?? '' };
    setDraft({ check, ...stream, from: utc(from), to: utc(to + 999) });
    repairs.current?.scrollIntoView();
  };
  return (
    <div class="quality">
      <div class="bar">
        <TokenField token={token} onChange={setToken} />
        <WriteButton token={token} disabled={action.isBusy} onClick={() => void run('quick')}>
          {TEXT.runQuick}
        </WriteButton>
        <WriteButton token={token} disabled={action.isBusy} onClick={() => void run('full')}>
          {TEXT.runFull}
        </WriteButton>
        <span role="status" class="plain">
          {action.isBusy ? TEXT.running : ''}
        </span>
      </div>
      {about.value?.is_writable === false ? <p class="note warn">{TEXT.noToken}</p> : null}
      <Outcome action={action} />
      <div class="grid">
        <Card wide title={TEXT.now}>
          <Loaded data={health}>{(value) => <Now health={value} />}</Loaded>
        </Card>
        <CompletenessCard turn={turn} />
        <AlertsCard token={token} turn={turn} onChange={health.again} />
        <RoundsCard rounds={rounds} chosen={chosen} onChoose={setChosen} offset={offset} onTurn={setOffset} />
        <RoundCard id={chosen} turn={turn} onRepair={plan} />
        <StreamsCard turn={turn} />
        <div class="wide" ref={repairs}>
          <RepairsSection token={token} draft={draft} />
        </div>
        <LimitsCard token={token} />
      </div>
    </div>
  );
}

/** As the API takes it: UTC, to the second. */
function utc(ms: number): string {
  return new Date(ms).toISOString().slice(0, 19).replace('T', ' ');
}

function Now({ health }: { health: MonitorHealth }) {
  const { status, error, completeness, last_round, standing_alerts } = health;
  return (
    <>
      {error === null ? null : (
        <p class="problem" role="alert">
          {error}
        </p>
      )}
      <Figures>
        <Figure label={TEXT.verdict} name="verdict" value={<VerdictBadge verdict={status as Verdict} />} />
        <Figure label={TEXT.completeness} name="completeness" value={completenessText(completeness)} />
        <Figure
          label={TEXT.began}
          value={
            last_round === null ? (
              <Time ms={null} />
            ) : (
              <>
                <Time ms={Date.parse(last_round.began)} /> · {depthWord(last_round.type)}
              </>
            )
          }
        />
        <Figure label={TEXT.alerts} name="standing" value={figure(standing_alerts.total)} />
        {WORST.map((severity) => (
          <Figure
            key={severity}
            label={severityWord(severity)}
            name={`standing-${severity}`}
            tone={standing_alerts[severity as 'high'] > 0 ? SEVERITY_TONES[severity] : undefined}
            value={figure(standing_alerts[severity as 'high'])}
          />
        ))}
        <Figure label={TEXT.acknowledged} name="acknowledged" value={figure(standing_alerts.acknowledged)} />
      </Figures>
    </>
  );
}
