/** Holes in hot, found by the real engine in rows of known holes. */
import assert from 'node:assert/strict';
import { after, before, beforeEach, describe, test } from 'node:test';
import type { ClickHouseClient } from '@clickhouse/client';
import { insertLines } from '../scripts/lib/clickhouse.ts';
import type { Mark, ReadingSeries } from '../scripts/lib/exchange.ts';
import { findBrokenChains } from '../scripts/lib/gap_chains.ts';
import {
  countWithin,
  findFilled,
  findMissing,
  readingSequence,
  TRADES,
  WHOLE_BOOKS,
} from '../scripts/lib/gap_finder.ts';
import {
  type FinderOptions,
  type GapStream,
  givenUpGaps,
  keyOf,
  liquidationsBeside,
  openGaps,
} from '../scripts/lib/gap_rows.ts';
import { DATA_TYPES, encodeRow, type GapRow, type OrderbookUpdateRow, type TradeRow } from '../scripts/lib/rows.ts';
import { ensureTier } from '../scripts/lib/schema.ts';
import { sampleTrade } from './fixtures.ts';
import { Pipeline } from './pipeline.ts';

const DATABASE = 'marketprism_hot';
const ALL = { epoch: 1, seq: Number.MAX_SAFE_INTEGER };
const START = 1_795_000_000_000;
const BTC: GapStream = { exchange: 'binance_spot', market_type: 'spot', symbol: 'BTC-USDT' };
const ETH: GapStream = { ...BTC, symbol: 'ETH-USDT' };
const DERIBIT: GapStream = { exchange: 'deribit_derivatives', market_type: 'perpetual', symbol: 'BTC-USD' };

describe('holes in hot', () => {
  const pipeline = new Pipeline();
  let client: ClickHouseClient;
  let options: FinderOptions;
  before(async () => {
    await pipeline.choosePorts();
    await pipeline.startDatabase();
    client = pipeline.client();
    await ensureTier(client, 'hot', DATABASE);
    options = {
      client,
      database: DATABASE,
      types: DATA_TYPES,
      dataSource: 'live',
      ageMs: 0,
      collectorStart: async () => null,
    };
  });
  after(() => pipeline.close());
  beforeEach(async () => {
    for (const table of ['trades', 'orderbook_updates', 'funding_rates', 'volatility_indices', 'gaps'])
      await pipeline.query(`TRUNCATE TABLE ${DATABASE}.${table}`);
  });

  let sequence = 0;
  /** As the store inserts them. */
  async function insert(table: string, lines: string[]): Promise<void> {
    const spliced = lines.map((line) => `{"js_epoch":1,"js_seq":${++sequence},${line.slice(1)}\n`).join('');
    await insertLines(client, `${DATABASE}.${table}`, Buffer.from(spliced), `test:${sequence}`);
  }

  const trades = (ids: number[], change: Partial<TradeRow> = {}) =>
    insert(
      'trades',
      ids.map((id) =>
        encodeRow(
          'trade',
          sampleTrade(id, { timestamp: START + id * 100, received_at: (START + id * 100) * 1000, ...change }),
        ),
      ),
    );
  const range = (from: number, to: number) => Array.from({ length: to - from + 1 }, (_, index) => from + index);
  const short = ({ symbol, from_id, to_id, rows, cause, status }: GapRow) =>
    `${symbol} ${from_id}-${to_id} ${rows} ${cause} ${status}`;

  test('ids that are missing between two trades are a gap of exactly these, with the times around it', async () => {
    await trades([...range(100, 109), ...range(113, 120), 122]);
    await trades(range(5, 9), { symbol: 'ETH-USDT' });
    const { gaps, marks } = await findMissing(options, TRADES, [BTC, ETH], new Map(), Date.now(), ALL);
    assert.deepEqual(gaps.map(short), ['BTC-USDT 110-112 3 missing_ids open', 'BTC-USDT 121-121 1 missing_ids open']);
    assert.deepEqual([gaps[0]!.from_time, gaps[0]!.to_time], [START + 10_900, START + 11_300]);
    assert.deepEqual(Object.fromEntries(marks), {
      [keyOf(BTC)]: { id: '122', time: START + 12_200 },
      [keyOf(ETH)]: { id: '9', time: START + 900 },
    });
  });

  test('a hole that is seen again has the same id and time; another one has not', async () => {
    await trades([1, 3, 5]);
    const [first, second] = (await findMissing(options, TRADES, [BTC], new Map(), Date.now(), ALL)).gaps;
    const [again] = (await findMissing(options, TRADES, [BTC], new Map(), Date.now() + 5000, ALL)).gaps;
    assert.deepEqual([again!.gap_id, again!.timestamp], [first!.gap_id, first!.timestamp]);
    assert.notEqual(second!.gap_id, first!.gap_id);
  });

  test('a hole next to a row that has just come is waited for, and not forgotten', async () => {
    await trades([...range(1, 5), ...range(8, 10)]);
    const young = { ...options, ageMs: 3_600_000 };
    const look = await findMissing(young, TRADES, [BTC], new Map(), Date.now(), ALL);
    assert.deepEqual([look.gaps, look.marks.get(keyOf(BTC))], [[], { id: '5', time: START + 500 }]);
    const later = await findMissing(options, TRADES, [BTC], look.marks, Date.now(), ALL);
    assert.deepEqual(later.gaps.map(short), ['BTC-USDT 6-7 2 missing_ids open']);
    assert.equal(later.marks.get(keyOf(BTC))!.id, '10');
    const after = await findMissing(options, TRADES, [BTC], later.marks, Date.now(), ALL);
    assert.deepEqual([after.gaps, after.marks.get(keyOf(BTC))!.id], [[], '10']);
    await trades(range(12, 13));
    assert.deepEqual((await findMissing(options, TRADES, [BTC], after.marks, Date.now(), ALL)).gaps.map(short), [
      'BTC-USDT 11-11 1 missing_ids open',
    ]);
  });

  test('a hole that a message on its way may fill is waited for, as long as that is the same numbering', async () => {
    await trades([1, 2, 5]);
    await diffs(BTC, [
      [1, 2, null],
      [9, 10, null],
    ]);
    const before = { epoch: 1, seq: sequence - 3 };
    const look = await findMissing(options, TRADES, [BTC], new Map(), Date.now(), before);
    assert.deepEqual([look.gaps, look.marks.get(keyOf(BTC))!.id], [[], '2']);
    assert.deepEqual((await findBrokenChains(options, [BTC], new Map(), Date.now(), before)).gaps, []);
    for (const settled of [
      { epoch: 1, seq: sequence },
      { epoch: 2, seq: 0 },
    ]) {
      assert.equal((await findMissing(options, TRADES, [BTC], look.marks, Date.now(), settled)).gaps.length, 1);
      assert.equal((await findBrokenChains(options, [BTC], new Map(), Date.now(), settled)).gaps.length, 1);
    }
  });

  test('a hole in which nothing was received for long is told as an outage', async () => {
    await trades([1]);
    await trades([5], { timestamp: START + 20_000, received_at: (START + 20_000) * 1000 });
    assert.deepEqual((await findMissing(options, TRADES, [BTC], new Map(), Date.now(), ALL)).gaps.map(short), [
      'BTC-USDT 2-4 3 outage open',
    ]);
  });

  test('an outage that ended with a newly started collector is told as downtime', async () => {
    await trades([1]);
    await trades([5], { timestamp: START + 20_000, received_at: (START + 20_000) * 1000 });
    const asked: [string, number][] = [];
    const startedAt = (time: number) => ({
      ...options,
      collectorStart: async (type: string, seq: number) => {
        asked.push([type, seq]);
        return START + time;
      },
    });
    const cause = async (time: number) =>
      (await findMissing(startedAt(time), TRADES, [BTC], new Map(), Date.now(), ALL)).gaps[0]!.cause;
    assert.deepEqual([await cause(50), await cause(15_000), await cause(20_001)], ['outage', 'downtime', 'outage']);
    assert.deepEqual(asked[0], ['trade', sequence], 'it is the message of the row after the hole');
  });

  test('a hole behind rows that have left hot is known by the mark', async () => {
    const marks = new Map([[keyOf(BTC), { id: '99', time: START }]]);
    await trades([105, 106]);
    const { gaps } = await findMissing(options, TRADES, [BTC], marks, Date.now(), ALL);
    assert.deepEqual(gaps.map(short), ['BTC-USDT 100-104 5 outage open']);
    assert.equal(gaps[0]!.from_time, START);
    await diffs(BTC, [[205, 206, null]]);
    const chain = new Map([[keyOf(BTC), { id: '199', time: START }]]);
    const broken = await findBrokenChains(options, [BTC], chain, Date.now(), ALL);
    assert.deepEqual(broken.gaps.map(short), ['BTC-USDT 200-204 null outage unfillable']);
    const restarted = new Map([[keyOf(BTC), { id: '900', time: START }]]);
    assert.deepEqual((await findMissing(options, TRADES, [BTC], restarted, Date.now(), ALL)).gaps, []);
    assert.deepEqual((await findBrokenChains(options, [BTC], restarted, Date.now(), ALL)).gaps, []);
  });

  const PERPETUAL: GapStream = { exchange: 'binance_derivatives', market_type: 'perpetual', symbol: 'BTC-USDT' };
  const MINUTE = 60_000;
  /** A whole minute. */
  const ZERO = START - (START % MINUTE);
  const funding = (times: number[], source = 'live') =>
    insert(
      'funding_rates',
      times.map((time) =>
        encodeRow('funding_rate', {
          ...PERPETUAL,
          instrument: 'BTCUSDT',
          timestamp: ZERO + time,
          received_at: (ZERO + time) * 1000,
          data_source: source,
          funding_rate: '0.0001',
          funding_time: null,
          next_funding_time: null,
          funding_interval_hours: null,
          mark_price: null,
          index_price: null,
        }),
      ),
    );
  const history = { idMember: 'timestamp', order: 'ascending', page: () => ({ path: '/', weight: 1 }) } as const;
  const RATES: ReadingSeries = { type: 'funding_rate', stepMs: MINUTE, quietSteps: 0 };
  const look = (series: ReadingSeries, stream = PERPETUAL, marks: ReadonlyMap<string, Mark> = new Map()) =>
    findMissing(options, readingSequence(stream.exchange, series), [stream], marks, Date.now(), ALL);

  test('minutes without a reading are a gap, wherever in its minute a reading stands', async () => {
    await funding([0, MINUTE + 59_999, 2 * MINUTE, 2 * MINUTE + 30_000, 6 * MINUTE + 1]);
    const { gaps, marks } = await look(RATES);
    const range = [ZERO + 3 * MINUTE, ZERO + 5 * MINUTE];
    assert.deepEqual(gaps.map(short), [`BTC-USDT ${range[0]}-${range[1]} 3 outage unfillable`]);
    assert.equal(gaps[0]!.reason, 'the venue does not serve the past of these');
    assert.equal(marks.get(keyOf(PERPETUAL))!.time, ZERO + 6 * MINUTE + 1);
    assert.deepEqual((await look(RATES, PERPETUAL, marks)).gaps, [], 'each is told once');
  });

  test('a reading that the venue tells seldom may leave steps out', async () => {
    await funding([0, 3 * MINUTE, 7 * MINUTE]);
    const { gaps } = await look({ ...RATES, quietSteps: 2, history });
    assert.deepEqual(gaps.map(short), [`BTC-USDT ${ZERO + 4 * MINUTE}-${ZERO + 6 * MINUTE} 3 outage open`]);
  });

  test('beside a gap of what shares their socket, liquidations may be missing, and nobody can know', async () => {
    await trades([1, 2, 5]);
    const { gaps } = await findMissing(options, TRADES, [BTC], new Map(), Date.now(), ALL);
    const [gap] = gaps as [GapRow];
    const beside = (exchange: string, change: Partial<GapRow> = {}) =>
      liquidationsBeside(
        { dataSource: 'live' },
        { [exchange]: 'trade' },
        { ...gap, market_type: 'perpetual', ...change },
        7,
      );
    const [told] = beside(gap.exchange) as [GapRow];
    const { from_id, to_id, from_time, to_time, cause } = gap;
    assert.deepEqual(
      { ...told, gap_id: '', reason: '' },
      {
        ...gap,
        market_type: 'perpetual',
        data_type: 'liquidation',
        // One of before may have been told within it.
        ...{ from_id, to_id, timestamp: from_time - 5000, from_time: from_time - 5000, to_time, cause },
        ...{
          gap_id: '',
          reason: '',
          status: 'unfillable',
          rows: null,
          received_at: 7000,
          detected_at: 7,
          closed_at: 7,
        },
      },
    );
    assert.match(told.reason!, /^rows of their socket \(trade\) were missing: .* cannot be known$/);
    assert.notEqual(told.gap_id, gap.gap_id);
    assert.deepEqual(beside('okx_derivatives'), [], 'another exchange');
    assert.deepEqual(beside(gap.exchange, { data_type: 'orderbook_update' }), [], 'another socket');
    assert.deepEqual(beside(gap.exchange, { market_type: 'spot' }), [], 'no liquidations');
  });

  test('the few readings that can be had afterwards do not make two gaps of one', async () => {
    await funding([0, 9 * MINUTE]);
    await funding([5 * MINUTE], 'backfill:0123');
    const rates = { ...RATES, history: { ...history, keeps: 'only some' } };
    assert.deepEqual((await look(rates)).gaps.map(short), [
      `BTC-USDT ${ZERO + MINUTE}-${ZERO + 8 * MINUTE} 8 outage open`,
    ]);
    const whole = await look({ ...RATES, history });
    assert.equal(whole.gaps.length, 2, 'where everything can be had, each hole is one');
  });

  test('candles are told apart from other readings of their table, and a filled hole of them is closed', async () => {
    const stream: GapStream = { exchange: 'deribit_derivatives', market_type: 'options', symbol: 'BTC' };
    const candles = (minutes: number[], resolution = '60') =>
      insert(
        'volatility_indices',
        minutes.map((minute) =>
          encodeRow('volatility_index', {
            ...stream,
            instrument: 'btc_usd',
            timestamp: ZERO + minute * MINUTE,
            received_at: (ZERO + minute * MINUTE) * 1000,
            data_source: 'live',
            resolution,
            index_value: '50',
            underlying_asset: 'BTC',
            maturity_date: null,
          }),
        ),
      );
    const series: ReadingSeries = {
      type: 'volatility_index',
      stepMs: MINUTE,
      quietSteps: 0,
      of: { name: 'resolution', value: '60' },
      history,
    };
    await candles([0, 1, 4]);
    await candles([2, 3], '1');
    const { gaps } = await look(series, stream);
    assert.deepEqual(gaps.map(short), [`BTC ${ZERO + 2 * MINUTE}-${ZERO + 3 * MINUTE} 2 outage open`]);
    const sequences = [TRADES, readingSequence(stream.exchange, series)];
    assert.deepEqual(await findFilled(options, sequences, gaps, Date.now()), []);
    await candles([2, 3]);
    const [filled] = await findFilled(options, sequences, gaps, Date.now());
    assert.deepEqual([filled!.status, filled!.filled_rows], ['filled', 2]);
  });

  test('on Deribit the sequence counts, not the trade’s id', async () => {
    for (const [id, number] of [
      ['ETH-7', 50],
      ['ETH-3', 51],
      ['ETH-11', 54],
    ] as const) {
      await trades([number], { ...DERIBIT, trade_id: id, sequence: number });
    }
    assert.deepEqual((await findMissing(options, TRADES, [DERIBIT], new Map(), Date.now(), ALL)).gaps.map(short), [
      'BTC-USD 52-53 2 missing_ids open',
    ]);
  });

  test('a gap is filled when every one of its trades is there, and not before', async () => {
    await trades([1, 2, 6]);
    const { gaps } = await findMissing(options, TRADES, [BTC], new Map(), Date.now(), ALL);
    await insert('gaps', [encodeRow('gap', gaps[0]!)]);
    const open = await openGaps(options);
    assert.deepEqual(open.map(short), ['BTC-USDT 3-5 3 missing_ids open']);
    await trades([3, 5]);
    assert.equal(await countWithin(options, TRADES, open[0]!), 2);
    assert.deepEqual(await findFilled(options, [TRADES], open, Date.now()), []);
    await trades([4]);
    const [filled] = await findFilled(options, [TRADES], open, Date.now());
    assert.deepEqual([filled!.gap_id, filled!.status, filled!.filled_rows], [gaps[0]!.gap_id, 'filled', 3]);
    await insert('gaps', [encodeRow('gap', filled!)]);
    assert.deepEqual(await openGaps(options), []);
    assert.deepEqual(await pipeline.query(`SELECT status, rows, filled_rows FROM ${DATABASE}.gaps_now`), [
      ['filled', '3', '3'],
    ]);
  });

  test('a gap that was given up is filled by rows that come late, and stays filled whatever is said of it afterwards', async () => {
    await trades([1, 2, 6]);
    const { gaps } = await findMissing(options, TRADES, [BTC], new Map(), Date.now(), ALL);
    const gap = gaps[0]!;
    const givenUp: GapRow = {
      ...gap,
      status: 'unfillable',
      filled_rows: 0,
      closed_at: START,
      reason: 'the history has nothing',
    };
    await insert('gaps', [encodeRow('gap', gap), encodeRow('gap', givenUp)]);
    assert.deepEqual(await givenUpGaps(options, START), [], 'it was given up too long ago');
    const [known] = await givenUpGaps(options, START - 1);
    assert.equal(known!.gap_id, gap.gap_id);
    assert.deepEqual(await findFilled(options, [TRADES], [known!], Date.now()), []);
    await trades([3, 4, 5]);
    const [filled] = await findFilled(options, [TRADES], [known!], Date.now());
    await insert('gaps', [encodeRow('gap', filled!)]);
    await insert('gaps', [encodeRow('gap', { ...givenUp, closed_at: START + 1 })]);
    // Nothing of another state: not why it was given up.
    assert.deepEqual(
      await pipeline.query(`SELECT status, filled_rows, ifNull(reason, '-') FROM ${DATABASE}.gaps_now`),
      [['filled', '3', '-']],
    );
    assert.deepEqual(await givenUpGaps(options, START - 1), []);
  });

  /** `[first, last, previous last]`, or a snapshot's id. */
  const diffs = (stream: GapStream, list: ([number | null, number, number | null] | number)[], at = START) =>
    insert(
      'orderbook_updates',
      list.map((each) => {
        const [first, last, prev] = typeof each === 'number' ? [null, each, null] : each;
        return encodeRow('orderbook_update', {
          ...stream,
          instrument: 'X',
          timestamp: at + last * 100,
          received_at: (at + last * 100) * 1000,
          data_source: 'live',
          first_update_id: first,
          last_update_id: last,
          prev_update_id: prev,
          is_snapshot: typeof each === 'number',
          bids: [['1', '1']],
          asks: [],
        } satisfies OrderbookUpdateRow);
      }),
    );
  const COIN: GapStream = { exchange: 'hyperliquid', market_type: 'perpetual', symbol: 'BTC-USDC' };

  test('whole books are missing where twice their interval lies between two; how many, nobody knows', async () => {
    const times = [0, 5070, 10_140, 20_300, 25_400, 60_400].map((ms) => START + ms);
    await insert(
      'orderbook_updates',
      times.map((time) =>
        encodeRow('orderbook_update', {
          ...COIN,
          instrument: 'BTC',
          timestamp: time,
          received_at: time * 1000,
          data_source: 'live',
          first_update_id: null,
          last_update_id: time,
          prev_update_id: null,
          is_snapshot: true,
          bids: [['1', '1']],
          asks: [],
        } satisfies OrderbookUpdateRow),
      ),
    );
    const { gaps } = await findMissing(options, WHOLE_BOOKS, [COIN], new Map(), Date.now(), ALL);
    assert.deepEqual(gaps.map(short), [
      `BTC-USDC ${START + 10_141}-${START + 20_299} null outage unfillable`,
      `BTC-USDC ${START + 25_401}-${START + 60_399} null outage unfillable`,
    ]);
    assert.ok(!WHOLE_BOOKS.covers(SWAP));
  });

  const SWAP: GapStream = { exchange: 'okx_derivatives', market_type: 'perpetual', symbol: 'BTC-USDT' };

  test('a diff whose predecessor is not there is a gap from the last diff before; the first of a stream is none', async () => {
    await diffs(BTC, [5, [4, 6, null], [7, 9, null], [15, 16, null], [17, 20, null]]);
    await diffs(SWAP, [10, [null, 12, 10], [null, 15, 12], [null, 22, 18], 21]);
    const { gaps } = await findBrokenChains(options, [BTC, SWAP], new Map(), Date.now(), ALL);
    assert.deepEqual(
      gaps.map((gap) => `${gap.exchange} ${short(gap)}`),
      [
        'binance_spot BTC-USDT 10-14 null broken_chain unfillable',
        'okx_derivatives BTC-USDT 16-18 null broken_chain unfillable',
      ],
    );
    assert.equal(gaps[0]!.reason, 'no venue serves past book updates');
    assert.equal(gaps[1]!.to_time, START + 2200, 'until the snapshot or the diff, whichever is later');
  });

  test('what is between the last diff and the snapshot of a new subscription is a gap, too', async () => {
    await diffs(SWAP, [10, [null, 12, 10], 20, [null, 22, 20], 22, [null, 24, 22]]);
    const { gaps } = await findBrokenChains(options, [SWAP], new Map(), Date.now(), ALL);
    assert.deepEqual(
      gaps.map(short),
      ['BTC-USDT 13-20 null broken_chain unfillable'],
      'the snapshot at 22 lost nothing',
    );
  });

  test('a collector that joins in the middle of another one’s update makes no gap', async () => {
    await diffs(SWAP, [10, [null, 12, 10], [null, 18, 12], 15, [null, 17, 15], [null, 19, 17], [null, 20, 18]]);
    assert.deepEqual((await findBrokenChains(options, [SWAP], new Map(), Date.now(), ALL)).gaps, []);
  });

  test('two collectors that cut the same updates differently make no gap, as long as each chain holds', async () => {
    await diffs(SWAP, [
      10,
      [null, 12, 10],
      [null, 14, 12],
      [null, 13, 10],
      [null, 15, 13],
      [null, 16, 14],
      [null, 17, 15],
    ]);
    assert.deepEqual((await findBrokenChains(options, [SWAP], new Map(), Date.now(), ALL)).gaps, []);
  });

  test('a chain is followed from look to look, over a pause too, and a young break is not forgotten', async () => {
    await diffs(BTC, [
      [1, 2, null],
      [3, 4, null],
    ]);
    const first = await findBrokenChains(options, [BTC], new Map(), Date.now(), ALL);
    assert.deepEqual(first.gaps, []);
    // Two minutes later than the ids tell, and one frame is missing.
    await diffs(BTC, [[5, 6, null]], START + 120_000);
    const second = await findBrokenChains(options, [BTC], first.marks, Date.now(), ALL);
    assert.deepEqual(second.gaps, []);
    await diffs(
      BTC,
      [
        [9, 10, null],
        [11, 12, null],
      ],
      START + 120_000,
    );
    const young = await findBrokenChains({ ...options, ageMs: 3_600_000 }, [BTC], second.marks, Date.now(), ALL);
    assert.deepEqual(young.gaps, []);
    const later = await findBrokenChains(options, [BTC], young.marks as Map<string, Mark>, Date.now(), ALL);
    assert.deepEqual(later.gaps.map(short), ['BTC-USDT 7-8 null broken_chain unfillable']);
    assert.deepEqual((await findBrokenChains(options, [BTC], later.marks, Date.now(), ALL)).gaps, []);
  });

  test('what comes late into a hole that is waited for is looked at, too: its own break is told', async () => {
    await diffs(BTC, [
      [1, 2, null],
      [3, 4, null],
    ]);
    const { marks } = await findBrokenChains(options, [BTC], new Map(), Date.now(), ALL);
    await diffs(BTC, [[21, 22, null]]);
    const held = await findBrokenChains({ ...options, ageMs: 3_600_000 }, [BTC], marks, Date.now(), ALL);
    assert.deepEqual(held.gaps, []);
    // From another collector's disk; it was killed between 8 and 15.
    await diffs(BTC, [
      [5, 6, null],
      [7, 8, null],
      [15, 17, null],
      [18, 20, null],
    ]);
    const filled = await findBrokenChains(options, [BTC], held.marks, Date.now(), ALL);
    assert.deepEqual(filled.gaps.map(short), ['BTC-USDT 9-14 null broken_chain unfillable']);
    assert.deepEqual((await findBrokenChains(options, [BTC], filled.marks, Date.now(), ALL)).gaps, []);
  });
});
