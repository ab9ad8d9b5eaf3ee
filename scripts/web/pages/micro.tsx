/** Microstructure: what order books and trades of one market say, as the harvest derives it. */
import { useMemo, useState } from 'preact/hooks';
import type { Harvest, HarvestLatest, HarvestReached } from '../../lib/web/harvest_routes.ts';
import type { HarvestMarks, HarvestSeries } from '../../lib/web/harvest_series.ts';
import { type Data, useChoice, useData, withQuery } from '../ui/data.ts';
import { decimal, exact, figure, fixed, span } from '../ui/format.ts';
import { Badge, Card, Choice, Empty, Figure, Figures, Loaded, Select, Table, Time, type Tone } from '../ui/parts.tsx';
import { texts } from '../ui/settings.ts';
import { MicroCharts } from './micro_charts.tsx';
import { EventChips, EventsTable } from './micro_events.tsx';
import { kindName, labelName } from './micro_words.ts';
import './micro.css';

const TEXT = texts({
  exchange: ['Exchange', '交易所'],
  symbol: ['Symbol', '交易对'],
  range: ['Span', '时段'],
  live: ['Back to now', '回到实时'],
  from: ['from', '从'],
  to: ['to', '至'],
  drag: ['Drag over a chart to look closer.', '在图上拖动可放大时段。'],
  charts: ['Charts', '图表'],
  now: ['Newest figures', '最新数值'],
  mid: ['Mid', '中间价'],
  last: ['Last trade', '最新成交价'],
  spread: ['Spread', '价差'],
  ofi: ['OFI', 'OFI'],
  ofiZ: ['z OFI', 'z OFI'],
  cvd: ['CVD', 'CVD'],
  delta: ['Delta', '成交量差'],
  cvdZ: ['z CVD', 'z CVD'],
  score: ['Fusion score', '融合评分'],
  signal: ['Signal', '信号'],
  state: ['State', '市场状态'],
  trades: ['Trades in the second', '该秒成交'],
  changes: ['Book changes in the second', '该秒盘口变化'],
  missing: ['Trades known missing', '已知缺失成交'],
  restarts: ['Book begun anew', '盘口重建次数'],
  kind: ['Kind', '种类'],
  newest: ['Newest row', '最新一行'],
  lag: ['Lag behind the exchange', '相对交易所延迟'],
  age: ['Age', '距今'],
  lagNote: [
    'Lag: from the exchange’s time to the arrival of the frame; a second’s row has the time of its start, and so up to a second more. Age: rows are written once a minute, or sooner where many come.',
    '延迟：交易所时间到数据到达之间；逐秒行以该秒开始为时间，因此至多再多一秒。距今：采集器每分钟写入一次，数据多时更频繁。',
  ],
  market: ['Market', '市场'],
  markets: ['Markets of the harvest', '已采集的市场'],
  none: [
    'Nothing has been harvested yet. ofi_cvd_harvester.ts reads trades and books from the broker and writes their microstructure.',
    '尚无微观结构数据。由 ofi_cvd_harvester.ts 从消息队列读取成交与盘口后写入。',
  ],
  harvester: ['Harvester last seen', '采集器最近运行'],
  never: ['never here', '从未在此运行'],
  reached: ['data up to', '数据至'],
});

const RANGES = ['5m', '1h', '6h', '24h', '7d'] as const;
type Range = (typeof RANGES)[number];
/** Minutes of a range, and how often its newest point is asked for, ms: a longer one has longer points. */
const SPANS: Record<Range, { minutes: number; everyMs: number }> = {
  '5m': { minutes: 5, everyMs: 5000 },
  '1h': { minutes: 60, everyMs: 10_000 },
  '6h': { minutes: 360, everyMs: 20_000 },
  '24h': { minutes: 1440, everyMs: 60_000 },
  '7d': { minutes: 10_080, everyMs: 300_000 },
};
const LATEST_MS = 5000;
const MARKETS_MS = 10_000;
/** A figure that is older is told as such. */
const STALE_MS = 120_000;
const LEAST_ZOOM_MS = 10_000;
const KINDS = ['features', 'ofi', 'cvd', 'fusion', 'events'] as const;

type Market = Harvest['markets'][number];

export function MicroPage() {
  const harvest = useData<Harvest>('/api/harvest', MARKETS_MS);
  return (
    <Loaded data={harvest}>
      {(value) => (value.markets.length === 0 ? <Empty>{TEXT.none}</Empty> : <Markets harvest={value} />)}
    </Loaded>
  );
}

/** A symbol is one market of an exchange, but for names that several of its markets share. */
function nameOf({ symbol, market_type }: Market, among: readonly Market[]): string {
  return among.filter((each) => each.symbol === symbol).length > 1 ? `${symbol} ${market_type}` : symbol;
}

function Markets({ harvest }: { harvest: Harvest }) {
  const { markets } = harvest;
  const exchanges = [...new Set(markets.map(({ exchange }) => exchange))];
  const first = markets.find(({ symbol }) => symbol.startsWith('BTC-')) ?? markets[0]!;
  const [exchange, setExchange] = useChoice('exchange', exchanges, first.exchange);
  const own = markets.filter((each) => each.exchange === exchange);
  const names = own.map((each) => nameOf(each, own));
  const [symbol, setSymbol] = useChoice(
    'symbol',
    [
      ...new Set(
        markets.map((each) =>
          nameOf(
            each,
            markets.filter(({ exchange: of }) => of === each.exchange),
          ),
        ),
      ),
    ],
    nameOf(first, own),
  );
  const [range, setRange] = useChoice<Range>('range', RANGES, '1h');
  const [zoom, setZoom] = useState<{ from: number; to: number } | null>(null);
  const at = Math.max(0, names.indexOf(symbol));
  const market = own[at]!;
  const choose = (change: () => void) => {
    setZoom(null);
    change();
  };
  return (
    <>
      <div class="bar">
        <Select
          label={TEXT.exchange}
          choices={exchanges}
          chosen={exchange}
          onChoose={(each) => choose(() => setExchange(each))}
        />
        <Select
          label={TEXT.symbol}
          choices={names}
          chosen={names[at]!}
          onChoose={(each) => choose(() => setSymbol(each))}
        />
        <Choice label={TEXT.range} choices={RANGES} chosen={range} onChoose={(each) => choose(() => setRange(each))} />
        {zoom === null ? (
          <span class="note micro-hint">{TEXT.drag}</span>
        ) : (
          <span class="micro-hint">
            {TEXT.from} <Time ms={zoom.from} /> {TEXT.to} <Time ms={zoom.to} />{' '}
            <button type="button" class="button" onClick={() => setZoom(null)}>
              {TEXT.live}
            </button>
          </span>
        )}
      </div>
      <OneMarket key={`${exchange} ${names[at]}`} market={market} range={range} zoom={zoom} onZoom={setZoom} />
      <Card wide title={TEXT.markets}>
        <Harvesters harvest={harvest} />
        <ReachedTable />
      </Card>
    </>
  );
}

interface OneMarketProps {
  market: Market;
  range: Range;
  zoom: { from: number; to: number } | null;
  onZoom(zoom: { from: number; to: number }): void;
}

function OneMarket({ market, range, zoom, onZoom }: OneMarketProps) {
  const { exchange, market_type, symbol } = market;
  const path = `/api/harvest/${encodeURIComponent(symbol)}`;
  const { minutes } = SPANS[range];
  const everyMs = zoom === null ? SPANS[range].everyMs : undefined;
  const query = { exchange, market_type, ...(zoom ?? { minutes }) };
  const seriesOf = (kind: string, fields: string, stats: string) =>
    withQuery(`${path}/series`, { ...query, kind, fields, stats });
  const features = useData<HarvestSeries>(
    seriesOf('features', 'mid,last_price,fusion_score,spread_bps,trades,book_changes', 'min,max,last,mean'),
    everyMs,
  );
  const ofi = useData<HarvestSeries>(seriesOf('ofi', 'ofi_value,ofi_z', 'min,max,last,sum'), everyMs);
  const cvd = useData<HarvestSeries>(seriesOf('cvd', 'cvd,delta,z_cvd', 'min,max,last,sum'), everyMs);
  const depth = useData<HarvestSeries>(seriesOf('depth', 'imbalance', 'last'), everyMs);
  const marks = useData<HarvestMarks>(withQuery(`${path}/marks`, query), everyMs);
  const [hidden, setHidden] = useState<ReadonlySet<string>>(new Set());
  const toggle = (type: string) => {
    const next = new Set(hidden);
    if (!next.delete(type)) next.add(type);
    setHidden(next);
  };
  const shown = useMemo(
    () => (marks.value?.marks ?? []).filter(({ event_type }) => !hidden.has(event_type)),
    [marks.value, hidden],
  );
  const types = hidden.size === 0 ? null : [...new Set(shown.map(({ event_type }) => event_type))];
  const [base = '', quote = ''] = symbol.split('-');
  return (
    <>
      <Newest path={path} market={market} />
      <Card wide title={`${symbol} · ${exchange}`}>
        <Loaded data={marks}>{(value) => <EventChips marks={value} hidden={hidden} onToggle={toggle} />}</Loaded>
        <MicroCharts
          series={{ features, ofi, cvd, depth }}
          marks={shown}
          base={base}
          quote={quote}
          onSpan={(from, to) => {
            if (to - from >= LEAST_ZOOM_MS) onZoom({ from: Math.floor(from), to: Math.ceil(to) });
          }}
        />
      </Card>
      <EventsTable
        key={`${range} ${zoom?.from} ${zoom?.to} ${types?.join()}`}
        path={`${path}/events`}
        {...{ query, types, everyMs }}
      />
    </>
  );
}

function toneOf(value: number | null | undefined): Tone | undefined {
  if (value === null || value === undefined || value === 0) return undefined;
  return value > 0 ? 'up' : 'down';
}

function Newest({ path, market }: { path: string; market: Market }) {
  const { exchange, market_type } = market;
  const latest: Data<HarvestLatest> = useData(withQuery(`${path}/latest`, { exchange, market_type }), LATEST_MS);
  return (
    <Card wide title={TEXT.now} note={TEXT.lagNote}>
      <Loaded data={latest}>
        {(value) => (
          <div class="micro-newest">
            <NewestFigures latest={value} />
            <Table
              label={TEXT.kind}
              rows={KINDS.map((kind) => ({ kind, row: value[kind] }))}
              keyOf={({ kind }) => kind}
              columns={[
                { title: TEXT.kind, cell: ({ kind }) => kindName(kind) },
                { title: TEXT.newest, cell: ({ row }) => <Time ms={row?.ts_ms} detail="millisecond" /> },
                {
                  title: TEXT.lag,
                  isNumber: true,
                  cell: ({ kind, row }) => <span data-figure={`lag-${kind}`}>{span(row?.lag_ms)}</span>,
                },
                {
                  title: TEXT.age,
                  isNumber: true,
                  cell: ({ row }) => span(row?.age_ms),
                  tone: ({ kind, row }) =>
                    kind !== 'events' && row !== null && row.age_ms > STALE_MS ? 'warn' : undefined,
                },
              ]}
            />
          </div>
        )}
      </Loaded>
    </Card>
  );
}

function NewestFigures({ latest: { features, ofi, cvd, fusion } }: { latest: HarvestLatest }) {
  const labels = [features?.session, features?.regime, features?.vol_bucket].filter((each) => each != null);
  const signal = fusion?.signal ?? null;
  const way = signal?.includes('buy') ? 'up' : signal?.includes('sell') ? 'down' : 'plain';
  return (
    <Figures>
      <Figure name="mid" label={TEXT.mid} value={exact(features?.mid)} />
      <Figure name="last_price" label={TEXT.last} value={exact(features?.last_price)} />
      <Figure name="spread_bps" label={`${TEXT.spread}, bps`} value={fixed(features?.spread_bps, 3)} />
      <Figure name="ofi_value" label={TEXT.ofi} value={figure(ofi?.ofi_value)} tone={toneOf(ofi?.ofi_value)} />
      <Figure name="ofi_z" label={TEXT.ofiZ} value={fixed(ofi?.ofi_z, 2)} tone={toneOf(ofi?.ofi_z)} />
      <Figure name="cvd" label={TEXT.cvd} value={decimal(cvd?.cvd)} tone={toneOf(cvd && Number(cvd.cvd))} />
      <Figure name="delta" label={TEXT.delta} value={decimal(cvd?.delta)} tone={toneOf(cvd && Number(cvd.delta))} />
      <Figure name="z_cvd" label={TEXT.cvdZ} value={fixed(cvd?.z_cvd, 2)} tone={toneOf(cvd?.z_cvd)} />
      <Figure name="score" label={TEXT.score} value={fixed(fusion?.score, 2)} tone={toneOf(fusion?.score)} />
      <Figure
        name="signal"
        label={TEXT.signal}
        value={signal === null ? '–' : <Badge tone={way}>{labelName(signal)}</Badge>}
      />
      <Figure name="state" label={TEXT.state} value={labels.map((each) => labelName(each)).join(' · ') || '–'} />
      <Figure name="trades" label={TEXT.trades} value={figure(features?.trades)} />
      <Figure name="book_changes" label={TEXT.changes} value={figure(features?.book_changes)} />
      <Figure
        name="queue_dropped"
        label={TEXT.missing}
        value={figure(features?.queue_dropped)}
        tone={(features?.queue_dropped ?? 0) > 0 ? 'warn' : undefined}
      />
      <Figure name="reconnect_count" label={TEXT.restarts} value={figure(features?.reconnect_count)} />
    </Figures>
  );
}

function Harvesters({ harvest: { harvesters } }: { harvest: Harvest }) {
  return (
    <p class="note">
      {TEXT.harvester}:{' '}
      {harvesters.length === 0
        ? TEXT.never
        : harvesters.map(({ exchange, last_run, data_time }) => (
            <span key={exchange} class="micro-harvester">
              {exchange} <Time ms={last_run} />, {TEXT.reached} <Time ms={data_time} />
            </span>
          ))}
    </p>
  );
}

function ReachedTable() {
  const reached = useData<HarvestReached>('/api/harvest/reached', MARKETS_MS);
  return <Loaded data={reached}>{({ markets }) => <MarketsTable markets={markets} />}</Loaded>;
}

type Reached = HarvestReached['markets'][number];

function MarketsTable({ markets }: { markets: readonly Reached[] }) {
  return (
    <Table
      label={TEXT.markets}
      rows={markets}
      keyOf={({ exchange, market_type, symbol }) => `${exchange} ${market_type} ${symbol}`}
      columns={[
        { title: TEXT.exchange, cell: ({ exchange }) => exchange },
        {
          title: TEXT.symbol,
          cell: ({ exchange, symbol }) => <a href={withQuery('/microstructure', { exchange, symbol })}>{symbol}</a>,
        },
        { title: TEXT.market, cell: ({ market_type }) => labelName(market_type) },
        ...KINDS.map((kind) => ({
          title: kindName(kind),
          cell: ({ kinds }: Reached) => <Time ms={kinds[kind]?.ts_ms} detail="second" />,
          tone: ({ kinds }: Reached): Tone | undefined =>
            kind !== 'events' && (kinds[kind]?.age_ms ?? 0) > STALE_MS ? 'warn' : undefined,
        })),
      ]}
    />
  );
}
