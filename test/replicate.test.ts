/** replicate.ts as a process: it dies at each step, its database dies under it, and cold has what hot has all the same. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { headers, type NatsConnection } from 'nats';
import type { CrashPoint } from '../scripts/lib/crash_points.ts';
import { Child, type ChildExit, scriptPlan, waitFor } from '../scripts/lib/processes.ts';
import { encodeRow } from '../scripts/lib/rows.ts';
import { sampleTrade } from './fixtures.ts';
import { Pipeline, READY_MS } from './pipeline.ts';

const SYMBOLS = ['BTC-USDT', 'ETH-USDT', 'SOL-USDT'];
const START = 1_795_000_000_000;
const SUM =
  'count(), uniqExact(exchange, market_type, symbol, trade_id), sum(cityHash64(exchange, market_type, symbol, timestamp, trade_id, price, quantity, side, is_maker))';

describe('replicate.ts', () => {
  const pipeline = new Pipeline();
  const children: Child[] = [];
  let nats: NatsConnection;
  let next = 1;

  before(async () => {
    await pipeline.choosePorts();
    await pipeline.startBroker();
    await pipeline.startDatabase();
    await pipeline.startStore();
    nats = await pipeline.nats();
  });
  after(async () => {
    for (const child of children) await child.stop();
    await nats?.close();
    await pipeline.close();
  });

  /** Messages of trades, some of them older than what came before, stored in hot. */
  async function store(messages: number): Promise<void> {
    for (let i = 0; i < messages; i += 1) {
      const symbol = SYMBOLS[next % SYMBOLS.length]!;
      const late = next % 5 === 0 ? 86_400_000 : 0;
      const rows = Array.from({ length: 20 }, () => {
        const id = next++;
        return encodeRow('trade', sampleTrade(id, { symbol, timestamp: START + id * 100 - late }));
      });
      const head = headers();
      head.set('Mp-Mode', 'live');
      await nats.jetstream().publish(`trade.binance_spot.spot.${symbol}`, rows.join('\n'), { headers: head });
    }
    await pipeline.drained();
  }

  function start(args: string[], env: NodeJS.ProcessEnv = {}): { child: Child; ended: Promise<ChildExit> } {
    let child: Child | null = null;
    const ended = new Promise<ChildExit>((done) => {
      child = new Child(scriptPlan('replicate', args, { ...pipeline.env, ...env }, pipeline.logDir), (exit) => {
        done(exit);
        return false;
      });
    });
    children.push(child!);
    child!.start();
    return { child: child!, ended };
  }

  async function equal(what: string): Promise<void> {
    const [hot] = await pipeline.query(`SELECT ${SUM} FROM marketprism_hot.trades`);
    const [cold] = await pipeline.query(`SELECT ${SUM} FROM marketprism_cold.trades`);
    assert.deepEqual(cold, hot, what);
    assert.equal(cold![0], cold![1], `${what}: nothing twice`);
    const [seen] = await pipeline.query(`SELECT ${SUM} FROM marketprism.trades`);
    assert.deepEqual(seen, hot, `${what}: the view`);
  }

  async function once(what: string): Promise<void> {
    const { code, lastLine } = await start(['--once']).ended;
    assert.equal(code, 0, `${what}: ${lastLine}`);
    await equal(what);
  }

  for (const point of ['replicate.copied', 'replicate.verified', 'replicate.recorded'] as CrashPoint[]) {
    test(`killed at ${point}, it leaves nothing doubled and nothing behind`, async () => {
      await store(10);
      const { signal } = await start(['--once'], { MARKETPRISM_CRASH_AT: point }).ended;
      assert.equal(signal, 'SIGKILL');
      await store(5);
      await once(point);
    });
  }

  test('runs on schedule over a kill of the database and tells so; a second one is refused; SIGTERM ends it', async () => {
    await store(5);
    const { child } = start([]);
    const url = `http://127.0.0.1:${pipeline.ports.replicate}/health`;
    type Health = { status: string; success_windows: number; lag_minutes: Record<string, number | null> };
    const health = async () =>
      fetch(url).then(
        (answer) => answer.json() as Promise<Health>,
        () => null,
      );
    await waitFor('a first window', READY_MS, async () => ((await health())?.success_windows ?? 0) > 0);
    await waitFor('its lag', READY_MS, async () => (await health())?.lag_minutes.trades === 0);
    const second = await start([]).ended;
    assert.deepEqual([second.code, second.lastLine.includes(`pid ${child.pid}`)], [1, true], second.lastLine);
    await pipeline.kill('clickhouse_embedded');
    await pipeline.databaseReady();
    await store(20);
    const behind = async () =>
      (
        await pipeline.query(
          'SELECT (SELECT count() FROM marketprism_hot.trades) - (SELECT count() FROM marketprism_cold.trades)',
        )
      )[0]![0];
    await waitFor('the rest', READY_MS, async () => (await behind()) === '0');
    assert.equal((await child.stop())?.code, 0);
    await equal('after the kill');
  });

  test('--backfill makes cold whole again for a time, whatever was written down', async () => {
    await pipeline.query(
      'ALTER TABLE marketprism_cold.trades DELETE WHERE toUInt64(trade_id) % 3 = 0 SETTINGS mutations_sync = 2',
    );
    const { code } = await start(['--once']).ended;
    assert.equal(code, 0, 'what is written down is not asked again');
    const lacking = async () => Number((await pipeline.query('SELECT count() FROM marketprism_cold.trades'))[0]![0]);
    const before = await lacking();
    const end = new Date(START + 86_400_000).toISOString();
    const filled = await start(['--backfill', new Date(START - 2 * 86_400_000).toISOString().slice(0, 10), end]).ended;
    assert.equal(filled.code, 0, filled.lastLine);
    assert.ok((await lacking()) > before);
    await equal('backfilled');
    assert.match(pipeline.log('replicate'), /[1-9]\d* rows of hot in that time are in cold\n/);
  });

  test('a wrong span is one clear line and exit 64', () => {
    const script = join(import.meta.dirname, '..', 'scripts', 'replicate.ts');
    for (const args of [
      ['--backfill'],
      ['--backfill', '2026-11-20'],
      ['--backfill', '2026-11-21', '2026-11-20'],
      ['--backfill', 'x', 'y'],
    ]) {
      const { status, stderr } = spawnSync(process.execPath, ['--import', 'tsx', script, ...args], {
        encoding: 'utf8',
        env: pipeline.env,
      });
      assert.equal(status, 64, args.join(' '));
      const line = args.includes('x')
        ? /^--backfill takes a time such as \S+, not "x"\n$/
        : /^--backfill takes FROM TO as UTC times such as [^\n]+\n$/;
      assert.match(stderr, line);
    }
  });
});

describe('replicate.ts with cold on another server', () => {
  const pipeline = new Pipeline();
  const coldServer = new Pipeline();
  let nats: NatsConnection;
  let child: Child | null = null;

  before(async () => {
    await coldServer.choosePorts();
    await pipeline.choosePorts();
    await pipeline.startBroker();
    await pipeline.startDatabase();
    await pipeline.startStore();
    nats = await pipeline.nats();
    const env = {
      ...pipeline.env,
      MARKETPRISM_COLD_CLICKHOUSE_URL: coldServer.env.CLICKHOUSE_URL,
      HEALTH_GRACE_SECONDS: '0',
    };
    child = new Child(scriptPlan('replicate', [], env, pipeline.logDir), () => true);
    child.start();
  });
  after(async () => {
    await child?.stop();
    await nats?.close();
    await pipeline.close();
    await coldServer.close();
  });

  type Health = {
    status: string;
    failed_windows: number;
    checks: Record<string, { status: string; error_message: string | null }>;
  };
  const health = async () =>
    fetch(`http://127.0.0.1:${pipeline.ports.replicate}/health`).then(
      (answer) => answer.json() as Promise<Health>,
      () => null,
    );
  const count = async (server: Pipeline, tier: string) =>
    (await server.query(`SELECT ${SUM} FROM marketprism_${tier}.trades`))[0]!;

  async function publish(from: number): Promise<void> {
    const rows = Array.from({ length: 200 }, (_, i) =>
      encodeRow('trade', sampleTrade(from + i, { timestamp: START + (from + i) * 100 })),
    );
    const head = headers();
    head.set('Mp-Mode', 'live');
    await nats.jetstream().publish('trade.binance_spot.spot.BTC-USDT', rows.join('\n'), { headers: head });
    await pipeline.drained();
  }
  const inCold = async (rows: number) => {
    try {
      return Number((await count(coldServer, 'cold'))[0]) === rows;
    } catch {
      // It is away, or has no tables yet.
      return false;
    }
  };

  test('tells in /health that cold is away at its start, begins once it is there, and says that there are no views', async () => {
    await waitFor('the word of it', READY_MS, async () => {
      const trades = (await health())?.checks.trades;
      return trades?.status === 'unhealthy' && /ECONNREFUSED/.test(trades.error_message ?? '');
    });
    await coldServer.startDatabase();
    await waitFor('health', READY_MS, async () => (await health())?.status === 'healthy');
    assert.equal(pipeline.events('replicate', 'no_views').length, 1);
  });

  test('goes on where it was once a cold that was away is back, and tells meanwhile that it is', async () => {
    await publish(1);
    await waitFor('the first rows', READY_MS, () => inCold(200));
    await coldServer.stop('clickhouse_embedded');
    await publish(1000);
    await waitFor('the word of it', READY_MS, async () => {
      const document = await health();
      return document !== null && document.status !== 'healthy' && document.checks.trades!.error_message !== null;
    });
    await publish(2000);
    await coldServer.startDatabase();
    await waitFor('all of it', READY_MS, () => inCold(600));
    assert.deepEqual(await count(coldServer, 'cold'), await count(pipeline, 'hot'));
    await waitFor('health', READY_MS, async () => (await health())?.status === 'healthy');
  });
});
