/** Series, symbols and depth of the market's API against the real engine: each figure is compared with one made of the raw rows. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { insertLines } from '../scripts/lib/clickhouse.ts';
import { type Config, loadConfig } from '../scripts/lib/config.ts';
import { createLogger } from '../scripts/lib/log.ts';
import { type DataType, encodeRow, type RowSource, type Rows, TABLES } from '../scripts/lib/rows.ts';
import { ensureTier, ensureViews } from '../scripts/lib/schema.ts';
import { Kept } from '../scripts/lib/web/kept.ts';
import { cumulated, type Depth } from '../scripts/lib/web/market_depth.ts';
import { MARKET_ROUTES } from '../scripts/lib/web/market_routes.ts';
import { type LiquidationSeries, pointsOf, type ReadingSeries } from '../scripts/lib/web/market_series.ts';
import type { MarketSymbols } from '../scripts/lib/web/market_symbols.ts';
import { sampleTrade } from './fixtures.ts';
import { Pipeline } from './pipeline.ts';
import { Web } from './web_harness.ts';

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;
/** 2026-11-24 08:00 UTC. */
const T0 = Date.UTC(2026, 10, 24, 8);
const NOW = T0 + 2 * DAY;
const pipeline = new Pipeline();
let config: Config;
let web: Web;
let sequence = 0;
let now = NOW;

before(async () => {
  await pipeline.choosePorts();
  await pipeline.startDatabase();
  config = loadConfig(pipeline.env);
  const client = pipeline.client();
  await ensureTier(client, 'hot', config.hotDatabase);
  await ensureTier(client, 'cold', config.coldDatabase);
  await ensureViews(client, config, createLogger('test', 'silent'));
  web = await Web.open(pipeline.env, MARKET_ROUTES, {}, () => now);
});
after(async () => {
  await web?.close();
  await pipeline.close();
});

/** Inserts as the store does: each row with its place in the stream, from the one given on. */
async function insert<T extends DataType>(type: T, rows: Rows[T][], database = config.hotDatabase, from = sequence) {
  const lines = rows.map((row, i) => `${encodeRow(type, row).slice(0, -1)},"js_epoch":1,"js_seq":${from + i + 1}}\n`);
  sequence = Math.max(sequence, from + rows.length);
  const table = `${database}.${TABLES[type].name}`;
  await insertLines(pipeline.client(), table, Buffer.from(lines.join('')), `test:${type}:${sequence}:${database}`);
}

/** As in production: hot has all, cold the first part, which is verified, and somewhat more, which is not yet. */
async function insertBoth<T extends DataType>(type: T, rows: Rows[T][]): Promise<void> {
  const begin = sequence;
  const verified = Math.floor(rows.length * 0.6);
  await insert(type, rows);
  await insert(type, rows.slice(0, verified + 7), config.coldDatabase, begin);
  await pipeline.client().command({
    query: `INSERT INTO ${config.coldDatabase}.replication_progress (table_name, js_epoch, after_seq, upto_seq, window_rows, copied_rows, window_hash) VALUES ('${TABLES[type].name}', 1, ${begin}, ${begin + verified}, 1, 1, 1)`,
  });
}

const source = (symbol: string, timestamp: number, change: Partial<RowSource> = {}): RowSource => ({
  ...{ exchange: 'binance_derivatives' as const, market_type: 'perpetual' as const },
  ...{ symbol, instrument: symbol, timestamp, received_at: timestamp * 1000, data_source: 'live' },
  ...change,
});

/** The same numbers each run. */
function randomNumbers(seed: number): () => number {
  let state = seed;
  return () => (state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0) / 2 ** 32;
}

const PLACES = 36;
/** Decimal text as a whole number of its 36th place: nothing is rounded. */
function exact(text: string): bigint {
  const [whole = '', fraction = ''] = text.replace('-', '').split('.');
  const size = BigInt(whole + fraction.padEnd(PLACES, '0'));
  return text.startsWith('-') ? -size : size;
}
const same = (text: string | null, value: bigint | null) => assert.equal(text === null ? null : exact(text), value);

type Listed = Record<string, string> & { timestamp: number };

/** Rows of the list route by the point in which they lie. */
async function pointsOfList(
  path: string,
  { times, step_ms, to }: ReadingSeries | LiquidationSeries,
  only: object = {},
) {
  const { data, more } = await web.ok(`/api/market/${path}&from=${times[0]}&to=${to}&limit=100000`);
  assert.equal(more, false);
  const rows = (data as Listed[]).filter((row) => Object.entries(only).every(([name, value]) => row[name] === value));
  return times.map((at) => rows.filter(({ timestamp }) => timestamp >= at && timestamp < at + step_ms));
}

describe('a series', () => {
  const EXCHANGES = ['binance_derivatives', 'okx_derivatives'] as const;
  const peakAt = T0 + 700 * MINUTE;

  before(async () => {
    const random = randomNumbers(5);
    const minutes = Array.from({ length: 24 * 60 }, (_, i) => i);
    // An hour is missing, and the first minutes of OKX.
    const times = (exchange: string) =>
      minutes.filter((i) => !(i >= 300 && i < 360) && !(exchange === 'okx_derivatives' && i < 12));
    const all = EXCHANGES.flatMap((exchange) =>
      times(exchange).map((i) => ({ exchange, at: T0 + i * MINUTE + Math.floor(random() * 900) })),
    );
    const value = () => `${random() < 0.5 ? '-' : ''}0.${String(Math.floor(random() * 1e9)).padStart(18, '0')}`;
    await insertBoth(
      'funding_rate',
      all.map(({ exchange, at }) => ({
        ...source('SER-USDT', at, { exchange }),
        funding_rate: exchange === 'okx_derivatives' && at >= peakAt && at < peakAt + MINUTE ? '0.75' : value(),
        ...{ funding_time: null, next_funding_time: null, funding_interval_hours: null },
        ...{ mark_price: null, index_price: null },
      })),
    );
    await insertBoth(
      'lsr_top_position',
      all
        .filter(({ at }) => at % (5 * MINUTE) < MINUTE)
        .flatMap(({ exchange, at }) =>
          ['5m', '1h'].map((period) => ({
            ...source('SER-USDT', at, { exchange }),
            ...{ period, long_position_ratio: '0.6', short_position_ratio: '0.4' },
            long_short_ratio: period === '5m' ? `1.${Math.floor(random() * 1e6)}` : '9',
          })),
        ),
    );
    await insertBoth(
      'volatility_index',
      all
        .filter(({ exchange }) => exchange === 'binance_derivatives')
        .map(({ at }) => ({
          ...source('SER', at, { exchange: 'deribit_derivatives', market_type: 'options' }),
          ...{ index_value: `5${random().toFixed(6)}`, underlying_asset: 'SER', maturity_date: null, resolution: '60' },
        })),
    );
    await insertBoth(
      'liquidation',
      Array.from({ length: 900 }, (_, i) => ({
        ...source('SER-USDT', T0 + Math.floor(random() * 20 * HOUR), { exchange: EXCHANGES[i % 2]! }),
        ...{ liquidation_id: `q${i}`, side: random() < 0.3 ? ('buy' as const) : ('sell' as const) },
        ...{ price: `${61000 + random() * 100}`.slice(0, 12), quantity: `0.${i + 1}00000000000001` },
      })),
    );
  });

  const span = `from=${T0 + 17 * MINUTE}&to=${T0 + DAY - 40 * MINUTE}`;

  test('has the lowest, highest and last value of each point as the raw rows have them, each row once, and null where there is none', async () => {
    for (const [points, step] of [
      [2000, MINUTE],
      [60, 30 * MINUTE],
      [7, 4 * HOUR],
    ] as const) {
      const answer: ReadingSeries = await web.ok(
        `/api/market/series?symbol=SER-USDT&type=funding&points=${points}&${span}`,
      );
      assert.equal(answer.step_ms, step);
      assert.equal(answer.times.length <= points, true);
      assert.deepEqual(
        answer.series.map(({ exchange, market_type, variant }) => [exchange, market_type, variant]),
        EXCHANGES.map((exchange) => [exchange, 'perpetual', null]),
      );
      for (const each of answer.series) {
        const raw = await pointsOfList('funding?symbol=SER-USDT', answer, { exchange: each.exchange });
        assert.equal(
          raw.some((rows) => rows.length === 0),
          step < HOUR,
        );
        for (const [i, rows] of raw.entries()) {
          const values = rows.map((row) => exact(row.funding_rate!));
          const sorted = [...values].sort((a, b) => (a < b ? -1 : 1));
          same(each.min[i]!, sorted[0] ?? null);
          same(each.max[i]!, sorted.at(-1) ?? null);
          same(each.last[i]!, values.at(-1) ?? null);
          assert.equal(each.rows[i], rows.length === 0 ? null : rows.length);
        }
        const newest = raw.flat().at(-1)!;
        assert.deepEqual(each.latest, { time: newest.timestamp, value: newest.funding_rate });
      }
    }
  });

  test('keeps a peak of one minute at the coarsest, and none where it was not', async () => {
    const { series, times, step_ms }: ReadingSeries = await web.ok(
      `/api/market/series?symbol=SER-USDT&type=funding&points=3&${span}`,
    );
    const at = times.findIndex((time) => peakAt >= time && peakAt < time + step_ms);
    assert.deepEqual(
      series.map(({ max }) => max.map((value) => value === '0.75')),
      [times.map(() => false), times.map((_, i) => i === at)],
    );
  });

  test('tells ratios of different periods apart, and is of one exchange where one is asked for', async () => {
    const path = `/api/market/series?symbol=SER-USDT&type=lsr_top_position&exchange=okx_derivatives&${span}`;
    const { series, step_ms, ...answer }: ReadingSeries = await web.ok(path);
    assert.deepEqual(
      series.map(({ exchange, variant }) => [exchange, variant]),
      ['1h', '5m'].map((variant) => ['okx_derivatives', variant]),
    );
    assert.equal(step_ms, 5 * MINUTE);
    assert.deepEqual(new Set(series[0]!.max), new Set(['9', null]));
    const raw = await pointsOfList(
      'lsr?symbol=SER-USDT',
      { ...answer, series, step_ms },
      {
        exchange: 'okx_derivatives',
        period: '5m',
      },
    );
    assert.deepEqual(
      series[1]!.last,
      raw.map((rows) => rows.at(-1)?.long_short_ratio ?? null),
    );
    assert.deepEqual((await web.ok(`${path}&market_type=spot`)).series, []);
  });

  test('of a market’s volatility is that of its coin', async () => {
    const answer: ReadingSeries = await web.ok(`/api/market/series?symbol=SER-USDT&type=volatility&${span}&points=40`);
    assert.equal(answer.symbol, 'SER');
    const raw = await pointsOfList('volatility?symbol=SER', answer);
    assert.deepEqual(
      answer.series.map(({ variant, last }) => [variant, last]),
      [['60', raw.map((rows) => rows.at(-1)?.index_value ?? null)]],
    );
  });

  test('of liquidations sums quantity × price by side, exactly, for each exchange, for all and over the whole time', async () => {
    const answer: LiquidationSeries = await web.ok(
      `/api/market/series?symbol=SER-USDT&type=liquidations&${span}&points=100`,
    );
    const sum = (rows: Listed[], side: string) =>
      rows
        .filter((row) => row.side === side)
        .reduce((total, { price, quantity }) => total + (exact(price!) * exact(quantity!)) / 10n ** BigInt(PLACES), 0n);
    const all = await pointsOfList('liquidations?symbol=SER-USDT', answer);
    assert.equal(all.flat().length > 500, true);
    assert.equal(
      all.some((rows) => rows.length === 0),
      true,
    );
    const parts = [
      { made: answer.total, of: () => true },
      ...answer.series.map((made) => ({ made, of: (row: Listed) => row.exchange === made.exchange })),
    ];
    assert.equal(parts.length, 3);
    for (const { made, of } of parts) {
      for (const [i, point] of all.entries()) {
        const rows = point.filter(of);
        same(made.buy_value[i]!, rows.length === 0 ? null : sum(rows, 'buy'));
        same(made.sell_value[i]!, rows.length === 0 ? null : sum(rows, 'sell'));
        const counts = ['buy', 'sell'].map((side) => rows.filter((row) => row.side === side).length);
        assert.deepEqual([made.buy_count[i], made.sell_count[i]], rows.length === 0 ? [null, null] : counts);
      }
    }
    same(answer.whole!.buy_value, sum(all.flat(), 'buy'));
    same(answer.whole!.sell_value, sum(all.flat(), 'sell'));
    assert.equal(answer.whole!.buy_count + answer.whole!.sell_count, all.flat().length);
    const none: LiquidationSeries = await web.ok('/api/market/series?symbol=NO-USDT&type=liquidations');
    assert.deepEqual([none.whole, none.series, new Set(none.total.sell_value)], [null, [], new Set([null])]);
  });

  test('is of the last day where no time is given, and refuses by name what it cannot do', async () => {
    const { from, to }: ReadingSeries = await web.ok('/api/market/series?symbol=SER-USDT&type=open_interest');
    assert.deepEqual([from, to], [NOW - DAY, NOW]);
    for (const [query, field] of [
      ['type=funding', 'symbol'],
      ['symbol=A-B', 'type'],
      ['symbol=A-B&type=trades', 'type'],
      ['symbol=A-B&type=funding&points=1', 'points'],
      ['symbol=A-B&type=funding&points=2001', 'points'],
      ['symbol=A-B&type=funding&exchange=nobody', 'exchange'],
      [`symbol=A-B&type=funding&from=${NOW}&to=${T0}`, 'from'],
      ['symbol=A-B&type=funding&step=5', 'step'],
    ] as const) {
      const { status, body } = await web.get(`/api/market/series?${query}`);
      assert.deepEqual([status, body.field], [400, field], query);
    }
  });

  test('has whole points since the epoch, never more than are asked for, however long it is', () => {
    for (const [from, to, most, every] of [
      [T0 + 1, T0 + DAY, 2, MINUTE],
      [T0 + 1, T0 + 30 * DAY, 360, MINUTE],
      [0, T0, 2000, 5 * MINUTE],
      [T0, T0 + 1, 2000, 5 * MINUTE],
    ] as const) {
      const points = pointsOf({ from, to }, most, every);
      assert.equal(points.times.length <= most, true);
      assert.equal(points.from <= from && points.to >= to && points.step >= every, true);
      assert.deepEqual(new Set(points.times.map((at) => at % points.step)), new Set([0]));
      assert.equal(points.to, points.times.at(-1)! + points.step);
    }
    assert.equal(pointsOf({ from: T0, to: T0 + DAY }, 288, MINUTE).step, 5 * MINUTE);
  });
});

describe('the list of symbols', () => {
  const trade = (id: number, change: Parameters<typeof sampleTrade>[1]) =>
    sampleTrade(id, { timestamp: T0, ...change });
  const marketsOf = async (symbol: string) => {
    // Beyond what is kept.
    now += 20 * MINUTE;
    const { symbols }: MarketSymbols = await web.ok('/api/market/symbols');
    return symbols.find((each) => each.symbol === symbol);
  };

  test('has each symbol of hot and of cold once with its markets, by trades or by order books alone', async () => {
    for (const [symbol, exchange] of [
      ['AAA-USDT', 'binance_spot'],
      ['AAA-USDT', 'okx_spot'],
      ['BBB-USDT', 'okx_spot'],
    ] as const)
      await insert('trade', [trade(1, { symbol, exchange }), trade(2, { symbol, exchange, timestamp: T0 + 5 })]);
    await insert(
      'trade',
      [trade(7, { symbol: 'CCC-USD', exchange: 'deribit_derivatives', market_type: 'perpetual' })],
      config.coldDatabase,
    );
    await insert('trade', [
      trade(8, { symbol: 'CCC-27DEC26', exchange: 'deribit_derivatives', market_type: 'futures' }),
    ]);
    // Another market of the same exchange, in the same tier.
    await insert('trade', [trade(9, { symbol: 'EEE-USD', exchange: 'deribit_derivatives', market_type: 'perpetual' })]);
    await insert('orderbook', [
      {
        ...source('DDD-USDT', T0),
        ...{
          last_update_id: 1,
          best_bid_price: '1',
          best_bid_quantity: '1',
          best_ask_price: '2',
          best_ask_quantity: '1',
        },
        ...{ bids: [['1', '1']], asks: [['2', '1']], verified: 'verified' as const },
      },
    ]);
    now += 20 * MINUTE;
    const { symbols, more }: MarketSymbols = await web.ok('/api/market/symbols');
    const last = (time: number, id: string) => ({ time, price: '61837.63', trade_id: id });
    const spot = (exchange: string) => ({ exchange, market_type: 'spot', last_trade: last(T0 + 5, '2') });
    const deribit = (market_type: string, id: string) => ({
      ...{ exchange: 'deribit_derivatives', market_type, last_trade: last(T0, id) },
    });
    assert.deepEqual(symbols, [
      { symbol: 'AAA-USDT', base: 'AAA', markets: [spot('binance_spot'), spot('okx_spot')] },
      { symbol: 'BBB-USDT', base: 'BBB', markets: [spot('okx_spot')] },
      { symbol: 'CCC-27DEC26', base: 'CCC', markets: [deribit('futures', '8')] },
      { symbol: 'CCC-USD', base: 'CCC', markets: [deribit('perpetual', '7')] },
      {
        ...{ symbol: 'DDD-USDT', base: 'DDD' },
        markets: [{ exchange: 'binance_derivatives', market_type: 'perpetual', last_trade: null }],
      },
      { symbol: 'EEE-USD', base: 'EEE', markets: [deribit('perpetual', '9')] },
    ]);
    assert.equal(more, false);
  });

  test('has the newest trade by its event time, though an older one came to hot later, and by its number within a millisecond', async () => {
    const of = { symbol: 'NEW-USDT' };
    await insert(
      'trade',
      [9, 10, 8].map((id) => trade(id, { ...of, timestamp: T0 + 50, price: `${id}.5` })),
      config.coldDatabase,
    );
    await insert('trade', [trade(3, { ...of, timestamp: T0 + 20 })]);
    assert.deepEqual((await marketsOf('NEW-USDT'))!.markets[0]!.last_trade, {
      time: T0 + 50,
      price: '10.5',
      trade_id: '10',
    });
    // As the candles have it.
    const { candles } = await web.ok(
      `/api/market/candles?symbol=NEW-USDT&exchange=binance_spot&interval=1m&from=${T0}&to=${T0 + MINUTE}`,
    );
    assert.equal(candles.length, 1);
    await insert('trade', [trade(11, { ...of, timestamp: T0 + 60, price: '7' })]);
    assert.deepEqual((await marketsOf('NEW-USDT'))!.markets[0]!.last_trade, {
      time: T0 + 60,
      price: '7',
      trade_id: '11',
    });
  });

  test('is looked for once by whoever asks at once, told while it is looked for again, and a failure is not kept', async () => {
    const kept = new Kept<number>(100, 1000);
    let looks = 0;
    const look = async () => ++looks;
    assert.deepEqual(await Promise.all([kept.get(0, look), kept.get(50, look)]), [1, 1]);
    // Told at once, and looked for again meanwhile, once.
    assert.deepEqual(await Promise.all([kept.get(500, look), kept.get(500, look)]), [1, 1]);
    assert.equal(await kept.get(550, look), 2);
    // Too old to be told.
    assert.equal(await kept.get(5000, look), 3);
    const fails = async () => {
      throw new Error('away');
    };
    await assert.rejects(kept.get(9000, fails), /away/);
    assert.equal(await kept.get(9001, look), 4);
  });
});

describe('the depth', () => {
  const levels = (first: number, sign: 1 | -1) =>
    Array.from({ length: 60 }, (_, i): [string, string] => [
      (first + sign * i * 0.1).toFixed(1),
      `0.${i + 1}00000000000001`,
    ]);

  test('is the book of now with what lies up to each level, its spread and its age', async () => {
    now = NOW + DAY;
    const at = now - 4321;
    const [bids, asks] = [levels(100, -1), levels(100.3, 1)];
    await insert('orderbook', [
      {
        ...source('DEP-USDT', at, { exchange: 'okx_spot', market_type: 'spot' }),
        ...{
          last_update_id: 5,
          best_bid_price: '100.0',
          best_bid_quantity: '1',
          best_ask_price: '100.3',
          best_ask_quantity: '1',
        },
        ...{ bids, asks, verified: 'verified' as const },
      },
    ]);
    const { book, ...rest }: Depth = await web.ok('/api/market/depth?symbol=DEP-USDT&exchange=okx_spot&depth=25');
    assert.deepEqual(rest, { exchange: 'okx_spot', symbol: 'DEP-USDT', at: now });
    assert.deepEqual([book!.time, book!.age_ms, book!.complete, book!.reason], [at, 4321, null, 'not_known_yet']);
    const { best_bid, best_ask, spread, mid, spread_bps } = book!;
    assert.deepEqual([best_bid, best_ask, spread, mid], ['100', '100.3', '0.3', '100.15']);
    assert.equal(spread_bps, '29.955067398901647529');
    const answer = await fetch(`${web.url}/api/market/orderbook?symbol=DEP-USDT&exchange=okx_spot&at=${now}&depth=25`);
    const raw = (await answer.json()) as Record<'bids' | 'asks', [string, string][]>;
    for (const side of ['bids', 'asks'] as const) {
      assert.equal(book![side].length, 25);
      let total = 0n;
      for (const [i, { price, quantity, total: upTo }] of book![side].entries()) {
        assert.deepEqual([price, quantity], raw[side][i]);
        same(upTo, (total += exact(quantity)));
      }
    }
    assert.deepEqual(cumulated([]), []);
  });

  test('says where no book is known, and what is wrong', async () => {
    const none = await web.ok('/api/market/depth?symbol=NONE-USDT&exchange=okx_spot');
    assert.equal(none.book, null);
    for (const [query, field] of [
      ['symbol=DEP-USDT', 'exchange'],
      ['symbol=DEP-USDT&exchange=okx_spot&depth=401', 'depth'],
    ] as const) {
      const { status, body } = await web.get(`/api/market/depth?${query}`);
      assert.deepEqual([status, body.field], [400, field]);
    }
  });
});
