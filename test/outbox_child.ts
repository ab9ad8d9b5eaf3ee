/**
 * A process with an outbox, for tests that kill one or look at its memory: `outbox_child.ts ROOT SCENARIO`. Before a message is
 * added its id is appended to ROOT/added, and when it is published to ROOT/published.
 */
import { appendFileSync, existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { createLogger } from '../scripts/lib/log.ts';
import { Outbox } from '../scripts/lib/outbox.ts';
import type { OutgoingMessage } from '../scripts/lib/publisher.ts';

/** Messages that one process adds. */
const CHILD_MESSAGES = 60;
/** Megabytes that the scenario `memory` spills. */
export const MEMORY_MEGABYTES = 200;

export const SCENARIOS = ['away', 'answering', 'spilling', 'memory'] as const;
type Scenario = (typeof SCENARIOS)[number];

/** The n-th message: some rows of its own, not all of one length, with text that is no ASCII. */
export function messageOf(n: number): OutgoingMessage {
  const rows = 1 + (n % 3);
  const lines = Array.from({ length: rows }, (_, i) => JSON.stringify({ n, i, text: 'é"\n'.repeat((n * 7) % 40) }));
  return { subject: 'trade.sim.spot.BTC-USDT', payload: Buffer.from(lines.join('\n')), rows, id: `id:${n}` };
}

export function readIds(root: string, name: 'added' | 'published'): string[] {
  const path = join(root, name);
  return existsSync(path) ? readFileSync(path, 'utf8').trim().split('\n') : [];
}

async function main(): Promise<void> {
  const [root, scenario] = process.argv.slice(2) as [string, Scenario];
  if (scenario === 'memory') return spillMuch(root);
  const outbox: Outbox = await Outbox.open({
    dir: join(root, 'outbox'),
    highWatermarkBytes: 2000,
    maxBytes: 1e9,
    // Files go as soon as they may, so that one that goes too early is missed.
    keepMs: 0,
    publish: (message) => {
      // What a process without a broker has handed on dies with it.
      if (scenario === 'away') return;
      appendFileSync(join(root, 'published'), `${message.id}\n`);
      setImmediate(() => outbox.acknowledged(message));
    },
    now: Date.now,
    log: createLogger('child', 'fatal'),
    limits: { tickMs: 2, syncMs: 1, rotateBytes: 3000, chunkBytes: 1024 },
  });
  const first = readIds(root, 'added').length;
  outbox.allow(scenario === 'spilling' ? 0 : Number.POSITIVE_INFINITY);
  for (let n = first; n < first + CHILD_MESSAGES; n += 1) {
    appendFileSync(join(root, 'added'), `id:${n}\n`);
    outbox.add(messageOf(n));
    while (outbox.waitingBytes > 0) await nextTurn();
    if (n === first + CHILD_MESSAGES / 2) outbox.allow(Number.POSITIVE_INFINITY);
  }
  if (scenario !== 'away') await outbox.drained();
  // The last floor is kept with a tick.
  await new Promise((done) => setTimeout(done, 50));
  await outbox.close();
}

/** Prints by how many bytes the process grew at most. */
async function spillMuch(root: string): Promise<void> {
  const taken: OutgoingMessage[] = [];
  const outbox = await Outbox.open({
    dir: join(root, 'outbox'),
    highWatermarkBytes: 1024 * 1024,
    maxBytes: 1e9,
    publish: (message) => taken.push(message),
    now: Date.now,
    log: createLogger('child', 'fatal'),
  });
  const line = `{"text":"${'x'.repeat(4000)}"}`;
  const add = (n: number) => outbox.add({ subject: 's', payload: Buffer.from(line), rows: 1, id: `id:${n}` });
  const total = Math.round((MEMORY_MEGABYTES * 1e6) / line.length);
  for (let n = 0; n < 1000; n += 1) add(n);
  while (outbox.waitingBytes > 0) await nextTurn();
  const start = process.memoryUsage().rss;
  let most = start;
  for (let n = 1000; n < total; n += 1) {
    add(n);
    if (n % 100 === 0) most = Math.max(most, process.memoryUsage().rss);
    while (outbox.waitingBytes > 4e6) await nextTurn();
  }
  while (outbox.waitingBytes > 0) await nextTurn();
  const { spilledBytes } = outbox.state;
  let answered = 0;
  for (; answered < total; await nextTurn()) {
    for (const message of taken.splice(0)) {
      outbox.acknowledged(message);
      answered += 1;
    }
    if (answered % 100 === 0) most = Math.max(most, process.memoryUsage().rss);
  }
  await outbox.close();
  process.stdout.write(JSON.stringify({ grown: most - start, spilledBytes, answered }));
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await main();
