/**
 * OKX spot and contracts (swaps, futures, options): endpoints, subscriptions, polls.
 *
 * Sources: OKX API v5 documents of 2026-06 and 2026-07, and recorded frames of 2022 to 2026.
 */
import type { Channel, Connection, ExchangeModule, History, Instrument, Poll } from '../lib/exchange.ts';
import type { DataType } from '../lib/rows.ts';
import {
  ALL_ACCOUNT_PATH,
  HISTORY_TRADES_PATH,
  INSTRUMENTS_PATH,
  OkxFeed,
  RATIO_PERIOD,
  STATISTICS_PERIOD_MS,
  TOP_POSITION_PATH,
} from './okx_feed.ts';
import { OKX_READINGS } from './okx_series.ts';
import { INST_TYPES, okxInstrument } from './okx_units.ts';

/** The venue advises fewer than 30 deep books a connection; 20 can be renewed within its 480 subscribes an hour. */
const BOOKS_PER_CONNECTION = 20;
const CHANNELS_PER_CONNECTION = 100;
/** About 80 bytes each, of the 64 KB that a message may have. */
const CHANNELS_PER_MESSAGE = 100;
/** The venue closes a socket that was silent for 30 s; a ping is answered at once, so a healthy one never is. */
const PING_EVERY_MS = 20_000;
const SILENCE_LIMIT_MS = 35_000;
/** The most past trades that one answer has. */
const HISTORY_PAGE = 100;
/** 30 s after each period of five minutes, when the venue has published it. */
const RATIO_CRON = '30 */5 * * * *';

/**
 * Single fills, with the ids of `trades-all`, of the last three months. Type 1 is the cursor by id, and `after` it come the
 * older ones, newest first. The other cursor, `before`, answers the newest trades of all, not those next to it.
 */
const TRADE_HISTORY: History = {
  idMember: 'trade_id',
  order: 'descending',
  page: ({ instrument }, { from, to }) => {
    const limit = Math.min(HISTORY_PAGE, to - from + 1);
    const query = `instId=${encodeURIComponent(instrument)}&type=1&after=${to + 1}&limit=${limit}`;
    return { path: `${HISTORY_TRADES_PATH}?${query}`, weight: 1 };
  },
};

/**
 * What both modules share. OKX has no weights but a limit per endpoint, of 5 (ratios, per instrument), 10 or 20 requests in
 * 2 s, and tells no use in a header. Each request counts as 1, one for past readings as more. As only half of a budget is ever used, and half of that for filling
 * gaps, 1200 a minute is 20 in 2 s over all endpoints together, and 10 for the trade history, of the 20 that it allows itself.
 */
const COMMON = {
  hosts: { ws: 'wss://ws.okx.com:8443', rest: 'https://www.okx.com' },
  subscribe: (channels: Channel[], firstId: number) => controlMessages('subscribe', channels, firstId),
  unsubscribe: (channels: Channel[], firstId: number) => controlMessages('unsubscribe', channels, firstId),
  ping: { text: 'ping', everyMs: PING_EVERY_MS },
  tradeHistory: TRADE_HISTORY,
  messagesPerSecond: 3,
  subscribesPerHour: 480,
  // Three are allowed.
  connectsPerSecond: 2,
  restWeightPerMinute: 1200,
  restWeightHeader: '',
  silenceLimitMs: SILENCE_LIMIT_MS,
} satisfies Partial<ExchangeModule>;

export const okxSpot: ExchangeModule = {
  ...COMMON,
  exchange: 'okx_spot',
  marketTypes: ['spot'],
  instrument: (symbol) => okxInstrument('okx_spot', symbol),
  instrumentOf: (id) => okxInstrument('okx_spot', id),
  connections,
  createFeed: (options) => new OkxFeed('okx_spot', options),
};

export const okxDerivatives: ExchangeModule = {
  ...COMMON,
  exchange: 'okx_derivatives',
  // Futures and options are named by the venue's own ids, not by pairs.
  marketTypes: ['perpetual'],
  instrument: (symbol, marketType) =>
    okxInstrument('okx_derivatives', marketType === 'perpetual' ? `${symbol}-SWAP` : symbol),
  instrumentOf: (id) => okxInstrument('okx_derivatives', id),
  connections,
  instrumentLists: ['SWAP', 'FUTURES'].map((type) => ({ path: `${INSTRUMENTS_PATH}?instType=${type}`, weight: 1 })),
  polls: (instruments) => instruments.filter((each) => each.market_type === 'perpetual').flatMap(ratioPolls),
  readings: OKX_READINGS,
  besideLiquidations: 'orderbook_update',
  createFeed: (options) => new OkxFeed('okx_derivatives', options),
};

function ratioPolls(instrument: Instrument): Poll[] {
  const query = `?instId=${encodeURIComponent(instrument.instrument)}&period=${RATIO_PERIOD}`;
  const poll = (type: DataType, path: string) => ({
    type,
    instrument,
    // Whether the newest period's value is final is not documented: only periods that are over on either reading of their time.
    path: (now: number) =>
      `${path}${query}&end=${Math.floor(now / STATISTICS_PERIOD_MS) * STATISTICS_PERIOD_MS - STATISTICS_PERIOD_MS + 1}`,
    weight: 1,
    cron: RATIO_CRON,
  });
  return [poll('lsr_top_position', TOP_POSITION_PATH), poll('lsr_all_account', ALL_ACCOUNT_PATH)];
}

/**
 * `trades-all` tells single fills, the rows that REST answers too. `trades` merges fills under the last one's id, so rows of
 * both under one key would count twice: it is understood, and not subscribed.
 */
function connections(instruments: Instrument[]): Connection[] {
  const fills = instruments.map((each) => channel(each, 'trades-all', ['trade']));
  const parts = chunks(instruments, BOOKS_PER_CONNECTION).map((part, index) => [
    ...part.flatMap(publicChannels),
    ...(index === 0 ? liquidationChannels(instruments) : []),
  ]);
  return [
    ...chunks(fills, CHANNELS_PER_CONNECTION).map((channels) => ({ path: '/ws/v5/business', channels })),
    ...parts.map((channels) => ({ path: '/ws/v5/public', channels })),
  ];
}

function publicChannels(instrument: Instrument): Channel[] {
  const out = [channel(instrument, 'books', ['orderbook', 'orderbook_update'])];
  if (instrument.market_type === 'perpetual') out.push(channel(instrument, 'funding-rate', ['funding_rate']));
  if (instrument.market_type !== 'spot') out.push(channel(instrument, 'open-interest', ['open_interest']));
  return out;
}

/** Liquidations are subscribed by type of instrument: one name, under which each instrument has its stream. */
function liquidationChannels(instruments: Instrument[]): Channel[] {
  return instruments
    .filter((each) => each.market_type === 'perpetual' || each.market_type === 'futures')
    .map((instrument) => ({
      name: `liquidation-orders:${INST_TYPES[instrument.market_type]}`,
      types: ['liquidation'],
      instrument,
    }));
}

function channel(instrument: Instrument, name: string, types: DataType[]): Channel {
  return { name: `${name}:${instrument.instrument}`, types, instrument };
}

function controlMessages(op: string, channels: Channel[], firstId: number): { id: number; text: string }[] {
  const names = [...new Set(channels.map((each) => each.name))];
  return chunks(names, CHANNELS_PER_MESSAGE).map((part, index) => {
    const id = firstId + index;
    return { id, text: JSON.stringify({ id: String(id), op, args: part.map(channelArgument) }) };
  });
}

function channelArgument(name: string): Record<string, string> {
  const [channelName, subject] = name.split(':', 2) as [string, string];
  return { channel: channelName, [channelName === 'liquidation-orders' ? 'instType' : 'instId']: subject };
}

function chunks<T>(items: T[], size: number): T[][] {
  return Array.from({ length: Math.ceil(items.length / size) }, (_, index) =>
    items.slice(index * size, (index + 1) * size),
  );
}
