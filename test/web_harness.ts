/** The web API on a port of its own, whose JSON answers are held against /api/openapi.json by another reader of schemas. */
import assert from 'node:assert/strict';
import type { ClickHouseClient } from '@clickhouse/client';
import Fastify from 'fastify';
import { createClickHouse } from '../scripts/lib/clickhouse.ts';
import { loadConfig } from '../scripts/lib/config.ts';
import { createLogger } from '../scripts/lib/log.ts';
import type { Route, WebContext } from '../scripts/lib/web/route.ts';
import { type Served, type ServeOptions, serve } from '../scripts/lib/web/server.ts';

type Schema = Record<string, unknown>;
export interface Operation {
  parameters: { name: string; in: string; required: boolean; schema: Schema }[];
  requestBody?: unknown;
  responses: Record<string, { content?: Record<string, { schema?: Schema }> }>;
}
export interface OpenApi {
  openapi: string;
  paths: Record<string, Record<string, Operation>>;
  components: { schemas: { Error: Schema } };
}
type Validate = ((value: unknown) => boolean) & { errors?: unknown };

export interface Got {
  status: number;
  headers: Headers;
  text: string;
  // biome-ignore lint/suspicious/noExplicitAny: a test says by what it asserts what an answer is
  body: any;
}

export class Web {
  private validators = new Map<string, Validate>();
  private compile: ((schema: Schema) => Validate) | null = null;
  document: OpenApi | null = null;

  private constructor(
    readonly context: WebContext,
    private readonly stop: AbortController,
    private readonly served: Served,
    private readonly client: ClickHouseClient,
  ) {}

  static async open(
    env: NodeJS.ProcessEnv,
    routes: readonly Route[],
    more: Partial<ServeOptions> = {},
    now?: () => number,
  ) {
    const config = loadConfig(env);
    const server = { url: config.clickhouseUrl, username: 'default', password: '' };
    const client = createClickHouse(server, 'test');
    const stop = new AbortController();
    const context: WebContext = {
      ...{ config, log: createLogger('web', 'silent'), clock: now ?? Date.now, client, stop: stop.signal },
    };
    const served = await serve({ context, routes, port: 0, ...more });
    const web = new Web(context, stop, served, client);
    web.document = (await web.get('/api/openapi.json')).body;
    return web;
  }

  get url(): string {
    return this.served.url;
  }

  /** Asks, and holds a JSON answer against the document. */
  async get(path: string, init: RequestInit = {}): Promise<Got> {
    const answer = await fetch(this.url + path, init);
    const text = await answer.text();
    const isJson = (answer.headers.get('content-type') ?? '').startsWith('application/json') && text !== '';
    const body: unknown = isJson ? JSON.parse(text) : null;
    if (isJson && this.document !== null && path.startsWith('/api/'))
      await this.conforms(path, init.method ?? 'GET', answer.status, body);
    return { status: answer.status, headers: answer.headers, text, body };
  }

  async ok(path: string) {
    const { status, body, text } = await this.get(path);
    assert.equal(status, 200, `${path}: ${text.slice(0, 300)}`);
    return body;
  }

  async close(): Promise<void> {
    this.stop.abort();
    await this.served.close();
    await this.client.close();
  }

  private async conforms(path: string, method: string, status: number, body: unknown): Promise<void> {
    const { paths, components } = this.document!;
    const asked = path.split('?')[0]!;
    const matches = Object.keys(paths).filter((each) =>
      new RegExp(`^${each.replace(/[.]/g, '\\.').replace(/\{\w+\}/g, '[^/]+')}$`).test(asked),
    );
    const template = matches.find((each) => !each.includes('{')) ?? matches[0];
    const operation = template === undefined ? undefined : paths[template]![method.toLowerCase()];
    const described = operation?.responses[status]?.content?.['application/json']?.schema;
    if (operation !== undefined)
      assert.ok(described !== undefined, `${method} ${template} does not say what ${status} is`);
    const schema = status >= 400 || described === undefined ? components.schemas.Error : described;
    if (operation === undefined && status < 400) return;
    const key = `${method} ${template} ${status}`;
    let validate = this.validators.get(key);
    if (validate === undefined) this.validators.set(key, (validate = (await this.compiler())(schema)));
    assert.ok(validate(body), `${key}: ${JSON.stringify(validate.errors)}: ${JSON.stringify(body).slice(0, 300)}`);
  }

  private async compiler(): Promise<(schema: Schema) => Validate> {
    if (this.compile !== null) return this.compile;
    const app = Fastify({
      ajv: { customOptions: { strict: false, coerceTypes: false, removeAdditional: false, useDefaults: false } },
    });
    let compile: ((schema: Schema) => Validate) | null = null;
    app.get('/', async (request) => {
      compile = (schema) => request.compileValidationSchema(schema) as Validate;
      return '';
    });
    await app.inject('/');
    this.compile = compile;
    return compile!;
  }
}
