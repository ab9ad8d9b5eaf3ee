/** Of unified_data_collector.ts: how many coins were topping within two hours, by the rows of sar_slope_collector.ts. */
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

const NAME = 'sar_top_count';
const INPUT = { name: 'sar_slope', file: 'sar_slope_jsonl/sar_slope_data.jsonl' };
const WINDOW_SLOTS = 24;

/** What is read of a row; one of another shape must not pass for one that is not topping. */
const SAR_ROW = z.object({
  slot: z.number().int(),
  symbol: z.string(),
  sar_position: z.enum(['bullish', 'bearish']),
  sar_quadrant: z.enum(['Q1', 'Q2', 'Q3', 'Q4']).nullable(),
  slope_direction: z.enum(['up', 'down']).nullable(),
  correction: z.literal(true).optional(),
});

export interface TopCount {
  /** The slot, ms, and in Beijing. */
  timestamp: number;
  datetime: string;
  timeframe: '2h';
  /** Distinct coins, 0 and more. */
  count: number;
  symbols: string[];
  /** Candles of the 24 of the window of which no coin is known; absent: none. */
  missing_slots?: number;
}

/** Whether a coin was topping, by candle and coin; null: its slope is not known yet. */
export class Toppings {
  private readonly candles = new Map<number, Map<string, boolean | null>>();
  /** Candles with a row that is none, and why. */
  private readonly bad = new Map<number, string>();
  /** Candles that were completed or corrected after later ones. */
  readonly corrected = new Set<number>();

  /** Takes a row; a later one of the same candle and coin replaces it. */
  add(record: { slot: number }): void {
    const row = recordAs(SAR_ROW, record);
    if (typeof row === 'string') {
      this.bad.set(record.slot, row);
      return;
    }
    const { slot, symbol, sar_position, sar_quadrant, slope_direction } = row;
    const isAbove = sar_quadrant === 'Q1' || sar_quadrant === 'Q2';
    const isTopping = sar_position === 'bullish' && slope_direction === 'down' && isAbove;
    const coins = this.candles.get(slot) ?? new Map<string, boolean | null>();
    this.candles.set(slot, coins.set(symbol, slope_direction === null ? null : isTopping));
    if (row.correction) this.corrected.add(slot);
  }

  /** Why a slot cannot be counted: then nobody was counted, which is not the same as nobody topping; null: it can. */
  faultAt(slot: number): string | null {
    const candles = windowOf(slot);
    const bad = candles.find((candle) => this.bad.has(candle));
    if (bad !== undefined) return `a row of ${INPUT.name} at ${beijingText(bad)} is none: ${this.bad.get(bad)}`;
    if (candles.some((candle) => this.coinsAt(candle).length > 0)) return null;
    return `${INPUT.name} has nothing of the two hours up to the slot`;
  }

  /**
   * The record of a slot, from the candles that closed in the two hours up to it.
   * @throws where `faultAt` says why
   */
  countAt(slot: number): TopCount {
    const fault = this.faultAt(slot);
    if (fault !== null) throw new Error(fault);
    const candles = windowOf(slot).map((candle) => this.coinsAt(candle));
    const topping = candles.flat().filter(([, isTopping]) => isTopping);
    const symbols = [...new Set(topping.map(([symbol]) => symbol))].sort();
    const missing = candles.filter((coins) => coins.length === 0).length;
    return {
      ...{ timestamp: slot, datetime: beijingText(slot), timeframe: '2h', count: symbols.length, symbols },
      ...(missing === 0 ? {} : { missing_slots: missing }),
    };
  }

  /** Coins of which it is known at a candle whether they were topping. */
  private coinsAt(candle: number): [symbol: string, isTopping: boolean][] {
    const coins = [...(this.candles.get(candle) ?? [])];
    return coins.filter((coin): coin is [string, boolean] => coin[1] !== null);
  }
}

/** The candles, by their open, that closed in the two hours up to a slot. */
function windowOf(slot: number): number[] {
  return Array.from({ length: WINDOW_SLOTS }, (_, n) => slot - (WINDOW_SLOTS - n) * SLOT_MS);
}

/** A slot waits for the candle that closes with it: a stall of the input is neither a 0 nor a smaller number. */
export class TopCounts implements UnifiedPart {
  readonly name = NAME;
  /** Corrections of the input when they were last looked at; null: not since the start. */
  private corrections: number | null = null;

  private constructor(
    private readonly context: DeskContext,
    private readonly out: UnifiedSeries,
  ) {}

  static async open(context: DeskContext): Promise<TopCounts> {
    return new TopCounts(context, await UnifiedSeries.open(context, NAME));
  }

  async turn(stop: AbortSignal): Promise<PartTurn> {
    const prepare = ([oldest]: readonly number[]) => {
      let toppings: Promise<Toppings> | undefined;
      return async (slot: number) => (await (toppings ??= this.toppings(oldest!))).countAt(slot);
    };
    const input = inputState(this.context.config.dataDir, INPUT.name);
    if (input === null || input.last_slot === null)
      return this.out.take(prepare, stop, null, `${INPUT.name} has no record yet`);
    const until = input.last_slot + SLOT_MS;
    const isLate = this.context.clock() - (until + SLOT_MS) > LATE_MS;
    const waiting = isLate ? `waits for ${INPUT.name}, which ends at ${beijingText(input.last_slot)}` : null;
    const turn = await this.out.take(prepare, stop, until, waiting);
    if (!stop.aborted && input.corrections !== this.corrections) {
      await this.correct();
      this.corrections = input.corrections;
    }
    return turn;
  }

  close(): Promise<void> {
    return this.out.close();
  }

  /** A candle that was completed or corrected changes the slots whose window it lies in. */
  private async correct(): Promise<void> {
    const { config, clock } = this.context;
    const from = clock() - catchUpMs(config);
    const records = await this.out.records(from);
    const toppings = await this.toppings(from);
    const affected = new Set<number>();
    for (const candle of toppings.corrected)
      for (let n = 1; n <= WINDOW_SLOTS; n += 1) affected.add(candle + n * SLOT_MS);
    for (const slot of [...affected].sort((one, other) => one - other)) {
      const before = records.get(slot);
      if (before !== undefined && toppings.faultAt(slot) === null)
        this.out.correct(slot, before, toppings.countAt(slot));
    }
  }

  /** What the windows of the slots from `slot` on are made of. */
  private async toppings(slot: number): Promise<Toppings> {
    const toppings = new Toppings();
    const file = join(this.context.config.dataDir, INPUT.file);
    for await (const record of recordsOf(file, slot - WINDOW_SLOTS * SLOT_MS)) toppings.add(record);
    return toppings;
  }
}
