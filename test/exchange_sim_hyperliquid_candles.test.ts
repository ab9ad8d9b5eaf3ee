/** Candles of the simulated Hyperliquid: with a past, on a socket, of many coins, and of one that leaves BTC. */
import assert from 'node:assert/strict';
import { afterEach, describe, it } from 'node:test';
import { WebSocket } from 'ws';
import type { Simulator } from '../scripts/exchange_sim.ts';
import { TimeframeRound } from '../scripts/lib/correlation/round.ts';
import { start as startAny, until } from './sim_client.ts';

const EXCHANGE = 'hyperliquid';
const MINUTE = 60_000;
const DAY = 86_400_000;

interface Candle {
  t: number;
  T: number;
  s: string;
  i: string;
  o: string;
  c: string;
  h: string;
  l: string;
  v: string;
  n: number;
}

const start = (symbols = ['ETH-USDT'], perpetuals = 6): Promise<Simulator> =>
  startAny({ exchanges: [EXCHANGE], symbols, perpetuals, tradesPerSecond: 5, diffsPerSecond: 1 });

async function info<T>(sim: Simulator, body: object): Promise<T> {
  const answer = await fetch(`${sim.endpoints[EXCHANGE]!.rest}/info`, { method: 'POST', body: JSON.stringify(body) });
  assert.equal(answer.status, 200);
  return (await answer.json()) as T;
}

const candles = (sim: Simulator, coin: string, interval = '1m', startTime = 0, endTime?: number) =>
  info<Candle[]>(sim, { type: 'candleSnapshot', req: { coin, interval, startTime, endTime } });

/** The correlation of a coin's newest week with BTC's. */
async function correlation(sim: Simulator, coin: string) {
  const [base, other] = [await candles(sim, 'BTC', '5m'), await candles(sim, coin, '5m')];
  const columns = (rows: Candle[]) => ({ times: rows.map(({ t }) => t), closes: rows.map(({ c }) => Number(c)) });
  const round = new TimeframeRound('5m', ['1d', '7d']);
  round.setBase(columns(base), base.at(-2)!.t);
  return round.rows(coin, columns(other));
}

const sockets: WebSocket[] = [];
afterEach(() => {
  for (const socket of sockets.splice(0)) socket.terminate();
});

class Reader {
  readonly texts: string[] = [];

  private constructor(private readonly socket: WebSocket) {
    sockets.push(socket);
    socket.on('message', (text: Buffer) => this.texts.push(text.toString()));
  }

  static async open(sim: Simulator): Promise<Reader> {
    const reader = new Reader(new WebSocket(`${sim.endpoints[EXCHANGE]!.ws}/ws`));
    await new Promise((done, failed) => reader.socket.once('open', done).once('error', failed));
    return reader;
  }

  ask(method: string, coin: string, interval: string): void {
    this.socket.send(JSON.stringify({ method, subscription: { type: 'candle', coin, interval } }));
  }

  get candles(): Candle[] {
    return this.texts.filter((text) => text.startsWith('{"channel":"candle"')).map((text) => JSON.parse(text).data);
  }
}

describe('the past', () => {
  it('has the newest 5000 candles of each length, one after the other, those of five minutes made of those of one', async () => {
    const sim = await start();
    const [ones, fives] = [await candles(sim, 'SOL'), await candles(sim, 'SOL', '5m')];
    assert.deepEqual([ones.length, fives.length], [5000, 5000]);
    for (const [i, { t, T }] of ones.entries()) assert.deepEqual([t - ones[0]!.t, T], [i * MINUTE, t + MINUTE - 1]);
    for (const each of ones) {
      const [o, c, h, l] = [each.o, each.c, each.h, each.l].map(Number) as [number, number, number, number];
      assert.ok(h >= Math.max(o, c) && l <= Math.min(o, c) && l > 0 && each.n > 0 && Number(each.v) > 0);
    }
    const five = fives.at(-3)!;
    const within = ones.filter(({ t }) => t >= five.t && t < five.t + 5 * MINUTE);
    assert.deepEqual(
      [five.o, five.c, five.h, five.n],
      [
        within[0]!.o,
        within.at(-1)!.c,
        within.map(({ h }) => h).reduce((one, other) => (Number(other) > Number(one) ? other : one)),
        within.reduce((sum, { n }) => sum + n, 0),
      ],
    );
    const again = await candles(sim, 'SOL', '1m', ones[100]!.t, ones[103]!.t);
    assert.deepEqual(again, ones.slice(100, 104));
  });

  it('joins the market: what was traded is told as it was traded, and the price before it is the price then', async () => {
    const sim = await start(['BTC-USDT'], 3);
    sim.apply({ action: 'skip', exchange: EXCHANGE, seconds: 150 });
    sim.apply({ action: 'stop' });
    const rows = await candles(sim, 'BTC');
    const traded = rows.slice(-4);
    const gap = rows.map(({ o }, i) => Math.abs(Number(o) / Number(rows[i - 1]?.c ?? o) - 1));
    assert.ok(Math.max(...gap) < 0.002, `${Math.max(...gap)}`);
    const { sent } = { sent: traded.reduce((sum, { n }) => sum + n, 0) };
    assert.ok(sent > 150 * 5 * 0.5, `${sent} trades`);
  });

  it('is the same for the same seed, however often it is asked', async () => {
    const [one, other] = [await start(), await start()];
    // The candle under way is another one from one moment to the next.
    const end = (Math.floor(Date.now() / (5 * MINUTE)) - 1) * 5 * MINUTE;
    const both = [one, other, one].map((sim) => candles(sim, 'XRP', '5m', end - DAY, end));
    const [first, ...rest] = await Promise.all(both);
    for (const each of rest) assert.deepEqual(each, first);
  });

  it('lists as many coins as are asked for, and one that is traded no more; a quiet coin has minutes without a candle', async () => {
    const sim = await start(['BTC-USDT', 'ETH-USDT'], 200);
    const { universe } = await info<{ universe: { name: string; isDelisted?: true }[] }>(sim, { type: 'meta' });
    assert.equal(universe.length, 203);
    assert.deepEqual(
      universe.filter(({ isDelisted }) => isDelisted).map(({ name }) => name),
      ['MATIC'],
    );
    const contexts = await info<[object, { markPx: string }[]]>(sim, { type: 'metaAndAssetCtxs' });
    assert.ok(contexts[1].every(({ markPx }) => Number(markPx) > 0));
    const quiet = await candles(sim, universe[5]!.name);
    assert.ok(quiet.length < 4990 && quiet.length > 4900, `${quiet.length}`);
  });

  it('without further perpetuals there is none, as before', async () => {
    const sim = await start(['BTC-USDT'], 0);
    sim.apply({ action: 'skip', exchange: EXCHANGE, seconds: 60 });
    assert.ok((await candles(sim, 'BTC')).length <= 3);
  });
});

describe('followers', () => {
  it('follow BTC, one of them ten minutes late', async () => {
    const sim = await start();
    const [day, week] = await correlation(sim, 'BNB');
    assert.ok(week!.corr! > 0.65 && day!.corr! > 0.6 && week!.lag === 0, JSON.stringify(week));
    const [, late] = await correlation(sim, 'SOL');
    assert.deepEqual([late!.lag, late!.corr! > 0.6], [2, true]);
  });

  it('leave BTC from a time on, without a leap of the price, and join it again', async () => {
    const sim = await start();
    sim.apply({ action: 'leave', exchange: EXCHANGE, symbol: 'BNB-USDC', ago: 86_400 });
    const [day, week] = await correlation(sim, 'BNB');
    assert.ok(day!.corr! < 0.25 && week!.corr! > 0.55, `${day!.corr} ${week!.corr}`);
    const rows = await candles(sim, 'BNB', '1m', Date.now() - 2 * DAY);
    const moves = rows.slice(1).map(({ c }, i) => Math.abs(Number(c) / Number(rows[i]!.c) - 1));
    assert.ok(Math.max(...moves) < 0.006, `${Math.max(...moves)}`);
    sim.apply({ action: 'join', exchange: EXCHANGE, symbol: 'BNB-USDC' });
    for (let day = 0; day < 12; day++) sim.apply({ action: 'skip', exchange: EXCHANGE, seconds: 7200 });
    const [back] = await correlation(sim, 'BNB');
    assert.ok(back!.corr! > 0.6, `${back!.corr}`);
  });

  it('an order that names no such coin, or one that does not do so, is refused', async () => {
    const sim = await start();
    const order = (action: object) => () => sim.apply(action as never);
    assert.throws(
      order({ action: 'leave', exchange: EXCHANGE, symbol: 'BTC-USDC' }),
      /"BTC-USDC" is none of hyperliquid/,
    );
    assert.throws(order({ action: 'join', exchange: EXCHANGE, symbol: 'BNB-USDC' }), /could join/);
    assert.throws(order({ action: 'leave', exchange: EXCHANGE, symbol: 'BNB-USDC', ago: -1 }), /^UsageError: ago/);
  });
});

describe('on a socket', () => {
  it('each candle is told as it changes and as it ended, which is what requests say of it', async () => {
    const sim = await start();
    const reader = await Reader.open(sim);
    for (const coin of ['BTC', 'ETH']) for (const interval of ['1m', '5m']) reader.ask('subscribe', coin, interval);
    await until('the answers', () => reader.texts.length >= 4);
    assert.deepEqual(JSON.parse(reader.texts[0]!), {
      channel: 'subscriptionResponse',
      data: { method: 'subscribe', subscription: { type: 'candle', coin: 'BTC', interval: '1m' } },
    });
    sim.apply({ action: 'skip', exchange: EXCHANGE, seconds: 660 });
    sim.apply({ action: 'stop' });
    await until('all of them', () => reader.texts.length - 4 === sim.ledger().frames);
    for (const coin of ['BTC', 'ETH']) {
      for (const interval of ['1m', '5m']) {
        const told = reader.candles.filter(({ s, i }) => s === coin && i === interval);
        const last = new Map(told.map((each) => [each.t, each]));
        assert.ok(told.length > last.size, 'the unfinished one, too');
        assert.ok(told.every(({ t }, i) => i === 0 || t >= told[i - 1]!.t));
        const finished = [...last.keys()].slice(0, -1);
        assert.ok(finished.length >= (interval === '1m' ? 10 : 1));
        const asked = await candles(sim, coin, interval, finished[0]!, finished.at(-1)!);
        assert.deepEqual(
          finished.map((t) => last.get(t)),
          asked,
        );
      }
    }
  });

  it('who unsubscribes, or asks for a coin that is not there, gets none; faults hold for candles', async () => {
    const sim = await start();
    const reader = await Reader.open(sim);
    reader.ask('subscribe', 'NOPE', '1m');
    reader.ask('subscribe', 'MATIC', '1m');
    await until('two answers', () => reader.texts.length === 2);
    assert.ok(reader.texts.every((text) => text.startsWith('{"channel":"error","data":"Invalid subscription')));
    reader.ask('subscribe', 'BTC', '1m');
    await until('the third', () => reader.texts.length === 3);
    sim.apply({ action: 'silence', exchange: EXCHANGE, symbol: 'BTC-USDC', data_type: 'candle', seconds: 120 });
    sim.apply({ action: 'skip', exchange: EXCHANGE, seconds: 100 });
    assert.equal(reader.candles.length, 0);
    sim.apply({ action: 'skip', exchange: EXCHANGE, seconds: 60 });
    await until('it ends', () => reader.candles.length > 0);
    reader.ask('unsubscribe', 'BTC', '1m');
    await until('the end', () => reader.texts.some((text) => text.includes('"method":"unsubscribe"')));
    const before = sim.ledger().frames;
    sim.apply({ action: 'skip', exchange: EXCHANGE, seconds: 120 });
    assert.equal(sim.ledger().frames, before);
  });
});
