/** Parabolic SAR against Wilder's own example, a library, and an independent computation; and the rows that follow from it. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { test } from 'node:test';
import { PSAR } from 'technicalindicators';
import { candleOf, SarChain, type SarRow, summaryOf } from '../scripts/lib/desk/sar.ts';
import { seededRandom } from '../scripts/lib/sim/market.ts';
import { naiveSar } from './naive_sar.ts';

const CANDLE = 300_000;
const T0 = Date.UTC(2026, 10, 20);
const SCRIPT = join(import.meta.dirname, '..', 'scripts', 'sar_slope_collector.ts');

/** Days of the example in Wilder's book (1978), from the entry on. */
const HIGHS = [
  52.35, 52.1, 51.8, 52.1, 52.5, 52.8, 52.5, 53.5, 53.5, 53.8, 54.2, 53.4, 53.5, 54.4, 55.2, 55.7, 57, 57.5, 58, 57.7,
  58, 57.5, 57, 56.7, 57.5, 56.7, 56, 56.2, 54.8, 55.5, 54.7, 54, 52.5, 51, 51.5, 51.7, 53,
];
const LOWS = [
  51.5, 51, 50.5, 51.25, 51.7, 51.85, 51.5, 52.3, 52.5, 53, 53.5, 52.5, 52.1, 53, 54, 55, 56, 56.5, 57, 56.5, 57.3,
  56.7, 56.3, 56.2, 56, 55.5, 55, 54.9, 54, 54.5, 53.8, 53, 51.5, 50, 50.5, 50.2, 51.5,
];

test('Wilder’s own example: his SAR on the days that he gives, the flips included', () => {
  const close = (i: number) => (HIGHS[i]! + LOWS[i]!) / 2;
  // He enters long at the significant point of the trade before.
  const entry = { timestamp: T0, high: HIGHS[0]!, low: LOWS[0]!, close: close(0), sar_value: 50 };
  const chain = new SarChain('W', [{ ...entry, sar_position: 'bullish', sequence: 1, ep: HIGHS[0]!, af: 0.02 }]);
  const sars = [50];
  const positions: string[] = ['bullish'];
  for (let i = 1; i < HIGHS.length; i += 1) {
    const row = chain.add({
      timestamp: T0 + i * CANDLE,
      open: close(i),
      high: HIGHS[i]!,
      low: LOWS[i]!,
      close: close(i),
    });
    sars.push(row.sar_value);
    positions.push(row.sar_position);
  }
  const rounded = (i: number, digits: number) => Number(sars[i]!.toFixed(digits));
  assert.deepEqual([rounded(1, 3), rounded(4, 3), rounded(35, 2), rounded(36, 2)], [50.047, 50.182, 52.93, 50]);
  const turns = positions.flatMap((position, i) => (i > 0 && position !== positions[i - 1] ? [i] : []));
  assert.deepEqual([turns.length, turns.at(-1)], [2, 36], 'at the last day’s high he turns, at the lowest low before');
});

/** A seeded walk; without wicks no candle makes a new extreme and flips at once. */
function walk(seed: number, count: number, wick: number) {
  const random = seededRandom(seed);
  let price = 100;
  return Array.from({ length: count }, (_, i) => {
    const open = price;
    price *= 1 + (random() - 0.48) * 0.01 + 0.003 * Math.sin(i / 25);
    const [top, bottom] = [Math.max(open, price), Math.min(open, price)];
    const [high, low] = [top * (1 + random() * wick), bottom * (1 - random() * wick)];
    return { timestamp: T0 + i * CANDLE, open, high, low, close: price };
  });
}

test('where no candle does both, the library that takes the extreme before the flip gives the same', () => {
  // It begins long.
  const candles = walk(5, 4000, 0);
  const first = candles.findIndex(({ open, close }) => close > open);
  const used = candles.slice(first);
  const chain = new SarChain('X');
  const ours = used.map((candle) => chain.add(candle));
  const theirs = PSAR.calculate({
    high: used.map(({ high }) => high),
    low: used.map(({ low }) => low),
    step: 0.02,
    max: 0.2,
  });
  assert.equal(theirs.length, ours.length);
  for (const [i, row] of ours.entries())
    assert.ok(Math.abs(row.sar_value - theirs[i]!) < 1e-9, `${i}: ${row.sar_value}, not ${theirs[i]}`);
  assert.ok(ours.filter(({ sequence }) => sequence === 1).length > 50, 'a walk without flips proves nothing');
});

test('with wicks, each row is what an independent computation gives: SAR, position, quadrant, slope', () => {
  for (const seed of [1, 2, 3]) {
    const candles = walk(seed, 3000, 0.004);
    const expected = naiveSar(
      candles.map(({ timestamp, open, high, low, close }) => [timestamp, open, high, low, close]),
    );
    const chain = new SarChain('X');
    const seen = new Set<string>();
    for (const candle of candles) {
      const row = chain.add(candle);
      const { sar, position, quadrant, sequence, slope, direction, topping } = expected.get(candle.timestamp)!;
      assert.ok(Math.abs(row.sar_value - sar) < 1e-9 * sar);
      assert.deepEqual(
        [row.sar_position, row.sar_quadrant, row.sequence, row.slope_direction],
        [position, quadrant, sequence, direction],
      );
      assert.equal(row.position_duration, sequence * 5);
      if (slope === null) assert.equal(row.slope_value, null);
      else assert.ok(Math.abs(row.slope_value! - slope) < 1e-12);
      seen.add(`${quadrant}${topping ? ' topping' : ''}`);
    }
    for (const each of ['Q1', 'Q1 topping', 'Q3']) assert.ok(seen.has(each), `a walk without ${each} proves nothing`);
  }
});

test('a chain goes on from its last ten rows as if it had never ended', () => {
  const candles = walk(7, 600, 0.004);
  const whole = new SarChain('X');
  const rows = candles.map((candle) => whole.add(candle));
  for (const cut of [1, 2, 9, 10, 11, 300]) {
    const again = new SarChain('X', JSON.parse(JSON.stringify(rows.slice(Math.max(cut - 10, 0), cut))));
    const rest = candles.slice(cut).map((candle) => again.add(candle));
    assert.deepEqual(rest, rows.slice(cut), `cut at ${cut}`);
  }
});

test('the first candle’s colour is the first direction; what one point cannot tell is null', () => {
  const add = (open: number, close: number) => new SarChain('X').add({ timestamp: T0, open, high: 12, low: 8, close });
  const [up, down, flat] = [add(9, 11), add(11, 9), add(10, 10)];
  assert.deepEqual([up.sar_position, up.sar_value, up.ep], ['bullish', 8, 12]);
  assert.deepEqual([down.sar_position, down.sar_value, down.ep], ['bearish', 12, 8]);
  assert.equal(flat.sar_position, 'bearish', 'only a rise is bullish');
  assert.deepEqual([up.sar_slope, up.direction_ratio, up.slope_value, up.slope_direction], [null, null, null, null]);
});

test('after a gap the sequence begins anew, and the row says how many candles are missing; time does not go back', () => {
  const chain = new SarChain('X');
  const [one, two, three] = [10, 11, 12].map((close, i) => ({
    timestamp: T0 + i * CANDLE,
    open: close - 1,
    high: close,
    low: close - 1,
    close,
  }));
  chain.add(one!);
  assert.deepEqual([chain.add(two!).sequence, chain.last], [2, two!.timestamp]);
  const after = chain.add({ ...three!, timestamp: two!.timestamp + 4 * CANDLE });
  assert.deepEqual([after.gap, after.sequence], [3, 1]);
  assert.throws(() => chain.add(two!), /is not later than/);
});

test('a minute’s summary counts the coins that have its candle, and names those that do not', () => {
  const row = (symbol: string, position: SarRow['sar_position'], value: number | null) => ({
    symbol,
    sar_position: position,
    slope_value: value,
  });
  const rows = [row('A', 'bullish', 0.9), row('B', 'bearish', -1), row('C', 'bullish', 0.8), row('D', 'bullish', null)];
  const minute = T0 + 7 * 60_000;
  assert.equal(candleOf(minute), T0);
  assert.deepEqual(summaryOf(minute, rows, ['A', 'B', 'C', 'D', 'E']), {
    timestamp: minute,
    datetime: '2026-11-20 08:07:00',
    data_timestamp: T0,
    total_symbols: 4,
    missing_symbols: ['E'],
    bullish_count: 3,
    bearish_count: 1,
    bullish_80_plus_count: 1,
    bearish_80_plus_count: 1,
    bullish_80_plus: ['A'],
    bearish_80_plus: ['B'],
  });
  const nothing = summaryOf(minute, [], ['A']);
  assert.deepEqual(
    [nothing.bullish_count, nothing.bearish_80_plus_count, nothing.missing_symbols],
    [null, null, ['A']],
  );
});

test('on standard input: texts and numbers alike, symbols side by side, a bad line told with its number', () => {
  const candles = walk(9, 50, 0.002).flatMap((candle) => [
    { symbol: 'A', ...candle },
    {
      symbol: 'B',
      ...candle,
      open: String(candle.open),
      high: String(candle.high),
      low: String(candle.low),
      close: String(candle.close),
    },
  ]);
  const lines = candles.map((candle) => JSON.stringify(candle));
  lines.splice(10, 0, '{"symbol":"A","timestamp":1,"open":"x","high":1,"low":1,"close":1}', 'no json');
  const result = spawnSync(process.execPath, ['--import', 'tsx', SCRIPT, '--stdin'], {
    input: lines.join('\n'),
    encoding: 'utf8',
  });
  assert.equal(result.status, 1);
  assert.match(result.stderr, /^line 11: open: .*\nline 12: /);
  const rows = result.stdout
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as SarRow);
  const of = (symbol: string) => rows.filter((row) => row.symbol === symbol).map(({ symbol: _, ...row }) => row);
  assert.equal(of('A').length, 50);
  assert.deepEqual(of('A'), of('B'));
});
