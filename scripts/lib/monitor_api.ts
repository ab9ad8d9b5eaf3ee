/** The monitor over HTTP: `/api/monitoring/*`, and what each service answers. Reads are open on loopback, writes need the token. */
import { createHash, timingSafeEqual } from 'node:crypto';
import Fastify, { type FastifyInstance, type FastifyReply, type FastifyRequest } from 'fastify';
import { z } from 'zod';
import { ACKNOWLEDGE } from './alerts.ts';
import { type Coverage, completenessOf } from './checks/coverage.ts';
import { LIMITS } from './checks/limits.ts';
import { DEPTHS } from './checks/round.ts';
import type { Monitor, ShownRound } from './monitor.ts';
import { portTaken, type StatusOptions, statusAnswers } from './service.ts';
import { POSTED_EVENT } from './told_events.ts';

const MOST_BODY_BYTES = 65_536;

const wholeNumber = (min: number, max: number) => z.coerce.number().int().min(min).max(max);
const CHECK_BODY = z.strictObject({ type: z.enum(DEPTHS).default('quick') });
const THRESHOLDS_BODY = LIMITS.partial();
const ALERTS_QUERY = z.strictObject({
  state: z.enum(['standing', 'over', 'all']).default('all'),
  limit: wholeNumber(1, 1000).default(100),
  offset: wholeNumber(0, 1_000_000).default(0),
});
const ROUNDS_QUERY = z.strictObject({ limit: wholeNumber(1, 500).default(20), offset: wholeNumber(0, 500).default(0) });

/** A request that is not understood, or is about what there is not: answered with the member that is wrong. */
class BadRequest extends Error {
  constructor(
    readonly field: string | null,
    message: string,
    readonly status: 400 | 404 = 400,
  ) {
    super(message);
  }
}

export interface ApiOptions extends StatusOptions {
  monitor: Monitor;
  /** Absent: writes answer 403. */
  token: string | undefined;
  port: number;
}

/** Listens on 127.0.0.1. @throws OperatorError when the port is in use */
export async function serveMonitor(options: ApiOptions): Promise<FastifyInstance> {
  const app = Fastify({ bodyLimit: MOST_BODY_BYTES });
  // Only what a browser does not send on its own is taken for a body.
  app.removeContentTypeParser('text/plain');
  app.setErrorHandler((error: Error & { statusCode?: number }, _request, reply) => {
    if (error instanceof BadRequest) return reply.code(error.status).send({ error: error.message, field: error.field });
    const status = error.statusCode ?? 500;
    if (status >= 500) options.log.error({ event: 'request_failed', err: error });
    return reply.code(status).send({ error: error.message.split('\n')[0], field: null });
  });
  const answers = statusAnswers(options);
  app.setNotFoundHandler(async (request, reply) => {
    const answer = request.method === 'GET' ? await answers(request.url.split('?')[0]!) : null;
    if (answer !== null) return reply.code(answer.status).type(answer.type).send(answer.body);
    return reply.code(404).send({ error: 'no such path; README lists those of /api/monitoring', field: null });
  });
  app.addHook('onSend', async (_request, reply) => {
    reply.header('cache-control', 'no-store').header('x-content-type-options', 'nosniff');
  });
  addRoutes(app, options);
  try {
    await app.listen({ port: options.port, host: '127.0.0.1' });
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    throw code === 'EADDRINUSE' ? portTaken(options.port, 'MONITOR_HTTP_PORT') : error;
  }
  return app;
}

function addRoutes(app: FastifyInstance, { monitor, token }: ApiOptions): void {
  const base = '/api/monitoring';
  const writes = { onRequest: requireToken(token) };
  app.post(`${base}/data-consistency/check`, writes, async (request) => {
    const { type } = parsed(CHECK_BODY, request.body ?? {});
    return monitor.round(type, 'api');
  });
  app.get(`${base}/data-consistency/metrics`, async () => metricsOf(monitor));
  app.get(`${base}/data-consistency/rounds`, async (request) => {
    const { limit, offset } = parsed(ROUNDS_QUERY, request.query);
    const newest = [...monitor.rounds].reverse();
    return { total: newest.length, rounds: newest.slice(offset, offset + limit) };
  });
  app.get(`${base}/health`, async () => healthOf(monitor));
  app.get(`${base}/alerts`, async (request) => {
    const { state, limit, offset } = parsed(ALERTS_QUERY, request.query);
    const alerts = monitor.shownAlerts.filter((alert) => state === 'all' || alert.state === state);
    return { total: alerts.length, alerts: alerts.slice(offset, offset + limit) };
  });
  app.post<{ Params: { id: string } }>(`${base}/alerts/:id/acknowledge`, writes, async ({ params, body }) => {
    const alert = await monitor.acknowledge(params.id, parsed(ACKNOWLEDGE, body ?? {}));
    if (alert === null) throw new BadRequest('id', 'no alert that stands has this fingerprint', 404);
    return alert;
  });
  app.delete(`${base}/alerts`, writes, async () => ({ cleared: monitor.clearAlerts() }));
  app.get(`${base}/thresholds`, async () => monitor.limits);
  app.put(`${base}/thresholds`, writes, async (request) => {
    const changed = parsed(THRESHOLDS_BODY, request.body);
    // A member that is absent keeps its value, and not its default.
    const given = Object.entries(changed).filter(([name]) => Object.hasOwn(request.body as object, name));
    monitor.setLimits({ ...monitor.limits, ...Object.fromEntries(given) });
    return monitor.limits;
  });
  app.post(`${base}/test-alert`, writes, async () => monitor.test());
  app.post(`${base}/events`, writes, async (request) => monitor.post(parsed(POSTED_EVENT, request.body)));
}

/** @throws BadRequest naming the first member that is wrong */
function parsed<T>(schema: z.ZodType<T>, given: unknown): T {
  const result = schema.safeParse(given);
  if (result.success) return result.data;
  const issue = result.error.issues[0]!;
  const field = issue.path.join('.') || (issue.code === 'unrecognized_keys' ? issue.keys[0]! : null);
  throw new BadRequest(field, issue.message);
}

function requireToken(token: string | undefined) {
  const digest = (text: string) => createHash('sha256').update(text).digest();
  return async (request: FastifyRequest, reply: FastifyReply) => {
    if (token === undefined)
      return reply.code(403).send({ error: 'MARKETPRISM_API_TOKEN is not set: nothing may be changed', field: null });
    const given = /^Bearer (.+)$/.exec(request.headers.authorization ?? '')?.[1];
    // Digests are of one length, and tell nothing by how long the comparison takes.
    if (given === undefined || !timingSafeEqual(digest(given), digest(token)))
      return reply.code(401).send({ error: 'send Authorization: Bearer TOKEN', field: 'authorization' });
    return undefined;
  };
}

/** The newest round that counted rows, of the deepest there is in the last day: `full` rather than `quick`. */
function lastCounted({ rounds }: Monitor): ShownRound | null {
  const counted = rounds.filter(({ coverage, type }) => coverage !== null && type !== 'deep');
  return counted.findLast(({ type }) => type === 'full') ?? counted.at(-1) ?? null;
}

export type MonitorMetrics = ReturnType<typeof metricsOf>;
export type MonitorHealth = ReturnType<typeof healthOf>;

function metricsOf(monitor: Monitor) {
  const round = lastCounted(monitor);
  if (round === null) return { round: null, streams: [] as Coverage[] };
  const streams = round.coverage!;
  const sum = (member: 'hot' | 'cold' | 'missing') => streams.reduce((total, each) => total + each[member], 0);
  return {
    ...{ round: round.id, type: round.type, from: round.from, to: round.to },
    ...{ rows_hot: sum('hot'), rows_cold: sum('cold'), rows_missing: sum('missing') },
    completeness: completenessOf(streams),
    streams,
  };
}

function healthOf(monitor: Monitor) {
  const last = monitor.rounds.at(-1) ?? null;
  const { standing } = monitor;
  const bySeverity = { low: 0, medium: 0, high: 0, critical: 0 };
  for (const { severity } of standing) if (severity !== 'hint') bySeverity[severity] += 1;
  return {
    // Before the first round nothing is known, which is not healthy.
    status: last === null || monitor.fault !== null ? 'unchecked' : last.status,
    error: monitor.fault,
    completeness: last?.completeness ?? null,
    last_round: last === null ? null : { id: last.id, type: last.type, began: last.began, status: last.status },
    standing_alerts: {
      ...{ total: standing.length, ...bySeverity },
      acknowledged: standing.filter(({ acknowledged }) => acknowledged !== null).length,
    },
  };
}
