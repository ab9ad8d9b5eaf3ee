/** manage.ts with a whole demo of its own: real services, real ports, a real terminal. */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { cpSync, existsSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import type { Severity } from '../scripts/lib/manage/diagnose/finding.ts';
import type { ServiceNow } from '../scripts/lib/manage/services_now.ts';
import { waitFor } from '../scripts/lib/processes.ts';
import { SERVICES } from '../scripts/lib/services.ts';
import { Pipeline, READY_MS } from './pipeline.ts';
import { processes, using } from './up_child.ts';

const SCRIPT = join(import.meta.dirname, '..', 'scripts', 'manage.ts');
const MANAGE = ['--import', 'tsx', SCRIPT];
/** All but those that need keys. */
const NAMES = SERVICES.filter(({ role }) => role !== 'keys').map(({ name }) => name);
const OPEN = '\x1b[?1049h';
const CLOSE = '\x1b[?1049l';

interface Told {
  status: string;
  exit_code: number;
  mode: string;
  supervisor: string;
  services: ServiceNow[];
  rates: { received_per_second: number | null; stored_per_second: number | null };
  backlog_messages: number | null;
  disk: { free_bytes: number } | null;
  streams: { rows: number }[] | null;
}

describe('manage.ts with a demo of npm start', () => {
  const dir = mkdtempSync(join(tmpdir(), 'marketprism-manage-'));
  const pipeline = new Pipeline();
  const began: ChildProcess[] = [];
  let env: NodeJS.ProcessEnv = {};
  let flags: string[] = [];

  before(async () => {
    await pipeline.choosePorts();
    const { ports } = pipeline;
    env = {
      PATH: process.env.PATH,
      MARKETPRISM_DATA_DIR: dir,
      HEALTH_CHECK_PORT: String(ports.health),
      METRICS_PORT: String(ports.metrics),
      HOT_STORAGE_HTTP_PORT: String(ports.store),
      COLD_STORAGE_HTTP_PORT: String(ports.replicate),
      MONITOR_HTTP_PORT: String(ports.monitor),
      WEB_HTTP_PORT: String(ports.web),
      MARKETPRISM_API_TOKEN: 'a-token-that-nobody-shows',
    };
    flags = ['--demo', '--nats-port', String(ports.nats), '--clickhouse-port', String(ports.clickhouse)];
  });
  after(async () => {
    const up = upPid();
    if (up !== undefined) process.kill(up, 'SIGKILL');
    for (const child of began) child.kill('SIGKILL');
    await waitFor('the end of all', READY_MS, async () => using(dir).length === 0);
    if (process.env.MARKETPRISM_TEST_LOGS)
      cpSync(join(dir, 'logs'), join(process.env.MARKETPRISM_TEST_LOGS, 'manage'), { recursive: true });
    rmSync(dir, { recursive: true, force: true });
    rmSync(pipeline.dir, { recursive: true, force: true });
  });

  /** Without what the services were told by flags: manage.ts finds that out. */
  function begin(...args: string[]) {
    const child = spawn(process.execPath, [...MANAGE, ...args], { env });
    began.push(child);
    const told = { out: '', err: '' };
    child.stdout.on('data', (piece: Buffer) => (told.out += piece.toString()));
    child.stderr.on('data', (piece: Buffer) => (told.err += piece.toString()));
    const ended = new Promise<number | null>((done) => child.once('close', done));
    return { child, told, ended };
  }
  async function manage(...args: string[]): Promise<{ code: number | null; out: string; err: string }> {
    const { told, ended } = begin(...args);
    return { code: await ended, ...told };
  }
  const status = async (): Promise<Told> => JSON.parse((await manage('status', '--json')).out) as Told;
  /** npm start that uses our ports. */
  function upPid(): number | undefined {
    const mine = processes().filter(
      ({ command }) => command.includes('scripts/up.ts') && command.includes(flags.join(' ')),
    );
    return mine[0]?.pid;
  }
  function children(): Map<string, number> {
    const up = upPid();
    const found = processes().filter(({ parent }) => parent === up);
    return new Map(
      NAMES.flatMap((name) => {
        const own = found.find(
          ({ command }) => new RegExp(`(/${name}\\.ts|/nats-server .*)( |$)`).test(command) && command.includes(name),
        );
        return own === undefined ? [] : [[name, own.pid]];
      }),
    );
  }

  test('start brings all services up, in the background, once', async () => {
    const { code, out, err } = await manage('start', '--', ...flags);
    assert.equal(code, 0, out + err);
    assert.match(
      out,
      new RegExp(`^npm start is pid ${upPid()}, its log ${dir}/logs/up\\.log\nall 15 services are up\n$`),
    );
    assert.equal(children().size, NAMES.length);
    const again = await manage('start');
    assert.deepEqual(
      [again.code, again.out],
      [0, `npm start runs already: pid ${upPid()}, demo (manage.ts status tells how it is)\n`],
    );
    const parent = processes().find(({ pid }) => pid === upPid())!.parent;
    assert.notEqual(parent, process.pid, 'it outlives who started it');
  });

  test('status tells what runs, with the ports and the mode that only the services were told', async () => {
    let told = await status();
    await waitFor('streams', READY_MS, async () => {
      told = await status();
      return (told.streams?.length ?? 0) > 0 && (told.rates.stored_per_second ?? 0) > 0;
    });
    assert.deepEqual([told.mode, told.supervisor], ['demo', 'npm start']);
    assert.deepEqual(
      told.services.map(({ name, pid, state, restarts }) => [name, pid, state, restarts]),
      [...children()].map(([name, pid]) => [name, pid, 'active', 0]),
    );
    assert.ok(
      told.services.every(
        ({ rss_bytes: rss, cpu_percent: cpu, uptime_seconds: up }) => rss! > 2 ** 20 && cpu! >= 0 && up! > 0,
      ),
    );
    assert.ok(told.rates.received_per_second! > 0 && told.backlog_messages !== null && told.disk!.free_bytes > 0);
    const once = await manage('status', '--once');
    assert.match(once.out, /^MarketPrism \S+ {2}demo {2}.* run by npm start /);
    assert.match(once.err, /^this is the demo that npm start runs here/);
    assert.ok([0, 1].includes(once.code!), 'signals need a while for their first rows');
  });

  test('health has a line per service, and names the one that hangs', async () => {
    const well = await manage('health');
    assert.deepEqual(
      well.out
        .trimEnd()
        .split('\n')
        .map((line) => line.split(/ +/)[0]),
      NAMES,
    );
    assert.match(well.out, /^store +healthy$/m);
    const store = children().get('store')!;
    process.kill(store, 'SIGSTOP');
    try {
      const { code, out } = await manage('health');
      assert.equal(code, 2);
      assert.match(out, /^store +unhealthy +port \d+ does not answer as a service: /m);
      const { findings } = JSON.parse((await manage('diagnose', '--json')).out) as {
        findings: { area: string; subject: string; what: string }[];
      };
      const lock = findings.find(({ area, subject }) => area === 'locks' && subject === 'store MARKET_DATA');
      assert.match(lock!.what, new RegExp(`^held by pid ${store}, which does not answer`));
    } finally {
      process.kill(store, 'SIGCONT');
    }
    await waitFor('a store that is well', READY_MS, async () => /^store +healthy$/m.test((await manage('health')).out));
  });

  test('restart of one service leaves the others as they are, and is counted', async () => {
    const before = children();
    const { code, out } = await manage('restart', 'collector');
    assert.deepEqual([code, out], [0, 'collector is up\n']);
    const now = children();
    assert.notEqual(now.get('collector'), before.get('collector'));
    const others = (all: Map<string, number>) => [...all].filter(([name]) => name !== 'collector');
    assert.deepEqual(others(now), others(before));
    const { services } = await status();
    assert.equal(services.find(({ name }) => name === 'collector')!.restarts, 1);
  });

  test('diagnose knows who listens and who holds what, and shows no secret', async () => {
    const { code, out } = await manage('diagnose', '--json');
    const { findings } = JSON.parse(out) as {
      findings: { area: string; severity: Severity; subject: string; what: string; remedy: string | null }[];
    };
    const ports = findings.filter(({ area }) => area === 'ports');
    assert.deepEqual(
      ports.filter(({ severity, what }) => severity !== 'ok' || !/^pid \d+ /.test(what)),
      [],
    );
    assert.equal(ports.length, 9);
    const locks = findings.filter(({ area }) => area === 'locks');
    assert.ok(locks.length >= 12 && locks.every(({ severity }) => severity === 'ok'));
    assert.doesNotMatch(out, /a-token-that-nobody-shows/);
    assert.match(out, /MARKETPRISM_API_TOKEN=\(set\)/);
    assert.ok(code === 0 || findings.some(({ severity }) => severity !== 'ok' && severity !== 'hint'));
  });

  test('logs are shown and followed until a signal, over a rotation', async () => {
    const last = await manage('logs', 'store', '-n', '1');
    assert.equal(JSON.parse(last.out).service, 'store');
    assert.match((await manage('logs', 'up', '-n', '1')).out, /received \d+/);
    const { child, told, ended } = begin('logs', 'web', '-f', '-n', '0');
    const path = join(dir, 'demo', 'logs', 'web.log');
    // What is told is at least the end of the one that is stopped, and the start of the next one.
    await manage('restart', 'web');
    await waitFor('lines', READY_MS, async () => /"event":"stopped"[\s\S]*"event":"started"/.test(told.out));
    renameSync(path, `${path}-20261130`);
    child.kill('SIGINT');
    assert.equal(await ended, 0);
    const lines = told.out.trimEnd().split('\n');
    assert.deepEqual(lines, readFileSync(`${path}-20261130`, 'utf8').trimEnd().split('\n').slice(-lines.length));
    renameSync(`${path}-20261130`, path);
  });

  test('status on a terminal is refreshed in place, and leaves it as it was at Ctrl-C', async () => {
    const typescript = join(dir, 'terminal');
    const line = `stty rows 24 cols 100; exec ${process.execPath} ${MANAGE.join(' ')} status`;
    const child = spawn('script', ['-qefc', line, typescript], {
      env: { ...env, TERM: 'xterm' },
      stdio: ['pipe', 'pipe', 'pipe'],
    });
    began.push(child);
    const ended = new Promise<number | null>((done) => child.once('close', done));
    const shown = () => (existsSync(typescript) ? readFileSync(typescript, 'utf8') : '');
    const looks = () => shown().split('\x1b[H').length - 1;
    await waitFor('three looks', READY_MS, async () => looks() >= 3);
    assert.equal(shown().split(OPEN).length, 2, 'one screen, refreshed');
    assert.doesNotMatch(shown(), new RegExp(CLOSE.replace(/[[?]/g, '\\$&')));
    // As the terminal sends it.
    child.stdin.write('\x03');
    const code = await ended;
    assert.ok([0, 1, 2].includes(code!), `it ended with the last look's exit code, not ${code}`);
    const text = shown();
    assert.ok(text.indexOf(CLOSE) > text.lastIndexOf('\x1b[H'), 'the first screen is back');
    const [, screen] = text.split('\x1b[H');
    assert.ok(screen!.split('\n').length <= 24);
    assert.match(screen!, /… \d+ more lines: --once shows all/);
  });

  test('integrity and repair are those scripts, in the set that runs', async () => {
    const { code, out } = await manage('integrity', '--quick', '--json');
    const last = JSON.parse(out.trimEnd().split('\n').at(-1)!) as { status: string; exit_code: number };
    assert.equal(code, last.exit_code);
    assert.notEqual(last.status, 'unchecked');
    assert.equal((await manage('repair', '--only', 'nothing')).code, 64);
    assert.deepEqual((await manage('repair', '--list')).out, 'no repairs\n');
  });

  test('clean refuses the data of a demo that runs', async () => {
    for (const which of ['--data', '--live-data']) {
      const { code, err } = await manage('clean', which, '--yes');
      assert.equal(code, 1);
      assert.match(err, /^(this is the demo.*\n)?nothing was deleted: .* is in use by .*manage\.ts stop first\n$/);
    }
    assert.ok(readdirSync(join(dir, 'demo')).length > 5);
  });

  test('restart of all begins anew with the flags that it had', async () => {
    const before = { up: upPid(), children: children() };
    const { code, out, err } = await manage('restart');
    assert.equal(code, 0, out + err);
    assert.notEqual(upPid(), before.up);
    assert.equal(children().size, NAMES.length);
    assert.ok([...children()].every(([name, pid]) => pid !== before.children.get(name)));
    assert.ok(existsSync(join(dir, 'logs', 'up.log.1')), 'what the one before said is kept');
  });

  test('stop ends all, and what does not run is stopped already', async () => {
    const mine = [upPid()!, ...children().values()];
    const { code, out, err } = await manage('stop');
    assert.deepEqual([code, out], [0, 'stopped\n'], err);
    assert.deepEqual(
      processes().filter(({ pid }) => mine.includes(pid)),
      [],
    );
    assert.deepEqual(using(dir), []);
    const again = await manage('stop');
    assert.deepEqual([again.code, again.out], [0, 'nothing runs here\n']);
    const health = await manage('health');
    assert.equal(health.code, 2);
    assert.match(health.out, /^store +unhealthy +does not run$/m);
  });

  test('start that cannot succeed says why in one line', async () => {
    const stranger = createServer().listen(pipeline.ports.web, '127.0.0.1');
    await new Promise((done) => stranger.once('listening', done));
    const { code, err } = await manage('start', '--', ...flags);
    await new Promise((done) => stranger.close(done));
    assert.equal(code, 1);
    assert.match(err, new RegExp(`(^|\n)npm start ended \\(1\\): port ${pipeline.ports.web} is in use: .*\n$`));
    const wrong = await manage('start', '--', '--nonsense');
    assert.equal(wrong.code, 1);
    assert.match(wrong.err, /npm start ended \(64\): .*--nonsense/);
  });

  test('start that is no longer waited for goes on, and is stopped from anywhere', async () => {
    const { child, ended, told } = begin('start', '--', ...flags, '--core');
    await waitFor('npm start', READY_MS, async () => children().has('nats-server'));
    child.kill('SIGINT');
    assert.equal(await ended, 1);
    assert.match(told.err, /no longer waited for/);
    assert.ok(upPid() !== undefined);
    assert.equal((await manage('stop')).code, 0);
    assert.deepEqual(using(dir), []);
  });

  test('clean deletes the demo’s data when asked for by name', async () => {
    assert.match((await manage('clean', '--data')).out, /nothing was deleted/);
    assert.ok(readdirSync(join(dir, 'demo')).length > 0);
    assert.equal((await manage('clean', '--data', '--yes')).code, 0);
    assert.deepEqual(readdirSync(join(dir, 'demo')), []);
    assert.ok(existsSync(join(dir, 'logs', 'up.log')));
  });
});
