/**
 * Preloaded by soak.ts (`node --import`) into processes that serve no /metrics: writes now and then how late their event loop is, measured as
 * prom-client does it in the others. Without its two variables it does nothing.
 */
import { renameSync, writeFileSync } from 'node:fs';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { isMainThread } from 'node:worker_threads';

/** That of prom-client's default, ms. */
const RESOLUTION_MS = 10;
const NANOS_PER_MS = 1_000_000;

const { MARKETPRISM_LOOP_DELAY_FILE: file, MARKETPRISM_LOOP_DELAY_MS: every } = process.env;

// The loader's own thread has the environment, too.
if (file && every && isMainThread) {
  const histogram = monitorEventLoopDelay({ resolution: RESOLUTION_MS });
  histogram.enable();
  const tell = () => {
    const figures = { pid: process.pid, at: Date.now(), p99_ms: histogram.percentile(99) / NANOS_PER_MS };
    histogram.reset();
    try {
      writeFileSync(`${file}.tmp`, JSON.stringify(figures));
      renameSync(`${file}.tmp`, file);
    } catch {
      // A disk that is full is the process' own to tell; soak.ts sees that the file is old.
    }
  };
  setInterval(tell, Number(every)).unref();
}
