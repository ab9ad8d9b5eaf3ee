/** The collector between an exchange that never rests and a broker that does: what it holds, and what a stop may cost. */
import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { type WebSocket, WebSocketServer } from 'ws';
import { ensureStreams } from '../scripts/lib/jetstream.ts';
import { countPublished, type Published } from '../scripts/lib/ledger.ts';
import { createLogger } from '../scripts/lib/log.ts';
import { waitFor } from '../scripts/lib/processes.ts';
import { streamDefinitions } from '../scripts/lib/streams.ts';
import { type HealthDocument, Pipeline, READY_MS } from './pipeline.ts';

const MIB = 2 ** 20;
/** Bound of the files in which books wait for the broker. */
const OUTBOX_BYTES = 150 * MIB;
/** A collector that held what waits on disk in memory, too, would be above it. */
const MEMORY_BYTES = 380 * MIB;
/** Levels that make a diff large, so that few frames make many bytes. */
const LEVELS = Array.from({ length: 4000 }, (_, i) => [`${(50_000 - i / 10).toFixed(2)}`, '1.00000000']);

/** A venue that sends diffs as fast as they are read. */
class Flood {
  private readonly http = createServer((_, answer) =>
    answer.end(JSON.stringify({ lastUpdateId: this.sent, bids: LEVELS, asks: [['60000', '1']] })),
  );
  private readonly sockets = new WebSocketServer({ server: this.http });
  readonly directory = mkdtempSync(join(tmpdir(), 'marketprism-flood-'));
  socket: WebSocket | null = null;
  private next = 1;

  async listen(): Promise<void> {
    await new Promise<void>((done) => this.http.listen(0, '127.0.0.1', done));
    const { port } = this.http.address() as { port: number };
    const hosts = { ws: `ws://127.0.0.1:${port}`, rest: `http://127.0.0.1:${port}` };
    writeFileSync(this.endpoints, JSON.stringify({ binance_spot: hosts }));
    this.sockets.on('connection', (socket) => {
      this.socket = socket;
      socket.on('message', (data) => {
        const { id, method } = JSON.parse(data.toString());
        const channels = ['btcusdt@trade', 'btcusdt@depth@100ms'];
        socket.send(JSON.stringify({ result: method === 'LIST_SUBSCRIPTIONS' ? channels : null, id }));
      });
    });
  }

  get endpoints(): string {
    return join(this.directory, 'endpoints.json');
  }

  /** Diffs sent so far; each is a row. */
  get sent(): number {
    return this.next - 1;
  }

  /** Sends one diff. */
  diff(levels: string[][]): void {
    const id = this.next++;
    const data = { e: 'depthUpdate', E: 1795000000000 + id, s: 'BTCUSDT', U: id, u: id, b: levels, a: [] };
    this.socket!.send(JSON.stringify({ stream: 'btcusdt@depth@100ms', data }));
  }

  async close(): Promise<void> {
    this.socket?.terminate();
    this.http.closeAllConnections();
    await new Promise((done) => this.http.close(done));
    rmSync(this.directory, { recursive: true, force: true });
  }
}

describe('the collector between a flood and a broker that does not answer', () => {
  const pipeline = new Pipeline({
    HEALTH_GRACE_SECONDS: '0',
    MARKETPRISM_EXCHANGES: 'binance_spot',
    MARKETPRISM_SYMBOLS: 'BTC-USDT',
    // Five parts of seven are the books'.
    MARKETPRISM_OUTBOX_MAX_BYTES: String((OUTBOX_BYTES * 7) / 5),
  });
  const flood = new Flood();

  before(async () => {
    await flood.listen();
    await pipeline.choosePorts();
    await pipeline.startBroker();
    const nats = await pipeline.nats();
    await ensureStreams(await nats.jetstreamManager(), streamDefinitions(), createLogger('test', 'fatal'));
    await nats.close();
  });
  after(async () => {
    await pipeline.close();
    await flood.close();
  });

  const broker = (signal: NodeJS.Signals) => process.kill(pipeline.children.get('nats-server')!.pid!, signal);

  async function startCollector(): Promise<void> {
    flood.socket = null;
    await pipeline.startCollector({ MARKETPRISM_ENDPOINTS: flood.endpoints });
    await waitFor(
      'the subscription',
      READY_MS,
      async () => pipeline.events('collector', 'socket_subscribed').length > 0,
    );
  }

  async function published(boot: string): Promise<number> {
    const nats = await pipeline.nats();
    try {
      const into: Published = { rows: new Map(), byBoot: new Map() };
      await countPublished(nats, 'ORDERBOOK_SNAP', 0, into);
      return into.byBoot.get(boot)?.get('binance_spot orderbook_update') ?? 0;
    } finally {
      await nats.close();
    }
  }

  /** Rows of diffs, and of the snapshot that they stand on. */
  const diffs = async () =>
    (await pipeline.health('collector'))?.received?.find(({ data_type }) => data_type === 'orderbook_update')?.received;

  interface Outbox {
    stream: string;
    spilledBytes: number;
    isFull: boolean;
    minutes_left: number | null;
  }

  const look = async () => {
    const { checks, metrics } = (await pipeline.health('collector'))! as HealthDocument & {
      metrics: { process_rss_bytes: number };
    };
    const { status, error_message, details } = checks.outbox!;
    const books = (details.streams as Outbox[]).find(({ stream }) => stream === 'ORDERBOOK_SNAP')!;
    const waiting = checks.broker!.details.waiting_bytes as number;
    return { status, error_message, paused: details.paused, ...books, waiting, rss: metrics.process_rss_bytes };
  };

  test('puts on disk what the broker does not take, stops reading its sockets at a bound, says so, and goes on where it stopped', async () => {
    await startCollector();
    broker('SIGSTOP');
    let most = 0;
    const more = () => {
      for (let i = 0; i < 100 && flood.socket!.bufferedAmount < 8 * MIB; i++) flood.diff(LEVELS);
    };
    // What is left is told by the rate of the last seconds: where nothing came for as long, there is none.
    let spilling = await look();
    await waitFor('the disk', READY_MS, async () => {
      more();
      spilling = await look();
      return spilling.spilledBytes > 20 * MIB && spilling.minutes_left !== null;
    });
    assert.deepEqual([spilling.status, spilling.paused], ['degraded', false]);
    assert.match(spilling.error_message!, /^ORDERBOOK_SNAP: \d+ bytes wait on disk, full in [\d.]+ minutes$/);
    await waitFor('the pause', READY_MS, async () => {
      more();
      const { paused, isFull, rss } = await look();
      most = Math.max(most, rss);
      return paused === true && isFull && flood.socket!.bufferedAmount >= 8 * MIB;
    });
    const full = await look();
    assert.deepEqual([full.status, full.isFull], ['unhealthy', true]);
    assert.match(full.error_message!, /sockets are paused$/);
    // What had come before the pause is read; then nothing is, and the venue's frames wait at the venue.
    await new Promise((done) => setTimeout(done, 500));
    const read = await diffs();
    for (let i = 0; i < 20; i++) {
      const { waiting, rss } = await look();
      most = Math.max(most, rss);
      assert.ok(waiting < OUTBOX_BYTES * 1.3, `${waiting} bytes wait`);
      await new Promise((done) => setTimeout(done, 50));
    }
    assert.ok(most < MEMORY_BYTES, `${most} bytes of memory`);
    assert.equal(await diffs(), read);
    assert.ok(read! < flood.sent, `${read} of ${flood.sent} are read`);
    broker('SIGCONT');
    await waitFor('the rest', READY_MS, async () => (await diffs()) === flood.sent + 1);
    await waitFor('the answers', READY_MS, async () => (await look()).waiting === 0);
    const { status, paused } = await look();
    assert.deepEqual([status, paused], ['healthy', false]);
    const { boot } = (await pipeline.health('collector')) as unknown as { boot: string };
    assert.equal(await published(boot), flood.sent + 1, 'the snapshot of the book, too');
  });

  test('a stop in the middle of the flow costs nothing of what was received, although the broker answers late', async () => {
    const more = setInterval(() => {
      for (let i = 0; i < 20; i++) flood.diff([['1', '1']]);
    }, 1);
    const before = await pipeline.received();
    await waitFor('the flow', READY_MS, async () => (await pipeline.received()) > before + 1000);
    broker('SIGSTOP');
    // More than may be in flight: a part of it has not even been sent.
    await waitFor('a queue', READY_MS, async () => {
      for (let i = 0; i < 50 && flood.socket!.bufferedAmount < MIB; i++) flood.diff(LEVELS);
      return (await look()).waiting > 24 * MIB;
    });
    const stopping = pipeline.stop('collector');
    await waitFor('the stop', READY_MS, async () => pipeline.events('collector', 'stopping').length > 0);
    await new Promise((done) => setTimeout(done, 1000));
    broker('SIGCONT');
    const exit = await stopping;
    clearInterval(more);
    assert.deepEqual([exit?.code, exit?.signal], [0, null], exit?.lastLine);
    const report = JSON.parse(readFileSync(join(pipeline.dir, 'state', 'collector-test.json'), 'utf8'));
    const rows = report.rows as { data_type: string; received: number }[];
    const diffs = rows.find(({ data_type }) => data_type === 'orderbook_update');
    assert.equal(await published(report.boot), diffs!.received);
  });
});
