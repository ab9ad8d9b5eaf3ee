/**
 * What is known of each stream that was asked for: when it last gave a row, and how long its book could be trusted. All times are of the
 * steady clock, ms.
 */
import type { Instrument } from './exchange.ts';
import { PerStream } from './per_stream.ts';
import type { DataType } from './rows.ts';

/** A stream whose last row is older than this is stale, s. */
export const AGE_LIMITS: Partial<Record<DataType, number>> = {
  trade: 60,
  orderbook: 60,
  orderbook_update: 60,
  liquidation: 3600,
};
const OTHER_AGE_LIMIT = 8 * 3600;

/** `blocked`: the venue refuses this region, or its firewall us. */
export type StreamStatus = 'healthy' | 'stale' | 'never' | 'blocked';

export interface StreamState {
  type: DataType;
  instrument: Instrument;
  /** Where its rows come from. */
  source: 'socket' | 'poll';
  lastRowAt: number | null;
  rows: number;
}

/** Shares of the time since a book was first seen, 0 to 100. */
export interface BookQuality {
  instrument: Instrument;
  /** The book stood, and was proven by the venue's own means. */
  verified_percent: number;
  /** It stood, and nothing could prove it: that is not called clean. */
  unverifiable_percent: number;
  /** Of the time in which it could be proven, the share without a break; null: nothing could ever be proven. */
  clean_percent: number | null;
  resyncs: number;
  standing: boolean;
  /** Updates read, and when the last came. */
  updates: number;
  last_update_ts: number | null;
}

type BookState = 'verified' | 'unverifiable' | 'broken';

/** How long one book was in which state. */
class BookClock {
  resyncs = 0;
  private state: BookState | null = null;
  /** What the book is once it stands; told by each published one. */
  private kind: 'verified' | 'unverifiable' = 'unverifiable';
  private since = 0;
  private lastUpdateAt = 0;
  private updates = 0;
  private readonly spent: Record<BookState, number> = { verified: 0, unverifiable: 0, broken: 0 };

  constructor(readonly instrument: Instrument) {}

  update(now: number, isSnapshot: boolean): void {
    this.lastUpdateAt = now;
    this.updates += 1;
    if (isSnapshot && (this.state === null || this.state === 'broken')) this.enter(this.kind, now);
  }

  published(now: number, kind: 'verified' | 'unverifiable'): void {
    this.kind = kind;
    if (this.state !== kind) this.enter(kind, now);
  }

  /** What came after the last update is not known, so the break began there. */
  broken(now: number): void {
    this.resyncs += 1;
    if (this.state === null || this.state === 'broken') return;
    this.enter('broken', Math.min(Math.max(this.lastUpdateAt, this.since), now));
  }

  quality(now: number): BookQuality {
    const spent = { ...this.spent };
    if (this.state !== null) spent[this.state] += Math.max(now - this.since, 0);
    const total = spent.verified + spent.unverifiable + spent.broken;
    const provable = spent.verified + (spent.verified > 0 || this.kind === 'verified' ? spent.broken : 0);
    return {
      instrument: this.instrument,
      verified_percent: percent(spent.verified, total),
      unverifiable_percent: percent(spent.unverifiable, total),
      clean_percent: provable === 0 ? null : percent(spent.verified, provable),
      resyncs: this.resyncs,
      standing: this.state === 'verified' || this.state === 'unverifiable',
      updates: this.updates,
      last_update_ts: this.lastUpdateAt === 0 ? null : this.lastUpdateAt,
    };
  }

  private enter(state: BookState, at: number): void {
    if (this.state !== null) this.spent[this.state] += Math.max(at - this.since, 0);
    this.state = state;
    this.since = at;
  }
}

function percent(part: number, whole: number): number {
  return whole === 0 ? 0 : Math.floor((part / whole) * 10_000) / 100;
}

export class Coverage {
  private readonly streams = new PerStream<StreamState>();
  private readonly books = new Map<string, BookClock>();

  expect(type: DataType, instrument: Instrument, source: 'socket' | 'poll'): void {
    const id = instrument.instrument;
    if (this.streams.get(type, id)) return;
    this.streams.set(type, id, { type, instrument, source, lastRowAt: null, rows: 0 });
    if (type === 'orderbook_update') this.books.set(id, new BookClock(instrument));
  }

  /** A row of a stream came at `now`. */
  row(type: DataType, instrument: string, now: number): void {
    const stream = this.streams.get(type, instrument);
    if (!stream) return;
    stream.lastRowAt = now;
    stream.rows += 1;
  }

  bookUpdate(instrument: string, now: number, isSnapshot: boolean): void {
    this.books.get(instrument)?.update(now, isSnapshot);
  }

  bookPublished(instrument: string, now: number, kind: 'verified' | 'unverifiable'): void {
    this.books.get(instrument)?.published(now, kind);
  }

  bookBroken(instrument: string, now: number): void {
    this.books.get(instrument)?.broken(now);
  }

  get all(): StreamState[] {
    return this.streams.values();
  }

  find(type: DataType, instrument: string): StreamState | undefined {
    return this.streams.get(type, instrument);
  }

  /** Streams that never gave a row. */
  get silent(): StreamState[] {
    return this.all.filter((stream) => stream.lastRowAt === null);
  }

  quality(now: number): BookQuality[] {
    return [...this.books.values()].map((clock) => clock.quality(now));
  }
}

/** @param blocked whether the source of the stream is blocked */
export function statusOf(stream: StreamState, now: number, blocked: boolean): StreamStatus {
  if (blocked) return 'blocked';
  if (stream.lastRowAt === null) return 'never';
  const limit = AGE_LIMITS[stream.type] ?? OTHER_AGE_LIMIT;
  return now - stream.lastRowAt > limit * 1000 ? 'stale' : 'healthy';
}
