/**
 * SIGHUP: to a process without a terminal it says that its files were renamed (logrotate), and those that it holds open are let go of; each is opened
 * anew at its next line. To one in a terminal it says that this was closed, which is a stop.
 */
import type { Logger } from './log.ts';

const holders = new Set<() => void>();

/** @param release closes a file that is open to be appended to; the next write opens what has its name then */
export function holdsOpen(release: () => void): void {
  holders.add(release);
}

export function letGo(release: () => void): void {
  holders.delete(release);
}

/**
 * Survives SIGHUP from here on, which would end the process otherwise.
 * @param stop for a terminal that was closed
 */
export function heedHangup(stop: () => void, log?: Pick<Logger, 'info'>): void {
  // Asked now: once it is closed, it is none.
  const hasTerminal = process.stdin.isTTY || process.stdout.isTTY;
  process.on('SIGHUP', () => {
    if (hasTerminal) {
      stop();
      return;
    }
    for (const release of holders) release();
    log?.info({ event: 'reopened', files: holders.size }, 'SIGHUP: files are opened anew at their next line');
    holders.clear();
  });
}
