import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { Agent, request as httpRequest } from 'node:http';
import { Readable } from 'node:stream';
import { after, before, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { gzipSync } from 'node:zlib';
import { type ClickHouseError, createClient, TupleParam } from '@clickhouse/client';
import { Budget } from '../scripts/lib/embedded/body.ts';
import { ENDLESS, embeddedServers, fails, q, type Server, until } from './embedded_server.ts';

const { startMain, end, http, rows, command } = embeddedServers();
let main: Server;

const running = async (id: string, client = main.client) =>
  (await rows(`SELECT query_id FROM system.processes WHERE query_id = '${id}'`, client)).length > 0;

const residentBytes = (pid: number) =>
  Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))![1]) * 1024;

test('bodies beyond the budget wait for room, and only one at a time goes beyond it, so that none waits for ever', async () => {
  const budget = new Budget(100);
  const [a, b, c] = [{}, {}, {}];
  const got: string[] = [];
  const take = (name: string, owner: object, bytes: number) => budget.take(owner, bytes).then(() => got.push(name));
  await take('a60', a, 60);
  await take('b60', b, 60);
  const [a50, c10] = [take('a50', a, 50), take('c10', c, 10)];
  await take('b90', b, 90);
  assert.deepEqual(got, ['a60', 'b60', 'b90']);
  assert.equal(budget.used, 210);
  budget.give(b, 150, true);
  await a50;
  assert.deepEqual(got, ['a60', 'b60', 'b90', 'a50']);
  budget.give(a, 110, true);
  await c10;
  budget.give(c, 10, true);
  assert.equal(budget.used, 0);
});

before(async () => {
  main = await startMain();
  await command('CREATE DATABASE IF NOT EXISTS m');
});

after(end);

test('the official client reads every usual format as one document', async () => {
  const query = 'SELECT number AS a, toString(number) AS b FROM numbers(70000)';
  const json = await (await main.client.query({ query, format: 'JSON' })).json<{ a: number }>();
  assert.equal(json.rows, 70000);
  assert.equal(json.data.length, 70000);
  assert.equal((await rows(query)).length, 70000);
  const compact = await (await main.client.query({ query, format: 'JSONCompactEachRow' })).json<[number, string]>();
  assert.deepEqual(compact[69999], [69999, '69999']);
  const csv = await (await main.client.query({ query, format: 'CSVWithNames' })).text();
  assert.equal(csv.split('\n').length, 70002);
  assert.equal(csv.match(/"a"/g)?.length, 1);
});

test('the official client inserts arrays and streams in text formats', async () => {
  await command('CREATE OR REPLACE TABLE m.ins (a UInt64, s String) ENGINE = MergeTree ORDER BY a');
  const table = 'm.ins';
  const summary = await main.client.insert({
    table,
    values: [
      { a: 1, s: "é'\\" },
      { a: 2, s: '\n' },
    ],
    format: 'JSONEachRow',
  });
  assert.equal(summary.summary?.written_rows, '2');
  await main.client.insert({ table, values: [[3, 'x']], format: 'JSONCompactEachRow', columns: ['a', 's'] });
  await main.client.insert({ table, values: Readable.from([{ a: 4, s: 'st' }]), format: 'JSONEachRow' });
  for (const [format, text] of [
    ['TabSeparated', '5\tx\n'],
    ['TabSeparatedWithNames', 's\ta\ny\t6\n'],
    ['CSV', '7,"a\nb"\n'],
    ['CSVWithNames', 'a,s\n8,c'],
    ['TabSeparatedRaw', '9\tz\n'],
  ] as const) {
    await main.client.insert({ table, values: Readable.from([text], { objectMode: false }), format });
  }
  await main.client.insert({ table, values: [[10]], format: 'JSONCompactEachRow', columns: { except: ['s'] } });
  assert.deepEqual(await rows('SELECT * FROM m.ins ORDER BY a'), [
    { a: 1, s: "é'\\" },
    { a: 2, s: '\n' },
    { a: 3, s: 'x' },
    { a: 4, s: 'st' },
    { a: 5, s: 'x' },
    { a: 6, s: 'y' },
    { a: 7, s: 'a\nb' },
    { a: 8, s: 'c' },
    { a: 9, s: 'z' },
    { a: 10, s: '' },
  ]);
});

test('rows come as a body, behind the query in the body, or partly in both', async () => {
  await command('CREATE OR REPLACE TABLE m.split (a UInt64) ENGINE = MergeTree ORDER BY a');
  await http(q('INSERT INTO m.split FORMAT TSV'), { body: '1\n' });
  await http('/', { body: 'INSERT INTO m.split FORMAT TSV\n2\n3' });
  await http(q('INSERT INTO m.split VALUES'), { body: '(4),(5)' });
  await http('/', { body: 'INSERT INTO m.split VALUES (6)' });
  await http('/', { body: 'INSERT INTO m.split SELECT number + 7 FROM numbers(2)' });
  await http(q('INSERT INTO m.split SELECT'), { body: '9' });
  assert.deepEqual(
    (await rows<{ a: number }>('SELECT a FROM m.split ORDER BY a')).map(({ a }) => a),
    [1, 2, 3, 4, 5, 6, 7, 8, 9],
  );
});

test('decimals, times, enums and nested arrays come back digit for digit, and partitions can be dropped', async () => {
  await command(`CREATE OR REPLACE TABLE m.types (t DateTime64(3, 'UTC'), p Decimal(38, 18) CODEC(GCD, ZSTD(3)), e Enum8('buy' = 1, 'sell' = 2),
    l Array(Tuple(Decimal(38, 18), Decimal(38, 18))), n Nullable(UInt64), lc LowCardinality(String), created DateTime64(3, 'UTC') DEFAULT now64(3))
    ENGINE = MergeTree PARTITION BY toYYYYMMDD(t) ORDER BY t TTL toDateTime(created) + INTERVAL 7 DAY SETTINGS ttl_only_drop_parts = 1`);
  const line =
    '{"t":1735689600123,"p":"12345678901234567890.123456789012345678","e":"sell","l":[["1.1","2.000000000000000001"]],"n":null,"lc":"x"}';
  const reply = await http(q('INSERT INTO m.types FORMAT JSONEachRow'), { body: line });
  assert.equal(reply.status, 200, reply.text);
  const [row] = await rows('SELECT toString(t) AS t, toString(p) AS p, e, toString(l) AS l, n FROM m.types');
  assert.deepEqual(row, {
    t: '2025-01-01 00:00:00.123',
    p: '12345678901234567890.123456789012345678',
    e: 'sell',
    l: '[(1.1,2.000000000000000001)]',
    n: null,
  });
  await command('ALTER TABLE m.types ADD COLUMN z UInt8 DEFAULT 7');
  assert.deepEqual(await rows('SELECT z FROM m.types'), [{ z: 7 }]);
  await command("ALTER TABLE m.types DROP PARTITION '20250101'");
  assert.deepEqual(await rows('SELECT count() AS n FROM m.types'), [{ n: 0 }]);
});

test('a body is one part however many rows it has, and an unknown or damaged member stores nothing of it', async () => {
  await command('CREATE OR REPLACE TABLE m.parts (a UInt64, b UInt8) ENGINE = MergeTree ORDER BY a');
  const parts =
    "SELECT count() AS parts, sum(rows) AS rows FROM system.parts WHERE database = 'm' AND table = 'parts' AND active";
  const body = Buffer.from(Array.from({ length: 1_300_000 }, (_, i) => `{"a":${i},"b":1}\n`).join(''));
  const query = 'INSERT INTO m.parts FORMAT JSONEachRow';
  assert.equal((await http(q(query), { body: body.subarray(0, body.indexOf('\n{"a":100000,') + 1) })).status, 200);
  assert.deepEqual(await rows(parts), [{ parts: 1, rows: 100_000 }]);
  await command('TRUNCATE TABLE m.parts');
  assert.equal((await http(q(query), { body })).status, 200);
  assert.deepEqual(await rows(parts), [{ parts: 1, rows: 1_300_000 }]);
  await command('TRUNCATE TABLE m.parts');
  const strict = { input_format_skip_unknown_fields: '0', input_format_null_as_default: '0' };
  const good = body.subarray(0, 2_000_000);
  const lines = good.subarray(0, good.lastIndexOf(0x0a) + 1);
  for (const [bad, code] of [
    ['{"a":1,"b":1,"typo":1}\n', '117'],
    ['{"a":"2025-01-01","b":1}\n', '27'],
    ['{"a":1,"b":x}\n', '27'],
  ]) {
    const reply = await http(q(query, strict), { body: Buffer.concat([lines, Buffer.from(bad!)]) });
    assert.equal(reply.headers['x-clickhouse-exception-code'], code, reply.text.slice(0, 300));
    assert.equal(reply.status, 400);
    assert.match(reply.text, /at row \d+/);
  }
  assert.deepEqual(await rows('SELECT count() AS n FROM m.parts'), [{ n: 0 }]);
});

test('a body beyond the size of one block goes in whole, each row once', async () => {
  await command('CREATE OR REPLACE TABLE m.big (a UInt64, s String CODEC(ZSTD)) ENGINE = MergeTree ORDER BY a');
  const filler = 'f'.repeat(2000);
  function* lines() {
    yield 's,a\n';
    for (let i = 0; i < 40_000; i += 500) {
      yield Array.from({ length: 500 }, (_, k) => `"\n${filler}",${i + k}\n`).join('');
    }
  }
  await main.client.insert({
    table: 'm.big',
    values: Readable.from(lines(), { objectMode: false }),
    format: 'CSVWithNames',
  });
  assert.deepEqual(await rows('SELECT count() AS n, uniqExact(a) AS u, min(length(s)) AS l FROM m.big'), [
    { n: 40_000, u: 40_000, l: 2001 },
  ]);
  await command('DROP TABLE m.big');
});

test('settings and parameters hold for one query only', async () => {
  const get = "SELECT getSetting('max_block_size') AS b, currentDatabase() AS d";
  const settings = { max_block_size: '1234' };
  const [inside] = await (
    await main.client.query({
      query: get,
      format: 'JSONEachRow',
      clickhouse_settings: settings,
      http_headers: { 'X-ClickHouse-Database': 'm' },
    })
  ).json<{ b: string }>();
  assert.deepEqual(inside, { b: 1234, d: 'm' });
  await command('SET max_block_size = 4321');
  await command('USE m');
  await http(q('SELECT 1', { max_block_size: '77', nope: '1' }));
  await http(q('SELECT 1', { max_block_size: '78', readonly: '1' }));
  await command('CREATE TEMPORARY TABLE left_behind (a UInt8)');
  for (let i = 0; i < 12; i++) {
    const [outside] = await rows<{ b: number; d: string }>(get);
    assert.deepEqual([outside!.b, outside!.d], [65409, 'default']);
    await assert.rejects(rows('SELECT * FROM left_behind'), fails('60'));
  }
  const reply = await http(q('SELECT 1', { nope: '1' }));
  assert.deepEqual([reply.status, reply.headers['x-clickhouse-exception-code']], [404, '115']);
  assert.equal((await http(q('SELECT 1', { session_id: 'x' }))).status, 501);
  assert.equal((await http(q('SELECT 1', { database: 'nowhere' }))).headers['x-clickhouse-exception-code'], '81');
});

test('query parameters of all kinds arrive as they were sent, side by side', async () => {
  const query = `SELECT {s:String} AS s, {n:UInt64} AS n, {f:Float64} AS f, {a:Array(String)} AS a, {z:Nullable(String)} AS z, {d:DateTime64(3, 'UTC')} AS d,
    {m:Map(String, UInt8)} AS m, {t:Tuple(UInt8, String)} AS t, '{s:String}' AS literal FROM {table:Identifier} LIMIT {l:UInt8}`;
  const ask = async (i: number) => {
    const s = `'\\${i}\n\t"\`{x:String}--`;
    const query_params = {
      s,
      n: '18446744073709551615',
      f: 1.5,
      a: [s, 'b'],
      z: null,
      d: new Date(1735689600123),
      m: new Map([['k', 1]]),
      t: new TupleParam([1, 'x']),
      table: 'system.one',
      l: 1,
    };
    const clickhouse_settings = { output_format_json_quote_64bit_integers: 1 as const };
    const set = await main.client.query({ query, query_params, clickhouse_settings, format: 'JSONEachRow' });
    assert.deepEqual(await set.json(), [
      {
        s,
        n: '18446744073709551615',
        f: 1.5,
        a: [s, 'b'],
        z: null,
        d: '2025-01-01 00:00:00.123',
        m: { k: 1 },
        t: [1, 'x'],
        literal: '{s:String}',
      },
    ]);
  };
  await Promise.all(Array.from({ length: 20 }, (_, i) => ask(i)));
  await assert.rejects(main.client.query({ query: 'SELECT {x:UInt8}', query_params: { y: 1 } }), fails('456'));
  const multipart = await main.client.query({
    query: 'SELECT {v:String} AS v',
    query_params: { v: 'é\n' },
    use_multipart_params: true,
    format: 'JSONEachRow',
  });
  assert.deepEqual(await multipart.json(), [{ v: 'é\n' }]);
});

test('errors carry code, name and status of a ClickHouse server', async () => {
  for (const [sql, status, code, type] of [
    ['SELECT * FROM nowhere', 404, '60', 'UNKNOWN_TABLE'],
    ['SELECT nothing FROM system.one', 404, '47', 'UNKNOWN_IDENTIFIER'],
    ['SELECT * FROM nowhere.t', 404, '81', 'UNKNOWN_DATABASE'],
    ['SELEKT 1', 400, '62', 'SYNTAX_ERROR'],
    ['', 400, '62', 'SYNTAX_ERROR'],
    ['SELECT 1; SELECT 2', 400, '62', 'SYNTAX_ERROR'],
    ["SELECT toUInt8('x')", 400, '6', 'CANNOT_PARSE_TEXT'],
    ['SELECT throwIf(1)', 500, '395', 'FUNCTION_THROW_IF_VALUE_IS_NON_ZERO'],
    [
      'SELECT sleep(3) SETTINGS max_execution_time = 0.2, function_sleep_max_microseconds_per_block = 9000000',
      408,
      '159',
      'TIMEOUT_EXCEEDED',
    ],
    ['SELECT 1 FORMAT Nonsense', 404, '73', 'UNKNOWN_FORMAT'],
    ["SELECT 1 INTO OUTFILE 'x'", 500, '358', 'INTO_OUTFILE_NOT_ALLOWED'],
    ['INSERT INTO m.ins FORMAT RowBinary x', 501, '48', 'NOT_IMPLEMENTED'],
    [
      'INSERT INTO m.ins SELECT * FROM input(\'a UInt64, s String\') FORMAT JSONEachRow {"a":1}',
      501,
      '48',
      'NOT_IMPLEMENTED',
    ],
    ['SELECT length(groupArray(number)) FROM numbers(200000000)', 500, '241', 'MEMORY_LIMIT_EXCEEDED'],
  ] as const) {
    const reply = await http('/', { body: sql });
    assert.equal(reply.headers['x-clickhouse-exception-code'], code, `${sql}: ${reply.text.slice(0, 200)}`);
    assert.equal(reply.status, status, sql);
    assert.match(reply.text, new RegExp(`^Code: ${code}\\. DB::Exception: [\\s\\S]* \\(${type}\\)`));
  }
  await assert.rejects(rows('SELECT * FROM nowhere'), fails('60', 'UNKNOWN_TABLE'));
});

test('an error in the middle of a result reaches the reader as an error, compressed or not, in every format', async () => {
  // Far beyond what is held back until the head of an answer goes: `query` has its answer, and the error comes in it.
  const query = 'SELECT number, throwIf(number = 300000) FROM numbers(400000) SETTINGS max_threads = 1';
  await assert.rejects(rows(query), fails('395', 'FUNCTION_THROW_IF_VALUE_IS_NON_ZERO'));
  for (const compression of [false, true]) {
    const client = createClient({ url: main.url, compression: { response: compression }, log: { level: 127 } });
    for (const format of ['JSON', 'CSV', 'JSONEachRow'] as const) {
      const set = await client.query({ query, format });
      await assert.rejects(format === 'JSON' ? set.json() : set.text());
    }
    await client.close();
  }
});

test('GET reads only, unknown paths are 404, HEAD and ping answer', async () => {
  const get = async (path: string, method = 'GET') => http(path, { method });
  assert.equal((await get(q('SELECT 1'))).text, '1\n');
  assert.equal((await get('/ping')).text, 'Ok.\n');
  assert.equal((await get('/')).text, 'Ok.\n');
  assert.deepEqual([(await get('/', 'HEAD')).status, (await get('/', 'HEAD')).text], [200, '']);
  assert.equal((await get('/nowhere')).status, 404);
  for (const sql of [
    'CREATE DATABASE readonly',
    "INSERT INTO m.ins VALUES (1, '')",
    "KILL QUERY WHERE query_id = 'x'",
  ]) {
    assert.equal((await get(q(sql))).headers['x-clickhouse-exception-code'], '164', sql);
  }
  assert.deepEqual(await main.client.ping(), { success: true });
  const reply = await http(q('SELECT 1 AS a', { default_format: 'JSON', query_id: 'mine' }), {
    headers: { 'X-ClickHouse-User': 'any' },
  });
  assert.equal(reply.headers['content-type'], 'application/json; charset=UTF-8');
  assert.equal(reply.headers['x-clickhouse-format'], 'JSON');
  assert.equal(reply.headers['x-clickhouse-query-id'], 'mine');
  assert.match(String(reply.headers['keep-alive']), /timeout=10/);
  const health = JSON.parse((await get('/health')).text) as { status: string; rss_bytes: number };
  assert.equal(health.status, 'healthy');
  assert.ok(health.rss_bytes > 0);
  assert.match((await get('/metrics')).text, /marketprism_clickhouse_queries_failed_total [1-9]/);
});

test('bodies and results are compressed as asked, and a cut-off compressed body stores nothing', async () => {
  await command('CREATE OR REPLACE TABLE m.zip (a UInt64) ENGINE = MergeTree ORDER BY a');
  for (const codec of ['gzip', 'br'] as const) {
    const client = createClient({
      url: main.url,
      compression: { request: { codec }, response: { codec } },
      log: { level: 127 },
    });
    await client.insert({ table: 'm.zip', values: [{ a: 1 }], format: 'JSONEachRow' });
    assert.equal((await rows('SELECT number FROM numbers(200000)', client)).length, 200_000);
    await client.close();
  }
  const plain = await http(q('SELECT 1'), { headers: { 'Accept-Encoding': 'gzip' } });
  assert.equal(plain.headers['content-encoding'], undefined);
  const deflated = await http(q('SELECT 1', { enable_http_compression: '1' }), {
    headers: { 'Accept-Encoding': 'deflate' },
  });
  assert.equal(deflated.headers['content-encoding'], 'deflate');
  const zipped = gzipSync(Array.from({ length: 1000 }, (_, i) => `${i + 100}\n`).join(''));
  const cut = await http(q('INSERT INTO m.zip FORMAT TSV'), {
    body: zipped.subarray(0, -200),
    headers: { 'Content-Encoding': 'gzip' },
  });
  assert.equal(cut.headers['x-clickhouse-exception-code'], '354');
  assert.deepEqual(await rows('SELECT count() AS n FROM m.zip'), [{ n: 2 }]);
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  const headers = { 'Content-Encoding': 'gzip' };
  const noise = await http(q('INSERT INTO m.zip FORMAT TSV'), { body: Buffer.alloc(3_000_000, 'x'), headers, agent });
  assert.equal(noise.headers['x-clickhouse-exception-code'], '354');
  assert.equal((await http('/', { body: 'SELECT 1', agent })).text, '1\n');
  agent.destroy();
});

test('a request counts as running from its headers on, and is never executed when its connection closes before its end', async () => {
  await command('CREATE OR REPLACE TABLE m.cut (a UInt64) ENGINE = MergeTree ORDER BY a');
  for (const headers of [{ 'Content-Length': '100' }, { 'Transfer-Encoding': 'chunked' }] as Record<string, string>[]) {
    const path = q('INSERT INTO m.cut FORMAT TSV', { query_id: 'store:cut' });
    const call = httpRequest({ port: main.port, host: '127.0.0.1', path, method: 'POST', headers, agent: false });
    call.on('error', () => {});
    call.write('1\n2\n3\n');
    await until('the insert is seen while its body is on its way', () => running('store:cut'));
    const [seen] = await rows("SELECT query, is_cancelled FROM system.processes AS p WHERE p.query_id LIKE 'store:%'");
    assert.deepEqual(seen, { query: 'INSERT INTO m.cut FORMAT TSV', is_cancelled: 0 });
    call.destroy();
    await until('the insert is gone', async () => !(await running('store:cut')));
  }
  assert.deepEqual(await rows('SELECT count() AS n FROM m.cut'), [{ n: 0 }]);
});

test('a second query with the id of a running one is refused, and KILL SYNC returns when the first has ended', async () => {
  const endless = rows(ENDLESS.replace('SELECT', '/* x */ SELECT')).catch((error: unknown) => error);
  const victim = main.client.query({ query: ENDLESS, query_id: 'victim' }).catch((error: unknown) => error);
  await until('it runs', () => running('victim'));
  await assert.rejects(main.client.query({ query: 'SELECT 1', query_id: 'victim' }), fails('216'));
  const killed = await (
    await main.client.query({
      query: "KILL QUERY WHERE query_id = 'victim' AND user = 'default' SYNC",
      format: 'JSONEachRow',
    })
  ).json<{ kill_status: string; query_id: string }>();
  assert.deepEqual(
    killed.map(({ kill_status, query_id }) => [kill_status, query_id]),
    [['finished', 'victim']],
  );
  assert.equal(await running('victim'), false);
  assert.equal(((await victim) as ClickHouseError).code, '394');
  await command("KILL QUERY WHERE query LIKE '/* x */%' ASYNC");
  assert.equal(((await endless) as ClickHouseError).code, '394');
});

test('KILL ends an insert whose body never comes, and nothing of it is stored', async () => {
  await command('CREATE OR REPLACE TABLE m.stuck (a UInt64) ENGINE = MergeTree ORDER BY a');
  const path = q('INSERT INTO m.stuck FORMAT TSV', { query_id: 'stuck' });
  const call = httpRequest({ port: main.port, host: '127.0.0.1', path, method: 'POST', agent: false });
  call.on('error', () => {});
  call.write('1\n');
  await until('it is seen', () => running('stuck'));
  await command("KILL QUERY WHERE query_id = 'stuck' SYNC");
  assert.equal(await running('stuck'), false);
  call.end('2\n');
  assert.deepEqual(await rows('SELECT count() AS n FROM m.stuck'), [{ n: 0 }]);
});

test('long selects hold up neither inserts nor the list of processes, and end when their readers go', async () => {
  await command('CREATE OR REPLACE TABLE m.beside (a UInt64) ENGINE = MergeTree ORDER BY a');
  const leave = new AbortController();
  const selects = Array.from({ length: 8 }, (_, i) =>
    main.client.query({ query: ENDLESS, query_id: `long-${i}`, abort_signal: leave.signal }).catch(() => {}),
  );
  const long = "SELECT count() AS n FROM system.processes WHERE query_id LIKE 'long-%'";
  await until('they run or wait', async () => (await rows<{ n: number }>(long))[0]!.n === 8);
  await main.client.insert({ table: 'm.beside', values: [{ a: 1 }], format: 'JSONEachRow' });
  assert.equal((await rows<{ n: number }>(long))[0]!.n, 8);
  leave.abort();
  await Promise.all(selects);
  await until('they are gone', async () => (await rows<{ n: number }>(long))[0]!.n === 0);
  assert.deepEqual(await rows('SELECT count() AS n FROM m.beside'), [{ n: 1 }]);
});

test('a slow reader of a huge result costs no memory and holds up nobody; when it goes, its query ends', async () => {
  const start = residentBytes(main.pid);
  const path = q('SELECT number, toString(number) FROM numbers(1000000000000)', { query_id: 'huge' });
  const call = httpRequest({ port: main.port, host: '127.0.0.1', path, method: 'POST', agent: false });
  call.on('error', () => {});
  call.end();
  const [response] = (await once(call, 'response')) as [Readable];
  response.on('error', () => {});
  response.pause();
  for (let i = 0; i < 40; i++) {
    response.read();
    assert.equal((await rows('SELECT 1')).length, 1);
    await sleep(10);
  }
  assert.ok(residentBytes(main.pid) - start < 150e6, 'resident memory');
  assert.equal(await running('huge'), true);
  call.destroy();
  await until('the query has ended', async () => !(await running('huge')));
});

test('readers that leave at any moment leave nothing behind', async () => {
  await Promise.all(
    Array.from({ length: 120 }, async (_, i) => {
      await sleep(i * 5);
      const path = q(i % 2 === 0 ? ENDLESS : 'SELECT * FROM numbers(100000000)', { query_id: `leaver-${i}` });
      const call = httpRequest({ port: main.port, host: '127.0.0.1', path, method: 'POST', agent: false });
      call.on('error', () => {});
      call.on('response', (response) => response.on('error', () => {}));
      call.end();
      await sleep(i % 12);
      call.destroy();
    }),
  );
  let left: unknown[] = [];
  const sql = "SELECT query_id, elapsed, is_cancelled FROM system.processes WHERE query_id LIKE 'leaver-%'";
  const none = async () => {
    left = await rows(sql);
    return left.length === 0;
  };
  await until('all are gone', none, () => left);
});

test('a fast reader gets a large result by stream', async () => {
  const set = await main.client.query({ query: 'SELECT number FROM numbers(1000000)', format: 'JSONEachRow' });
  let count = 0;
  let sum = 0;
  for await (const batch of set.stream<{ number: number }>()) {
    for (const row of batch) sum += row.json<{ number: number }>().number;
    count += batch.length;
  }
  assert.deepEqual([count, sum], [1_000_000, 499_999_500_000]);
});

test('too many waiting queries are refused with code 202, and the server goes on', async () => {
  const leave = new AbortController();
  const answers = Array.from({ length: 230 }, () => {
    const call = httpRequest({
      port: main.port,
      host: '127.0.0.1',
      path: '/',
      method: 'POST',
      agent: false,
      signal: leave.signal,
    });
    call.on('error', () => {});
    call.end(ENDLESS);
    return new Promise<string | undefined>((done) => {
      call.on('response', (response) => {
        response.on('error', () => {});
        response.resume();
        done(String(response.headers['x-clickhouse-exception-code']));
      });
      call.on('close', () => done(undefined));
    });
  });
  assert.equal(await Promise.race(answers), '202');
  leave.abort();
  await Promise.all(answers);
  let left: unknown[] = [];
  const all =
    "SELECT query_id, left(query, 60) AS q, elapsed, is_cancelled, read_rows FROM system.processes WHERE query NOT LIKE '%processes%'";
  await until(
    'all are gone',
    async () => (left = await rows(all)).length === 0,
    () => left,
  );
  assert.equal((await rows('SELECT 1')).length, 1);
});
