/** Microstructure and correlations: routes against what was written, and the pages against the routes and the database, in Chromium. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import type { ClickHouseClient } from '@clickhouse/client';
import type { Browser, Page } from 'playwright-core';
import type { CorrelationRow } from '../scripts/lib/correlation/rule.ts';
import type { HarvestRow } from '../scripts/lib/harvest/kinds.ts';
import { ensureSignals } from '../scripts/lib/schema.ts';
import { gridOf } from '../scripts/lib/web/harvest_series.ts';
import { ROUTES } from '../scripts/web.ts';
import { assertNoSidewaysScroll, figureOf, openPage, PHONE, startBrowser } from './browser.ts';
import { Pipeline } from './pipeline.ts';
import { correlate, type Harvested, harvestInto, LEFT } from './signals_data.ts';
import { Web } from './web_harness.ts';

const MINUTE = 60_000;
const NOW = Math.floor(Date.now() / MINUTE) * MINUTE;
const SECONDS = 1200;
const COINS = 200;
const BTC = '/api/harvest/BTC-USDT';
/** Asked of a database that goes, and is gone: the console tells of it, too. */
const AWAY = /status of 50[03]/;

interface Series {
  times: number[];
  rows: number[];
  bucket_ms: number;
  fields: Record<string, Record<string, (number | null)[]>>;
}

const pipeline = new Pipeline();
let client: ClickHouseClient;
let harvested: Harvested;
let rows: CorrelationRow[];
let web: Web;

before(async () => {
  await pipeline.choosePorts();
  await pipeline.startDatabase();
  client = pipeline.client();
  harvested = await harvestInto(client, pipeline.env, NOW, SECONDS);
  rows = await correlate(client, harvested.config, NOW, COINS);
  web = await Web.open(pipeline.env, ROUTES, {}, () => NOW);
});
after(async () => {
  await web?.close();
  await pipeline.close();
});

const ofKind = (kind: string) => harvested.rows.filter((row) => row.kind === kind);

/** Of each second the row that was told last. */
function newestSeconds(): HarvestRow[] {
  const newest = new Map<number, HarvestRow>();
  for (const row of ofKind('features')) {
    const before = newest.get(row.ts_ms);
    if (before === undefined || Number(row.revision) > Number(before.revision)) newest.set(row.ts_ms, row);
  }
  return [...newest.values()].sort((one, other) => one.ts_ms - other.ts_ms);
}

function near(found: number | null | undefined, expected: number | null, what: string): void {
  if (expected === null) assert.equal(found, null, what);
  else
    assert.ok(typeof found === 'number' && Math.abs(found - expected) <= 1e-9 * Math.max(1, Math.abs(expected)), what);
}

/** Each bucket again, one row after the other. @param own in the order of their time */
function assertSeries(series: Series, own: readonly HarvestRow[], fields: readonly string[]): void {
  const { times, bucket_ms: step } = series;
  const byBucket = new Map<number, HarvestRow[]>();
  for (const row of own) {
    const at = row.ts_ms - (row.ts_ms % step);
    byBucket.set(at, [...(byBucket.get(at) ?? []), row]);
  }
  let seen = 0;
  for (const [i, at] of times.entries()) {
    const within = byBucket.get(at) ?? [];
    seen += within.length;
    assert.equal(series.rows[i], within.length, `rows at ${at}`);
    for (const field of fields) {
      const values = within.map((row) => row[field]).filter((value) => value !== null);
      const numbers = values.map(Number);
      const sum = numbers.length === 0 ? null : numbers.reduce((total, value) => total + value, 0);
      const expected = {
        min: sum === null ? null : Math.min(...numbers),
        max: sum === null ? null : Math.max(...numbers),
        last: numbers.at(-1) ?? null,
        mean: sum === null ? null : sum / numbers.length,
        sum,
      };
      for (const [stat, value] of Object.entries(expected)) {
        const found = series.fields[field]?.[stat];
        assert.ok(found !== undefined, `${field} has no ${stat}`);
        near(found[i], value, `${field} ${stat} at ${at}`);
      }
    }
  }
  assert.equal(seen, own.length, 'every row is in one bucket');
}

describe('routes of the harvest', () => {
  const all = '&stats=min,max,last,mean,sum';
  const span = () => `from=${harvested.from}&to=${harvested.to + 5000}`;

  test('a series of seconds is what the newest revision of each says, bucket by bucket', async () => {
    const seconds = newestSeconds();
    assert.ok(seconds.filter(({ revision }) => Number(revision) > 0).length > 20, 'there are corrected seconds');
    const fields = ['mid', 'last_price', 'ofi_z', 'cvd_z', 'fusion_score', 'spread_bps', 'trades', 'book_changes'];
    for (const points of [1500, 200, 30]) {
      const series: Series = await web.ok(`${BTC}/series?${span()}&fields=${fields.join()}${all}&points=${points}`);
      assert.ok(series.times.length <= points + 1);
      assertSeries(series, seconds, fields);
    }
    const series: Series = await web.ok(`${BTC}/series?${span()}&fields=trades&stats=sum`);
    const sum = series.fields.trades!.sum!.reduce<number>((total, value) => total + (value ?? 0), 0);
    const [[expected] = []] = await pipeline.query(
      `SELECT sum(trades) FROM marketprism_signals.features_now WHERE symbol = 'BTC-USDT'`,
    );
    assert.equal(sum, Number(expected));
  });

  test('series of flow, volume and depth are the rows’ own, decimals summed and ordered by the trades’ numbers', async () => {
    const flow: Series = await web.ok(`${BTC}/series?${span()}&kind=ofi&fields=ofi_value,ofi_z${all}&points=150`);
    assertSeries(flow, ofKind('ofi'), ['ofi_value', 'ofi_z']);
    const volumes = ofKind('cvd').sort(
      (one, other) => one.ts_ms - other.ts_ms || Number(one.trade_id) - Number(other.trade_id),
    );
    assert.ok(new Set(volumes.map(({ ts_ms }) => ts_ms)).size < volumes.length, 'some trades share a millisecond');
    const volume: Series = await web.ok(`${BTC}/series?${span()}&kind=cvd&fields=cvd,delta,z_cvd${all}&points=1500`);
    assertSeries(volume, volumes, ['cvd', 'delta', 'z_cvd']);
    const depth: Series = await web.ok(`${BTC}/series?${span()}&kind=depth&fields=imbalance&stats=last&points=1500`);
    for (const { timestamp, best_bid_quantity, best_ask_quantity } of harvested.books) {
      const [bid, ask] = [Number(best_bid_quantity), Number(best_ask_quantity)];
      const at = depth.times.findIndex((time) => timestamp >= time && timestamp < time + depth.bucket_ms);
      near(depth.fields.imbalance!.last![at], (bid - ask) / (bid + ask), `imbalance at ${timestamp}`);
    }
  });

  test('buckets are whole, no more than asked for, and a span without rows is a row of nulls', async () => {
    for (const points of [10, 333, 2000]) {
      for (const minutes of [5, 60, 10_080, 44_640]) {
        const { from, to, step } = gridOf({ minutes, points }, NOW + 12_345);
        assert.ok((to - from) / step <= points + 1, `${points} points of ${minutes} minutes`);
        assert.ok(
          from % step === 0 && to % step === 0 && to >= NOW + 12_345 && from <= NOW + 12_345 - minutes * MINUTE,
        );
      }
    }
    const none: Series = await web.ok(`${BTC}/series?from=2026-01-01&to=2026-01-02&fields=mid`);
    assert.equal(none.times.length, 720);
    assert.ok(none.rows.every((count) => count === 0) && none.fields.mid!.max!.every((value) => value === null));
  });

  test('events by bucket and type, and page by page, are those that were told', async () => {
    const events = ofKind('events').filter(({ ts_ms }) => ts_ms >= NOW - 3_600_000 && ts_ms < NOW);
    const { marks, total_count } = await web.ok(`${BTC}/marks?points=100`);
    assert.equal(total_count, events.length);
    for (const { event_type, direction, times, counts, count } of marks) {
      const own = events.filter((each) => each.event_type === event_type && each.direction === direction);
      assert.equal(count, own.length);
      for (const [i, at] of times.entries())
        assert.equal(own.filter(({ ts_ms }) => ts_ms >= at && ts_ms < at + 60_000).length, counts[i]);
    }
    const pages: string[] = [];
    for (let offset = 0; offset < total_count; offset += 100)
      pages.push(
        ...(await web.ok(`${BTC}/events?limit=100&offset=${offset}`)).data.map(({ row_id }: HarvestRow) => row_id),
      );
    assert.deepEqual([...pages].sort(), events.map(({ row_id }) => row_id).sort());
    const { data } = await web.ok(`${BTC}/events?types=anomaly&limit=1000`);
    assert.equal(data.length, events.filter(({ event_type }) => event_type === 'anomaly').length);
    const times = data.map(({ ts_ms }: HarvestRow) => ts_ms);
    assert.deepEqual(
      times,
      [...times].sort((one, other) => other - one),
    );
  });

  test('markets, how far each kind is, and the newest figures, the corrected second included', async () => {
    const { markets: named, harvesters } = await web.ok('/api/harvest');
    const { markets } = await web.ok('/api/harvest/reached');
    assert.deepEqual(
      markets.map(({ kinds, ...market }: HarvestRow) => market),
      named,
    );
    assert.deepEqual(
      named.map(({ exchange, market_type, symbol }: HarvestRow) => `${exchange} ${market_type} ${symbol}`),
      [
        'binance_derivatives perpetual BTC-USDT',
        'binance_derivatives perpetual ETH-USDT',
        'okx_derivatives perpetual SOL-USDT',
      ],
    );
    assert.deepEqual(harvesters, []);
    assert.equal(markets[2].kinds.ofi, null);
    const latest = await web.ok(`${BTC}/latest`);
    for (const kind of ['ofi', 'cvd', 'fusion', 'events', 'features']) {
      const newest = (kind === 'features' ? newestSeconds() : ofKind(kind)).reduce((one, other) =>
        other.ts_ms >= one.ts_ms ? other : one,
      );
      const { ts_ms, recv_ts_ms, lag_ms, age_ms } = latest[kind];
      assert.deepEqual([ts_ms, lag_ms, age_ms], [newest.ts_ms, recv_ts_ms - ts_ms, NOW - ts_ms], kind);
      assert.equal(markets[0].kinds[kind].ts_ms, ts_ms);
      if (kind === 'features') assert.equal(latest.features.trades, newest.trades);
    }
    assert.equal((await web.ok('/api/harvest/NONE-USDT/latest')).features, null);
  });

  test('what is wrong is named: fields, figures, kinds, times, events', async () => {
    const wrong: [string, string][] = [
      [`${BTC}/series`, 'fields'],
      [`${BTC}/series?fields=mid,nope`, 'fields'],
      [`${BTC}/series?fields=session`, 'fields'],
      [`${BTC}/series?kind=ofi&fields=mid`, 'fields'],
      [`${BTC}/series?fields=mid);DROP`, 'fields'],
      [`${BTC}/series?fields=mid&stats=median`, 'stats'],
      [`${BTC}/series?fields=mid&kind=prices`, 'kind'],
      [`${BTC}/series?fields=mid&exchange=nyse`, 'exchange'],
      [`${BTC}/series?fields=mid&points=2001`, 'points'],
      [`${BTC}/series?fields=mid&from=2026-01-02&to=2026-01-01`, 'from'],
      [`${BTC}/series?fields=mid&from=2025-01-01&to=2026-01-01`, 'from'],
      [`${BTC}/events?types=anomaly,none`, 'types'],
      [`${BTC}/marks?minutes=0`, 'minutes'],
    ];
    for (const [path, field] of wrong) {
      const { status, body } = await web.get(path);
      assert.deepEqual([status, body.field], [400, field], path);
    }
    assert.match(
      (await web.get(`${BTC}/series?kind=ofi&fields=mid`)).body.error,
      /ofi has no figure mid: it has .*ofi_value/,
    );
  });
});

describe('the pages', () => {
  let browser: Browser;
  before(async () => {
    browser = await startBrowser();
  });
  after(async () => {
    await browser?.close();
  });

  /** What is shown is the figure, to the digits that are shown. */
  async function assertShown(page: Page, name: string, value: number | null): Promise<void> {
    const text = await figureOf(page, name);
    if (value === null) return assert.ok(text === '–' || text === '', `${name}: ${text} is no sign for unknown`);
    const shown = text.replace(/[,\s]|[^\d.]+$/g, '');
    assert.equal(
      Number(shown),
      Number(value.toFixed(shown.split('.')[1]?.length ?? 0)),
      `${name}: ${text}, not ${value}`,
    );
  }

  test('microstructure: newest figures, events and lags as the API and the database have them; a span is looked into by dragging', async () => {
    const { page, faults, close } = await openPage(browser, `${web.url}/microstructure?range=1h`);
    const { features, ofi, cvd, fusion } = await web.ok(`${BTC}/latest`);
    for (const name of ['mid', 'last_price', 'spread_bps', 'trades', 'book_changes', 'queue_dropped'])
      await assertShown(page, name, features[name]);
    for (const [name, value] of Object.entries({ ofi_value: ofi.ofi_value, ofi_z: ofi.ofi_z, score: fusion.score }))
      await assertShown(page, name, value as number | null);
    const [[sum] = []] = await pipeline.query(
      `SELECT toString(cvd) FROM marketprism_signals.cvd WHERE symbol = 'BTC-USDT' ORDER BY timestamp DESC, toUInt64(trade_id) DESC LIMIT 1`,
    );
    assert.equal((await figureOf(page, 'cvd')).replaceAll(',', ''), cvd.cvd);
    assert.equal(cvd.cvd, sum);
    const [[events] = []] = await pipeline.query(
      `SELECT count() FROM marketprism_signals.events WHERE symbol = 'BTC-USDT' AND timestamp < fromUnixTimestamp64Milli(${NOW})`,
    );
    await assertShown(page, 'events-total', Number(events));
    await page.locator('.micro-plot canvas').nth(6).waitFor();
    // A type that is not wanted goes from the list.
    const list = page.getByRole('region', { name: 'Events' }).locator('tbody tr');
    await list.filter({ hasText: 'Unusual flow' }).first().waitFor();
    await page.getByRole('button', { name: /^Unusual flow/ }).click();
    await list.filter({ hasText: 'Unusual flow' }).first().waitFor({ state: 'detached' });
    // Dragging over the price asks for that span alone, in shorter points.
    const plot = await page.locator('.micro-plot .u-over').first().boundingBox();
    await page.mouse.move(plot!.x + plot!.width * 0.7, plot!.y + 60);
    await page.mouse.down();
    await page.mouse.move(plot!.x + plot!.width * 0.8, plot!.y + 60, { steps: 4 });
    await page.mouse.up();
    await page.getByText('a point is 1.0 s').waitFor();
    await page.getByRole('button', { name: 'Back to now' }).click();
    await page.getByText('a point is 5.0 s').waitFor();
    await page.getByLabel('Symbol').selectOption('ETH-USDT');
    await page.getByRole('heading', { name: 'ETH-USDT' }).waitFor();
    assert.match(page.url(), /symbol=ETH-USDT/);
    await page.getByLabel('Exchange').selectOption('okx_derivatives');
    await page.getByRole('heading', { name: 'SOL-USDT · okx_derivatives' }).waitFor();
    assert.deepEqual(faults, []);
    await close();
  });

  test('correlation: each cell is the database’s figure, and 200 coins are sorted, found, opened and gone through with keys', async () => {
    const { page, faults, close } = await openPage(browser, `${web.url}/correlation`);
    await page
      .locator('.heat tbody tr')
      .nth(COINS - 1)
      .waitFor();
    const stored = await pipeline.query(
      `SELECT splitByChar('-', symbol)[1], timeframe, period, toString(corr) FROM marketprism_signals.correlations`,
    );
    assert.equal(stored.length, COINS * 8);
    assert.equal(stored.length, rows.length);
    const shown = await page
      .locator('.heat td')
      .evaluateAll((cells) => cells.map((cell) => [cell.getAttribute('data-figure'), cell.textContent]));
    const cells = new Map(shown as [string, string][]);
    for (const [coin, timeframe, period, corr] of stored) {
      const expected = corr === '\\N' ? '' : Number(corr).toFixed(2);
      assert.equal(
        cells.get(`corr ${coin} ${timeframe} ${period}`)?.replace('-0.00', '0.00'),
        expected.replace('-0.00', '0.00'),
      );
    }
    assert.ok(
      stored.some(([, , , corr]) => corr === '\\N'),
      'some are not known',
    );
    // Pointed at, a cell says what it stands on, or why it is blank.
    const said = page.getByRole('status');
    await page.locator('[data-figure="corr COIN7 5m 30d"]').hover();
    await said.getByText('no correlation: BTC: 8 of 30 days').waitFor();
    const one = rows.find(({ coin, timeframe, period }) => `${coin} ${timeframe} ${period}` === 'COIN7 5m 7d')!;
    await page.locator('[data-figure="corr COIN7 5m 7d"]').hover();
    await said.getByText(`lag ${one.lag} candles`).waitFor();
    assert.match(
      (await said.textContent())!,
      new RegExp(`COIN7 5m 7d ${one.corr!.toFixed(4)}.*${one.pairs!.toLocaleString('en')} pairs`),
    );
    // From the highest to the lowest; those that are not known come last.
    await page.getByRole('button', { name: '5m 7d', exact: true }).click();
    const column = await page.locator('.heat td[data-name="5m 7d"]').allTextContents();
    const values = column.map(Number);
    assert.deepEqual(
      values,
      [...values].sort((a, b) => b - a),
    );
    await page.getByRole('searchbox').fill('doge, coin19');
    await page.locator('.heat tbody tr').nth(8).waitFor();
    assert.equal(await figureOf(page, 'coins-shown'), '9');
    await page.getByRole('button', { name: 'DOGE', exact: true }).click();
    assert.equal(await page.locator('.heat-open tbody tr').count(), 8);
    await page.locator('[data-figure="corr DOGE 5m 1d"]').focus();
    for (const key of ['ArrowRight', 'ArrowUp', 'ArrowDown']) await page.keyboard.press(key);
    const focused = await page.evaluate(() => document.activeElement?.getAttribute('data-name'));
    assert.equal(focused, '5m 7d');
    assert.deepEqual(faults, []);
    await close();
  });

  test('anomalies that stand, the last round, and the history of begins and ends', async () => {
    const { page, faults, close } = await openPage(browser, `${web.url}/correlation`);
    const { standing, round } = await web.ok('/api/correlation/latest');
    assert.deepEqual(
      standing.map(({ coin }: { coin: string }) => coin).sort(),
      LEFT.filter((coin) => coin !== 'GONE').sort(),
    );
    for (const { coin, long, short } of standing) {
      await assertShown(page, `long ${coin}`, long);
      const text = await figureOf(page, `short ${coin}`);
      assert.equal(text, short.toFixed(4));
    }
    await assertShown(page, 'standing', 2);
    await assertShown(page, 'coins', COINS);
    assert.deepEqual([await figureOf(page, 'seconds'), round.seconds], ['43 s', 42.5]);
    const history = page.getByRole('region', { name: 'Begins and ends' }).locator('tbody tr');
    await history.nth(3).waitFor();
    assert.equal(await history.count(), 4);
    await page.getByRole('button', { name: 'End', exact: true }).click();
    await history.nth(1).waitFor({ state: 'detached' });
    assert.match((await history.first().textContent())!, /GONE.*traded no more/);
    assert.deepEqual(faults, []);
    await close();
  });

  test('both pages in Chinese and in the light theme, and on a phone without a sideways scroll', async () => {
    for (const [path, ready, word] of [
      ['/microstructure', '.micro-plot canvas', '最新数值'],
      ['/correlation', '.heat td', '与 BTC 的相关性'],
    ] as const) {
      const { page, faults, close } = await openPage(browser, web.url + path, { viewport: PHONE });
      await page.locator(ready).first().waitFor();
      await page.getByRole('button', { name: '简体中文' }).click();
      await page.getByRole('heading', { name: word }).waitFor();
      await page.getByRole('button', { name: '浅色' }).click();
      assert.equal(await page.evaluate(() => document.documentElement.dataset.theme), 'light');
      await assertNoSidewaysScroll(page);
      assert.deepEqual(faults, []);
      await close();
    }
  });

  test('where nothing was written yet, the pages say which script writes it', async () => {
    await ensureSignals(client, 'marketprism_signals_empty');
    const env = { ...pipeline.env, MARKETPRISM_SIGNALS_DATABASE: 'marketprism_signals_empty' };
    const empty = await Web.open({ ...env, MARKETPRISM_DATA_DIR: `${pipeline.dir}/empty` }, ROUTES, {}, () => NOW);
    try {
      for (const [path, text] of [
        ['/microstructure', 'ofi_cvd_harvester.ts reads'],
        ['/correlation', 'correlation_alert.ts fills'],
      ]) {
        const { page, faults, close } = await openPage(browser, empty.url + path);
        await page.getByText(text!).waitFor();
        assert.deepEqual(faults, []);
        await close();
      }
    } finally {
      await empty.close();
    }
  });

  test('a database that is away is told in one line, beside the figures that were there', async () => {
    const { page, faults, close } = await openPage(browser, `${web.url}/microstructure?range=5m`, { allowed: AWAY });
    const mid = await figureOf(page, 'mid');
    assert.match(mid, /\d/);
    await pipeline.stop('clickhouse_embedded');
    await page.getByRole('alert').filter({ hasText: 'does not answer' }).first().waitFor();
    await page.getByText('These figures are').first().waitFor();
    assert.equal(await figureOf(page, 'mid'), mid);
    await page.goto(`${web.url}/correlation`);
    await page.getByRole('alert').filter({ hasText: 'does not answer' }).first().waitFor();
    assert.deepEqual(faults, []);
    await close();
  });
});
