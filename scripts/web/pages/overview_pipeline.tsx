/** The pipeline as a picture: where rows come from, what they pass, and what reads beside it. */
import type { OverviewAnswer, Stage, StageName } from '../../lib/web/overview_answer.ts';
import { bytes, figure, fixed, span, UNKNOWN } from '../ui/format.ts';
import type { Tone } from '../ui/parts.tsx';
import { texts } from '../ui/settings.ts';
import { useWidth } from './overview_size.ts';

const TEXT = texts({
  title: ['Pipeline', '数据管道'],
  exchanges: ['Exchanges', '交易所'],
  collector: ['Collector', '采集器'],
  nats: ['NATS JetStream', 'NATS JetStream'],
  store: ['Store', '入库'],
  hot: ['ClickHouse hot', 'ClickHouse 热库'],
  replicate: ['Replicate', '复制'],
  cold: ['ClickHouse cold', 'ClickHouse 冷库'],
  monitor: ['Monitor', '监控'],
  harvester: ['Harvester', '微观采集'],
  desk: ['Desk scripts', '交易台脚本'],
  correlation: ['Correlation', '相关性'],
  healthy: ['healthy', '正常'],
  degraded: ['degraded', '降级'],
  unhealthy: ['unhealthy', '异常'],
  away: ['away', '无应答'],
  unknown: ['not known', '未知'],
  rowsPerSecond: ['rows/s', '行/秒'],
  messagesPerSecond: ['msg/s', '消息/秒'],
  rows: ['rows', '行'],
  sockets: ['sockets', '连接'],
  waits: ['waits', '待发'],
  unread: ['unread', '未读'],
  holds: ['holds', '持有'],
  nothingHeld: ['holds nothing', '无持有'],
  behind: ['behind', '落后'],
  dataOld: ['data', '数据'],
  old: ['old', '前'],
  noData: ['no data yet', '暂无数据'],
  checks: ['asks all parts', '检查各环节'],
  allWell: ['Every stage answers and is healthy.', '各环节均有应答且状态正常。'],
});

export const STATUS_TONES = { healthy: 'good', degraded: 'warn', unhealthy: 'bad', away: 'bad' } as const;
export type Status = keyof typeof STATUS_TONES;
/** Told apart without colours, too. */
const GLYPHS: Record<Status, string> = { healthy: '✓', degraded: '!', unhealthy: '✕', away: '✕' };

type BoxName = StageName | 'exchanges';

interface Box {
  name: BoxName;
  status: Status | null;
  /** Two lines of figures, each with the name that it is found by. */
  figures: { name: string; text: string }[];
  /** Rows or messages flow out of it. */
  isFlowing: boolean;
}

const CHAIN: BoxName[] = ['exchanges', 'collector', 'nats', 'store', 'hot', 'replicate', 'cold'];
const READERS: BoxName[] = ['desk', 'correlation', 'harvester', 'monitor'];
/** Below this width the picture stands upright, px. */
const UPRIGHT_BELOW = 860;
const HEIGHT = 92;
const DOWN_GAP = 26;
const ROW_GAP = 46;

export function Pipeline({ overview }: { overview: OverviewAnswer }) {
  const [holder, width] = useWidth();
  const boxes = boxesOf(overview);
  const faults = overview.stages.filter(({ reason }) => reason !== null);
  const label = [...boxes.values()]
    .map(
      ({ name, status, figures }) =>
        `${TEXT[name]}: ${status === null ? TEXT.unknown : TEXT[status]}, ${figures.map(({ text }) => text).join(', ')}`,
    )
    .join('; ');
  return (
    <div class="pipeline" ref={holder}>
      {width === 0 ? null : <Picture boxes={boxes} width={width} label={`${TEXT.title}. ${label}`} />}
      {faults.length === 0 ? (
        <p class="note" data-figure="pipeline-faults">
          {TEXT.allWell}
        </p>
      ) : (
        <ul class="pipeline-faults" data-figure="pipeline-faults">
          {faults.map(({ name, status, reason }) => (
            <li key={name} data-stage={name}>
              <strong class={STATUS_TONES[status]}>
                {TEXT[name]}: {TEXT[status]}
              </strong>{' '}
              {reason}
            </li>
          ))}
        </ul>
      )}
    </div>
  );
}

interface Place {
  x: number;
  y: number;
  width: number;
}

function Picture({ boxes, width, label }: { boxes: Map<BoxName, Box>; width: number; label: string }) {
  const isUpright = width < UPRIGHT_BELOW;
  const { places, height, lines } = isUpright ? upright(width) : along(width);
  return (
    <svg width={width} height={height} viewBox={`0 0 ${width} ${height}`} role="img" aria-label={label}>
      <defs>
        <marker id="pipeline-arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">
          <path d="M0 0 L8 4 L0 8 z" class="pipeline-head" />
        </marker>
      </defs>
      {lines.map(({ from, to, path, isAside }) => (
        <path
          key={`${from} ${to}`}
          d={path}
          class={['pipeline-line', isAside ? 'aside' : '', !isAside && boxes.get(from)?.isFlowing ? 'flows' : '']
            .join(' ')
            .trim()}
          marker-end="url(#pipeline-arrow)"
        />
      ))}
      {[...boxes.values()].map((box) => (
        <BoxPicture key={box.name} box={box} place={places.get(box.name)!} />
      ))}
    </svg>
  );
}

function BoxPicture({ box, place: { x, y, width } }: { box: Box; place: Place }) {
  const { name, status, figures } = box;
  const tone: Tone = status === null ? 'plain' : STATUS_TONES[status];
  return (
    <g
      class={`pipeline-box ${tone}${status === 'away' ? ' away' : ''}`}
      transform={`translate(${x} ${y})`}
      data-stage={name}
    >
      <rect width={width} height={HEIGHT} rx="8" class="pipeline-frame" />
      <rect width="4" height={HEIGHT - 16} x="0" y="8" rx="2" class="pipeline-tone" />
      <text x="13" y="21" class="pipeline-name">
        {TEXT[name]}
      </text>
      <text x="13" y="39" class="pipeline-status">
        {status === null ? '?' : GLYPHS[status]}{' '}
        <tspan data-figure={`stage-${name}-status`}>{status === null ? TEXT.unknown : TEXT[status]}</tspan>
      </text>
      {figures.map(({ name: own, text }, index) => (
        <text key={own} x="13" y={60 + index * 19} class={index === 0 ? 'pipeline-figure' : 'pipeline-more'}>
          <tspan data-figure={own}>{text}</tspan>
        </text>
      ))}
    </g>
  );
}

interface Line {
  from: BoxName;
  to: BoxName;
  path: string;
  isAside?: boolean;
}
interface Layout {
  places: Map<BoxName, Place>;
  height: number;
  lines: Line[];
}

/** From left to right, with the readers below. */
function along(width: number): Layout {
  const gap = Math.max(28, Math.min(48, width / 34));
  const box = (width - gap * (CHAIN.length - 1)) / CHAIN.length;
  const places = new Map<BoxName, Place>();
  for (const [i, name] of CHAIN.entries()) places.set(name, { x: i * (box + gap), y: 0, width: box });
  const below = HEIGHT + ROW_GAP;
  // Each stands under what it reads: the desk and the correlations ask the exchanges themselves.
  for (const [name, column] of [
    ['desk', 0],
    ['correlation', 1],
    ['harvester', 2],
    ['monitor', 4],
  ] as const)
    places.set(name, { x: column * (box + gap), y: below, width: box });
  const middle = (name: BoxName) => places.get(name)!.x + box / 2;
  const lines: Line[] = CHAIN.slice(1).map((to, i) => {
    const from = CHAIN[i]!;
    return { from, to, path: `M${places.get(from)!.x + box} ${HEIGHT / 2} H${places.get(to)!.x - 2}` };
  });
  const down = (from: BoxName, to: BoxName) => ({
    ...{ from, to, isAside: true },
    path: `M${middle(from)} ${HEIGHT} V${HEIGHT + ROW_GAP / 2} H${middle(to)} V${below - 2}`,
  });
  lines.push(down('exchanges', 'desk'), down('exchanges', 'correlation'), down('nats', 'harvester'));
  for (const from of ['hot', 'cold'] as const) lines.push(down(from, 'monitor'));
  return { places, lines, height: below + HEIGHT };
}

/** From top to bottom, with the readers in two columns at the end. */
function upright(width: number): Layout {
  const places = new Map<BoxName, Place>();
  for (const [i, name] of CHAIN.entries()) places.set(name, { x: 0, y: i * (HEIGHT + DOWN_GAP), width });
  const below = CHAIN.length * (HEIGHT + DOWN_GAP) + 8;
  const half = (width - 12) / 2;
  for (const [i, name] of READERS.entries())
    places.set(name, { x: (i % 2) * (half + 12), y: below + Math.floor(i / 2) * (HEIGHT + 12), width: half });
  const lines = CHAIN.slice(1).map((to, i) => ({
    ...{ from: CHAIN[i]!, to },
    path: `M${width / 2} ${places.get(CHAIN[i]!)!.y + HEIGHT} V${places.get(to)!.y - 2}`,
  }));
  return { places, lines, height: below + 2 * HEIGHT + 12 };
}

function boxesOf({ stages, exchanges, broker, tiers, outbox }: OverviewAnswer): Map<BoxName, Box> {
  const out = new Map<BoxName, Box>();
  const add = (name: BoxName, status: Status | null, isFlowing: boolean, first: string, second: string | null) =>
    out.set(name, {
      ...{ name, status, isFlowing },
      figures: [
        { name: `stage-${name}-rate`, text: first },
        ...(second === null ? [] : [{ name: `stage-${name}-lag`, text: second }]),
      ],
    });
  const known = exchanges.filter(({ status }) => status !== null);
  const sum = (member: 'sockets' | 'connected') =>
    known.some((each) => each[member] === null) ? null : known.reduce((total, each) => total + each[member]!, 0);
  const worst = known.some(({ status }) => status === 'unhealthy')
    ? 'unhealthy'
    : known.some(({ status }) => status === 'degraded')
      ? 'degraded'
      : known.length < exchanges.length
        ? null
        : 'healthy';
  const healthy = known.filter(({ status }) => status === 'healthy').length;
  const rates = exchanges.map(({ rate }) => rate);
  add(
    'exchanges',
    worst,
    rates.some((rate) => (rate ?? 0) > 0),
    known.length === 0 ? UNKNOWN : `${healthy} / ${exchanges.length} ${TEXT.healthy}`,
    known.length === 0 ? UNKNOWN : `${figure(sum('connected'))} / ${figure(sum('sockets'))} ${TEXT.sockets}`,
  );
  for (const stage of stages) {
    const { name, status, rate } = stage;
    const [first, second] = figuresOf(stage, { broker, tiers, outbox });
    add(name, status, (rate ?? 0) > 0, first, second);
  }
  return out;
}

function figuresOf(
  { name, status, rate, lag_ms }: Stage,
  { broker, tiers, outbox }: Pick<OverviewAnswer, 'broker' | 'tiers' | 'outbox'>,
): [string, string | null] {
  const rows = `${perSecond(rate)} ${TEXT.rowsPerSecond}`;
  switch (name) {
    case 'collector':
      return [rows, `${bytes(outbox.waiting_bytes)} ${TEXT.waits}`];
    case 'nats':
      return [`${perSecond(rate)} ${TEXT.messagesPerSecond}`, `${figure(broker.unread)} ${TEXT.unread}`];
    case 'store':
      return [rows, lag_ms === 0 ? TEXT.nothingHeld : `${TEXT.holds} ${span(lag_ms)}`];
    case 'hot':
    case 'cold':
      return [`${figure(tiers[name]?.rows)} ${TEXT.rows}`, bytes(tiers[name]?.bytes)];
    case 'replicate':
      return [rows, `${span(lag_ms)} ${TEXT.behind}`];
    case 'monitor':
      return [status === 'away' ? UNKNOWN : TEXT.checks, null];
    default:
      return [lag_ms === null ? TEXT.noData : `${TEXT.dataOld} ${span(lag_ms)} ${TEXT.old}`, null];
  }
}

/** Whole where that says enough. */
export function perSecond(rate: number | null): string {
  return rate === null ? UNKNOWN : fixed(rate, rate !== 0 && rate < 10 ? 2 : 0);
}
