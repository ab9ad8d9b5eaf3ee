/// <reference lib="dom" />
/** The pages of quality and soak in a real browser: what they show is what API, files and database hold; what a reader does there is done. */
import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import type { Browser, Page } from 'playwright-core';
import { insertLines } from '../scripts/lib/clickhouse.ts';
import { loadConfig } from '../scripts/lib/config.ts';
import { freePort } from '../scripts/lib/free_port.ts';
import { createLogger } from '../scripts/lib/log.ts';
import { Child, scriptPlan, waitFor } from '../scripts/lib/processes.ts';
import { encodeRow } from '../scripts/lib/rows.ts';
import { ensureTier, ensureViews } from '../scripts/lib/schema.ts';
import { ROUTES } from '../scripts/web.ts';
import { assertNoSidewaysScroll, figureOf, openPage, PHONE, startBrowser } from './browser.ts';
import { sampleTrade } from './fixtures.ts';
import { Pipeline, READY_MS } from './pipeline.ts';
import { keptRounds, soakReport, writeRounds, writeSoak } from './quality_inputs.ts';
import { Web } from './web_harness.ts';

const TOKEN = 'a-token-of-the-test';
const MINUTE = 60_000;
const DAY = 86_400_000;
/** In both tiers, how many of them are there twice, and how many hot has besides. */
const STORED = 40;
const DOUBLED = 3;
const YOUNG = 7;

describe('the pages of quality and soak', () => {
  const pipeline = new Pipeline();
  let web: Web;
  let browser: Browser;
  let monitor: Child;
  const now = Date.now();
  const soak = { id: 'going', began: now - 300 * MINUTE, minutes: 720 };

  before(async () => {
    await pipeline.choosePorts();
    await pipeline.startDatabase();
    const client = pipeline.client();
    const config = loadConfig(pipeline.env);
    for (const [tier, database] of [
      ['hot', config.hotDatabase],
      ['cold', config.coldDatabase],
    ] as const) {
      await ensureTier(client, tier, database);
      const young = Array.from({ length: tier === 'hot' ? YOUNG : 0 }, (_, i) => STORED + i);
      const rows = [...Array.from({ length: STORED + DOUBLED }, (_, i) => i % STORED), ...young];
      const lines = rows.map((n, i) => {
        const at = now - 10 * MINUTE + n * 1000;
        const row = sampleTrade(5000 + n, { timestamp: at, received_at: at * 1000 });
        return `${encodeRow('trade', row).slice(0, -1)},"js_epoch":1,"js_seq":${i + 1}}\n`;
      });
      await insertLines(client, `${database}.trades`, Buffer.from(lines.join('')), 'test');
    }
    // Up to where both are the same: a difference would be looked at twice, a while apart.
    await client.command({
      query: `INSERT INTO ${config.coldDatabase}.replication_progress (table_name, js_epoch, after_seq, upto_seq, window_rows, copied_rows, window_hash) VALUES ('trades', 1, 0, ${STORED + DOUBLED}, ${STORED + DOUBLED}, ${STORED + DOUBLED}, 0)`,
    });
    await ensureViews(client, config, createLogger('test', 'silent'));
    // The monitor's own come after them.
    writeRounds(
      pipeline.dir,
      keptRounds(now - 30 * DAY, now - 15 * MINUTE, (n) => (n === 2000 ? 97.5 : 100)),
    );
    writeSoak(pipeline.dir, soakReport({ ...soak, done: 300 }));
    writeSoak(pipeline.dir, soakReport({ id: 'leak', began: now - 3 * DAY, minutes: 720, leak: 9 }));
    const port = await freePort();
    const env = {
      ...pipeline.env,
      ...{ MONITOR_HTTP_PORT: String(port), MARKETPRISM_API_TOKEN: TOKEN, HEALTH_GRACE_SECONDS: '3600' },
    };
    monitor = new Child(scriptPlan('monitor', [], env, pipeline.logDir), () => false);
    monitor.start();
    web = await Web.open(env, ROUTES);
    [browser] = await Promise.all([
      startBrowser(),
      // Its first round comes with the grace, or when somebody asks for one.
      waitFor('the monitor', READY_MS, async () => (await web.get('/api/monitoring/health')).status === 200),
    ]);
  });
  after(async () => {
    await browser?.close();
    await web?.close();
    await monitor?.stop();
    await pipeline.close();
  });

  const count = async (table: string) => Number((await pipeline.query(`SELECT count() FROM ${table}`))[0]![0]);
  const shown = (page: Page, name: string, text: string) =>
    waitFor(`${name} to be ${text}`, READY_MS, async () => (await figureOf(page, name)) === text);
  /** As when a reader comes back to the page: it asks at once, and not by and by. */
  const seen = (page: Page) => page.evaluate(() => document.dispatchEvent(new Event('visibilitychange')));
  const grouped = (value: number) => value.toLocaleString('en-US');

  test('what checks, alerts and streams come to is what the API and the database hold', async () => {
    const { page, faults, close } = await openPage(browser, `${web.url}/quality`);
    await page.getByText('No alert stands.').waitFor();
    await page.getByText(/^monitor\.ts has counted no rows since its start/).waitFor();
    assert.equal(await figureOf(page, 'completeness'), '–');
    await page.getByLabel('API token').fill(TOKEN);
    await page.getByRole('button', { name: 'Run a quick round' }).click();
    await page.getByText('The round is over.').waitFor();
    const health = await web.ok('/api/monitoring/health');
    assert.ok(health.standing_alerts.critical > 0, 'nothing but the database runs');
    await shown(page, 'standing', String(health.standing_alerts.total));
    assert.equal(await figureOf(page, 'standing-critical'), String(health.standing_alerts.critical));
    assert.equal(await figureOf(page, 'acknowledged'), '0');
    const metrics = await web.ok('/api/monitoring/data-consistency/metrics');
    const [hot, cold] = [await count('marketprism_hot.trades'), await count('marketprism_cold.trades')];
    assert.deepEqual([hot, cold], [STORED + DOUBLED + YOUNG, STORED + DOUBLED]);
    assert.deepEqual([metrics.rows_hot, metrics.rows_cold], [hot, cold]);
    await shown(page, 'rows-hot', String(hot));
    assert.equal(await figureOf(page, 'rows-cold'), String(cold));
    assert.equal(await figureOf(page, 'rows-missing'), String(metrics.rows_missing));
    const rounds = await web.ok('/api/quality/rounds?limit=12');
    const rows = page.getByRole('region', { name: 'Rounds of checks' }).last().getByRole('row');
    assert.equal(await rows.count(), 13);
    // Without a broker there are checks that cannot be asked, which is never healthy.
    assert.equal(rounds.data[0].status, 'unchecked');
    assert.match((await rows.nth(1).textContent())!, /could not be checked.*a person$/);
    assert.match(await figureOf(page, 'not-asked'), /^Could not be asked, so that nothing is known of it: .*streams/);
    // What the newest round found, with its remedy.
    const { round } = await web.ok('/api/quality/latest');
    assert.equal(round.id, rounds.data[0].id);
    const found = round.checks.flatMap((each: { findings: object[] }) => each.findings).length;
    const findings = page.getByRole('region', { name: 'What was found' }).getByRole('row');
    await findings.nth(found).waitFor();
    assert.equal(await findings.count(), found + 1);
    const line = findings.filter({ hasText: `${DOUBLED} rows too many in marketprism_hot` });
    assert.match((await line.textContent())!, /high.*duplicates.*trade.*BTC-USDT.*Plan a repair/);
    // An older one, of a day with a defect.
    const { data } = await web.ok('/api/quality/rounds?status=unhealthy&limit=500');
    assert.ok(data.some((each: { completeness: number }) => each.completeness === 97.5));
    assert.match((await page.locator('.chart').first().getAttribute('aria-label'))!, /^Completeness over time: /);
    assert.deepEqual(faults, []);
    await close();
  });

  test('an alert is acknowledged, a limit is set, and a repair is planned, from the page', async () => {
    const { page, faults, close } = await openPage(browser, `${web.url}/quality`);
    const alerts = page.getByRole('region', { name: 'Alerts', exact: true }).last();
    const row = alerts.getByRole('row').filter({ hasText: 'rows doubled in hot' });
    await row.waitFor();
    assert.ok(await row.getByRole('button', { name: 'Acknowledge' }).isDisabled(), 'without the token');
    await page.getByLabel('API token').fill(TOKEN);
    await row.getByRole('button', { name: 'Acknowledge' }).click();
    await page.locator('input[name=by]').fill('Li');
    await page.locator('input[name=note]').fill('is being mended');
    await page.locator('form').getByRole('button', { name: 'Acknowledge' }).click();
    await shown(page, 'acknowledged', '1');
    const { alerts: standing } = await web.ok('/api/monitoring/alerts?state=standing');
    const known = standing.find(({ acknowledged }: { acknowledged: object | null }) => acknowledged !== null);
    assert.deepEqual([known.alert_type, known.acknowledged.by], ['doubled_in_hot', 'Li']);
    assert.match(await figureOf(page, `acknowledged-${known.fingerprint}`), /^acknowledged Li .*: is being mended$/);
    const kept = JSON.parse(readFileSync(join(pipeline.dir, 'state', 'alerts.json'), 'utf8'));
    const own = kept.alerts.find(({ fingerprint }: { fingerprint: string }) => fingerprint === known.fingerprint);
    assert.equal(own.acknowledged.note, 'is being mended');

    await page.locator('input[name=restarts]').fill('many');
    await page.getByRole('button', { name: 'Save what was changed' }).click();
    await page.getByText('Restarts: takes a number').waitFor();
    await page.locator('input[name=restarts]').fill('7');
    await page.getByRole('button', { name: 'Save what was changed' }).click();
    await page.getByText('Saved. They hold from the next round on.').waitFor();
    assert.equal((await web.ok('/api/monitoring/thresholds')).restarts, 7);

    const line = page.getByRole('region', { name: 'What was found' }).getByRole('row');
    const button = line
      .filter({ hasText: `${DOUBLED} rows too many in marketprism_hot` })
      .getByRole('button', { name: 'Plan a repair' });
    await button.click();
    await page.getByRole('button', { name: 'Plan', exact: true }).click();
    await page.locator('[data-figure=job][data-state=ended]').waitFor();
    // In hot and in cold.
    assert.equal(await figureOf(page, 'plan-rows'), String(2 * DOUBLED));
    const { data } = await web.ok('/api/repair/jobs');
    assert.deepEqual(
      [data[0].planned.check, data[0].planned.exchange, data[0].plan.rows],
      ['duplicates', 'binance_spot', 2 * DOUBLED],
    );
    assert.equal(await figureOf(page, 'job-message'), `${2 * DOUBLED} rows; nothing was changed: --apply does it`);
    assert.equal(await count('marketprism_hot.trades'), STORED + DOUBLED + YOUNG);
    // There is no broker here: its one line is passed on, and nothing was changed.
    await page.getByRole('button', { name: 'Apply this plan' }).click();
    await page.getByRole('button', { name: 'Really? Apply this plan' }).click();
    await page.locator('[data-figure=job][data-state=ended][data-kind=apply]').waitFor();
    assert.match(await figureOf(page, 'job-message'), /^the broker at \S+ cannot be reached: .*: nothing was changed$/);
    assert.ok(!existsSync(join(pipeline.dir, 'state', 'repair')));
    assert.deepEqual(faults, []);
    await close();
  });

  test('the soak page shows verdicts and samples of the reports, and a run that goes on as it goes', async () => {
    const { page, faults, close } = await openPage(browser, `${web.url}/soak`);
    const runs = page.getByRole('region', { name: 'Soak runs' }).last();
    await runs.getByRole('row').nth(2).waitFor();
    assert.match((await runs.getByRole('row').nth(1).textContent())!, /^goingincompleterunning/);
    assert.match((await runs.getByRole('row').nth(2).textContent())!, /^leakfailedended/);
    await shown(page, 'soak-samples', '300 of 300');
    assert.equal(await figureOf(page, 'measured-coin_time'), '212.5 ms');
    assert.equal(await figureOf(page, 'measured-stop_time'), '–');
    writeSoak(pipeline.dir, soakReport({ ...soak, done: 301 }));
    await seen(page);
    await shown(page, 'soak-samples', '301 of 301');
    const label = await page.locator('.chart').first().getAttribute('aria-label');
    const { processes } = await web.ok('/api/soak/reports/going');
    const last = processes.rss_bytes.series[1].values.at(-1) / 2 ** 20;
    assert.ok(label!.includes(`store ${last.toFixed(1)}`), label!);
    await runs.getByRole('button', { name: 'leak' }).click();
    await shown(page, 'soak-verdict', 'failed');
    assert.match(page.url(), /\?run=leak$/);
    const report = soakReport({ id: 'leak', began: now - 3 * DAY, minutes: 720, leak: 9 });
    assert.equal(await figureOf(page, 'measured-rss_growth'), `${report.criteria[0]!.measured} %`);
    assert.equal(await figureOf(page, 'soak-samples'), `${grouped(720)} of ${grouped(720)}`);
    assert.deepEqual(faults, []);
    await close();
  });

  test('both are Chinese and light where that is chosen, and no wider than a phone', async () => {
    for (const [path, name] of [
      ['/quality', '修复记录'],
      ['/soak', '判定标准'],
    ] as const) {
      const { page, faults, close } = await openPage(browser, web.url + path, {
        ...{ language: 'zh', theme: 'light', viewport: PHONE },
      });
      await page.getByRole('region', { name }).first().waitFor();
      await page.locator('.chart canvas').first().waitFor();
      await assertNoSidewaysScroll(page);
      assert.equal(await page.evaluate(() => document.documentElement.lang), 'zh-CN');
      assert.equal(await page.evaluate(() => getComputedStyle(document.body).backgroundColor), 'rgb(244, 246, 248)');
      await page.getByRole('button', { name: 'English' }).click();
      await page
        .getByText(path === '/quality' ? 'Completeness over time' : 'Memory over time')
        .first()
        .waitFor();
      await page.getByRole('button', { name: 'Dark' }).click();
      assert.equal(await page.evaluate(() => getComputedStyle(document.body).backgroundColor), 'rgb(13, 17, 23)');
      assert.deepEqual(faults, []);
      await close();
    }
  });

  test('while the monitor is away that is told in one line, with the old figures, and what is in files is there', async () => {
    const { page, faults, close } = await openPage(browser, `${web.url}/quality`, { allowed: /502/ });
    const total = (await web.ok('/api/monitoring/health')).standing_alerts.total;
    await shown(page, 'standing', String(total));
    await monitor.stop();
    await seen(page);
    await page
      .getByText(/^monitor\.ts on port \d+ does not answer: ECONNREFUSED$/)
      .first()
      .waitFor();
    assert.equal(await figureOf(page, 'standing'), String(total));
    await page
      .getByText(/^These figures are .* old$/)
      .first()
      .waitFor();
    await page.reload();
    await page.getByRole('region', { name: 'Rounds of checks' }).last().getByRole('row').nth(12).waitFor();
    assert.deepEqual(faults, []);
    await close();
  });
});
