/** Publisher and PullConsumer against a real broker, with a wire between them that can be cut, muted or made to swallow. */
import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test } from 'node:test';
import { headers, type NatsConnection } from 'nats';
import { ackFloor, type Checkpoint, placeDurable } from '../scripts/lib/durables.ts';
import { connectNats, ensureStreams, messageId } from '../scripts/lib/jetstream.ts';
import { createLogger } from '../scripts/lib/log.ts';
import { waitFor } from '../scripts/lib/processes.ts';
import { type OutgoingMessage, Publisher, type PublisherOptions } from '../scripts/lib/publisher.ts';
import { PullConsumer } from '../scripts/lib/pull_consumer.ts';
import type { DataType } from '../scripts/lib/rows.ts';
import { streamDefinitions, streamOf } from '../scripts/lib/streams.ts';
import { Pipeline, READY_MS } from './pipeline.ts';
import { Wire } from './wire.ts';

const log = createLogger('test', 'fatal');
/** So long that only what a test is about can bring an answer. */
const NEVER_MS = 600_000;
/** Longer than a request lives: where nothing comes, its end does. */
const GONE_MS = 12_000;

describe('publishing and pulling over a wire that fails', () => {
  const pipeline = new Pipeline();
  let direct: NatsConnection;
  /** Its first pull request got lost, at the very beginning: that is noticed only after the request's time is over. */
  let robbed: PullConsumer;
  const robbedClosing: (() => Promise<void> | void)[] = [];
  const closing: (() => Promise<void> | void)[] = [];

  before(async () => {
    await pipeline.choosePorts();
    await pipeline.startBroker();
    direct = await pipeline.nats();
    await ensureStreams(await direct.jetstreamManager(), streamDefinitions(), log);
    await durable('funding_rate', 60);
    const { wire, nats } = await wired();
    let lost = 0;
    wire.pass = (text) =>
      text.replace(/PUB \$JS\.API\.CONSUMER\.MSG\.NEXT[^\r]*\r\n[^\r]*\r\n/, (request) =>
        ++lost === 1 ? '' : request,
      );
    robbed = consumerOn(nats, 'funding_rate');
    robbedClosing.push(...closing.splice(0));
    await waitFor('the loss', READY_MS, async () => lost === 1);
    await put('funding_rate', 0, 3);
  });
  afterEach(async () => {
    for (const close of closing.splice(0).reverse()) await close();
  });
  after(async () => {
    for (const close of robbedClosing.reverse()) await close();
    await direct.close();
    await pipeline.close();
  });

  async function wired(): Promise<{ wire: Wire; nats: NatsConnection }> {
    const wire = new Wire(pipeline.ports.nats);
    const nats = await connectNats(`nats://${await wire.listen()}`, 'test', log);
    closing.push(
      () => wire.close(),
      () => nats.close(),
    );
    return { wire, nats };
  }

  function publisherOn(nats: NatsConnection, change: Partial<PublisherOptions> = {}) {
    const stored: string[] = [];
    const options = {
      mode: 'live',
      boot: 'one',
      startedAt: 0,
      maxInFlight: 8,
      maxInFlightBytes: 2 ** 20,
      ackTimeoutMs: NEVER_MS,
      onStored: (message: OutgoingMessage) => stored.push(message.id),
      log,
      ...change,
    };
    const publisher = new Publisher(options, nats);
    closing.push(() => publisher.close());
    return { publisher, stored };
  }

  /** A subject that no other test uses. */
  let subjects = 0;
  const freshSubject = () => `trade.binance_spot.spot.T${++subjects}`;
  const message = (subject: string, n: number, size = 20): OutgoingMessage => ({
    subject,
    payload: Buffer.alloc(size, `${n} `),
    rows: 1,
    id: `${subject}:${n}`,
  });

  async function storedIn(subject: string): Promise<number> {
    const manager = await direct.jetstreamManager();
    const info = await manager.streams.info('MARKET_DATA', { subjects_filter: subject });
    return info.state.subjects?.[subject] ?? 0;
  }

  const inTime = (what: string, promise: Promise<void>) => {
    let done = false;
    void promise.then(() => {
      done = true;
    });
    return waitFor(what, 20_000, async () => done);
  };

  test('what was in flight when the connection broke is sent again, and stored once', async () => {
    const { wire, nats } = await wired();
    const { publisher, stored } = publisherOn(nats);
    const subject = freshSubject();
    wire.muted = true;
    for (let n = 0; n < 20; n++) publisher.push(message(subject, n));
    await waitFor('the first ones at the broker', READY_MS, async () => (await storedIn(subject)) === 8);
    assert.deepEqual(stored, []);
    wire.muted = false;
    wire.cut();
    await inTime('all answers', publisher.drained());
    assert.equal(await storedIn(subject), 20);
    assert.deepEqual(
      stored,
      Array.from({ length: 20 }, (_, n) => `${subject}:${n}`),
    );
    assert.deepEqual([publisher.stats.stored, publisher.stats.absorbed], [20, 8]);
    const mark = publisher.lastStored.get('MARKET_DATA')!;
    assert.equal(await messageId(await direct.jetstreamManager(), 'MARKET_DATA', mark.seq), mark.id);
    assert.deepEqual([publisher.waitingBytes, publisher.waitingMessages], [0, 0]);
  });

  test('a message that got lost on a sound connection is sent again after the ack timeout', async () => {
    const { wire, nats } = await wired();
    const { publisher } = publisherOn(nats, { ackTimeoutMs: 500 });
    const subject = freshSubject();
    let swallowed = 0;
    wire.pass = (text) => (text.includes(`${subject}:1:`) && ++swallowed === 1 ? '' : text);
    for (let n = 0; n < 3; n++) {
      publisher.push(message(subject, n));
      await new Promise((done) => setTimeout(done, 50));
    }
    await inTime('all answers', publisher.drained());
    assert.ok(swallowed >= 2);
    assert.equal(await storedIn(subject), 3);
  });

  test('no more than the bounds is in flight, by number and by bytes', async () => {
    for (const { change, size, expected } of [
      { change: { maxInFlight: 5 }, size: 10, expected: 5 },
      { change: { maxInFlight: 1000, maxInFlightBytes: 3000 }, size: 1000, expected: 3 },
    ]) {
      const { wire, nats } = await wired();
      const { publisher } = publisherOn(nats, change);
      const subject = freshSubject();
      wire.muted = true;
      const before = nats.stats().outMsgs;
      for (let n = 0; n < 50; n++) publisher.push(message(subject, n, size));
      assert.equal(nats.stats().outMsgs - before, expected);
      assert.deepEqual([publisher.waitingMessages, publisher.waitingBytes], [50, 50 * size]);
      wire.muted = false;
      wire.cut();
      await inTime('all answers', publisher.drained());
      assert.equal(await storedIn(subject), 50);
    }
  });

  test('while the broker is away nothing is handed to the client, whose buffer has no bound', async () => {
    const { wire, nats } = await wired();
    const { publisher } = publisherOn(nats, { ackTimeoutMs: 300 });
    const subject = freshSubject();
    let away = false;
    void (async () => {
      for await (const status of nats.status()) if (status.type === 'disconnect') away = true;
    })();
    wire.muted = true;
    for (let n = 0; n < 3; n++) publisher.push(message(subject, n));
    await waitFor('three at the broker', READY_MS, async () => (await storedIn(subject)) === 3);
    wire.open = false;
    wire.cut();
    wire.muted = false;
    await waitFor('the disconnect', READY_MS, async () => away);
    const before = nats.stats().outMsgs;
    for (let n = 3; n < 50; n++) publisher.push(message(subject, n));
    // Longer than the ack timeout: no retry is handed over either.
    await new Promise((done) => setTimeout(done, 1000));
    assert.equal(nats.stats().outMsgs, before);
    assert.equal(publisher.waitingMessages, 50);
    wire.open = true;
    await inTime('all answers', publisher.drained());
    assert.equal(await storedIn(subject), 50);
  });

  test('what two runs publish of the same rows is stored for each, whether or not the answers come', async () => {
    const first = publisherOn((await wired()).nats);
    const { wire, nats } = await wired();
    const second = publisherOn(nats, { boot: 'two' });
    const subject = freshSubject();
    first.publisher.push(message(subject, 1));
    await inTime('the answer', first.publisher.drained());
    wire.muted = true;
    second.publisher.push(message(subject, 1));
    await waitFor('the second one at the broker', READY_MS, async () => (await storedIn(subject)) === 2);
    wire.muted = false;
    wire.cut();
    await inTime('the answer', second.publisher.drained());
    assert.deepEqual(second.stored, [`${subject}:1`]);
    assert.deepEqual(
      [first, second].map(({ publisher }) => publisher.stats.absorbed),
      [0, 1],
    );
    assert.equal(await storedIn(subject), 2);
    // A retry's mark is that of the attempt that arrived.
    const mark = second.publisher.lastStored.get('MARKET_DATA')!;
    assert.equal(await messageId(await direct.jetstreamManager(), 'MARKET_DATA', mark.seq), mark.id);
  });

  test('what one run publishes again and again is stored each time', async () => {
    const { publisher, stored } = publisherOn((await wired()).nats);
    const subject = freshSubject();
    for (let n = 0; n < 3; n++) {
      publisher.push(message(subject, 1));
      await inTime('the answer', publisher.drained());
    }
    assert.equal(await storedIn(subject), 3);
    assert.deepEqual([stored.length, publisher.stats.absorbed], [3, 0]);
  });

  test('"duplicate" without a number means that it waits at a leader without followers: it is not taken for stored', async () => {
    const { nats } = await wired();
    const { publisher, stored } = publisherOn(nats, { ackTimeoutMs: 300 });
    const ids: string[] = [];
    const leader = direct.subscribe('odd.>', {
      callback: (_, asked) => {
        ids.push(asked.headers!.get('Nats-Msg-Id'));
        asked.respond(
          JSON.stringify(ids.length === 1 ? { stream: 'ODD', seq: 0, duplicate: true } : { stream: 'ODD', seq: 7 }),
        );
      },
    });
    await direct.flush();
    publisher.push(message('odd.a.b.C', 1));
    await inTime('the second answer', publisher.drained());
    assert.deepEqual([stored, publisher.stats.absorbed], [['odd.a.b.C:1'], 0]);
    assert.equal(new Set(ids).size, 2, 'or the leader would call it a duplicate again');
    leader.unsubscribe();
  });

  test('a refused message waits for its stream, is told, and is not lost', async () => {
    const manager = await direct.jetstreamManager();
    const { nats } = await wired();
    const { publisher, stored } = publisherOn(nats, { ackTimeoutMs: 300 });
    publisher.push(message('later.a.b.C', 1));
    await waitFor('the refusal', READY_MS, async () => publisher.stats.refused > 0);
    assert.deepEqual([publisher.lastError, stored], ['no stream takes this subject (503)', []]);
    await manager.streams.add({
      name: 'LATER',
      subjects: ['later.>'],
      max_bytes: 1000,
      max_msgs: 1,
      discard: 'new' as never,
    });
    await inTime('the answer', publisher.drained());
    assert.equal(publisher.lastError, null);
    // Full, and told to refuse what is new: an answer with an error is no success.
    publisher.push(message('later.a.b.C', 2));
    await waitFor('the refusal', READY_MS, async () => publisher.lastError !== null);
    assert.match(publisher.lastError!, /maximum messages/);
    assert.equal(publisher.waitingMessages, 1);
    await manager.streams.purge('LATER');
    await inTime('the answer', publisher.drained());
    assert.deepEqual(stored, ['later.a.b.C:1', 'later.a.b.C:2']);
    await manager.streams.delete('LATER');
  });

  /** Types that no test above publishes, one per test, so that each has its durable for itself. */
  async function put(type: string, from: number, count: number, size = 20): Promise<void> {
    for (let n = from; n < from + count; n++) {
      const head = headers();
      head.set('Mp-Mode', 'live');
      const payload = Buffer.alloc(size, ' ');
      payload.write(String(n));
      await direct.jetstream().publish(`${type}.binance_spot.spot.X`, payload, { headers: head });
    }
  }

  function consumerOn(nats: NatsConnection, type: DataType, maxBytes = 2 ** 20, recheck = async () => {}) {
    const consumer = new PullConsumer(nats, 'MARKET_DATA', `store_${type}`, maxBytes, recheck, log);
    closing.push(() => consumer.close());
    return consumer;
  }

  async function take(consumer: PullConsumer, count: number): Promise<number[]> {
    const out: number[] = [];
    await waitFor(`${count} messages`, 30_000, async () => {
      for (;;) {
        const message = await consumer.next(0);
        if (message === null) return out.length >= count;
        message.ack();
        out.push(Number(Buffer.from(message.data).toString()));
      }
    });
    return out;
  }

  const durable = async (type: DataType, seconds: number) =>
    placeDurable(await direct.jetstreamManager(), streamOf(type), type, seconds, null);
  const numbers = (from: number, count: number) => Array.from({ length: count }, (_, i) => from + i);

  test('what waits here is bounded by bytes, and all of it comes', async () => {
    const { nats } = await wired();
    await durable('lsr_all_account', 60);
    await put('lsr_all_account', 0, 40, 50_000);
    const consumer = consumerOn(nats, 'lsr_all_account', 400_000);
    await waitFor('messages', READY_MS, async () => consumer.waiting.length > 0);
    await new Promise((done) => setTimeout(done, 500));
    const bytes = consumer.waiting.reduce((sum, each) => sum + each.data.length, 0);
    assert.ok(bytes <= 400_000, `${bytes} bytes wait`);
    assert.deepEqual(await take(consumer, 40), numbers(0, 40));
  });

  test('what waited here when the broker went away is dropped, and comes again once the broker was looked at', async () => {
    const { wire, nats } = await wired();
    await durable('liquidation', 1);
    let looked = 0;
    let look: () => void = () => undefined;
    const consumer = consumerOn(nats, 'liquidation', 2 ** 20, () => {
      looked += 1;
      return new Promise<void>((done) => {
        look = done;
      });
    });
    await put('liquidation', 0, 5);
    await waitFor('five messages', READY_MS, async () => consumer.waiting.length === 5);
    assert.equal((await consumer.next(0))?.redelivered, false);
    wire.cut();
    await waitFor('the look', READY_MS, async () => looked === 1);
    await put('liquidation', 5, 3);
    assert.equal(consumer.waiting.length, 0, 'nothing of the connection before is handed out');
    assert.equal(await consumer.next(1500), null, 'nothing comes before the look is over');
    look();
    const again = (await take(consumer, 8)).sort();
    assert.deepEqual(again, numbers(0, 8), 'each once, also what had been taken and not acknowledged');
  });

  test('a durable that is placed anew goes on behind its checkpoint, and says at once that all before is acknowledged', async () => {
    const { nats } = await wired();
    await durable('volatility_index', 60);
    await put('volatility_index', 0, 8);
    const consumer = consumerOn(nats, 'volatility_index', 2 ** 20);
    let checkpoint: Checkpoint | null = null;
    await waitFor('messages', READY_MS, async () => consumer.waiting.length === 8);
    for (let n = 0; n < 5; n += 1) {
      const { seq, storedAt, ack } = (await consumer.next(0))!;
      checkpoint = { seq, storedAt };
      ack();
    }
    await nats.flush();
    consumer.close();
    const manager = await direct.jetstreamManager();
    const place = (known: Checkpoint | null) =>
      placeDurable(manager, streamOf('volatility_index'), 'volatility_index', 60, known);
    const floor = async () => ackFloor(await manager.consumers.info('MARKET_DATA', 'store_volatility_index'));
    assert.equal(await place(checkpoint), true);
    assert.equal(await floor(), checkpoint!.seq);
    assert.equal(await place(checkpoint), true, 'and again, with nothing acknowledged meanwhile');
    assert.equal(await floor(), checkpoint!.seq);
    const second = consumerOn(nats, 'volatility_index', 2 ** 20);
    assert.deepEqual(await take(second, 3), [5, 6, 7]);
    // What it has asked for is forgotten with its durable.
    second.close();
    assert.equal(await place({ ...checkpoint!, storedAt: '1' }), false, 'another message has its number');
    assert.equal(await floor(), 0);
    assert.deepEqual(await take(consumerOn(nats, 'volatility_index', 2 ** 20), 8), numbers(0, 8), 'all is read again');
  });

  test('a durable that was removed is made anew, and goes on', async () => {
    const { nats } = await wired();
    await durable('gap', 60);
    await put('gap', 0, 2);
    const again = async () => void (await durable('gap', 60));
    const consumer = new PullConsumer(nats, 'MARKET_DATA', 'store_gap', 2 ** 20, again, log, GONE_MS);
    closing.push(() => consumer.close());
    assert.deepEqual(await take(consumer, 2), [0, 1]);
    await (await direct.jetstreamManager()).consumers.delete('MARKET_DATA', 'store_gap');
    await put('gap', 2, 1);
    assert.deepEqual(await take(consumer, 3), [0, 1, 2]);
  });

  test('a pull request that got lost is made again when its time is over', async () => {
    assert.deepEqual(await take(robbed, 3), [0, 1, 2]);
  });
});
