/** The files of the desk's scripts as the API reads them. */
import { join } from 'node:path';
import { z } from 'zod';
import { SAR_FILE, SUMMARY_FILE } from '../desk/sar_file.ts';
import { readJson } from '../files.ts';
import { DeskIndex, type DeskRecord, type IndexPlan, type KeyRecords, type Place } from './desk_index.ts';
import type { WebContext } from './route.ts';

const slot = ({ slot: value }: DeskRecord) => (typeof value === 'number' ? value : null);
const one = () => '';
const text = (member: string) => (record: DeskRecord) => String(record[member]);

/** By the name of the series where it is one. */
const FILES = {
  escape_signal: {
    file: 'escape_signal_jsonl/escape_signal_stats.jsonl',
    time: slot,
    key: text('rule'),
    columns: ['signal_24h_count', 'signal_2h_count'],
  },
  sar_slope: { file: SAR_FILE, time: slot, key: text('symbol') },
  sar_slope_summary: { file: SUMMARY_FILE, time: slot, key: one },
  coin_prices: {
    file: 'coin_price_tracker/coin_prices_30min.jsonl',
    time: slot,
    key: one,
    columns: ['total_change', 'average_change', 'valid_coins', 'total_coins'],
  },
  sar_top_count: { file: 'unified/sar_top_count.jsonl', time: slot, key: one },
  liquidation_1h: { file: 'unified/liquidation_1h.jsonl', time: slot, key: one },
  coin_change_total: { file: 'unified/coin_change_total.jsonl', time: slot, key: one },
  anchor: { file: 'anchor/anchor_profit_stats.jsonl', time: slot, key: one },
  major_events: {
    file: 'major_events/major_events.jsonl',
    time: ({ minute }) => (typeof minute === 'number' ? minute : null),
    key: text('event'),
  },
  correlation_alerts: {
    file: 'correlation/correlation_alerts.jsonl',
    time: ({ timestamp }) => (typeof timestamp === 'number' ? timestamp : null),
    key: ({ event, coin }) => `${event} ${coin}`,
  },
} as const satisfies Record<string, IndexPlan & { file: string }>;
export type DeskFile = keyof typeof FILES;
/** Of one record per slot. */
export const UNIFIED = ['sar_top_count', 'liquidation_1h', 'coin_change_total'] as const;

const indexes = new WeakMap<WebContext, Map<DeskFile, DeskIndex>>();

/** The index of a file, as it is now. */
export async function lookInto(context: WebContext, name: DeskFile): Promise<DeskIndex> {
  let own = indexes.get(context);
  if (own === undefined) {
    const made = new Map<DeskFile, DeskIndex>();
    indexes.set(context, (own = made));
    context.stop.addEventListener('abort', () => {
      for (const each of made.values()) void each.close();
    });
  }
  let index = own.get(name);
  const plan: IndexPlan & { file: string } = FILES[name];
  if (index === undefined) own.set(name, (index = new DeskIndex(join(context.config.dataDir, plan.file), plan)));
  await index.look();
  return index;
}

/** Below the data directory. */
export function pathOf(name: DeskFile): string {
  return FILES[name].file;
}

/** Reads all there is once, so that nobody waits for it later. */
export async function warmUp(context: WebContext): Promise<void> {
  for (const name of Object.keys(FILES) as DeskFile[]) {
    if (context.stop.aborted) return;
    await lookInto(context, name);
  }
}

export interface Page {
  limit: number;
  offset: number;
  /** ms: records at or after, and at or before. */
  from?: number | undefined;
  to?: number | undefined;
}

/** The places of a page, the newest first, and how many there are in all. */
export function newestOf(records: KeyRecords, { limit, offset, from, to }: Page): { total: number; places: Place[] } {
  const begin = from === undefined ? 0 : records.from(from);
  const end = to === undefined ? records.size : records.from(to + 1);
  const places: Place[] = [];
  for (let at = end - 1 - offset; at >= begin && places.length < limit; at -= 1) places.push(records.place(at));
  return { total: Math.max(0, end - begin), places };
}

/** The same over several keys. */
export function newestOfAll(index: DeskIndex, keys: readonly string[], page: Page): { total: number; places: Place[] } {
  const { limit, offset } = page;
  const each = keys.map((key) => newestOf(index.of(key), { ...page, limit: limit + offset, offset: 0 }));
  const places = each.flatMap((one) => one.places).sort((a, b) => b.time - a.time || b.offset - a.offset);
  return { total: each.reduce((sum, { total }) => sum + total, 0), places: places.slice(offset, offset + limit) };
}

/** A file of `DATA/state`, as far as it is understood. @returns null when it is not there, or damaged */
export function stateOf<T>(context: WebContext, name: string, schema: z.ZodType<T>): T | null {
  try {
    return schema.safeParse(readJson(join(context.config.dataDir, 'state', name))).data ?? null;
  } catch (error) {
    if (error instanceof SyntaxError) return null;
    throw error;
  }
}

const time = z.number().nullable().default(null);
/** What the state files of scripts without a series have in common. */
export const SCRIPT_STATE = z.looseObject({
  data_time: time,
  last_run: time,
  last_success: time,
  error: z.string().nullable().default(null),
});
