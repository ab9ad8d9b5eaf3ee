import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { test } from 'node:test';
import { memberText } from '../scripts/lib/json_text.ts';

const SCRIPT = join(import.meta.dirname, '..', 'scripts', 'normalize.ts');

function normalize(input: string, args: string[] = ['--exchange', 'binance_spot']) {
  const { status, stdout, stderr } = spawnSync(process.execPath, ['--import', 'tsx', SCRIPT, ...args], {
    input,
    encoding: 'utf8',
  });
  return { status, rows: stdout === '' ? [] : stdout.trimEnd().split('\n'), errors: stderr };
}

const TRADE = '{"e":"trade","s":"BTCUSDT","t":1,"p":"1.50","q":"2","T":1723161255342,"m":true}';
const ROW =
  '{"type":"trade","exchange":"binance_spot","market_type":"spot","symbol":"BTC-USDT","trade_id":"1","timestamp":1723161255342,' +
  '"instrument":"BTCUSDT","sequence":null,"price":"1.50","quantity":"2","side":"sell","is_maker":true,' +
  '"received_at":1723161255400000,"data_source":"live"}';

test('a frame may come as JSON or as a string, and becomes the same row', () => {
  const asJson = `{"received":1723161255400,"frame":${TRADE}}`;
  const asText = `{"received":1723161255400,"frame":${JSON.stringify(TRADE)}}`;
  assert.deepEqual(normalize(`${asJson}\n${asText}\n`), { status: 0, rows: [ROW, ROW], errors: '' });
});

test('what cannot be read is told with its line number, and the other lines are processed', () => {
  const lines = [
    'nonsense',
    `{"received":1723161255400,"frame":${TRADE}}`,
    '{"received":1,"frame":{"e":"new"}}',
    '{"frame":{}}',
    '{"received":1}',
    '',
  ];
  const { status, rows, errors } = normalize(lines.join('\n'));
  assert.equal(status, 1);
  assert.deepEqual(rows, [ROW]);
  assert.deepEqual(
    errors
      .trimEnd()
      .split('\n')
      .map((line) => line.replace(/: .*/, '')),
    ['line 1', 'line 3', 'line 4', 'line 5'],
  );
});

test('snapshots come as REST answers, and --book-interval 0 gives a row per applied update', () => {
  const diff = (first: number, last: number) =>
    `{"received":1,"frame":{"e":"depthUpdate","E":1723161255308,"s":"BTCUSDT","U":${first},"u":${last},"b":[["99","1"]],"a":[["101","1"]]}}`;
  const snapshot =
    '{"received":1,"rest":"/api/v3/depth?symbol=BTCUSDT&limit=1000","body":{"lastUpdateId":5,"bids":[["98","1"]],"asks":[["102","1"]]}}';
  const { status, rows } = normalize([diff(1, 10), snapshot, diff(11, 20)].join('\n'), [
    '--exchange',
    'binance_spot',
    '--book-interval',
    '0',
  ]);
  assert.equal(status, 0);
  assert.deepEqual(
    rows.map((row) => JSON.parse(row)).map((row) => [row.type, row.last_update_id, row.is_snapshot]),
    [
      ['orderbook_update', 10, false],
      ['orderbook_update', 5, true],
      ['orderbook', 10, undefined],
      ['orderbook_update', 20, false],
      ['orderbook', 20, undefined],
    ],
  );
});

test('wrong usage is one line and exit code 64', () => {
  for (const args of [
    [],
    ['--exchange', 'nyse'],
    ['--exchange', 'binance_spot', '--market-type', 'x'],
    ['--book-interval', 'x', '--exchange', 'binance_spot'],
    ['--what'],
  ]) {
    const { status, errors } = normalize('', args);
    assert.equal(status, 64, errors);
    assert.equal(errors.trimEnd().split('\n').length, 1, errors);
  }
});

test('the text of a member keeps every digit, wherever the member stands', () => {
  assert.equal(
    memberText('{"received":1,"frame":{"id":12345678901234567890}}', 'frame'),
    '{"id":12345678901234567890}',
  );
  assert.equal(memberText(' { "a" : [1, {"frame":2}] , "frame" : "x\\"}," , "z":3 } ', 'frame'), '"x\\"},"');
  assert.equal(memberText('{"frame":12.50 ,"b":null}', 'frame'), '12.50');
  assert.equal(memberText('{"b":null}', 'b'), 'null');
  assert.equal(memberText('{"b":{"frame":1}}', 'frame'), null);
  assert.equal(memberText('{}', 'frame'), null);
});
