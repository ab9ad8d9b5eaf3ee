/** What OKX's swaps have beside books and trades: funding and open interest, liquidations, long/short ratios. */
import type { DistinctLedger } from './ledger.ts';
import { trimmed } from './okx_books.ts';
import { lotsOf, type OkxInstrument, okxIdentity, plain, sizeText } from './okx_instruments.ts';
import { type OkxChannel, tellOne } from './okx_pair.ts';
import { cursorOf, emptyParameter, limitOf, NO_INSTRUMENT, okxOk, pageOf, wrongParameter } from './okx_rest.ts';
import type { Liquidation, Perpetual, RatioKind } from './perpetual.ts';
import type { Peer, RestAnswer, RestRequest, Topic, Wire } from './venue.ts';

const SECOND_MS = 1000;
const MINUTE_MS = 60_000;
const HOUR_MS = 60 * MINUTE_MS;
/** After a stall longer than this, time is skipped instead of being made up for in one burst. */
const MAX_CATCH_UP_MS = 1000;
/** The venue tells funding each 30 to 90 s, open interest each 3 s. */
const FUNDING_EVERY_MS = 30 * SECOND_MS;
const INTEREST_EVERY_MS = 3 * SECOND_MS;
/** One liquidation in this many is told with the next one, after it: so it is out of the order of time. */
const LATE_LIQUIDATION = 4;
/** Settlements that REST remembers, a quarter of a year. */
const FUNDING_HISTORY_MS = 91 * 24 * HOUR_MS;
const HISTORY_LIMIT = { usual: 100, most: 400 };

/** An entry of the trading statistics appears this long after its time; entries back, and entries of one answer. */
const STATISTICS_DELAY_MS = 10_000;
const STATISTICS_ENTRIES = 1440;
const STATISTICS_LIMIT = { usual: 100, most: 100 };
const EIGHT_HOURS = 8 * HOUR_MS;
/** Length of a period, and by how much its boundaries lie before those of UTC. */
const PERIODS: Readonly<Record<string, readonly [length: number, shift: number]>> = {
  '5m': [5 * MINUTE_MS, 0],
  '15m': [15 * MINUTE_MS, 0],
  '30m': [30 * MINUTE_MS, 0],
  '1H': [HOUR_MS, 0],
  '2H': [2 * HOUR_MS, 0],
  '4H': [4 * HOUR_MS, 0],
  '6H': [6 * HOUR_MS, EIGHT_HOURS],
  '12H': [12 * HOUR_MS, EIGHT_HOURS],
  '1D': [24 * HOUR_MS, EIGHT_HOURS],
  '6Hutc': [6 * HOUR_MS, 0],
  '12Hutc': [12 * HOUR_MS, 0],
  '1Dutc': [24 * HOUR_MS, 0],
};
const RUBIK = '/api/v5/rubik/stat/contracts/';
const RATIO_PATHS: Readonly<Record<string, RatioKind>> = {
  [`${RUBIK}long-short-position-ratio-contract-top-trader`]: 'topLongShortPositionRatio',
  [`${RUBIK}long-short-account-ratio-contract-top-trader`]: 'topLongShortAccountRatio',
  [`${RUBIK}long-short-account-ratio-contract`]: 'globalLongShortAccountRatio',
};

/** Bases that settle every 8 h; the others do so every 4 h. */
const EIGHT_HOURLY = ['BTC', 'ETH'];

/** Hours between the settlements of a base. */
export function okxFundingHours(base: string): number {
  return EIGHT_HOURLY.includes(base) ? 8 : 4;
}

/** What a liquidation is, as a name: symbol, side, bankruptcy price, quantity in base units, time. The venue gives no id. */
export function okxLiquidationName(listed: OkxInstrument, { side, limit, quantity, time }: Liquidation): string {
  const inBase = plain(lotsOf(listed, quantity), listed.baseDecimals);
  return [listed.symbol, side.toLowerCase(), trimmed(limit), inBase, time].join('|');
}

export interface OkxPerpetual {
  readonly listed: OkxInstrument;
  readonly perpetual: Perpetual;
}

interface Swap extends OkxPerpetual {
  readonly funding: Topic;
  readonly interest: Topic;
  readonly liquidations: Topic;
  readonly ledger: DistinctLedger;
  late: Liquidation | null;
}

export class OkxReadings {
  readonly channels: readonly OkxChannel[];
  private readonly swaps: readonly Swap[];
  /** Stands still while production is stopped, and all readings with it. */
  private now: number;

  constructor(
    exchange: string,
    pairs: readonly OkxPerpetual[],
    private readonly wire: Wire,
  ) {
    this.now = wire.clock();
    // One channel tells the liquidations of all swaps; a topic per symbol lets a fault mean one of them.
    const everybody = new Set<Peer>();
    this.swaps = pairs.map(({ listed, perpetual }) => {
      const { symbol, instrument } = listed;
      const reading = (channel: string, kind: 'funding_rate' | 'open_interest'): Topic =>
        wire.topic(`${channel}:${instrument}`, kind, symbol, null, { counter: 'reading_frames' });
      const ledger = wire.ledger.distinct(okxIdentity(exchange, listed, 'liquidation'));
      return {
        listed,
        perpetual,
        ledger,
        late: null,
        funding: reading('funding-rate', 'funding_rate'),
        interest: reading('open-interest', 'open_interest'),
        liquidations: wire.topic('liquidation-orders:SWAP', 'liquidation', symbol, ledger, { subscribers: everybody }),
      };
    });
    const shown = (topic: Topic, row: () => string): OkxChannel => ({
      route: 'public',
      name: topic.name,
      subscribers: topic.subscribers,
      greet: (peer) => tellOne(wire, topic, peer, frameOf(topic, row())),
    });
    this.channels = [
      { route: 'public', name: 'liquidation-orders:SWAP', subscribers: everybody },
      ...this.swaps.flatMap((swap) => [
        shown(swap.funding, () => fundingRow(swap, this.now)),
        shown(swap.interest, () => interestRow(swap, this.now)),
      ]),
    ];
  }

  /** Tells everything that is due by `now`. */
  advance(now: number): void {
    const from = Math.max(this.now, now - MAX_CATCH_UP_MS);
    this.now = Math.max(this.now, now);
    for (const swap of this.swaps) {
      for (const liquidation of swap.perpetual.liquidations(from, now)) this.liquidated(swap, liquidation);
      this.tellDue(swap.funding, FUNDING_EVERY_MS, from, (at) => fundingRow(swap, at));
      this.tellDue(swap.interest, INTEREST_EVERY_MS, from, (at) => interestRow(swap, at));
    }
  }

  /** Ends all waiting for a frame that may not come. */
  stop(): void {
    for (const { funding, interest, liquidations } of this.swaps) {
      for (const topic of [funding, interest, liquidations]) this.wire.release(topic);
    }
  }

  /** Goes on at `now` as if the time since the last `advance` had not been. */
  resume(now: number): void {
    this.now = now;
  }

  /** The answer to a request for readings; undefined when it is for something else. */
  rest({ path, query }: RestRequest): RestAnswer | undefined {
    const kind = RATIO_PATHS[path];
    switch (path) {
      case '/api/v5/public/funding-rate':
        return this.ofInstrument(query, (swaps) => okxOk(swaps.map((swap) => fundingRow(swap, this.now))), 'ANY');
      case '/api/v5/public/funding-rate-history':
        return this.ofInstrument(query, ([swap]) => this.fundingHistory(swap as Swap, query));
      case '/api/v5/public/open-interest':
        return this.openInterests(query);
    }
    if (path === `${RUBIK}open-interest-history`) {
      return this.ofInstrument(query, ([swap]) => this.statistics(query, (at) => interestEntry(swap as Swap, at)));
    }
    if (kind === undefined) return undefined;
    return this.ofInstrument(query, ([swap]) =>
      this.statistics(query, (at) => [trimmed((swap as Swap).perpetual.ratio(kind, at).ratio)]),
    );
  }

  private tellDue(topic: Topic, everyMs: number, from: number, row: (at: number) => string): void {
    if (topic.subscribers.size === 0) return;
    for (let at = (Math.floor(from / everyMs) + 1) * everyMs; at <= this.now; at += everyMs) {
      this.wire.publish(topic, at, frameOf(topic, row(at)));
    }
  }

  private liquidated(swap: Swap, liquidation: Liquidation): void {
    const { listed, ledger, liquidations, late } = swap;
    if (liquidations.subscribers.size === 0) return;
    if (late === null && liquidation.time % LATE_LIQUIDATION === 0) {
      swap.late = liquidation;
      return;
    }
    swap.late = null;
    const told = late === null ? [liquidation] : [liquidation, late];
    for (const each of told) ledger.name(each.at, okxLiquidationName(listed, each));
    const details = told.map((each) => detailText(listed, each)).join(',');
    const { symbol, instrument } = listed;
    this.wire.publish(
      liquidations,
      told.map(({ at }) => at),
      `{"arg":{"channel":"liquidation-orders","instType":"SWAP"},"data":[{"details":[${details}],` +
        `"instFamily":"${symbol}","instId":"${instrument}","instType":"SWAP","uly":"${symbol}"}]}`,
    );
  }

  private openInterests(query: URLSearchParams): RestAnswer {
    const type = query.get('instType');
    if (!type) return emptyParameter('instType');
    if (!['SWAP', 'FUTURES', 'OPTION'].includes(type)) return wrongParameter('instType');
    const [id, family] = [query.get('instId'), query.get('instFamily')];
    const found = this.swaps.filter(
      ({ listed }) =>
        type === 'SWAP' && (id === null || id === listed.instrument) && (family === null || family === listed.symbol),
    );
    if (id !== null && found.length === 0) return NO_INSTRUMENT;
    this.wire.ledger.counters.reading_answers++;
    return okxOk(found.map((swap) => interestRow(swap, this.now)));
  }

  private fundingHistory({ listed, perpetual }: Swap, query: URLSearchParams): RestAnswer {
    const [after, before] = [cursorOf(query, 'after'), cursorOf(query, 'before')];
    if (after === null) return wrongParameter('after');
    if (before === null) return wrongParameter('before');
    const period = perpetual.fundingHours * HOUR_MS;
    const newest = perpetual.mark(this.now).nextFunding - period;
    const times: number[] = [];
    for (let at = newest; at > this.now - FUNDING_HISTORY_MS; at -= period) times.push(at);
    const limit = limitOf(query, HISTORY_LIMIT.usual, HISTORY_LIMIT.most);
    return okxOk(
      pageOf(times, (at) => at, { after, before, limit }).map((at) => {
        const rate = perpetual.mark(at).rate;
        return `{"instType":"SWAP","instId":"${listed.instrument}","formulaType":"withRate","fundingRate":"${rate}","realizedRate":"${rate}","fundingTime":"${at}","method":"current_period"}`;
      }),
    );
  }

  /**
   * Newest first, texts each: the beginning of the period, and what `entry` tells of that time. `begin` and `end` are what they
   * are newer and older than, as documented.
   */
  private statistics(query: URLSearchParams, entry: (at: number) => readonly string[]): RestAnswer {
    const period = PERIODS[query.get('period') || '5m'];
    const [begin, end] = [cursorOf(query, 'begin'), cursorOf(query, 'end')];
    if (period === undefined) return wrongParameter('period');
    if (begin === null) return wrongParameter('begin');
    if (end === null) return wrongParameter('end');
    const [length, shift] = period;
    const newest = Math.floor((this.now - STATISTICS_DELAY_MS + shift) / length) * length - shift;
    const times = Array.from({ length: STATISTICS_ENTRIES }, (_, place) => newest - place * length);
    const limit = limitOf(query, STATISTICS_LIMIT.usual, STATISTICS_LIMIT.most);
    const page = pageOf(times, (at) => at, { after: end, before: begin, limit });
    return okxOk(page.map((at) => JSON.stringify([String(at), ...entry(at)])));
  }

  /** Answers for the swap that a request must name; `all` is the word that means every one. */
  private ofInstrument(
    query: URLSearchParams,
    answer: (swaps: readonly Swap[]) => RestAnswer,
    all?: string,
  ): RestAnswer {
    const id = query.get('instId');
    if (!id) return emptyParameter('instId');
    const found = this.swaps.filter(({ listed }) => id === all || id === listed.instrument);
    if (found.length === 0) return NO_INSTRUMENT;
    this.wire.ledger.counters.reading_answers++;
    return answer(found);
  }
}

function frameOf({ name }: Topic, row: string): string {
  const [channel, instrument] = name.split(':');
  return `{"arg":{"channel":"${channel}","instId":"${instrument}"},"data":[${row}]}`;
}

/** The rate of the coming settlement, as far as it can be told yet. */
function fundingRow({ listed, perpetual }: Swap, now: number): string {
  const time = Math.floor(now);
  const { mark, index, rate, nextFunding } = perpetual.mark(time);
  const period = perpetual.fundingHours * HOUR_MS;
  return JSON.stringify({
    formulaType: 'withRate',
    fundingRate: rate,
    fundingTime: String(nextFunding),
    impactValue: '20000.0000000000000000',
    instId: listed.instrument,
    instType: 'SWAP',
    interestRate: '0.0001000000000000',
    maxFundingRate: '0.00375',
    method: 'current_period',
    minFundingRate: '-0.00375',
    nextFundingRate: '',
    nextFundingTime: String(nextFunding + period),
    premium: (Number(mark) / Number(index) - 1).toFixed(16),
    prevFundingTime: String(nextFunding - period),
    settFundingRate: perpetual.mark(nextFunding - period).rate,
    settState: 'settled',
    ts: String(time),
  });
}

function interestRow(swap: Swap, now: number): string {
  const time = Math.floor(now);
  const [oi, oiCcy, oiUsd] = interestEntry(swap, time);
  return (
    `{"instId":"${swap.listed.instrument}","instType":"SWAP","oi":"${oi}","oiCcy":"${oiCcy}",` +
    `"oiUsd":"${oiUsd}","ts":"${time}"}`
  );
}

/** Open interest in contracts, in the base and in dollars. */
function interestEntry({ listed, perpetual }: Swap, time: number): [oi: string, oiCcy: string, oiUsd: string] {
  const lots = lotsOf(listed, perpetual.openInterest(time));
  const inBase = plain(lots, listed.baseDecimals);
  return [sizeText(listed, lots), inBase, (Number(inBase) * Number(perpetual.mark(time).mark)).toFixed(4)];
}

function detailText(listed: OkxInstrument, { side, limit, quantity, time }: Liquidation): string {
  const [position, order] = side === 'SELL' ? ['long', 'sell'] : ['short', 'buy'];
  const size = sizeText(listed, lotsOf(listed, quantity));
  return `{"bkLoss":"0","bkPx":"${trimmed(limit)}","ccy":"","posSide":"${position}","side":"${order}","sz":"${size}","ts":"${time}"}`;
}
