import assert from 'node:assert/strict';
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import koffi from 'koffi';
import { CREDENTIAL_PREFIX, loadConfig } from '../scripts/lib/config.ts';
import { freePort } from '../scripts/lib/free_port.ts';
import { createLogger } from '../scripts/lib/log.ts';
import { Monitor } from '../scripts/lib/monitor.ts';
import { pause } from '../scripts/lib/pause.ts';
import { watchdogMs } from '../scripts/lib/service_manager.ts';
import { steadyNow } from '../scripts/lib/steady.ts';
import { Answering, signOfLife, Vital } from '../scripts/lib/vital_signs.ts';

const scratch = mkdtempSync(join(tmpdir(), 'marketprism-notify-'));
after(() => rmSync(scratch, { recursive: true, force: true }));

const AF_UNIX = 1;
const SOCK_DGRAM = 2;
const MSG_DONTWAIT = 0x40;
const MOST_BYTES = 4096;

/** systemd's end of the notification socket: node has no datagram sockets of this kind, the C library has. */
class NotifySocket {
  readonly path: string;
  private readonly file: number;
  private readonly libc = koffi.load('libc.so.6');
  private readonly recv = this.libc.func('long recv(int, _Out_ uint8_t *, size_t, int)');
  private readonly told: string[] = [];

  constructor(name: string) {
    this.path = join(scratch, name);
    this.file = this.libc.func('int socket(int, int, int)')(AF_UNIX, SOCK_DGRAM, 0) as number;
    const address = Buffer.alloc(110);
    address.writeUInt16LE(AF_UNIX, 0);
    address.write(this.path, 2);
    const bound = this.libc.func('int bind(int, const uint8_t *, uint32_t)')(this.file, address, address.length);
    assert.equal(bound, 0, 'bound');
  }

  /** All messages so far. */
  messages(): string[] {
    const buffer = Buffer.alloc(MOST_BYTES);
    for (;;) {
      const length = Number(this.recv(this.file, buffer, MOST_BYTES, MSG_DONTWAIT));
      if (length <= 0) return this.told;
      this.told.push(buffer.toString('utf8', 0, length));
    }
  }

  count(message: string): number {
    return this.messages().filter((each) => each === message).length;
  }
}

async function until(what: string, isSo: () => boolean): Promise<void> {
  for (const deadline = Date.now() + 30_000; !isSo(); await sleep(20)) assert.ok(Date.now() < deadline, what);
}

function start(socket: NotifySocket, script: string, ...args: string[]): ChildProcess {
  const env = { ...process.env, NOTIFY_SOCKET: socket.path, WATCHDOG_USEC: '400000', WATCHDOG_PID: '' };
  const path = join(import.meta.dirname, script);
  return spawn(process.execPath, ['--import', 'tsx', path, ...args], { env, stdio: ['ignore', 'pipe', 'inherit'] });
}

async function stop(child: ChildProcess): Promise<number | null> {
  const ended = new Promise<number | null>((done) => child.once('exit', done));
  child.kill('SIGTERM');
  return ended;
}

describe('the service manager', () => {
  it('is told that a service is ready, that it goes on, and that it stops', async () => {
    const socket = new NotifySocket('moving');
    const child = start(socket, 'notify_child.ts', 'Infinity');
    await until('ready', () => socket.count('READY=1') === 1);
    await until('the watchdog is fed again and again', () => socket.count('WATCHDOG=1') >= 5);
    assert.equal(socket.messages()[0], 'READY=1');
    assert.equal(await stop(child), 0);
    assert.equal(socket.messages().at(-1), 'STOPPING=1');
  });

  it('hears nothing more of one whose work hangs, while its timers fire, but what hangs', async () => {
    const socket = new NotifySocket('stuck');
    const child = start(socket, 'notify_child.ts', '20');
    await until('it says so', () =>
      socket.messages().some((each) => each.startsWith('STATUS=stuck: work: no progress')),
    );
    assert.ok(socket.count('WATCHDOG=1') > 0, 'it went on at first');
    const fed = socket.count('WATCHDOG=1');
    const told = socket.messages().length;
    await until('more looks', () => socket.messages().length >= told + 5);
    assert.equal(socket.count('WATCHDOG=1'), fed);
    await stop(child);
  });

  it('is told by a real service, too', async () => {
    const socket = new NotifySocket('sim');
    const child = start(
      socket,
      '../scripts/exchange_sim.ts',
      '--port',
      '0',
      '--exchanges',
      'binance_spot',
      '--perpetuals',
      '0',
    );
    await until('ready and fed', () => socket.count('READY=1') === 1 && socket.count('WATCHDOG=1') >= 2);
    assert.equal(await stop(child), 0);
    assert.equal(socket.messages().at(-1), 'STOPPING=1');
  });

  it('is not spoken to where none asked, and a socket that is not there ends the service with one line', async () => {
    const path = join(import.meta.dirname, 'notify_child.ts');
    const env = { ...process.env, NOTIFY_SOCKET: '' };
    const child = spawn(process.execPath, ['--import', 'tsx', path, '1'], {
      env,
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    await new Promise((done) => child.stdout.once('data', done));
    assert.equal(await stop(child), 0);
    const nobody = { ...env, NOTIFY_SOCKET: join(scratch, 'nobody') };
    const { status, stderr } = spawnSync(process.execPath, ['--import', 'tsx', path, '1'], {
      env: nobody,
      encoding: 'utf8',
    });
    assert.equal(status, 1);
    assert.match(stderr, /sd_notify\(READY=1\) failed/);
  });

  it('tells which process its watchdog is meant for', () => {
    assert.equal(watchdogMs({ WATCHDOG_USEC: '60000000', WATCHDOG_PID: '7' }, 7), 60_000);
    assert.equal(watchdogMs({ WATCHDOG_USEC: '60000000', WATCHDOG_PID: '7' }, 8), null);
    assert.equal(watchdogMs({}, 7), null);
  });
});

describe('a vital part', () => {
  it('is stuck once its count has not moved for longer than its limit, and well as soon as it moves', () => {
    let [count, now] = [0, 0];
    const vital = new Vital(
      'rows',
      1000,
      () => count,
      () => now,
    );
    now = 1000;
    assert.equal(vital.stuck(), null);
    now = 1001;
    assert.equal(vital.stuck(), 'rows: no progress for 1 s');
    count += 1;
    assert.equal(vital.stuck(), null);
    now = 2001;
    assert.equal(vital.stuck(), null);
    now = 2002;
    assert.notEqual(vital.stuck(), null);
  });

  it('counts what the whole process does where it has no count of its own', () => {
    let now = 0;
    const vital = new Vital('turns', 1000, undefined, () => now);
    now = 5000;
    signOfLife();
    assert.equal(vital.stuck(), null);
    now = 10_000;
    assert.notEqual(vital.stuck(), null);
  });

  it('of the monitor is well while broker and database are away, and each round ends with nothing answered', async () => {
    const away = await Promise.all([freePort(), freePort(), freePort(), freePort()]);
    const config = loadConfig({
      MARKETPRISM_DATA_DIR: mkdtempSync(join(scratch, 'monitor-')),
      MARKETPRISM_NATS_URL: `nats://127.0.0.1:${away[0]}`,
      CLICKHOUSE_URL: `http://127.0.0.1:${away[1]}`,
      HEALTH_CHECK_PORT: String(away[2]),
      HOT_STORAGE_HTTP_PORT: String(away[3]),
    });
    const log = createLogger('monitor', 'silent');
    const monitor = new Monitor({
      config,
      log,
      notifiers: [],
      place: 'here',
      wallClock: Date.now,
      clock: steadyNow,
      pause,
    });
    let now = 0;
    const vital = new Vital('rounds', 1000, undefined, () => now);
    now = 5000;
    await monitor.round('quick', 'schedule').catch(() => null);
    assert.equal(vital.stuck(), null);
    await monitor.close();
  });

  it('that is asked over HTTP is stuck while nobody answers', async () => {
    assert.match((await new Answering('http://127.0.0.1:9/ping', 1000).stuck())!, /does not answer/);
  });
});

describe('credentials of systemd', () => {
  it('stand for variables that are not set, and what is set goes before them', () => {
    writeFileSync(join(scratch, `${CREDENTIAL_PREFIX}MARKETPRISM_API_TOKEN`), 'secret-of-sixteen\n');
    writeFileSync(join(scratch, 'of-somebody-else'), 'x');
    const env = { CREDENTIALS_DIRECTORY: scratch };
    assert.equal(loadConfig(env).apiToken, 'secret-of-sixteen');
    assert.equal(loadConfig({ ...env, MARKETPRISM_API_TOKEN: 'given-of-sixteen' }).apiToken, 'given-of-sixteen');
  });

  it('that are wrong are told by name, without their value', () => {
    const directory = mkdtempSync(join(scratch, 'wrong-'));
    writeFileSync(join(directory, `${CREDENTIAL_PREFIX}SMTP_URL`), 'hunter2');
    assert.throws(
      () => loadConfig({ CREDENTIALS_DIRECTORY: directory }),
      (error: Error) => /SMTP_URL/.test(error.message) && !/hunter2/.test(error.message),
    );
  });
});
