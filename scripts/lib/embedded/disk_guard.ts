/**
 * The engine takes no notice when a write fails: on a full disk it acknowledges an insert whose files are empty, and puts an empty
 * part in the place of those that it merged (seen with chdb 3.4, engine 26.7: write() answers ENOSPC, and INSERT is confirmed). So it
 * never gets to write where there is no room: little room ends inserts and merges in time, and where a write may have failed, the process
 * ends at once. At its next start the engine leaves out parts that are not whole, and takes those that they were merged from.
 */
import { statfsSync } from 'node:fs';
import type { Logger } from '../log.ts';
import { pause } from '../pause.ts';
import { ClickHouseFault } from './faults.ts';

const MIB = 2 ** 20;
/** Below this no insert begins, and no merge. */
const LITTLE_BYTES = 64 * MIB;
/** Below this a write may have failed: files are written in pieces of 1 MiB, several at a time. */
const NOTHING_BYTES = 32 * MIB;
/** How often it is looked at besides after each insert. */
const LOOK_MS = 50;
/** How often the wait for room is told. */
const TOLD_MS = 10_000;

export interface DiskGuardOptions {
  path: string;
  log: Logger;
  /** Stops and starts merges. */
  merge(isAllowed: boolean): Promise<void>;
  /** Must not return: nothing that the engine has in memory may reach the disk any more. */
  end(): void;
  /** Bytes that may be written. */
  room?(path: string): number;
}

export class DiskGuard {
  private readonly timer: NodeJS.Timeout;
  private isMerging = true;

  constructor(private readonly options: DiskGuardOptions) {
    this.timer = setInterval(() => this.look(), LOOK_MS);
    this.timer.unref();
    this.look();
  }

  close(): void {
    clearInterval(this.timer);
  }

  /** Before rows are inserted. @throws ClickHouseFault 243 when there is too little room for them */
  refuse(): void {
    const room = this.look();
    if (room >= LITTLE_BYTES) return;
    throw new ClickHouseFault(
      243,
      'NOT_ENOUGH_SPACE',
      `${Math.floor(room / MIB)} MiB are free in ${this.options.path}: the embedded engine takes no rows below ${LITTLE_BYTES / MIB} MiB`,
    );
  }

  /** Ends the process when a write may have failed. @returns bytes that are free */
  look(): number {
    const { path, log, end, room = roomOf } = this.options;
    const bytes = room(path);
    if (bytes < NOTHING_BYTES) {
      log.error(
        { event: 'disk_full', path, bytes },
        'a write may have failed: ending at once, to begin anew from what is whole',
      );
      end();
    }
    const mayMerge = bytes >= LITTLE_BYTES;
    if (mayMerge !== this.isMerging) {
      this.isMerging = mayMerge;
      log.warn({ event: mayMerge ? 'disk_has_room' : 'disk_nearly_full', path, bytes });
      this.options.merge(mayMerge).catch((error: unknown) => {
        // Asked again at the next look.
        this.isMerging = !mayMerge;
        log.warn({ event: 'merges_not_switched', err: error });
      });
    }
    return bytes;
  }
}

/** Waits until there is room to open the data directory. @throws when stopped meanwhile */
export async function untilRoom(path: string, log: Logger, stop: AbortSignal, room = roomOf): Promise<void> {
  for (let waited = 0; ; waited += LOOK_MS) {
    const bytes = room(path);
    if (bytes >= NOTHING_BYTES) return;
    if (waited % TOLD_MS === 0) {
      log.error(
        { event: 'disk_full', path, bytes },
        `waiting for ${NOTHING_BYTES / MIB} MiB of room before the engine is opened`,
      );
    }
    await pause(LOOK_MS, stop);
  }
}

function roomOf(path: string): number {
  const { bavail, bsize } = statfsSync(path);
  return bavail * bsize;
}
