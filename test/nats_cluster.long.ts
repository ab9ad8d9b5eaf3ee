/** Publishing and pulling over three brokers on loopback, of which one is killed or falls silent. test/nats_cluster.net.ts cuts them off from each other. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, afterEach, before, describe, test } from 'node:test';
import type { JetStreamManager, NatsConnection, StreamInfo } from 'nats';
import { ackFloor, type Checkpoint, consumerInfo, placeDurable } from '../scripts/lib/durables.ts';
import { connectNats, ensureStreams } from '../scripts/lib/jetstream.ts';
import { createLogger } from '../scripts/lib/log.ts';
import { pause } from '../scripts/lib/pause.ts';
import { waitFor } from '../scripts/lib/processes.ts';
import { Publisher } from '../scripts/lib/publisher.ts';
import { PullConsumer } from '../scripts/lib/pull_consumer.ts';
import { confirmed, quorumAgeMs } from '../scripts/lib/quorum.ts';
import { durableName, streamDefinitions, streamOf } from '../scripts/lib/streams.ts';
import { loopbackPlaces, NatsCluster, NODES, type NodeNumber } from './nats_cluster.ts';

const log = createLogger('test', 'fatal');
const READY_MS = 60_000;
/** The client's own pings find a silent server after 45 s: by then it must have been left. */
const UNNOTICED_MS = 40_000;
const STREAM = streamOf('trade').name;
const [TRADES] = streamDefinitions({ streamReplicas: 3, streamMaxBytes: 2 ** 28 }) as [ReturnType<typeof streamOf>];

const FIVE = { ...TRADES, name: 'ORDERBOOK_SNAP' as const, types: ['orderbook' as const], replicas: 5 };

describe('three brokers that keep each stream together', () => {
  const directory = mkdtempSync(join(tmpdir(), 'marketprism-cluster-'));
  let cluster: NatsCluster;
  let nats: NatsConnection;
  let manager: JetStreamManager;
  let refusal: Promise<Error | null>;
  const closing: (() => Promise<void> | void)[] = [];

  before(async () => {
    cluster = new NatsCluster(directory, await loopbackPlaces());
    await cluster.start();
    nats = await connectNats(cluster.url, 'test', log);
    manager = await nats.jetstreamManager({ checkAPI: false });
    await ensureStreams(manager, [{ ...TRADES, replicas: 1 }], log);
    // A stream that is not there is looked for a while before it is made: the answer is for a later test.
    refusal = ensureStreams(manager, [FIVE], log).then(
      () => null,
      (error: Error) => error,
    );
  });
  afterEach(async () => {
    for (const close of closing.splice(0).reverse()) await close();
  });
  after(async () => {
    await nats?.close();
    await cluster?.close();
    rmSync(directory, { recursive: true, force: true });
  });

  const replicas = async () => (await manager.streams.info(STREAM)).config.num_replicas;

  /** Publishes numbers and takes them as the store does, each over a connection of its own, and acknowledges what it has. */
  let flows = 0;
  async function flow() {
    const own = `${++flows} `;
    const sending = await connectNats(cluster.url, 'sending', log);
    const taking = await connectNats(cluster.url, 'taking', log);
    const takingManager = await taking.jetstreamManager({ checkAPI: false });
    const publisher = new Publisher(
      {
        ...{ mode: 'live', boot: own.trim(), startedAt: 0, maxInFlight: 64, maxInFlightBytes: 2 ** 20 },
        ...{ ackTimeoutMs: 2000, onStored: () => undefined, log },
      },
      sending,
    );
    let checkpoint: Checkpoint | null = null;
    let lost = 0;
    const place = async () => {
      for (;;) {
        try {
          if (!(await placeDurable(takingManager, TRADES, 'trade', 3, checkpoint))) lost += 1;
          return;
        } catch {
          // Nobody leads just now: asked again, as the store does.
          await pause(200);
        }
      }
    };
    await place();
    const consumer = new PullConsumer(taking, STREAM, durableName('trade'), 2 ** 20, place, log);
    const taken = new Set<number>();
    let sent = 0;
    const timer = setInterval(() => {
      for (let n = 0; n < 5; n += 1) {
        const payload = Buffer.from(own + sent);
        publisher.push({ subject: 'trade.binance_spot.spot.X', payload, rows: 1, id: `${own}:${sent}` });
        sent += 1;
      }
    }, 20);
    let isOver = false;
    const take = (async () => {
      while (!isOver) {
        const message = await consumer.next(100);
        if (message === null) continue;
        const text = Buffer.from(message.data).toString();
        if (text.startsWith(own)) taken.add(Number(text.slice(own.length)));
        message.ack();
        if (checkpoint === null || message.seq > checkpoint.seq)
          checkpoint = { seq: message.seq, storedAt: message.storedAt };
      }
    })();
    closing.push(async () => {
      clearInterval(timer);
      isOver = true;
      await take;
      consumer.close();
      publisher.close();
      await Promise.all([sending.close(), taking.close()]);
    });
    return {
      sending,
      taking,
      taken,
      /** Until messages that were sent from now on come. */
      async goesOn(limitMs = READY_MS) {
        const from = sent;
        await waitFor('new messages', limitMs, async () => Math.max(-1, ...taken) > from);
      },
      /** Until everything is acknowledged on both sides. @returns messages sent, taken, and checkpoints that were called lost */
      async ended() {
        clearInterval(timer);
        await waitFor(
          'all that was sent',
          READY_MS,
          async () => publisher.waitingMessages === 0 && taken.size === sent,
        );
        return { sent, taken: taken.size, lost };
      },
    };
  }

  test('a stream that is there gets the replicas that are set, and keeps them where none are', async () => {
    assert.equal(await replicas(), 1);
    await ensureStreams(manager, [TRADES], log);
    assert.equal(await replicas(), 3);
    const { replicas: _, ...unset } = TRADES;
    await ensureStreams(manager, [{ ...unset, maxBytes: TRADES.maxBytes * 2 }], log);
    const { config } = await manager.streams.info(STREAM);
    assert.deepEqual([config.num_replicas, config.max_bytes], [3, TRADES.maxBytes * 2]);
  });

  test('what is said to be missing is not believed while the stream may still come so far', async () => {
    const { state } = await manager.streams.info(STREAM);
    const isShort = async (info: StreamInfo) => (info.state.last_seq > state.last_seq ? null : 'short');
    let looks = 0;
    const answer = confirmed(manager, STREAM, (info) => {
      looks += 1;
      return isShort(info);
    });
    await waitFor('two looks', READY_MS, async () => looks >= 2);
    await nats.jetstream().publish('trade.binance_spot.spot.X', 'one more');
    assert.equal(await answer, null);
    assert.equal(
      await confirmed(manager, STREAM, async () => 'gone', 1000),
      'gone',
      'a leader that stands by it is believed',
    );
  });

  test('more replicas than servers are refused in one line that says what to do', async () => {
    assert.match(
      (await refusal)!.message,
      /^MARKETPRISM_STREAM_REPLICAS: the broker cannot keep ORDERBOOK_SNAP on 5 servers \(.*\): start as many, or set fewer$/,
    );
  });

  test('kill -9 of the leader loses nothing, and nobody takes what was acknowledged for lost', async () => {
    const { goesOn, ended } = await flow();
    await goesOn();
    const leader = (await cluster.leaderOf(STREAM))!;
    await cluster.kill(leader);
    await goesOn();
    cluster.run(leader);
    const { sent, taken, lost } = await ended();
    assert.deepEqual([taken, lost], [sent, 0]);
    const info = (await consumerInfo(manager, STREAM, durableName('trade')))!;
    assert.ok(ackFloor(info) > 0);
  });

  test('a server that keeps its connections and answers nothing is left for another one', async () => {
    await cluster.whole([STREAM]);
    const { sending, taking, goesOn, ended } = await flow();
    await goesOn();
    const before = sending.getServer();
    const silent = NODES.find((node) => cluster.urlOf(node).endsWith(before)) as NodeNumber;
    cluster.signal(silent, 'SIGSTOP');
    closing.push(() => cluster.signal(silent, 'SIGCONT'));
    await goesOn(UNNOTICED_MS);
    assert.notEqual(sending.getServer(), before);
    assert.notEqual(taking.getServer(), before);
    const { sent, taken, lost } = await ended();
    assert.deepEqual([taken, lost], [sent, 0]);
  });
});

test('the leader’s word is as old as its last contact with a majority', () => {
  const info = (num_replicas: number, ages: number[], leader = 'a', offline = false) => {
    const replicas = ages.map((age, i) => ({ name: `${i}`, current: true, lag: 0, active: age * 1e6, offline }));
    return { config: { num_replicas }, cluster: { leader, replicas } } as unknown as StreamInfo;
  };
  assert.equal(quorumAgeMs({ config: { num_replicas: 1 } } as StreamInfo), 0, 'alone');
  assert.equal(quorumAgeMs(info(3, [900, 20_000])), 900, 'it and one follower are two of three');
  assert.equal(quorumAgeMs(info(3, [20_000, 900])), 900);
  assert.equal(quorumAgeMs(info(5, [100, 9000, 200, 8000])), 200);
  assert.equal(quorumAgeMs(info(3, [])), Number.POSITIVE_INFINITY);
  assert.equal(quorumAgeMs(info(3, [100, 100], '')), Number.POSITIVE_INFINITY, 'nobody leads');
  assert.equal(quorumAgeMs(info(3, [100, 100], 'a', true)), Number.POSITIVE_INFINITY, 'they have left');
});
