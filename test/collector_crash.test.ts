/**
 * The collector dies by SIGKILL at each step of a message's way to the broker, and while the broker is away: whatever its outbox held then is
 * in hot afterwards, once.
 */
import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, afterEach, before, describe, test } from 'node:test';
import type { CrashPoint } from '../scripts/lib/crash_points.ts';
import { pause } from '../scripts/lib/pause.ts';
import { Child, type ChildExit, scriptPlan, waitFor } from '../scripts/lib/processes.ts';
import { TABLES } from '../scripts/lib/rows.ts';
import { Pipeline, READY_MS } from './pipeline.ts';

const EXCHANGES = ['binance_spot', 'okx_spot', 'deribit_derivatives'];
/** A few rows without an answer, and what comes waits on disk: so that its way back is gone, too. */
const NARROW = { MARKETPRISM_WATERMARK_PRICES: '20,100000', MARKETPRISM_WATERMARK_ORDERBOOK: '20,100000' };
/** The point, at which time, and with which watermarks. */
const STEPS: [CrashPoint, number, NodeJS.ProcessEnv][] = [
  ['outbox.adding', 300, {}],
  ['outbox.written', 200, {}],
  ['outbox.synced', 4, {}],
  ['publish.sent', 300, {}],
  ['publish.sent', 300, NARROW],
  ['publish.acknowledged', 300, {}],
  ['publish.acknowledged', 300, NARROW],
  ['outbox.floor_kept', 4, {}],
  ['outbox.read_back', 2, NARROW],
];
/** Lines of outbox files that are rows, and not headers. */
const isRow = (line: string) => line.startsWith('{') && !line.startsWith('{"crc":');

describe('the collector, killed at each step of a message', () => {
  const pipeline = new Pipeline({
    MARKETPRISM_EXCHANGES: EXCHANGES.join(','),
    MARKETPRISM_ORDERBOOK_INTERVAL: '1s',
    MARKETPRISM_ACK_WAIT_SECONDS: '1',
  });
  const children: Child[] = [];
  /** Keys of trades and diffs that an outbox held at a death, as `keysInHot` writes them. */
  const owed = { trade: new Set<string>(), orderbook_update: new Set<string>() };

  before(async () => {
    await pipeline.choosePorts();
    await pipeline.startBroker();
    await pipeline.startDatabase();
    await pipeline.startSimulator(['--trades-per-second', '60', '--diffs-per-second', '20', '--seed', '7']);
    await pipeline.startStore();
  });
  // One that outlives its test would hold the ports of the next.
  afterEach(async () => {
    for (const child of children.splice(0)) await child.stop();
  });
  after(() => pipeline.close());

  const outboxDir = () => join(pipeline.dir, 'outbox', 'test');

  /** A collector that is not started again when it ends. */
  function once(env: NodeJS.ProcessEnv): { child: Child; ended: ChildExit[] } {
    const ended: ChildExit[] = [];
    const all = { ...pipeline.env, MARKETPRISM_ENDPOINTS: join(pipeline.dir, 'endpoints.json'), ...env };
    const child = new Child(scriptPlan('collector', [], all, pipeline.logDir), (exit) => {
      ended.push(exit);
      return false;
    });
    children.push(child);
    child.start();
    return { child, ended };
  }

  /** What the files of the outbox hold; the last line of one may be torn. */
  function held(): { trade: Set<string>; orderbook_update: Set<string> } {
    const out = { trade: new Set<string>(), orderbook_update: new Set<string>() };
    for (const stream of ['MARKET_DATA', 'ORDERBOOK_SNAP']) {
      const dir = join(outboxDir(), stream);
      if (!existsSync(dir)) continue;
      for (const name of readdirSync(dir).filter((each) => each.endsWith('.ndjson'))) {
        const text = readFileSync(join(dir, name), 'utf8');
        const lines = text.split('\n');
        // Without its newline a record is not whole.
        lines.pop();
        let type: string | null = null;
        for (const line of lines) {
          if (line.startsWith('{"crc":')) type = (JSON.parse(line) as { subject: string }).subject.split('.')[0]!;
          else if (isRow(line) && (type === 'trade' || type === 'orderbook_update')) {
            const row = JSON.parse(line) as Record<string, unknown>;
            const members = ['exchange', 'symbol', ...TABLES[type].key];
            out[type].add(members.map((member) => String(row[member])).join('\t'));
          }
        }
      }
    }
    return out;
  }

  function oweHeld(): number {
    const now = held();
    for (const type of ['trade', 'orderbook_update'] as const) for (const key of now[type]) owed[type].add(key);
    return now.trade.size + now.orderbook_update.size;
  }

  async function keysInHot(type: 'trade' | 'orderbook_update'): Promise<string[]> {
    const { name, key } = TABLES[type];
    const rows = await pipeline.query(
      `SELECT ${['exchange', 'symbol', ...key].join(', ')} FROM marketprism_hot.${name}`,
    );
    return rows.map((row) => row.join('\t'));
  }

  /** Everything owed is in hot; nothing is there twice. */
  async function check(what: string): Promise<void> {
    await pipeline.drained();
    for (const type of ['trade', 'orderbook_update'] as const) {
      const rows = await keysInHot(type);
      const hot = new Set(rows);
      assert.equal(rows.length, hot.size, `${what}: ${type} nothing twice`);
      const lost = [...owed[type]].filter((key) => !hot.has(key));
      assert.deepEqual(lost, [], `${what}: ${type} of ${owed[type].size} held`);
    }
  }

  /** A collector that goes on where the dead one was, until it has received new rows and sent what was left. */
  async function goOn(): Promise<void> {
    const { child } = once({});
    await waitFor('rows', READY_MS, async () => {
      const document = await pipeline.health('collector');
      const received = (document?.received ?? []).reduce((sum, each) => sum + each.received, 0);
      return received > 200 && document!.checks.outbox!.status === 'healthy';
    });
    await child.stop();
  }

  /** Lets the broker answer only half of the time, until `over`: a fast one never leaves enough rows without an answer. */
  async function slowBroker(over: () => boolean): Promise<void> {
    const broker = pipeline.children.get('nats-server')!;
    const deadline = Date.now() + READY_MS;
    while (!over() && Date.now() < deadline) {
      broker.signal('SIGSTOP');
      await pause(500);
      broker.signal('SIGCONT');
      await pause(500);
    }
  }

  for (const [point, times, env] of STEPS) {
    const how = env === NARROW ? ', while rows wait on disk' : '';
    test(`at ${point}${how}: whatever the outbox held is in hot, once`, async () => {
      const { ended } = once({ ...env, MARKETPRISM_CRASH_AT: `${point}@${times}` });
      const death = waitFor(`the death at ${point}`, READY_MS, async () => ended.length > 0);
      if (env === NARROW) await slowBroker(() => ended.length > 0);
      await death.catch(async (error: Error) => {
        const health = JSON.stringify((await pipeline.health('collector'))?.checks);
        throw new Error(`${error.message}: ${health}`);
      });
      assert.equal(ended[0]!.signal, 'SIGKILL', ended[0]!.lastLine);
      assert.ok(oweHeld() > 100, 'it held something');
      await goOn();
      await check(point);
    });
  }

  /** Receives for a while without a broker, and dies. @returns the distinct trades and diffs that it had received */
  async function dieWithoutBroker(env: NodeJS.ProcessEnv): Promise<number> {
    const { child, ended } = once(env);
    const received = async () => {
      const rows = (await pipeline.health('collector'))?.received ?? [];
      const kept = rows.filter(({ data_type }) => data_type === 'trade' || data_type === 'orderbook_update');
      return kept.reduce((sum, each) => sum + each.received, 0);
    };
    await waitFor('rows', READY_MS, async () => (await received()) > 200);
    await pipeline.stop('nats-server');
    const before = await received();
    await waitFor('rows without a broker', READY_MS, async () => (await received()) > before + 1000);
    const had = await received();
    // Its linger, and the write after it, are over.
    await pause(300);
    process.kill(child.pid!, 'SIGKILL');
    await waitFor('the death', READY_MS, async () => ended.length > 0);
    return had;
  }

  test('without a broker, for two runs: what both received is in hot, once', async () => {
    const had = await dieWithoutBroker({});
    assert.ok(oweHeld() >= had, `${owed.trade.size} and ${owed.orderbook_update.size} of ${had}`);
    // The next run does not wait for the broker either.
    const { child, ended } = once({});
    const healthOf = async () => (await pipeline.health('collector')) ?? null;
    await waitFor('rows', READY_MS, async () => {
      const received = (await healthOf())?.received ?? [];
      return received.reduce((sum, each) => sum + each.received, 0) > 500;
    });
    const { checks } = (await healthOf())!;
    assert.match(checks.broker!.error_message!, /^the broker at .* is away; \d+ bytes wait for it$/);
    assert.equal((await child.stop())?.code, 0, 'it stops without a broker, too');
    assert.equal(ended.length, 0);
    assert.ok(oweHeld() > 500);
    await pipeline.startBroker();
    await goOn();
    await check('without a broker');
  });

  test('negative control: without the outbox, what was received while the broker was away is lost', async () => {
    rmSync(outboxDir(), { recursive: true, force: true });
    const hot = async () => (await keysInHot('trade')).length + (await keysInHot('orderbook_update')).length;
    const before = await hot();
    const had = await dieWithoutBroker({ MARKETPRISM_WITHOUT: 'outbox' });
    await pipeline.startBroker();
    await waitFor(
      'the store',
      READY_MS,
      async () => (await pipeline.health('store'))?.checks.nats?.status === 'healthy',
    );
    await pipeline.drained();
    const stored = (await hot()) - before;
    assert.ok(stored < had - 500, `${stored} of ${had} are stored`);
  });

  test('a machine that was started anew publishes the last minutes again, and they are stored once', async () => {
    await goOn();
    const again = async (boot: string) => {
      writeFileSync(join(outboxDir(), 'boot.json'), JSON.stringify({ boot_id: boot }));
      const nats = await pipeline.nats();
      const manager = await nats.jetstreamManager();
      const last = async () => (await manager.streams.info('MARKET_DATA')).state.messages;
      const messages = await last();
      const { child } = once({ MARKETPRISM_EXCHANGES: 'hyperliquid' });
      await waitFor(
        'the outbox',
        READY_MS,
        async () => (await pipeline.health('collector'))?.checks.outbox?.status === 'healthy',
      );
      await pause(500);
      await child.stop();
      const more = (await last()) - messages;
      await nats.close();
      return more;
    };
    const kept = held().trade.size;
    assert.ok(kept > 10, `${kept} trades are kept`);
    const bootId = readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
    assert.equal(await again(bootId), 0, 'not in the same boot');
    assert.ok((await again('another')) >= 5, 'but in another one');
    await check('a new boot');
  });
});
