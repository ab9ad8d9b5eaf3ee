/** Counts distinct keys of one stream in bounded memory. */

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
