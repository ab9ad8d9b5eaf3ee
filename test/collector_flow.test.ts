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
import { Pipeline, READY_MS } from './pipeline.ts';

const MIB = 2 ** 20;
/** Levels that make a diff large, so that few frames make many bytes. */
const LEVELS = Array.from({ length: 4000 }, (_, i) => [`${(50_000 - i / 10).toFixed(2)}`, '1.00000000']);

/** A venue that sends diffs as fast as they are read. */
class Flood {
  private readonly http = createServer((_, answer) => answer.writeHead(500).end());
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

  const checkOfBroker = async () => {
    const { broker } = (await pipeline.health('collector'))!.checks;
    return { status: broker!.status, waiting: broker!.details.waiting_bytes as number };
  };

  test('stops reading its sockets at a bound, says so, and goes on where it stopped', async () => {
    await startCollector();
    broker('SIGSTOP');
    // Far more than the bound, and than what the sockets between us hold.
    let most = 0;
    await waitFor('the pause', READY_MS, async () => {
      for (let i = 0; i < 100 && flood.socket!.bufferedAmount < 8 * MIB; i++) flood.diff(LEVELS);
      const { status, waiting } = await checkOfBroker();
      most = Math.max(most, waiting);
      return status === 'unhealthy' && flood.socket!.bufferedAmount >= 8 * MIB;
    });
    for (let i = 0; i < 20; i++) {
      most = Math.max(most, (await checkOfBroker()).waiting);
      await new Promise((done) => setTimeout(done, 50));
    }
    assert.ok(most > 60 * MIB && most < 100 * MIB, `${most} bytes wait`);
    assert.ok(flood.socket!.bufferedAmount >= 8 * MIB, 'the venue’s frames wait at the venue');
    broker('SIGCONT');
    await waitFor('the rest', READY_MS, async () => (await pipeline.received()) === flood.sent);
    await waitFor('the answers', READY_MS, async () => (await checkOfBroker()).waiting === 0);
    assert.equal((await checkOfBroker()).status, 'healthy');
    const { boot } = (await pipeline.health('collector')) as unknown as { boot: string };
    assert.equal(await published(boot), flood.sent);
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
      return (await checkOfBroker()).waiting > 24 * MIB;
    });
    const stopping = pipeline.stop('collector');
    await waitFor('the stop', READY_MS, async () => pipeline.events('collector', 'stopping').length > 0);
    await new Promise((done) => setTimeout(done, 1000));
    broker('SIGCONT');
    const exit = await stopping;
    clearInterval(more);
    assert.deepEqual([exit?.code, exit?.signal], [0, null], exit?.lastLine);
    const report = JSON.parse(readFileSync(join(pipeline.dir, 'state', 'collector-test.json'), 'utf8'));
    const [diffs] = report.rows as { data_type: string; received: number }[];
    assert.equal(diffs!.data_type, 'orderbook_update');
    assert.equal(await published(report.boot), diffs!.received);
  });
});
