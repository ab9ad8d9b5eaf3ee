/** Escape signals: rules on small cases that can be counted by hand, and against a naive recount. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { test } from 'node:test';
import { type EscapeInput, EscapeModel, type EscapeRow } from '../scripts/lib/desk/escape.ts';
import { seededRandom } from '../scripts/lib/sim/market.ts';

const MINUTE = 60_000;
const CANDLE = 5 * MINUTE;
const T0 = Date.UTC(2026, 10, 20);
const SCRIPT = join(import.meta.dirname, '..', 'scripts', 'escape_signal_calc.ts');

const TOPPING = { sar_position: 'bullish', sar_quadrant: 'Q1', slope_direction: 'down' } as const;
const RISING = { sar_position: 'bullish', sar_quadrant: 'Q1', slope_direction: 'up' } as const;
const FALLING = { sar_position: 'bearish', sar_quadrant: 'Q3', slope_direction: 'down' } as const;
const coin = (symbol: string, timestamp: number, change: Partial<EscapeInput> = {}): EscapeInput => ({
  symbol,
  timestamp,
  ...RISING,
  ...change,
});

/** The record of a rule at a minute. */
function recordOf(model: EscapeModel, slot: number, rule: EscapeRow['rule'] = 'sar-breadth') {
  return model.evaluate(slot).find((each) => each.rule === rule)!;
}

test('breadth counts the coins that are bullish while their slope points down, in the minute of their candle', () => {
  const model = new EscapeModel(2);
  model.add(coin('A', T0, TOPPING));
  model.add(coin('A', T0, TOPPING));
  model.add(coin('B', T0, { ...TOPPING, sar_quadrant: 'Q2' }));
  model.add(coin('C', T0));
  model.add(coin('D', T0, FALLING));
  model.add(coin('E', T0, { ...TOPPING, slope_direction: null }));
  const record = recordOf(model, T0);
  assert.deepEqual(
    [record.breadth, record.coins, record.is_signal, record.signal_2h_count, record.max_signal_24h],
    [2, 5, true, 1, 2],
  );
  assert.deepEqual(
    [record.stat_time, record.created_at, record.data_time],
    ['2026-11-20 08:00:00', '2026-11-20 08:05:00', '2026-11-20 08:00:00'],
  );
  // Until the next candle it is the newest; then nothing is known, which is not 0.
  assert.deepEqual([recordOf(model, T0 + 4 * MINUTE).breadth, recordOf(model, T0 + CANDLE).breadth], [2, null]);
});

test('counts are of signalling minutes in the last 120 and 1440, the present one included', () => {
  const model = new EscapeModel(1);
  for (let at = T0; at < T0 + 26 * 60 * MINUTE; at += CANDLE) {
    // A signal at the very first candle, and then at one in an hour.
    const isTop = (at - T0) % (60 * MINUTE) === 0;
    model.add(coin('A', at, isTop ? TOPPING : RISING));
  }
  const at = (minutes: number) => recordOf(model, T0 + minutes * MINUTE);
  assert.equal(at(0).signal_2h_count, 1);
  assert.deepEqual(
    [at(119).signal_2h_count, at(120).signal_2h_count],
    [2, 2],
    'the minute 120 before is out when the next signal is in',
  );
  assert.deepEqual([at(1439).signal_24h_count, at(1440).signal_24h_count], [24, 24]);
  const last = at(1445);
  assert.deepEqual([last.missing_2h, last.missing_24h, last.max_signal_2h], [0, 0, 1]);
});

test('what is missing in a window is said, and an empty window is null', () => {
  const model = new EscapeModel(1);
  model.add(coin('A', T0, TOPPING));
  const hole = recordOf(model, T0 + 60 * MINUTE);
  assert.deepEqual([hole.signal_2h_count, hole.missing_2h, hole.missing_24h], [1, 23, 287]);
  const empty = recordOf(model, T0 + 1440 * MINUTE);
  assert.deepEqual([empty.signal_24h_count, empty.max_signal_2h, empty.decline_strength_level], [null, null, null]);
});

test('strength is the share of the coins that fall or rise, in levels', () => {
  for (const [falling, level] of [
    [9, 0],
    [10, 1],
    [12, 1],
    [13, 2],
    [16, 3],
    [19, 4],
  ] as const) {
    const model = new EscapeModel(8);
    for (let i = 0; i < 20; i += 1) model.add(coin(`C${i}`, T0, i < falling ? FALLING : RISING));
    assert.equal(recordOf(model, T0).decline_strength_level, level, `${falling} of 20`);
  }
  const model = new EscapeModel(8);
  for (let i = 0; i < 20; i += 1) model.add(coin(`C${i}`, T0, RISING));
  const { rise_strength_level: rise, decline_strength_level: decline } = recordOf(model, T0);
  assert.deepEqual([rise, decline], [4, 0]);
});

/** Candles of coins over a span; each coin's close moves from `from` to `to` on its own line, high and low around it. */
function climb(
  model: EscapeModel,
  symbol: string,
  hours: number,
  from: number,
  to: number,
  without: number | null = null,
): void {
  const count = (hours * 60) / 5;
  for (let i = 0; i < count; i += 1) {
    if (i === without) continue;
    const close = from + ((to - from) * i) / (count - 1);
    model.add(coin(symbol, T0 + i * CANDLE, { close, high: close + 0.1, low: close - 0.1 }));
  }
}

test('range-position counts coins at the top of their 48 hours, the legacy rule those at the bottom, too', () => {
  const model = new EscapeModel(2);
  climb(model, 'UP', 48, 100, 200);
  climb(model, 'DOWN', 48, 200, 100);
  climb(model, 'DOWN2', 48, 200, 100);
  const records = model.evaluate(T0 + 48 * 60 * MINUTE - CANDLE) as (EscapeRow & Record<string, unknown>)[];
  const [, range, legacy] = records;
  assert.deepEqual([range!.breadth, range!.is_signal, legacy!.breadth, legacy!.is_signal], [1, false, 3, true]);
  assert.deepEqual(
    [range!.scenario_3, range!.scenario_4, range!.scenario_1, range!.scenario_2],
    [2, 1, null, null],
    'seven days are not whole',
  );
});

test('a range that lacks one candle is null, not a smaller range; a coin with one is not counted', () => {
  const last = T0 + 48 * 60 * MINUTE - CANDLE;
  const gap = new EscapeModel(1);
  climb(gap, 'UP', 48, 100, 200, 100);
  assert.equal(recordOf(gap, last, 'range-position').breadth, null);
  const short = new EscapeModel(1);
  climb(short, 'UP', 47, 100, 200);
  assert.equal(recordOf(short, last - 60 * MINUTE, 'range-position').breadth, null);
  const two = new EscapeModel(1);
  climb(two, 'UP', 48, 100, 200, 100);
  climb(two, 'WHOLE', 48, 100, 200);
  const { breadth, coins } = recordOf(two, last, 'range-position');
  assert.deepEqual([breadth, coins], [1, 1]);
});

test('seven days give the other two scenarios', () => {
  const model = new EscapeModel(1);
  climb(model, 'UP', 168, 100, 200);
  climb(model, 'DOWN', 168, 200, 100);
  const record = recordOf(model, T0 + 168 * 60 * MINUTE - CANDLE, 'range-position') as EscapeRow &
    Record<string, unknown>;
  assert.deepEqual([record.scenario_1, record.scenario_2, record.scenario_3, record.scenario_4], [1, 1, 1, 1]);
});

test('a row of a minute that is evaluated already is refused: it would change nothing any more', () => {
  const model = new EscapeModel(1);
  recordOf(model, T0);
  assert.throws(() => model.add(coin('A', T0)), /evaluated already/);
});

test('on standard input: each minute from the first to the last, as a naive recount has it', () => {
  const random = seededRandom(4);
  const rows: EscapeInput[] = [];
  for (let i = 0; i < 400; i += 1)
    for (const symbol of ['A', 'B', 'C', 'D'])
      if (random() > 0.05)
        rows.push(coin(symbol, T0 + i * CANDLE, random() < 0.4 ? TOPPING : random() < 0.5 ? FALLING : RISING));
  const run = (input: string) =>
    spawnSync(process.execPath, ['--import', 'tsx', SCRIPT, '--stdin'], {
      input,
      encoding: 'utf8',
      env: { ...process.env, MARKETPRISM_ESCAPE_THRESHOLD: '2' },
      maxBuffer: 2 ** 26,
    });
  const input = rows.map((row) => JSON.stringify(row)).join('\n');
  const result = run(input);
  assert.equal(result.status, 0, result.stderr);
  const records = result.stdout
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as EscapeRow)
    .filter(({ rule }) => rule === 'sar-breadth');
  const breadth = new Map<number, number>();
  for (const { timestamp, sar_position, slope_direction } of rows)
    breadth.set(
      timestamp,
      (breadth.get(timestamp) ?? 0) + (sar_position === 'bullish' && slope_direction === 'down' ? 1 : 0),
    );
  assert.equal(records.length, (rows.at(-1)!.timestamp - T0) / MINUTE + 1);
  for (const record of records) {
    const within = (minutes: number) =>
      [...breadth].filter(([at]) => at <= record.slot && at > record.slot - minutes * MINUTE).map(([, value]) => value);
    const signals = (minutes: number) => within(minutes).filter((value) => value >= 2).length;
    assert.deepEqual(
      [record.signal_2h_count, record.signal_24h_count, record.max_signal_2h],
      [signals(120), signals(1440), Math.max(...within(120))],
    );
  }
  assert.equal(run(input).stdout, result.stdout, 'the same input gives the same bytes');
  const backwards = run(`${JSON.stringify(coin('A', T0 + CANDLE))}\n${JSON.stringify(coin('A', T0))}`);
  assert.deepEqual([backwards.status, backwards.stderr.startsWith('line 2: A')], [1, true]);
});
