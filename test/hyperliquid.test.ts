import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { hyperliquid } from '../scripts/exchanges/hyperliquid.ts';
import type { FeedEvent, Instrument } from '../scripts/lib/exchange.ts';
import type { FundingRateRow, OpenInterestRow, OrderbookRow, TradeRow } from '../scripts/lib/rows.ts';
import { feedHarness } from './feed_harness.ts';
import { missing, readSession } from './fixtures.ts';

const SHARED = join(import.meta.dirname, '..', '..', 'shared', 'fixtures');
const RECORDED = join(SHARED, 'hftbacktest', 'hyperliquid', 'btcusd_20250126.gz');
const NAUTILUS = join(SHARED, 'nautilus_trader', 'hyperliquid');
const SDK = join(SHARED, 'hyperliquid-python-sdk', 'hyperliquid');
const RECENT = join(SHARED, 'recent-2026', 'hyperliquid.jsonl');

const NOW = 1786539540123_456;
const MINUTE = 1786539540000;
const TIME = 1786539539950;

function harness(orderbookIntervalMs = 0, instruments: Instrument[] = []) {
  const run = feedHarness(hyperliquid, NOW, { orderbookIntervalMs, instruments });
  return { ...run, rest: (query: string, body: unknown, at = NOW) => run.rest(`/info?${query}`, body, at) };
}

const TRADE = {
  coin: 'BTC',
  side: 'B',
  px: '105056.0',
  sz: '0.00219',
  time: TIME,
  hash: '0x00',
  tid: 121451470284048,
  users: ['0x1', '0x2'],
};
const trades = (...data: object[]) => ({ channel: 'trades', data });
const BOOK = {
  coin: 'BTC',
  time: TIME,
  levels: [
    [
      { px: '105055.0', sz: '3.03622', n: 5 },
      { px: '105054.0', sz: '0.1428', n: 1 },
    ],
    [
      { px: '105056.0', sz: '6.34472', n: 13 },
      { px: '105057.0', sz: '0.0001', n: 1 },
    ],
  ],
};
const book = (change: object = {}) => ({ channel: 'l2Book', data: { ...BOOK, ...change } });
const CONTEXT = {
  funding: '0.0000125',
  openInterest: '38485.06546',
  prevDayPx: '64299.0',
  dayNtlVlm: '1692146864.1761949062',
  premium: '-0.0003293628',
  oraclePx: '64063.1',
  markPx: '64040.0',
  midPx: '64041.5',
  impactPxs: ['64041.0', '64042.0'],
};
const context = (change: object = {}, coin = 'BTC') => ({
  channel: 'activeAssetCtx',
  data: { coin, ctx: { ...CONTEXT, ...change } },
});

test('a trade becomes a row to the last digit, with the taker’s side', () => {
  const { frame, of } = harness();
  frame(trades(TRADE, { ...TRADE, side: 'A', tid: 2, coin: 'kPEPE' }));
  const [bought, sold] = of('trade');
  assert.deepEqual(bought, {
    exchange: 'hyperliquid',
    market_type: 'perpetual',
    symbol: 'BTC-USDC',
    instrument: 'BTC',
    timestamp: TIME,
    received_at: NOW,
    data_source: 'live',
    trade_id: '121451470284048',
    sequence: null,
    price: '105056.0',
    quantity: '0.00219',
    side: 'buy',
    is_maker: false,
  } satisfies TradeRow);
  assert.deepEqual([sold!.symbol, sold!.trade_id, sold!.side, sold!.is_maker], ['kPEPE-USDC', '2', 'sell', true]);
});

test('a trade id above 2^53 keeps its last digit', () => {
  const { frame, of } = harness();
  frame(JSON.stringify(trades(TRADE)).replace('121451470284048', '9007199254740993'));
  assert.equal(of('trade')[0]!.trade_id, '9007199254740993');
});

test('one unsound trade of a message is told and costs the others nothing', () => {
  const { frame, of, told } = harness();
  const unsound = [
    { side: 'X' },
    { px: '0' },
    { px: '' },
    { sz: null },
    { sz: '-1' },
    { tid: null },
    { tid: 1.5 },
    { tid: '' },
    { time: 0 },
    { time: TIME * 1000 },
    { coin: '' },
    { coin: 5 },
  ];
  frame(trades(TRADE, ...unsound.map((change) => ({ ...TRADE, ...change })), { ...TRADE, tid: 2 }));
  assert.deepEqual(
    of('trade').map((row) => row.trade_id),
    ['121451470284048', '2'],
  );
  assert.equal(told('rejected').length, unsound.length);
});

test('each book is a whole one: an update row that is a snapshot, and an orderbook row that nothing proves', () => {
  const { frame, of, events } = harness();
  frame(book());
  const bids = [
    ['105055.0', '3.03622'],
    ['105054.0', '0.1428'],
  ] as [string, string][];
  const asks = [
    ['105056.0', '6.34472'],
    ['105057.0', '0.0001'],
  ] as [string, string][];
  const common = {
    exchange: 'hyperliquid',
    market_type: 'perpetual',
    symbol: 'BTC-USDC',
    instrument: 'BTC',
    timestamp: TIME,
    received_at: NOW,
    data_source: 'live',
    last_update_id: TIME,
    bids,
    asks,
  } as const;
  assert.deepEqual(of('orderbook_update'), [
    { ...common, first_update_id: null, prev_update_id: null, is_snapshot: true },
  ]);
  assert.deepEqual(of('orderbook'), [
    {
      ...common,
      best_bid_price: '105055.0',
      best_bid_quantity: '3.03622',
      best_ask_price: '105056.0',
      best_ask_quantity: '6.34472',
      verified: 'unverifiable',
    } satisfies OrderbookRow,
  ]);
  assert.deepEqual(events, []);
});

test('orderbook rows are the first book of each interval of venue time, updates are all, a copy is none', () => {
  const { frame, of, told } = harness(10_000);
  for (const time of [TIME, TIME, MINUTE, MINUTE + 9999, MINUTE + 25_000]) frame(book({ time }));
  assert.deepEqual(
    of('orderbook').map((row) => row.last_update_id),
    [TIME, MINUTE, MINUTE + 25_000],
  );
  assert.equal(of('orderbook_update').length, 4);
  assert.deepEqual(told('ignored'), [{ kind: 'ignored', reason: 'the same book again' }]);
});

test('books that are crossed, not sound, empty on a side, or of five levels only', () => {
  const { frame, take } = harness();
  const [bids, asks] = BOOK.levels as [object[], object[]];
  const bad = [
    { levels: [asks, bids] },
    { levels: [bids] },
    { levels: 5 },
    { levels: [[{ px: 'x', sz: '1' }], asks] },
    { levels: [[{ px: '1', sz: '0' }], asks] },
    { levels: [['105055.0', '1'], asks] },
    { time: null },
    { coin: null },
  ];
  for (const change of bad) {
    frame(book(change));
    const { rows, events } = take();
    assert.deepEqual([rows.length, events.map((event) => event.kind)], [0, ['rejected']], JSON.stringify(change));
  }
  frame(book({ fast: true }));
  assert.deepEqual(take(), { rows: [], events: [{ kind: 'ignored', reason: 'fast book' }] });
  frame(book({ levels: [[], asks] }));
  const { rows, events } = take();
  assert.deepEqual(
    rows.map((each) => each.type),
    ['orderbook_update'],
  );
  assert.deepEqual(events, [{ kind: 'ignored', reason: 'book with an empty side' }]);
});

test('funding is a rate per hour at the minute it came in, with open interest in coins and in the quote', () => {
  const { frame, of } = harness();
  frame(context());
  const common = {
    exchange: 'hyperliquid',
    market_type: 'perpetual',
    symbol: 'BTC-USDC',
    instrument: 'BTC',
    timestamp: MINUTE,
    received_at: NOW,
    data_source: 'live',
  } as const;
  assert.deepEqual(of('funding_rate'), [
    {
      ...common,
      funding_rate: '0.0000125',
      funding_time: null,
      next_funding_time: null,
      funding_interval_hours: '1',
      mark_price: '64040.0',
      index_price: '64063.1',
    } satisfies FundingRateRow,
  ]);
  assert.deepEqual(of('open_interest'), [
    {
      ...common,
      open_interest: '38485.06546',
      open_interest_value: '2464583592.0584',
      contracts: null,
    } satisfies OpenInterestRow,
  ]);
});

test('contexts are sampled by the minute of the receive clock, per coin', () => {
  const { frame, of } = harness();
  const at = (ms: number, coin?: string) => frame(context({}, coin), ms * 1000 + 999);
  at(MINUTE + 123);
  at(MINUTE + 59_999);
  at(MINUTE + 60_000);
  at(MINUTE + 60_001, 'ETH');
  at(MINUTE + 30_000);
  assert.deepEqual(
    of('funding_rate').map((row) => [row.symbol, row.timestamp]),
    [
      ['BTC-USDC', MINUTE],
      ['BTC-USDC', MINUTE + 60_000],
      ['ETH-USDC', MINUTE + 60_000],
    ],
  );
});

test('an absent reading is no row and never 0, and does not use up its minute', () => {
  const { frame, of, told } = harness();
  for (const change of [
    { funding: null },
    { funding: '' },
    { openInterest: null },
    { openInterest: '-1' },
    { markPx: '0' },
  ]) {
    frame(context(change));
  }
  assert.equal(told('rejected').length, 5);
  assert.equal(of('funding_rate').length + of('open_interest').length, 0);
  frame(context({ openInterest: '0.0', premium: null, midPx: null, impactPxs: null }));
  assert.deepEqual(
    of('open_interest').map((row) => [row.open_interest, row.open_interest_value]),
    [['0.0', '0']],
  );
});

test('grants name the channel as it was asked for, whatever defaults are added; refusals and pongs are told apart', () => {
  const { frame, take } = harness();
  const response = (method: string, subscription: object) => ({
    channel: 'subscriptionResponse',
    data: { method, subscription },
  });
  const cases: [unknown, FeedEvent][] = [
    [
      response('subscribe', { type: 'l2Book', coin: 'BTC', nSigFigs: null, mantissa: null, fast: false }),
      { kind: 'ack', id: null, error: null, granted: ['l2Book:BTC'] },
    ],
    [response('unsubscribe', { type: 'trades', coin: 'BTC' }), { kind: 'ack', id: null, error: null, granted: null }],
    [
      { channel: 'error', data: 'Invalid subscription {"type":"trades"}' },
      { kind: 'ack', id: null, error: 'Invalid subscription {"type":"trades"}', granted: null },
    ],
    [{ channel: 'pong' }, { kind: 'ignored', reason: 'pong' }],
    [
      { channel: 'bbo', data: { coin: 'BTC', time: 1, bbo: [null, null] } },
      { kind: 'ignored', reason: 'bbo' },
    ],
    [
      { channel: 'candle', data: {} },
      { kind: 'ignored', reason: 'candle' },
    ],
    [{ channel: 'new' }, { kind: 'rejected', reason: 'unknown channel "new"' }],
    [{ hello: 1 }, { kind: 'rejected', reason: 'unknown channel undefined' }],
  ];
  for (const [input, event] of cases) {
    frame(input);
    assert.deepEqual(take(), { rows: [], events: [event] });
  }
  for (const garbage of ['', 'not json', '[]', 'null', '{"channel":"trades"}', '{"channel":"l2Book","data":null}']) {
    frame(garbage);
    assert.deepEqual(
      take().events.map((event) => event.kind),
      ['rejected'],
    );
  }
});

const SPOT_META = {
  tokens: [
    { name: 'USDC', index: 0 },
    { name: 'PURR', index: 1 },
    { name: 'HYPE', index: 150 },
    { name: 'USDE', index: 235 },
  ],
  universe: [
    { name: 'PURR/USDC', tokens: [1, 0], index: 0 },
    { name: '@107', tokens: [150, 0], index: 107 },
    { name: '@999', tokens: [150, 4242], index: 999 },
  ],
};

test('spot pairs and builders’ perpetuals get their names from the lists, and none before', () => {
  const { frame, rest, of, told } = harness();
  for (const coin of ['@107', 'hyna:BTC', 'PURR/USDC']) frame(trades({ ...TRADE, coin }));
  assert.equal(told('rejected').length, 2);
  rest('type=spotMeta', SPOT_META);
  assert.equal(told('rejected').length, 3);
  rest('type=allPerpMetas', [
    { universe: [{ name: 'BTC' }], collateralToken: 0 },
    { universe: [{ name: 'hyna:BTC' }], collateralToken: 235 },
    { universe: [{ name: 'km:US500' }], collateralToken: 360 },
  ]);
  for (const coin of ['@107', 'hyna:BTC', 'km:US500', 'BTC']) frame(trades({ ...TRADE, coin }));
  assert.deepEqual(
    of('trade').map((row) => [row.instrument, row.market_type, row.symbol]),
    [
      ['PURR/USDC', 'spot', 'PURR-USDC'],
      ['@107', 'spot', 'HYPE-USDC'],
      ['hyna:BTC', 'perpetual', 'hyna:BTC-USDE'],
      ['BTC', 'perpetual', 'BTC-USDC'],
    ],
  );
});

test('info answers give the same rows as the socket', () => {
  const { rest, frame, of, events } = harness();
  rest('type=recentTrades&coin=BTC', [TRADE]);
  rest('type=l2Book&coin=BTC', BOOK);
  rest('type=metaAndAssetCtxs', [
    { universe: [{ name: 'BTC' }, { name: 'OLD', isDelisted: true }] },
    [CONTEXT, CONTEXT],
  ]);
  const fetched = ['trade', 'orderbook', 'orderbook_update', 'funding_rate', 'open_interest'] as const;
  const before = fetched.map((type) => of(type));
  assert.deepEqual(events, []);
  const socket = harness();
  for (const each of [trades(TRADE), book(), context()]) socket.frame(each);
  assert.deepEqual(
    before,
    fetched.map((type) => socket.of(type)),
  );
  frame(context());
  assert.equal(of('funding_rate').length, 1);
});

test('of a list of all coins only those are rows that the feed is about', () => {
  const { rest, of } = harness(0, [hyperliquid.instrument('ETH-USDT', 'perpetual')]);
  rest('type=metaAndAssetCtxs', [
    { universe: [{ name: 'BTC' }, { name: 'ETH' }] },
    [CONTEXT, { ...CONTEXT, funding: '0.5' }],
  ]);
  assert.deepEqual(
    of('funding_rate').map((row) => [row.symbol, row.funding_rate]),
    [['ETH-USDC', '0.5']],
  );
});

test('unsound info answers are rejected: null, lists of different length, errors, unknown types', () => {
  const { rest, take } = harness();
  rest('type=l2Book&coin=X', null);
  rest('type=recentTrades&coin=X', { error: 'x' });
  rest('type=metaAndAssetCtxs', [{ universe: [{ name: 'BTC' }] }, []]);
  rest('type=metaAndAssetCtxs', 'Failed to deserialize the JSON body into the target type');
  rest('type=fundingHistory&coin=X', 5);
  rest('type=meta', {});
  rest('type=somethingNew', {});
  rest('', {});
  const { rows, events } = take();
  assert.deepEqual(rows, []);
  assert.deepEqual(
    events.map((event) => event.kind),
    Array.from({ length: 8 }, () => 'rejected'),
  );
});

test('mutated and truncated frames never throw, and no row comes out of a truncated one', () => {
  let state = 11;
  const random = (below: number) => {
    state = (state * 48271) % 2147483647;
    return state % below;
  };
  for (const text of [trades(TRADE, TRADE), book(), context()].map((each) => JSON.stringify(each))) {
    const { feed, out, rows, take } = harness();
    for (let length = 0; length < text.length; length++) feed.frame(text.slice(0, length), NOW, out);
    assert.equal(rows.length, 0);
    for (let i = 0; i < 10_000; i++) {
      const at = random(text.length);
      feed.frame(text.slice(0, at) + String.fromCharCode(32 + random(95)) + text.slice(at + 1 + random(3)), NOW, out);
      if (i % 1000 === 0) take();
    }
  }
});

test('a pair is the coin’s one perpetual, over one socket, each channel asked for by itself and without an id', () => {
  const btc = hyperliquid.instrument('BTC-USDT', 'perpetual');
  assert.deepEqual(btc, { exchange: 'hyperliquid', market_type: 'perpetual', symbol: 'BTC-USDC', instrument: 'BTC' });
  const [connection, ...others] = hyperliquid.connections([btc]);
  assert.deepEqual(others, []);
  assert.equal(connection!.path, '/ws');
  assert.deepEqual(
    connection!.channels.map((each) => [each.name, each.types.join(' ')]),
    [
      ['trades:BTC', 'trade'],
      ['l2Book:BTC', 'orderbook orderbook_update'],
      ['activeAssetCtx:BTC', 'funding_rate open_interest'],
    ],
  );
  assert.deepEqual(hyperliquid.subscribe(connection!.channels.slice(0, 1), 7), [
    { id: null, text: '{"method":"subscribe","subscription":{"type":"trades","coin":"BTC"}}' },
  ]);
  const builder = { ...connection!.channels[0]!, name: 'trades:xyz:TSLA' };
  assert.deepEqual(hyperliquid.unsubscribe!([builder], 7), [
    { id: null, text: '{"method":"unsubscribe","subscription":{"type":"trades","coin":"xyz:TSLA"}}' },
  ]);
  assert.deepEqual(hyperliquid.ping, { text: '{"method":"ping"}', everyMs: 30_000 });
  const many = Array.from({ length: 200 }, (_, i) => hyperliquid.instrument(`C${i}-USDT`, 'perpetual'));
  const split = hyperliquid.connections(many);
  assert.equal(split.flatMap((each) => each.channels).length, 600);
  assert.ok(split.length <= 10);
});

test('a lost connection drops nothing, for each book is whole by itself', () => {
  const btc = hyperliquid.instrument('BTC-USDT', 'perpetual');
  const { feed, frame, of, out, events } = harness(0, [btc]);
  frame(book());
  feed.disconnected(hyperliquid.connections([btc])[0]!.channels, out);
  frame(book({ time: TIME + 5000 }));
  assert.equal(of('orderbook').length, 2);
  assert.deepEqual(
    events.filter(({ kind }) => kind === 'resync'),
    [],
  );
  assert.deepEqual(feed.requests(), []);
});

test('the recorded session: 64 trades of 9 messages, 30 of them the backlog, and 46 books of which one is a copy', {
  skip: missing(RECORDED),
}, () => {
  const session = readSession(RECORDED);
  const { feed, out, of, told, events } = harness();
  for (const { receivedMs, raw } of session) feed.frame(raw, receivedMs * 1000, out);
  const messages = session.map(({ raw }) => JSON.parse(raw));
  const books = messages.filter((each) => each.channel === 'l2Book').map((each) => each.data);
  const sent = messages.filter((each) => each.channel === 'trades');
  assert.deepEqual([books.length, sent.length, sent[0].data.length], [46, 9, 30]);
  assert.deepEqual(
    of('trade').map((row) => [Number(row.trade_id), row.price, row.quantity, row.side, row.timestamp]),
    sent
      .flatMap((each) => each.data)
      .map((each) => [each.tid, each.px, each.sz, each.side === 'B' ? 'buy' : 'sell', each.time]),
  );
  assert.equal(new Set(of('trade').map((row) => row.trade_id)).size, 64);
  const distinct = books.filter((each, index) => each.time !== books[index - 1]?.time);
  const flat = (levels: { px: string; sz: string }[]) => levels.map(({ px, sz }) => [px, sz]);
  for (const type of ['orderbook', 'orderbook_update'] as const) {
    assert.deepEqual(
      of(type).map((row) => [row.last_update_id, row.bids, row.asks]),
      distinct.map((each) => [each.time, flat(each.levels[0]), flat(each.levels[1])]),
    );
  }
  assert.equal(distinct.length, 45);
  assert.ok(of('orderbook').every((row) => row.bids.length === 20 && row.asks.length === 20));
  assert.deepEqual(events, told('ignored'));
  assert.equal(events.length, 1);
});

test('the venue’s own answers: a book, a list, and a history of funding that went from 8 hours to 1', {
  skip: missing(SDK),
}, () => {
  const { rest, of, take } = harness();
  const answers = [
    'test_get_info.json',
    'test_get_l2_snapshot.json',
    'test_get_funding_history_None_.json',
    'test_get_funding_history_1684811870000_.json',
  ].flatMap((name) => JSON.parse(readFileSync(join(SDK, name), 'utf8')));
  const history = answers.find((each) => each.request.type === 'fundingHistory').response;
  for (const { request, response } of answers) {
    rest(`type=${request.type}${request.coin ? `&coin=${request.coin}` : ''}`, response);
  }
  const funding = of('funding_rate').slice(0, history.length);
  assert.equal(history.length, 1038);
  assert.equal(of('funding_rate').length, 1038 + 34);
  assert.deepEqual(
    funding.map((row) => [row.timestamp, row.funding_time, row.funding_rate, row.symbol]),
    history.map((each: { time: number; fundingRate: string }) => [each.time, each.time, each.fundingRate, 'BTC-USDC']),
  );
  // The interval that a row tells is the time since the one before it, but where the venue skipped one.
  const differing = funding.filter((row, index) => {
    const before = funding[index - 1];
    const hours = before && Math.round((row.timestamp - before.timestamp) / 3_600_000);
    return hours !== undefined && String(hours) !== row.funding_interval_hours;
  });
  assert.deepEqual(
    differing.map((row) => row.timestamp),
    [1688331600180],
  );
  assert.deepEqual(
    of('orderbook').map((row) => [row.symbol, row.best_bid_price, row.best_bid_quantity]),
    [['DYDX-USDC', '2.111', '134.4']],
  );
  assert.deepEqual(take().events, []);
});

test('frames and answers of another project’s documents are all understood', { skip: missing(NAUTILUS) }, () => {
  const file = (name: string) => JSON.parse(readFileSync(join(NAUTILUS, name), 'utf8'));
  const { rest, frame, of, told, take } = harness();
  rest('type=spotMeta', file('http_spot_meta_non_usdc_collateral.json'));
  rest('type=allPerpMetas', file('http_all_perp_metas_non_usdc_collateral.json'));
  rest('type=meta', file('http_meta_perp_sample.json'));
  rest('type=l2Book&coin=BTC', file('http_l2_book_btc.json'));
  rest('type=l2Book&coin=BTC', file('http_l2_book_snapshot.json'));
  rest('type=fundingHistory&coin=BTC', file('http_funding_history.json'));
  rest('type=recentTrades&coin=BTC', file('http_recent_trades_btc.json'));
  assert.deepEqual(told('rejected'), []);
  assert.deepEqual(
    of('orderbook').map((row) => [row.last_update_id, row.best_bid_price]),
    [
      [1761786491067, '110427.0'],
      [1703875200000, '98450.50'],
    ],
  );
  assert.deepEqual(
    of('funding_rate').map((row) => [row.funding_rate, row.funding_interval_hours]),
    [
      ['0.0000125', '1'],
      ['-0.0000081', '1'],
      ['0.0000033', '1'],
    ],
  );
  assert.deepEqual(
    of('trade').map((row) => [row.trade_id, row.side]),
    [
      ['300003', 'sell'],
      ['300002', 'buy'],
      ['300001', 'sell'],
    ],
  );
  frame(trades({ ...TRADE, coin: 'km:US500' }, { ...TRADE, coin: 'hyna:BTC' }));
  assert.deepEqual(
    of('trade')
      .slice(3)
      .map((row) => row.symbol),
    ['km:US500-USDH', 'hyna:BTC-USDE'],
  );
  take();
  frame(readFileSync(join(NAUTILUS, 'ws_all_dexs_asset_ctxs.json'), 'utf8'));
  frame(file('ws_allmids.json'));
  frame({ channel: 'l2Book', data: file('ws_book_data.json') });
  const { rows, events } = take();
  assert.deepEqual(
    events.map((event) => 'reason' in event && event.reason),
    ['allDexsAssetCtxs', 'allMids', 'the same book again'],
  );
  assert.deepEqual(rows, []);
});

test('each of the 230 contexts of the venue’s own list is a sound reading', { skip: missing(NAUTILUS) }, () => {
  const { data } = JSON.parse(readFileSync(join(NAUTILUS, 'ws_all_dexs_asset_ctxs.json'), 'utf8'));
  const [, contexts] = data.ctxs[0] as [string, { openInterest: string }[]];
  const { rest, of, told } = harness();
  rest('type=metaAndAssetCtxs', [{ universe: contexts.map((_, index) => ({ name: `C${index}` })) }, contexts]);
  assert.deepEqual(told('rejected'), []);
  assert.deepEqual(
    of('open_interest').map((row) => row.open_interest),
    contexts.map((each) => each.openInterest),
  );
  assert.equal(of('funding_rate').length, 230);
});

test('frames of 2026: a context without a time, a candle, a grant with defaults filled in', {
  skip: missing(RECENT),
}, () => {
  const raws = readFileSync(RECENT, 'utf8')
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line).raw);
  const { frame, of, events } = harness();
  for (const raw of raws) frame(raw);
  assert.deepEqual(
    [of('funding_rate')[0]!.timestamp, of('funding_rate')[0]!.index_price, of('open_interest')[0]!.open_interest_value],
    [MINUTE, '64063.1', '2464583592.0584'],
  );
  assert.deepEqual(events, [
    { kind: 'ignored', reason: 'candle' },
    { kind: 'ack', id: null, error: null, granted: ['l2Book:BTC'] },
  ]);
});

const PERPETUAL = hyperliquid.instrument('BTC-USDT', 'perpetual');
const CHANNELS = hyperliquid.connections([PERPETUAL])[0]!.channels;
const numbered = (...ids: number[]) => trades(...ids.map((tid) => ({ ...TRADE, tid, time: TIME + tid })));

test('after a lost connection, a first message that reaches back to a known trade tells that none is missing', () => {
  const { feed, frame, out, told } = harness();
  frame(numbered(1, 2, 3));
  feed.disconnected(CHANNELS, out);
  frame(numbered(2, 3, 4, 5));
  frame(numbered(9));
  assert.deepEqual(told('unprovable'), []);
});

test('one that does not reach back is told, with the trades on both sides; once', () => {
  const { feed, frame, out, told } = harness();
  frame(numbered(1, 2, 3));
  feed.disconnected(CHANNELS, out);
  frame(numbered(40, 41));
  frame(numbered(42));
  assert.deepEqual(
    told('unprovable').map(({ instrument, after, before }) => [instrument.symbol, after, before]),
    [['BTC-USDC', { id: '3', time: TIME + 3 }, { id: '40', time: TIME + 40 }]],
  );
});

test('trades of before the start are remembered; without any, a first message tells nothing', () => {
  const { feed, frame, told, out } = harness();
  feed.disconnected(CHANNELS, out);
  assert.deepEqual(told('interrupted'), [], 'nothing is known that another one could go on from');
  frame(numbered(40));
  assert.deepEqual(told('unprovable'), []);
  const later = harness();
  later.feed.remember!('trade', PERPETUAL, [{ id: '3', time: TIME + 3 }], later.out);
  assert.deepEqual(
    later.told('interrupted').map(({ type, after }) => [type, after.id]),
    [['trade', '3']],
  );
  later.frame(numbered(40, 41));
  assert.equal(later.told('unprovable').length, 1);
});

/** Books at these ms after the first; 'lost' loses the connection. */
function books(...steps: (number | 'lost')[]) {
  const run = harness();
  const since = () => {
    const time = run.feed.unbrokenSince!('orderbook_update', PERPETUAL);
    return time === null ? null : time - TIME;
  };
  for (const step of steps) {
    if (step === 'lost') run.feed.disconnected(CHANNELS, run.out);
    else run.frame(book({ time: TIME + step }));
  }
  const missed = run
    .told('unprovable')
    .map(({ type, after, before }) => [type, after.time - TIME, before.time - TIME] as const);
  return { missed, since: since(), run };
}

test('a book of a new connection in less than a turn after one that came in its turn hides none', () => {
  const { missed, since } = books(0, 5000, 'lost', 9400, 10_000);
  assert.deepEqual(missed, []);
  assert.equal(since, 0);
});

test('a book of a new connection after a turn or more may hide one', () => {
  assert.deepEqual(books(0, 5000, 'lost', 11_800).missed, [['orderbook_update', 5000, 11_800]]);
  assert.deepEqual(books(0, 5000, 'lost', 9700).missed, [['orderbook_update', 5000, 9700]], 'turns are not on the dot');
  assert.equal(books(0, 5000, 'lost', 11_800, 15_000).since, 11_800);
});

test('after a connection that told its first book only, nobody knows when the next one was due', () => {
  assert.deepEqual(books(0, 5000, 'lost', 6000, 'lost', 7000).missed, [['orderbook_update', 6000, 7000]]);
  assert.deepEqual(books(0, 5000, 'lost', 6000, 10_000, 'lost', 11_000).missed, []);
});

test('the same book again, or an older one, tells of no loss', () => {
  assert.deepEqual(books(0, 5000, 'lost', 5000, 10_000).missed, []);
  const { missed, since, run } = books(0, 5000, 'lost', 0);
  assert.deepEqual([missed, since], [[], null], 'it is still not known what was missed');
  run.frame(book({ time: TIME + 20_000 }));
  assert.equal(run.told('unprovable').length, 1);
});

test('of a book of before the start nobody knows whether it came in its turn', () => {
  const { feed, frame, told, out } = harness();
  feed.remember!('orderbook_update', PERPETUAL, [{ id: String(TIME), time: TIME }], out);
  assert.equal(feed.unbrokenSince!('orderbook_update', PERPETUAL), null);
  frame(book({ time: TIME + 800 }));
  assert.deepEqual(
    told('unprovable').map(({ type, after, before }) => [type, after.id, before.id]),
    [['orderbook_update', String(TIME), String(TIME + 800)]],
  );
});

test('a chain of trades is unbroken from its first trade on, over connections that are bridged', () => {
  const { feed, frame, out } = harness();
  const since = () => (feed.unbrokenSince!('trade', PERPETUAL) ?? 0) - TIME;
  assert.equal(feed.unbrokenSince!('trade', PERPETUAL), null);
  frame(numbered(7, 8));
  assert.equal(since(), 8, 'others of the oldest one’s time may have been left out');
  feed.disconnected(CHANNELS, out);
  assert.equal(feed.unbrokenSince!('trade', PERPETUAL), null);
  frame(numbered(8, 9));
  assert.equal(since(), 8);
  feed.disconnected(CHANNELS, out);
  frame(numbered(40));
  assert.equal(since(), 41);
});
