/** Escape signals minute by minute: of all days, the newest first, or of one. */
import type { EscapeTable } from '../../lib/web/desk_chart_routes.ts';
import { useData, withQuery } from '../ui/data.ts';
import { figure } from '../ui/format.ts';
import { Card, Loaded, Table, Time } from '../ui/parts.tsx';
import { texts } from '../ui/settings.ts';
import { PinnedPager, signed, toneOf, usePinned } from './desk_parts.tsx';

const TEXT = texts({
  title: ['Records', '记录'],
  minute: ['Minute', '分钟'],
  coins: ['Coins counted', '计入币种'],
  change: ['Change sum of coins', '币种涨跌幅总和'],
  valid: ['Coins with a change', '有涨跌幅的币种'],
  decline: ['Decline', '下跌'],
  rise: ['Rise', '上涨'],
  missing: ['Candles missing, 24 h', '24 小时缺失 K 线'],
  none: ['There are no records of this day.', '当天没有记录。'],
  note: [
    'Change sum: of all coins since midnight in Beijing, by the half hour before. “–”: not known.',
    '涨跌幅总和：所有币种自北京时间零点以来，取最近半小时的记录。“–”表示未知。',
  ],
});
const SIZE = 20;
const REFRESH_MS = 60_000;

interface Props {
  rule: EscapeTable['rule'];
  day: string | null;
}

export function EscapeTableCard({ rule, day }: Props) {
  const [page, turn] = usePinned();
  const table = useData<EscapeTable>(
    withQuery('/api/escape-signal-stats/table', { rule, date: day, limit: SIZE, offset: page.offset, to: page.to }),
    REFRESH_MS,
  );
  return (
    <Card wide title={day === null ? TEXT.title : `${TEXT.title}: ${day}`} note={TEXT.note}>
      <Loaded data={table}>
        {({ data, total_count }) => (
          <>
            <Table
              label={TEXT.title}
              rows={data}
              keyOf={({ slot }) => String(slot)}
              empty={TEXT.none}
              columns={[
                { title: TEXT.minute, cell: ({ slot }) => <Time ms={slot} detail="minute" /> },
                {
                  title: '24 h',
                  isNumber: true,
                  cell: (row) => <Named name="row-24h" value={figure(row.signal_24h_count)} />,
                },
                {
                  title: '2 h',
                  isNumber: true,
                  cell: (row) => <Named name="row-2h" value={figure(row.signal_2h_count)} />,
                },
                {
                  title: TEXT.coins,
                  isNumber: true,
                  cell: (row) => `${figure(row.breadth)} / ${figure(row.coins)}`,
                  tone: (row) => (row.is_signal === true ? 'bad' : undefined),
                },
                {
                  title: TEXT.change,
                  isNumber: true,
                  cell: (row) => <Named name="row-change" value={signed(row.total_change, 4)} />,
                  tone: (row) => toneOf(row.total_change),
                },
                {
                  title: TEXT.valid,
                  isNumber: true,
                  cell: (row) => `${figure(row.valid_coins)} / ${figure(row.total_coins)}`,
                  tone: (row) => (row.valid_coins === row.total_coins ? undefined : 'warn'),
                },
                { title: TEXT.decline, isNumber: true, cell: (row) => figure(row.decline_strength_level) },
                { title: TEXT.rise, isNumber: true, cell: (row) => figure(row.rise_strength_level) },
                {
                  title: TEXT.missing,
                  isNumber: true,
                  cell: (row) => figure(row.missing_24h),
                  tone: (row) => ((row.missing_24h ?? 0) > 0 ? 'warn' : undefined),
                },
              ]}
            />
            <PinnedPager page={page} total={total_count} size={SIZE} newest={data[0]?.slot ?? null} onTurn={turn} />
          </>
        )}
      </Loaded>
    </Card>
  );
}

function Named({ name, value }: { name: string; value: string }) {
  return <span data-figure={name}>{value}</span>;
}
