/** Bringing servers up to the present schema, in the real engine: what an earlier version made, and what two servers cannot have. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { after, before, beforeEach, describe, test } from 'node:test';
import type { ClickHouseClient } from '@clickhouse/client';
import { insertLines } from '../scripts/lib/clickhouse.ts';
import { waitFor } from '../scripts/lib/processes.ts';
import { DATA_TYPES, encodeRow, TABLES } from '../scripts/lib/rows.ts';
import { ensureTier } from '../scripts/lib/schema.ts';
import { tableSql } from '../scripts/lib/schema_sql.ts';
import { sampleTrade } from './fixtures.ts';
import { Pipeline, READY_MS } from './pipeline.ts';

const HOT = 'marketprism_hot';

describe('the schema step', () => {
  const server = new Pipeline();
  const other = new Pipeline();
  let client: ClickHouseClient;

  before(async () => {
    for (const each of [server, other]) {
      await each.choosePorts();
      await each.startDatabase();
    }
    await server.startBroker();
    client = server.client();
  });
  beforeEach(() => server.query(`DROP DATABASE IF EXISTS ${HOT}`));
  after(async () => {
    await server.close();
    await other.close();
  });

  async function store(count: number, seq: number): Promise<void> {
    const row = (id: number) => encodeRow('trade', sampleTrade(id, { trade_id: `${seq}-${id}` }));
    const lines = Array.from({ length: count }, (_, id) => `{"js_epoch":1,"js_seq":${seq},${row(id).slice(1)}\n`);
    await insertLines(client, `${HOT}.trades`, Buffer.from(lines.join('')), `test:${seq}`);
  }
  /** A hot table as an earlier version made it, with one part: a merge would make the index by itself. */
  async function earlierTable(): Promise<void> {
    const earlier = tableSql(TABLES.trade, 'hot', HOT).replace(/,\s+INDEX arrival .*/, '');
    assert.doesNotMatch(earlier, /INDEX/);
    await server.query(`CREATE DATABASE ${HOT}`);
    await client.command({ query: earlier });
    await store(100, 1);
  }
  const rows = () => server.query(`SELECT toString(tuple(*)) AS row FROM ${HOT}.trades ORDER BY row`);
  const mutations = async () =>
    Number((await server.query(`SELECT count() FROM system.mutations WHERE database = '${HOT}'`))[0]![0]);
  /** Whether what lies before a sequence is left out by the index; the engine's own statistics would do it too. */
  const isUsed = async () =>
    /Name: arrival[\s\S]*?Granules: 0\/1\n/.test(
      (
        await server.query(
          `EXPLAIN indexes = 1 SELECT sum(price) FROM ${HOT}.trades WHERE js_seq > 5 SETTINGS use_statistics_for_part_pruning = 0`,
        )
      ).join('\n'),
    );

  test('a hot table of an earlier version gets the index by arrival, also for what it holds, and keeps its rows', async () => {
    await earlierTable();
    const before = await rows();
    assert.equal(await isUsed(), false);
    await ensureTier(client, 'hot', HOT);
    await waitFor('an index that is used', READY_MS, isUsed);
    assert.deepEqual(await rows(), before);
    const done = await mutations();
    await store(100, 2);
    await ensureTier(client, 'hot', HOT);
    assert.equal(await mutations(), done, 'there is nothing left to do');
    assert.equal((await rows()).length, 200);
  });

  test('what a step that died had left undone of it is done by the next one', async () => {
    await earlierTable();
    await client.command({ query: `ALTER TABLE ${HOT}.trades ADD INDEX arrival js_seq TYPE minmax GRANULARITY 1` });
    assert.equal(await isUsed(), false);
    await ensureTier(client, 'hot', HOT);
    await waitFor('an index that is used', READY_MS, isUsed);
  });

  /** @returns what `manage.ts init` says of views */
  function initialise(env: NodeJS.ProcessEnv): string[] {
    const script = join(import.meta.dirname, '..', 'scripts', 'manage.ts');
    const { status, stdout, stderr } = spawnSync(process.execPath, ['--import', 'tsx', script, 'init'], {
      encoding: 'utf8',
      env: { ...server.env, ...env },
    });
    assert.equal(status, 0, stderr);
    return stdout.split('\n').filter((line) => line.includes('"no_views"'));
  }

  test('views show all time where hot and cold are on one server; on two there are none, and that is said in one line', async () => {
    const views = async () =>
      (await server.query(`SELECT name FROM system.tables WHERE database = 'marketprism' ORDER BY name`)).flat();
    const elsewhere = { MARKETPRISM_COLD_CLICKHOUSE_URL: `http://user:secret@127.0.0.1:${other.ports.clickhouse}` };
    // Also where there never were any.
    assert.equal(initialise(elsewhere).length, 1);
    assert.deepEqual(await views(), []);
    assert.deepEqual(initialise({}), []);
    assert.deepEqual(await views(), DATA_TYPES.map((type) => TABLES[type].name).sort());
    await store(3, 1);
    assert.deepEqual(await server.query('SELECT count() FROM marketprism.trades'), [['3']]);
    const [line, ...more] = initialise(elsewhere);
    assert.equal(more.length, 0);
    assert.match(line!, /there are no views marketprism\.<table>: hot and cold are on two servers/);
    assert.doesNotMatch(line!, /secret/);
    // Of what they had shown, a half would be left.
    assert.deepEqual(await views(), []);
    await assert.rejects(server.query('SELECT count() FROM marketprism.trades'), /marketprism\.trades/);
  });
});
