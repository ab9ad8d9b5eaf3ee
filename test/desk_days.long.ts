/**
 * Days of the desk in fast-forward (`npm run test:desk`: ten): the real scripts against the simulated OKX, whose clock and theirs leap by hours, with kills at random
 * and hours in which the venue does not answer. What they wrote is compared with figures that this file computes by itself.
 */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { cpSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { z } from 'zod';
import { type Simulator, startSimulator } from '../scripts/exchange_sim.ts';
import { readJson } from '../scripts/lib/files.ts';
import { objectsOfAll } from '../scripts/lib/jsonl.ts';
import { Child, scriptPlan, waitFor } from '../scripts/lib/processes.ts';
import { ensureTier } from '../scripts/lib/schema.ts';
import { SERIES_STATE } from '../scripts/lib/series.ts';
import { seededRandom } from '../scripts/lib/sim/market.ts';
import { type NaiveSar, naiveSar } from './naive_sar.ts';
import { Pipeline } from './pipeline.ts';

const HOUR = 3_600_000;
const MINUTE = 60_000;
const CANDLE = 5 * MINUTE;
const SEED = Number(process.env.MARKETPRISM_DESK_SEED ?? 1);
const DAYS = Number(process.env.MARKETPRISM_DESK_DAYS ?? 1);
const COINS = ['BTC', 'ETH', 'XRP', 'SOL', 'DOGE', 'TON', 'LINK', 'AAVE'];
const THRESHOLD = 3;
const STEP_LIMIT_MS = 60_000;
const SCRIPTS = [
  'sar_slope_collector',
  'escape_signal_calc',
  'coin_price_tracker',
  'unified_data_collector',
  'major_events_monitor',
];
/** Files of five minutes that stand on the others, by series. */
const UNIFIED = {
  sar_top_count: 'unified/sar_top_count.jsonl',
  liquidation_1h: 'unified/liquidation_1h.jsonl',
  coin_change_total: 'unified/coin_change_total.jsonl',
};
const EVENTS_STATE = z.object({ data_time: z.number().nullable() });
const CLOCK = join(import.meta.dirname, '..', 'scripts', 'lib', 'chaos', 'stepped_clock.mjs');

interface Line extends Record<string, unknown> {
  slot: number;
}

describe(`${DAYS} days of the desk, seed ${SEED}`, () => {
  const dir = mkdtempSync(join(tmpdir(), 'marketprism-desk-'));
  const dataDir = join(dir, 'data');
  const clockFile = join(dir, 'clock');
  const random = seededRandom(SEED);
  const children = new Map<string, Child>();
  const kills = new Map<string, number>();
  const memory = new Map<string, number[]>();
  const pipeline = new Pipeline();
  let simulator: Simulator;
  let skipped = 0;
  const now = () => Date.now() + skipped;
  let began = 0;

  const state = (name: string) => SERIES_STATE.parse(readJson(join(dataDir, 'state', `series-${name}.json`)));
  /** 0 while it has not begun. */
  const lastOf = (name: string) => {
    if (name === 'major_events')
      return EVENTS_STATE.safeParse(readJson(join(dataDir, 'state', `${name}.json`))).data?.data_time ?? 0;
    return existsSync(join(dataDir, 'state', `series-${name}.json`)) ? (state(name).last_slot ?? 0) : 0;
  };

  async function lines(file: string): Promise<Line[]> {
    const out: Line[] = [];
    for await (const line of objectsOfAll(join(dataDir, file))) {
      assert.ok('value' in line, `${line.path}:${line.number} is no record`);
      out.push(line.value as Line);
    }
    return out;
  }

  /** All that is over by now is written. */
  async function caughtUp(): Promise<void> {
    const settled = () => now() - 30_000;
    const newest = (cadence: number, time: number) => Math.floor(time / cadence) * cadence;
    const wanted: [name: string, at: number][] = [
      ['sar_slope', newest(CANDLE, settled()) - CANDLE],
      ['sar_slope_summary', newest(MINUTE, settled())],
      ['escape_signal', newest(MINUTE, settled() - CANDLE)],
      ['coin_prices', newest(30 * MINUTE, settled())],
      ...Object.keys(UNIFIED).map((name): [string, number] => [name, newest(CANDLE, settled() - MINUTE)]),
    ];
    // At first it waits for the present minute.
    if (skipped > 0) wanted.push(['major_events', newest(CANDLE, settled() - 2 * CANDLE)]);
    const isDone = () => wanted.every(([name, at]) => lastOf(name) >= at);
    const names = wanted.map(([name]) => name);
    const shown = () =>
      new Error(
        `stuck at ${new Date(now()).toISOString()}: ${names.map((name) => `${name} ${new Date(lastOf(name)).toISOString()}`).join(', ')}`,
      );
    const deadline = Date.now() + STEP_LIMIT_MS;
    await waitFor(
      'all series',
      2 * STEP_LIMIT_MS,
      async () => isDone(),
      () => (Date.now() > deadline ? shown() : null),
    );
  }

  function killOne(): void {
    const names = [...children.keys()];
    const name = names[Math.floor(random() * names.length)]!;
    if (children.get(name)!.signal('SIGKILL')) kills.set(name, (kills.get(name) ?? 0) + 1);
  }

  /** Resident memory of each script, MiB; one that was killed a moment ago is left out. */
  function lookAtMemory(): void {
    for (const [name, { pid }] of children) {
      const status = pid === undefined ? '' : readFileSync(`/proc/${pid}/status`, 'utf8');
      const resident = /VmRSS:\s+(\d+)/.exec(status)?.[1];
      if (resident !== undefined) memory.set(name, [...(memory.get(name) ?? []), Math.round(Number(resident) / 1024)]);
    }
  }

  /** Time leaps, for the venue and for the scripts. */
  function leap(hours: number): void {
    for (let left = hours; left > 0; left -= 2)
      simulator.apply({ action: 'skip', exchange: 'okx_derivatives', seconds: Math.min(left, 2) * 3600 });
    skipped += hours * HOUR;
    writeFileSync(clockFile, String(skipped));
  }

  before(async () => {
    writeFileSync(clockFile, '0');
    await pipeline.choosePorts();
    await pipeline.startDatabase();
    for (const tier of ['hot', 'cold'] as const) await ensureTier(pipeline.client(), tier, `marketprism_${tier}`);
    simulator = await startSimulator({
      seed: SEED,
      exchanges: ['okx_derivatives'],
      symbols: ['BTC-USDT'],
      tradesPerSecond: 0.05,
      diffsPerSecond: 0.1,
    });
    const endpoints = join(dir, 'endpoints.json');
    writeFileSync(endpoints, JSON.stringify(simulator.endpoints));
    const env: NodeJS.ProcessEnv = {
      PATH: process.env.PATH,
      MARKETPRISM_DATA_DIR: dataDir,
      MARKETPRISM_ENDPOINTS: endpoints,
      MARKETPRISM_DESK_COINS: COINS.join(','),
      MARKETPRISM_ESCAPE_THRESHOLD: String(THRESHOLD),
      MARKETPRISM_CLOCK_FILE: clockFile,
      CLICKHOUSE_URL: pipeline.env.CLICKHOUSE_URL,
    };
    began = now();
    for (const name of SCRIPTS) {
      const plan = scriptPlan(name, [], env, join(dir, 'logs'));
      const child = new Child({ ...plan, args: ['--import', CLOCK, ...plan.args], restartWaitMs: 100 }, () => true);
      children.set(name, child);
      child.start();
    }
    await caughtUp();
    lookAtMemory();
    for (let days = 0; days < DAYS; ) {
      const hours = 2 + Math.floor(random() * 9);
      // Now and then the venue does not answer for the most of it.
      const isAway = random() < 0.25;
      if (isAway)
        simulator.apply({
          action: 'away',
          exchange: 'okx_derivatives',
          seconds: (hours - 1) * 3600 + Math.floor(random() * 3600),
        });
      leap(hours);
      days += hours / 24;
      for (let times = Math.floor(random() * 3); times > 0; times -= 1) {
        await new Promise((done) => setTimeout(done, random() * 2500));
        killOne();
      }
      await caughtUp();
      lookAtMemory();
    }
    for (const child of children.values()) {
      const exit = await child.stop();
      assert.deepEqual([exit?.code, exit?.signal], [0, null], exit?.lastLine);
    }
  });
  after(async () => {
    for (const child of children.values()) await child.stop();
    await simulator?.close();
    await pipeline.close();
    const logs = process.env.MARKETPRISM_TEST_LOGS;
    if (logs !== undefined) cpSync(dir, join(logs, basename(dir)), { recursive: true });
    rmSync(dir, { recursive: true, force: true });
  });

  /** Slots of a series: each from the first to the last once, apart from corrections. */
  async function checkSlots(
    name: string,
    file: string,
    cadence: number,
    keyOf: (line: Line) => string,
  ): Promise<Line[]> {
    const all = await lines(file);
    const once = new Set<string>();
    const doubled: string[] = [];
    const slots = new Set<number>();
    for (const line of all) {
      slots.add(line.slot);
      if (line.correction === true) continue;
      const key = `${line.slot} ${keyOf(line)}`;
      if (once.has(key)) doubled.push(key);
      once.add(key);
    }
    const { first_slot: first, last_slot: last, missing } = state(name);
    const lost: number[] = [];
    for (let slot = first!; slot <= last!; slot += cadence) if (!slots.has(slot)) lost.push(slot);
    assert.deepEqual({ doubled, lost, missing }, { doubled: [], lost: [], missing: [] });
    return all;
  }

  /** Finished candles, from the venue itself. */
  async function candles(coin: string, bar: string, from: number, to: number) {
    const found = new Map<number, [number, number, number, number]>();
    for (let after = to + 1; after > from; ) {
      await new Promise((done) => setTimeout(done, 110));
      const path = `/api/v5/market/history-candles?instId=${coin}-USDT-SWAP&bar=${bar}&after=${after}&before=${from - 1}&limit=300`;
      const answer = (await (await fetch(`${simulator.endpoints.okx_derivatives!.rest}${path}`)).json()) as {
        code: string;
        data: string[][];
      };
      assert.equal(answer.code, '0');
      for (const [start, ...rest] of answer.data)
        found.set(Number(start), rest.slice(0, 4).map(Number) as [number, number, number, number]);
      if (answer.data.length < 300) break;
      after = Number(answer.data.at(-1)![0]);
    }
    return found;
  }

  const reference = new Map<string, Map<number, NaiveSar>>();

  test('each SAR row is there once and is what the venue’s candles give', async (context) => {
    const rows = await checkSlots('sar_slope', 'sar_slope_jsonl/sar_slope_data.jsonl', CANDLE, ({ symbol }) =>
      String(symbol),
    );
    const { first_slot: first, last_slot: last } = state('sar_slope');
    assert.ok(first! <= began - 7.9 * 24 * HOUR, 'it begins eight days before');
    for (const coin of COINS) {
      const found = await candles(coin, '5m', first!, last!);
      const starts = [...found.keys()].sort((one, other) => one - other);
      assert.equal(starts.length, (last! - first!) / CANDLE + 1);
      reference.set(coin, naiveSar(starts.map((start) => [start, ...found.get(start)!])));
    }
    let compared = 0;
    for (const row of rows) {
      const expected = reference.get(row.symbol as string)!.get(row.slot)!;
      const told = {
        sar: row.sar_value,
        position: row.sar_position,
        quadrant: row.sar_quadrant,
        sequence: row.sequence,
      };
      const { sar, position, quadrant, sequence } = expected;
      assert.ok(
        Math.abs(Number(told.sar) - sar) <= 1e-9 * sar,
        `${row.symbol} ${row.datetime}: ${told.sar}, not ${sar}`,
      );
      assert.deepEqual({ ...told, sar }, { sar, position, quadrant, sequence }, `${row.symbol} ${row.datetime}`);
      assert.ok(
        expected.slope === null ? row.slope_value === null : Math.abs(Number(row.slope_value) - expected.slope) < 1e-9,
      );
      assert.equal(row.slope_direction, expected.direction);
      compared += 1;
    }
    assert.equal(compared, COINS.length * ((last! - first!) / CANDLE + 1));
    context.diagnostic(`${compared} rows; killed ${[...kills].map(([name, times]) => `${name} ${times}×`).join(', ')}`);
  });

  test('memory stays flat', (context) => {
    for (const [name, figures] of memory) {
      const [first, last] = [figures[0]!, figures.at(-1)!];
      context.diagnostic(`${name}: ${first} MiB at first, ${last} at last, at most ${Math.max(...figures)}`);
      assert.ok(last <= first * 1.5, `${name}: ${figures.join(', ')} MiB`);
    }
  });

  test('each minute’s summary is there once and counts the coins as they stand', async () => {
    const file = 'sar_slope_jsonl/sar_slope_summary.jsonl';
    for (const line of await checkSlots('sar_slope_summary', file, MINUTE, () => '')) {
      const candle = Math.floor(line.slot / CANDLE) * CANDLE - CANDLE;
      const now = COINS.flatMap((coin) => reference.get(coin)!.get(candle) ?? []);
      const bullish = now.filter(({ position }) => position === 'bullish').length;
      assert.deepEqual(
        [line.total_symbols, line.bullish_count, line.bearish_count],
        [8, bullish, 8 - bullish],
        String(line.datetime),
      );
    }
  });

  test('each minute’s escape records are there once, and count what a recount counts', async (context) => {
    const file = 'escape_signal_jsonl/escape_signal_stats.jsonl';
    const records = await checkSlots('escape_signal', file, MINUTE, ({ rule }) => String(rule));
    const breadth = new Map<number, number>();
    for (const rows of reference.values())
      for (const [start, { topping }] of rows) breadth.set(start, (breadth.get(start) ?? 0) + (topping ? 1 : 0));
    const recount = (slot: number, minutes: number) => {
      const values: number[] = [];
      for (let back = 0; back < minutes; back += 1) {
        const value = breadth.get(slot - back * MINUTE);
        if (value !== undefined) values.push(value);
      }
      return { signals: values.filter((value) => value >= THRESHOLD).length, most: Math.max(...values) };
    };
    let [signals, compared] = [0, 0];
    for (const record of records.filter(({ rule, slot }) => rule === 'sar-breadth' && slot % (7 * MINUTE) === 0)) {
      const [short, long] = [recount(record.slot, 120), recount(record.slot, 1440)];
      assert.deepEqual(
        [record.signal_2h_count, record.max_signal_2h, record.signal_24h_count, record.max_signal_24h],
        [short.signals, short.most, long.signals, long.most],
        String(record.stat_time),
      );
      signals += short.signals;
      compared += 1;
    }
    assert.ok(signals > 0, 'a market without tops proves nothing');
    context.diagnostic(`${compared} minutes recounted, ${records.length} records`);
  });

  test('history gives byte for byte what was written live', async () => {
    const written = readFileSync(join(dataDir, 'escape_signal_jsonl/escape_signal_stats.jsonl'), 'utf8')
      .trimEnd()
      .split('\n');
    const records = written.map((line) => JSON.parse(line) as Line);
    const from = records[Math.floor(records.length / 2)]!.slot;
    const to = records.at(-1)!.slot + MINUTE;
    const script = join(import.meta.dirname, '..', 'scripts', 'escape_signal_calc.ts');
    const time = (ms: number) => new Date(ms).toISOString();
    const env = { ...process.env, MARKETPRISM_DATA_DIR: dataDir, MARKETPRISM_ESCAPE_THRESHOLD: String(THRESHOLD) };
    const result = spawnSync(process.execPath, ['--import', 'tsx', script, '--from', time(from), '--to', time(to)], {
      env,
      encoding: 'utf8',
      maxBuffer: 2 ** 28,
    });
    assert.equal(result.status, 0, result.stderr);
    const live = written.filter((_, at) => records[at]!.slot >= from && records[at]!.correction !== true);
    assert.deepEqual(result.stdout.trimEnd().split('\n'), live);
  });

  test('each half hour’s prices are there once, of all coins, against the open of the day in Beijing', async (context) => {
    const records = await checkSlots(
      'coin_prices',
      'coin_price_tracker/coin_prices_30min.jsonl',
      30 * MINUTE,
      () => '',
    );
    const last = new Map(records.map((record) => [record.slot, record]));
    const [first, end] = [Math.min(...last.keys()), Math.max(...last.keys())];
    for (const coin of COINS) {
      const opens = await candles(coin, '30m', first, end + 30 * MINUTE);
      const days = await candles(coin, '1D', first - 24 * HOUR, end);
      for (const [slot, record] of last) {
        const { base_price: base, current_price: current } = (
          record.day_changes as Record<string, { base_price: number; current_price: number }>
        )[coin]!;
        const day = Math.floor((slot + 8 * HOUR) / (24 * HOUR)) * 24 * HOUR - 8 * HOUR;
        assert.equal(base, days.get(day)?.[0], `${coin} ${record.collect_time}`);
        // Taken at the slot, it is the price of some seconds later.
        const open = opens.get(slot)![0];
        assert.ok(
          Math.abs(current - open) <= 0.01 * open,
          `${coin} ${record.collect_time}: ${current}, opened at ${open}`,
        );
      }
    }
    context.diagnostic(`${last.size} half hours`);
  });

  test('what stands on these series is there once, too: counts of tops, liquidations, changes', async () => {
    for (const [name, file] of Object.entries(UNIFIED)) await checkSlots(name, file, CANDLE, () => '');
    const topping = (slot: number) =>
      [...reference].filter(([, rows]) =>
        [...rows].some(([start, row]) => row.topping && start + CANDLE > slot - 2 * HOUR && start + CANDLE <= slot),
      );
    for (const line of (await lines(UNIFIED.sar_top_count)).filter(({ slot }) => slot % HOUR === 0)) {
      const coins = topping(line.slot).map(([coin]) => coin);
      assert.deepEqual([line.count, line.symbols], [coins.length, coins.sort()], String(line.datetime));
    }
    // Nothing was collected here: that is no 0.
    for (const { amount } of await lines(UNIFIED.liquidation_1h)) assert.equal(amount, null);
  });

  test('each event is told once', async (context) => {
    const file = 'major_events/major_events.jsonl';
    const events = existsSync(join(dataDir, file)) ? await lines(file) : [];
    const ids = events.map(({ id }) => String(id));
    assert.deepEqual(ids, [...new Set(ids)]);
    context.diagnostic(`${ids.length} events: ${ids.map((id) => id.slice(0, 2)).join(' ')}`);
  });
});
