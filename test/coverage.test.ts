import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { binanceSpot } from '../scripts/exchanges/binance.ts';
import { Coverage, type StreamState, statusOf } from '../scripts/lib/coverage.ts';
import type { Channel } from '../scripts/lib/exchange.ts';
import type { DataType } from '../scripts/lib/rows.ts';
import { SilenceWatch } from '../scripts/lib/silence.ts';

const BTC = binanceSpot.instrument('BTC-USDT', 'spot');
const ETH = binanceSpot.instrument('ETH-USDT', 'spot');
const START = 1_795_000_000_000;
const SECOND = 1000;
const MINUTE = 60 * SECOND;

function channel(instrument: typeof BTC, ...types: DataType[]): Channel {
  return { name: `${instrument.instrument}@${types[0]}`, types, instrument };
}

describe('how far a book can be trusted', () => {
  function board(): Coverage {
    const coverage = new Coverage();
    coverage.expect('orderbook_update', BTC, 'socket');
    return coverage;
  }
  const quality = (coverage: Coverage, now: number) => {
    const [{ instrument, ...book }] = coverage.quality(now) as [ReturnType<Coverage['quality']>[number]];
    assert.equal(instrument, BTC);
    return book;
  };

  test('is told as shares of the time: proven, standing without a proof, and broken since its last update', () => {
    const coverage = board();
    coverage.bookUpdate('BTCUSDT', START, true);
    coverage.bookPublished('BTCUSDT', START, 'verified');
    coverage.bookUpdate('BTCUSDT', START + 50 * SECOND, false);
    coverage.bookBroken('BTCUSDT', START + 60 * SECOND);
    coverage.bookUpdate('BTCUSDT', START + 70 * SECOND, false);
    assert.equal(quality(coverage, START + 70 * SECOND).standing, false, 'changes alone make no book');
    coverage.bookUpdate('BTCUSDT', START + 75 * SECOND, true);
    coverage.bookPublished('BTCUSDT', START + 75 * SECOND, 'unverifiable');
    const book = quality(coverage, START + 100 * SECOND);
    assert.deepEqual(
      [book.verified_percent, book.unverifiable_percent, book.clean_percent],
      [50, 25, 66.66],
      '50 s proven, 25 s broken, 25 s without a proof: two thirds of the provable time were clean',
    );
    assert.deepEqual([book.resyncs, book.standing, book.updates], [1, true, 4]);
  });

  test('is never called clean where nothing can prove it', () => {
    const coverage = board();
    coverage.bookUpdate('BTCUSDT', START, true);
    coverage.bookPublished('BTCUSDT', START, 'unverifiable');
    const book = quality(coverage, START + MINUTE);
    assert.deepEqual([book.verified_percent, book.unverifiable_percent, book.clean_percent], [0, 100, null]);
  });

  test('is nothing before the first book', () => {
    const book = quality(board(), START);
    assert.deepEqual(
      [book.verified_percent, book.unverifiable_percent, book.clean_percent, book.standing],
      [0, 0, null, false],
    );
  });
});

describe('the status of a stream', () => {
  const stream = (type: DataType, lastRowAt: number | null): StreamState => ({
    type,
    instrument: BTC,
    source: 'socket',
    lastRowAt,
    rows: 0,
  });
  test('goes by its type’s own limit, and tells never and blocked apart', () => {
    for (const [type, seconds] of [
      ['trade', 60],
      ['orderbook_update', 60],
      ['orderbook', 60],
      ['liquidation', 3600],
      ['funding_rate', 28_800],
      ['lsr_top_position', 28_800],
    ] as const) {
      assert.equal(statusOf(stream(type, START), START + seconds * SECOND, false), 'healthy', type);
      assert.equal(statusOf(stream(type, START), START + seconds * SECOND + 1, false), 'stale', type);
    }
    assert.equal(statusOf(stream('trade', null), START, false), 'never');
    assert.equal(statusOf(stream('trade', START), START, true), 'blocked');
  });
});

describe('silence on a socket that is open', () => {
  function watch(...channels: Channel[]) {
    const coverage = new Coverage();
    for (const { types, instrument } of channels) {
      for (const type of types) coverage.expect(type, instrument, 'socket');
    }
    const told: string[] = [];
    const alarms = new SilenceWatch(channels, coverage, {
      classSilent: (type, seconds) => told.push(`${type} ${seconds}`),
      neverDelivered: (streams) =>
        told.push(...streams.map(({ type, instrument }) => `never ${type} ${instrument.symbol}`)),
    });
    return { coverage, told, check: (now: number, openedAt = START) => alarms.check(now, openedAt) };
  }

  test('of one class is noticed although another class is busy; one live symbol keeps its class alive', () => {
    const { coverage, told, check } = watch(
      channel(BTC, 'trade'),
      channel(ETH, 'trade'),
      channel(BTC, 'orderbook', 'orderbook_update'),
    );
    for (let second = 0; second <= 130; second++) {
      const now = START + second * SECOND;
      coverage.row('orderbook_update', 'BTCUSDT', now);
      coverage.row('orderbook', 'BTCUSDT', now);
      coverage.row('trade', 'BTCUSDT', second <= 30 ? now : START + 30 * SECOND);
      coverage.row('trade', 'ETHUSDT', second <= 60 ? now : START + 60 * SECOND);
      check(now);
    }
    assert.deepEqual(told, ['trade 61']);
  });

  test('is told again after ten minutes, and anew when the class had spoken', () => {
    const { coverage, told, check } = watch(channel(BTC, 'trade'));
    coverage.row('trade', 'BTCUSDT', START);
    for (let minute = 0; minute <= 13; minute++) check(START + minute * MINUTE);
    assert.deepEqual(told, ['trade 120', 'trade 720']);
    coverage.row('trade', 'BTCUSDT', START + 14 * MINUTE);
    check(START + 14 * MINUTE);
    check(START + 16 * MINUTE);
    assert.deepEqual(told.slice(2), ['trade 120']);
  });

  test('of a venue as a whole renews its socket no more often than every ten minutes, though each new one is silent, too', () => {
    const { coverage, told, check } = watch(channel(BTC, 'trade'));
    coverage.row('trade', 'BTCUSDT', START);
    const minutes: number[] = [];
    let openedAt = START;
    for (let minute = 0; minute <= 25; minute++) {
      const before = told.filter((each) => each.startsWith('trade')).length;
      check(START + minute * MINUTE, openedAt);
      if (told.filter((each) => each.startsWith('trade')).length === before) continue;
      minutes.push(minute);
      openedAt = START + minute * MINUTE;
    }
    assert.deepEqual(minutes, [2, 12, 22]);
  });

  test('of a stream that was granted and never delivered is told once, with its name; liquidations may be silent', () => {
    const { coverage, told, check } = watch(
      channel(BTC, 'trade'),
      channel(ETH, 'trade'),
      channel(ETH, 'liquidation'),
      channel(ETH, 'funding_rate'),
    );
    for (let second = 0; second <= 140; second++) {
      coverage.row('trade', 'BTCUSDT', START + second * SECOND);
      check(START + second * SECOND);
    }
    assert.deepEqual(told, ['never trade ETH-USDT', 'never funding_rate ETH-USDT']);
  });

  test('of a stream that delivered on an earlier connection is told as well; those that stay silent ever more seldom', () => {
    const { coverage, told, check } = watch(channel(BTC, 'trade'), channel(ETH, 'trade'));
    const minutes: number[] = [];
    const opened = START + 5 * MINUTE;
    coverage.row('trade', 'ETHUSDT', START);
    for (let minute = 5; minute <= 120; minute++) {
      const now = START + minute * MINUTE;
      coverage.row('trade', 'BTCUSDT', now);
      const before = told.length;
      check(now, opened);
      if (told.length > before) minutes.push(minute);
    }
    assert.deepEqual([...new Set(told)], ['never trade ETH-USDT']);
    assert.deepEqual(minutes, [6, 16, 36, 76]);
    coverage.row('trade', 'ETHUSDT', START + 121 * MINUTE);
    check(START + 121 * MINUTE, opened);
    assert.equal(told.length, 4);
    // On another connection it is silent again: the waits begin anew.
    for (let minute = 200; minute <= 215; minute++) {
      coverage.row('trade', 'BTCUSDT', START + minute * MINUTE);
      check(START + minute * MINUTE, START + 200 * MINUTE);
    }
    assert.equal(told.length, 6);
  });
});
