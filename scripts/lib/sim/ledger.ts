/**
 * What the simulator wrote, and to how many: the truth that a run is compared with.
 *
 * A key counts once, when it was written to at least one open subscribed socket. Nothing is counted for being generated.
 */

/** Keys kept per stream, so that a test can compare key by key: over a million, 8 MiB each when full. */
const KEYS_KEPT = 2 ** 20;

export interface StreamIdentity {
  readonly exchange: string;
  readonly market_type: string;
  readonly symbol: string;
  readonly data_type: string;
  readonly instrument: string;
}

export interface StreamReport extends StreamIdentity {
  readonly sent: number;
  readonly first_id: string | null;
  readonly last_id: string | null;
  readonly dropped: number;
}

/** Counters beside the streams; each is one field of the report. */
export interface Counters {
  /** Data frames (and their bytes, headers included) written to all sockets together, copies and book tickers included. */
  frames: number;
  bytes: number;
  book_tickers: number;
  mark_prices: number;
  /** Tickers, contexts, funding, open interest and volatility on a socket: many of them, of which a client keeps one a minute. */
  reading_frames: number;
  /** Liquidations that a client of USDⓈ-M must not take. */
  coin_m_liquidations: number;
  /** Snapshots of books on a socket: rows of their own, which the balance of a run leaves out as it does those over REST. */
  book_snapshots: number;
  /** Answers over REST. */
  snapshots: number;
  open_interests: number;
  premium_indices: number;
  long_short_ratios: number;
  /** Readings over REST of the venues other than Binance. */
  reading_answers: number;
  repeated: number;
  reordered: number;
  garbage: number;
  rest_requests: number;
  rest_refused: number;
  /** Requests that came while the exchange was away. */
  rest_away: number;
  subscriptions_silenced: number;
  shutdown_notices: number;
  control_actions: number;
  closed_by_control: number;
  closed_slow: number;
  closed_rate: number;
  closed_streams: number;
  closed_pong: number;
  closed_age: number;
  socket_errors: number;
}

export interface LedgerReport extends Counters {
  readonly started: number;
  readonly stopped: number | null;
  readonly replay_done: boolean | null;
  readonly streams: StreamReport[];
  readonly sockets: Record<string, number>;
}

/** Frames without a key to account for. */
export type SampleCounter = 'book_tickers' | 'mark_prices' | 'reading_frames' | 'coin_m_liquidations';

/** What happens to the keys of a stream. */
export interface KeyLedger {
  /** Notes a key that was written. */
  record(key: number): void;
  /** Notes a key that a fault kept from the sockets. */
  withhold(key: number): void;
}

interface Reported {
  report(): StreamReport;
  keyLines(): Generator<string>;
}

/** The distinct keys of one stream. The caller records each key once. */
export class StreamLedger implements KeyLedger, Reported {
  private sent = 0;
  private dropped = 0;
  private smallest = Number.POSITIVE_INFINITY;
  private largest = Number.NEGATIVE_INFINITY;
  private keys = new Float64Array(1024);

  constructor(readonly identity: StreamIdentity) {}

  /** Notes a key that was written for the first time. */
  record(key: number): void {
    if (this.sent === this.keys.length && this.keys.length < KEYS_KEPT) {
      const grown = new Float64Array(this.keys.length * 2);
      grown.set(this.keys);
      this.keys = grown;
    }
    this.keys[this.sent % this.keys.length] = key;
    this.sent++;
    if (key < this.smallest) this.smallest = key;
    if (key > this.largest) this.largest = key;
  }

  /** Notes a key that a fault kept from every socket. */
  withhold(): void {
    this.dropped++;
  }

  /** Takes that back: the key was written after all, to a later reader. */
  unwithhold(): void {
    this.dropped--;
  }

  report(): StreamReport {
    return {
      ...this.identity,
      sent: this.sent,
      first_id: this.sent > 0 ? String(this.smallest) : null,
      last_id: this.sent > 0 ? String(this.largest) : null,
      dropped: this.dropped,
    };
  }

  /** The keys in the order of writing, one a line; a first line starting with `#` says when the oldest are not kept. */
  *keyLines(): Generator<string> {
    const lost = Math.max(0, this.sent - this.keys.length);
    if (lost > 0) yield `# overflowed: the oldest ${lost} of ${this.sent} ids are not listed\n`;
    for (let place = lost; place < this.sent; place++) yield `${this.keys[place % this.keys.length]}\n`;
  }
}

/**
 * The distinct keys of what reaches clients by several streams: written on one of them, a key counts, and counts once. Keys
 * are told by their names. Few come in a second, so that all that matter are kept.
 */
export class DistinctLedger implements KeyLedger, Reported {
  private readonly named = new Map<number, { name: string; state: 'new' | 'withheld' | 'sent' }>();
  private readonly order: number[] = [];
  private dropped = 0;

  constructor(readonly identity: StreamIdentity) {}

  /** Gives a key its name, before it is recorded or withheld. */
  name(key: number, name: string): void {
    if (!this.named.has(key)) this.named.set(key, { name, state: 'new' });
  }

  record(key: number): void {
    const entry = this.entry(key);
    if (entry.state === 'sent') return;
    if (entry.state === 'withheld') this.dropped--;
    entry.state = 'sent';
    this.order.push(key);
  }

  withhold(key: number): void {
    const entry = this.entry(key);
    if (entry.state !== 'new') return;
    entry.state = 'withheld';
    this.dropped++;
  }

  report(): StreamReport {
    const ascending = [...this.order].sort((one, other) => one - other);
    const nameOf = (key: number | undefined): string | null => (key === undefined ? null : this.entry(key).name);
    return {
      ...this.identity,
      sent: this.order.length,
      first_id: nameOf(ascending[0]),
      last_id: nameOf(ascending.at(-1)),
      dropped: this.dropped,
    };
  }

  *keyLines(): Generator<string> {
    for (const key of this.order) yield `${this.entry(key).name}\n`;
  }

  private entry(key: number): { name: string; state: 'new' | 'withheld' | 'sent' } {
    const found = this.named.get(key);
    if (!found) throw new Error(`key ${key} of ${this.identity.data_type} has no name`);
    return found;
  }
}

export class Ledger {
  readonly counters: Counters = {
    frames: 0,
    bytes: 0,
    book_tickers: 0,
    mark_prices: 0,
    reading_frames: 0,
    coin_m_liquidations: 0,
    book_snapshots: 0,
    snapshots: 0,
    open_interests: 0,
    premium_indices: 0,
    long_short_ratios: 0,
    reading_answers: 0,
    repeated: 0,
    reordered: 0,
    garbage: 0,
    rest_requests: 0,
    rest_refused: 0,
    rest_away: 0,
    subscriptions_silenced: 0,
    shutdown_notices: 0,
    control_actions: 0,
    closed_by_control: 0,
    closed_slow: 0,
    closed_rate: 0,
    closed_streams: 0,
    closed_pong: 0,
    closed_age: 0,
    socket_errors: 0,
  };
  stopped: number | null = null;
  private readonly streams = new Map<string, StreamLedger>();
  private readonly distincts = new Map<string, DistinctLedger>();

  constructor(readonly started: number) {}

  /** The ledger of one stream, made when first asked for. */
  stream(identity: StreamIdentity): StreamLedger {
    const key = streamKey(identity);
    let found = this.streams.get(key);
    if (!found) this.streams.set(key, (found = new StreamLedger(identity)));
    return found;
  }

  /** As `stream`, for keys that come by several streams. */
  distinct(identity: StreamIdentity): DistinctLedger {
    const key = streamKey(identity);
    let found = this.distincts.get(key);
    if (!found) this.distincts.set(key, (found = new DistinctLedger(identity)));
    return found;
  }

  find(identity: { exchange: string; symbol: string; data_type: string }): Reported | undefined {
    return this.streams.get(streamKey(identity)) ?? this.distincts.get(streamKey(identity));
  }

  report(sockets: Record<string, number>, replayDone: boolean | null): LedgerReport {
    return {
      started: this.started,
      stopped: this.stopped,
      replay_done: replayDone,
      streams: [...this.streams.values(), ...this.distincts.values()]
        .map((each) => each.report())
        .filter(isWorthTelling),
      sockets,
      ...this.counters,
    };
  }
}

/** The two main types are told even when nothing was sent; the others only once somebody read them. */
function isWorthTelling({ data_type, sent, dropped }: StreamReport): boolean {
  return data_type === 'trade' || data_type === 'orderbook_update' || sent > 0 || dropped > 0;
}

function streamKey(identity: { exchange: string; symbol: string; data_type: string }): string {
  return `${identity.exchange} ${identity.symbol} ${identity.data_type}`;
}
