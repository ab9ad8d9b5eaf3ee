const USAGE = `
sar_slope_collector.ts: parabolic SAR and its slope of the desk's coins, by OKX's five-minute candles, and each minute how the coins stand.

Usage:   npx tsx scripts/sar_slope_collector.ts [--once]
Example: tail -F data/sar_slope_jsonl/sar_slope_data.jsonl
         npx tsx scripts/sar_slope_collector.ts --stdin < candles.ndjson

Flags:
  --once    does what is due, and ends: exit 1 when something could not be had
  --stdin   reads candles {"symbol","timestamp","open","high","low","close"} (ms, each symbol's in order), writes their SAR rows

Files, one JSON object a line: DATA/sar_slope_jsonl/sar_slope_data.jsonl (a record per coin and finished candle) and sar_slope_summary.jsonl (one a minute).
Candles that were missed are fetched back. The first start begins eight days back, so that ranges of seven days are whole at once.

Environment: MARKETPRISM_DESK_COINS (27 coins), MARKETPRISM_SERIES_DAYS (30), MARKETPRISM_DATA_DIR, MARKETPRISM_ENDPOINTS, LOG_LEVEL.
`;

import { join } from 'node:path';
import { flags, runAsScript } from './lib/cli.ts';
import { DeskRequestFailed, OkxDesk, swapOf } from './lib/desk/okx.ts';
import { CANDLE_MS, candleOf, SarChain, type SarRow, summaryOf } from './lib/desk/sar.ts';
import { CANDLE, readChains, SAR_FILE, STORED, SUMMARY_FILE } from './lib/desk/sar_file.ts';
import { type DeskContext, type DeskWork, runDesk } from './lib/desk/service.ts';
import { transformStdin } from './lib/desk/stdin.ts';
import { recordsOf, Series, type SeriesPlan } from './lib/series.ts';
import { steadyNow } from './lib/steady.ts';

const MINUTE_MS = 60_000;
const DAY_MS = 86_400_000;
/** Seven days of range, and a day for which they are whole. */
const BEGIN_MS = 8 * DAY_MS;
/** A finished candle is served about as soon as it is over; asked for at once it would only be asked for twice. */
const SETTLE_MS = 2000;
/** So long a coin whose candle cannot be had is waited for, before those of the others are written without it. */
const PATIENCE_MS = 120_000;
/** Waits before a coin is asked for again: after a failure, and where the venue does not have it. */
const RETRY_MS = 10_000;
const UNKNOWN_RETRY_MS = 600_000;
/** Candles of each coin that are worked on at once: one request, and little memory. */
const CHUNK_CANDLES = 288;
/** Requests under way. */
const AT_ONCE = 4;

interface Coin {
  symbol: string;
  chain: SarChain;
  /** Since when its candles cannot be had, steady clock, ms; null: they can. */
  failingSince: number | null;
  /** It is asked for again from then on, steady clock, ms. */
  notBefore: number;
}

/** As much of a row as the summary of its minutes needs. */
type Standing = Pick<SarRow, 'symbol' | 'sar_position' | 'slope_value'>;

export class SarCollector implements DeskWork {
  /** Rows whose slot is not written yet, as other coins are waited for. */
  private readonly pending = new Map<number, SarRow[]>();

  private constructor(
    private readonly context: DeskContext,
    private readonly desk: OkxDesk,
    private readonly rows: Series,
    private readonly summaries: Series,
    private readonly coins: readonly Coin[],
    /** Rows of candles whose minutes have no summary yet, by slot. */
    private readonly standing: Map<number, Standing[]>,
  ) {}

  /** @throws OperatorError when another process has the series */
  static async open(context: DeskContext): Promise<SarCollector> {
    const { config, log, clock } = context;
    const { dataDir, seriesDays, deskCoins } = config;
    const plan = (name: string, file: string, cadenceMs: number): SeriesPlan => {
      return { name, file, cadenceMs, catchUpSlots: (seriesDays * DAY_MS) / cadenceMs };
    };
    const ofRows = { ...plan('sar_slope', SAR_FILE, CANDLE_MS), delayMs: CANDLE_MS };
    const rows = await Series.open(dataDir, ofRows, clock, log);
    const summaries = await Series.open(dataDir, plan('sar_slope_summary', SUMMARY_FILE, MINUTE_MS), clock, log);
    const last = summaries.state.last_slot;
    const standing = new Map<number, Standing[]>();
    const since = (rows.state.last_slot ?? clock()) - seriesDays * DAY_MS;
    const { chains, differing } = await readChains(join(dataDir, SAR_FILE), since, (row) => {
      if (last !== null && row.timestamp >= candleOf(last)) add(standing, row.timestamp, row);
    });
    if (differing.length > 0) {
      const first = differing.slice(0, 3);
      log.error({ event: 'sar_differs', rows: differing.length, first }, 'stored rows are not what their candles give');
    }
    const coins = deskCoins.map((symbol) => {
      const chain = chains.get(symbol) ?? new SarChain(symbol);
      return { symbol, chain, failingSince: null, notBefore: 0 };
    });
    return new SarCollector(context, new OkxDesk(config, log, clock), rows, summaries, coins, standing);
  }

  async turn(stop: AbortSignal): Promise<string[]> {
    const faults: string[] = [];
    for (;;) {
      const newest = candleOf(this.context.clock() - SETTLE_MS);
      const written = this.rows.state.last_slot;
      const begin = written === null ? newest - BEGIN_MS : written + CANDLE_MS;
      const behind = this.coins.filter(
        ({ chain, notBefore }) => next(chain, begin) <= newest && notBefore <= steadyNow(),
      );
      const oldest = Math.min(...behind.map(({ chain }) => next(chain, begin)));
      const to = Math.min(newest, oldest + (CHUNK_CANDLES - 1) * CANDLE_MS);
      faults.push(...(await this.fetch(behind, begin, to, stop)));
      const late = this.writeRows();
      await this.writeSummaries(late, stop);
      const isOn = (this.rows.state.last_slot ?? 0) > (written ?? 0) || late.length > 0;
      if (!isOn || to === newest || stop.aborted) break;
    }
    const newest = candleOf(this.context.clock() - SETTLE_MS);
    const isDone = (this.rows.state.last_slot ?? 0) >= newest;
    const unknown = this.coins.filter(({ failingSince }) => failingSince !== null).map(({ symbol }) => symbol);
    const lacks = unknown.length === 0 ? null : `no candles of ${unknown.join(', ')}`;
    this.rows.ran(isDone, isDone ? lacks : (faults[0] ?? lacks ?? 'the newest candles are not there yet'));
    return isDone || stop.aborted ? faults : [...faults, `no slot ${new Date(newest).toISOString()} yet`];
  }

  async close(): Promise<void> {
    await this.desk.close();
    await this.rows.close();
    await this.summaries.close();
  }

  /** Fetches what each coin lacks up to `to`, and follows its chain. @returns what failed */
  private async fetch(coins: readonly Coin[], begin: number, to: number, stop: AbortSignal): Promise<string[]> {
    const faults: string[] = [];
    const queue = [...coins];
    const work = async () => {
      for (let coin = queue.shift(); coin !== undefined && !stop.aborted; coin = queue.shift()) {
        const { symbol, chain } = coin;
        const from = next(chain, begin);
        if (from > to) continue;
        try {
          for (const { start, open, high, low, close } of await this.desk.candles(swapOf(symbol), '5m', from, to)) {
            const [o, h, l, c] = [open, high, low, close].map(Number) as [number, number, number, number];
            const row = chain.add({ timestamp: start, open: o, high: h, low: l, close: c });
            add(this.pending, start, row);
          }
          coin.failingSince = null;
        } catch (error) {
          const isUnknown = error instanceof DeskRequestFailed && error.isUnknownInstrument;
          coin.notBefore = steadyNow() + (isUnknown ? UNKNOWN_RETRY_MS : RETRY_MS);
          // What the venue does not have is not waited for.
          coin.failingSince ??= isUnknown ? Number.NEGATIVE_INFINITY : steadyNow();
          faults.push(`${symbol}: ${(error as Error).message}`);
        }
      }
    };
    await Promise.all(Array.from({ length: AT_ONCE }, work));
    return faults;
  }

  /** Writes slots in their order, as far as they are whole, or what they lack is not waited for any more. @returns those that came late */
  private writeRows(): number[] {
    const late: number[] = [];
    const whole: [number, SarRow[]][] = [];
    const { state } = this.rows;
    for (const [slot, rows] of [...this.pending].sort(([one], [other]) => one - other)) {
      if (state.last_slot !== null && slot <= state.last_slot) {
        if (state.missing.includes(slot)) this.rows.write(slot, rows);
        else this.rows.correct(slot, rows);
        late.push(slot);
      } else {
        if (this.coins.some((coin) => this.isWaitedFor(coin, slot))) break;
        whole.push([slot, rows]);
      }
      this.pending.delete(slot);
    }
    this.rows.writeAll(whole);
    for (const [slot, rows] of whole) this.standing.set(slot, rows);
    return late;
  }

  private isWaitedFor({ chain, failingSince }: Coin, slot: number): boolean {
    if (chain.last !== null && chain.last >= slot) return false;
    if (failingSince !== null) return steadyNow() - failingSince < PATIENCE_MS;
    return this.context.clock() - (slot + CANDLE_MS) < PATIENCE_MS;
  }

  /** Tells of each minute whose candles are written, and again of those to whose candle a coin came late. */
  private async writeSummaries(late: readonly number[], stop: AbortSignal): Promise<void> {
    const { deskCoins, dataDir } = this.context.config;
    const { first_slot: begin, last_slot: last } = this.rows.state;
    if (begin === null || last === null) return;
    this.summaries.beginAt(begin + CANDLE_MS);
    const record = async (minute: number) => [summaryOf(minute, this.standing.get(candleOf(minute)) ?? [], deskCoins)];
    // Until the next candle is over.
    await this.summaries.turn(record, stop, last + 2 * CANDLE_MS - 1);
    const told = this.summaries.state.last_slot;
    if (told === null) return;
    for (const slot of this.standing.keys()) if (slot < candleOf(told)) this.standing.delete(slot);
    const [first, { missing, first_slot }] = [Math.min(...late), this.summaries.state];
    if (late.length === 0) return;
    const rows = new Map<number, Standing[]>(late.map((slot) => [slot, []]));
    for await (const row of recordsOf(join(dataDir, SAR_FILE), first)) {
      if (rows.has(row.slot)) add(rows, row.slot, STORED.parse(row));
    }
    for (const [slot, ofSlot] of rows) {
      if (this.standing.has(slot)) this.standing.set(slot, ofSlot);
      for (let minute = slot + CANDLE_MS; minute < slot + 2 * CANDLE_MS; minute += MINUTE_MS) {
        const isTold = minute <= told && minute >= (first_slot ?? told) && !missing.includes(minute);
        if (isTold) this.summaries.correct(minute, [summaryOf(minute, ofSlot, deskCoins)]);
      }
    }
  }
}

/** Open time of the candle that a chain needs next, ms. */
function next(chain: SarChain, begin: number): number {
  return chain.last === null ? begin : chain.last + CANDLE_MS;
}

function add<T>(map: Map<number, T[]>, slot: number, value: T): void {
  const list = map.get(slot);
  if (list) list.push(value);
  else map.set(slot, [value]);
}

async function main(): Promise<number> {
  const options = flags(USAGE, {
    once: { type: 'boolean', default: false },
    stdin: { type: 'boolean', default: false },
  });
  if (options.stdin) {
    const chains = new Map<string, SarChain>();
    return transformStdin(CANDLE, ({ symbol, ...candle }) => {
      let chain = chains.get(symbol);
      if (!chain) chains.set(symbol, (chain = new SarChain(symbol)));
      return [chain.add(candle)];
    });
  }
  return runDesk('sar_slope_collector', options.once, (context) => SarCollector.open(context));
}

runAsScript(import.meta.url, main);
