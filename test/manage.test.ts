/** manage.ts: what it reads of systems, services and logs, and what it makes of them. */
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import {
  appendFileSync,
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { createServer as createHttpServer } from 'node:http';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { OperatorError, UsageError } from '../scripts/lib/cli.ts';
import { freePort } from '../scripts/lib/free_port.ts';
import { lockHolder, takeLock } from '../scripts/lib/lock.ts';
import { clean } from '../scripts/lib/manage/clean.ts';
import type { Command, ManageContext } from '../scripts/lib/manage/command.ts';
import { COMMANDS } from '../scripts/lib/manage/commands.ts';
import { judgeOffset } from '../scripts/lib/manage/diagnose/clock.ts';
import { settingsOf } from '../scripts/lib/manage/diagnose/configuration.ts';
import { memoryFinding } from '../scripts/lib/manage/diagnose/limits.ts';
import { judgeEnvironmentFile } from '../scripts/lib/manage/diagnose/permissions.ts';
import { judgeUnit } from '../scripts/lib/manage/diagnose/units.ts';
import { nodeFinding } from '../scripts/lib/manage/diagnose/versions.ts';
import { holderPid } from '../scripts/lib/manage/locks.ts';
import { follow, lastLines, lastWord } from '../scripts/lib/manage/log_files.ts';
import { isAtLeast, merged, pretty, readLine } from '../scripts/lib/manage/log_lines.ts';
import { namesFor } from '../scripts/lib/manage/names.ts';
import { type ServiceNow, worstOf } from '../scripts/lib/manage/services_now.ts';
import { findSet } from '../scripts/lib/manage/set.ts';
import { bytesOf, fitted, spanOf } from '../scripts/lib/manage/status_view.ts';
import { environmentFrom, nameOf, Systemd, unitOf, unitsFrom, wordsOf } from '../scripts/lib/manage/systemd.ts';
import { isUp } from '../scripts/lib/manage/until_up.ts';
import { waitFor } from '../scripts/lib/processes.ts';
import {
  CpuMeter,
  environmentOf,
  listenersFrom,
  listenersOn,
  type ProcessNow,
  readProcesses,
  secondsSinceBoot,
  statFigures,
  treeOf,
} from '../scripts/lib/procfs.ts';
import { TARGET } from '../scripts/lib/systemd/units.ts';
import { READY_MS } from './pipeline.ts';

const SCRIPT = join(import.meta.dirname, '..', 'scripts', 'manage.ts');
const directory = mkdtempSync(join(tmpdir(), 'marketprism-manage-'));
after(() => rmSync(directory, { recursive: true, force: true }));

/** A new directory of its own. */
function place(name: string): string {
  const path = join(directory, name);
  mkdirSync(path, { recursive: true });
  return path;
}

const NOBODY = new Systemd(async () => ({ code: 1, stdout: '', stderr: '' }), false);

/** A command as manage.ts runs it, with what it prints. */
async function run(command: Command, argv: string[], env: NodeJS.ProcessEnv, more: Partial<ManageContext> = {}) {
  const told = { out: '', err: '' };
  const into = (name: 'out' | 'err') => ({ write: (text: string) => (told[name] += text) });
  const context = { env, systemd: NOBODY, stop: new AbortController().signal, out: into('out'), err: into('err') };
  const code = await command.run(argv, { ...context, ...more });
  return { code, ...told };
}

const command = (name: string): Command => COMMANDS.find((each) => each.name === name)!;

describe('manage.ts', () => {
  test('tells its commands, takes one of them, and says in one line what is wrong', () => {
    const manage = (...args: string[]) =>
      spawnSync(process.execPath, ['--import', 'tsx', SCRIPT, ...args], { encoding: 'utf8' });
    const help = manage('--help');
    assert.equal(help.status, 0);
    for (const { name, what } of COMMANDS)
      assert.match(help.stdout, new RegExp(`^ {2}${name} +${what.slice(0, 20)}`, 'm'));
    const [none, old] = [manage(), manage('--init')];
    assert.deepEqual([none.status, none.stdout, old.status, old.stdout], [64, '', 64, '']);
    assert.match(none.stderr, /^a COMMAND is needed: init, start, .*\n$/);
    assert.match(old.stderr, /^there is no command "--init": init, start, .*\n$/);
    const own = manage('logs', '--help');
    assert.equal(own.status, 0);
    assert.match(own.stdout, /^manage\.ts logs: .*\n\nUsage: {3}npx tsx scripts\/manage\.ts logs NAME/);
  });

  test('has a help for each command, and refuses flags and names that a command does not have', async () => {
    for (const { name, what, takes } of COMMANDS) assert.ok(name && what && takes !== undefined);
    const wrong: [string, string[]][] = [
      ['status', ['--init']],
      ['status', ['status']],
      ['status', ['--write']],
      ['status', ['--every', '10ms']],
      ['health', ['store']],
      ['init', ['--json']],
      ['logs', []],
      ['logs', ['store', 'web']],
      ['logs', ['nothing']],
      ['logs', ['store', '--level', 'loud']],
      ['clean', ['--data', '--live-data']],
      ['stop', ['store']],
      ['stop', ['--', '--demo']],
      ['start', ['store']],
      ['restart', ['store']],
      ['restart', ['store', '--', '--demo']],
    ];
    const env = { MARKETPRISM_DATA_DIR: place('wrong') };
    for (const [name, argv] of wrong)
      await assert.rejects(run(command(name), argv, env), UsageError, `${name} ${argv}`);
  });
});

describe('/proc', () => {
  test('tells figures of a process whose name has blanks and brackets', () => {
    const members = [
      'S',
      '7',
      ...Array.from({ length: 9 }, () => '0'),
      '250',
      '150',
      ...Array.from({ length: 6 }, () => '0'),
      '12345',
    ];
    assert.deepEqual(statFigures(`42 (a) (b c)) ${members.join(' ')} 0 0`), {
      parent: 7,
      cpuSeconds: 4,
      startedAt: 123.45,
    });
  });

  test('tells of this process what it knows itself', () => {
    const own = readProcesses().get(process.pid)!;
    assert.equal(own.parent, process.ppid);
    assert.equal(own.argv[0], process.argv0);
    assert.ok(Math.abs(secondsSinceBoot() - own.startedAt - process.uptime()) < 5);
    assert.ok(own.residentBytes > 20 * 2 ** 20 && own.cpuSeconds > 0);
    assert.equal(environmentOf(process.pid).PATH, process.env.PATH);
  });

  test('finds what a process has started, and what that has', () => {
    const process = (pid: number, parent: number): ProcessNow => ({
      ...{ pid, parent, argv: [], startedAt: 0, cpuSeconds: 0, residentBytes: 0 },
    });
    const all = new Map(
      [process(1, 0), process(2, 1), process(3, 2), process(4, 1), process(5, 9)].map((each) => [each.pid, each]),
    );
    assert.deepEqual(
      treeOf(all, 2).map(({ pid }) => pid),
      [2, 3],
    );
    assert.deepEqual(
      treeOf(all, 1).map(({ pid }) => pid),
      [1, 2, 3, 4],
    );
    assert.deepEqual(treeOf(all, 8), []);
  });

  test('tells CPU between two looks, of the same process only', () => {
    const meter = new CpuMeter();
    const at = (cpuSeconds: number, startedAt = 5): ProcessNow[] => [
      { pid: 9, parent: 1, argv: [], startedAt, cpuSeconds, residentBytes: 0 },
    ];
    assert.equal(meter.percent(100, at(10)), null);
    assert.equal(meter.percent(102, at(11)), 50);
    assert.equal(meter.percent(104, at(0.5, 103)), null, 'another process with the same id');
    assert.equal(meter.percent(105, []), null);
  });

  test('tells who listens', async () => {
    const text = [
      '  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode',
      '   0: 0100007F:1F98 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 777 1 0000',
      '   1: 0100007F:1F98 0100007F:9C40 01 00000000:00000000 00:00000000 00000000     0        0 888 1 0000',
    ].join('\n');
    assert.deepEqual([...listenersFrom(text)], [[8088, ['777']]]);
    const [port, free] = [await freePort(), await freePort()];
    const server = createServer().listen(port, '127.0.0.1');
    await new Promise((done) => server.once('listening', done));
    assert.deepEqual([...listenersOn([port, free])], [[port, [process.pid]]]);
    server.close();
  });
});

describe('a lock', () => {
  test('tells its holder to who asks, and is not taken by that', async () => {
    const data = place('lock');
    assert.equal(await lockHolder(data, 'store'), null);
    assert.equal(await lockHolder(join(data, 'not there'), 'store'), null);
    const lock = await takeLock(data, 'store');
    const holder = await lockHolder(data, 'store');
    assert.equal(holder?.pid, process.pid);
    assert.ok(Date.parse(holder.since!) <= Date.now());
    assert.equal(await lockHolder(data, 'replicate'), null);
    await lock.release();
    assert.equal(await lockHolder(data, 'store'), null);
  });

  test('whose holder is stopped is told as held, by one who does not answer', async () => {
    const data = place('stopped');
    const code = `import { takeLock } from ${JSON.stringify(join(import.meta.dirname, '..', 'scripts', 'lib', 'lock.ts'))};
      await takeLock(${JSON.stringify(data)}, 'store'); process.stdout.write('held'); setInterval(() => {}, 1000);`;
    const child = spawn(process.execPath, ['--import', 'tsx', '--input-type=module', '-e', code], {
      cwd: join(import.meta.dirname, '..'),
    });
    try {
      await new Promise((done) => child.stdout.once('data', done));
      assert.equal((await lockHolder(data, 'store'))?.pid, child.pid);
      child.kill('SIGSTOP');
      await waitFor('a stopped process', READY_MS, async () =>
        / T /.test(readFileSync(`/proc/${child.pid}/stat`, 'utf8')),
      );
      assert.deepEqual(await lockHolder(data, 'store'), { pid: null, since: null });
      assert.equal(await holderPid(data, 'store'), child.pid, 'the kernel knows who it is');
      child.kill('SIGCONT');
      const answers = async () => (await lockHolder(data, 'store'))?.pid === child.pid;
      await waitFor('an answer', READY_MS, answers);
      assert.equal(child.exitCode, null, 'that somebody did not wait for its answer does not end it');
    } finally {
      child.kill('SIGKILL');
    }
  });
});

const SHOWN = `Id=marketprism.target
LoadState=loaded
ActiveState=active
SubState=active
UnitFileState=enabled
NeedDaemonReload=no
Wants=marketprism-store.service marketprism-collector@okx_spot.service marketprism-exchange-sim.service marketprism-anchor-data-collector.service

Id=marketprism-store.service
LoadState=loaded
ActiveState=failed
SubState=failed
Result=start-limit-hit
MainPID=0
NRestarts=5
ConditionResult=yes
UnitFileState=enabled
NeedDaemonReload=yes
Environment=MARKETPRISM_DATA_DIR={DATA} HOT_STORAGE_HTTP_PORT=1 TMPDIR=/nowhere "MARKETPRISM_SYMBOLS=BTC-USDT, ETH-USDT"
EnvironmentFiles={FILE} (ignore_errors=no)
LoadCredential=marketprism:{DATA}/secrets

Id=marketprism-collector@okx_spot.service
LoadState=loaded
ActiveState=active
SubState=running
Result=success
MainPID=77
NRestarts=2
ConditionResult=yes
Environment=HEALTH_CHECK_PORT=1
EnvironmentFiles={FILE}.okx (ignore_errors=yes)

Id=marketprism-exchange-sim.service
LoadState=loaded
ActiveState=inactive
SubState=dead
Result=success
MainPID=0
NRestarts=0
ConditionResult=no

Id=marketprism-anchor-data-collector.service
LoadState=loaded
ActiveState=inactive
SubState=dead
Result=exec-condition
MainPID=0
NRestarts=0
ConditionResult=yes

Id=marketprism-web.service
LoadState=not-found
ActiveState=inactive
`;

/** A systemctl that notes what it is told, and says what stands in a file. */
function fakeSystemd(name: string, shown: string, answer = '') {
  const home = place(name);
  const [program, log, said] = [join(home, 'systemctl'), join(home, 'log'), join(home, 'shown')];
  writeFileSync(log, '');
  writeFileSync(said, shown);
  const orders = `case " $* " in *" show "*) cat '${said}';; *" list-units "*) echo 'marketprism-collector@okx_spot.service loaded active running x';;`;
  writeFileSync(program, `#!/bin/sh\necho "$*" >> '${log}'\n${orders} *) ${answer || ':'};; esac\n`);
  chmodSync(program, 0o755);
  const systemd = new Systemd(async (_, args) => {
    const { status, stdout, stderr } = spawnSync(program, args, { encoding: 'utf8' });
    return { code: status, stdout, stderr };
  }, true);
  const told = () =>
    readFileSync(log, 'utf8')
      .trim()
      .split('\n')
      .filter((line) => !/ (show|list-units) /.test(` ${line} `));
  return { systemd, told, tell: (text: string) => writeFileSync(said, text) };
}

describe('systemd', () => {
  test('has units, of which those that are not installed are left out', async () => {
    const { systemd } = fakeSystemd('units', SHOWN);
    const units = await systemd.units();
    assert.deepEqual(
      units.map(({ id, active, pid, restarts, isUnneeded }) => [id, active, pid, restarts, isUnneeded]),
      [
        ['marketprism.target', 'active', null, null, false],
        ['marketprism-store.service', 'failed', null, 5, false],
        ['marketprism-collector@okx_spot.service', 'active', 77, 2, false],
        ['marketprism-exchange-sim.service', 'inactive', null, 0, true],
        ['marketprism-anchor-data-collector.service', 'inactive', null, 0, true],
      ],
    );
    assert.deepEqual(units[0]!.wants.length, 4);
    assert.equal(units[1]!.environment.MARKETPRISM_SYMBOLS, 'BTC-USDT, ETH-USDT');
    assert.deepEqual(await NOBODY.units(), [], 'systemd that does not run is not asked');
  });

  test('names units and services alike', () => {
    for (const name of ['nats-server', 'clickhouse_embedded', 'sar_slope_collector', 'collector@okx_spot'])
      assert.equal(nameOf(unitOf(name)), name);
    assert.equal(unitOf('clickhouse_embedded'), 'marketprism-clickhouse.service');
    assert.equal(nameOf('ssh.service'), null);
    const known = ['nats-server', 'store', 'clickhouse_embedded'];
    assert.deepEqual(namesFor(['nats', 'store.ts', 'marketprism-clickhouse.service', 'store'], known), [
      'nats-server',
      'store',
      'clickhouse_embedded',
    ]);
    assert.throws(
      () => namesFor(['web'], known),
      /^UsageError: there is no service "web" here; there are: nats-server, store/,
    );
  });

  test('tells an environment in words and in files', () => {
    assert.deepEqual(wordsOf('A=1 "B=two \\"words\\"" C='), ['A=1', 'B=two "words"', 'C=']);
    const text =
      '# no\n; no\nA=1\n B = x\nPASSWORD=ab#c d\nQ="two \\"w\\" \\$x"\nS=\'it is "so"\'\nLONG=one,\\\ntwo\nnothing\n';
    assert.deepEqual(environmentFrom(text), {
      ...{ A: '1', PASSWORD: 'ab#c d', Q: 'two "w" $x', S: 'it is "so"', LONG: 'one,two' },
    });
  });

  test('has the set of services with the environment of their units, unless the shell names another one', async () => {
    const data = place('set');
    const file = join(data, 'marketprism.env');
    writeFileSync(file, 'HOT_STORAGE_HTTP_PORT=1234\nMARKETPRISM_API_TOKEN=0123456789abcdef\n');
    writeFileSync(`${file}.okx`, 'HEALTH_CHECK_PORT=9911\n');
    mkdirSync(join(data, 'secrets'));
    writeFileSync(join(data, 'secrets', 'CLICKHOUSE_PASSWORD'), 'kept apart\n');
    writeFileSync(join(data, 'secrets', 'MARKETPRISM_API_TOKEN'), 'the environment has the last word');
    const { systemd } = fakeSystemd('set', SHOWN.replaceAll('{DATA}', data).replaceAll('{FILE}', file));
    const set = await findSet({ HOT_STORAGE_HTTP_PORT: '99' }, systemd);
    assert.equal(set.supervisor, 'systemd');
    assert.deepEqual([set.config.storePort, set.config.dataDir, set.config.apiToken], [1234, data, '0123456789abcdef']);
    assert.deepEqual(
      set.expected.map(({ name }) => name),
      ['nats-server', 'clickhouse_embedded', 'store', 'collector@okx_spot'],
    );
    assert.equal(set.expected[3]!.port!(set.config), 9911, 'one of several collectors has a port of its own');
    assert.equal(set.config.healthPort, 8087, 'which is not that of the others');
    assert.deepEqual([set.config.clickhousePassword, set.env.TMPDIR], ['kept apart', undefined]);
    assert.equal((await findSet({ MARKETPRISM_DATA_DIR: place('other') }, systemd)).supervisor, 'none');
    assert.equal((await findSet({ MARKETPRISM_MODE: 'demo', MARKETPRISM_DATA_DIR: data }, systemd)).supervisor, 'none');
    assert.equal(
      (await findSet({ MARKETPRISM_MODE: 'live', MARKETPRISM_DATA_DIR: data }, systemd)).supervisor,
      'systemd',
    );
  });

  test('is ordered to start, stop and restart what is named, and the target without a name', async () => {
    const data = place('orders');
    const shown = SHOWN.replaceAll('{DATA}', data).replaceAll('{FILE}', join(data, 'none.env'));
    const fake = fakeSystemd('orders', shown);
    // What starts is not waited for: these units are none.
    const stop = AbortSignal.abort();
    const order = (name: string, argv: string[]) => run(command(name), argv, {}, { systemd: fake.systemd, stop });
    await order('start', []);
    await order('start', ['store']);
    await order('restart', []);
    await order('restart', ['store', 'collector@okx_spot']);
    assert.equal((await order('stop', ['collector@okx_spot'])).code, 1, 'the fake one goes on running');
    assert.deepEqual(fake.told(), [
      '--no-ask-password start marketprism.target',
      '--no-ask-password start marketprism-store.service',
      '--no-ask-password restart marketprism.target',
      '--no-ask-password restart marketprism-store.service marketprism-collector@okx_spot.service',
      '--no-ask-password stop marketprism-collector@okx_spot.service',
    ]);
    await assert.rejects(order('start', ['web']), UsageError);
    await assert.rejects(order('start', ['--', '--demo']), UsageError);
  });

  test('is left alone where it runs or rests already', async () => {
    const data = place('idle');
    const active = SHOWN.replaceAll('{DATA}', data)
      .replaceAll('{FILE}', join(data, 'none.env'))
      .replace('ActiveState=failed', 'ActiveState=active');
    const fake = fakeSystemd('idle', active.replace(/ marketprism-exchange-sim\.service/, ''));
    const running = await run(command('start'), [], {}, { systemd: fake.systemd });
    assert.deepEqual(
      [running.code, running.out],
      [0, 'marketprism.target: active already (manage.ts status tells how it is)\n'],
    );
    fake.tell(active.replaceAll('ActiveState=active', 'ActiveState=inactive'));
    const resting = await run(command('stop'), [], {}, { systemd: fake.systemd });
    assert.deepEqual([resting.code, resting.out], [0, 'marketprism.target: not active\n']);
    assert.deepEqual(fake.told(), []);
  });

  test('that wants root is told in one line with the command for root', async () => {
    const data = place('root');
    const refusal = "echo 'Failed to start marketprism.target: Interactive authentication required.' >&2; exit 1";
    const { systemd } = fakeSystemd(
      'root',
      SHOWN.replaceAll('{DATA}', data).replaceAll('{FILE}', join(data, 'none.env')),
      refusal,
    );
    await assert.rejects(run(command('start'), [], {}, { systemd }), (error: unknown) => {
      assert.ok(error instanceof OperatorError);
      assert.equal(
        error.message,
        'systemctl start marketprism.target needs root: sudo systemctl start marketprism.target',
      );
      return error.exitCode === 1;
    });
  });
});

describe('logs', () => {
  const INFO = '{"level":"info","time":"2026-11-30T10:00:02.000Z","service":"store","event":"started","health":8085}';
  const WARN = '{"level":"warn","time":"2026-11-30T10:00:01.000Z","service":"web","event":"late","msg":"by far"}';
  const NATS = '[7] 2026/11/30 10:00:03.123456 [ERR] no space';

  test('have lines of several kinds, and one that names no level is never left out', () => {
    assert.deepEqual(
      [INFO, WARN, NATS, 'Error: x', '{"torn'].map((text) => readLine(text).level),
      ['info', 'warn', 'error', null, null],
    );
    assert.deepEqual(
      [INFO, WARN, NATS, 'Error: x', '{"torn'].map((text) => isAtLeast(readLine(text), 'warn')),
      [false, true, true, true, true],
    );
    assert.equal(pretty(readLine(WARN), 'web'), '2026-11-30T10:00:01.000Z  warn   web: late: by far');
    assert.equal(pretty(readLine(INFO), 'store'), '2026-11-30T10:00:02.000Z  info   store: started health=8085');
    assert.match(pretty(readLine('Error: x'), 'store'), /^ {33}store: Error: x$/);
    assert.equal(readLine(NATS).time, new Date(2026, 10, 30, 10, 0, 3, 123).getTime());
  });

  test('of several services come in the order of their times, and what has none stays behind what it belongs to', () => {
    const lines = merged([[INFO, '  at stack'].map(readLine), [WARN].map(readLine)]);
    assert.deepEqual(
      lines.map(({ text }) => text),
      [WARN, INFO, '  at stack'],
    );
  });

  test('are read from their end, over any number of steps, without a line that is not ended', () => {
    const path = join(place('tail'), 'store.log');
    const long = (i: number) => `${i} ${'é'.repeat((i * 7919) % 40_000)}`;
    const all = Array.from({ length: 40 }, (_, i) => long(i));
    writeFileSync(path, `${all.join('\n')}\nnot ended`);
    for (const count of [0, 1, 7, 40, 100])
      assert.deepEqual(lastLines(path, count).lines, count === 0 ? [] : all.slice(-count));
    assert.deepEqual(lastLines(path, 2, (line) => line.startsWith('1')).lines, [long(18), long(19)]);
    assert.equal(lastLines(path, 1).end, Buffer.byteLength(`${all.join('\n')}\n`));
    writeFileSync(path, 'not ended');
    assert.deepEqual(lastLines(path, 5).lines, []);
    assert.deepEqual(lastLines(join(directory, 'none'), 5), { lines: [], end: 0, inode: null });
  });

  test('end with a word: the last line, or what an error with a stack says', () => {
    const path = join(place('word'), 'x.log');
    const word = (text: string) => {
      writeFileSync(path, text);
      return lastWord(path);
    };
    assert.equal(word('a\nb\n'), 'b');
    assert.equal(word('old\nError: EACCES: no\n    at x (y.ts:1:2)\n'), 'Error: EACCES: no');
    assert.equal(
      word("TypeError [ERR_X]: no\n    at x {\n  code: 'ERR_X'\n}\n\nNode.js v20.20.2\n"),
      'TypeError [ERR_X]: no',
    );
    assert.equal(word(''), null);
  });

  test('are followed over rotations, each line once', async () => {
    const path = join(place('follow'), 'store.log');
    writeFileSync(path, 'old\nbegun');
    const stop = new AbortController();
    const told: string[] = [];
    const following = follow(path, lastLines(path, 1), (line) => told.push(line), stop.signal);
    const wanted: string[] = ['begun and ended'];
    appendFileSync(path, ' and ended\n');
    for (let turn = 0; turn < 3; turn++) {
      // Also what its writer appends to the renamed file, before it begins a new one.
      appendFileSync(path, `${turn} before\n`);
      renameSync(path, `${path}.${turn}`);
      appendFileSync(`${path}.${turn}`, `${turn} renamed\n`);
      writeFileSync(path, `${turn} new\n`);
      wanted.push(`${turn} before`, `${turn} renamed`, `${turn} new`);
      await waitFor('the lines', READY_MS, async () => told.length >= wanted.length);
    }
    // Shorter than what was read of it: it was cut off, and begins anew.
    writeFileSync(path, 'cut\n');
    wanted.push('cut');
    await waitFor('the line of the file that was cut off', READY_MS, async () => told.length >= wanted.length);
    stop.abort();
    await following;
    assert.deepEqual(told, wanted);
  });

  test('of files are told as they are, by level, and for people', async () => {
    const data = place('logs');
    mkdirSync(join(data, 'logs'));
    writeFileSync(join(data, 'logs', 'store.log'), `${INFO}\nError: x\n`);
    writeFileSync(join(data, 'logs', 'replicate.log'), `${WARN}\n`);
    const env = { MARKETPRISM_DATA_DIR: data };
    assert.deepEqual(await run(command('logs'), ['store'], env), { code: 0, out: `${INFO}\nError: x\n`, err: '' });
    assert.equal((await run(command('logs'), ['store', '-n', '1'], env)).out, 'Error: x\n');
    assert.equal((await run(command('logs'), ['all', '--level', 'warn'], env)).out, `Error: x\n${WARN}\n`);
    assert.match(
      (await run(command('logs'), ['all', '--pretty'], env)).out,
      /web: late: by far\n.*store: started.*\n +store: Error: x\n$/,
    );
    await assert.rejects(run(command('logs'), ['collector'], env), /^OperatorError: there is no log .*collector\.log/);
  });
});

describe('clean', () => {
  /** A data directory with what may go, what is data, and a demo's. */
  function world(name: string) {
    const data = place(name);
    const gone = spawnSync('true').pid;
    const litter = ['logs/store.log.1', 'logs/web.log-20261129.gz', `state/alerts.json.${gone}.tmp`];
    const kept = [
      'logs/store.log',
      'state/alerts.json',
      `state/alerts.json.${process.pid}.tmp`,
      'anchor/anchor.jsonl-20261129',
      'README.md',
    ];
    const engine = [`clickhouse/store/a.${gone}.tmp`];
    const demo = ['demo/state/x.json', 'demo/clickhouse/data'];
    for (const file of [...litter, ...kept, ...engine, ...demo]) {
      mkdirSync(join(data, file, '..'), { recursive: true });
      writeFileSync(join(data, file), 'x');
    }
    const there = (files: string[]) => files.filter((file) => existsSync(join(data, file)));
    return {
      data,
      env: { MARKETPRISM_DATA_DIR: data, MARKETPRISM_MODE: 'live' },
      litter,
      kept: [...kept, ...engine],
      demo,
      there,
    };
  }

  test('shows what may go, and deletes it with --yes only; never data', async () => {
    const { env, litter, kept, demo, there } = world('clean');
    const shown = await run(clean, [], env);
    assert.equal(shown.code, 0);
    for (const file of litter) assert.match(shown.out, new RegExp(file.replaceAll('.', '\\.')));
    assert.match(shown.out, /nothing was deleted \(--yes does it\)\n$/);
    assert.deepEqual(there(litter), litter);
    const done = await run(clean, ['--yes'], env);
    assert.match(done.out, /deleted: 12\.0 KiB\n$/);
    assert.deepEqual([there(litter), there(kept), there(demo)], [[], kept, demo]);
    assert.match((await run(clean, [], env)).out, /^there is nothing to delete\n$/);
  });

  test('deletes the data of a demo that does not run, and of nothing else', async () => {
    const { data, env, litter, kept, demo, there } = world('clean-demo');
    const lock = await takeLock(join(data, 'demo'), 'store MARKET_DATA');
    await assert.rejects(
      run(clean, ['--data', '--yes'], env),
      /^OperatorError: nothing was deleted: .*store MARKET_DATA \(pid \d+\); manage\.ts stop first/,
    );
    await lock.release();
    assert.match((await run(clean, ['--data'], env)).out, /nothing was deleted/);
    assert.deepEqual(there(demo), demo);
    assert.equal((await run(clean, ['--data', '--yes'], env)).code, 0);
    assert.deepEqual([there(demo), there([...kept, ...litter])], [[], [...kept, ...litter]]);
  });

  test('deletes live data only when it is named with --yes, and nothing runs, no demo either', async () => {
    const { data, env, kept, demo, there } = world('clean-live');
    assert.match((await run(clean, ['--live-data'], env)).out, /nothing was deleted/);
    for (const [at, name] of [
      [data, 'collector x'],
      [join(data, 'clickhouse'), 'clickhouse_embedded'],
      [join(data, 'demo'), 'npm start'],
    ] as const) {
      writeFileSync(join(data, 'state', 'collector-x.json'), '{}');
      const lock = await takeLock(at, name);
      await assert.rejects(run(clean, ['--live-data', '--yes'], env), OperatorError, name);
      await lock.release();
    }
    assert.deepEqual(there(kept), kept);
    assert.equal((await run(clean, ['--live-data', '--yes'], env)).code, 0);
    assert.deepEqual(readdirSync(data).sort(), ['README.md', 'demo']);
    assert.deepEqual(there(demo), demo);
  });

  test('refuses while a process uses the directory without a lock', async () => {
    const { data, env, kept, there } = world('clean-used');
    const child = spawn('tail', ['-f', join(data, 'logs', 'store.log')]);
    try {
      await waitFor('the process', READY_MS, async () => readProcesses().get(child.pid!)?.argv[0] === 'tail');
      await assert.rejects(run(clean, ['--live-data', '--yes'], env), /tail \(pid \d+\)/);
      assert.deepEqual(there(kept), kept);
    } finally {
      child.kill();
    }
  });
});

describe('a diagnosis', () => {
  test('judges a clock only as far as the way to the venue lets it', () => {
    const judged = (offset: number, roundTrip: number) =>
      judgeOffset('okx_spot', 1000, 1000 + roundTrip / 2 - offset, 1000 + roundTrip).severity;
    assert.deepEqual(
      [judged(0, 40), judged(900, 40), judged(-1100, 40), judged(1100, 400), judged(31_000, 40)],
      ['ok', 'ok', 'warning', 'ok', 'error'],
    );
    assert.equal(judged(0, 3000), 'unchecked', 'too slow an answer shows nothing');
    assert.equal(judgeOffset('okx_spot', 1000, 500, 1040).what, 'our clock is 520 ± 20 ms ahead');
  });

  test('calls a file of variables that all may read an error when a secret stands in it, and shows none', () => {
    const file = join(place('env'), 'marketprism.env');
    writeFileSync(file, 'OKX_API_SECRET=hidden-value\nLOG_LEVEL=info\n');
    chmodSync(file, 0o644);
    const open = judgeEnvironmentFile(file);
    assert.equal(open.severity, 'error');
    assert.match(open.what, /OKX_API_SECRET/);
    assert.doesNotMatch(JSON.stringify(open), /hidden-value/);
    chmodSync(file, 0o640);
    assert.equal(judgeEnvironmentFile(file).severity, 'ok');
    writeFileSync(file, 'OKX_API_SECRET=\nLOG_LEVEL=info\n');
    chmodSync(file, 0o644);
    assert.equal(judgeEnvironmentFile(file).severity, 'ok');
  });

  test('tells which settings differ from the defaults, and which of ours change nothing', () => {
    const env = {
      MARKETPRISM_SYMBOLS: 'BTC-USDT',
      MARKETPRISM_LANG: 'en',
      MARKETPRISM_SYMBOL: 'X',
      WEB_HTTP_PORT: '5001',
      HOME: '/root',
      MARKETPRISM_API_TOKEN: '',
    };
    assert.deepEqual(settingsOf(env), {
      changed: ['MARKETPRISM_SYMBOLS', 'WEB_HTTP_PORT'],
      idle: ['MARKETPRISM_LANG', 'MARKETPRISM_SYMBOL'],
    });
    const pair = { SMTP_URL: 'smtp://x', ALERT_EMAIL_TO: 'a@b' };
    assert.deepEqual(settingsOf(pair).changed, ['ALERT_EMAIL_TO', 'SMTP_URL'], 'those that only come together');
  });

  test('tells a wrong variable as a finding, and nothing else', async () => {
    const { code, out } = await run(command('diagnose'), ['--json'], {
      WEB_HTTP_PORT: 'x',
      MARKETPRISM_DATA_DIR: place('bad'),
    });
    const { status, findings } = JSON.parse(out);
    assert.deepEqual([code, status, findings.length], [2, 'unhealthy', 1]);
    assert.match(findings[0].what, /^WEB_HTTP_PORT: /);
  });

  test('finds a stranger on a port of ours, and who it is', async () => {
    const port = await freePort();
    const server = createServer().listen(port, '127.0.0.1');
    await new Promise((done) => server.once('listening', done));
    const env = {
      MARKETPRISM_DATA_DIR: place('stranger'),
      MARKETPRISM_MODE: 'demo',
      MONITOR_HTTP_PORT: String(port),
      CLICKHOUSE_URL: `http://127.0.0.1:${await freePort()}`,
      MARKETPRISM_API_TOKEN: 'a-token-that-nobody-shows',
    };
    const { code, out } = await run(command('diagnose'), ['--json'], env);
    server.close();
    const { findings } = JSON.parse(out) as {
      findings: { area: string; severity: string; subject: string; what: string; remedy: string }[];
    };
    const found = findings.find(({ subject }) => subject === `${port} monitor`)!;
    assert.deepEqual([code, found.severity], [2, 'error']);
    assert.match(found.what, new RegExp(`^a stranger listens: pid ${process.pid} \\(`));
    assert.match(found.remedy, /^kill \d+ {2}# or set another port: MONITOR_HTTP_PORT$/);
    assert.ok(
      findings
        .filter(({ severity }) => severity !== 'ok' && severity !== 'hint')
        .every(({ remedy, severity }) => remedy !== null || severity === 'unchecked'),
    );
    assert.match(out, /MARKETPRISM_API_TOKEN=\(set\)/);
    assert.doesNotMatch(out, /a-token-that-nobody-shows/);
    const areas = ['ports', 'locks', 'disk', 'versions', 'clock', 'permissions', 'configuration', 'limits', 'systemd'];
    assert.deepEqual([...new Set(findings.map(({ area }) => area))], areas);
  });

  test('knows failed units, versions and memory', () => {
    const [target, store, collector] = unitsFrom(SHOWN);
    assert.deepEqual(
      judgeUnit({ ...target!, atBoot: 'disabled' }).map(({ severity }) => severity),
      ['warning'],
    );
    const [failed, outdated] = judgeUnit(store!);
    assert.match(failed!.what, /^failed \(start-limit-hit\): it was started too often/);
    assert.match(
      failed!.remedy!,
      /^sudo systemctl reset-failed marketprism-store\.service && sudo systemctl start marketprism-store\.service/,
    );
    assert.equal(outdated!.remedy, 'sudo systemctl daemon-reload');
    assert.deepEqual(
      judgeUnit(collector!).map(({ severity }) => severity),
      ['hint'],
    );
    assert.deepEqual(
      ['20.18.0', '20.18.1', '21.0.0', '18.20.0'].map((version) => nodeFinding(version).severity),
      ['error', 'ok', 'ok', 'error'],
    );
    const memory = (kib: number) =>
      memoryFinding(`MemTotal: 4000000 kB\nMemAvailable: ${kib} kB\nSwapTotal: 0 kB\n`).severity;
    assert.deepEqual([memory(2_000_000), memory(400_000), memory(100_000)], ['ok', 'warning', 'error']);
    assert.equal(memoryFinding('').severity, 'unchecked');
    assert.ok(TARGET);
  });
});

describe('a status', () => {
  test('is as bad as the worst that is known, and what is not known is never well', () => {
    assert.equal(worstOf(['healthy', 'degraded']), 'degraded');
    assert.equal(worstOf(['healthy', 'degraded', 'unchecked']), 'unchecked');
    assert.equal(worstOf(['unchecked', 'unhealthy', 'healthy']), 'unhealthy');
    assert.equal(worstOf([]), 'unchecked', 'nothing was asked');
  });

  test('takes what answers on a service’s port, while that does not run, for none of the set', async () => {
    const port = await freePort();
    const server = createHttpServer((_, answer) => answer.end('{"status":"healthy","checks":{}}')).listen(
      port,
      '127.0.0.1',
    );
    await new Promise((done) => server.once('listening', done));
    const [nats, clickhouse] = [await freePort(), await freePort()];
    const env = {
      ...{ MARKETPRISM_DATA_DIR: place('other-set'), MARKETPRISM_MODE: 'live', HOT_STORAGE_HTTP_PORT: String(port) },
      ...{ MARKETPRISM_NATS_URL: `nats://127.0.0.1:${nats}`, CLICKHOUSE_URL: `http://127.0.0.1:${clickhouse}` },
    };
    const { code, out } = await run(command('health'), [], env);
    server.close();
    server.closeAllConnections();
    assert.equal(code, 2);
    assert.match(out, /^store +unhealthy +does not run; what answers on its port is none of this set/m);
  });

  test('fits a terminal, and says what it leaves out', () => {
    assert.deepEqual(fitted('abc\nd\ne', 2, 3), ['ab', 'd', 'e']);
    assert.deepEqual(fitted('a\nb\nc\nd', 80, 3), ['a', 'b', '… 2 more lines: --once shows all']);
    assert.deepEqual([spanOf(null), spanOf(61), spanOf(90_061)], ['–', '00:01:01', '1d 01:01:01']);
    assert.deepEqual([null, 0, 1023, 1024, 5 * 2 ** 30].map(bytesOf), ['–', '0 B', '1023 B', '1.0 KiB', '5.0 GiB']);
  });

  test('calls a service up when it answers, and one that cannot be asked when it has run for a while', () => {
    const service = (more: Partial<ServiceNow>): ServiceNow => ({
      ...{
        name: 'x',
        what: '',
        state: 'active',
        pid: 1,
        uptime_seconds: 1,
        restarts: 0,
        rss_bytes: 1,
        cpu_percent: null,
      },
      ...{ answers: null, health: 'healthy', reason: null },
      ...more,
    });
    assert.deepEqual(
      [
        { answers: true },
        { answers: false, uptime_seconds: 99 },
        {},
        { uptime_seconds: 3 },
        { pid: null, uptime_seconds: null },
      ].map((each) => isUp(service(each))),
      [true, false, false, true, false],
    );
  });
});
