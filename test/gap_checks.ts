/** What gaps there must be, computed from the rows themselves and not by the finder's SQL. */
import assert from 'node:assert/strict';
import type { Instrument, ReadingSeries } from '../scripts/lib/exchange.ts';
import { holesOf, seriesOf, whereOf } from '../scripts/lib/reading_holes.ts';
import { type DataType, TABLES } from '../scripts/lib/rows.ts';
import type { Pipeline } from './pipeline.ts';

/**
 * Each hole in the readings is a gap of exactly these steps, and there is no other: filled where the venue serves all of them,
 * else unfillable with what could be had. Nothing is in hot twice.
 * @returns how many gaps of each data type there are
 */
export async function checkReadings(pipeline: Pipeline, exchanges: readonly string[]): Promise<Map<string, number>> {
  const counts = new Map<string, number>();
  for (const { exchange, series } of seriesOf(exchanges)) {
    const { type, history } = series;
    const gapsOf = (dataType: DataType, symbol: string) =>
      pipeline.query(
        "SELECT toUInt64(from_id) AS first, to_id, ifNull(toString(rows), '-'), toString(status), ifNull(toString(filled_rows), '-') " +
          `FROM marketprism_hot.gaps_now WHERE exchange = '${exchange}' AND symbol = '${symbol}' AND data_type = '${dataType}' ORDER BY first`,
      );
    const query = (sql: string) => pipeline.query(sql);
    for (const [symbol, holes] of await holesOf(query, 'marketprism_hot', exchange, series)) {
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

/**
 * Liquidations of Binance and OKX have no ids: wherever rows of their socket are missing, that is told of them, and nowhere else.
 * @returns how many such gaps there are
 */
export async function checkLiquidations(pipeline: Pipeline): Promise<number> {
  // A liquidation is told after its time, so that one of before the gap may be missing, too.
  const ranges = (where: string) =>
    pipeline.query(
      `SELECT exchange, symbol, from_id, to_id, if(data_type = 'liquidation', from_time + INTERVAL 5 SECOND, from_time) AS begin, to_time FROM marketprism_hot.gaps_now WHERE ${where} ORDER BY ALL`,
    );
  const told = await ranges("data_type = 'liquidation' AND rows IS NULL AND status = 'unfillable'");
  const beside =
    "exchange = 'binance_derivatives' AND data_type = 'trade' OR exchange = 'okx_derivatives' AND data_type = 'orderbook_update'";
  assert.deepEqual(told, await ranges(beside));
  assert.deepEqual(await ranges("data_type = 'liquidation'"), told, 'none of another kind');
  return told.length;
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
