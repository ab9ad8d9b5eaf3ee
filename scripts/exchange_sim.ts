/**
 * Exchanges on loopback: each speaks its venue's own WebSocket and REST protocol over a seeded market or a recorded session,
 * keeps a ledger of what it wrote, and fails on demand.
 */

import { mkdirSync, renameSync, writeFileSync } from 'node:fs';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { dirname } from 'node:path';
import { z } from 'zod';
import { flags, OperatorError, runAsScript, UsageError, wholeNumber } from './lib/cli.ts';
import { heedHangup } from './lib/hangup.ts';
import { KEEP_ALIVE_MS } from './lib/keep_alive.ts';
import { createLogger, type Logger } from './lib/log.ts';
import { tellManager, tellReady } from './lib/service_manager.ts';
import { liveThrough, VenueClock } from './lib/sim/clock.ts';
import { DATA_KINDS } from './lib/sim/faults.ts';
import { Ledger, type LedgerReport } from './lib/sim/ledger.ts';
import { type ReplayOptions, type SimulatorOptions, TRADE_HISTORY } from './lib/sim/options.ts';
import { closeServer, encodeFrame, listen, type Served, serve, urlOf, type Venue, Wire } from './lib/sim/venue.ts';
import { VENUES } from './lib/sim/venues.ts';
import { steadyNow } from './lib/steady.ts';
import { Vital } from './lib/vital_signs.ts';

const USAGE = `
exchange_sim.ts: simulated exchanges on 127.0.0.1, each with its venue's own protocol, for demos and tests.

  --port N                  control port (default 9600); the exchanges take the ports after it, so that who was connected finds them again
                            after a restart. 0: free ones
  --seed N                  same seed, same market (default 1)
  --exchanges A,B           default: all six (binance_spot, binance_derivatives, okx_spot, okx_derivatives, deribit_derivatives,
                            hyperliquid)
  --symbols A,B             default BTC-USDT,ETH-USDT
  --trades-per-second R     per symbol (default 20)
  --diffs-per-second R      depth updates per symbol on the fast stream (default 10)
  --liquidations-per-minute R   per perpetual (default 6, 0 = none, at most 60)
  --trade-history N         trades kept per symbol for REST (default 50000: at 20 a second the newest 41 minutes)
  --perpetuals N            of Hyperliquid, beside those of --symbols: candles alone, 60 days and more back, all following BTC (default 20,
                            at most 500; 0: none, and no candles from before the start)
  --endpoints FILE          write the exchanges' addresses there as JSON
  --replay FILE             serve this recorded session instead of the seeded market, with
  --exchange NAME             the exchange that it replaces
  --speed N|max               N times as fast as recorded, one clock for all; max (default): each connection from the
                              beginning, as fast as it reads
  --drop-diff N               keep the Nth depth update of the session (from 1) from the wire

okx_derivatives also has candles and tickers of 27 coins, a year back, and positions of an account for a signed request with the
key demo-key, the secret demo-secret and the passphrase demo-passphrase.

Control: GET /ledger, GET /ledger/keys?exchange=&symbol=&data_type=, POST /control with {"action": …}:
  stop | start
  close            exchange [code]                            drop, repeat, reorder  exchange [symbol] [data_type] [count]
  silence          exchange seconds [symbol] [data_type]      garbage                exchange [count]
  rest             exchange status(429|418|403) [retry_after] [count]
  ack_silent       exchange [count]                           shutdown_notice        exchange
  away             exchange seconds                           REST answers 503 to everything for that long by the exchange's clock,
                     which skip moves
  leave            exchange symbol [ago] [seconds]            a coin of hyperliquid follows BTC no longer: from so many seconds ago on
                     (default 0), for so many seconds (default: until join); candles are told as if it had been so
  join             exchange symbol                            it follows again from now on
  skip             exchange seconds                           that many seconds (1 to 7200) pass for the exchange at once: its
                     markets live through them, its clock is ahead from then on, no socket is closed for them

Example: npx tsx scripts/exchange_sim.ts --port 0 --seed 7 --endpoints /tmp/endpoints.json
         curl -s -d '{"action":"drop","exchange":"binance_spot","symbol":"BTC-USDT","data_type":"orderbook_update","count":3}' \\
           http://127.0.0.1:9600/control
`;

/** The markets run in steps of this length: short against a depth update, long against the cost of a timer. */
const TICK_MS = 10;
const STUCK_MS = 30_000;
/** An exchange can be made to skip this much at once, in seconds. */
const MAX_SKIP_SECONDS = 7200;
/** A coin leaves BTC for a year at most. */
const MAX_LEAVE_SECONDS = 366 * 86_400;
/** More perpetuals than any venue of its kind lists. */
const MAX_PERPETUALS = 500;
/** Most trades to be kept per symbol: 33 bytes each. */
const MAX_TRADE_HISTORY = 5_000_000;
/** A control request is a few fields. */
const MAX_CONTROL_BYTES = 16 * 1024;

const exchange = z.string();
const target = {
  exchange,
  symbol: z.string().optional(),
  data_type: z.enum(DATA_KINDS).optional(),
};
const count = z.number().int().min(1).max(1_000_000).default(1);
const ACTION = z.discriminatedUnion('action', [
  z.strictObject({ action: z.literal('stop') }),
  z.strictObject({ action: z.literal('start') }),
  z.strictObject({ action: z.literal('close'), exchange, code: z.number().int().min(1000).max(4999).optional() }),
  z.strictObject({ action: z.literal('drop'), ...target, count }),
  z.strictObject({ action: z.literal('repeat'), ...target, count }),
  z.strictObject({ action: z.literal('reorder'), ...target, count }),
  z.strictObject({ action: z.literal('silence'), ...target, seconds: z.number().positive().max(86_400) }),
  z.strictObject({ action: z.literal('garbage'), exchange, count }),
  z.strictObject({
    action: z.literal('rest'),
    exchange,
    status: z.union([z.literal(429), z.literal(418), z.literal(403)]),
    retry_after: z.number().int().min(0).max(86_400).default(1),
    count,
  }),
  z.strictObject({ action: z.literal('ack_silent'), exchange, count }),
  z.strictObject({ action: z.literal('shutdown_notice'), exchange }),
  z.strictObject({ action: z.literal('away'), exchange, seconds: z.number().positive().max(86_400) }),
  z.strictObject({
    action: z.literal('leave'),
    exchange,
    symbol: z.string(),
    ago: z.number().min(0).max(MAX_LEAVE_SECONDS).default(0),
    seconds: z.number().positive().max(MAX_LEAVE_SECONDS).optional(),
  }),
  z.strictObject({ action: z.literal('join'), exchange, symbol: z.string() }),
  z.strictObject({ action: z.literal('skip'), exchange, seconds: z.number().int().min(1).max(MAX_SKIP_SECONDS) }),
]);

/** What `POST /control` takes. */
export type ControlAction = z.input<typeof ACTION>;

export type Endpoints = Record<string, { ws: string; rest: string }>;

export interface Simulator {
  readonly control: string;
  readonly endpoints: Endpoints;
  /** Steps of the markets so far. */
  ticks(): number;
  ledger(): LedgerReport;
  /** Distinct keys written for one stream, in the order of writing. */
  keys(stream: { exchange: string; symbol: string; data_type: string }): string[];
  /** Does what `POST /control` does. @throws UsageError naming the wrong field. */
  apply(action: ControlAction): void;
  close(): Promise<void>;
}

interface Running {
  readonly venue: Venue;
  readonly wire: Wire;
  readonly clock: VenueClock;
  readonly served: Served;
}

/** Names of a comma-separated list. */
function names(what: string, text: string): string[] {
  const list = text.split(',').map((name) => name.trim());
  if (list.some((name) => name === '')) throw new UsageError(`${what} takes names separated by commas, not "${text}"`);
  return [...new Set(list)];
}

/** A rate above zero; fractions are welcome. */
function rate(what: string, text: string): number {
  const value = Number(text);
  if (!(value > 0 && value <= 100_000)) throw new UsageError(`${what} takes a number above 0, not "${text}"`);
  return value;
}

/** Liquidations per minute: none, or up to the one per second that the venue shows. */
function liquidationRate(text: string): number {
  const value = Number(text);
  if (text.trim() === '' || !(value >= 0 && value <= 60)) {
    throw new UsageError(`--liquidations-per-minute takes a number from 0 to 60, not "${text}"`);
  }
  return value;
}

/** Checks a control request. @throws UsageError with one line that names the field. */
export function parseAction(request: unknown, exchanges: readonly string[]): z.output<typeof ACTION> {
  const parsed = ACTION.safeParse(request);
  if (!parsed.success) {
    const issue = parsed.error.issues[0];
    throw new UsageError(`${issue?.path.join('.') || 'request'}: ${issue?.message ?? 'not understood'}`);
  }
  if ('exchange' in parsed.data && !exchanges.includes(parsed.data.exchange)) {
    throw new UsageError(`exchange: "${parsed.data.exchange}" is none of ${exchanges.join(', ')}`);
  }
  return parsed.data;
}

/** Starts the exchanges and their control port. @throws OperatorError when the control port is taken. */
export async function startSimulator(options: SimulatorOptions = {}): Promise<Simulator> {
  const wrong = options.symbols?.find((symbol) => !/^[A-Z0-9]+-[A-Z0-9]+$/.test(symbol));
  if (wrong !== undefined) throw new UsageError(`--symbols: "${wrong}" is no pair such as BTC-USDT`);
  const ledger = new Ledger(Math.floor(steadyNow()));
  const running = new Map<string, Running>();
  for (const name of options.exchanges ?? Object.keys(VENUES)) {
    const clock = new VenueClock();
    const wire = new Wire(ledger, clock.now);
    const make = VENUES[name];
    if (!make) throw new UsageError(`--exchanges: "${name}" is none of ${Object.keys(VENUES).join(', ')}`);
    const venue = make(name, wire, options);
    const place = Object.keys(VENUES).indexOf(name);
    const venuePort = options.port ? options.port + 1 + place : 0;
    running.set(name, { venue, wire, clock, served: await serve(venue, wire, venuePort) });
  }
  for (const { exchange: name } of options.replays ?? []) {
    if (!running.has(name)) throw new UsageError(`--exchange: "${name}" is not among the exchanges`);
  }
  const endpoints: Endpoints = {};
  for (const [name, { served }] of running) {
    endpoints[name] = { ws: `ws://127.0.0.1:${served.port}`, rest: `http://127.0.0.1:${served.port}` };
  }
  const desk = new ControlDesk(ledger, running, options.log);
  const server = createServer({ keepAliveTimeout: KEEP_ALIVE_MS }, (request, response) =>
    desk.answer(request, response),
  );
  const port = await listen(server, options.port ?? 0);
  let ticks = 0;
  const tick = setInterval(() => {
    desk.advance();
    ticks += 1;
  }, TICK_MS);
  return {
    control: `http://127.0.0.1:${port}`,
    endpoints,
    ticks: () => ticks,
    ledger: () => desk.report(),
    keys: (stream) => [...(ledger.find(stream)?.keyLines() ?? [])].map((line) => line.trim()),
    apply: (action) => desk.apply(action),
    close: async () => {
      clearInterval(tick);
      await Promise.all([...[...running.values()].map(({ served }) => served.close()), closeServer(server)]);
    },
  };
}

/** The operator's side: the ledger, and faults on demand. */
class ControlDesk {
  private garbageSent = 0;

  constructor(
    private readonly ledger: Ledger,
    private readonly running: ReadonlyMap<string, Running>,
    private readonly log: Logger | undefined,
  ) {}

  advance(): void {
    for (const { venue, wire, clock } of this.running.values()) {
      venue.advance(clock.now());
      wire.flush();
    }
  }

  report(): LedgerReport {
    const sockets: Record<string, number> = {};
    let replayDone: boolean | null = null;
    for (const [name, { venue, wire }] of this.running) {
      sockets[name] = [...wire.peers].filter((peer) => peer.open).length;
      const done = venue.replayDone();
      if (done !== null) replayDone = (replayDone ?? true) && done;
    }
    return this.ledger.report(sockets, replayDone);
  }

  apply(request: unknown): void {
    const action = parseAction(request, [...this.running.keys()]);
    this.ledger.counters.control_actions++;
    this.log?.info({ event: 'control', ...action });
    if (action.action === 'stop' || action.action === 'start') {
      this.switchProduction(action.action);
      return;
    }
    const { venue, wire, clock } = this.running.get(action.exchange) as Running;
    if (action.action === 'skip') liveThrough(venue, wire, clock, action.seconds);
    else if (action.action === 'leave' || action.action === 'join') this.follow(action, venue, clock.now());
    else this.fail(action, venue, wire);
  }

  answer(request: IncomingMessage, response: ServerResponse): void {
    const url = urlOf(request) ?? new URL('http://localhost/');
    const send = (status: number, body: object): void => {
      response.writeHead(status, { 'content-type': 'application/json' }).end(`${JSON.stringify(body)}\n`);
    };
    if (request.method === 'GET' && url.pathname === '/ledger') send(200, this.report());
    else if (request.method === 'GET' && url.pathname === '/ledger/keys') this.sendKeys(url, response, send);
    else if (request.method === 'POST' && url.pathname === '/control') this.readAction(request, send);
    else
      send(404, { error: `${request.method} ${url.pathname}: there are GET /ledger, GET /ledger/keys, POST /control` });
  }

  private switchProduction(action: 'stop' | 'start'): void {
    this.ledger.stopped = action === 'stop' ? Math.floor(steadyNow()) : null;
    for (const { venue, wire, clock } of this.running.values()) {
      if (action === 'stop') venue.stop();
      else venue.start(clock.now());
      wire.flush();
    }
  }

  private follow(
    action: Extract<z.output<typeof ACTION>, { action: 'leave' | 'join' }>,
    venue: Venue,
    now: number,
  ): void {
    const { symbol } = action;
    let isDone: boolean | undefined;
    if (action.action === 'join') isDone = venue.joinBase?.(symbol, now);
    else {
      const from = now - action.ago * 1000;
      isDone = venue.leaveBase?.(symbol, from, action.seconds === undefined ? null : from + action.seconds * 1000);
    }
    if (isDone !== true)
      throw new UsageError(`symbol: "${symbol}" is none of ${venue.exchange} that could ${action.action}`);
  }

  private fail(
    action: Exclude<z.output<typeof ACTION>, { action: 'stop' | 'start' | 'skip' | 'leave' | 'join' }>,
    venue: Venue,
    wire: Wire,
  ): void {
    const { counters } = this.ledger;
    const { faults } = wire;
    switch (action.action) {
      case 'close':
        for (const peer of wire.peers) {
          counters.closed_by_control++;
          peer.close(action.code, 'closed on demand');
        }
        break;
      case 'drop':
        faults.next('withhold', action.count, { symbol: action.symbol, dataType: action.data_type });
        break;
      case 'repeat':
        faults.next('twice', action.count, { symbol: action.symbol, dataType: action.data_type });
        break;
      case 'reorder':
        faults.next('hold', action.count, { symbol: action.symbol, dataType: action.data_type });
        break;
      case 'silence':
        faults.silence(action.seconds * 1000, { symbol: action.symbol, dataType: action.data_type });
        break;
      case 'garbage':
        for (let sent = 0; sent < action.count; sent++) {
          const frame = encodeFrame(venue.garbage(this.garbageSent++));
          for (const peer of wire.peers) peer.push(frame);
          counters.garbage++;
        }
        break;
      case 'rest':
        faults.refuse(action.status, action.retry_after, action.count);
        break;
      case 'away':
        faults.goAway(action.seconds * 1000);
        break;
      case 'ack_silent':
        faults.silenceSubscribes(action.count);
        break;
      case 'shutdown_notice':
        for (const peer of wire.peers) {
          counters.shutdown_notices++;
          peer.answer(venue.shutdownNotice(peer));
        }
        break;
    }
  }

  private sendKeys(url: URL, response: ServerResponse, send: (status: number, body: object) => void): void {
    const wanted = (name: string): string => url.searchParams.get(name) ?? '';
    const stream = { exchange: wanted('exchange'), symbol: wanted('symbol'), data_type: wanted('data_type') };
    const found = this.ledger.find(stream);
    if (!found) {
      send(404, { error: `no stream ${Object.values(stream).join(' ')}` });
      return;
    }
    response.writeHead(200, { 'content-type': 'text/plain' });
    const lines = found.keyLines();
    const more = (): void => {
      for (let line = lines.next(); !line.done; line = lines.next()) {
        if (response.write(line.value)) continue;
        response.once('drain', more);
        return;
      }
      response.end();
    };
    more();
  }

  private readAction(request: IncomingMessage, send: (status: number, body: object) => void): void {
    let text = '';
    request.setEncoding('utf8');
    request.on('data', (piece: string) => {
      text += piece;
      if (text.length > MAX_CONTROL_BYTES) request.destroy();
    });
    request.on('end', () => {
      try {
        this.apply(JSON.parse(text));
        send(200, { ok: true });
      } catch (error) {
        send(400, { error: error instanceof SyntaxError ? 'request: not JSON' : (error as Error).message });
      }
    });
  }
}

function optionsFromFlags(): { options: SimulatorOptions; endpointsFile: string | undefined } {
  const given = flags(USAGE, {
    port: { type: 'string', default: '9600' },
    seed: { type: 'string', default: '1' },
    exchanges: { type: 'string', default: Object.keys(VENUES).join(',') },
    symbols: { type: 'string', default: 'BTC-USDT,ETH-USDT' },
    'trades-per-second': { type: 'string', default: '20' },
    'diffs-per-second': { type: 'string', default: '10' },
    'liquidations-per-minute': { type: 'string', default: '6' },
    'trade-history': { type: 'string', default: String(TRADE_HISTORY) },
    perpetuals: { type: 'string', default: '20' },
    endpoints: { type: 'string' },
    replay: { type: 'string' },
    exchange: { type: 'string' },
    speed: { type: 'string' },
    'drop-diff': { type: 'string' },
  });
  const replays: ReplayOptions[] = [];
  if (given.replay !== undefined) {
    if (given.exchange === undefined) throw new UsageError('--replay needs --exchange, the exchange that it replaces');
    replays.push({
      exchange: given.exchange,
      file: given.replay,
      speed: given.speed === undefined || given.speed === 'max' ? 'max' : rate('--speed', given.speed),
      dropDiff: given['drop-diff'] === undefined ? 0 : wholeNumber('--drop-diff', given['drop-diff'], 1, 1e9),
    });
  } else if (given.exchange !== undefined || given.speed !== undefined || given['drop-diff'] !== undefined) {
    throw new UsageError('--exchange, --speed and --drop-diff belong to --replay');
  }
  return {
    endpointsFile: given.endpoints,
    options: {
      port: wholeNumber('--port', given.port, 0, 65_535),
      seed: wholeNumber('--seed', given.seed, 0, 4_294_967_295),
      exchanges: names('--exchanges', given.exchanges),
      symbols: names('--symbols', given.symbols),
      tradesPerSecond: rate('--trades-per-second', given['trades-per-second']),
      diffsPerSecond: rate('--diffs-per-second', given['diffs-per-second']),
      liquidationsPerMinute: liquidationRate(given['liquidations-per-minute']),
      tradeHistory: wholeNumber('--trade-history', given['trade-history'], 1, MAX_TRADE_HISTORY),
      perpetuals: wholeNumber('--perpetuals', given.perpetuals, 0, MAX_PERPETUALS),
      replays,
    },
  };
}

/** Writes the addresses so that a reader sees all of them or none. */
function writeEndpoints(file: string, endpoints: Endpoints): void {
  try {
    mkdirSync(dirname(file), { recursive: true });
    writeFileSync(`${file}.tmp`, `${JSON.stringify(endpoints)}\n`);
    renameSync(`${file}.tmp`, file);
  } catch (error) {
    throw new OperatorError(`--endpoints: cannot write ${file}: ${(error as Error).message}`);
  }
}

async function main(): Promise<number> {
  const { options, endpointsFile } = optionsFromFlags();
  const log = createLogger('exchange_sim');
  const simulator = await startSimulator({ ...options, log });
  log.info({ event: 'listening', control: simulator.control, endpoints: simulator.endpoints });
  // The file comes last: who waits for it finds the control address told.
  if (endpointsFile !== undefined) writeEndpoints(endpointsFile, simulator.endpoints);
  tellReady(log, [new Vital('markets', STUCK_MS, () => simulator.ticks())]);
  const signal = await new Promise<string>((stop) => {
    process.once('SIGINT', stop);
    process.once('SIGTERM', stop);
    heedHangup(() => stop('SIGHUP'), log);
  });
  tellManager('STOPPING=1');
  const { frames, bytes, sockets } = simulator.ledger();
  await simulator.close();
  log.info({ event: 'stopped', signal, frames, bytes, sockets });
  return 0;
}

runAsScript(import.meta.url, main);
