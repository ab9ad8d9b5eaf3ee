/** `/api/monitoring/*`: passed on to monitor.ts, which judges what it is sent. */
import { z } from 'zod';
import { ACKNOWLEDGE } from '../alerts.ts';
import { LIMITS } from '../checks/limits.ts';
import { DEPTHS } from '../checks/round.ts';
import { POSTED_EVENT } from '../told_events.ts';
import { limit, offset } from './parameters.ts';
import { Answer, type Asked, type Route, route, type WebContext, WebError } from './route.ts';

/** A round takes its time, and receivers of a test alert are tried three times. */
const TIMEOUT_MS = 120_000;
const ANSWER = z.looseObject({});

async function pass(method: Route['method'], context: WebContext, asked: Asked<unknown, unknown>): Promise<Answer> {
  const { url, authorization, body, gone } = asked;
  const { monitorPort } = context.config;
  const timeout = AbortSignal.timeout(TIMEOUT_MS);
  try {
    const answer = await fetch(`http://127.0.0.1:${monitorPort}${url}`, {
      method,
      redirect: 'manual',
      headers: {
        ...(authorization === undefined ? {} : { authorization }),
        ...(body === undefined ? {} : { 'content-type': 'application/json' }),
      },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      signal: AbortSignal.any([gone, timeout]),
    });
    const type = answer.headers.get('content-type') ?? 'application/json';
    return new Answer(Buffer.from(await answer.arrayBuffer()), type, answer.status);
  } catch (error) {
    if (gone.aborted) throw gone.reason;
    const { cause, name } = error as Error & { cause?: { code?: string } };
    throw new WebError(502, `monitor.ts on port ${monitorPort} does not answer: ${cause?.code ?? name}`);
  }
}

function passed(made: Omit<Route, 'handle'>): Route {
  const { method, path } = made;
  return route({
    ...made,
    path: `/api/monitoring${path}`,
    answer: ANSWER,
    handle: (context, asked) => pass(method, context, asked),
  });
}

export const MONITORING_ROUTES: Route[] = [
  passed({
    ...{ method: 'POST', path: '/data-consistency/check', summary: 'Runs a round of checks, and answers with it.' },
    body: z.strictObject({ type: z.enum(DEPTHS).optional() }),
  }),
  passed({ method: 'GET', path: '/data-consistency/metrics', summary: 'Rows and completeness by stream.' }),
  passed({
    ...{ method: 'GET', path: '/data-consistency/rounds', summary: 'Rounds of checks, the newest first.' },
    query: z.strictObject({ limit: limit(20, 500), offset }),
  }),
  passed({ method: 'GET', path: '/health', summary: 'The last verdict, completeness, standing alerts.' }),
  passed({
    ...{ method: 'GET', path: '/alerts', summary: 'Alerts with their history.' },
    query: z.strictObject({
      state: z.enum(['standing', 'over', 'all']).default('all'),
      limit: limit(100, 1000),
      offset,
    }),
  }),
  passed({
    ...{ method: 'POST', path: '/alerts/:id/acknowledge' },
    summary: 'Somebody knows of a standing alert: while it gets no worse, nobody is told of it again.',
    params: z.strictObject({
      id: z
        .string()
        .regex(/^[0-9a-f]{16}$/, 'takes the fingerprint of an alert')
        .meta({ description: 'The alert’s fingerprint.' }),
    }),
    body: ACKNOWLEDGE,
  }),
  passed({ method: 'DELETE', path: '/alerts', summary: 'Forgets all alerts: what still stands is told again.' }),
  passed({ method: 'GET', path: '/thresholds', summary: 'The limits of checks and alerts.' }),
  passed({ method: 'PUT', path: '/thresholds', summary: 'Sets limits; what is absent stays.', body: changedLimits() }),
  passed({ method: 'POST', path: '/test-alert', summary: 'Sends a test, and answers whom it reached.' }),
  passed({ method: 'POST', path: '/events', summary: 'Tells people of something, once per id.', body: POSTED_EVENT }),
];

/** Without defaults: what is absent must stay as it is. */
function changedLimits() {
  const unwrapped = Object.entries(LIMITS.shape).map(([name, schema]) => {
    const inner = schema instanceof z.ZodDefault ? (schema.unwrap() as z.ZodType) : (schema as z.ZodType);
    return [name, inner.optional()];
  });
  return z.strictObject(Object.fromEntries(unwrapped) as Record<string, z.ZodType>);
}
