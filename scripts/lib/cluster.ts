/**
 * Where a statement goes, and what exactly-once needs, when ClickHouse is a cluster (MARKETPRISM_CLICKHOUSE_CLUSTER): each table of rows is a
 * replicated table NAME_local on every shard and, over these, a Distributed one under its plain name (schema_cluster.ts).
 *
 * The store looks before it inserts, so a look must see every confirmed row, whichever replica answers. Hence the quorum: an insert is confirmed
 * once a majority of its shard's replicas has it (insert_quorum = auto), one after the other (insert_quorum_parallel = 0), and a replica that lacks
 * any of them refuses to answer instead of answering with less (select_sequential_consistency = 1). To pin reads and writes to one replica
 * would be quicker, and would lose confirmed rows with that replica. So that a replica which lags is hardly ever asked, all go to
 * the first one that is there (load_balancing = in_order).
 *
 * An insert into a Distributed table ends when every shard has its part (distributed_foreground_insert), and is atomic on each shard only. An answer
 * that tells of a failure therefore says nothing of the other shards: fence, look, insert what is missing, as after any unclear one.
 * All rows of a stream, and so of a key, lie on one shard; a look asks all of them, so that it also finds what lay elsewhere before a shard was added.
 *
 * The server drops no block as a repetition (insert_deduplicate = 0, a window of 0 in the tables): it goes by the bytes of blocks it saw, not by rows that
 * are there. Rows that were taken out again (a repair undone, a message read again after a numbering began anew) come back with the same
 * bytes, and must be stored.
 *
 * The fence asks every replica for sub-queries of our inserts, which have ids of their own and ours as initial_query_id. One thing more can
 * make rows appear after that: a part that was written and has no quorum yet is invisible to a look, and visible as soon as another replica has fetched
 * it. So it waits until no part of the table waits for its quorum. A replica that does not answer holds the fence, and with it this one table: it might
 * be writing. Whoever knows that it is dead takes it out of the cluster's configuration.
 */
import type { ClickHouseClient, ClickHouseSettings } from '@clickhouse/client';

/** Of every query to a cluster. */
export const CLUSTER_SETTINGS: ClickHouseSettings = {
  insert_quorum: 'auto',
  insert_quorum_parallel: 0,
  // Its own word comes before the end of the insert's time.
  insert_quorum_timeout: 25_000,
  select_sequential_consistency: '1',
  load_balancing: 'in_order',
  insert_deduplicate: 0,
  distributed_foreground_insert: 1,
  // A key is looked for on all shards, wherever a sub-query runs.
  distributed_product_mode: 'global',
  parallel_distributed_insert_select: '0',
  distributed_ddl_task_timeout: '30',
};

const CLUSTERS = new WeakMap<ClickHouseClient, string>();

/** Notes that a client's server belongs to a cluster. */
export function belongsTo(client: ClickHouseClient, cluster: string): void {
  CLUSTERS.set(client, cluster);
}

/** The cluster of a client's server; null: it is a server of its own. */
export function clusterOf(client: ClickHouseClient): string | null {
  return CLUSTERS.get(client) ?? null;
}

/** SQL: a system table of all servers, replicas included: what is done somewhere. */
export function ofEveryServer(client: ClickHouseClient, table: string): string {
  const cluster = clusterOf(client);
  return cluster === null ? `system.${table}` : `clusterAllReplicas('${cluster}', system.${table})`;
}

/** SQL: a system table of one replica of each shard: what there is, each row once. */
export function ofEveryShard(client: ClickHouseClient, table: string): string {
  const cluster = clusterOf(client);
  return cluster === null ? `system.${table}` : `cluster('${cluster}', system.${table})`;
}

/** The name of the table that has a table's rows, as system tables know it. */
export function storedName(client: ClickHouseClient, table: string): string {
  return clusterOf(client) === null ? table : localName(table);
}

/** Of the replicated table of a shard. */
export function localName(table: string): string {
  return `${table}_local`;
}

/** SQL: what is altered, after ALTER TABLE or DELETE FROM. @param table with its database */
export function altered(client: ClickHouseClient, table: string): string {
  const cluster = clusterOf(client);
  return cluster === null ? table : `${localName(table)} ON CLUSTER '${cluster}'`;
}

/** SQL: before IN and NOT IN of a sub-query, whose rows in a cluster are on other shards, too, or on one server only. */
export function globally(client: ClickHouseClient): '' | 'GLOBAL ' {
  return clusterOf(client) === null ? '' : 'GLOBAL ';
}

/** `ALTER TABLE` of a table of rows; the Distributed one over it has columns, and nothing else, of its own. */
export function alterations(client: ClickHouseClient, table: string, change: string): string[] {
  const cluster = clusterOf(client);
  const isOfColumns = /^(ADD|DROP|MODIFY|RENAME|ALTER|COMMENT) COLUMN\b/.test(change);
  return [
    `ALTER TABLE ${altered(client, table)} ${change}`,
    ...(cluster !== null && isOfColumns ? [`ALTER TABLE ${table} ON CLUSTER '${cluster}' ${change}`] : []),
  ];
}
