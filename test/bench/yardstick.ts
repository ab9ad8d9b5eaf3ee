/**
 * How fast this machine is at this moment, so that figures of two machines, or of two hours on a shared one, can be held against each other: what
 * JSON.parse takes for a trade frame on one core, and on each of two that are busy at once (which may be two halves of one).
 */
import { Worker } from 'node:worker_threads';

const FRAME =
  '{"stream":"btcusdt@trade","data":{"e":"trade","E":1796087361158,"s":"BTCUSDT","t":6299951420,"p":"61825.78000000","q":"0.00412000","T":1796087361158,"m":true,"M":true}}';

const MS = 700;

const LOOP = `
const { parentPort, workerData: { frame, ms } } = require('node:worker_threads');
let last, count = 0;
const run = (until) => { while (performance.now() < until) for (let i = 0; i < 1000; i++, count++) last = JSON.parse(frame); };
run(performance.now() + ms / 3);
count = 0;
const begun = performance.now();
run(begun + ms);
parentPort.postMessage({ micros: ((performance.now() - begun) * 1000) / count, last: last.stream });
`;

export interface Yardstick {
  /** µs a frame. */
  alone: number;
  /** µs a frame on each of two cores. */
  both: number;
}

export async function yardstick(): Promise<Yardstick> {
  const alone = await parsing();
  const [one, other] = await Promise.all([parsing(), parsing()]);
  return { alone, both: (one + other) / 2 };
}

function parsing(): Promise<number> {
  return new Promise((resolve, reject) => {
    const worker = new Worker(LOOP, { eval: true, workerData: { frame: FRAME, ms: MS } });
    worker.once('message', ({ micros }: { micros: number }) => resolve(micros));
    worker.once('error', reject);
  });
}

export function describeYardstick({ alone, both }: Yardstick): string {
  return `this machine now: JSON.parse of a trade frame takes ${alone.toFixed(2)} µs on one core, ${both.toFixed(2)} µs on each of two at once`;
}
