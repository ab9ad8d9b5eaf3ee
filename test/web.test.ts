/** The web API as it is asked: validation, headers, the token, its description, streams, a database that is away, and web.ts as a process. */
import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, get, request } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { after, before, describe, test } from 'node:test';
import { z } from 'zod';
import { UsageError } from '../scripts/lib/cli.ts';
import { freePort } from '../scripts/lib/free_port.ts';
import { SIGNAL_KINDS } from '../scripts/lib/harvest/kinds.ts';
import { storeRows } from '../scripts/lib/harvest/table.ts';
import { Child, type ChildExit, scriptPlan, waitFor } from '../scripts/lib/processes.ts';
import { ensureSignals } from '../scripts/lib/schema.ts';
import { DESK_ROUTES } from '../scripts/lib/web/desk_routes.ts';
import { wholeNumber } from '../scripts/lib/web/parameters.ts';
import { Answer, type Route, route } from '../scripts/lib/web/route.ts';
import { ROUTES } from '../scripts/web.ts';
import { HOUR, harvestRows } from './harvest_rows.ts';
import { Pipeline, READY_MS } from './pipeline.ts';
import { type Got, type Operation, Web } from './web_harness.ts';

const TOKEN = 'a-token-of-the-test';
const NASTY = [
  ...["'; DROP TABLE x --", '../../etc/passwd', '<script>', '-1', '1e400', 'NaN', '0x10', '99999999999999999999'],
  ...[
    '\u0000',
    ' ',
    '{}',
    '[]',
    'null',
    'true,',
    '逃顶',
    '%',
    'a'.repeat(900),
    '1 OR 1=1',
    '__proto__[x]',
    '2026-13-45',
  ],
];

/** Names of symbols may be odd: such a value may be one that nobody has. */
const isName = (parameter: string, value: string) =>
  /^(symbols?|coin|name)$/.test(parameter) && /^[\w.,:-]+$/.test(value);

/** Streams whose end can be seen, and what else no route of ours is. */
const ended: string[] = [];
const PROBES: Route[] = [
  route({
    ...{
      method: 'GET',
      path: '/api/probe/:name',
      summary: 'Says it again.',
      params: z.strictObject({ name: z.string().regex(/^[a-z]+$/) }),
    },
    query: z.strictObject({
      times: wholeNumber(1, 9999).default(1),
      old: z.enum(['yes']).optional(),
    }),
    answer: z.object({ text: z.string() }),
    maxAge: ({ query }) => (query.old === 'yes' ? 60 : 0),
    handle: async (_context, { params, query }) => ({ text: params.name.repeat(query.times) }),
  }),
  route({
    ...{ method: 'GET', path: '/api/endless', summary: 'Never ends.', types: ['application/x-ndjson'] },
    async handle(_context, { gone }) {
      async function* lines() {
        try {
          for (let n = 0; ; n += 1) {
            yield `${JSON.stringify({ n, text: 'x'.repeat(1000) })}\n`;
            await new Promise((done) => setTimeout(done, 5));
          }
        } finally {
          ended.push((gone.reason as Error | undefined)?.message ?? 'not gone');
        }
      }
      return new Answer(Readable.from(lines()), 'application/x-ndjson');
    },
  }),
  route({
    ...{
      method: 'GET',
      path: '/api/broken',
      summary: 'Fails.',
      types: ['text/csv'],
      query: z.strictObject({ after: wholeNumber(0, 99).default(0) }),
    },
    async handle(_context, { query }) {
      async function* lines() {
        for (let n = 0; n < query.after; n += 1) yield 'x'.repeat(100_000);
        await new Promise((done) => setTimeout(done, 50));
        throw new Error('SELECT secret FROM somewhere');
      }
      return new Answer(Readable.from(lines()), 'text/csv');
    },
  }),
  route({
    ...{
      method: 'POST',
      path: '/api/written',
      summary: 'Writes.',
      body: z.strictObject({ value: z.number() }),
      answer: z.object({ value: z.number() }),
    },
    handle: async (_context, { body }) => body as { value: number },
  }),
];

describe('routes over HTTP', () => {
  const dir = mkdtempSync(join(tmpdir(), 'marketprism-'));
  const env = {
    MARKETPRISM_DATA_DIR: dir,
    CLICKHOUSE_URL: 'http://127.0.0.1:9',
    CLICKHOUSE_PASSWORD: 'pa55',
    MARKETPRISM_API_TOKEN: TOKEN,
    MONITOR_HTTP_PORT: '',
  };
  let web: Web;

  before(async () => {
    // None listens there, whatever runs on this machine.
    env.MONITOR_HTTP_PORT = String(await freePort());
    web = await Web.open(env, [...PROBES, ...ROUTES]);
  });

  after(async () => {
    await web.close();
    rmSync(dir, { recursive: true });
  });

  test('a wrong parameter is 400 with its name, whatever is wrong with it', async () => {
    const wrong: [string, number, string][] = [
      ['/api/probe/a?times=0', 400, 'times'],
      ['/api/probe/a?times=', 400, 'times'],
      ['/api/probe/a?times=1&times=2', 400, 'times'],
      ['/api/probe/a?tims=1', 400, 'tims'],
      ['/api/probe/a?__proto__=1', 400, '__proto__'],
      ['/api/endless?any=1', 400, 'any'],
      ['/api/probe/A', 400, 'name'],
      [`/api/probe/${'a'.repeat(2000)}`, 404, 'path'],
      ['/api/probe/%E0%A4%A', 400, 'path'],
      ['/api/nothing', 404, 'path'],
      ['/api/unified/nothing', 400, 'series'],
    ];
    for (const [path, status, field] of wrong) {
      const got = await web.get(path);
      assert.deepEqual(
        [got.status, got.body.field],
        [status, field],
        `${path.slice(0, 60)}: ${got.text.slice(0, 200)}`,
      );
      assert.equal(got.headers.get('cache-control'), 'no-store');
    }
    assert.deepEqual(await web.ok('/api/probe/ab?times=2'), { text: 'abab' });
  });

  test('every route refuses nasty values of every parameter, and none of them is an error of ours', async () => {
    let asked = 0;
    const paths = Object.entries(web.document!.paths).filter(([, { get: operation }]) => operation !== undefined);
    for (const [path, { get: operation }] of paths) {
      const { parameters } = operation as Operation;
      const filled = (nasty: string | null, which: string) =>
        path.replace(/\{(\w+)\}/g, (_all, name: string) =>
          name === which && nasty !== null
            ? encodeURIComponent(nasty)
            : name === 'series'
              ? 'sar_top_count'
              : name === 'name'
                ? 'a'
                : 'BTC',
        );
      const checks: [string, string][] = [[`${filled(null, '')}?nothing_of_ours=1`, 'nothing_of_ours']];
      for (const { name, in: place } of parameters)
        for (const nasty of NASTY.filter((each) => !isName(name, each)))
          checks.push([
            place === 'path' ? filled(nasty, name) : `${filled(null, '')}?${name}=${encodeURIComponent(nasty)}`,
            name,
          ]);
      for (const [url] of checks) {
        // A stream that is begun would have no end.
        const got = await web.get(url, { signal: AbortSignal.timeout(20_000) });
        asked += 1;
        assert.ok([400, 404].includes(got.status), `${url}: ${got.status} ${got.text.slice(0, 200)}`);
        assert.ok(typeof got.body.field === 'string' && got.body.field !== '', `${url}: ${got.text.slice(0, 200)}`);
        // It says what is wrong, not where it was found.
        assert.ok(!/SELECT|node_modules|\.ts:/.test(got.text), got.text);
      }
    }
    assert.ok(asked > 1000, `${asked}`);
  });

  test('the description is OpenAPI 3.1 of exactly these routes', () => {
    const { openapi, paths } = web.document!;
    assert.equal(openapi, '3.1.0');
    const described = Object.entries(paths).flatMap(([path, methods]) =>
      Object.keys(methods).map((method) => `${method} ${path}`),
    );
    const routes = [...PROBES, ...ROUTES].map(
      ({ method, path }) => `${method.toLowerCase()} ${path.replace(/:(\w+)/g, '{$1}')}`,
    );
    assert.deepEqual(described.sort(), [...routes, 'get /api/openapi.json'].sort());
    const operation = paths['/api/escape-signal-stats/keypoints']!.get!;
    const limit = operation.parameters.find(({ name }) => name === 'limit')!;
    assert.deepEqual([limit.in, limit.required], ['query', false]);
    const ids = Object.values(paths).flatMap((methods) =>
      Object.values(methods).map((each) => (each as unknown as { operationId: string }).operationId),
    );
    assert.equal(new Set(ids).size, ids.length);
  });

  test('answers carry what keeps them to our own pages', async () => {
    for (const path of ['/api/probe/a', '/api/nothing', '/', '/health']) {
      const { headers } = await web.get(path);
      assert.match(headers.get('content-security-policy')!, /default-src 'self'.*frame-ancestors 'none'/);
      assert.equal(headers.get('x-content-type-options'), 'nosniff');
      assert.equal(headers.get('referrer-policy'), 'no-referrer');
      assert.equal(headers.get('access-control-allow-origin'), null);
    }
  });

  test('what is written needs the token, and a body that is understood', async () => {
    const post = (headers: Record<string, string>, body = '{"value":1}') =>
      web.get('/api/written', { method: 'POST', body, headers: { 'content-type': 'application/json', ...headers } });
    const bearer = { authorization: `Bearer ${TOKEN}` };
    const basic = { authorization: `Basic ${Buffer.from(`x:${TOKEN}`).toString('base64')}` };
    const wrong: [Promise<Got>, number, string][] = [
      [post({}), 401, 'authorization'],
      [post({ authorization: 'Bearer another-token-of-16' }), 401, 'authorization'],
      // A browser sends it on its own, for anybody's page.
      [post(basic), 401, 'authorization'],
      [post(bearer, '{"value":"1"}'), 400, 'value'],
      [post(bearer, '{"value":1,"more":1}'), 400, 'more'],
      [post(bearer, '{"value":'), 400, 'body'],
      [post(bearer, `{"value":${'1'.repeat(70_000)}}`), 413, 'body'],
      [post({ ...bearer, 'content-type': 'text/plain' }), 415, 'body'],
    ];
    for (const [asked, status, field] of wrong) {
      const { status: got, body } = await asked;
      assert.deepEqual([got, body.field], [status, field], JSON.stringify(body));
    }
    assert.deepEqual((await post(bearer)).body, { value: 1 });
  });

  test('another name that leads here is refused; other machines need the token for everything', async () => {
    const named = (host: string) =>
      new Promise<number>((done) =>
        get(`${web.url}/api/probe/a`, { headers: { host } }, (answer) => done(answer.resume().statusCode!)),
      );
    assert.deepEqual(
      [await named('evil.example:80'), await named('localhost:5000'), await named('127.0.0.1')],
      [421, 200, 200],
    );
    await assert.rejects(
      Web.open({ MARKETPRISM_DATA_DIR: dir, MARKETPRISM_WEB_HOST: '0.0.0.0' }, PROBES),
      (error) => error instanceof UsageError && /MARKETPRISM_API_TOKEN/.test(error.message),
    );
    const open = await Web.open({ ...env, MARKETPRISM_WEB_HOST: '0.0.0.0' }, PROBES).catch((error: Error) => error);
    assert.ok(!(open instanceof Error), String(open));
    try {
      const status = async (path: string, authorization?: string) =>
        (await fetch(open.url + path, { headers: authorization === undefined ? {} : { authorization } })).status;
      const basic = `Basic ${Buffer.from(`x:${TOKEN}`).toString('base64')}`;
      const answers = [
        await status('/api/probe/a'),
        await status('/'),
        await status('/api/probe/a', `Bearer ${TOKEN}`),
        await status('/api/probe/a', basic),
        await status('/ping'),
      ];
      assert.deepEqual(answers, [401, 401, 200, 200, 200]);
    } finally {
      await open.close();
    }
  });

  test('long answers are compressed, known ones not sent again, old ones kept; HEAD has no body', async () => {
    const raw = (encoding: string) =>
      new Promise<{ encoding: string | undefined; bytes: number }>((done) =>
        get(`${web.url}/api/probe/a?times=9999`, { headers: { 'accept-encoding': encoding } }, (answer) => {
          let bytes = 0;
          answer.on('data', (chunk: Buffer) => (bytes += chunk.length));
          answer.on('end', () => done({ encoding: answer.headers['content-encoding'], bytes }));
        }),
      );
    const [brotli, gzip, plain] = [await raw('gzip, br'), await raw('gzip'), await raw('identity')];
    assert.deepEqual([brotli.encoding, gzip.encoding, plain.encoding], ['br', 'gzip', undefined]);
    assert.ok(gzip.bytes < 500 && plain.bytes > 9999);
    const { headers } = await web.get('/api/probe/a');
    assert.equal(headers.get('cache-control'), 'private, no-cache');
    const again = await web.get('/api/probe/a', { headers: { 'if-none-match': headers.get('etag')! } });
    assert.deepEqual([again.status, again.text], [304, '']);
    assert.equal((await web.get('/api/probe/b', { headers: { 'if-none-match': headers.get('etag')! } })).status, 200);
    assert.equal((await web.get('/api/probe/a?old=yes')).headers.get('cache-control'), 'private, max-age=60');
    const head = await web.get('/api/probe/a', { method: 'HEAD' });
    assert.deepEqual([head.status, head.text, head.headers.get('content-length')], [200, '', '13']);
    assert.equal((await web.get('/api/endless', { method: 'HEAD' })).status, 200);
    assert.equal((await web.get('/api/nothing', { method: 'HEAD' })).text, '');
  });

  test('a stream ends with its client; one that fails is cut off, or is an error where nothing of it was sent', async () => {
    ended.splice(0);
    const gone = new AbortController();
    const answer = await fetch(`${web.url}/api/endless`, { signal: gone.signal });
    await answer.body!.getReader().read();
    gone.abort();
    await waitFor('the end of the source', READY_MS, async () => ended.length === 1);
    assert.deepEqual(ended, ['the client has gone']);
    const atOnce = await web.get('/api/broken');
    assert.deepEqual([atOnce.status, atOnce.body], [500, { error: 'an error of this service: its log has it' }]);
    await assert.rejects(fetch(`${web.url}/api/broken?after=9`).then((each) => each.text()));
  });

  test('a page is the one document at each of their paths, and its scripts and styles have names', async () => {
    const type = async (path: string) => {
      const { status, headers, text } = await web.get(path);
      return `${status} ${headers.get('content-type')} ${/<title>MarketPrism</.test(text)}`;
    };
    const document = '200 text/html; charset=utf-8 true';
    for (const path of ['/', '/soak', '/market', '/market/BTC-USDT', '/market/PURR%2FUSDC'])
      assert.equal(await type(path), document, path);
    assert.equal(await type('/assets/main.js'), '200 text/javascript; charset=utf-8 false');
    assert.equal(await type('/assets/main.css'), '200 text/css; charset=utf-8 false');
    assert.equal(await type('/assets/icon.svg'), '200 image/svg+xml false');
    for (const path of ['/assets', '/assets/main.tsx', '/soak/x', '/market/a/b', '/soak.html', '//soak'])
      assert.match(await type(path), /^404 application\/json/, path);
    // As they are: fetch would shorten them first.
    const rawStatus = (path: string) =>
      new Promise<number>((done) => request(web.url, { path }, (answer) => done(answer.resume().statusCode!)).end());
    for (const path of [
      '/../page.html',
      '/assets/../page.html',
      '/%2e%2e/page.html',
      '/..%2fpage.html',
      '/assets/%2e%2e%2fpage.html',
      '//etc/passwd',
    ])
      assert.equal(await rawStatus(path), 404, path);
  });

  test('a database that is away is 503 in one line, without its password; a monitor that is away is 502', async () => {
    for (const path of ['/api/correlation/latest', '/api/harvest/BTC-USDT?kind=ofi']) {
      const { status, body } = await web.get(path);
      assert.deepEqual([status, body], [503, { error: 'the database at 127.0.0.1:9 does not answer: ECONNREFUSED' }]);
    }
    const { status, body } = await web.get('/api/monitoring/health');
    assert.equal(status, 502);
    assert.match(body.error, /^monitor\.ts on port \d+ does not answer: ECONNREFUSED$/);
  });

  test('what is for the monitor reaches it as it was sent, and its answer comes back', async () => {
    const seen: unknown[] = [];
    const monitor = createServer((incoming, answer) => {
      let text = '';
      incoming.on('data', (chunk: Buffer) => (text += chunk));
      incoming.on('end', () => {
        seen.push([incoming.method, incoming.url, incoming.headers.authorization ?? null, text]);
        answer.writeHead(incoming.url!.includes('thresholds') ? 400 : 200, { 'content-type': 'application/json' });
        answer.end('{"error":"restarts is wrong","field":"restarts"}');
      });
    });
    await new Promise<void>((done) => monitor.listen(0, '127.0.0.1', done));
    const { port } = monitor.address() as AddressInfo;
    const through = await Web.open({ ...env, MONITOR_HTTP_PORT: String(port) }, DESK_ROUTES);
    try {
      const authorization = `Bearer ${TOKEN}`;
      const headers = { authorization, 'content-type': 'application/json' };
      await through.ok('/api/monitoring/alerts?state=standing&limit=5');
      const put = await through.get('/api/monitoring/thresholds', { method: 'PUT', headers, body: '{"restarts":3}' });
      assert.deepEqual([put.status, put.body.field], [400, 'restarts']);
      assert.equal(
        (await through.get('/api/monitoring/alerts', { method: 'DELETE', headers: { authorization } })).status,
        200,
      );
      assert.equal((await through.get('/api/monitoring/alerts', { method: 'DELETE' })).status, 401);
      assert.deepEqual(seen, [
        ['GET', '/api/monitoring/alerts?state=standing&limit=5', null, ''],
        ['PUT', '/api/monitoring/thresholds', authorization, '{"restarts":3}'],
        ['DELETE', '/api/monitoring/alerts', authorization, ''],
      ]);
    } finally {
      await through.close();
      monitor.close();
      monitor.closeAllConnections();
    }
  });
});

describe('web.ts as a process, with the database', () => {
  const pipeline = new Pipeline();
  let child: Child;
  let url = '';
  let web: Web;
  const exits: ChildExit[] = [];
  const never = new AbortController().signal;

  before(async () => {
    await pipeline.choosePorts();
    await pipeline.startDatabase();
    const client = pipeline.client();
    await ensureSignals(client, 'marketprism_signals');
    for (const kind of SIGNAL_KINDS)
      await storeRows(client, 'marketprism_signals', kind, harvestRows(kind, 1, 40), never);
    const values = ['1m 1d 0.5', '1m 7d NULL', '5m 1d 0.25'].flatMap((text) => {
      const [timeframe, period, corr] = text.split(' ');
      const at = timeframe === '1m' ? HOUR : HOUR - 300_000;
      const row = (time: number, symbol: string, value: string) =>
        `(fromUnixTimestamp64Milli(${time}), 'hyperliquid', 'perpetual', '${symbol}', '${timeframe}', '${period}', ${value}, 3, 0.01, 900, 1000, 2, NULL)`;
      return [row(at, 'SOL-USDC', corr!), row(at, 'SUI-USDC', '0.9'), row(at - 3_600_000, 'SOL-USDC', '0.1')];
    });
    await client.command({
      query: `INSERT INTO marketprism_signals.correlations (timestamp, exchange, market_type, symbol, timeframe, period, corr, lag, p_value, pairs, points, lost, reason) VALUES ${values.join(', ')}`,
    });
    mkdirSync(join(pipeline.dir, 'state'), { recursive: true });
    const standing = { SOL: { since: HOUR, spoke: ['1m 1d'], long: 0.8, short: 0.2, awaits: [] } };
    writeFileSync(
      join(pipeline.dir, 'state/correlation_alert.json'),
      JSON.stringify({ data_time: HOUR, last_run: Date.now(), last_success: null, error: 'late', standing }),
    );
    const port = await freePort();
    const env = {
      ...pipeline.env,
      WEB_HTTP_PORT: String(port),
      HEALTH_GRACE_SECONDS: '0',
      MONITOR_HTTP_PORT: String(await freePort()),
    };
    url = `http://127.0.0.1:${port}`;
    child = new Child(scriptPlan('web', [], env, pipeline.logDir), (exit) => {
      exits.push(exit);
      return false;
    });
    child.start();
    await waitFor('web.ts', READY_MS, async () => (await fetch(`${url}/ping`).catch(() => null))?.ok === true);
    web = await Web.open({ ...env, WEB_HTTP_PORT: '0' }, ROUTES);
  });

  after(async () => {
    await web.close();
    await child.stop();
    await pipeline.close();
  });

  test('the newest round of correlations, each timeframe’s own, with what stands', async () => {
    const { data, standing, total_count, data_time, error } = await web.ok('/api/correlation/latest');
    const rows = data.map(({ coin, timeframe, period, corr }: Record<string, unknown>) =>
      [coin, timeframe, period, corr].join(' '),
    );
    assert.deepEqual(rows, [
      'SOL 1m 1d 0.5',
      'SOL 1m 7d ',
      'SOL 5m 1d 0.25',
      'SUI 1m 1d 0.9',
      'SUI 1m 7d 0.9',
      'SUI 5m 1d 0.9',
    ]);
    assert.equal(data[1].corr, null);
    assert.deepEqual([total_count, data_time, error, standing[0].coin], [6, HOUR, 'late', 'SOL']);
    const page = await web.ok('/api/correlation/latest?symbol=SUI&limit=1&offset=1');
    assert.deepEqual([page.total_count, page.data[0].period], [3, '7d']);
  });

  test('the harvest’s rows come from their tables as they went in', async () => {
    for (const kind of SIGNAL_KINDS) {
      const rows = harvestRows(kind, 1, 40);
      const newest = [...rows].sort(
        (one, other) => Number(other.ts_ms) - Number(one.ts_ms) || (String(one.row_id) < String(other.row_id) ? 1 : -1),
      );
      const { data } = await web.ok(`/api/harvest/${rows[0]!.symbol}?kind=${kind}&limit=10`);
      assert.ok(data.length === 10);
      for (const [i, row] of data.entries()) {
        assert.deepEqual(
          [row.ts_ms, row.recv_ts_ms, row.row_id, row.kind],
          [newest[i]!.ts_ms, newest[i]!.recv_ts_ms, newest[i]!.row_id, kind],
        );
        for (const [member, value] of Object.entries(row))
          if (value === null) assert.equal(newest[i]![member] ?? null, null, member);
      }
      const from = Number(newest[20]!.ts_ms);
      const span = await web.ok(`/api/harvest/${rows[0]!.symbol}?kind=${kind}&from=${from}&to=${from}`);
      assert.deepEqual(
        span.data.map(({ row_id }: Record<string, unknown>) => row_id),
        newest.filter(({ ts_ms }) => ts_ms === from).map(({ row_id }) => row_id),
      );
    }
  });

  test('/health is no better than what it could not ask', async () => {
    const answer = await fetch(`${url}/health`);
    const { status, checks } = (await answer.json()) as {
      status: string;
      checks: Record<string, { status: string; error_message: string | null }>;
    };
    assert.deepEqual([answer.status, status], [503, 'unhealthy']);
    for (const name of ['collector', 'store', 'replicate', 'monitor'])
      assert.match(
        `${checks[name]!.status} ${checks[name]!.error_message}`,
        /^unhealthy port \d+ does not answer as a service: ECONNREFUSED$/,
      );
    assert.equal(checks.clickhouse!.status, 'healthy');
    assert.match(checks.series_escape_signal!.error_message!, /^escape_signal_calc\.ts has never run here$/);
    assert.deepEqual([checks.correlation_alert!.status, checks.correlation_alert!.error_message], ['degraded', 'late']);
    assert.match(await (await fetch(`${url}/metrics`)).text(), /marketprism_health_check_status\{check="store"\} 0/);
  });

  test('it stops on SIGTERM with open streams, and says so', async () => {
    const streams = await Promise.all([fetch(`${url}/api/live`), fetch(`${url}/api/live`)]);
    const read = streams.map((stream) =>
      stream.text().then(
        () => 'ended',
        () => 'cut off',
      ),
    );
    assert.ok(streams.every(({ status }) => status === 200));
    const exit = await child.stop();
    assert.deepEqual([exit?.code, exits], [0, []]);
    for (const each of await Promise.all(read)) assert.match(each, /ended|cut off/);
    const log = readFileSync(join(pipeline.logDir, 'web.log'), 'utf8');
    assert.match(log, /"event":"stopped"/);
    assert.ok(!log.includes('stop_forced'), log.slice(-500));
  });
});
