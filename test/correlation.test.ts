/** Correlations with BTC: equal to a plain computation, honest about what is missing and about chance, and each anomaly told once. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import {
  askedRows,
  CORRELATION_ALERT,
  type CorrelationAlert,
  follow,
  leave,
  messageOf,
  replay,
  type Standing,
} from '../scripts/lib/correlation/alerts.ts';
import { LAGS, MOST_LAG } from '../scripts/lib/correlation/correlator.ts';
import { barsOf, type Period, TIMEFRAMES, type Timeframe } from '../scripts/lib/correlation/periods.ts';
import { TimeframeRound } from '../scripts/lib/correlation/round.ts';
import { type CorrelationRow, judge } from '../scripts/lib/correlation/rule.ts';
import { largestOf, upperTail } from '../scripts/lib/correlation/significance.ts';
import { seededRandom } from '../scripts/lib/sim/market.ts';
import { END, following, LIMITS, noise, normal, priceOf, row, type Series } from './correlation_series.ts';

const columns = (series: Series) => ({ times: [...series.keys()], closes: [...series.values()] });

function rowsOf(base: Series, coin: Series, timeframe: Timeframe = '5m', periods: Period[] = ['1d', '7d']) {
  const round = new TimeframeRound(timeframe, periods);
  round.setBase(columns(base), END);
  return round.rows('C', columns(coin));
}

/** The rules of the original, written down plainly: two passes per lag over pairs that are gathered first. */
function plainly(base: Series, coin: Series, timeframe: Timeframe, period: Period) {
  const width = TIMEFRAMES[timeframe];
  const begin = END - (barsOf(timeframe, period) - 1) * width;
  const aligned = [...base.keys()].filter((time) => time >= begin && time <= END && coin.has(time));
  const moves = (of: Series) =>
    new Map(
      aligned.flatMap((time): [number, number][] => {
        const isNext = time > begin && aligned.includes(time - width);
        return isNext ? [[time, of.get(time)! / of.get(time - width)! - 1]] : [];
      }),
    );
  const [x, y] = [moves(base), moves(coin)];
  let best = { corr: Number.NEGATIVE_INFINITY, lag: -1, pairs: 0 };
  for (let lag = 0; lag <= MOST_LAG; lag++) {
    const pairs = [...x].flatMap(([time, move]): [number, number][] => {
      const later = y.get(time + lag * width);
      return later === undefined ? [] : [[move, later]];
    });
    if (pairs.length < 30) continue;
    const mean = (at: 0 | 1) => pairs.reduce((sum, pair) => sum + pair[at], 0) / pairs.length;
    const [meanX, meanY] = [mean(0), mean(1)];
    const sum = (of: (dx: number, dy: number) => number) =>
      pairs.reduce((total, [one, other]) => total + of(one - meanX, other - meanY), 0);
    const corr = sum((dx, dy) => dx * dy) / Math.sqrt(sum((dx) => dx * dx) * sum((_, dy) => dy * dy));
    if (corr > best.corr) best = { corr, lag, pairs: pairs.length };
  }
  return { ...best, points: aligned.length };
}

function assertSame(row: CorrelationRow, plain: ReturnType<typeof plainly>): void {
  assert.ok(Math.abs(row.corr! - plain.corr) < 1e-12, `${row.corr} ${plain.corr}`);
  assert.deepEqual([row.lag, row.pairs, row.points], [plain.lag, plain.pairs, plain.points]);
}

describe('a correlation', () => {
  const bars = barsOf('5m', '7d');
  const base = noise(1, bars);

  test('is that of a plain computation in two passes, on noise and on planted lags, at each end of the lags', () => {
    for (const [seed, lag, share] of [
      [2, 0, 0],
      [3, 0, 0.9],
      [4, 7, 0.8],
      [5, 48, 0.5],
      [6, 1, -0.9],
    ] as const) {
      const [btc, coin] = [priceOf(base, '5m'), priceOf(following(base, lag, share, seed), '5m')];
      for (const row of rowsOf(btc, coin)) {
        assertSame(row, plainly(btc, coin, '5m', row.period));
        if (share > 0) assert.equal(row.lag, lag);
      }
    }
  });

  test('of prices with a trend and of very small ones loses no digits', () => {
    const trend = base.map((move) => move + 3);
    const coin = priceOf(
      following(base, 3, 0.7, 7).map((move) => move / 50 + 2),
      '5m',
    );
    const btc = priceOf(trend, '5m');
    for (const row of rowsOf(btc, coin)) assertSame(row, plainly(btc, coin, '5m', row.period));
  });

  test('with holes pairs only returns over one bar, each exactly the lag apart', () => {
    const random = seededRandom(8);
    const btc = priceOf(base, '5m');
    const coin = priceOf(following(base, 4, 0.8, 9), '5m');
    for (const time of [...coin.keys()]) if (random() < 0.015) coin.delete(time);
    for (const time of [...btc.keys()].slice(700, 720)) btc.delete(time);
    for (const row of rowsOf(btc, coin)) {
      assertSame(row, plainly(btc, coin, '5m', row.period));
      assert.equal(row.lag, 4);
    }
  });

  test('takes no return over a hole: one leap within it changes nothing', () => {
    const btc = priceOf(base, '5m');
    const coin = priceOf(following(base, 0, 0.8, 10), '5m');
    const times = [...coin.keys()];
    coin.delete(times[1000]!);
    const before = rowsOf(btc, coin)[1]!;
    for (const time of times.slice(1001)) coin.set(time, coin.get(time)! * 5);
    const after = rowsOf(btc, coin)[1]!;
    assert.ok(Math.abs(before.corr! - after.corr!) < 1e-12);
  });

  test('has no return at the first candle: what was before the period is none of it', () => {
    const [btc, coin] = [priceOf(base, '5m'), priceOf(following(base, 0, 0.8, 11), '5m')];
    const row = rowsOf(btc, coin, '5m', ['1d', '7d'])[0]!;
    assert.deepEqual([row.points, row.lag, row.pairs], [288, 0, 287]);
    const first = END - 287 * TIMEFRAMES['5m'];
    // Another return into the first candle of the day: were it counted, it would be an outlier in both.
    for (const series of [btc, coin]) series.set(first - TIMEFRAMES['5m'], 1);
    assert.equal(rowsOf(btc, coin)[0]!.corr, row.corr);
  });

  test('of equal lags is the smallest', () => {
    // Twelve bars, again and again: lags 0, 12, 24 … say the same but for their ends.
    const pattern = noise(12, 12);
    const moves = Array.from({ length: bars }, (_, i) => pattern[i % 12]!);
    const [btc, coin] = [priceOf(moves, '5m'), priceOf(moves, '5m')];
    const [row] = rowsOf(btc, coin, '5m', ['1d']);
    assert.ok(row!.corr! > 1 - 1e-12);
    const exact = (length: number, step: number): Series => {
      let at = 0;
      return new Map(
        Array.from({ length }, (_, i) => [END - (length - 1 - i) * TIMEFRAMES['5m'], 2 ** (at = (at + step) % 2)]),
      );
    };
    // Prices of 1 and 2 in turn: all even lags are exactly 1.
    const [same] = rowsOf(exact(288, 1), exact(288, 1), '5m', ['1d']);
    assert.ok(Math.abs(same!.corr! - 1) < 1e-12);
    assert.equal(same!.lag, 0);
  });

  test('of 1m and 60 d is computed over all of it', () => {
    const moves = noise(13, barsOf('1m', '60d'));
    const coin = following(moves, 11, 0.3, 14);
    const rows = rowsOf(priceOf(moves, '1m'), priceOf(coin, '1m'), '1m', ['1d', '60d']);
    assert.deepEqual(
      rows.map(({ lag, points, pairs }) => [lag, points, pairs]),
      [
        [11, 1440, 1439 - 11],
        [11, 86_400, 86_399 - 11],
      ],
    );
    assert.ok(Math.abs(rows[1]!.corr! - 0.3) < 0.02);
  });
});

describe('what is missing', () => {
  const bars = barsOf('5m', '7d');
  const moves = noise(20, bars);
  const btc = () => priceOf(moves, '5m');
  const coin = () => priceOf(following(moves, 0, 0.9, 21), '5m');
  const times = [...btc().keys()];
  const without = (series: Series, gone: readonly number[]) => {
    for (const time of gone) series.delete(time);
    return series;
  };
  const week = (base: Series, other: Series) => rowsOf(base, other)[1]!;
  const said = ({ corr, reason }: CorrelationRow) => [corr, reason];

  test('is not made up for: 3.5 days are no week, of either coin, and the day of them is computed', () => {
    const half = times.slice(0, bars / 2);
    assert.deepEqual(said(week(btc(), without(coin(), half))), [null, '3.5 of 7 days']);
    assert.deepEqual(said(week(without(btc(), half), coin())), [null, 'BTC: 3.5 of 7 days']);
    assert.ok(rowsOf(btc(), without(coin(), half))[0]!.corr! > 0.8);
    const [first, ...rest] = rowsOf(btc(), without(coin(), times.slice(-20)));
    assert.deepEqual([first!.reason, rest[0]!.reason], ['0.9 of 1 days', null]);
  });

  test('in the middle counts, too: BTC needs 95 % of its candles, a coin three quarters, and what is lost is told', () => {
    const tenth = times.slice(500, 500 + bars / 10);
    assert.deepEqual(said(week(without(btc(), tenth), coin())), [
      null,
      `BTC: ${bars - tenth.length} of ${bars} candles`,
    ]);
    const row = week(btc(), without(coin(), times.slice(500, 500 + Math.floor(bars * 0.12))));
    assert.deepEqual([row.reason, row.lost, row.points], [null, 241, bars - 241]);
    assert.ok(row.lost_share > 0.1);
    const lacking = week(btc(), without(coin(), times.slice(500, 500 + bars / 2)));
    assert.deepEqual(said(lacking), [null, `${bars / 2} of ${bars} candles`]);
  });

  test('here and there leaves too few returns: more than 5 % of them missing is none', () => {
    const every = (step: number) => times.filter((_, i) => i % step === 5);
    assert.equal(week(btc(), without(coin(), every(50))).reason, null);
    assert.match(week(btc(), without(coin(), every(15))).reason!, /^[67]\.\d % of the returns are missing$/);
  });

  test('altogether, or a price that does not move, has its word', () => {
    const still = new Map(times.map((time) => [time, 5]));
    assert.deepEqual(said(week(btc(), new Map())), [null, 'no candles']);
    assert.deepEqual(said(week(new Map(), coin())), [null, 'BTC: no candles']);
    assert.deepEqual(said(week(btc(), still)), [null, 'the price does not move']);
    assert.deepEqual(said(week(still, coin())), [null, 'BTC does not move']);
    const [hours] = rowsOf(priceOf(noise(1, 24), '1h'), priceOf(noise(2, 24), '1h'), '1h', ['1d']);
    assert.deepEqual(said(hours!), [null, '24 candles, fewer than 100']);
  });
});

describe('significance', () => {
  test('the normal tail is right far out', () => {
    for (const [z, tail] of [
      [0, 0.5],
      [1, 0.158655253931457],
      [1.959963984540054, 0.025],
      [3.6, 0.000159108590157534],
      [6, 9.86587645037698e-10],
      [10, 7.61985302416053e-24],
      [-2, 0.977249868051821],
    ] as const)
      assert.ok(Math.abs(upperTail(z) / tail - 1) < 1e-12, `${z}: ${upperTail(z)}`);
  });

  test('of the largest of 49 is 49 times as likely to be chance while that is rare, and never above 1', () => {
    const single = upperTail(Math.atanh(0.3) * Math.sqrt(284));
    assert.ok(Math.abs(largestOf(1, 0.3, 287) / single - 1) < 1e-12);
    assert.ok(Math.abs(largestOf(LAGS, 0.3, 287) / (49 * single) - 1) < 1e-4);
    assert.deepEqual([largestOf(LAGS, 1, 100), largestOf(LAGS, -1, 100)], [0, 1]);
    assert.ok(largestOf(LAGS, -0.1, 1000) > 0.999);
  });

  test('noise lags behind almost always; with significance asked for as seldom as asked', (t) => {
    const coins = 2000;
    const round = new TimeframeRound('5m', ['1d']);
    const bars = barsOf('5m', '1d');
    const random = seededRandom(30);
    const series = () =>
      columns(
        priceOf(
          Array.from({ length: bars }, () => normal(random)),
          '5m',
        ),
      );
    const alarms = { naive: 0, 'p ≤ 0.05': 0, 'p ≤ 0.01': 0 };
    for (let coin = 0; coin < coins; coin++) {
      round.setBase(series(), END);
      const rows = round.rows('C', series());
      for (const [name, significant] of [
        ['naive', null],
        ['p ≤ 0.05', 0.05],
        ['p ≤ 0.01', 0.01],
      ] as const)
        if (lagsOf(rows, significant)) alarms[name] += 1;
    }
    for (const [name, count] of Object.entries(alarms))
      t.diagnostic(
        `noise of a day, 5m: a lag above 0 counts for ${((100 * count) / coins).toFixed(1)} % of coins (${name})`,
      );
    assert.ok(alarms.naive / coins > 0.96);
    assert.ok(alarms['p ≤ 0.05'] / coins < 0.07 && alarms['p ≤ 0.05'] / coins > 0.02);
    assert.ok(alarms['p ≤ 0.01'] / coins < 0.02);
  });
  const lagsOf = (rows: CorrelationRow[], significant: number | null) =>
    judge(with30d(rows), { ...LIMITS, significant }).lags;
  const with30d = (rows: CorrelationRow[]) => [...rows, row({ period: '30d', corr: 0.9 })];
});

describe('the rule', () => {
  const verdict = (rows: Partial<CorrelationRow>[], limits = LIMITS) => judge(rows.map(row), limits).verdict;
  const long = (corr: number | null, timeframe: Timeframe = '5m', period: Period = '30d') => ({
    corr,
    timeframe,
    period,
  });
  const short = (corr: number | null, lag = 0, timeframe: Timeframe = '5m') => ({ corr, lag, timeframe });

  test('is long above 0.6, short below 0.3, and more than 0.5 between them or a lag', () => {
    assert.equal(verdict([long(0.81), short(0.3 - 1e-9)]), 'anomaly');
    assert.equal(verdict([long(0.79), short(0.29)]), 'normal', 'exactly 0.5 between them is not more');
    assert.equal(verdict([long(0.7), short(0.29)]), 'normal');
    assert.equal(verdict([long(0.7), short(0.29, 1)]), 'anomaly');
    assert.equal(verdict([long(0.6), short(-0.5, 9)]), 'normal');
    assert.equal(verdict([long(0.99), short(0.3, 9)]), 'normal');
  });

  test('takes the largest of all long periods and the smallest day, over all timeframes', () => {
    assert.equal(verdict([long(0.1, '1m', '7d'), long(0.9, '5m', '60d'), short(0.9, 0, '1m'), short(0.1)]), 'anomaly');
    assert.deepEqual(judge([row(long(0.7)), row(short(0.9, 3, '1m')), row(short(0.2))], LIMITS), {
      ...{ verdict: 'anomaly', long: 0.7, short: 0.2, lags: true },
      spoke: ['5m 30d', '1m 1d', '5m 1d'],
    });
  });

  test('with significance asked for, a lag of chance counts no more; limits are the operator’s', () => {
    const chance = [long(0.7), { ...short(0.25, 9), p_value: 0.2 }];
    assert.equal(verdict(chance), 'anomaly');
    assert.equal(verdict(chance, { ...LIMITS, significant: 0.05 }), 'normal');
    assert.equal(
      verdict([long(0.7), { ...short(0.25, 9), p_value: 0.01 }], { ...LIMITS, significant: 0.05 }),
      'anomaly',
    );
    assert.equal(
      verdict([long(0.9), { ...short(0.25, 9), p_value: 0.2 }], { ...LIMITS, significant: 0.05 }),
      'anomaly',
    );
    assert.equal(verdict([long(0.5), short(0.2)], { long: 0.4, short: 0.3, diff: 0.2, significant: null }), 'anomaly');
  });

  test('does not know where the day or all long periods are missing', () => {
    assert.equal(verdict([long(null), long(null, '1m'), short(0.1, 5)]), 'unknown');
    assert.equal(verdict([long(0.9), short(null)]), 'unknown');
    assert.equal(verdict([long(0.9), long(null, '1m'), short(0.1), short(null, 0, '1m')]), 'anomaly');
  });
});

describe('an anomaly', () => {
  const listing = { exchange: 'hyperliquid', coin: 'C', symbol: 'C-USDC' };
  const asked = askedRows(['5m'], ['1d', '7d']);
  const rounds = (figures: [day: number | null, week: number | null][], names = asked) => {
    let standing: Standing = {};
    const events: CorrelationAlert[] = [];
    figures.forEach(([day, week], i) => {
      const given = [row({ corr: day }), row({ corr: week, period: '7d' })].map((each) => ({
        ...each,
        timestamp: END + i * 300_000,
      }));
      const followed = follow(standing, listing, given, judge(given, LIMITS), names);
      standing = followed.standing;
      if (followed.event) events.push(followed.event);
    });
    return {
      standing,
      events,
      told: events.map(({ event, timestamp }) => `${event}@${(timestamp - END) / 300_000}`).join(' '),
    };
  };

  test('begins once and ends once, however many rounds see it, and may come back', () => {
    const on: [number, number] = [0.1, 0.9];
    const off: [number, number] = [0.8, 0.9];
    assert.equal(rounds([off, on, on, on, off, off, on, off]).told, 'begin@1 end@4 begin@6 end@7');
    const { events } = rounds([on, off, on]);
    assert.equal(new Set(events.map(({ id }) => id)).size, 3);
    assert.deepEqual(
      events.map(({ id }) => id),
      [`BEGIN-hyperliquid-C-${END}`, `END-hyperliquid-C-${END}`, `BEGIN-hyperliquid-C-${END + 600_000}`],
    );
    for (const event of events) assert.deepEqual(CORRELATION_ALERT.parse(event), event);
  });

  test('stands while what spoke at its begin is missing, and says what it awaits', () => {
    const missing = rounds([
      [0.1, 0.9],
      [null, 0.9],
      [0.8, null],
    ]);
    assert.equal(missing.told, 'begin@0');
    assert.deepEqual(missing.standing.C!.awaits, ['5m 7d']);
    assert.equal(
      rounds([
        [0.1, 0.9],
        [0.8, null],
        [0.8, 0.9],
      ]).told,
      'begin@0 end@2',
    );
    assert.equal(rounds([[null, 0.9]]).told, '');
  });

  test('does not await rows that are not asked for any more', () => {
    const before: Standing = {
      C: { since: END, spoke: ['1m 1d', '5m 1d', '5m 7d'], long: 0.9, short: 0.1, awaits: [] },
    };
    const given = [row({ corr: 0.8 }), row({ corr: 0.9, period: '7d' })];
    assert.equal(follow(before, listing, given, judge(given, LIMITS), asked).event?.event, 'end');
    assert.equal(follow(before, listing, given, judge(given, LIMITS), [...asked, '1m 1d']).event, null);
  });

  test('ends with the coin itself, and can be read back from its file', () => {
    const { standing, events } = rounds([[0.1, 0.9]]);
    assert.deepEqual(replay({}, events[0]!), standing);
    const gone = leave(standing, listing, END + 300_000);
    assert.deepEqual([gone.event!.reason, gone.event!.event, gone.standing], ['gone', 'end', {}]);
    assert.deepEqual(replay(standing, gone.event!), {});
    assert.equal(leave({}, listing, END).event, null);
  });

  test('is told as the original told it: exchange, coin, table, difference; in the reader’s language', () => {
    const [event] = rounds([[0.1234, 0.9]]).events;
    assert.deepEqual(messageOf(event!, 'en'), {
      id: `correlation/BEGIN-hyperliquid-C-${END}`,
      title: 'C correlation anomaly',
      severity: 'medium',
      text: [
        'exchange: hyperliquid',
        'coin: C-USDC',
        '  corr  timeframe  period  lag',
        '0.1234         5m      1d    0',
        '0.9000         5m      7d    0',
        'diff: 0.7766',
        'since 2026-11-24 08:00 UTC',
      ].join('\n'),
    });
    const { title, text } = messageOf(event!, 'zh');
    assert.equal(title, 'C 相关性异常');
    assert.match(text, /^交易所: hyperliquid\n币种: C-USDC\n.*\n差值: 0\.7766\n始于/s);
  });
});
