import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { loadConfig } from '../scripts/lib/config.ts';
import { nodeFlags, SERVICES } from '../scripts/lib/services.ts';
import { failureFrom, failureMessage } from '../scripts/lib/systemd/unit_failed.ts';
import { TARGET, unitFiles, unitOf } from '../scripts/lib/systemd/units.ts';

const ROOT = join(import.meta.dirname, '..');
const valuesOf = (text: string, key: string) =>
  [...text.matchAll(new RegExp(`^${key}=(.*)$`, 'gm'))].map(([, value]) => value!);

describe('the units', () => {
  it('in systemd/ are those that the table of services makes', () => {
    const present = readdirSync(join(ROOT, 'systemd')).filter((name) => /\.(service|target)$/.test(name));
    assert.deepEqual(present.sort(), [...unitFiles().keys()].sort());
    for (const [name, text] of unitFiles())
      assert.equal(readFileSync(join(ROOT, 'systemd', name), 'utf8'), text, `${name}: npm run units writes it anew`);
  });

  it('run a script that is there, with the flags of npm start, and no process beside it', () => {
    for (const service of SERVICES.filter(({ heapMb }) => heapMb !== null)) {
      const [command] = valuesOf(unitFiles().get(unitOf(service))!, 'ExecStart');
      const flags = nodeFlags(service.name).join(' ');
      assert.ok(command!.startsWith(`/usr/bin/node ${flags} --import tsx scripts/${service.name}.ts`), command);
      assert.ok(existsSync(join(ROOT, 'scripts', `${service.name}.ts`)));
    }
  });

  it('come up after what they stand on, wait for it, and are stopped before it', () => {
    for (const service of SERVICES) {
      const text = unitFiles().get(unitOf(service))!;
      for (const name of service.after) {
        const other = unitOf(SERVICES.find((each) => each.name === name)!);
        assert.ok(valuesOf(text, 'After')[0]!.split(' ').includes(other), `${service.name} after ${name}`);
        assert.ok(
          SERVICES.findIndex((each) => each.name === name) < SERVICES.indexOf(service),
          'in the order of the table',
        );
      }
      assert.deepEqual([valuesOf(text, 'PartOf'), valuesOf(text, 'WantedBy')], [[TARGET], [TARGET]]);
    }
  });

  it('have the limits of the originals: 800 MB and 90 % of a core for the collector', () => {
    const text = unitFiles().get('marketprism-collector.service')!;
    assert.deepEqual([valuesOf(text, 'MemoryMax'), valuesOf(text, 'CPUQuota')], [['800M'], ['90%']]);
    for (const [name, unit] of unitFiles())
      if (name.endsWith('.service')) assert.equal(valuesOf(unit, 'MemoryMax').length, 1, name);
  });

  it('do not restart what is configured wrongly, and tell people of what stays down', () => {
    for (const service of SERVICES) {
      const text = unitFiles().get(unitOf(service))!;
      assert.deepEqual(valuesOf(text, 'RestartPreventExitStatus'), ['64']);
      assert.deepEqual(valuesOf(text, 'OnFailure'), ['marketprism-failed@%p.service']);
    }
  });
});

describe('a unit that failed', () => {
  it('is told with what systemd says of it, and with what to do', () => {
    const env = {
      MONITOR_UNIT: 'marketprism-store.service',
      MONITOR_SERVICE_RESULT: 'watchdog',
      MONITOR_EXIT_CODE: 'killed',
      MONITOR_EXIT_STATUS: 'ABRT',
    };
    const failure = failureFrom('marketprism-store', env);
    assert.deepEqual(failure, {
      unit: 'marketprism-store.service',
      result: 'watchdog',
      code: 'killed',
      status: 'ABRT',
    });
    const { title, text, severity } = failureMessage(failure, 'desk-1', loadConfig({}));
    assert.equal(title, 'MarketPrism desk-1 [critical]: marketprism-store.service is down');
    assert.match(text, /watchdog, killed ABRT/);
    assert.match(text, /systemctl start marketprism-store\.service/);
    assert.equal(severity, 'critical');
    assert.match(failureMessage(failure, 'desk-1', loadConfig({ MARKETPRISM_LANG: 'zh' })).title, /已停止/);
  });

  it('by hand is told without more than its name', () => {
    assert.deepEqual(failureFrom('marketprism-web.service', {}), {
      unit: 'marketprism-web.service',
      result: null,
      code: null,
      status: null,
    });
  });
});

describe('an installation', () => {
  const install = (...args: string[]) =>
    spawnSync(process.execPath, ['--import', 'tsx', join(ROOT, 'scripts', 'manage.ts'), 'install', ...args], {
      encoding: 'utf8',
    });

  it('that is dry tells each step, and needs no root', () => {
    const { status, stdout } = install('--dry-run', '--demo');
    assert.equal(status, 0);
    assert.match(stdout, /file \/etc\/systemd\/system\/marketprism-store\.service/);
    assert.ok(!existsSync('/etc/marketprism'));
  });

  it('takes one mode', () => {
    const { status, stderr } = install('--live', '--demo');
    assert.deepEqual([status, stderr], [64, '--live and --demo exclude each other\n']);
  });
});
