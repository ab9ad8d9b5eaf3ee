import assert from 'node:assert/strict';
import { test } from 'node:test';
import { deribitDerivatives } from '../scripts/exchanges/deribit.ts';
import type { FeedEvent } from '../scripts/lib/exchange.ts';
import { quoteLongNumbers } from '../scripts/lib/json_numbers.ts';
import { encodeRow, type OrderbookUpdateRow, type TradeRow } from '../scripts/lib/rows.ts';
import { harness, NOW } from './deribit_frames.ts';

const TIME = 1786563104514;

function subscription(channel: string, data: unknown) {
  return { jsonrpc: '2.0', method: 'subscription', params: { channel, data } };
}

const TRADE = {
  timestamp: TIME,
  price: 63344.5,
  direction: 'buy',
  index_price: 63325.19,
  trade_id: '440192723',
  instrument_name: 'BTC-PERPETUAL',
  trade_seq: 296152987,
  amount: 20,
  mark_price: 63341.87,
  tick_direction: 1,
  contracts: 2,
};
const trades = (...list: object[]) => subscription('trades.X.100ms', list);

const LIST = {
  jsonrpc: '2.0',
  result: [
    {
      instrument_name: 'BTC-PERPETUAL',
      kind: 'future',
      instrument_type: 'reversed',
      settlement_period: 'perpetual',
      base_currency: 'BTC',
      quote_currency: 'USD',
      counter_currency: 'USD',
      settlement_currency: 'BTC',
      contract_size: 10,
    },
    {
      instrument_name: 'SOL_USDC-PERPETUAL',
      kind: 'future',
      instrument_type: 'linear',
      settlement_period: 'perpetual',
      base_currency: 'SOL',
      quote_currency: 'USDC',
      counter_currency: 'USDC',
      settlement_currency: 'USDC',
      contract_size: 0.1,
    },
    {
      instrument_name: 'BTC-27DEC26-100000-C',
      kind: 'option',
      instrument_type: 'reversed',
      settlement_period: 'month',
      base_currency: 'BTC',
      quote_currency: 'BTC',
      counter_currency: 'USD',
      settlement_currency: 'BTC',
      contract_size: 1,
    },
  ],
};

test('an inverse trade becomes a row in base units, with the taker’s side and the venue’s sequence', () => {
  const { frame, of } = harness();
  frame(trades(TRADE, { ...TRADE, trade_id: 'ETH-123', direction: 'sell' }));
  const [bought, sold] = of('trade');
  assert.deepEqual(bought, {
    exchange: 'deribit_derivatives',
    market_type: 'perpetual',
    symbol: 'BTC-USD',
    instrument: 'BTC-PERPETUAL',
    timestamp: TIME,
    received_at: NOW,
    data_source: 'live',
    trade_id: '440192723',
    sequence: 296152987,
    price: '63344.5',
    // 20 USD ÷ 63344.5
    quantity: '0.000315733804829149',
    side: 'buy',
    is_maker: false,
  } satisfies TradeRow);
  assert.deepEqual([sold!.trade_id, sold!.side, sold!.is_maker], ['ETH-123', 'sell', true]);
});

test('amounts are told from USD to base units by the name alone, and the list says the same', () => {
  const cases: [name: string, marketType: string, symbol: string, quantity: string][] = [
    ['BTC-PERPETUAL', 'perpetual', 'BTC-USD', '4'],
    ['ETH-PERPETUAL', 'perpetual', 'ETH-USD', '4'],
    ['SOL_USDC-PERPETUAL', 'perpetual', 'SOL-USDC', '20'],
    ['BTC_USDC-PERPETUAL', 'perpetual', 'BTC-USDC', '20'],
    ['BTC-27DEC26', 'futures', 'BTC-27DEC26', '4'],
    ['BTC-6AUG27', 'futures', 'BTC-6AUG27', '4'],
    ['BTC_USDC-27DEC26', 'futures', 'BTC_USDC-27DEC26', '20'],
    ['BTC-27DEC26-100000-C', 'options', 'BTC-27DEC26-100000-C', '20'],
    ['XRP_USDC-30AUG26-0d625-P', 'options', 'XRP_USDC-30AUG26-0D625-P', '20'],
    ['BTC-CS-19MAY26-70000_75000', 'options', 'BTC-CS-19MAY26-70000_75000', '20'],
    ['BTC_USDC', 'spot', 'BTC-USDC', '20'],
  ];
  for (const listed of [false, true]) {
    const { frame, rest, of } = harness();
    if (listed) rest('get_instruments', LIST);
    for (const [instrument_name] of cases) frame(trades({ ...TRADE, instrument_name, price: 5 }));
    assert.deepEqual(
      of('trade').map((row) => [row.instrument, row.market_type, row.symbol, row.quantity]),
      cases,
    );
  }
});

test('the list, where it is known, is what counts: a linear contract with an inverse’s name', () => {
  const { frame, rest, of } = harness();
  frame(trades({ ...TRADE, instrument_name: 'XYZ-PERPETUAL', price: 5 }));
  rest('get_instrument', { result: { ...LIST.result[1], instrument_name: 'XYZ-PERPETUAL' } });
  frame(trades({ ...TRADE, instrument_name: 'XYZ-PERPETUAL', price: 5 }));
  assert.deepEqual(
    of('trade').map((row) => row.quantity),
    ['4', '20'],
  );
});

test('a combo’s trade is one row under its own id, at any price; a spread of inverse futures has no base quantity', () => {
  const { frame, of, events } = harness();
  frame(trades({ ...TRADE, instrument_name: 'BTC-CS-19MAY26-70000_75000', price: -0.0639, legs: [TRADE, TRADE] }));
  frame(trades({ ...TRADE, instrument_name: 'BTC-FS-27DEC26_PERP', price: 5 }));
  assert.deepEqual(
    of('trade').map((row) => [row.symbol, row.price, row.quantity]),
    [['BTC-CS-19MAY26-70000_75000', '-0.0639', '20']],
  );
  assert.deepEqual(events, [{ kind: 'ignored', reason: 'future spread' }]);
});

test('a liquidation is a row beside its trade, with the side of who was liquidated', () => {
  const { rest, of } = harness();
  rest('get_last_trades_by_instrument?instrument_name=BTC-PERPETUAL&start_seq=1', {
    result: {
      trades: [
        { ...TRADE, trade_id: '1', liquidation: 'T' },
        { ...TRADE, trade_id: '2', liquidation: 'M' },
        { ...TRADE, trade_id: '3', liquidation: 'MT', direction: 'sell' },
        { ...TRADE, trade_id: '4' },
        { ...TRADE, trade_id: '5', liquidation: 'none' },
      ],
      has_more: false,
    },
  });
  assert.deepEqual(
    of('trade').map((row) => row.trade_id),
    ['1', '2', '3', '4'],
  );
  assert.deepEqual(
    of('liquidation').map((row) => [row.liquidation_id, row.side, row.price, row.quantity, row.timestamp]),
    [
      ['1', 'buy', '63344.5', '0.000315733804829149', TIME],
      ['2', 'sell', '63344.5', '0.000315733804829149', TIME],
      ['3', 'sell', '63344.5', '0.000315733804829149', TIME],
    ],
  );
});

test('one unsound trade of a message is told and costs the others nothing', () => {
  const { frame, of, told } = harness();
  const unsound = [
    { price: 0 },
    { price: -1 },
    { price: 'x' },
    { amount: 0 },
    { amount: null },
    { direction: 'up' },
    { trade_id: '' },
    { trade_id: 1.5 },
    { trade_seq: -1 },
    { timestamp: TIME * 1000 },
    { instrument_name: 5 },
    { instrument_name: 'nonsense' },
  ];
  frame(trades(TRADE, ...unsound.map((change) => ({ ...TRADE, ...change })), { ...TRADE, trade_id: '2' }));
  assert.deepEqual(
    of('trade').map((row) => row.trade_id),
    ['440192723', '2'],
  );
  assert.equal(told('rejected').length, unsound.length);
});

const EXACT: [text: string, quoted: string][] = [
  ['{"a":1786563104514208300}', '{"a":"1786563104514208300"}'],
  ['[9007199254740993,-9007199254740993]', '["9007199254740993","-9007199254740993"]'],
  ['{"a":123456789012345}', '{"a":123456789012345}'],
  ['{"a":0.12345678901234567}', '{"a":"0.12345678901234567"}'],
  ['{"a":12345678.123456789e3 }', '{"a":"12345678.123456789e3" }'],
  ['{"a":"1786563104514208300"}', '{"a":"1786563104514208300"}'],
  ['{"a":"x\\"1786563104514208300,"}', '{"a":"x\\"1786563104514208300,"}'],
  ['{"a":"\\\\","b":1786563104514208300}', '{"a":"\\\\","b":"1786563104514208300"}'],
  ['{"17865631045142083001":1}', '{"17865631045142083001":1}'],
  ['1786563104514208300', '"1786563104514208300"'],
];

test('numbers longer than a double become text, and what stands inside of strings stays', () => {
  for (const [text, quoted] of EXACT) assert.equal(quoteLongNumbers(text), quoted);
  // What is no JSON stays none: a number as a name, leading zeros, a string that never ends.
  for (const broken of ['{1786563104514208300:1}', '[001786563104514208300]', '{"a":"x\\1786563104514208300}']) {
    assert.throws(() => JSON.parse(broken));
    assert.throws(() => JSON.parse(quoteLongNumbers(broken)), broken);
  }
});

test('however a text is mangled, quoting makes no JSON of what is none, and changes nothing but long numbers', () => {
  const text =
    '{"a":1786563104514208300,"b\\"":"\\\\ 99999999999999999,","c":[0.12345678901234567, -1.5e-7],"d":{"e":true}}';
  const isJson = (each: string) => {
    try {
      JSON.parse(each);
      return true;
    } catch {
      return false;
    }
  };
  const random = generator(17);
  const characters = '"\\{}[]:,.-+eE0123456789 nult';
  let sound = 0;
  for (let i = 0; i < 200_000; i++) {
    let mangled = text;
    for (let times = 1 + random(3); times > 0; times--) {
      const at = random(mangled.length);
      mangled = mangled.slice(0, at) + characters[random(characters.length)] + mangled.slice(at + random(3));
    }
    const quoted = quoteLongNumbers(mangled);
    assert.equal(isJson(quoted), isJson(mangled), mangled);
    if (!isJson(quoted)) continue;
    sound += 1;
    const numbers = (json: string) => JSON.parse(json, (_, each) => (/^-?\d/.test(each) ? Number(each) : each));
    assert.deepEqual(numbers(quoted), numbers(mangled), mangled);
  }
  assert.ok(sound > 1000);
});

test('ids above 2^53 reach the row to the last digit, also as bare numbers', () => {
  const { frame, of, told } = harness();
  const text = JSON.stringify(trades(TRADE))
    .replace('"440192723"', '9007199254740993')
    .replace('296152987', '9007199254740995');
  frame(text);
  const book = (change: object) => JSON.stringify(subscription('book.BTC-PERPETUAL.100ms', { ...SNAPSHOT, ...change }));
  frame(book({}).replace(':100,', ':9007199254740993,'));
  frame(
    book({ type: 'change', prev_change_id: 1, change_id: 2, bids: [], asks: [] })
      .replace('"prev_change_id":1', '"prev_change_id":9007199254740993')
      .replace('"change_id":2', '"change_id":9007199254740994'),
  );
  const [row] = of('trade');
  assert.deepEqual([row!.trade_id, row!.sequence], ['9007199254740993', '9007199254740995']);
  assert.ok(encodeRow('trade', row!).includes('"sequence":9007199254740995,'));
  assert.deepEqual(
    of('orderbook').map((each) => each.last_update_id),
    ['9007199254740993', '9007199254740994'],
  );
  assert.deepEqual(told('resync'), []);
});

const SNAPSHOT = {
  type: 'snapshot',
  timestamp: TIME,
  instrument_name: 'BTC-PERPETUAL',
  change_id: 100,
  bids: [
    ['new', 50000, 100],
    ['new', 40000, 100],
  ],
  asks: [['new', 62500, 100]],
};
const change = (change_id: number, prev_change_id: number, more: object = {}) => ({
  type: 'change',
  timestamp: TIME + change_id,
  instrument_name: 'BTC-PERPETUAL',
  change_id,
  prev_change_id,
  bids: [],
  asks: [],
  ...more,
});
const book = (data: Record<string, unknown>) => subscription(`book.${data.instrument_name}.100ms`, data);

test('a book starts at its snapshot and follows new, change and delete, each level in base units by its own price', () => {
  const { frame, of, events } = harness();
  frame(book(SNAPSHOT));
  frame(
    book(
      change(101, 100, {
        bids: [
          ['delete', 50000, 0],
          ['change', 40000, 200],
          ['new', 51200, 128],
        ],
        asks: undefined,
      }),
    ),
  );
  const [first, second] = of('orderbook_update');
  assert.deepEqual({ ...first, received_at: 0 }, {
    exchange: 'deribit_derivatives',
    market_type: 'perpetual',
    symbol: 'BTC-USD',
    instrument: 'BTC-PERPETUAL',
    timestamp: TIME,
    received_at: 0,
    data_source: 'live',
    first_update_id: null,
    last_update_id: 100,
    prev_update_id: null,
    is_snapshot: true,
    bids: [
      ['50000', '0.002'],
      ['40000', '0.0025'],
    ],
    asks: [['62500', '0.0016']],
  } satisfies OrderbookUpdateRow);
  assert.deepEqual(
    [second!.is_snapshot, second!.prev_update_id, second!.last_update_id, second!.bids, second!.asks],
    [
      false,
      100,
      101,
      [
        ['51200', '0.0025'],
        ['50000', '0'],
        ['40000', '0.005'],
      ],
      [],
    ],
  );
  const [, standing] = of('orderbook');
  assert.deepEqual(
    [
      standing!.last_update_id,
      standing!.best_bid_price,
      standing!.best_bid_quantity,
      standing!.bids,
      standing!.verified,
    ],
    [
      101,
      '51200',
      '0.0025',
      [
        ['51200', '0.0025'],
        ['40000', '0.005'],
      ],
      'verified',
    ],
  );
  assert.deepEqual(events, []);
});

test('a gap gives one resync and asks for that channel only; the sibling goes on, and the next snapshot heals it', () => {
  const { frame, of, events, told } = harness();
  const eth = { instrument_name: 'ETH-PERPETUAL' };
  frame(book(SNAPSHOT));
  frame(book({ ...SNAPSHOT, ...eth }));
  frame(book(change(103, 102)));
  frame(book(change(104, 103)));
  frame(book(change(105, 104)));
  frame(book(change(101, 100, eth)));
  assert.deepEqual(
    events.map((event) => event.kind),
    ['resync', 'resubscribe'],
  );
  const [resync] = told('resync');
  assert.deepEqual(
    [resync!.instrument.symbol, resync!.cause, resync!.last, resync!.next],
    ['BTC-USD', 'gap', 100, 103],
  );
  assert.deepEqual(told('resubscribe')[0]!.channels, ['book.BTC-PERPETUAL.100ms']);
  // Each change is kept as a row, whatever becomes of the book.
  assert.equal(of('orderbook_update').length, 6);
  frame(book({ ...SNAPSHOT, change_id: 200 }));
  frame(book(change(201, 200)));
  assert.deepEqual(
    of('orderbook').map((row) => `${row.symbol} ${row.last_update_id}`),
    ['BTC-USD 100', 'ETH-USD 100', 'ETH-USD 101', 'BTC-USD 200', 'BTC-USD 201'],
  );
  assert.equal(events.length, 2);
});

test('what came before is passed over; ids that start anew, and a crossed book, are a resync', () => {
  const { frame, events, of } = harness();
  frame(book(SNAPSHOT));
  frame(book(change(101, 100)));
  frame(book(change(101, 100)));
  frame(book(change(100, 99)));
  assert.equal(events.length, 0);
  assert.equal(of('orderbook').length, 2);
  frame(book(change(7, 6, { timestamp: TIME + 60_000 })));
  frame(book({ ...SNAPSHOT, timestamp: TIME + 60_000 }));
  frame(book(change(101, 100, { timestamp: TIME + 60_001, bids: [['new', 62500, 10]] })));
  assert.deepEqual(
    events.map((event) => (event.kind === 'resync' ? event.cause : event.kind)),
    ['ids_restarted', 'resubscribe', 'crossed', 'resubscribe'],
  );
  assert.equal(of('orderbook').length, 3);
});

test('changes without a snapshot ask for one, again only after a while; a crossed snapshot is not asked about in a hurry', () => {
  const { frame, of, told, events } = harness();
  for (const id of [1, 2, 9000, 10_001, 10_002]) frame(book(change(id, id - 1)));
  assert.equal(told('resubscribe').length, 2);
  assert.equal(of('orderbook').length, 0);
  events.length = 0;
  const crossed = { ...SNAPSHOT, bids: [['new', 70000, 10]] };
  for (const later of [10_100, 10_200, 10_300]) frame(book({ ...crossed, timestamp: TIME + later }));
  assert.deepEqual(
    events.map((event) => event.kind),
    ['resync', 'resync', 'resync'],
  );
  frame(book(change(20_200, 20_199)));
  assert.equal(told('resubscribe').length, 1);
});

test('a lost connection drops its books, and the snapshot of the next one starts them anew', () => {
  const btc = deribitDerivatives.instrument('BTC-USDT', 'perpetual');
  const { frame, feed, out, told, of } = harness(0, [btc]);
  const [connection] = deribitDerivatives.connections([btc]);
  feed.disconnected(connection!.channels, out);
  assert.deepEqual(told('resync'), []);
  frame(book(SNAPSHOT));
  feed.disconnected(connection!.channels, out);
  assert.deepEqual(
    told('resync').map((event) => [event.cause, event.last]),
    [['disconnect', 100]],
  );
  assert.deepEqual(told('resubscribe'), []);
  frame(book({ ...SNAPSHOT, change_id: 300 }));
  assert.deepEqual(
    of('orderbook').map((row) => row.last_update_id),
    [100, 300],
  );
  assert.ok(
    feed.requests().every(({ path }) => path.includes('get_last_trades')),
    'no book is fetched',
  );
  // What was asked for on the lost connection is no reason to wait on the next one.
  frame(book(change(302, 301)));
  feed.disconnected(connection!.channels, out);
  frame(book(change(303, 302)));
  assert.equal(told('resubscribe').length, 2);
});

test('orderbook rows are the first applied update of each interval of venue time', () => {
  const { frame, of } = harness(10_000);
  const at = (timestamp: number, id: number) => frame(book(change(id, id - 1, { timestamp })));
  frame(book({ ...SNAPSHOT, timestamp: 1786563104514 }));
  at(1786563109999, 101);
  at(1786563110000, 102);
  at(1786563119999, 103);
  at(1786563135000, 104);
  assert.deepEqual(
    of('orderbook').map((row) => row.last_update_id),
    [100, 102, 104],
  );
  assert.equal(of('orderbook_update').length, 5);
});

test('an unsound book message gives no row, and shows as a gap at the next one', () => {
  const { frame, of, told, take } = harness();
  frame(book(SNAPSHOT));
  const unsound = [
    { change_id: 1.5 },
    { change_id: null },
    { prev_change_id: null },
    { timestamp: 'x' },
    { bids: 'x' },
    { bids: [['new', 1]] },
    { bids: [['add', 1, 1]] },
    { bids: [['new', 'x', 1]] },
    { bids: [['new', 1, 0]] },
    { asks: [['change', 1, -1]] },
    { asks: [['delete', 0, 0]] },
    { type: 'other' },
  ];
  for (const each of unsound) frame(book(change(101, 100, each)));
  assert.equal(told('rejected').length, unsound.length);
  assert.equal(of('orderbook_update').length, 1);
  take();
  frame(book(change(102, 101)));
  assert.equal(told('resync').length, 1);
});

const TICKER = {
  timestamp: TIME,
  state: 'open',
  instrument_name: 'BTC-PERPETUAL',
  index_price: 63325.19,
  mark_price: 50000,
  open_interest: 1132329370,
  current_funding: 0,
  funding_8h: 2.55e-6,
};
const ticker = (change: object = {}) => subscription('ticker.X.100ms', { ...TICKER, ...change });

test('a ticker of a perpetual gives funding per 8 hours, and open interest in coins and in the quote', () => {
  const { frame, rest, of } = harness();
  frame(ticker());
  rest('get_instruments', LIST);
  const linear = { instrument_name: 'SOL_USDC-PERPETUAL', mark_price: 80.5, open_interest: 1000.2 };
  frame(ticker({ ...linear, funding_8h: -0.00012345 }));
  frame(ticker({ instrument_name: 'BTC-27DEC26', funding_8h: undefined, timestamp: TIME + 1 }));
  frame(
    ticker({ instrument_name: 'BTC-27DEC26-100000-C', funding_8h: undefined, open_interest: 0, mark_price: 0.0084 }),
  );
  assert.deepEqual(
    of('funding_rate').map((row) => [row.symbol, row.funding_rate, row.funding_interval_hours, row.mark_price]),
    [
      ['BTC-USD', '0.00000255', '8', '50000'],
      ['SOL-USDC', '-0.00012345', '8', '80.5'],
    ],
  );
  const [funding] = of('funding_rate');
  assert.deepEqual(
    [funding!.timestamp, funding!.funding_time, funding!.next_funding_time, funding!.index_price],
    [TIME, null, null, '63325.19'],
  );
  assert.deepEqual(
    of('open_interest').map((row) => [row.symbol, row.open_interest, row.open_interest_value, row.contracts]),
    [
      ['BTC-USD', '22646.5874', '1132329370', null],
      ['SOL-USDC', '1000.2', '80516.1', '10002'],
      ['BTC-27DEC26', '22646.5874', '1132329370', null],
      ['BTC-27DEC26-100000-C', '0', null, '0'],
    ],
  );
});

test('readings are the first of each minute of venue time; REST and socket are one stream', () => {
  const { frame, rest, of } = harness();
  const minute = Math.ceil(TIME / 60_000) * 60_000;
  for (const time of [TIME, TIME + 100, minute - 1, minute, minute + 59_999, minute + 60_001, TIME]) {
    frame(ticker({ timestamp: time }));
  }
  rest('ticker?instrument_name=BTC-PERPETUAL', { result: { ...TICKER, timestamp: minute + 60_500 } });
  rest('ticker?instrument_name=BTC-PERPETUAL', { result: { ...TICKER, timestamp: minute + 120_500 } });
  for (const type of ['funding_rate', 'open_interest'] as const) {
    assert.deepEqual(
      of(type).map((row) => row.timestamp),
      [TIME, minute, minute + 60_001, minute + 120_500],
    );
  }
});

test('an absent reading is no row and never 0', () => {
  const { frame, of, told } = harness();
  frame(ticker({ funding_8h: null }));
  assert.equal(of('funding_rate').length, 0);
  assert.equal(of('open_interest').length, 1);
  for (const absent of [{ open_interest: null }, { mark_price: null }, { open_interest: -1 }, { open_interest: '' }]) {
    frame(ticker({ ...absent, instrument_name: 'ETH-27DEC26' }));
  }
  assert.equal(told('rejected').length, 4);
  assert.equal(of('open_interest').length, 1);
});

test('past funding comes per hour as the rate of 8 hours', () => {
  const { rest, of } = harness();
  rest('get_funding_rate_history?instrument_name=BTC-PERPETUAL&start_timestamp=1&end_timestamp=2', {
    result: [
      { timestamp: 1786561200000, index_price: 63000.5, prev_index_price: 1, interest_8h: 1.5e-7, interest_1h: 0 },
      { timestamp: 1786564800000, index_price: 63001, prev_index_price: 1, interest_8h: -0.0002, interest_1h: 0 },
    ],
  });
  assert.deepEqual(
    of('funding_rate').map((row) => [row.symbol, row.timestamp, row.funding_rate, row.index_price, row.mark_price]),
    [
      ['BTC-USD', 1786561200000, '0.00000015', '63000.5', null],
      ['BTC-USD', 1786564800000, '-0.0002', '63001', null],
    ],
  );
});

test('the volatility index of the stream is a row per minute and coin, of its candles only finished ones', () => {
  const { frame, rest, of, told } = harness();
  const index = (timestamp: number, index_name = 'btc_usd') =>
    frame(subscription(`deribit_volatility_index.${index_name}`, { timestamp, volatility: 129.36, index_name }));
  index(1619777946007);
  index(1619777947007);
  index(1619777947007, 'eth_usd');
  assert.deepEqual(
    of('volatility_index').map((row) => [row.symbol, row.timestamp, row.resolution]),
    [
      ['BTC', 1619777946007, '1s'],
      ['ETH', 1619777947007, '1s'],
    ],
  );
  const [first] = of('volatility_index');
  assert.deepEqual(
    [first!.market_type, first!.instrument, first!.index_value, first!.underlying_asset, first!.maturity_date],
    ['options', 'btc_usd', '129.36', 'BTC', null],
  );
  const data = [
    [1619777820000, 1, 2, 1, 89.1],
    [1619777880000, 1, 2, 1, 89.25],
    [1619777940000, 1, 2, 1, 90],
  ];
  const path = 'get_volatility_index_data?currency=BTC&start_timestamp=1619777820000&resolution=60&end_timestamp=';
  rest(`${path}1619777946007`, { result: { data, continuation: null } });
  rest(`${path}1619777940000`, { result: { data: data.slice(0, 2), continuation: null } });
  assert.deepEqual(
    of('volatility_index')
      .slice(2)
      .map((row) => [row.symbol, row.timestamp, row.resolution, row.index_value]),
    [
      ['BTC', 1619777820000, '60', '89.1'],
      ['BTC', 1619777880000, '60', '89.25'],
      ['BTC', 1619777820000, '60', '89.1'],
      ['BTC', 1619777880000, '60', '89.25'],
    ],
  );
  assert.deepEqual(told('ignored'), [{ kind: 'ignored', reason: 'unfinished candle' }]);
  // A request that ends in the future proves nothing about a candle that ends after the answer.
  const last = Math.floor(NOW / 60_000_000) * 60_000;
  rest(`${path}${last + 3_600_000}`, { result: { data: [[last, 1, 1, 1, 1]] } });
  assert.equal(of('volatility_index').length, 6);
});

test('a test request is answered at once, grants and refusals are told, other channels recognised, the rest rejected', () => {
  const { frame, take } = harness();
  const cases: [unknown, FeedEvent][] = [
    [
      { jsonrpc: '2.0', method: 'heartbeat', params: { type: 'test_request' } },
      { kind: 'reply', text: '{"jsonrpc":"2.0","id":0,"method":"public/test","params":{}}' },
    ],
    [
      { jsonrpc: '2.0', method: 'heartbeat', params: { type: 'heartbeat' } },
      { kind: 'ignored', reason: 'heartbeat' },
    ],
    [
      { jsonrpc: '2.0', id: 0, result: { version: '1.2.26' } },
      { kind: 'ignored', reason: 'heartbeat' },
    ],
    [
      { jsonrpc: '2.0', id: 1, result: 'ok', usIn: 1765297564479569 },
      { kind: 'ack', id: 1, error: null, granted: null },
    ],
    [
      { jsonrpc: '2.0', id: 2, result: ['trades.BTC-PERPETUAL.100ms'] },
      { kind: 'ack', id: 2, error: null, granted: ['trades.BTC-PERPETUAL.100ms'] },
    ],
    [
      { jsonrpc: '2.0', id: 3, error: { code: 13778, message: 'raw_subscriptions_not_available_for_unauthorized' } },
      {
        kind: 'ack',
        id: 3,
        error: '{"code":13778,"message":"raw_subscriptions_not_available_for_unauthorized"}',
        granted: null,
      },
    ],
    [
      { jsonrpc: '2.0', error: { code: 10028, message: 'too_many_requests' } },
      { kind: 'ack', id: null, error: '{"code":10028,"message":"too_many_requests"}', granted: null },
    ],
    [subscription('quote.BTC-PERPETUAL', {}), { kind: 'ignored', reason: 'quote' }],
    [subscription('platform_state', {}), { kind: 'ignored', reason: 'platform_state' }],
    [
      subscription('book.BTC-PERPETUAL.none.20.100ms', { instrument_name: 'BTC-PERPETUAL', bids: [[1, 2]], asks: [] }),
      { kind: 'ignored', reason: 'grouped book' },
    ],
    [subscription('new.thing', {}), { kind: 'rejected', reason: 'unknown channel new' }],
    [{ hello: 1 }, { kind: 'rejected', reason: 'unknown frame' }],
  ];
  for (const [input, event] of cases) {
    frame(input);
    assert.deepEqual(take(), { rows: [], events: [event] });
  }
  for (const garbage of [
    '',
    'not json',
    '[]',
    'null',
    '5',
    '{"method":"subscription"}',
    subscription('book.X.100ms', 5),
  ]) {
    frame(garbage);
    assert.deepEqual(
      take().events.map((event) => event.kind),
      ['rejected'],
    );
  }
});

test('REST errors are rejected, also under HTTP 200, and so are answers that nobody asked for', () => {
  const { rest, take } = harness();
  rest('ticker?instrument_name=X', { jsonrpc: '2.0', error: { code: 13020, message: 'not_found' } });
  assert.deepEqual(take().events, [
    { kind: 'rejected', reason: 'ticker answered an error: {"code":13020,"message":"not_found"}' },
  ]);
  rest('get_last_trades_by_instrument?instrument_name=X', { result: {} });
  rest('get_last_trades_by_instrument?instrument_name=X', null);
  rest('get_volatility_index_data?currency=BTC&resolution=60', { result: { data: 5 } });
  rest('get_volatility_index_data?currency=BTC', { result: { data: [] } });
  rest('get_volatility_index_data?resolution=60', { result: { data: [] } });
  rest('get_funding_rate_history', { result: [{}] });
  rest('get_instruments', { result: [{ instrument_name: 'X' }] });
  rest('something_else', { result: [] });
  const { rows, events } = take();
  assert.deepEqual(rows, []);
  assert.equal(events.length, 8);
  assert.ok(events.every((event) => event.kind === 'rejected'));
});

function generator(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (state * 48271) % 2147483647;
    return state % below;
  };
}

test('mutated and truncated frames never throw, and no row comes out of a truncated one', () => {
  const frames = [
    trades(TRADE, { ...TRADE, liquidation: 'T' }),
    book(SNAPSHOT),
    book(change(101, 100, { bids: [['new', 1, 1]] })),
    ticker(),
    subscription('deribit_volatility_index.btc_usd', { timestamp: TIME, volatility: 129.36, index_name: 'btc_usd' }),
  ].map((each) => JSON.stringify(each).replace('"amount":20', '"starbase_timestamp":1786563104514208300,"amount":20'));
  const random = generator(11);
  for (const text of frames) {
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

test('a pair is the coin-margined perpetual of BTC and ETH, and the one against USDC of all others', () => {
  const of = (pair: string) => {
    const { instrument, symbol } = deribitDerivatives.instrument(pair, 'perpetual');
    return [instrument, symbol];
  };
  assert.deepEqual(of('BTC-USDT'), ['BTC-PERPETUAL', 'BTC-USD']);
  assert.deepEqual(of('ETH-USD'), ['ETH-PERPETUAL', 'ETH-USD']);
  assert.deepEqual(of('BTC-USDC'), ['BTC_USDC-PERPETUAL', 'BTC-USDC']);
  assert.deepEqual(of('SOL-USDT'), ['SOL_USDC-PERPETUAL', 'SOL-USDC']);
  for (const pair of ['BTC-USDT', 'BTC-USDC', 'SOL-USDT']) {
    const expected = deribitDerivatives.instrument(pair, 'perpetual');
    const { frame, of: rowsOf } = harness();
    frame(trades({ ...TRADE, instrument_name: expected.instrument }));
    assert.equal(rowsOf('trade')[0]!.symbol, expected.symbol);
  }
  assert.deepEqual(deribitDerivatives.instrument('BTC-USDT', 'options'), {
    exchange: 'deribit_derivatives',
    market_type: 'options',
    symbol: 'BTC',
    instrument: 'btc_usd',
  });
});

test('all channels go over one socket, with a heartbeat before them and no .raw among them', () => {
  const pairs = ['BTC-USDT', 'SOL-USDT'].map((pair) => deribitDerivatives.instrument(pair, 'perpetual'));
  const [connection, ...others] = deribitDerivatives.connections(pairs);
  assert.deepEqual(others, []);
  assert.equal(connection!.path, '/ws/api/v2');
  assert.deepEqual(
    connection!.channels.map((each) => [each.name, each.types.join(' ')]),
    [
      ['trades.BTC-PERPETUAL.100ms', 'trade liquidation'],
      ['book.BTC-PERPETUAL.100ms', 'orderbook orderbook_update'],
      ['ticker.BTC-PERPETUAL.100ms', 'funding_rate open_interest'],
      ['trades.SOL_USDC-PERPETUAL.100ms', 'trade liquidation'],
      ['book.SOL_USDC-PERPETUAL.100ms', 'orderbook orderbook_update'],
      ['ticker.SOL_USDC-PERPETUAL.100ms', 'funding_rate open_interest'],
      ['deribit_volatility_index.btc_usd', 'volatility_index'],
    ],
  );
  const two = connection!.channels.slice(0, 1);
  assert.deepEqual(deribitDerivatives.subscribe(two, 7), [
    { id: 7, text: '{"jsonrpc":"2.0","id":7,"method":"public/set_heartbeat","params":{"interval":20}}' },
    {
      id: 8,
      text: '{"jsonrpc":"2.0","id":8,"method":"public/subscribe","params":{"channels":["trades.BTC-PERPETUAL.100ms"]}}',
    },
  ]);
  assert.deepEqual(deribitDerivatives.unsubscribe!(two, 9), [
    {
      id: 9,
      text: '{"jsonrpc":"2.0","id":9,"method":"public/unsubscribe","params":{"channels":["trades.BTC-PERPETUAL.100ms"]}}',
    },
  ]);
});
