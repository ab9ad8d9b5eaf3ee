/** The simulated USDⓈ-M market beside trades and books: mark prices, liquidations, open interest, funding, ratios. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { Simulator } from '../scripts/exchange_sim.ts';
import { gridOf, listed } from '../scripts/lib/sim/binance.ts';
import { fundingHoursOf, PerpetualDesk } from '../scripts/lib/sim/binance_perpetual.ts';
import { Ledger } from '../scripts/lib/sim/ledger.ts';
import { fairPrice, seededRandom } from '../scripts/lib/sim/market.ts';
import { type Liquidation, Perpetual } from '../scripts/lib/sim/perpetual.ts';
import { Wire } from '../scripts/lib/sim/venue.ts';
import { Client, type Data, get, type Order, sent, start, until } from './sim_client.ts';

const MARKET = '/market/stream?streams=';
const HOUR_MS = 3_600_000;
const PERIOD_MS = 300_000;
/** A settlement, far from now: nothing here looks at the machine's clock. */
const SETTLEMENT = 1_790_755_200_000;

function perpetual(seed: number, { symbol = 'BTC-USDT', liquidationsPerMinute = 6 } = {}): Perpetual {
  const { grid, startPrice } = gridOf('usdm', symbol, seed);
  const fair = fairPrice(seededRandom(seed));
  const fundingHours = fundingHoursOf(symbol.split('-')[0] as string);
  return new Perpetual({
    symbol,
    seed,
    grid,
    startPrice,
    fair,
    start: SETTLEMENT,
    fundingHours,
    liquidationsPerMinute,
  });
}

/** Key of a liquidation as the ledger tells it. */
function keyOf(order: Order): string {
  return [order.s, order.S.toLowerCase(), order.ap, order.z, order.T].join('|');
}

describe('readings', () => {
  it('are the same for the same seed, in whatever order they are asked, and others for another', () => {
    const times = [0, 1000, 60_000, 5 * HOUR_MS].map((after) => SETTLEMENT + after);
    const told = (each: Perpetual, at: number[]): string[] =>
      at.map((time) =>
        JSON.stringify([each.mark(time), each.openInterest(time), each.ratio('topLongShortPositionRatio', time)]),
      );
    const forwards = told(perpetual(3), times);
    assert.deepEqual(told(perpetual(3), times.toReversed()).toReversed(), forwards);
    assert.equal(new Set([...forwards, ...told(perpetual(4), times)]).size, 2 * times.length);
  });

  it('the next funding time moves on with the second after the settlement, every 8 h or as fundingInfo says', () => {
    const bitcoin = perpetual(1);
    const after = (ms: number, each = bitcoin): number => each.mark(SETTLEMENT + ms).nextFunding - SETTLEMENT;
    assert.equal(SETTLEMENT % (8 * HOUR_MS), 0);
    assert.deepEqual([after(-1000), after(0), after(1000)], [0, 0, 8 * HOUR_MS]);
    assert.equal(after(1000, perpetual(1, { symbol: 'NEW-USDT' })), 4 * HOUR_MS);
  });

  it('the funding rate drifts: it changes within minutes, and by little', () => {
    const each = perpetual(1);
    const rates = Array.from({ length: 600 }, (_, second) => Number(each.mark(SETTLEMENT + second * 1000).rate));
    assert.ok(new Set(rates).size > 100);
    for (const [index, rate] of rates.entries()) assert.ok(Math.abs(rate - (rates[index - 1] ?? rate)) < 1e-7);
    assert.match(each.mark(SETTLEMENT).rate, /^-?0\.\d{8}$/);
  });

  it('liquidations come at their rate, never two of a symbol in one second, however often the market is advanced', () => {
    for (const liquidationsPerMinute of [6, 7, 45, 60]) {
      const each = perpetual(2, { liquidationsPerMinute });
      const whole = [...each.liquidations(SETTLEMENT, SETTLEMENT + HOUR_MS)];
      assert.ok(
        Math.abs(whole.length - 60 * liquidationsPerMinute) <= 2,
        `${whole.length} at ${liquidationsPerMinute}`,
      );
      for (const [index, { at, time }] of whole.entries()) {
        assert.ok(at - (whole[index - 1]?.at ?? 0) >= 1000 && time < at && at - time <= 1000);
      }
      const pieces: Liquidation[] = [];
      for (let from = SETTLEMENT; from < SETTLEMENT + HOUR_MS; from += 777.7) {
        pieces.push(...each.liquidations(from, Math.min(from + 777.7, SETTLEMENT + HOUR_MS)));
      }
      assert.deepEqual(pieces, whole);
    }
    assert.equal(
      [...perpetual(2).liquidations(SETTLEMENT, SETTLEMENT + 60_000)].length >= 5,
      true,
      'a minute has some',
    );
    assert.deepEqual([...perpetual(2, { liquidationsPerMinute: 0 }).liquidations(0, SETTLEMENT)], []);
  });
});

describe('streams', () => {
  it('mark prices on whole seconds, every one and every three, on the market route only', async () => {
    const sim = await start({ exchanges: ['binance_derivatives'], symbols: ['BTC-USDT', 'ETH-USDT'] });
    const names = ['btcusdt@markPrice@1s', 'btcusdt@markPrice', 'btcusdt@forceOrder', '!forceOrder@arr'];
    const silent = await Promise.all(
      ['/public/stream', '/stream'].map((path) => Client.open(sim, 'binance_derivatives', path)),
    );
    const client = await Client.open(sim, 'binance_derivatives', '/market/stream');
    for (const each of [...silent, client]) each.subscribe([...names, 'btcusdt@depth'], 5);
    const [fast, slow] = [() => client.of('btcusdt@markPrice@1s'), () => client.of('btcusdt@markPrice')];
    await until('both cadences', () => fast().length >= 4 && slow().length >= 2);
    sim.apply({ action: 'stop' });
    const { mark_prices } = sim.ledger();
    await until('all arrived', () => fast().length + slow().length === mark_prices);
    const first = fast()[0] as Data;
    assert.deepEqual(Object.keys(first), ['e', 'E', 's', 'p', 'ap', 'P', 'i', 'r', 'T', 'st']);
    assert.deepEqual([first.e, first.s, first.st], ['markPriceUpdate', 'BTCUSDT', 1]);
    for (const price of [first.p, first.ap, first.P, first.i]) assert.match(price, /^\d+\.\d{8}$/);
    assert.ok(Math.abs(Number(first.p) / Number(first.i) - 1) < 0.001, 'the mark is near the index');
    for (const [told, every] of [
      [fast(), 1000],
      [slow(), 3000],
    ] as const) {
      for (const { E } of told) assert.equal((E as number) % every, 0);
      assert.equal(new Set(told.map(({ E }) => E)).size, told.length);
    }
    for (const { E, p, r } of slow()) {
      const same = fast().find((data) => data.E === E);
      if (same) assert.deepEqual([p, r], [same.p, same.r]);
    }
    for (const each of silent) {
      assert.deepEqual(each.acks, [{ result: null, id: 5 }]);
      assert.deepEqual(new Set(each.frames.map(({ stream }) => stream)), new Set(['btcusdt@depth']));
    }
    assert.ok(!sim.ledger().streams.some(({ data_type }) => data_type === 'funding_rate'), 'samples are no stream');
  });

  it('liquidations count once in the ledger by whichever stream they came, those of COIN-M not at all', async () => {
    const sim = await start({
      exchanges: ['binance_derivatives'],
      symbols: ['BTC-USDT', 'ETH-USDT'],
      liquidationsPerMinute: 60,
    });
    const both = await Client.open(sim, 'binance_derivatives', `${MARKET}btcusdt@forceOrder/!forceOrder@arr`);
    const second = await Client.open(sim, 'binance_derivatives', `${MARKET}btcusdt@forceOrder`);
    const all = (): Order[] => both.of('!forceOrder@arr').map(({ o }) => o);
    await until('every kind', () => {
      const names = all().map(({ s }) => s);
      return ['ETHUSDT', 'BTCUSD_PERP'].every((name) => names.includes(name)) && second.frames.length >= 3;
    });
    sim.apply({ action: 'stop' });
    await until('all arrived', () => both.frames.length + second.frames.length === sim.ledger().frames);
    const own = both.of('btcusdt@forceOrder');
    const [first] = own as [Data];
    assert.deepEqual(Object.keys(first), ['e', 'E', 'o']);
    assert.deepEqual(Object.keys(first.o), ['s', 'S', 'o', 'f', 'q', 'p', 'ap', 'X', 'l', 'z', 'T', 'ps', 'st']);
    assert.match(first.o.q, /^\d+\.\d{3}$/);
    assert.match(first.o.ap, /^\d+\.\d{2}$/);
    const coinM = all().filter(({ st }) => st === 2);
    assert.equal(sim.ledger().coin_m_liquidations, coinM.length);
    for (const { s, z } of coinM) {
      assert.match(s, /^(BTC|ETH)USD_PERP$/);
      assert.match(z, /^\d+$/);
    }
    for (const symbol of ['BTC', 'ETH']) {
      const orders = all().filter(({ s }) => s === `${symbol}USDT`);
      const told = sim.keys({ exchange: 'binance_derivatives', symbol: `${symbol}-USDT`, data_type: 'liquidation' });
      assert.deepEqual(told, orders.map(keyOf));
      const line = sent(sim, 'binance_derivatives', 'liquidation', `${symbol}-USDT`);
      assert.deepEqual([line.sent, line.dropped, line.market_type], [orders.length, 0, 'perpetual']);
      assert.deepEqual([line.first_id, line.last_id], [told[0], told.at(-1)]);
    }
    assert.deepEqual(
      own.map(({ o }) => o),
      all().filter(({ s }) => s === 'BTCUSDT'),
    );
    assert.equal(sim.ledger().streams.filter(({ data_type }) => data_type === 'liquidation').length, 2);
  });
});

describe('faults of readings', () => {
  const exchange = 'binance_derivatives';
  const STREAMS = `${MARKET}btcusdt@forceOrder/btcusdt@markPrice@1s`;
  const liquidations = (client: Client): Data[] => client.of('btcusdt@forceOrder');
  const marks = (client: Client): Data[] => client.of('btcusdt@markPrice@1s');

  async function open(): Promise<{ sim: Simulator; client: Client }> {
    const sim = await start({ exchanges: [exchange], liquidationsPerMinute: 60 });
    const client = await Client.open(sim, exchange, STREAMS);
    await until('both speak', () => liquidations(client).length > 0 && marks(client).length > 0);
    return { sim, client };
  }

  it('a dropped liquidation is counted as dropped, and not when another stream carried it', async () => {
    const { sim, client } = await open();
    sim.apply({ action: 'drop', exchange, data_type: 'liquidation' });
    const dropped = (): number => sent(sim, exchange, 'liquidation').dropped;
    const before = marks(client).length;
    await until('a drop', () => dropped() === 1);
    await until('mark prices go on', () => marks(client).length > before + 1);
    const other = await Client.open(sim, exchange, `${MARKET}!forceOrder@arr`);
    const count = sent(sim, exchange, 'liquidation').sent;
    sim.apply({ action: 'drop', exchange, symbol: 'BTC-USDT', data_type: 'liquidation' });
    await until('more', () => sent(sim, exchange, 'liquidation').sent >= count + 2);
    sim.apply({ action: 'stop' });
    await until('all arrived', () => client.frames.length + other.frames.length === sim.ledger().frames);
    const heard = new Set(
      [...liquidations(client), ...other.frames.map(({ data }) => data)]
        .map(({ o }) => o)
        .filter(({ st }) => st === 1)
        .map(keyOf),
    );
    const line = sent(sim, exchange, 'liquidation');
    assert.deepEqual([line.sent, line.dropped], [heard.size, 1]);
    assert.ok(liquidations(client).length < heard.size, 'one came by the other stream only');
  });

  it('a repeat doubles and a silence withholds one type only; after a stop all rest, and a start brings them back', async () => {
    const { sim, client } = await open();
    sim.apply({ action: 'repeat', exchange, data_type: 'liquidation' });
    await until('a repeat', () => sim.ledger().repeated === 1);
    await until('the copy', () => liquidations(client).some(({ E }, index, all) => E === all[index - 1]?.E));
    sim.apply({ action: 'silence', exchange, data_type: 'funding_rate', seconds: 60 });
    const written = sim.ledger().mark_prices;
    const before = liquidations(client).length;
    await until('liquidations go on', () => liquidations(client).length >= before + 3);
    assert.equal(marks(client).length, written);
    sim.apply({ action: 'stop' });
    const { frames } = sim.ledger();
    await until('all arrived', () => client.frames.length === frames);
    const reading = async (): Promise<string> =>
      (await get(sim, exchange, '/fapi/v1/openInterest?symbol=BTCUSDT')).body;
    const resting = await reading();
    await new Promise((done) => setTimeout(done, 1200));
    assert.deepEqual([await reading(), sim.ledger().frames], [resting, frames]);
    const keys = sim.keys({ exchange, symbol: 'BTC-USDT', data_type: 'liquidation' });
    assert.deepEqual(keys, [...new Set(liquidations(client).map(({ o }) => keyOf(o)))]);
    sim.apply({ action: 'start' });
    await until('they are back', () => sent(sim, exchange, 'liquidation').sent > keys.length);
    assert.notEqual(await reading(), resting);
  });
});

type Row = Record<string, unknown>;

describe('readings over REST', () => {
  const ask = async (sim: Simulator, path: string): Promise<{ status: number; weight: string | null; body: Row }> => {
    const { status, headers, body } = await get(sim, 'binance_derivatives', path);
    return { status, weight: headers.get('x-mbx-used-weight-1m'), body: JSON.parse(body) as Row };
  };

  it('open interest, premium index and funding intervals have the fields, weights and errors of the venue', async () => {
    const sim = await start({ exchanges: ['binance_derivatives'], symbols: ['BTC-USDT', 'SOL-USDT', 'NEW-USDT'] });
    const interest = await ask(sim, '/fapi/v1/openInterest?symbol=BTCUSDT');
    assert.deepEqual(Object.keys(interest.body), ['openInterest', 'symbol', 'time']);
    assert.match(String(interest.body.openInterest), /^\d+\.\d{3}$/);
    assert.equal((await ask(sim, '/fapi/v1/openInterest?symbol=NOPE')).body.code, -1121);
    assert.equal((await ask(sim, '/fapi/v1/openInterest')).status, 400);
    const one = await ask(sim, '/fapi/v1/premiumIndex?symbol=BTCUSDT');
    assert.equal(
      Object.keys(one.body).join(' '),
      'symbol markPrice indexPrice estimatedSettlePrice lastFundingRate interestRate nextFundingTime time',
    );
    assert.equal(Number(one.body.nextFundingTime) % (8 * HOUR_MS), 0);
    const all = await ask(sim, '/fapi/v1/premiumIndex');
    assert.equal((all.body as unknown as Row[]).length, 3);
    const info = await ask(sim, '/fapi/v1/fundingInfo');
    assert.deepEqual(
      (info.body as unknown as Row[]).map(({ symbol, fundingIntervalHours }) => [symbol, fundingIntervalHours]),
      [
        ['BLZUSDT', 8],
        ['SOLUSDT', 8],
        ['NEWUSDT', 4],
      ],
    );
    const { open_interests, premium_indices } = sim.ledger();
    assert.deepEqual([open_interests, premium_indices], [1, 2]);
  });

  it('ratios lie on boundaries of their period, honour the limit, and answer a wrong question with HTTP 200', async () => {
    const sim = await start({ exchanges: ['binance_derivatives'] });
    const told = new Set<string>();
    for (const kind of ['topLongShortPositionRatio', 'topLongShortAccountRatio', 'globalLongShortAccountRatio']) {
      const { body, weight } = await ask(sim, `/futures/data/${kind}?symbol=BTCUSDT&period=5m&limit=7`);
      const rows = body as unknown as Row[];
      assert.deepEqual([rows.length, weight], [7, '0']);
      for (const [index, row] of rows.entries()) {
        assert.deepEqual(Object.keys(row), ['symbol', 'longAccount', 'longShortRatio', 'shortAccount', 'timestamp']);
        assert.equal(typeof row.timestamp, 'number');
        assert.equal(Number(row.timestamp) % PERIOD_MS, 0);
        assert.equal(Number(row.timestamp), Number(rows[0]?.timestamp) + index * PERIOD_MS);
        assert.ok(Math.abs(Number(row.longAccount) + Number(row.shortAccount) - 1) < 1e-9);
        assert.ok(Math.abs(Number(row.longAccount) / Number(row.shortAccount) - Number(row.longShortRatio)) < 1e-4);
      }
      told.add(rows.map(({ longAccount }) => longAccount).join());
    }
    assert.equal(told.size, 3);
    const path = '/futures/data/globalLongShortAccountRatio';
    const count = async (query: string): Promise<number> =>
      ((await ask(sim, `${path}?symbol=BTCUSDT&period=5m${query}`)).body as unknown as Row[]).length;
    assert.deepEqual([await count(''), await count('&limit=500'), await count('&limit=501')], [30, 500, 500]);
    for (const query of [
      'symbol=BTCUSDT&period=7m',
      'symbol=BTCUSDT',
      'period=5m',
      'symbol=BTCUSDT&period=5m&limit=0',
    ]) {
      const { status, body } = await ask(sim, `${path}?${query}`);
      assert.deepEqual([status, body.status, body.code, body.errorData], [200, 'ERROR', '99099990', 'illegal params.']);
    }
    assert.equal(sim.ledger().long_short_ratios, 6);
  });

  /** The desk on a clock that the test moves. */
  function deskAt(clock: () => number): PerpetualDesk {
    const { grid } = gridOf('usdm', 'BTC-USDT', 1);
    const pair = { listed: listed('BTC-USDT', grid), perpetual: perpetual(1) };
    return new PerpetualDesk('binance_derivatives', [pair], new Wire(new Ledger(clock()), clock));
  }

  it('a ratio row appears ten seconds after its timestamp', () => {
    let now = SETTLEMENT + 9_999;
    const desk = deskAt(() => now);
    const newest = (): number => {
      const query = new URLSearchParams('symbol=BTCUSDT&period=5m&limit=1');
      const answer = desk
        .rest({ method: 'GET', path: '/futures/data/topLongShortAccountRatio', query, body: '' })
        ?.answer();
      return Number((JSON.parse(answer?.body ?? '') as Row[])[0]?.timestamp);
    };
    assert.equal(newest(), SETTLEMENT - PERIOD_MS);
    now += 1;
    desk.advance(now);
    assert.equal(newest(), SETTLEMENT);
  });

  it('requests weigh what the venue says; fundingInfo and the ratios have limits of their own', () => {
    const desk = deskAt(() => SETTLEMENT);
    const request = (url: string) => {
      const [path = '', query] = url.split('?');
      return desk.rest({ method: 'GET', path, query: new URLSearchParams(query), body: '' });
    };
    const ratio = '/futures/data/topLongShortAccountRatio?symbol=BTCUSDT&period=5m';
    for (const [url, weight, ownLimit] of [
      ['/fapi/v1/openInterest?symbol=BTCUSDT', 1, null],
      ['/fapi/v1/premiumIndex?symbol=BTCUSDT', 1, null],
      ['/fapi/v1/premiumIndex', 10, null],
      ['/fapi/v1/fundingInfo', 0, 500],
      [ratio, 0, 1000],
    ] as const) {
      assert.equal(request(url)?.weight, weight, url);
      let allowed = 0;
      while (allowed < 2000 && (request(url)?.overLimit?.(SETTLEMENT) ?? null) === null) allowed++;
      assert.equal(allowed, ownLimit ?? 2000, url);
      if (ownLimit === null) continue;
      assert.equal(request(url)?.overLimit?.(SETTLEMENT + 1000), 299, 'seconds to wait');
      assert.equal(request(url)?.overLimit?.(SETTLEMENT + PERIOD_MS), null, 'the next five minutes are new');
    }
    assert.equal(request('/futures/data/openInterestHist?symbol=BTCUSDT&period=5m'), undefined);
  });

  it('a client over the limit of the ratios gets 429, and may still ask for the rest', async () => {
    const sim = await start({ exchanges: ['binance_derivatives'] });
    const path = '/futures/data/topLongShortAccountRatio?symbol=BTCUSDT&period=5m&limit=1';
    let asked = 0;
    let last = await get(sim, 'binance_derivatives', path);
    // Twice the limit, should the five minutes end meanwhile.
    for (; last.status === 200 && asked < 2001; asked++) last = await get(sim, 'binance_derivatives', path);
    assert.equal(last.status, 429);
    assert.ok(asked >= 1000 && Number(last.headers.get('retry-after')) >= 1);
    assert.equal((await get(sim, 'binance_derivatives', '/fapi/v1/ping')).status, 200);
  });
});
