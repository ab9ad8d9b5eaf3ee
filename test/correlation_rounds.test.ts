/** Rounds of correlations against a simulated Hyperliquid and a real database: candles each once and finished, BTC always fresh, anomalies told once. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, request } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, afterEach, before, beforeEach, describe, test } from 'node:test';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { type Simulator, startSimulator } from '../scripts/exchange_sim.ts';
import { loadConfig } from '../scripts/lib/config.ts';
import { CorrelationAlerter, type CorrelationOptions } from '../scripts/lib/correlation/alerter.ts';
import { newestFinished } from '../scripts/lib/correlation/candles.ts';
import { type Period, TIMEFRAMES, type Timeframe } from '../scripts/lib/correlation/periods.ts';
import { TimeframeRound } from '../scripts/lib/correlation/round.ts';
import { freePort } from '../scripts/lib/free_port.ts';
import { createLogger } from '../scripts/lib/log.ts';
import { Child, scriptPlan, waitFor } from '../scripts/lib/processes.ts';
import { Pipeline, READY_MS } from './pipeline.ts';

const EXCHANGE = 'hyperliquid';
const NEVER = new AbortController().signal;
const ROOT = join(import.meta.dirname, '..');
const SCRIPT = join(ROOT, 'scripts', 'correlation_alert.ts');
const TOKEN = 'a-token-of-the-test';

/** Of half an hour; `MARKETPRISM_CORRELATION_ROUNDS=336` is a week. */
const ROUNDS = Number(process.env.MARKETPRISM_CORRELATION_ROUNDS ?? 3);

function collectGarbage(): void {
  setFlagsFromString('--expose-gc');
  runInNewContext('gc')();
}

interface Wire {
  t: number;
  o: string;
  h: string;
  l: string;
  c: string;
  v: string;
  n: number;
}

describe('rounds', () => {
  const pipeline = new Pipeline();
  const root = mkdtempSync(join(tmpdir(), 'marketprism-correlation-'));
  let sim: Simulator;
  let dir: string;
  let database: string;
  /** The venue's clock is ahead by as much. */
  let ahead = 0;
  let number = 0;
  const opened: CorrelationAlerter[] = [];

  before(async () => {
    await pipeline.choosePorts();
    await pipeline.startDatabase();
  });
  after(async () => {
    await pipeline.close();
    rmSync(root, { recursive: true, force: true });
  });
  beforeEach(async () => {
    dir = mkdtempSync(join(root, 'data'));
    database = `marketprism_signals_${++number}`;
    ahead = 0;
    sim = await startSimulator({
      ...{ exchanges: [EXCHANGE], symbols: ['ETH-USDT'], perpetuals: 3 },
      ...{ tradesPerSecond: 0.5, diffsPerSecond: 0.1 },
    });
    writeFileSync(join(dir, 'endpoints.json'), JSON.stringify(sim.endpoints));
  });
  afterEach(async () => {
    for (const each of opened.splice(0)) await each.close();
    await sim.close();
  });

  const env = (more: NodeJS.ProcessEnv = {}): NodeJS.ProcessEnv => ({
    PATH: process.env.PATH,
    CLICKHOUSE_URL: pipeline.env.CLICKHOUSE_URL,
    MARKETPRISM_SIGNALS_DATABASE: database,
    MARKETPRISM_DATA_DIR: dir,
    MARKETPRISM_ENDPOINTS: join(dir, 'endpoints.json'),
    ...more,
  });
  const clock = () => Date.now() + ahead;
  async function open(given: Partial<CorrelationOptions> = {}, more: NodeJS.ProcessEnv = {}) {
    const config = loadConfig(env(more));
    const alerter = await CorrelationAlerter.open(
      { config, log: createLogger('test', process.env.LOG_LEVEL ?? 'silent'), clock },
      {
        ...{ isOnce: true, intervalMs: 1_800_000, coin: null, timeframes: ['5m'], periods: ['1d', '7d'] },
        ...{ limits: config.correlation, terminal: null, weightPerMinute: 1_000_000, ...given },
      },
    );
    opened.push(alerter);
    return alerter;
  }
  async function close(alerter: CorrelationAlerter): Promise<void> {
    opened.splice(opened.indexOf(alerter), 1);
    await alerter.close();
  }
  /** One life of the script: a round, and its end. */
  async function life(given: Partial<CorrelationOptions> = {}, more: NodeJS.ProcessEnv = {}): Promise<string[]> {
    const alerter = await open(given, more);
    const faults = await alerter.turn(NEVER);
    await close(alerter);
    return faults;
  }
  /** Time passes for the venue and for us. */
  function pass(seconds: number): void {
    for (let left = seconds; left > 0; left -= 7200)
      sim.apply({ action: 'skip', exchange: EXCHANGE, seconds: Math.min(left, 7200) });
    ahead += seconds * 1000;
  }
  const state = () => JSON.parse(readFileSync(join(dir, 'state', 'correlation_alert.json'), 'utf8'));
  const written = () => {
    const path = join(dir, 'correlation', 'correlation_alerts.jsonl');
    const text = existsSync(path) ? readFileSync(path, 'utf8').trimEnd() : '';
    return text === '' ? [] : text.split('\n').map((line) => JSON.parse(line));
  };

  async function told(coin: string, interval: string, from = 0): Promise<Wire[]> {
    const body = JSON.stringify({ type: 'candleSnapshot', req: { coin, interval, startTime: from } });
    const answer = await fetch(`${sim.endpoints[EXCHANGE]!.rest}/info`, { method: 'POST', body });
    assert.equal(answer.status, 200);
    return (await answer.json()) as Wire[];
  }
  const stored = (coin: string, interval: string) =>
    pipeline.query(
      `SELECT toUnixTimestamp64Milli(timestamp), toString(open), toString(high), toString(low), toString(close), toString(volume), trades FROM ${database}.candles WHERE symbol = '${coin}-USDC' AND interval = '${interval}' ORDER BY timestamp`,
    );
  async function assertOnce(): Promise<void> {
    const candles = `SELECT count(), uniqExact(exchange, market_type, symbol, interval, timestamp) FROM ${database}.candles`;
    const results = `SELECT count(), uniqExact(exchange, market_type, symbol, timeframe, period, timestamp) FROM ${database}.correlations`;
    for (const query of [candles, results]) {
      const [[count, distinct] = []] = await pipeline.query(query);
      assert.equal(count, distinct, query);
    }
  }
  const plain = (text: string) => (text.includes('.') ? text.replace(/\.?0+$/, '') : text);
  /** Every finished candle that the venue tells, from the first one that is stored on, is stored, to the last digit, and no other. */
  async function assertStored(coin: string, interval: Timeframe): Promise<void> {
    const rows = await stored(coin, interval);
    const last = Number(rows.at(-1)![0]);
    const venue = (await told(coin, interval, Number(rows[0]![0]))).filter(({ t }) => t <= last);
    const first = venue[0]!.t;
    assert.deepEqual(
      rows.filter(([start]) => Number(start) >= first),
      venue.map(({ t, o, h, l, c, v, n }) => [String(t), ...[o, h, l, c, v].map(plain), String(n)]),
    );
    assert.ok(last + TIMEFRAMES[interval] <= clock(), 'finished');
  }
  /** The newest row of each period in the database against what the candles that are stored give. */
  async function assertComputed(coin: string, timeframe: Timeframe, periods: Period[]): Promise<void> {
    // What was the newest candle then: by now it may be another one.
    const [[end] = []] = await pipeline.query(
      `SELECT max(toUnixTimestamp64Milli(timestamp)) FROM ${database}.correlations WHERE symbol = '${coin}-USDC' AND timeframe = '${timeframe}'`,
    );
    const [base, other] = [await stored('BTC', timeframe), await stored(coin, timeframe)];
    const columns = (rows: string[][]) => ({
      times: rows.map(([t]) => Number(t)),
      closes: rows.map((row) => Number(row[4])),
    });
    const round = new TimeframeRound(timeframe, periods);
    round.setBase(columns(base), Number(end));
    for (const { corr, lag, points, period, timestamp } of round.rows(coin, columns(other))) {
      const [row] = await pipeline.query(
        `SELECT corr, lag, points, toUnixTimestamp64Milli(timestamp) FROM ${database}.correlations WHERE symbol = '${coin}-USDC' AND timeframe = '${timeframe}' AND period = '${period}' ORDER BY timestamp DESC LIMIT 1`,
      );
      assert.ok(row !== undefined && corr !== null && Math.abs(Number(row[0]) - corr) < 1e-9, `${row} ${corr}`);
      assert.deepEqual(row.slice(1), [lag, points, timestamp].map(String));
    }
  }

  test('keep every finished candle once and to the last digit, and each row that they give', async () => {
    const begun = clock();
    assert.deepEqual(await life({ timeframes: ['1m', '5m'], periods: ['1d', '7d'] }), []);
    const over = clock();
    // Of the minute's weight not enough is left to ask again.
    pass(60);
    for (const coin of ['BTC', 'SOL', 'ETH']) {
      await assertStored(coin, '1m');
      await assertStored(coin, '5m');
    }
    await assertComputed('SOL', '5m', ['1d', '7d']);
    const { round, data_time, error } = state();
    assert.deepEqual([round.coins, round.rows, round.cache_hit_rate, error], [3, 12, 0, null]);
    assert.ok(data_time >= newestFinished('1m', begun) && data_time <= newestFinished('1m', over), String(data_time));
    assert.deepEqual(
      [...round.reasons].sort(),
      ['1m 7d: BTC: 3.4 of 7 days (3)'],
      'a week of 1m is more than the venue serves',
    );
    await assertOnce();
  });

  test('are of BTC as it is now: two hours later it has moved on, and nothing is stored again', async () => {
    // 24 candles later, and one more where it ended while a round was under way.
    const finished = () => newestFinished('5m', clock()) / 300_000;
    const first = finished();
    await life();
    const [second, before] = [finished(), (await stored('BTC', '5m')).length];
    pass(7200);
    const third = finished();
    assert.deepEqual(await life(), []);
    const { round } = state();
    const more = (await stored('BTC', '5m')).length - before;
    assert.ok(more >= third - second && more <= finished() - first, String(more));
    assert.equal(round.btc_age_seconds < 310, true);
    await assertComputed('BNB', '5m', ['1d', '7d']);
    await assertOnce();
    // A second time at once: all is there, but for what ended meanwhile.
    assert.deepEqual(await life(), []);
    assert.ok(state().round.candles_stored <= 5);
    assert.equal(state().round.candles_different, 0);
    await assertOnce();
  });

  test('in monitor mode store what the sockets tell, and mend over REST what a lost connection missed', async () => {
    const alerter = await open({ isOnce: false, timeframes: ['1m'], periods: ['1d', '7d'], coin: 'SOL' });
    assert.deepEqual(await alerter.turn(NEVER), []);
    await waitFor('the subscriptions', READY_MS, async () => {
      sim.apply({ action: 'skip', exchange: EXCHANGE, seconds: 10 });
      ahead += 10_000;
      return sim.ledger().reading_frames > 4;
    });
    const settle = () => waitFor('all frames', READY_MS, async () => alerter.sockets!.frames >= sim.ledger().frames);
    // The first round was before the subscription: what lies between the two is asked for by the next one.
    pass(1800);
    await settle();
    assert.deepEqual(await alerter.turn(NEVER), []);
    pass(900);
    await settle();
    assert.deepEqual(await alerter.turn(NEVER), []);
    const bySource = async () =>
      Object.fromEntries(
        await pipeline.query(
          `SELECT data_source, count() FROM ${database}.candles WHERE symbol = 'SOL-USDC' GROUP BY data_source`,
        ),
      );
    const first = await bySource();
    assert.ok(Number(first.socket) >= 13 && Number(first.rest) >= 4999, JSON.stringify(first));
    // In one step: nobody can be back before the ten minutes are over.
    sim.apply({ action: 'close', exchange: EXCHANGE });
    pass(600);
    await waitFor('the end of the connection', READY_MS, async () => alerter.sockets!.reconnects === 1);
    await waitFor('the next connection', READY_MS, async () => alerter.sockets!.connections === 1);
    pass(600);
    await alerter.turn(NEVER);
    const between = Number((await bySource()).socket);
    pass(1200);
    await waitFor('frames of it', READY_MS, async () => alerter.sockets!.frames > 100);
    assert.deepEqual(await alerter.turn(NEVER), []);
    assert.equal(Number(first.socket), between, 'nothing is stored after a hole');
    pass(60);
    for (const coin of ['BTC', 'SOL']) await assertStored(coin, '1m');
    await assertOnce();
    const { round } = state();
    assert.deepEqual([round.candles_different, round.candles_lost, round.bad_candles], [0, 0, 0]);
  });

  test('leave a candle as it was stored when the venue tells it differently, and say so; a refusal is obeyed', async () => {
    await life({ coin: 'SOL' });
    const before = await stored('SOL', '5m');
    sim.apply({ action: 'leave', exchange: EXCHANGE, symbol: 'SOL-USDC', ago: 1200 });
    pass(1800);
    assert.deepEqual(await life({ coin: 'SOL' }), []);
    assert.ok(state().round.candles_different >= 3);
    assert.deepEqual((await stored('SOL', '5m')).slice(0, before.length), before);
    pass(1800);
    sim.apply({ action: 'rest', exchange: EXCHANGE, status: 403, count: 100 });
    const asked = sim.ledger().rest_requests;
    assert.match((await life({ coin: 'SOL' }))[0]!, /^meta: HTTP 403/);
    assert.match((await life({ coin: 'SOL' }))[0]!, /^meta: HTTP 403/);
    assert.equal(sim.ledger().rest_requests, asked + 1, 'asked once, and not again for a while');
  });

  test('killed at any moment leave no candle twice, and none out', async () => {
    const args = ['--import', 'tsx', SCRIPT, '--once', '--coin', 'SOL', '--timeframes', '5m', '--periods', '1d,7d'];
    const run = async (more: NodeJS.ProcessEnv) => {
      const child = spawn(process.execPath, args, {
        cwd: ROOT,
        env: env(more),
        stdio: ['ignore', 'ignore', 'inherit'],
      });
      return new Promise((done) => child.once('close', (code, signal) => done(signal ?? code)));
    };
    assert.equal(await run({ MARKETPRISM_CRASH_AT: 'store.inserting@2', LOG_LEVEL: 'silent' }), 'SIGKILL');
    assert.equal(await run({ MARKETPRISM_CRASH_AT: 'store.inserting@2', LOG_LEVEL: 'silent' }), 'SIGKILL');
    pass(600);
    assert.equal(await run({ LOG_LEVEL: 'silent' }), 0);
    pass(60);
    for (const coin of ['BTC', 'SOL']) await assertStored(coin, '5m');
    await assertOnce();
  });

  test('stop within a round, at once', async () => {
    const child = spawn(process.execPath, ['--import', 'tsx', SCRIPT, '--interval', '10'], {
      ...{ cwd: ROOT, env: env(), stdio: ['ignore', 'pipe', 'inherit'] },
    });
    const end = new Promise((done) => child.once('close', (code, signal) => done(signal ?? code)));
    let log = '';
    child.stdout!.on('data', (chunk: Buffer) => (log += chunk));
    await waitFor('the first candles', READY_MS, async () => sim.ledger().rest_requests > 2);
    child.kill('SIGTERM');
    assert.equal(await end, 0);
    assert.ok(!log.includes('"event":"round"') && log.includes('"event":"stopped"'), log);
    await assertOnce();
  });

  test('one after the other keep all candles once, in memory that does not grow', async (t) => {
    const alerter = await open({ isOnce: false });
    const figures: { heap: number; rss: number }[] = [];
    assert.deepEqual(await alerter.turn(NEVER), []);
    for (let round = 0; round < ROUNDS; round++) {
      pass(1800);
      const frames = sim.ledger().frames;
      await waitFor(
        'its frames',
        READY_MS,
        async () => alerter.sockets!.connections === 1 && alerter.sockets!.frames >= frames,
      );
      assert.deepEqual(await alerter.turn(NEVER), []);
      if (round % 24 === 23 || round === ROUNDS - 1) {
        collectGarbage();
        figures.push({ heap: process.memoryUsage().heapUsed, rss: process.memoryUsage().rss });
      }
    }
    const shown = figures
      .map(({ heap, rss }) => `${(heap / 2 ** 20).toFixed(1)}/${(rss / 2 ** 20).toFixed(0)}`)
      .join(' ');
    t.diagnostic(`${ROUNDS} rounds: heap/rss MiB, simulator included, each half day: ${shown}`);
    if (figures.length > 4) assert.ok(figures.at(-1)!.heap < figures[1]!.heap * 1.1, shown);
    const { round } = state();
    assert.deepEqual([round.coins, round.rows, round.rows_without_corr, round.candles_different], [3, 6, 0, 0]);
    assert.deepEqual([round.errors, round.candles_lost, round.bad_candles], [0, 0, 0]);
    const rows = await stored('BNB', '5m');
    assert.ok(rows.length >= 5000 + ROUNDS * 6 - 2, `${rows.length}`);
    assert.ok(rows.every(([start], i) => i === 0 || Number(start) - Number(rows[i - 1]![0]) === 300_000));
    await assertOnce();
  });

  test('tell a planted anomaly once, and its end once, in the shape that Lark takes, whatever is lost on the way', async () => {
    const receiver = new Receiver();
    const proxy = new LossyProxy(await freePort());
    await receiver.listen();
    await proxy.listen();
    const notify = { MARKETPRISM_API_TOKEN: TOKEN, MONITOR_HTTP_PORT: String(proxy.port) };
    const given = { coin: 'SOL' } as const;
    sim.apply({ action: 'leave', exchange: EXCHANGE, symbol: 'SOL-USDC', ago: 86_400 });
    // Nobody is there to tell it.
    assert.match((await life(given, notify))[0]!, /^1 not told: the monitor does not answer/);
    const [begin] = written();
    assert.deepEqual(
      [written().length, begin.event, begin.coin, Object.keys(state().standing)],
      [1, 'begin', 'SOL', ['SOL']],
    );
    assert.ok(begin.long > 0.6 && begin.short < 0.3 && begin.rows.length === 2, JSON.stringify(begin));
    const monitor = new Child(
      scriptPlan(
        'monitor',
        [],
        {
          ...env({ ...notify, MONITOR_HTTP_PORT: String(proxy.target), LARKBOT_ID: receiver.url }),
          // No round of the monitor in this test.
          HEALTH_GRACE_SECONDS: '86400',
        },
        join(dir, 'logs'),
      ),
      () => false,
    );
    try {
      monitor.start();
      await waitFor('the monitor', READY_MS, async () =>
        fetch(`http://127.0.0.1:${proxy.target}/ping`).then(
          ({ ok }) => ok,
          () => false,
        ),
      );
      proxy.loses = true;
      assert.match((await life(given, notify))[0]!, /^1 not told/);
      assert.deepEqual([receiver.bodies.length, state().untold.length], [1, 1], 'told, and the answer is lost');
      proxy.loses = false;
      assert.deepEqual(await life(given, notify), []);
      pass(600);
      assert.deepEqual(await life(given, notify), []);
      assert.deepEqual([receiver.bodies.length, state().untold.length, written().length], [1, 0, 1]);
      const { msg_type, content } = receiver.bodies[0]!;
      assert.equal(msg_type, 'text');
      assert.match(
        content.text,
        /^MarketPrism \S+: SOL correlation anomaly\nexchange: hyperliquid\ncoin: SOL-USDC\n +corr +timeframe +period +lag\n.*\n.*\ndiff: 0\.\d{4}\nsince /,
      );
      sim.apply({ action: 'join', exchange: EXCHANGE, symbol: 'SOL-USDC' });
      pass(86_400);
      // The state of before: the end is found again, and told under the same name.
      const before = readFileSync(join(dir, 'state', 'correlation_alert.json'), 'utf8');
      assert.deepEqual(await life(given, notify), []);
      writeFileSync(join(dir, 'state', 'correlation_alert.json'), before);
      assert.deepEqual(await life(given, notify), []);
      assert.deepEqual(
        written().map(({ id }) => id),
        [begin.id, begin.id.replace('BEGIN', 'END')],
      );
      assert.equal(receiver.bodies.length, 2);
      assert.match(receiver.bodies[1]!.content.text, /^MarketPrism \S+: SOL correlation as usual again\n/);
      assert.deepEqual([state().standing, state().untold, state().error], [{}, [], null]);
    } finally {
      await monitor.stop();
      await proxy.close();
      await receiver.close();
    }
  });
});

/** A bot of Lark, as far as it is asked. */
class Receiver {
  readonly bodies: { msg_type: string; content: { text: string } }[] = [];
  private readonly server = createServer((incoming, response) => {
    let text = '';
    incoming.on('data', (chunk: Buffer) => (text += chunk));
    incoming.on('end', () => {
      this.bodies.push(JSON.parse(text));
      response.end('{"code":0,"msg":"success"}');
    });
  });

  listen(): Promise<void> {
    return new Promise((done) => this.server.listen(0, '127.0.0.1', done));
  }

  get url(): string {
    return `http://127.0.0.1:${(this.server.address() as AddressInfo).port}/hook`;
  }

  close(): Promise<void> {
    this.server.closeAllConnections();
    return new Promise((done) => this.server.close(() => done()));
  }
}

/** Before the monitor: while it loses answers, the monitor has them, and who asked has not. */
class LossyProxy {
  loses = false;
  private readonly server = createServer((incoming, outgoing) => {
    const { method, url: path, headers } = incoming;
    const onward = request({ host: '127.0.0.1', port: this.target, method, path, headers }, (answer) => {
      if (this.loses) {
        answer.resume();
        answer.on('end', () => incoming.socket.destroy());
        return;
      }
      outgoing.writeHead(answer.statusCode!, answer.headers);
      answer.pipe(outgoing);
    });
    onward.on('error', () => incoming.socket.destroy());
    incoming.pipe(onward);
  });

  /** @param target the port of the monitor */
  constructor(readonly target: number) {}

  listen(): Promise<void> {
    return new Promise((done) => this.server.listen(0, '127.0.0.1', done));
  }

  get port(): number {
    return (this.server.address() as AddressInfo).port;
  }

  close(): Promise<void> {
    this.server.closeAllConnections();
    return new Promise((done) => this.server.close(() => done()));
  }
}
