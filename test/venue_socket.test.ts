/** One exchange of the collector against a WebSocket and HTTP server that do what venues do on bad days. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { type WebSocket, WebSocketServer } from 'ws';
import { binanceSpot } from '../scripts/exchanges/binance.ts';
import { Batcher } from '../scripts/lib/batcher.ts';
import { loadConfig } from '../scripts/lib/config.ts';
import type { ExchangeModule } from '../scripts/lib/exchange.ts';
import { ExchangeRunner } from '../scripts/lib/exchange_runner.ts';
import { createLogger } from '../scripts/lib/log.ts';
import { waitFor } from '../scripts/lib/processes.ts';
import { steadyNow } from '../scripts/lib/steady.ts';
import { VenueSocket } from '../scripts/lib/venue_socket.ts';

const log = createLogger('test', 'fatal');
const LIMIT_MS = 30_000;
const CHANNELS = ['btcusdt@trade', 'btcusdt@depth@100ms'];

interface Request {
  method: string;
  params?: string[];
  id: number;
}

/** A venue on loopback; each test says how it behaves. */
class Venue {
  /** Control messages, by connection. */
  readonly connections: { socket: WebSocket; requests: Request[]; at: number }[] = [];
  readonly rest: { path: string; at: number }[] = [];
  answer: (request: Request, connection: number) => object | null = (request) =>
    request.method === 'LIST_SUBSCRIPTIONS' ? { result: CHANNELS, id: request.id } : { result: null, id: request.id };
  onConnect: (socket: WebSocket) => void = () => undefined;
  onRest: (answer: ServerResponse, count: number) => void = (answer) => answer.writeHead(500).end();
  private readonly http = createServer((incoming: IncomingMessage, answer: ServerResponse) => {
    this.rest.push({ path: incoming.url!, at: performance.now() });
    this.onRest(answer, this.rest.length);
  });
  private readonly sockets = new WebSocketServer({ noServer: true });
  /** HTTP status in place of an opening; when it was given. */
  refuseWith: number | null = null;
  readonly refusedAt: number[] = [];
  directory = mkdtempSync(join(tmpdir(), 'marketprism-venue-'));

  async listen(): Promise<void> {
    await new Promise<void>((done) => this.http.listen(0, '127.0.0.1', done));
    this.http.on('upgrade', (request, transport, head) => {
      if (this.refuseWith === null) {
        this.sockets.handleUpgrade(request, transport, head, (socket) => this.sockets.emit('connection', socket));
        return;
      }
      this.refusedAt.push(performance.now());
      transport.end(`HTTP/1.1 ${this.refuseWith} Refused\r\nconnection: close\r\ncontent-length: 0\r\n\r\n`);
    });
    this.sockets.on('connection', (socket) => {
      const index = this.connections.length;
      const connection = { socket, requests: [] as Request[], at: performance.now() };
      this.connections.push(connection);
      socket.on('message', (data) => {
        const request = JSON.parse(data.toString()) as Request;
        connection.requests.push(request);
        const answer = this.answer(request, index);
        if (answer !== null) socket.send(JSON.stringify(answer));
      });
      this.onConnect(socket);
    });
  }

  get host(): string {
    return `127.0.0.1:${(this.http.address() as { port: number }).port}`;
  }

  trade(id: number, connection = this.connections.length - 1): void {
    const data = {
      e: 'trade',
      E: 1795000000000,
      s: 'BTCUSDT',
      t: id,
      p: '1.5',
      q: '2',
      T: 1795000000000 + id,
      m: true,
    };
    this.connections[connection]!.socket.send(JSON.stringify({ stream: CHANNELS[0], data }));
  }

  diff(first: number, last: number, connection = this.connections.length - 1): void {
    const data = {
      e: 'depthUpdate',
      E: 1795000000000 + last,
      s: 'BTCUSDT',
      U: first,
      u: last,
      b: [['99', '1']],
      a: [],
    };
    this.connections[connection]!.socket.send(JSON.stringify({ stream: CHANNELS[1], data }));
  }

  async close(): Promise<void> {
    for (const { socket } of this.connections) socket.terminate();
    this.http.closeAllConnections();
    await new Promise((done) => this.http.close(done));
    rmSync(this.directory, { recursive: true, force: true });
  }
}

interface Stage {
  venue: Venue;
  /** Starts the exchange on the venue; rows come out as their ids. */
  start(
    change?: Partial<ExchangeModule>,
    environment?: NodeJS.ProcessEnv,
  ): Promise<{ runner: ExchangeRunner; rows: string[] }>;
  /** Waits until a connection has had its control messages. */
  subscribed(connection: number): Promise<void>;
}

/** Each test has a venue of its own, so that they can wait side by side. */
async function onStage(work: (stage: Stage) => Promise<void>): Promise<void> {
  const venue = new Venue();
  await venue.listen();
  const runners: ExchangeRunner[] = [];
  const start: Stage['start'] = async (change = {}, environment = {}) => {
    const file = join(venue.directory, 'endpoints.json');
    writeFileSync(file, JSON.stringify({ binance_spot: { ws: `ws://${venue.host}`, rest: `http://${venue.host}` } }));
    const config = loadConfig({
      MARKETPRISM_ENDPOINTS: file,
      MARKETPRISM_SYMBOLS: 'BTC-USDT',
      MARKETPRISM_DATA_DIR: venue.directory,
      ...environment,
    });
    const rows: string[] = [];
    const batcher = new Batcher(({ payload }) => {
      for (const line of Buffer.from(payload).toString().split('\n')) {
        const { trade_id, last_update_id, is_snapshot } = JSON.parse(line);
        rows.push(trade_id ?? `${last_update_id}${is_snapshot ? ' snapshot' : ''}`);
      }
    });
    const module = { ...binanceSpot, messagesPerSecond: 1000, connectsPerSecond: 1000, ...change };
    const hooks = { bookFrame: () => undefined, request: () => undefined };
    const runner = new ExchangeRunner(
      module,
      config,
      { batcher, rowsWait: () => batcher.flush(), lastRows: async () => [], isFollowedByOthers: async () => false },
      hooks,
      log,
    );
    runners.push(runner);
    await waitFor('a connection', LIMIT_MS, async () => venue.connections.length + venue.refusedAt.length > 0);
    return { runner, rows };
  };
  const subscribed = (connection: number) =>
    waitFor('the control messages', LIMIT_MS, async () => venue.connections[connection]?.requests.length === 2);
  try {
    await work({ venue, start, subscribed });
  } finally {
    for (const runner of runners) runner.stop();
    await venue.close();
  }
}

describe('one exchange of the collector', { concurrency: true }, () => {
  test('asks for its channels on every connection anew, and comes back after waits that grow', () =>
    onStage(async ({ venue, start, subscribed }) => {
      await start();
      await subscribed(0);
      for (const index of [0, 1]) {
        venue.connections[index]!.socket.terminate();
        await subscribed(index + 1);
      }
      for (const { requests } of venue.connections) {
        assert.deepEqual(
          requests.map(({ method, params }) => [method, params]),
          [
            ['SUBSCRIBE', CHANNELS],
            ['LIST_SUBSCRIPTIONS', undefined],
          ],
        );
      }
      const ids = venue.connections.flatMap(({ requests }) => requests.map(({ id }) => id));
      assert.equal(new Set(ids).size, 6, 'no id is used twice: a late answer must not count for another question');
      const [first, second] = [1, 2].map((i) => venue.connections[i]!.at - venue.connections[i - 1]!.at);
      assert.ok(first! >= 490 && second! >= 990, `waits of at least half of 1 s and 2 s, not ${first} and ${second}`);
    }));

  test('spreads the waits of its sockets by chance, between half and the whole', () =>
    onStage(async ({ venue }) => {
      const waits: number[] = [];
      const telling = Object.assign(Object.create(log), {
        info: (fields: { wait_ms?: number }) => fields.wait_ms !== undefined && waits.push(fields.wait_ms),
      });
      let lost = 0;
      for (const random of [0, 0.999]) {
        const connections = venue.connections.length;
        const socket = new VenueSocket({
          module: binanceSpot,
          host: `ws://${venue.host}`,
          connection: { path: '/stream', channels: [] },
          log: telling,
          random: () => random,
          openingWait: () => 0,
          blockedRetryMs: 1000,
          createProbe: () => binanceSpot.createFeed({ instruments: [], dataSource: 'test', orderbookIntervalMs: 0 }),
          onFrame: () => undefined,
          onLost: () => {
            lost += 1;
          },
        });
        await waitFor('a connection', LIMIT_MS, async () => venue.connections.length > connections);
        await waitFor('the opening', LIMIT_MS, async () => socket.state.connected);
        venue.connections[connections]!.socket.terminate();
        await waitFor('the loss', LIMIT_MS, async () => !socket.state.connected);
        socket.stop();
      }
      assert.deepEqual([waits, lost], [[500, 1000], 2]);
    }));

  test('gives up a socket that is open and silent, and takes any frame or ping as a sign of life', () =>
    onStage(async ({ venue, start, subscribed }) => {
      const { runner, rows } = await start({ silenceLimitMs: 3000 });
      await subscribed(0);
      // Longer than the limit with frames alone, then with pings alone; in all longer than an answer may take.
      for (let i = 0; i < 17; i++) {
        if (i < 6) venue.trade(i);
        else venue.connections[0]!.socket.ping();
        await new Promise((done) => setTimeout(done, 650));
      }
      assert.equal(venue.connections.length, 1);
      await waitFor('a new connection', LIMIT_MS, async () => venue.connections.length === 2);
      assert.match(runner.sockets[0]!.state.lastError!, /^silent for \d+ s$/);
      await subscribed(1);
      venue.trade(9);
      await waitFor('the row', LIMIT_MS, async () => rows.includes('9'));
      assert.deepEqual(rows, ['0', '1', '2', '3', '4', '5', '9']);
    }));

  test('reports channels that the venue does not list as granted', () =>
    onStage(async ({ venue, start }) => {
      venue.answer = ({ method, id }) => ({ result: method === 'SUBSCRIBE' ? null : [CHANNELS[0]], id });
      const { runner } = await start();
      await waitFor('the list', LIMIT_MS, async () => runner.sockets[0]!.state.missing.length > 0);
      assert.deepEqual(runner.sockets[0]!.state.missing, [CHANNELS[1]]);
      assert.equal(runner.check().error_message, `not granted: ${CHANNELS[1]}`);
    }));

  test('gives up a socket on which a control message stays without an answer', () =>
    onStage(async ({ venue, start, subscribed }) => {
      venue.answer = ({ method, id }, connection) =>
        connection === 0 ? null : { result: method === 'SUBSCRIBE' ? null : CHANNELS, id };
      const { runner } = await start();
      await subscribed(0);
      const alive = setInterval(() => venue.connections.length === 1 && venue.trade(1, 0), 100);
      try {
        await waitFor('a new connection', LIMIT_MS, async () => venue.connections.length === 2);
      } finally {
        clearInterval(alive);
      }
      assert.match(runner.sockets[0]!.state.lastError!, /^control message \d+ was not answered$/);
    }));

  test('reads nothing while paused, does not take that for silence, and has every frame afterwards', () =>
    onStage(async ({ venue, start, subscribed }) => {
      const { runner, rows } = await start({ silenceLimitMs: 1500 });
      await subscribed(0);
      venue.trade(0);
      await waitFor('the row', LIMIT_MS, async () => rows.length === 1);
      runner.pause();
      for (let id = 1; id <= 500; id++) venue.trade(id);
      await new Promise((done) => setTimeout(done, 4000));
      assert.ok(rows.length < 10, `${rows.length} rows while paused`);
      assert.equal(venue.connections.length, 1);
      runner.resume();
      await waitFor('all rows', LIMIT_MS, async () => rows.length === 501);
      assert.equal(venue.connections.length, 1);
    }));

  test('a stream without fresh rows is stale by its age, and named', () =>
    onStage(async ({ venue, start, subscribed }) => {
      const { runner, rows } = await start();
      await subscribed(0);
      venue.trade(1);
      await waitFor('the row', LIMIT_MS, async () => rows.length === 1);
      const check = runner.check();
      assert.equal(check.status, 'unhealthy');
      assert.match(
        check.error_message!,
        /^2 of 3 streams have no fresh row: orderbook BTC-USDT, orderbook_update BTC-USDT$/,
      );
      assert.match(
        runner.check(steadyNow() + 61_000).error_message!,
        /^3 of 3 streams have no fresh row: trade BTC-USDT, /,
      );
    }));

  test('a clock that is set makes no stream stale; the times that are told follow it', (context) =>
    onStage(async ({ venue, start, subscribed }) => {
      const { runner, rows } = await start();
      await subscribed(0);
      venue.trade(1);
      await waitFor('the row', LIMIT_MS, async () => rows.length === 1);
      for (const now of [Date.now() + 150_000, Date.now() - 150_000]) {
        context.mock.timers.enable({ apis: ['Date'], now });
        const { status, age_seconds, last_success_ts } = runner.coverage().find(({ type }) => type === 'trade')!;
        assert.equal(status, 'healthy');
        assert.ok(age_seconds! >= 0, `${age_seconds} s`);
        assert.ok(Math.abs(now - age_seconds! * 1000 - last_success_ts!) < 1000);
        assert.ok(Math.abs(runner.sockets[0]!.state.lastInboundAt - last_success_ts!) < 1000);
        context.mock.timers.reset();
      }
    }));

  test('a snapshot that fails is asked for again after waits that grow, and one that is too old soon', () =>
    onStage(async ({ venue, start, subscribed }) => {
      venue.onRest = (answer, count) => {
        if (count <= 3) answer.writeHead(502).end('bad gateway');
        else
          answer.end(JSON.stringify({ lastUpdateId: count === 4 ? 5 : 15, bids: [['98', '1']], asks: [['101', '1']] }));
      };
      const { rows } = await start();
      await subscribed(0);
      venue.diff(11, 20);
      await waitFor('the book', LIMIT_MS, async () => rows.includes('15 snapshot'));
      assert.equal(venue.rest.length, 5);
      const gaps = venue.rest.slice(1).map(({ at }, index) => at - venue.rest[index]!.at);
      for (const [index, least] of [490, 990, 1990].entries()) assert.ok(gaps[index]! >= least, `${gaps}`);
    }));

  test('a lost connection drops the books of its channels: no diff is applied across the hole', () =>
    onStage(async ({ venue, start, subscribed }) => {
      venue.onRest = (answer, count) =>
        answer.end(JSON.stringify({ lastUpdateId: count === 1 ? 15 : 25, bids: [['98', '1']], asks: [['101', '1']] }));
      const { runner, rows } = await start();
      await subscribed(0);
      venue.diff(11, 20);
      await waitFor('the book', LIMIT_MS, async () => rows.includes('15 snapshot'));
      venue.connections[0]!.socket.terminate();
      await subscribed(1);
      venue.diff(21, 30);
      await waitFor('the new book', LIMIT_MS, async () => rows.includes('25 snapshot'));
      assert.deepEqual(
        [...runner.eventCounts()].filter(({ kind }) => kind === 'resync'),
        [{ kind: 'resync', reason: 'disconnect', count: 1 }],
      );
    }));

  test('an old connection is followed by a new one before it is closed: no frame is missed, no book is dropped', () =>
    onStage(async ({ venue, start, subscribed }) => {
      venue.onRest = (answer) =>
        answer.end(JSON.stringify({ lastUpdateId: 15, bids: [['98', '1']], asks: [['101', '1']] }));
      const { runner, rows } = await start({ socketLifeMs: 4000 });
      await subscribed(0);
      venue.diff(11, 20);
      await waitFor('the book', LIMIT_MS, async () => rows.includes('15 snapshot'));
      // One stream of trades and diffs, on every connection that is open.
      let last = 20;
      const feeding = setInterval(() => {
        const open = venue.connections.flatMap(({ socket, requests }, index) =>
          socket.readyState === 1 && requests.length === 2 ? [index] : [],
        );
        for (const index of open) {
          venue.trade(last, index);
          venue.diff(last + 1, last + 1, index);
        }
        last += 1;
      }, 20);
      try {
        await waitFor('two renewals', LIMIT_MS, async () => runner.sockets[0]!.state.renewals >= 2);
      } finally {
        clearInterval(feeding);
      }
      await waitFor('the last frame', LIMIT_MS, async () => rows.includes(String(last)));
      const seen = new Set(rows);
      for (let id = 21; id <= last; id++) assert.ok(seen.has(String(id)), `${id} of ${last}`);
      const state = runner.sockets[0]!.state;
      assert.equal(state.reconnects, 0);
      assert.equal([...runner.eventCounts()].filter(({ kind }) => kind === 'resync').length, 0);
      await waitFor(
        'the old ones to be closed',
        LIMIT_MS,
        async () => venue.connections.filter(({ socket }) => socket.readyState === 1).length <= 2,
      );
    }));

  test('a new connection that is not served is given up; the old one stays and goes on', () =>
    onStage(async ({ venue, start, subscribed }) => {
      venue.answer = ({ method, id }, connection) =>
        connection === 1 ? null : { result: method === 'SUBSCRIBE' ? null : CHANNELS, id };
      const { runner, rows } = await start();
      await subscribed(0);
      await waitFor('the grants', LIMIT_MS, async () => runner.sockets[0]!.state.missing.length === 0);
      runner.sockets[0]!.renew('test');
      await subscribed(1);
      venue.trade(1, 1);
      const alive = setInterval(() => venue.trade(2, 0), 100);
      try {
        await waitFor('the end of the new one', LIMIT_MS, async () => venue.connections[1]!.socket.readyState === 3);
      } finally {
        clearInterval(alive);
      }
      assert.match(
        runner.sockets[0]!.state.lastError!,
        /^the new connection ended: control message \d+ was not answered$/,
      );
      assert.deepEqual([runner.sockets[0]!.state.connected, runner.sockets[0]!.state.reconnects], [true, 0]);
      venue.trade(3, 0);
      await waitFor('the row', LIMIT_MS, async () => rows.includes('3'));
      assert.ok(!rows.includes('1'), 'what only the new one sent was not taken');
    }));

  test('when the old connection ends first, the new one takes over with all that it has sent', () =>
    onStage(async ({ venue, start, subscribed }) => {
      const { runner, rows } = await start();
      await subscribed(0);
      venue.trade(1, 0);
      await waitFor('the row', LIMIT_MS, async () => rows.includes('1'));
      runner.sockets[0]!.renew('test');
      await subscribed(1);
      venue.trade(2, 1);
      venue.connections[0]!.socket.terminate();
      venue.trade(3, 1);
      await waitFor('the rows', LIMIT_MS, async () => rows.includes('3'));
      assert.deepEqual([...new Set(rows)], ['1', '2', '3']);
      assert.equal(venue.connections.length, 2, 'no third connection was opened');
    }));

  test('a host that refuses the region is blocked in the coverage, and asked again only after the set time', () =>
    onStage(async ({ venue, start }) => {
      venue.refuseWith = 451;
      const { runner } = await start({}, { MARKETPRISM_BLOCKED_RETRY: '3s' });
      await waitFor('the block', LIMIT_MS, async () => runner.sockets[0]?.state.blocked === true);
      assert.deepEqual(
        runner.coverage().map(({ type, status }) => `${type} ${status}`),
        ['trade blocked', 'orderbook blocked', 'orderbook_update blocked'],
      );
      assert.equal(runner.check().status, 'unhealthy');
      await waitFor('the second attempt', LIMIT_MS, async () => venue.refusedAt.length === 2);
      const [first, second] = venue.refusedAt;
      assert.ok(second! - first! >= 2990, `${second! - first!} ms`);
      venue.refuseWith = null;
      await waitFor('a connection', LIMIT_MS, async () => runner.sockets[0]!.state.connected);
      assert.equal(runner.sockets[0]!.state.blocked, false);
    }));

  test('connections are opened one after the other, as many in a time as the venue allows', () =>
    onStage(async ({ venue, start }) => {
      const begun = performance.now();
      await start({
        connectsPerSecond: 2,
        connections: (instruments) =>
          Array.from({ length: 6 }, () => ({
            path: '/stream',
            channels: binanceSpot.connections(instruments)[0]!.channels,
          })),
      });
      await waitFor('all', LIMIT_MS, async () => venue.connections.length === 6);
      const times = venue.connections.map(({ at }) => at).sort((a, b) => a - b);
      // Three at once, then one each half second. Each may come late on a busy machine, and none early.
      assert.ok(times[5]! - begun >= 1490 && times[5]! - times[2]! >= 1000, `${begun}: ${times}`);
    }));

  test('subscriptions are renewed as often as the venue allows; after that by a new connection', () =>
    onStage(async ({ venue, start, subscribed }) => {
      const { runner } = await start({
        subscribesPerHour: 6,
        unsubscribe: (channels, firstId) => [
          {
            id: firstId,
            text: JSON.stringify({ method: 'UNSUBSCRIBE', params: channels.map((each) => each.name), id: firstId }),
          },
        ],
      });
      await subscribed(0);
      await waitFor('the grants', LIMIT_MS, async () => runner.sockets[0]!.state.missing.length === 0);
      for (let i = 0; i < 2; i++) runner.event({ kind: 'resubscribe', channels: [CHANNELS[0]!] });
      await waitFor('four messages', LIMIT_MS, async () => venue.connections[0]!.requests.length === 6);
      const said = venue.connections[0]!.requests.slice(2).map(({ method, params }) => `${method} ${params}`);
      const pair = [`UNSUBSCRIBE ${CHANNELS[0]}`, `SUBSCRIBE ${CHANNELS[0]}`];
      assert.deepEqual(said, [...pair, ...pair]);
      runner.event({ kind: 'resubscribe', channels: [CHANNELS[0]!] });
      await subscribed(1);
      assert.equal(venue.connections[0]!.requests.length, 6);
    }));
});
