/** Events that other scripts post to the monitor, and those of which people were told: a repeat tells nobody twice. */
import { join } from 'node:path';
import { z } from 'zod';
import { SEVERITIES } from './checks/check.ts';
import { OperatorError } from './cli.ts';
import { readJson, writeJsonAtomic } from './files.ts';

/** Who posts gives up after a day; events are a few an hour. */
const MOST_TOLD = 2000;

export const POSTED_EVENT = z.strictObject({
  /** The same for the same event, such as `major_events/E1-1795507500000`. */
  id: z.string().regex(/^[\w:./-]{1,128}$/, 'takes up to 128 letters, digits, _, :, ., / and -'),
  title: z.string().min(1).max(200),
  text: z.string().min(1).max(4000),
  severity: z.enum(SEVERITIES),
});
export type PostedEvent = z.infer<typeof POSTED_EVENT>;

/** The newest last; `at` in ms since the epoch. */
const TOLD = z.array(z.object({ id: z.string(), at: z.number() }));

/** Kept apart from the alerts: they are written only after a round has told them. */
export class ToldEvents {
  private readonly path: string;
  private readonly told: Map<string, number>;

  /** @throws OperatorError or SyntaxError when what an earlier process kept cannot be read */
  constructor(dataDir: string) {
    this.path = join(dataDir, 'state', 'told_events.json');
    const kept = TOLD.safeParse(readJson(this.path) ?? []);
    if (!kept.success) throw new OperatorError(`${this.path}: ${kept.error.issues[0]!.message}: mend or remove it`);
    this.told = new Map(kept.data.map(({ id, at }) => [id, at]));
  }

  has(id: string): boolean {
    return this.told.has(id);
  }

  /** @param at wall clock, ms @throws when it cannot be written; this process knows of it all the same */
  add(id: string, at: number): void {
    this.told.set(id, at);
    for (const oldest of this.told.keys()) {
      if (this.told.size <= MOST_TOLD) break;
      this.told.delete(oldest);
    }
    writeJsonAtomic(
      this.path,
      [...this.told].map(([each, when]) => ({ id: each, at: when })),
    );
  }
}
