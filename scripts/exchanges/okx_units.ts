/** OKX instruments: what an id names, and how sizes in contracts become base units. */
import { divide, multiply } from '../lib/arithmetic.ts';
import { isZero } from '../lib/decimal.ts';
import type { Instrument } from '../lib/exchange.ts';
import { type MarketType, ValueError } from '../lib/rows.ts';
import { positive, type WireRecord } from '../lib/wire.ts';

/** `BTC-USDT`, `BTC-USDT-SWAP`, `BTC-USD-261225`, `BTC-USD-261225-100000-C`. */
const INSTRUMENT_ID = /^([A-Za-z0-9]{1,24})-([A-Za-z0-9_]{1,12})(?:-(?:(SWAP)|(\d{6})|(\d{6}-[\d_.]{1,12}-[CP])))?$/;

/** The venue's word for each market type (instType). */
export const INST_TYPES: Record<MarketType, string> = {
  spot: 'SPOT',
  perpetual: 'SWAP',
  futures: 'FUTURES',
  options: 'OPTION',
};

/** How many base units a size is: size × factor, and divided by the price where a contract is worth quote currency. */
export interface Units {
  factor: string;
  byPrice: boolean;
}

/**
 * The instrument that an id names, as far as `exchange` has it.
 * @throws ValueError when it is no id of OKX, or one of the other market.
 */
export function okxInstrument(exchange: 'okx_spot' | 'okx_derivatives', id: string): Instrument {
  const match = INSTRUMENT_ID.exec(id);
  if (!match) throw new ValueError(`${JSON.stringify(id.slice(0, 60))} is no instrument id of OKX`);
  const [, base, quote, swap, future, option] = match;
  const marketType = swap ? 'perpetual' : future ? 'futures' : option ? 'options' : 'spot';
  if ((marketType === 'spot') !== (exchange === 'okx_spot')) throw new ValueError(`${id} is not of ${exchange}`);
  const dated = marketType === 'futures' || marketType === 'options';
  return { exchange, market_type: marketType, symbol: dated ? id.toUpperCase() : `${base}-${quote}`, instrument: id };
}

/** `BTC-USD` of `BTC-USD-261225`: base and quote, which OKX calls the family. */
export function familyOf(id: string): string {
  return id.split('-', 2).join('-');
}

/**
 * Units from a line of the instrument list. A contract is worth ctVal × ctMult of ctValCcy: of the base coin (linear
 * contracts, options), or of the currency of the price (inverse). Options leave ctType empty; both must not disagree.
 * @throws ValueError when the line does not tell them.
 */
export function unitsOf(entry: WireRecord, id: string): Units {
  const [base, quote] = id.split('-');
  const { ctType, ctValCcy } = entry;
  const byType = ctType === 'inverse' ? true : ctType === 'linear' ? false : null;
  // `USD_UM` is how the venue writes the quote of USD-margined contracts; a value in it is told in plain USD.
  const byCurrency = ctValCcy === base ? false : ctValCcy === quote || ctValCcy === quote?.split('_')[0] ? true : null;
  const byPrice = byCurrency ?? (ctValCcy === undefined || ctValCcy === '' ? byType : null);
  if (byPrice === null || (byType !== null && byType !== byPrice)) {
    throw new ValueError(`${id}: ctType ${JSON.stringify(ctType)} with a value in ${JSON.stringify(ctValCcy)}`);
  }
  return { factor: multiply(positive(entry.ctVal, 'ctVal'), positive(entry.ctMult, 'ctMult')), byPrice };
}

/** `size` in base units; null units: it is in them already, and stays as sent to the last digit. */
export function baseQuantity(size: string, price: string, units: Units | null): string {
  if (units === null || isZero(size)) return size;
  const value = multiply(size, units.factor);
  return units.byPrice ? divide(value, price) : value;
}
