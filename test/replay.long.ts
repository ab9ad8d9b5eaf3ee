import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { gunzipSync, gzipSync } from 'node:zlib';
import { OrderBook } from '../scripts/lib/book.ts';
import { waitFor } from '../scripts/lib/processes.ts';
import type { Level } from '../scripts/lib/rows.ts';
import { bookTickers, canonical, missing, RECORDED, readSession } from './fixtures.ts';
import { Pipeline, READY_MS } from './pipeline.ts';

const SESSIONS = [
  { exchange: 'binance_spot', pair: 'BTC-USDT', path: RECORDED.spot, trades: 9757, diffs: 3451, equal: 564 },
  { exchange: 'binance_derivatives', pair: 'ETH-USDT', path: RECORDED.usdm, trades: 14_076, diffs: 6586, equal: 551 },
];

interface StoredDiff {
  id: number;
  snapshot: boolean;
  bids: Level[];
  asks: Level[];
}

/** The diffs and snapshots of hot, in their order. */
async function storedDiffs(pipeline: Pipeline, exchange: string): Promise<StoredDiff[]> {
  const rows = await pipeline.query(
    `SELECT last_update_id, is_snapshot, toJSONString(arrayMap(x -> [toString(x.1), toString(x.2)], bids)), toJSONString(arrayMap(x -> [toString(x.1), toString(x.2)], asks)) FROM marketprism_hot.orderbook_updates WHERE exchange = '${exchange}' ORDER BY last_update_id, is_snapshot DESC`,
  );
  return rows.map(([id, snapshot, bids, asks]) => ({
    id: Number(id),
    snapshot: snapshot === 'true',
    bids: JSON.parse(bids!),
    asks: JSON.parse(asks!),
  }));
}

/** Rebuilds the book from hot and compares it with the venue's book ticker at each equal update id. @returns [equal, different] */
function rebuild(diffs: StoredDiff[], tickers: ReturnType<typeof bookTickers>): [number, number] {
  let book: OrderBook | null = null;
  let equal = 0;
  let different = 0;
  for (const { id, snapshot, bids, asks } of diffs) {
    if (snapshot) book = new OrderBook(bids, asks, 1000);
    if (snapshot || book === null) continue;
    book.apply(bids, asks);
    const ticker = tickers.get(id);
    if (!ticker) continue;
    const ours = [...book.bids.best()!, ...book.asks.best()!].map(canonical);
    const theirs = [...ticker.bid, ...ticker.ask].map(canonical);
    if (ours.every((value, index) => value === theirs[index])) equal += 1;
    else different += 1;
  }
  return [equal, different];
}

async function totals(pipeline: Pipeline): Promise<Record<string, string>> {
  const tables = ['trades', 'orderbooks', 'orderbook_updates'];
  const out: Record<string, string> = {};
  for (const table of tables)
    out[table] = (await pipeline.query(`SELECT count() FROM marketprism_hot.${table}`))[0]![0]!;
  return out;
}

for (const session of SESSIONS) {
  describe(`the recorded session of ${session.exchange} through collector, JetStream and store`, {
    skip: missing(session.path),
  }, () => {
    const pipeline = new Pipeline({
      MARKETPRISM_EXCHANGES: session.exchange,
      MARKETPRISM_SYMBOLS: session.pair,
      MARKETPRISM_ORDERBOOK_INTERVAL: '0',
    });
    const recorded = missing(session.path) ? [] : readSession(session.path);
    const replayArgs = ['--exchanges', session.exchange, '--replay', session.path, '--exchange', session.exchange];
    const served = () =>
      waitFor('the end of the session', READY_MS, async () => (await pipeline.ledger()).replay_done === true);

    before(async () => {
      await pipeline.choosePorts();
      await pipeline.startBroker();
      await pipeline.startDatabase();
      await pipeline.startStore();
    });
    after(() => pipeline.close());

    test('gives every trade once, with contiguous ids, and every diff', async () => {
      await pipeline.startSimulator(replayArgs);
      await pipeline.startCollector();
      await served();
      await pipeline.settled();
      const [trades] = await pipeline.query(
        'SELECT count(), uniqExact(trade_id), max(toUInt64(trade_id)) - min(toUInt64(trade_id)) + 1 FROM marketprism_hot.trades',
      );
      assert.deepEqual(trades, [session.trades, session.trades, session.trades].map(String));
      const [diffs] = await pipeline.query(
        'SELECT countIf(NOT is_snapshot), uniqExactIf(last_update_id, NOT is_snapshot), countIf(is_snapshot) > 0 FROM marketprism_hot.orderbook_updates',
      );
      assert.deepEqual(diffs, [String(session.diffs), String(session.diffs), '1']);
    });

    test('keeps values to the last digit', async () => {
      const frame = recorded.find((line) => line.raw.includes('@trade'))!;
      const { t, p, q, T, m } = JSON.parse(frame.raw).data;
      const rows = await pipeline.query(
        `SELECT toString(price), toString(quantity), toUnixTimestamp64Milli(timestamp), side FROM marketprism_hot.trades WHERE trade_id = '${t}'`,
      );
      assert.deepEqual(rows, [[canonical(p), canonical(q), String(T), m ? 'sell' : 'buy']]);
    });

    test(`rebuilds the venue's own best bid and ask at ${session.equal} of ${session.equal} equal update ids, from hot`, async () => {
      assert.deepEqual(rebuild(await storedDiffs(pipeline, session.exchange), bookTickers(recorded)), [
        session.equal,
        0,
      ]);
    });

    test('has the same best bid and ask in its orderbook rows', async () => {
      const tickers = bookTickers(recorded);
      const rows = await pipeline.query(
        'SELECT last_update_id, toString(best_bid_price), toString(best_bid_quantity), toString(best_ask_price), toString(best_ask_quantity) FROM marketprism_hot.orderbooks',
      );
      let equal = 0;
      for (const [id, ...ours] of rows) {
        const ticker = tickers.get(Number(id));
        if (!ticker) continue;
        assert.deepEqual(ours, [...ticker.bid, ...ticker.ask].map(canonical));
        equal += 1;
      }
      assert.ok(equal >= session.equal - 20, `${equal} compared`);
    });

    test('adds no row when it is replayed a second time', async () => {
      const first = await totals(pipeline);
      await pipeline.stop('collector');
      await pipeline.stop('exchange_sim');
      await pipeline.startSimulator(replayArgs);
      await pipeline.startCollector();
      await served();
      await pipeline.settled();
      assert.ok((await pipeline.received()) >= session.trades + session.diffs, 'it was received again');
      assert.deepEqual(await totals(pipeline), first);
    });
  });
}

describe('a missing diff', { skip: missing(RECORDED.usdm) || missing(RECORDED.spot) }, () => {
  const scratch = mkdtempSync(join(tmpdir(), 'marketprism-session-'));
  after(() => rmSync(scratch, { recursive: true, force: true }));

  /** The session without its Nth diff line. */
  function withoutDiff(path: string, nth: number): string {
    let count = 0;
    const lines = gunzipSync(readFileSync(path)).toString().trimEnd().split('\n');
    const file = join(scratch, `without-${nth}.gz`);
    writeFileSync(file, gzipSync(lines.filter((line) => !line.includes('@depth') || ++count !== nth).join('\n')));
    return file;
  }

  const cases = [
    { what: 'withheld from the wire', ...SESSIONS[1]!, args: ['--replay', RECORDED.usdm, '--drop-diff', '3000'] },
    { what: 'deleted from the file', ...SESSIONS[0]!, args: () => ['--replay', withoutDiff(RECORDED.spot, 1500)] },
  ];
  for (const { what, exchange, pair, path, diffs: all, trades, args } of cases) {
    test(`${what} makes one resync of that symbol, and the book is right again afterwards`, async () => {
      const pipeline = new Pipeline({ MARKETPRISM_EXCHANGES: exchange, MARKETPRISM_SYMBOLS: pair });
      try {
        await pipeline.choosePorts();
        await pipeline.startBroker();
        await pipeline.startDatabase();
        await pipeline.startStore();
        // Twenty times as fast as recorded, so that the session goes on while the new snapshot is fetched.
        const replayed = [...(typeof args === 'function' ? args() : args), '--exchange', exchange, '--speed', '20'];
        await pipeline.startSimulator(['--exchanges', exchange, ...replayed]);
        await pipeline.startCollector();
        await waitFor('the end of the session', READY_MS, async () => (await pipeline.ledger()).replay_done === true);
        await pipeline.settled();
        const resyncs = pipeline.events('collector', 'resync');
        assert.deepEqual(
          resyncs.map(({ symbol, cause }) => [symbol, cause]),
          [[pair, 'gap']],
        );
        const diffs = await storedDiffs(pipeline, exchange);
        assert.equal(diffs.filter((each) => !each.snapshot).length, all - 1);
        const rebased = diffs.findIndex((each) => each.snapshot && each.id >= (resyncs[0]!.next as number));
        assert.ok(rebased > 0, 'there is a snapshot after the gap');
        const [equal, different] = rebuild(diffs.slice(rebased), bookTickers(readSession(path)));
        assert.ok(equal > 100, `${equal} compared`);
        assert.equal(different, 0);
        const [[stored] = []] = await pipeline.query('SELECT count() FROM marketprism_hot.trades');
        assert.equal(stored, String(trades), 'trades are none the worse');
      } finally {
        await pipeline.close();
      }
    });
  }
});
