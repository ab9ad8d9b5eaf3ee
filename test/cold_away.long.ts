/** Cold, on a server of its own, dies in the middle of a window and stays away while rows go on coming: then it has what hot has. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { headers, type NatsConnection } from 'nats';
import { duration } from '../scripts/lib/cli.ts';
import { pause } from '../scripts/lib/pause.ts';
import { Child, type ChildExit, scriptPlan, waitFor } from '../scripts/lib/processes.ts';
import { DATA_TYPES, type DataType, encodeRow, STREAM_COLUMNS, TABLES } from '../scripts/lib/rows.ts';
import { sampleTrade } from './fixtures.ts';
import { Pipeline, READY_MS } from './pipeline.ts';

/** `npm run test:cold-away` takes an hour. */
const AWAY_MS = duration('MARKETPRISM_COLD_AWAY', process.env.MARKETPRISM_COLD_AWAY ?? '20s');
const ROWS_PER_S = 200;
const MESSAGES_PER_S = 5;
/** Enough for a window to take a while between its copy and what is written down of it, so that cold can be killed there. */
const BURST_MESSAGES = 150;
const BURST_ROWS = 1000;
const MOST_WINDOWS = 5;
/** Twice as long as it takes until the next round. */
const WINDOW_MS = 20_000;
/** After an hour hot is far ahead. */
const CATCH_UP_MS = 600_000;
const DAY_MS = 86_400_000;
const SYMBOLS = ['BTC-USDT', 'ETH-USDT', 'SOL-USDT'];

interface Health {
  status: string;
  failed_windows: number;
  success_windows: number;
  lag_minutes: Record<string, number | null>;
  checks: Record<string, { status: string; error_message: string | null }>;
}

describe('cold away', () => {
  const cold = new Pipeline();
  let hot: Pipeline;
  let nats: NatsConnection;
  let replicate: Child;
  const ends: ChildExit[] = [];
  const written: Record<string, number> = { trades: 0, orderbook_updates: 0, funding_rates: 0 };
  let tick = 0;
  let nextId = 1;
  let flow: Promise<void> | null = null;
  let isFlowing = true;

  before(async () => {
    await cold.choosePorts();
    await cold.startDatabase();
    // A hole of an hour is none of this test's: what it compares must not get gaps beside it.
    hot = new Pipeline({ MARKETPRISM_COLD_CLICKHOUSE_URL: cold.env.CLICKHOUSE_URL, MARKETPRISM_GAP_AGE: '1d' });
    await hot.choosePorts();
    await hot.startBroker();
    await hot.startDatabase();
    await hot.startStore();
    nats = await hot.nats();
    replicate = new Child(scriptPlan('replicate', [], { ...hot.env, HEALTH_GRACE_SECONDS: '0' }, hot.logDir), (end) => {
      ends.push(end);
      return true;
    });
    replicate.start();
  });
  after(async () => {
    isFlowing = false;
    await flow;
    await replicate?.stop();
    await nats?.close();
    await hot?.close();
    await cold.close();
  });

  async function publish(type: DataType, symbol: string, rows: string[]): Promise<void> {
    const head = headers();
    head.set('Mp-Mode', 'live');
    await nats.jetstream().publish(`${type}.binance_spot.spot.${symbol}`, rows.join('\n'), { headers: head });
  }

  function trades(count: number, symbol: string, late = 0): string[] {
    written.trades! += count;
    return Array.from({ length: count }, () =>
      encodeRow('trade', sampleTrade(nextId++, { symbol, timestamp: Date.now() - late })),
    );
  }

  function readings(symbol: string): [DataType, string][] {
    const { trade_id, sequence, price, quantity, side, is_maker, ...stream } = sampleTrade(tick, { symbol });
    const common = { ...stream, timestamp: Date.now() };
    const update = { first_update_id: null, last_update_id: tick, prev_update_id: null, is_snapshot: false };
    const funding = { funding_time: null, next_funding_time: null, funding_interval_hours: null, index_price: null };
    written.orderbook_updates! += 1;
    written.funding_rates! += 1;
    return [
      [
        'orderbook_update',
        encodeRow('orderbook_update', { ...common, ...update, bids: [[price, quantity]], asks: [] }),
      ],
      ['funding_rate', encodeRow('funding_rate', { ...common, ...funding, funding_rate: '0.0001', mark_price: price })],
    ];
  }

  /** Rows all the time; some of them a day late, some messages twice, some long after those that were made after them. */
  async function flowing(): Promise<void> {
    const held: [string, string[]][] = [];
    while (isFlowing || held.length > 0) {
      tick += 1;
      const symbol = SYMBOLS[tick % SYMBOLS.length]!;
      if (isFlowing) {
        const rows = trades(ROWS_PER_S / MESSAGES_PER_S, symbol, tick % 9 === 0 ? DAY_MS : 0);
        if (tick % 10 === 0) held.push([symbol, rows]);
        else await publish('trade', symbol, rows);
        if (tick % 7 === 0) held.push([symbol, rows]);
        for (const [type, row] of readings(symbol)) await publish(type, symbol, [row]);
      }
      if (held.length > 10 || !isFlowing) await publish('trade', ...held.shift()!);
      await pause(1000 / MESSAGES_PER_S);
    }
  }

  const health = async () =>
    fetch(`http://127.0.0.1:${hot.ports.replicate}/health`).then(
      (answer) => answer.json() as Promise<Health>,
      () => null,
    );

  /** By table: rows, distinct keys, and a hash over every value of every row. */
  async function sums(server: Pipeline, tier: string): Promise<Record<string, string[]>> {
    const out: Record<string, string[]> = {};
    for (const { name, key } of DATA_TYPES.map((type) => TABLES[type])) {
      const sum = `count(), uniqExact(${[...STREAM_COLUMNS, ...key].join(', ')}), sum(cityHash64(toString(tuple(*))))`;
      [out[name]] = (await server.query(`SELECT ${sum} FROM marketprism_${tier}.${name}`)) as [string[]];
    }
    return out;
  }

  /** Kills cold when it holds rows of a window that is not written down yet, and leaves it dead. */
  async function killWithinWindow(): Promise<void> {
    const unwritten = async () => {
      const progress = "SELECT max(upto_seq) FROM marketprism_cold.replication_progress WHERE table_name = 'trades'";
      const rows = `SELECT count() FROM marketprism_cold.trades WHERE js_seq > (${progress})`;
      return (await cold.query(rows))[0]![0] !== '0';
    };
    const pid = replicate.pid!;
    for (let windows = 0; windows < MOST_WINDOWS; windows += 1) {
      for (let i = 0; i < BURST_MESSAGES; i += 1) await publish('trade', 'BTC-USDT', trades(BURST_ROWS, 'BTC-USDT'));
      const deadline = Date.now() + WINDOW_MS;
      while (Date.now() < deadline && !(await unwritten()));
      // Held fast, to see whether it is within the window still, and what it had sent has arrived.
      process.kill(pid, 'SIGSTOP');
      await pause(500);
      const isWithin = await unwritten();
      if (isWithin) {
        process.kill(cold.children.get('clickhouse_embedded')!.pid!, 'SIGKILL');
        await cold.stop('clickhouse_embedded');
      }
      process.kill(pid, 'SIGCONT');
      if (isWithin) return;
    }
    assert.fail(`${MOST_WINDOWS} windows were written down before cold could be killed`);
  }

  test('for as long as it takes: replication tells how far it is behind, drops nothing, goes on by itself, and nothing is lost or doubled', async () => {
    flow = flowing();
    await waitFor('a first window', READY_MS, async () => ((await health())?.success_windows ?? 0) > 0);
    await killWithinWindow();
    const pid = replicate.pid;
    const until = Date.now() + AWAY_MS;
    const lags: number[] = [];
    await waitFor('the time away, and a lag that grows', AWAY_MS + READY_MS, async () => {
      const document = await health();
      assert.ok(document, 'it answers all the time');
      const lag = document.lag_minutes.trades;
      assert.equal(typeof lag, 'number', 'a lag is known although cold is away');
      if (lag !== lags.at(-1)) {
        lags.push(lag!);
        const { error_message: message } = document.checks.trades!;
        const seen = { at: new Date(), status: document.status, lag, failed_windows: document.failed_windows, message };
        console.log(JSON.stringify(seen));
      }
      await pause(1000);
      return Date.now() > until && lags.length > 3;
    });
    const away = (await health())!;
    assert.notEqual(away.status, 'healthy');
    assert.match(away.checks.trades!.error_message!, /ECONNREFUSED/);
    assert.ok(away.failed_windows > 0);
    // The first ones are of before, or of a window that was not yet seen to fail.
    assert.deepEqual(
      lags.slice(2),
      lags.slice(2).sort((one, other) => one - other),
    );
    assert.equal(hot.events('replicate', 'hot_day_dropped').length, 0);
    assert.deepEqual([replicate.pid, ends.length], [pid, 0], 'it lives on');

    await cold.startDatabase();
    await waitFor('cold in reach', CATCH_UP_MS, async () => {
      const { status, checks } = (await health())!;
      assert.doesNotMatch(checks.trades!.error_message ?? '', /stopped/, 'cold has nothing too much');
      return status === 'healthy';
    });
    isFlowing = false;
    await flow;
    await hot.drained();
    const stored = await sums(hot, 'hot');
    await waitFor('all of it', CATCH_UP_MS, async () => {
      const copied = await sums(cold, 'cold');
      return Object.entries(stored).every(([name, [rows]]) => Number(copied[name]![0]) >= Number(rows));
    });
    assert.deepEqual(await sums(cold, 'cold'), stored);
    for (const [name, [rows, distinct]] of Object.entries(stored)) {
      assert.deepEqual([Number(rows), Number(distinct)], [written[name] ?? 0, written[name] ?? 0], name);
    }
    console.log(JSON.stringify({ stored, failed_windows: (await health())!.failed_windows }));
    assert.deepEqual([replicate.pid, ends.length], [pid, 0], 'it lives on');
  });
});
