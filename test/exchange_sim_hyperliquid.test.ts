/** The simulated Hyperliquid as its clients see it: real sockets, the venue's own rules, and a ledger that must agree. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, afterEach, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { WebSocket } from 'ws';
import type { Simulator } from '../scripts/exchange_sim.ts';
import { hyperliquid } from '../scripts/exchanges/hyperliquid.ts';
import { gridOf } from '../scripts/lib/sim/hyperliquid_coin.ts';
import { InfoDesk } from '../scripts/lib/sim/hyperliquid_rest.ts';
import type { SimulatorOptions } from '../scripts/lib/sim/options.ts';
import { feedHarness } from './feed_harness.ts';
import { missing, readSession, SHARED } from './fixtures.ts';
import { assertSame, start as startAny, until } from './sim_client.ts';

const RECORDED = join(SHARED, 'hftbacktest', 'hyperliquid', 'btcusd_20250126.gz');
const EXCHANGE = 'hyperliquid';
const scratch = mkdtempSync(join(tmpdir(), 'exchange-sim-hyperliquid-'));
after(() => rmSync(scratch, { recursive: true }));

interface Trade {
  coin: string;
  side: 'A' | 'B';
  px: string;
  sz: string;
  time: number;
  hash: string;
  tid: number;
  users: [string, string];
}
interface Level {
  px: string;
  sz: string;
  n: number;
}
interface Book {
  coin: string;
  time: number;
  levels: [Level[], Level[]];
  fast?: boolean;
}
interface Best {
  coin: string;
  time: number;
  bbo: [Level, Level];
}
type Context = Record<'funding' | 'openInterest' | 'oraclePx' | 'markPx' | 'midPx' | 'premium' | 'prevDayPx', string>;

const start = (options: SimulatorOptions = {}): Promise<Simulator> => startAny({ exchanges: [EXCHANGE], ...options });

const clients: Client[] = [];
afterEach(() => {
  for (const { socket } of clients.splice(0)) socket.terminate();
});

/** A socket that keeps what it got. */
class Client {
  readonly texts: string[] = [];
  closed = false;

  private constructor(readonly socket: WebSocket) {
    clients.push(this);
    socket.on('message', (text: Buffer) => this.texts.push(text.toString('latin1')));
    socket.on('close', () => {
      this.closed = true;
    });
    socket.on('error', () => undefined);
  }

  static async open(sim: Simulator, path = '/ws'): Promise<Client> {
    const client = new Client(new WebSocket(`${sim.endpoints[EXCHANGE]?.ws}${path}`));
    await new Promise((done, failed) => client.socket.once('open', done).once('error', failed));
    return client;
  }

  ask(message: object | string): void {
    this.socket.send(typeof message === 'string' ? message : JSON.stringify(message));
  }

  subscribe(type: string, coin = 'BTC', more: object = {}): void {
    this.ask({ method: 'subscribe', subscription: { type, coin, ...more } });
  }

  of<T>(channel: string): T[] {
    const opening = `{"channel":"${channel}","data":`;
    // One piece of garbage is a frame cut short.
    const whole = this.texts.filter((text) => text.startsWith(opening) && text.endsWith('}'));
    return whole.flatMap((text) => JSON.parse(text).data as T);
  }

  get trades(): Trade[] {
    return this.of<Trade>('trades').filter((each) => typeof each.tid === 'number');
  }

  get books(): Book[] {
    return this.of<Book>('l2Book').filter(({ fast, levels }) => fast === undefined && Array.isArray(levels));
  }

  /** Frames of data, as the ledger counts them. */
  get frames(): number {
    return this.texts.filter((text) => !/^\{"channel":"(subscriptionResponse|error|pong)"/.test(text)).length;
  }
}

async function post(sim: Simulator, body: object | string): Promise<{ status: number; body: string; type: string }> {
  const text = typeof body === 'string' ? body : JSON.stringify(body);
  const answer = await fetch(`${sim.endpoints[EXCHANGE]?.rest}/info`, { method: 'POST', body: text });
  return { status: answer.status, body: await answer.text(), type: answer.headers.get('content-type') ?? '' };
}

async function info<T>(sim: Simulator, body: object): Promise<T> {
  const answer = await post(sim, body);
  assert.equal(answer.status, 200, answer.body);
  return JSON.parse(answer.body) as T;
}

const keys = (sim: Simulator, dataType: string, symbol = 'BTC-USDC'): string[] =>
  sim.keys({ exchange: EXCHANGE, symbol, data_type: dataType });

function line(sim: Simulator, dataType: string, symbol = 'BTC-USDC') {
  const found = sim.ledger().streams.find((each) => each.data_type === dataType && each.symbol === symbol);
  assert.ok(found, `${dataType} is in the ledger`);
  return found;
}

/** Stops the markets and waits for all that was written. */
async function rest(sim: Simulator, ...readers: Client[]): Promise<void> {
  sim.apply({ action: 'stop' });
  await until(
    'every written frame arrived',
    () => readers.reduce((sum, { frames }) => sum + frames, 0) === sim.ledger().frames,
  );
}

describe('conversation', () => {
  it('acknowledges with defaults filled in, refuses in the words of the venue, and answers pings', async () => {
    const sim = await start();
    const client = await Client.open(sim);
    const l2Book = '{"type":"l2Book","coin":"BTC","nSigFigs":null,"mantissa":null,"fast":false}';
    const conversation: [string, string][] = [
      [
        '{"method":"subscribe","subscription":{"type":"l2Book","coin":"BTC"}}',
        `{"channel":"subscriptionResponse","data":{"method":"subscribe","subscription":${l2Book}}}`,
      ],
      [
        '{"method":"subscribe","subscription":{"coin":"BTC","type":"l2Book"}}',
        `{"channel":"error","data":${JSON.stringify(`Already subscribed: ${l2Book}`)}}`,
      ],
      [
        '{"method":"subscribe","subscription":{"type":"trades","coin":"btc"}}',
        `{"channel":"error","data":${JSON.stringify('Invalid subscription {"type":"trades","coin":"btc"}')}}`,
      ],
      [
        '{"method":"subscribe","subscription":{"type":"nosuch","coin":"BTC"}}',
        `{"channel":"error","data":${JSON.stringify('Error parsing JSON into valid websocket request: {"method":"subscribe","subscription":{"type":"nosuch","coin":"BTC"}}')}}`,
      ],
      ['{"method":', '{"channel":"error","data":"Error parsing JSON into valid websocket request: {\\"method\\":"}'],
      ['{"method":"ping"}', '{"channel":"pong"}'],
      [
        '{"method":"unsubscribe","subscription":{"type":"l2Book","coin":"BTC"}}',
        `{"channel":"subscriptionResponse","data":{"method":"unsubscribe","subscription":${l2Book}}}`,
      ],
      [
        '{"method":"unsubscribe","subscription":{"type":"l2Book","coin":"BTC"}}',
        `{"channel":"error","data":${JSON.stringify(`Already unsubscribed: ${l2Book}`)}}`,
      ],
    ];
    for (const [asked] of conversation) client.ask(asked);
    const answers = (): string[] => client.texts.filter((text) => /^\{"channel":"(sub|err|pong)/.test(text));
    await until('all answers', () => answers().length === conversation.length);
    assert.deepEqual(
      answers(),
      conversation.map(([, answer]) => answer),
    );
    await assert.rejects(Client.open(sim, '/stream'), /404/);
  });

  it('an ended subscription is silent while others go on, and may be taken again', async () => {
    const sim = await start({ tradesPerSecond: 200 });
    const [client, witness] = [await Client.open(sim), await Client.open(sim)];
    client.subscribe('trades');
    witness.subscribe('trades');
    await until('trades', () => client.trades.length > 40);
    client.ask({ method: 'unsubscribe', subscription: { type: 'trades', coin: 'BTC' } });
    await until('the end', () => client.texts.some((text) => text.includes('"unsubscribe"')));
    const [heard, told] = [client.trades.length, witness.trades.length];
    await until('others still get trades', () => witness.trades.length > told + 20);
    assert.equal(client.trades.length, heard);
    client.subscribe('trades');
    await until('trades again', () => client.trades.length > heard);
  });

  it('limits: connections, subscriptions and messages of an address', async () => {
    const coins = Array.from({ length: 21 }, (_, index) => `C${index}`);
    const sim = await start({
      symbols: coins.map((coin) => `${coin}-USDT`),
      tradesPerSecond: 0.01,
      diffsPerSecond: 0.01,
    });
    const ten: Client[] = [];
    for (let place = 0; place < 10; place++) ten.push(await Client.open(sim));
    const eleventh = await Client.open(sim);
    await until('one too many', () => eleventh.closed);
    assert.deepEqual(eleventh.of<string>('error'), ['Cannot open more than 10 connections']);
    for (const client of ten) {
      for (const coin of coins.slice(0, 20)) {
        for (const type of ['trades', 'l2Book', 'bbo', 'activeAssetCtx']) client.subscribe(type, coin);
        client.subscribe('l2Book', coin, { fast: true });
      }
    }
    const count = (channel: string): number => ten.reduce((sum, client) => sum + client.of(channel).length, 0);
    await until('1000 subscriptions', () => count('subscriptionResponse') === 1000);
    const [first] = ten as [Client];
    first.subscribe('trades', 'C20');
    await until('one too many', () => count('error') === 1);
    assert.deepEqual(first.of<string>('error'), ['Cannot track more than 1000 subscriptions']);
    // The minute of the limit may turn meanwhile: then it takes up to another 2000.
    for (let sent = 0; sent < 4001 && !first.closed; sent++) {
      first.ask('{"method":"ping"}');
      if (sent % 100 === 0) await sleep(1);
    }
    await until('the talkative one is closed', () => first.closed);
    assert.ok(first.texts.filter((text) => text === '{"channel":"pong"}').length >= 900);
    assert.equal(sim.ledger().closed_rate, 2);
  });

  it('a client that pings stays; one that only listens is closed, whatever it receives', async () => {
    const sim = await start({ heartbeat: { pingEveryMs: 100, pongWithinMs: 1000 } });
    const [alive, dead] = [await Client.open(sim), await Client.open(sim)];
    dead.subscribe('trades');
    const pings = setInterval(() => alive.ask('{"method":"ping"}'), 50);
    await until('the silent one is closed', () => dead.closed);
    clearInterval(pings);
    assert.equal(alive.closed, false);
    assert.ok(dead.trades.length > 0);
    assert.equal(sim.ledger().closed_pong, 1);
  });
});

describe('streams', () => {
  it('the first messages tell the past trades, the book, the best prices and the context, in the venue’s shapes', async () => {
    const sim = await start({ tradesPerSecond: 500, symbols: ['BTC-USDT', 'BTC-USDC', 'ETH-USDT'] });
    const witness = await Client.open(sim);
    witness.subscribe('trades');
    await until('some past', () => witness.trades.length > 100);
    const client = await Client.open(sim);
    for (const type of ['trades', 'l2Book', 'bbo', 'activeAssetCtx', 'allMids']) client.subscribe(type);
    client.subscribe('l2Book', 'BTC', { fast: true });
    const isHere = (channel: string): boolean => client.of(channel).length > 0;
    await until('all speak', () => ['trades', 'l2Book', 'bbo', 'activeAssetCtx', 'allMids'].every(isHere));
    const backlog = JSON.parse(client.texts.find((text) => text.startsWith('{"channel":"trades"')) ?? '')
      .data as Trade[];
    const place = witness.trades.findIndex(({ tid }) => tid === backlog[0]?.tid);
    assert.deepEqual(backlog, witness.trades.slice(place, place + 30), 'the 30 last ones, oldest first');
    const [trade] = backlog as [Trade];
    assert.deepEqual(Object.keys(trade), ['coin', 'side', 'px', 'sz', 'time', 'hash', 'tid', 'users']);
    assert.match(trade.hash, /^0x[0-9a-f]{64}$/);
    assert.match(trade.users.join(), /^0x[0-9a-f]{40},0x[0-9a-f]{40}$/);
    const ids = witness.trades.map(({ tid }) => tid);
    assert.ok(ids.every((tid) => Number.isSafeInteger(tid) && tid > 0));
    assert.ok(
      ids.some((tid, index) => index > 0 && tid < (ids[index - 1] as number)),
      'ids do not rise',
    );
    const [book] = client.books as [Book];
    assert.deepEqual(Object.keys(book), ['coin', 'time', 'levels']);
    await until('a fast book', () => client.of<Book>('l2Book').some(({ fast }) => fast));
    const fast = client.of<Book>('l2Book').find((each) => each.fast) as Book;
    assert.deepEqual(
      [book, fast].map(({ levels }) => levels.map((side) => side.length)),
      [
        [20, 20],
        [5, 5],
      ],
    );
    const [{ coin, ctx }] = client.of<{ coin: string; ctx: Context }>('activeAssetCtx') as [
      { coin: string; ctx: Context },
    ];
    assert.equal(coin, 'BTC');
    const numbers = [
      trade.px,
      trade.sz,
      ...book.levels.flat().flatMap(({ px, sz }) => [px, sz]),
      ctx.funding,
      ctx.midPx,
    ];
    for (const text of numbers) assert.match(text, /^-?(0|[1-9]\d*)\.(\d*[1-9]|0)$/);
    const [{ mids }] = client.of<{ mids: Record<string, string> }>('allMids') as [{ mids: Record<string, string> }];
    assert.deepEqual(Object.keys(mids), ['BTC', 'ETH'], 'one perpetual a coin');
    assert.ok(Math.abs(Number(mids.BTC) - Number(book.levels[0][0]?.px)) < 1000);
  });

  it('units: sizes and open interest in coins, funding for an hour, five significant digits of a price', async () => {
    const sim = await start();
    const [meta, contexts] = await info<
      [{ universe: { name: string; szDecimals: number; isDelisted?: true }[] }, Context[]]
    >(sim, { type: 'metaAndAssetCtxs' });
    assert.deepEqual(
      meta.universe.map(({ name, szDecimals, isDelisted = false }) => [name, szDecimals, isDelisted]),
      [
        ['BTC', 5, false],
        ['MATIC', 1, true],
      ],
    );
    assert.equal(contexts.length, 2);
    const [btc] = contexts as [Context];
    const value = Number(btc.openInterest) * Number(btc.markPx);
    assert.ok(value > 1e9 && value < 1e10, `open interest of ${value} dollars`);
    assert.ok(Math.abs(Number(btc.funding)) < 5e-5, `${btc.funding} an hour`);
    const premium = (Number(btc.markPx) - Number(btc.oraclePx)) / Number(btc.oraclePx);
    assert.ok(Math.abs(premium - Number(btc.premium)) < 2e-6);
    const now = Date.now();
    const history = await info<{ coin: string; fundingRate: string; time: number }[]>(sim, {
      type: 'fundingHistory',
      coin: 'BTC',
      startTime: now - 5 * 3_600_000,
      endTime: now,
    });
    assert.equal(history.length, 5);
    for (const [index, { coin, time }] of history.entries()) {
      assert.equal(coin, 'BTC');
      assert.ok(time % 3_600_000 < 200 && (index === 0 || time > (history[index - 1]?.time ?? 0)));
    }
    const again = { type: 'fundingHistory', coin: 'BTC', startTime: history[0]?.time, endTime: now };
    assert.deepEqual(await info(sim, again), history, 'settled once and for all');
    assert.equal((await info<[]>(sim, { type: 'fundingHistory', coin: 'BTC', startTime: 0 })).length, 500);
    for (const [price, priceDecimals, quantityDecimals] of [
      [61_837.63, 0, 5],
      [153.27, 2, 2],
      [0.6137, 5, 0],
      [0.000012, 6, 0],
    ] as const) {
      const known: Record<number, string> = { 61837.63: 'BTC', 153.27: 'SOL', 0.6137: 'XRP' };
      const grid = gridOf(known[price] ?? 'NEW', price);
      assert.deepEqual([grid.priceDecimals, grid.quantityDecimals], [priceDecimals, quantityDecimals]);
    }
  });

  it('books, best prices, trades, REST and ledger agree at a high rate, and at rest nothing is left to tell', async () => {
    const sim = await start({ tradesPerSecond: 1500, diffsPerSecond: 500, seed: 5 });
    const [client, late] = [await Client.open(sim), await Client.open(sim)];
    for (const type of ['trades', 'l2Book', 'bbo']) client.subscribe(type);
    await until('many books', () => client.books.length > 15 && client.trades.length > 1000);
    for (const type of ['trades', 'l2Book']) late.subscribe(type);
    await until('the other has joined', () => late.books.length > 3 && late.trades.length > 100);
    await rest(sim, client, late);
    const { books, trades } = client;
    const tids = trades.map(({ tid }) => tid);
    assert.equal(new Set(tids).size, tids.length, 'no trade twice');
    assertSame(keys(sim, 'trade'), tids.map(String), 'keys of trades');
    assertSame(
      late.trades.map(({ tid }) => tid),
      tids.slice(-late.trades.length),
      'trades of the one who came later',
    );
    assert.ok(trades.every(({ time }, index) => index === 0 || time >= (trades[index - 1]?.time ?? 0)));
    const times = books.map(({ time }) => time);
    assert.ok(times.every((time, index) => index === 0 || time >= (times[index - 1] as number)));
    const all = [...new Set([...times, ...late.books.map(({ time }) => time)])].sort((one, other) => one - other);
    assert.deepEqual(
      keys(sim, 'orderbook_update')
        .map(Number)
        .sort((one, other) => one - other),
      all,
    );
    const texts = new Map<number, string>();
    for (const each of [...books, ...late.books]) {
      const before = texts.get(each.time) ?? JSON.stringify(each);
      assert.equal(JSON.stringify(each), before, 'one book at one time');
      texts.set(each.time, before);
    }
    const bests = new Map(client.of<Best>('bbo').map((each) => [each.time, each]));
    const compared = books.filter(({ time, levels: [[bid], [ask]] }) => {
      const best = bests.get(time);
      if (best) assert.deepEqual(best.bbo, [bid, ask]);
      return best;
    });
    assert.ok(compared.length > 0);
    for (const { levels } of books) {
      const [bids, asks] = levels.map((side) => side.map(({ px }) => Number(px))) as [number[], number[]];
      assert.ok((bids[0] as number) < (asks[0] as number));
      assert.ok(bids.every((px, index) => index === 0 || px < (bids[index - 1] as number)));
      assert.ok(asks.every((px, index) => index === 0 || px > (asks[index - 1] as number)));
    }
    assert.deepEqual(await info(sim, { type: 'l2Book', coin: 'BTC' }), books.at(-1));
    assert.deepEqual(late.books.at(-1), books.at(-1));
    assert.deepEqual(await info(sim, { type: 'recentTrades', coin: 'BTC' }), trades.slice(-10).reverse());
    const candles = await info<{ n: number; v: string; h: string; T: number; t: number }[]>(sim, {
      type: 'candleSnapshot',
      req: { coin: 'BTC', interval: '1m', startTime: 0 },
    });
    const told = candles.reduce((sum, { n }) => sum + n, 0);
    assert.ok(told >= trades.length && candles.every(({ t, T }) => T - t === 59_999));
    const highest = Math.max(...trades.map(({ px }) => Number(px)));
    assert.ok(Math.max(...candles.map(({ h }) => Number(h))) >= highest);
    sim.apply({ action: 'start' });
    await until('it goes on', () => client.trades.length > trades.length && client.books.length > books.length);
    assert.equal(new Set(client.trades.map(({ tid }) => tid)).size, client.trades.length);
  });

  it('who subscribes between two whole books gets the next one, not the one after it', async () => {
    const sim = await start({ diffsPerSecond: 1 });
    const client = await Client.open(sim);
    client.subscribe('l2Book');
    await until('how things stand', () => client.books.length === 1);
    sim.apply({ action: 'skip', exchange: EXCHANGE, seconds: 5 });
    await rest(sim, client);
    const [standing, next] = client.books as [Book, Book];
    assert.ok(next.time > standing.time && next.time - standing.time <= 5000, `${standing.time} ${next.time}`);
  });

  it('a stop tells what is left: the open block of trades, and the book to who has an older one', async () => {
    const sim = await start({ tradesPerSecond: 100 });
    const early: Client[] = [];
    for (let place = 0; place < 8; place++) {
      const client = await Client.open(sim);
      client.subscribe('trades');
      client.subscribe('l2Book');
      early.push(client);
      // Spread over the first blocks, while there are fewer past trades than a backlog holds.
      await sleep(30);
    }
    await until('some trades', () => early.every((client) => client.trades.length > 40 && client.books.length > 0));
    // Messages come as a block closes: a little later the next one is open, with trades.
    await sleep(50);
    await rest(sim, ...early);
    const book = await info<Book>(sim, { type: 'l2Book', coin: 'BTC' });
    const candles = await info<{ n: number }[]>(sim, {
      type: 'candleSnapshot',
      req: { coin: 'BTC', interval: '1m', startTime: 0 },
    });
    const traded = candles.reduce((sum, { n }) => sum + n, 0);
    for (const { books, trades } of early) {
      assert.deepEqual(books.at(-1), book);
      assert.equal(new Set(trades.map(({ tid }) => tid)).size, trades.length, 'no trade twice');
    }
    assert.equal(early[0]?.trades.length, traded, 'every trade of the market');
  });

  it('the collector’s module understands every frame, and makes of them the rows that the ledger counts', async () => {
    const symbols = ['BTC-USDT', 'ETH-USDT'];
    const sim = await start({ symbols, tradesPerSecond: 200, diffsPerSecond: 200 });
    const client = await Client.open(sim);
    const instruments = symbols.map((symbol) => hyperliquid.instrument(symbol, 'perpetual'));
    for (const { channels, path } of hyperliquid.connections(instruments)) {
      assert.equal(path, '/ws');
      for (const { text } of hyperliquid.subscribe(channels, 1)) client.ask(text);
    }
    await until('books and trades', () => client.books.length > 20 && client.trades.length > 200);
    await rest(sim, client);
    const run = feedHarness(hyperliquid, Date.now() * 1000, { orderbookIntervalMs: 0, instruments });
    for (const text of client.texts) run.frame(text);
    assert.deepEqual(run.told('rejected'), []);
    for (const { symbol } of instruments) {
      const trades = run.of('trade').filter((row) => row.symbol === symbol);
      assert.deepEqual(
        trades.map((row) => row.trade_id),
        keys(sim, 'trade', symbol),
      );
      const books = run.of('orderbook_update').filter((row) => row.symbol === symbol);
      assert.deepEqual(
        books.map((row) => String(row.last_update_id)),
        keys(sim, 'orderbook_update', symbol),
      );
      assert.equal(run.of('funding_rate').filter((row) => row.symbol === symbol).length, 1);
      assert.equal(run.of('open_interest').filter((row) => row.symbol === symbol).length, 1);
    }
    for (const path of ['type=spotMeta', 'type=allPerpMetas', 'type=metaAndAssetCtxs', 'type=l2Book&coin=BTC']) {
      const answer = await info<object>(sim, Object.fromEntries(new URLSearchParams(path)));
      run.rest(`/info?${path}`, answer);
    }
    assert.deepEqual(run.told('rejected'), []);
  });
});

describe('requests', () => {
  it('errors: what cannot be read, coins that are not there, other paths', async () => {
    const sim = await start();
    const unread = await post(sim, { type: 'nosuch' });
    assert.deepEqual([unread.status, unread.body], [422, 'Failed to deserialize the JSON body into the target type']);
    assert.match(unread.type, /^text\/plain/);
    assert.equal((await post(sim, 'nonsense')).status, 422);
    assert.deepEqual(await info(sim, { type: 'l2Book', coin: 'NOPE' }), null);
    const missingTrades = await post(sim, { type: 'recentTrades', coin: 'NOPE' });
    assert.deepEqual([missingTrades.status, missingTrades.body], [500, 'null']);
    const { rest: host } = sim.endpoints[EXCHANGE] as { rest: string };
    assert.equal((await fetch(`${host}/info`)).status, 405);
    assert.equal((await fetch(`${host}/other`, { method: 'POST' })).status, 404);
  });

  it('each request costs its weight and its rows, and what is over 1200 in a minute is refused', () => {
    const rows = Array.from({ length: 120 }, () => '{}');
    let now = 60_000;
    const source = {
      coins: [],
      contexts: () => [],
      mids: () => '{}',
      book: () => '{}',
      recentTrades: () => rows,
      funding: () => rows,
      candles: () => rows,
    };
    /** How often a request is answered within one minute. */
    const answered = (body: object): number => {
      const desk = new InfoDesk(
        source,
        () => now,
        () => undefined,
      );
      const request = { method: 'POST', path: '/info', query: new URLSearchParams(), body: JSON.stringify(body) };
      let count = 0;
      while (desk.answer(request).status === 200) count++;
      assert.deepEqual(desk.answer(request), { status: 429, body: 'null' });
      now += 60_000;
      assert.equal(desk.answer(request).status, 200, 'the next minute is a new one');
      return count;
    };
    assert.equal(answered({ type: 'l2Book', coin: 'BTC' }), 600);
    assert.equal(answered({ type: 'allMids' }), 600);
    assert.equal(answered({ type: 'meta' }), 60);
    const range = { coin: 'BTC', startTime: 0, endTime: 1 };
    // 20 and one for each 20 rows, or each 60 candles.
    assert.equal(answered({ type: 'fundingHistory', ...range }), Math.floor((1200 - 20) / 26) + 1);
    assert.equal(answered({ type: 'recentTrades', coin: 'BTC' }), Math.floor((1200 - 20) / 26) + 1);
    assert.equal(
      answered({ type: 'candleSnapshot', req: { interval: '1m', ...range } }),
      Math.floor((1200 - 20) / 22) + 1,
    );
  });
});

describe('faults', () => {
  const ofTrades = { exchange: EXCHANGE, symbol: 'BTC-USDC', data_type: 'trade' } as const;

  it('a dropped message costs all its trades; who comes later gets them in the backlog, and then they count', async () => {
    const sim = await start({ tradesPerSecond: 40 });
    const client = await Client.open(sim);
    client.subscribe('trades');
    await until('trades', () => client.trades.length > 5);
    sim.apply({ action: 'drop', ...ofTrades, count: 3 });
    const at = client.trades.length;
    await until('more trades', () => line(sim, 'trade').dropped > 0 && client.trades.length > at + 5);
    sim.apply({ action: 'stop' });
    await until('all arrived', () => client.frames === sim.ledger().frames);
    const { sent, dropped } = line(sim, 'trade');
    assert.ok(dropped >= 3, `${dropped} trades of three messages`);
    assert.equal(sent, new Set(client.trades.map(({ tid }) => tid)).size);
    const late = await Client.open(sim);
    late.subscribe('trades');
    await until('the backlog', () => late.trades.length > 0);
    const both = new Set([...client.trades, ...late.trades].map(({ tid }) => tid));
    const now = line(sim, 'trade');
    assert.deepEqual([now.sent, now.sent + now.dropped], [both.size, sent + dropped]);
    assert.ok(now.dropped < dropped);
  });

  it('silence withholds one kind of one coin, first messages too, and ends', async () => {
    const sim = await start({ symbols: ['BTC-USDT', 'ETH-USDT'], tradesPerSecond: 200, diffsPerSecond: 100 });
    sim.apply({ action: 'silence', ...ofTrades, seconds: 1 });
    const client = await Client.open(sim);
    for (const coin of ['BTC', 'ETH']) for (const type of ['trades', 'l2Book']) client.subscribe(type, coin);
    const of = (coin: string) => client.trades.filter((each) => each.coin === coin);
    await until('the others speak', () => of('ETH').length > 50 && client.books.some(({ coin }) => coin === 'BTC'));
    await until('it ends', () => of('BTC').length > 20);
    await rest(sim, client);
    assert.ok(line(sim, 'trade').dropped > 0);
    assert.equal(line(sim, 'trade', 'ETH-USDC').dropped, 0);
    assert.equal(line(sim, 'trade').sent, of('BTC').length);
  });

  it('repeated and swapped messages are counted once, garbage not at all', async () => {
    const sim = await start({ tradesPerSecond: 200 });
    const client = await Client.open(sim);
    client.subscribe('trades');
    await until('trades', () => client.trades.length > 5);
    sim.apply({ action: 'repeat', exchange: EXCHANGE, count: 2 });
    await until('repeats', () => sim.ledger().repeated === 2);
    sim.apply({ action: 'reorder', exchange: EXCHANGE, count: 2 });
    await until('swaps', () => sim.ledger().reordered === 2);
    sim.apply({ action: 'reorder', ...ofTrades, count: 1 });
    const late = await Client.open(sim);
    late.subscribe('trades');
    await until('the third swap', () => sim.ledger().reordered === 3);
    sim.apply({ action: 'garbage', exchange: EXCHANGE, count: 6 });
    await rest(sim, client, late);
    const blocks = client.texts
      .filter((text) => text.startsWith('{"channel":"trades"') && text.endsWith(']}'))
      .map((text) => JSON.parse(text).data as Trade[])
      .filter(([trade]) => typeof trade?.tid === 'number');
    const times = blocks.map(([trade]) => trade?.time as number);
    assert.equal(times.filter((time, index) => time === times[index - 1]).length, 2, 'blocks sent twice');
    assert.ok(times.filter((time, index) => time < (times[index - 1] ?? 0)).length >= 2, 'blocks swapped');
    const { sent, dropped } = line(sim, 'trade');
    const tids = new Set([...client.trades, ...late.trades].map(({ tid }) => tid));
    assert.deepEqual([sent, dropped, sim.ledger().garbage], [tids.size, 0, 6]);
    const run = feedHarness(hyperliquid, Date.now() * 1000, { orderbookIntervalMs: 0, instruments: [] });
    for (const text of client.texts) run.frame(text);
    assert.equal(run.told('rejected').length, 6, 'the module refuses each piece of garbage');
  });

  it('requests are refused, a subscription is acknowledged for nothing, notices and closes reach every socket', async () => {
    const sim = await start({ tradesPerSecond: 200 });
    for (const status of [429, 418, 403] as const) {
      sim.apply({ action: 'rest', exchange: EXCHANGE, status });
      const refused = await post(sim, { type: 'meta' });
      assert.equal(refused.status, status);
      if (status === 403) assert.match(refused.body, /^<HTML>/);
      else assert.equal(refused.body, 'null');
    }
    assert.equal((await post(sim, { type: 'meta' })).status, 200);
    sim.apply({ action: 'ack_silent', exchange: EXCHANGE });
    const [deceived, served] = [await Client.open(sim), await Client.open(sim)];
    deceived.subscribe('trades');
    await until('the acknowledgement', () => deceived.of('subscriptionResponse').length === 1);
    served.subscribe('trades');
    await until('trades', () => served.trades.length > 20);
    assert.equal(deceived.trades.length, 0);
    deceived.ask({ method: 'unsubscribe', subscription: { type: 'trades', coin: 'BTC' } });
    deceived.subscribe('trades');
    await until('trades after another try', () => deceived.trades.length > 0);
    sim.apply({ action: 'shutdown_notice', exchange: EXCHANGE });
    await until('the notice', () => deceived.texts.includes('{"channel":"pong"}'));
    sim.apply({ action: 'close', exchange: EXCHANGE });
    await until('both are closed', () => deceived.closed && served.closed);
    const { rest_refused, subscriptions_silenced, shutdown_notices, closed_by_control } = sim.ledger();
    assert.deepEqual([rest_refused, subscriptions_silenced, shutdown_notices, closed_by_control], [3, 1, 2, 2]);
    await until('none is left', () => sim.ledger().sockets[EXCHANGE] === 0);
  });

  it('a book that was withheld counts when it is sent after all', async () => {
    const sim = await start();
    sim.apply({ action: 'drop', exchange: EXCHANGE, data_type: 'orderbook_update' });
    sim.apply({ action: 'stop' });
    const [deprived, served] = [await Client.open(sim), await Client.open(sim)];
    deprived.subscribe('l2Book');
    await until('the drop', () => line(sim, 'orderbook_update').dropped === 1);
    served.subscribe('l2Book');
    await until('the book', () => served.books.length === 1);
    const { sent, dropped } = line(sim, 'orderbook_update');
    assert.deepEqual([sent, dropped, deprived.books.length], [1, 0, 0]);
    assert.deepEqual(keys(sim, 'orderbook_update'), [String(served.books[0]?.time)]);
  });
});

describe('replay', () => {
  const skip = missing(RECORDED);
  const replay = { exchange: EXCHANGE, file: RECORDED };

  it('gives each connection what it subscribed, the recorded bytes in the recorded order, then nothing', {
    skip,
  }, async () => {
    const recorded = readSession(RECORDED).map(({ raw }) => raw);
    const sim = await start({ replays: [replay] });
    const [client, books] = [await Client.open(sim), await Client.open(sim)];
    client.subscribe('trades');
    client.subscribe('l2Book');
    books.subscribe('l2Book');
    client.subscribe('trades', 'ETH');
    await until('the end', () => sim.ledger().replay_done === true && client.frames + books.frames === 55 + 46);
    const data = (each: Client) => each.texts.filter((text) => !text.startsWith('{"channel":"subscriptionResponse"'));
    assert.deepEqual(client.of<string>('error'), ['Invalid subscription {"type":"trades","coin":"ETH"}']);
    assert.deepEqual(
      data(client).filter((text) => !text.startsWith('{"channel":"error"')),
      recorded,
    );
    assert.deepEqual(
      data(books),
      recorded.filter((raw) => raw.includes('"l2Book"')),
    );
    assert.deepEqual([line(sim, 'trade').sent, line(sim, 'orderbook_update').sent], [64, 45]);
    assert.deepEqual(await info(sim, { type: 'l2Book', coin: 'BTC' }), client.books.at(-1));
    assert.deepEqual(await info(sim, { type: 'recentTrades', coin: 'BTC' }), client.trades.slice(-10).reverse());
    const { universe } = await info<{ universe: object[] }>(sim, { type: 'meta' });
    assert.deepEqual(
      universe.map((each) => ({ ...each, maxLeverage: 0, marginTableId: 0 })),
      [{ szDecimals: 5, name: 'BTC', maxLeverage: 0, marginTableId: 0 }],
    );
    assert.deepEqual([client.closed, books.closed, client.frames], [false, false, 55]);
  });

  it('withholds one book on demand, and takes faults', { skip }, async () => {
    const sim = await start({ replays: [{ ...replay, dropDiff: 10 }] });
    sim.apply({ action: 'drop', exchange: EXCHANGE, data_type: 'trade', count: 1 });
    const client = await Client.open(sim);
    client.subscribe('trades');
    client.subscribe('l2Book');
    await until('the end', () => sim.ledger().replay_done === true && client.frames === 53);
    const told = (['trade', 'orderbook_update'] as const).map((type) => line(sim, type));
    assert.deepEqual(
      told.map(({ sent, dropped }) => [sent, dropped]),
      [
        [34, 30],
        [44, 1],
      ],
    );
  });

  it('with a clock, a later connection joins where the others are', { skip }, async () => {
    const sim = await start({ replays: [{ ...replay, speed: 10 }] });
    const first = await Client.open(sim);
    first.subscribe('l2Book');
    await until('some books', () => first.books.length > 5);
    const second = await Client.open(sim);
    second.subscribe('l2Book');
    await until('the end', () => sim.ledger().replay_done === true && first.books.length === 46);
    assert.ok(second.books.length < 46);
    assert.deepEqual(second.books, first.books.slice(-second.books.length || 46));
  });

  it('a session that cannot be used is refused with its file and line', async () => {
    const file = join(scratch, 'broken.txt');
    writeFileSync(file, '1 {"channel":"pong"}\n');
    await assert.rejects(start({ replays: [{ exchange: EXCHANGE, file }] }), /broken\.txt line 1/);
    writeFileSync(file, '\n');
    await assert.rejects(start({ replays: [{ exchange: EXCHANGE, file }] }), /no frames/);
    await assert.rejects(start({ replays: [{ exchange: EXCHANGE, file: join(scratch, 'none') }] }), /cannot read/);
  });
});
