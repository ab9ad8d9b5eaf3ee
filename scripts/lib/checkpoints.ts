/** What the store has acknowledged of each type of a stream, on disk: with it a start knows a broker that lost what it had. */
import { join } from 'node:path';
import { z } from 'zod';
import type { Checkpoint } from './durables.ts';
import { readJson, writeJsonAtomic } from './files.ts';
import type { Logger } from './log.ts';
import { DATA_TYPES, type DataType } from './rows.ts';
import type { StreamName } from './streams.ts';

const CHECKPOINTS = z.partialRecord(
  z.enum(DATA_TYPES),
  z.object({ seq: z.number().int().positive(), storedAt: z.string() }),
);
const STATE = z.object({ database: z.string(), checkpoints: CHECKPOINTS });

/** The checkpoints that a store elsewhere left in its lease. @returns null when it left none for this database */
export function checkpointsLeft(state: unknown, database: string): Map<DataType, Checkpoint> | null {
  const { success, data } = STATE.safeParse(state);
  return success && data.database === database ? asMap(data.checkpoints) : null;
}

function asMap(checkpoints: z.infer<typeof CHECKPOINTS>): Map<DataType, Checkpoint> {
  return new Map(Object.entries(checkpoints) as [DataType, Checkpoint][]);
}

export class Checkpoints {
  private readonly file: string;
  private written = '';

  constructor(
    dataDir: string,
    /** Those of another database say nothing about this one. */
    private readonly database: string,
    stream: StreamName,
    private readonly log: Logger,
  ) {
    this.file = join(dataDir, 'state', `store_checkpoints_${stream}.json`);
  }

  /** What an earlier run wrote; nothing when that cannot be read: then everything in the streams is read again. */
  read(): Map<DataType, Checkpoint> {
    try {
      const state = STATE.safeParse(readJson(this.file));
      if (state.success && state.data.database === this.database) {
        return asMap(state.data.checkpoints);
      }
    } catch (error) {
      this.log.warn(
        { event: 'checkpoints_unread', file: this.file, err: error },
        'everything in the streams is read again',
      );
    }
    return new Map();
  }

  /** As it is written, here and into the lease. */
  stateOf(checkpoints: ReadonlyMap<DataType, Checkpoint>): z.infer<typeof STATE> {
    return { database: this.database, checkpoints: Object.fromEntries(checkpoints) };
  }

  /** Replaces what is there, if anything is new. */
  write(checkpoints: ReadonlyMap<DataType, Checkpoint>): void {
    const state = this.stateOf(checkpoints);
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
