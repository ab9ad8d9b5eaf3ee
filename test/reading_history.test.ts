/** The past of readings: what a module asks the simulated venue for, page by page, and what its feed makes of the answers. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { deribitDerivatives } from '../scripts/exchanges/deribit.ts';
import { hyperliquid } from '../scripts/exchanges/hyperliquid.ts';
import { EXCHANGE_MODULES } from '../scripts/exchanges/index.ts';
import type {
  ExchangeModule,
  History,
  IdRange,
  Instrument,
  ReadingSeries,
  ReadingType,
} from '../scripts/lib/exchange.ts';
import { type Rows, TABLES } from '../scripts/lib/rows.ts';
import { deribitVenue } from '../scripts/lib/sim/deribit.ts';
import { hyperliquidVenue } from '../scripts/lib/sim/hyperliquid.ts';
import { Ledger } from '../scripts/lib/sim/ledger.ts';
import type { VenueMaker } from '../scripts/lib/sim/options.ts';
import { Wire } from '../scripts/lib/sim/venue.ts';
import { feedHarness } from './feed_harness.ts';

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;
const NOW = Date.UTC(2026, 8, 1, 12, 34, 56, 789);
const BTC = deribitDerivatives.instrument('BTC-USDT', 'perpetual');
const SOL = deribitDerivatives.instrument('SOL-USDT', 'perpetual');
const INDEX = deribitDerivatives.instrument('BTC', 'options');
const COIN = hyperliquid.instrument('BTC-USDT', 'perpetual');

/** A body as the venue answers it, before the feed sees it. */
type Change = (path: string, body: unknown) => unknown;
const unchanged: Change = (_, body) => body;

/** A venue that was started at `now`, and a module's feed that asks it. */
function asker(module: ExchangeModule, make: VenueMaker, now = NOW, change = unchanged) {
  const wire = new Wire(new Ledger(now), () => now);
  const venue = make(module.exchange, wire, { symbols: ['BTC-USDT', 'ETH-USDT', 'SOL-USDT'] });
  const harness = feedHarness(module, now * 1000);
  const requests: { path: string; weight: number; rows: Rows[ReadingType][] }[] = [];
  /** The rows of one page, whether they were asked for or not. */
  const page = (type: ReadingType, request: { path: string; weight: number }): Rows[ReadingType][] => {
    const { pathname, searchParams } = new URL(request.path, 'http://host');
    const body = module.postBody?.(request.path);
    const { status, body: text } = venue.rest(
      body === undefined
        ? { method: 'GET', path: pathname, query: searchParams, body: '' }
        : { method: 'POST', path: pathname, query: new URLSearchParams(), body },
    );
    assert.equal(status, 200, `${request.path}: ${text}`);
    assert.equal(harness.rest(request.path, change(request.path, JSON.parse(text))), true);
    const { rows, events } = harness.take();
    assert.deepEqual(
      events.filter(({ kind }) => kind !== 'ignored'),
      [],
    );
    assert.ok(rows.every((each) => each.type === type));
    requests.push({ ...request, rows: rows.map(({ row }) => row as Rows[ReadingType]) });
    return requests[requests.length - 1]!.rows;
  };
  /** Follows the pages of a range as whoever fills a gap does. @returns its rows in the order of their arrival */
  const fetchAll = (type: ReadingType, history: History, instrument: Instrument, { from, to }: IdRange) => {
    assert.deepEqual([history.order, history.idMember], ['ascending', 'timestamp']);
    const found: Rows[ReadingType][] = [];
    for (let next = from; next <= to; ) {
      const rows = page(type, history.page(instrument, { from: next, to }));
      const within = rows.filter(({ timestamp }) => timestamp >= next && timestamp <= to);
      if (within.length === 0) break;
      found.push(...within);
      next = Math.max(...within.map(({ timestamp }) => timestamp)) + 1;
    }
    return found;
  };
  return { fetchAll, requests };
}

function seriesOf(module: ExchangeModule, type: ReadingType): ReadingSeries & { history: History } {
  const found = module.readings?.find((each) => each.type === type);
  assert.ok(found?.history, `${module.exchange} has a history of ${type}`);
  return { ...found, history: found.history };
}

const timesOf = (rows: Rows[ReadingType][]): number[] => rows.map(({ timestamp }) => timestamp);
/** All multiples of `step` in a range, both ends included. */
function steps(step: number, { from, to }: IdRange): number[] {
  const first = Math.ceil(from / step) * step;
  return Array.from({ length: Math.max(0, Math.floor((to - first) / step) + 1) }, (_, index) => first + index * step);
}
const hour = (back: number): number => Math.floor(NOW / HOUR) * HOUR - back * HOUR;
const minute = (back: number): number => Math.floor(NOW / MINUTE) * MINUTE - back * MINUTE;

describe('funding of Deribit', () => {
  const { history, stepMs } = seriesOf(deribitDerivatives, 'funding_rate');

  it('is had for each hour of a range, from before the venue’s start too, and for nothing else', () => {
    const { fetchAll, requests } = asker(deribitDerivatives, deribitVenue);
    for (const instrument of [BTC, SOL]) {
      const range = { from: hour(7), to: hour(2) };
      const rows = fetchAll('funding_rate', history, instrument, range) as Rows['funding_rate'][];
      assert.deepEqual(timesOf(rows), steps(HOUR, range));
      assert.ok(rows.every(({ symbol, market_type }) => symbol === instrument.symbol && market_type === 'perpetual'));
      assert.ok(rows.every(({ funding_interval_hours, index_price }) => funding_interval_hours === '8' && index_price));
    }
    assert.equal(requests.length, 2, 'one page each');
    const minuteOf = (start: number) => ({ from: start, to: start + stepMs - 1 });
    assert.deepEqual(timesOf(fetchAll('funding_rate', history, BTC, minuteOf(hour(3)))), [hour(3)]);
    assert.deepEqual(fetchAll('funding_rate', history, BTC, minuteOf(hour(3) + 5 * MINUTE)), []);
  });

  it('of months comes page by page, each within what an answer holds, without a hole and nothing twice', () => {
    const { fetchAll, requests } = asker(deribitDerivatives, deribitVenue);
    const range = { from: hour(0) - 75 * DAY, to: hour(0) };
    assert.deepEqual(timesOf(fetchAll('funding_rate', history, BTC, range)), steps(HOUR, range));
    assert.equal(requests.length, 3);
    // 31 days; the simulated venue tells the newest of a longer range.
    assert.ok(requests.every(({ rows }) => rows.length < 744));
  });

  it('is complete also where a rate exactly at an end of what is asked for is left out', () => {
    const open: Change = (path, body) => {
      const { searchParams } = new URL(path, 'http://host');
      const [start, end] = ['start_timestamp', 'end_timestamp'].map((name) => Number(searchParams.get(name)));
      const { result } = body as { result: { timestamp: number }[] };
      return { result: result.filter(({ timestamp }) => timestamp > start! && timestamp < end!) };
    };
    const { fetchAll } = asker(deribitDerivatives, deribitVenue, NOW, open);
    const range = { from: hour(0) - 65 * DAY, to: hour(0) };
    assert.deepEqual(timesOf(fetchAll('funding_rate', history, BTC, range)), steps(HOUR, range));
  });
});

describe('candles of Deribit’s volatility index', () => {
  const { history, of, marketTypes } = seriesOf(deribitDerivatives, 'volatility_index');

  it('are had for each minute of a range, from before the venue’s start too, and for nothing else', () => {
    const { fetchAll } = asker(deribitDerivatives, deribitVenue);
    const range = { from: minute(300), to: minute(200) };
    const rows = fetchAll('volatility_index', history, INDEX, range) as Rows['volatility_index'][];
    assert.deepEqual(timesOf(rows), steps(MINUTE, range));
    assert.ok(rows.every(({ symbol, resolution }) => symbol === 'BTC' && resolution === of?.value));
    assert.ok(rows.every(({ market_type }) => marketTypes?.includes(market_type)));
    const single = { from: minute(7), to: minute(7) };
    assert.deepEqual(timesOf(fetchAll('volatility_index', history, INDEX, single)), [minute(7)]);
    const uneven = { from: minute(9) + 1, to: minute(6) - 1 };
    assert.deepEqual(timesOf(fetchAll('volatility_index', history, INDEX, uneven)), [minute(8), minute(7)]);
    const none = { from: minute(9) + 1, to: minute(8) - 1 };
    assert.deepEqual(fetchAll('volatility_index', history, INDEX, none), []);
  });

  it('of days come page by page, each in one answer, without a hole and nothing twice', () => {
    const { fetchAll, requests } = asker(deribitDerivatives, deribitVenue, NOW, (_, body) => {
      const { continuation } = (body as { result: { continuation: number | null } }).result;
      assert.equal(continuation, null, 'an answer that is continued has the newest part first');
      return body;
    });
    const range = { from: minute(2500), to: minute(1) };
    assert.deepEqual(timesOf(fetchAll('volatility_index', history, INDEX, range)), steps(MINUTE, range));
    assert.equal(requests.length, 3);
  });

  it('are complete also where one that begins exactly at the start of what is asked for is left out', () => {
    const { fetchAll } = asker(deribitDerivatives, deribitVenue, NOW, (path, body) => {
      const start = Number(new URL(path, 'http://host').searchParams.get('start_timestamp'));
      const { data } = (body as { result: { data: number[][] } }).result;
      return { result: { data: data.filter(([begin]) => begin! > start), continuation: null } };
    });
    const range = { from: minute(1200), to: minute(1) };
    assert.deepEqual(timesOf(fetchAll('volatility_index', history, INDEX, range)), steps(MINUTE, range));
  });

  it('are had up to the last one that is over', () => {
    const { fetchAll } = asker(deribitDerivatives, deribitVenue);
    const range = { from: minute(3), to: minute(0) };
    assert.deepEqual(timesOf(fetchAll('volatility_index', history, INDEX, range)), [minute(3), minute(2), minute(1)]);
  });
});

describe('funding of Hyperliquid', () => {
  const { history } = seriesOf(hyperliquid, 'funding_rate');

  it('is had for each settlement of a range, from before the venue’s start too, and for nothing else', () => {
    const { fetchAll } = asker(hyperliquid, hyperliquidVenue);
    const rows = fetchAll('funding_rate', history, COIN, { from: hour(7), to: hour(2) - 1 }) as Rows['funding_rate'][];
    const times = timesOf(rows);
    assert.deepEqual(
      times.map((time) => Math.floor(time / HOUR) * HOUR),
      steps(HOUR, { from: hour(7), to: hour(3) }),
    );
    assert.ok(times.some((time) => time % HOUR > 0) && times.every((time) => time % HOUR < 1000));
    assert.ok(
      rows.every(({ funding_time, timestamp }) => funding_time === timestamp),
      'the time of the settlement',
    );
    assert.ok(rows.every(({ symbol, market_type }) => symbol === 'BTC-USDC' && market_type === 'perpetual'));
    const [, second] = times as [number, number];
    for (const [from, to, expected] of [
      [second, second, [second]],
      [second - 1, second - 1, []],
      [second + 1, second + 1, []],
    ] as const) {
      assert.deepEqual(timesOf(fetchAll('funding_rate', history, COIN, { from, to })), expected, 'both ends included');
    }
  });

  it('of months comes page by page without a hole and nothing twice, and each page tells what it weighs', () => {
    const { fetchAll, requests } = asker(hyperliquid, hyperliquidVenue);
    const range = { from: hour(1200), to: hour(0) + HOUR - 1 };
    const times = timesOf(fetchAll('funding_rate', history, COIN, range));
    assert.deepEqual(
      times.map((time) => Math.floor(time / HOUR) * HOUR),
      steps(HOUR, range),
    );
    assert.deepEqual(
      requests.map(({ rows, weight }) => [rows.length, weight]),
      // 20, and one for 20 rows, of which there may be one more than there are hours; after the last settlement nothing is left.
      [
        [500, 45],
        [500, 45],
        [201, 31],
        [0, 21],
      ],
    );
    const weightOf = (from: number, to: number) => history.page(COIN, { from, to }).weight;
    assert.equal(weightOf(hour(3), hour(3) + MINUTE - 1), 21);
    assert.deepEqual([weightOf(hour(19), hour(0)), weightOf(hour(20), hour(0))], [21, 22], 'both ends on an hour');
  });

  it('goes past the choice of one reading a minute, and does not disturb it', () => {
    const at = hour(1);
    const { frame, rest, of } = feedHarness(hyperliquid, at * 1000);
    const context = { funding: '0.0000125', openInterest: '38485.06546', oraclePx: '64063.1', markPx: '64040.0' };
    const live = (time: number) =>
      frame({ channel: 'activeAssetCtx', data: { coin: 'BTC', ctx: context } }, time * 1000);
    const settled = (time: number) => ({ coin: 'BTC', fundingRate: '0.0000130', premium: '0.0', time });
    live(at + 300);
    const { path } = history.page(COIN, { from: at, to: at + 2 * MINUTE });
    rest(path, [settled(at + 50), settled(at + MINUTE + 50)]);
    live(at + 400);
    live(at + MINUTE + 300);
    assert.deepEqual(
      of('funding_rate').map((row) => [row.timestamp - at, row.funding_rate]),
      [
        [0, '0.0000125'],
        [50, '0.0000130'],
        [MINUTE + 50, '0.0000130'],
        [MINUTE, '0.0000125'],
      ],
    );
  });
});

it('the past is the same whenever the simulated venue was started', () => {
  for (const [module, make, type, instrument] of [
    [deribitDerivatives, deribitVenue, 'funding_rate', BTC],
    [deribitDerivatives, deribitVenue, 'volatility_index', INDEX],
    [hyperliquid, hyperliquidVenue, 'funding_rate', COIN],
  ] as const) {
    const told = (now: number) =>
      asker(module, make, now)
        .fetchAll(type, seriesOf(module, type).history, instrument, { from: hour(30), to: hour(24) })
        .map((row) => [
          row.timestamp,
          'funding_rate' in row ? row.funding_rate : 'index_value' in row && row.index_value,
        ]);
    const first = told(NOW);
    assert.ok(
      first.length >= 6 && new Set(first.map(([, value]) => value)).size > first.length / 4,
      'values that move',
    );
    assert.deepEqual(told(NOW + 3 * DAY + 1234), first);
  }
});

describe('the readings that modules declare', () => {
  it('of Deribit and Hyperliquid are those that the venues tell', () => {
    const names = (module: ExchangeModule) =>
      module.readings?.map(({ type, stepMs, quietSteps, history }) => [type, stepMs, quietSteps, history?.keeps]);
    assert.deepEqual(names(deribitDerivatives), [
      ['funding_rate', MINUTE, 0, 'only one rate in an hour'],
      ['open_interest', MINUTE, 1, undefined],
      ['volatility_index', MINUTE, 0, undefined],
    ]);
    assert.deepEqual(names(hyperliquid), [
      ['funding_rate', MINUTE, 1, 'only the rates that were settled'],
      ['open_interest', MINUTE, 1, undefined],
    ]);
    assert.equal(deribitDerivatives.readings?.find(({ type }) => type === 'open_interest')?.history, undefined);
    assert.equal(hyperliquid.readings?.find(({ type }) => type === 'open_interest')?.history, undefined);
  });

  for (const [exchange, { readings }] of Object.entries(EXCHANGE_MODULES)) {
    if (!readings) continue;
    it(`of ${exchange} name each type once for a value of a column that its table has`, () => {
      const seen = readings.map(({ type, of }) => (of ? `${type} ${of.name}=${of.value}` : type));
      assert.deepEqual(
        seen.filter((each, place) => seen.indexOf(each) !== place),
        [],
        'declared twice',
      );
      for (const { type, of, stepMs, quietSteps, marketTypes: some } of readings) {
        const same = readings.filter((each) => each.type === type);
        assert.ok(of || same.length === 1, `${type}: without a column, it is not told from another series of the type`);
        if (of) {
          const columns = TABLES[type].columns.map(({ name }) => name);
          assert.ok(columns.includes(of.name), `${TABLES[type].name} has no column ${of.name}`);
        }
        assert.ok(Number.isInteger(stepMs) && stepMs > 0 && Number.isInteger(quietSteps) && quietSteps >= 0, type);
        assert.ok(some === undefined || some.length > 0, `${type}: no market type`);
      }
    });
  }
});
