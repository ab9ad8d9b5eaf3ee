/** Hyperliquid over seeded markets: all its coins, what is told by the clock, and the answers to requests for them. */
import { Coin, gridOf, listed } from './hyperliquid_coin.ts';
import type { ListedCoin } from './hyperliquid_rest.ts';
import type { HyperliquidSource, Subscription } from './hyperliquid_source.ts';
import { streamOf } from './hyperliquid_source.ts';
import type { Interval } from './intervals.ts';
import { Market, seededRandom, seedFor } from './market.ts';
import { type SimulatorOptions, TRADE_HISTORY } from './options.ts';
import { fairOf, startPriceOf } from './pairs.ts';
import { Perpetual } from './perpetual.ts';
import { type Readings, SeededSource } from './seeded.ts';
import type { Peer, Topic, Weighed, Wire } from './venue.ts';

const SECOND_MS = 1000;
/** After a stall longer than this, time is skipped instead of being made up for in one burst. */
const MAX_CATCH_UP_MS = 1000;
const FUNDING_HOURS = 1;
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

  /** The coins of `options.symbols`, one market each whatever it is paired with. */
  constructor(name: string, wire: Wire, options: SimulatorOptions) {
    const names = new Set(
      (options.symbols ?? ['BTC-USDT', 'ETH-USDT']).map((symbol) => symbol.split('-')[0] as string),
    );
    this.markets = new Map([...names].map((coin) => [coin, seededCoin(name, coin, wire, options)]));
    const coins: ListedCoin[] = [...this.markets.values()].map(({ name: coin, listed: { quantityPrecision } }) => ({
      name: coin,
      szDecimals: quantityPrecision,
    }));
    this.coins = names.has(DELISTED) ? coins : [...coins, { name: DELISTED, szDecimals: 1, isDelisted: true }];
    this.desk = new ContextDesk([...this.markets.values()], wire);
    this.seeded = new SeededSource([...this.markets.values()], wire, this.desk);
  }

  isTraded(coin: string): boolean {
    return this.markets.has(coin);
  }

  subscribe(peer: Peer, subscription: Subscription): void {
    const stream = streamOf(subscription);
    this.seeded.subscribe(peer, stream);
    const coin = this.markets.get(subscription.coin);
    const topic = coin?.topics.find(({ name }) => name === stream);
    if (coin && topic) coin.welcome(peer, topic, this.desk.now);
  }

  unsubscribe(peer: Peer, subscription: Subscription): void {
    this.seeded.unsubscribe(peer, streamOf(subscription));
  }

  leave(peer: Peer): void {
    this.seeded.leave(peer);
  }

  contexts(): string[] {
    return this.coins.map(({ name }) => this.markets.get(name)?.contextData(this.desk.now) ?? DELISTED_CONTEXT);
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
    return this.markets.get(coin)?.candles(interval, width, from, to);
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

function seededCoin(name: string, coin: string, wire: Wire, options: SimulatorOptions): Coin {
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
  return new Coin({ coin, grid, market, perpetual, wire, seed, diffsPerSecond, history });
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
    for (const coin of this.coins) {
      if (coin.context.subscribers.size > 0) this.wire.publish(coin.context, at, coin.contextText(at));
    }
    if (this.allMids.subscribers.size === 0) return;
    this.wire.publish(this.allMids, at, `{"channel":"allMids","data":{"mids":${this.mids()}}}`);
  }
}
