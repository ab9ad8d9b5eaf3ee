/**
 * Inserts into tables that have each row once, whoever dies when: who writes looks what is there, inserts the rest, and believes nothing after an
 * answer that did not come until no such insert can happen any more. There is one writer per table and prefix: its lock says so.
 */
import { randomBytes } from 'node:crypto';
import type { ClickHouseClient } from '@clickhouse/client';
import { fence, insertLines, isPoison } from './clickhouse.ts';
import { pause } from './pause.ts';

/** What a writer knows of its own inserts. */
export interface InsertLine {
  client: ClickHouseClient;
  /** With its database. */
  table: string;
  /** Of the ids of its inserts. */
  prefix: string;
  /** None of them may still happen. */
  isClear: boolean;
}

export interface Tries {
  most: number;
  /** Before the second one; it doubles. ms */
  firstWaitMs: number;
  /** Told of each one that failed and is followed by another. */
  onUnclear?(error: unknown, attempt: number): void;
}

/**
 * Does `work`, which looks and then inserts by `insertBlock`, until it is through: before each try no insert of before can happen any more.
 * @throws what the last try threw, or what the table refuses; the reason of `stop`
 */
export async function lookAndInsert<T>(
  line: InsertLine,
  tries: Tries,
  stop: AbortSignal,
  work: () => Promise<T>,
): Promise<T> {
  for (let attempt = 1, wait = tries.firstWaitMs; ; attempt += 1, wait *= 2) {
    try {
      stop.throwIfAborted();
      if (!line.isClear) await fence(line.client, line.prefix, line.table, stop);
      line.isClear = true;
      return await work();
    } catch (error) {
      stop.throwIfAborted();
      if (isPoison(error) || attempt >= tries.most) throw error;
      tries.onUnclear?.(error, attempt);
      await pause(wait, stop);
    }
  }
}

/** Inserts lines in one block. @throws as `insertLines`; refused rows leave nothing to wait for */
export async function insertBlock(line: InsertLine, lines: Buffer): Promise<void> {
  line.isClear = false;
  try {
    await insertLines(line.client, line.table, lines, `${line.prefix}${randomBytes(8).toString('hex')}`);
  } catch (error) {
    if (isPoison(error)) line.isClear = true;
    throw error;
  }
  line.isClear = true;
}
