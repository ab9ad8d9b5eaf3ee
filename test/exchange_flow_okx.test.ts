/** OKX from the simulated venue through collector, JetStream and store: every key that was written to a socket is a row in hot. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { waitFor } from '../scripts/lib/processes.ts';
import { canonical } from './fixtures.ts';
import { Pipeline, READY_MS } from './pipeline.ts';
import { assertSame } from './sim_client.ts';

const EXCHANGES = ['okx_spot', 'okx_derivatives'];
const SYMBOLS = ['BTC-USDT', 'ETH-USDT'];
/** How long rows flow. */
const FLOW_MS = 10_000;

describe('OKX from the venue to hot', () => {
  const pipeline = new Pipeline({
    MARKETPRISM_EXCHANGES: EXCHANGES.join(','),
    MARKETPRISM_SYMBOLS: SYMBOLS.join(','),
    MARKETPRISM_ORDERBOOK_INTERVAL: '1s',
  });
  before(async () => {
    await pipeline.choosePorts();
    await pipeline.startBroker();
    await pipeline.startDatabase();
    const rates = ['--trades-per-second', '100', '--liquidations-per-minute', '60'];
    await pipeline.startSimulator(['--exchanges', EXCHANGES.join(','), '--symbols', SYMBOLS.join(','), ...rates]);
    await pipeline.startStore();
    await pipeline.startCollector();
  });
  after(() => pipeline.close());

  async function sentKeys(exchange: string, symbol: string, dataType: string): Promise<string[]> {
    const query = new URLSearchParams({ exchange, symbol, data_type: dataType });
    const answer = await fetch(`${pipeline.control}/ledger/keys?${query}`);
    const text = await answer.text();
    assert.equal(answer.status, 200, text);
    assert.ok(!text.startsWith('#'), 'all keys are kept');
    return text === '' ? [] : text.trimEnd().split('\n');
  }

  /** Compares one stream's rows in hot with what the venue wrote. @returns how many there are */
  async function compare(exchange: string, symbol: string, dataType: string, sql: string): Promise<number> {
    const rows = (await pipeline.query(sql.replace('$', `exchange = '${exchange}' AND symbol = '${symbol}'`))).map(
      (row) => row.map((cell, place) => (place === 2 || place === 3 ? canonical(cell) : cell)).join('|'),
    );
    assertSame(rows.sort(), (await sentKeys(exchange, symbol, dataType)).sort(), `${exchange} ${symbol} ${dataType}`);
    return rows.length;
  }

  /** Compares all streams that have keys. @param atLeast rows that each of them must have, so that it tells something */
  async function compareAll(atLeast: { trades: number; updates: number; liquidations: number }): Promise<void> {
    const hot = 'FROM marketprism_hot';
    const updateIds = `SELECT last_update_id ${hot}.orderbook_updates WHERE $ AND NOT is_snapshot`;
    const columns = 'symbol, side, toString(price), toString(quantity), toUnixTimestamp64Milli(timestamp)';
    for (const exchange of EXCHANGES) {
      for (const symbol of SYMBOLS) {
        const trades = await compare(exchange, symbol, 'trade', `SELECT trade_id ${hot}.trades WHERE $`);
        assert.ok(trades > atLeast.trades, `${trades} trades of ${exchange} ${symbol}`);
        const updates = await compare(exchange, symbol, 'orderbook_update', updateIds);
        assert.ok(updates > atLeast.updates, `${updates} updates of ${exchange} ${symbol}`);
        if (exchange === 'okx_spot') continue;
        const told = await compare(exchange, symbol, 'liquidation', `SELECT ${columns} ${hot}.liquidations WHERE $`);
        assert.ok(told > atLeast.liquidations, `${told} liquidations of ${symbol}`);
      }
    }
  }

  test('each fill, update and liquidation that was sent is one row, and there are no others', async () => {
    const count = async (): Promise<number> =>
      Number((await pipeline.query('SELECT count() FROM marketprism_hot.liquidations'))[0]?.[0]);
    await waitFor('rows of the rarest type', READY_MS, async () => (await count()) > 0);
    await new Promise((done) => setTimeout(done, FLOW_MS));
    await pipeline.simulate({ action: 'stop' });
    await pipeline.settled();
    await compareAll({ trades: 200, updates: 50, liquidations: 2 });
  });

  test('books begin with one snapshot each, their chains are unbroken, and nothing was built anew', async () => {
    assert.deepEqual(pipeline.events('collector', 'resync'), []);
    for (const exchange of EXCHANGES) {
      for (const symbol of SYMBOLS) {
        const rows = await pipeline.query(
          `SELECT last_update_id, prev_update_id, is_snapshot FROM marketprism_hot.orderbook_updates WHERE exchange = '${exchange}' AND symbol = '${symbol}' ORDER BY last_update_id, is_snapshot DESC`,
        );
        assert.deepEqual(
          rows.flatMap(([, , isSnapshot], place) => (isSnapshot === 'true' ? [place] : [])),
          [0],
        );
        const links = rows.slice(1).map(([, previous]) => previous);
        assertSame(
          links,
          rows.slice(0, -1).map(([id]) => id),
          `the chain of ${exchange} ${symbol}`,
        );
      }
    }
  });

  test('after a lost update the book is renewed by a new subscription, and the keys in hot are still those that were sent', async () => {
    const exchange = 'okx_derivatives';
    const snapshots = async (): Promise<string[][]> =>
      pipeline.query(
        `SELECT symbol, last_update_id FROM marketprism_hot.orderbook_updates WHERE exchange = '${exchange}' AND is_snapshot ORDER BY last_update_id`,
      );
    const before = await snapshots();
    await pipeline.simulate({ action: 'start' });
    const lost = { action: 'drop', exchange, symbol: 'BTC-USDT', data_type: 'orderbook_update', count: 2 };
    await pipeline.simulate(lost);
    await pipeline.simulate({ action: 'repeat', exchange: 'okx_spot', data_type: 'trade', count: 5 });
    await waitFor('a new snapshot', READY_MS, async () => (await snapshots()).length > before.length);
    await pipeline.simulate({ action: 'stop' });
    await pipeline.settled();
    const resyncs = pipeline.events('collector', 'resync');
    assert.deepEqual(
      resyncs.map(({ symbol, cause }) => [symbol, cause]),
      [['BTC-USDT', 'gap']],
    );
    const renewed = (await snapshots()).filter(([symbol]) => symbol === 'BTC-USDT').at(-1)?.[1];
    assert.ok(Number(renewed) >= Number(resyncs[0]?.next), 'the snapshot is of after the gap');
    await compareAll({ trades: 200, updates: 50, liquidations: 2 });
  });

  test('what was published is in hot, each row once, readings too', async () => {
    const tables = await pipeline.compare();
    for (const [type, { published, rows, distinct, missing }] of tables) {
      assert.deepEqual(missing, [], `${type}: published and not in hot`);
      assert.deepEqual([rows, distinct], [published, published], `${type}: rows in hot, distinct`);
    }
    for (const type of ['orderbook', 'funding_rate', 'open_interest', 'lsr_top_position', 'lsr_all_account'] as const) {
      assert.ok(tables.has(type), `${type} is there`);
    }
  });

  test('contracts are stored in base units: both markets of a pair have trades of like size and price', async () => {
    const rows = await pipeline.query(
      "SELECT exchange, toString(avg(toFloat64(price))), toString(max(toFloat64(quantity))) FROM marketprism_hot.trades WHERE symbol = 'BTC-USDT' GROUP BY exchange ORDER BY exchange",
    );
    const [swap, spot] = rows.map(([, price, most]) => [Number(price), Number(most)] as const);
    assert.ok(Math.abs((swap?.[0] ?? 0) / (spot?.[0] ?? 1) - 1) < 0.01, `prices ${swap?.[0]} and ${spot?.[0]}`);
    // The largest level of a book is worth 400,000 USDT.
    for (const most of [swap?.[1] ?? 0, spot?.[1] ?? 0]) assert.ok(most > 0.01 && most < 10, `${most} BTC in a trade`);
  });
});
