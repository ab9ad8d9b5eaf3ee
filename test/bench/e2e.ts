/** From the venue's socket to hot: the simulator, the collector, the broker, the store and the embedded engine, each in its own process. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Pipeline } from '../pipeline.ts';
import { BULK_TABLES, inFlow, rowsInHot, watch } from './flow.ts';
import { atLeast, atMost, only, type Suite } from './suite.ts';
import { describeYardstick, yardstick } from './yardstick.ts';

const SYMBOLS = 20;
const GOAL_ROWS_PER_S = 60_000;
/** Offered one after the other until one holds. The first is a little more than the goal, so that the goal is not met by rounding. */
const OFFERED = [61_000, 57_000, 53_000, 49_000, 45_000, 40_000, 32_000, 24_000, 16_000];
const WINDOW_MS = 30_000;
/** A rate is sustained when what is stored within the window is this share of what was offered, and no backlog is left to speak of. */
const SUSTAINED = 0.98;
const DRAIN_MS = 3000;

interface Run {
  offered: number;
  rowsPerSecond: number;
  seconds: number;
  drainMs: number;
  lost: number;
  duplicated: number;
  closedSlow: number;
  cost: string;
  /** µs of CPU, of all processes together. */
  microsPerRow: number;
}

export const e2eSuite: Suite = {
  name: 'e2e',
  async run(say) {
    const runs: Run[] = [];
    const before = await yardstick();
    say(`e2e: ${describeYardstick(before)}`);
    for (const offered of OFFERED) {
      say(`e2e: ${offered} rows/s offered …`);
      const run = await measure(offered);
      say(`e2e: ${describe(run)}`);
      runs.push(run);
      if (isSustained(run)) break;
    }
    const best = runs.at(-1)!;
    const after = await yardstick();
    return {
      figures: [
        atLeast('rows_per_s', isSustained(best) ? best.rowsPerSecond : 0, GOAL_ROWS_PER_S),
        only('seconds', best.seconds),
        only('parses_per_row', (best.microsPerRow * 2) / (before.both + after.both)),
        atMost('lost', best.lost, 0),
        atMost('duplicated', best.duplicated, 0),
      ],
      information: [...runs.map(describe), best.cost, describeYardstick(before), describeYardstick(after)],
    };
  },
};

function isSustained({ offered, rowsPerSecond, drainMs, lost, duplicated }: Run): boolean {
  return rowsPerSecond >= SUSTAINED * offered && drainMs <= DRAIN_MS && lost === 0 && duplicated === 0;
}

function describe({ offered, rowsPerSecond, drainMs, lost, duplicated, closedSlow }: Run): string {
  return `${offered} rows/s offered: ${Math.round(rowsPerSecond)} stored, the rest within ${(drainMs / 1000).toFixed(1)} s of the end, lost ${lost}, doubled ${duplicated}${closedSlow === 0 ? '' : `, ${closedSlow} sockets closed as the collector did not keep up`}`;
}

function measure(offered: number): Promise<Run> {
  return inFlow({ offered, symbols: SYMBOLS }, async (pipeline) => {
    const { rowsPerSecond, seconds, cost, microsPerRow } = await watch(pipeline, WINDOW_MS);
    await pipeline.simulate({ action: 'stop' });
    const stopped = performance.now();
    const drainMs = Math.max((await lastChange(pipeline)) - stopped, 0);
    return { offered, rowsPerSecond, seconds, drainMs, cost, microsPerRow, ...(await balance(pipeline)) };
  });
}

/** When the last row came. @returns by the clock of this process, ms */
async function lastChange(pipeline: Pipeline): Promise<number> {
  let [rows, at] = [-1, performance.now()];
  while (performance.now() - at < 2000) {
    const now = await rowsInHot(pipeline);
    if (now !== rows) [rows, at] = [now, performance.now()];
    await sleep(100);
  }
  await pipeline.drained();
  return at;
}

/** What the venue wrote to the collector's sockets, as distinct keys, against what is in hot. */
async function balance(pipeline: Pipeline): Promise<Pick<Run, 'lost' | 'duplicated' | 'closedSlow'>> {
  const { streams, closed_slow: closedSlow } = (await (await fetch(`${pipeline.control}/ledger`)).json()) as {
    streams: { data_type: string; sent: number }[];
    closed_slow: number;
  };
  const types = new Set(['trade', 'orderbook_update']);
  const sent = streams.filter(({ data_type }) => types.has(data_type)).reduce((sum, each) => sum + each.sent, 0);
  const keys = { trades: 'symbol, trade_id', orderbook_updates: 'symbol, last_update_id' };
  let [distinct, rows] = [0, 0];
  for (const table of BULK_TABLES) {
    // The snapshots that the collector fetches are rows, too, and nothing that was sent on a socket.
    const where = table === 'orderbook_updates' ? 'NOT is_snapshot' : '1';
    const sql = `SELECT count(), uniqExact(${keys[table]}) FROM marketprism_hot.${table} WHERE ${where}`;
    const [[all, unique]] = (await pipeline.query(sql)) as [[string, string]];
    rows += Number(all);
    distinct += Number(unique);
  }
  return { lost: sent - distinct, duplicated: rows - distinct, closedSlow };
}
