/** Rows of the harvest as its core writes them, by number: each kind's members, times 100 ms apart. */
import { dateHour, type HarvestKind, isRaw, rowId } from '../scripts/lib/harvest/kinds.ts';
import type { HarvestLine } from '../scripts/lib/harvest/table.ts';
import type { Exchange } from '../scripts/lib/rows.ts';

/** 2026-11-30 07:00 UTC. */
export const HOUR = Date.UTC(2026, 10, 30, 7);
export const STEP_MS = 100;

export interface RowOptions {
  symbol?: string;
  exchange?: Exchange;
  /** Instead of the time by number, ms. */
  at?: number;
  /** Members that are other ones. */
  more?: Record<string, unknown>;
}

const LABELS = { session: 'Tokyo', regime: 'Active', vol_bucket: 'High', scenario_2x2: 'A_H', fee_tier: 'TM' };
/** As many digits as there may be. */
const LONG = '12345678901234567890.000000000000000001';
const LAGS = { lag_ms_ob: 12, lag_ms_trade: 0 };

function levels(n: number): Record<string, unknown> {
  const out: Record<string, unknown> = {};
  for (let i = 0; i < 5; i++) out[`d_b${i}`] = i === 4 ? null : `-0.${n}1`;
  for (let i = 0; i < 5; i++) out[`d_a${i}`] = '0.000000000000000001';
  for (let i = 1; i <= 5; i++) Object.assign(out, { [`bid${i}_p`]: `6183${n % 10}.${i}`, [`bid${i}_q`]: '1.5' });
  for (let i = 1; i <= 5; i++)
    Object.assign(out, { [`ask${i}_p`]: `6184${n % 10}.${i}`, [`ask${i}_q`]: i === 5 ? null : LONG });
  return out;
}

/** Members of a kind's own. */
function own(kind: HarvestKind, n: number, at: number): Record<string, unknown> {
  if (kind === 'prices')
    return {
      ...{ price: '61837.63', qty: '0.000000000000000001', is_buyer_maker: n % 2 === 0, agg_trade_id: String(n) },
      ...{ best_buy_fill: '61837.7', best_sell_fill: null, late: false },
    };
  if (kind === 'orderbook')
    return {
      ...{ first_id: n * 10, last_id: n * 10 + 9, prev_last_id: n * 10 - 1, best_bid: '61837.6', best_ask: '61837.7' },
      ...{ mid: 61837.65, spread_bps: 0.016171, levels: 5, d_bid_qty_agg: '-0.5', d_ask_qty_agg: null, ...levels(n) },
    };
  if (kind === 'ofi')
    return {
      ...{ ofi_value: n / 7, ofi_z: null, ofi_z_raw: -1.25, ema_ofi: 0.5, scale: 1, lag_ms_to_trade: 5 },
      ...{ alignment: 'strict', warmup: true, std_zero: false, session_reset: false, bad_points: 0 },
    };
  if (kind === 'cvd')
    return {
      ...{ trade_id: String(n), cvd: `${n}.5`, delta: '-0.25', late_delta: '0', z_raw: 1, z_cvd: null, scale: 2.5 },
      ...{ sigma_floor: 0.1, floor_used: n % 3 === 0 ? null : false },
    };
  if (kind === 'fusion')
    return {
      ...{ score: 1.5, score_raw: 1.5, proba: 0.8, consistency: 0.3, dispersion: 0.7, sign_agree: true, signal: 'buy' },
      ...{ comp_ofi: 0.9, comp_cvd: 0.6, components_json: '{"ofi":0.9,"cvd":0.6}', calibration_k: 1, ...LAGS },
    };
  if (kind === 'events')
    return {
      ...{
        event_type: 'anomaly',
        meta_json: `{"n":${n},"row_id":"none"}`,
        ofi_z: 3.5,
        cvd_z: null,
        strength_score: 60,
      },
      ...{ direction: 'bullish', trigger_by: 'ofi', ...LAGS },
    };
  return {
    ...{ second_ts: at, revision: 0, trades: 3, book_changes: 4, mid: 61837.65, last_price: 61837.6, return_1s: null },
    ...{ ofi_z: 1, cvd_z: 2, fusion_score: 1.4, lag_ms_ofi: 10, lag_ms_cvd: 20, lag_ms_fusion: 20 },
    ...{ best_bid: 61837.6, best_ask: 61837.7, spread_bps: 0.01, best_buy_fill: 61837.7, best_sell_fill: 61837.6 },
  };
}

/** The n-th row of a kind; features are a second apart. */
export function harvestRow(kind: HarvestKind, n: number, options: RowOptions = {}): HarvestLine {
  const { symbol = 'BTC-USDT', exchange = 'binance_derivatives', more = {} } = options;
  const at = options.at ?? HOUR + n * (kind === 'features' ? 1000 : STEP_MS);
  const market_type = exchange === 'binance_spot' ? 'spot' : 'perpetual';
  return {
    ...{ kind, ts_ms: at, recv_ts_ms: at + 20, exchange, market_type, symbol },
    row_id: rowId(exchange, market_type, symbol, at, kind, n),
    ...{ latency_ms: 20, reconnect_count: 0, queue_dropped: 0 },
    ...own(kind, n, at),
    ...(isRaw(kind) ? {} : LABELS),
    ...dateHour(at),
    source_tier: isRaw(kind) ? 'raw' : 'preview',
    ...more,
  };
}

export function harvestRows(kind: HarvestKind, from: number, count: number, options?: RowOptions): HarvestLine[] {
  return Array.from({ length: count }, (_, i) => harvestRow(kind, from + i, options));
}
