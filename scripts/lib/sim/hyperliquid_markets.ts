/** Hyperliquid over seeded markets: all its coins, what is told by the clock, and the answers to requests for them. */
import { CandleTopics } from './hyperliquid_candles.ts';
import { BASE, furtherCoins, HyperliquidChart } from './hyperliquid_chart.ts';
import { Coin, gridOf, listed } from './hyperliquid_coin.ts';
import type { ListedCoin } from './hyperliquid_rest.ts';
import type { HyperliquidSource, Subscription } from './hyperliquid_source.ts';
import { streamOf } from './hyperliquid_source.ts';
import type { Interval } from './intervals.ts';
import { Market, seededRandom, seedFor, type Trade } from './market.ts';
import { type SimulatorOptions, TRADE_HISTORY } from './options.ts';
import { fairOf, startPriceOf } from './pairs.ts';
import { Perpetual } from './perpetual.ts';
import { type Readings, SeededSource } from './seeded.ts';
import type { Peer, Topic, Weighed, Wire } from './venue.ts';

const SECOND_MS = 1000;
/** After a stall longer than this, time is skipped instead of being made up for in one burst. */
const MAX_CATCH_UP_MS = 1000;
const FUNDING_HOURS = 1;
const DAY_MS = 86_400_000;
/** Lists of the venue keep coins that are traded no more. */
const DELISTED = 'MATIC';
const DELISTED_CONTEXT =
  '{"funding":"0.0","openInterest":"0.0","prevDayPx":"0.37621","dayNtlVlm":"0.0","premium":null,"oraclePx":"0.3754",' +
  '"markPx":"0.37621","midPx":null,"impactPxs":null,"dayBaseVlm":"0.0"}';

export class HyperliquidMarkets implements HyperliquidSource {
  readonly coins: readonly ListedCoin[];
  private readonly markets: ReadonlyMap<string, Coin>;
  private readonly desk: ContextDesk;
  private readonly seeded: SeededSource;
  private readonly charts: ReadonlyMap<string, HyperliquidChart>;
  private readonly candleTopics: CandleTopics;
  /** Candles are told from before the markets began. */
  private readonly hasPast: boolean;

  /** The coins of `options.symbols`, one market each whatever it is paired with, and as many others as are asked for, of which there are candles. */
  constructor(name: string, wire: Wire, options: SimulatorOptions) {
    const names = new Set(
      (options.symbols ?? ['BTC-USDT', 'ETH-USDT']).map((symbol) => symbol.split('-')[0] as string),
    );
    const { perpetuals = 0, seed = 1 } = options;
    this.hasPast = perpetuals > 0;
    this.charts = chartsOf([...names], furtherCoins(perpetuals, names), seed, wire.clock());
    this.markets = new Map(
      [...names].map((coin) => {
        const chart = this.charts.get(coin) as HyperliquidChart;
        return [coin, seededCoin(name, coin, wire, options, (trade, time) => chart.add(trade, time))];
      }),
    );
    const coins: ListedCoin[] = [...this.charts.values()].map(({ name: coin, grid: { quantityDecimals } }) => ({
      name: coin,
      szDecimals: quantityDecimals,
    }));
    this.coins = names.has(DELISTED) ? coins : [...coins, { name: DELISTED, szDecimals: 1, isDelisted: true }];
    this.candleTopics = new CandleTopics(this.charts, wire);
    this.desk = new ContextDesk([...this.markets.values()], wire, (at) => this.candleTopics.tell(at));
    this.seeded = new SeededSource([...this.markets.values()], wire, this.desk);
  }

  isTraded(coin: string): boolean {
    return this.markets.has(coin);
  }

  hasCandles(coin: string): boolean {
    return this.charts.has(coin);
  }

  leaveBase(coin: string, from: number, to: number | null): boolean {
    return this.charts.get(coin)?.leaveBase(from, to) ?? false;
  }

  joinBase(coin: string, at: number): boolean {
    return this.charts.get(coin)?.joinBase(at) ?? false;
  }

  subscribe(peer: Peer, subscription: Subscription): void {
    if (subscription.type === 'candle') {
      this.candleTopics.subscribe(peer, subscription);
      return;
    }
    const stream = streamOf(subscription);
    this.seeded.subscribe(peer, stream);
    const coin = this.markets.get(subscription.coin);
    const topic = coin?.topics.find(({ name }) => name === stream);
    if (coin && topic) coin.welcome(peer, topic, this.desk.now);
  }

  unsubscribe(peer: Peer, subscription: Subscription): void {
    this.seeded.unsubscribe(peer, streamOf(subscription));
    this.candleTopics.unsubscribe(peer, streamOf(subscription));
  }

  leave(peer: Peer): void {
    this.seeded.leave(peer);
    this.candleTopics.leave(peer);
  }

  contexts(): string[] {
    const { now } = this.desk;
    return this.coins.map(
      ({ name }) =>
        this.markets.get(name)?.contextData(now) ?? contextOf(this.charts.get(name), now) ?? DELISTED_CONTEXT,
    );
  }

  mids(): string {
    return this.desk.mids();
  }

  book(coin: string): string | undefined {
    return this.markets.get(coin)?.book(this.desk.now);
  }

  recentTrades(coin: string): string[] | undefined {
    return this.markets.get(coin)?.recentTrades();
  }

  funding(coin: string, from: number, to: number): string[] | undefined {
    return this.markets.get(coin)?.funding(from, to, this.desk.now);
  }

  candles(coin: string, interval: Interval, width: number, from: number, to: number): string[] | undefined {
    if (!this.hasPast) return this.markets.get(coin)?.candles(interval, width, from, to);
    return this.charts.get(coin)?.texts(interval, width, from, to, Math.floor(this.desk.now));
  }

  advance(now: number): void {
    this.seeded.advance(now);
  }

  /** Also tells what was not told yet, so that books and subscribers end at the same state. */
  stop(): void {
    for (const coin of this.markets.values()) coin.finish(this.desk.now);
    this.seeded.stop();
  }

  start(now: number): void {
    this.seeded.start(now);
  }

  done(): null {
    return null;
  }
}

/** All charts, those of the markets first; BTC's, which others follow, is among them. */
function chartsOf(
  traded: readonly string[],
  further: readonly string[],
  seed: number,
  now: number,
): Map<string, HyperliquidChart> {
  const base = new HyperliquidChart(BASE, -1, seed, traded.includes(BASE) ? now : null, null);
  return new Map(
    [...traded, ...further].map((coin) => {
      const since = traded.includes(coin) ? now : null;
      const chart = coin === BASE ? base : new HyperliquidChart(coin, further.indexOf(coin), seed, since, base);
      return [coin, chart];
    }),
  );
}

/** The context of a coin of which there are candles alone; undefined without a chart. */
function contextOf(chart: HyperliquidChart | undefined, now: number): string | undefined {
  if (chart === undefined) return undefined;
  const price = chart.priceText(now);
  return JSON.stringify({
    ...{
      funding: '0.0000125',
      openInterest: '1000.0',
      prevDayPx: chart.priceText(now - DAY_MS),
      dayNtlVlm: '100000.0',
    },
    ...{
      premium: '0.0',
      oraclePx: price,
      markPx: price,
      midPx: price,
      impactPxs: [price, price],
      dayBaseVlm: '1000.0',
    },
  });
}

function seededCoin(
  name: string,
  coin: string,
  wire: Wire,
  options: SimulatorOptions,
  traded: (trade: Trade, time: number) => void,
): Coin {
  const { seed = 1, tradesPerSecond = 20, diffsPerSecond = 10, tradeHistory: history = TRADE_HISTORY } = options;
  const startPrice = startPriceOf(coin, seed);
  const grid = gridOf(coin, startPrice);
  const [start, fair] = [wire.clock(), fairOf(coin, seed)];
  const market = new Market({
    grid,
    startPrice,
    random: seededRandom(seedFor(seed, `${name} ${coin}`)),
    fair,
    start,
    tradesPerSecond,
    tradeGrain: 'trade',
    diffsPerSecond,
    idsHaveHoles: false,
    history,
  });
  const { symbol } = listed(coin, grid);
  const perpetual = new Perpetual({
    symbol,
    seed,
    grid,
    startPrice,
    fair,
    start,
    fundingHours: FUNDING_HOURS,
    liquidationsPerMinute: 0,
  });
  return new Coin({ coin, grid, market, perpetual, wire, seed, diffsPerSecond, history, traded });
}

/** What is told by the clock: blocks as they close, and each second the contexts and the middle prices. */
class ContextDesk implements Readings {
  readonly topics: readonly Topic[];
  /** Stands still while production is stopped, and all readings with it. */
  now: number;
  private readonly allMids: Topic;

  constructor(
    private readonly coins: readonly Coin[],
    private readonly wire: Wire,
    /** What else is told each second. */
    private readonly beside: (at: number) => void,
  ) {
    this.now = wire.clock();
    this.allMids = wire.topic('allMids', 'ticker', '', null, { counter: 'reading_frames' });
    this.topics = [this.allMids];
  }

  advance(now: number): void {
    const from = Math.max(this.now, now - MAX_CATCH_UP_MS);
    this.now = Math.max(this.now, now);
    for (const coin of this.coins) coin.closeBlocks(now);
    for (let at = (Math.floor(from / SECOND_MS) + 1) * SECOND_MS; at <= now; at += SECOND_MS) this.tell(at);
  }

  resume(now: number): void {
    this.now = now;
  }

  /** Requests go another way: all are posts of one path. */
  rest(): Weighed | undefined {
    return undefined;
  }

  mids(): string {
    return JSON.stringify(Object.fromEntries(this.coins.map((coin) => [coin.name, coin.mid()])));
  }

  private tell(at: number): void {
    this.beside(at);
    for (const coin of this.coins) {
      if (coin.context.subscribers.size > 0) this.wire.publish(coin.context, at, coin.contextText(at));
    }
    if (this.allMids.subscribers.size === 0) return;
    this.wire.publish(this.allMids, at, `{"channel":"allMids","data":{"mids":${this.mids()}}}`);
  }
}
