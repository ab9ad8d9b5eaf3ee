/** What the store has acknowledged of each type, on disk: with it a start knows a broker that lost what it had. */
import { join } from 'node:path';
import { z } from 'zod';
import type { Checkpoint } from './durables.ts';
import { readJson, writeJsonAtomic } from './files.ts';
import type { Logger } from './log.ts';
import { DATA_TYPES, type DataType } from './rows.ts';

const STATE = z.object({
  database: z.string(),
  checkpoints: z.partialRecord(
    z.enum(DATA_TYPES),
    z.object({ seq: z.number().int().positive(), storedAt: z.string() }),
  ),
});

export class Checkpoints {
  private readonly file: string;
  private written = '';

  constructor(
    dataDir: string,
    /** Those of another database say nothing about this one. */
    private readonly database: string,
    private readonly log: Logger,
  ) {
    this.file = join(dataDir, 'state', 'store_checkpoints.json');
  }

  /** What an earlier run wrote; nothing when that cannot be read: then everything in the streams is read again. */
  read(): Map<DataType, Checkpoint> {
    try {
      const state = STATE.safeParse(readJson(this.file));
      if (state.success && state.data.database === this.database) {
        return new Map(Object.entries(state.data.checkpoints) as [DataType, Checkpoint][]);
      }
    } catch (error) {
      this.log.warn(
        { event: 'checkpoints_unread', file: this.file, err: error },
        'everything in the streams is read again',
      );
    }
    return new Map();
  }

  /** Replaces what is there, if anything is new. */
  write(checkpoints: ReadonlyMap<DataType, Checkpoint>): void {
    const state = { database: this.database, checkpoints: Object.fromEntries(checkpoints) };
    const text = JSON.stringify(state);
    if (text === this.written) return;
    try {
      writeJsonAtomic(this.file, state);
      this.written = text;
    } catch (error) {
      // An older one costs time at the next start, and no rows.
      this.log.warn({ event: 'checkpoints_unwritten', file: this.file, err: error });
    }
  }
}
