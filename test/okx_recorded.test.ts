import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { okxDerivatives, okxSpot } from '../scripts/exchanges/okx.ts';
import type { DataType, OpenInterestRow, OrderbookUpdateRow, Rows } from '../scripts/lib/rows.ts';
import { canonical, missing } from './fixtures.ts';
import { harness, level, listed, NOW, snapshot, TRADE, trades } from './okx_frames.ts';

const SHARED = join(import.meta.dirname, '..', '..', 'shared', 'fixtures');
const CRYPTOFEED = join(SHARED, 'cryptofeed', 'okx', 'OKX.ws.1.0');
const CRYPTOFEED_LISTS = join(SHARED, 'cryptofeed', 'okx', 'OKX.0');
const MSG_PARSER = join(SHARED, 'crypto-msg-parser', 'okx', 'messages.jsonl');
const NAUTILUS = join(SHARED, 'nautilus_trader', 'okx');
const RECENT = join(SHARED, 'recent-2026');

/** The venue’s frames of a recorded session, `seconds: raw`; lines that open with a URL are what was sent to it. */
function cryptofeedFrames(): { at: number; raw: string }[] {
  return readFileSync(CRYPTOFEED, 'utf8')
    .split('\n')
    .flatMap((line) => {
      const match = /^([\d.]+): (\{.*)$/.exec(line);
      return match ? [{ at: Math.round(Number(match[1]) * 1e6), raw: match[2]! }] : [];
    });
}

/** The recorded session through both feeds, each given its own market's frames, after the recorded instrument lists. */
function replayCryptofeed(change: (raw: string) => string = (raw) => raw) {
  const spot = harness(okxSpot);
  const contracts = harness(okxDerivatives, { list: null });
  for (const line of readFileSync(CRYPTOFEED_LISTS, 'utf8').split('\n')) {
    const match = /^https:\/\/[^/]+(\S+) -> [\d.]+: (.*)$/.exec(line);
    if (match) contracts.feed.rest(match[1]!, JSON.parse(match[2]!), NOW, contracts.out);
  }
  assert.deepEqual(contracts.events, []);
  for (const { at, raw } of cryptofeedFrames()) {
    const run = raw.includes('"instId":"BTC-USDT"') ? spot : contracts;
    run.frame(change(raw), at);
  }
  return { spot, contracts, frames: cryptofeedFrames() };
}

test('the recorded session: the venue’s checksum holds for 290 of 290 books, and each of 74 trades is a row', {
  skip: missing(CRYPTOFEED),
}, () => {
  const { spot, contracts, frames } = replayCryptofeed();
  const books = [...spot.of('orderbook'), ...contracts.of('orderbook')];
  assert.equal(books.length, 290);
  assert.ok(books.every((row) => row.verified === 'verified'));
  const updates = [...spot.of('orderbook_update'), ...contracts.of('orderbook_update')];
  assert.equal(updates.length, 290);
  assert.equal(updates.filter((row) => row.is_snapshot).length, 3);
  for (const { events } of [spot, contracts]) {
    assert.deepEqual(
      events.filter((event) => event.kind !== 'ignored' && event.kind !== 'ack'),
      [],
    );
  }
  assert.ok(spot.of('orderbook').every((row) => row.bids.length === 400 && row.asks.length === 400));
  const sent = frames
    .map(({ raw }) => JSON.parse(raw))
    .filter((frame) => frame.arg?.channel === 'trades' && frame.data)
    .flatMap((frame) => frame.data);
  assert.equal(sent.length, 74);
  const rows = [...spot.of('trade'), ...contracts.of('trade')];
  assert.equal(rows.length, 74);
  // 1 contract of BTC-USD-220527 is worth 100 USD, one of UNI-USD-SWAP 10 USD.
  const worth: Record<string, number> = { 'BTC-USD-220527': 100, 'UNI-USD-SWAP': 10 };
  for (const trade of sent) {
    const row = rows.find((each) => each.instrument === trade.instId && each.trade_id === trade.tradeId);
    assert.deepEqual([row!.price, row!.side, row!.timestamp], [trade.px, trade.side, Number(trade.ts)]);
    const usd = worth[trade.instId];
    if (usd === undefined) assert.equal(row!.quantity, trade.sz);
    else assertNear(Number(row!.quantity), (usd * Number(trade.sz)) / Number(trade.px), trade.tradeId);
  }
});

test('one changed size in the recorded session is found by the checksum of its own frame', {
  skip: missing(CRYPTOFEED),
}, () => {
  let changed = 0;
  const { spot, contracts } = replayCryptofeed((raw) => {
    if (!raw.includes('"update"') || !raw.includes('"BTC-USDT"') || changed > 0) return raw;
    const frame = JSON.parse(raw);
    const [first] = frame.data[0].bids;
    if (first === undefined || first[1] === '0') return raw;
    first[1] = `${first[1]}1`;
    changed += 1;
    return JSON.stringify(frame);
  });
  assert.equal(changed, 1);
  const resyncs = spot.events.filter((event) => event.kind === 'resync');
  assert.deepEqual(
    resyncs.map((event) => event.kind === 'resync' && event.cause),
    ['checksum'],
  );
  assert.equal(spot.of('orderbook_update').length, 98);
  assert.ok(spot.of('orderbook').length < 98);
  assert.equal(contracts.of('orderbook').length, 192);
});

function assertNear(actual: number, expected: number, what: string): void {
  assert.ok(Math.abs(actual - expected) <= Math.abs(expected) * 1e-9, `${what}: ${actual} is not ${expected}`);
}

/** The value of what another project's tests assert: `2.0 * 0.01`, `round(100.0 * 145.0 / 43726.4)`, `43666.1`. */
function rustNumber(expression: string): number {
  const [first, ...rest] = expression.replace(/^(?:round|Some)\((.*)\)$/, '$1').split(/ (?=[*/] )/);
  return rest.reduce((value, part) => {
    const operand = Number(part.slice(2));
    return part.startsWith('*') ? value * operand : value / operand;
  }, Number(first));
}

interface ParserMessage {
  type: string;
  market: string;
  test: string;
  raw: { arg?: { channel: string }; data: unknown[] } & Record<string, unknown>;
  rustAsserts: string[];
}

/** What those asserts call the members of a row. */
function memberOf(row: Rows[DataType], name: string): unknown {
  const ladder = /^(bids|asks)(?:\[(\d+)\]\.(price|quantity_base)|\.len\(\))$/.exec(name);
  if (ladder) {
    const levels = (row as OrderbookUpdateRow)[ladder[1] as 'bids' | 'asks'];
    return ladder[2] === undefined ? levels.length : levels[Number(ladder[2])]![ladder[3] === 'price' ? 0 : 1];
  }
  const members = row as unknown as Record<string, unknown>;
  return members[name === 'quantity_base' ? 'quantity' : name];
}

test('what another project asserts of 19 recorded messages of all markets holds of our rows', {
  skip: missing(MSG_PARSER),
}, () => {
  const messages = readFileSync(MSG_PARSER, 'utf8')
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as ParserMessage);
  const list = {
    code: '0',
    data: [
      ...['BTC-USDT-SWAP', 'BTC-USDT-220325'].map((id) => listed(id, '0.01', 'BTC', 'linear')),
      ...['BTC-USD-SWAP', 'BTC-USD-220325'].map((id) => listed(id, '100', 'USD', 'inverse')),
      listed('BTC-USD-220304-32000-P', '1', 'BTC', ''),
    ],
  };
  const table: Record<string, DataType> = {
    trade: 'trade',
    l2_event: 'orderbook_update',
    funding_rate: 'funding_rate',
    open_interest: 'open_interest',
  };
  let stored = 0;
  let checked = 0;
  const others: Record<string, number> = {};
  for (const { type, market, test: name, raw, rustAsserts } of messages) {
    const run = harness(market === 'Spot' ? okxSpot : okxDerivatives, { list: market === 'Spot' ? null : list });
    const table_ = table[type];
    if (table_ === undefined) {
      if (raw.code === undefined) run.frame(raw);
      else run.feed.rest('/api/v5/market/books?instId=BTC-USDT', raw, NOW, run.out);
      assert.deepEqual(run.rows, [], name);
      for (const event of run.events) others[`${type} ${event.kind}`] = (others[`${type} ${event.kind}`] ?? 0) + 1;
      continue;
    }
    stored += 1;
    if (type === 'open_interest') run.feed.rest('/api/v5/public/open-interest?instType=SWAP', raw, NOW, run.out);
    else run.frame(raw);
    const rows = run.of(table_);
    assert.equal(rows.length, raw.data.length, name);
    assert.ok(!run.kinds().includes('rejected'), name);
    for (const [index, row] of rows.entries()) {
      const sent = raw.data[index] as Record<string, string>;
      if (type === 'open_interest') {
        const { open_interest, contracts, timestamp } = row as OpenInterestRow;
        assert.deepEqual([open_interest, contracts, timestamp], [sent.oiCcy, sent.oi, Number(sent.ts)]);
        checked += 3;
      }
    }
    for (const line of rustAsserts) {
      const match = /^(?:trade|orderbook|funding_rates\[0\])\.([\w.[\]()]+), (.*)$/.exec(line);
      if (!match || /quote|contract|estimated|pair|symbol|seq_id/.test(match[1]!)) continue;
      // Their time of a reading without one is its arrival; ours the minute of it.
      const expected = match[2] === 'received_at' ? String(Math.floor(NOW / 60_000_000) * 60_000) : match[2]!;
      const value = memberOf(rows[0]!, match[1]!);
      const side = /^TradeSide::(\w+)$/.exec(expected);
      if (side) assert.equal(value, side[1]!.toLowerCase(), `${name} ${line}`);
      else assertNear(Number(value), rustNumber(expected), `${name} ${line}`);
      checked += 1;
    }
  }
  assert.deepEqual({ stored, checked }, { stored: 19, checked: 96 });
  assert.deepEqual(others, {
    'l2_topk ignored': 6,
    // A frame of the API before the present one.
    'l2_topk rejected': 1,
    'bbo ignored': 6,
    'candlestick ignored': 6,
    'ticker ignored': 6,
    'l2_snapshot rejected': 6,
  });
});

test('the shapes of another project’s documentation examples: units of every contract, both ways of trades, funding', {
  skip: missing(NAUTILUS),
}, () => {
  const read = (name: string) => JSON.parse(readFileSync(join(NAUTILUS, name), 'utf8'));
  const run = harness(okxDerivatives, { list: read('http_get_instruments_swap.json') });
  for (const kind of ['option', 'spot']) {
    run.feed.rest('/api/v5/public/instruments', read(`http_get_instruments_${kind}.json`), NOW, run.out);
  }
  run.frame(read('ws_instruments.json'));
  run.frame(read('ws_funding_rate.json'));
  assert.deepEqual(run.events, []);
  const [funding] = run.of('funding_rate');
  assert.deepEqual(
    [funding!.funding_rate, funding!.funding_interval_hours, funding!.funding_time],
    ['0.0001', '8', 1744590349506],
  );
  run.frame(trades('trades-all', { ...TRADE, instId: 'BTC-USD-241217-92000-C', sz: '3', px: '0.01' }));
  assert.equal(run.of('trade')[0]!.quantity, '0.03');

  const spot = harness(okxSpot);
  spot.frame(read('ws_trades.json'));
  spot.feed.rest('/api/v5/market/trades?instId=BTC-USDT', read('http_get_trades.json'), NOW, spot.out);
  assert.deepEqual(
    spot.of('trade').map((row) => [row.trade_id, row.quantity, row.side]),
    [
      ['130639474', '0.12060306', 'buy'],
      ['734864333', '0.00013669', 'sell'],
      ['734864332', '0.0000125', 'buy'],
    ],
  );
  for (const name of ['ws_tickers.json', 'ws_candle.json', 'ws_bbo_tbt.json']) spot.frame(read(name));
  assert.deepEqual(spot.kinds(), ['ignored', 'ignored', 'ignored']);
  // The document's checksum is of another book than the one it shows.
  spot.frame(read('ws_books_snapshot.json'));
  assert.equal(spot.of('orderbook_update').length, 1);
});

test('frames of 2026: checksum 0, an unbroken chain, an empty next rate, digits that no double holds', {
  skip: missing(join(RECENT, 'okx-trades.jsonl')),
}, () => {
  const run = harness(okxDerivatives);
  const spot = harness(okxSpot);
  const files = readdirSync(RECENT).filter((name) => name.startsWith('okx-'));
  const sent = files.flatMap((name) =>
    readFileSync(join(RECENT, name), 'utf8')
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line).raw),
  );
  assert.equal(sent.length, 12);
  // The recording has no snapshot: one is put before the first update.
  run.frame(
    snapshot('BTC-USDT-SWAP', {
      bids: [level('84093.4', '1')],
      asks: [level('84200', '1')],
      seqId: 342177337420,
    }),
  );
  for (const frame of sent)
    (frame.arg.instId === 'BTC-USDT' && frame.arg.channel === 'trades' ? spot : run).frame(frame);
  assert.deepEqual(
    run.events.map((event) => (event.kind === 'ignored' ? event.reason : event)),
    ['mark-price', 'index-tickers'],
  );
  assert.equal(run.of('orderbook_update').length, 6);
  assert.deepEqual(
    run.of('orderbook').map((row) => row.verified),
    Array.from({ length: 6 }, () => 'unverifiable'),
  );
  assert.deepEqual(
    run.of('open_interest').map((row) => [row.symbol, row.contracts]),
    [
      ['BTC-USDT', '2874486.99000000925'],
      ['ETH-USDT', '5836712.8300000185'],
    ],
  );
  const [funding] = run.of('funding_rate');
  assert.deepEqual([funding!.funding_rate, funding!.funding_interval_hours], ['0.0000252378080097', '8']);
  assert.deepEqual([run.of('trade')[0]!.quantity, run.of('trade')[0]!.trade_id], ['0.2431', '2953620280']);
  assert.equal(canonical(spot.of('trade')[0]!.quantity), '0.00240857');
});
