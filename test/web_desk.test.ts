/** The desk's API against what the files say: rotated, corrected, growing, 30 days long. */
import assert from 'node:assert/strict';
import {
  appendFileSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { beijingDate, beijingText } from '../scripts/lib/desk/beijing.ts';
import { RULES } from '../scripts/lib/desk/escape.ts';
import { placePath } from '../scripts/lib/harvest/kinds.ts';
import { seededRandom } from '../scripts/lib/sim/market.ts';
import { DESK_ROUTES } from '../scripts/lib/web/desk_routes.ts';
import { keypoints } from '../scripts/lib/web/keypoints.ts';
import { harvestRow } from './harvest_rows.ts';
import { Web } from './web_harness.ts';

const MINUTE = 60_000;
const CANDLE = 300_000;
const DAY = 86_400_000;
const END = Date.UTC(2026, 10, 30, 8);
const BEGIN = END - 30 * DAY;
const COINS = ['AAVE', 'BTC', 'ETH'];
const ESCAPE = 'escape_signal_jsonl/escape_signal_stats.jsonl';
const SAR = 'sar_slope_jsonl/sar_slope_data.jsonl';

type Row = Record<string, unknown> & { slot: number };

function escapeRow(slot: number, rule: string, count: number | null): Row {
  return {
    ...{ slot, stat_time: beijingText(slot), rule, rule_version: 1, signal_24h_count: count },
    ...{ signal_2h_count: count === null ? null : count % 25, decline_strength_level: 1, rise_strength_level: 0 },
    ...{ max_signal_24h: 9, max_signal_2h: 3, created_at: beijingText(slot + CANDLE), breadth: 4, coins: 27 },
    ...{ is_signal: false, threshold: 8, data_time: beijingText(slot), missing_2h: 0, missing_24h: 0 },
  };
}

function sarRow(slot: number, symbol: string, n: number): Row {
  const [cycle, sequence] = [Math.floor(n / 40), (n % 40) + 1];
  const price = 100 + (n % 17);
  return {
    ...{ slot, symbol, timestamp: slot, datetime: beijingText(slot), open: price, high: price + 1, low: price - 1 },
    ...{
      close: price,
      price,
      sar_value: 98.5,
      sar_position: cycle % 2 === 0 ? 'bullish' : 'bearish',
      sar_quadrant: 'Q1',
    },
    ...{ sequence, position_duration: sequence * 5, sar_slope: 0.5, direction_ratio: n === 0 ? null : 0.75 },
    ...{ slope_value: n === 0 ? null : 0.75, slope_direction: n === 0 ? null : 'up', ep: 101, af: 0.02, gap: 0 },
  };
}

function pricesRow(slot: number, total: number | null): Row {
  return {
    ...{ slot, collect_time: beijingText(slot), timestamp: slot, base_date: beijingDate(slot) },
    day_changes: {
      BTC: { base_price: 1, current_price: 2, change_pct: 100 },
      NOPE: { base_price: null, current_price: null, change_pct: null },
    },
    ...{ total_change: total, average_change: total, total_coins: 2, valid_coins: total === null ? 0 : 1 },
    ...{ success_count: 1, failed_count: 1, failed: ['NOPE'] },
  };
}

describe('the desk’s API over 30 days of files', () => {
  const dir = mkdtempSync(join(tmpdir(), 'marketprism-'));
  let web: Web;
  /** As they are to be read: the oldest first. */
  const files = new Map<string, string[]>();

  function write(file: string, name: string, rows: readonly object[], age: number): void {
    const path = join(dir, dirname(file), name);
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, rows.map((row) => `${JSON.stringify(row)}\n`).join(''));
    utimesSync(path, (END - age) / 1000, (END - age) / 1000);
    files.set(file, [...(files.get(file) ?? []), path]);
  }

  /** In three files, as they are rotated. */
  function writeThird(file: string, rows: readonly Row[]): void {
    const base = file.slice(file.lastIndexOf('/') + 1);
    for (const [i, suffix] of ['-20261110', '-20261120', ''].entries()) {
      const part = rows.filter(({ slot }) => slot >= BEGIN + i * 10 * DAY && slot < BEGIN + (i + 1) * 10 * DAY);
      write(file, base + suffix, part, (2 - i) * 10 * DAY);
    }
  }

  const parsed = new Map<string, Row[]>();
  function rowsIn(path: string): Row[] {
    const { ino, size, mtimeMs } = statSync(path);
    const key = `${ino} ${size} ${mtimeMs}`;
    const known = parsed.get(key);
    if (known !== undefined) return known;
    const rows: Row[] = [];
    for (const line of readFileSync(path, 'utf8').split('\n').slice(0, -1)) {
      try {
        rows.push(JSON.parse(line));
      } catch {
        // A damaged line is none.
      }
    }
    parsed.set(key, rows);
    return rows;
  }

  /** The records as they stand, by a reader that knows nothing of ours. */
  function naive(file: string, key: (row: Row) => string): Row[] {
    const found = new Map<string, Row>();
    for (const path of files.get(file)!) for (const row of rowsIn(path)) found.set(`${row.slot} ${key(row)}`, row);
    return [...found.values()].sort((one, other) => other.slot - one.slot);
  }

  const escapes = (rule: string) => naive(ESCAPE, (row) => String(row.rule)).filter((row) => row.rule === rule);
  const stats = '/api/escape-signal-stats';

  before(async () => {
    const random = seededRandom(3);
    const rows: Row[] = [];
    for (let slot = BEGIN; slot < END; slot += MINUTE) {
      const isGap = slot >= BEGIN + 5 * DAY && slot < BEGIN + 5 * DAY + 3600_000;
      for (const rule of RULES) rows.push(escapeRow(slot, rule, isGap ? null : Math.floor(random() * 200)));
    }
    // A peak of one minute.
    rows[30_000 * 3] = escapeRow(rows[30_000 * 3]!.slot, RULES[0], 288);
    writeThird(ESCAPE, rows);
    // Corrections of minutes that are in an older file, and a line that is none.
    appendFileSync(join(dir, ESCAPE), '{"slot":17, broken\n');
    for (const at of [10, 20_000, 40_000]) {
      const slot = BEGIN + at * MINUTE;
      appendFileSync(join(dir, ESCAPE), `${JSON.stringify({ ...escapeRow(slot, RULES[0], 77), correction: true })}\n`);
    }
    const sar: Row[] = [];
    for (let slot = BEGIN, n = 0; slot < END; slot += CANDLE, n += 1) {
      // AAVE ends an hour before the others.
      for (const coin of COINS) if (coin !== 'AAVE' || slot < END - 3600_000) sar.push(sarRow(slot, coin, n));
    }
    writeThird(SAR, sar);
    const prices: Row[] = [];
    for (let slot = BEGIN; slot < END; slot += 6 * CANDLE)
      prices.push(pricesRow(slot, slot % DAY === 0 ? null : random()));
    writeThird('coin_price_tracker/coin_prices_30min.jsonl', prices);
    const { MARKETPRISM_DATA_DIR, CLICKHOUSE_URL } = {
      MARKETPRISM_DATA_DIR: dir,
      CLICKHOUSE_URL: 'http://127.0.0.1:9',
    };
    web = await Web.open({ MARKETPRISM_DATA_DIR, CLICKHOUSE_URL }, DESK_ROUTES, {}, () => END);
  });

  after(async () => {
    await web.close();
    rmSync(dir, { recursive: true });
  });

  test('each page of the escape signals is what the files say, corrections in their place', async () => {
    for (const rule of RULES) {
      const expected = escapes(rule);
      for (const [limit, offset] of [
        [1000, 0],
        [500, 1200],
        [10_000, 19_000],
        [10, 43_195],
        [10, 50_000],
      ] as const) {
        const body = await web.ok(`${stats}?rule=${rule}&limit=${limit}&offset=${offset}`);
        assert.deepEqual(body.history_data, expected.slice(offset, offset + limit));
        assert.deepEqual([body.total_count, body.rule], [43_200, rule]);
      }
    }
    const { history_data, recent_data, max_signal_24h, median_24h, sample_24h_count, data_range } = await web.ok(stats);
    assert.equal(history_data[0].rule, 'sar-breadth');
    assert.deepEqual(recent_data, history_data.slice(0, 10));
    const day = escapes(RULES[0])
      .slice(0, 1440)
      .map((row) => Number(row.signal_24h_count))
      .sort((a, b) => a - b);
    assert.deepEqual([max_signal_24h, sample_24h_count, median_24h], [288, 1440, (day[719]! + day[720]!) / 2]);
    assert.deepEqual(data_range, { from: beijingText(BEGIN), to: beijingText(END - MINUTE) });
    const corrected = await web.ok(`${stats}?limit=1&offset=${43_199 - 20_000}`);
    assert.deepEqual([corrected.history_data[0].signal_24h_count, corrected.history_data[0].correction], [77, true]);
  });

  test('key points keep every peak: the highest thousandth, the lowest, the highest of each block, both ends', async () => {
    const all = escapes(RULES[0]).reverse();
    const {
      keypoints: points,
      keypoint_count,
      compression_rate,
      max_signal_24h,
    } = await web.ok(`${stats}/keypoints?limit=600`);
    assert.deepEqual([points.length, keypoint_count, max_signal_24h], [600, 600, 288]);
    assert.ok(Math.abs(compression_rate - (1 - 600 / 43_200)) < 1e-12);
    const slots = new Set(points.map(({ slot }: Row) => slot));
    const counts = all.map((row) => row.signal_24h_count as number | null);
    const sorted = counts.filter((each) => each !== null).sort((a, b) => b - a);
    const highest = sorted[Math.floor(sorted.length / 1000)]!;
    const peak = all.find((row) => row.signal_24h_count === 288)!;
    assert.ok(slots.has(all[0]!.slot) && slots.has(all.at(-1)!.slot) && slots.has(peak.slot));
    for (const row of all) if ((row.signal_24h_count as number) > highest) assert.ok(slots.has(row.slot));
    for (let begin = 0; begin < all.length; begin += 360) {
      const block = all.slice(begin, begin + 360);
      const most = Math.max(...block.map((row) => Number(row.signal_24h_count ?? -1)));
      if (most < sorted[Math.floor(sorted.length * 0.05)]!) continue;
      assert.ok(
        block.some((row) => row.signal_24h_count === most && slots.has(row.slot)),
        `block ${begin}`,
      );
    }
    // Where nothing is known a chart shows a gap.
    const gap = BEGIN + 5 * DAY;
    assert.ok(slots.has(gap) && points.find(({ slot }: Row) => slot === gap).signal_24h_count === null);
    assert.ok(slots.has(gap + 3600_000));
    const [first] = points;
    assert.deepEqual([first.total_coins, first.total_change], [2, pricesOf(first.slot)]);
  });

  function pricesOf(slot: number): unknown {
    const rows = naive('coin_price_tracker/coin_prices_30min.jsonl', () => '');
    return rows.find((row) => row.slot <= slot)!.total_change;
  }

  test('who asks for what is new since the last answer gets each record once; days and one day are whole', async () => {
    const expected = escapes(RULES[0]).slice(0, 95).reverse();
    let since = beijingText(END - 96 * MINUTE);
    const got: Row[] = [];
    for (let round = 0; round < 9; round += 1) {
      const { data, latest_time, count } = await web.ok(
        `${stats}/incremental?limit=30&since=${encodeURIComponent(since)}`,
      );
      if (count === 0) break;
      got.push(...data);
      since = latest_time;
    }
    assert.deepEqual(got, expected);
    assert.deepEqual((await web.ok(`${stats}/incremental`)).data, expected.slice(-10));
    const { dates } = await web.ok(`${stats}/dates`);
    const byDay = new Map<string, number>();
    for (const { slot } of escapes(RULES[0])) byDay.set(beijingDate(slot), (byDay.get(beijingDate(slot)) ?? 0) + 1);
    assert.deepEqual(
      dates.map(({ date, records }: { date: string; records: number }) => [date, records]),
      [...byDay],
    );
    const { data } = await web.ok(`${stats}/by-date?date=2026-11-12&limit=1440`);
    assert.deepEqual(
      data,
      escapes(RULES[0]).filter(({ slot }) => beijingDate(slot) === '2026-11-12'),
    );
    assert.deepEqual((await web.ok(`${stats}/summary`)).latest, escapes(RULES[0])[0]);
  });

  test('SAR rows: the newest of each coin, a coin’s history, its cycle since the flip', async () => {
    const rows = naive(SAR, (row) => String(row.symbol));
    const { data, stats: counts, data_time } = await web.ok('/api/sar-slope/latest');
    assert.deepEqual(
      data.map(({ symbol, is_current }: { symbol: string; is_current: boolean }) => [symbol, is_current]),
      [
        ['AAVE', false],
        ['BTC', true],
        ['ETH', true],
      ],
    );
    const current = rows.filter(({ slot }) => slot === END - CANDLE);
    const bullish = current.filter((row) => row.sar_position === 'bullish').length;
    assert.equal(data_time, END - CANDLE);
    assert.deepEqual(counts, {
      ...{ total_symbols: 2, bullish_count: bullish, bearish_count: 2 - bullish },
      avg_duration: current.reduce((sum, row) => sum + Number(row.position_duration), 0) / 2,
    });
    assert.deepEqual((await web.ok('/api/sar-slope/latest?symbol=BTC')).data.length, 1);
    const btc = rows.filter(({ symbol }) => symbol === 'BTC');
    const from = beijingText(END - DAY);
    const history = await web.ok(`/api/sar-slope/history/BTC?limit=50&offset=100&from=${encodeURIComponent(from)}`);
    assert.deepEqual([history.data, history.total_count], [btc.slice(100, 150), 288]);
    const cycle = await web.ok('/api/sar-slope/current-cycle/BTC');
    const { sequence } = btc[0]!;
    assert.deepEqual([cycle.data, cycle.sequence, cycle.is_whole], [btc.slice(0, Number(sequence)), sequence, true]);
    assert.equal((await web.ok('/api/sar-slope/bias-ratios')).bullish_ratio, bullish / 2);
    assert.deepEqual((await web.ok('/api/sar-slope/status')).rows.records, rows.length);
    const none = await web.get('/api/sar-slope/history/NOPE');
    assert.deepEqual([none.status, none.body.field], [404, 'symbol']);
  });

  test('coin prices: the newest, days back, a span of Beijing time, all', async () => {
    const rows = naive('coin_price_tracker/coin_prices_30min.jsonl', () => '');
    const base = '/api/coin-price-tracker';
    assert.deepEqual((await web.ok(`${base}/latest`)).data, rows.slice(0, 48));
    assert.equal((await web.ok(`${base}/history?days=2`)).count, 96);
    const all = await web.ok(`${base}/history?all=true`);
    assert.deepEqual(all.data, rows);
    assert.ok(all.data.some(({ total_change }: Row) => total_change === null));
    const span = await web.ok(`${base}/history?start_time=2026-11-20%2000:00:00&end_time=2026-11-20T00:30:00%2B08:00`);
    assert.deepEqual(
      span.data.map((row: Row) => row.collect_time),
      ['2026-11-20 00:30:00', '2026-11-20 00:00:00'],
    );
  });

  test('files that grow, are torn, corrected, rotated, taken away or begun anew are read as they are', async () => {
    const same = async (what: string) => {
      const { history_data, total_count } = await web.ok(`${stats}?limit=2000`);
      const expected = escapes(RULES[0]);
      assert.equal(total_count, expected.length, what);
      assert.deepEqual(history_data, expected.slice(0, 2000), what);
    };
    const path = join(dir, ESCAPE);
    const line = (slot: number, count: number, more = {}) =>
      `${JSON.stringify({ ...escapeRow(slot, RULES[0], count), ...more })}\n`;
    appendFileSync(path, line(END, 1) + line(END - 50 * MINUTE, 99, { correction: true }));
    await same('grown');
    const torn = line(END + MINUTE, 2);
    appendFileSync(path, torn.slice(0, 50));
    await same('torn');
    appendFileSync(path, torn.slice(50));
    await same('mended');
    // A minute that had been left out.
    appendFileSync(path, line(END + 3 * MINUTE, 3) + line(END + 2 * MINUTE, 4, { correction: true }));
    await same('completed');
    const paths = files.get(ESCAPE)!;
    renameSync(path, `${path}-20261130`);
    paths[2] = `${path}-20261130`;
    appendFileSync(path, line(END + 4 * MINUTE, 5));
    paths.push(path);
    await same('rotated');
    rmSync(paths.shift()!);
    await same('the oldest is gone');
    // What it had corrected counts again.
    rmSync(paths.splice(1, 1)[0]!);
    await same('one in the middle is gone');
    truncateSync(path, 0);
    appendFileSync(path, line(END + 5 * MINUTE, 6) + line(END + 6 * MINUTE, 7));
    await same('begun anew');
    writeFileSync(path, line(END + 5 * MINUTE, 16) + line(END + 7 * MINUTE, 17) + line(END + 8 * MINUTE, 18));
    await same('replaced by a longer one');
  });

  test('a question reads what it gives, and not the files', async () => {
    const read = () => Number(/rchar: (\d+)/.exec(readFileSync('/proc/self/io', 'utf8'))![1]);
    const paths = [
      '/api/sar-slope/latest',
      `${stats}?limit=10`,
      `${stats}/keypoints?limit=50`,
      '/api/coin-price-tracker/latest?limit=2',
    ];
    for (const path of paths) await web.ok(path);
    const before = read();
    for (const path of paths) await web.ok(path);
    const bytes = read() - before;
    assert.ok(bytes < 3_000_000, `${bytes} bytes for four small answers`);
  });

  test('events, alerts, anchor and unified series: pages, filters, and what is not there yet', async () => {
    const empty = await web.ok('/api/major-events/current-status');
    assert.deepEqual([empty.is_known, empty.latest, empty.events.E1, empty.data_time], [false, null, null, null]);
    assert.deepEqual(await web.ok('/api/anchor/latest'), { success: true, data: null, age_seconds: null });
    const event = (name: string, minute: number) => ({
      ...{ id: `${name}-${minute}`, event: name, name: 'top', name_zh: '见顶', minute, time: beijingText(minute) },
      ...{
        action: 'open short',
        severity: 'high',
        values: { top_count: 14 },
        rule_version: 1,
        text: 'Top.',
        text_zh: '顶',
      },
    });
    const events = [
      event('E1', BEGIN),
      event('E2', BEGIN + DAY),
      event('E1', BEGIN + 2 * DAY),
      event('E5', BEGIN + 2 * DAY),
    ];
    write('major_events/major_events.jsonl', 'major_events.jsonl', events, 0);
    mkdirSync(join(dir, 'state'), { recursive: true });
    writeFileSync(
      join(dir, 'state/major_events.json'),
      JSON.stringify({
        data_time: END,
        last_run: END,
        last_success: null,
        error: 'x',
        blind: [{ input: 'price' }],
        untold: [1],
      }),
    );
    const now = await web.ok('/api/major-events/current-status');
    assert.deepEqual(
      [now.events.E1.minute, now.events.E3, now.error, now.untold_count],
      [BEGIN + 2 * DAY, null, 'x', 1],
    );
    const history = await web.ok('/api/major-events/history?event=E1&limit=1&offset=1');
    assert.deepEqual([history.total_count, history.data], [2, [events[0]]]);
    assert.equal((await web.ok('/api/major-events/history')).data.length, 4);
    write(
      'anchor/anchor_profit_stats.jsonl',
      'anchor_profit_stats.jsonl',
      [{ slot: END - CANDLE, timestamp: END - CANDLE, positions_count: 3 }],
      0,
    );
    const anchor = await web.ok('/api/anchor/latest');
    assert.deepEqual([anchor.data.positions_count, anchor.age_seconds], [3, 300]);
    const tops = [0, 1, 2].map((n) => ({ slot: BEGIN + n * CANDLE, count: n, symbols: [], amount: null }));
    write('unified/sar_top_count.jsonl', 'sar_top_count.jsonl', tops, 0);
    const page = await web.ok(`/api/unified/sar_top_count?limit=1&offset=1&from=${BEGIN}`);
    assert.deepEqual([page.total_count, page.data], [3, [tops[1]]]);
    const alert = (what: string, coin: string, timestamp: number) => ({
      ...{
        id: `${what}-${coin}-${timestamp}`,
        event: what,
        fingerprint: 'f',
        exchange: 'hyperliquid',
        symbol: `${coin}-USDC`,
        coin,
      },
      ...{ timestamp, since: timestamp, long: 0.8, short: null, diff: null, reason: 'rule', rows: [], rule_version: 1 },
    });
    const alerts = [alert('begin', 'SOL', BEGIN), alert('begin', 'SUI', BEGIN + DAY), alert('end', 'SOL', BEGIN + DAY)];
    write('correlation/correlation_alerts.jsonl', 'correlation_alerts.jsonl', alerts, 0);
    assert.deepEqual((await web.ok('/api/correlation/alerts?coin=SOL')).data, [alerts[2], alerts[0]]);
    assert.equal((await web.ok('/api/correlation/alerts?event=begin')).total_count, 2);
  });

  test('raw kinds of the harvest come from the ends of its files, newest first, within a span', async () => {
    const rows = Array.from({ length: 3000 }, (_, n) => harvestRow('prices', n, { at: END - 2 * 3600_000 + n * 2000 }));
    const byFile = new Map<string, object[]>();
    for (const row of rows) {
      const path = join(
        dir,
        'harvest',
        `${placePath({ ...(row as never as Parameters<typeof placePath>[0]), kind: 'prices' })}.jsonl`,
      );
      byFile.set(path, [...(byFile.get(path) ?? []), row]);
    }
    for (const [path, own] of byFile) {
      mkdirSync(dirname(path), { recursive: true });
      writeFileSync(path, own.map((row) => `${JSON.stringify(row)}\n`).join(''));
    }
    appendFileSync([...byFile.keys()].at(-1)!, '{"ts_ms":17999');
    const path = `/api/harvest/${rows[0]!.symbol}?kind=prices`;
    const newest = [...rows].reverse();
    assert.deepEqual((await web.ok(`${path}&limit=2500`)).data, newest.slice(0, 2500));
    const [to, from] = [Number(newest[700]!.ts_ms), Number(newest[1400]!.ts_ms)];
    const span = await web.ok(`${path}&limit=5000&from=${from}&to=${to}`);
    assert.deepEqual([span.data, span.is_complete], [newest.slice(700, 1401), true]);
    assert.deepEqual((await web.ok('/api/harvest/NONE-USDT?kind=orderbook')).data, []);
  });
});

test('few points of a plateau, of nothing known, and of less than was asked for', () => {
  const flat = Array<number>(5000).fill(7);
  assert.equal(keypoints([flat], 50).length, 50, 'all are the highest, and still there are no more than asked for');
  assert.equal(keypoints([Array<null>(5000).fill(null)], 50).length, 50);
  assert.deepEqual(keypoints([[1, 2, 3]], 50), [0, 1, 2]);
  assert.deepEqual(keypoints([[]], 50), []);
  const one = [...flat];
  one[3210] = 8;
  one[1234] = 1;
  const chosen = keypoints([one], 50);
  assert.ok(chosen.includes(3210) && chosen.includes(1234) && chosen.includes(0) && chosen.includes(4999));
});
