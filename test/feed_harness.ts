/** A venue's feed with everything that comes out of it, for tests. */
import type { ExchangeModule, FeedEvent, FeedOutput, Instrument } from '../scripts/lib/exchange.ts';
import { type DataType, encodeRow, type Rows } from '../scripts/lib/rows.ts';

export interface HarnessOptions {
  instruments?: Instrument[];
  orderbookIntervalMs?: number;
}

/** @param now when frames arrive unless told otherwise, µs */
export function feedHarness(module: ExchangeModule, now: number, options: HarnessOptions = {}) {
  const { instruments = [], orderbookIntervalMs = 0 } = options;
  const rows: { type: DataType; row: Rows[DataType] }[] = [];
  const events: FeedEvent[] = [];
  const feed = module.createFeed({ instruments, dataSource: 'live', orderbookIntervalMs });
  const out: FeedOutput = {
    row(type, row) {
      // As the collector does: a row that cannot be written is no row.
      encodeRow(type, row);
      rows.push({ type, row });
    },
    event: (event) => {
      events.push(event);
    },
  };
  return {
    feed,
    out,
    events,
    rows,
    of: <T extends DataType>(type: T) => rows.filter((each) => each.type === type).map((each) => each.row as Rows[T]),
    told: <K extends FeedEvent['kind']>(kind: K) =>
      events.filter((event): event is Extract<FeedEvent, { kind: K }> => event.kind === kind),
    kinds: () => events.map((event) => event.kind),
    frame: (frame: unknown, at = now) => feed.frame(typeof frame === 'string' ? frame : JSON.stringify(frame), at, out),
    rest: (path: string, body: unknown, at = now) => feed.rest(path, body, at, out),
    take: () => ({ rows: rows.splice(0), events: events.splice(0) }),
  };
}
