/** `npm start -- --demo`: all venues simulated, from the first row to the balance at the end. */
import assert from 'node:assert/strict';
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { after, describe, test } from 'node:test';
import type { LedgerReport } from '../scripts/lib/ledger.ts';
import { waitFor } from '../scripts/lib/processes.ts';
import type { Check, HealthDocument } from '../scripts/lib/service.ts';
import type { About } from '../scripts/lib/web/about_routes.ts';
import { READY_MS } from './pipeline.ts';
import { comesAgain, EXPECTED, processes, reportOf, streamsOf, Up, using } from './up_child.ts';

describe('npm start, as a demo', () => {
  const up = new Up();
  after(() => up.close());

  test('stores all exchanges and all types, each row once, and survives kills of store and database', async () => {
    await up.start(['--demo', '--core', '--for', '20s', '--report', join(up.dir, 'report.json')]);
    await up.running();
    for (const part of ['scripts/store.ts', 'scripts/clickhouse_embedded.ts']) {
      const [pid] = up.children(part);
      process.kill(pid!, 'SIGKILL');
      await waitFor(`restart of ${part}`, READY_MS, async () => up.children(part).some((each) => each !== pid));
    }
    assert.deepEqual(await up.end(), { code: 0, signal: null }, up.output + up.errors);
    const report = reportOf(up);
    assert.equal(report.mode, 'demo');
    assert.equal(report.balanced, true);
    assert.deepEqual(streamsOf(report), EXPECTED);
    for (const row of report.rows) {
      assert.ok(row.hot > 0);
      assert.deepEqual(
        [row.received, row.cold, row.gap, row.lost, row.duplicated],
        [row.hot, row.hot, 0, 0, 0],
        row.data_type,
      );
      // A poll's next round may fall into the run: it publishes the same rows again.
      if (comesAgain(row)) assert.ok(row.published >= row.hot);
      else assert.equal(row.published, row.hot, row.data_type);
    }
    assert.match(up.output, /store was killed \(SIGKILL\): starting it again/);
    assert.match(up.output, /restarts [1-9]/);
    assert.match(up.output, /\nbalanced\n$/);
    assert.deepEqual(using(up.dir), [], 'no process is left');
  });

  test('begins from empty databases, streams and data; a kill of the collector doubles nothing, and what was missed is filled or told', async () => {
    const before = reportOf(up);
    const left = ['nats', 'clickhouse', 'state', 'deadletter', 'logs'].map((part) =>
      join(up.dir, 'demo', part, 'left'),
    );
    const live = join(up.dir, 'deadletter', 'left');
    for (const file of [...left, live]) {
      mkdirSync(dirname(file), { recursive: true });
      writeFileSync(file, '');
    }
    // Long enough for rows after the new collector's start, without which nobody knows what lies between.
    await up.start(['--demo', '--core', '--for', '20s', '--report', join(up.dir, 'report.json')]);
    await up.running();
    // Before its first row, nothing can tell that a stream misses any.
    const streams = async () =>
      Number(
        (
          await up.pipeline.query(
            "SELECT uniqExact((exchange, symbol)) FROM marketprism_demo_hot.orderbook_updates WHERE exchange != 'hyperliquid' AND NOT is_snapshot",
          )
        )[0]![0],
      );
    await waitFor('rows of all books', READY_MS, async () => (await streams()) === 10);
    const [pid] = up.children('scripts/collector.ts');
    process.kill(pid!, 'SIGKILL');
    const { code } = await up.end();
    assert.deepEqual(
      left.filter((file) => existsSync(file)),
      [],
      'nothing of the run before is left',
    );
    assert.ok(existsSync(live), 'what is not the demo’s is not touched');
    const report = reportOf(up);
    const trades = (each: LedgerReport) =>
      each.rows.find((row) => row.exchange === 'binance_spot' && row.data_type === 'trade')!;
    assert.ok(trades(report).hot < trades(before).hot * 1.5, 'rows of the run before are gone');
    for (const row of report.rows) {
      assert.equal(row.duplicated, 0);
      // What the broker had not answered for is published a second time by the new collector, and is in hot once.
      assert.ok(row.published >= row.hot, `every published ${row.data_type} is in hot`);
      assert.equal(row.received, row.hot, 'every received row is in hot');
    }
    // What was on its way when the collector died is filled, or told as a gap.
    assert.match(up.output, /looking for what was missed\n[\s\S]*balanced\n$/);
    const lost = report.rows.filter((row) => row.lost > 0);
    assert.deepEqual(lost, [], up.output);
    assert.deepEqual([report.balanced, code], [true, 0]);
  });

  test('rows that are gone from hot are told as lost, and the exit code says so', async () => {
    await up.start(['--demo', '--core', '--for', '6s', '--report', join(up.dir, 'report.json')]);
    await up.running();
    const stored = async () =>
      Number((await up.pipeline.query('SELECT uniqExact(exchange) FROM marketprism_demo_hot.trades'))[0]![0]);
    await waitFor('stored trades of each exchange', READY_MS, async () => (await stored()) === 6);
    await up.pipeline.query('TRUNCATE TABLE marketprism_demo_hot.trades');
    assert.deepEqual(await up.end(), { code: 1, signal: null }, up.output + up.errors);
    assert.match(up.output, /\nNOT balanced\n$/);
    const report = reportOf(up);
    assert.equal(report.balanced, false);
    assert.ok(report.rows.filter((row) => row.data_type === 'trade').every((row) => row.lost > 0));
    assert.ok(report.rows.filter((row) => row.data_type !== 'trade').every((row) => row.lost === 0));
  });

  test('has pages, a monitor and signals beside it; stops all in order at SIGINT, and leaves no process behind', async () => {
    await up.start(['--demo'], { MARKETPRISM_HARVEST_CHECKPOINT: '5s' });
    await up.running();
    const { web } = up.pipeline.ports;
    assert.match(up.output, new RegExp(`pages: http://127.0.0.1:${web}\n`));
    const get = (path: string) => fetch(`http://127.0.0.1:${web}${path}`);
    await waitFor('the pages', READY_MS, async () => (await get('/').catch(() => null))?.ok === true);
    assert.match(await (await get('/')).text(), /<div id="app">/);
    assert.equal(((await (await get('/api/about')).json()) as About).mode, 'demo');
    // Each has told how it stands; the first round of correlations takes minutes.
    const isUnheard = ([name, { error_message: error }]: [string, Check]) =>
      name !== 'correlation_alert' && /does not answer|has never run/.test(error ?? '');
    let unheard: [string, Check][] = [];
    await waitFor('all parts', READY_MS, async () => {
      const { checks } = (await (await get('/health')).json()) as HealthDocument;
      unheard = Object.entries(checks).filter(isUnheard);
      return unheard.length === 0;
    }).catch((error: Error) => assert.fail(`${error.message}: ${JSON.stringify(unheard)}`));
    const mine = up.children('');
    assert.equal(mine.length, 15);
    up.signal('SIGINT');
    assert.deepEqual(await up.end(), { code: 0, signal: null }, up.output + up.errors);
    assert.match(up.output, /stopping: pages and signals, collector, replication, store, database, broker\n$/);
    const left = processes().filter(({ pid }) => mine.includes(pid));
    assert.deepEqual(left, []);
  });

  test('takes its children along when it is killed itself', async () => {
    await up.start(['--demo', '--core']);
    await up.running();
    const mine = up.children('');
    up.signal('SIGKILL');
    await up.end();
    await waitFor('the end of the children', READY_MS, async () => processes().every(({ pid }) => !mine.includes(pid)));
  });
});
