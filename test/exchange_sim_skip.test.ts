/** Time that a simulated exchange lives through at once: what it makes of it, who is told, and what stays as it was. */
import assert from 'node:assert/strict';
import { afterEach, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { WebSocket } from 'ws';
import { parseAction, type Simulator } from '../scripts/exchange_sim.ts';
import { start, until } from './sim_client.ts';

/** Of the usual rate of 20 a second; the shares of it are far outside of chance. */
const FEWEST_PER_SECOND = 16;
const MOST_PER_SECOND = 24;
/** Trades are 50 to 70 ms apart: a hole of this length is none by chance. */
const LARGEST_HOLE_MS = 5000;
/** Connections are looked at each second. */
const LONGER_THAN_A_CHECK_MS = 1500;
const HOUR_S = 3600;

interface Trade {
  readonly id: number;
  /** Ms since the epoch. */
  readonly time: number;
}

/** A change of a book, and the id on which it builds; null for one that begins anew. */
interface Link {
  readonly previous: number | null;
  readonly last: number;
}

/** How one venue is asked for what all have, always of its BTC. */
interface Probe {
  readonly exchange: string;
  /** Paths of sockets, and what to say there to get trades and the book. */
  readonly sockets: readonly (readonly [path: string, subscribe: object])[];
  readonly tradesIn: (text: string) => Trade[];
  readonly linksIn: (text: string) => Link[];
  /** Kept trades from an id on, oldest first. */
  readonly history: (sim: Simulator, from: number) => Promise<Trade[]>;
  /** The best prices over REST. */
  readonly best: (sim: Simulator) => Promise<{ bid: number; ask: number }>;
  /** Time of a reading over REST in ms; absent on venues of spot. */
  readonly readAt?: (sim: Simulator) => Promise<number>;
}

const sockets: WebSocket[] = [];
afterEach(() => {
  for (const socket of sockets.splice(0)) socket.terminate();
});

/** All sockets of one client of a venue. */
class Reader {
  readonly texts: string[] = [];
  /** Heartbeats of WebSocket that came. */
  pings = 0;
  private readonly mine: WebSocket[] = [];

  private constructor(readonly probe: Probe) {}

  static async open(sim: Simulator, probe: Probe): Promise<Reader> {
    const reader = new Reader(probe);
    for (const [path, subscribe] of probe.sockets) {
      const socket = new WebSocket(`${sim.endpoints[probe.exchange]?.ws}${path}`);
      sockets.push(socket);
      reader.mine.push(socket);
      socket.on('message', (text: Buffer) => reader.texts.push(text.toString('latin1')));
      socket.on('ping', () => reader.pings++);
      await new Promise((done, failed) => socket.once('open', done).once('error', failed));
      socket.send(JSON.stringify(subscribe));
    }
    return reader;
  }

  get isOpen(): boolean {
    return this.mine.every(({ readyState }) => readyState === WebSocket.OPEN);
  }

  get trades(): Trade[] {
    return this.texts.flatMap((text) => this.probe.tradesIn(text));
  }

  get links(): Link[] {
    return this.texts.flatMap((text) => this.probe.linksIn(text));
  }

  /** Waits for the first trade. */
  async first(): Promise<Trade> {
    await until(`a trade of ${this.probe.exchange}`, () => this.trades.length > 0);
    return this.trades[0] as Trade;
  }

  /** Leaves, and waits until the venue knows. @returns the newest trade that came */
  async leave(sim: Simulator): Promise<Trade> {
    for (const socket of this.mine) socket.terminate();
    await until('the sockets are gone', () => sim.ledger().sockets[this.probe.exchange] === 0);
    return this.trades.at(-1) as Trade;
  }
}

async function json<Body>(sim: Simulator, exchange: string, path: string, body?: object): Promise<Body> {
  const init = body && { method: 'POST', body: JSON.stringify(body) };
  const answer = await fetch(`${sim.endpoints[exchange]?.rest}${path}`, init);
  const text = await answer.text();
  assert.equal(answer.status, 200, text);
  return JSON.parse(text) as Body;
}

/** Pages from an id on until there is no more. */
async function pages(from: number, page: (from: number) => Promise<Trade[]>): Promise<Trade[]> {
  const all: Trade[] = [];
  for (;;) {
    const rows = await page((all.at(-1)?.id ?? from - 1) + 1);
    if (rows.length === 0) return all;
    all.push(...rows);
  }
}

type Sides<Level> = { bids: Level[]; asks: Level[] };
const top = ({ bids, asks }: Sides<(string | number)[]>) => ({ bid: Number(bids[0]?.[0]), ask: Number(asks[0]?.[0]) });
/** The part of a frame that is about data. */
const dataIn = <Frame, Data>(text: string, mark: string, pick: (frame: Frame) => Data[]): Data[] =>
  text.includes(mark) ? pick(JSON.parse(text)) : [];

/** A frame with the stream that it belongs to. */
type Combined<Field extends string> = { data: Record<Field, number> };

const binanceSpot: Probe = {
  exchange: 'binance_spot',
  sockets: [['/stream', { method: 'SUBSCRIBE', params: ['btcusdt@trade', 'btcusdt@depth@100ms'], id: 1 }]],
  tradesIn: (text) => dataIn(text, '"e":"trade"', ({ data: { t, T } }: Combined<'t' | 'T'>) => [{ id: t, time: T }]),
  linksIn: (text) =>
    dataIn(text, '"e":"depthUpdate"', ({ data: { U, u } }: Combined<'U' | 'u'>) => [{ previous: U - 1, last: u }]),
  history: (sim, from) =>
    pages(from, async (id) => {
      const path = `/api/v3/historicalTrades?symbol=BTCUSDT&limit=1000&fromId=${id}`;
      return json<Trade[]>(sim, 'binance_spot', path);
    }),
  best: async (sim) => top(await json(sim, 'binance_spot', '/api/v3/depth?symbol=BTCUSDT&limit=1000')),
};

const binanceDerivatives: Probe = {
  exchange: 'binance_derivatives',
  sockets: [
    ['/market/stream', { method: 'SUBSCRIBE', params: ['btcusdt@aggTrade', 'btcusdt@markPrice@1s'], id: 1 }],
    ['/public/stream', { method: 'SUBSCRIBE', params: ['btcusdt@depth@100ms'], id: 1 }],
  ],
  tradesIn: (text) => dataIn(text, '"e":"aggTrade"', ({ data: { a, T } }: Combined<'a' | 'T'>) => [{ id: a, time: T }]),
  linksIn: (text) =>
    dataIn(text, '"e":"depthUpdate"', ({ data: { pu, u } }: Combined<'pu' | 'u'>) => [{ previous: pu, last: u }]),
  history: (sim, from) =>
    pages(from, async (id) => {
      const path = `/fapi/v1/aggTrades?symbol=BTCUSDT&limit=1000&fromId=${id}`;
      const rows = await json<{ a: number; T: number }[]>(sim, 'binance_derivatives', path);
      return rows.map(({ a, T }) => ({ id: a, time: T }));
    }),
  best: async (sim) => top(await json(sim, 'binance_derivatives', '/fapi/v1/depth?symbol=BTCUSDT&limit=1000')),
  readAt: async (sim) => {
    const path = '/fapi/v1/premiumIndex?symbol=BTCUSDT';
    return (await json<{ time: number }>(sim, 'binance_derivatives', path)).time;
  },
};

function okx(exchange: 'okx_spot' | 'okx_derivatives', instId: string): Probe {
  type Row = Record<'tradeId' | 'ts', string>;
  type Update = Record<'seqId' | 'prevSeqId', number>;
  const tradeOf = ({ tradeId, ts }: Row): Trade => ({ id: Number(tradeId), time: Number(ts) });
  const rows = async <Data>(sim: Simulator, path: string): Promise<Data[]> =>
    (await json<{ data: Data[] }>(sim, exchange, path)).data;
  const subscribe = (channel: string) => ({ op: 'subscribe', args: [{ channel, instId }] });
  const linkOf = ({ seqId, prevSeqId }: Update): Link => ({
    previous: prevSeqId === -1 ? null : prevSeqId,
    last: seqId,
  });
  return {
    exchange,
    sockets: [
      ['/ws/v5/business', subscribe('trades-all')],
      ['/ws/v5/public', subscribe('books')],
    ],
    tradesIn: (text) => dataIn(text, '"data":[{"instId"', ({ data }: { data: Row[] }) => data.map(tradeOf)),
    linksIn: (text) => dataIn(text, '"action":', ({ data }: { data: Update[] }) => data.map(linkOf)),
    history: async (sim, from) => {
      const found: Trade[] = [];
      for (let before = Number.MAX_SAFE_INTEGER; ; before = found[0]?.id as number) {
        const path = `/api/v5/market/history-trades?instId=${instId}&limit=100&after=${found[0] ? before : ''}`;
        const page = (await rows<Row>(sim, path)).map(tradeOf).filter(({ id }) => id >= from);
        if (page.length === 0) return found;
        found.unshift(...page.reverse());
      }
    },
    best: async (sim) => top((await rows<Sides<string[]>>(sim, `/api/v5/market/books?instId=${instId}&sz=400`))[0]!),
    ...(exchange === 'okx_derivatives' && {
      readAt: async (sim: Simulator) => {
        const [row] = await rows<{ ts: string }>(sim, `/api/v5/public/funding-rate?instId=${instId}`);
        return Number(row?.ts);
      },
    }),
  };
}

type Notice<Data> = { params: { data: Data } };
const DERIBIT = '/api/v2/public';
const deribit: Probe = {
  exchange: 'deribit_derivatives',
  sockets: [
    [
      '/ws/api/v2',
      {
        jsonrpc: '2.0',
        id: 1,
        method: 'public/subscribe',
        params: { channels: ['trades.BTC-PERPETUAL.100ms', 'book.BTC-PERPETUAL.100ms'] },
      },
    ],
  ],
  tradesIn: (text) => {
    type Row = Record<'trade_seq' | 'timestamp', number>;
    const rows = dataIn(text, '"channel":"trades.', ({ params: { data } }: Notice<Row[]>) => data);
    return rows.map(({ trade_seq, timestamp }) => ({ id: trade_seq, time: timestamp }));
  },
  linksIn: (text) => {
    type Row = { prev_change_id?: number; change_id: number };
    const rows = dataIn(text, '"channel":"book.', ({ params: { data } }: Notice<Row>) => [data]);
    return rows.map(({ prev_change_id, change_id }) => ({ previous: prev_change_id ?? null, last: change_id }));
  },
  history: (sim, from) =>
    pages(from, async (id) => {
      const path = `${DERIBIT}/get_last_trades_by_instrument?instrument_name=BTC-PERPETUAL&count=1000&start_seq=${id}`;
      type Row = Record<'trade_seq' | 'timestamp', number>;
      const { result } = await json<{ result: { trades: Row[] } }>(sim, 'deribit_derivatives', path);
      return result.trades.map(({ trade_seq, timestamp }) => ({ id: trade_seq, time: timestamp }));
    }),
  best: async (sim) => {
    const path = `${DERIBIT}/get_order_book?instrument_name=BTC-PERPETUAL&depth=1000`;
    return top((await json<{ result: Sides<number[]> }>(sim, 'deribit_derivatives', path)).result);
  },
  readAt: async (sim) => {
    const path = `${DERIBIT}/ticker?instrument_name=BTC-PERPETUAL`;
    return (await json<{ result: { timestamp: number } }>(sim, 'deribit_derivatives', path)).result.timestamp;
  },
};

const PROBES = [
  binanceSpot,
  binanceDerivatives,
  okx('okx_spot', 'BTC-USDT'),
  okx('okx_derivatives', 'BTC-USDT-SWAP'),
  deribit,
];

/** Ids without a hole, times that never fall and are spread over the whole span. */
function assertUnbroken(trades: readonly Trade[], what: string): void {
  trades.forEach(({ id, time }, place) => {
    const before = trades[place - 1];
    if (!before) return;
    assert.equal(id, before.id + 1, `${what}: ids without a hole`);
    assert.ok(time >= before.time, `${what}: trade ${id} is not before the one before`);
    assert.ok(time - before.time < LARGEST_HOLE_MS, `${what}: ${time - before.time} ms without a trade before ${id}`);
  });
}

function assertUsualCount(count: number, seconds: number): void {
  assert.ok(count > seconds * FEWEST_PER_SECOND && count < seconds * MOST_PER_SECOND, `${count} in ${seconds} s`);
}

function keyCount(sim: Simulator): number {
  return sim.ledger().streams.reduce((sum, { sent }) => sum + sent, 0);
}

for (const probe of PROBES) {
  const { exchange } = probe;
  describe(`skipped time of ${exchange}`, () => {
    it('is in its history only, without a hole, when nobody was there', async () => {
      const sim = await start({ exchanges: [exchange] });
      const before = await Reader.open(sim, probe);
      await before.first();
      const last = await before.leave(sim);
      const readBefore = await probe.readAt?.(sim);
      const keys = keyCount(sim);
      sim.apply({ action: 'skip', exchange, seconds: 60 });
      assert.equal(keyCount(sim), keys, 'nothing was written to anybody');

      const after = await Reader.open(sim, probe);
      const next = await after.first();
      const missed = (await probe.history(sim, last.id)).filter(({ id }) => id <= next.id);
      assert.deepEqual([missed[0]?.id, missed.at(-1)?.id], [last.id, next.id]);
      assertUnbroken(missed, exchange);
      assert.ok(next.time - last.time >= 60_000, `${next.time - last.time} ms went by`);
      assert.ok(missed.every(({ time }) => time >= last.time && time <= next.time));
      // What was made while the test asked is in it too: the rate holds for the whole span.
      assertUsualCount(missed.length, (next.time - last.time) / 1000);

      const { bid, ask } = await probe.best(sim);
      assert.ok(bid > 0 && bid < ask, `${bid} to ${ask}`);
      const readAfter = await probe.readAt?.(sim);
      if (readBefore !== undefined) assert.ok((readAfter as number) - readBefore >= 60_000);
    });

    it('comes as frames to who is subscribed, and its connection stays', async () => {
      const sim = await start({ exchanges: [exchange] });
      const reader = await Reader.open(sim, probe);
      await reader.first();
      await until('a change of the book', () => reader.links.length > 1);
      const last = reader.trades.at(-1) as Trade;
      sim.apply({ action: 'skip', exchange, seconds: 60 });
      await until('what was skipped', () => (reader.trades.at(-1)?.time ?? 0) > last.time + 60_000);
      sim.apply({ action: 'stop' });
      const ids = sim.keys({ exchange, symbol: sim.ledger().streams[0]?.symbol ?? '', data_type: 'trade' }).map(Number);
      await until('every trade that was written', () => reader.trades.length >= ids.length);
      assert.deepEqual(
        reader.trades.map(({ id }) => id),
        ids,
      );
      assertUnbroken(reader.trades, exchange);
      // They come on a socket of their own, perhaps later than the trades.
      await until('more than 500 changes in 60 s', () => reader.links.length > 500);
      const changes = reader.links;
      changes.forEach(({ previous }, place) => {
        const before = changes[place - 1];
        if (before && previous !== null) assert.equal(previous, before.last, 'the chain of the book');
      });
      assert.equal(reader.isOpen, true);
    });

    it('leaves no more in the history than that keeps', async () => {
      const sim = await start({ exchanges: [exchange], tradeHistory: 500 });
      const reader = await Reader.open(sim, probe);
      const { id: old } = await reader.first();
      await reader.leave(sim);
      sim.apply({ action: 'skip', exchange, seconds: 60 });
      sim.apply({ action: 'stop' });
      const kept = await probe.history(sim, old);
      assertUnbroken(kept, exchange);
      // USDⓈ-M keeps single trades and tells those of one order as one; an order of which some are gone is not told.
      const isMerged = exchange === 'binance_derivatives';
      assert.ok(isMerged ? kept.length > 250 && kept.length < 500 : kept.length === 500, `${kept.length} kept`);
      assert.ok((kept[0] as Trade).id > old + 400);
    });
  });
}

describe('skipped time of hyperliquid', () => {
  interface Candle {
    readonly t: number;
    readonly n: number;
  }
  const candles = (sim: Simulator): Promise<Candle[]> =>
    json(sim, 'hyperliquid', '/info', {
      type: 'candleSnapshot',
      req: { coin: 'BTC', interval: '1m', startTime: 0, endTime: null },
    });
  const info = <Body>(sim: Simulator, type: string): Promise<Body> =>
    json(sim, 'hyperliquid', '/info', { type, coin: 'BTC' });

  // The venue's ids have no order, and its history is ten trades: its candles tell how many there were.
  it('is in its candles without a hole, and in the newest trades', async () => {
    const sim = await start({ exchanges: ['hyperliquid'] });
    const before = await info<{ time: number }>(sim, 'l2Book');
    const keys = keyCount(sim);
    sim.apply({ action: 'skip', exchange: 'hyperliquid', seconds: 600 });
    assert.equal(keyCount(sim), keys);
    const found = await candles(sim);
    found.forEach(({ t }, place) => {
      if (place > 0) assert.equal(t - (found[place - 1] as Candle).t, 60_000);
    });
    assert.ok(found.length >= 11, 'ten minutes touch eleven');
    for (const { n } of found.slice(1, -1)) assertUsualCount(n, 60);

    const recent = await info<{ time: number; tid: number }[]>(sim, 'recentTrades');
    assert.equal(new Set(recent.map(({ tid }) => tid)).size, 10);
    const after = await info<{ time: number; levels: [{ px: string }[], { px: string }[]] }>(sim, 'l2Book');
    assert.ok(after.time - before.time >= 600_000);
    assert.ok(recent.every(({ time }) => after.time - time < LARGEST_HOLE_MS));
    const [bid, ask] = after.levels.map(([best]) => Number(best?.px)) as [number, number];
    assert.ok(bid > 0 && bid < ask, `${bid} to ${ask}`);
  });

  it('comes as frames to who is subscribed', async () => {
    const sim = await start({ exchanges: ['hyperliquid'] });
    const reader = await Reader.open(sim, hyperliquid);
    const first = await reader.first();
    sim.apply({ action: 'skip', exchange: 'hyperliquid', seconds: 60 });
    await until('what was skipped', () => (reader.trades.at(-1)?.time ?? 0) > first.time + 60_000);
    sim.apply({ action: 'stop' });
    const ids = sim.keys({ exchange: 'hyperliquid', symbol: 'BTC-USDC', data_type: 'trade' }).map(Number);
    await until('every trade that was written', () => new Set(reader.trades.map(({ id }) => id)).size >= ids.length);
    const { trades } = reader;
    trades.forEach(({ time }, place) => {
      if (place > 0) assert.ok(time >= (trades[place - 1] as Trade).time, 'times never fall');
    });
    assertUsualCount(ids.length, ((trades.at(-1) as Trade).time - first.time) / 1000);
    assert.equal(reader.isOpen, true);
  });

  it('leaves no more in the history than that keeps', async () => {
    const sim = await start({ exchanges: ['hyperliquid'], tradeHistory: 1500 });
    sim.apply({ action: 'skip', exchange: 'hyperliquid', seconds: 600 });
    const told = (await candles(sim)).reduce((sum, { n }) => sum + n, 0);
    // A candle whose first trades may be gone is not told.
    assert.ok(told > 100 && told <= 1500, `${told} of 12,000`);
  });
});

const hyperliquid: Probe = {
  exchange: 'hyperliquid',
  sockets: [['/ws', { method: 'subscribe', subscription: { type: 'trades', coin: 'BTC' } }]],
  tradesIn: (text) => {
    type Row = Record<'tid' | 'time', number>;
    const rows = dataIn(text, '"channel":"trades"', ({ data }: { data: Row[] }) => data);
    return rows.map(({ tid, time }) => ({ id: tid, time }));
  },
  linksIn: () => [],
  history: () => Promise.resolve([]),
  best: () => Promise.resolve({ bid: 0, ask: 0 }),
};

describe('a skip', () => {
  const slow = { tradesPerSecond: 0.5, diffsPerSecond: 0.5 };

  it('is no silence of a client, no overdue heartbeat and no age of a connection', async () => {
    const heartbeat = { pingEveryMs: HOUR_S * 1000, pongWithinMs: HOUR_S * 1000 };
    const probes = [...PROBES, hyperliquid];
    const sim = await start({ ...slow, heartbeat, exchanges: probes.map(({ exchange }) => exchange) });
    const readers = await Promise.all(probes.map((probe) => Reader.open(sim, probe)));
    const [socket] = sockets.filter(({ url }) => url.endsWith('/ws/api/v2'));
    socket?.send('{"jsonrpc":"2.0","id":2,"method":"public/set_heartbeat","params":{"interval":3600}}');
    await until('subscriptions are answered', () => readers.every(({ texts }) => texts.length > 0));
    await until('the heartbeat is on', () =>
      readers.some(({ texts }) => texts.some((text) => text.includes('"id":2'))),
    );
    for (const { exchange } of probes) sim.apply({ action: 'skip', exchange, seconds: 2 * HOUR_S });
    // Eleven more are a day in all.
    for (let more = 0; more < 11; more++) sim.apply({ action: 'skip', exchange: 'binance_spot', seconds: 2 * HOUR_S });
    await sleep(LONGER_THAN_A_CHECK_MS);
    assert.deepEqual(
      readers.filter(({ isOpen, pings }) => !isOpen || pings > 0).map(({ probe }) => probe.exchange),
      [],
    );
    assert.ok(!readers.some(({ texts }) => texts.some((text) => text.includes('"method":"heartbeat"'))));
    const { closed_age, closed_pong, closed_slow } = sim.ledger();
    assert.deepEqual({ closed_age, closed_pong, closed_slow }, { closed_age: 0, closed_pong: 0, closed_slow: 0 });
  });

  it('is read to its end by a reader that it leaves far behind', async () => {
    const exchange = 'binance_spot';
    const sim = await start({ exchanges: [exchange] });
    const reader = await Reader.open(sim, binanceSpot);
    await reader.first();
    await until('a change of the book', () => reader.links.length > 0);
    const { bytes } = sim.ledger();
    sim.apply({ action: 'skip', exchange, seconds: HOUR_S });
    assert.ok(sim.ledger().bytes - bytes > 20 * 2 ** 20, 'more than a reader may leave unread otherwise');
    sim.apply({ action: 'stop' });
    const written = sim.ledger();
    await until('all that was written', () => reader.texts.length > written.frames);
    const { links } = reader;
    const broken = links.findIndex(({ previous }, place) => place > 0 && previous !== links[place - 1]?.last);
    assert.equal(broken, -1, 'the chain of the book');
    assert.equal(reader.isOpen, true);
    assert.equal(sim.ledger().closed_slow, 0);
  });

  it('has the readings and liquidations of its time', async () => {
    const exchange = 'binance_derivatives';
    const params = ['btcusdt@markPrice@1s', 'btcusdt@forceOrder'];
    const streams = [['/market/stream', { method: 'SUBSCRIBE', params, id: 1 }]] as const;
    const sim = await start({ exchanges: [exchange] });
    const reader = await Reader.open(sim, { ...binanceDerivatives, sockets: streams });
    type Event = { data: { e: string; E: number } };
    const times = (event: string): number[] =>
      reader.texts.flatMap((text) => dataIn(text, `"e":"${event}"`, ({ data }: Event) => [data.E]));
    await until('a mark price', () => times('markPriceUpdate').length > 0);
    const first = times('markPriceUpdate')[0] as number;
    sim.apply({ action: 'skip', exchange, seconds: 600 });
    await until('what was skipped', () => (times('markPriceUpdate').at(-1) ?? 0) >= first + 600_000);
    times('markPriceUpdate').forEach((time, place) => {
      assert.equal(time, first + place * 1000, 'one each second');
    });
    const liquidations = times('forceOrder');
    // Six a minute: one in each ten seconds.
    assert.ok(liquidations.length >= 59, `${liquidations.length} liquidations in ten minutes`);
    assert.deepEqual(
      liquidations,
      [...liquidations].sort((one, other) => one - other),
    );
  });

  it('moves the clock of its exchange alone, and nothing happens in it while production is stopped', async () => {
    const [spot, other] = [binanceSpot, okx('okx_spot', 'BTC-USDT')];
    const sim = await start({ exchanges: [spot.exchange, other.exchange] });
    const readers = [await Reader.open(sim, spot), await Reader.open(sim, other)] as const;
    for (const reader of readers) await reader.first();
    sim.apply({ action: 'stop' });
    await until('all trades came', () => readers[0].trades.length === sim.ledger().streams[0]?.sent);
    const last = readers[0].trades.at(-1) as Trade;
    sim.apply({ action: 'skip', exchange: spot.exchange, seconds: 600 });
    sim.apply({ action: 'start' });
    await until('the next trade', () => (readers[0].trades.at(-1)?.id ?? 0) > last.id);
    const next = readers[0].trades.find(({ id }) => id === last.id + 1);
    assert.ok(next && next.time - last.time >= 600_000, 'the time went by without a trade');
    const newest = readers[1].trades.at(-1) as Trade;
    assert.ok(next.time - newest.time > 300_000, 'the other exchange is where it was');
  });

  it('is a whole number of seconds up to two hours, of an exchange that there is', () => {
    const skip = (request: object) => () => parseAction({ action: 'skip', ...request }, ['binance_spot']);
    for (const seconds of [0, -1, 1.5, 7201, '60']) {
      assert.throws(skip({ exchange: 'binance_spot', seconds }), /^UsageError: seconds: /, String(seconds));
    }
    assert.throws(skip({ exchange: 'binance_spot' }), /^UsageError: seconds: /);
    assert.throws(skip({ exchange: 'elsewhere', seconds: 1 }), /^UsageError: exchange: "elsewhere" is none of/);
    assert.deepEqual(skip({ exchange: 'binance_spot', seconds: 7200 })(), {
      action: 'skip',
      exchange: 'binance_spot',
      seconds: 7200,
    });
  });
});
