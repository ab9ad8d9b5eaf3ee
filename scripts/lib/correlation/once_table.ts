/** Rows of a table that has each key once, in months: see once_insert.ts. The table's writer begins with `fenceAll`. */
import type { ClickHouseClient } from '@clickhouse/client';
import { fence, selectText } from '../clickhouse.ts';
import type { Logger } from '../log.ts';
import { type InsertLine, insertBlock, lookAndInsert } from '../once_insert.ts';

/** A part each; larger ones gain nothing. */
const MOST_ROWS = 50_000;
/** So often an insert is tried before its rows are left to the next turn. */
const TRIES = 4;
const FIRST_WAIT_MS = 500;
/** Of the ids of all inserts here. */
const PREFIX = 'correlation:';

/** Resolves once no insert of such a table can happen any more. @throws when the database cannot be asked */
export function fenceAll(client: ClickHouseClient, database: string, stop: AbortSignal): Promise<void> {
  return fence(client, PREFIX, database, stop);
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
  private readonly line: InsertLine;

  /** @param table with its database @param name letters; of its queries */
  constructor(
    client: ClickHouseClient,
    table: string,
    name: string,
    private readonly log: Logger,
    /** The query that tells which of these rows are there: their key in the first column. */
    private readonly look: (rows: readonly R[], table: string) => string,
    /** Told of each row that is there already, with the columns that the look gave. */
    private readonly found: (row: R, columns: readonly string[]) => void = () => undefined,
  ) {
    this.line = { client, table, prefix: `${PREFIX}${name}:`, isClear: true };
  }

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

  private keepPart(rows: readonly R[], stop: AbortSignal): Promise<Kept> {
    const { line, log } = this;
    const onUnclear = (error: unknown, attempt: number) =>
      log.warn({ event: 'insert_unclear', table: line.table, err: error, attempt });
    return lookAndInsert(line, { most: TRIES, firstWaitMs: FIRST_WAIT_MS, onUnclear }, stop, async () => {
      const missing = await this.missing(rows);
      if (missing.length > 0) await insertBlock(line, Buffer.from(missing.map((row) => `${row.line}\n`).join('')));
      return { inserted: missing.length, present: rows.length - missing.length };
    });
  }

  /** The rows whose key is not there; of equal keys the first. */
  private async missing(rows: readonly R[]): Promise<R[]> {
    const left = new Map<string, R>();
    for (const row of rows) if (!left.has(row.key)) left.set(row.key, row);
    const settings = { max_execution_time: 30, max_query_size: '16777216' };
    for (const columns of await selectText(this.line.client, this.look(rows, this.line.table), settings)) {
      const row = left.get(columns[0]!);
      if (row === undefined) continue;
      this.found(row, columns);
      left.delete(row.key);
    }
    return [...left.values()];
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
