import assert from 'node:assert/strict';
import { test } from 'node:test';
import { okxDerivatives, okxSpot } from '../scripts/exchanges/okx.ts';
import type { FeedEvent } from '../scripts/lib/exchange.ts';
import type {
  FundingRateRow,
  LiquidationRow,
  OpenInterestRow,
  OrderbookRow,
  OrderbookUpdateRow,
  TradeRow,
} from '../scripts/lib/rows.ts';
import { harness, LIST, level, listed, NOW, SWAP_LIST, snapshot, TRADE, trades, update } from './okx_frames.ts';

test('a spot trade becomes a row to the last digit, with the taker’s side', () => {
  const { frame, of, events } = harness(okxSpot);
  const spot = { ...TRADE, instId: 'BTC-USDT', sz: '0.00240850' };
  frame(trades('trades-all', { ...spot, side: 'sell' }, { ...spot, tradeId: '2953620281' }));
  const [sold, bought] = of('trade');
  assert.deepEqual(sold, {
    exchange: 'okx_spot',
    market_type: 'spot',
    symbol: 'BTC-USDT',
    instrument: 'BTC-USDT',
    timestamp: 1790439596521,
    received_at: NOW,
    data_source: 'live',
    trade_id: '2953620280',
    sequence: null,
    price: '84093.5',
    quantity: '0.00240850',
    side: 'sell',
    is_maker: true,
  } satisfies TradeRow);
  assert.deepEqual([bought!.trade_id, bought!.side, bought!.is_maker], ['2953620281', 'buy', false]);
  assert.deepEqual(events, []);
});

test('contracts become base units: linear by contract value, inverse by contract value and price, options by multiplier', () => {
  const { frame, of } = harness(okxDerivatives);
  frame(trades('trades-all', TRADE));
  frame(trades('trades', { ...TRADE, count: '59', instId: 'BTC-USD-SWAP', sz: '3', px: '30000' }));
  frame(trades('trades-all', { ...TRADE, instId: 'BTC-USDT-261225', sz: '5' }));
  frame(trades('trades-all', { ...TRADE, instId: 'BTC-USD-261225-100000-C', sz: '85', px: '0.001' }));
  assert.deepEqual(
    of('trade').map((row) => [row.market_type, row.symbol, row.instrument, row.quantity]),
    [
      ['perpetual', 'BTC-USDT', 'BTC-USDT-SWAP', '0.2431'],
      ['perpetual', 'BTC-USD', 'BTC-USD-SWAP', '0.01'],
      ['futures', 'BTC-USDT-261225', 'BTC-USDT-261225', '0.05'],
      ['options', 'BTC-USD-261225-100000-C', 'BTC-USD-261225-100000-C', '0.85'],
    ],
  );
});

test('a contract whose worth is not known gives no row, and its list is asked for until it is', () => {
  const { frame, rest, rows, events, feed } = harness(okxDerivatives, { list: null });
  frame(trades('trades-all', TRADE));
  frame(snapshot('BTC-USD-261225-100000-C'));
  assert.deepEqual(rows, []);
  assert.deepEqual(events, [
    { kind: 'rejected', reason: 'BTC-USDT-SWAP: no instrument list has told what a contract is worth' },
    { kind: 'rejected', reason: 'BTC-USD-261225-100000-C: no instrument list has told what a contract is worth' },
  ]);
  assert.deepEqual(
    feed.requests().map((request) => request.path),
    [
      '/api/v5/public/instruments?instType=SWAP&instId=BTC-USDT-SWAP',
      '/api/v5/public/instruments?instType=OPTION&instFamily=BTC-USD&instId=BTC-USD-261225-100000-C',
    ],
  );
  rest(SWAP_LIST, LIST.data);
  assert.deepEqual(feed.requests(), []);
  frame(trades('trades-all', TRADE));
  assert.equal(rows.length, 1);
});

test('an unsound line of an instrument list leaves the others; one that contradicts itself tells nothing', () => {
  const { frame, rest, rows, events, kinds } = harness(okxDerivatives, { list: null });
  rest(SWAP_LIST, [
    { ...listed('BTC-USDT-SWAP', '', 'BTC', 'linear') },
    { ...listed('BTC-USD-SWAP', '100', 'USD', 'linear') },
    { ...listed('BTC-USDC-SWAP', '0.01', 'ETH', '') },
    { ...listed('SOL-USDT-SWAP', '1', 'SOL', 'linear'), ctMult: '' },
    { instType: 'SPOT', instId: 'BTC-USDT', ctVal: '' },
    null,
    listed('ETH-USDT-SWAP', '0.1', 'ETH', 'linear'),
  ]);
  assert.deepEqual(kinds(), ['ignored', 'rejected', 'rejected', 'rejected', 'rejected']);
  for (const id of ['BTC-USDT-SWAP', 'BTC-USD-SWAP', 'BTC-USDC-SWAP', 'SOL-USDT-SWAP', 'ETH-USDT-SWAP']) {
    frame(trades('trades-all', { ...TRADE, instId: id }));
  }
  assert.equal(rows.length, 1);
  assert.equal(rows[0]!.row.instrument, 'ETH-USDT-SWAP');
  assert.equal(events.length, 9);
});

test('a snapshot and an update are rows in base units, and the book stands at each of them', () => {
  const { frame, of, events } = harness(okxDerivatives);
  frame(snapshot('BTC-USDT-SWAP'));
  frame(update('BTC-USDT-SWAP', 100, 105, { asks: [level('101', '0')], bids: [level('98', '1'), level('100', '5')] }));
  const [base, changed] = of('orderbook_update');
  assert.deepEqual(base, {
    exchange: 'okx_derivatives',
    market_type: 'perpetual',
    symbol: 'BTC-USDT',
    instrument: 'BTC-USDT-SWAP',
    timestamp: 1790439595400,
    received_at: NOW,
    data_source: 'live',
    first_update_id: null,
    last_update_id: 100,
    prev_update_id: null,
    is_snapshot: true,
    bids: [
      ['100', '0.07'],
      ['99', '0.06'],
    ],
    asks: [
      ['101', '0.09'],
      ['102', '0.08'],
    ],
  } satisfies OrderbookUpdateRow);
  assert.deepEqual(
    [changed!.last_update_id, changed!.prev_update_id, changed!.is_snapshot, changed!.bids, changed!.asks],
    [
      105,
      100,
      false,
      [
        ['100', '0.05'],
        ['98', '0.01'],
      ],
      [['101', '0']],
    ],
  );
  const books = of('orderbook');
  assert.deepEqual(
    books.map((row) => row.last_update_id),
    [100, 105],
  );
  assert.deepEqual({ ...books[1]!, received_at: 0 }, {
    exchange: 'okx_derivatives',
    market_type: 'perpetual',
    symbol: 'BTC-USDT',
    instrument: 'BTC-USDT-SWAP',
    timestamp: 1790439595500,
    received_at: 0,
    data_source: 'live',
    last_update_id: 105,
    best_bid_price: '100',
    best_bid_quantity: '0.05',
    best_ask_price: '102',
    best_ask_quantity: '0.08',
    bids: [
      ['100', '0.05'],
      ['99', '0.06'],
      ['98', '0.01'],
    ],
    asks: [['102', '0.08']],
    verified: 'unverifiable',
  } satisfies OrderbookRow);
  assert.deepEqual(events, []);
});

test('levels of an inverse contract are converted each with its own price', () => {
  const { frame, of } = harness(okxDerivatives);
  frame(snapshot('BTC-USD-SWAP', { bids: [level('100', '7'), level('80', '6')], asks: [level('300', '1')] }));
  const [row] = of('orderbook');
  assert.deepEqual(row!.bids, [
    ['100', '7'],
    ['80', '7.5'],
  ]);
  assert.deepEqual(row!.asks, [['300', '0.333333333333333333']]);
  assert.deepEqual(of('orderbook_update')[0]!.bids, row!.bids);
});

/** Checksums of the venue's rule, worked out by another program over the text that the comments show. */
const CHECKSUMS = { both: -1_881_014_294, oneSided: 831_078_360, changed: 1_457_140_709 };
const CHECKED = {
  // 3366.1:7:3366.8:9:3366:6:3368:8
  both: {
    bids: [level('3366.1', '7'), level('3366', '6')],
    asks: [level('3366.8', '9'), level('3368', '8')],
    checksum: CHECKSUMS.both,
  },
  // 3366.1:7:3366.8:9:3368:8:3372:8
  oneSided: {
    bids: [level('3366.1', '7')],
    asks: [level('3366.8', '9'), level('3368', '8'), level('3372', '8')],
    checksum: CHECKSUMS.oneSided,
  },
};

test('a checksum is taken over the venue’s own text, both sides in turn; a book with one is verified', () => {
  for (const change of [CHECKED.both, CHECKED.oneSided]) {
    const { frame, of, events } = harness(okxDerivatives);
    frame(snapshot('BTC-USDT-SWAP', change));
    assert.deepEqual(
      of('orderbook').map((row) => row.verified),
      ['verified'],
    );
    assert.deepEqual(events, []);
  }
  const { frame, of, events } = harness(okxDerivatives);
  frame(snapshot('BTC-USDT-SWAP', CHECKED.both));
  // 3366.1:5:3366.8:9:3366:6:3368:8
  frame(update('BTC-USDT-SWAP', 100, 101, { bids: [level('3366.1', '5')], checksum: CHECKSUMS.changed }));
  assert.equal(of('orderbook').length, 2);
  assert.deepEqual(events, []);
});

test('a checksum covers the first 25 levels a side and no further one', () => {
  const levels = (from: number, step: number) =>
    Array.from({ length: 26 }, (_, i) => level(String(from + i * step), String(i + 1)));
  const { frame, of, events } = harness(okxSpot);
  // 100:1:101:1:99:2:102:2: … :76:25:125:25
  frame(snapshot('BTC-USDT', { bids: levels(100, -1), asks: levels(101, 1), checksum: -1_365_340_117 }));
  assert.deepEqual(events, []);
  assert.equal(of('orderbook')[0]!.bids.length, 26);
});

test('a wrong checksum drops the book, and only a new snapshot brings it back', () => {
  const { frame, of, events, take } = harness(okxDerivatives);
  frame(snapshot('BTC-USDT-SWAP', CHECKED.both));
  frame(update('BTC-USDT-SWAP', 100, 101, { bids: [level('3366.1', '4')], checksum: CHECKSUMS.changed }));
  assert.deepEqual(
    events.map((event) => (event.kind === 'resync' ? [event.cause, event.last, event.next] : event)),
    [['checksum', 100, 101], { kind: 'resubscribe', channels: ['books:BTC-USDT-SWAP'] }],
  );
  assert.equal(of('orderbook').length, 1);
  take();
  frame(update('BTC-USDT-SWAP', 101, 102, { bids: [level('3366.1', '5')], checksum: CHECKSUMS.changed }));
  assert.equal(of('orderbook').length, 0);
  frame(snapshot('BTC-USDT-SWAP', { ...CHECKED.both, seqId: 103 }));
  frame(update('BTC-USDT-SWAP', 103, 104, { bids: [level('3366.1', '5')], checksum: CHECKSUMS.changed }));
  assert.deepEqual(
    of('orderbook').map((row) => row.last_update_id),
    [103, 104],
  );
});

test('a gap drops that book alone, asks once for that channel alone, and keeps every update as a row', () => {
  const { frame, of, events } = harness(okxDerivatives);
  for (const id of ['BTC-USDT-SWAP', 'ETH-USDT-SWAP']) {
    frame(snapshot(id));
    frame(update(id, 100, 105));
  }
  frame(update('BTC-USDT-SWAP', 107, 109));
  frame(update('BTC-USDT-SWAP', 109, 111));
  frame(update('ETH-USDT-SWAP', 105, 107));
  assert.deepEqual(
    events.map((event) =>
      event.kind === 'resync' ? [event.instrument.symbol, event.cause, event.last, event.next] : event,
    ),
    [['BTC-USDT', 'gap', 105, 109], { kind: 'resubscribe', channels: ['books:BTC-USDT-SWAP'] }],
  );
  assert.deepEqual(
    of('orderbook').map((row) => `${row.symbol} ${row.last_update_id}`),
    ['BTC-USDT 100', 'BTC-USDT 105', 'ETH-USDT 100', 'ETH-USDT 105', 'ETH-USDT 107'],
  );
  assert.deepEqual(
    of('orderbook_update')
      .filter((row) => row.symbol === 'BTC-USDT')
      .map((row) => [row.prev_update_id, row.last_update_id]),
    [
      [null, 100],
      [100, 105],
      [107, 109],
      [109, 111],
    ],
  );
});

test('a snapshot that does not come is asked for again, with pauses that double', () => {
  const { frame, events, kinds, take } = harness(okxSpot);
  const at = (second: number) => frame(update('BTC-USDT', 100 + second, 101 + second), NOW + second * 1_000_000);
  const asked: number[] = [];
  for (let second = 0; second < 100; second++) {
    at(second);
    if (kinds().includes('resubscribe')) asked.push(second);
    assert.ok(events.every((event) => event.kind === 'resubscribe'));
    take();
  }
  assert.deepEqual(asked, [0, 10, 30, 70]);
});

test('maintenance that lets seqId fall goes on with the chain', () => {
  const { frame, of, events } = harness(okxSpot);
  frame(snapshot('BTC-USDT', { seqId: 10 }));
  for (const [prev, id] of [
    [10, 15],
    [15, 3],
    [3, 5],
  ] as const)
    frame(update('BTC-USDT', prev, id));
  assert.deepEqual(
    of('orderbook').map((row) => row.last_update_id),
    [10, 15, 3, 5],
  );
  assert.deepEqual(events, []);
});

test('a fall of seqId that was not seen is no late copy for ever', () => {
  const { frame, events } = harness(okxSpot);
  frame(snapshot('BTC-USDT', { seqId: 100 }));
  frame(update('BTC-USDT', 3, 5, { ts: '1790439600401' }));
  assert.deepEqual(
    events.map((event) => (event.kind === 'resync' ? event.cause : event.kind)),
    ['ids_restarted', 'resubscribe'],
  );
});

test('a keep-alive is no row and no gap; one that tells of a missed update is a gap', () => {
  const { frame, of, events, kinds } = harness(okxSpot);
  frame(snapshot('BTC-USDT'));
  frame(update('BTC-USDT', 100, 100, { bids: [] }));
  frame(update('BTC-USDT', 100, 101));
  assert.deepEqual(events, [{ kind: 'ignored', reason: 'unchanged book' }]);
  assert.equal(of('orderbook_update').length, 2);
  assert.equal(of('orderbook').length, 2);
  frame(update('BTC-USDT', 103, 103, { bids: [] }));
  assert.deepEqual(kinds(), ['ignored', 'ignored', 'resync', 'resubscribe']);
});

test('levels in a keep-alive, which would have no id of their own, are a gap; so is an update that follows nothing', () => {
  for (const change of [
    { prevSeqId: 100, seqId: 100 },
    { prevSeqId: -1, seqId: 101 },
  ]) {
    const { frame, of, kinds } = harness(okxSpot);
    frame(snapshot('BTC-USDT'));
    frame(update('BTC-USDT', 0, 0, change));
    assert.deepEqual(kinds(), ['resync', 'resubscribe']);
    assert.equal(of('orderbook').length, 1);
    assert.equal(of('orderbook_update')[1]!.prev_update_id, change.prevSeqId === -1 ? null : 100);
  }
});

test('frames of years without seqId are chained by their checksum alone, under their time; they break no chain of ids', () => {
  const { frame, of, events, take } = harness(okxSpot);
  const without = { seqId: undefined, prevSeqId: undefined };
  frame(snapshot('BTC-USDT', { ...CHECKED.both, ...without }));
  frame(update('BTC-USDT', 0, 0, { ...without, bids: [level('3366.1', '5')], checksum: CHECKSUMS.changed }));
  assert.deepEqual(
    of('orderbook').map((row) => [row.last_update_id, row.verified]),
    [
      [1790439595400, 'verified'],
      [1790439595500, 'verified'],
    ],
  );
  assert.deepEqual(
    of('orderbook_update').map((row) => row.prev_update_id),
    [null, null],
  );
  assert.deepEqual(events, []);
  frame(snapshot('BTC-USDT', { ...CHECKED.both, ts: '1790439595600', seqId: 1790439595600 }));
  take();
  frame(update('BTC-USDT', 0, 0, { ...without, bids: [level('3366.1', '5')], checksum: CHECKSUMS.changed }));
  assert.deepEqual(events, [{ kind: 'rejected', reason: 'books: seqId is undefined' }]);
  assert.equal(of('orderbook_update').length, 0);
});

test('an instrument of the other market gives no row', () => {
  for (const [module, id] of [
    [okxSpot, 'BTC-USDT-SWAP'],
    [okxDerivatives, 'BTC-USDT'],
  ] as const) {
    const { frame, rows, events } = harness(module);
    frame(trades('trades-all', { ...TRADE, instId: id }));
    frame(snapshot(id));
    assert.equal(rows.length, 0);
    const reason = `${id} is not of ${module.exchange}`;
    assert.deepEqual(events, [
      { kind: 'rejected', reason },
      { kind: 'rejected', reason },
    ]);
  }
});

test('copies from a socket that overlaps with a new one change nothing', () => {
  const { frame, of, events } = harness(okxSpot);
  frame(snapshot('BTC-USDT'));
  frame(update('BTC-USDT', 100, 102));
  frame(update('BTC-USDT', 102, 104));
  // The new socket begins behind the old one.
  frame(snapshot('BTC-USDT', { seqId: 102 }));
  frame(update('BTC-USDT', 102, 104));
  frame(update('BTC-USDT', 104, 106));
  assert.deepEqual(
    of('orderbook').map((row) => row.last_update_id),
    [100, 102, 104, 106],
  );
  assert.deepEqual(events, []);
});

test('a crossed book is dropped, and a lost socket drops the books of its channels', () => {
  const { feed, out, frame, of, events, take } = harness(okxSpot);
  frame(snapshot('BTC-USDT'));
  frame(update('BTC-USDT', 100, 101, { bids: [level('101', '1')] }));
  assert.equal(events[0]?.kind === 'resync' && events[0].cause, 'crossed');
  assert.equal(of('orderbook').length, 1);
  take();
  frame(snapshot('BTC-USDT', { seqId: 200 }));
  const [connection] = okxSpot.connections([okxSpot.instrument('BTC-USDT', 'spot')]).slice(-1);
  feed.disconnected(connection!.channels, out);
  frame(update('BTC-USDT', 200, 201));
  assert.deepEqual(
    events.map((event) => (event.kind === 'resync' ? event.cause : event.kind)),
    ['disconnect', 'resubscribe'],
  );
  assert.equal(of('orderbook').length, 1);
});

test('orderbook rows are the first applied update of each interval of venue time', () => {
  const { frame, of } = harness(okxSpot, { orderbookIntervalMs: 10_000 });
  frame(snapshot('BTC-USDT', { ts: '1790439595400' }));
  for (const [id, ts] of [
    [101, '1790439599999'],
    [102, '1790439600000'],
    [103, '1790439609999'],
    [104, '1790439625000'],
  ] as const)
    frame(update('BTC-USDT', id - 1, id, { ts }));
  assert.deepEqual(
    of('orderbook').map((row) => row.last_update_id),
    [100, 102, 104],
  );
});

const FUNDING = {
  fundingRate: '0.0000252378080097',
  fundingTime: '1790784000000',
  instId: 'BTC-USDT-SWAP',
  instType: 'SWAP',
  nextFundingRate: '',
  nextFundingTime: '1790812800000',
  ts: '1790757122992',
};
const reading = (channel: string, data: { instId: string; [member: string]: unknown }) => ({
  arg: { channel, instId: data.instId },
  data: [data],
});

test('funding is sampled by the minute of venue time, with its interval; what is empty is absent', () => {
  const { frame, rest, of, events } = harness(okxDerivatives);
  frame(reading('funding-rate', FUNDING));
  assert.deepEqual(of('funding_rate'), [
    {
      exchange: 'okx_derivatives',
      market_type: 'perpetual',
      symbol: 'BTC-USDT',
      instrument: 'BTC-USDT-SWAP',
      timestamp: 1790757122992,
      received_at: NOW,
      data_source: 'live',
      funding_rate: '0.0000252378080097',
      funding_time: 1790784000000,
      next_funding_time: 1790812800000,
      funding_interval_hours: '8',
      mark_price: null,
      index_price: null,
    } satisfies FundingRateRow,
  ]);
  frame(reading('funding-rate', { ...FUNDING, ts: '1790757179999' }));
  rest('/api/v5/public/funding-rate?instId=BTC-USDT-SWAP', [{ ...FUNDING, ts: '1790757122992' }]);
  assert.deepEqual(
    events.map((event) => event.kind),
    ['ignored', 'ignored'],
  );
  frame(reading('funding-rate', { ...FUNDING, ts: '1790757180000', nextFundingTime: '' }));
  rest('/api/v5/public/funding-rate?instId=BTC-USDT-SWAP', [{ ...FUNDING, ts: '1790757240000', fundingRate: '0' }]);
  assert.deepEqual(
    of('funding_rate').map((row) => [row.next_funding_time, row.funding_interval_hours, row.funding_rate]),
    [
      [1790812800000, '8', '0.0000252378080097'],
      [null, null, '0.0000252378080097'],
      [1790812800000, '8', '0'],
    ],
  );
  frame(reading('funding-rate', { ...FUNDING, ts: '1790757300000', fundingRate: '' }));
  assert.equal(of('funding_rate').length, 3);
  assert.equal(events.at(-1)!.kind, 'rejected');
});

test('open interest has base units, value and contracts, to digits that no double holds', () => {
  const OI = {
    instId: 'BTC-USDT-SWAP',
    instType: 'SWAP',
    oi: '2874486.99000000925',
    oiCcy: '28744.8699000000925',
    oiUsd: '2385812703.752047677463',
    ts: '1790757195759',
  };
  const { frame, rest, of } = harness(okxDerivatives);
  frame(reading('open-interest', OI));
  assert.deepEqual(of('open_interest'), [
    {
      exchange: 'okx_derivatives',
      market_type: 'perpetual',
      symbol: 'BTC-USDT',
      instrument: 'BTC-USDT-SWAP',
      timestamp: 1790757195759,
      received_at: NOW,
      data_source: 'live',
      open_interest: '28744.8699000000925',
      open_interest_value: '2385812703.752047677463',
      contracts: '2874486.99000000925',
    } satisfies OpenInterestRow,
  ]);
  rest('/api/v5/public/open-interest?instType=SWAP', [
    { ...OI, ts: '1790757199999' },
    { ...OI, ts: '1790757240000', oi: '', oiUsd: '', oiCcy: '0' },
    { ...OI, ts: '1790757300000', oiCcy: '' },
    { ...OI, ts: '1790757300000', oi: '-1' },
  ]);
  assert.deepEqual(
    of('open_interest').map((row) => [row.open_interest, row.open_interest_value, row.contracts]),
    [
      ['28744.8699000000925', '2385812703.752047677463', '2874486.99000000925'],
      ['0', null, null],
    ],
  );
});

const LIQUIDATION = {
  arg: { channel: 'liquidation-orders', instType: 'SWAP' },
  data: [
    {
      details: [
        { bkLoss: '0', bkPx: '0.007831', ccy: '', posSide: 'short', side: 'buy', sz: '13', ts: '1692266434010' },
        { bkLoss: '0', bkPx: '0.0079', ccy: '', posSide: 'long', side: 'sell', sz: '1', ts: '1692266434000' },
      ],
      instFamily: 'IOST-USDT',
      instId: 'IOST-USDT-SWAP',
      instType: 'SWAP',
      uly: 'IOST-USDT',
    },
  ],
};

test('a liquidation message is one row per detail, in base units, each with an id that is the same wherever it is seen', () => {
  const { frame, of } = harness(okxDerivatives);
  frame(LIQUIDATION);
  frame(LIQUIDATION);
  const [first, second, again] = of('liquidation');
  assert.deepEqual({ ...first!, liquidation_id: '' }, {
    exchange: 'okx_derivatives',
    market_type: 'perpetual',
    symbol: 'IOST-USDT',
    instrument: 'IOST-USDT-SWAP',
    timestamp: 1692266434010,
    received_at: NOW,
    data_source: 'live',
    liquidation_id: '',
    side: 'buy',
    price: '0.007831',
    quantity: '13000',
  } satisfies LiquidationRow);
  assert.deepEqual([second!.side, second!.quantity, second!.timestamp], ['sell', '1000', 1692266434000]);
  assert.equal(first!.liquidation_id, again!.liquidation_id);
  assert.notEqual(first!.liquidation_id, second!.liquidation_id);
});

test('a feed for given instruments passes over liquidations and open interest of others, and counts them', () => {
  const { frame, rest, rows, events } = harness(okxDerivatives, {
    instruments: [okxDerivatives.instrument('BTC-USDT', 'perpetual')],
  });
  frame(LIQUIDATION);
  rest('/api/v5/public/open-interest?instType=SWAP', [
    { instId: 'ETH-USDT-SWAP', oi: '1', oiCcy: '1', oiUsd: '1', ts: '1790757195759' },
    { instId: 'BTC-USDT-SWAP', oi: '1', oiCcy: '1', oiUsd: '1', ts: '1790757195759' },
  ]);
  assert.deepEqual(
    events.map((event) => event.kind),
    ['ignored', 'ignored'],
  );
  assert.deepEqual(
    rows.map((each) => each.row.instrument),
    ['BTC-USDT-SWAP'],
  );
});

test('a ratio becomes shares that add to 1; every row of an answer is kept, with the period of its request', () => {
  const { rest, of } = harness(okxDerivatives);
  const base = '/api/v5/rubik/stat/contracts';
  const answer = [
    ['1701417900000', '3'],
    ['1701417600000', '1.1739'],
  ];
  rest(`${base}/long-short-position-ratio-contract-top-trader?instId=BTC-USDT-SWAP&period=5m`, answer);
  rest(`${base}/long-short-account-ratio-contract?instId=BTC-USD-SWAP&period=1H`, answer);
  rest(`${base}/long-short-account-ratio?ccy=BTC`, answer);
  const [top, earlier] = of('lsr_top_position');
  assert.deepEqual(top, {
    exchange: 'okx_derivatives',
    market_type: 'perpetual',
    symbol: 'BTC-USDT',
    instrument: 'BTC-USDT-SWAP',
    timestamp: 1701417900000,
    received_at: NOW,
    data_source: 'live',
    period: '5m',
    long_position_ratio: '0.75',
    short_position_ratio: '0.25',
    long_short_ratio: '3',
  });
  assert.deepEqual(
    [earlier!.timestamp, earlier!.long_short_ratio, earlier!.long_position_ratio, earlier!.short_position_ratio],
    [1701417600000, '1.1739', '0.539997239983439901', '0.460002760016560099'],
  );
  assert.deepEqual(
    of('lsr_all_account').map((row) => [row.symbol, row.period, row.timestamp, row.long_account_ratio]),
    [
      ['BTC-USD', '1H', 1701417900000, '0.75'],
      ['BTC-USD', '1H', 1701417600000, '0.539997239983439901'],
      ['BTC', '5m', 1701417900000, '0.75'],
      ['BTC', '5m', 1701417600000, '0.539997239983439901'],
    ],
  );
});

test('trades over REST are the rows that the stream gives', () => {
  const { frame, rest, of } = harness(okxDerivatives);
  frame(trades('trades-all', TRADE));
  const { seqId: _, ...row } = TRADE;
  rest('/api/v5/market/history-trades?instId=BTC-USDT-SWAP&type=1&after=2953620281&limit=100', [row]);
  rest('/api/v5/market/trades?instId=BTC-USDT-SWAP', [row]);
  const [live, history, recent] = of('trade');
  assert.deepEqual(history, live);
  assert.deepEqual(recent, live);
});

test('control frames are answers, heartbeats or notices; unknown ones are rejected; none throws', () => {
  const { feed, frame, out, take } = harness(okxSpot);
  const arg = { channel: 'books', instId: 'BTC-USDT' };
  const refusal = "Subscribe failed, wrong URL or channel:trades,instId:NOPE doesn't exist.";
  const cases: [unknown, FeedEvent | FeedEvent['kind']][] = [
    [
      { id: '1512', event: 'subscribe', arg, connId: 'a4d3ae55' },
      { kind: 'ack', id: 1512, error: null, granted: ['books:BTC-USDT'] },
    ],
    [
      { event: 'subscribe', arg: { channel: 'liquidation-orders', instType: 'SWAP' } },
      { kind: 'ack', id: null, error: null, granted: ['liquidation-orders:SWAP'] },
    ],
    [
      { id: '3', event: 'unsubscribe', arg },
      { kind: 'ack', id: 3, error: null, granted: null },
    ],
    [
      { event: 'error', msg: refusal, code: '60018', connId: 'b2b0944b' },
      { kind: 'ack', id: null, error: `60018 ${refusal}`, granted: null },
    ],
    [
      { event: 'notice', code: '64008', msg: 'The connection will soon be closed' },
      { kind: 'closing', reason: 'notice 64008' },
    ],
    [{ event: 'notice', code: '1' }, 'ignored'],
    [{ event: 'channel-conn-count', channel: 'orders', connCount: '2' }, 'ignored'],
    ['pong', 'ignored'],
    [{ arg: { channel: 'tickers', instId: 'BTC-USDT' }, data: [{}] }, 'ignored'],
    [{ arg: { channel: 'candle5m', instId: 'BTC-USDT' }, data: [[]] }, 'ignored'],
    [{ arg: { channel: 'bbo-tbt', instId: 'BTC-USDT' }, data: [] }, 'ignored'],
    [{ arg: { channel: 'something-new', instId: 'BTC-USDT' }, data: [] }, 'rejected'],
    [{ arg: { channel: 'trades' } }, 'rejected'],
    [{ arg: { channel: 'trades' }, data: [null] }, 'rejected'],
    [{ event: 'something-new' }, 'rejected'],
    [{ event: 'subscribe' }, 'rejected'],
    [{ event: { a: 1 } }, 'rejected'],
    [{ hello: 1 }, 'rejected'],
    ['', 'rejected'],
    ['ping', 'rejected'],
    ['[]', 'rejected'],
    ['null', 'rejected'],
  ];
  for (const [input, expected] of cases) {
    frame(input);
    const { rows, events } = take();
    assert.equal(rows.length, 0, JSON.stringify(input));
    assert.deepEqual(
      typeof expected === 'string' ? events.map((event) => event.kind) : events,
      [expected],
      JSON.stringify(input),
    );
  }
  const answers: [string, unknown][] = [
    ['/api/v5/market/trades', { code: '50011', msg: 'Too Many Requests', data: [] }],
    ['/api/v5/market/trades', { code: '0', msg: '' }],
    ['/api/v5/market/trades', null],
    ['/api/v5/other', { code: '0', data: [] }],
    ['//', { code: '0', data: [] }],
    ['/api/v5/rubik/stat/contracts/long-short-account-ratio-contract', { code: '0', data: [['1701417900000', '3']] }],
    ['/api/v5/rubik/stat/contracts/long-short-account-ratio', { code: '0', data: [['1701417900000', '3']] }],
  ];
  for (const [path, body] of answers) {
    feed.rest(path, body, NOW, out);
    const { rows, events } = take();
    assert.deepEqual(rows, []);
    assert.deepEqual(
      events.map((event) => event.kind),
      ['rejected'],
      path,
    );
  }
});

test('an unsound value rejects its item: no row, and the items beside it stand', () => {
  const { frame, take } = harness(okxDerivatives);
  for (const change of [
    { px: '' },
    { px: '0' },
    { px: '-1' },
    { sz: null },
    { sz: 'NaN' },
    { sz: '0' },
    { tradeId: '' },
    { tradeId: 12.5 },
    { side: 'BUY' },
    { ts: '' },
    { ts: '1790439596' },
    { ts: '1790439596521000' },
    { instId: 'BTC-USDT' },
    { instId: '../x' },
    { instId: 5 },
    { instId: 'ETH-USDT-SWAP' },
  ]) {
    frame({ arg: { channel: 'trades-all', instId: 'BTC-USDT-SWAP' }, data: [{ ...TRADE, ...change }, TRADE] });
    const { rows, events } = take();
    assert.equal(rows.length, 1, JSON.stringify(change));
    assert.deepEqual(
      events.map((event) => event.kind),
      ['rejected'],
      JSON.stringify(change),
    );
  }
  for (const change of [
    { seqId: 'x' },
    { seqId: 1.5 },
    { seqId: undefined },
    { seqId: 2 ** 60 },
    { prevSeqId: null },
    { prevSeqId: undefined },
    { bids: null },
    { bids: [['1']] },
    { bids: [level('x', '1')] },
    { asks: [level('1', '-1')] },
    { ts: null },
    { checksum: '5' },
  ]) {
    frame(update('BTC-USDT-SWAP', 1, 2, change));
    const { rows, events } = take();
    assert.deepEqual(rows, [], JSON.stringify(change));
    assert.deepEqual(
      events.map((event) => event.kind),
      ['rejected'],
      JSON.stringify(change),
    );
  }
});

test('mutated and truncated frames never throw, and no row comes out of a truncated one', () => {
  const frames = [
    trades('trades-all', TRADE),
    snapshot('BTC-USD-SWAP', CHECKED.both),
    update('BTC-USDT-SWAP', 100, 101),
    reading('funding-rate', FUNDING),
    LIQUIDATION,
  ].map((frame) => JSON.stringify(frame));
  for (const text of frames) {
    const { feed, out, rows } = harness(okxDerivatives);
    for (let length = 0; length < text.length; length++) feed.frame(text.slice(0, length), NOW, out);
    assert.equal(rows.length, 0);
    let seed = 11;
    const random = (n: number) => (seed = (seed * 48271) % 2147483647) % n;
    for (let i = 0; i < 10_000; i++) {
      const at = random(text.length);
      feed.frame(text.slice(0, at) + String.fromCharCode(32 + random(95)) + text.slice(at + 1 + random(3)), NOW, out);
    }
  }
});

test('single fills come over the business socket, the rest over the public one; messages are the venue’s', () => {
  const swaps = ['BTC-USDT', 'ETH-USDT'].map((pair) => okxDerivatives.instrument(pair, 'perpetual'));
  const dated = okxDerivatives.instrument('BTC-USD-261225', 'futures');
  assert.deepEqual(swaps[0], {
    exchange: 'okx_derivatives',
    market_type: 'perpetual',
    symbol: 'BTC-USDT',
    instrument: 'BTC-USDT-SWAP',
  });
  const sockets = okxDerivatives.connections([...swaps, dated]);
  assert.deepEqual(
    sockets.map((each) => [each.path, each.channels.map((channel) => channel.name)]),
    [
      ['/ws/v5/business', ['trades-all:BTC-USDT-SWAP', 'trades-all:ETH-USDT-SWAP', 'trades-all:BTC-USD-261225']],
      [
        '/ws/v5/public',
        [
          ...['books:BTC-USDT-SWAP', 'funding-rate:BTC-USDT-SWAP', 'open-interest:BTC-USDT-SWAP'],
          ...['books:ETH-USDT-SWAP', 'funding-rate:ETH-USDT-SWAP', 'open-interest:ETH-USDT-SWAP'],
          ...['books:BTC-USD-261225', 'open-interest:BTC-USD-261225'],
          ...['liquidation-orders:SWAP', 'liquidation-orders:SWAP', 'liquidation-orders:FUTURES'],
        ],
      ],
    ],
  );
  assert.deepEqual(okxDerivatives.subscribe(sockets[1]!.channels.slice(-3), 7), [
    {
      id: 7,
      text:
        '{"id":"7","op":"subscribe","args":[{"channel":"liquidation-orders","instType":"SWAP"},' +
        '{"channel":"liquidation-orders","instType":"FUTURES"}]}',
    },
  ]);
  const books = sockets[1]!.channels.filter((channel) => channel.name === 'books:BTC-USDT-SWAP');
  assert.deepEqual(okxDerivatives.unsubscribe!(books, 8), [
    { id: 8, text: '{"id":"8","op":"unsubscribe","args":[{"channel":"books","instId":"BTC-USDT-SWAP"}]}' },
  ]);
  assert.deepEqual(
    okxSpot.connections([okxSpot.instrument('BTC-USDT', 'spot')]).flatMap((each) => each.channels.map((c) => c.name)),
    ['trades-all:BTC-USDT', 'books:BTC-USDT'],
  );
  const many = Array.from({ length: 500 }, (_, i) => okxDerivatives.instrument(`C${i}-USDT`, 'perpetual'));
  for (const { channels } of okxDerivatives.connections(many)) {
    assert.ok(channels.filter((channel) => channel.name.startsWith('books:')).length < 30);
    assert.ok(okxDerivatives.subscribe(channels, 1).every(({ text }) => text.length < 65_536));
  }
  assert.deepEqual(
    // 12:03: the period from 11:55 is over, the one from 12:00 is not.
    okxDerivatives.polls!([swaps[0]!, dated]).map(({ type, path }) => [
      type,
      typeof path === 'string' ? path : path(Date.UTC(2026, 10, 23, 12, 3)),
    ]),
    [
      [
        'lsr_top_position',
        '/api/v5/rubik/stat/contracts/long-short-position-ratio-contract-top-trader?instId=BTC-USDT-SWAP&period=5m&end=1795434900001',
      ],
      [
        'lsr_all_account',
        '/api/v5/rubik/stat/contracts/long-short-account-ratio-contract?instId=BTC-USDT-SWAP&period=5m&end=1795434900001',
      ],
    ],
  );
});
