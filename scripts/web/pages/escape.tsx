/** In how many minutes so many coins were topping that it was a signal to leave, and what else the desk draws from the SAR. */
import { useEffect, useState } from 'preact/hooks';
import type { EscapeDates, EscapeSummary } from '../../lib/web/escape_routes.ts';
import { useChoice, useData, withQuery } from '../ui/data.ts';
import { figure } from '../ui/format.ts';
import { Card, Choice, Empty, Figure, Figures, Loaded, Select, Time } from '../ui/parts.tsx';
import { texts } from '../ui/settings.ts';
import { fill, Late, RANGES, type Range, rangeName } from './desk_parts.tsx';
import { EscapeCharts } from './escape_charts.tsx';
import { SarCard } from './escape_sar.tsx';
import { EscapeTableCard } from './escape_table.tsx';
import { UnifiedCard } from './escape_unified.tsx';

const TEXT = texts({
  rule: ['Rule', '规则'],
  range: ['Range', '时间范围'],
  day: ['Day (Beijing)', '日期（北京）'],
  noDay: ['By range', '按范围'],
  now: ['Now', '当前'],
  newest: ['Newest minute', '最新分钟'],
  count24: ['Signals in 24 h', '24 小时信号数'],
  count2: ['Signals in 2 h', '2 小时信号数'],
  breadth: ['Coins topping', '见顶币种'],
  decline: ['Decline level', '下跌强度'],
  rise: ['Rise level', '上涨强度'],
  max24: ['Highest 24 h', '24 小时最高'],
  max2: ['Highest 2 h', '2 小时最高'],
  median: ['Median 24 h, last day', '最近一天 24 小时中位数'],
  total: ['Minutes recorded', '记录分钟数'],
  missing: ['Candles missing in 24 h', '24 小时缺失 K 线'],
  of: ['of', '/'],
  counting: [
    'A five-minute candle with {threshold} or more such coins is a signal. The counts are of signals in the last 24 h (at most {most24}) and 2 h (at most {most2}); strength levels 0 to 4 are of all coins that fall or rise together.',
    '若某根 5 分钟 K 线上此类币种达到 {threshold} 个，即为一次信号。计数为最近 24 小时（最多 {most24}）与 2 小时（最多 {most2}）内的信号数；强度等级 0 至 4 表示同时下跌或上涨的币种占比。',
  ],
  empty: [
    'There is no record of this rule yet. escape_signal_calc.ts writes one each minute, from the rows of sar_slope_collector.ts.',
    '此规则暂无记录。escape_signal_calc.ts 根据 sar_slope_collector.ts 的数据每分钟写入一条。',
  ],
});
const RULE_CHOICES = ['sar-breadth', 'range-position', 'range-position-legacy'] as const;
type Rule = EscapeSummary['rule'] & (typeof RULE_CHOICES)[number];
const RULE_NAMES = texts({
  'sar-breadth': ['SAR breadth', 'SAR 广度'],
  'range-position': ['Range position', '区间位置'],
  'range-position-legacy': ['Range position, original', '区间位置（原始）'],
});
const RULE_MEANS = texts({
  'sar-breadth': [
    'Counts coins whose SAR position is bullish while its slope points down.',
    '统计 SAR 处于多头但斜率向下的币种。',
  ],
  'range-position': [
    'Counts coins whose close is in the upper tenth of its 48-hour range.',
    '统计收盘价位于 48 小时区间最高十分之一的币种。',
  ],
  'range-position-legacy': [
    'Counts coins in the upper or the lower tenth of their 48-hour range, as the original did.',
    '与原系统相同：统计位于 48 小时区间最高或最低十分之一的币种。',
  ],
});
const REFRESH_MS = 30_000;

export function EscapePage() {
  const [rule, setRule] = useChoice<Rule>('rule', RULE_CHOICES, 'sar-breadth');
  return <OfRule key={rule} rule={rule} onRule={setRule} />;
}

function OfRule({ rule, onRule }: { rule: Rule; onRule(rule: Rule): void }) {
  const summary = useData<EscapeSummary>(withQuery('/api/escape-signal-stats/summary', { rule }), REFRESH_MS);
  const dates = useData<EscapeDates>(withQuery('/api/escape-signal-stats/dates', { rule }), 10 * REFRESH_MS);
  const [range, setRange] = useChoice<Range>('range', RANGES, 'all');
  const [day, setDay] = useState<string>('');
  const span = { range, day: day === '' ? null : day };
  // One after the other, in the order of the page: what is seen first is not to wait for what is further down.
  const [isBegun, setBegun] = useState(false);
  const [isDrawn, setDrawn] = useState(false);
  useEffect(() => setBegun(true), []);
  const isEmpty = summary.value?.total_count === 0;
  return (
    <>
      <div class="bar">
        <Select
          label={TEXT.rule}
          choices={RULE_CHOICES}
          chosen={rule}
          name={(each) => RULE_NAMES[each]}
          onChoose={onRule}
        />
        <Choice
          label={TEXT.range}
          choices={RANGES}
          chosen={day === '' ? range : ''}
          name={(each: Range | '') => (each === '' ? '' : rangeName(each))}
          onChoose={(each: Range | '') => {
            setDay('');
            if (each !== '') setRange(each);
          }}
        />
        <Select
          label={TEXT.day}
          choices={['', ...(dates.value?.dates ?? []).map(({ date }) => date)]}
          chosen={day}
          name={(each) => (each === '' ? TEXT.noDay : dayName(each, dates.value))}
          onChoose={setDay}
        />
      </div>
      <Card wide title={`${TEXT.now}: ${RULE_NAMES[rule]}`}>
        <Loaded data={summary}>{(value) => <Overview summary={value} rule={rule} />}</Loaded>
      </Card>
      {!isBegun || isEmpty ? null : (
        <>
          <EscapeCharts
            key={`${range} ${day}`}
            summary={summary.value}
            rule={rule}
            {...span}
            onSettled={() => setDrawn(true)}
          />
          <EscapeTableCard key={day} rule={rule} day={span.day} />
        </>
      )}
      {isDrawn || isEmpty ? (
        <>
          <SarCard {...span} />
          <UnifiedCard {...span} />
        </>
      ) : null}
    </>
  );
}

/** A day with the highest counts that it had. */
function dayName(date: string, dates: EscapeDates | null): string {
  const day = dates?.dates.find((each) => each.date === date);
  return day === undefined
    ? date
    : `${date} · 24 h ≤ ${figure(day.max_signal_24h)} · 2 h ≤ ${figure(day.max_signal_2h)}`;
}

function Overview({ summary, rule }: { summary: EscapeSummary; rule: Rule }) {
  const { latest, most_24h, most_2h, strong_top_count: strong, weak_top_count: weak } = summary;
  if (latest === null)
    return (
      <>
        <p class="note">{RULE_MEANS[rule]}</p>
        <Empty>{TEXT.empty}</Empty>
      </>
    );
  const missing = latest.missing_24h;
  const short = latest.signal_2h_count;
  const isAtLeast = (limit: number | null) => short !== null && limit !== null && short >= limit;
  return (
    <>
      <p class="note">
        {RULE_MEANS[rule]}{' '}
        {fill(TEXT.counting, { threshold: figure(latest.threshold), most24: most_24h, most2: most_2h })}
      </p>
      <Late isCurrent={summary.is_current} ageSeconds={summary.age_seconds} script="escape_signal_calc.ts" />
      <Figures>
        <Figure name="escape-newest" label={TEXT.newest} value={<Time ms={latest.slot} detail="minute" />} />
        <Figure name="escape-24h" label={TEXT.count24} value={figure(latest.signal_24h_count)} />
        <Figure
          name="escape-2h"
          label={TEXT.count2}
          value={figure(short)}
          tone={isAtLeast(strong) ? 'bad' : isAtLeast(weak) ? 'warn' : undefined}
        />
        <Figure
          name="escape-breadth"
          label={TEXT.breadth}
          value={`${figure(latest.breadth)} ${TEXT.of} ${figure(latest.coins)}`}
          tone={latest.is_signal === true ? 'bad' : undefined}
        />
        <Figure name="escape-decline" label={TEXT.decline} value={figure(latest.decline_strength_level)} />
        <Figure name="escape-rise" label={TEXT.rise} value={figure(latest.rise_strength_level)} />
        <Figure name="escape-max-24h" label={TEXT.max24} value={figure(summary.max_signal_24h)} />
        <Figure name="escape-max-2h" label={TEXT.max2} value={figure(summary.max_signal_2h)} />
        <Figure name="escape-median-24h" label={TEXT.median} value={figure(summary.median_24h)} />
        <Figure name="escape-total" label={TEXT.total} value={figure(summary.total_count)} />
        <Figure
          name="escape-missing-24h"
          label={TEXT.missing}
          value={figure(missing)}
          tone={(missing ?? 0) > 0 ? 'warn' : undefined}
        />
      </Figures>
    </>
  );
}
