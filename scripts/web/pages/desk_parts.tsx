/** What the desk's pages share: ranges and days, charts that mark Beijing's days, signed figures, lists whose pages do not move. */
import type { ComponentChildren } from 'preact';
import { useState } from 'preact/hooks';
import type uPlot from 'uplot';
import { fixed, span, UNKNOWN } from '../ui/format.ts';
import { Pager, type Tone } from '../ui/parts.tsx';
import { texts } from '../ui/settings.ts';
import './desk.css';

const TEXT = texts({
  late: ['The newest record is {age} old. Is {script} running?', '最新记录已是 {age} 前的。{script} 在运行吗？'],
  missing: [
    'Records missing in this time: {count}. The lines are broken there.',
    '此时段缺少 {count} 条记录，曲线在缺口处断开。',
  ],
  cut: ['Only the newest part of this time was read.', '仅读取了此时段中最新的部分。'],
});

/** `{name}` in a text, replaced. */
export function fill(text: string, values: Record<string, string | number>): string {
  return text.replace(/\{(\w+)\}/g, (all, name: string) => (name in values ? String(values[name]) : all));
}

/** Percent with its sign; four digits are what the records have. */
export function signed(value: number | null | undefined, digits = 2): string {
  if (value === null || value === undefined) return UNKNOWN;
  return `${value > 0 ? '+' : ''}${fixed(value, digits)} %`;
}

export function toneOf(value: number | null | undefined): Tone | undefined {
  if (value === null || value === undefined || value === 0) return undefined;
  return value > 0 ? 'up' : 'down';
}

/** So far back a chart goes; `all`: as far as there are records. */
export const RANGES = ['1', '7', '30', 'all'] as const;
export type Range = (typeof RANGES)[number];
const RANGE_TEXT = texts({
  '1': ['24 h', '24 小时'],
  '7': ['7 d', '7 天'],
  '30': ['30 d', '30 天'],
  all: ['All', '全部'],
});
export function rangeName(range: Range): string {
  return RANGE_TEXT[range];
}
export function daysOf(range: Range): { days: string | null } {
  return { days: range === 'all' ? null : range };
}

/** The script that writes what is shown has not done so for too long. */
export function Late({
  isCurrent,
  ageSeconds,
  script,
}: {
  isCurrent: boolean | null;
  ageSeconds: number | null;
  script: string;
}) {
  if (isCurrent !== false) return null;
  return (
    <p class="problem" role="alert">
      {fill(TEXT.late, { age: span(ageSeconds === null ? null : ageSeconds * 1000), script })}
    </p>
  );
}

/** What a chart does not show, if anything. */
export function Missing({ missing, isComplete }: { missing: number; isComplete: boolean }) {
  if (missing === 0 && isComplete) return null;
  return (
    <p class="note warn">
      {missing === 0 ? null : fill(TEXT.missing, { count: missing })} {isComplete ? null : TEXT.cut}
    </p>
  );
}

/** What a chart shows, and in which unit, above it. */
export function Caption({ children }: { children: ComponentChildren }) {
  return <p class="caption">{children}</p>;
}

/** Where a chosen coin is shown: beside the list, or on a narrow screen before it. */
export function CoinPlace({ children }: { children: ComponentChildren }) {
  return (
    <div class="place" id={PLACE}>
      {children}
    </div>
  );
}
const PLACE = 'coin-place';

interface CoinButtonProps {
  coin: string;
  isChosen: boolean;
  label: string;
  onChoose(coin: string): void;
}

/** A coin that can be looked at by itself. */
export function CoinButton({ coin, isChosen, label, onChoose }: CoinButtonProps) {
  return (
    <button
      type="button"
      class="coin"
      aria-pressed={isChosen}
      aria-label={`${coin}: ${label}`}
      onClick={() => {
        onChoose(coin);
        document.getElementById(PLACE)?.scrollIntoView({ block: 'nearest' });
      }}
    >
      {coin}
    </button>
  );
}

export interface PinnedPage {
  offset: number;
  /** Records after this one are left out, ms; null: none are. */
  to: number | null;
}

/**
 * The page of a list to which new records come at its head: who turns to older ones turns through the list as it was then, so that no record is seen
 * twice.
 */
export function usePinned(): [PinnedPage, (offset: number, newest: number | null) => void] {
  const [page, setPage] = useState<PinnedPage>({ offset: 0, to: null });
  return [
    page,
    (offset, newest) => setPage((last) => (offset === 0 ? { offset, to: null } : { offset, to: last.to ?? newest })),
  ];
}

interface PinnedPagerProps {
  page: PinnedPage;
  total: number;
  size: number;
  /** Of the first record that is shown, ms. */
  newest: number | null;
  onTurn(offset: number, newest: number | null): void;
}

export function PinnedPager({ page, total, size, newest, onTurn }: PinnedPagerProps) {
  return <Pager total={total} size={size} offset={page.offset} onTurn={(offset) => onTurn(offset, newest)} />;
}

const DAY_MS = 86_400_000;
const BEIJING_MS = 8 * 3_600_000;
/** CSS pixels between two days: lines that are closer would be a hatching, and a date takes so much. */
const LINE_WIDTH = 14;
const DATE_WIDTH = 90;

/** Marks where days begin in Beijing, with their dates where there is room for them. */
export const dayMarks: uPlot.Plugin = {
  hooks: {
    drawAxes: (plot) => {
      const { min, max } = plot.scales.x!;
      if (min == null || max == null) return;
      const { ctx, bbox } = plot;
      const ratio = devicePixelRatio;
      const dayWidth = ((bbox.width / ratio) * DAY_MS) / (max - min);
      if (dayWidth < LINE_WIDTH) return;
      const colour = getComputedStyle(plot.root).getPropertyValue('--muted').trim();
      ctx.save();
      ctx.strokeStyle = colour;
      ctx.fillStyle = colour;
      ctx.globalAlpha = 0.55;
      ctx.lineWidth = ratio;
      ctx.setLineDash([2 * ratio, 3 * ratio]);
      ctx.font = `${10 * ratio}px system-ui, sans-serif`;
      ctx.textAlign = 'left';
      ctx.textBaseline = 'top';
      for (let day = Math.ceil((min + BEIJING_MS) / DAY_MS) * DAY_MS - BEIJING_MS; day <= max; day += DAY_MS) {
        const x = Math.round(plot.valToPos(day, 'x', true));
        ctx.beginPath();
        ctx.moveTo(x, bbox.top);
        ctx.lineTo(x, bbox.top + bbox.height);
        ctx.stroke();
        if (dayWidth >= DATE_WIDTH)
          ctx.fillText(new Date(day + BEIJING_MS).toISOString().slice(5, 10), x + 3 * ratio, bbox.top + ratio);
      }
      ctx.restore();
    },
  },
};
export const DAY_MARKS = [dayMarks] as const;
