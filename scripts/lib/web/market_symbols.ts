/**
 * `/api/market/symbols`: which symbols the database has, and each one's last trade.
 *
 * Cost: rows are never counted through. The next name of a market is found in the tables' own order, which reads one block of rows (8192) a part,
 * however many are stored; all markets are asked for their next one in one query. So it takes about as many queries as the market with the most
 * symbols has symbols, and one per fifty streams for the last trades.
 */
import { z } from 'zod';
import { TRADES } from '../gap_finder.ts';
import { type DataType, EXCHANGES, TABLES } from '../rows.ts';
import { Kept } from './kept.ts';
import { MarketDatabase, type MarketQuery, type Source } from './market_database.ts';
import { timeOf } from './market_lists.ts';
import type { WebContext } from './route.ts';

/** A symbol that has neither shows nothing on the page of a market. */
const TYPES: readonly DataType[] = ['trade', 'orderbook'];
/** Of one market of one exchange; beyond it, it is said that there are more. */
const MOST_SYMBOLS = 500;
/** Parts that one query is made of: more of them cost more to plan than to run. */
const STREAMS_PER_QUERY = 50;
/** Names are looked for again after this, ms: a new one comes by a new configuration, and not by itself. */
const NAMES_FRESH_MS = 30_000;
/** Names that are older are not told any more before it was looked again, ms. */
const NAMES_KEPT_MS = 600_000;
/** Last trades, each with its time, are told at once for a little longer than the pages need to ask again, ms. */
const TRADES_FRESH_MS = 2000;
const TRADES_KEPT_MS = 20_000;

const lastTrade = z
  .object({ time: z.number().meta({ description: 'event time, ms' }), price: z.string(), trade_id: z.string() })
  .nullable()
  .meta({ description: 'null: there is no trade' });
export const symbolsAnswer = z.object({
  symbols: z.array(
    z.object({
      symbol: z.string(),
      base: z.string().meta({ description: 'the coin, whose volatility index goes with it' }),
      markets: z.array(z.object({ exchange: z.string(), market_type: z.string(), last_trade: lastTrade })),
    }),
  ),
  more: z.boolean().meta({ description: `true: a market has more than ${MOST_SYMBOLS} symbols; the rest is not told` }),
  looked_at: z.number().meta({ description: 'when the names were looked for, ms; a symbol that is newer is not told' }),
});
export type MarketSymbols = z.infer<typeof symbolsAnswer>;
type Entry = MarketSymbols['symbols'][number];
type Market = Entry['markets'][number];

interface Stream {
  exchange: string;
  market_type: string;
  symbol: string;
}
interface Names {
  streams: Stream[];
  more: boolean;
  at: number;
}

interface Looks {
  names: Kept<Names>;
  answer: Kept<MarketSymbols>;
}
const LOOKS = new WeakMap<WebContext, Looks>();

export async function answerSymbols(context: WebContext): Promise<MarketSymbols> {
  let looks = LOOKS.get(context);
  if (looks === undefined)
    LOOKS.set(
      context,
      (looks = { names: new Kept(NAMES_FRESH_MS, NAMES_KEPT_MS), answer: new Kept(TRADES_FRESH_MS, TRADES_KEPT_MS) }),
    );
  const { names, answer } = looks;
  const now = context.clock();
  return answer.get(now, async () => {
    const { streams, more, at } = await names.get(now, () => namesOf(context, now));
    return { symbols: await withTrades(context, streams), more, looked_at: at };
  });
}

interface Place {
  source: Source;
  database: string;
}

/** For a name it is all the same whether a row is still counted to hot, or to cold already. */
function placesOf(context: WebContext): { hot: Place; cold: Place } {
  const { config } = context;
  const database = MarketDatabase.of(context);
  return {
    hot: { source: database.source(context.clock()), database: config.hotDatabase },
    cold: { source: database.source(0), database: config.coldDatabase },
  };
}

/** Not one reader's: it goes on when he has gone, as others wait for it, too. */
function ask<Cells extends readonly unknown[]>(context: WebContext, { source }: Place, query: MarketQuery) {
  return MarketDatabase.of(context).rows<Cells>(source, query, context.stop);
}

async function namesOf(context: WebContext, at: number): Promise<Names> {
  const found = new Map<string, Stream>();
  const tiers = await Promise.all(Object.values(placesOf(context)).map((place) => namesIn(context, place)));
  for (const each of tiers.flatMap(({ streams }) => streams)) found.set(keyOf(each), each);
  const streams = [...found].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, stream]) => stream);
  return { streams, more: tiers.some(({ more }) => more), at };
}

/** Where the next name is looked for: after a market's last one, or in an exchange's next market. */
interface Step {
  exchange: string;
  market_type: string;
  /** Null: in the markets after this one. */
  symbol: string | null;
}

/** From name to name, in all markets side by side. */
async function namesIn(context: WebContext, place: Place): Promise<{ streams: Stream[]; more: boolean }> {
  const streams: Stream[] = [];
  let steps: Step[] = EXCHANGES.map((exchange) => ({ exchange, market_type: '', symbol: null }));
  for (let turn = 0; steps.length > 0; turn++) {
    if (turn > MOST_SYMBOLS) return { streams, more: true };
    const found = await ask<[string, string, string, string]>(context, place, nextNames(place, steps));
    const next: Step[] = [];
    for (const [i, exchange, market_type, symbol] of found) {
      streams.push({ exchange, market_type, symbol });
      next.push({ exchange, market_type, symbol });
      if (steps[Number(i)]!.symbol === null) next.push({ exchange, market_type, symbol: null });
    }
    steps = next;
  }
  return { streams, more: false };
}

/** The first name after each step, if there is one. */
function nextNames({ database }: Place, steps: readonly Step[]): MarketQuery {
  const params: Record<string, unknown> = {};
  const firsts = steps.flatMap(({ exchange, market_type, symbol }, i) => {
    Object.assign(params, { [`e${i}`]: exchange, [`m${i}`]: market_type });
    if (symbol !== null) params[`s${i}`] = symbol;
    const market = `each.market_type ${symbol === null ? '>' : '='} {m${i}:String}`;
    const name = symbol === null ? '' : ` AND each.symbol > {s${i}:String}`;
    return TYPES.map(
      (type) =>
        `(SELECT ${i} AS i, {e${i}:String} AS exchange, toString(each.market_type) AS market_type, toString(each.symbol) AS symbol FROM ${database}.${TABLES[type].name} AS each WHERE each.exchange = {e${i}:String} AND ${market}${name} ORDER BY each.market_type, each.symbol LIMIT 1)`,
    );
  });
  const first = 'min((market_type, symbol))';
  const query = `SELECT i, exchange, ${first}.1, ${first}.2 FROM (${firsts.join(' UNION ALL ')}) GROUP BY i, exchange`;
  return { query, params };
}

/** A stream's last time, and who has it. */
interface Last {
  stream: Stream;
  time: number;
  place: Place;
}

async function withTrades(context: WebContext, streams: readonly Stream[]): Promise<Entry[]> {
  const { hot, cold } = placesOf(context);
  // A trade of long ago may have come to hot just now, while newer ones are in cold alone: both are asked.
  const [inHot, inCold] = await Promise.all([hot, cold].map((place) => lastTimes(context, place, streams)));
  const lasts = streams.flatMap((stream, i): Last[] => {
    const [hotTime = -1, coldTime = -1] = [inHot!.get(i), inCold!.get(i)];
    const place = hotTime >= coldTime ? hot : cold;
    return hotTime < 0 && coldTime < 0 ? [] : [{ stream, time: Math.max(hotTime, coldTime), place }];
  });
  const trades = new Map<string, Market['last_trade']>();
  for (const place of [hot, cold]) {
    const own = lasts.filter((each) => each.place === place);
    for (let i = 0; i < own.length; i += STREAMS_PER_QUERY) {
      const found = await lastTrades(context, place, own.slice(i, i + STREAMS_PER_QUERY));
      for (const [key, trade] of found) trades.set(key, trade);
    }
  }
  const bySymbol = new Map<string, Market[]>();
  for (const stream of streams) {
    const { symbol, exchange, market_type } = stream;
    const markets = bySymbol.get(symbol) ?? [];
    bySymbol.set(symbol, markets);
    markets.push({ exchange, market_type, last_trade: trades.get(keyOf(stream)) ?? null });
  }
  return [...bySymbol].map(([symbol, markets]) => ({ symbol, base: symbol.split('-')[0]!, markets }));
}

const keyOf = ({ exchange, market_type, symbol }: Stream) => `${symbol} ${exchange} ${market_type}`;

/** By the table's own order alone, which reads next to nothing. */
async function lastTimes(context: WebContext, place: Place, streams: readonly Stream[]): Promise<Map<number, number>> {
  const found = new Map<number, number>();
  for (let first = 0; first < streams.length; first += STREAMS_PER_QUERY) {
    const params: Record<string, unknown> = {};
    const lasts = streams.slice(first, first + STREAMS_PER_QUERY).map(({ exchange, market_type, symbol }, i) => {
      Object.assign(params, { [`e${i}`]: exchange, [`m${i}`]: market_type, [`s${i}`]: symbol });
      return `(SELECT ${first + i}, toUnixTimestamp64Milli(each.timestamp) FROM ${place.database}.${TABLES.trade.name} AS each WHERE each.exchange = {e${i}:String} AND each.market_type = {m${i}:String} AND each.symbol = {s${i}:String} ORDER BY each.timestamp DESC LIMIT 1)`;
    });
    const rows = await ask<[string, string]>(context, place, { query: lasts.join(' UNION ALL '), params });
    for (const [i, ms] of rows) found.set(Number(i), Number(ms));
  }
  return found;
}

/** Within a millisecond as candles have it: by the trades' numbers where they count, else as they came. */
async function lastTrades(context: WebContext, place: Place, lasts: readonly Last[]) {
  const params: Record<string, unknown> = {};
  const ofLast = lasts.map(({ stream: { exchange, market_type, symbol }, time }, i) => {
    Object.assign(params, { [`e${i}`]: exchange, [`m${i}`]: market_type, [`s${i}`]: symbol, [`t${i}`]: time });
    return `(each.exchange = {e${i}:String} AND each.market_type = {m${i}:String} AND each.symbol = {s${i}:String} AND each.timestamp = ${timeOf(`t${i}`)})`;
  });
  const last = `argMax((toUnixTimestamp64Milli(each.timestamp), toString(each.price), each.trade_id), (${TRADES.number}, each.received_at, each.trade_id))`;
  const query = `SELECT each.exchange, each.market_type, each.symbol, ${last} FROM ${place.database}.${TABLES.trade.name} AS each WHERE ${ofLast.join(' OR ')} GROUP BY each.exchange, each.market_type, each.symbol`;
  type Cells = [exchange: string, market: string, symbol: string, last: [string, string, string]];
  const rows = await ask<Cells>(context, place, { query, params });
  return rows.map(([exchange, market_type, symbol, [ms, price, trade_id]]) => {
    return [keyOf({ exchange, market_type, symbol }), { time: Number(ms), price, trade_id }] as const;
  });
}
