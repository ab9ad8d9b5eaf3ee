/** Days of the desk's records, made by the desk's own models and written by its own writer: what its pages are tried on. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { anchorRecord } from '../scripts/anchor_data_collector.ts';
import { PRICES_FILE } from '../scripts/coin_price_tracker.ts';
import { ESCAPE_FILE } from '../scripts/escape_signal_calc.ts';
import { loadConfig } from '../scripts/lib/config.ts';
import { beijingDayStart } from '../scripts/lib/desk/beijing.ts';
import { type CoinRecord, recordOf } from '../scripts/lib/desk/coin_prices.ts';
import { EscapeModel, type EscapeRow } from '../scripts/lib/desk/escape.ts';
import {
  FRESH_STATE,
  MAJOR_LIMITS,
  type MajorEvent,
  READING,
  type RuleState,
  step,
} from '../scripts/lib/desk/major_events.ts';
import type { Position } from '../scripts/lib/desk/okx.ts';
import { CANDLE_MS, candleOf, SarChain, type SarRow, summaryOf } from '../scripts/lib/desk/sar.ts';
import { SAR_FILE, SUMMARY_FILE } from '../scripts/lib/desk/sar_file.ts';
import { coinChange } from '../scripts/lib/desk/unified_coin_change.ts';
import { liquidationHour } from '../scripts/lib/desk/unified_liquidation.ts';
import { Toppings } from '../scripts/lib/desk/unified_top_count.ts';
import { JsonlWriter } from '../scripts/lib/jsonl.ts';
import { createLogger } from '../scripts/lib/log.ts';
import { seededRandom } from '../scripts/lib/sim/market.ts';

const MINUTE = 60_000;
const HALF_HOUR = 30 * MINUTE;
const HOUR = 60 * MINUTE;
const LOG = createLogger('test', 'silent');
export const COINS = loadConfig({}).deskCoins;
const FIRST_PRICES = [97_000, 3400, 2.3, 640, 190, 84, 0.22, 3.4, 0.27, 5.1, 27, 470, 0.12, 0.3, 4.9, 14.2, 0.11];

export interface History {
  /** The first candle, and the end of the last one, ms. */
  begin: number;
  end: number;
  escapes: EscapeRow[];
  /** Minutes of which no escape signals were written: first, and the one after the last. */
  hole: [from: number, to: number];
  sar: SarRow[];
  prices: (CoinRecord & { slot: number })[];
  /** Half hours without a price of any coin, without a record, and without one coin. */
  blank: number;
  absent: number;
  partial: number;
  events: MajorEvent[];
  /** How the rules of major events stand at the end. */
  rules: RuleState;
}

/**
 * Writes the files of all the desk's scripts, corrections apart.
 * @param end a whole half hour, ms
 */
export function writeHistory(
  dataDir: string,
  { end, days, seed = 7 }: { end: number; days: number; seed?: number },
): History {
  const begin = end - days * 24 * HOUR;
  const sar = sarRows(begin, end, seededRandom(seed));
  const byCandle = new Map<number, SarRow[]>();
  for (const row of sar) byCandle.set(row.timestamp, [...(byCandle.get(row.timestamp) ?? []), row]);
  const hole: History['hole'] = [end - 20 * HOUR, end - 18.5 * HOUR];
  const escapes = escapeRows(begin, end, byCandle).filter(({ slot }) => slot < hole[0] || slot >= hole[1]);
  const [blank, absent, partial] = [end - 14 * HOUR, end - 11 * HOUR, end - 9 * HOUR];
  const prices = priceRows(begin, end, byCandle, { blank, partial }).filter(({ slot }) => slot !== absent);
  const summaries = [];
  for (let minute = begin + CANDLE_MS; minute < end; minute += MINUTE)
    summaries.push({ slot: minute, ...summaryOf(minute, byCandle.get(candleOf(minute)) ?? [], COINS) });
  const unified = unifiedRows(begin, end, sar, prices, seededRandom(seed + 1));
  const anchors = anchorRows(end - 12 * HOUR, end);
  const { events, rules } = eventRows(begin, end, escapes, prices, byCandle, unified.liquidations);
  const files: [string, object[]][] = [
    [ESCAPE_FILE, escapes],
    [SAR_FILE, sar.map((row) => ({ slot: row.timestamp, ...row }))],
    [SUMMARY_FILE, summaries],
    [PRICES_FILE, prices],
    ['unified/sar_top_count.jsonl', unified.tops],
    ['unified/liquidation_1h.jsonl', unified.liquidations],
    ['unified/coin_change_total.jsonl', unified.changes],
    ['anchor/anchor_profit_stats.jsonl', anchors],
    ['major_events/major_events.jsonl', events],
  ];
  for (const [file, rows] of files) append(dataDir, file, rows);
  // Blind for the anchor's account since an hour, as if its collector had ended.
  const blind = [{ input: 'anchor', events: ['E5'], since: end - HOUR, why: 'late' }];
  writeRules(dataDir, { begin, end }, end, { data_time: rules.minute, blind, rules });
  return { begin, end, escapes, hole, sar, prices, blank, absent, partial, events, rules };
}

/** As a script that runs writes further records. */
export function append(dataDir: string, file: string, rows: readonly object[]): void {
  const writer = new JsonlWriter(join(dataDir, file), LOG);
  for (let i = 0; i < rows.length; i += 5000) writer.append(rows.slice(i, i + 5000));
  writer.close();
}

/** The state of the monitor of major events as it writes it: it has judged up to `end` and ran at `ranAt`, ms; the rest as in `changed`. */
export function writeRules(
  dataDir: string,
  { begin, end }: Pick<History, 'begin' | 'end'>,
  ranAt: number,
  changed: object,
): void {
  mkdirSync(join(dataDir, 'state'), { recursive: true });
  const times = { data_time: end, last_run: ranAt, last_success: ranAt, error: null, begun: begin };
  const rest = { blind: [], waiting: {}, rules: { ...FRESH_STATE, minute: end }, unwritten: [], untold: [] };
  writeFileSync(join(dataDir, 'state', 'major_events.json'), JSON.stringify({ ...times, ...rest, ...changed }));
}

/** The change sum, and all else, that was known by a minute: of the newest half hour that is young enough; null: none is. */
export function pricesBy({ prices }: History, minute: number): History['prices'][number] | null {
  return prices.findLast(({ slot }) => slot <= minute && minute - slot <= HALF_HOUR + CANDLE_MS) ?? null;
}

function sarRows(begin: number, end: number, random: () => number): SarRow[] {
  const normal = () => Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
  const prices = COINS.map((_, i) => FIRST_PRICES[i % FIRST_PRICES.length]!);
  const chains = COINS.map((symbol) => new SarChain(symbol));
  const rows: SarRow[] = [];
  let drift = 0;
  for (let at = begin; at < end; at += CANDLE_MS) {
    drift = 0.97 * drift + 0.00015 * normal();
    const market = drift + 0.001 * normal();
    for (const [i, chain] of chains.entries()) {
      const open = prices[i]!;
      const round = (value: number) => Number(value.toPrecision(6));
      const close = round(open * Math.exp(market + 0.0012 * normal()));
      const [high, low] = [
        round(Math.max(open, close) * (1 + 0.0006 * random())),
        round(Math.min(open, close) * (1 - 0.0006 * random())),
      ];
      prices[i] = close;
      rows.push(chain.add({ timestamp: at, open, high, low, close }));
    }
  }
  return rows;
}

function escapeRows(begin: number, end: number, byCandle: ReadonlyMap<number, SarRow[]>): EscapeRow[] {
  const model = new EscapeModel(loadConfig({}).escapeThreshold);
  const rows: EscapeRow[] = [];
  for (let minute = begin; minute < end; minute += MINUTE) {
    for (const row of byCandle.get(minute) ?? []) model.add(row);
    rows.push(...model.evaluate(minute));
  }
  return rows;
}

function priceRows(
  begin: number,
  end: number,
  byCandle: ReadonlyMap<number, SarRow[]>,
  { blank, partial }: { blank: number; partial: number },
) {
  const openAt = (time: number) =>
    Object.fromEntries((byCandle.get(time) ?? []).map(({ symbol, open }) => [symbol, String(open)]));
  const rows: (CoinRecord & { slot: number })[] = [];
  for (let slot = Math.ceil(begin / HALF_HOUR) * HALF_HOUR; slot < end; slot += HALF_HOUR) {
    const prices = slot === blank ? {} : openAt(slot);
    if (slot === partial) delete prices[COINS[1]!];
    rows.push({ slot, ...recordOf(slot, COINS, prices, openAt(Math.max(beijingDayStart(slot), begin))) });
  }
  return rows;
}

function unifiedRows(
  begin: number,
  end: number,
  sar: readonly SarRow[],
  prices: readonly (CoinRecord & { slot: number })[],
  random: () => number,
) {
  const toppings = new Toppings();
  for (const row of sar) toppings.add({ slot: row.timestamp, ...row });
  const bySlot = new Map(prices.map((row) => [row.slot, row]));
  const [tops, liquidations, changes] = [[], [], []] as { slot: number }[][];
  const buckets = [];
  for (let slot = begin + CANDLE_MS; slot <= end; slot += CANDLE_MS) {
    if (toppings.faultAt(slot) === null) tops!.push({ slot, ...toppings.countAt(slot) });
    const size = 40_000 * Math.exp(4 * random());
    const count = 1 + Math.floor(random() * 30);
    buckets.push({ start: slot - CANDLE_MS, exchange: 'okx_derivatives', amount: size.toFixed(18), count });
    const recent = buckets.slice(-300);
    const held = { buckets: recent, pulse: new Set(recent.map(({ start }) => start)) };
    liquidations!.push({ slot, ...liquidationHour(slot, held) });
    changes!.push({ slot, ...coinChange(slot, bySlot, end) });
  }
  return { tops: tops!, liquidations: liquidations!, changes: changes! };
}

function anchorRows(begin: number, end: number): object[] {
  const position = (posSide: 'long' | 'short', margin: string, upl: string) =>
    ({ posSide, pos: '1', mgnMode: 'isolated', margin, imr: '', upl }) as unknown as Position;
  const positions = [
    ...['-20', '-4', '30', '90', '130'].map((upl) => position('short', '100', upl)),
    ...['15', '85'].map((upl) => position('long', '100', upl)),
  ];
  const rows = [];
  for (let slot = begin; slot <= end; slot += CANDLE_MS)
    rows.push({ slot, ...anchorRecord(slot, positions, 'simulated') });
  return rows;
}

function eventRows(
  begin: number,
  end: number,
  escapes: readonly EscapeRow[],
  prices: readonly (CoinRecord & { slot: number })[],
  byCandle: ReadonlyMap<number, SarRow[]>,
  liquidations: readonly { slot: number }[],
): { events: MajorEvent[]; rules: RuleState } {
  const limits = MAJOR_LIMITS.parse({});
  const counts = new Map(escapes.filter(({ rule }) => rule === 'sar-breadth').map((row) => [row.slot, row]));
  const changes = new Map(prices.map((row) => [row.slot, row.total_change]));
  const amounts = new Map(liquidations.map((row) => [row.slot, (row as unknown as { amount: number }).amount]));
  const events: MajorEvent[] = [];
  let rules = FRESH_STATE;
  for (let minute = begin + CANDLE_MS; minute < end; minute += MINUTE) {
    const candle = candleOf(minute);
    const reading = READING.parse({
      minute,
      signal_2h_count: counts.get(minute)?.signal_2h_count ?? null,
      total_change: changes.get(Math.floor(minute / HALF_HOUR) * HALF_HOUR) ?? null,
      liquidation_1h: amounts.get(Math.floor(minute / CANDLE_MS) * CANDLE_MS) ?? null,
      price: byCandle.get(candle)?.find(({ symbol }) => symbol === 'BTC')?.close ?? null,
    });
    const judged = step(rules, reading, limits);
    rules = judged.state;
    events.push(...judged.events);
  }
  return { events, rules };
}
