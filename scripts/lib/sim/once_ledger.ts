/** A stream's ledger where the same key may be written many times: to later readers, or as part of a backlog. */
import type { KeyLedger, StreamLedger } from './ledger.ts';

/** Counts a key once, whoever gets it; it is withheld only as long as nobody got it. */
export class OnceLedger implements KeyLedger {
  private readonly states = new Map<number, 'withheld' | 'sent'>();

  /** @param remembered how many of the newest keys may come again */
  constructor(
    private readonly ledger: StreamLedger,
    private readonly remembered = Number.POSITIVE_INFINITY,
  ) {}

  record(key: number): void {
    const before = this.states.get(key);
    if (before === 'sent') return;
    if (before === 'withheld') this.ledger.unwithhold();
    this.ledger.record(key);
    this.note(key, 'sent');
  }

  withhold(key: number): void {
    if (this.states.has(key)) return;
    this.ledger.withhold();
    this.note(key, 'withheld');
  }

  private note(key: number, state: 'withheld' | 'sent'): void {
    this.states.set(key, state);
    if (this.states.size <= this.remembered) return;
    for (const oldest of this.states.keys()) {
      this.states.delete(oldest);
      return;
    }
  }
}

/** Counts each key once, for frames that stand in no stream's ledger. */
export class OnceCounter implements KeyLedger {
  private readonly seen = new Set<number>();

  constructor(private readonly count: () => void) {}

  record(key: number): void {
    if (this.seen.has(key)) return;
    this.seen.add(key);
    this.count();
  }

  withhold(): void {}
}
