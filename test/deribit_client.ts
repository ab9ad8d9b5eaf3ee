/** A client of the simulated Deribit for tests, and the simulator's venue under a clock of the test. */
import assert from 'node:assert/strict';
import { WebSocket } from 'ws';
import type { Simulator } from '../scripts/exchange_sim.ts';
import { deribitVenue } from '../scripts/lib/sim/deribit.ts';
import { Ledger } from '../scripts/lib/sim/ledger.ts';
import type { SimulatorOptions } from '../scripts/lib/sim/options.ts';
import { Wire } from '../scripts/lib/sim/venue.ts';
import { start as startSimulator, until } from './sim_client.ts';

export const EXCHANGE = 'deribit_derivatives';
export const TRADES = 'trades.BTC-PERPETUAL.100ms';
export const BOOK = 'book.BTC-PERPETUAL.100ms';
export const TICKER = 'ticker.BTC-PERPETUAL.100ms';
export const SYMBOL = 'BTC-USD';

type Row = [action: 'new' | 'change' | 'delete', price: number, amount: number];
export interface BookData {
  type: 'snapshot' | 'change';
  change_id: number;
  prev_change_id?: number;
  timestamp: number;
  bids: Row[];
  asks: Row[];
}
export interface TradeData {
  trade_seq: number;
  trade_id: string;
  timestamp: number;
  price: number;
  amount: number;
  contracts: number;
  direction: string;
  liquidation?: string;
}
export interface Answer {
  id?: number;
  result?: unknown;
  error?: { code: number; message: string; data?: { param: string } };
}

export function start(options: SimulatorOptions = {}): Promise<Simulator> {
  return startSimulator({ exchanges: [EXCHANGE], symbols: ['BTC-USDT'], ...options });
}

/** A socket that keeps what it got and matches answers to calls. */
export class Client {
  readonly texts: string[] = [];
  closeCode: number | null = null;
  private id = 0;

  private constructor(readonly socket: WebSocket) {
    socket.on('message', (text: Buffer) => this.texts.push(text.toString()));
    socket.on('close', (code) => {
      this.closeCode = code;
    });
    socket.on('error', () => undefined);
  }

  static async open(sim: Simulator): Promise<Client> {
    const client = new Client(new WebSocket(`${sim.endpoints[EXCHANGE]?.ws}/ws/api/v2`));
    await new Promise((done, failed) => client.socket.once('open', done).once('error', failed));
    return client;
  }

  async call(method: string, params: object = {}): Promise<Answer> {
    const id = ++this.id;
    this.socket.send(JSON.stringify({ jsonrpc: '2.0', id, method: `public/${method}`, params }));
    const found = (): Answer | undefined => this.answers().find((each) => each.id === id);
    await until(`answer to ${method}`, () => found() !== undefined || this.closeCode !== null);
    return found() ?? {};
  }

  subscribe(...channels: string[]): Promise<Answer> {
    return this.call('subscribe', { channels });
  }

  answers(): Answer[] {
    return this.texts.filter((text) => !text.includes('"method"')).map((text) => JSON.parse(text) as Answer);
  }

  of<Data>(channel: string): Data[] {
    const mark = `"channel":"${channel}"`;
    return this.texts.filter((text) => text.includes(mark)).map((text) => JSON.parse(text).params.data as Data);
  }

  trades(channel = TRADES): TradeData[] {
    return this.of<TradeData[]>(channel).flat();
  }

  book(channel = BOOK): BookData[] {
    return this.of<BookData>(channel);
  }
}

export async function get(sim: Simulator, path: string) {
  const answer = await fetch(`${sim.endpoints[EXCHANGE]?.rest}/api/v2/public/${path}`);
  return { status: answer.status, body: await answer.text(), headers: answer.headers };
}

export async function result<Result>(sim: Simulator, path: string): Promise<Result> {
  const { status, body } = await get(sim, path);
  assert.equal(status, 200, body);
  return JSON.parse(body).result as Result;
}

export function keys(sim: Simulator, data_type: string, symbol = SYMBOL): string[] {
  return sim.keys({ exchange: EXCHANGE, symbol, data_type });
}

/** At how many places the chain of ids broke. */
export function breaks(frames: BookData[]): number {
  return frames.filter(
    ({ type, prev_change_id }, place) => type === 'change' && prev_change_id !== frames[place - 1]?.change_id,
  ).length;
}

/** The book that a client has after these frames, in which nothing is missing. */
export function rebuilt(frames: BookData[]) {
  const sides = { bids: new Map<number, number>(), asks: new Map<number, number>() };
  let id = 0;
  for (const frame of frames) {
    if (frame.type === 'snapshot') for (const side of Object.values(sides)) side.clear();
    else assert.equal(frame.prev_change_id, id, 'the chain of ids');
    id = frame.change_id;
    for (const side of ['bids', 'asks'] as const) {
      for (const [action, price, amount] of frame[side]) {
        assert.equal(sides[side].has(price), action !== 'new', `${action} ${price}`);
        if (action === 'delete') sides[side].delete(price);
        else sides[side].set(price, amount);
      }
    }
  }
  const sorted = (side: Map<number, number>, sign: 1 | -1) => [...side].sort(([a], [b]) => sign * (a - b));
  return { id, bids: sorted(sides.bids, -1), asks: sorted(sides.asks, 1) };
}

/** The venue without sockets, under a clock of the test. */
export function venueAt(options: SimulatorOptions) {
  let now = Date.UTC(2026, 8, 1);
  const wire = new Wire(new Ledger(now), () => now);
  const venue = deribitVenue(EXCHANGE, wire, { symbols: ['BTC-USDT'], ...options });
  const run = (ms: number): void => {
    for (const end = now + ms; now < end; ) venue.advance((now += 10));
  };
  const ask = (path: string) => {
    const { pathname, searchParams } = new URL(`http://host/api/v2/public/${path}`);
    const { status, body } = venue.rest({ method: 'GET', path: pathname, query: searchParams, body: '' });
    return { status, ...(JSON.parse(body) as Answer) };
  };
  return { run, ask, wire, now: () => now };
}
