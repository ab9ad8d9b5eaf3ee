/** Says what is being waited for: in one line that is always fresh on a terminal, a line now and then elsewhere. */
import type { Output } from './command.ts';

const PLAIN_EVERY_MS = 10_000;

export class Waiting {
  private readonly since: number;
  private toldAt: number;

  /** @param clock steady, ms */
  constructor(
    private readonly out: Output,
    private readonly clock: () => number = () => performance.now(),
  ) {
    this.since = clock();
    this.toldAt = this.since;
  }

  show(what: string): void {
    const now = this.clock();
    const line = `${what} (${Math.round((now - this.since) / 1000)} s)`;
    if (this.out.isTTY) this.out.write(`\r\x1b[K${line.slice(0, (this.out.columns || 120) - 1)}`);
    else if (now - this.toldAt >= PLAIN_EVERY_MS) {
      this.toldAt = now;
      this.out.write(`${line}\n`);
    }
  }

  /** Takes the line away, before anything else is printed. */
  clear(): void {
    if (this.out.isTTY) this.out.write('\r\x1b[K');
  }
}
