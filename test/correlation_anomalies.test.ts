/** Anomalies beyond the rule: the book that keeps them over the end of its process, and the command that reads candles and tells them. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, test } from 'node:test';
import { loadConfig } from '../scripts/lib/config.ts';
import { ALERTS_FILE, AlertBook, STATE_FILE } from '../scripts/lib/correlation/alert_book.ts';
import { askedRows, follow } from '../scripts/lib/correlation/alerts.ts';
import { barsOf } from '../scripts/lib/correlation/periods.ts';
import { judge } from '../scripts/lib/correlation/rule.ts';
import { STDIN_CANDLE, StdinCorrelations } from '../scripts/lib/correlation/stdin.ts';
import { createLogger } from '../scripts/lib/log.ts';
import { END, following, LIMITS, noise, priceOf, row } from './correlation_series.ts';

describe('the book of anomalies', () => {
  const listing = { exchange: 'hyperliquid', coin: 'C', symbol: 'C-USDC' };
  const rows = [row({ corr: 0.1 }), row({ corr: 0.9, period: '7d' })];
  const { standing, event } = follow({}, listing, rows, judge(rows, LIMITS), askedRows(['5m'], ['1d', '7d']));
  let dir: string;
  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), 'marketprism-book-'));
  });
  afterEach(() => rmSync(dir, { recursive: true, force: true }));
  const open = () =>
    AlertBook.open({
      config: loadConfig({ MARKETPRISM_DATA_DIR: dir }),
      log: createLogger('test', 'silent'),
      clock: () => END,
    });
  const statePath = () => join(dir, STATE_FILE);
  const state = () => JSON.parse(readFileSync(statePath(), 'utf8'));
  const written = () => readFileSync(join(dir, ALERTS_FILE), 'utf8').split('\n').filter(Boolean);
  /** A process that had its round, and ended. */
  async function life(): Promise<AlertBook> {
    const book = await open();
    book.take(standing, [event!]);
    book.ran({ data_time: END }, []);
    book.close();
    return book;
  }

  test('has an event in its state before it is in the file: killed in between, it is written once all the same', async () => {
    await life();
    writeFileSync(statePath(), JSON.stringify({ ...state(), unwritten: [event] }));
    writeFileSync(join(dir, ALERTS_FILE), '');
    const book = await open();
    assert.deepEqual(book.standing, standing);
    book.take(book.standing, []);
    book.take(book.standing, []);
    book.close();
    assert.deepEqual(written(), [JSON.stringify(event)]);
    assert.deepEqual([state().unwritten, state().untold.length], [[], 1]);
  });

  test('with an older state finds what the file has, and tells it; without any, knows what stands and tells nobody again', async () => {
    await life();
    writeFileSync(
      statePath(),
      JSON.stringify({ ...state(), data_time: END - 300_000, standing: {}, unwritten: [], untold: [] }),
    );
    const older = await open();
    assert.deepEqual(older.standing, standing);
    older.take(older.standing, []);
    older.ran({ data_time: END }, []);
    older.close();
    assert.deepEqual([written().length, state().untold.length], [1, 1]);
    rmSync(statePath());
    const none = await open();
    assert.deepEqual(none.standing, standing);
    none.ran({ data_time: END }, []);
    none.close();
    assert.deepEqual([written().length, state().untold], [1, []]);
  });

  test('a state that cannot be read is one line', async () => {
    await life();
    writeFileSync(statePath(), '{"data_time":');
    await assert.rejects(open, /correlation_alert\.json: .*: mend or remove it$/);
    writeFileSync(statePath(), '{"data_time":5}');
    await assert.rejects(open, /correlation_alert\.json: last_run: .*: mend or remove it$/);
  });
});

describe('correlation_alert.ts --stdin', () => {
  const script = join(import.meta.dirname, '..', 'scripts', 'correlation_alert.ts');
  const run = (input: string, args: string[] = [], env: NodeJS.ProcessEnv = {}) => {
    const { status, stdout, stderr } = spawnSync(
      process.execPath,
      ['--import', 'tsx', script, ...(args.includes('--help') ? args : ['--stdin', ...args])],
      { input, encoding: 'utf8', env: { PATH: process.env.PATH, ...env }, maxBuffer: 2 ** 26 },
    );
    return {
      status,
      stderr,
      stdout,
      rows: stdout.startsWith('{')
        ? stdout
            .trimEnd()
            .split('\n')
            .map((line) => JSON.parse(line))
        : [],
    };
  };
  const bars = barsOf('5m', '7d');
  const base = noise(40, bars);
  /** Follows BTC but for the last day. */
  const leaver = following(base, 0, 0.95, 41).map((move, i) => (i < bars - 288 ? move : noise(42, bars)[i]!));
  const lines = (symbol: string, moves: readonly number[]) =>
    [...priceOf(moves, '5m')].map(([timestamp, close]) => JSON.stringify({ symbol, timestamp, close }));
  const follower = lines('SOL-USDC', following(base, 6, 0.9, 43));
  const all = [...lines('BTC-USDC', base), ...follower, ...lines('ETH-USDC', leaver)];

  test('gives a row for each coin and period, then the anomalies; the same bytes for the same input, in whatever order', () => {
    const { rows, status, stderr, stdout } = run(all.join('\n'), ['--timeframe', '5m']);
    assert.deepEqual([status, stderr], [0, '']);
    assert.deepEqual(
      rows.map(({ kind, symbol, period }) => [kind, symbol, period].filter(Boolean).join(' ')),
      [
        ...['ETH-USDC', 'SOL-USDC'].flatMap((symbol) =>
          ['1d', '7d', '30d', '60d'].map((each) => `correlation ${symbol} ${each}`),
        ),
        'alert ETH-USDC',
      ],
    );
    const [ethDay, ethWeek, ethMonth] = rows;
    assert.ok(ethDay.corr < 0.3 && ethWeek.corr > 0.6);
    assert.deepEqual([ethMonth.corr, ethMonth.lag, ethMonth.reason], [null, null, 'BTC: 7 of 30 days']);
    assert.deepEqual([rows[5].lag, rows[5].coin, rows[5].timestamp], [6, 'SOL', END]);
    const alert = rows.at(-1);
    assert.deepEqual([alert.event, alert.coin, alert.timestamp], ['begin', 'ETH', END]);
    assert.match(alert.text, /^exchange: hyperliquid\ncoin: ETH-USDC\n/);
    assert.equal(run([...all].reverse().join('\n')).stdout, stdout);
    // Coins alone, and a line twice.
    const bare = [...all, all[5]!].join('\n').replaceAll('-USDC', '');
    assert.equal(run(bare).stdout, stdout.replaceAll('-USDC', ''));
  });

  test('tells a line that is not sound with its number and takes the others; without BTC each row says so', () => {
    const wrong = [
      '{"symbol":"SOL-USDC"',
      '{"symbol":"SOL-USDC","timestamp":1,"close":5}',
      '{"symbol":"SOL-USDC","timestamp":300000,"close":-1}',
    ];
    const twice = follower[0]!.replace(/"close":.*/, '"close":7}');
    const { status, stderr, rows } = run([...wrong, ...follower, twice].join('\n'), ['--periods', '1d,7d']);
    assert.equal(status, 1);
    assert.match(
      stderr,
      /^line 1: .*\nline 2: timestamp: no start of a 5m candle\nline 3: close: .*\nline 2020: close: SOL-USDC had /,
    );
    assert.deepEqual(
      rows.map(({ period, corr, reason }) => [period, corr, reason]),
      [
        ['1d', null, 'BTC: no candles'],
        ['7d', null, 'BTC: no candles'],
      ],
    );
    assert.deepEqual(run('').stdout, '');
  });

  test('takes limits from the environment, and significance also from its flag', () => {
    const alerts = (env: NodeJS.ProcessEnv) => {
      const correlations = new StdinCorrelations('5m', ['1d', '7d'], loadConfig(env).correlation);
      for (const line of all) correlations.take(STDIN_CANDLE.parse(JSON.parse(line)));
      return [...correlations.end(({ id }) => id)].filter(({ kind }) => kind === 'alert').length;
    };
    // Nothing but a lag of chance is left of it.
    const chance = { MARKETPRISM_CORRELATION_DIFF: '1.5' };
    assert.equal(alerts({}), 1);
    assert.equal(alerts({ MARKETPRISM_CORRELATION_LONG: '0.99' }), 0);
    assert.equal(alerts(chance), 1);
    assert.equal(alerts({ ...chance, MARKETPRISM_CORRELATION_SIGNIFICANT: '0.01' }), 0);
    const { stdout } = run(all.join('\n'), ['--periods', '1d,7d', '--significant', '0.01'], chance);
    assert.ok(stdout.includes('"kind":"correlation"') && !stdout.includes('"kind":"alert"'));
  });

  test('a wrong flag or variable is one line and exit 64, and --help says what there is', () => {
    for (const [args, env, said] of [
      [['--timeframe', '2m'], {}, /^--timeframe takes names of 1m, 5m, 15m, 1h, not "2m"\n$/],
      [['--periods', '1d,3d'], {}, /^--periods takes names of 1d, 7d, 30d, 60d, not "3d"\n$/],
      [['--significant', '2'], {}, /^--significant takes a chance such as 0.05, not "2"\n$/],
      [[], { MARKETPRISM_CORRELATION_SHORT: '3' }, /^MARKETPRISM_CORRELATION_SHORT: .*, not "3"\n$/],
      [[], { MARKETPRISM_CORRELATION_SIGNIFICANT: '1' }, /^MARKETPRISM_CORRELATION_SIGNIFICANT: /],
    ] as [string[], NodeJS.ProcessEnv, RegExp][]) {
      const { status, stderr } = run('', args, env);
      assert.equal(status, 64);
      assert.match(stderr, said);
    }
    const help = run('', ['--help']);
    assert.equal(help.status, 0);
    assert.match(help.stdout, /^correlation_alert\.ts: /);
  });
});
