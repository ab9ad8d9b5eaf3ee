-- Made from scripts/lib/signal_tables.ts by `npm run sql`; a test compares the two. Do not edit here.

CREATE DATABASE IF NOT EXISTS marketprism_signals;

CREATE TABLE IF NOT EXISTS marketprism_signals.candles
(
    timestamp DateTime64(3, 'UTC') DEFAULT throwIf(1, 'timestamp is absent') CODEC(Delta, ZSTD(1)),
    exchange LowCardinality(String) DEFAULT throwIf(1, 'exchange is absent'),
    market_type LowCardinality(String) DEFAULT throwIf(1, 'market_type is absent'),
    symbol LowCardinality(String) DEFAULT throwIf(1, 'symbol is absent'),
    instrument LowCardinality(String) DEFAULT throwIf(1, 'instrument is absent'),
    interval LowCardinality(String) DEFAULT throwIf(1, 'interval is absent'),
    open Decimal(38, 18) DEFAULT throwIf(1, 'open is absent') CODEC(GCD, ZSTD(3)),
    high Decimal(38, 18) DEFAULT throwIf(1, 'high is absent') CODEC(GCD, ZSTD(3)),
    low Decimal(38, 18) DEFAULT throwIf(1, 'low is absent') CODEC(GCD, ZSTD(3)),
    close Decimal(38, 18) DEFAULT throwIf(1, 'close is absent') CODEC(GCD, ZSTD(3)),
    volume Decimal(38, 18) DEFAULT throwIf(1, 'volume is absent') CODEC(GCD, ZSTD(3)),
    trades UInt32 DEFAULT throwIf(1, 'trades is absent'),
    data_source LowCardinality(String) DEFAULT throwIf(1, 'data_source is absent'),
    created_at DateTime64(3, 'UTC') DEFAULT now64(3) CODEC(Delta, ZSTD(1))
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(timestamp)
ORDER BY (exchange, market_type, symbol, interval, timestamp)
TTL toDateTime(timestamp) + INTERVAL 400 DAY
SETTINGS ttl_only_drop_parts = 1;

CREATE TABLE IF NOT EXISTS marketprism_signals.correlations
(
    timestamp DateTime64(3, 'UTC') DEFAULT throwIf(1, 'timestamp is absent') CODEC(Delta, ZSTD(1)),
    exchange LowCardinality(String) DEFAULT throwIf(1, 'exchange is absent'),
    market_type LowCardinality(String) DEFAULT throwIf(1, 'market_type is absent'),
    symbol LowCardinality(String) DEFAULT throwIf(1, 'symbol is absent'),
    timeframe LowCardinality(String) DEFAULT throwIf(1, 'timeframe is absent'),
    period LowCardinality(String) DEFAULT throwIf(1, 'period is absent'),
    corr Nullable(Float64) DEFAULT throwIf(1, 'corr is absent') CODEC(ZSTD(1)),
    lag Nullable(Int32) DEFAULT throwIf(1, 'lag is absent'),
    p_value Nullable(Float64) DEFAULT throwIf(1, 'p_value is absent') CODEC(ZSTD(1)),
    pairs Nullable(UInt32) DEFAULT throwIf(1, 'pairs is absent'),
    points UInt32 DEFAULT throwIf(1, 'points is absent'),
    lost UInt32 DEFAULT throwIf(1, 'lost is absent'),
    reason Nullable(String) DEFAULT throwIf(1, 'reason is absent'),
    created_at DateTime64(3, 'UTC') DEFAULT now64(3) CODEC(Delta, ZSTD(1))
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(timestamp)
ORDER BY (exchange, market_type, symbol, timeframe, period, timestamp)
TTL toDateTime(timestamp) + INTERVAL 400 DAY
SETTINGS ttl_only_drop_parts = 1;

CREATE TABLE IF NOT EXISTS marketprism_signals.ofi
(
    timestamp DateTime64(3, 'UTC') DEFAULT throwIf(1, 'timestamp is absent') CODEC(Delta, ZSTD(1)),
    received_at DateTime64(3, 'UTC') DEFAULT throwIf(1, 'received_at is absent') CODEC(Delta, ZSTD(1)),
    exchange LowCardinality(String) DEFAULT throwIf(1, 'exchange is absent'),
    market_type LowCardinality(String) DEFAULT throwIf(1, 'market_type is absent'),
    symbol LowCardinality(String) DEFAULT throwIf(1, 'symbol is absent'),
    row_id FixedString(32) DEFAULT toFixedString(toString(throwIf(1, 'row_id is absent')), 32) CODEC(ZSTD(1)),
    latency_ms Nullable(Int32) DEFAULT throwIf(1, 'latency_ms is absent'),
    reconnect_count UInt32 DEFAULT throwIf(1, 'reconnect_count is absent'),
    queue_dropped UInt32 DEFAULT throwIf(1, 'queue_dropped is absent'),
    ofi_value Nullable(Float64) DEFAULT throwIf(1, 'ofi_value is absent') CODEC(ZSTD(1)),
    ofi_z Nullable(Float64) DEFAULT throwIf(1, 'ofi_z is absent') CODEC(ZSTD(1)),
    ofi_z_raw Nullable(Float64) DEFAULT throwIf(1, 'ofi_z_raw is absent') CODEC(ZSTD(1)),
    ema_ofi Nullable(Float64) DEFAULT throwIf(1, 'ema_ofi is absent') CODEC(ZSTD(1)),
    scale UInt32 DEFAULT throwIf(1, 'scale is absent'),
    lag_ms_to_trade Nullable(Int64) DEFAULT throwIf(1, 'lag_ms_to_trade is absent'),
    alignment LowCardinality(String) DEFAULT throwIf(1, 'alignment is absent'),
    warmup Bool DEFAULT throwIf(1, 'warmup is absent'),
    std_zero Bool DEFAULT throwIf(1, 'std_zero is absent'),
    session_reset Bool DEFAULT throwIf(1, 'session_reset is absent'),
    bad_points UInt32 DEFAULT throwIf(1, 'bad_points is absent'),
    session LowCardinality(String) DEFAULT throwIf(1, 'session is absent'),
    regime LowCardinality(Nullable(String)) DEFAULT throwIf(1, 'regime is absent'),
    vol_bucket LowCardinality(Nullable(String)) DEFAULT throwIf(1, 'vol_bucket is absent'),
    scenario_2x2 LowCardinality(Nullable(String)) DEFAULT throwIf(1, 'scenario_2x2 is absent'),
    fee_tier LowCardinality(String) DEFAULT throwIf(1, 'fee_tier is absent'),
    created_at DateTime64(3, 'UTC') DEFAULT now64(3) CODEC(Delta, ZSTD(1))
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(timestamp)
ORDER BY (exchange, market_type, symbol, timestamp, row_id)
TTL toDateTime(timestamp) + INTERVAL 400 DAY
SETTINGS ttl_only_drop_parts = 1;

CREATE TABLE IF NOT EXISTS marketprism_signals.cvd
(
    timestamp DateTime64(3, 'UTC') DEFAULT throwIf(1, 'timestamp is absent') CODEC(Delta, ZSTD(1)),
    received_at DateTime64(3, 'UTC') DEFAULT throwIf(1, 'received_at is absent') CODEC(Delta, ZSTD(1)),
    exchange LowCardinality(String) DEFAULT throwIf(1, 'exchange is absent'),
    market_type LowCardinality(String) DEFAULT throwIf(1, 'market_type is absent'),
    symbol LowCardinality(String) DEFAULT throwIf(1, 'symbol is absent'),
    row_id FixedString(32) DEFAULT toFixedString(toString(throwIf(1, 'row_id is absent')), 32) CODEC(ZSTD(1)),
    latency_ms Nullable(Int32) DEFAULT throwIf(1, 'latency_ms is absent'),
    reconnect_count UInt32 DEFAULT throwIf(1, 'reconnect_count is absent'),
    queue_dropped UInt32 DEFAULT throwIf(1, 'queue_dropped is absent'),
    trade_id String DEFAULT throwIf(1, 'trade_id is absent') CODEC(ZSTD(3)),
    cvd Decimal(38, 18) DEFAULT throwIf(1, 'cvd is absent') CODEC(GCD, ZSTD(3)),
    delta Decimal(38, 18) DEFAULT throwIf(1, 'delta is absent') CODEC(GCD, ZSTD(3)),
    late_delta Decimal(38, 18) DEFAULT throwIf(1, 'late_delta is absent') CODEC(GCD, ZSTD(3)),
    z_raw Nullable(Float64) DEFAULT throwIf(1, 'z_raw is absent') CODEC(ZSTD(1)),
    z_cvd Nullable(Float64) DEFAULT throwIf(1, 'z_cvd is absent') CODEC(ZSTD(1)),
    scale Nullable(Float64) DEFAULT throwIf(1, 'scale is absent') CODEC(ZSTD(1)),
    sigma_floor Nullable(Float64) DEFAULT throwIf(1, 'sigma_floor is absent') CODEC(ZSTD(1)),
    floor_used Nullable(Bool) DEFAULT throwIf(1, 'floor_used is absent'),
    session LowCardinality(String) DEFAULT throwIf(1, 'session is absent'),
    regime LowCardinality(Nullable(String)) DEFAULT throwIf(1, 'regime is absent'),
    vol_bucket LowCardinality(Nullable(String)) DEFAULT throwIf(1, 'vol_bucket is absent'),
    scenario_2x2 LowCardinality(Nullable(String)) DEFAULT throwIf(1, 'scenario_2x2 is absent'),
    fee_tier LowCardinality(String) DEFAULT throwIf(1, 'fee_tier is absent'),
    created_at DateTime64(3, 'UTC') DEFAULT now64(3) CODEC(Delta, ZSTD(1))
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(timestamp)
ORDER BY (exchange, market_type, symbol, timestamp, row_id)
TTL toDateTime(timestamp) + INTERVAL 400 DAY
SETTINGS ttl_only_drop_parts = 1;

CREATE TABLE IF NOT EXISTS marketprism_signals.fusion
(
    timestamp DateTime64(3, 'UTC') DEFAULT throwIf(1, 'timestamp is absent') CODEC(Delta, ZSTD(1)),
    received_at DateTime64(3, 'UTC') DEFAULT throwIf(1, 'received_at is absent') CODEC(Delta, ZSTD(1)),
    exchange LowCardinality(String) DEFAULT throwIf(1, 'exchange is absent'),
    market_type LowCardinality(String) DEFAULT throwIf(1, 'market_type is absent'),
    symbol LowCardinality(String) DEFAULT throwIf(1, 'symbol is absent'),
    row_id FixedString(32) DEFAULT toFixedString(toString(throwIf(1, 'row_id is absent')), 32) CODEC(ZSTD(1)),
    latency_ms Nullable(Int32) DEFAULT throwIf(1, 'latency_ms is absent'),
    reconnect_count UInt32 DEFAULT throwIf(1, 'reconnect_count is absent'),
    queue_dropped UInt32 DEFAULT throwIf(1, 'queue_dropped is absent'),
    score Nullable(Float64) DEFAULT throwIf(1, 'score is absent') CODEC(ZSTD(1)),
    score_raw Nullable(Float64) DEFAULT throwIf(1, 'score_raw is absent') CODEC(ZSTD(1)),
    proba Nullable(Float64) DEFAULT throwIf(1, 'proba is absent') CODEC(ZSTD(1)),
    consistency Nullable(Float64) DEFAULT throwIf(1, 'consistency is absent') CODEC(ZSTD(1)),
    dispersion Nullable(Float64) DEFAULT throwIf(1, 'dispersion is absent') CODEC(ZSTD(1)),
    sign_agree Nullable(Bool) DEFAULT throwIf(1, 'sign_agree is absent'),
    signal LowCardinality(Nullable(String)) DEFAULT throwIf(1, 'signal is absent'),
    comp_ofi Nullable(Float64) DEFAULT throwIf(1, 'comp_ofi is absent') CODEC(ZSTD(1)),
    comp_cvd Nullable(Float64) DEFAULT throwIf(1, 'comp_cvd is absent') CODEC(ZSTD(1)),
    components_json String DEFAULT throwIf(1, 'components_json is absent') CODEC(ZSTD(3)),
    calibration_k Float64 DEFAULT throwIf(1, 'calibration_k is absent'),
    lag_ms_ob Nullable(Int64) DEFAULT throwIf(1, 'lag_ms_ob is absent'),
    lag_ms_trade Nullable(Int64) DEFAULT throwIf(1, 'lag_ms_trade is absent'),
    session LowCardinality(String) DEFAULT throwIf(1, 'session is absent'),
    regime LowCardinality(Nullable(String)) DEFAULT throwIf(1, 'regime is absent'),
    vol_bucket LowCardinality(Nullable(String)) DEFAULT throwIf(1, 'vol_bucket is absent'),
    scenario_2x2 LowCardinality(Nullable(String)) DEFAULT throwIf(1, 'scenario_2x2 is absent'),
    fee_tier LowCardinality(String) DEFAULT throwIf(1, 'fee_tier is absent'),
    created_at DateTime64(3, 'UTC') DEFAULT now64(3) CODEC(Delta, ZSTD(1))
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(timestamp)
ORDER BY (exchange, market_type, symbol, timestamp, row_id)
TTL toDateTime(timestamp) + INTERVAL 400 DAY
SETTINGS ttl_only_drop_parts = 1;

CREATE TABLE IF NOT EXISTS marketprism_signals.events
(
    timestamp DateTime64(3, 'UTC') DEFAULT throwIf(1, 'timestamp is absent') CODEC(Delta, ZSTD(1)),
    received_at DateTime64(3, 'UTC') DEFAULT throwIf(1, 'received_at is absent') CODEC(Delta, ZSTD(1)),
    exchange LowCardinality(String) DEFAULT throwIf(1, 'exchange is absent'),
    market_type LowCardinality(String) DEFAULT throwIf(1, 'market_type is absent'),
    symbol LowCardinality(String) DEFAULT throwIf(1, 'symbol is absent'),
    row_id FixedString(32) DEFAULT toFixedString(toString(throwIf(1, 'row_id is absent')), 32) CODEC(ZSTD(1)),
    latency_ms Nullable(Int32) DEFAULT throwIf(1, 'latency_ms is absent'),
    reconnect_count UInt32 DEFAULT throwIf(1, 'reconnect_count is absent'),
    queue_dropped UInt32 DEFAULT throwIf(1, 'queue_dropped is absent'),
    event_type LowCardinality(String) DEFAULT throwIf(1, 'event_type is absent'),
    meta_json String DEFAULT throwIf(1, 'meta_json is absent') CODEC(ZSTD(3)),
    ofi_z Nullable(Float64) DEFAULT throwIf(1, 'ofi_z is absent') CODEC(ZSTD(1)),
    cvd_z Nullable(Float64) DEFAULT throwIf(1, 'cvd_z is absent') CODEC(ZSTD(1)),
    strength_score Nullable(Float64) DEFAULT throwIf(1, 'strength_score is absent') CODEC(ZSTD(1)),
    direction LowCardinality(Nullable(String)) DEFAULT throwIf(1, 'direction is absent'),
    trigger_by LowCardinality(String) DEFAULT throwIf(1, 'trigger_by is absent'),
    lag_ms_ob Nullable(Int64) DEFAULT throwIf(1, 'lag_ms_ob is absent'),
    lag_ms_trade Nullable(Int64) DEFAULT throwIf(1, 'lag_ms_trade is absent'),
    session LowCardinality(String) DEFAULT throwIf(1, 'session is absent'),
    regime LowCardinality(Nullable(String)) DEFAULT throwIf(1, 'regime is absent'),
    vol_bucket LowCardinality(Nullable(String)) DEFAULT throwIf(1, 'vol_bucket is absent'),
    scenario_2x2 LowCardinality(Nullable(String)) DEFAULT throwIf(1, 'scenario_2x2 is absent'),
    fee_tier LowCardinality(String) DEFAULT throwIf(1, 'fee_tier is absent'),
    created_at DateTime64(3, 'UTC') DEFAULT now64(3) CODEC(Delta, ZSTD(1))
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(timestamp)
ORDER BY (exchange, market_type, symbol, timestamp, row_id)
TTL toDateTime(timestamp) + INTERVAL 400 DAY
SETTINGS ttl_only_drop_parts = 1;

CREATE TABLE IF NOT EXISTS marketprism_signals.features
(
    timestamp DateTime64(3, 'UTC') DEFAULT throwIf(1, 'timestamp is absent') CODEC(Delta, ZSTD(1)),
    received_at DateTime64(3, 'UTC') DEFAULT throwIf(1, 'received_at is absent') CODEC(Delta, ZSTD(1)),
    exchange LowCardinality(String) DEFAULT throwIf(1, 'exchange is absent'),
    market_type LowCardinality(String) DEFAULT throwIf(1, 'market_type is absent'),
    symbol LowCardinality(String) DEFAULT throwIf(1, 'symbol is absent'),
    row_id FixedString(32) DEFAULT toFixedString(toString(throwIf(1, 'row_id is absent')), 32) CODEC(ZSTD(1)),
    latency_ms Nullable(Int32) DEFAULT throwIf(1, 'latency_ms is absent'),
    reconnect_count UInt32 DEFAULT throwIf(1, 'reconnect_count is absent'),
    queue_dropped UInt32 DEFAULT throwIf(1, 'queue_dropped is absent'),
    second_ts DateTime64(3, 'UTC') DEFAULT throwIf(1, 'second_ts is absent') CODEC(Delta, ZSTD(1)),
    revision UInt16 DEFAULT throwIf(1, 'revision is absent'),
    trades UInt32 DEFAULT throwIf(1, 'trades is absent'),
    book_changes UInt32 DEFAULT throwIf(1, 'book_changes is absent'),
    mid Nullable(Float64) DEFAULT throwIf(1, 'mid is absent') CODEC(ZSTD(1)),
    last_price Nullable(Float64) DEFAULT throwIf(1, 'last_price is absent') CODEC(ZSTD(1)),
    return_1s Nullable(Float64) DEFAULT throwIf(1, 'return_1s is absent') CODEC(ZSTD(1)),
    ofi_z Nullable(Float64) DEFAULT throwIf(1, 'ofi_z is absent') CODEC(ZSTD(1)),
    cvd_z Nullable(Float64) DEFAULT throwIf(1, 'cvd_z is absent') CODEC(ZSTD(1)),
    fusion_score Nullable(Float64) DEFAULT throwIf(1, 'fusion_score is absent') CODEC(ZSTD(1)),
    lag_ms_ofi Nullable(Int64) DEFAULT throwIf(1, 'lag_ms_ofi is absent'),
    lag_ms_cvd Nullable(Int64) DEFAULT throwIf(1, 'lag_ms_cvd is absent'),
    lag_ms_fusion Nullable(Int64) DEFAULT throwIf(1, 'lag_ms_fusion is absent'),
    best_bid Nullable(Float64) DEFAULT throwIf(1, 'best_bid is absent') CODEC(ZSTD(1)),
    best_ask Nullable(Float64) DEFAULT throwIf(1, 'best_ask is absent') CODEC(ZSTD(1)),
    spread_bps Nullable(Float64) DEFAULT throwIf(1, 'spread_bps is absent') CODEC(ZSTD(1)),
    best_buy_fill Nullable(Float64) DEFAULT throwIf(1, 'best_buy_fill is absent') CODEC(ZSTD(1)),
    best_sell_fill Nullable(Float64) DEFAULT throwIf(1, 'best_sell_fill is absent') CODEC(ZSTD(1)),
    session LowCardinality(String) DEFAULT throwIf(1, 'session is absent'),
    regime LowCardinality(Nullable(String)) DEFAULT throwIf(1, 'regime is absent'),
    vol_bucket LowCardinality(Nullable(String)) DEFAULT throwIf(1, 'vol_bucket is absent'),
    scenario_2x2 LowCardinality(Nullable(String)) DEFAULT throwIf(1, 'scenario_2x2 is absent'),
    fee_tier LowCardinality(String) DEFAULT throwIf(1, 'fee_tier is absent'),
    created_at DateTime64(3, 'UTC') DEFAULT now64(3) CODEC(Delta, ZSTD(1))
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(timestamp)
ORDER BY (exchange, market_type, symbol, timestamp, row_id)
TTL toDateTime(timestamp) + INTERVAL 400 DAY
SETTINGS ttl_only_drop_parts = 1;

CREATE TABLE IF NOT EXISTS marketprism_signals.schema_migrations
(
    version UInt32,
    name String,
    applied_at DateTime64(3, 'UTC') DEFAULT now64(3),
    by String
)
ENGINE = MergeTree
ORDER BY (version, applied_at);

CREATE OR REPLACE VIEW marketprism_signals.features_now AS
SELECT * FROM marketprism_signals.features
ORDER BY exchange, market_type, symbol, timestamp, revision DESC
LIMIT 1 BY exchange, market_type, symbol, timestamp;
