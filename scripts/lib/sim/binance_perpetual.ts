/** Binance USDⓈ-M beside trades and books: mark prices and liquidations on its sockets, readings over REST. */
import { identity } from './binance.ts';
import { interestRow, periodsOf, ratioRow, settledRates } from './binance_past.ts';
import { ofSymbol, ok } from './binance_rest.ts';
import type { DistinctLedger, Ledger } from './ledger.ts';
import { type Liquidation, type Perpetual, RATIOS, type RatioKind } from './perpetual.ts';
import type { Listed, Peer, RestAnswer, RestRequest, Topic, Weighed, Wire } from './venue.ts';

const SECOND_MS = 1000;
const MINUTE_MS = 60_000;
/** Cadences of the two mark price streams. */
const MARK_STREAMS = [
  ['markPrice@1s', SECOND_MS],
  ['markPrice', 3 * SECOND_MS],
] as const;
/** After a stall longer than this, time is skipped instead of being made up for in one burst. */
const MAX_CATCH_UP_MS = 1000;
/** One liquidation in this many is followed by one of the COIN-M contract of the same base. */
const COIN_M_EVERY = 3;

/** Requests per five minutes that do not count as weight. */
const FIVE_MINUTES_MS = 5 * MINUTE_MS;
const DATA_REQUESTS = 1000;
const FUNDING_REQUESTS = 500;

/** Pairs that settle every 8 h with nothing adjusted, and so are absent from fundingInfo. */
const UNADJUSTED = ['BTC', 'ETH'];
/** The other well-known ones have adjusted bounds only; what is left settles every 4 h. */
const ADJUSTED_BOUNDS = ['SOL', 'BNB', 'XRP', 'DOGE'];

/** Hours between the settlements of a base. */
export function fundingHoursOf(base: string): number {
  return UNADJUSTED.includes(base) || ADJUSTED_BOUNDS.includes(base) ? 8 : 4;
}

/** How the ledger names a liquidation: the venue gives no id. */
export function liquidationKey(instrument: string, { side, average, quantity, time }: Liquidation): string {
  return [instrument, side.toLowerCase(), average, quantity, time].join('|');
}

export interface PerpetualPair {
  readonly listed: Listed;
  readonly perpetual: Perpetual;
}

interface PairTopics extends PerpetualPair {
  readonly marks: readonly { topic: Topic; everyMs: number }[];
  readonly liquidations: readonly Topic[];
  readonly coinM: Topic;
  readonly ledger: DistinctLedger;
}

/** Counts requests in windows of fixed length. */
class RequestWindow {
  private window = 0;
  private count = 0;

  constructor(
    private readonly limit: number,
    private readonly everyMs: number,
  ) {}

  /** Takes one; when it is one too many, the seconds until the next window. */
  take(now: number): number | null {
    const window = Math.floor(now / this.everyMs);
    if (window !== this.window) this.count = 0;
    this.window = window;
    this.count++;
    return this.count <= this.limit ? null : Math.ceil(((window + 1) * this.everyMs - now) / 1000);
  }
}

/** The readings of all pairs, over their streams and over REST. */
export class PerpetualDesk {
  readonly topics: readonly Topic[];
  private readonly pairs: readonly PairTopics[];
  private readonly ledger: Ledger;
  private readonly dataWindow = new RequestWindow(DATA_REQUESTS, FIVE_MINUTES_MS);
  private readonly fundingWindow = new RequestWindow(FUNDING_REQUESTS, FIVE_MINUTES_MS);
  /** Stands still while production is stopped, and all readings with it. */
  private now: number;

  constructor(
    exchange: string,
    pairs: readonly PerpetualPair[],
    private readonly wire: Wire,
  ) {
    this.now = wire.clock();
    this.ledger = wire.ledger;
    const everybody = new Set<Peer>();
    this.pairs = pairs.map((pair) => {
      const { symbol, base, instrument } = pair.listed;
      const stem = instrument.toLowerCase();
      const ledger = wire.ledger.distinct(identity('usdm', exchange, pair.listed, 'liquidation'));
      const all = { subscribers: everybody };
      return {
        ...pair,
        ledger,
        marks: MARK_STREAMS.map(([name, everyMs]) => ({
          everyMs,
          topic: wire.topic(`${stem}@${name}`, 'funding_rate', symbol, null, { counter: 'mark_prices' }),
        })),
        // The stream of all symbols has a topic per symbol, so that a fault can mean one symbol, and one set of readers.
        liquidations: [
          wire.topic(`${stem}@forceOrder`, 'liquidation', symbol, ledger),
          wire.topic('!forceOrder@arr', 'liquidation', symbol, ledger, all),
        ],
        coinM: wire.topic('!forceOrder@arr', 'liquidation', `${base}-USD`, null, {
          ...all,
          counter: 'coin_m_liquidations',
        }),
      };
    });
    this.topics = this.pairs.flatMap(({ marks, liquidations, coinM }) => [
      ...marks.map(({ topic }) => topic),
      ...liquidations,
      coinM,
    ]);
  }

  /** Tells everything that is due by `now`, in the order of time within each pair. */
  advance(now: number): void {
    const from = Math.max(this.now, now - MAX_CATCH_UP_MS);
    this.now = Math.max(this.now, now);
    for (const pair of this.pairs) {
      for (const liquidation of pair.perpetual.liquidations(from, now)) this.tell(pair, liquidation);
      for (let at = (Math.floor(from / SECOND_MS) + 1) * SECOND_MS; at <= now; at += SECOND_MS) this.mark(pair, at);
    }
  }

  /** Goes on at `now` as if the time since the last `advance` had not been. */
  resume(now: number): void {
    this.now = now;
  }

  /** The answer to a request for readings; undefined when it is for something else. */
  rest({ path, query }: RestRequest): Weighed | undefined {
    switch (path) {
      case '/fapi/v1/openInterest':
        return { weight: 1, answer: () => this.openInterest(query) };
      case '/fapi/v1/premiumIndex':
        return { weight: query.has('symbol') ? 1 : 10, answer: () => this.premiumIndex(query) };
      case '/fapi/v1/fundingInfo':
        return { weight: 0, overLimit: (now) => this.fundingWindow.take(now), answer: () => ok(this.fundingInfo()) };
      case '/fapi/v1/fundingRate':
        return {
          weight: 0,
          overLimit: (now) => this.fundingWindow.take(now),
          answer: () => settledRates(query, this.now, this.pairs),
        };
      case '/futures/data/openInterestHist':
        return {
          weight: 0,
          overLimit: (now) => this.dataWindow.take(now),
          answer: () => this.periods(query, 'open_interests', interestRow),
        };
    }
    const kind = RATIOS.find((name) => path === `/futures/data/${name}`);
    if (!kind) return undefined;
    return { weight: 0, overLimit: (now) => this.dataWindow.take(now), answer: () => this.ratios(kind, query) };
  }

  private tell(pair: PairTopics, each: Liquidation): void {
    const { listed, ledger, liquidations, coinM } = pair;
    const { at, time, side, limit, average, quantity, lastFill } = each;
    const order = (name: string, family: string, st: number, [q, p, ap, l]: string[]): string =>
      `{"s":"${name}","S":"${side}","o":"LIMIT","f":"IOC","q":"${q}","p":"${p}","ap":"${ap}","X":"FILLED","l":"${l}","z":"${q}","T":${time},"ps":"${family}","st":${st}}`;
    const { instrument, base } = listed;
    const frame = (o: string): string => `{"e":"forceOrder","E":${at},"o":${o}}`;
    for (const topic of liquidations) {
      if (topic.subscribers.size === 0) continue;
      ledger.name(at, liquidationKey(instrument, each));
      const o = order(instrument, instrument, 1, [quantity, limit, average, lastFill]);
      this.wire.publish(topic, at, frame(o));
    }
    if (at % COIN_M_EVERY !== 0 || coinM.subscribers.size === 0) return;
    // Contracts of 10 or 100 USD, a whole number of them.
    const contracts = String(1 + (at % 97));
    const o = order(`${base}USD_PERP`, `${base}USD`, 2, [contracts, limit, average, contracts]);
    this.wire.publish(coinM, at, frame(o));
  }

  private mark({ listed, perpetual, marks }: PairTopics, at: number): void {
    for (const { topic, everyMs } of marks) {
      if (at % everyMs !== 0 || topic.subscribers.size === 0) continue;
      const { mark, average, settle, index, rate, nextFunding } = perpetual.mark(at);
      this.wire.publish(
        topic,
        at,
        `{"e":"markPriceUpdate","E":${at},"s":"${listed.instrument}","p":"${mark}","ap":"${average}","P":"${settle}","i":"${index}","r":"${rate}","T":${nextFunding},"st":1}`,
      );
    }
  }

  private openInterest(query: URLSearchParams): RestAnswer {
    return this.withSymbol(query, ({ listed, perpetual }) => {
      this.ledger.counters.open_interests++;
      const time = Math.floor(this.now);
      return ok(`{"openInterest":"${perpetual.openInterest(time)}","symbol":"${listed.instrument}","time":${time}}`);
    });
  }

  private premiumIndex(query: URLSearchParams): RestAnswer {
    this.ledger.counters.premium_indices++;
    const time = Math.floor(this.now);
    const row = ({ listed, perpetual }: PerpetualPair): string => {
      const { mark, index, settle, rate, nextFunding } = perpetual.mark(time);
      return (
        `{"symbol":"${listed.instrument}","markPrice":"${mark}","indexPrice":"${index}","estimatedSettlePrice":"${settle}",` +
        `"lastFundingRate":"${rate}","interestRate":"0.00010000","nextFundingTime":${nextFunding},"time":${time}}`
      );
    };
    return query.has('symbol')
      ? this.withSymbol(query, (pair) => ok(row(pair)))
      : ok(`[${this.pairs.map(row).join(',')}]`);
  }

  /** A symbol that was adjusted once stays listed for good: one is here that is traded no more. */
  private fundingInfo(): string {
    const listed = this.pairs
      .filter((pair) => !UNADJUSTED.includes(pair.listed.base))
      .map((pair) => ({ symbol: pair.listed.instrument, hours: pair.perpetual.fundingHours }));
    return JSON.stringify(
      [{ symbol: 'BLZUSDT', hours: 8 }, ...listed].map(({ symbol, hours }) => ({
        symbol,
        adjustedFundingRateCap: '0.02500000',
        adjustedFundingRateFloor: '-0.02500000',
        fundingIntervalHours: hours,
        disclaimer: false,
      })),
    );
  }

  private ratios(kind: RatioKind, query: URLSearchParams): RestAnswer {
    return this.periods(query, 'long_short_ratios', (pair, at) => ratioRow(pair, kind, at));
  }

  /** The rows of one pair, one in each period that is asked for; the good answers are counted. */
  private periods(
    query: URLSearchParams,
    counter: 'open_interests' | 'long_short_ratios',
    row: (pair: PerpetualPair, at: number) => string,
  ): RestAnswer {
    const asked = periodsOf(query, this.now);
    if ('status' in asked) return asked;
    this.ledger.counters[counter]++;
    const pair = this.pairs.find(({ listed }) => listed.instrument === asked.symbol);
    return ok(`[${pair === undefined ? '' : asked.times.map((at) => row(pair, at)).join(',')}]`);
  }

  private withSymbol(query: URLSearchParams, answer: (pair: PerpetualPair) => RestAnswer): RestAnswer {
    return ofSymbol(query, (symbol) => this.pairs.find(({ listed }) => listed.instrument === symbol), answer);
  }
}
