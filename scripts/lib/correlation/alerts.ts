/**
 * Anomalies that stand: each coin's begins once and ends once, however many rounds see it.
 *
 * Nothing that is missing ends one: a coin of which a row that spoke when it began does not speak now stands on, and it is said which
 * rows are awaited. Rows that are not asked for any more are not awaited.
 */
import { z } from 'zod';
import type { Severity } from '../checks/check.ts';
import type { Language } from '../config.ts';
import { type CorrelationRow, inOrder, type Judgement, nameOf } from './rule.ts';

export const RULE_VERSION = 1;
const SEVERITY: Severity = 'medium';

const figure = z.number().nullable();
const SHOWN_ROW = z.object({ corr: figure, timeframe: z.string(), period: z.string(), lag: figure, p_value: figure });

/** A line of `correlation_alerts.jsonl`. */
export const CORRELATION_ALERT = z.object({
  /** The same for the same event, however often it is written or posted. */
  id: z.string(),
  event: z.enum(['begin', 'end']),
  /** Exchange, coin and rule: the same while the anomaly stands. */
  fingerprint: z.string(),
  exchange: z.string(),
  symbol: z.string(),
  coin: z.string(),
  /** Start of the newest candle that it stands on, ms. */
  timestamp: z.number(),
  /** Of the begin; a begin is its own. */
  since: z.number(),
  long: figure,
  short: figure,
  diff: figure,
  /** `gone`: it ended because the coin is traded no more. */
  reason: z.enum(['rule', 'gone']),
  rows: z.array(SHOWN_ROW),
  rule_version: z.number(),
});
export type CorrelationAlert = z.infer<typeof CORRELATION_ALERT>;

/** Anomalies by coin. */
export const STANDING = z.record(
  z.string(),
  z.object({
    since: z.number(),
    /** Rows that spoke when it began. */
    spoke: z.array(z.string()),
    long: figure,
    short: figure,
    /** Rows without which it cannot end, as seen last; empty: none is missing. */
    awaits: z.array(z.string()),
  }),
);
export type Standing = z.infer<typeof STANDING>;

export interface Listing {
  exchange: string;
  coin: string;
  symbol: string;
}

/**
 * What one coin's round means. @param asked rows that are computed at all, as `5m 1d`
 * @returns what stands then, and the event if there is one
 */
export function follow(
  standing: Standing,
  listing: Listing,
  rows: readonly CorrelationRow[],
  judged: Judgement,
  asked: readonly string[],
): { standing: Standing; event: CorrelationAlert | null } {
  const { coin } = listing;
  const { long, short, spoke } = judged;
  const timestamp = Math.max(...rows.map((row) => row.timestamp));
  const before = standing[coin];
  if (judged.verdict === 'anomaly') {
    const now = { since: before?.since ?? timestamp, spoke: before?.spoke ?? spoke, long, short, awaits: [] };
    const event = before === undefined ? eventOf('begin', listing, timestamp, timestamp, rows, judged) : null;
    return { standing: { ...standing, [coin]: now }, event };
  }
  if (before === undefined) return { standing, event: null };
  const awaits = before.spoke.filter((name) => asked.includes(name) && !spoke.includes(name));
  if (judged.verdict === 'unknown' || awaits.length > 0) {
    const now = { ...before, awaits: awaits.length > 0 ? awaits : asked.filter((name) => !spoke.includes(name)) };
    return { standing: { ...standing, [coin]: now }, event: null };
  }
  return { standing: without(standing, coin), event: eventOf('end', listing, timestamp, before.since, rows, judged) };
}

/** A coin that is traded no more has no anomaly. @param timestamp of the newest candle of BTC, ms */
export function leave(
  standing: Standing,
  listing: Listing,
  timestamp: number,
): { standing: Standing; event: CorrelationAlert | null } {
  const before = standing[listing.coin];
  if (before === undefined) return { standing, event: null };
  const event = eventOf('end', listing, timestamp, before.since, [], { ...NOTHING, verdict: 'unknown' });
  return { standing: without(standing, listing.coin), event: { ...event, reason: 'gone' } };
}

/** What an event of the file does to what stands. */
export function replay(standing: Standing, event: CorrelationAlert): Standing {
  const { coin, since, long, short, rows } = event;
  if (event.event === 'end') return without(standing, coin);
  const spoke = rows.filter(({ corr }) => corr !== null).map(({ timeframe, period }) => `${timeframe} ${period}`);
  return { ...standing, [coin]: { since, spoke, long, short, awaits: [] } };
}

const NOTHING = { long: null, short: null, lags: false, spoke: [] };

function eventOf(
  event: CorrelationAlert['event'],
  { exchange, coin, symbol }: Listing,
  timestamp: number,
  since: number,
  rows: readonly CorrelationRow[],
  { long, short }: Judgement,
): CorrelationAlert {
  return {
    // An end is named after its begin: each begin has one.
    id: `${event === 'begin' ? 'BEGIN' : 'END'}-${exchange}-${coin}-${since}`,
    event,
    fingerprint: `${exchange} ${coin} correlation`,
    ...{ exchange, symbol, coin, timestamp, since, long, short },
    diff: long === null || short === null ? null : long - short,
    reason: 'rule',
    rows: inOrder(rows).map((row) => ({
      ...{ corr: row.corr, timeframe: row.timeframe, period: row.period, lag: row.lag, p_value: row.p_value },
    })),
    rule_version: RULE_VERSION,
  };
}

function without(standing: Standing, coin: string): Standing {
  return Object.fromEntries(Object.entries(standing).filter(([name]) => name !== coin));
}

const WORDS = {
  en: {
    begin: 'correlation anomaly',
    end: 'correlation as usual again',
    gone: 'traded no more, its correlation anomaly ends',
    exchange: 'exchange',
    coin: 'coin',
    columns: ['corr', 'timeframe', 'period', 'lag'],
    diff: 'diff',
    since: 'since',
    zone: 'UTC',
  },
  zh: {
    begin: '相关性异常',
    end: '相关性恢复正常',
    gone: '已停止交易，相关性异常结束',
    exchange: '交易所',
    coin: '币种',
    columns: ['相关系数', '时间周期', '数据周期', '延迟'],
    diff: '差值',
    since: '始于',
    zone: 'UTC',
  },
} as const;

/** An alert as people are told of it: exchange, coin, a table, and the difference. */
export function messageOf(event: CorrelationAlert, language: Language) {
  const words = WORDS[language];
  const what = event.reason === 'gone' ? words.gone : words[event.event];
  const lines = event.rows
    .filter(({ corr }) => corr !== null)
    .map(({ corr, timeframe, period, lag }) => [corr!.toFixed(4), timeframe, period, String(lag)]);
  const text = [
    `${words.exchange}: ${event.exchange}`,
    `${words.coin}: ${event.symbol}`,
    ...(lines.length === 0 ? [] : textTable([[...words.columns], ...lines])),
    ...(event.diff === null ? [] : [`${words.diff}: ${event.diff.toFixed(4)}`]),
    `${words.since} ${new Date(event.since).toISOString().slice(0, 16).replace('T', ' ')} ${words.zone}`,
  ].join('\n');
  return { id: `correlation/${event.id}`, title: `${event.coin} ${what}`, text, severity: SEVERITY };
}

/** Columns of one width each, two blanks apart. */
export function textTable(rows: readonly (readonly string[])[]): string[] {
  const widths = (rows[0] ?? []).map((_, column) => Math.max(...rows.map((row) => row[column]!.length)));
  return rows.map((row) => row.map((cell, column) => cell.padStart(widths[column]!)).join('  '));
}

/** Rows that a choice of timeframes and periods has, as `5m 1d`. */
export function askedRows(
  timeframes: readonly CorrelationRow['timeframe'][],
  periods: readonly CorrelationRow['period'][],
) {
  return timeframes.flatMap((timeframe) => periods.map((period) => nameOf({ timeframe, period })));
}
