/** A gap that the stream forgot is told again, until it is closed: collectors know of gaps from the stream alone. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { messageAt } from '../scripts/lib/jetstream.ts';
import { waitFor } from '../scripts/lib/processes.ts';
import { Pipeline, READY_MS } from './pipeline.ts';

const SUBJECT = 'gap.binance_spot.spot.BTC-USDT';
const pipeline = new Pipeline({ MARKETPRISM_GAP_AGE: '1s' });
before(async () => {
  await pipeline.choosePorts();
  await pipeline.startBroker();
  await pipeline.startDatabase();
  await pipeline.startStore();
  await pipeline.stop('store');
});
after(() => pipeline.close());

test('an open gap of which the broker lost the message is told again, and stored once', async () => {
  const trades = [100, 101, 105].map(
    (id) =>
      `(now64(3) - INTERVAL ${200 - id} SECOND, 'binance_spot', 'spot', 'BTC-USDT', 'BTCUSDT', '${id}', 1, 1, 'buy', true, now64(6) - INTERVAL 1 MINUTE, 'live', 1, ${id})`,
  );
  await pipeline.client().command({
    query: `INSERT INTO marketprism_hot.trades (timestamp, exchange, market_type, symbol, instrument, trade_id, price, quantity, side, is_maker, received_at, data_source, js_epoch, js_seq) VALUES ${trades.join(', ')}`,
  });
  await pipeline.startStore();
  const nats = await pipeline.nats();
  try {
    const manager = await nats.jetstreamManager();
    const inStream = async () => (await messageAt(manager, 'MARKET_DATA', { last_by_subj: SUBJECT }))?.string() ?? null;
    const stored = () =>
      pipeline.query("SELECT from_id, to_id, toString(status) FROM marketprism_hot.gaps WHERE data_type = 'trade'");
    await waitFor('the gap', READY_MS, async () => (await stored()).length > 0);
    assert.deepEqual(await stored(), [['102', '104', 'open']]);
    const first = JSON.parse((await inStream())!);
    await manager.streams.purge('MARKET_DATA', { filter: 'gap.>' });
    assert.equal(await inStream(), null);
    await waitFor('the gap in the stream', READY_MS, async () => (await inStream()) !== null);
    const again = JSON.parse((await inStream())!);
    assert.deepEqual([again.gap_id, again.status, again.from_id, again.to_id], [first.gap_id, 'open', '102', '104']);
    await pipeline.drained();
    assert.deepEqual(await stored(), [['102', '104', 'open']]);
  } finally {
    await nats.close();
  }
});
