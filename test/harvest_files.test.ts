/** What is made of the harvest's files: manifests, Parquet, and a verdict. Real files, and the real engine for Parquet. */
import assert from 'node:assert/strict';
import {
  appendFileSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { createServer, request } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, afterEach, before, beforeEach, describe, test } from 'node:test';
import type { ClickHouseClient } from '@clickhouse/client';
import { ClickHouseProxy } from '../scripts/lib/chaos/clickhouse_proxy.ts';
import { createClickHouse } from '../scripts/lib/clickhouse.ts';
import {
  type ExportOptions,
  exportHours,
  parquetColumns,
  parquetPath,
  parquetRows,
  runExport,
} from '../scripts/lib/harvest/export.ts';
import { dateHour, HARVEST_KINDS, type HarvestKind, placePath } from '../scripts/lib/harvest/kinds.ts';
import { manifestPath, readManifest, runManifest, writeManifests } from '../scripts/lib/harvest/manifest.ts';
import { blocksOf, extentOf, HOUR_MS, IdSet, linesIn, slicesOf } from '../scripts/lib/harvest/slices.ts';
import type { HarvestLine } from '../scripts/lib/harvest/table.ts';
import { runValidate, validate, validationText } from '../scripts/lib/harvest/validate.ts';
import { Latencies } from '../scripts/lib/harvest/validate_figures.ts';
import type { Gate } from '../scripts/lib/harvest/validate_gates.ts';
import { JsonlWriter } from '../scripts/lib/jsonl.ts';
import { createLogger } from '../scripts/lib/log.ts';
import { HOUR, harvestRow, harvestRows } from './harvest_rows.ts';
import { Pipeline } from './pipeline.ts';

const log = createLogger('test', 'silent');
const LATER = HOUR + 100 * HOUR_MS;
const DAY_MS = 24 * HOUR_MS;

const fileOf = (root: string, row: HarvestLine) =>
  join(
    root,
    `${placePath({ ...dateHour(row.ts_ms as number), symbol: row.symbol as string, kind: row.kind as HarvestKind })}.jsonl`,
  );

/** Appends rows to their files. */
function write(root: string, rows: readonly HarvestLine[]): void {
  const groups = new Map<string, HarvestLine[]>();
  for (const row of rows) {
    const path = fileOf(root, row);
    if (!groups.has(path)) groups.set(path, []);
    groups.get(path)!.push(row);
  }
  for (const [path, group] of groups) {
    const writer = new JsonlWriter(path, log);
    writer.append(group);
    writer.close();
  }
}

/** Takes what a command says. */
function sink() {
  const said: string[] = [];
  const out = { isTTY: false, write: (text: string) => said.push(text) > 0 } as unknown as NodeJS.WriteStream;
  return { out, text: () => said.join('') };
}

let root: string;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'marketprism-harvest-'));
});
const clear = () => rmSync(root, { recursive: true, force: true });
afterEach(clear);

describe('reading files of the harvest', () => {
  test('finds files by hour, symbol and kind, and nothing else', () => {
    write(root, [
      harvestRow('prices', 1),
      harvestRow('ofi', 1, { at: HOUR + HOUR_MS }),
      harvestRow('ofi', 1, { symbol: 'A/B' }),
      harvestRow('events', 1, { at: HOUR - HOUR_MS }),
    ]);
    writeFileSync(fileOf(root, harvestRow('prices', 1)).replace('.jsonl', '.parquet'), '');
    writeFileSync(fileOf(root, harvestRow('prices', 1)).replace('kind=prices.jsonl', 'kind=other.jsonl'), '');
    const told = (choice = {}) => slicesOf(root, choice).map(({ hour, symbol, kind }) => `${hour} ${symbol} ${kind}`);
    assert.deepEqual(told(), ['06 BTC-USDT events', '07 A/B ofi', '07 BTC-USDT prices', '08 BTC-USDT ofi']);
    assert.deepEqual(told({ from: HOUR + 1, to: HOUR + HOUR_MS }), ['07 A/B ofi', '07 BTC-USDT prices']);
    assert.deepEqual(told({ symbols: ['A/B'] }), ['07 A/B ofi']);
    assert.deepEqual(slicesOf(join(root, 'none')), []);
  });

  test('lines come whole across pieces, numbered, up to where the file ended; half a line that is being written is none', async () => {
    const path = join(root, 'lines');
    const long = 'x'.repeat(3 * 2 ** 20);
    writeFileSync(path, ['a', '', long, long, 'b', 'half'].join('\n'));
    const read = async (extent = extentOf(path)) => {
      const found: [number, number][] = [];
      for await (const block of blocksOf(path, extent))
        for (const { number, bytes } of linesIn(block)) found.push([number, bytes.length]);
      return found;
    };
    const whole = [
      [1, 1],
      [3, long.length],
      [4, long.length],
      [5, 1],
    ];
    assert.deepEqual(await read(), [...whole, [6, 4]]);
    const before = extentOf(path);
    appendFileSync(path, ' and more\n');
    assert.deepEqual(await read(before), whole);
    assert.deepEqual(await read(), [...whole, [6, 13]]);
  });

  test('counts ids of any form exactly, also when it has grown many times', () => {
    const ids = new IdSet();
    const all = Array.from({ length: 6000 }, (_, i) => String(harvestRow('ofi', i).row_id));
    for (const id of [...all, ...all, '0'.repeat(32), '0'.repeat(32), 'no md5', 'no md5']) ids.add(id);
    assert.equal(ids.size, 6002);
    assert.equal(ids.add(all[77]!), false);
    // Differ in their last word only, and share a place.
    assert.deepEqual(
      [ids.add(`${'1'.repeat(31)}2`), ids.add(`${'1'.repeat(31)}3`), ids.add(`${'1'.repeat(31)}2`)],
      [true, true, false],
    );
  });
});

describe('manifests', () => {
  const manifests = (more: Partial<Parameters<typeof writeManifests>[0]> = {}) =>
    writeManifests({ root, now: LATER, ...more });

  test('count what is in the files of an hour that is over, and are written anew only when one has changed', async () => {
    const scenario = (n: number, scenario_2x2: string | null, revision = 0) =>
      harvestRow('features', n, { more: { scenario_2x2, revision, row_id: `${revision}${n}`.padStart(32, '0') } });
    const prices = harvestRows('prices', 0, 30);
    write(root, [
      ...prices,
      { ...prices[3]! },
      harvestRow('prices', 40, { more: { reconnect_count: 3 } }),
      ...[scenario(0, 'A_H'), scenario(1, 'A_H'), scenario(2, null), scenario(3, 'Q_L'), scenario(0, 'Q_L', 1)],
      ...harvestRows('ofi', 0, 2, { symbol: 'ETH-USDT' }),
    ]);
    const path = fileOf(root, prices[0]!);
    appendFileSync(path, 'no row\n');
    assert.deepEqual((await manifests({ now: HOUR + HOUR_MS - 1 })).hours, 0);
    const first = await manifests({ now: HOUR + HOUR_MS });
    assert.deepEqual([first.hours, first.written], [1, [join(root, 'manifest', 'slices_manifest_20261130_07.json')]]);
    const manifest = readManifest(root, HOUR)!;
    assert.deepEqual([manifest.revision, manifest.rows, manifest.date, manifest.hour], [1, 39, '2026-11-30', '07']);
    const { kinds, ...btc } = manifest.symbols['BTC-USDT']!;
    const { size, mtimeMs } = statSync(path);
    assert.deepEqual(kinds.prices, {
      ...{ rows: 32, bytes: size, first_ts_ms: HOUR, last_ts_ms: HOUR + 4000, unique_row_ids: 31, bad_lines: 1 },
      changed_ms: Math.floor(mtimeMs),
    });
    assert.deepEqual(btc, {
      ...{ reconnects: 3, seconds: 4, scenarios: { A_H: 0.25, A_L: 0, Q_H: 0, Q_L: 0.5 }, scenario_unknown: 0.25 },
      scene_coverage_miss: ['A_L', 'Q_H'],
    });
    const eth = manifest.symbols['ETH-USDT']!;
    assert.deepEqual([eth.scenarios.A_H, eth.scenario_unknown, eth.scene_coverage_miss], [null, null, null]);
    const text = readFileSync(manifestPath(root, HOUR), 'utf8');
    assert.deepEqual([(await manifests()).unchanged, readFileSync(manifestPath(root, HOUR), 'utf8')], [1, text]);
    write(root, [harvestRow('prices', 50)]);
    assert.equal((await manifests()).written.length, 1);
    assert.deepEqual([readManifest(root, HOUR)!.revision, readManifest(root, HOUR)!.rows], [2, 40]);
    // A file more, and a damaged manifest.
    write(root, [harvestRow('events', 1)]);
    await manifests();
    assert.equal(readManifest(root, HOUR)!.revision, 3);
    writeFileSync(manifestPath(root, HOUR), '{"date":');
    assert.deepEqual([(await manifests()).written.length, readManifest(root, HOUR)!.rows], [1, 41]);
  });

  test('the command tells what it wrote, and says when there was nothing', async () => {
    const none = sink();
    assert.deepEqual(
      [await runManifest({ root, flags: {}, now: LATER, out: none.out }), /^no files /.test(none.text())],
      [3, true],
    );
    write(root, harvestRows('ofi', 0, 2));
    const some = sink();
    assert.equal(await runManifest({ root, flags: { json: true }, now: LATER, out: some.out }), 0);
    assert.deepEqual([JSON.parse(some.text()).hours, JSON.parse(some.text()).unchanged], [1, 0]);
    await assert.rejects(
      runManifest({ root, flags: { symbol: 'x' }, now: LATER }),
      /--symbol does not belong to --manifest/,
    );
  });
});

describe('Parquet', () => {
  const pipeline = new Pipeline();
  const DATABASE = 'marketprism_signals';
  let client: ClickHouseClient;
  let far: ClickHouseClient;
  let proxy: ClickHouseProxy;

  before(async () => {
    await pipeline.choosePorts();
    await pipeline.startDatabase();
    client = pipeline.client();
    await client.command({ query: `CREATE DATABASE ${DATABASE}` });
    proxy = new ClickHouseProxy(pipeline.env.CLICKHOUSE_URL!);
    await proxy.listen(0);
    far = createClickHouse({ url: `http://127.0.0.1:${proxy.port}`, username: 'default', password: '' }, 'test');
  });
  beforeEach(() => {
    proxy.onRequest = () => null;
  });
  after(async () => {
    await far?.close();
    await proxy?.close();
    await pipeline.close();
  });

  const run = (more: Partial<ExportOptions> = {}) =>
    exportHours({ root, client, database: DATABASE, now: LATER, ...more });
  const tables = async () =>
    (await pipeline.query(`SELECT count() FROM system.tables WHERE database = '${DATABASE}'`))[0]![0];

  /** A server whose Parquet answers are 500 bytes long. */
  async function shortAnswers(target: string) {
    const server = createServer((incoming, answer) => {
      const outgoing = request(`${target}${incoming.url}`, { method: incoming.method, headers: incoming.headers });
      outgoing.on('response', (response) => {
        const isParquet = response.headers['x-clickhouse-format'] === 'Parquet';
        answer.writeHead(response.statusCode!, response.headers);
        const chunks: Buffer[] = [];
        response.on('data', (chunk: Buffer) => chunks.push(chunk));
        response.on('end', () => answer.end(Buffer.concat(chunks).subarray(0, isParquet ? 500 : undefined)));
      });
      incoming.pipe(outgoing);
    });
    await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    const made = createClickHouse({ url, username: 'default', password: '' }, 'test');
    const close = async () => {
      await made.close();
      server.closeAllConnections();
      await new Promise((done) => server.close(done));
    };
    return { client: made, close };
  }

  /** A Parquet file as ClickHouse reads it. */
  async function readBack(path: string, columns = '*'): Promise<Record<string, unknown>[]> {
    const result = await client.query({
      query: `SELECT ${columns} FROM file('${path}', Parquet)`,
      format: 'JSONEachRow',
    });
    return result.json();
  }

  test('has every member of every row to the last digit, in the order of time, with exact types', async () => {
    for (const kind of HARVEST_KINDS) {
      const rows = harvestRows(kind, 0, 50);
      // Of one ms, in the order of the file; and one that came late.
      const same = [50, 51, 52].map((n) => harvestRow(kind, n, { at: HOUR + 60_000 }));
      write(root, [...rows.slice(1), ...same, rows[0]!]);
      const { exported, failed } = await run();
      assert.deepEqual([failed, exported], [[], [parquetPath(fileOf(root, rows[0]!))]], kind);
      const found = await readBack(exported[0]!);
      const expected = [...rows, ...same];
      assert.equal(found.length, 53, kind);
      for (const [i, row] of expected.entries()) {
        for (const [name, value] of Object.entries(row)) {
          const there = found[i]![name];
          assert.deepEqual(typeof value === 'number' ? Number(there) : there, value, `${kind} ${i} ${name}`);
        }
      }
      assert.deepEqual(Object.keys(found[0]!), Object.keys(rows[0]!), kind);
      const types = await pipeline.query(
        `DESCRIBE TABLE file('${exported[0]}', Parquet) SETTINGS schema_inference_make_columns_nullable = 'auto'`,
      );
      const told = Object.fromEntries(types.map(([name, type]) => [name!, type!]));
      for (const { name, type } of parquetColumns(kind)) {
        assert.equal(told[name], type, `${kind}.${name}`);
      }
    }
    assert.equal(await tables(), '0');
  });

  test('is made of hours that are over, where it is missing or older than its file; nothing of it is left over', async () => {
    write(root, [
      harvestRow('ofi', 0),
      harvestRow('ofi', 1, { at: HOUR + HOUR_MS }),
      harvestRow('cvd', 0, { symbol: 'ETH-USDT' }),
    ]);
    const path = fileOf(root, harvestRow('ofi', 0));
    // Of an export that was killed.
    writeFileSync(`${parquetPath(path)}.1.tmp`, 'PAR1');
    assert.deepEqual((await run({ now: HOUR + HOUR_MS, symbols: ['BTC-USDT'] })).exported, [parquetPath(path)]);
    assert.deepEqual(readdirSync(dirname(path)).sort(), ['kind=ofi.jsonl', 'kind=ofi.parquet']);
    const { exported, unchanged } = await run({ from: HOUR, to: HOUR + HOUR_MS });
    assert.deepEqual([exported.length, unchanged], [1, 1]);
    assert.equal((await run()).exported.length, 1);
    assert.deepEqual((await run()).unchanged, 3);
    write(root, [harvestRow('ofi', 5)]);
    const soon = (statSync(parquetPath(path)).mtimeMs + 3) / 1000;
    utimesSync(path, soon, soon);
    const again = await run();
    assert.deepEqual([again.exported, again.rows, await parquetRows(parquetPath(path))], [[parquetPath(path)], 2, 2]);
    assert.equal(await tables(), '0');
  });

  test('a row that is wrong, or a line that is none, leaves its file without one, and says so; the others have theirs', async () => {
    write(root, [
      harvestRow('ofi', 0),
      harvestRow('cvd', 0, { more: { cvd: 'many' } }),
      harvestRow('events', 0),
      harvestRow('fusion', 0, { more: { other: 1 } }),
    ]);
    const { score: _score, ...without } = harvestRow('fusion', 1, { symbol: 'ETH-USDT' });
    write(root, [without as HarvestLine]);
    appendFileSync(fileOf(root, harvestRow('events', 0)), '{"half":\n');
    const { out, text } = sink();
    assert.equal(await runExport({ root, client, database: DATABASE, flags: {}, now: LATER, out }), 1);
    assert.match(text(), /^not exported: \S+kind=cvd.jsonl: CANNOT_PARSE\w+: .*cvd/m);
    assert.match(text(), /^not exported: \S+kind=events.jsonl: line 2 is no JSON object/m);
    assert.match(text(), /^not exported: \S+kind=fusion.jsonl: INCORRECT_DATA: .*other/m);
    assert.match(text(), /^not exported: \S+ETH-USDT\/kind=fusion.jsonl: FUNCTION_THROW_IF\w+: .*score is absent/m);
    assert.match(text(), /^1 Parquet files made \(1 rows\), 0 as they were, 4 not made, of 5 files$/m);
    assert.equal(await tables(), '0');
  });

  test('a database that errs is asked again; an answer that breaks off makes no file; tables of a killed export go', async () => {
    write(root, harvestRows('ofi', 0, 2000));
    const path = fileOf(root, harvestRow('ofi', 0));
    let left = 1;
    proxy.onRequest = (statement) => (statement.includes('INSERT INTO') && left-- > 0 ? 'answer_lost' : null);
    assert.deepEqual((await run({ client: far })).rows, 2000);
    rmSync(parquetPath(path));
    // Both tries leave their tables behind: they cannot be dropped.
    proxy.onRequest = (statement) => (/^SELECT kind, |^DROP TABLE/.test(statement) ? 'refused' : null);
    const { failed, tables_left } = await run({ client: far });
    assert.deepEqual([failed.length, tables_left.length], [1, 2]);
    assert.deepEqual([readdirSync(dirname(path)), await tables()], [['kind=ofi.jsonl'], '2']);
    proxy.onRequest = () => null;
    assert.deepEqual([(await run({ client: far })).rows, await tables()], [2000, '0']);
    // An answer that ends too early and says nothing of it.
    rmSync(parquetPath(path));
    const short = await shortAnswers(pipeline.env.CLICKHOUSE_URL!);
    const cut = await run({ client: short.client });
    await short.close();
    assert.match(cut.failed[0]!.why, /not whole/);
    assert.deepEqual([readdirSync(dirname(path)), await tables()], [['kind=ofi.jsonl'], '0']);
    await run();
    const none = sink();
    rmSync(parquetPath(path));
    proxy.onRequest = () => 'refused';
    await assert.rejects(
      runExport({ root, client: far, database: DATABASE, flags: {}, now: LATER, out: none.out }),
      /^OperatorError: nothing is exported without the database: /,
    );
  });

  test('a Parquet file that is cut off, or followed by something, is none', async () => {
    write(root, harvestRows('fusion', 0, 500));
    const [path] = (await run()).exported;
    assert.equal(await parquetRows(path!), 500);
    appendFileSync(path!, 'Code: 241. DB::Exception: Memory limit');
    await assert.rejects(parquetRows(path!), /not whole/);
    truncateSync(path!, 1000);
    await assert.rejects(parquetRows(path!), /not whole/);
    truncateSync(path!, 5);
    await assert.rejects(parquetRows(path!), /5 bytes/);
  });
});

describe('validating', () => {
  /** A sound hour and a half of one symbol: a price each half second, features each second. */
  function sound(symbol = 'BTC-USDT', minutes = 90): HarvestLine[] {
    const prices = Array.from({ length: minutes * 2 }, (_, i) =>
      harvestRow('prices', i, { symbol, at: HOUR + i * 30_000 }),
    );
    const books = Array.from({ length: 50 }, (_, i) =>
      harvestRow('orderbook', i, { symbol, more: { latency_ms: 30 } }),
    );
    return [
      ...prices,
      ...books,
      ...harvestRows('features', 0, 4000, { symbol }),
      ...harvestRows('events', 0, 5, { symbol }),
    ];
  }
  const gap = (at: number, meta: object) =>
    harvestRow('events', 900, { at, more: { event_type: 'gap', meta_json: JSON.stringify(meta) } });
  const check = (more = {}) => validate({ root, now: LATER, ...more });
  const gateOf = (gates: Gate[], name: string) => {
    const { status, value, detail } = gates.find(({ gate }) => gate === name)!;
    return [status, value, detail];
  };

  test('sound files are healthy; what is too short for a gate is not judged, and never passed', async () => {
    write(root, sound());
    await writeManifests({ root, now: LATER });
    const found = await check();
    assert.deepEqual([found.status, found.files, found.hours], ['healthy', 6, 2]);
    const { gates, figures } = found.all;
    assert.deepEqual(
      gates.map(({ gate, status }) => `${gate} ${status}`),
      [
        'empty_minutes passed',
        'duplicates passed',
        'latency_p50 passed',
        'latency_p99 passed',
        'events not_judged',
        'seconds passed',
        'manifest passed',
      ],
    );
    assert.deepEqual([figures.rows, figures.minutes, figures.latency_p50_ms, figures.seconds], [4235, 90, 20, 4000]);
    const { out, text } = sink();
    assert.equal(await runValidate({ root, flags: {}, now: LATER, out }), 0);
    assert.match(text(), /^BTC-USDT +4235 +90 +0 +0 +0 +20 +30 +0 +5 +4000 +0 +5 passed, 0 missed, 1 not judged$/m);
    assert.match(text(), /^not judged: all events: 5 in 1\.5 h$/m);
  });

  test('nothing found is no good news', async () => {
    const { out, text } = sink();
    assert.equal(await runValidate({ root, flags: {}, now: LATER, out }), 3);
    assert.match(text(), /^could not check: no rows /);
    // As the original looked for them: without the hour.
    write(root, sound());
    assert.equal(await runValidate({ root: join(root, 'date=2026-11-30'), flags: { json: true }, now: LATER, out }), 3);
    assert.equal(await runValidate({ root, flags: { from: '2026-12-02' }, now: LATER, out }), 3);
    assert.equal(await runValidate({ root, flags: { symbol: 'XRP-USDT' }, now: LATER, out }), 3);
    await assert.rejects(
      runValidate({ root, flags: { from: '2026-12-02', to: '2026-12-01' }, now: LATER, out }),
      /--from takes a time before/,
    );
  });

  test('empty minutes count whether or not they are known as gaps, and which are is told', async () => {
    const rows = sound('BTC-USDT', 600).filter(({ kind, ts_ms }) => {
      const minute = ((ts_ms as number) - HOUR) / 60_000;
      const isOut = (minute >= 10 && minute < 12) || (minute >= 20 && minute < 21) || (minute >= 30 && minute < 33);
      return kind !== 'prices' || !isOut;
    });
    write(root, [
      ...rows,
      gap(HOUR + 12 * 60_000, { cause: 'silence', from: HOUR + 11 * 60_000, to: HOUR + 12 * 60_000 }),
      gap(HOUR + 21 * 60_000 + 5, { cause: 'missing_trades', from: 5, to: 9, missing: 5 }),
    ]);
    const { status, symbols } = await check();
    const { gates, figures } = symbols['BTC-USDT']!;
    assert.deepEqual([figures.minutes, figures.empty_minutes, figures.known_empty_minutes], [600, 6, 3]);
    assert.deepEqual(gateOf(gates, 'empty_minutes'), ['missed', 0.01, '6 of 600 minutes, 3 known as gaps']);
    assert.deepEqual([status, figures.gaps, figures.events], ['degraded', 2, 5]);
  });

  test('a second that is missing or told twice is found; one in a silence is not held against it', async () => {
    const without = new Set([100, 101, 200]);
    const rows = sound().filter(
      ({ kind, ts_ms }) => kind !== 'features' || !without.has(((ts_ms as number) - HOUR) / 1000),
    );
    write(root, [...rows, gap(HOUR + 102_000, { cause: 'silence', from: HOUR + 100_000, to: HOUR + 102_000 })]);
    const found = await check();
    assert.deepEqual(gateOf(found.all.gates, 'seconds'), ['missed', 1, '3 missing, 2 known as gaps, 0 repeated']);
    assert.equal(found.status, 'degraded');
    write(root, [
      harvestRow('features', 200),
      harvestRow('features', 300, { more: { revision: 1, row_id: 'b'.repeat(32) } }),
    ]);
    assert.deepEqual(gateOf((await check()).all.gates, 'seconds').slice(0, 2), ['passed', 0]);
    write(root, [harvestRow('features', 300, { more: { row_id: 'c'.repeat(32) } })]);
    const last = await check();
    assert.deepEqual(
      [last.status, last.all.figures.repeated_seconds, last.all.figures.duplicates],
      ['unhealthy', 1, 0],
    );
  });

  test('a duplicate, a line that is no row and a row of another hour are told with their file, and make it unhealthy', async () => {
    write(root, sound());
    write(root, [harvestRow('orderbook', 7)]);
    const duplicated = await check();
    const path = fileOf(root, harvestRow('orderbook', 7));
    assert.deepEqual(
      [duplicated.status, duplicated.duplicate_rows],
      ['unhealthy', [{ path, row_id: harvestRow('orderbook', 7).row_id }]],
    );
    assert.deepEqual(gateOf(duplicated.all.gates, 'duplicates').slice(0, 1), ['passed'], 'below the limit, and told');
    assert.deepEqual(duplicated.all.figures.duplicates_of, { prices: 0, orderbook: 1, events: 0, features: 0 });
    clear();
    root = mkdtempSync(join(tmpdir(), 'marketprism-harvest-'));
    write(root, sound());
    appendFileSync(
      path.replace(/^.*?(?=\/date=)/, root),
      `[1]\n\n{"ts_ms":1}\n${JSON.stringify(harvestRow('orderbook', 1, { at: HOUR - 5 }))}\n{"ts`,
    );
    const { status, bad_lines, bad_line_count } = await check();
    assert.deepEqual([status, bad_line_count], ['unhealthy', 4]);
    assert.deepEqual(
      bad_lines.map(({ line, why }) => [line, why.slice(0, 20)]),
      [
        [51, 'no object'],
        [53, 'row_id is no text'],
        [54, 'ts_ms is not of the '],
        [55, 'Unterminated string '],
      ],
    );
  });

  test('latencies are judged at their quantiles; unknown ones are counted', async () => {
    const counted = new Latencies();
    for (let ms = 1; ms <= 200; ms++) counted.add(ms);
    for (const each of [null, undefined, -1]) counted.add(each);
    counted.add(90_000);
    assert.deepEqual(
      [counted.quantile(0.5), counted.quantile(0.99), counted.quantile(1), counted.unknown],
      [101, 199, 60_000, 3],
    );
    assert.equal(new Latencies().quantile(0.5), null);
    write(
      root,
      sound().map((row, i) => ({ ...row, latency_ms: i % 50 === 0 ? 120 : i % 7 === 0 ? null : 59 })),
    );
    const { gates } = (await check()).all;
    assert.deepEqual(gateOf(gates, 'latency_p50').slice(0, 2), ['passed', 59]);
    assert.deepEqual(gateOf(gates, 'latency_p99'), ['missed', 120, '32 rows without a latency']);
  });

  test('events are judged from 72 hours on', async () => {
    const at = (i: number, span: number) => HOUR + Math.floor((i * span) / 1000);
    write(
      root,
      Array.from({ length: 1001 }, (_, i) => harvestRow('events', i, { at: at(i, 72 * HOUR_MS) })),
    );
    assert.deepEqual(gateOf((await check()).all.gates, 'events').slice(0, 2), ['passed', 1001]);
    const { gates } = (await check({ from: HOUR + 1 })).all;
    assert.deepEqual(gateOf(gates, 'events').slice(0, 2), ['not_judged', null]);
    clear();
    root = mkdtempSync(join(tmpdir(), 'marketprism-harvest-'));
    write(
      root,
      Array.from({ length: 1001 }, (_, i) => harvestRow('events', i, { at: at(i, 80 * HOUR_MS) })),
    );
    const missed = gateOf((await check()).all.gates, 'events');
    assert.deepEqual([missed[0], Math.round(missed[1] as number)], ['missed', 901]);
  });

  test('a manifest that says something else than the files, or of a file that is gone, is told', async () => {
    write(root, sound());
    assert.deepEqual(gateOf((await check()).all.gates, 'manifest'), ['not_judged', null, '2 of 2 hours have none']);
    await writeManifests({ root, now: LATER });
    const path = fileOf(root, harvestRow('orderbook', 7));
    write(root, [harvestRow('orderbook', 70)]);
    rmSync(fileOf(root, harvestRow('events', 0)));
    const { status, manifests } = await check();
    assert.deepEqual(manifests.faults, [
      `${path}: 51 rows, 50 in the manifest, which is older than the file: --manifest writes it anew`,
      '2026-11-30T07:00:00.000Z BTC-USDT events: in the manifest, and there is no file',
    ]);
    assert.equal(status, 'degraded');
    await writeManifests({ root, now: LATER });
    const after = await check();
    assert.deepEqual(after.manifests.faults, []);
    assert.equal(validationText(after).includes('manifest:'), false);
    assert.ok(existsSync(manifestPath(root, HOUR)));
  });

  test('an hour that lost all its files is told by its manifest, a day that went as too old is not', async () => {
    const lost = [HOUR, HOUR + 2 * HOUR_MS];
    const hours = [HOUR - DAY_MS, ...lost, HOUR + 3 * HOUR_MS];
    write(
      root,
      hours.map((at, i) => harvestRow('orderbook', i, { at })),
    );
    await writeManifests({ root, now: LATER + DAY_MS });
    rmSync(join(root, 'date=2026-11-29'), { recursive: true });
    for (const [i, at] of lost.entries()) rmSync(fileOf(root, harvestRow('orderbook', i + 1, { at })));
    const told = lost.map(
      (at) => `${new Date(at).toISOString()} BTC-USDT orderbook: in the manifest, and there is no file`,
    );
    const { status, manifests } = await check();
    assert.deepEqual(manifests.faults, told);
    assert.equal(status, 'degraded');
    assert.deepEqual((await check({ from: HOUR + HOUR_MS })).manifests.faults, told.slice(1));
  });

  test('an empty file whose manifest tells of rows is told, although there is nothing else to check', async () => {
    write(root, [harvestRow('orderbook', 0)]);
    await writeManifests({ root, now: LATER });
    const path = fileOf(root, harvestRow('orderbook', 0));
    truncateSync(path);
    const validation = await check();
    assert.equal(validation.status, 'degraded');
    assert.match(validationText(validation), /^manifest: .*: 0 rows, 1 in the manifest/m);
  });
});
