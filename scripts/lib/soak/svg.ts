/** A line chart as SVG: title, axes with units, legend. Pure text, shown by any browser and by hosts of Markdown. */

export interface Line {
  name: string;
  /** null: not known; the line has a gap there. */
  values: readonly (number | null)[];
  /** Against the axis at the right. */
  isRight?: boolean;
}

export interface Plot {
  title: string;
  /** ms after the beginning, ascending. */
  times: readonly number[];
  left: string;
  right?: string;
  lines: readonly Line[];
  /** Shaded, ms after the beginning. */
  spans?: readonly { from: number; to: number; name: string }[];
  /** A dashed level of the left axis. */
  limit?: { value: number; name: string };
}

const WIDTH = 960;
const PLOT = { left: 74, right: 884, top: 44, height: 300 };
const LEGEND_COLUMNS = 4;
const LEGEND_ROW = 18;
const TICKS = 5;
/** Paul Tol's bright scheme and darker ones of it: told apart also by those who see red and green alike. */
const COLOURS = ['#4477aa', '#ee6677', '#228833', '#b8860b', '#66ccee', '#aa3377', '#777777', '#000000'];
/** Where the colours are used up, the pattern changes. */
const DASHES = ['', '6 3', '2 3'];
const STEPS = [1, 2, 5, 10];

/** Round figures from at most `least` to at least `most`. */
export function ticksOf(least: number, most: number): number[] {
  const span = most > least ? most - least : Math.max(Math.abs(most), 1);
  const raw = span / TICKS;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = STEPS.find((each) => each * power >= raw)! * power;
  const first = Math.floor(least / step);
  const last = Math.ceil(Math.max(most, least + step / 2) / step);
  return Array.from({ length: last - first + 1 }, (_, i) => Number(((first + i) * step).toPrecision(12)));
}

interface Scale {
  ticks: number[];
  y(value: number): number;
}

function scaleOf(values: readonly number[]): Scale {
  const ticks = ticksOf(Math.min(0, ...values), Math.max(0, ...values));
  const [low, high] = [ticks[0]!, ticks.at(-1)!];
  return { ticks, y: (value) => PLOT.top + PLOT.height * (1 - (value - low) / (high - low)) };
}

/** The chart; where nothing is known it says so. */
export function svgOf(plot: Plot): string {
  const { title, times, lines, left, right, spans = [], limit } = plot;
  const end = times.at(-1) ?? 0;
  const x = (time: number) => PLOT.left + ((PLOT.right - PLOT.left) * time) / Math.max(end, 1);
  const known = (isRight: boolean) => [
    ...lines.filter((line) => (line.isRight ?? false) === isRight).flatMap(({ values }) => values.filter(isKnown)),
    ...(limit === undefined || isRight ? [] : [limit.value]),
  ];
  const scales = { left: scaleOf(known(false)), right: right === undefined ? null : scaleOf(known(true)) };
  const base = PLOT.top + PLOT.height;
  const height = base + 62 + LEGEND_ROW * Math.ceil(lines.length / LEGEND_COLUMNS);
  const body = [
    text(PLOT.left, 22, title, 'font-size="15" font-weight="600"'),
    ...spans.map(({ from, to, name }) => {
      const [start, stop] = [x(from), x(Math.min(to, end))];
      const box = `<rect x="${at(start)}" y="${PLOT.top}" width="${at(Math.max(stop - start, 1))}" height="${PLOT.height}" fill="#00000014"/>`;
      return `${box}${text(start + 2, PLOT.top + 12, name, 'fill="#666"')}`;
    }),
    ...axis(scales.left, left, 'left'),
    ...(scales.right === null ? [] : axis(scales.right, right!, 'right')),
    ...timeAxis(end, x, base),
    ...(limit === undefined ? [] : limitLine(limit, scales.left)),
    ...lines.map((line, i) => path(line, times, x, (line.isRight ? scales.right : scales.left) ?? scales.left, i)),
    ...legend(lines, base + 58),
    ...(lines.every(({ values }) => !values.some(isKnown))
      ? [text(WIDTH / 2, PLOT.top + 150, 'nothing measured', 'text-anchor="middle" fill="#666"')]
      : []),
  ];
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" font-family="system-ui, sans-serif" font-size="11" role="img" aria-label="${escaped(title)}">`,
    `<rect width="${WIDTH}" height="${height}" fill="#fff"/>`,
    ...body,
    '</svg>\n',
  ].join('\n');
}

function isKnown(value: number | null): value is number {
  return value !== null && Number.isFinite(value);
}

function axis({ ticks, y }: Scale, unit: string, side: 'left' | 'right'): string[] {
  const isLeft = side === 'left';
  const place = isLeft ? PLOT.left - 6 : PLOT.right + 6;
  const anchor = isLeft ? 'end' : 'start';
  const grid = (tick: number) =>
    `<path d="M${PLOT.left} ${at(y(tick))}H${PLOT.right}" stroke="#ddd" stroke-width="1"/>`;
  const middle = PLOT.top + PLOT.height / 2;
  const edge = isLeft ? 16 : WIDTH - 12;
  return [
    ...ticks.map(
      (tick) => `${isLeft ? grid(tick) : ''}${text(place, y(tick) + 4, figure(tick), `text-anchor="${anchor}"`)}`,
    ),
    text(edge, middle, unit, `text-anchor="middle" transform="rotate(-90 ${edge} ${at(middle)})"`),
  ];
}

function timeAxis(end: number, x: (time: number) => number, base: number): string[] {
  const [unit, name] =
    end >= 3 * 3_600_000 ? [3_600_000, 'hours'] : end >= 180_000 ? [60_000, 'minutes'] : [1000, 'seconds'];
  const ticks = ticksOf(0, end / unit).filter((tick) => tick * unit <= end);
  return [
    `<path d="M${PLOT.left} ${base}H${PLOT.right}" stroke="#888"/>`,
    ...ticks.map((tick) => text(x(tick * unit), base + 16, figure(tick), 'text-anchor="middle"')),
    text((PLOT.left + PLOT.right) / 2, base + 34, `${name} after the beginning`, 'text-anchor="middle"'),
  ];
}

function limitLine({ value, name }: NonNullable<Plot['limit']>, { y }: Scale): string[] {
  return [
    `<path d="M${PLOT.left} ${at(y(value))}H${PLOT.right}" stroke="#c00" stroke-dasharray="3 3"/>`,
    text(PLOT.right - 4, y(value) - 4, name, 'text-anchor="end" fill="#c00"'),
  ];
}

/** A line with gaps where nothing is known; a value between two gaps is a dot. */
function path(
  { values }: Line,
  times: readonly number[],
  x: (time: number) => number,
  { y }: Scale,
  i: number,
): string {
  let d = '';
  const dots: string[] = [];
  const style = styleOf(i);
  for (const [place, value] of values.entries()) {
    if (!isKnown(value)) continue;
    const point = `${at(x(times[place]!))} ${at(y(value))}`;
    const isBegin = !isKnown(values[place - 1] ?? null);
    d += `${isBegin ? 'M' : 'L'}${point}`;
    if (isBegin && !isKnown(values[place + 1] ?? null)) {
      const [cx, cy] = point.split(' ');
      dots.push(`<circle cx="${cx}" cy="${cy}" r="2" fill="${style.colour}"/>`);
    }
  }
  return `<path d="${d || 'M0 0'}" fill="none" stroke="${style.colour}" stroke-width="1.4"${style.dash}/>${dots.join('')}`;
}

function styleOf(i: number): { colour: string; dash: string } {
  const dash = DASHES[Math.floor(i / COLOURS.length) % DASHES.length]!;
  return { colour: COLOURS[i % COLOURS.length]!, dash: dash === '' ? '' : ` stroke-dasharray="${dash}"` };
}

function legend(lines: readonly Line[], top: number): string[] {
  const width = (WIDTH - PLOT.left) / LEGEND_COLUMNS;
  return lines.map(({ name, isRight }, i) => {
    const [left, y] = [PLOT.left + width * (i % LEGEND_COLUMNS), top + LEGEND_ROW * Math.floor(i / LEGEND_COLUMNS)];
    const { colour, dash } = styleOf(i);
    const sample = `<path d="M${at(left)} ${y - 4}h22" stroke="${colour}" stroke-width="2"${dash}/>`;
    return `${sample}${text(left + 28, y, isRight ? `${name} (right)` : name, '')}`;
  });
}

function text(x: number, y: number, content: string, attributes: string): string {
  return `<text x="${at(x)}" y="${at(y)}"${attributes === '' ? '' : ` ${attributes}`}>${escaped(content)}</text>`;
}

function at(value: number): string {
  return String(Math.round(value * 10) / 10);
}

function figure(value: number): string {
  const [shown, unit] =
    Math.abs(value) >= 1e6 ? [value / 1e6, ' M'] : Math.abs(value) >= 1e4 ? [value / 1e3, ' k'] : [value, ''];
  return `${Number(shown.toPrecision(6))}${unit}`;
}

function escaped(content: string): string {
  return content.replace(/[&<>"]/g, (each) => `&${{ '&': 'amp', '<': 'lt', '>': 'gt', '"': 'quot' }[each]};`);
}
