import assert from 'node:assert/strict';
import { test } from 'node:test';
import { divide, liquidationId, multiply, sharesOfRatio, subtract } from '../scripts/lib/arithmetic.ts';
import { ValueError } from '../scripts/lib/decimal.ts';
import { MinuteSampler } from '../scripts/lib/sampling.ts';

test('products keep every digit', () => {
  assert.equal(multiply('2216113.01000000309', '0.01'), '22161.1301000000309');
  assert.equal(multiply('13', '100'), '1300');
  assert.equal(multiply('-0.5', '0.20'), '-0.1');
  assert.equal(multiply('0', '5.5'), '0');
  assert.throws(() => multiply('0.0000000001', '0.0000000001'), ValueError);
});

test('quotients are rounded at the 18th place', () => {
  assert.equal(divide('1', '3'), '0.333333333333333333');
  assert.equal(divide('2', '3'), '0.666666666666666667');
  assert.equal(divide('-2', '3'), '-0.666666666666666667');
  assert.equal(divide('100', '42219.9'), '0.002368551322954341');
  assert.equal(divide('1.50', '0.5'), '3');
  assert.throws(() => divide('1', '0.00'), ValueError);
});

test('shares of a ratio add to exactly 1', () => {
  assert.deepEqual(sharesOfRatio('1'), { long: '0.5', short: '0.5' });
  for (const ratio of ['1.1739', '1.9078', '0.0001', '0', '3', '12345.678']) {
    const { long, short } = sharesOfRatio(ratio);
    assert.equal(subtract('1', long), short);
    assert.ok(
      Math.abs(Number(long) / Math.max(Number(short), 1e-18) - Number(ratio)) < 1e-6 * Math.max(Number(ratio), 1),
    );
  }
});

test('a liquidation without an id gets one from what it says, the same each time', () => {
  const id = liquidationId('BTC-USDT', 'sell', '100', '2', 1692266434010);
  assert.equal(id, liquidationId('BTC-USDT', 'sell', '100', '2', 1692266434010));
  assert.match(id, /^[0-9a-f]{32}$/);
  assert.notEqual(id, liquidationId('BTC-USDT', 'buy', '100', '2', 1692266434010));
});

test('a reading is due once a minute of venue time, the first after a start at once, late ones never', () => {
  const sampler = new MinuteSampler();
  const minute = 29_000_000 * 60_000;
  const due = (offset: number, stream = 'a') => sampler.due(stream, minute + offset);
  assert.deepEqual(
    [due(12_000), due(59_999), due(60_000), due(60_001), due(30_000), due(180_500)],
    [true, false, true, false, false, true],
  );
  assert.equal(due(0, 'b'), true);
});
