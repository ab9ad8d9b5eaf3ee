/** The guard of the embedded engine's disk, by room that a test tells. What a real full disk does is in clickhouse_embedded_life.test.ts. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DiskGuard, untilRoom } from '../scripts/lib/embedded/disk_guard.ts';
import { createLogger } from '../scripts/lib/log.ts';

const MIB = 2 ** 20;
const log = createLogger('test', 'silent');

test('little room ends inserts and merges, none ends the process, and room lets them go on', async () => {
  let room = 100 * MIB;
  const told: string[] = [];
  const guard = new DiskGuard({
    path: 'data',
    log,
    merge: async (isAllowed) => void told.push(`merge ${isAllowed}`),
    end: () => told.push('end'),
    room: () => room,
  });
  guard.close();
  guard.refuse();
  assert.deepEqual(told, []);
  room = 64 * MIB - 1;
  assert.throws(() => guard.refuse(), {
    code: 243,
    message: /^63 MiB are free in data: .* takes no rows below 64 MiB$/,
  });
  assert.throws(() => guard.refuse(), { code: 243 });
  assert.deepEqual(told, ['merge false']);
  room = 32 * MIB;
  guard.look();
  assert.deepEqual(told, ['merge false']);
  room = 64 * MIB;
  guard.refuse();
  assert.deepEqual(told, ['merge false', 'merge true']);
  room = 32 * MIB - 1;
  guard.look();
  assert.deepEqual(told, ['merge false', 'merge true', 'end', 'merge false']);
});

test('merges that could not be switched are switched at the next look', async () => {
  let fails = true;
  const told: boolean[] = [];
  const guard = new DiskGuard({
    path: 'data',
    log,
    merge: async (isAllowed) => {
      told.push(isAllowed);
      if (fails) throw new Error('no memory');
    },
    end: () => assert.fail('there is room'),
    room: () => 50 * MIB,
  });
  guard.close();
  await new Promise((done) => setImmediate(done));
  fails = false;
  guard.look();
  await new Promise((done) => setImmediate(done));
  guard.look();
  assert.deepEqual(told, [false, false]);
});

test('nothing is opened before there is room, and a stop ends the wait', async () => {
  const rooms = [0, 31 * MIB, 32 * MIB];
  await untilRoom('data', log, new AbortController().signal, () => rooms.shift()!);
  assert.deepEqual(rooms, []);
  const abort = new AbortController();
  const waiting = untilRoom('data', log, abort.signal, () => 0);
  abort.abort(new Error('stopped'));
  await assert.rejects(waiting, /stopped/);
});
