/**
 * Deribit: perpetuals, dated futures, options, and the volatility indexes: endpoints, subscriptions, frames to rows.
 *
 * Source: the venue's API 2.1.1 documents of 2026-08. All quantities become base units here: inverse contracts are counted in
 * USD by the venue, so their base amount is amount ÷ price; linear ones and options are counted in the base coin.
 */

import type { Channel, Connection, ExchangeModule, History, Instrument, Poll } from '../lib/exchange.ts';
import type { MarketType } from '../lib/rows.ts';
import { contractOf, EXCHANGE, isIndex, isLeveraged, volatilityIndex } from './deribit_contracts.ts';
import { call, DeribitFeed } from './deribit_feed.ts';
import { CANDLE_MS, CANDLES_PER_REQUEST, candlePath, READINGS } from './deribit_series.ts';

const SOCKET_PATH = '/ws/api/v2';
/** No limit is documented; others were seen to ask for 100 at a time. */
const CHANNELS_PER_MESSAGE = 100;
const CHANNELS_PER_CONNECTION = 400;
/** The venue tests the connection this often (at least 10 s) and closes it when the test is not answered. */
const HEARTBEAT_SECONDS = 20;
/** Coins whose perpetual counts in USD; all others have only the one against USDC. */
const INVERSE_COINS = ['BTC', 'ETH'];
/** Coins with a volatility index. */
const VOLATILITY_COINS = ['BTC', 'ETH'];
/** A candle of a minute is asked for when it is over; the ones before it too, for what an earlier round missed. */
const CANDLES_BACK = 10;
const CANDLE_CRON = '5 * * * * *';
/** The most past trades that one answer has. */
const HISTORY_PAGE = 1000;

/**
 * Trades by `trade_seq`, which counts per instrument; trade ids count per coin. The host keeps them for about 24 hours: of an
 * older range it answers an empty list and no error.
 */
const TRADE_HISTORY: History = {
  idMember: 'sequence',
  order: 'ascending',
  page: ({ instrument: id }, { from, to }) => {
    const range = `start_seq=${from}&end_seq=${to}&count=${Math.min(HISTORY_PAGE, to - from + 1)}&sorting=asc`;
    const name = encodeURIComponent(id);
    return { path: `/api/v2/public/get_last_trades_by_instrument?instrument_name=${name}&${range}`, weight: 1 };
  },
};

export const deribitDerivatives: ExchangeModule = {
  exchange: EXCHANGE,
  marketTypes: ['perpetual'],
  hosts: { ws: 'wss://www.deribit.com', rest: 'https://www.deribit.com' },
  instrument,
  instrumentOf,
  connections,
  subscribe: (channels, firstId) => [
    call('set_heartbeat', { interval: HEARTBEAT_SECONDS }, firstId),
    ...channelCalls('subscribe', channels, firstId + 1),
  ],
  unsubscribe: (channels, firstId) => channelCalls('unsubscribe', channels, firstId),
  instrumentLists: [
    { path: '/api/v2/public/get_instruments?currency=any&kind=future&expired=false', weight: 1, optional: true },
  ],
  polls: (instruments) => volatilityIndexes(instruments).map(candlePoll),
  tradeHistory: TRADE_HISTORY,
  readings: READINGS,
  createFeed: (options) => new DeribitFeed(options),
  // A subscription costs 3000 of 30,000 credits, which come back at 10,000 a second.
  messagesPerSecond: 3,
  connectsPerSecond: 2,
  limits: { connections: 32, subscriptions: Number.POSITIVE_INFINITY },
  // Counted in requests: what the venue allows without a login is not published; 10 a second is known to be served.
  restWeightPerMinute: 600,
  restWeightHeader: '',
  silenceLimitMs: 3 * HEARTBEAT_SECONDS * 1000,
};

/** The venue's instrument for a pair; where it has the base only against another quote, that one. */
function instrument(symbol: string, marketType: MarketType): Instrument {
  const [base, quote] = symbol.split('-') as [string, string | undefined];
  if (marketType === 'options' && (quote === undefined || /^[A-Z]+$/.test(quote))) return volatilityIndex(base);
  if (marketType === 'spot') return { exchange: EXCHANGE, market_type: 'spot', symbol, instrument: `${base}_${quote}` };
  if (marketType !== 'perpetual') return { exchange: EXCHANGE, market_type: marketType, symbol, instrument: symbol };
  const inverse = INVERSE_COINS.includes(base) && quote !== 'USDC';
  return {
    exchange: EXCHANGE,
    market_type: 'perpetual',
    symbol: inverse ? `${base}-USD` : `${base}-USDC`,
    instrument: inverse ? `${base}-PERPETUAL` : `${base}_USDC-PERPETUAL`,
  };
}

function instrumentOf(id: string): Instrument {
  const { marketType, symbol } = contractOf(id);
  return { exchange: EXCHANGE, market_type: marketType, symbol, instrument: id };
}

function connections(instruments: Instrument[]): Connection[] {
  const channels = [
    ...instruments.filter((each) => !isIndex(each)).flatMap(marketChannels),
    ...volatilityIndexes(instruments).map(indexChannel),
  ];
  return chunks(channels, CHANNELS_PER_CONNECTION).map((part) => ({ path: SOCKET_PATH, channels: part }));
}

/** The indexes of the coins that are asked for. */
function volatilityIndexes(instruments: Instrument[]): Instrument[] {
  const coins = new Set(instruments.map((each) => each.symbol.split('-')[0]!));
  return VOLATILITY_COINS.filter((coin) => coins.has(coin)).map(volatilityIndex);
}

function candlePoll(index: Instrument): Poll {
  // At a start, for the time in which nobody asked: nearly what one answer holds.
  let count = CANDLES_PER_REQUEST;
  const path = (now: number): string => {
    const end = Math.floor(now / CANDLE_MS) * CANDLE_MS;
    const start = end - count * CANDLE_MS;
    count = CANDLES_BACK;
    return candlePath(index.symbol, start, end);
  };
  return { type: 'volatility_index', instrument: index, path, weight: 1, cron: CANDLE_CRON };
}

/** `.100ms` is the finest that needs no login; one `.raw` channel would fail its whole request. */
function marketChannels(instrument: Instrument): Channel[] {
  const id = instrument.instrument;
  const readings: Channel['types'] = ['open_interest'];
  if (instrument.market_type === 'perpetual') readings.unshift('funding_rate');
  const hasLiquidations = isLeveraged(instrument.market_type);
  return [
    { name: `trades.${id}.100ms`, types: hasLiquidations ? ['trade', 'liquidation'] : ['trade'], instrument },
    { name: `book.${id}.100ms`, types: ['orderbook', 'orderbook_update'], instrument },
    { name: `ticker.${id}.100ms`, types: readings, instrument },
  ];
}

function indexChannel(index: Instrument): Channel {
  return { name: `deribit_volatility_index.${index.instrument}`, types: ['volatility_index'], instrument: index };
}

function channelCalls(method: string, channels: Channel[], firstId: number): { id: number; text: string }[] {
  return chunks(channels, CHANNELS_PER_MESSAGE).map((part, index) =>
    call(method, { channels: part.map((each) => each.name) }, firstId + index),
  );
}

function chunks<T>(items: T[], size: number): T[][] {
  return Array.from({ length: Math.ceil(items.length / size) }, (_, index) =>
    items.slice(index * size, (index + 1) * size),
  );
}
