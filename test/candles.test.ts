/** Volumes of stored trades against the candles of all six simulated venues: equal where nothing is wrong, and another unit is seen. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { candles } from '../scripts/lib/checks/candles.ts';
import { type Context, NotApplicable } from '../scripts/lib/checks/check.ts';
import { LIMITS } from '../scripts/lib/checks/limits.ts';
import { loadConfig } from '../scripts/lib/config.ts';
import { waitFor } from '../scripts/lib/processes.ts';
import { EXCHANGES } from '../scripts/lib/rows.ts';
import { Pipeline, READY_MS } from './pipeline.ts';

/** Of the venues' time, so that there are whole minutes. */
const SKIPPED_SECONDS = 420;
const TRADES_PER_SECOND = 3;

describe('candles', () => {
  const pipeline = new Pipeline({ MARKETPRISM_EXCHANGES: EXCHANGES.join(',') });
  before(async () => {
    await pipeline.choosePorts();
    await pipeline.startBroker();
    await pipeline.startDatabase();
    await pipeline.startSimulator(['--trades-per-second', String(TRADES_PER_SECOND), '--diffs-per-second', '1']);
    await pipeline.startStore();
    await pipeline.startCollector();
    const count = 'SELECT exchange, symbol, count() FROM marketprism_hot.trades GROUP BY exchange, symbol';
    const streams = (least: number) =>
      waitFor('trades of all streams', READY_MS, async () => {
        const rows = await pipeline.query(count);
        return rows.length === EXCHANGES.length * 2 && rows.every(([, , rowCount]) => Number(rowCount) > least);
      });
    await streams(0);
    for (const exchange of EXCHANGES) await pipeline.simulate({ action: 'skip', exchange, seconds: SKIPPED_SECONDS });
    await streams(SKIPPED_SECONDS * TRADES_PER_SECOND * 0.5);
    await pipeline.simulate({ action: 'stop' });
    await pipeline.settled();
  });
  after(() => pipeline.close());

  /** As asked when the venues' time is over. */
  async function ask(changed: Partial<Context> = {}) {
    const now = Date.now() + SKIPPED_SECONDS * 1000;
    const client = pipeline.client();
    const config = loadConfig(pipeline.operatorEnv);
    const span = { from: now - 3_600_000, to: now };
    return candles.ask({ config, hot: client, cold: client, now, limits: LIMITS.parse({}), ...span, ...changed });
  }
  const run = (query: string) => pipeline.client().command({ query });

  test('say the same as the trades of each venue, in coins also where contracts are traded', async () => {
    const { figure, findings } = await ask({ limits: LIMITS.parse({ volume_off_percent: 0.000001 }) });
    assert.deepEqual(findings, []);
    const [, streams, minutes] = /^(\d+) streams, (\d+) minutes$/.exec(figure)!.map(Number) as [number, number, number];
    assert.equal(streams, EXCHANGES.length * 2);
    assert.ok(minutes >= streams * 3, figure);
  });

  test('tell a stream in another unit in whatever venue, and one whose trades are missing', async () => {
    const seen: string[] = [];
    for (const exchange of EXCHANGES) {
      await run(
        `ALTER TABLE marketprism_hot.trades UPDATE quantity = quantity * 10 WHERE exchange = '${exchange}' AND symbol LIKE 'ETH-%' SETTINGS mutations_sync = 2`,
      );
      const { findings } = await ask();
      await run(
        `ALTER TABLE marketprism_hot.trades UPDATE quantity = quantity / 10 WHERE exchange = '${exchange}' AND symbol LIKE 'ETH-%' SETTINGS mutations_sync = 2`,
      );
      seen.push(...findings.map(({ kind, severity, subject }) => `${kind} ${severity} ${subject.split(' ')[1]}`));
    }
    assert.deepEqual(
      seen,
      EXCHANGES.map((exchange) => `other_volume high ${exchange}`),
    );
    await run(
      "DELETE FROM marketprism_hot.trades WHERE exchange = 'okx_spot' AND symbol = 'BTC-USDT' AND cityHash64(trade_id) % 10 = 0",
    );
    const { findings } = await ask();
    assert.deepEqual(
      findings.map(({ kind, severity, subject }) => [kind, severity, subject]),
      [['other_volume', 'medium', 'trade okx_spot spot BTC-USDT']],
    );
    assert.match(findings[0]!.what, /^\d+\.\d+ traded by our rows, \d+\.\d+ by the venue’s candles$/);
  });

  test('are not compared in minutes of which a gap is known', async () => {
    await run(
      "INSERT INTO marketprism_hot.gaps SELECT timestamp, exchange, market_type, symbol, instrument, 'g' AS gap_id, 'trade' AS data_type, '5' AS from_id, '7' AS to_id, timestamp - INTERVAL 20 MINUTE AS from_time, timestamp AS to_time, 'missing_ids' AS cause, NULL AS reason, 'open' AS status, 3 AS rows, NULL AS filled_rows, now64(3) AS detected_at, NULL AS closed_at, received_at, created_at, data_source, js_epoch, js_seq FROM marketprism_hot.trades WHERE exchange = 'okx_spot' AND symbol = 'BTC-USDT' ORDER BY timestamp DESC LIMIT 1",
    );
    assert.deepEqual((await ask()).findings, []);
  });

  test('are compared from the first one on that the venue keeps', async () => {
    // Half an hour before anything was traded there.
    await run(
      "INSERT INTO marketprism_hot.trades SELECT * REPLACE(timestamp - INTERVAL 30 MINUTE AS timestamp, concat('old', trade_id) AS trade_id) FROM marketprism_hot.trades WHERE exchange = 'binance_spot'",
    );
    // The minute in which the collector was started is not whole.
    const { findings } = await ask({ limits: LIMITS.parse({ volume_off_percent: 10 }) });
    await run("DELETE FROM marketprism_hot.trades WHERE startsWith(trade_id, 'old')");
    assert.deepEqual(findings, []);
  });

  test('of a venue that does not answer are no answer, and of a demo without a venue not asked for', async () => {
    const config = loadConfig(pipeline.operatorEnv);
    const demo = { ...config, mode: 'demo' as const, endpoints: {} };
    await assert.rejects(
      ask({ config: demo }),
      (error) => error instanceof NotApplicable && /a demo has no venue/.test(error.message),
    );
    const away = { ...config.endpoints, okx_spot: { ws: 'ws://127.0.0.1:9', rest: 'http://127.0.0.1:9' } };
    await assert.rejects(
      ask({ config: { ...config, endpoints: away } }),
      /^Error: okx_spot does not answer: ECONNREFUSED$/,
    );
    await assert.rejects(
      ask({ to: Date.now() - 3_600_000 * 5, from: Date.now() - 3_600_000 * 6 }),
      /no trades of whole minutes/,
    );
  });
});
