import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { binanceDerivatives, binanceSpot } from '../scripts/exchanges/binance.ts';
import { feedHarness } from './feed_harness.ts';
import { missing, SHARED } from './fixtures.ts';

const NOW = 1790755200_500_000;

function harness(symbols: string[] = []) {
  const instruments = symbols.map((symbol) => binanceDerivatives.instrument(symbol, 'perpetual'));
  return feedHarness(binanceDerivatives, NOW, { instruments, orderbookIntervalMs: 10_000 });
}

const MARK = {
  e: 'markPriceUpdate',
  E: 1790755199000,
  s: 'BTCUSDT',
  p: '83259.61836957',
  ap: '83259.61836957',
  P: '83390.57692985',
  i: '83301.31260870',
  r: '-0.00000189',
  T: 1790755200000,
  st: 1,
};

test('a mark price is a funding reading: rate, next settlement, mark and index price; P is no rate', () => {
  const { frame, rest, of } = harness();
  rest('/fapi/v1/fundingInfo', [{ symbol: 'ETHUSDT', fundingIntervalHours: 4 }]);
  frame({ stream: 'btcusdt@markPrice@1s', data: MARK });
  frame({ ...MARK, s: 'ETHUSDT' });
  const [bitcoin, ether] = of('funding_rate');
  assert.deepEqual(bitcoin, {
    exchange: 'binance_derivatives',
    market_type: 'perpetual',
    symbol: 'BTC-USDT',
    instrument: 'BTCUSDT',
    timestamp: 1790755199000,
    received_at: NOW,
    data_source: 'live',
    funding_rate: '-0.00000189',
    funding_time: null,
    next_funding_time: 1790755200000,
    funding_interval_hours: '8',
    mark_price: '83259.61836957',
    index_price: '83301.31260870',
  });
  assert.equal(ether!.funding_interval_hours, '4');
});

test('funding is stored once a minute of venue time, and the interval is unknown until the list is read', () => {
  const { frame, of } = harness();
  for (const E of [1790755199000, 1790755199900, 1790755200000, 1790755201000, 1790755259000, 1790755260000])
    frame({ ...MARK, E });
  assert.deepEqual(
    of('funding_rate').map((row) => row.timestamp),
    [1790755199000, 1790755200000, 1790755260000],
  );
  assert.equal(of('funding_rate')[0]!.funding_interval_hours, null);
});

test('a delivery contract has no funding: its empty rate is no 0', () => {
  const { frame, of, events } = harness();
  frame({ ...MARK, s: 'BTCUSDT_261225', r: '', T: 0 });
  assert.equal(of('funding_rate').length, 0);
  assert.deepEqual(
    events.map((event) => event.kind),
    ['ignored'],
  );
});

const ORDER = {
  s: 'BTCUSDT',
  S: 'SELL',
  o: 'LIMIT',
  f: 'IOC',
  q: '0.190',
  p: '82338.30',
  ap: '82651.90',
  X: 'FILLED',
  l: '0.155',
  z: '0.190',
  T: 1791565602120,
  ps: 'BTCUSDT',
  st: 1,
};

test('a liquidation has the average price and the filled quantity, and the same id each time it is seen', () => {
  const { frame, of } = harness();
  frame({ e: 'forceOrder', E: 1791565603055, o: ORDER });
  frame({ e: 'forceOrder', E: 1791565603999, o: ORDER });
  frame({ e: 'forceOrder', E: 1791565603999, o: { ...ORDER, S: 'BUY' } });
  const [first, again, other] = of('liquidation');
  assert.deepEqual(
    [first!.side, first!.price, first!.quantity, first!.timestamp],
    ['sell', '82651.90', '0.190', 1791565602120],
  );
  assert.equal(first!.liquidation_id, again!.liquidation_id);
  assert.notEqual(first!.liquidation_id, other!.liquidation_id);
});

test('COIN-M liquidations are left out, wherever st stands', () => {
  const { frame, of, events } = harness();
  frame({ e: 'forceOrder', E: 1, o: { ...ORDER, s: 'BTCUSD_PERP', st: 2 } });
  frame({ e: 'forceOrder', E: 1, st: 2, o: { ...ORDER, s: 'BTCUSD_PERP', st: undefined } });
  assert.equal(of('liquidation').length, 0);
  assert.deepEqual(events, [
    { kind: 'ignored', reason: 'COIN-M' },
    { kind: 'ignored', reason: 'COIN-M' },
  ]);
});

test('open interest is in base units, once a minute, and symbols that nobody asked for are left out', () => {
  const { rest, of, events } = harness(['BTC-USDT']);
  const path = '/fapi/v1/openInterest?symbol=BTCUSDT';
  rest(path, { openInterest: '10659.509', symbol: 'BTCUSDT', time: 1589437530011 });
  rest(path, { openInterest: '10659.600', symbol: 'BTCUSDT', time: 1589437531011 });
  rest(path, { openInterest: '1', symbol: 'ETHUSDT', time: 1589437530011 });
  const readings = of('open_interest');
  assert.deepEqual(
    readings.map((row) => [row.symbol, row.open_interest, row.timestamp, row.open_interest_value]),
    [['BTC-USDT', '10659.509', 1589437530011, null]],
  );
  assert.deepEqual(events, [{ kind: 'ignored', reason: 'symbol not asked for' }]);
});

test('ratios are shares that add to exactly 1, with the period from the request', () => {
  const { rest, of } = harness();
  const row = {
    symbol: 'BTCUSDT',
    longAccount: '0.5891',
    shortAccount: '0.4108',
    longShortRatio: '1.4342',
    timestamp: '1583139600000',
  };
  rest('/futures/data/topLongShortPositionRatio?symbol=BTCUSDT&period=5m', [row]);
  rest('/futures/data/globalLongShortAccountRatio?symbol=BTCUSDT&period=15m', [{ ...row, timestamp: 1583139900000 }]);
  const [position] = of('lsr_top_position');
  assert.deepEqual(
    [
      position!.long_position_ratio,
      position!.short_position_ratio,
      position!.long_short_ratio,
      position!.period,
      position!.timestamp,
    ],
    ['0.5891', '0.4109', '1.4342', '5m', 1583139600000],
  );
  const [account] = of('lsr_all_account');
  assert.deepEqual(
    [account!.long_account_ratio, account!.short_account_ratio, account!.period, account!.timestamp],
    ['0.5891', '0.4109', '15m', 1583139900000],
  );
});

test('error answers under HTTP 200 and unsound values give no row', () => {
  const { rest, frame, of, events } = harness();
  const ratio = '/futures/data/topLongShortPositionRatio?symbol=BTCUSDT&period=5m';
  rest(ratio, { status: 'ERROR', type: 'GENERAL', code: '99099990', errorData: 'illegal params.' });
  rest(ratio, { code: -1003, msg: 'Too many requests' });
  rest(ratio, [
    { symbol: 'BTCUSDT', longAccount: '0.9', shortAccount: '0.4', longShortRatio: '1', timestamp: 1583139600000 },
  ]);
  rest('/futures/data/topLongShortPositionRatio?symbol=BTCUSDT', []);
  rest('/fapi/v1/openInterest?symbol=BTCUSDT', { openInterest: '', symbol: 'BTCUSDT', time: 1589437530011 });
  frame({ e: 'forceOrder', E: 1, o: { ...ORDER, S: 'HOLD' } });
  frame({ e: 'forceOrder', E: 1, o: { ...ORDER, z: '0' } });
  frame({ e: 'forceOrder', E: 1 });
  assert.ok(events.every((event) => event.kind === 'rejected'));
  assert.equal(events.length, 8);
  for (const type of ['lsr_top_position', 'open_interest', 'liquidation'] as const) assert.equal(of(type).length, 0);
});

test('readings of spot do not exist', () => {
  assert.equal(binanceSpot.polls, undefined);
  const polls = binanceDerivatives.polls!([binanceDerivatives.instrument('BTC-USDT', 'perpetual')]);
  assert.deepEqual(
    polls.map((poll) => poll.type),
    ['funding_rate', 'open_interest', 'lsr_top_position', 'lsr_all_account'],
  );
});

const DOCUMENTED = join(SHARED, 'nautilus_trader', 'binance');
const documented = (path: string) => JSON.parse(readFileSync(join(DOCUMENTED, path), 'utf8'));

test('the documents’ own examples of each type become rows', { skip: missing(DOCUMENTED) }, () => {
  const { rest, frame, of, events } = harness();
  frame(documented('futures_market_data_json/mark_price_stream.json'));
  frame(documented('futures_market_data_json/liquidation_stream.json'));
  rest('/fapi/v1/openInterest?symbol=BTCUSDT', documented('http/http_futures_market_open_interest.json'));
  rest('/fapi/v1/premiumIndex?symbol=BTCUSDT', documented('http/http_futures_market_premium_index.json'));
  rest(
    '/futures/data/topLongShortPositionRatio?period=5m',
    documented('http/http_futures_market_top_long_short_position_ratio.json'),
  );
  rest(
    '/futures/data/globalLongShortAccountRatio?period=5m',
    documented('http/http_futures_market_global_long_short_account_ratio.json'),
  );
  assert.deepEqual(events, []);
  assert.deepEqual(
    of('funding_rate').map((row) => row.funding_rate),
    ['0.00038167', '0.00038246'],
  );
  assert.equal(of('liquidation')[0]!.price, '9910.12345678');
  assert.equal(of('open_interest').length, 1);
  assert.deepEqual([of('lsr_top_position').length, of('lsr_all_account').length], [2, 2]);
});

const ROLLOVER = join(SHARED, 'recent-2026', 'binance-usdm-mark-price-rollover.jsonl');

test('at a settlement the next funding time moves on with the frame that says so', { skip: missing(ROLLOVER) }, () => {
  assert.ok(existsSync(ROLLOVER));
  const { frame, of } = harness();
  const lines = readFileSync(ROLLOVER, 'utf8')
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line))
    .filter(({ expected }) => expected.fundingRate !== undefined);
  for (const { raw } of lines) frame(raw);
  const rows = of('funding_rate');
  assert.deepEqual(
    rows.map((row) => [row.funding_rate, row.next_funding_time]),
    lines.map(({ expected }) => [expected.fundingRate, expected.nextFundingTime]),
  );
});
