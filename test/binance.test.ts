import assert from 'node:assert/strict';
import { test } from 'node:test';
import { binanceDerivatives, binanceSpot } from '../scripts/exchanges/binance.ts';
import type { ExchangeModule, FeedEvent } from '../scripts/lib/exchange.ts';
import type { OrderbookRow, OrderbookUpdateRow, TradeRow } from '../scripts/lib/rows.ts';
import { feedHarness } from './feed_harness.ts';
import { bookTickers, canonical, missing, RECORDED, type RecordedLine, readSession } from './fixtures.ts';

const NOW = 1723161255_400_000;

function harness(module: ExchangeModule, orderbookIntervalMs = 0) {
  return feedHarness(module, NOW, { orderbookIntervalMs });
}

const SPOT_TRADE = {
  e: 'trade',
  E: 1723161255343,
  s: 'BTCUSDT',
  t: 3735683259,
  p: '61837.63000000',
  q: '0.02000000',
  T: 1723161255342,
  m: true,
  M: true,
};

test('a spot trade becomes a row to the last digit, with the taker’s side', () => {
  const { frame, of } = harness(binanceSpot);
  frame({ stream: 'btcusdt@trade', data: SPOT_TRADE });
  frame({ ...SPOT_TRADE, t: 3735683260, m: false });
  const [sold, bought] = of('trade');
  assert.deepEqual(sold, {
    exchange: 'binance_spot',
    market_type: 'spot',
    symbol: 'BTC-USDT',
    instrument: 'BTCUSDT',
    timestamp: 1723161255342,
    received_at: NOW,
    data_source: 'live',
    trade_id: '3735683259',
    sequence: null,
    price: '61837.63000000',
    quantity: '0.02000000',
    side: 'sell',
    is_maker: true,
  } satisfies TradeRow);
  assert.equal(bought!.side, 'buy');
  assert.equal(bought!.is_maker, false);
});

test('USDM aggTrade and trade are both taken, with their own ids and the trade’s time', () => {
  const { frame, of } = harness(binanceDerivatives);
  frame({
    e: 'aggTrade',
    E: 1723161255343,
    s: 'ETHUSDT',
    a: 5933014,
    p: '2681.62',
    q: '1.5',
    nq: '1.5',
    f: 100,
    l: 105,
    T: 1723161255340,
    m: true,
    st: 1,
  });
  frame({
    e: 'trade',
    E: 1723161256560,
    T: 1723161256560,
    s: 'ETHUSDT',
    t: 4308068523,
    p: '2681.62',
    q: '1.000',
    X: 'RPI',
    m: false,
    st: 1,
  });
  assert.deepEqual(
    of('trade').map((row) => [row.market_type, row.trade_id, row.timestamp, row.side]),
    [
      ['perpetual', '5933014', 1723161255340, 'sell'],
      ['perpetual', '4308068523', 1723161256560, 'buy'],
    ],
  );
});

test('prints that are not from the book, and COIN-M rows, are counted and not stored', () => {
  const { frame, rows, events } = harness(binanceDerivatives);
  const trade = { e: 'trade', E: 1, T: 1723161256560, s: 'ETHUSDT', t: 1, p: '0', q: '0', m: false, st: 1 };
  for (const X of ['NA', 'ADL', 'INSURANCE_FUND']) frame({ ...trade, X });
  frame({ e: 'aggTrade', s: 'BTCUSD_PERP', a: 1, p: '1', q: '1', T: 1723161256560, m: false, st: 2 });
  assert.equal(rows.length, 0);
  assert.deepEqual(
    events.map((event) => event.kind),
    ['ignored', 'ignored', 'ignored', 'ignored'],
  );
});

test('a dated future keeps the venue’s own id as its symbol', () => {
  const { frame, of } = harness(binanceDerivatives);
  frame({ e: 'aggTrade', s: 'BTCUSDT_261225', a: 1, p: '1', q: '1', T: 1723161256560, m: false });
  assert.deepEqual(
    of('trade').map((row) => [row.market_type, row.symbol]),
    [['futures', 'BTCUSDT_261225']],
  );
});

test('an instrument list tells dated futures and perpetuals apart', () => {
  const { frame, rest, of } = harness(binanceDerivatives);
  const dated = { baseAsset: 'BTC', quoteAsset: 'USDT', contractType: 'CURRENT_QUARTER' };
  rest('/fapi/v1/exchangeInfo', {
    symbols: [
      { ...dated, symbol: 'BTCUSDTZ26' },
      { ...dated, symbol: 'BTCUSDT', contractType: 'PERPETUAL' },
    ],
  });
  for (const s of ['BTCUSDTZ26', 'BTCUSDT']) {
    frame({ e: 'aggTrade', s, a: 1, p: '1', q: '1', T: 1723161256560, m: false });
  }
  assert.deepEqual(
    of('trade').map((row) => [row.market_type, row.symbol]),
    [
      ['futures', 'BTCUSDTZ26'],
      ['perpetual', 'BTC-USDT'],
    ],
  );
});

test('an instrument list settles base and quote where the id alone cannot', () => {
  const { frame, rest, of, events } = harness(binanceSpot);
  frame({ ...SPOT_TRADE, s: 'FOOXYZ' });
  assert.deepEqual(events, [
    { kind: 'rejected', reason: 'cannot tell base and quote of "FOOXYZ" without the instrument list' },
  ]);
  rest('/api/v3/exchangeInfo', { symbols: [{ symbol: 'FOOXYZ', baseAsset: 'FOO', quoteAsset: 'XYZ' }] });
  frame({ ...SPOT_TRADE, s: 'FOOXYZ' });
  assert.equal(of('trade')[0]!.symbol, 'FOO-XYZ');
});

test('a depth update is a row with best levels first, whichever way the venue sorted them', () => {
  const { frame, of } = harness(binanceDerivatives);
  frame({
    e: 'depthUpdate',
    E: 1723161256303,
    T: 1723161256302,
    s: 'ETHUSDT',
    U: 5,
    u: 9,
    pu: 3,
    b: [
      ['200.00', '10.229'],
      ['2681.62', '1.165'],
    ],
    a: [
      ['2700.00', '1'],
      ['2681.63', '0.000'],
    ],
  });
  const [row] = of('orderbook_update');
  assert.deepEqual({ ...row, received_at: 0 }, {
    exchange: 'binance_derivatives',
    market_type: 'perpetual',
    symbol: 'ETH-USDT',
    instrument: 'ETHUSDT',
    timestamp: 1723161256302,
    received_at: 0,
    data_source: 'live',
    first_update_id: 5,
    last_update_id: 9,
    prev_update_id: 3,
    is_snapshot: false,
    bids: [
      ['2681.62', '1.165'],
      ['200.00', '10.229'],
    ],
    asks: [
      ['2681.63', '0.000'],
      ['2700.00', '1'],
    ],
  } satisfies OrderbookUpdateRow);
});

const DIFF = { e: 'depthUpdate', E: 1723161255308, s: 'BTCUSDT', U: 11, u: 20, b: [['99', '1']], a: [['101', '1']] };

test('no orderbook row comes before a snapshot; the snapshot is a row with the time of the diff that brackets it', () => {
  const { frame, rest, of, feed } = harness(binanceSpot);
  frame(DIFF);
  assert.equal(of('orderbook').length, 0);
  assert.deepEqual(
    feed.requests().map((request) => [request.path, request.weight]),
    [['/api/v3/depth?symbol=BTCUSDT&limit=1000', 50]],
  );
  rest('/api/v3/depth?symbol=BTCUSDT&limit=1000', { lastUpdateId: 12, bids: [['98', '5']], asks: [['102', '5']] });
  assert.deepEqual(feed.requests(), []);
  const [base] = of('orderbook_update').filter((row) => row.is_snapshot);
  assert.deepEqual([base!.last_update_id, base!.first_update_id, base!.timestamp], [12, null, 1723161255308]);
  const [book] = of('orderbook');
  assert.deepEqual(
    [book!.last_update_id, book!.bids, book!.asks, book!.verified],
    [
      20,
      [
        ['99', '1'],
        ['98', '5'],
      ],
      [
        ['101', '1'],
        ['102', '5'],
      ],
      'verified',
    ],
  );
});

test('orderbook rows are the first applied update of each interval of venue time', () => {
  const { frame, rest, of } = harness(binanceSpot, 10_000);
  const at = (E: number, U: number) => frame({ ...DIFF, E, U, u: U });
  at(1723161255308, 11);
  rest('/api/v3/depth?symbol=BTCUSDT&limit=1000', { lastUpdateId: 10, bids: [['98', '5']], asks: [['102', '5']] });
  at(1723161259999, 12);
  at(1723161260000, 13);
  at(1723161269999, 14);
  at(1723161285000, 15);
  assert.deepEqual(
    of('orderbook').map((row) => row.last_update_id),
    [11, 13, 15],
  );
  at(1723161262000, 16);
  assert.equal(of('orderbook').length, 3, 'an update of an interval that is over makes no row');
});

test('a USDM snapshot has its own time', () => {
  const { frame, rest, of } = harness(binanceDerivatives);
  frame({ ...DIFF, T: 1723161255300, pu: 10 });
  const answer = { lastUpdateId: 12, E: 1723161255200, T: 1723161255199, bids: [['98', '5']], asks: [['102', '5']] };
  rest('/fapi/v1/depth?symbol=BTCUSDT&limit=1000', answer);
  const [base] = of('orderbook_update').filter((row) => row.is_snapshot);
  assert.equal(base!.timestamp, 1723161255199);
});

test('a book whose snapshot does not reach deep enough any more gets a new one, once a minute at most', () => {
  const { frame, rest, feed, of } = harness(binanceSpot);
  const path = '/api/v3/depth?symbol=BTCUSDT&limit=1000';
  const levels = (from: number, step: number) => Array.from({ length: 1000 }, (_, i) => [String(from + i * step), '1']);
  const at = (E: number, U: number, b: string[][] = []) => frame({ ...DIFF, E, U, u: U, b, a: [] });
  at(1723161200000, 11);
  rest(path, { lastUpdateId: 10, bids: levels(100_000, -1), asks: levels(100_001, 1) });
  const falls = levels(100_000, -1)
    .slice(0, 700)
    .map(([price]) => [price!, '0']);
  at(1723161230000, 12, falls);
  assert.deepEqual(feed.requests(), [], 'the snapshot is younger than a minute');
  at(1723161260001, 13);
  assert.deepEqual(
    feed.requests().map((request) => request.path),
    [path],
  );
  assert.equal(of('orderbook').at(-1)!.last_update_id, 13, 'meanwhile the old one serves');
  rest(path, { lastUpdateId: 13, bids: levels(99_300, -1), asks: levels(100_001, 1) });
  at(1723161270000, 14);
  assert.deepEqual(feed.requests(), []);
  at(1723161271000, 15);
  assert.equal(of('orderbook').at(-1)!.bids.length, 400);
});

test('a book that has left what its snapshot told is not called verified, and one with an empty side is no row', () => {
  const { frame, rest, of, events } = harness(binanceSpot);
  frame({ ...DIFF, b: [['90', '1']], a: [['101', '1']] });
  const path = '/api/v3/depth?symbol=BTCUSDT&limit=1';
  rest(path, { lastUpdateId: 12, bids: [['98', '5']], asks: [['102', '5']] });
  frame({ ...DIFF, U: 21, u: 22, b: [['98', '0']], a: [] });
  frame({ ...DIFF, U: 23, u: 24, b: [['90', '0']], a: [] });
  assert.deepEqual(
    of('orderbook').map((row) => [row.last_update_id, row.best_bid_price, row.verified]),
    [
      [20, '98', 'verified'],
      [22, '90', 'unverifiable'],
    ],
  );
  assert.deepEqual(
    events.filter((event) => event.kind === 'ignored'),
    [{ kind: 'ignored', reason: 'book with an empty side' }],
  );
});

test('an error in a REST answer is told as such', () => {
  const { rest, events } = harness(binanceSpot);
  const path = '/api/v3/depth?symbol=BTCUSDT&limit=1000';
  for (const answer of [
    { code: -1121, msg: 'Invalid symbol.' },
    { status: 'ERROR', errorData: 'no' },
  ])
    rest(path, answer);
  const reasons = events.map((event) => event.kind === 'rejected' && event.reason);
  for (const reason of reasons) assert.match(String(reason), /^\/api\/v3\/depth answered an error: /);
  assert.equal(reasons.length, 2);
});

test('a lost socket drops the books of its own depth channels alone', () => {
  const { feed, out, frame, rest, events } = harness(binanceDerivatives);
  frame({ ...DIFF, T: DIFF.E, pu: 10 });
  rest('/fapi/v1/depth?symbol=BTCUSDT&limit=1000', { lastUpdateId: 12, bids: [['98', '5']], asks: [['102', '5']] });
  const [book, trades] = binanceDerivatives.connections([binanceDerivatives.instrument('BTC-USDT', 'perpetual')]);
  const resyncs = () => events.filter((event) => event.kind === 'resync').length;
  feed.disconnected(trades!.channels, out);
  assert.equal(resyncs(), 0);
  feed.disconnected(book!.channels, out);
  assert.equal(resyncs(), 1);
});

test('one symbol’s gap leaves its sibling alone', () => {
  const { frame, rest, of, events, feed } = harness(binanceSpot);
  for (const s of ['BTCUSDT', 'ETHUSDT']) {
    frame({ ...DIFF, s });
    rest(`/api/v3/depth?symbol=${s}&limit=1000`, { lastUpdateId: 12, bids: [['98', '5']], asks: [['102', '5']] });
  }
  frame({ ...DIFF, U: 25, u: 30 });
  frame({ ...DIFF, s: 'ETHUSDT', U: 21, u: 30 });
  assert.deepEqual(
    events
      .filter((event) => event.kind === 'resync')
      .map((event) => event.kind === 'resync' && [event.instrument.symbol, event.cause, event.last, event.next]),
    [['BTC-USDT', 'gap', 20, 25]],
  );
  assert.deepEqual(
    feed.requests().map((request) => request.instrument.symbol),
    ['BTC-USDT'],
  );
  assert.deepEqual(
    of('orderbook').map((row) => `${row.symbol} ${row.last_update_id}`),
    ['BTC-USDT 20', 'ETH-USDT 20', 'ETH-USDT 30'],
  );
});

test('frames that no table keeps are recognised, acknowledgements answered to, unknown ones rejected; none throws', () => {
  const { frame, take } = harness(binanceSpot);
  const cases: [unknown, FeedEvent['kind']][] = [
    [{ result: null, id: 3 }, 'ack'],
    [{ error: { code: 2, msg: 'Invalid request' }, id: 1 }, 'ack'],
    [{ code: 2, msg: 'Invalid request', id: '1' }, 'ack'],
    [{ stream: 'btcusdt@bookTicker', data: { u: 1, s: 'BTCUSDT', b: '1', B: '1', a: '2', A: '1' } }, 'ignored'],
    [{ e: 'kline', s: 'BTCUSDT' }, 'ignored'],
    [{ e: 'serverShutdown', E: 1770123456789 }, 'closing'],
    [{ e: 'somethingNew' }, 'rejected'],
    [{ hello: 1 }, 'rejected'],
    ['', 'rejected'],
    ['not json', 'rejected'],
    ['[]', 'rejected'],
    ['null', 'rejected'],
    ['{"stream":"x","data":null}', 'rejected'],
  ];
  for (const [input, kind] of cases) {
    frame(input);
    const { rows, events } = take();
    assert.equal(rows.length, 0, JSON.stringify(input));
    assert.deepEqual(
      events.map((event) => event.kind),
      [kind],
      JSON.stringify(input),
    );
  }
});

test('the list of what is subscribed is read from its answer', () => {
  const { frame, events } = harness(binanceSpot);
  frame({ result: ['btcusdt@trade'], id: 4 });
  frame({ result: null, id: 5 });
  frame({ error: { code: 2, msg: 'no' }, id: 6 });
  assert.deepEqual(events, [
    { kind: 'ack', id: 4, error: null, granted: ['btcusdt@trade'] },
    { kind: 'ack', id: 5, error: null, granted: null },
    { kind: 'ack', id: 6, error: '{"code":2,"msg":"no"}', granted: null },
  ]);
});

test('an unsound value rejects the frame: no row, and the book does not see it', () => {
  const { frame, rest, take } = harness(binanceSpot);
  for (const change of [
    { p: '' },
    { p: '0' },
    { p: '-1' },
    { p: null },
    { q: 'NaN' },
    { t: '12' },
    { t: 1.5 },
    { t: 2 ** 60 },
    { T: 0 },
    { T: 1723161255342000 },
    { T: '1723161255342' },
    { m: 1 },
    { s: '' },
    { s: 5 },
  ]) {
    frame({ ...SPOT_TRADE, ...change });
  }
  for (const change of [
    { U: 'x' },
    { u: 5 },
    { b: null },
    { b: [['1']] },
    { b: [['x', '1']] },
    { a: [['1', '-1']] },
    { E: null },
  ]) {
    frame({ ...DIFF, ...change });
  }
  rest('/api/v3/depth?symbol=BTCUSDT&limit=1000', { code: -1121, msg: 'Invalid symbol.' });
  rest('/api/v3/depth?symbol=BTCUSDT&limit=1000', { lastUpdateId: 5, bids: 'x', asks: [] });
  rest('/api/v3/other', {});
  const { rows, events } = take();
  assert.deepEqual(rows, []);
  assert.equal(events.length, 24);
  assert.ok(events.every((event) => event.kind === 'rejected'));
});

test('mutated and truncated frames never throw, and no row comes out of a truncated one', () => {
  const frames = [JSON.stringify({ stream: 's', data: SPOT_TRADE }), JSON.stringify({ stream: 's', data: DIFF })];
  for (const text of frames) {
    const { feed, out, rows } = harness(binanceSpot);
    for (let length = 0; length < text.length; length++) feed.frame(text.slice(0, length), NOW, out);
    assert.equal(rows.length, 0);
    let seed = 11;
    const random = (n: number) => (seed = (seed * 48271) % 2147483647) % n;
    for (let i = 0; i < 20_000; i++) {
      const at = random(text.length);
      feed.frame(text.slice(0, at) + String.fromCharCode(32 + random(95)) + text.slice(at + 1 + random(3)), NOW, out);
    }
  }
});

const SNAPSHOT_PATHS = {
  spot: '/api/v3/depth?symbol=BTCUSDT&limit=1000',
  usdm: '/fapi/v1/depth?symbol=ETHUSDT&limit=1000',
};

/** Runs a recorded session through a feed. */
function replay(module: ExchangeModule, session: RecordedLine[], path: string) {
  const run = harness(module);
  for (const { receivedMs, raw } of session) {
    if (raw.startsWith('{"lastUpdateId"')) run.feed.rest(path, JSON.parse(raw), receivedMs * 1000, run.out);
    else run.feed.frame(raw, receivedMs * 1000, run.out);
  }
  return run;
}

function compareWithTickers(books: OrderbookRow[], session: RecordedLine[]): number {
  const tickers = bookTickers(session);
  let equal = 0;
  for (const book of books) {
    const ticker = tickers.get(book.last_update_id as number);
    if (!ticker) continue;
    const ours = [book.best_bid_price, book.best_bid_quantity, book.best_ask_price, book.best_ask_quantity].map(
      canonical,
    );
    assert.deepEqual(ours, [...ticker.bid, ...ticker.ask].map(canonical), `at update ${book.last_update_id}`);
    equal += 1;
  }
  return equal;
}

test('the recorded spot session: every trade once with contiguous ids, the venue’s own best bid and ask at 564 of 564', {
  skip: missing(RECORDED.spot),
}, () => {
  const session = readSession(RECORDED.spot);
  const { of, events } = replay(binanceSpot, session, SNAPSHOT_PATHS.spot);
  const ids = of('trade').map((row) => Number(row.trade_id));
  assert.equal(ids.length, 9757);
  assert.ok(ids.every((id, index) => index === 0 || id === ids[index - 1]! + 1));
  assert.equal(compareWithTickers(of('orderbook'), session), 564);
  assert.deepEqual(
    events.filter((event) => event.kind !== 'ignored'),
    [],
  );
});

test('the recorded USDM session: 14,076 trades, the venue’s own best bid and ask at 551 of 551', {
  skip: missing(RECORDED.usdm),
}, () => {
  const session = readSession(RECORDED.usdm);
  const { of, events } = replay(binanceDerivatives, session, SNAPSHOT_PATHS.usdm);
  assert.equal(of('trade').length, 14_076);
  assert.equal(of('orderbook_update').length, 6587);
  assert.equal(compareWithTickers(of('orderbook'), session), 551);
  assert.deepEqual(
    events.filter((event) => event.kind !== 'ignored'),
    [],
  );
});

test('a diff line deleted from a recorded session is noticed at the next diff', {
  skip: missing(RECORDED.usdm),
}, () => {
  const session = readSession(RECORDED.usdm);
  const diffs = session.filter((line) => line.raw.includes('@depth'));
  const { events } = replay(
    binanceDerivatives,
    session.filter((line) => line !== diffs[3000]),
    SNAPSHOT_PATHS.usdm,
  );
  const resyncs = events.filter((event) => event.kind === 'resync');
  assert.equal(resyncs.length, 1);
  const next = JSON.parse(diffs[3001]!.raw).data;
  assert.deepEqual(resyncs[0], {
    kind: 'resync',
    instrument: (resyncs[0] as { instrument: object }).instrument,
    cause: 'gap',
    last: JSON.parse(diffs[2999]!.raw).data.u,
    next: next.U,
  });
});

test('each class of stream is asked for on its own socket, and lists and ids of control messages are the venue’s', () => {
  const pairs = ['BTC-USDT', 'ETH-USDT'];
  const spot = binanceSpot.connections(pairs.map((pair) => binanceSpot.instrument(pair, 'spot')));
  assert.deepEqual(
    spot.map((each) => [each.path, each.channels.map((channel) => channel.name)]),
    [['/stream', ['btcusdt@trade', 'btcusdt@depth@100ms', 'ethusdt@trade', 'ethusdt@depth@100ms']]],
  );
  const usdm = binanceDerivatives.connections(pairs.map((pair) => binanceDerivatives.instrument(pair, 'perpetual')));
  assert.deepEqual(
    usdm.map((each) => [each.path, each.channels.map((channel) => channel.name)]),
    [
      ['/public/stream', ['btcusdt@depth@100ms', 'ethusdt@depth@100ms']],
      [
        '/market/stream',
        ['btc', 'eth'].flatMap((coin) =>
          ['aggTrade', 'markPrice@1s', 'forceOrder'].map((stream) => `${coin}usdt@${stream}`),
        ),
      ],
    ],
  );
  assert.deepEqual(binanceSpot.subscribe(spot[0]!.channels.slice(0, 1), 7), [
    { id: 7, text: '{"method":"SUBSCRIBE","params":["btcusdt@trade"],"id":7}' },
  ]);
  const many = Array.from({ length: 1200 }, (_, i) => binanceSpot.instrument(`C${i}-USDT`, 'spot'));
  const split = binanceSpot.connections(many);
  assert.ok(split.every((each) => each.channels.length <= 1024));
  const names = split.flatMap((each) => each.channels.map((channel) => channel.name));
  assert.equal(new Set(names).size, 2400);
  // A long list goes in parts, far from any limit of a message's size.
  const messages = binanceSpot.subscribe(split[0]!.channels, 7);
  assert.deepEqual(
    messages.map(({ id }) => id),
    messages.map((_, index) => 7 + index),
  );
  assert.deepEqual(
    messages.flatMap(({ text }) => JSON.parse(text).params),
    split[0]!.channels.map((channel) => channel.name),
  );
  assert.ok(messages.every(({ text }) => text.length <= 4096));
});
