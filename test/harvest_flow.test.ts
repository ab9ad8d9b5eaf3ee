/** The harvester as a process: real broker, real engine, kill -9, and sinks that are away. */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { after, afterEach, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { headers, type JetStreamClient } from 'nats';
import { HarvestCore } from '../scripts/lib/harvest/core.ts';
import type { HarvestInput } from '../scripts/lib/harvest/input.ts';
import { HARVEST_KINDS, type HarvestRow, placePath, SIGNAL_KINDS } from '../scripts/lib/harvest/kinds.ts';
import { ensureStreams, MODE_HEADER } from '../scripts/lib/jetstream.ts';
import { createLogger } from '../scripts/lib/log.ts';
import { waitFor } from '../scripts/lib/processes.ts';
import { streamDefinitions, subjectOf } from '../scripts/lib/streams.ts';
import { lineOf, randomOf, seededMarket } from './harvest_inputs.ts';
import { Pipeline, READY_MS } from './pipeline.ts';

const ROOT = join(import.meta.dirname, '..');
const EXCHANGE = 'binance_derivatives';

/** Without showing thousands of lines where they are not the same. */
function sameLines(actual: readonly string[], expected: readonly string[], path: string): void {
  const at = expected.findIndex((line, i) => actual[i] !== line);
  if (at < 0 && actual.length === expected.length) return;
  const doubled = actual.length - new Set(actual).size;
  assert.fail(
    `${path}: ${actual.length} lines (${doubled} twice), not ${expected.length}; line ${at + 1}: ${actual[at]}`,
  );
}

describe('the harvester', () => {
  const pipeline = new Pipeline({ MARKETPRISM_HARVEST_CHECKPOINT: '1s' });
  let js: JetStreamClient;
  let running: ChildProcess | null = null;
  let said = '';

  before(async () => {
    await pipeline.choosePorts();
    await pipeline.startBroker();
    await pipeline.startDatabase();
    const nats = await pipeline.nats();
    await ensureStreams(await nats.jetstreamManager(), streamDefinitions(), createLogger('test', 'silent'));
    js = nats.jetstream();
  });
  // One that a failed test left behind is not to spoil the next one.
  afterEach(async () => {
    if (running === null) return;
    running.kill('SIGKILL');
    await ended(running);
  });
  after(() => pipeline.close());

  function start(args: string[] = [], env: NodeJS.ProcessEnv = {}): ChildProcess {
    said = '';
    const child = spawn(process.execPath, ['--import', 'tsx', join(ROOT, 'scripts/ofi_cvd_harvester.ts'), ...args], {
      env: { ...pipeline.env, ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    for (const stream of [child.stdout!, child.stderr!]) stream.on('data', (text) => (said += text));
    running = child;
    return child;
  }

  async function ended(child: ChildProcess): Promise<number | null> {
    if (child.exitCode === null && child.signalCode === null) await new Promise((done) => child.once('exit', done));
    running = null;
    return child.exitCode;
  }

  async function once(env: NodeJS.ProcessEnv = {}): Promise<void> {
    assert.equal(await ended(start(['--once'], env)), 0, said);
  }

  async function publish(inputs: readonly HarvestInput[], mode = 'live'): Promise<void> {
    const about = headers();
    about.set(MODE_HEADER, mode);
    const groups = new Map<string, string[]>();
    for (const input of inputs) {
      const { exchange, market_type, symbol } = input.row;
      const subject = subjectOf({ type: input.type, exchange, market_type, symbol });
      const { type: _type, ...row } = JSON.parse(lineOf(input)) as Record<string, unknown>;
      const lines = groups.get(subject) ?? [];
      groups.set(subject, lines);
      lines.push(JSON.stringify(row));
    }
    // Until the broker says that it has it: one that was killed may have it all the same, and then has it twice.
    for (const [subject, lines] of groups) {
      const once = () => js.publish(subject, lines.join('\n'), { headers: about, timeout: 2000 }).then(() => true);
      await waitFor('the broker to take a message', READY_MS, () => once().catch(() => false));
    }
  }

  /** What the core tells of all that was published, by file. */
  function expectedOf(inputs: readonly HarvestInput[]): Map<string, string[]> {
    const files = new Map<string, string[]>();
    const core = new HarvestCore((row: HarvestRow) => {
      const path = `${placePath(row)}.jsonl`;
      const lines = files.get(path) ?? [];
      files.set(path, lines);
      lines.push(JSON.stringify(row));
    });
    for (const input of inputs) core.take(input);
    core.settleAll();
    return files;
  }

  const rootDir = () => join(pipeline.dir, 'harvest');
  const linesOf = (path: string) => {
    const file = join(rootDir(), path);
    return existsSync(file) ? readFileSync(file, 'utf8').trimEnd().split('\n') : [];
  };

  async function tableCounts(symbols: string[]) {
    const counts: Record<string, [number, number]> = {};
    for (const kind of SIGNAL_KINDS) {
      const list = symbols.map((symbol) => `'${symbol}'`).join(', ');
      const [row] = await pipeline.query(
        `SELECT count(), uniqExact(row_id) FROM marketprism_signals.${kind} WHERE symbol IN (${list})`,
      );
      counts[kind] = [Number(row![0]), Number(row![1])];
    }
    return counts;
  }

  function expectedCounts(files: Map<string, string[]>) {
    const counts: Record<string, [number, number]> = {};
    for (const kind of SIGNAL_KINDS) {
      let count = 0;
      for (const [path, lines] of files) if (path.endsWith(`/kind=${kind}.jsonl`)) count += lines.length;
      counts[kind] = [count, count];
    }
    return counts;
  }

  const letterFiles = (kind: string) => {
    const directory = join(pipeline.dir, 'deadletter', kind);
    return existsSync(directory) ? readdirSync(directory).filter((name) => name.endsWith('.ndjson')) : [];
  };

  test('killed again and again, it writes the bytes of the pure core, each row once in its file and its table', async () => {
    // Over the turn of an hour, and of the day.
    const from = Date.UTC(2026, 10, 30, 23, 59, 20);
    const markets = ['BTC-USDT', 'ETH-USDT'].map((symbol, i) =>
      seededMarket({ seed: i + 1, from, seconds: 90, symbol }),
    );
    const all = markets.flat().sort((one, other) => one.row.timestamp - other.row.timestamp);
    const trades = all.filter(({ type }) => type === 'trade');
    const books = all.filter(({ type }) => type !== 'trade');
    const random = randomOf(11);
    const feed = async () => {
      let [t, b] = [0, 0];
      while (t < trades.length || b < books.length) {
        // A second of both markets at most: a message is of one market, and the others' rows of its time come after it.
        const [moreTrades, moreBooks] = [Math.floor(random() * 8), Math.floor(random() * 20)];
        await publish(trades.slice(t, t + moreTrades));
        await publish(books.slice(b, b + moreBooks));
        t += moreTrades;
        b += moreBooks;
        await sleep(40);
      }
    };
    const feeding = feed();
    let fed = false;
    void feeding.finally(() => (fed = true));
    let kills = 0;
    while (!fed || kills < 3) {
      const child = start();
      await waitFor(
        'the harvester to begin',
        READY_MS,
        async () => said.includes('"started"') || child.exitCode !== null,
      );
      await sleep(300 + Math.floor(random() * 2500));
      child.kill('SIGKILL');
      await ended(child);
      kills += 1;
    }
    await feeding;
    await once();
    const expected = expectedOf(all);
    assert.ok(expected.size >= 2 * 2 * 7, 'two symbols, two days, seven kinds');
    for (const [path, lines] of expected) sameLines(linesOf(path), lines, path);
    assert.deepEqual(await tableCounts(['BTC-USDT', 'ETH-USDT']), expectedCounts(expected));
    for (const kind of HARVEST_KINDS) assert.deepEqual(letterFiles(kind), [], kind);
    // A stop keeps everything: nothing is read again.
    const child = start();
    await waitFor('the harvester to begin', READY_MS, async () => said.includes('"started"'));
    child.kill('SIGTERM');
    assert.equal(await ended(child), 0);
    for (const [path, lines] of expected) sameLines(linesOf(path), lines, path);
  });

  test('a file that cannot be written puts its rows into the deadletter once, the others are written, and a replay brings them', async () => {
    const from = Date.UTC(2026, 11, 1, 5, 0, 0);
    const all = seededMarket({ seed: 5, from, seconds: 20, symbol: 'SOL-USDT' });
    const blocked = `${placePath({ date: '2026-12-01', hour: '05', symbol: 'SOL-USDT', kind: 'ofi' })}.jsonl`;
    mkdirSync(join(rootDir(), blocked), { recursive: true });
    await publish(all);
    await once();
    const expected = expectedOf(all);
    for (const [path, lines] of expected) if (path !== blocked) sameLines(linesOf(path), lines, path);
    assert.equal(letterFiles('ofi').length, 1);
    for (const kind of HARVEST_KINDS) if (kind !== 'ofi') assert.deepEqual(letterFiles(kind), [], kind);
    rmSync(join(rootDir(), blocked), { recursive: true });
    await replay();
    sameLines(linesOf(blocked), expected.get(blocked)!, blocked);
    assert.deepEqual(await tableCounts(['SOL-USDT']), expectedCounts(expected));
    assert.deepEqual(letterFiles('ofi'), []);
  });

  test('a database that hangs: derived rows are spilled at the emergency watermark, received ones never, and all come back', async () => {
    const from = Date.UTC(2026, 11, 1, 7, 0, 0);
    const all = seededMarket({ seed: 8, from, seconds: 400, symbol: 'XRP-USDT' });
    const marks = Object.fromEntries(
      HARVEST_KINDS.map((kind) => [`MARKETPRISM_WATERMARK_${kind.toUpperCase()}`, '100,200']),
    );
    const database = pipeline.children.get('clickhouse_embedded')!;
    const child = start([], { ...marks, MARKETPRISM_HARVEST_CHECKPOINT: '1h' });
    await waitFor('the harvester to begin', READY_MS, async () => said.includes('"started"'));
    process.kill(database.pid!, 'SIGSTOP');
    try {
      // Little by little: how many rows one save takes depends on how many are read at once.
      for (let at = 0; at < all.length; at += 60) await publish(all.slice(at, at + 60));
      await waitFor('a spill', READY_MS, async () => letterFiles('fusion').length > 0 && letterFiles('cvd').length > 0);
    } finally {
      process.kill(database.pid!, 'SIGCONT');
    }
    assert.match(said, /"event":"spill","kind":"fusion"/);
    // What needs no table is saved all the while.
    assert.doesNotMatch(said, /reading_stops/);
    child.kill('SIGTERM');
    await ended(child);
    await once(marks);
    await replay();
    const expected = expectedOf(all);
    for (const [path, lines] of expected) {
      const isRaw = /kind=(?:prices|orderbook)\./.test(path);
      // What was spilled comes later into its file.
      if (isRaw) sameLines(linesOf(path), lines, path);
      else sameLines(linesOf(path).sort(), [...lines].sort(), path);
    }
    assert.deepEqual(await tableCounts(['XRP-USDT']), expectedCounts(expected));
    for (const kind of ['prices', 'orderbook']) assert.ok(!existsSync(join(pipeline.dir, 'deadletter', kind)), kind);
  });

  test('a broker that is killed and comes back: nothing is missing, twice or out of order', async () => {
    const from = Date.UTC(2026, 11, 1, 8, 0, 0);
    const all = seededMarket({ seed: 12, from, seconds: 60, symbol: 'ADA-USDT' });
    const child = start();
    await waitFor('the harvester to begin', READY_MS, async () => said.includes('"started"'));
    for (let at = 0; at < all.length; at += 30) {
      if (at === 300 || at === 600) {
        await pipeline.kill('nats-server');
        await pipeline.brokerReady();
      }
      await publish(all.slice(at, at + 30));
    }
    const expected = expectedOf(all);
    const prices = `${placePath({ date: '2026-12-01', hour: '08', symbol: 'ADA-USDT', kind: 'prices' })}.jsonl`;
    await waitFor('all rows', READY_MS, async () => linesOf(prices).length >= expected.get(prices)!.length);
    child.kill('SIGTERM');
    assert.equal(await ended(child), 0, said);
    for (const [path, lines] of expected) sameLines(linesOf(path), lines, path);
    assert.deepEqual(await tableCounts(['ADA-USDT']), expectedCounts(expected));
  });

  test('rows of the other mode and of other exchanges are not taken', async () => {
    const from = Date.UTC(2026, 11, 1, 9, 0, 0);
    const all = seededMarket({ seed: 9, from, seconds: 5, symbol: 'DOGE-USDT' });
    await publish(all, 'demo');
    await publish(all.map(({ type, row }) => ({ type, row: { ...row, exchange: 'okx_derivatives' } }) as HarvestInput));
    await once();
    assert.ok(!existsSync(join(rootDir(), 'date=2026-12-01', 'hour=09')));
    const figures = JSON.parse(readFileSync(join(pipeline.dir, 'state', `ofi_cvd_harvester_${EXCHANGE}.json`), 'utf8'));
    assert.ok(figures.other_mode > 0);
  });

  test('only one process harvests an exchange, and wrong flags are told in a line', async () => {
    const first = start();
    await waitFor('the harvester to begin', READY_MS, async () => said.includes('"started"'));
    const second = start(['--once']);
    assert.equal(await ended(second), 1);
    assert.match(said, /harvest binance_derivatives/);
    first.kill('SIGTERM');
    assert.equal(await ended(first), 0);
    const wrong = start(['--exchange', 'nasdaq']);
    assert.equal(await ended(wrong), 64);
    assert.match(said, /^--exchange takes one of .*, not "nasdaq"\n$/);
  });

  async function replay(): Promise<void> {
    const child = spawn(process.execPath, ['--import', 'tsx', join(ROOT, 'scripts/deadletter.ts'), 'replay'], {
      env: pipeline.env,
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    let text = '';
    for (const stream of [child.stdout!, child.stderr!]) stream.on('data', (piece) => (text += piece));
    await new Promise((done) => child.once('exit', done));
    assert.equal(child.exitCode, 0, text);
  }
});
