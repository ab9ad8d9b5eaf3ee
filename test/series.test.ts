/** Series of JSONL files: each slot once, whatever ends their writer, and what is wrong with them is found. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { appendFileSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, beforeEach, describe, test } from 'node:test';
import type { Context } from '../scripts/lib/checks/check.ts';
import { series as check } from '../scripts/lib/checks/series.ts';
import { objectsOf } from '../scripts/lib/jsonl.ts';
import { createLogger } from '../scripts/lib/log.ts';
import { rotatedSet } from '../scripts/lib/rotated.ts';
import { LEAST_KEPT_DAYS, recordsOf, Series, type SeriesPlan, slotOf } from '../scripts/lib/series.ts';

const MINUTE = 60_000;
const PLAN: SeriesPlan = { name: 'tops', file: 'tops/tops.jsonl', cadenceMs: MINUTE, catchUpSlots: 60 };
const T0 = Date.UTC(2026, 10, 24, 8);
const LOG = createLogger('test', 'silent');
const NEVER = new AbortController().signal;
const root = mkdtempSync(join(tmpdir(), 'marketprism-series-'));
after(() => rmSync(root, { recursive: true, force: true }));

let dir: string;
let now: number;
beforeEach(() => {
  dir = mkdtempSync(join(root, 'd'));
  now = T0;
});

const open = (plan = PLAN) => Series.open(dir, plan, () => now, LOG);
const file = () => join(dir, PLAN.file);
const lines = () =>
  readFileSync(file(), 'utf8')
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line));
const compute = async (slot: number) => [{ value: slot / MINUTE }];

describe('a series', () => {
  test('writes each slot that is due once, and what was missed while nobody was there', async () => {
    const first = await open();
    assert.deepEqual(await first.turn(compute, NEVER), []);
    now += 20_000;
    await first.turn(compute, NEVER);
    assert.deepEqual(lines(), [{ slot: T0, value: T0 / MINUTE }]);
    await first.close();
    now = T0 + 5 * MINUTE + 1;
    const second = await open();
    await second.turn(compute, NEVER);
    assert.deepEqual(
      lines().map(({ slot }) => (slot - T0) / MINUTE),
      [0, 1, 2, 3, 4, 5],
    );
    assert.throws(() => second.write(T0 + MINUTE, [{}]), /is there already/);
    assert.throws(() => second.write(T0 + 1, [{}]), /is no slot of tops/);
    assert.throws(() => second.write(T0 + 6 * MINUTE, []), /missing, not empty/);
    await second.close();
  });

  test('a slot that fails holds up no other, stays missing, and is completed by a correction, also after a restart', async () => {
    const first = await open();
    await first.turn(compute, NEVER);
    now += 2 * MINUTE;
    const failing = async (slot: number) => {
      if (slot === T0 + MINUTE) throw new Error('venue away');
      return compute(slot);
    };
    assert.deepEqual(await first.turn(failing, NEVER), [T0 + MINUTE]);
    assert.match(first.state.error!, /^2026-11-24T08:01:00.000Z: venue away$/);
    assert.deepEqual(first.state.missing, [T0 + MINUTE]);
    await first.close();
    // The health file is of use, and not needed.
    rmSync(join(dir, 'state'), { recursive: true });
    const second = await open();
    assert.deepEqual(second.due(now), [T0 + MINUTE]);
    await second.turn(compute, NEVER);
    assert.deepEqual(lines().at(-1), { slot: T0 + MINUTE, correction: true, value: T0 / MINUTE + 1 });
    second.correct(T0, [{ value: 7 }]);
    assert.throws(() => second.correct(T0 + 9 * MINUTE, [{}]), /nothing to be corrected/);
    assert.deepEqual([second.state.corrections, second.state.missing], [2, []]);
    await second.close();
  });

  test('goes on in a new file when it is rotated in between, and knows what stands in the old one', async () => {
    const first = await open();
    await first.turn(compute, NEVER);
    renameSync(file(), `${file()}-20261124`);
    now += MINUTE;
    await first.turn(compute, NEVER);
    assert.deepEqual(
      lines().map(({ slot }) => slot),
      [T0 + MINUTE],
    );
    await first.close();
    renameSync(file(), `${file()}-20261125`);
    const second = await open();
    assert.deepEqual(second.due(now), []);
    assert.equal(rotatedSet(file()).length, 3);
    await second.close();
  });

  test('a line that was torn is kept aside, and its slot written anew; a bad line is told with its number', async () => {
    const first = await open();
    await first.turn(compute, NEVER);
    await first.close();
    appendFileSync(file(), `{"slot":${T0 + MINUTE},"val`);
    now += MINUTE;
    const second = await open();
    await second.turn(compute, NEVER);
    assert.deepEqual(
      lines().map(({ slot }) => slot),
      [T0, T0 + MINUTE],
    );
    assert.equal(readFileSync(`${file()}.torn`, 'utf8'), `{"slot":${T0 + MINUTE},"val\n`);
    await second.close();
    appendFileSync(file(), '[1]\nx\n');
    const read = [];
    for await (const line of objectsOf(file())) read.push('bad' in line ? `${line.number} bad` : line.number);
    assert.deepEqual(read, [1, 2, '3 bad', '4 bad']);
    appendFileSync(file(), `{"slot":${T0 + 2 * MINUTE},"value":,}\n`);
    const records: number[] = [];
    for await (const { slot } of recordsOf(file(), T0)) records.push((slot - T0) / MINUTE);
    assert.deepEqual(records, [0, 1], 'what is damaged inside is no record either');
  });

  test('begins where it is told, and a slot is due only after its delay', async () => {
    const series = await open({ ...PLAN, delayMs: 5 * MINUTE });
    series.beginAt(T0 - 8 * MINUTE + 1);
    assert.deepEqual(
      series.due(now).map((slot) => (slot - T0) / MINUTE),
      [-8, -7, -6, -5],
    );
    await series.turn(compute, NEVER, now - MINUTE);
    assert.equal(series.state.last_slot, T0 - 6 * MINUTE, 'what it is made of is known up to there');
    now += 59_000;
    await series.turn(compute, NEVER);
    assert.equal(series.state.last_slot, T0 - 5 * MINUTE);
    assert.deepEqual([series.state.last_run, series.state.last_success], [now, now]);
    await series.close();
  });

  test('writes several slots at once, or, where one is wrong, none', async () => {
    const series = await open();
    const three = [0, 2, 3].map((n) => [T0 + n * MINUTE, [{ n }]] as const);
    series.writeAll(three);
    assert.deepEqual(
      lines().map(({ slot }) => (slot - T0) / MINUTE),
      [0, 2, 3],
    );
    assert.deepEqual(series.state.missing, [T0 + MINUTE]);
    const state = structuredClone(series.state);
    assert.throws(
      () =>
        series.writeAll([
          [T0 + 4 * MINUTE, [{}]],
          [T0 + 5 * MINUTE, []],
        ]),
      /missing, not empty/,
    );
    assert.deepEqual([series.state, lines().length], [state, 3]);
    await series.close();
  });

  test('cannot be completed further back than its files are kept', async () => {
    const days = (count: number) => ({ ...PLAN, catchUpSlots: count * 1440 });
    await (await open(days(LEAST_KEPT_DAYS))).close();
    await assert.rejects(open(days(LEAST_KEPT_DAYS + 1)), /over 181 days, as its files are kept for 180: set MARKETPR/);
  });

  test('has one writer', async () => {
    const first = await open();
    await assert.rejects(open(), /series tops in .* is already held/);
    await first.close();
    await (await open()).close();
  });

  test('days of UTC+8 begin at 16:00 UTC', () => {
    const days = { cadenceMs: 24 * 60 * MINUTE, offsetMs: 16 * 60 * MINUTE };
    assert.equal(slotOf(Date.UTC(2026, 10, 24, 15, 59), days), Date.UTC(2026, 10, 23, 16));
    assert.equal(slotOf(Date.UTC(2026, 10, 24, 16), days), Date.UTC(2026, 10, 24, 16));
  });

  test('killed at any moment it has each slot once, in whole lines', async () => {
    const code = `
      import { Series } from ${JSON.stringify(join(import.meta.dirname, '../scripts/lib/series.ts'))};
      import { createLogger } from ${JSON.stringify(join(import.meta.dirname, '../scripts/lib/log.ts'))};
      const series = await Series.open(${JSON.stringify(dir)}, ${JSON.stringify(PLAN)}, Date.now, createLogger('child', 'silent'));
      console.log('open');
      for (let slot = (series.state.last_slot ?? ${T0}) + ${MINUTE}; ; slot += ${MINUTE}) {
        series.write(slot, [{ text: 'x'.repeat(20000) }, { text: 'y' }]);
      }`;
    writeFileSync(join(dir, 'child.mts'), code);
    for (let round = 0; round < 4; round += 1) {
      const child = spawn(process.execPath, ['--import', 'tsx', join(dir, 'child.mts')], {
        stdio: ['ignore', 'pipe', 'inherit'],
        cwd: join(import.meta.dirname, '..'),
      });
      await new Promise((done) => child.stdout.once('data', done));
      await new Promise((done) => setTimeout(done, 100 + round * 37));
      child.kill('SIGKILL');
      await new Promise((done) => child.once('close', done));
    }
    await (await open()).close();
    const slots = lines().map(({ slot }) => (slot - T0) / MINUTE);
    const last = slots.at(-1)!;
    assert.ok(last > 8, `${last} slots`);
    // Both records of a slot, or, of the one that was being written, only the first.
    const counts = new Map<number, number>();
    for (const slot of slots) counts.set(slot, (counts.get(slot) ?? 0) + 1);
    assert.deepEqual(
      [...counts.keys()],
      Array.from({ length: last }, (_, i) => i + 1),
    );
    const halves = [...counts].filter(([, count]) => count !== 2);
    assert.ok(halves.length <= 4, JSON.stringify(halves));
  });
});

describe('the check of series', () => {
  const ask = async () => {
    const context = { config: { dataDir: dir }, from: T0 - 60 * MINUTE, to: now, now } as Context;
    const { figure, findings } = await check.ask(context);
    return { figure, told: findings.map(({ kind, severity, what }) => `${kind} ${severity}: ${what}`) };
  };
  /** Ten minutes, of which one may be left out. */
  async function written(without: number | null = null): Promise<void> {
    const series = await open();
    for (let n = 0; n < 10; n += 1) if (n !== without) series.write(T0 + n * MINUTE, [{ n }]);
    await series.close();
    now = T0 + 10 * MINUTE;
  }

  test('finds nothing in one that is whole, and cannot ask where there is none', async () => {
    await assert.rejects(ask(), /no script has written a series here/);
    await written();
    assert.deepEqual(await ask(), { figure: '1 series, 10 records', told: [] });
  });

  test('finds a slot that is missing, until it is completed', async () => {
    await written(4);
    assert.deepEqual((await ask()).told, ['missing_slots medium: 1 of 10 slots are missing']);
    const series = await open();
    await series.turn(compute, NEVER);
    await series.close();
    assert.deepEqual((await ask()).told, []);
  });

  test('finds a slot that is there twice, a torn line, a line that is no record, and a series that went silent', async () => {
    await written();
    appendFileSync(file(), `{"slot":${T0 + 3 * MINUTE},"n":3}\nnonsense\n{"slot":`);
    assert.deepEqual((await ask()).told, [
      'bad_lines medium: 2 lines without a record: 12, 13',
      'torn medium: its last line has no end',
      'double_slots medium: 1 slot written more than once',
    ]);
    rmSync(file());
    rmSync(join(dir, 'state'), { recursive: true });
    await written();
    now += 6 * MINUTE;
    assert.deepEqual((await ask()).told, ['silent low: the next slot is 6 min late']);
    now += 30 * MINUTE;
    assert.deepEqual((await ask()).told, ['silent high: the next slot is 36 min late']);
  });
});
