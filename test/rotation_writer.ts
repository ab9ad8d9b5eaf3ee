/**
 * Writes as fast as it can until it is stopped: a process of test/logrotate.test.ts. After a kill it goes on with what comes after its last line.
 *
 * Usage: node --import tsx test/rotation_writer.ts lines FILE | series DATA_DIR | child LOG_DIR
 */
import { setImmediate as breathe } from 'node:timers/promises';
import { heedHangup } from '../scripts/lib/hangup.ts';
import { JsonlWriter, objectsOfAll } from '../scripts/lib/jsonl.ts';
import { createLogger } from '../scripts/lib/log.ts';
import { Child } from '../scripts/lib/processes.ts';
import { Series } from '../scripts/lib/series.ts';

const MINUTE_MS = 60_000;
export const SERIES_FILE = 'unified/rotated.jsonl';
/** Of the length of a real record. */
const PADDING = 'x'.repeat(300);

async function main(): Promise<void> {
  const [kind, place] = process.argv.slice(2) as [string, string];
  const log = createLogger('rotation_writer', 'silent');
  let stopped = false;
  heedHangup(() => undefined, log);
  process.on('SIGTERM', () => {
    stopped = true;
  });
  const say = (what: 'begin' | 'end', n: number) => process.stdout.write(`${what} ${n}\n`);
  if (kind === 'lines') {
    const writer = new JsonlWriter(place, log);
    let next = 0;
    for await (const line of objectsOfAll(place)) if ('value' in line) next = Number(line.value.n) + 1;
    for (say('begin', next); !stopped; await breathe())
      writer.append([{ n: next++, PADDING }, { n: next++ }, { n: next++ }]);
    say('end', next);
  } else if (kind === 'series') {
    const plan = { name: 'rotated', file: SERIES_FILE, cadenceMs: MINUTE_MS, catchUpSlots: 1440 };
    const series = await Series.open(place, plan, Date.now, log);
    let next = (series.state.last_slot ?? Math.floor(Date.now() / MINUTE_MS - 200_000) * MINUTE_MS) + MINUTE_MS;
    for (say('begin', next); !stopped; await breathe()) {
      series.write(next, [{ PADDING }]);
      next += MINUTE_MS;
    }
    await series.close();
    say('end', next);
  } else if (kind === 'child') {
    const args = ['--import', 'tsx', import.meta.filename, 'talk', place];
    const plan = { name: 'talker', command: process.execPath, args, env: process.env, logDir: place };
    const child = new Child(plan, () => false);
    child.start();
    say('begin', 0);
    while (!stopped) await new Promise((done) => setTimeout(done, 20));
    await child.stop();
    // Its last lines come after it is gone.
    while (child.running) await breathe();
  } else {
    // Both outputs at once, and lines that are longer than a pipe takes at a time.
    let n = 0;
    for (; !stopped; await new Promise((done) => setTimeout(done, 1))) {
      for (let i = 0; i < 20; i += 1, n += 1) {
        process.stdout.write(`${JSON.stringify({ out: n, text: n % 500 === 0 ? PADDING.repeat(600) : PADDING })}\n`);
        process.stderr.write(`${JSON.stringify({ err: n })}\n`);
      }
    }
    process.stdout.write(`${JSON.stringify({ end: n })}\n`);
  }
}

if (process.argv[1] === import.meta.filename) await main();
