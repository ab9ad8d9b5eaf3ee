/** The simulated exchanges as their clients see them: real sockets, the venue's own rules, and a ledger that must agree. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { Simulator } from '../scripts/exchange_sim.ts';
import { gridOf } from '../scripts/lib/sim/binance.ts';
import { type Diff, fairPrice, Market, seededRandom } from '../scripts/lib/sim/market.ts';
import {
  assertSame,
  Book,
  Client,
  type Data,
  depth,
  type Exchange,
  get,
  type Snapshot,
  sent,
  start,
  until,
} from './sim_client.ts';

describe('conversation', () => {
  it('spot acknowledges unwrapped and sends each stream with the fields of the venue', async () => {
    const sim = await start();
    const client = await Client.open(sim, 'binance_spot', '/stream');
    client.subscribe(['btcusdt@trade', 'btcusdt@depth@100ms', 'btcusdt@bookTicker', 'nosuch@trade'], 7);
    await until('all streams speak', () =>
      ['trade', 'depth@100ms', 'bookTicker'].every((name) => client.of(`btcusdt@${name}`).length > 0),
    );
    assert.deepEqual(client.acks, [{ result: null, id: 7 }]);
    const [trade] = client.of('btcusdt@trade');
    assert.deepEqual(Object.keys(trade as Data), ['e', 'E', 's', 't', 'p', 'q', 'T', 'm', 'M']);
    assert.match((trade as Data).p, /^\d+\.\d{8}$/);
    assert.deepEqual(Object.keys(client.of('btcusdt@depth@100ms')[0] as Data), ['e', 'E', 's', 'U', 'u', 'b', 'a']);
    assert.deepEqual(Object.keys(client.of('btcusdt@bookTicker')[0] as Data), ['u', 's', 'b', 'B', 'a', 'A']);
    client.ask({ method: 'LIST_SUBSCRIPTIONS', id: 'x' });
    await until('the list', () => client.acks.length === 2);
    assert.ok(
      (client.acks as { result: string[] | null }[])[1]?.result?.includes('nosuch@trade'),
      'an unknown stream is listed too',
    );
    assert.equal(client.of('nosuch@trade').length, 0);
  });

  it('streams named in the path flow at once, raw on /ws and wrapped on /stream', async () => {
    const sim = await start();
    const raw = await Client.open(sim, 'binance_spot', '/ws/btcusdt@trade');
    const wrapped = await Client.open(sim, 'binance_spot', '/stream?streams=btcusdt@trade/btcusdt@depth@100ms');
    await until(
      'both speak',
      () =>
        raw.texts.length > 0 && wrapped.of('btcusdt@trade').length > 0 && wrapped.of('btcusdt@depth@100ms').length > 0,
    );
    assert.ok(raw.texts[0]?.startsWith('{"e":"trade"'));
    await assert.rejects(Client.open(sim, 'binance_spot', '/public/stream'), /404/);
  });

  it('USDⓈ-M sends each class on its own route only, and acknowledges the rest in silence', async () => {
    const sim = await start();
    const streams = ['btcusdt@aggTrade', 'btcusdt@trade', 'btcusdt@depth@100ms', 'btcusdt@bookTicker'];
    const routes = ['/public/stream', '/market/stream', '/stream'];
    const clients = await Promise.all(routes.map((path) => Client.open(sim, 'binance_derivatives', path)));
    for (const client of clients) client.subscribe(streams);
    const isHeard = (client: Client | undefined, name: string): boolean =>
      (client?.of(`btcusdt@${name}`).length ?? 0) > 5;
    const [open, market, unrouted] = clients;
    await until(
      'both classes speak',
      () =>
        isHeard(open, 'trade') &&
        isHeard(market, 'aggTrade') &&
        isHeard(unrouted, 'depth@100ms') &&
        isHeard(unrouted, 'trade'),
    );
    for (const client of clients) assert.deepEqual(client.acks, [{ result: null, id: 1 }]);
    assert.equal(open?.of('btcusdt@aggTrade').length, 0);
    assert.equal(unrouted?.of('btcusdt@aggTrade').length, 0);
    assert.deepEqual(new Set(market?.frames.map(({ stream }) => stream)), new Set(['btcusdt@aggTrade']));
    const keys = (client: Client | undefined, name: string): string =>
      Object.keys(client?.of(`btcusdt@${name}`)[0] ?? {}).join(' ');
    assert.equal(keys(open, 'depth@100ms'), 'e E T s ps U u pu b a st');
    assert.equal(keys(open, 'bookTicker'), 'e u E T s ps b B a A st');
    assert.equal(keys(open, 'trade'), 'e E T s t p q X m st');
    assert.equal(keys(market, 'aggTrade'), 'e E s a p q nq f l T m st');
  });

  it('bad requests get an error frame, properties change the wrapping, and UNSUBSCRIBE ends a stream', async () => {
    const sim = await start({ tradesPerSecond: 200 });
    const spot = await Client.open(sim, 'binance_spot', '/ws');
    spot.ask('{"method":');
    spot.ask({ method: 'SUBSCRIB', id: 2 });
    spot.ask({ method: 'SET_PROPERTY', params: ['combined', true], id: 3 });
    await until('three answers', () => spot.acks.length === 3);
    const [bad, unknown, done] = spot.acks as { code: number; msg: string; id: unknown }[];
    assert.deepEqual([bad?.code, bad?.id, unknown?.code, unknown?.id], [3, null, 2, 2]);
    assert.match(unknown?.msg ?? '', /^Invalid request: unknown variant `SUBSCRIB`/);
    assert.deepEqual(done, { result: null, id: 3 });
    const usdm = await Client.open(sim, 'binance_derivatives', '/public/ws');
    usdm.ask({ method: 'SUBSCRIBE', params: 'btcusdt@trade', id: 4 });
    await until('an answer', () => usdm.acks.length === 1);
    assert.equal((usdm.acks[0] as { error: { code: number } }).error.code, 2);
    spot.subscribe(['btcusdt@trade'], 5);
    await until('wrapped trades', () => spot.of('btcusdt@trade').length > 3);
    spot.ask({ method: 'UNSUBSCRIBE', params: ['btcusdt@trade'], id: 6 });
    await until('the acknowledgement', () => spot.acks.length === 5);
    const frames = spot.frames.length;
    const witness = await Client.open(sim, 'binance_spot', '/stream?streams=btcusdt@trade');
    await until('others still get trades', () => witness.frames.length > 5);
    assert.equal(spot.frames.length, frames);
  });

  it('REST answers with weights, prefix limits and the error bodies of the venue', async () => {
    const sim = await start({ symbols: ['BTC-USDT', 'NEW-USDT'] });
    const invalid = await get(sim, 'binance_spot', '/api/v3/depth?symbol=NOPE');
    assert.deepEqual([invalid.status, invalid.body], [400, '{"code":-1121,"msg":"Invalid symbol."}']);
    const five = await get(sim, 'binance_derivatives', '/fapi/v1/depth?symbol=NEWUSDT&limit=5');
    assert.equal((JSON.parse(five.body) as Snapshot).bids.length, 5);
    assert.equal(five.headers.get('x-mbx-used-weight-1m'), '2');
    assert.equal((await get(sim, 'binance_derivatives', '/fapi/v1/depth?symbol=BTCUSDT&limit=7')).status, 400);
    const deep = await depthOf5000(sim);
    assert.ok(deep.bids.length >= 1200 && deep.asks.length >= 1200);
    const info = JSON.parse((await get(sim, 'binance_spot', '/api/v3/exchangeInfo')).body) as {
      symbols: { symbol: string }[];
    };
    assert.deepEqual(
      info.symbols.map(({ symbol }) => symbol),
      ['BTCUSDT', 'NEWUSDT'],
    );
    assert.match((await get(sim, 'binance_spot', '/api/v3/time')).body, /^\{"serverTime":\d{13}\}$/);
    let last = await get(sim, 'binance_spot', '/api/v3/ping');
    for (let request = 0; request < 60 && last.status === 200; request++) {
      last = await get(sim, 'binance_spot', '/api/v3/depth?symbol=BTCUSDT&limit=5000');
    }
    assert.equal(last.status, 429);
    assert.match(last.body, /^\{"code":-1003,"msg":"Too much request weight used; current limit is 6000/);
    assert.ok(Number(last.headers.get('retry-after')) >= 1);
  });

  async function depthOf5000(sim: Simulator): Promise<Snapshot> {
    return JSON.parse((await get(sim, 'binance_spot', '/api/v3/depth?symbol=BTCUSDT&limit=5000')).body) as Snapshot;
  }
});

describe('limits', () => {
  it('a client that talks too fast, or asks for too many streams, is disconnected', async () => {
    const sim = await start();
    const chatty = await Client.open(sim, 'binance_spot', '/ws');
    for (let id = 0; id < 6; id++) chatty.ask({ method: 'LIST_SUBSCRIPTIONS', id });
    await until('the sixth message closes it', () => chatty.closeCode !== null);
    const greedy = await Client.open(sim, 'binance_derivatives', '/market/ws');
    for (let id = 0; id < 6; id++) greedy.ask({ method: 'LIST_SUBSCRIPTIONS', id });
    await until('six are fine here', () => greedy.acks.length === 6);
    greedy.subscribe(Array.from({ length: 1025 }, (_, index) => `s${index}@aggTrade`));
    await until('too many streams', () => greedy.closeCode !== null);
    const { closed_rate, closed_streams } = sim.ledger();
    assert.deepEqual({ closed_rate, closed_streams }, { closed_rate: 1, closed_streams: 1 });
  });

  it('a client that answers pings stays, one that does not is closed', async () => {
    const sim = await start({ heartbeat: { pingEveryMs: 200, pongWithinMs: 1000 } });
    const alive = await Client.open(sim, 'binance_spot', '/ws');
    const dead = await Client.open(sim, 'binance_spot', '/ws', { autoPong: false });
    let pings = 0;
    alive.socket.on('ping', () => pings++);
    await until('the dead one is closed', () => dead.closeCode !== null && pings > 2);
    assert.equal(alive.closeCode, null);
    assert.equal(sim.ledger().closed_pong, 1);
  });

  it('a client that does not read is closed before it costs more than a bounded memory', async () => {
    const sim = await start({ tradesPerSecond: 30_000, diffsPerSecond: 600, exchanges: ['binance_spot'] });
    const idle = await Client.open(
      sim,
      'binance_spot',
      '/stream?streams=btcusdt@trade/btcusdt@aggTrade/btcusdt@bookTicker/btcusdt@depth@100ms',
    );
    idle.socket.pause();
    await until('it is closed', () => sim.ledger().closed_slow === 1);
    await until('its socket is gone', () => sim.ledger().sockets.binance_spot === 0);
    idle.socket.terminate();
  });
});

/** Follows one symbol for a while at a high rate, by the venue's own rules, and compares with every answer it gives. */
async function follow(exchange: Exchange): Promise<void> {
  const isSpot = exchange === 'binance_spot';
  const sim = await start({ exchanges: [exchange], tradesPerSecond: 1500, diffsPerSecond: 300, seed: 5 });
  const books = await Client.open(sim, exchange, isSpot ? '/stream' : '/public/stream');
  const trades = await Client.open(sim, exchange, isSpot ? '/stream' : '/market/stream');
  books.subscribe(['btcusdt@depth@100ms', 'btcusdt@bookTicker']);
  const tradeStream = isSpot ? 'btcusdt@trade' : 'btcusdt@aggTrade';
  trades.subscribe([tradeStream]);
  await until('diffs are buffered', () => books.of('btcusdt@depth@100ms').length > 2);
  const snapshot = await depth(sim, exchange);
  assert.equal(snapshot.bids.length, 1000);
  const { length: before } = books.of('btcusdt@depth@100ms');
  await until('many diffs', () => books.of('btcusdt@depth@100ms').length > before + 600);
  sim.apply({ action: 'stop' });
  await until('every written frame arrived', () => {
    const { frames } = sim.ledger();
    return books.frames.length + trades.frames.length === frames;
  });

  const diffs = books.of('btcusdt@depth@100ms');
  const tickers = new Map(books.of('btcusdt@bookTicker').map((ticker) => [ticker.u, ticker]));
  const book = new Book(snapshot);
  let compared = 0;
  let previous: Data | undefined;
  let isFirst = true;
  for (const diff of diffs) {
    assert.ok(diff.U <= diff.u);
    if (previous && isSpot) assert.equal(diff.U, previous.u + 1);
    if (previous && !isSpot) assert.equal(diff.pu, previous.u);
    previous = diff;
    if (diff.u <= snapshot.lastUpdateId - (isSpot ? 0 : 1)) continue;
    if (isFirst) assert.ok(diff.U <= snapshot.lastUpdateId + (isSpot ? 1 : 0), 'the first diff covers the snapshot');
    isFirst = false;
    book.apply(diff);
    const [bid, bidQuantity, ask, askQuantity] = book.best();
    assert.ok(Number(bid) < Number(ask), `${bid} < ${ask}`);
    const ticker = tickers.get(diff.u);
    if (!ticker) continue;
    assert.deepEqual([bid, bidQuantity, ask, askQuantity], [ticker.b, ticker.B, ticker.a, ticker.A]);
    compared++;
  }
  assert.ok(compared > 20, `${compared} book tickers at the id of a diff`);
  if (!isSpot)
    assert.ok(
      diffs.some((diff) => diff.U !== (diff.pu as number) + 1),
      'ids have holes',
    );
  // At rest nothing is left to tell: the venue's own book is the client's.
  const final = await depth(sim, exchange);
  assert.equal(final.lastUpdateId, book.id);
  const bids = [...book.bids].sort((one, other) => Number(other[0]) - Number(one[0]));
  assertSame(final.bids.slice(0, 200), bids.slice(0, 200), 'the final bids');
  const bestBids = new Set([...tickers.values()].map((ticker) => Number(ticker.b)));
  assert.ok(bestBids.size > 1, 'the price moved');

  const rows = trades.of(tradeStream);
  const ids = rows.map((row) => (isSpot ? row.t : (row.a as number)));
  const contiguous = ids.map((_, index) => (ids[0] as number) + index);
  assertSame(ids, contiguous, 'trade ids');
  assert.ok(
    rows.some((row, index) => index > 0 && row.T === rows[index - 1]?.T),
    'some trades share a millisecond',
  );
  const line = sent(sim, exchange, 'trade');
  assert.deepEqual([line.sent, line.first_id, line.last_id], [ids.length, String(ids[0]), String(ids.at(-1))]);
  const keys = (dataType: string): string[] => sim.keys({ exchange, symbol: 'BTC-USDT', data_type: dataType });
  assertSame(keys('trade'), ids.map(String), 'keys of trades');
  assertSame(
    keys('orderbook_update'),
    diffs.map(({ u }) => String(u)),
    'keys of diffs',
  );
  assert.deepEqual([sim.ledger().book_tickers, sim.ledger().snapshots], [books.of('btcusdt@bookTicker').length, 2]);
  await compareWithRest(sim, exchange, rows);
}

async function compareWithRest(sim: Simulator, exchange: Exchange, rows: Data[]): Promise<void> {
  const isSpot = exchange === 'binance_spot';
  const from = isSpot ? (rows[10] as Data).t : ((rows[10] as Data).a as number);
  const path = isSpot ? '/api/v3/historicalTrades' : '/fapi/v1/aggTrades';
  const { body } = await get(sim, exchange, `${path}?symbol=BTCUSDT&fromId=${from}&limit=100`);
  const told = JSON.parse(body) as Record<string, unknown>[];
  const heard = rows
    .slice(10, 110)
    .map((row) => (isSpot ? [row.t, row.p, row.q, row.T] : [row.a, row.p, row.q, row.f, row.l, row.T]));
  const names = isSpot ? ['id', 'price', 'qty', 'time'] : ['a', 'p', 'q', 'f', 'l', 'T'];
  assertSame(
    told.map((row) => names.map((name) => row[name])),
    heard,
    'trades over REST',
  );
}

describe('market', () => {
  it('spot: chains, trades, tickers, snapshots and ledger agree at a high rate', () => follow('binance_spot'));
  it('USDⓈ-M: chains, trades, tickers, snapshots and ledger agree at a high rate', () => follow('binance_derivatives'));

  it('is the same for the same seed, however often it is advanced, and keeps its depth for long', () => {
    const run = (steps: number): { text: string; market: Market } => {
      const lines: string[] = [];
      const market = new Market({
        ...gridOf('spot', 'BTC-USDT', 1),
        random: seededRandom(3),
        fair: fairPrice(seededRandom(4)),
        start: 0,
        tradesPerSecond: 200,
        tradeGrain: 'trade',
        diffsPerSecond: 100,
        idsHaveHoles: false,
        history: 1000,
      });
      const sink = {
        trade: ({ id, price, quantity }: { id: number; price: number; quantity: number }) =>
          lines.push(`${id} ${price} ${quantity}`),
        aggregate: () => undefined,
        top: () => assert.ok(market.bestBid < market.bestAsk),
        diff: (_: number, { first, last, bids }: Diff) => lines.push(`${first} ${last} ${[...bids].join()}`),
      };
      market.connect(sink, [{ everyMs: 10, wanted: () => true }]);
      for (let step = 1; step <= steps; step++) market.advance((step * 60_000) / steps);
      return { text: lines.join('\n'), market };
    };
    const fine = run(6000);
    assert.equal(run(77).text, fine.text);
    for (const side of ['bid', 'ask'] as const) assert.ok(fine.market.levels(side, 5000).length >= 1200);
    assert.equal(fine.market.tradesFrom(undefined, 5000).length, 1000, 'the history is bounded');
  });
});

describe('market under strain', () => {
  it('stays together and near its fair price when takers outnumber makers a hundred to one', () => {
    const market = new Market({
      ...gridOf('usdm', 'ETH-USDT', 1),
      random: seededRandom(8),
      fair: () => 1,
      start: 0,
      tradesPerSecond: 20_000,
      tradeGrain: 'aggregate',
      diffsPerSecond: 10,
      idsHaveHoles: true,
      history: 100,
    });
    const middle = market.bestBid;
    for (let now = 500; now <= 20_000; now += 500) {
      market.advance(now);
      assert.ok(market.bestAsk - market.bestBid <= 5, `spread of ${market.bestAsk - market.bestBid} steps`);
      for (const side of ['bid', 'ask'] as const) assert.ok(market.levels(side, 5000).length >= 1200);
    }
    assert.ok(Math.abs(market.bestBid - middle) < 1000);
  });
});

describe('faults', () => {
  it('a dropped diff is missing on the wire, counted, and in the book', async () => {
    const sim = await start({ exchanges: ['binance_spot'], diffsPerSecond: 50 });
    const client = await Client.open(sim, 'binance_spot', '/stream?streams=btcusdt@depth@100ms');
    const diffs = () => client.of('btcusdt@depth@100ms');
    await until('diffs', () => diffs().length > 2);
    sim.apply({
      action: 'drop',
      exchange: 'binance_spot',
      symbol: 'BTC-USDT',
      data_type: 'orderbook_update',
      count: 3,
    });
    const at = diffs().length;
    await until('more diffs', () => diffs().length > at + 5);
    const holes = diffs().filter((diff, index) => index > 0 && diff.U !== (diffs()[index - 1] as Data).u + 1);
    assert.equal(holes.length, 1);
    assert.equal(sent(sim, 'binance_spot', 'orderbook_update').dropped, 3);
  });

  it('silence withholds one symbol only, and ends', async () => {
    const sim = await start({ exchanges: ['binance_spot'], symbols: ['BTC-USDT', 'ETH-USDT'], tradesPerSecond: 200 });
    const client = await Client.open(sim, 'binance_spot', '/stream?streams=btcusdt@trade/ethusdt@trade');
    await until('both speak', () => client.of('btcusdt@trade').length > 5 && client.of('ethusdt@trade').length > 5);
    sim.apply({ action: 'silence', exchange: 'binance_spot', symbol: 'BTC-USDT', seconds: 0.3 });
    const dropped = () => sent(sim, 'binance_spot', 'trade').dropped;
    await until('trades are withheld', () => dropped() > 20);
    const count = client.of('btcusdt@trade').length;
    await until('it ends', () => client.of('btcusdt@trade').length > count + 20);
    sim.apply({ action: 'stop' });
    await until('all arrived', () => client.frames.length === sim.ledger().frames);
    const ids = client.of('btcusdt@trade').map(({ t }) => t);
    assert.equal((ids.at(-1) as number) - (ids[0] as number) + 1 - ids.length, dropped());
    assert.equal(sent(sim, 'binance_spot', 'trade', 'ETH-USDT').dropped, 0);
  });

  it('repeated and swapped frames are counted once, garbage not at all', async () => {
    const sim = await start({ exchanges: ['binance_spot'], tradesPerSecond: 200 });
    const client = await Client.open(sim, 'binance_spot', '/stream?streams=btcusdt@trade');
    await until('trades', () => client.frames.length > 5);
    sim.apply({ action: 'repeat', exchange: 'binance_spot', count: 4 });
    await until('repeats', () => sim.ledger().repeated === 4);
    sim.apply({ action: 'reorder', exchange: 'binance_spot', count: 2 });
    await until('swaps', () => sim.ledger().reordered === 2);
    sim.apply({ action: 'garbage', exchange: 'binance_spot', count: 2 });
    await until('garbage', () => client.texts.some((text) => text.startsWith('upstream')));
    sim.apply({ action: 'stop' });
    await until('all arrived', () => client.texts.length === sim.ledger().frames);
    const ids = client.texts.flatMap((text) => /"t":(\d+)/.exec(text)?.[1] ?? []).map(Number);
    assert.equal(ids.filter((id, index) => id === ids[index - 1]).length, 4);
    assert.equal(ids.filter((id, index) => id < (ids[index - 1] ?? 0)).length, 2);
    const line = sent(sim, 'binance_spot', 'trade');
    assert.deepEqual([line.sent, line.dropped, sim.ledger().garbage], [new Set(ids).size, 0, 2]);
  });

  it('REST refuses on demand, a subscription can be acknowledged for nothing, notices and closes reach every socket', async () => {
    const sim = await start({ exchanges: ['binance_spot'], tradesPerSecond: 200 });
    sim.apply({ action: 'rest', exchange: 'binance_spot', status: 418, retry_after: 120, count: 1 });
    const banned = await get(sim, 'binance_spot', '/api/v3/ping');
    assert.deepEqual([banned.status, banned.headers.get('retry-after')], [418, '120']);
    assert.match(banned.body, /banned until \d{13}\./);
    assert.equal((await get(sim, 'binance_spot', '/api/v3/ping')).status, 200);
    sim.apply({ action: 'ack_silent', exchange: 'binance_spot' });
    const deceived = await Client.open(sim, 'binance_spot', '/stream');
    deceived.subscribe(['btcusdt@trade']);
    await until('the acknowledgement', () => deceived.acks.length === 1);
    const served = await Client.open(sim, 'binance_spot', '/ws');
    served.subscribe(['btcusdt@trade']);
    await until('trades', () => served.texts.length > 20);
    assert.equal(deceived.frames.length, 0);
    sim.apply({ action: 'shutdown_notice', exchange: 'binance_spot' });
    await until(
      'the notice',
      () =>
        deceived.frames[0]?.stream === '!serverShutdown' &&
        served.texts.some((text) => text.startsWith('{"e":"serverShutdown"')),
    );
    sim.apply({ action: 'close', exchange: 'binance_spot' });
    await until('both are closed', () => deceived.closeCode === 1006 && served.closeCode === 1006);
    const { rest_refused, subscriptions_silenced, shutdown_notices, closed_by_control, sockets } = sim.ledger();
    assert.deepEqual([rest_refused, subscriptions_silenced, shutdown_notices, closed_by_control], [1, 1, 2, 2]);
    await until('none is left', () => sim.ledger().sockets.binance_spot === 0);
    assert.ok('binance_spot' in sockets);
  });

  it('control over HTTP: a wrong request is one line that names the field', async () => {
    const sim = await start({ exchanges: ['binance_spot'] });
    const post = async (body: string): Promise<[number, string]> => {
      const answer = await fetch(`${sim.control}/control`, { method: 'POST', body });
      return [answer.status, await answer.text()];
    };
    assert.deepEqual(await post('{"action":"stop"}'), [200, '{"ok":true}\n']);
    for (const [body, field] of [
      ['{"action":"nap"}', 'action'],
      ['{"action":"drop","exchange":"binance_spot","count":0}', 'count'],
      ['{"action":"drop","exchange":"kraken"}', 'exchange'],
      ['{"action":"rest","exchange":"binance_spot","status":200}', 'status'],
      ['{"action":"stop","extra":1}', 'request'],
      ['nonsense', 'request'],
    ] as const) {
      const [status, text] = await post(body);
      assert.equal(status, 400);
      assert.match(text, new RegExp(`^\\{"error":"${field}: [^\\n]+"\\}\\n$`));
    }
    const ledger = (await (await fetch(`${sim.control}/ledger`)).json()) as {
      stopped: number | null;
      replay_done: boolean | null;
    };
    assert.ok(ledger.stopped !== null && ledger.replay_done === null);
    assert.equal((await fetch(`${sim.control}/ledger/keys?exchange=x`)).status, 404);
  });
});
