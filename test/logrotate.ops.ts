/** Many rotations: of writers at full speed, with a control that must lose lines, and of everything that npm start runs. */
import assert from 'node:assert/strict';
import { readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import type { Context } from '../scripts/lib/checks/check.ts';
import { series as check } from '../scripts/lib/checks/series.ts';
import { waitFor } from '../scripts/lib/processes.ts';
import { READY_MS } from './pipeline.ts';
import { linesByHand, Rotation } from './rotation.ts';
import { assertWhole, rotateUnderLoad } from './rotation_load.ts';
import { processes, Up } from './up_child.ts';

/** `MARKETPRISM_ROTATIONS=300 node --import tsx --test test/logrotate.ops.ts` */
const ROTATIONS = Number(process.env.MARKETPRISM_ROTATIONS ?? 10);
const KILLS = 3;
const DAY_MS = 86_400_000;
/** tsx has one, which it ends itself; systemd would signal the main process alone. */
const isCompiler = (command: string) => command.includes('esbuild');

describe('while logrotate rotates', () => {
  test('writers at full speed lose, double and tear no line', async (context) => {
    // Of logs fourteen are kept; here all of them are counted.
    const change = (text: string) => text.replaceAll('rotate 14', 'rotate -1');
    const outcome = await rotateUnderLoad(ROTATIONS, { kills: KILLS, change });
    context.diagnostic(JSON.stringify({ rotations: ROTATIONS, ...outcome }));
    assertWhole(outcome, ROTATIONS);
  });

  test('by copytruncate they would lose lines, and the counting would see it', async (context) => {
    const outcome = await rotateUnderLoad(5, { change: (text) => text.replaceAll('nocreate', 'copytruncate') });
    context.diagnostic(JSON.stringify(outcome));
    const { wrong, lines } = outcome;
    for (const name of ['a JSONL file', 'a log, out']) assert.ok(wrong[name]! > 0, `${name}: ${lines[name]} lines`);
  });
});

describe('npm start', () => {
  const up = new Up();
  const rotation = new Rotation(undefined, up.dir);
  after(() => {
    up.close();
    rotation.close();
  });

  test('and all that it runs survive SIGHUP, write on in new files, and lose nothing', async (context) => {
    await up.start(['--demo', '--for', '50s', '--report', join(up.dir, 'report.json')], { HEALTH_GRACE_SECONDS: '0' });
    await up.running();
    const logDir = join(up.dir, 'demo', 'logs');
    const silent = () => readdirSync(logDir).filter((name) => statSync(join(logDir, name)).size === 0);
    // Who has not begun to listen is ended by it: in production only units that are active are told.
    await waitFor('every service', READY_MS, async () => readdirSync(logDir).length >= 15 && silent().length === 0);
    const pids = () => [
      up.pid,
      ...processes().flatMap(({ pid, parent, command }) => (parent === up.pid && !isCompiler(command) ? [pid] : [])),
    ];
    const before = pids();
    for (let round = 0; round < 8; round += 1) {
      rotation.tell(pids());
      assert.equal(await rotation.force(), '');
      await new Promise((done) => setTimeout(done, 2000));
    }
    assert.deepEqual(pids(), before, 'nobody ended, or was started again');
    const { code } = await up.end();
    assert.deepEqual([code, up.errors], [0, ''], up.output);
    const services = new Set(readdirSync(logDir).map((name) => name.slice(0, name.indexOf('.log'))));
    assert.ok(services.size >= 14, [...services].join());
    let lines = 0;
    for (const name of services) {
      const own = linesByHand(logDir, `${name}.log`);
      lines += own.length;
      // Told once for each kind of file that was rotated.
      const isReopened = (line: string) =>
        name === 'nats-server' ? line.includes('Reloaded server') : JSON.parse(line).event === 'reopened';
      assert.ok(own.filter(isReopened).length >= 8, `${name}: ${own.length} lines`);
    }
    const now = Date.now();
    const dataDir = join(up.dir, 'demo');
    const said = await check.ask({ config: { dataDir }, from: now - 2 * DAY_MS, to: now, now } as Context);
    const wrong = said.findings.filter(({ kind }) => kind !== 'silent');
    assert.deepEqual(wrong, [], said.figure);
    context.diagnostic(`${services.size} services, ${lines} lines of logs; ${said.figure}`);
  });
});
