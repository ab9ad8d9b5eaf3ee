/** Of unified_data_collector.ts: how much the coins have changed since the day began, by the records of coin_price_tracker.ts. */
import { join } from 'node:path';
import { z } from 'zod';
import { recordsOf } from '../series.ts';
import { beijingText } from './beijing.ts';
import type { DeskContext } from './service.ts';
import {
  catchUpMs,
  inputState,
  LATE_MS,
  type PartTurn,
  recordAs,
  SLOT_MS,
  type UnifiedPart,
  UnifiedSeries,
} from './unified_series.ts';

const NAME = 'coin_change_total';
const INPUT = { name: 'coin_prices', file: 'coin_price_tracker/coin_prices_30min.jsonl' };
const HALF_HOUR_MS = 1_800_000;
/** A record is of use until the next one should be there, and a slot more. */
const OLDEST_MS = HALF_HOUR_MS + SLOT_MS;

/** What is read of a record; percent. */
const PRICES = z.object({
  slot: z.number().int(),
  total_change: z.number().nullable(),
  average_change: z.number().nullable(),
  valid_coins: z.number().int().nullable(),
});
/** A record, or why it is none. */
export type Prices = z.infer<typeof PRICES> | string;

export interface CoinChange {
  /** The slot, ms, and in Beijing. */
  timestamp: number;
  datetime: string;
  /** Sum and mean of the coins' changes since the day of Beijing began, percent; null: not known. */
  total_change: number | null;
  average_change: number | null;
  valid_coins: number | null;
  /** The half hour of which they are, ms. */
  source_slot: number | null;
  /** Why they are not known; null: they are. */
  reason: string | null;
}

/**
 * The record of a slot.
 * @param prices records by their slot, as they stand
 * @param last the newest slot of which there is one, ms
 */
export function coinChange(slot: number, prices: ReadonlyMap<number, Prices>, last: number | null): CoinChange {
  const place = { timestamp: slot, datetime: beijingText(slot) };
  const half = Math.floor(slot / HALF_HOUR_MS) * HALF_HOUR_MS;
  const absent = (reason: string): CoinChange => {
    const nothing = { total_change: null, average_change: null, valid_coins: null, source_slot: null };
    return { ...place, ...nothing, reason };
  };
  if (last === null || last < half) return absent(`${INPUT.name} has no record of ${beijingText(half)} yet`);
  // The newest that is young enough is one of these two.
  const source = prices.get(half) ?? prices.get(half - HALF_HOUR_MS);
  if (typeof source === 'string') return absent(source);
  if (source === undefined || slot - source.slot > OLDEST_MS)
    return absent(`${INPUT.name} has no record of ${beijingText(half)}`);
  const { slot: source_slot, total_change, average_change, valid_coins } = source;
  if (total_change === null) return absent(`${INPUT.name} has no change in its record of ${beijingText(source_slot)}`);
  return { ...place, total_change, average_change, valid_coins, source_slot, reason: null };
}

export class CoinChanges implements UnifiedPart {
  readonly name = NAME;
  /** How the input stood when it was last compared; empty: not since the start. */
  private compared = '';

  private constructor(
    private readonly context: DeskContext,
    private readonly out: UnifiedSeries,
  ) {}

  static async open(context: DeskContext): Promise<CoinChanges> {
    return new CoinChanges(context, await UnifiedSeries.open(context, NAME));
  }

  async turn(stop: AbortSignal): Promise<PartTurn> {
    const now = this.context.clock();
    const input = inputState(this.context.config.dataDir, INPUT.name);
    const last = input?.last_slot ?? null;
    // Slots of the half hour of the newest record; a slot that is late is written without.
    const known = last === null ? Number.NEGATIVE_INFINITY : last + HALF_HOUR_MS - SLOT_MS;
    const until = Math.max(known, now - LATE_MS);
    const prepare = ([oldest]: readonly number[]) => {
      let prices: Promise<Map<number, Prices>> | undefined;
      return async (slot: number) => coinChange(slot, await (prices ??= this.prices(oldest!)), last);
    };
    const turn = await this.out.take(prepare, stop, until, known < now - LATE_MS - SLOT_MS ? late(last) : null);
    const stand = `${last} ${input?.corrections} ${input?.last_write}`;
    if (!stop.aborted && last !== null && stand !== this.compared) {
      await this.correct(last);
      this.compared = stand;
    }
    return turn;
  }

  close(): Promise<void> {
    return this.out.close();
  }

  /** A record that came late, or was corrected, changes the slots that were, or should have been, made of it. */
  private async correct(last: number): Promise<void> {
    const { config, clock } = this.context;
    const from = clock() - catchUpMs(config);
    const prices = await this.prices(from);
    for (const [slot, before] of await this.out.records(from)) {
      const record = coinChange(slot, prices, last);
      // What is known is never replaced by nothing.
      if (record.reason === null) this.out.correct(slot, before, record);
    }
  }

  /** What the slots from `slot` on are made of. */
  private async prices(slot: number): Promise<Map<number, Prices>> {
    const prices = new Map<number, Prices>();
    const file = join(this.context.config.dataDir, INPUT.file);
    for await (const record of recordsOf(file, slot - 2 * HALF_HOUR_MS)) {
      const row = recordAs(PRICES, record);
      const isNone = `the record of ${INPUT.name} at ${beijingText(record.slot)} is none: ${row}`;
      prices.set(record.slot, typeof row === 'string' ? isNone : row);
    }
    return prices;
  }
}

function late(last: number | null): string {
  return last === null ? `${INPUT.name} has no record yet` : `${INPUT.name} ends at ${beijingText(last)}`;
}
