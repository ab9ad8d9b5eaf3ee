/** Rounds of checks and soak runs over HTTP, as their files have them: 30 days long, growing, torn, damaged, and never better than they are. */
import assert from 'node:assert/strict';
import { appendFileSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { SOAK_REPORT, type SoakReport, verdictOfCriterion, verdictOfRun } from '../scripts/lib/soak/report.ts';
import { QUALITY_ROUTES } from '../scripts/lib/web/quality_routes.ts';
import { SOAK_ROUTES } from '../scripts/lib/web/soak_routes.ts';
import { keptRounds, PEAK_AT, PEAK_BYTES, soakReport, writeRounds, writeSoak } from './quality_inputs.ts';
import { Web } from './web_harness.ts';

const TOKEN = 'a-token-of-the-test';
const MINUTE = 60_000;
const DAY = 86_400_000;

describe('rounds and soak runs from their files', () => {
  const dir = mkdtempSync(join(tmpdir(), 'marketprism-'));
  const now = Date.UTC(2026, 10, 30, 12, 7);
  // The lowest one found nothing, and the most findings are elsewhere.
  const percentOf = (n: number) => (n === 1777 ? 96.5 : n % 100 === 3 ? 99.9996 : 100);
  const rounds = keptRounds(now - 30 * DAY, now, percentOf, (n) => (n % 100 === 3 ? 2 : 0));
  let clock = now;
  let web: Web;
  before(async () => {
    const env = { MARKETPRISM_DATA_DIR: dir, MARKETPRISM_API_TOKEN: TOKEN, CLICKHOUSE_URL: 'http://127.0.0.1:9' };
    web = await Web.open(env, [...QUALITY_ROUTES, ...SOAK_ROUTES], {}, () => clock);
  });
  after(async () => {
    await web.close();
    rmSync(dir, { recursive: true });
  });

  test('30 days of rounds: the newest first, filtered, paged, each with what it found', async () => {
    assert.deepEqual(await web.ok('/api/quality/latest'), { round: null });
    assert.equal((await web.ok('/api/quality/rounds')).total_count, 0);
    writeRounds(dir, rounds);
    const { total_count, bad_lines, data } = await web.ok('/api/quality/rounds?limit=1000');
    assert.deepEqual([total_count, bad_lines, data.length], [rounds.length, 0, 1000]);
    const ids = (list: { id: string }[]) => list.map(({ id }) => id);
    assert.deepEqual(ids(data), ids([...rounds].reverse().slice(0, 1000)));
    const bad = await web.ok('/api/quality/rounds?status=unhealthy&limit=100');
    const unhealthy = rounds.filter(({ status }) => status === 'unhealthy');
    assert.deepEqual(ids(bad.data), ids([...unhealthy].reverse()));
    assert.deepEqual(bad.data[0].findings, { hint: 0, low: 1, medium: 0, high: 1, critical: 0 });
    const deep = await web.ok('/api/quality/rounds?type=deep&limit=2&offset=1');
    const deeps = rounds.filter(({ type }) => type === 'deep').reverse();
    assert.deepEqual([deep.total_count, ids(deep.data)], [deeps.length, ids(deeps.slice(1, 3))]);
    const { round: one } = await web.ok(`/api/quality/rounds/${unhealthy[0]!.id}`);
    const check = one.checks.find(({ name }: { name: string }) => name === 'continuity');
    const { kind_zh, exchange, market_type, symbol, data_type, severity } = check.findings[0];
    assert.deepEqual(
      [kind_zh, exchange, market_type, symbol, data_type, severity, check.zh],
      ['缺失未登记', 'okx_spot', 'spot', 'BTC-USDT', 'trade', 'high', check.zh],
    );
    assert.deepEqual(one.coverage, unhealthy[0]!.coverage);
    assert.equal((await web.ok('/api/quality/latest')).round.id, rounds.at(-1)!.id);
    assert.equal((await web.get('/api/quality/rounds/1795000000000-1')).status, 404);
    assert.equal((await web.get('/api/quality/rounds/x')).body.field, 'id');
    assert.equal((await web.get('/api/quality/rounds?from=2026-11-30&to=2026-11-29')).body.field, 'from');
  });

  test('completeness over time keeps its lowest value among few points', async () => {
    const series = await web.ok('/api/quality/completeness?type=quick&points=60');
    const quick = rounds.filter(({ type }) => type === 'quick');
    assert.deepEqual([series.total_count, series.times.length], [quick.length, 60]);
    const low = quick.findIndex(({ completeness }) => completeness === 96.5);
    const at = series.times.indexOf(Date.parse(quick[low]!.began));
    assert.deepEqual([series.completeness[at], series.findings[at]], [96.5, 0]);
    const whole = await web.ok('/api/quality/completeness?type=full&points=10000');
    const full = rounds.filter(({ type }) => type === 'full');
    assert.deepEqual(
      whole.completeness,
      full.map(({ completeness }) => completeness),
    );
  });

  test('what is written meanwhile is read, a torn line not yet, and a line that is no round is counted', async () => {
    const file = readdirSync(join(dir, 'monitoring_results')).sort().at(-1)!;
    const path = join(dir, 'monitoring_results', file);
    const [next] = keptRounds(now, now + 15 * MINUTE, () => 100);
    const line = JSON.stringify({ ...next!, id: `${Date.parse(next!.began)}-9` });
    clock = now + 15 * MINUTE;
    appendFileSync(path, line.slice(0, 100));
    const from = `from=${now - 30 * DAY}`;
    assert.equal((await web.ok(`/api/quality/rounds?${from}`)).total_count, rounds.length);
    appendFileSync(path, `${line.slice(100)}\n{"id":1}\nno json\n`);
    const { total_count, bad_lines, data } = await web.ok(`/api/quality/rounds?limit=1&${from}`);
    assert.deepEqual([total_count, bad_lines, data[0].id], [rounds.length + 1, 2, `${Date.parse(next!.began)}-9`]);
    assert.equal((await web.ok(`/api/quality/rounds/${data[0].id}`)).round.began, Date.parse(next!.began));
  });

  const began = now - 720 * MINUTE;
  const runs = {
    good: soakReport({ id: 'good', began: began - DAY, minutes: 720 }),
    leak: soakReport({ id: 'leak', began: began - 2 * DAY, minutes: 720, leak: 9 }),
    holes: soakReport({ id: 'holes', began: began - 3 * DAY, minutes: 720, missing: 1 }),
    going: soakReport({ id: 'going', began: now - 300 * MINUTE, minutes: 720, done: 300 }),
  };

  test('soak runs: verdicts, one that goes on, one that is quiet, and damaged ones with why', async () => {
    assert.deepEqual((await web.ok('/api/soak/reports')).data, []);
    clock = now;
    for (const report of Object.values(runs)) writeSoak(dir, report);
    const damaged: [string, string, RegExp][] = [
      ['torn', JSON.stringify(runs.good).slice(0, 5000), /^report\.json is no JSON: /],
      ['other', JSON.stringify(runs.good), /^report\.json: id: is good$/],
      ['lies', JSON.stringify({ ...runs.leak, id: 'lies', verdict: 'passed' }), /^report\.json: verdict: says passed/],
      ['hides', JSON.stringify({ ...runs.holes, id: 'hides', samples_missing: 0 }), /^report\.json: samples_missing: /],
    ];
    for (const [id, text] of damaged) {
      mkdirSync(join(dir, 'soak', id));
      writeFileSync(join(dir, 'soak', id, 'report.json'), text);
    }
    mkdirSync(join(dir, 'soak', 'empty'));
    const { data } = await web.ok('/api/soak/reports');
    const told = new Map<string, { error: string; state: string; verdict: string | null }>(
      data.map((each: { id: string }) => [each.id, each]),
    );
    for (const [id, , why] of damaged) {
      assert.deepEqual([told.get(id)!.state, told.get(id)!.verdict], ['damaged', null], id);
      assert.match(told.get(id)!.error, why);
      assert.equal((await web.get(`/api/soak/reports/${id}`)).status, 500, id);
    }
    assert.equal(told.get('empty')!.error, 'there is no report.json');
    const sound = data.filter(({ state }: { state: string }) => state !== 'damaged');
    assert.deepEqual(
      sound.map((each: Record<string, unknown>) => [each.id, each.state, each.verdict, each.is_quiet]),
      [
        ['going', 'running', 'incomplete', false],
        ['good', 'ended', 'passed', false],
        ['leak', 'ended', 'failed', false],
        ['holes', 'ended', 'incomplete', false],
      ],
    );
    clock = now + 5 * MINUTE;
    const { data: later } = await web.ok('/api/soak/reports?limit=20');
    assert.equal(later.find(({ id }: { id: string }) => id === 'going').is_quiet, true);
    // Written anew, it is read anew.
    writeSoak(dir, soakReport({ id: 'going', began: now - 300 * MINUTE, minutes: 720, done: 304 }));
    const { data: anew } = await web.ok('/api/soak/reports');
    assert.equal(anew.find(({ id }: { id: string }) => id === 'going').samples, 304);
    const going = await web.ok('/api/soak/reports/going');
    assert.deepEqual([going.is_quiet, going.samples], [false, 304]);
    assert.equal((await web.get('/api/soak/reports/none')).status, 404);
    assert.equal((await web.get('/api/soak/reports/..%2F..')).status, 400);
  });

  test('samples are those of the report, and few points keep the peak at its time', async () => {
    const all = await web.ok('/api/soak/reports/good?points=20000');
    assert.deepEqual(all.processes.rss_bytes.times, runs.good.times);
    for (const metric of ['rss_bytes', 'loop_delay_ms'] as const)
      assert.deepEqual(
        all.processes[metric].series,
        runs.good.processes.map((each) => ({ name: each.name, values: each[metric] })),
      );
    assert.deepEqual(all.flow.latency.series[1], { name: 'latency_p99_ms', values: runs.good.flow.latency_p99_ms });
    const few = await web.ok('/api/soak/reports/good?points=50');
    const { times, series } = few.processes.rss_bytes;
    const at = times.indexOf(runs.good.times[Math.floor(runs.good.times.length * PEAK_AT)]);
    assert.deepEqual([times.length, series[0].values[at]], [50, PEAK_BYTES]);
    assert.deepEqual(few.criteria_list, runs.good.criteria);
  });

  test('what was not measured never passes, and a verdict follows from its criteria alone', () => {
    const limit = { comparison: '<', value: 10 } as const;
    for (const [given, verdict] of [
      [{ measured: 9, samples: 5, missing: 0 }, 'passed'],
      [{ measured: 9, samples: 5, missing: 1 }, 'incomplete'],
      [{ measured: 9, samples: 0, missing: 0 }, 'incomplete'],
      [{ measured: null, samples: 5, missing: 0 }, 'incomplete'],
      [{ measured: 10, samples: 5, missing: 3 }, 'failed'],
    ] as const)
      assert.equal(verdictOfCriterion({ limit, ...given }), verdict, JSON.stringify(given));
    const whole = runs.good;
    const as = (changed: Partial<SoakReport>) => verdictOfRun({ ...whole, ...changed });
    assert.deepEqual(
      [
        as({}),
        as({ ended: null }),
        as({ criteria: [] }),
        as({ samples_missing: 1 }),
        as({ duration_ms: whole.duration_ms - 1 }),
        as({ error: 'the disk is full' }),
      ],
      ['passed', ...Array(5).fill('incomplete')],
    );
    for (const [member, changed] of [
      ['times', { times: [...whole.times].reverse() }],
      ['processes.0.rss_bytes', { processes: [{ ...whole.processes[0]!, rss_bytes: [] }] }],
      ['flow.rows', { flow: { ...whole.flow, rows: [1] } }],
      ['ended', { ended: whole.began - 1 }],
      ['criteria.0.verdict', { criteria: [{ ...whole.criteria[0]!, measured: null }] }],
    ] as const)
      assert.ok(
        SOAK_REPORT.safeParse({ ...whole, ...changed }).error?.issues.some(({ path }) => path.join('.') === member),
        member,
      );
  });
});
