/** Repairs over HTTP with the real repair.ts: planned, applied once seen, undone; refused where its own safety says so. */
import assert from 'node:assert/strict';
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { contentsByStream } from '../scripts/lib/contents.ts';
import { waitFor } from '../scripts/lib/processes.ts';
import { Journal } from '../scripts/lib/repair/journal.ts';
import { TABLES } from '../scripts/lib/rows.ts';
import { REPAIR_ROUTES, type RepairJob } from '../scripts/lib/web/repair_routes.ts';
import { Pipeline, READY_MS } from './pipeline.ts';
import { Web } from './web_harness.ts';

const TOKEN = 'a-token-of-the-test';
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
