/** A terminal's second screen, refreshed in place; whatever happens, the first one is as it was before. */
import type { Output } from './command.ts';

const OPEN = '\x1b[?1049h\x1b[?25l';
const CLOSE = '\x1b[?25h\x1b[?1049l';
const HOME = '\x1b[H';
const END_OF_LINE = '\x1b[K';
const BELOW = '\x1b[J';

export class Screen {
  private isOpen = false;
  private readonly close = (): void => {
    if (this.isOpen) this.out.write(CLOSE);
    this.isOpen = false;
  };

  constructor(private readonly out: Output) {}

  show(lines: readonly string[]): void {
    if (!this.isOpen) {
      // Also when this process ends by an error that nobody caught.
      process.once('exit', this.close);
      this.out.write(OPEN);
      this.isOpen = true;
    }
    this.out.write(`${HOME}${lines.map((line) => `${line}${END_OF_LINE}`).join('\r\n')}${BELOW}`);
  }

  leave(): void {
    process.off('exit', this.close);
    this.close();
  }
}
