/** Rows of trades and books as the harvest takes them: from normalize.ts, or from messages of JetStream. */
import type { Level, OrderbookRow, OrderbookUpdateRow, TradeRow } from '../rows.ts';

export type HarvestInput =
  | { type: 'trade'; row: TradeRow }
  | { type: 'orderbook'; row: OrderbookRow }
  | { type: 'orderbook_update'; row: OrderbookUpdateRow };

/** Types that the harvest stands on; all others are passed by. */
const TYPES = ['trade', 'orderbook', 'orderbook_update'] as const;

const isText = (value: unknown): boolean => typeof value === 'string' && value !== '';
const isTime = (value: unknown): boolean => typeof value === 'number' && Number.isSafeInteger(value) && value >= 0;
const isDecimal = (value: unknown): boolean => typeof value === 'string' && /^\d{1,20}(?:\.\d{1,18})?$/.test(value);
/** Ids of books are counted with, so that one beyond 2^53 would be another one. */
const isId = isTime;
const isIdOrNull = (value: unknown): boolean => value === null || isId(value);
const isBool = (value: unknown): boolean => typeof value === 'boolean';

function areLevels(value: unknown): value is Level[] {
  if (!Array.isArray(value)) return false;
  return value.every((each) => Array.isArray(each) && each.length === 2 && isDecimal(each[0]) && isDecimal(each[1]));
}

const HEAD = { exchange: isText, market_type: isText, symbol: isText, timestamp: isTime, received_at: isTime };
const MEMBERS: Record<HarvestInput['type'], Record<string, (value: unknown) => boolean>> = {
  trade: { ...HEAD, trade_id: isText, sequence: isIdOrNull, price: isDecimal, quantity: isDecimal, is_maker: isBool },
  orderbook: { ...HEAD, last_update_id: isId, bids: areLevels, asks: areLevels },
  orderbook_update: {
    ...HEAD,
    ...{ first_update_id: isIdOrNull, last_update_id: isId, prev_update_id: isIdOrNull, is_snapshot: isBool },
    ...{ bids: areLevels, asks: areLevels },
  },
};

/**
 * The row of a parsed line; null where it is of a type that the harvest does not stand on.
 * @throws Error naming the member that is not what it should be
 */
export function harvestInput(type: unknown, value: unknown): HarvestInput | null {
  if (typeof value !== 'object' || value === null) throw new Error('no object');
  if (!TYPES.includes(type as HarvestInput['type'])) {
    if (typeof type === 'string') return null;
    throw new Error('type: is missing');
  }
  const row = value as Record<string, unknown>;
  for (const [name, isSound] of Object.entries(MEMBERS[type as HarvestInput['type']])) {
    if (!isSound(row[name])) throw new Error(`${name}: ${JSON.stringify(row[name])?.slice(0, 60) ?? 'is missing'}`);
  }
  return { type, row } as unknown as HarvestInput;
}
