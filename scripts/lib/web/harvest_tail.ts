/** The newest rows of the harvest's files, read from their ends. */
import { open } from 'node:fs/promises';
import type { RawKind } from '../harvest/kinds.ts';
import { slicesOf } from '../harvest/slices.ts';

const PIECE_BYTES = 2 ** 18;
/** So much is looked at for one answer. */
const MOST_BYTES = 64 * 2 ** 20;
const LINE_FEED = 0x0a;

export interface AskedRows {
  kind: RawKind;
  symbol: string;
  from?: number | undefined;
  to?: number | undefined;
  limit: number;
}

type Row = Record<string, unknown> & { ts_ms: number };

/** @returns the newest first; not complete when there was more to look at than one answer may cost */
export async function newestRows(
  root: string,
  { kind, symbol, from, to, limit }: AskedRows,
  gone: AbortSignal,
): Promise<{ rows: Row[]; is_complete: boolean }> {
  const span = { from: from ?? null, to: to === undefined ? null : to + 1, symbols: [symbol] };
  const slices = slicesOf(root, span).filter((slice) => slice.kind === kind);
  const rows: Row[] = [];
  const budget = { bytes: MOST_BYTES };
  for (const { path } of slices.reverse()) {
    for await (const row of rowsFromEnd(path, budget)) {
      gone.throwIfAborted();
      if (row.ts_ms >= (from ?? 0) && row.ts_ms <= (to ?? Number.POSITIVE_INFINITY)) rows.push(row);
      if (rows.length === limit) return { rows: inOrder(rows), is_complete: true };
    }
    if (budget.bytes <= 0) return { rows: inOrder(rows), is_complete: false };
  }
  return { rows: inOrder(rows), is_complete: true };
}

/** Rows that came late lie after later ones. */
function inOrder(rows: Row[]): Row[] {
  return rows.sort((one, other) => other.ts_ms - one.ts_ms);
}

/** Whole lines from the last to the first; what is being written is none yet. */
async function* rowsFromEnd(path: string, budget: { bytes: number }): AsyncGenerator<Row> {
  const file = await open(path);
  try {
    let { size: at } = await file.stat();
    let rest: Buffer = Buffer.alloc(0);
    let isEnd = true;
    while (at > 0 && budget.bytes > 0) {
      const length = Math.min(PIECE_BYTES, at);
      at -= length;
      budget.bytes -= length;
      const { buffer } = await file.read(Buffer.allocUnsafe(length), 0, length, at);
      let bytes: Buffer = Buffer.concat([buffer, rest]);
      if (isEnd) bytes = bytes.subarray(0, bytes.lastIndexOf(LINE_FEED) + 1);
      isEnd = isEnd && bytes.length === 0;
      for (let end = bytes.length; end > 0; ) {
        const feed = end > 1 ? bytes.lastIndexOf(LINE_FEED, end - 2) : -1;
        if (feed < 0 && at > 0) {
          bytes = bytes.subarray(0, end);
          break;
        }
        const row = rowOn(bytes.subarray(feed + 1, end));
        end = feed + 1;
        if (row !== null) yield row;
        bytes = bytes.subarray(0, end);
      }
      rest = Buffer.from(bytes);
    }
  } finally {
    await file.close();
  }
}

function rowOn(bytes: Buffer): Row | null {
  try {
    const row = JSON.parse(bytes.toString()) as Row;
    return typeof row?.ts_ms === 'number' ? row : null;
  } catch {
    // Damaged: ofi_cvd_harvester.ts --validate tells of it.
    return null;
  }
}
