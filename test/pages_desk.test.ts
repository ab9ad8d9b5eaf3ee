/** The desk's pages in Chromium over three days of records: escape signals, coin prices, major events. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import type { Browser, Page } from 'playwright-core';
import { PRICES_FILE } from '../scripts/coin_price_tracker.ts';
import { ESCAPE_FILE } from '../scripts/escape_signal_calc.ts';
import { beijingDate, beijingText } from '../scripts/lib/desk/beijing.ts';
import { recordOf } from '../scripts/lib/desk/coin_prices.ts';
import { RULES } from '../scripts/lib/desk/escape.ts';
import { FRESH_STATE } from '../scripts/lib/desk/major_events.ts';
import { freePort } from '../scripts/lib/free_port.ts';
import { waitFor } from '../scripts/lib/processes.ts';
import { buildPages } from '../scripts/lib/web/pages.ts';
import { ROUTES } from '../scripts/web.ts';
import {
  assertNoSidewaysScroll,
  figureOf,
  type Opened,
  openPage,
  PHONE,
  startBrowser,
  type ViewOptions,
} from './browser.ts';
import { append, COINS, type History, pricesBy, writeHistory, writeRules } from './desk_history.ts';
import { READY_MS } from './pipeline.ts';
import { Web } from './web_harness.ts';

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
/** 08:00 in Beijing. */
const END = Date.UTC(2026, 10, 30);
const RULE = RULES[0];

describe('the desk’s pages', () => {
  const dir = mkdtempSync(join(tmpdir(), 'marketprism-'));
  const empty = mkdtempSync(join(tmpdir(), 'marketprism-'));
  let [web, none] = [] as unknown as [Web, Web];
  let browser: Browser;
  let history: History;
  let now = END + 2 * MINUTE;
  const opened: Opened[] = [];

  before(async () => {
    history = writeHistory(dir, { end: END, days: 3 });
    const pages = await buildPages();
    // No part but the files is there, whatever runs on this machine.
    const away: NodeJS.ProcessEnv = {
      CLICKHOUSE_URL: 'http://127.0.0.1:9',
      MARKETPRISM_NATS_URL: 'nats://127.0.0.1:9',
    };
    for (const name of ['HEALTH_CHECK_PORT', 'HOT_STORAGE_HTTP_PORT', 'COLD_STORAGE_HTTP_PORT', 'MONITOR_HTTP_PORT'])
      away[name] = String(await freePort());
    const open = (data: string) => Web.open({ ...away, MARKETPRISM_DATA_DIR: data }, ROUTES, { pages }, () => now);
    [web, none, browser] = await Promise.all([open(dir), open(empty), startBrowser()]);
  });

  after(async () => {
    for (const each of opened) await each.close();
    await browser?.close();
    await web?.close();
    await none?.close();
    for (const each of [dir, empty]) rmSync(each, { recursive: true });
  });

  async function visit(path: string, options: ViewOptions = {}, at = web): Promise<Opened> {
    const view = await openPage(browser, at.url + path, options);
    opened.push(view);
    return view;
  }

  /** Waits until a figure is shown as this text. */
  async function shows(page: Page, name: string, text: string): Promise<void> {
    const found = page.locator(`[data-figure="${name}"]`).first();
    await found.waitFor();
    await waitFor(`${name} ${text}`, READY_MS, async () => (await found.textContent()) === text).catch(async () =>
      assert.equal(await found.textContent(), text, name),
    );
  }

  /** What happens when a reader comes back to the tab. */
  const lookAgain = (page: Page) => page.evaluate('document.dispatchEvent(new Event("visibilitychange"))');
  /** What a chart tells those who do not see it: the last known value of each line. */
  const chart = (page: Page, label: string) => page.locator(`.chart[aria-label^="${label}"]`).first();

  const escapes = (rule: string) => history.escapes.filter((row) => row.rule === rule);
  const minuteText = (ms: number) => new Date(ms).toISOString().slice(0, 16).replace('T', ' ');
  const percent = (value: number) =>
    `${value > 0 ? '+' : ''}${value.toLocaleString('en-US', { minimumFractionDigits: 4, maximumFractionDigits: 4 })} %`;
  const limitsFile = () => join(dir, 'state/major_events_limits.json');

  test('the page of escape signals shows the figures of the records, of a day and of new minutes, in two languages and themes', async () => {
    const { page, faults } = await visit('/escape-signal-history');
    const last = escapes(RULE).at(-1)!;
    const summary = await web.ok('/api/escape-signal-stats/summary');
    await shows(page, 'escape-newest', minuteText(last.slot));
    await shows(page, 'escape-24h', String(last.signal_24h_count));
    await shows(page, 'escape-2h', String(last.signal_2h_count));
    await shows(page, 'escape-breadth', `${last.breadth} of ${last.coins}`);
    await shows(page, 'escape-max-24h', String(Math.max(...escapes(RULE).map((row) => row.signal_24h_count ?? -1))));
    await shows(page, 'escape-median-24h', String(summary.median_24h));
    await shows(page, 'escape-total', escapes(RULE).length.toLocaleString('en-US'));
    await shows(page, 'row-24h', String(last.signal_24h_count));
    await shows(page, 'row-change', percent(pricesBy(history, last.slot)!.total_change!));
    const levels = `decline ${last.decline_strength_level}, rise ${last.rise_strength_level}`;
    assert.equal(
      await chart(page, 'Strength levels').getAttribute('aria-label'),
      `Strength levels (0 to 4): ${levels}`,
    );
    const rows = history.sar.filter(({ timestamp }) => timestamp === END - 5 * MINUTE);
    const bullish = rows.filter((row) => row.sar_position === 'bullish').length;
    const share = ((bullish / rows.length) * 100).toFixed(1);
    await shows(page, 'sar-bullish', `${bullish} (${share} %)`);
    const eth = rows.find(({ symbol }) => symbol === 'ETH')!;
    await shows(page, 'sar-price-ETH', eth.close.toLocaleString('en-US', { maximumFractionDigits: 18 }));
    await page.getByRole('button', { name: /^ETH:/ }).click();
    await shows(page, 'cycle-price', eth.close.toLocaleString('en-US', { maximumFractionDigits: 18 }));
    await shows(page, 'cycle-candles', String(eth.sequence));
    const { latest } = await web.ok('/api/unified/liquidation_1h/columns');
    await shows(page, 'unified-liquidation_1h', Math.round(latest.amount).toLocaleString('en-US'));
    // A new minute comes without a reload, and though the whole does not come again.
    await page.route('**/escape-signal-stats/columns*', () => undefined);
    const fresh = { ...last, slot: END, stat_time: beijingText(END), signal_24h_count: 201, signal_2h_count: 19 };
    append(dir, ESCAPE_FILE, [fresh]);
    await lookAgain(page);
    await shows(page, 'escape-24h', '201');
    await shows(page, 'row-24h', '201');
    await page.locator('.chart[aria-label="Signals in 24 h (candles): 24 h 201"]').waitFor();
    await page.unrouteAll({ behavior: 'ignoreErrors' });
    // Older ones go on from what was seen.
    const next = { ...fresh, slot: END + MINUTE, stat_time: beijingText(END + MINUTE) };
    append(dir, ESCAPE_FILE, [next]);
    await page.getByRole('button', { name: /Older/ }).click();
    const older = page.getByRole('region', { name: 'Records' }).last().locator('tbody time').first();
    await page.getByText('21–40').waitFor();
    const slot = END - 20 * MINUTE;
    for (let tries = 0; tries < 400 && (await older.textContent()) !== minuteText(slot); tries += 1)
      await page.waitForTimeout(25);
    assert.equal(await older.textContent(), minuteText(slot), 'the 21st of what was shown, though one more came since');
    // One day.
    await page.getByLabel('Day (Beijing)').selectOption('2026-11-29');
    const ofDay = escapes(RULE).filter(({ slot: at }) => beijingDate(at) === '2026-11-29');
    await page
      .locator(`.chart[aria-label="Signals in 24 h (candles): 24 h ${ofDay.at(-1)!.signal_24h_count}"]`)
      .waitFor();
    await page.getByRole('heading', { name: 'Records: 2026-11-29' }).waitFor();
    await page.getByText(`1–20 of ${ofDay.length}`).waitFor();
    // Another rule, of which no major event is made.
    await page.getByLabel('Rule').selectOption(RULES[1]);
    await page.getByRole('heading', { name: 'Now: Range position' }).waitFor();
    assert.match(page.url(), /rule=range-position/);
    await page.getByRole('button', { name: '简体中文' }).click();
    await page.getByRole('heading', { name: '逃顶信号', exact: true }).waitFor();
    await page.getByRole('button', { name: '浅色' }).click();
    assert.equal(await page.evaluate('document.documentElement.dataset.theme'), 'light');
    assert.deepEqual(faults, []);
  });

  test('the page of coins shows the newest half hour, sorts it, and a coin that is not known as unknown', async () => {
    const slot = END;
    const bases = Object.fromEntries(COINS.map((coin) => [coin, '100']));
    const prices = Object.fromEntries(COINS.map((coin, i) => [coin, String(90 + i)]));
    delete prices.ETH;
    const record = { slot, ...recordOf(slot, COINS, { ...prices, BTC: '77123.456789' }, { ...bases, BTC: '77000' }) };
    append(dir, PRICES_FILE, [record]);
    const { page, faults } = await visit('/coin-price-tracker');
    await shows(page, 'prices-slot', minuteText(slot));
    await shows(page, 'prices-day', '2026-11-30');
    await shows(page, 'prices-total', percent(record.total_change!));
    await shows(page, 'prices-average', percent(record.average_change!));
    await shows(page, 'prices-valid', '26 of 27');
    await page.getByText('No price or no open of the day, and so in no sum: ETH').waitFor();
    await shows(page, 'price-ETH', '–');
    await shows(page, 'change-ETH', '–');
    await shows(page, 'price-BTC', '77,123.456789');
    for (const coin of COINS.filter((each) => each !== 'ETH'))
      await shows(page, `change-${coin}`, percent(record.day_changes[coin]!.change_pct!));
    const order = () => page.locator('tbody .coin').allTextContents();
    const changes = new Map(COINS.map((coin) => [coin, record.day_changes[coin]!.change_pct]));
    const known = COINS.filter((coin) => changes.get(coin) !== null);
    const byChange = [...known].sort((a, b) => changes.get(b)! - changes.get(a)! || a.localeCompare(b));
    assert.deepEqual(await order(), [...byChange, 'ETH']);
    await page.getByLabel('Sorted by').selectOption('down');
    const down = [...known].sort((a, b) => changes.get(a)! - changes.get(b)! || a.localeCompare(b));
    assert.deepEqual(await order(), [...down, 'ETH'], 'what is not known is last whichever way');
    const total = record.total_change!.toFixed(2);
    await page.locator(`.chart[aria-label="Sum of the coins’ changes (%): Change sum (%) ${total}"]`).waitFor();
    await page.getByRole('button', { name: /^SOL:/ }).click();
    await page.locator('.chart[aria-label^="SOL: Change since midnight"]').waitFor();
    await page.getByText('Records missing in this time: 1.').first().waitFor();
    await page.getByRole('button', { name: '简体中文' }).click();
    await page.getByRole('heading', { name: '币价追踪' }).waitFor();
    assert.deepEqual(faults, []);
  });

  test('the page of major events explains the rules with the limits that hold, how they stand, and what they told', async () => {
    writeFileSync(limitsFile(), JSON.stringify({ strong_top_count: 9, cooldown_minutes: 45 }));
    writeRules(dir, history, now, {
      blind: [{ input: 'liquidation_1h', events: ['E3', 'E4'], since: END - HOUR, why: 'no figure' }],
      rules: {
        ...FRESH_STATE,
        minute: END,
        strong: { minute: END - HOUR, count: 11 },
        fired: { E2: END - 5 * MINUTE },
      },
    });
    const { page, faults } = await visit('/major-events');
    for (const [event, state] of [
      ...[
        ['E1', 'waiting'],
        ['E2', 'resting'],
        ['E3', 'blind'],
        ['E4', 'blind'],
        ['E5', 'armed'],
      ],
    ] as [string, string][])
      await shows(page, `state-${event}`, state);
    assert.match(await figureOf(page, 'rule-E1'), /reach 9 or more; within 10 h .*at least 2,.*after 45 min/);
    assert.match(await figureOf(page, 'rule-E3'), /10,000,000 USD, and 10 min later BTC is up by 1.5 %/);
    assert.match(await figureOf(page, 'blind-E3'), /liquidations in 1 h \(no figure\), since 2026-11-29 23:00/);
    const told = [...history.events].sort((a, b) => b.minute - a.minute);
    assert.ok(told.length > 3 && new Set(told.map(({ event }) => event)).size > 1, 'there is something to show');
    await shows(page, 'history-text', told[0]!.text);
    const lastE2 = told.find(({ event }) => event === 'E2')!;
    await shows(page, 'last-E2', lastE2.text);
    const filter = page.getByRole('group', { name: 'Event' });
    await filter.getByRole('button', { name: 'E2' }).click();
    await shows(page, 'history-text', lastE2.text);
    const names = await page.locator('[data-figure="history-event"]').allTextContents();
    assert.equal(names.length, Math.min(25, told.filter(({ event }) => event === 'E2').length));
    assert.deepEqual(new Set(names), new Set(['E2 weak top']));
    await shows(page, 'anchor-positions', '7');
    await shows(page, 'anchor-short-loss', '2');
    await shows(page, 'anchor-short-120', '1');
    await shows(page, 'input-anchor', '2 / 1');
    await page.getByRole('button', { name: '简体中文' }).click();
    assert.match(await figureOf(page, 'rule-E1'), /达到 9 及以上/);
    await shows(page, 'last-E2', lastE2.text_zh);
    rmSync(limitsFile());
    assert.deepEqual(faults, []);
  });

  test('on a phone nothing is scrolled sideways, and in the dark or the light each page stands without a fault', async () => {
    for (const path of ['/escape-signal-history', '/coin-price-tracker', '/major-events']) {
      const { page, faults, close } = await visit(path, { viewport: PHONE, language: 'zh', theme: 'light' });
      const charts = path === '/major-events' ? '[data-figure="history-text"]' : '.chart canvas';
      await page.locator(charts).first().waitFor();
      await page.waitForLoadState('networkidle');
      await assertNoSidewaysScroll(page);
      assert.deepEqual(faults, [], path);
      await close();
    }
  });

  test('where there are no records yet, each page says which script writes them', async () => {
    for (const [path, scripts] of [
      ['/escape-signal-history', ['escape_signal_calc.ts', 'sar_slope_collector.ts', 'unified_data_collector.ts']],
      ['/coin-price-tracker', ['coin_price_tracker.ts']],
      ['/major-events', ['major_events_monitor.ts']],
    ] as const) {
      const { page, faults, close } = await visit(path, {}, none);
      for (const script of scripts) await page.locator('.empty', { hasText: script }).first().waitFor();
      assert.deepEqual(faults, [], path);
      await close();
    }
  });

  test('scripts that have ended are told, and a service that has ended leaves the last figures with their age', async () => {
    const allowed = /Failed to load resource|ERR_CONNECTION_REFUSED/;
    const paths = ['/escape-signal-history', '/coin-price-tracker', '/major-events'] as const;
    const figures = ['escape-24h', 'prices-total', 'events-judged'];
    const views: Opened[] = [];
    now += HOUR;
    for (const path of paths) views.push(await visit(path, { allowed }));
    const pages = views.map(({ page }) => page);
    for (const page of pages)
      await page
        .getByText(/Is \w+\.ts running\?/)
        .first()
        .waitFor();
    const before = await Promise.all(pages.map((page, i) => figureOf(page, figures[i]!)));
    for (const text of before) assert.match(text, /\d/);
    // The whole history is not asked for again each minute: the minutes that do not come any more are enough.
    await pages[0]!.route('**/escape-signal-stats/columns*', () => undefined);
    await web.close();
    for (const [i, page] of pages.entries()) {
      await lookAgain(page);
      await page.getByText('The service does not answer. Is web.ts running?').first().waitFor();
      await page
        .getByText(/^These figures are .* old$/)
        .first()
        .waitFor();
      assert.equal(await figureOf(page, figures[i]!), before[i]);
    }
    await pages[0]!.getByRole('region', { name: 'History' }).getByRole('alert').waitFor();
    for (const { faults } of views) assert.deepEqual(faults, []);
  });
});
