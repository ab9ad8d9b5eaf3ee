/** The plan of a chaos run, and what judges it: pure parts, and the tools with which things are broken. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { DISKS, SmallDisk } from '../scripts/lib/chaos/disks.ts';
import { grown, MemoryWatch } from '../scripts/lib/chaos/memory.ts';
import { describeFault, faultPlan } from '../scripts/lib/chaos/plan.ts';
import { EXCHANGES } from '../scripts/lib/rows.ts';
import { seededRandom } from '../scripts/lib/sim/market.ts';

const TEN_MINUTES = 600_000;
const plan = (seed: number, forMs = TEN_MINUTES) =>
  faultPlan({ forMs, random: seededRandom(seed), exchanges: EXCHANGES, disks: DISKS });

describe('the plan of a chaos run', () => {
  test('is the same for the same seed, and another for another', () => {
    assert.deepEqual(plan(7), plan(7));
    assert.notDeepEqual(plan(7), plan(8));
  });

  test('of ten minutes has every kind of fault on every target', () => {
    for (const seed of [1, 2, 3]) {
      const faults = plan(seed).map(({ fault }) => fault);
      const kinds = new Set(
        faults.map((fault) => {
          if (fault.kind === 'kill' || fault.kind === 'stop' || fault.kind === 'clock')
            return `${fault.kind} ${fault.target}`;
          if (fault.kind === 'clickhouse') return `clickhouse ${fault.fault}`;
          if (fault.kind === 'disk_full') return `disk ${fault.disk}`;
          return fault.kind === 'venue' ? `venue ${fault.action}` : fault.kind;
        }),
      );
      assert.equal(kinds.size, 6 + 6 + 6 + 1 + 4 + 4 + 9, [...kinds].sort().join(', '));
    }
  });

  test('keeps to the time of the run, in order, and leaves it quiet at both ends', () => {
    for (const forMs of [60_000, TEN_MINUTES]) {
      const times = plan(3, forMs).map(({ atMs }) => atMs);
      assert.ok(times.length > forMs / 10_000, `${times.length} faults in ${forMs / 1000} s`);
      assert.deepEqual(
        times,
        [...times].sort((one, other) => one - other),
      );
      assert.ok(times[0]! >= 6000 && times.at(-1)! <= forMs - 6000);
    }
  });

  test('tells each fault in a line', () => {
    for (const { fault } of plan(5)) assert.match(describeFault(fault), /^[^\n]{8,120}$/);
  });
});

describe('the memory of a run', () => {
  const figures = (process: string, mib: (sample: number) => number) => {
    const watch = new MemoryWatch();
    for (let sample = 0; sample < 30; sample++) watch.add(new Map([[process, mib(sample) * 2 ** 20]]));
    return watch.figures();
  };

  test('is told as medians, so that what a process took for a while does not count', () => {
    const peaks = figures('store', (sample) => (sample > 12 && sample < 17 ? 900 : 200 + sample));
    assert.deepEqual(peaks, [{ process: 'store', first: 205, last: 225, most: 900 }]);
    assert.deepEqual(grown(peaks), []);
  });

  test('that grows is a difference; only the simulator keeps all', () => {
    const leak = (sample: number) => 200 + sample * 12;
    assert.deepEqual(grown(figures('store', leak)), [
      'memory of store: 260 MiB in the first third of the run, 500 in the last',
    ]);
    assert.deepEqual(grown(figures('exchange_sim', leak)), []);
  });
});

describe('a stepped clock', () => {
  const dir = mkdtempSync(join(tmpdir(), 'marketprism-clock-'));
  after(() => rmSync(dir, { recursive: true, force: true }));

  test('moves the wall clock of one process alone, and back, and leaves its timers be', async () => {
    const file = join(dir, 'offset');
    writeFileSync(file, '-3600000');
    const preload = join(import.meta.dirname, '../scripts/lib/chaos/stepped_clock.mjs');
    const tell = `setInterval(() => console.log(JSON.stringify([Date.now(), new Date().getTime(), new Date(5).getTime(), performance.timeOrigin + performance.now()])), 50)`;
    const child = spawn(process.execPath, ['--import', preload, '-e', tell], {
      env: { ...process.env, MARKETPRISM_CLOCK_FILE: file },
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const seen: number[][] = [];
    child.stdout.on('data', (chunk: Buffer) => {
      for (const line of chunk.toString().trim().split('\n')) seen.push(JSON.parse(line));
      if (seen.length === 5) writeFileSync(file, '60000');
      if (seen.length >= 20) child.kill();
    });
    await once(child, 'exit');
    const hours = (place: number) => seen.map((each) => Math.round((each[place]! - each[3]!) / 1000));
    assert.deepEqual([hours(0)[0], hours(0).at(-1)], [-3600, 60]);
    assert.deepEqual(hours(1), hours(0));
    assert.ok(seen.every((each) => each[2] === 5));
    assert.ok(
      seen.every((each) => Math.abs(each[3]! - Date.now()) < 60_000),
      'time that only goes forward is untouched',
    );
  });
});

describe('a small disk', () => {
  const dir = mkdtempSync(join(tmpdir(), 'marketprism-disk-'));
  after(() => rmSync(dir, { recursive: true, force: true }));

  test('takes nothing more once it is full, and takes it again once there is room', (context) => {
    let disk: SmallDisk;
    try {
      disk = SmallDisk.mount(dir);
    } catch (error) {
      context.skip(`no disk can be mounted here: ${(error as Error).message}`);
      return;
    }
    try {
      const megabyte = Buffer.alloc(2 ** 20);
      writeFileSync(join(dir, 'before'), megabyte);
      disk.fill();
      assert.throws(() => writeFileSync(join(dir, 'meanwhile'), megabyte), { code: 'ENOSPC' });
      disk.free();
      writeFileSync(join(dir, 'afterwards'), megabyte);
    } finally {
      disk.unmount();
    }
  });
});
