import assert from 'node:assert/strict';
import { test } from 'node:test';
import { deribitDerivatives } from '../scripts/exchanges/deribit.ts';
import { LiquidationSearch } from '../scripts/exchanges/deribit_liquidations.ts';
import { feedHarness } from './feed_harness.ts';

const MINUTE = 60_000;
const NOW = 1_795_000_000_000;
const BTC = deribitDerivatives.instrument('BTC-USDT', 'perpetual');

function spanOf(path: string): [number, number] {
  const { searchParams } = new URL(path, 'http://host');
  return [Number(searchParams.get('start_timestamp')), Number(searchParams.get('end_timestamp'))];
}

function trade(id: number, timestamp: number, more: object = {}) {
  return {
    trade_id: String(id),
    trade_seq: id,
    instrument_name: 'BTC-PERPETUAL',
    timestamp,
    price: 60000.5,
    amount: 10,
    direction: 'buy',
    ...more,
  };
}

test('the history is read again from three hours back on, span by span, as far as it is old enough', () => {
  const search = new LiquidationSearch('BTC-PERPETUAL', 75 * MINUTE);
  const spans: [number, number][] = [];
  for (let path = search.due(NOW); path !== null; path = search.due(NOW)) {
    assert.equal(search.due(NOW + 1000), path, 'the same until it is answered');
    spans.push(spanOf(path));
    search.answered(null, false);
  }
  const oldest = NOW - 255 * MINUTE;
  assert.deepEqual(
    spans,
    Array.from({ length: 18 }, (_, index) => [oldest + index * 10 * MINUTE, oldest + (index + 1) * 10 * MINUTE]),
  );
  assert.equal(search.due(NOW + 10 * MINUTE - 1), null);
  assert.deepEqual(spanOf(search.due(NOW + 10 * MINUTE)!), [NOW - 75 * MINUTE, NOW - 65 * MINUTE]);
});

test('an answer that is full is followed by a request from its last trade on, and always gets on', () => {
  const search = new LiquidationSearch('BTC-PERPETUAL', 75 * MINUTE);
  const [start] = spanOf(search.due(NOW)!);
  search.answered(start + 5000, true);
  assert.equal(spanOf(search.due(NOW)!)[0], start + 5000);
  search.answered(start + 5000, true);
  assert.equal(spanOf(search.due(NOW)!)[0], start + 5001, 'a whole answer within one millisecond');
});

test('trades that are read again give their liquidations only; what was not asked for so gives both', () => {
  const { feed, rest, of, rows } = feedHarness(deribitDerivatives, NOW * 1000, { instruments: [BTC] });
  assert.deepEqual(feed.requests(), [], 'without a frame there is no time');
  feed.frame('{"jsonrpc":"2.0","method":"heartbeat","params":{"type":"heartbeat"}}', NOW * 1000, {
    row: () => assert.fail('no row'),
    event: () => undefined,
  });
  const [request] = feed.requests();
  const [start] = spanOf(request!.path);
  const trades = [trade(1, start + 1), trade(2, start + 2, { liquidation: 'T' })];
  assert.equal(rest(request!.path, { result: { trades, has_more: false } }), true);
  assert.deepEqual(
    rows.map(({ type }) => type),
    ['liquidation'],
  );
  assert.equal(of('liquidation')[0]!.liquidation_id, '2');
  assert.notEqual(feed.requests()[0]!.path, request!.path);
  rest(request!.path, { result: { trades, has_more: false } });
  assert.equal(of('trade').length, 2);
});

test('an error in place of an answer leaves the request due', () => {
  const { feed, rest, frame, told } = feedHarness(deribitDerivatives, NOW * 1000, { instruments: [BTC] });
  frame('{"jsonrpc":"2.0","method":"heartbeat","params":{"type":"heartbeat"}}');
  const [request] = feed.requests();
  assert.equal(rest(request!.path, { error: { code: 10028, message: 'too_many_requests' } }), false);
  assert.match(told('rejected')[0]!.reason, /answered an error/);
  assert.equal(feed.requests()[0]!.path, request!.path);
});

test('candles of the volatility index are asked for each minute, finished ones only', () => {
  const polls = deribitDerivatives.polls!([BTC, deribitDerivatives.instrument('SOL-USDT', 'perpetual')]);
  assert.deepEqual(
    polls.map(({ type, instrument, cron }) => [type, instrument!.instrument, cron]),
    [['volatility_index', 'btc_usd', '5 * * * * *']],
  );
  const { path } = polls[0]!;
  assert.ok(typeof path === 'function');
  const at = Math.floor(NOW / MINUTE) * MINUTE + 5000;
  assert.deepEqual(spanOf(path(at)), [at - 5000 - 900 * MINUTE, at - 5000], 'at a start, what nobody asked for');
  assert.deepEqual(spanOf(path(at)), [at - 5000 - 10 * MINUTE, at - 5000]);
  const { rest, of, told } = feedHarness(deribitDerivatives, at * 1000, { instruments: [BTC] });
  const candle = (time: number, close: number) => [time, 40, 41, 39, close];
  rest(path(at), {
    result: { data: [candle(at - 5000 - MINUTE, 40.5), candle(at - 5000, 40.7)], continuation: null },
  });
  assert.deepEqual(
    of('volatility_index').map((row) => [row.timestamp, row.index_value, row.resolution]),
    [[at - 5000 - MINUTE, '40.5', '60']],
  );
  assert.deepEqual(
    told('ignored').map(({ reason }) => reason),
    ['unfinished candle'],
  );
});
