/** Binance spot or USDⓈ-M, put together from its parts. */
import { Binance, BinanceStreams, gridOf, listed, type Product, RULES } from './binance.ts';
import { fundingHoursOf, PerpetualDesk, type PerpetualPair } from './binance_perpetual.ts';
import { Market, seededRandom, seedFor } from './market.ts';
import { type SimulatorOptions, TRADE_HISTORY, type VenueMaker } from './options.ts';
import { fairOf } from './pairs.ts';
import { Perpetual } from './perpetual.ts';
import { Replay } from './replay.ts';
import { SeededSource } from './seeded.ts';
import type { Source, Venue, Wire } from './venue.ts';

/** One Binance product over seeded markets or a recorded session. */
export function binanceVenue(product: Product): VenueMaker {
  return (name, wire, options) => build(product, name, wire, options);
}

function build(product: Product, name: string, wire: Wire, options: SimulatorOptions): Venue {
  const replay = options.replays?.find((each) => each.exchange === name);
  const source: Source = replay
    ? Replay.open(product, name, replay.file, wire, { speed: replay.speed ?? 'max', dropDiff: replay.dropDiff ?? 0 })
    : seededSource(product, name, wire, options);
  return new Binance({ product, exchange: name, source, wire, rules: { ...RULES[product], ...options.heartbeat } });
}

function seededSource(product: Product, name: string, wire: Wire, options: SimulatorOptions): Source {
  const { seed = 1, symbols = ['BTC-USDT', 'ETH-USDT'], tradesPerSecond = 20, diffsPerSecond = 10 } = options;
  const { liquidationsPerMinute = 6 } = options;
  const perpetuals: PerpetualPair[] = [];
  const pairs = symbols.map((symbol) => {
    const { grid, startPrice } = gridOf(product, symbol, seed);
    const pair = listed(symbol, grid);
    const [start, fair] = [wire.clock(), fairOf(symbol, seed)];
    const market = new Market({
      grid,
      startPrice,
      random: seededRandom(seedFor(seed, `${name} ${symbol}`)),
      fair,
      start,
      tradesPerSecond,
      tradeGrain: product === 'spot' ? 'trade' : 'aggregate',
      diffsPerSecond,
      idsHaveHoles: product === 'usdm',
      history: options.tradeHistory ?? TRADE_HISTORY,
    });
    if (product === 'usdm') {
      const fundingHours = fundingHoursOf(pair.base);
      perpetuals.push({
        listed: pair,
        perpetual: new Perpetual({ symbol, seed, grid, startPrice, fair, start, fundingHours, liquidationsPerMinute }),
      });
    }
    const streams = new BinanceStreams(product, name, pair, market, wire, diffsPerSecond);
    return { listed: pair, market, topics: streams.topics };
  });
  const desk = product === 'usdm' ? new PerpetualDesk(name, perpetuals, wire) : undefined;
  return new SeededSource(pairs, wire, desk);
}
