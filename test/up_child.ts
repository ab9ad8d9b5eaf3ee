/** `npm start` as a child of a test, and what its reports say. */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { LedgerReport } from '../scripts/lib/ledger.ts';
import { waitFor } from '../scripts/lib/processes.ts';
import { Pipeline, READY_MS } from './pipeline.ts';

const UP = join(import.meta.dirname, '..', 'scripts', 'up.ts');

/** `npm start` with ports and data of its own. */
export class Up {
  readonly dir = mkdtempSync(join(tmpdir(), 'marketprism-up-'));
  readonly pipeline = new Pipeline();
  output = '';
  errors = '';
  private process: ChildProcess | null = null;
  private readonly all: ChildProcess[] = [];
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
      MONITOR_HTTP_PORT: String(ports.monitor),
      WEB_HTTP_PORT: String(ports.web),
    };
    this.output = '';
    this.errors = '';
    const child = spawn(process.execPath, all, { env: { ...own, ...env }, stdio: ['ignore', 'pipe', 'pipe'] });
    this.process = child;
    this.all.push(child);
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
    // A test that fails leaves its own one behind.
    for (const child of this.all) child.kill('SIGKILL');
    rmSync(this.dir, { recursive: true, force: true });
    rmSync(this.pipeline.dir, { recursive: true, force: true });
  }
}

export function processes(): { pid: number; parent: number; command: string }[] {
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
export function using(directory: string): number[] {
  return processes()
    .filter(({ command }) => command.includes(directory))
    .map(({ pid }) => pid);
}

/** What each exchange has in any run, however short; liquidations come when they come. */
export const EXPECTED = [
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
export function comesAgain({ exchange, data_type: type }: { exchange: string; data_type: string }): boolean {
  const isPolled = type.startsWith('lsr_') || type === 'volatility_index';
  // Hyperliquid's readings have no time of their own, so they are of their minute; its first trades are a backlog.
  if (exchange === 'hyperliquid') return ['trade', 'funding_rate', 'open_interest'].includes(type);
  return isPolled || (exchange === 'deribit_derivatives' && type === 'liquidation');
}

export function streamsOf(report: LedgerReport): string[] {
  const types = report.rows.filter((row) => row.data_type !== 'liquidation');
  return types.map((row) => `${row.exchange} ${row.data_type}`);
}

/** Gaps are left out: they come of kills and pauses, and are none of what an exchange sent. */
export function reportOf(up: Up): LedgerReport {
  const report = JSON.parse(readFileSync(join(up.dir, 'report.json'), 'utf8')) as LedgerReport;
  return { ...report, rows: report.rows.filter((row) => row.data_type !== 'gap') };
}
