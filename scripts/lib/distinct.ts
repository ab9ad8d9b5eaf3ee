/** Counts distinct keys of one stream in bounded memory. */
import { type DataType, type Rows, TABLES } from './rows.ts';

/** How far back a repeat is recognised among keys that do not rise. */
const REMEMBERED = 4096;

/**
 * Counts keys, repeats once. Ids that rise are told apart by the highest so far; an id at or below it counts only when it is
 * not among the last 4096 and within their range, that is when it came late. Other keys are compared with the last 4096.
 */
export class DistinctCounter {
  count = 0;
  private highest = -1;
  /** The last ids that rise, and the last other keys, each with the place of the next. */
  private readonly ids: number[] = [];
  private nextId = 0;
  private readonly keys: string[] = [];
  private readonly recentKeys = new Set<string>();
  private nextKey = 0;

  /** @returns true when the key is new */
  add(key: number | string): boolean {
    const isNew = typeof key === 'number' ? this.addId(key) : this.addKey(key);
    if (isNew) this.count += 1;
    return isNew;
  }

  private addId(id: number): boolean {
    if (id <= this.highest) {
      // Late ones are few: looking through all that are remembered is cheaper than keeping a set of them for each row.
      const oldest = this.ids.length < REMEMBERED ? -1 : this.ids[this.nextId]!;
      if (id <= oldest || this.ids.includes(id)) return false;
    } else this.highest = id;
    this.ids[this.nextId] = id;
    this.nextId = (this.nextId + 1) % REMEMBERED;
    return true;
  }

  private addKey(key: string): boolean {
    if (this.recentKeys.has(key)) return false;
    const evicted = this.keys[this.nextKey];
    if (evicted !== undefined) this.recentKeys.delete(evicted);
    this.keys[this.nextKey] = key;
    this.recentKeys.add(key);
    this.nextKey = (this.nextKey + 1) % REMEMBERED;
    return true;
  }
}

/**
 * A row's natural key as one value: a number only where it rises with time, as `DistinctCounter` takes it. Hyperliquid's trade ids do
 * not (venues_api.md, trades): as numbers, most of them would be taken for old ones.
 */
export function distinctKey<T extends DataType>(type: T, row: Rows[T]): number | string {
  // Nearly all rows are of these two.
  if (type === 'trade' && row.exchange !== 'hyperliquid') return risingKey((row as Rows['trade']).trade_id);
  if (type === 'orderbook_update' && !(row as Rows['orderbook_update']).is_snapshot) {
    return risingKey((row as Rows['orderbook_update']).last_update_id);
  }
  const values = row as unknown as Record<string, unknown>;
  const [first, ...rest] = TABLES[type].key.map((member) => values[member]);
  if (rest.length > 0 && rest.some((value) => value !== false)) return [first, ...rest].join(' ');
  return type === 'trade' ? String(first) : risingKey(first);
}

function risingKey(id: unknown): number | string {
  const number = Number(id);
  return Number.isSafeInteger(number) ? number : String(id);
}
