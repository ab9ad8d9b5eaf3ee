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

const SETTLED_PATH = '/fapi/v1/fundingRate?symbol=BTCUSDT&limit=1000';
const SETTLED = {
  symbol: 'BTCUSDT',
  fundingRate: '-0.00001234',
  fundingTime: 1790755200003,
  markPrice: '83259.61836957',
  rateType: 'Regular',
};

test('a settled rate is a funding row at the time of its settlement, to the ms; an old one has no mark price', () => {
  const { rest, of, events } = harness();
  rest('/fapi/v1/fundingInfo', [{ symbol: 'ETHUSDT', fundingIntervalHours: 4 }]);
  const old = { ...SETTLED, symbol: 'ETHUSDT', fundingTime: 1590755200000, markPrice: '' };
  assert.equal(rest(SETTLED_PATH, [old, SETTLED]), true);
  const [ether, bitcoin] = of('funding_rate');
  assert.deepEqual(bitcoin, {
    exchange: 'binance_derivatives',
    market_type: 'perpetual',
    symbol: 'BTC-USDT',
    instrument: 'BTCUSDT',
    timestamp: 1790755200003,
    received_at: NOW,
    data_source: 'live',
    funding_rate: '-0.00001234',
    funding_time: 1790755200003,
    next_funding_time: null,
    funding_interval_hours: '8',
    mark_price: '83259.61836957',
    index_price: null,
  });
  assert.deepEqual([ether!.mark_price, ether!.funding_interval_hours], [null, '4']);
  assert.deepEqual(events, []);
});

const PAST_INTEREST_PATH = '/futures/data/openInterestHist?symbol=BTCUSDT&period=5m&limit=500';
const PAST_INTEREST = {
  symbol: 'BTCUSDT',
  sumOpenInterest: '20403.63700000',
  sumOpenInterestValue: '150570784.07809979',
  CMCCirculatingSupply: '165880.538',
  timestamp: '1583127900000',
};

test('past open interest has a value, and its time as a text or as a number', () => {
  const { rest, of, events } = harness(['BTC-USDT']);
  assert.equal(rest(PAST_INTEREST_PATH, [PAST_INTEREST, { ...PAST_INTEREST, timestamp: 1583128200000 }]), true);
  const [first, second, ...more] = of('open_interest');
  assert.deepEqual(first, {
    exchange: 'binance_derivatives',
    market_type: 'perpetual',
    symbol: 'BTC-USDT',
    instrument: 'BTCUSDT',
    timestamp: 1583127900000,
    received_at: NOW,
    data_source: 'live',
    open_interest: '20403.63700000',
    open_interest_value: '150570784.07809979',
    contracts: null,
  });
  assert.deepEqual([second!.timestamp, more.length, events.length], [1583128200000, 0, 0]);
});

test('what is past is not sampled, and leaves alone what of the present is', () => {
  const { rest, frame, of } = harness();
  const now = { openInterest: '1', symbol: 'BTCUSDT', time: 1583127901000 };
  frame({ ...MARK, E: 1790755199000 });
  rest('/fapi/v1/openInterest?symbol=BTCUSDT', now);
  // Of minutes that were told, of the same one twice, of older ones, and of one to come.
  const times = [1790755199500, 1790755199501, 1790700000000, 1790755260000];
  rest(
    SETTLED_PATH,
    times.map((fundingTime) => ({ ...SETTLED, fundingTime })),
  );
  const interests = ['1583127902000', '1583127903000', '1583100000000', '1583127960000'];
  rest(
    PAST_INTEREST_PATH,
    interests.map((timestamp) => ({ ...PAST_INTEREST, timestamp })),
  );
  frame({ ...MARK, E: 1790755260500 });
  rest('/fapi/v1/openInterest?symbol=BTCUSDT', { ...now, time: 1583127960500 });
  assert.deepEqual(
    of('funding_rate').map((row) => row.timestamp),
    [1790755199000, ...times, 1790755260500],
  );
  assert.deepEqual(
    of('open_interest').map((row) => row.timestamp),
    [now.time, ...interests.map(Number), 1583127960500],
  );
});

test('an unsound row of the past is rejected, and costs the others nothing; no list is no answer; an empty one is', () => {
  const ratio = {
    symbol: 'BTCUSDT',
    longAccount: '0.6',
    shortAccount: '0.4',
    longShortRatio: '1.5',
    timestamp: 1583127900000,
  };
  const top = '/futures/data/topLongShortPositionRatio?symbol=BTCUSDT&period=5m';
  const cases = [
    ['funding_rate', SETTLED_PATH, SETTLED, { fundingRate: '' }],
    ['funding_rate', SETTLED_PATH, SETTLED, { fundingTime: 0 }],
    ['funding_rate', SETTLED_PATH, SETTLED, { fundingTime: undefined }],
    ['funding_rate', SETTLED_PATH, SETTLED, { markPrice: 'none' }],
    ['funding_rate', SETTLED_PATH, SETTLED, { symbol: '' }],
    ['open_interest', PAST_INTEREST_PATH, PAST_INTEREST, { sumOpenInterest: '' }],
    ['open_interest', PAST_INTEREST_PATH, PAST_INTEREST, { sumOpenInterest: undefined }],
    ['open_interest', PAST_INTEREST_PATH, PAST_INTEREST, { sumOpenInterestValue: 'x' }],
    ['open_interest', PAST_INTEREST_PATH, PAST_INTEREST, { timestamp: '' }],
    ['open_interest', PAST_INTEREST_PATH, PAST_INTEREST, { symbol: 7 }],
    ['lsr_top_position', top, ratio, { shortAccount: '0.5' }],
    ['lsr_top_position', top, ratio, { timestamp: 'yesterday' }],
  ] as const;
  for (const [type, path, row, change] of cases) {
    const { rest, of, kinds } = harness();
    assert.equal(rest(path, [row, { ...row, ...change }, row]), true);
    assert.deepEqual([of(type).length, kinds()], [2, ['rejected']], `${type} ${JSON.stringify(change)}`);
  }
  for (const path of [SETTLED_PATH, PAST_INTEREST_PATH, top]) {
    const { rest, rows, events, kinds } = harness();
    assert.equal(rest(path, []), true);
    assert.deepEqual([rows, events], [[], []]);
    for (const body of [
      { status: 'ERROR', type: 'GENERAL', code: '99099990', errorData: 'illegal params.', data: null },
      { code: -1130, msg: "parameter 'startTime' is invalid." },
      { rows: [] },
      null,
      'ok',
    ])
      assert.equal(rest(path, body), false, JSON.stringify(body));
    assert.deepEqual([rows.length, new Set(kinds()).size, kinds().length], [0, 1, 5]);
  }
});

test('how readings follow each other, and what is asked for of their past', () => {
  const bitcoin = binanceDerivatives.instrument('BTC-USDT', 'perpetual');
  assert.equal(binanceSpot.readings, undefined);
  const told = binanceDerivatives.readings!.map(({ history, ...series }) => ({ ...series, keeps: history!.keeps }));
  const perpetual = { marketTypes: ['perpetual'] };
  const ratio = { stepMs: 300_000, quietSteps: 0, of: { name: 'period', value: '5m' }, ...perpetual, keeps: undefined };
  assert.deepEqual(told, [
    {
      type: 'funding_rate',
      stepMs: 60_000,
      quietSteps: 0,
      ...perpetual,
      keeps: 'only the rates that were settled',
    },
    { type: 'open_interest', stepMs: 60_000, quietSteps: 1, keeps: 'only one reading in five minutes' },
    { type: 'lsr_top_position', ...ratio },
    { type: 'lsr_all_account', ...ratio },
  ]);
  const from = 1_790_000_000_000;
  const end = { short: from + 1, long: from + 86_400_000_000 };
  // Of a long range, as much as cannot have more rows than a page, both its ends included.
  const pages = [
    ['/fapi/v1/fundingRate?symbol=BTCUSDT&limit=1000', from + 1000 * 3_600_000 - 1],
    ['/futures/data/openInterestHist?symbol=BTCUSDT&period=5m&limit=500', from + 500 * 300_000 - 1],
    ['/futures/data/topLongShortPositionRatio?symbol=BTCUSDT&period=5m&limit=500', from + 500 * 300_000 - 1],
    ['/futures/data/globalLongShortAccountRatio?symbol=BTCUSDT&period=5m&limit=500', from + 500 * 300_000 - 1],
  ] as const;
  for (const [index, [path, last]] of pages.entries()) {
    const { idMember, order, page } = binanceDerivatives.readings![index]!.history!;
    assert.deepEqual([idMember, order], ['timestamp', 'ascending']);
    for (const [to, endTime] of [
      [end.short, end.short],
      [end.long, last],
    ] as const) {
      const expected = { path: `${path}&startTime=${from}&endTime=${endTime}`, weight: 1 };
      assert.deepEqual(page(bitcoin, { from, to }), expected);
    }
  }
  const odd = { ...bitcoin, instrument: '币安人生USDT' };
  for (const { history } of binanceDerivatives.readings!) {
    const { path } = history!.page(odd, { from, to: end.short });
    assert.equal(new URL(path, 'http://host').searchParams.get('symbol'), odd.instrument);
    assert.match(path, /^[\x21-\x7e]+$/);
  }
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
  rest(SETTLED_PATH, documented('http/http_futures_market_funding_rate.json'));
  rest(PAST_INTEREST_PATH, documented('http/http_futures_market_open_interest_historical.json'));
  assert.deepEqual(events, []);
  assert.deepEqual(
    of('funding_rate')
      .slice(2)
      .map((row) => [row.timestamp, row.funding_rate]),
    [
      [1570608000000, '-0.03750000'],
      [1570636800000, '0.00010000'],
    ],
  );
  assert.deepEqual(
    of('open_interest')
      .slice(1)
      .map((row) => row.open_interest_value),
    ['150570784.07809979', '149940752.14464448'],
  );
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
