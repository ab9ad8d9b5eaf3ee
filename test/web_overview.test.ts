/** What the overview is told: rates of counters, dead letters, coverage, gaps, and parts that are away; against the real engine where rows are asked. */
import assert from 'node:assert/strict';
import { appendFileSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { LIMITS } from '../scripts/lib/checks/limits.ts';
import { freshness } from '../scripts/lib/checks/rows.ts';
import { insertLines } from '../scripts/lib/clickhouse.ts';
import { loadConfig } from '../scripts/lib/config.ts';
import { statusOf } from '../scripts/lib/coverage.ts';
import { appendDeadLetters, type DeadLetter } from '../scripts/lib/deadletter.ts';
import { freePort } from '../scripts/lib/free_port.ts';
import { createLogger } from '../scripts/lib/log.ts';
import {
  type DataType,
  EXCHANGES,
  type Exchange,
  encodeRow,
  type GapRow,
  type MarketType,
  type RowSource,
  type Rows,
  TABLES,
} from '../scripts/lib/rows.ts';
import { ensureTier, ensureViews } from '../scripts/lib/schema.ts';
import { seededRandom } from '../scripts/lib/sim/market.ts';
import {
  askedTypes,
  type CoverageAnswer,
  type CoverageCell,
  cadenceOf,
  cellOf,
} from '../scripts/lib/web/overview_coverage.ts';
import { LetterCounter, outboxFileBytes } from '../scripts/lib/web/overview_files.ts';
import type { GapsAnswer, TimelineAnswer } from '../scripts/lib/web/overview_gaps.ts';
import { Rates } from '../scripts/lib/web/overview_rates.ts';
import { OVERVIEW_ROUTES } from '../scripts/lib/web/overview_routes.ts';
import { acceptedOf } from '../scripts/lib/web/overview_services.ts';
import { sampleTrade } from './fixtures.ts';
import { Pipeline } from './pipeline.ts';
import { Web } from './web_harness.ts';

const SECOND = 1000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;
const LOG = createLogger('test', 'silent');

describe('rates', () => {
  const look = (at: number, counters: Record<string, number>, origin: string | null = 'run') => ({
    ...{ at, origin, counters: new Map(Object.entries(counters)) },
  });

  test('are what a counter rose by between two looks, and unknown before the second', () => {
    const rates = new Rates();
    assert.deepEqual([rates.rate('a'), rates.measuredMs], [null, null]);
    rates.take(look(5000, { a: 100 }));
    assert.deepEqual([rates.rate('a'), rates.sum(['a']), rates.measuredMs], [null, null, null]);
    rates.take(look(7000, { a: 150 }));
    assert.deepEqual([rates.rate('a'), rates.measuredMs], [25, 2000]);
  });

  test('are over the last ten seconds, however long it is looked', () => {
    const rates = new Rates();
    for (let second = 0; second <= 40; second += 2)
      rates.take(look(second * SECOND, { a: second < 20 ? second * 1000 : 20_000 }));
    assert.deepEqual([rates.rate('a'), rates.measuredMs], [0, 10_000]);
  });

  test('of a counter that began anew are never below zero, and are told again from there', () => {
    // The broker's sequences: nothing but the counter itself tells that it began anew.
    const rates = new Rates();
    rates.take(look(0, { a: 900 }, null));
    rates.take(look(2000, { a: 1000 }, null));
    rates.take(look(4000, { a: 10 }, null));
    assert.equal(rates.rate('a'), null);
    rates.take(look(6000, { a: 30 }, null));
    assert.equal(rates.rate('a'), 10);
  });

  test('of a process that was started again are not made of what the one before had counted', () => {
    const rates = new Rates();
    rates.take(look(0, { a: 100 }, 'first'));
    rates.take(look(2000, { a: 200 }, 'first'));
    // It has counted further already than the one before.
    rates.take(look(4000, { a: 5000 }, 'second'));
    assert.deepEqual([rates.rate('a'), rates.measuredMs], [null, null]);
    rates.take(look(5000, { a: 5003 }, 'second'));
    assert.equal(rates.rate('a'), 3);
  });

  test('of a counter that a process names only later begin at 0', () => {
    const rates = new Rates();
    rates.take(look(0, { a: 4 }));
    rates.take(look(2000, { a: 8, b: 10 }));
    assert.deepEqual([rates.rate('b'), rates.sum(['a', 'b']), rates.sum([])], [5, 7, 0]);
  });

  test('are unknown where what is compared lies far apart, the source was away, or less than a turn was seen', () => {
    const far = new Rates();
    far.take(look(0, { a: 1 }));
    far.take(look(31_000, { a: 100 }));
    assert.equal(far.rate('a'), null);
    const away = new Rates();
    away.take(look(0, { a: 1 }));
    away.forget();
    away.take(look(2000, { a: 100 }));
    assert.equal(away.rate('a'), null);
    const rounds = new Rates(30_000, 10_000);
    rounds.take(look(0, { a: 0 }));
    rounds.take(look(4000, { a: 4000 }));
    assert.deepEqual([rounds.rate('a'), rounds.measuredMs], [null, null]);
    rounds.take(look(10_000, { a: 4000 }));
    assert.equal(rounds.rate('a'), 400);
  });
});

test('what a collector accepted is told by exchange and type, over all its streams', () => {
  const stream = (rows: number, last_success_ts: number | null) => ({
    rows,
    last_success_ts,
    status: 'healthy' as const,
  });
  const coverage = {
    trade: {
      hyperliquid: { perpetual: { 'BTC-USDC': stream(40, 2000), 'ETH-USDC': stream(2, 3000) } },
      okx_derivatives: { perpetual: { 'BTC-USDT': stream(7, 1000) }, futures: { 'BTC-27DEC26': stream(0, null) } },
    },
    orderbook: { hyperliquid: { perpetual: { 'BTC-USDC': stream(0, null) } } },
  };
  assert.deepEqual(acceptedOf({ status: 'healthy', uptime: 1, checks: {}, boot: 'run', coverage }), [
    { exchange: 'hyperliquid', data_type: 'trade', rows: 42, last: 3000 },
    { exchange: 'okx_derivatives', data_type: 'trade', rows: 7, last: 1000 },
    { exchange: 'hyperliquid', data_type: 'orderbook', rows: 0, last: null },
  ]);
});

describe('files', () => {
  const dir = mkdtempSync(join(tmpdir(), 'marketprism-'));
  after(() => rmSync(dir, { recursive: true }));
  const letter = (n: number): DeadLetter => ({
    ...{
      reason: 'CANNOT_PARSE_NUMBER: x',
      subject: 'trade.okx_spot.spot.BTC-USDT',
      js_epoch: 1,
      js_seq: n,
      row: `{"n":${n}}`,
    },
  });

  test('letters are counted as they are now: rows, rows of the harvest, lines that nobody can read, files set aside', async () => {
    const counter = new LetterCounter(dir);
    assert.deepEqual(await counter.count(), { rows: 0, harvest_rows: 0, unreadable: 0, set_aside_files: 0 });
    appendDeadLetters(dir, 'trade', [letter(1), letter(2)], new Date(0));
    assert.equal((await counter.count()).rows, 2);
    appendDeadLetters(dir, 'trade', [letter(3)], new Date(0));
    const folder = join(dir, 'deadletter', 'trade');
    appendFileSync(join(folder, '1970-01-01.ndjson'), 'no letter\n');
    writeFileSync(join(folder, '1970-01-02.ndjson.bad'), 'no letter\n');
    mkdirSync(join(dir, 'deadletter', 'ofi'));
    writeFileSync(join(dir, 'deadletter', 'ofi', 'BTC-USDT_20261130_080000_2.ndjson'), '{"a":1}\n{"a":2}\n');
    assert.deepEqual(await counter.count(), { rows: 3, harvest_rows: 2, unreadable: 1, set_aside_files: 1 });
    // A replay has dealt with them.
    rmSync(join(folder, '1970-01-01.ndjson'));
    assert.equal((await counter.count()).rows, 0);
  });

  test('the outbox’s bytes are those of its segments, of each collector that writes here', () => {
    assert.equal(outboxFileBytes(dir), 0);
    for (const [i, collector] of ['a', 'b'].entries()) {
      const folder = join(dir, 'outbox', collector, 'MARKET_DATA');
      mkdirSync(folder, { recursive: true });
      writeFileSync(join(folder, '00000001.ndjson'), 'x'.repeat(100 * (i + 1)));
      writeFileSync(join(folder, 'floor.json'), '{}');
    }
    assert.equal(outboxFileBytes(dir), 300);
  });
});

describe('parts that are away', () => {
  const dir = mkdtempSync(join(tmpdir(), 'marketprism-'));
  let web: Web;
  let stranger: Server;
  let now = Date.UTC(2026, 10, 30);

  before(async () => {
    stranger = createServer((_request, response) => response.end('{"status":"healthy","uptime":"long"}'));
    await new Promise<void>((done) => stranger.listen(0, '127.0.0.1', done));
    const { port } = stranger.address() as AddressInfo;
    const away = String(await freePort());
    const env = {
      ...{
        MARKETPRISM_DATA_DIR: dir,
        CLICKHOUSE_URL: 'http://127.0.0.1:9',
        MARKETPRISM_NATS_URL: 'nats://127.0.0.1:9',
      },
      ...{
        HEALTH_CHECK_PORT: away,
        HOT_STORAGE_HTTP_PORT: String(port),
        COLD_STORAGE_HTTP_PORT: away,
        MONITOR_HTTP_PORT: away,
      },
      MARKETPRISM_EXCHANGES: 'okx_spot,hyperliquid',
    };
    web = await Web.open(env, OVERVIEW_ROUTES, {}, () => now);
  });
  after(async () => {
    await web.close();
    stranger.close();
    rmSync(dir, { recursive: true });
  });

  test('are told each with its reason in one line, and every figure of theirs is unknown rather than 0', async () => {
    const { stages, exchanges, broker, tiers, outbox, tables, measured_ms, disk } = await web.ok('/api/overview');
    const told = Object.fromEntries(
      stages.map(({ name, status, reason, rate }: Record<string, unknown>) => [name, `${status} ${reason} ${rate}`]),
    );
    assert.match(told.collector, /^away collector\.ts on port \d+ does not answer: ECONNREFUSED null$/);
    assert.match(told.store, /^away what answers on port \d+ is not store\.ts: uptime: .+ null$/);
    assert.match(told.replicate, /^away replicate\.ts on port \d+ does not answer: ECONNREFUSED null$/);
    assert.match(told.monitor, /^away monitor\.ts/);
    assert.match(told.nats, /^away the broker at .* null$/);
    assert.match(told.hot, /^away the database does not answer: ECONNREFUSED null$/);
    assert.match(told.harvester, /^degraded ofi_cvd_harvester\.ts has never run here null$/);
    assert.ok(stages.every(({ reason }: { reason: string | null }) => !reason?.includes('\n')));
    assert.deepEqual(
      exchanges.map(({ exchange, status, rate, rows, sockets }: Record<string, unknown>) => [
        exchange,
        status,
        rate,
        rows,
        sockets,
      ]),
      [
        ['okx_spot', null, null, null, null],
        ['hyperliquid', null, null, null, null],
      ],
    );
    assert.deepEqual([broker, tiers, tables], [{ streams: null, unread: null }, { hot: null, cold: null }, []]);
    assert.deepEqual([outbox.waiting_bytes, outbox.file_bytes, measured_ms], [null, 0, null]);
    assert.ok(disk.free_bytes > 0 && disk.free_bytes <= disk.size_bytes);
  });

  test('a database that is away is 503 for what only it knows; limits that cannot be read are told, too', async () => {
    for (const path of ['/api/coverage', '/api/gaps', '/api/gaps/timeline']) {
      const { status, body } = await web.get(path);
      assert.deepEqual([status, body.error], [503, 'the database at 127.0.0.1:9 does not answer: ECONNREFUSED'], path);
    }
    now += HOUR;
    mkdirSync(join(dir, 'state'), { recursive: true });
    writeFileSync(join(dir, 'state', 'thresholds.json'), '{"freshness_minutes":"soon"}');
    const { status, body } = await web.get('/api/coverage');
    assert.deepEqual([status, body.error], [500, 'state/thresholds.json is damaged: mend or remove it']);
  });

  test('wrong parameters are refused by their names', async () => {
    const wrong: [string, string][] = [
      ['/api/gaps?limit=0', 'limit'],
      ['/api/gaps?limit=1001', 'limit'],
      ['/api/gaps?from=soon', 'from'],
      ['/api/gaps?from=2000&to=1000', 'from'],
      ['/api/gaps?status=lost', 'status'],
      ['/api/gaps?exchange=nyse', 'exchange'],
      ['/api/gaps?data_type=tweet', 'data_type'],
      ['/api/gaps/timeline?buckets=5', 'buckets'],
      ['/api/gaps/timeline?limit=5', 'limit'],
      ['/api/coverage?any=1', 'any'],
    ];
    for (const [path, field] of wrong) {
      const { status, body } = await web.get(path);
      assert.deepEqual([status, body.field], [400, field], path);
    }
  });
});

describe('when a stream counts as late', () => {
  const limits = LIMITS.parse({});
  const instrument = { exchange: 'okx_spot', market_type: 'spot', symbol: 'BTC-USDT', instrument: 'BTC-USDT' } as const;

  test('is for what comes all the time what the collector says', () => {
    for (const type of ['trade', 'orderbook', 'orderbook_update'] as const) {
      const { lateMs } = cadenceOf('okx_spot', type, 'spot', limits, 10_000);
      const status = (age: number) =>
        statusOf({ type, instrument, source: 'socket', lastRowAt: 0, rows: 1 }, age, false);
      assert.deepEqual([status(lateMs!), status(lateMs! + 1)], ['healthy', 'stale'], type);
    }
    // Samples that are asked for more seldom come more seldom.
    assert.equal(cadenceOf('okx_spot', 'orderbook', 'spot', limits, 5 * MINUTE).lateMs, 15 * MINUTE);
    assert.equal(cadenceOf('okx_spot', 'orderbook', 'spot', limits, 0).lateMs, MINUTE);
  });

  test('is for readings by the steps that the venue tells them in, and never for what comes when it comes', () => {
    const late = (exchange: Exchange, type: DataType, market: MarketType) =>
      cadenceOf(exchange, type, market, limits, 0).lateMs;
    assert.equal(late('binance_derivatives', 'funding_rate', 'perpetual'), 150 * SECOND);
    // OKX tells it only when it changed.
    assert.equal(late('okx_derivatives', 'open_interest', 'perpetual'), 390 * SECOND);
    assert.equal(late('okx_derivatives', 'lsr_top_position', 'perpetual'), 750 * SECOND);
    // That of an option may rest for hours.
    assert.equal(late('okx_derivatives', 'open_interest', 'options'), null);
    assert.equal(late('binance_derivatives', 'liquidation', 'perpetual'), null);
  });

  test('some of a cell’s streams late or silent make it late, all of them silent', () => {
    const now = 10 * HOUR;
    const stream = (symbol: string, age: number) => ({
      ...{
        type: 'trade' as const,
        exchange: 'okx_spot' as const,
        market_type: 'spot' as const,
        symbol,
        newest: now - age,
      },
    });
    const cell = (...ages: number[]): CoverageCell =>
      cellOf({
        ...{
          exchange: 'okx_spot',
          type: 'trade',
          now,
          streams: ages.map((age, i) => stream(`S${i}`, age)),
          markets: ['spot'],
        },
        cadence: (market) => cadenceOf('okx_spot', 'trade', market, limits, 0),
      });
    assert.deepEqual([cell(10, 20).state, cell(10, 61_000).state, cell(10, HOUR).state], ['good', 'late', 'late']);
    assert.deepEqual([cell(HOUR, HOUR).state, cell().state], ['silent', 'never']);
    const mixed = cell(10, 61_000, HOUR);
    assert.deepEqual([mixed.streams, mixed.late_streams, mixed.silent_streams], [3, 2, 1]);
    assert.deepEqual([mixed.age_ms, mixed.oldest?.symbol, mixed.oldest?.age_ms], [10, 'S2', HOUR]);
  });
});

describe('with the engine', () => {
  const pipeline = new Pipeline({
    MARKETPRISM_EXCHANGES: EXCHANGES.join(','),
    MARKETPRISM_SYMBOLS: 'BTC-USDT,ETH-USDT',
  });
  let web: Web;
  let sequence = 0;
  /** The service's clock is ahead of the machine's by so much. */
  let ahead = 0;
  const start = Date.now();

  before(async () => {
    await pipeline.choosePorts();
    await pipeline.startDatabase();
    const config = loadConfig(pipeline.env);
    const client = pipeline.client();
    await ensureTier(client, 'hot', config.hotDatabase);
    await ensureTier(client, 'cold', config.coldDatabase);
    await ensureViews(client, config, LOG);
    web = await Web.open(pipeline.env, OVERVIEW_ROUTES, {}, () => Date.now() + ahead);
  });
  after(async () => {
    await web.close();
    await pipeline.close();
  });

  async function insert<T extends DataType>(type: T, rows: Rows[T][]): Promise<void> {
    const lines = rows.map((row) => `${encodeRow(type, row).slice(0, -1)},"js_epoch":1,"js_seq":${++sequence}}\n`);
    const table = `marketprism_hot.${TABLES[type].name}`;
    await insertLines(pipeline.client(), table, Buffer.from(lines.join('')), `test:${sequence}`);
  }

  const source = (exchange: Exchange, market_type: MarketType, symbol: string, timestamp: number): RowSource => ({
    ...{
      exchange,
      market_type,
      symbol,
      instrument: symbol,
      timestamp,
      received_at: timestamp * 1000,
      data_source: 'live',
    },
  });
  const funding = (exchange: Exchange, symbol: string, timestamp: number) => ({
    ...source(exchange, 'perpetual', symbol, timestamp),
    ...{ funding_rate: '0.0001', funding_time: null, next_funding_time: null, funding_interval_hours: '8' },
    ...{ mark_price: null, index_price: null },
  });
  const cellIn = ({ cells }: CoverageAnswer, exchange: Exchange, type: DataType) =>
    cells.find((each) => each.exchange === exchange && each.data_type === type);

  test('coverage tells the newest row of each exchange and type as the table has it, late and silent ones as the collector and the monitor do', async () => {
    const trade = (exchange: Exchange, symbol: string, age: number, id: number) =>
      sampleTrade(id, { exchange, symbol, instrument: symbol, timestamp: Date.now() - age });
    await insert('trade', [
      trade('binance_spot', 'BTC-USDT', 5 * MINUTE, 1),
      trade('binance_spot', 'BTC-USDT', 2 * SECOND, 2),
      trade('binance_spot', 'ETH-USDT', 3 * SECOND, 3),
      trade('okx_spot', 'BTC-USDT', SECOND, 4),
      trade('okx_spot', 'ETH-USDT', 2 * MINUTE, 5),
      trade('binance_derivatives', 'BTC-USDT', 20 * MINUTE, 6),
      // Older than a day, and all there is.
      trade('hyperliquid', 'BTC-USDC', 30 * HOUR, 7),
    ]);
    await insert('funding_rate', [
      funding('binance_derivatives', 'BTC-USDT', Date.now() - 30 * SECOND),
      funding('okx_derivatives', 'BTC-USDT', Date.now() - 10 * MINUTE),
      funding('deribit_derivatives', 'BTC-USD', Date.now() - 9 * HOUR),
    ]);
    const liquidation = { liquidation_id: 'a', side: 'buy' as const, price: '1', quantity: '1' };
    await insert('liquidation', [
      { ...source('okx_derivatives', 'perpetual', 'BTC-USDT', Date.now() - 20 * HOUR), ...liquidation },
    ]);
    const answer: CoverageAnswer = await web.ok('/api/coverage');
    const state = (exchange: Exchange, type: DataType) => cellIn(answer, exchange, type)?.state ?? null;
    assert.deepEqual(
      (['binance_spot', 'okx_spot', 'binance_derivatives', 'hyperliquid', 'deribit_derivatives'] as const).map((each) =>
        state(each, 'trade'),
      ),
      ['good', 'late', 'silent', 'silent', 'never'],
    );
    assert.deepEqual(
      (['binance_derivatives', 'okx_derivatives', 'deribit_derivatives', 'hyperliquid'] as const).map((each) =>
        state(each, 'funding_rate'),
      ),
      ['good', 'late', 'silent', 'never'],
    );
    // Liquidations come when they come; spot has no funding, which is no fault.
    assert.deepEqual(
      [
        state('okx_derivatives', 'liquidation'),
        state('binance_derivatives', 'liquidation'),
        state('okx_spot', 'funding_rate'),
      ],
      ['event', 'event', null],
    );
    for (const type of ['trade', 'funding_rate', 'liquidation'] as const) {
      const rows = await pipeline.query(
        `SELECT exchange, toUnixTimestamp64Milli(max(timestamp)) FROM marketprism_hot.${TABLES[type].name} GROUP BY exchange`,
      );
      for (const [exchange, newest] of rows)
        assert.equal(cellIn(answer, exchange as Exchange, type)?.newest, Number(newest), `${exchange} ${type}`);
    }
    // What the monitor's check calls silent, of what arrived in the last day.
    const client = pipeline.client();
    const config = loadConfig(pipeline.env);
    const now = Date.now();
    const limits = LIMITS.parse({});
    const { findings } = await freshness.ask({
      hot: client,
      cold: client,
      config,
      from: now - DAY,
      to: now,
      now,
      limits,
    });
    const silent = findings
      .filter(({ severity, subject }) => severity !== 'hint' && subject.includes(' '))
      .map(({ subject }) => subject.split(' ').slice(0, 2).join(' '));
    const ours = answer.cells
      .filter(({ silent_streams }) => silent_streams > 0)
      .map(({ data_type, exchange }) => `${data_type} ${exchange}`);
    assert.deepEqual(silent.sort(), ours.sort());
  });

  test('coverage follows what comes; a row that is older than the newest changes nothing', async () => {
    const newest = Date.now();
    await insert('trade', [
      sampleTrade(8, {
        exchange: 'deribit_derivatives',
        market_type: 'perpetual',
        symbol: 'BTC-USD',
        timestamp: newest,
      }),
      sampleTrade(9, {
        exchange: 'deribit_derivatives',
        market_type: 'perpetual',
        symbol: 'BTC-USD',
        timestamp: newest - MINUTE,
      }),
    ]);
    // Answers are kept for two seconds, and the whole day is looked at once a minute.
    ahead = 3 * SECOND;
    const cell = cellIn(await web.ok('/api/coverage'), 'deribit_derivatives', 'trade');
    assert.deepEqual([cell?.state, cell?.newest, cell?.streams], ['good', newest, 1]);
    // What was filled of the past is no newer than the newest that is seen every few seconds: it is found once a minute.
    const past = Date.now() - 8 * MINUTE;
    await insert('trade', [sampleTrade(10, { exchange: 'binance_derivatives', symbol: 'BTC-USDT', timestamp: past })]);
    ahead = 70 * SECOND;
    assert.equal(cellIn(await web.ok('/api/coverage'), 'binance_derivatives', 'trade')?.newest, past);
    ahead = 10 * MINUTE;
    assert.deepEqual(cellIn(await web.ok('/api/coverage'), 'deribit_derivatives', 'trade')?.state, 'silent');
    ahead = 0;
  });

  test('what is asked for is what the exchanges’ modules subscribe to and poll', () => {
    const asked = askedTypes(loadConfig(pipeline.env));
    const types = (exchange: Exchange) => [...(asked.get(exchange)?.keys() ?? [])].sort();
    assert.deepEqual(types('binance_spot'), ['orderbook', 'orderbook_update', 'trade']);
    assert.deepEqual(types('okx_derivatives'), [
      ...['funding_rate', 'liquidation', 'lsr_all_account', 'lsr_top_position', 'open_interest'],
      ...['orderbook', 'orderbook_update', 'trade'],
    ]);
    assert.ok(types('deribit_derivatives').includes('volatility_index'));
    assert.ok(!types('hyperliquid').includes('liquidation'));
  });

  describe('gaps', () => {
    /** All states of all gaps, in the order in which they were told. */
    const told: GapRow[] = [];
    const MOST = 2500;
    const random = seededRandom(5);
    const pick = <T>(list: readonly T[]): T => list[Math.floor(random() * list.length)]!;

    const gap = (n: number, change: Partial<GapRow>): GapRow => {
      const from = start - Math.floor(random() * 3 * DAY);
      const exchange = pick(['binance_spot', 'okx_derivatives', 'deribit_derivatives'] as const);
      const to = from + Math.floor(random() * random() * 2 * HOUR);
      return {
        ...source(exchange, 'perpetual', pick(['BTC-USDT', 'ETH-USDT', 'SOL-USDT']), from),
        ...{
          gap_id: `gap-${n}`,
          data_type: pick(['trade', 'orderbook_update', 'liquidation']),
          from_id: String(n),
          to_id: String(n + 3),
        },
        ...{
          from_time: from,
          to_time: to,
          cause: pick(['outage', 'missing_ids', 'downtime']),
          reason: null,
          status: 'open',
        },
        ...{ rows: random() < 0.2 ? null : 1 + Math.floor(random() * 100), filled_rows: null },
        ...{ detected_at: to + 40_000, closed_at: null },
        ...change,
      };
    };

    before(async () => {
      for (let n = 0; n < MOST; n += 1) {
        const opened = gap(n, {});
        told.push(opened);
        const end = random();
        if (end < 0.6)
          told.push({
            ...opened,
            status: 'filled',
            filled_rows: opened.rows,
            closed_at: start,
            reason: 'all are there',
          });
        else if (end < 0.7)
          told.push({
            ...opened,
            status: 'unfillable',
            filled_rows: opened.rows === null ? null : 0,
            closed_at: start,
          });
        else if (end < 0.8 && opened.rows !== null)
          told.push({ ...opened, filled_rows: Math.floor(Number(opened.rows) / 2) });
        // What a collector says of the venue's history may come after the rows came another way.
        if (end < 0.1) told.push({ ...opened, status: 'unfillable', filled_rows: null, closed_at: start });
      }
      // One that began before the day and reaches into it, and two that only touch its ends.
      told.push(
        gap(MOST, { timestamp: start - 2 * DAY, from_time: start - 2 * DAY, to_time: start - HOUR, rows: 7 }),
        gap(MOST + 1, { timestamp: start - DAY, from_time: start - DAY - 1000, to_time: start - DAY - 1, rows: 7 }),
        gap(MOST + 2, { timestamp: start, from_time: start, to_time: start + 1000, rows: 7 }),
      );
      await insert('gap', told);
    });

    /** The present states of gaps within a time, by a reader that knows nothing of ours. */
    function naive(from: number, to: number): GapRow[] {
      const states = new Map<string, GapRow>();
      for (const row of told) {
        const key = `${row.exchange} ${row.symbol} ${row.gap_id}`;
        if (states.get(key)?.status !== 'filled') states.set(key, row);
      }
      return [...states.values()].filter((each) => each.to_time >= from && each.from_time < to);
    }
    const missingOf = ({ status, rows, filled_rows }: GapRow) =>
      rows === null ? null : status === 'filled' ? 0 : Number(rows) - Number(filled_rows ?? 0);
    const sum = (rows: GapRow[], of: (row: GapRow) => number | null) =>
      rows.reduce((total, each) => total + (of(each) ?? 0), 0);
    const countsOf = (rows: GapRow[]) => ({
      gaps: rows.length,
      rows: sum(rows, ({ rows: own }) => (own === null ? null : Number(own))),
      missing_rows: sum(rows, missingOf),
      uncounted: rows.filter(({ rows: own }) => own === null).length,
    });
    const [from, to] = [start - DAY, start];
    const span = `from=${from}&to=${to}`;

    test('are each in its present state, counted by it, with what is missing as far as it is known', async () => {
      const all = naive(from, to);
      const answer: GapsAnswer = await web.ok(`/api/gaps?${span}&limit=1000`);
      assert.equal(answer.total, all.length);
      for (const status of ['open', 'filled', 'unfillable'] as const)
        assert.deepEqual(answer.counts[status], countsOf(all.filter((each) => each.status === status)), status);
      const byId = new Map(all.map((each) => [each.gap_id, each]));
      for (const shown of answer.gaps) {
        const { status, rows, filled_rows, cause, reason, closed_at, from_time } = byId.get(shown.gap_id)!;
        assert.deepEqual(
          [
            shown.status,
            shown.rows,
            shown.filled_rows,
            shown.missing_rows,
            shown.cause,
            shown.reason,
            shown.closed_at,
            shown.from_time,
          ],
          [status, rows, filled_rows, missingOf(byId.get(shown.gap_id)!), cause, reason, closed_at, from_time],
        );
      }
    });

    test('come page by page, the newest first, each once', async () => {
      const ids: string[] = [];
      const times: number[] = [];
      for (let offset = 0; ; offset += 300) {
        const { gaps, total }: GapsAnswer = await web.ok(`/api/gaps?${span}&limit=300&offset=${offset}`);
        ids.push(...gaps.map((each) => each.gap_id));
        times.push(...gaps.map((each) => each.from_time));
        if (offset + 300 >= total) break;
      }
      assert.deepEqual(
        [...ids].sort(),
        naive(from, to)
          .map((each) => each.gap_id)
          .sort(),
      );
      assert.deepEqual(
        times,
        [...times].sort((one, other) => other - one),
      );
      const open: GapsAnswer = await web.ok(`/api/gaps?${span}&status=open&exchange=okx_derivatives&data_type=trade`);
      const wanted = naive(from, to).filter(
        (each) => each.status === 'open' && each.exchange === 'okx_derivatives' && each.data_type === 'trade',
      );
      assert.deepEqual([open.total, open.counts.open.gaps, open.counts.filled.gaps], [wanted.length, wanted.length, 0]);
    });

    test('are few marks on the time line, of which none hides a gap', async () => {
      const all = naive(from, to);
      const { marks, total, counts, bucket_ms }: TimelineAnswer = await web.ok(`/api/gaps/timeline?${span}&buckets=12`);
      assert.deepEqual([total, bucket_ms], [all.length, 2 * HOUR]);
      assert.equal(
        marks.reduce((count, each) => count + each.gaps, 0),
        all.length,
      );
      assert.ok(
        marks.length < all.length / 2 && marks.some(({ gaps }) => gaps > 1),
        `${marks.length} marks of ${all.length}`,
      );
      for (const status of ['open', 'filled', 'unfillable'] as const)
        assert.deepEqual(counts[status], countsOf(all.filter((each) => each.status === status)), status);
      for (const mark of marks) {
        const own = all.filter(
          (each) =>
            each.exchange === mark.exchange &&
            each.data_type === mark.data_type &&
            each.status === mark.status &&
            Math.floor((Math.max(each.from_time, from) - from) / bucket_ms) ===
              Math.floor((mark.from - from) / bucket_ms),
        );
        assert.deepEqual(
          [mark.gaps, mark.rows, mark.missing_rows, mark.uncounted],
          Object.values(countsOf(own)),
          JSON.stringify(mark),
        );
        assert.equal(mark.from, Math.max(from, Math.min(...own.map((each) => each.from_time))));
        assert.equal(mark.to, Math.min(to, Math.max(...own.map((each) => each.to_time))));
        assert.equal(mark.symbols, new Set(own.map(({ symbol }) => symbol)).size);
      }
      // What began before is at the beginning.
      assert.ok(marks.some((mark) => mark.from === from && mark.to >= start - HOUR));
    });
  });
});
