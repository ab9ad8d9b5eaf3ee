/**
 * Routes over HTTP: parameters are validated, answers compressed, kept apart from other people's pages, and ended when nobody waits for them.
 *
 *   serve({ context, routes, port: 0 }): Promise<{ port, url, close() }>
 *
 * Besides the routes there are /api/openapi.json, what each service answers (/health, /metrics, /ping, /version), and the pages of scripts/web.
 * Errors are `{"error", "field"?}`. A stream that fails after its first byte is cut off, so that it is not taken for a whole one.
 */
import { createHash } from 'node:crypto';
import type { AddressInfo, Socket } from 'node:net';
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
import { OpenRequests } from './open_requests.ts';
import { openApi, type WholeNumbers, wholeNumbersOf } from './openapi.ts';
import { buildPages, type Pages } from './pages.ts';
import { Answer, type Asked, type Route, type WebContext, WebError } from './route.ts';
import { refuseUnread } from './unread_requests.ts';
import { bodyOf, paramsOf, queryOf } from './validation.ts';

const MOST_BODY_BYTES = 65_536;
/** Of a request, not of its answer: at one of its next looks, each half minute, node closes the connection of who sends a byte now and then. */
const REQUEST_TIMEOUT_MS = 30_000;
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
/** What each service answers (service.ts). */
const STATUS_PATHS = new Set(['/health', '/status', '/metrics', '/ping', '/version']);
const READING = ['GET', 'HEAD'];

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
    requestTimeout: REQUEST_TIMEOUT_MS,
    // Whether a name is there is looked at with all else, so that its absence is answered as all else.
    http: { requireHostHeader: false },
    // As a proxy is asked: the same path.
    rewriteUrl: ({ url = '/' }) => url.replace(/^https?:\/\/[^/?#]*\/?/i, '/'),
    clientErrorHandler: (error, socket) => this.refuse(error, socket),
    routerOptions: { maxParamLength: MOST_NAME_LENGTH },
    frameworkErrors: (error, _request, reply) => this.fail(error, null, reply),
  });
  private readonly access;
  private readonly open = new OpenRequests();
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
      this.open.begin(request.raw, reply.raw);
      if (options.context.stop.aborted) this.abortAll();
      reply.headers(HEADERS);
      if (request.headers.host === undefined && request.raw.httpVersion !== '1.0')
        throw new WebError(400, 'HTTP/1.1 names the host that it asks', 'host');
      // Whoever keeps a service alive has no token.
      if (request.url !== '/ping') this.access.toRead(request.headers);
    });
    app.addHook('onResponse', async ({ routeOptions }, reply) => {
      this.seconds.observe({ route: routeOptions.url ?? 'none', status: reply.statusCode }, reply.elapsedTime / 1000);
    });
    await app.register(fastifyCompress, {
      encodings: ['br', 'gzip'],
      // Bodies are small, and one that unpacks to more is nothing that we want to find out.
      globalDecompression: false,
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
    const pages = options.pages ?? (await buildPages());
    this.addFiles(pages);
    this.refuseOtherMethods(routes, pages);
    // What it expects beside an answer is its own affair.
    app.server.on('checkExpectation', (request, response) => app.server.emit('request', request, response));
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
    this.open.abortAll(new WebError(503, 'the service stops'));
  }

  private add(route: Route): void {
    const numbers = wholeNumbersOf(route.query);
    this.app.route({
      method: methodsOf(route),
      url: route.path,
      onRequest: async (request) => {
        if (route.method !== 'GET') this.access.toWrite(request.headers);
      },
      handler: (request, reply) => this.answer(route, numbers, request, reply),
    });
  }

  private async answer(
    route: Route,
    numbers: WholeNumbers,
    request: FastifyRequest,
    reply: FastifyReply,
  ): Promise<unknown> {
    const { context } = this.options;
    const gone = this.open.goneOf(reply.raw);
    const params = paramsOf(route, request.params);
    const query = queryOf(route, numbers, request.query);
    const body = bodyOf(route, request.body);
    const { url, headers } = request;
    const asked: Asked<unknown, unknown> = { params, query, gone, body, url, authorization: headers.authorization };
    const made = await route.handle(context, asked);
    const maxAge = Math.floor(route.maxAge?.({ params, query }, context.clock()) ?? 0);
    // What may change is asked for again each time, and not sent again where it is the same.
    reply.header('cache-control', maxAge > 0 ? `private, max-age=${maxAge}` : 'private, no-cache');
    if (made instanceof Answer) return send(made, request, reply, gone);
    return send(new Answer(`${JSON.stringify(made)}\n`, JSON_TYPE), request, reply, gone);
  }

  /** What each service answers, and the pages. */
  private addFiles(pages: Pages): void {
    const { options, registry } = this;
    const answers = statusAnswers({ health: () => this.health, registry, log: options.context.log });
    this.app.route({
      method: READING,
      url: '/*',
      handler: async (request, reply) => {
        const path = pathOf(request);
        if (path === '/health' || path === '/status' || path === '/metrics') await this.lookAround();
        reply.header('cache-control', 'no-store');
        const answer = await answers(path);
        const gone = this.open.goneOf(reply.raw);
        if (answer !== null) return send(new Answer(answer.body, answer.type, answer.status), request, reply, gone);
        const page = pages.at(path);
        if (page === null) throw notFound();
        reply.header('cache-control', 'private, no-cache');
        return send(page, request, reply, gone);
      },
    });
  }

  /** A path that is there says what it can be asked. */
  private refuseOtherMethods(routes: readonly Route[], pages: Pages): void {
    const refuse = (url: string, allowed: string[], isThere: (path: string) => boolean) =>
      this.app.route({
        method: this.app.supportedMethods.filter((each) => !allowed.includes(each)),
        url,
        // Before its body, if any, is read.
        onRequest: async (request, reply) => {
          if (!isThere(pathOf(request))) throw notFound();
          reply.header('allow', allowed.join(', '));
          throw new WebError(405, `takes ${allowed.join(' or ')} only`, 'method');
        },
        handler: async () => undefined,
      });
    for (const path of new Set(routes.map((each) => each.path)))
      refuse(path, routes.filter((each) => each.path === path).flatMap(methodsOf), () => true);
    refuse('/*', READING, (path) => STATUS_PATHS.has(path) || pages.at(path) !== null);
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
    // Whatever failed since the client went, nobody waits for it, and it is no fault of ours.
    if (isOurs && !(request !== null && this.isGone(request, reply))) {
      const path = request === null ? null : pathOf(request);
      context.log.error({ event: 'request_failed', path, status, err: error });
    }
    if (status === 401) reply.header('www-authenticate', 'Basic realm="MarketPrism", charset="UTF-8"');
    // What was to be sent before it failed.
    for (const name of ['content-length', 'content-encoding', 'content-disposition', 'etag']) reply.removeHeader(name);
    const answer = reply.code(status).headers(HEADERS).header('cache-control', 'no-store').type(JSON_TYPE);
    return answer.send(request?.method === 'HEAD' ? undefined : `${JSON.stringify(body)}\n`);
  }

  private isGone({ raw }: FastifyRequest, reply: FastifyReply): boolean {
    return this.open.goneOf(reply.raw).aborted || (raw.destroyed && !raw.complete);
  }

  /** On a connection whose answers before it are under way, it would be taken for one of them. */
  private refuse(error: Error & { code?: string }, socket: Socket): void {
    if (!socket.writable || error.code === 'ECONNRESET' || this.open.isAnswering(socket)) socket.destroy();
    else refuseUnread(socket, error.code, HEADERS);
  }
}

function methodsOf({ method }: Route): string[] {
  return method === 'GET' ? READING : [method];
}

function pathOf({ url }: FastifyRequest): string {
  return url.split('?')[0]!;
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
