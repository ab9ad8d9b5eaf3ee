/** A client of the simulated exchanges for tests: its socket, its book, and what it may ask the ledger. */
import assert from 'node:assert/strict';
import { afterEach } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { WebSocket } from 'ws';
import { type Simulator, startSimulator } from '../scripts/exchange_sim.ts';
import type { SimulatorOptions } from '../scripts/lib/sim/options.ts';

/** Long enough for a loaded machine; nothing waits for its end when all is well. */
const PATIENCE_MS = 15_000;

export type Level = [string, string];
/** The fields of the frames that the tests look at. */
export interface Data {
  e?: string;
  E?: number;
  T?: number;
  s: string;
  t: number;
  a: number | Level[] | string;
  f: number;
  l: number;
  U: number;
  u: number;
  pu?: number;
  p: string;
  q: string;
  b: Level[] | string;
  B: string;
  A: string;
  st?: number;
  ap: string;
  P: string;
  i: string;
  r: string;
  o: Order;
}
/** The order of a liquidation. */
export interface Order {
  s: string;
  S: 'BUY' | 'SELL';
  q: string;
  p: string;
  ap: string;
  l: string;
  z: string;
  T: number;
  st: number;
}
export interface Snapshot {
  lastUpdateId: number;
  E?: number;
  T?: number;
  bids: Level[];
  asks: Level[];
}
export type Exchange = 'binance_spot' | 'binance_derivatives';

/** Waits until something is so. @throws after a patience that only a fault uses up. */
export async function until(what: string, isTrue: () => boolean): Promise<void> {
  const deadline = Date.now() + PATIENCE_MS;
  while (!isTrue()) {
    if (Date.now() > deadline) throw new Error(`waited in vain: ${what}`);
    await sleep(5);
  }
}

/** A socket that keeps what it got. */
export class Client {
  readonly texts: string[] = [];
  closeCode: number | null = null;
  private parsed: { stream: string; data: Data }[] = [];
  private looked = 0;

  private constructor(readonly socket: WebSocket) {
    socket.on('message', (text: Buffer) => this.texts.push(text.toString('latin1')));
    socket.on('close', (code) => {
      this.closeCode = code;
    });
    socket.on('error', () => undefined);
  }

  static async open(sim: Simulator, exchange: Exchange, path: string, options = {}): Promise<Client> {
    const client = new Client(new WebSocket(`${sim.endpoints[exchange]?.ws}${path}`, options));
    await new Promise((done, failed) => client.socket.once('open', done).once('error', failed));
    return client;
  }

  ask(message: object | string): void {
    this.socket.send(typeof message === 'string' ? message : JSON.stringify(message));
  }

  subscribe(streams: string[], id = 1): void {
    this.ask({ method: 'SUBSCRIBE', params: streams, id });
  }

  /** Wrapped data frames so far, in order; each text is parsed once. */
  get frames(): { stream: string; data: Data }[] {
    for (; this.looked < this.texts.length; this.looked++) {
      const text = this.texts[this.looked] as string;
      if (!text.startsWith('{"stream":')) continue;
      this.parsed.push(JSON.parse(text) as { stream: string; data: Data });
    }
    return this.parsed;
  }

  of(stream: string): Data[] {
    return this.frames.filter((frame) => frame.stream === stream).map(({ data }) => data);
  }

  get acks(): object[] {
    return this.texts.filter((text) => !text.startsWith('{"stream":')).map((text) => JSON.parse(text) as object);
  }
}

/** One REST request, with its body as text. */
export async function get(
  sim: Simulator,
  exchange: Exchange,
  path: string,
): Promise<{ status: number; body: string; headers: Headers }> {
  const answer = await fetch(`${sim.endpoints[exchange]?.rest}${path}`);
  return { status: answer.status, body: await answer.text(), headers: answer.headers };
}

/** The book over REST, 1,000 levels a side. */
export async function depth(sim: Simulator, exchange: Exchange, symbol = 'BTCUSDT'): Promise<Snapshot> {
  const path = exchange === 'binance_spot' ? '/api/v3/depth' : '/fapi/v1/depth';
  const { status, body } = await get(sim, exchange, `${path}?symbol=${symbol}&limit=1000`);
  assert.equal(status, 200, body);
  return JSON.parse(body) as Snapshot;
}

/** Compares long lists by their first difference: the usual report on thousands of entries would take minutes. */
export function assertSame(told: readonly unknown[], expected: readonly unknown[], what: string): void {
  const place = expected.findIndex((entry, index) => JSON.stringify(entry) !== JSON.stringify(told[index]));
  if (place >= 0) assert.deepEqual(told[place], expected[place], `${what}, entry ${place}`);
  assert.equal(told.length, expected.length, what);
}

/** A book as a client keeps it. */
export class Book {
  readonly bids: Map<string, string>;
  readonly asks: Map<string, string>;
  id: number;

  constructor(snapshot: Snapshot) {
    this.bids = new Map(snapshot.bids);
    this.asks = new Map(snapshot.asks);
    this.id = snapshot.lastUpdateId;
  }

  apply(diff: Data): void {
    for (const [side, levels] of [
      [this.bids, diff.b],
      [this.asks, diff.a],
    ] as [Map<string, string>, Level[]][]) {
      for (const [price, quantity] of levels) {
        if (Number(quantity) === 0) side.delete(price);
        else side.set(price, quantity);
      }
    }
    this.id = diff.u;
  }

  best(): [string, string, string, string] {
    const bid = [...this.bids.keys()].reduce((one, other) => (Number(other) > Number(one) ? other : one));
    const ask = [...this.asks.keys()].reduce((one, other) => (Number(other) < Number(one) ? other : one));
    return [bid, this.bids.get(bid) as string, ask, this.asks.get(ask) as string];
  }
}

const running: Simulator[] = [];
/** A simulator on free ports, closed after the test. */
export async function start(options: SimulatorOptions = {}): Promise<Simulator> {
  const sim = await startSimulator({ symbols: ['BTC-USDT'], ...options });
  running.push(sim);
  return sim;
}
afterEach(() => Promise.all(running.splice(0).map((sim) => sim.close())));

/** One line of the ledger. */
export function sent(sim: Simulator, exchange: Exchange, dataType: string, symbol = 'BTC-USDT') {
  const line = sim
    .ledger()
    .streams.find((each) => each.exchange === exchange && each.data_type === dataType && each.symbol === symbol);
  assert.ok(line, `${exchange} ${dataType} is in the ledger`);
  return line;
}
