/**
 * Losses at every venue: dropped trades and diffs, and a collector that is away for 1 or 10 minutes of the venue's time (with
 * `npm run test:gaps` 60, too). Each is one gap row of exactly what was not sent, filled where the venue serves it; there is no other
 * gap row.
 */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { waitFor } from '../scripts/lib/processes.ts';
import { EXCHANGES, type Exchange } from '../scripts/lib/rows.ts';
import { seededRandom } from '../scripts/lib/sim/market.ts';
import { checkLiquidations, checkReadings } from './gap_checks.ts';
import { Pipeline, READY_MS } from './pipeline.ts';

const SEED = Number(process.env.MARKETPRISM_GAPS_SEED ?? 1);
/** How long the collector is away, in seconds of the venue's time; one of these for each venue. */
const LENGTHS = (process.env.MARKETPRISM_GAPS_SECONDS ?? '60,600').split(',').map(Number);
/** Filling obeys the venues' limits: an hour of OKX is many pages. */
const FILL_MS = 600_000;

interface Stream {
  exchange: Exchange;
  symbol: string;
  data_type: string;
}

describe(`losses at every venue, seed ${SEED}`, () => {
  const pipeline = new Pipeline({
    MARKETPRISM_EXCHANGES: EXCHANGES.join(','),
    MARKETPRISM_SYMBOLS: 'BTC-USDT,ETH-USDT',
    MARKETPRISM_GAP_AGE: '3s',
  });
  const random = seededRandom(SEED);
  /** By `exchange symbol`: losses of diffs that were made. */
  const bookLosses = new Map<string, number>();

  before(async () => {
    await pipeline.choosePorts();
    await pipeline.startBroker();
    await pipeline.startDatabase();
    const rates = ['--trades-per-second', '3', '--diffs-per-second', '2', '--liquidations-per-minute', '0'];
    await pipeline.startSimulator(['--seed', String(SEED), '--symbols', 'BTC-USDT,ETH-USDT', ...rates]);
    await pipeline.startStore();
    await pipeline.startCollector();
    await waitFor('health', READY_MS, healthy);
  });
  after(() => pipeline.close());

  async function healthy(): Promise<boolean> {
    const document = await pipeline.health('collector');
    return Object.values(document?.checks ?? {}).every(({ status }) => status === 'healthy') && document !== null;
  }

  async function streams(): Promise<Stream[]> {
    return (await pipeline.ledger()).streams as unknown as Stream[];
  }

  /** What was written to a socket, ascending. */
  async function sentIds({ exchange, symbol, data_type }: Stream): Promise<bigint[]> {
    const query = new URLSearchParams({ exchange, symbol, data_type });
    const text = await (await fetch(`${pipeline.control}/ledger/keys?${query}`)).text();
    assert.ok(!text.startsWith('#'), 'all keys are kept');
    return text
      .trimEnd()
      .split('\n')
      .map(BigInt)
      .sort((one, other) => (one < other ? -1 : 1));
  }

  async function rowsInHot(): Promise<number> {
    return Number((await pipeline.query('SELECT count() FROM marketprism_hot.trades'))[0]![0]);
  }

  const gaps = (columns: string, where = '1') =>
    pipeline.query(`SELECT ${columns} FROM marketprism_hot.gaps_now WHERE ${where} ORDER BY ALL`);

  test('what does no harm makes no gap', async () => {
    for (const exchange of EXCHANGES) {
      await pipeline.simulate({ action: 'repeat', exchange, data_type: 'trade', count: 2 });
      await pipeline.simulate({ action: 'garbage', exchange, count: 1 });
      await pipeline.simulate({ action: 'shutdown_notice', exchange });
    }
    const before = await rowsInHot();
    await waitFor('rows afterwards', READY_MS, async () => (await rowsInHot()) > before + 200);
    assert.deepEqual(await gaps('exchange, symbol, data_type, from_id, to_id'), []);
  });

  test('what is lost is told with its exact range, and filled where the venue serves it', async (context) => {
    const books = (await streams()).filter(({ data_type }) => data_type === 'orderbook_update');
    for (const { exchange, symbol } of books) {
      await pipeline.simulate({
        action: 'drop',
        exchange,
        symbol,
        data_type: 'trade',
        count: 1 + Math.floor(random() * 3),
      });
      if (exchange === 'hyperliquid' || random() < 0.5) continue;
      await pipeline.simulate({ action: 'drop', exchange, symbol, data_type: 'orderbook_update', count: 1 });
      bookLosses.set(`${exchange} ${symbol}`, 1);
    }
    await waitFor('the drops', READY_MS, async () =>
      (await pipeline.ledger()).streams.every(
        (each) => each.data_type !== 'trade' || (each as unknown as { dropped: number }).dropped > 0,
      ),
    );
    const before = await rowsInHot();
    await waitFor('rows afterwards', READY_MS, async () => (await rowsInHot()) > before + 100);
    await pipeline.stop('collector');
    const skipped: string[] = [];
    for (const exchange of EXCHANGES) {
      const seconds = LENGTHS[Math.floor(random() * LENGTHS.length)]!;
      skipped.push(`${exchange} ${seconds} s`);
      await pipeline.simulate({ action: 'skip', exchange, seconds });
    }
    await pipeline.startCollector();
    for (const { exchange, symbol } of books) {
      const key = `${exchange} ${symbol}`;
      if (exchange !== 'hyperliquid') bookLosses.set(key, (bookLosses.get(key) ?? 0) + 1);
    }
    const expected = books.length;
    await waitFor(
      'a gap of each stream of trades',
      READY_MS,
      async () =>
        Number(
          (
            await gaps('uniqExact((exchange, symbol))', "data_type = 'trade' AND cause IN ('outage', 'downtime')")
          )[0]![0],
        ) === expected,
    );
    // Wherever it stands then, nothing of it is lost or doubled by this.
    await pipeline.kill('store');
    await waitFor('all to be filled', FILL_MS, async () => (await gaps('gap_id', "status = 'open'")).length === 0);
    context.diagnostic(skipped.join(', '));
    const filled = await gaps('exchange, sum(rows), sum(filled_rows)', "data_type = 'trade' GROUP BY exchange");
    context.diagnostic(filled.map(([exchange, rows, got]) => `${exchange} ${got} of ${rows}`).join(', '));
  });

  test('the store tells the gaps in its health and metrics', async () => {
    type Count = { exchange: string; data_type: string; status: string; gaps: number; rows: number };
    let counts: Count[] = [];
    await waitFor('a look after the kill', READY_MS, async () => {
      const details = (await pipeline.health('store'))?.checks.gaps?.details as { counts: Count[] } | undefined;
      counts = details?.counts ?? [];
      return counts.length > 0 && counts.every(({ status }) => status !== 'open');
    });
    const trades = counts.filter(({ data_type, status }) => data_type === 'trade' && status === 'filled');
    assert.equal(trades.length, EXCHANGES.length - 1);
    const metrics = await (await fetch(`http://127.0.0.1:${pipeline.ports.store}/metrics`)).text();
    for (const { exchange, gaps: count } of trades) {
      const name = `marketprism_storage_gaps{exchange="${exchange}",data_type="trade",status="filled"} ${count}`;
      assert.ok(metrics.includes(`${name}\n`), name);
    }
  });

  test('each gap of trades is a hole in what was sent, each hole is a gap, and hot has every id once', async () => {
    await pipeline.simulate({ action: 'stop' });
    await pipeline.settled();
    // What was sent last is looked at once more.
    await new Promise((done) => setTimeout(done, 5000));
    for (const stream of (await streams()).filter(({ data_type }) => data_type === 'trade')) {
      const { exchange, symbol } = stream;
      const what = `${exchange} ${symbol}`;
      const told = await gaps(
        'toUInt64(from_id) AS first, to_id, rows, filled_rows, status',
        `data_type = 'trade' AND exchange = '${exchange}' AND symbol = '${symbol}'`,
      );
      if (exchange === 'hyperliquid') {
        // Its trades have no ids that count: a dropped one cannot be known. That more than a backlog went by while nobody listened, can.
        assert.deepEqual(
          told.map(([, , rows, filled, status]) => [rows, filled, status]),
          [['\\N', '\\N', 'unfillable']],
          what,
        );
        continue;
      }
      const number = exchange === 'deribit_derivatives' ? 'sequence' : 'toUInt64(trade_id)';
      const of = `FROM marketprism_hot.trades WHERE exchange = '${exchange}' AND symbol = '${symbol}'`;
      const live = (await pipeline.query(`SELECT ${number} ${of} AND data_source = 'live' ORDER BY 1`)).map(([id]) =>
        BigInt(id!),
      );
      const sent = await sentIds(stream);
      // What was on its way when the collector stopped was written to a socket that nobody read any more.
      const unread = sent.filter((id) => !live.includes(id));
      assert.ok(unread.length < 10, `${what}: ${unread.length} of ${sent.length} were sent and not received`);
      const strangers = live.filter((id) => !sent.includes(id));
      assert.deepEqual(strangers, [], `${what}: nothing that was not sent`);
      const holes = live.flatMap((id, place) => {
        const previous = live[place - 1];
        if (previous === undefined || id === previous + 1n) return [];
        const rows = String(id - previous - 1n);
        return [[String(previous + 1n), String(id - 1n), rows, rows, 'filled']];
      });
      assert.deepEqual(told, holes, what);
      const [[count, unique, first, last] = []] = await pipeline.query(
        `SELECT count(), uniqExact(${number}), min(${number}), max(${number}) ${of}`,
      );
      assert.equal(count, unique, `${what}: nothing twice`);
      assert.equal(BigInt(count!), BigInt(last!) - BigInt(first!) + 1n, `${what}: every id`);
      assert.deepEqual([first, last], [String(sent[0]), String(sent.at(-1))], what);
    }
  });

  test('each hole in the readings is a gap, too, and there is no other', async (context) => {
    const counts = await checkReadings(pipeline, EXCHANGES);
    const told = [...counts].filter(([, count]) => count > 0);
    context.diagnostic(told.map(([name, count]) => `${name} ${count}`).join(', '));
  });

  test('each interruption of the sockets of liquidations that have no ids is told, and nothing else is', async () => {
    assert.ok((await checkLiquidations(pipeline)) >= 4, 'two symbols of two exchanges were away');
  });

  /** Between two whole books lie five seconds; in more than half as much again one may be missing, or a slow machine simulated none. */
  async function checkWholeBooks(symbol: string): Promise<void> {
    const book = `exchange = 'hyperliquid' AND symbol = '${symbol}'`;
    const times = (
      await pipeline.query(`SELECT last_update_id FROM marketprism_hot.orderbook_updates WHERE ${book} ORDER BY 1`)
    ).map(([id]) => Number(id));
    const holes = times.flatMap((time, place) => {
      const last = times[place - 1];
      return last === undefined || time - last <= 7501 ? [] : [[String(last + 1), String(time - 1), 'unfillable', '-']];
    });
    const told = await gaps(
      "toUInt64(from_id) AS first, to_id, status, ifNull(toString(rows), '-')",
      `data_type = 'orderbook_update' AND ${book}`,
    );
    assert.deepEqual(told, holes, `hyperliquid ${symbol}`);
    assert.ok(told.length > 0, 'the time without a collector is one');
  }

  test('each break in the chain of a book’s diffs is a gap that cannot be filled, and there is no other', async () => {
    for (const { exchange, symbol } of (await streams()).filter(({ data_type }) => data_type === 'orderbook_update')) {
      const book = `exchange = '${exchange}' AND symbol = '${symbol}'`;
      const told = await gaps(
        "toUInt64(from_id) AS first, to_id, status, ifNull(reason, '')",
        `data_type = 'orderbook_update' AND ${book}`,
      );
      if (exchange === 'hyperliquid') {
        await checkWholeBooks(symbol);
        continue;
      }
      const diffs = await pipeline.query(
        `SELECT last_update_id, if(exchange = 'binance_spot', first_update_id - 1, prev_update_id) FROM marketprism_hot.orderbook_updates WHERE ${book} AND NOT is_snapshot ORDER BY last_update_id`,
      );
      const breaks = diffs.flatMap(([, predecessor], place) => {
        const last = diffs[place - 1]?.[0];
        if (last === undefined || last === predecessor) return [];
        return [[String(BigInt(last) + 1n), predecessor!, 'unfillable', 'no venue serves past book updates']];
      });
      assert.deepEqual(told, breaks, `${exchange} ${symbol}`);
      assert.ok(
        told.length >= (bookLosses.get(`${exchange} ${symbol}`) ?? 0),
        `${exchange} ${symbol}: ${told.length} gaps`,
      );
    }
  });
});

describe('what a venue no longer serves', () => {
  const pipeline = new Pipeline({
    MARKETPRISM_EXCHANGES: 'binance_spot,okx_spot',
    MARKETPRISM_SYMBOLS: 'BTC-USDT',
    MARKETPRISM_GAP_AGE: '3s',
  });
  before(async () => {
    await pipeline.choosePorts();
    await pipeline.startBroker();
    await pipeline.startDatabase();
    // Only trades are asked about.
    const rates = ['--trades-per-second', '5', '--diffs-per-second', '1', '--liquidations-per-minute', '0'];
    await pipeline.startSimulator(['--symbols', 'BTC-USDT', '--trade-history', '400', ...rates]);
    await pipeline.startStore();
    await pipeline.startCollector();
  });
  after(() => pipeline.close());

  test('is told as unfillable, with the reason and what could be had', async () => {
    const count = async () => Number((await pipeline.query('SELECT count() FROM marketprism_hot.trades'))[0]![0]);
    await waitFor('trades', READY_MS, async () => (await count()) > 30);
    await pipeline.stop('collector');
    for (const exchange of ['binance_spot', 'okx_spot'])
      await pipeline.simulate({ action: 'skip', exchange, seconds: 600 });
    await pipeline.startCollector();
    const states = () =>
      pipeline.query(
        "SELECT exchange, toString(status), rows, ifNull(filled_rows, 0), ifNull(reason, '') FROM marketprism_hot.gaps_now WHERE data_type = 'trade' ORDER BY exchange",
      );
    await waitFor('both', READY_MS, async () => {
      const now = await states();
      return now.length === 2 && now.every(([, status]) => status === 'unfillable');
    });
    await pipeline.drained();
    const found = await pipeline.query(
      "SELECT exchange, toString(countIf(data_source LIKE 'backfill:%')) FROM marketprism_hot.trades GROUP BY exchange ORDER BY exchange",
    );
    for (const [index, [exchange, , rows, filled, reason]] of (await states()).entries()) {
      assert.ok(
        Number(rows) > 2000 && Number(filled) > 100 && Number(filled) < 400,
        `${exchange}: ${filled} of ${rows}`,
      );
      assert.match(reason!, /^the history of the venue has /);
      assert.deepEqual(found[index], [exchange, filled], 'and what was told is in hot');
    }
  });
});
