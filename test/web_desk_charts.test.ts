/** The columns that the desk's pages draw, and how their rules stand, against a naive reading of the same records. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { beijingDate } from '../scripts/lib/desk/beijing.ts';
import { RULES } from '../scripts/lib/desk/escape.ts';
import { FRESH_STATE, MAJOR_LIMITS } from '../scripts/lib/desk/major_events.ts';
import { seededRandom } from '../scripts/lib/sim/market.ts';
import { DESK_CHART_ROUTES } from '../scripts/lib/web/desk_chart_routes.ts';
import { chartOf } from '../scripts/lib/web/desk_columns.ts';
import { DESK_ROUTES } from '../scripts/lib/web/desk_routes.ts';
import { COINS, type History, pricesBy, writeHistory, writeRules } from './desk_history.ts';
import { Web } from './web_harness.ts';

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;
/** 08:00 in Beijing. */
const END = Date.UTC(2026, 10, 30);
const RULE = RULES[0];
/** They are tried in pages_desk.test.ts. */
const NO_PAGES = { at: () => null };

type Values = (number | null)[];

test('few points of a line: values as they were, the highest and the lowest kept, and no line over what is not known', () => {
  const random = seededRandom(5);
  for (let round = 0; round < 60; round += 1) {
    const times: number[] = [];
    const columns: Record<'a' | 'b', Values> = { a: [], b: [] };
    for (let at = 0; at < 3000; at += 1) {
      // Records that are missing, alone and in a row, and figures that are not known.
      if (random() < 0.01) at += Math.floor(random() * 40);
      times.push(at * MINUTE);
      columns.a.push(random() < 0.01 ? null : Math.floor(random() * 100));
      columns.b.push(random() < 0.2 ? null : Math.sin(at / 50));
    }
    const chart = chartOf(times, columns, { cadenceMs: MINUTE, points: 50 + round });
    assert.equal(chart.missing_slots, times.at(-1)! / MINUTE - times[0]! / MINUTE + 1 - times.length);
    for (const name of ['a', 'b'] as const) {
      const known = new Map(times.map((time, i) => [time, columns[name][i]!]));
      const drawn = chart[name];
      for (const [i, time] of chart.times.entries()) {
        assert.equal(drawn[i], known.get(time) ?? null);
        if (i === 0 || drawn[i] === null || drawn[i - 1] === null) continue;
        for (let between = chart.times[i - 1]!; between <= time; between += MINUTE)
          assert.ok((known.get(between) ?? null) !== null, `${name}: a line from ${chart.times[i - 1]} to ${time}`);
      }
      const all = columns[name].filter((value) => value !== null);
      for (const extreme of [Math.max(...all), Math.min(...all)]) assert.ok(drawn.includes(extreme));
    }
  }
});

describe('what the desk’s pages draw', () => {
  const dir = mkdtempSync(join(tmpdir(), 'marketprism-'));
  const empty = mkdtempSync(join(tmpdir(), 'marketprism-'));
  let [web, none] = [] as unknown as [Web, Web];
  let history: History;
  let now = END + 2 * MINUTE;

  before(async () => {
    history = writeHistory(dir, { end: END, days: 3 });
    const open = (data: string) => {
      const env = { MARKETPRISM_DATA_DIR: data, CLICKHOUSE_URL: 'http://127.0.0.1:9' };
      return Web.open(env, [...DESK_ROUTES, ...DESK_CHART_ROUTES], { pages: NO_PAGES }, () => now);
    };
    [web, none] = await Promise.all([open(dir), open(empty)]);
  });

  after(async () => {
    await web?.close();
    await none?.close();
    for (const each of [dir, empty]) rmSync(each, { recursive: true });
  });

  const escapes = (rule: string) => history.escapes.filter((row) => row.rule === rule);
  const minuteText = (ms: number) => new Date(ms).toISOString().slice(0, 16).replace('T', ' ');
  const limitsFile = () => join(dir, 'state/major_events_limits.json');

  test('columns of escape signals: a day minute by minute, the whole in few points with the peaks of counts, breadth and levels', async () => {
    const base = '/api/escape-signal-stats/columns';
    const names = [
      'signal_24h_count',
      'signal_2h_count',
      'decline_strength_level',
      'rise_strength_level',
      'breadth',
    ] as const;
    for (const rule of RULES) {
      const bySlot = new Map(escapes(rule).map((row) => [row.slot, row]));
      for (const query of ['points=50', 'days=1&points=2000', 'points=5000']) {
        const body = await web.ok(`${base}?rule=${rule}&${query}`);
        const begin = query.startsWith('days') ? END - MINUTE - DAY + MINUTE : history.begin;
        assert.equal(body.total_count, escapes(rule).filter(({ slot }) => slot >= begin).length);
        assert.deepEqual([body.missing_slots, body.is_complete, body.rule], [90, true, rule]);
        for (const name of names) {
          for (const [i, time] of body.times.entries())
            assert.equal(body[name][i], bySlot.get(time)?.[name] ?? null, name);
          const all = [...bySlot.values()].filter(({ slot }) => slot >= begin).flatMap((row) => row[name] ?? []);
          if (all.length > 0) assert.ok(body[name].includes(Math.max(...all)), `${rule} ${name}`);
        }
        const hole = body.times.indexOf(history.hole[0]);
        assert.ok(hole > 0 && body.signal_24h_count[hole] === null, 'the hole breaks the line');
      }
      const day = await web.ok(`${base}?rule=${rule}&from=2026-11-29&to=2026-11-29%2023:59:59`);
      const expected = escapes(rule).filter(({ slot }) => beijingDate(slot) === '2026-11-29');
      assert.deepEqual(
        day.times.filter((time: number) => bySlot.has(time)),
        expected.map(({ slot }) => slot),
      );
    }
    const wrong = await web.get(`${base}?from=2026-11-29&to=2026-11-28`);
    assert.deepEqual([wrong.status, wrong.body.field], [400, 'from']);
    const empty = await none.ok(base);
    assert.deepEqual([empty.times, empty.total_count], [[], 0]);
  });

  test('the table has each record with what the coins had changed by then; who turns its pages sees none twice', async () => {
    const base = '/api/escape-signal-stats/table';
    const expected = [...escapes(RULE)].reverse();
    const change = (minute: number) => {
      const prices = pricesBy(history, minute);
      return [prices?.total_change ?? null, prices?.valid_coins ?? null];
    };
    assert.deepEqual(change(history.absent + 20 * MINUTE), [null, null], 'a half hour without a record is not known');
    const body = await web.ok(`${base}?limit=1440`);
    assert.equal(body.total_count, expected.length);
    for (const [i, row] of body.data.entries()) {
      const { total_change, average_change, valid_coins, total_coins, ...record } = row;
      assert.deepEqual(record, expected[i]);
      assert.deepEqual([total_change, valid_coins], change(row.slot), minuteText(row.slot));
    }
    assert.ok(body.data.some((row: { valid_coins: number | null }) => row.valid_coins === COINS.length - 1));
    const day = await web.ok(`${base}?date=2026-11-29&limit=1440`);
    assert.deepEqual(
      day.data.map(({ slot }: { slot: number }) => slot),
      expected.filter(({ slot }) => beijingDate(slot) === '2026-11-29').map(({ slot }) => slot),
    );
    const pinned = await web.ok(`${base}?limit=20&offset=20&to=${expected[5]!.slot}`);
    assert.equal(pinned.data[0].slot, expected[25]!.slot);
    const both = await web.ok(`${base}?date=2026-11-29&to=${END}&limit=1`);
    assert.equal(both.data[0].slot, day.data[0].slot);
    const wrong = await web.get(`${base}?date=2026-13-29`);
    assert.deepEqual([wrong.status, wrong.body.field], [400, 'date']);
  });

  test('columns of prices: half hours without a coin are null and those without a record break the line; one coin by itself', async () => {
    const base = '/api/coin-price-tracker/columns';
    const bySlot = new Map(history.prices.map((row) => [row.slot, row]));
    const body = await web.ok(`${base}?coin=${COINS[1]}`);
    assert.deepEqual([body.missing_slots, body.total_count, body.coin], [1, history.prices.length, COINS[1]]);
    for (const [i, time] of body.times.entries()) {
      const row = bySlot.get(time);
      const own = row?.day_changes[COINS[1]!];
      assert.deepEqual(
        [body.total_change[i], body.average_change[i], body.valid_coins[i], body.change_pct[i], body.current_price[i]],
        [
          ...[row?.total_change ?? null, row?.average_change ?? null, row?.valid_coins ?? null],
          ...[own?.change_pct ?? null, own?.current_price ?? null],
        ],
      );
    }
    const at = (time: number, name: string) => body[name][body.times.indexOf(time)];
    assert.deepEqual([at(history.blank, 'total_change'), at(history.blank, 'valid_coins')], [null, 0]);
    assert.deepEqual([at(history.absent, 'total_change'), at(history.absent, 'valid_coins')], [null, null]);
    assert.deepEqual([at(history.partial, 'change_pct'), at(history.partial, 'valid_coins')], [null, COINS.length - 1]);
    const all = await web.ok(`${base}?days=1&points=50`);
    assert.deepEqual([all.change_pct, all.coin, all.total_count], [null, null, 47]);
    const wrong = await web.get(`${base}?coin=NOPE`);
    assert.deepEqual([wrong.status, wrong.body.field], [404, 'coin']);
    const latest = await web.ok('/api/coin-price-tracker/latest?limit=1');
    assert.deepEqual([latest.age_seconds, latest.is_current], [32 * 60, true]);
  });

  test('columns of the SAR, of how coins lean, and of the unified series are what the records say', async () => {
    const btc = history.sar.filter(({ symbol }) => symbol === 'BTC');
    const body = await web.ok('/api/sar-slope/columns/BTC?points=5000');
    assert.deepEqual(
      body.times,
      btc.map(({ timestamp }) => timestamp),
    );
    for (const [i, row] of btc.entries()) {
      const isBullish = row.sar_position === 'bullish';
      assert.deepEqual(
        [body.price[i], body.sar_bullish[i], body.sar_bearish[i], body.slope_value[i]],
        [row.close, isBullish ? row.sar_value : null, isBullish ? null : row.sar_value, row.slope_value],
      );
    }
    const byCandle = new Map<number, typeof history.sar>();
    for (const row of history.sar) byCandle.set(row.timestamp, [...(byCandle.get(row.timestamp) ?? []), row]);
    const bias = await web.ok('/api/sar-slope/columns?points=5000');
    for (const [i, time] of bias.times.entries()) {
      const candle = Math.floor(time / (5 * MINUTE)) * 5 * MINUTE - 5 * MINUTE;
      const rows = byCandle.get(candle)!;
      const bullish = rows.filter((row) => row.sar_position === 'bullish').length;
      assert.deepEqual([bias.bullish_count[i], bias.bearish_count[i]], [bullish, rows.length - bullish]);
    }
    for (const [series, member] of [
      ['sar_top_count', 'count'],
      ['liquidation_1h', 'amount'],
      ['coin_change_total', 'total_change'],
    ] as const) {
      const records = (await web.ok(`/api/unified/${series}?limit=10000`)).data.reverse();
      const columns = await web.ok(`/api/unified/${series}/columns?points=5000`);
      assert.deepEqual(columns.latest, records.at(-1));
      const value = new Map(records.map((row: Record<string, unknown>) => [row.slot, row[member]]));
      for (const [i, time] of columns.times.entries()) assert.equal(columns.values[i], value.get(time) ?? null);
      assert.equal(columns.times.length, records.length);
    }
  });

  test('rules of major events: blind, resting, waiting and armed as the monitor’s state has them, with the operator’s limits', async () => {
    const path = '/api/major-events/current-status';
    const states = async () => {
      const { standing } = await web.ok(path);
      const stood = Object.entries(standing as Record<string, { state: string }>);
      return Object.fromEntries(stood.map(([event, { state }]) => [event, state]));
    };
    const minute = END - 20 * MINUTE;
    writeRules(dir, history, now, {
      blind: [{ input: 'anchor', events: ['E5'], since: minute, why: 'late' }],
      rules: {
        ...{ ...FRESH_STATE, minute: END, last_count: 7, fired: { E4: minute } },
        strong: { minute, count: 15 },
      },
    });
    assert.deepEqual(await states(), { E1: 'waiting', E2: 'armed', E3: 'resting', E4: 'resting', E5: 'blind' });
    const body = await web.ok(path);
    assert.deepEqual(body.limits, MAJOR_LIMITS.parse({}));
    assert.deepEqual(body.standing.E1.waiting, { since: minute, until: minute + 10 * HOUR, figure: 15, price: null });
    assert.equal(body.standing.E3.resting_until, minute + HOUR);
    assert.deepEqual(body.standing.E5.blind, [{ input: 'anchor', since: minute, why: 'late' }]);
    const value = Object.fromEntries(body.inputs.map((each: { input: string }) => [each.input, each]));
    assert.equal(value.escape_signal.value, escapes(RULE).at(-1)!.signal_2h_count);
    assert.equal(value.coin_prices.value, history.prices.at(-1)!.total_change);
    assert.equal(value.sar_slope.value, history.sar.findLast(({ symbol }) => symbol === 'BTC')!.close);
    assert.deepEqual([value.anchor.value, value.anchor.gte_120, value.anchor.slot], [2, 1, END]);
    // What rests until a minute may be told in it.
    writeRules(dir, history, now, {
      rules: { ...FRESH_STATE, minute: END, fired: { E2: END - HOUR, E5: END - HOUR + MINUTE } },
    });
    assert.deepEqual(await states(), { E1: 'armed', E2: 'armed', E3: 'armed', E4: 'armed', E5: 'resting' });
    const watched = { minute, amount: 12_000_000, price: 97_000, highest: 97_500 };
    writeRules(dir, history, now, { rules: { ...FRESH_STATE, minute: END, liquidation: watched } });
    const { standing } = await web.ok(path);
    assert.deepEqual(standing.E4.waiting, {
      since: minute,
      until: minute + 10 * MINUTE,
      figure: 12_000_000,
      price: 97_000,
    });
    writeFileSync(limitsFile(), JSON.stringify({ strong_top_count: 9, weak_top_count: 3 }));
    const limited = await web.ok('/api/escape-signal-stats/summary');
    assert.deepEqual(
      [limited.strong_top_count, limited.weak_top_count, limited.most_2h, limited.most_24h],
      [9, 3, 24, 288],
    );
    const other = await web.ok(`/api/escape-signal-stats/summary?rule=${RULES[1]}`);
    assert.equal(other.strong_top_count, null);
    writeFileSync(limitsFile(), JSON.stringify({ strong_topcount: 9 }));
    const unsound = await web.ok(path);
    assert.equal(unsound.limits, null);
    assert.match(unsound.limits_fault, /strong_topcount/);
    assert.deepEqual(new Set(Object.values(await states())), new Set(['unknown']));
    rmSync(limitsFile());
    assert.equal((await web.ok(path)).is_current, true);
    now += 10 * MINUTE;
    const old = await web.ok(path);
    now -= 10 * MINUTE;
    assert.deepEqual([old.is_current, old.age_seconds], [false, 600]);
    const unknown = await none.ok(path);
    assert.deepEqual([unknown.is_known, unknown.is_current, unknown.standing.E1.state], [false, null, 'unknown']);
  });
});
