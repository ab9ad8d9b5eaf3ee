/** What every venue's feed shares: where its output goes, and that no throw leaves it. */
import type { FeedOutput } from './exchange.ts';
import { ValueError } from './rows.ts';

/** Between calls there is no output: a row or event then would be a fault of the feed. */
export const NOWHERE: FeedOutput = {
  row: () => {
    throw new Error('a row outside of a call');
  },
  event: () => {
    throw new Error('an event outside of a call');
  },
};

export abstract class GuardedFeed {
  /** Where rows and events of the call under way go. */
  protected out: FeedOutput = NOWHERE;

  /** Runs `work` with `out` as its output; whatever a frame holds, it only rejects it. @returns false when it did */
  protected guarded(out: FeedOutput, work: () => void): boolean {
    this.out = out;
    try {
      return this.sound(work);
    } finally {
      this.out = NOWHERE;
    }
  }

  /** Runs `work`; an unsound value in it is told of. @returns false when there was one */
  protected sound(work: () => void): boolean {
    try {
      work();
      return true;
    } catch (error) {
      this.rejected(error);
      return false;
    }
  }

  /** Each item on its own: one that is not sound is told, and does not cost the others. */
  protected each(items: unknown[], work: (item: unknown) => void): void {
    for (const item of items) this.sound(() => work(item));
  }

  /** Tells an unsound frame or value; anything else is a fault of ours and goes on. */
  protected rejected(error: unknown): void {
    if (!(error instanceof ValueError || error instanceof SyntaxError)) throw error;
    this.out.event({ kind: 'rejected', reason: error.message });
  }
}
