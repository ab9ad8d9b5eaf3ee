/** Leases in a real broker: with one second for each ten, and a wire that can be cut. */
import assert from 'node:assert/strict';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { after, afterEach, before, describe, test } from 'node:test';
import type { NatsConnection } from 'nats';
import { OperatorError } from '../scripts/lib/cli.ts';
import { connectNats } from '../scripts/lib/jetstream.ts';
import {
  Lease,
  LeaseLapsed,
  LeaseLost,
  type LeaseOptions,
  leaseCheck,
  openLeases,
  placeOf,
} from '../scripts/lib/lease.ts';
import { createLogger } from '../scripts/lib/log.ts';
import { waitFor } from '../scripts/lib/processes.ts';
import { steadyNow } from '../scripts/lib/steady.ts';
import { Pipeline, READY_MS } from './pipeline.ts';
import { Wire } from './wire.ts';

const log = createLogger('test', 'fatal');
const times = { holdMs: 1000, renewMs: 250, againMs: 50, awayMs: 2000, lookMs: 100 };

/** A process that wants a lease. */
class Contender {
  readonly stop = new AbortController();
  lapses = 0;
  lost: unknown = null;
  readonly lease: Lease;

  constructor(nats: NatsConnection, name: string, place: string, change: Partial<LeaseOptions> = {}) {
    this.lease = new Lease(() => openLeases(nats), {
      ...{ name, place, log, times, state: () => undefined, ...change },
      onLapse: () => {
        this.lapses += 1;
      },
    });
  }

  async take(patient = true) {
    const before = await this.lease.take(this.stop.signal, patient);
    this.lease.keep(this.stop.signal).catch((error: unknown) => {
      this.lost = error;
    });
    return before;
  }

  async release(): Promise<void> {
    this.stop.abort(new Error('done'));
    await this.lease.release();
  }
}

describe('a lease', () => {
  const pipeline = new Pipeline();
  let nats: NatsConnection;
  const closing: (() => Promise<void> | void)[] = [];
  let number = 0;

  before(async () => {
    await pipeline.choosePorts();
    await pipeline.startBroker();
    nats = await connectNats(pipeline.env.MARKETPRISM_NATS_URL!, 'test', log);
  });
  afterEach(async () => {
    for (const close of closing.splice(0).reverse()) await close();
  });
  after(async () => {
    await nats.close();
    await pipeline.close();
  });

  const newName = () => `test.${(number += 1)}`;
  function contender(name: string, place: string, change: Partial<LeaseOptions> = {}, connection = nats): Contender {
    const made = new Contender(connection, name, place, change);
    closing.push(() => made.stop.abort(new Error('done')));
    return made;
  }
  const pause = (ms: number) => new Promise((done) => setTimeout(done, ms));

  test('is held by one, and who comes from another place is told by whom, or stands by', async () => {
    const name = newName();
    const [first, second] = [contender(name, 'a'), contender(name, 'b')];
    assert.equal(await first.take(), null);
    assert.equal(first.lease.isHeld(), true, 'where nobody was before, there is nobody to wait for');
    await assert.rejects(second.take(false), (error: Error) => {
      assert.ok(error instanceof OperatorError);
      assert.match(
        error.message,
        new RegExp(`^${name} is held by \\S+ \\(pid ${process.pid}\\): stop that one first$`),
      );
      return true;
    });
    const taking = second.take();
    await pause(times.awayMs + times.holdMs);
    assert.equal(first.lease.isHeld(), true);
    assert.throws(() => second.lease.check(), LeaseLapsed);
    assert.match(second.lease.word, /^standing by for \S+ \(pid \d+\)$/);
    assert.equal(leaseCheck([second.lease]).status, 'healthy');
    second.stop.abort(new Error('enough'));
    await assert.rejects(taking, /enough/);
  });

  test('that was released passes on at once, and is used only when the one before cannot be at it any more', async () => {
    const name = newName();
    const [first, second] = [contender(name, 'a', { state: () => ({ seq: 7 }) }), contender(name, 'b')];
    await first.take();
    const taking = second.take();
    await pause(3 * times.lookMs);
    await first.release();
    assert.equal(first.lease.isHeld(), false);
    const released = steadyNow();
    assert.deepEqual(await taking, { state: { seq: 7 }, isOthers: true });
    assert.equal(second.lease.word, 'taking over');
    assert.equal(second.lease.isHeld(), false);
    await second.lease.whenHeld(second.stop.signal);
    assert.ok(steadyNow() - released >= times.holdMs);
  });

  test('of a holder that died passes on within its place at once, as the lock there says that it is dead', async () => {
    const name = newName();
    const [first, second] = [contender(name, 'a', { state: () => 'kept' }), contender(name, 'a')];
    await first.take();
    first.stop.abort(new Error('killed'));
    assert.deepEqual(await second.take(), { state: 'kept', isOthers: false });
    assert.equal(second.lease.isHeld(), true);
    const third = contender(name, 'a');
    assert.deepEqual(await third.take(), { state: 'kept', isOthers: false }, 'what nobody replaced is handed on');
  });

  test('of a holder that is not heard of passes on, and that one learns it and does nothing more', async () => {
    const name = newName();
    // Its clock stands still, as of a process that is held up: by it the lease never ends.
    let now = 1000;
    const clock = { steady: () => now, wall: () => now };
    const wire = new Wire(pipeline.ports.nats);
    closing.push(() => wire.close());
    const cutOff = await connectNats(`nats://${await wire.listen()}`, 'test', log);
    closing.push(() => cutOff.close());
    const first = contender(name, 'a', { clock }, cutOff);
    const second = contender(name, 'b');
    await first.take();
    wire.open = false;
    wire.cut();
    const began = steadyNow();
    await second.take();
    assert.ok(steadyNow() - began >= times.awayMs, 'it was given time');
    await second.lease.whenHeld(second.stop.signal);
    assert.ok(steadyNow() - began >= times.awayMs + times.holdMs);
    now += times.holdMs;
    assert.equal(first.lease.isHeld(), false, 'by its own clock it has ended by now');
    await waitFor('the lapse', READY_MS, async () => first.lapses === 1);
    assert.equal(first.lease.word, 'lapsed');
    assert.equal(leaseCheck([first.lease]).status, 'unhealthy');
    wire.open = true;
    await waitFor('the word of it', READY_MS, async () => first.lost !== null);
    assert.ok(first.lost instanceof LeaseLost);
    assert.match(first.lost.message, new RegExp(`^${name} was taken over by \\S+ \\(pid ${process.pid}\\)`));
    assert.equal(first.lease.isHeld(), false);
    assert.equal(second.lease.isHeld(), true);
  });

  test('lapses while the broker is away, and goes on when it is back', async () => {
    const name = newName();
    const first = contender(name, 'a');
    await first.take();
    const wire = pipeline.children.get('nats-server')!;
    process.kill(wire.pid!, 'SIGSTOP');
    try {
      await waitFor('the lapse', READY_MS, async () => first.lapses === 1);
      assert.equal(first.lease.isHeld(), false);
    } finally {
      process.kill(wire.pid!, 'SIGCONT');
    }
    await first.lease.whenHeld(first.stop.signal);
    assert.equal(first.lost, null);
  });

  test('ends by the wall clock, too: the other one stands still while the machine sleeps', async () => {
    let wall = 1000;
    const first = contender(newName(), 'a', { clock: { steady: () => 5, wall: () => wall } });
    await first.take();
    assert.equal(first.lease.isHeld(), true);
    wall += times.holdMs;
    assert.equal(first.lease.isHeld(), false);
    await waitFor('a new confirmation', READY_MS, async () => first.lease.isHeld());
  });

  test('outlives a broker that lost everything', async () => {
    const name = newName();
    const [first, second] = [contender(name, 'a'), contender(name, 'b')];
    await first.take();
    const taking = second.take();
    await waitFor('who stands by', READY_MS, async () => second.lease.isStandingBy);
    let both = 0;
    const looking = setInterval(() => (both += first.lease.isHeld() && second.lease.isHeld() ? 1 : 0), 10);
    closing.push(() => clearInterval(looking));
    await pipeline.stop('nats-server');
    rmSync(join(pipeline.dir, 'nats'), { recursive: true });
    await pipeline.startBroker();
    // Whoever comes first has it; never both, though the broker knows nothing of what it had confirmed.
    await pause(2 * times.holdMs);
    await waitFor('a holder', READY_MS, async () => first.lease.isHeld() || second.lease.isHeld());
    assert.equal(both, 0);
    assert.equal(first.lease.isHeld(), first.lost === null);
    second.stop.abort(new Error('enough'));
    await taking.catch(() => undefined);
  });

  test('knows a place by machine, network and directory', () => {
    assert.match(placeOf(pipeline.dir), /^[0-9a-f]{16}$/);
    assert.equal(placeOf(pipeline.dir), placeOf(join(pipeline.dir, '.')));
    assert.notEqual(placeOf(pipeline.dir), placeOf('/tmp'));
  });
});
