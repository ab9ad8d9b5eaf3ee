import assert from 'node:assert/strict';
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { MONITOR_OFFSET } from '../scripts/lib/broker.ts';
import { freePort } from '../scripts/lib/free_port.ts';
import type { LedgerReport } from '../scripts/lib/ledger.ts';
import { waitFor } from '../scripts/lib/processes.ts';
import { EXCHANGES } from '../scripts/lib/rows.ts';
import { Pipeline, READY_MS } from './pipeline.ts';

const UP = join(import.meta.dirname, '..', 'scripts', 'up.ts');

/** `npm start` with ports and data of its own. */
class Up {
  readonly dir = mkdtempSync(join(tmpdir(), 'marketprism-up-'));
  readonly pipeline = new Pipeline();
  output = '';
  errors = '';
  private process: ChildProcess | null = null;
  private ended: Promise<{ code: number | null; signal: string | null }> | null = null;

  async start(args: string[], env: NodeJS.ProcessEnv = {}): Promise<void> {
    if (this.pipeline.ports.nats === 0) await this.pipeline.choosePorts();
    const { ports } = this.pipeline;
    const all = [
      '--import',
      'tsx',
      UP,
      '--nats-port',
      String(ports.nats),
      '--clickhouse-port',
      String(ports.clickhouse),
      ...args,
    ];
    const own = {
      PATH: process.env.PATH,
      MARKETPRISM_DATA_DIR: this.dir,
      HEALTH_CHECK_PORT: String(ports.health),
      METRICS_PORT: String(ports.metrics),
      HOT_STORAGE_HTTP_PORT: String(ports.store),
      COLD_STORAGE_HTTP_PORT: String(ports.replicate),
    };
    this.output = '';
    this.errors = '';
    const child = spawn(process.execPath, all, { env: { ...own, ...env }, stdio: ['ignore', 'pipe', 'pipe'] });
    this.process = child;
    child.stdout!.on('data', (chunk: Buffer) => {
      this.output += chunk.toString();
    });
    child.stderr!.on('data', (chunk: Buffer) => {
      this.errors += chunk.toString();
    });
    this.ended = new Promise((done) => child.once('close', (code, signal) => done({ code, signal })));
  }

  /** Waits until it ended. */
  async end() {
    return this.ended!;
  }

  async run(args: string[], env: NodeJS.ProcessEnv = {}) {
    await this.start(args, env);
    const { code } = await this.end();
    return { code, output: this.output, errors: this.errors };
  }

  signal(name: NodeJS.Signals): void {
    this.process!.kill(name);
  }

  get pid(): number {
    return this.process!.pid!;
  }

  /** Process ids of children whose command line names `part`. */
  children(part: string): number[] {
    return processes()
      .filter(({ parent, command }) => parent === this.pid && command.includes(part))
      .map(({ pid }) => pid);
  }

  async running(): Promise<void> {
    const gone = () => {
      const { exitCode, signalCode } = this.process!;
      if (exitCode === null && signalCode === null) return null;
      return new Error(`npm start ended (${exitCode ?? signalCode}): ${this.output}${this.errors}`);
    };
    try {
      await waitFor('the status line', READY_MS, async () => /received [1-9]/.test(this.output), gone);
    } catch (error) {
      throw new Error(`${(error as Error).message}; it said: ${this.output}${this.errors}`);
    }
  }

  close(): void {
    this.process?.kill('SIGKILL');
    rmSync(this.dir, { recursive: true, force: true });
    rmSync(this.pipeline.dir, { recursive: true, force: true });
  }
}

function processes(): { pid: number; parent: number; command: string }[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .flatMap((name) => {
      try {
        const stat = readFileSync(`/proc/${name}/stat`, 'utf8');
        const parent = Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1]);
        return [
          { pid: Number(name), parent, command: readFileSync(`/proc/${name}/cmdline`, 'utf8').replaceAll('\0', ' ') },
        ];
      } catch (error) {
        // It ended while we looked.
        if (['ENOENT', 'ESRCH'].includes((error as NodeJS.ErrnoException).code ?? '')) return [];
        throw error;
      }
    });
}

/** Processes whose command line names this directory: broker and database do. */
function using(directory: string): number[] {
  return processes()
    .filter(({ command }) => command.includes(directory))
    .map(({ pid }) => pid);
}

/** What each exchange has in any run, however short; liquidations come when they come. */
const EXPECTED = [
  'binance_derivatives funding_rate',
  'binance_derivatives lsr_all_account',
  'binance_derivatives lsr_top_position',
  'binance_derivatives open_interest',
  'binance_derivatives orderbook',
  'binance_derivatives orderbook_update',
  'binance_derivatives trade',
  'binance_spot orderbook',
  'binance_spot orderbook_update',
  'binance_spot trade',
  'deribit_derivatives funding_rate',
  'deribit_derivatives open_interest',
  'deribit_derivatives orderbook',
  'deribit_derivatives orderbook_update',
  'deribit_derivatives trade',
  'deribit_derivatives volatility_index',
  'hyperliquid funding_rate',
  'hyperliquid open_interest',
  'hyperliquid orderbook',
  'hyperliquid orderbook_update',
  'hyperliquid trade',
  'okx_derivatives funding_rate',
  'okx_derivatives lsr_all_account',
  'okx_derivatives lsr_top_position',
  'okx_derivatives open_interest',
  'okx_derivatives orderbook',
  'okx_derivatives orderbook_update',
  'okx_derivatives trade',
  'okx_spot orderbook',
  'okx_spot orderbook_update',
  'okx_spot trade',
];

/** Polled rows, and what a venue tells of the past at a subscription: a second process or round is told them again. */
function comesAgain({ exchange, data_type: type }: { exchange: string; data_type: string }): boolean {
  const isPolled = type.startsWith('lsr_') || type === 'volatility_index';
  // Hyperliquid's readings have no time of their own, so they are of their minute; its first trades are a backlog.
  if (exchange === 'hyperliquid') return ['trade', 'funding_rate', 'open_interest'].includes(type);
  return isPolled || (exchange === 'deribit_derivatives' && type === 'liquidation');
}

function streamsOf(report: LedgerReport): string[] {
  const types = report.rows.filter((row) => row.data_type !== 'liquidation');
  return types.map((row) => `${row.exchange} ${row.data_type}`);
}

/** Gaps are left out: they come of kills and pauses, and are none of what an exchange sent. */
function reportOf(up: Up): LedgerReport {
  const report = JSON.parse(readFileSync(join(up.dir, 'report.json'), 'utf8')) as LedgerReport;
  return { ...report, rows: report.rows.filter((row) => row.data_type !== 'gap') };
}

describe('npm start, as a demo', () => {
  const up = new Up();
  after(() => up.close());

  test('stores all exchanges and all types, each row once, and survives kills of store and database', async () => {
    await up.start(['--demo', '--for', '20s', '--report', join(up.dir, 'report.json')]);
    await up.running();
    for (const part of ['scripts/store.ts', 'scripts/clickhouse_embedded.ts']) {
      const [pid] = up.children(part);
      process.kill(pid!, 'SIGKILL');
      await waitFor(`restart of ${part}`, READY_MS, async () => up.children(part).some((each) => each !== pid));
    }
    assert.deepEqual(await up.end(), { code: 0, signal: null }, up.output + up.errors);
    const report = reportOf(up);
    assert.equal(report.mode, 'demo');
    assert.equal(report.balanced, true);
    assert.deepEqual(streamsOf(report), EXPECTED);
    for (const row of report.rows) {
      assert.ok(row.hot > 0);
      assert.deepEqual(
        [row.received, row.cold, row.gap, row.lost, row.duplicated],
        [row.hot, row.hot, 0, 0, 0],
        row.data_type,
      );
      // A poll's next round may fall into the run: it publishes the same rows again.
      if (comesAgain(row)) assert.ok(row.published >= row.hot);
      else assert.equal(row.published, row.hot, row.data_type);
    }
    assert.match(up.output, /store was killed \(SIGKILL\): starting it again/);
    assert.match(up.output, /restarts [1-9]/);
    assert.match(up.output, /\nbalanced\n$/);
    assert.deepEqual(using(up.dir), [], 'no process is left');
  });

  test('begins from empty databases, streams and data; a kill of the collector doubles nothing, and what was missed is filled or told', async () => {
    const before = reportOf(up);
    const left = ['nats', 'clickhouse', 'state', 'deadletter', 'logs'].map((part) =>
      join(up.dir, 'demo', part, 'left'),
    );
    const live = join(up.dir, 'deadletter', 'left');
    for (const file of [...left, live]) {
      mkdirSync(dirname(file), { recursive: true });
      writeFileSync(file, '');
    }
    await up.start(['--demo', '--for', '12s', '--report', join(up.dir, 'report.json')]);
    await up.running();
    // Before its first row, nothing can tell that a stream misses any.
    const streams = async () =>
      Number(
        (
          await up.pipeline.query(
            "SELECT uniqExact((exchange, symbol)) FROM marketprism_demo_hot.orderbook_updates WHERE exchange != 'hyperliquid' AND NOT is_snapshot",
          )
        )[0]![0],
      );
    await waitFor('rows of all books', READY_MS, async () => (await streams()) === 10);
    const [pid] = up.children('scripts/collector.ts');
    process.kill(pid!, 'SIGKILL');
    const { code } = await up.end();
    assert.deepEqual(
      left.filter((file) => existsSync(file)),
      [],
      'nothing of the run before is left',
    );
    assert.ok(existsSync(live), 'what is not the demo’s is not touched');
    const report = reportOf(up);
    const trades = (each: LedgerReport) =>
      each.rows.find((row) => row.exchange === 'binance_spot' && row.data_type === 'trade')!;
    assert.ok(trades(report).hot < trades(before).hot * 1.5, 'rows of the run before are gone');
    for (const row of report.rows) {
      assert.equal(row.duplicated, 0);
      // What the broker had not answered for is published a second time by the new collector, and is in hot once.
      assert.ok(row.published >= row.hot, `every published ${row.data_type} is in hot`);
      assert.equal(row.received, row.hot, 'every received row is in hot');
    }
    // What was on its way when the collector died is filled, or told as a gap. Liquidations have no ids that count, and no venue serves
    // them again: one that was on its way is told as lost, and nobody but the simulator could know it.
    assert.match(up.output, /looking for what was missed\n[\s\S]*balanced\n$/);
    const lost = report.rows.filter((row) => row.lost > 0);
    const named = lost.map((row) => `${row.exchange} ${row.data_type} ${row.lost}`);
    assert.deepEqual(
      lost.filter((row) => row.data_type !== 'liquidation'),
      [],
      `${named.join(', ')}\n${up.output}`,
    );
    assert.equal(report.balanced, lost.length === 0);
    assert.equal(code, report.balanced ? 0 : 1);
  });

  test('rows that are gone from hot are told as lost, and the exit code says so', async () => {
    await up.start(['--demo', '--for', '6s', '--report', join(up.dir, 'report.json')]);
    await up.running();
    const stored = async () =>
      Number((await up.pipeline.query('SELECT count() FROM marketprism_demo_hot.trades'))[0]![0]);
    await waitFor('stored trades', READY_MS, async () => (await stored()) > 0);
    await up.pipeline.query('TRUNCATE TABLE marketprism_demo_hot.trades');
    assert.deepEqual(await up.end(), { code: 1, signal: null }, up.output + up.errors);
    assert.match(up.output, /\nNOT balanced\n$/);
    const report = reportOf(up);
    assert.equal(report.balanced, false);
    assert.ok(report.rows.filter((row) => row.data_type === 'trade').every((row) => row.lost > 0));
    assert.ok(report.rows.filter((row) => row.data_type !== 'trade').every((row) => row.lost === 0));
  });

  test('stops all in order at SIGINT, and leaves no process behind', async () => {
    await up.start(['--demo']);
    await up.running();
    const mine = up.children('');
    assert.ok(mine.length >= 5);
    up.signal('SIGINT');
    assert.deepEqual(await up.end(), { code: 0, signal: null }, up.output + up.errors);
    assert.match(up.output, /stopping: collector, replication, store, database, broker\n$/);
    const left = processes().filter(({ pid }) => mine.includes(pid));
    assert.deepEqual(left, []);
  });

  test('takes its children along when it is killed itself', async () => {
    await up.start(['--demo']);
    await up.running();
    const mine = up.children('');
    up.signal('SIGKILL');
    await up.end();
    await waitFor('the end of the children', READY_MS, async () => processes().every(({ pid }) => !mine.includes(pid)));
  });
});

describe('npm start, live', () => {
  const up = new Up();
  const others = new Pipeline({ MARKETPRISM_EXCHANGES: EXCHANGES.join(',') });
  before(async () => {
    await others.choosePorts();
    await others.startSimulator([]);
  });
  after(async () => {
    up.close();
    await others.close();
  });
  // Hyperliquid's contexts come seconds after its socket: on a busy machine six were too few to see any.
  const live = ['--live', '--for', '12s'];

  async function balanced(env: NodeJS.ProcessEnv): Promise<void> {
    const endpoints = join(others.dir, 'endpoints.json');
    const report = join(up.dir, 'report.json');
    const { code, output, errors } = await up.run([...live, '--report', report], {
      MARKETPRISM_ENDPOINTS: endpoints,
      ...env,
    });
    assert.equal(code, 0, output + errors);
    const { mode, rows } = reportOf(up);
    assert.equal(mode, 'live');
    assert.deepEqual(streamsOf(reportOf(up)), EXPECTED);
    for (const row of rows) {
      if (comesAgain(row)) assert.ok(row.hot <= row.received && row.received <= row.published);
      else assert.deepEqual([row.published, row.hot], [row.received, row.received], row.data_type);
    }
  }

  test('runs with its own broker and database, and keeps what it stored for the next run, whose ledger is its own', async () => {
    await balanced({});
    await balanced({});
  });

  test('uses a broker and a database that run already, and leaves them running', async () => {
    await others.startBroker();
    await others.startDatabase();
    const { MARKETPRISM_NATS_URL, CLICKHOUSE_URL } = others.env;
    await balanced({ MARKETPRISM_NATS_URL, CLICKHOUSE_URL });
    assert.notEqual((await others.query('SELECT count() FROM marketprism_hot.trades'))[0]![0], '0');
  });

  test('says which of them it cannot reach', async () => {
    const endpoints = { MARKETPRISM_ENDPOINTS: join(others.dir, 'endpoints.json') };
    const closed = await freePort();
    const broker = await up.run(live, { ...endpoints, MARKETPRISM_NATS_URL: `nats://127.0.0.1:${closed}` });
    assert.deepEqual(
      [broker.code, broker.errors],
      [1, `the broker at nats://127.0.0.1:${closed} cannot be reached: CONNECTION_REFUSED\n`],
    );
    const database = await up.run(live, { ...endpoints, CLICKHOUSE_URL: `http://127.0.0.1:${closed}` });
    assert.deepEqual(
      [database.code, database.errors],
      [1, `the database at http://127.0.0.1:${closed} was not ready within 10 s\n`],
    );
    assert.deepEqual(using(up.dir), []);
  });
});

describe('npm start with something wrong says one clear line, and starts nothing', () => {
  const up = new Up();
  before(() => up.pipeline.choosePorts());
  after(() => up.close());

  async function refused(args: string[], env: NodeJS.ProcessEnv, code: number, line: RegExp): Promise<void> {
    const before = using(up.dir);
    const result = await up.run(args, env);
    assert.equal(result.code, code, result.output + result.errors);
    assert.match(result.errors, line);
    assert.equal(result.errors.trimEnd().split('\n').length, 1, result.errors);
    assert.deepEqual(using(up.dir), before, 'nothing was started');
  }

  test('a port in use', async () => {
    for (const port of [
      up.pipeline.ports.nats,
      up.pipeline.ports.nats + MONITOR_OFFSET,
      up.pipeline.ports.clickhouse,
      up.pipeline.ports.store,
      up.pipeline.ports.health,
      up.pipeline.ports.metrics,
    ]) {
      const server = createServer();
      await new Promise<void>((done) => server.listen(port, '127.0.0.1', done));
      await refused(
        ['--demo'],
        {},
        1,
        new RegExp(`^port ${port} is in use: stop what listens there, or choose another one with `),
      );
      await new Promise((done) => server.close(done));
    }
  });

  test('a wrong environment or flag', async () => {
    await refused(
      ['--demo'],
      { MARKETPRISM_SYMBOLS: 'btcusdt' },
      64,
      /^MARKETPRISM_SYMBOLS\.0: takes pairs such as BTC-USDT,ETH-USDT, not "btcusdt"/,
    );
    await refused(['--demo'], { MARKETPRISM_EXCHANGES: 'kraken' }, 64, /^MARKETPRISM_EXCHANGES\.0: .*, not "kraken"/);
    await refused(['--demo'], { LOG_LEVEL: 'loud' }, 64, /^LOG_LEVEL: /);
    await refused(
      ['--demo'],
      { CLICKHOUSE_URL: 'http://127.0.0.1:1' },
      64,
      /^a demo uses only a broker and a database that it starts itself: unset CLICKHOUSE_URL/,
    );
    await refused(['--demo', '--live'], {}, 64, /^--live and --demo exclude each other/);
    await refused(['--demo', '--for', 'soon'], {}, 64, /^--for takes a time such as/);
    await refused(['--now'], {}, 64, /^Unknown option '--now'/);
  });

  test('no exchange to be reached in live mode', async () => {
    const closed = await freePort();
    const file = join(up.dir, 'endpoints.json');
    const hosts = { ws: `ws://127.0.0.1:${closed}`, rest: `http://127.0.0.1:${closed}` };
    writeFileSync(file, JSON.stringify({ binance_spot: hosts, binance_derivatives: hosts }));
    await refused(
      ['--live'],
      { MARKETPRISM_ENDPOINTS: file },
      1,
      /^no exchange can be reached \(.*ECONNREFUSED\); npm start -- --demo runs with simulated ones/,
    );
  });

  test('a data directory that cannot be', async () => {
    writeFileSync(join(up.dir, 'file'), '');
    const directory = join(up.dir, 'file', 'data');
    await refused(
      ['--demo'],
      { MARKETPRISM_DATA_DIR: directory },
      1,
      /^cannot write to the data directory \S+: ENOTDIR/,
    );
  });

  test('a full disk', async (context) => {
    const directory = join(up.dir, 'small');
    mkdirSync(directory);
    const mounted = spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=8m', 'tmpfs', directory]);
    if (mounted.status !== 0) {
      context.skip(`a small disk cannot be mounted here: ${mounted.stderr}`);
      return;
    }
    try {
      await refused(
        ['--demo'],
        { MARKETPRISM_DATA_DIR: directory },
        1,
        /^only \d+ MiB are free at \S+: at least 1024 MiB are needed/,
      );
    } finally {
      spawnSync('umount', [directory]);
    }
  });

  test('a second start in the same data directory', async () => {
    const other = new Up();
    try {
      await other.start(['--demo'], { MARKETPRISM_DATA_DIR: up.dir });
      await other.running();
      await refused(['--demo'], {}, 1, /^npm start in \S+ is already held \(pid \d+, since /);
      other.signal('SIGTERM');
      assert.equal((await other.end()).code, 0);
    } finally {
      other.close();
    }
  });
});
