/** Hot → cold, window by window, in the real engine: whatever was late, doubled, cut off or lost, both are equal afterwards. */
import assert from 'node:assert/strict';
import { after, before, beforeEach, describe, test } from 'node:test';
import type { ClickHouseClient } from '@clickhouse/client';
import { createClickHouse, insertLines } from '../scripts/lib/clickhouse.ts';
import { createLogger } from '../scripts/lib/log.ts';
import {
  Disagreement,
  dropOldDays,
  type Place,
  type ReplicationOptions,
  replications,
  type TableReplication,
} from '../scripts/lib/replication.ts';
import { encodeRow, type TradeRow } from '../scripts/lib/rows.ts';
import { ensureTier } from '../scripts/lib/schema.ts';
import { viewStatements } from '../scripts/lib/schema_sql.ts';
import { sampleTrade } from './fixtures.ts';
import { Pipeline } from './pipeline.ts';

const log = createLogger('test', 'fatal');
const HOT = 'marketprism_hot';
const COLD = 'marketprism_cold';
const START = 1_795_000_000_000;
const DAY_MS = 86_400_000;

for (const isOneServer of [true, false]) {
  describe(`replication ${isOneServer ? 'on one server' : 'from one server to another'}`, () => {
    const hotServer = new Pipeline();
    const coldServer = isOneServer ? hotServer : new Pipeline();
    let hot: ClickHouseClient;
    let cold: ClickHouseClient;
    let options: ReplicationOptions;
    let trades: TableReplication;
    let sequence = 0;

    before(async () => {
      for (const server of new Set([hotServer, coldServer])) {
        await server.choosePorts();
        await server.startDatabase();
      }
      [hot, cold] = [hotServer.client(), coldServer.client()];
      options = {
        hot: { client: hot, database: HOT },
        cold: { client: cold, database: COLD },
        isOneServer,
        windowRows: 100,
        log,
      };
    });
    beforeEach(async () => {
      await hotServer.query(`DROP DATABASE IF EXISTS ${HOT}`);
      await coldServer.query(`DROP DATABASE IF EXISTS ${COLD}`);
      await ensureTier(hot, 'hot', HOT);
      await ensureTier(cold, 'cold', COLD);
      trades = replications(options).find(({ type }) => type === 'trade')!;
      sequence = 0;
    });
    after(async () => {
      await hotServer.close();
      if (!isOneServer) await coldServer.close();
    });

    /** One message of trades, as the store inserts it. */
    async function store(ids: number[], change: Partial<TradeRow> = {}, epoch = 1): Promise<number> {
      const seq = ++sequence;
      const lines = ids.map((id) => {
        const row = encodeRow('trade', sampleTrade(id, { timestamp: START + id * 1000, ...change }));
        return `{"js_epoch":${epoch},"js_seq":${seq},${row.slice(1)}\n`;
      });
      await insertLines(hot, `${HOT}.trades`, Buffer.from(lines.join('')), `test:${epoch}:${seq}`);
      return seq;
    }
    const range = (from: number, count: number) => Array.from({ length: count }, (_, i) => from + i);
    const upTo = (seq: number, epoch = 1): Place[] => [{ epoch, seq }];
    const all = () => upTo(sequence);
    async function replicate(settled = all(), replication = trades): Promise<void> {
      while (await replication.run(settled, 3)) {
        // More is left.
      }
    }
    const SUM = `count(), uniqExact(exchange, market_type, symbol, trade_id), sum(cityHash64(exchange, market_type, symbol, timestamp, trade_id, price, quantity, side, is_maker, toString(sequence)))`;
    async function check(what: string): Promise<void> {
      const [[hotSum], [coldSum]] = [
        await hotServer.query(`SELECT ${SUM} FROM ${HOT}.trades`),
        await coldServer.query(`SELECT ${SUM} FROM ${COLD}.trades`),
      ];
      assert.deepEqual(coldSum, hotSum, what);
      assert.equal(coldSum![0], coldSum![1], `${what}: nothing twice`);
    }
    const countCold = async () => Number((await coldServer.query(`SELECT count() FROM ${COLD}.trades`))[0]![0]);

    test('copies window by window, of whole messages, up to where the store has acknowledged; a second pass copies nothing', async () => {
      for (let message = 0; message < 30; message += 1) await store(range(message * 25, 25));
      await replicate(upTo(10));
      assert.equal(await countCold(), 250);
      await replicate();
      await check('all');
      const { success_windows: windows, copied } = trades.stats;
      assert.ok(windows >= 8 && windows < 20, `${windows} windows`);
      await replicate();
      assert.deepEqual([trades.stats.success_windows, trades.stats.copied], [windows, copied]);
    });

    test('late rows, older than everything in cold, come with the window of their arrival', async () => {
      await store(range(1000, 50));
      await replicate();
      await store(range(0, 30));
      await store(range(500, 30), { symbol: 'ETH-USDT' });
      await store(range(1020, 5), { symbol: 'SOL-USDT' });
      await replicate();
      await check('late');
      assert.equal(await countCold(), 115);
    });

    test('a numbering that began anew comes after the old one, whose end is known', async () => {
      await store(range(0, 50));
      const closed = sequence;
      sequence = 0;
      await store(range(50, 10), {}, 2);
      await replicate([
        { epoch: 2, seq: 1 },
        { epoch: 1, seq: closed },
      ]);
      await check('both epochs');
      assert.deepEqual(await trades.progress(), { epoch: 2, seq: 1 });
    });

    test('what cold has already is not copied again: rows brought back, a copy that was cut off, progress that was lost', async () => {
      await store(range(0, 90));
      await replicate();
      // Brought back into hot: dropped there, and stored again under another sequence.
      await hotServer.query(
        `ALTER TABLE ${HOT}.trades DELETE WHERE toUInt64(trade_id) < 40 SETTINGS mutations_sync = 2`,
      );
      await store([...range(0, 40), ...range(90, 10)]);
      await replicate();
      await check('brought back');
      assert.equal(trades.stats.copied, 100);
      await coldServer.query(`TRUNCATE TABLE ${COLD}.replication_progress`);
      await coldServer.query(
        `ALTER TABLE ${COLD}.trades DELETE WHERE toUInt64(trade_id) % 7 = 3 SETTINGS mutations_sync = 2`,
      );
      const again = replications(options).find(({ type }) => type === 'trade')!;
      await replicate(all(), again);
      await check('progress lost, rows lost');
      assert.equal(again.stats.copied, range(0, 100).filter((id) => id % 7 === 3).length);
    });

    test('a progress table that says what cannot be is not believed', async () => {
      for (let message = 0; message < 12; message += 1) await store(range(message * 25, 25));
      await replicate();
      const lose = () =>
        coldServer.query(
          `ALTER TABLE ${COLD}.trades DELETE WHERE toUInt64(trade_id) % 9 = 2 SETTINGS mutations_sync = 2`,
        );
      const say = (epoch: number, from: number, to: number) =>
        cold.command({
          query: `INSERT INTO ${COLD}.replication_progress (table_name, js_epoch, after_seq, upto_seq, window_rows, copied_rows, window_hash) VALUES ('trades', ${epoch}, ${from}, ${to}, 1, 1, 1)`,
        });
      // Beyond what is settled; of an epoch that there is not; a window in the middle that is gone.
      const faults: [string, () => Promise<unknown>][] = [
        ['beyond', () => say(1, sequence, sequence + 1000)],
        ['epoch', () => say(7, 0, 5)],
        ['backwards', () => say(1, sequence + 5, sequence)],
        [
          'hole',
          () =>
            coldServer.query(
              `ALTER TABLE ${COLD}.replication_progress DELETE WHERE after_seq = (SELECT min(upto_seq) FROM ${COLD}.replication_progress) SETTINGS mutations_sync = 2`,
            ),
        ],
      ];
      for (const [what, damage] of faults) {
        await damage();
        await store(range(sequence * 25, 25));
        await replicate();
        await check(what);
        assert.deepEqual(await trades.progress(), { epoch: 1, seq: sequence }, what);
      }
      // From the hole on everything was compared again: what is lost there meanwhile is copied.
      await lose();
      await coldServer.query(
        `ALTER TABLE ${COLD}.replication_progress DELETE WHERE after_seq = (SELECT min(upto_seq) FROM ${COLD}.replication_progress) SETTINGS mutations_sync = 2`,
      );
      await replicate();
      const [[lacking] = []] = await coldServer.query(
        `SELECT count() FROM ${COLD}.trades WHERE toUInt64(trade_id) % 9 = 2 AND toUInt64(trade_id) >= 100`,
      );
      assert.equal(Number(lacking), range(100, sequence * 25 - 100).filter((id) => id % 9 === 2).length);
    });

    test('cold that holds more than hot, or other values, stops the table', async () => {
      await store(range(0, 20));
      await replicate();
      const columns =
        'timestamp, exchange, market_type, symbol, instrument, trade_id, sequence, price, quantity, side, is_maker, received_at, data_source';
      await coldServer.query(
        `INSERT INTO ${COLD}.trades (${columns}) SELECT ${columns} FROM ${COLD}.trades WHERE trade_id = '7'`,
      );
      await coldServer.query(`TRUNCATE TABLE ${COLD}.replication_progress`);
      await assert.rejects(replicate(), (error: Error) => {
        assert.ok(error instanceof Disagreement);
        assert.match(error.message, /^trades: cold has 21 rows where hot has 20 \(epoch 1, 0 to 1\)$/);
        return true;
      });
      assert.match(trades.stats.disagreement!, /^trades: cold has 21 rows/);
      assert.deepEqual(await trades.progress(), { epoch: 0, seq: 0 }, 'nothing is written down');
      await coldServer.query(`TRUNCATE TABLE ${COLD}.trades`);
      await replicate();
      await coldServer.query(
        `ALTER TABLE ${COLD}.trades UPDATE price = price + 1 WHERE trade_id = '3' SETTINGS mutations_sync = 2`,
      );
      await coldServer.query(`TRUNCATE TABLE ${COLD}.replication_progress`);
      await assert.rejects(replicate(), /the same 20 keys have other values in cold than in hot/);
    });

    test('lag is the age of the oldest row that is not in cold', async () => {
      await trades.measureLag(Date.now());
      assert.equal(trades.stats.lag_minutes, 0);
      await store(range(0, 5));
      await trades.measureLag(Date.now() + 90 * 60_000);
      assert.ok(Math.abs(trades.stats.lag_minutes! - 90) < 5, `${trades.stats.lag_minutes}`);
      await replicate();
      await trades.measureLag(Date.now() + 90 * 60_000);
      assert.equal(trades.stats.lag_minutes, 0);
    });

    test('a hot day is dropped when it is old and cold holds every row of it, asked anew; else never', async () => {
      await store(range(0, 250));
      await replicate(upTo(0));
      const later = Date.now() + 5 * DAY_MS;
      const drop = (now: number) => dropOldDays(trades, options, 3 * DAY_MS, now);
      assert.deepEqual(await drop(later), [], 'nothing is in cold');
      await replicate();
      assert.deepEqual(await drop(Date.now()), [], 'it is today');
      await coldServer.query(`ALTER TABLE ${COLD}.trades DELETE WHERE trade_id = '200' SETTINGS mutations_sync = 2`);
      assert.deepEqual(await drop(later), [], 'one row is gone from cold, although all was written down');
      await coldServer.query(`TRUNCATE TABLE ${COLD}.replication_progress`);
      await replicate();
      const client = createClickHouse({ url: 'http://127.0.0.1:1', username: 'default', password: '' }, 'test');
      const away: ReplicationOptions = { ...options, cold: { client, database: COLD }, isOneServer: false };
      const ofAway = replications(away).find(({ type }) => type === 'trade')!;
      await assert.rejects(dropOldDays(ofAway, away, 3 * DAY_MS, later), /ECONNREFUSED/);
      await client.close();
      assert.deepEqual(await hotServer.query(`SELECT count() FROM ${HOT}.trades`), [['250']], 'cold was away');
      assert.equal((await drop(later)).length, 1);
      assert.deepEqual(await hotServer.query(`SELECT count() FROM ${HOT}.trades`), [['0']]);
      assert.equal(await countCold(), 250);
    });

    test('every table has its way, with absent values, arrays and enumerations', async () => {
      const time = START;
      const common = {
        exchange: 'deribit_derivatives',
        market_type: 'perpetual',
        symbol: 'BTC-USD',
        instrument: 'BTC-PERPETUAL',
        timestamp: time,
        received_at: time * 1000,
        data_source: 'live',
      } as const;
      const levels: [string, string][] = [
        ['1.5', '2'],
        ['1.25', '0.000000000000000001'],
      ];
      const lines: [string, string][] = [
        [
          'orderbooks',
          encodeRow('orderbook', {
            ...common,
            last_update_id: 1,
            best_bid_price: '1',
            best_bid_quantity: '1',
            best_ask_price: '2',
            best_ask_quantity: '2',
            bids: levels,
            asks: levels,
            verified: 'verified',
          }),
        ],
        [
          'orderbook_updates',
          encodeRow('orderbook_update', {
            ...common,
            first_update_id: null,
            last_update_id: 1,
            prev_update_id: null,
            is_snapshot: true,
            bids: levels,
            asks: [],
          }),
        ],
        [
          'funding_rates',
          encodeRow('funding_rate', {
            ...common,
            funding_rate: '-0.0001',
            funding_time: null,
            next_funding_time: time,
            funding_interval_hours: null,
            mark_price: '1',
            index_price: null,
          }),
        ],
        [
          'volatility_indices',
          encodeRow('volatility_index', {
            ...common,
            resolution: '60',
            index_value: '50',
            underlying_asset: 'BTC',
            maturity_date: '2026-12-25',
          }),
        ],
        [
          'gaps',
          encodeRow('gap', {
            ...common,
            gap_id: 'a',
            status: 'unfillable',
            data_type: 'trade',
            from_id: '1',
            to_id: '2',
            from_time: time,
            to_time: time,
            cause: 'outage',
            reason: "it's\ta \\ tab",
            rows: null,
            filled_rows: null,
            detected_at: time,
            closed_at: null,
          }),
        ],
      ];
      for (const [table, line] of lines) {
        await insertLines(
          hot,
          `${HOT}.${table}`,
          Buffer.from(`{"js_epoch":1,"js_seq":1,${line.slice(1)}\n`),
          `test:${table}`,
        );
      }
      for (const replication of replications(options)) await replicate(upTo(1), replication);
      for (const [table] of lines) {
        const text = `SELECT * EXCEPT created_at FROM`;
        assert.deepEqual(
          await coldServer.query(`${text} ${COLD}.${table}`),
          await hotServer.query(`${text} ${HOT}.${table}`),
          table,
        );
      }
    });

    if (isOneServer) {
      test('the views have each row once, at every step of a window', async () => {
        for (const query of viewStatements('marketprism', HOT, COLD)) await hot.command({ query });
        const seen = async () =>
          (await hotServer.query('SELECT count(), uniqExact(trade_id) FROM marketprism.trades'))[0];
        await store(range(0, 30));
        assert.deepEqual(await seen(), ['30', '30'], 'all in hot');
        await replicate();
        assert.deepEqual(await seen(), ['30', '30'], 'in both');
        await store(range(30, 10));
        await hot.command({
          query: `INSERT INTO ${COLD}.trades (timestamp, exchange, market_type, symbol, instrument, trade_id, price, quantity, side, is_maker, received_at, data_source, js_epoch, js_seq) SELECT timestamp, exchange, market_type, symbol, instrument, trade_id, price, quantity, side, is_maker, received_at, data_source, js_epoch, js_seq FROM ${HOT}.trades WHERE js_seq = 2`,
        });
        assert.deepEqual(await seen(), ['40', '40'], 'a window is copied, and not written down');
        await hotServer.query(`TRUNCATE TABLE ${HOT}.trades`);
        assert.deepEqual(await seen(), ['30', '30'], 'what was dropped from hot is in cold');
      });
    }
  });
}
