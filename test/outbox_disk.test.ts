/** A collector that is started while its disk is full, and goes on as soon as there is room. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { SmallDisk } from '../scripts/lib/chaos/disks.ts';
import { loadConfig } from '../scripts/lib/config.ts';
import { Delivery } from '../scripts/lib/delivery.ts';
import { createLogger } from '../scripts/lib/log.ts';
import { waitFor } from '../scripts/lib/processes.ts';

const dir = mkdtempSync(join(tmpdir(), 'marketprism-disk-'));
after(() => rmSync(dir, { recursive: true, force: true }));

test('an outbox that was opened on a full disk takes rows once there is room', async (context) => {
  let disk: SmallDisk;
  try {
    disk = SmallDisk.mount(dir);
  } catch (error) {
    context.skip(`no disk can be mounted here: ${(error as Error).message}`);
    return;
  }
  try {
    disk.fill();
    const delivery = await Delivery.open({
      // The broker never comes.
      nats: new Promise(() => undefined),
      config: loadConfig({ MARKETPRISM_DATA_DIR: dir, MARKETPRISM_COLLECTOR_ID: 'a' }),
      boot: 'a',
      startedAt: Date.now(),
      onStored: () => undefined,
      onRefused: () => undefined,
      log: createLogger('test', 'fatal'),
    });
    const megabytes = 20;
    const payload = Buffer.alloc(2 ** 20, 'x');
    for (let n = 0; n < megabytes; n += 1) {
      delivery.push({ subject: 'trade.binance_spot.spot.BTC-USDT', payload, rows: 1000, id: `a:${n}` });
    }
    await waitFor('the full disk to be noticed', 10_000, async () => delivery.mustPause);
    disk.free();
    await waitFor('the way on', 20_000, async () => delivery.mayGoOn);
    assert.equal(delivery.waitingBytes > (megabytes - 1) * 2 ** 20, true, 'nothing is lost by it');
    await delivery.stop(0);
  } finally {
    disk.unmount();
  }
});
