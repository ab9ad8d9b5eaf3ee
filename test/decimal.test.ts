import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isZero, plainDecimal, ValueError } from '../scripts/lib/decimal.ts';

test('plain decimal text stays as the exchange wrote it, trailing zeros included', () => {
  for (const text of ['0', '61837.63000000', '0.00000001', '12345678901234567890.123456789012345678', '-0.5']) {
    assert.equal(plainDecimal(text), text);
  }
});

test('exponents and JSON numbers become plain notation', () => {
  assert.equal(plainDecimal(1e-7), '0.0000001');
  assert.equal(plainDecimal('1.5E-8'), '0.000000015');
  assert.equal(plainDecimal('1.25e3'), '1250');
  assert.equal(plainDecimal('12e-1'), '1.2');
  assert.equal(plainDecimal(61837.5), '61837.5');
  assert.equal(plainDecimal(0), '0');
  assert.equal(plainDecimal('.5'), '0.5');
  assert.equal(plainDecimal('-1.5e-8'), '-0.000000015');
  assert.equal(plainDecimal('0012e1'), '120');
});

test('zeros beyond the 18th place are dropped, other digits there are an error', () => {
  assert.equal(plainDecimal('0.10000000000000000000'), '0.100000000000000000'.replace(/0+$/, ''));
  assert.throws(() => plainDecimal('0.1000000000000000001'), ValueError);
  assert.throws(() => plainDecimal('1e-19'), ValueError);
});

test('more than 20 integer digits are an error, never rounded', () => {
  assert.throws(() => plainDecimal('123456789012345678901'), ValueError);
  assert.throws(() => plainDecimal('1e20'), ValueError);
  assert.equal(plainDecimal('1e19'), '10000000000000000000');
});

test('what is no number is an error and not 0', () => {
  for (const value of [
    '',
    ' ',
    '.',
    '-',
    'abc',
    '1.2.3',
    '1,5',
    null,
    undefined,
    Number.NaN,
    Infinity,
    {},
    [],
    true,
    '0x10',
  ]) {
    assert.throws(() => plainDecimal(value), ValueError, JSON.stringify(value));
  }
});

test('zero is told in any notation', () => {
  assert.ok(isZero('0') && isZero('0.00000000') && isZero('-0'));
  assert.ok(!isZero('0.00000001') && !isZero('10'));
});
