/** How far long work is: a bar that is always fresh on a terminal, a line now and then elsewhere. */

const TERMINAL_EVERY_MS = 200;
const PLAIN_EVERY_MS = 10_000;
const BAR_WIDTH = 30;

export class Progress {
  private shownAt: number;

  /** @param clock ms */
  constructor(
    private readonly out: Pick<NodeJS.WriteStream, 'write' | 'isTTY'> = process.stdout,
    private readonly clock: () => number = Date.now,
  ) {
    this.shownAt = clock();
  }

  /** Short work shows nothing; its end is told by the summary of whoever does it. @param share 0 to 1 @param figures in words */
  show(share: number, figures: string): void {
    const now = this.clock();
    const every = this.out.isTTY ? TERMINAL_EVERY_MS : PLAIN_EVERY_MS;
    if (now - this.shownAt < every) return;
    this.shownAt = now;
    const bar = '#'.repeat(Math.round(Math.min(Math.max(share, 0), 1) * BAR_WIDTH)).padEnd(BAR_WIDTH, '.');
    const line = `[${bar}] ${Math.round(share * 100)} %  ${figures}`;
    this.out.write(this.out.isTTY ? `\r\x1b[K${line}` : `${line}\n`);
  }

  /** Takes the bar away, before anything else is printed. */
  clear(): void {
    if (this.out.isTTY) this.out.write('\r\x1b[K');
  }
}
