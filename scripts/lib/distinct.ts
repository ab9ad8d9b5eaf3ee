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
  private readonly recent = new Set<number | string>();
  private readonly ring: (number | string)[] = [];
  private next = 0;

  /** @returns true when the key is new */
  add(key: number | string): boolean {
    if (this.recent.has(key)) return false;
    if (typeof key === 'number') {
      const oldest = this.ring.length < REMEMBERED ? -1 : (this.ring[this.next] as number);
      if (key <= this.highest && key <= oldest) return false;
      this.highest = Math.max(this.highest, key);
    }
    this.count += 1;
    this.remember(key);
    return true;
  }

  private remember(key: number | string): void {
    const evicted = this.ring[this.next];
    if (evicted !== undefined) this.recent.delete(evicted);
    this.ring[this.next] = key;
    this.recent.add(key);
    this.next = (this.next + 1) % REMEMBERED;
  }
}

/**
 * A row's natural key as one value: a number only where it rises with time, as `DistinctCounter` takes it. Hyperliquid's trade ids do
 * not (venues_api.md, trades): as numbers, most of them would be taken for old ones.
 */
export function distinctKey<T extends DataType>(type: T, row: Rows[T]): number | string {
  const values = row as unknown as Record<string, unknown>;
  const [first, ...rest] = TABLES[type].key.map((member) => values[member]);
  if (rest.length > 0 && rest.some((value) => value !== false)) return [first, ...rest].join(' ');
  if (type === 'trade' && row.exchange === 'hyperliquid') return String(first);
  const number = Number(first);
  return Number.isSafeInteger(number) ? number : String(first);
}
