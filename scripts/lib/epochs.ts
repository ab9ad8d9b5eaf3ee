/**
 * Which numbering a stream's sequences belong to. A broker that lost its tail keeps the stream's creation time and gives the
 * same sequences again (measured), so (js_epoch, js_seq) is what names a message, and the epoch rises when numbering began anew.
 */
import type { ClickHouseClient } from '@clickhouse/client';
import type { JetStreamManager, StreamInfo } from 'nats';
import { keyTexts } from './arrivals.ts';
import { EXACT_OUTPUT, insertLines, selectText } from './clickhouse.ts';
import { storedMessage } from './jetstream.ts';
import type { Logger } from './log.ts';
import { confirmed } from './quorum.ts';
import { type DataType, TABLES } from './rows.ts';
import type { StreamDefinition } from './streams.ts';
import { parseSubject } from './streams.ts';

interface Known {
  epoch: number;
  created: string;
}

/** The highest sequence of an epoch in hot, and some rows that came with it. */
interface Highest {
  type: DataType;
  seq: number;
}

/**
 * The stream's present epoch, raised when its numbering began anew since the last look: another creation time, a sequence in
 * hot that the stream has not reached, or a message at the highest stored sequence that does not hold the rows stored from it.
 * Call it after a fence: an older epoch is closed at its highest sequence in hot.
 * @param isIntact false: a message that was acknowledged is not there any more
 */
export async function currentEpoch(
  client: ClickHouseClient,
  database: string,
  manager: JetStreamManager,
  definition: StreamDefinition,
  isIntact: boolean,
  log: Logger,
): Promise<number> {
  const createdNow = async () => String((await manager.streams.info(definition.name)).created);
  const known = await knownEpoch(client, database, definition.name);
  if (known === null) return openEpoch(client, database, definition.name, 1, await createdNow(), 'first');
  const highest = await highestSequence(client, database, definition, known.epoch);
  const reason =
    (await confirmed(manager, definition.name, (info) =>
      breach(client, database, manager, definition, known, highest, info),
    )) ?? (isIntact ? null : 'an acknowledged message is not there any more');
  if (reason === null) return known.epoch;
  const created = await createdNow();
  log.warn({ event: 'epoch_raised', stream: definition.name, from: known.epoch, reason });
  await record(client, database, {
    stream: definition.name,
    js_epoch: known.epoch,
    stream_created: known.created,
    reason: 'closed',
    closed_at_seq: highest?.seq ?? 0,
  });
  return openEpoch(client, database, definition.name, known.epoch + 1, created, reason);
}

async function knownEpoch(client: ClickHouseClient, database: string, stream: string): Promise<Known | null> {
  const query = `SELECT js_epoch, argMin(stream_created, updated_at) FROM ${database}.stream_epochs WHERE stream = '${stream}' GROUP BY js_epoch ORDER BY js_epoch DESC LIMIT 1`;
  const [row] = await selectText(client, query);
  return row ? { epoch: Number(row[0]), created: row[1]! } : null;
}

async function openEpoch(
  client: ClickHouseClient,
  database: string,
  stream: string,
  epoch: number,
  created: string,
  reason: string,
): Promise<number> {
  await record(client, database, { stream, js_epoch: epoch, stream_created: created, reason, closed_at_seq: null });
  return epoch;
}

async function record(client: ClickHouseClient, database: string, row: object): Promise<void> {
  await insertLines(
    client,
    `${database}.stream_epochs`,
    Buffer.from(`${JSON.stringify(row)}\n`),
    `epoch:${Date.now()}`,
  );
}

async function highestSequence(
  client: ClickHouseClient,
  database: string,
  definition: StreamDefinition,
  epoch: number,
): Promise<Highest | null> {
  const parts = definition.types.map(
    (type) =>
      `SELECT '${type}' AS type, max(js_seq) AS seq FROM ${database}.${TABLES[type].name} WHERE js_epoch = ${epoch}`,
  );
  const query = `SELECT type, seq FROM (${parts.join(' UNION ALL ')}) WHERE seq > 0 ORDER BY seq DESC LIMIT 1`;
  const [row] = await selectText(client, query);
  return row ? { type: row[0] as DataType, seq: Number(row[1]) } : null;
}

/** Why the stream's numbering is not the known epoch's any more, or null. */
async function breach(
  client: ClickHouseClient,
  database: string,
  manager: JetStreamManager,
  definition: StreamDefinition,
  known: Known,
  highest: Highest | null,
  { created, state }: StreamInfo,
): Promise<string | null> {
  if (known.created !== String(created)) return `created ${created}, not ${known.created}`;
  if (highest === null) return null;
  if (highest.seq > state.last_seq) return `hot has sequence ${highest.seq}, the stream ends at ${state.last_seq}`;
  if (highest.seq < state.first_seq) return null;
  const message = await storedMessage(manager, definition.name, highest.seq);
  // Deleted inside of the stream by hand: the numbering itself goes on.
  if (message === null) return `no message at sequence ${highest.seq}`;
  const rows = await rowsAt(client, database, highest, known.epoch);
  return holdsRows(message, highest.type, rows) ? null : `another message at sequence ${highest.seq}`;
}

/** A few rows that hot holds under this sequence: stream and natural key. */
async function rowsAt(
  client: ClickHouseClient,
  database: string,
  highest: Highest,
  epoch: number,
): Promise<string[][]> {
  const { name } = TABLES[highest.type];
  const query = `SELECT exchange, market_type, symbol, ${keyTexts(highest.type).join(', ')} FROM ${database}.${name} WHERE js_epoch = ${epoch} AND js_seq = ${highest.seq} LIMIT 10`;
  return selectText(client, query, EXACT_OUTPUT);
}

/** True when the message is of the rows' stream and holds each of their keys. */
function holdsRows(message: { subject: string; data: Uint8Array }, type: DataType, rows: string[][]): boolean {
  const stream = parseSubject(message.subject);
  if (stream === null || stream.type !== type) return false;
  const keys = new Set<string>();
  for (const line of Buffer.from(message.data).toString().split('\n')) {
    if (line === '') continue;
    const row = JSON.parse(line) as Record<string, unknown>;
    keys.add([row.exchange, row.market_type, row.symbol, ...TABLES[type].key.map((member) => row[member])].join('\t'));
  }
  return rows.every((row) => keys.has(row.join('\t')));
}
