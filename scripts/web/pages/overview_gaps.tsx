/** What is known to be missing of the last day: on a time line, and as a list. */
import { useState } from 'preact/hooks';
import type { GapCounts, GapMark, GapsAnswer, TimelineAnswer } from '../../lib/web/overview_gaps.ts';
import { type Data, useData, withQuery } from '../ui/data.ts';
import { figure, span, time } from '../ui/format.ts';
import { Badge, Card, Empty, Loaded, Pager, Table, Time } from '../ui/parts.tsx';
import { texts } from '../ui/settings.ts';
import { nameOf } from './overview_coverage.tsx';
import { Lanes, STATUS_TONES } from './overview_lanes.tsx';

const TEXT = texts({
  title: ['Gaps of the last 24 hours', '最近 24 小时缺口'],
  note: [
    'Each mark stands for the gaps of one exchange and type that begin within',
    '每个标记代表同一交易所、同一类型在以下时段内开始的缺口：',
  ],
  hint: ['Point at a mark, or focus a lane and use the arrow keys.', '将指针移到标记上，或聚焦泳道后用方向键查看。'],
  none: [
    'No gap reaches into the last 24 hours. store.ts looks for holes in hot and declares them; collector.ts fills what the venue still serves.',
    '最近 24 小时无缺口。store.ts 在热库中查找并登记缺口，collector.ts 回补交易所仍提供的部分。',
  ],
  open: ['open', '未回补'],
  filled: ['filled', '已回补'],
  unfillable: ['unfillable', '无法回补'],
  gaps: ['gaps', '个缺口'],
  gap: ['gap', '个缺口'],
  missing: ['rows missing', '行缺失'],
  restored: ['rows restored', '行已回补'],
  uncounted: ['of unknown size', '个大小未知'],
  symbols: ['symbols', '个品种'],
  symbol: ['symbol', '个品种'],
  list: ['Gaps, newest first', '缺口列表（最新在前）'],
  exchange: ['Exchange', '交易所'],
  type: ['Type', '类型'],
  name: ['Symbol', '品种'],
  state: ['State', '状态'],
  from: ['From', '起'],
  lasted: ['Length', '时长'],
  rows: ['Rows', '行数'],
  missingRows: ['Missing', '缺失'],
  cause: ['Cause', '原因'],
});

const EVERY_MS = 5000;
const PAGE = 10;
const STATUSES = ['open', 'unfillable', 'filled'] as const;

export function GapsCard() {
  const timeline = useData<TimelineAnswer>('/api/gaps/timeline', EVERY_MS);
  const [offset, setOffset] = useState(0);
  const gaps = useData<GapsAnswer>(withQuery('/api/gaps', { limit: PAGE, offset }), EVERY_MS);
  const [pointed, setPointed] = useState<GapMark | null>(null);
  const bucket = timeline.value?.bucket_ms;
  return (
    <Card wide title={TEXT.title} note={bucket === undefined ? undefined : `${TEXT.note} ${span(bucket)}`}>
      <Loaded data={timeline}>
        {(value) => (
          <>
            <p class="gap-counts">
              {STATUSES.map((status) => (
                <span key={status} class={STATUS_TONES[status]}>
                  ■ <span data-figure={`gaps-${status}`}>{figure(value.counts[status].gaps)}</span> {TEXT[status]}{' '}
                  <small data-figure={`gaps-${status}-rows`}>{rowsOf(status, value.counts[status])}</small>
                </span>
              ))}
            </p>
            {value.total === 0 ? (
              <Empty>{TEXT.none}</Empty>
            ) : (
              <>
                <Lanes label={TEXT.title} timeline={value} pointed={pointed} onPoint={setPointed} describe={markText} />
                <p class="note gap-detail" aria-live="polite" data-figure="gap-detail">
                  {pointed === null ? TEXT.hint : markText(pointed)}
                </p>
                <GapList gaps={gaps} offset={offset} onTurn={setOffset} />
              </>
            )}
          </>
        )}
      </Loaded>
    </Card>
  );
}

/** What is missing, as far as it is known, and how much nobody can know. */
function rowsOf(status: GapMark['status'], { gaps, rows, missing_rows, uncounted }: GapCounts): string {
  if (gaps === 0) return '';
  const known = status === 'filled' ? `${figure(rows)} ${TEXT.restored}` : `${figure(missing_rows)} ${TEXT.missing}`;
  if (uncounted === 0) return known;
  return `${uncounted === gaps ? '' : `${known} + `}${figure(uncounted)} ${TEXT.uncounted}`;
}

function markText(mark: GapMark): string {
  const { exchange, data_type, status, from, to, gaps, symbols, causes } = mark;
  return [
    `${exchange} ${nameOf(data_type)}`,
    `${figure(gaps)} ${gaps === 1 ? TEXT.gap : TEXT.gaps} ${TEXT[status]}`,
    rowsOf(status, mark),
    `${figure(symbols)} ${symbols === 1 ? TEXT.symbol : TEXT.symbols}`,
    `${time(from)} – ${time(to)}`,
    causes.join(', '),
  ].join(' · ');
}

interface GapListProps {
  gaps: Data<GapsAnswer>;
  offset: number;
  onTurn(offset: number): void;
}

function GapList({ gaps, offset, onTurn }: GapListProps) {
  return (
    <Loaded data={gaps}>
      {({ gaps: rows, total }) => (
        <div class="overview-table">
          <Table
            label={TEXT.list}
            rows={rows}
            keyOf={({ gap_id }) => gap_id}
            columns={[
              { title: TEXT.from, cell: ({ from_time }) => <Time ms={from_time} /> },
              { title: TEXT.lasted, isNumber: true, cell: ({ from_time, to_time }) => span(to_time - from_time) },
              { title: TEXT.exchange, cell: ({ exchange }) => exchange },
              { title: TEXT.type, cell: ({ data_type }) => nameOf(data_type) },
              { title: TEXT.name, cell: ({ symbol }) => symbol },
              {
                title: TEXT.state,
                cell: ({ status }) => <Badge tone={STATUS_TONES[status]}>{TEXT[status]}</Badge>,
              },
              { title: TEXT.rows, isNumber: true, cell: ({ rows: count }) => figure(count) },
              { title: TEXT.missingRows, isNumber: true, cell: ({ missing_rows }) => figure(missing_rows) },
              {
                title: TEXT.cause,
                cell: ({ cause, reason }) => (
                  <span class="wraps">{reason === null ? cause : `${cause}: ${reason}`}</span>
                ),
              },
            ]}
          />
          <Pager total={total} size={PAGE} offset={offset} onTurn={onTurn} />
        </div>
      )}
    </Loaded>
  );
}
