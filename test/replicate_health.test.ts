/** What replicate.ts says of itself as a process, in /health and its log: how far it is behind, and a table that stopped. */
import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test } from 'node:test';
import { headers, type NatsConnection } from 'nats';
import { Child, scriptPlan, waitFor } from '../scripts/lib/processes.ts';
import { type DataType, encodeRow } from '../scripts/lib/rows.ts';
import { sampleTrade } from './fixtures.ts';
import { Pipeline, READY_MS } from './pipeline.ts';

const HOT = 'marketprism_hot.trades';
const COLD = 'marketprism_cold.trades';
/** An epoch that no stream has: what is of it is never settled, so it stays in hot alone. */
const UNSETTLED = 99;
const COLUMNS =
  'timestamp, exchange, market_type, symbol, instrument, trade_id, price, quantity, side, is_maker, received_at, data_source';

interface Health {
  status: string;
  last_pass: string | null;
  lag_minutes: Record<string, number | null>;
  checks: Record<string, { status: string; error_message: string | null }>;
}

describe('the health of replicate.ts', () => {
  const pipeline = new Pipeline({ HEALTH_GRACE_SECONDS: '0' });
  let nats: NatsConnection;
  let child: Child;

  before(async () => {
    await pipeline.choosePorts();
    await pipeline.startBroker();
    await pipeline.startDatabase();
    await pipeline.startStore();
    nats = await pipeline.nats();
  });
  afterEach(() => child.stop());
  after(async () => {
    await nats?.close();
    await pipeline.close();
  });

  async function start(stoppedRetry: string): Promise<void> {
    const env = { ...pipeline.env, MARKETPRISM_STOPPED_RETRY: stoppedRetry };
    child = new Child(scriptPlan('replicate', [], env, pipeline.logDir), () => false);
    child.start();
    await passes(1);
  }
  const health = async () =>
    fetch(`http://127.0.0.1:${pipeline.ports.replicate}/health`).then(
      (answer) => answer.json() as Promise<Health>,
      () => null,
    );
  const seen = (what: string, probe: (document: Health) => boolean) =>
    waitFor(what, READY_MS, async () => {
      const document = await health();
      return document !== null && probe(document);
    });
  /** Waits for so many rounds, the first of which may be under way. */
  async function passes(count: number): Promise<void> {
    for (let i = 0; i < count; i += 1) {
      const last = (await health())?.last_pass ?? null;
      await seen('a pass', ({ last_pass }) => last_pass !== last);
    }
  }
  const count = async (table: string) => Number((await pipeline.query(`SELECT count() FROM ${table}`))[0]![0]);
  const events = (event: string) => pipeline.events('replicate', event);

  test('lag is told as it grows: degraded, then unhealthy, each threshold said once, and once that it is over', async () => {
    await start('5m');
    const waiting = (hours: number) =>
      pipeline.client().command({
        query: `INSERT INTO ${HOT} (${COLUMNS}, created_at, js_epoch, js_seq) SELECT now64(3), 'binance_spot', 'spot', 'BTC-USDT', 'BTCUSDT', 'late-${hours}', 1, 1, 'buy', false, now64(6), 'live', now64(3) - INTERVAL ${hours} HOUR, ${UNSETTLED}, ${hours}`,
      });
    const gone = (from: number) =>
      pipeline.query(
        `ALTER TABLE ${HOT} DELETE WHERE js_epoch = ${UNSETTLED} AND js_seq >= ${from} SETTINGS mutations_sync = 2`,
      );
    const behind = (hours: number) =>
      seen(`${hours} h`, ({ lag_minutes }) => Math.floor(lag_minutes.trades! / 60) === hours);
    const told = () => events('replication_lag').map(({ threshold_hours }) => threshold_hours);
    // The log comes after the figure; what was said too much is seen with the next line, or at the end.
    const says = async (thresholds: number[]) => {
      await waitFor('its line', READY_MS, async () => told().length >= thresholds.length);
      assert.deepEqual(told(), thresholds);
    };
    const state = async () => (await health())!.checks.trades!;

    await waiting(11);
    await behind(11);
    const { status, error_message } = await state();
    assert.equal(status, 'degraded');
    assert.match(error_message!, /^66\d minutes behind$/);
    for (const [hours, thresholds] of [
      [13, [12]],
      [25, [12, 24]],
      [49, [12, 24, 48]],
    ] as [number, number[]][]) {
      await waiting(hours);
      await behind(hours);
      assert.equal((await state()).status, 'unhealthy', `${hours} h`);
      await says(thresholds);
    }
    await gone(14);
    await behind(13);
    await gone(0);
    await waitFor('the end of it', READY_MS, async () => events('replication_lag_over').length > 0);
    assert.equal((await health())!.status, 'healthy');
    await says([12, 24, 48]);
    await waiting(12);
    await says([12, 24, 48, 12]);
    assert.equal(events('replication_lag_over').length, 1);
    await gone(0);
  });

  async function publish(type: DataType, rows: string[]): Promise<void> {
    const head = headers();
    head.set('Mp-Mode', 'live');
    await nats.jetstream().publish(`${type}.binance_spot.spot.BTC-USDT`, rows.join('\n'), { headers: head });
    await pipeline.drained();
  }
  const trades = (from: number) =>
    publish(
      'trade',
      Array.from({ length: 200 }, (_, i) => encodeRow('trade', sampleTrade(from + i))),
    );

  test('a table whose cold holds too much stays stopped and loses nothing, the others go on, and so does it once that is mended', async () => {
    await trades(1);
    await start('1h');
    assert.equal(await count(COLD), 200);
    await pipeline.client().command({
      query: `INSERT INTO ${COLD} (${COLUMNS}) SELECT ${COLUMNS} FROM ${COLD} WHERE trade_id = '7'`,
    });
    await pipeline.query('TRUNCATE TABLE marketprism_cold.replication_progress');
    await seen('the alarm', ({ checks }) => checks.trades!.status === 'unhealthy');
    const isTold = async () => {
      const { status, checks } = (await health())!;
      assert.deepEqual([status, checks.trades!.status], ['unhealthy', 'unhealthy']);
      assert.match(checks.trades!.error_message!, /^stopped: trades: cold has 201 rows where hot has 200 \(/);
    };
    await isTold();
    await passes(2);
    assert.equal(events('table_stopped').length, 1, 'it is not looked at in every round');
    await child.stop();

    await start('1ms');
    await isTold();
    const looks = events('table_stopped').length;
    const { trade_id, sequence, side, is_maker, price, quantity, ...common } = sampleTrade(1);
    const update = { first_update_id: null, last_update_id: 1, prev_update_id: null, is_snapshot: true };
    await publish('orderbook_update', [
      encodeRow('orderbook_update', { ...common, ...update, bids: [[price, quantity]], asks: [] }),
    ]);
    await waitFor('the others', READY_MS, async () => (await count('marketprism_cold.orderbook_updates')) === 1);
    await waitFor('another look', READY_MS, async () => events('table_stopped').length > looks);
    await isTold();
    assert.deepEqual([await count(HOT), await count(COLD)], [200, 201]);
    const written = "SELECT count() FROM marketprism_cold.replication_progress WHERE table_name = 'trades'";
    assert.deepEqual(await pipeline.query(written), [['0']], 'nothing of it is written down');

    await pipeline.query(`ALTER TABLE ${COLD} DELETE WHERE trade_id = '7' SETTINGS mutations_sync = 2`);
    await seen('that it is mended', ({ status }) => status === 'healthy');
    await trades(1000);
    await waitFor('the rest', READY_MS, async () => (await count(COLD)) === 400);
    const sum = 'SELECT count(), uniqExact(trade_id), sum(cityHash64(toString(tuple(*)))) FROM';
    assert.deepEqual(await pipeline.query(`${sum} ${COLD}`), await pipeline.query(`${sum} ${HOT}`));
    assert.equal(events('table_goes_on').length, 1);
  });
});
