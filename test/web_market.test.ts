/** The API of market data against the real engine, over sockets: what was inserted comes back with every digit, once, in order. */
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { get as httpGet, type IncomingMessage } from 'node:http';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { insertLines } from '../scripts/lib/clickhouse.ts';
import { type Config, loadConfig } from '../scripts/lib/config.ts';
import { createLogger } from '../scripts/lib/log.ts';
import { pause } from '../scripts/lib/pause.ts';
import { waitFor } from '../scripts/lib/processes.ts';
import {
  type DataType,
  encodeRow,
  type GapRow,
  type OrderbookRow,
  type OrderbookUpdateRow,
  type RowSource,
  type Rows,
  TABLES,
  type TradeRow,
  textColumns,
} from '../scripts/lib/rows.ts';
import { ensureTier, ensureViews } from '../scripts/lib/schema.ts';
import { type Base, bookFrom, type Update } from '../scripts/lib/web/market_book.ts';
import type { Candle } from '../scripts/lib/web/market_candles.ts';
import { Slots } from '../scripts/lib/web/market_database.ts';
import { windowsOf } from '../scripts/lib/web/market_replay.ts';
import { MARKET_ROUTES } from '../scripts/lib/web/market_routes.ts';
import type { WebContext } from '../scripts/lib/web/route.ts';
import { type Served, serve } from '../scripts/lib/web/server.ts';
import { canonical, sampleTrade } from './fixtures.ts';
import { Pipeline, READY_MS } from './pipeline.ts';

const SECOND = 1000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;
/** 2026-11-24 08:00 UTC: before the clock of the service, after what hot and cold would expire. */
const T0 = Date.UTC(2026, 10, 24, 8);
const NOW = T0 + 6 * DAY;
const LOG = createLogger('test', 'silent');
const pipeline = new Pipeline();
const stop = new AbortController();
let config: Config;
let served: Served;
let sequence = 0;

before(async () => {
  await pipeline.choosePorts();
  await pipeline.startDatabase();
  config = loadConfig(pipeline.env);
  const client = pipeline.client();
  await ensureTier(client, 'hot', config.hotDatabase);
  await ensureTier(client, 'cold', config.coldDatabase);
  await ensureViews(client, config, LOG);
  served = await serve({ context: contextOf(config), routes: MARKET_ROUTES, port: 0 });
});
after(async () => {
  stop.abort();
  await served?.close();
  await pipeline.close();
});

function contextOf(of: Config): WebContext {
  return { config: of, log: LOG, clock: () => NOW, client: pipeline.client(), stop: stop.signal };
}

/** Inserts as the store does: each row with its place in the stream. */
async function insert<T extends DataType>(type: T, rows: Rows[T][], database = config.hotDatabase): Promise<void> {
  const lines = rows.map((row) => `${encodeRow(type, row).slice(0, -1)},"js_epoch":1,"js_seq":${++sequence}}\n`);
  await insertLines(
    pipeline.client(),
    `${database}.${TABLES[type].name}`,
    Buffer.from(lines.join('')),
    `test:${sequence}`,
  );
}

async function command(query: string): Promise<void> {
  await pipeline.client().command({ query });
}

async function ask(path: string, from = served): Promise<Response> {
  return fetch(`${from.url}/api/market/${path}`, {
    headers: { 'accept-encoding': 'identity' },
    signal: AbortSignal.timeout(READY_MS),
  });
}

interface ListPage {
  data: Record<string, unknown>[];
  next: string | null;
  more: boolean;
}
async function json<T = ListPage>(path: string): Promise<T> {
  const answer = await ask(path);
  const text = await answer.text();
  assert.equal(answer.status, 200, `${path}: ${text.slice(0, 300)}`);
  return JSON.parse(text) as T;
}

/** A row as lists show it: decimals without zeros that say nothing, ids as text. */
function shown<T extends DataType>(type: T, row: Rows[T]): Record<string, unknown> {
  const values = row as unknown as Record<string, unknown>;
  const out: Record<string, unknown> = {};
  for (const { name, kind } of textColumns(type)) {
    const value = values[name];
    if (value === null) out[name] = null;
    else if (kind === 'decimal') out[name] = canonical(value as string);
    else if (kind === 'integer') out[name] = String(value);
    else if (kind === 'levels') out[name] = (value as string[][]).map((each) => each.map(canonical));
    else out[name] = value;
  }
  return out;
}

/** The same numbers each run. */
function randomNumbers(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

const source = (symbol: string, timestamp: number, change: Partial<RowSource> = {}): RowSource => ({
  ...{
    exchange: 'binance_derivatives' as const,
    market_type: 'perpetual' as const,
    symbol,
    instrument: symbol.replace('-', ''),
  },
  ...{ timestamp, received_at: timestamp * 1000 + 1234, data_source: 'live' },
  ...change,
});
const LONG = '12345678901234567890.000000000000000001';
const BIG_ID = '18446744073709551615';

const ONE_OF_EACH: { [T in DataType]?: Rows[T] } = {
  trade: {
    ...source('ONE-USDT', T0),
    trade_id: '00x7',
    sequence: BIG_ID,
    price: LONG,
    quantity: '0.000000000000000001',
    side: 'sell',
    is_maker: true,
  },
  orderbook: {
    ...source('ONE-USDT', T0),
    ...{
      last_update_id: BIG_ID,
      best_bid_price: LONG,
      best_bid_quantity: '1.50',
      best_ask_price: '2',
      best_ask_quantity: '3',
    },
    ...{
      bids: [
        [LONG, '1.50'],
        ['1', '2'],
      ],
      asks: [['2', '3']],
      verified: 'unverifiable',
    },
  },
  orderbook_update: {
    ...source('ONE-USDT', T0),
    ...{
      first_update_id: null,
      last_update_id: BIG_ID,
      prev_update_id: 7,
      is_snapshot: true,
      bids: [],
      asks: [[LONG, '0']],
    },
  },
  funding_rate: {
    ...source('ONE-USDT', T0),
    ...{
      funding_rate: '-0.000100000000000001',
      funding_time: null,
      next_funding_time: T0 + HOUR,
      funding_interval_hours: '8',
    },
    ...{ mark_price: null, index_price: LONG },
  },
  open_interest: { ...source('ONE-USDT', T0), open_interest: LONG, open_interest_value: null, contracts: '5' },
  liquidation: { ...source('ONE-USDT', T0), liquidation_id: 'a/b"c', side: 'buy', price: LONG, quantity: '0.1' },
  lsr_top_position: {
    ...source('ONE-USDT', T0),
    period: '5m',
    long_position_ratio: '0.6',
    short_position_ratio: '0.4',
    long_short_ratio: '1.5',
  },
  lsr_all_account: {
    ...source('ONE-USDT', T0),
    period: '5m',
    long_account_ratio: '0.7',
    short_account_ratio: '0.3',
    long_short_ratio: '2.3333',
  },
  volatility_index: {
    ...source('ONE-USDT', T0),
    index_value: '55.123456789012345678',
    underlying_asset: 'ONE',
    maturity_date: '2026-12-25',
    resolution: '60',
  },
  gap: gapRow('ONE-USDT', T0, T0 + 5000),
};
const PATHS: Partial<Record<DataType, string>> = {
  ...{ trade: 'trades', orderbook: 'orderbook', orderbook_update: 'orderbook-updates', funding_rate: 'funding' },
  ...{ open_interest: 'open-interest', liquidation: 'liquidations', volatility_index: 'volatility', gap: 'gaps' },
  ...{ lsr_top_position: 'lsr', lsr_all_account: 'lsr?kind=all_account' },
};

function gapRow(symbol: string, from: number, to: number, change: Partial<GapRow> = {}): GapRow {
  return {
    ...source(symbol, from, { received_at: to * 1000 + 40_000_000 }),
    ...{
      gap_id: `${symbol}-${from}`,
      data_type: 'trade',
      from_id: '5',
      to_id: '9',
      from_time: from,
      to_time: to,
      cause: 'outage',
    },
    ...{ reason: null, status: 'open' as const, rows: 5, filled_rows: null, detected_at: to + 40_000, closed_at: null },
    ...change,
  };
}

describe('lists', () => {
  const trades = Array.from({ length: 400 }, (_, i) =>
    sampleTrade(i, {
      symbol: 'DIG-USDT',
      timestamp: T0 + Math.floor(i / 4),
      received_at: (T0 + i) * 1000 + 7,
      price: i % 3 === 0 ? LONG : `0.${String(i + 1).padStart(18, '0')}`,
      quantity: `${i}.10`,
      sequence: i % 2 === 0 ? null : BIG_ID,
    }),
  );
  /** As lists are sorted: by time, then by id as a text. */
  const sorted = [...trades].sort((a, b) => a.timestamp - b.timestamp || (a.trade_id < b.trade_id ? -1 : 1));
  const rows = sorted.map((row) => shown('trade', row));
  const ofSpan = `symbol=DIG-USDT&from=${T0}&to=${T0 + HOUR}`;

  before(async () => {
    for (const [type, row] of Object.entries(ONE_OF_EACH)) await insert(type as DataType, [row]);
    // Cold has the first half and says so; hot has all, as it has for days.
    const begin = sequence;
    await insert('trade', trades);
    sequence = begin;
    await insert('trade', trades.slice(0, 200), config.coldDatabase);
    sequence = begin + trades.length;
    await command(
      `INSERT INTO ${config.coldDatabase}.replication_progress (table_name, js_epoch, after_seq, upto_seq, window_rows, copied_rows, window_hash) SELECT 'trades', 1, 0, ${begin + 200}, 200, 200, 1`,
    );
    // What cold says it has came before all tests: rows of hot below are cold's now.
    const end = sequence;
    sequence = 0;
    await insert('trade', [ONE_OF_EACH.trade!], config.coldDatabase);
    sequence = end;
  });

  test('show each type as it was inserted: decimals and ids as text, times as numbers, what is absent as null', async () => {
    for (const [type, path] of Object.entries(PATHS)) {
      const { data } = await json(`${path}${path.includes('?') ? '&' : '?'}symbol=ONE-USDT&from=${T0}&to=${T0 + 1}`);
      assert.deepEqual(data, [shown(type as DataType, ONE_OF_EACH[type as DataType]!)], type);
    }
  });

  test('are one over both tiers, sorted, the same in JSON and NDJSON', async () => {
    const { data, more, next } = await json(`trades?${ofSpan}`);
    assert.deepEqual(data, rows);
    assert.equal(more, false);
    assert.notEqual(next, null);
    const lines = (await (await ask(`trades?${ofSpan}&format=ndjson&order=desc`)).text()).trimEnd().split('\n');
    assert.deepEqual(
      lines.map((line) => JSON.parse(line)),
      [...rows].reverse(),
    );
    assert.deepEqual(await json(`trades?symbol=NO-USDT`), { data: [], next: null, more: false });
  });

  test('keep all digits in CSV, in which null is empty', async () => {
    const answer = await ask(`trades?${ofSpan}&format=csv&limit=2`);
    assert.equal(answer.headers.get('content-type'), 'text/csv; charset=utf-8; header=present');
    const [head, ...lines] = (await answer.text())
      .trimEnd()
      .split('\n')
      .map((line) => line.replaceAll('"', '').split(','));
    const cells = lines.map((line) => Object.fromEntries(line.map((cell, i) => [head![i], cell])));
    const texts = rows
      .slice(0, 2)
      .map((row) => Object.fromEntries(Object.entries(row).map(([k, v]) => [k, v === null ? '' : String(v)])));
    assert.deepEqual(cells, texts);
    assert.equal(answer.headers.get('x-more'), 'true');
    const books = await (await ask(`orderbook?symbol=ONE-USDT&from=${T0}&to=${T0 + 1}&format=csv`)).text();
    assert.match(books, new RegExp(`"\\[\\[""${LONG}"",""1.5""\\],\\[""1"",""2""\\]\\]"`));
  });

  test('read back from Parquet are the rows themselves', async () => {
    const body = Buffer.from(await (await ask(`trades?${ofSpan}&format=parquet`)).arrayBuffer());
    assert.equal(body.subarray(0, 4).toString(), 'PAR1');
    const names = TABLES.trade.columns.flatMap(({ name, kind }) => (kind === undefined ? [] : [name])).join(', ');
    const path = join(pipeline.dir, 'trades.parquet');
    writeFileSync(path, body);
    await command(`CREATE TABLE default.read_back AS ${config.hotDatabase}.trades`);
    await command(`INSERT INTO default.read_back (${names}) SELECT ${names} FROM file('${path}', Parquet)`);
    const sum = (table: string) => `SELECT count(), sum(cityHash64(${names})) FROM ${table} WHERE symbol = 'DIG-USDT'`;
    assert.deepEqual(await pipeline.query(sum('default.read_back')), await pipeline.query(sum('marketprism.trades')));
    assert.deepEqual(await pipeline.query('SELECT toString(max(price)) FROM default.read_back'), [[LONG]]);
  });

  test('are paged by place: what is there from the start comes once, whatever arrives meanwhile', async () => {
    const random = randomNumbers(7);
    const row = (i: number, exchange: 'binance_spot' | 'okx_spot') =>
      sampleTrade(i, {
        symbol: 'PAGE-USDT',
        exchange,
        timestamp: T0 + Math.floor(random() * 500),
        trade_id: String(i),
      });
    const all = Array.from({ length: 3000 }, (_, i) => row(i, i % 3 === 0 ? 'okx_spot' : 'binance_spot'));
    await insert('trade', all);
    let added = 3000;
    for (const order of ['asc', 'desc']) {
      const seen = new Map<string, number>();
      const places: string[] = [];
      for (let cursor = '', more = true; more; ) {
        const page = await json(`trades?symbol=PAGE-USDT&from=${T0}&to=${T0 + HOUR}&limit=211&order=${order}${cursor}`);
        for (const { exchange, trade_id, timestamp } of page.data) {
          const key = `${exchange} ${trade_id}`;
          seen.set(key, (seen.get(key) ?? 0) + 1);
          places.push(`${timestamp} ${exchange} spot ${trade_id}`);
        }
        cursor = `&cursor=${page.next}`;
        more = page.more;
        await insert(
          'trade',
          Array.from({ length: 50 }, () => row(added++, random() < 0.5 ? 'okx_spot' : 'binance_spot')),
        );
      }
      assert.deepEqual(
        all.filter(({ exchange, trade_id }) => seen.get(`${exchange} ${trade_id}`) !== 1),
        [],
      );
      assert.deepEqual(
        [...seen].filter(([, times]) => times > 1),
        [],
      );
      const expected = [...places].sort();
      assert.deepEqual(places, order === 'asc' ? expected : expected.reverse());
    }
  });

  test('a page ends at the cursor that its head names, and goes on after it when rows have come', async () => {
    const first = await ask(`trades?${ofSpan}&limit=7&format=ndjson`);
    const cursor = first.headers.get('x-next-cursor');
    const { data } = await json(`trades?${ofSpan}&limit=3&cursor=${cursor}`);
    assert.deepEqual(data, rows.slice(7, 10));
    const all = await json(`trades?${ofSpan}`);
    const late = sampleTrade(900, { symbol: 'DIG-USDT', timestamp: T0 + MINUTE });
    await insert('trade', [late]);
    assert.deepEqual((await json(`trades?${ofSpan}&cursor=${all.next}`)).data, [shown('trade', late)]);
  });

  test('gaps are those that reach into the time, each in its last state', async () => {
    const gap = gapRow('GAP-USDT', T0, T0 + MINUTE);
    await insert('gap', [gap, gapRow('GAP-USDT', T0 + HOUR, T0 + HOUR + 1)]);
    const filled: GapRow = { ...gap, status: 'filled', filled_rows: 5, closed_at: T0 + HOUR };
    await insert('gap', [filled]);
    await insert('gap', [{ ...gap, status: 'unfillable', reason: 'said later' }]);
    const { data } = await json(`gaps?symbol=GAP-USDT&from=${T0 + 30_000}&to=${T0 + HOUR}`);
    assert.deepEqual(data, [shown('gap', filled)]);
  });

  test('refuse what is wrong, by the name of the parameter', async () => {
    const cursor = Buffer.from(JSON.stringify(['orderbooks', '1', 'a', 'b', '2'])).toString('base64url');
    const wrong: [path: string, field: string][] = [
      ['trades', 'symbol'],
      ["trades?symbol=BTC'--", 'symbol'],
      ['trades?symbol=BTC-USDT&exchange=nowhere', 'exchange'],
      ['trades?symbol=BTC-USDT&market_type=swap', 'market_type'],
      ['trades?symbol=BTC-USDT&from=yesterday', 'from'],
      ['trades?symbol=BTC-USDT&to=2026-11-24T08:00', 'to'],
      ['trades?symbol=BTC-USDT&from=1795000000000000', 'from'],
      [`trades?symbol=BTC-USDT&from=${T0}&to=${T0}`, 'from'],
      ['trades?symbol=BTC-USDT&limit=0', 'limit'],
      ['trades?symbol=BTC-USDT&limit=1000001', 'limit'],
      ['trades?symbol=BTC-USDT&limit=1.5', 'limit'],
      ['trades?symbol=BTC-USDT&order=up', 'order'],
      ['trades?symbol=BTC-USDT&format=xml', 'format'],
      ['trades?symbol=BTC-USDT&cursor=abc', 'cursor'],
      [`trades?symbol=BTC-USDT&cursor=${cursor}`, 'cursor'],
      ['trades?symbol=BTC-USDT&sort=price', 'sort'],
      ['lsr?symbol=BTC-USDT&kind=mine', 'kind'],
      ['candles?symbol=BTC-USDT&exchange=okx_spot&interval=2m', 'interval'],
      ['candles?symbol=BTC-USDT&interval=1m', 'exchange'],
      [`orderbook?symbol=BTC-USDT&at=${T0}`, 'exchange'],
      ['orderbook?symbol=BTC-USDT&exchange=okx_spot&depth=5', 'depth'],
      [`orderbook?symbol=BTC-USDT&exchange=okx_spot&at=${T0}&from=1`, 'from'],
      [`replay?symbol=BTC-USDT&from=${T0 - 40 * DAY}&to=${T0}`, 'from'],
    ];
    for (const [path, field] of wrong) {
      const answer = await ask(path);
      const { error, field: named } = (await answer.json()) as { error: string; field: string };
      assert.deepEqual([answer.status, named], [400, field], `${path}: ${error}`);
    }
    const offset = await json(`trades?${ofSpan.replace(String(T0), '2026-11-24T16:00:00+08:00')}&limit=1`);
    assert.deepEqual(offset.data, rows.slice(0, 1));
  });

  test('of two servers, hot answers for the last two days and cold for what reaches further back, and it is said', async () => {
    // Another name of the same one: `localhost` is not known on every machine.
    const elsewhere = { ...config, coldClickhouseUrl: `${config.clickhouseUrl}/` };
    const own = new AbortController();
    const two = await serve({ context: { ...contextOf(elsewhere), stop: own.signal }, routes: MARKET_ROUTES, port: 0 });
    try {
      const ask2 = (from: number) => ask(`trades?symbol=TWO-USDT&from=${from}&to=${NOW}`, two);
      await insert('trade', [sampleTrade(1, { symbol: 'TWO-USDT', timestamp: NOW - HOUR })]);
      await insert('trade', [sampleTrade(2, { symbol: 'TWO-USDT', timestamp: NOW - 3 * DAY })], config.coldDatabase);
      for (const [from, tier, id] of [
        [NOW - DAY, 'hot', '1'],
        [NOW - 4 * DAY, 'cold', '2'],
      ] as const) {
        const answer = await ask2(from);
        assert.equal(answer.headers.get('x-tier'), tier);
        assert.deepEqual(
          ((await answer.json()) as ListPage).data.map(({ trade_id }) => trade_id),
          [id],
        );
      }
    } finally {
      own.abort();
      await two.close();
    }
  });
});

/** Scaled by 10^18. */
function scaled(text: string): bigint {
  const [whole, fraction = ''] = text.split('.');
  return BigInt(whole + fraction.padEnd(18, '0'));
}
function unscaled(value: bigint, places: number): string {
  const digits = String(value).padStart(places + 1, '0');
  return canonical(`${digits.slice(0, -places)}.${digits.slice(-places)}`);
}

interface CandlesAnswer {
  market_type: string | null;
  candles: Candle[];
  next_from: number | null;
}

describe('candles', () => {
  const INTERVAL_MS = {
    '1s': SECOND,
    '5s': 5 * SECOND,
    '15s': 15 * SECOND,
    '1m': MINUTE,
    '5m': 5 * MINUTE,
    '15m': 15 * MINUTE,
    '1h': HOUR,
    '4h': 4 * HOUR,
    '1d': DAY,
  };

  /** Another way of computing: in the order of the trades' numbers, or of their arrival. */
  function expected(trades: TradeRow[], start: number, step: number): Partial<Candle> {
    const of = trades.filter(({ timestamp }) => timestamp >= start && timestamp < start + step);
    const place = (row: TradeRow) =>
      row.exchange === 'hyperliquid'
        ? row.received_at
        : row.exchange === 'deribit_derivatives'
          ? Number(row.sequence)
          : Number(row.trade_id);
    of.sort((a, b) => a.timestamp - b.timestamp || place(a) - place(b));
    const prices = of.map(({ price }) => scaled(price)).sort((a, b) => (a < b ? -1 : a > b ? 1 : 0));
    const sum = (rows: TradeRow[], value: (row: TradeRow) => bigint) => rows.reduce((all, row) => all + value(row), 0n);
    const [first, last] = [of[0], of.at(-1)];
    return {
      time: start,
      open: first ? canonical(first.price) : null,
      high: prices.length ? unscaled(prices.at(-1)!, 18) : null,
      low: prices.length ? unscaled(prices[0]!, 18) : null,
      close: last ? canonical(last.price) : null,
      volume: unscaled(
        sum(of, ({ quantity }) => scaled(quantity)),
        18,
      ),
      quote_volume: unscaled(
        sum(of, ({ price, quantity }) => scaled(price) * scaled(quantity)),
        36,
      ),
      buy_volume: unscaled(
        sum(
          of.filter(({ side }) => side === 'buy'),
          ({ quantity }) => scaled(quantity),
        ),
        18,
      ),
      count: of.length,
      first_trade_id: first?.trade_id ?? null,
      last_trade_id: last?.trade_id ?? null,
    };
  }

  test('are what their trades make, by another way of computing, on each kind of numbering and with many in one ms', async () => {
    const random = randomNumbers(11);
    for (const exchange of ['binance_spot', 'deribit_derivatives', 'hyperliquid'] as const) {
      const market_type = exchange === 'binance_spot' ? 'spot' : 'perpetual';
      let at = T0;
      const trades = Array.from({ length: 1500 }, (_, i) => {
        // Several in one ms, and whole seconds without any; ids of which the longer ones are the later.
        at +=
          i === 0 || random() < 0.7 ? 0 : random() < 0.1 ? Math.floor(random() * 20_000) : Math.floor(random() * 300);
        const number = 9000 + i;
        return sampleTrade(i, {
          ...{
            symbol: 'CAN-USDT',
            exchange,
            market_type,
            timestamp: at,
            received_at: (T0 + HOUR) * 1000 + ((i * 7919) % 1500),
          },
          trade_id:
            exchange === 'hyperliquid'
              ? `h${(i * 31) % 1500}`
              : exchange === 'deribit_derivatives'
                ? `T-${(i * 17) % 1500}`
                : String(number),
          sequence: exchange === 'deribit_derivatives' ? number : null,
          price: `${60_000 + Math.floor(random() * 100)}.${String(Math.floor(random() * 1e9)).padStart(18, '0')}`,
          quantity: `${Math.floor(random() * 10)}.${String(Math.floor(random() * 1e9) + 1).padStart(18, '0')}`,
          side: random() < 0.5 ? 'buy' : 'sell',
        });
      });
      // One far after, so that all before is known; inserted in no order.
      trades.push({ ...trades[0]!, timestamp: T0 + 3 * DAY, trade_id: '999999', sequence: 999_999 });
      await insert(
        'trade',
        [...trades].sort(() => random() - 0.5),
      );
      for (const [interval, step] of Object.entries(INTERVAL_MS)) {
        const from = Math.ceil(T0 / step) * step;
        const { candles, market_type: found } = await json<CandlesAnswer>(
          `candles?symbol=CAN-USDT&exchange=${exchange}&interval=${interval}&from=${from}&to=${at}&limit=2000`.replace(
            `&to=${at}`,
            `&to=${Math.max(at, from + step)}`,
          ),
        );
        assert.equal(found, market_type);
        for (const { complete, finished, ...candle } of candles) {
          assert.deepEqual(candle, expected(trades, candle.time, step), `${exchange} ${interval}`);
          assert.deepEqual([complete, finished], [true, true]);
        }
        if (step <= MINUTE) assert.notEqual(candles.length, 1);
      }
    }
  });

  test('say where trades are missing, where none can be known, and which is not over', async () => {
    const trade = (id: number, timestamp: number) => sampleTrade(id, { symbol: 'KNOW-USDT', timestamp, price: '7' });
    const base = NOW - 20 * MINUTE;
    await insert('trade', [
      trade(1, base),
      trade(2, base + MINUTE),
      trade(8, base + 5 * MINUTE),
      trade(9, base + 10 * MINUTE + 1),
      trade(10, NOW - 5 * SECOND),
    ]);
    const own = { exchange: 'binance_spot', market_type: 'spot' } as const;
    await insert('gap', [
      gapRow('KNOW-USDT', base + MINUTE, base + 5 * MINUTE, own),
      // Filled ones and those of other types are none.
      gapRow('KNOW-USDT', base + 6 * MINUTE, base + 7 * MINUTE, { ...own, status: 'filled' }),
      gapRow('KNOW-USDT', base + 8 * MINUTE, base + 9 * MINUTE, { ...own, data_type: 'orderbook' }),
    ]);
    const { candles, next_from } = await json<CandlesAnswer>(
      `candles?symbol=KNOW-USDT&exchange=binance_spot&interval=1m&from=${base - MINUTE}&to=${NOW + MINUTE}`,
    );
    assert.equal(next_from, null);
    const at = (minute: number) =>
      candles.find(({ time }) => time === Math.floor((base + minute * MINUTE) / MINUTE) * MINUTE)!;
    const summary = (minute: number) => [
      at(minute).complete,
      at(minute).volume,
      at(minute).count,
      at(minute).close,
      at(minute).finished,
    ];
    // Before the first trade nothing is known.
    assert.deepEqual(summary(-1), [null, null, null, null, true]);
    assert.deepEqual(summary(0), [true, '0.5', 1, '7', true]);
    assert.deepEqual(summary(1), [false, '0.5', 1, '7', true]);
    for (const minute of [2, 3, 4]) assert.deepEqual(summary(minute), [false, null, null, null, true]);
    assert.deepEqual(summary(5), [false, '0.5', 1, '7', true]);
    for (const minute of [6, 7, 8, 9, 15]) assert.deepEqual(summary(minute), [true, '0', 0, null, true]);
    assert.deepEqual(summary(10), [true, '0.5', 1, '7', true]);
    // After the last trade of all, too.
    assert.deepEqual(summary(19), [null, '0.5', 1, '7', true]);
    assert.deepEqual(summary(20), [null, null, null, null, false]);
  });

  test('that are too many go on where they ended', async () => {
    const path = `candles?symbol=KNOW-USDT&exchange=binance_spot&interval=5s&to=${NOW}`;
    const { candles, next_from } = await json<CandlesAnswer>(`${path}&from=${NOW - MINUTE}&limit=7`);
    assert.deepEqual([candles.length, next_from], [7, NOW - MINUTE + 35_000]);
    assert.equal((await json<CandlesAnswer>(`${path}&from=${next_from}`)).candles.length, 5);
    assert.equal((await json<CandlesAnswer>('candles?symbol=NO-USDT&exchange=okx_spot&interval=1d')).market_type, null);
  });

  test('of a symbol on two markets need the market', async () => {
    for (const market_type of ['perpetual', 'futures'] as const)
      await insert('trade', [
        sampleTrade(1, { symbol: 'TWOM-USDT', exchange: 'okx_derivatives', market_type, timestamp: T0 }),
      ]);
    const answer = await ask('candles?symbol=TWOM-USDT&exchange=okx_derivatives&interval=1d');
    assert.deepEqual(
      [answer.status, await answer.json()],
      [400, { error: 'TWOM-USDT is on several markets of okx_derivatives: futures, perpetual', field: 'market_type' }],
    );
  });
});

interface BookAnswer {
  bids: string[][];
  asks: string[][];
  last_update_id: string;
  time: number;
  age_ms: number;
  base: { kind: string; last_update_id: string };
  updates: number;
  complete: boolean | null;
  reason: string | null;
  cut: boolean;
}

/** One side as a map of prices, the naive way. */
type Side = Map<string, string>;
function best(side: Side, sign: 1 | -1, depth: number): string[][] {
  return [...side].sort(([a], [b]) => (Number(b) - Number(a)) * sign).slice(0, depth);
}

interface MadeBook {
  updates: OrderbookUpdateRow[];
  samples: OrderbookRow[];
  /** Both sides after each update, by its index. */
  states: { bids: string[][]; asks: string[][] }[];
}

/** A market of 60 s: an update each 100 ms whose ids are a chain, a sample each 10 s. */
function madeBook(symbol: string, exchange: 'binance_spot' | 'okx_spot', seed: number): MadeBook {
  const random = randomNumbers(seed);
  const own = { exchange, market_type: 'spot' as const };
  const [bids, asks]: [Side, Side] = [new Map(), new Map()];
  for (let i = 1; i <= 40; i++) bids.set(`${100 - i}.5`, '1');
  for (let i = 1; i <= 40; i++) asks.set(`${100 + i}.5`, '2');
  const made: MadeBook = { updates: [], samples: [], states: [] };
  for (let i = 0; i < 600; i++) {
    const time = T0 + i * 100;
    const change = (side: Side, sign: number): [string, string][] =>
      Array.from({ length: 4 }, () => {
        const price = `${100 + sign * (1 + Math.floor(random() * 45))}.5`;
        const quantity =
          random() < 0.3 && side.size > 20 ? '0' : `${Math.floor(random() * 100) + 1}.000000000000000001`;
        return [price, quantity] as [string, string];
      }).filter(([price], at, all) => all.findIndex(([other]) => other === price) === at);
    const [bidChange, askChange] = [change(bids, -1), change(asks, 1)];
    for (const [side, changes] of [
      [bids, bidChange],
      [asks, askChange],
    ] as const)
      for (const [price, quantity] of changes) quantity === '0' ? side.delete(price) : side.set(price, quantity);
    const [first, last] = [1000 + i * 3, 1002 + i * 3];
    const isOkx = exchange === 'okx_spot';
    made.updates.push({
      ...source(symbol, time, own),
      ...{ first_update_id: isOkx ? null : first, last_update_id: last, prev_update_id: isOkx ? first - 1 : null },
      ...{ is_snapshot: false, bids: bidChange, asks: askChange },
    });
    made.states.push({ bids: best(bids, 1, 10), asks: best(asks, -1, 10) });
    if (i % 100 !== 0) continue;
    const [bid, ask] = [best(bids, 1, 400), best(asks, -1, 400)] as [[string, string][], [string, string][]];
    made.samples.push({
      ...source(symbol, time, own),
      ...{
        last_update_id: last,
        best_bid_price: bid[0]![0],
        best_bid_quantity: bid[0]![1],
        best_ask_price: ask[0]![0],
      },
      ...{ best_ask_quantity: ask[0]![1], bids: bid, asks: ask, verified: 'verified' as const },
    });
  }
  return made;
}

describe('the order book at a time', () => {
  const bookAt = (symbol: string, at: number, exchange = 'okx_spot', depth = 10) =>
    json<BookAnswer>(`orderbook?symbol=${symbol}&exchange=${exchange}&at=${at}&depth=${depth}`);

  test('is that of an independent replay at random times, from the nearest sample', async () => {
    for (const exchange of ['okx_spot', 'binance_spot'] as const) {
      const made = madeBook('BOOK-USDT', exchange, 5);
      await insert('orderbook_update', [...made.updates].reverse());
      await insert('orderbook', made.samples);
      const random = randomNumbers(3);
      for (let n = 0; n < 25; n++) {
        const at = T0 + Math.floor(random() * 59_800);
        const index = Math.floor((at - T0) / 100);
        const book = await bookAt('BOOK-USDT', at, exchange);
        assert.deepEqual({ bids: book.bids, asks: book.asks }, made.states[index], `${exchange} ${at - T0}`);
        assert.deepEqual(
          [book.last_update_id, book.time, book.age_ms],
          [String(1002 + index * 3), T0 + index * 100, at - T0 - index * 100],
        );
        assert.deepEqual([book.base.kind, book.updates], ['sample', index % 100]);
        assert.deepEqual([book.complete, book.reason], [true, null]);
      }
      // After the last one nobody knows whether more should have come.
      const last = await bookAt('BOOK-USDT', T0 + 70_000, exchange);
      assert.deepEqual([last.complete, last.reason, last.age_ms], [null, 'not_known_yet', 10_100]);
    }
  });

  test('says where its chain is broken, and shows the book of before', async () => {
    const { updates, samples, states } = madeBook('BROKEN-USDT', 'okx_spot', 9);
    await insert(
      'orderbook_update',
      updates.filter((_, i) => i !== 150),
    );
    await insert('orderbook', samples);
    const at = (index: number) => bookAt('BROKEN-USDT', T0 + index * 100 + 50);
    const before = await at(148);
    assert.deepEqual([before.complete, before.reason], [true, null]);
    // The next one does not follow, so that it cannot be told whether what is missing came before.
    for (const index of [149, 150, 180, 199]) {
      const book = await at(index);
      assert.deepEqual(
        [book.complete, book.reason, book.last_update_id],
        [false, 'missing_updates', String(1002 + 149 * 3)],
      );
      assert.deepEqual({ bids: book.bids, asks: book.asks }, states[149]);
    }
    const next = await at(200);
    assert.deepEqual([next.complete, next.updates], [true, 0]);
    assert.deepEqual({ bids: next.bids, asks: next.asks }, states[200]);
  });

  test('stands on a snapshot that is nearer, on no sample that Binance could not verify, and on nothing that is too old', async () => {
    const { updates, samples, states } = madeBook('SNAP-USDT', 'binance_spot', 13);
    const [first, , third] = samples as [OrderbookRow, OrderbookRow, OrderbookRow];
    const wrong: OrderbookRow = { ...samples[1]!, verified: 'unverifiable', bids: [['1', '1']], asks: [['2', '1']] };
    await insert('orderbook', [first, wrong]);
    const { bids, asks, last_update_id } = third;
    // The collector's snapshot has the time of the first update after it, which stands on it.
    const snapshot = { ...updates[201]!, first_update_id: null, last_update_id, is_snapshot: true, bids, asks };
    await insert('orderbook_update', [...updates, snapshot]);
    const one = await bookAt('SNAP-USDT', T0 + 15_050, 'binance_spot');
    assert.deepEqual(
      [one.base, one.updates, one.complete],
      [{ kind: 'sample', last_update_id: '1002', time: T0 }, 150, true],
    );
    assert.deepEqual({ bids: one.bids, asks: one.asks }, states[150]);
    const two = await bookAt('SNAP-USDT', T0 + 30_050, 'binance_spot');
    assert.deepEqual([two.base.kind, two.updates, two.complete], ['snapshot', 100, true]);
    assert.deepEqual({ bids: two.bids, asks: two.asks }, states[300]);
    // Binance's samples are cut off: below their last level nothing is known.
    const deep = await bookAt('SNAP-USDT', T0 + 15_050, 'binance_spot', 400);
    assert.equal(deep.cut, true);
    for (const at of [T0 - 1, T0 + 2 * HOUR]) {
      const answer = await ask(`orderbook?symbol=SNAP-USDT&exchange=binance_spot&at=${at}`);
      assert.equal(answer.status, 404);
    }
  });

  test('of a venue that tells whole books is the last one, as long as the next came in time', async () => {
    const whole = (at: number): OrderbookUpdateRow => ({
      ...source('WHOLE-USDC', at, { exchange: 'hyperliquid' }),
      ...{
        first_update_id: null,
        last_update_id: at,
        prev_update_id: null,
        is_snapshot: true,
        bids: [[`${at % 1000}`, '1']],
        asks: [['2000', '1']],
      },
    });
    await insert('orderbook_update', [T0, T0 + 5000, T0 + 10_001, T0 + 40_002].map(whole));
    const at = async (time: number) => {
      const { complete, reason, bids, base } = await bookAt('WHOLE-USDC', time, 'hyperliquid');
      return [base.kind, bids[0]![0], complete, reason];
    };
    assert.deepEqual(await at(T0 + 7000), ['whole', '0', true, null]);
    assert.deepEqual(await at(T0 + 10_002), ['whole', '1', false, 'missing_updates']);
    assert.deepEqual(await at(T0 + 40_002), ['whole', '2', null, 'not_known_yet']);
  });

  test('ends before what crosses it, and where ids begin anew', () => {
    const base: Base = { kind: 'sample', last: 10n, time: T0, bids: [['9', '1']], asks: [['11', '1']], fullSide: 400 };
    const update = (last: bigint, time: number, bid: string): Update => ({
      first: last,
      last,
      prev: null,
      time,
      bids: [[bid, '1']],
      asks: [],
    });
    const crossed = bookFrom(base, [update(11n, T0 + 1, '10'), update(12n, T0 + 2, '12')]);
    assert.deepEqual(
      [crossed.reason, crossed.last, crossed.book.top(3).bids],
      [
        'crossed',
        11n,
        [
          ['10', '1'],
          ['9', '1'],
        ],
      ],
    );
    const restarted = bookFrom(base, [update(3n, T0 + 9000, '8'), update(11n, T0 + 1, '10')]);
    assert.deepEqual([restarted.reason, restarted.last], ['ids_restarted', 11n]);
    // An old one that only came late is in the base already.
    assert.equal(bookFrom(base, [update(3n, T0 + 1000, '8')]).reason, null);
    // Told twice, as by two collectors.
    const twice = bookFrom(base, [update(11n, T0 + 1, '10'), update(11n, T0 + 1, '10'), update(12n, T0 + 2, '9.5')]);
    assert.deepEqual([twice.reason, twice.updates], [null, 2]);
  });
});

describe('the replay', () => {
  /** A row's line as normalize.ts writes it, with decimals as the database has them. */
  const lineOf = <T extends DataType>(type: T, row: Rows[T]) => {
    const text = encodeRow(type, row).replace(
      /"(-?\d+\.\d*?)0+"/g,
      (_, digits: string) => `"${digits.replace(/\.$/, '')}"`,
    );
    return `{"type":"${type}",${text.slice(1)}`;
  };

  test('gives all types in the order of their arrival, as normalize.ts writes them, over many windows', async () => {
    const random = randomNumbers(17);
    const rows: { type: DataType; row: RowSource; place: number }[] = [];
    const add = async <T extends DataType>(type: T, made: Rows[T][]) => {
      const begin = sequence;
      await insert(type, made);
      for (const [i, row] of made.entries()) rows.push({ type, row: { ...row }, place: begin + i + 1 });
    };
    const of = (i: number) => ({
      symbol: 'ALL-USDT',
      timestamp: T0 + i * 50,
      received_at: (T0 + i * 50) * 1000 + Math.floor(random() * 400_000),
    });
    await add(
      'trade',
      Array.from({ length: 50_000 }, (_, i) => sampleTrade(i, { ...of(i), quantity: `1.${i % 10}0` })),
    );
    // By their places, not by their types.
    for (const [type, row] of Object.entries(ONE_OF_EACH).reverse() as [DataType, Rows[DataType]][]) {
      // Two at one time, told by their places alone; one that came a day late; one that came after.
      const times = [
        of(7),
        of(20_000),
        { ...of(5), received_at: (T0 + 5000) * 1000 },
        { ...of(6), received_at: (T0 + 5000) * 1000 },
      ];
      const late = {
        symbol: 'ALL-USDT',
        timestamp: T0 - DAY,
        received_at: (T0 + 9000) * 1000,
        data_source: 'backfill:x/y',
      };
      const made = [...times, late].map((change, i) => ({
        ...row,
        ...change,
        ...(type === 'trade' ? { trade_id: `t${i}` } : {}),
      }));
      await add(type, made as Rows[typeof type][]);
    }
    const [from, to] = [T0 + 3000, T0 + 50_000 * 50 - 3000];
    const expected = rows
      .filter(({ row }) => row.received_at >= from * 1000 && row.received_at < to * 1000)
      .sort((a, b) => a.row.received_at - b.row.received_at || a.place - b.place);
    assert.equal(expected.length > 49_000, true);
    const answer = await ask(`replay?symbol=ALL-USDT&from=${from}&to=${to}`);
    assert.equal(answer.headers.get('content-type'), 'application/x-ndjson; charset=utf-8');
    const lines = (await answer.text()).trimEnd().split('\n');
    assert.equal(lines.length, expected.length);
    for (const [i, { type, row }] of expected.entries()) {
      if (lines[i] !== lineOf(type, row as Rows[typeof type]))
        assert.equal(lines[i], lineOf(type, row as Rows[typeof type]), `line ${i}`);
    }
    const one = await (await ask(`replay?symbol=ALL-USDT&exchange=okx_spot&from=${from}&to=${to}`)).text();
    assert.equal(one, '');
  });

  test('reads windows of no more rows than are set, and keeps a second together', () => {
    const second = (at: number, rows: number, type: DataType = 'trade'): [DataType, string, string, string, string] => [
      type,
      String(at),
      String(rows),
      String(at * 1000 - 5),
      String(at * 1000 + 5),
    ];
    const made = windowsOf(
      [second(1, 15_000), second(2, 4000), second(2, 4000, 'open_interest'), second(3, 90_000), second(9, 1)],
      { from: 1500, to: 9200 },
    );
    assert.deepEqual(
      made.map(({ from, to, rows }) => [from, to, rows]),
      [
        [1500, 3000, 23_000],
        [3000, 4000, 90_000],
        [9000, 9200, 1],
      ],
    );
    assert.deepEqual(made[0]!.happened.get('trade'), { from: 995, to: 2005 });
  });
});

describe('a stream', () => {
  const ROWS = 600_000;
  const path = `/api/market/trades?symbol=BIG-USDT&from=${T0}&to=${T0 + DAY}&limit=${ROWS}&format=ndjson`;
  before(async () => {
    await command(
      `INSERT INTO ${config.hotDatabase}.trades (timestamp, exchange, market_type, symbol, instrument, trade_id, sequence, price, quantity, side, is_maker, received_at, data_source, js_epoch, js_seq)
       SELECT fromUnixTimestamp64Milli(toInt64(${T0} + number), 'UTC'), 'binance_spot', 'spot', 'BIG-USDT', 'BIGUSDT', toString(1000000 + number), NULL, toDecimal128('61837.63', 18), toDecimal128('0.5', 18), 'buy', false, fromUnixTimestamp64Micro(toInt64((${T0} + number) * 1000), 'UTC'), 'live', 1, 1000000 + number FROM numbers(${ROWS})`,
    );
  });

  const running = async () =>
    Number((await pipeline.query(`SELECT count() FROM system.processes WHERE query_id LIKE 'web:%'`))[0]![0]);
  const open = () =>
    new Promise<IncomingMessage>((done, fail) => {
      httpGet(`${served.url}${path}`, { agent: false, signal: AbortSignal.timeout(READY_MS) }, done).once(
        'error',
        fail,
      );
    });

  test('that nobody reads waits at the database in bounded memory, and is ended there when its reader goes', async () => {
    const answer = await open();
    answer.on('error', () => undefined);
    await new Promise((done) => answer.once('readable', done));
    await waitFor('a query that runs', READY_MS, async () => (await running()) === 1);
    const before = process.memoryUsage().rss;
    // In this time an unbounded reader would take much of the 170 MB.
    for (let i = 0; i < 30; i++) {
      assert.equal(await running(), 1);
      await pause(50);
    }
    const grown = (process.memoryUsage().rss - before) / 1e6;
    assert.ok(grown < 60, `${grown.toFixed(0)} MB more`);
    answer.destroy();
    await waitFor('the end of the query', READY_MS, async () => (await running()) === 0);
  });

  test('comes whole, and leaves its place to the next', async () => {
    for (let n = 0; n < 3; n++) {
      let lines = 0;
      const most = process.memoryUsage().rss;
      for await (const chunk of await open()) {
        for (const byte of chunk as Buffer) if (byte === 10) lines += 1;
      }
      assert.equal(lines, ROWS);
      assert.equal(process.memoryUsage().rss - most < 150e6, true);
    }
    assert.equal(await running(), 0);
  });

  test('asked for with HEAD has its head, and nothing stays', async () => {
    for (let n = 0; n < 5; n++) {
      const answer = await fetch(`${served.url}${path}`, { method: 'HEAD', signal: AbortSignal.timeout(READY_MS) });
      assert.deepEqual([answer.status, answer.headers.get('x-more')], [200, 'true']);
    }
    await waitFor('the end of all queries', READY_MS, async () => (await running()) === 0);
  });

  test('long ones leave a place to short ones; who waits and goes leaves the line; too many are sent away', async () => {
    const slots = new Slots();
    const never = () => new AbortController().signal;
    const long = [await slots.take(true, never()), await slots.take(true, never())];
    const goes = new AbortController();
    const leaves = assert.rejects(slots.take(true, goes.signal), /gone away/);
    let isStarted = false;
    const third = slots.take(true, never()).then((release) => {
      isStarted = true;
      return release;
    });
    const short = await slots.take(false, never());
    short();
    goes.abort(new Error('gone away'));
    await leaves;
    assert.equal(isStarted, false);
    long[0]!();
    long[0]!();
    const release = await third;
    // Given back once, however often it is said: still two long ones.
    const waits = Array.from({ length: 50 }, () => slots.take(true, never()));
    await assert.rejects(slots.take(true, never()), { status: 503 });
    release();
    long[1]!();
    for (const each of waits) (await each)();
  });
});
