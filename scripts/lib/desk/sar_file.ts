/** The SAR rows as they are stored: read back, checked against what their own candles give, and gone on from. */
import { z } from 'zod';
import { recordsOf } from '../series.ts';
import { SarChain } from './sar.ts';

/** Below the data directory. */
export const SAR_FILE = 'sar_slope_jsonl/sar_slope_data.jsonl';
export const SUMMARY_FILE = 'sar_slope_jsonl/sar_slope_summary.jsonl';

/** Rows of a coin from which its chain goes on: the window of its slope. */
const CHAIN_ROWS = 10;
/** From so many on the SAR itself follows. */
const SAR_ROWS = 2;

/** A price: a number, or the venue's text. */
const price = z
  .union([z.number(), z.string().regex(/^\d+(\.\d+)?$/, 'is no price')])
  .pipe(z.coerce.number<number | string>().positive());

/** A finished candle as other programs give it. */
export const CANDLE = z
  .object({
    symbol: z.string().min(1),
    timestamp: z.number().int().positive(),
    open: price,
    high: price,
    low: price,
    close: price,
  })
  .refine(({ open, high, low, close }) => high >= Math.max(open, close, low) && low <= Math.min(open, close), {
    message: 'high and low do not hold open and close',
  });

/** A SAR row, as far as it is read back. */
export const STORED = z.object({
  symbol: z.string(),
  timestamp: z.number(),
  open: z.number(),
  high: z.number(),
  low: z.number(),
  close: z.number(),
  sar_value: z.number(),
  sar_position: z.enum(['bullish', 'bearish']),
  sar_quadrant: z.enum(['Q1', 'Q2', 'Q3', 'Q4']),
  sequence: z.number(),
  slope_value: z.number().nullable(),
  slope_direction: z.enum(['up', 'down']).nullable(),
  ep: z.number(),
  af: z.number(),
});
export type StoredSar = z.infer<typeof STORED>;

/**
 * Reads the rows of a time, computes each anew from those before it, and gives each coin's chain as its last rows leave it.
 * @param since ms: rows of candles before it are left out
 * @param each told of every row
 * @returns `differing`: rows that are not what their candles give, as `COIN TIME`
 */
export async function readChains(
  file: string,
  since: number,
  each: (row: StoredSar) => void,
): Promise<{ chains: Map<string, SarChain>; differing: string[] }> {
  const differing: string[] = [];
  const coins = new Map<string, { rows: StoredSar[]; seen: number; proof: SarChain | null }>();
  for await (const record of recordsOf(file, since)) {
    const row = STORED.parse(record);
    each(row);
    let coin = coins.get(row.symbol);
    if (!coin) coins.set(row.symbol, (coin = { rows: [], seen: 0, proof: null }));
    coin.seen += 1;
    // The file may begin in the middle of a chain: of its first rows nothing before is known.
    if (coin.seen > SAR_ROWS) {
      coin.proof ??= new SarChain(row.symbol, coin.rows);
      if (!isSame(coin.proof, row, coin.seen > CHAIN_ROWS)) {
        differing.push(`${row.symbol} ${new Date(row.timestamp).toISOString()}`);
        // One wrong row is one, and not all that follow.
        coin.proof = null;
      }
    }
    coin.rows.push(row);
    if (coin.rows.length > CHAIN_ROWS) coin.rows.shift();
  }
  const chains = new Map([...coins].map(([symbol, { rows }]) => [symbol, new SarChain(symbol, rows)]));
  return { chains, differing };
}

function isSame(proof: SarChain, row: StoredSar, hasWindow: boolean): boolean {
  if (proof.last !== null && row.timestamp <= proof.last) return false;
  const again = proof.add(row);
  const members: (keyof StoredSar)[] = ['sar_value', 'sar_position', 'sar_quadrant', 'sequence', 'ep', 'af'];
  if (hasWindow) members.push('slope_value', 'slope_direction');
  return members.every((member) => again[member] === row[member]);
}
