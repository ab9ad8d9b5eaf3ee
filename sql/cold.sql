-- Made from scripts/lib/rows.ts by `npm run sql`; a test compares the two. Do not edit here.

CREATE DATABASE IF NOT EXISTS marketprism_cold;

CREATE TABLE IF NOT EXISTS marketprism_cold.trades
(
    timestamp DateTime64(3, 'UTC') DEFAULT throwIf(1, 'timestamp is absent') CODEC(Delta, ZSTD(1)),
    exchange LowCardinality(String) DEFAULT throwIf(1, 'exchange is absent'),
    market_type LowCardinality(String) DEFAULT throwIf(1, 'market_type is absent'),
    symbol LowCardinality(String) DEFAULT throwIf(1, 'symbol is absent'),
    instrument LowCardinality(String),
    trade_id String DEFAULT throwIf(1, 'trade_id is absent') CODEC(ZSTD(3)),
    sequence Nullable(UInt64) CODEC(DoubleDelta, ZSTD(1)),
    price Decimal(38, 18) DEFAULT throwIf(1, 'price is absent') CODEC(GCD, ZSTD(3)),
    quantity Decimal(38, 18) DEFAULT throwIf(1, 'quantity is absent') CODEC(GCD, ZSTD(3)),
    side Enum8('buy' = 1, 'sell' = 2) DEFAULT throwIf(1, 'side is absent'),
    is_maker Bool DEFAULT throwIf(1, 'is_maker is absent'),
    trade_time DateTime64(3, 'UTC') ALIAS timestamp,
    received_at DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
    created_at DateTime64(3, 'UTC') DEFAULT now64(3) CODEC(Delta, ZSTD(1)),
    data_source LowCardinality(String),
    js_epoch UInt32 CODEC(DoubleDelta, ZSTD(1)),
    js_seq UInt64 CODEC(DoubleDelta, ZSTD(1))
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(timestamp)
ORDER BY (exchange, market_type, symbol, timestamp, trade_id)
TTL toDateTime(timestamp) + INTERVAL 3650 DAY
SETTINGS ttl_only_drop_parts = 1;

CREATE TABLE IF NOT EXISTS marketprism_cold.orderbooks
(
    timestamp DateTime64(3, 'UTC') DEFAULT throwIf(1, 'timestamp is absent') CODEC(Delta, ZSTD(1)),
    exchange LowCardinality(String) DEFAULT throwIf(1, 'exchange is absent'),
    market_type LowCardinality(String) DEFAULT throwIf(1, 'market_type is absent'),
    symbol LowCardinality(String) DEFAULT throwIf(1, 'symbol is absent'),
    instrument LowCardinality(String),
    last_update_id UInt64 DEFAULT throwIf(1, 'last_update_id is absent') CODEC(DoubleDelta, ZSTD(1)),
    bids_count UInt32 DEFAULT length(bids),
    asks_count UInt32 DEFAULT length(asks),
    best_bid_price Decimal(38, 18) DEFAULT throwIf(1, 'best_bid_price is absent') CODEC(GCD, ZSTD(3)),
    best_bid_quantity Decimal(38, 18) DEFAULT throwIf(1, 'best_bid_quantity is absent') CODEC(GCD, ZSTD(3)),
    best_ask_price Decimal(38, 18) DEFAULT throwIf(1, 'best_ask_price is absent') CODEC(GCD, ZSTD(3)),
    best_ask_quantity Decimal(38, 18) DEFAULT throwIf(1, 'best_ask_quantity is absent') CODEC(GCD, ZSTD(3)),
    bids Array(Tuple(Decimal(38, 18), Decimal(38, 18))) DEFAULT [(throwIf(1, 'bids is absent'), 0)] CODEC(GCD, ZSTD(3)),
    asks Array(Tuple(Decimal(38, 18), Decimal(38, 18))) DEFAULT [(throwIf(1, 'asks is absent'), 0)] CODEC(GCD, ZSTD(3)),
    verified Enum8('verified' = 1, 'unverifiable' = 2) DEFAULT throwIf(1, 'verified is absent'),
    received_at DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
    created_at DateTime64(3, 'UTC') DEFAULT now64(3) CODEC(Delta, ZSTD(1)),
    data_source LowCardinality(String),
    js_epoch UInt32 CODEC(DoubleDelta, ZSTD(1)),
    js_seq UInt64 CODEC(DoubleDelta, ZSTD(1))
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(timestamp)
ORDER BY (exchange, market_type, symbol, timestamp, last_update_id)
TTL toDateTime(timestamp) + INTERVAL 3650 DAY
SETTINGS ttl_only_drop_parts = 1;

CREATE TABLE IF NOT EXISTS marketprism_cold.orderbook_updates
(
    timestamp DateTime64(3, 'UTC') DEFAULT throwIf(1, 'timestamp is absent') CODEC(Delta, ZSTD(1)),
    exchange LowCardinality(String) DEFAULT throwIf(1, 'exchange is absent'),
    market_type LowCardinality(String) DEFAULT throwIf(1, 'market_type is absent'),
    symbol LowCardinality(String) DEFAULT throwIf(1, 'symbol is absent'),
    instrument LowCardinality(String),
    first_update_id Nullable(UInt64) CODEC(DoubleDelta, ZSTD(1)),
    last_update_id UInt64 DEFAULT throwIf(1, 'last_update_id is absent') CODEC(DoubleDelta, ZSTD(1)),
    prev_update_id Nullable(UInt64) CODEC(DoubleDelta, ZSTD(1)),
    is_snapshot Bool DEFAULT throwIf(1, 'is_snapshot is absent'),
    bids Array(Tuple(Decimal(38, 18), Decimal(38, 18))) DEFAULT [(throwIf(1, 'bids is absent'), 0)] CODEC(GCD, ZSTD(3)),
    asks Array(Tuple(Decimal(38, 18), Decimal(38, 18))) DEFAULT [(throwIf(1, 'asks is absent'), 0)] CODEC(GCD, ZSTD(3)),
    received_at DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
    created_at DateTime64(3, 'UTC') DEFAULT now64(3) CODEC(Delta, ZSTD(1)),
    data_source LowCardinality(String),
    js_epoch UInt32 CODEC(DoubleDelta, ZSTD(1)),
    js_seq UInt64 CODEC(DoubleDelta, ZSTD(1))
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(timestamp)
ORDER BY (exchange, market_type, symbol, timestamp, last_update_id, is_snapshot)
TTL toDateTime(timestamp) + INTERVAL 3650 DAY
SETTINGS ttl_only_drop_parts = 1;

CREATE TABLE IF NOT EXISTS marketprism_cold.funding_rates
(
    timestamp DateTime64(3, 'UTC') DEFAULT throwIf(1, 'timestamp is absent') CODEC(Delta, ZSTD(1)),
    exchange LowCardinality(String) DEFAULT throwIf(1, 'exchange is absent'),
    market_type LowCardinality(String) DEFAULT throwIf(1, 'market_type is absent'),
    symbol LowCardinality(String) DEFAULT throwIf(1, 'symbol is absent'),
    instrument LowCardinality(String),
    funding_rate Decimal(38, 18) DEFAULT throwIf(1, 'funding_rate is absent') CODEC(GCD, ZSTD(3)),
    funding_time Nullable(DateTime64(3, 'UTC')) CODEC(Delta, ZSTD(1)),
    next_funding_time Nullable(DateTime64(3, 'UTC')) CODEC(Delta, ZSTD(1)),
    funding_interval_hours Nullable(Decimal(38, 18)) CODEC(GCD, ZSTD(3)),
    mark_price Nullable(Decimal(38, 18)) CODEC(GCD, ZSTD(3)),
    index_price Nullable(Decimal(38, 18)) CODEC(GCD, ZSTD(3)),
    received_at DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
    created_at DateTime64(3, 'UTC') DEFAULT now64(3) CODEC(Delta, ZSTD(1)),
    data_source LowCardinality(String),
    js_epoch UInt32 CODEC(DoubleDelta, ZSTD(1)),
    js_seq UInt64 CODEC(DoubleDelta, ZSTD(1))
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(timestamp)
ORDER BY (exchange, market_type, symbol, timestamp)
TTL toDateTime(timestamp) + INTERVAL 3650 DAY
SETTINGS ttl_only_drop_parts = 1;

CREATE TABLE IF NOT EXISTS marketprism_cold.open_interests
(
    timestamp DateTime64(3, 'UTC') DEFAULT throwIf(1, 'timestamp is absent') CODEC(Delta, ZSTD(1)),
    exchange LowCardinality(String) DEFAULT throwIf(1, 'exchange is absent'),
    market_type LowCardinality(String) DEFAULT throwIf(1, 'market_type is absent'),
    symbol LowCardinality(String) DEFAULT throwIf(1, 'symbol is absent'),
    instrument LowCardinality(String),
    open_interest Decimal(38, 18) DEFAULT throwIf(1, 'open_interest is absent') CODEC(GCD, ZSTD(3)),
    open_interest_value Nullable(Decimal(38, 18)) CODEC(GCD, ZSTD(3)),
    contracts Nullable(Decimal(38, 18)) CODEC(GCD, ZSTD(3)),
    received_at DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
    created_at DateTime64(3, 'UTC') DEFAULT now64(3) CODEC(Delta, ZSTD(1)),
    data_source LowCardinality(String),
    js_epoch UInt32 CODEC(DoubleDelta, ZSTD(1)),
    js_seq UInt64 CODEC(DoubleDelta, ZSTD(1))
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(timestamp)
ORDER BY (exchange, market_type, symbol, timestamp)
TTL toDateTime(timestamp) + INTERVAL 3650 DAY
SETTINGS ttl_only_drop_parts = 1;

CREATE TABLE IF NOT EXISTS marketprism_cold.liquidations
(
    timestamp DateTime64(3, 'UTC') DEFAULT throwIf(1, 'timestamp is absent') CODEC(Delta, ZSTD(1)),
    exchange LowCardinality(String) DEFAULT throwIf(1, 'exchange is absent'),
    market_type LowCardinality(String) DEFAULT throwIf(1, 'market_type is absent'),
    symbol LowCardinality(String) DEFAULT throwIf(1, 'symbol is absent'),
    instrument LowCardinality(String),
    liquidation_id String DEFAULT throwIf(1, 'liquidation_id is absent') CODEC(ZSTD(3)),
    side Enum8('buy' = 1, 'sell' = 2) DEFAULT throwIf(1, 'side is absent'),
    price Decimal(38, 18) DEFAULT throwIf(1, 'price is absent') CODEC(GCD, ZSTD(3)),
    quantity Decimal(38, 18) DEFAULT throwIf(1, 'quantity is absent') CODEC(GCD, ZSTD(3)),
    liquidation_time DateTime64(3, 'UTC') ALIAS timestamp,
    received_at DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
    created_at DateTime64(3, 'UTC') DEFAULT now64(3) CODEC(Delta, ZSTD(1)),
    data_source LowCardinality(String),
    js_epoch UInt32 CODEC(DoubleDelta, ZSTD(1)),
    js_seq UInt64 CODEC(DoubleDelta, ZSTD(1))
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(timestamp)
ORDER BY (exchange, market_type, symbol, timestamp, liquidation_id)
TTL toDateTime(timestamp) + INTERVAL 3650 DAY
SETTINGS ttl_only_drop_parts = 1;

CREATE TABLE IF NOT EXISTS marketprism_cold.lsr_top_positions
(
    timestamp DateTime64(3, 'UTC') DEFAULT throwIf(1, 'timestamp is absent') CODEC(Delta, ZSTD(1)),
    exchange LowCardinality(String) DEFAULT throwIf(1, 'exchange is absent'),
    market_type LowCardinality(String) DEFAULT throwIf(1, 'market_type is absent'),
    symbol LowCardinality(String) DEFAULT throwIf(1, 'symbol is absent'),
    instrument LowCardinality(String),
    long_position_ratio Decimal(38, 18) DEFAULT throwIf(1, 'long_position_ratio is absent') CODEC(GCD, ZSTD(3)),
    short_position_ratio Decimal(38, 18) DEFAULT throwIf(1, 'short_position_ratio is absent') CODEC(GCD, ZSTD(3)),
    long_short_ratio Decimal(38, 18) DEFAULT throwIf(1, 'long_short_ratio is absent') CODEC(GCD, ZSTD(3)),
    period LowCardinality(String) DEFAULT throwIf(1, 'period is absent'),
    received_at DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
    created_at DateTime64(3, 'UTC') DEFAULT now64(3) CODEC(Delta, ZSTD(1)),
    data_source LowCardinality(String),
    js_epoch UInt32 CODEC(DoubleDelta, ZSTD(1)),
    js_seq UInt64 CODEC(DoubleDelta, ZSTD(1))
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(timestamp)
ORDER BY (exchange, market_type, symbol, timestamp, period)
TTL toDateTime(timestamp) + INTERVAL 3650 DAY
SETTINGS ttl_only_drop_parts = 1;

CREATE TABLE IF NOT EXISTS marketprism_cold.lsr_all_accounts
(
    timestamp DateTime64(3, 'UTC') DEFAULT throwIf(1, 'timestamp is absent') CODEC(Delta, ZSTD(1)),
    exchange LowCardinality(String) DEFAULT throwIf(1, 'exchange is absent'),
    market_type LowCardinality(String) DEFAULT throwIf(1, 'market_type is absent'),
    symbol LowCardinality(String) DEFAULT throwIf(1, 'symbol is absent'),
    instrument LowCardinality(String),
    long_account_ratio Decimal(38, 18) DEFAULT throwIf(1, 'long_account_ratio is absent') CODEC(GCD, ZSTD(3)),
    short_account_ratio Decimal(38, 18) DEFAULT throwIf(1, 'short_account_ratio is absent') CODEC(GCD, ZSTD(3)),
    long_short_ratio Decimal(38, 18) DEFAULT throwIf(1, 'long_short_ratio is absent') CODEC(GCD, ZSTD(3)),
    period LowCardinality(String) DEFAULT throwIf(1, 'period is absent'),
    received_at DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
    created_at DateTime64(3, 'UTC') DEFAULT now64(3) CODEC(Delta, ZSTD(1)),
    data_source LowCardinality(String),
    js_epoch UInt32 CODEC(DoubleDelta, ZSTD(1)),
    js_seq UInt64 CODEC(DoubleDelta, ZSTD(1))
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(timestamp)
ORDER BY (exchange, market_type, symbol, timestamp, period)
TTL toDateTime(timestamp) + INTERVAL 3650 DAY
SETTINGS ttl_only_drop_parts = 1;

CREATE TABLE IF NOT EXISTS marketprism_cold.volatility_indices
(
    timestamp DateTime64(3, 'UTC') DEFAULT throwIf(1, 'timestamp is absent') CODEC(Delta, ZSTD(1)),
    exchange LowCardinality(String) DEFAULT throwIf(1, 'exchange is absent'),
    market_type LowCardinality(String) DEFAULT throwIf(1, 'market_type is absent'),
    symbol LowCardinality(String) DEFAULT throwIf(1, 'symbol is absent'),
    instrument LowCardinality(String),
    index_value Decimal(38, 18) DEFAULT throwIf(1, 'index_value is absent') CODEC(GCD, ZSTD(3)),
    underlying_asset LowCardinality(String) DEFAULT throwIf(1, 'underlying_asset is absent'),
    maturity_date Nullable(Date),
    resolution LowCardinality(String) DEFAULT throwIf(1, 'resolution is absent'),
    received_at DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
    created_at DateTime64(3, 'UTC') DEFAULT now64(3) CODEC(Delta, ZSTD(1)),
    data_source LowCardinality(String),
    js_epoch UInt32 CODEC(DoubleDelta, ZSTD(1)),
    js_seq UInt64 CODEC(DoubleDelta, ZSTD(1))
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(timestamp)
ORDER BY (exchange, market_type, symbol, timestamp, resolution)
TTL toDateTime(timestamp) + INTERVAL 3650 DAY
SETTINGS ttl_only_drop_parts = 1;

CREATE TABLE IF NOT EXISTS marketprism_cold.gaps
(
    timestamp DateTime64(3, 'UTC') DEFAULT throwIf(1, 'timestamp is absent') CODEC(Delta, ZSTD(1)),
    exchange LowCardinality(String) DEFAULT throwIf(1, 'exchange is absent'),
    market_type LowCardinality(String) DEFAULT throwIf(1, 'market_type is absent'),
    symbol LowCardinality(String) DEFAULT throwIf(1, 'symbol is absent'),
    instrument LowCardinality(String),
    gap_id String DEFAULT throwIf(1, 'gap_id is absent') CODEC(ZSTD(3)),
    data_type LowCardinality(String) DEFAULT throwIf(1, 'data_type is absent'),
    from_id String DEFAULT throwIf(1, 'from_id is absent') CODEC(ZSTD(3)),
    to_id String DEFAULT throwIf(1, 'to_id is absent') CODEC(ZSTD(3)),
    from_time DateTime64(3, 'UTC') DEFAULT throwIf(1, 'from_time is absent') CODEC(Delta, ZSTD(1)),
    to_time DateTime64(3, 'UTC') DEFAULT throwIf(1, 'to_time is absent') CODEC(Delta, ZSTD(1)),
    cause LowCardinality(String) DEFAULT throwIf(1, 'cause is absent'),
    reason Nullable(String) CODEC(ZSTD(3)),
    status Enum8('open' = 1, 'filled' = 2, 'unfillable' = 3) DEFAULT throwIf(1, 'status is absent'),
    rows Nullable(UInt64) CODEC(DoubleDelta, ZSTD(1)),
    filled_rows Nullable(UInt64) CODEC(DoubleDelta, ZSTD(1)),
    detected_at DateTime64(3, 'UTC') DEFAULT throwIf(1, 'detected_at is absent') CODEC(Delta, ZSTD(1)),
    closed_at Nullable(DateTime64(3, 'UTC')) CODEC(Delta, ZSTD(1)),
    received_at DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
    created_at DateTime64(3, 'UTC') DEFAULT now64(3) CODEC(Delta, ZSTD(1)),
    data_source LowCardinality(String),
    js_epoch UInt32 CODEC(DoubleDelta, ZSTD(1)),
    js_seq UInt64 CODEC(DoubleDelta, ZSTD(1))
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(timestamp)
ORDER BY (exchange, market_type, symbol, timestamp, gap_id, status)
TTL toDateTime(timestamp) + INTERVAL 3650 DAY
SETTINGS ttl_only_drop_parts = 1;

CREATE TABLE IF NOT EXISTS marketprism_cold.replication_progress
(
    table_name LowCardinality(String),
    js_epoch UInt32,
    after_seq UInt64,
    upto_seq UInt64,
    window_rows UInt64,
    copied_rows UInt64,
    window_hash UInt64,
    recorded_at DateTime64(3, 'UTC') DEFAULT now64(3)
)
ENGINE = MergeTree
ORDER BY (table_name, js_epoch, upto_seq)
TTL toDateTime(recorded_at) + INTERVAL 8 DAY;

CREATE TABLE IF NOT EXISTS marketprism_cold.schema_migrations
(
    version UInt32,
    name String,
    applied_at DateTime64(3, 'UTC') DEFAULT now64(3),
    by String
)
ENGINE = MergeTree
ORDER BY (version, applied_at);
