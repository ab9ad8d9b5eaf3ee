/**
 * The state of a running system as an operator asks for it: what arrived lately, what is missing, how far books can be trusted.
 * Pure: queries as text, answers to figures, figures to tables and to an exit code.
 */
import { z } from 'zod';
import { DATA_TYPES, type DataType, TABLES } from './rows.ts';

/** One stream with rows in hot in the last 24 hours. */
export interface StreamFigures {
  readonly exchange: string;
  readonly market_type: string;
  readonly symbol: string;
  readonly data_type: DataType;
  /** Rows that arrived in that time. */
  readonly rows: number;
  /** Newest event time, ms since the epoch. */
  readonly newest: number;
  /** From the newest event to the database's now, ms; below zero where the venue's clock is ahead. */
  readonly age_ms: number;
  readonly stale: boolean;
}

/** The gaps of one stream by their present state; rows only as far as they are known, null where none is. */
export interface GapFigures {
  readonly exchange: string;
  readonly market_type: string;
  readonly symbol: string;
  readonly data_type: string;
  readonly open: number;
  readonly open_rows: number | null;
  readonly filled: number;
  readonly filled_rows: number | null;
  readonly unfillable: number;
  readonly unfillable_rows: number | null;
}

export interface OpenGap {
  readonly exchange: string;
  readonly market_type: string;
  readonly symbol: string;
  readonly data_type: string;
  /** The range as the gap was declared: ids as text, times as the database prints them, UTC. */
  readonly from_id: string;
  readonly to_id: string;
  readonly from_time: string;
  readonly to_time: string;
  readonly rows: number | null;
  readonly cause: string;
  readonly detected_at: string;
}

export interface DatabaseFigures {
  readonly streams: readonly StreamFigures[];
  readonly gaps: readonly GapFigures[];
  /** The newest ones. */
  readonly open_gaps: readonly OpenGap[];
}

/** What `/health` of the collector must have for this report; all else in it is ignored. */
const HEALTH = z.object({
  status: z.enum(['healthy', 'degraded', 'unhealthy']),
  books: z
    .record(
      z.string(),
      z.record(
        z.string(),
        z.record(
          z.string(),
          z.object({
            verified_percent: z.number().nullable(),
            unverifiable_percent: z.number().nullable(),
            clean_percent: z.number().nullable(),
            resyncs: z.number(),
            standing: z.boolean(),
          }),
        ),
      ),
    )
    .default({}),
});
export type CollectorFigures = z.output<typeof HEALTH>;

/** A part that did not answer says why, in one line. */
export type Answered<Figures> = { readonly figures: Figures } | { readonly fault: string };

export interface Status {
  /** The database that was asked, and the collector's address. */
  readonly database: string;
  readonly collector: string;
  readonly hot: Answered<DatabaseFigures>;
  readonly health: Answered<CollectorFigures>;
}

export const EXIT = { healthy: 0, degraded: 1, unhealthy: 2, unchecked: 3 } as const;
export type Verdict = keyof typeof EXIT;

/** Newest open gaps that are shown. */
const SHOWN_GAPS = 10;
const SECOND_MS = 1000;
const MINUTE_MS = 60_000;
const HOUR_MS = 3_600_000;

/** Gaps are no stream of the market's: they have their own tables here. */
const STREAM_TYPES = DATA_TYPES.filter((type) => type !== 'gap');
const STEADY_TYPES: readonly DataType[] = ['trade', 'orderbook', 'orderbook_update'];
const STEADY_LIMIT_MS = MINUTE_MS;
/** The longest usual time between two settlements. */
const OTHER_LIMIT_MS = 8 * HOUR_MS;

/** Older than this, in ms, a stream's newest event is stale. A market may go without liquidations as long as it likes. */
function ageLimit(type: DataType): number {
  if (type === 'liquidation') return Number.POSITIVE_INFINITY;
  return STEADY_TYPES.includes(type) ? STEADY_LIMIT_MS : OTHER_LIMIT_MS;
}

/** The verdict over all that could be asked. What is known to be bad outweighs what is not known. */
export function verdictOf({ hot, health }: Status): Verdict {
  if ('figures' in health && health.figures.status === 'unhealthy') return 'unhealthy';
  if ('fault' in hot) return 'unchecked';
  // Without a collector nothing new comes, however fresh the newest rows still are.
  if ('fault' in health || health.figures.status === 'degraded') return 'degraded';
  const { streams, gaps } = hot.figures;
  // Streams that died more than a day ago are in no list: when all did, that list is empty.
  const isFlowing = streams.length > 0 && !streams.some(({ stale }) => stale);
  return isFlowing && !gaps.some(({ open }) => open > 0) ? 'healthy' : 'degraded';
}

/** Rows by stream that arrived in the last 24 h, with the newest event and the database's now, both in ms. */
export function streamsQuery(database: string): string {
  const ofType = (type: DataType): string =>
    `SELECT exchange, market_type, symbol, '${type}' AS data_type, count() AS arrived, ` +
    `toUnixTimestamp64Milli(max(timestamp)) AS newest, toUnixTimestamp64Milli(now64(3)) AS asked ` +
    `FROM ${database}.${TABLES[type].name} WHERE created_at > now64(3) - INTERVAL 24 HOUR GROUP BY exchange, market_type, symbol`;
  const all = STREAM_TYPES.map(ofType).join(' UNION ALL ');
  return `SELECT * FROM (${all}) ORDER BY exchange, market_type, symbol, data_type`;
}

export function streamsFrom(rows: readonly string[][]): StreamFigures[] {
  return rows.map(([exchange, market_type, symbol, data_type, count, newest, asked]) => {
    const type = data_type as DataType;
    const age_ms = Number(asked) - Number(newest);
    return {
      ...{ exchange: exchange!, market_type: market_type!, symbol: symbol!, data_type: type },
      ...{ rows: Number(count), newest: Number(newest), age_ms, stale: age_ms > ageLimit(type) },
    };
  });
}

/** Gaps by stream and state. What is missing of an open one is what is not filled yet. */
export function gapsQuery(database: string): string {
  return (
    `SELECT exchange, market_type, symbol, data_type, countIf(status = 'open'), ` +
    `sumIf(rows - ifNull(filled_rows, 0), status = 'open'), countIf(status = 'filled'), ` +
    `sumIf(ifNull(filled_rows, rows), status = 'filled'), countIf(status = 'unfillable'), ` +
    `sumIf(rows - ifNull(filled_rows, 0), status = 'unfillable') FROM ${database}.gaps_now ` +
    `GROUP BY exchange, market_type, symbol, data_type ORDER BY exchange, market_type, symbol, data_type`
  );
}

export function gapsFrom(rows: readonly string[][]): GapFigures[] {
  return rows.map(([exchange, market_type, symbol, data_type, open, openRows, filled, filledRows, lost, lostRows]) => ({
    ...{ exchange: exchange!, market_type: market_type!, symbol: symbol!, data_type: data_type! },
    ...{ open: Number(open), open_rows: numberOrNull(openRows) },
    ...{ filled: Number(filled), filled_rows: numberOrNull(filledRows) },
    ...{ unfillable: Number(lost), unfillable_rows: numberOrNull(lostRows) },
  }));
}

export function openGapsQuery(database: string): string {
  return (
    `SELECT exchange, market_type, symbol, data_type, from_id, to_id, from_time, to_time, rows, cause, detected_at ` +
    `FROM ${database}.gaps_now WHERE status = 'open' ORDER BY detected_at DESC, gap_id LIMIT ${SHOWN_GAPS}`
  );
}

export function openGapsFrom(answer: readonly string[][]): OpenGap[] {
  return answer.map(
    ([exchange, market_type, symbol, data_type, from_id, to_id, from_time, to_time, rows, cause, detected_at]) => ({
      ...{ exchange: exchange!, market_type: market_type!, symbol: symbol!, data_type: data_type! },
      ...{ from_id: from_id!, to_id: to_id!, from_time: from_time!, to_time: to_time! },
      ...{ rows: numberOrNull(rows), cause: cause!, detected_at: detected_at! },
    }),
  );
}

/** What a `/health` document says, or what is wrong with it. */
export function healthFrom(document: unknown): Answered<CollectorFigures> {
  const parsed = HEALTH.safeParse(document);
  if (parsed.success) return { figures: parsed.data };
  const issue = parsed.error.issues[0];
  return { fault: `its answer is none of a collector: ${issue?.path.join('.') || 'document'}: ${issue?.message}` };
}

/** What there is to say of streams, gaps and books, for people. */
export function streamsText({ hot, health, database, collector }: Status): string {
  const fromHot =
    'figures' in hot ? hotText(hot.figures, database) : [`database ${database} does not answer: ${hot.fault}`];
  const fromHealth =
    'figures' in health
      ? [`collector at ${collector}: ${health.figures.status}`, booksText(health.figures)]
      : [`collector at ${collector} does not answer: ${health.fault}`];
  return [...fromHot, ...fromHealth].join('\n\n');
}

/** The same for programs. */
export function streamsDocument({ hot, health, database, collector }: Status) {
  return {
    database: { name: database, fault: 'fault' in hot ? hot.fault : null },
    collector: {
      address: collector,
      fault: 'fault' in health ? health.fault : null,
      status: 'figures' in health ? health.figures.status : null,
    },
    ...('figures' in hot ? hot.figures : { streams: null, gaps: null, open_gaps: null }),
    books: 'figures' in health ? health.figures.books : null,
  };
}

function hotText({ streams, gaps, open_gaps }: DatabaseFigures, database: string): string[] {
  const streamTable = textTable(
    ['exchange', 'market_type', 'symbol', 'data_type', 'rows', 'newest', 'age', 'state'],
    streams.map((each) => [
      ...[each.exchange, each.market_type, each.symbol, each.data_type, String(each.rows)],
      ...[new Date(each.newest).toISOString(), ageText(each.age_ms), each.stale ? 'stale' : 'ok'],
    ]),
    4,
  );
  const gapTable = textTable(
    ['exchange', 'market_type', 'symbol', 'data_type', 'open', 'rows', 'filled', 'rows', 'unfillable', 'rows'],
    gaps.map((each) => [
      ...[each.exchange, each.market_type, each.symbol, each.data_type, String(each.open), shown(each.open_rows)],
      ...[String(each.filled), shown(each.filled_rows), String(each.unfillable), shown(each.unfillable_rows)],
    ]),
    4,
  );
  const openTable = textTable(
    ['exchange', 'market_type', 'symbol', 'data_type', 'cause', 'ids', 'times', 'detected', 'rows'],
    open_gaps.map((each) => [
      ...[each.exchange, each.market_type, each.symbol, each.data_type, each.cause, `${each.from_id} … ${each.to_id}`],
      ...[`${each.from_time} … ${each.to_time}`, each.detected_at, shown(each.rows)],
    ]),
    8,
  );
  return [
    streams.length > 0
      ? `${database}: rows that arrived in the last 24 h\n${streamTable}`
      : `${database}: no row arrived in the last 24 h`,
    gaps.length > 0 ? `gaps\n${gapTable}` : 'gaps: none',
    ...(open_gaps.length > 0 ? [`newest open gaps\n${openTable}`] : []),
  ];
}

function booksText({ books }: CollectorFigures): string {
  const rows = Object.entries(books).flatMap(([exchange, types]) =>
    Object.entries(types).flatMap(([market, symbols]) =>
      Object.entries(symbols).map(([symbol, book]) => [
        ...[exchange, market, symbol, shown(book.verified_percent), shown(book.unverifiable_percent)],
        ...[shown(book.clean_percent), String(book.resyncs), book.standing ? 'yes' : 'no'],
      ]),
    ),
  );
  if (rows.length === 0) return 'books: none';
  const head = ['exchange', 'market_type', 'symbol', 'verified %', 'unverifiable %', 'clean %', 'resyncs', 'standing'];
  return `books, shares of the time since each was first seen\n${textTable(head, rows, 3)}`;
}

/** Columns of equal width; the first `left` begin at the left, the others end at the right. */
export function textTable(head: readonly string[], rows: readonly (readonly string[])[], left: number): string {
  const widths = head.map((title, place) => Math.max(title.length, ...rows.map((row) => row[place]!.length)));
  const line = (cells: readonly string[]): string =>
    cells
      .map((cell, place) => (place < left ? cell.padEnd(widths[place]!) : cell.padStart(widths[place]!)))
      .join('  ')
      .trimEnd();
  return [head, ...rows].map(line).join('\n');
}

/** A span as people say it. A venue whose clock is ahead of the database's is told as it is. */
function ageText(ms: number): string {
  const size = Math.abs(ms);
  if (size < 2 * MINUTE_MS) return `${(ms / SECOND_MS).toFixed(1)} s`;
  return size < 2 * HOUR_MS ? `${(ms / MINUTE_MS).toFixed(1)} min` : `${(ms / HOUR_MS).toFixed(1)} h`;
}

function shown(value: number | null): string {
  return value === null ? '–' : String(value);
}

/** A number as the database prints it in text, where `\N` is none. */
function numberOrNull(text: string | undefined): number | null {
  return text === undefined || text === '\\N' ? null : Number(text);
}
