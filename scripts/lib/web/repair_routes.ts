/** `/api/repair/*`: what repair.ts did, what it would do, having it done and undone. It runs as itself, so that its own safety is the only one. */
import { z } from 'zod';
import { CHECKS } from '../checks/index.ts';
import { REPAIRS } from '../repair/kinds.ts';
import { DATA_TYPES, EXCHANGES } from '../rows.ts';
import { limit, offset } from './parameters.ts';
import { JOB_KINDS, type JobRecord, lineOf, planOf, RepairJobs } from './repair_jobs.ts';
import { REPAIR_HEAD, REPAIR_ID, REPAIR_STEP, RepairJournals } from './repair_journal.ts';
import { flagsOf, PLAN_BODY, PLAN_LINE, PLANNED, type PlanAsked, plannedOf } from './repair_plan.ts';
import { type Route, route, type WebContext, WebError } from './route.ts';

/** What is stored goes on: an older plan is not what would be done now. */
const PLAN_KEPT_MS = 15 * 60_000;
/** Steps of a journal that are given, the last ones. */
const MOST_STEPS = 500;

const text = z.string().nullable();
const figure = z.number().nullable();

const JOB = z.object({
  id: z.string(),
  kind: z.enum(JOB_KINDS),
  planned: PLANNED.nullable().describe('What a plan is about; null: of a rollback.'),
  asked: z.string().describe('The same as the flags of repair.ts.'),
  of: text.describe('The plan that is applied, or the repair that is undone.'),
  state: z.enum(['running', 'ended']),
  began: z.number(),
  ended: figure,
  exit_code: figure.describe(
    'Of repair.ts: 0 nothing (left) to mend, 1 something is, or could not be undone, 2 a table is not as it should be, 3 a server does not answer, 64 wrong usage. null: it runs, or how it ended is not known.',
  ),
  is_changed: z.boolean().describe('What is to be done is no longer what the plan said: nothing was done.'),
  message: text.describe('The one line that says what came of it.'),
  output: z.string().describe('What repair.ts printed, or the end of it.'),
  repair: text.describe('The repair that it made, or that it undoes.'),
  progress: z.object({ steps: z.number(), rows: z.number() }).nullable().describe('Of that repair, so far.'),
  plan: z
    .object({
      hash: z.string().describe('Whoever applies the plan sends it.'),
      rows: z.number(),
      lines: z.array(PLAN_LINE),
      expires: z.number().describe('Until then it can be applied, ms.'),
    })
    .nullable()
    .describe('null: it is none, is not ready, or failed.'),
});
export type RepairJob = z.infer<typeof JOB>;

const JOBS = z.object({ count: z.number(), data: z.array(JOB) });
export type RepairJobList = z.infer<typeof JOBS>;
const JOURNAL = z.object({ total_count: z.number(), count: z.number(), data: z.array(REPAIR_HEAD) });
export type RepairJournal = z.infer<typeof JOURNAL>;
const REPAIR = z.object({ repair: REPAIR_HEAD, steps: z.array(REPAIR_STEP) });
export type RepairDetail = z.infer<typeof REPAIR>;

const KINDS = z.object({
  kinds: z.array(
    z.object({
      name: z.string(),
      what: z.string(),
      only_named: z.boolean().describe('Never done unless it is named.'),
    }),
  ),
  checks: z.array(z.object({ name: z.string(), zh: z.string(), repairs: z.array(z.string()) })),
  exchanges: z.array(z.string()),
  types: z.array(z.string()),
});
export type RepairKinds = z.infer<typeof KINDS>;

const id = (what: string) => z.strictObject({ id: z.string().regex(REPAIR_ID, `takes the id of a ${what}`) });

interface Own {
  jobs: RepairJobs;
  journals: RepairJournals;
}
const owns = new WeakMap<WebContext, Own>();

function ownOf(context: WebContext): Own {
  let own = owns.get(context);
  if (own === undefined) {
    own = { jobs: new RepairJobs(context), journals: new RepairJournals(context.config) };
    owns.set(context, own);
  }
  return own;
}

function shown({ jobs, journals }: Own, record: JobRecord): RepairJob {
  const printed = jobs.printed(record);
  const { id: own, kind, planned, of, began, ended, exit_code, is_changed } = record;
  const plan = ended === null ? null : planOf(record, printed);
  const repair = kind === 'rollback' ? of : (/^repair (\S+)$/m.exec(printed.output)?.[1] ?? null);
  const head = repair === null ? null : journals.head(repair);
  return {
    ...{ id: own, kind, planned, asked: planned === null ? `--rollback=${of}` : flagsOf(planned).join(' '), of },
    ...{ state: ended === null ? 'running' : 'ended', began, ended, exit_code, is_changed },
    message: ended === null ? null : lineOf(record, printed),
    output: printed.output,
    repair,
    progress: head === null ? null : { steps: head.steps, rows: head.rows },
    plan: plan === null ? null : { ...plan, expires: ended! + PLAN_KEPT_MS },
  };
}

/** @throws WebError where the plan is none that can be applied */
function apply(context: WebContext, planId: string, hash: string): RepairJob {
  const own = ownOf(context);
  const record = own.jobs.get(planId);
  if (record === null || record.kind !== 'plan' || record.planned === null)
    throw new WebError(404, 'there is no such plan', 'id');
  const { plan } = shown(own, record);
  if (plan === null) throw new WebError(400, 'is a plan that is not ready, or failed', 'id');
  if (plan.hash !== hash) throw new WebError(400, 'is not that of the plan: look at it first', 'hash');
  if (!plan.lines.some(({ is_possible }) => is_possible)) throw new WebError(400, 'has nothing that can be done', 'id');
  if (context.clock() > plan.expires) throw new WebError(400, 'is too old: plan again', 'id');
  if (own.jobs.all.some(({ kind, of }) => kind === 'apply' && of === planId))
    throw new WebError(400, 'was applied: plan again', 'id');
  return shown(own, own.jobs.apply(record, record.planned, hash, plan.rows));
}

function rollback(context: WebContext, repair: string): RepairJob {
  const own = ownOf(context);
  const head = own.journals.head(repair);
  if (head === null) throw new WebError(404, 'there is no such repair', 'id');
  if (head.error !== null) throw new WebError(500, `the journal of ${repair} is damaged: ${head.error}`);
  if (head.is_exact === true) throw new WebError(400, 'is undone: all is as it was before it', 'id');
  return shown(own, own.jobs.rollback(repair));
}

export const REPAIR_ROUTES: Route[] = [
  route({
    ...{ method: 'GET', path: '/api/repair/kinds', summary: 'What can be mended, and of which checks.' },
    answer: KINDS,
    handle: async (): Promise<RepairKinds> => ({
      kinds: REPAIRS.map(({ name, what, onlyNamed }) => ({ name, what, only_named: onlyNamed ?? false })),
      checks: CHECKS.flatMap(({ name, zh, repairs }) => (repairs ? [{ name, zh, repairs: [...repairs] }] : [])),
      ...{ exchanges: [...EXCHANGES], types: [...DATA_TYPES] },
    }),
  }),
  route({
    ...{ method: 'GET', path: '/api/repair/journal', summary: 'Repairs that were made, the newest first.' },
    query: z.strictObject({ limit: limit(20, 200), offset }),
    answer: JOURNAL,
    async handle(context, { query }): Promise<z.infer<typeof JOURNAL>> {
      const { journals } = ownOf(context);
      const { ids } = journals;
      const data = ids.slice(query.offset, query.offset + query.limit).flatMap((each) => journals.head(each) ?? []);
      return { total_count: ids.length, count: data.length, data };
    },
  }),
  route({
    ...{ method: 'GET', path: '/api/repair/journal/:id', summary: 'A repair with its last 500 steps.' },
    params: id('repair'),
    answer: REPAIR,
    async handle(context, { params }): Promise<RepairDetail> {
      const { head, steps } = ownOf(context).journals.steps(params.id, MOST_STEPS);
      return { repair: head, steps };
    },
  }),
  route({
    ...{
      method: 'GET',
      path: '/api/repair/jobs',
      summary: 'Plans, applies and rollbacks asked for here, the newest first.',
    },
    query: z.strictObject({ limit: limit(10, 50) }),
    answer: JOBS,
    async handle(context, { query }): Promise<RepairJobList> {
      const own = ownOf(context);
      const data = own.jobs.all.slice(0, query.limit).map((record) => shown(own, record));
      return { count: data.length, data };
    },
  }),
  route({
    ...{ method: 'GET', path: '/api/repair/jobs/:id', summary: 'How far one of them is, and what came of it.' },
    params: id('job'),
    answer: JOB,
    async handle(context, { params }): Promise<RepairJob> {
      const own = ownOf(context);
      const record = own.jobs.get(params.id);
      if (record === null) throw new WebError(404, 'there is no such job', 'id');
      return shown(own, record);
    },
  }),
  route({
    ...{ method: 'POST', path: '/api/repair/plan' },
    summary:
      'Begins to look what would be mended, and changes nothing; the job that it answers has the plan when it has ended.',
    body: PLAN_BODY,
    answer: JOB,
    async handle(context, { body }): Promise<RepairJob> {
      const own = ownOf(context);
      return shown(own, own.jobs.plan(plannedOf(body as PlanAsked, context.clock())));
    },
  }),
  route({
    ...{ method: 'POST', path: '/api/repair/:id/apply' },
    summary:
      'Begins to do what a plan said, if that is still what is to be done, and not more; goes on when the client has gone.',
    params: id('plan'),
    body: z.strictObject({ hash: z.string().regex(/^[0-9a-f]{32}$/, 'takes the hash of the plan') }),
    answer: JOB,
    handle: async (context, { params, body }): Promise<RepairJob> =>
      apply(context, params.id, (body as { hash: string }).hash),
  }),
  route({
    ...{ method: 'POST', path: '/api/repair/:id/rollback' },
    summary: 'Begins to undo a repair, and only that; goes on when the client has gone.',
    params: id('repair'),
    answer: JOB,
    handle: async (context, { params }): Promise<RepairJob> => rollback(context, params.id),
  }),
];
