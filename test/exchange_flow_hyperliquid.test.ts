/** Hyperliquid through the whole pipeline: what the simulated venue sent is what hot holds, key by key. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { waitFor } from '../scripts/lib/processes.ts';
import { Pipeline, READY_MS } from './pipeline.ts';

const SYMBOLS = ['BTC-USDC', 'ETH-USDC'];
/** Enough of each stream to tell: a run of about 15 s at these rates. */
const RATES = ['--trades-per-second', '60', '--diffs-per-second', '50', '--seed', '9'];
const ENOUGH = { trade: 700, orderbook_update: 14 } as const;
const IDS = {
  trade: ['trades', 'trade_id'],
  orderbook_update: ['orderbook_updates', 'last_update_id'],
} as const;

describe('Hyperliquid from the socket to hot', () => {
  const pipeline = new Pipeline({
    MARKETPRISM_EXCHANGES: 'hyperliquid',
    MARKETPRISM_SYMBOLS: 'BTC-USDT,ETH-USDT',
    MARKETPRISM_ORDERBOOK_INTERVAL: '1s',
  });
  before(async () => {
    await pipeline.choosePorts();
    await pipeline.startBroker();
    await pipeline.startDatabase();
    await pipeline.startSimulator(['--exchanges', 'hyperliquid', '--symbols', 'BTC-USDT,ETH-USDT', ...RATES]);
    await pipeline.startStore();
    await pipeline.startCollector();
  });
  after(() => pipeline.close());

  test('hot holds each trade and each book that was sent, once, and nothing else', async () => {
    const sent = async (type: keyof typeof ENOUGH): Promise<number[]> => {
      const { streams } = await pipeline.ledger();
      return streams.filter((each) => each.data_type === type).map((each) => each.sent);
    };
    await waitFor('the first books', READY_MS, async () =>
      (await sent('orderbook_update')).every((count) => count > 2),
    );
    // A repeated message brings no row again, and a lost one no row at all.
    for (const data_type of ['trade', 'orderbook_update']) {
      for (const action of ['repeat', 'drop']) {
        await pipeline.simulate({ action, exchange: 'hyperliquid', symbol: 'BTC-USDC', data_type, count: 2 });
      }
    }
    for (const type of ['trade', 'orderbook_update'] as const) {
      await waitFor(`enough of ${type}`, READY_MS, async () =>
        (await sent(type)).every((count) => count > ENOUGH[type]),
      );
    }
    await pipeline.simulate({ action: 'stop' });
    await pipeline.settled();
    for (const symbol of SYMBOLS) {
      for (const [type, [table, id]] of Object.entries(IDS)) {
        const url = `${pipeline.control}/ledger/keys?exchange=hyperliquid&symbol=${symbol}&data_type=${type}`;
        const keys = (await (await fetch(url)).text()).trim().split('\n').sort();
        const rows = await pipeline.query(
          `SELECT toString(${id}) FROM marketprism_hot.${table} WHERE exchange = 'hyperliquid' AND symbol = '${symbol}'`,
        );
        const stored = rows.map(([text]) => text as string).sort();
        assert.deepEqual(
          [stored.filter((key) => !keys.includes(key)), keys.filter((key) => !stored.includes(key)), stored.length],
          [[], [], keys.length],
          `${symbol} ${type}: stored and not sent, sent and not stored`,
        );
      }
    }
    const readings = await pipeline.query(
      "SELECT symbol, count() FROM marketprism_hot.funding_rates WHERE exchange = 'hyperliquid' GROUP BY symbol ORDER BY symbol",
    );
    assert.deepEqual(
      readings.map(([symbol]) => symbol),
      SYMBOLS,
    );
    const { streams } = (await (await fetch(`${pipeline.control}/ledger`)).json()) as {
      streams: { symbol: string; dropped: number }[];
    };
    assert.ok(streams.some(({ symbol, dropped }) => symbol === 'BTC-USDC' && dropped > 0));
    assert.deepEqual(pipeline.events('collector', 'frame_rejected'), []);
  });
});
