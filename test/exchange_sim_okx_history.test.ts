/** Past readings of the simulated OKX, asked for and understood by the collector's own module. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { Simulator } from '../scripts/exchange_sim.ts';
import { okxDerivatives } from '../scripts/exchanges/okx.ts';
import type { History, IdRange } from '../scripts/lib/exchange.ts';
import type { DataType } from '../scripts/lib/rows.ts';
import { feedHarness } from './feed_harness.ts';
import { assertSame, start } from './sim_client.ts';

const PERIOD_MS = 300_000;
const HOUR_MS = 3_600_000;
const RUBIK = '/api/v5/rubik/stat/contracts/';
const BTC = okxDerivatives.instrument('BTC-USDT', 'perpetual');

/** Beginnings of periods, oldest first: `count` of them, the last of which is `ago` periods before the present one. */
function periods(count: number, ago: number): number[] {
  const last = (Math.floor(Date.now() / PERIOD_MS) - ago) * PERIOD_MS;
  return Array.from({ length: count }, (_, place) => last - (count - 1 - place) * PERIOD_MS);
}

async function body(sim: Simulator, path: string): Promise<{ code: string; data: unknown[] }> {
  const answer = await fetch(`${sim.endpoints.okx_derivatives?.rest}${path}`);
  assert.equal(answer.status, 200, path);
  return (await answer.json()) as { code: string; data: unknown[] };
}

/** All rows of a range, as who fills a gap gets them: page by page from its end, without what lies outside of it. */
async function fetched<T extends DataType>(sim: Simulator, type: T, history: History, range: IdRange) {
  const run = feedHarness(okxDerivatives, Date.now() * 1000, { instruments: [BTC] });
  let pages = 0;
  for (let to = range.to; to >= range.from; pages++) {
    const { path } = history.page(BTC, { from: range.from, to });
    const before = run.of(type).length;
    assert.ok(run.rest(path, await body(sim, path)), path);
    const page = run.of(type).slice(before);
    const times = page.map(({ timestamp }) => timestamp).filter((time) => time >= range.from);
    assert.ok(
      times.every((time) => time <= to),
      'nothing later than what was asked for',
    );
    if (times.length === 0) break;
    to = Math.min(...times) - 1;
  }
  assert.deepEqual(run.events, []);
  const rows = run.of(type).filter(({ timestamp }) => timestamp >= range.from);
  return { rows: rows.toSorted((one, other) => one.timestamp - other.timestamp), pages };
}

function historyOf(type: DataType): History {
  const found = okxDerivatives.readings?.find((series) => series.type === type)?.history;
  assert.ok(found, type);
  return found;
}

describe('history', () => {
  for (const type of ['open_interest', 'lsr_top_position', 'lsr_all_account'] as const) {
    it(`${type}: a range comes whole, its ends too, over several pages`, async () => {
      const sim = await start({ exchanges: ['okx_derivatives'] });
      const times = periods(250, 20);
      const [from, to] = [times[0] as number, times.at(-1) as number];
      const { rows, pages } = await fetched(sim, type, historyOf(type), { from, to });
      assertSame(
        rows.map(({ timestamp }) => timestamp),
        times,
        type,
      );
      assert.equal(pages, 3);
      // One in the middle, and none where there is none.
      const middle = times[100] as number;
      const one = await fetched(sim, type, historyOf(type), { from: middle, to: middle });
      assert.deepEqual(
        one.rows.map(({ timestamp }) => timestamp),
        [middle],
      );
      const none = await fetched(sim, type, historyOf(type), { from: middle + 1, to: middle + PERIOD_MS - 1 });
      assert.deepEqual(none.rows, []);
      // However it is asked for, it is the same reading.
      const { received_at: _, ...again } = one.rows[0] as (typeof rows)[number];
      const { received_at: __, ...whole } = rows[100] as (typeof rows)[number];
      assert.deepEqual(again, whole);
    });
  }

  it('funding_rate: each settlement of a range comes with the rate that was told at it', async () => {
    const sim = await start({ exchanges: ['okx_derivatives'] });
    const present = (await body(sim, '/api/v5/public/funding-rate?instId=BTC-USDT-SWAP')).data as {
      prevFundingTime: string;
      settFundingRate: string;
    }[];
    const last = Number(present[0]?.prevFundingTime);
    const times = Array.from({ length: 40 }, (_, place) => last - (39 - place) * 8 * HOUR_MS);
    const [from, to] = [times[0] as number, last];
    const { rows, pages } = await fetched(sim, 'funding_rate', historyOf('funding_rate'), { from, to });
    assertSame(
      rows.map(({ timestamp }) => timestamp),
      times,
      'settlements',
    );
    assert.ok(pages <= 2, `${pages} pages`);
    assert.equal(rows.at(-1)?.funding_rate, present[0]?.settFundingRate);
    const between = { from: last - 8 * HOUR_MS + 1, to: last - 1 };
    assert.deepEqual((await fetched(sim, 'funding_rate', historyOf('funding_rate'), between)).rows, []);
  });

  it('open interest of the past is of the size of the present one, in contracts, base and value alike', async () => {
    const sim = await start({ exchanges: ['okx_derivatives'] });
    type Told = { oi: string; oiCcy: string; oiUsd: string };
    const path = '/api/v5/public/open-interest?instType=SWAP&instId=BTC-USDT-SWAP';
    const [now] = (await body(sim, path)).data as [Told];
    const past = (await body(sim, `${RUBIK}open-interest-history?instId=BTC-USDT-SWAP&limit=50`)).data as string[][];
    assert.equal(past.length, 50);
    for (const [, oi, oiCcy, oiUsd] of past) {
      assert.ok(Math.abs(Number(oi) * 0.01 - Number(oiCcy)) < 1e-9, 'a contract is 0.01 BTC');
      assert.ok(Math.abs(Number(oiCcy) / Number(now.oiCcy) - 1) < 0.2, oiCcy);
      const price = Number(now.oiUsd) / Number(now.oiCcy);
      assert.ok(Math.abs(Number(oiUsd) / Number(oiCcy) / price - 1) < 0.2, oiUsd);
    }
    assert.ok(new Set(past.map(([, oi]) => oi)).size > 40, 'it moves');
  });

  it('begin and end are not included, and 1,440 periods back the past ends', async () => {
    const sim = await start({ exchanges: ['okx_derivatives'] });
    const times = periods(4, 20);
    for (const path of ['open-interest-history', 'long-short-account-ratio-contract']) {
      const query = `${RUBIK}${path}?instId=BTC-USDT-SWAP&period=5m`;
      const told = async (bounds: string) => {
        const { data } = await body(sim, `${query}${bounds}`);
        return (data as string[][]).map(([ts]) => Number(ts));
      };
      assert.deepEqual(await told(`&begin=${times[0]}&end=${times[3]}`), [times[2], times[1]]);
      const old = periods(2, 1445);
      assert.deepEqual(await told(`&begin=${old[0]! - 1}&end=${old[1]! + 1}`), []);
      // Newest first: the ones next to `end`, not those next to `begin`.
      assert.deepEqual(await told(`&begin=${old[0]}&end=${times[3]}&limit=2`), [times[2], times[1]]);
    }
    const wrong = await fetch(
      `${sim.endpoints.okx_derivatives?.rest}${RUBIK}open-interest-history?instId=BTC-USDT-SWAP&begin=x`,
    );
    assert.equal(wrong.status, 400);
    assert.equal((await body(sim, `${RUBIK}open-interest-history?instId=NOPE`)).code, '51001');
  });
});
