/** Deribit from the simulated exchange through collector, JetStream and store: what hot holds is what the exchange told. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { waitFor } from '../scripts/lib/processes.ts';
import { LIQUIDATION_DELAY_MS } from '../scripts/lib/sim/deribit_market.ts';
import type { TradeData } from './deribit_client.ts';
import { Pipeline, READY_MS } from './pipeline.ts';

const EXCHANGE = 'deribit_derivatives';
const SYMBOLS = ['BTC-USD', 'ETH-USD', 'SOL-USDC'];
/** Rows of the slowest stream that make the run long enough: about ten seconds of changes. */
const ENOUGH_CHANGES = 100;

describe('Deribit end to end', () => {
  const pipeline = new Pipeline({
    MARKETPRISM_EXCHANGES: EXCHANGE,
    MARKETPRISM_SYMBOLS: 'BTC-USDT,ETH-USDT,SOL-USDT',
    MARKETPRISM_ORDERBOOK_INTERVAL: '1s',
    // A little more than the simulator takes to flag them.
    MARKETPRISM_LIQUIDATION_DELAY: '6s',
  });
  before(async () => {
    await pipeline.choosePorts();
    await pipeline.startBroker();
    await pipeline.startDatabase();
    const pairs = ['--symbols', 'BTC-USDT,ETH-USDT,SOL-USDT', '--trades-per-second', '50'];
    const liquidations = ['--liquidations-per-minute', '60'];
    await pipeline.startSimulator(['--exchanges', EXCHANGE, ...pairs, ...liquidations]);
    await pipeline.startStore();
    await pipeline.startCollector();
    await waitFor('a long enough run', READY_MS, async () => {
      const { streams } = await pipeline.ledger();
      const changes = streams.filter(({ data_type }) => data_type === 'orderbook_update');
      return changes.length === SYMBOLS.length && changes.every(({ sent }) => sent >= ENOUGH_CHANGES);
    });
    await pipeline.simulate({ action: 'stop' });
    await pipeline.settled();
  });
  after(() => pipeline.close());

  /** Keys of one stream that the exchange wrote, ascending. */
  async function told(symbol: string, dataType: string): Promise<number[]> {
    const url = `${pipeline.control}/ledger/keys?exchange=${EXCHANGE}&symbol=${symbol}&data_type=${dataType}`;
    const lines = (await (await fetch(url)).text()).trim().split('\n');
    return lines.map(Number).sort((one, other) => one - other);
  }

  /** One column of a stream's rows in hot, ascending, twice where a row is there twice. */
  async function hot(table: string, column: string, symbol: string, where = '1'): Promise<number[]> {
    const rows = await pipeline.query(
      `SELECT ${column} FROM marketprism_hot.${table} WHERE exchange = '${EXCHANGE}' AND symbol = '${symbol}' AND ${where} ORDER BY ${column}`,
    );
    return rows.map(([value]) => Number(value));
  }

  test('every trade and every change of a book is in hot, once, and nothing else', async () => {
    for (const symbol of SYMBOLS) {
      assert.deepEqual(await hot('trades', 'sequence', symbol), await told(symbol, 'trade'), `${symbol} trades`);
      const changes = await told(symbol, 'orderbook_update');
      assert.ok(changes.length >= ENOUGH_CHANGES);
      assert.deepEqual(await hot('orderbook_updates', 'last_update_id', symbol, 'NOT is_snapshot'), changes, symbol);
      const snapshots = await hot('orderbook_updates', 'last_update_id', symbol, 'is_snapshot');
      assert.ok(snapshots.length > 0, `${symbol}: a snapshot before them`);
    }
  });

  test('the ledger of the exchange counts as many snapshots as hot holds', async () => {
    const { book_snapshots } = (await pipeline.ledger()) as unknown as { book_snapshots: number };
    const [[stored] = []] = await pipeline.query(
      'SELECT count() FROM marketprism_hot.orderbook_updates WHERE is_snapshot',
    );
    assert.equal(Number(stored), book_snapshots);
  });

  test('changes chain from the snapshot on, without a resync and without a refused frame', async () => {
    for (const symbol of SYMBOLS) {
      const rows = await pipeline.query(
        `SELECT last_update_id, prev_update_id, is_snapshot FROM marketprism_hot.orderbook_updates WHERE symbol = '${symbol}' ORDER BY last_update_id, is_snapshot`,
      );
      const broken = rows.filter(([, previous], place) => place > 0 && previous !== rows[place - 1]?.[0]);
      assert.deepEqual([rows[0]?.[2], broken], ['true', []]);
    }
    assert.deepEqual(pipeline.events('collector', 'resync'), []);
    assert.deepEqual(pipeline.events('collector', 'frame_rejected'), []);
  });

  test('every liquidation that the history tells is in hot, once, under its trade', async () => {
    const { rest } = JSON.parse(readFileSync(join(pipeline.dir, 'endpoints.json'), 'utf8'))[EXCHANGE] as {
      rest: string;
    };
    const ask = async (path: string): Promise<unknown> =>
      ((await (await fetch(`${rest}/api/v2/public/${path}`)).json()) as { result: unknown }).result;
    const flagged = async (instrument: string): Promise<string[]> => {
      const ids: string[] = [];
      for (let next: number | null = 1; next !== null; ) {
        const path = `get_last_trades_by_instrument?instrument_name=${instrument}&start_seq=${next}&count=1000&sorting=asc`;
        const { trades, has_more } = (await ask(path)) as { trades: TradeData[]; has_more: boolean };
        ids.push(...trades.filter(({ liquidation }) => liquidation !== undefined).map(({ trade_id }) => trade_id));
        next = has_more ? (trades.at(-1)?.trade_seq ?? 0) + 1 : null;
      }
      return ids.sort();
    };
    const [newest] = (
      (await ask('get_last_trades_by_instrument?instrument_name=BTC-PERPETUAL')) as { trades: TradeData[] }
    ).trades;
    // The markets stand still, so that the last flag comes after a while.
    await waitFor('the last flag', READY_MS, async () => {
      return ((await ask('get_time')) as number) - (newest?.timestamp ?? 0) > 2 * LIQUIDATION_DELAY_MS;
    });
    for (const [symbol, instrument] of [
      ['BTC-USD', 'BTC-PERPETUAL'],
      ['SOL-USDC', 'SOL_USDC-PERPETUAL'],
    ] as const) {
      const expected = await flagged(instrument);
      assert.ok(expected.length > 0, `${symbol} has some`);
      const query = `SELECT liquidation_id FROM marketprism_hot.liquidations WHERE symbol = '${symbol}' ORDER BY liquidation_id`;
      await waitFor(`liquidations of ${symbol}`, READY_MS, async () => {
        return (await pipeline.query(query)).length >= expected.length;
      });
      assert.deepEqual((await pipeline.query(query)).flat(), expected);
      const url = `${pipeline.control}/ledger/keys?exchange=${EXCHANGE}&symbol=${symbol}&data_type=liquidation`;
      assert.deepEqual((await (await fetch(url)).text()).trim().split('\n').sort(), expected, 'the ledger names them');
    }
  });

  test('quantities are in coins, and readings are there for every symbol', async () => {
    for (const [symbol, largest] of [
      ['BTC-USD', 100],
      ['ETH-USD', 1000],
      ['SOL-USDC', 100_000],
    ] as const) {
      const [[most] = []] = await pipeline.query(
        `SELECT toFloat64(max(quantity)) FROM marketprism_hot.trades WHERE symbol = '${symbol}'`,
      );
      assert.ok(Number(most) > 0 && Number(most) < largest, `${symbol}: ${most}`);
    }
    for (const [table, expected] of [
      ['funding_rates', SYMBOLS],
      ['open_interests', SYMBOLS],
      ['volatility_indices', ['BTC', 'ETH']],
    ] as const) {
      const rows = await pipeline.query(`SELECT DISTINCT symbol FROM marketprism_hot.${table} ORDER BY symbol`);
      assert.deepEqual(rows.flat(), expected, table);
    }
  });
});
