/** Recorded sessions, when they are there; and small hand-made frames that a clone alone has. */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import type { TradeRow } from '../scripts/lib/rows.ts';

export const SHARED = join(import.meta.dirname, '..', '..', 'shared', 'fixtures');

export const RECORDED = {
  spot: join(SHARED, 'hftbacktest', 'binance-spot', 'btcusdt_20240808.gz'),
  usdm: join(SHARED, 'hftbacktest', 'binance-usdm', 'ethusdt_20240808.gz'),
};

/** For `skip`: false when the file is there, else why the test cannot run. */
export function missing(path: string): string | false {
  return existsSync(path) ? false : `recorded data is not there: ${path.slice(path.indexOf('shared'))}`;
}

export interface RecordedLine {
  receivedMs: number;
  raw: string;
}

export function readSession(path: string): RecordedLine[] {
  const lines = gunzipSync(readFileSync(path)).toString().trimEnd().split('\n');
  return lines.map((line) => {
    const space = line.indexOf(' ');
    return { receivedMs: Number(line.slice(0, space - 6)), raw: line.slice(space + 1) };
  });
}

export interface Ticker {
  bid: [string, string];
  ask: [string, string];
}

/** The venue's own best bid and ask by update id. */
export function bookTickers(session: RecordedLine[]): Map<number, Ticker> {
  const out = new Map<number, Ticker>();
  for (const { raw } of session) {
    if (!raw.includes('@bookTicker')) continue;
    const { u, b, B, a, A } = JSON.parse(raw).data;
    out.set(u, { bid: [b, B], ask: [a, A] });
  }
  return out;
}

/** Decimal text without the zeros that carry no value. */
export function canonical(text: string): string {
  return text.includes('.') ? text.replace(/\.?0+$/, '') : text;
}

/** A trade row with this id, each with an event time of its own. */
export function sampleTrade(id: number, change: Partial<TradeRow> = {}): TradeRow {
  return {
    exchange: 'binance_spot',
    market_type: 'spot',
    symbol: 'BTC-USDT',
    instrument: 'BTCUSDT',
    timestamp: 1795000000000 + id,
    received_at: (1795000000000 + id) * 1000,
    data_source: 'live',
    trade_id: String(id),
    sequence: null,
    price: '61837.63',
    quantity: '0.5',
    side: 'buy',
    is_maker: false,
    ...change,
  };
}
