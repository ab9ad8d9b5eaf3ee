/** OKX over seeded markets: they run from the start on, whether or not anybody listens. */
import { instrumentRow, type OkxInstrument, type OkxProduct } from './okx_instruments.ts';
import type { OkxChannel, OkxPair, Route } from './okx_pair.ts';
import type { OkxReadings } from './okx_readings.ts';
import { emptyParameter, NO_INSTRUMENT, okxFault, okxOk, wrongParameter } from './okx_rest.ts';
import type { Peer, RestAnswer, RestRequest } from './venue.ts';

/** Where the venue's data comes from: seeded markets or a recorded session. */
export interface OkxSource {
  /** True when this path serves a channel of this name. */
  serves(route: Route, name: string): boolean;
  /** Takes a reader; one that it has already stays as it is. */
  subscribe(peer: Peer, name: string): void;
  unsubscribe(peer: Peer, name: string): void;
  leave(peer: Peer): void;
  /** Undefined for a path that is none. */
  rest(request: RestRequest): RestAnswer | undefined;
  advance(now: number): void;
  stop(): void;
  start(now: number): void;
  /** Null where nothing is replayed. */
  done(): boolean | null;
}

/** What answers some paths beside those of the markets; undefined for any other. */
export interface RestPart {
  rest(request: RestRequest): RestAnswer | undefined;
}

const INST_TYPES = ['SPOT', 'MARGIN', 'SWAP', 'FUTURES', 'OPTION'];

export class OkxSeeded implements OkxSource {
  private readonly channels: ReadonlyMap<string, OkxChannel>;
  private isStopped = false;

  constructor(
    private readonly product: OkxProduct,
    private readonly pairs: readonly OkxPair[],
    private readonly readings: OkxReadings | undefined,
    private readonly beside: readonly RestPart[],
  ) {
    const all = [...pairs.flatMap(({ channels }) => channels), ...(readings?.channels ?? [])];
    this.channels = new Map(all.map((channel) => [channel.name, channel]));
  }

  serves(route: Route, name: string): boolean {
    return this.channels.get(name)?.route === route;
  }

  subscribe(peer: Peer, name: string): void {
    const channel = this.channels.get(name);
    if (!channel || channel.subscribers.has(peer)) return;
    channel.subscribers.add(peer);
    channel.greet?.(peer);
  }

  unsubscribe(peer: Peer, name: string): void {
    this.channels.get(name)?.subscribers.delete(peer);
  }

  leave(peer: Peer): void {
    for (const { subscribers } of this.channels.values()) subscribers.delete(peer);
  }

  rest(request: RestRequest): RestAnswer | undefined {
    const { path, query } = request;
    switch (path) {
      case '/api/v5/public/instruments':
        return this.instruments(query);
      case '/api/v5/market/books':
        return this.ofPair(query, (pair) => pair.bookAnswer(query));
      case '/api/v5/market/trades':
        return this.ofPair(query, (pair) => pair.tradesAnswer(query));
      case '/api/v5/market/history-trades':
        return this.ofPair(query, (pair) => pair.historyAnswer(query));
      default:
        for (const part of this.beside) {
          const answer = part.rest(request);
          if (answer) return answer;
        }
        return this.readings?.rest(request);
    }
  }

  advance(now: number): void {
    if (this.isStopped) return;
    for (const pair of this.pairs) pair.advance(now);
    this.readings?.advance(now);
  }

  stop(): void {
    if (this.isStopped) return;
    this.isStopped = true;
    for (const pair of this.pairs) pair.stop();
    this.readings?.stop();
  }

  start(now: number): void {
    if (!this.isStopped) return;
    this.isStopped = false;
    for (const pair of this.pairs) pair.resume(now);
    this.readings?.resume(now);
  }

  done(): null {
    return null;
  }

  /** The venue has one list for all it trades; here each product tells its own, and nothing of other types. */
  private instruments(query: URLSearchParams): RestAnswer {
    const [type, id] = [query.get('instType'), query.get('instId')];
    if (!type) return emptyParameter('instType');
    if (!INST_TYPES.includes(type)) return wrongParameter('instType');
    if (type === 'OPTION' && !query.get('uly') && !query.get('instFamily')) {
      return okxFault('50015', 'Either parameter uly or instFamily is required', 400);
    }
    const isOurs = type === (this.product === 'spot' ? 'SPOT' : 'SWAP');
    const listed: [OkxInstrument, number][] = isOurs ? this.pairs.map((pair, place) => [pair.listed, place]) : [];
    const found = listed.filter(([{ instrument }]) => id === null || id === instrument);
    return id !== null && found.length === 0 ? NO_INSTRUMENT : okxOk(found.map((each) => instrumentRow(...each)));
  }

  private ofPair(query: URLSearchParams, answer: (pair: OkxPair) => RestAnswer): RestAnswer {
    const id = query.get('instId');
    if (!id) return emptyParameter('instId');
    const pair = this.pairs.find(({ listed }) => listed.instrument === id);
    return pair ? answer(pair) : NO_INSTRUMENT;
  }
}
