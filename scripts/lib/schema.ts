/** The files under sql/, and bringing a server or a cluster up to them. */
import type { ClickHouseClient } from '@clickhouse/client';
import { selectText } from './clickhouse.ts';
import { clusterOf } from './cluster.ts';
import { type Config, shownUrl } from './config.ts';
import type { Logger } from './log.ts';
import { migrate } from './migrations.ts';
import { DATA_TYPES, TABLES } from './rows.ts';
import { CLUSTER_MACRO, clusterStatements, clusterViews } from './schema_cluster.ts';
import {
  DATABASE_NAMES,
  type DatabaseKind,
  databaseStatements,
  type Tier,
  VIEW_DATABASES,
  viewStatements,
} from './schema_sql.ts';

const KINDS = ['hot', 'cold', 'signals', 'views'] as const;

/** The files under sql/ by name: each tier, the signals, and the views over both tiers; for one server and for a cluster. */
export const SQL_FILES = [...KINDS, ...KINDS.map((kind) => `cluster/${kind}` as const)] as const;

/** One file under sql/. */
export function sqlFile(name: (typeof SQL_FILES)[number]): string {
  const kind = KINDS.find((each) => name.endsWith(each))!;
  const statements = fileStatements(kind, name.startsWith('cluster/'));
  const source = kind === 'signals' ? 'signal_tables.ts' : 'rows.ts';
  const head = `-- Made from scripts/lib/${source} by \`npm run sql\`; a test compares the two. Do not edit here.\n\n`;
  return `${head}${statements.join(';\n\n')};\n`;
}

function fileStatements(kind: DatabaseKind | 'views', isCluster: boolean): string[] {
  if (kind !== 'views') {
    const database = DATABASE_NAMES[kind];
    return isCluster ? clusterStatements(kind, database, CLUSTER_MACRO) : databaseStatements(kind, database);
  }
  const { hot, cold } = DATABASE_NAMES;
  return isCluster
    ? clusterViews(VIEW_DATABASES.live, hot, cold, CLUSTER_MACRO).map(({ query }) => query)
    : viewStatements(VIEW_DATABASES.live, hot, cold);
}

/** Brings a tier's database up to the present schema. @throws as `migrate` */
export async function ensureTier(
  client: ClickHouseClient,
  tier: Tier,
  database: string,
  log: Logger | null = null,
): Promise<void> {
  await migrate({ client, kind: tier, database }, log);
}

/** Brings the signals' database up to the present schema. @throws as `migrate` */
export async function ensureSignals(
  client: ClickHouseClient,
  database: string,
  log: Logger | null = null,
): Promise<void> {
  await migrate({ client, kind: 'signals', database }, log);
}

/**
 * The views, where hot and cold are on one server or in one cluster. On two no view can show all time: those of an earlier time, with half of
 * it, are dropped, and it is said.
 */
export async function ensureViews(client: ClickHouseClient, config: Config, log: Logger): Promise<void> {
  const views = VIEW_DATABASES[config.mode];
  const { hotDatabase: hot, coldDatabase: cold } = config;
  const cluster = clusterOf(client);
  if (config.clickhouseUrl === config.coldClickhouseUrl) {
    const queries =
      cluster === null ? viewStatements(views, hot, cold) : await differing(client, views, hot, cold, cluster);
    for (const query of queries) await client.command({ query });
    return;
  }
  const on = cluster === null ? '' : ` ON CLUSTER '${cluster}'`;
  for (const name of await viewsIn(client, views))
    await client.command({ query: `DROP VIEW IF EXISTS ${views}.${name}${on}` });
  log.warn(
    { event: 'no_views', views, hot: shownUrl(config.clickhouseUrl), cold: shownUrl(config.coldClickhouseUrl) },
    `there are no views ${views}.<table>: hot and cold are on two servers, and a view on one of them would show half; ask both`,
  );
}

/** Statements for the whole cluster wait for each of its servers, so a start that changes nothing makes none: one of them may be away. */
async function differing(
  client: ClickHouseClient,
  views: string,
  hot: string,
  cold: string,
  cluster: string,
): Promise<string[]> {
  const query = `SELECT name, comment FROM system.tables WHERE database = '${views}' UNION ALL SELECT '', '' FROM system.databases WHERE name = '${views}'`;
  const have = new Map((await selectText(client, query)).map(([name, mark]) => [name, mark]));
  return clusterViews(views, hot, cold, cluster).flatMap((view) =>
    have.get(view.name) === view.mark ? [] : view.query,
  );
}

async function viewsIn(client: ClickHouseClient, database: string): Promise<string[]> {
  const names = DATA_TYPES.map((type) => `'${TABLES[type].name}'`).join(', ');
  const query = `SELECT name FROM system.tables WHERE database = '${database}' AND engine = 'View' AND name IN (${names})`;
  return (await selectText(client, query)).map(([name]) => name!);
}
