/**
 * A collector that has just been started may be refused the instrument lists for minutes, and know of gaps meanwhile. Without contract sizes it
 * understands no trade of the past: that is no word of the venue on what it has.
 */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { type Simulator, startSimulator } from '../scripts/exchange_sim.ts';
import { okxDerivatives } from '../scripts/exchanges/okx.ts';
import { Batcher } from '../scripts/lib/batcher.ts';
import { loadConfig } from '../scripts/lib/config.ts';
import type { ExchangeModule } from '../scripts/lib/exchange.ts';
import { ExchangeRunner } from '../scripts/lib/exchange_runner.ts';
import { createLogger } from '../scripts/lib/log.ts';
import { waitFor } from '../scripts/lib/processes.ts';

const EXCHANGE = 'okx_derivatives';
const dir = mkdtempSync(join(tmpdir(), 'marketprism-lists-'));
let simulator: Simulator;
let ids: number[];
before(async () => {
  simulator = await startSimulator({ exchanges: [EXCHANGE], symbols: ['BTC-USDT'], tradesPerSecond: 50 });
  const rest = simulator.endpoints[EXCHANGE]!.rest;
  const past = async () => {
    const answer = await fetch(`${rest}/api/v5/market/history-trades?instId=BTC-USDT-SWAP&type=1&limit=20`);
    return ((await answer.json()) as { data: { tradeId: string }[] }).data.map(({ tradeId }) => Number(tradeId));
  };
  await waitFor('trades', 10_000, async () => (ids = await past()).length === 20);
});
after(async () => {
  await simulator.close();
  rmSync(dir, { recursive: true, force: true });
});

/** Asks a collector's exchange for the trades that are known, until `isDone`. */
async function asked(change: Partial<ExchangeModule>, isDone: (page: Page) => boolean) {
  const file = join(dir, 'endpoints.json');
  writeFileSync(file, JSON.stringify(simulator.endpoints));
  const env = { MARKETPRISM_ENDPOINTS: file, MARKETPRISM_SYMBOLS: 'BTC-USDT', MARKETPRISM_DATA_DIR: dir };
  const rows: string[] = [];
  const batcher = new Batcher(({ payload }) => rows.push(...Buffer.from(payload).toString().split('\n')));
  const runner = new ExchangeRunner(
    { ...okxDerivatives, ...change },
    loadConfig(env),
    { batcher, rowsWait: () => batcher.flush(), lastRows: async () => [], isFollowedByOthers: async () => false },
    { bookFrame: () => undefined, request: () => undefined },
    createLogger('test', 'silent'),
  );
  try {
    const range = { from: Math.min(...ids), to: Math.max(...ids) };
    const history = okxDerivatives.tradeHistory!;
    const request = history.page(okxDerivatives.instrument('BTC-USDT', 'perpetual'), range);
    let page: Page | undefined;
    await waitFor('an answer', 10_000, async () => {
      page = await runner.fetchHistory(request, 'trade', range, history.idMember, 'backfill:g');
      return isDone(page);
    });
    return { page: page!, filled: rows.filter((row) => row.includes('backfill:g')).length };
  } finally {
    runner.stop();
  }
}
type Page = Awaited<ReturnType<ExchangeRunner['fetchHistory']>>;

test('while the lists cannot be had nothing is asked, and nobody is blamed', async () => {
  const never = { instrumentLists: [{ path: '/api/v5/public/nothing', weight: 1 }] };
  const { page, filled } = await asked(never, () => true);
  assert.ok('retryAt' in page, 'without sizes nobody can tell what the venue has');
  assert.deepEqual([page.isFailure, page.refusal, filled], [false, null, 0]);
});

test('an answer of which no row is understood is no word on what the venue has', async () => {
  const { page, filled } = await asked({ instrumentLists: [] }, () => true);
  assert.ok('retryAt' in page, 'it has the trades');
  assert.deepEqual([page.isFailure, page.refusal, filled], [true, null, 0]);
});

test('with the lists all are understood', async () => {
  const { page, filled } = await asked({}, (each) => 'ids' in each);
  assert.deepEqual('ids' in page && page.ids.sort(), [...ids].sort());
  assert.equal(filled, ids.length);
});
