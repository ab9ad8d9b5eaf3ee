import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type ServerResponse } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, afterEach, before, describe, test } from 'node:test';
import { createLogger } from '../scripts/lib/log.ts';
import { waitFor } from '../scripts/lib/processes.ts';
import { steadyNow } from '../scripts/lib/steady.ts';
import { VenueRest } from '../scripts/lib/venue_rest.ts';

describe('requests to a venue’s REST host', () => {
  let asked: string[] = [];
  let respond: (answer: ServerResponse) => void;
  let rest: VenueRest;
  let directory = '';
  const server = createServer((incoming, answer) => {
    asked.push(incoming.url!);
    respond(answer);
  });
  before(() => new Promise<void>((done) => server.listen(0, '127.0.0.1', done)));
  after(async () => {
    server.closeAllConnections();
    await new Promise((done) => server.close(done));
  });
  afterEach(async () => {
    await rest.close();
    rmSync(directory, { recursive: true, force: true });
  });

  /** As another process of the same data directory has it. */
  function another(weightPerMinute = 1000): VenueRest {
    const { port } = server.address() as { port: number };
    const log = createLogger('test', 'fatal');
    const host = `http://127.0.0.1:${port}`;
    return new VenueRest({
      host,
      dataDir: directory,
      weightPerMinute,
      weightHeader: 'x-used',
      blockedRetryMs: 600_000,
      log,
    });
  }

  function start(weightPerMinute = 1000): void {
    asked = [];
    directory = mkdtempSync(join(tmpdir(), 'marketprism-rest-'));
    rest = another(weightPerMinute);
  }

  /** Until when the host is left alone after this answer, in seconds from now; no second request reaches it. */
  async function heldBack(status: number, headers: Record<string, string> = {}, text = ''): Promise<number> {
    start();
    respond = (answer) => answer.writeHead(status, headers).end(text);
    const first = await rest.ask('/a', 1);
    respond = (answer) => answer.end('{}');
    const second = await rest.ask('/b', 1);
    assert.equal(first.kind, 'wait');
    assert.deepEqual(second, first);
    assert.deepEqual(asked, ['/a']);
    const until = first.kind === 'wait' ? first.until : 0;
    assert.ok(rest.refused(until - 1)?.startsWith(`HTTP ${status}`));
    assert.equal(rest.refused(until), null);
    return (until - steadyNow()) / 1000;
  }

  /** As told, less what the test itself took. */
  const about = (seconds: number, told: number) =>
    assert.ok(seconds <= told && seconds > told - 30, `${seconds} of ${told}`);

  test('the answer’s body is parsed; what is no JSON or no answer failed, and asks for no wait', async () => {
    start();
    respond = (answer) => answer.end('{"a":1}');
    assert.deepEqual(await rest.ask('/a', 1), { kind: 'ok', body: { a: 1 } });
    respond = (answer) => answer.end('<html>');
    assert.equal((await rest.ask('/a', 1)).kind, 'failed');
    respond = (answer) => answer.writeHead(500).end('oops');
    assert.deepEqual(await rest.ask('/a', 1), { kind: 'failed', reason: 'HTTP 500: oops', isOurs: false });
    respond = (answer) => answer.writeHead(400).end('too long ago');
    assert.deepEqual(await rest.ask('/a', 1), { kind: 'failed', reason: 'HTTP 400: too long ago', isOurs: true });
    respond = (answer) => answer.socket!.destroy();
    assert.equal((await rest.ask('/a', 1)).kind, 'failed');
    assert.equal(rest.refused(), null);
  });

  test('a refusal is obeyed as long as the venue says', async () => {
    about(await heldBack(429, { 'retry-after': '100' }), 100);
    about(await heldBack(418, { 'retry-after': '3600' }), 3600);
    about(await heldBack(403, { 'retry-after': '1200' }), 1200);
  });

  test('a ban’s end is read from the text, too, when that is later', async () => {
    const text = (seconds: number) =>
      `{"code":-1003,"msg":"Way too many requests; IP banned until ${Date.now() + seconds * 1000}."}`;
    about(await heldBack(418, {}, text(5000)), 5000);
    about(await heldBack(418, { 'retry-after': '100' }, text(5000)), 5000);
    about(await heldBack(418, { 'retry-after': '9000' }, text(5000)), 9000);
  });

  test('a refusal without a time is obeyed for a minute, a block of the region or the firewall for ten', async () => {
    about(await heldBack(429), 60);
    about(await heldBack(418), 60);
    about(await heldBack(403), 600);
    about(await heldBack(451), 600);
  });

  test('a short refusal that comes after a ban does not end the ban', async () => {
    start();
    let banned = false;
    respond = (answer) => {
      // Both requests are on their way before either answer.
      if (!banned) setTimeout(() => answer.writeHead(418, { 'retry-after': '3600' }).end(), 50);
      else setTimeout(() => answer.writeHead(429, { 'retry-after': '1' }).end(), 200);
      banned = true;
    };
    await Promise.all([rest.ask('/a', 1), rest.ask('/b', 1)]);
    const refused = await rest.ask('/c', 1);
    assert.equal(refused.kind, 'wait');
    assert.ok(refused.kind === 'wait' && refused.until - steadyNow() > 3_500_000);
  });

  test('a clock that is set does not stretch or shorten a wait', async (context) => {
    context.mock.timers.enable({ apis: ['Date'], now: 1795000000000 });
    start();
    const other = another();
    respond = (answer) => answer.writeHead(429, { 'retry-after': '100' }).end();
    const first = await rest.ask('/a', 1);
    assert.ok(first.kind === 'wait');
    const told = await other.ask('/a', 1);
    assert.ok(told.kind === 'wait');
    for (const setBy of [-150_000, 150_000]) {
      context.mock.timers.setTime(1795000000000 + setBy);
      assert.deepEqual([await rest.ask('/a', 1), await other.ask('/a', 1)], [first, told]);
    }
    assert.deepEqual([rest.refused(first.until), other.refused(told.until)], [null, null]);
    await other.close();
  });

  test('when the time is over, requests go on', async () => {
    start();
    respond = (answer) => answer.writeHead(429, { 'retry-after': '1' }).end();
    assert.equal((await rest.ask('/a', 1)).kind, 'wait');
    respond = (answer) => answer.end('{}');
    await waitFor('the end of the wait', 20_000, async () => (await rest.ask('/b', 1)).kind === 'ok');
    assert.deepEqual(asked, ['/a', '/b']);
  });

  test('half of the venue’s weight is used, then the next minute is waited for, and has its own', async (context) => {
    const minute = 29_916_666 * 60_000;
    context.mock.timers.enable({ apis: ['Date'], now: minute + 59_000 });
    start(100);
    respond = (answer) => answer.end('{}');
    const kinds: string[] = [];
    for (let i = 0; i < 4; i++) kinds.push((await rest.ask(`/${i}`, 20)).kind);
    assert.deepEqual(
      [kinds, asked],
      [
        ['ok', 'ok', 'wait', 'wait'],
        ['/0', '/1'],
      ],
    );
    const refused = await rest.ask('/', 20);
    assert.ok(refused.kind === 'wait');
    about((refused.until - steadyNow()) / 1000, 1);
    assert.equal((await rest.ask('/small', 10)).kind, 'ok');
    assert.equal(rest.refused(), null, 'an own budget is no refusal');
    context.mock.timers.setTime(minute + 60_000);
    assert.equal((await rest.ask('/next', 20)).kind, 'ok');
  });

  test('what others behind the same address have used, the venue tells, and it counts', async (context) => {
    context.mock.timers.enable({ apis: ['Date'], now: 1795000000000 });
    start(100);
    respond = (answer) => answer.writeHead(200, { 'x-used': '45' }).end('{}');
    assert.equal((await rest.ask('/a', 1)).kind, 'ok');
    assert.equal((await rest.ask('/b', 10)).kind, 'wait');
    assert.deepEqual(asked, ['/a']);
  });

  test('all processes of a data directory share the budget of a host, and obey what one of them was told', async () => {
    start(100);
    const other = another(100);
    respond = (answer) => answer.end('{}');
    const kinds = [];
    for (const each of [rest, other, rest]) kinds.push((await each.ask('/a', 20)).kind);
    assert.deepEqual(kinds, ['ok', 'ok', 'wait'], 'half of 100 is used by both together');
    await other.close();
  });

  test('a ban met by one process holds for the others, and tells a block of the region apart', async () => {
    start();
    const other = another();
    respond = (answer) => answer.writeHead(429, { 'retry-after': '30' }).end('slow down');
    await rest.ask('/a', 1);
    assert.deepEqual([(await other.ask('/b', 1)).kind, asked], ['wait', ['/a']]);
    assert.equal(other.blocked(), false);
    respond = (answer) => answer.writeHead(451).end('not here');
    const third = another();
    await other.close();
    rmSync(directory, { recursive: true, force: true });
    mkdirSync(join(directory, 'state', 'requests'), { recursive: true });
    await third.ask('/c', 1);
    assert.deepEqual([rest.blocked(), rest.refused()], [true, 'HTTP 451: not here']);
    assert.equal(rest.blocked(steadyNow() + 600_001), false);
    await third.close();
  });

  test('what is posted goes to the path without its query, and costs its weight', async () => {
    start();
    respond = (answer) => answer.end('[]');
    assert.equal((await rest.ask('/info?type=meta', 1, '{"type":"meta"}')).kind, 'ok');
    assert.deepEqual(asked, ['/info']);
  });

  test('on a full disk the budget and a ban are kept in memory, and requests go on', async (context) => {
    directory = mkdtempSync(join(tmpdir(), 'marketprism-rest-'));
    const mounted = spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=64k', 'tmpfs', directory]);
    if (mounted.status !== 0) {
      context.skip(`a small disk cannot be mounted here: ${mounted.stderr}`);
      return;
    }
    try {
      asked = [];
      rest = another(100);
      assert.throws(() => writeFileSync(join(directory, 'full'), Buffer.alloc(200_000)), /ENOSPC/);
      respond = (answer) => answer.end('{}');
      const kinds: string[] = [];
      for (let i = 0; i < 3; i++) kinds.push((await rest.ask('/a', 20)).kind);
      assert.deepEqual(kinds, ['ok', 'ok', 'wait']);
      const other = another(100);
      respond = (answer) => answer.writeHead(418, { 'retry-after': '3600' }).end();
      assert.equal((await other.ask('/b', 1)).kind, 'wait');
      assert.equal((await other.ask('/b', 1)).kind, 'wait');
      assert.deepEqual(asked, ['/a', '/a', '/b']);
      await other.close();
    } finally {
      spawnSync('umount', [directory]);
    }
  });
});
