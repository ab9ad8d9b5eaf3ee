/** Bytes on disk of recorded trades and book levels, as the tables keep them once they are merged. */
import type { ClickHouseClient } from '@clickhouse/client';
import { insertLines, selectText } from '../../scripts/lib/clickhouse.ts';
import type { FeedEvent, FeedOutput } from '../../scripts/lib/exchange.ts';
import { type DataType, encodeRow, type Rows, TABLES } from '../../scripts/lib/rows.ts';
import { ensureTier } from '../../scripts/lib/schema.ts';
import { createFeed } from './feeds.ts';
import { withDatabase } from './flow.ts';
import { madeDiffs, madeTrades, RECEIVED_AT, RECEIVED_STEP, recordedSessions, type Session } from './market.ts';
import { atMost, type Suite } from './suite.ts';

const GOAL = { trade: 7, level: 4 };
const DATABASE = 'marketprism_cold';
/** Rows of one message: js_seq rises by one after so many. */
const ROWS_PER_MESSAGE = 20;
const MADE_ROWS = 12_000;
/** The collector's default. */
const ORDERBOOK_INTERVAL_MS = 10_000;

export const storageSuite: Suite = {
  name: 'storage',
  async run(say) {
    const recorded = recordedSessions();
    if (!recorded) say('recorded sessions are not there: rows of the same shape are made, which compress otherwise');
    const sessions = recorded ?? [...madeTrades(MADE_ROWS), madeDiffs(MADE_ROWS)];
    const lines = linesOf(sessions);
    return withDatabase(async (client) => {
      await ensureTier(client, 'cold', DATABASE);
      for (const [type, own] of lines) {
        const table = `${DATABASE}.${TABLES[type].name}`;
        await insertLines(client, table, Buffer.from(own.join('')), `bench:${type}`);
        await client.command({ query: `OPTIMIZE TABLE ${table} FINAL` });
      }
      const trades = await sizeOf(client, 'trades', 'count()');
      const diffs = await sizeOf(client, 'orderbook_updates', 'sum(length(bids) + length(asks))');
      const books = await sizeOf(client, 'orderbooks', 'sum(length(bids) + length(asks))');
      return {
        figures: [
          atMost('bytes_per_trade', trades.bytes / trades.items, GOAL.trade),
          atMost('bytes_per_book_level', (diffs.bytes + books.bytes) / (diffs.items + books.items), GOAL.level),
        ],
        information: [
          `${recorded ? 'recorded' : 'made'}, compressed columns of cold after a merge: ${trades.items} trades, ` +
            `${diffs.items} levels of updates ${(diffs.bytes / diffs.items).toFixed(2)} bytes each, ` +
            `${books.items} levels of books ${(books.bytes / books.items).toFixed(2)} bytes each`,
        ],
      };
    });
  },
};

async function sizeOf(
  client: ClickHouseClient,
  table: string,
  items: string,
): Promise<{ bytes: number; items: number }> {
  const size = `SELECT sum(data_compressed_bytes) FROM system.parts WHERE active AND database = '${DATABASE}' AND table = '${table}'`;
  const [[bytes, count]] = (await selectText(
    client,
    `SELECT (${size}), (SELECT ${items} FROM ${DATABASE}.${table})`,
  )) as [[string, string]];
  return { bytes: Number(bytes), items: Number(count) };
}

/** The rows of the sessions as they would be inserted, by type. */
function linesOf(sessions: Session[]): Map<DataType, string[]> {
  const lines = new Map<DataType, string[]>();
  const out: FeedOutput = {
    row<T extends DataType>(type: T, row: Rows[T]) {
      const own = lines.get(type) ?? [];
      if (own.length === 0) lines.set(type, own);
      const seq = 1 + Math.floor(own.length / ROWS_PER_MESSAGE);
      own.push(`{"js_epoch":1,"js_seq":${seq},${encodeRow(type, row).slice(1)}\n`);
    },
    event(event: FeedEvent) {
      if (event.kind === 'rejected') throw new Error(`a frame was refused: ${JSON.stringify(event)}`);
    },
  };
  for (const session of sessions) {
    let receivedAt = RECEIVED_AT;
    const trades = createFeed(session, ORDERBOOK_INTERVAL_MS);
    for (const text of session.trades) trades.frame(text, (receivedAt += RECEIVED_STEP), out);
    const book = createFeed(session, ORDERBOOK_INTERVAL_MS);
    receivedAt = RECEIVED_AT;
    for (const text of session.diffs) {
      if (text !== null) book.frame(text, (receivedAt += RECEIVED_STEP), out);
      else for (const { path } of book.requests()) book.rest(path, JSON.parse(session.snapshot), receivedAt, out);
    }
  }
  return lines;
}
