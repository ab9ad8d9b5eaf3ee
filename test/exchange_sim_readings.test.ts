/** The simulated USDⓈ-M market beside trades and books: mark prices, liquidations, open interest, funding, ratios. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { Simulator } from '../scripts/exchange_sim.ts';
import { binanceDerivatives } from '../scripts/exchanges/binance.ts';
import type { ReadingType } from '../scripts/lib/exchange.ts';
import { gridOf, listed } from '../scripts/lib/sim/binance.ts';
import { fundingHoursOf, PerpetualDesk } from '../scripts/lib/sim/binance_perpetual.ts';
import { Ledger } from '../scripts/lib/sim/ledger.ts';
import { fairPrice, seededRandom } from '../scripts/lib/sim/market.ts';
import { type Liquidation, Perpetual } from '../scripts/lib/sim/perpetual.ts';
import { Wire } from '../scripts/lib/sim/venue.ts';
import { feedHarness } from './feed_harness.ts';
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

/** The desk on a clock that the test moves, and what it answers. */
function deskAt(clock: () => number, symbols = ['BTC-USDT']) {
  const pairs = symbols.map((symbol) => ({
    listed: listed(symbol, gridOf('usdm', symbol, 1).grid),
    perpetual: perpetual(1, { symbol }),
  }));
  const desk = new PerpetualDesk('binance_derivatives', pairs, new Wire(new Ledger(clock()), clock));
  const request = (url: string) => {
    const [path = '', query] = url.split('?');
    return desk.rest({ method: 'GET', path, query: new URLSearchParams(query), body: '' });
  };
  return { desk, request, ask: (url: string) => JSON.parse(request(url)?.answer().body ?? '') };
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

  it('a ratio row appears ten seconds after its timestamp', () => {
    let now = SETTLEMENT + 9_999;
    const { desk, ask } = deskAt(() => now);
    const newest = (): number =>
      ask('/futures/data/topLongShortAccountRatio?symbol=BTCUSDT&period=5m&limit=1')[0].timestamp;
    assert.equal(newest(), SETTLEMENT - PERIOD_MS);
    now += 1;
    desk.advance(now);
    assert.equal(newest(), SETTLEMENT);
  });

  it('requests weigh what the venue says; funding and the data endpoints have limits of their own', () => {
    const ratio = '/futures/data/topLongShortAccountRatio?symbol=BTCUSDT&period=5m';
    for (const [url, weight, ownLimit] of [
      ['/fapi/v1/openInterest?symbol=BTCUSDT', 1, null],
      ['/fapi/v1/premiumIndex?symbol=BTCUSDT', 1, null],
      ['/fapi/v1/premiumIndex', 10, null],
      ['/fapi/v1/fundingInfo', 0, 500],
      ['/futures/data/openInterestHist?symbol=BTCUSDT&period=5m', 0, 1000],
      [ratio, 0, 1000],
    ] as const) {
      const { request } = deskAt(() => SETTLEMENT);
      assert.equal(request(url)?.weight, weight, url);
      let allowed = 0;
      while (allowed < 2000 && (request(url)?.overLimit?.(SETTLEMENT) ?? null) === null) allowed++;
      assert.equal(allowed, ownLimit ?? 2000, url);
      if (ownLimit === null) continue;
      assert.equal(request(url)?.overLimit?.(SETTLEMENT + 1000), 299, 'seconds to wait');
      assert.equal(request(url)?.overLimit?.(SETTLEMENT + PERIOD_MS), null, 'the next five minutes are new');
    }
    const { request } = deskAt(() => SETTLEMENT);
    assert.equal(request('/futures/data/takerlongshortRatio?symbol=BTCUSDT&period=5m'), undefined);
    for (let count = 0; count < 500; count++) request('/fapi/v1/fundingInfo')?.overLimit?.(SETTLEMENT);
    const shared = request('/fapi/v1/fundingRate?symbol=BTCUSDT');
    assert.deepEqual([shared?.weight, shared?.overLimit?.(SETTLEMENT)], [0, 300], 'one limit for both');
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

describe('the past of readings', () => {
  const DAY_MS = 24 * HOUR_MS;
  const NOW = SETTLEMENT + 5 * 60_000;
  const SETTLED = '/fapi/v1/fundingRate?symbol=BTCUSDT';
  const INTEREST = '/futures/data/openInterestHist?symbol=BTCUSDT&period=5m';
  const DATA = [
    INTEREST,
    '/futures/data/topLongShortPositionRatio?symbol=BTCUSDT&period=5m',
    '/futures/data/globalLongShortAccountRatio?symbol=BTCUSDT&period=5m',
  ];
  const hourOf = ({ fundingTime }: Row): number => Math.floor(Number(fundingTime) / HOUR_MS) * HOUR_MS;

  it('a settled rate is the last one that was told for its hour, a quarter of a year back, some ms late', () => {
    const { ask } = deskAt(() => NOW);
    const live = perpetual(1);
    const rows = ask(`${SETTLED}&limit=1000&startTime=0`) as Row[];
    assert.equal(rows.length, 91 * 3);
    for (const [index, row] of rows.entries()) {
      assert.deepEqual(Object.keys(row), ['symbol', 'fundingRate', 'fundingTime', 'markPrice', 'rateType']);
      assert.equal(hourOf(row), SETTLEMENT - (rows.length - 1 - index) * 8 * HOUR_MS);
      const told = live.mark(hourOf(row));
      assert.deepEqual([row.fundingRate, row.markPrice, hourOf(row)], [told.rate, told.mark, told.nextFunding]);
    }
    const late = rows.map((row) => Number(row.fundingTime) - hourOf(row));
    assert.deepEqual([Math.min(...late), Math.max(...late) > 0, Math.max(...late) <= 15], [0, true, true]);
    assert.deepEqual(deskAt(() => NOW + DAY_MS).ask(`${SETTLED}&limit=1000&startTime=0&endTime=${NOW}`), rows.slice(3));
  });

  it('settled rates: the first ones from startTime on, else the newest; of all symbols in the order of time', () => {
    const { ask } = deskAt(() => NOW, ['BTC-USDT', 'NEW-USDT']);
    const all = ask(`${SETTLED}&limit=1000`) as Row[];
    assert.deepEqual(ask(SETTLED), all.slice(-100));
    assert.deepEqual(ask(`${SETTLED}&limit=2`), all.slice(-2));
    const [first, last] = [all[10]!.fundingTime, all[14]!.fundingTime];
    assert.deepEqual(ask(`${SETTLED}&startTime=${first}&endTime=${last}`), all.slice(10, 15), 'both ends included');
    assert.deepEqual(ask(`${SETTLED}&startTime=${first}&endTime=${last}&limit=3`), all.slice(10, 13));
    assert.deepEqual(ask(`${SETTLED}&endTime=${last}&limit=2`), all.slice(13, 15));
    assert.deepEqual(ask(`${SETTLED}&startTime=${Number(first) + 1}&endTime=${Number(first) + 2}`), []);
    const mixed = ask('/fapi/v1/fundingRate?limit=3') as Row[];
    assert.deepEqual(mixed.map(({ symbol }) => symbol).sort(), ['BTCUSDT', 'NEWUSDT', 'NEWUSDT']);
    assert.deepEqual(mixed.map(hourOf), [SETTLEMENT - 4 * HOUR_MS, SETTLEMENT, SETTLEMENT]);
  });

  it('a settlement is told with the second after it, as the next funding time moves on', () => {
    let now = SETTLEMENT + 900;
    const { desk, ask } = deskAt(() => now);
    const newest = (): number => hourOf(ask(`${SETTLED}&limit=1`)[0]);
    assert.equal(newest(), SETTLEMENT - 8 * HOUR_MS);
    now = SETTLEMENT + 1015;
    desk.advance(now);
    assert.equal(newest(), SETTLEMENT);
  });

  it('open interest is what was told live at that time, with eight decimals, and its worth at the mark price', () => {
    const { ask } = deskAt(() => NOW);
    const live = perpetual(1);
    const rows = ask(`${INTEREST}&limit=500`) as Row[];
    assert.equal(rows.length, 500);
    for (const [index, row] of rows.entries()) {
      const at = Number(row.timestamp);
      assert.equal(
        Object.keys(row).join(),
        'symbol,sumOpenInterest,sumOpenInterestValue,CMCCirculatingSupply,timestamp',
      );
      assert.deepEqual([typeof row.timestamp, at], ['number', SETTLEMENT - (499 - index) * PERIOD_MS]);
      assert.equal(row.sumOpenInterest, `${live.openInterest(at)}00000`);
      const worth = Number(live.openInterest(at)) * Number(live.mark(at).mark);
      assert.ok(Math.abs(Number(row.sumOpenInterestValue) / worth - 1) < 1e-12, String(row.sumOpenInterestValue));
      assert.match(String(row.sumOpenInterestValue), /^\d+\.\d{8}$/);
    }
    // The poll at that very moment.
    const { openInterest } = deskAt(() => SETTLEMENT).ask('/fapi/v1/openInterest?symbol=BTCUSDT');
    assert.equal(Number(rows.at(-1)!.sumOpenInterest), Number(openInterest));
  });

  it('data rows lie between startTime and endTime, both included; a range too long for the limit gives its newest', () => {
    const { ask } = deskAt(() => NOW);
    for (const path of DATA) {
      const times = (query: string): number[] => (ask(path + query) as Row[]).map(({ timestamp }) => Number(timestamp));
      const at = (steps: number): number => SETTLEMENT - steps * PERIOD_MS;
      assert.deepEqual(times(`&startTime=${at(3)}&endTime=${at(1)}`), [at(3), at(2), at(1)]);
      assert.deepEqual(times(`&startTime=${at(3) + 1}&endTime=${at(1) - 1}`), [at(2)]);
      assert.deepEqual(times(`&startTime=${at(3) + 1}&endTime=${at(3) + 2}`), []);
      assert.deepEqual(times(`&startTime=${at(9)}&endTime=${at(1)}&limit=2`), [at(2), at(1)]);
      assert.deepEqual(times(`&startTime=${at(2)}`), [at(2), at(1), at(0)]);
      assert.deepEqual(times(`&endTime=${at(7)}&limit=2`), [at(8), at(7)]);
      assert.deepEqual(times(`&endTime=${NOW - 31 * DAY_MS}`), []);
      assert.deepEqual(times(`&startTime=${NOW - 30 * DAY_MS}&endTime=${NOW - 30 * DAY_MS + PERIOD_MS - 1}`), [
        NOW - 30 * DAY_MS,
      ]);
      const [earlier, later] = [at(3), at(3) + HOUR_MS].map((now) =>
        deskAt(() => now + PERIOD_MS).ask(`${path}&endTime=${at(3)}`),
      );
      assert.deepEqual(later, earlier, 'the same whenever it is asked');
    }
  });

  it('what is wrong with a request is said as the venue does', async () => {
    const sim = await start({ exchanges: ['binance_derivatives'] });
    const refusal = async (path: string): Promise<unknown[]> => {
      const { status, body } = await get(sim, 'binance_derivatives', path);
      const { code, msg } = JSON.parse(body) as Row;
      return msg === undefined ? [status, code] : [status, code, msg];
    };
    const old = Date.now() - 30 * DAY_MS - HOUR_MS;
    for (const path of DATA) {
      const tooOld = [400, -1130, "parameter 'startTime' is invalid."];
      assert.deepEqual(await refusal(`${path}&startTime=${old}`), tooOld);
      assert.deepEqual(await refusal(`${path}&startTime=${old}&endTime=${Date.now()}`), tooOld);
      assert.deepEqual(await refusal(`${path}&startTime=${old + DAY_MS}&endTime=${old}`), [
        400,
        -1023,
        'Start time is greater than end time.',
      ]);
      for (const query of ['&startTime=now', '&endTime=-1', '&limit=0', '&limit=1.5']) {
        assert.deepEqual(await refusal(path + query), [200, '99099990'], query);
      }
      const { status, body } = await get(sim, 'binance_derivatives', path.replace('BTCUSDT', 'NOPE'));
      assert.deepEqual([status, body], [200, '[]']);
    }
    const malformed = (name: string) => `Mandatory parameter '${name}' was not sent, was empty/null, or malformed.`;
    for (const name of ['startTime', 'endTime', 'limit']) {
      assert.deepEqual(await refusal(`${SETTLED}&${name}=x`), [400, -1102, malformed(name)]);
    }
    assert.equal((await refusal(`${SETTLED}&limit=0`))[1], -1130);
    assert.equal((await refusal(`${SETTLED}&startTime=2&endTime=1`))[1], -1023);
    assert.equal((await refusal('/fapi/v1/fundingRate?symbol=NOPE'))[1], -1121);
  });

  it('each series of the module is had page by page: every reading of the range once, and none beside it', () => {
    const { ask } = deskAt(() => NOW);
    const live = perpetual(1);
    const instrument = binanceDerivatives.instrument('BTC-USDT', 'perpetual');
    const steps = (from: number, to: number, every: number): number[] =>
      Array.from(
        { length: Math.floor(to / every) - Math.ceil(from / every) + 1 },
        (_, place) => (Math.ceil(from / every) + place) * every,
      );
    /** What a row says, and what was told live at that time. */
    const values: Partial<Record<ReadingType, [row: (row: Row) => unknown, live: (at: number) => unknown]>> = {
      funding_rate: [(row) => row.funding_rate, (at) => live.mark(at).rate],
      open_interest: [(row) => Number(row.open_interest), (at) => Number(live.openInterest(at))],
      lsr_top_position: [(row) => row.long_position_ratio, (at) => live.ratio('topLongShortPositionRatio', at).long],
      lsr_all_account: [(row) => row.long_account_ratio, (at) => live.ratio('globalLongShortAccountRatio', at).long],
    };
    for (const { type, of: own, history } of binanceDerivatives.readings!) {
      const isFunding = type === 'funding_rate';
      const [valueIn, liveAt] = values[type]!;
      // On a boundary and beside it; longer than a page and within one; of a moment that has none.
      for (const [back, long, pages] of [
        [isFunding ? 90 * DAY_MS : 29 * DAY_MS, isFunding ? 90 * DAY_MS : 10 * DAY_MS, isFunding ? 3 : 6],
        [3 * DAY_MS + 1, DAY_MS, 1],
        [DAY_MS - 1000, 2000, 1],
      ] as const) {
        const range = { from: SETTLEMENT - back, to: SETTLEMENT - back + long };
        const { rest, of, events } = feedHarness(binanceDerivatives, NOW * 1000, { instruments: [instrument] });
        let asked = 0;
        for (let { from } = range; from <= range.to && asked < 20; asked++) {
          const before = of(type).length;
          const { path } = history!.page(instrument, { from, to: range.to });
          assert.equal(rest(path, ask(path)), true);
          const last = of(type).at(-1);
          if (last === undefined || of(type).length === before) break;
          from = last.timestamp + 1;
        }
        const rows = of(type) as unknown as (Row & { timestamp: number })[];
        const expected = isFunding ? steps(range.from, range.to, 8 * HOUR_MS) : steps(range.from, range.to, PERIOD_MS);
        // A settlement's own time is some ms late, and so may lie beyond the range.
        const times = rows.map(({ timestamp }) => (isFunding ? Math.floor(timestamp / HOUR_MS) * HOUR_MS : timestamp));
        assert.deepEqual(times, isFunding && rows.length < expected.length ? expected.slice(0, -1) : expected, type);
        assert.ok(asked <= pages, `${type} in ${asked} pages`);
        assert.deepEqual(events, []);
        for (const [index, row] of rows.entries()) {
          assert.ok(row.timestamp >= range.from && row.timestamp <= range.to, `${type} at ${row.timestamp}`);
          assert.equal(valueIn(row), liveAt(times[index]!), `${type} at ${times[index]}`);
          if (own) assert.equal(row[own.name], own.value);
        }
      }
    }
  });
});
