/**
 * The chaos run itself. A minute of it must balance for a fixed seed; without a safeguard it must not; and what judges it must notice each
 * kind of wrong row. `npm run chaos` does it for ten minutes.
 */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import type { ClickHouseClient } from '@clickhouse/client';
import { Stage } from '../scripts/lib/chaos/stage.ts';
import { createClickHouse, selectText } from '../scripts/lib/clickhouse.ts';
import { waitFor } from '../scripts/lib/processes.ts';
import { seededRandom } from '../scripts/lib/sim/market.ts';
import { READY_MS } from './pipeline.ts';

const CHAOS = join(import.meta.dirname, '../scripts/chaos.ts');
const dir = mkdtempSync(join(tmpdir(), 'marketprism-chaos-test-'));
after(() => rmSync(dir, { recursive: true, force: true }));

interface Report {
  seed: number;
  rows_per_s: number;
  lost: number;
  doubled: number;
  balanced: boolean;
  differences: string[];
  time_line: { at: number; what: string }[];
}

/** Runs the command, as an operator does. */
async function chaos(...args: string[]): Promise<{ code: number | null; output: string; report: Report }> {
  const file = join(dir, `${args.join('')}.json`);
  const child = spawn(process.execPath, ['--import', 'tsx', CHAOS, ...args, '--report', file], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk: Buffer) => (output += chunk));
  const code = await new Promise<number | null>((done) => child.once('close', done));
  return { code, output, report: code === 64 ? (null as never) : (JSON.parse(readFileSync(file, 'utf8')) as Report) };
}

describe('npm run chaos', () => {
  test('balances after a minute of faults', async (context) => {
    const { code, output, report } = await chaos('--for', '60s', '--seed', '3');
    assert.deepEqual(report.differences, [], output);
    assert.deepEqual([code, report.lost, report.doubled, report.balanced], [0, 0, 0, true], output);
    assert.ok(
      report.time_line.some(({ what }) => what.startsWith('kill -9')),
      'something was killed',
    );
    assert.ok(report.rows_per_s > 1000, `${report.rows_per_s} rows a second are no load`);
    context.diagnostic(`${report.rows_per_s} rows a second`);
  });

  test('does not balance when the store does not look before it inserts', async () => {
    const { code, output, report } = await chaos('--for', '20s', '--seed', '4', '--without', 'look');
    assert.equal(code, 1, output);
    assert.ok(report.doubled > 1000, `two collectors, and ${report.doubled} doubled rows`);
    assert.ok(
      report.differences.some((line) => line.includes('rows twice in hot')),
      report.differences.join('\n'),
    );
    assert.match(output, /NOT balanced: .* again with --seed 4/);
  });

  test('says what is wrong with its flags', async () => {
    for (const [flag, value] of [
      ['--for', '1s'],
      ['--seed', 'x'],
      ['--without', 'luck'],
      ['--trades-per-second', '0'],
    ] as const) {
      const { code, output } = await chaos(flag, value);
      assert.equal(code, 64);
      assert.match(output, new RegExp(`^${flag} takes .*"${value}"\n$`));
    }
  });
});

describe('a stage', () => {
  let stage: Stage;
  let client: ClickHouseClient;
  const told: string[] = [];

  before(async () => {
    const say = (line: string) => told.push(line);
    stage = await Stage.open({ seed: 9, random: seededRandom(9), tradesPerSecond: 40, without: null, say });
    await stage.system.start();
    const { clickhouseUrl: url, clickhouseUser: username, clickhousePassword: password } = stage.config;
    client = createClickHouse({ url, username, password }, 'test');
  });
  after(async () => {
    await client.close();
    await stage.close(false);
  });

  async function rowsInHot(): Promise<number> {
    const [[count] = []] = await selectText(client, `SELECT count() FROM ${stage.config.hotDatabase}.trades`);
    return Number(count);
  }

  test('goes on after the disk of the broker was full, and has everything', async (context) => {
    await waitFor('rows', READY_MS, async () => (await rowsInHot()) > 1000);
    if (stage.diskTrouble === null) {
      assert.equal(await stage.apply({ kind: 'disk_full', disk: 'jetstream', forMs: 3000 }), null);
      const ended = () =>
        told.some((line) => line.startsWith('nats-server takes connections and its streams do not answer'));
      await waitFor('the end of a broker that hangs', READY_MS, async () => ended());
    } else context.diagnostic(`no full disk here: ${stage.diskTrouble}`);
    const before = await rowsInHot();
    await waitFor('rows afterwards', READY_MS, async () => (await rowsInHot()) > before + 1000);
    stage.heal();
    await stage.system.quiet();
    assert.deepEqual((await stage.verdict()).differences, []);
  });

  /** Each is done, must be noticed in these words, and is undone. */
  const WRONGS: { name: string; table: string; tier: 'hot' | 'cold'; where: string; change: string; told: RegExp[] }[] =
    [
      {
        name: 'a trade that hot lost',
        table: 'trades',
        tier: 'hot',
        where: "exchange = 'okx_spot' AND symbol = 'BTC-USDT' ORDER BY trade_id LIMIT 1 OFFSET 100",
        change: '0',
        told: [
          /trade okx_spot spot BTC-USDT: 1 sent, not in hot and not declared missing/,
          /a hole from .* not declared/,
          /hot and cold differ/,
        ],
      },
      {
        name: 'a trade of which nobody knows an order, and that both lost',
        table: 'trades',
        tier: 'hot',
        where: "exchange = 'hyperliquid' AND symbol = 'BTC-USDC' ORDER BY trade_id LIMIT 1 OFFSET 100",
        change: '0',
        told: [/trade hyperliquid perpetual BTC-USDC: 1 sent, not in hot and not declared missing/],
      },
      {
        name: 'a book update that hot has twice',
        table: 'orderbook_updates',
        tier: 'hot',
        where:
          "exchange = 'binance_spot' AND symbol = 'ETH-USDT' AND NOT is_snapshot ORDER BY last_update_id LIMIT 1 OFFSET 10",
        change: '2',
        told: [/orderbook_update binance_spot spot ETH-USDT: 1 rows twice in hot/],
      },
      {
        name: 'a trade that nobody sent',
        table: 'trades',
        tier: 'hot',
        where: "exchange = 'binance_spot' AND symbol = 'ETH-USDT' ORDER BY trade_id LIMIT 1",
        change: 'stranger',
        told: [/trade binance_spot spot ETH-USDT: 1 in hot that were never sent \(1\)/],
      },
      {
        name: 'a price that is another one in cold',
        table: 'trades',
        tier: 'cold',
        where: "exchange = 'deribit_derivatives' AND symbol = 'ETH-USD' ORDER BY sequence LIMIT 1",
        change: 'price',
        told: [/trade deribit_derivatives perpetual ETH-USD: hot and cold differ/],
      },
    ];

  for (const { name, table, tier, where, change, told: words } of WRONGS) {
    test(`notices ${name}`, async () => {
      const database = stage.config[tier === 'hot' ? 'hotDatabase' : 'coldDatabase'];
      const whole = `${database}.${table}`;
      const columns = (
        await selectText(
          client,
          `SELECT name FROM system.columns WHERE database = '${database}' AND table = '${table}' AND default_kind != 'ALIAS' ORDER BY position`,
        )
      ).map(([each]) => each!);
      const key = table === 'trades' ? 'trade_id' : 'last_update_id';
      const [[id, stream] = []] = await selectText(
        client,
        `SELECT ${key}, exchange || symbol FROM ${whole} WHERE ${where}`,
      );
      const row = `exchange || symbol = '${stream}' AND ${key} = '${id}'`;
      const copyOf = (replaced: Record<string, string>) => {
        const values = columns.map((column) => replaced[column] ?? column);
        return `INSERT INTO ${whole} (${columns.join(', ')}) SELECT ${values.join(', ')} FROM ${whole} WHERE ${row} LIMIT 1`;
      };
      const remove = (what: string) =>
        client.command({ query: `ALTER TABLE ${whole} DELETE WHERE ${what} SETTINGS mutations_sync = 2` });
      const saved = `${database}.saved`;
      await client.command({
        query: `CREATE TABLE ${saved} ENGINE = Memory AS SELECT ${columns.join(', ')} FROM ${whole} WHERE ${row}`,
      });
      if (change === '2') await client.command({ query: copyOf({}) });
      else if (change === 'stranger') await client.command({ query: copyOf({ trade_id: "'1'" }) });
      else {
        if (change === 'price') await client.command({ query: copyOf({ price: 'price + 1', js_seq: '0' }) });
        await remove(`${row}${change === 'price' ? ' AND js_seq != 0' : ''}`);
      }
      const { differences } = await stage.verdict();
      for (const each of words)
        assert.ok(
          differences.some((line) => each.test(line)),
          `${each} in\n${differences.join('\n')}`,
        );
      await remove(change === 'stranger' ? `exchange || symbol = '${stream}' AND trade_id = '1'` : row);
      if (change !== 'stranger')
        await client.command({
          query: `INSERT INTO ${whole} (${columns.join(', ')}) SELECT ${columns.join(', ')} FROM ${saved}`,
        });
      await client.command({ query: `DROP TABLE ${saved}` });
    });
  }

  test('finds nothing once all that is undone', async () => {
    assert.deepEqual((await stage.verdict()).differences, []);
  });
});
