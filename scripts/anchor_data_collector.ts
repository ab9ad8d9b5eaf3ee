const USAGE = `
anchor_data_collector.ts: every five minutes how many of the owner's positions on OKX lose, and how many win how much, by their margin.

Usage:   npx tsx scripts/anchor_data_collector.ts [--once]
Example: OKX_API_KEY=... OKX_API_SECRET=... OKX_API_PASSPHRASE=... npx tsx scripts/anchor_data_collector.ts
         tail -F data/anchor/anchor_profit_stats.jsonl

Flags:
  --once    takes the present slot, and ends: exit 1 when it could not be had

File, one JSON object a line and slot: DATA/anchor/anchor_profit_stats.jsonl. What positions were at an earlier time cannot be asked: a slot is
taken within two and a half minutes of its beginning, or it is missing for good, which integrity.ts tells.

Without a key it says so and ends with exit 0. A key with the permission to read is enough: nothing is ever changed.

Environment: OKX_API_KEY, OKX_API_SECRET, OKX_API_PASSPHRASE, MARKETPRISM_MODE (live: "real", demo: "simulated"), MARKETPRISM_DATA_DIR,
MARKETPRISM_ENDPOINTS, LOG_LEVEL.
`;

import { flags, runAsScript } from './lib/cli.ts';
import { loadConfig } from './lib/config.ts';
import { plainDecimal } from './lib/decimal.ts';
import { beijingText } from './lib/desk/beijing.ts';
import { OkxDesk, type Position } from './lib/desk/okx.ts';
import { type DeskContext, type DeskWork, runDesk } from './lib/desk/service.ts';
import { createLogger } from './lib/log.ts';
import { Series, type SeriesPlan, slotOf } from './lib/series.ts';

const SLOT_MS = 300_000;
/** Positions asked later than this are nearer to the next slot. */
const TAKEN_WITHIN_MS = SLOT_MS / 2;
const PLAN = {
  ...{ name: 'anchor', file: 'anchor/anchor_profit_stats.jsonl', cadenceMs: SLOT_MS },
  // None: only the present slot can be had.
  catchUpSlots: 0,
} satisfies SeriesPlan;
const NO_KEY =
  'no key of OKX: set OKX_API_KEY, OKX_API_SECRET and OKX_API_PASSPHRASE for the positions to be looked at';

/** Positions by their profit, percent of their margin; one that wins 120 is among those of 80, too, and one that loses among those up to 40. */
export interface ProfitCounts {
  loss: number;
  lte_40: number;
  gte_80: number;
  gte_120: number;
}

export interface AnchorRecord {
  /** The slot, ms, and in Beijing. */
  timestamp: number;
  datetime: string;
  trade_mode: 'real' | 'simulated';
  stats: { long: ProfitCounts; short: ProfitCounts };
  positions_count: number;
  /** Positions whose profit by margin is not known: they are in no class. */
  unknown: number;
}

type Side = keyof AnchorRecord['stats'];

/** @param slot ms since the epoch */
export function anchorRecord(
  slot: number,
  positions: readonly Position[],
  trade_mode: AnchorRecord['trade_mode'],
): AnchorRecord {
  const none = (): ProfitCounts => ({ loss: 0, lte_40: 0, gte_80: 0, gte_120: 0 });
  const stats = { long: none(), short: none() };
  let unknown = 0;
  for (const position of positions) {
    const [side, compare] = [sideOf(position), profitOf(position)];
    if (side === null || compare === null) {
      unknown += 1;
      continue;
    }
    const counts = stats[side];
    if (compare(0n) < 0) counts.loss += 1;
    if (compare(40n) <= 0) counts.lte_40 += 1;
    if (compare(80n) >= 0) counts.gte_80 += 1;
    if (compare(120n) >= 0) counts.gte_120 += 1;
  }
  const place = { timestamp: slot, datetime: beijingText(slot), trade_mode };
  return { ...place, stats, positions_count: positions.length, unknown };
}

/** In net mode the sign of the size tells; null: there is no size. */
function sideOf({ posSide, pos }: Position): Side | null {
  if (posSide !== 'net') return posSide;
  const size = pos === '' ? 0n : scaled(pos);
  return size === 0n ? null : size > 0n ? 'long' : 'short';
}

/** How a position's profit compares to so many percent of its margin: negative, 0 or positive; null: it has no margin, or no profit. */
function profitOf({ mgnMode, margin, imr, upl }: Position): ((percent: bigint) => bigint) | null {
  const text = mgnMode === 'isolated' ? margin : imr;
  if (text === '' || upl === '') return null;
  const [own, profit] = [scaled(text), scaled(upl)];
  // Without a division nothing is rounded at the edges.
  return own > 0n ? (percent) => profit * 100n - percent * own : null;
}

/** A decimal in units of its 18th place. */
function scaled(text: string): bigint {
  const [whole, fraction = ''] = plainDecimal(text).split('.') as [string, string?];
  return BigInt(whole + fraction.padEnd(18, '0'));
}

/** Takes each slot in its first minutes, and tells those that can never be had. */
export class AnchorWork implements DeskWork {
  /** The slot that was last asked for in vain, and why. */
  private failed: { slot: number; why: string } | null = null;
  /** The slot that was last told to be lost. */
  private lost: number | null = null;

  private constructor(
    private readonly context: DeskContext,
    private readonly series: Series,
    private readonly positions: () => Promise<Position[]>,
    private readonly once: boolean,
  ) {}

  /**
   * @param positions the present ones
   * @param once a slot whose time is over counts as what could not be had; a service waits for the next one
   */
  static async open(context: DeskContext, positions: () => Promise<Position[]>, once: boolean): Promise<AnchorWork> {
    const { config, clock, log } = context;
    const series = await Series.open(config.dataDir, PLAN, clock, log);
    const { last_slot: last } = series.state;
    const away = last === null ? 0 : (slotOf(clock(), PLAN) - last) / SLOT_MS - 1;
    if (away > 0) log.warn({ event: 'slots_lost', slots: away, after: beijingText(last!) }, 'nobody was there');
    return new AnchorWork(context, series, positions, once);
  }

  async turn(stop: AbortSignal): Promise<string[]> {
    const { config, clock } = this.context;
    const now = clock();
    const slot = slotOf(now, PLAN);
    if (this.series.due(now).length === 0) return [];
    if (now - slot >= TAKEN_WITHIN_MS) return this.lose(slot);
    const mode = config.mode === 'live' ? 'real' : 'simulated';
    const compute = async (each: number) => [anchorRecord(each, await this.positions(), mode)];
    const failed = await this.series.turn(compute, stop, now);
    if (failed.length === 0) return [];
    this.failed = { slot, why: this.series.state.error! };
    return [this.failed.why];
  }

  close(): Promise<void> {
    return this.series.close();
  }

  /** A slot whose time is over stays missing. It is told once; as a fault only where it was asked for. */
  private lose(slot: number): string[] {
    const why = this.failed?.slot === slot ? this.failed.why : 'it was not asked for in its time';
    const told = `the slot of ${beijingText(slot)} could be taken until ${beijingText(slot + TAKEN_WITHIN_MS)}: ${why}`;
    if (slot !== this.lost) {
      this.lost = slot;
      this.context.log.warn({ event: 'slot_lost' }, told);
      this.series.ran(false, told);
    }
    return this.once || this.failed?.slot === slot ? [told] : [];
  }
}

async function main(): Promise<number> {
  const { once = false } = flags(USAGE, { once: { type: 'boolean' } });
  const { okxKey } = loadConfig();
  if (okxKey === undefined) {
    createLogger('anchor_data_collector').info({ event: 'no_key' }, NO_KEY);
    process.stderr.write(`${NO_KEY}\n`);
    return 0;
  }
  return runDesk('anchor_data_collector', once, async (context) => {
    const desk = new OkxDesk(context.config, context.log, context.clock);
    const work = await AnchorWork.open(context, () => desk.positions(okxKey), once);
    return {
      turn: (stop) => work.turn(stop),
      async close() {
        await work.close();
        await desk.close();
      },
    };
  });
}

runAsScript(import.meta.url, main);
