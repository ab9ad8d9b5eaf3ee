/**
 * The API under requests that nobody should send, against the real engine: thousands that are made from its own description, and bytes that are no
 * requests. More of them, or others: MARKETPRISM_FUZZ_REQUESTS=50000 MARKETPRISM_FUZZ_SEED=7 node --import tsx --test test/web_fuzz.test.ts
 */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { get as httpGet, type IncomingMessage } from 'node:http';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { after, before, describe, test } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { gunzipSync, gzipSync } from 'node:zlib';
import { Pool } from 'undici';
import { freePort } from '../scripts/lib/free_port.ts';
import { pause } from '../scripts/lib/pause.ts';
import { type Child, waitFor } from '../scripts/lib/processes.ts';
import { seededRandom } from '../scripts/lib/sim/market.ts';
import { Answer, route } from '../scripts/lib/web/route.ts';
import { READY_MS } from './pipeline.ts';
import { type Made, RequestMaker } from './web_fuzz.ts';
import { faultOf, type Told } from './web_fuzz_oracle.ts';
import { type OpenApi, Web } from './web_harness.ts';
import { damaged, oddRequests, sendOdd } from './web_odd_requests.ts';
import { Described } from './web_schemas.ts';
import { WebWorld } from './web_world.ts';

const REQUESTS = Number(process.env.MARKETPRISM_FUZZ_REQUESTS ?? 3000);
const SEED = Number(process.env.MARKETPRISM_FUZZ_SEED ?? 1);
/** Fewer than may wait for a query: nobody is to be sent away. */
const AT_ONCE = 16;
const SECRETS = { token: 'token-that-nobody-tells', password: 'password-that-nobody-tells' };
const SECURITY = ['content-security-policy', 'x-content-type-options', 'referrer-policy', 'cache-control'];

const world = new WebWorld(SECRETS);
let port = 0;
let url = '';
let service: Child;
let pool: Pool;
let described: Described;

before(async () => {
  await world.open();
  port = await freePort();
  url = `http://127.0.0.1:${port}`;
  service = await world.run('web', { WEB_HTTP_PORT: String(port) }, async () => (await answers('/ping')) === 200);
  pool = new Pool(url, { connections: AT_ONCE, headersTimeout: READY_MS, bodyTimeout: READY_MS });
  described = new Described((await (await fetch(`${url}/api/openapi.json`)).json()) as OpenApi);
});
after(async () => {
  await pool?.destroy();
  await world.close();
});

const answers = (path: string) =>
  fetch(url + path).then(
    async (answer) => {
      await answer.body?.cancel();
      return answer.status;
    },
    () => null,
  );

async function send({ method, path, headers, body }: Made): Promise<Told> {
  const answer = await pool.request({ method: method as 'GET', path, headers, body });
  const type = String(answer.headers['content-type']);
  if (type.startsWith('text/event-stream') && method === 'GET') {
    answer.body.on('error', () => undefined).destroy();
    return { status: answer.statusCode, headers: answer.headers, text: null };
  }
  const bytes = Buffer.from(await answer.body.arrayBuffer());
  const encoding = answer.headers['content-encoding'];
  const plain = encoding === 'gzip' && bytes.length > 0 ? gunzipSync(bytes) : bytes;
  return { status: answer.statusCode, headers: answer.headers, text: encoding === 'br' ? null : plain.toString() };
}

/** Sends so many, several at a time. @returns how many came back by status, and what was wrong with them */
async function fuzz(maker: RequestMaker, count: number, isDatabaseAway: boolean) {
  const byStatus: Record<number, number> = {};
  const faults: string[] = [];
  const secrets = [...Object.values(SECRETS), world.pipeline.dir, process.cwd()];
  let left = count;
  const work = async () => {
    while (left-- > 0 && faults.length < 10) {
      const made = maker.next();
      const line = `${made.method} ${made.path.slice(0, 300)} ${JSON.stringify(made.headers).slice(0, 200)} ${String(made.body).slice(0, 100)}`;
      try {
        const told = await send(made);
        byStatus[told.status] = (byStatus[told.status] ?? 0) + 1;
        const next = told.headers['x-next-cursor'];
        if (typeof next === 'string') maker.learn(next);
        const fault = faultOf(described, made, told, { isDatabaseAway, secrets });
        if (fault !== null) faults.push(`${line}: ${fault}`);
      } catch (error) {
        faults.push(`${line}: ${error}`);
      }
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, work));
  return { byStatus, faults };
}

const logged = () =>
  readFileSync(join(world.pipeline.logDir, 'web.log'), 'utf8')
    .split('\n')
    .filter(
      (line) => line.includes('"level":"error"') || line.includes('"level":50') || line.includes('request_failed'),
    );
/** Sockets of the service, those to the database and the broker among them. */
function sockets(): number {
  const folder = `/proc/${service.pid}/fd`;
  const targets = readdirSync(folder).map((name) => {
    try {
      return readlinkSync(join(folder, name));
    } catch (error) {
      // Closed since the folder was read.
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
      return '';
    }
  });
  return targets.filter((target) => target.startsWith('socket:')).length;
}
const queries = async () =>
  Number((await world.pipeline.query(`SELECT count() FROM system.processes WHERE query_id LIKE 'web:%'`))[0]![0]);

/** Queries of the service that were ended before their answer was whole. */
const ended = () =>
  [
    ...world.pipeline.events('clickhouse_embedded', 'query_failed'),
    ...world.pipeline.events('clickhouse_embedded', 'client_gone'),
  ].filter(({ query_id, code = '394' }) => String(query_id).startsWith('web:') && String(code) === '394').length;

describe('the service under requests that nobody should send', () => {
  test('answers each as it is described, takes none that is not, tells nothing from inside, and lives on', async (t) => {
    const pid = service.pid;
    const maker = new RequestMaker(described.document, seededRandom(SEED), world.end, SECRETS.token);
    const { byStatus, faults } = await fuzz(maker, REQUESTS, false);
    t.diagnostic(JSON.stringify(byStatus));
    assert.deepEqual(faults, []);
    for (const status of [200, 304, 400, 401, 404, 405, 421, 502])
      assert.ok((byStatus[status] ?? 0) > 0, String(status));
    assert.ok(byStatus[200]! > REQUESTS / 20, 'much of it is as it should be');
    assert.deepEqual([service.pid, service.running, await answers('/ping')], [pid, true, 200]);
    await waitFor('the end of all queries', READY_MS, async () => (await queries()) === 0);
    assert.deepEqual(logged(), []);
  });

  test('bytes that are no request are refused with the headers of every answer, and leave nothing behind', async (t) => {
    const random = seededRandom(SEED + 1);
    const odd = oddRequests(SECRETS.token);
    const before = sockets();
    const rounds = Math.ceil(REQUESTS / 300);
    const bytes = odd.filter(({ isLeft }) => !isLeft);
    for (let n = 0; n < rounds * 10; n += 1) {
      const { name, bytes: whole } = bytes[Math.floor(random() * bytes.length)]!;
      odd.push({ name: `${name}, damaged (${n})`, bytes: damaged(whole, random) });
    }
    const byStatus: Record<number, number> = {};
    const ask = async () => {
      for (let each = odd.pop(); each !== undefined; each = odd.pop()) {
        const got = await sendOdd(port, each);
        const line = `${each.name}: ${JSON.stringify(each.bytes.toString('latin1').slice(0, 300))}`;
        assert.ok(got !== null, `${line} keeps its connection`);
        for (const { status, names } of got.heads) {
          byStatus[status] = (byStatus[status] ?? 0) + 1;
          assert.ok(status < 500 || status === 502, `${line}: ${got.text.slice(0, 400)}`);
          const absent = SECURITY.find((header) => !names.includes(header) && status >= 200);
          assert.equal(absent, undefined, `${line}: ${got.text.slice(0, 400)}`);
        }
        for (const secret of [...Object.values(SECRETS), world.pipeline.dir, process.cwd()])
          assert.ok(!got.text.includes(secret), `${line} tells ${secret}`);
      }
    };
    await Promise.all([ask(), ask(), ask(), ask()]);
    t.diagnostic(JSON.stringify(byStatus));
    for (const status of [200, 400, 404, 431]) assert.ok((byStatus[status] ?? 0) > 0, String(status));
    await waitFor('the end of all queries', READY_MS, async () => (await queries()) === 0);
    await waitFor('the end of all connections', READY_MS, async () => sockets() <= before + 5);
    assert.deepEqual(logged(), []);
  });

  test('listeners that were asked for at once by somebody who went take nobody’s place', async () => {
    const many = Buffer.from('GET /api/live HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n'.repeat(50));
    // More than there may be.
    for (let n = 0; n < 6; n += 1) await sendOdd(port, { name: 'listeners', bytes: many, isLeft: true });
    await waitFor('a place for a listener', READY_MS, async () => (await answers('/api/live')) === 200);
    await waitFor('places for fifty more', READY_MS, async () => {
      const all = await Promise.all(Array.from({ length: 50 }, () => answers('/api/live')));
      return all.every((status) => status === 200);
    });
  });

  test('a small body that unpacks to a huge one is not unpacked', async () => {
    const body = gzipSync(Buffer.alloc(30_000_000, ' '));
    assert.ok(body.length < 40_000);
    const headers = {
      authorization: `Bearer ${SECRETS.token}`,
      'content-type': 'application/json',
      'content-encoding': 'gzip',
    };
    const path = '/api/monitoring/data-consistency/check';
    const answer = await pool.request({ method: 'POST', path, headers, body });
    assert.equal(answer.statusCode, 400);
    assert.equal(((await answer.body.json()) as { field: string }).field, 'body');
  });

  test('while the database is away, is 503 at the most, and the same requests are refused', async (t) => {
    await world.pipeline.stop('clickhouse_embedded');
    const maker = new RequestMaker(described.document, seededRandom(SEED + 2), world.end, SECRETS.token);
    const { byStatus, faults } = await fuzz(maker, Math.ceil(REQUESTS / 6), true);
    t.diagnostic(JSON.stringify(byStatus));
    assert.deepEqual(faults, []);
    assert.ok((byStatus[503] ?? 0) > 0 && (byStatus[400] ?? 0) > 0);
    const told = logged();
    assert.ok(told.length > 0);
    for (const secret of Object.values(SECRETS)) assert.ok(!told.join('').includes(secret));
    await world.pipeline.startDatabase();
    await waitFor('an answer', READY_MS, async () => (await answers('/api/market/trades?symbol=BTC-USDT')) === 200);
  });
});

describe('a client that reads slowly, or goes', () => {
  const ROWS = 1_000_000;
  const HOUR = 3_600_000;
  const begin = world.end - HOUR;
  const span = `symbol=BIG-USDT&exchange=binance_spot&from=${begin}&to=${world.end}`;

  before(async () => {
    const { hotDatabase } = world.config;
    const digits = (seed: number) => `toString(cityHash64(number, ${seed}) % 1000000007)`;
    await world.pipeline.client().command({
      query: `INSERT INTO ${hotDatabase}.trades (timestamp, exchange, market_type, symbol, instrument, trade_id, sequence, price, quantity, side, is_maker, received_at, data_source, js_epoch, js_seq)
        SELECT fromUnixTimestamp64Milli(toInt64(${begin} + intDiv(number * ${HOUR}, ${ROWS})), 'UTC'), 'binance_spot', 'spot', 'BIG-USDT', 'BIGUSDT', ${digits(0)}, NULL,
          toDecimal128(concat('61.', ${digits(1)}), 18), toDecimal128(concat('0.', ${digits(2)}), 18), 'buy', false,
          fromUnixTimestamp64Micro(toInt64((${begin} + intDiv(number * ${HOUR}, ${ROWS})) * 1000), 'UTC'), 'live', 9, number FROM numbers(${ROWS})`,
    });
  });

  function open(path: string, encoding = 'identity'): Promise<IncomingMessage> {
    return new Promise((done, fail) => {
      const headers = { 'accept-encoding': encoding };
      const request = httpGet(
        url + path,
        { agent: false, headers, signal: AbortSignal.timeout(READY_MS) },
        (answer) => {
          answer.on('error', () => undefined);
          done(answer);
        },
      );
      request.on('error', fail);
    });
  }

  /** Bytes of the service's memory. */
  const resident = () => Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${service.pid}/status`, 'utf8'))![1]) * 1024;

  for (const encoding of ['identity', 'gzip', 'br'])
    test(`a million rows that nobody reads (${encoding}) wait at the database, and the query ends with its reader`, async () => {
      const answer = await open(`/api/market/trades?${span}&limit=${ROWS}&format=ndjson`, encoding);
      assert.equal(answer.headers['content-encoding'], encoding === 'identity' ? undefined : encoding);
      await new Promise((done) => answer.once('readable', done));
      const first = resident();
      for (let n = 0; n < 12; n += 1) {
        assert.equal(await queries(), 1);
        await pause(50);
      }
      // All of it would be 220 MB.
      const grown = (resident() - first) / 1e6;
      assert.ok(grown < 80, `${grown.toFixed(0)} MB more`);
      const before = ended();
      answer.destroy();
      await waitFor('the end of the query', READY_MS, async () => ended() > before && (await queries()) === 0);
    });

  test('an answer is compressed no faster than it is read', async () => {
    // Far more than the system itself has room for, of which nothing becomes much shorter.
    const [LINES, LINE_BYTES] = [2000, 32_769];
    let pulled = 0;
    const large = route({
      ...{ method: 'GET', path: '/api/large', summary: 'Is large.', types: ['application/x-ndjson'] },
      async handle() {
        async function* lines() {
          for (let n = 0; n < LINES; n += 1) {
            const line = `${randomBytes(16_384).toString('hex')}\n`;
            pulled += line.length;
            yield Buffer.from(line);
            await nextTurn();
          }
        }
        return new Answer(Readable.from(lines(), { objectMode: false }), 'application/x-ndjson');
      },
    });
    const web = await Web.open(world.env, [large], { pages: { at: () => null } });
    try {
      for (const encoding of ['gzip', 'br']) {
        pulled = 0;
        const answer = await new Promise<IncomingMessage>((done) =>
          httpGet(`${web.url}/api/large`, { agent: false, headers: { 'accept-encoding': encoding } }, done),
        );
        answer.on('error', () => undefined);
        await new Promise((done) => answer.once('readable', done));
        let last = -1;
        await waitFor('an end of taking', READY_MS, async () => {
          const isStill = pulled === last;
          last = pulled;
          await pause(500);
          return isStill && pulled === last;
        });
        assert.ok(pulled < (LINES * LINE_BYTES) / 2, `${encoding}: ${pulled} bytes were taken`);
        answer.destroy();
      }
    } finally {
      await web.close();
    }
  });

  test('what is computed for somebody who went is given up: candles, and a replay between its windows', async () => {
    for (const path of [`candles?${span}&interval=1s&limit=20000`, `replay?${span}`]) {
      const before = ended();
      // Once it may have been done already.
      await waitFor('a query that was ended', READY_MS, async () => {
        const gone = new AbortController();
        const answer = fetch(`${url}/api/market/${path}`, { signal: gone.signal }).catch(() => null);
        await waitFor('its query', READY_MS, async () => (await queries()) > 0);
        gone.abort();
        await answer;
        await waitFor('the end of all queries', READY_MS, async () => (await queries()) === 0);
        return ended() > before;
      });
    }
    assert.deepEqual(
      logged().filter((line) => !line.includes('does not answer') && !line.includes('ECONN')),
      [],
    );
  });
});
