/** Long-run validation: each soak run with its verdict, and the chosen one in full. */
import { useState } from 'preact/hooks';
import type { SoakHead, SoakList } from '../../lib/web/soak_routes.ts';
import { useData, withQuery } from '../ui/data.ts';
import { figure, span, UNKNOWN } from '../ui/format.ts';
import { Badge, Card, Loaded, Pager, Table, Time } from '../ui/parts.tsx';
import { texts } from '../ui/settings.ts';
import { SoakRun } from './soak_run.tsx';
import { SoakBadge } from './soak_words.tsx';
import './soak.css';

const TEXT = texts({
  runs: ['Soak runs', '长稳测试记录'],
  note: [
    'soak.ts runs the whole system for hours and holds what it measures against limits; a run passes when it ran to its end, no sample is missing, and every criterion passed.',
    'soak.ts 让整个系统连续运行数小时，并以阈值检验各项测量；只有运行到预定结束、无缺失样本且各项标准全部通过，才算通过。',
  ],
  none: [
    'There was no soak run yet: soak.ts writes data/soak/ID/report.json from its first minute on.',
    '尚无长稳测试：soak.ts 自第一分钟起写入 data/soak/编号/report.json。',
  ],
  id: ['Run', '编号'],
  verdict: ['Verdict', '结论'],
  began: ['Began', '开始时间'],
  ran: ['Ran', '已运行'],
  planned: ['Planned', '计划时长'],
  criteria: ['Criteria passed / failed / incomplete', '标准：通过 / 未通过 / 未完成'],
  samples: ['Samples', '样本'],
  missing: ['Missing', '缺失'],
  mode: ['Mode', '模式'],
  state: ['State', '状态'],
  running: ['running', '进行中'],
  quiet: ['running, and silent', '进行中，但无更新'],
  ended: ['ended', '已结束'],
  damaged: ['damaged', '报告损坏'],
});

const PAGE = 20;

export function SoakPage() {
  const [offset, setOffset] = useState(0);
  const [chosen, setChosen] = useState<string | null>(new URLSearchParams(location.search).get('run'));
  const list = useData<SoakList>(withQuery('/api/soak/reports', { limit: PAGE, offset }), 15_000);
  const shown = chosen ?? list.value?.data.find(({ state }) => state !== 'damaged')?.id ?? null;
  const choose = (id: string) => {
    // So that it can be sent to others, and survives a reload.
    history.replaceState(null, '', withQuery(location.pathname, { run: id }));
    setChosen(id);
  };
  return (
    <div class="soak">
      <Card title={TEXT.runs} note={TEXT.note}>
        <Loaded data={list}>
          {({ data, total_count }) => (
            <>
              <Table
                label={TEXT.runs}
                rows={data}
                keyOf={({ id }) => id}
                empty={TEXT.none}
                columns={[
                  {
                    title: TEXT.id,
                    cell: ({ id, state }) =>
                      state === 'damaged' ? (
                        <code>{id}</code>
                      ) : (
                        <button type="button" class="link" aria-pressed={id === shown} onClick={() => choose(id)}>
                          {id}
                        </button>
                      ),
                  },
                  { title: TEXT.verdict, cell: (head) => <SoakBadge verdict={head.verdict} /> },
                  { title: TEXT.state, cell: (head) => <State head={head} /> },
                  { title: TEXT.began, cell: ({ began }) => <Time ms={began} detail="minute" /> },
                  { title: TEXT.ran, isNumber: true, cell: ({ duration_ms }) => span(duration_ms) },
                  { title: TEXT.planned, isNumber: true, cell: ({ for_ms }) => span(for_ms) },
                  { title: TEXT.criteria, isNumber: true, cell: (head) => <Counts head={head} /> },
                  { title: TEXT.samples, isNumber: true, cell: ({ samples }) => figure(samples) },
                  {
                    title: TEXT.missing,
                    isNumber: true,
                    tone: ({ samples_missing }) => ((samples_missing ?? 0) > 0 ? 'warn' : undefined),
                    cell: ({ samples_missing }) => figure(samples_missing),
                  },
                  { title: TEXT.mode, cell: ({ mode }) => mode ?? UNKNOWN },
                ]}
              />
              <Pager total={total_count} size={PAGE} offset={offset} onTurn={setOffset} />
            </>
          )}
        </Loaded>
      </Card>
      {shown === null ? null : <SoakRun key={shown} id={shown} />}
    </div>
  );
}

function State({ head: { state, is_quiet, error } }: { head: SoakHead }) {
  return (
    <span class="wraps">
      {state === 'damaged' ? (
        <Badge tone="bad">{TEXT.damaged}</Badge>
      ) : is_quiet ? (
        <Badge tone="bad">{TEXT.quiet}</Badge>
      ) : (
        <Badge tone={state === 'running' ? 'warn' : 'plain'}>{TEXT[state]}</Badge>
      )}{' '}
      {error === null ? null : <span class="bad">{error}</span>}
    </span>
  );
}

function Counts({ head: { state, criteria } }: { head: SoakHead }) {
  if (state === 'damaged') return <>{UNKNOWN}</>;
  const { passed, failed, incomplete } = criteria;
  return (
    <>
      <span class="good">{passed}</span> / <span class={failed > 0 ? 'bad' : undefined}>{failed}</span> /{' '}
      <span class={incomplete > 0 ? 'warn' : undefined}>{incomplete}</span>
    </>
  );
}
