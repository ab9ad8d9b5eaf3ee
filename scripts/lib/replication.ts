/**
 * Hot → cold by arrival, table by table: windows over (js_epoch, js_seq], copied, compared, and only then written down. A row that comes late
 * has a sequence of its own time of arrival, so no window can miss it.
 */
import { randomBytes } from 'node:crypto';
import type { Readable } from 'node:stream';
import type { ClickHouseClient, ClickHouseSettings } from '@clickhouse/client';
import { selectText } from './clickhouse.ts';
import { altered, globally, ofEveryShard, storedName } from './cluster.ts';
import { crashPoint } from './crash_points.ts';
import type { Lease } from './lease.ts';
import type { Logger } from './log.ts';
import { ABOUT_ARRIVAL, DATA_TYPES, type DataType, STREAM_COLUMNS, TABLES, type Table } from './rows.ts';
import { tableSql } from './schema_sql.ts';
import { streamOf } from './streams.ts';

/** Rows of a window: large enough that its overhead is nothing, small enough that one is copied within seconds. */
const WINDOW_ROWS = 1_000_000;
/** A window that has more than this, because rows are not spread evenly over sequences, is halved. */
const MOST_WINDOW_ROWS = 2 * WINDOW_ROWS;
/** Copies of what was found missing before a window counts as failed. */
const ATTEMPTS = 3;
/** Every query id of ours, for the fence. */
export const QUERY_PREFIX = 'replicate:';
/** Columns that tell how a row came here, and not what it says. */
const LIMITS: ClickHouseSettings = {
  max_execution_time: 110,
  max_query_size: '67108864',
  max_memory_usage: '3000000000',
};

export interface Tier {
  client: ClickHouseClient;
  database: string;
}

export interface ReplicationOptions {
  hot: Tier;
  cold: Tier;
  /** Both databases are on one server: rows need not pass through here. */
  isOneServer: boolean;
  /** Asked before anything is written or dropped: one replication at a time does that. Absent: whoever calls knows that it is alone. */
  lease?: Pick<Lease, 'check'>;
  windowRows?: number;
  log: Logger;
}

/** Up to here cold verifiably holds what arrived in hot. */
export interface Place {
  epoch: number;
  seq: number;
}

/** Rows that arrived after `after`, up to and including `seq`, within one epoch. */
interface Window {
  epoch: number;
  after: number;
  upto: number;
}

/** Where the rows of a window are read from: hot itself, or a copy of them on cold's server. */
interface Source {
  table: string;
  where: string;
}

interface Sum {
  rows: number;
  hash: string;
}

/** Cold holds something that hot does not say: going on would hide it. */
export class Disagreement extends Error {}

/** One table's way to cold. */
export class TableReplication {
  readonly stats = {
    success_windows: 0,
    failed_windows: 0,
    /** Rows that were compared, and those of them that cold had lacked. */
    rows: 0,
    copied: 0,
    lastError: null as string | null,
    /** What cold holds that hot does not say, until it is seen to be mended: an operator must look. */
    disagreement: null as string | null,
    /** Of the oldest row that is not in cold, minutes; null when it is not known. */
    lag_minutes: null as number | null,
  };
  private readonly table: Table;
  /** The last place that cold told; only this process moves it, so it holds while cold is away. */
  private known: Place | null = null;

  constructor(
    readonly type: DataType,
    private readonly options: ReplicationOptions,
  ) {
    this.table = TABLES[type];
  }

  get name(): string {
    return this.table.name;
  }

  private get hotTable(): string {
    return `${this.options.hot.database}.${this.name}`;
  }

  private get coldTable(): string {
    return `${this.options.cold.database}.${this.name}`;
  }

  /** Where the last window ended; a progress table that was lost begins anew, which costs time and no data. */
  async progress(): Promise<Place> {
    const { cold } = this.options;
    const query = `SELECT js_epoch, upto_seq FROM ${this.progressTable} WHERE ${this.ofTable} ORDER BY js_epoch DESC, upto_seq DESC LIMIT 1`;
    const [row] = await selectText(cold.client, query, LIMITS);
    this.known = row ? { epoch: Number(row[0]), seq: Number(row[1]) } : { epoch: 0, seq: 0 };
    return this.known;
  }

  /**
   * What is written down must be a chain of windows, and none beyond what is settled. From where it is not, it is forgotten: that is
   * compared again, which costs time; to believe it could cost rows.
   */
  async checkProgress(settled: Place[]): Promise<void> {
    const { cold, log } = this.options;
    const chain = `SELECT js_epoch, after_seq, upto_seq, lagInFrame(upto_seq, 1, after_seq) OVER (PARTITION BY js_epoch ORDER BY upto_seq, after_seq ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) AS before FROM ${this.progressTable} WHERE ${this.ofTable}`;
    const beyond = settled.map(({ epoch, seq }) => `(js_epoch = ${epoch} AND upto_seq > ${seq})`);
    const known = settled.map(({ epoch }) => String(epoch)).join(', ') || '0';
    const isWrong = `after_seq != before OR after_seq >= upto_seq OR js_epoch NOT IN (${known}) OR ${beyond.join(' OR ') || '0'}`;
    const query = `SELECT js_epoch, least(before, after_seq) FROM (${chain}) WHERE ${isWrong} ORDER BY js_epoch, upto_seq LIMIT 1`;
    const [wrong] = await selectText(cold.client, query, LIMITS);
    if (!wrong) return;
    const [epoch, seq] = wrong.map(Number) as [number, number];
    log.error(
      { event: 'progress_wrong', table: this.name, epoch, seq },
      'what is written down from there on is compared again',
    );
    await cold.client.command({
      query: `ALTER TABLE ${this.progressTable} DELETE WHERE ${this.ofTable} AND (js_epoch > ${epoch} OR (js_epoch = ${epoch} AND upto_seq > ${seq}))`,
      query_id: this.queryId('forget'),
      clickhouse_settings: { ...LIMITS, mutations_sync: '2' },
    });
  }

  private get progressTable(): string {
    return `${this.options.cold.database}.replication_progress`;
  }

  private get ofTable(): string {
    return `table_name = '${this.name}'`;
  }

  /**
   * Replicates up to `settled`, at most `maxWindows` windows.
   * @param settled what the store has acknowledged, by epoch: below it nothing comes any more
   * @returns whether more is left
   * @throws Disagreement when cold holds something that hot does not say
   */
  async run(settled: Place[], maxWindows: number, onWindow?: (rows: number) => void): Promise<boolean> {
    try {
      await this.checkProgress(settled);
      let place = await this.progress();
      for (let windows = 0; windows < maxWindows; windows += 1) {
        const window = await this.next(place, settled);
        if (window === null) {
          this.stats.lastError = null;
          this.stats.disagreement = null;
          return false;
        }
        const rows = await this.replicate(window);
        place = this.known = { epoch: window.epoch, seq: window.upto };
        onWindow?.(rows);
        this.stats.success_windows += 1;
        this.stats.lastError = null;
        this.stats.disagreement = null;
      }
      return true;
    } catch (error) {
      this.failed(error as Error);
      throw error;
    }
  }

  /** Counts a window that could not be brought to an end, for whatever reason. */
  failed(error: Error): void {
    this.stats.failed_windows += 1;
    this.stats.lastError = error.message.slice(0, 300);
    if (error instanceof Disagreement) this.stats.disagreement = this.stats.lastError;
  }

  /** How long the oldest row waits that is not in cold, minutes; it goes on growing while cold is away. @param now ms */
  async measureLag(now: number): Promise<void> {
    const { hot } = this.options;
    const { epoch, seq } = this.known ?? (await this.progress());
    const query = `SELECT count(), toUnixTimestamp64Milli(min(created_at)) FROM ${this.hotTable} WHERE ${isAfter(epoch, seq)}`;
    const [[count, oldest] = []] = await selectText(hot.client, query, LIMITS);
    this.stats.lag_minutes = count === '0' ? 0 : Math.max((now - Number(oldest)) / 60_000, 0);
  }

  /** The next window with rows; one without any ends where the epoch is settled. */
  private async next(place: Place, settled: Place[]): Promise<Window | null> {
    const { hot, windowRows = WINDOW_ROWS } = this.options;
    for (const { epoch, seq: end } of settled.sort((one, other) => one.epoch - other.epoch)) {
      if (epoch < place.epoch) continue;
      const after = epoch === place.epoch ? place.seq : 0;
      if (end <= after) continue;
      const query = `SELECT count(), min(js_seq), max(js_seq) FROM ${this.hotTable} WHERE ${inWindow({ epoch, after, upto: end })}`;
      const [[count, first, last] = []] = await selectText(hot.client, query, LIMITS);
      const rows = Number(count);
      if (rows === 0) continue;
      if (rows <= windowRows) return { epoch, after, upto: end };
      const perRow = (Number(last) - Number(first) + 1) / rows;
      return this.narrowed({ epoch, after, upto: Number(first) + Math.ceil(perRow * windowRows) - 1 });
    }
    return null;
  }

  /** Halves a window until its rows are no more than are copied at once; one message is never divided. */
  private async narrowed(window: Window): Promise<Window> {
    const { hot, windowRows = WINDOW_ROWS } = this.options;
    const most = (MOST_WINDOW_ROWS / WINDOW_ROWS) * windowRows;
    let { upto } = window;
    while (upto > window.after + 1) {
      const query = `SELECT count() FROM ${this.hotTable} WHERE ${inWindow({ ...window, upto })}`;
      const [[count] = []] = await selectText(hot.client, query, LIMITS);
      if (Number(count) <= most) break;
      upto = window.after + Math.ceil((upto - window.after) / 2);
    }
    return { ...window, upto };
  }

  /** Copies what cold lacks of a window, compares both, and writes it down. @returns rows of the window */
  private async replicate(window: Window): Promise<number> {
    const { wanted, copied } = await this.transfer(
      inWindow(window),
      `epoch ${window.epoch}, ${window.after} to ${window.upto}`,
    );
    crashPoint('replicate.verified');
    await this.record(window, wanted, copied);
    crashPoint('replicate.recorded');
    return wanted.rows;
  }

  /**
   * Makes cold hold everything of hot that `where` names, and proves it, whatever was written down.
   * @returns rows that hot has there, and rows that cold had lacked
   */
  async transfer(where: string, what: string): Promise<{ wanted: Sum; copied: number }> {
    const { hot, cold, isOneServer } = this.options;
    const ofHot: Source = { table: this.hotTable, where };
    const spans = await this.spans(hot.client, ofHot);
    if (spans === null) return { wanted: { rows: 0, hash: '0' }, copied: 0 };
    const wanted = await this.sum(hot.client, ofHot);
    const source = isOneServer ? ofHot : await this.staged(ofHot, wanted);
    // Where cold has nothing in these times yet, nothing has to be left out, and all that is there afterwards is what was copied.
    const isNew = (await this.count(cold.client, { table: this.coldTable, where: spans })) === 0;
    const inCold = { table: this.coldTable, where: isNew ? spans : `${spans} AND ${this.isIn(source)}` };
    let copied = 0;
    for (let attempt = 1; ; attempt += 1) {
      copied += await this.copy(source, isNew && attempt === 1 ? null : spans);
      crashPoint('replicate.copied');
      const found = await this.sum(cold.client, inCold);
      if (isEqual(found, wanted)) break;
      this.refuse(found, wanted, what);
      if (attempt === ATTEMPTS)
        throw new Error(`${this.name}: cold has ${found.rows} of ${wanted.rows} rows of ${what}`);
    }
    this.stats.rows += wanted.rows;
    this.stats.copied += copied;
    return { wanted, copied };
  }

  /** Whether cold holds all that hot has there, as it is there; nothing is copied. */
  async isHeld(where: string): Promise<boolean> {
    const { hot, cold, isOneServer } = this.options;
    const ofHot: Source = { table: this.hotTable, where };
    const spans = await this.spans(hot.client, ofHot);
    if (spans === null) return true;
    const wanted = await this.sum(hot.client, ofHot);
    const source = isOneServer ? ofHot : await this.staged(ofHot, wanted);
    const found = await this.sum(cold.client, { table: this.coldTable, where: `${spans} AND ${this.isIn(source)}` });
    return isEqual(found, wanted);
  }

  /** @throws Disagreement when cold has what hot does not say */
  private refuse(found: Sum, wanted: Sum, what: string): void {
    if (found.rows < wanted.rows) return;
    throw new Disagreement(
      found.rows > wanted.rows
        ? `${this.name}: cold has ${found.rows} rows where hot has ${wanted.rows} (${what})`
        : `${this.name}: the same ${found.rows} keys have other values in cold than in hot (${what})`,
    );
  }

  /** @param spans null: cold has none of these rows; else where it may have some. @returns rows that were copied */
  private async copy(source: Source, spans: string | null): Promise<number> {
    const { client } = this.options.cold;
    const columns = this.columns.join(', ');
    const lacking =
      spans === null
        ? '1'
        : `${this.key} ${globally(client)}NOT IN (SELECT ${this.keyList} FROM ${this.coldTable} WHERE ${spans})`;
    const where = `${source.where} AND ${lacking}`;
    const rows = spans === null ? null : await this.count(client, { table: source.table, where });
    if (rows === 0) return 0;
    this.options.lease?.check();
    await client.command({
      query: `INSERT INTO ${this.coldTable} (${columns}) SELECT ${columns} FROM ${source.table} WHERE ${where}`,
      query_id: this.queryId('copy'),
      clickhouse_settings: LIMITS,
    });
    return rows ?? this.count(client, source);
  }

  /** Brings a window's rows to cold's server, beside the table. */
  private async staged({ table, where }: Source, wanted: Sum): Promise<Source> {
    const { hot, cold } = this.options;
    const staging = `${cold.database}.replication_staging_${this.name}`;
    const columns = this.columns.join(', ');
    this.options.lease?.check();
    await cold.client.command({ query: `DROP TABLE IF EXISTS ${staging}`, clickhouse_settings: LIMITS });
    const definition = tableSql({ ...this.table, name: `replication_staging_${this.name}` }, 'cold', cold.database);
    await cold.client.command({ query: definition, clickhouse_settings: LIMITS });
    const rows = await hot.client.exec({
      query: `SELECT ${columns} FROM ${table} WHERE ${where} FORMAT TabSeparated`,
      query_id: this.queryId('read'),
      clickhouse_settings: LIMITS,
    });
    const { stream } = await cold.client.exec({
      query: `INSERT INTO ${staging} (${columns}) FORMAT TabSeparated`,
      query_id: this.queryId('staging'),
      clickhouse_settings: LIMITS,
      values: rows.stream as Readable,
    });
    for await (const _chunk of stream) {
      // The body is empty; reading it to its end frees the connection.
    }
    const source = { table: staging, where: '1' };
    const found = await this.sum(cold.client, source);
    if (found.rows !== wanted.rows || found.hash !== wanted.hash) {
      throw new Error(
        `${this.name}: ${found.rows} of ${wanted.rows} rows came over to cold's server, or not as they were`,
      );
    }
    return source;
  }

  private async record(window: Window, { rows, hash }: Sum, copied: number): Promise<void> {
    const { client } = this.options.cold;
    await client.command({
      query: `INSERT INTO ${this.progressTable} (table_name, js_epoch, after_seq, upto_seq, window_rows, copied_rows, window_hash) VALUES ('${this.name}', ${window.epoch}, ${window.after}, ${window.upto}, ${rows}, ${copied}, ${hash})`,
      query_id: this.queryId('progress'),
      clickhouse_settings: { async_insert: 0 },
    });
  }

  /** SQL: within the times of the source's streams. Null when it has no rows. */
  private async spans(client: ClickHouseClient, { table, where }: Source): Promise<string | null> {
    const streams = STREAM_COLUMNS.join(', ');
    const query = `SELECT ${streams}, toUnixTimestamp64Milli(min(timestamp)), toUnixTimestamp64Milli(max(timestamp)) FROM ${table} WHERE ${where} GROUP BY ${streams}`;
    const rows = await selectText(client, query, LIMITS);
    if (rows.length === 0) return null;
    const spans = rows.map(([exchange, market_type, symbol, first, last]) => {
      const stream = `exchange = '${exchange}' AND market_type = '${market_type}' AND symbol = '${symbol}'`;
      return `(${stream} AND timestamp BETWEEN ${at(first!)} AND ${at(last!)})`;
    });
    return `(${spans.join(' OR ')})`;
  }

  private async count(client: ClickHouseClient, { table, where }: Source): Promise<number> {
    const [[count] = []] = await selectText(client, `SELECT count() FROM ${table} WHERE ${where}`, LIMITS);
    return Number(count);
  }

  /** Rows, and the sum of their hashes: the same in whatever order they stand. */
  private async sum(client: ClickHouseClient, { table, where }: Source): Promise<Sum> {
    const values = this.columns.filter((column) => !ABOUT_ARRIVAL.has(column));
    // A hash over an absent value would be absent itself: as text in a tuple it is a value like any other.
    const hash = `cityHash64(${values.map((column) => (this.isNullable(column) ? `ifNull(toString(${column}), '\\\\N')` : column)).join(', ')})`;
    const [[rows, sum] = []] = await selectText(
      client,
      `SELECT count(), toString(sum(${hash})) FROM ${table} WHERE ${where}`,
      LIMITS,
    );
    return { rows: Number(rows), hash: sum! };
  }

  private queryId(step: string): string {
    return `${QUERY_PREFIX}${this.name}:${step}:${randomBytes(6).toString('hex')}`;
  }

  private isNullable(column: string): boolean {
    return this.table.columns.some(({ name, type }) => name === column && type.startsWith('Nullable'));
  }

  /** All that a row has, without what the table computes itself. */
  private get columns(): string[] {
    return this.table.columns.filter(({ expression }) => !expression?.startsWith('ALIAS')).map(({ name }) => name);
  }

  private get keyList(): string {
    return [...STREAM_COLUMNS, 'timestamp', ...this.table.key.filter((member) => member !== 'timestamp')].join(', ');
  }

  private get key(): string {
    return `(${this.keyList})`;
  }

  private isIn({ table, where }: Source): string {
    return `${this.key} ${globally(this.options.cold.client)}IN (SELECT ${this.keyList} FROM ${table} WHERE ${where})`;
  }
}

function isEqual(one: Sum, other: Sum): boolean {
  return one.rows === other.rows && one.hash === other.hash;
}

/** SQL: after a place. */
export function isAfter(epoch: number, seq: number): string {
  return `(js_epoch > ${epoch} OR (js_epoch = ${epoch} AND js_seq > ${seq}))`;
}

function inWindow({ epoch, after, upto }: Window): string {
  return `js_epoch = ${epoch} AND js_seq > ${after} AND js_seq <= ${upto}`;
}

function at(ms: string): string {
  return `fromUnixTimestamp64Milli(toInt64(${ms}), 'UTC')`;
}

/**
 * Days of hot that are over for longer than `keepMs`: each is dropped once cold verifiably holds every row of it, asked anew and not by what
 * was written down.
 * @returns days dropped, such as 20261120
 */
export async function dropOldDays(
  replication: TableReplication,
  { hot, windowRows = WINDOW_ROWS, lease, log }: ReplicationOptions,
  keepMs: number,
  now: number,
): Promise<string[]> {
  const table = `${hot.database}.${replication.name}`;
  const parts = `SELECT DISTINCT partition FROM ${ofEveryShard(hot.client, 'parts')} WHERE active AND database = '${hot.database}' AND table = '${storedName(hot.client, replication.name)}' ORDER BY partition`;
  const dropped: string[] = [];
  for (const [day] of await selectText(hot.client, parts, LIMITS)) {
    const end = Date.UTC(Number(day!.slice(0, 4)), Number(day!.slice(4, 6)) - 1, Number(day!.slice(6, 8)) + 1);
    if (!/^\d{8}$/.test(day!) || now - end < keepMs) continue;
    const { epoch, seq } = await replication.progress();
    const ofDay = `toYYYYMMDD(created_at) = ${day}`;
    const [[left] = []] = await selectText(
      hot.client,
      `SELECT count() FROM ${table} WHERE ${ofDay} AND ${isAfter(epoch, seq)}`,
      LIMITS,
    );
    if (left !== '0' || !(await isDayHeld(replication, hot, table, ofDay, windowRows))) {
      log.error({ event: 'hot_day_kept', table: replication.name, day, not_replicated: left }, 'cold lacks rows of it');
      continue;
    }
    const query = `ALTER TABLE ${altered(hot.client, table)} DROP PARTITION ${day}`;
    lease?.check();
    await hot.client.command({ query, clickhouse_settings: LIMITS });
    log.info({ event: 'hot_day_dropped', table: replication.name, day });
    dropped.push(day!);
  }
  return dropped;
}

/** In parts of about `windowRows`, so that a day of any size is compared within bounds. */
async function isDayHeld(
  replication: TableReplication,
  hot: Tier,
  table: string,
  ofDay: string,
  windowRows: number,
): Promise<boolean> {
  const query = `SELECT js_epoch, count(), min(js_seq), max(js_seq) FROM ${table} WHERE ${ofDay} GROUP BY js_epoch`;
  for (const [epoch, count, first, last] of await selectText(hot.client, query, LIMITS)) {
    const windows = Math.max(Math.ceil(Number(count) / windowRows), 1);
    const step = Math.ceil((Number(last) - Number(first) + 1) / windows);
    for (let from = Number(first) - 1; from < Number(last); from += step) {
      const window = { epoch: Number(epoch), after: from, upto: from + step };
      if (!(await replication.isHeld(`${ofDay} AND ${inWindow(window)}`))) return false;
    }
  }
  return true;
}

/** One replication a table. */
export function replications(options: ReplicationOptions): TableReplication[] {
  return DATA_TYPES.map((type) => new TableReplication(type, options));
}

/**
 * How far each stream's rows are all in hot: an epoch that was closed, up to where it was; the present one up to what the store has
 * acknowledged. Asked in this order, so that a numbering that began anew meanwhile is never taken for the old one's.
 * @param ackFloor of the durable of a type
 */
export async function settledPlaces(
  { client, database }: Tier,
  type: DataType,
  ackFloor: (type: DataType) => Promise<number>,
): Promise<Place[]> {
  const query = `SELECT js_epoch, toString(max(closed_at_seq)) FROM ${database}.stream_epochs WHERE stream = '${streamOf(type).name}' GROUP BY js_epoch ORDER BY js_epoch`;
  const epochs = await selectText(client, query, LIMITS);
  const places: Place[] = [];
  for (const [epoch, closed] of epochs) {
    const seq = closed === '\\N' ? await ackFloor(type) : Number(closed);
    places.push({ epoch: Number(epoch), seq });
  }
  return places;
}
