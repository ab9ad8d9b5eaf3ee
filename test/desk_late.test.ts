/** A coin whose candles come an hour late: what stands on its rows is told again, and in the end is what it would have been without the delay. */
import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { ESCAPE_FILE, EscapeCalculator } from '../scripts/escape_signal_calc.ts';
import { type Simulator, startSimulator } from '../scripts/exchange_sim.ts';
import { loadConfig } from '../scripts/lib/config.ts';
import { SAR_FILE, SUMMARY_FILE } from '../scripts/lib/desk/sar_file.ts';
import type { DeskContext, DeskWork } from '../scripts/lib/desk/service.ts';
import { createLogger } from '../scripts/lib/log.ts';
import { recordsOf } from '../scripts/lib/series.ts';
import { SarCollector } from '../scripts/sar_slope_collector.ts';

const MINUTE = 60_000;
const CANDLE = 5 * MINUTE;
const COINS = ['ETH', 'SOL', 'XRP'];
const NEVER = new AbortController().signal;
const UNKNOWN = JSON.stringify({ code: '51001', msg: 'Instrument ID does not exist.', data: [] });

const root = mkdtempSync(join(tmpdir(), 'marketprism-late-'));
let simulator: Simulator;
let way: Server;
/** The venue does not know this coin. */
let away = '';
before(async () => {
  simulator = await startSimulator({ exchanges: ['okx_derivatives'], symbols: ['BTC-USDT'], tradesPerSecond: 0.1 });
  const venue = simulator.endpoints.okx_derivatives!.rest;
  way = createServer(async (request, response) => {
    const isAway = away !== '' && request.url!.includes(`instId=${away}-USDT-SWAP`);
    response.end(isAway ? UNKNOWN : await (await fetch(`${venue}${request.url}`)).text());
  });
  await new Promise<void>((done) => way.listen(0, '127.0.0.1', done));
});
after(async () => {
  way.closeAllConnections();
  way.close();
  await simulator.close();
  rmSync(root, { recursive: true, force: true });
});

/** A desk in a directory of its own, whose clock is set. */
function desk(name: string) {
  const dir = join(root, name);
  mkdirSync(dir);
  const endpoints = join(root, 'endpoints.json');
  const rest = `http://127.0.0.1:${(way.address() as AddressInfo).port}`;
  writeFileSync(endpoints, JSON.stringify({ okx_derivatives: { ws: rest.replace('http', 'ws'), rest } }));
  const config = loadConfig({
    MARKETPRISM_DATA_DIR: dir,
    MARKETPRISM_ENDPOINTS: endpoints,
    MARKETPRISM_DESK_COINS: COINS.join(','),
    MARKETPRISM_ESCAPE_THRESHOLD: '1',
  });
  let now = 0;
  const context: DeskContext = { config, log: createLogger('test', 'silent'), clock: () => now };
  const once = async (open: (context: DeskContext) => Promise<DeskWork>) => {
    const work = await open(context);
    const faults = await work.turn(NEVER);
    await work.close();
    return faults;
  };
  /** Both scripts do what is due at a time. @returns what the collector could not do */
  const at = async (time: number) => {
    now = time;
    const faults = await once((each) => SarCollector.open(each));
    assert.deepEqual(await once((each) => EscapeCalculator.open(each)), []);
    return faults;
  };
  /** What stands in a file: of each key the last record, as text; and how many are corrections. */
  const standing = async (file: string, keyOf: (record: Record<string, unknown>) => string) => {
    const records = new Map<string, string>();
    let corrections = 0;
    for await (const { correction, ...record } of recordsOf(join(dir, file), 0)) {
      if (correction === true) corrections += 1;
      records.set(`${record.slot} ${keyOf(record)}`, JSON.stringify(record));
    }
    return { records: [...records].sort(([one], [other]) => (one < other ? -1 : 1)), corrections };
  };
  return { at, standing };
}

test('an hour of one coin that came late is in its rows, in the summaries and in the escape signals', async () => {
  // A candle is over, so that all desks begin at the same one.
  const end = Math.floor(Date.now() / CANDLE) * CANDLE - 60 * MINUTE + 10_000;
  const [late, whole] = [desk('late'), desk('whole')];
  for (const each of [late, whole]) assert.deepEqual(await each.at(end - 60 * MINUTE), []);
  away = 'SOL';
  const faults = await late.at(end);
  assert.equal(faults.length, 1);
  assert.match(faults[0]!, /^SOL: .*51001/, 'the others do not wait for what the venue does not have');
  const summaries = await late.standing(SUMMARY_FILE, () => '');
  assert.match(summaries.records.at(-1)![1], /"total_symbols":2,"missing_symbols":\["SOL"\]/);
  away = '';
  assert.deepEqual(await late.at(end + CANDLE), []);
  assert.deepEqual(await whole.at(end + CANDLE), []);
  const keys: [string, (record: Record<string, unknown>) => string][] = [
    [SAR_FILE, ({ symbol }) => String(symbol)],
    [SUMMARY_FILE, () => ''],
    [ESCAPE_FILE, ({ rule }) => String(rule)],
  ];
  for (const [file, keyOf] of keys) {
    const [one, other] = [await late.standing(file, keyOf), await whole.standing(file, keyOf)];
    assert.ok(one.records.length > 500, `${file}: ${one.records.length} records`);
    assert.deepEqual(one.records, other.records, file);
    assert.equal(other.corrections, 0, file);
    assert.ok(one.corrections >= 12, `${file}: ${one.corrections} corrections`);
  }
});
