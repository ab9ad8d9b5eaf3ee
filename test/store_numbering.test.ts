/**
 * A broker that comes back without the end of a stream gives the same sequences to other messages. It remembers what it had delivered, and an
 * acknowledgement of before would count for what bears the number now: the store must neither miss nor mix up a row by that.
 */
import assert from 'node:assert/strict';
import { readdirSync, statSync, truncateSync } from 'node:fs';
import { join } from 'node:path';
import { after, afterEach, before, describe, test } from 'node:test';
import { headers, type NatsConnection } from 'nats';
import { ClickHouseProxy } from '../scripts/lib/chaos/clickhouse_proxy.ts';
import { freePort } from '../scripts/lib/free_port.ts';
import { waitFor } from '../scripts/lib/processes.ts';
import { encodeRow } from '../scripts/lib/rows.ts';
import { sampleTrade } from './fixtures.ts';
import { Pipeline, READY_MS } from './pipeline.ts';

const SUBJECT = 'trade.binance_spot.spot.BTC-USDT';

describe('a broker that lost the end of a stream', () => {
  /** Taken by a store when it starts. */
  const extra: NodeJS.ProcessEnv = {};
  const pipeline = new Pipeline(extra);
  let proxy: ClickHouseProxy;

  before(async () => {
    await pipeline.choosePorts();
    await pipeline.startBroker();
    await pipeline.startDatabase();
    proxy = new ClickHouseProxy(pipeline.env.CLICKHOUSE_URL!);
    await proxy.listen(await freePort());
    await startStore();
  });
  afterEach(() => {
    proxy.onRequest = () => null;
  });
  after(async () => {
    await pipeline.close();
    await proxy.close();
  });

  /** The store alone goes through the proxy. */
  async function startStore(): Promise<void> {
    const original = pipeline.ports.clickhouse;
    pipeline.ports.clickhouse = proxy.port;
    await pipeline.startStore();
    pipeline.ports.clickhouse = original;
  }

  async function withNats<T>(work: (nats: NatsConnection) => Promise<T>): Promise<T> {
    const nats = await pipeline.nats();
    try {
      return await work(nats);
    } finally {
      await nats.close();
    }
  }

  /** One message for each id. */
  async function publish(from: number, count: number): Promise<void> {
    await withNats(async (nats) => {
      const head = headers();
      head.set('Mp-Mode', 'live');
      for (let id = from; id < from + count; id += 1) {
        const row = encodeRow('trade', sampleTrade(id, { timestamp: 1_795_001_000_000 + id }));
        await nats.jetstream().publish(SUBJECT, row, { headers: head });
      }
    });
  }

  /** While the broker is down: a part of what it wrote last never came to the disk. */
  function loseEnd(share: number): void {
    const dir = join(pipeline.dir, 'nats/jetstream/$G/streams/MARKET_DATA/msgs');
    const last = readdirSync(dir)
      .filter((name) => name.endsWith('.blk'))
      .sort((one, other) => Number.parseInt(one, 10) - Number.parseInt(other, 10))
      .at(-1)!;
    truncateSync(join(dir, last), Math.floor(statSync(join(dir, last)).size * (1 - share)));
  }

  const inHot = async (from: number, count: number) =>
    Number(
      (
        await pipeline.query(
          `SELECT uniqExact(trade_id) FROM marketprism_hot.trades WHERE toUInt64(trade_id) >= ${from} AND toUInt64(trade_id) < ${from + count}`,
        )
      )[0]![0],
    );

  /** Each row under the present epoch must be in the message of its sequence, if the stream still has that. */
  async function assertNumbering(): Promise<void> {
    const rows = await pipeline.query(
      'SELECT toString(js_seq), trade_id FROM marketprism_hot.trades WHERE js_epoch = (SELECT max(js_epoch) FROM marketprism_hot.trades)',
    );
    assert.ok(rows.length > 50, `${rows.length} rows`);
    await withNats(async (nats) => {
      const manager = await nats.jetstreamManager();
      for (const [seq, id] of rows) {
        const message = await manager.streams.getMessage('MARKET_DATA', { seq: Number(seq) });
        assert.ok(Buffer.from(message.data).includes(`"trade_id":"${id}"`), `trade ${id} did not come with ${seq}`);
      }
    });
    const [[count, unique] = []] = await pipeline.query(
      'SELECT count(), uniqExact(trade_id) FROM marketprism_hot.trades',
    );
    assert.equal(count, unique, 'nothing twice');
  }

  const raised = () => pipeline.events('store', 'epoch_raised').length;

  test('delivers what bears the lost numbers now, all of it', async () => {
    await publish(1000, 200);
    await waitFor('the first ones', READY_MS, async () => (await inHot(1000, 200)) === 200);
    await pipeline.drained();
    await pipeline.stop('nats-server');
    loseEnd(0.5);
    await pipeline.startBroker();
    await publish(2000, 150);
    await waitFor('all that came afterwards', READY_MS, async () => (await inHot(2000, 150)) === 150);
    assert.equal(raised(), 1);
    await assertNumbering();
  });

  test('the same while the store is down', async () => {
    await publish(3000, 100);
    await waitFor('the first ones', READY_MS, async () => (await inHot(3000, 100)) === 100);
    await pipeline.drained();
    await pipeline.stop('store');
    await pipeline.stop('nats-server');
    loseEnd(0.4);
    await pipeline.startBroker();
    await publish(4000, 300);
    await startStore();
    await waitFor('all that came afterwards', READY_MS, async () => (await inHot(4000, 300)) === 300);
    assert.equal(raised(), 2);
    await assertNumbering();
  });

  test('what the store has in hand then acknowledges nothing of what bears its numbers now', async () => {
    await publish(5000, 20);
    await waitFor('the first ones', READY_MS, async () => (await inHot(5000, 20)) === 20);
    await pipeline.drained();
    let refused = 0;
    proxy.onRequest = (sql) => (/trades/.test(sql) && (refused += 1) > 0 ? 'unavailable' : null);
    await publish(6000, 100);
    await waitFor('a batch in hand', READY_MS, async () => refused > 2);
    await pipeline.stop('nats-server');
    loseEnd(0.1);
    await pipeline.startBroker();
    await publish(7000, 200);
    await waitFor(
      'the store to be back',
      READY_MS,
      async () => pipeline.events('store', 'broker_reconnect').length > 0,
    );
    proxy.onRequest = () => null;
    await waitFor('all that came afterwards', READY_MS, async () => (await inHot(7000, 200)) === 200);
    await assertNumbering();
  });

  test('negative control: a store that believes the broker alone never gets them', async () => {
    await pipeline.stop('store');
    extra.MARKETPRISM_WITHOUT = 'checkpoint';
    await startStore();
    await publish(8000, 200);
    await waitFor('the first ones', READY_MS, async () => (await inHot(8000, 200)) === 200);
    await pipeline.drained();
    await pipeline.stop('nats-server');
    loseEnd(0.2);
    await pipeline.startBroker();
    await publish(9000, 500);
    await pipeline.drained();
    const found = await inHot(9000, 500);
    assert.ok(found < 500, `${found} of 500`);
  });
});
