/**
 * Readings that were missed while nobody was there, for half a day: the last rows of an earlier run are in hot, a collector is started, and
 * killed while it fetches. Each hole is told with its exact range, and what the venues serve of it is fetched back, once.
 */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { headers } from 'nats';
import { exchangeModule } from '../scripts/exchanges/index.ts';
import { MODE_HEADER, ROWS_HEADER } from '../scripts/lib/jetstream.ts';
import { waitFor } from '../scripts/lib/processes.ts';
import { seriesOf } from '../scripts/lib/reading_holes.ts';
import { type Exchange, encodeRow } from '../scripts/lib/rows.ts';
import { subjectOf } from '../scripts/lib/streams.ts';
import { checkReadings, earlierRow } from './gap_checks.ts';
import { Pipeline, READY_MS } from './pipeline.ts';

const VENUES = ['binance_derivatives', 'okx_derivatives', 'deribit_derivatives', 'hyperliquid'] as const;
const HOUR_MS = 3_600_000;
/** Past a settlement of every venue. */
const AWAY_MS = 12 * HOUR_MS;
/** Candles of the last 15 hours are asked for at each start. */
const CANDLES_AWAY_MS = 20 * HOUR_MS;
const FILL_MS = 300_000;

describe('readings that nobody was there to receive', () => {
  const pipeline = new Pipeline({
    MARKETPRISM_EXCHANGES: VENUES.join(','),
    MARKETPRISM_SYMBOLS: 'BTC-USDT',
    MARKETPRISM_GAP_AGE: '3s',
  });
  const series = seriesOf(VENUES);

  before(async () => {
    await pipeline.choosePorts();
    await pipeline.startBroker();
    await pipeline.startDatabase();
    await pipeline.startSimulator(['--symbols', 'BTC-USDT', '--trades-per-second', '2', '--diffs-per-second', '2']);
    await pipeline.startStore();
  });
  after(() => pipeline.close());

  /** Puts the last row of each series into JetStream, as an earlier run had. */
  async function publishEarlier(): Promise<void> {
    const nats = await pipeline.nats();
    for (const { exchange, series: each } of series) {
      const module = exchangeModule(exchange);
      const marketType = each.marketTypes?.[0] ?? 'perpetual';
      const instrument = module.instrument('BTC-USDT', marketType);
      const away = each.type === 'volatility_index' ? CANDLES_AWAY_MS : AWAY_MS;
      const time = Math.floor((Date.now() - away) / each.stepMs) * each.stepMs;
      const { type, row } = earlierRow(instrument, each, time);
      const { market_type, symbol } = instrument;
      const head = headers();
      head.set(MODE_HEADER, 'live');
      head.set(ROWS_HEADER, '1');
      const subject = subjectOf({ type, exchange: exchange as Exchange, market_type, symbol });
      await nats.jetstream().publish(subject, encodeRow(type, row), { headers: head });
    }
    await nats.close();
  }

  test('are told as gaps, and fetched back as far as the venues serve them, over a kill of the collector', async (context) => {
    await publishEarlier();
    await pipeline.startCollector();
    const open = async () =>
      Number((await pipeline.query("SELECT count() FROM marketprism_hot.gaps_now WHERE status = 'open'"))[0]![0]);
    const told = async () =>
      Number(
        (
          await pipeline.query(
            "SELECT uniqExact((exchange, data_type)) FROM marketprism_hot.gaps_now WHERE data_type NOT IN ('trade', 'orderbook_update', 'liquidation')",
          )
        )[0]![0],
      );
    const fetched = async () =>
      Number(
        (
          await pipeline.query(
            "SELECT count() FROM marketprism_hot.lsr_all_accounts WHERE data_source LIKE 'backfill:%'",
          )
        )[0]![0],
      );
    await waitFor('the first fetched rows', READY_MS, async () => (await fetched()) > 0);
    await pipeline.kill('collector');
    // Of trades, books and liquidations only the kill may have cost some.
    await waitFor('a gap of every series', READY_MS, async () => (await told()) === series.length);
    await waitFor('none to be open', FILL_MS, async () => (await open()) === 0);
    await pipeline.stop('collector');
    await pipeline.drained();
    // What came last is looked at once more.
    await new Promise((done) => setTimeout(done, 5000));
    const counts = await checkReadings(pipeline, VENUES);
    context.diagnostic([...counts].map(([name, count]) => `${name} ${count}`).join(', '));
    for (const { exchange, series: each } of series) {
      assert.ok(counts.get(`${exchange} ${each.type}`)! >= 1, `${exchange} ${each.type} has its gap`);
    }
  });

  test('the cause is downtime, and what a venue only keeps in part is told so', async () => {
    // The kill may have cost some trades, diffs and liquidations that were on their way; that is no downtime.
    const causes = await pipeline.query(
      "SELECT DISTINCT cause FROM marketprism_hot.gaps_now WHERE data_type NOT IN ('trade', 'orderbook_update', 'liquidation') ORDER BY cause",
    );
    assert.deepEqual(causes.flat(), ['downtime']);
    const [[reason, filled] = []] = await pipeline.query(
      "SELECT reason, filled_rows FROM marketprism_hot.gaps_now WHERE exchange = 'binance_derivatives' AND data_type = 'funding_rate'",
    );
    assert.match(
      reason!,
      /^the history of the venue has \d+ of these 7\d\d rows: it keeps only the rates that were settled$/,
    );
    assert.ok(Number(filled) >= 1, `${filled} settlements in 12 hours`);
  });
});
