/** The history of escape signals as lines: key points of all of it, and what has come since, minute by minute. */
import { useEffect, useMemo } from 'preact/hooks';
import type { EscapeColumns } from '../../lib/web/desk_chart_routes.ts';
import type { EscapeIncremental, EscapeSummary } from '../../lib/web/escape_routes.ts';
import { Chart } from '../ui/chart.tsx';
import { type Data, useData, withQuery } from '../ui/data.ts';
import { Card, Loaded } from '../ui/parts.tsx';
import { texts } from '../ui/settings.ts';
import { Caption, DAY_MARKS, daysOf, Missing, type Range } from './desk_parts.tsx';

const TEXT = texts({
  title: ['History', '历史'],
  note: [
    'Peaks are kept where points are left out. Drag to look closer, double-click to go back. Dotted lines: midnight in Beijing.',
    '抽稀时保留峰值。拖动放大，双击还原。虚线为北京时间零点。',
  ],
  count24: ['Signals in 24 h (candles)', '24 小时信号数（K 线根数）'],
  count2: ['Signals in 2 h (candles)', '2 小时信号数（K 线根数）'],
  breadth: ['Coins counted (coins)', '计入币种数（个）'],
  levels: ['Strength levels (0 to 4)', '强度等级（0 至 4）'],
  strong: ['strong top from', '强势见顶线'],
  weak: ['weak top from', '弱势见顶线'],
  signal: ['signal from', '信号线'],
  coins: ['coins', '币种数'],
  decline: ['decline', '下跌'],
  rise: ['rise', '上涨'],
});

/** All of it again: what was corrected later comes in by this. */
const WHOLE_MS = 900_000;
const NEW_MS = 30_000;
/** Of one day; it is short. */
const DAY_REFRESH_MS = 60_000;
const MINUTE_MS = 60_000;
/** More than the minutes between two looks at the whole. */
const MOST_NEW = 1000;

interface Props {
  rule: EscapeSummary['rule'];
  /** null: not there yet; the lines need not wait for its thresholds. */
  summary: EscapeSummary | null;
  range: Range;
  /** Of Beijing; null: the range counts. */
  day: string | null;
  /** Called when the lines are there, or cannot be had. */
  onSettled(): void;
}

export function EscapeCharts({ rule, summary, range, day, onSettled }: Props) {
  const span = day === null ? daysOf(range) : { from: day, to: `${day} 23:59:59`, points: 1500 };
  const base = useData<EscapeColumns>(
    withQuery('/api/escape-signal-stats/columns', { rule, ...span }),
    day === null ? WHOLE_MS : DAY_REFRESH_MS,
  );
  const isSettled = base.value !== null || base.error !== null;
  useEffect(() => {
    if (isSettled) onSettled();
  }, [isSettled]);
  const since = day === null ? (base.value?.times.at(-1) ?? null) : null;
  const more = useData<EscapeIncremental>(
    since === null ? null : withQuery('/api/escape-signal-stats/incremental', { rule, since, limit: MOST_NEW }),
    NEW_MS,
  );
  const fresh = day === null ? more.value : null;
  const shown = useMemo(() => (base.value === null ? null : appended(base.value, fresh)), [base.value, fresh]);
  const both: Data<EscapeColumns> = {
    ...{ value: shown, error: base.error ?? (day === null ? more.error : null) },
    at: Math.max(base.at ?? 0, more.at ?? 0) || null,
    again: base.again,
  };
  return (
    <Card wide title={day === null ? TEXT.title : `${TEXT.title}: ${day}`} note={TEXT.note}>
      <Loaded data={both}>{(columns) => <Lines columns={columns} summary={summary} />}</Loaded>
    </Card>
  );
}

/** The columns with the minutes that are newer, and a break where one of them is not there. */
function appended(base: EscapeColumns, fresh: EscapeIncremental | null): EscapeColumns {
  const last = base.times.at(-1);
  const rows = (fresh?.data ?? []).filter(({ slot }) => last === undefined || slot > last);
  if (rows.length === 0) return base;
  const names = [
    'signal_24h_count',
    'signal_2h_count',
    'breadth',
    'decline_strength_level',
    'rise_strength_level',
  ] as const;
  const out = { ...base, times: [...base.times] };
  for (const name of names) out[name] = [...base[name]];
  for (const row of rows) {
    const before = out.times.at(-1);
    const missing = before === undefined ? 0 : Math.round((row.slot - before) / MINUTE_MS) - 1;
    if (missing > 0) {
      out.missing_slots += missing;
      out.times.push(before! + MINUTE_MS);
      for (const name of names) out[name].push(null);
    }
    out.times.push(row.slot);
    for (const name of names) out[name].push(row[name] ?? null);
  }
  return out;
}

function Lines({ columns, summary }: { columns: EscapeColumns; summary: EscapeSummary | null }) {
  const { times } = columns;
  const [strong, weak] = [summary?.strong_top_count ?? null, summary?.weak_top_count ?? null];
  const signal = summary?.latest?.threshold ?? null;
  const level = (at: number | null) => times.map(() => at);
  const [strongs, weaks, signals] = useMemo(
    () => [level(strong), level(weak), level(signal)],
    [times, strong, weak, signal],
  );
  const common = { times, sync: 'escape', plugins: DAY_MARKS };
  return (
    <>
      <Missing missing={columns.missing_slots} isComplete={columns.is_complete} />
      <Caption>{TEXT.count24}</Caption>
      <Chart
        {...common}
        label={TEXT.count24}
        height={240}
        least={[0, 10]}
        series={[{ label: '24 h', values: columns.signal_24h_count, colour: 1 }]}
      />
      <Caption>{TEXT.count2}</Caption>
      <Chart
        {...common}
        label={TEXT.count2}
        height={220}
        least={[0, Math.max(strong ?? 0, 4)]}
        series={[
          { label: '2 h', values: columns.signal_2h_count, colour: 2 },
          ...(strong === null ? [] : [{ label: `${TEXT.strong} ${strong}`, values: strongs!, colour: 4 as const }]),
          ...(weak === null ? [] : [{ label: `${TEXT.weak} ${weak}`, values: weaks!, colour: 8 as const }]),
        ]}
      />
      <Caption>{TEXT.breadth}</Caption>
      <Chart
        {...common}
        label={TEXT.breadth}
        height={190}
        least={[0, (signal ?? 0) + 2]}
        series={[
          { label: TEXT.coins, values: columns.breadth, colour: 5 },
          ...(signal === null ? [] : [{ label: `${TEXT.signal} ${signal}`, values: signals!, colour: 4 as const }]),
        ]}
      />
      <Caption>{TEXT.levels}</Caption>
      <Chart
        {...common}
        label={TEXT.levels}
        height={170}
        least={[0, 4]}
        series={[
          { label: TEXT.decline, values: columns.decline_strength_level, colour: 4, kind: 'steps' },
          { label: TEXT.rise, values: columns.rise_strength_level, colour: 3, kind: 'steps' },
        ]}
      />
    </>
  );
}
