/** What a repair is asked for over HTTP as flags of repair.ts, and what it says that it would do. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { environmentOf, flagsOf, planLines, plannedOf } from '../scripts/lib/web/repair_plan.ts';

const TOKEN = 'a-token-of-the-test';

describe('what a plan asks for, and what it says', () => {
  test('every member is a flag of one word, and its times are fixed', () => {
    const now = Date.UTC(2026, 10, 30, 12);
    const planned = plannedOf({ only: ['holes', 'refetch'], exchange: 'okx_spot', symbol: 'BTC-USDT' }, now);
    assert.deepEqual(flagsOf(planned), [
      '--only=holes,refetch',
      '--from=2026-11-29T12:00:00.000Z',
      '--to=2026-11-30T12:00:00.000Z',
      '--exchange=okx_spot',
      '--symbol=BTC-USDT',
    ]);
  });

  test('the child has no secret but the database’s, and the data directory of its mode', () => {
    const env = { PATH: '/bin', MARKETPRISM_API_TOKEN: TOKEN, OKX_API_SECRET: 'x', LARKBOT_ID: 'x', SMTP_URL: 'x' };
    const made = environmentOf(
      { mode: 'demo', dataDir: join('data', 'demo'), clickhousePassword: 'p' } as Parameters<typeof environmentOf>[0],
      env,
    );
    assert.deepEqual(
      Object.keys(made).filter((name) => name in env),
      ['PATH'],
    );
    assert.deepEqual([made.MARKETPRISM_DATA_DIR, made.CLICKHOUSE_PASSWORD, made.LOG_LEVEL], ['data', 'p', 'silent']);
  });

  test('a plan is read by its columns; one that was cut off is none', () => {
    const text = [
      'repair           of                                what                                                  rows',
      'duplicates       trade okx_spot spot BTC-USDT      taken out of hot                                         7',
      'different        trade okx_spot spot ETH-USDT      cannot: 3 rows that hot and cold tell differently        -',
      '',
      '7 rows; nothing was changed: --apply does it',
      '',
    ].join('\n');
    assert.deepEqual(planLines(text), [
      {
        ...{ repair: 'duplicates', subject: 'trade okx_spot spot BTC-USDT', what: 'taken out of hot' },
        ...{ rows: 7, is_possible: true },
      },
      {
        ...{ repair: 'different', subject: 'trade okx_spot spot ETH-USDT', rows: null, is_possible: false },
        what: '3 rows that hot and cold tell differently',
      },
    ]);
    assert.deepEqual(planLines('nothing to mend\n'), []);
    assert.equal(planLines(text.slice(0, text.indexOf('\n\n') + 1)), null);
    assert.equal(planLines(''), null);
    assert.equal(planLines('the database does not answer\n'), null);
  });
});
