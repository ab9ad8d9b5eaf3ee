/** What gaps there must be, computed from the rows themselves and not by the finder's SQL. */
import assert from 'node:assert/strict';
import { EXCHANGE_MODULES } from '../scripts/exchanges/index.ts';
import type { Instrument, ReadingSeries } from '../scripts/lib/exchange.ts';
import { type DataType, TABLES } from '../scripts/lib/rows.ts';
import type { Pipeline } from './pipeline.ts';

/** A hole between two readings that came live: times in ms of the first and the last step without one. */
export interface Hole {
  from: number;
  to: number;
  steps: number;
}

/** Series of readings of the exchanges that a pipeline captures. */
export function seriesOf(exchanges: readonly string[]): { exchange: string; series: ReadingSeries }[] {
  return Object.values(EXCHANGE_MODULES)
    .filter(({ exchange }) => exchanges.includes(exchange))
    .flatMap(({ exchange, readings = [] }) => readings.map((series) => ({ exchange, series })));
}

/** SQL that tells the rows of a series. */
export function whereOf(exchange: string, { of, marketTypes }: ReadingSeries): string {
  return [
    `exchange = '${exchange}'`,
    of === undefined ? '1' : `${of.name} = '${of.value}'`,
    marketTypes === undefined ? '1' : `market_type IN (${marketTypes.map((each) => `'${each}'`).join(', ')})`,
  ].join(' AND ');
}

/** Holes between the live readings of a series, by symbol. */
export async function holesOf(
  pipeline: Pipeline,
  exchange: string,
  series: ReadingSeries,
): Promise<Map<string, Hole[]>> {
  const rows = await pipeline.query(
    `SELECT symbol, toUnixTimestamp64Milli(timestamp) AS ms FROM marketprism_hot.${TABLES[series.type].name} ` +
      `WHERE ${whereOf(exchange, series)} AND data_source NOT LIKE 'backfill:%' ORDER BY symbol, ms`,
  );
  const out = new Map<string, Hole[]>();
  const last = new Map<string, number>();
  for (const [symbol, ms] of rows as [string, string][]) {
    const step = Math.floor(Number(ms) / series.stepMs);
    const before = last.get(symbol);
    if (before === undefined) out.set(symbol, []);
    else if (step - before - 1 > series.quietSteps) {
      const [from, to] = [before + 1, step - 1];
      out.get(symbol)!.push({ from: from * series.stepMs, to: to * series.stepMs, steps: to - from + 1 });
    }
    last.set(symbol, step);
  }
  return out;
}

/**
 * Each hole in the readings is a gap of exactly these steps, and there is no other: filled where the venue serves all of them,
 * else unfillable with what could be had. Nothing is in hot twice.
 * @returns how many gaps of each data type there are
 */
export async function checkReadings(pipeline: Pipeline, exchanges: readonly string[]): Promise<Map<string, number>> {
  const counts = new Map<string, number>();
  for (const { exchange, series } of seriesOf(exchanges)) {
    const { type, history, tellsOf = [] } = series;
    const gapsOf = (dataType: DataType, symbol: string) =>
      pipeline.query(
        "SELECT toUInt64(from_id) AS first, to_id, ifNull(toString(rows), '-'), toString(status), ifNull(toString(filled_rows), '-') " +
          `FROM marketprism_hot.gaps_now WHERE exchange = '${exchange}' AND symbol = '${symbol}' AND data_type = '${dataType}' ORDER BY first`,
      );
    for (const [symbol, holes] of await holesOf(pipeline, exchange, series)) {
      const what = `${exchange} ${symbol} ${type}`;
      const expected: string[][] = [];
      for (const { from, to, steps } of holes) {
        const [[found] = []] = await pipeline.query(
          `SELECT uniqExact(timestamp) FROM marketprism_hot.${TABLES[type].name} WHERE ${whereOf(exchange, series)} AND symbol = '${symbol}' ` +
            `AND data_source LIKE 'backfill:%' AND timestamp >= fromUnixTimestamp64Milli(toInt64(${from})) AND timestamp <= fromUnixTimestamp64Milli(toInt64(${to}))`,
        );
        const isWhole = history !== undefined && history.keeps === undefined;
        if (isWhole) assert.equal(Number(found), steps, `${what}: everything that the venue serves`);
        const [status, filled] = isWhole ? ['filled', found!] : ['unfillable', history === undefined ? '-' : found!];
        expected.push([String(from), String(to), String(steps), status, filled]);
      }
      assert.deepEqual(await gapsOf(type, symbol), expected, what);
      for (const other of tellsOf) {
        const unknown = expected.map(([from, to]) => [from, to, '-', 'unfillable', '-']);
        assert.deepEqual(await gapsOf(other, symbol), unknown, `${what}: ${other}`);
      }
      counts.set(`${exchange} ${type}`, expected.length + (counts.get(`${exchange} ${type}`) ?? 0));
    }
    const { name, key } = TABLES[type];
    const identity = ['exchange', 'market_type', 'symbol', ...key].join(', ');
    const [[count, unique] = []] = await pipeline.query(
      `SELECT count(), uniqExact(${identity}) FROM marketprism_hot.${name} WHERE exchange = '${exchange}'`,
    );
    assert.equal(count, unique, `${exchange} ${name}: nothing twice`);
  }
  return counts;
}

/** A row of a series as an earlier run had stored it. */
export function earlierRow(
  instrument: Instrument,
  series: ReadingSeries,
  timestamp: number,
): { type: DataType; row: never } {
  const common = { ...instrument, timestamp, received_at: timestamp * 1000, data_source: 'live' };
  const own: Record<ReadingSeries['type'], object> = {
    funding_rate: {
      funding_rate: '0.0001',
      funding_time: null,
      next_funding_time: null,
      funding_interval_hours: null,
      mark_price: null,
      index_price: null,
    },
    open_interest: { open_interest: '1', open_interest_value: null, contracts: null },
    lsr_top_position: {
      period: '5m',
      long_position_ratio: '0.5',
      short_position_ratio: '0.5',
      long_short_ratio: '1',
    },
    lsr_all_account: { period: '5m', long_account_ratio: '0.5', short_account_ratio: '0.5', long_short_ratio: '1' },
    volatility_index: { resolution: '60', index_value: '50', underlying_asset: instrument.symbol, maturity_date: null },
  };
  return { type: series.type, row: { ...common, ...own[series.type] } as never };
}
