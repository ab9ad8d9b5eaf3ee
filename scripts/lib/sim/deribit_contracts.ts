/** Deribit's perpetuals: names, units and the list of instruments; and numbers as the venue writes them. */
import type { StreamIdentity } from './ledger.ts';
import type { Grid } from './market.ts';
import { startPriceOf } from './pairs.ts';

/** Coins whose perpetual counts in USD and is settled in the coin; contract sizes in USD, ticks in units of a tenth and a hundredth. */
const INVERSE: Readonly<Record<string, { contractSize: number; priceDecimals: number; tickUnits: number }>> = {
  BTC: { contractSize: 10, priceDecimals: 1, tickUnits: 5 },
  ETH: { contractSize: 1, priceDecimals: 2, tickUnits: 5 },
};
/** The year 3000: what the venue tells where nothing expires. */
const NEVER_MS = 32_503_708_800_000;

/** A perpetual: how it is called and what its numbers mean. */
export interface Contract {
  /** The common name that the collector gives it, such as BTC-USD, and the venue's own. */
  readonly symbol: string;
  readonly instrument: string;
  readonly base: string;
  readonly quote: 'USD' | 'USDC';
  /** True: amounts are USD. False: coins. */
  readonly inverse: boolean;
  /** One contract as an amount; the market's quantities are whole contracts. */
  readonly contractSize: number;
  readonly grid: Grid;
  readonly startPrice: number;
  /** What stands before the digits of its trade ids: these count per settlement currency. */
  readonly tradePrefix: string;
}

/**
 * The perpetual that the venue has for a pair such as `BTC-USDT`: BTC and ETH against USD unless USDC is asked for, every
 * other coin against USDC. Amounts are multiples of 10 (BTC) and 1 (ETH) USD, or of a power of ten of the coin.
 */
export function contractOf(pair: string, seed: number): Contract {
  const [base = '', asked = ''] = pair.split('-');
  const startPrice = startPriceOf(pair, seed);
  const magnitude = Math.floor(Math.log10(startPrice));
  const known = asked === 'USDC' ? undefined : INVERSE[base];
  const quote = known ? 'USD' : 'USDC';
  const quantityDecimals = known ? Math.round(Math.log10(startPrice / known.contractSize)) : Math.max(0, magnitude);
  const [priceDecimals, tickUnits] = known ? [known.priceDecimals, known.tickUnits] : [Math.max(0, 5 - magnitude), 1];
  return {
    symbol: `${base}-${quote}`,
    instrument: known ? `${base}-PERPETUAL` : `${base}_USDC-PERPETUAL`,
    base,
    quote,
    inverse: known !== undefined,
    contractSize: known ? known.contractSize : 1 / 10 ** quantityDecimals,
    startPrice,
    grid: { priceDecimals, tickUnits, quantityDecimals, pricePadding: '', quantityPadding: '' },
    tradePrefix: !known ? 'USDC-' : base === 'BTC' ? '' : `${base}-`,
  };
}

/** How one stream of a contract stands in the ledger. */
export function identityOf(exchange: string, contract: Contract, dataType: string): StreamIdentity {
  const { symbol, instrument } = contract;
  return { exchange, market_type: 'perpetual', symbol, data_type: dataType, instrument };
}

/** A number as the venue writes its own: with a point, whole or not. */
export function float(value: number): string {
  return Number.isInteger(value) ? `${value}.0` : String(value);
}

/** An amount (USD or coins) for a number of contracts. */
export function amountText({ inverse, contractSize, grid }: Contract, contracts: number): string {
  return float(inverse ? contracts * contractSize : contracts / 10 ** grid.quantityDecimals);
}

/** A price with at most `decimals` digits after the point. */
export function priceText(price: number, decimals: number): string {
  return float(Number(price.toFixed(decimals)));
}

/** The name of a trade; the ledger names liquidations by it. */
export function tradeIdOf(contract: Contract, sequence: number): string {
  return `${contract.tradePrefix}${sequence + 144_000_000}`;
}

/** One row of the instrument list. */
export function instrumentText(contract: Contract, createdAt: number): string {
  const { instrument, base, quote, inverse, contractSize, grid } = contract;
  const settlement = inverse ? base : quote;
  const type = inverse ? 'reversed' : 'linear';
  const [tick, size] = [float(grid.tickUnits / 10 ** grid.priceDecimals), float(contractSize)];
  return (
    `{"price_index":"${base.toLowerCase()}_${quote.toLowerCase()}","kind":"future","instrument_name":"${instrument}",` +
    `"max_leverage":50,"maker_commission":0.0,"taker_commission":0.0005,"instrument_type":"${type}",` +
    `"expiration_timestamp":${NEVER_MS},"creation_timestamp":${createdAt},"is_active":true,"state":"open",` +
    `"tick_size":${tick},"tick_size_steps":[],"contract_size":${size},"min_trade_amount":${size},` +
    `"future_type":"${type}","max_liquidation_commission":0.0075,"block_trade_commission":0.00025,` +
    `"settlement_currency":"${settlement}","settlement_period":"perpetual","base_currency":"${base}",` +
    `"counter_currency":"${quote}","quote_currency":"${quote}"}`
  );
}
