/** JSON whose numbers are longer than a double. */

/** Anything that could be a number of 16 digits or more; most frames have none. */
const MAYBE_LONG = /[\d.]{16}/;
/** A whole string, closed or not, so that no digit inside of one is ever taken for a number; or a number. */
const STRING_OR_NUMBER = /"(?:[^"\\]|\\[\s\S])*"?|-?\d[\d.eE+-]*/g;
const JSON_NUMBER = /^-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?$/;
/** What follows a value, as against a member's name. */
const AFTER_VALUE = /[^ \t\n\r]/g;
const EXACT_DIGITS = 15;

/**
 * JSON text in which each number of more than 15 digits is a string of the same digits: a double would round it. What is no
 * JSON before is none after, and the other way round.
 */
export function quoteLongNumbers(text: string): string {
  if (!MAYBE_LONG.test(text)) return text;
  return text.replace(STRING_OR_NUMBER, (token, offset: number) => {
    if (token.length <= EXACT_DIGITS || token[0] === '"' || !JSON_NUMBER.test(token)) return token;
    if (token.replace(/[eE].*$|\D/g, '').length <= EXACT_DIGITS) return token;
    AFTER_VALUE.lastIndex = offset + token.length;
    return AFTER_VALUE.exec(text)?.[0] === ':' ? token : `"${token}"`;
  });
}
