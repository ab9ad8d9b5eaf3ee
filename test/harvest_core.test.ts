/** The pure core of the harvest, against figures worked out by hand or by another way of computing. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { HarvestCore, type HarvestState } from '../scripts/lib/harvest/core.ts';
import { freshCvd, takeCvd } from '../scripts/lib/harvest/cvd.ts';
import { divergenceScore, freshEvents, type Moment, takeEvents } from '../scripts/lib/harvest/events.ts';
import { freshFusion, takeFusion } from '../scripts/lib/harvest/fusion.ts';
import type { HarvestInput } from '../scripts/lib/harvest/input.ts';
import type { HarvestRow } from '../scripts/lib/harvest/kinds.ts';
import { freshOfi, orderFlowImbalance, takeOfi } from '../scripts/lib/harvest/ofi.ts';
import { bookOf, randomOf, sample, seededMarket, snapshot, trade, update } from './harvest_inputs.ts';

const T = Date.UTC(2026, 10, 30, 9, 0, 0);

function harvest(inputs: readonly HarvestInput[], end = true): HarvestRow[] {
  const rows: HarvestRow[] = [];
  const core = new HarvestCore((row) => rows.push(row));
  for (const input of inputs) core.take(input);
  if (end) core.end();
  return rows;
}

const ofKind = (rows: readonly HarvestRow[], kind: string) => rows.filter((row) => row.kind === kind);
const near = (actual: unknown, expected: number, what?: string) =>
  assert.ok(
    Math.abs((actual as number) - expected) <= 1e-12 * Math.max(1, Math.abs(expected)),
    `${what}: ${actual} is not ${expected}`,
  );

describe('order flow imbalance', () => {
  const flow = (bids: [string, string][], asks: [string, string][]) => {
    const { bids: b, asks: a } = bookOf();
    const top = (x: [string, string][]) => x.slice(0, 5);
    return orderFlowImbalance({ bids: b.slice(0, 5), asks: a.slice(0, 5) }, { bids: top(bids), asks: top(asks) });
  };
  const { bids, asks } = bookOf();

  test('quantity that is added to the best bid counts with the weight of the best level', () => {
    near(flow([['99', '8'], ...bids.slice(1)] as [string, string][], asks as [string, string][]), 0.4 * 3);
  });

  test('quantity that is added to the best ask counts against it', () => {
    near(flow(bids as [string, string][], [['101', '9'], ...asks.slice(1)] as [string, string][]), -0.4 * 4);
  });

  test('a better bid counts with all of its quantity, and each level moves down by one', () => {
    // Levels were 5 6 7 8 9 at 99 to 95; now 2 at 100, then 5 6 7 8: every bid price is higher than before.
    const now = [['100', '2'], ...bids.slice(0, 4)] as [string, string][];
    near(flow(now, asks as [string, string][]), 0.4 * 2 + 0.25 * 5 + 0.2 * 6 + 0.1 * 7 + 0.05 * 8);
  });

  test('a best bid that is gone counts with all of what it was, and so does each level below', () => {
    const now = bids.slice(1) as [string, string][];
    near(flow(now, asks as [string, string][]), -(0.4 * 5 + 0.25 * 6 + 0.2 * 7 + 0.1 * 8 + 0.05 * 9));
  });

  test('a best ask that is gone counts for it, and a better one against it', () => {
    const gone = asks.slice(1) as [string, string][];
    near(flow(bids as [string, string][], gone), 0.4 * 5 + 0.25 * 6 + 0.2 * 7 + 0.1 * 8 + 0.05 * 9);
    const better = [['100', '2'], ...asks.slice(0, 4)] as [string, string][];
    near(flow(bids as [string, string][], better), -(0.4 * 2 + 0.25 * 5 + 0.2 * 6 + 0.1 * 7 + 0.05 * 8));
  });

  test('the best level alone is the form of Cont, Kukanov and Stoikov, for each of nine moves of the prices', () => {
    const random = randomOf(5);
    for (const [bidMove, askMove] of [-1, 0, 1].flatMap((b) => [-1, 0, 1].map((a) => [b, a] as const))) {
      const [qb, qb0, qa, qa0] = Array.from({ length: 4 }, () => Math.floor(random() * 100));
      const before = { bids: [['50', `${qb0}`]], asks: [['60', `${qa0}`]] } as {
        bids: [string, string][];
        asks: [string, string][];
      };
      const now = { bids: [[`${50 + bidMove}`, `${qb}`]], asks: [[`${60 + askMove}`, `${qa}`]] } as typeof before;
      const bid = bidMove > 0 ? qb! : bidMove < 0 ? -qb0! : qb! - qb0!;
      const ask = askMove < 0 ? -qa! : askMove > 0 ? qa0! : qa0! - qa!;
      near(orderFlowImbalance(before, now), 0.4 * (bid + ask), `bid ${bidMove}, ask ${askMove}`);
    }
  });

  test('z is null for twenty values, and then stands on the values before it only', () => {
    const random = randomOf(3);
    const values = Array.from({ length: 300 }, () => random() * 10 - 5);
    const state = freshOfi();
    for (const [i, value] of values.entries()) {
      const { ofi_z_raw, warmup, ema_ofi } = takeOfi(state, value);
      const window = values.slice(Math.max(0, i - 100), i);
      assert.equal(warmup, i < 20);
      if (i < 20) assert.equal(ofi_z_raw, null);
      else {
        const mean = window.reduce((sum, each) => sum + each, 0) / window.length;
        const variance = window.reduce((sum, each) => sum + (each - mean) ** 2, 0) / (window.length - 1);
        near(ofi_z_raw, (value - mean) / Math.sqrt(variance), `value ${i}`);
      }
      let ema = values[0]!;
      for (const each of values.slice(1, i + 1)) ema = 0.1 * each + 0.9 * ema;
      near(ema_ofi, ema);
    }
  });

  test('z for the fusion is at most 3, and what events are judged by is not clipped', () => {
    const state = freshOfi();
    for (let i = 0; i < 50; i++) takeOfi(state, i % 2);
    const { ofi_z, ofi_z_raw } = takeOfi(state, 100);
    assert.equal(ofi_z, 3);
    assert.ok(ofi_z_raw! > 100);
  });

  test('values that do not differ are told, and divide by the floor', () => {
    const state = freshOfi();
    for (let i = 0; i < 30; i++) takeOfi(state, 2);
    const { std_zero, ofi_z_raw } = takeOfi(state, 2.0001);
    assert.equal(std_zero, true);
    assert.ok(Math.abs(ofi_z_raw! - 1) < 1e-9);
  });
});

describe('cumulative volume delta', () => {
  const take = (state = freshCvd()) => {
    let time = T;
    return (quantity: string, is_maker: boolean, more: object = {}) => {
      time += 100;
      return takeCvd(state, { time, quantity, is_maker, late: [], afterGap: false, base: 'SOL', ...more });
    };
  };

  test('takers who buy add, those who sell take away, to the last digit', () => {
    const next = take();
    assert.equal(next('0.1', false).cvd, '0.1');
    assert.equal(next('0.2', false).cvd, '0.3');
    const sold = next('0.300000000000000001', true);
    assert.deepEqual([sold.cvd, sold.delta], ['-0.000000000000000001', '-0.300000000000000001']);
  });

  test('a late trade is in the sum from the next trade on, and is told apart', () => {
    const next = take();
    next('5', false);
    const { cvd, delta, late_delta } = next('1', false, { late: [{ quantity: '2', is_maker: true }] });
    assert.deepEqual([cvd, delta, late_delta], ['4', '1', '-2']);
  });

  test('z is null for twenty trades, and its scale is that of an independent computation over the trades before', () => {
    const random = randomOf(9);
    const state = freshCvd();
    const sizes: number[] = [];
    const times: number[] = [];
    let [fast, slow, time] = [0, 0, T];
    for (let i = 0; i < 400; i++) {
      const size = Math.round(random() * 1000) / 1000;
      const step = Math.floor(random() * 900);
      time += step;
      const told = takeCvd(state, {
        time,
        quantity: size.toFixed(3),
        is_maker: i % 3 === 0,
        late: [],
        afterGap: false,
        base: 'SOL',
      });
      if (i < 20) assert.deepEqual([told.z_raw, told.z_cvd, told.scale], [null, null, null]);
      else {
        const window = sizes.slice(-150).sort((a, b) => a - b);
        const middle = (sorted: number[]) =>
          (sorted[Math.floor((sorted.length - 1) / 2)]! + sorted[Math.ceil((sorted.length - 1) / 2)]!) / 2;
        const center = middle(window);
        const mad = middle(window.map((each) => Math.abs(each - center)).sort((a, b) => a - b));
        const second = Math.floor(times.at(-1)! / 1000);
        const tps = times.filter((each) => Math.floor(each / 1000) > second - 60).length / 60;
        const share = 0.3 * Math.min(1, tps / 1.5);
        const mix = share * fast + (1 - share) * slow;
        const floor = 1.4826 * mad * 1.7 * Math.max(1, (1.5 / Math.max(tps, 0.2)) ** 0.7);
        const scale = Math.max(mix, floor, 1e-9);
        near(told.scale, scale, `scale ${i}`);
        near(told.sigma_floor, floor);
        assert.equal(told.floor_used, floor > mix);
        near(told.z_raw, (i % 3 === 0 ? -size : size) / scale);
        near(told.z_cvd, Math.max(-2, Math.min(2, told.z_raw!)));
      }
      if (i === 0) [fast, slow] = [size, size];
      else {
        fast += (1 - 2 ** (-step / 60_000)) * (size - fast);
        slow += (1 - 2 ** (-step / 600_000)) * (size - slow);
      }
      sizes.push(size);
      times.push(time);
    }
  });

  test('after a pause of more than 4 s the first trade has no z, after more than 5 s or a gap the first two', () => {
    const after = (pause: number, afterGap = false) => {
      const state = freshCvd();
      let time = T;
      const next = (step: number, gap = false) => {
        time += step;
        return takeCvd(state, { time, quantity: '1', is_maker: false, late: [], afterGap: gap, base: 'SOL' }).z_raw;
      };
      for (let i = 0; i < 30; i++) next(100);
      return [next(pause, afterGap), next(100), next(100)].map((z) => z === null);
    };
    assert.deepEqual(after(4000), [false, false, false]);
    assert.deepEqual(after(4001), [true, false, false]);
    assert.deepEqual(after(5001), [true, true, false]);
    assert.deepEqual(after(100, true), [true, true, false]);
  });

  test('BTC and ETH have limits of their own', () => {
    for (const [base, limit] of [
      ['BTC', 1.9],
      ['ETH', 2.3],
      ['SOL', 2],
    ] as const) {
      const next = take();
      for (let i = 0; i < 30; i++) next('1', false);
      assert.equal(next('1000', true, { base }).z_cvd, -limit);
    }
  });
});

describe('fusion', () => {
  test('the score is 0.6 of flow and 0.4 of volume, with consistency, dispersion and probability by hand', () => {
    const told = takeFusion(freshFusion(), 2, 1, T, 10);
    near(told.score, 1.6);
    near(told.consistency, 0.5);
    near(told.dispersion, 1);
    near(told.proba, 1 / (1 + Math.exp(-1.6)));
    assert.equal(told.sign_agree, true);
    assert.equal(takeFusion(freshFusion(), 2, -1, T, 10).consistency, 0);
  });

  test('a book that is older than 0.3 s leaves the stronger factor alone', () => {
    near(takeFusion(freshFusion(), 2, -1.5, T, 300).score, 0.6);
    near(takeFusion(freshFusion(), 2, -1.5, T, 301).score, 1.2);
    near(takeFusion(freshFusion(), 0.5, -2, T, 301).score, -0.8);
  });

  test('nothing is told while one of both is not known', () => {
    assert.equal(takeFusion(freshFusion(), null, 1, T, 10).score, null);
    assert.equal(takeFusion(freshFusion(), 1, null, T, 10).signal, null);
  });

  const warm = () => {
    const state = freshFusion();
    for (let i = 0; i < 20; i++) assert.equal(takeFusion(state, 3, 3, T + i, 10).signal, null);
    return state;
  };

  test('a signal begins at 1.2, stays down to 0.8, and does not come back within half a second', () => {
    const state = warm();
    const at = (score: number, time: number) => takeFusion(state, score, score, T + time, 10).signal;
    assert.equal(at(1.1, 1000), 'neutral');
    assert.equal(at(1.3, 1100), 'buy');
    assert.equal(at(0.9, 1200), 'buy');
    assert.equal(at(0.7, 1300), 'neutral');
    assert.equal(at(1.3, 1400), 'neutral');
    assert.equal(at(1.3, 1600), 'buy');
    assert.equal(at(-1.3, 2200), 'sell');
  });

  test('strong signals need a score of 2 and a consistency of 0.6', () => {
    const state = warm();
    assert.equal(takeFusion(state, 3, 1.5, T + 1000, 10).signal, 'buy');
    assert.equal(takeFusion(state, 2.5, 2.5, T + 2000, 10).signal, 'strong_buy');
    assert.equal(takeFusion(state, 1.3, 1.3, T + 3000, 10).signal, 'strong_buy');
    assert.equal(takeFusion(state, -2.5, -2.5, T + 4000, 10).signal, 'strong_sell');
  });
});

describe('events', () => {
  const moment = (more: Partial<Moment>): Moment => ({ time: T, price: 100, ofi: 0, cvd: 0, lag: 10, ...more });
  const typesOf = (more: Partial<Moment>) =>
    takeEvents(freshEvents(), moment(more)).map(({ event_type }) => event_type);

  test('a conflict is told from flow 2 and volume 1 of opposite signs on', () => {
    assert.deepEqual(typesOf({ ofi: 2, cvd: -1 }), ['ofi_cvd_conflict']);
    assert.deepEqual(typesOf({ ofi: 1.9, cvd: -1 }), []);
    assert.deepEqual(typesOf({ ofi: 2, cvd: 1 }), []);
  });

  test('a divergence of both beyond 2.5 is told with the mean of both, and its direction is that of the flow', () => {
    const events = takeEvents(freshEvents(), moment({ ofi: 2.6, cvd: -2.8 }));
    const found = events.find(({ event_type }) => event_type === 'ofi_cvd_divergence')!;
    near(found.strength_score, 2.7);
    assert.equal(found.direction, 'bullish');
  });

  test('an anomaly is told beyond a flow of 3 or a volume of 2.5, also where the other is not known', () => {
    assert.deepEqual(typesOf({ ofi: 3.1, cvd: null }), ['anomaly']);
    assert.deepEqual(typesOf({ ofi: null, cvd: -2.6 }), ['anomaly']);
    assert.deepEqual(typesOf({ ofi: 3, cvd: 2.5 }), []);
  });

  test('a price that jumps by more than 5 % is told', () => {
    const state = freshEvents();
    takeEvents(state, moment({}));
    assert.deepEqual(takeEvents(state, moment({ price: 105 })).length, 0);
    const [event] = takeEvents(state, moment({ price: 99.7, time: T + 1 }));
    assert.deepEqual([event?.event_type, event?.direction], ['price_anomaly', 'bearish']);
  });

  test('the same type is told once a second', () => {
    const state = freshEvents();
    const count = (time: number) => takeEvents(state, moment({ time, ofi: 4 })).length;
    assert.deepEqual([count(T), count(T + 999), count(T + 1000)], [1, 0, 1]);
  });

  /** Two turning points thirty samples apart, with the flow given at each, after a hundred samples to warm up. */
  function twoPivots(side: 1 | -1, prices: [number, number], flows: [number, number]) {
    const state = freshEvents();
    const told: string[] = [];
    let time = T;
    const next = (price: number, ofi: number) => {
      time += 1000;
      told.push(
        ...takeEvents(state, { time, price, ofi, cvd: 0.1 * ofi, lag: 10 }).map(({ event_type }) => event_type),
      );
    };
    for (let i = 0; i < 110; i++) next(10_000 + side * (210 - i), 0.1);
    for (const [i, pivot] of prices.entries()) {
      for (let step = 15; step > 0; step--) next(pivot + side * step, 0.1);
      next(pivot, flows[i]!);
      for (let step = 1; step <= 15; step++) next(pivot + side * step, 0.1);
    }
    return told;
  }

  test('each of the four divergences between price and flow is told', () => {
    assert.deepEqual(twoPivots(1, [9990, 9985], [-2, -1]), ['bull_div']);
    assert.deepEqual(twoPivots(1, [9985, 9990], [-1, -2]), ['hidden_bull']);
    assert.deepEqual(twoPivots(-1, [10_010, 10_015], [2, 1]), ['bear_div']);
    assert.deepEqual(twoPivots(-1, [10_015, 10_010], [1, 2]), ['hidden_bear']);
  });

  test('no divergence is told where price and flow go the same way', () => {
    assert.deepEqual(twoPivots(1, [9990, 9985], [-1, -2]), []);
    assert.deepEqual(twoPivots(-1, [10_010, 10_015], [1, 2]), []);
  });

  test('of equal lows the first one is the turning point', () => {
    const state = freshEvents();
    let time = T;
    const next = (price: number) => {
      time += 1000;
      takeEvents(state, { time, price, ofi: 0.1, cvd: 0.1, lag: 10 });
    };
    for (let step = 20; step > 0; step--) next(10_000 + step);
    next(10_000);
    const first = time;
    next(10_000);
    for (let step = 1; step <= 20; step++) next(10_000 + step);
    assert.equal(state.low!.time, first);
  });

  test('the score of a divergence is that of its formula', () => {
    const before = { time: T, price: 100, ofi: -2, cvd: -1, at: 200 };
    const now = { time: T, price: 99, ofi: -1.5, cvd: -1.2, at: 212 };
    // z 1 · 0.35, pivots (12/24 + (0.01 + 0.5)/2)/2 · 0.25, one of two agrees, consistency 0.8.
    const expected = 100 * (0.35 + 0.25 * ((0.5 + 0.255) / 2) + 0.25 * 0.5 + 0.05 + (0.1 * 0.5) / 0.7);
    near(divergenceScore(before, now, ['ofi'], 500, 10), expected);
    near(divergenceScore(before, now, ['ofi'], 100, 10), expected * 0.3);
    near(divergenceScore(before, now, ['ofi'], 500, 301), expected * 0.5);
  });
});

describe('rows', () => {
  const begin = (bids?: string[]) => snapshot(10, T, bookOf(bids));

  test('a change of the top five levels gives a book row and its order flow, one below them gives neither', () => {
    const rows = harvest([
      begin(),
      update(11, T + 100, { bids: [['99', '8']] }),
      update(12, T + 200, { bids: [['94', '1']] }),
      update(13, T + 300, { asks: [['101', '0']] }),
    ]);
    const flows = ofKind(rows, 'ofi');
    assert.deepEqual(
      ofKind(rows, 'orderbook').map(({ last_id }) => last_id),
      [10, 11, 13],
    );
    near(flows[0]!.ofi_value, 0.4 * 3);
    near(flows[1]!.ofi_value, 0.4 * 5 + 0.25 * 6 + 0.2 * 7 + 0.1 * 8 + 0.05 * 9);
    assert.equal(flows.length, 2);
    const [, row] = ofKind(rows, 'orderbook');
    assert.deepEqual(
      [row!.best_bid, row!.best_ask, row!.mid, row!.spread_bps, row!.d_b0, row!.d_bid_qty_agg, row!.d_a0, row!.bid5_q],
      ['99', '101', 100, 200, '3', '3', '0', '9'],
    );
  });

  test('updates that come out of order, twice or late by two collectors give the same rows', () => {
    const updates = [11, 12, 13, 14].map((id) => update(id, T + id * 10, { bids: [['99', String(id)]] }));
    const straight = harvest([begin(), ...updates]);
    const [a, b, c, d] = updates as [HarvestInput, HarvestInput, HarvestInput, HarvestInput];
    assert.deepEqual(harvest([begin(), b, a, a, d, c, b]), straight);
    // The second collector's snapshot, ahead of what came and behind it.
    const ahead = snapshot(12, T + 120, bookOf(['12', '6', '7', '8', '9', '10'], ['5', '6', '7', '8', '9', '10']));
    assert.deepEqual(harvest([begin(), ahead, a, b, c, begin(), d]), straight);
  });

  test('a whole book may lie within the update that follows it', () => {
    const rows = harvest([begin(), update(14, T + 100, { bids: [['99', '8']] }, 7)]);
    assert.deepEqual(
      ofKind(rows, 'orderbook').map(({ last_id, bid1_q }) => [last_id, bid1_q]),
      [
        [10, '5'],
        [14, '8'],
      ],
    );
  });

  test('a whole book that ours has passed is not gone back to when updates are missing', () => {
    const rows = harvest([
      begin(),
      snapshot(12, T + 50, bookOf()),
      ...[11, 12, 13].map((id) => update(id, T + id * 10, { bids: [['99', String(id)]] })),
      update(16, T + 500, { bids: [['99', '16']] }, 15),
      sample(16, T + 5000, bookOf(['16', '6', '7', '8', '9', '10'], ['5', '6', '7', '8', '9', '10'])),
      update(17, T + 5100, { bids: [['99', '17']] }),
    ]);
    assert.deepEqual(
      ofKind(rows, 'orderbook').map(({ last_id }) => last_id),
      [10, 11, 12, 13, 16, 17],
    );
    assert.equal(ofKind(rows, 'events').length, 1);
  });

  test('a trade is told with the book of its own millisecond', () => {
    const rows = harvest([begin(), trade(1, T + 100, '1', 'buy'), update(11, T + 100, { asks: [['100.5', '1']] })]);
    assert.equal(ofKind(rows, 'prices')[0]!.best_buy_fill, '100.5');
  });

  test('a missing update ends the book, is told once, and the next whole book begins it again', () => {
    const rows = harvest([
      begin(),
      update(11, T + 100, { bids: [['99', '8']] }),
      update(13, T + 300, { bids: [['99', '9']] }),
      update(14, T + 2500, { bids: [['99', '10']] }),
      sample(14, T + 2500, bookOf(['10', '6', '7', '8', '9', '10'], ['5', '6', '7', '8', '9', '10'])),
      update(15, T + 2600, { bids: [['99', '11']] }),
      trade(1, T + 2700, '1', 'buy'),
    ]);
    const gaps = ofKind(rows, 'events').filter(({ event_type }) => event_type === 'gap');
    assert.deepEqual(
      gaps.map(({ meta_json }) => JSON.parse(meta_json as string)),
      [{ cause: 'missing_updates', from: 11, to: 13 }],
    );
    // No order flow over the gap: only 11 and 15 have a state before them.
    const flows = ofKind(rows, 'ofi');
    assert.deepEqual(
      flows.map(({ ofi_value }) => Math.round((ofi_value as number) * 1e9) / 1e9),
      [1.2, 0.4],
    );
    assert.deepEqual(
      flows.map(({ session_reset }) => session_reset),
      [false, true],
    );
    assert.equal(ofKind(rows, 'orderbook').at(-1)!.reconnect_count, 1);
  });

  test('a book that is not like its sample is taken from the sample, and told', () => {
    const rows = harvest([
      begin(),
      update(11, T + 100, { bids: [['99', '8']] }),
      sample(11, T + 100, bookOf(['7', '6', '7', '8', '9', '10'])),
    ]);
    assert.deepEqual(
      ofKind(rows, 'events').map(({ trigger_by }) => trigger_by),
      ['differs_from_sample'],
    );
    assert.equal(ofKind(rows, 'orderbook').at(-1)!.bid1_q, '7');
  });

  test('ids that begin anew do not freeze the book', () => {
    const rows = harvest([
      begin(),
      update(11, T + 100, { bids: [['99', '8']] }),
      snapshot(2, T + 9000, bookOf()),
      update(3, T + 9100, { bids: [['99', '4']] }),
    ]);
    assert.deepEqual(
      ofKind(rows, 'orderbook').map(({ last_id }) => last_id),
      [10, 11, 2, 3],
    );
    assert.equal(ofKind(rows, 'events').filter(({ trigger_by }) => trigger_by === 'ids_restarted').length, 1);
  });

  test('missing trades are told and counted, and what comes late is taken in once', () => {
    const rows = harvest([
      begin(),
      ...[1, 2, 5, 6].map((id) => trade(id, T + id * 1000, '1', 'buy', String(100 + id))),
      trade(30, T + 30_000, '1', 'buy', '130'),
      trade(4, T + 4000, '3', 'sell', '104'),
      trade(4, T + 4000, '3', 'sell', '104'),
      trade(31, T + 31_000, '1', 'buy', '131'),
      update(11, T + 40_000, { bids: [['99', '8']] }),
      trade(32, T + 40_000, '1', 'buy', '132'),
    ]);
    const gaps = ofKind(rows, 'events').filter(({ trigger_by }) => trigger_by === 'missing_trades');
    assert.deepEqual(
      gaps.map(({ meta_json }) => JSON.parse(meta_json as string)),
      [
        { cause: 'missing_trades', from: 3, to: 4, missing: 2 },
        { cause: 'missing_trades', from: 7, to: 29, missing: 23 },
      ],
    );
    const prices = ofKind(rows, 'prices');
    assert.deepEqual(
      prices.filter(({ late }) => late).map(({ agg_trade_id, qty }) => [agg_trade_id, qty]),
      [['4', '3']],
    );
    assert.equal(new Set(prices.map(({ row_id }) => row_id)).size, prices.length);
    const cvd = ofKind(rows, 'cvd').map(({ trade_id, cvd: sum, late_delta }) => [trade_id, sum, late_delta]);
    assert.deepEqual(cvd.slice(-3), [
      ['30', '2', '-3'],
      ['31', '3', '0'],
      ['32', '4', '0'],
    ]);
    assert.equal(prices.at(-1)!.queue_dropped, 24);
  });

  test('a time from the far future holds nothing up but its own row', () => {
    const later = Date.UTC(2099, 0, 1);
    const future = ({ type, row }: HarvestInput) =>
      ({ type, row: { ...row, timestamp: later, received_at: (T + 1000) * 1000 } }) as unknown as HarvestInput;
    const rows = harvest(
      [
        begin(),
        future(update(11, T + 500, { bids: [['99', '8']] })),
        future(trade(1, T + 500, '1', 'buy')),
        trade(2, T + 600, '1', 'buy'),
        update(12, T + 700, { bids: [['99', '9']] }),
        update(13, T + 20_000, { bids: [['99', '10']] }),
        trade(3, T + 20_000, '1', 'buy'),
      ],
      false,
    );
    assert.deepEqual(
      ofKind(rows, 'cvd').map(({ trade_id }) => trade_id),
      ['2'],
    );
    assert.deepEqual(
      ofKind(rows, 'orderbook').map(({ last_id }) => last_id),
      [10, 11, 12],
    );
    assert.ok(ofKind(rows, 'features').length > 10);
  });

  test('each second that is over is told once, with what was last in it, and quiet ones as well', () => {
    const rows = harvest([
      begin(),
      trade(1, T + 100, '1', 'buy', '100'),
      trade(2, T + 900, '1', 'buy', '102'),
      trade(3, T + 2500, '1', 'buy', '101'),
      update(11, T + 4000, { bids: [['99', '8']] }),
      trade(4, T + 4100, '1', 'buy', '101'),
    ]);
    const seconds = ofKind(rows, 'features');
    assert.deepEqual(
      seconds.map(({ second_ts, trades, last_price, return_1s }) => [
        (second_ts as number) - T,
        trades,
        last_price,
        return_1s,
      ]),
      [
        [0, 2, 102, null],
        [1000, 0, 102, 0],
        [2000, 1, 101, -1 / 102],
        [3000, 0, 101, 0],
      ],
    );
    assert.deepEqual([seconds[0]!.mid, seconds[0]!.spread_bps, seconds[0]!.best_buy_fill], [100, 200, 101]);
  });

  test('a late trade makes the next revision of its second, and of those whose price or return stands on it', () => {
    const rows = harvest([
      begin(),
      trade(1, T + 500, '1', 'buy', '100'),
      trade(3, T + 3500, '1', 'buy', '110'),
      trade(4, T + 9000, '1', 'buy', '111'),
      update(11, T + 9000, { bids: [['99', '8']] }),
      trade(2, T + 700, '1', 'sell', '105'),
      trade(5, T + 12_000, '1', 'buy', '112'),
      update(12, T + 15_000, { bids: [['99', '9']] }),
      trade(6, T + 15_000, '1', 'buy', '112'),
    ]);
    const revised = ofKind(rows, 'features').filter(({ revision }) => revision === 1);
    assert.deepEqual(
      revised.map(({ second_ts, trades, last_price, return_1s }) => [
        (second_ts as number) - T,
        trades,
        last_price,
        return_1s,
      ]),
      [
        [0, 2, 105, null],
        [1000, 0, 105, 0],
        [2000, 0, 105, 0],
        [3000, 1, 110, 5 / 105],
      ],
    );
    assert.equal(new Set(ofKind(rows, 'features').map(({ row_id }) => row_id)).size, ofKind(rows, 'features').length);
  });

  test('a silence is told, and its seconds are not made up', () => {
    const rows = harvest([
      begin(),
      trade(1, T + 500, '1', 'buy', '100'),
      update(11, T + 300_000, { bids: [['99', '8']] }),
      trade(2, T + 300_500, '1', 'buy', '120'),
      update(12, T + 302_000, { bids: [['99', '9']] }),
      trade(3, T + 302_000, '1', 'buy', '120'),
    ]);
    const seconds = ofKind(rows, 'features').map(({ second_ts }) => ((second_ts as number) - T) / 1000);
    assert.deepEqual(seconds, [...Array.from({ length: 61 }, (_, i) => i), 300, 301]);
    const [gap] = ofKind(rows, 'events').filter(({ trigger_by }) => trigger_by === 'silence');
    assert.deepEqual(JSON.parse(gap!.meta_json as string), { cause: 'silence', from: T + 61_000, to: T + 300_000 });
    // What the price was before says nothing of a second's return.
    assert.equal(ofKind(rows, 'features').find(({ second_ts }) => second_ts === T + 300_000)!.return_1s, null);
  });

  test('order flow is measured anew after two seconds without the book and with each UTC day', () => {
    const flows = (step: number, from: number) =>
      ofKind(
        harvest([
          snapshot(10, from, bookOf()),
          ...Array.from({ length: 30 }, (_, i) =>
            update(11 + i, from + 100 * (i + 1) + (i >= 25 ? step : 0), { bids: [['99', String(i + 6)]] }),
          ),
        ]),
        'ofi',
      ).map(({ warmup }) => warmup);
    assert.deepEqual(flows(2000 - 100, T).slice(24), [false, false, false, false, false, false]);
    assert.deepEqual(flows(2001 - 100, T).slice(24), [false, true, true, true, true, true]);
    assert.deepEqual(flows(0, Date.UTC(2026, 10, 30, 23, 59, 57, 450)).slice(24), [
      false,
      true,
      true,
      true,
      true,
      true,
    ]);
  });

  test('labels: sessions by the hour, activity by trades a second, volatility by the hours before', () => {
    const rows = harvest(
      seededMarket({
        seed: 4,
        from: T,
        seconds: 1000,
        trades: 2,
        updates: 4,
        moves: (second) => (second < 850 ? 0.1 : 0.8),
      }),
    );
    const features = ofKind(rows, 'features');
    assert.deepEqual(
      new Set(rows.filter(({ session }) => session !== undefined).map(({ session }) => session)),
      new Set(['London']),
    );
    assert.equal(features[0]!.regime, null);
    assert.equal(features.at(-1)!.regime, 'Active');
    assert.equal(features[300]!.vol_bucket, null);
    const known = features.map(({ vol_bucket }) => vol_bucket).filter((each) => each !== null);
    // It is compared with what it was before, not with itself.
    assert.equal(known.at(-1), 'High');
    assert.ok(known.includes('Low'), 'it was calm');
    const quiet = ofKind(harvest(seededMarket({ seed: 4, from: T, seconds: 120, trades: 0.5 })), 'features');
    assert.deepEqual([quiet.at(-1)!.regime, quiet.at(-1)!.scenario_2x2], ['Quiet', null]);
  });

  test('z of the flow and of the volume may disagree beyond 2.5 in a market: every rule of events can be met', () => {
    const found = new Set<unknown>();
    for (let seed = 1; seed <= 2; seed++) {
      const inputs = seededMarket({ seed, from: T, seconds: 300, trades: 6 });
      const { best_bid, last_id, ts_ms } = ofKind(harvest(inputs), 'orderbook').at(-1)!;
      const trades = inputs.filter(({ type }) => type === 'trade').map(({ row }) => row as { trade_id: string });
      const [id, time] = [Number(trades.at(-1)!.trade_id), (ts_ms as number) + 50];
      // Somebody bids for much, and another one sells much into it; and a price that jumps.
      const updates = inputs
        .filter(({ type }) => type === 'orderbook_update')
        .map(({ row }) => Number((row as { last_update_id: number }).last_update_id));
      assert.ok(updates.at(-1)! >= (last_id as number));
      inputs.push(
        update(updates.at(-1)! + 1, time, { bids: [[best_bid as string, '500']] }),
        trade(id + 1, time + 5, '90', 'sell', best_bid as string),
        trade(id + 2, time + 6, '1', 'buy', '11900.0'),
      );
      for (const { event_type } of ofKind(harvest(inputs), 'events')) found.add(event_type);
    }
    for (const type of [
      'bull_div',
      'bear_div',
      'hidden_bull',
      'hidden_bear',
      'ofi_cvd_conflict',
      'ofi_cvd_divergence',
      'anomaly',
      'price_anomaly',
    ])
      assert.ok(found.has(type), type);
  });
});

describe('the same input, the same rows', () => {
  const BTC = seededMarket({ seed: 1, from: T, seconds: 90 });
  const ETH = seededMarket({ seed: 2, from: T, seconds: 90, symbol: 'ETH-USDT' });
  const time = ({ row }: HarvestInput) => row.timestamp;
  // Some trades come out of their order by up to ten seconds, as from the outbox of a collector or from the venue's history.
  const random = randomOf(31);
  const ALL = [...BTC, ...ETH]
    .map((input) => ({ input, at: time(input) + (input.type === 'trade' && random() < 0.1 ? random() * 10_000 : 0) }))
    .sort((one, other) => one.at - other.at)
    .map(({ input }) => input);
  const EXPECTED = harvest(ALL);
  /** Rows of a symbol and kind are a file: their order in it is what is the same. */
  const files = (rows: readonly HarvestRow[]) => {
    const found: Record<string, string[]> = {};
    for (const row of rows) (found[`${row.symbol} ${row.kind}`] ??= []).push(JSON.stringify(row));
    return found;
  };

  test('there are late trades and corrected seconds among them', () => {
    assert.ok(EXPECTED.filter(({ late }) => late).length > 20);
    assert.ok(EXPECTED.filter(({ revision }) => revision === 1).length > 10);
  });

  test('however trades and books come interleaved', () => {
    const [trades, books] = [ALL.filter(({ type }) => type === 'trade'), ALL.filter(({ type }) => type !== 'trade')];
    for (let round = 0; round < 5; round++) {
      const mixed: HarvestInput[] = [];
      let [t, b] = [0, 0];
      while (t < trades.length || b < books.length) {
        const run = Math.floor(random() * 200);
        for (let i = 0; i < run; i++)
          if (random() < 0.5 && t < trades.length) mixed.push(trades[t++]!);
          else if (b < books.length) mixed.push(books[b++]!);
      }
      assert.deepEqual(files(harvest(mixed)), files(EXPECTED));
    }
  });

  test('whenever what is known is told', () => {
    const rows: HarvestRow[] = [];
    const core = new HarvestCore((row) => rows.push(row));
    for (const [i, input] of ALL.entries()) {
      core.take(input);
      if (i % 7 === 0) core.settleAll();
    }
    core.end();
    assert.deepEqual(files(rows), files(EXPECTED));
  });

  test('whenever it is written down and read back', () => {
    const rows: HarvestRow[] = [];
    const write = (row: HarvestRow) => void rows.push(row);
    let core = new HarvestCore(write);
    for (const [i, input] of ALL.entries()) {
      core.take(input);
      if (i % 50 === 0) core = new HarvestCore(write, JSON.parse(JSON.stringify(core.dump())) as HarvestState);
    }
    core.end();
    assert.deepEqual(files(rows), files(EXPECTED));
  });

  test('and a second collector that sends everything again, later, changes nothing', () => {
    const doubled = ALL.flatMap((input, i) => [input, ...(i >= 40 ? [ALL[i - 40]!] : [])]);
    assert.deepEqual(files(harvest(doubled)), files(EXPECTED));
  });

  test('what it must remember does not grow: as much after seven days as after five', () => {
    const core = new HarvestCore(() => undefined);
    const sizes: number[] = [];
    // An hour of each day; between them the market is silent.
    for (let day = 0; day < 7; day++) {
      const shift = day * 86_400_000;
      const ids = day * 1_000_000;
      for (const { type, row } of seededMarket({ seed: 6, from: T + shift, seconds: 200 })) {
        const moved =
          type === 'trade'
            ? { ...row, trade_id: String(Number(row.trade_id) + ids) }
            : {
                ...row,
                last_update_id: Number(row.last_update_id) + ids,
                ...('prev_update_id' in row && row.prev_update_id !== null
                  ? {
                      prev_update_id: Number(row.prev_update_id) + ids,
                      first_update_id: Number(row.first_update_id) + ids,
                    }
                  : {}),
              };
        core.take({ type, row: moved } as unknown as HarvestInput);
      }
      sizes.push(JSON.stringify(core.dump()).length);
    }
    assert.ok(sizes[6]! < sizes[4]! * 1.01, sizes.join(' '));
  });
});
