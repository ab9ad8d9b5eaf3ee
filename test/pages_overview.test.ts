/// <reference lib="dom" />
/** The overview in a browser, over the whole pipeline as it runs: figures as the API and the database have them, and stages that go away. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import type { Browser, Page } from 'playwright-core';
import { insertLines } from '../scripts/lib/clickhouse.ts';
import { loadConfig } from '../scripts/lib/config.ts';
import { appendDeadLetters } from '../scripts/lib/deadletter.ts';
import { writeJsonAtomic } from '../scripts/lib/files.ts';
import { freePort } from '../scripts/lib/free_port.ts';
import { createLogger } from '../scripts/lib/log.ts';
import { Monitor } from '../scripts/lib/monitor.ts';
import { serveMonitor } from '../scripts/lib/monitor_api.ts';
import { pause } from '../scripts/lib/pause.ts';
import { waitFor } from '../scripts/lib/processes.ts';
import { encodeRow, type GapRow } from '../scripts/lib/rows.ts';
import { createRegistry, healthDocument } from '../scripts/lib/service.ts';
import { steadyNow } from '../scripts/lib/steady.ts';
import type { OverviewAnswer } from '../scripts/lib/web/overview_answer.ts';
import type { CoverageAnswer } from '../scripts/lib/web/overview_coverage.ts';
import type { GapsAnswer, TimelineAnswer } from '../scripts/lib/web/overview_gaps.ts';
import { ROUTES } from '../scripts/web.ts';
import { assertNoSidewaysScroll, figureOf, type Opened, openPage, PHONE, startBrowser } from './browser.ts';
import { Pipeline, READY_MS } from './pipeline.ts';
import { Web } from './web_harness.ts';

const MINUTE = 60_000;
const LOG = createLogger('test', 'silent');
const EXCHANGES = ['binance_spot', 'binance_derivatives'] as const;
const pipeline = new Pipeline();
let web: Web;
let browser: Browser;
let monitor: Monitor;
let monitorApp: Awaited<ReturnType<typeof serveMonitor>>;
let opened: Opened;

/** As the store would: open, filled and unfillable ones, of which one is of unknown size. */
function gapRows(): GapRow[] {
  const from = Date.now() - 3 * 60 * MINUTE;
  const gap = (n: number, status: GapRow['status'], change: Partial<GapRow> = {}): GapRow => ({
    ...{
      exchange: 'binance_spot',
      market_type: 'spot',
      symbol: 'BTC-USDT',
      instrument: 'BTCUSDT',
      data_source: 'live',
    },
    ...{
      timestamp: from,
      received_at: from * 1000,
      gap_id: `gap-${n}`,
      data_type: 'trade',
      from_id: String(n),
      to_id: String(n + 9),
    },
    ...{ from_time: from + n * 1000, to_time: from + n * 1000 + 30_000, cause: 'outage', reason: null, status },
    ...{ rows: 10, filled_rows: null, detected_at: from + MINUTE, closed_at: null },
    ...change,
  });
  return [
    ...Array.from({ length: 40 }, (_, n) => gap(n, 'filled', { filled_rows: 10 })),
    ...[gap(50, 'open'), gap(51, 'open', { filled_rows: 4 })],
    gap(60, 'unfillable', { exchange: 'binance_derivatives', data_type: 'liquidation', rows: null }),
  ];
}

before(async () => {
  const env = { ...pipeline.env };
  await pipeline.startAll();
  const lines = gapRows().map(
    (row, n) => `${encodeRow('gap', row).slice(0, -1)},"js_epoch":1,"js_seq":${1_000_000 + n}}\n`,
  );
  await insertLines(pipeline.client(), 'marketprism_hot.gaps', Buffer.from(lines.join('')), 'test:gaps');
  const letter = {
    reason: 'no letter of a known cause',
    subject: 'trade.binance_spot.spot.BTC-USDT',
    js_epoch: 1,
    row: '{}',
  };
  appendDeadLetters(
    pipeline.dir,
    'trade',
    [1, 2, 3].map((js_seq) => ({ ...letter, js_seq })),
    new Date(),
  );
  const monitorPort = await freePort();
  Object.assign(env, pipeline.env, { MONITOR_HTTP_PORT: String(monitorPort), WEB_HTTP_PORT: '0' });
  await startMonitor(env, monitorPort);
  web = await Web.open(env, ROUTES);
  browser = await startBrowser();
  opened = await openPage(browser, `${web.url}/`, { allowed: /503 \(Service Unavailable\)/ });
});
after(async () => {
  await browser?.close();
  await web?.close();
  await monitorApp?.close();
  await monitor?.close();
  await pipeline.close();
});

/** The monitor's own API over its own alerts, of which it remembers two. */
async function startMonitor(env: NodeJS.ProcessEnv, port: number): Promise<void> {
  const config = loadConfig(env);
  const at = Date.now() - 5 * MINUTE;
  const alert = {
    ...{ check: 'disk', kind: 'full', severity: 'high', what: '7 % free', evidence: 'df', fix: 'du' },
    ...{
      since: at,
      last_seen: at,
      times: 2,
      depth: 'quick',
      muted_by: null,
      raises: [at],
      is_flapping: false,
      told: null,
    },
    acknowledged: null,
  };
  writeJsonAtomic(`${pipeline.dir}/state/alerts.json`, {
    alerts: [
      { ...alert, fingerprint: '0123456789abcdef', subject: '/data', state: 'standing', over_at: null },
      { ...alert, fingerprint: 'fedcba9876543210', subject: '/other', state: 'over', over_at: at },
    ],
    last: {},
  });
  monitor = new Monitor({
    config,
    log: LOG,
    notifiers: [],
    place: 'test',
    wallClock: Date.now,
    clock: steadyNow,
    pause,
  });
  const health = () => healthDocument('monitor', 0, {}, {});
  monitorApp = await serveMonitor({ monitor, token: undefined, port, health, registry: createRegistry(), log: LOG });
}

/** The text of a figure as a number; NaN for the sign of what is not known. */
async function numberOf(page: Page, name: string): Promise<number> {
  return Number.parseFloat((await figureOf(page, name)).replaceAll(',', ''));
}
const untilShown = (what: string, holds: () => Promise<boolean>) => waitFor(what, READY_MS, holds);
const overviewNow = (): Promise<OverviewAnswer> => web.ok('/api/overview');

test('each stage is shown healthy with what flows through it, and rows as many as the tables have', async () => {
  const { page } = opened;
  for (const stage of ['collector', 'nats', 'store', 'hot', 'cold'])
    await untilShown(stage, async () => (await figureOf(page, `stage-${stage}-status`)) === 'healthy');
  for (const stage of ['collector', 'nats', 'store'])
    await untilShown(`a rate of ${stage}`, async () => (await numberOf(page, `stage-${stage}-rate`)) > 0);
  await untilShown('a rate of replication', async () => !Number.isNaN(await numberOf(page, 'stage-replicate-rate')));
  const [{ stages }, shown] = [await overviewNow(), await numberOf(page, 'stage-collector-rate')];
  const { rate } = stages.find(({ name }) => name === 'collector')!;
  assert.ok(shown > rate! / 5 && shown < rate! * 5, `${shown} is shown, ${rate} is told`);
  const counted = async () =>
    Number(
      (
        await pipeline.query(
          `SELECT sum(rows) FROM system.parts WHERE active AND database = 'marketprism_hot' AND table NOT IN ('stream_epochs', 'schema_migrations')`,
        )
      )[0]![0],
    );
  const before = await counted();
  await page.waitForResponse(/\/api\/overview/);
  await page.waitForResponse(/\/api\/overview/);
  const rows = await numberOf(page, 'hot-rows');
  assert.ok(rows >= before && rows <= (await counted()), `${before} <= ${rows}`);
});

/** Of the collector's health: data type, exchange, market type, symbol. */
type Coverage = Record<string, Record<string, Record<string, Record<string, { rows: number }>>>>;

test('each exchange has its line, whose rows are those that the collector accepted', async () => {
  const { page } = opened;
  const accepted = async (exchange: string) => {
    const { coverage } = (await pipeline.health('collector')) as unknown as { coverage: Coverage };
    const markets = Object.values(coverage).flatMap((exchanges) => Object.values(exchanges[exchange] ?? {}));
    return markets.flatMap((symbols) => Object.values(symbols)).reduce((sum, { rows }) => sum + rows, 0);
  };
  for (const exchange of EXCHANGES) {
    const least = await accepted(exchange);
    await untilShown(`rows of ${exchange}`, async () => (await numberOf(page, `${exchange}-rows`)) >= least);
    assert.ok((await numberOf(page, `${exchange}-rows`)) <= (await accepted(exchange)));
    assert.equal(await figureOf(page, `${exchange}-status`), 'healthy');
    const { sockets, connected } = (await overviewNow()).exchanges.find((each) => each.exchange === exchange)!;
    assert.equal(await figureOf(page, `${exchange}-sockets`), `${connected} / ${sockets}`);
    assert.equal(connected, sockets);
    assert.match(await figureOf(page, `${exchange}-age`), /^\d+(\.\d+)? (ms|s)$/);
  }
});

test('coverage has a cell for what an exchange has, blank for what it has not, and the newest row of the table', async () => {
  const { page } = opened;
  await untilShown('fresh trades', async () => (await coverageState(page, 'binance_spot-trade')) === 'good');
  const newest = async () =>
    Number(
      (
        await pipeline.query(
          `SELECT toUnixTimestamp64Milli(max(timestamp)) FROM marketprism_hot.trades WHERE exchange = 'binance_spot'`,
        )
      )[0]![0],
    );
  const before = await newest();
  await pause(2500);
  const { cells }: CoverageAnswer = await web.ok('/api/coverage');
  const cell = cells.find(({ exchange, data_type }) => exchange === 'binance_spot' && data_type === 'trade')!;
  assert.ok(cell.newest! >= before && cell.newest! <= (await newest()));
  assert.equal(await page.locator('.coverage tbody tr').count(), EXCHANGES.length);
  assert.equal(await page.locator('[data-figure^="coverage-"]').count(), cells.length);
  // Spot has no funding: that is no fault, and no figure.
  assert.equal(await page.locator('[data-figure="coverage-binance_spot-funding_rate"]').count(), 0);
  assert.equal(await coverageState(page, 'binance_derivatives-liquidation'), 'event');
});

function coverageState(page: Page, cell: string): Promise<string | null> {
  return page.locator(`[data-figure="coverage-${cell}"]`).getAttribute('data-state');
}

test('gaps are counted as gaps_now has them, stand on the time line without one being hidden, and are walked along by keys', async () => {
  const { page } = opened;
  const counted = await pipeline.query(
    `SELECT toString(status), count(), sum(ifNull(rows - ifNull(filled_rows, 0), 0)) FROM marketprism_hot.gaps_now GROUP BY status ORDER BY status`,
  );
  assert.deepEqual(counted.map((row) => row.join(' ')).sort(), ['filled 40 0', 'open 2 16', 'unfillable 1 0']);
  for (const [status, count] of counted) assert.equal(await numberOf(page, `gaps-${status}`), Number(count), status);
  assert.equal(await figureOf(page, 'gaps-open-rows'), '16 rows missing');
  assert.equal(await figureOf(page, 'gaps-unfillable-rows'), '1 of unknown size');
  const { marks }: TimelineAnswer = await web.ok('/api/gaps/timeline');
  await untilShown('all marks', async () => (await page.locator('.lane-mark').count()) === marks.length);
  const shown = await page
    .locator('.lane-mark')
    .evaluateAll((all) => all.map((each) => Number(each.getAttribute('data-gaps'))));
  assert.equal(
    shown.reduce((sum, each) => sum + each, 0),
    43,
  );
  assert.ok(marks.length <= 8, `${marks.length} marks of 43 gaps`);
  await page.locator('.lane').last().focus();
  const detail = page.locator('[data-figure="gap-detail"]');
  const first = await detail.textContent();
  assert.match(first!, /^binance_spot Trades · \d+ gaps? (open|filled|unfillable)/);
  await page.keyboard.press('ArrowRight');
  await untilShown('another mark', async () => (await detail.textContent()) !== first);
  const { gaps }: GapsAnswer = await web.ok('/api/gaps?limit=10');
  const states = await page.locator('section[aria-label="Gaps, newest first"] .badge').allTextContents();
  assert.deepEqual(
    states,
    gaps.map(({ status }) => status),
  );
});

test('dead letters, the outbox, the disk and the alerts are what files and monitor say', async () => {
  const { page } = opened;
  assert.equal(await numberOf(page, 'deadletters'), 3);
  assert.match(await figureOf(page, 'outbox-waiting'), /^[\d.]+ (B|KiB|MiB) /);
  assert.match(await figureOf(page, 'disk-free'), /^[\d.]+ [KMGT]iB \d+ % of /);
  const alerts = page.locator('section[aria-label="Last alerts"] tbody tr');
  const lines = await alerts.allTextContents();
  assert.match(lines[0]!, /high.*standing.*disk nearly full: \/data: 7 % free/);
  assert.match(lines[1]!, /high.*over.*disk nearly full: \/other/);
  assert.deepEqual(opened.faults, []);
});

test('in Chinese, in the other theme and on a phone it is the same page', async () => {
  const phone = await openPage(browser, `${web.url}/`, { language: 'zh', theme: 'light', viewport: PHONE });
  const { page } = phone;
  await untilShown('a stage', async () => (await figureOf(page, 'stage-store-status')) === '正常');
  assert.equal(await page.locator('h1').textContent(), '总览');
  await page.locator('.lane-mark').first().waitFor();
  await page.locator('.coverage-cell').first().waitFor();
  await assertNoSidewaysScroll(page);
  // Words that were not translated would stand out.
  const words = (await page.locator('main *:not(:has(*))').allTextContents()).join('\n');
  assert.doesNotMatch(words, /\b(rows|healthy|gaps|missing|sockets|waits|unread|behind)\b/);
  assert.match(words, /磁盘空间不足: \/data/);
  const ground = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  const light = await ground();
  await page.getByRole('button', { name: '深色' }).click();
  assert.notEqual(await ground(), light);
  assert.deepEqual(phone.faults, []);
  await phone.close();
});

test('a stage that goes away is said so with its reason, without a reload, and the rest stays', async () => {
  const { page } = opened;
  await page.evaluate(() => document.body.setAttribute('data-same', 'yes'));
  await pipeline.stop('store');
  await untilShown('the store away', async () => (await figureOf(page, 'stage-store-status')) === 'away');
  assert.match(await figureOf(page, 'stage-store-rate'), /^– /);
  const reason = await page.locator('.pipeline-faults [data-stage="store"]').textContent();
  assert.match(reason!, /^Store: away store\.ts on port \d+ does not answer: ECONNREFUSED$/);
  assert.notEqual(await figureOf(page, 'stage-collector-status'), 'away');
  assert.ok((await numberOf(page, 'stage-collector-rate')) > 0);
  // What nobody stores waits in the broker.
  await untilShown('messages that wait', async () => (await numberOf(page, 'jetstream-unread')) > 20);
  assert.ok((await numberOf(page, 'hot-rows')) > 0);
  assert.equal(await page.locator('body').getAttribute('data-same'), 'yes');
  assert.deepEqual(opened.faults, []);
});

test('without the database the page says so where it is needed, and keeps the figures that it had with their age', async () => {
  const { page } = opened;
  const cells = await page.locator('.coverage-cell').count();
  await pipeline.stop('clickhouse_embedded');
  await untilShown('hot away', async () => (await figureOf(page, 'stage-hot-status')) === 'away');
  assert.match(await figureOf(page, 'hot-rows'), /^–/);
  const coverage = page.locator('section.card[aria-label="Coverage"]');
  // One that is just ending resets the connections that it had.
  await untilShown('a refused connection', async () =>
    /^the database at 127\.0\.0\.1:\d+ does not answer: ECONNREFUSED$/.test(
      (await coverage.locator('.problem').textContent())!,
    ),
  );
  assert.equal(await page.locator('.coverage-cell').count(), cells);
  assert.match((await coverage.textContent())!, /These figures are [\d.]+ m?s old/);
  assert.equal(await numberOf(page, 'gaps-filled'), 40);
  assert.ok((await numberOf(page, 'stage-collector-rate')) > 0);
  assert.deepEqual(opened.faults, []);
});
