/** A backlog of trades in JetStream, and the store alone that brings it into hot. */
import { randomBytes } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { connect } from 'nats';
import { Batcher } from '../../scripts/lib/batcher.ts';
import { ensureStreams } from '../../scripts/lib/jetstream.ts';
import { createLogger } from '../../scripts/lib/log.ts';
import { waitFor } from '../../scripts/lib/processes.ts';
import { Publisher } from '../../scripts/lib/publisher.ts';
import { streamDefinitions } from '../../scripts/lib/streams.ts';
import { sampleTrade } from '../fixtures.ts';
import { Pipeline } from '../pipeline.ts';
import { costOf, cpuSeconds, rowsInHot, symbols } from './flow.ts';
import { atLeast, atMost, type Suite } from './suite.ts';

const ROWS = 2_000_000;
const SYMBOLS = 20;
const ROWS_PER_MESSAGE = 200;
const GOAL_ROWS_PER_S = 120_000;
/** The first batches meet a cold compiler: the rate is that of what comes after so many rows. */
const WARM_UP_ROWS = 400_000;
const MAX_WAITING_BYTES = 32 * 2 ** 20;
const LIMIT_MS = 300_000;
const START_MS = 1_795_000_000_000;
/** Event times of one symbol: its rate in the end-to-end run. */
const MS_PER_ROW = 0.4;

export const storeSuite: Suite = {
  name: 'store',
  async run(say) {
    const pipeline = new Pipeline({ MARKETPRISM_ACK_WAIT_SECONDS: '60', MARKETPRISM_GAP_AGE: '30s' });
    try {
      await pipeline.choosePorts();
      await pipeline.startBroker();
      await pipeline.startDatabase();
      say(`store: publishing ${ROWS} trades …`);
      const published = await publish(pipeline);
      await pipeline.startStore();
      say('store: draining …');
      const reached = (rows: number) => async () => (await rowsInHot(pipeline)) >= rows;
      await waitFor('the first rows', LIMIT_MS, reached(WARM_UP_ROWS));
      const [rows, cpu, begun] = [await rowsInHot(pipeline), cpuSeconds(pipeline), performance.now()];
      while ((await rowsInHot(pipeline)) < ROWS && performance.now() - begun < LIMIT_MS) await sleep(20);
      const seconds = (performance.now() - begun) / 1000;
      const cost = costOf(cpu, cpuSeconds(pipeline), seconds, ROWS - rows);
      await pipeline.drained();
      const [[count, distinct]] = (await pipeline.query(
        'SELECT count(), uniqExact(symbol, trade_id) FROM marketprism_hot.trades',
      )) as [[string, string]];
      return {
        figures: [
          atLeast('rows_per_s', (ROWS - rows) / seconds, GOAL_ROWS_PER_S),
          atMost('lost', ROWS - Number(distinct), 0),
          atMost('duplicated', Number(count) - Number(distinct), 0),
        ],
        information: [`${ROWS} trades were published at ${Math.round(published)} rows/s`, cost],
      };
    } finally {
      await pipeline.close();
    }
  },
};

/** @returns rows a second */
async function publish(pipeline: Pipeline): Promise<number> {
  const log = createLogger('bench', 'fatal');
  const nats = await connect({ servers: pipeline.env.MARKETPRISM_NATS_URL! });
  await ensureStreams(await nats.jetstreamManager(), streamDefinitions(), log);
  const publisher = new Publisher(
    {
      mode: 'live',
      boot: randomBytes(6).toString('hex'),
      startedAt: Date.now(),
      maxInFlight: 1024,
      maxInFlightBytes: 16 * 2 ** 20,
      ackTimeoutMs: 30_000,
      onStored: () => undefined,
      log,
    },
    nats,
  );
  const batcher = new Batcher((message) => publisher.push(message));
  const names = symbols(SYMBOLS).map((symbol) => ({ symbol, instrument: symbol.replace('-', '') }));
  const begun = performance.now();
  const perSymbol = ROWS / SYMBOLS;
  for (let from = 0; from < perSymbol; from += ROWS_PER_MESSAGE) {
    for (const name of names) {
      for (let i = from; i < from + ROWS_PER_MESSAGE; i += 1) {
        const timestamp = START_MS + Math.floor(i * MS_PER_ROW);
        batcher.add('trade', sampleTrade(i, { ...name, timestamp, price: String(61_000 + (i % 977) / 100) }));
      }
    }
    batcher.flush();
    while (publisher.waitingBytes > MAX_WAITING_BYTES) await sleep(1);
  }
  await publisher.drained();
  const seconds = (performance.now() - begun) / 1000;
  publisher.close();
  await nats.close();
  return ROWS / seconds;
}
