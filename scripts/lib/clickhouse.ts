/** ClickHouse as this project uses it: one client per server, inserts that fail loudly, and the fence after an unclear one. */
import { Agent } from 'node:http';
import { Agent as SecureAgent } from 'node:https';
import { Readable } from 'node:stream';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { TLSSocket } from 'node:tls';
import { type ClickHouseClient, ClickHouseError, type ClickHouseSettings, createClient } from '@clickhouse/client';
import { belongsTo, CLUSTER_SETTINGS, clusterOf, ofEveryServer, storedName } from './cluster.ts';
import type { Config } from './config.ts';
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
  // The pieces of a parallel parser are blocks of their own: a body could be stored in part where a later one cannot be read. The embedded
  // server never cuts one up; others are told.
  input_format_parallel_parsing: 0,
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
  /** That it belongs to; absent: it is a server of its own. */
  cluster?: string | null;
}

type Places = Pick<
  Config,
  'clickhouseUrl' | 'coldClickhouseUrl' | 'clickhouseUser' | 'clickhousePassword' | 'clickhouseCluster'
>;

/** Where hot, the signals and the views are. */
export function hotServer(config: Places): Server {
  const { clickhouseUrl: url, clickhouseUser: username, clickhousePassword: password } = config;
  return { url, username, password, cluster: config.clickhouseCluster };
}

/** Where cold is; the hot server, unless another one is named. */
export function coldServer(config: Places): Server {
  return { ...hotServer(config), url: config.coldClickhouseUrl };
}

/** @param requestTimeoutMs longer than the `max_execution_time` of every query */
export function createClickHouse(
  server: Server,
  application: string,
  requestTimeoutMs = REQUEST_TIMEOUT_MS,
): ClickHouseClient {
  const cluster = server.cluster ?? null;
  const Connections = new URL(server.url).protocol === 'https:' ? SecureAgent : Agent;
  const agent = new Connections({ keepAlive: true, maxSockets: MOST_CONNECTIONS });
  const client = createClient({
    url: server.url,
    username: server.username,
    password: server.password,
    application,
    request_timeout: requestTimeoutMs,
    http_agent: agent,
    compression: { request: false, response: false },
    clickhouse_settings: cluster === null ? EXACT_OUTPUT : { ...EXACT_OUTPUT, ...CLUSTER_SETTINGS },
    // What happened is told by who called, in one place; the client's own logging would tell it twice.
    log: { level: 127 },
  });
  if (cluster !== null) belongsTo(client, cluster);
  agents.set(client, agent);
  return client;
}

const agents = new WeakMap<ClickHouseClient, Agent>();

/**
 * Ends all connections of a client at once, and what the system has not sent of them is never sent: a request on its way through a network that
 * is down would otherwise arrive when that is up again. What is under way fails, its outcome is unclear; the next query connects anew.
 */
export function resetConnections(client: ClickHouseClient): void {
  const { sockets, freeSockets } = agents.get(client)!;
  for (const socket of [...Object.values(sockets), ...Object.values(freeSockets)].flatMap((each) => each ?? [])) {
    if (socket instanceof TLSSocket) socket.destroy();
    else socket.resetAndDestroy();
  }
}

/**
 * Inserts rows that are JSON lines already. Resolves when the server has confirmed.
 * @throws ClickHouseError; for `isPoison` one only where nothing was stored
 */
export async function insertLines(
  client: ClickHouseClient,
  table: string,
  lines: Buffer,
  queryId: string,
): Promise<void> {
  const { stream } = await client
    .exec({
      query: `INSERT INTO ${table} FORMAT JSONEachRow`,
      query_id: queryId,
      clickhouse_settings: INSERT_SETTINGS,
      values: Readable.from(inHalves(lines), { objectMode: false }),
    })
    .catch((error: unknown) => {
      throw clusterOf(client) === null ? error : asOfShards(error);
    });
  for await (const _chunk of stream) {
    // The body is empty; reading it to its end frees the connection.
  }
  signOfLife();
}

/** A constraint is looked at by each shard: where one refuses, another one may have stored its part. Nothing else of rows is a shard's to refuse. */
function asOfShards(error: unknown): unknown {
  if (!(error instanceof ClickHouseError) || error.code !== VIOLATED_CONSTRAINT) return error;
  return new Error(`a shard refused its part of an insert: ${error.message}`, { cause: error });
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

const VIOLATED_CONSTRAINT = '469';

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
  VIOLATED_CONSTRAINT,
  '691', // UNKNOWN_ELEMENT_OF_ENUM
]);

/** True when the server refused the rows themselves: nothing of that insert was stored, and trying again is in vain. */
export function isPoison(error: unknown): boolean {
  return error instanceof ClickHouseError && POISON_CODES.has(error.code);
}

/** Time between the two looks of a fence. */
const FENCE_PAUSE_MS = 1000;

/**
 * Resolves once no query whose id begins with `prefix` (or one of several) runs, seen twice a second apart: an INSERT outlives the client that
 * sent it, and only after it ended does the table say whether it was stored. In a cluster no part may wait for its quorum, either: see cluster.ts.
 * @param written the database, or the tables with their databases, that such queries write to; null: none
 * @throws when the server, or one of the cluster's, cannot be asked
 */
export async function fence(
  client: ClickHouseClient,
  prefix: string | readonly string[],
  written: string | readonly string[] | null,
  stop: AbortSignal,
): Promise<void> {
  let quiet = 0;
  while (quiet < 2) {
    const [[running] = []] = await selectText(client, runningQuery(client, prefix));
    const isQuiet = running === '0' && !(written !== null && (await isQuorumPending(client, written)));
    quiet = isQuiet ? quiet + 1 : 0;
    if (quiet < 2) await pause(FENCE_PAUSE_MS, stop);
  }
}

/** SQL: how many queries run whose id, or that of the query that they are a part of, begins with `prefix`, or one of several. */
export function runningQuery(client: ClickHouseClient, prefix: string | readonly string[]): string {
  const begins = [prefix].flat().map((each) => `startsWith(initial_query_id, '${each}')`);
  return `SELECT count() FROM ${ofEveryServer(client, 'processes')} WHERE ${begins.join(' OR ')}`;
}

async function isQuorumPending(client: ClickHouseClient, written: string | readonly string[]): Promise<boolean> {
  if (clusterOf(client) === null) return false;
  const places = [written].flat().map((each) => each.split('.'));
  const database = places[0]![0];
  const tables = places.flatMap(([, table]) => (table === undefined ? [] : [table, storedName(client, table)]));
  const ofTable = tables.length === 0 ? '' : ` AND table IN (${tables.map((table) => `'${table}'`).join(', ')})`;
  const replicas = `SELECT DISTINCT zookeeper_path FROM ${ofEveryServer(client, 'replicas')} WHERE database = '${database}'${ofTable}`;
  const paths = (await selectText(client, replicas)).map(([path]) => `'${path}/quorum'`);
  if (paths.length === 0) return false;
  const pending = `SELECT count() FROM system.zookeeper WHERE path IN (${paths.join(', ')}) AND name = 'status'`;
  const [[count] = []] = await selectText(client, pending);
  return count !== '0';
}
