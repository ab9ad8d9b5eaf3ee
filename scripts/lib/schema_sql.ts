/** Databases and tables as SQL for one server, from the columns in rows.ts and signal_tables.ts. For a cluster: schema_cluster.ts. */
import { type Column, DATA_TYPES, STREAM_COLUMNS, TABLES, type Table } from './rows.ts';
import { SIGNAL_TABLES, type SignalColumn, type SignalTable } from './signal_tables.ts';

export type Tier = 'hot' | 'cold';

/** What a database of ours is for. */
export type DatabaseKind = Tier | 'signals';

/** The text that stands for the database's name in the files under sql/. */
export const DATABASE_NAMES: Record<DatabaseKind, string> = {
  hot: 'marketprism_hot',
  cold: 'marketprism_cold',
  signals: 'marketprism_signals',
};

/** Database of the views, by mode. */
export const VIEW_DATABASES = { live: 'marketprism', demo: 'marketprism_demo' } as const;

/** A table, wherever it is made: what stands between its name and its engine, and after that. */
export interface TableDefinition {
  name: string;
  /** Columns and indexes. */
  lines: string[];
  /** PARTITION BY, ORDER BY, TTL, one each. */
  clauses: string[];
  /** Of MergeTree. */
  settings: string[];
  /** A few rows of ours about the others: in a cluster every server has all of them. */
  isState: boolean;
}

export interface ViewDefinition {
  name: string;
  select: string;
}

/**
 * Hot keeps what arrived in the last days, so it is partitioned and expires by arrival: a backfilled old event is kept as
 * long as a new one. The TTL is only a backstop behind the replication, which drops days that cold verifiably holds.
 */
const HOT_STORAGE = 'PARTITION BY toYYYYMMDD(created_at)';
const HOT_TTL = 'TTL toDateTime(created_at) + INTERVAL 7 DAY';
const COLD_STORAGE = 'PARTITION BY toYYYYMM(timestamp)';
const COLD_TTL = 'TTL toDateTime(timestamp) + INTERVAL 3650 DAY';

/** What arrived lately is found without reading what is stored: within a symbol, sequences rise with time. */
export const ARRIVAL_INDEX = 'INDEX arrival js_seq TYPE minmax GRANULARITY 1';

/** One table of market data in one tier. */
export function tableOf(table: Table, tier: Tier): TableDefinition {
  const order = [...STREAM_COLUMNS, 'timestamp', ...table.key.filter((member) => member !== 'timestamp')];
  const isHot = tier === 'hot';
  return {
    name: table.name,
    lines: [...table.columns.map(columnSql), ...(isHot ? [ARRIVAL_INDEX] : [])],
    clauses: [isHot ? HOT_STORAGE : COLD_STORAGE, `ORDER BY (${order.join(', ')})`, isHot ? HOT_TTL : COLD_TTL],
    settings: ['ttl_only_drop_parts = 1'],
    isState: false,
  };
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

function stateTable(name: string, lines: string[], ...clauses: string[]): TableDefinition {
  return { name, lines, clauses, settings: [], isState: true };
}

/** What was done to this database's tables: the highest version is what they are now. Two that did the same at once leave two rows. */
const MIGRATIONS_TABLE = stateTable(
  'schema_migrations',
  ['version UInt32', 'name String', "applied_at DateTime64(3, 'UTC') DEFAULT now64(3)", 'by String'],
  'ORDER BY (version, applied_at)',
);

/**
 * Which numbering of a stream a stored js_seq belongs to: a broker that lost its tail gives the same sequences again.
 * One row per state, the newest wins.
 */
const EPOCHS_TABLE = stateTable(
  'stream_epochs',
  [
    'stream LowCardinality(String)',
    'js_epoch UInt32',
    'stream_created String',
    'reason String',
    'closed_at_seq Nullable(UInt64)',
    "updated_at DateTime64(3, 'UTC') DEFAULT now64(3)",
  ],
  'ORDER BY (stream, js_epoch, updated_at)',
);

/**
 * Up to where cold verifiably holds what arrived in hot: a chain of windows, each beginning where the one before ended. What is older
 * than a week tells nothing any more, as hot does not reach back so far.
 */
const PROGRESS_TABLE = stateTable(
  'replication_progress',
  [
    'table_name LowCardinality(String)',
    'js_epoch UInt32',
    'after_seq UInt64',
    'upto_seq UInt64',
    'window_rows UInt64',
    'copied_rows UInt64',
    'window_hash UInt64',
    "recorded_at DateTime64(3, 'UTC') DEFAULT now64(3)",
  ],
  'ORDER BY (table_name, js_epoch, upto_seq)',
  'TTL toDateTime(recorded_at) + INTERVAL 8 DAY',
);

/**
 * The present state of each gap: its states are only ever added to. Filled is the last one, whatever comes after it: what a collector says of
 * the venue's history may be on its way while the rows come by another one.
 */
function gapsNow(database: string): ViewDefinition {
  const constant = [...STREAM_COLUMNS, 'gap_id'];
  const newest = TABLES.gap.columns.filter(({ name }) => !constant.includes(name));
  // An aggregate passes nulls by: what the last state says nothing of would be told as an earlier one has it.
  const value = ({ name, nullable }: Column) =>
    nullable
      ? `argMax(tuple(each.${name}), (each.status = 'filled', each.js_epoch, each.js_seq)).1`
      : `argMax(each.${name}, (each.status = 'filled', each.js_epoch, each.js_seq))`;
  const select = [
    `SELECT ${constant.join(', ')},`,
    newest.map((column) => `    ${value(column)} AS ${column.name}`).join(',\n'),
    `FROM ${database}.gaps AS each`,
    `GROUP BY ${constant.join(', ')}`,
  ];
  return { name: 'gaps_now', select: select.join('\n') };
}

function signalTable({ name, columns, key }: SignalTable): TableDefinition {
  return {
    name,
    lines: columns.map(signalColumnSql),
    clauses: [
      'PARTITION BY toYYYYMM(timestamp)',
      `ORDER BY (${key.join(', ')})`,
      'TTL toDateTime(timestamp) + INTERVAL 400 DAY',
    ],
    settings: ['ttl_only_drop_parts = 1'],
    isState: false,
  };
}

function signalColumnSql({ name, type, codec, expression }: SignalColumn): string {
  // Where null is allowed it is written as such: what is absent altogether is an error there, too.
  const thrown = `throwIf(1, '${name} is absent')`;
  const size = /^FixedString\((\d+)\)$/.exec(type)?.[1];
  const own = expression ?? `DEFAULT ${size === undefined ? thrown : `toFixedString(toString(${thrown}), ${size})`}`;
  return [name, type, own, ...(codec === undefined ? [] : [`CODEC(${codec})`])].join(' ');
}

/** Each second as it is known now: a late trade adds a row of the next revision. */
function featuresNow(database: string): ViewDefinition {
  const select = [
    `SELECT * FROM ${database}.features`,
    `ORDER BY ${STREAM_COLUMNS.join(', ')}, timestamp, revision DESC`,
    `LIMIT 1 BY ${STREAM_COLUMNS.join(', ')}, timestamp`,
  ];
  return { name: 'features_now', select: select.join('\n') };
}

/** Everything in a database, in the order in which it is made. */
export function contentsOf(
  kind: DatabaseKind,
  database: string,
): { tables: TableDefinition[]; views: ViewDefinition[] } {
  if (kind === 'signals') {
    const tables = Object.values(SIGNAL_TABLES).map(signalTable);
    return { tables: [...tables, MIGRATIONS_TABLE], views: [featuresNow(database)] };
  }
  const tables = DATA_TYPES.map((type) => tableOf(TABLES[type], kind));
  return kind === 'hot'
    ? { tables: [...tables, EPOCHS_TABLE, MIGRATIONS_TABLE], views: [gapsNow(database)] }
    : { tables: [...tables, PROGRESS_TABLE, MIGRATIONS_TABLE], views: [] };
}

/**
 * One view per table over all time: cold as far as it is verified, hot from there on. A row that is in both while its window is being copied
 * is taken from hot only.
 */
export function viewsOver(hot: string, cold: string): ViewDefinition[] {
  return DATA_TYPES.map((type) => {
    const { name, columns } = TABLES[type];
    const names = columns.map((column) => column.name).join(', ');
    const upto = `(SELECT max((js_epoch, upto_seq)) FROM ${cold}.replication_progress WHERE table_name = '${name}')`;
    const select = [
      `SELECT ${names} FROM ${cold}.${name} WHERE (js_epoch, js_seq) <= ${upto}`,
      'UNION ALL',
      `SELECT ${names} FROM ${hot}.${name} WHERE (js_epoch, js_seq) > ${upto}`,
    ];
    return { name, select: select.join('\n') };
  });
}

/** `CREATE TABLE`. @param table its whole name and, in a cluster, where @param engine with its arguments */
export function createTable(definition: TableDefinition, table: string, engine: string): string {
  const { lines, clauses, settings } = definition;
  return [
    `CREATE TABLE IF NOT EXISTS ${table}`,
    '(',
    lines.map((line) => `    ${line}`).join(',\n'),
    ')',
    `ENGINE = ${engine}`,
    ...clauses,
    ...(settings.length === 0 ? [] : [`SETTINGS ${settings.join(', ')}`]),
  ].join('\n');
}

/** `CREATE TABLE` of one table of market data on one server. */
export function tableSql(table: Table, tier: Tier, database: string): string {
  return createTable(tableOf(table, tier), `${database}.${table.name}`, 'MergeTree');
}

/** All statements that make a database on one server, in order. */
export function databaseStatements(kind: DatabaseKind, database: string): string[] {
  const { tables, views } = contentsOf(kind, database);
  return [
    `CREATE DATABASE IF NOT EXISTS ${database}`,
    ...tables.map((each) => createTable(each, `${database}.${each.name}`, 'MergeTree')),
    ...views.map(({ name, select }) => `CREATE OR REPLACE VIEW ${database}.${name} AS\n${select}`),
  ];
}

/** The views over hot and cold, where both are on one server. */
export function viewStatements(views: string, hot: string, cold: string): string[] {
  return [
    `CREATE DATABASE IF NOT EXISTS ${views}`,
    ...viewsOver(hot, cold).map(({ name, select }) => `CREATE OR REPLACE VIEW ${views}.${name} AS\n${select}`),
  ];
}
