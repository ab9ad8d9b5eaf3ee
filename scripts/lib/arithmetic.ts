/** Exact arithmetic on plain decimal text. Products and sums keep every digit; quotients are rounded at the 18th place. */
import { createHash } from 'node:crypto';
import { MAX_FRACTION_DIGITS, plainDecimal, ValueError } from './decimal.ts';

const SCALE = 10n ** BigInt(MAX_FRACTION_DIGITS);

interface Scaled {
  digits: bigint;
  /** Digits after the point. */
  places: number;
}

function parse(text: string): Scaled {
  const plain = plainDecimal(text);
  const point = plain.indexOf('.');
  if (point < 0) return { digits: BigInt(plain), places: 0 };
  return { digits: BigInt(plain.slice(0, point) + plain.slice(point + 1)), places: plain.length - point - 1 };
}

function format({ digits, places }: Scaled): string {
  const sign = digits < 0n ? '-' : '';
  const text = (digits < 0n ? -digits : digits).toString().padStart(places + 1, '0');
  const whole = text.slice(0, text.length - places);
  const fraction = text.slice(text.length - places).replace(/0+$/, '');
  return plainDecimal(`${sign}${whole}${fraction === '' ? '' : `.${fraction}`}`);
}

/** a × b, all digits. @throws ValueError when the product has more than 18 fraction digits that count. */
export function multiply(a: string, b: string): string {
  const x = parse(a);
  const y = parse(b);
  return format({ digits: x.digits * y.digits, places: x.places + y.places });
}

/** a ÷ b to 18 fraction digits, half away from zero. @throws ValueError when b is 0. */
export function divide(a: string, b: string): string {
  const x = parse(a);
  const y = parse(b);
  if (y.digits === 0n) throw new ValueError(`${a} divided by zero`);
  const numerator = x.digits * SCALE * 10n ** BigInt(y.places);
  const denominator = y.digits * 10n ** BigInt(x.places);
  const negative = numerator < 0n !== denominator < 0n;
  const [n, d] = [numerator < 0n ? -numerator : numerator, denominator < 0n ? -denominator : denominator];
  const rounded = (2n * n + d) / (2n * d);
  return format({ digits: negative ? -rounded : rounded, places: MAX_FRACTION_DIGITS });
}

/** a − b, all digits. */
export function subtract(a: string, b: string): string {
  const x = parse(a);
  const y = parse(b);
  const places = Math.max(x.places, y.places);
  const at = ({ digits, places: own }: Scaled) => digits * 10n ** BigInt(places - own);
  return format({ digits: at(x) - at(y), places });
}

/** Shares of long and short accounts or positions from their ratio r = long ÷ short; they add to exactly 1. */
export function sharesOfRatio(ratio: string): { long: string; short: string } {
  const r = parse(ratio);
  const one = 10n ** BigInt(r.places);
  const long = divide(ratio, format({ digits: r.digits + one, places: r.places }));
  return { long, short: subtract('1', long) };
}

/**
 * An id for a liquidation of a venue that gives none: the same event has the same id wherever it is seen.
 * @param time event time, ms
 */
export function liquidationId(symbol: string, side: string, price: string, quantity: string, time: number): string {
  return createHash('sha256').update([symbol, side, price, quantity, time].join('|')).digest('hex').slice(0, 32);
}
