/** What hot and cold do not hold alike: found by sums over hours, then minutes, then row by row. */
import { IMPOSSIBLE } from '../checks/values.ts';
import { selectText } from '../clickhouse.ts';
import { at } from '../gap_rows.ts';
import type { DataType } from '../rows.ts';
import { inWindow, LIMITS, type Place, quoted, rowsByName, sums, tableOf, type Window } from './rows.ts';

const HOUR_MS = 3_600_000;
const MINUTE_MS = 60_000;
/** Hot has what arrived in the last three days: of the last two it has everything. */
const HOT_HAS_MS = 48 * HOUR_MS;
/** The store looks for older rows in cold, too, and would take what is brought back for a copy; the hour is for what lies between. */
export const BROUGHT_BACK_MS = 47 * HOUR_MS;

/** What is looked at. */
export interface Scope {
  /** Event times, ms. */
  from: number;
  to: number;
  types: DataType[];
  exchange: string | null;
  symbol: string | null;
  /** Wall clock, ms. */
  now: number;
}

/** SQL: rows of the scope. @param open also what lies after it: a row with a time to come lies in no time that is over */
export function inScope({ from, to, exchange, symbol }: Scope, open = false): string {
  const parts = [`timestamp >= ${at(from)}`];
  if (!open) parts.push(`timestamp < ${at(to)}`);
  if (exchange !== null) parts.push(`exchange = ${quoted(exchange)}`);
  if (symbol !== null) parts.push(`symbol = ${quoted(symbol)}`);
  return parts.join(' AND ');
}

/** One stream's minute, with the names of rows of which hot and cold do not say the same. */
export interface Difference {
  type: DataType;
  window: Window;
  missingInHot: string[];
  missingInCold: string[];
  /** In both, with other values. */
  other: string[];
}

export async function differences(hot: Place, cold: Place, scope: Scope): Promise<Difference[]> {
  const found: Difference[] = [];
  for (const type of scope.types) {
    const upto = await progress(cold, type);
    const replicated = `(js_epoch, js_seq) <= ${upto}`;
    const where = `${inScope(scope)} AND ${possible(type)}`;
    for (const hour of await unequal(hot, cold, type, where, replicated, HOUR_MS)) {
      const within = `${inWindow(hour)} AND ${where}`;
      for (const minute of await unequal(hot, cold, type, within, replicated, MINUTE_MS)) {
        const difference = await compare(hot, cold, type, minute, replicated, scope);
        if (difference !== null) found.push(difference);
      }
    }
  }
  return found;
}

/** SQL: what cannot be right is neither missing anywhere nor to be copied. */
function possible(type: DataType): string {
  const conditions = IMPOSSIBLE.filter(({ types }) => types.includes(type)).map(({ condition }) => `(${condition})`);
  return `NOT (${conditions.join(' OR ') || '0'})`;
}

/** Windows of which the sums are not the same. What came to cold since `replicated` was read makes one more at most. */
async function unequal(
  hot: Place,
  cold: Place,
  type: DataType,
  where: string,
  replicated: string,
  spanMs: number,
): Promise<Window[]> {
  const inHot = await sums(hot, type, `${where} AND ${replicated}`, spanMs);
  const inCold = await sums(cold, type, where, spanMs);
  const windows: Window[] = [];
  for (const [key, one] of inHot) {
    const other = inCold.get(key);
    if (other?.rows !== one.rows || other.hash !== one.hash) windows.push(one.window);
  }
  for (const [key, { window }] of inCold) if (!inHot.has(key)) windows.push(window);
  return windows;
}

async function compare(
  hot: Place,
  cold: Place,
  type: DataType,
  window: Window,
  replicated: string,
  { from, to, now }: Scope,
): Promise<Difference | null> {
  const cut = { ...window, from: Math.max(window.from, from), to: Math.min(window.to, to) };
  // Cold first: what comes in between is in hot at least.
  const belongsInHot = `created_at > ${at(now - HOT_HAS_MS)} AND timestamp > ${at(now - BROUGHT_BACK_MS)}`;
  const inCold = await rowsByName(cold, type, `${inWindow(cut)} AND ${possible(type)}`, belongsInHot);
  const inHot = await rowsByName(hot, type, `${inWindow(cut)} AND ${possible(type)}`, replicated);
  const difference: Difference = { type, window: cut, missingInHot: [], missingInCold: [], other: [] };
  for (const [name, { flag, hashes }] of inHot) {
    const twin = inCold.get(name);
    if (twin === undefined && flag) difference.missingInCold.push(name);
    else if (twin !== undefined && ![...hashes].every((hash) => twin.hashes.has(hash))) difference.other.push(name);
  }
  for (const [name, { flag }] of inCold) if (flag && !inHot.has(name)) difference.missingInHot.push(name);
  const { missingInHot, missingInCold, other } = difference;
  return missingInHot.length + missingInCold.length + other.length === 0 ? null : difference;
}

/** SQL: up to where a table is replicated. */
export async function progress(cold: Place, type: DataType): Promise<string> {
  const table = tableOf(cold, type).slice(cold.database.length + 1);
  const query = `SELECT max((js_epoch, upto_seq)).1, max((js_epoch, upto_seq)).2 FROM ${cold.database}.replication_progress WHERE table_name = '${table}'`;
  const [[epoch, seq] = []] = await selectText(cold.client, query, LIMITS);
  return `(${epoch}, ${seq})`;
}
