/** Hyperliquid's candles: as the venue tells them, and as they are kept in `candles`. */
import type { ClickHouseClient } from '@clickhouse/client';
import { selectText } from '../clickhouse.ts';
import { plainDecimal, ValueError } from '../decimal.ts';
import type { Logger } from '../log.ts';
import { SIGNAL_TABLES } from '../signal_tables.ts';
import { eventTime, positive, record, safeInteger } from '../wire.ts';
import type { Closes } from './correlator.ts';
import { type OnceRow, OnceTable } from './once_table.ts';
import { TIMEFRAMES, type Timeframe } from './periods.ts';

export const EXCHANGE = 'hyperliquid';
export const MARKET_TYPE = 'perpetual';
const QUOTE = 'USDC';
/** After its end a candle may still be told with trades that were under way. */
export const GRACE_MS = 2000;

/** One coin and timeframe. */
export interface SeriesName {
  coin: string;
  timeframe: Timeframe;
}

/** Prices and volume are decimal text, the volume in base units. */
export interface Candle extends SeriesName {
  /** ms since the epoch. */
  start: number;
  open: string;
  high: string;
  low: string;
  close: string;
  volume: string;
  trades: number;
}

export type CandleSource = 'rest' | 'socket';

/** Names a series, such as `BTC 5m`. */
export function seriesKey({ coin, timeframe }: SeriesName): string {
  return `${coin} ${timeframe}`;
}

/** As the project names a coin's perpetual. */
export function symbolOf(coin: string): string {
  return `${coin}-${QUOTE}`;
}

/** Start of the newest candle that is over at `now`, the grace included; ms. */
export function newestFinished(timeframe: Timeframe, now: number): number {
  const width = TIMEFRAMES[timeframe];
  return Math.floor((now - GRACE_MS) / width) * width - width;
}

/**
 * A candle `{t, T, s, i, o, c, h, l, v, n}` as the venue writes it.
 * @throws ValueError when it is none of a timeframe of ours
 */
export function candleOf(value: unknown): Candle {
  const given = record(value, 'candle');
  const { s: coin, i: interval } = given;
  if (typeof coin !== 'string' || coin === '') throw new ValueError(`s is ${JSON.stringify(coin)}`);
  if (typeof interval !== 'string' || !Object.hasOwn(TIMEFRAMES, interval))
    throw new ValueError(`i is ${JSON.stringify(interval)}`);
  const timeframe = interval as Timeframe;
  const start = eventTime(given.t, 't');
  const width = TIMEFRAMES[timeframe];
  if (start % width !== 0 || given.T !== start + width - 1)
    throw new ValueError(`t ${start} and T ${String(given.T)} are no candle of ${timeframe}`);
  const [open, high, low, close] = ['o', 'h', 'l', 'c'].map((name) => positive(given[name], name)) as [
    string,
    string,
    string,
    string,
  ];
  const volume = plainDecimal(given.v);
  if (volume.startsWith('-')) throw new ValueError(`v is negative: ${volume}`);
  if (Number(high) < Math.max(Number(open), Number(close)) || Number(low) > Math.min(Number(open), Number(close)))
    throw new ValueError(`h ${high} and l ${low} do not hold o ${open} and c ${close}`);
  const trades = safeInteger(given.n, 'n');
  return { coin, timeframe, start, open, high, low, close, volume, trades };
}

interface CandleRow extends OnceRow {
  candle: Candle;
}

/** How far a series is kept. */
export interface Extent {
  first: number;
  last: number;
  count: number;
}

/** The candles that are ours. */
export class CandleTable {
  /** Counted since the start of this process. */
  readonly figures = { stored: 0, present: 0, different: 0 };
  private readonly rows: OnceTable<CandleRow>;
  private readonly table: string;

  constructor(
    private readonly client: ClickHouseClient,
    database: string,
    private readonly log: Logger,
  ) {
    this.table = `${database}.${SIGNAL_TABLES.candles.name}`;
    this.rows = new OnceTable(client, this.table, 'candles', log, lookOf, (row, columns) => this.compare(row, columns));
  }

  /** What there is of each series, by its name. */
  async extents(): Promise<Map<string, Extent>> {
    const query = `SELECT instrument, interval, toUnixTimestamp64Milli(min(timestamp)), toUnixTimestamp64Milli(max(timestamp)), count()
FROM ${this.table} WHERE exchange = '${EXCHANGE}' AND market_type = '${MARKET_TYPE}' GROUP BY instrument, interval`;
    const found = await selectText(this.client, query, { max_execution_time: 30 });
    return new Map(
      found.map(([coin, interval, first, last, count]) => [
        `${coin} ${interval}`,
        { first: Number(first), last: Number(last), count: Number(count) },
      ]),
    );
  }

  /** Keeps finished candles, each series ascending; those that are there are compared. @throws when the database does not do it */
  async keep(candles: readonly Candle[], source: CandleSource, stop: AbortSignal): Promise<void> {
    if (candles.length === 0) return;
    const { inserted, present } = await this.rows.keep(
      candles.map((candle) => rowOf(candle, source)),
      stop,
    );
    this.figures.stored += inserted;
    this.figures.present += present;
  }

  /** Closes of candles that begin from `from` to `to` (ms, both included), ascending. @throws when the database does not answer */
  async closes({ coin, timeframe }: SeriesName, from: number, to: number): Promise<Closes> {
    const query = `SELECT toFloat64(toUnixTimestamp64Milli(timestamp)), toFloat64(close) FROM ${this.table}
WHERE exchange = '${EXCHANGE}' AND market_type = '${MARKET_TYPE}' AND symbol = ${quoted(symbolOf(coin))} AND interval = '${timeframe}'
AND timestamp BETWEEN fromUnixTimestamp64Milli(${from}) AND fromUnixTimestamp64Milli(${to}) ORDER BY timestamp FORMAT RowBinary`;
    const { stream } = await this.client.exec({ query, clickhouse_settings: { max_execution_time: 30 } });
    const chunks: Buffer[] = [];
    for await (const chunk of stream) chunks.push(chunk as Buffer);
    const bytes = Buffer.concat(chunks);
    // Pairs of doubles, as little-endian as the machines that this runs on; a copy, so that they are aligned.
    const pairs = new Float64Array(new Uint8Array(bytes).buffer);
    const count = pairs.length / 2;
    const [times, closes] = [new Float64Array(count), new Float64Array(count)];
    for (let i = 0; i < count; i++) {
      times[i] = pairs[2 * i]!;
      closes[i] = pairs[2 * i + 1]!;
    }
    return { times, closes };
  }

  /** A candle that the venue tells again: as it was stored, it stays. */
  private compare({ candle }: CandleRow, [, ...stored]: readonly string[]): void {
    const { open, high, low, close, volume, trades } = candle;
    const told = [open, high, low, close, volume, String(trades)];
    if (told.every((text, i) => trimmed(text) === trimmed(stored[i]!))) return;
    this.figures.different += 1;
    const what = { series: seriesKey(candle), start: candle.start, stored: stored.join(' '), told: told.join(' ') };
    this.log.warn({ event: 'candle_told_differently', ...what }, 'what was stored first stays');
  }
}

function rowOf(candle: Candle, source: CandleSource): CandleRow {
  const { coin, timeframe, start, trades } = candle;
  const { open, high, low, close, volume } = candle;
  const line = JSON.stringify({
    ...{ timestamp: start, exchange: EXCHANGE, market_type: MARKET_TYPE, symbol: symbolOf(coin), instrument: coin },
    ...{ interval: timeframe, open, high, low, close, volume, trades, data_source: source },
  });
  return { candle, key: `${symbolOf(coin)} ${timeframe} ${start}`, timestamp: start, line };
}

function lookOf(rows: readonly CandleRow[], table: string): string {
  const names = [...new Set(rows.map(({ candle }) => quoted(symbolOf(candle.coin))))];
  const intervals = [...new Set(rows.map(({ candle }) => `'${candle.timeframe}'`))];
  const [from, to] = rows.reduce(
    ([first, last], { timestamp }) => [Math.min(first, timestamp), Math.max(last, timestamp)],
    [Number.POSITIVE_INFINITY, 0],
  );
  return `SELECT concat(symbol, ' ', interval, ' ', toString(toUnixTimestamp64Milli(timestamp))), open, high, low, close, volume, trades
FROM ${table} WHERE exchange = '${EXCHANGE}' AND market_type = '${MARKET_TYPE}' AND symbol IN (${names.join(', ')})
AND interval IN (${intervals.join(', ')}) AND timestamp BETWEEN fromUnixTimestamp64Milli(${from}) AND fromUnixTimestamp64Milli(${to})`;
}

/** Names come from the venue. */
export function quoted(text: string): string {
  return `'${text.replace(/[\\']/g, '\\$&')}'`;
}

/** Decimal text without zeros that say nothing. */
function trimmed(text: string): string {
  return text.includes('.') ? text.replace(/0+$/, '').replace(/\.$/, '') : text;
}
