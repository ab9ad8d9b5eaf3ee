/** OKX as its clients see it: two socket paths, the conversation on them, and REST. */
import type { Route } from './okx_pair.ts';
import { AWAY, okxFault, okxOk, okxRefusal, RequestLimits, TOO_MANY } from './okx_rest.ts';
import type { OkxSource } from './okx_seeded.ts';
import type { ConnectionRules, Peer, RestAnswer, RestRequest, Session, Venue, Wire } from './venue.ts';

/**
 * The venue sends no pings: a client that has said nothing for `pongWithinMs` is closed. The venue itself also counts what it
 * pushed as a sign of life; without that, a client that forgets to ping shows even while data flows.
 */
export const OKX_RULES: ConnectionRules = {
  pingEveryMs: Number.POSITIVE_INFINITY,
  pongWithinMs: 30_000,
  incomingPerSecond: 500,
  streamsPerConnection: Number.POSITIVE_INFINITY,
};

/** Requests to subscribe or unsubscribe that one connection may make in an hour. */
const REQUESTS_PER_HOUR = 480;
const HOUR_MS = 3_600_000;

export interface OkxOptions {
  readonly exchange: string;
  readonly source: OkxSource;
  readonly wire: Wire;
  readonly rules: ConnectionRules;
  /** An instrument to name in garbage. */
  readonly sample: string;
}

export class Okx implements Venue {
  readonly exchange: string;
  readonly rules: ConnectionRules;
  private readonly limits = new RequestLimits();
  private readonly sessions = new WeakMap<Peer, OkxSession>();
  private opened = 0;

  constructor(private readonly options: OkxOptions) {
    this.exchange = options.exchange;
    this.rules = options.rules;
  }

  hasSocketPath(path: string): boolean {
    return path === '/ws/v5/public' || path === '/ws/v5/business';
  }

  open(peer: Peer, url: URL): Session {
    const route = url.pathname === '/ws/v5/business' ? 'business' : 'public';
    const id = ((++this.opened * 0x9e3779b1) >>> 0).toString(16).padStart(8, '0');
    const session = new OkxSession(id, route, peer, this.options);
    this.sessions.set(peer, session);
    return session;
  }

  shutdownNotice(peer: Peer): string {
    return JSON.stringify({
      event: 'notice',
      code: '64008',
      msg: 'The connection will soon be closed for a service upgrade. Please reconnect.',
      connId: this.sessions.get(peer)?.id ?? '',
    });
  }

  garbage(place: number): string {
    const { sample } = this.options;
    const arg = (channel: string): string => `{"arg":{"channel":"${channel}","instId":"${sample}"}`;
    const forms = [
      `${arg('trades-all')},"data":[{"instId":"${sample}","tradeId":"17`,
      'upstream connect error or disconnect/reset before headers',
      `${arg('trades-all')},"data":[{"instId":"${sample}","tradeId":"no number","px":null}]}`,
      '[]',
      `${arg('books')},"action":"update","data":[{"asks":7,"bids":[],"ts":"x","seqId":"y","prevSeqId":null}]}`,
    ];
    return forms[place % forms.length] as string;
  }

  refusal(status: number): RestAnswer {
    return okxRefusal(status);
  }

  unavailable(): RestAnswer {
    return AWAY;
  }

  rest(request: RestRequest): RestAnswer {
    const now = this.options.wire.clock();
    if (!this.limits.take(request, now)) return TOO_MANY;
    if (request.path === '/api/v5/public/time') return okxOk([`{"ts":"${Math.floor(now)}"}`]);
    return this.options.source.rest(request) ?? okxFault('404', '', 404);
  }

  advance(now: number): void {
    this.options.source.advance(now);
  }

  stop(): void {
    this.options.source.stop();
  }

  start(now: number): void {
    this.options.source.start(now);
  }

  replayDone(): boolean | null {
    return this.options.source.done();
  }
}

type Argument = Readonly<Record<string, unknown>>;

class OkxSession implements Session {
  /** By what their arguments said. */
  private readonly subscribed = new Set<string>();
  private heardAt: number;
  private requests: number[] = [];

  constructor(
    /** What the venue calls the connection. */
    readonly id: string,
    private readonly route: Route,
    private readonly peer: Peer,
    private readonly options: OkxOptions,
  ) {
    this.heardAt = options.wire.clock();
  }

  message(text: string): void {
    this.heardAt = this.options.wire.clock();
    if (text === 'ping') this.peer.answer('pong');
    else this.respond(text);
  }

  alive(now: number): boolean {
    return now - this.heardAt < this.options.rules.pongWithinMs;
  }

  shift(ms: number): void {
    this.heardAt += ms;
  }

  closed(): void {
    this.options.source.leave(this.peer);
  }

  private respond(text: string): void {
    const request = objectOf(text);
    const id = typeof request?.id === 'string' && /^[A-Za-z0-9]{1,32}$/.test(request.id) ? request.id : undefined;
    const { op, args } = request ?? {};
    if (op !== 'subscribe' && op !== 'unsubscribe') {
      this.fail('60012', `Invalid request: ${text}`, id);
    } else if (!Array.isArray(args) || args.length === 0 || !args.every(isArgument)) {
      this.fail('60013', `Invalid args: ${text}`, id);
    } else if (!this.mayAsk()) {
      this.fail('60014', 'Requests too frequent', id);
    } else {
      const { faults, ledger } = this.options.wire;
      const isSilenced = op === 'subscribe' && faults.takeSilencedSubscribe();
      if (isSilenced) ledger.counters.subscriptions_silenced++;
      for (const arg of args) this.take(op, arg, id, isSilenced);
    }
  }

  /** One argument: each is granted or refused by itself. */
  private take(op: 'subscribe' | 'unsubscribe', arg: Argument, id: string | undefined, isSilenced: boolean): void {
    const { source } = this.options;
    const subject = arg.instId ?? arg.instType;
    const name = `${String(arg.channel)}:${String(subject)}`;
    if (!source.serves(this.route, name)) {
      const about = Object.entries(arg)
        .map(([field, value]) => `${field}:${String(value)}`)
        .join(',');
      const msg = `Subscribe failed, wrong URL or ${about} doesn't exist. Please use the correct URL, channel and parameters referring to API document.`;
      this.fail('60018', msg, id);
      return;
    }
    this.peer.answer(JSON.stringify({ ...(id !== undefined && { id }), event: op, arg, connId: this.id }));
    if (op === 'unsubscribe') {
      this.subscribed.delete(name);
      source.unsubscribe(this.peer, name);
    } else if (!this.subscribed.has(name)) {
      this.subscribed.add(name);
      if (!isSilenced) source.subscribe(this.peer, name);
    }
  }

  private fail(code: string, msg: string, id?: string): void {
    this.peer.answer(JSON.stringify({ ...(id !== undefined && { id }), event: 'error', code, msg, connId: this.id }));
  }

  private mayAsk(): boolean {
    const now = this.options.wire.clock();
    this.requests = this.requests.filter((at) => now - at < HOUR_MS);
    if (this.requests.length >= REQUESTS_PER_HOUR) return false;
    this.requests.push(now);
    return true;
  }
}

function objectOf(text: string): Record<string, unknown> | undefined {
  try {
    const parsed: unknown = JSON.parse(text);
    return typeof parsed === 'object' && parsed !== null ? (parsed as Record<string, unknown>) : undefined;
  } catch {
    // What is no JSON gets the same answer as JSON that is no request.
    return undefined;
  }
}

function isArgument(value: unknown): value is Argument {
  return typeof value === 'object' && value !== null && typeof (value as Argument).channel === 'string';
}
