/** OKX spot or swaps, put together from their parts. */
import { Market, seededRandom, seedFor } from './market.ts';
import { OKX_RULES, Okx } from './okx.ts';
import { OkxAccount } from './okx_account.ts';
import { OkxChart, OkxCharts } from './okx_chart.ts';
import { CHARTED_COINS, gridOf, type OkxInstrument, type OkxProduct, okxListed, unitsOf } from './okx_instruments.ts';
import { OkxPair } from './okx_pair.ts';
import { type OkxPerpetual, OkxReadings, okxFundingHours } from './okx_readings.ts';
import { OkxReplay } from './okx_replay.ts';
import { OkxSeeded } from './okx_seeded.ts';
import { type SimulatorOptions, TRADE_HISTORY, type VenueMaker } from './options.ts';
import { fairOf } from './pairs.ts';
import { Perpetual } from './perpetual.ts';
import { PricePath } from './price_path.ts';
import type { Wire } from './venue.ts';

/** One product of OKX over seeded markets or a recorded session. */
export function okxVenue(product: OkxProduct): VenueMaker {
  return (name, wire, options) => {
    const { replays, symbols = ['BTC-USDT', 'ETH-USDT'], heartbeat } = options;
    const replay = replays?.find((each) => each.exchange === name);
    return new Okx({
      exchange: name,
      wire,
      source: replay ? OkxReplay.open(product, name, wire, replay) : seeded(product, name, wire, options),
      rules: { ...OKX_RULES, pongWithinMs: heartbeat?.pongWithinMs ?? OKX_RULES.pongWithinMs },
      sample: okxListed(product, symbols[0] ?? 'BTC-USDT', 1).instrument,
    });
  };
}

function seeded(product: OkxProduct, name: string, wire: Wire, options: SimulatorOptions): OkxSeeded {
  const { seed = 1, symbols = ['BTC-USDT', 'ETH-USDT'], tradesPerSecond = 20, diffsPerSecond = 10 } = options;
  const { liquidationsPerMinute = 6, tradeHistory: history = TRADE_HISTORY } = options;
  const perpetuals: OkxPerpetual[] = [];
  const pairs = symbols.map((symbol) => {
    const listed = okxListed(product, symbol, seed);
    const { startPrice, base } = listed;
    const [grid, start, fair] = [gridOf(listed), wire.clock(), fairOf(symbol, seed)];
    const market = new Market({
      grid,
      startPrice,
      random: seededRandom(seedFor(seed, `${name} ${symbol}`)),
      fair,
      start,
      tradesPerSecond,
      tradeGrain: 'trade',
      diffsPerSecond,
      idsHaveHoles: true,
      history,
    });
    if (product === 'swap') {
      // Readings are told in base units first; a lot of several of them has no decimals there.
      const baseGrid = { ...grid, quantityDecimals: Math.max(0, grid.quantityDecimals) };
      const fundingHours = okxFundingHours(base);
      // The price is shared by all venues; what happens to a position is this one's own.
      const own = { seed: seedFor(seed, name), grid: baseGrid, fundingHours, liquidationsPerMinute };
      perpetuals.push({ listed, perpetual: new Perpetual({ ...own, symbol, startPrice, fair, start }) });
    }
    return new OkxPair(name, listed, market, wire, diffsPerSecond, history);
  });
  const charts = new OkxCharts(product, chartsOf(product, pairs, seed, wire), wire.clock);
  const readings = product === 'swap' ? new OkxReadings(name, perpetuals, wire) : undefined;
  const beside = product === 'swap' ? [charts, new OkxAccount(charts, seed, wire.clock)] : [charts];
  return new OkxSeeded(product, pairs, readings, beside);
}

/** Charts of all markets, and of the swaps of coins that have none. */
function chartsOf(product: OkxProduct, pairs: readonly OkxPair[], seed: number, wire: Wire): OkxChart[] {
  const started = Math.floor(wire.clock());
  const quantityPerQuote = ({ baseDecimals, startPrice }: OkxInstrument): number => 10 ** baseDecimals / startPrice;
  const traded = pairs.map(({ listed, market, tape }) => {
    // The past ends where the market begins.
    const price = unitsOf(market.priceText(market.bestBid), listed);
    const path = { seed, base: listed.base, price, anchor: started, quantityPerQuote: quantityPerQuote(listed) };
    return new OkxChart(listed, new PricePath(path), { market, tape, started });
  });
  if (product === 'spot') return traded;
  const ids = new Set(pairs.map(({ listed }) => listed.instrument));
  const others = CHARTED_COINS.map((coin) => okxListed(product, `${coin}-USDT`, seed));
  return [
    ...traded,
    ...others
      .filter(({ instrument }) => !ids.has(instrument))
      .map((listed) => {
        const price = listed.startPrice * 10 ** listed.priceDecimals;
        const path = { seed, base: listed.base, price, anchor: null, quantityPerQuote: quantityPerQuote(listed) };
        return new OkxChart(listed, new PricePath(path), null);
      }),
  ];
}
