/**
 * Fills gaps from the venues' histories: follows the `gap` rows in JetStream, newest hole first, one request at a time per
 * exchange. What it fetches enters as any row does, so that filling twice, or by two collectors, stores nothing twice.
 */
import type { NatsConnection } from 'nats';
import type { ExchangeModule, History, IdRange } from './exchange.ts';
import type { ExchangeRunner, RowSink } from './exchange_runner.ts';
import type { Logger } from './log.ts';
import { pause } from './pause.ts';
import type { DataType, GapRow } from './rows.ts';
import { steadyNow } from './steady.ts';
import { streamOf } from './streams.ts';

/** How often a worker looks for something to fill. */
const IDLE_MS = 500;
/** The past states of gaps are read first; without a message for this long there are none left. */
const CAUGHT_UP_MS = 1000;
/** Waits after a failed request: doubling from the first to the last. */
const USUAL_FIRST_RETRY_MS = 1000;
const LAST_RETRY_MS = 60_000;
/** After so many failed requests another gap has its turn. */
const MOST_FAILURES = 5;
/** A gap that could not be asked for has its turn again after this. */
const RETRY_LATER_MS = 60_000;
/** A gap that is still open this long after it was fetched is fetched again. */
const AGAIN_MS = 600_000;
const FOLLOW_RETRY_MS = 5000;
/** One text and no list: servers before 2.10 know only that, and would send everything. */
const GAP_SUBJECTS = 'gap.>';

interface Pending {
  gap: GapRow;
  history: History;
  /** Nothing is asked for before, steady clock, ms. */
  notBefore: number;
}

/** What serves the past of one exchange. */
export type HistorySource = Pick<ExchangeRunner, 'fetchHistory'> & {
  readonly module: Pick<ExchangeModule, 'exchange' | 'tradeHistory' | 'readings'>;
};

export interface GapFillerOptions {
  runners: HistorySource[];
  sink: Pick<RowSink, 'batcher' | 'rowsWait'>;
  /** The first wait after a failed request, ms. */
  firstRetryMs?: number;
  log: Logger;
}

export class GapFiller {
  readonly stats = { fetchedRows: 0, fetchedGaps: 0, unfillable: 0 };
  /** Open gaps of ours, by their id. */
  private readonly pending = new Map<string, Pending>();
  private lastMessageAt = steadyNow();
  private caughtUp = false;
  private readonly stopping = new AbortController();

  constructor(private readonly options: GapFillerOptions) {}

  get pendingCount(): number {
    return this.pending.size;
  }

  /** Follows and fills until stopped. */
  start(nats: NatsConnection): void {
    if (this.stopping.signal.aborted) return;
    this.lastMessageAt = steadyNow();
    void this.follow(nats);
    for (const runner of this.options.runners) {
      void this.work(runner);
    }
  }

  stop(): void {
    this.stopping.abort();
  }

  /** Reads the states of all gaps, from the oldest in the stream on. */
  private async follow(nats: NatsConnection): Promise<void> {
    const { log } = this.options;
    while (!this.stopping.signal.aborted) {
      try {
        const consumer = await nats.jetstream().consumers.get(streamOf('gap').name, { filterSubjects: GAP_SUBJECTS });
        const messages = await consumer.consume();
        this.stopping.signal.addEventListener('abort', () => void messages.close(), { once: true });
        for await (const message of messages) {
          this.lastMessageAt = steadyNow();
          for (const line of message.string().split('\n')) this.read(line);
        }
      } catch (error) {
        if (this.stopping.signal.aborted) return;
        log.warn({ event: 'gaps_not_followed', err: error, wait_ms: FOLLOW_RETRY_MS });
      }
      await this.wait(FOLLOW_RETRY_MS);
    }
  }

  private read(line: string): void {
    try {
      this.take(JSON.parse(line) as GapRow);
    } catch (error) {
      // The store buries such a line; here it is only passed over.
      this.options.log.warn({ event: 'gap_unread', err: error, line: line.slice(0, 200) });
    }
  }

  private take(gap: GapRow): void {
    const runner = this.options.runners.find(({ module }) => module.exchange === gap.exchange);
    const history = runner && historyOf(runner.module, gap.data_type);
    if (!history) return;
    if (gap.status !== 'open') this.pending.delete(gap.gap_id);
    else if (!this.pending.has(gap.gap_id)) this.pending.set(gap.gap_id, { gap, history, notBefore: 0 });
  }

  private async work(runner: HistorySource): Promise<void> {
    while (!this.stopping.signal.aborted) {
      this.caughtUp ||= steadyNow() - this.lastMessageAt > CAUGHT_UP_MS;
      const next = this.caughtUp ? this.newest(runner, steadyNow()) : null;
      if (next === null) await this.wait(IDLE_MS);
      else await this.fill(runner, next);
    }
  }

  private newest({ module }: HistorySource, now: number): Pending | null {
    const due = [...this.pending.values()].filter(
      ({ gap, notBefore }) => gap.exchange === module.exchange && notBefore <= now,
    );
    return due.sort((one, other) => other.gap.from_time - one.gap.from_time)[0] ?? null;
  }

  /** Fetches a gap page by page; tells what the venue no longer serves. */
  private async fill(runner: HistorySource, pending: Pending): Promise<void> {
    const { gap, history } = pending;
    const { log, firstRetryMs = USUAL_FIRST_RETRY_MS } = this.options;
    const type = gap.data_type as DataType;
    const { exchange, market_type, symbol, instrument } = gap;
    const range: IdRange = { from: Number(gap.from_id), to: Number(gap.to_id) };
    let fetched = 0;
    let failures = 0;
    for (let wait = firstRetryMs; range.from <= range.to && !this.stopping.signal.aborted; ) {
      const request = history.page({ exchange, market_type, symbol, instrument }, range);
      const page = await runner.fetchHistory(request, type, range, history.idMember, `backfill:${gap.gap_id}`);
      if ('retryAt' in page) {
        failures += page.isFailure ? 1 : 0;
        if (failures >= MOST_FAILURES && page.refusal !== null) {
          this.giveUp(gap, fetched, `the venue refuses to serve it: ${page.refusal}`);
          return;
        }
        if (failures >= MOST_FAILURES) {
          // Perhaps only this one cannot be asked for: the others must not wait for it.
          pending.notBefore = steadyNow() + RETRY_LATER_MS;
          log.warn({
            event: 'gap_not_fetched',
            exchange,
            symbol,
            gap_id: gap.gap_id,
            failures,
            again_ms: RETRY_LATER_MS,
          });
          return;
        }
        await this.wait(Math.max(page.retryAt - steadyNow(), wait));
        wait = Math.min(wait * 2, LAST_RETRY_MS);
        continue;
      }
      wait = firstRetryMs;
      const within = [...new Set(page.ids)].filter((id) => id >= range.from && id <= range.to);
      if (within.length === 0 && history.keeps !== undefined) break;
      if (within.length === 0) {
        this.giveUp(gap, fetched, refusal(page.ids, range));
        return;
      }
      fetched += within.length;
      this.stats.fetchedRows += within.length;
      if (history.order === 'ascending') range.from = Math.max(...within) + 1;
      else range.to = Math.min(...within) - 1;
    }
    if (this.stopping.signal.aborted) return;
    if (fetched < Number(gap.rows)) {
      const keeps = history.keeps === undefined ? '' : `: it keeps ${history.keeps}`;
      this.giveUp(gap, fetched, `the history of the venue has ${fetched} of these ${gap.rows} rows${keeps}`);
      return;
    }
    this.stats.fetchedGaps += 1;
    // The store closes it as soon as it sees the rows.
    pending.notBefore = steadyNow() + AGAIN_MS;
    log.info({ event: 'gap_fetched', exchange, symbol, gap_id: gap.gap_id, rows: fetched });
  }

  private giveUp(gap: GapRow, fetched: number, reason: string): void {
    const { sink, log } = this.options;
    const now = Date.now();
    this.pending.delete(gap.gap_id);
    this.stats.unfillable += 1;
    const state = {
      status: 'unfillable',
      reason,
      filled_rows: fetched,
      closed_at: now,
      received_at: now * 1000,
    } as const;
    sink.batcher.add('gap', { ...gap, ...state });
    sink.rowsWait();
    const { exchange, symbol, gap_id, from_id, to_id } = gap;
    log.warn({ event: 'gap_unfillable', exchange, symbol, gap_id, from_id, to_id, fetched, reason });
  }

  /** Ends early at a stop. */
  private wait(ms: number): Promise<void> {
    return pause(ms, this.stopping.signal).catch(() => undefined);
  }
}

/** Where the venue serves past rows of this type, if it does. */
function historyOf({ tradeHistory, readings }: HistorySource['module'], dataType: string): History | undefined {
  if (dataType === 'trade') return tradeHistory;
  return readings?.find(({ type }) => type === dataType)?.history;
}

/** Why nothing more of `range` can be had. */
function refusal(ids: number[], { from, to }: IdRange): string {
  if (ids.length === 0) return `the history of the venue has nothing for ids ${from} to ${to}`;
  return `the history of the venue has ids ${Math.min(...ids)} to ${Math.max(...ids)} there, and none of ${from} to ${to}`;
}
