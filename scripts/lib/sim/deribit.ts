/** Deribit: its JSON-RPC over socket and REST, above a source of data that is seeded or recorded. */
import { contractOf } from './deribit_contracts.ts';
import { DeribitMarket } from './deribit_market.ts';
import { DeribitReplay } from './deribit_replay.ts';
import { answerText, Credits, type Params, RpcError, tooManyRequests, wholeOf, wrongParam } from './deribit_rpc.ts';
import { SeededDeribit } from './deribit_seeded.ts';
import { VolatilityIndex } from './deribit_volatility.ts';
import { Market, seededRandom, seedFor } from './market.ts';
import { type SimulatorOptions, TRADE_HISTORY, type VenueMaker } from './options.ts';
import { fairOf } from './pairs.ts';
import { Perpetual } from './perpetual.ts';
import type { ConnectionRules, Peer, RestAnswer, RestRequest, Session, Venue, Wire } from './venue.ts';

const SOCKET_PATH = '/ws/api/v2';
const REST_PATH = '/api/v2/public/';
/** The venue's own limits are its credits and its heartbeat, both above WebSocket. */
const RULES: ConnectionRules = {
  pingEveryMs: Number.POSITIVE_INFINITY,
  pongWithinMs: Number.POSITIVE_INFINITY,
  incomingPerSecond: Number.POSITIVE_INFINITY,
  streamsPerConnection: Number.POSITIVE_INFINITY,
};
const SHORTEST_HEARTBEAT_S = 10;
const LONGEST_HEARTBEAT_S = 3600;
/** Coins with a volatility index. */
const VOLATILITY_COINS = ['BTC', 'ETH'];
const VERSION = '{"version":"1.2.26"}';
/** Methods that mean the connection, and so are none of REST. */
const SOCKET_METHODS = ['subscribe', 'unsubscribe', 'unsubscribe_all', 'set_heartbeat', 'disable_heartbeat'];

/** Where Deribit's data comes from. */
export interface DeribitSource {
  /** True where channels without an interval need no login. */
  readonly servesRaw: boolean;
  /** An instrument to be named in garbage. */
  readonly sample: string;
  serves(channel: string): boolean;
  subscribe(peer: Peer, channel: string): void;
  unsubscribe(peer: Peer, channel: string): void;
  leave(peer: Peer): void;
  /** The result of a public method as JSON text; undefined when there is no such method. @throws RpcError */
  result(method: string, params: Params): string | undefined;
  advance(now: number): void;
  stop(): void;
  start(now: number): void;
  done(): boolean | null;
}

/** Deribit over seeded markets or a recorded session. */
export const deribitVenue: VenueMaker = (name, wire, options) => {
  const replay = options.replays?.find((each) => each.exchange === name);
  const source = replay
    ? DeribitReplay.open(name, replay.file, wire, { speed: replay.speed ?? 'max', dropDiff: replay.dropDiff ?? 0 })
    : seededSource(name, wire, options);
  return new Deribit(name, source, wire, options.heartbeat);
};

function seededSource(name: string, wire: Wire, options: SimulatorOptions): DeribitSource {
  const { seed = 1, symbols = ['BTC-USDT', 'ETH-USDT'], tradesPerSecond = 20, diffsPerSecond = 10 } = options;
  const { liquidationsPerMinute = 6, tradeHistory = TRADE_HISTORY } = options;
  const contracts = new Map(symbols.map((symbol) => [contractOf(symbol, seed).instrument, contractOf(symbol, seed)]));
  const start = wire.clock();
  const markets = [...contracts.values()].map((contract) => {
    const { symbol, grid, startPrice } = contract;
    const fair = fairOf(symbol, seed);
    const market = new Market({
      grid,
      startPrice,
      random: seededRandom(seedFor(seed, `${name} ${symbol}`)),
      fair,
      start,
      tradesPerSecond,
      tradeGrain: 'trade',
      diffsPerSecond,
      // Change ids count the changes of all books.
      idsHaveHoles: true,
      history: tradeHistory,
    });
    // Liquidations are trades here, not events of their own.
    const perpetual = new Perpetual({
      ...{ symbol, seed, grid, startPrice, fair, start },
      fundingHours: 8,
      liquidationsPerMinute: 0,
    });
    const liquidationShare = liquidationsPerMinute / 60 / tradesPerSecond;
    return new DeribitMarket({
      ...{ exchange: name, contract, market, perpetual, wire, seed, diffsPerSecond, liquidationShare },
      history: tradeHistory,
    });
  });
  const coins = VOLATILITY_COINS.filter((coin) => markets.some(({ contract }) => contract.base === coin));
  const indexes = coins.map((coin) => new VolatilityIndex(coin, seed));
  return new SeededDeribit(markets, indexes, wire);
}

/** The exchange as its clients see it. */
export class Deribit implements Venue {
  readonly rules: ConnectionRules;
  private readonly credits = new Credits();

  /** @param heartbeat instead of the interval that a client asks for, in tests */
  constructor(
    readonly exchange: string,
    private readonly source: DeribitSource,
    private readonly wire: Wire,
    private readonly heartbeat?: SimulatorOptions['heartbeat'],
  ) {
    this.rules = { ...RULES, ...heartbeat };
  }

  hasSocketPath(path: string): boolean {
    return path === SOCKET_PATH || path === `${SOCKET_PATH}/`;
  }

  open(peer: Peer): Session {
    return new DeribitSession(peer, this.source, this.wire, this.credits, this.heartbeat);
  }

  /** The venue tells a maintenance to who asked for the platform's state; here everybody is told. */
  shutdownNotice(): string {
    return '{"jsonrpc":"2.0","method":"subscription","params":{"channel":"platform_state","data":{"maintenance":true}}}';
  }

  garbage(place: number): string {
    const { sample } = this.source;
    const open = '{"jsonrpc":"2.0","method":"subscription","params":{"channel":';
    const forms = [
      `${open}"trades.${sample}.100ms","data":[{"trade_seq":30`,
      '<html><head><title>502 Bad Gateway</title></head></html>',
      `${open}"trades.${sample}.100ms","data":[{"trade_seq":"x","trade_id":null,"instrument_name":"${sample}"}]}}`,
      '[]',
      `${open}"book.${sample}.100ms","data":{"type":"change","change_id":"x","instrument_name":"${sample}","bids":7}}}`,
    ];
    return forms[place % forms.length] as string;
  }

  refusal(status: number, retryAfter: number): RestAnswer {
    if (status === 403) return { status, headers: { 'content-type': 'text/html' }, body: FORBIDDEN };
    return { ...this.answer(tooManyRequests(), this.micros()), status, headers: { 'retry-after': String(retryAfter) } };
  }

  rest({ path, query }: RestRequest): RestAnswer {
    const came = this.micros();
    try {
      const method = path.startsWith(REST_PATH) ? path.slice(REST_PATH.length) : '';
      this.credits.pay(method, this.wire.clock());
      if (SOCKET_METHODS.includes(method)) throw new RpcError(10030, 'must_be_websocket_request');
      return this.answer(resultOf(this.source, this.wire, method, Object.fromEntries(query)), came);
    } catch (error) {
      if (!(error instanceof RpcError)) throw error;
      return this.answer(error, came);
    }
  }

  advance(now: number): void {
    this.source.advance(now);
  }

  stop(): void {
    this.source.stop();
  }

  start(now: number): void {
    this.source.start(now);
  }

  replayDone(): boolean | null {
    return this.source.done();
  }

  private answer(body: string | RpcError, came: number): RestAnswer {
    const status = typeof body === 'string' ? 200 : body.code === 10028 ? 429 : 400;
    return { status, body: answerText(body, [came, this.micros()]) };
  }

  private micros(): number {
    return Math.floor(this.wire.clock() * 1000);
  }
}

const FORBIDDEN =
  '<html>\r\n<head><title>403 Forbidden</title></head>\r\n<body><h1>403 Forbidden</h1></body>\r\n</html>\r\n';

/** What a method of both socket and REST answers. @throws RpcError */
function resultOf(source: DeribitSource, wire: Wire, method: string, params: Params): string {
  if (method === 'test' || method === 'hello') return VERSION;
  if (method === 'get_time') return String(Math.floor(wire.clock()));
  const result = source.result(method, params);
  if (result === undefined) throw new RpcError(-32601, 'Method not found');
  return result;
}

interface Call {
  readonly id?: unknown;
  readonly method?: unknown;
  readonly params?: unknown;
}

/** The conversation on one socket. */
class DeribitSession implements Session {
  private readonly channels = new Set<string>();
  private heartbeatMs: number | null = null;
  private beatAt = 0;
  private isTested = false;
  private isRefused = false;

  constructor(
    private readonly peer: Peer,
    private readonly source: DeribitSource,
    private readonly wire: Wire,
    private readonly credits: Credits,
    private readonly heartbeat: SimulatorOptions['heartbeat'],
  ) {}

  message(text: string): void {
    // What is still on the way when the connection is being closed is not heard any more.
    if (this.isRefused) return;
    const came = this.micros();
    let call: Call = {};
    try {
      call = parsed(text);
      this.peer.answer(answerText(this.result(call), [came, this.micros()], call.id));
    } catch (error) {
      if (!(error instanceof RpcError)) throw error;
      this.peer.answer(answerText(error, [came, this.micros()], call.id));
      if (error.code !== 10028) return;
      this.isRefused = true;
      this.wire.ledger.counters.closed_rate++;
      this.peer.close(1008, error.message);
    }
  }

  closed(): void {
    this.source.leave(this.peer);
  }

  /** Once per interval both kinds of heartbeat are sent; a test that is not answered by the next one ends the connection. */
  alive(now: number): boolean {
    if (this.heartbeatMs === null || now - this.beatAt < this.heartbeatMs) return true;
    if (this.isTested) return false;
    this.beatAt = now;
    this.isTested = true;
    for (const type of ['heartbeat', 'test_request']) {
      this.peer.answer(`{"jsonrpc":"2.0","method":"heartbeat","params":{"type":"${type}"}}`);
    }
    return true;
  }

  shift(ms: number): void {
    this.beatAt += ms;
  }

  private result({ method, params = {} }: Call): string {
    if (typeof params !== 'object' || params === null || Array.isArray(params)) {
      throw new RpcError(-32602, 'Invalid params');
    }
    const name = typeof method === 'string' && method.startsWith('public/') ? method.slice('public/'.length) : '';
    this.credits.pay(name, this.wire.clock());
    const given = params as Params;
    switch (name) {
      case 'subscribe':
        return JSON.stringify(this.subscribe(channelsOf(given)));
      case 'unsubscribe':
        return JSON.stringify(this.unsubscribe(channelsOf(given)));
      case 'unsubscribe_all':
        this.unsubscribe([...this.channels]);
        return '"ok"';
      case 'set_heartbeat': {
        const seconds = wholeOf(given, 'interval', SHORTEST_HEARTBEAT_S, LONGEST_HEARTBEAT_S);
        this.heartbeatMs = this.heartbeat?.pingEveryMs ?? seconds * 1000;
        this.beatAt = this.wire.clock();
        this.isTested = false;
        return '"ok"';
      }
      case 'disable_heartbeat':
        this.heartbeatMs = null;
        return '"ok"';
      case 'test':
        this.isTested = false;
        break;
    }
    return resultOf(this.source, this.wire, name, given);
  }

  /** Takes channels over. @returns those that there are; one that needs a login refuses them all */
  private subscribe(wanted: readonly string[]): string[] {
    if (!this.source.servesRaw && wanted.some((channel) => channel.endsWith('.raw'))) {
      throw new RpcError(13778, 'raw_subscriptions_not_available_for_unauthorized');
    }
    const isSilenced = this.wire.faults.takeSilencedSubscribe();
    if (isSilenced) this.wire.ledger.counters.subscriptions_silenced++;
    const granted = wanted.filter((channel) => this.source.serves(channel));
    for (const channel of granted) {
      // The second time changes nothing, and brings no second snapshot.
      if (!isSilenced) this.source.subscribe(this.peer, channel);
      this.channels.add(channel);
    }
    return granted;
  }

  private unsubscribe(channels: readonly string[]): string[] {
    const ended = channels.filter((channel) => this.channels.delete(channel));
    for (const channel of ended) this.source.unsubscribe(this.peer, channel);
    return ended;
  }

  private micros(): number {
    return Math.floor(this.wire.clock() * 1000);
  }
}

/** A request's members. @throws RpcError when it is none */
function parsed(text: string): Call {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw new RpcError(-32700, 'Parse error');
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw new RpcError(-32600, 'Invalid Request');
  return value;
}

function channelsOf({ channels }: Params): string[] {
  if (!Array.isArray(channels)) throw wrongParam('channels', 'value required');
  return channels.map((channel) => {
    if (typeof channel !== 'string') throw wrongParam('channels', 'wrong format');
    return channel;
  });
}
