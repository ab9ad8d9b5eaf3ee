import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import {
  DATA_TYPES,
  encodeRow,
  leadingMembers,
  type OrderbookUpdateRow,
  TABLES,
  type TradeRow,
  ValueError,
} from '../scripts/lib/rows.ts';
import { SQL_FILES, sqlFile } from '../scripts/lib/schema.ts';
import { parseSubject, streamDefinitions, streamOf, subjectOf } from '../scripts/lib/streams.ts';

const TRADE: TradeRow = {
  exchange: 'binance_spot',
  market_type: 'spot',
  symbol: 'BTC-USDT',
  instrument: 'BTCUSDT',
  timestamp: 1723161255342,
  received_at: 1723161254087896,
  data_source: 'live',
  trade_id: '3735683259',
  sequence: null,
  price: '61837.63000000',
  quantity: '0.02000000',
  side: 'sell',
  is_maker: true,
};

const UPDATE: OrderbookUpdateRow = {
  exchange: 'binance_derivatives',
  market_type: 'perpetual',
  symbol: 'ETH-USDT',
  instrument: 'ETHUSDT',
  timestamp: 1723161256302,
  received_at: 1723161255088156,
  data_source: 'live',
  first_update_id: 5123107832349,
  last_update_id: '18446744073709551615',
  prev_update_id: null,
  is_snapshot: false,
  bids: [['2681.62', '1.165']],
  asks: [],
};

test('a row is one line of JSON: stream, key and time first, then the table’s order, without spaces', () => {
  assert.equal(
    encodeRow('trade', TRADE),
    '{"exchange":"binance_spot","market_type":"spot","symbol":"BTC-USDT","trade_id":"3735683259","timestamp":1723161255342,' +
      '"instrument":"BTCUSDT","sequence":null,"price":"61837.63000000","quantity":"0.02000000","side":"sell","is_maker":true,' +
      '"received_at":1723161254087896,"data_source":"live"}',
  );
  assert.equal(
    encodeRow('orderbook_update', UPDATE),
    '{"exchange":"binance_derivatives","market_type":"perpetual","symbol":"ETH-USDT","last_update_id":18446744073709551615,' +
      '"is_snapshot":false,"timestamp":1723161256302,"instrument":"ETHUSDT","first_update_id":5123107832349,"prev_update_id":null,' +
      '"bids":[["2681.62","1.165"]],"asks":[],"received_at":1723161255088156,"data_source":"live"}',
  );
});

test('what does not fit its column is an error that names table and column', () => {
  const faults: [Partial<Record<keyof TradeRow, unknown>>, RegExp][] = [
    [{ price: '' }, /trades\.price: not a number/],
    [{ price: null }, /trades\.price/],
    [{ quantity: '1e-30' }, /trades\.quantity/],
    [{ trade_id: '' }, /trades\.trade_id: not a text/],
    [{ timestamp: 1.5 }, /trades\.timestamp: not a time/],
    [{ timestamp: null }, /trades\.timestamp/],
    [{ sequence: 2 ** 53 }, /trades\.sequence: not an unsigned integer/],
    [{ sequence: -1 }, /trades\.sequence/],
    [{ is_maker: 1 }, /trades\.is_maker: not true or false/],
    [{ symbol: undefined }, /trades\.symbol/],
  ];
  for (const [change, message] of faults) {
    assert.throws(
      () => encodeRow('trade', { ...TRADE, ...change } as TradeRow),
      (error) => error instanceof ValueError && message.test(error.message),
      JSON.stringify(change),
    );
  }
});

test('level text in exponents is expanded, and text that is no number is refused', () => {
  const line = encodeRow('orderbook_update', { ...UPDATE, bids: [['1e-7', '2']] });
  assert.match(line, /"bids":\[\["0\.0000001","2"\]\]/);
  assert.throws(() => encodeRow('orderbook_update', { ...UPDATE, bids: [['x', '2']] }), ValueError);
  assert.throws(() => encodeRow('orderbook_update', { ...UPDATE, asks: [['1', '"}']] }), ValueError);
});

test('text that needs escaping is escaped', () => {
  const line = encodeRow('trade', { ...TRADE, trade_id: 'a"b\\c' });
  assert.equal(JSON.parse(line).trade_id, 'a"b\\c');
});

test('every table opens its text with the stream, its key and the time', () => {
  assert.deepEqual(leadingMembers('trade'), ['exchange', 'market_type', 'symbol', 'trade_id', 'timestamp']);
  assert.deepEqual(leadingMembers('funding_rate'), ['exchange', 'market_type', 'symbol', 'timestamp']);
  assert.deepEqual(leadingMembers('lsr_top_position'), ['exchange', 'market_type', 'symbol', 'timestamp', 'period']);
  for (const type of DATA_TYPES) {
    for (const member of TABLES[type].key) {
      const column = TABLES[type].columns.find((each) => each.name === member);
      assert.ok(column?.kind && !column.nullable, `${type}.${member} is written and never null`);
    }
  }
});

for (const name of SQL_FILES) {
  test(`sql/${name}.sql is what rows.ts says`, () => {
    const file = readFileSync(join(import.meta.dirname, '..', 'sql', `${name}.sql`), 'utf8');
    assert.equal(file, sqlFile(name), 'run: npm run sql');
  });
}

test('a subject names type, exchange, market and symbol, and comes back from its text', () => {
  const stream = { type: 'trade', exchange: 'binance_spot', market_type: 'spot', symbol: 'BTC-USDT' } as const;
  assert.equal(subjectOf(stream), 'trade.binance_spot.spot.BTC-USDT');
  assert.deepEqual(parseSubject(subjectOf(stream)), stream);
  const odd = { ...stream, symbol: '龙.* >%' };
  assert.match(subjectOf(odd), /^trade\.binance_spot\.spot\.[A-Za-z0-9%_-]+$/);
  assert.deepEqual(parseSubject(subjectOf(odd)), odd);
  for (const foreign of ['trade.a.b', 'x.a.b.c', 'trade.a.b.c.d', 'trade.a.b.%', ''])
    assert.equal(parseSubject(foreign), null);
});

test('each type has one stream, and a total scales both streams', () => {
  for (const type of DATA_TYPES) assert.ok(streamOf(type).types.includes(type));
  assert.equal(streamOf('orderbook_update').name, 'ORDERBOOK_SNAP');
  assert.equal(streamOf('gap').name, 'MARKET_DATA');
  const scaled = streamDefinitions({ streamMaxBytes: 700 * 2 ** 20 });
  assert.deepEqual(
    scaled.map((each) => each.maxBytes),
    [200 * 2 ** 20, 500 * 2 ** 20],
  );
});
