/** How much of a stream the store has not read, and whether a broker that came back has what it had: asked of a real one. */
import assert from 'node:assert/strict';
import { cpSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { after, afterEach, before, describe, test } from 'node:test';
import type { JetStreamManager, NatsConnection } from 'nats';
import { placeDurable } from '../scripts/lib/durables.ts';
import { ensureStreams } from '../scripts/lib/jetstream.ts';
import { createLogger } from '../scripts/lib/log.ts';
import { waitFor } from '../scripts/lib/processes.ts';
import { StreamWatch } from '../scripts/lib/stream_watch.ts';
import { durableName, type StreamDefinition } from '../scripts/lib/streams.ts';
import { Pipeline, READY_MS } from './pipeline.ts';

const MESSAGE = Buffer.alloc(10_000, 'x');
const SMALL: StreamDefinition = {
  name: 'MARKET_DATA',
  types: ['trade', 'liquidation'],
  maxBytes: 200_000,
  maxAgeMs: 4000,
  duplicateWindowMs: 1000,
  maxAckPending: 100,
};

describe('the share of a stream that the store has not read', () => {
  const pipeline = new Pipeline();
  const log = createLogger('test', 'fatal');
  let nats: NatsConnection;
  let manager: JetStreamManager;
  let watch: StreamWatch | null = null;
  let room: number | null = null;

  before(async () => {
    await pipeline.choosePorts();
    await pipeline.startBroker();
    nats = await pipeline.nats();
    manager = await nats.jetstreamManager();
  });
  afterEach(async () => {
    watch?.stop();
    await manager.streams.delete('MARKET_DATA');
  });
  after(async () => {
    await nats.close();
    await pipeline.close();
  });

  async function begin(definition: StreamDefinition): Promise<boolean[]> {
    const told: boolean[] = [];
    await ensureStreams(manager, [definition], log);
    for (const type of definition.types) await placeDurable(manager, definition, type, 30, null);
    watch = new StreamWatch({
      definitions: [definition],
      earlierStored: () => null,
      lastStored: () => null,
      onRoom: (_, bytes) => {
        const isTooMuch = bytes === 0;
        if (isTooMuch !== (told.at(-1) ?? false)) told.push(isTooMuch);
        room = bytes;
      },
      onTailLost: () => undefined,
      watchMs: 20,
      log,
    });
    watch.start(nats);
    return told;
  }

  const publish = async (count: number, type = 'trade') => {
    for (let i = 0; i < count; i++) await nats.jetstream().publish(`${type}.binance_spot.spot.BTC-USDT`, MESSAGE);
  };
  async function read(count: number, type: 'trade' | 'liquidation'): Promise<void> {
    const consumer = await nats.jetstream().consumers.get('MARKET_DATA', durableName(type));
    for await (const message of await consumer.fetch({ max_messages: count, expires: 2000 })) message.ack();
    await nats.flush();
  }
  const share = () => watch!.state('MARKET_DATA').unreadShare ?? 0;

  test('above 70 % is told, and below 40 % told again', async () => {
    const told = await begin({ ...SMALL, maxAgeMs: 3_600_000 });
    await publish(10);
    await waitFor('a look', READY_MS, async () => share() > 0.45);
    assert.deepEqual(told, []);
    // Another collector may take as much.
    assert.equal(room, Math.floor(((0.7 - share()) * SMALL.maxBytes) / 2));
    await publish(5);
    await waitFor('too much', READY_MS, async () => told.length === 1);
    assert.ok(share() > 0.7 && share() < 0.85, `${share()}`);
    await read(6, 'trade');
    await waitFor('a look', READY_MS, async () => share() < 0.6);
    assert.deepEqual(told, [true], 'in between nothing changes');
    await read(9, 'trade');
    await waitFor('little', READY_MS, async () => told.length === 2);
    assert.deepEqual(told, [true, false]);
    assert.equal(share(), 0);
  });

  test('one type that is not read holds all back that came after it; one of which nothing comes holds back nothing', async () => {
    await begin({ ...SMALL, maxAgeMs: 3_600_000 });
    await publish(6);
    await read(6, 'trade');
    await waitFor('a look', READY_MS, async () => watch!.state('MARKET_DATA').unreadShare === 0);
    await publish(1, 'liquidation');
    await publish(6);
    await read(6, 'trade');
    await waitFor('a look', READY_MS, async () => share() > 0.3);
    await read(1, 'liquidation');
    await waitFor('a look', READY_MS, async () => watch!.state('MARKET_DATA').unreadShare === 0);
  });

  test('an unread message of half the stream’s age makes it keep messages longer, and a restart of ours does not undo that', async () => {
    await begin(SMALL);
    const age = async () => (await manager.streams.info('MARKET_DATA')).config.max_age / 1e6;
    await publish(1);
    await waitFor('a longer age', READY_MS, async () => (await age()) >= 8000);
    const raised = await age();
    await ensureStreams(manager, [SMALL], log);
    assert.ok((await age()) >= raised);
    await read(1, 'trade');
    await waitFor('the usual age', READY_MS, async () => (await age()) === 4000);
  });
});

describe('a broker that comes back without its tail', () => {
  const pipeline = new Pipeline({ MARKETPRISM_EXCHANGES: 'binance_spot', MARKETPRISM_SYMBOLS: 'BTC-USDT' });
  before(async () => {
    await pipeline.choosePorts();
    await pipeline.startBroker();
    await pipeline.startDatabase();
    await pipeline.startSimulator(['--trades-per-second', '40', '--symbols', 'BTC-USDT']);
    await pipeline.startStore();
    await pipeline.startCollector();
  });
  after(() => pipeline.close());

  const received = async () => pipeline.received();
  async function receive(count: number): Promise<void> {
    const before = await received();
    await waitFor('rows', READY_MS, async () => (await received()) > before + count);
  }
  async function lastSeq(): Promise<number> {
    const nats = await pipeline.nats();
    const { state } = await (await nats.jetstreamManager()).streams.info('MARKET_DATA');
    await nats.close();
    return state.last_seq;
  }

  /** The broker forgets what it has acknowledged while `meanwhile` went on, as if its disk had never got it. */
  async function forget(meanwhile: () => Promise<void>): Promise<void> {
    const [live, copy] = [join(pipeline.dir, 'nats'), join(pipeline.dir, 'nats-copy')];
    await pipeline.stop('nats-server');
    cpSync(live, copy, { recursive: true });
    await pipeline.startBroker();
    const before = await lastSeq();
    await waitFor('acknowledged messages', READY_MS, async () => (await lastSeq()) > before + 40);
    await meanwhile();
    await pipeline.stop('nats-server');
    rmSync(live, { recursive: true });
    cpSync(copy, live, { recursive: true });
    rmSync(copy, { recursive: true });
  }

  async function assertAllInHot(): Promise<void> {
    const query = new URLSearchParams({ exchange: 'binance_spot', symbol: 'BTC-USDT', data_type: 'trade' });
    const sent = (await (await fetch(`${pipeline.control}/ledger/keys?${query}`)).text()).trim().split('\n');
    const hot = (await pipeline.query('SELECT trade_id FROM marketprism_hot.trades')).map(([id]) => id!);
    assert.equal(hot.length, new Set(hot).size, 'nothing twice');
    assert.deepEqual(
      sent.filter((id) => !hot.includes(id)),
      [],
      `of ${sent.length} sent`,
    );
  }

  const alarms = () => pipeline.events('collector', 'broker_lost_tail').length;

  test('is given again what it had acknowledged and lost', async () => {
    await receive(100);
    // From here on, only the broker and the outbox have what comes.
    await pipeline.stop('store');
    await forget(async () => undefined);
    await pipeline.startBroker();
    await waitFor('the alarm', READY_MS, async () => alarms() > 0);
    await pipeline.startStore();
    await receive(50);
    await pipeline.simulate({ action: 'stop' });
    await pipeline.settled();
    await assertAllInHot();
  });

  test('is given it again by a collector that was killed while the broker was down', async () => {
    const before = alarms();
    await pipeline.simulate({ action: 'start' });
    await receive(100);
    await pipeline.stop('store');
    await forget(async () => {
      await pipeline.simulate({ action: 'stop' });
      // All of it is acknowledged, and the collector has written that down.
      const waiting = async () => (await pipeline.health('collector'))!.checks.broker!.details.waiting_messages;
      await waitFor('all to be acknowledged', READY_MS, async () => (await waiting()) === 0);
      const floor = join(pipeline.dir, 'outbox', 'test', 'MARKET_DATA', 'floor.json');
      const mark = () => JSON.parse(readFileSync(floor, 'utf8')).stored.seq as number;
      // Frames that were on their way at the stop make the stream longer while it is waited for.
      await waitFor('the mark', READY_MS, async () => mark() === (await lastSeq()));
    });
    await pipeline.kill('collector');
    await pipeline.startBroker();
    await waitFor('the alarm', READY_MS, async () => alarms() > before);
    await pipeline.startStore();
    await pipeline.settled();
    await assertAllInHot();
  });
});

describe('a store that does not keep up', () => {
  // Two parts of seven are MARKET_DATA's: 1 MiB, of which 30 % are more than comes between two looks.
  const pipeline = new Pipeline({
    MARKETPRISM_EXCHANGES: 'binance_spot',
    MARKETPRISM_SYMBOLS: 'BTC-USDT',
    MARKETPRISM_STREAM_MAX_BYTES: String(3.5 * 2 ** 20),
  });
  before(async () => {
    await pipeline.choosePorts();
    await pipeline.startBroker();
    await pipeline.startDatabase();
    await pipeline.startSimulator(['--trades-per-second', '200', '--symbols', 'BTC-USDT']);
    await pipeline.startStore();
    await pipeline.stop('store');
    await pipeline.startCollector();
  });
  after(() => pipeline.close());

  test('makes the collector keep on disk what would push unread rows out of the stream; nothing is lost', async () => {
    const outbox = async () => (await pipeline.health('collector'))!.checks.outbox!;
    await waitFor('the way to the disk', READY_MS, async () => {
      const { error_message } = await outbox();
      return error_message !== null && /MARKET_DATA: \d+ bytes wait on disk, as the store does/.test(error_message);
    });
    const size = async () => {
      const nats = await pipeline.nats();
      const { state } = await (await nats.jetstreamManager()).streams.info('MARKET_DATA');
      await nats.close();
      return [state.first_seq, state.last_seq];
    };
    const [first, last] = await size();
    const received = await pipeline.received();
    await waitFor('more rows', READY_MS, async () => (await pipeline.received()) > received + 2000);
    assert.deepEqual(await size(), [first, last], 'no more is published, and none was pushed out');
    assert.equal(first, 1);
    await pipeline.startStore();
    await waitFor('an empty outbox', READY_MS, async () => (await outbox()).status === 'healthy');
    await pipeline.simulate({ action: 'stop' });
    await pipeline.settled();
    const query = new URLSearchParams({ exchange: 'binance_spot', symbol: 'BTC-USDT', data_type: 'trade' });
    const sent = (await (await fetch(`${pipeline.control}/ledger/keys?${query}`)).text()).trim().split('\n');
    const hot = (await pipeline.query('SELECT trade_id FROM marketprism_hot.trades')).map(([id]) => id!);
    const stored = new Set(hot);
    assert.equal(hot.length, stored.size, 'nothing twice');
    assert.deepEqual(
      sent.filter((id) => !stored.has(id)),
      [],
      `of ${sent.length} sent`,
    );
  });
});

describe('an outage of broker and store', () => {
  // Of 1 MiB that the stream holds, more than twice as much waits in the outbox in the end.
  const pipeline = new Pipeline({
    MARKETPRISM_EXCHANGES: 'binance_spot',
    MARKETPRISM_SYMBOLS: 'BTC-USDT',
    MARKETPRISM_STREAM_MAX_BYTES: String(3.5 * 2 ** 20),
  });
  before(async () => {
    await pipeline.choosePorts();
    await pipeline.startBroker();
    await pipeline.startDatabase();
    await pipeline.startSimulator(['--trades-per-second', '1500', '--symbols', 'BTC-USDT']);
    await pipeline.startStore();
    await pipeline.startCollector();
    await waitFor(
      'rows',
      READY_MS,
      async () => (await pipeline.query('SELECT count() FROM marketprism_hot.trades'))[0]![0] !== '0',
    );
  });
  after(() => pipeline.close());

  test('ends with more waiting than the stream holds, and none of it pushes out what the store has not read', async () => {
    const lane = async () => {
      const { details } = (await pipeline.health('collector'))!.checks.outbox!;
      const lanes = details.streams as { stream: string; unacknowledgedBytes: number; unread_share: number | null }[];
      return lanes.find(({ stream }) => stream === 'MARKET_DATA')!;
    };
    const waiting = async () => (await lane()).unacknowledgedBytes;
    await pipeline.stop('store');
    await pipeline.stop('nats-server');
    await waitFor('a backlog', READY_MS, async () => (await waiting()) > 2.5 * 2 ** 20);
    await pipeline.startBroker();
    await waitFor('what the stream takes', READY_MS, async () => ((await lane()).unread_share ?? 0) > 0.5);
    await pipeline.startStore();
    await waitFor('an empty outbox', READY_MS, async () => (await waiting()) < 100_000);
    await pipeline.simulate({ action: 'stop' });
    await pipeline.settled();
    const query = new URLSearchParams({ exchange: 'binance_spot', symbol: 'BTC-USDT', data_type: 'trade' });
    const sent = (await (await fetch(`${pipeline.control}/ledger/keys?${query}`)).text()).trim().split('\n');
    const stored = new Set((await pipeline.query('SELECT trade_id FROM marketprism_hot.trades')).map(([id]) => id!));
    const lost = sent.filter((id) => !stored.has(id));
    assert.deepEqual([lost.length, lost[0] ?? null], [0, null], `of ${sent.length} sent`);
  });
});
