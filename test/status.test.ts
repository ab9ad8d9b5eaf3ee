/** What the operator is told of a running system, from figures and for real. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import type { ServiceNow } from '../scripts/lib/manage/services_now.ts';
import { waitFor } from '../scripts/lib/processes.ts';
import {
  EXIT,
  gapsFrom,
  healthFrom,
  openGapsFrom,
  type Status,
  streamsDocument,
  streamsFrom,
  streamsText,
  textTable,
  verdictOf,
} from '../scripts/lib/status.ts';
import { Pipeline, READY_MS } from './pipeline.ts';

const NOW = 1_795_000_000_000;
const SECOND = 1000;
const HOUR = 3600 * SECOND;
const BTC = ['binance_spot', 'spot', 'BTC-USDT'];

/** One stream as the database tells it, with its newest event `age` ms ago. */
const stream = (type: string, age: number): string[] => [...BTC, type, '7', String(NOW - age), String(NOW)];
const NO_GAP: string[][] = [];
const gap = (open: number, filled = 0): string[] => [
  ...BTC,
  'trade',
  String(open),
  '\\N',
  String(filled),
  '5',
  '0',
  '0',
];
const OPEN_GAP = [
  [...BTC, 'trade', '101', '140', '2026-11-20 10:00:00.000', '2026-11-20 10:00:02.500', '40', 'disconnect'],
  ['2026-11-20 10:00:31.000'],
].flat();
const BOOK = {
  verified_percent: 97.5,
  unverifiable_percent: 0,
  clean_percent: 99.1,
  resyncs: 3,
  standing: true,
  updates: 9,
};

function statusOf({
  streams = [stream('trade', SECOND)],
  gaps = NO_GAP,
  open = [] as string[][],
  health = { status: 'healthy', books: {} } as object,
} = {}): Status {
  const figures = { streams: streamsFrom(streams), gaps: gapsFrom(gaps), open_gaps: openGapsFrom(open) };
  return { database: 'hot at here', collector: 'there', hot: { figures }, health: healthFrom(health) };
}
const away = { fault: 'connect ECONNREFUSED' };

describe('the verdict', () => {
  const verdict = (parts: Parameters<typeof statusOf>[0]) => verdictOf(statusOf(parts));

  it('is healthy when rows flow, nothing is open and the collector is well', () => {
    assert.equal(verdict({}), 'healthy');
    assert.equal(verdict({ gaps: [gap(0, 4)] }), 'healthy', 'filled gaps are no fault');
    assert.deepEqual(EXIT, { healthy: 0, degraded: 1, unhealthy: 2, unchecked: 3 });
  });

  it('is degraded from the limit of each type on', () => {
    for (const type of ['trade', 'orderbook', 'orderbook_update']) {
      assert.equal(verdict({ streams: [stream(type, 60 * SECOND)] }), 'healthy', type);
      assert.equal(verdict({ streams: [stream(type, 60 * SECOND + 1)] }), 'degraded', type);
    }
    for (const type of ['funding_rate', 'open_interest', 'lsr_top_position', 'volatility_index']) {
      assert.equal(verdict({ streams: [stream(type, 8 * HOUR)] }), 'healthy', type);
      assert.equal(verdict({ streams: [stream(type, 8 * HOUR + 1)] }), 'degraded', type);
    }
    assert.equal(verdict({ streams: [stream('liquidation', 23 * HOUR)] }), 'healthy');
    assert.equal(verdict({ streams: [stream('trade', -HOUR)] }), 'healthy', 'a clock that is ahead');
    assert.equal(verdict({ streams: [] }), 'degraded', 'no row in a day');
  });

  it('is degraded by an open gap, and by a collector that is degraded or away', () => {
    assert.equal(verdict({ gaps: [gap(0), gap(1)] }), 'degraded');
    assert.equal(verdict({ health: { status: 'degraded' } }), 'degraded');
    assert.equal(verdictOf({ ...statusOf(), health: away }), 'degraded');
    assert.equal(verdict({ health: { status: 'well' } }), 'degraded', 'an answer of something else');
  });

  it('puts what is known to be bad before what is not known', () => {
    assert.equal(verdict({ health: { status: 'unhealthy' }, gaps: [gap(1)] }), 'unhealthy');
    assert.equal(verdictOf({ ...statusOf(), hot: away }), 'unchecked');
    assert.equal(verdictOf({ ...statusOf({ health: { status: 'unhealthy' } }), hot: away }), 'unhealthy');
    assert.equal(verdictOf({ ...statusOf(), hot: away, health: away }), 'unchecked');
  });
});

describe('the report', () => {
  it('shows streams, gaps, open ones and books, and what is not known as such', () => {
    const unproven = {
      ...BOOK,
      verified_percent: 0,
      unverifiable_percent: 98.25,
      clean_percent: null,
      standing: false,
    };
    const text = streamsText(
      statusOf({
        streams: [stream('orderbook', 1500), stream('trade', 90 * SECOND), stream('funding_rate', 3 * HOUR)],
        gaps: [gap(2, 1)],
        open: [OPEN_GAP],
        health: {
          status: 'degraded',
          books: { binance_spot: { spot: { 'BTC-USDT': BOOK } }, hyperliquid: { perpetual: { 'BTC-USDC': unproven } } },
        },
      }),
    );
    assert.equal(
      text,
      [
        'hot at here: rows that arrived in the last 24 h',
        'exchange      market_type  symbol    data_type     rows                    newest     age  state',
        'binance_spot  spot         BTC-USDT  orderbook        7  2026-11-18T11:06:38.500Z   1.5 s     ok',
        'binance_spot  spot         BTC-USDT  trade            7  2026-11-18T11:05:10.000Z  90.0 s  stale',
        'binance_spot  spot         BTC-USDT  funding_rate     7  2026-11-18T08:06:40.000Z   3.0 h     ok',
        '',
        'gaps',
        'exchange      market_type  symbol    data_type  open  rows  filled  rows  unfillable  rows',
        'binance_spot  spot         BTC-USDT  trade         2     –       1     5           0     0',
        '',
        'newest open gaps',
        'exchange      market_type  symbol    data_type  cause       ids        times                                              detected                 rows',
        'binance_spot  spot         BTC-USDT  trade      disconnect  101 … 140  2026-11-20 10:00:00.000 … 2026-11-20 10:00:02.500  2026-11-20 10:00:31.000    40',
        '',
        'collector at there: degraded',
        '',
        'books, shares of the time since each was first seen',
        'exchange      market_type  symbol    verified %  unverifiable %  clean %  resyncs  standing',
        'binance_spot  spot         BTC-USDT        97.5               0     99.1        3       yes',
        'hyperliquid   perpetual    BTC-USDC           0           98.25        –        3        no',
      ].join('\n'),
    );
  });

  it('says in one line what does not answer, and tells the rest', () => {
    const healthy = statusOf();
    const withoutHot = streamsText({ ...healthy, hot: away }).split('\n\n');
    assert.deepEqual(withoutHot, [
      'database hot at here does not answer: connect ECONNREFUSED',
      'collector at there: healthy',
      'books: none',
    ]);
    const withoutCollector = streamsText({ ...healthy, health: away });
    assert.match(withoutCollector, /^hot at here: rows that arrived/);
    assert.match(withoutCollector, /\ngaps: none\n/);
    assert.match(withoutCollector, /\ncollector at there does not answer: connect ECONNREFUSED$/m);
    assert.match(streamsText(statusOf({ streams: [] })), /^hot at here: no row arrived in the last 24 h\n/);
  });

  it('is the same for programs', () => {
    const told = streamsDocument(statusOf({ gaps: [gap(2)], open: [OPEN_GAP] }));
    assert.equal(told.streams?.[0]?.age_ms, SECOND);
    assert.equal(told.gaps?.[0]?.open_rows, null);
    assert.equal(told.open_gaps?.[0]?.cause, 'disconnect');
    const missing = streamsDocument({ ...statusOf(), hot: away, health: away });
    assert.deepEqual(
      [missing.streams, missing.books, missing.database.fault, missing.collector.fault],
      [null, null, away.fault, away.fault],
    );
  });

  it('lines columns up', () => {
    assert.equal(textTable(['a', 'bb'], [['ccc', '1']], 1), 'a    bb\nccc   1');
  });
});

describe('manage.ts status', () => {
  const pipeline = new Pipeline({
    HEALTH_GRACE_SECONDS: '0',
    MARKETPRISM_EXCHANGES: 'binance_spot',
    MARKETPRISM_SYMBOLS: 'BTC-USDT',
    MARKETPRISM_ORDERBOOK_INTERVAL: '1s',
  });
  before(async () => {
    await pipeline.choosePorts();
    await Promise.all([pipeline.startBroker(), pipeline.startDatabase()]);
  });
  after(() => pipeline.close());

  /** Runs the command to its end. */
  function manage(...args: string[]): Promise<{ code: number | null; out: string; err: string }> {
    const script = join(import.meta.dirname, '..', 'scripts', 'manage.ts');
    const child = spawn(process.execPath, ['--import', 'tsx', script, ...args], { env: pipeline.env });
    let [out, err] = ['', ''];
    child.stdout.on('data', (piece: Buffer) => (out += piece.toString()));
    child.stderr.on('data', (piece: Buffer) => (err += piece.toString()));
    return new Promise((done, failed) => child.once('error', failed).once('close', (code) => done({ code, out, err })));
  }
  interface Told {
    status: string;
    streams: { data_type: string; rows: number; stale: boolean }[] | null;
    gaps: Record<string, unknown>[] | null;
    open_gaps: Record<string, unknown>[] | null;
    books: Record<string, Record<string, Record<string, { standing: boolean }>>> | null;
    services: ServiceNow[];
    rates: { received_per_second: number | null };
    gaps_open: number | null;
    outbox: { waiting_bytes: number | null };
  }
  const told = async (): Promise<Told & { code: number | null }> => {
    const { code, out, err } = await manage('status', '--json');
    assert.equal(err, '');
    return { ...(JSON.parse(out) as Told), code };
  };

  it('tells what flows, what is missing and what is away', async () => {
    const empty = await manage('status');
    assert.deepEqual([empty.code, empty.err], [2, ''], 'there are no tables yet, and nobody to fill them');
    assert.match(empty.out, /\nstore +inactive +– +– +– +– +– +unhealthy\n/);
    assert.match(empty.out, /\ndatabase marketprism_hot at http:\/\/127\.0\.0\.1:\d+ does not answer: .*\n/);

    await pipeline.startSimulator(['--symbols', 'BTC-USDT']);
    await pipeline.startStore();
    await pipeline.startCollector();
    await pipeline.startReplicate();
    let flowing = await told();
    await waitFor('all three streams and services', READY_MS, async () => {
      flowing = await told();
      return (flowing.streams?.length ?? 0) >= 3 && flowing.services.every(({ health }) => health === 'healthy');
    });
    assert.deepEqual(
      flowing.streams?.map(({ data_type }) => data_type),
      ['orderbook', 'orderbook_update', 'trade'],
    );
    assert.ok(flowing.streams?.every(({ rows, stale }) => rows > 0 && !stale));
    assert.equal(flowing.books?.binance_spot?.spot?.['BTC-USDT']?.standing, true);
    assert.deepEqual([flowing.status, flowing.code, flowing.gaps], ['healthy', 0, []]);
    const names = ['nats-server', 'clickhouse_embedded', 'store', 'collector', 'replicate'] as const;
    assert.deepEqual(
      flowing.services.map(({ name, state, pid }) => [name, state, pid]),
      names.map((name) => [name, 'active', pipeline.children.get(name)?.pid]),
    );
    assert.ok(flowing.services.every(({ rss_bytes, cpu_percent }) => rss_bytes! > 2 ** 20 && cpu_percent! >= 0));
    assert.ok(flowing.rates.received_per_second! > 0, 'trades come all the time');
    assert.deepEqual([flowing.gaps_open, flowing.outbox.waiting_bytes], [0, 0]);

    const columns =
      'timestamp, exchange, market_type, symbol, instrument, gap_id, data_type, from_id, to_id, from_time, to_time, cause, ' +
      'reason, status, rows, filled_rows, detected_at, closed_at, received_at, data_source, js_epoch, js_seq';
    const row = (id: string, status: string, rows: string, filled: string, seq: number): string =>
      `(now64(3), 'binance_spot', 'spot', 'BTC-USDT', 'BTCUSDT', '${id}', 'trade', '101', '140', now64(3), now64(3), ` +
      `'disconnect', NULL, '${status}', ${rows}, ${filled}, now64(3), NULL, now64(6), 'test', 1, ${seq})`;
    const rows = [
      row('one', 'open', '40', 'NULL', 1_000_001),
      row('two', 'open', '12', 'NULL', 1_000_002),
      row('two', 'filled', '12', '12', 1_000_003),
    ];
    const query = `INSERT INTO marketprism_hot.gaps (${columns}) VALUES ${rows.join(', ')}`;
    await pipeline.client().command({ query });
    const gapped = await told();
    assert.deepEqual([gapped.status, gapped.code, gapped.gaps_open], ['degraded', 1, 1]);
    const of = { exchange: 'binance_spot', market_type: 'spot', symbol: 'BTC-USDT', data_type: 'trade' };
    assert.deepEqual(gapped.gaps, [
      { ...of, open: 1, open_rows: 40, filled: 1, filled_rows: 12, unfillable: 0, unfillable_rows: null },
    ]);
    assert.equal(gapped.open_gaps?.length, 1);
    const { from_id, to_id, cause, rows: missing } = gapped.open_gaps?.[0] ?? {};
    assert.deepEqual([from_id, to_id, cause, missing], ['101', '140', 'disconnect', 40]);

    await pipeline.stop('collector');
    const alone = await manage('status');
    assert.equal(alone.code, 2);
    assert.match(alone.out, /\n {2}collector unhealthy: does not run\n/);
    assert.match(alone.out, /\ncollector at http:\/\/127\.0\.0\.1:\d+\/health does not answer: .*ECONNREFUSED.*\n/);
    assert.match(alone.out, /\nnewest open gaps\n/);

    await pipeline.stop('clickhouse_embedded');
    const blind = await manage('status');
    assert.deepEqual([blind.code, blind.err], [2, '']);
    assert.match(blind.out, /open gaps –\n/);
    assert.match(blind.out, /\ndatabase marketprism_hot at .* does not answer: .*ECONNREFUSED/);
  });
});
