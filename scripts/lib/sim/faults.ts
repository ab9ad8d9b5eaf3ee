/** Faults on demand: which frames of an exchange are withheld, doubled or swapped, and which requests are refused. */

/** What a frame may be, by what becomes of it; a ticker has several readings at once. */
export const DATA_KINDS = [
  'trade',
  'orderbook_update',
  'book_ticker',
  'ticker',
  'funding_rate',
  'open_interest',
  'liquidation',
  'volatility_index',
  'candle',
] as const;
export type DataKind = (typeof DATA_KINDS)[number];

/** Which frames a fault means; what is absent means all. */
export interface Target {
  readonly symbol?: string | undefined;
  readonly dataType?: DataKind | undefined;
}

export type Verdict = 'send' | 'withhold' | 'twice' | 'hold';

interface Rule extends Target {
  readonly verdict: Verdict;
  left: number;
  readonly until: number;
}

interface Refusal {
  readonly status: number;
  readonly retryAfter: number;
  left: number;
}

/** The faults of one exchange. */
export class Faults {
  private rules: Rule[] = [];
  private refusals: Refusal[] = [];
  private silencedSubscribes = 0;
  private awayUntil = Number.NEGATIVE_INFINITY;

  constructor(private readonly clock: () => number) {}

  /** True when every frame passes: the common case costs one look. */
  get idle(): boolean {
    return this.rules.length === 0;
  }

  /** Applies `verdict` to the next `count` frames that match. */
  next(verdict: Exclude<Verdict, 'send'>, count: number, target: Target): void {
    this.rules.push({ ...target, verdict, left: count, until: Number.POSITIVE_INFINITY });
  }

  /** Withholds every frame that matches, for that long. */
  silence(ms: number, target: Target): void {
    this.rules.push({ ...target, verdict: 'withhold', left: Number.POSITIVE_INFINITY, until: this.clock() + ms });
  }

  /** What happens to one frame. Counts it against the oldest fault that it matches. */
  verdict(symbol: string, kind: DataKind): Verdict {
    if (this.rules.length === 0) return 'send';
    const now = this.clock();
    this.rules = this.rules.filter((rule) => rule.left > 0 && rule.until > now);
    const rule = this.rules.find(
      ({ symbol: wanted, dataType }) => (wanted ?? symbol) === symbol && (dataType ?? kind) === kind,
    );
    if (!rule) return 'send';
    rule.left--;
    return rule.verdict;
  }

  /** Answers the next `count` requests with an error. */
  refuse(status: number, retryAfter: number, count: number): void {
    this.refusals.push({ status, retryAfter, left: count });
  }

  /** The refusal due for a request, if any. */
  refusal(): { status: number; retryAfter: number } | undefined {
    this.refusals = this.refusals.filter((refusal) => refusal.left > 0);
    const due = this.refusals[0];
    if (due) due.left--;
    return due;
  }

  /** Answers no request from now on, for that long by the exchange's own clock; a later call takes the place of an earlier one. */
  goAway(ms: number): void {
    this.awayUntil = this.clock() + ms;
  }

  isAway(): boolean {
    return this.clock() < this.awayUntil;
  }

  /** Acknowledges the next `count` subscriptions without serving them. */
  silenceSubscribes(count: number): void {
    this.silencedSubscribes += count;
  }

  /** True when this subscription is one to be acknowledged and forgotten. */
  takeSilencedSubscribe(): boolean {
    if (this.silencedSubscribes === 0) return false;
    this.silencedSubscribes--;
    return true;
  }
}
