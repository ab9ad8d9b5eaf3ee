/** Rows of a round: as they are kept in `correlations`, and as a terminal shows them. */
import type { ClickHouseClient } from '@clickhouse/client';
import type { Logger } from '../log.ts';
import { SIGNAL_TABLES } from '../signal_tables.ts';
import { textTable } from './alerts.ts';
import { EXCHANGE, MARKET_TYPE, quoted, symbolOf } from './candles.ts';
import { WARNED_LOSS } from './correlator.ts';
import { type OnceRow, OnceTable } from './once_table.ts';
import { type CorrelationRow, nameOf } from './rule.ts';

interface ResultRow extends OnceRow {
  row: CorrelationRow;
}

/** `correlations` in the database. */
export class ResultTable {
  private readonly rows: OnceTable<ResultRow>;

  constructor(client: ClickHouseClient, database: string, log: Logger) {
    this.rows = new OnceTable(client, `${database}.${SIGNAL_TABLES.correlations.name}`, 'results', log, lookOf);
  }

  /** @returns rows that were not there yet @throws when the database does not store them */
  async keep(rows: readonly CorrelationRow[], stop: AbortSignal): Promise<number> {
    const { inserted } = await this.rows.keep(rows.map(resultOf), stop);
    return inserted;
  }
}

function resultOf(row: CorrelationRow): ResultRow {
  const { timestamp, coin, timeframe, period, corr, lag, p_value, pairs, points, lost, reason } = row;
  const line = JSON.stringify({
    ...{ timestamp, exchange: EXCHANGE, market_type: MARKET_TYPE, symbol: symbolOf(coin), timeframe, period },
    ...{ corr, lag, p_value, pairs, points, lost, reason },
  });
  return { row, key: `${symbolOf(coin)} ${timeframe} ${period} ${timestamp}`, timestamp, line };
}

function lookOf(rows: readonly ResultRow[], table: string): string {
  const symbols = [...new Set(rows.map(({ row }) => quoted(symbolOf(row.coin))))];
  const times = [...new Set(rows.map(({ timestamp }) => `fromUnixTimestamp64Milli(${timestamp})`))];
  return `SELECT concat(symbol, ' ', timeframe, ' ', period, ' ', toString(toUnixTimestamp64Milli(timestamp))) FROM ${table}
WHERE exchange = '${EXCHANGE}' AND market_type = '${MARKET_TYPE}' AND symbol IN (${symbols.join(', ')}) AND timestamp IN (${times.join(', ')})`;
}

/** A coin's rows, and what is said of it beside them. */
export interface ShownCoin {
  coin: string;
  rows: readonly CorrelationRow[];
  /** Such as `anomaly since 2026-11-24 08:00`. */
  word: string;
}

/** A round as a table: a line per coin, a column per row with the correlation and, after a slash, the lag; `-` where there is none. */
export function roundTable(coins: readonly ShownCoin[], asked: readonly string[]): string[] {
  const lines = coins.map(({ coin, rows, word }) => {
    const cells = asked.map((name) => {
      const row = rows.find((each) => nameOf(each) === name);
      return row === undefined || row.corr === null ? '-' : `${row.corr.toFixed(2)}/${row.lag}`;
    });
    return [coin, ...cells, word];
  });
  return textTable([['coin', ...asked, ''], ...lines]).map((line) => line.trimEnd());
}

/** Why rows have no correlation, each reason once, with how many rows it leaves out. */
export function reasonsOf(rows: readonly CorrelationRow[]): string[] {
  const counts = new Map<string, number>();
  for (const row of rows) {
    if (row.reason === null) continue;
    const reason = `${nameOf(row)}: ${row.reason}`;
    counts.set(reason, (counts.get(reason) ?? 0) + 1);
  }
  return [...counts].sort(([, one], [, other]) => other - one).map(([reason, count]) => `${reason} (${count})`);
}

/** Rows of which more than a tenth was lost to the alignment. */
export function lossesOf(rows: readonly CorrelationRow[]): CorrelationRow[] {
  return rows.filter(({ corr, lost_share }) => corr !== null && lost_share > WARNED_LOSS);
}
