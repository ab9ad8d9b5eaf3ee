/**
 * Binance's trade and diff frames read by their own shape. Text that is exactly as the venue writes it, which is nearly all
 * of it, is read without JSON.parse; any other text is left to JSON.parse.
 */
import { decimalNumber } from '../lib/decimal.ts';
import { scanLevels, type WireRecord } from '../lib/wire.ts';

/** Parts of JSON that JSON.parse reads as they stand: text without escapes, numbers that a double holds, plain decimals. */
const TEXT = String.raw`[^"\\\x00-\x1f]*`;
const INTEGER = String.raw`(?:0|[1-9]\d{0,14})`;
const DECIMAL = String.raw`\d{1,20}(?:\.\d{1,18})?`;
/** `st` 2 would be COIN-M. */
const END = String.raw`(?:,"st":1)?\}\}`;

/** A trade frame, member for member as the venue sends it today. */
function plainTrade(event: string, id: string): RegExp {
  return new RegExp(
    `^\\{"stream":"${TEXT}","data":\\{"e":"${event}","E":${INTEGER}(?:,"T":(${INTEGER}))?,"s":"(${TEXT})",` +
      `"${id}":(${INTEGER}),"p":"(${DECIMAL})","q":"(${DECIMAL})"(?:,"nq":"${TEXT}")?(?:,"f":${INTEGER},"l":${INTEGER})?` +
      `(?:,"T":(${INTEGER}))?(?:,"X":"MARKET")?,"m":(true|false)(?:,"M":(?:true|false))?${END}$`,
  );
}

const PLAIN_TRADE = plainTrade('trade', 't');
const PLAIN_AGG_TRADE = plainTrade('aggTrade', 'a');

/** A diff frame up to its bids, and what ends it. */
const PLAIN_DIFF = new RegExp(
  `^\\{"stream":"${TEXT}","data":\\{"e":"depthUpdate","E":(${INTEGER})(?:,"T":(${INTEGER}))?,"s":"(${TEXT})"` +
    `(?:,"ps":"${TEXT}")?,"U":(${INTEGER}),"u":(${INTEGER})(?:,"pu":(${INTEGER}))?,"b":`,
);
const PLAIN_DIFF_END = new RegExp(`^${END}$`);

/** What `tradeRow` reads of a frame, with its id as text. */
interface TradeData extends WireRecord {
  id: string;
}

/**
 * A trade frame whose text is exactly as the venue writes it, which is nearly all of them, in a third of JSON.parse's time; null
 * for any other text: JSON.parse has to look at it. What this reads, JSON.parse would read the same (test/encode.test.ts).
 */
export function scanTrade(text: string): TradeData | null {
  const match = PLAIN_TRADE.exec(text) ?? PLAIN_AGG_TRADE.exec(text);
  if (match === null) return null;
  const time = match[6] ?? match[1];
  return {
    T: time === undefined ? undefined : decimalNumber(time),
    s: match[2],
    id: match[3]!,
    p: match[4],
    q: match[5],
    m: match[7] === 'true',
  };
}

/** The same for a diff. */
export function scanDiff(text: string): WireRecord | null {
  const match = PLAIN_DIFF.exec(text);
  if (match === null) return null;
  const b = scanLevels(text, match[0].length);
  if (b === null || !text.startsWith(',"a":', b.end)) return null;
  const a = scanLevels(text, b.end + 5);
  if (a === null || !PLAIN_DIFF_END.test(text.slice(a.end))) return null;
  return {
    E: Number(match[1]),
    T: match[2] === undefined ? undefined : Number(match[2]),
    s: match[3],
    U: Number(match[4]),
    u: Number(match[5]),
    pu: match[6] === undefined ? undefined : Number(match[6]),
    b,
    a,
  };
}
