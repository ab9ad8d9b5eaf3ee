/** The store's watch over holes: looks, declares what is old enough, closes what is filled. Progress is kept, and may be lost: it costs time. */
import { join } from 'node:path';
import { z } from 'zod';
import type { Batcher } from './batcher.ts';
import { readJson, writeJsonAtomic } from './files.ts';
import {
  countGaps,
  type FinderOptions,
  findBrokenChains,
  findFilled,
  findMissingTrades,
  type GapCount,
  type GapStream,
  hasChain,
  hasTradeIds,
  keyOf,
  type Look,
  type Mark,
  openGaps,
  type Settled,
  storedStreams,
} from './gap_finder.ts';
import type { Publisher } from './jetstream.ts';
import type { Logger } from './log.ts';
import { pause } from './pause.ts';
import type { GapRow } from './rows.ts';

const MARKS = z.record(z.string(), z.object({ id: z.string().regex(/^\d+$/), time: z.number() }));
const STATE = z.object({ database: z.string(), trades: MARKS, orderbook_updates: MARKS });

/** After a failed look the next one waits longer, up to this. */
const LAST_WAIT_MS = 60_000;

export interface GapKeeperOptions extends FinderOptions {
  dataDir: string;
  everyMs: number;
  publisher: Publisher;
  batcher: Batcher;
  /** Streams of a table that rows have come of since the start. */
  seen(table: Kind): GapStream[];
  /** Up to where a table's messages are stored. */
  settled(table: Kind): Promise<Settled>;
  log: Logger;
}

export type Kind = 'trades' | 'orderbook_updates';

export class GapKeeper {
  readonly stats = { looks: 0, declared: 0, filled: 0, lastLookAt: 0, lastError: null as string | null };
  /** As of the last look. */
  counts: GapCount[] = [];
  private readonly marks: Record<Kind, Map<string, Mark>> = { trades: new Map(), orderbook_updates: new Map() };
  /** Streams that hot had at the start. */
  private readonly stored: Record<Kind, GapStream[] | null> = { trades: null, orderbook_updates: null };

  constructor(private readonly options: GapKeeperOptions) {
    this.load();
  }

  /** Looks until stopped. */
  async run(stop: AbortSignal): Promise<void> {
    const { everyMs, log } = this.options;
    let wait = everyMs;
    // A look waits for the broker, however long it is away; a stop does not.
    const stopped = new Promise<void>((done) => stop.addEventListener('abort', () => done(), { once: true }));
    while (!stop.aborted) {
      try {
        await Promise.race([this.look(Date.now()), stopped]);
        this.stats.lastError = null;
        wait = everyMs;
      } catch (error) {
        if (stop.aborted) return;
        this.stats.lastError = (error as Error).message;
        wait = Math.min(wait * 2, LAST_WAIT_MS);
        log.warn({ event: 'gap_look_failed', err: error, wait_ms: wait });
      }
      await pause(wait, stop).catch(() => undefined);
    }
  }

  /** One look at everything. What it found is in JetStream before its progress is kept. */
  async look(now: number): Promise<void> {
    const { options } = this;
    const [trades, books] = [await this.streamsOf('trades'), await this.streamsOf('orderbook_updates')];
    // Asked before the rows are: what is settled by then is in hot.
    const [tradesSettled, booksSettled] = [await options.settled('trades'), await options.settled('orderbook_updates')];
    const { marks } = this;
    const missing = await findMissingTrades(options, trades.filter(hasTradeIds), marks.trades, now, tradesSettled);
    const broken = await findBrokenChains(options, books.filter(hasChain), marks.orderbook_updates, now, booksSettled);
    const filled = await findFilled(options, await openGaps(options), now);
    await this.publish([...missing.gaps, ...broken.gaps, ...filled]);
    this.stats.looks += 1;
    this.stats.declared += missing.gaps.length + broken.gaps.length;
    this.stats.filled += filled.length;
    this.stats.lastLookAt = now;
    this.keep('trades', missing);
    this.keep('orderbook_updates', broken);
    this.save();
    this.counts = await countGaps(options);
  }

  private async streamsOf(kind: Kind): Promise<GapStream[]> {
    const { client, database, seen } = this.options;
    this.stored[kind] ??= await storedStreams(client, database, kind);
    const all = [...this.stored[kind], ...seen(kind)].map((stream) => [keyOf(stream), stream] as const);
    return [...new Map(all).values()];
  }

  private async publish(gaps: GapRow[]): Promise<void> {
    if (gaps.length === 0) return;
    const { batcher, publisher, log } = this.options;
    for (const gap of gaps) {
      batcher.add('gap', gap);
      const { exchange, symbol, data_type, from_id, to_id, rows, status, cause } = gap;
      log.warn({ event: `gap_${status}`, exchange, symbol, data_type, from_id, to_id, rows, cause });
    }
    batcher.flush();
    await publisher.drained();
  }

  private keep(kind: Kind, { marks }: Look): void {
    for (const [key, mark] of marks) this.marks[kind].set(key, mark);
  }

  private get file(): string {
    return join(this.options.dataDir, 'state', 'gap_marks.json');
  }

  private load(): void {
    const { database, log } = this.options;
    try {
      const state = STATE.safeParse(readJson(this.file));
      // Marks of another database say nothing about this one.
      if (!state.success || state.data.database !== database) return;
      for (const kind of ['trades', 'orderbook_updates'] as const) {
        for (const [key, mark] of Object.entries(state.data[kind])) this.marks[kind].set(key, mark);
      }
    } catch (error) {
      log.warn({ event: 'gap_marks_unread', file: this.file, err: error }, 'everything in hot is looked at again');
    }
  }

  private save(): void {
    const { trades, orderbook_updates } = this.marks;
    const state = {
      database: this.options.database,
      trades: Object.fromEntries(trades),
      orderbook_updates: Object.fromEntries(orderbook_updates),
    };
    try {
      writeJsonAtomic(this.file, state);
    } catch (error) {
      // Without it the next start looks at everything again.
      this.options.log.warn({ event: 'gap_marks_unsaved', file: this.file, err: error });
    }
  }
}
