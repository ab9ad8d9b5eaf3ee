/**
 * Decimal numbers as the exchange wrote them. They stay text from the wire to the Decimal(38,18) column: a double would
 * change digits, and this project's users never forgive that.
 */

/** Digits after the point that Decimal(38,18) holds. */
export const MAX_FRACTION_DIGITS = 18;
/** Digits before the point that Decimal(38,18) holds. */
export const MAX_INTEGER_DIGITS = 20;

const PLAIN = /^-?\d{1,20}(?:\.\d{1,18})?$/;
const ANY_DECIMAL = /^(-?)(\d*)(?:\.(\d*))?(?:[eE]([+-]?\d{1,4}))?$/;

/** A value that cannot be a column's value: says which, and why. */
export class ValueError extends Error {
  constructor(message: string) {
    super(message);
    this.name = 'ValueError';
  }
}

/**
 * A number from the wire as plain decimal text, all its digits kept: `"61837.63000000"` stays as it is, `1e-7` becomes
 * `0.0000001`. A JSON number is taken by its shortest text, exact up to 15 significant digits.
 * @throws ValueError when it is no number, or has more than 20 integer or 18 fraction digits (never rounded).
 */
export function plainDecimal(value: unknown): string {
  if (typeof value === 'string' && PLAIN.test(value)) return value;
  const text = typeof value === 'number' && Number.isFinite(value) ? String(value) : value;
  if (typeof text !== 'string') throw new ValueError(`not a number: ${JSON.stringify(value)}`);
  if (PLAIN.test(text)) return text;
  const match = ANY_DECIMAL.exec(text);
  if (!match || (match[2] ?? '') + (match[3] ?? '') === '')
    throw new ValueError(`not a number: ${JSON.stringify(value)}`);
  return expand(match[1] ?? '', match[2] ?? '', match[3] ?? '', Number(match[4] ?? 0));
}

function expand(sign: string, whole: string, fraction: string, exponent: number): string {
  let digits = whole + fraction;
  let point = whole.length + exponent;
  if (point < 0) {
    digits = '0'.repeat(-point) + digits;
    point = 0;
  }
  digits = digits.padEnd(point, '0');
  const integer = digits.slice(0, point).replace(/^0+(?=\d)/, '') || '0';
  // Zeros beyond the 18th place carry no value, so dropping them loses none.
  const rest = digits.slice(point);
  const kept = rest.length > MAX_FRACTION_DIGITS ? rest.replace(/0+$/, '') : rest;
  if (integer.length > MAX_INTEGER_DIGITS || kept.length > MAX_FRACTION_DIGITS) {
    throw new ValueError(
      `${sign}${integer}.${rest} does not fit ${MAX_INTEGER_DIGITS} integer and ${MAX_FRACTION_DIGITS} fraction digits`,
    );
  }
  return `${sign}${integer}${kept === '' ? '' : `.${kept}`}`;
}

const POINT = 0x2e;
const ZERO = 0x30;
const NINE = 0x39;
/** So many digits are certain to be exact in a double, and so is their quotient by a power of ten up to 10^22. */
const EXACT_DIGITS = 15;
const POWERS_OF_TEN = Array.from({ length: MAX_FRACTION_DIGITS + 1 }, (_, exponent) => 10 ** exponent);

/** Where the plain decimal without sign that starts at `start` ends; -1 when there is none, or it does not fit its column. */
export function decimalEnd(text: string, start: number): number {
  const point = digitsEnd(text, start);
  if (point === start || point - start > MAX_INTEGER_DIGITS) return -1;
  if (text.charCodeAt(point) !== POINT) return point;
  const end = digitsEnd(text, point + 1);
  return end === point + 1 || end - point - 1 > MAX_FRACTION_DIGITS ? -1 : end;
}

function digitsEnd(text: string, start: number): number {
  let end = start;
  for (let code = text.charCodeAt(end); code >= ZERO && code <= NINE; code = text.charCodeAt(++end));
  return end;
}

/** `Number` of the plain decimal at `start` to `end`, to the same last bit and in half the time: for comparisons only. */
export function decimalNumber(text: string, start = 0, end = text.length): number {
  if (end - start > EXACT_DIGITS) return Number(text.slice(start, end));
  let digits = 0;
  let point = end - 1;
  for (let i = start; i < end; i++) {
    const code = text.charCodeAt(i);
    if (code >= ZERO && code <= NINE) digits = digits * 10 + code - ZERO;
    else if (code === POINT) point = i;
    else return Number(text.slice(start, end));
  }
  return digits / POWERS_OF_TEN[end - 1 - point]!;
}

/** True when plain decimal text stands for zero (`0`, `0.00000000`, `-0`). */
export function isZero(text: string): boolean {
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i);
    if (code >= 0x31 && code <= 0x39) return false;
  }
  return true;
}
