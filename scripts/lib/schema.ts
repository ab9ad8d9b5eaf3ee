/** Databases and tables as SQL, from the columns in rows.ts; and bringing a server up to them. */
import type { ClickHouseClient } from '@clickhouse/client';
import { selectText } from './clickhouse.ts';
import { type Config, shownUrl } from './config.ts';
import type { Logger } from './log.ts';
import { type Column, DATA_TYPES, STREAM_COLUMNS, TABLES, type Table } from './rows.ts';
import { SIGNAL_TABLES, type SignalColumn, type SignalTable } from './signal_tables.ts';

export type Tier = 'hot' | 'cold';

/** The text that stands for the database's name in the files under sql/. */
export const DATABASE_NAMES = {
  hot: 'marketprism_hot',
  cold: 'marketprism_cold',
  signals: 'marketprism_signals',
} as const;

/**
 * Hot keeps what arrived in the last days, so it is partitioned and expires by arrival: a backfilled old event is kept as
 * long as a new one. The TTL is only a backstop behind the replication, which drops days that cold verifiably holds.
 */
const HOT_STORAGE = 'PARTITION BY toYYYYMMDD(created_at)';
const HOT_TTL = 'TTL toDateTime(created_at) + INTERVAL 7 DAY';
const COLD_STORAGE = 'PARTITION BY toYYYYMM(timestamp)';
const COLD_TTL = 'TTL toDateTime(timestamp) + INTERVAL 3650 DAY';

/** What arrived lately is found without reading what is stored: within a symbol, sequences rise with time. */
const ARRIVAL_INDEX = 'INDEX arrival js_seq TYPE minmax GRANULARITY 1';

/** `CREATE TABLE` of one table in one tier. */
export function tableSql(table: Table, tier: Tier, database: string): string {
  const order = [...STREAM_COLUMNS, 'timestamp', ...table.key.filter((member) => member !== 'timestamp')];
  return [
    `CREATE TABLE IF NOT EXISTS ${database}.${table.name}`,
    '(',
    [...table.columns.map(columnSql), ...(tier === 'hot' ? [ARRIVAL_INDEX] : [])]
      .map((line) => `    ${line}`)
      .join(',\n'),
    ')',
    'ENGINE = MergeTree',
    tier === 'hot' ? HOT_STORAGE : COLD_STORAGE,
    `ORDER BY (${order.join(', ')})`,
    tier === 'hot' ? HOT_TTL : COLD_TTL,
    'SETTINGS ttl_only_drop_parts = 1',
  ].join('\n');
}

function columnSql(column: Column): string {
  const parts = [column.name, column.type];
  if (column.expression) parts.push(column.expression);
  // ClickHouse fills an absent member with 0 or ''. A row without its price must be an error instead.
  else if (column.required) parts.push(`DEFAULT ${refusal(column)}`);
  if (column.codec) parts.push(`CODEC(${column.codec})`);
  return parts.join(' ');
}

/** A default that only ever throws, when a row makes it be evaluated. */
function refusal(column: Column): string {
  const thrown = `throwIf(1, '${column.name} is absent')`;
  return column.kind === 'levels' ? `[(${thrown}, 0)]` : thrown;
}

/**
 * Which numbering of a stream a stored js_seq belongs to: a broker that lost its tail gives the same sequences again.
 * One row per state, the newest wins.
 */
function epochTableSql(database: string): string {
  return [
    `CREATE TABLE IF NOT EXISTS ${database}.stream_epochs`,
    '(',
    '    stream LowCardinality(String),',
    '    js_epoch UInt32,',
    '    stream_created String,',
    '    reason String,',
    '    closed_at_seq Nullable(UInt64),',
    "    updated_at DateTime64(3, 'UTC') DEFAULT now64(3)",
    ')',
    'ENGINE = MergeTree',
    'ORDER BY (stream, js_epoch, updated_at)',
  ].join('\n');
}

/**
 * The present state of each gap: its states are only ever added to. Filled is the last one, whatever comes after it: what a collector says of
 * the venue's history may be on its way while the rows come by another one.
 */
function gapsNowSql(database: string): string {
  const constant = [...STREAM_COLUMNS, 'gap_id'];
  const newest = TABLES.gap.columns.filter(({ name }) => !constant.includes(name));
  // An aggregate passes nulls by: what the last state says nothing of would be told as an earlier one has it.
  const value = ({ name, nullable }: Column) =>
    nullable
      ? `argMax(tuple(each.${name}), (each.status = 'filled', each.js_epoch, each.js_seq)).1`
      : `argMax(each.${name}, (each.status = 'filled', each.js_epoch, each.js_seq))`;
  return [
    `CREATE OR REPLACE VIEW ${database}.gaps_now AS`,
    `SELECT ${constant.join(', ')},`,
    newest.map((column) => `    ${value(column)} AS ${column.name}`).join(',\n'),
    `FROM ${database}.gaps AS each`,
    `GROUP BY ${constant.join(', ')}`,
  ].join('\n');
}

/**
 * Up to where cold verifiably holds what arrived in hot: a chain of windows, each beginning where the one before ended. What is older
 * than a week tells nothing any more, as hot does not reach back so far.
 */
function progressTableSql(database: string): string {
  return [
    `CREATE TABLE IF NOT EXISTS ${database}.replication_progress`,
    '(',
    '    table_name LowCardinality(String),',
    '    js_epoch UInt32,',
    '    after_seq UInt64,',
    '    upto_seq UInt64,',
    '    window_rows UInt64,',
    '    copied_rows UInt64,',
    '    window_hash UInt64,',
    "    recorded_at DateTime64(3, 'UTC') DEFAULT now64(3)",
    ')',
    'ENGINE = MergeTree',
    'ORDER BY (table_name, js_epoch, upto_seq)',
    'TTL toDateTime(recorded_at) + INTERVAL 8 DAY',
  ].join('\n');
}

/**
 * One view over all time: cold as far as it is verified, hot from there on. A row that is in both while its window is being copied is
 * taken from hot only.
 */
export function viewStatements(views: string, hot: string, cold: string): string[] {
  return [
    `CREATE DATABASE IF NOT EXISTS ${views}`,
    ...DATA_TYPES.map((type) => {
      const { name, columns } = TABLES[type];
      const names = columns.map((column) => column.name).join(', ');
      const upto = `(SELECT max((js_epoch, upto_seq)) FROM ${cold}.replication_progress WHERE table_name = '${name}')`;
      return [
        `CREATE OR REPLACE VIEW ${views}.${name} AS`,
        `SELECT ${names} FROM ${cold}.${name} WHERE (js_epoch, js_seq) <= ${upto}`,
        'UNION ALL',
        `SELECT ${names} FROM ${hot}.${name} WHERE (js_epoch, js_seq) > ${upto}`,
      ].join('\n');
    }),
  ];
}

/** All statements that make one tier's database, in order. */
export function tierStatements(tier: Tier, database: string = DATABASE_NAMES[tier]): string[] {
  return [
    `CREATE DATABASE IF NOT EXISTS ${database}`,
    ...DATA_TYPES.map((type) => tableSql(TABLES[type], tier, database)),
    ...(tier === 'hot' ? [gapsNowSql(database), epochTableSql(database)] : [progressTableSql(database)]),
  ];
}

/** A table of signals. */
export function signalTableSql({ name, columns, key }: SignalTable, database: string): string {
  return [
    `CREATE TABLE IF NOT EXISTS ${database}.${name}`,
    '(',
    columns.map((each) => `    ${signalColumnSql(each)}`).join(',\n'),
    ')',
    'ENGINE = MergeTree',
    'PARTITION BY toYYYYMM(timestamp)',
    `ORDER BY (${key.join(', ')})`,
    'TTL toDateTime(timestamp) + INTERVAL 400 DAY',
    'SETTINGS ttl_only_drop_parts = 1',
  ].join('\n');
}

function signalColumnSql({ name, type, codec, expression }: SignalColumn): string {
  // Where null is allowed it is written as such: what is absent altogether is an error there, too.
  const thrown = `throwIf(1, '${name} is absent')`;
  const size = /^FixedString\((\d+)\)$/.exec(type)?.[1];
  const own = expression ?? `DEFAULT ${size === undefined ? thrown : `toFixedString(toString(${thrown}), ${size})`}`;
  return [name, type, own, ...(codec === undefined ? [] : [`CODEC(${codec})`])].join(' ');
}

/** Each second as it is known now: a late trade adds a row of the next revision. */
function featuresNowSql(database: string): string {
  return [
    `CREATE OR REPLACE VIEW ${database}.features_now AS`,
    `SELECT * FROM ${database}.features`,
    `ORDER BY ${STREAM_COLUMNS.join(', ')}, timestamp, revision DESC`,
    `LIMIT 1 BY ${STREAM_COLUMNS.join(', ')}, timestamp`,
  ].join('\n');
}

/** All statements that make the database of the signals, in order. */
export function signalStatements(database: string = DATABASE_NAMES.signals): string[] {
  return [
    `CREATE DATABASE IF NOT EXISTS ${database}`,
    ...Object.values(SIGNAL_TABLES).map((table) => signalTableSql(table, database)),
    featuresNowSql(database),
  ];
}

/** Creates what is missing of the signals' database; what exists is left as it is. */
export async function ensureSignals(client: ClickHouseClient, database: string): Promise<void> {
  for (const query of signalStatements(database)) await client.command({ query });
}

/** Database of the views, by mode. */
export const VIEW_DATABASES = { live: 'marketprism', demo: 'marketprism_demo' } as const;

/** The files under sql/ by name: each tier, the signals, and the views over both tiers. */
export const SQL_FILES = ['hot', 'cold', 'signals', 'views'] as const;

/** One file under sql/. */
export function sqlFile(name: (typeof SQL_FILES)[number]): string {
  const statements =
    name === 'views'
      ? viewStatements(VIEW_DATABASES.live, DATABASE_NAMES.hot, DATABASE_NAMES.cold)
      : name === 'signals'
        ? signalStatements()
        : tierStatements(name);
  const source = name === 'signals' ? 'signal_tables.ts' : 'rows.ts';
  const head = `-- Made from scripts/lib/${source} by \`npm run sql\`; a test compares the two. Do not edit here.\n\n`;
  return `${head}${statements.join(';\n\n')};\n`;
}

/** Creates what is missing of a tier, the index of a hot table that an earlier version made included; what exists is left as it is. */
export async function ensureTier(client: ClickHouseClient, tier: Tier, database: string): Promise<void> {
  for (const query of tierStatements(tier, database)) await client.command({ query });
  if (tier === 'hot') await ensureArrivalIndex(client, database);
}

/**
 * A part that was written before the index was there has none: it is given one in the background, while everything goes on. Which part
 * lacks it is asked of the parts each time, so that a crash in between leaves nothing undone.
 */
async function ensureArrivalIndex(client: ClickHouseClient, database: string): Promise<void> {
  const names = DATA_TYPES.map((type) => `'${TABLES[type].name}'`).join(', ');
  const ofTables = `database = '${database}' AND table IN (${names})`;
  const indexed = await selectText(
    client,
    `SELECT table FROM system.data_skipping_indices WHERE ${ofTables} AND name = 'arrival'`,
  );
  const have = new Set(indexed.map(([table]) => table));
  for (const { name } of DATA_TYPES.map((type) => TABLES[type])) {
    if (!have.has(name))
      await client.command({
        query: `ALTER TABLE ${database}.${name} ADD ${ARRIVAL_INDEX.replace('INDEX', 'INDEX IF NOT EXISTS')}`,
      });
  }
  const underWay = `SELECT table FROM system.mutations WHERE ${ofTables} AND NOT is_done AND command LIKE '%MATERIALIZE INDEX arrival%'`;
  const lacking = `SELECT DISTINCT table FROM system.parts WHERE ${ofTables} AND active AND rows > 0 AND secondary_indices_marks_bytes = 0 AND table NOT IN (${underWay})`;
  for (const [table] of await selectText(client, lacking)) {
    await client.command({
      query: `ALTER TABLE ${database}.${table} MATERIALIZE INDEX arrival`,
      clickhouse_settings: { mutations_sync: '0' },
    });
  }
}

/**
 * The views, where hot and cold are on one server. On two servers no view can show all time: those of an earlier time, with half of it,
 * are dropped, and it is said.
 */
export async function ensureViews(client: ClickHouseClient, config: Config, log: Logger): Promise<void> {
  const views = VIEW_DATABASES[config.mode];
  if (config.clickhouseUrl === config.coldClickhouseUrl) {
    for (const query of viewStatements(views, config.hotDatabase, config.coldDatabase)) await client.command({ query });
    return;
  }
  for (const type of DATA_TYPES) await client.command({ query: `DROP VIEW IF EXISTS ${views}.${TABLES[type].name}` });
  log.warn(
    { event: 'no_views', views, hot: shownUrl(config.clickhouseUrl), cold: shownUrl(config.coldClickhouseUrl) },
    `there are no views ${views}.<table>: hot and cold are on two servers, and a view on one of them would show half; ask both`,
  );
}
