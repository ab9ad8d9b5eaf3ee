import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { namedIn } from './promql.ts';

const short = (expression: string) =>
  namedIn(expression).map(({ metric, matchers, grouping }) => [
    metric,
    ...matchers.map(({ label }) => label),
    ...grouping,
  ]);

describe('what a PromQL expression names', () => {
  test('a metric alone, and one with matchers', () => {
    assert.deepEqual(short('up'), [['up']]);
    assert.deepEqual(namedIn('up{job=~"a|b",kind!="x{}"} == 0'), [
      {
        metric: 'up',
        matchers: [
          { label: 'job', operator: '=~', value: 'a|b' },
          { label: 'kind', operator: '!=', value: 'x{}' },
        ],
        grouping: [],
      },
    ]);
  });

  test('neither functions, nor keywords, numbers, ranges or texts', () => {
    assert.deepEqual(short('time() - last{a="rate(b)"} > 300 and rate(x[5m:15s]) >= bool 0.5'), [['last', 'a'], ['x']]);
    assert.deepEqual(short('changes(start[$__rate_interval]) / -2'), [['start']]);
  });

  test('grouping belongs to all that is grouped, on either side of it, and to nothing else', () => {
    const expression = 'histogram_quantile(0.99, sum by (le, kind) (rate(a_bucket[5m]) + b)) > c';
    assert.deepEqual(short(expression), [['a_bucket', 'le', 'kind'], ['b', 'le', 'kind'], ['c']]);
    assert.deepEqual(short('sum(a) by (x) / sum by (y) (max by (z) (b))'), [
      ['a', 'x'],
      ['b', 'y', 'z'],
    ]);
  });

  test('what it does not know is refused, not passed over', () => {
    for (const bad of [
      'rat(a[5m])',
      'a * on (x) group_left b',
      'sum without (x) (a)',
      'sum by (x (a)',
      'rate(a[5m]',
      'a{b="c}',
      'a{b}',
      'a)',
      'a @ 5',
    ]) {
      assert.throws(() => namedIn(bad), Error, bad);
    }
  });
});
