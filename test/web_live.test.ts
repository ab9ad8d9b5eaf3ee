/** Live events over real sockets from a real broker: each row once to whoever wants it, and what is missing is said. */
import assert from 'node:assert/strict';
import { get as httpGet, type IncomingMessage } from 'node:http';
import { connect as connectSocket, type Socket } from 'node:net';
import { after, afterEach, before, describe, test } from 'node:test';
import type { NatsConnection } from 'nats';
import { type Config, loadConfig } from '../scripts/lib/config.ts';
import { createLogger } from '../scripts/lib/log.ts';
import { pause } from '../scripts/lib/pause.ts';
import { waitFor } from '../scripts/lib/processes.ts';
import { encodeRow, type OrderbookRow, type TradeRow } from '../scripts/lib/rows.ts';
import { subjectOf } from '../scripts/lib/streams.ts';
import { LiveHub } from '../scripts/lib/web/live_hub.ts';
import { LIVE_ROUTES } from '../scripts/lib/web/live_routes.ts';
import type { WebContext } from '../scripts/lib/web/route.ts';
import { type Served, serve } from '../scripts/lib/web/server.ts';
import { sampleTrade } from './fixtures.ts';
import { Pipeline, READY_MS } from './pipeline.ts';
import { Wire } from './wire.ts';

const LOG = createLogger('test', 'silent');
const pipeline = new Pipeline();
const stop = new AbortController();
let config: Config;
let context: WebContext;
let served: Served;
let nats: NatsConnection;

before(async () => {
  await pipeline.choosePorts();
  config = loadConfig(pipeline.env);
  // No query is asked of it: the database need not be there.
  context = { config, log: LOG, clock: Date.now, client: pipeline.client(), stop: stop.signal };
  served = await serve({ context, routes: LIVE_ROUTES, port: 0 });
});
after(async () => {
  await nats?.close();
  stop.abort();
  await served?.close();
  await pipeline.close();
});

const opened: { destroy(): unknown }[] = [];

interface LiveEvent {
  event: string;
  id: string | undefined;
  data: Record<string, unknown>;
}

/** What a browser's EventSource would make of the text. */
function eventsOf(text: string): LiveEvent[] {
  return text
    .split('\n\n')
    .slice(0, -1)
    .map((block) =>
      Object.fromEntries(
        block.split('\n').map((line) => [line.slice(0, line.indexOf(': ')), line.slice(line.indexOf(': ') + 2)]),
      ),
    )
    .filter(({ event }) => event !== undefined)
    .map(({ event, id, data }) => ({ event: event!, id, data: JSON.parse(data!) }));
}

/** Somebody who listens. */
class Reader {
  /** Events so far; what came after the last whole one waits. */
  readonly events: LiveEvent[] = [];
  first = '';
  private rest = '';
  private constructor(readonly answer: IncomingMessage) {
    answer.setEncoding('utf8').on('data', (part: string) => {
      if (this.events.length === 0) this.first += part;
      const text = this.rest + part;
      const whole = text.lastIndexOf('\n\n');
      const end = whole < 0 ? 0 : whole + 2;
      this.events.push(...eventsOf(text.slice(0, end)));
      this.rest = text.slice(end);
    });
    answer.on('error', () => undefined);
    opened.push(answer);
  }

  static open(query: string, url = served.url): Promise<Reader> {
    return new Promise((done, fail) => {
      const headers = { 'accept-encoding': 'gzip, br' };
      httpGet(`${url}/api/live${query}`, { agent: false, headers }, (answer) => done(new Reader(answer))).once(
        'error',
        fail,
      );
    });
  }

  of(...names: string[]): LiveEvent[] {
    return this.events.filter(({ event }) => names.includes(event));
  }

  async has(count: number, ...names: string[]): Promise<void> {
    await waitFor(`${count} of ${names.join(', ')}`, READY_MS, async () => this.of(...names).length >= count);
  }

  close(): void {
    this.answer.destroy();
  }
}

function publish(rows: TradeRow[]): void {
  const subject = subjectOf({ type: 'trade', ...rows[0]! });
  nats.publish(subject, rows.map((row) => encodeRow('trade', row)).join('\n'));
}

async function listening(count: number): Promise<void> {
  await waitFor(`${count} listeners`, READY_MS, async () => LiveHub.of(context).listening === count);
  await LiveHub.of(context).subscribed();
}

describe('live events', () => {
  // What a failed test left open is not to spoil the next one.
  afterEach(() => {
    for (const each of opened.splice(0)) each.destroy();
  });

  test('say that the broker is away, and go on by themselves once it is there', async () => {
    const reader = await Reader.open('?symbols=BTC-USDT&types=trade');
    assert.equal(reader.answer.headers['content-type'], 'text/event-stream; charset=utf-8');
    assert.equal(reader.answer.headers['content-encoding'], undefined);
    await waitFor('a broker that is away', READY_MS, async () => reader.of('broker').at(-1)?.data.state === 'away');
    assert.match(reader.first, /^retry: 2000\n\n/);
    await pipeline.startBroker();
    nats = await pipeline.nats();
    await waitFor('the broker', READY_MS, async () => reader.of('broker').at(-1)?.data.state === 'here');
    await reader.has(1, 'heartbeat');
    reader.close();
    await listening(0);
  });

  test('are the rows as they were published, of the symbols and types that are wanted, with one subscription for all', async () => {
    const [one, two, all] = await Promise.all(
      ['?symbols=BTC-USDT&types=trade', '?symbols=BTC-USDT,ETH-USDT', ''].map((query) => Reader.open(query)),
    );
    await listening(3);
    assert.deepEqual(LiveHub.of(context).subjects.sort(), ['orderbook.>', 'trade.>']);
    const trades = ['BTC-USDT', 'ETH-USDT', 'XRP-USDT'].map((symbol) =>
      [0, 1, 2].map((id) => sampleTrade(id, { symbol, price: '12345678901234567890.000000000000000001' })),
    );
    for (const rows of trades) publish(rows);
    const book: OrderbookRow = {
      ...sampleTrade(1, { symbol: 'ETH-USDT' }),
      ...{
        last_update_id: '18446744073709551615',
        best_bid_price: '1.10',
        best_bid_quantity: '2',
        best_ask_price: '3',
        best_ask_quantity: '4',
      },
      ...{ bids: [['1.10', '2']], asks: [['3', '4']], verified: 'verified' },
    };
    nats.publish(subjectOf({ type: 'orderbook', ...book }), encodeRow('orderbook', book));
    await Promise.all([one!.has(3, 'trade'), two!.has(7, 'trade', 'orderbook'), all!.has(10, 'trade', 'orderbook')]);
    // What is not wanted would have come by now.
    await nats.flush();
    const shown = (reader: Reader) => reader.of('trade').map(({ data }) => data);
    const rows = (index: number) => trades[index]!.map((row) => JSON.parse(encodeRow('trade', row)));
    assert.deepEqual(shown(one!), rows(0));
    assert.deepEqual(shown(two!), [...rows(0), ...rows(1)]);
    assert.deepEqual(shown(all!), [...rows(0), ...rows(1), ...rows(2)]);
    assert.deepEqual(one!.of('orderbook'), []);
    const { bids, asks, ...rest } = JSON.parse(encodeRow('orderbook', book));
    assert.deepEqual(
      two!.of('orderbook').map(({ data }) => data),
      [{ ...rest, last_update_id: '18446744073709551615' }],
    );
    const ids = all!.of('trade', 'orderbook').map(({ id }) => Number(id!.split('-')[1]));
    assert.deepEqual(
      ids,
      [...ids].sort((a, b) => a - b),
    );
    assert.equal(new Set(ids).size, 10);
    for (const each of [one, two, all]) each!.close();
    await listening(0);
    assert.deepEqual(LiveHub.of(context).subjects, []);
  });

  test('are counted where a slow reader has no room for them, and told him when he reads again; others miss nothing', async () => {
    const quick = await Reader.open('?types=trade&symbols=SLOW-USDT');
    const slow: Socket = connectSocket(served.port, '127.0.0.1');
    slow.write('GET /api/live?types=trade&symbols=SLOW-USDT HTTP/1.1\r\nHost: localhost\r\n\r\n');
    slow.pause();
    opened.push(slow);
    await listening(2);
    const COUNT = 60_000;
    let mostWaiting = 0;
    for (let id = 0; id < COUNT; id += 100) {
      publish(Array.from({ length: 100 }, (_, i) => sampleTrade(id + i, { symbol: 'SLOW-USDT' })));
      // No more than the room of one who reads: a trade is some 330 bytes.
      if (id % 1000 === 0) await quick.has(Math.max(id - 1000, 0), 'trade');
      mostWaiting = Math.max(mostWaiting, LiveHub.of(context).mostWaitingBytes);
    }
    await quick.has(COUNT, 'trade');
    assert.deepEqual(
      quick.of('trade').map(({ data }) => data.trade_id),
      Array.from({ length: COUNT }, (_, i) => String(i)),
    );
    assert.equal(quick.of('dropped').length, 0);
    assert.ok(mostWaiting > 500_000 && mostWaiting <= 1_048_576, `${mostWaiting} bytes waited for the slow one`);
    let text = '';
    slow.setEncoding('utf8').on('data', (part: string) => {
      text += part;
    });
    slow.resume();
    // Chunks of HTTP lie between; an event is on a line of its own all the same.
    const found = () => [...text.matchAll(/"trade_id":"(\d+)"/g)].map(([, id]) => Number(id));
    const dropped = () => [...text.matchAll(/event: dropped\ndata: (\{.*\})/g)].map(([, data]) => JSON.parse(data!));
    await waitFor('what was dropped', READY_MS, async () => dropped().length > 0);
    publish([sampleTrade(COUNT, { symbol: 'SLOW-USDT' })]);
    await waitFor('the next one', READY_MS, async () => found().includes(COUNT));
    const [told, ...more] = dropped() as [{ count: number; by_type: object }, ...unknown[]];
    assert.deepEqual(more, []);
    // A chunk of HTTP may cut one in two, which is found no more.
    const ids = found();
    assert.equal(told.count > 0, true);
    assert.deepEqual(told.by_type, { trade: told.count });
    assert.equal(
      Math.abs(ids.length - 1 + told.count - COUNT) < 100,
      true,
      `${ids.length} and ${told.count} of ${COUNT}`,
    );
    assert.deepEqual(
      ids,
      [...new Set(ids)].sort((a, b) => a - b),
    );
    slow.destroy();
    quick.close();
    await listening(0);
  });

  test('go on after a broker that was killed and came back, which they say', async () => {
    const reader = await Reader.open('?types=trade&symbols=BACK-USDT');
    await listening(1);
    await nats.close();
    await pipeline.kill('nats-server');
    await pipeline.brokerReady();
    nats = await pipeline.nats();
    await waitFor(
      'the broker once more',
      READY_MS,
      async () =>
        reader
          .of('broker')
          .map(({ data }) => data.state)
          .join() === 'here,away,here',
    );
    await LiveHub.of(context).subscribed();
    publish([sampleTrade(1, { symbol: 'BACK-USDT' })]);
    await reader.has(1, 'trade');
    reader.close();
    await listening(0);
  });

  test('refuse what is wrong, by its name', async () => {
    for (const [query, field] of [
      ['types=quote', 'types'],
      ['types=orderbook_update', 'types'],
      ['symbols=a,,b', 'symbols'],
      ['since=5', 'since'],
    ]) {
      const answer = await fetch(`${served.url}/api/live?${query}`);
      assert.deepEqual([answer.status, ((await answer.json()) as { field: string }).field], [400, field]);
    }
  });

  test('end when the service stops, and say so', async () => {
    const own = new AbortController();
    const other: WebContext = { ...context, stop: own.signal };
    const ending = await serve({ context: other, routes: LIVE_ROUTES, port: 0 });
    const reader = await Reader.open('?types=trade&symbols=END-USDT', ending.url);
    await reader.has(1, 'broker');
    const over = new Promise((done) => reader.answer.once('end', done));
    own.abort();
    await over;
    await ending.close();
    assert.equal(reader.events.at(-1)!.event, 'end');
    assert.equal(LiveHub.of(other).listening, 0);
  });

  test('leave a broker alone that went when the service had just found it, once the service stops', async () => {
    const wire = new Wire(pipeline.ports.nats);
    wire.most = 1;
    const own = new AbortController();
    const config = { ...context.config, natsUrl: `nats://${await wire.listen()}` };
    const ending = await serve({ context: { ...context, config, stop: own.signal }, routes: LIVE_ROUTES, port: 0 });
    const reader = await Reader.open('?types=trade&symbols=GONE-USDT', ending.url);
    await waitFor('the broker', READY_MS, async () => reader.of('broker').at(-1)?.data.state === 'here');
    wire.cut();
    await waitFor('a second attempt', READY_MS, async () => wire.attempts > 1);
    own.abort();
    await ending.close();
    // Longer than between two attempts.
    await pause(1500);
    const before = wire.attempts;
    await pause(1500);
    assert.equal(wire.attempts, before);
    await wire.close();
  });
});
