/**
 * What tells that a process goes on with its work, and not only that its timers fire: an answer of a venue, of the database or of the broker, a line
 * on the disk, a look that found nothing to do. The service manager's watchdog is fed by it (service_manager.ts).
 */
import { steadyNow } from './steady.ts';

let signs = 0;

/** Something real was done. Called where the outside answers, so that work that hangs shows, whatever it is. */
export function signOfLife(): void {
  signs += 1;
}

/** A part of a process that must go on. */
export interface VitalPart {
  /** Why it does not, in a line; null while it does. */
  stuck(): Promise<string | null> | string | null;
}

/** A part that is alive as long as a count of what it did moves. */
export class Vital implements VitalPart {
  private last: number;
  private movedAt: number;

  /**
   * @param limitMs longer than anything that it legitimately waits for
   * @param count what it did so far; default: what the whole process did
   */
  constructor(
    private readonly name: string,
    private readonly limitMs: number,
    private readonly count: () => number = () => signs,
    private readonly clock: () => number = steadyNow,
  ) {
    this.last = count();
    this.movedAt = clock();
  }

  stuck(): string | null {
    const [count, now] = [this.count(), this.clock()];
    if (count !== this.last) [this.last, this.movedAt] = [count, now];
    const age = now - this.movedAt;
    return age <= this.limitMs ? null : `${this.name}: no progress for ${Math.round(age / 1000)} s`;
  }
}

/** A part that is alive as long as it answers over HTTP, as it would answer anybody. */
export class Answering implements VitalPart {
  constructor(
    private readonly url: string,
    private readonly limitMs: number,
  ) {}

  async stuck(): Promise<string | null> {
    try {
      const answer = await fetch(this.url, { signal: AbortSignal.timeout(this.limitMs) });
      await answer.text();
      return answer.ok ? null : `${this.url} answers ${answer.status}`;
    } catch (error) {
      return `${this.url} does not answer: ${(error as Error).message}`;
    }
  }
}
