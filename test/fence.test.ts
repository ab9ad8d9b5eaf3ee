/** An insert outlives the client that sent it: on the network, in the server's queue, in its reading of the body. */
import assert from 'node:assert/strict';
import { createServer, type IncomingMessage, request, type ServerResponse } from 'node:http';
import { after, before, describe, test } from 'node:test';
import { headers, type NatsConnection } from 'nats';
import { freePort } from '../scripts/lib/free_port.ts';
import { waitFor } from '../scripts/lib/processes.ts';
import { encodeRow } from '../scripts/lib/rows.ts';
import { sampleTrade } from './fixtures.ts';
import { Pipeline, READY_MS } from './pipeline.ts';

/** With the fence nothing can be seen to happen, so this is how long nothing must happen. */
const STILL_MS = 3500;

const trade = (id: number) => encodeRow('trade', sampleTrade(id));

/** Forwards to the database. One insert can be held: the server has its head and half of its body, the client is cut off. */
class SlowLink {
  /** Told once the next insert is held. */
  onHeld: (() => void) | null = null;
  inserts = 0;
  release: () => void = () => undefined;
  private readonly server = createServer((incoming, answer) => this.handle(incoming, answer));

  constructor(private readonly target: string) {}

  listen(port: number): Promise<void> {
    return new Promise((done) => this.server.listen(port, '127.0.0.1', done));
  }

  async close(): Promise<void> {
    this.release();
    this.server.closeAllConnections();
    await new Promise((done) => this.server.close(done));
  }

  private handle(incoming: IncomingMessage, answer: ServerResponse): void {
    const chunks: Buffer[] = [];
    incoming.on('data', (chunk: Buffer) => chunks.push(chunk));
    incoming.on('end', () => {
      const body = Buffer.concat(chunks);
      const headers: IncomingMessage['headers'] = { ...incoming.headers, 'content-length': String(body.length) };
      delete headers['transfer-encoding'];
      const outgoing = request(`${this.target}${incoming.url}`, { method: incoming.method, headers });
      outgoing.on('error', () => incoming.socket.destroy());
      const sql = `${new URL(incoming.url!, 'http://x').searchParams.get('query') ?? ''}${body.subarray(0, 400)}`;
      const insert = /^\s*INSERT INTO \S+\.trades/.test(sql);
      if (insert) this.inserts += 1;
      if (!insert || this.onHeld === null) {
        outgoing.on('response', (response) => {
          answer.writeHead(response.statusCode!, response.headers);
          response.pipe(answer);
        });
        outgoing.end(body);
        return;
      }
      const told = this.onHeld;
      this.onHeld = null;
      outgoing.on('response', (response) => response.resume());
      this.release = () => outgoing.end(body.subarray(body.length >> 1));
      outgoing.write(body.subarray(0, body.length >> 1), () => {
        incoming.socket.destroy();
        told();
      });
    });
  }
}

describe('an insert that ends after its client was cut off', () => {
  /** Taken by a store when it starts. */
  const extra: NodeJS.ProcessEnv = {};
  const pipeline = new Pipeline(extra);
  let link: SlowLink;
  let linkPort: number;
  let nats: NatsConnection;

  before(async () => {
    await pipeline.choosePorts();
    await pipeline.startBroker();
    await pipeline.startDatabase();
    link = new SlowLink(pipeline.env.CLICKHOUSE_URL!);
    linkPort = await freePort();
    await link.listen(linkPort);
    await startStore();
    nats = await pipeline.nats();
  });
  after(async () => {
    await nats?.close();
    await link?.close();
    await pipeline.close();
  });

  /** The store alone goes through the link; the test asks the database itself. */
  async function startStore(): Promise<void> {
    const database = pipeline.ports.clickhouse;
    pipeline.ports.clickhouse = linkPort;
    await pipeline.startStore();
    pipeline.ports.clickhouse = database;
  }

  async function publish(from: number): Promise<void> {
    const head = headers();
    head.set('Mp-Mode', 'live');
    const lines = Array.from({ length: 200 }, (_, i) => trade(from + i));
    await nats.jetstream().publish('trade.binance_spot.spot.BTC-USDT', lines.join('\n'), { headers: head });
  }

  async function count(from: number): Promise<number[]> {
    const where = `toUInt64(trade_id) BETWEEN ${from} AND ${from + 199}`;
    const [row] = await pipeline.query(
      `SELECT count(), uniqExact(trade_id) FROM marketprism_hot.trades WHERE ${where}`,
    );
    return row!.map(Number);
  }

  async function proveOnce(from: number): Promise<void> {
    assert.deepEqual(await count(from), [200, 200]);
  }

  /** Lets the held insert go once the store has gone on without waiting, or after a time in which it should not. */
  async function releaseLate(inserts: number, from: number): Promise<void> {
    const until = Date.now() + STILL_MS;
    await waitFor('the wait', READY_MS, async () => link.inserts > inserts || Date.now() > until);
    assert.deepEqual(
      [link.inserts, await count(from)],
      [inserts, [0, 0]],
      'no second insert while the first may happen',
    );
    link.release();
  }

  test('is waited for, so that its rows are seen and not inserted again', async () => {
    const held = new Promise<void>((done) => {
      link.onHeld = done;
    });
    await publish(1000);
    await held;
    await releaseLate(1, 1000);
    await pipeline.drained();
    await proveOnce(1000);
  });

  test('is waited for by the next store, too, when the one that sent it was killed', async () => {
    const before = link.inserts;
    const held = new Promise<void>((done) => {
      link.onHeld = done;
    });
    await publish(2000);
    await held;
    await pipeline.kill('store');
    await releaseLate(before + 1, 2000);
    await pipeline.drained();
    await proveOnce(2000);
  });

  for (const [killed, from] of [
    [false, 3000],
    [true, 4000],
  ] as const) {
    const when = killed ? 'when the store that sent it was killed' : 'when its answer was lost';
    test(`negative control: not waited for ${when}, it doubles rows, and the proof says so`, async () => {
      await pipeline.stop('store');
      extra.MARKETPRISM_WITHOUT = 'fence';
      await startStore();
      const held = new Promise<void>((done) => {
        link.onHeld = done;
      });
      await publish(from);
      await held;
      if (killed) await pipeline.kill('store');
      await pipeline.drained();
      await proveOnce(from);
      link.release();
      await waitFor('the late insert', READY_MS, async () => (await count(from))[0]! > 200);
      await assert.rejects(proveOnce(from), assert.AssertionError);
      assert.deepEqual(await count(from), [400, 200]);
    });
  }
});
