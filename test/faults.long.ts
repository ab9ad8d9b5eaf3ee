/**
 * All exchanges at once while the venues fail at random: what was sent is in hot once, only the touched symbols build their books anew,
 * and the end is healthy. `npm run test:faults` does it for five minutes, `npm test` for a shorter time.
 */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { duration } from '../scripts/lib/cli.ts';
import { waitFor } from '../scripts/lib/processes.ts';
import { EXCHANGES } from '../scripts/lib/rows.ts';
import { seededRandom } from '../scripts/lib/sim/market.ts';
import { Pipeline, READY_MS } from './pipeline.ts';
import { assertSame } from './sim_client.ts';

const FOR_MS = duration('MARKETPRISM_FAULTS_FOR', process.env.MARKETPRISM_FAULTS_FOR ?? '30s');
const SEED = Number(process.env.MARKETPRISM_FAULTS_SEED ?? 1);
const EVERY_MS = 1500;
/** After the last fault: a class that stays silent is noticed after a minute. */
const HEALTHY_MS = 150_000;
/** Sockets of these are closed; on the others only single symbols are touched. */
const CLOSED = ['binance_derivatives', 'okx_derivatives', 'hyperliquid'];

interface Fault extends Record<string, unknown> {
  action: string;
  exchange: string;
}

interface Stream {
  exchange: string;
  symbol: string;
  data_type: string;
  sent: number;
  dropped: number;
}

describe(`faults for ${FOR_MS / 1000} s, seed ${SEED}`, () => {
  const pipeline = new Pipeline({
    MARKETPRISM_EXCHANGES: EXCHANGES.join(','),
    MARKETPRISM_SYMBOLS: 'BTC-USDT,ETH-USDT',
    MARKETPRISM_BLOCKED_RETRY: '5s',
    MARKETPRISM_LIQUIDATION_DELAY: '15s',
    HEALTH_GRACE_SECONDS: '0',
  });
  const random = seededRandom(SEED);
  const pick = <T>(items: readonly T[]): T => items[Math.floor(random() * items.length)]!;
  /** `exchange symbol` of each book that a fault may break, and exchanges whose sockets were closed. */
  const touched = new Set<string>();
  const done = new Map<string, number>();

  before(async () => {
    await pipeline.choosePorts();
    await pipeline.startBroker();
    await pipeline.startDatabase();
    await pipeline.startSimulator(['--seed', String(SEED), '--symbols', 'BTC-USDT,ETH-USDT']);
    await pipeline.startStore();
    await pipeline.startCollector();
    await waitFor('health before the faults', READY_MS, healthy);
  });
  after(() => pipeline.close());

  async function healthy(): Promise<boolean> {
    return (await pipeline.health('collector'))?.status === 'healthy';
  }

  async function streams(): Promise<Stream[]> {
    return (await pipeline.ledger()).streams as Stream[];
  }

  /** One fault at random. Symbols other than the first of each exchange are left alone. */
  async function fail(books: ReadonlyMap<string, string>): Promise<void> {
    const exchange = pick(EXCHANGES);
    const symbol = books.get(exchange)!;
    const data_type = pick(['trade', 'orderbook_update'] as const);
    const count = 1 + Math.floor(random() * 5);
    const target = { exchange, symbol, data_type };
    const status = pick([429, 418, 403] as const);
    const actions: readonly Fault[] = [
      { action: 'drop', ...target, count },
      { action: 'silence', ...target, seconds: 1 + random() * 4 },
      { action: 'repeat', ...target, count },
      { action: 'reorder', ...target, count: 1 },
      { action: 'garbage', exchange, count },
      { action: 'rest', exchange, status, retry_after: 2, count: 1 },
      { action: 'shutdown_notice', exchange },
      { action: 'close', exchange: pick(CLOSED) },
    ];
    const action = pick(actions);
    if (action.action === 'close') touched.add(action.exchange);
    else if (['drop', 'silence', 'reorder'].includes(action.action)) touched.add(`${exchange} ${symbol}`);
    done.set(action.action, (done.get(action.action) ?? 0) + 1);
    await pipeline.simulate(action);
  }

  test('while they last, and afterwards: only what was touched is built anew, and the end is healthy', async (context) => {
    const books = new Map(
      (await streams())
        .filter(({ symbol }) => symbol.startsWith('BTC-'))
        .map(({ exchange, symbol }) => [exchange, symbol]),
    );
    assert.equal(books.size, EXCHANGES.length);
    const end = Date.now() + FOR_MS;
    while (Date.now() < end) {
      await fail(books);
      await new Promise((next) => setTimeout(next, EVERY_MS));
    }
    await waitFor('health after the faults', HEALTHY_MS, healthy);
    const resyncs = pipeline.events('collector', 'resync').map(({ exchange, symbol, cause }) => ({
      book: `${exchange} ${symbol}`,
      exchange: String(exchange),
      cause,
    }));
    const strangers = resyncs.filter(({ book, exchange }) => !touched.has(book) && !touched.has(exchange));
    assert.deepEqual(strangers, [], 'books of symbols that no fault has touched');
    for (const name of ['exchange_sim', 'collector', 'store'] as const) {
      assert.equal(pipeline.children.get(name)!.restarts, 0, `${name} was not restarted`);
    }
    context.diagnostic(
      `${[...done].map(([action, count]) => `${count} ${action}`).join(', ')}; ${resyncs.length} resyncs`,
    );
    if (FOR_MS >= 60_000) assert.ok(resyncs.length > 0, 'the faults did something');
  });

  test('every key that reached a socket is in hot once, and nothing else is', async () => {
    await pipeline.simulate({ action: 'stop' });
    await pipeline.settled();
    const told = await streams();
    assert.ok(told.some(({ dropped }) => dropped > 0) || FOR_MS < 60_000, 'something was dropped');
    for (const { exchange, symbol, data_type } of told) {
      if (data_type !== 'trade' && data_type !== 'orderbook_update') continue;
      const query = new URLSearchParams({ exchange, symbol, data_type });
      const text = await (await fetch(`${pipeline.control}/ledger/keys?${query}`)).text();
      const [table, column, filter] =
        data_type === 'trade'
          ? ['trades', exchange === 'deribit_derivatives' ? 'sequence' : 'trade_id', '1']
          : ['orderbook_updates', 'last_update_id', exchange === 'hyperliquid' ? '1' : 'NOT is_snapshot'];
      const rows = await pipeline.query(
        `SELECT toString(${column}) FROM marketprism_hot.${table} WHERE exchange = '${exchange}' AND symbol = '${symbol}' AND ${filter}`,
      );
      const hot = rows.map(([id]) => id!);
      const sent = text.trimEnd().split('\n');
      // A whole book each five seconds at most.
      const least = exchange === 'hyperliquid' && data_type === 'orderbook_update' ? 1 : 5;
      assert.ok(sent.length > least, `${exchange} ${symbol} ${data_type}: ${sent.length} keys`);
      assertSame(hot.sort(), sent.sort(), `${exchange} ${symbol} ${data_type}`);
    }
  });
});
