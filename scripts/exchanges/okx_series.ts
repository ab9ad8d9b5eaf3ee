/**
 * How readings of OKX's contracts follow each other, and what the venue still tells of past ones.
 *
 * Sources: OKX API v5 documents of 2026-06 and 2026-07 (funding rate history, trading statistics), and clients that page
 * through them.
 */
import type { History, IdRange, Instrument, ReadingSeries } from '../lib/exchange.ts';
import {
  ALL_ACCOUNT_PATH,
  FUNDING_HISTORY_PATH,
  OPEN_INTEREST_HISTORY_PATH,
  RATIO_PERIOD,
  STATISTICS_PERIOD_MS,
  TOP_POSITION_PATH,
} from './okx_feed.ts';

const MINUTE_MS = 60_000;
/** No contract is settled more often. */
const SHORTEST_FUNDING_MS = 3_600_000;
/** The most rows of one answer; newer clients ask for up to 400 settlements, which older documents do not allow. */
const PAGE = 100;
/**
 * Filling gaps makes 10 requests of weight 1 in 2 s (see the module's budget). In that time the venue allows an address and
 * instrument 10 for funding, 10 for open interest and 5 for each ratio; these weights take half of it, as polls ask, too.
 */
const WEIGHT = 2;
const RATIO_WEIGHT = 4;

/** Settlements of the last three months. The cursor is the time of settlement, and `after` it come the older ones. */
const FUNDING_HISTORY: History = {
  idMember: 'timestamp',
  order: 'descending',
  keeps: 'only the rates that were settled',
  page: ({ instrument }, { from, to }) => {
    const limit = Math.min(PAGE, Math.floor((to - from) / SHORTEST_FUNDING_MS) + 1);
    const query = `instId=${encodeURIComponent(instrument)}&after=${to + 1}&limit=${limit}`;
    return { path: `${FUNDING_HISTORY_PATH}?${query}`, weight: WEIGHT };
  },
};

/**
 * Readings at the beginning of each five minutes. The documents promise the latest 1,440, five days; clients measured two to
 * three.
 */
const OPEN_INTEREST_HISTORY: History = {
  ...statistics(OPEN_INTEREST_HISTORY_PATH, WEIGHT),
  keeps: 'only one reading in five minutes',
};

/** Readings of which a missing one is told. */
export const OKX_READINGS: ReadingSeries[] = [
  {
    type: 'funding_rate',
    stepMs: MINUTE_MS,
    // Pushed each 30 to 90 s: a minute may pass between two.
    quietSteps: 1,
    marketTypes: ['perpetual'],
    history: FUNDING_HISTORY,
  },
  {
    type: 'open_interest',
    stepMs: MINUTE_MS,
    // Told each 3 s, but only when it changed.
    quietSteps: 4,
    // That of an option may rest for hours, so that none can be told to be missing, and the venue serves no past of it.
    marketTypes: ['perpetual', 'futures'],
    history: OPEN_INTEREST_HISTORY,
  },
  ratio('lsr_top_position', TOP_POSITION_PATH),
  ratio('lsr_all_account', ALL_ACCOUNT_PATH),
];

function ratio(type: 'lsr_top_position' | 'lsr_all_account', path: string): ReadingSeries {
  return {
    type,
    stepMs: STATISTICS_PERIOD_MS,
    quietSteps: 0,
    of: { name: 'period', value: RATIO_PERIOD },
    // As far as they are polled.
    marketTypes: ['perpetual'],
    history: statistics(path, RATIO_WEIGHT),
  };
}

/**
 * One of the trading statistics. Its documents call `begin` and `end` what rows are newer and older than, and some clients take
 * them for included; a ms more on both sides has the whole range either way.
 */
function statistics(path: string, weight: number): History {
  return {
    idMember: 'timestamp',
    order: 'descending',
    page: ({ instrument }: Instrument, { from, to }: IdRange) => {
      const bounds = `begin=${from - 1}&end=${to + 1}&limit=${PAGE}`;
      const query = `instId=${encodeURIComponent(instrument)}&period=${RATIO_PERIOD}&${bounds}`;
      return { path: `${path}?${query}`, weight };
    },
  };
}
