/** Changes of the day: exact, from the venue's own open, each slot once; a coin that fails waits, is tried, and completes its slot or is given up. */
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, afterEach, before, beforeEach, describe, test } from 'node:test';
import { pino } from 'pino';
import { CoinPriceTracker, PRICES_FILE, QUEUE_FILE } from '../scripts/coin_price_tracker.ts';
import { type Simulator, startSimulator } from '../scripts/exchange_sim.ts';
import { series as check } from '../scripts/lib/checks/series.ts';
import { loadConfig } from '../scripts/lib/config.ts';
import { beijingDayStart } from '../scripts/lib/desk/beijing.ts';
import { completedRecord, type QueueEntry, recordOf } from '../scripts/lib/desk/coin_prices.ts';
import { writeJsonAtomic } from '../scripts/lib/files.ts';
import { waitFor } from '../scripts/lib/processes.ts';

const SCRIPT = join(import.meta.dirname, '..', 'scripts', 'coin_price_tracker.ts');
const SECOND = 1000;
const HALF_HOUR = 1_800_000;
const NEVER = new AbortController().signal;
/** 08:00 in Beijing. */
const T0 = Date.UTC(2026, 10, 24, 0);
const root = mkdtempSync(join(tmpdir(), 'marketprism-coins-'));
after(() => rmSync(root, { recursive: true, force: true }));

describe('a record', () => {
  const one = (current: string, base: string) => recordOf(T0, ['A'], { A: current }, { A: base }).total_change;

  test('has the change of each coin, their sum, and their mean', () => {
    const prices = { BTC: '110.50', ETH: '95', SOL: '2.9' };
    assert.deepEqual(recordOf(T0, ['BTC', 'ETH', 'SOL'], prices, { BTC: '100', ETH: '100.0', SOL: '3' }), {
      collect_time: '2026-11-24 08:00:00',
      timestamp: T0,
      base_date: '2026-11-24',
      day_changes: {
        BTC: { base_price: 100, current_price: 110.5, change_pct: 10.5 },
        ETH: { base_price: 100, current_price: 95, change_pct: -5 },
        SOL: { base_price: 3, current_price: 2.9, change_pct: -3.3333 },
      },
      // 2.1667 ÷ 3 = 0.72223
      total_change: 2.1667,
      average_change: 0.7222,
      total_coins: 3,
      valid_coins: 3,
      success_count: 3,
      failed_count: 0,
      failed: [],
    });
  });

  test('a coin without a price, without a base, or at 0 is null, and the mean is of the others', () => {
    const coins = ['A', 'B', 'C', 'D', 'E'];
    const record = recordOf(T0, coins, { A: '2', C: '3', D: '0', E: '1' }, { A: '1', B: '5', D: '1', E: '0.00' });
    assert.deepEqual(record.day_changes, {
      A: { base_price: 1, current_price: 2, change_pct: 100 },
      B: { base_price: 5, current_price: null, change_pct: null },
      C: { base_price: null, current_price: 3, change_pct: null },
      D: { base_price: 1, current_price: null, change_pct: null },
      E: { base_price: null, current_price: 1, change_pct: null },
    });
    const { total_change, average_change, total_coins, valid_coins, success_count, failed_count, failed } = record;
    assert.deepEqual([total_change, average_change, total_coins, valid_coins], [100, 100, 5, 1]);
    assert.deepEqual([success_count, failed_count, failed], [1, 4, ['B', 'C', 'D', 'E']]);
  });

  test('without any coin has neither sum nor mean', () => {
    const { total_change, average_change, valid_coins, failed } = recordOf(T0, ['A', 'B'], { A: '1' }, { B: '1' });
    assert.deepEqual([total_change, average_change, valid_coins, failed], [null, null, 0, ['A', 'B']]);
  });

  test('rounds the exact decimal once, half away from zero', () => {
    assert.equal(one('100.00005', '100'), 0.0001);
    assert.equal(one('99.99995', '100'), -0.0001);
    assert.equal(one('100.000049999999999999', '100'), 0);
    // Rounded at the 18th place first it would be a half.
    assert.equal(one('10000000000004999999.999999999999999999', '10000000000000000000'), 0);
    // A change of nothing has no sign.
    assert.ok(Object.is(one('99.99996', '100'), 0));
    assert.equal(one('0.0000001', '0.0000003'), -66.6667);
    const pair = (a: string, b: string) => recordOf(T0, ['A', 'B'], { A: a, B: b }, { A: '100', B: '100' });
    assert.equal(pair('100.1', '100.2').total_change, 0.3);
    assert.equal(pair('100.0001', '100').average_change, 0.0001);
    assert.equal(pair('99.9999', '100').average_change, -0.0001);
  });

  test('is of the day of Beijing, which begins at 16:00 UTC', () => {
    const at = (time: number) => {
      const { collect_time, base_date } = recordOf(time, [], {}, {});
      return [collect_time, base_date];
    };
    assert.deepEqual(at(Date.UTC(2026, 10, 24, 15, 30)), ['2026-11-24 23:30:00', '2026-11-24']);
    assert.deepEqual(at(Date.UTC(2026, 10, 24, 16)), ['2026-11-25 00:00:00', '2026-11-25']);
  });

  test('is completed by what it lacks, and keeps what it has', () => {
    const stored = { slot: T0, ...recordOf(T0, ['A', 'B', 'C'], { A: '2', B: '7e-7' }, { A: '1', C: '4' }) };
    const found = { prices: { A: '9', B: '9', C: '5' }, bases: { A: '9', B: '1e-7' } };
    assert.deepEqual(
      completedRecord(stored, found),
      recordOf(T0, ['A', 'B', 'C'], { A: '2', B: '0.0000007', C: '5' }, { A: '1', B: '0.0000001', C: '4' }),
    );
  });
});

describe('the pure core on standard input', () => {
  const run = (lines: string[], args = ['--stdin']) =>
    spawnSync(process.execPath, ['--import', 'tsx', SCRIPT, ...args], { input: lines.join('\n'), encoding: 'utf8' });
  const LINE = `{"slot":${T0},"prices":{"BTC":"110.5","ETH":null,"SOL":2.9},"bases":{"BTC":100,"SOL":"3","XRP":"1"}}`;
  const RECORD =
    `{"slot":${T0},"collect_time":"2026-11-24 08:00:00","timestamp":${T0},"base_date":"2026-11-24","day_changes":{` +
    '"BTC":{"base_price":100,"current_price":110.5,"change_pct":10.5},' +
    '"ETH":{"base_price":null,"current_price":null,"change_pct":null},' +
    '"SOL":{"base_price":3,"current_price":2.9,"change_pct":-3.3333},' +
    '"XRP":{"base_price":1,"current_price":null,"change_pct":null}},' +
    '"total_change":7.1667,"average_change":3.5834,"total_coins":4,"valid_coins":2,"success_count":2,"failed_count":2,' +
    '"failed":["ETH","XRP"]}\n';

  test('gives a record a line, the same bytes for the same line', () => {
    const { status, stdout, stderr } = run([LINE, '', LINE]);
    assert.deepEqual([status, stdout, stderr], [0, RECORD + RECORD, '']);
  });

  test('tells a bad line with its number, takes the others, and exits with 1', () => {
    const bad = [
      'nonsense',
      `{"slot":${T0 / SECOND},"prices":{},"bases":{}}`,
      LINE.replace('110.5', '-110.5'),
      LINE.replace('110.5', ''),
      LINE.replace('BTC', 'btc'),
      LINE.replace('bases', 'basis'),
      '[]',
    ];
    const { status, stdout, stderr } = run([LINE, ...bad, LINE]);
    assert.deepEqual([status, stdout], [1, RECORD + RECORD]);
    const told = stderr.trimEnd().split('\n');
    assert.deepEqual(
      told.map((line) => line.replace(/^(line \d+: [\w.]*).*/, '$1')),
      [
        'line 2: Unexpected',
        'line 3: slot',
        ...['line 4: prices.BTC', 'line 5: prices.BTC'],
        'line 6: prices.btc',
        'line 7: bases',
        'line 8: line',
      ],
    );
  });

  test('goes with no other flag; --help tells of all', () => {
    assert.equal(run([], ['--stdin', '--once']).status, 64);
    const { status, stdout } = run([], ['--help']);
    assert.equal(status, 0);
    for (const flag of ['--once', '--stdin', 'tail -F']) assert.match(stdout, new RegExp(flag));
  });
});

type Ticker = Record<'instId' | 'last' | 'sodUtc8' | 'ts', string>;

/** The way to the simulated venue: it notes what is asked, and can break, or bring a ticker of another time. */
class Way {
  /** Paths with their queries. */
  asked: string[] = [];
  /** The last answer for all tickers, as it went on. */
  tickers = new Map<string, Ticker>();
  /** Requests that get no answer but an error. */
  refuses: (path: string) => boolean = () => false;
  turned: (ticker: Ticker) => Ticker = (ticker) => ticker;
  private readonly server: Server;

  constructor(private readonly venue: string) {
    this.server = createServer(async ({ url = '' }, response) => {
      this.asked.push(url);
      if (this.refuses(url)) {
        response.writeHead(503).end('away');
        return;
      }
      const answer = await fetch(`${this.venue}${url}`);
      const body = (await answer.json()) as { data: Ticker[] };
      if (url.includes('/tickers')) {
        body.data = body.data.map((ticker) => this.turned(ticker));
        this.tickers = new Map(body.data.map((ticker) => [ticker.instId, ticker]));
      }
      response.writeHead(answer.status, { 'content-type': 'application/json' }).end(JSON.stringify(body));
    });
  }

  async listen(): Promise<string> {
    await new Promise<void>((done) => this.server.listen(0, '127.0.0.1', done));
    return `http://127.0.0.1:${(this.server.address() as { port: number }).port}`;
  }

  async close(): Promise<void> {
    this.server.closeAllConnections();
    await new Promise((done) => this.server.close(done));
  }
}

describe('the tracker', () => {
  let simulator: Simulator;
  let venue: string;
  let way: Way;
  let dir: string;
  let now: number;
  let logged: string[];
  let open: CoinPriceTracker[];

  before(async () => {
    const quiet = { tradesPerSecond: 0.1, diffsPerSecond: 0.1, liquidationsPerMinute: 0 };
    simulator = await startSimulator({ exchanges: ['okx_derivatives'], symbols: ['BTC-USDT'], ...quiet });
    venue = simulator.endpoints.okx_derivatives!.rest;
  });
  after(() => simulator.close());

  beforeEach(async () => {
    dir = mkdtempSync(join(root, 'd'));
    way = new Way(venue);
    const rest = await way.listen();
    writeFileSync(
      join(dir, 'endpoints.json'),
      JSON.stringify({ okx_derivatives: { ws: rest.replace('http', 'ws'), rest } }),
    );
    [logged, open] = [[], []];
  });
  afterEach(async () => {
    for (const each of open) await each.close();
    await way.close();
  });

  const environment = (coins?: string) => ({
    MARKETPRISM_DATA_DIR: dir,
    MARKETPRISM_ENDPOINTS: join(dir, 'endpoints.json'),
    ...(coins === undefined ? {} : { MARKETPRISM_DESK_COINS: coins }),
  });
  async function start(coins: string): Promise<CoinPriceTracker> {
    const log = pino({ level: 'warn' }, { write: (line: string) => logged.push(line) });
    const tracker = await CoinPriceTracker.open({ config: loadConfig(environment(coins)), log, clock: () => now });
    open.push(tracker);
    return tracker;
  }
  async function stop(tracker: CoinPriceTracker): Promise<void> {
    open = open.filter((each) => each !== tracker);
    await tracker.close();
  }
  const events = (name: string) => logged.map((line) => JSON.parse(line)).filter(({ event }) => event === name);
  const lines = () =>
    existsSync(join(dir, PRICES_FILE))
      ? readFileSync(join(dir, PRICES_FILE), 'utf8')
          .trimEnd()
          .split('\n')
          .filter((line) => line !== '')
          .map((line) => JSON.parse(line))
      : [];
  const queue = () =>
    existsSync(join(dir, QUEUE_FILE)) ? JSON.parse(readFileSync(join(dir, QUEUE_FILE), 'utf8')) : null;
  const state = () => JSON.parse(readFileSync(join(dir, 'state', 'series-coin_prices.json'), 'utf8'));
  const candles = () => way.asked.filter((path) => path.includes('candles'));

  /** What the venue itself says of a bar's open. */
  async function openOf(coin: string, bar: string, start: number): Promise<string> {
    // The venue counts these requests, too: one too many would be the tracker's.
    await new Promise((done) => setTimeout(done, 120));
    const path = `/api/v5/market/candles?instId=${coin}-USDT-SWAP&bar=${bar}&after=${start + 1}&before=${start - 1}`;
    const { data } = (await (await fetch(`${venue}${path}`)).json()) as { data: string[][] };
    assert.equal(data[0]![0], String(start));
    return data[0]![1]!;
  }
  /** What should stand in the file for a slot that was missed. */
  async function expected(slot: number, coins: string[]) {
    const [prices, bases]: [Record<string, string>, Record<string, string>] = [{}, {}];
    for (const coin of coins) {
      prices[coin] = await openOf(coin, '30m', slot);
      bases[coin] = await openOf(coin, '1D', beijingDayStart(slot));
    }
    return recordOf(slot, coins, prices, bases);
  }
  const slotNow = () => Math.floor(Date.now() / HALF_HOUR) * HALF_HOUR;

  test('a ticker from before the slot, or long after it, is not the slot price: the candle is', async () => {
    const slot = slotNow();
    now = slot + 8 * SECOND;
    const age = { BTC: -1, ETH: 60 * SECOND, SOL: 0 } as Record<string, number>;
    way.turned = (ticker) => {
      const coin = ticker.instId.split('-')[0]!;
      return { ...ticker, last: '77', ts: String(slot + (age[coin] ?? 0)), sodUtc8: ticker.sodUtc8 };
    };
    const tracker = await start('BTC,ETH,SOL');
    await tracker.turn(NEVER);
    const { day_changes: changes } = lines()[0];
    assert.equal(changes.BTC.current_price, Number(await openOf('BTC', '30m', slot)));
    assert.equal(changes.ETH.current_price, Number(await openOf('ETH', '30m', slot)));
    assert.equal(changes.SOL.current_price, 77);
  });

  test('at midnight the base is the open of the new day, though the ticker still tells that of the day before', async () => {
    const slot = beijingDayStart(Date.now());
    now = slot + 8 * SECOND;
    way.turned = (ticker) => ({ ...ticker, ts: String(slot + 59_999), sodUtc8: '77' });
    const tracker = await start('BTC,ETH');
    assert.deepEqual(await tracker.turn(NEVER), []);
    const base = Number(await openOf('ETH', '1D', slot));
    assert.equal(lines()[0].day_changes.ETH.base_price, base);
    // It stays what it is for the day, whatever a ticker says later.
    way.turned = (ticker) => ({ ...ticker, ts: String(slot + HALF_HOUR + 7 * SECOND), sodUtc8: '77' });
    now += HALF_HOUR;
    way.asked = [];
    await tracker.turn(NEVER);
    assert.deepEqual([lines()[1].day_changes.ETH.base_price, candles()], [base, []]);
  });

  test('ten days that were missed are completed in their order from candles, each with the base of its own day', async () => {
    const to = slotNow();
    const from = to - 480 * HALF_HOUR;
    now = from + 8 * SECOND;
    const first = await start('BTC,ETH');
    assert.deepEqual(await first.turn(NEVER), []);
    await stop(first);
    now = to + 70 * SECOND;
    way.asked = [];
    const second = await start('BTC,ETH');
    assert.deepEqual(await second.turn(NEVER), []);
    assert.deepEqual(
      lines().map(({ slot }) => slot),
      Array.from({ length: 481 }, (_, n) => from + n * HALF_HOUR),
    );
    for (const n of [0, 1, 47, 48, 200, 479, 480]) {
      const { slot, ...record } = lines()[n];
      assert.deepEqual(record, await expected(slot, ['BTC', 'ETH']), `slot ${n}`);
    }
    assert.ok(new Set(lines().map(({ day_changes }) => day_changes.ETH.base_price)).size >= 10);
    // Two pages of missed slots, and the one under way; days that are over at once, and at the most the one under way.
    const bars = candles().filter((path) => path.includes('ETH'));
    assert.equal(bars.filter((path) => path.includes('bar=30m')).length, 3);
    assert.ok(bars.filter((path) => path.includes('bar=1D')).length <= 2);
    assert.equal(state().missing.length, 0);
  });

  test('a coin that the venue does not have is tried three times, a minute apart and across restarts, and given up; the others are whole', async () => {
    const slot = slotNow() - 4 * HALF_HOUR;
    now = slot + 8 * SECOND;
    const first = await start('NOPE,BTC');
    assert.deepEqual(await first.turn(NEVER), []);
    const { total_coins, valid_coins, failed, day_changes } = lines()[0];
    assert.deepEqual([total_coins, valid_coins, failed], [2, 1, ['NOPE']]);
    assert.deepEqual(day_changes.NOPE, { base_price: null, current_price: null, change_pct: null });
    const told = { symbol: 'NOPE', slot, collect_time: lines()[0].collect_time };
    const reason = queue()[0].reason;
    assert.match(reason, /candles: 51001 /);
    assert.deepEqual(queue(), [{ ...told, failed_at: now, reason, retry_count: 0 }]);
    const asked = () => way.asked.filter((path) => path.includes('NOPE')).length;
    const before = asked();
    now += 59 * SECOND;
    await first.turn(NEVER);
    assert.deepEqual([asked(), queue()[0].retry_count], [before, 0]);
    await stop(first);
    now += SECOND;
    const second = await start('NOPE,BTC');
    await second.turn(NEVER);
    await second.turn(NEVER);
    assert.deepEqual([asked(), queue()], [before + 1, [{ ...told, failed_at: now, reason, retry_count: 1 }]]);
    await stop(second);
    const third = await start('NOPE,BTC');
    now += 60 * SECOND;
    await third.turn(NEVER);
    assert.deepEqual([asked(), queue()[0].retry_count, events('coin_given_up').length], [before + 2, 2, 0]);
    now += 60 * SECOND;
    assert.deepEqual(await third.turn(NEVER), []);
    assert.deepEqual([asked(), queue()], [before + 3, []]);
    assert.deepEqual(
      events('coin_given_up').map(({ symbol, tries, collect_time }) => [symbol, tries, collect_time]),
      [['NOPE', 3, told.collect_time]],
    );
    now += 60 * SECOND;
    await third.turn(NEVER);
    assert.deepEqual([asked(), lines().length, state().corrections], [before + 3, 1, 0]);
  });

  const refuseEth = () => {
    way.refuses = (path) => path.includes('instId=ETH');
  };
  /** From the first request for ETH on there is no answer to anything. */
  const goesAtEth = (path: string) => {
    if (path.includes('instId=ETH')) way.refuses = () => true;
    return path.includes('instId=ETH');
  };

  test('a coin that fails once completes its slots by one correction each, at their prices, and nothing else changes', async () => {
    const slot = slotNow() - 6 * HALF_HOUR;
    now = slot + 8 * SECOND;
    const tracker = await start('BTC,ETH,SOL');
    refuseEth();
    assert.deepEqual(await tracker.turn(NEVER), []);
    now += HALF_HOUR;
    assert.deepEqual(await tracker.turn(NEVER), []);
    // The second slot was written in a turn that tried the first again, in vain.
    assert.deepEqual(
      queue().map(({ symbol, slot: at, retry_count }: QueueEntry) => [symbol, at, retry_count]),
      [
        ['ETH', slot, 1],
        ['ETH', slot + HALF_HOUR, 0],
      ],
    );
    way.refuses = () => false;
    // Not even a ticker of its time is taken for a slot that is over.
    const sodUtc8 = await openOf('ETH', '1D', beijingDayStart(slot));
    way.turned = (ticker) => ({ ...ticker, last: '77', sodUtc8, ts: String(slot + 30 * SECOND) });
    way.asked = [];
    now += 60 * SECOND;
    assert.deepEqual(await tracker.turn(NEVER), []);
    const [one, two, ...corrections] = lines();
    assert.deepEqual([one.failed, two.failed], [['ETH'], ['ETH']]);
    assert.equal(one.day_changes.ETH.current_price, null);
    assert.deepEqual(corrections, [
      { slot, correction: true, ...(await expected(slot, ['BTC', 'ETH', 'SOL'])) },
      { slot: slot + HALF_HOUR, correction: true, ...(await expected(slot + HALF_HOUR, ['BTC', 'ETH', 'SOL'])) },
    ]);
    assert.ok(candles().every((path) => path.includes('instId=ETH')));
    assert.deepEqual([queue(), state().corrections, state().missing], [[], 2, []]);
    now += 60 * SECOND;
    await tracker.turn(NEVER);
    assert.equal(lines().length, 4);
  });

  test('a crash between correction and queue is harmless; one in the middle of a try has counted it', async () => {
    const slot = slotNow() - 2 * HALF_HOUR;
    now = slot + 8 * SECOND;
    const first = await start('BTC,ETH');
    refuseEth();
    await first.turn(NEVER);
    const [entry] = queue();
    way.refuses = () => false;
    now += 60 * SECOND;
    await first.turn(NEVER);
    assert.equal(lines().length, 2);
    await stop(first);
    // As it is on disk when the correction is written, and the entry not taken out.
    writeFileSync(join(dir, QUEUE_FILE), JSON.stringify([{ ...entry, retry_count: 1, failed_at: now }]));
    now += 60 * SECOND;
    way.asked = [];
    const second = await start('BTC,ETH');
    await second.turn(NEVER);
    assert.deepEqual([lines().length, queue(), candles(), events('coin_given_up')], [2, [], [], []]);
    await stop(second);
    // As it is in the middle of a third try of a coin that the record lacks.
    rmSync(join(dir, PRICES_FILE));
    writeFileSync(
      join(dir, PRICES_FILE),
      `${JSON.stringify({ slot, ...recordOf(slot, ['BTC', 'ETH'], { BTC: '2' }, { BTC: '1' }) })}\n`,
    );
    writeFileSync(join(dir, QUEUE_FILE), JSON.stringify([{ ...entry, retry_count: 3, failed_at: now }]));
    now += 60 * SECOND;
    const third = await start('BTC,ETH');
    await third.turn(NEVER);
    assert.deepEqual([lines().length, queue(), candles()], [1, [], []]);
    assert.deepEqual(
      events('coin_given_up').map(({ symbol, tries }) => [symbol, tries]),
      [['ETH', 3]],
    );
  });

  test('a try is written down before it is made', async () => {
    now = slotNow() - 2 * HALF_HOUR + 8 * SECOND;
    const tracker = await start('BTC,ETH');
    refuseEth();
    await tracker.turn(NEVER);
    const counts: number[] = [];
    way.refuses = (path) => {
      if (path.includes('instId=ETH')) counts.push(queue()[0].retry_count);
      return path.includes('instId=ETH');
    };
    now += 60 * SECOND;
    await tracker.turn(NEVER);
    assert.deepEqual([counts, queue()[0].retry_count], [[1], 1]);
  });

  test('a crash between queue and record loses no coin, and counts nothing', async () => {
    const slot = slotNow() - 2 * HALF_HOUR;
    now = slot + 8 * SECOND;
    const entry = {
      symbol: 'ETH',
      slot,
      collect_time: 'then',
      // The clock was set back since.
      failed_at: now + HALF_HOUR,
      reason: 'then',
      retry_count: 0,
    };
    writeJsonAtomic(join(dir, QUEUE_FILE), [entry, { ...entry, symbol: 'BTC' }]);
    const tracker = await start('BTC,ETH');
    refuseEth();
    await tracker.turn(NEVER);
    assert.deepEqual([lines().length, queue().length], [1, 2]);
    assert.deepEqual(queue()[0], entry);
    way.refuses = () => false;
    now += 60 * SECOND;
    await tracker.turn(NEVER);
    assert.deepEqual([lines().length, lines()[1].failed, queue()], [2, [], []]);
    assert.deepEqual(events('coin_given_up'), []);
  });

  test('while the venue is away the slot is missing, without a queue, and comes later with the price that it had', async () => {
    const slot = slotNow() - 2 * HALF_HOUR;
    now = slot + 8 * SECOND;
    const tracker = await start('BTC,ETH');
    way.refuses = () => true;
    const faults = await tracker.turn(NEVER);
    assert.equal(faults.length, 1);
    assert.match(faults[0]!, /^\d{4}-\d\d-\d\d \d\d:\d\d:00: .*tickers.*503/);
    assert.match(state().error, /503/);
    // It goes in the middle of a round: half of the coins is no record.
    way.refuses = goesAtEth;
    assert.equal((await tracker.turn(NEVER)).length, 1);
    assert.deepEqual([lines(), queue()], [[], null]);
    way.refuses = () => false;
    now += 60 * SECOND;
    assert.deepEqual(await tracker.turn(NEVER), []);
    assert.deepEqual(lines(), [{ slot, ...(await expected(slot, ['BTC', 'ETH'])) }]);
    assert.equal(state().error, null);
  });

  test('what cannot be tried as the venue is away counts as no try', async () => {
    now = slotNow() - 2 * HALF_HOUR + 8 * SECOND;
    const tracker = await start('BTC,ETH');
    refuseEth();
    await tracker.turn(NEVER);
    const waiting = queue();
    now += 60 * SECOND;
    way.refuses = () => true;
    assert.equal((await tracker.turn(NEVER)).length, 1);
    assert.deepEqual(queue(), waiting);
    way.refuses = goesAtEth;
    assert.equal((await tracker.turn(NEVER)).length, 1);
    assert.deepEqual(queue(), waiting);
  });

  test('a slot of which no coin can be had is missing', async () => {
    now = slotNow() + 8 * SECOND;
    const tracker = await start('NOPE');
    assert.match((await tracker.turn(NEVER))[0]!, /no coin could be had/);
    assert.deepEqual([lines(), queue()], [[], null]);
  });

  test('a stop in the middle of a round leaves nothing half done', async () => {
    now = slotNow() - 2 * HALF_HOUR + 8 * SECOND;
    const tracker = await start('BTC,ETH');
    const stopping = new AbortController();
    way.refuses = (path) => {
      if (path.includes('instId=BTC')) stopping.abort();
      return false;
    };
    assert.deepEqual(await tracker.turn(stopping.signal), []);
    assert.deepEqual([lines(), queue()], [[], null]);
  });

  test('a damaged queue is no empty one', async () => {
    writeJsonAtomic(join(dir, QUEUE_FILE), [{ symbol: 'ETH' }]);
    await assert.rejects(start('BTC'), /OperatorError: .*failed_queue.json is no queue/);
    writeFileSync(join(dir, QUEUE_FILE), '[{"symb');
    await assert.rejects(start('BTC'), /OperatorError: .*failed_queue.json is no queue/);
  });

  test('as a process: --once has all 27 coins of the present slot, and what runs on stops when it is told', async () => {
    const env = { ...process.env, ...environment() };
    const child = (args: string[]) => spawn(process.execPath, ['--import', 'tsx', SCRIPT, ...args], { env });
    const once = child(['--once']);
    const code = await new Promise((done) => once.once('close', done));
    assert.equal(code, 0);
    const [record] = lines();
    assert.deepEqual([record.total_coins, record.valid_coins, record.failed], [27, 27, []]);
    const sum = Object.values(record.day_changes as Record<string, { change_pct: number }>).reduce(
      (all, { change_pct }) => all + Math.round(change_pct * 10_000),
      0,
    );
    assert.equal(record.total_change, sum / 10_000);
    const daemon = child([]);
    let output = '';
    daemon.stdout.on('data', (chunk) => {
      output += chunk;
    });
    await waitFor('its start', 30_000, async () => output.includes('"started"'));
    daemon.kill('SIGTERM');
    assert.equal(await new Promise((done) => daemon.once('close', done)), 0);
    assert.equal(new Set(lines().map(({ slot }) => slot)).size, lines().length);
    const at = Date.now();
    const { findings } = await check.ask({ config: { dataDir: dir }, from: at - HALF_HOUR, to: at, now: at } as never);
    assert.deepEqual(findings, []);
  });

  // The last one: from here on the venue is ahead of the machine.
  test('takes the present slot from the tickers, once; has the same base after a restart, and the slots of an hour without the venue later', async () => {
    const coins = ['BTC', 'ETH', 'SOL'];
    const skip = (seconds: number) => simulator.apply({ action: 'skip', exchange: 'okx_derivatives', seconds });
    const venueNow = async () => {
      const { data } = (await (await fetch(`${venue}/api/v5/market/tickers?instType=SWAP`)).json()) as {
        data: Ticker[];
      };
      return Number(data[0]!.ts);
    };
    let slot = slotNow() + HALF_HOUR;
    // Both slots lie within one day, and not at its beginning.
    while (slot === beijingDayStart(slot) || beijingDayStart(slot + HALF_HOUR) !== beijingDayStart(slot))
      slot += HALF_HOUR;
    const reach = async (time: number) => {
      for (let left = time - (await venueNow()); left > 0; left = time - (await venueNow()))
        skip(Math.min(Math.ceil(left / SECOND), 7200));
    };
    const fromTickers = (at: number) => {
      const of = (member: 'last' | 'sodUtc8') =>
        Object.fromEntries(coins.map((coin) => [coin, way.tickers.get(`${coin}-USDT-SWAP`)![member]]));
      return recordOf(at, coins, of('last'), of('sodUtc8'));
    };
    await reach(slot + 6 * SECOND);
    const first = await start(coins.join(','));
    now = slot + 4 * SECOND;
    await first.turn(NEVER);
    assert.equal(lines().at(-1)?.slot, slot - HALF_HOUR, 'it is waited a little for tickers of the slot');
    way.asked = [];
    now = slot + 8 * SECOND;
    assert.deepEqual(await first.turn(NEVER), []);
    assert.deepEqual(await first.turn(NEVER), []);
    assert.deepEqual(way.asked, ['/api/v5/market/tickers?instType=SWAP']);
    assert.deepEqual(lines().slice(1), [{ slot, ...fromTickers(slot) }]);
    assert.equal(lines()[1].valid_coins, 3);
    await stop(first);
    await reach(slot + HALF_HOUR + 6 * SECOND);
    now = slot + HALF_HOUR + 8 * SECOND;
    const second = await start(coins.join(','));
    assert.deepEqual(await second.turn(NEVER), []);
    assert.deepEqual(lines().slice(2), [{ slot: slot + HALF_HOUR, ...fromTickers(slot + HALF_HOUR) }]);
    const bases = lines().map(({ day_changes }) => coins.map((coin) => day_changes[coin].base_price));
    assert.deepEqual(bases[1], bases[2]);
    const opens = await Promise.all(coins.map((coin) => openOf(coin, '1D', beijingDayStart(slot))));
    assert.deepEqual(bases[1], opens.map(Number));
    assert.notDeepEqual(
      bases[2],
      coins.map((coin) => lines()[2].day_changes[coin].current_price),
    );
    // An hour in which the venue does not answer, as the simulator has it.
    const third = slot + 2 * HALF_HOUR;
    await reach(third + 6 * SECOND);
    simulator.apply({ action: 'away', exchange: 'okx_derivatives', seconds: 3600 });
    now = third + 8 * SECOND;
    assert.equal((await second.turn(NEVER)).length, 1);
    skip(3600);
    now = third + 2 * HALF_HOUR + 8 * SECOND;
    assert.deepEqual(await second.turn(NEVER), []);
    assert.deepEqual(
      lines().map((line) => (line.slot - slot) / HALF_HOUR),
      [-1, 0, 1, 2, 3, 4],
    );
    assert.deepEqual(lines()[3], { slot: third, ...(await expected(third, coins)) });
    assert.equal(queue(), null);
  });
});
