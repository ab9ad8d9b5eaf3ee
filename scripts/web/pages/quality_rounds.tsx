/** Rounds of checks: how complete the rows were over time, each round, and what the chosen one found. */
import { useState } from 'preact/hooks';
import type {
  QualityCheck,
  QualityFinding,
  QualityOne,
  QualityRound,
  QualityRounds,
  QualitySeries,
} from '../../lib/web/quality_routes.ts';
import type { RoundHead } from '../../lib/web/round_history.ts';
import { Chart } from '../ui/chart.tsx';
import { type Data, useData, withQuery } from '../ui/data.ts';
import { figure, span, UNKNOWN } from '../ui/format.ts';
import { Badge, Card, Choice, Empty, Figure, Figures, Loaded, Pager, Table, Time } from '../ui/parts.tsx';
import { settings, texts } from '../ui/settings.ts';
import {
  completenessText,
  DEPTHS,
  depthWord,
  SEVERITIES,
  SEVERITY_TONES,
  SeverityBadge,
  severityWord,
  useTurn,
  VerdictBadge,
} from './quality_parts.tsx';

const TEXT = texts({
  over: ['Completeness over time', '完整率走势'],
  overNote: [
    'Rows stored of rows expected, of each round of the last 30 days; bars: findings, hints apart',
    '最近 30 天每轮检查：实存行数占应有行数的比例；柱：发现的问题数（不含提示）',
  ],
  completeness: ['Completeness', '完整率'],
  percent: ['Completeness, %', '完整率，%'],
  findings: ['Findings', '问题数'],
  depth: ['Rounds of', '检查类型'],
  rounds: ['Rounds of checks', '检查轮次'],
  noRounds: [
    'No round of the last 30 days is in data/monitoring_results: monitor.ts writes one every 15 minutes, the first two minutes after its start.',
    'data/monitoring_results 中没有最近 30 天的检查记录：monitor.ts 每 15 分钟写入一轮，启动两分钟后开始。',
  ],
  bad: ['lines of the files cannot be read', '行文件内容无法读取'],
  began: ['Began', '开始时间'],
  type: ['Type', '类型'],
  verdict: ['Verdict', '结论'],
  unchecked: ['not asked', '项未能检查'],
  raised: ['Alerts raised', '新告警'],
  took: ['Took', '耗时'],
  by: ['Asked by', '发起'],
  schedule: ['schedule', '定时'],
  api: ['a person', '人工'],
  round: ['Round', '轮次'],
  looked: ['Looked at', '检查范围'],
  checks: ['Checks', '检查项'],
  check: ['Check', '检查项'],
  measured: ['Measured', '测得'],
  limit: ['Limit', '阈值'],
  found: ['What was found', '发现的问题'],
  nothing: ['Nothing was found.', '没有发现问题。'],
  nothingAsked: ['The checks that could be asked found nothing.', '已完成的检查没有发现问题。'],
  notAsked: ['Could not be asked, so that nothing is known of it', '未能检查，情况未知'],
  severity: ['Severity', '级别'],
  exchange: ['Exchange', '交易所'],
  data: ['Data', '数据类型'],
  symbol: ['Of', '对象'],
  what: ['What', '问题'],
  remedy: ['Remedy', '处理办法'],
  repair: ['Plan a repair', '生成修复计划'],
});

const PAGE = 12;
/** A tenth of a percent is much: less is not drawn as a plunge. */
const AT_LEAST = [99.9, 100] as const;

export function CompletenessCard({ turn }: { turn: number }) {
  const [depth, setDepth] = useState<(typeof DEPTHS)[number]>('quick');
  const data = useData<QualitySeries>(withQuery('/api/quality/completeness', { type: depth }), 60_000);
  useTurn(data, turn);
  return (
    <Card
      wide
      title={TEXT.over}
      note={TEXT.overNote}
      actions={
        <Choice
          label={TEXT.depth}
          choices={DEPTHS}
          chosen={depth}
          onChoose={(each) => setDepth(each)}
          name={(each) => depthWord(each)}
        />
      }
    >
      <Loaded data={data}>
        {({ times, completeness, findings }) =>
          times.length === 0 ? (
            <Empty>{TEXT.noRounds}</Empty>
          ) : (
            <Chart
              label={TEXT.over}
              times={times}
              height={200}
              least={AT_LEAST}
              series={[
                { label: TEXT.findings, values: findings, kind: 'bars', colour: 2, axis: 'right', format: figure },
                { label: TEXT.percent, values: completeness, colour: 3, format: percentShort },
              ]}
            />
          )
        }
      </Loaded>
    </Card>
  );
}

/** On an axis; never rounded up to 100. */
function percentShort(percent: number | null): string {
  if (percent === null) return UNKNOWN;
  return percent === 100 ? '100' : String(Math.floor(percent * 1000) / 1000);
}

interface RoundsProps {
  rounds: Data<QualityRounds>;
  /** The round that is shown below; null: the newest. */
  chosen: string | null;
  onChoose(id: string): void;
  offset: number;
  onTurn(offset: number): void;
}

export function RoundsCard({ rounds, chosen, onChoose, offset, onTurn }: RoundsProps) {
  return (
    <Card wide title={TEXT.rounds}>
      <Loaded data={rounds}>
        {({ data, total_count, bad_lines }) => (
          <>
            {bad_lines === 0 ? null : (
              <p class="note warn">
                {bad_lines} {TEXT.bad}
              </p>
            )}
            <Table
              label={TEXT.rounds}
              rows={data}
              keyOf={({ id }) => id}
              empty={TEXT.noRounds}
              columns={[
                {
                  title: TEXT.began,
                  cell: ({ id, began }) => (
                    <button
                      type="button"
                      class="link"
                      aria-pressed={id === (chosen ?? (offset === 0 ? data[0]?.id : null))}
                      onClick={() => onChoose(id)}
                    >
                      <Time ms={began} />
                    </button>
                  ),
                },
                { title: TEXT.type, cell: ({ type }) => depthWord(type) },
                { title: TEXT.verdict, cell: ({ status }) => <VerdictBadge verdict={status} /> },
                {
                  title: TEXT.completeness,
                  isNumber: true,
                  cell: ({ completeness }) => completenessText(completeness),
                },
                { title: TEXT.findings, cell: (head) => <Counts head={head} /> },
                { title: TEXT.raised, isNumber: true, cell: ({ raised }) => figure(raised) },
                { title: TEXT.took, isNumber: true, cell: ({ ms }) => span(ms) },
                { title: TEXT.by, cell: ({ asked_by }) => TEXT[asked_by] },
              ]}
            />
            <Pager total={total_count} size={PAGE} offset={offset} onTurn={onTurn} />
          </>
        )}
      </Loaded>
    </Card>
  );
}

export function useRounds(offset: number) {
  return useData<QualityRounds>(withQuery('/api/quality/rounds', { limit: PAGE, offset }), 15_000);
}

/** What a round found by severity, and what it could not ask. */
function Counts({ head: { findings, unchecked } }: { head: RoundHead }) {
  const some = SEVERITIES.filter((severity) => (findings[severity] ?? 0) > 0);
  if (some.length === 0 && unchecked === 0) return <>0</>;
  return (
    <>
      {some.map((severity) => (
        <span key={severity} class={`${SEVERITY_TONES[severity]} count`}>
          {findings[severity]} {severityWord(severity)}{' '}
        </span>
      ))}
      {unchecked === 0 ? null : (
        <span class="bad">
          {unchecked} {TEXT.unchecked}
        </span>
      )}
    </>
  );
}

interface RoundProps {
  /** null: the newest, whichever that is. */
  id: string | null;
  turn: number;
  onRepair(check: string, finding: QualityFinding, round: QualityRound): void;
}

export function RoundCard({ id, turn, onRepair }: RoundProps) {
  const data = useData<QualityOne>(id === null ? '/api/quality/latest' : `/api/quality/rounds/${id}`, 15_000);
  useTurn(data, turn);
  return (
    <Card wide title={TEXT.round}>
      <Loaded data={data}>
        {({ round }) =>
          round === null ? (
            <Empty>{TEXT.noRounds}</Empty>
          ) : (
            <>
              <Figures>
                <Figure label={TEXT.began} name="round-began" value={<Time ms={round.began} />} />
                <Figure label={TEXT.type} value={depthWord(round.type)} />
                <Figure label={TEXT.verdict} name="round-verdict" value={<VerdictBadge verdict={round.status} />} />
                <Figure
                  label={TEXT.completeness}
                  name="round-completeness"
                  value={completenessText(round.completeness)}
                />
                <Figure
                  label={TEXT.looked}
                  value={
                    <>
                      <Time ms={round.from} detail="minute" /> – <Time ms={round.to} detail="minute" />
                    </>
                  }
                />
              </Figures>
              <h3>{TEXT.found}</h3>
              <NotAsked checks={round.checks} />
              <Findings round={round} onRepair={(check, finding) => onRepair(check, finding, round)} />
              <h3>{TEXT.checks}</h3>
              <Checks checks={round.checks} />
            </>
          )
        }
      </Loaded>
    </Card>
  );
}

const nameOf = ({ name, zh }: Pick<QualityCheck, 'name' | 'zh'>) => (settings().language === 'zh' ? zh : name);

const isUnchecked = ({ verdict }: QualityCheck) => verdict === 'unchecked';

/** What was not asked is not clean. */
function NotAsked({ checks }: { checks: readonly QualityCheck[] }) {
  const names = checks.filter(isUnchecked).map(nameOf);
  if (names.length === 0) return null;
  return (
    <p class="problem" data-figure="not-asked">
      {TEXT.notAsked}: {names.join(', ')}
    </p>
  );
}

function Findings({
  round,
  onRepair,
}: {
  round: QualityRound;
  onRepair(check: string, finding: QualityFinding): void;
}) {
  const found = round.checks.flatMap((check) => check.findings.map((finding) => ({ check, finding })));
  const rank = ({ finding }: (typeof found)[number]) => SEVERITIES.indexOf(finding.severity);
  return (
    <Table
      label={TEXT.found}
      rows={found.sort((one, other) => rank(one) - rank(other))}
      keyOf={({ check, finding }, i) => `${check.name} ${finding.kind} ${finding.subject} ${i}`}
      empty={round.checks.some(isUnchecked) ? TEXT.nothingAsked : TEXT.nothing}
      columns={[
        { title: TEXT.severity, cell: ({ finding }) => <SeverityBadge severity={finding.severity} /> },
        { title: TEXT.check, cell: ({ check }) => nameOf(check) },
        { title: TEXT.exchange, cell: ({ finding }) => finding.exchange ?? UNKNOWN },
        { title: TEXT.data, cell: ({ finding }) => finding.data_type ?? UNKNOWN },
        {
          title: TEXT.symbol,
          cell: ({ finding }) => (finding.data_type === null ? finding.subject : (finding.symbol ?? UNKNOWN)),
        },
        {
          title: TEXT.what,
          cell: ({ finding }) => (
            <span class="wraps" title={finding.evidence}>
              {settings().language === 'zh' ? finding.kind_zh : finding.kind_en}: {finding.what}
            </span>
          ),
        },
        {
          title: TEXT.remedy,
          cell: ({ check, finding }) => (
            <span class="wraps">
              {check.repairs.length === 0 || finding.severity === 'hint' ? null : (
                <button type="button" class="link" onClick={() => onRepair(check.name, finding)}>
                  {TEXT.repair}
                </button>
              )}{' '}
              <span class="plain">{check.fix}</span>
            </span>
          ),
        },
      ]}
    />
  );
}

function Checks({ checks }: { checks: readonly QualityCheck[] }) {
  return (
    <Table
      label={TEXT.checks}
      rows={checks}
      keyOf={({ name }) => name}
      columns={[
        { title: TEXT.check, cell: (check) => <span title={check.question}>{nameOf(check)}</span> },
        { title: TEXT.verdict, cell: ({ verdict }) => <VerdictBadge verdict={verdict} /> },
        { title: TEXT.measured, cell: (check) => <span class="wraps">{check.figure}</span> },
        { title: TEXT.limit, cell: (check) => <span class="wraps plain">{check.limit}</span> },
        {
          title: TEXT.findings,
          isNumber: true,
          cell: ({ findings }) => (findings.length === 0 ? 0 : <Badge tone="warn">{figure(findings.length)}</Badge>),
        },
        { title: TEXT.took, isNumber: true, cell: ({ ms }) => span(ms) },
      ]}
    />
  );
}
