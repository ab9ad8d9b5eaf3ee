/** `npm start -- --live` against the simulated venues, with a broker and a database of its own or of others. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { freePort } from '../scripts/lib/free_port.ts';
import { EXCHANGES } from '../scripts/lib/rows.ts';
import { Pipeline } from './pipeline.ts';
import { comesAgain, EXPECTED, reportOf, streamsOf, Up, using } from './up_child.ts';

describe('npm start, live', () => {
  const up = new Up();
  const others = new Pipeline({ MARKETPRISM_EXCHANGES: EXCHANGES.join(',') });
  before(async () => {
    await others.choosePorts();
    await others.startSimulator([]);
  });
  after(async () => {
    up.close();
    await others.close();
  });
  // Hyperliquid's contexts come seconds after its socket: on a busy machine six were too few to see any.
  const live = ['--live', '--core', '--for', '12s'];

  async function balanced(env: NodeJS.ProcessEnv): Promise<void> {
    const endpoints = join(others.dir, 'endpoints.json');
    const report = join(up.dir, 'report.json');
    const { code, output, errors } = await up.run([...live, '--report', report], {
      MARKETPRISM_ENDPOINTS: endpoints,
      ...env,
    });
    assert.equal(code, 0, output + errors);
    const { mode, rows } = reportOf(up);
    assert.equal(mode, 'live');
    assert.deepEqual(streamsOf(reportOf(up)), EXPECTED);
    for (const row of rows) {
      if (comesAgain(row)) assert.ok(row.hot <= row.received && row.received <= row.published);
      else assert.deepEqual([row.published, row.hot], [row.received, row.received], row.data_type);
    }
  }

  test('runs with its own broker and database, and keeps what it stored for the next run, whose ledger is its own', async () => {
    await balanced({});
    await balanced({});
  });

  test('uses a broker and a database that run already, and leaves them running', async () => {
    await others.startBroker();
    await others.startDatabase();
    const { MARKETPRISM_NATS_URL, CLICKHOUSE_URL } = others.env;
    await balanced({ MARKETPRISM_NATS_URL, CLICKHOUSE_URL });
    assert.notEqual((await others.query('SELECT count() FROM marketprism_hot.trades'))[0]![0], '0');
  });

  test('says which of them it cannot reach', async () => {
    const endpoints = { MARKETPRISM_ENDPOINTS: join(others.dir, 'endpoints.json') };
    const closed = await freePort();
    const broker = await up.run(live, { ...endpoints, MARKETPRISM_NATS_URL: `nats://127.0.0.1:${closed}` });
    assert.deepEqual(
      [broker.code, broker.errors],
      [1, `the broker at nats://127.0.0.1:${closed} cannot be reached: CONNECTION_REFUSED\n`],
    );
    const database = await up.run(live, { ...endpoints, CLICKHOUSE_URL: `http://127.0.0.1:${closed}` });
    assert.deepEqual(
      [database.code, database.errors],
      [1, `the database at http://127.0.0.1:${closed} was not ready within 10 s\n`],
    );
    assert.deepEqual(using(up.dir), []);
  });
});
