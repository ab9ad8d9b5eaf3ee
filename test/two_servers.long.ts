/**
 * Hot and cold on two servers, from a socket to cold: either server and the replication die in the middle, and in the end each server has what the
 * exchanges sent, once; what cold alone holds is not stored again; and a day leaves hot only when the other server has it.
 */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { headers } from 'nats';
import { createLogger } from '../scripts/lib/log.ts';
import { pause } from '../scripts/lib/pause.ts';
import { Child, scriptPlan, waitFor } from '../scripts/lib/processes.ts';
import { dropOldDays, type ReplicationOptions, replications } from '../scripts/lib/replication.ts';
import { DATA_TYPES, type DataType, encodeRow, STREAM_COLUMNS, TABLES } from '../scripts/lib/rows.ts';
import { sampleTrade } from './fixtures.ts';
import { Pipeline, READY_MS } from './pipeline.ts';

const DAY_MS = 86_400_000;
/** Between two kills: rows go on coming meanwhile. */
const BETWEEN_MS = 2000;
const OLD_ROWS = 300;
const OLD_SUBJECT = 'trade.binance_spot.spot.OLD-USDT';

describe('hot and cold on two servers', () => {
  const cold = new Pipeline();
  let hot: Pipeline;

  before(async () => {
    await cold.choosePorts();
    await cold.startDatabase();
    hot = new Pipeline({ MARKETPRISM_COLD_CLICKHOUSE_URL: cold.env.CLICKHOUSE_URL, HEALTH_GRACE_SECONDS: '0' });
    await hot.startAll(['--trades-per-second', '100']);
  });
  after(async () => {
    await hot?.close();
    await cold.close();
  });

  /** By table: rows, distinct keys, and a hash over every value of every row. */
  async function sums(server: Pipeline, tier: 'hot' | 'cold'): Promise<Record<string, string[]>> {
    const out: Record<string, string[]> = {};
    for (const { name, key } of DATA_TYPES.map((type) => TABLES[type])) {
      const sum = `count(), uniqExact(${[...STREAM_COLUMNS, ...key].join(', ')}), sum(cityHash64(toString(tuple(*))))`;
      [out[name]] = (await server.query(`SELECT ${sum} FROM marketprism_${tier}.${name}`)) as [string[]];
    }
    return out;
  }
  const count = async (server: Pipeline, query: string) => Number((await server.query(query))[0]![0]);

  async function equal(): Promise<Record<string, string[]>> {
    await hot.drained();
    const stored = await sums(hot, 'hot');
    await waitFor('all of it in cold', READY_MS, async () => {
      const copied = await sums(cold, 'cold');
      return Object.entries(stored).every(([name, [rows]]) => Number(copied[name]![0]) >= Number(rows));
    });
    assert.deepEqual(await sums(cold, 'cold'), stored);
    for (const [name, [rows, distinct]] of Object.entries(stored))
      assert.equal(rows, distinct, `${name}: nothing twice`);
    return stored;
  }

  /** The same bytes each time. */
  const old = Array.from({ length: OLD_ROWS }, (_, index) =>
    encodeRow('trade', sampleTrade(index, { symbol: 'OLD-USDT', timestamp: Date.now() - 4 * DAY_MS })),
  ).join('\n');
  async function publishOld(): Promise<void> {
    const head = headers();
    head.set('Mp-Mode', 'live');
    const nats = await hot.nats();
    await nats.jetstream().publish(OLD_SUBJECT, old, { headers: head });
    await nats.close();
  }
  const OLD = "symbol = 'OLD-USDT'";

  function manage(script: string, ...args: string[]) {
    const path = join(import.meta.dirname, '..', 'scripts', `${script}.ts`);
    const { status, stdout, stderr } = spawnSync(process.execPath, ['--import', 'tsx', path, ...args], {
      encoding: 'utf8',
      timeout: READY_MS,
      env: hot.operatorEnv,
    });
    return { status, out: stdout + stderr };
  }

  test('either server, the replication and the store are killed in the middle: cold has what hot has, and hot what was sent', async () => {
    await waitFor('the first rows in cold', READY_MS, async () => {
      try {
        return (await count(cold, 'SELECT count() FROM marketprism_cold.trades')) > 0;
      } catch {
        // The tables are not there yet.
        return false;
      }
    });
    await publishOld();
    for (const [server, name] of [
      [cold, 'clickhouse_embedded'],
      [hot, 'replicate'],
      [hot, 'clickhouse_embedded'],
      [hot, 'store'],
      [cold, 'clickhouse_embedded'],
    ] as const) {
      await pause(BETWEEN_MS);
      await server.kill(name);
      if (name === 'clickhouse_embedded') await server.databaseReady();
    }
    await killWhileCopying();
    await pause(BETWEEN_MS);
    await hot.simulate({ action: 'stop' });
    await hot.settled();
    const stored = await equal();
    const { streams } = await hot.ledger();
    const trades = streams.filter(({ data_type }) => data_type === 'trade');
    assert.ok(trades.length > 0);
    for (const { exchange, symbol, sent } of trades) {
      const where = `exchange = '${exchange}' AND symbol = '${symbol}'`;
      assert.equal(await count(cold, `SELECT count() FROM marketprism_cold.trades WHERE ${where}`), sent, where);
    }
    const inHot = await hot.compare();
    for (const [type, { published, rows, missing }] of inHot) {
      assert.deepEqual([rows, missing], [published, []], type);
      assert.equal(Number(stored[TABLES[type as DataType].name]![0]), published, type);
    }
    for (const name of ['trades', 'orderbooks', 'orderbook_updates', 'funding_rates'])
      assert.ok(Number(stored[name]![0]) > 0, name);
  });

  /** Ends it at a place where rows of a window are in cold, and nothing of them is compared or written down; the next one goes on from there. */
  async function killWhileCopying(): Promise<void> {
    await hot.stop('replicate');
    await pause(BETWEEN_MS);
    for (const point of ['replicate.copied', 'replicate.verified']) {
      let signal: NodeJS.Signals | null = null;
      const env = { ...hot.env, MARKETPRISM_CRASH_AT: point };
      const child = new Child(scriptPlan('replicate', ['--once'], env, hot.logDir), (end) => {
        signal = end.signal;
        return false;
      });
      child.start();
      await waitFor('its end', READY_MS, async () => !child.running);
      assert.equal(signal, 'SIGKILL', point);
    }
    await hot.startReplicate();
  }

  test('a row older than two days that cold alone has is looked up there, and not stored again', async () => {
    assert.equal(await count(cold, `SELECT count() FROM marketprism_cold.trades WHERE ${OLD}`), OLD_ROWS);
    // As if its day had been dropped.
    await hot.query(`ALTER TABLE marketprism_hot.trades DELETE WHERE ${OLD} SETTINGS mutations_sync = 2`);
    await publishOld();
    await hot.drained();
    assert.equal(await count(hot, `SELECT count() FROM marketprism_hot.trades WHERE ${OLD}`), 0);
    // Without cold nobody knows: it waits, and acknowledges nothing.
    await cold.stop('clickhouse_embedded');
    await publishOld();
    await waitFor('a look that failed', READY_MS, async () => hot.events('store', 'lookup_failed').length > 0);
    assert.equal(await count(hot, `SELECT count() FROM marketprism_hot.trades WHERE ${OLD}`), 0);
    await cold.startDatabase();
    await hot.drained();
    assert.equal(await count(hot, `SELECT count() FROM marketprism_hot.trades WHERE ${OLD}`), 0);
    assert.equal(await count(cold, `SELECT count() FROM marketprism_cold.trades WHERE ${OLD}`), OLD_ROWS);
  });

  test('integrity.ts and manage.ts ask both servers, and say which one is away', async () => {
    const { out } = manage('integrity', '--quick');
    assert.doesNotMatch(out, /could not|unknown table|UNKNOWN/i);
    const { status, out: health } = manage('manage', 'health');
    assert.equal(status, 0, health);
    await cold.stop('clickhouse_embedded');
    const { out: away } = manage('integrity', '--quick');
    assert.match(away, new RegExp(`127\\.0\\.0\\.1:${cold.ports.clickhouse}`));
    await cold.startDatabase();
  });

  test('a day leaves hot only when the other server has every row of it, asked anew', async () => {
    await hot.stop('collector');
    await hot.drained();
    await waitFor('replication', READY_MS, async () => (await hot.health('replicate'))?.status === 'healthy');
    await hot.stop('replicate');
    const options: ReplicationOptions = {
      hot: { client: hot.client(), database: 'marketprism_hot' },
      cold: { client: cold.client(), database: 'marketprism_cold' },
      isOneServer: false,
      log: createLogger('test', 'fatal'),
    };
    const trades = replications(options).find(({ type }) => type === 'trade')!;
    const drop = () => dropOldDays(trades, options, 3 * DAY_MS, Date.now() + 5 * DAY_MS);
    const held = await count(hot, 'SELECT count() FROM marketprism_hot.trades');
    assert.ok(held > 0);
    const [[exchange, symbol, id] = []] = await hot.query(
      'SELECT exchange, symbol, trade_id FROM marketprism_hot.trades LIMIT 1',
    );
    await cold.query(
      `ALTER TABLE marketprism_cold.trades DELETE WHERE exchange = '${exchange}' AND symbol = '${symbol}' AND trade_id = '${id}' SETTINGS mutations_sync = 2`,
    );
    assert.deepEqual(await drop(), [], 'one row of it is gone from the other server');
    assert.equal(await count(hot, 'SELECT count() FROM marketprism_hot.trades'), held);
    await cold.query('TRUNCATE TABLE marketprism_cold.replication_progress');
    const { status } = manage('replicate', '--once');
    assert.equal(status, 0);
    assert.ok((await drop()).length > 0);
    assert.equal(await count(hot, 'SELECT count() FROM marketprism_hot.trades'), 0);
    assert.equal(await count(cold, 'SELECT count() FROM marketprism_cold.trades'), held + OLD_ROWS);
  });
});
