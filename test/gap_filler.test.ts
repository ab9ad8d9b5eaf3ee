/** What the filler does when a venue does not serve: it follows a real stream of gaps; the venue's answers are the test's. */
import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test } from 'node:test';
import { headers, type NatsConnection } from 'nats';
import { Batcher } from '../scripts/lib/batcher.ts';
import type { History } from '../scripts/lib/exchange.ts';
import { GapFiller, type HistorySource } from '../scripts/lib/gap_filler.ts';
import { gapRow, type Hole } from '../scripts/lib/gap_rows.ts';
import { ensureStreams } from '../scripts/lib/jetstream.ts';
import { createLogger } from '../scripts/lib/log.ts';
import { waitFor } from '../scripts/lib/processes.ts';
import { encodeRow, type GapRow } from '../scripts/lib/rows.ts';
import { streamDefinitions, subjectOf } from '../scripts/lib/streams.ts';
import { Pipeline, READY_MS } from './pipeline.ts';

const START = 1_795_000_000_000;
const HOUR_MS = 3_600_000;
const INSTRUMENT = {
  exchange: 'binance_derivatives',
  market_type: 'perpetual',
  symbol: 'BTC-USDT',
  instrument: 'BTCUSDT',
} as const;
const TRADE_HISTORY: History = { idMember: 'trade_id', order: 'ascending', page: () => ({ path: '/t', weight: 1 }) };
const RATES: History = {
  idMember: 'timestamp',
  order: 'ascending',
  page: () => ({ path: '/f', weight: 1 }),
  keeps: 'only some',
};

type Page = Awaited<ReturnType<HistorySource['fetchHistory']>>;

describe('filling gaps from a venue that does not serve', () => {
  const pipeline = new Pipeline();
  const log = createLogger('test', 'fatal');
  let nats: NatsConnection;
  let filler: GapFiller | null = null;
  let told: GapRow[] = [];

  before(async () => {
    await pipeline.choosePorts();
    await pipeline.startBroker();
    nats = await pipeline.nats();
    await ensureStreams(await nats.jetstreamManager(), streamDefinitions(), log);
  });
  afterEach(async () => {
    filler?.stop();
    await (await nats.jetstreamManager()).streams.purge('MARKET_DATA');
  });
  after(async () => {
    await nats.close();
    await pipeline.close();
  });

  async function publish(hole: Partial<Hole>): Promise<GapRow> {
    const gap = gapRow({ dataSource: 'live' }, START, {
      stream: INSTRUMENT,
      data_type: 'trade',
      from_id: '1',
      to_id: '10',
      from_time: START,
      to_time: START + 1000,
      cause: 'outage',
      status: 'open',
      rows: 10,
      reason: null,
      ...hole,
    });
    const { exchange, market_type, symbol } = INSTRUMENT;
    const subject = subjectOf({ type: 'gap', exchange, market_type, symbol });
    await nats.jetstream().publish(subject, encodeRow('gap', gap), { headers: headers() });
    return gap;
  }

  /** Starts filling; `answer` is the venue. */
  function fill(answer: (from: number) => Page): number[] {
    const asked: number[] = [];
    told = [];
    const batcher = new Batcher(({ payload }) => {
      for (const line of Buffer.from(payload).toString().split('\n')) told.push(JSON.parse(line) as GapRow);
    });
    filler = new GapFiller({
      runners: [
        {
          module: {
            exchange: INSTRUMENT.exchange,
            tradeHistory: TRADE_HISTORY,
            readings: [{ type: 'funding_rate', stepMs: 60_000, quietSteps: 0, history: RATES }],
          },
          fetchHistory: async (_request, _type, { from }) => {
            asked.push(from);
            return answer(from);
          },
        },
      ],
      sink: { batcher, rowsWait: () => batcher.flush() },
      firstRetryMs: 5,
      log,
    });
    filler.start(nats);
    return asked;
  }
  const failed = (refusal: string | null): Page => ({ retryAt: 0, isFailure: true, refusal });

  test('a gap that fails five times makes way for an older one, and stays open', async () => {
    await publish({ from_id: '1', to_id: '10' });
    await publish({ from_id: '101', to_id: '110', from_time: START + HOUR_MS, to_time: START + HOUR_MS + 1000 });
    const asked = fill((from) => (from > 100 ? failed(null) : { ids: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10] }));
    await waitFor('the older one', READY_MS, async () => filler!.stats.fetchedGaps === 1);
    assert.deepEqual(asked, [101, 101, 101, 101, 101, 1], 'newest first');
    assert.equal(filler!.pendingCount, 2, 'the store closes them');
    assert.deepEqual(told, []);
  });

  test('a limit that is obeyed is no failure, however often', async () => {
    await publish({});
    let refusals = 12;
    const asked = fill(() =>
      refusals-- > 0 ? { retryAt: 0, isFailure: false, refusal: null } : { ids: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10] },
    );
    // Its waits double from 5 ms to seconds.
    await waitFor('the answer', READY_MS, async () => filler!.stats.fetchedGaps === 1);
    assert.equal(asked.length, 13);
  });

  test('what the venue refuses five times as a wrong request is unfillable, with its word', async () => {
    const gap = await publish({});
    const asked = fill(() => failed('HTTP 400: {"code":-1130}'));
    await waitFor('the word', READY_MS, async () => told.length > 0);
    assert.equal(asked.length, 5);
    const [state] = told;
    assert.deepEqual(
      [state!.gap_id, state!.status, state!.reason, state!.filled_rows],
      [gap.gap_id, 'unfillable', 'the venue refuses to serve it: HTTP 400: {"code":-1130}', 0],
    );
    assert.equal(filler!.pendingCount, 0);
  });

  test('of what a venue keeps only in part, the part is told', async () => {
    await publish({ data_type: 'funding_rate', from_id: String(START), to_id: String(START + 9 * HOUR_MS), rows: 540 });
    const asked = fill((from) => ({ ids: from === START ? [START + HOUR_MS] : [] }));
    await waitFor('the end', READY_MS, async () => told.length > 0);
    assert.deepEqual(asked, [START, START + HOUR_MS + 1]);
    assert.deepEqual(
      [told[0]!.status, told[0]!.reason, told[0]!.filled_rows],
      ['unfillable', 'the history of the venue has 1 of these 540 rows: it keeps only some', 1],
    );
  });
});
