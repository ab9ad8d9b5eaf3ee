/**
 * ClickHouse as a cluster: sql/cluster says the same as sql/, and a cluster of one server, the embedded one, stores and copies each row once.
 * That engine has no Keeper: ON CLUSTER and Replicated… are parsed here, and not run.
 */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import type { ClickHouseClient } from '@clickhouse/client';
import { headers } from 'nats';
import { UsageError } from '../scripts/lib/cli.ts';
import { createClickHouse, fence, insertLines, isPoison, runningQuery, selectText } from '../scripts/lib/clickhouse.ts';
import { altered, storedName } from '../scripts/lib/cluster.ts';
import { loadConfig } from '../scripts/lib/config.ts';
import { MIGRATIONS, migrate } from '../scripts/lib/migrations.ts';
import { pause } from '../scripts/lib/pause.ts';
import { waitFor } from '../scripts/lib/processes.ts';
import { encodeRow } from '../scripts/lib/rows.ts';
import { ensureTier } from '../scripts/lib/schema.ts';
import { clusterStatements, clusterViews } from '../scripts/lib/schema_cluster.ts';
import { contentsOf, DATABASE_NAMES, type DatabaseKind, databaseStatements } from '../scripts/lib/schema_sql.ts';
import { sampleTrade } from './fixtures.ts';
import { Pipeline, READY_MS } from './pipeline.ts';

const CLUSTER = 'one';
const KINDS: DatabaseKind[] = ['hot', 'cold', 'signals'];

/** What the embedded engine can run of a statement for a cluster: without the words that need a Keeper. */
function runnable(statement: string): string {
  return statement
    .replace(/ ON CLUSTER '.*?'/, '')
    .replace(/ReplicatedMergeTree\('.*?', '.*?'\)/, 'MergeTree')
    .replace(/,? ?replicated_deduplication_window\w* = 0/g, '')
    .replace(/\nSETTINGS$/, '');
}

function statementsIn(file: string): string[] {
  const text = readFileSync(join(import.meta.dirname, '..', 'sql', `${file}.sql`), 'utf8');
  return text
    .replace(/^--.*\n/gm, '')
    .split(';\n')
    .map((each) => each.trim())
    .filter((each) => each !== '');
}

test('the name of a cluster is one that SQL can quote, or wrong usage', () => {
  assert.equal(loadConfig({}).clickhouseCluster, null);
  assert.equal(loadConfig({ MARKETPRISM_CLICKHOUSE_CLUSTER: 'east-1' }).clickhouseCluster, 'east-1');
  assert.throws(
    () => loadConfig({ MARKETPRISM_CLICKHOUSE_CLUSTER: "a'b" }),
    (error: Error) => {
      assert.ok(error instanceof UsageError);
      assert.match(error.message, /^MARKETPRISM_CLICKHOUSE_CLUSTER: takes the name of a cluster in remote_servers/);
      return true;
    },
  );
});

describe('a cluster', () => {
  const pipeline = new Pipeline({ MARKETPRISM_CLICKHOUSE_CLUSTER: CLUSTER });
  let plain: ClickHouseClient;
  let client: ClickHouseClient;

  const connect = (cluster: string) => {
    const server = { url: pipeline.env.CLICKHOUSE_URL!, username: 'default', password: '' };
    return createClickHouse({ ...server, cluster }, 'test');
  };

  before(async () => {
    await pipeline.choosePorts();
    await pipeline.startBroker();
    await pipeline.startDatabase(['--cluster', CLUSTER]);
    plain = pipeline.client();
    client = connect(CLUSTER);
    for (const kind of KINDS) {
      const database = DATABASE_NAMES[kind];
      for (const query of clusterStatements(kind, database, CLUSTER)) await plain.command({ query: runnable(query) });
      for (const { version, name } of MIGRATIONS) {
        const query = `INSERT INTO ${database}.schema_migrations (version, name, by) VALUES (${version}, '${name}', 'test')`;
        await plain.command({ query });
      }
    }
    for (const { query } of clusterViews('marketprism', DATABASE_NAMES.hot, DATABASE_NAMES.cold, CLUSTER))
      await plain.command({ query: runnable(query) });
  });
  after(async () => {
    await client?.close();
    await pipeline.close();
  });

  /** As the engine's own parser writes it. */
  async function parsed(statement: string): Promise<string> {
    const query = 'SELECT formatQuerySingleLine({statement:String})';
    const result = await plain.query({ query, query_params: { statement }, format: 'JSONCompactEachRow' });
    return (await result.json<[string]>())[0]![0];
  }

  for (const file of [...KINDS, 'views'].map((each) => `cluster/${each}`)) {
    test(`the engine parses every statement of sql/${file}.sql, each of which goes to all servers`, async () => {
      for (const statement of statementsIn(file)) {
        const text = await parsed(statement);
        assert.match(text, / ON CLUSTER `\{cluster\}`/, text.slice(0, 120));
        if (/^CREATE TABLE/.test(text)) assert.match(text, / ENGINE = (ReplicatedMergeTree|Distributed)\(/);
      }
    });
  }

  test('every table is, but for its engine, the one of a single server: columns, codecs, index, partitions, order, expiry', async () => {
    const withoutEngine = (text: string) =>
      text
        .replace(/^CREATE TABLE IF NOT EXISTS (\w+\.\w+?)(_local)?( ON CLUSTER \S+)? \(/, '$1 (')
        .replace(/ENGINE = \w+(\(.*?\))?( |$)/, '')
        .replace(/,? ?replicated_deduplication_window\w* = 0/g, '')
        .replace(/ SETTINGS$/, '');
    for (const kind of KINDS) {
      const single = databaseStatements(kind, DATABASE_NAMES[kind]).filter((each) => each.startsWith('CREATE TABLE'));
      const stored = statementsIn(`cluster/${kind}`).filter((each) => each.includes('ReplicatedMergeTree'));
      assert.equal(stored.length, single.length);
      for (const [index, statement] of single.entries())
        assert.equal(withoutEngine(await parsed(stored[index]!)), withoutEngine(await parsed(statement)));
    }
  });

  test('as tables of the engine, local and Distributed ones have the columns, keys and defaults of a single server', async () => {
    for (const kind of KINDS) {
      const database = `single_${kind}`;
      for (const query of databaseStatements(kind, database)) await plain.command({ query });
      const columns = (of: string, table: string, what: string) =>
        pipeline.query(
          `SELECT ${what} FROM system.columns WHERE database = '${of}' AND table = '${table}' ORDER BY position`,
        );
      const whole =
        'name, type, default_kind, default_expression, compression_codec, is_in_partition_key, is_in_sorting_key';
      const keys = (of: string, table: string) =>
        pipeline.query(
          `SELECT partition_key, sorting_key, extract(engine_full, 'TTL .*') FROM system.tables WHERE database = '${of}' AND name = '${table}'`,
        );
      for (const { name, isState } of contentsOf(kind, database).tables) {
        const stored = isState ? name : `${name}_local`;
        const of = DATABASE_NAMES[kind];
        assert.deepEqual(await columns(of, stored, whole), await columns(database, name, whole), stored);
        assert.deepEqual(await keys(of, stored), await keys(database, name), stored);
        const shown = 'name, type, default_kind, default_expression';
        assert.deepEqual(await columns(of, name, shown), await columns(database, name, shown), name);
      }
    }
  });

  test('rows of one stream have one shard, of several there are several', async () => {
    const [statement] = statementsIn('cluster/hot').filter((each) => each.includes('Distributed'));
    const sharding = /trades_local, (.*)\)$/.exec(statement!)![1]!;
    const query = `SELECT uniqExact(shard), count() FROM (SELECT ${sharding} % 3 AS shard, arrayJoin(['BTC-USDT', 'ETH-USDT', 'SOL-USDT', 'XRP-USDT', 'ADA-USDT']) AS symbol, 'okx_spot' AS exchange, 'spot' AS market_type, number FROM numbers(100)) GROUP BY symbol`;
    for (const [shards, rows] of await pipeline.query(query)) assert.deepEqual([shards, rows], ['1', '100']);
    const all = await pipeline.query(query.replace(' GROUP BY symbol', ''));
    assert.ok(Number(all[0]![0]) > 1);
  });

  test('a cluster that the server does not know is refused in one line', async () => {
    const nowhere = connect('nowhere');
    await plain.command({ query: 'CREATE DATABASE elsewhere' });
    await assert.rejects(
      migrate({ client: nowhere, kind: 'cold', database: 'elsewhere' }),
      /^OperatorError: MARKETPRISM_CLICKHOUSE_CLUSTER: the server knows no cluster nowhere: [^\n]*$/,
    );
    await nowhere.close();
  });

  test('a schema that is there needs no statement for the whole cluster, of which a server may be away', async () => {
    for (const tier of ['hot', 'cold'] as const) await ensureTier(client, tier, DATABASE_NAMES[tier]);
    assert.equal(storedName(client, 'trades'), 'trades_local');
    assert.equal(altered(client, 'marketprism_hot.trades'), "marketprism_hot.trades_local ON CLUSTER 'one'");
  });

  test('the fence asks the servers of the cluster, and waits for a query of ours and for no other', async () => {
    const running = async (prefix: string) => Number((await selectText(client, runningQuery(client, prefix)))[0]![0]);
    const slow = (id: string) =>
      selectText(client, 'SELECT sum(sleepEachRow(0.25)) FROM numbers(16) SETTINGS max_block_size = 1', {}).then(
        () => id,
      );
    assert.match(runningQuery(client, 'store:'), /clusterAllReplicas\('one', system\.processes\)/);
    const ended: string[] = [];
    const query = client
      .query({
        query: 'SELECT sum(sleepEachRow(0.25)) FROM numbers(16) SETTINGS max_block_size = 1',
        query_id: 'store:trades:slow',
        format: 'TabSeparated',
      })
      .then((result) => result.text())
      .then(() => ended.push('query'));
    const other = slow('other');
    await waitFor('the query', READY_MS, async () => (await running('store:trades:')) === 1);
    assert.equal(await running('replicate:'), 0);
    await fence(client, 'replicate:', null, new AbortController().signal);
    assert.equal(ended.length, 0, 'the fence of others does not wait for it');
    await fence(client, 'store:trades:', 'marketprism_hot.trades', new AbortController().signal);
    ended.push('fence');
    await Promise.all([query, other]);
    assert.deepEqual(ended, ['query', 'fence']);
  });

  test('a shard that refuses its part says nothing of what the others stored, so no row is buried for it', async () => {
    const line = Buffer.from(`{"js_epoch":1,"js_seq":1,${encodeRow('trade', sampleTrade(1)).slice(1)}\n`);
    await plain.command({ query: 'ALTER TABLE marketprism_hot.trades_local ADD CONSTRAINT sane CHECK price < 0' });
    const refused = (to: ClickHouseClient, table: string) =>
      insertLines(to, table, line, `test:${table}`).then(
        () => assert.fail('it is stored'),
        (error: unknown) => error,
      );
    try {
      assert.equal(isPoison(await refused(plain, 'marketprism_hot.trades_local')), true, 'by the table itself');
      const error = (await refused(client, 'marketprism_hot.trades')) as Error;
      assert.match(error.message, /^a shard refused its part of an insert: /);
      assert.equal(isPoison(error), false);
    } finally {
      await plain.command({ query: 'ALTER TABLE marketprism_hot.trades_local DROP CONSTRAINT sane' });
    }
    assert.deepEqual(await pipeline.query('SELECT count() FROM marketprism_hot.trades'), [['0']]);
  });

  test('store and replication keep each row once through Distributed tables, killed in the middle and started again', async () => {
    const nats = await pipeline.nats();
    const head = headers();
    head.set('Mp-Mode', 'live');
    const publish = async (from: number, count: number, symbol: string) => {
      const rows = Array.from({ length: count }, (_, index) =>
        encodeRow('trade', sampleTrade(from + index, { symbol, timestamp: Date.now() })),
      );
      await nats.jetstream().publish(`trade.binance_spot.spot.${symbol}`, rows.join('\n'), { headers: head });
      return rows;
    };
    await pipeline.startStore();
    await publish(0, 500, 'BTC-USDT');
    await publish(500, 500, 'ETH-USDT');
    await pipeline.kill('store');
    const again = await publish(1000, 500, 'SOL-USDT');
    await nats.jetstream().publish('trade.binance_spot.spot.SOL-USDT', again.join('\n'), { headers: head });
    await pipeline.drained();
    await pipeline.startReplicate();
    const counts = (tier: string) =>
      pipeline.query(
        `SELECT count(), uniqExact(symbol, trade_id), sum(cityHash64(symbol, trade_id, toString(price))) FROM marketprism_${tier}.trades`,
      );
    await waitFor('cold', READY_MS, async () => (await counts('cold'))[0]![0] === '1500');
    assert.deepEqual(await counts('cold'), await counts('hot'));
    assert.deepEqual((await counts('hot'))[0]!.slice(0, 2), ['1500', '1500']);
    assert.deepEqual(await pipeline.query('SELECT count() FROM marketprism_hot.trades_local'), [['1500']]);
    assert.deepEqual(await pipeline.query('SELECT count() FROM marketprism.trades'), [['1500']]);
    // A second round finds nothing to copy, and looks into cold for what a lost progress would copy again.
    await pipeline.stop('replicate');
    await pipeline.query('TRUNCATE TABLE marketprism_cold.replication_progress');
    await pipeline.startReplicate();
    await waitFor('a round', READY_MS, async () => {
      const [[upto] = []] = await pipeline.query('SELECT max(upto_seq) FROM marketprism_cold.replication_progress');
      return upto !== '0';
    });
    await pause(500);
    assert.deepEqual(await counts('cold'), await counts('hot'));
    await nats.close();
  });
});
