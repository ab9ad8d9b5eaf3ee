/** The form of a plan, and what became of what was asked last: a plan, an apply, or a rollback. */
import { useEffect, useState } from 'preact/hooks';
import type { RepairJob, RepairKinds } from '../../lib/web/repair_routes.ts';
import { useData } from '../ui/data.ts';
import { figure, span, UNKNOWN } from '../ui/format.ts';
import { Badge, Figure, Figures, Select, Table, Time, type Tone } from '../ui/parts.tsx';
import { settings, texts } from '../ui/settings.ts';
import { TwoSteps, WriteButton } from './quality_parts.tsx';

const TEXT = texts({
  all: ['all that is wrong', '所有问题'],
  what: ['What', '内容'],
  ofCheck: ['what mends:', '针对检查项：'],
  exchange: ['Exchange', '交易所'],
  any: ['all', '全部'],
  symbol: ['Symbol', '交易对'],
  type: ['Data', '数据类型'],
  from: ['From, UTC', '起，UTC'],
  to: ['To, UTC', '止，UTC'],
  lastDay: ['the last 24 hours', '最近 24 小时'],
  now: ['now', '现在'],
  trust: ['Where hot and cold differ, right is', '冷热不一致时以何为准'],
  nobody: ['not said', '未指定'],
  plan: ['Plan', '生成计划'],
  apply: ['Apply this plan', '执行此计划'],
  kind_plan: ['Plan', '计划'],
  kind_apply: ['Apply', '执行'],
  kind_rollback: ['Rollback', '回滚'],
  running: ['running', '进行中'],
  exit_0: ['0: nothing left to mend', '0：已无问题'],
  exit_1: ['1: something is left', '1：仍有问题'],
  exit_2: ['2: a table is not as it should be', '2：表状态不符'],
  exit_3: ['3: a server does not answer', '3：服务无应答'],
  exit_64: ['64: asked wrongly', '64：参数有误'],
  exit: ['Exit code', '退出码'],
  began: ['Began', '开始时间'],
  took: ['Took', '耗时'],
  rows: ['Rows', '行数'],
  rowsSoFar: ['Rows so far', '已处理行数'],
  repair: ['Repair', '修复'],
  of: ['Of', '对象'],
  cannot: ['cannot be mended like this', '无法这样修复'],
  nothing: ['There is nothing to mend.', '没有需要修复的内容。'],
  expires: ['Can be applied until', '可执行至'],
  output: ['What repair.ts printed', 'repair.ts 的输出'],
});

/** What the form begins with; another one takes its place when somebody asks for the repair of a finding. */
export interface PlanDraft {
  check?: string;
  exchange?: string;
  symbol?: string;
  type?: string;
  from?: string;
  to?: string;
}

interface FormProps {
  draft: PlanDraft;
  token: string;
  isBusy: boolean;
  onPlan(body: object): void;
}

const NONE = '';
const CHECK = 'check ';

export function PlanForm({ draft, token, isBusy, onPlan }: FormProps) {
  const kinds = useData<RepairKinds>('/api/repair/kinds');
  const [what, setWhat] = useState(NONE);
  const [asked, setAsked] = useState<Omit<PlanDraft, 'check'>>({});
  const [trust, setTrust] = useState(NONE);
  useEffect(() => {
    const { check, ...others } = draft;
    setWhat(check === undefined ? NONE : CHECK + check);
    setAsked(others);
  }, [draft]);
  const { kinds: repairs = [], checks = [], exchanges = [], types = [] } = kinds.value ?? {};
  const set = (changed: PlanDraft) => setAsked({ ...asked, ...changed });
  const nameOf = (each: string) => {
    if (each === NONE) return TEXT.all;
    if (!each.startsWith(CHECK)) return each;
    const name = each.slice(CHECK.length);
    const zh = checks.find((check) => check.name === name)?.zh;
    return `${TEXT.ofCheck} ${settings().language === 'zh' ? (zh ?? name) : name}`;
  };
  const send = () => {
    const given = Object.entries({ ...asked, trust }).filter(([, text]) => text !== undefined && text.trim() !== '');
    const isCheck = what.startsWith(CHECK);
    onPlan({
      ...Object.fromEntries(given.map(([name, text]) => [name, text!.trim()])),
      ...(what === NONE ? {} : isCheck ? { check: what.slice(CHECK.length) } : { only: [what] }),
    });
  };
  const field = (name: 'symbol' | 'from' | 'to', label: string, hint: string) => (
    <label class="select">
      <span>{label}</span>
      <input
        name={`plan-${name}`}
        value={asked[name] ?? ''}
        placeholder={hint}
        onInput={(event) => set({ [name]: event.currentTarget.value })}
      />
    </label>
  );
  return (
    <div class="form">
      <Select
        label={TEXT.what}
        choices={[NONE, ...checks.map(({ name }) => CHECK + name), ...repairs.map(({ name }) => name)]}
        chosen={what}
        onChoose={setWhat}
        name={nameOf}
      />
      <Select
        label={TEXT.exchange}
        choices={[NONE, ...exchanges]}
        chosen={asked.exchange ?? NONE}
        onChoose={(exchange) => set({ exchange })}
        name={(each) => each || TEXT.any}
      />
      {field('symbol', TEXT.symbol, TEXT.any)}
      <Select
        label={TEXT.type}
        choices={[NONE, ...types]}
        chosen={asked.type ?? NONE}
        onChoose={(type) => set({ type })}
        name={(each) => each || TEXT.any}
      />
      {field('from', TEXT.from, TEXT.lastDay)}
      {field('to', TEXT.to, TEXT.now)}
      <Select
        label={TEXT.trust}
        choices={[NONE, 'hot', 'cold']}
        chosen={trust}
        onChoose={setTrust}
        name={(each) => each || TEXT.nobody}
      />
      <WriteButton token={token} disabled={isBusy} onClick={send}>
        {TEXT.plan}
      </WriteButton>
    </div>
  );
}

const EXIT_TONES: Record<number, Tone> = { 0: 'good', 1: 'warn' };
const EXITS = { 0: 'exit_0', 1: 'exit_1', 2: 'exit_2', 3: 'exit_3', 64: 'exit_64' } as const;

interface JobProps {
  job: RepairJob;
  token: string;
  isBusy: boolean;
  onApply(job: RepairJob, hash: string): void;
}

export function JobView({ job, token, isBusy, onApply }: JobProps) {
  const { kind, state, began, ended, message, output, repair, progress, plan, asked } = job;
  return (
    <div data-figure="job" data-state={state} data-kind={kind}>
      <Figures>
        <Figure label={TEXT[`kind_${kind}`]} value={<Exit job={job} />} />
        <Figure label={TEXT.began} value={<Time ms={began} />} />
        <Figure label={TEXT.took} value={ended === null ? UNKNOWN : span(ended - began)} />
        {repair === null ? null : <Figure label={TEXT.repair} name="job-repair" value={<code>{repair}</code>} />}
        {progress === null ? null : <Figure label={TEXT.rowsSoFar} name="job-rows" value={figure(progress.rows)} />}
        {plan === null ? null : <Figure label={TEXT.rows} name="plan-rows" value={figure(plan.rows)} />}
      </Figures>
      <p class="note">
        <code>{asked}</code>
      </p>
      {message === null ? null : (
        <p class={job.exit_code === 0 || job.exit_code === 1 ? 'note' : 'problem'} data-figure="job-message">
          {message}
        </p>
      )}
      {plan === null ? null : (
        <>
          <Table
            label={TEXT.kind_plan}
            rows={plan.lines}
            keyOf={(line, i) => `${line.repair} ${line.subject} ${i}`}
            empty={TEXT.nothing}
            columns={[
              { title: TEXT.repair, cell: (line) => line.repair },
              { title: TEXT.of, cell: (line) => <span class="wraps">{line.subject}</span> },
              {
                title: TEXT.what,
                cell: (line) => (
                  <span class="wraps">
                    {line.is_possible ? null : <Badge tone="warn">{TEXT.cannot}</Badge>} {line.what}
                  </span>
                ),
              },
              { title: TEXT.rows, isNumber: true, cell: ({ rows }) => figure(rows) },
            ]}
          />
          {plan.lines.some(({ is_possible }) => is_possible) ? (
            <p class="note">
              <TwoSteps token={token} disabled={isBusy} onClick={() => onApply(job, plan.hash)}>
                {TEXT.apply}
              </TwoSteps>{' '}
              {TEXT.expires} <Time ms={plan.expires} />
            </p>
          ) : null}
        </>
      )}
      {output === '' ? null : (
        <details open={kind !== 'plan' || (state === 'ended' && plan === null)}>
          <summary>{TEXT.output}</summary>
          <pre>{output}</pre>
        </details>
      )}
    </div>
  );
}

function Exit({ job: { state, exit_code } }: { job: RepairJob }) {
  if (state === 'running') return <Badge tone="plain">{TEXT.running}</Badge>;
  const word = exit_code !== null && exit_code in EXITS ? TEXT[EXITS[exit_code as keyof typeof EXITS]] : null;
  return <Badge tone={EXIT_TONES[exit_code ?? -1] ?? 'bad'}>{word ?? `${TEXT.exit} ${exit_code ?? UNKNOWN}`}</Badge>;
}
