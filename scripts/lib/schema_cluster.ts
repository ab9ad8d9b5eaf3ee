/**
 * Databases and tables as SQL for a cluster: the same columns, partitions, order, expiry and indexes as on one server. What exactly-once
 * needs of a cluster stands in cluster.ts; what a server's configuration must say, in the README.
 */
import { createHash } from 'node:crypto';
import { localName } from './cluster.ts';
import { STREAM_COLUMNS, type Table } from './rows.ts';
import {
  contentsOf,
  createTable,
  type DatabaseKind,
  type TableDefinition,
  type Tier,
  tableOf,
  type ViewDefinition,
  viewsOver,
} from './schema_sql.ts';

/** In the files under sql/cluster: the macro of each server's configuration. */
export const CLUSTER_MACRO = '{cluster}';

/** All rows of one stream on one shard: its keys are compared there, and one insert of it is atomic. */
const SHARDING = `cityHash64(${STREAM_COLUMNS.join(', ')})`;

/** No block is dropped as one that came before. */
const NO_DEDUPLICATION = [
  'replicated_deduplication_window = 0',
  'replicated_deduplication_window_for_async_inserts = 0',
];

/**
 * Names stand in the path, and no `{uuid}`: a server that joins later makes its tables by the same statements, and must find the others' path.
 * Of the few rows about the tables every server has all: one group of replicas over all shards.
 */
function engineOf({ isState }: TableDefinition, database: string, table: string): string {
  return isState
    ? `ReplicatedMergeTree('/clickhouse/tables/all/${database}/${table}', '{shard}-{replica}')`
    : `ReplicatedMergeTree('/clickhouse/tables/{shard}/${database}/${table}', '{replica}')`;
}

function tableStatements(definition: TableDefinition, database: string, cluster: string): string[] {
  const { name, isState } = definition;
  const stored = isState ? name : localName(name);
  const made = createTable(
    { ...definition, settings: [...definition.settings, ...NO_DEDUPLICATION] },
    `${database}.${stored} ON CLUSTER '${cluster}'`,
    engineOf(definition, database, stored),
  );
  if (isState) return [made];
  const over = [
    `CREATE TABLE IF NOT EXISTS ${database}.${name} ON CLUSTER '${cluster}' AS ${database}.${stored}`,
    `ENGINE = Distributed('${cluster}', ${database}, ${stored}, ${SHARDING})`,
  ];
  return [made, over.join('\n')];
}

function databaseStatement(database: string, cluster: string): string {
  return `CREATE DATABASE IF NOT EXISTS ${database} ON CLUSTER '${cluster}'`;
}

function viewStatement({ name, select }: ViewDefinition, database: string, cluster: string): string {
  return `CREATE OR REPLACE VIEW ${database}.${name} ON CLUSTER '${cluster}' AS\n${select}`;
}

/** `CREATE TABLE` of what each shard has of one table of market data. */
export function localTableSql(table: Table, tier: Tier, database: string, cluster: string): string {
  return tableStatements(tableOf(table, tier), database, cluster)[0]!;
}

/** All statements that make a database on every server of a cluster, in order. @param cluster its name, or the macro that has it */
export function clusterStatements(kind: DatabaseKind, database: string, cluster: string): string[] {
  const { tables, views } = contentsOf(kind, database);
  return [
    databaseStatement(database, cluster),
    ...tables.flatMap((each) => tableStatements(each, database, cluster)),
    ...views.map((each) => viewStatement(each, database, cluster)),
  ];
}

/**
 * The views over hot and cold, where both are in one cluster, after the database of theirs, whose name is empty. Each has a mark of what it
 * says as its comment.
 */
export function clusterViews(
  views: string,
  hot: string,
  cold: string,
  cluster: string,
): { name: string; mark: string; query: string }[] {
  return [
    { name: '', mark: '', query: databaseStatement(views, cluster) },
    ...viewsOver(hot, cold).map((each) => {
      const mark = createHash('sha256').update(each.select).digest('hex').slice(0, 16);
      return { name: each.name, mark, query: `${viewStatement(each, views, cluster)}\nCOMMENT '${mark}'` };
    }),
  ];
}
