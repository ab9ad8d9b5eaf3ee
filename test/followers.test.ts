/** Collectors that ask each other over a real broker who followed a stream while one of them did not. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import type { NatsConnection } from 'nats';
import type { Instrument, UnnumberedType } from '../scripts/lib/exchange.ts';
import { answerOthers, isFollowed } from '../scripts/lib/followers.ts';
import { connectNats } from '../scripts/lib/jetstream.ts';
import { createLogger } from '../scripts/lib/log.ts';
import { Pipeline } from './pipeline.ts';

const BTC: Instrument = { exchange: 'hyperliquid', market_type: 'perpetual', symbol: 'BTC-USDC', instrument: 'BTC' };

describe('who followed a stream', () => {
  const pipeline = new Pipeline();
  const connections: NatsConnection[] = [];
  /** A collector's connection, as it is made by collectors, with what it answers. */
  async function collector(since: (type: UnnumberedType, id: string) => number | null): Promise<NatsConnection> {
    const url = `nats://127.0.0.1:${pipeline.ports.nats}`;
    const nats = await connectNats(url, 'collector', createLogger('test', 'silent'));
    connections.push(nats);
    answerOthers(nats, (type, { instrument }) => since(type, instrument));
    await nats.flush();
    return nats;
  }
  before(async () => {
    await pipeline.choosePorts();
    await pipeline.startBroker();
  });
  after(async () => {
    for (const each of connections) await each.close();
    await pipeline.close();
  });

  test('nobody did while there is no other collector: one’s own answer does not count', async () => {
    const alone = await collector(() => 1);
    assert.equal(await isFollowed(alone, 'trade', BTC, 1000), false);
    await alone.close();
  });

  test('one did that missed nothing from the last row that is known on; later, or never, is no help', async () => {
    const asking = await collector(() => null);
    await collector((type, id) => (type === 'trade' && id === 'BTC' ? 1000 : null));
    assert.equal(await isFollowed(asking, 'trade', BTC, 1000), true);
    assert.equal(await isFollowed(asking, 'trade', BTC, 999), false);
    assert.equal(await isFollowed(asking, 'orderbook_update', BTC, 1001), false);
    assert.equal(await isFollowed(asking, 'trade', { ...BTC, instrument: 'ETH' }, 1001), false);
    await collector(() => 500);
    assert.equal(await isFollowed(asking, 'trade', BTC, 600), true, 'one of several is enough');
  });

  test('what is no question is left without an answer, and hurts nobody', async () => {
    const asking = connections.at(-1)!;
    asking.publish('marketprism.followers', '{"type":"gap"}');
    asking.publish('marketprism.followers', 'no json');
    assert.equal(await isFollowed(asking, 'trade', BTC, 1001), true);
  });
});
