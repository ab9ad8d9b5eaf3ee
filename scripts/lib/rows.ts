/**
 * The ten tables: columns, keys, row types, and rows as text. The one source of columns: `sql/` is generated from here.
 */
import { decimalEnd, plainDecimal, ValueError } from './decimal.ts';

export { ValueError };

export const EXCHANGES = [
  'binance_spot',
  'binance_derivatives',
  'okx_spot',
  'okx_derivatives',
  'deribit_derivatives',
  'hyperliquid',
] as const;
export type Exchange = (typeof EXCHANGES)[number];

export const MARKET_TYPES = ['spot', 'perpetual', 'futures', 'options'] as const;
export type MarketType = (typeof MARKET_TYPES)[number];

/** An id from the wire: a safe integer, or its digits as text when a double cannot hold it. */
export type Id = number | string;

/** `[price, quantity]`, plain decimal text, quantity in base units. */
export type Level = [price: string, quantity: string];

/** Whose row it is, and when it arrived. */
export interface RowSource {
  exchange: Exchange;
  market_type: MarketType;
  symbol: string;
  /** The venue's own id of the instrument. */
  instrument: string;
  /** When the frame arrived, µs since the epoch. */
  received_at: number;
  /** `live`, `demo`, `backfill:<gap>`, `repair:<id>`. */
  data_source: string;
  /** Event time by the venue's clock, ms since the epoch. */
  timestamp: number;
}

export interface TradeRow extends RowSource {
  trade_id: string;
  /** Deribit's trade_seq. */
  sequence: Id | null;
  price: string;
  quantity: string;
  /** What the taker did. */
  side: 'buy' | 'sell';
  /** True when the buyer was the maker, that is when the taker sold. */
  is_maker: boolean;
}

export interface OrderbookRow extends RowSource {
  last_update_id: Id;
  best_bid_price: string;
  best_bid_quantity: string;
  best_ask_price: string;
  best_ask_quantity: string;
  bids: Level[];
  asks: Level[];
  verified: 'verified' | 'unverifiable';
}

export interface OrderbookUpdateRow extends RowSource {
  first_update_id: Id | null;
  last_update_id: Id;
  prev_update_id: Id | null;
  is_snapshot: boolean;
  bids: Level[];
  asks: Level[];
}

/** A row's levels as JSON, in its order and with plain decimals, where whoever read them had that text: to write it anew costs more than all else of a row. */
export interface LevelTexts {
  bids: string;
  asks: string;
}

export interface FundingRateRow extends RowSource {
  funding_rate: string;
  funding_time: number | null;
  next_funding_time: number | null;
  funding_interval_hours: string | null;
  mark_price: string | null;
  index_price: string | null;
}

export interface OpenInterestRow extends RowSource {
  open_interest: string;
  open_interest_value: string | null;
  contracts: string | null;
}

export interface LiquidationRow extends RowSource {
  liquidation_id: string;
  side: 'buy' | 'sell';
  price: string;
  quantity: string;
}

export interface LsrTopPositionRow extends RowSource {
  period: string;
  long_position_ratio: string;
  short_position_ratio: string;
  long_short_ratio: string;
}

export interface LsrAllAccountRow extends RowSource {
  period: string;
  long_account_ratio: string;
  short_account_ratio: string;
  long_short_ratio: string;
}

export interface VolatilityIndexRow extends RowSource {
  resolution: string;
  index_value: string;
  underlying_asset: string;
  maturity_date: string | null;
}

export interface GapRow extends RowSource {
  gap_id: string;
  status: 'open' | 'filled' | 'unfillable';
  data_type: string;
  from_id: string;
  to_id: string;
  from_time: number;
  to_time: number;
  cause: string;
  /** Why it cannot be filled; else null. */
  reason: string | null;
  rows: Id | null;
  filled_rows: Id | null;
  detected_at: number;
  closed_at: number | null;
}

/** Each data type's row. */
export interface Rows {
  trade: TradeRow;
  orderbook: OrderbookRow;
  orderbook_update: OrderbookUpdateRow;
  funding_rate: FundingRateRow;
  open_interest: OpenInterestRow;
  liquidation: LiquidationRow;
  lsr_top_position: LsrTopPositionRow;
  lsr_all_account: LsrAllAccountRow;
  volatility_index: VolatilityIndexRow;
  gap: GapRow;
}
export type DataType = keyof Rows;

/** How a column's value is written as text (see `encodeRow`). */
export type Kind = 'text' | 'ticks' | 'decimal' | 'integer' | 'bool' | 'levels' | 'date';

export interface Column {
  name: string;
  /** The ClickHouse type, Nullable included. */
  type: string;
  codec?: string;
  /** Absent for columns that no row carries: defaults, aliases and what the store adds. */
  kind?: Kind;
  nullable?: boolean;
  /** A row without it is an error, and not a row with 0. */
  required?: boolean;
  /** `DEFAULT now64(3)`, `ALIAS timestamp`, … */
  expression?: string;
}

export interface Table {
  type: DataType;
  name: string;
  /** Natural key within (exchange, market_type, symbol). */
  key: string[];
  /** In the table's order. */
  columns: Column[];
}

/** Measured smallest for decimals on recorded sessions: 6.0 bytes a trade, 3.8–3.9 a book level. */
const DECIMAL_CODEC = 'GCD, ZSTD(3)';
const TIME_CODEC = 'Delta, ZSTD(1)';
/** Ids that mostly rise by a constant. */
const SEQUENCE_CODEC = 'DoubleDelta, ZSTD(1)';
/** Text that tells rows of one stream apart compresses best with some context. */
const TEXT_CODEC = 'ZSTD(3)';

const name = (column: string): Column => ({ name: column, type: 'LowCardinality(String)', kind: 'text' });
function text(column: string, nullable = false): Column {
  return { name: column, type: maybe('String', nullable), codec: TEXT_CODEC, kind: 'text', nullable };
}
const bool = (column: string): Column => ({ name: column, type: 'Bool', kind: 'bool' });
const levels = (column: string): Column => ({
  name: column,
  type: 'Array(Tuple(Decimal(38, 18), Decimal(38, 18)))',
  codec: DECIMAL_CODEC,
  kind: 'levels',
});
const choice = (column: string, values: string[]): Column => ({
  name: column,
  type: `Enum8(${values.map((value, index) => `'${value}' = ${index + 1}`).join(', ')})`,
  kind: 'text',
});

function decimal(column: string, nullable = false): Column {
  return { name: column, type: maybe('Decimal(38, 18)', nullable), codec: DECIMAL_CODEC, kind: 'decimal', nullable };
}
function integer(column: string, nullable = false): Column {
  return { name: column, type: maybe('UInt64', nullable), codec: SEQUENCE_CODEC, kind: 'integer', nullable };
}
function time(column: string, nullable = false): Column {
  return { name: column, type: maybe("DateTime64(3, 'UTC')", nullable), codec: TIME_CODEC, kind: 'ticks', nullable };
}
/** What makes the row, as against what tells where it came from. */
function required(column: Column): Column {
  return column.kind && !column.nullable ? { ...column, required: true } : column;
}
function maybe(type: string, nullable: boolean): string {
  return nullable ? `Nullable(${type})` : type;
}

function table(type: DataType, tableName: string, key: string[], own: Column[]): Table {
  return {
    type,
    name: tableName,
    key,
    columns: [
      ...[time('timestamp'), name('exchange'), name('market_type'), name('symbol')].map(required),
      name('instrument'),
      ...own.map(required),
      { name: 'received_at', type: "DateTime64(6, 'UTC')", codec: TIME_CODEC, kind: 'ticks' },
      { name: 'created_at', type: "DateTime64(3, 'UTC')", codec: TIME_CODEC, expression: 'DEFAULT now64(3)' },
      name('data_source'),
      { name: 'js_epoch', type: 'UInt32', codec: SEQUENCE_CODEC },
      { name: 'js_seq', type: 'UInt64', codec: SEQUENCE_CODEC },
    ],
  };
}

const SIDES = ['buy', 'sell'];

/** All tables by data type. */
export const TABLES: { [T in DataType]: Table } = {
  trade: table(
    'trade',
    'trades',
    ['trade_id'],
    [
      text('trade_id'),
      integer('sequence', true),
      decimal('price'),
      decimal('quantity'),
      choice('side', SIDES),
      bool('is_maker'),
      { name: 'trade_time', type: "DateTime64(3, 'UTC')", expression: 'ALIAS timestamp' },
    ],
  ),
  orderbook: table(
    'orderbook',
    'orderbooks',
    ['last_update_id'],
    [
      integer('last_update_id'),
      { name: 'bids_count', type: 'UInt32', expression: 'DEFAULT length(bids)' },
      { name: 'asks_count', type: 'UInt32', expression: 'DEFAULT length(asks)' },
      decimal('best_bid_price'),
      decimal('best_bid_quantity'),
      decimal('best_ask_price'),
      decimal('best_ask_quantity'),
      levels('bids'),
      levels('asks'),
      choice('verified', ['verified', 'unverifiable']),
    ],
  ),
  orderbook_update: table(
    'orderbook_update',
    'orderbook_updates',
    ['last_update_id', 'is_snapshot'],
    [
      integer('first_update_id', true),
      integer('last_update_id'),
      integer('prev_update_id', true),
      bool('is_snapshot'),
      levels('bids'),
      levels('asks'),
    ],
  ),
  funding_rate: table(
    'funding_rate',
    'funding_rates',
    ['timestamp'],
    [
      decimal('funding_rate'),
      time('funding_time', true),
      time('next_funding_time', true),
      decimal('funding_interval_hours', true),
      decimal('mark_price', true),
      decimal('index_price', true),
    ],
  ),
  open_interest: table(
    'open_interest',
    'open_interests',
    ['timestamp'],
    [decimal('open_interest'), decimal('open_interest_value', true), decimal('contracts', true)],
  ),
  liquidation: table(
    'liquidation',
    'liquidations',
    ['liquidation_id'],
    [
      text('liquidation_id'),
      choice('side', SIDES),
      decimal('price'),
      decimal('quantity'),
      { name: 'liquidation_time', type: "DateTime64(3, 'UTC')", expression: 'ALIAS timestamp' },
    ],
  ),
  lsr_top_position: table(
    'lsr_top_position',
    'lsr_top_positions',
    ['timestamp', 'period'],
    [decimal('long_position_ratio'), decimal('short_position_ratio'), decimal('long_short_ratio'), name('period')],
  ),
  lsr_all_account: table(
    'lsr_all_account',
    'lsr_all_accounts',
    ['timestamp', 'period'],
    [decimal('long_account_ratio'), decimal('short_account_ratio'), decimal('long_short_ratio'), name('period')],
  ),
  volatility_index: table(
    'volatility_index',
    'volatility_indices',
    ['timestamp', 'resolution'],
    [
      decimal('index_value'),
      name('underlying_asset'),
      { name: 'maturity_date', type: 'Nullable(Date)', kind: 'date', nullable: true },
      name('resolution'),
    ],
  ),
  gap: table(
    'gap',
    'gaps',
    ['gap_id', 'status'],
    [
      text('gap_id'),
      name('data_type'),
      text('from_id'),
      text('to_id'),
      time('from_time'),
      time('to_time'),
      name('cause'),
      text('reason', true),
      choice('status', ['open', 'filled', 'unfillable']),
      integer('rows', true),
      integer('filled_rows', true),
      time('detected_at'),
      time('closed_at', true),
    ],
  ),
};

export const DATA_TYPES = Object.keys(TABLES) as DataType[];

/** Columns that tell how a row came, and nothing of what it says. */
export const ABOUT_ARRIVAL: ReadonlySet<string> = new Set([
  'received_at',
  'created_at',
  'data_source',
  'js_epoch',
  'js_seq',
]);

/** Key members shared by all tables; they come from the subject and are the same for a whole message. */
export const STREAM_COLUMNS = ['exchange', 'market_type', 'symbol'] as const;

/**
 * The members that open each line of text, in order: the stream, the natural key, the event time. The store reads the key
 * and the time at these fixed places without parsing the line.
 */
export function leadingMembers(type: DataType): string[] {
  const { key } = TABLES[type];
  return [...STREAM_COLUMNS, ...key, ...(key.includes('timestamp') ? [] : ['timestamp'])];
}

/** The columns of a row's text, in its order: leading members first, then the table's order. */
export function textColumns(type: DataType): Column[] {
  const written = TABLES[type].columns.filter((column) => column.kind !== undefined);
  const leading = leadingMembers(type).map((member) => written.find((column) => column.name === member)!);
  return [...leading, ...written.filter((column) => !leading.includes(column))];
}

const ENCODERS = Object.fromEntries(
  DATA_TYPES.map((type) => [
    type,
    textColumns(type).map((column, index) => ({ ...column, open: `${index === 0 ? '{' : ','}"${column.name}":` })),
  ]),
) as { [T in DataType]: (Column & { open: string })[] };

/**
 * A row as one line of JSON: leading members first, then the table's order, no spaces. Times are integers in the column's
 * own ticks (ms; received_at µs), decimals strings in plain notation, ids bare integers, absent values null.
 * @throws ValueError naming the table and the column whose value does not fit.
 */
export function encodeRow<T extends DataType>(type: T, row: Rows[T], texts?: LevelTexts): string {
  return QUICK_ENCODERS[type]?.(row, texts) ?? encodeByColumns(type, row);
}

/** Any row, column by column: what `encodeRow` does with whatever its quick encoders leave to it. */
export function encodeByColumns<T extends DataType>(type: T, row: Rows[T]): string {
  let line = '';
  const values = row as unknown as Record<string, unknown>;
  for (const column of ENCODERS[type]) {
    const value = values[column.name];
    try {
      line += column.open + (value === null && column.nullable ? 'null' : encodeValue(column.kind!, value));
    } catch (error) {
      if (!(error instanceof ValueError)) throw error;
      throw new ValueError(`${TABLES[type].name}.${column.name}: ${error.message}`);
    }
  }
  return `${line}}`;
}

function encodeValue(kind: Kind, value: unknown): string {
  switch (kind) {
    case 'text':
    case 'date':
      if (typeof value !== 'string' || value === '') throw new ValueError(`not a text: ${JSON.stringify(value)}`);
      return SIMPLE_TEXT.test(value) ? `"${value}"` : JSON.stringify(value);
    case 'decimal':
      return `"${plainDecimal(value)}"`;
    case 'integer':
      return integerText(value);
    case 'ticks':
      if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < 0) {
        throw new ValueError(`not a time: ${JSON.stringify(value)}`);
      }
      return String(value);
    case 'bool':
      if (typeof value !== 'boolean') throw new ValueError(`not true or false: ${JSON.stringify(value)}`);
      return value ? 'true' : 'false';
    case 'levels':
      return levelsText(value as Level[]);
  }
}

/** Text that needs no escaping in JSON, which is nearly all of ours. */
const SIMPLE_TEXT = /^[\w .:%/+-]*$/;

/** Digits of an id. @throws ValueError when a double has already rounded it, or it is no id at all. */
export function integerText(value: unknown): string {
  if (typeof value === 'number' && Number.isSafeInteger(value) && value >= 0) return String(value);
  if (typeof value === 'string' && /^\d{1,20}$/.test(value)) return value;
  throw new ValueError(`not an unsigned integer: ${JSON.stringify(value)}`);
}

/** One pass over the whole text is several times faster than a test per price and quantity. */
const PLAIN_LEVELS = /^\[(?:\["\d{1,20}(?:\.\d{1,18})?","\d{1,20}(?:\.\d{1,18})?"\](?:,(?=\[)|(?=\])))*\]$/;

function plainLevels(value: Level[]): string | null {
  const written = JSON.stringify(value);
  return PLAIN_LEVELS.test(written) ? written : null;
}

function levelsText(value: Level[]): string {
  const plain = plainLevels(value);
  if (plain !== null) return plain;
  return JSON.stringify(value.map(([price, quantity]) => [plainDecimal(price), plainDecimal(quantity)]));
}

/**
 * Rows of the two types that are nearly all traffic, in a fraction of the time of going column by column. Null when a value
 * is not of the plainest kind: `encodeByColumns` knows what to make of it then. test/encode.test.ts compares the two.
 */
const QUICK_ENCODERS: { [T in DataType]?: (row: Rows[T], texts?: LevelTexts) => string | null } = {
  trade: encodeTrade,
  orderbook_update: encodeUpdate,
};

function encodeTrade(row: TradeRow): string | null {
  const { trade_id, timestamp, sequence, price, quantity, side, is_maker, received_at } = row;
  const stream = streamText(row);
  if (stream === null || !isId(timestamp) || !isId(received_at) || sequence !== null) return null;
  // A trade id that reads as a decimal is digits, with nothing in it that JSON would escape.
  if (!isDecimal(price) || !isDecimal(quantity) || !isDecimal(trade_id)) return null;
  if ((side !== 'sell' && side !== 'buy') || typeof is_maker !== 'boolean') return null;
  return (
    `${stream.head},"trade_id":"${trade_id}","timestamp":${digits(timestamp)}${stream.instrument},"sequence":null,` +
    `"price":"${price}","quantity":"${quantity}","side":"${side}","is_maker":${is_maker},` +
    `"received_at":${digits(received_at)}${stream.tail}`
  );
}

function encodeUpdate(row: OrderbookUpdateRow, texts?: LevelTexts): string | null {
  const { first_update_id, last_update_id, prev_update_id, is_snapshot, timestamp, received_at } = row;
  const stream = streamText(row);
  if (stream === null || !isId(timestamp) || !isId(received_at) || typeof is_snapshot !== 'boolean') return null;
  if (!isId(last_update_id) || !isIdOrNull(first_update_id) || !isIdOrNull(prev_update_id)) return null;
  const bids = texts?.bids ?? plainLevels(row.bids);
  const asks = texts?.asks ?? plainLevels(row.asks);
  if (bids === null || asks === null) return null;
  return (
    `${stream.head},"last_update_id":${last_update_id},"is_snapshot":${is_snapshot},"timestamp":${digits(timestamp)}` +
    `${stream.instrument},"first_update_id":${first_update_id},"prev_update_id":${prev_update_id},` +
    `"bids":${bids},"asks":${asks},"received_at":${digits(received_at)}${stream.tail}`
  );
}

/** The parts of a line that are the same in all rows of a stream. */
interface StreamText {
  market_type: string;
  symbol: string;
  data_source: string;
  head: string;
  instrument: string;
  tail: string;
}

/** By exchange, then by instrument. */
const STREAM_TEXTS = new Map<string, Map<string, StreamText>>();
/** More than any exchange has instruments; beyond it, the exchange's texts are made anew. */
const MAX_STREAM_TEXTS = 20_000;

function streamText(row: RowSource): StreamText | null {
  const { market_type, symbol, data_source } = row;
  const known = STREAM_TEXTS.get(row.exchange)?.get(row.instrument);
  if (known === undefined) return newStreamText(row);
  const same = known.market_type === market_type && known.symbol === symbol && known.data_source === data_source;
  return same ? known : newStreamText(row);
}

function newStreamText({ exchange, market_type, symbol, instrument, data_source }: RowSource): StreamText | null {
  const texts = [exchange, market_type, symbol, instrument, data_source];
  if (!texts.every((each) => typeof each === 'string' && each !== '' && SIMPLE_TEXT.test(each))) return null;
  let ofExchange = STREAM_TEXTS.get(exchange);
  if (ofExchange === undefined || ofExchange.size >= MAX_STREAM_TEXTS) {
    STREAM_TEXTS.set(exchange, (ofExchange = new Map()));
  }
  const made: StreamText = {
    market_type,
    symbol,
    data_source,
    head: `{"exchange":"${exchange}","market_type":"${market_type}","symbol":"${symbol}"`,
    instrument: `,"instrument":"${instrument}"`,
    tail: `,"data_source":"${data_source}"}`,
  };
  ofExchange.set(instrument, made);
  return made;
}

function isId(value: unknown): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0;
}

function isIdOrNull(value: unknown): boolean {
  return value === null || isId(value);
}

function isDecimal(value: unknown): boolean {
  return typeof value === 'string' && decimalEnd(value, 0) === value.length;
}

const THREE_DIGITS = Array.from({ length: 1000 }, (_, value) => String(value).padStart(3, '0'));

/** `String(time)`, by parts: V8 is slow at long numbers, while neighbouring rows share the leading digits. */
function digits(time: number): string {
  if (time < 1_000_000) return String(time);
  const thousands = Math.floor(time / 1000);
  return digits(thousands) + THREE_DIGITS[time - thousands * 1000];
}
