/** Repairs: what there were and what each did, and a plan, which changes nothing and can be applied once it was seen. */
import { useEffect, useState } from 'preact/hooks';
import type { RepairHead } from '../../lib/web/repair_journal.ts';
import type { RepairDetail, RepairJob, RepairJobList, RepairJournal } from '../../lib/web/repair_routes.ts';
import { ask, useData, withQuery } from '../ui/data.ts';
import { figure, UNKNOWN } from '../ui/format.ts';
import { Badge, Card, Loaded, Pager, Table, Time, type Tone } from '../ui/parts.tsx';
import { texts } from '../ui/settings.ts';
import { Outcome, TwoSteps, useAction } from './quality_parts.tsx';
import { JobView, type PlanDraft, PlanForm } from './quality_plan.tsx';

const TEXT = texts({
  plan: ['Plan a repair', '生成修复计划'],
  planNote: [
    'Runs repair.ts --dry-run: it says what would be done and changes nothing. What it says can then be applied.',
    '运行 repair.ts --dry-run：只说明将要做什么，不作任何改动；看过计划后方可执行。',
  ],
  journal: ['Repairs', '修复记录'],
  none: [
    'There was no repair yet: repair.ts --apply writes its journal under data/state/repair.',
    '尚无修复记录：repair.ts --apply 会在 data/state/repair 下写入日志。',
  ],
  at: ['Began', '开始时间'],
  id: ['Id', '编号'],
  asked: ['Asked', '参数'],
  state: ['State', '状态'],
  steps: ['Steps', '步骤'],
  rows: ['Rows', '行数'],
  left: ['Left', '剩余'],
  done: ['applied', '已执行'],
  not_ended: ['not ended: goes on, or was cut off', '未结束：进行中或被中断'],
  rolled_back: ['rolled back', '已回滚'],
  partly_rolled_back: ['rollback not ended', '回滚未完成'],
  damaged: ['damaged', '日志损坏'],
  exact: ['all as before', '与修复前完全一致'],
  notExact: ['not all as before', '与修复前不完全一致'],
  undo: ['Roll back', '回滚'],
  what: ['What', '操作'],
  of: ['Of', '对象'],
  tier: ['Tier', '冷/热'],
  span: ['Event time', '事件时间'],
  stepsOf: ['Steps of', '步骤：'],
  remove: ['taken out', '取出'],
  publish: ['given to the store', '重新写入'],
  copy: ['copied to cold', '复制到冷库'],
  declare: ['gap declared', '登记缺口'],
  letters: ['dead letters published', '重发死信'],
  aside: ['file put aside', '移走文件'],
  stepDone: ['done', '完成'],
  stepUndone: ['undone', '已撤销'],
  stepBegun: ['begun', '已开始'],
});

const PAGE = 8;
const TONES: Record<RepairHead['state'], Tone> = {
  ...{ done: 'good', not_ended: 'warn', rolled_back: 'plain', partly_rolled_back: 'warn', damaged: 'bad' },
};

export function RepairsSection({ token, draft }: { token: string; draft: PlanDraft }) {
  const [offset, setOffset] = useState(0);
  const [chosen, setChosen] = useState<string | null>(null);
  const [isRunning, setRunning] = useState(false);
  const jobs = useData<RepairJobList>(withQuery('/api/repair/jobs', { limit: 5 }), isRunning ? 1000 : 15_000);
  const path = withQuery('/api/repair/journal', { limit: PAGE, offset });
  const journal = useData<RepairJournal>(path, isRunning ? 2000 : 15_000);
  const action = useAction();
  const newest = jobs.value?.data[0];
  useEffect(() => setRunning(newest?.state === 'running'), [newest?.state]);
  // What has just ended has written its last lines.
  useEffect(() => {
    if (newest?.state === 'ended') journal.again();
  }, [newest?.id, newest?.state]);
  const begin = (address: string, body?: object) =>
    action.run(async () => {
      await ask<RepairJob>(address, { method: 'POST', token, ...(body === undefined ? {} : { body }) });
      setRunning(true);
      jobs.again();
      return null;
    });
  return (
    <>
      <Card wide title={TEXT.plan} note={TEXT.planNote}>
        <PlanForm
          draft={draft}
          token={token}
          isBusy={isRunning || action.isBusy}
          onPlan={(body) => void begin('/api/repair/plan', body)}
        />
        <Outcome action={action} />
        <Loaded data={jobs}>
          {({ data }) =>
            data[0] === undefined ? null : (
              <JobView
                job={data[0]}
                token={token}
                isBusy={action.isBusy}
                onApply={(job, hash) => void begin(`/api/repair/${job.id}/apply`, { hash })}
              />
            )
          }
        </Loaded>
      </Card>
      <Card wide title={TEXT.journal}>
        <Loaded data={journal}>
          {({ data, total_count }) => (
            <>
              <Table
                label={TEXT.journal}
                rows={data}
                keyOf={({ id }) => id}
                empty={TEXT.none}
                columns={[
                  { title: TEXT.at, cell: ({ at }) => <Time ms={at} /> },
                  {
                    title: TEXT.id,
                    cell: ({ id }) => (
                      <button
                        type="button"
                        class="link code"
                        aria-pressed={chosen === id}
                        onClick={() => setChosen(chosen === id ? null : id)}
                      >
                        {id}
                      </button>
                    ),
                  },
                  { title: TEXT.state, cell: (head) => <RepairState head={head} /> },
                  { title: TEXT.steps, isNumber: true, cell: ({ steps }) => figure(steps) },
                  { title: TEXT.rows, isNumber: true, cell: ({ rows }) => figure(rows) },
                  { title: TEXT.left, isNumber: true, cell: ({ left }) => figure(left) },
                  { title: TEXT.asked, cell: ({ asked }) => <code class="wraps">{asked ?? UNKNOWN}</code> },
                  {
                    title: '',
                    cell: (head) =>
                      head.is_exact === true || head.state === 'damaged' ? null : (
                        <TwoSteps
                          token={token}
                          disabled={isRunning || action.isBusy}
                          onClick={() => void begin(`/api/repair/${head.id}/rollback`)}
                        >
                          {TEXT.undo}
                        </TwoSteps>
                      ),
                  },
                ]}
              />
              <Pager total={total_count} size={PAGE} offset={offset} onTurn={setOffset} />
            </>
          )}
        </Loaded>
        {chosen === null ? null : <Steps id={chosen} />}
      </Card>
    </>
  );
}

function RepairState({ head: { state, is_exact, rolled_back, not_undone, error } }: { head: RepairHead }) {
  return (
    <span class="wraps">
      <Badge tone={TONES[state]}>{TEXT[state]}</Badge>{' '}
      {rolled_back === null ? null : (
        <>
          <Time ms={rolled_back} />{' '}
          <span class={is_exact ? 'good' : 'bad'}>{is_exact ? TEXT.exact : TEXT.notExact}</span>
        </>
      )}
      {not_undone.map((each) => (
        <span key={each} class="bad">
          {' '}
          {each}
        </span>
      ))}
      {error === null ? null : <span class="bad">{error}</span>}
    </span>
  );
}

function Steps({ id }: { id: string }) {
  const data = useData<RepairDetail>(`/api/repair/journal/${id}`, 5000);
  return (
    <>
      <h3>
        {TEXT.stepsOf} <code>{id}</code>
      </h3>
      <Loaded data={data}>
        {({ steps }) => (
          <Table
            label={`${TEXT.stepsOf} ${id}`}
            rows={steps}
            keyOf={({ n }) => String(n)}
            columns={[
              { title: '#', isNumber: true, cell: ({ n }) => n },
              { title: TEXT.what, cell: ({ op }) => TEXT[op] },
              { title: TEXT.tier, cell: ({ tier }) => tier ?? UNKNOWN },
              {
                title: TEXT.of,
                cell: ({ type, exchange, market_type, symbol }) =>
                  [type, exchange, market_type, symbol].filter((each) => each !== null).join(' ') || UNKNOWN,
              },
              {
                title: TEXT.span,
                cell: ({ from, to }) =>
                  from === null ? (
                    UNKNOWN
                  ) : (
                    <>
                      <Time ms={from} /> – <Time ms={to} />
                    </>
                  ),
              },
              { title: TEXT.rows, isNumber: true, cell: ({ rows }) => figure(rows) },
              {
                title: TEXT.state,
                cell: ({ is_done, is_undone }) =>
                  is_undone ? TEXT.stepUndone : is_done ? TEXT.stepDone : TEXT.stepBegun,
              },
            ]}
          />
        )}
      </Loaded>
    </>
  );
}
