import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import type { ClickHouseClient } from '@clickhouse/client';
import { headers, type NatsConnection } from 'nats';
import { insertLines } from '../scripts/lib/clickhouse.ts';
import { BOOT_HEADER, ensureStreams, ROWS_HEADER } from '../scripts/lib/jetstream.ts';
import {
  balance,
  countGaps,
  countInGaps,
  countPublished,
  countStored,
  type Figures,
  ledgerKey,
  ledgerTable,
  messagesAfter,
  type Published,
  type Stored,
} from '../scripts/lib/ledger.ts';
import { createLogger } from '../scripts/lib/log.ts';
import { encodeRow, type GapRow, type OrderbookUpdateRow, type RowSource, type TradeRow } from '../scripts/lib/rows.ts';
import { ensureTier } from '../scripts/lib/schema.ts';
import { streamDefinitions } from '../scripts/lib/streams.ts';
import { sampleTrade } from './fixtures.ts';
import { Pipeline } from './pipeline.ts';

const KEY = ledgerKey('binance_spot', 'trade');

function figures(change: {
  received?: number;
  published?: number;
  stored?: Partial<Stored>;
  gap?: number;
  found?: number;
  cold?: number;
  sent?: number | null;
}): Figures {
  const { received = 10, published = 10, stored = {}, gap, found, cold = stored.count ?? 10, sent = 10 } = change;
  return {
    received: new Map([[KEY, received]]),
    published: new Map([[KEY, published]]),
    stored: new Map([[KEY, { count: 10, unique: 10, streamed: 10, ...stored }]]),
    cold: new Map([[KEY, { count: cold, unique: cold, streamed: cold }]]),
    found: new Map(found === undefined ? [] : [[KEY, found]]),
    gaps: new Map(gap === undefined ? [] : [[KEY, gap]]),
    sent: sent === null ? null : new Map([[KEY, sent]]),
  };
}

/** [gap, lost, duplicated, balanced] */
function judged(change: Parameters<typeof figures>[0]) {
  const report = balance('demo', 1, figures(change));
  const [row] = report.rows;
  return [row!.gap, row!.lost, row!.duplicated, report.balanced];
}

test('a ledger balances when every row that was sent is in hot once', () => {
  assert.deepEqual(judged({}), [0, 0, 0, true]);
  assert.deepEqual(judged({ sent: null }), [0, 0, 0, true]);
});

test('what was sent and is not in hot is lost, and also what was received; a snapshot that was fetched makes up for no frame', () => {
  assert.deepEqual(judged({ sent: 13 }), [0, 3, 0, false]);
  assert.deepEqual(judged({ received: 12 }), [0, 2, 0, false]);
  assert.deepEqual(judged({ received: 12, sent: null }), [0, 2, 0, false]);
  assert.deepEqual(judged({ stored: { streamed: 8 } }), [0, 2, 0, false]);
});

test('rows that hot holds from an earlier run are not lost, and hide none that hot lacks', () => {
  assert.deepEqual(judged({ received: 12, found: 12, sent: null }), [0, 0, 0, true]);
  assert.deepEqual(judged({ received: 12, found: 11, sent: null }), [0, 1, 0, false]);
});

test('cold that has fewer or more rows than hot does not balance', () => {
  assert.equal(judged({ cold: 9 })[3], false);
  assert.equal(judged({ cold: 11 })[3], false);
});

test('a row that is there twice is duplicated, and hides none that is lost', () => {
  assert.deepEqual(judged({ stored: { count: 11 } }), [0, 0, 1, false]);
  for (const sent of [10, null]) {
    assert.deepEqual(judged({ stored: { count: 10, unique: 9, streamed: 9 }, sent }), [0, 1, 1, false]);
  }
});

test('rows declared missing are not lost; fewer than are missing do not hide the others', () => {
  assert.deepEqual(judged({ sent: 13, gap: 3 }), [3, 0, 0, true]);
  assert.deepEqual(judged({ sent: 13, gap: 1 }), [1, 2, 0, false]);
  assert.deepEqual(judged({ sent: 10, gap: 5 }), [5, 0, 0, true]);
});

test('a type that was sent and of which nothing came is in the ledger, as lost', () => {
  const none = () => new Map<string, never>();
  const empty = { received: none(), published: none(), stored: none(), cold: none(), found: none(), gaps: none() };
  const report = balance('demo', 1, { ...empty, sent: new Map([[KEY, 4]]) });
  assert.equal(report.balanced, false);
  assert.deepEqual(report.rows, [
    {
      exchange: 'binance_spot',
      data_type: 'trade',
      received: 0,
      published: 0,
      hot: 0,
      cold: 0,
      gap: 0,
      lost: 4,
      duplicated: 0,
    },
  ]);
  const lines = ledgerTable(report).split('\n');
  assert.match(lines[1]!, /^binance_spot {2}trade +0 +0 +0 +0 +0 +4 +0$/);
});

const SOURCE: RowSource = {
  exchange: 'binance_spot',
  market_type: 'spot',
  symbol: 'BTC-USDT',
  instrument: 'BTCUSDT',
  timestamp: 1795000000000,
  received_at: 1795000000000000,
  data_source: 'demo',
};
const trade = (id: number, change: Partial<TradeRow> = {}) =>
  encodeRow('trade', {
    ...SOURCE,
    trade_id: String(id),
    sequence: null,
    price: '1',
    quantity: '1',
    side: 'buy',
    is_maker: false,
    ...change,
  });
const diff = (id: number, is_snapshot: boolean, change: Partial<RowSource> = {}) =>
  encodeRow('orderbook_update', {
    ...SOURCE,
    ...change,
    first_update_id: null,
    last_update_id: id,
    prev_update_id: null,
    is_snapshot,
    bids: [],
    asks: [],
  } satisfies OrderbookUpdateRow);
const gap = (id: string, status: GapRow['status'], rows: number | null, filled: number | null) =>
  encodeRow('gap', {
    ...SOURCE,
    gap_id: id,
    status,
    data_type: 'trade',
    from_id: '1',
    to_id: '9',
    from_time: 1795000000000,
    to_time: 1795000000000,
    cause: 'test',
    reason: null,
    rows,
    filled_rows: filled,
    detected_at: 1795000000000,
    closed_at: null,
  });

describe('the counts behind the ledger', () => {
  const pipeline = new Pipeline();
  let client: ClickHouseClient;
  let nats: NatsConnection;

  before(async () => {
    await pipeline.choosePorts();
    await pipeline.startBroker();
    await pipeline.startDatabase();
    client = pipeline.client();
    await ensureTier(client, 'hot', 'ledger');
    nats = await pipeline.nats();
    await ensureStreams(await nats.jetstreamManager(), streamDefinitions(), createLogger('test', 'fatal'));
  });
  after(async () => {
    await nats?.close();
    await pipeline.close();
  });

  let inserts = 0;
  async function insert(table: string, lines: [string, number][]): Promise<void> {
    const text = lines.map(([line, seq]) => `{"js_epoch":1,"js_seq":${seq},${line.slice(1)}\n`).join('');
    await insertLines(client, `ledger.${table}`, Buffer.from(text), `test:${++inserts}`);
  }

  test('of hot: rows, distinct rows and rows that stand for frames, of this run alone', async () => {
    await insert('trades', [
      [trade(1), 5],
      [trade(2), 6],
      [trade(2), 7],
      [trade(2, { symbol: 'ETH-USDT' }), 7],
      [trade(3, { exchange: 'binance_derivatives', market_type: 'perpetual' }), 8],
    ]);
    await insert('orderbook_updates', [
      [diff(10, false), 1],
      [diff(10, true), 3],
      [diff(11, false), 3],
      [diff(11, false), 4],
    ]);
    const stored = await countStored(client, 'ledger', { MARKET_DATA: 5, ORDERBOOK_SNAP: 1 });
    assert.deepEqual(Object.fromEntries(stored), {
      'binance_spot trade': { count: 3, unique: 2, streamed: 2 },
      'binance_derivatives trade': { count: 1, unique: 1, streamed: 1 },
      'binance_spot orderbook_update': { count: 3, unique: 2, streamed: 1 },
    });
  });

  test('of gaps: the last state of each, less what was filled', async () => {
    await insert('gaps', [
      [gap('before', 'open', 100, null), 20],
      [gap('open', 'open', 7, null), 21],
      [gap('half', 'open', 10, null), 22],
      [gap('filled', 'open', 5, null), 23],
      [gap('filled', 'filled', 5, 5), 26],
      [gap('half', 'unfillable', 10, 4), 25],
    ]);
    assert.deepEqual([...(await countGaps(client, 'ledger', 20))], [['binance_spot trade', 13]]);
  });

  test('of rows that were sent, those that hot lacks within a gap of unknown size; whole books count as any update does', async () => {
    for (const exchange of ['binance_spot', 'hyperliquid'] as const) {
      const isSnapshot = exchange === 'hyperliquid';
      const symbol = `GAP-${isSnapshot ? 'USDC' : 'USDT'}`;
      await insert(
        'orderbook_updates',
        [1000, 3000, 5000].map((id): [string, number] => [diff(id, isSnapshot, { exchange, symbol }), id]),
      );
      const stream = { exchange, symbol, data_type: 'orderbook_update' as const, ranges: [{ from: 1001n, to: 4999n }] };
      const sent = ['1000', '2000', '3000', '4000', '5000', '6000'];
      assert.equal(await countInGaps(client, 'ledger', stream, sent), 2, exchange);
    }
  });

  test('of liquidations that were sent, those that hot lacks within the times of a gap', async () => {
    const stream = { exchange: 'okx_derivatives', symbol: 'LIQ-USDT', data_type: 'liquidation' as const };
    const { trade_id, sequence, is_maker, ...common } = sampleTrade(1);
    const row = { ...common, exchange: 'okx_derivatives', market_type: 'perpetual', symbol: 'LIQ-USDT' } as const;
    await insert('liquidations', [
      [
        encodeRow('liquidation', {
          ...row,
          liquidation_id: 'a',
          timestamp: 2000,
          price: '1.5',
          quantity: '3',
          side: 'sell',
        }),
        1,
      ],
    ]);
    const sent = [1000, 2000, 3000, 4000].map((time) => `LIQ-USDT-SWAP|sell|1.50|3.0|${time}`);
    const count = (from: bigint, to: bigint) =>
      countInGaps(client, 'ledger', { ...stream, ranges: [{ from, to }] }, sent);
    assert.deepEqual([await count(1000n, 3000n), await count(1001n, 2999n), await count(0n, 9000n)], [2, 0, 3]);
  });

  test('of JetStream: each message once and in order, also when a subscription falls silent', async () => {
    const { seq: base } = await nats.jetstream().publish('orderbook.binance_spot.spot.A', 'before');
    for (const text of ['1', '2', '3', '4', '5']) await nats.jetstream().publish('orderbook.binance_spot.spot.A', text);
    const read = async (connection: NatsConnection) => {
      const texts: string[] = [];
      for await (const message of messagesAfter(connection, 'ORDERBOOK_SNAP', base, false, 300))
        texts.push(message.string());
      return texts;
    };
    // Its subscriptions give so many messages each, and then no more until they are ended.
    const silentAfter = (counts: number[]) => {
      const jetstream = nats.jetstream();
      const subscribe: typeof jetstream.subscribe = async (...args) => {
        const real = await jetstream.subscribe(...args);
        const [count = Number.POSITIVE_INFINITY] = counts.splice(0, 1);
        let end: (() => void) | undefined;
        const ended = new Promise<void>((done) => (end = done));
        const some = async function* () {
          let given = 0;
          for await (const message of real) {
            if (given++ >= count) break;
            yield message;
          }
          await ended;
        };
        return Object.assign(Object.create(real) as typeof real, {
          [Symbol.asyncIterator]: some,
          unsubscribe: () => end?.(),
        });
      };
      return Object.assign(Object.create(nats) as NatsConnection, {
        jetstream: () => Object.assign(Object.create(jetstream) as typeof jetstream, { subscribe }),
        jetstreamManager: () => nats.jetstreamManager(),
      });
    };
    const all = ['1', '2', '3', '4', '5'];
    assert.deepEqual(await read(nats), all);
    assert.deepEqual(await read(silentAfter([2, 0, 1])), all);
    await assert.rejects(read(silentAfter([1, 0, 0, 0])), /ORDERBOOK_SNAP gives no message from \d+ on/);
  });

  test('of JetStream: rows by exchange, type and run of the collector, after the base', async () => {
    const put = (subject: string, boot: string, rows: number) => {
      const head = headers();
      head.set(ROWS_HEADER, String(rows));
      head.set(BOOT_HEADER, boot);
      return nats.jetstream().publish(subject, '{}', { headers: head });
    };
    await put('trade.binance_spot.spot.A', 'old', 100);
    await put('trade.binance_spot.spot.A', 'one', 3);
    await put('trade.binance_spot.spot.B', 'two', 4);
    await put('liquidation.binance_derivatives.perpetual.B', 'two', 5);
    const published: Published = { rows: new Map(), byBoot: new Map() };
    await countPublished(nats, 'MARKET_DATA', 1, published);
    const { state } = await (await nats.jetstreamManager()).streams.info('ORDERBOOK_SNAP');
    await countPublished(nats, 'ORDERBOOK_SNAP', state.last_seq, published);
    assert.deepEqual(Object.fromEntries(published.rows), {
      'binance_spot trade': 7,
      'binance_derivatives liquidation': 5,
    });
    assert.deepEqual(
      [...published.byBoot].map(([boot, counts]) => [boot, Object.fromEntries(counts)]),
      [
        ['one', { 'binance_spot trade': 3 }],
        ['two', { 'binance_spot trade': 4, 'binance_derivatives liquidation': 5 }],
      ],
    );
  });
});
