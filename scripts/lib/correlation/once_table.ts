/**
 * Rows of a table that has each key once, whoever dies when: the database is asked which of them it has, what it lacks is inserted, and after
 * an answer that did not come nothing is believed until no such insert can happen any more.
 *
 * There is one writer per table: its lock says so. It begins with `fenceAll`: an insert of a process before it may still happen.
 */
import { randomBytes } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import type { ClickHouseClient } from '@clickhouse/client';
import { fence, insertLines, isPoison, selectText } from '../clickhouse.ts';
import type { Logger } from '../log.ts';

/** A part each; larger ones gain nothing. */
const MOST_ROWS = 50_000;
/** So often an insert is tried before its rows are left to the next turn. */
const TRIES = 4;
const WAIT_MS = 500;
/** Of the ids of all inserts here. */
const PREFIX = 'correlation:';

/** Resolves once no insert of such a table can happen any more. @throws when the database cannot be asked */
export function fenceAll(client: ClickHouseClient, stop: AbortSignal): Promise<void> {
  return fence(client, PREFIX, stop);
}

export interface OnceRow {
  /** As the look gives it back. */
  key: string;
  /** Of the row, ms: rows of one month are one part. */
  timestamp: number;
  /** The row as a JSON line, without the end of it. */
  line: string;
}

export interface Kept {
  inserted: number;
  /** Keys that were there before. */
  present: number;
}

export class OnceTable<R extends OnceRow> {
  /** An insert of this table may still happen. */
  private isUnclear = false;

  /** @param table with its database @param name letters; of its queries */
  constructor(
    private readonly client: ClickHouseClient,
    private readonly table: string,
    private readonly name: string,
    private readonly log: Logger,
    /** The query that tells which of these rows are there: their key in the first column. */
    private readonly look: (rows: readonly R[], table: string) => string,
    /** Told of each row that is there already, with the columns that the look gave. */
    private readonly found: (row: R, columns: readonly string[]) => void = () => undefined,
  ) {}

  /**
   * Inserts what is missing, months in their order, each whole: rows of a later month are never there without those of an earlier one.
   * @param rows ascending by time for each of their series
   * @throws when the database does not do it, or a row is none of the table's
   */
  async keep(rows: readonly R[], stop: AbortSignal): Promise<Kept> {
    const kept = { inserted: 0, present: 0 };
    for (const part of partsOf(rows)) {
      const { inserted, present } = await this.keepPart(part, stop);
      kept.inserted += inserted;
      kept.present += present;
    }
    return kept;
  }

  private async keepPart(rows: readonly R[], stop: AbortSignal): Promise<Kept> {
    for (let attempt = 1; ; attempt++) {
      try {
        stop.throwIfAborted();
        if (this.isUnclear) await fence(this.client, this.prefix, stop);
        this.isUnclear = false;
        const missing = await this.missing(rows);
        if (missing.length > 0) await this.insert(missing);
        return { inserted: missing.length, present: rows.length - missing.length };
      } catch (error) {
        stop.throwIfAborted();
        if (isPoison(error) || attempt >= TRIES) throw error;
        this.log.warn({ event: 'insert_unclear', table: this.table, err: error, attempt });
        await sleep(WAIT_MS * attempt, undefined, { signal: stop });
      }
    }
  }

  private get prefix(): string {
    return `${PREFIX}${this.name}:`;
  }

  /** The rows whose key is not there; of equal keys the first. */
  private async missing(rows: readonly R[]): Promise<R[]> {
    const left = new Map<string, R>();
    for (const row of rows) if (!left.has(row.key)) left.set(row.key, row);
    const settings = { max_execution_time: 30, max_query_size: '16777216' };
    for (const columns of await selectText(this.client, this.look(rows, this.table), settings)) {
      const row = left.get(columns[0]!);
      if (row === undefined) continue;
      this.found(row, columns);
      left.delete(row.key);
    }
    return [...left.values()];
  }

  private async insert(rows: readonly R[]): Promise<void> {
    const lines = Buffer.from(rows.map(({ line }) => `${line}\n`).join(''));
    this.isUnclear = true;
    try {
      await insertLines(this.client, this.table, lines, `${this.prefix}${randomBytes(8).toString('hex')}`);
    } catch (error) {
      // Refused as a whole: there is nothing to wait for.
      if (isPoison(error)) this.isUnclear = false;
      throw error;
    }
    this.isUnclear = false;
  }
}

/** Rows by month, which are the table's partitions, in their order, in pieces that are inserted as one block. */
function partsOf<R extends OnceRow>(rows: readonly R[]): R[][] {
  const months = new Map<string, R[]>();
  for (const row of rows) {
    const month = new Date(row.timestamp).toISOString().slice(0, 7);
    const list = months.get(month);
    if (list) list.push(row);
    else months.set(month, [row]);
  }
  const inOrder = [...months.entries()].sort(([one], [other]) => (one < other ? -1 : 1));
  return inOrder.flatMap(([, list]) => {
    const pieces: R[][] = [];
    for (let from = 0; from < list.length; from += MOST_ROWS) pieces.push(list.slice(from, from + MOST_ROWS));
    return pieces;
  });
}
