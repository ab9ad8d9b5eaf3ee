/** What a market's charts draw besides lines: candles, volumes, what is not known of them, and the two sides of a book. */
import uPlot from 'uplot';
import type { Candle } from '../../lib/web/market_candles.ts';
import { decimal, figure } from '../ui/format.ts';

/** Of the strip that says how much is known of each candle, CSS pixels. */
const STRIP = 5;
/** Share of a candle's time that its body is wide. */
const BODY = 0.72;

/** Of the axes on the left of prices and volumes, CSS pixels: up to 1,234,567.89. */
const AXIS_WIDTH = 84;

/** The candles that a chart shows, handed to its drawing as they change. */
export interface Shown {
  candles: readonly Candle[];
  stepMs: number;
}

/** Known: all trades; partly: some are known to be missing; unknown: nobody can tell; none: no trade is there, and nobody can tell why. */
export type Knowledge = 'known' | 'partly' | 'unknown';

export function knowledgeOf({ complete }: Candle): Knowledge {
  return complete === true ? 'known' : complete === false ? 'partly' : 'unknown';
}

interface Ink {
  up: string;
  down: string;
  partly: string;
  unknown: string;
}

function inkOf(plot: uPlot): Ink {
  const style = getComputedStyle(plot.root);
  const colour = (name: string) => style.getPropertyValue(name).trim();
  return { up: colour('--up'), down: colour('--down'), partly: colour('--warn'), unknown: colour('--muted') };
}

interface Slot {
  candle: Candle;
  index: number;
  left: number;
  width: number;
}

/** Each candle that is in sight, with its place in canvas pixels. */
function* slots(plot: uPlot, { candles, stepMs }: Shown): Generator<Slot> {
  const { min, max } = plot.scales.x!;
  if (min == null || max == null) return;
  for (const [index, candle] of candles.entries()) {
    if (candle.time + stepMs < min || candle.time > max) continue;
    const left = plot.valToPos(candle.time, 'x', true);
    yield { candle, index, left, width: plot.valToPos(candle.time + stepMs, 'x', true) - left };
  }
}

/** Inside the chart's own frame. */
function within(plot: uPlot, draw: (context: CanvasRenderingContext2D) => void): void {
  const { ctx: context, bbox } = plot;
  context.save();
  context.beginPath();
  context.rect(bbox.left, bbox.top, bbox.width, bbox.height);
  context.clip();
  draw(context);
  context.restore();
}

/** A candle stands from its begin to its end, so that the newest one needs room behind its time; and both panes begin at one place. */
function layOut(options: uPlot.Options, shown: { current: Shown }): void {
  options.axes![1]!.size = AXIS_WIDTH;
  options.scales!.x!.range = (_plot, min, max) => {
    const { candles, stepMs } = shown.current;
    const last = candles.at(-1)?.time ?? max;
    return [min, max < last ? max : last + stepMs];
  };
}

/** Candles of the values 1 to 4: open, high, low, close. */
export function candlePlugin(shown: { current: Shown }): uPlot.Plugin {
  return {
    opts: (_plot, options) => layOut(options, shown),
    hooks: {
      drawAxes: (plot) => within(plot, (context) => drawKnowledge(plot, context, shown.current)),
      draw: (plot) => within(plot, (context) => drawCandles(plot, context, shown.current)),
    },
  };
}

function drawCandles(plot: uPlot, context: CanvasRenderingContext2D, shown: Shown): void {
  const ink = inkOf(plot);
  const [opens, highs, lows, closes] = plot.data.slice(1) as (number | null)[][];
  const y = (value: number) => Math.round(plot.valToPos(value, 'left', true));
  for (const { candle, index, left, width } of slots(plot, shown)) {
    const [open, high, low, close] = [opens![index], highs![index], lows![index], closes![index]];
    if (open == null || high == null || low == null || close == null) continue;
    const middle = Math.round(left + width / 2);
    const wide = Math.max(Math.round(width * BODY), 1);
    context.fillStyle = close >= open ? ink.up : ink.down;
    context.fillRect(middle, y(high), Math.max(uPlot.pxRatio, 1), Math.max(y(low) - y(high), 1));
    const [top, bottom] = [y(Math.max(open, close)), y(Math.min(open, close))];
    const tall = Math.max(bottom - top, 1);
    const begin = middle - Math.floor(wide / 2);
    context.fillRect(begin, top, wide, tall);
    // Hollow in the colour of the warning: this is not all of it.
    if (candle.complete !== false || wide < 3) continue;
    context.strokeStyle = ink.partly;
    context.lineWidth = uPlot.pxRatio;
    context.strokeRect(begin - 0.5, top - 0.5, wide + 1, tall + 1);
  }
}

/** Below each candle of which not all is known a strip, and where nothing is there a shade over the whole height. */
function drawKnowledge(plot: uPlot, context: CanvasRenderingContext2D, shown: Shown): void {
  const ink = inkOf(plot);
  const { top, height } = plot.bbox;
  const strip = STRIP * uPlot.pxRatio;
  for (const { knowledge, isEmpty, left, right } of runs(plot, shown)) {
    context.fillStyle = ink[knowledge];
    if (isEmpty) {
      context.globalAlpha = knowledge === 'partly' ? 0.22 : 0.12;
      context.fillRect(left, top, right - left, height);
    }
    context.globalAlpha = knowledge === 'partly' ? 1 : 0.6;
    context.fillRect(left, top + height - strip, right - left, strip);
    context.globalAlpha = 1;
  }
}

interface Run {
  knowledge: 'partly' | 'unknown';
  isEmpty: boolean;
  left: number;
  right: number;
}

/** Candles side by side of which the same is known: drawn as one, they have no seams. */
function runs(plot: uPlot, shown: Shown): Run[] {
  const found: Run[] = [];
  for (const { candle, left, width } of slots(plot, shown)) {
    const knowledge = knowledgeOf(candle);
    // The one that is not over yet is no news.
    if (knowledge === 'known' || !candle.finished) continue;
    const isEmpty = candle.open === null;
    const last = found.at(-1);
    const [begin, end] = [Math.round(left), Math.round(left + width)];
    if (last?.right === begin && last.knowledge === knowledge && last.isEmpty === isEmpty) last.right = end;
    else found.push({ knowledge, isEmpty, left: begin, right: Math.max(end, begin + 1) });
  }
  return found;
}

/** Volumes of the value 1 as bars under the candles, in their colours. */
export function volumePlugin(shown: { current: Shown }): uPlot.Plugin {
  return {
    opts: (_plot, options) => layOut(options, shown),
    hooks: { draw: (plot) => within(plot, (context) => drawVolumes(plot, context, shown.current)) },
  };
}

function drawVolumes(plot: uPlot, context: CanvasRenderingContext2D, shown: Shown): void {
  const ink = inkOf(plot);
  const base = plot.valToPos(0, 'left', true);
  for (const { candle, index, left, width } of slots(plot, shown)) {
    const value = plot.data[1]![index];
    if (value == null || value === 0) continue;
    const wide = Math.max(Math.round(width * BODY), 1);
    const top = plot.valToPos(value, 'left', true);
    context.globalAlpha = 0.65;
    context.fillStyle = candle.complete === false ? ink.partly : isUp(candle) ? ink.up : ink.down;
    context.fillRect(Math.round(left + (width - wide) / 2), top, wide, base - top);
    context.globalAlpha = 1;
  }
}

function isUp({ open, close }: Candle): boolean {
  return Number(close) >= Number(open);
}

/** Series that only bound a band are not told one by one. */
export function quietBands(): uPlot.Plugin {
  return {
    hooks: {},
    opts: (_plot, options) => {
      for (const each of options.series) if (each.width === 0 && each.paths === undefined) each.class = 'quiet';
    },
  };
}

/** A book: its x is a price, and not a time. */
export function bookPlugin(words: { price(): string }): uPlot.Plugin {
  return {
    hooks: {},
    opts: (_plot, options) => {
      options.scales!.x!.time = false;
      const [x] = options.axes!;
      x!.values = (_self, splits) => splits.map((each) => figure(each));
      options.series[0] = {
        ...options.series[0],
        label: words.price(),
        value: (_self, price: number | null) => (price === null ? '–' : decimal(String(price))),
      };
      // Up to a bid there lies what is bid there and above it; up to an ask what is asked there and below.
      for (const [index, align] of [
        [1, -1],
        [2, 1],
      ] as const) {
        const side = options.series[index];
        if (side === undefined) continue;
        side.paths = uPlot.paths.stepped!({ align });
        side.fill = (plot) => `${sideColour(plot, index)}33`;
        side.stroke = (plot) => sideColour(plot, index);
      }
    },
  };
}

function sideColour(plot: uPlot, index: 1 | 2): string {
  return getComputedStyle(plot.root)
    .getPropertyValue(index === 1 ? '--up' : '--down')
    .trim();
}
