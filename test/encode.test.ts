import assert from 'node:assert/strict';
import { test } from 'node:test';
import { binanceDerivatives, binanceSpot } from '../scripts/exchanges/binance.ts';
import { scanDiff, scanTrade } from '../scripts/exchanges/binance_text.ts';
import { decimalNumber } from '../scripts/lib/decimal.ts';
import type { ExchangeModule } from '../scripts/lib/exchange.ts';
import { encodeByColumns, encodeRow, type OrderbookUpdateRow, type TradeRow, ValueError } from '../scripts/lib/rows.ts';
import { scanLevels, sortedLevels } from '../scripts/lib/wire.ts';
import { missing, RECORDED, readSession } from './fixtures.ts';

const NOW = 1723161255_400_000;

/** Frames of each shape that is read without JSON.parse. */
const FRAMES = [
  '{"stream":"btcusdt@trade","data":{"e":"trade","E":1723161255343,"s":"BTCUSDT","t":3735683259,"p":"61837.63000000","q":"0.02000000","T":1723161255342,"m":true,"M":true}}',
  '{"stream":"ethusdt@trade","data":{"e":"trade","E":1723161256560,"T":1723161256559,"s":"ETHUSDT","t":4308068523,"p":"2681.62","q":"1","X":"MARKET","m":false}}',
  '{"stream":"ethusdt@aggTrade","data":{"e":"aggTrade","E":1723161256560,"s":"ETHUSDT","a":5933014,"p":"0.001","q":"100","nq":"100","f":100,"l":105,"T":1723161256559,"m":true,"st":1}}',
  '{"stream":"btcusdt@depth@100ms","data":{"e":"depthUpdate","E":1723161255208,"s":"BTCUSDT","U":11,"u":20,"b":[["61737.63000000","0.00000000"],["56854.58","1.5"]],"a":[["61839.85","3"]]}}',
  '{"stream":"ethusdt@depth@100ms","data":{"e":"depthUpdate","E":1723161256303,"T":1723161256302,"s":"ETHUSDT","ps":"ETHUSDT","U":11,"u":20,"pu":10,"b":[["2671.65","20"],["2676.24","61.833"],["2676.24","0"]],"a":[],"st":1}}',
];

/** Rows and events of one frame, by a feed of its own; the text of a syntax error tells a position, so only its kind counts. */
function read(module: ExchangeModule, text: string): unknown[] {
  const got: unknown[] = [];
  const feed = module.createFeed({ instruments: [], dataSource: 'live', orderbookIntervalMs: 0 });
  feed.frame(text, NOW, {
    row: (type, row, texts) => {
      assert.equal(encodeRow(type, row, texts), encodeByColumns(type, row));
      got.push([type, row, encodeRow(type, row, texts)]);
    },
    event: (event) => got.push(event.kind === 'rejected' && /JSON/.test(event.reason) ? 'no JSON' : event),
  });
  return got;
}

/** A blank in front changes nothing for JSON.parse, and is what no quick reading accepts. */
function throughJsonParse(text: string): string {
  assert.equal(scanTrade(` ${text}`) ?? scanDiff(` ${text}`), null);
  return ` ${text}`;
}

function assertSameRows(text: string): void {
  for (const module of [binanceSpot, binanceDerivatives]) {
    assert.deepEqual(read(module, text), read(module, throughJsonParse(text)), text);
  }
}

test('frames of each plain shape are read without JSON.parse, and to the same rows', () => {
  for (const text of FRAMES) {
    assert.notEqual(scanTrade(text) ?? scanDiff(text), null, text);
    assertSameRows(text);
  }
});

test('whatever happens to a frame, quick reading gives the rows and events of JSON.parse, or leaves it to that', () => {
  const pieces = [
    '"',
    '\\',
    ',',
    '-',
    '0',
    '7',
    '.',
    'e',
    'E',
    ' ',
    '[',
    ']',
    '{',
    '}',
    'null',
    'true',
    '\n',
    'é',
    '"T":5,',
    '"t":"x"',
  ];
  let seed = 5;
  const random = (below: number) => (seed = (seed * 48271) % 2147483647) % below;
  let quick = 0;
  for (let i = 0; i < 30_000; i++) {
    const text = FRAMES[i % FRAMES.length]!;
    const at = random(text.length);
    const piece = pieces[random(pieces.length)]!;
    // Characters replaced, left out, put in, and a part of the frame said twice.
    const changed = [
      () => text.slice(0, at) + piece + text.slice(at + 1),
      () => text.slice(0, at) + text.slice(at + 1 + random(6)),
      () => text.slice(0, at) + piece + text.slice(at),
      () => text.slice(0, at) + text.slice(Math.max(0, at - random(20)), at) + text.slice(at),
    ][random(4)]!();
    if ((scanTrade(changed) ?? scanDiff(changed)) !== null) quick += 1;
    assertSameRows(changed);
  }
  assert.ok(quick > 3000, `only ${quick} were read quickly: the test would prove nothing`);
});

test('of a member that comes twice the later one counts, as in JSON.parse', () => {
  const text = FRAMES[1]!.replace('"X":', '"T":1723161256000,"X":');
  assert.equal(scanTrade(text)?.T, 1723161256000);
  assertSameRows(text);
});

test('levels come best first in whatever order they were sent, equal prices in the order sent, each with its own number', () => {
  const sent = (prices: string[]) => prices.map((price, index) => [price, String(index)]);
  const cases: [string[], 1 | -1, string[]][] = [
    [['3', '2', '1'], 1, ['3 0', '2 1', '1 2']],
    [['1', '2', '3'], 1, ['3 2', '2 1', '1 0']],
    [['1', '2', '2.0'], 1, ['2 1', '2.0 2', '1 0']],
    [['2', '1', '3'], 1, ['3 2', '2 0', '1 1']],
    [['2', '2.0', '1'], -1, ['1 2', '2 0', '2.0 1']],
    [['3', '2', '1'], -1, ['1 2', '2 1', '3 0']],
    [['12345678901234567.5', '1'], -1, ['1 1', '12345678901234567.5 0']],
  ];
  for (const [prices, sign, expected] of cases) {
    const scanned = scanLevels(`x${JSON.stringify(sent(prices))}y`, 1)!;
    const levels = sortedLevels(scanned, sign, 'b');
    assert.deepEqual(
      levels.map((level) => level.join(' ')),
      expected,
    );
    assert.deepEqual(
      scanned.prices,
      levels.map(([price]) => Number(price)),
    );
    assert.deepEqual(sortedLevels(sent(prices), sign, 'b'), levels);
  }
});

test('members in another order, unknown members, other kinds of trade and COIN-M frames are left to JSON.parse', () => {
  const changes: [RegExp, string][] = [
    [/"st":1/, '"st":2'],
    [/"X":"MARKET"/, '"X":"INSURANCE_FUND"'],
    [/"m":/, '"new":1,"m":'],
    [/"E":(\d+),"s":("\w+")/, '"s":$2,"E":$1'],
    [/"a":(\d+)/, '"t":$1'],
    [/"U":11/, '"U":11111111111111111'],
    [/"p":"[^"]*"/, '"p":"1e-7"'],
    [/"data":/, '"data":null,"data":'],
  ];
  for (const [from, to] of changes) {
    const changed = FRAMES.map((text) => [text, text.replace(from, to)] as const).filter(
      ([text, other]) => text !== other,
    );
    assert.ok(changed.length > 0, String(from));
    for (const [, text] of changed) {
      assert.equal(scanTrade(text) ?? scanDiff(text), null, text);
      assertSameRows(text);
    }
  }
});

for (const [name, module] of [
  ['spot', binanceSpot],
  ['usdm', binanceDerivatives],
] as const) {
  test(`each trade and diff of the recorded ${name} session is read without JSON.parse, to the same row`, {
    skip: missing(RECORDED[name]),
  }, () => {
    for (const { raw } of readSession(RECORDED[name])) {
      if (!/@(trade|depth)/.test(raw)) continue;
      assert.notEqual(scanTrade(raw) ?? scanDiff(raw), null, raw);
      assert.deepEqual(read(module, raw), read(module, ` ${raw}`));
    }
  });
}

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

const { trade_id, sequence, price, quantity, side, is_maker, ...SOURCE } = TRADE;
const UPDATE: OrderbookUpdateRow = {
  ...SOURCE,
  first_update_id: 5123107832349,
  last_update_id: 5123107832355,
  prev_update_id: null,
  is_snapshot: false,
  bids: [['2681.62', '1.165']],
  asks: [],
};

/** Values for any member, sound and unsound. */
const VALUES: unknown[] = [
  ...['', '0', '7', '00012', '1.5', '.5', '1.', '-1', '1e-7', '0.1234567890123456789', '123456789012345678901', 'NaN'],
  ...['a"b', 'a\\b', 'é', '龙', ' ', '\n', 'buy', 'sell', 'live', 'backfill:1', 'BTC-USDT', 'binance_spot', 'futures'],
  ...[0, 1, 999, 1000, 999_999, 1_000_000, 1_000_001, 1723161255000, 1723161255007, 2 ** 53 - 1, 2 ** 53],
  ...[-0, -1, 1.5, Number.NaN, Number.POSITIVE_INFINITY, true, false, null, undefined, [], {}, '18446744073709551615'],
  [['1', '2']],
  [['1e-7', '2']],
  [['x', '2']],
  [['1', '"}']],
  [['1']],
  [[1, 2]],
  [
    ['1.5', '0'],
    ['1.4', '3.000'],
  ],
];

/** The text, or what the error says. */
function outcome(encode: () => string): string {
  try {
    return encode();
  } catch (error) {
    if (error instanceof ValueError || error instanceof TypeError) return `${error.name}: ${error.message}`;
    throw error;
  }
}

for (const [type, sound] of [
  ['trade', TRADE],
  ['orderbook_update', UPDATE],
] as const) {
  test(`a ${type} row has one text, or one error, whichever way it is encoded, with any value in any member`, () => {
    const compare = (row: object) => {
      const [quick, byColumns] = [encodeRow, encodeByColumns].map((encode) =>
        outcome(() => encode(type, row as never)),
      );
      assert.equal(quick, byColumns);
    };
    const members = Object.keys(sound);
    for (const member of members) for (const value of VALUES) compare({ ...sound, [member]: value });
    let seed = 13;
    const random = (below: number) => (seed = (seed * 48271) % 2147483647) % below;
    for (let i = 0; i < 50_000; i++) {
      const change = () => [members[random(members.length)]!, VALUES[random(VALUES.length)]];
      compare({
        ...sound,
        timestamp: random(2 ** 31) * 1000 + random(1000),
        ...Object.fromEntries([change(), change()]),
      });
    }
  });
}

test('a decimal as a number is Number of its text to the last bit', () => {
  let seed = 3;
  const random = (below: number) => (seed = (seed * 48271) % 2147483647) % below;
  const digits = (count: number) => Array.from({ length: count }, () => random(10)).join('');
  for (let i = 0; i < 100_000; i++) {
    const text = digits(1 + random(12)) + (random(4) === 0 ? '' : `.${digits(1 + random(18))}`);
    assert.equal(decimalNumber(text), Number(text), text);
    assert.equal(decimalNumber(`[${text}"`, 1, 1 + text.length), Number(text), text);
  }
  for (const text of ['-1.5', '0', '-0', '1e5', '', '12345678901234567890.123456789012345678']) {
    assert.equal(decimalNumber(text), Number(text), text);
  }
});
