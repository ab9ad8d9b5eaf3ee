/**
 * Routes over HTTP: parameters are validated, answers compressed, kept apart from other people's pages, and ended when nobody waits for them.
 *
 *   serve({ context, routes, port: 0 }): Promise<{ port, url, close() }>
 *
 * Besides the routes there are /api/openapi.json, what each service answers (/health, /metrics, /ping, /version), and the pages of scripts/web.
 * Errors are `{"error", "field"?}`. A stream that fails after its first byte is cut off, so that it is not taken for a whole one.
 */
import { createHash } from 'node:crypto';
import type { AddressInfo } from 'node:net';
import type { Readable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import fastifyCompress from '@fastify/compress';
import Fastify, { type FastifyInstance, type FastifyReply, type FastifyRequest } from 'fastify';
import { Histogram, type Registry } from 'prom-client';
import { z } from 'zod';
import {
  type Check,
  createRegistry,
  type HealthDocument,
  healthDocument,
  portTaken,
  statusAnswers,
} from '../service.ts';
import { accessTo } from './access.ts';
import { faultOf } from './faults.ts';
import { openApi } from './openapi.ts';
import { buildPages, type Pages } from './pages.ts';
import { Answer, type Asked, type Route, type WebContext, WebError } from './route.ts';

const MOST_BODY_BYTES = 65_536;
/** A name in a path that is longer is no symbol, and is told so. */
const MOST_NAME_LENGTH = 1000;
/** Below this compression makes an answer no faster. */
const COMPRESSED_FROM_BYTES = 1024;
/** Not for events: they would wait in the compressor. Parquet is compressed already. */
const COMPRESSED_TYPES = /^text\/(?!event-stream)|[/+-](json|ndjson|xml|javascript)(;|$)/;
/** What is under way at a stop has so long; who stops the script waits 10 s. */
const STOP_GRACE_MS = 3000;
/** A roll-up that is asked for again within this time is told again. */
const HEALTH_KEPT_MS = 1000;

const JSON_TYPE = 'application/json; charset=utf-8';
const HEADERS = {
  'content-security-policy':
    "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
  'x-content-type-options': 'nosniff',
  'referrer-policy': 'no-referrer',
  'cross-origin-resource-policy': 'same-origin',
  'cross-origin-opener-policy': 'same-origin',
};

export interface ServeOptions {
  context: WebContext;
  routes: readonly Route[];
  /** Default: that of the configuration; 0: any that is free. */
  port?: number;
  /** Default: that of the configuration. */
  host?: string;
  /** What /health rolls up besides this process. */
  checks?(): Promise<Record<string, Check>>;
  registry?: Registry;
  /** Default: ours, bundled at the start. */
  pages?: Pages;
}

export interface Served {
  port: number;
  url: string;
  /** Ends what is under way, at the latest after three seconds. */
  close(): Promise<void>;
}

/**
 * @throws OperatorError when the port is in use; UsageError when other machines are let in without a token; Error when a route is wrong
 */
export async function serve(options: ServeOptions): Promise<Served> {
  const { context, port = context.config.webPort, host = context.config.webHost } = options;
  const server = new WebServer(options, host);
  await server.prepare();
  try {
    await server.app.listen({ port, host });
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    throw code === 'EADDRINUSE' ? portTaken(port, 'WEB_HTTP_PORT') : error;
  }
  const { address, family, port: given } = server.app.server.address() as AddressInfo;
  const name = family === 'IPv6' ? `[${address}]` : address;
  return { port: given, url: `http://${name}:${given}`, close: () => server.close() };
}

class WebServer {
  readonly app: FastifyInstance = Fastify({
    bodyLimit: MOST_BODY_BYTES,
    exposeHeadRoutes: false,
    routerOptions: { maxParamLength: MOST_NAME_LENGTH },
    frameworkErrors: (error, _request, reply) => this.fail(error, null, reply),
  });
  private readonly access;
  /** One per request that is not answered yet. */
  private readonly open = new Set<AbortController>();
  private readonly registry: Registry;
  private readonly seconds: Histogram;
  private health: HealthDocument;
  private healthAt = Number.NEGATIVE_INFINITY;

  constructor(
    private readonly options: ServeOptions,
    host: string,
  ) {
    this.access = accessTo(host, options.context.config);
    this.registry = options.registry ?? createRegistry();
    this.seconds = new Histogram({
      name: 'marketprism_web_request_seconds',
      help: 'from a request to the end of its answer',
      labelNames: ['route', 'status'],
      buckets: [0.005, 0.02, 0.1, 0.5, 2, 10],
      registers: [this.registry],
    });
    this.health = this.documentOf({});
  }

  async prepare(): Promise<void> {
    const { app, options } = this;
    // Only what a browser does not send on its own is taken for a body.
    app.removeContentTypeParser('text/plain');
    app.setErrorHandler((error, request, reply) => this.fail(error, request, reply));
    app.setNotFoundHandler((request, reply) => this.fail(notFound(), request, reply));
    app.addHook('onRequest', async (request, reply) => {
      reply.headers(HEADERS);
      // Whoever keeps a service alive has no token.
      if (request.url !== '/ping') this.access.toRead(request.headers);
    });
    app.addHook('onResponse', async ({ routeOptions }, reply) => {
      this.seconds.observe({ route: routeOptions.url ?? 'none', status: reply.statusCode }, reply.elapsedTime / 1000);
    });
    await app.register(fastifyCompress, {
      encodings: ['br', 'gzip'],
      threshold: COMPRESSED_FROM_BYTES,
      customTypes: COMPRESSED_TYPES,
    });
    const described: Route = {
      ...{ method: 'GET', path: '/api/openapi.json', summary: 'This document.', answer: z.looseObject({}) },
      handle: async () => document,
    };
    const routes = [...options.routes, described];
    const document = openApi(routes);
    for (const route of routes) this.add(route);
    this.addFiles(options.pages ?? (await buildPages()));
    await app.ready();
    options.context.stop.addEventListener('abort', () => this.abortAll(), { once: true });
  }

  async close(): Promise<void> {
    this.abortAll();
    const closed = this.app.close();
    // Connections that nobody asks on are closed at once, and the others when they are answered, or their time is over.
    const end = performance.now() + STOP_GRACE_MS;
    while (this.open.size > 0 && performance.now() < end) await sleep(20);
    this.app.server.closeAllConnections();
    await closed;
  }

  private abortAll(): void {
    for (const each of this.open) each.abort(new WebError(503, 'the service stops'));
  }

  private add(route: Route): void {
    this.app.route({
      method: route.method === 'GET' ? ['GET', 'HEAD'] : route.method,
      url: route.path,
      onRequest: async (request) => {
        if (route.method !== 'GET') this.access.toWrite(request.headers);
      },
      handler: (request, reply) => this.answer(route, request, reply),
    });
  }

  private async answer(route: Route, request: FastifyRequest, reply: FastifyReply): Promise<unknown> {
    const { context } = this.options;
    const gone = this.goneOf(reply);
    const params = parsed(route.params, request.params, 'name');
    const query = parsed(route.query, request.query, 'parameter');
    const body = route.body === undefined ? undefined : parsed(route.body, request.body ?? {}, 'member');
    const { url, headers } = request;
    const asked: Asked<unknown, unknown> = { params, query, gone, body, url, authorization: headers.authorization };
    const made = await route.handle(context, asked);
    const maxAge = Math.floor(route.maxAge?.({ params, query }, context.clock()) ?? 0);
    // What may change is asked for again each time, and not sent again where it is the same.
    reply.header('cache-control', maxAge > 0 ? `private, max-age=${maxAge}` : 'private, no-cache');
    if (made instanceof Answer) return send(made, request, reply, gone);
    return send(new Answer(`${JSON.stringify(made)}\n`, JSON_TYPE), request, reply, gone);
  }

  /** Fires when the client goes before its answer is whole, or the service stops. */
  private goneOf(reply: FastifyReply): AbortSignal {
    const gone = new AbortController();
    this.open.add(gone);
    reply.raw.once('close', () => {
      this.open.delete(gone);
      if (!reply.raw.writableFinished) gone.abort(new WebError(499, 'the client has gone'));
    });
    if (this.options.context.stop.aborted) gone.abort(new WebError(503, 'the service stops'));
    return gone.signal;
  }

  /** What each service answers, and the pages. */
  private addFiles(pages: Pages): void {
    const { options, registry } = this;
    const answers = statusAnswers({ health: () => this.health, registry, log: options.context.log });
    this.app.route({
      method: ['GET', 'HEAD'],
      url: '/*',
      handler: async (request, reply) => {
        const path = request.url.split('?')[0]!;
        if (path === '/health' || path === '/status' || path === '/metrics') await this.lookAround();
        reply.header('cache-control', 'no-store');
        const answer = await answers(path);
        const gone = this.goneOf(reply);
        if (answer !== null) return send(new Answer(answer.body, answer.type, answer.status), request, reply, gone);
        const page = pages.at(path);
        if (page === null) throw notFound();
        reply.header('cache-control', 'private, no-cache');
        return send(page, request, reply, gone);
      },
    });
  }

  private async lookAround(): Promise<void> {
    if (performance.now() - this.healthAt < HEALTH_KEPT_MS) return;
    this.health = this.documentOf((await this.options.checks?.()) ?? {});
    this.healthAt = performance.now();
  }

  private documentOf(checks: Record<string, Check>): HealthDocument {
    return healthDocument('web', this.options.context.config.healthGraceSeconds, checks, {});
  }

  private fail(error: unknown, request: FastifyRequest | null, reply: FastifyReply): FastifyReply {
    const { context } = this.options;
    const { status, body, isOurs } = faultOf(error, context.config.clickhouseUrl);
    if (isOurs) context.log.error({ event: 'request_failed', path: request?.url.split('?')[0], status, err: error });
    if (status === 401) reply.header('www-authenticate', 'Basic realm="MarketPrism", charset="UTF-8"');
    // What was to be sent before it failed.
    for (const name of ['content-length', 'content-encoding', 'content-disposition', 'etag']) reply.removeHeader(name);
    const answer = reply.code(status).headers(HEADERS).header('cache-control', 'no-store').type(JSON_TYPE);
    return answer.send(request?.method === 'HEAD' ? undefined : `${JSON.stringify(body)}\n`);
  }
}

function notFound(): WebError {
  return new WebError(404, 'no such path: /api/openapi.json lists those of the API', 'path');
}

/** Sends a body with what a cache needs to know of it, or only that. */
function send(answer: Answer, request: FastifyRequest, reply: FastifyReply, gone: AbortSignal): FastifyReply {
  const { body, type, status, headers } = answer;
  reply
    .code(status)
    .type(type)
    .headers({ ...headers });
  if (typeof body !== 'string' && !Buffer.isBuffer(body)) return sendStream(body, request, reply, gone);
  if (status === 200) {
    // Weak: compressed or not, it is the same.
    const tag = `W/"${createHash('sha1').update(body).digest('base64url')}"`;
    reply.header('etag', tag);
    if (isSame(request.headers['if-none-match'], tag)) return reply.code(304).send();
  }
  if (request.method !== 'HEAD') return reply.send(body);
  return reply.header('content-length', Buffer.byteLength(body)).send();
}

function sendStream(body: Readable, request: FastifyRequest, reply: FastifyReply, gone: AbortSignal): FastifyReply {
  if (request.method === 'HEAD') {
    body.destroy();
    return reply.send();
  }
  // Events end by themselves when the service stops, and say so.
  const endsItself = String(reply.getHeader('content-type')).startsWith('text/event-stream');
  const end = () => {
    if (!endsItself || reply.raw.destroyed) body.destroy(gone.reason as Error);
  };
  if (gone.aborted) end();
  else gone.addEventListener('abort', end, { once: true });
  body.once('close', () => gone.removeEventListener('abort', end));
  return reply.send(body);
}

function isSame(header: string | undefined, tag: string): boolean {
  const given = (header ?? '').split(',').map((each) => each.trim());
  return given.some((each) => each === '*' || each === tag || `W/${each}` === tag);
}

/** @throws WebError 400 naming the first one that is wrong */
function parsed(schema: z.ZodType | undefined, given: unknown, what: string): unknown {
  const object = (given ?? {}) as Record<string, unknown>;
  const known = schema === undefined ? [] : schema instanceof z.ZodObject ? Object.keys(schema.shape) : null;
  const unknown = known === null ? undefined : Object.keys(object).find((name) => !known.includes(name));
  if (unknown !== undefined) throw new WebError(400, `no such ${what}`, unknown);
  if (what === 'parameter') {
    for (const [name, value] of Object.entries(object)) {
      if (typeof value !== 'string') throw new WebError(400, 'is given more than once', name);
      if (value === '') throw new WebError(400, 'is empty: leave it out', name);
    }
  }
  if (schema === undefined) return {};
  const result = schema.safeParse({ ...object });
  if (result.success) return result.data;
  const issue = result.error.issues[0]!;
  const field = issue.path.join('.') || (issue.code === 'unrecognized_keys' ? issue.keys[0] : undefined);
  throw new WebError(400, issue.message, field ?? what);
}
