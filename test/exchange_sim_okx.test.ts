/** The simulated OKX as its clients see it: real sockets, the venue's own rules, and a ledger that must agree. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { WebSocket } from 'ws';
import type { Simulator } from '../scripts/exchange_sim.ts';
import { okxDerivatives, okxSpot } from '../scripts/exchanges/okx.ts';
import { recordedFrames } from '../scripts/lib/sim/cryptofeed.ts';
import { Ledger } from '../scripts/lib/sim/ledger.ts';
import { Market, seededRandom } from '../scripts/lib/sim/market.ts';
import { OkxBooks } from '../scripts/lib/sim/okx_books.ts';
import { gridOf, okxListed } from '../scripts/lib/sim/okx_instruments.ts';
import { OkxPair } from '../scripts/lib/sim/okx_pair.ts';
import { RequestLimits } from '../scripts/lib/sim/okx_rest.ts';
import { type Peer, Wire } from '../scripts/lib/sim/venue.ts';
import { feedHarness } from './feed_harness.ts';
import { missing, SHARED } from './fixtures.ts';
import { assertSame, start, until } from './sim_client.ts';

type Exchange = 'okx_spot' | 'okx_derivatives';
type Level = [price: string, size: string, zero: string, orders: string];
interface Data {
  asks: Level[];
  bids: Level[];
  seqId: number;
  prevSeqId: number;
  checksum: number;
  tradeId: string;
  count: string;
  px: string;
  sz: string;
  side: string;
  ts: string;
  instId: string;
  details: { bkPx: string; side: string; sz: string; ts: string }[];
}
interface Frame {
  id?: string;
  event?: string;
  code?: string;
  msg?: string;
  connId?: string;
  arg?: { channel: string; instId?: string; instType?: string };
  action?: string;
  data?: Data[];
}

const PUBLIC = '/ws/v5/public';
const BUSINESS = '/ws/v5/business';
const idOf = (exchange: Exchange, symbol = 'BTC-USDT'): string => (exchange === 'okx_spot' ? symbol : `${symbol}-SWAP`);

/** A socket that keeps what it got. */
class Client {
  readonly texts: string[] = [];
  closeCode: number | null = null;

  private constructor(readonly socket: WebSocket) {
    socket.on('message', (text: Buffer) => this.texts.push(text.toString('latin1')));
    socket.on('close', (code) => {
      this.closeCode = code;
    });
    socket.on('error', () => undefined);
  }

  static async open(sim: Simulator, exchange: Exchange, path: string): Promise<Client> {
    const client = new Client(new WebSocket(`${sim.endpoints[exchange]?.ws}${path}`));
    await new Promise((done, failed) => client.socket.once('open', done).once('error', failed));
    return client;
  }

  ask(message: object | string): void {
    this.socket.send(typeof message === 'string' ? message : JSON.stringify(message));
  }

  subscribe(instId: string, ...channels: string[]): void {
    this.ask({ op: 'subscribe', args: channels.map((channel) => ({ channel, instId })) });
  }

  get frames(): Frame[] {
    return this.texts.flatMap((text) => {
      try {
        return [JSON.parse(text) as Frame];
      } catch {
        return [];
      }
    });
  }

  /** Data of one channel, in order, with the action of its frame. */
  of(channel: string, instId?: string): (Data & { action: string | undefined })[] {
    return this.frames
      .filter(({ arg, data }) => data && arg?.channel === channel && (instId ?? arg.instId) === arg.instId)
      .flatMap(({ action, data }) => (data ?? []).map((each) => ({ ...each, action })));
  }

  get events(): Frame[] {
    return this.frames.filter(({ event }) => event !== undefined);
  }
}

async function get(sim: Simulator, exchange: Exchange, path: string) {
  const answer = await fetch(`${sim.endpoints[exchange]?.rest}${path}`);
  return { status: answer.status, body: await answer.text(), type: answer.headers.get('content-type') };
}

async function ask<Row = Data>(sim: Simulator, exchange: Exchange, path: string) {
  const { status, body } = await get(sim, exchange, path);
  return { status, ...(JSON.parse(body) as { code: string; msg: string; data: Row[] }) };
}

function line(sim: Simulator, exchange: Exchange, dataType: string, symbol = 'BTC-USDT') {
  const found = sim
    .ledger()
    .streams.find((each) => each.exchange === exchange && each.data_type === dataType && each.symbol === symbol);
  assert.ok(found, `${exchange} ${dataType} is in the ledger`);
  return found;
}

/** Data frames that reached these clients are all that were written. */
function allArrived(sim: Simulator, ...clients: Client[]): Promise<void> {
  const data = ({ texts }: Client): number =>
    texts.filter((text) => text !== 'pong' && !text.includes('"event"')).length;
  return until('every written frame', () => clients.reduce((sum, each) => sum + data(each), 0) === sim.ledger().frames);
}

/** A book as a client keeps it; throws where the chain breaks. */
class Book {
  readonly bids = new Map<string, Level>();
  readonly asks = new Map<string, Level>();
  seqId = -1;

  apply(frame: Data & { action: string | undefined }): void {
    if (frame.action === 'snapshot') {
      assert.equal(frame.prevSeqId, -1);
      this.bids.clear();
      this.asks.clear();
    } else {
      assert.equal(frame.prevSeqId, this.seqId, 'the chain holds');
      assert.ok(frame.seqId > frame.prevSeqId, 'ids rise');
    }
    assert.equal(frame.checksum, 0);
    for (const side of ['bids', 'asks'] as const) {
      for (const level of frame[side]) {
        if (level[1] === '0') assert.ok(this[side].delete(level[0]), 'only what is there can go');
        else this[side].set(level[0], level);
      }
      assert.equal(this[side].size, 400);
    }
    this.seqId = frame.seqId;
  }

  sorted(side: 'bids' | 'asks'): Level[] {
    const direction = side === 'asks' ? 1 : -1;
    return [...this[side].values()].sort((one, other) => (Number(one[0]) - Number(other[0])) * direction);
  }
}

describe('conversation', () => {
  it('acknowledges each argument with the id, refuses the wrong ones by code, and answers pings', async () => {
    const sim = await start({ exchanges: ['okx_spot', 'okx_derivatives'] });
    const client = await Client.open(sim, 'okx_derivatives', PUBLIC);
    const id = idOf('okx_derivatives');
    client.ask('ping');
    client.ask({
      id: '1512',
      op: 'subscribe',
      args: [
        { channel: 'trades', instId: id },
        { channel: 'trades', instId: 'NOPE-USDT-SWAP' },
        { channel: 'trades-all', instId: id },
        { channel: 'liquidation-orders', instType: 'SWAP' },
        { channel: 'books' },
      ],
    });
    client.ask('{"op":');
    client.ask({ id: 'a1', op: 'subscrib', args: [] });
    client.ask({ op: 'subscribe', args: 'books' });
    client.ask({ op: 'unsubscribe', args: [{ channel: 'trades', instId: id }] });
    await until('nine answers', () => client.events.length === 9);
    assert.equal(client.texts[0], 'pong');
    const { connId } = client.events[0] as Frame;
    assert.match(String(connId), /^[0-9a-f]{8}$/);
    assert.ok(
      client.events.every((each) => each.connId === connId),
      'one connection, one name',
    );
    assert.deepEqual(
      client.events.map(({ id: own, event, code, arg }) => [own, event, code ?? arg?.channel]),
      [
        ['1512', 'subscribe', 'trades'],
        ['1512', 'error', '60018'],
        ['1512', 'error', '60018'],
        ['1512', 'subscribe', 'liquidation-orders'],
        ['1512', 'error', '60018'],
        [undefined, 'error', '60012'],
        ['a1', 'error', '60012'],
        [undefined, 'error', '60013'],
        [undefined, 'unsubscribe', 'trades'],
      ],
    );
    assert.match(String(client.events[1]?.msg), /channel:trades,instId:NOPE-USDT-SWAP doesn't exist/);
    const business = await Client.open(sim, 'okx_spot', BUSINESS);
    business.subscribe('BTC-USDT', 'books', 'trades-all');
    await until('fills', () => business.of('trades-all').length > 0);
    assert.deepEqual(
      business.events.map(({ event, code }) => code ?? event),
      ['60018', 'subscribe'],
    );
    await assert.rejects(Client.open(sim, 'okx_spot', '/ws/v5/private'), /404/);
  });

  it('an unsubscribed channel rests, and a new subscription of a book begins with a snapshot in the same chain', async () => {
    const sim = await start({ exchanges: ['okx_spot'], diffsPerSecond: 50 });
    const [client, witness] = [await Client.open(sim, 'okx_spot', PUBLIC), await Client.open(sim, 'okx_spot', PUBLIC)];
    const arg = { channel: 'books', instId: 'BTC-USDT' };
    for (const each of [client, witness]) each.subscribe('BTC-USDT', 'books');
    await until('updates', () => client.of('books').length > 3);
    client.ask({ op: 'unsubscribe', args: [arg] });
    await until('the answer', () => client.events.length === 2);
    const before = witness.of('books').length;
    await until('others go on', () => witness.of('books').length > before + 5);
    const rested = client.of('books').length;
    client.ask({ op: 'subscribe', args: [arg] });
    // A second request for what is served already brings no second snapshot.
    client.ask({ op: 'subscribe', args: [arg] });
    await until('updates again', () => client.of('books').length > rested + 5);
    sim.apply({ action: 'stop' });
    await allArrived(sim, client, witness);
    assert.deepEqual(
      client.of('books').flatMap(({ action }, place) => (action === 'snapshot' ? [place] : [])),
      [0, rested],
    );
    const ids = new Set(witness.of('books').map(({ seqId }) => seqId));
    for (const { seqId } of client.of('books')) assert.ok(ids.has(seqId), 'a snapshot stands at an id of the chain');
    assert.equal(sim.ledger().book_snapshots, 3);
    const book = new Book();
    for (const frame of client.of('books')) book.apply(frame);
  });
});

/** Follows one symbol for a while at a high rate, and compares with every answer that the venue gives. */
async function follow(exchange: Exchange): Promise<void> {
  const id = idOf(exchange);
  const sim = await start({ exchanges: [exchange], tradesPerSecond: 1500, diffsPerSecond: 200, seed: 5 });
  const [client, business] = [await Client.open(sim, exchange, PUBLIC), await Client.open(sim, exchange, BUSINESS)];
  client.subscribe(id, 'books', 'bbo-tbt', 'trades');
  business.subscribe(id, 'trades-all');
  const updates = (): number => client.texts.filter((text) => text.startsWith('{"arg":{"channel":"books"')).length;
  await until('many frames', () => updates() > 200 && business.texts.length > 1000);
  sim.apply({ action: 'stop' });
  await allArrived(sim, client, business);

  const best = new Map(client.of('bbo-tbt').map((each) => [each.seqId, each]));
  const book = new Book();
  let compared = 0;
  for (const frame of client.of('books')) {
    book.apply(frame);
    const top = best.get(frame.seqId);
    if (!top) continue;
    assert.deepEqual([book.sorted('bids')[0], book.sorted('asks')[0]], [top.bids[0], top.asks[0]]);
    compared++;
  }
  assert.ok(compared > 10, `${compared} best prices at the id of an update`);
  // At rest nothing is left to tell: the books are as late as the last best price, and agree with it.
  const last = client.of('bbo-tbt').at(-1) as Data;
  assert.ok(book.seqId >= last.seqId, `${book.seqId} and ${last.seqId}`);
  assert.deepEqual([book.sorted('bids')[0], book.sorted('asks')[0]], [last.bids[0], last.asks[0]]);
  const { data } = await ask(sim, exchange, `/api/v5/market/books?instId=${id}&sz=400`);
  const [whole] = data as [Data];
  assert.equal(whole.seqId, book.seqId);
  for (const side of ['bids', 'asks'] as const) assertSame(whole[side], book.sorted(side), side);

  assert.ok(takenSide(client.frames) > 0.95, 'who buys pays the best ask, who sells gets the best bid');

  const fills = business.of('trades-all');
  const ids = fills.map(({ tradeId }) => Number(tradeId));
  assertSame(
    ids,
    ids.map((_, place) => (ids[0] as number) + place),
    'trade ids',
  );
  const { data: page } = await ask(
    sim,
    exchange,
    `/api/v5/market/history-trades?instId=${id}&type=1&after=${ids[60]}&limit=50`,
  );
  assertSame(page, plainRows(fills.slice(10, 60).reverse()), 'trades over REST');
  // The merged form tells the same fills under the id of the last one.
  const byId = new Map(fills.map((fill) => [Number(fill.tradeId), fill]));
  let merged = 0;
  for (const { tradeId, count, sz, px } of client.of('trades')) {
    const parts = Array.from({ length: Number(count) }, (_, place) => byId.get(Number(tradeId) - place));
    if (parts.some((part) => part === undefined)) continue;
    const sum = parts.reduce((total, part) => total + Number(part?.sz), 0);
    assert.ok(
      Math.abs(sum - Number(sz)) < 1e-9 && parts.every((part) => part?.px === px),
      'the merged trade is the sum of its fills',
    );
    if (parts.length > 1) merged++;
  }
  assert.ok(merged > 0, 'some trades have several fills');
  const keys = (dataType: string): string[] => sim.keys({ exchange, symbol: 'BTC-USDT', data_type: dataType });
  assertSame(keys('trade'), ids.map(String), 'keys of trades');
  const told = client.of('books').filter(({ action }) => action === 'update');
  assertSame(
    keys('orderbook_update'),
    told.map(({ seqId }) => String(seqId)),
    'keys of updates',
  );
}

/** Share of trades whose price was, shortly before them, the best one of the side that they took. */
function takenSide(frames: Frame[]): number {
  const recent: Data[] = [];
  let [taken, all] = [0, 0];
  for (const { arg, data } of frames) {
    for (const each of data ?? []) {
      if (arg?.channel === 'bbo-tbt') recent.push(each);
      if (arg?.channel !== 'trades') continue;
      const side = each.side === 'buy' ? 'asks' : 'bids';
      if (recent.slice(-6).some((best) => best[side][0]?.[0] === each.px)) taken++;
      all++;
    }
  }
  return taken / all;
}

function plainRows(rows: (Data & { action: string | undefined })[]): Data[] {
  return rows.map((row) => {
    const { action: _, ...rest } = row;
    return rest;
  });
}

/** A poll's path may name the time of asking. */
function pathOf(path: string | ((now: number) => string)): string {
  return typeof path === 'string' ? path : path(Date.now());
}

describe('market', () => {
  it('spot: books, best prices, fills, merged trades, REST and ledger agree at a high rate', () => follow('okx_spot'));
  it('swaps: books, best prices, fills, merged trades, REST and ledger agree at a high rate', () =>
    follow('okx_derivatives'));

  it('all that the venue tells is sound to the collector’s feed, in base units and near the price of the pair', async () => {
    const symbols = ['BTC-USDT', 'ETH-USDT', 'DOGE-USDT', 'NEW-USDT'];
    const sim = await start({ exchanges: ['okx_spot', 'okx_derivatives'], symbols, liquidationsPerMinute: 60 });
    for (const [exchange, module] of [
      ['okx_spot', okxSpot],
      ['okx_derivatives', okxDerivatives],
    ] as const) {
      const instruments = symbols.map((symbol) => module.instrument(symbol, module.marketTypes[0] ?? 'spot'));
      const run = feedHarness(module, Date.now() * 1000, { instruments });
      const rest = async (path: string) => run.rest(path, JSON.parse((await get(sim, exchange, path)).body));
      for (const { path } of module.instrumentLists ?? []) await rest(path);
      const connections = module.connections(instruments);
      const clients = await Promise.all(connections.map(({ path }) => Client.open(sim, exchange, path)));
      for (const [place, { channels }] of connections.entries()) {
        for (const { text } of module.subscribe(channels, 1)) clients[place]?.ask(text);
      }
      const frames = (): string[] => clients.flatMap(({ texts }) => texts);
      const wanted = exchange === 'okx_spot' ? [] : ['funding-rate', 'open-interest', 'liquidation-orders'];
      await until('every channel speaks', () =>
        ['books', 'trades-all', ...wanted].every((name) =>
          frames().some((text) => text.includes(`{"channel":"${name}"`) && !text.includes('"event"')),
        ),
      );
      for (const text of frames()) run.frame(text);
      for (const { path } of module.polls?.(instruments) ?? []) await rest(pathOf(path));
      assert.deepEqual(
        run.events.filter(({ kind }) => !['ack', 'ignored'].includes(kind)),
        [],
      );
      assert.ok(
        run.events.every((event) => event.kind !== 'ack' || event.error === null),
        'every subscription is granted',
      );
      assert.ok(run.of('orderbook').length > 0 && run.of('trade').length > 0, 'there are books and trades');
      for (const row of run.of('trade').filter(({ symbol }) => symbol === 'BTC-USDT')) {
        assert.ok(Math.abs(Number(row.price) / 61_837 - 1) < 0.05 && Number(row.quantity) < 10, row.quantity);
      }
      if (exchange === 'okx_spot') continue;
      // As on the venue: how much of the base one contract is.
      const [update] = clients.flatMap((each) => each.of('books', 'DOGE-USDT-SWAP'));
      const [row] = run.of('orderbook_update').filter(({ symbol }) => symbol === 'DOGE-USDT');
      assert.equal(Number(row?.bids[0]?.[1]), Number(update?.bids[0]?.[1]) * 1000);
      // Of each pair, however often the venue came round while the other channels were waited for.
      assert.deepEqual([...new Set(run.of('open_interest').map(({ symbol }) => symbol))].sort(), [...symbols].sort());
      assert.equal(run.of('lsr_all_account').length, 100 * symbols.length);
      const [funding] = run.of('funding_rate');
      assert.equal(Number(funding?.funding_interval_hours), funding?.symbol === 'BTC-USDT' ? 8 : 4);
      const named = symbols.flatMap((symbol) => sim.keys({ exchange, symbol, data_type: 'liquidation' }));
      const hashes = new Set(named.map((name) => createHash('sha256').update(name).digest('hex').slice(0, 32)));
      assert.ok(run.of('liquidation').length > 0, 'there are liquidations');
      for (const { liquidation_id } of run.of('liquidation'))
        assert.ok(hashes.has(liquidation_id), 'each liquidation is in the ledger under what it is');
    }
  });

  it('a book that rests says so once a minute, with equal ids and no levels, and it is no row', () => {
    let now = 1_790_000_000_000;
    const wire = new Wire(new Ledger(now), () => now);
    const listed = okxListed('swap', 'BTC-USDT', 1);
    const market = new Market({
      grid: gridOf(listed),
      startPrice: listed.startPrice,
      random: seededRandom(1),
      fair: () => 1,
      start: now,
      tradesPerSecond: 1e-6,
      tradeGrain: 'trade',
      diffsPerSecond: 1e-6,
      idsHaveHoles: true,
      history: 10,
    });
    const pair = new OkxPair('okx_derivatives', listed, market, wire, 1e-6, 10);
    const texts: string[] = [];
    const peer = { open: true, combined: false, push: (frame: string) => texts.push(frame.slice(frame.indexOf('{'))) };
    const books = pair.channels.find(({ name }) => name.startsWith('books:'));
    books?.subscribers.add(peer as unknown as Peer);
    books?.greet?.(peer as unknown as Peer);
    for (let second = 0; second < 121; second++) pair.advance((now += 1000));
    const [snapshot, ...resting] = texts.map((text) => (JSON.parse(text) as Frame).data?.[0] as Data);
    assert.equal(snapshot?.bids.length, 400);
    assert.equal(resting.length, 2);
    for (const { asks, bids, seqId, prevSeqId } of resting) {
      assert.deepEqual([asks, bids, seqId, prevSeqId], [[], [], snapshot?.seqId, snapshot?.seqId]);
    }
    assert.equal(Number(resting[1]?.ts) - Number(resting[0]?.ts), 60_000);
    assert.ok(
      wire.ledger.report({}, null).streams.every(({ sent }) => sent === 0),
      'nothing of it is a row',
    );
    // What lies beyond the 400 best levels is not told of.
    assert.ok(
      new OkxBooks('okx_derivatives', listed, market, wire).answer(5000).split('],[').length <= 801,
      '400 levels a side at most',
    );
  });
});

describe('limits', () => {
  it('a connection may subscribe and unsubscribe 480 times in an hour', async () => {
    const sim = await start({ exchanges: ['okx_spot'] });
    const client = await Client.open(sim, 'okx_spot', BUSINESS);
    for (let request = 0; request < 481; request++) {
      const op = request % 2 === 0 ? 'subscribe' : 'unsubscribe';
      client.ask({ id: String(request), op, args: [{ channel: 'trades-all', instId: 'BTC-USDT' }] });
    }
    await until('all answers', () => client.events.length === 481);
    const refused = client.events.filter(({ event }) => event === 'error');
    assert.deepEqual(
      refused.map(({ id, code }) => [id, code]),
      [['480', '60014']],
    );
    assert.equal(client.closeCode, null);
  });

  it('a client that pings stays; one that says nothing is closed, although data flows', async () => {
    const sim = await start({ exchanges: ['okx_spot'], heartbeat: { pingEveryMs: 200, pongWithinMs: 1000 } });
    const [alive, dead] = [await Client.open(sim, 'okx_spot', PUBLIC), await Client.open(sim, 'okx_spot', PUBLIC)];
    for (const each of [alive, dead]) each.subscribe('BTC-USDT', 'books');
    const pinging = setInterval(() => alive.ask('ping'), 100);
    try {
      await until('the silent one is closed', () => dead.closeCode !== null);
      const pongs = (): number => alive.texts.filter((text) => text === 'pong').length;
      const before = pongs();
      await until('pongs', () => pongs() > before + 12);
    } finally {
      clearInterval(pinging);
    }
    assert.equal(alive.closeCode, null);
    assert.ok(dead.of('books').length > 0, 'data flowed');
    assert.equal(sim.ledger().closed_pong, 1);
  });

  it('each endpoint has a limit of its own in 2 s, the ratios one per instrument', async () => {
    const limits = new RequestLimits();
    const ratio = '/api/v5/rubik/stat/contracts/long-short-account-ratio-contract';
    const allowed = (path: string, now: number): number => {
      const [name = '', query] = path.split('?');
      let count = 0;
      const request = { method: 'GET', path: name, query: new URLSearchParams(query), body: '' };
      while (count < 500 && limits.take(request, now)) count++;
      return count;
    };
    assert.equal(allowed(`${ratio}?instId=BTC-USDT-SWAP`, 10_000), 5);
    assert.equal(allowed(`${ratio}?instId=ETH-USDT-SWAP`, 10_000), 5);
    assert.equal(allowed('/api/v5/market/history-trades?instId=BTC-USDT', 10_000), 20);
    assert.equal(allowed('/api/v5/market/history-trades?instId=ETH-USDT', 10_000), 0);
    assert.equal(allowed(`${ratio}?instId=BTC-USDT-SWAP`, 12_000), 5);
    const sim = await start({ exchanges: ['okx_derivatives'] });
    const path = `${ratio}?instId=BTC-USDT-SWAP&period=5m`;
    let last = await get(sim, 'okx_derivatives', path);
    for (let asked = 0; asked < 500 && last.status === 200; asked++) last = await get(sim, 'okx_derivatives', path);
    assert.equal(last.status, 429);
    assert.equal((JSON.parse(last.body) as Frame).code, '50011');
    assert.equal((await ask(sim, 'okx_derivatives', '/api/v5/public/time')).code, '0');
  });
});

describe('REST', () => {
  it('has the lists, errors and pages of the venue', async () => {
    const sim = await start({ exchanges: ['okx_spot', 'okx_derivatives'], tradesPerSecond: 500 });
    type Line = Record<string, string>;
    const list = async (exchange: Exchange, query: string) =>
      ask<Line>(sim, exchange, `/api/v5/public/instruments?${query}`);
    const [swap] = (await list('okx_derivatives', 'instType=SWAP')).data as [Line];
    const { instId, ctVal, ctMult, ctValCcy, ctType, lotSz, tickSz, settleCcy, uly } = swap;
    assert.deepEqual(
      [instId, ctVal, ctMult, ctValCcy, ctType, lotSz, tickSz, settleCcy, uly],
      ['BTC-USDT-SWAP', '0.01', '1', 'BTC', 'linear', '0.01', '0.1', 'USDT', 'BTC-USDT'],
    );
    const [spot] = (await list('okx_spot', 'instType=SPOT&instId=BTC-USDT')).data as [Line];
    assert.deepEqual([spot.ctVal, spot.baseCcy, spot.lotSz, spot.minSz], ['', 'BTC', '0.00000001', '0.00001']);
    assert.deepEqual((await list('okx_derivatives', 'instType=FUTURES')).data, []);
    assert.equal((await list('okx_derivatives', 'instType=SWAP&instId=NOPE')).code, '51001');
    const codes = async (path: string) => {
      const { status, code } = await ask(sim, 'okx_derivatives', path);
      return [status, code];
    };
    assert.deepEqual(await codes('/api/v5/public/instruments'), [400, '50014']);
    assert.deepEqual(await codes('/api/v5/public/instruments?instType=OPTION'), [400, '50015']);
    assert.deepEqual(await codes('/api/v5/market/books?instId=NOPE'), [200, '51001']);
    assert.deepEqual(await codes('/api/v5/public/funding-rate?instId=NOPE'), [200, '51001']);
    assert.deepEqual(await codes('/api/v5/nothing'), [404, '404']);

    const history = '/api/v5/market/history-trades?instId=BTC-USDT';
    const ids = async (query: string): Promise<number[]> =>
      (await ask(sim, 'okx_spot', `${history}${query}`)).data.map(({ tradeId }) => Number(tradeId));
    while ((await ids('')).length < 100) await new Promise((done) => setTimeout(done, 50));
    sim.apply({ action: 'stop' });
    const newest = await ids('');
    const [last] = newest as [number];
    assert.deepEqual(
      newest,
      Array.from({ length: 100 }, (_, place) => last - place),
    );
    assert.deepEqual(await ids(`&after=${last - 10}&limit=3`), [last - 11, last - 12, last - 13]);
    // Alone it does not begin next to the cursor but with the newest.
    assert.deepEqual(await ids(`&before=${last - 50}&limit=2`), [last, last - 1]);
    assert.deepEqual(await ids(`&before=${last - 12}&after=${last - 9}`), [last - 10, last - 11]);
    assert.deepEqual(await ids('&after=1'), []);
    assert.equal((await ids('&type=2')).length, 100);
    assert.equal((await ask(sim, 'okx_spot', `${history}&type=2&before=${last}`)).code, '50039');
    const { data: trades } = await ask(sim, 'okx_spot', '/api/v5/market/trades?instId=BTC-USDT&limit=500');
    assert.equal(Number(trades[0]?.tradeId), last);
    assert.deepEqual(Object.keys(trades[0] ?? {}), ['instId', 'tradeId', 'px', 'sz', 'side', 'ts', 'source']);
    const { data: books } = await ask(sim, 'okx_spot', '/api/v5/market/books?instId=BTC-USDT&sz=7');
    assert.deepEqual([books[0]?.bids.length, books[0]?.asks.length], [7, 7]);
    const rubik = '/api/v5/rubik/stat/contracts/long-short-position-ratio-contract-top-trader?instId=BTC-USDT-SWAP';
    const { data: ratios } = await ask<[string, string]>(sim, 'okx_derivatives', `${rubik}&period=1H&limit=4`);
    const times = ratios.map(([ts]) => Number(ts));
    assert.ok(
      times.every((ts, place) => ts % 3_600_000 === 0 && ts === (times[0] as number) - place * 3_600_000),
      'ratios lie on boundaries, newest first',
    );
    assert.equal(times.length, 4);
    const { data: rates } = await ask<Line>(
      sim,
      'okx_derivatives',
      '/api/v5/public/funding-rate-history?instId=BTC-USDT-SWAP&limit=3',
    );
    assert.deepEqual(
      rates.map(({ fundingTime }) => Number(rates[0]?.fundingTime) - Number(fundingTime)),
      [0, 8, 16].map((hours) => hours * 3_600_000),
    );
  });

  it('refuses on demand: 429 with the code of the venue, 403 as a page', async () => {
    const sim = await start({ exchanges: ['okx_spot'] });
    sim.apply({ action: 'rest', exchange: 'okx_spot', status: 429, count: 1 });
    sim.apply({ action: 'rest', exchange: 'okx_spot', status: 403, count: 1 });
    const limited = await get(sim, 'okx_spot', '/api/v5/public/time');
    assert.deepEqual([limited.status, JSON.parse(limited.body).code], [429, '50011']);
    const blocked = await get(sim, 'okx_spot', '/api/v5/public/time');
    assert.deepEqual([blocked.status, blocked.type], [403, 'text/html']);
    assert.match(blocked.body, /^<html>/);
    assert.equal((await ask(sim, 'okx_spot', '/api/v5/public/time')).code, '0');
    assert.equal(sim.ledger().rest_refused, 2);
  });
});

describe('liquidations', () => {
  it('come one to a frame or several, not in the order of time, and each counts once by what it is', async () => {
    const sim = await start({
      exchanges: ['okx_derivatives'],
      symbols: ['BTC-USDT', 'ETH-USDT', 'SOL-USDT', 'XRP-USDT'],
      liquidationsPerMinute: 60,
    });
    const clients = [
      await Client.open(sim, 'okx_derivatives', PUBLIC),
      await Client.open(sim, 'okx_derivatives', PUBLIC),
    ];
    for (const each of clients) {
      each.ask({ op: 'subscribe', args: [{ channel: 'liquidation-orders', instType: 'SWAP' }] });
    }
    const told = (): Data[] => (clients[0] as Client).of('liquidation-orders');
    await until('both kinds', () => [1, 2].every((size) => told().some(({ details }) => details.length === size)));
    sim.apply({ action: 'stop' });
    await allArrived(sim, ...clients);
    const worth: Record<string, number> = { BTC: 0.01, ETH: 0.1, SOL: 1, XRP: 100 };
    for (const [base, contract] of Object.entries(worth)) {
      const rows = told().filter(({ instId }) => instId === `${base}-USDT-SWAP`);
      const named = rows.flatMap(({ details }) =>
        details.map(({ bkPx, side, sz, ts }) =>
          [`${base}-USDT`, side, bkPx, String(Number((Number(sz) * contract).toFixed(8))), ts].join('|'),
        ),
      );
      assert.deepEqual(
        sim.keys({ exchange: 'okx_derivatives', symbol: `${base}-USDT`, data_type: 'liquidation' }),
        named,
      );
    }
    const pair = told().find(({ details }) => details.length === 2);
    assert.ok(Number(pair?.details[0]?.ts) > Number(pair?.details[1]?.ts), 'the later one comes first');
    assert.equal(sim.ledger().streams.filter(({ data_type }) => data_type === 'trade').length, 4);
  });
});

describe('faults', () => {
  async function open(options = {}): Promise<{ sim: Simulator; client: Client; books: () => Data[] }> {
    const sim = await start({
      exchanges: ['okx_derivatives'],
      symbols: ['BTC-USDT', 'ETH-USDT'],
      diffsPerSecond: 50,
      ...options,
    });
    const client = await Client.open(sim, 'okx_derivatives', PUBLIC);
    for (const symbol of ['BTC-USDT-SWAP', 'ETH-USDT-SWAP']) client.subscribe(symbol, 'books');
    const books = () => client.of('books', 'BTC-USDT-SWAP');
    await until('updates', () => books().length > 2);
    return { sim, client, books };
  }
  const target = { exchange: 'okx_derivatives', symbol: 'BTC-USDT', data_type: 'orderbook_update' } as const;
  const breaks = (told: Data[]): number =>
    told.filter((each, place) => place > 0 && each.prevSeqId !== told[place - 1]?.seqId).length;

  it('dropped updates break the chain once, and are counted', async () => {
    const { sim, client, books } = await open();
    sim.apply({ action: 'drop', ...target, count: 3 });
    const before = books().length;
    await until('more', () => books().length > before + 5);
    assert.equal(breaks(books()), 1);
    assert.equal(breaks(client.of('books', 'ETH-USDT-SWAP')), 0);
    assert.equal(line(sim, 'okx_derivatives', 'orderbook_update').dropped, 3);
  });

  it('silence withholds one symbol only, its new snapshots too, and ends', async () => {
    const { sim, client, books } = await open();
    sim.apply({ action: 'silence', ...target, seconds: 0.5 });
    const arg = { channel: 'books', instId: 'BTC-USDT-SWAP' };
    client.ask({ op: 'unsubscribe', args: [arg] });
    client.ask({ op: 'subscribe', args: [arg] });
    await until('both answers', () => client.events.length === 4);
    const before = books().length;
    await until('it ends', () => books().length > before + 3);
    assert.equal(client.frames.filter(({ action }) => action === 'snapshot').length, 2);
    assert.ok(line(sim, 'okx_derivatives', 'orderbook_update').dropped > 0, 'updates were withheld');
    assert.equal(line(sim, 'okx_derivatives', 'orderbook_update', 'ETH-USDT').dropped, 0);
  });

  it('repeated and swapped frames are counted once, garbage not at all, and the book is right after a stop', async () => {
    const { sim, client, books } = await open();
    sim.apply({ action: 'repeat', ...target, count: 3 });
    await until('repeats', () => sim.ledger().repeated === 3);
    sim.apply({ action: 'reorder', ...target, count: 2 });
    await until('swaps', () => sim.ledger().reordered === 2);
    sim.apply({ action: 'garbage', exchange: 'okx_derivatives', count: 5 });
    await until('garbage', () => client.texts.includes('[]'));
    // Held at the stop: nothing may wait for a frame that does not come.
    sim.apply({ action: 'reorder', ...target, count: 1 });
    sim.apply({ action: 'stop' });
    await allArrived(sim, client);
    const updates = books()
      .filter(({ seqId }) => typeof seqId === 'number')
      .slice(1);
    const ids = updates.map(({ seqId }) => seqId);
    assert.equal(ids.filter((id, place) => id === ids[place - 1]).length, 3);
    assert.equal(ids.filter((id, place) => id < (ids[place - 1] ?? 0)).length, 2);
    const { sent, dropped } = line(sim, 'okx_derivatives', 'orderbook_update');
    assert.deepEqual([sent, dropped, sim.ledger().garbage], [new Set(ids).size, 0, 5]);
    const { data } = await ask(sim, 'okx_derivatives', '/api/v5/market/books?instId=BTC-USDT-SWAP');
    assert.equal(data[0]?.seqId, Math.max(...ids));
    const { frames } = sim.ledger();
    sim.apply({ action: 'start' });
    await until('it goes on', () => sim.ledger().frames > frames + 5);
    await until('unbroken', () => books().length > updates.length + 3);
    const next = books().find(({ prevSeqId }) => prevSeqId === Math.max(...ids));
    assert.ok(next, 'the chain goes on after a stop');
  });

  it('a swapped snapshot comes after the update that follows it', async () => {
    const { sim, books } = await open();
    sim.apply({ action: 'silence', exchange: 'okx_derivatives', symbol: 'ETH-USDT', seconds: 60 });
    const late = await Client.open(sim, 'okx_derivatives', PUBLIC);
    sim.apply({ action: 'stop' });
    sim.apply({ action: 'reorder', ...target });
    late.subscribe('BTC-USDT-SWAP', 'books');
    await until('the answer', () => late.events.length === 1);
    sim.apply({ action: 'start' });
    await until('both', () => late.of('books').length > 3);
    const actions = late.of('books').map(({ action }) => action);
    assert.deepEqual(actions.slice(0, 3), ['update', 'snapshot', 'update']);
    assert.ok(books().length > 0 && sim.ledger().reordered === 1, 'one frame was swapped');
  });

  it('a subscription is acknowledged for nothing, notices and closes reach every socket', async () => {
    const { sim, client } = await open();
    sim.apply({ action: 'ack_silent', exchange: 'okx_derivatives' });
    const deceived = await Client.open(sim, 'okx_derivatives', BUSINESS);
    deceived.subscribe('BTC-USDT-SWAP', 'trades-all');
    const served = await Client.open(sim, 'okx_derivatives', BUSINESS);
    await until('the acknowledgement', () => deceived.events.length === 1);
    served.subscribe('BTC-USDT-SWAP', 'trades-all');
    await until('fills', () => served.of('trades-all').length > 10);
    assert.equal(deceived.of('trades-all').length, 0);
    sim.apply({ action: 'shutdown_notice', exchange: 'okx_derivatives' });
    await until('the notice', () =>
      [client, deceived].every(({ events }) => events.some(({ code }) => code === '64008')),
    );
    const [own, other] = [client, deceived].map(({ events }) => events.at(-1)?.connId);
    assert.ok(own === client.events[0]?.connId && own !== other, 'each socket is told its own name');
    sim.apply({ action: 'close', exchange: 'okx_derivatives' });
    await until('all are closed', () => [client, deceived, served].every(({ closeCode }) => closeCode === 1006));
    await until('none is left', () => sim.ledger().sockets.okx_derivatives === 0);
  });
});

const SESSION = join(SHARED, 'cryptofeed', 'okx', 'OKX.ws.1.0');

describe('replay', { skip: missing(SESSION) }, () => {
  const INSTRUMENTS: [Exchange, string][] = [
    ['okx_spot', 'BTC-USDT'],
    ['okx_derivatives', 'UNI-USD-SWAP'],
    ['okx_derivatives', 'BTC-USD-220527'],
  ];
  /** What the clients of `play` get, in its order: recorded channel, and whether of the spot market. */
  const ORDER: [string, boolean][] = [
    ['books', true],
    ['trades', true],
    ['books', false],
    ['trades', false],
  ];
  const replays = (change = {}) =>
    (['okx_spot', 'okx_derivatives'] as const).map((exchange) => ({ exchange, file: SESSION, ...change }));

  /** Plays the session to the collector's feeds, over sockets, and asks anew for books that broke. */
  async function play(sim: Simulator) {
    const runs = {
      okx_spot: feedHarness(okxSpot, Date.now() * 1000),
      okx_derivatives: feedHarness(okxDerivatives, Date.now() * 1000),
    };
    for (const { path } of okxDerivatives.instrumentLists ?? []) {
      runs.okx_derivatives.rest(path, JSON.parse((await get(sim, 'okx_derivatives', path)).body));
    }
    const clients: Client[] = [];
    for (const exchange of ['okx_spot', 'okx_derivatives'] as const) {
      const ids = INSTRUMENTS.filter(([own]) => own === exchange).map(([, id]) => id);
      for (const [path, channel] of [
        [PUBLIC, 'books'],
        [BUSINESS, 'trades-all'],
      ] as const) {
        const client = await Client.open(sim, exchange, path);
        clients.push(client);
        client.socket.on('message', (text: Buffer) => {
          const run = runs[exchange];
          const before = run.told('resubscribe').length;
          run.frame(text.toString(), Date.now() * 1000);
          for (const { channels } of run.told('resubscribe').slice(before)) {
            const args = channels.map((name) => ({ channel: 'books', instId: name.split(':')[1] }));
            for (const op of ['unsubscribe', 'subscribe']) client.ask({ op, args });
          }
        });
        client.ask({ op: 'subscribe', args: ids.map((instId) => ({ channel, instId })) });
      }
    }
    await until('the end', () => sim.ledger().replay_done === true);
    await allArrived(sim, ...clients);
    return { runs, clients };
  }

  it('serves the recorded bytes in order: all 290 checksums hold at the collector, and all 74 fills come', async () => {
    const sim = await start({ exchanges: ['okx_spot', 'okx_derivatives'], replays: replays() });
    const { runs, clients } = await play(sim);
    const books = Object.values(runs).flatMap((run) => run.of('orderbook'));
    assert.equal(books.length, 290);
    assert.ok(
      books.every(({ verified }) => verified === 'verified'),
      'every checksum holds',
    );
    assert.deepEqual(
      Object.values(runs).flatMap(({ events }) => events.filter(({ kind }) => kind !== 'ack' && kind !== 'ignored')),
      [],
    );
    assert.equal(Object.values(runs).flatMap((run) => run.of('trade')).length, 74);
    const recorded = recordedFrames(SESSION).map(({ text }) => text);
    for (const [place, [channel, isSpot]] of ORDER.entries()) {
      const own = recorded.filter(
        (text) =>
          text.includes(`{"channel":"${channel}"`) && text.includes('"data"') && text.includes('BTC-USDT') === isSpot,
      );
      const served = clients[place]?.texts.filter((text) => !text.includes('"event"')) ?? [];
      assertSame(
        served,
        own.map((text) => text.replace('"channel":"trades"', '"channel":"trades-all"')),
        `${channel} as recorded`,
      );
    }
    const { streams, book_snapshots } = sim.ledger();
    const sum = (type: string): number =>
      streams.filter(({ data_type }) => data_type === type).reduce((total, { sent }) => total + sent, 0);
    assert.deepEqual([sum('orderbook_update'), sum('trade'), book_snapshots], [287, 74, 0]);
    assert.ok(
      clients.every(({ closeCode }) => closeCode === null),
      'sockets stay open',
    );
    const { data } = await ask(sim, 'okx_spot', '/api/v5/market/trades?instId=BTC-USDT&limit=2');
    assert.deepEqual([data.length, Number(data[0]?.tradeId) - Number(data[1]?.tradeId)], [2, 1]);
    const { data: list } = await ask<Record<string, string>>(
      sim,
      'okx_derivatives',
      '/api/v5/public/instruments?instType=SWAP&instId=UNI-USD-SWAP',
    );
    assert.deepEqual([list[0]?.ctVal, list[0]?.ctType], ['10', 'inverse']);
  });

  it('a missing update is found by the next checksum, and a new snapshot of the recorded book sets it right', async () => {
    const sim = await start({
      exchanges: ['okx_spot', 'okx_derivatives'],
      replays: replays({ dropDiff: 40, speed: 10 }),
    });
    const { runs } = await play(sim);
    for (const [exchange, run] of Object.entries(runs)) {
      assert.deepEqual(
        run.told('resync').map(({ cause }) => cause),
        ['checksum'],
        exchange,
      );
      const rows = run.of('orderbook_update');
      const [broken] = run.told('resync');
      const renewed = rows.filter(({ is_snapshot }) => is_snapshot).at(-1);
      assert.ok(Number(renewed?.timestamp) >= Number(broken?.next), 'the snapshot is of a later book');
      const after = run
        .of('orderbook')
        .filter(
          ({ timestamp, instrument }) => instrument === renewed?.instrument && timestamp >= Number(renewed?.timestamp),
        );
      assert.ok(after.length > 0 && after.every(({ verified }) => verified === 'verified'), 'the checksums hold again');
    }
    // Who comes late to a session on a clock begins with the book as it stands there.
    const late = await Client.open(sim, 'okx_spot', PUBLIC);
    late.subscribe('BTC-USDT', 'books');
    await until('the last book', () => late.of('books').length > 0);
    const run = feedHarness(okxSpot, Date.now() * 1000);
    for (const text of late.texts) run.frame(text);
    assert.deepEqual(
      run.of('orderbook').map(({ verified, timestamp }) => [verified, timestamp]),
      [['verified', runs.okx_spot.of('orderbook').at(-1)?.timestamp]],
    );
    const dropped = sim.ledger().streams.filter(({ dropped: count }) => count > 0);
    assert.deepEqual(
      dropped.map(({ dropped: count }) => count),
      [1, 1],
    );
  });
});
