/** Parameters that several routes take. */
import { z } from 'zod';

const MOST_OFFSET = 10_000_000;

/** Digits only: `1e3` and ` 7` are no numbers to people. */
export const wholeNumber = (min: number, max: number) =>
  z
    .string()
    .regex(/^\d{1,15}$/, `takes a whole number from ${min} to ${max}`)
    .transform(Number)
    .pipe(z.number().min(min).max(max))
    .meta({ description: `A whole number from ${min} to ${max}.`, ...described(min, max) });

/** To who reads the description it is a number, though it arrives as text. */
const described = (minimum: number, maximum: number) => ({ type: 'integer', pattern: undefined, minimum, maximum });

/** @param first the default */
export const limit = (first: number, most: number) => wholeNumber(1, most).default(first);
export const offset = wholeNumber(0, MOST_OFFSET).default(0);

export const coin = z
  .string()
  .regex(/^[A-Z0-9]{1,20}$/, 'takes a coin such as BTC')
  .meta({ description: 'Such as BTC.' });

/** Beyond it (2100-01-01) a number is µs or ns, and not ms. */
const LATEST_MS = 4_102_444_800_000;

/** Whether ms are of a time that we may have to do with; not when they are no number. */
export const isTime = (ms: number) => ms >= 0 && ms < LATEST_MS;

/** Whether a text begins with a day that there is: JavaScript takes February 30 for March 2. */
export function hasDay(text: string): boolean {
  const day = text.slice(0, 10);
  const ms = Date.parse(`${day}T00:00:00Z`);
  return !Number.isNaN(ms) && new Date(ms).toISOString().startsWith(day);
}

const ZONED = /(?:[zZ]|[+-]\d\d:?\d\d)$/;
const TIME = /^\d{4}-\d\d-\d\d(?:[ T]\d\d:\d\d(?::\d\d(?:\.\d{1,3})?)?)?(?:[zZ]|[+-]\d\d:?\d\d)?$/;

function time(zone: '+08:00' | 'Z', where: string) {
  return z
    .string()
    .transform((text, context) => {
      const isText = TIME.test(text) && hasDay(text);
      const ms = /^\d{12,13}$/.test(text) ? Number(text) : isText ? read(text, zone) : Number.NaN;
      if (isTime(ms)) return ms;
      context.issues.push({ code: 'custom', message: 'takes a time such as 2026-11-20 08:00:00, or ms', input: text });
      return z.NEVER;
    })
    .meta({ description: `ms since the epoch, or a time such as 2026-11-20 08:00:00; without a zone ${where}.` });
}

function read(text: string, zone: string): number {
  const isDay = text.length === 10;
  return Date.parse(
    isDay ? `${text}T00:00:00${zone}` : `${text.replace(' ', 'T')}${ZONED.test(text.slice(10)) ? '' : zone}`,
  );
}

/** As the desk's records have it. */
export const beijingTime = time('+08:00', 'in Beijing');
export const utcTime = time('Z', 'in UTC');
