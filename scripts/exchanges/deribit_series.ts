/**
 * Deribit's readings: how they follow each other, and how their past is asked for.
 *
 * Source: the venue's API 2.1.1 documents of 2026-08; what those leave open, from what ccxt met (its pull requests 20876 and 25008).
 */
import type { History, ReadingSeries } from '../lib/exchange.ts';

const MINUTE_MS = 60_000;
const DAY_MS = 24 * 3_600_000;
/** Length of the candles that are kept, as requests and rows name it. */
const CANDLE_SECONDS = 60;
export const CANDLE_MS = CANDLE_SECONDS * 1000;
/** An answer holds 1000. Of a longer range it has the newest part, which asking in ascending order could not go on from. */
export const CANDLES_PER_REQUEST = 900;
/** Of more than a month, an answer has a part only. */
const FUNDING_SPAN_MS = 30 * DAY_MS;

/** The request for candles of a coin's index. @param end ms; the last candle must be over by then, or the feed leaves it for later */
export function candlePath(coin: string, start: number, end: number): string {
  const span = `start_timestamp=${start}&end_timestamp=${end}&resolution=${CANDLE_SECONDS}`;
  return `/api/v2/public/get_volatility_index_data?currency=${encodeURIComponent(coin)}&${span}`;
}

/** The venue leaves out a rate at `start_timestamp` itself; whether also one at the end is not documented. */
const FUNDING_HISTORY: History = {
  idMember: 'timestamp',
  order: 'ascending',
  keeps: 'only one rate in an hour',
  page: ({ instrument: id }, { from, to }) => {
    const span = `start_timestamp=${from - 1}&end_timestamp=${Math.min(to, from + FUNDING_SPAN_MS) + 1}`;
    const name = encodeURIComponent(id);
    return { path: `/api/v2/public/get_funding_rate_history?instrument_name=${name}&${span}`, weight: 1 };
  },
};

/** Ids are the candles' beginnings. Whether one that begins at `start_timestamp` itself is told is not documented. */
const CANDLE_HISTORY: History = {
  idMember: 'timestamp',
  order: 'ascending',
  page: ({ symbol: coin }, { from, to }) => {
    const first = Math.ceil(from / CANDLE_MS) * CANDLE_MS;
    const end = Math.min(Math.floor(to / CANDLE_MS) + 1, first / CANDLE_MS + CANDLES_PER_REQUEST) * CANDLE_MS;
    return { path: candlePath(coin, first - 1, end), weight: 1 };
  },
};

/** The index is told once a second too, under a resolution of its own; its candles hold all of that. */
export const READINGS: ReadingSeries[] = [
  {
    type: 'funding_rate',
    stepMs: MINUTE_MS,
    quietSteps: 0,
    marketTypes: ['perpetual'],
    history: FUNDING_HISTORY,
  },
  // Options that nobody trades are told of seldom.
  { type: 'open_interest', stepMs: MINUTE_MS, quietSteps: 1 },
  {
    type: 'volatility_index',
    stepMs: CANDLE_MS,
    quietSteps: 0,
    of: { name: 'resolution', value: String(CANDLE_SECONDS) },
    marketTypes: ['options'],
    history: CANDLE_HISTORY,
  },
];
