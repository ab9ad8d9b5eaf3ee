/** Coins by timeframe and period as a heat map: the figure in each cell, what it stands on for the one that is pointed at, all of a coin below it. */
import type { ComponentChildren, TargetedEvent, TargetedKeyboardEvent } from 'preact';
import { useMemo, useState } from 'preact/hooks';
import { figure, fixed, UNKNOWN } from '../ui/format.ts';
import { Badge, Empty, Table, Time } from '../ui/parts.tsx';
import { settings, texts } from '../ui/settings.ts';
import {
  BY_COIN,
  type Coin,
  type Column,
  type CorrelationRow,
  coinsOf,
  columnsOf,
  found,
  type Order,
  sorted,
} from './correlation_order.ts';

const TEXT = texts({
  coin: ['Coin', '币种'],
  filter: ['Filter coins', '筛选币种'],
  filterHint: ['such as SOL, DOGE', '例如 SOL, DOGE'],
  shown: ['coins shown of', '个币种，共'],
  grid: ['Correlation with BTC by coin, timeframe and period', '各币种按时间周期与数据周期对 BTC 的相关性'],
  legend: ['Correlation', '相关系数'],
  blank: ['blank: not known, the reason on pointing at it', '空白：未知，指向可见原因'],
  faint: ['italic: p > 0.05, may be chance', '斜体：p > 0.05，可能出于偶然'],
  point: [
    'Point at a cell, or move through them with the arrow keys; a coin’s name opens all of its figures.',
    '指向单元格，或用方向键移动；点击币种名可展开全部数据。',
  ],
  none: ['no correlation', '无相关系数'],
  lag: ['lag', '延迟'],
  bars: ['candles', '根K线'],
  pairs: ['pairs', '配对数'],
  timeframe: ['Timeframe', '时间周期'],
  period: ['Period', '数据周期'],
  corr: ['Correlation', '相关系数'],
  points: ['Candles of both', '共有K线'],
  lost: ['of one only', '仅一方有'],
  upTo: ['Candles up to', 'K线截至'],
  reason: ['Reason', '原因'],
  anomaly: ['left BTC', '脱离 BTC'],
  noCoin: ['No such coin in the newest round', '最新一轮中没有此币种'],
});

type Row = CorrelationRow;
/** Above this a correlation may be chance: it is shown in another way, and nothing else follows from it. */
const CHANCE = 0.05;
const LEGEND = [-1, -0.75, -0.5, -0.25, 0, 0.25, 0.5, 0.75, 1];
function cellText(row: Row | undefined): string {
  if (row === undefined || row.corr === null) return `${TEXT.none}${row?.reason ? `: ${row.reason}` : ''}`;
  const { corr, lag, p_value, pairs } = row;
  return `${fixed(corr, 4)} · ${TEXT.lag} ${figure(lag)} ${TEXT.bars} · p ${pText(p_value)} · ${figure(pairs)} ${TEXT.pairs}`;
}

/** Small chances as what they are below. */
function pText(p: number | null): string {
  return p !== null && p < 0.0001 ? '< 0.0001' : fixed(p, 4);
}

interface HeatProps {
  data: readonly Row[];
  standing: ReadonlySet<string>;
}

export function HeatMap({ data, standing }: HeatProps) {
  const [filter, setFilter] = useState('');
  const [order, setOrder] = useState<Order>({ by: BY_COIN, isUp: true });
  const [open, setOpen] = useState<string | null>(null);
  const [pointed, setPointed] = useState<{ coin: string; name: string } | null>(null);
  const columns = useMemo(() => columnsOf(data), [data]);
  const coins = useMemo(() => coinsOf(data), [data]);
  const shown = useMemo(() => sorted(found(coins, filter), order), [coins, filter, order]);
  const { language } = settings();
  const sortBy = (by: string) => setOrder((last) => ({ by, isUp: last.by === by ? !last.isUp : by === BY_COIN }));
  // The same rows again are not gone through again: pointing at one of a thousand cells costs nothing.
  const body = useMemo(
    () =>
      shown.map((each, i) => (
        <HeatRow
          key={each.coin}
          {...{ each, columns, isFirst: i === 0 }}
          isOpen={open === each.coin}
          isOff={standing.has(each.coin)}
          onOpen={() => setOpen(open === each.coin ? null : each.coin)}
        />
      )),
    [shown, columns, open, standing, language],
  );
  return (
    <>
      <div class="bar heat-bar">
        <label class="select">
          <span>{TEXT.filter}</span>
          <input
            type="search"
            value={filter}
            placeholder={TEXT.filterHint}
            onInput={(event) => setFilter(event.currentTarget.value)}
          />
        </label>
        <span class="note">
          <span data-figure="coins-shown">{figure(shown.length)}</span> {TEXT.shown} {figure(coins.length)}
        </span>
        <Legend />
      </div>
      <p class="heat-detail" role="status">
        <PointedCell coins={coins} pointed={pointed} />
      </p>
      {shown.length === 0 ? (
        <Empty>{TEXT.noCoin}</Empty>
      ) : (
        <div class="table heat-frame">
          <Grid onPoint={setPointed}>
            <thead>
              <tr>
                {[{ name: BY_COIN }, ...columns].map(({ name }) => (
                  <th
                    key={name}
                    scope="col"
                    aria-sort={order.by !== name ? undefined : order.isUp ? 'ascending' : 'descending'}
                  >
                    <button type="button" onClick={() => sortBy(name)}>
                      {name === BY_COIN ? TEXT.coin : name}
                      <span aria-hidden="true">{order.by !== name ? '' : order.isUp ? ' ▲' : ' ▼'}</span>
                    </button>
                  </th>
                ))}
              </tr>
            </thead>
            <tbody>{body}</tbody>
          </Grid>
        </div>
      )}
    </>
  );
}

interface GridProps {
  onPoint(pointed: { coin: string; name: string }): void;
  children: ComponentChildren;
}

function Grid({ onPoint, children }: GridProps) {
  const point = (event: TargetedEvent<HTMLTableElement>) => {
    const cell = (event.target as HTMLElement).closest('td[data-name]') as HTMLElement | null;
    if (cell !== null) onPoint({ coin: cell.dataset.coin!, name: cell.dataset.name! });
  };
  return (
    // biome-ignore lint/a11y/useKeyWithMouseEvents: onFocusIn is the focus that comes up from the cells
    <table
      class="heat"
      // biome-ignore lint/a11y/noNoninteractiveElementToInteractiveRole: its cells are gone through with the arrow keys
      role="grid"
      aria-label={TEXT.grid}
      onMouseOver={point}
      onFocusIn={point}
      onKeyDown={moveOn}
    >
      {children}
    </table>
  );
}

function PointedCell({ coins, pointed }: { coins: readonly Coin[]; pointed: { coin: string; name: string } | null }) {
  if (pointed === null) return <>{TEXT.point}</>;
  const row = coins.find(({ coin }) => coin === pointed.coin)?.rows.get(pointed.name);
  return (
    <>
      <b>
        {pointed.coin} {pointed.name}
      </b>{' '}
      {cellText(row)}
    </>
  );
}

function Legend() {
  return (
    <div class="heat-legend">
      <span>{TEXT.legend}</span>
      {LEGEND.map((corr) => (
        <span key={corr} class={`heat-cell ${corr < 0 ? 'below' : ''}`} style={{ '--size': String(Math.abs(corr)) }}>
          {corr}
        </span>
      ))}
      <span>{TEXT.blank}</span>
      <span class="chance">{TEXT.faint}</span>
    </div>
  );
}

interface HeatRowProps {
  each: Coin;
  columns: readonly Column[];
  isFirst: boolean;
  isOpen: boolean;
  /** An anomaly of it stands. */
  isOff: boolean;
  onOpen(): void;
}

function HeatRow({ each: { coin, rows }, columns, isFirst, isOpen, isOff, onOpen }: HeatRowProps) {
  return (
    <>
      <tr>
        <th scope="row">
          <button type="button" aria-expanded={isOpen} onClick={onOpen}>
            {coin}
          </button>
          {isOff ? <Badge tone="bad">{TEXT.anomaly}</Badge> : null}
        </th>
        {columns.map(({ name }, i) => {
          const row = rows.get(name);
          const corr = row?.corr ?? null;
          const isChance = row?.p_value != null && row.p_value > CHANCE;
          return (
            <td
              key={name}
              class={`heat-cell ${corr === null ? 'none' : corr < 0 ? 'below' : ''} ${isChance ? 'chance' : ''}`}
              style={corr === null ? undefined : { '--size': String(Math.abs(corr)) }}
              tabIndex={isFirst && i === 0 ? 0 : -1}
              data-coin={coin}
              data-name={name}
              data-figure={`corr ${coin} ${name}`}
              title={corr === null ? cellText(row) : undefined}
              aria-label={`${coin} ${name}: ${cellText(row)}`}
            >
              {corr === null ? '' : fixed(corr, 2)}
            </td>
          );
        })}
      </tr>
      {isOpen ? (
        <tr class="heat-open">
          <td colSpan={columns.length + 1}>
            <CoinDetail coin={coin} rows={columns.flatMap(({ name }) => rows.get(name) ?? [])} />
          </td>
        </tr>
      ) : null}
    </>
  );
}

function CoinDetail({ coin, rows }: { coin: string; rows: readonly Row[] }) {
  return (
    <Table
      label={coin}
      rows={rows}
      keyOf={({ timeframe, period }) => `${timeframe} ${period}`}
      columns={[
        { title: TEXT.timeframe, cell: ({ timeframe }) => timeframe },
        { title: TEXT.period, cell: ({ period }) => period },
        { title: TEXT.corr, isNumber: true, cell: ({ corr }) => fixed(corr, 4) },
        { title: `${TEXT.lag}, ${TEXT.bars}`, isNumber: true, cell: ({ lag }) => figure(lag) },
        { title: 'p', isNumber: true, cell: ({ p_value }) => pText(p_value) },
        { title: TEXT.pairs, isNumber: true, cell: ({ pairs }) => figure(pairs) },
        { title: TEXT.points, isNumber: true, cell: ({ points }) => figure(points) },
        { title: TEXT.lost, isNumber: true, cell: ({ lost }) => figure(lost) },
        { title: TEXT.upTo, cell: ({ timestamp }) => <Time ms={timestamp} detail="minute" /> },
        { title: TEXT.reason, cell: ({ reason }) => <span class="wraps">{reason ?? UNKNOWN}</span> },
      ]}
    />
  );
}

const MOVES: Record<string, readonly [down: number, right: number]> = {
  ArrowUp: [-1, 0],
  ArrowDown: [1, 0],
  ArrowLeft: [0, -1],
  ArrowRight: [0, 1],
};

/** From cell to cell with the arrow keys; one of them all is reached with the tabulator. Enter opens the coin. */
function moveOn(event: TargetedKeyboardEvent<HTMLTableElement>): void {
  const cell = event.target as HTMLElement;
  if (!(cell instanceof HTMLTableCellElement) || cell.dataset.name === undefined) return;
  const row = cell.parentElement as HTMLTableRowElement;
  if (event.key === 'Enter') {
    row.querySelector('button')?.click();
    return;
  }
  const move = MOVES[event.key];
  if (move === undefined) return;
  event.preventDefault();
  const [down, right] = move;
  let next: Element | null = row;
  // What is opened below a coin is no row of cells.
  if (down !== 0)
    do next = down > 0 ? next.nextElementSibling : next.previousElementSibling;
    while (next?.classList.contains('heat-open'));
  const target = (next as HTMLTableRowElement | null)?.cells[cell.cellIndex + right];
  if (target?.dataset.name === undefined) return;
  cell.tabIndex = -1;
  target.tabIndex = 0;
  target.focus();
}
