import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once as onceOf } from 'node:events';
import { existsSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { after, afterEach, before, describe, test } from 'node:test';
import { connect, headers, type NatsConnection } from 'nats';
import { Batcher } from '../scripts/lib/batcher.ts';
import { type ClickHouseFault, ClickHouseProxy } from '../scripts/lib/chaos/clickhouse_proxy.ts';
import { freePort } from '../scripts/lib/free_port.ts';
import { healthOf } from '../scripts/lib/joint_health.ts';
import { createLogger } from '../scripts/lib/log.ts';
import { waitFor } from '../scripts/lib/processes.ts';
import { Publisher } from '../scripts/lib/publisher.ts';
import { encodeRow } from '../scripts/lib/rows.ts';
import { sampleTrade } from './fixtures.ts';
import { type HealthDocument, Pipeline, READY_MS } from './pipeline.ts';

const SUBJECT = 'trade.binance_spot.spot.BTC-USDT';

const trade = sampleTrade;

describe('the store', () => {
  /** Taken by a store when it starts. */
  const extra: NodeJS.ProcessEnv = {};
  const pipeline = new Pipeline(extra);
  let proxy: ClickHouseProxy;
  let nats: NatsConnection;

  before(async () => {
    await pipeline.choosePorts();
    await pipeline.startBroker();
    await pipeline.startDatabase();
    proxy = new ClickHouseProxy(pipeline.env.CLICKHOUSE_URL!);
    await proxy.listen(await freePort());
    await startStore();
    nats = await pipeline.nats();
  });
  afterEach(() => {
    proxy.onRequest = () => null;
  });
  after(async () => {
    await nats.close();
    await pipeline.close();
    await proxy.close();
  });

  /** Chooses the fault of an insert of market rows. */
  function onInsert(choose: () => ClickHouseFault | null): void {
    proxy.onRequest = (sql) => (/^\s*INSERT INTO \S+\.(trades|orderbook_updates)/.test(sql) ? choose() : null);
  }

  /** The store alone goes through the proxy; the test asks the database itself. */
  async function startStore(): Promise<void> {
    const original = pipeline.ports.clickhouse;
    pipeline.ports.clickhouse = proxy.port;
    await pipeline.startStore();
    pipeline.ports.clickhouse = original;
  }

  let messageNumber = 0;
  async function publish(lines: string[], mode: string | null = 'live', subject = SUBJECT): Promise<void> {
    const head = headers();
    head.set('Nats-Msg-Id', `test:${++messageNumber}`);
    if (mode !== null) head.set('Mp-Mode', mode);
    await nats.jetstream().publish(subject, lines.join('\n'), { headers: head });
  }

  const count = async (where: string) =>
    (await pipeline.query(`SELECT count(), uniqExact(trade_id) FROM marketprism_hot.trades WHERE ${where}`))[0]!.map(
      Number,
    );

  function deadletters(): { reason: string; row: string; subject: string }[] {
    const directory = join(pipeline.dir, 'deadletter', 'trade');
    if (!existsSync(directory)) return [];
    return readdirSync(directory).flatMap((file) =>
      readFileSync(join(directory, file), 'utf8')
        .trim()
        .split('\n')
        .map((line) => JSON.parse(line)),
    );
  }

  test('stores a row once however often and in whatever company it arrives', async () => {
    const lines = (ids: number[]) => ids.map((id) => encodeRow('trade', trade(id)));
    await publish(lines([1, 2, 2, 3]));
    await publish(lines([3, 4]));
    await pipeline.drained();
    await publish(lines([2, 4, 5]));
    await pipeline.drained();
    assert.deepEqual(await count('toUInt64(trade_id) < 10'), [5, 5]);
  });

  test('keeps rows of the same id on different streams apart', async () => {
    await publish([encodeRow('trade', trade(1, { symbol: 'ETH-USDT' }))], 'live', 'trade.binance_spot.spot.ETH-USDT');
    await pipeline.drained();
    assert.deepEqual(await count("trade_id = '1'"), [2, 1]);
  });

  test('finds old rows again, and rows far apart in time in one batch', async () => {
    const old = [trade(20, { timestamp: 1500000000000 }), trade(21, { timestamp: 1600000000000 }), trade(22)];
    for (let round = 0; round < 3; round++) {
      await publish(old.map((row) => encodeRow('trade', row)));
      await pipeline.drained();
    }
    assert.deepEqual(await count("trade_id IN ('20', '21', '22')"), [3, 3]);
  });

  test('asks cold too before it takes an old row', async () => {
    const row = trade(30, { timestamp: 1500000000000 });
    await pipeline.query(
      `INSERT INTO marketprism_cold.trades (timestamp, exchange, market_type, symbol, instrument, trade_id, price, quantity, side, is_maker, received_at, data_source, js_epoch, js_seq) SELECT fromUnixTimestamp64Milli(toInt64(${row.timestamp}), 'UTC'), 'binance_spot', 'spot', 'BTC-USDT', 'BTCUSDT', '30', 1, 1, 'buy', false, now64(6), 'live', 1, 1`,
    );
    await publish([encodeRow('trade', row)]);
    await pipeline.drained();
    assert.deepEqual(await count("trade_id = '30'"), [0, 0]);
  });

  test('sends rows that cannot be stored to the deadletter with the reason, and stores the others of their message', async () => {
    const good = [40, 41, 42, 43].map((id) => encodeRow('trade', trade(id)));
    const bad = [
      encodeRow('trade', trade(50)).replace('"61837.63"', '"sixty"'),
      encodeRow('trade', trade(51)).replace('"price"', '"prise"'),
      encodeRow('trade', trade(52)).replace('"price":"61837.63"', '"price":null'),
      encodeRow('trade', trade(53)).replace('"buy"', '"borrow"'),
      encodeRow('trade', trade(54)).replace('BTC-USDT', 'XXX-USDT'),
      encodeRow('trade', trade(55)).slice(0, -40),
      encodeRow('trade', trade(57)).replace('"price":"61837.63",', ''),
      encodeRow('trade', trade(58)).replace('"is_maker":false,', ''),
      '{"trade_id":"56"}',
      'no json at all',
    ];
    const before = deadletters().length;
    await publish([good[0]!, ...bad.slice(0, 4), good[1]!, ...bad.slice(4), good[2]!, good[3]!]);
    await pipeline.drained();
    assert.deepEqual(await count('toUInt64(trade_id) BETWEEN 40 AND 59'), [4, 4]);
    const letters = deadletters().slice(before);
    assert.deepEqual(letters.map((letter) => letter.row).sort(), [...bad].sort());
    assert.ok(letters.every((letter) => letter.reason !== '' && letter.subject === SUBJECT));
  });

  test('refuses messages of the other mode and of no mode: simulated rows never enter a live database', async () => {
    const before = deadletters().length;
    await publish([encodeRow('trade', trade(60))], 'demo');
    await publish([encodeRow('trade', trade(61))], null);
    await pipeline.drained();
    assert.deepEqual(await count("trade_id IN ('60', '61')"), [0, 0]);
    assert.deepEqual(
      deadletters()
        .slice(before)
        .map((letter) => letter.reason),
      ['Mp-Mode is demo, this store is live', 'Mp-Mode is absent, this store is live'],
    );
  });

  test('buries a row once, also when another part of its batch has to be tried again', async () => {
    const bad = encodeRow('trade', trade(70)).replace('"61837.63"', '"sixty"');
    const before = deadletters().length;
    let inserts = 0;
    // Both together are refused, then each alone is tried: the bad one is buried, and the answer to the good one is lost.
    onInsert(() => (++inserts === 3 ? 'unavailable' : null));
    await publish([bad, encodeRow('trade', trade(71))]);
    await waitFor('the second try', READY_MS, async () => inserts >= 4);
    await pipeline.drained();
    assert.deepEqual(
      deadletters()
        .slice(before)
        .map((letter) => letter.row),
      [bad],
    );
    assert.deepEqual(await count("trade_id IN ('70', '71')"), [1, 1]);
  });

  test('messages whose insert takes longer than the ack wait are not delivered again', async () => {
    const database = pipeline.children.get('clickhouse_embedded')!.pid!;
    process.kill(database, 'SIGSTOP');
    try {
      await publish([encodeRow('trade', trade(80))]);
      // These wait behind the first one's look, in the store's own buffer.
      await new Promise((done) => setTimeout(done, 1000));
      for (const id of [81, 82, 83]) await publish([encodeRow('trade', trade(id))]);
      await new Promise((done) => setTimeout(done, 6000));
      const durable = await (await nats.jetstreamManager()).consumers.info('MARKET_DATA', 'store_trade');
      assert.equal(durable.num_ack_pending, 4, 'the database stands still');
      assert.equal(durable.num_redelivered, 0);
    } finally {
      process.kill(database, 'SIGCONT');
    }
    await pipeline.drained();
    assert.deepEqual(await count('toUInt64(trade_id) BETWEEN 80 AND 83'), [4, 4]);
  });

  const FAULTS: ClickHouseFault[] = ['answer_lost', 'body_cut', 'refused', 'unavailable'];
  for (const [index, fault] of FAULTS.entries()) {
    test(`stores each row once when an insert ends with: ${fault}`, async () => {
      const first = 1000 * (index + 1);
      // A lost answer needs only one: the second look finds the rows.
      const wanted = fault === 'answer_lost' ? 1 : 2;
      let left = wanted;
      onInsert(() => (left-- > 0 ? fault : null));
      const before = proxy.faults;
      await publish(Array.from({ length: 500 }, (_, i) => encodeRow('trade', trade(first + i))));
      await waitFor('the faults', READY_MS, async () => proxy.faults - before >= wanted);
      await pipeline.drained();
      assert.equal(proxy.faults > before, true);
      assert.deepEqual(await count(`toUInt64(trade_id) BETWEEN ${first} AND ${first + 499}`), [500, 500]);
    });
  }

  test('negative control: without the look before the insert, a lost answer doubles rows', async () => {
    await pipeline.stop('store');
    extra.MARKETPRISM_WITHOUT = 'look';
    await startStore();
    delete extra.MARKETPRISM_WITHOUT;
    let left = 1;
    onInsert(() => (left-- > 0 ? 'answer_lost' : null));
    await publish(Array.from({ length: 100 }, (_, i) => encodeRow('trade', trade(9000 + i))));
    await pipeline.drained();
    await pipeline.stop('store');
    await startStore();
    assert.deepEqual(await count('toUInt64(trade_id) BETWEEN 9000 AND 9099'), [200, 100]);
  });

  test('publishes under load with answers lost now and then, and hot has every row once', async () => {
    const log = createLogger('test', 'error');
    let stored = 0;
    const publisher = new Publisher(
      {
        mode: 'live',
        boot: 'test',
        startedAt: 0,
        maxInFlight: 256,
        maxInFlightBytes: 2 ** 24,
        ackTimeoutMs: 2000,
        onStored: () => {
          stored += 1;
        },
        log,
      },
      nats,
    );
    const batcher = new Batcher((message) => publisher.push(message));
    let seed = 3;
    const random = (n: number) => (seed = (seed * 48271) % 2147483647) % n;
    onInsert(() => (random(3) === 0 ? FAULTS[random(4)]! : null));
    for (let i = 0; i < 40_000; i++) {
      batcher.add('trade', trade(100_000 + i, { timestamp: 1795001000000 + i }));
      if (i % 50 === 49) batcher.flush();
      if (i % 5000 === 4999) await publisher.drained();
    }
    await publisher.drained();
    publisher.close();
    assert.equal(stored, 800);
    await pipeline.drained();
    assert.deepEqual(await count('toUInt64(trade_id) >= 100000'), [40_000, 40_000]);
  });

  test('a broker that comes back empty gets a new epoch, so that its sequences name other messages', async () => {
    await nats.close();
    const [before] = await pipeline.query('SELECT max(js_epoch), max(js_seq) FROM marketprism_hot.trades');
    assert.equal(before![0], '1');
    await pipeline.stop('nats-server');
    await waitFor(
      'the store to notice',
      READY_MS,
      async () => (await pipeline.health('store'))?.checks.nats?.status === 'unhealthy',
    );
    rmSync(join(pipeline.dir, 'nats'), { recursive: true });
    await pipeline.startBroker();
    nats = await connect({ servers: pipeline.env.MARKETPRISM_NATS_URL! });
    await waitFor('the streams', READY_MS, async () => pipeline.events('store', 'epoch_raised').length === 2);
    await waitFor('the durables', READY_MS, async () => {
      const manager = await nats.jetstreamManager();
      return (await manager.consumers.list('MARKET_DATA').next()).length > 0;
    });
    await publish([encodeRow('trade', trade(200_000))]);
    await pipeline.drained();
    const rows = await pipeline.query("SELECT js_epoch, js_seq FROM marketprism_hot.trades WHERE trade_id = '200000'");
    assert.deepEqual(rows, [['2', '1']]);
    assert.equal((await pipeline.health('store'))?.checks.nats?.status, 'healthy');
    const epochs = await pipeline.query(
      "SELECT js_epoch, reason, closed_at_seq FROM marketprism_hot.stream_epochs WHERE stream = 'MARKET_DATA' ORDER BY js_epoch, updated_at",
    );
    assert.deepEqual(
      epochs.map(([epoch, , closed]) => [epoch, closed]),
      [
        ['1', '\\N'],
        ['1', before![1]],
        ['2', '\\N'],
      ],
    );
  });

  test('a second store says who holds the lock and ends', async () => {
    const env = { ...pipeline.env, HOT_STORAGE_HTTP_PORT: '0' };
    const second = spawnSync(process.execPath, ['--import', 'tsx', 'scripts/store.ts'], { env, encoding: 'utf8' });
    assert.equal(second.status, 1);
    assert.match(
      second.stderr,
      /^store MARKET_DATA in \S+ is already held \(pid \d+, since .*\): stop that one first\n$/,
    );
  });

  test('a store elsewhere stands by, says for whom, and stops when it is told to', async () => {
    const port = await freePort();
    const env = {
      ...pipeline.env,
      ...{ HOT_STORAGE_HTTP_PORT: String(port), MARKETPRISM_DATA_DIR: join(pipeline.dir, 'elsewhere') },
    };
    const once = spawnSync(process.execPath, ['--import', 'tsx', 'scripts/store.ts', '--once'], {
      env,
      encoding: 'utf8',
    });
    assert.equal(once.status, 1);
    assert.match(once.stderr, /^store\.MARKET_DATA is held by \S+ \(pid \d+\): stop that one first$/m);
    const second = spawn(process.execPath, ['--import', 'tsx', 'scripts/store.ts'], { env, stdio: 'ignore' });
    try {
      const told = async () => (await healthOf([port], 1000).catch(() => null)) as HealthDocument | null;
      const { pid } = pipeline.children.get('store')!;
      await waitFor('who stands by', READY_MS, async () => {
        const words = Object.values((await told())?.checks.lease?.details ?? {}).map(String);
        return words.length === 2 && words.every((word) => word.endsWith(`(pid ${pid})`));
      });
      assert.equal((await told())!.status, 'healthy');
      assert.deepEqual(Object.keys((await told())!.checks), ['nats', 'lease']);
      const ended = onceOf(second, 'exit');
      second.kill('SIGTERM');
      assert.deepEqual(await ended, [0, null]);
    } finally {
      second.kill('SIGKILL');
    }
  });
});
