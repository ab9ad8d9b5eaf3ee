/** monitor.ts as it runs: rounds over HTTP and by itself, alerts told once, muted, over; state that outlives a kill; writes only with the token. */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { freePort } from '../scripts/lib/free_port.ts';
import type { ShownRound } from '../scripts/lib/monitor.ts';
import { Child, type ChildExit, scriptPlan, waitFor } from '../scripts/lib/processes.ts';
import { Pipeline, READY_MS } from './pipeline.ts';

const TOKEN = 'a-token-of-the-test';
/** From one round by the clock to the next, and how near one must not be to what is to be over before it; ms. */
const QUARTER_MS = 900_000;
const NEAR_MS = 20_000;

interface Message {
  title: string;
  text: string;
  events: { event: string; check: string; subject: string; alert_type: string }[];
}

interface ShownAlert {
  fingerprint: string;
  alert_type: string;
  check: string;
  subject: string;
  state: string;
  occurrences: number;
  muted_by: string | null;
  acknowledged: { by: string | null; note: string | null; severity: string; at: string } | null;
  created_at: string;
  created_at_local: string;
}

describe('monitor.ts', () => {
  const pipeline = new Pipeline({ MARKETPRISM_EXCHANGES: 'binance_spot,okx_spot', MARKETPRISM_GAP_AGE: '10s' });
  const messages: Message[] = [];
  const receiver = createServer((request, response) => {
    let text = '';
    request.on('data', (chunk: Buffer) => (text += chunk));
    request.on('end', () => {
      if (hold !== null) {
        held.push(response);
        hold();
        return;
      }
      messages.push(JSON.parse(text));
      response.end('ok');
    });
  });
  /** Told of a message that is received, and not answered. */
  let hold: (() => void) | null = null;
  const held: ServerResponse[] = [];
  const ended: ChildExit[] = [];
  let monitor: Child;
  let env: NodeJS.ProcessEnv;
  let base = '';

  before(async () => {
    // How often books change is not asked about: a change a second spares the database work.
    await pipeline.startAll(['--diffs-per-second', '1']);
    await new Promise<void>((done) => receiver.listen(0, '127.0.0.1', done));
    const port = await freePort();
    base = `http://127.0.0.1:${port}`;
    const cold = 'SELECT count(), uniqExact(exchange) FROM marketprism_cold.trades';
    await waitFor('trades in cold', READY_MS, async () => {
      const [[count, exchanges] = []] = await pipeline.query(cold);
      return Number(count) > 500 && exchanges === '2';
    });
    env = {
      ...pipeline.operatorEnv,
      MONITOR_HTTP_PORT: String(port),
      MARKETPRISM_API_TOKEN: TOKEN,
      MARKETPRISM_WEBHOOK_URL: `http://127.0.0.1:${(receiver.address() as AddressInfo).port}/`,
      HEALTH_GRACE_SECONDS: '0',
    };
    await start();
  });
  after(async () => {
    await monitor.stop();
    receiver.close();
    receiver.closeAllConnections();
    await pipeline.close();
  });

  /** Starts a monitor, and waits until the round that it begins with is over. */
  async function start(): Promise<void> {
    monitor = new Child(scriptPlan('monitor', [], env, pipeline.logDir), (exit) => {
      ended.push(exit);
      return false;
    });
    monitor.start();
    await waitFor('the first round', READY_MS, async () => {
      const answer = await fetch(`${base}/api/monitoring/data-consistency/rounds`).catch(() => null);
      return answer !== null && ((await answer.json()) as { total: number }).total > 0;
    });
  }

  async function call(method: string, path: string, body?: unknown, token: string | null = TOKEN) {
    const response = await fetch(`${base}/api/monitoring${path}`, {
      method,
      headers: {
        ...(body === undefined ? {} : { 'content-type': 'application/json' }),
        ...(token === null ? {} : { authorization: `Bearer ${token}` }),
      },
      ...(body === undefined ? {} : { body: typeof body === 'string' ? body : JSON.stringify(body) }),
    });
    return { status: response.status, body: (await response.json()) as Record<string, unknown> };
  }
  const get = async (path: string) => (await call('GET', path, undefined, null)).body;
  async function round(): Promise<ShownRound> {
    const { status, body } = await call('POST', '/data-consistency/check', { type: 'quick' });
    assert.equal(status, 200, JSON.stringify(body));
    return body as unknown as ShownRound;
  }
  /** A round by the clock that had asked its first questions before something ends would tell another half of it: none is under way, or near. */
  async function betweenRounds(): Promise<void> {
    for (;;) {
      const untilNext = QUARTER_MS - (Date.now() % QUARTER_MS);
      if (untilNext < NEAR_MS) await sleep(untilNext + 1000);
      // They follow each other, so that whatever was under way is over after this one.
      await round();
      if (QUARTER_MS - (Date.now() % QUARTER_MS) >= NEAR_MS) return;
    }
  }
  const standing = async () => (await get('/alerts?state=standing')).alerts as ShownAlert[];
  /** What messages since the last look told, as `event check subject`. */
  const told = () =>
    messages
      .splice(0)
      .flatMap(({ events }) => events.map(({ event, check, subject }) => `${event} ${check} ${subject}`));
  const lines = (...path: string[]) =>
    readFileSync(join(pipeline.dir, ...path), 'utf8')
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line));
  /** In both, so that they are equal: a difference is looked at twice, which takes its time. */
  async function inBoth(query: (database: string) => string): Promise<void> {
    for (const database of ['marketprism_hot', 'marketprism_cold'])
      await pipeline.client().command({ query: query(database) });
  }
  const zeroPrice = () =>
    inBoth(
      (database) =>
        `INSERT INTO ${database}.trades SELECT * REPLACE(0 AS price, 'zero' AS data_source, '0' AS trade_id) FROM marketprism_cold.trades ORDER BY js_seq LIMIT 1`,
    );

  test('begins with a round of what was missed, which finds nothing in clean data', async () => {
    const { rounds } = (await get('/data-consistency/rounds')) as { rounds: ShownRound[] };
    const [first] = rounds;
    assert.deepEqual([first!.type, first!.asked_by, first!.exit_code], ['deep', 'schedule', 0], JSON.stringify(first));
    assert.deepEqual([told(), await standing()], [[], []]);
    const health = await get('/health');
    assert.deepEqual([health.status, health.completeness], ['healthy', 100]);
    const [name, ...more] = readdirSync(join(pipeline.dir, 'monitoring_results'));
    assert.match(name!, /^monitoring_\d{8}\.jsonl$/);
    assert.deepEqual([more, lines('monitoring_results', name!).length], [[], 1]);
  });

  test('a defect is told once, counted, and told as over when it was repaired', async () => {
    const BTC = "exchange = 'binance_spot' AND symbol = 'BTC-USDT'";
    await inBoth(
      (database) =>
        `INSERT INTO ${database}.trades SELECT * REPLACE('copy' AS data_source) FROM marketprism_cold.trades WHERE ${BTC} ORDER BY js_seq LIMIT 7`,
    );
    const found = await round();
    assert.equal(found.status, 'unhealthy');
    const subject = 'trade binance_spot spot BTC-USDT';
    assert.deepEqual(told().sort(), [`raised duplicates ${subject}`, `raised duplicates ${subject}`]);
    await round();
    assert.deepEqual(told(), [], 'not again');
    const alerts = await standing();
    assert.deepEqual(alerts.map(({ alert_type, occurrences }) => [alert_type, occurrences]).sort(), [
      ['doubled_in_cold', 2],
      ['doubled_in_hot', 2],
    ]);
    assert.equal(
      Date.parse(`${alerts[0]!.created_at_local}+08:00`),
      Math.floor(Date.parse(alerts[0]!.created_at) / 1000) * 1000,
    );
    await inBoth((database) => `DELETE FROM ${database}.trades WHERE data_source = 'copy'`);
    const clean = await round();
    assert.equal(clean.exit_code, 0, JSON.stringify(clean));
    assert.deepEqual(told().sort(), [`recovered duplicates ${subject}`, `recovered duplicates ${subject}`]);
    const events = lines('alerts', 'alerts.jsonl').map(({ event, notified }) => [event, notified]);
    assert.deepEqual(events, [
      ['raised', ['webhook']],
      ['raised', ['webhook']],
      ['recovered', ['webhook']],
      ['recovered', ['webhook']],
    ]);
  });

  test('while the broker is down, that is told, and not what follows from it', async () => {
    await betweenRounds();
    await pipeline.stop('nats-server');
    await round();
    const [message] = messages;
    assert.deepEqual(told(), ['raised services nats'], JSON.stringify(message));
    assert.match(message!.text, /services · does not answer · nats: does not answer: /);
    assert.match(message!.text, /\n\d+ more follow from nats being down, and are muted$/);
    const muted = (await standing()).filter(({ muted_by }) => muted_by !== null);
    assert.ok(
      muted.some(({ check }) => check === 'streams'),
      JSON.stringify(muted),
    );
    assert.ok(muted.every(({ muted_by }) => muted_by === 'nats'));
    await pipeline.startBroker();
    const news: string[] = [];
    await waitFor('nothing to stand', READY_MS, async () => {
      await round();
      news.push(...told());
      return (await standing()).length === 0;
    });
    assert.ok(news.includes('recovered services nats'), news.join());
    // Nobody was told of streams while they were muted, so nobody hears of their end.
    assert.ok(!news.some((each) => each.startsWith('recovered streams')), news.join());
  });

  test('one that was killed goes on where it was, and a second one is refused', async () => {
    await zeroPrice();
    await round();
    const before = told();
    assert.ok(
      before.some((each) => each.startsWith('raised values')),
      before.join(),
    );
    const gone = ended.length;
    process.kill(monitor.pid!, 'SIGKILL');
    await waitFor('its death', READY_MS, async () => ended.length > gone);
    await start();
    await round();
    assert.deepEqual(
      told().filter((each) => each.includes('values')),
      [],
    );
    assert.ok((await standing()).some(({ check, occurrences }) => check === 'values' && occurrences >= 2));
    // What somebody knows of is known to the process after the next death, too.
    const { fingerprint } = (await standing()).find(({ check }) => check === 'values')!;
    const path = `/alerts/${fingerprint}/acknowledge`;
    const known = await call('POST', path, { by: 'Li', note: 'a test' });
    assert.equal(known.status, 200, JSON.stringify(known.body));
    process.kill(monitor.pid!, 'SIGKILL');
    await waitFor('its second death', READY_MS, async () => ended.length > gone + 1);
    await start();
    const kept = (await standing()).find((each) => each.fingerprint === fingerprint)!;
    assert.deepEqual([kept.acknowledged?.by, kept.acknowledged?.note], ['Li', 'a test']);
    const health = (await get('/health')).standing_alerts as { total: number; acknowledged: number };
    assert.deepEqual([health.acknowledged, health.total >= 1], [1, true]);
    const metrics = await (await fetch(`${base}/metrics`)).text();
    assert.match(metrics, /^marketprism_monitor_acknowledged_alerts 1$/m);
    const events = lines('alerts', 'alerts.jsonl').filter(({ event }) => event === 'acknowledged');
    assert.deepEqual(
      events.map((each) => [each.fingerprint, each.notified, each.acknowledged.by]),
      [[fingerprint, [], 'Li']],
    );
    const refused = [
      await call('POST', path, {}, null),
      await call('POST', path, { who: 'Li' }),
      await call('POST', path, { note: ' ' }),
      await call('POST', '/alerts/0123456789abcdef/acknowledge', {}),
    ];
    assert.deepEqual(
      refused.map(({ status, body }) => [status, body.field]),
      [
        [401, 'authorization'],
        [400, 'who'],
        [400, 'note'],
        [404, 'id'],
      ],
    );
    const second: ChildExit[] = [];
    const other = new Child(scriptPlan('monitor', [], env, join(pipeline.dir, 'second')), (exit) => {
      second.push(exit);
      return false;
    });
    other.start();
    await waitFor('the second', READY_MS, async () => second.length > 0);
    assert.match(second[0]!.lastLine, /^monitor in \S+ is already held \(pid \d+, since .*\): stop that one first$/);
    await inBoth((database) => `DELETE FROM ${database}.trades WHERE data_source = 'zero'`);
    await waitFor('the end of it', READY_MS, async () => {
      await round();
      return !(await standing()).some(({ check }) => check === 'values');
    });
    told();
  });

  test('writes need the token; a wrong body is 400 with the member that is wrong', async () => {
    const check = '/data-consistency/check';
    const answers = [
      await call('POST', check, {}, null),
      await call('POST', check, {}, 'another-token-of-16'),
      await call('DELETE', '/alerts', undefined, null),
      await call('PUT', '/thresholds', {}, null),
      await call('POST', '/test-alert', {}, null),
    ];
    assert.deepEqual(
      answers.map(({ status, body }) => [status, body.field]),
      Array(5).fill([401, 'authorization']),
    );
    const wrong: [Awaited<ReturnType<typeof call>>, string | null][] = [
      [await call('POST', check, { type: 'thorough' }), 'type'],
      [await call('POST', check, { kind: 'quick' }), 'kind'],
      [await call('POST', check, '{"type":'), null],
      [await call('PUT', '/thresholds', { restarts: -1 }), 'restarts'],
      [await call('PUT', '/thresholds', { restart: 3 }), 'restart'],
      [await call('GET', '/alerts?limit=0'), 'limit'],
      [await call('GET', '/alerts?state=bad'), 'state'],
    ];
    for (const [{ status, body }, field] of wrong)
      assert.deepEqual([status, body.field], [400, field], JSON.stringify(body));
    assert.equal((await call('GET', '/nothing')).status, 404);
    const huge = await call('POST', check, { type: 'x'.repeat(100_000) });
    assert.equal(huge.status, 413);
  });

  test('thresholds are kept in a file that integrity.ts reads, too; a broken one is told, and mended over HTTP', async () => {
    const { body: defaults } = await call('GET', '/thresholds');
    assert.equal(defaults.restarts, 5);
    const { status, body } = await call('PUT', '/thresholds', { restarts: 2, service_memory_mib: 1 });
    assert.deepEqual([status, body.restarts, body.service_memory_mib, body.open_gap_minutes], [200, 2, 1, 10]);
    const found = await round();
    const processes = found.checks.find((each) => (each as { name: string }).name === 'processes') as {
      limit: string;
      findings: unknown[];
    };
    assert.match(processes.limit, /^1 MiB a service, .*; 2 restarts$/);
    assert.equal(processes.findings.length, 3);
    const path = join(pipeline.dir, 'state', 'thresholds.json');
    writeFileSync(path, '{"restarts":"many"}');
    const broken = await call('POST', '/data-consistency/check', {});
    assert.equal(broken.status, 500);
    assert.match(String(broken.body.error), /thresholds\.json: restarts: .*: mend or remove it$/);
    assert.match(String((await get('/health')).error), /thresholds\.json/);
    rmSync(path);
    await round();
    assert.equal((await get('/health')).error, null);
    told();
  });

  test('an acknowledgement in the midst of a message does not make the message one that was sent', async () => {
    await call('PUT', '/thresholds', { service_memory_mib: 1 });
    await round();
    told();
    const { fingerprint } = (await standing()).find(({ check }) => check === 'processes')!;
    await inBoth(
      (database) =>
        `INSERT INTO ${database}.trades SELECT * REPLACE('copy' AS data_source) FROM marketprism_cold.trades ORDER BY js_seq LIMIT 3`,
    );
    const broken: Promise<unknown>[] = [];
    try {
      const received = new Promise<void>((done) => (hold = done));
      broken.push(round().catch(() => null));
      await received;
      broken.push(call('POST', `/alerts/${fingerprint}/acknowledge`, {}).catch(() => null));
      // So long it would take to be written, if it were.
      await sleep(1000);
      const gone = ended.length;
      process.kill(monitor.pid!, 'SIGKILL');
      await waitFor('its death', READY_MS, async () => ended.length > gone);
      await Promise.all(broken);
    } finally {
      hold = null;
      for (const each of held.splice(0)) each.destroy();
    }
    await start();
    await round();
    const news = told();
    assert.ok(
      news.some((each) => each.startsWith('raised duplicates')),
      `nobody has heard of it: ${news.join()}`,
    );
    rmSync(join(pipeline.dir, 'state', 'thresholds.json'));
    await inBoth((database) => `DELETE FROM ${database}.trades WHERE data_source = 'copy'`);
    await round();
    told();
  });

  test('a test alert reaches people, clearing forgets, and metrics count', async () => {
    const { body } = await call('POST', '/test-alert');
    assert.deepEqual(body, { delivered: ['webhook'], failed: [] });
    assert.match(messages.splice(0)[0]!.title, /: test alert$/);
    const { total } = await get('/alerts');
    assert.deepEqual((await call('DELETE', '/alerts')).body, { cleared: total });
    assert.deepEqual(await get('/alerts'), { total: 0, alerts: [] });
    const { round: id, rows_hot, completeness, streams } = await get('/data-consistency/metrics');
    assert.ok(
      typeof id === 'string' && Number(rows_hot) > 500 && Number(completeness) > 99 && (streams as object[]).length > 5,
    );
    const metrics = await (await fetch(`${base}/metrics`)).text();
    const value = (pattern: string) =>
      Number(new RegExp(`^marketprism_monitor_${pattern} (\\S+)$`, 'm').exec(metrics)?.[1]);
    assert.ok(value('rounds_total\\{type="quick",status="unhealthy"\\}') > 0);
    assert.ok(value('notifications_total\\{notifier="webhook",result="delivered"\\}') > 0);
    assert.equal(value('alerts\\{severity="critical"\\}'), 0);
    assert.ok(Math.abs(value('last_round_timestamp_seconds\\{type="quick"\\}') - Date.now() / 1000) < 600);
    const health = (await (await fetch(`${base}/health`)).json()) as {
      status: string;
      checks: Record<string, unknown>;
    };
    assert.deepEqual([health.status, Object.keys(health.checks)], ['healthy', ['rounds', 'notifications']]);
  });

  test('what reaches nobody is kept in a file, and health says so', async () => {
    receiver.close();
    receiver.closeAllConnections();
    await zeroPrice();
    await round();
    const [kept] = lines('alerts', 'undelivered.jsonl');
    assert.match(kept.text, /price not above zero/);
    assert.deepEqual(kept.failed, [{ name: 'webhook', reason: 'ECONNREFUSED' }]);
    const health = (await (await fetch(`${base}/health`)).json()) as { status: string };
    assert.equal(health.status, 'unhealthy');
    // It is told when somebody can be reached again.
    const { port } = new URL(env.MARKETPRISM_WEBHOOK_URL!);
    await new Promise<void>((done) => receiver.listen(Number(port), '127.0.0.1', done));
    await round();
    assert.ok(told().some((each) => each.startsWith('raised values')));
    await round();
    assert.deepEqual(told(), []);
    const log = readFileSync(join(pipeline.logDir, 'monitor.log'), 'utf8');
    assert.ok(!log.includes(TOKEN));
    assert.equal((await monitor.stop())?.code, 0);
  });
});
