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
    .meta({ description: `A whole number from ${min} to ${max}.` });

/** @param first the default */
export const limit = (first: number, most: number) => wholeNumber(1, most).default(first);
export const offset = wholeNumber(0, MOST_OFFSET).default(0);

export const coin = z
  .string()
  .regex(/^[A-Z0-9]{1,20}$/, 'takes a coin such as BTC')
  .meta({ description: 'Such as BTC.' });

const ZONED = /(?:[zZ]|[+-]\d\d:?\d\d)$/;
const TIME = /^\d{4}-\d\d-\d\d(?:[ T]\d\d:\d\d(?::\d\d(?:\.\d{1,3})?)?)?(?:[zZ]|[+-]\d\d:?\d\d)?$/;

function time(zone: '+08:00' | 'Z', where: string) {
  return z
    .string()
    .transform((text, context) => {
      const ms = /^\d{12,14}$/.test(text) ? Number(text) : TIME.test(text) ? read(text, zone) : Number.NaN;
      if (!Number.isNaN(ms)) return ms;
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
