/** ClickHouse as this project uses it: one client per server, inserts that fail loudly, and the fence after an unclear one. */
import { Readable } from 'node:stream';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { type ClickHouseClient, ClickHouseError, type ClickHouseSettings, createClient } from '@clickhouse/client';
import { crashPoint } from './crash_points.ts';
import { pause } from './pause.ts';
import { signOfLife } from './vital_signs.ts';

/**
 * Every insert: the answer comes after the write, a misspelt member or a null where none is allowed is an error and not a 0,
 * and no statement outlives its client for long.
 */
export const INSERT_SETTINGS: ClickHouseSettings = {
  async_insert: 0,
  input_format_skip_unknown_fields: 0,
  input_format_null_as_default: 0,
  max_execution_time: 30,
};

/** Longer than `max_execution_time`, so that the server's own word comes first. */
const REQUEST_TIMEOUT_MS = 40_000;

/**
 * Connections of one client; what exceeds them waits its turn. The server runs few queries at once on a small machine, and each
 * connection that it holds costs it memory: more of them only move the queue to where nobody sees it.
 */
const MOST_CONNECTIONS = 8;

/** Ids of 64 bits and decimals come as text: a double would round them. */
export const EXACT_OUTPUT: ClickHouseSettings = {
  output_format_json_quote_64bit_integers: 1,
  output_format_json_quote_decimals: 1,
};

export interface Server {
  url: string;
  username: string;
  password: string;
}

/** @param requestTimeoutMs longer than the `max_execution_time` of every query */
export function createClickHouse(
  server: Server,
  application: string,
  requestTimeoutMs = REQUEST_TIMEOUT_MS,
): ClickHouseClient {
  return createClient({
    url: server.url,
    username: server.username,
    password: server.password,
    application,
    request_timeout: requestTimeoutMs,
    max_open_connections: MOST_CONNECTIONS,
    compression: { request: false, response: false },
    clickhouse_settings: EXACT_OUTPUT,
    // What happened is told by who called, in one place; the client's own logging would tell it twice.
    log: { level: 127 },
  });
}

/** Inserts rows that are JSON lines already. Resolves when the server has confirmed. */
export async function insertLines(
  client: ClickHouseClient,
  table: string,
  lines: Buffer,
  queryId: string,
): Promise<void> {
  const { stream } = await client.exec({
    query: `INSERT INTO ${table} FORMAT JSONEachRow`,
    query_id: queryId,
    clickhouse_settings: INSERT_SETTINGS,
    values: Readable.from(inHalves(lines), { objectMode: false }),
  });
  for await (const _chunk of stream) {
    // The body is empty; reading it to its end frees the connection.
  }
  signOfLife();
}

/** A body in two pieces, of which the first is handed to the system before the second is there. */
async function* inHalves(body: Buffer): AsyncGenerator<Buffer> {
  const middle = body.length >> 1;
  yield body.subarray(0, middle);
  await nextTurn();
  crashPoint('store.inserting');
  yield body.subarray(middle);
}

/** The rows of a query as lists of text columns. For values without tabs or line breaks. */
export async function selectText(
  client: ClickHouseClient,
  query: string,
  settings: ClickHouseSettings = {},
): Promise<string[][]> {
  const result = await client.query({ query, format: 'TabSeparated', clickhouse_settings: settings });
  const text = await result.text();
  signOfLife();
  if (text === '') return [];
  return text
    .replace(/\n$/, '')
    .split('\n')
    .map((line) => line.split('\t'));
}

/**
 * Codes that say: a row of this insert cannot be a row of this table. All others (timeouts, memory, connections) say
 * nothing about the rows.
 */
const POISON_CODES = new Set([
  '6', // CANNOT_PARSE_TEXT
  '25', // CANNOT_PARSE_ESCAPE_SEQUENCE
  '26', // CANNOT_PARSE_QUOTED_STRING
  '27', // CANNOT_PARSE_INPUT_ASSERTION_FAILED
  '33', // CANNOT_READ_ALL_DATA
  '38', // CANNOT_PARSE_DATE
  '41', // CANNOT_PARSE_DATETIME
  '53', // TYPE_MISMATCH
  '69', // ARGUMENT_OUT_OF_BOUND
  '70', // CANNOT_CONVERT_TYPE
  '72', // CANNOT_PARSE_NUMBER
  '117', // INCORRECT_DATA (unknown member, damaged JSON)
  '130', // CANNOT_READ_ARRAY_FROM_TEXT
  '131', // TOO_LARGE_STRING_SIZE
  '321', // VALUE_IS_OUT_OF_RANGE_OF_DATA_TYPE
  '349', // CANNOT_INSERT_NULL_IN_ORDINARY_COLUMN
  '395', // FUNCTION_THROW_IF_VALUE_IS_NON_ZERO (a member is absent)
  '407', // DECIMAL_OVERFLOW
  '467', // CANNOT_PARSE_BOOL
  '469', // VIOLATED_CONSTRAINT
  '691', // UNKNOWN_ELEMENT_OF_ENUM
]);

/** True when the server refused the rows themselves: nothing of that insert was stored, and trying again is in vain. */
export function isPoison(error: unknown): boolean {
  return error instanceof ClickHouseError && POISON_CODES.has(error.code);
}

/** Time between the two looks of a fence. */
const FENCE_PAUSE_MS = 1000;

/**
 * Resolves once no query whose id begins with `prefix` runs, seen twice a second apart: an INSERT outlives the client that
 * sent it, and only after it ended does the table say whether it was stored.
 * @throws when the server cannot be asked
 */
export async function fence(client: ClickHouseClient, prefix: string, stop: AbortSignal): Promise<void> {
  let quiet = 0;
  while (quiet < 2) {
    const query = `SELECT count() FROM system.processes WHERE startsWith(query_id, '${prefix}')`;
    const [[running] = []] = await selectText(client, query);
    quiet = running === '0' ? quiet + 1 : 0;
    if (quiet < 2) await pause(FENCE_PAUSE_MS, stop);
  }
}
