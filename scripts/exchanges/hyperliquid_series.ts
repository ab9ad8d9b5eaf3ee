/**
 * Hyperliquid's readings: how they follow each other, and how their past is asked for.
 *
 * Source: the venue's API documents and the nktkas SDK of 2026-08.
 */
import type { History, ReadingSeries } from '../lib/exchange.ts';

const MINUTE_MS = 60_000;
const HOUR_MS = 60 * MINUTE_MS;
/** The most rates in an answer. Of a longer range it has the oldest ones. */
const FUNDING_ROWS = 500;
const FUNDING_WEIGHT = 20;
/** So many rows weigh one more. */
const ROWS_PER_WEIGHT = 20;

/** Rates are settled once an hour, a part of a second after it; both ends of a range are included. */
const FUNDING_HISTORY: History = {
  idMember: 'timestamp',
  order: 'ascending',
  keeps: 'only the rates that were settled',
  page: ({ instrument: coin }, { from, to }) => {
    // One more than there are hours, as both ends may lie on one.
    const rows = Math.min(FUNDING_ROWS, Math.ceil((to - from) / HOUR_MS) + 1);
    return {
      path: `/info?type=fundingHistory&coin=${encodeURIComponent(coin)}&startTime=${from}&endTime=${to}`,
      weight: FUNDING_WEIGHT + Math.ceil(rows / ROWS_PER_WEIGHT),
    };
  },
};

/** Contexts are told when they change, so that a quiet minute is none that is missing. */
export const READINGS: ReadingSeries[] = [
  {
    type: 'funding_rate',
    stepMs: MINUTE_MS,
    quietSteps: 1,
    marketTypes: ['perpetual'],
    history: FUNDING_HISTORY,
  },
  { type: 'open_interest', stepMs: MINUTE_MS, quietSteps: 1 },
];
