/** Hot → cold: generated trades of 20 symbols in the embedded engine, copied and compared. */
import { createLogger } from '../../scripts/lib/log.ts';
import { replications } from '../../scripts/lib/replication.ts';
import { ensureTier } from '../../scripts/lib/schema.ts';
import { withDatabase } from './flow.ts';
import { atLeast, atMost, type Suite } from './suite.ts';

/** A third of an hour at 10,000 rows a second. */
const ROWS = 12_000_000;
/** Of `madeTrades`. */
export const ROWS_PER_INSERT = 1_000_000;
const ROWS_PER_MESSAGE = 50;
/** An hour at 10,000 rows a second in two minutes. */
const GOAL_ROWS_PER_S = 300_000;
/** The bridge's own limit is shorter. */
const REQUEST_TIMEOUT_MS = 120_000;

const COLUMNS =
  'timestamp, exchange, market_type, symbol, instrument, trade_id, sequence, price, quantity, side, is_maker, received_at, data_source, js_epoch, js_seq';

/** The statement that makes the trades of 20 symbols S0-USDT … from number `from` on, ten a millisecond. */
export function madeTrades(from: number): string {
  const values = [
    "fromUnixTimestamp64Milli(toInt64(1795000000000 + intDiv(number, 10)), 'UTC')",
    "'binance_spot'",
    "'spot'",
    "concat('S', toString(number % 20), '-USDT')",
    "concat('S', toString(number % 20), 'USDT')",
    'toString(number)',
    'NULL',
    'toDecimal64(50000 + rand(1) % 1000, 2)',
    'toDecimal64((1 + rand(2) % 1000) / 1000, 3)',
    "if(rand(3) % 2 = 0, 'buy', 'sell')",
    'rand(3) % 2 = 1',
    "fromUnixTimestamp64Micro(toInt64(1795000000000000 + number * 100), 'UTC')",
    "'live'",
    '1',
    `1 + intDiv(number, ${ROWS_PER_MESSAGE})`,
  ];
  return `INSERT INTO marketprism_hot.trades (${COLUMNS}) SELECT ${values.join(', ')} FROM numbers(${from}, ${ROWS_PER_INSERT})`;
}

export const replicateSuite: Suite = {
  name: 'replicate',
  async run(say) {
    return withDatabase(async (client) => {
      const [hot, cold] = [
        { client, database: 'marketprism_hot' },
        { client, database: 'marketprism_cold' },
      ];
      await ensureTier(client, 'hot', hot.database);
      await ensureTier(client, 'cold', cold.database);
      say(`replicate: making ${ROWS} trades …`);
      for (let from = 0; from < ROWS; from += ROWS_PER_INSERT) await client.command({ query: madeTrades(from) });
      const replication = replications({ hot, cold, isOneServer: true, log: createLogger('bench', 'fatal') }).find(
        ({ type }) => type === 'trade',
      )!;
      const settled = [{ epoch: 1, seq: ROWS / ROWS_PER_MESSAGE }];
      say('replicate: copying and comparing …');
      const seconds = await timed(() => replication.run(settled, Number.POSITIVE_INFINITY));
      const second = await timed(() => replication.run(settled, Number.POSITIVE_INFINITY));
      return {
        figures: [
          atLeast('rows_per_s', ROWS / seconds, GOAL_ROWS_PER_S),
          atMost('second_pass_share', second / seconds, 0.01),
        ],
        information: [`${ROWS} rows in ${seconds.toFixed(1)} s, a second pass in ${(second * 1000).toFixed(0)} ms`],
      };
    }, REQUEST_TIMEOUT_MS);
  },
};

async function timed(work: () => Promise<unknown>): Promise<number> {
  const begun = performance.now();
  await work();
  return (performance.now() - begun) / 1000;
}
