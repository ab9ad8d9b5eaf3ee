/** Real soak runs: one of a minute, with its stop in the middle and its balance, held against the database that it leaves; and one that is stopped early. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { createClickHouse, selectText } from '../scripts/lib/clickhouse.ts';
import { freePort } from '../scripts/lib/free_port.ts';
import { Child, scriptPlan, waitFor } from '../scripts/lib/processes.ts';
import { SERVICES } from '../scripts/lib/services.ts';
import { reportPath, SOAK_REPORT, type SoakReport } from '../scripts/lib/soak/report.ts';
import { SOAK_ROUTES } from '../scripts/lib/web/soak_routes.ts';
import { READY_MS } from './pipeline.ts';
import { using } from './up_child.ts';
import { Web } from './web_harness.ts';

const SOAK = join(import.meta.dirname, '..', 'scripts', 'soak.ts');
/** All that npm start has in a demo, but for who needs keys. */
const PROCESSES = SERVICES.filter(({ role }) => role !== 'keys').map(({ name }) => name);

describe('a soak run', () => {
  const dir = mkdtempSync(join(tmpdir(), 'marketprism-soak-'));
  after(() => {
    for (const pid of using(dir)) process.kill(pid, 'SIGKILL');
    rmSync(dir, { recursive: true, force: true });
  });

  function start(...args: string[]) {
    const env = { PATH: process.env.PATH, MARKETPRISM_DATA_DIR: dir };
    const child = spawn(process.execPath, ['--import', 'tsx', SOAK, ...args], {
      env,
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    const told = { output: '', errors: '' };
    child.stdout.on('data', (chunk: Buffer) => {
      told.output += chunk.toString();
    });
    child.stderr.on('data', (chunk: Buffer) => {
      told.errors += chunk.toString();
    });
    const ended = new Promise<number | null>((done) => child.once('close', done));
    return { child, told, ended };
  }

  const reportOf = (id: string): SoakReport => SOAK_REPORT.parse(JSON.parse(readFileSync(reportPath(dir, id), 'utf8')));

  test('of a minute: every process is measured, all is stopped and started, and each row is there once', async () => {
    const { told, ended } = start('--duration', '1m', '--sample', '5s', '--coins', '2', '--id', 'minute', '--keep');
    const code = await ended;
    const said = told.output + told.errors;
    const report = reportOf('minute');
    assert.equal(code, report.verdict === 'passed' ? 0 : 1, said);
    assert.deepEqual([report.ended !== null, report.error], [true, null], said);
    const criterion = (name: string) => report.criteria.find((each) => each.name === name)!;
    // A busy machine may miss a sample or a round, and a minute tells nothing of memory; what follows holds on any machine.
    for (const name of ['graceful_stop', 'ledger', 'unplanned_ends'])
      assert.equal(criterion(name).verdict, 'passed', said);
    assert.equal(report.times.length + report.samples_missing, 12);
    assert.equal(report.samples_due, 12);
    assert.deepEqual(report.processes.map(({ name }) => name).sort(), [...PROCESSES].sort());
    for (const { name, pids, rss_bytes, fds, threads, cpu_percent, connections, loop_delay_ms } of report.processes) {
      // The simulated exchanges go on while all else is stopped.
      assert.equal(pids!.length, name === 'exchange_sim' ? 1 : 2, name);
      for (const column of [rss_bytes, fds, threads, cpu_percent])
        assert.ok(
          column.some((each) => each! > 0),
          name,
        );
      assert.ok(connections.some((each) => each !== null));
      assert.equal(
        loop_delay_ms.some((each) => each! > 0),
        name !== 'nats-server',
        name,
      );
    }
    const used = new Set(
      report.processes.filter((each) => Math.max(...each.connections.map(Number)) > 0).map(({ name }) => name),
    );
    for (const name of ['store', 'collector', 'replicate']) assert.ok(used.has(name), name);
    assert.ok(!used.has('clickhouse_embedded') && !used.has('nats-server'), 'they open none themselves');
    const { latency_p50_ms, cache_hit_rate } = report.flow;
    assert.ok(latency_p50_ms.some((each) => each !== null && each > 0));
    const isRound = criterion('cache_hits').samples > 0;
    assert.equal(
      cache_hit_rate.some((each) => each !== null),
      isRound,
    );
    if (!isRound) assert.equal(criterion('cache_hits').verdict, 'incomplete');
    assert.equal(report.pauses!.length, 1);
    assert.equal(report.stops!.filter(({ what }) => what === 'store').length, 2);
    assert.deepEqual(using(dir), [], 'nothing is left');
    const files = readdirSync(join(dir, 'soak', 'minute'));
    for (const file of ['report.md', 'memory.svg', 'cpu.svg', 'rows.svg', 'latency.svg', 'cache.svg'])
      assert.ok(files.includes(file), file);
  });

  test('the API tells it as the page needs it', async () => {
    const env = { MARKETPRISM_DATA_DIR: dir, CLICKHOUSE_URL: 'http://127.0.0.1:9' };
    const web = await Web.open(env, SOAK_ROUTES);
    try {
      const report = reportOf('minute');
      const { data } = await web.ok('/api/soak/reports');
      assert.deepEqual(
        [data.length, data[0].id, data[0].verdict, data[0].state],
        [1, 'minute', report.verdict, 'ended'],
      );
      const detail = await web.ok('/api/soak/reports/minute');
      assert.deepEqual(detail.criteria_list, report.criteria);
      assert.deepEqual(detail.processes.rss_bytes.times, report.times);
    } finally {
      await web.close();
    }
  });

  test('the figures are those of the database that it leaves', async () => {
    const report = reportOf('minute');
    const port = await freePort();
    const data = join(dir, 'soak', 'minute', 'data', 'demo', 'clickhouse');
    const args = ['--data-dir', data, '--port', String(port)];
    const child = new Child(
      scriptPlan('clickhouse_embedded', args, { PATH: process.env.PATH }, join(dir, 'logs')),
      () => false,
    );
    child.start();
    const client = createClickHouse({ url: `http://127.0.0.1:${port}`, username: 'default', password: '' }, 'test');
    try {
      await waitFor('the database', READY_MS, async () => (await client.ping()).success);
      const count = async (table: string, where = '1') =>
        Number((await selectText(client, `SELECT count() FROM ${table} WHERE ${where}`))[0]![0]);
      for (const { database, table, rows } of report.tables!)
        assert.equal(await count(`${database}.${table}`), rows, table);
      const TABLES: Record<string, string> = {
        trade: 'trades',
        orderbook_update: 'orderbook_updates',
        orderbook: 'orderbooks',
      };
      const hot = 'marketprism_demo_hot';
      for (const { exchange, data_type, hot: stored } of report.ledger!.rows) {
        const table = TABLES[data_type];
        if (table !== undefined)
          assert.equal(await count(`${hot}.${table}`, `exchange = '${exchange}'`), stored, exchange);
      }
      // At the last checkpoint so many were stored: those of a sample or two before, and not those that came after it.
      const { at, rows: sampled } = report.checkpoints.findLast(({ rows }) => rows !== null)!;
      const notes = ['stream_epochs', 'schema_migrations'];
      const market = report.tables!.filter(({ database, table }) => database === hot && !notes.includes(table));
      const whole = market.reduce((sum, { rows }) => sum + rows!, 0);
      let early = 0;
      for (const { table } of market)
        early += await count(`${hot}.${table}`, `created_at < fromUnixTimestamp64Milli(${at - 10_000})`);
      assert.ok(sampled! >= early && sampled! <= whole, `${early} ${sampled} ${whole}`);
      assert.ok((await count('marketprism_demo_signals.correlations')) > 0);
    } finally {
      await client.close();
      await child.stop();
    }
  });

  test('that is stopped early says so, passes nothing, and leaves nothing but its report', async () => {
    const { child, told, ended } = start('--duration', '2m', '--sample', '5s', '--coins', '2', '--id', 'early');
    const isSampled = async () => existsSync(reportPath(dir, 'early')) && reportOf('early').times.length >= 2;
    const gone = () => (child.exitCode === null ? null : new Error(told.output + told.errors));
    await waitFor('two samples', 3 * READY_MS, isSampled, gone);
    child.kill('SIGINT');
    assert.equal(await ended, 1, told.output + told.errors);
    const report = reportOf('early');
    assert.equal(report.error, 'stopped by SIGINT');
    assert.notEqual(report.verdict, 'passed');
    assert.ok(report.ended !== null && report.duration_ms < report.plan.for_ms);
    assert.equal(report.criteria.find(({ name }) => name === 'ledger')!.verdict, 'incomplete');
    assert.deepEqual(
      report.stops!.filter(({ ok }) => !ok),
      [],
      told.output,
    );
    assert.match(told.output, /: stopped by SIGINT/);
    assert.deepEqual(using(dir), []);
    assert.deepEqual(
      readdirSync(join(dir, 'soak', 'early')).filter((each) => each === 'data'),
      [],
    );
    assert.ok(existsSync(join(dir, 'soak', 'early', 'logs', 'store.log')), 'what it said is kept, as it did not pass');
  });
});
