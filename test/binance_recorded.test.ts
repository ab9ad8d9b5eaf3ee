import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { binanceDerivatives, binanceSpot } from '../scripts/exchanges/binance.ts';
import type { DataType, Level, Rows } from '../scripts/lib/rows.ts';
import { feedHarness } from './feed_harness.ts';
import { missing, SHARED } from './fixtures.ts';

const MSG_PARSER = join(SHARED, 'crypto-msg-parser', 'binance', 'messages.jsonl');
/** Asserts that are about members of ours. */
const CHECKED = 84;
const NOW = 1_654_336_900_000_000;
/** Inverse contracts are COIN-M, and options a venue of their own: neither is collected. */
const MARKETS = new Map([
  ['Spot', binanceSpot],
  ['LinearSwap', binanceDerivatives],
  ['LinearFuture', binanceDerivatives],
]);
const TYPES: Record<string, DataType> = {
  trade: 'trade',
  l2_event: 'orderbook_update',
  l2_snapshot: 'orderbook_update',
  funding_rate: 'funding_rate',
};

interface Message {
  type: string;
  market: string;
  test: string;
  raw: { data?: Record<string, unknown> | Record<string, unknown>[] } & Record<string, unknown>;
  rustAsserts: string[];
}

/** Their funding time is the settlement that comes. */
const NAMES: Record<string, string> = {
  quantity_base: 'quantity',
  seq_id: 'last_update_id',
  prev_seq_id: 'prev_update_id',
  funding_time: 'next_funding_time',
};

/** What those asserts call the members of a row. Levels come in the wire's order there and best first here, so they are found by price. */
function memberOf(row: Rows[DataType], name: string, asserts: string[]): unknown {
  const values = row as unknown as Record<string, unknown>;
  const length = /^(bids|asks)\.len\(\)$/.exec(name);
  if (length) return (values[length[1]!] as Level[]).length;
  const level = /^((bids|asks)\[\d+\]\.)(price|quantity_base)$/.exec(name);
  if (!level) return values[NAMES[name] ?? name];
  const told = asserts.find((line) => line.startsWith(`orderbook.${level[1]}price, `))!.split(', ')[1];
  const found = (values[level[2]!] as Level[]).find(([price]) => Number(price) === Number(told));
  return found?.[level[3] === 'price' ? 0 : 1];
}

/** The rows of one message; a diff gets a snapshot to stand on, a snapshot a diff that stands on it. */
function rowsOf(message: Message, type: DataType): Rows[DataType][] {
  const module = MARKETS.get(message.market)!;
  const { frame, rest, of } = feedHarness(module, NOW);
  const depth = module === binanceSpot ? '/api/v3/depth' : '/fapi/v1/depth';
  const symbol = message.market === 'LinearFuture' ? 'BTCUSDT_220624' : 'BTCUSDT';
  if (message.type === 'l2_event') {
    const { U, s } = message.raw.data as { U: number; s: string };
    frame(message.raw);
    rest(`${depth}?symbol=${s}&limit=1000`, { lastUpdateId: U, bids: [['1', '1']], asks: [['999999', '1']] });
    return of(type).filter((row) => !(row as Rows['orderbook_update']).is_snapshot);
  }
  if (message.type === 'l2_snapshot') {
    const id = message.raw.lastUpdateId as number;
    const diff = {
      e: 'depthUpdate',
      E: 1654232606707,
      T: 1654232606700,
      s: symbol,
      U: id,
      u: id + 1,
      pu: id - 1,
      b: [],
      a: [],
    };
    frame({ stream: `${symbol.toLowerCase()}@depth@100ms`, data: diff });
    rest(`${depth}?symbol=${symbol}&limit=1000`, message.raw);
    return of(type).filter((row) => (row as Rows['orderbook_update']).is_snapshot);
  }
  frame(message.raw);
  return of(type);
}

test('what another project asserts of recorded messages of spot and linear contracts holds of our rows', {
  skip: missing(MSG_PARSER),
}, () => {
  const messages = readFileSync(MSG_PARSER, 'utf8')
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as Message);
  let checked = 0;
  const stored: string[] = [];
  for (const message of messages) {
    const type = TYPES[message.type];
    // Spot's aggregates have ids of their own; its single trades are what is stored.
    if (!type || !MARKETS.has(message.market) || message.test === 'trade::spot') continue;
    const rows = rowsOf(message, type);
    assert.ok(rows.length > 0, message.test);
    stored.push(message.test);
    for (const line of message.rustAsserts) {
      const match = /^(?:trade|orderbook|funding_rates\[(\d)\])\.([\w.[\]()]+), (.*)$/.exec(line);
      if (!match || /quote|contract|estimated|pair|symbol/.test(match[2]!)) continue;
      const [, place, name, told] = match as unknown as [string, string | undefined, string, string];
      // A snapshot that tells no time has that of the diff it was met by.
      if (told.startsWith('received_at') || (message.type.startsWith('l2') && name === 'timestamp')) continue;
      const value = memberOf(rows[Number(place ?? 0)]!, name, message.rustAsserts);
      const expected = /^Some\((.*)\)$/.exec(told)?.[1] ?? told;
      const side = /^TradeSide::(\w+)$/.exec(expected);
      // The venue sends no previous id there.
      if (expected === 'None') assert.equal(value, null, `${message.test} ${line}`);
      else if (side) assert.equal(value, side[1]!.toLowerCase(), `${message.test} ${line}`);
      else assert.equal(Number(value), Number(expected), `${message.test} ${line}`);
      checked += 1;
    }
  }
  assert.deepEqual(stored, [
    'trade::linear_future',
    'trade::linear_swap',
    'funding_rate::linear_swap',
    'funding_rate::linear_swap_all',
    'l2_event::spot',
    'l2_event::linear_future',
    'l2_event::linear_swap',
    'l2_snapshot::spot',
    'l2_snapshot::linear_future',
    'l2_snapshot::linear_swap',
  ]);
  assert.equal(checked, CHECKED);
});

test('open interest of recorded answers, to the last digit', { skip: missing(MSG_PARSER) }, () => {
  const messages = readFileSync(MSG_PARSER, 'utf8')
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as Message);
  const linear = messages.filter(({ type, market }) => type === 'open_interest' && market.startsWith('Linear'));
  const rows = linear.map(({ raw }) => {
    const { rest, of } = feedHarness(binanceDerivatives, NOW);
    rest(`/fapi/v1/openInterest?symbol=${raw.symbol}`, raw);
    const [row] = of('open_interest');
    return [row!.market_type, row!.symbol, row!.open_interest, row!.timestamp];
  });
  assert.deepEqual(rows, [
    ['futures', 'BTCUSDT_220624', '1275.028', 1654336785074],
    ['perpetual', 'BTC-USDT', '84617.188', 1654336844754],
  ]);
});
