/**
 * Parquet beside each file of an hour that is over: `kind=K.parquet`, with the file's rows in the order of their time.
 *
 * ClickHouse makes it, wherever it runs: rows go into a table of their own, and come back as Parquet. A file takes its name only when it is whole and has as
 * many rows as the file that it is made of; it has that one's time of change, by which is known later whether it must be made again.
 */
import { createHash, randomBytes } from 'node:crypto';
import {
  createWriteStream,
  existsSync,
  readdirSync,
  realpathSync,
  renameSync,
  rmSync,
  statSync,
  utimesSync,
} from 'node:fs';
import { open } from 'node:fs/promises';
import { hostname } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import type { ClickHouseClient } from '@clickhouse/client';
import { OperatorError } from '../cli.ts';
import { insertLines, selectText } from '../clickhouse.ts';
import { takeLock } from '../lock.ts';
import { Progress } from '../progress.ts';
import { type HarvestKind, isRaw, type RawKind } from './kinds.ts';
import { reasonOf } from './letters.ts';
import {
  type Block,
  blocksOf,
  choiceOf,
  type Extent,
  extentOf,
  HOUR_MS,
  linesIn,
  type Slice,
  type SliceChoice,
  type SliceFlags,
  slicesOf,
} from './slices.ts';
import { rowColumns } from './table.ts';

/** Tables with rows on their way; those that a killed export left are dropped by the next one of the same harvest. */
const STAGING = 'harvest_export_';
/** A file is tried so often. */
const TRIES = 2;
/** Rows between two places at which a reader can begin. */
const ROW_GROUP = 100_000;
const SELECT_SETTINGS = {
  output_format_parquet_compression_method: 'zstd',
  output_format_parquet_string_as_string: 1,
  output_format_parquet_row_group_size: String(ROW_GROUP),
  max_execution_time: 600,
} as const;
const EXIT_FAILED = 1;
const EXIT_NO_FILES = 3;

// --------------------------------------------------------------------------------------------------------------- columns

export interface ParquetColumn {
  name: string;
  /** ClickHouse's. */
  type: string;
}

const DECIMAL = 'Decimal(38, 18)';
const nullable = (type: string) => `Nullable(${type})`;
const columnsOf = (type: string, ...names: string[]): ParquetColumn[] => names.map((name) => ({ name, type }));
const five = (of: (n: number) => string[], first: number) => Array.from({ length: 5 }, (_, i) => of(i + first)).flat();

/** Members of the kinds that have no table; prices and sizes as the venue wrote them. */
const RAW_COLUMNS: Record<RawKind, ParquetColumn[]> = {
  prices: [
    ...columnsOf(DECIMAL, 'price', 'qty'),
    ...columnsOf('Bool', 'is_buyer_maker'),
    ...columnsOf('String', 'agg_trade_id'),
    ...columnsOf(nullable(DECIMAL), 'best_buy_fill', 'best_sell_fill'),
    ...columnsOf('Bool', 'late'),
  ],
  orderbook: [
    ...columnsOf(nullable('Int64'), 'first_id'),
    ...columnsOf('Int64', 'last_id'),
    ...columnsOf(nullable('Int64'), 'prev_last_id'),
    ...columnsOf(nullable(DECIMAL), 'best_bid', 'best_ask'),
    ...columnsOf(nullable('Float64'), 'mid', 'spread_bps'),
    ...columnsOf('UInt32', 'levels'),
    ...columnsOf(nullable(DECIMAL), 'd_bid_qty_agg', 'd_ask_qty_agg'),
    ...columnsOf(nullable(DECIMAL), ...five((n) => [`d_b${n}`], 0), ...five((n) => [`d_a${n}`], 0)),
    ...columnsOf(nullable(DECIMAL), ...five((n) => [`bid${n}_p`, `bid${n}_q`], 1)),
    ...columnsOf(nullable(DECIMAL), ...five((n) => [`ask${n}_p`, `ask${n}_q`], 1)),
  ],
};
/** The last of the members that all kinds begin with. */
const LAST_OF_HEAD = 'queue_dropped';

/** A table's column type as a file has it: times as ms, names as text. */
function plainType(type: string): string {
  const inner = /^LowCardinality\((.*)\)$/.exec(type)?.[1] ?? type;
  if (inner.startsWith('DateTime64(3')) return 'Int64';
  return inner.startsWith('FixedString') ? 'String' : inner;
}

/** A kind's members, in the order of its files, with their types. */
export function parquetColumns(kind: HarvestKind): ParquetColumn[] {
  const ofTable = rowColumns(isRaw(kind) ? 'ofi' : kind).map(({ member, column }) => ({
    name: member,
    type: plainType(column.type),
  }));
  const head = ofTable.slice(0, ofTable.findIndex(({ name }) => name === LAST_OF_HEAD) + 1);
  return [
    ...columnsOf('String', 'kind'),
    ...(isRaw(kind) ? [...head, ...RAW_COLUMNS[kind]] : ofTable),
    ...columnsOf('String', 'date', 'hour', 'source_tier'),
  ];
}

// --------------------------------------------------------------------------------------------------------------- a file

export interface ExportOptions extends SliceChoice {
  root: string;
  client: ClickHouseClient;
  /** Where the rows pass through; it must exist. */
  database: string;
  /** Wall clock, ms: hours that are over by then. */
  now: number;
  stop?: AbortSignal;
  onProgress?(done: number, files: number, rows: number): void;
}

export interface ExportSummary {
  /** Of hours that are over. */
  files: number;
  exported: string[];
  /** Parquet files that were there and as new as what they are made of. */
  unchanged: number;
  rows: number;
  failed: { path: string; why: string }[];
  /** Tables that could not be dropped: the next export of the same harvest drops them. */
  tables_left: string[];
}

export function parquetPath(path: string): string {
  return path.replace(/\.jsonl$/, '.parquet');
}

/** Whether a file has a Parquet file that has all its rows. */
function isExported(path: string, { changed }: Extent): boolean {
  const made = statSync(parquetPath(path), { throwIfNoEntry: false });
  return made !== undefined && Math.floor(made.mtimeMs) >= changed;
}

/**
 * Makes the Parquet files that are missing or older than what they are made of.
 * @throws OperatorError when another export of this harvest runs
 */
export async function exportHours(options: ExportOptions): Promise<ExportSummary> {
  const { root, now, onProgress, stop } = options;
  const slices = slicesOf(root, options).filter(({ start }) => start + HOUR_MS <= now);
  const summary: ExportSummary = {
    files: slices.length,
    exported: [],
    unchanged: 0,
    rows: 0,
    failed: [],
    tables_left: [],
  };
  if (slices.length === 0) return summary;
  const lock = await takeLock(root, 'harvest export');
  try {
    const staging = new Staging(options, summary.tables_left);
    await staging.dropStale();
    for (const [index, slice] of slices.entries()) {
      stop?.throwIfAborted();
      const extent = extentOf(slice.path);
      if (isExported(slice.path, extent)) summary.unchanged += 1;
      else await exportSlice(slice, extent, staging, summary);
      onProgress?.(index + 1, slices.length, summary.rows);
    }
    return summary;
  } finally {
    await lock.release();
  }
}

async function exportSlice(slice: Slice, extent: Extent, staging: Staging, summary: ExportSummary): Promise<void> {
  removeTemporary(slice.path);
  for (let attempt = 1; ; attempt += 1) {
    try {
      summary.rows += await staging.through(slice, extent);
      summary.exported.push(parquetPath(slice.path));
      return;
    } catch (error) {
      // What is wrong with the rows stays wrong.
      if (attempt < TRIES && !(error instanceof Unfit)) continue;
      summary.failed.push({ path: slice.path, why: reasonOf(error).replace(/\s+/g, ' ').slice(0, 300) });
      return;
    }
  }
}

/** A file that is no Parquet file can be made of. */
class Unfit extends Error {}

/** Of exports that were killed. */
function removeTemporary(path: string): void {
  const name = `${basename(parquetPath(path))}.`;
  for (const each of readdirSync(dirname(path))) {
    if (each.startsWith(name) && each.endsWith('.tmp')) rmSync(join(dirname(path), each));
  }
}

/** Rows pass through a table that nobody else knows. */
class Staging {
  private readonly prefix: string;

  /** @param left told of tables that could not be dropped */
  constructor(
    private readonly options: ExportOptions,
    private readonly left: string[],
  ) {
    const place = `${hostname()}\n${realpathSync(options.root)}`;
    this.prefix = `${STAGING}${createHash('sha256').update(place).digest('hex').slice(0, 12)}_`;
  }

  async dropStale(): Promise<void> {
    const { client, database } = this.options;
    const query = `SELECT name FROM system.tables WHERE database = '${database}' AND startsWith(name, '${this.prefix}')`;
    for (const [name] of await selectText(client, query)) await this.drop(name!);
  }

  private async drop(name: string): Promise<void> {
    await this.options.client.command({ query: `DROP TABLE IF EXISTS ${this.options.database}.${name} SYNC` });
  }

  /** @returns rows in the Parquet file */
  async through(slice: Slice, extent: Extent): Promise<number> {
    const { client, database } = this.options;
    const name = `${this.prefix}${randomBytes(6).toString('hex')}`;
    const table = `${database}.${name}`;
    const columns = parquetColumns(slice.kind);
    // What is absent is an error, not a 0.
    const lines = columns.map((each) => `${each.name} ${each.type} DEFAULT throwIf(1, '${each.name} is absent')`);
    const query = `CREATE TABLE ${table} (line_no UInt32, ${lines.join(', ')}) ENGINE = MergeTree ORDER BY (ts_ms, line_no)`;
    await client.command({ query });
    try {
      const rows = await this.fill(table, slice.path, extent);
      const [[stored] = []] = await selectText(client, `SELECT count() FROM ${table}`);
      if (Number(stored) !== rows) throw new Error(`${stored} rows at the server, ${rows} in the file`);
      await this.write(table, columns, slice.path, extent, rows);
      return rows;
    } finally {
      // Whatever became of the file, its table is not what decides about it.
      await this.drop(name).catch(() => this.left.push(table));
    }
  }

  private async fill(table: string, path: string, extent: Extent): Promise<number> {
    const { client, stop } = this.options;
    let rows = 0;
    for await (const block of blocksOf(path, extent)) {
      stop?.throwIfAborted();
      const { bytes, count } = numbered(block);
      if (count === 0) continue;
      rows += count;
      const id = `harvest-export:${randomBytes(8).toString('hex')}`;
      await insertLines(client, table, bytes, id).catch((error: unknown) => {
        throw isOfRows(error) ? new Unfit(reasonOf(error)) : error;
      });
    }
    return rows;
  }

  private async write(
    table: string,
    columns: ParquetColumn[],
    path: string,
    extent: Extent,
    rows: number,
  ): Promise<void> {
    const temporary = `${parquetPath(path)}.${process.pid}.tmp`;
    try {
      const { stream } = await this.options.client.exec({
        query: `SELECT ${columns.map(({ name }) => name).join(', ')} FROM ${table} ORDER BY ts_ms, line_no FORMAT Parquet`,
        clickhouse_settings: SELECT_SETTINGS,
      });
      await pipeline(stream, createWriteStream(temporary));
      const made = await parquetRows(temporary);
      if (made !== rows) throw new Error(`the Parquet file has ${made} rows, the file ${rows}`);
      await sync(temporary);
      takeTime(temporary, path, extent);
      renameSync(temporary, parquetPath(path));
      await sync(dirname(path));
    } finally {
      if (existsSync(temporary)) rmSync(temporary);
    }
  }
}

/** An error that another try would meet again. */
function isOfRows(error: unknown): boolean {
  const { type } = error as { type?: string };
  return (
    type !== undefined && /^(?:CANNOT_|TYPE_MISMATCH|INCORRECT_DATA|FUNCTION_THROW_IF|DECIMAL_|ARGUMENT_OUT)/.test(type)
  );
}

/**
 * What the file was made of is as old as the file says; a file that was written to meanwhile is newer. One that was written to in the same tick of the clock
 * shows by its size, and is made older than it is, so that it is made again.
 */
function takeTime(temporary: string, path: string, extent: Extent): void {
  const { bytes, changed } = extentOf(path);
  const isSame = bytes === extent.bytes && changed === extent.changed;
  // A fraction more, as a double of seconds may come out a little less.
  const seconds = (isSame ? extent.changed + 0.5 : extent.changed - 1000) / 1000;
  utimesSync(temporary, seconds, seconds);
}

async function sync(path: string): Promise<void> {
  const file = await open(path, 'r');
  try {
    await file.sync();
  } finally {
    await file.close();
  }
}

const OPENING_BRACE = 0x7b;

/** Lines with their number as first member: rows of one ms keep their order. @throws Unfit naming a line that is no object */
function numbered(block: Block): { bytes: Buffer; count: number } {
  const pieces: Buffer[] = [];
  let count = 0;
  for (const { number, bytes } of linesIn(block)) {
    if (bytes[0] !== OPENING_BRACE || bytes.at(-1) !== 0x7d)
      throw new Unfit(`line ${number} is no JSON object: --validate tells of all such lines`);
    pieces.push(Buffer.from(`{"line_no":${number},`), bytes.subarray(1), LINE_END);
    count += 1;
  }
  return { bytes: Buffer.concat(pieces), count };
}

const LINE_END = Buffer.from('\n');

// ----------------------------------------------------------------------------------------------------------- Parquet's end

const MAGIC = 'PAR1';
const TAIL_BYTES = 8;
/** Of the file's description: https://github.com/apache/parquet-format, `FileMetaData`. */
const NUM_ROWS_FIELD = 3;

/** The rows that a Parquet file says it has, in the description at its end. @throws Error when it is not whole */
export async function parquetRows(path: string): Promise<number> {
  const file = await open(path, 'r');
  try {
    const { size } = await file.stat();
    const tail = Buffer.alloc(TAIL_BYTES);
    const head = Buffer.alloc(MAGIC.length);
    if (size < TAIL_BYTES + MAGIC.length) throw new Error(`a Parquet file of ${size} bytes`);
    await file.read(head, 0, head.length, 0);
    await file.read(tail, 0, TAIL_BYTES, size - TAIL_BYTES);
    const length = tail.readUInt32LE(0);
    const isWhole = head.toString('latin1') === MAGIC && tail.toString('latin1', 4) === MAGIC;
    if (!isWhole || length > size - TAIL_BYTES - MAGIC.length) throw new Error('the Parquet file is not whole');
    const description = Buffer.alloc(length);
    await file.read(description, 0, length, size - TAIL_BYTES - length);
    return new Thrift(description).wholeNumber(NUM_ROWS_FIELD);
  } finally {
    await file.close();
  }
}

/** As much of Thrift's compact protocol as finds one number: types 1 and 2 are Booleans, 3 a byte, 4 to 6 varints, 7 a double, 8 bytes, 9 to 12 nested. */
class Thrift {
  private at = 0;

  constructor(private readonly bytes: Buffer) {}

  /** A whole number of the outermost struct. */
  wholeNumber(wanted: number): number {
    for (let field = 0; ; ) {
      const { type, id } = this.header(field);
      if (type === 0) throw new Error(`the description of the Parquet file has no field ${wanted}`);
      field = id;
      if (field === wanted) return this.zigzag();
      this.skip(type);
    }
  }

  private header(before: number): { type: number; id: number } {
    const byte = this.byte();
    const type = byte & 0x0f;
    if (byte === 0) return { type: 0, id: before };
    return { type, id: byte >> 4 === 0 ? this.zigzag() : before + (byte >> 4) };
  }

  private skip(type: number): void {
    if (type === 3) this.at += 1;
    else if (type >= 4 && type <= 6) this.varint();
    else if (type === 7) this.at += 8;
    else if (type === 8) this.skipBytes();
    else if (type === 9 || type === 10) this.skipList();
    else if (type === 12) this.skipStruct();
    else if (type > 2) throw new Error(`the description of the Parquet file has a field of type ${type}`);
  }

  private skipBytes(): void {
    const length = this.varint();
    this.at += length;
  }

  private skipList(): void {
    const byte = this.byte();
    const size = byte >> 4 === 15 ? this.varint() : byte >> 4;
    const type = byte & 0x0f;
    // In a list a Boolean takes a byte.
    for (let i = 0; i < size; i++) this.skip(type <= 2 ? 3 : type);
  }

  private skipStruct(): void {
    for (let field = 0; ; ) {
      const { type, id } = this.header(field);
      if (type === 0) return;
      field = id;
      this.skip(type);
    }
  }

  private byte(): number {
    const byte = this.bytes[this.at];
    if (byte === undefined) throw new Error('the description of the Parquet file is cut off');
    this.at += 1;
    return byte;
  }

  /** Beyond 2^53 it would not be exact: there are no so many rows. */
  private varint(): number {
    for (let value = 0, factor = 1; ; factor *= 128) {
      const byte = this.byte();
      value += (byte & 0x7f) * factor;
      if (byte < 0x80) return value;
    }
  }

  private zigzag(): number {
    const value = this.varint();
    return value % 2 === 0 ? value / 2 : -(value + 1) / 2;
  }
}

// -------------------------------------------------------------------------------------------------------------- the command

/**
 * `--export [--from] [--to] [--symbol] [--json]`.
 * @param now wall clock, ms
 * @returns the exit code: 0 every file of an hour that is over has its Parquet file, 1 some have not, 3 there is no file
 */
export async function runExport(options: {
  root: string;
  client: ClickHouseClient;
  database: string;
  flags: SliceFlags;
  now: number;
  stop?: AbortSignal;
  out?: NodeJS.WriteStream;
}): Promise<number> {
  const { flags, out = process.stdout, ...place } = options;
  const progress = new Progress(flags.json ? process.stderr : out);
  const onProgress = (done: number, files: number, rows: number) =>
    progress.show(done / files, `${done} of ${files} files, ${rows} rows`);
  const choice = choiceOf(flags);
  const summary = await exportHours({ ...place, ...choice, onProgress }).catch((error: unknown) => {
    const { code } = error as { code?: string };
    if (code === undefined || error instanceof OperatorError) throw error;
    throw new OperatorError(`nothing is exported without the database: ${reasonOf(error)}`, EXIT_NO_FILES);
  });
  progress.clear();
  out.write(`${flags.json ? JSON.stringify(summary) : exportText(summary, place.root)}\n`);
  if (summary.files === 0) return EXIT_NO_FILES;
  return summary.failed.length > 0 ? EXIT_FAILED : 0;
}

function exportText(summary: ExportSummary, root: string): string {
  const { files, exported, unchanged, rows, failed, tables_left } = summary;
  if (files === 0) return `no files of an hour that is over under ${root}`;
  return [
    ...failed.map(({ path, why }) => `not exported: ${path}: ${why}`),
    ...tables_left.map((table) => `left at the server, and dropped by the next export: ${table}`),
    `${exported.length} Parquet files made (${rows} rows), ${unchanged} as they were, ${failed.length} not made, of ${files} files`,
  ].join('\n');
}
