/** Instruments beyond pairs: configured by the venues' own ids, and from recorded sessions to hot. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { EXCHANGE_MODULES } from '../scripts/exchanges/index.ts';
import { UsageError } from '../scripts/lib/cli.ts';
import { loadConfig } from '../scripts/lib/config.ts';
import { ExchangeRunner } from '../scripts/lib/exchange_runner.ts';
import { createLogger } from '../scripts/lib/log.ts';
import { waitFor } from '../scripts/lib/processes.ts';
import type { Exchange } from '../scripts/lib/rows.ts';
import { missing, SHARED } from './fixtures.ts';
import { Pipeline, READY_MS } from './pipeline.ts';

describe('MARKETPRISM_INSTRUMENTS', () => {
  test('names an exchange and one of its ids, else says so', () => {
    const text = 'okx_derivatives:BTC-USD-261225-60000-C, deribit_derivatives:BTC-27MAR26';
    assert.deepEqual(loadConfig({ MARKETPRISM_INSTRUMENTS: text }).instruments, [
      { exchange: 'okx_derivatives', id: 'BTC-USD-261225-60000-C' },
      { exchange: 'deribit_derivatives', id: 'BTC-27MAR26' },
    ]);
    for (const wrong of ['BTC-27MAR26', 'kraken:BTC', 'okx_spot:']) {
      assert.throws(() => loadConfig({ MARKETPRISM_INSTRUMENTS: wrong }), /^UsageError: MARKETPRISM_INSTRUMENTS/);
    }
  });

  test('takes dated futures and options of OKX and Deribit for what they are', () => {
    const of = (exchange: Exchange, id: string) => {
      const { market_type, symbol, instrument } = EXCHANGE_MODULES[exchange]!.instrumentOf(id);
      assert.equal(instrument, id);
      return `${market_type} ${symbol}`;
    };
    assert.equal(of('okx_derivatives', 'BTC-USD-261225-60000-C'), 'options BTC-USD-261225-60000-C');
    assert.equal(of('okx_derivatives', 'BTC-USD-261225'), 'futures BTC-USD-261225');
    assert.equal(of('okx_derivatives', 'UNI-USD-SWAP'), 'perpetual UNI-USD');
    assert.equal(of('deribit_derivatives', 'BTC-27MAR26'), 'futures BTC-27MAR26');
    assert.equal(of('deribit_derivatives', 'ETH-27MAR26-3000-P'), 'options ETH-27MAR26-3000-P');
    assert.equal(of('binance_derivatives', 'BTCUSDT_261225'), 'futures BTCUSDT_261225');
    assert.equal(of('hyperliquid', 'kPEPE'), 'perpetual kPEPE-USDC');
  });

  const start = (exchange: Exchange, env: NodeJS.ProcessEnv) => () => {
    const sink = {
      batcher: null as never,
      rowsWait: () => undefined,
      lastRows: async () => [],
      isFollowedByOthers: async () => false,
    };
    const hooks = { bookFrame: () => undefined, request: () => undefined };
    return new ExchangeRunner(
      EXCHANGE_MODULES[exchange]!,
      loadConfig(env),
      sink,
      hooks,
      createLogger('test', 'silent'),
    );
  };

  test('an id that is none of the venue’s is told before anything is opened', () => {
    assert.throws(
      start('deribit_derivatives', { MARKETPRISM_INSTRUMENTS: 'deribit_derivatives:what?' }),
      (error) =>
        error instanceof UsageError && /^MARKETPRISM_INSTRUMENTS: deribit_derivatives:what\?: /.test(error.message),
    );
    assert.throws(start('okx_spot', { MARKETPRISM_INSTRUMENTS: 'okx_spot:BTC-USD-SWAP' }), UsageError);
  });

  test('more than a venue allows from one address is told, with the numbers', () => {
    const symbols = Array.from({ length: 400 }, (_, index) => `C${index}-USDT`).join(',');
    assert.throws(
      start('hyperliquid', { MARKETPRISM_SYMBOLS: symbols }),
      /^UsageError: hyperliquid allows 1000 subscriptions from one address, and 1200 would be needed/,
    );
  });
});

describe('recorded sessions of futures, options and inverse swaps, from the simulated venue to hot', () => {
  const OKX = join(SHARED, 'cryptofeed', 'okx', 'OKX.ws.1.0');
  const DERIBIT = join(SHARED, 'cryptofeed', 'deribit', 'DERIBIT.ws.1.0');

  /** Replays a session until nothing new comes. @returns what `use` makes of the stored rows */
  async function replay(
    exchange: Exchange,
    file: string,
    env: NodeJS.ProcessEnv,
    use: (pipeline: Pipeline) => Promise<void>,
  ): Promise<void> {
    const pipeline = new Pipeline({ MARKETPRISM_EXCHANGES: exchange, MARKETPRISM_ORDERBOOK_INTERVAL: '0s', ...env });
    try {
      await pipeline.choosePorts();
      await pipeline.startBroker();
      await pipeline.startDatabase();
      await pipeline.startSimulator(['--replay', file, '--exchange', exchange]);
      await pipeline.startStore();
      await pipeline.startCollector();
      await waitFor('the end of the session', READY_MS, async () => (await pipeline.ledger()).replay_done === true);
      await pipeline.settled();
      await use(pipeline);
    } finally {
      await pipeline.close();
    }
  }

  test('OKX: a dated future and an inverse swap, in base units', { skip: missing(OKX) }, () =>
    replay(
      'okx_derivatives',
      OKX,
      { MARKETPRISM_SYMBOLS: 'UNI-USD', MARKETPRISM_INSTRUMENTS: 'okx_derivatives:BTC-USD-220527' },
      async (pipeline) => {
        const books = await pipeline.query(
          'SELECT market_type, symbol, count(), countIf(is_snapshot) FROM marketprism_hot.orderbook_updates GROUP BY ALL ORDER BY ALL',
        );
        assert.deepEqual(
          books.map(([type, symbol, , snapshots]) => [type, symbol, snapshots]),
          [
            ['futures', 'BTC-USD-220527', '1'],
            ['perpetual', 'UNI-USD', '1'],
          ],
        );
        const [[verified, all] = []] = await pipeline.query(
          "SELECT countIf(verified = 'verified'), count() FROM marketprism_hot.orderbooks",
        );
        assert.equal(verified, all, 'the recorded checksums hold for every book');
        assert.ok(Number(all) > 100, `${all} books`);
        const [[far, trades] = []] = await pipeline.query(
          "SELECT countIf(abs(toFloat64(quantity) * toFloat64(price) / 100 - round(toFloat64(quantity) * toFloat64(price) / 100)) > 1e-9), count() FROM marketprism_hot.trades WHERE symbol = 'BTC-USD-220527'",
        );
        assert.ok(Number(trades) > 0);
        assert.equal(far, '0', 'each trade is a whole number of contracts of 100 USD');
        assert.deepEqual(pipeline.events('collector', 'resync'), []);
      },
    ),
  );

  test('Deribit: ten options, whose changes chain', { skip: missing(DERIBIT) }, () => {
    const ids = [
      'BTC-24SEP21-8000-P',
      'BTC-30JUL21-24000-P',
      'ETH-30JUL21-2800-C',
      'BTC-31DEC21-34000-P',
      'BTC-24SEP21-34000-P',
      'BTC-24JUN22-15000-C',
      'BTC-31DEC21-300000-C',
      'ETH-27AUG21-4000-P',
      'BTC-25MAR22-30000-C',
      'ETH-23JUL21-2300-C',
    ];
    const instruments = ids.map((id) => `deribit_derivatives:${id}`).join(',');
    return replay(
      'deribit_derivatives',
      DERIBIT,
      { MARKETPRISM_SYMBOLS: 'SOL-USDT', MARKETPRISM_INSTRUMENTS: instruments },
      async (pipeline) => {
        const [[snapshots, changes, symbols] = []] = await pipeline.query(
          "SELECT countIf(is_snapshot), countIf(NOT is_snapshot), uniqExact(symbol) FROM marketprism_hot.orderbook_updates WHERE market_type = 'options'",
        );
        assert.deepEqual([snapshots, changes, symbols], ['10', '36', '10']);
        const [[interests] = []] = await pipeline.query(
          "SELECT uniqExact(symbol) FROM marketprism_hot.open_interests WHERE market_type = 'options'",
        );
        assert.equal(interests, '10');
        assert.deepEqual(pipeline.events('collector', 'resync'), []);
      },
    );
  });
});
