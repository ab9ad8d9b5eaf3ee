import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { waitFor } from '../scripts/lib/processes.ts';
import { EXCHANGES } from '../scripts/lib/rows.ts';
import { Pipeline, READY_MS, type ServiceName } from './pipeline.ts';

/** Kills of each service, at moments spread over a run. */
const KILLS: ServiceName[] = [
  'store',
  'clickhouse_embedded',
  'collector',
  'store',
  'nats-server',
  'clickhouse_embedded',
  'collector',
  'store',
];

describe('kill -9 of each service while rows flow', () => {
  const pipeline = new Pipeline({
    MARKETPRISM_ORDERBOOK_INTERVAL: '1s',
    MARKETPRISM_EXCHANGES: EXCHANGES.join(','),
    MARKETPRISM_LIQUIDATION_DELAY: '5s',
  });
  before(async () => {
    await pipeline.choosePorts();
    await pipeline.startBroker();
    await pipeline.startDatabase();
    await pipeline.startSimulator(['--trades-per-second', '60', '--seed', '5']);
    await pipeline.startStore();
    await pipeline.startCollector();
  });
  after(() => pipeline.close());

  test('leaves every published row in hot, each once, and nothing else', async () => {
    for (const name of KILLS) {
      const before = await rowsInHot();
      await pipeline.kill(name);
      await pipeline.brokerReady();
      await pipeline.databaseReady();
      await waitFor(`rows after the kill of ${name}`, READY_MS, async () => (await rowsInHot()) > before);
    }
    await pipeline.simulate({ action: 'stop' });
    await pipeline.settled();
    const tables = await pipeline.compare();
    const enough = ['orderbook', 'orderbook_update', 'trade'] as const;
    for (const type of enough) assert.ok((tables.get(type)?.published ?? 0) > 20, `${type}: enough rows to tell`);
    assert.ok(tables.has('funding_rate') && tables.has('lsr_top_position'), 'readings, too');
    for (const [type, { published, rows, distinct, missing }] of tables) {
      assert.deepEqual(missing, [], `${type}: published and not in hot`);
      assert.deepEqual([rows, distinct], [published, published], `${type}: rows in hot, distinct`);
    }
  });

  test('leaves in hot only what the exchange sent', async () => {
    for (const exchange of ['binance_spot', 'binance_derivatives', 'okx_spot', 'okx_derivatives']) {
      const url = `${pipeline.control}/ledger/keys?exchange=${exchange}&symbol=BTC-USDT&data_type=trade`;
      const sent = new Set((await (await fetch(url)).text()).trim().split('\n'));
      const hot = await pipeline.query(
        `SELECT trade_id FROM marketprism_hot.trades WHERE exchange = '${exchange}' AND symbol = 'BTC-USDT'`,
      );
      assert.deepEqual(
        hot.map(([id]) => id).filter((id) => !sent.has(id!)),
        [],
      );
    }
  });

  test('a stopped pipeline stops cleanly, each service within its time', async () => {
    for (const name of ['collector', 'store', 'clickhouse_embedded'] as const) {
      const exit = await pipeline.stop(name);
      assert.deepEqual([exit?.code, exit?.signal], [0, null], `${name}: ${exit?.lastLine}`);
    }
  });

  async function rowsInHot(): Promise<number> {
    const tables = ['trades', 'orderbooks', 'orderbook_updates'];
    const parts = tables.map((table) => `SELECT count() AS n FROM marketprism_hot.${table}`);
    return Number((await pipeline.query(`SELECT sum(n) FROM (${parts.join(' UNION ALL ')})`))[0]![0]);
  }
});
