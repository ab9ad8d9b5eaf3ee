/**
 * What the desk asks OKX over REST: candles, tickers, and the owner's positions.
 *
 * Source: OKX API v5, market data (candles, history-candles, tickers), trading account (positions), REST authentication.
 */
import { createHmac } from 'node:crypto';
import { z } from 'zod';
import { okxDerivatives } from '../../exchanges/okx.ts';
import type { Config } from '../config.ts';
import type { Logger } from '../log.ts';
import { pause } from '../pause.ts';
import { steadyNow } from '../steady.ts';
import { VenueRest } from '../venue_rest.ts';

/** Bars that the desk uses, with their length; those of a day begin at 16:00 UTC, midnight in Beijing. */
export const BARS = { '1m': 60_000, '5m': 300_000, '30m': 1_800_000, '1D': 86_400_000 } as const;
export type Bar = keyof typeof BARS;

/** The most of one answer. */
const PAGE = 300;
/** The venue keeps so many of the newest bars at hand; older ones are served under another path. */
const NEAR_BARS = 1400;
/**
 * Between two requests of a process, ms: of 40 in two seconds for candles and 20 for older ones, each of the desk's scripts takes less than half.
 */
const SPACING_MS = { near: 125, old: 250 };
/** The desk leaves the larger part of the venue's requests to the collector. */
const SHARE = 0.35;

/** A finished candle; prices in the venue's own digits. */
export interface DeskCandle {
  /** Open time, ms since the epoch. */
  start: number;
  open: string;
  high: string;
  low: string;
  close: string;
}

export interface DeskTicker {
  /** The venue's id, such as BTC-USDT-SWAP. */
  instrument: string;
  last: string;
  /** Open of the day of UTC+8. */
  dayOpen: string;
  /** Of the venue, ms since the epoch. */
  time: number;
}

/** What the venue says of a position; texts as they come, empty where they do not apply. */
export const POSITION = z.object({
  instId: z.string(),
  mgnMode: z.string(),
  posSide: z.enum(['long', 'short', 'net']),
  pos: z.string(),
  upl: z.string(),
  margin: z.string(),
  imr: z.string(),
});
export type Position = z.infer<typeof POSITION>;

export interface OkxKey {
  key: string;
  secret: string;
  passphrase: string;
}

/** Its code for an instrument that it does not have. */
const NO_INSTRUMENT = '51001';

/** The venue or the way to it is at fault, and says why; a later try may succeed. */
export class DeskRequestFailed extends Error {
  /** @param code the venue's own, where it gave one */
  constructor(
    message: string,
    private readonly code: string | null = null,
  ) {
    super(message);
  }

  /** The venue has no such instrument: trying again at once is in vain. */
  get isUnknownInstrument(): boolean {
    return this.code === NO_INSTRUMENT;
  }
}

const price = z.string().regex(/^\d+(\.\d+)?$/, 'is no price');
const time = z
  .string()
  .regex(/^\d{13}$/, 'is no time')
  .transform(Number);
const ENVELOPE = z.object({ code: z.string(), msg: z.string().default(''), data: z.array(z.unknown()) });
/** `[ts, o, h, l, c, vol, volCcy, volCcyQuote, confirm]`, newest first. */
const CANDLE = z.tuple([time, price, price, price, price, z.string(), z.string(), z.string(), z.enum(['0', '1'])]);
const TICKER = z.object({ instId: z.string(), last: price, sodUtc8: price, ts: time });

/** The swap of a coin. */
export function swapOf(coin: string): string {
  return `${coin}-USDT-SWAP`;
}

export class OkxDesk {
  private readonly rest: VenueRest;
  /** When the next request may be sent, steady clock, ms. */
  private nextAt = 0;

  /** @param clock wall clock, ms */
  constructor(
    config: Config,
    log: Logger,
    private readonly clock: () => number,
  ) {
    const { hosts, restWeightPerMinute: weightPerMinute, restWeightHeader: weightHeader } = okxDerivatives;
    const { dataDir, blockedRetryMs } = config;
    const host = (config.endpoints.okx_derivatives ?? hosts).rest;
    this.rest = new VenueRest({ host, dataDir, weightPerMinute, weightHeader, blockedRetryMs, log });
  }

  /**
   * Finished candles of `instrument` that opened from `from` to `to` (ms, both included), oldest first. What the venue does not have is
   * not there.
   * @throws DeskRequestFailed
   */
  async candles(instrument: string, bar: Bar, from: number, to: number): Promise<DeskCandle[]> {
    const near = from >= this.clock() - NEAR_BARS * BARS[bar];
    const path = `/api/v5/market/${near ? 'candles' : 'history-candles'}`;
    const found = new Map<number, DeskCandle>();
    // Pages go back from the newest one; both cursors leave out the time that they name.
    for (let after = to + 1; after > from; ) {
      const rows = await this.ask(
        `${path}?instId=${instrument}&bar=${bar}&after=${after}&before=${from - 1}&limit=${PAGE}`,
      );
      const page = rows.map((row) => CANDLE.parse(row));
      for (const [start, open, high, low, close, , , , confirm] of page) {
        if (confirm === '1' && start >= from && start <= to) found.set(start, { start, open, high, low, close });
      }
      const oldest = Math.min(...page.map(([start]) => start));
      if (page.length < PAGE || oldest >= after) break;
      after = oldest;
    }
    return [...found.values()].sort((one, other) => one.start - other.start);
  }

  /** The open of the bar that begins at `start`, finished or not; null where the venue has none. @throws DeskRequestFailed */
  async openAt(instrument: string, bar: Bar, start: number): Promise<string | null> {
    const near = start >= this.clock() - NEAR_BARS * BARS[bar];
    const path = `/api/v5/market/${near ? 'candles' : 'history-candles'}`;
    const rows = await this.ask(
      `${path}?instId=${instrument}&bar=${bar}&after=${start + 1}&before=${start - 1}&limit=1`,
    );
    const row = rows.map((each) => CANDLE.parse(each)).find(([at]) => at === start);
    return row?.[1] ?? null;
  }

  /** All swaps at once, by the venue's id. A row that is not sound is left out. @throws DeskRequestFailed */
  async tickers(): Promise<Map<string, DeskTicker>> {
    const rows = await this.ask('/api/v5/market/tickers?instType=SWAP');
    const tickers = new Map<string, DeskTicker>();
    for (const row of rows) {
      const parsed = TICKER.safeParse(row);
      if (!parsed.success) continue;
      const { instId, last, sodUtc8, ts } = parsed.data;
      tickers.set(instId, { instrument: instId, last, dayOpen: sodUtc8, time: ts });
    }
    return tickers;
  }

  /** Open positions in swaps. @throws DeskRequestFailed, also when the key is refused */
  async positions(key: OkxKey): Promise<Position[]> {
    const path = '/api/v5/account/positions?instType=SWAP';
    const headers = signedHeaders(key, 'GET', path, new Date(this.clock()).toISOString());
    return (await this.ask(path, headers)).map((row) => POSITION.parse(row));
  }

  close(): Promise<void> {
    return this.rest.close();
  }

  private async turn(spacing: number): Promise<void> {
    const at = Math.max(this.nextAt, steadyNow());
    this.nextAt = at + spacing;
    await pause(at - steadyNow());
  }

  private async ask(path: string, headers: Record<string, string> = {}): Promise<unknown[]> {
    const where = path.split('?')[0]!;
    await this.turn(where.endsWith('history-candles') ? SPACING_MS.old : SPACING_MS.near);
    const answer = await this.rest.ask(path, 1, null, SHARE, headers);
    if (answer.kind !== 'ok') throw new DeskRequestFailed(`${where}: ${answer.reason}`);
    const envelope = ENVELOPE.safeParse(answer.body);
    if (!envelope.success) throw new DeskRequestFailed(`${where}: an answer that is none of the venue's`);
    const { code, msg, data } = envelope.data;
    if (code !== '0') throw new DeskRequestFailed(`${where}: ${code} ${msg}`.trim(), code);
    return data;
  }
}

/**
 * Headers that sign a request: Base64(HMAC-SHA256(secret, timestamp + method + path with query + body)).
 * @param timestamp ISO 8601 in UTC with ms; the venue takes it within 30 s of its own clock
 */
export function signedHeaders(
  { key, secret, passphrase }: OkxKey,
  method: 'GET',
  path: string,
  timestamp: string,
): Record<string, string> {
  const sign = createHmac('sha256', secret).update(`${timestamp}${method}${path}`).digest('base64');
  return {
    'OK-ACCESS-KEY': key,
    'OK-ACCESS-SIGN': sign,
    'OK-ACCESS-TIMESTAMP': timestamp,
    'OK-ACCESS-PASSPHRASE': passphrase,
  };
}
