/** What the charts of one market have in common: one width, a span that is chosen by dragging, and marks of events on the price. */
import type uPlot from 'uplot';
import type { HarvestMarks } from '../../lib/web/harvest_series.ts';

/** CSS pixels: of a right axis, and what a chart without one leaves free instead, so that moments lie below each other. */
const RIGHT = 62;
/** A drag over less is a click. */
const LEAST_DRAG = 6;
const MARK = 3.5;
const MARK_GAP = 5;
/** Marks stand so far apart. */
const COLUMN = 9;

export interface SharedOptions {
  hasRight: boolean;
  /** Names the moments below it; the charts in between share those. */
  hasTimes: boolean;
  /** Told the span that is dragged over, ms. */
  onSpan(from: number, to: number): void;
}

/** Charts of one moment begin and end at the same places, and tell the span that is dragged over. */
export function sharedPlugin({ hasRight, hasTimes, onSpan }: SharedOptions): uPlot.Plugin {
  return {
    opts: (_plot, options) => {
      options.cursor = { ...options.cursor, drag: { x: true, y: false, setScale: false } };
      if (!hasRight) options.padding = [null, RIGHT, null, null];
      if (!hasTimes) options.axes![0] = { ...options.axes![0], values: (_, all) => all.map(() => ''), size: 8 };
    },
    hooks: {
      setSelect: (plot) => {
        const { left, width } = plot.select;
        if (width < LEAST_DRAG) return;
        onSpan(plot.posToVal(left, 'x'), plot.posToVal(left + width, 'x'));
        plot.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
      },
    },
  };
}

/** Where events are drawn: the lowest and the highest price of each bucket, by its start. */
export interface MarkedPrices {
  prices: ReadonlyMap<number, readonly [low: number, high: number]>;
  marks: HarvestMarks['marks'];
}

/**
 * Rising events below the price, falling ones above it, those without a direction at the chart's foot. Marks that would cover each other are one,
 * the stronger the more events it stands for.
 */
export class MarksPlugin {
  private shown: MarkedPrices = { prices: new Map(), marks: [] };
  private plot: uPlot | null = null;

  readonly plugin: uPlot.Plugin = {
    hooks: {
      init: (plot) => {
        this.plot = plot;
      },
      destroy: () => {
        this.plot = null;
      },
      draw: (plot) => this.draw(plot),
    },
  };

  show(shown: MarkedPrices): void {
    this.shown = shown;
    this.plot?.redraw(false);
  }

  private draw(plot: uPlot): void {
    const style = getComputedStyle(plot.root);
    const { ctx, bbox } = plot;
    ctx.save();
    for (const [direction, colour] of [
      ['bullish', '--up'],
      ['bearish', '--down'],
      [null, '--warn'],
    ] as const) {
      const columns = [...this.columnsOf(plot, direction)];
      const most = Math.max(1, ...columns.map(([, { count }]) => count));
      ctx.fillStyle = style.getPropertyValue(colour).trim();
      for (const [column, { count, price }] of columns) {
        const x = bbox.left + (column + 0.5) * COLUMN * devicePixelRatio;
        const gap = (direction === 'bullish' ? MARK_GAP : -MARK_GAP) * devicePixelRatio;
        const foot = bbox.top + bbox.height - 2 * MARK * devicePixelRatio;
        const y = price === null || direction === null ? foot : plot.valToPos(price, 'left', true) + gap;
        ctx.globalAlpha = 0.4 + 0.6 * (count / most);
        drawMark(ctx, x, y, MARK * devicePixelRatio, direction);
      }
    }
    ctx.restore();
  }

  /** Events of a direction by columns of a mark's width, each with the price that the mark must not cover. */
  private columnsOf(plot: uPlot, direction: string | null): Map<number, { count: number; price: number | null }> {
    const { prices, marks } = this.shown;
    const { left, width } = plot.bbox;
    const columns = new Map<number, { count: number; price: number | null }>();
    for (const [at, count] of countsOf(marks, direction)) {
      const column = Math.floor((plot.valToPos(at, 'x', true) - left) / (COLUMN * devicePixelRatio));
      if (column < 0 || column * COLUMN * devicePixelRatio >= width) continue;
      const before = columns.get(column);
      const [low, high] = prices.get(at) ?? [null, null];
      const price = direction === 'bullish' ? low : high;
      const beyond = direction === 'bullish' ? Math.min : Math.max;
      columns.set(column, {
        count: count + (before?.count ?? 0),
        price: price === null || before?.price == null ? (price ?? before?.price ?? null) : beyond(price, before.price),
      });
    }
    return columns;
  }
}

/** Events of a direction by bucket, all types together. */
function countsOf(marks: HarvestMarks['marks'], direction: string | null): Map<number, number> {
  const counts = new Map<number, number>();
  for (const each of marks) {
    if (each.direction !== direction) continue;
    for (const [i, at] of each.times.entries()) counts.set(at, (counts.get(at) ?? 0) + each.counts[i]!);
  }
  return counts;
}

/** A triangle that points the way, its tip towards the price; a diamond where there is no way. */
function drawMark(ctx: CanvasRenderingContext2D, x: number, y: number, size: number, direction: string | null): void {
  ctx.beginPath();
  if (direction === null) {
    ctx.moveTo(x, y - size);
    ctx.lineTo(x + size, y);
    ctx.lineTo(x, y + size);
    ctx.lineTo(x - size, y);
  } else {
    const way = direction === 'bullish' ? 1 : -1;
    ctx.moveTo(x, y);
    ctx.lineTo(x + size, y + way * 1.6 * size);
    ctx.lineTo(x - size, y + way * 1.6 * size);
  }
  ctx.closePath();
  ctx.fill();
}
