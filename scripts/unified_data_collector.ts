const USAGE = `
unified_data_collector.ts: every five minutes how many coins topped within two hours, what was liquidated within one, and how the coins changed.

Usage:   npx tsx scripts/unified_data_collector.ts [--once]
Example: tail -F data/unified/sar_top_count.jsonl data/unified/liquidation_1h.jsonl data/unified/coin_change_total.jsonl

Flags:
  --once    does what is due, and ends: exit 1 when something could not be had

Files, one JSON object a line and slot, in DATA/unified:
  sar_top_count.jsonl      distinct coins that were topping, by the rows of sar_slope_collector.ts; it waits for them
  liquidation_1h.jsonl     dollars that were liquidated on all exchanges, by ClickHouse: a sample, as venues do not tell all of them, and Deribit up
                           to 75 minutes late; USDT, USDC and USD are taken as one
  coin_change_total.jsonl  sum of the coins' changes of the day, by the newest half hour of coin_price_tracker.ts
What is not known is null with a reason, or missing until it is known, never 0. Slots that were missed are completed for ten days. Where an input is
completed or corrected later, the counts and changes made of it are corrected, too: of a slot the last record counts.

Environment: CLICKHOUSE_URL, CLICKHOUSE_USER, CLICKHOUSE_PASSWORD, MARKETPRISM_COLD_CLICKHOUSE_URL, MARKETPRISM_MODE (live, demo),
MARKETPRISM_DATA_DIR, MARKETPRISM_SERIES_DAYS (30), LOG_LEVEL.
`;

import { flags, runAsScript } from './lib/cli.ts';
import { type DeskContext, type DeskWork, runDesk } from './lib/desk/service.ts';
import { CoinChanges } from './lib/desk/unified_coin_change.ts';
import { LiquidationHours } from './lib/desk/unified_liquidation.ts';
import type { PartTurn, UnifiedPart } from './lib/desk/unified_series.ts';
import { TopCounts } from './lib/desk/unified_top_count.ts';

/**
 * The three series as one work. One that fails holds up no other: each has its own slots, and is written before it is said what failed. While
 * one fails the next look is up to a minute away, for all.
 * @param once an input that is late counts as what could not be had; a service waits for it
 */
export async function openUnified(context: DeskContext, once: boolean): Promise<DeskWork> {
  const parts: UnifiedPart[] = [
    await TopCounts.open(context),
    await CoinChanges.open(context),
    // The last: its database may take its time to answer.
    await LiquidationHours.open(context),
  ];
  return {
    async turn(stop) {
      const faults: string[] = [];
      for (const part of parts) {
        if (stop.aborted) break;
        const failedTurn = (error: Error): PartTurn => ({ failed: [`${part.name}: ${error.message}`], waiting: null });
        const { failed, waiting } = await part.turn(stop).catch(failedTurn);
        faults.push(...failed);
        if (once && waiting !== null) faults.push(waiting);
      }
      return faults;
    },
    async close() {
      for (const part of parts) await part.close();
    },
  };
}

async function main(): Promise<number> {
  const { once = false } = flags(USAGE, { once: { type: 'boolean' } });
  return runDesk('unified_data_collector', once, (context) => openUnified(context, once));
}

runAsScript(import.meta.url, main);
