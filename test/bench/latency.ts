/** From the frame's arrival at the collector to the row that can be queried in hot, at a steady rate. */
import { setTimeout as sleep } from 'node:timers/promises';
import { bucketsOf, HistogramTrack, metricSamples, quantileOf } from '../../scripts/lib/soak/metrics_text.ts';
import type { Pipeline } from '../pipeline.ts';
import { inFlow, watch } from './flow.ts';
import { atMost, only, type Suite } from './suite.ts';

const OFFERED = { offered: 10_000, symbols: 20 };
const WINDOW_MS = 30_000;
const GOAL_MS = { p50: 500, p99: 2000 };
const METRIC = 'marketprism_storage_latency_seconds';

export const latencySuite: Suite = {
  name: 'latency',
  async run(say) {
    say(`latency: ${OFFERED.offered} rows/s …`);
    return inFlow(OFFERED, async (pipeline) => {
      const track = new HistogramTrack();
      track.add(await latencies(pipeline));
      const { rowsPerSecond, cost } = await watch(pipeline, WINDOW_MS);
      // What came at the window's end is told when it is stored.
      await sleep(1000);
      const buckets = track.add(await latencies(pipeline))!;
      const ms = (share: number) => (quantileOf(buckets, share) ?? Number.NaN) * 1000;
      return {
        figures: [
          only('rows_per_s', rowsPerSecond),
          atMost('p50_ms', ms(0.5), GOAL_MS.p50),
          atMost('p99_ms', ms(0.99), GOAL_MS.p99),
        ],
        information: [`at ${Math.round(rowsPerSecond)} rows/s: ${cost}`],
      };
    });
  },
};

/** As the store tells them: by message, from its first row's `received_at` to the database's confirmation. */
async function latencies(pipeline: Pipeline) {
  const text = await (await fetch(`http://127.0.0.1:${pipeline.ports.store}/metrics`)).text();
  return bucketsOf(metricSamples(text, new Set([`${METRIC}_bucket`])), METRIC);
}
