/** Deribit's instruments: what a name stands for, and how its numbers become base units. */
import { divide, multiply } from '../lib/arithmetic.ts';
import { isZero, plainDecimal } from '../lib/decimal.ts';
import type { Instrument } from '../lib/exchange.ts';
import { type Level, type MarketType, ValueError } from '../lib/rows.ts';
import { array, positive, sortedLevels, type WireRecord } from '../lib/wire.ts';

export const EXCHANGE = 'deribit_derivatives';

const PERPETUAL = /^([A-Z0-9]+)(?:_([A-Z0-9]+))?-PERPETUAL$/;
const SPOT = /^([A-Z0-9]+)_([A-Z0-9]+)$/;
const FUTURE = /^[A-Z0-9]+(_[A-Z0-9]+)?-\d{1,2}[A-Z]{3}\d{2}$/;
const OPTION = /^[A-Z0-9]+(?:_[A-Z0-9]+)?-\d{1,2}[A-Z]{3}\d{2}-[0-9d]+-[CP]$/;
/** `BTC-FS-27DEC26_PERP`: two futures at once; all other combos are of options. */
const FUTURE_SPREAD = /^[A-Z0-9]+(_[A-Z0-9]+)?-FS-/;
const OPTION_COMBO = /^[A-Z0-9]+(?:_[A-Z0-9]+)?-[A-Z]+[A-Z0-9]*-/;

/** What an instrument's numbers mean. */
export interface Contract {
  marketType: MarketType;
  symbol: string;
  /** Amounts are USD, to be divided by the price. */
  inverse: boolean;
  /** The price is a difference of prices: it may be 0 or negative. */
  combo: boolean;
  /** Amount per contract; null: only the instrument list tells. */
  size: string | null;
}

/** An instrument's meaning from its name alone. */
export function contractOf(name: string): Contract {
  const own = { symbol: name.toUpperCase(), inverse: false, combo: false, size: null };
  const linear = name.split('-')[0]!.includes('_');
  const perpetual = PERPETUAL.exec(name);
  if (perpetual) {
    const [, base, quote] = perpetual;
    return { ...own, marketType: 'perpetual', symbol: `${base}-${quote ?? 'USD'}`, inverse: !linear };
  }
  if (SPOT.test(name)) return { ...own, marketType: 'spot', symbol: name.replace('_', '-') };
  if (FUTURE.test(name)) return { ...own, marketType: 'futures', inverse: !linear };
  if (FUTURE_SPREAD.test(name)) return { ...own, marketType: 'futures', inverse: !linear, combo: true };
  if (OPTION.test(name)) return { ...own, marketType: 'options' };
  if (OPTION_COMBO.test(name)) return { ...own, marketType: 'options', combo: true };
  throw new ValueError(`cannot tell what ${JSON.stringify(name.slice(0, 60))} is without the instrument list`);
}

/** An instrument's meaning by the venue's list; lists of before 2022 do not tell whether it is inverse, but its name does. */
export function listedContract(name: string, data: WireRecord): Contract {
  const { kind, base_currency: base, counter_currency, quote_currency } = data;
  if (typeof kind !== 'string' || typeof base !== 'string') throw new ValueError(`${name}: kind or base is missing`);
  const quote = counter_currency ?? quote_currency;
  const unit = data.instrument_type ?? data.future_type;
  const reversed = unit === undefined ? !name.split('-')[0]!.includes('_') : unit === 'reversed';
  const future = kind === 'future' || kind === 'future_combo';
  const perpetual = kind === 'future' && data.settlement_period === 'perpetual';
  const pair = perpetual || kind === 'spot';
  if (pair && typeof quote !== 'string') throw new ValueError(`${name}: quote is missing`);
  return {
    marketType: perpetual ? 'perpetual' : kind === 'spot' ? 'spot' : future ? 'futures' : 'options',
    symbol: pair ? `${base}-${quote}` : name.toUpperCase(),
    // An option is counted in its base coin also where it is paid in it.
    inverse: future && reversed,
    combo: kind.endsWith('_combo'),
    size: data.contract_size === undefined ? null : positive(data.contract_size, 'contract_size'),
  };
}

export function baseAmount({ inverse }: Contract, amount: string, price: string): string {
  return inverse ? divide(amount, price) : amount;
}

/** `[action, price, amount]` as levels in base units, best first; a deleted one has quantity 0. A side may be absent. */
export function levels(contract: Contract, side: unknown, sign: 1 | -1, what: string): Level[] {
  const list = array(side ?? [], what).map((each) => {
    const [action, priced, amount] = array(each, `${what}[]`);
    if (action !== 'new' && action !== 'change' && action !== 'delete') {
      throw new ValueError(`${what}[]: action is ${JSON.stringify(action)}`);
    }
    const price = positive(priced, `${what}[] price`);
    if (action === 'delete') return [price, '0'];
    return [price, baseAmount(contract, positive(amount, `${what}[] amount`), price)];
  });
  return sortedLevels(list, sign, what);
}

/**
 * Open interest in base units and in quote units. Inverse: told in USD, which is the value; in coins at the mark price.
 * Linear: told in coins; the value is at the mark price. Options: in coins; the value of what they cover depends on more than
 * their own price, so it is absent.
 */
export function openInterest(contract: Contract, told: string, mark: string | null) {
  const contracts = contract.size === null ? null : divide(told, contract.size);
  if (contract.inverse) {
    if (mark === null) throw new ValueError('open interest in USD without a mark price');
    return { open_interest: divide(told, mark), open_interest_value: told, contracts };
  }
  const valued = contract.marketType !== 'options' && mark !== null;
  return { open_interest: told, open_interest_value: valued ? multiply(told, mark) : null, contracts };
}

export function optional(value: unknown): string | null {
  return value === undefined || value === null ? null : plainDecimal(value);
}

export function notNegative(value: unknown, what: string): string {
  const text = plainDecimal(value);
  if (text.startsWith('-') && !isZero(text)) throw new ValueError(`${what} is negative: ${text}`);
  return text;
}

/** True where positions are leveraged and can be liquidated. */
export function isLeveraged(marketType: MarketType): boolean {
  return marketType === 'perpetual' || marketType === 'futures';
}

/** The volatility index of a coin, as an instrument of the options that it is made of. */
export function volatilityIndex(coin: string): Instrument {
  return { exchange: EXCHANGE, market_type: 'options', symbol: coin, instrument: `${coin.toLowerCase()}_usd` };
}

export function isIndex({ instrument: id }: Instrument): boolean {
  return /^[a-z0-9]+_usd$/.test(id);
}
