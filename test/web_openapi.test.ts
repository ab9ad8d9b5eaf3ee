/** The API held against its own description: by the official schema of OpenAPI, by what it answers, and by the README. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { request as httpRequest, type IncomingMessage } from 'node:http';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { Validator } from '@seriousme/openapi-schema-validator';
import { ROUTES } from '../scripts/web.ts';
import { READY_MS } from './pipeline.ts';
import { type Operation, Web } from './web_harness.ts';
import { Described } from './web_schemas.ts';
import { WebWorld } from './web_world.ts';

const README = join(import.meta.dirname, '..', 'README.md');
const METHODS = ['GET', 'HEAD', 'POST', 'PUT', 'DELETE', 'PATCH', 'OPTIONS', 'TRACE'];
/** What a required parameter may be: the first one that it takes by its pattern. Of the series of microstructure one is named. */
const VALUES = ['BTC-USDT', 'BTC', '2026-11-29', '1795000000000-1', '0123456789abcdef'];
const NAMED: Record<string, string> = { fields: 'ofi_z' };

interface Parameter {
  name: string;
  in: string;
  required: boolean;
  schema: { type?: string; enum?: string[]; pattern?: string; minimum?: number; maximum?: number };
}

const world = new WebWorld({ token: 'a-token-of-the-test', password: 'a-password' });
let web: Web;
let described: Described;

before(async () => {
  await world.open();
  await world.runMonitor();
  web = await Web.open(world.env, ROUTES);
  described = new Described(web.document!);
});
after(async () => {
  await web?.close();
  await world.close();
});

const parametersOf = (operation: Operation) => operation.parameters as unknown as Parameter[];

/** Operations of a method by their paths. */
function operations(method: string): [path: string, operation: Operation][] {
  return Object.entries(web.document!.paths).flatMap(([path, methods]) =>
    methods[method] === undefined ? [] : [[path, methods[method]] as [string, Operation]],
  );
}

/** A path with its required parameters, and with others as they are given. */
function asked(path: string, operation: Operation, given: Record<string, string> = {}): string {
  const textOf = ({ name, schema }: Parameter) =>
    given[name] ??
    NAMED[name] ??
    schema.enum?.[0] ??
    VALUES.find((each) => schema.pattern === undefined || new RegExp(schema.pattern, 'u').test(each)) ??
    String(schema.minimum ?? 'x');
  const parameters = parametersOf(operation);
  const filled = path.replace(/\{(\w+)\}/g, (_, name: string) =>
    encodeURIComponent(textOf(parameters.find((each) => each.name === name)!)),
  );
  const query = parameters
    .filter(({ name, in: place, required }) => place === 'query' && (required || name in given))
    .map((each) => `${each.name}=${encodeURIComponent(textOf(each))}`);
  return query.length === 0 ? filled : `${filled}?${query.join('&')}`;
}

interface Raw {
  status: number;
  headers: IncomingMessage['headers'];
  text: string;
}

/** Events have no end: of them the head is enough. */
function raw(method: string, path: string): Promise<Raw> {
  return new Promise((done, fail) => {
    const signal = AbortSignal.timeout(READY_MS);
    const request = httpRequest(web.url + path, { method, agent: false, signal }, (answer) => {
      const { statusCode, headers } = answer;
      let text = '';
      answer.setEncoding('utf8').on('data', (chunk: string) => (text += chunk));
      const end = () => done({ status: statusCode!, headers, text });
      answer.on('end', end).on('error', fail);
      if (headers['content-type']?.startsWith('text/event-stream') === true && method === 'GET') {
        end();
        request.destroy();
      }
    });
    request.on('error', fail).end();
  });
}

describe('the document', () => {
  test('is valid by the official schema of OpenAPI 3.1', async () => {
    const validator = new Validator();
    const { valid, errors } = await validator.validate(
      structuredClone(web.document!) as object as Record<string, unknown>,
    );
    assert.ok(valid, JSON.stringify(errors, null, 1));
    assert.equal(validator.version, '3.1');
    // A validator that takes anything would be none.
    const wrong = structuredClone(web.document!) as unknown as {
      paths: Record<string, { get: { responses: unknown } }>;
    };
    wrong.paths['/api/about']!.get.responses = [];
    assert.equal((await new Validator().validate(wrong as object as Record<string, unknown>)).valid, false);
  });

  test('has every route once, each by an id of its own, and no other', () => {
    const operationsOf = Object.entries(web.document!.paths).flatMap(([path, methods]) =>
      Object.keys(methods).map((method) => `${method} ${path}`),
    );
    const routes = ROUTES.map(({ method, path }) => `${method.toLowerCase()} ${path.replace(/:(\w+)/g, '{$1}')}`);
    assert.deepEqual(operationsOf.sort(), [...routes, 'get /api/openapi.json'].sort());
    const ids = Object.values(web.document!.paths).flatMap((methods) =>
      Object.values(methods).map((each) => (each as unknown as { operationId: string }).operationId),
    );
    assert.equal(new Set(ids).size, ids.length);
    assert.ok(ids.every((id) => /^[a-z][a-z0-9_]*$/.test(id)));
  });
});

describe('what is asked as it is described', () => {
  test('is answered as described, also with HEAD, which has the same head and no body', async () => {
    for (const [path, operation] of operations('get')) {
      const url = asked(path, operation);
      const got = await raw('GET', url);
      const isMissing = got.status === 404 && parametersOf(operation).some(({ in: place }) => place === 'path');
      assert.ok(got.status === 200 || isMissing, `${url}: ${got.status} ${got.text.slice(0, 300)}`);
      const type = got.headers['content-type']!;
      const fault = described.fault(path, 'get', got.status, type, got.text);
      assert.equal(fault, null, url);
      const head = await raw('HEAD', url);
      const of = ({ status, headers }: Raw) => [status, headers['content-type']];
      assert.deepEqual([...of(head), head.text], [...of(got), ''], url);
    }
  });

  test('numbers and choices are taken to the ends of what they may be, and no further', async () => {
    let ends = 0;
    for (const [path, operation] of operations('get')) {
      // monitor.ts judges what is passed on to it.
      if (path.startsWith('/api/monitoring/')) continue;
      for (const { name, in: place, schema } of parametersOf(operation)) {
        if (place !== 'query') continue;
        const { type, minimum, maximum } = schema;
        const isNumber = type === 'integer';
        if (isNumber) assert.ok(minimum !== undefined && maximum !== undefined, `${path} ${name}`);
        const choices = schema.enum ?? [];
        const good = isNumber
          ? [minimum!, maximum!].map(String)
          : choices.filter((_, i) => i % (choices.length - 1) === 0);
        const bad = isNumber
          ? [minimum! - 1, maximum! + 1, `${minimum}.0`, `0x${maximum!.toString(16)}`, ` ${minimum}`, `${minimum}e0`]
          : choices.slice(0, 1).map((each) => each.toUpperCase());
        for (const value of [...good, ...bad].map(String)) {
          const url = asked(path, operation, { [name]: value });
          const { status, text } = await raw('GET', url);
          const body = status === 400 ? JSON.parse(text) : {};
          const isRefused = body.field === name;
          assert.ok(status < 500, `${url}: ${status} ${text.slice(0, 300)}`);
          // Two parameters may not go together, which is said of one of them by name.
          const isTaken = status !== 400 || / with | of several |several markets/.test(body.error);
          assert.ok(
            good.includes(value) ? !isRefused || isTaken : isRefused,
            `${url}: ${status} ${JSON.stringify(body)}`,
          );
          ends += 1;
        }
      }
    }
    assert.ok(ends > 300, String(ends));
    const book = `/api/market/orderbook?symbol=BTC-USDT&exchange=binance_spot&at=${world.end}&depth=`;
    for (const [depth, status] of [
      ['16', 200],
      ['0x10', 400],
      ['1e1', 400],
    ] as const)
      assert.equal((await raw('GET', book + depth)).status, status, depth);
  });

  test('a time that ends before it begins is refused, and none is taken for empty', async () => {
    let asks = 0;
    for (const [path, operation] of operations('get')) {
      const names = parametersOf(operation).map(({ name }) => name);
      if (!names.includes('from') || !names.includes('to')) continue;
      const url = asked(path, operation, { from: String(world.end), to: String(world.end - 1) });
      const { status, text } = await raw('GET', url);
      assert.deepEqual([status, JSON.parse(text).field], [400, 'from'], `${url}: ${text.slice(0, 200)}`);
      asks += 1;
    }
    assert.ok(asks > 10, String(asks));
  });

  test('a method that a path has not is 405, and says which it has; a path that is none is 404 by any method', async () => {
    const templates = Object.entries(web.document!.paths);
    for (const [path, methods] of templates) {
      const allowed = Object.keys(methods).flatMap((each) => (each === 'get' ? ['GET', 'HEAD'] : [each.toUpperCase()]));
      for (const each of Object.values(methods)) assert.ok(each.responses[405] !== undefined, path);
      const url = path.replace(/\{\w+\}/g, 'BTC');
      for (const method of METHODS.filter((each) => !allowed.includes(each))) {
        const { status, headers, text } = await raw(method, url);
        assert.deepEqual([status, headers.allow], [405, allowed.join(', ')], `${method} ${url}`);
        if (method !== 'HEAD') assert.equal(JSON.parse(text).field, 'method');
      }
    }
    for (const path of ['/', '/health', '/market/BTC-USDT', '/assets/main.js'])
      assert.deepEqual(
        [(await raw('POST', path)).status, (await raw('DELETE', path)).headers.allow],
        [405, 'GET, HEAD'],
      );
    for (const method of METHODS) assert.equal((await raw(method, '/api/nothing')).status, 404, method);
  });

  test('a body is refused where none is taken, and where it is no object', async () => {
    const headers = { authorization: `Bearer ${world.secrets.token}`, 'content-type': 'application/json' };
    const send = async (method: string, path: string, body: string) => {
      const { status, body: answer } = await web.get(path, { method, headers, body });
      return [status, answer.field];
    };
    // Whoever sends it means some of them, and would lose all.
    assert.deepEqual(await send('DELETE', '/api/monitoring/alerts', '{"state":"over"}'), [400, 'state']);
    for (const body of ['[]', '5', '"quick"', 'null', 'true'])
      assert.deepEqual(await send('POST', '/api/monitoring/data-consistency/check', body), [400, 'body'], body);
    for (const body of ['{"type":"none"}', '{"typ":"quick"}'])
      assert.deepEqual((await send('POST', '/api/monitoring/data-consistency/check', body))[0], 400, body);
  });
});

describe('the README', () => {
  const text = readFileSync(README, 'utf8');
  const section = text.slice(text.indexOf('\n### The API\n'));
  const api = section.slice(0, section.indexOf('\n### ', 5));

  test('shows requests of which each is answered, or refused as it says', async () => {
    const examples = [...api.matchAll(/http:\/\/127\.0\.0\.1:5000(\/[^\s'"]*)[^\n]*\n([^\n]*)/g)];
    assert.ok(examples.length >= 3, api.slice(0, 200));
    for (const [, path, next] of examples) {
      const answer = await raw('GET', path!);
      if (next!.startsWith('{"error"')) assert.equal(answer.text.trim(), next);
      else assert.equal(answer.status, 200, `${path}: ${answer.text.slice(0, 300)}`);
    }
  });

  test('names no path that there is not', () => {
    const paths = Object.keys(web.document!.paths);
    const named = [...api.matchAll(/`(\/api\/[a-z0-9/.-]+[a-z])/g)].map(([, path]) => path!);
    assert.ok(named.length > 5);
    for (const path of named)
      assert.ok(
        paths.some((each) => each === path || each.startsWith(`${path}/`)),
        path,
      );
  });
});
