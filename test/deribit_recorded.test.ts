/** The feed of Deribit on recorded sessions, and on recordings, asserts and documents of other projects. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { divide } from '../scripts/lib/arithmetic.ts';
import { quoteLongNumbers } from '../scripts/lib/json_numbers.ts';
import { harness, NOW } from './deribit_frames.ts';
import { missing, SHARED } from './fixtures.ts';

const RECORDED = join(SHARED, 'cryptofeed', 'deribit', 'DERIBIT.ws.1.0');
const LISTS = join(SHARED, 'cryptofeed', 'deribit', 'DERIBIT.0');
const PARSER = join(SHARED, 'crypto-msg-parser', 'deribit', 'messages.jsonl');
const NAUTILUS = join(SHARED, 'nautilus_trader', 'deribit');
const RECENT = join(SHARED, 'recent-2026', 'deribit.jsonl');

/** Frames of a recorded session, `<seconds>: <raw>` a line. */
function recordedFrames(path: string): string[] {
  return readFileSync(path, 'utf8')
    .split('\n')
    .flatMap((line) => {
      const match = /^\d+\.\d+: (?:b'(.*)'|(.*))$/.exec(line);
      return match ? [match[1] ?? match[2]!] : [];
    });
}

/** Instrument lists of a recorded session, `<url> -> <seconds>: <JSON>` a line. */
function recordedLists(path: string): { url: string; body: unknown }[] {
  return readFileSync(path, 'utf8')
    .split('\n')
    .flatMap((line) => {
      const match = /^(\S+) -> [\d.]+: (.*)$/.exec(line);
      return match ? [{ url: match[1]!, body: JSON.parse(match[2]!) }] : [];
    });
}

test('the recorded session: 10 snapshots, the chain of ids unbroken at 36 of 36 changes, 89 tickers', {
  skip: missing(RECORDED),
}, () => {
  const { feed, out, of, events, told } = harness();
  for (const { url, body } of recordedLists(LISTS)) feed.rest(url, body, NOW, out);
  assert.deepEqual(events, []);
  const frames = recordedFrames(RECORDED);
  const tickers = frames.filter((each) => each.includes('"channel":"ticker.')).map((each) => JSON.parse(each));
  assert.equal(tickers.length, 89);
  for (const each of frames) feed.frame(each, NOW, out);
  const updates = of('orderbook_update');
  assert.equal(updates.length, 46);
  assert.equal(updates.filter((row) => row.is_snapshot).length, 10);
  const last = new Map<string, unknown>();
  let chained = 0;
  for (const row of updates) {
    if (!row.is_snapshot && last.get(row.symbol) === row.prev_update_id) chained += 1;
    last.set(row.symbol, row.last_update_id);
  }
  assert.equal(chained, 36);
  assert.deepEqual(told('resync'), []);
  assert.deepEqual(told('rejected'), []);
  const empty = told('ignored').filter((event) => event.reason === 'book with an empty side').length;
  assert.equal(of('orderbook').length + empty, 46);
  // Every instrument and minute once; the value of an option's open interest is as told.
  const interest = new Map<string, string>();
  for (const { params } of tickers) {
    const key = `${params.data.instrument_name} ${Math.floor(params.data.timestamp / 60_000)}`;
    if (!interest.has(key)) interest.set(key, String(params.data.open_interest));
  }
  assert.deepEqual(
    of('open_interest').map((row) => row.open_interest),
    [...interest.values()],
  );
});

test('a change deleted from the recorded session is noticed at the next one, and asks for that channel alone', {
  skip: missing(RECORDED),
}, () => {
  const frames = recordedFrames(RECORDED);
  const changes = frames.filter(
    (each) => each.includes('"channel":"book.BTC-24SEP21-8000-P') && each.includes('"change"'),
  );
  const { frame, told } = harness();
  for (const each of frames) if (each !== changes[5]) frame(each);
  assert.equal(told('resync').length, 1);
  const [resync] = told('resync');
  assert.deepEqual(
    [resync!.cause, resync!.last, resync!.next],
    ['gap', JSON.parse(changes[4]!).params.data.change_id, JSON.parse(changes[6]!).params.data.change_id],
  );
  assert.deepEqual(told('resubscribe')[0]!.channels, ['book.BTC-24SEP21-8000-P.raw']);
});

interface ParserCase {
  type: string;
  test: string;
  raw: { method?: string; params: { channel: string; data: unknown }; result: unknown };
  rustAsserts: string[];
}

test('another project’s asserts hold: prices, sides, times, ids, and quantities, which it counts tenfold where inverse', {
  skip: missing(PARSER),
}, () => {
  const cases = readFileSync(PARSER, 'utf8')
    .trim()
    .split('\n')
    .map((line): ParserCase => JSON.parse(line));
  const checked: Record<string, number> = {};
  for (const { type, test: name, raw, rustAsserts } of cases) {
    const { frame, of, events } = harness();
    frame(raw);
    const [first] = type === 'trade' ? of('trade') : of('orderbook_update');
    if (!first) {
      const kind = events[0]?.kind;
      assert.ok(
        type === 'ticker' || kind === 'ignored' || raw.method === undefined,
        `${name}: ${JSON.stringify(events)}`,
      );
      continue;
    }
    const values: Record<string, unknown> = {
      'trades.len()': of('trade').length,
      'orderbook.timestamp': first.timestamp,
    };
    for (const [index, row] of of('trade').entries()) {
      values[`trades[${index}].price`] = row.price;
      values[`trades[${index}].quantity_base`] = row.quantity;
      values[`trades[${index}].side`] = row.side;
      values['trade.side'] = row.side;
    }
    const [update] = of('orderbook_update');
    if (update) {
      values['orderbook.seq_id'] = update.last_update_id;
      values['orderbook.prev_seq_id'] = update.prev_update_id;
      values['orderbook.asks.len()'] = update.asks.length;
      values['orderbook.bids.len()'] = update.bids.length;
      // It keeps the order of the message.
      const data = (raw.params as { data: Record<string, unknown[][]> }).data;
      for (const side of ['bids', 'asks'] as const) {
        for (const [index, level] of data[side]!.entries()) {
          const ours = update[side].find(([price]) => Number(price) === level[1]);
          values[`orderbook.${side}[${index}].price`] = ours?.[0];
          values[`orderbook.${side}[${index}].quantity_base`] = ours?.[1];
        }
      }
    }
    for (const each of rustAsserts) {
      const [left, right] = each.split(/, (.*)/s) as [string, string];
      if (/^\d{13}$/.test(left)) {
        assert.equal(first.timestamp, Number(left), name);
        checked.time = (checked.time ?? 0) + 1;
      }
      if (!(left in values)) continue;
      const kind = left.replace(/.*\./, '');
      // It takes USD for contracts of 10 USD; the venue's own `contracts` in trades of today is amount ÷ 10.
      const division = /^(?:10\.0 \* )?([\d.]+) \/ ([\d.]+)$/.exec(right);
      const side = /^TradeSide::(\w+)$/.exec(right);
      if (division) assert.equal(values[left], divide(division[1]!, division[2]!), `${name} ${left}`);
      else if (side) assert.equal(values[left], side[1]!.toLowerCase(), name);
      else if (right === 'None') assert.equal(values[left], null, name);
      else assert.equal(Number(values[left]), Number(right.replace(/^Some\((.*)\)$/, '$1')), `${name} ${left}`);
      checked[kind] = (checked[kind] ?? 0) + 1;
    }
  }
  assert.deepEqual(checked, {
    'len()': 13,
    time: 8,
    timestamp: 5,
    seq_id: 5,
    prev_seq_id: 5,
    price: 21,
    quantity_base: 23,
    side: 4,
  });
});

test('frames of another project’s documents are all understood', { skip: missing(NAUTILUS) }, () => {
  const file = (name: string) => JSON.parse(readFileSync(join(NAUTILUS, name), 'utf8'));
  const { frame, rest, of, told, take } = harness();
  rest('get_instruments?currency=any', file('http_get_instruments.json'));
  rest('get_instrument?instrument_name=BTC-PERPETUAL', file('http_get_instrument.json'));
  rest('get_instrument?instrument_name=BTC-27DEC24-100000-C', file('http_get_instrument_option.json'));
  rest('get_last_trades_by_instrument_and_time?instrument_name=ETH-PERPETUAL', file('http_get_last_trades.json'));
  const sequences = of('trade').map((row) => row.sequence as number);
  assert.equal(sequences.length, file('http_get_last_trades.json').result.trades.length);
  assert.ok(sequences.every((each, index) => index === 0 || each === sequences[index - 1]! + 1));
  assert.deepEqual(
    [of('trade')[0]!.trade_id, of('trade')[0]!.symbol, of('trade')[0]!.quantity],
    ['ETH-284830839', 'ETH-USD', divide('1', '2968.3')],
  );
  rest('get_last_trades_by_instrument', file('http_get_last_trades_historical_combo.json'));
  frame(file('ws_trades_option_combo.json'));
  assert.deepEqual(
    of('trade')
      .slice(-2)
      .map((row) => [row.trade_id, row.market_type, row.quantity]),
    [
      ['999000000', 'options', '0.1'],
      ['244365193', 'options', '0.1'],
    ],
  );
  frame(file('ws_trades.json'));
  frame(file('ws_book_snapshot.json'));
  frame(file('ws_book_delta.json'));
  frame(file('ws_ticker.json'));
  frame(file('ws_volatility_index.json'));
  rest('get_order_book?instrument_name=BTC-PERPETUAL', file('http_get_order_book.json'));
  assert.equal(of('orderbook_update').length, 2);
  assert.equal(of('orderbook')[1]!.best_bid_quantity, divide('950', '42500'));
  assert.equal(of('orderbook')[1]!.best_ask_price, '42501.5');
  assert.deepEqual(
    of('funding_rate').map((row) => row.funding_rate),
    ['0.00001742', '0.00000655'],
  );
  assert.deepEqual(
    of('open_interest').map((row) => [row.open_interest_value, row.contracts]),
    [
      ['1132329370', '113232937'],
      ['1139551440', '113955144'],
    ],
  );
  assert.equal(of('volatility_index')[0]!.index_value, '129.36');
  assert.deepEqual(told('rejected'), []);
  take();
  for (const name of ['ws_book_grouped_snapshot', 'ws_chart', 'ws_quote']) frame(file(`${name}.json`));
  for (const name of ['ws_error', 'ws_subscribe_response', 'ws_test_request']) frame(file(`${name}.json`));
  assert.deepEqual(
    take().events.map((event) => event.kind),
    ['ignored', 'ignored', 'ignored', 'ack', 'ack', 'reply'],
  );
});

test('frames of 2026: an id above 2^53 beside the trade, and a chain of book messages', {
  skip: missing(RECENT),
}, () => {
  const raws = readFileSync(RECENT, 'utf8')
    .trim()
    .split('\n')
    .map((line) => line.slice(line.indexOf('"raw":') + 6, -1));
  assert.ok(quoteLongNumbers(raws[0]!).endsWith('"starbase_timestamp":"1786563104514208300"}'));
  const { frame, of, told } = harness();
  const wrapped = (channel: string, raw: string) =>
    `{"jsonrpc":"2.0","method":"subscription","params":{"channel":"${channel}","data":${raw}}}`;
  frame(wrapped('trades.BTC-PERPETUAL.100ms', `[${raws[0]}]`));
  // The changes are excerpts that leave their times out.
  for (const raw of raws.slice(1)) {
    const timed = raw.includes('timestamp') ? raw : raw.replace('{', '{"timestamp":1789344931000,');
    frame(wrapped('book.BTC-15SEP26-77000-C.100ms', timed));
  }
  assert.deepEqual(
    of('trade').map((row) => [row.trade_id, row.sequence, row.quantity]),
    [['440192723', 296152987, divide('20', '63344.5')]],
  );
  assert.deepEqual(
    of('orderbook').map((row) => [row.last_update_id, row.best_bid_price, row.best_bid_quantity]),
    [
      [118850965713, '0.0065', '10'],
      [118850980778, '0.0065', '10'],
      [118850986161, '0.0065', '40'],
    ],
  );
  assert.deepEqual([...told('resync'), ...told('rejected')], []);
});
