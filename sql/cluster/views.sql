-- Made from scripts/lib/rows.ts by `npm run sql`; a test compares the two. Do not edit here.

CREATE DATABASE IF NOT EXISTS marketprism ON CLUSTER '{cluster}';

CREATE OR REPLACE VIEW marketprism.trades ON CLUSTER '{cluster}' AS
SELECT timestamp, exchange, market_type, symbol, instrument, trade_id, sequence, price, quantity, side, is_maker, trade_time, received_at, created_at, data_source, js_epoch, js_seq FROM marketprism_cold.trades WHERE (js_epoch, js_seq) <= (SELECT max((js_epoch, upto_seq)) FROM marketprism_cold.replication_progress WHERE table_name = 'trades')
UNION ALL
SELECT timestamp, exchange, market_type, symbol, instrument, trade_id, sequence, price, quantity, side, is_maker, trade_time, received_at, created_at, data_source, js_epoch, js_seq FROM marketprism_hot.trades WHERE (js_epoch, js_seq) > (SELECT max((js_epoch, upto_seq)) FROM marketprism_cold.replication_progress WHERE table_name = 'trades')
COMMENT '629dd162be2b0de0';

CREATE OR REPLACE VIEW marketprism.orderbooks ON CLUSTER '{cluster}' AS
SELECT timestamp, exchange, market_type, symbol, instrument, last_update_id, bids_count, asks_count, best_bid_price, best_bid_quantity, best_ask_price, best_ask_quantity, bids, asks, verified, received_at, created_at, data_source, js_epoch, js_seq FROM marketprism_cold.orderbooks WHERE (js_epoch, js_seq) <= (SELECT max((js_epoch, upto_seq)) FROM marketprism_cold.replication_progress WHERE table_name = 'orderbooks')
UNION ALL
SELECT timestamp, exchange, market_type, symbol, instrument, last_update_id, bids_count, asks_count, best_bid_price, best_bid_quantity, best_ask_price, best_ask_quantity, bids, asks, verified, received_at, created_at, data_source, js_epoch, js_seq FROM marketprism_hot.orderbooks WHERE (js_epoch, js_seq) > (SELECT max((js_epoch, upto_seq)) FROM marketprism_cold.replication_progress WHERE table_name = 'orderbooks')
COMMENT '558885012d56b26d';

CREATE OR REPLACE VIEW marketprism.orderbook_updates ON CLUSTER '{cluster}' AS
SELECT timestamp, exchange, market_type, symbol, instrument, first_update_id, last_update_id, prev_update_id, is_snapshot, bids, asks, received_at, created_at, data_source, js_epoch, js_seq FROM marketprism_cold.orderbook_updates WHERE (js_epoch, js_seq) <= (SELECT max((js_epoch, upto_seq)) FROM marketprism_cold.replication_progress WHERE table_name = 'orderbook_updates')
UNION ALL
SELECT timestamp, exchange, market_type, symbol, instrument, first_update_id, last_update_id, prev_update_id, is_snapshot, bids, asks, received_at, created_at, data_source, js_epoch, js_seq FROM marketprism_hot.orderbook_updates WHERE (js_epoch, js_seq) > (SELECT max((js_epoch, upto_seq)) FROM marketprism_cold.replication_progress WHERE table_name = 'orderbook_updates')
COMMENT '136ce9cd2e1d8e5a';

CREATE OR REPLACE VIEW marketprism.funding_rates ON CLUSTER '{cluster}' AS
SELECT timestamp, exchange, market_type, symbol, instrument, funding_rate, funding_time, next_funding_time, funding_interval_hours, mark_price, index_price, received_at, created_at, data_source, js_epoch, js_seq FROM marketprism_cold.funding_rates WHERE (js_epoch, js_seq) <= (SELECT max((js_epoch, upto_seq)) FROM marketprism_cold.replication_progress WHERE table_name = 'funding_rates')
UNION ALL
SELECT timestamp, exchange, market_type, symbol, instrument, funding_rate, funding_time, next_funding_time, funding_interval_hours, mark_price, index_price, received_at, created_at, data_source, js_epoch, js_seq FROM marketprism_hot.funding_rates WHERE (js_epoch, js_seq) > (SELECT max((js_epoch, upto_seq)) FROM marketprism_cold.replication_progress WHERE table_name = 'funding_rates')
COMMENT 'b84ce7083440489a';

CREATE OR REPLACE VIEW marketprism.open_interests ON CLUSTER '{cluster}' AS
SELECT timestamp, exchange, market_type, symbol, instrument, open_interest, open_interest_value, contracts, received_at, created_at, data_source, js_epoch, js_seq FROM marketprism_cold.open_interests WHERE (js_epoch, js_seq) <= (SELECT max((js_epoch, upto_seq)) FROM marketprism_cold.replication_progress WHERE table_name = 'open_interests')
UNION ALL
SELECT timestamp, exchange, market_type, symbol, instrument, open_interest, open_interest_value, contracts, received_at, created_at, data_source, js_epoch, js_seq FROM marketprism_hot.open_interests WHERE (js_epoch, js_seq) > (SELECT max((js_epoch, upto_seq)) FROM marketprism_cold.replication_progress WHERE table_name = 'open_interests')
COMMENT 'fd9c861975008a43';

CREATE OR REPLACE VIEW marketprism.liquidations ON CLUSTER '{cluster}' AS
SELECT timestamp, exchange, market_type, symbol, instrument, liquidation_id, side, price, quantity, liquidation_time, received_at, created_at, data_source, js_epoch, js_seq FROM marketprism_cold.liquidations WHERE (js_epoch, js_seq) <= (SELECT max((js_epoch, upto_seq)) FROM marketprism_cold.replication_progress WHERE table_name = 'liquidations')
UNION ALL
SELECT timestamp, exchange, market_type, symbol, instrument, liquidation_id, side, price, quantity, liquidation_time, received_at, created_at, data_source, js_epoch, js_seq FROM marketprism_hot.liquidations WHERE (js_epoch, js_seq) > (SELECT max((js_epoch, upto_seq)) FROM marketprism_cold.replication_progress WHERE table_name = 'liquidations')
COMMENT 'e26157f017b90772';

CREATE OR REPLACE VIEW marketprism.lsr_top_positions ON CLUSTER '{cluster}' AS
SELECT timestamp, exchange, market_type, symbol, instrument, long_position_ratio, short_position_ratio, long_short_ratio, period, received_at, created_at, data_source, js_epoch, js_seq FROM marketprism_cold.lsr_top_positions WHERE (js_epoch, js_seq) <= (SELECT max((js_epoch, upto_seq)) FROM marketprism_cold.replication_progress WHERE table_name = 'lsr_top_positions')
UNION ALL
SELECT timestamp, exchange, market_type, symbol, instrument, long_position_ratio, short_position_ratio, long_short_ratio, period, received_at, created_at, data_source, js_epoch, js_seq FROM marketprism_hot.lsr_top_positions WHERE (js_epoch, js_seq) > (SELECT max((js_epoch, upto_seq)) FROM marketprism_cold.replication_progress WHERE table_name = 'lsr_top_positions')
COMMENT '6460479fb93c079f';

CREATE OR REPLACE VIEW marketprism.lsr_all_accounts ON CLUSTER '{cluster}' AS
SELECT timestamp, exchange, market_type, symbol, instrument, long_account_ratio, short_account_ratio, long_short_ratio, period, received_at, created_at, data_source, js_epoch, js_seq FROM marketprism_cold.lsr_all_accounts WHERE (js_epoch, js_seq) <= (SELECT max((js_epoch, upto_seq)) FROM marketprism_cold.replication_progress WHERE table_name = 'lsr_all_accounts')
UNION ALL
SELECT timestamp, exchange, market_type, symbol, instrument, long_account_ratio, short_account_ratio, long_short_ratio, period, received_at, created_at, data_source, js_epoch, js_seq FROM marketprism_hot.lsr_all_accounts WHERE (js_epoch, js_seq) > (SELECT max((js_epoch, upto_seq)) FROM marketprism_cold.replication_progress WHERE table_name = 'lsr_all_accounts')
COMMENT '7f79e3c9cf6c5d86';

CREATE OR REPLACE VIEW marketprism.volatility_indices ON CLUSTER '{cluster}' AS
SELECT timestamp, exchange, market_type, symbol, instrument, index_value, underlying_asset, maturity_date, resolution, received_at, created_at, data_source, js_epoch, js_seq FROM marketprism_cold.volatility_indices WHERE (js_epoch, js_seq) <= (SELECT max((js_epoch, upto_seq)) FROM marketprism_cold.replication_progress WHERE table_name = 'volatility_indices')
UNION ALL
SELECT timestamp, exchange, market_type, symbol, instrument, index_value, underlying_asset, maturity_date, resolution, received_at, created_at, data_source, js_epoch, js_seq FROM marketprism_hot.volatility_indices WHERE (js_epoch, js_seq) > (SELECT max((js_epoch, upto_seq)) FROM marketprism_cold.replication_progress WHERE table_name = 'volatility_indices')
COMMENT '73b1c52266194bfa';

CREATE OR REPLACE VIEW marketprism.gaps ON CLUSTER '{cluster}' AS
SELECT timestamp, exchange, market_type, symbol, instrument, gap_id, data_type, from_id, to_id, from_time, to_time, cause, reason, status, rows, filled_rows, detected_at, closed_at, received_at, created_at, data_source, js_epoch, js_seq FROM marketprism_cold.gaps WHERE (js_epoch, js_seq) <= (SELECT max((js_epoch, upto_seq)) FROM marketprism_cold.replication_progress WHERE table_name = 'gaps')
UNION ALL
SELECT timestamp, exchange, market_type, symbol, instrument, gap_id, data_type, from_id, to_id, from_time, to_time, cause, reason, status, rows, filled_rows, detected_at, closed_at, received_at, created_at, data_source, js_epoch, js_seq FROM marketprism_hot.gaps WHERE (js_epoch, js_seq) > (SELECT max((js_epoch, upto_seq)) FROM marketprism_cold.replication_progress WHERE table_name = 'gaps')
COMMENT '4bdcfd4444a6f6d1';
