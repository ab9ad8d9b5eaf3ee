/**
 * What USDⓈ-M tells of its readings' past over REST: settled funding rates, open interest, long/short ratios.
 *
 * Sources: USDⓈ-M API documents and error codes of 2026. Answered by the venue and found in no document: how it refuses a
 * startTime beyond its reach, and that a range which is too long for /futures/data gives its newest rows, not its oldest.
 */
import type { PerpetualPair } from './binance_perpetual.ts';
import { fault, ofSymbol, ok, product8 } from './binance_rest.ts';
import { type RatioKind, SETTLEMENT_LAG_MS, type Settlement } from './perpetual.ts';
import type { RestAnswer } from './venue.ts';

const MINUTE_MS = 60_000;
const HOUR_MS = 60 * MINUTE_MS;
const DAY_MS = 24 * HOUR_MS;

/** A row of /futures/data appears this long after its timestamp, and is kept this long. */
const DATA_DELAY_MS = 10_000;
const DATA_AGE_MS = 30 * DAY_MS;
const DATA_LIMIT = { usual: 30, most: 500 };
const PERIODS: Readonly<Record<string, number>> = {
  '5m': 5 * MINUTE_MS,
  '15m': 15 * MINUTE_MS,
  '30m': 30 * MINUTE_MS,
  '1h': HOUR_MS,
  '2h': 2 * HOUR_MS,
  '4h': 4 * HOUR_MS,
  '6h': 6 * HOUR_MS,
  '12h': 12 * HOUR_MS,
  '1d': DAY_MS,
};
/** The venue knows settlements from its first day on; a simulated market has no first day. */
const SETTLED_AGE_MS = 91 * DAY_MS;
const SETTLED_LIMIT = { usual: 100, most: 1000 };
/** Coins of a base in circulation: from elsewhere than the market, and so the same at any time. */
const CIRCULATING = '165880.538';

/** What /futures/data says to a request that it does not understand, with HTTP 200. */
const ILLEGAL: RestAnswer = ok(
  '{"status":"ERROR","type":"GENERAL","code":"99099990","errorData":"illegal params.","data":null,"subData":null,"params":null}',
);
const TOO_OLD = fault(-1130, "parameter 'startTime' is invalid.");
const BACKWARDS = fault(-1023, 'Start time is greater than end time.');

/** The rows that a request to /futures/data is about: of which symbol, and their times in ms, oldest first. */
export interface AskedPeriods {
  readonly symbol: string;
  readonly times: readonly number[];
}

/** Reads a request to /futures/data, or tells what is wrong with it. */
export function periodsOf(query: URLSearchParams, now: number): AskedPeriods | RestAnswer {
  const symbol = query.get('symbol');
  const period = PERIODS[query.get('period') ?? ''];
  const limit = wholeOf(query, 'limit') ?? DATA_LIMIT.usual;
  const kept = now - DATA_AGE_MS;
  const [from, to] = [wholeOf(query, 'startTime') ?? kept, wholeOf(query, 'endTime') ?? now];
  const isLegal = limit > 0 && from >= 0 && to >= 0;
  if (period === undefined || !isLegal || !symbol) return ILLEGAL;
  if (from < kept) return TOO_OLD;
  if (from > to && from > kept) return BACKWARDS;
  const last = Math.floor(Math.min(to, now - DATA_DELAY_MS) / period) * period;
  const oldest = Math.max(from, last - (Math.min(limit, DATA_LIMIT.most) - 1) * period);
  const times: number[] = [];
  for (let at = Math.ceil(oldest / period) * period; at <= last; at += period) times.push(at);
  return { symbol, times };
}

export function ratioRow({ listed, perpetual }: PerpetualPair, kind: RatioKind, at: number): string {
  const { long, short, ratio } = perpetual.ratio(kind, at);
  return `{"symbol":"${listed.instrument}","longAccount":"${long}","longShortRatio":"${ratio}","shortAccount":"${short}","timestamp":${at}}`;
}

/** The open interest that was told live at that time, with eight decimals, and what it was worth at the mark price. */
export function interestRow({ listed, perpetual }: PerpetualPair, at: number): string {
  const interest = perpetual.openInterest(at);
  return (
    `{"symbol":"${listed.instrument}","sumOpenInterest":"${product8(interest, '1')}",` +
    `"sumOpenInterestValue":"${product8(interest, perpetual.mark(at).mark)}","CMCCirculatingSupply":"${CIRCULATING}","timestamp":${at}}`
  );
}

/** Settled rates of one symbol or of all, oldest first: the first ones from `startTime` on, without it the newest. */
export function settledRates(query: URLSearchParams, now: number, pairs: readonly PerpetualPair[]): RestAnswer {
  for (const name of ['startTime', 'endTime', 'limit']) {
    if (!Number.isNaN(wholeOf(query, name))) continue;
    return fault(-1102, `Mandatory parameter '${name}' was not sent, was empty/null, or malformed.`);
  }
  const start = wholeOf(query, 'startTime');
  const end = wholeOf(query, 'endTime') ?? now;
  const limit = wholeOf(query, 'limit') ?? SETTLED_LIMIT.usual;
  if (limit === 0) return fault(-1130, "Data sent for parameter 'limit' is not valid.");
  if (start !== undefined && start > end) return BACKWARDS;
  const from = Math.max(start ?? 0, now - SETTLED_AGE_MS);
  const to = Math.min(end, now - SETTLEMENT_LAG_MS);
  const answer = (asked: readonly PerpetualPair[]): RestAnswer => {
    const all = asked
      .flatMap(({ listed, perpetual }) =>
        [...perpetual.settlements(from, to)].map((settlement) => ({ settlement, name: listed.instrument })),
      )
      .sort((one, other) => one.settlement.time - other.settlement.time);
    const most = Math.min(limit, SETTLED_LIMIT.most);
    const rows = start === undefined ? all.slice(-most) : all.slice(0, most);
    return ok(`[${rows.map(({ settlement, name }) => settledRow(name, settlement)).join(',')}]`);
  };
  if (!query.has('symbol')) return answer(pairs);
  return ofSymbol(
    query,
    (symbol) => pairs.find(({ listed }) => listed.instrument === symbol),
    (pair) => answer([pair]),
  );
}

function settledRow(instrument: string, { time, rate, mark }: Settlement): string {
  return `{"symbol":"${instrument}","fundingRate":"${rate}","fundingTime":${time},"markPrice":"${mark}","rateType":"Regular"}`;
}

/** A parameter that counts something: undefined when it was not sent, NaN when it is no whole number from 0 on. */
function wholeOf(query: URLSearchParams, name: string): number | undefined {
  const text = query.get(name);
  if (text === null) return undefined;
  return /^\d+$/.test(text) ? Number(text) : Number.NaN;
}
