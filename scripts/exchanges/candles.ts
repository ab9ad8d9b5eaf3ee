/**
 * Candles of one minute as the venues serve them: for comparing what was stored with what the venue itself counted.
 *
 * Sources: the venues' REST documents (klines; market/history-candles; public/get_tradingview_chart_data; info candleSnapshot).
 */
import { z } from 'zod';
import type { Exchange } from '../lib/rows.ts';

const MINUTE_MS = 60_000;
/** The least that all venues give in one answer. */
export const MOST_CANDLES = 300;

export interface VolumeCandle {
  /** ms since the epoch. */
  start: number;
  /** In base units, coins of it: also where contracts are traded. */
  volume: number;
}

export interface CandleSource {
  /** GET unless there is a body. @param id the venue's own @param from,to starts of the first and the last minute, ms */
  request(id: string, from: number, to: number): { path: string; body?: string };
  /** @throws ZodError when the answer is none of the venue's */
  read(answer: unknown): VolumeCandle[];
}

const text = z.coerce.number();

/** `[open time, o, h, l, c, volume in base units, …]` */
const KLINES = z.array(z.tuple([z.number(), text, text, text, text, text]).rest(z.unknown()));

function binance(path: string): CandleSource {
  return {
    request: (id, from, to) => ({
      path: `${path}?symbol=${id}&interval=1m&startTime=${from}&endTime=${to}&limit=${MOST_CANDLES}`,
    }),
    read: (answer) => KLINES.parse(answer).map((row) => ({ start: row[0], volume: row[5] })),
  };
}

/** `[ts, o, h, l, c, vol in contracts or base units, volCcy, volCcyQuote, confirm]`; volCcy is in base units for swaps, in quote units for spot. */
const OKX_CANDLES = z.object({
  code: z.literal('0'),
  data: z.array(z.tuple([text, text, text, text, text, text, text]).rest(z.unknown())),
});

function okx(volumeAt: 5 | 6): CandleSource {
  return {
    // Both cursors leave out the time that they name.
    request: (id, from, to) => ({
      path: `/api/v5/market/history-candles?instId=${id}&bar=1m&after=${to + MINUTE_MS}&before=${from - 1}&limit=${MOST_CANDLES}`,
    }),
    read: (answer) => OKX_CANDLES.parse(answer).data.map((row) => ({ start: row[0], volume: row[volumeAt] })),
  };
}

const CHART = z.object({ result: z.object({ ticks: z.array(z.number()), volume: z.array(z.number()) }) });

const DERIBIT: CandleSource = {
  request: (id, from, to) => ({
    path: `/api/v2/public/get_tradingview_chart_data?instrument_name=${id}&start_timestamp=${from}&end_timestamp=${to}&resolution=1`,
  }),
  read: (answer) => {
    const { ticks, volume } = CHART.parse(answer).result;
    return ticks.map((start, i) => ({ start, volume: volume[i] ?? Number.NaN }));
  },
};

const SNAPSHOT = z.array(z.object({ t: z.number(), v: text }));

const HYPERLIQUID: CandleSource = {
  request: (id, from, to) => ({
    path: '/info',
    body: JSON.stringify({
      type: 'candleSnapshot',
      req: { coin: id, interval: '1m', startTime: from, endTime: to + MINUTE_MS - 1 },
    }),
  }),
  read: (answer) => SNAPSHOT.parse(answer).map(({ t, v }) => ({ start: t, volume: v })),
};

export const CANDLES: Record<Exchange, CandleSource> = {
  binance_spot: binance('/api/v3/klines'),
  binance_derivatives: binance('/fapi/v1/klines'),
  okx_spot: okx(5),
  okx_derivatives: okx(6),
  deribit_derivatives: DERIBIT,
  hyperliquid: HYPERLIQUID,
};
