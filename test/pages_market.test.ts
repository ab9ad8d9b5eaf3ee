/** The page of a market in a real Chromium, over a real database and a real broker: it shows what they hold, live, and says what it does not know. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import type { NatsConnection } from 'nats';
import type { Browser, Page } from 'playwright-core';
import { insertLines } from '../scripts/lib/clickhouse.ts';
import { type Config, loadConfig } from '../scripts/lib/config.ts';
import { createLogger } from '../scripts/lib/log.ts';
import { waitFor } from '../scripts/lib/processes.ts';
import { type DataType, encodeRow, type GapRow, type RowSource, type Rows, TABLES } from '../scripts/lib/rows.ts';
import { ensureTier, ensureViews } from '../scripts/lib/schema.ts';
import { subjectOf } from '../scripts/lib/streams.ts';
import { ABOUT_ROUTES } from '../scripts/lib/web/about_routes.ts';
import { LIVE_ROUTES } from '../scripts/lib/web/live_routes.ts';
import type { Candle } from '../scripts/lib/web/market_candles.ts';
import type { Depth } from '../scripts/lib/web/market_depth.ts';
import { MARKET_ROUTES } from '../scripts/lib/web/market_routes.ts';
import type { LiquidationSeries, ReadingSeries } from '../scripts/lib/web/market_series.ts';
import { assertNoSidewaysScroll, figureOf, openPage, PHONE, startBrowser } from './browser.ts';
import { sampleTrade } from './fixtures.ts';
import { Pipeline, READY_MS } from './pipeline.ts';
import { Web } from './web_harness.ts';

const SECOND = 1000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;
/** A browser has the machine's clock, and so has the page: what is shown is of just now. */
const NOW = Date.now();
const SYMBOL = 'BTC-USDT';
const pipeline = new Pipeline();
let config: Config;
let web: Web;
let browser: Browser;
let nats: NatsConnection;
let sequence = 0;

async function insert<T extends DataType>(type: T, rows: Rows[T][]): Promise<void> {
  const lines = rows.map((row) => `${encodeRow(type, row).slice(0, -1)},"js_epoch":1,"js_seq":${++sequence}}\n`);
  const table = `${config.hotDatabase}.${TABLES[type].name}`;
  await insertLines(pipeline.client(), table, Buffer.from(lines.join('')), `test:${type}:${sequence}`);
}

const source = (timestamp: number, change: Partial<RowSource> = {}): RowSource => ({
  ...{ exchange: 'binance_derivatives' as const, market_type: 'perpetual' as const },
  ...{ symbol: SYMBOL, instrument: 'BTCUSDT', timestamp, received_at: timestamp * 1000, data_source: 'live' },
  ...change,
});
const minutes = (count: number) => Array.from({ length: count }, (_, i) => NOW - (count - i) * MINUTE);

/** Five hours of trades, of which one hour lacks some, and one all. */
async function insertTrades(): Promise<void> {
  const times = Array.from({ length: 300 * 4 }, (_, i) => NOW - 5 * HOUR + i * 15 * SECOND);
  const isThere = (at: number) => at < NOW - 3 * HOUR || at > NOW - 2 * HOUR;
  const of = { exchange: 'binance_derivatives', market_type: 'perpetual', instrument: 'BTCUSDT' } as const;
  await insert(
    'trade',
    times.filter(isThere).map((timestamp, i) =>
      sampleTrade(1000 + i, {
        ...{ ...of, timestamp, received_at: timestamp * 1000, price: `${(61_000 + (i % 97) * 1.1).toFixed(2)}` },
        ...{ quantity: `0.${(i % 9) + 1}50`, side: i % 2 === 0 ? 'buy' : 'sell', is_maker: i % 2 === 1 },
      }),
    ),
  );
  await insert('trade', [sampleTrade(5, { exchange: 'okx_spot', timestamp: NOW - MINUTE, price: '61000.1' })]);
  const gap = (id: string, from: number, to: number): GapRow => ({
    ...source(from, { received_at: to * 1000 }),
    ...{ gap_id: id, data_type: 'trade', from_id: '1', to_id: '2', from_time: from, to_time: to, cause: 'outage' },
    ...{ reason: null, status: 'open', rows: 3, filled_rows: null, detected_at: to, closed_at: null },
  });
  await insert('gap', [
    gap('all', NOW - 3 * HOUR, NOW - 2 * HOUR),
    gap('some', NOW - 4 * HOUR, NOW - 4 * HOUR + SECOND),
  ]);
}

async function insertReadings(): Promise<void> {
  for (const exchange of ['binance_derivatives', 'okx_derivatives'] as const) {
    const of = { exchange };
    await insert(
      'funding_rate',
      minutes(200).map((at, i) => ({
        ...source(at, of),
        ...{ funding_rate: `0.0001${String(i).padStart(4, '0')}`, funding_time: null, next_funding_time: null },
        ...{ funding_interval_hours: '8', mark_price: null, index_price: null },
      })),
    );
    await insert(
      'open_interest',
      minutes(200).map((at, i) => ({
        ...source(at, of),
        ...{ open_interest: `81234.${i + 100}`, open_interest_value: null, contracts: null },
      })),
    );
  }
  await insert(
    'volatility_index',
    minutes(200).map((at, i) => ({
      ...source(at, { exchange: 'deribit_derivatives', market_type: 'options', symbol: 'BTC' }),
      ...{ index_value: `5${i % 10}.25`, underlying_asset: 'BTC', maturity_date: null, resolution: '60' },
    })),
  );
  await insert(
    'liquidation',
    minutes(40).map((at, i) => ({
      ...source(at),
      ...{ liquidation_id: `q${i}`, side: i % 4 === 0 ? ('buy' as const) : ('sell' as const) },
      ...{ price: '61000.5', quantity: `0.${i + 1}` },
    })),
  );
}

async function insertBook(): Promise<void> {
  const levels = (first: number, sign: number): [string, string][] =>
    Array.from({ length: 120 }, (_, i) => [(first + sign * i * 0.5).toFixed(1), `1.${i}`]);
  const [bids, asks] = [levels(61_000, -1), levels(61_000.5, 1)];
  const best = { best_bid_price: '61000', best_bid_quantity: '1', best_ask_price: '61000.5', best_ask_quantity: '1' };
  await insert('orderbook', [
    { ...source(NOW - 8 * SECOND), ...{ last_update_id: 5, ...best, bids, asks, verified: 'verified' as const } },
  ]);
}

before(async () => {
  await pipeline.choosePorts();
  await Promise.all([
    pipeline.startDatabase(),
    pipeline.startBroker(),
    startBrowser().then((made) => (browser = made)),
  ]);
  config = loadConfig(pipeline.env);
  const client = pipeline.client();
  await ensureTier(client, 'hot', config.hotDatabase);
  await ensureTier(client, 'cold', config.coldDatabase);
  await ensureViews(client, config, createLogger('test', 'silent'));
  await insertTrades();
  await insertReadings();
  await insertBook();
  nats = await pipeline.nats();
  web = await Web.open(pipeline.env, [...ABOUT_ROUTES, ...MARKET_ROUTES, ...LIVE_ROUTES]);
});
after(async () => {
  await browser?.close();
  await nats?.close();
  await web?.close();
  await pipeline.close();
});

/** Figures as pages write them, as numbers. */
const numberOf = (text: string) => Number(text.replaceAll(',', '').replace(/[^\d.-].*$/, ''));
const query = (of: object) => new URLSearchParams({ symbol: SYMBOL, ...of }).toString();
const MARKET = { exchange: 'binance_derivatives', market_type: 'perpetual' };

/** Waits until a figure says what it should. */
async function shows(page: Page, name: string, is: (text: string) => boolean): Promise<void> {
  await waitFor(`the figure ${name}`, READY_MS, async () => is(await figureOf(page, name)));
}

test('shows what the database has: prices, book, candles that lack trades, readings and liquidations', async () => {
  const { page, faults, close } = await openPage(browser, `${web.url}/market/${SYMBOL}`);
  const [[price, time]] = (await pipeline.query(
    `SELECT price, toUnixTimestamp64Milli(timestamp) FROM marketprism.trades WHERE symbol = '${SYMBOL}' AND exchange = 'binance_derivatives' ORDER BY timestamp DESC LIMIT 1`,
  )) as [[string, string]];
  await shows(page, 'last_price', (text) => text !== '–');
  assert.equal(numberOf(await figureOf(page, 'last_price')), Number(price));
  assert.equal(numberOf(await figureOf(page, 'last.binance_derivatives.perpetual')), Number(price));
  assert.equal(await figureOf(page, 'last.okx_spot.spot'), '61,000.1');
  assert.equal(
    await page.locator('[data-figure="last_time"] time').getAttribute('datetime'),
    new Date(Number(time)).toISOString(),
  );

  const { book }: Depth = await web.ok(`/api/market/depth?${query({ ...MARKET, depth: '100' })}`);
  assert.deepEqual(
    [await figureOf(page, 'best_bid'), await figureOf(page, 'best_ask'), await figureOf(page, 'spread')],
    ['61,000.0', '61,000.5', '0.5 · 0.08 bp'],
  );
  assert.equal(numberOf(await figureOf(page, 'best_bid')), Number(book!.best_bid));
  assert.match(await figureOf(page, 'book_age'), / (s|min)$/);

  // As the page asks: whole five minutes, from a day before.
  const from = Math.floor(Date.now() / (5 * MINUTE)) * 5 * MINUTE - 24 * HOUR;
  const { candles } = await web.ok(`/api/market/candles?${query({ ...MARKET, interval: '5m', from, limit: '500' })}`);
  const finished = (candles as Candle[]).filter(({ finished }) => finished);
  const count = (is: (candle: Candle) => boolean) => finished.filter(is).length;
  // An hour without any, and the one second in which some are missing.
  assert.equal(count(({ complete }) => complete === false) >= 13, true);
  const counted = {
    candles_partly: count(({ complete }) => complete === false),
    candles_unknown: count(({ complete }) => complete === null),
    candles_none: count(({ open, complete }) => open === null && complete !== true),
  };
  for (const [name, value] of Object.entries(counted)) {
    const shown = Number(await figureOf(page, name));
    // Five minutes may have turned meanwhile.
    assert.equal(Math.abs(shown - value) <= 1, true, `${name}: ${shown}, and not ${value}`);
  }

  for (const type of ['funding', 'open_interest'] as const) {
    const { series }: ReadingSeries = await web.ok(`/api/market/series?${query({ type })}`);
    assert.equal(series.length, 2);
    for (const { exchange, latest } of series) {
      const shown = numberOf(await figureOf(page, `${type}.${exchange}.perpetual`));
      assert.equal(shown, type === 'funding' ? Number((Number(latest.value) * 100).toFixed(6)) : Number(latest.value));
    }
  }
  assert.equal(numberOf(await figureOf(page, 'volatility.deribit_derivatives.options.60')), 59.25);
  const { whole }: LiquidationSeries = await web.ok(`/api/market/series?${query({ type: 'liquidations' })}`);
  for (const side of ['buy', 'sell'] as const) {
    assert.equal(numberOf(await figureOf(page, `liquidations.${side}`)), Math.round(Number(whole![`${side}_value`])));
    assert.equal(await figureOf(page, `liquidations.${side}_count`), String(side === 'buy' ? 10 : 30));
  }
  // Ratios have no row: it is said why.
  const empty = page.locator('.card .empty');
  assert.match(
    (await empty.allTextContents()).join(' '),
    /No ratio of this symbol in this range\. collector\.ts and store\.ts/,
  );
  assert.deepEqual(faults, []);
  await close();
});

test('draws candles at their prices, a break where trades are missing, and no bridge over it', async () => {
  const { page, faults, close } = await openPage(
    browser,
    `${web.url}/market/${SYMBOL}?market=binance_derivatives.perpetual&beside=okx_spot.spot`,
  );
  await figureOf(page, 'candles_none');
  await page.locator('.candles .u-legend', { hasText: 'okx_spot spot' }).waitFor();
  const canvas = page.locator('.candles canvas').first();
  await canvas.waitFor();
  /** Colours of the picture between two shares of its width: how many points are green or red, how many of the warning's colour. */
  const inked = (begin: number, end: number) =>
    canvas.evaluate(
      (element, [first, last]) => {
        const { width, height } = element as HTMLCanvasElement;
        // Read from a copy: the page's own is not made for it, and says so.
        const copy = Object.assign(document.createElement('canvas'), { width, height });
        const context = copy.getContext('2d', { willReadFrequently: true })!;
        context.drawImage(element as HTMLCanvasElement, 0, 0);
        const x = Math.round(width * first!);
        const { data } = context.getImageData(x, 0, Math.round(width * last!) - x, height);
        let [prices, warned] = [0, 0];
        for (let i = 0; i < data.length; i += 4) {
          const [r, g, b] = [data[i]!, data[i + 1]!, data[i + 2]!];
          if ((r < 100 && g > 160 && b < 120) || (r > 220 && g < 140 && b > 90)) prices += 1;
          if (r > 190 && g > 130 && g < 190 && b < 80) warned += 1;
        }
        return { prices, warned };
      },
      [begin, end],
    );
  // The plot begins behind its axis; five hours of a day hold trades, from 5 to 3 and from 2 to 0 hours ago.
  const { left, width, all } = await page.evaluate(() => {
    const over = document.querySelector('.candles .u-over')!.getBoundingClientRect();
    const picture = document.querySelector('.candles canvas')!.getBoundingClientRect();
    return { left: over.left - picture.left, width: over.width, all: picture.width };
  });
  const at = (hoursAgo: number) => (left + (width * (24 - hoursAgo)) / (24 + 1 / 12)) / all;
  const before = await inked(at(4.9), at(3.2));
  const missing = await inked(at(2.85), at(2.15));
  const later = await inked(at(1.9), at(0.2));
  const nothing = await inked(at(20), at(8));
  assert.equal(before.prices > 50 && later.prices > 50, true, JSON.stringify({ before, later }));
  assert.deepEqual([missing.prices, nothing.prices, nothing.warned], [0, 0, 0]);
  assert.equal(missing.warned > 50, true, JSON.stringify(missing));
  assert.deepEqual(faults, []);
  await close();
});

test('shows trades as they come, once each, and says when the broker is away', async () => {
  const { page, faults, close } = await openPage(browser, `${web.url}/market/${SYMBOL}`);
  const state = () => page.locator('[data-figure="line_state"]').getAttribute('data-state');
  await waitFor('a line', READY_MS, async () => (await state()) === 'here');
  const stored = page.locator('.trades tbody tr');
  await stored.first().waitFor();
  assert.equal(await stored.count(), 50);
  const trade = (
    id: number,
    price: string,
    exchange: 'binance_derivatives' | 'okx_derivatives' = 'binance_derivatives',
  ) =>
    sampleTrade(id, {
      ...{
        exchange,
        market_type: 'perpetual',
        instrument: 'BTCUSDT',
        timestamp: Date.now(),
        received_at: Date.now() * 1000,
      },
      ...{ price, quantity: '0.125' },
    });
  const publish = (rows: ReturnType<typeof trade>[]) => {
    for (const row of rows) nats.publish(subjectOf({ type: 'trade', ...row }), encodeRow('trade', row));
  };
  // One comes twice, as by two collectors; one is of another market.
  const rows = [trade(900_001, '61111.5'), trade(900_001, '61111.5'), trade(900_002, '61222.25')];
  publish([trade(900_003, '59999', 'okx_derivatives'), ...rows]);
  await shows(page, 'last_price', (text) => text === '61,222.25');
  // Stored as well: by the store it would be.
  await insert('trade', [rows[0]!, rows[2]!]);
  const prices = await page.locator('.trades tbody td:nth-child(2)').allTextContents();
  assert.deepEqual(prices.slice(0, 2), ['61,222.25', '61,111.50']);
  assert.equal(prices.filter((text) => text === '61,111.50').length, 1);
  assert.equal(prices.includes('59,999.00'), false);
  assert.equal(await figureOf(page, 'line_dropped'), '0');

  await pipeline.stop('nats-server');
  await waitFor('word of the broker', READY_MS, async () => (await state()) === 'away');
  assert.equal(await figureOf(page, 'line_losses'), '1');
  await pipeline.startBroker();
  await waitFor('the line again', READY_MS, async () => (await state()) === 'here');
  await nats.close();
  nats = await pipeline.nats();
  assert.deepEqual(faults, []);
  await close();
});

test('is Chinese and light where that is chosen, fits a phone, and keeps range and market in its address', async () => {
  const view = { language: 'zh', theme: 'light', viewport: PHONE } as const;
  const { page, faults, close } = await openPage(browser, `${web.url}/market`, view);
  // Without a symbol the one with the most markets.
  assert.match((await page.locator('.card h2').first().textContent())!, /^价格 · BTC-USDT/);
  await figureOf(page, 'liquidations.buy');
  await figureOf(page, 'best_bid');
  await assertNoSidewaysScroll(page);
  assert.equal(await page.evaluate(() => document.documentElement.dataset.theme), 'light');
  await page.getByRole('button', { name: '7d', exact: true }).click();
  // Never those of the range before under the name of this one: a week has 168 hours.
  assert.equal(Number(await figureOf(page, 'candles_unknown')) <= 168, true);
  await page.locator('.markets button', { hasText: 'okx_spot' }).click();
  assert.match(page.url(), /range=7d&market=okx_spot\.spot/);
  assert.match((await page.locator('.card h2').first().textContent())!, /okx_spot spot · 1h K 线/);
  await page.locator('.card .empty', { hasText: '没有该市场的订单簿' }).waitFor();
  await page.getByRole('button', { name: 'English', exact: true }).click();
  assert.match(
    (await page.locator('.card h2').first().textContent())!,
    /^Price · BTC-USDT · okx_spot spot · 1h candles/,
  );
  await page.goto(`${web.url}/market/NONE-USDT`);
  await page.getByText('The database has nothing of this symbol.').waitFor();
  await page.locator('label', { hasText: 'Symbol' }).locator('select').selectOption(SYMBOL);
  await figureOf(page, 'last_price');
  assert.match(page.url(), /\/market\/BTC-USDT/);
  assert.deepEqual(faults, []);
  await close();
});

test('says that the database does not answer, and keeps the old figures with their age', async () => {
  const { page, faults, close } = await openPage(browser, `${web.url}/market/${SYMBOL}`, { allowed: /50[0-9]/ });
  const [bid, partly] = [await figureOf(page, 'best_bid'), await figureOf(page, 'candles_partly')];
  for (const text of [bid, partly]) assert.match(text, /^\d/);
  await pipeline.stop('clickhouse_embedded');
  const problem = page.locator('section[aria-label^="Order book"] .problem');
  await problem.waitFor();
  assert.match((await problem.textContent())!, /database/i);
  assert.equal(await figureOf(page, 'best_bid'), bid);
  await page.locator('section[aria-label^="Order book"] .note', { hasText: 'These figures are' }).waitFor();
  await page.locator('section[aria-label^="Price"] .problem').waitFor();
  assert.equal(await figureOf(page, 'candles_partly'), partly);
  // Opened anew there is nothing to keep: the reason is all that is shown.
  await page.reload();
  await page.locator('.problem').first().waitFor();
  assert.deepEqual(faults, []);
  await close();
});
