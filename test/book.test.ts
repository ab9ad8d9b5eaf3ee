import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SPOT_RULE, USDM_RULE } from '../scripts/exchanges/binance.ts';
import { BookSync, type Diff, Ladder, OrderBook, type SequenceRule, type Snapshot } from '../scripts/lib/book.ts';
import type { Level } from '../scripts/lib/rows.ts';

function diff(first: number, last: number, more: Partial<Diff> = {}): Diff {
  return { first, last, prev: null, time: last, receivedAt: last * 1000, bids: [], asks: [], ...more };
}

function snapshot(id: number, more: Partial<Snapshot> = {}): Snapshot {
  return { id, time: null, receivedAt: 0, bids: [['99', '1']], asks: [['101', '1']], limit: 1000, ...more };
}

/** A BookSync whose events are gathered as short words. */
function recorded(rule: SequenceRule) {
  const events: string[] = [];
  const sync = new BookSync(rule, {
    based: (base, first) => events.push(`based ${base.id}/${first.last}`),
    applied: (each) => events.push(`applied ${each.last}`),
    resync: (cause, last, each) => events.push(`resync ${cause} ${last} ${each?.last ?? '-'}`),
  });
  return { sync, events };
}

test('a ladder sets, replaces and removes levels by price, however the price is written', () => {
  const bids = new Ladder(1);
  for (const level of [
    ['100', '1'],
    ['102', '2'],
    ['101', '3'],
    ['99.5', '4'],
  ] as Level[])
    bids.set(level);
  assert.deepEqual(bids.top(9), [
    ['102', '2'],
    ['101', '3'],
    ['100', '1'],
    ['99.5', '4'],
  ]);
  bids.set(['101.00', '7']);
  assert.deepEqual(bids.best(), ['102', '2']);
  bids.set(['102', '0.00000000']);
  bids.set(['98', '0']);
  assert.deepEqual(bids.top(2), [
    ['101.00', '7'],
    ['100', '1'],
  ]);
  assert.equal(bids.size, 3);
  const asks = new Ladder(-1);
  for (const level of [
    ['100', '1'],
    ['102', '2'],
    ['101', '3'],
  ] as Level[])
    asks.set(level);
  assert.deepEqual(asks.top(9), [
    ['100', '1'],
    ['101', '3'],
    ['102', '2'],
  ]);
});

test('a ladder agrees with a sorted map over thousands of random changes', () => {
  for (const sign of [1, -1] as const) {
    const ladder = new Ladder(sign);
    const map = new Map<number, string>();
    let seed = 7;
    const random = (n: number) => (seed = (seed * 48271) % 2147483647) % n;
    for (let i = 0; i < 20_000; i++) {
      const price = 1000 + random(300);
      const quantity = random(3) === 0 ? '0' : String(1 + random(9));
      ladder.set([String(price), quantity]);
      if (quantity === '0') map.delete(price);
      else map.set(price, quantity);
    }
    const wanted = [...map].sort((a, b) => (b[0] - a[0]) * sign).map(([price, quantity]) => [String(price), quantity]);
    assert.deepEqual(ladder.top(1000), wanted);
  }
});

test('a ladder keeps a bounded number of levels, the best ones', () => {
  const asks = new Ladder(-1);
  for (let price = 1; price <= 6000; price++) asks.set([String(price), '1']);
  assert.equal(asks.size, 5000);
  assert.deepEqual(asks.best(), ['1', '1']);
});

test('a book shows only levels that its snapshot could vouch for, and says when the market has left them', () => {
  const book = new OrderBook(
    [
      ['100', '1'],
      ['99', '1'],
    ],
    [
      ['101', '1'],
      ['102', '1'],
    ],
    2,
  );
  book.apply([['90', '5']], [['110', '5']]);
  assert.deepEqual(book.top(10), {
    bids: [
      ['100', '1'],
      ['99', '1'],
    ],
    asks: [
      ['101', '1'],
      ['102', '1'],
    ],
    complete: true,
  });
  assert.equal(book.shallow(10), true);
  assert.equal(book.shallow(2), false);
  book.apply(
    [
      ['100', '0'],
      ['99', '0'],
    ],
    [],
  );
  assert.deepEqual(book.top(10).bids, [['90', '5']]);
  assert.equal(book.top(10).complete, false);
  const above = new OrderBook([['100', '1']], [['101', '1']], 1);
  above.apply(
    [],
    [
      ['101', '0'],
      ['110', '5'],
    ],
  );
  assert.deepEqual([above.top(10).asks, above.top(10).complete, above.shallow(1)], [[['110', '5']], false, true]);
  const whole = new OrderBook([['100', '1']], [['101', '1']], 1000);
  whole.apply([['90', '5']], []);
  assert.equal(whole.top(10).bids.length, 2);
  assert.equal(whole.shallow(10), false);
});

test('spot: held diffs that the snapshot covers are dropped, the bracketing one is the first applied', () => {
  const { sync, events } = recorded(SPOT_RULE);
  for (const each of [diff(1, 10), diff(11, 20), diff(21, 30)]) sync.onDiff(each);
  assert.ok(sync.needsSnapshot && sync.current === null);
  sync.onSnapshot(snapshot(15));
  sync.onDiff(diff(31, 40));
  assert.deepEqual(events, ['based 15/20', 'applied 20', 'applied 30', 'applied 40']);
  assert.ok(!sync.needsSnapshot);
});

test('spot: a snapshot whose id ends a diff is followed by the next diff', () => {
  const { sync, events } = recorded(SPOT_RULE);
  sync.onDiff(diff(11, 20));
  sync.onDiff(diff(21, 30));
  sync.onSnapshot(snapshot(20));
  assert.deepEqual(events, ['based 20/30', 'applied 30']);
});

test('a snapshot older than the first held diff is refused and another one wanted', () => {
  for (const rule of [SPOT_RULE, USDM_RULE]) {
    const { sync, events } = recorded(rule);
    sync.onDiff(diff(11, 20, { prev: 10 }));
    sync.onSnapshot(snapshot(5));
    assert.ok(sync.needsSnapshot);
    assert.deepEqual(events, []);
    sync.onSnapshot(snapshot(15));
    assert.deepEqual(events, ['based 15/20', 'applied 20']);
  }
});

test('a snapshot newer than every diff waits for the diff that brackets it', () => {
  const { sync, events } = recorded(SPOT_RULE);
  sync.onDiff(diff(11, 20));
  sync.onSnapshot(snapshot(25));
  assert.ok(!sync.needsSnapshot && sync.current === null);
  sync.onDiff(diff(21, 24));
  sync.onDiff(diff(25, 30));
  assert.deepEqual(events, ['based 25/30', 'applied 30']);
});

test('a snapshot whose ids are of before a restart is given up for a new one', () => {
  const { sync, events } = recorded(SPOT_RULE);
  sync.onDiff(diff(11, 20, { time: 1000 }));
  sync.onSnapshot(snapshot(9000));
  sync.onDiff(diff(21, 30, { time: 2000 }));
  sync.onDiff(diff(31, 40, { time: 6900 }));
  assert.ok(!sync.needsSnapshot, 'it may still be only a little ahead');
  sync.onDiff(diff(41, 50, { time: 7100 }));
  assert.ok(sync.needsSnapshot);
  sync.onSnapshot(snapshot(45));
  assert.deepEqual(events, ['based 45/50', 'applied 50']);
});

test('USDM: the first diff must span the snapshot, then only pu tells the order', () => {
  const { sync, events } = recorded(USDM_RULE);
  sync.onDiff(diff(100, 110, { prev: 90 }));
  sync.onSnapshot(snapshot(110));
  sync.onDiff(diff(150, 160, { prev: 110 }));
  sync.onDiff(diff(161, 170, { prev: 161 }));
  assert.deepEqual(events, ['based 110/110', 'applied 110', 'applied 160', 'resync gap 160 170']);
});

test('USDM: a diff that begins right after the snapshot is no bracket, unlike on spot', () => {
  assert.equal(USDM_RULE.first(diff(111, 120, { prev: 110 }), 110), 'gap');
  assert.equal(SPOT_RULE.first(diff(111, 120), 110), 'apply');
  assert.equal(USDM_RULE.first(diff(100, 109, { prev: 90 }), 110), 'old');
});

test('spot: a missing diff drops the book, and the diff after it opens the new one', () => {
  const { sync, events } = recorded(SPOT_RULE);
  sync.onDiff(diff(1, 10));
  sync.onSnapshot(snapshot(5));
  sync.onDiff(diff(12, 20));
  assert.equal(sync.current, null);
  assert.ok(sync.needsSnapshot);
  sync.onDiff(diff(21, 30));
  sync.onSnapshot(snapshot(22));
  assert.deepEqual(events, ['based 5/10', 'applied 10', 'resync gap 10 20', 'based 22/30', 'applied 30']);
});

test('repeated and overlapping diffs are no gap', () => {
  const { sync, events } = recorded(SPOT_RULE);
  sync.onDiff(diff(1, 10));
  sync.onSnapshot(snapshot(5));
  for (const each of [diff(1, 10), diff(8, 15), diff(11, 15), diff(16, 20)]) sync.onDiff(each);
  assert.deepEqual(events, ['based 5/10', 'applied 10', 'applied 15', 'applied 20']);
});

test('a crossed book is dropped', () => {
  const { sync, events } = recorded(SPOT_RULE);
  sync.onDiff(diff(1, 10));
  sync.onSnapshot(snapshot(5));
  sync.onDiff(diff(11, 20, { bids: [['101', '1']] }));
  assert.deepEqual(events.slice(2), ['resync crossed 10 20']);
  assert.equal(sync.current, null);
});

test('ids that begin anew do not freeze the book', () => {
  const { sync, events } = recorded(SPOT_RULE);
  sync.onDiff(diff(1001, 1010, { time: 10_000 }));
  sync.onSnapshot(snapshot(1005));
  sync.onDiff(diff(1, 5, { time: 11_000 }));
  assert.equal(events.length, 2, 'a late repeat is ignored');
  sync.onDiff(diff(6, 9, { time: 20_000 }));
  assert.deepEqual(events.slice(2), ['resync ids_restarted 1010 9']);
  assert.ok(sync.needsSnapshot);
});

test('a lost connection drops the book and what was held', () => {
  const { sync, events } = recorded(SPOT_RULE);
  sync.onDiff(diff(1, 10));
  sync.onDisconnect();
  assert.ok(!sync.needsSnapshot, 'nothing is held');
  sync.onDiff(diff(11, 20));
  sync.onSnapshot(snapshot(15));
  sync.onDisconnect();
  assert.deepEqual(events, ['based 15/20', 'applied 20', 'resync disconnect 20 -']);
});

test('a refresh keeps the book in use until the new snapshot has caught up, and tells no diff twice', () => {
  const { sync, events } = recorded(SPOT_RULE);
  sync.onDiff(diff(1, 10));
  sync.onSnapshot(
    snapshot(5, {
      bids: [
        ['99', '1'],
        ['98', '1'],
      ],
    }),
  );
  sync.refresh();
  sync.onDiff(diff(11, 20, { bids: [['99', '2']] }));
  assert.ok(sync.needsSnapshot && sync.current !== null);
  sync.onDiff(diff(21, 30, { bids: [['97', '3']] }));
  sync.onDiff(diff(21, 30, { bids: [['97', '3']] }));
  sync.onSnapshot(
    snapshot(20, {
      bids: [
        ['99', '2'],
        ['98', '1'],
        ['96', '9'],
      ],
    }),
  );
  sync.onDiff(diff(31, 40));
  assert.deepEqual(events, ['based 5/10', 'applied 10', 'applied 20', 'applied 30', 'based 20/30', 'applied 40']);
  assert.deepEqual(sync.current!.top(9).bids, [
    ['99', '2'],
    ['98', '1'],
    ['97', '3'],
    ['96', '9'],
  ]);
});

test('a gap among the held diffs is seen when the snapshot comes: nothing is applied across it', () => {
  const { sync, events } = recorded(SPOT_RULE);
  for (const each of [diff(1, 10), diff(11, 20), diff(31, 40), diff(41, 50)]) sync.onDiff(each);
  sync.onSnapshot(snapshot(5));
  assert.deepEqual(events, ['based 5/10', 'applied 10', 'applied 20', 'resync gap 20 40']);
  assert.ok(sync.needsSnapshot && sync.current === null);
  sync.onSnapshot(snapshot(35));
  assert.deepEqual(events.slice(4), ['based 35/40', 'applied 40', 'applied 50'], 'those after the gap were kept');
});

test('diffs that wait for a snapshot are bounded in number: the newest are kept', () => {
  const { sync, events } = recorded(SPOT_RULE);
  for (let id = 1; id <= 25_000; id++) sync.onDiff(diff(id, id));
  sync.onSnapshot(snapshot(4_000));
  assert.deepEqual(events, [], 'too old by now');
  assert.ok(sync.needsSnapshot);
  sync.onSnapshot(snapshot(24_990));
  assert.equal(events.length, 11);
  assert.equal(events.at(-1), 'applied 25000');
});

test('diffs that wait for a snapshot are bounded by their levels, too', () => {
  const { sync, events } = recorded(SPOT_RULE);
  const bids = Array.from({ length: 1000 }, (_, i): Level => [String(10 - i / 100), '1']);
  for (let id = 1; id <= 700; id++) sync.onDiff(diff(id, id, { bids }));
  sync.onSnapshot(snapshot(150));
  assert.deepEqual(events, [], 'too old by now');
  sync.onSnapshot(snapshot(600));
  assert.equal(events.at(-1), 'applied 700');
});

test('a snapshot that waited for its diff is forgotten with the connection', () => {
  const { sync, events } = recorded(SPOT_RULE);
  sync.onDiff(diff(1001, 1010));
  sync.onSnapshot(snapshot(1020));
  sync.onDisconnect();
  // Ids that began anew would all be older than it, and no other snapshot would ever be asked for.
  sync.onDiff(diff(1, 5));
  assert.ok(sync.needsSnapshot);
  sync.onSnapshot(snapshot(3));
  assert.deepEqual(events, ['based 3/5', 'applied 5']);
});

test('a refresh that is wanted twice keeps what it holds', () => {
  const { sync, events } = recorded(SPOT_RULE);
  sync.onDiff(diff(1, 10));
  sync.onSnapshot(snapshot(5));
  sync.refresh();
  sync.onDiff(diff(11, 20));
  sync.refresh();
  sync.onDiff(diff(21, 30));
  sync.onSnapshot(snapshot(15));
  assert.deepEqual(events, ['based 5/10', 'applied 10', 'applied 20', 'applied 30', 'based 15/20']);
  assert.ok(!sync.needsSnapshot);
});

test('USDM: a repeated diff is no gap', () => {
  const { sync, events } = recorded(USDM_RULE);
  sync.onDiff(diff(100, 110, { prev: 90 }));
  sync.onSnapshot(snapshot(105));
  sync.onDiff(diff(100, 110, { prev: 90 }));
  sync.onDiff(diff(150, 160, { prev: 110 }));
  assert.deepEqual(events, ['based 105/110', 'applied 110', 'applied 160']);
});
