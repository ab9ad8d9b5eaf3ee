/** Three series made of others: what is absent is null or missing and never 0, and one that cannot be had holds up no other. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, afterEach, before, beforeEach, describe, test } from 'node:test';
import { insertLines } from '../scripts/lib/clickhouse.ts';
import { type Config, loadConfig } from '../scripts/lib/config.ts';
import type { DeskWork } from '../scripts/lib/desk/service.ts';
import { coinChange } from '../scripts/lib/desk/unified_coin_change.ts';
import { type Bucket, fuller, liquidationHour } from '../scripts/lib/desk/unified_liquidation.ts';
import { Toppings } from '../scripts/lib/desk/unified_top_count.ts';
import { createLogger } from '../scripts/lib/log.ts';
import { type Exchange, encodeRow, type RowSource } from '../scripts/lib/rows.ts';
import { ensureTier } from '../scripts/lib/schema.ts';
import { Series } from '../scripts/lib/series.ts';
import { openUnified } from '../scripts/unified_data_collector.ts';
import { Pipeline } from './pipeline.ts';

const MINUTE = 60_000;
const SLOT = 5 * MINUTE;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;
/** 16:00 in Beijing. */
const T0 = Date.UTC(2026, 10, 24, 8);
const NEVER = new AbortController().signal;
const LOG = createLogger('test', 'silent');
const UNIFIED = ['sar_top_count', 'liquidation_1h', 'coin_change_total'] as const;
const root = mkdtempSync(join(tmpdir(), 'marketprism-unified-'));
after(() => rmSync(root, { recursive: true, force: true }));

/** A SAR row: topping, unless something is changed. */
const sar = (slot: number, symbol: string, change: object = {}) => ({
  ...{ slot, symbol, sar_position: 'bullish', sar_quadrant: 'Q1', slope_direction: 'down' },
  ...change,
});
const up = { slope_direction: 'up' };
const places = (n: number) => Array.from({ length: n }, (_, i) => i);

describe('coins that top within two hours', () => {
  /** Candles of the two hours up to T0, at each of which BTC and ETH are there and do not top. */
  const quiet = () => {
    const toppings = new Toppings();
    for (const n of places(24)) for (const coin of ['ETH', 'BTC']) toppings.add(sar(T0 - (n + 1) * SLOT, coin, up));
    return toppings;
  };

  test('are counted once each, by the candles that closed in the two hours up to the slot', () => {
    const toppings = quiet();
    const none = { timestamp: T0, datetime: '2026-11-24 16:00:00', timeframe: '2h', count: 0, symbols: [] };
    assert.deepEqual(toppings.countAt(T0), none);
    toppings.add(sar(T0 - 2 * HOUR, 'ETH', { sar_quadrant: 'Q2' }));
    toppings.add(sar(T0 - HOUR, 'ETH'));
    toppings.add(sar(T0 - SLOT, 'BTC'));
    // Not closed yet, and closed before.
    toppings.add(sar(T0, 'SOL'));
    toppings.add(sar(T0 - 2 * HOUR - SLOT, 'XRP'));
    assert.deepEqual(toppings.countAt(T0), { ...none, count: 2, symbols: ['BTC', 'ETH'] });
  });

  test('top only while bullish, with a falling slope, in the first or second quadrant; a later row of a coin replaces an earlier one', () => {
    const toppings = quiet();
    const bearish = { sar_position: 'bearish' };
    toppings.add(sar(T0 - SLOT, 'SOL', up));
    toppings.add(sar(T0 - SLOT, 'XRP', bearish));
    toppings.add(sar(T0 - SLOT, 'TON', { sar_quadrant: 'Q3' }));
    toppings.add(sar(T0 - SLOT, 'UNI', { sar_quadrant: null }));
    toppings.add(sar(T0 - HOUR, 'BTC'));
    toppings.add(sar(T0 - HOUR, 'BTC', { ...up, correction: true }));
    assert.equal(toppings.countAt(T0).count, 0);
    assert.deepEqual([...toppings.corrected], [T0 - HOUR]);
  });

  test('of a window with holes are told with the number of candles that are missing; of an empty one there is no count', () => {
    const toppings = new Toppings();
    assert.throws(() => toppings.countAt(T0), /nothing of the two hours/);
    // A coin whose slope is not known yet is no coin that does not top.
    toppings.add(sar(T0 - 2 * SLOT, 'BTC', { slope_direction: null }));
    assert.throws(() => toppings.countAt(T0), /nothing of the two hours/);
    toppings.add(sar(T0 - SLOT, 'BTC'));
    const { count, missing_slots } = toppings.countAt(T0);
    assert.deepEqual([count, missing_slots], [1, 23]);
  });

  test('are not counted by rows of another shape', () => {
    const toppings = quiet();
    const { sar_quadrant, ...row } = sar(T0 - SLOT, 'BTC');
    toppings.add({ ...row, quadrant: sar_quadrant } as never);
    assert.throws(() => toppings.countAt(T0), /a row of sar_slope at 2026-11-24 15:55:00 is none: sar_quadrant/);
    assert.throws(() => toppings.countAt(T0 + 115 * MINUTE), /is none/);
    assert.equal(toppings.faultAt(T0 - SLOT), null);
  });
});

describe('the change of the coins', () => {
  const prices = (slot: number, total_change: number | null = -3.5, valid_coins = 27) => {
    return { slot, total_change, average_change: total_change === null ? null : total_change / 27, valid_coins };
  };
  const known = (...all: ReturnType<typeof prices>[]) => new Map(all.map((each) => [each.slot, each]));
  const nothing = { total_change: null, average_change: null, valid_coins: null, source_slot: null };

  test('is that of the newest half hour, and null with a reason where there is none, or one that is too old', () => {
    const before = prices(T0 - 30 * MINUTE);
    const place = { timestamp: T0 + SLOT, datetime: '2026-11-24 16:05:00' };
    assert.deepEqual(coinChange(T0 + SLOT, known(before, prices(T0, 12.25, 26)), T0), {
      ...place,
      ...{ total_change: 12.25, average_change: 12.25 / 27, valid_coins: 26, source_slot: T0, reason: null },
    });
    // The half hour itself is missing: the one before is of use for another slot.
    const later = T0 + 30 * MINUTE;
    assert.equal(coinChange(T0 + SLOT, known(before), later).source_slot, T0 - 30 * MINUTE);
    const absent = coinChange(T0 + 2 * SLOT, known(before), later);
    assert.deepEqual(
      [absent.total_change, absent.source_slot, absent.reason],
      [null, null, 'coin_prices has no record of 2026-11-24 16:00:00'],
    );
    assert.deepEqual(coinChange(T0 + SLOT, known(before), T0 - 30 * MINUTE), {
      ...{ ...place, ...nothing },
      reason: 'coin_prices has no record of 2026-11-24 16:00:00 yet',
    });
    assert.match(coinChange(T0, known(prices(T0, null, 0)), T0).reason!, /no change in its record of 2026-11-24 16:00/);
  });
});

describe('an hour of liquidations', () => {
  const bucket = (start: number, amount: string, count = 1, exchange = 'binance_derivatives'): Bucket => {
    return { start, exchange, amount, count };
  };
  const hour = (buckets: Bucket[], pulse: number[] = []) => liquidationHour(T0, { buckets, pulse: new Set(pulse) });
  const all = places(12).map((n) => T0 - (n + 1) * SLOT);

  test('is summed exactly over all exchanges, from its first to its last five minutes, and rounded once', () => {
    const record = hour([
      bucket(T0 - HOUR, '0.004', 2),
      bucket(T0 - SLOT, '0.001', 1, 'okx_derivatives'),
      bucket(T0 - SLOT, '12345678901.230000000000000000000000000000000001', 3),
      bucket(T0 - HOUR - SLOT, '5'),
      bucket(T0, '7'),
    ]);
    assert.deepEqual(record, {
      timestamp: T0,
      datetime: '2026-11-24 16:00:00',
      amount: 12345678901.24,
      count: 6,
      by_exchange: {
        binance_derivatives: { amount: 12345678901.23, count: 5 },
        okx_derivatives: { amount: 0, count: 1 },
      },
      is_sample: true,
      reason: null,
    });
  });

  test('in which nothing was liquidated is 0; one of a day without any, or in which nothing was collected, is null with a reason', () => {
    const earlier = [bucket(T0 - 23 * HOUR, '5')];
    assert.deepEqual([hour(earlier).amount, hour(earlier).count, hour(earlier).by_exchange], [0, 0, {}]);
    assert.deepEqual([hour(earlier, all).amount, hour(earlier, all).missing_slots], [0, undefined]);
    const tooOld = hour([bucket(T0 - DAY - SLOT, '5')], all);
    assert.deepEqual([tooOld.amount, tooOld.count, tooOld.by_exchange], [null, null, null]);
    assert.match(tooOld.reason!, /no liquidation of the 24 hours/);
    const away = hour(earlier, [T0 - 2 * HOUR, T0]);
    assert.deepEqual([away.amount, away.reason], [null, 'nothing was collected in the hour up to the slot']);
    const partly = hour(earlier, all.slice(0, 9));
    assert.deepEqual([partly.amount, partly.missing_slots], [0, 3]);
  });

  test('whose end has not reached the database is none yet', () => {
    assert.throws(() => hour([bucket(T0 - HOUR, '5')], all.slice(1)), /after 2026-11-24 15:55:00 is in the database/);
  });

  test('is taken from hot or cold, whichever has more of five minutes', () => {
    const hot = [bucket(T0, '1', 1), bucket(T0 + SLOT, '9', 9)];
    const cold = [bucket(T0, '5', 5), bucket(T0 + SLOT, '2', 2), bucket(T0, '4', 4, 'okx_derivatives')];
    assert.deepEqual(
      fuller(hot, cold)
        .map(({ amount }) => amount)
        .sort(),
      ['4', '5', '9'],
    );
  });
});

describe('the three series', () => {
  const pipeline = new Pipeline();
  let dir: string;
  let now: number;
  let config: Config;
  let sars: Series;
  let coins: Series;
  let work: DeskWork;
  let id = 0;

  before(async () => {
    await pipeline.choosePorts();
    await pipeline.startDatabase();
  });
  after(() => pipeline.close());
  beforeEach(async () => {
    dir = mkdtempSync(join(root, 'd'));
    now = T0 + 40_000;
    const client = pipeline.client();
    for (const tier of ['hot', 'cold'] as const) {
      await client.command({ query: `DROP DATABASE IF EXISTS marketprism_${tier}` });
      await ensureTier(client, tier, `marketprism_${tier}`);
    }
    config = loadConfig({ ...pipeline.env, MARKETPRISM_DATA_DIR: dir });
    const input = (name: string, file: string, cadenceMs: number) =>
      Series.open(dir, { name, file, cadenceMs, catchUpSlots: 5000 }, () => now, LOG);
    sars = await input('sar_slope', 'sar_slope_jsonl/sar_slope_data.jsonl', SLOT);
    coins = await input('coin_prices', 'coin_price_tracker/coin_prices_30min.jsonl', 30 * MINUTE);
    work = await open();
  });
  afterEach(async () => {
    await work.close();
    await sars.close();
    await coins.close();
  });

  const open = (once = false) => openUnified({ config, log: LOG, clock: () => now }, once);
  const turn = () => work.turn(NEVER);
  async function restart(): Promise<void> {
    await work.close();
    work = await open();
  }
  const lines = (name: (typeof UNIFIED)[number]) => {
    const text = readFileSync(join(dir, 'unified', `${name}.jsonl`), 'utf8');
    return text
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => JSON.parse(line));
  };
  /** Slots after T0 of the lines, in their order. */
  const slots = (name: (typeof UNIFIED)[number]) => lines(name).map(({ slot }) => (slot - T0) / SLOT);
  const stateOf = (name: string) => JSON.parse(readFileSync(join(dir, 'state', `series-${name}.json`), 'utf8'));

  /** Candles, by their close, from one to another time; `coin` tops in all of them. */
  function candles(from: number, to: number, coin = 'ETH', except: number | null = null): void {
    for (let close = from; close <= to; close += SLOT) {
      const slot = close - SLOT;
      if (slot === except) continue;
      const rows = [sar(slot, coin), sar(slot, 'BTC', up)].map(({ slot: _, ...row }) => ({ ...row, timestamp: slot }));
      sars.write(slot, rows);
    }
  }
  const prices = (slot: number, total_change: number) =>
    coins.write(slot, [{ total_change, average_change: total_change / 27, valid_coins: 27 }]);

  const source = (symbol: string, timestamp: number, exchange: Exchange = 'binance_derivatives'): RowSource => ({
    ...{ exchange, market_type: 'perpetual', symbol, instrument: symbol, timestamp },
    ...{ received_at: timestamp * 1000, data_source: 'test' },
  });
  async function insert(database: string, table: string, row: string): Promise<void> {
    id += 1;
    const line = Buffer.from(`{"js_epoch":1,"js_seq":${id},${row.slice(1)}\n`);
    await insertLines(pipeline.client(), `${database}.${table}`, line, `test:${id}`);
  }
  const liquidation = (
    time: number,
    price: string,
    quantity: string,
    exchange?: Exchange,
    database = 'marketprism_hot',
  ) =>
    insert(
      database,
      'liquidations',
      encodeRow('liquidation', {
        ...source('BTC-USDT', time, exchange),
        ...{ liquidation_id: String(id), side: 'sell', price, quantity },
      }),
    );
  const pulse = (time: number, change: object = {}) =>
    insert(
      'marketprism_hot',
      'open_interests',
      encodeRow('open_interest', {
        ...{ ...source('BTC-USDT', time), ...change },
        ...{ open_interest: '1', open_interest_value: null, contracts: null },
      }),
    );

  test('are written for a slot once, of what the inputs and the database have', async () => {
    candles(T0 - 2 * HOUR + SLOT, T0);
    prices(T0, -1.5);
    await liquidation(T0 - HOUR - 1, '1', '1');
    await liquidation(T0 - HOUR, '61000.123456789012345678', '0.5');
    await liquidation(T0 - 1, '0.000000000000000001', '0.000000000000000001', 'okx_derivatives');
    await liquidation(T0 - 2, '99999999999999999999', '0.00000000005', 'okx_derivatives');
    // In doubles 0.054999…
    await liquidation(T0 - 3, '0.011', '5', 'deribit_derivatives');
    await liquidation(T0, '1', '1');
    assert.deepEqual(await turn(), []);
    assert.deepEqual(await turn(), []);
    assert.deepEqual(lines('sar_top_count'), [
      {
        ...{ slot: T0, timestamp: T0, datetime: '2026-11-24 16:00:00', timeframe: '2h' },
        ...{ count: 1, symbols: ['ETH'] },
      },
    ]);
    const [hour, ...more] = lines('liquidation_1h');
    assert.deepEqual([more.length, hour.amount, hour.count], [0, 5000030500.12, 4]);
    assert.deepEqual(hour.by_exchange, {
      binance_derivatives: { amount: 30500.06, count: 1 },
      deribit_derivatives: { amount: 0.06, count: 1 },
      okx_derivatives: { amount: 5e9, count: 2 },
    });
    const [change, ...others] = lines('coin_change_total');
    assert.deepEqual([others.length, change.total_change, change.source_slot], [0, -1.5, T0]);
  });

  test('wait for their inputs, each for its own; a stall is told after ten minutes, and caught up with', async () => {
    candles(T0 - 2 * HOUR + SLOT, T0);
    prices(T0, 1);
    await turn();
    now = T0 + 30 * MINUTE + 40_000;
    assert.deepEqual(await turn(), []);
    assert.deepEqual(slots('sar_top_count'), [0]);
    assert.match(stateOf('sar_top_count').error, /waits for sar_slope, which ends at 2026-11-24 15:55:00/);
    // Of the half hour of 16:00, and none of the next one's.
    assert.deepEqual(slots('coin_change_total'), [0, 1, 2, 3, 4, 5]);
    assert.equal(stateOf('coin_change_total').error, null);
    candles(T0 + SLOT, T0 + 25 * MINUTE, 'SOL');
    prices(T0 + 30 * MINUTE, 2);
    await turn();
    assert.deepEqual(slots('sar_top_count'), [0, 1, 2, 3, 4, 5]);
    assert.deepEqual(lines('sar_top_count').at(-1).symbols, ['ETH', 'SOL']);
    // A candle that is a little late is waited for, and nothing is told.
    assert.equal(stateOf('sar_top_count').error, null);
    assert.equal(lines('coin_change_total').at(-1).total_change, 2);
    await work.close();
    work = await open(true);
    now = T0 + HOUR;
    assert.deepEqual(await turn(), ['waits for sar_slope, which ends at 2026-11-24 16:20:00']);
  });

  test('have null and a reason where the coins’ half hour is ten minutes late, and the figures once it is there', async () => {
    candles(T0 - 2 * HOUR + SLOT, T0);
    prices(T0 - 30 * MINUTE, 1);
    await turn();
    assert.equal(lines('coin_change_total').at(-1).slot, T0 - SLOT);
    now = T0 + 9 * MINUTE;
    await turn();
    assert.deepEqual(slots('coin_change_total'), [-1]);
    now = T0 + 10 * MINUTE;
    await turn();
    const late = lines('coin_change_total').at(-1);
    assert.deepEqual([late.slot, late.total_change, late.source_slot], [T0, null, null]);
    assert.match(late.reason, /no record of 2026-11-24 16:00:00 yet/);
    prices(T0, 9);
    await turn();
    const [corrected, next] = lines('coin_change_total')
      .filter(({ total_change }) => total_change === 9)
      .reverse();
    assert.deepEqual([corrected.slot, corrected.correction, corrected.reason], [T0, true, null]);
    assert.equal(next.slot, T0 + 2 * SLOT);
    coins.correct(T0, [{ total_change: 8, average_change: 8 / 27, valid_coins: 26 }]);
    await turn();
    const last = new Map(lines('coin_change_total').map((line) => [line.slot, line]));
    assert.deepEqual(
      [T0 - SLOT, T0, T0 + SLOT].map((slot) => last.get(slot).total_change),
      [1, 8, 8],
    );
    // What is known is not taken back when the records that it was made of are gone.
    const before = lines('coin_change_total');
    rmSync(join(dir, 'coin_price_tracker', 'coin_prices_30min.jsonl'));
    prices(T0 + 30 * MINUTE, 3);
    await turn();
    assert.deepEqual(lines('coin_change_total'), before);
  });

  test('are counted without what the input lacks, which is told, and anew when the input is completed, also after a restart', async () => {
    const hole = T0 - HOUR;
    candles(T0 - 2 * HOUR + SLOT, T0, 'ETH', hole);
    await turn();
    const [first] = lines('sar_top_count');
    assert.deepEqual([first.count, first.missing_slots], [1, 1]);
    await restart();
    sars.write(hole, [sar(hole, 'XRP')]);
    await turn();
    const [, corrected, ...more] = lines('sar_top_count');
    assert.deepEqual([corrected.slot, corrected.correction, corrected.count], [T0, true, 2]);
    assert.deepEqual([corrected.symbols, corrected.missing_slots, more], [['ETH', 'XRP'], undefined, []]);
    await restart();
    await turn();
    assert.equal(lines('sar_top_count').length, 2);
  });

  test('are completed after a time in which nobody was there', async () => {
    candles(T0 - 2 * HOUR + SLOT, T0);
    prices(T0, 1);
    await liquidation(T0 - 30 * MINUTE, '10', '1');
    await turn();
    await work.close();
    candles(T0 + SLOT, T0 + 2 * DAY, 'SOL');
    for (const n of places(96)) prices(T0 + (n + 1) * 30 * MINUTE, n);
    await liquidation(T0 + DAY, '20', '1');
    now = T0 + 2 * DAY + 40_000;
    work = await open();
    assert.deepEqual(await turn(), []);
    for (const name of UNIFIED) assert.deepEqual(slots(name), places(577), name);
    const hours = lines('liquidation_1h');
    const at = (time: number) => hours[time / SLOT].amount;
    // In the hour, after it, the last and the first of a day without any, and the hour of the next one.
    assert.deepEqual([at(0), at(25 * MINUTE), at(30 * MINUTE), at(35 * MINUTE)], [10, 10, 10, 0]);
    assert.deepEqual([at(DAY - 30 * MINUTE), at(DAY - 25 * MINUTE), at(DAY)], [0, null, null]);
    assert.deepEqual([at(DAY + SLOT), at(DAY + HOUR), at(DAY + HOUR + SLOT)], [20, 20, 0]);
    assert.deepEqual(lines('coin_change_total')[576].total_change, 95);
  });

  test('go on while the database is away, and its own is completed once it is back', async () => {
    candles(T0 - 2 * HOUR + SLOT, T0);
    prices(T0, 1);
    await liquidation(T0 - SLOT, '10', '1');
    await turn();
    await pipeline.client().command({ query: 'RENAME TABLE marketprism_hot.liquidations TO marketprism_hot.away' });
    now += 3 * SLOT;
    candles(T0 + SLOT, T0 + 3 * SLOT);
    const faults = await turn();
    assert.equal(faults.length, 1);
    assert.match(faults[0]!, /^liquidation_1h: 2026-11-24T08:15:00.000Z: .*, and 2 other slots$/);
    assert.deepEqual(
      UNIFIED.map((name) => lines(name).length),
      [4, 1, 4],
    );
    await pipeline.client().command({ query: 'RENAME TABLE marketprism_hot.away TO marketprism_hot.liquidations' });
    assert.deepEqual(await turn(), []);
    assert.deepEqual(
      lines('liquidation_1h').map(({ amount }) => amount),
      [10, 10, 10, 10],
    );
  });

  test('go on while an input is damaged, and have nothing made of that', async () => {
    candles(T0 - 2 * HOUR + SLOT, T0 - SLOT);
    sars.write(T0 - SLOT, [{ symbol: 'BTC', position: 'long' }]);
    coins.write(T0, [{ total_change: 'many' }]);
    await liquidation(T0 - SLOT, '10', '1');
    const faults = await turn();
    assert.equal(faults.length, 1);
    assert.match(faults[0]!, /^sar_top_count: .* a row of sar_slope at 2026-11-24 15:55:00 is none: sar_position: /);
    assert.deepEqual(lines('sar_top_count'), []);
    assert.equal(lines('liquidation_1h')[0].amount, 10);
    const [change] = lines('coin_change_total');
    assert.equal(change.total_change, null);
    assert.match(change.reason, /^the record of coin_prices at 2026-11-24 16:00:00 is none: total_change: /);
    coins.correct(T0, [{ total_change: 4, average_change: 4, valid_coins: 1 }]);
    await turn();
    assert.equal(lines('coin_change_total').at(-1).total_change, 4);
    assert.deepEqual([lines('liquidation_1h').length, lines('coin_change_total').length], [1, 2]);
    await work.close();
    writeFileSync(join(dir, 'state', 'series-coin_prices.json'), 'x');
    work = await open();
    assert.match((await turn()).join(), /coin_change_total: .*JSON/);
  });

  test('have no 0 for an hour that has not reached the database, and the sum once it has', async () => {
    await liquidation(T0 - 10 * HOUR, '10', '1');
    await pulse(T0 - 6 * MINUTE);
    await pulse(T0 - MINUTE, { data_source: 'backfill:1' });
    const faults = await turn();
    assert.match(faults.join(), /nothing that was collected after 2026-11-24 15:55:00 is in the database/);
    assert.deepEqual(lines('liquidation_1h'), []);
    await liquidation(T0 - 2 * MINUTE, '7', '1');
    await pulse(T0 - 2 * MINUTE);
    assert.deepEqual(await turn(), []);
    const [hour] = lines('liquidation_1h');
    assert.deepEqual([hour.amount, hour.count, hour.missing_slots], [7, 1, 10]);
  });

  test('have hours from cold where hot has lost them, and wait for cold when it is away', async () => {
    await liquidation(T0 - SLOT, '10', '1');
    await turn();
    now = T0 + 5 * DAY + 40_000;
    await pipeline.client().command({ query: 'TRUNCATE TABLE marketprism_hot.liquidations' });
    await liquidation(T0 - SLOT, '10', '1', undefined, 'marketprism_cold');
    await liquidation(T0 + 2 * MINUTE, '5', '1', undefined, 'marketprism_cold');
    // It came late, is in hot as yet, and in cold, too.
    await liquidation(T0 + 12 * MINUTE, '3', '1', undefined, 'marketprism_cold');
    await liquidation(T0 + 12 * MINUTE, '3', '1');
    await liquidation(now - HOUR, '2', '1');
    await pipeline.client().command({ query: 'RENAME DATABASE marketprism_cold TO marketprism_away' });
    assert.match((await turn()).join(), /liquidation_1h: .* other slots/);
    const recent = lines('liquidation_1h').slice(1);
    assert.ok(recent.every(({ slot }) => slot >= now - 2 * DAY) && recent.length === 576, `${recent.length}`);
    await pipeline.client().command({ query: 'RENAME DATABASE marketprism_away TO marketprism_cold' });
    await turn();
    const hours = new Map(lines('liquidation_1h').map(({ slot, amount }) => [slot, amount]));
    const after = [SLOT, 2 * SLOT, 3 * SLOT, HOUR, HOUR + SLOT, HOUR + 4 * SLOT].map((each) => hours.get(T0 + each));
    assert.deepEqual(after, [15, 15, 18, 8, 3, 0]);
    assert.equal(hours.size, 5 * 288 + 1);
  });
});

test('by hand it does what is due and says with its exit code that inputs are not there; figures that it does not have are not there either', () => {
  const dir = mkdtempSync(join(root, 'd'));
  const script = join(import.meta.dirname, '..', 'scripts', 'unified_data_collector.ts');
  const env = { PATH: process.env.PATH, MARKETPRISM_DATA_DIR: dir, CLICKHOUSE_URL: 'http://127.0.0.1:9' };
  const { status, stdout } = spawnSync(process.execPath, ['--import', 'tsx', script, '--once'], {
    env,
    encoding: 'utf8',
  });
  assert.equal(status, 1, stdout);
  const events = stdout
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line));
  const { faults } = events.find(({ event }) => event === 'not_done');
  assert.match(
    faults.join('\n'),
    /^sar_slope has no record yet\ncoin_prices has no record yet\nliquidation_1h: .*ECONNREFUSED/,
  );
  const written = UNIFIED.filter((name) => readFileSync(join(dir, 'unified', `${name}.jsonl`), 'utf8') !== '');
  assert.deepEqual(written, ['coin_change_total']);
  const record = JSON.parse(readFileSync(join(dir, 'unified', 'coin_change_total.jsonl'), 'utf8'));
  assert.deepEqual([record.total_change, record.valid_coins], [null, null]);
  assert.ok(existsSync(join(dir, 'state', 'series-sar_top_count.json')));
});
