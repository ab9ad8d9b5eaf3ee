/** Several stores: one for each stream beside each other, and one that stands by on what is another machine to it. */
import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, test } from 'node:test';
import { ClickHouseProxy } from '../scripts/lib/chaos/clickhouse_proxy.ts';
import { freePort } from '../scripts/lib/free_port.ts';
import { healthOf } from '../scripts/lib/joint_health.ts';
import { Child, type ChildExit, scriptPlan, waitFor } from '../scripts/lib/processes.ts';
import { type DataType, TABLES } from '../scripts/lib/rows.ts';
import { STREAM_NAMES, type StreamName, streamDefinitions } from '../scripts/lib/streams.ts';
import { type HealthDocument, Pipeline, READY_MS } from './pipeline.ts';

/** A lease is taken from who is not heard of after 20 s, and used 10 s later; machines here are slow. */
const TAKEN_OVER_MS = 120_000;
const HELD_MS = 10_000;
/** How a look-up of the store begins. */
const LOOK_UP = /^SELECT exchange, market_type, symbol, \S+ FROM marketprism_hot\.trades WHERE/;

/** A store beside the pipeline's own services. */
class OtherStore {
  exit: ChildExit | null = null;
  private readonly child: Child;

  constructor(
    readonly name: string,
    readonly port: number,
    private readonly pipeline: Pipeline,
    env: NodeJS.ProcessEnv,
  ) {
    const all = { ...pipeline.env, HOT_STORAGE_HTTP_PORT: String(port), ...env };
    this.child = new Child({ ...scriptPlan('store', [], all, pipeline.logDir), name }, (exit) => {
      this.exit = exit;
      return false;
    });
    this.child.start();
  }

  get pid(): number {
    return this.child.pid!;
  }

  async health(): Promise<HealthDocument | null> {
    return (await healthOf([this.port], 1000).catch(() => null)) as HealthDocument | null;
  }

  /** What it says of the lease of a stream. */
  async word(stream: StreamName): Promise<string> {
    return String((await this.health())?.checks.lease?.details[`store.${stream}`]);
  }

  stop(): Promise<ChildExit | null> {
    return this.child.stop();
  }

  /** Its log lines with this event. */
  events(event: string): Record<string, unknown>[] {
    const lines = readFileSync(join(this.pipeline.logDir, `${this.name}.log`), 'utf8').split('\n');
    return lines.filter((line) => line.includes(`"event":"${event}"`)).map((line) => JSON.parse(line));
  }
}

describe('several stores', () => {
  let pipeline: Pipeline;
  let stores: OtherStore[];
  let closing: (() => Promise<void>)[];

  beforeEach(async () => {
    pipeline = new Pipeline();
    stores = [];
    closing = [];
    await pipeline.choosePorts();
    await pipeline.startBroker();
    await pipeline.startDatabase();
    await pipeline.startSimulator([]);
  });
  afterEach(async () => {
    for (const store of stores) await store.stop();
    for (const close of closing) await close();
    await pipeline.close();
  });

  async function start(name: string, env: NodeJS.ProcessEnv): Promise<OtherStore> {
    const store = new OtherStore(name, await freePort(), pipeline, env);
    stores.push(store);
    await waitFor(name, READY_MS, async () => (await store.health()) !== null);
    return store;
  }

  /** One with a data directory of its own is as on another machine. */
  const elsewhere = (name: string) => start(name, { MARKETPRISM_DATA_DIR: join(pipeline.dir, name) });

  const isStoring = (store: OtherStore) =>
    waitFor(`${store.name} to store`, TAKEN_OVER_MS, async () => (await store.health())?.checks.trade !== undefined);

  async function rows(type: DataType): Promise<number> {
    const [[count] = []] = await pipeline.query(`SELECT count() FROM marketprism_hot.${TABLES[type].name}`);
    return Number(count);
  }

  async function moreRows(what: string): Promise<void> {
    for (const type of ['trade', 'orderbook_update'] as const) {
      const before = await rows(type);
      await waitFor(`${type} ${what}`, TAKEN_OVER_MS, async () => (await rows(type)) > before);
    }
  }

  /** Every key that was published is in hot, once. */
  async function assertWhole(): Promise<void> {
    await pipeline.stop('collector');
    await pipeline.drained();
    for (const [table, { rows: all, distinct, published, missing }] of await pipeline.compare()) {
      assert.deepEqual([table, missing, all, distinct], [table, [], distinct, published]);
    }
    assert.ok((await rows('trade')) > 300);
  }

  const epochs = () =>
    pipeline.query('SELECT stream, max(js_epoch) FROM marketprism_hot.stream_epochs GROUP BY stream ORDER BY stream');

  test('each stream has one of its own, which may die without the other noticing', async () => {
    const [market, books] = [
      await start('store_market', { MARKETPRISM_STORE_STREAMS: 'MARKET_DATA' }),
      await start('store_books', { MARKETPRISM_STORE_STREAMS: 'ORDERBOOK_SNAP' }),
    ];
    await pipeline.startCollector();
    await waitFor('books', READY_MS, async () => (await books.health())?.checks.orderbook !== undefined);
    await isStoring(market);
    await moreRows('of both');
    const told = (await healthOf([market.port, books.port], 1000)) as unknown as HealthDocument;
    const types = streamDefinitions().flatMap((each) => each.types);
    assert.deepEqual(Object.keys(told.checks).sort(), ['gaps', 'lease', 'nats', ...types].sort());
    assert.equal(told.checks.lease!.status, 'healthy');
    assert.deepEqual(Object.keys((await books.health())!.checks).sort(), [
      ...['gaps', 'lease', 'nats', 'orderbook', 'orderbook_update'],
    ]);
    process.kill(books.pid, 'SIGKILL');
    await waitFor('its end', READY_MS, async () => books.exit !== null);
    const before = await rows('orderbook_update');
    await waitFor('trades', READY_MS, async () => (await rows('trade')) > before + 500);
    const again = await start('store_books_again', { MARKETPRISM_STORE_STREAMS: 'ORDERBOOK_SNAP' });
    await waitFor('more books', READY_MS, async () => (await rows('orderbook_update')) > before);
    await assertWhole();
    assert.deepEqual(again.events('standing_by'), [], 'of one place, where the lock says that the other is dead');
    assert.deepEqual(await epochs(), [
      ['MARKET_DATA', '1'],
      ['ORDERBOOK_SNAP', '1'],
    ]);
    for (const stream of STREAM_NAMES)
      assert.ok(existsSync(join(pipeline.dir, 'state', `store_checkpoints_${stream}.json`)), stream);
  });

  test('one stands by elsewhere, and goes on where the first one stopped', async () => {
    const first = await elsewhere('store_one');
    await isStoring(first);
    await pipeline.startCollector();
    await moreRows('of the first');
    const second = await elsewhere('store_two');
    await waitFor('who stands by', READY_MS, async () => /^standing by for/.test(await second.word('MARKET_DATA')));
    assert.equal((await second.health())!.status, 'healthy');
    await moreRows('of the first, still');
    assert.equal((await first.stop())?.code, 0);
    await isStoring(second);
    await moreRows('of the second');
    assert.deepEqual(
      second.events('checkpoints').map(({ stream, from }) => [stream, from]),
      STREAM_NAMES.map((stream) => [stream, 'lease']),
    );
    const third = await elsewhere('store_one');
    await waitFor('who stands by', READY_MS, async () => /^standing by for/.test(await third.word('MARKET_DATA')));
    await assertWhole();
    // Where the first one was is known: what it had stored was not read again.
    const { duplicates } = (await second.health())!.checks.trade!.details as { duplicates: number };
    assert.ok(duplicates < (await rows('trade')) / 2, `${duplicates} of ${await rows('trade')}`);
    assert.deepEqual((await epochs()).flat(), ['MARKET_DATA', '1', 'ORDERBOOK_SNAP', '1']);
  });

  test('one takes over from another that is held up before an insert, which does nothing more when it wakes', async () => {
    const proxy = new ClickHouseProxy(pipeline.env.CLICKHOUSE_URL!);
    await proxy.listen(await freePort());
    closing.push(() => proxy.close());
    const first = await start('store_one', {
      ...{ MARKETPRISM_DATA_DIR: join(pipeline.dir, 'store_one') },
      CLICKHOUSE_URL: `http://127.0.0.1:${proxy.port}`,
    });
    await isStoring(first);
    await pipeline.startCollector();
    await moreRows('of the first');
    const second = await elsewhere('store_two');
    await waitFor('who stands by', READY_MS, async () => /^standing by for/.test(await second.word('MARKET_DATA')));
    // It has asked which rows are there, and sleeps while the answer comes: none of them.
    let isStopped = false;
    proxy.onRequest = (sql) => {
      if (!isStopped && LOOK_UP.test(sql)) isStopped = process.kill(first.pid, 'SIGSTOP');
      return null;
    };
    await waitFor('a look-up', READY_MS, async () => isStopped);
    await isStoring(second);
    await moreRows('of the second');
    process.kill(first.pid, 'SIGCONT');
    await waitFor('its end', HELD_MS + READY_MS, async () => first.exit !== null);
    assert.equal(first.exit!.code, 1);
    assert.match(first.exit!.lastLine, /^store\.\w+ was taken over by \S+ \(pid \d+\), as this one was not heard of$/);
    await assertWhole();
    assert.deepEqual((await epochs()).flat(), ['MARKET_DATA', '1', 'ORDERBOOK_SNAP', '1']);
  });
});
