/**
 * Hyperliquid's trades have no ids that count. A collector whose socket was away for long asks whether another one was there meanwhile: then
 * nothing is missing; else nobody can know, and that is told.
 */
import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { waitFor } from '../scripts/lib/processes.ts';
import { Pipeline, READY_MS } from './pipeline.ts';
import { Wire } from './wire.ts';

describe('a collector whose socket was away', () => {
  const pipeline = new Pipeline({ MARKETPRISM_EXCHANGES: 'hyperliquid', MARKETPRISM_SYMBOLS: 'BTC-USDT' });
  let wire: Wire;
  /** Gaps of before the last test. */
  let told: string[][] = [];

  before(async () => {
    await pipeline.choosePorts();
    await pipeline.startBroker();
    await pipeline.startDatabase();
    await pipeline.startSimulator(['--symbols', 'BTC-USDT', '--trades-per-second', '5']);
    await pipeline.startStore();
    const hosts = JSON.parse(readFileSync(join(pipeline.dir, 'endpoints.json'), 'utf8')).hyperliquid;
    wire = new Wire(Number(new URL(hosts.ws).port));
    const endpoints = join(pipeline.dir, 'endpoints-a.json');
    writeFileSync(endpoints, JSON.stringify({ hyperliquid: { ...hosts, ws: `ws://${await wire.listen()}` } }));
    await pipeline.startCollector({ MARKETPRISM_ENDPOINTS: endpoints });
    await pipeline.startCollector({}, 'collector_b');
    for (const name of ['collector', 'collector_b'] as const) await trades(name, 20);
  });
  after(async () => {
    await wire?.close();
    await pipeline.close();
  });

  async function trades(name: 'collector' | 'collector_b', more: number): Promise<void> {
    const count = async () =>
      (await pipeline.health(name))?.received?.find(({ data_type }) => data_type === 'trade')?.received ?? 0;
    const before = await count();
    await waitFor('trades', READY_MS, async () => (await count()) > before + more);
  }

  /** The venue lives through more than its backlog tells while A is not there. */
  async function away(): Promise<void> {
    wire.open = false;
    wire.cut();
    await pipeline.simulate({ action: 'skip', exchange: 'hyperliquid', seconds: 60 });
    wire.open = true;
    await trades('collector', 20);
  }
  const gaps = () =>
    pipeline.query("SELECT cause, toString(status) FROM marketprism_hot.gaps_now WHERE data_type = 'trade'");

  test('misses nothing while another one was there', async () => {
    await away();
    await waitFor('the answer', READY_MS, async () => pipeline.events('collector', 'gap_bridged').length === 1);
    await pipeline.drained();
    assert.deepEqual(await gaps(), []);
  });

  test('cannot know what it missed when the other one was away, too, and came back at the same time', async () => {
    await pipeline.stop('collector_b');
    await pipeline.startCollector({ MARKETPRISM_ENDPOINTS: join(pipeline.dir, 'endpoints-a.json') }, 'collector_b');
    await trades('collector_b', 20);
    await away();
    await trades('collector_b', 20);
    const answers = (event: string) =>
      (['collector', 'collector_b'] as const).flatMap((name) => pipeline.events(name, event)).length;
    // The first one's, of this test, and of the test before.
    await waitFor('both answers', READY_MS, async () => answers('gap_bridged') + answers('gap_unprovable') === 1 + 2);
    assert.ok(answers('gap_unprovable') >= 1, 'the one that told first has nobody to rely on');
    await pipeline.drained();
    assert.ok((await gaps()).length >= 1);
    told = await gaps();
  });

  test('cannot know what it missed when it was alone', async () => {
    await pipeline.stop('collector_b');
    await trades('collector', 40);
    const before = pipeline.events('collector', 'gap_unprovable').length;
    await away();
    await waitFor('the answer', READY_MS, async () => pipeline.events('collector', 'gap_unprovable').length > before);
    await pipeline.drained();
    assert.deepEqual(await gaps(), [...told, ['outage', 'unfillable']]);
  });

  test('listens at once when it is started while the broker is away, and knows where it was', async () => {
    const before = (await gaps()).length;
    await pipeline.stop('nats-server');
    await pipeline.kill('collector');
    await trades('collector', 20);
    await pipeline.startBroker();
    await pipeline.drained();
    assert.equal((await gaps()).length, before, 'a second is no more than the venue’s backlog tells');
  });
});
