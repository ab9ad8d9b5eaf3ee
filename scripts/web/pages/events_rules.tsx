/** Each rule of the major events in a sentence with the limits that hold, how it stands, and what it is judged by. */
import type { EventsNow } from '../../lib/web/events_now.ts';
import { exact, figure, fixed, UNKNOWN } from '../ui/format.ts';
import { Badge, Card, Table, Time, type Tone } from '../ui/parts.tsx';
import { settings, texts } from '../ui/settings.ts';
import { fill, signed } from './desk_parts.tsx';

export const EVENTS = ['E1', 'E2', 'E3', 'E4', 'E5'] as const;
export type EventName = (typeof EVENTS)[number];

export const EVENT_NAMES = texts({
  E1: ['strong top', '强势见顶'],
  E2: ['weak top', '弱势见顶'],
  E3: ['liquidations, strong rebound', '爆仓后强势'],
  E4: ['liquidations, weak rebound', '爆仓后弱势'],
  E5: ['anchor reversal', '锚定单反转'],
});
/** With the names of the limits, which are replaced by what they are. */
const SENTENCES = texts({
  E1: [
    'Escape signals of 2 h reach {strong_top_count} or more; within {top_hours} h of the last such minute they are below that, but at least {strong_low_count}, while the coins’ changes sum to more than 0 %. Open short.',
    '2 小时逃顶信号达到 {strong_top_count} 及以上；最后一次达到后 {top_hours} 小时内回落到该值以下但不低于 {strong_low_count}，且币种涨跌幅总和大于 0%：开空。',
  ],
  E2: [
    'Escape signals of 2 h rise to at least {weak_top_count}, but below {strong_top_count}; within {top_hours} h of the highest such minute they are lower, and not 0. Watch for a short.',
    '2 小时逃顶信号升至 {weak_top_count} 及以上但低于 {strong_top_count}；最高点之后 {top_hours} 小时内回落且不为 0：关注做空机会。',
  ],
  E3: [
    'Liquidations of 1 h reach {liquidation_usd} USD, and {liquidation_minutes} min later BTC is up by {price_rise_percent} % or more. Watch for a long.',
    '1 小时爆仓额达到 {liquidation_usd} USD，{liquidation_minutes} 分钟后 BTC 上涨 {price_rise_percent}% 及以上：关注做多机会。',
  ],
  E4: [
    'Liquidations of 1 h reach {liquidation_usd} USD, and {liquidation_minutes} min later BTC is up by less than {price_rise_percent} %, or down. Stand aside.',
    '1 小时爆仓额达到 {liquidation_usd} USD，{liquidation_minutes} 分钟后 BTC 涨幅不足 {price_rise_percent}% 或下跌：观望。',
  ],
  E5: [
    '{anchor_count} or more shorts of the anchor account in loss are green, as many with a profit of 120 % or more are red; both or neither say nothing. A change of colour is a reversal: review the shorts.',
    '锚定账户亏损空单达 {anchor_count} 个及以上为绿，盈利达 120% 的空单达同样数量为红；两者同时或都不满足则不判断。颜色改变即为反转：检查空单。',
  ],
});
const TEXT = texts({
  rest: [' Told again after {cooldown_minutes} min at the earliest.', '至少 {cooldown_minutes} 分钟后才会再次通知。'],
  unknown: ['not known', '未知'],
  blind: ['blind', '盲'],
  resting: ['resting', '冷却中'],
  waiting: ['waiting', '等待中'],
  armed: ['armed', '待触发'],
  unknownMeans: [
    'There is no state of this rule: is major_events_monitor.ts running?',
    '没有此规则的状态：major_events_monitor.ts 在运行吗？',
  ],
  armedMeans: ['Judged each minute; nothing of it has happened.', '每分钟判断；目前条件均未出现。'],
  blindMeans: ['Cannot be judged without {input} ({why}), since', '缺少 {input}（{why}），无法判断，自'],
  restingMeans: ['Told; not again before', '已通知；下次最早'],
  waitingTop: ['Reached {figure} at {time}; waits for the fall until', '曾于 {time} 达到 {figure}；等待回落，截止'],
  waitingLiquidation: [
    '{figure} USD at {time}, BTC {price}; decided at',
    '{time} 爆仓 {figure} USD，BTC {price}；判定时间',
  ],
  colour: ['Colour now', '当前颜色'],
  green: ['green', '绿'],
  red: ['red', '红'],
  last: ['Last', '最近一次'],
  never: ['Never told yet.', '尚未通知过。'],
  inputs: ['What the rules are judged by', '判断依据'],
  inputsNote: [
    'The newest record of each series. The monitor judges a minute when all series have passed it.',
    '各序列的最新记录。所有序列都到达某分钟后，监控才判断该分钟。',
  ],
  series: ['Series', '序列'],
  newest: ['Newest record', '最新记录'],
  value: ['Figure', '数值'],
  events: ['For', '用于'],
});
const INPUT_NAMES = texts({
  escape_signal: ['escape signals in 2 h', '2 小时逃顶信号'],
  coin_prices: ['change sum of the coins', '币种涨跌幅总和'],
  liquidation_1h: ['liquidations in 1 h', '1 小时爆仓额'],
  sar_slope: ['close of BTC', 'BTC 收盘价'],
  anchor: ['anchor shorts: in loss / 120 %', '锚定空单：亏损 / 120%'],
});
const WHY = texts({
  'no records': ['no records', '没有记录'],
  late: ['late', '迟到'],
  'no figure': ['no figure', '没有数值'],
});
const SCRIPTS: Record<InputName, string> = {
  escape_signal: 'escape_signal_calc.ts',
  coin_prices: 'coin_price_tracker.ts',
  liquidation_1h: 'unified_data_collector.ts',
  sar_slope: 'sar_slope_collector.ts',
  anchor: 'anchor_data_collector.ts',
};
type Input = EventsNow['inputs'][number];
type InputName = Input['input'];
type Standing = EventsNow['standing'][EventName];

const TONES: Record<Standing['state'], Tone> = {
  ...{ unknown: 'plain', blind: 'bad', resting: 'plain', waiting: 'warn', armed: 'good' },
};

/** Of a table of words that need not have it: another version may tell of others. */
function wordOf(table: Readonly<Record<string, string>>, key: string | null): string {
  return key === null ? UNKNOWN : (table[key] ?? key);
}

export function RuleCard({ event, now }: { event: EventName; now: EventsNow }) {
  const standing = now.standing[event];
  const last = now.events[event];
  const isZh = settings().language === 'zh';
  return (
    <Card
      title={`${event} ${EVENT_NAMES[event]}`}
      actions={
        <span data-figure={`state-${event}`}>
          <Badge tone={TONES[standing.state]}>{TEXT[standing.state]}</Badge>
        </span>
      }
    >
      <p data-figure={`rule-${event}`}>{sentenceOf(event, now)}</p>
      <Standing event={event} standing={standing} now={now} />
      <p class="last">
        <strong>{TEXT.last}:</strong>{' '}
        {last === null ? (
          TEXT.never
        ) : (
          <>
            <Time ms={last.minute} detail="minute" />{' '}
            <span data-figure={`last-${event}`}>{isZh ? last.text_zh : last.text}</span>
          </>
        )}
      </p>
    </Card>
  );
}

/** Without limits their names stay, which is better than numbers that do not hold. */
function sentenceOf(event: EventName, { limits }: EventsNow): string {
  const shown = Object.fromEntries(Object.entries(limits ?? {}).map(([name, value]) => [name, figure(value)]));
  return fill(`${SENTENCES[event]}${TEXT.rest}`, shown);
}

function Standing({ event, standing, now }: { event: EventName; standing: Standing; now: EventsNow }) {
  const { state, blind, resting_until, waiting } = standing;
  return (
    <>
      {state === 'unknown' ? <p class="note">{TEXT.unknownMeans}</p> : null}
      {state === 'armed' ? <p class="note">{TEXT.armedMeans}</p> : null}
      {blind.map(({ input, since, why }) => (
        <p key={input} class="bad" data-figure={`blind-${event}`}>
          {fill(TEXT.blindMeans, { input: wordOf(INPUT_NAMES, input), why: wordOf(WHY, why) })}{' '}
          <Time ms={since} detail="minute" />
        </p>
      ))}
      {resting_until === null ? null : (
        <p class="note">
          {TEXT.restingMeans} <Time ms={resting_until} detail="minute" />
        </p>
      )}
      {waiting === null ? null : <Waiting waiting={waiting} />}
      {event !== 'E5' || now.colour === null ? null : (
        <p class="note">
          {TEXT.colour}: {TEXT[now.colour]}
        </p>
      )}
    </>
  );
}

function Waiting({ waiting }: { waiting: NonNullable<Standing['waiting']> }) {
  const { since, until, figure: value, price } = waiting;
  const text = price === null ? TEXT.waitingTop : TEXT.waitingLiquidation;
  const [before = '', after = ''] = fill(text, { figure: figure(value), price: exact(price) }).split('{time}');
  return (
    <p class="warn">
      {before}
      <Time ms={since} detail="minute" />
      {after} <Time ms={until} detail="minute" />
    </p>
  );
}

export function InputsCard({ now }: { now: EventsNow }) {
  return (
    <Card title={TEXT.inputs} note={TEXT.inputsNote}>
      <Table
        label={TEXT.inputs}
        rows={now.inputs}
        keyOf={({ input }) => input}
        columns={[
          {
            title: TEXT.series,
            cell: ({ input }) => (
              <>
                {INPUT_NAMES[input]} <code class="script">{SCRIPTS[input]}</code>
              </>
            ),
          },
          { title: TEXT.newest, cell: ({ slot }) => <Time ms={slot} detail="minute" /> },
          { title: TEXT.events, cell: ({ events }) => events.join(', ') },
          {
            title: TEXT.value,
            isNumber: true,
            cell: (row) => <span data-figure={`input-${row.input}`}>{shownOf(row)}</span>,
          },
        ]}
      />
    </Card>
  );
}

function shownOf({ input, value, gte_120 }: Input): string {
  if (input === 'coin_prices') return signed(value, 4);
  if (input === 'liquidation_1h') return value === null ? UNKNOWN : `${fixed(value, 0)} USD`;
  if (input === 'sar_slope') return exact(value);
  return input === 'anchor' ? `${figure(value)} / ${figure(gte_120)}` : figure(value);
}
