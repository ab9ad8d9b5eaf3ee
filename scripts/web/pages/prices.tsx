/** What coins have moved since midnight in Beijing: all of them over time, each of them now, and one of them over time. */
import { useMemo } from 'preact/hooks';
import type { PriceColumns } from '../../lib/web/desk_chart_routes.ts';
import type { PricesLatest } from '../../lib/web/series_routes.ts';
import { Chart } from '../ui/chart.tsx';
import { useChoice, useData, withQuery } from '../ui/data.ts';
import { exact, figure, fixed } from '../ui/format.ts';
import { Card, Choice, Empty, Figure, Figures, Loaded, Select, Table, Time } from '../ui/parts.tsx';
import { texts } from '../ui/settings.ts';
import {
  Caption,
  CoinButton,
  CoinPlace,
  DAY_MARKS,
  daysOf,
  Late,
  Missing,
  RANGES,
  type Range,
  rangeName,
  signed,
  toneOf,
} from './desk_parts.tsx';

const TEXT = texts({
  now: ['Since midnight in Beijing', '自北京时间零点以来'],
  slot: ['Half hour', '半小时'],
  day: ['Day (Beijing)', '日期（北京）'],
  total: ['Change sum', '涨跌幅总和'],
  average: ['Average', '平均'],
  valid: ['Coins with a change', '有涨跌幅的币种'],
  of: ['of', '/'],
  failed: ['No price or no open of the day, and so in no sum: {coins}', '缺少价格或当日开盘价，未计入总和：{coins}'],
  history: ['Change over time', '涨跌幅历史'],
  historyNote: [
    'Each half hour. Dotted lines: midnight in Beijing, when the changes begin anew. A half hour of which no coin is known is a gap in the line.',
    '每半小时一条。虚线为北京时间零点，涨跌幅从此重新计算。没有任何币种数据的半小时在曲线上为缺口。',
  ],
  totalChart: ['Sum of the coins’ changes (%)', '币种涨跌幅总和（%）'],
  averageChart: ['Their average over the coins that are known (%)', '已知币种的平均涨跌幅（%）'],
  totalLegend: ['Change sum (%)', '涨跌幅总和（%）'],
  averageLegend: ['Average (%)', '平均（%）'],
  changeLegend: ['Change (%)', '涨跌幅（%）'],
  validChart: ['Coins with a change (coins)', '有涨跌幅的币种（个）'],
  coins: ['All coins', '全部币种'],
  range: ['Range', '时间范围'],
  table: ['Each coin', '各币种'],
  sort: ['Sorted by', '排序'],
  coin: ['Coin', '币种'],
  price: ['Price (USDT)', '价格（USDT）'],
  base: ['Open of the day (USDT)', '当日开盘价（USDT）'],
  change: ['Change', '涨跌幅'],
  up: ['Highest change', '涨幅最大'],
  down: ['Lowest change', '跌幅最大'],
  size: ['Largest move', '波动最大'],
  look: ['change over time', '涨跌幅历史'],
  coinChart: [
    'Change since midnight in Beijing (%, left) and price (USDT, right)',
    '自北京时间零点涨跌幅（%，左轴）与价格（USDT，右轴）',
  ],
  empty: [
    'There is no record yet: coin_price_tracker.ts writes one at each :00 and :30.',
    '暂无记录：coin_price_tracker.ts 在每小时 :00 与 :30 各写入一条。',
  ],
});
const REFRESH_MS = 60_000;
/** The unit is above the chart; an axis has no room for it. */
const percents = (value: number | null) => fixed(value);

export function PricesPage() {
  const latest = useData<PricesLatest>('/api/coin-price-tracker/latest?limit=1', REFRESH_MS);
  const [range, setRange] = useChoice<Range>('range', RANGES, '7');
  return (
    <>
      <Card wide title={TEXT.now}>
        <Loaded data={latest}>{(value) => <Now latest={value} />}</Loaded>
      </Card>
      {latest.value?.total_count === 0 ? null : <AllCoins range={range} onRange={setRange} />}
      {latest.value === null || latest.value.total_count === 0 ? null : (
        <EachCoin latest={latest.value} range={range} />
      )}
    </>
  );
}

function Now({ latest }: { latest: PricesLatest }) {
  const [record] = latest.data;
  if (record === undefined) return <Empty>{TEXT.empty}</Empty>;
  const failed = Object.keys(record.day_changes).filter((coin) => record.day_changes[coin]!.change_pct === null);
  return (
    <>
      <Late isCurrent={latest.is_current} ageSeconds={latest.age_seconds} script="coin_price_tracker.ts" />
      <Figures>
        <Figure name="prices-slot" label={TEXT.slot} value={<Time ms={record.slot} detail="minute" />} />
        <Figure name="prices-day" label={TEXT.day} value={record.base_date} />
        <Figure
          name="prices-total"
          label={TEXT.total}
          value={signed(record.total_change, 4)}
          tone={toneOf(record.total_change)}
        />
        <Figure
          name="prices-average"
          label={TEXT.average}
          value={signed(record.average_change, 4)}
          tone={toneOf(record.average_change)}
        />
        <Figure
          name="prices-valid"
          label={TEXT.valid}
          value={`${figure(record.valid_coins)} ${TEXT.of} ${figure(record.total_coins)}`}
          tone={record.valid_coins < record.total_coins ? 'warn' : undefined}
        />
      </Figures>
      {failed.length === 0 ? null : <p class="note warn">{TEXT.failed.replace('{coins}', failed.join(', '))}</p>}
    </>
  );
}

function AllCoins({ range, onRange }: { range: Range; onRange(range: Range): void }) {
  const columns = useData<PriceColumns>(withQuery('/api/coin-price-tracker/columns', daysOf(range)), 2 * REFRESH_MS);
  return (
    <Card
      wide
      title={TEXT.history}
      note={TEXT.historyNote}
      actions={<Choice label={TEXT.range} choices={RANGES} chosen={range} name={rangeName} onChoose={onRange} />}
    >
      <Loaded data={columns}>
        {({ times, total_change, average_change, valid_coins, total_coins, missing_slots, is_complete }) => (
          <>
            <Missing missing={missing_slots} isComplete={is_complete} />
            <Caption>{TEXT.totalChart}</Caption>
            <Chart
              label={TEXT.totalChart}
              times={times}
              height={250}
              sync="prices"
              plugins={DAY_MARKS}
              series={[{ label: TEXT.totalLegend, values: total_change, colour: 1, format: percents }]}
            />
            <Caption>{TEXT.averageChart}</Caption>
            <Chart
              label={TEXT.averageChart}
              times={times}
              height={190}
              sync="prices"
              plugins={DAY_MARKS}
              series={[{ label: TEXT.averageLegend, values: average_change, colour: 2, format: percents }]}
            />
            <Caption>{TEXT.validChart}</Caption>
            <Chart
              label={TEXT.validChart}
              times={times}
              height={170}
              sync="prices"
              plugins={DAY_MARKS}
              least={[0, 10]}
              series={[
                { label: TEXT.valid, values: valid_coins, colour: 3, kind: 'steps' },
                { label: TEXT.coins, values: total_coins, colour: 8, kind: 'steps' },
              ]}
            />
          </>
        )}
      </Loaded>
    </Card>
  );
}

interface Row {
  coin: string;
  price: number | null;
  base: number | null;
  change: number | null;
}
const SORTS = ['up', 'down', 'size', 'coin'] as const;
type Sort = (typeof SORTS)[number];
const byCoin = (one: Row, other: Row) => one.coin.localeCompare(other.coin);

/** What is not known comes last, whichever way. */
function by(value: (row: Row) => number) {
  return (one: Row, other: Row) => {
    if (one.change === null || other.change === null)
      return Number(one.change === null) - Number(other.change === null) || byCoin(one, other);
    return value(other) - value(one) || byCoin(one, other);
  };
}
const ORDER: Record<Sort, (one: Row, other: Row) => number> = {
  up: by(({ change }) => change ?? 0),
  down: by(({ change }) => -(change ?? 0)),
  size: by(({ change }) => Math.abs(change ?? 0)),
  coin: byCoin,
};

function EachCoin({ latest, range }: { latest: PricesLatest; range: Range }) {
  const changes = latest.data[0]?.day_changes ?? {};
  const coins = Object.keys(changes);
  const [sort, setSort] = useChoice<Sort>('sort', SORTS, 'up');
  const [coin, setCoin] = useChoice<string>('coin', coins, coins[0] ?? '');
  const rows = useMemo(
    () =>
      Object.entries(changes)
        .map(
          ([name, change]): Row => ({
            coin: name,
            price: change.current_price,
            base: change.base_price,
            change: change.change_pct,
          }),
        )
        .sort(ORDER[sort]),
    [changes, sort],
  );
  const most = Math.max(...rows.map(({ change }) => Math.abs(change ?? 0)), 0.01);
  return (
    <div class="split">
      <Card
        title={TEXT.table}
        actions={
          <Select label={TEXT.sort} choices={SORTS} chosen={sort} name={(each) => TEXT[each]} onChoose={setSort} />
        }
      >
        <div class="moves">
          <Table
            label={TEXT.table}
            rows={rows}
            keyOf={(row) => row.coin}
            columns={[
              {
                title: TEXT.coin,
                cell: (row) => (
                  <CoinButton coin={row.coin} isChosen={row.coin === coin} label={TEXT.look} onChoose={setCoin} />
                ),
              },
              {
                title: TEXT.change,
                isNumber: true,
                cell: (row) => <span data-figure={`change-${row.coin}`}>{signed(row.change, 4)}</span>,
                tone: (row) => toneOf(row.change),
              },
              {
                title: TEXT.price,
                isNumber: true,
                cell: (row) => <span data-figure={`price-${row.coin}`}>{exact(row.price)}</span>,
              },
              { title: TEXT.base, isNumber: true, cell: (row) => exact(row.base) },
              { title: '', cell: (row) => <Move share={(row.change ?? 0) / most} /> },
            ]}
          />
        </div>
      </Card>
      {coin === '' ? null : (
        <CoinPlace>
          <OneCoin key={coin} coin={coin} range={range} />
        </CoinPlace>
      )}
    </div>
  );
}

/** A change as a bar to the left or the right. @param share of the longest one, -1 to 1 */
function Move({ share }: { share: number }) {
  return (
    <span class="move" aria-hidden="true">
      <span class={share < 0 ? 'fall' : 'rise'} style={{ width: `${Math.abs(share) * 100}%` }} />
    </span>
  );
}

function OneCoin({ coin, range }: { coin: string; range: Range }) {
  const path = withQuery('/api/coin-price-tracker/columns', { coin, ...daysOf(range) });
  const columns = useData<PriceColumns>(path, 2 * REFRESH_MS);
  return (
    <Card wide title={`${coin} · ${rangeName(range)}`}>
      <Loaded data={columns}>
        {({ times, change_pct, current_price, missing_slots, is_complete }) => (
          <>
            <Missing missing={missing_slots} isComplete={is_complete} />
            <Caption>{TEXT.coinChart}</Caption>
            <Chart
              label={`${coin}: ${TEXT.coinChart}`}
              times={times}
              height={250}
              sync="prices"
              plugins={DAY_MARKS}
              series={[
                { label: TEXT.changeLegend, values: change_pct ?? [], colour: 1, format: percents },
                { label: TEXT.price, values: current_price ?? [], colour: 2, axis: 'right', format: exact },
              ]}
            />
          </>
        )}
      </Loaded>
    </Card>
  );
}
