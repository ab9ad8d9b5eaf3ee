/** Exchange by type: how old the newest row is, and whether that is too old. */
import type { CoverageAnswer, CoverageCell } from '../../lib/web/overview_coverage.ts';
import { useData } from '../ui/data.ts';
import { figure, span } from '../ui/format.ts';
import { Card, Empty, Loaded, type Tone } from '../ui/parts.tsx';
import { texts } from '../ui/settings.ts';

const TEXT = texts({
  title: ['Coverage', '数据覆盖'],
  note: [
    'Age of the newest row in hot, by event time. Blank: the exchange has no such data, or it is not asked for.',
    '热库最新行距今（按事件时间）。空白：该交易所无此数据或未订阅。',
  ],
  exchange: ['Exchange', '交易所'],
  trade: ['Trades', '成交'],
  orderbook: ['Books', '订单簿'],
  orderbook_update: ['Book updates', '订单簿增量'],
  funding_rate: ['Funding', '资金费率'],
  open_interest: ['Open interest', '持仓量'],
  liquidation: ['Liquidations', '强平'],
  lsr_top_position: ['L/S top', '大户多空比'],
  lsr_all_account: ['L/S all', '账户多空比'],
  volatility_index: ['Volatility', '波动率指数'],
  gap: ['Gaps', '缺口'],
  good: ['fresh', '新鲜'],
  late: ['late', '迟到'],
  silent: ['silent', '中断'],
  never: ['none yet', '尚无数据'],
  event: ['no cadence', '无固定频率'],
  nothing: ['none', '暂无'],
  of: ['of', '/'],
  streams: ['streams', '个流'],
  oldest: ['oldest', '最旧'],
  every: ['every', '间隔'],
  lateAfter: ['late after', '迟到阈值'],
  silentAfter: ['silent after', '中断阈值'],
  notAsked: ['not asked for now', '当前未订阅'],
  empty: [
    'Hot has no row, and no exchange is configured. collector.ts and store.ts write them.',
    '热库无数据且未配置交易所。数据由 collector.ts 与 store.ts 写入。',
  ],
});

const TONES: Record<CoverageCell['state'], Tone> = {
  good: 'good',
  late: 'warn',
  silent: 'bad',
  never: 'bad',
  event: 'plain',
};
const EVERY_MS = 3000;

export function CoverageCard() {
  const coverage = useData<CoverageAnswer>('/api/coverage', EVERY_MS);
  return (
    <Card wide title={TEXT.title} note={TEXT.note} actions={<Legend />}>
      <Loaded data={coverage}>
        {(value) => (value.cells.length === 0 ? <Empty>{TEXT.empty}</Empty> : <Matrix {...value} />)}
      </Loaded>
    </Card>
  );
}

function Legend() {
  return (
    <span class="coverage-legend">
      {(['good', 'late', 'silent', 'event'] as const).map((state) => (
        <span key={state} class={TONES[state]}>
          ● {TEXT[state]}
        </span>
      ))}
    </span>
  );
}

function Matrix({ exchanges, data_types, cells }: CoverageAnswer) {
  const byPlace = new Map(cells.map((cell) => [`${cell.exchange} ${cell.data_type}`, cell]));
  return (
    // biome-ignore lint/a11y/noNoninteractiveTabindex: who has no mouse scrolls it by its focus
    <section class="table" tabIndex={0} aria-label={TEXT.title}>
      <table class="coverage">
        <thead>
          <tr>
            <th scope="col">{TEXT.exchange}</th>
            {data_types.map((type) => (
              <th key={type} scope="col" class="number">
                {nameOf(type)}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {exchanges.map((exchange) => (
            <tr key={exchange}>
              <th scope="row">{exchange}</th>
              {data_types.map((type) => (
                <Cell key={type} cell={byPlace.get(`${exchange} ${type}`) ?? null} />
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </section>
  );
}

function Cell({ cell }: { cell: CoverageCell | null }) {
  if (cell === null) return <td />;
  const { exchange, data_type, state, age_ms, streams, late_streams, silent_streams } = cell;
  const behind = Math.max(late_streams, silent_streams);
  return (
    <td
      class={`number coverage-cell ${TONES[state]}`}
      title={detailOf(cell)}
      data-figure={`coverage-${exchange}-${data_type}`}
      data-state={state}
    >
      <span class="coverage-age">
        {age_ms === null ? (state === 'event' ? TEXT.nothing : TEXT.never) : span(age_ms)}
      </span>
      {state === 'good' || state === 'event' || state === 'never' ? null : (
        <small>
          {TEXT[state]} {figure(behind)} {TEXT.of} {figure(streams)}
        </small>
      )}
    </td>
  );
}

function detailOf({
  state,
  streams,
  oldest,
  every_ms,
  late_after_ms,
  silent_after_ms,
  is_asked,
}: CoverageCell): string {
  return [
    `${TEXT[state]}: ${figure(streams)} ${TEXT.streams}`,
    oldest === null ? null : `${TEXT.oldest} ${oldest.symbol} (${oldest.market_type}) ${span(oldest.age_ms)}`,
    every_ms === null ? null : `${TEXT.every} ${span(every_ms)}`,
    late_after_ms === null ? null : `${TEXT.lateAfter} ${span(late_after_ms)}`,
    silent_after_ms === null ? null : `${TEXT.silentAfter} ${span(silent_after_ms)}`,
    is_asked ? null : TEXT.notAsked,
  ]
    .filter((part) => part !== null)
    .join(' · ');
}

/** A type of a later version has its own name. */
export function nameOf(type: string): string {
  return type in TEXT ? TEXT[type as keyof typeof TEXT] : type;
}
