/** What the desk asks of the simulated OKX: candles with a past, tickers, positions for who can sign, and an exchange that is away. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { parseAction, type Simulator } from '../scripts/exchange_sim.ts';
import { loadConfig } from '../scripts/lib/config.ts';
import { OkxDesk, POSITION, signedHeaders } from '../scripts/lib/desk/okx.ts';
import { createLogger } from '../scripts/lib/log.ts';
import { DEMO_KEY, OkxAccount } from '../scripts/lib/sim/okx_account.ts';
import { OkxChart, OkxCharts } from '../scripts/lib/sim/okx_chart.ts';
import { CHARTED_COINS, okxListed } from '../scripts/lib/sim/okx_instruments.ts';
import { RequestLimits } from '../scripts/lib/sim/okx_rest.ts';
import { PricePath } from '../scripts/lib/sim/price_path.ts';
import { TradeTape } from '../scripts/lib/sim/trade_tape.ts';
import { assertSame, start, until } from './sim_client.ts';

const MINUTE_MS = 60_000;
const HOUR_MS = 60 * MINUTE_MS;
const DAY_MS = 24 * HOUR_MS;
/** In the middle of a minute, an hour and both kinds of day. */
const NOW = Date.UTC(2026, 9, 9, 12, 34, 41, 500);
const BTC = 'BTC-USDT-SWAP';
const SOL = 'SOL-USDT-SWAP';
const CANDLES = '/api/v5/market/candles';
const HISTORY = '/api/v5/market/history-candles';
const POSITIONS = '/api/v5/account/positions';

type Row = [
  ts: string,
  o: string,
  h: string,
  l: string,
  c: string,
  vol: string,
  volCcy: string,
  inQuote: string,
  confirm: string,
];
interface Ticker {
  instId: string;
  last: string;
  askPx: string;
  bidPx: string;
  open24h: string;
  high24h: string;
  low24h: string;
  vol24h: string;
  sodUtc0: string;
  sodUtc8: string;
  ts: string;
}
interface Candle {
  start: number;
  open: number;
  high: number;
  low: number;
  close: number;
  volume: number;
  isFinished: boolean;
}

function candle([ts, open, high, low, close, volume, , , confirm]: Row): Candle {
  return {
    start: Number(ts),
    open: Number(open),
    high: Number(high),
    low: Number(low),
    close: Number(close),
    volume: Number(volume),
    isFinished: confirm === '1',
  };
}

/** The charts of coins without a market, as the simulator makes them, at a time of the test's own. */
function pureCharts(now: () => number, seed = 1): OkxCharts {
  const charts = CHARTED_COINS.map((coin) => {
    const listed = okxListed('swap', `${coin}-USDT`, seed);
    const { startPrice, priceDecimals, baseDecimals } = listed;
    const price = startPrice * 10 ** priceDecimals;
    const quantityPerQuote = 10 ** baseDecimals / startPrice;
    return new OkxChart(listed, new PricePath({ seed, base: coin, price, anchor: null, quantityPerQuote }), null);
  });
  return new OkxCharts('swap', charts, now);
}

/** Rows of an answer of charts without a simulator around them, newest first. */
function rowsOf(charts: OkxCharts, path: string): Row[] {
  const [name = '', query] = path.split('?');
  const answer = charts.rest({ method: 'GET', path: name, query: new URLSearchParams(query), body: '' });
  assert.equal(answer?.status, 200, path);
  const { code, data } = JSON.parse(answer?.body ?? '') as { code: string; data: Row[] };
  assert.equal(code, '0', path);
  return data;
}

/** Candles from `from` until `to`, oldest first, page by page. */
function candlesOf(charts: OkxCharts, instrument: string, bar: string, from: number, to: number): Candle[] {
  const found: Candle[] = [];
  for (let cursor = to; ; ) {
    const path = `${HISTORY}?instId=${instrument}&bar=${bar}&after=${cursor}&before=${from - 1}&limit=300`;
    const page = rowsOf(charts, path).map(candle);
    found.push(...page);
    if (page.length < 300) return found.reverse();
    cursor = page.at(-1)?.start as number;
  }
}

async function ask<Told = Row>(sim: Simulator, path: string, headers: Record<string, string> = {}) {
  const answer = await fetch(`${sim.endpoints.okx_derivatives?.rest}${path}`, { headers });
  const body = (await answer.json()) as { code: string; msg: string; data: Told[] };
  return { status: answer.status, ...body };
}

async function candles(sim: Simulator, query: string, path = CANDLES): Promise<Candle[]> {
  const { code, data } = await ask(sim, `${path}?${query}`);
  assert.equal(code, '0', query);
  return data.map(candle);
}

/** The time of the simulated venue, which is ahead after a skip. */
async function venueTime(sim: Simulator): Promise<number> {
  const { data } = await ask<{ ts: string }>(sim, '/api/v5/public/time');
  return Number(data[0]?.ts);
}

/** Waits until the venue's present is not about to leave its minute: what is asked one after the other is of one minute then. */
async function early(sim: Simulator, span = MINUTE_MS): Promise<void> {
  const left = span - ((await venueTime(sim)) % span);
  if (left < 5000) sim.apply({ action: 'skip', exchange: 'okx_derivatives', seconds: Math.ceil(left / 1000) });
}

describe('candles', () => {
  it('are pages of texts, newest first, of 100 or at most 300 bars, with cursors that are not included', () => {
    const charts = pureCharts(() => NOW);
    const page = (query = '') => rowsOf(charts, `${CANDLES}?instId=${SOL}&bar=5m${query}`);
    const newest = Math.floor(NOW / (5 * MINUTE_MS)) * 5 * MINUTE_MS;
    const starts = (count: number, last = newest) =>
      Array.from({ length: count }, (_, place) => last - place * 5 * MINUTE_MS);
    const times = (rows: Row[]) => rows.map(([ts]) => Number(ts));
    assertSame(times(page()), starts(100), 'without a limit');
    assertSame(times(page('&limit=300')), starts(300), 'the most');
    assertSame(times(page('&limit=301')), starts(300), 'more than the most');
    assert.deepEqual(times(page('&limit=2')), starts(2));
    for (const row of page()) {
      assert.equal(row.length, 9);
      assert.ok(
        row.every((cell) => /^\d+(\.\d+)?$/.test(cell)),
        row.join(),
      );
    }
    const [first, third, fifth] = [0, 2, 4].map((back) => newest - back * 5 * MINUTE_MS) as [number, number, number];
    assert.deepEqual(times(page(`&after=${first}&limit=2`)), starts(2, newest - 5 * MINUTE_MS));
    assert.deepEqual(times(page(`&after=${third}&before=${fifth}`)), [newest - 3 * 5 * MINUTE_MS]);
    assert.deepEqual(times(page(`&after=${third + 1}&before=${fifth - 1}`)), starts(3, third));
    // Alone it does not begin next to the cursor but with the newest.
    assert.deepEqual(times(page(`&before=${newest - 50 * 5 * MINUTE_MS}&limit=2`)), starts(2));
    assert.deepEqual(page(`&before=${newest}`), []);
    assert.deepEqual(page(`&after=${third}&before=${third}`), []);
  });

  it('end with the newest 1440 bars, in the history after a year', () => {
    const charts = pureCharts(() => NOW);
    const newest = Math.floor(NOW / MINUTE_MS) * MINUTE_MS;
    const told = (path: string, bar: string, back: number) =>
      rowsOf(charts, `${path}?instId=${SOL}&bar=${bar}&after=${newest - back * MINUTE_MS + 1}&limit=2`).map(
        ([ts]) => (newest - Number(ts)) / MINUTE_MS,
      );
    assert.deepEqual(told(CANDLES, '1m', 1438), [1438, 1439]);
    assert.deepEqual(told(CANDLES, '1m', 1439), [1439]);
    assert.deepEqual(told(CANDLES, '1m', 1440), []);
    assert.deepEqual(told(HISTORY, '1m', 1439), [1439, 1440]);
    assert.deepEqual(told(HISTORY, '1m', 365 * 1440), [365 * 1440, 365 * 1440 + 1]);
    assert.deepEqual(told(HISTORY, '1m', 367 * 1440), []);
    assert.equal(candlesOf(charts, SOL, '1D', 1, NOW + 1).length, 366);
  });

  it('each opens where the one before closed, and those of more time are what those of less time add up to', () => {
    const charts = pureCharts(() => NOW);
    const day = (Math.floor((NOW + 8 * HOUR_MS) / DAY_MS) - 40) * DAY_MS - 8 * HOUR_MS;
    const minutes = candlesOf(charts, SOL, '1m', day, day + 2 * DAY_MS);
    assert.equal(minutes.length, 2 * 1440);
    assert.ok(
      minutes.some(({ open, close, high, low }) => high > Math.max(open, close) && low < Math.min(open, close)),
      'wicks',
    );
    assert.equal(
      minutes.findIndex(({ open }, place) => place > 0 && open !== minutes[place - 1]?.close),
      -1,
    );
    const lengths = {
      '3m': 3,
      '5m': 5,
      '15m': 15,
      '30m': 30,
      '1H': 60,
      '2H': 120,
      '4H': 240,
      '1D': 1440,
      '1Dutc': 1440,
    };
    for (const [bar, length] of Object.entries(lengths)) {
      const shift = bar === '1Dutc' ? 8 * 60 : 0;
      const expected: Candle[] = [];
      for (let place = shift; place + length <= minutes.length; place += length) {
        const inside = minutes.slice(place, place + length);
        const first = inside[0] as Candle;
        const volume = Number(inside.reduce((sum, each) => sum + each.volume, 0).toFixed(2));
        expected.push({
          ...{ start: first.start, open: first.open, close: inside.at(-1)?.close as number, volume },
          ...{ high: Math.max(...inside.map(({ high }) => high)), low: Math.min(...inside.map(({ low }) => low)) },
          isFinished: true,
        });
      }
      const told = candlesOf(charts, SOL, bar, (expected[0] as Candle).start, (expected.at(-1) as Candle).start + 1);
      const key = ({ start, open, high, low, close, volume, isFinished }: Candle) => [
        start,
        open,
        high,
        low,
        close,
        volume,
        isFinished,
      ];
      assertSame(told.map(key), expected.map(key), bar);
    }
  });

  it('of a day open at 16:00 UTC, those named for UTC at midnight', () => {
    const charts = pureCharts(() => NOW);
    for (const [bar, hour] of [
      ['1D', 16],
      ['1Dutc', 0],
    ] as const) {
      const days = rowsOf(charts, `${HISTORY}?instId=${SOL}&bar=${bar}&limit=30`).map(candle);
      assert.deepEqual(
        [...new Set(days.map(({ start }) => new Date(start).toISOString().slice(11)))],
        [`${String(hour).padStart(2, '0')}:00:00.000Z`],
      );
      assert.equal(new Set(days.map(({ start }) => start)).size, 30);
    }
  });

  it('that form are told as such, and only grow until they are finished', () => {
    let now = Math.floor(NOW / (5 * MINUTE_MS)) * 5 * MINUTE_MS;
    const opened = now;
    const charts = pureCharts(() => now);
    const newest = () => candle(rowsOf(charts, `${CANDLES}?instId=${SOL}&bar=5m&limit=1`)[0] as Row);
    const before = newest();
    assert.deepEqual([before.start, before.isFinished, before.volume], [opened, false, 0]);
    assert.deepEqual([before.high, before.low, before.close], [before.open, before.open, before.open]);
    let last = before;
    for (; now < opened + 5 * MINUTE_MS; now += 3000) {
      const present = newest();
      assert.ok(
        present.open === before.open &&
          present.high >= last.high &&
          present.low <= last.low &&
          present.volume >= last.volume,
      );
      const [ticker] = rowsOf(charts, `/api/v5/market/ticker?instId=${SOL}`) as unknown as [Ticker];
      assert.deepEqual([Number(ticker.last), Number(ticker.ts)], [present.close, now]);
      last = present;
    }
    const [next, finished] = rowsOf(charts, `${CANDLES}?instId=${SOL}&bar=5m&limit=2`).map(candle) as [Candle, Candle];
    assert.deepEqual(finished, { ...last, isFinished: true });
    assert.deepEqual([next.open, next.isFinished], [finished.close, false]);
  });

  it('of coins without a market are the same whichever simulator is asked, and others under another seed', async () => {
    const [one, other, third] = [
      await start({ exchanges: ['okx_derivatives'], seed: 3 }),
      await start({ exchanges: ['okx_derivatives'], seed: 3 }),
      await start({ exchanges: ['okx_derivatives'], seed: 4 }),
    ];
    const query = `instId=${SOL}&bar=5m&limit=50&after=${Date.now() - HOUR_MS}`;
    const told = await candles(one, query);
    assert.equal(told.length, 50);
    assert.deepEqual(await candles(other, query), told);
    assert.notDeepEqual(await candles(third, query), told);
    assertSame(rowsOf(pureCharts(Date.now, 3), `${CANDLES}?${query}`).map(candle), told, 'without a simulator');
  });

  it('make tops and bottoms that many coins share at times, on days of both signs', () => {
    const days = 12;
    const charts = pureCharts(() => NOW);
    const end = Math.floor(NOW / DAY_MS) * DAY_MS;
    const all = CHARTED_COINS.map((coin) => candlesOf(charts, `${coin}-USDT-SWAP`, '5m', end - days * DAY_MS, end));
    const perDay = 288;
    for (const [place, series] of all.entries()) {
      assert.equal(series.length, days * perDay);
      // Turns after a move of half a percent at least.
      const turns = turnsIn(series, 0.005) / days;
      assert.ok(turns > 4 && turns < 60, `${CHARTED_COINS[place]} turns ${turns} times a day`);
      const ranges = Array.from({ length: days }, (_, day) => rangeOf(series.slice(day * perDay, (day + 1) * perDay)));
      const mean = ranges.reduce((sum, range) => sum + range, 0) / days;
      assert.ok(mean > 0.02 && mean < 0.15, `${CHARTED_COINS[place]} goes ${mean} a day`);
    }
    const near = (series: Candle[], place: number): number => {
      const window = series.slice(place - 2 * perDay, place + 1);
      const [high, low] = [Math.max(...window.map((each) => each.high)), Math.min(...window.map((each) => each.low))];
      return ((series[place] as Candle).close - low) / (high - low);
    };
    const breadths: number[] = [];
    for (let place = 2 * perDay; place < days * perDay; place += 12) {
      breadths.push(all.filter((series) => near(series, place) >= 0.9).length);
    }
    assert.ok(
      breadths.some((breadth) => breadth >= 14),
      'many are at their top together',
    );
    assert.ok(breadths.filter((breadth) => breadth < 8).length > breadths.length / 2, 'but not as a rule');
    const sums = Array.from({ length: days }, (_, day) =>
      all.reduce((sum, series) => {
        const [first, last] = [series[day * perDay], series[(day + 1) * perDay - 1]] as [Candle, Candle];
        return sum + last.close / first.open - 1;
      }, 0),
    );
    assert.ok(sums.some((sum) => sum > 0.1) && sums.some((sum) => sum < -0.1), sums.join(' '));
  });

  it('of what is no bar, no instrument or no cursor are refused with the codes of the venue', async () => {
    const sim = await start({ exchanges: ['okx_derivatives'] });
    for (const path of [CANDLES, HISTORY]) {
      const codes = async (query: string) => {
        const { status, code } = await ask(sim, `${path}?${query}`);
        return [status, code];
      };
      assert.deepEqual(await codes('bar=5m'), [400, '50014']);
      assert.deepEqual(await codes('instId=NOPE-USDT-SWAP'), [200, '51001']);
      assert.deepEqual(await codes('instId=SOL-USDT'), [200, '51001']);
      assert.deepEqual(await codes(`instId=${SOL}&bar=7m`), [400, '51000']);
      assert.deepEqual(await codes(`instId=${SOL}&bar=1h`), [400, '51000']);
      assert.deepEqual(await codes(`instId=${SOL}&after=x`), [400, '51000']);
    }
  });
});

/** How often a series turns after having moved by `share` at least. */
function turnsIn(series: readonly Candle[], share: number): number {
  let [turns, isUp, extreme] = [0, true, (series[0] as Candle).close];
  for (const { high, low } of series) {
    if (isUp ? high > extreme : low < extreme) extreme = isUp ? high : low;
    if (isUp ? low < extreme * (1 - share) : high > extreme * (1 + share)) {
      [isUp, extreme] = [!isUp, isUp ? low : high];
      turns++;
    }
  }
  return turns;
}

function rangeOf(series: readonly Candle[]): number {
  return Math.max(...series.map(({ high }) => high)) / Math.min(...series.map(({ low }) => low)) - 1;
}

describe('candles of a market', () => {
  it('are those of the past until it began, without a step, and the bar in between is of both', async () => {
    const sim = await start({ exchanges: ['okx_derivatives'], tradesPerSecond: 50 });
    const traded = () => ask<{ px: string; ts: string }>(sim, `/api/v5/market/trades?instId=${BTC}&limit=500`);
    while ((await traded()).data.length < 20) await new Promise((done) => setTimeout(done, 20));
    sim.apply({ action: 'stop' });
    const trades = (await traded()).data;
    const [last, first] = [trades[0], trades.at(-1)] as [{ px: string; ts: string }, { px: string; ts: string }];
    for (const bar of ['1m', '5m', '1H', '1D']) {
      const bars = await candles(sim, `instId=${BTC}&bar=${bar}&limit=3`);
      const place = bars.findIndex(({ start }) => start <= Number(first.ts));
      const [between, before] = bars.slice(place) as [Candle, Candle];
      // A bar that begins with the market opens with its first trade, which is no step away either.
      assert.ok(Math.abs(between.open / before.close - 1) < 1e-4, `${bar}: ${between.open} after ${before.close}`);
      assert.equal(bars[0]?.close, Number(last.px), bar);
      const [high, low] = [Math.max(...bars.map((each) => each.high)), Math.min(...bars.map((each) => each.low))];
      for (const { px } of trades) assert.ok(Number(px) <= high && Number(px) >= low);
      assert.deepEqual([bars[0]?.isFinished, bars[1]?.isFinished], [false, true]);
    }
    const minutes = (await candles(sim, `instId=${BTC}&bar=1m&limit=300`)).reverse();
    const began = Math.floor(Number(first.ts) / MINUTE_MS) * MINUTE_MS;
    const past = minutes.filter(({ start }) => start < began);
    assert.equal(
      minutes.findIndex(({ open }, place) => place > 0 && place < past.length && open !== minutes[place - 1]?.close),
      -1,
    );
    const end = past.at(-1) as Candle;
    assert.ok(Math.abs(Number(first.px) / end.close - 1) < 0.003, `${first.px} after ${end.close}`);
    assert.ok(rangeOf(past) > 0.002, 'the past moves');
  });

  it('equal the sum of its trades over hours that pass at once, also when the trades are gone', async () => {
    const sim = await start({ exchanges: ['okx_derivatives'], tradesPerSecond: 2, diffsPerSecond: 1 });
    const small = await start({
      exchanges: ['okx_derivatives'],
      tradesPerSecond: 2,
      diffsPerSecond: 1,
      tradeHistory: 50,
    });
    const began = await venueTime(sim);
    for (const each of [sim, small]) {
      each.apply({ action: 'skip', exchange: 'okx_derivatives', seconds: 7200 });
      await early(each, 5 * MINUTE_MS);
      each.apply({ action: 'stop' });
    }
    const bars = (await candles(sim, `instId=${BTC}&bar=5m&before=${began}&limit=300`)).reverse();
    assert.ok(bars.length >= 24 && bars.length <= 26, `${bars.length} bars in two hours`);
    assertSame(
      bars.map(({ start }) => start),
      bars.map((_, place) => (bars[0] as Candle).start + place * 5 * MINUTE_MS),
      'no hole',
    );
    assert.ok(bars.slice(0, -1).every(({ isFinished, volume }) => isFinished && volume > 0));
    const trades: { tradeId: string; px: string; sz: string; ts: string }[] = [];
    const wanted = bars.at(-2) as Candle;
    for (let after = ''; trades.length === 0 || Number(trades.at(-1)?.ts) >= wanted.start; ) {
      const page = await ask<(typeof trades)[number]>(
        sim,
        `/api/v5/market/history-trades?instId=${BTC}&limit=100${after}`,
      );
      assert.ok(page.data.length > 0, page.msg);
      trades.push(...page.data);
      after = `&after=${trades.at(-1)?.tradeId}`;
    }
    for (const [bar, length] of [
      ['5m', 5],
      ['1m', 1],
    ] as const) {
      const [told] = (await ask(sim, `${HISTORY}?instId=${BTC}&bar=${bar}&after=${wanted.start + 1}&limit=1`)).data as [
        Row,
      ];
      const inside = trades
        .filter(({ ts }) => Number(ts) >= wanted.start && Number(ts) < wanted.start + length * MINUTE_MS)
        .reverse();
      assert.ok(inside.length > 60 * length, `${inside.length} trades`);
      const prices = inside.map(({ px }) => Number(px));
      const contracts = inside.reduce((sum, { sz }) => sum + Number(sz), 0);
      const worth = inside.reduce((sum, { px, sz }) => sum + Number(px) * Number(sz) * 0.01, 0);
      assert.deepEqual(told.slice(0, 5).map(Number), [
        wanted.start,
        prices[0],
        Math.max(...prices),
        Math.min(...prices),
        prices.at(-1),
      ]);
      assert.ok(Math.abs(Number(told[5]) - contracts) < 1e-6, `${told[5]} contracts, not ${contracts}`);
      assert.ok(Math.abs(Number(told[6]) - contracts * 0.01) < 1e-6);
      assert.ok(Math.abs(Number(told[7]) / worth - 1) < 1e-9);
      assert.equal(told[8], '1');
    }
    // Of the other one nothing is left but the candles, and they are as many.
    assert.equal((await ask(small, `/api/v5/market/history-trades?instId=${BTC}&limit=100`)).data.length, 50);
    const kept = (await candles(small, `instId=${BTC}&bar=1m&limit=120&after=${await venueTime(small)}`)).reverse();
    assert.equal(kept.length, 120);
    assert.ok(
      kept.slice(1).every(({ volume }) => volume > 0),
      'every minute has its trades',
    );
    // The past is still there behind them.
    const [old] = await candles(small, `instId=${BTC}&bar=1H&after=${began - 2 * HOUR_MS}&limit=1`);
    assert.ok(old && old.volume > 0 && old.isFinished);
  });

  it('stand at the last price while nothing is traded', async () => {
    const sim = await start({ exchanges: ['okx_derivatives'] });
    await until('trades', () => sim.ledger().started > 0);
    sim.apply({ action: 'skip', exchange: 'okx_derivatives', seconds: 120 });
    sim.apply({ action: 'stop' });
    sim.apply({ action: 'skip', exchange: 'okx_derivatives', seconds: 600 });
    const { data } = await ask<{ px: string }>(sim, `/api/v5/market/trades?instId=${BTC}&limit=1`);
    const price = Number(data[0]?.px);
    const bars = await candles(sim, `instId=${BTC}&bar=1m&limit=9`);
    for (const { open, high, low, close, volume } of bars) {
      assert.deepEqual([open, high, low, close, volume], [price, price, price, price, 0]);
    }
    // Where it goes on, what was before it stays as it is.
    sim.apply({ action: 'start' });
    sim.apply({ action: 'skip', exchange: 'okx_derivatives', seconds: 120 });
    const after = await candles(sim, `instId=${BTC}&bar=1m&limit=20`);
    assert.ok((after[1] as Candle).volume > 0);
    for (const { start, open, close, volume } of bars.slice(1)) {
      const same = after.find((each) => each.start === start);
      assert.deepEqual([same?.open, same?.close, same?.volume], [open, close, volume]);
    }
  });

  it('of spot are told in the same way, volumes in base units', async () => {
    const sim = await start({ exchanges: ['okx_spot'] });
    const answer = await fetch(`${sim.endpoints.okx_spot?.rest}${CANDLES}?instId=BTC-USDT&bar=5m&limit=300`);
    const { data } = (await answer.json()) as { data: Row[] };
    assert.equal(data.length, 300);
    const [, , high, low, , volume, inQuote] = data[10] as Row;
    const price = Number(inQuote) / Number(volume);
    assert.ok(price >= Number(low) && price <= Number(high), `${price} is between ${low} and ${high}`);
    const none = await fetch(`${sim.endpoints.okx_spot?.rest}${CANDLES}?instId=SOL-USDT&bar=5m`);
    assert.equal(((await none.json()) as { code: string }).code, '51001');
  });
});

describe('tickers', () => {
  it('are told of all coins at once and of each alone, with the opens of both kinds of day', async () => {
    const sim = await start({ exchanges: ['okx_derivatives'], symbols: ['BTC-USDT', 'PEPE-USDT'] });
    await early(sim);
    sim.apply({ action: 'skip', exchange: 'okx_derivatives', seconds: 2 });
    sim.apply({ action: 'stop' });
    const { data } = await ask<Ticker>(sim, '/api/v5/market/tickers?instType=SWAP');
    const expected = [...CHARTED_COINS, 'PEPE'].map((coin) => `${coin}-USDT-SWAP`);
    assert.deepEqual(data.map(({ instId }) => instId).sort(), expected.sort());
    for (const ticker of data) {
      const told = `instId=${ticker.instId}`;
      const [day] = await candles(sim, `${told}&bar=1D&limit=1`);
      assert.equal(Number(ticker.sodUtc8), day?.open, ticker.instId);
      const [last, high, low] = [ticker.last, ticker.high24h, ticker.low24h].map(Number) as [number, number, number];
      assert.ok(low <= last && last <= high && low > 0, JSON.stringify(ticker));
      assert.ok(Number(ticker.bidPx) < Number(ticker.askPx), JSON.stringify(ticker));
    }
    const [alone] = (await ask<Ticker>(sim, `/api/v5/market/ticker?instId=${BTC}`)).data as [Ticker];
    const names =
      'instType,instId,last,lastSz,askPx,askSz,bidPx,bidSz,open24h,high24h,low24h,volCcy24h,vol24h,ts,sodUtc0,sodUtc8';
    assert.deepEqual(Object.keys(alone).sort(), names.split(',').sort());
    assert.ok(Object.values(alone).every((value) => typeof value === 'string'));
    const { data: newest } = await ask<{ px: string }>(sim, `/api/v5/market/trades?instId=${BTC}&limit=1`);
    assert.equal(alone.last, newest[0]?.px);
    const [utc] = await candles(sim, `instId=${BTC}&bar=1Dutc&limit=1`);
    assert.equal(Number(alone.sodUtc0), utc?.open);
    const hours = await candles(sim, `instId=${BTC}&bar=1m&limit=300`);
    assert.ok(Number(alone.high24h) >= Math.max(...hours.map(({ high }) => high)));
    const codes = async (path: string) => {
      const { status, code } = await ask(sim, path);
      return [status, code];
    };
    assert.deepEqual(await codes('/api/v5/market/ticker?instId=NOPE'), [200, '51001']);
    assert.deepEqual(await codes('/api/v5/market/ticker'), [400, '50014']);
    assert.deepEqual(await codes('/api/v5/market/tickers'), [400, '50014']);
    assert.deepEqual(await codes('/api/v5/market/tickers?instType=NOPE'), [400, '51000']);
    assert.deepEqual((await ask(sim, '/api/v5/market/tickers?instType=SPOT')).data, []);
  });

  it('have the open of the day as its candle, also when the day of a market began under it', async () => {
    const tape = new TradeTape(1);
    const listed = okxListed('swap', 'BTC-USDT', 1);
    const midnight = Math.floor(NOW / DAY_MS) * DAY_MS + 16 * HOUR_MS;
    const started = midnight - HOUR_MS;
    const path = new PricePath({ seed: 1, base: 'BTC', price: 600_000, anchor: started, quantityPerQuote: 1 });
    const market = { bestAsk: 0, bestBid: 0, askAt: () => 0, bidAt: () => 0, priceText: () => '0' };
    const chart = new OkxChart(listed, path, { market: market as never, tape, started });
    const opens = (now: number) => {
      const { sodUtc8, sodUtc0 } = JSON.parse(chart.ticker(now)) as Ticker;
      const [day] = (
        JSON.parse(chart.candles(new URLSearchParams('bar=1D&limit=1'), false, now).body) as { data: Row[] }
      ).data;
      assert.equal(sodUtc8, day?.[1]);
      return [sodUtc8, sodUtc0];
    };
    const utc = String(path.priceAt(midnight - 16 * HOUR_MS) / 10);
    assert.equal(path.priceAt(started), 600_000, 'the past ends where the market begins');
    const before = opens(started)[0];
    tape.add({ price: 600_001, quantity: 1, time: midnight - 1 });
    assert.deepEqual(opens(midnight - 1), [before, utc]);
    assert.deepEqual(opens(midnight), ['60000.1', utc]);
    tape.add({ price: 600_005, quantity: 1, time: midnight + MINUTE_MS });
    assert.deepEqual(opens(midnight + HOUR_MS), ['60000.5', utc]);
  });
});

describe('the bar in which a market began', () => {
  it('has the past until then and the trades from then on, whatever its length', () => {
    const minute = Math.floor(NOW / MINUTE_MS) * MINUTE_MS;
    const started = minute + 25_300;
    const path = new PricePath({ seed: 1, base: 'BTC', price: 600_000, anchor: started, quantityPerQuote: 1 });
    const tape = new TradeTape(1);
    const chart = new OkxChart(okxListed('swap', 'BTC-USDT', 1), path, { market: {} as never, tape, started });
    for (let time = started; time < started + 10 * MINUTE_MS; time += 1000) {
      tape.add({ price: 600_100 + (((time - started) / 1000) % 7), quantity: 3, time });
    }
    for (const [from, to] of [
      [minute, minute + MINUTE_MS],
      [minute - 4 * MINUTE_MS, minute + 6 * MINUTE_MS],
      [minute - HOUR_MS, minute + HOUR_MS],
    ] as const) {
      const past = path.bar(from, started);
      const count = Math.min(600, Math.ceil((to - started) / 1000));
      const bar = chart.bar(from, to);
      assert.ok(past.high < 600_100 || from < minute, 'the trades are beyond the past');
      assert.deepEqual(
        [bar.start, bar.open, bar.high, bar.low, bar.quantity],
        [from, past.open, Math.max(past.high, 600_106), Math.min(past.low, 600_100), past.quantity + 3 * count],
      );
      assert.equal(bar.close, 600_100 + ((count - 1) % 7));
    }
    // Before it nothing is of the market, and after it nothing of the past.
    assert.deepEqual(chart.bar(minute - HOUR_MS, minute), path.bar(minute - HOUR_MS, minute));
    assert.equal(chart.bar(minute + MINUTE_MS, minute + 2 * MINUTE_MS).quantity, 3 * 60);
  });
});

describe('the limits of the venue', () => {
  it('hold for what the desk asks, whichever instrument it is about', () => {
    const limits = new RequestLimits();
    const allowed = (path: string): number => {
      const queries = [SOL, BTC].map((id) => new URLSearchParams(`instId=${id}`)) as [URLSearchParams, URLSearchParams];
      let count = 0;
      while (count < 100 && limits.take({ method: 'GET', path, query: queries[count % 2]!, body: '' }, NOW)) count++;
      return count;
    };
    const paths = [CANDLES, HISTORY, '/api/v5/market/ticker', '/api/v5/market/tickers', POSITIONS];
    assert.deepEqual(paths.map(allowed), [40, 20, 20, 20, 10]);
  });
});

describe('the tape of trades', () => {
  it('keeps a year of minutes and no more', () => {
    const tape = new TradeTape(2);
    const first = Math.floor(NOW / DAY_MS) * DAY_MS;
    for (let day = 0; day < 500; day++) tape.add({ price: 100 + day, quantity: 1, time: first + day * DAY_MS });
    assert.equal(tape.bar(first, first + 133 * DAY_MS), null);
    const bar = tape.bar(first, first + 500 * DAY_MS);
    assert.deepEqual([bar?.quantity, bar?.open, bar?.close], [367, 2 * (100 + 133), 2 * 599]);
    assert.equal(tape.closeBefore(first + 400 * DAY_MS), 2 * 499);
    assert.equal(tape.closeBefore(first + 133 * DAY_MS), null);
    assert.equal(tape.last?.price, 2 * 599);
  });
});

describe('positions', () => {
  const path = `${POSITIONS}?instType=SWAP`;
  const at = (time: number) => new Date(time).toISOString();
  const signed = (time: number, change = {}, over = path) => ({
    ...signedHeaders(DEMO_KEY, 'GET', over, at(time)),
    ...change,
  });

  it('are told for a request that is signed, and refused with the code of what is wrong', async () => {
    const sim = await start({ exchanges: ['okx_derivatives'] });
    const now = await venueTime(sim);
    const refused = async (headers: Record<string, string>) => {
      const answer = await fetch(`${sim.endpoints.okx_derivatives?.rest}${path}`, { headers });
      const body = (await answer.json()) as { code: string; msg: string };
      assert.ok(body.msg.length > 0);
      return `${answer.status} ${body.code}`;
    };
    const without = (name: string) => Object.fromEntries(Object.entries(signed(now)).filter(([each]) => each !== name));
    const cases: [Record<string, string>, string][] = [
      [without('OK-ACCESS-KEY'), '50103'],
      [without('OK-ACCESS-PASSPHRASE'), '50104'],
      [without('OK-ACCESS-SIGN'), '50106'],
      [without('OK-ACCESS-TIMESTAMP'), '50107'],
      [signed(now, { 'OK-ACCESS-KEY': 'other' }), '50111'],
      [signed(now, { 'OK-ACCESS-PASSPHRASE': 'other' }), '50105'],
      [signed(now, { 'OK-ACCESS-TIMESTAMP': String(now) }), '50112'],
      [signed(now - 60_000), '50102'],
      [signed(now + 60_000), '50102'],
    ];
    for (const [headers, code] of cases) assert.equal(await refused(headers), `401 ${code}`);
    sim.apply({ action: 'skip', exchange: 'okx_derivatives', seconds: 2 });
    const wrong: Record<string, string>[] = [
      signed(now, {}, POSITIONS),
      signed(now, {}, `${path}&instId=${SOL}`),
      signed(now, { 'OK-ACCESS-SIGN': 'AAAA' }),
      { ...signedHeaders({ ...DEMO_KEY, secret: 'other' }, 'GET', path, at(now)) },
    ];
    for (const headers of wrong) assert.equal(await refused(headers), '401 50113');
    assert.equal(await refused({}), '401 50103');
    assert.equal((await ask(sim, path, signed(now))).code, '0');
    // Its clock is the venue's, which skip moves.
    sim.apply({ action: 'skip', exchange: 'okx_derivatives', seconds: 60 });
    assert.equal(await refused(signed(now)), '401 50102');
    assert.equal((await ask(sim, path, signed(await venueTime(sim)))).code, '0');
  });

  /** Rows of the account at a time of the test's own. */
  function account(seed = 1) {
    let now = NOW;
    const charts = pureCharts(() => now, seed);
    const desk = new OkxAccount(charts, seed, () => now);
    const rows = (time: number, query = 'instType=SWAP'): Record<string, string>[] => {
      now = time;
      const target = `${POSITIONS}?${query}`;
      const headers = Object.fromEntries(
        Object.entries(signedHeaders(DEMO_KEY, 'GET', target, at(time))).map(([name, value]) => [
          name.toLowerCase(),
          value,
        ]),
      );
      const answer = desk.rest({
        method: 'GET',
        path: POSITIONS,
        query: new URLSearchParams(query),
        body: '',
        target,
        headers,
      });
      return (JSON.parse(answer?.body ?? '') as { data: Record<string, string>[] }).data;
    };
    return { rows, charts };
  }

  it('have every field as a text, in both kinds of margin and both ways to tell a side, and agree with the prices', () => {
    const { rows, charts } = account();
    const told = Array.from({ length: 40 }, (_, hour) => rows(NOW + hour * HOUR_MS)).flat();
    const names =
      'instType instId mgnMode posId posSide pos availPos avgPx markPx last idxPx usdPx bePx upl uplRatio uplLastPx uplRatioLastPx lever liqPx imr margin mgnRatio mmr notionalUsd adl ccy realizedPnl pnl fee fundingFee liqPenalty nonSettleAvgPx settledPnl interest tradeId cTime uTime closeOrderAlgo';
    for (const row of told) {
      assert.deepEqual(Object.keys(row), names.split(' '));
      const { closeOrderAlgo, ...texts } = row;
      assert.ok(Array.isArray(closeOrderAlgo));
      for (const [name, value] of Object.entries(texts)) assert.equal(typeof value, 'string', name);
      POSITION.parse(row);
      assert.ok(
        row.mgnMode === 'cross' ? row.margin === '' && Number(row.imr) > 0 : row.imr === '' && Number(row.margin) > 0,
      );
      assert.ok(row.posSide === 'net' || Number(row.pos) > 0, 'only net positions are negative');
      const isShort = row.posSide === 'short' || Number(row.pos) < 0;
      const base = Math.abs(Number(row.pos)) * worthOf(String(row.instId));
      const gain = (isShort ? -1 : 1) * (Number(row.markPx) - Number(row.avgPx)) * base;
      assert.ok(Math.abs(gain - Number(row.upl)) < 1e-6, `${row.upl}, not ${gain}`);
    }
    const kinds = new Set(
      told.map(({ mgnMode, posSide, pos }) => `${mgnMode} ${posSide} ${String(pos).startsWith('-') ? '-' : ''}`.trim()),
    );
    for (const kind of ['cross short', 'isolated short', 'cross long', 'isolated long', 'cross net -', 'cross net']) {
      assert.ok(kinds.has(kind), `${kind} in ${[...kinds]}`);
    }
    const time = NOW + 20 * HOUR_MS;
    const [row] = rows(time) as [Record<string, string>];
    const minute = `${CANDLES}?instId=${row.instId}&bar=1m&limit=1`;
    assert.equal(row.markPx, rowsOf(charts, minute)[0]?.[4]);
    const opened = Number(row.cTime);
    const [entry] = candlesOf(charts, String(row.instId), '1m', opened, opened + 1);
    assert.equal(Number(row.avgPx), entry?.open);
    assert.deepEqual(account().rows(time), rows(time));
    assert.deepEqual(
      rows(time, `instType=SWAP&instId=${row.instId},NOPE`).map(({ posId }) => posId),
      [row.posId],
    );
    assert.deepEqual(rows(time, 'instType=FUTURES'), []);
  });

  it('lose and win together: at times three shorts and more are in loss, at times above 120 %', () => {
    for (const seed of [1, 2, 3]) {
      const { rows } = account(seed);
      const counts = Array.from({ length: 2 * 120 }, (_, place) => {
        const shorts = rows(NOW + (place * HOUR_MS) / 2).filter(
          ({ posSide, pos }) => posSide === 'short' || Number(pos) < 0,
        );
        const profits = shorts.map(({ upl, margin, imr }) => (Number(upl) / Number(margin || imr)) * 100);
        return { loss: profits.filter((each) => each < 0).length, high: profits.filter((each) => each >= 120).length };
      });
      for (const side of ['loss', 'high'] as const) {
        assert.ok(
          counts.some((each) => each[side] >= 3),
          `seed ${seed}: ${side}`,
        );
        assert.ok(
          counts.some((each) => each[side] < 3),
          `seed ${seed}: not always ${side}`,
        );
      }
    }
  });

  it('of isolated margin are gone when the price went beyond it, and stay so', () => {
    const { rows, charts } = account();
    let lost = 0;
    for (let term = 0; term < 40; term++) {
      const begin = (Math.floor(NOW / (36 * HOUR_MS)) + term) * 36 * HOUR_MS + 3 * HOUR_MS;
      const isolated = rows(begin).filter(({ mgnMode }) => mgnMode === 'isolated');
      const end = begin + 33 * HOUR_MS - 1;
      const left = new Set(rows(end).map(({ posId }) => posId));
      for (const { instId, posId, liqPx, posSide, cTime } of isolated) {
        const minutes = candlesOf(charts, String(instId), '5m', Math.ceil(Number(cTime) / 300_000) * 300_000, end);
        const isBeyond = minutes.some(({ high, low }) =>
          posSide === 'short' ? high >= Number(liqPx) : low <= Number(liqPx),
        );
        if (isBeyond) lost++;
        assert.equal(left.has(posId), !isBeyond, `${instId} ${liqPx}`);
      }
    }
    assert.ok(lost > 0, 'none was lost in two months');
  });
});

/** Base units of a contract. */
function worthOf(instrument: string): number {
  const { lotDecimals, baseDecimals } = okxListed('swap', instrument.replace('-SWAP', ''), 1);
  return 10 ** (lotDecimals - baseDecimals);
}

describe('the desk’s own client', () => {
  const dataDir = mkdtempSync(join(tmpdir(), 'okx_desk_'));
  after(() => rmSync(dataDir, { recursive: true }));

  it('gets finished candles over several pages, the open of a day, tickers and positions', async () => {
    const sim = await start({ exchanges: ['okx_derivatives'] });
    const { okx_derivatives: endpoint } = sim.endpoints;
    const config = { ...loadConfig({ MARKETPRISM_DATA_DIR: dataDir }), endpoints: { okx_derivatives: endpoint } };
    const desk = new OkxDesk(config as ReturnType<typeof loadConfig>, createLogger('test'), Date.now);
    const to = Math.floor(Date.now() / 300_000) * 300_000 - 300_000;
    const from = to - 699 * 300_000;
    for (const instrument of [SOL, BTC]) {
      const found = await desk.candles(instrument, '5m', from, to);
      assertSame(
        found.map(({ start }) => start),
        Array.from({ length: 700 }, (_, place) => from + place * 300_000),
        instrument,
      );
      // Both, of which one is far back.
      const old = await desk.candles(instrument, '1m', to - 40 * DAY_MS, to - 40 * DAY_MS + 9 * MINUTE_MS);
      assert.equal(old.length, 10);
      const tickers = await desk.tickers();
      const day = Math.floor((Date.now() + 8 * HOUR_MS) / DAY_MS) * DAY_MS - 8 * HOUR_MS;
      assert.equal(tickers.get(instrument)?.dayOpen, await desk.openAt(instrument, '1D', day));
      assert.equal(tickers.size, CHARTED_COINS.length);
    }
    assert.ok(Array.isArray(await desk.positions(DEMO_KEY)));
    await assert.rejects(desk.positions({ ...DEMO_KEY, secret: 'other' }), /401.*50113/);
    sim.apply({ action: 'away', exchange: 'okx_derivatives', seconds: 60 });
    await assert.rejects(desk.tickers(), /503.*50001/);
    await desk.close();
  });
});

describe('away', () => {
  it('answers 503 to everything for its time by the clock of the exchange, counts it, and leaves others alone', async () => {
    const sim = await start({ exchanges: ['okx_derivatives', 'binance_spot'] });
    const get = async (exchange: string, path: string) => {
      const answer = await fetch(`${sim.endpoints[exchange]?.rest}${path}`);
      return { status: answer.status, type: answer.headers.get('content-type'), body: await answer.text() };
    };
    const [okx, binance] = ['/api/v5/public/time', '/api/v3/time'];
    sim.apply({ action: 'away', exchange: 'okx_derivatives', seconds: 600 });
    for (const path of [okx, `${CANDLES}?instId=${SOL}`, '/nothing']) {
      const { status, body } = await get('okx_derivatives', path);
      assert.deepEqual([status, (JSON.parse(body) as { code: string }).code], [503, '50001']);
    }
    assert.equal((await get('binance_spot', binance)).status, 200);
    sim.apply({ action: 'away', exchange: 'binance_spot', seconds: 3600 });
    const generic = await get('binance_spot', binance);
    assert.deepEqual([generic.status, generic.type], [503, 'text/html']);
    // A refusal on demand waits until somebody is there to give it.
    sim.apply({ action: 'rest', exchange: 'okx_derivatives', status: 429 });
    assert.equal((await get('okx_derivatives', okx)).status, 503);
    sim.apply({ action: 'skip', exchange: 'okx_derivatives', seconds: 300 });
    assert.equal((await get('okx_derivatives', okx)).status, 503);
    sim.apply({ action: 'skip', exchange: 'okx_derivatives', seconds: 301 });
    assert.equal((await get('okx_derivatives', okx)).status, 429);
    assert.equal((await get('okx_derivatives', okx)).status, 200);
    assert.equal((await get('binance_spot', binance)).status, 503, 'another clock');
    assert.deepEqual([sim.ledger().rest_away, sim.ledger().rest_refused], [7, 1]);
  });

  it('is a time above none and up to a day, of an exchange that there is', () => {
    const away = (request: object) => () => parseAction({ action: 'away', ...request }, ['okx_derivatives']);
    for (const seconds of [0, -1, 86_401, '60', undefined]) {
      assert.throws(away({ exchange: 'okx_derivatives', seconds }), /^UsageError: seconds: /, String(seconds));
    }
    assert.throws(away({ exchange: 'elsewhere', seconds: 1 }), /^UsageError: exchange: "elsewhere" is none of/);
    assert.deepEqual(away({ exchange: 'okx_derivatives', seconds: 0.5 })(), {
      action: 'away',
      exchange: 'okx_derivatives',
      seconds: 0.5,
    });
  });
});
