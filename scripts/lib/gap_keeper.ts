/** The store's watch over holes in what it stores: looks, declares what is old enough, closes what is filled. Progress is kept, and may be lost: it costs time. */
import { join } from 'node:path';
import { z } from 'zod';
import type { Batcher } from './batcher.ts';
import type { Mark } from './exchange.ts';
import { readJson, writeJsonAtomic } from './files.ts';
import { findBrokenChains, hasChain } from './gap_chains.ts';
import { findFilled, findMissing, type Sequence } from './gap_finder.ts';
import {
  countGaps,
  type FinderOptions,
  type GapCount,
  type GapStream,
  givenUpGaps,
  keyOf,
  type Look,
  liquidationsBeside,
  openGaps,
  type Settled,
  storedStreams,
} from './gap_rows.ts';
import type { Logger } from './log.ts';
import { pause } from './pause.ts';
import type { Publisher } from './publisher.ts';
import { type DataType, type GapRow, TABLES } from './rows.ts';
import { steadyNow } from './steady.ts';
import { STREAM_NAMES, streamOf } from './streams.ts';

/** By sequence and stream. */
const STATE = z.object({
  database: z.string(),
  marks: z.record(z.string(), z.record(z.string(), z.object({ id: z.string().regex(/^\d+$/), time: z.number() }))),
});
/** The chains of all books, as their marks are named. */
const CHAINS = 'orderbook_update';

/** What was given up is looked at again this often, for this long, ms: so late can rows still come from a collector's disk. */
const GIVEN_UP_EVERY_MS = 60_000;
const GIVEN_UP_FOR_MS = 3_600_000;
/** After a failed look the next one waits longer, up to this. */
const LAST_WAIT_MS = 60_000;

export interface GapKeeperOptions extends FinderOptions {
  dataDir: string;
  everyMs: number;
  /** An open gap is told again after this: collectors know of gaps from the stream alone, and it may have lost the first word of it. ms */
  announceMs: number;
  publisher: Publisher;
  batcher: Batcher;
  /** What counts up by one. */
  sequences: Sequence[];
  /** By exchange: what comes over the socket of its liquidations, where these have no ids. */
  besideLiquidations: Partial<Record<string, DataType>>;
  /** Streams of a type that rows have come of since the start. */
  seen(type: DataType): GapStream[];
  /** Up to where a type's messages are stored. */
  settled(type: DataType): Promise<Settled>;
  log: Logger;
}

export class GapKeeper {
  readonly stats = {
    looks: 0,
    /** What the last look declared or closed: its rows may not be in hot yet, nor in the counts. */
    lastFound: 0,
    declared: 0,
    filled: 0,
    lastLookAt: 0,
    lastError: null as string | null,
  };
  /** As of the last look. */
  counts: GapCount[] = [];
  /** By sequence, then by stream. */
  private readonly marks = new Map<string, Map<string, Mark>>();
  /** By sequence: when its last look began whose findings are in JetStream, steady clock, ms. */
  private readonly lookedAt = new Map<string, number>();
  /** By gap: when it was told last, or first seen open by this run; steady clock, ms. */
  private readonly toldAt = new Map<string, number>();
  /** When what was given up was last looked at, steady clock, ms. */
  private givenUpAt = Number.NEGATIVE_INFINITY;
  /** Streams that hot had at the start. */
  private readonly stored = new Map<DataType, GapStream[]>();

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

  /** One look at everything. What it found is in JetStream before its progress is kept. @param now wall clock, as the rows' times are, ms */
  async look(now: number): Promise<void> {
    const { options } = this;
    const begun = steadyNow();
    const looks = new Map<string, Look>();
    for (const sequence of options.sequences) {
      const { name, type, stepMs } = sequence;
      if (!options.types.includes(type)) continue;
      // What comes once a minute need not be looked for six times in it.
      const every = Math.min(stepMs, options.ageMs * 2);
      if (begun - (this.lookedAt.get(name) ?? 0) < every) continue;
      const streams = (await this.streamsOf(type)).filter((stream) => sequence.covers(stream));
      // Asked before the rows are: what is settled by then is in hot.
      const settled = await options.settled(type);
      looks.set(name, await findMissing(options, sequence, streams, this.marksOf(name), now, settled));
    }
    if (options.types.includes(CHAINS)) {
      const books = (await this.streamsOf(CHAINS)).filter(hasChain);
      const settled = await options.settled(CHAINS);
      looks.set(CHAINS, await findBrokenChains(options, books, this.marksOf(CHAINS), now, settled));
    }
    const found = [...looks.values()]
      .flatMap(({ gaps }) => gaps)
      .flatMap((gap) => [gap, ...liquidationsBeside(options, options.besideLiquidations, gap, now)]);
    const open = await openGaps(options);
    const isTime = begun - this.givenUpAt >= GIVEN_UP_EVERY_MS;
    const givenUp = isTime ? await givenUpGaps(options, now - GIVEN_UP_FOR_MS) : [];
    const filled = await findFilled(options, options.sequences, [...open, ...givenUp], now);
    await this.publish([...found, ...filled]);
    await this.announce(open, new Set(filled.map(({ gap_id }) => gap_id)), begun);
    this.stats.lastFound = found.length + filled.length;
    this.stats.declared += found.length;
    this.stats.filled += filled.length;
    this.stats.lastLookAt = now;
    if (isTime) this.givenUpAt = begun;
    for (const [name, { marks }] of looks) {
      this.lookedAt.set(name, begun);
      for (const [key, mark] of marks) this.marksOf(name).set(key, mark);
    }
    this.save();
    this.counts = await countGaps(options);
    this.stats.looks += 1;
  }

  private marksOf(name: string): Map<string, Mark> {
    let found = this.marks.get(name);
    if (!found) this.marks.set(name, (found = new Map()));
    return found;
  }

  /** Streams of a type: those that rows have come of since the start, and those that hot had then. */
  private async streamsOf(type: DataType): Promise<GapStream[]> {
    const { client, database, seen } = this.options;
    if (!this.stored.has(type)) this.stored.set(type, await storedStreams(client, database, TABLES[type].name));
    const all = [...this.stored.get(type)!, ...seen(type)].map((stream) => [keyOf(stream), stream] as const);
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

  /** The store takes it for the row that it has; a collector that did not know of the gap fills it. */
  private async announce(open: GapRow[], closed: ReadonlySet<string>, now: number): Promise<void> {
    const { batcher, publisher, log, announceMs } = this.options;
    const still = open.filter(({ gap_id }) => !closed.has(gap_id));
    for (const gap_id of this.toldAt.keys())
      if (!still.some((gap) => gap.gap_id === gap_id)) this.toldAt.delete(gap_id);
    const again = still.filter(({ gap_id }) => now - (this.toldAt.get(gap_id) ?? now) >= announceMs);
    for (const { gap_id } of still) if (!this.toldAt.has(gap_id)) this.toldAt.set(gap_id, now);
    if (again.length === 0) return;
    for (const gap of again) {
      batcher.add('gap', gap);
      this.toldAt.set(gap.gap_id, now);
    }
    batcher.flush();
    await publisher.drained();
    log.info({ event: 'gaps_told_again', gaps: again.length });
  }

  private get file(): string {
    const { dataDir, types } = this.options;
    // A store of one stream has its own beside another's.
    const streams = STREAM_NAMES.filter((name) => types.some((type) => streamOf(type).name === name));
    const suffix = streams.length === STREAM_NAMES.length ? '' : `_${streams.join('_')}`;
    return join(dataDir, 'state', `gap_marks${suffix}.json`);
  }

  private load(): void {
    const { database, log } = this.options;
    try {
      const state = STATE.safeParse(readJson(this.file));
      // Marks of another database say nothing about this one.
      if (!state.success || state.data.database !== database) return;
      for (const [name, marks] of Object.entries(state.data.marks)) {
        this.marks.set(name, new Map(Object.entries(marks)));
      }
    } catch (error) {
      log.warn({ event: 'gap_marks_unread', file: this.file, err: error }, 'everything in hot is looked at again');
    }
  }

  private save(): void {
    const marks = Object.fromEntries([...this.marks].map(([name, each]) => [name, Object.fromEntries(each)]));
    const state = { database: this.options.database, marks };
    try {
      writeJsonAtomic(this.file, state);
    } catch (error) {
      // Without it the next start looks at everything again.
      this.options.log.warn({ event: 'gap_marks_unsaved', file: this.file, err: error });
    }
  }
}
