/** The whole pipeline when the clock of its machine is set: minutes forward, then minutes back while the broker dies. */
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { pause } from '../scripts/lib/pause.ts';
import { waitFor } from '../scripts/lib/processes.ts';
import { Pipeline, READY_MS } from './pipeline.ts';

const STEP_MS = 150_000;
/** The children read their clock's offset ten times a second. */
const SEEN_MS = 300;
/** By then sockets and streams have been looked at for silence, several times. */
const WATCHED_MS = 4000;
const EXCHANGES = ['binance_spot', 'binance_derivatives'];
const TABLES = ['trades', 'orderbook_updates'];

describe('a clock that is set while rows flow', () => {
  const extra: NodeJS.ProcessEnv = { MARKETPRISM_SYMBOLS: 'BTC-USDT', MARKETPRISM_EXCHANGES: EXCHANGES.join() };
  const pipeline = new Pipeline(extra);
  const clockFile = join(pipeline.dir, 'clock');

  before(async () => {
    await pipeline.choosePorts();
    await pipeline.startBroker();
    await pipeline.startDatabase();
    // Trades seconds apart: between the step and the first look at silence none comes.
    await pipeline.startSimulator(['--seed', '7', '--symbols', 'BTC-USDT', '--trades-per-second', '0.2']);
    const preload = join(import.meta.dirname, '..', 'scripts', 'lib', 'chaos', 'stepped_clock.mjs');
    // From here on: broker, database and exchanges keep the machine's time.
    Object.assign(extra, { NODE_OPTIONS: `--import ${preload}`, MARKETPRISM_CLOCK_FILE: clockFile });
    await pipeline.startStore();
    await pipeline.startCollector();
  });
  after(() => pipeline.close());

  /** Sets the clocks of collector and store to the machine's and so much. @returns the machine's time when they have seen it */
  async function setClock(offset: number): Promise<number> {
    writeFileSync(clockFile, String(offset));
    await pause(SEEN_MS);
    return Date.now();
  }

  /** Waits until each table has rows of each exchange that the venue sent since then, received at what a clock shows that is off so much. */
  async function rowsSince(time: number, offset: number): Promise<void> {
    const off = `abs(dateDiff('millisecond', timestamp, received_at) - (${offset})) < ${STEP_MS / 3}`;
    const found = TABLES.map(
      (table) =>
        `SELECT DISTINCT '${table}', exchange FROM marketprism_hot.${table} WHERE timestamp >= fromUnixTimestamp64Milli(${time}) AND ${off}`,
    );
    const wanted = TABLES.flatMap((table) => EXCHANGES.map((name) => `${table} ${name}`));
    let missing = wanted;
    const look = async () => {
      const have = (await pipeline.query(found.join(' UNION ALL '))).map((row) => row.join(' '));
      missing = wanted.filter((each) => !have.includes(each));
      return missing.length === 0;
    };
    await waitFor('hot', READY_MS, look).catch(() =>
      assert.fail(`the clock off by ${offset}: no ${missing.join(', ')}`),
    );
  }

  /** No socket was taken for silent, or lost. */
  function assertUndisturbed(): void {
    const events = ['class_silent', 'socket_renewal', 'socket_disconnected', 'socket_fault'];
    assert.deepEqual(
      events.flatMap((event) => pipeline.events('collector', event)),
      [],
    );
  }

  test('rows go on at once, no socket is renewed, and what comes bears the time that the clock shows', async () => {
    await rowsSince(0, 0);
    const ahead = await setClock(STEP_MS);
    await rowsSince(ahead + WATCHED_MS, STEP_MS);
    assertUndisturbed();

    await setClock(-STEP_MS);
    // Whatever the broker was asked for is forgotten, too; and the clock shows a time before the connection to it was opened.
    await pipeline.kill('nats-server');
    await pipeline.brokerReady();
    await rowsSince(Date.now() + WATCHED_MS, -STEP_MS);
    assertUndisturbed();
  });
});
