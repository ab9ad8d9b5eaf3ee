import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import type { ClickHouseClient } from '@clickhouse/client';
import type { JetStreamManager, NatsConnection } from 'nats';
import { insertLines } from '../scripts/lib/clickhouse.ts';
import { currentEpoch } from '../scripts/lib/epochs.ts';
import { ensureStreams } from '../scripts/lib/jetstream.ts';
import { createLogger } from '../scripts/lib/log.ts';
import { encodeRow } from '../scripts/lib/rows.ts';
import { ensureTier } from '../scripts/lib/schema.ts';
import { streamDefinitions } from '../scripts/lib/streams.ts';
import { sampleTrade } from './fixtures.ts';
import { Pipeline } from './pipeline.ts';

const log = createLogger('test', 'fatal');
const [DEFINITION] = streamDefinitions() as [ReturnType<typeof streamDefinitions>[0]];

const trade = (id: number) => encodeRow('trade', sampleTrade(id));

describe('the epoch of a stream’s numbering', () => {
  const pipeline = new Pipeline();
  let client: ClickHouseClient;
  let nats: NatsConnection;
  let manager: JetStreamManager;
  let database = '';

  before(async () => {
    await pipeline.choosePorts();
    await pipeline.startBroker();
    await pipeline.startDatabase();
    client = pipeline.client();
    nats = await pipeline.nats();
    manager = await nats.jetstreamManager();
  });
  after(async () => {
    await nats?.close();
    await pipeline.close();
  });

  /** A stream and a database as after a first start that has stored messages 1 to 3, of two rows each. */
  let number = 0;
  async function begin(): Promise<void> {
    database = `epochs_${++number}`;
    await ensureTier(client, 'hot', database);
    await renew();
    assert.equal(await epoch(), 1);
    for (let seq = 1; seq <= 3; seq++) {
      await publish(seq * 10);
      await store(1, seq, [seq * 10, seq * 10 + 1]);
    }
    assert.equal(await epoch(), 1);
  }

  async function renew(): Promise<void> {
    await manager.streams.delete(DEFINITION.name).catch(() => undefined);
    await ensureStreams(manager, [DEFINITION], log);
  }

  const epoch = (isIntact = true) => currentEpoch(client, database, manager, DEFINITION, isIntact, log);
  const publish = (id: number, subject = 'trade.binance_spot.spot.BTC-USDT') =>
    nats.jetstream().publish(subject, `${trade(id)}\n${trade(id + 1)}`);

  let inserts = 0;
  async function store(js_epoch: number, seq: number, ids: number[]): Promise<void> {
    const text = ids.map((id) => `{"js_epoch":${js_epoch},"js_seq":${seq},${trade(id).slice(1)}\n`).join('');
    await insertLines(client, `${database}.trades`, Buffer.from(text), `test:${++inserts}`);
  }

  async function history(): Promise<string[]> {
    const rows = await pipeline.query(
      `SELECT js_epoch, replaceRegexpOne(reason, 'created .*', 'created'), closed_at_seq FROM ${database}.stream_epochs ORDER BY js_epoch, updated_at, closed_at_seq`,
    );
    return rows.map((row) => row.join(' '));
  }

  test('stays while the stream goes on, also when it has messages that hot has not', async () => {
    await begin();
    await publish(40);
    assert.equal(await epoch(), 1);
    assert.deepEqual(await history(), ['1 first \\N']);
  });

  test('stays when the last stored message has left the stream by its limits', async () => {
    await begin();
    await publish(40);
    await manager.streams.purge(DEFINITION.name, { seq: 4 });
    assert.equal(await epoch(), 1);
  });

  test('rises when the stream was made anew, even with the same messages in it', async () => {
    await begin();
    await renew();
    for (let seq = 1; seq <= 3; seq++) await publish(seq * 10);
    assert.equal(await epoch(), 2);
    assert.equal(await epoch(), 2, 'and once');
    assert.deepEqual(await history(), ['1 first \\N', '1 closed 3', '2 created \\N']);
  });

  test('rises when hot has a sequence that the stream has not reached', async () => {
    await begin();
    await store(1, 5, [90, 91]);
    assert.equal(await epoch(), 2);
    assert.deepEqual(await history(), ['1 first \\N', '1 closed 5', '2 hot has sequence 5, the stream ends at 3 \\N']);
    // Of the new epoch nothing is stored, so nothing speaks against it.
    assert.equal(await epoch(), 2);
    await publish(50);
    await store(2, 4, [50, 51]);
    assert.equal(await epoch(), 2);
  });

  test('rises when the message at the last stored sequence has other rows', async () => {
    await begin();
    await publish(40);
    await store(1, 4, [70, 71]);
    assert.equal(await epoch(), 2);
    assert.deepEqual((await history()).at(-1), '2 another message at sequence 4 \\N');
  });

  test('rises when that message is of another stream, or has only some of the rows', async () => {
    await begin();
    await publish(40, 'trade.binance_spot.spot.ETH-USDT'.replace('trade', 'liquidation'));
    await store(1, 4, [40, 41]);
    assert.equal(await epoch(), 2);
    await begin();
    await publish(40);
    await store(1, 4, [41, 42]);
    assert.equal(await epoch(), 2);
  });

  test('rises when what was acknowledged is gone, although hot has no row of it', async () => {
    await begin();
    assert.equal(await epoch(false), 2);
    assert.deepEqual((await history()).slice(1), ['1 closed 3', '2 an acknowledged message is not there any more \\N']);
  });

  test('rises when the message at the last stored sequence is missing', async () => {
    await begin();
    await publish(40);
    await manager.streams.deleteMessage(DEFINITION.name, 3);
    assert.equal(await epoch(), 2);
    assert.deepEqual((await history()).at(-1), '2 no message at sequence 3 \\N');
  });
});
