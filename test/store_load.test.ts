/** The store under load: it stops in time, and a database that is away costs neither memory nor a busy loop. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { createServer, type Server } from 'node:net';
import { after, before, describe, test } from 'node:test';
import { headers, type NatsConnection } from 'nats';
import { pause } from '../scripts/lib/pause.ts';
import { waitFor } from '../scripts/lib/processes.ts';
import { encodeRow, type Level } from '../scripts/lib/rows.ts';
import { sampleTrade } from './fixtures.ts';
import { Pipeline, READY_MS } from './pipeline.ts';

/** What a stop may take. */
const STOP_MS = 10_000;
const ROWS_PER_MESSAGE = 100;
/** As the pipeline's environment has it. */
const ACK_WAIT_MS = 3000;

/** The backlog while the database is away: books of 1000 levels a side, all of them again and again, so that few are inserted. */
const BOOKS = 1000;
const TIMES = 8;
const BOOKS_PER_MESSAGE = 10;
const BACKLOG_BYTES = 270e6;
/** What the store may grow by while it waits: a buffer and a batch, and what V8 keeps between (measured: 35 to 62 MB at 170 to 410 MB). */
const WAITING_BYTES = 90e6;
/** And while it then works the backlog off, 16 MB of it at a time in several forms (measured: 165 MB at 170 MB, 185 at 410). */
const WORKING_BYTES = 240e6;
/** How long the database is away. */
const AWAY_MS = 3500;

describe('the store under load', () => {
  const pipeline = new Pipeline();
  let nats: NatsConnection;
  let published = 0;

  before(async () => {
    await pipeline.choosePorts();
    await pipeline.startBroker();
    await pipeline.startDatabase();
    await pipeline.startStore();
    nats = await pipeline.nats();
  });
  after(async () => {
    await nats?.close();
    await pipeline.close();
  });

  async function publish(subject: string, lines: string[]): Promise<void> {
    const head = headers();
    head.set('Mp-Mode', 'live');
    await nats.jetstream().publish(subject, lines.join('\n'), { headers: head });
  }

  /** Publishes trades, as fast as the broker takes them, until `done`. */
  async function load(done: () => boolean): Promise<void> {
    while (!done()) {
      const first = published;
      published += ROWS_PER_MESSAGE;
      const lines = Array.from({ length: ROWS_PER_MESSAGE }, (_, i) => encodeRow('trade', sampleTrade(first + i)));
      await publish('trade.binance_spot.spot.BTC-USDT', lines);
    }
  }

  /** Stops the store, which must be in time and of its own accord. */
  async function stopInTime(): Promise<void> {
    const before = Date.now();
    const exit = await pipeline.stop('store');
    const took = Date.now() - before;
    assert.deepEqual([exit?.code, exit?.signal], [0, null], exit?.lastLine);
    assert.ok(took < STOP_MS, `${took} ms`);
  }

  /** The next store stores what is left. */
  async function assertTrades(): Promise<void> {
    await pipeline.drained();
    const query = 'SELECT count(), uniqExact(trade_id) FROM marketprism_hot.trades';
    assert.deepEqual((await pipeline.query(query))[0]!.map(Number), [published, published]);
  }

  async function inserted(): Promise<number> {
    const document = await pipeline.health('store');
    return Number(document?.checks.trade?.details.inserted ?? 0);
  }

  test('stops within 10 s while rows pour in, and the next one stores what it left', async () => {
    let stopped = false;
    const loading = load(() => stopped);
    await waitFor('rows', READY_MS, async () => (await inserted()) > 10_000);
    await stopInTime();
    stopped = true;
    await loading;
    const before = Number((await pipeline.query('SELECT count() FROM marketprism_hot.trades'))[0]![0]);
    assert.ok(before < published, 'something is left for the next one');
    await pipeline.startStore();
    await assertTrades();
  });

  test('stops within 10 s while the database hangs, and the next one stores each row once', async () => {
    const database = pipeline.children.get('clickhouse_embedded')!.pid!;
    process.kill(database, 'SIGSTOP');
    try {
      const until = published + 5000;
      await load(() => published >= until);
      await waitFor('rows in its hands', READY_MS, async () => {
        const document = await pipeline.health('store');
        return Number(document?.checks.trade?.details.holding ?? 0) > 0;
      });
      await stopInTime();
    } finally {
      process.kill(database, 'SIGCONT');
    }
    await pipeline.startStore();
    await assertTrades();
  });

  test('gathers the next batch while the database hangs over one, and keeps both from being delivered again', async () => {
    const { pid } = pipeline.children.get('clickhouse_embedded')!;
    const holding = async () => Number((await pipeline.health('store'))?.checks.trade?.details.holding ?? 0);
    const add = (messages: number) => {
      const until = published + messages * ROWS_PER_MESSAGE;
      return load(() => published >= until);
    };
    process.kill(pid!, 'SIGSTOP');
    try {
      await add(5);
      await waitFor('a batch in its hands', READY_MS, async () => (await holding()) === 5);
      // The batch is closed by then, and its look-up is what hangs.
      await pause(1000);
      await add(7);
      await waitFor('the next one beside it', READY_MS, async () => (await holding()) === 12);
      await pause(2 * ACK_WAIT_MS);
      const { num_redelivered } = await (await nats.jetstreamManager()).consumers.info('MARKET_DATA', 'store_trade');
      assert.equal(num_redelivered, 0);
    } finally {
      process.kill(pid!, 'SIGCONT');
    }
    await assertTrades();
    assert.equal(await holding(), 0);
  });

  test(`holds a bounded part of a backlog of ${BACKLOG_BYTES / 1e6} MB while the database is away, asks it ever less often, and goes on by itself`, async () => {
    const { pid } = pipeline.children.get('store')!;
    await pipeline.stop('clickhouse_embedded');
    let asked = 0;
    // In its place: what counts who comes, and answers nobody.
    const counter: Server = createServer((socket) => {
      asked += 1;
      socket.destroy();
    });
    await new Promise<void>((done) => counter.listen(pipeline.ports.clickhouse, '127.0.0.1', done));
    const idle = residentBytes(pid!, 'VmRSS');
    const since = Date.now();
    const logged = pipeline.log('store').split('\n').length;
    let bytes = 0;
    for (let first = 0; first < BOOKS * TIMES; first += BOOKS_PER_MESSAGE) {
      const lines = Array.from({ length: BOOKS_PER_MESSAGE }, (_, i) => book((first + i) % BOOKS));
      bytes += lines.join('\n').length;
      await publish('orderbook.binance_spot.spot.BTC-USDT', lines);
    }
    assert.ok(bytes > BACKLOG_BYTES, `a backlog of ${bytes} bytes`);
    await pause(Math.max(0, AWAY_MS - (Date.now() - since)));
    const away = (Date.now() - since) / 1000;
    const peak = residentBytes(pid!, 'VmHWM');
    await new Promise((done) => counter.close(done));
    // Each asking table waits 0.5, 1, 2, 4, 8, then 10 s; the looks for gaps every 10 s.
    const tries = Math.ceil(Math.log2(away / 0.5 + 1)) + Math.ceil(away / 10);
    const lines = pipeline.log('store').split('\n').length - logged;
    assert.ok(pipeline.events('store', 'lookup_failed').length > 0, 'it noticed');
    assert.ok(asked <= 2 * tries + 2, `asked ${asked} times in ${away} s`);
    assert.ok(lines <= 2 * tries + 2, `${lines} lines in ${away} s`);
    assert.ok(peak - idle < WAITING_BYTES, `${peak - idle} bytes more than idle`);
    await pipeline.startDatabase();
    await pipeline.drained();
    const query = 'SELECT count(), uniqExact(last_update_id) FROM marketprism_hot.orderbooks';
    assert.deepEqual((await pipeline.query(query))[0]!.map(Number), [BOOKS, BOOKS]);
    assert.equal(pipeline.children.get('store')!.pid, pid, 'the same process');
    const most = residentBytes(pid!, 'VmHWM');
    assert.ok(most - idle < WORKING_BYTES, `${most - idle} bytes more than idle`);
    console.log(
      `# ${bytes} bytes: ${peak - idle} more than idle while waiting, ${most - idle} in all; asked ${asked} times in ${away} s`,
    );
  });
});

/** Memory of a process: at present, or at its most so far. */
function residentBytes(pid: number, which: 'VmRSS' | 'VmHWM'): number {
  const [, kib] = new RegExp(`${which}:\\s+(\\d+) kB`).exec(readFileSync(`/proc/${pid}/status`, 'utf8'))!;
  return Number(kib) * 1024;
}

const side = (first: number, step: number): Level[] =>
  Array.from({ length: 1000 }, (_, i) => [String(first + i * step), '1.25']);
const BIDS = side(60_000, -1);
const ASKS = side(60_001, 1);

function book(id: number): string {
  return encodeRow('orderbook', {
    exchange: 'binance_spot',
    market_type: 'spot',
    symbol: 'BTC-USDT',
    instrument: 'BTCUSDT',
    timestamp: 1795000000000 + id,
    received_at: (1795000000000 + id) * 1000,
    data_source: 'live',
    last_update_id: id,
    best_bid_price: '60000',
    best_bid_quantity: '1.25',
    best_ask_price: '60001',
    best_ask_quantity: '1.25',
    bids: BIDS,
    asks: ASKS,
    verified: 'verified',
  });
}
