/** What the dashboard and the alert rules name is really there, with these labels; what is measured is what the database holds. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { headers } from 'nats';
import { loadConfig } from '../scripts/lib/config.ts';
import { waitFor } from '../scripts/lib/processes.ts';
import { insertedMessages, latencyOf } from '../scripts/lib/store_metrics.ts';
import { Pipeline, READY_MS } from './pipeline.ts';
import { type NamedMetric, namedIn } from './promql.ts';

const ROOT = join(import.meta.dirname, '..');
const MONITORING = join(ROOT, 'scripts', 'monitoring');
const RULES = join(MONITORING, 'alert_rules.yml');
const SCRAPES = join(MONITORING, 'prometheus.yml');
const RULE_TESTS = join(ROOT, 'test', 'fixtures', 'alert_rules_test.yml');
const DASHBOARD = join(MONITORING, 'grafana-marketprism.json');
/** Where `npm run setup` keeps it when the machine has none. */
const KEPT_PROMTOOL = join(ROOT, 'node_modules', '.cache', 'marketprism', 'promtool');

interface Panel {
  id: number;
  type: string;
  title: string;
  description?: string;
  datasource?: { type: string; uid: string };
  gridPos: { h: number; w: number; x: number; y: number };
  fieldConfig?: { defaults: { unit?: string } };
  targets?: { expr: string; legendFormat: string; datasource: { uid: string } }[];
}
interface Dashboard {
  schemaVersion: number;
  uid: string;
  panels: Panel[];
  templating: { list: { name: string; type: string; definition?: string }[] };
}

const dashboard = JSON.parse(readFileSync(DASHBOARD, 'utf8')) as Dashboard;
const rulesText = readFileSync(RULES, 'utf8');
const scrapesText = readFileSync(SCRAPES, 'utf8');

/** By alert, the text of its rule. */
const rules = new Map(
  rulesText
    .split(/^ {6}- alert: /m)
    .slice(1)
    .map((text) => [/^\w+/.exec(text)![0], text]),
);
const expressionOf = (rule: string) => /^ {8}expr: (.+)$/m.exec(rule)?.[1] ?? '';

/** Scraped ports by job, as they are in the file. */
const jobs = new Map(
  [...scrapesText.matchAll(/job_name: (\S+)\n.*\n\s+- targets: \['127\.0\.0\.1:(\d+)'\]/g)].map(([, job, port]) => [
    job!,
    Number(port),
  ]),
);

describe('the dashboard and the rules as files', () => {
  test('every panel has a place, a unit, a word on what it shows, and the data source that is chosen', () => {
    const { panels, schemaVersion, templating } = dashboard;
    assert.ok(schemaVersion >= 36, 'of Grafana 9 or later');
    assert.equal(templating.list[0]?.type, 'datasource');
    assert.equal(new Set(panels.map(({ id }) => id)).size, panels.length);
    const taken = new Set<string>();
    for (const { type, title, description, datasource, gridPos, fieldConfig, targets } of panels) {
      for (let x = gridPos.x; x < gridPos.x + gridPos.w; x += 1) {
        assert.ok(x < 24, title);
        for (let y = gridPos.y; y < gridPos.y + gridPos.h; y += 1) {
          assert.ok(!taken.has(`${x} ${y}`), `${title} lies over another panel`);
          taken.add(`${x} ${y}`);
        }
      }
      if (type === 'row') continue;
      assert.ok(description && fieldConfig?.defaults.unit && targets!.length > 0, title);
      for (const each of [datasource, ...targets!.map((target) => target.datasource)]) {
        assert.equal(each?.uid, `\${${templating.list[0].name}}`, title);
      }
    }
    const rows = panels.filter(({ type }) => type === 'row').map(({ title }) => title);
    for (const wanted of [
      'Throughput',
      'Coverage',
      'Gaps',
      'Latency and lag',
      'Queues and dead letters',
      'Order books',
      'Resources',
    ])
      assert.ok(rows.includes(wanted), wanted);
  });

  test('every rule says how bad it is, how long it lasts, what is wrong and what to do', () => {
    for (const [name, rule] of rules) {
      assert.match(rule, /^ {8}for: \d+[sm]$/m, name);
      assert.match(rule, /^ {10}severity: (critical|warning)$/m, name);
      assert.match(rule, /^ {10}summary: .{20,}$/m, name);
      assert.match(rule, /^ {10}action: .{20,}$/m, name);
    }
  });

  test('every rule is tested for firing and for keeping silent', () => {
    const text = readFileSync(RULE_TESTS, 'utf8');
    const cases = [...text.matchAll(/alertname: (\w+)\n\s+exp_alerts:( \[\])?/g)];
    for (const name of rules.keys()) {
      const own = cases.filter(([, alert]) => alert === name).map(([, , none]) => none === undefined);
      assert.ok(own.includes(true) && own.filter((fires) => !fires).length >= 2, name);
    }
  });

  test('what is scraped by default are the ports that the services have by default', () => {
    const { metricsPort, storePort, replicatePort, monitorPort, clickhouseUrl } = loadConfig({});
    assert.equal(jobs.get('marketprism-collector'), metricsPort);
    assert.equal(jobs.get('marketprism-store'), storePort);
    assert.equal(jobs.get('marketprism-replicate'), replicatePort);
    assert.equal(jobs.get('marketprism-monitor'), monitorPort);
    assert.equal(jobs.get('marketprism-clickhouse'), Number(new URL(clickhouseUrl).port));
    assert.equal(jobs.size, [...scrapesText.matchAll(/job_name:/g)].length);
  });
});

describe('promtool', () => {
  /** @returns what it says. It must succeed: a machine without it has not checked the rules. */
  function promtool(...args: string[]): string {
    const places = (process.env.PATH ?? '').split(delimiter).map((place) => join(place, 'promtool'));
    const program = [...places, KEPT_PROMTOOL].find((place) => existsSync(place));
    assert.ok(program, 'promtool is missing: npm run setup fetches it, or apt-get install prometheus');
    const { status, stdout, stderr } = spawnSync(program, args, { encoding: 'utf8' });
    assert.equal(status, 0, `${stdout}${stderr}`);
    return `${stdout}${stderr}`;
  }

  test('takes the rules, as many as are read here', () => {
    assert.match(promtool('check', 'rules', RULES), new RegExp(`SUCCESS: ${rules.size} rules found`));
  });
  test('takes the scrape configuration', () => {
    assert.match(promtool('check', 'config', SCRAPES), /SUCCESS: \S+ is valid prometheus config file syntax/);
  });
  test('sees each alert fire for its condition, and not otherwise', () => {
    assert.match(promtool('test', 'rules', RULE_TESTS), /SUCCESS/);
  });
});

describe('what the store reads of inserted rows', () => {
  const line = (exchange: string, receivedAt: number, source: string) =>
    `{"js_epoch":1,"js_seq":7,"exchange":"${exchange}","symbol":"BTC-USDT","received_at":${receivedAt},"data_source":"${source}"}\n`;

  test('rows of one message are one sample, and count as many', () => {
    const rows = [7, 8, 9].flatMap((seq) => {
      const text = line(seq === 8 ? 'okx_spot' : 'binance_spot', seq, 'live');
      const message = { text, splice: '', seq, lines: 3 };
      return Array.from({ length: { 7: 2, 8: 1, 9: 3 }[seq]! }, () => ({
        message,
        start: 0,
        end: 0,
        key: '',
        timestamp: 0,
      }));
    });
    assert.deepEqual(
      insertedMessages(rows).map(({ exchange, rows: count }) => [exchange, count]),
      [
        ['binance_spot', 2],
        ['okx_spot', 1],
        ['binance_spot', 3],
      ],
    );
  });

  test('only what came straight from the exchange has a latency, and none is below zero', () => {
    const now = 1_700_000_000_000;
    assert.equal(latencyOf(line('okx_spot', (now - 250) * 1000, 'live'), 'live', now), 0.25);
    assert.equal(latencyOf(line('okx_spot', (now + 250) * 1000, 'live'), 'live', now), 0);
    assert.equal(latencyOf(line('okx_spot', now * 1000, 'backfill:okx'), 'live', now), null);
    assert.equal(latencyOf('{"data_source":"live"}\n', 'live', now), null);
  });
});

interface Series {
  metric: string;
  labels: Record<string, string>;
  value: number;
}

/** The samples of a text in Prometheus' exposition format. */
function readSeries(text: string, target: Record<string, string>): Series[] {
  const lines = text.split('\n').filter((each) => each !== '' && !each.startsWith('#'));
  return lines.map((each) => {
    const [, metric, inside, value] = /^([A-Za-z_:][\w:]*)(?:\{(.*)\})? (\S+)$/.exec(each)!;
    const labels = { ...target };
    for (const [, label, quoted] of (inside ?? '').matchAll(/([A-Za-z_]\w*)=("(?:\\.|[^"\\])*")/g)) {
      labels[label!] = JSON.parse(quoted!) as string;
    }
    return { metric: metric!, labels, value: Number(value) };
  });
}

/** What stands in a variable of the dashboard is any value. */
const plain = (expression: string) => expression.replace(/\[\$__\w+\]/g, '[1m]');

/** All that is named: where, and what. */
function allNamed(): { place: string; named: NamedMetric; legend: string[] }[] {
  const out: { place: string; named: NamedMetric; legend: string[] }[] = [];
  for (const [place, rule] of rules) {
    const legend = [...rule.matchAll(/\$labels\.(\w+)/g)].map(([, label]) => label!);
    for (const named of namedIn(expressionOf(rule))) out.push({ place, named, legend });
  }
  for (const { title, targets } of dashboard.panels) {
    for (const { expr, legendFormat } of targets ?? []) {
      const legend = [...legendFormat.matchAll(/\{\{(\w+)\}\}/g)].map(([, label]) => label!);
      for (const named of namedIn(plain(expr))) out.push({ place: title, named, legend });
    }
  }
  for (const { name, definition } of dashboard.templating.list) {
    const found = /^label_values\((\w+), (\w+)\)$/.exec(definition ?? '');
    if (found)
      out.push({ place: `$${name}`, named: { metric: found[1]!, matchers: [], grouping: [found[2]!] }, legend: [] });
  }
  return out;
}

/** Whether a series fits: has what it is grouped by and shown with, and matches what is asked. A label that is not there matches nothing here. */
function fits({ labels }: Series, { matchers, grouping }: NamedMetric, legend: string[]): boolean {
  if (![...grouping, ...legend].every((label) => label in labels)) return false;
  // What is not grouped by is gone.
  if (grouping.length > 0 && !legend.every((label) => grouping.includes(label))) return false;
  return matchers.every(({ label, operator, value }) => {
    const own = labels[label];
    if (own === undefined) return false;
    if (value.startsWith('$')) return true;
    const isEqual = operator.includes('~') ? new RegExp(`^(?:${value})$`).test(own) : own === value;
    return isEqual !== operator.startsWith('!');
  });
}

describe('the metrics of a running pipeline', () => {
  const pipeline = new Pipeline({
    MARKETPRISM_EXCHANGES: 'binance_derivatives',
    MARKETPRISM_SYMBOLS: 'BTC-USDT',
    MARKETPRISM_GAP_AGE: '3s',
    // What waits for the broker is to be seen on disk within seconds.
    MARKETPRISM_WATERMARK_PRICES: '20,20000',
    MARKETPRISM_WATERMARK_ORDERBOOK: '20,20000',
  });
  /** All series that were ever seen: some are there only while something is wrong. */
  const seen = new Map<string, Series>();

  before(async () => {
    await pipeline.choosePorts();
    await Promise.all([
      pipeline.startBroker(),
      pipeline.startDatabase(),
      pipeline.startSimulator([
        '--symbols',
        'BTC-USDT',
        '--trades-per-second',
        '20',
        '--liquidations-per-minute',
        '60',
      ]),
    ]);
    await Promise.all([pipeline.startStore(), pipeline.startReplicate(), pipeline.startCollector()]);
  });
  after(() => pipeline.close());

  async function scrape(): Promise<Series[]> {
    const { metrics, store, replicate, clickhouse } = pipeline.ports;
    const ports: Record<string, number> = {
      'marketprism-collector': metrics,
      'marketprism-store': store,
      'marketprism-replicate': replicate,
      'marketprism-clickhouse': clickhouse,
    };
    const texts = Object.entries(ports).map(async ([job, port]) => {
      assert.ok(jobs.has(job), job);
      const target = { job, instance: `127.0.0.1:${port}` };
      const answer = await fetch(`http://${target.instance}/metrics`);
      assert.equal(answer.status, 200);
      // Prometheus adds this one itself.
      return [...readSeries(await answer.text(), target), { metric: 'up', labels: target, value: 1 }];
    });
    const all = (await Promise.all(texts)).flat();
    for (const each of all) seen.set(`${each.metric} ${JSON.stringify(each.labels)}`, each);
    return all;
  }

  /** Scrapes until a series is there of which the value is as wanted. */
  function until(metric: string, wanted: (value: number) => boolean): Promise<void> {
    return waitFor(metric, READY_MS, async () =>
      (await scrape()).some((each) => each.metric === metric && wanted(each.value)),
    );
  }

  const missing = () =>
    allNamed()
      .filter(
        ({ named, legend }) =>
          ![...seen.values()].some((each) => each.metric === named.metric && fits(each, named, legend)),
      )
      .map(({ place, named }) => `${place}: ${named.metric} ${JSON.stringify([named.matchers, named.grouping])}`);

  test('tell of a lost trade, a frame of garbage, a row that cannot be stored, and a broker that is away', async () => {
    const exchange = 'binance_derivatives';
    await until('marketprism_storage_last_stored_timestamp_seconds', (value) => value > 0);
    // From nothing to one is no increase: a stream without a gap has its states already.
    await waitFor('the states of books’ gaps', READY_MS, async () =>
      (await scrape()).some(
        ({ metric, labels, value }) =>
          metric === 'marketprism_storage_gaps' &&
          labels.data_type === 'orderbook_update' &&
          labels.status === 'unfillable' &&
          value === 0,
      ),
    );
    await pipeline.simulate({ action: 'drop', exchange, data_type: 'trade', count: 2 });
    await pipeline.simulate({ action: 'garbage', exchange, count: 1 });
    const nats = await pipeline.nats();
    const head = headers();
    head.set('Mp-Mode', 'live');
    await nats.jetstream().publish(`open_interest.${exchange}.perpetual.BTC-USDT`, '{"no":"row"}', { headers: head });
    await nats.close();
    await until('marketprism_deadletter_files', (value) => value === 1);
    await until('marketprism_data_validation_errors_total', (value) => value > 0);
    await until('marketprism_storage_gaps', (value) => value > 0);
    await pipeline.stop('nats-server');
    await until('marketprism_nats_connected', (value) => value === 0);
    await until('marketprism_outbox_minutes_left', (value) => value > 0);
    await pipeline.startBroker();
    await waitFor('all to be connected', READY_MS, async () =>
      (await scrape()).every(({ metric, value }) => metric !== 'marketprism_nats_connected' || value === 1),
    );
  });

  test('are all that the dashboard and the rules name, with the labels that these match, group by and show', async (context) => {
    const panels = dashboard.panels.filter(({ type }) => type !== 'row');
    const places = new Set(allNamed().map(({ place }) => place));
    assert.equal(places.size, rules.size + panels.length + 2, 'something is read of each');
    // A first round of the replication, say, may need a moment.
    const names = () => new Set([...seen.values()].map(({ metric }) => metric));
    const unknown = () =>
      allNamed()
        .filter(({ named }) => !names().has(named.metric))
        .map(({ place, named }) => `${place}: ${named.metric}`);
    const deadline = Date.now() + READY_MS;
    while (unknown().length + missing().length > 0 && Date.now() < deadline) await scrape();
    assert.deepEqual([...unknown(), ...missing()], []);
    context.diagnostic(`${allNamed().length} places, ${names().size} metrics exposed`);
  });

  test('count what the database holds, and sample each live message once', async () => {
    await waitFor('the lost trades to be fetched', READY_MS, async () =>
      (await scrape()).every(({ metric, labels, value }) => {
        const isOpen =
          metric === 'marketprism_storage_gaps' && labels.data_type === 'trade' && labels.status === 'open';
        return !isOpen || value === 0;
      }),
    );
    await pipeline.simulate({ action: 'stop' });
    await pipeline.settled();
    const all = await scrape();
    const figure = (metric: string, data_type: string) =>
      all.find((each) => each.metric === metric && each.labels.data_type === data_type)?.value;
    for (const [type, table] of [
      ['trade', 'trades'],
      ['orderbook_update', 'orderbook_updates'],
    ] as const) {
      const messages = `SELECT countIf(data_source = 'live') AS live, count() AS rows FROM marketprism_hot.${table} GROUP BY js_epoch, js_seq`;
      const figures = `SELECT sum(rows), countIf(live > 0), countIf(live BETWEEN 1 AND rows - 1) FROM (${messages})`;
      const [rows, live, mixed] = (await pipeline.query(figures))[0]!.map(Number) as [number, number, number];
      assert.equal(figure('marketprism_storage_stored_rows_total', type), rows, type);
      // What is fetched back may share a message with live rows, and stand before them there.
      const samples = figure('marketprism_storage_latency_seconds_count', type)!;
      assert.ok(live > mixed && samples <= live && samples >= live - mixed, `${type}: ${samples} of ${live}, ${mixed}`);
      assert.ok(
        figure('marketprism_rows_published_total', type)! >= figure('marketprism_rows_received_total', type)!,
        type,
      );
    }
    assert.equal(figure('marketprism_storage_deadletters_total', 'open_interest'), 1);
  });
});
