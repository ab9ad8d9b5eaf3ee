/** The embedded ClickHouse from start to end: what is there after a stop, a kill and a full disk, and what ends it or lets it not begin. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { after, before, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { SmallDisk } from '../scripts/lib/chaos/disks.ts';
import { ENDLESS, embeddedServers, fails, launch, q, type Server, until } from './embedded_server.ts';

const { root, start, startMain, stop, end, http, rows, command } = embeddedServers();
let main: Server;

before(async () => {
  main = await startMain();
});

after(end);

test('databases, tables and rows are there after a stop and a start', async () => {
  const dir = join(root, 'again');
  const first = await start(dir);
  await command('CREATE DATABASE IF NOT EXISTS kept', first.client);
  await command('CREATE TABLE kept.t (a UInt8) ENGINE = MergeTree ORDER BY a', first.client);
  await command('CREATE TABLE plain (a UInt8) ENGINE = MergeTree ORDER BY a', first.client);
  await command('INSERT INTO kept.t VALUES (1)', first.client);
  await command('INSERT INTO plain VALUES (2)', first.client);
  const stopped = first.client.query({ query: ENDLESS }).catch((error: unknown) => error);
  assert.equal(await stop(first), 0);
  assert.ok((await stopped) instanceof Error);
  assert.match(first.log(), /"event":"stopped"/);
  const second = await start(dir);
  await command('CREATE DATABASE IF NOT EXISTS kept', second.client);
  assert.deepEqual(await rows('SELECT kept.t.a AS a, plain.a AS b FROM kept.t, plain', second.client), [
    { a: 1, b: 2 },
  ]);
  await stop(second);
});

test('kill -9 at any moment keeps every acknowledged insert once, and each other one whole or not at all', async () => {
  const dir = join(root, 'killed');
  const size = 2000;
  const acknowledged = new Set<number>();
  let batch = 0;
  // The last one looks at what the kill before it left.
  for (let round = 0; round <= 6; round++) {
    const server = await start(dir);
    await command('CREATE DATABASE IF NOT EXISTS k', server.client);
    await command(
      'CREATE TABLE IF NOT EXISTS k.t (b UInt32, i UInt32, s String) ENGINE = MergeTree ORDER BY (b, i)',
      server.client,
    );
    const stored = await rows<{ b: number; n: number; u: number }>(
      'SELECT b, count() AS n, uniqExact(i) AS u FROM k.t GROUP BY b',
      server.client,
    );
    for (const { b, n, u } of stored) assert.deepEqual([n, u], [size, size], `batch ${b} after round ${round}`);
    const found = new Set(stored.map(({ b }) => b));
    for (const b of acknowledged)
      assert.ok(found.has(b), `batch ${b} was acknowledged and is lost after round ${round}`);
    if (round === 6) break;
    const end = batch + 400;
    const writer = async () => {
      while (batch < end) {
        const b = batch++;
        const body = Array.from({ length: size }, (_, i) => `${b}\t${i}\tx${b * i}\n`).join('');
        const reply = await http(q('INSERT INTO k.t FORMAT TSV'), { body, port: server.port }).catch(() => undefined);
        if (!reply) return;
        assert.equal(reply.status, 200, reply.text);
        acknowledged.add(b);
      }
    };
    const writers = Promise.all([writer(), writer(), writer()]);
    await sleep(150 + Math.random() * 350);
    await stop(server, 'SIGKILL');
    await writers;
  }
  assert.ok(acknowledged.size > 20, `${acknowledged.size} acknowledged`);
});

test('merges can be stopped and go on, as the guard of the disk does it', async () => {
  await command('CREATE TABLE merged (a UInt32) ENGINE = MergeTree ORDER BY a');
  for (const value of [1, 2]) await command(`INSERT INTO merged SELECT ${value}`);
  await command('SYSTEM STOP MERGES');
  await assert.rejects(command('OPTIMIZE TABLE merged FINAL SETTINGS optimize_throw_if_noop = 1'), fails('236'));
  await command('SYSTEM START MERGES');
  await command('OPTIMIZE TABLE merged FINAL SETTINGS optimize_throw_if_noop = 1');
  const parts = await rows("SELECT name FROM system.parts WHERE active AND table = 'merged'");
  assert.equal(parts.length, 1);
});

test('a full disk costs nothing that was acknowledged: the engine, which would not notice, is ended and begins anew', async (context) => {
  const dir = join(root, 'full');
  let disk: SmallDisk;
  try {
    disk = SmallDisk.mount(dir);
  } catch (error) {
    context.skip(`no disk can be mounted here: ${(error as Error).message}`);
    return;
  }
  try {
    const size = 20_000;
    const acknowledged: number[] = [];
    let batch = 0;
    for (let round = 0; round < 3; round++) {
      const server = await start(dir);
      await command('CREATE DATABASE IF NOT EXISTS k', server.client);
      await command(
        'CREATE TABLE IF NOT EXISTS k.t (b UInt32, i UInt32, s String) ENGINE = MergeTree ORDER BY (b, i)',
        server.client,
      );
      // Not at its exit: its last words may still be in the pipe then.
      const ended = once(server.process, 'close');
      const writer = async () => {
        for (;;) {
          const b = batch++;
          const body = Array.from({ length: size }, (_, i) => `${b}\t${i}\tx${b * i}\n`).join('');
          const reply = await http(q('INSERT INTO k.t FORMAT TSV'), { body, port: server.port }).catch(() => undefined);
          if (!reply) return;
          if (reply.status === 200) acknowledged.push(b);
          else assert.match(reply.text, /^Code: 243\. .*NOT_ENOUGH_SPACE/);
        }
      };
      const writers = Promise.all([writer(), writer(), writer()]);
      const before = acknowledged.length;
      await until('rows', async () => acknowledged.length > before + 5);
      disk.fill();
      const [, signal] = await ended;
      assert.equal(signal, 'SIGKILL');
      assert.match(server.log(), /"event":"disk_full"/);
      await writers;
      await stop(server);
      // While there is no room it waits, and opens nothing.
      const waiting = launch(['--data-dir', dir, '--port', '0']);
      const [line] = (await once(createInterface({ input: waiting.stdout! }), 'line')) as [string];
      assert.match(line, /"event":"disk_full".*waiting for 32 MiB of room/);
      waiting.kill('SIGTERM');
      assert.deepEqual(await once(waiting, 'exit'), [0, null]);
      disk.free();
    }
    const server = await start(dir);
    const stored = await rows<{ b: number; n: number; u: number }>(
      'SELECT b, count() AS n, uniqExact(i, s) AS u FROM k.t GROUP BY b',
      server.client,
    );
    const whole = new Set(stored.filter(({ n, u }) => n === size && u === size).map(({ b }) => b));
    assert.equal(whole.size, stored.length);
    assert.deepEqual(
      acknowledged.filter((b) => !whole.has(b)),
      [],
    );
    await stop(server);
  } finally {
    disk.unmount();
  }
});

test('a second process on the same data directory says who holds it, and other faults are one clear line', async () => {
  const run = async (args: string[]) => {
    const child = launch(args);
    let errors = '';
    child.stderr!.on('data', (data: Buffer) => {
      errors += data.toString();
    });
    child.stdout!.resume();
    const [code] = (await once(child, 'close')) as [number];
    return { code, lines: errors.trim().split('\n') };
  };
  const held = await run(['--data-dir', join(root, 'main'), '--port', '0']);
  assert.equal(held.code, 1);
  assert.equal(held.lines.length, 1);
  assert.match(held.lines[0]!, new RegExp(`already held \\(pid ${main.pid},`));
  const taken = createServer().listen(0, '127.0.0.1');
  await once(taken, 'listening');
  const port = String((taken.address() as { port: number }).port);
  const busy = await run(['--data-dir', join(root, 'busy'), '--port', port]);
  taken.close();
  assert.deepEqual([busy.code, busy.lines.length], [1, 1]);
  assert.match(busy.lines[0]!, new RegExp(`port ${port} .* in use`));
  writeFileSync(join(root, 'file'), '');
  const file = await run(['--data-dir', join(root, 'file'), '--port', '0']);
  assert.deepEqual([file.code, file.lines.length], [1, 1]);
  assert.match(file.lines[0]!, /cannot be written/);
  for (const wrong of [
    ['--nonsense'],
    ['--data-dir', root, '--port', 'x'],
    ['--data-dir', root, '--memory', '1'],
    ['--sessions', '1'],
  ]) {
    const { code, lines } = await run(wrong);
    assert.deepEqual([code, lines.length], [64, 1], wrong.join(' '));
  }
});

test('started plainly it works in a child, which stops with it and dies with it', async () => {
  const dir = join(root, 'child');
  const env = { UV_THREADPOOL_SIZE: '' };
  const first = await start(dir, [], env);
  assert.notEqual(first.pid, first.process.pid);
  assert.equal(await stop(first), 0);
  assert.match(first.log(), /"event":"stopped"/);
  const second = await start(dir, [], env);
  await stop(second, 'SIGKILL');
  const third = await start(dir, [], env);
  assert.equal(await stop(third), 0);
});

test('memory of other processes in the same container is not held against its limit', async () => {
  const hog = spawn(process.execPath, [
    '-e',
    "globalThis.held = Buffer.alloc(700 * 2 ** 20, 1); console.log('full'); setTimeout(() => {}, 2 ** 30)",
  ]);
  try {
    await once(hog.stdout, 'data');
    const server = await start(join(root, 'beside-hog'), ['--memory', '512MiB']);
    // The engine looks at its memory only now and then.
    await sleep(1000);
    const counted = await rows<{ n: string }>('SELECT toString(count()) AS n FROM numbers(1000000)', server.client);
    assert.deepEqual(counted, [{ n: '1000000' }]);
    await stop(server);
  } finally {
    hog.kill('SIGKILL');
  }
});
