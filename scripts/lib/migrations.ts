/**
 * Changes of the tables: forward only, in order, each safe to repeat. Two services may begin the same one at once, and one may be killed in
 * the middle of it; a version is written down only when all of it was done, and what was not is done again at the next start.
 */
import { randomUUID } from 'node:crypto';
import { hostname } from 'node:os';
import { basename } from 'node:path';
import { type ClickHouseClient, ClickHouseError } from '@clickhouse/client';
import { EXIT_USAGE, OperatorError } from './cli.ts';
import { insertLines, selectText } from './clickhouse.ts';
import { alterations, clusterOf, localName, ofEveryServer, ofEveryShard, storedName } from './cluster.ts';
import { crashPoint } from './crash_points.ts';
import type { Logger } from './log.ts';
import { DATA_TYPES, TABLES } from './rows.ts';
import { clusterStatements } from './schema_cluster.ts';
import { ARRIVAL_INDEX, contentsOf, type DatabaseKind, databaseStatements } from './schema_sql.ts';

/** A database of ours. */
export interface SchemaPlace {
  client: ClickHouseClient;
  kind: DatabaseKind;
  database: string;
}

export interface Migration {
  /** One more than that of the one before. */
  version: number;
  /** What it changes, in a few words. */
  name: string;
  /** Does it to one database, whatever part of it was done before; where it changes nothing there, nothing. */
  apply(place: SchemaPlace): Promise<void>;
}

/**
 * All of them. A table that is made anew has the present columns of rows.ts and signal_tables.ts at once, so a change goes there and here: what is
 * added here says IF NOT EXISTS. Never change one that was released; test/migrations.test.ts compares both ways to the present tables.
 */
export const MIGRATIONS: readonly Migration[] = [
  { version: 1, name: 'databases, tables and views', apply: createMissing },
  {
    version: 2,
    name: 'index by arrival, for what hot held before it',
    apply: async (place) => {
      if (place.kind === 'hot') await indexByArrival(place);
    },
  },
];

/** The version that this program makes, and the latest that it works with. */
export const NEWEST_SCHEMA = MIGRATIONS.at(-1)!.version;

/** ClickHouse's codes of a database and of a table that are not there. */
const ABSENT_CODES = new Set(['81', '60']);

/**
 * Applies what is missing of a database's migrations, and makes anew what was lost of its tables; one query when all is there.
 * @throws OperatorError when the database is of a later version than this program knows
 */
export async function migrate(
  place: SchemaPlace,
  log: Logger | null = null,
  migrations: readonly Migration[] = MIGRATIONS,
): Promise<void> {
  const { version, isWhole } = await presentOf(place);
  const newest = migrations.at(-1)!.version;
  if (version > newest) {
    throw new OperatorError(
      `${place.database} is of schema version ${version}, and this program knows versions up to ${newest}: it must not write there; start the newer program, or name another database`,
      EXIT_USAGE,
    );
  }
  if (!isWhole && version > 0) await createMissing(place);
  for (const migration of migrations) {
    if (migration.version <= version) continue;
    await migration.apply(place);
    crashPoint('schema.applied');
    await record(place, migration);
    log?.info({ event: 'schema_migrated', database: place.database, version: migration.version, name: migration.name });
  }
}

/** The highest version that was applied to a database; 0: none, or it is not there. */
export async function schemaVersion(client: ClickHouseClient, database: string): Promise<number> {
  const rows = await selectOrNone(client, `SELECT max(version) FROM ${database}.schema_migrations`);
  return Number(rows[0]?.[0] ?? 0);
}

async function presentOf({ client, kind, database }: SchemaPlace): Promise<{ version: number; isWhole: boolean }> {
  const rows = await selectOrNone(
    client,
    `SELECT name, toUInt32(0) FROM system.tables WHERE database = '${database}' UNION ALL SELECT '', max(version) FROM ${database}.schema_migrations`,
  );
  const there = new Set(rows.map(([name]) => name));
  const { tables, views } = contentsOf(kind, database);
  const wanted = [...tables, ...views].map(({ name }) => name);
  if (clusterOf(client) !== null) wanted.push(...tables.flatMap((each) => (each.isState ? [] : localName(each.name))));
  const version = rows.find(([name]) => name === '')?.[1] ?? '0';
  return { version: Number(version), isWhole: wanted.every((name) => there.has(name)) };
}

async function selectOrNone(client: ClickHouseClient, query: string): Promise<string[][]> {
  try {
    return await selectText(client, query);
  } catch (error) {
    if (error instanceof ClickHouseError && ABSENT_CODES.has(error.code)) return [];
    throw error;
  }
}

async function record({ client, database }: SchemaPlace, { version, name }: Migration): Promise<void> {
  const by = `${basename(process.argv[1] ?? 'node')} on ${hostname()}`;
  const line = Buffer.from(`${JSON.stringify({ version, name, by })}\n`);
  await insertLines(client, `${database}.schema_migrations`, line, `schema:${database}:${version}:${randomUUID()}`);
}

async function run({ client }: SchemaPlace, query: string): Promise<void> {
  await client.command({ query, clickhouse_settings: { mutations_sync: '0' } });
  crashPoint('schema.statement');
}

/** Changes one table of rows, wherever its rows lie. @param change such as `ADD COLUMN IF NOT EXISTS x UInt8 DEFAULT 0` */
export async function alterTable(place: SchemaPlace, table: string, change: string): Promise<void> {
  for (const query of alterations(place.client, `${place.database}.${table}`, change)) await run(place, query);
}

async function createMissing(place: SchemaPlace): Promise<void> {
  const { client, kind, database } = place;
  const cluster = clusterOf(client);
  if (cluster !== null) await refuseDoubling(client, cluster);
  const statements = cluster === null ? databaseStatements(kind, database) : clusterStatements(kind, database, cluster);
  for (const query of statements) await run(place, query);
}

/** @throws OperatorError when a Distributed table would write each row to every replica, which replicate it once more, or there is no such cluster */
async function refuseDoubling(client: ClickHouseClient, cluster: string): Promise<void> {
  const query = `SELECT count(), countIf(NOT internal_replication) FROM system.clusters WHERE cluster = '${cluster}'`;
  const [[servers, doubling] = []] = await selectText(client, query);
  if (servers === '0')
    throw new OperatorError(
      `MARKETPRISM_CLICKHOUSE_CLUSTER: the server knows no cluster ${cluster}: SELECT cluster FROM system.clusters names those that it knows`,
      EXIT_USAGE,
    );
  if (doubling !== '0')
    throw new OperatorError(
      `the cluster ${cluster} is configured without <internal_replication>true</internal_replication>: each row would be stored once per replica; set it in remote_servers of every server`,
      EXIT_USAGE,
    );
}

/** A part that was written before the index was there has none: it is given one in the background, while everything goes on. */
async function indexByArrival(place: SchemaPlace): Promise<void> {
  const { client, database } = place;
  const tables = DATA_TYPES.map((type) => TABLES[type].name);
  const names = tables.map((name) => `'${storedName(client, name)}'`).join(', ');
  const ofTables = `database = '${database}' AND table IN (${names})`;
  const indexed = `SELECT DISTINCT table FROM system.data_skipping_indices WHERE ${ofTables} AND name = 'arrival'`;
  const have = new Set((await selectText(client, indexed)).map(([table]) => table));
  for (const table of tables) {
    if (!have.has(storedName(client, table)))
      await alterTable(place, table, `ADD ${ARRIVAL_INDEX.replace('INDEX', 'INDEX IF NOT EXISTS')}`);
  }
  const underWay = `SELECT table FROM ${ofEveryServer(client, 'mutations')} WHERE ${ofTables} AND NOT is_done AND command LIKE '%MATERIALIZE INDEX arrival%'`;
  const working = new Set((await selectText(client, underWay)).map(([table]) => table));
  const lacking = `SELECT DISTINCT table FROM ${ofEveryShard(client, 'parts')} WHERE ${ofTables} AND active AND rows > 0 AND secondary_indices_marks_bytes = 0`;
  const unindexed = new Set((await selectText(client, lacking)).map(([table]) => table));
  for (const table of tables) {
    const stored = storedName(client, table);
    if (unindexed.has(stored) && !working.has(stored)) await alterTable(place, table, 'MATERIALIZE INDEX arrival');
  }
}
