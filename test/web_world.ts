/** Something of everything that the web API answers from: a real engine with rows of each type, the desk's files, the harvest, and a monitor. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { insertLines } from '../scripts/lib/clickhouse.ts';
import { type Config, loadConfig } from '../scripts/lib/config.ts';
import { freePort } from '../scripts/lib/free_port.ts';
import { dateHour, placePath, RAW_KINDS, SIGNAL_KINDS } from '../scripts/lib/harvest/kinds.ts';
import { rootOf } from '../scripts/lib/harvest/letters.ts';
import { storeRows } from '../scripts/lib/harvest/table.ts';
import { createLogger } from '../scripts/lib/log.ts';
import { Child, type ChildExit, scriptPlan, waitFor } from '../scripts/lib/processes.ts';
import { type DataType, encodeRow, type RowSource, type Rows, TABLES } from '../scripts/lib/rows.ts';
import { ensureSignals, ensureTier, ensureViews } from '../scripts/lib/schema.ts';
import { writeHistory } from './desk_history.ts';
import { sampleTrade } from './fixtures.ts';
import { harvestRow } from './harvest_rows.ts';
import { Pipeline, READY_MS } from './pipeline.ts';

const SECOND = 1000;
const MINUTE = 60 * SECOND;
const HALF_HOUR = 30 * MINUTE;
/** Symbols of which there are rows. */
export const SYMBOLS = ['BTC-USDT', 'ETH-USDT'];
const TRADES = 600;

export class WebWorld {
  /** At this level the engine tells which queries ended before their answer. */
  readonly pipeline = new Pipeline({ LOG_LEVEL: 'debug' });
  /** What is there ends here, ms: a whole half hour that is over. */
  readonly end = Math.floor(Date.now() / HALF_HOUR) * HALF_HOUR;
  readonly exits: ChildExit[] = [];
  private readonly children: Child[] = [];
  private monitorPort = 0;

  /** @param secrets which no answer may hold */
  constructor(readonly secrets: { token: string; password: string }) {}

  get env(): NodeJS.ProcessEnv {
    return {
      ...this.pipeline.env,
      MARKETPRISM_API_TOKEN: this.secrets.token,
      CLICKHOUSE_PASSWORD: this.secrets.password,
      MONITOR_HTTP_PORT: String(this.monitorPort),
      HEALTH_GRACE_SECONDS: '0',
    };
  }

  get config(): Config {
    return loadConfig(this.env);
  }

  async open(): Promise<void> {
    const { pipeline } = this;
    await pipeline.choosePorts();
    this.monitorPort = await freePort();
    await pipeline.startDatabase();
    const { config } = this;
    const client = pipeline.client();
    await ensureTier(client, 'hot', config.hotDatabase);
    await ensureTier(client, 'cold', config.coldDatabase);
    await ensureViews(client, config, createLogger('test', 'silent'));
    await ensureSignals(client, config.signalsDatabase);
    for (const type of Object.keys(TABLES) as DataType[]) await this.insert(type);
    await this.harvest();
    writeHistory(pipeline.dir, { end: this.end, days: 1 });
  }

  /** A script as a process of its own, until the world ends. @param answers whether it is there */
  async run(script: string, env: NodeJS.ProcessEnv, answers: () => Promise<boolean>): Promise<Child> {
    const child = new Child(scriptPlan(script, [], { ...this.env, ...env }, this.pipeline.logDir), (exit) => {
      this.exits.push(exit);
      return false;
    });
    this.children.push(child);
    child.start();
    await waitFor(script, READY_MS, answers);
    return child;
  }

  async runMonitor(): Promise<void> {
    const url = `http://127.0.0.1:${this.monitorPort}/api/monitoring/data-consistency/rounds`;
    await this.run('monitor', {}, async () => {
      const answer = await fetch(url).catch(() => null);
      return answer?.ok === true && ((await answer.json()) as { total: number }).total > 0;
    });
  }

  async close(): Promise<void> {
    for (const child of this.children.reverse()) await child.stop();
    await this.pipeline.close();
  }

  private async insert<T extends DataType>(type: T): Promise<void> {
    const lines = rowsOf(type, this.end).map(
      (row, i) => `${encodeRow(type, row).slice(0, -1)},"js_epoch":1,"js_seq":${i + 1}}\n`,
    );
    const table = `${this.config.hotDatabase}.${TABLES[type].name}`;
    await insertLines(this.pipeline.client(), table, Buffer.from(lines.join('')), `test:${type}`);
  }

  private async harvest(): Promise<void> {
    const { end, pipeline, config } = this;
    const never = new AbortController().signal;
    const at = (n: number) => ({ at: end - 5 * MINUTE + n * SECOND });
    for (const kind of SIGNAL_KINDS) {
      const rows = Array.from({ length: 120 }, (_, n) => harvestRow(kind, n, at(n)));
      await storeRows(pipeline.client(), config.signalsDatabase, kind, rows, never);
    }
    for (const kind of RAW_KINDS) {
      const rows = Array.from({ length: 50 }, (_, n) => harvestRow(kind, n, at(n)));
      const place = placePath({ ...dateHour(end - 5 * MINUTE), symbol: 'BTC-USDT', kind });
      const path = join(rootOf(pipeline.dir, 'binance_derivatives'), place);
      mkdirSync(dirname(path), { recursive: true });
      writeFileSync(path, rows.map((row) => `${JSON.stringify(row)}\n`).join(''));
    }
  }
}

/** Rows of the half hour before a time, of two symbols and two markets. */
function rowsOf<T extends DataType>(type: T, end: number): Rows[T][] {
  const markets = [
    { exchange: 'binance_spot', market_type: 'spot' },
    { exchange: 'binance_derivatives', market_type: 'perpetual' },
  ] as const;
  const rows: unknown[] = [];
  for (const symbol of SYMBOLS) {
    for (const market of markets) {
      const count = type === 'trade' ? TRADES : 60;
      for (let n = 0; n < count; n += 1) {
        const timestamp = end - HALF_HOUR + Math.floor((n * HALF_HOUR) / count);
        const source: RowSource = {
          ...{ ...market, symbol, instrument: symbol.replace('-', ''), timestamp },
          ...{ received_at: (timestamp + 40) * 1000, data_source: 'live' },
        };
        rows.push({ ...source, ...own(type, n, source) });
      }
    }
  }
  return rows as Rows[T][];
}

/** Members of a type's own; the first digits are those of a real market. */
function own(type: DataType, n: number, source: RowSource): object {
  const levels = (sign: number) =>
    Array.from({ length: 20 }, (_, i) => [`${61_000 + sign * (i + 1)}.5`, `${i + 1}.25`]);
  const [bids, asks] = [levels(-1), levels(1)];
  const best = (side: string[][]) => side[0]!;
  const { timestamp } = source;
  const ratio = { period: '5m', long_short_ratio: '1.5' };
  const members: Record<DataType, object> = {
    trade: { ...sampleTrade(n + 1, { price: `61${n}.${n}`, side: n % 3 === 0 ? 'sell' : 'buy' }), ...source },
    orderbook: {
      ...{ last_update_id: 1000 + n * 10, bids, asks, verified: 'verified' },
      ...{ best_bid_price: best(bids)[0], best_bid_quantity: best(bids)[1] },
      ...{ best_ask_price: best(asks)[0], best_ask_quantity: best(asks)[1] },
    },
    orderbook_update: {
      ...{ first_update_id: 1001 + n * 10, last_update_id: 1010 + n * 10, prev_update_id: 1000 + n * 10 },
      ...{ is_snapshot: false, bids: bids.slice(0, 2), asks: [] },
    },
    funding_rate: {
      ...{ funding_rate: '-0.0001', funding_time: null, next_funding_time: timestamp + 8 * 60 * MINUTE },
      ...{ funding_interval_hours: '8', mark_price: null, index_price: '61000.5' },
    },
    open_interest: { open_interest: '12345.678', open_interest_value: null, contracts: '5' },
    liquidation: { liquidation_id: `l${n}`, side: 'buy', price: '61000.5', quantity: '0.1' },
    lsr_top_position: { ...ratio, long_position_ratio: '0.6', short_position_ratio: '0.4' },
    lsr_all_account: { ...ratio, long_account_ratio: '0.6', short_account_ratio: '0.4' },
    volatility_index: { index_value: '55.5', underlying_asset: 'BTC', maturity_date: null, resolution: '60' },
    gap: {
      ...{ gap_id: `${source.exchange}-${source.symbol}-${n}`, data_type: 'trade', from_id: '5', to_id: '9' },
      ...{ from_time: timestamp, to_time: timestamp + SECOND, cause: 'outage', reason: null, status: 'open', rows: 5 },
      ...{ filled_rows: null, detected_at: timestamp + MINUTE, closed_at: null },
    },
  };
  return members[type];
}
