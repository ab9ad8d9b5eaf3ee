/** The tables of `marketprism_signals`: what is derived from market data. Kept for 400 days, by the time that a row is about. */

export interface SignalColumn {
  name: string;
  /** The ClickHouse type, Nullable included. */
  type: string;
  codec?: string;
  /** `DEFAULT now64(3)`, …; absent: a row without the column is an error, not a row with 0. */
  expression?: string;
}

export interface SignalTable {
  name: string;
  /** In the table's order. */
  columns: readonly SignalColumn[];
  /** What makes a row one, in the order in which it is read. */
  key: readonly string[];
}

const NAME = 'LowCardinality(String)';
const DECIMAL = 'Decimal(38, 18)';
const COUNT = 'UInt32';
const MAYBE = 'Nullable(Float64)';

const column = (name: string, type: string, codec?: string): SignalColumn => ({
  name,
  type,
  ...(codec === undefined ? {} : { codec }),
});
const time = (name: string) => column(name, "DateTime64(3, 'UTC')", 'Delta, ZSTD(1)');
const names = (...all: string[]) => all.map((each) => column(each, NAME));
const maybes = (...all: string[]) => all.map((each) => column(each, MAYBE, 'ZSTD(1)'));
const counts = (...all: string[]) => all.map((each) => column(each, COUNT));
const bools = (...all: string[]) => all.map((each) => column(each, 'Bool'));
const decimals = (...all: string[]) => all.map((each) => column(each, DECIMAL, 'GCD, ZSTD(3)'));

/** When the row was written; not part of what it says. */
const CREATED: SignalColumn = {
  name: 'created_at',
  type: "DateTime64(3, 'UTC')",
  codec: 'Delta, ZSTD(1)',
  expression: 'DEFAULT now64(3)',
};

const STREAM = ['exchange', 'market_type', 'symbol'] as const;

/** Columns that all tables of the harvest begin with (`harvest/kinds.ts`); `timestamp` is a row's ts_ms, `received_at` its recv_ts_ms. */
const HARVEST_HEAD = [
  time('timestamp'),
  time('received_at'),
  ...names(...STREAM),
  column('row_id', 'FixedString(32)', 'ZSTD(1)'),
  column('latency_ms', 'Nullable(Int32)'),
  ...counts('reconnect_count', 'queue_dropped'),
];
/** What the market was like: null while it is not known yet. */
const LABELS = [
  ...names('session'),
  ...['regime', 'vol_bucket', 'scenario_2x2'].map((each) => column(each, 'LowCardinality(Nullable(String))')),
  ...names('fee_tier'),
];
const HARVEST_KEY = [...STREAM, 'timestamp', 'row_id'] as const;
const MAYBE_TEXT = 'LowCardinality(Nullable(String))';
const LAG = 'Nullable(Int64)';

export const SIGNAL_TABLES = {
  /** Finished candles only. `timestamp` is the candle's start; volume in base units; data_source: rest or socket. */
  candles: {
    name: 'candles',
    columns: [
      time('timestamp'),
      ...names(...STREAM, 'instrument', 'interval'),
      ...decimals('open', 'high', 'low', 'close', 'volume'),
      ...counts('trades'),
      ...names('data_source'),
      CREATED,
    ],
    key: [...STREAM, 'interval', 'timestamp'],
  },
  /**
   * One row per coin, timeframe and period of a round; `timestamp` is the start of the last candle that it stands on. p_value: the chance of a
   * largest one like this over all lags where there is none; points: candles that both have; lost: those that only one of them has.
   */
  correlations: {
    name: 'correlations',
    columns: [
      time('timestamp'),
      ...names(...STREAM, 'timeframe', 'period'),
      ...maybes('corr'),
      column('lag', 'Nullable(Int32)'),
      ...maybes('p_value'),
      column('pairs', 'Nullable(UInt32)'),
      ...counts('points', 'lost'),
      column('reason', 'Nullable(String)'),
      CREATED,
    ],
    key: [...STREAM, 'timeframe', 'period', 'timestamp'],
  },
  /** One row per change of the top five levels: order flow imbalance in base units. */
  ofi: {
    name: 'ofi',
    columns: [
      ...HARVEST_HEAD,
      ...maybes('ofi_value', 'ofi_z', 'ofi_z_raw', 'ema_ofi'),
      ...counts('scale'),
      column('lag_ms_to_trade', LAG),
      ...names('alignment'),
      ...bools('warmup', 'std_zero', 'session_reset'),
      ...counts('bad_points'),
      ...LABELS,
      CREATED,
    ],
    key: HARVEST_KEY,
  },
  /** One row per trade: cumulative volume delta in base units. */
  cvd: {
    name: 'cvd',
    columns: [
      ...HARVEST_HEAD,
      column('trade_id', 'String', 'ZSTD(3)'),
      ...decimals('cvd', 'delta', 'late_delta'),
      ...maybes('z_raw', 'z_cvd', 'scale', 'sigma_floor'),
      column('floor_used', 'Nullable(Bool)'),
      ...LABELS,
      CREATED,
    ],
    key: HARVEST_KEY,
  },
  /** One row per trade: both indicators as one. */
  fusion: {
    name: 'fusion',
    columns: [
      ...HARVEST_HEAD,
      ...maybes('score', 'score_raw', 'proba', 'consistency', 'dispersion'),
      column('sign_agree', 'Nullable(Bool)'),
      column('signal', MAYBE_TEXT),
      ...maybes('comp_ofi', 'comp_cvd'),
      column('components_json', 'String', 'ZSTD(3)'),
      column('calibration_k', 'Float64'),
      column('lag_ms_ob', LAG),
      column('lag_ms_trade', LAG),
      ...LABELS,
      CREATED,
    ],
    key: HARVEST_KEY,
  },
  events: {
    name: 'events',
    columns: [
      ...HARVEST_HEAD,
      ...names('event_type'),
      column('meta_json', 'String', 'ZSTD(3)'),
      ...maybes('ofi_z', 'cvd_z', 'strength_score'),
      column('direction', MAYBE_TEXT),
      ...names('trigger_by'),
      column('lag_ms_ob', LAG),
      column('lag_ms_trade', LAG),
      ...LABELS,
      CREATED,
    ],
    key: HARVEST_KEY,
  },
  /** One row per second that is over. A late trade makes a further one, of the next revision: `features_now` shows the last. */
  features: {
    name: 'features',
    columns: [
      ...HARVEST_HEAD,
      time('second_ts'),
      column('revision', 'UInt16'),
      ...counts('trades', 'book_changes'),
      ...maybes('mid', 'last_price', 'return_1s', 'ofi_z', 'cvd_z', 'fusion_score'),
      ...['lag_ms_ofi', 'lag_ms_cvd', 'lag_ms_fusion'].map((each) => column(each, LAG)),
      ...maybes('best_bid', 'best_ask', 'spread_bps', 'best_buy_fill', 'best_sell_fill'),
      ...LABELS,
      CREATED,
    ],
    key: HARVEST_KEY,
  },
} as const satisfies Record<string, SignalTable>;

export type SignalTableName = keyof typeof SIGNAL_TABLES;
