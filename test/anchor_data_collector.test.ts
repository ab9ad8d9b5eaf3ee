/** The owner's positions: counted by decimal text, asked for in the first minutes of a slot or never, and no word of the key anywhere. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, beforeEach, describe, test } from 'node:test';
import { type AnchorRecord, AnchorWork, anchorRecord } from '../scripts/anchor_data_collector.ts';
import type { Context } from '../scripts/lib/checks/check.ts';
import { series as check } from '../scripts/lib/checks/series.ts';
import { loadConfig } from '../scripts/lib/config.ts';
import type { Position } from '../scripts/lib/desk/okx.ts';
import { createLogger } from '../scripts/lib/log.ts';
import { Pipeline } from './pipeline.ts';

const MINUTE = 60_000;
const SLOT = 5 * MINUTE;
const T0 = Date.UTC(2026, 10, 24, 8);
const NEVER = new AbortController().signal;
const LOG = createLogger('test', 'silent');
const SCRIPT = join(import.meta.dirname, '..', 'scripts', 'anchor_data_collector.ts');
const ISOLATED: Position = {
  ...{ instId: 'BTC-USDT-SWAP', mgnMode: 'isolated', posSide: 'long', pos: '1' },
  ...{ upl: '1', margin: '100', imr: '' },
};
const isolated = (upl: string, change: Partial<Position> = {}): Position => ({ ...ISOLATED, upl, ...change });
const counted = (...positions: Position[]) => anchorRecord(T0, positions, 'real');
/** loss, lte_40, gte_80, gte_120 of a side. */
const classes = ({ stats }: AnchorRecord, side: 'long' | 'short' = 'long') => Object.values(stats[side]).join(' ');

describe('positions are counted', () => {
  test('by profit over margin: the edges belong to the class, and nothing beside them does', () => {
    const cases: [upl: string, expected: string][] = [
      ['-0.000000000000000001', '1 1 0 0'],
      ['0', '0 1 0 0'],
      ['-0', '0 1 0 0'],
      ['40', '0 1 0 0'],
      ['40.000000000000000001', '0 0 0 0'],
      ['79.999999999999999999', '0 0 0 0'],
      ['80', '0 0 1 0'],
      ['119.999999999999999999', '0 0 1 0'],
      ['120', '0 0 1 1'],
      ['1e3', '0 0 1 1'],
    ];
    for (const [upl, expected] of cases) assert.equal(classes(counted(isolated(upl))), expected, upl);
    // In doubles 0.12 / 0.3 * 100 is no 40, and 0.28 / 0.35 * 100 no 80.
    assert.equal(classes(counted(isolated('0.12', { margin: '0.3' }))), '0 1 0 0');
    assert.equal(classes(counted(isolated('0.28', { margin: '0.35' }))), '0 0 1 0');
    assert.equal(classes(counted(isolated('0.84', { margin: '0.7' }))), '0 0 1 1');
  });

  test('by side: as the venue says, or by the sign of the size in net mode', () => {
    const record = counted(
      isolated('90', { posSide: 'short', pos: '3' }),
      isolated('-1', { posSide: 'net', pos: '-0.5' }),
      isolated('130', { posSide: 'net', pos: '2' }),
    );
    assert.equal(classes(record, 'short'), '1 1 1 0');
    assert.equal(classes(record, 'long'), '0 0 1 1');
  });

  test('by the margin of their mode: their own when isolated, the initial margin in cross', () => {
    const cross = { mgnMode: 'cross', margin: '', imr: '50' };
    assert.equal(classes(counted(isolated('40', cross))), '0 0 1 0');
    assert.equal(classes(counted(isolated('40', { imr: '50' }))), '0 1 0 0');
  });

  test('as unknown, and in no class, where there is no margin, no profit or no side', () => {
    const record = counted(
      isolated('5', { margin: '' }),
      isolated('5', { margin: '0.00' }),
      isolated('5', { mgnMode: 'cross' }),
      isolated(''),
      isolated('5', { posSide: 'net', pos: '0' }),
    );
    assert.deepEqual(record, {
      timestamp: T0,
      datetime: '2026-11-24 16:00:00',
      trade_mode: 'real',
      stats: {
        long: { loss: 0, lte_40: 0, gte_80: 0, gte_120: 0 },
        short: { loss: 0, lte_40: 0, gte_80: 0, gte_120: 0 },
      },
      positions_count: 5,
      unknown: 5,
    });
    assert.throws(() => counted(isolated('many')), /not a number/);
  });
});

const root = mkdtempSync(join(tmpdir(), 'marketprism-anchor-'));
after(() => rmSync(root, { recursive: true, force: true }));

describe('a slot of positions', () => {
  let dir: string;
  let now: number;
  let asked: number;
  let answer: () => Promise<Position[]>;
  beforeEach(() => {
    dir = mkdtempSync(join(root, 'd'));
    now = T0;
    asked = 0;
    answer = async () => [ISOLATED];
  });
  const open = (once = false) => {
    const config = loadConfig({ MARKETPRISM_DATA_DIR: dir });
    const positions = () => {
      asked += 1;
      return answer();
    };
    return AnchorWork.open({ config, log: LOG, clock: () => now }, positions, once);
  };
  const slots = () =>
    readFileSync(join(dir, 'anchor', 'anchor_profit_stats.jsonl'), 'utf8')
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => (JSON.parse(line).slot - T0) / SLOT);
  const state = () => JSON.parse(readFileSync(join(dir, 'state', 'series-anchor.json'), 'utf8'));
  const told = async () => {
    const context = { config: { dataDir: dir }, from: T0 - SLOT, to: now, now } as Context;
    return (await check.ask(context)).findings.map(({ kind, what }) => `${kind}: ${what}`);
  };

  test('is asked for once, and again only while it fails within its first two and a half minutes', async () => {
    const work = await open();
    assert.deepEqual(await work.turn(NEVER), []);
    now += 30_000;
    await work.turn(NEVER);
    assert.deepEqual([asked, slots()], [1, [0]]);
    now = T0 + SLOT;
    answer = async () => {
      throw new Error('venue away');
    };
    assert.deepEqual(await work.turn(NEVER), ['2026-11-24T08:05:00.000Z: venue away']);
    now += 149_999;
    answer = async () => [];
    assert.deepEqual(await work.turn(NEVER), []);
    assert.deepEqual([asked, slots()], [3, [0, 1]]);
    await work.close();
  });

  test('that failed until its time was over stays missing, is not asked for again, and is told', async () => {
    const work = await open();
    await work.turn(NEVER);
    answer = async () => {
      throw new Error('venue away');
    };
    now = T0 + SLOT;
    await work.turn(NEVER);
    answer = async () => [ISOLATED];
    now += 150_000;
    const why =
      'the slot of 2026-11-24 16:05:00 could be taken until 2026-11-24 16:07:30: 2026-11-24T08:05:00.000Z: venue away';
    assert.deepEqual(await work.turn(NEVER), [why]);
    assert.equal(state().error, why);
    assert.equal(asked, 2);
    now = T0 + 2 * SLOT;
    assert.deepEqual(await work.turn(NEVER), []);
    assert.deepEqual([asked, slots(), state().missing, state().error], [3, [0, 2], [], null]);
    await work.close();
    assert.deepEqual(await told(), ['missing_slots: 1 of 3 slots are missing']);
  });

  test('that nobody was there for is never filled with present positions; a service waits for the next one, a single run says so', async () => {
    const first = await open();
    await first.turn(NEVER);
    await first.close();
    now = T0 + 4 * SLOT + 3 * MINUTE;
    const second = await open();
    assert.deepEqual(await second.turn(NEVER), []);
    assert.match(state().error, /16:20:00 could be taken until 2026-11-24 16:22:30: it was not asked for in its time$/);
    await second.close();
    const single = await open(true);
    assert.match((await single.turn(NEVER))[0]!, /^the slot of 2026-11-24 16:20:00 could be taken until/);
    await single.close();
    assert.equal(asked, 1);
    now = T0 + 5 * SLOT + 1;
    const third = await open();
    await third.turn(NEVER);
    await third.close();
    assert.deepEqual(slots(), [0, 5]);
    assert.deepEqual(await told(), ['missing_slots: 4 of 6 slots are missing']);
  });
});

describe('against the venue', () => {
  const extra: NodeJS.ProcessEnv = { MARKETPRISM_EXCHANGES: 'okx_derivatives' };
  const pipeline = new Pipeline(extra);
  const key = { OKX_API_KEY: 'demo-key', OKX_API_SECRET: 'demo-secret', OKX_API_PASSPHRASE: 'demo-passphrase' };

  before(async () => {
    await pipeline.choosePorts();
    await pipeline.startSimulator(['--seed', '7']);
    // A slot has just begun for both, whenever the test runs.
    const seconds = Math.ceil((SLOT - (Date.now() % SLOT)) / 1000);
    await pipeline.simulate({ action: 'skip', exchange: 'okx_derivatives', seconds });
    const clockFile = join(pipeline.dir, 'clock');
    writeFileSync(clockFile, String(seconds * 1000));
    const preload = join(import.meta.dirname, '..', 'scripts', 'lib', 'chaos', 'stepped_clock.mjs');
    Object.assign(extra, { NODE_OPTIONS: `--import ${preload}`, MARKETPRISM_CLOCK_FILE: clockFile });
  });
  after(() => pipeline.close());

  const run = (env: NodeJS.ProcessEnv, dataDir: string) =>
    spawnSync(process.execPath, ['--import', 'tsx', SCRIPT, '--once'], {
      env: { ...pipeline.operatorEnv, MARKETPRISM_DATA_DIR: dataDir, ...env },
      encoding: 'utf8',
    });
  const filesOf = (dir: string): string[] =>
    readdirSync(dir, { recursive: true, encoding: 'utf8' })
      .map((name) => join(dir, name))
      .filter((path) => statSync(path).isFile());

  test('the owner’s positions are counted, and a second run in the slot adds nothing', () => {
    const dir = mkdtempSync(join(root, 'd'));
    const { status, stdout, stderr } = run(key, dir);
    assert.equal(status, 0, stdout + stderr);
    assert.equal(run(key, dir).status, 0);
    const lines = readFileSync(join(dir, 'anchor', 'anchor_profit_stats.jsonl'), 'utf8')
      .trimEnd()
      .split('\n');
    assert.equal(lines.length, 1);
    const record = JSON.parse(lines[0]!) as AnchorRecord & { slot: number };
    assert.equal(record.slot, record.timestamp);
    assert.deepEqual([record.trade_mode, record.unknown, record.slot % SLOT], ['real', 0, 0]);
    assert.ok(record.positions_count > 0, lines[0]);
    const { long, short } = record.stats;
    for (const { loss, lte_40, gte_80, gte_120 } of [long, short])
      assert.ok(loss <= lte_40 && gte_120 <= gte_80 && lte_40 + gte_80 <= record.positions_count, lines[0]);
    assert.ok(long.lte_40 + long.gte_80 + short.lte_40 + short.gte_80 > 0, lines[0]);
  });

  test('in a demo they are simulated', () => {
    const dir = mkdtempSync(join(root, 'd'));
    const { status, stdout, stderr } = run({ ...key, MARKETPRISM_MODE: 'demo' }, dir);
    assert.equal(status, 0, stdout + stderr);
    assert.match(readFileSync(join(dir, 'demo', 'anchor', 'anchor_profit_stats.jsonl'), 'utf8'), /"simulated"/);
  });

  test('a key that is refused is told in one line, without a part of it anywhere', () => {
    const dir = mkdtempSync(join(root, 'd'));
    const secrets = { OKX_API_SECRET: 'wrong-hidden-secret', OKX_API_PASSPHRASE: key.OKX_API_PASSPHRASE };
    const { status, stdout, stderr } = run({ ...key, ...secrets }, dir);
    assert.equal(status, 1, stdout + stderr);
    assert.equal(stderr, '');
    const telling = stdout.split('\n').filter((line) => line.includes('50113'));
    assert.equal(telling.length, 1, stdout);
    assert.match(JSON.parse(telling[0]!).faults[0], /\/api\/v5\/account\/positions: HTTP 401: .*Invalid Sign/);
    assert.equal(existsSync(join(dir, 'anchor')), true);
    const all = [stdout, ...filesOf(dir).map((path) => readFileSync(path, 'utf8'))].join('\n');
    for (const secret of Object.values(secrets)) assert.ok(!all.includes(secret), secret);
    assert.ok(!all.includes(key.OKX_API_KEY));
    assert.match(JSON.parse(readFileSync(join(dir, 'state', 'series-anchor.json'), 'utf8')).error, /Invalid Sign/);
  });

  test('without a key it says which variables to set, writes nothing, and ends well', () => {
    const dir = join(root, 'none');
    const { status, stdout, stderr } = run({}, dir);
    assert.equal(status, 0);
    assert.equal(stderr.split('\n').length, 2, stderr);
    assert.match(stderr, /^no key of OKX: set OKX_API_KEY, OKX_API_SECRET and OKX_API_PASSPHRASE/);
    assert.equal(JSON.parse(stdout).event, 'no_key');
    assert.equal(existsSync(dir), false);
    const half = run({ OKX_API_KEY: 'demo-key' }, dir);
    assert.equal(half.status, 64);
    assert.match(half.stderr, /come together/);
  });
});
