/** integrity.ts as an operator runs it: nothing to say of clean data, and each kind of defect found by its own check. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { DiscardPolicy } from 'nats';
import { severityOfCompleteness } from '../scripts/lib/checks/check.ts';
import type { Coverage } from '../scripts/lib/checks/coverage.ts';
import { judgeRoom, type Room } from '../scripts/lib/checks/disk.ts';
import { LIMITS, writeLimits } from '../scripts/lib/checks/limits.ts';
import { waitFor } from '../scripts/lib/processes.ts';
import { Pipeline, READY_MS } from './pipeline.ts';

const INTEGRITY = join(import.meta.dirname, '../scripts/integrity.ts');

interface Line {
  name: string;
  verdict: string;
  figure: string;
  findings: { subject: string; what: string; severity: string; evidence: string }[];
}

/** The market rests while all of this is asked, which takes minutes where other tests run beside it. */
const RESTING = { freshness_minutes: 15 };

describe('integrity.ts', () => {
  const pipeline = new Pipeline({
    // A gap that is made by hand here must not be told again by the store before it is taken away.
    MARKETPRISM_GAP_AGE: '10s',
    MARKETPRISM_EXCHANGES: 'binance_spot,binance_derivatives,okx_spot',
  });
  before(async () => {
    await pipeline.startAll();
    writeLimits(pipeline.dir, LIMITS.parse(RESTING));
    await waitFor('trades in cold', READY_MS, async () => (await count('marketprism_cold.trades')) > 2000);
    await pipeline.simulate({ action: 'stop' });
    await pipeline.drained();
    await replicated();
  });
  after(() => pipeline.close());

  const count = async (table: string) => Number((await pipeline.query(`SELECT count() FROM ${table}`))[0]![0]);
  /** Whatever hot has is in cold. */
  const replicated = () =>
    waitFor(
      'replication',
      READY_MS,
      async () => (await count('marketprism_hot.trades')) === (await count('marketprism_cold.trades')),
    );

  async function integrity(args: readonly string[], env: NodeJS.ProcessEnv = {}) {
    const child = spawn(process.execPath, ['--import', 'tsx', INTEGRITY, ...args], {
      env: { ...pipeline.operatorEnv, ...env },
    });
    let [output, errors] = ['', ''];
    child.stdout.on('data', (chunk: Buffer) => (output += chunk));
    child.stderr.on('data', (chunk: Buffer) => (errors += chunk));
    const code = await new Promise<number | null>((done) => child.once('close', done));
    return { code, output, errors };
  }

  async function ask(env: NodeJS.ProcessEnv = {}, ...args: string[]) {
    const { code, output, errors } = await integrity(['--json', ...args], env);
    const lines = output
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line));
    const whole = lines.pop() as { status: string; exit_code: number };
    assert.equal(whole.exit_code, code, errors);
    return { code, checks: lines as Line[], output };
  }

  /**
   * What is wrong, as `check severity subject: what`; hints apart, and candles: whether there is a whole minute to be compared with them depends on when
   * this began (`candles.test.ts`); and that the collector has nothing to receive from a market that rests.
   */
  const wrong = (checks: Line[]) =>
    checks.flatMap(({ name, findings }) =>
      findings
        .filter(({ severity, subject }) => severity !== 'hint' && subject !== 'collector' && name !== 'candles')
        .map(({ subject, what, severity }) => `${name} ${severity} ${subject}: ${what}`),
    );

  test('finds nothing in clean data', async () => {
    const { code, checks, output } = await ask();
    assert.deepEqual([wrong(checks), code], [[], 0], output);
    const others = checks.filter(({ name, verdict }) => verdict !== 'healthy' && name !== 'candles');
    // There is no earlier day to compare with.
    assert.deepEqual(
      others.map(({ name, verdict }) => [name, verdict]),
      [
        ['trend', 'not applicable'],
        ['volume', 'not applicable'],
        ['series', 'not applicable'],
      ],
    );
    assert.equal(checks.length, 18);
    const { code: same, output: text } = await integrity(['--detailed-report', join(pipeline.dir, 'report.json')]);
    assert.equal(same, 0);
    assert.match(text, /\nhealthy +duplicates +\d{4,} rows +\(limit: 0\)\n[\s\S]*: healthy\n$/);
    const report = JSON.parse(readFileSync(join(pipeline.dir, 'report.json'), 'utf8'));
    assert.deepEqual([report.status, report.checks.length], ['healthy', 18]);
    // The coverage table tells what is there, and the same as the database.
    const trades = report.coverage.find((each: Coverage) => each.data_type === 'trade' && each.exchange === 'okx_spot');
    const stored = Number((await pipeline.query(`SELECT count() FROM ${TRADES} WHERE exchange = 'okx_spot'`))[0]![0]);
    assert.deepEqual([trades.hot, trades.cold, trades.missing, trades.completeness], [stored, stored, 0, 100]);
    assert.match(text, new RegExp(`\nokx_spot +spot +trade +${stored} +${stored} +0 +100 %`));
  });

  const run = (query: string) => pipeline.client().command({ query });
  const TRADES = 'marketprism_hot.trades';
  const BTC = "exchange = 'binance_spot' AND symbol = 'BTC-USDT'";
  const subject = 'trade binance_spot spot BTC-USDT';
  /** Puts a changed copy of one row in, under a trade id of its own. */
  const strange = (table: string, replaced: string) =>
    run(
      `INSERT INTO ${table} SELECT * REPLACE(${replaced}) FROM (SELECT * FROM ${table} WHERE ${BTC} ORDER BY timestamp DESC LIMIT 1)`,
    );
  const aside = (table: string) => run(`CREATE TABLE ${table}_aside ENGINE = Memory AS SELECT * FROM ${table}`);
  async function back(table: string): Promise<void> {
    await run(`TRUNCATE TABLE ${table}`);
    await run(`INSERT INTO ${table} SELECT * FROM ${table}_aside`);
    await run(`DROP TABLE ${table}_aside`);
  }

  /** One defect each, made in a copy of the clean data; all findings that it must give, and the exit code. */
  const DEFECTS: { name: string; table: string; make(): Promise<unknown>; verdict: string; found: RegExp[] }[] = [
    {
      name: 'a part of cold that is gone',
      table: 'marketprism_cold.trades',
      make: () => run(`DELETE FROM marketprism_cold.trades WHERE ${BTC} AND cityHash64(trade_id) % 2 = 0`),
      verdict: 'unhealthy',
      found: [new RegExp(`^hot against cold (high|critical) ${subject}: cold lacks \\d+ of \\d+ rows$`)],
    },
    {
      name: 'rows that are twice in hot',
      table: TRADES,
      make: () => run(`INSERT INTO ${TRADES} SELECT * FROM ${TRADES} WHERE ${BTC} LIMIT 7`),
      verdict: 'unhealthy',
      found: [
        new RegExp(`^duplicates high ${subject}: 7 rows too many in marketprism_hot$`),
        new RegExp(`^hot against cold low ${subject}: cold lacks 7 of \\d+ rows$`),
      ],
    },
    {
      name: 'another price in cold',
      table: 'marketprism_cold.trades',
      make: async () => {
        await strange('marketprism_cold.trades', 'price + 0.01 AS price, 0 AS js_seq');
        const [[id] = []] = await pipeline.query('SELECT trade_id FROM marketprism_cold.trades WHERE js_seq = 0');
        await run(`DELETE FROM marketprism_cold.trades WHERE ${BTC} AND trade_id = '${id}' AND js_seq != 0`);
      },
      verdict: 'unhealthy',
      found: [new RegExp(`^hot against cold high ${subject}: \\d+ rows in both, with other values$`)],
    },
    {
      name: 'a crossed book',
      table: 'marketprism_hot.orderbooks',
      make: () =>
        strange(
          'marketprism_hot.orderbooks',
          'best_ask_price AS best_bid_price, best_bid_price AS best_ask_price, 7 AS last_update_id',
        ),
      verdict: 'unhealthy',
      found: [
        /^hot against cold \w+ orderbook binance_spot spot BTC-USDT: cold lacks 1 of/,
        /^values high orderbook binance_spot spot BTC-USDT: 1 row with a best bid that is not below the best ask/,
      ],
    },
    {
      name: 'a price of zero',
      table: TRADES,
      make: () => strange(TRADES, "0 AS price, '' AS trade_id"),
      verdict: 'unhealthy',
      found: [
        /^hot against cold low/,
        new RegExp(`^values high ${subject}: 1 row with a price that is not above zero$`),
        new RegExp(`^values medium ${subject}: 1 price more than 5 % from the minute's median$`),
      ],
    },
    {
      name: 'a time that is still to come',
      table: TRADES,
      make: () => strange(TRADES, "timestamp + INTERVAL 2 HOUR AS timestamp, '' AS trade_id"),
      verdict: 'unhealthy',
      found: [new RegExp(`^values high ${subject}: 1 row with a time that was still to come when it was stored$`)],
    },
    {
      name: 'a column of zeros',
      table: 'marketprism_hot.lsr_all_accounts',
      make: () =>
        run(
          "ALTER TABLE marketprism_hot.lsr_all_accounts UPDATE long_short_ratio = 0 WHERE symbol = 'BTC-USDT' SETTINGS mutations_sync = 2",
        ),
      verdict: 'unhealthy',
      found: [
        /^hot against cold high lsr_all_account .* BTC-USDT: \d+ rows? in both, with other values$/,
        /^values high lsr_all_account .* BTC-USDT: long_short_ratio is zero in all \d+ rows$/,
      ],
    },
    {
      name: 'a stream whose prices are those of something else',
      table: TRADES,
      make: () => run(`ALTER TABLE ${TRADES} UPDATE price = price * 100 WHERE ${BTC} SETTINGS mutations_sync = 2`),
      verdict: 'unhealthy',
      found: [
        new RegExp(`^hot against cold high ${subject}: \\d+ rows in both, with other values$`),
        new RegExp(
          `^values high ${subject}: \\d+ minutes? in which its median is more than 5 % from that of all venues$`,
        ),
      ],
    },
    {
      name: 'a stream that went silent',
      table: TRADES,
      make: () => strange(TRADES, "'OLD-USDT' AS symbol, timestamp - INTERVAL 30 MINUTE AS timestamp"),
      verdict: 'unhealthy',
      found: [
        /^freshness high trade binance_spot spot OLD-USDT: the newest is [34]\d\.\d min old$/,
        /^hot against cold critical trade binance_spot spot OLD-USDT: cold lacks 1 of 1 rows$/,
      ],
    },
    {
      name: 'a row that was stored late',
      table: TRADES,
      make: () => strange(TRADES, "received_at - INTERVAL 40 MINUTE AS received_at, '' AS trade_id"),
      verdict: 'degraded',
      found: [
        new RegExp(`^storage delay medium ${subject}: up to 40 min$`),
        new RegExp(`^hot against cold low ${subject}: cold lacks 1 of \\d+ rows$`),
      ],
    },
    {
      name: 'a gap that nobody fills',
      table: 'marketprism_hot.gaps',
      make: () =>
        run(
          `INSERT INTO marketprism_hot.gaps SELECT timestamp, exchange, market_type, symbol, instrument, 'x' AS gap_id, 'trade' AS data_type, '5' AS from_id, '7' AS to_id, timestamp AS from_time, timestamp AS to_time, 'missing_ids' AS cause, NULL AS reason, 'open' AS status, 3 AS rows, NULL AS filled_rows, now64(3) - INTERVAL 20 MINUTE AS detected_at, NULL AS closed_at, received_at, created_at, data_source, js_epoch, js_seq FROM ${TRADES} WHERE ${BTC} ORDER BY timestamp DESC LIMIT 1`,
        ),
      verdict: 'degraded',
      found: [new RegExp(`^gaps medium ${subject}: 3 rows, open for 20 min$`)],
    },
    {
      name: 'far fewer rows than the day before',
      table: 'marketprism_cold.trades',
      make: () =>
        run(
          `INSERT INTO marketprism_cold.trades SELECT * REPLACE (timestamp - INTERVAL 1 DAY AS timestamp, concat(trade_id, '-', toString(n)) AS trade_id) FROM marketprism_cold.trades ARRAY JOIN range(12) AS n WHERE ${BTC}`,
        ),
      verdict: 'degraded',
      found: [new RegExp(`^volume medium ${subject}: \\d+ rows, where 1 earlier day had \\d{4} in the median$`)],
    },
    {
      name: 'shares that do not add to 1',
      table: 'marketprism_hot.lsr_all_accounts',
      make: () =>
        run(
          "ALTER TABLE marketprism_hot.lsr_all_accounts UPDATE long_account_ratio = short_account_ratio + 0.5 WHERE symbol = 'BTC-USDT' SETTINGS mutations_sync = 2",
        ),
      verdict: 'unhealthy',
      found: [
        /^hot against cold high lsr_all_account .* BTC-USDT: \d+ rows? in both, with other values$/,
        /^values medium lsr_all_account .* BTC-USDT: \d+ rows? with shares that do not add to 1$/,
      ],
    },
    {
      name: 'a column that says nothing any more',
      table: 'marketprism_cold.trades',
      make: () =>
        run(
          `INSERT INTO marketprism_cold.trades SELECT * REPLACE (timestamp - INTERVAL 1 DAY AS timestamp, concat(trade_id, '-') AS trade_id, 5 AS sequence) FROM marketprism_cold.trades WHERE ${BTC}`,
        ),
      verdict: 'degraded',
      found: [
        new RegExp(
          `^values medium ${subject}: sequence is empty in all \\d+ rows, and was told \\d+ times in the week before$`,
        ),
      ],
    },
    {
      name: 'replication that stands still',
      table: TRADES,
      make: async () => {
        await strange(
          TRADES,
          "js_seq + 1000000 AS js_seq, timestamp - INTERVAL 3 HOUR AS timestamp, now64(3) - INTERVAL 2 HOUR AS created_at, '' AS trade_id",
        );
        // It looks every few seconds.
        await waitFor(
          'replication to notice',
          READY_MS,
          async () => (await pipeline.health('replicate'))?.status === 'degraded',
        );
      },
      verdict: 'degraded',
      found: [
        /^services low replicate: degraded: trades: 120 minutes behind$/,
        /^hot against cold medium replication: 120 min behind$/,
      ],
    },
    {
      name: 'trades that hot lost',
      table: TRADES,
      make: async () => {
        // A hole beside younger rows is the store's own to declare.
        const young = 'SELECT count() FROM marketprism_hot.trades WHERE created_at > now64(3) - INTERVAL 60 SECOND';
        await waitFor('old rows', READY_MS, async () => (await pipeline.query(young))[0]![0] === '0');
        const chosen = `SELECT trade_id FROM ${TRADES} WHERE ${BTC} ORDER BY toUInt64(trade_id) LIMIT 20 OFFSET 50`;
        const ids = (await pipeline.query(chosen)).map(([id]) => id!);
        // A gap that was there and was filled declares nothing of what was lost since.
        await run(
          `INSERT INTO marketprism_hot.gaps SELECT timestamp, exchange, market_type, symbol, instrument, 'y' AS gap_id, 'trade' AS data_type, '${ids[0]}' AS from_id, '${ids[19]}' AS to_id, timestamp AS from_time, timestamp AS to_time, 'missing_ids' AS cause, NULL AS reason, 'filled' AS status, 20 AS rows, 20 AS filled_rows, timestamp AS detected_at, timestamp AS closed_at, received_at, now64(3) AS created_at, data_source, 1000 AS js_epoch, js_seq FROM ${TRADES} WHERE ${BTC} ORDER BY timestamp DESC LIMIT 1`,
        );
        await run(`DELETE FROM ${TRADES} WHERE ${BTC} AND trade_id IN (${ids.map((id) => `'${id}'`).join(', ')})`);
      },
      verdict: 'degraded',
      found: [
        new RegExp(`^continuity (low|medium) ${subject}: 20 rows from \\d+ to \\d+ are missing, and nobody said so$`),
        new RegExp(`^hot against cold (low|medium) ${subject}: hot lacks 20 of \\d+ rows$`),
      ],
    },
  ];

  for (const { name, table, make, verdict, found } of DEFECTS) {
    test(`finds ${name}, and nothing else`, async (context) => {
      await aside(table);
      await make();
      const { checks, output } = await ask();
      await back(table);
      await run("DELETE FROM marketprism_hot.gaps WHERE gap_id = 'y'");
      await waitFor(
        'replication to be well',
        READY_MS,
        async () => (await pipeline.health('replicate'))?.status === 'healthy',
      );
      const told = wrong(checks);
      for (const line of told) context.diagnostic(line);
      assert.equal(told.length, found.length, `${told.join('\n')}\n${output}`);
      for (const [place, pattern] of found.entries()) assert.match(told[place]!, pattern);
      const named = checks.filter(({ name: each }) => each !== 'services').map((each) => each.verdict);
      assert.equal(
        named.includes('unhealthy')
          ? 'unhealthy'
          : named.find((each) => each !== 'healthy' && each !== 'not applicable'),
        verdict,
        told.join('\n'),
      );
    });
  }

  test('finds a foreign column, a consumer that is gone, a dead letter, and a service that does not answer', async () => {
    await run('ALTER TABLE marketprism_hot.gaps ADD COLUMN more UInt8');
    const letters = join(pipeline.dir, 'deadletter', 'trade');
    mkdirSync(letters, { recursive: true });
    writeFileSync(join(letters, '2026-01-01.ndjson'), 'torn\n');
    await pipeline.stop('replicate');
    await pipeline.stop('store');
    const nats = await pipeline.nats();
    const manager = await nats.jetstreamManager();
    await manager.consumers.delete('MARKET_DATA', 'store_trade');
    await manager.consumers.update('MARKET_DATA', 'store_gap', { max_ack_pending: 7 });
    const { config } = await manager.streams.info('ORDERBOOK_SNAP');
    await manager.streams.update('ORDERBOOK_SNAP', {
      ...config,
      max_age: config.max_age / 2,
      discard: DiscardPolicy.New,
    });
    for (let i = 0; i < 3; i += 1)
      await nats
        .jetstream()
        .publish('orderbook.binance_spot.spot.BTC-USDT', '{}', { expect: { streamName: 'ORDERBOOK_SNAP' } });
    await nats.close();
    writeLimits(pipeline.dir, LIMITS.parse({ ...RESTING, pending_messages: 2, engine_memory_mib: 300 }));
    const { code, checks } = await ask();
    writeLimits(pipeline.dir, LIMITS.parse(RESTING));
    await run('ALTER TABLE marketprism_hot.gaps DROP COLUMN more');
    rmSync(letters, { recursive: true });
    const told = wrong(checks);
    assert.equal(code, 2);
    for (const pattern of [
      /^services critical store: does not answer: ECONNREFUSED$/,
      /^services critical replicate: does not answer: ECONNREFUSED$/,
      /^schema high marketprism_hot\.gaps: has `more` UInt8$/,
      /^streams critical MARKET_DATA store_trade: is not there/,
      /^streams high MARKET_DATA store_gap: max_ack_pending is 7$/,
      /^streams high ORDERBOOK_SNAP: discard is "new", max_age is \d+$/,
      /^streams medium ORDERBOOK_SNAP store_orderbook: 3 messages wait$/,
      /^processes medium clickhouse_embedded: \d+ MiB, limit 300$/,
      /^dead letters high \S+2026-01-01\.ndjson: 1 line that nobody can read$/,
    ])
      assert.equal(told.filter((line) => pattern.test(line)).length, 1, `${pattern} in\n${told.join('\n')}`);
    assert.equal(told.length, 9, told.join('\n'));
  });

  test('finds an exchange of which nothing comes', async () => {
    const { checks } = await ask({ MARKETPRISM_EXCHANGES: 'binance_spot,hyperliquid' });
    const { findings } = checks.find(({ name }) => name === 'freshness')!;
    assert.deepEqual(
      findings.map(({ subject: each, what, severity }) => [each, what, severity]),
      [['hyperliquid', 'no row of it arrived in the last 24 h', 'critical']],
    );
  });

  test('finds completeness that declines over the days', async () => {
    const days = (table: string, columns: string, where: string) =>
      run(`INSERT INTO ${table} SELECT * REPLACE (${columns}) FROM (${where})`);
    await aside('marketprism_cold.trades');
    // The newest: others may be those that were just put in, of another month.
    const each = `SELECT * FROM marketprism_cold.trades WHERE ${BTC} ORDER BY timestamp DESC LIMIT 10`;
    for (let day = 1; day <= 8; day += 1)
      await days(
        'marketprism_cold.trades',
        `timestamp - INTERVAL ${day} DAY AS timestamp, concat(trade_id, '-${day}') AS trade_id`,
        each,
      );
    // Of the last three days, 20 of 30 rows are missing.
    for (let day = 0; day < 3; day += 1)
      await run(
        `INSERT INTO marketprism_hot.gaps SELECT timestamp, exchange, market_type, symbol, instrument, 'trend${day}' AS gap_id, 'trade' AS data_type, '5' AS from_id, '7' AS to_id, timestamp - INTERVAL ${day} DAY AS from_time, from_time AS to_time, 'missing_ids' AS cause, NULL AS reason, 'unfillable' AS status, ${day === 0 ? 2000 : 20} AS rows, NULL AS filled_rows, now64(3) AS detected_at, NULL AS closed_at, received_at, created_at, data_source, js_epoch, js_seq FROM ${TRADES} WHERE ${BTC} ORDER BY timestamp DESC LIMIT 1`,
      );
    const { checks } = await ask({}, '--deep');
    const quick = (await ask()).checks.find(({ name }) => name === 'trend')!;
    await back('marketprism_cold.trades');
    await run("DELETE FROM marketprism_hot.gaps WHERE gap_id LIKE 'trend%'");
    assert.equal(quick.verdict, 'not applicable');
    const { findings, verdict } = checks.find(({ name }) => name === 'trend')!;
    assert.equal(verdict, 'degraded');
    assert.deepEqual(
      findings.map(({ subject: stream }) => stream),
      ['trade binance_spot spot'],
    );
    assert.match(findings[0]!.what, /^\d\d\.\d % in the last 3 days, \d\d\.\d % in all 9$/);
  });

  test('what could not be asked is never healthy', async () => {
    await pipeline.stop('nats-server');
    const { code, checks } = await ask();
    const streams = checks.find(({ name }) => name === 'streams')!;
    assert.equal(streams.verdict, 'unchecked');
    assert.match(streams.figure, /^the broker at nats:\S+ cannot be reached: /);
    assert.equal(code, 3);
  });

  test('a time that hot does not reach back to has no cold to be compared with; a wrong flag is one clear line', async () => {
    const { checks } = await ask({}, '--from', '2026-01-01', '--to', '2026-01-02T03:00:00Z');
    assert.equal(checks.find(({ name }) => name === 'hot against cold')!.verdict, 'not applicable');
    for (const [args, line] of [
      [['--full', '--deep'], /^--quick, --full, --deep and --from --to exclude each other\n$/],
      [['--from', '2026-01-01'], /^--from and --to come together\n$/],
      [['--from', 'soon', '--to', '2026-01-01'], /^--from takes a time such as .*, not "soon"\n$/],
    ] as const) {
      const { code, errors } = await integrity(args);
      assert.deepEqual([code, line.test(errors)], [64, true], errors);
    }
  });
});

test('room is judged by what is free, by inodes, and by how long it lasts', () => {
  const room = { free: 50e9, size: 100e9, freeInodes: 90, inodes: 100, growth: null };
  const told = (changed: Partial<Room>) =>
    judgeRoom('data', { ...room, ...changed }).findings.map(({ kind, severity, what }) => [kind, severity, what]);
  assert.deepEqual(told({}), []);
  assert.deepEqual(told({ free: 15e9 }), [['full', 'low', '15 % free']]);
  assert.deepEqual(told({ free: 9e9 }), [['full', 'high', '9 % free']]);
  assert.deepEqual(told({ freeInodes: 4 }), [['inodes', 'high', '4.0 % of inodes free']]);
  assert.deepEqual(told({ freeInodes: 0, inodes: 0 }), []);
  assert.deepEqual(told({ growth: { perDay: 5e9, free: 100e9 } }), []);
  assert.deepEqual(told({ growth: { perDay: 5e9, free: 50e9 } }), [
    ['days_left', 'low', '10.0 days left at 5.00 GB a day'],
  ]);
  assert.deepEqual(told({ growth: { perDay: 50e9, free: 50e9 } }), [
    ['days_left', 'high', '1.0 days left at 50.0 GB a day'],
  ]);
});

test('completeness has a severity', () => {
  assert.deepEqual([100, 95, 94.9, 80, 79.9, 50, 49.9, 0].map(severityOfCompleteness), [
    'low',
    'low',
    'medium',
    'medium',
    'high',
    'high',
    'critical',
    'critical',
  ]);
});
