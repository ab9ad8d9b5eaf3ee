/** `npm start` with something wrong. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { MONITOR_OFFSET } from '../scripts/lib/broker.ts';
import { freePort } from '../scripts/lib/free_port.ts';
import { Up, using } from './up_child.ts';

describe('npm start with something wrong says one clear line, and starts nothing', () => {
  const up = new Up();
  before(() => up.pipeline.choosePorts());
  after(() => up.close());

  async function refused(args: string[], env: NodeJS.ProcessEnv, code: number, line: RegExp): Promise<void> {
    const before = using(up.dir);
    const result = await up.run(args, env);
    assert.equal(result.code, code, result.output + result.errors);
    assert.match(result.errors, line);
    assert.equal(result.errors.trimEnd().split('\n').length, 1, result.errors);
    assert.deepEqual(using(up.dir), before, 'nothing was started');
  }

  test('a port in use', async () => {
    for (const port of [
      up.pipeline.ports.nats,
      up.pipeline.ports.nats + MONITOR_OFFSET,
      up.pipeline.ports.clickhouse,
      up.pipeline.ports.store,
      up.pipeline.ports.health,
      up.pipeline.ports.metrics,
    ]) {
      const server = createServer();
      await new Promise<void>((done) => server.listen(port, '127.0.0.1', done));
      await refused(
        ['--demo'],
        {},
        1,
        new RegExp(`^port ${port} is in use: stop what listens there, or choose another one with `),
      );
      await new Promise((done) => server.close(done));
    }
  });

  test('a wrong environment or flag', async () => {
    await refused(
      ['--demo'],
      { MARKETPRISM_SYMBOLS: 'btcusdt' },
      64,
      /^MARKETPRISM_SYMBOLS\.0: takes pairs such as BTC-USDT,ETH-USDT, not "btcusdt"/,
    );
    await refused(['--demo'], { MARKETPRISM_EXCHANGES: 'kraken' }, 64, /^MARKETPRISM_EXCHANGES\.0: .*, not "kraken"/);
    await refused(['--demo'], { LOG_LEVEL: 'loud' }, 64, /^LOG_LEVEL: /);
    await refused(
      ['--demo'],
      { CLICKHOUSE_URL: 'http://127.0.0.1:1' },
      64,
      /^a demo uses only a broker and a database that it starts itself: unset CLICKHOUSE_URL/,
    );
    await refused(['--demo', '--live'], {}, 64, /^--live and --demo exclude each other/);
    await refused(['--demo', '--for', 'soon'], {}, 64, /^--for takes a time such as/);
    await refused(['--now'], {}, 64, /^Unknown option '--now'/);
  });

  test('no exchange to be reached in live mode', async () => {
    const closed = await freePort();
    const file = join(up.dir, 'endpoints.json');
    const hosts = { ws: `ws://127.0.0.1:${closed}`, rest: `http://127.0.0.1:${closed}` };
    writeFileSync(file, JSON.stringify({ binance_spot: hosts, binance_derivatives: hosts }));
    await refused(
      ['--live'],
      { MARKETPRISM_ENDPOINTS: file },
      1,
      /^no exchange can be reached \(.*ECONNREFUSED\); npm start -- --demo runs with simulated ones/,
    );
  });

  test('a data directory that cannot be', async () => {
    writeFileSync(join(up.dir, 'file'), '');
    const directory = join(up.dir, 'file', 'data');
    await refused(
      ['--demo'],
      { MARKETPRISM_DATA_DIR: directory },
      1,
      /^cannot write to the data directory \S+: ENOTDIR/,
    );
  });

  test('a full disk', async (context) => {
    const directory = join(up.dir, 'small');
    mkdirSync(directory);
    const mounted = spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=8m', 'tmpfs', directory]);
    if (mounted.status !== 0) {
      context.skip(`a small disk cannot be mounted here: ${mounted.stderr}`);
      return;
    }
    try {
      await refused(
        ['--demo'],
        { MARKETPRISM_DATA_DIR: directory },
        1,
        /^only \d+ MiB are free at \S+: at least 1024 MiB are needed/,
      );
    } finally {
      spawnSync('umount', [directory]);
    }
  });

  test('a second start in the same data directory', async () => {
    const other = new Up();
    try {
      await other.start(['--demo', '--core'], { MARKETPRISM_DATA_DIR: up.dir });
      await other.running();
      await refused(['--demo'], {}, 1, /^npm start in \S+ is already held \(pid \d+, since /);
      other.signal('SIGTERM');
      assert.equal((await other.end()).code, 0);
    } finally {
      other.close();
    }
  });
});
