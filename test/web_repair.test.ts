/** Repairs over HTTP with the real repair.ts: planned, applied once seen, undone; refused where its own safety says so; rounds and soak runs from their files. */
import assert from 'node:assert/strict';
import { appendFileSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { contentsByStream } from '../scripts/lib/contents.ts';
import { waitFor } from '../scripts/lib/processes.ts';
import { Journal } from '../scripts/lib/repair/journal.ts';
import { TABLES } from '../scripts/lib/rows.ts';
import { SOAK_REPORT, type SoakReport, verdictOfCriterion, verdictOfRun } from '../scripts/lib/soak/report.ts';
import { QUALITY_ROUTES } from '../scripts/lib/web/quality_routes.ts';
import { environmentOf, flagsOf, planLines, plannedOf } from '../scripts/lib/web/repair_plan.ts';
import { REPAIR_ROUTES, type RepairJob } from '../scripts/lib/web/repair_routes.ts';
import { SOAK_ROUTES } from '../scripts/lib/web/soak_routes.ts';
import { Pipeline, READY_MS } from './pipeline.ts';
import { keptRounds, PEAK_AT, PEAK_BYTES, soakReport, writeRounds, writeSoak } from './quality_inputs.ts';
import { Web } from './web_harness.ts';

const TOKEN = 'a-token-of-the-test';
const MINUTE = 60_000;
const DAY = 86_400_000;
const BTC = "exchange = 'binance_spot' AND symbol = 'BTC-USDT'";
const HOT = 'marketprism_hot.trades';
const COLD = 'marketprism_cold.trades';

describe('repairs over HTTP', () => {
  const pipeline = new Pipeline({ MARKETPRISM_EXCHANGES: 'binance_spot' });
  let web: Web;
  let clean: string[];

  before(async () => {
    await pipeline.startAll();
    await waitFor('trades in cold', READY_MS, async () => (await count(COLD)) > 1000);
    await pipeline.simulate({ action: 'stop' });
    await pipeline.settled();
    // It goes on asking for readings, and what is compared here must rest.
    await pipeline.stop('collector');
    await pipeline.drained();
    await waitFor('replication', READY_MS, async () => {
      for (const { name } of Object.values(TABLES))
        if ((await count(`marketprism_hot.${name}`)) !== (await count(`marketprism_cold.${name}`))) return false;
      return true;
    });
    clean = await contents();
    web = await open();
  });
  after(async () => {
    await web.close();
    await pipeline.close();
  });

  const open = () => Web.open({ ...pipeline.env, MARKETPRISM_API_TOKEN: TOKEN }, REPAIR_ROUTES);
  const run = (query: string) => pipeline.client().command({ query });
  const count = async (table: string) => Number((await pipeline.query(`SELECT count() FROM ${table}`))[0]![0]);
  async function contents(): Promise<string[]> {
    const all: string[] = [];
    for (const database of ['marketprism_hot', 'marketprism_cold'])
      for (const [stream, { rows, unique, hash }] of await contentsByStream(pipeline.client(), database, 'trade'))
        all.push(`${database} ${stream} ${rows} ${unique} ${hash}`);
    return all;
  }

  async function post(path: string, body: object = {}, token: string | null = TOKEN) {
    const headers = {
      ...(token === null ? {} : { authorization: `Bearer ${token}` }),
      'content-type': 'application/json',
    };
    return web.get(path, { method: 'POST', headers, body: JSON.stringify(body) });
  }
  /** Begins something, and waits until it is over. */
  async function job(path: string, body: object = {}): Promise<RepairJob> {
    const begun = await post(path, body);
    assert.equal(begun.status, 200, begun.text);
    assert.equal(begun.body.state, 'running');
    return ended(begun.body.id);
  }
  async function ended(id: string): Promise<RepairJob> {
    let last: RepairJob | null = null;
    await waitFor('the end of the job', READY_MS, async () => {
      last = (await web.ok(`/api/repair/jobs/${id}`)) as RepairJob;
      return last.state === 'ended';
    });
    return last!;
  }
  const doubled = (rows: number) =>
    run(`INSERT INTO ${HOT} SELECT * FROM ${HOT} WHERE ${BTC} ORDER BY trade_id LIMIT ${rows}`);

  test('a plan says what repair.ts would do and changes nothing; what is applied is that, and a rollback undoes it', async () => {
    await doubled(7);
    const broken = await contents();
    const plan = await job('/api/repair/plan', { only: ['duplicates'], exchange: 'binance_spot' });
    const { exit_code, message, repair } = plan;
    assert.deepEqual(
      [exit_code, message, repair],
      [1, '7 rows; nothing was changed: --apply does it', null],
      plan.output,
    );
    const line = { repair: 'duplicates', subject: 'trade binance_spot spot BTC-USDT', what: 'taken out of hot' };
    assert.deepEqual(plan.plan!.lines, [{ ...line, rows: 7, is_possible: true }]);
    assert.equal(plan.plan!.rows, 7);
    assert.deepEqual(await contents(), broken);

    // A client that goes away at once breaks nothing off.
    const gone = new AbortController();
    const begun = fetch(`${web.url}/api/repair/${plan.id}/apply`, {
      method: 'POST',
      headers: { authorization: `Bearer ${TOKEN}`, 'content-type': 'application/json' },
      body: JSON.stringify({ hash: plan.plan!.hash }),
      signal: gone.signal,
    });
    await waitFor('the apply', READY_MS, async () => (await web.ok('/api/repair/jobs')).data[0].kind === 'apply');
    gone.abort();
    await begun.catch(() => null);
    // One at a time.
    const busy = await post('/api/repair/plan');
    assert.equal(busy.status, 503);
    assert.match(busy.body.error, /^an apply is under way/);
    const { data } = await web.ok('/api/repair/jobs');
    const applied = await ended(data[0].id);
    assert.deepEqual([applied.exit_code, applied.is_changed, applied.of], [0, false, plan.id], applied.output);
    assert.match(applied.message!, /^all is mended; to undo it: /);
    assert.deepEqual(await contents(), clean);
    const journal = Journal.all(pipeline.dir);
    assert.deepEqual([journal.length, journal[0]!.id], [1, applied.repair]);
    const again = await post(`/api/repair/${plan.id}/apply`, { hash: plan.plan!.hash });
    assert.deepEqual([again.status, again.body], [400, { error: 'was applied: plan again', field: 'id' }]);

    const listed = await web.ok('/api/repair/journal');
    const { at: _, last_change: __, asked, ...head } = listed.data[0];
    assert.match(asked, /^--apply --max-rows=7 --only=duplicates --from=\S+Z --to=\S+Z --exchange=binance_spot$/);
    const known = { id: applied.repair, mode: 'live', steps: 1, rows: 7, left: 0, not_undone: [], error: null };
    assert.deepEqual(head, { ...known, state: 'done', rolled_back: null, is_exact: null });
    const { steps } = await web.ok(`/api/repair/journal/${applied.repair}`);
    assert.deepEqual(
      [steps.length, steps[0].op, steps[0].tier, steps[0].symbol, steps[0].rows, steps[0].is_done],
      [1, 'remove', 'hot', 'BTC-USDT', 7, true],
    );

    // Nor does a service that stops.
    const back = await post(`/api/repair/${applied.repair}/rollback`);
    assert.equal(back.status, 200, back.text);
    await web.close();
    web = await open();
    await waitFor('the rollback', READY_MS, async () => {
      const [found] = (await web.ok('/api/repair/journal')).data;
      return found.state === 'rolled_back' && found.is_exact === true;
    });
    assert.deepEqual(await contents(), broken);
    assert.match((await ended(back.body.id)).output, /\ncounts and hashes are those from before the repair\n$/);
    const twice = await post(`/api/repair/${applied.repair}/rollback`);
    assert.deepEqual([twice.status, twice.body.field], [400, 'id']);
    await run(`OPTIMIZE TABLE ${HOT} FINAL`);
  });

  test('what is no longer what the plan said is not done, nor a plan that nobody has seen', async () => {
    const plan = await job('/api/repair/plan', { check: 'duplicates' });
    assert.equal(plan.plan!.rows, 7, plan.output);
    const unseen = await post(`/api/repair/${plan.id}/apply`, { hash: '0'.repeat(32) });
    assert.deepEqual([unseen.status, unseen.body.field], [400, 'hash']);
    const { status, body } = await post('/api/repair/20261130T000000000Z-000000/apply', { hash: plan.plan!.hash });
    assert.deepEqual([status, body.field], [404, 'id']);
    await doubled(2);
    const broken = await contents();
    const changed = await job(`/api/repair/${plan.id}/apply`, { hash: plan.plan!.hash });
    assert.deepEqual([changed.is_changed, changed.repair], [true, null], changed.output);
    assert.match(changed.message!, /^what is to be done is no longer what the plan said: nothing was done/);
    assert.deepEqual(await contents(), broken);
    assert.equal(Journal.all(pipeline.dir).length, 1);
  });

  test('jobs are known to a service that begins anew; of one whose child is gone nobody knows how it ended', async () => {
    const before = await web.ok('/api/repair/jobs');
    await web.close();
    web = await open();
    assert.deepEqual(await web.ok('/api/repair/jobs'), before);
    // As a service leaves it that was killed in the midst of one.
    const [newest] = before.data as RepairJob[];
    const path = join(pipeline.dir, 'state', 'repair_jobs', `${newest!.id}.json`);
    const record = JSON.parse(readFileSync(path, 'utf8'));
    writeFileSync(path, JSON.stringify({ ...record, ended: null, exit_code: null, pid: process.pid }));
    await web.close();
    web = await open();
    const cut = (await web.ok(`/api/repair/jobs/${newest!.id}`)) as RepairJob;
    assert.deepEqual([cut.state, cut.exit_code], ['ended', null]);
    assert.match(cut.message!, /^the service was stopped meanwhile/);
  });

  test('writes need the token; a wrong member is 400 with its name; what cannot be is 404', async () => {
    for (const path of ['/api/repair/plan', '/api/repair/x/apply', '/api/repair/x/rollback'])
      assert.equal((await post(path, {}, null)).status, 401, path);
    for (const [body, field] of [
      [{ only: ['all'] }, 'only.0'],
      [{ only: [] }, 'only'],
      [{ only: ['holes'], check: 'duplicates' }, 'check'],
      [{ check: 'disk' }, 'check'],
      [{ only: ['refetch'] }, 'only'],
      [{ from: '2026-11-30 00:00:00' }, 'from'],
      [{ from: '2026-11-30', to: '2026-11-29' }, 'from'],
      [{ to: 'tomorrow', from: '2026-11-29' }, 'to'],
      [{ exchange: 'mtgox' }, 'exchange'],
      [{ symbol: '--apply' }, 'symbol'],
      [{ type: 'trades' }, 'type'],
      [{ wait_seconds: 1.5 }, 'wait_seconds'],
      [{ apply: true }, 'apply'],
    ] as const) {
      const { status, body: answer } = await post('/api/repair/plan', body);
      assert.deepEqual([status, answer.field], [400, field], JSON.stringify([body, answer]));
    }
    assert.equal((await post('/api/repair/20261130T000000Z-abcdef/rollback')).status, 404);
    assert.equal((await web.get('/api/repair/jobs/none')).status, 404);
    assert.equal((await web.get('/api/repair/journal/none')).status, 404);
    const { kinds, checks } = await web.ok('/api/repair/kinds');
    assert.ok(kinds.length === 8 && checks.some(({ name }: { name: string }) => name === 'duplicates'));
  });

  test('a damaged journal is told and hides no other; a database that is away is its exit code and its one line', async () => {
    const directory = join(Journal.root(pipeline.dir), '20200101T000000Z-bad');
    mkdirSync(directory);
    writeFileSync(join(directory, 'journal.jsonl'), '{"op":"nothing"}\n');
    const { data, total_count } = await web.ok('/api/repair/journal');
    assert.equal(total_count, 2);
    assert.deepEqual([data[1].state, data[0].state], ['damaged', 'rolled_back']);
    assert.match(data[1].error, /^journal\.jsonl:1 is no entry of a journal: /);
    assert.ok(!JSON.stringify(data).includes(pipeline.dir));
    assert.equal((await web.get('/api/repair/journal/20200101T000000Z-bad')).status, 500);
    rmSync(directory, { recursive: true });
    await pipeline.stop('clickhouse_embedded');
    const away = await job('/api/repair/plan');
    assert.deepEqual([away.exit_code, away.plan], [3, null]);
    assert.match(away.message!, /^the database at http:\S+ does not answer: /);
  });
});

describe('what a plan asks for, and what it says', () => {
  test('every member is a flag of one word, and its times are fixed', () => {
    const now = Date.UTC(2026, 10, 30, 12);
    const planned = plannedOf({ only: ['holes', 'refetch'], exchange: 'okx_spot', symbol: 'BTC-USDT' }, now);
    assert.deepEqual(flagsOf(planned), [
      '--only=holes,refetch',
      '--from=2026-11-29T12:00:00.000Z',
      '--to=2026-11-30T12:00:00.000Z',
      '--exchange=okx_spot',
      '--symbol=BTC-USDT',
    ]);
  });

  test('the child has no secret but the database’s, and the data directory of its mode', () => {
    const env = { PATH: '/bin', MARKETPRISM_API_TOKEN: TOKEN, OKX_API_SECRET: 'x', LARKBOT_ID: 'x', SMTP_URL: 'x' };
    const made = environmentOf(
      { mode: 'demo', dataDir: join('data', 'demo'), clickhousePassword: 'p' } as Parameters<typeof environmentOf>[0],
      env,
    );
    assert.deepEqual(
      Object.keys(made).filter((name) => name in env),
      ['PATH'],
    );
    assert.deepEqual([made.MARKETPRISM_DATA_DIR, made.CLICKHOUSE_PASSWORD, made.LOG_LEVEL], ['data', 'p', 'silent']);
  });

  test('a plan is read by its columns; one that was cut off is none', () => {
    const text = [
      'repair           of                                what                                                  rows',
      'duplicates       trade okx_spot spot BTC-USDT      taken out of hot                                         7',
      'different        trade okx_spot spot ETH-USDT      cannot: 3 rows that hot and cold tell differently        -',
      '',
      '7 rows; nothing was changed: --apply does it',
      '',
    ].join('\n');
    assert.deepEqual(planLines(text), [
      {
        ...{ repair: 'duplicates', subject: 'trade okx_spot spot BTC-USDT', what: 'taken out of hot' },
        ...{ rows: 7, is_possible: true },
      },
      {
        ...{ repair: 'different', subject: 'trade okx_spot spot ETH-USDT', rows: null, is_possible: false },
        what: '3 rows that hot and cold tell differently',
      },
    ]);
    assert.deepEqual(planLines('nothing to mend\n'), []);
    assert.equal(planLines(text.slice(0, text.indexOf('\n\n') + 1)), null);
    assert.equal(planLines(''), null);
    assert.equal(planLines('the database does not answer\n'), null);
  });
});

describe('rounds and soak runs from their files', () => {
  const dir = mkdtempSync(join(tmpdir(), 'marketprism-'));
  const now = Date.UTC(2026, 10, 30, 12, 7);
  const rounds = keptRounds(now - 30 * DAY, now, (n) => (n === 1777 ? 96.5 : n % 100 === 3 ? 99.9996 : 100));
  let clock = now;
  let web: Web;
  before(async () => {
    writeRounds(dir, rounds);
    const env = { MARKETPRISM_DATA_DIR: dir, MARKETPRISM_API_TOKEN: TOKEN, CLICKHOUSE_URL: 'http://127.0.0.1:9' };
    web = await Web.open(env, [...QUALITY_ROUTES, ...SOAK_ROUTES], {}, () => clock);
  });
  after(async () => {
    await web.close();
    rmSync(dir, { recursive: true });
  });

  test('30 days of rounds: the newest first, filtered, paged, each with what it found', async () => {
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
    const one = await web.ok(`/api/quality/rounds/${unhealthy[0]!.id}`);
    const check = one.checks.find(({ name }: { name: string }) => name === 'continuity');
    const { kind_zh, exchange, market_type, symbol, data_type, severity } = check.findings[0];
    assert.deepEqual(
      [kind_zh, exchange, market_type, symbol, data_type, severity, check.zh],
      ['缺失未登记', 'okx_spot', 'spot', 'BTC-USDT', 'trade', 'high', check.zh],
    );
    assert.deepEqual(one.coverage, unhealthy[0]!.coverage);
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
    assert.deepEqual([series.completeness[at], series.findings[at]], [96.5, 2]);
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
    assert.equal((await web.ok(`/api/quality/rounds/${data[0].id}`)).began, Date.parse(next!.began));
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
