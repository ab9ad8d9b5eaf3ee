/** OKX's instruments: how each prints its numbers, what a contract is worth, and the list that tells of it. */
import type { StreamIdentity } from './ledger.ts';
import { decimalText, type Grid } from './market.ts';
import { startPriceOf } from './pairs.ts';

export type OkxProduct = 'spot' | 'swap';

/** Price decimals and decimals of a lot; for contracts also the power of ten of the base that one is worth. */
interface Steps {
  readonly spot: readonly [price: number, lot: number];
  readonly swap: readonly [price: number, lot: number, worth: number];
}

/** As the venue lists them in 2026. */
const KNOWN: Readonly<Record<string, Steps>> = {
  BTC: { spot: [1, 8], swap: [1, 2, -2] },
  ETH: { spot: [2, 6], swap: [2, 2, -1] },
  SOL: { spot: [2, 6], swap: [2, 2, 0] },
  BNB: { spot: [1, 6], swap: [1, 0, -2] },
  XRP: { spot: [4, 6], swap: [4, 2, 2] },
  DOGE: { spot: [5, 6], swap: [5, 2, 3] },
};

/** Coins whose swaps have candles and tickers, also where none of the simulated markets is theirs. */
export const CHARTED_COINS = [
  ...['BTC', 'ETH', 'XRP', 'BNB', 'SOL', 'LTC', 'DOGE', 'SUI', 'TRX', 'TON', 'ETC', 'BCH', 'HBAR', 'XLM'],
  ...['FIL', 'LINK', 'CRO', 'DOT', 'UNI', 'NEAR', 'APT', 'CFX', 'CRV', 'STX', 'LDO', 'TAO', 'AAVE'],
] as const;

/** One instrument. Sizes are whole numbers of lots: of the base on spot, of contracts on swaps. */
export interface OkxInstrument {
  readonly product: OkxProduct;
  readonly symbol: string;
  /** The venue's id. */
  readonly instrument: string;
  readonly base: string;
  readonly quote: string;
  readonly startPrice: number;
  readonly priceDecimals: number;
  readonly lotDecimals: number;
  /** Decimals of a lot in base units; below 0 where a lot is worth tens of them. */
  readonly baseDecimals: number;
}

/** A pair such as `BTC-USDT` as this product has it. Pairs that are not known get fine steps at their own price. */
export function okxListed(product: OkxProduct, symbol: string, seed: number): OkxInstrument {
  const [base = '', quote = ''] = symbol.split('-');
  const startPrice = startPriceOf(symbol, seed);
  const priceDecimals = 5 - Math.floor(Math.log10(startPrice));
  const known = KNOWN[base] ?? { spot: [priceDecimals, 6], swap: [priceDecimals, 1, 0] };
  const [price, lot, worth = 0]: readonly number[] = known[product];
  return {
    product,
    symbol,
    instrument: product === 'spot' ? symbol : `${symbol}-SWAP`,
    base,
    quote,
    startPrice,
    priceDecimals: price as number,
    lotDecimals: lot as number,
    baseDecimals: (lot as number) - worth,
  };
}

/** The market's grid: it moves lots, and only its count of base decimals tells it how much a lot is. */
export function gridOf({ priceDecimals, baseDecimals }: OkxInstrument): Grid {
  return { priceDecimals, tickUnits: 1, quantityDecimals: baseDecimals, pricePadding: '', quantityPadding: '' };
}

/** `units` of 10^-decimals without zeros that carry no value, as the venue prints all numbers. */
export function plain(units: number, decimals: number): string {
  if (decimals <= 0) return String(units * 10 ** -decimals);
  return decimalText(units, decimals).replace(/\.?0+$/, '');
}

/** A printed price in units of the instrument's last decimal. */
export function unitsOf(price: string, { priceDecimals }: OkxInstrument): number {
  return Math.round(Number(price) * 10 ** priceDecimals);
}

/** A size in lots as the venue prints it: base units on spot, contracts on swaps. */
export function sizeText({ lotDecimals }: OkxInstrument, lots: number): string {
  return plain(lots, lotDecimals);
}

/** Lots nearest to a quantity in base units; at least one. */
export function lotsOf({ baseDecimals }: OkxInstrument, quantity: string): number {
  return Math.max(1, Math.round(Number(quantity) * 10 ** baseDecimals));
}

/** How a stream of the instrument stands in the ledger. */
export function okxIdentity(exchange: string, each: OkxInstrument, dataType: string): StreamIdentity {
  return {
    exchange,
    market_type: each.product === 'spot' ? 'spot' : 'perpetual',
    symbol: each.symbol,
    data_type: dataType,
    instrument: each.instrument,
  };
}

/** The line of the instrument list; every value is a text but the code. */
export function instrumentRow(each: OkxInstrument, place: number): string {
  const { product, instrument, symbol, base, quote, priceDecimals, lotDecimals, baseDecimals } = each;
  const isSwap = product === 'swap';
  const lot = plain(1, lotDecimals);
  const swapOnly = (text: string): string => (isSwap ? text : '');
  const spotOnly = (text: string): string => (isSwap ? '' : text);
  return JSON.stringify({
    alias: '',
    auctionEndTime: '',
    baseCcy: spotOnly(base),
    category: '1',
    contTdSwTime: '',
    ctMult: swapOnly('1'),
    ctType: swapOnly('linear'),
    ctVal: swapOnly(plain(1, baseDecimals - lotDecimals)),
    ctValCcy: swapOnly(base),
    expTime: '',
    futureSettlement: false,
    instFamily: swapOnly(symbol),
    instId: instrument,
    instIdCode: 10_459 + place,
    instType: isSwap ? 'SWAP' : 'SPOT',
    lever: isSwap ? '100' : '10',
    listTime: '1573557408000',
    lotSz: lot,
    maxIcebergSz: '100000000',
    maxLmtAmt: '20000000',
    maxLmtSz: '100000000',
    maxMktAmt: spotOnly('1000000'),
    maxMktSz: '30000',
    maxStopSz: '30000',
    maxTriggerSz: '100000000',
    maxTwapSz: '100000000',
    minSz: isSwap ? lot : plain(1, Math.max(0, lotDecimals - 3)),
    optType: '',
    quoteCcy: spotOnly(quote),
    ruleType: 'normal',
    settleCcy: swapOnly(quote),
    state: 'live',
    stk: '',
    tickSz: plain(1, priceDecimals),
    tradeQuoteCcyList: isSwap ? [] : [quote],
    uly: swapOnly(symbol),
  });
}
