/** Marks of gaps on a time line: a lane for each exchange and type, in which open, unfillable and filled ones have a row each. */
import type { TargetedKeyboardEvent } from 'preact';
import type { GapMark, TimelineAnswer } from '../../lib/web/overview_gaps.ts';
import { time } from '../ui/format.ts';
import type { Tone } from '../ui/parts.tsx';
import { nameOf } from './overview_coverage.tsx';
import { useWidth } from './overview_size.ts';

export const STATUS_TONES = { open: 'bad', unfillable: 'warn', filled: 'good' } as const satisfies Record<
  GapMark['status'],
  Tone
>;
/** From top to bottom, so that none covers another. */
const ROWS: GapMark['status'][] = ['open', 'unfillable', 'filled'];
const MARK_HEIGHT = 6;
const LANE_HEIGHT = 24;
const LABEL_WIDTH = 220;
/** Where there is little room a lane's name stands above it, px. */
const NARROW_BELOW = 640;
const NAME_HEIGHT = 16;
const AXIS_HEIGHT = 20;
/** A mark that is shorter could not be seen, or pointed at. */
const LEAST_WIDTH = 4;
const TICK_EVERY_PX = 110;
const HOUR_MS = 3_600_000;
const TICK_HOURS = [1, 2, 3, 4, 6, 12, 24];

interface LanesProps {
  /** What it shows, for who does not see it. */
  label: string;
  timeline: TimelineAnswer;
  pointed: GapMark | null;
  onPoint(mark: GapMark): void;
  /** A mark in words. */
  describe(mark: GapMark): string;
}

export function Lanes({ label, timeline, pointed, onPoint, describe }: LanesProps) {
  const [holder, width] = useWidth();
  return (
    <div class="lanes" ref={holder}>
      {width === 0 ? null : <Picture {...{ label, timeline, pointed, onPoint, describe, width }} />}
    </div>
  );
}

function Picture({ label, timeline, pointed, onPoint, describe, width }: LanesProps & { width: number }) {
  const { from, to, marks } = timeline;
  const isNarrow = width < NARROW_BELOW;
  const left = isNarrow ? 0 : LABEL_WIDTH;
  const laneHeight = LANE_HEIGHT + (isNarrow ? NAME_HEIGHT : 0);
  const lanes = lanesOf(marks);
  const height = lanes.length * laneHeight + AXIS_HEIGHT;
  const x = (at: number) => left + ((at - from) / (to - from)) * (width - left);
  return (
    <svg width={width} height={height} viewBox={`0 0 ${width} ${height}`}>
      <title>{label}</title>
      {ticksOf(from, to, width - left).map((at) => (
        <g key={at} class="lane-tick">
          <line x1={x(at)} x2={x(at)} y1="0" y2={height - AXIS_HEIGHT} />
          <text x={x(at)} y={height - 5} text-anchor="middle">
            {time(at, 'minute').slice(-5)}
          </text>
        </g>
      ))}
      {lanes.map((own, index) => (
        <Lane
          key={`${own[0]!.exchange} ${own[0]!.data_type}`}
          {...{ marks: own, y: index * laneHeight, width, left, x, pointed, onPoint, describe }}
          nameHeight={isNarrow ? NAME_HEIGHT : 0}
        />
      ))}
    </svg>
  );
}

interface LaneProps extends Omit<LanesProps, 'timeline' | 'label'> {
  marks: GapMark[];
  y: number;
  width: number;
  left: number;
  nameHeight: number;
  x(at: number): number;
}

const isSame = (one: GapMark, other: GapMark | null) =>
  other !== null &&
  (['exchange', 'data_type', 'status', 'from'] as const).every((member) => one[member] === other[member]);

function Lane({ marks, y, width, left, nameHeight, x, pointed, onPoint, describe }: LaneProps) {
  const { exchange, data_type } = marks[0]!;
  const name = `${exchange} ${nameOf(data_type)}`;
  const place = marks.findIndex((mark) => isSame(mark, pointed));
  const turn = (event: TargetedKeyboardEvent<SVGGElement>) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (step === undefined) return;
    event.preventDefault();
    onPoint(marks[Math.min(Math.max(place + step, 0), marks.length - 1)]!);
  };
  const top = y + nameHeight;
  return (
    <g
      class="lane"
      tabIndex={0}
      role="slider"
      aria-label={name}
      aria-valuemin={1}
      aria-valuemax={marks.length}
      aria-valuenow={Math.max(place, 0) + 1}
      aria-valuetext={describe(marks[Math.max(place, 0)]!)}
      onKeyDown={turn}
      onFocus={() => place < 0 && onPoint(marks[0]!)}
    >
      <rect class="lane-ground" x={left} y={top} width={width - left} height={LANE_HEIGHT - 3} />
      <text class="lane-name" x="0" y={nameHeight > 0 ? y + 12 : y + 15}>
        {name}
      </text>
      {marks.map((mark) => {
        const at = Math.min(x(mark.from), width - LEAST_WIDTH);
        return (
          <rect
            key={`${mark.status} ${mark.from}`}
            class={`lane-mark ${STATUS_TONES[mark.status]}${isSame(mark, pointed) ? ' pointed' : ''}`}
            data-gaps={mark.gaps}
            x={at}
            y={top + 1 + ROWS.indexOf(mark.status) * (MARK_HEIGHT + 1)}
            width={Math.max(x(mark.to) - at, LEAST_WIDTH)}
            height={MARK_HEIGHT}
            onPointerEnter={() => onPoint(mark)}
          >
            <title>{describe(mark)}</title>
          </rect>
        );
      })}
    </g>
  );
}

/** Marks come sorted by exchange and type. */
function lanesOf(marks: readonly GapMark[]): GapMark[][] {
  const lanes: GapMark[][] = [];
  for (const mark of marks) {
    const [first] = lanes.at(-1) ?? [];
    if (first?.exchange === mark.exchange && first.data_type === mark.data_type) lanes.at(-1)!.push(mark);
    else lanes.push([mark]);
  }
  return lanes;
}

/** Whole hours of the day. */
function ticksOf(from: number, to: number, width: number): number[] {
  const most = Math.max(Math.floor(width / TICK_EVERY_PX), 1);
  const hours = TICK_HOURS.find((each) => (to - from) / (each * HOUR_MS) <= most) ?? 24;
  const step = hours * HOUR_MS;
  const out: number[] = [];
  for (let at = Math.ceil(from / step) * step; at <= to; at += step) out.push(at);
  // One at the very edge would be cut off.
  return out.filter((at) => ((at - from) / (to - from)) * width > 18 && ((to - at) / (to - from)) * width > 18);
}
