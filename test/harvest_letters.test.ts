/** Rows that a sink could not take: none is lost, each is delivered once, whoever dies when. Real files, real engine, real processes. */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  appendFileSync,
  copyFileSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { after, before, beforeEach, describe, test } from 'node:test';
import type { ClickHouseClient } from '@clickhouse/client';
import { ClickHouseProxy } from '../scripts/lib/chaos/clickhouse_proxy.ts';
import { createClickHouse } from '../scripts/lib/clickhouse.ts';
import { appendDeadLetters, letterFiles } from '../scripts/lib/deadletter.ts';
import { dateHour, type HarvestKind, placePath, SIGNAL_KINDS } from '../scripts/lib/harvest/kinds.ts';
import {
  appendHarvestLetters,
  type HarvestLetter,
  harvestLetterFiles,
  lettersOf,
  rootOf,
  type Sink,
} from '../scripts/lib/harvest/letters.ts';
import { HarvestHealer, type HarvestReplayOptions, replayHarvest } from '../scripts/lib/harvest/letters_replay.ts';
import { type HarvestLine, harvestLock, storeRows } from '../scripts/lib/harvest/table.ts';
import { JsonlWriter, objectsOf } from '../scripts/lib/jsonl.ts';
import { createLogger } from '../scripts/lib/log.ts';
import { waitFor } from '../scripts/lib/processes.ts';
import { ensureSignals } from '../scripts/lib/schema.ts';
import { HOUR, harvestRow, harvestRows } from './harvest_rows.ts';
import { Pipeline, READY_MS } from './pipeline.ts';

const DATABASE = 'marketprism_signals';
const NOW = new Date('2026-11-30T07:15:00.123Z');
const STAMP = '20261130_071500';
const log = createLogger('test', 'silent');
const never = new AbortController().signal;
const BOTH: Sink[] = ['jsonl', 'clickhouse'];

const lettersFor = (rows: HarvestLine[], sinks: Sink[], reason = 'ECONNREFUSED: test'): HarvestLetter[] =>
  rows.map((row) => ({ row, sinks, reason }));

describe('letters of the harvest', () => {
  const pipeline = new Pipeline();
  const root = join(pipeline.dir, 'harvest');
  const folder = (kind: HarvestKind) => join(pipeline.dir, 'deadletter', kind);
  let client: ClickHouseClient;
  let far: ClickHouseClient;
  let proxy: ClickHouseProxy;

  before(async () => {
    await pipeline.choosePorts();
    await pipeline.startDatabase();
    client = pipeline.client();
    await ensureSignals(client, DATABASE);
    proxy = new ClickHouseProxy(pipeline.env.CLICKHOUSE_URL!);
    await proxy.listen(0);
    far = createClickHouse({ url: `http://127.0.0.1:${proxy.port}`, username: 'default', password: '' }, 'test');
  });
  beforeEach(async () => {
    proxy.onRequest = () => null;
    rmSync(join(pipeline.dir, 'deadletter'), { recursive: true, force: true });
    for (const name of ['harvest', 'harvest-okx_derivatives'])
      rmSync(join(pipeline.dir, name), { recursive: true, force: true });
    for (const kind of SIGNAL_KINDS) await client.command({ query: `TRUNCATE TABLE ${DATABASE}.${kind}` });
  });
  after(async () => {
    await far?.close();
    await proxy?.close();
    await pipeline.close();
  });

  const append = (letters: HarvestLetter[]) => appendHarvestLetters(pipeline.dir, letters, NOW);
  const replay = (more: Partial<HarvestReplayOptions> = {}) =>
    replayHarvest({ dataDir: pipeline.dir, client, database: DATABASE, log, stop: never, ...more });

  const fileOf = (row: HarvestLine, below = root) =>
    join(
      below,
      `${placePath({ ...dateHour(row.ts_ms as number), symbol: row.symbol as string, kind: row.kind as HarvestKind })}.jsonl`,
    );

  /** Rows of a file. */
  async function rowsIn(path: string): Promise<Record<string, unknown>[]> {
    const rows: Record<string, unknown>[] = [];
    if (!existsSync(path)) return rows;
    for await (const line of objectsOf(path)) {
      assert.ok('value' in line, JSON.stringify(line));
      rows.push(line.value);
    }
    return rows;
  }

  /** Rows and distinct rows of a table. */
  async function inTable(kind: HarvestKind): Promise<number[]> {
    const [row] = await pipeline.query(`SELECT count(), uniqExact(exchange, row_id) FROM ${DATABASE}.${kind}`);
    return row!.map(Number);
  }

  function command(...args: string[]): ChildProcess & { out: { stdout: string; stderr: string } } {
    const child = spawn(process.execPath, ['--import', 'tsx', 'scripts/deadletter.ts', ...args], { env: pipeline.env });
    const out = { stdout: '', stderr: '' };
    for (const name of ['stdout', 'stderr'] as const)
      child[name].on('data', (chunk) => {
        out[name] += chunk;
      });
    return Object.assign(child, { out });
  }

  async function run(...args: string[]): Promise<{ status: number; stdout: string; stderr: string }> {
    const child = command(...args);
    const [status] = await once(child, 'close');
    return { status, ...child.out };
  }

  test('a letter file names symbol, time and rows; names never collide; what JSON cannot say is not lost', () => {
    const ring: Record<string, unknown> = {};
    ring.self = ring;
    const odd = harvestRow('cvd', 3, { more: { delta: 12n, z_raw: Number.NaN, sigma_floor: undefined } });
    const paths = append([
      ...lettersFor(harvestRows('cvd', 0, 3), ['clickhouse']),
      ...lettersFor([odd, harvestRow('cvd', 4, { more: { ring } })], BOTH),
      ...lettersFor(harvestRows('prices', 0, 2, { symbol: 'A/B' }), ['jsonl']),
    ]);
    const again = append(lettersFor(harvestRows('cvd', 10, 5), BOTH));
    const elsewhere = append(lettersFor(harvestRows('cvd', 20, 5, { exchange: 'okx_derivatives' }), BOTH));
    assert.deepEqual(
      [...paths, ...again, ...elsewhere].map((path) => path.slice(pipeline.dir.length + 1)),
      [
        `deadletter/cvd/BTC-USDT_${STAMP}_5.ndjson`,
        `deadletter/prices/A%2FB_${STAMP}_2.ndjson`,
        `deadletter/cvd/BTC-USDT_${STAMP}_5-1.ndjson`,
        `deadletter/cvd/BTC-USDT_${STAMP}_5-2.ndjson`,
      ],
    );
    assert.deepEqual(
      readdirSync(folder('cvd')).filter((name) => name.endsWith('.tmp')),
      [],
    );
    const letters = readFileSync(paths[0]!, 'utf8')
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line));
    const { row, ...rest } = letters[0];
    assert.deepEqual(rest, {
      ...{ at: NOW.toISOString(), reason: 'ECONNREFUSED: test', kind: 'cvd', exchange: 'binance_derivatives' },
      sinks: ['clickhouse'],
    });
    assert.deepEqual(JSON.parse(row), harvestRow('cvd', 0));
    const { delta, z_raw, sigma_floor } = JSON.parse(letters[3].row);
    assert.deepEqual({ delta, z_raw, sigma_floor }, { delta: '12', z_raw: 'NaN', sigma_floor: null });
    assert.match(letters[4].row, /<ref \*1>.*\[Circular \*1\]/);
    assert.throws(() => append(lettersFor(harvestRows('prices', 0, 1), BOTH)), /prices has no table/);
  });

  test('each row goes into the sinks that lack it, and a second replay of the same letters changes nothing', async () => {
    const rows = harvestRows('ofi', 0, 40);
    const file = fileOf(rows[0]!);
    // Ten are in the file, ten in the table; half a line is at the file's end.
    new JsonlWriter(file, log).append(rows.slice(0, 10));
    appendFileSync(file, JSON.stringify(rows[39]).slice(0, 400));
    await storeRows(client, DATABASE, 'ofi', rows.slice(5, 15), never);
    const late = harvestRow('ofi', 50, { at: HOUR - 1 });
    const prices = harvestRows('prices', 0, 20, { symbol: 'ETH-USDT', exchange: 'okx_derivatives' });
    const [first] = append([...lettersFor([...rows, late], BOTH), ...lettersFor(prices, ['jsonl'])]);
    const done = await replay();
    assert.deepEqual(
      [done.files, done.replayed, done.written, done.stored, done.refused, done.bad],
      [2, 61, 30 + 1 + 20, 31, 0, 0],
    );
    assert.deepEqual(await rowsIn(file), rows);
    assert.equal(readFileSync(`${file}.torn`, 'utf8').length, 401);
    assert.deepEqual(await rowsIn(fileOf(late)), [late]);
    assert.deepEqual(await rowsIn(fileOf(prices[0]!, join(pipeline.dir, 'harvest-okx_derivatives'))), prices);
    assert.deepEqual(await inTable('ofi'), [41, 41]);
    assert.deepEqual(readdirSync(folder('ofi')), ['done']);
    // Given back.
    copyFileSync(join(folder('ofi'), 'done', basename(first!)), first!);
    const again = await replay();
    assert.deepEqual([again.replayed, again.written, again.stored], [41, 0, 0]);
    assert.deepEqual(await rowsIn(file), rows);
    assert.deepEqual(await inTable('ofi'), [41, 41]);
    assert.equal(readdirSync(join(folder('ofi'), 'done')).length, 2);
  });

  test('lines that are no letter are kept with their numbers; rows that the table refuses stay, with its reason', async () => {
    const rows = harvestRows('cvd', 0, 6);
    rows[2]!.z_raw = 'high';
    const [path] = append(lettersFor(rows, BOTH));
    const lines = readFileSync(path!, 'utf8').trimEnd().split('\n');
    const letter = JSON.parse(lines[0]!);
    const other = (more: object) => JSON.stringify({ ...letter, ...more });
    const bad = [
      'no json',
      other({ sinks: [] }),
      other({ row: '{"kind":"cvd"' }),
      other({ kind: 'ofi' }),
      other({ row: JSON.stringify(harvestRow('ofi', 1)) }),
      other({ row: JSON.stringify({ ...rows[0], row_id: '../x' }) }),
      other({ exchange: 'okx_spot' }),
    ];
    writeFileSync(path!, [...lines, ...bad].join('\n'));
    const done = await replay();
    assert.deepEqual([done.files, done.replayed, done.refused, done.bad, done.written], [1, 5, 1, 7, 6]);
    assert.deepEqual(await inTable('cvd'), [5, 5]);
    const kept = readFileSync(`${path}.bad`, 'utf8')
      .trimEnd()
      .split('\n')
      .map((line) => line.split('\t'));
    assert.deepEqual(
      kept.map(([number, , line]) => [Number(number), line]),
      bad.map((line, i) => [7 + i, line]),
    );
    const rest = path!.replace('.ndjson', '.r1.ndjson');
    const [left] = readFileSync(rest, 'utf8')
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line));
    assert.deepEqual([left.sinks, left.row, left.at], [['clickhouse'], JSON.stringify(rows[2]), NOW.toISOString()]);
    assert.match(left.reason, /^TYPE_MISMATCH: z_raw is no Nullable\(Float64\): "high"/);
    // As long as nothing changes, nothing is moved.
    const same = await replay();
    assert.deepEqual([same.files, same.refused, readdirSync(folder('cvd')).includes(basename(rest))], [0, 1, true]);
    writeFileSync(rest, readFileSync(rest, 'utf8').replace('z_raw\\":\\"high\\"', 'z_raw\\":1.5'));
    assert.deepEqual([(await replay()).stored, await inTable('cvd')], [1, [6, 6]]);
    assert.deepEqual(harvestLetterFiles(pipeline.dir), []);
    assert.equal((await rowsIn(fileOf(rows[0]!))).length, 6);
  });

  test('a file whose rest was written and that was not moved any more is replayed again, and nothing is doubled', async () => {
    const rows = harvestRows('events', 0, 10);
    const [path] = append(lettersFor(rows, BOTH));
    const before = readFileSync(path!);
    const old = new Date(NOW.getTime() - 1).toISOString();
    const text = before
      .toString()
      .split('\n')
      .map((line, i) => (i < 3 ? line.replace(NOW.toISOString(), old) : line));
    writeFileSync(path!, text.join('\n'));
    const select: HarvestReplayOptions['select'] = ({ at }) => at !== old;
    assert.deepEqual([(await replay({ select })).left, await inTable('events')], [3, [7, 7]]);
    const rest = path!.replace('.ndjson', '.r1.ndjson');
    assert.deepEqual(readFileSync(rest, 'utf8').trimEnd().split('\n'), text.slice(0, 3));
    // As a crash between the two leaves it.
    copyFileSync(join(folder('events'), 'done', basename(path!)), path!);
    await replay({ select });
    assert.deepEqual(readdirSync(folder('events')).sort(), ['done', basename(rest)].sort());
    await replay();
    assert.deepEqual([(await rowsIn(fileOf(rows[0]!))).length, await inTable('events')], [10, [10, 10]]);
  });

  test('a database that goes away in the middle: what is delivered stays so, the file stays, the next replay goes on', async () => {
    const rows = harvestRows('fusion', 0, 300);
    append(lettersFor(rows, BOTH));
    let isAway = false;
    proxy.onRequest = (statement) => {
      if (isAway) return 'refused';
      isAway = statement.includes('INSERT INTO');
      return isAway ? 'answer_lost' : null;
    };
    await assert.rejects(replay({ client: far }), /: 0 letters were delivered; run replay again/);
    assert.equal((await rowsIn(fileOf(rows[0]!))).length, 300);
    assert.equal(harvestLetterFiles(pipeline.dir).length, 1);
    proxy.onRequest = () => null;
    const done = await replay({ client: far });
    assert.deepEqual([done.replayed, done.written, done.stored], [300, 0, 0]);
    assert.deepEqual([await rowsIn(fileOf(rows[0]!)), await inTable('fusion')], [rows, [300, 300]]);
  });

  test('killed at any moment, the next replay goes on, and no row is twice in a file or a table', async () => {
    const rows = harvestRows('features', 0, 400);
    const halves = [rows.slice(0, 200), rows.slice(200)];
    for (const half of halves) append(lettersFor(half, BOTH));
    const file = fileOf(rows[0]!);
    const isThere = async (count: number) => existsSync(file) && (await rowsIn(file)).length >= count;
    // When the first file is written, when the first insert is there, and at its start.
    const moments: ((child: ChildProcess) => Promise<boolean>)[] = [
      async () => isThere(200),
      async () => (await inTable('features'))[0]! > 0,
      async ({ pid }) => pid !== undefined,
    ];
    for (const isNow of moments) {
      const child = command('replay', '--kind', 'features');
      const ended = once(child, 'close');
      await waitFor('the moment', READY_MS, async () => child.exitCode !== null || (await isNow(child)));
      child.kill('SIGKILL');
      await ended;
    }
    const ran = await run('replay', '--json');
    assert.equal(ran.status, 0, ran.stderr);
    assert.deepEqual(harvestLetterFiles(pipeline.dir), []);
    const found = await rowsIn(file);
    assert.deepEqual([found.length, new Set(found.map(({ row_id }) => row_id)).size], [400, 400]);
    assert.deepEqual(await inTable('features'), [400, 400]);
  });

  test('the command lists, explains and replays both sorts of letters side by side, and needs no broker for these', async () => {
    append(lettersFor(harvestRows('orderbook', 0, 3), ['jsonl'], 'ENOSPC: no space left on device, write'));
    append(lettersFor(harvestRows('ofi', 0, 2), ['clickhouse'], 'something else'));
    const ofStore = { reason: 'TYPE_MISMATCH: x', subject: 'orderbook.x', js_epoch: 1, js_seq: 1, row: '{}' };
    appendDeadLetters(pipeline.dir, 'orderbook', [ofStore], NOW);
    assert.deepEqual(
      letterFiles(pipeline.dir).map(({ name }) => name),
      ['2026-11-30.ndjson'],
    );
    const listed = JSON.parse((await run('list', '--json', '--kind', 'orderbook')).stdout).files;
    assert.deepEqual(
      listed.map((each: Record<string, unknown>) => [each.kind, each.file, each.rows]),
      [
        ['orderbook', '2026-11-30.ndjson', 1],
        ['orderbook', `BTC-USDT_${STAMP}_3.ndjson`, 3],
      ],
    );
    assert.deepEqual([listed[1].reasons[0].cause, listed[1].reasons[0].heals], ['disk full or not writable', true]);
    const explained = await run('explain', `orderbook/BTC-USDT_${STAMP}_3.ndjson:2`);
    assert.match(explained.stdout, /\nlacks {4}jsonl, orderbook of binance_derivatives\n.*\nheals {4}by a replay/);
    assert.match(explained.stdout, /\n {2}"ask5_q": null,?\n/);
    const dry = await run('replay', '--dry-run', '--kind', 'ofi');
    assert.deepEqual([dry.status, dry.stdout], [0, 'harvest: would replay 2 rows of 1 files\n']);
    const healing = await run('replay', '--healing', '--kind', 'ofi', '--json');
    assert.deepEqual([healing.status, JSON.parse(healing.stdout).harvest.left], [0, 2]);
    const lock = await harvestLock(pipeline.dir, 'binance_derivatives');
    const busy = await run('replay', '--kind', 'ofi');
    await lock.release();
    assert.deepEqual([busy.status, /^busy: 1 files of exchanges whose harvester runs/m.test(busy.stdout)], [3, true]);
    // The store's letter needs a broker, of which there is none; those of the harvest are replayed before that is said.
    const ran = await run('replay');
    assert.deepEqual([ran.status, ran.stdout.split('\n')[0]], [3, 'harvest: replayed 5 rows of 2 files']);
    assert.match(ran.stderr, /^no broker answers at /);
    assert.deepEqual(letterFiles(pipeline.dir).length, 1);
    assert.deepEqual([await inTable('ofi'), (await rowsIn(fileOf(harvestRow('orderbook', 0)))).length], [[2, 2], 3]);
  });

  test('a running harvester delivers its own letters: new ones and mended ones at once, the others ever more rarely', async () => {
    const lock = await harvestLock(pipeline.dir, 'binance_derivatives');
    try {
      const rows = harvestRows('ofi', 0, 50);
      const wrong = harvestRow('ofi', 60, { more: { scale: -1 } });
      let alone = 0;
      const healer = new HarvestHealer({
        ...{ dataDir: pipeline.dir, client: far, database: DATABASE, log, stop: never },
        held: ['binance_derivatives'],
        exclusively: async (work) => {
          alone += 1;
          return work();
        },
      });
      const error = await storeRows(client, DATABASE, 'ofi', [wrong], never).then(
        () => null,
        (why: unknown) => why,
      );
      append([...lettersOf(error, [wrong]), ...lettersFor(rows, BOTH)]);
      append(lettersFor(harvestRows('cvd', 0, 5, { exchange: 'okx_derivatives' }), BOTH));
      let isAway = true;
      let requests = 0;
      proxy.onRequest = () => {
        requests += 1;
        return isAway ? 'refused' : null;
      };
      await assert.rejects(healer.turn(0), /run replay again/);
      isAway = false;
      requests = 0;
      assert.deepEqual([(await healer.turn(59_999)).files, requests], [0, 0]);
      const second = await healer.turn(60_000);
      assert.deepEqual([second.replayed, second.left, alone], [50, 1, 2]);
      assert.deepEqual(await inTable('ofi'), [50, 50]);
      const [rest, okx] = harvestLetterFiles(pipeline.dir);
      assert.deepEqual([rest!.name, okx!.kind], [`BTC-USDT_${STAMP}_51.r1.ndjson`, 'cvd']);
      // New to it, so that it is tried, and refused again; then left alone.
      assert.equal((await healer.turn(61_000)).refused, 1);
      requests = 0;
      assert.deepEqual([(await healer.turn(10_000_000)).left, requests], [1, 0]);
      const path = join(rest!.directory, rest!.name);
      await new Promise((done) => setTimeout(done, 20));
      writeFileSync(path, readFileSync(path, 'utf8').replace('\\"scale\\":-1', '\\"scale\\":1'));
      assert.equal((await healer.turn(10_000_001)).stored, 1);
      assert.deepEqual(
        [await inTable('ofi'), await inTable('cvd')],
        [
          [51, 51],
          [0, 0],
        ],
      );
    } finally {
      await lock.release();
    }
  });
});

describe('the folders of the harvest', () => {
  test('the default exchange has the plain one, and a letter never leaves its own', async () => {
    const dir = mkdtempSync(join(tmpdir(), 'marketprism-'));
    try {
      assert.deepEqual(
        [rootOf(dir, 'binance_derivatives'), rootOf(dir, 'okx_derivatives')].map((path) => path.slice(dir.length)),
        ['/harvest', '/harvest-okx_derivatives'],
      );
      const row = harvestRow('prices', 1, { symbol: '../../../x' });
      appendHarvestLetters(dir, lettersFor([{ ...row, date: '../..', hour: '..' }], ['jsonl']), NOW);
      const client = createClickHouse({ url: 'http://127.0.0.1:1', username: 'default', password: '' }, 'test');
      const done = await replayHarvest({ dataDir: dir, client, database: 'none', log, stop: never });
      await client.close();
      assert.equal(done.written, 1);
      const path = join(dir, 'harvest', 'date=2026-11-30', 'hour=07', 'symbol=..%2F..%2F..%2Fx', 'kind=prices.jsonl');
      assert.ok(existsSync(path));
    } finally {
      rmSync(dir, { recursive: true, force: true });
    }
  });
});
