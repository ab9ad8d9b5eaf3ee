/**
 * Hyperliquid numbers neither trades nor books. A collector whose socket was away for long asks whether another one was there meanwhile: then
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
  before(async () => {
    await pipeline.choosePorts();
    await pipeline.startBroker();
    await pipeline.startDatabase();
    // A collector is back before the venue's backlog of 30 trades is over, on a slow machine, too.
    await pipeline.startSimulator(['--symbols', 'BTC-USDT', '--trades-per-second', '2']);
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
  const TYPES = ['trade', 'orderbook_update'] as const;
  type Type = (typeof TYPES)[number];
  const BOTH = ['collector', 'collector_b'] as const;
  type Event = 'gap_bridged' | 'gap_unprovable';
  /** How often it was told of a type that nothing is missing, or that nobody knows. */
  const told = (name: (typeof BOTH)[number], event: Event, type: Type) =>
    pipeline.events(name, event).filter((each) => each.type === type).length;
  /** Of books the store declares by itself that a minute without any was told to nobody. */
  const gaps = (type: Type) =>
    pipeline.query(
      `SELECT cause, toString(status) FROM marketprism_hot.gaps_now WHERE data_type = '${type}' AND rows IS NULL ORDER BY from_time`,
    );

  test('misses nothing while another one was there', async () => {
    await away();
    for (const type of TYPES) {
      await waitFor(`the answer of ${type}`, READY_MS, async () => told('collector', 'gap_bridged', type) === 1);
      assert.equal(told('collector', 'gap_unprovable', type), 0);
    }
    await pipeline.drained();
    assert.deepEqual(await gaps('trade'), []);
  });

  test('cannot know what it missed when the other one was away, too, and came back at the same time', async () => {
    await pipeline.stop('collector_b');
    await pipeline.startCollector({ MARKETPRISM_ENDPOINTS: join(pipeline.dir, 'endpoints-a.json') }, 'collector_b');
    await trades('collector_b', 20);
    const answers = (name: (typeof BOTH)[number], type: Type) =>
      told(name, 'gap_bridged', type) + told(name, 'gap_unprovable', type);
    // Its start is an interruption, too.
    await waitFor('its first book', READY_MS, async () => answers('collector_b', 'orderbook_update') > 0);
    const before = new Map(BOTH.flatMap((name) => TYPES.map((type) => [name + type, answers(name, type)])));
    await away();
    for (const type of TYPES) {
      for (const name of BOTH) {
        const more = async () => answers(name, type) > before.get(name + type)!;
        await waitFor(`${name}'s answer of ${type}`, READY_MS, more);
      }
      const declared = told('collector', 'gap_unprovable', type) + told('collector_b', 'gap_unprovable', type);
      assert.ok(declared >= 1, 'the one that was asked first may have had its socket still');
    }
    await pipeline.drained();
    for (const type of TYPES) assert.ok((await gaps(type)).length >= 1);
  });

  test('cannot know what it missed when the other one went for good before it was back itself', async () => {
    await pipeline.stop('collector_b');
    await pipeline.startCollector({}, 'collector_b');
    // As long as a book of both in its turn takes.
    await trades('collector_b', 50);
    const before = TYPES.map((type) => told('collector', 'gap_unprovable', type));
    wire.open = false;
    wire.cut();
    // Asked at once, the other one is still there; it goes when the question was answered.
    await new Promise((done) => setTimeout(done, 300));
    await pipeline.stop('collector_b');
    await pipeline.simulate({ action: 'skip', exchange: 'hyperliquid', seconds: 60 });
    wire.open = true;
    for (const [i, type] of TYPES.entries()) {
      const more = async () => told('collector', 'gap_unprovable', type) === before[i]! + 1;
      await waitFor(`the word of ${type}`, READY_MS, more);
    }
  });

  test('cannot know what it missed when it was alone', async () => {
    await trades('collector', 40);
    const before = new Map<Type, string[][]>();
    for (const type of TYPES) before.set(type, await gaps(type));
    const answers = (type: Type) => told('collector', 'gap_unprovable', type);
    const [ofTrades, ofBooks] = [answers('trade'), answers('orderbook_update')];
    await away();
    await waitFor('the answer of trades', READY_MS, async () => answers('trade') === ofTrades + 1);
    await waitFor('the answer of books', READY_MS, async () => answers('orderbook_update') === ofBooks + 1);
    await pipeline.drained();
    for (const type of TYPES) {
      assert.deepEqual(await gaps(type), [...before.get(type)!, ['outage', 'unfillable']], 'once, whoever tells of it');
    }
  });

  test('listens at once when it is started while the broker is away, and knows where it was', async () => {
    const before = (await gaps('trade')).length;
    await pipeline.stop('nats-server');
    await pipeline.kill('collector');
    await trades('collector', 20);
    await pipeline.startBroker();
    await pipeline.drained();
    assert.equal((await gaps('trade')).length, before, 'a second is no more than the venue’s backlog tells');
  });

  test('a book of which nobody knows whether it came in its turn tells of what may be missing before the next one', async () => {
    const before = told('collector', 'gap_unprovable', 'orderbook_update');
    await pipeline.kill('collector');
    const more = async () => told('collector', 'gap_unprovable', 'orderbook_update') === before + 1;
    await waitFor('the word of it', READY_MS, more);
    await pipeline.drained();
    const { after, before: next } = pipeline.events('collector', 'gap_unprovable').at(-1) as Record<
      string,
      { time: number }
    >;
    const stored = await pipeline.query(
      `SELECT count() FROM marketprism_hot.gaps_now WHERE data_type = 'orderbook_update' AND from_id = '${after!.time + 1}' AND to_id = '${next!.time - 1}'`,
    );
    assert.deepEqual(stored, [['1']]);
  });
});
