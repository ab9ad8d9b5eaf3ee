/** The rows of a round as a heat map has them: which columns there are, which coins are shown, and in which order. */
import type { Correlations } from '../../lib/web/signal_routes.ts';

export type CorrelationRow = Correlations['data'][number];

/** Timeframes and periods from short to long; what is not among them comes after. */
const MINUTES: Record<string, number> = { m: 1, h: 60, d: 1440 };
const lengthOf = (name: string) => Number.parseInt(name, 10) * (MINUTES[name.at(-1)!] ?? Number.POSITIVE_INFINITY);

export interface Column {
  /** As `5m 7d`. */
  name: string;
  timeframe: string;
  period: string;
}

export interface Coin {
  coin: string;
  /** By column. */
  rows: ReadonlyMap<string, CorrelationRow>;
}

/** The columns that a round has, from short timeframes and periods to long ones. */
export function columnsOf(data: readonly CorrelationRow[]): Column[] {
  const columns = new Map<string, Column>();
  for (const { timeframe, period } of data) {
    const name = `${timeframe} ${period}`;
    if (!columns.has(name)) columns.set(name, { name, timeframe, period });
  }
  return [...columns.values()].sort(
    (one, other) =>
      lengthOf(one.timeframe) - lengthOf(other.timeframe) || lengthOf(one.period) - lengthOf(other.period),
  );
}

/** Each coin with its rows. */
export function coinsOf(data: readonly CorrelationRow[]): Coin[] {
  const coins = new Map<string, Map<string, CorrelationRow>>();
  for (const row of data) {
    let rows = coins.get(row.coin);
    if (rows === undefined) coins.set(row.coin, (rows = new Map()));
    rows.set(`${row.timeframe} ${row.period}`, row);
  }
  return [...coins].map(([coin, rows]) => ({ coin, rows }));
}

/** By what the rows are sorted; a column with the highest correlations first, where there is none at the end. */
export interface Order {
  by: string;
  isUp: boolean;
}
export const BY_COIN = 'coin';

/** @returns a new list; where a column is unknown a coin is at the end, whichever way it is sorted */
export function sorted(coins: readonly Coin[], { by, isUp }: Order): Coin[] {
  const sign = isUp ? 1 : -1;
  const byName = (one: Coin, other: Coin) => (one.coin < other.coin ? -1 : one.coin > other.coin ? 1 : 0);
  if (by === BY_COIN) return [...coins].sort((one, other) => sign * byName(one, other));
  const corrOf = ({ rows }: Coin) => rows.get(by)?.corr ?? null;
  return [...coins].sort((one, other) => {
    const [a, b] = [corrOf(one), corrOf(other)];
    if (a === null || b === null) return Number(a === null) - Number(b === null) || byName(one, other);
    return sign * (a - b) || byName(one, other);
  });
}

/** `sol, doge` finds both; a part of a name is enough. */
export function found(coins: readonly Coin[], filter: string): readonly Coin[] {
  const parts = filter
    .toUpperCase()
    .split(/[\s,]+/)
    .filter((part) => part !== '');
  if (parts.length === 0) return coins;
  return coins.filter(({ coin }) => parts.some((part) => coin.toUpperCase().includes(part)));
}
