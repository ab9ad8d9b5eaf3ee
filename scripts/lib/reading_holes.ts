/** Holes between readings, from the rows themselves: what the gap finder must have told, whichever way it looks. */
import { EXCHANGE_MODULES } from '../exchanges/index.ts';
import type { ReadingSeries } from './exchange.ts';
import { TABLES } from './rows.ts';

/** Times in ms of the first and the last step without a reading. */
export interface Hole {
  from: number;
  to: number;
  steps: number;
}

/** The rows of a query as texts. */
export type Query = (sql: string) => Promise<string[][]>;

/** Series of readings of these exchanges. */
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

/** Holes between the readings of a series that came live, by symbol: more steps in a row than may be quiet. */
export async function holesOf(
  query: Query,
  database: string,
  exchange: string,
  series: ReadingSeries,
): Promise<Map<string, Hole[]>> {
  const rows = await query(
    `SELECT symbol, toUnixTimestamp64Milli(timestamp) AS ms FROM ${database}.${TABLES[series.type].name} ` +
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
