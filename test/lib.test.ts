import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, realpathSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { duration, UsageError, wholeNumber } from '../scripts/lib/cli.ts';
import { loadConfig, shownUrl } from '../scripts/lib/config.ts';
import { DistinctCounter, distinctKey } from '../scripts/lib/distinct.ts';
import { takeLock } from '../scripts/lib/lock.ts';
import { Child, waitFor } from '../scripts/lib/processes.ts';
import type { Exchange, Rows } from '../scripts/lib/rows.ts';

const directory = mkdtempSync(join(tmpdir(), 'marketprism-lib-'));
after(() => rmSync(directory, { recursive: true, force: true }));

describe('the lock', () => {
  test('is held by one, tells who that is, and is free again after a release', async () => {
    const lock = await takeLock(directory, 'store');
    await assert.rejects(takeLock(directory, 'store'), new RegExp(`already held \\(pid ${process.pid}, since `));
    const other = await takeLock(directory, 'collector a');
    const elsewhere = await takeLock(mkdtempSync(join(directory, 'other-')), 'store');
    await lock.release();
    const again = await takeLock(directory, 'store');
    await Promise.all([again.release(), other.release(), elsewhere.release()]);
  });

  test('knows a directory by whatever path it is reached', async () => {
    const link = `${realpathSync(directory)}-link`;
    symlinkSync(directory, link);
    const lock = await takeLock(directory, 'store');
    try {
      await assert.rejects(takeLock(link, 'store'), /already held/);
    } finally {
      await lock.release();
      rmSync(link);
    }
  });

  test('is released by a kill of its holder', async () => {
    const script = `import { takeLock } from ${JSON.stringify(join(import.meta.dirname, '../scripts/lib/lock.ts'))};
      await takeLock(${JSON.stringify(directory)}, 'killed');
      console.log('held');
      setInterval(() => {}, 1000);`;
    const holder = spawn(process.execPath, ['--import', 'tsx', '--input-type=module', '-e', script]);
    await new Promise((done) => holder.stdout.once('data', done));
    await assert.rejects(takeLock(directory, 'killed'), new RegExp(`pid ${holder.pid}`));
    const gone = new Promise((done) => holder.once('close', done));
    holder.kill('SIGKILL');
    await gone;
    await (await takeLock(directory, 'killed')).release();
  });
});

describe('the configuration', () => {
  test('a demo has databases and data of its own, whatever is not said', () => {
    const live = loadConfig({ MARKETPRISM_DATA_DIR: '/d' });
    const demo = loadConfig({ MARKETPRISM_DATA_DIR: '/d', MARKETPRISM_MODE: 'demo' });
    assert.deepEqual(
      [live.mode, live.hotDatabase, live.coldDatabase, live.signalsDatabase, live.dataDir],
      ['live', 'marketprism_hot', 'marketprism_cold', 'marketprism_signals', '/d'],
    );
    assert.deepEqual(
      [demo.mode, demo.hotDatabase, demo.coldDatabase, demo.signalsDatabase, demo.dataDir],
      ['demo', 'marketprism_demo_hot', 'marketprism_demo_cold', 'marketprism_demo_signals', '/d/demo'],
    );
  });

  test('our own variables win over the general ones, and an empty one counts as absent', () => {
    const config = loadConfig({ NATS_URL: 'nats://a:1', MARKETPRISM_NATS_URL: 'nats://b:2', MARKETPRISM_MODE: '' });
    assert.deepEqual([config.natsUrl, config.mode], ['nats://b:2', 'live']);
    assert.equal(loadConfig({ NATS_URL: 'nats://a:1' }).natsUrl, 'nats://a:1');
    assert.equal(loadConfig({ CLICKHOUSE_URL: 'http://c:1' }).coldClickhouseUrl, 'http://c:1');
  });

  test('streams are kept by 1, 3 or 5 servers; by how many, is left open where nothing is said', () => {
    assert.equal(loadConfig({}).streamReplicas, undefined);
    assert.equal(loadConfig({ MARKETPRISM_STREAM_REPLICAS: '3' }).streamReplicas, 3);
    for (const text of ['2', '0', '3.0', 'three'])
      assert.throws(
        () => loadConfig({ MARKETPRISM_STREAM_REPLICAS: text }),
        (error) =>
          error instanceof UsageError &&
          error.message ===
            `MARKETPRISM_STREAM_REPLICAS: takes the number of servers that keep each stream: 1, 3 or 5, not "${text}"`,
      );
  });

  test('a wrong value is told by its variable; a password never', () => {
    assert.throws(
      () => loadConfig({ MARKETPRISM_MODE: 'test' }),
      (error) =>
        error instanceof UsageError &&
        error.exitCode === 64 &&
        /^MARKETPRISM_MODE: .*, not "test"$/.test(error.message),
    );
    const file = join(directory, 'endpoints.json');
    for (const content of ['{', '{"binance_spot":{"ws":"http://x","rest":"http://x"}}', '{"nowhere":{}}']) {
      writeFileSync(file, content);
      assert.throws(() => loadConfig({ MARKETPRISM_ENDPOINTS: file }), /^UsageError: MARKETPRISM_ENDPOINTS: /);
    }
    for (const text of ['1.5', '-1', '1e2', '', '9']) assert.throws(() => wholeNumber('--n', text, 1, 8), UsageError);
    assert.equal(duration('--for', '1.5m'), 90_000);
    for (const text of ['5', '1w', '-1s', 's']) assert.throws(() => duration('--for', text), UsageError);
  });
});

describe('a script', () => {
  const manage = join(import.meta.dirname, '..', 'scripts', 'manage.ts');

  test('whose reader went away ends quietly', () => {
    const result = spawnSync(
      'bash',
      ['-c', `set -o pipefail; "$0" --import tsx "$1" sql | head -c 10`, process.execPath, manage],
      {
        encoding: 'utf8',
      },
    );
    assert.deepEqual([result.stderr, result.status], ['', 0]);
  });
});

describe('distinct keys', () => {
  test('are counted once each, also when they come late or again', () => {
    const counter = new DistinctCounter();
    for (const id of [10, 11, 12, 11, 10, 15, 13, 14, 13, 16]) counter.add(id);
    assert.equal(counter.count, 7);
    const texts = new DistinctCounter();
    for (const key of ['a', 'b', 'a', 'c', 'b']) texts.add(key);
    assert.equal(texts.count, 3);
  });

  test('are remembered 4096 back; a rising id is known to be old further back, too', () => {
    const counter = new DistinctCounter();
    for (let id = 0; id < 20_000; id++) counter.add(id);
    assert.equal(counter.count, 20_000);
    for (const id of [0, 100, 15_000, 15_903, 15_904, 19_999]) assert.equal(counter.add(id), false, String(id));
    assert.equal(counter.count, 20_000);
    assert.equal(counter.add(20_000), true);
    const texts = new DistinctCounter();
    for (let i = 0; i < 5000; i++) texts.add(`k${i}`);
    assert.deepEqual([texts.add('k4999'), texts.add('k904')], [false, false]);
    assert.equal(texts.add('k0'), true, 'what is forgotten counts again, as documented');
  });

  test('of trades whose ids are hashes are counted each, however the ids lie', () => {
    const keyOf = (exchange: Exchange, trade_id: string) =>
      distinctKey('trade', { exchange, trade_id } as Rows['trade']);
    const ids = Array.from({ length: 20_000 }, (_, i) => String((i * 611_953) % 1_125_899_906_842_597));
    const hashes = ids.map((_, i) => String((BigInt(i) * 7_046_029_254_386_353_131n) % (1n << 50n)));
    const counter = new DistinctCounter();
    for (const id of hashes) counter.add(keyOf('hyperliquid', id));
    assert.equal(counter.count, 20_000);
    // A backlog that comes again is known.
    for (const id of hashes.slice(-4000)) assert.equal(counter.add(keyOf('hyperliquid', id)), false);
    const rising = new DistinctCounter();
    for (const id of ids) rising.add(keyOf('binance_spot', id));
    assert.deepEqual([rising.count, rising.add(keyOf('binance_spot', ids[0]!))], [20_000, false]);
  });
});

describe('a child process', () => {
  test('that keeps ending is started again after waits that grow', async () => {
    const ends: number[] = [];
    const plan = {
      name: 'short',
      command: '/bin/sh',
      args: ['-c', 'echo bye >&2; exit 3'],
      env: process.env,
      logDir: directory,
    };
    const child = new Child(plan, ({ code, lastLine }) => {
      assert.deepEqual([code, lastLine], [3, 'bye']);
      ends.push(performance.now());
      return true;
    });
    child.start();
    await waitFor('three ends', 30_000, async () => ends.length === 3);
    await child.stop();
    const [first, second] = [ends[1]! - ends[0]!, ends[2]! - ends[1]!];
    // Timers are never early; how late they are is the machine's affair.
    assert.ok(first >= 490 && second >= 990, `${first} ${second}`);
  });

  test('is not started again once nobody wants it', async () => {
    let ends = 0;
    const plan = { name: 'asked', command: '/bin/sleep', args: ['60'], env: process.env, logDir: directory };
    const child = new Child(plan, () => {
      ends += 1;
      return true;
    });
    child.start();
    const exit = await child.stop();
    assert.equal(exit?.signal, 'SIGTERM');
    // Longer than the first wait before a restart.
    await new Promise((done) => setTimeout(done, 800));
    assert.deepEqual([ends, child.restarts, child.running], [0, 0, false]);
  });
});

test('addresses are shown without the password in them', () => {
  assert.equal(
    shownUrl('nats://me:secret@host:4222,nats://me:secret@other:4222'),
    'nats://host:4222,nats://other:4222',
  );
  assert.equal(shownUrl('http://127.0.0.1:8123/'), 'http://127.0.0.1:8123/');
  assert.throws(
    () => loadConfig({ CLICKHOUSE_URL: 'ftp://me:secret@host' }),
    (error: Error) => /CLICKHOUSE_URL/.test(error.message) && !/secret/.test(error.message),
  );
});
