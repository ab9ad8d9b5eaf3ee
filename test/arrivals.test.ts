import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  type Arrival,
  dropFound,
  insertBody,
  LineReader,
  lineOf,
  lookupQuery,
  type StreamArrivals,
  spansOf,
  streamKey,
} from '../scripts/lib/arrivals.ts';
import { encodeRow, type OrderbookUpdateRow, type TradeRow } from '../scripts/lib/rows.ts';
import type { Stream } from '../scripts/lib/streams.ts';
import { sampleTrade } from './fixtures.ts';

const BTC: Stream = { type: 'trade', exchange: 'binance_spot', market_type: 'spot', symbol: 'BTC-USDT' };
const DIFFS: Stream = { ...BTC, type: 'orderbook_update' };

const trade = (id: number, change: Partial<TradeRow> = {}) => encodeRow('trade', sampleTrade(id, change));

function diff(change: Partial<OrderbookUpdateRow>): string {
  return encodeRow('orderbook_update', {
    exchange: 'binance_spot',
    market_type: 'spot',
    symbol: 'BTC-USDT',
    instrument: 'BTCUSDT',
    timestamp: 1795000000000,
    received_at: 1795000000000000,
    data_source: 'live',
    first_update_id: 5,
    last_update_id: 9,
    prev_update_id: null,
    is_snapshot: false,
    bids: [['1', '2']],
    asks: [],
    ...change,
  });
}

function read(stream: Stream, lines: string[], seq = 7) {
  const rows = new Map<string, Arrival>();
  const { faults, copies } = new LineReader(stream).read(Buffer.from(lines.join('\n')), 3, seq, rows);
  return { rows, faults, copies };
}

test('each line gives its key, its event time, and its text with the place in the stream in front', () => {
  const { rows, faults, copies } = read(BTC, [trade(12), trade(13)]);
  assert.deepEqual([faults, copies], [[], 0]);
  assert.deepEqual([...rows.keys()], ['12', '13']);
  const first = rows.get('12')!;
  assert.deepEqual([first.timestamp, first.message.seq], [1795000000012, 7]);
  assert.equal(lineOf(first), `{"js_epoch":3,"js_seq":7,${trade(12).slice(1)}\n`);
  assert.deepEqual(
    { ...JSON.parse(lineOf(first)), js_epoch: undefined, js_seq: undefined },
    { ...JSON.parse(trade(12)), js_epoch: undefined, js_seq: undefined },
  );
});

test('the second copy of a key is dropped and counted, within a message and across messages; the first one stays', () => {
  const rows = new Map<string, Arrival>();
  const reader = new LineReader(BTC);
  const one = reader.read(Buffer.from([trade(1), trade(1, { price: '2' }), trade(2)].join('\n')), 1, 10, rows);
  const two = reader.read(Buffer.from(`${trade(2)}\n${trade(3)}\n`), 1, 11, rows);
  assert.deepEqual([one.copies, two.copies], [1, 1]);
  assert.deepEqual(
    [...rows].map(([key, row]) => [key, row.message.seq, JSON.parse(lineOf(row)).price]),
    [
      ['1', 10, '61837.63'],
      ['2', 10, '61837.63'],
      ['3', 11, '61837.63'],
    ],
  );
});

test('a key of several members is all of them: a snapshot and a diff of one id are two rows', () => {
  const { rows } = read(DIFFS, [diff({}), diff({ is_snapshot: true }), diff({ last_update_id: 10 })]);
  assert.deepEqual([...rows.keys()], ['9\tfalse', '9\ttrue', '10\tfalse']);
});

test('where the time is the key, it is part of it', () => {
  const stream: Stream = { ...BTC, type: 'funding_rate', exchange: 'binance_derivatives', market_type: 'perpetual' };
  const line = (timestamp: number) =>
    `{"exchange":"binance_derivatives","market_type":"perpetual","symbol":"BTC-USDT","timestamp":${timestamp},"funding_rate":"1"}`;
  const { rows, faults } = read(stream, [line(1795000000000), line(1795000000001)]);
  assert.deepEqual(faults, []);
  assert.deepEqual([...rows.keys()], ['1795000000000', '1795000000001']);
});

test('a line that is not as the row text prescribes is told with its reason, and costs no other line', () => {
  const good = trade(20);
  const bad: [string, RegExp][] = [
    [trade(21, { symbol: 'ETH-USDT' }), /does not begin with/],
    [trade(22, { exchange: 'binance_derivatives' }), /does not begin with/],
    [trade(23).slice(0, -1), /does not end with/],
    [trade(24).replace('"trade_id"', '"id"'), /has no trade_id/],
    [trade(25).replace('"timestamp":', '"time":'), /has no timestamp/],
    [trade(26).replace('"trade_id":"26"', `"trade_id":"2' OR 1"`), /trade_id cannot be a key/],
    [trade(27).replace('"trade_id":"27"', '"trade_id":""'), /trade_id cannot be a key/],
    [trade(28).replace('"trade_id":"28"', '"trade_id":"2\\t8"'), /trade_id cannot be a key/],
    [trade(29).replace(/"timestamp":\d+/, '"timestamp":"now"'), /timestamp cannot be a key/],
  ];
  for (const [line, reason] of bad) {
    const { rows, faults } = read(BTC, [line, good]);
    assert.deepEqual([...rows.keys()], ['20'], line);
    assert.equal(faults.length, 1, line);
    assert.match(faults[0]!.reason, reason);
    assert.deepEqual([faults[0]!.line, faults[0]!.seq], [line, 7]);
  }
});

test('a key that runs into the next line is no key', () => {
  const open = `{"exchange":"binance_spot","market_type":"spot","symbol":"BTC-USDT","trade_id":"31}`;
  const { rows, faults } = read(BTC, [open, trade(32)]);
  assert.deepEqual([...rows.keys()], ['32']);
  assert.match(faults[0]!.reason, /trade_id has no end/);
});

test('bytes beyond ASCII stay the bytes that they were', () => {
  const line = trade(1, { data_source: 'repair:é漢' });
  const { rows } = read(BTC, [line]);
  assert.equal(Buffer.from(lineOf(rows.get('1')!), 'latin1').toString(), `{"js_epoch":3,"js_seq":7,${line.slice(1)}\n`);
});

test('times near each other share a span that holds both its ends; times far apart have spans of their own', () => {
  assert.deepEqual(spansOf([5000, 1000, 3000]), [{ from: 1000, to: 5000 }]);
  assert.deepEqual(spansOf([0, 60_000, 120_001]), [
    { from: 0, to: 60_000 },
    { from: 120_001, to: 120_001 },
  ]);
  const scattered = spansOf(Array.from({ length: 500 }, (_, i) => i * 1_000_000));
  assert.ok(scattered.length <= 50, 'a query stays of bounded size');
  assert.deepEqual([scattered[0]!.from, scattered[scattered.length - 1]!.to], [0, 499_000_000]);
});

function arrivals(stream: Stream, lines: string[]): StreamArrivals {
  return { stream, rows: read(stream, lines).rows };
}

const time = (ms: number) => `fromUnixTimestamp64Milli(toInt64(${ms}), 'UTC')`;
const span = (from: number, to: number) => `timestamp BETWEEN ${time(from)} AND ${time(to)}`;
const SELECT = 'SELECT exchange, market_type, symbol, toString(trade_id) FROM';

/** Rows of these times. */
function at(stream: Stream, ...times: number[]): StreamArrivals {
  return arrivals(
    stream,
    times.map((timestamp, i) => trade(i, { ...stream, timestamp } as Partial<TradeRow>)),
  );
}

test('the look asks by primary key: a market’s symbols together, for the span in which they have rows', () => {
  const eth: Stream = { ...BTC, symbol: "E'TH\\USDT" };
  const okx: Stream = { ...BTC, exchange: 'okx_spot' };
  const streams = [at(BTC, 1795000000000, 1795000000005), at(eth, 1795000000008), at(okx, 1795000000009)];
  assert.equal(
    lookupQuery('trade', 'hot', streams),
    `${SELECT} hot.trades WHERE ` +
      "(exchange = 'binance_spot' AND market_type = 'spot' AND symbol IN ('BTC-USDT', 'E\\'TH\\\\USDT') AND " +
      `${span(1795000000000, 1795000000008)}) OR ` +
      "(exchange = 'okx_spot' AND market_type = 'spot' AND symbol IN ('BTC-USDT') AND " +
      `${span(1795000000009, 1795000000009)})`,
  );
});

test('rows far from the rest are looked up in a span of their own, of their own symbols; in cold only what is old enough', () => {
  const eth: Stream = { ...BTC, symbol: 'ETH-USDT' };
  const streams = [at(BTC, 1795000000000, 1500000000000), at(eth, 1795000000999)];
  const market = "exchange = 'binance_spot' AND market_type = 'spot'";
  const old = `(${market} AND symbol IN ('BTC-USDT') AND ${span(1500000000000, 1500000000000)})`;
  assert.equal(
    lookupQuery('trade', 'hot', streams),
    `${SELECT} hot.trades WHERE ${old} OR (${market} AND symbol IN ('BTC-USDT', 'ETH-USDT') AND ${span(1795000000000, 1795000000999)})`,
  );
  assert.equal(lookupQuery('trade', 'cold', streams, 1600000000000), `${SELECT} cold.trades WHERE ${old}`);
  assert.equal(lookupQuery('trade', 'cold', streams, 1400000000000), null);
});

test('an insert is the text of its rows, whether all of a message are there or some', () => {
  const lines = [1, 2, 3].map((id) => trade(id, { data_source: 'repair:é{漢' }));
  const message = (seq: number, own: string[]) => [...read(BTC, own, seq).rows.values()];
  const [whole, part, broken] = [message(7, lines), message(8, lines).toSpliced(1, 1), message(9, ['{', lines[2]!])];
  const single = message(10, [lines[0]!]);
  const doubled = message(11, [lines[0]!, lines[0]!, lines[1]!]);
  const rows = [...whole, ...part, ...broken, ...single, ...doubled];
  const body = insertBody(rows);
  assert.equal(body.toString('latin1'), rows.map(lineOf).join(''));
  const text = (seq: number, line: string) => `{"js_epoch":3,"js_seq":${seq},${line.slice(1)}\n`;
  assert.deepEqual(
    body.toString(),
    [
      ...lines.map((line) => text(7, line)),
      ...[lines[0]!, lines[2]!].map((line) => text(8, line)),
      text(9, lines[2]!),
      text(10, lines[0]!),
      ...[lines[0]!, lines[1]!].map((line) => text(11, line)),
    ].join(''),
  );
  assert.equal(insertBody([]).length, 0);
});

test('what the look found is dropped from its own stream alone', () => {
  const eth: Stream = { ...BTC, symbol: 'ETH-USDT' };
  const streams = new Map([
    [streamKey('binance_spot', 'spot', 'BTC-USDT'), arrivals(BTC, [trade(1), trade(2)])],
    [
      streamKey('binance_spot', 'spot', 'ETH-USDT'),
      arrivals(
        eth,
        [1, 2].map((id) => trade(id, { symbol: 'ETH-USDT' })),
      ),
    ],
  ]);
  const found = [
    ['binance_spot', 'spot', 'BTC-USDT', '2'],
    ['binance_spot', 'spot', 'BTC-USDT', '9'],
    ['binance_spot', 'spot', 'ETH-USDT', '1'],
    ['okx_spot', 'spot', 'BTC-USDT', '1'],
  ];
  assert.equal(dropFound(streams, found), 2);
  assert.deepEqual(
    [...streams.values()].map(({ rows }) => [...rows.keys()]),
    [['1'], ['2']],
  );
});
