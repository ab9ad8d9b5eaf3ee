/** repair.ts as an operator runs it: what was broken is as before, and a rollback brings back exactly what was there. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { OperatorError } from '../scripts/lib/cli.ts';
import { contentsByStream } from '../scripts/lib/contents.ts';
import { waitFor } from '../scripts/lib/processes.ts';
import { Journal } from '../scripts/lib/repair/journal.ts';
import { readRows } from '../scripts/lib/repair/rows.ts';
import { DATA_TYPES, encodeRow, TABLES } from '../scripts/lib/rows.ts';
import { repair as repairCommand } from '../scripts/repair.ts';
import { Pipeline, READY_MS } from './pipeline.ts';

const REPAIR = join(import.meta.dirname, '../scripts/repair.ts');
const BTC = "exchange = 'binance_spot' AND symbol = 'BTC-USDT'";
const HOT = 'marketprism_hot.trades';
const COLD = 'marketprism_cold.trades';

interface Result {
  code: number | null;
  output: string;
  errors: string;
  id: string;
}

function idOf(output: string): string {
  return /^repair (\S+)$/m.exec(output)?.[1] ?? '';
}

describe('repair.ts', () => {
  const pipeline = new Pipeline({ MARKETPRISM_GAP_AGE: '1s' });
  let clean: Record<string, string>;
  before(async () => {
    await pipeline.startAll();
    await waitFor('trades in cold', READY_MS, async () => (await count(COLD)) > 3000);
    await pipeline.simulate({ action: 'stop' });
    await pipeline.settled();
    // It goes on asking for readings, and what is compared here must rest.
    await pipeline.stop('collector');
    await pipeline.drained();
    await replicated();
    clean = await contents();
  });
  after(() => pipeline.close());

  const run = (query: string) => pipeline.client().command({ query });
  const count = async (table: string) => Number((await pipeline.query(`SELECT count() FROM ${table}`))[0]![0]);
  const replicated = () =>
    waitFor('replication', READY_MS, async () => {
      for (const { name } of Object.values(TABLES)) {
        if ((await count(`marketprism_hot.${name}`)) !== (await count(`marketprism_cold.${name}`))) return false;
      }
      return true;
    });

  /** What every stream holds in hot and cold; gaps are the ledger of it and no part. */
  async function contents(types = DATA_TYPES.filter((each) => each !== 'gap')): Promise<Record<string, string>> {
    const all: Record<string, string> = {};
    const client = pipeline.client();
    for (const tier of ['hot', 'cold']) {
      for (const type of types) {
        for (const [stream, { rows, unique, hash }] of await contentsByStream(client, `marketprism_${tier}`, type))
          all[`${tier} ${type} ${stream}`] = `${rows} ${unique} ${hash}`;
      }
    }
    return all;
  }

  /** Hashes over all columns, those about the arrival, too. */
  async function exactly(): Promise<string[][]> {
    const rows: string[][] = [];
    for (const tier of ['hot', 'cold']) {
      for (const { name } of Object.values(TABLES))
        rows.push([
          tier,
          name,
          ...(
            await pipeline.query(
              `SELECT count(), sum(cityHash64(formatRow('JSONCompactEachRow', *))) FROM marketprism_${tier}.${name}`,
            )
          )[0]!,
        ]);
    }
    return rows;
  }

  /** As from the command line, in this process. */
  async function repair(args: string[]): Promise<Result> {
    let output = '';
    const say = (text: string) => {
      output += text;
    };
    const result = await repairCommand(args, pipeline.env, say, new AbortController().signal).then(
      (code) => ({ code, errors: '' }),
      (error: unknown) => {
        if (!(error instanceof OperatorError)) throw error;
        return { code: error.exitCode, errors: `${error.message}\n` };
      },
    );
    return { ...result, output, id: idOf(output) };
  }

  /** In a process of its own, which dies at this step. */
  async function killedAt(place: string, args: string[]): Promise<Result> {
    const env = { ...pipeline.env, MARKETPRISM_CRASH_AT: place };
    const child = spawn(process.execPath, ['--import', 'tsx', REPAIR, ...args], { env });
    let [output, errors] = ['', ''];
    child.stdout.on('data', (chunk: Buffer) => (output += chunk));
    child.stderr.on('data', (chunk: Buffer) => (errors += chunk));
    const signal = await new Promise((done) => child.once('close', (_code, by) => done(by)));
    assert.equal(signal, 'SIGKILL', `${place}: ${output}${errors}`);
    return { code: null, output, errors, id: idOf(output) };
  }

  /** One row under a name of its own. */
  const strange = (table: string, replaced: string) =>
    run(
      `INSERT INTO ${table} SELECT * REPLACE(${replaced}) FROM (SELECT * FROM ${table} WHERE ${BTC} ORDER BY timestamp DESC LIMIT 1)`,
    );
  /** SQL: these rows of a stream, by their ids: a removal looks at each part by itself. */
  async function some(stream: string, offset: number, limit: number): Promise<string> {
    const query = `SELECT trade_id FROM ${HOT} WHERE ${stream} ORDER BY toUInt64(trade_id) LIMIT ${limit} OFFSET ${offset}`;
    return `${stream} AND trade_id IN (${(await pipeline.query(query)).map(([id]) => `'${id}'`).join(', ')})`;
  }

  /** A letter with a row that hot has: it is stored once, however often it comes. */
  async function letter(): Promise<string> {
    const place = { tier: 'hot', client: pipeline.client(), database: 'marketprism_hot' } as const;
    const [row] = await readRows(place, 'trade', `${BTC} ORDER BY timestamp LIMIT 1`);
    const at = new Date().toISOString();
    const subject = 'trade.binance_spot.spot.BTC-USDT';
    const known = { at, reason: 'TYPE_MISMATCH: by an older version', subject, js_epoch: 1, js_seq: 1 };
    return `${JSON.stringify({ ...known, row: encodeRow('trade', row!) })}\n`;
  }

  /** Everything at once, in tables and files. */
  async function breakAll(): Promise<void> {
    await run(`DELETE FROM ${HOT} WHERE ${await some(BTC, 100, 500)}`);
    await run(`DELETE FROM ${COLD} WHERE exchange = 'binance_derivatives' AND cityHash64(trade_id) % 3 = 0`);
    await run(`INSERT INTO ${HOT} SELECT * FROM ${HOT} WHERE ${BTC} LIMIT 7`);
    await run(`INSERT INTO ${HOT} SELECT * FROM ${HOT} WHERE ${BTC} LIMIT 2`);
    await run(
      `INSERT INTO ${COLD} SELECT * REPLACE (js_seq + 1 AS js_seq) FROM ${COLD} WHERE symbol = 'ETH-USDT' LIMIT 5`,
    );
    await strange(
      'marketprism_hot.orderbooks',
      'best_ask_price AS best_bid_price, best_bid_price AS best_ask_price, 7 AS last_update_id',
    );
    await strange(HOT, "0 AS price, 'zero' AS trade_id");
    await strange(COLD, "0 AS quantity, 'zero too' AS trade_id");
    await strange(HOT, "timestamp + INTERVAL 2 HOUR AS timestamp, 'future' AS trade_id");
    await run(
      "ALTER TABLE marketprism_hot.lsr_all_accounts UPDATE long_short_ratio = 0 WHERE symbol = 'BTC-USDT' SETTINGS mutations_sync = 2",
    );
    const letters = join(pipeline.dir, 'deadletter', 'trade');
    mkdirSync(letters, { recursive: true });
    writeFileSync(join(letters, '2026-01-02.ndjson.bad'), '1\tno letter\tx\n');
    writeFileSync(join(letters, '2026-01-01.ndjson'), `${await letter()}torn\n`);
  }

  const KINDS = /^(duplicates|impossible|different|missing-in-hot|missing-in-cold|dead-letters)\b/gm;

  test('tells what it would do and changes nothing; does it; undoes exactly that; cut off anywhere, it goes on', async (context) => {
    await breakAll();
    const broken = await exactly();
    const plan = await repair([]);
    context.diagnostic(plan.output);
    assert.equal(plan.code, 1, plan.errors);
    assert.deepEqual(await exactly(), broken);
    assert.deepEqual([...new Set(plan.output.match(KINDS))].sort(), [
      'dead-letters',
      'different',
      'duplicates',
      'impossible',
      'missing-in-cold',
      'missing-in-hot',
    ]);
    assert.match(
      plan.output,
      /missing-in-hot +trade binance_spot spot BTC-USDT +brought back into hot from cold +500$/m,
    );

    const first = await repair(['--apply']);
    context.diagnostic(first.output);
    assert.equal(first.code, 0, `${first.output}${first.errors}`);
    assert.match(first.output, /\nall is mended; to undo it: /);
    assert.deepEqual(await contents(), clean);
    const sources = await pipeline.query(
      `SELECT data_source, count() FROM ${HOT} WHERE data_source LIKE 'repair:%' GROUP BY 1`,
    );
    assert.deepEqual(sources, [[`repair:${first.id}`, '500']]);
    assert.equal((await repair([])).output, 'nothing to mend\n');

    const back = await repair(['--rollback', first.id]);
    context.diagnostic(back.output);
    assert.match(back.output, /not undone: the dead letters that were published again stay stored/);
    assert.doesNotMatch(back.output, /not as before/);
    assert.deepEqual(await exactly(), broken);
    const listed = await repair(['--list']);
    assert.match(listed.output, new RegExp(`^${first.id} .* undone `, 'm'));

    // Killed at each step, and run again.
    for (const place of ['repair.removing@1', 'repair.removed@2', 'repair.publishing@2', 'repair.copying@1']) {
      const killed = await killedAt(place, ['--apply', '--batch-size', '200']);
      assert.notDeepEqual(await contents(), clean, place);
      // What was begun can be undone, too.
      if (place === 'repair.removed@2') {
        const undone = await repair(['--rollback', killed.id]);
        assert.equal(undone.code, 0, `${undone.output}${undone.errors}`);
      }
    }
    const last = await repair(['--apply', '--batch-size', '200']);
    assert.equal(last.code, 0, `${last.output}${last.errors}`);
    assert.deepEqual(await contents(), clean);
  });

  test('asks who is right where both may be, and takes what is told', async () => {
    await run(`ALTER TABLE ${HOT} UPDATE quantity = quantity * 100 WHERE ${BTC} SETTINGS mutations_sync = 2`);
    const broken = await exactly();
    const asked = await repair(['--apply']);
    assert.equal(asked.code, 1);
    assert.match(
      asked.output,
      /different +trade binance_spot spot BTC-USDT +cannot: \d+ rows that hot and cold tell differently/,
    );
    assert.deepEqual(await exactly(), broken);
    const told = await repair(['--apply', '--trust', 'cold']);
    assert.equal(told.code, 0, `${told.output}${told.errors}`);
    assert.deepEqual(await contents(), clean);
    const undone = await repair(['--rollback', told.id]);
    assert.deepEqual([undone.code, await exactly()], [0, broken], undone.output);
    assert.equal((await repair(['--apply', '--trust', 'cold'])).code, 0);
  });

  test('what both tell wrongly is fetched anew from the venue, and what neither has is declared and fetched', async (context) => {
    const trades = await contents(['trade']);
    await pipeline.startCollector();
    for (const table of [HOT, COLD])
      await run(`ALTER TABLE ${table} UPDATE quantity = quantity * 100 WHERE ${BTC} SETTINGS mutations_sync = 2`);
    const broken = await contents(['trade']);
    const fetched = await repair([
      '--apply',
      '--only',
      'refetch',
      '--exchange',
      'binance_spot',
      '--symbol',
      'BTC-USDT',
    ]);
    context.diagnostic(fetched.output);
    assert.equal(fetched.code, 0, `${fetched.output}${fetched.errors}`);
    await replicated();
    assert.deepEqual(await contents(['trade']), trades);
    const undone = await repair(['--rollback', fetched.id]);
    assert.deepEqual([undone.code, await contents(['trade'])], [0, broken], undone.output);
    const again = await repair(['--apply', '--only', 'refetch', '--exchange', 'binance_spot', '--symbol', 'BTC-USDT']);
    assert.equal(again.code, 0, `${again.output}${again.errors}`);
    await replicated();

    const ETH = "exchange = 'binance_spot' AND symbol = 'ETH-USDT'";
    const lost = await some(ETH, 50, 20);
    for (const table of [HOT, COLD]) await run(`DELETE FROM ${table} WHERE ${lost}`);
    const holed = await contents(['trade']);
    // A hole beside younger rows is the store's own to declare.
    const young = `SELECT count() FROM ${HOT} WHERE ${ETH} AND created_at > now64(3) - INTERVAL 40 SECOND`;
    await waitFor('old rows', READY_MS, async () => (await pipeline.query(young))[0]![0] === '0');
    const declared = await repair(['--apply']);
    context.diagnostic(declared.output);
    assert.equal(declared.code, 0, `${declared.output}${declared.errors}`);
    assert.match(declared.output, /^holes: trade binance_spot spot ETH-USDT: 20 rows/m);
    await replicated();
    assert.deepEqual(await contents(['trade']), trades);
    assert.deepEqual([(await repair(['--rollback', declared.id])).code, await contents(['trade'])], [0, holed]);
    assert.equal((await repair(['--apply'])).code, 0);
    await replicated();
    assert.deepEqual(await contents(['trade']), trades);
  });

  test('takes rows out of a table whose parts are merged meanwhile', async () => {
    const before = await contents(['trade']);
    await strange(HOT, "0 AS price, 'zero' AS trade_id");
    let isOver = false;
    const merging = (async () => {
      for (let i = 0; !isOver; i += 1) {
        await run(
          `INSERT INTO ${HOT} SELECT * REPLACE('MERGE-USDT' AS symbol, 'merge ${i}' AS trade_id) FROM ${HOT} WHERE ${BTC} LIMIT 1`,
        );
        await run(`OPTIMIZE TABLE ${HOT} FINAL`);
      }
    })();
    const result = await repair([
      '--apply',
      '--only',
      'impossible',
      '--exchange',
      'binance_spot',
      '--symbol',
      'BTC-USDT',
    ]);
    isOver = true;
    await merging;
    await run(`DELETE FROM ${HOT} WHERE symbol = 'MERGE-USDT'`);
    assert.equal(result.code, 0, `${result.output}${result.errors}`);
    assert.deepEqual(await contents(['trade']), before);
  });

  test('a wrong flag, too many rows, and a repair that never was are one clear line each', async () => {
    await strange(HOT, "0 AS price, 'zero' AS trade_id");
    for (const [args, line] of [
      [['--apply', '--dry-run'], /^--apply and --dry-run exclude each other\n$/],
      [['--check', 'disk'], /^--check takes one of duplicates, continuity, .*, not "disk": du -sh/],
      [['--only', 'all'], /^--only takes one of duplicates, .*, not "all"\n$/],
      [['--rollback', '../x'], /^there is no repair \.\.\/x: --list tells/],
      [['--only', 'refetch'], /^refetch needs --exchange and --symbol\n$/],
    ] as const) {
      const { code, errors } = await repair([...args]);
      assert.deepEqual([code, line.test(errors)], [64, true], errors);
    }
    await strange(HOT, "0 AS price, 'zero again' AS trade_id");
    // The same id at another time is doubled, and no copy.
    await strange(HOT, 'timestamp - INTERVAL 1 SECOND AS timestamp');
    const doubled = await repair(['--apply', '--check', 'duplicates']);
    assert.equal(doubled.code, 1);
    assert.match(
      doubled.output,
      /BTC-USDT +cannot: 1 keys in hot that are there at several times: .*\n\nnothing of it can be done/s,
    );
    const [[first] = []] = await pipeline.query(
      `SELECT toString(min(timestamp)) FROM ${HOT} WHERE ${BTC} AND trade_id IN (SELECT trade_id FROM ${HOT} WHERE ${BTC} GROUP BY trade_id HAVING count() > 1)`,
    );
    await run(`DELETE FROM ${HOT} WHERE ${BTC} AND timestamp = '${first}'`);
    const many = await repair(['--apply', '--max-rows', '1']);
    assert.deepEqual(
      [many.code, many.errors],
      [64, '2 rows would be changed, more than --max-rows 1: look at --dry-run\n'],
    );
    assert.equal((await repair(['--apply', '--check', 'values'])).code, 0);
    const journal = Journal.all(pipeline.dir).at(-1)!;
    assert.match(readFileSync(join(journal.directory, '000001.tsv'), 'utf8'), /zero/);
    assert.ok(!existsSync(join(pipeline.dir, 'deadletter', 'trade', '2026-01-01.ndjson.bad')));
    await pipeline.stop('clickhouse_embedded');
    const { code, errors } = await repair([]);
    assert.equal(code, 3, errors);
    assert.match(errors, /^the database at http:\S+ does not answer: /);
  });
});
