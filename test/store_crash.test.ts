/** The store dies by SIGKILL at each step of a batch while rows come, and the next one leaves each row in hot once. */
import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { headers, type NatsConnection } from 'nats';
import type { CrashPoint, Safeguard } from '../scripts/lib/crash_points.ts';
import { Child, type ChildExit, scriptPlan, waitFor } from '../scripts/lib/processes.ts';
import { encodeRow, type TradeRow } from '../scripts/lib/rows.ts';
import { sampleTrade } from './fixtures.ts';
import { Pipeline, READY_MS } from './pipeline.ts';

/** Rows come of all of them. */
const STREAMS = [
  { exchange: 'binance_spot', market_type: 'spot', symbol: 'BTC-USDT', instrument: 'BTCUSDT' },
  { exchange: 'binance_spot', market_type: 'spot', symbol: 'ETH-USDT', instrument: 'ETHUSDT' },
  { exchange: 'okx_derivatives', market_type: 'perpetual', symbol: 'BTC-USDT', instrument: 'BTC-USDT-SWAP' },
] as const;
const ROWS_PER_MESSAGE = 25;
/** Messages that are there before a store starts, and that come after it has died. */
const EARLIER = 30;
const LATER = 6;

/** What one test publishes: messages with their sequence and the keys of their good rows. */
interface Run {
  firstId: number;
  nextId: number;
  messages: { seq: number; keys: string[] }[];
}

const keyOf = ({ exchange, symbol, trade_id }: TradeRow) => `${exchange} ${symbol} ${trade_id}`;

describe('the store, killed at each step of a batch while rows come', () => {
  /** Taken by whatever starts next. The embedded database tells of requests whose client has gone at debug only. */
  const extra: NodeJS.ProcessEnv = { LOG_LEVEL: 'debug', MARKETPRISM_ACK_WAIT_SECONDS: '1' };
  const pipeline = new Pipeline(extra);
  const children: Child[] = [];
  let nats: NatsConnection;
  let runs = 0;

  before(async () => {
    await pipeline.choosePorts();
    await pipeline.startBroker();
    await pipeline.startDatabase();
    // Its tables and epochs are there from now on, so that what a later store inserts is rows.
    await pipeline.startStore();
    await pipeline.stop('store');
    nats = await pipeline.nats();
  });
  after(async () => {
    for (const child of children) await child.stop();
    await nats?.close();
    await pipeline.close();
  });

  function newRun(): Run {
    const firstId = ++runs * 1_000_000;
    return { firstId, nextId: firstId, messages: [] };
  }

  /** Publishes one message of the next stream; its first row has come before. `bad` lines stand in its middle. */
  async function publish(run: Run, bad: string[] = []): Promise<void> {
    const stream = STREAMS[run.messages.length % STREAMS.length]!;
    const ids = Array.from({ length: ROWS_PER_MESSAGE }, () => run.nextId++);
    const rows = ids.map((id) => sampleTrade(id, stream));
    const copied = run.messages.length >= STREAMS.length ? [sampleTrade(ids[0]! - 3 * ROWS_PER_MESSAGE, stream)] : [];
    const lines = [...copied, ...rows].map((row) => encodeRow('trade', row));
    lines.splice(lines.length >> 1, 0, ...bad);
    const head = headers();
    head.set('Mp-Mode', 'live');
    const subject = `trade.${stream.exchange}.${stream.market_type}.${stream.symbol}`;
    const { seq } = await nats.jetstream().publish(subject, lines.join('\n'), { headers: head });
    run.messages.push({ seq, keys: rows.map(keyOf) });
  }

  /** A store that dies at its point while rows come, and is not started again. */
  async function crash(run: Run, point: CrashPoint, times: number, without?: Safeguard): Promise<void> {
    while (run.messages.length < EARLIER) await publish(run);
    const ended: ChildExit[] = [];
    const env = { ...pipeline.env, MARKETPRISM_CRASH_AT: `${point}@${times}`, MARKETPRISM_WITHOUT: without };
    const child = new Child(scriptPlan('store', [], env, pipeline.logDir), (exit) => {
      ended.push(exit);
      return false;
    });
    children.push(child);
    child.start();
    await waitFor(`the crash at ${point}`, READY_MS, async () => {
      if (ended.length === 0) for (let i = 0; i < 3; i++) await publish(run);
      return ended.length > 0;
    });
    assert.equal(ended[0]!.signal, 'SIGKILL', ended[0]!.lastLine);
    for (let i = 0; i < LATER; i++) await publish(run);
  }

  /** Keys in hot of what this run published. */
  async function inHot({ firstId, nextId }: Run): Promise<string[]> {
    const rows = await pipeline.query(
      `SELECT exchange, symbol, trade_id FROM marketprism_hot.trades WHERE toUInt64(trade_id) BETWEEN ${firstId} AND ${nextId}`,
    );
    return rows.map((row) => row.join(' '));
  }

  /** Keys of this run's messages that are acknowledged, and of those that are not. */
  async function byAcknowledgement(run: Run): Promise<{ acknowledged: string[]; open: string[] }> {
    const info = await (await nats.jetstreamManager()).consumers.info('MARKET_DATA', 'store_trade');
    const keys = (settled: boolean) =>
      run.messages.filter(({ seq }) => seq <= info.ack_floor.stream_seq === settled).flatMap((each) => each.keys);
    return { acknowledged: keys(true), open: keys(false) };
  }

  /** What a run must leave: nothing open, and in hot its rows, each once. */
  async function proveExact(run: Run): Promise<void> {
    await pipeline.drained();
    const published = run.messages.flatMap(({ keys }) => keys);
    const hot = await inHot(run);
    assert.deepEqual(await figures(run, hot), { rows: published.length, distinct: published.length, missing: 0 });
    assert.deepEqual(hot.sort(), published.sort());
  }

  async function figures(run: Run, hot: string[]) {
    const there = new Set(hot);
    const missing = run.messages.flatMap(({ keys }) => keys).filter((key) => !there.has(key)).length;
    return { rows: hot.length, distinct: there.size, missing };
  }

  /** Starts the next store, proves, and stops it. */
  async function recover(run: Run, prove = proveExact): Promise<void> {
    await pipeline.startStore();
    try {
      await prove(run);
    } finally {
      assert.equal((await pipeline.stop('store'))?.code, 0);
    }
  }

  /** Inserts of which the database had a part when their client went. */
  function cutInserts(): number {
    const failed = pipeline.events('clickhouse_embedded', 'query_failed').filter(({ code }) => code === 394);
    const ids = [...failed, ...pipeline.events('clickhouse_embedded', 'client_gone')].map((each) => each.query_id);
    return ids.filter((id) => String(id).startsWith('store:trades:')).length;
  }

  for (const [point, times, left] of [
    ['store.taken', 3, 'some acknowledged, of the others nothing stored'],
    ['store.looked', 3, 'some acknowledged, of the others nothing stored'],
    ['store.inserting', 3, 'some acknowledged, of the others nothing stored'],
    ['store.inserted', 3, 'rows stored of what is not acknowledged'],
    ['store.acknowledged', 2, 'some acknowledged, of the others nothing stored'],
  ] as const) {
    test(`at ${point} (${left}), is followed by one that leaves every row in hot once`, async () => {
      const run = newRun();
      const cut = cutInserts();
      await crash(run, point, times);
      await waitFor('the end of its requests', READY_MS, async () => (await running()) === 0);
      const { acknowledged, open } = await byAcknowledgement(run);
      const hot = new Set(await inHot(run));
      assert.ok(acknowledged.length > 0, 'a batch was stored before');
      // The later messages came after its death.
      const inFlight = open.length - LATER * ROWS_PER_MESSAGE;
      assert.ok(inFlight > 0 || point === 'store.acknowledged', 'rows were in flight');
      assert.equal(acknowledged.filter((key) => !hot.has(key)).length, 0, 'acknowledged and not stored');
      assert.equal(open.filter((key) => hot.has(key)).length > 0, point === 'store.inserted', 'stored and open');
      if (point === 'store.inserting')
        await waitFor('half of an insert at the database', READY_MS, async () => cutInserts() > cut);
      await recover(run);
    });
  }

  async function running(): Promise<number> {
    const query = "SELECT count() FROM system.processes WHERE startsWith(query_id, 'store:')";
    return Number((await pipeline.query(query))[0]![0]);
  }

  for (const [times, which] of [
    [1, 'a line that cannot be read'],
    [2, 'a row that the table refuses'],
  ] as const) {
    test(`at store.buried (${which} is in the deadletter, its message open), is followed by one that stores the others once; the deadletter may have the row twice`, async () => {
      const run = newRun();
      const bad = [`{"trade_id":"${run.firstId}"}`, encodeRow('trade', sampleTrade(run.firstId + 999_999))];
      bad[1] = bad[1]!.replace('"61837.63"', '"sixty"');
      await publish(run, bad);
      await crash(run, 'store.buried', times);
      const buried = bad.slice(0, times);
      for (const line of buried) assert.equal(letters(line), 1);
      assert.deepEqual(await byAcknowledgement(run).then(({ acknowledged }) => acknowledged), []);
      await recover(run);
      assert.deepEqual(bad.map(letters), times === 1 ? [2, 1] : [2, 2]);
    });
  }

  /** How often the deadletter has this row. */
  function letters(line: string): number {
    const directory = join(pipeline.dir, 'deadletter', 'trade');
    if (!existsSync(directory)) return 0;
    return readdirSync(directory)
      .flatMap((file) => readFileSync(join(directory, file), 'utf8').trim().split('\n'))
      .filter((text) => JSON.parse(text).row === line).length;
  }

  test('negative control: without the look, a crash at store.inserted doubles rows, and the proof says so', async () => {
    const run = newRun();
    await crash(run, 'store.inserted', 3, 'look');
    extra.MARKETPRISM_WITHOUT = 'look';
    await recover(run, async () => {
      await assert.rejects(proveExact(run), assert.AssertionError);
    });
    const { rows, distinct, missing } = await figures(run, await inHot(run));
    assert.ok(rows > distinct && missing === 0, `${rows} rows, ${distinct} distinct, ${missing} missing`);
    assert.deepEqual(pipeline.events('store', 'safeguards_left_out').at(-1)?.names, ['look']);
    assert.equal(pipeline.events('store', 'safeguards_left_out').at(-1)?.level, 'error');
    delete extra.MARKETPRISM_WITHOUT;
  });

  test('negative control: acknowledged before the insert, a crash at store.looked loses rows, and the proof says so', async () => {
    const run = newRun();
    await crash(run, 'store.looked', 3, 'order');
    // By its checkpoint the next store would ask for them again.
    extra.MARKETPRISM_WITHOUT = 'checkpoint';
    await recover(run, async () => {
      await assert.rejects(proveExact(run), assert.AssertionError);
    });
    const { rows, distinct, missing } = await figures(run, await inHot(run));
    assert.ok(rows === distinct && missing > 0, `${rows} rows, ${distinct} distinct, ${missing} missing`);
    delete extra.MARKETPRISM_WITHOUT;
  });
});
