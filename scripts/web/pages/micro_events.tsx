/** Events of a market: how many of each type there are, which of them are shown, and the rows themselves. */
import { useState } from 'preact/hooks';
import type { HarvestEvents } from '../../lib/web/harvest_routes.ts';
import type { HarvestMarks } from '../../lib/web/harvest_series.ts';
import { useData, withQuery } from '../ui/data.ts';
import { figure, fixed, span, UNKNOWN } from '../ui/format.ts';
import { Card, Loaded, Pager, Table, Time } from '../ui/parts.tsx';
import { texts } from '../ui/settings.ts';
import { directionName, eventMeaning, eventName, triggerName } from './micro_words.ts';

const TEXT = texts({
  title: ['Events', '事件'],
  types: ['Which events are shown', '显示哪些事件'],
  all: ['all', '全部'],
  time: ['Time', '时间'],
  event: ['Event', '事件'],
  direction: ['Direction', '方向'],
  strength: ['Strength', '强度'],
  zOfi: ['z OFI', 'z OFI'],
  zCvd: ['z CVD', 'z CVD'],
  by: ['Told by', '触发'],
  lag: ['Lag', '延迟'],
  meaning: ['What it means', '含义'],
  none: [
    'No such event in this time. ofi_cvd_harvester.ts writes them as they happen.',
    '此时段内没有此类事件。事件由 ofi_cvd_harvester.ts 在发生时写入。',
  ],
  total: ['events in this time', '个事件'],
});

const ROWS = 25;

interface ChipsProps {
  marks: HarvestMarks;
  /** Types that are not shown. */
  hidden: ReadonlySet<string>;
  onToggle(type: string): void;
}

/** Counts of each type, by which it is shown or not. */
export function EventChips({ marks, hidden, onToggle }: ChipsProps) {
  const counts = new Map<string, number>();
  for (const { event_type, count } of marks.marks) counts.set(event_type, (counts.get(event_type) ?? 0) + count);
  return (
    <fieldset class="micro-chips" aria-label={TEXT.types}>
      <span data-figure="events-total">{figure(marks.total_count)}</span> {TEXT.total}
      {[...counts].map(([type, count]) => (
        <button
          type="button"
          key={type}
          title={eventMeaning(type)}
          aria-pressed={!hidden.has(type)}
          onClick={() => onToggle(type)}
        >
          {eventName(type)} <b data-figure={`events-${type}`}>{figure(count)}</b>
        </button>
      ))}
    </fieldset>
  );
}

interface EventsProps {
  path: string;
  /** Which rows: the market and the span. */
  query: Record<string, string | number | null>;
  /** Null: all. */
  types: readonly string[] | null;
  everyMs: number | undefined;
}

export function EventsTable({ path, query, types, everyMs }: EventsProps) {
  // A page further back stays the same while events come: it ends where the list ended when it was turned to.
  const [page, setPage] = useState({ offset: 0, from: null as number | null, to: null as number | null });
  const isFirst = page.offset === 0;
  const span_ = isFirst ? {} : { from: page.from, to: page.to, minutes: null };
  const asked = {
    ...query,
    ...span_,
    types: types === null ? null : types.join(','),
    limit: ROWS,
    offset: page.offset,
  };
  const events = useData<HarvestEvents>(
    types?.length === 0 ? null : withQuery(path, asked),
    isFirst ? everyMs : undefined,
  );
  return (
    <Card wide title={TEXT.title}>
      {types?.length === 0 ? (
        <p class="empty">{TEXT.none}</p>
      ) : (
        <Loaded data={events}>
          {({ data, total_count, from, to }) => (
            <>
              <Table
                label={TEXT.title}
                rows={data}
                keyOf={({ row_id }) => row_id}
                empty={TEXT.none}
                columns={[
                  { title: TEXT.time, cell: ({ ts_ms }) => <Time ms={ts_ms} detail="millisecond" /> },
                  { title: TEXT.event, cell: ({ event_type }) => <b>{eventName(event_type)}</b> },
                  {
                    title: TEXT.direction,
                    cell: ({ direction }) => (direction === null ? UNKNOWN : directionName(direction)),
                    tone: ({ direction }) =>
                      direction === 'bullish' ? 'up' : direction === 'bearish' ? 'down' : undefined,
                  },
                  {
                    title: TEXT.strength,
                    isNumber: true,
                    cell: ({ event_type, strength_score }) => strengthText(event_type, strength_score),
                  },
                  { title: TEXT.zOfi, isNumber: true, cell: ({ ofi_z }) => fixed(ofi_z, 2) },
                  { title: TEXT.zCvd, isNumber: true, cell: ({ cvd_z }) => fixed(cvd_z, 2) },
                  { title: TEXT.by, cell: ({ trigger_by }) => triggerName(trigger_by) },
                  { title: TEXT.lag, isNumber: true, cell: ({ ts_ms, recv_ts_ms }) => span(recv_ts_ms - ts_ms) },
                  {
                    title: TEXT.meaning,
                    cell: ({ event_type }) => <span class="wraps micro-meaning">{eventMeaning(event_type)}</span>,
                  },
                ]}
              />
              <Pager
                total={total_count}
                size={ROWS}
                offset={page.offset}
                onTurn={(offset) => setPage(isFirst ? { offset, from, to } : { ...page, offset })}
              />
            </>
          )}
        </Loaded>
      )}
    </Card>
  );
}

/** Strengths of different events are of different kinds: a score of 100, a size in deviations, a share of the price. */
function strengthText(type: string, strength: number | null): string {
  const isScore = type.endsWith('_div') || type.startsWith('hidden_') || type === 'ofi_cvd_conflict';
  const text = fixed(strength, isScore ? 0 : 2);
  return type === 'price_anomaly' && strength !== null ? `${text} %` : text;
}
