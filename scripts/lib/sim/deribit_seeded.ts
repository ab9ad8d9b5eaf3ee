/** Deribit's perpetuals and volatility indexes over seeded markets. */
import type { DeribitSource } from './deribit.ts';
import { notification } from './deribit_book.ts';
import { float, instrumentText } from './deribit_contracts.ts';
import type { DeribitMarket } from './deribit_market.ts';
import {
  choiceOf,
  DEPTHS,
  LATEST,
  type Params,
  RpcError,
  rangeOf,
  textOf,
  wholeOf,
  wrongParam,
} from './deribit_rpc.ts';
import { RESOLUTIONS, type VolatilityIndex } from './deribit_volatility.ts';
import type { Peer, Topic, Wire } from './venue.ts';

const SECOND_MS = 1000;
/** When its instruments were listed. */
const CREATED_MS = 1_534_167_754_000;
const CURRENCIES = ['BTC', 'ETH', 'USDC', 'USDT', 'EURR', 'any'] as const;
const KINDS = ['future', 'option', 'spot', 'future_combo', 'option_combo', 'any'] as const;
const TRUTHS = ['true', 'false'] as const;

/** Lengths of candles of trades, ms, by the names that the venue gives them: minutes. */
const CHART_WIDTHS: Readonly<Record<string, number>> = Object.fromEntries(
  [1, 3, 5, 10, 15, 30, 60, 120, 180, 360, 720].map((minutes) => [String(minutes), minutes * 60_000]),
);

/** All markets of one simulated venue, and the methods that ask for their data. */
export class SeededDeribit implements DeribitSource {
  readonly servesRaw = false;
  private readonly indexes: readonly { index: VolatilityIndex; topic: Topic }[];
  private isStopped = false;
  /** Up to which the indexes were told, ms. */
  private told: number;

  constructor(
    private readonly markets: readonly DeribitMarket[],
    indexes: readonly VolatilityIndex[],
    private readonly wire: Wire,
  ) {
    this.told = wire.clock();
    this.indexes = indexes.map((index) => ({
      index,
      topic: wire.topic(`deribit_volatility_index.${index.name}`, 'volatility_index', index.coin, null, {
        counter: 'reading_frames',
      }),
    }));
  }

  get sample(): string {
    return this.markets[0]?.contract.instrument ?? 'BTC-PERPETUAL';
  }

  serves(channel: string): boolean {
    return (
      this.markets.some(({ topics }) => topics.some(({ name }) => name === channel)) ||
      this.indexes.some(({ topic }) => topic.name === channel)
    );
  }

  subscribe(peer: Peer, channel: string): void {
    for (const market of this.markets) market.subscribe(peer, channel);
    for (const { topic } of this.indexes) if (topic.name === channel) topic.subscribers.add(peer);
  }

  unsubscribe(peer: Peer, channel: string): void {
    for (const market of this.markets) market.unsubscribe(peer, channel);
    for (const { topic } of this.indexes) if (topic.name === channel) topic.subscribers.delete(peer);
  }

  leave(peer: Peer): void {
    for (const market of this.markets) market.leave(peer);
    for (const { topic } of this.indexes) topic.subscribers.delete(peer);
  }

  result(method: string, params: Params): string | undefined {
    const now = Math.floor(this.wire.clock());
    // While production is stopped, the readings stand still with it; trades grow older all the same.
    const readAt = this.isStopped ? Math.floor(this.told) : now;
    const { counters } = this.wire.ledger;
    switch (method) {
      case 'get_instruments':
        return this.instruments(params);
      case 'get_instrument':
        return instrumentText(this.market(params).contract, CREATED_MS);
      case 'get_last_trades_by_instrument':
        return this.market(params).trades(rangeOf(params), now);
      case 'get_last_trades_by_instrument_and_time':
        for (const name of ['start_timestamp', 'end_timestamp']) wholeOf(params, name, 0, LATEST);
        return this.market(params).trades(rangeOf({ ...params, start_seq: undefined, end_seq: undefined }), now);
      case 'get_order_book':
        counters.snapshots++;
        return this.market(params).orderBook(Number(choiceOf(params, 'depth', DEPTHS, '5')), readAt);
    }
    const reading = this.reading(method, params, readAt);
    if (reading !== undefined) counters.reading_answers++;
    return reading;
  }

  advance(now: number): void {
    if (this.isStopped) return;
    for (const market of this.markets) market.advance(now);
    const from = Math.max(this.told, now - SECOND_MS);
    this.told = now;
    for (let at = (Math.floor(from / SECOND_MS) + 1) * SECOND_MS; at <= now; at += SECOND_MS) {
      for (const { index, topic } of this.indexes) {
        if (topic.subscribers.size === 0) continue;
        const data = `{"timestamp":${at},"volatility":${float(index.at(at))},"index_name":"${index.name}"}`;
        this.wire.publish(topic, at, notification(topic.name, data));
      }
    }
  }

  stop(): void {
    if (this.isStopped) return;
    this.isStopped = true;
    for (const market of this.markets) market.stop();
    for (const { topic } of this.indexes) this.wire.release(topic);
  }

  start(now: number): void {
    if (!this.isStopped) return;
    this.isStopped = false;
    this.told = now;
    for (const market of this.markets) market.resume(now);
  }

  done(): null {
    return null;
  }

  /** Answers that are a state of the market at a time, of which a client keeps what it likes. */
  private reading(method: string, params: Params, now: number): string | undefined {
    const span = (): [number, number] => [
      wholeOf(params, 'start_timestamp', 0, LATEST),
      Math.min(now, wholeOf(params, 'end_timestamp', 0, LATEST)),
    ];
    switch (method) {
      case 'ticker':
        return this.market(params).ticker(now);
      case 'get_tradingview_chart_data': {
        const width = CHART_WIDTHS[String(params.resolution)];
        if (width === undefined) throw wrongParam('resolution', 'wrong resolution');
        return this.market(params).chart(...span(), width);
      }
      case 'get_funding_rate_history':
        return this.market(params).fundingHistory(...span());
      case 'get_funding_rate_value':
        return this.market(params).fundingValue(...span());
      case 'get_volatility_index_data': {
        const currency = textOf(params, 'currency');
        const found = this.indexes.find(({ index }) => index.coin === currency);
        if (!found) throw wrongParam('currency', 'wrong currency');
        const resolution = RESOLUTIONS[String(params.resolution)];
        if (resolution === undefined) throw wrongParam('resolution', 'wrong resolution');
        return found.index.candles(...span(), resolution, now);
      }
    }
    return undefined;
  }

  private instruments(params: Params): string {
    const currency = choiceOf(params, 'currency', CURRENCIES);
    const kind = choiceOf(params, 'kind', KINDS, 'any');
    const isExpired = choiceOf(params, 'expired', TRUTHS, 'false') === 'true';
    const isWanted = ({ contract }: DeribitMarket): boolean =>
      currency === 'any' || currency === (contract.inverse ? contract.base : contract.quote);
    const rows =
      isExpired || (kind !== 'future' && kind !== 'any')
        ? []
        : this.markets.filter(isWanted).map(({ contract }) => instrumentText(contract, CREATED_MS));
    return `[${rows.join(',')}]`;
  }

  private market(params: Params): DeribitMarket {
    const name = textOf(params, 'instrument_name');
    const found = this.markets.find(({ contract }) => contract.instrument === name);
    if (found) return found;
    throw /^[A-Z0-9_]+-[A-Z0-9-]+$/.test(name)
      ? new RpcError(10020, 'invalid_or_unsupported_instrument')
      : wrongParam('instrument_name', 'wrong format');
  }
}
