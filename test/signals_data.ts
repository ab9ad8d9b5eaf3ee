/** A harvest and rounds of correlations as their scripts write them, in a database and a data directory of a test's own. */
import type { ClickHouseClient } from '@clickhouse/client';
import { insertLines } from '../scripts/lib/clickhouse.ts';
import { type Config, loadConfig } from '../scripts/lib/config.ts';
import { AlertBook } from '../scripts/lib/correlation/alert_book.ts';
import { askedRows, follow, leave } from '../scripts/lib/correlation/alerts.ts';
import { symbolOf } from '../scripts/lib/correlation/candles.ts';
import type { Closes } from '../scripts/lib/correlation/correlator.ts';
import { PERIOD_NAMES, TIMEFRAMES, type Timeframe } from '../scripts/lib/correlation/periods.ts';
import { ResultTable } from '../scripts/lib/correlation/results.ts';
import { TimeframeRound } from '../scripts/lib/correlation/round.ts';
import { type CorrelationRow, judge } from '../scripts/lib/correlation/rule.ts';
import { HarvestCore } from '../scripts/lib/harvest/core.ts';
import type { HarvestInput } from '../scripts/lib/harvest/input.ts';
import { type HarvestRow, SIGNAL_KINDS } from '../scripts/lib/harvest/kinds.ts';
import { storeRows } from '../scripts/lib/harvest/table.ts';
import { createLogger } from '../scripts/lib/log.ts';
import { encodeRow, type OrderbookRow, TABLES } from '../scripts/lib/rows.ts';
import { ensureSignals, ensureTier, ensureViews } from '../scripts/lib/schema.ts';
import { randomOf, seededMarket } from './harvest_inputs.ts';
import { harvestRows } from './harvest_rows.ts';

const LOG = createLogger('test', 'silent');
const NEVER = new AbortController().signal;
/** Now and then a trade comes so many rows after its turn: too late for its second, which is told again. */
const LATE_EACH = 97;
const LATE_BY = 70;
const BUNCH_MS = 500;

export interface Harvested {
  config: Config;
  /** All rows of BTC-USDT as the harvest told them, and the samples of its books. */
  rows: HarvestRow[];
  books: OrderbookRow[];
  /** The span of BTC-USDT, ms. */
  from: number;
  to: number;
}

/** Markets of two exchanges up to `now`, BTC-USDT over so many seconds with corrected ones among them. */
export async function harvestInto(
  client: ClickHouseClient,
  env: NodeJS.ProcessEnv,
  now: number,
  seconds: number,
): Promise<Harvested> {
  const config = loadConfig(env);
  await ensureTier(client, 'hot', config.hotDatabase);
  await ensureTier(client, 'cold', config.coldDatabase);
  await ensureViews(client, config, LOG);
  await ensureSignals(client, config.signalsDatabase);
  const from = now - seconds * 1000;
  const inputs = withLate(seededMarket({ seed: 7, from, seconds, trades: 5 }).map(bunched));
  const rows = harvestOf(inputs);
  rows.push(correctedOnceMore(rows));
  const other = harvestOf(seededMarket({ seed: 8, from: now - 90_000, seconds: 90, symbol: 'ETH-USDT' }));
  const okx = { exchange: 'okx_derivatives', symbol: 'SOL-USDT' } as const;
  const third = harvestRows('features', 0, 30, okx).map((row, i) => ({ ...row, ts_ms: now - (30 - i) * 1000 }));
  for (const kind of SIGNAL_KINDS) {
    const own = [...rows, ...other, ...third].filter((row) => row.kind === kind);
    await storeRows(client, config.signalsDatabase, kind, own, NEVER);
  }
  const books = inputs.flatMap(({ type, row }) => (type === 'orderbook' ? [row] : []));
  const lines = books.map((row, i) => `${encodeRow('orderbook', row).slice(0, -1)},"js_epoch":1,"js_seq":${i + 1}}\n`);
  const table = `${config.hotDatabase}.${TABLES.orderbook.name}`;
  await insertLines(client, table, Buffer.from(lines.join('')), 'test:books');
  return { config, rows, books, from, to: now };
}

/** The newest second told again: its id is no guide to which revision is the newer one. */
function correctedOnceMore(rows: readonly HarvestRow[]): HarvestRow {
  const last = rows
    .filter(({ kind }) => kind === 'features')
    .reduce((one, other) => (other.ts_ms >= one.ts_ms ? other : one));
  const { revision, trades } = last as HarvestRow & { revision: number; trades: number };
  return { ...last, revision: revision + 1, trades: trades + 1, row_id: '0'.repeat(32) };
}

/** Trades come in bunches of one millisecond, as where an order takes several others. */
function bunched({ type, row }: HarvestInput): HarvestInput {
  const timestamp = type === 'trade' ? row.timestamp - (row.timestamp % BUNCH_MS) : row.timestamp;
  return { type, row: { ...row, timestamp } } as HarvestInput;
}

function withLate(inputs: readonly HarvestInput[]): HarvestInput[] {
  const out = [...inputs];
  let trades = 0;
  for (let i = 0; i < out.length - LATE_BY; i += 1) {
    if (out[i]!.type !== 'trade' || ++trades % LATE_EACH !== 0) continue;
    const [late] = out.splice(i, 1);
    out.splice(i + LATE_BY, 0, late!);
  }
  return out;
}

function harvestOf(inputs: readonly HarvestInput[]): HarvestRow[] {
  const rows: HarvestRow[] = [];
  const core = new HarvestCore((row) => rows.push(row));
  for (const each of inputs) core.take(each);
  core.end();
  return rows;
}

const TIMEFRAMES_ASKED = ['5m', '15m'] as const satisfies readonly Timeframe[];
const DAYS = 8;
/** Coins that follow BTC, but in the last day. */
export const LEFT = ['DOGE', 'XRP', 'GONE'];

/** So many coins against BTC as the alerter computes, keeps and tells them; one of those that left is listed no more in a second round. */
export async function correlate(
  client: ClickHouseClient,
  config: Config,
  now: number,
  coins: number,
): Promise<CorrelationRow[]> {
  const names = [...LEFT, ...Array.from({ length: coins - LEFT.length }, (_, i) => `COIN${i}`)];
  const end = Math.floor(now / 900_000) * 900_000 - 900_000;
  const random = randomOf(5);
  const rows: CorrelationRow[] = [];
  for (const timeframe of TIMEFRAMES_ASKED) {
    const width = TIMEFRAMES[timeframe];
    const count = (DAYS * 86_400_000) / width;
    const times = Array.from({ length: count }, (_, i) => end - (count - 1 - i) * width);
    const moves = times.map(() => random() - 0.5);
    const round = new TimeframeRound(timeframe, PERIOD_NAMES);
    round.setBase({ times, closes: walk(moves) }, end);
    for (const [i, coin] of names.entries()) {
      const isLeft = LEFT.includes(coin);
      const own = moves.map((move, at) => {
        const share = isLeft ? (times[at]! > end - 86_400_000 ? 0 : 0.95) : (i % 10) / 10;
        return share * move + (1 - share) * (random() - 0.5);
      });
      // The last one is new: it has three days.
      const begin = i === names.length - 1 ? Math.floor((times.length * (DAYS - 3)) / DAYS) : 0;
      rows.push(...round.rows(coin, { times: times.slice(begin), closes: Array.from(walk(own)).slice(begin) }));
    }
  }
  await new ResultTable(client, config.signalsDatabase, LOG).keep(rows, NEVER);
  await tell(config, now, names, rows);
  return rows;
}

function walk(moves: readonly number[]): Closes['closes'] {
  let price = 100;
  return moves.map((move) => (price *= 1 + move / 100));
}

/** What stands after it, and what happened, through the alerter's own book. */
async function tell(config: Config, now: number, names: readonly string[], rows: readonly CorrelationRow[]) {
  const book = await AlertBook.open({ config, log: LOG, clock: () => now });
  const asked = askedRows(TIMEFRAMES_ASKED, PERIOD_NAMES);
  const data_time = Math.max(...rows.map(({ timestamp }) => timestamp));
  const listing = (coin: string) => ({ exchange: 'hyperliquid', coin, symbol: symbolOf(coin) });
  let standing = book.standing;
  for (const coin of names) {
    const own = rows.filter((row) => row.coin === coin);
    const followed = follow(standing, listing(coin), own, judge(own, config.correlation), asked);
    standing = followed.standing;
    book.take(standing, followed.event === null ? [] : [followed.event]);
  }
  const left = leave(standing, listing('GONE'), data_time + 1);
  book.take(left.standing, [left.event!]);
  const unknown = rows.filter(({ corr }) => corr === null).length;
  const figures = { seconds: 42.5, compute_seconds: 0.4, btc_age_seconds: 130, coins: names.length };
  const told = { ...figures, data_time, rows: rows.length, rows_without_corr: unknown };
  book.ran(told, []);
  book.close();
}
