/** `/api/soak/*`: reports of soak runs as soak.ts keeps them. One that is damaged is told, and hides no other; long samples keep their peaks. */
import { type Dirent, readdirSync, readFileSync, type Stats, statSync } from 'node:fs';
import { z } from 'zod';
import {
  type FlowMetric,
  PROCESS_METRICS,
  reportPath,
  SOAK_REPORT,
  type SoakReport,
  soakRoot,
} from '../soak/report.ts';
import { keypoints } from './keypoints.ts';
import { limit, offset, wholeNumber } from './parameters.ts';
import { type Route, route, type WebContext, WebError } from './route.ts';

/** A week of minutes of twenty processes is a tenth of it. */
const MOST_BYTES = 128 * 2 ** 20;
/** Reports that are kept as they were read; of the others the head is. */
const MOST_KEPT = 3;
/** A run that has written nothing for so many samples is shown as quiet: it may be dead. */
const QUIET_SAMPLES = 3;
const ID = /^[\w.-]{1,80}$/;

const figure = z.number().nullable();
const { plan, criteria, memory, checkpoints, tables, ledger, stops, problems, machine } = SOAK_REPORT.shape;

const HEAD = z.object({
  id: z.string(),
  state: z.enum(['running', 'ended', 'damaged']),
  is_quiet: z.boolean().describe('It goes on, and has written nothing for three samples.'),
  error: z.string().nullable().describe('Why it is damaged, or why it ended early.'),
  verdict: SOAK_REPORT.shape.verdict.nullable().describe('null: it is damaged.'),
  ...{ began: figure, ended: figure, written: figure, duration_ms: figure, for_ms: figure },
  ...{ mode: z.string().nullable(), code: z.string().nullable(), host: z.string().nullable() },
  criteria: z.object({ passed: z.number(), failed: z.number(), incomplete: z.number() }),
  samples: figure,
  samples_due: figure,
  samples_missing: figure,
});
export type SoakHead = z.infer<typeof HEAD>;

const LIST = z.object({ total_count: z.number(), count: z.number(), data: z.array(HEAD) });
export type SoakList = z.infer<typeof LIST>;

/** What is shown in one chart, and so has the same moments. */
const FLOW_GROUPS = {
  volume: ['rows', 'errors'],
  latency: ['latency_p50_ms', 'latency_p99_ms'],
  cache: ['cache_hit_rate', 'cache_staleness_ms'],
} as const satisfies Record<string, readonly FlowMetric[]>;
type FlowGroup = keyof typeof FLOW_GROUPS;
const GROUP_NAMES = Object.keys(FLOW_GROUPS) as FlowGroup[];

const CHART = z.object({
  times: z.array(z.number()).describe('ms; fewer than the samples are where those are many, and peaks are among them.'),
  series: z.array(z.object({ name: z.string(), values: z.array(figure) })),
});
export type SoakChart = z.infer<typeof CHART>;
const charts = <Name extends string>(names: readonly Name[]) =>
  z.object(Object.fromEntries(names.map((name) => [name, CHART])) as Record<Name, typeof CHART>);

const DETAIL = HEAD.extend({
  plan,
  criteria_list: criteria,
  memory,
  checkpoints,
  tables,
  ledger,
  stops,
  problems,
  machine,
  restarts: z.array(z.object({ name: z.string(), restarts: z.number() })),
  processes: charts(PROCESS_METRICS),
  flow: charts(GROUP_NAMES),
});
export type SoakDetail = z.infer<typeof DETAIL>;

type Charts = Pick<SoakDetail, 'processes' | 'flow'>;
type Read = { report: SoakReport } | { error: string };
type Head = Omit<SoakHead, 'is_quiet'> & { sample_ms: number | null };
interface Known {
  /** Of the file: another one is read anew. */
  stamp: string;
  head: Head;
  read: Read | null;
  /** Its samples as they were shown last, and with how many points. */
  drawn: { points: number; charts: Charts } | null;
}
const caches = new WeakMap<WebContext, Map<string, Known>>();

/** What is known of a run, read anew when its file is another one. @returns null when there is no such run */
function look(context: WebContext, id: string): Known | null {
  const { dataDir } = context.config;
  let cache = caches.get(context);
  if (cache === undefined) caches.set(context, (cache = new Map()));
  const path = reportPath(dataDir, id);
  const stat = statSync(path, { throwIfNoEntry: false });
  if (stat === undefined) {
    cache.delete(id);
    return null;
  }
  const stamp = `${stat.ino} ${stat.size} ${stat.mtimeMs}`;
  const known = cache.get(id);
  const own = known?.stamp === stamp ? known : remember(id, stamp, read(path, id, stat));
  cache.set(id, own);
  return own;
}

function remember(id: string, stamp: string, own: Read): Known {
  return { stamp, head: headOf(id, own), read: own, drawn: null };
}

function read(path: string, id: string, { size }: Stats): Read {
  if (size > MOST_BYTES) return { error: `report.json has ${size} bytes: too long to be a report` };
  try {
    const parsed = SOAK_REPORT.safeParse(JSON.parse(readFileSync(path, 'utf8')));
    if (!parsed.success) {
      const { path: member, message } = parsed.error.issues[0]!;
      return { error: `report.json: ${[member.join('.'), message].filter(Boolean).join(': ')}` };
    }
    return parsed.data.id === id ? { report: parsed.data } : { error: `report.json: id: is ${parsed.data.id}` };
  } catch (error) {
    if (error instanceof SyntaxError) return { error: `report.json is no JSON: ${error.message.split('\n')[0]}` };
    throw error;
  }
}

function headOf(id: string, own: Read): Head {
  if ('error' in own) {
    const unknown = { began: null, ended: null, written: null, duration_ms: null, for_ms: null, verdict: null };
    return {
      ...{ id, state: 'damaged', error: own.error, ...unknown, mode: null, code: null, host: null },
      criteria: { passed: 0, failed: 0, incomplete: 0 },
      ...{ samples: null, samples_due: null, samples_missing: null, sample_ms: null },
    };
  }
  const { report } = own;
  const { began, ended, written, duration_ms, verdict, error, code, host, samples_due, samples_missing } = report;
  const { for_ms, mode, sample_ms } = report.plan;
  const of = (wanted: string) => report.criteria.filter((each) => each.verdict === wanted).length;
  return {
    ...{ id, state: ended === null ? 'running' : 'ended', error, verdict, began, ended, written, duration_ms, for_ms },
    ...{ mode, code, host, samples: report.times.length, samples_due, samples_missing, sample_ms },
    criteria: { passed: of('passed'), failed: of('failed'), incomplete: of('incomplete') },
  };
}

/** Whether a run is quiet is seen by the clock, and not by its file. */
function shown({ sample_ms, ...head }: Head, now: number): SoakHead {
  const isLate = sample_ms !== null && head.written !== null && now - head.written > QUIET_SAMPLES * sample_ms;
  return { ...head, is_quiet: head.state === 'running' && isLate };
}

/** Names of runs, as far as they can be some. */
function runs(dataDir: string): string[] {
  let entries: Dirent[];
  try {
    entries = readdirSync(soakRoot(dataDir), { withFileTypes: true });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw error;
  }
  return entries.filter((each) => each.isDirectory() && ID.test(each.name)).map(({ name }) => name);
}

function heads(context: WebContext): SoakHead[] {
  const now = context.clock();
  const all = runs(context.config.dataDir).map((id) => {
    const known = look(context, id);
    // Its head is all that a list needs.
    if (known?.drawn === null) known.read = null;
    return shown(known?.head ?? headOf(id, { error: 'there is no report.json' }), now);
  });
  // What is damaged has no time, and is not to be overlooked.
  const place = ({ began }: SoakHead) => began ?? Number.POSITIVE_INFINITY;
  return all.sort((one, other) => place(other) - place(one) || (one.id < other.id ? 1 : -1));
}

function detail(context: WebContext, id: string, points: number): SoakDetail {
  let known = look(context, id);
  if (known !== null && known.read === null) {
    caches.get(context)!.delete(id);
    known = look(context, id);
  }
  if (known === null || known.read === null) throw new WebError(404, 'there is no such run', 'id');
  if ('error' in known.read) throw new WebError(500, `the report of ${id} is damaged: ${known.read.error}`);
  const { report } = known.read;
  const { tables: counted, ledger: balance, stops: stopped, problems: worth, machine: host } = report;
  if (known.drawn?.points !== points) known.drawn = { points, charts: chartsOf(report, points) };
  // Taken out and put in again: the one that was asked for last is the last to go.
  const cache = caches.get(context)!;
  cache.delete(id);
  cache.set(id, known);
  const kept = [...cache.values()].filter(({ drawn }) => drawn !== null);
  for (const each of kept.slice(0, -MOST_KEPT)) [each.read, each.drawn] = [null, null];
  return {
    ...shown(known.head, context.clock()),
    ...{ plan: report.plan, criteria_list: report.criteria, memory: report.memory, checkpoints: report.checkpoints },
    ...{ tables: counted, ledger: balance, stops: stopped, problems: worth, machine: host },
    restarts: report.processes.map(({ name, restarts }) => ({ name, restarts })),
    ...known.drawn.charts,
  };
}

/** What belongs together is drawn at the same moments, those at which something stands out among them. */
function chartsOf(report: SoakReport, points: number): Charts {
  const chart = (series: SoakChart['series']): SoakChart => {
    const chosen = keypoints(series.length === 0 ? [report.times] : series.map((each) => each.values), points);
    return {
      times: chosen.map((i) => report.times[i]!),
      series: series.map(({ name, values }) => ({ name, values: chosen.map((i) => values[i] ?? null) })),
    };
  };
  const all = <Name extends string>(names: readonly Name[], of: (name: Name) => SoakChart['series']) =>
    Object.fromEntries(names.map((name) => [name, chart(of(name))])) as Record<Name, SoakChart>;
  return {
    processes: all(PROCESS_METRICS, (metric) =>
      report.processes.map((each) => ({ name: each.name, values: each[metric] })),
    ),
    flow: all(GROUP_NAMES, (group) => FLOW_GROUPS[group].map((name) => ({ name, values: report.flow[name] }))),
  };
}

export const SOAK_ROUTES: Route[] = [
  route({
    ...{ method: 'GET', path: '/api/soak/reports', summary: 'Soak runs, the newest first, damaged ones with why.' },
    query: z.strictObject({ limit: limit(50, 500), offset }),
    answer: LIST,
    async handle(context, { query }): Promise<SoakList> {
      const all = heads(context);
      const data = all.slice(query.offset, query.offset + query.limit);
      return { total_count: all.length, count: data.length, data };
    },
  }),
  route({
    ...{ method: 'GET', path: '/api/soak/reports/:id' },
    summary: 'A soak run: criteria, memory slopes, checkpoints, and its samples as charts.',
    params: z.strictObject({ id: z.string().regex(ID, 'takes the name of a run') }),
    query: z.strictObject({ points: wholeNumber(10, 20_000).default(1500) }),
    answer: DETAIL,
    handle: async (context, { params, query }): Promise<SoakDetail> => detail(context, params.id, query.points),
  }),
];
