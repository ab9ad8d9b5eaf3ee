/**
 * The services as systemd runs them, on a Debian that is booted for it: npm run test:systemd (as root; about seven minutes). Installed, started as a demo,
 * killed, stopped from within, rotated, rebooted, removed; and in the end the ledger of all that balances.
 */
import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { SERVICES } from '../scripts/lib/services.ts';
import { FAILED, PLACES, TARGET, unitOf } from '../scripts/lib/systemd/units.ts';
import { bootTrouble, Machine } from './machine.ts';

const CONTROL = 'http://127.0.0.1:9600';
const DATA = `${PLACES.data}/demo`;
const MIB = 1024;
/** DESIGN, section 9. */
const MOST_MEMORY_MIB = 1500;
const MOST_EXPOSURE = 1.5;
/** Of a unit: 60 s of watchdog, then a start. */
const WATCHDOG_LIMIT_MS = 120_000;

const running = SERVICES.filter(({ role }) => role !== 'keys');
const units = running.map(unitOf);
const unitNamed = (name: string) => unitOf(SERVICES.find((each) => each.name === name)!);

let machine: Machine;

interface UnitState {
  active: string;
  result: string;
  pid: number;
  restarts: number;
}

function stateOf(unit: string): UnitState {
  const text = machine.run('systemctl', 'show', '--property=ActiveState,Result,MainPID,NRestarts', unit);
  const value = (name: string) => new RegExp(`^${name}=(.*)$`, 'm').exec(text)?.[1] ?? '';
  return {
    active: value('ActiveState'),
    result: value('Result'),
    pid: Number(value('MainPID')),
    restarts: Number(value('NRestarts')),
  };
}

async function until(what: string, limitMs: number, isSo: () => boolean): Promise<void> {
  for (const deadline = Date.now() + limitMs; !isSo(); await sleep(500))
    assert.ok(Date.now() < deadline, `${what}: not within ${limitMs / 1000} s`);
}

const allActive = () => [...units, TARGET].every((unit) => stateOf(unit).active === 'active');

/** A question to the machine's database. */
function sql(query: string): string {
  const script = `process.stdout.write(await (await fetch('http://127.0.0.1:8123/', { method: 'POST', body: process.argv[1] })).text())`;
  return machine.run('node', '--input-type=module', '-e', script, query).trim();
}

const trades = () => Number(sql('SELECT count() FROM marketprism_demo_hot.trades'));

function manage(...args: string[]) {
  return machine.tried('node', '--import', 'tsx', `${PLACES.code}/scripts/manage.ts`, ...args);
}

/** KiB of the units' processes: what is theirs alone, and their share of what they share. */
function memoryKib(): Map<string, number> {
  return new Map(
    units.map((unit) => {
      const text = machine.run('cat', `/proc/${stateOf(unit).pid}/smaps_rollup`);
      return [unit, Number(/^Pss: +(\d+) kB/m.exec(text)![1])];
    }),
  );
}

/** Lines that the services wrote, by unit, since the machine was booted. */
function journal(): { unit: string; text: string }[] {
  const text = machine.run('journalctl', '-b', '-o', 'json', '-u', 'marketprism-*.service', '_TRANSPORT=stdout');
  return text
    .trim()
    .split('\n')
    .map((line) => {
      const { _SYSTEMD_UNIT: unit, MESSAGE: message } = JSON.parse(line) as { _SYSTEMD_UNIT: string; MESSAGE: string };
      return { unit, text: message };
    });
}

const trouble = bootTrouble();

describe('on a booted machine', { skip: trouble ?? false }, () => {
  before(async () => {
    machine = await Machine.boot(resolve(import.meta.dirname, '..'));
    machine.env = { MARKETPRISM_MODE: 'demo', MARKETPRISM_DATA_DIR: PLACES.data };
  });
  after(async () => {
    if (process.exitCode && machine)
      process.stderr.write(`${machine.tried('journalctl', '-b', '-p', '4', '-n', '50').stdout}\n`);
    await machine?.destroy();
  });

  it('a dry installation tells what it would do, and does nothing', () => {
    const told = machine.run('node', '--import', 'tsx', 'scripts/manage.ts', 'install', '--demo', '--dry-run');
    assert.match(told, /^would +user marketprism/m);
    assert.equal(machine.tried('id', 'marketprism').code, 1);
    assert.ok(!existsSync(machine.path(PLACES.config)));
  });

  it('the installation brings user, directories, units and rotation; a second one changes nothing', () => {
    const told = machine.run('npm', 'run', '--silent', 'install:systemd', '--', '--demo');
    assert.match(told, /nats-server\.service of Debian: disabled/);
    assert.match(told, /installed\. .*systemctl start marketprism\.target/);
    assert.equal(machine.run('stat', '-c', '%U %a', PLACES.data).trim(), 'marketprism 750');
    assert.equal(
      machine.run('stat', '-c', '%U %a', `${PLACES.config}/credentials/MARKETPRISM_API_TOKEN`).trim(),
      'root 600',
    );
    const again = machine.run('npm', 'run', '--silent', 'install:systemd');
    assert.deepEqual(
      again.split('\n').filter((line) => /^(done|would)/.test(line)),
      [],
    );
  });

  it('another version replaces the code, and leaves data and settings alone', () => {
    const kept = [`${PLACES.data}/mine.jsonl`, `${PLACES.config}/marketprism.env`];
    writeFileSync(machine.path(kept[0]!), '{"a":1}\n');
    writeFileSync(machine.path(kept[1]!), `${readFileSync(machine.path(kept[1]!), 'utf8')}MARKETPRISM_LANG=zh\n`);
    writeFileSync(machine.path(`${PLACES.code}/.installed`), 'an earlier version');
    writeFileSync(machine.path(`${PLACES.units}/marketprism-of-old.service`), '[Service]\nExecStart=/bin/true\n');
    const texts = () => kept.map((path) => readFileSync(machine.path(path), 'utf8'));
    const before = texts();
    const told = machine.run('npm', 'run', '--silent', 'install:systemd');
    assert.match(told, /^done +code in .*: replaced by another version$/m);
    assert.match(told, /^done +units of an earlier version: removed: marketprism-of-old\.service$/m);
    assert.deepEqual(texts(), before);
    assert.ok(!existsSync(machine.path(`${PLACES.units}/marketprism-of-old.service`)));
  });

  it('its units are shut in, and nothing is to be said against them', () => {
    for (const unit of [...SERVICES.map(unitOf), FAILED]) {
      const told = machine.run('systemd-analyze', 'security', '--no-pager', unit.replace('@', '@x'));
      const exposure = Number(/exposure level for \S+: ([\d.]+)/.exec(told)![1]);
      assert.ok(exposure <= MOST_EXPOSURE, `${unit}: ${exposure}`);
    }
    const files = readdirSync(machine.path(PLACES.units)).filter((name) =>
      /^marketprism.*(service|target)$/.test(name),
    );
    const { stdout, stderr } = machine.tried(
      'systemd-analyze',
      'verify',
      ...files.map((name) => `${PLACES.units}/${name}`),
    );
    assert.equal(`${stdout}${stderr}`, '');
  });

  it('the target starts every service, and rows flow into hot and cold', async () => {
    machine.run('systemctl', 'start', '--no-block', TARGET);
    await until('all are active', 180_000, allActive);
    const { active, result } = stateOf(unitNamed('anchor_data_collector'));
    assert.deepEqual([active, result], ['inactive', 'exec-condition'], 'without keys it is skipped');
    await until('trades come', 180_000, () => trades() > 0);
    const first = trades();
    await until('more of them', 60_000, () => trades() > first);
    await until('cold has some', 90_000, () => Number(sql('SELECT count() FROM marketprism_demo_cold.trades')) > 0);
    assert.equal(
      sql(`SELECT count() FROM system.databases WHERE name IN ('marketprism_hot', 'marketprism_cold')`),
      '0',
    );
  });

  it('no process runs beside those of the units', () => {
    const inUnits = machine
      .run('systemctl', 'show', '--property=ControlGroup', '--value', ...units)
      .trim()
      .split(/\n+/);
    const count = inUnits.flatMap((group) =>
      machine.run('sh', '-c', `cat $(find /sys/fs/cgroup -path '*${group}/cgroup.procs' | head -1)`).trim().split('\n'),
    );
    assert.equal(count.length, units.length, 'one each');
  });

  it('manage.ts sees them through systemd', async () => {
    const lines = () => manage('health').stdout.trim().split('\n');
    await until('a line for each service', 30_000, () =>
      running.every(({ name }) => lines().some((line) => line.startsWith(name))),
    );
    assert.equal(manage('start').code, 0, 'to start what runs is no fault');
    const document = JSON.parse(manage('status', '--json').stdout) as { services: { name: string; state: string }[] };
    assert.deepEqual(
      running.filter(({ name }) => !document.services.some((each) => each.name === name)).map(({ name }) => name),
      [],
    );
  });

  it('manage.ts shows what a service logs, and goes on with it, and restarts that one alone', async () => {
    const shown = (...args: string[]) => {
      const { code, stdout } = manage('logs', ...args);
      assert.equal(code, 0, args.join(' '));
      // Between them stands what systemd itself says of the unit.
      const own = stdout.split('\n').filter((line) => line.startsWith('{'));
      return own.map((line) => JSON.parse(line) as Record<string, string>);
    };
    const lines = shown('store', '-n', '200');
    assert.deepEqual([...new Set(lines.map(({ service }) => service))], ['store']);
    assert.ok(lines.some(({ event }) => event === 'started'));
    assert.ok(new Set(shown('all', '-n', '500').map(({ service }) => service)).size > 1);
    const pids = () => new Map(units.map((unit) => [unit, stateOf(unit).pid]));
    const before = pids();
    const program = `node --import tsx ${PLACES.code}/scripts/manage.ts`;
    const follow = `timeout --signal=INT 45 ${program} logs web -f -n 1 > /tmp/followed & until [ -s /tmp/followed ]; do sleep 0.2; done; ${program} restart web; code=$?; wait; exit $code`;
    assert.equal(machine.tried('sh', '-c', `cd ${PLACES.code} && ${follow}`).code, 0);
    const web = unitNamed('web');
    assert.deepEqual(
      [...pids()].filter(([unit, pid]) => before.get(unit) !== pid).map(([unit]) => unit),
      [web],
    );
    assert.equal(stateOf(web).restarts, 0, 'it did not fail');
    const followed = machine.run('cat', '/tmp/followed');
    for (const event of ['stopping', 'started']) assert.ok(followed.includes(`"event":"${event}"`), followed);
  });

  it('a process that is stopped is ended by its watchdog, and one that is killed comes back, each by itself, and nothing is lost', async () => {
    const stopped = unitNamed('sar_slope_collector');
    const before = new Map(units.map((unit) => [unit, stateOf(unit)]));
    machine.run('systemctl', 'kill', '--signal=STOP', '--kill-whom=main', stopped);
    // Sources last: what the others miss meanwhile is theirs to fetch.
    const sim = unitNamed('exchange_sim');
    for (const unit of units.filter((each) => each !== stopped && each !== sim)) {
      machine.run('systemctl', 'kill', '--signal=KILL', '--kill-whom=main', unit);
      await until(`${unit} is back`, 60_000, () => {
        const { active, pid } = stateOf(unit);
        return active === 'active' && pid !== before.get(unit)!.pid;
      });
      assert.equal(stateOf(unit).restarts, before.get(unit)!.restarts + 1, unit);
    }
    await until('the watchdog has ended what was stopped', WATCHDOG_LIMIT_MS, () => {
      const { active, pid } = stateOf(stopped);
      return active === 'active' && pid !== before.get(stopped)!.pid;
    });
    assert.match(machine.run('journalctl', '-b', '-o', 'cat', '-u', stopped), /Watchdog timeout/);
    const first = trades();
    await until('rows flow again', 60_000, () => trades() > first);
  });

  it('a forced rotation loses no line, while all go on writing', async () => {
    const files = () =>
      readdirSync(machine.path(`${DATA}/escape_signal_jsonl`)).filter((name) => name.startsWith('escape_signal_stats'));
    assert.ok(existsSync(machine.path(`${DATA}/escape_signal_jsonl/escape_signal_stats.jsonl`)));
    const pids = units.map((unit) => stateOf(unit).pid);
    machine.run('logrotate', '--force', '/etc/logrotate.d/marketprism');
    assert.ok(files().length >= 2 || !files().includes('escape_signal_stats.jsonl'), 'the file was renamed');
    await until('a new one is begun', 150_000, () => files().includes('escape_signal_stats.jsonl'));
    const lines = files().flatMap((name) =>
      readFileSync(machine.path(`${DATA}/escape_signal_jsonl/${name}`), 'utf8')
        .trim()
        .split('\n'),
    );
    assert.equal(new Set(lines).size, lines.length, 'no line twice');
    const slots = new Set(lines.map((line) => (JSON.parse(line) as { slot: number }).slot));
    const sorted = [...slots].sort((one, other) => one - other);
    assert.equal(sorted.at(-1)! - sorted[0]!, (sorted.length - 1) * 60_000, 'none is missing');
    assert.deepEqual(
      units.map((unit) => stateOf(unit).pid),
      pids,
      'SIGHUP ends nobody',
    );
  });

  it('the ledger of all that balances', () => {
    const stdout = machine.run('node', '--import', 'tsx', 'test/booted_ledger.ts', CONTROL);
    const report = JSON.parse(stdout) as {
      balanced: boolean;
      sent: number;
      stored: number;
      missing: number;
      rows: { lost: number; duplicated: number }[];
    };
    process.stdout.write(
      `# ledger: ${report.sent} sent, ${report.stored} stored, ${report.missing} declared missing\n`,
    );
    assert.ok(report.sent > 10_000);
    assert.deepEqual(
      report.rows.filter(({ lost, duplicated }) => lost + duplicated > 0),
      [],
    );
    assert.ok(report.balanced);
  });

  it('all of them together stay within their memory', () => {
    const kib = memoryKib();
    const sum = [...kib.values()].reduce((total, each) => total + each, 0) / MIB;
    process.stdout.write(
      `# memory: ${Math.round(sum)} MiB, ${[...kib].map(([unit, each]) => `${unit.slice(12, -8)} ${Math.round(each / MIB)}`).join(', ')}\n`,
    );
    assert.ok(sum <= MOST_MEMORY_MIB, `${Math.round(sum)} MiB`);
  });

  it('the journal has JSON lines', () => {
    const lines = journal().filter(({ unit }) => unit !== unitNamed('nats-server'));
    assert.ok(lines.length > 100);
    const isObject = (text: string) => {
      try {
        return typeof JSON.parse(text) === 'object';
      } catch {
        return false;
      }
    };
    assert.deepEqual(
      lines.filter(({ text }) => !isObject(text)),
      [],
    );
  });

  it('a unit that cannot start is told of, and stays down', async () => {
    const unit = unitNamed('unified_data_collector');
    const dropIn = `${PLACES.units}/${unit}.d`;
    machine.run('mkdir', '-p', dropIn);
    writeFileSync(
      machine.path(`${dropIn}/wrong.conf`),
      '[Service]\nExecStart=\nExecStart=/usr/bin/node --import tsx scripts/unified_data_collector.ts --wrong\n',
    );
    machine.run('systemctl', 'daemon-reload');
    machine.tried('systemctl', 'restart', unit);
    await until('it has failed', 30_000, () => stateOf(unit).active === 'failed');
    const log = machine.path(`${PLACES.logs}/failures.jsonl`);
    await until('somebody is told', 30_000, () => existsSync(log) && readFileSync(log, 'utf8').includes(unit));
    const record = JSON.parse(readFileSync(log, 'utf8').trim().split('\n').at(-1)!) as Record<string, string>;
    assert.deepEqual([record.unit, record.result, record.status], [unit, 'exit-code', '64']);
    machine.run('rm', '-r', dropIn);
    machine.run('systemctl', 'daemon-reload');
    machine.run('systemctl', 'reset-failed', unit);
    machine.run('systemctl', 'start', unit);
  });

  it('each stops cleanly by itself within ten seconds, or systemd would say otherwise', () => {
    for (const unit of [...units].reverse()) {
      machine.run('systemctl', 'stop', unit);
      // After ten seconds a service ends itself with a failure; those that do not are timed out by systemd, which is another result.
      const { active, result } = stateOf(unit);
      assert.deepEqual([active, result], ['inactive', 'success'], unit);
    }
  });

  it('a reboot brings everything back, and what was stored is there', async () => {
    machine.run('systemctl', 'start', '--no-block', TARGET);
    await until('all are active', 180_000, allActive);
    const stored = trades();
    await machine.reboot();
    await until('all are active', 180_000, allActive);
    await until('what was stored is there, and more', 90_000, () => trades() > stored);
  });

  it('an exchange can have a collector of its own', async () => {
    const one = 'marketprism-collector@okx_spot.service';
    machine.run('systemctl', 'start', one);
    assert.equal(stateOf(one).active, 'active');
    assert.equal(stateOf(unitNamed('collector')).active, 'inactive', 'the one for all has made room');
    machine.run('systemctl', 'start', unitNamed('collector'));
    assert.equal(stateOf(one).active, 'inactive');
  });

  it('a stream can have a store of its own', async () => {
    const parts = ['MARKET_DATA', 'ORDERBOOK_SNAP'].map((stream) => `marketprism-store@${stream}.service`);
    const one = unitNamed('store');
    machine.run('systemctl', 'disable', '--now', one);
    machine.run('systemctl', 'enable', '--now', ...parts);
    assert.deepEqual(
      parts.map((unit) => stateOf(unit).active),
      ['active', 'active'],
    );
    const stored = trades();
    await until('rows flow', 90_000, () => trades() > stored);
    const named = manage('logs', 'store@MARKET_DATA', '-n', '50').stdout;
    assert.match(named, /"event":"checkpoints","stream":"MARKET_DATA"/);
    assert.doesNotMatch(named, /"stream":"ORDERBOOK_SNAP"/);
    machine.run('systemctl', 'start', one);
    assert.deepEqual(
      parts.map((unit) => stateOf(unit).active),
      ['inactive', 'inactive'],
      'they have made room for the one for all',
    );
  });

  it('what is uninstalled is gone, but for data and settings', () => {
    machine.run('node', '--import', 'tsx', 'scripts/manage.ts', 'uninstall');
    const left = readdirSync(machine.path(PLACES.units)).filter((name) => name.startsWith('marketprism'));
    assert.deepEqual(left, []);
    assert.ok(!existsSync(machine.path(PLACES.code)));
    assert.ok(existsSync(machine.path(join(DATA, 'clickhouse'))));
    assert.ok(existsSync(machine.path(`${PLACES.config}/marketprism.env`)));
    assert.equal(machine.run('sh', '-c', 'pgrep -c node || true').trim(), '0');
  });
});
