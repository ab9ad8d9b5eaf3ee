/**
 * How the readings of Binance USDⓈ-M follow each other, and what the venue still tells of their past.
 *
 * Source: USDⓈ-M API documents of 2026. Its limits of requests (fundingRate 500 in five minutes, /futures/data 1000) are apart from
 * the budget of weight, in which these requests count nothing; 1 each keeps them few all the same.
 */
import type { History, IdRange, Instrument, ReadingSeries } from '../lib/exchange.ts';
import { ALL_ACCOUNT, PAST_OPEN_INTEREST, SETTLED_RATES, TOP_POSITION } from './binance_readings.ts';

const MINUTE_MS = 60_000;
const FIVE_MINUTES_MS = 5 * MINUTE_MS;
/** No symbol settles more often. */
const SETTLEMENT_MS = 60 * MINUTE_MS;
const WEIGHT = 1;
/** The most rows that one answer has. */
const SETTLED_PAGE = 1000;
const DATA_PAGE = 500;

/** Rows that are at least `stepMs` apart, by their time. */
function byTime(path: string, stepMs: number, limit: number, parameters = ''): History {
  return {
    idMember: 'timestamp',
    order: 'ascending',
    page: ({ instrument }: Instrument, { from, to }: IdRange) => {
      // /futures/data gives the newest rows of a range that has too many. So no range has: both its ends are included.
      const end = Math.min(to, from + limit * stepMs - 1);
      const symbol = encodeURIComponent(instrument);
      return {
        path: `${path}?symbol=${symbol}${parameters}&limit=${limit}&startTime=${from}&endTime=${end}`,
        weight: WEIGHT,
      };
    },
  };
}

/** Of the last 30 days; an older startTime is refused as a whole, with HTTP 400 and code -1130. */
function fiveMinutely(path: string): History {
  return byTime(path, FIVE_MINUTES_MS, DATA_PAGE, '&period=5m');
}

function ratioSeries(type: 'lsr_top_position' | 'lsr_all_account', path: string): ReadingSeries {
  return {
    type,
    stepMs: FIVE_MINUTES_MS,
    quietSteps: 0,
    of: { name: 'period', value: '5m' },
    // Whether dated contracts have any is said nowhere.
    marketTypes: ['perpetual'],
    history: fiveMinutely(path),
  };
}

export const BINANCE_SERIES: ReadingSeries[] = [
  {
    type: 'funding_rate',
    stepMs: MINUTE_MS,
    // markPrice@1s: each minute has some.
    quietSteps: 0,
    // Dated contracts have mark prices and no funding.
    marketTypes: ['perpetual'],
    history: {
      ...byTime(SETTLED_RATES, SETTLEMENT_MS, SETTLED_PAGE),
      keeps: 'only the rates that were settled',
    },
  },
  {
    type: 'open_interest',
    stepMs: MINUTE_MS,
    // Asked for each minute, and told with the venue's own time, which may step over one.
    quietSteps: 1,
    history: { ...fiveMinutely(PAST_OPEN_INTEREST), keeps: 'only one reading in five minutes' },
  },
  ratioSeries('lsr_top_position', TOP_POSITION),
  ratioSeries('lsr_all_account', ALL_ACCOUNT),
];
