/** Changes of the tables, in the real engine: whatever the database was, whoever is killed when, it ends as the present tables with its rows. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, beforeEach, describe, test } from 'node:test';
import type { ClickHouseClient } from '@clickhouse/client';
import { OperatorError } from '../scripts/lib/cli.ts';
import { insertLines, selectText } from '../scripts/lib/clickhouse.ts';
import { alterTable, MIGRATIONS, type Migration, migrate, schemaVersion } from '../scripts/lib/migrations.ts';
import { encodeRow, TABLES } from '../scripts/lib/rows.ts';
import { type DatabaseKind, tableSql } from '../scripts/lib/schema_sql.ts';
import { sampleTrade } from './fixtures.ts';
import { Pipeline, READY_MS } from './pipeline.ts';

const KINDS: DatabaseKind[] = ['hot', 'cold', 'signals'];
const NEWEST = MIGRATIONS.at(-1)!.version;

test('versions rise one by one', () => {
  assert.deepEqual(
    MIGRATIONS.map(({ version }) => version),
    MIGRATIONS.map((_, index) => index + 1),
  );
});

describe('migrations', () => {
  const server = new Pipeline();
  let client: ClickHouseClient;
  const nameOf = (kind: DatabaseKind) => `marketprism_${kind}`;
  const placeOf = (kind: DatabaseKind) => ({ client, kind, database: nameOf(kind) });

  before(async () => {
    await server.choosePorts();
    await server.startDatabase();
    await server.startBroker();
    client = server.client();
  });
  beforeEach(async () => {
    for (const kind of KINDS) await server.query(`DROP DATABASE IF EXISTS ${nameOf(kind)}`);
  });
  after(() => server.close());

  /** Every table, column, index, order and expiry of a database. */
  async function shape(kind: DatabaseKind): Promise<string[][]> {
    return server.query(
      `SELECT name, create_table_query FROM system.tables WHERE database = '${nameOf(kind)}' ORDER BY name`,
    );
  }
  async function applied(kind: DatabaseKind): Promise<number[]> {
    const query = `SELECT DISTINCT version FROM ${nameOf(kind)}.schema_migrations ORDER BY version`;
    return (await server.query(query)).map(([version]) => Number(version));
  }
  async function freshShapes(): Promise<string[][][]> {
    const shapes: string[][][] = [];
    for (const kind of KINDS) {
      await migrate(placeOf(kind));
      shapes.push(await shape(kind));
      await server.query(`DROP DATABASE ${nameOf(kind)}`);
    }
    return shapes;
  }
  /** As the first version made it, when there was no table of versions. */
  async function makeFirst(kind: DatabaseKind): Promise<void> {
    const file = readFileSync(join(import.meta.dirname, 'fixtures', 'schema_1', `${kind}.sql`), 'utf8');
    const statements = file.replace(/^--.*\n/gm, '').split(';\n');
    for (const query of statements) if (query.trim() !== '') await client.command({ query });
  }
  async function store(from: number, count: number): Promise<void> {
    const lines = Array.from({ length: count }, (_, index) => {
      const row = encodeRow('trade', sampleTrade(from + index));
      return `{"js_epoch":1,"js_seq":${from + index + 1},${row.slice(1)}\n`;
    });
    await insertLines(client, 'marketprism_hot.trades', Buffer.from(lines.join('')), `test:${from}`);
  }
  const rows = () => server.query('SELECT toString(tuple(*)) AS row FROM marketprism_hot.trades ORDER BY row');

  test('a fresh database gets all of them, and the next start asks once and changes nothing', async () => {
    for (const kind of KINDS) {
      await migrate(placeOf(kind));
      assert.deepEqual(
        await applied(kind),
        MIGRATIONS.map(({ version }) => version),
        kind,
      );
      assert.equal(await schemaVersion(client, nameOf(kind)), NEWEST);
    }
    let asked = 0;
    const counting = new Proxy(client, {
      get(target, member, receiver) {
        if (member === 'query' || member === 'command' || member === 'exec') asked += 1;
        return Reflect.get(target, member, receiver);
      },
    });
    await migrate({ ...placeOf('hot'), client: counting });
    assert.equal(asked, 1);
  });

  test('a database of the first version, which knew no versions, becomes what a fresh one is, and keeps rows and answers', async () => {
    const fresh = await freshShapes();
    for (const kind of KINDS) await makeFirst(kind);
    await store(0, 500);
    const before = await rows();
    for (const [index, kind] of KINDS.entries()) {
      await migrate(placeOf(kind));
      assert.deepEqual(await shape(kind), fresh[index], kind);
      assert.deepEqual(
        await applied(kind),
        MIGRATIONS.map(({ version }) => version),
        kind,
      );
    }
    assert.deepEqual(await rows(), before);
    assert.equal(before.length, 500);
  });

  test('a table that was lost is made anew at the next start', async () => {
    const [, cold] = await freshShapes();
    await migrate(placeOf('cold'));
    await server.query('DROP TABLE marketprism_cold.replication_progress');
    await migrate(placeOf('cold'));
    assert.deepEqual(await shape('cold'), cold);
  });

  test('a database of a later version is refused in one line that says which, by a service too, and nothing is written', async () => {
    for (const kind of KINDS) await migrate(placeOf(kind));
    await client.command({
      query: `INSERT INTO marketprism_hot.schema_migrations (version, name, by) VALUES (${NEWEST + 7}, 'of the future', 'test')`,
    });
    await assert.rejects(migrate(placeOf('hot')), (error: Error) => {
      assert.ok(error instanceof OperatorError);
      assert.equal(error.exitCode, 64);
      assert.match(
        error.message,
        new RegExp(
          `^marketprism_hot is of schema version ${NEWEST + 7}, and this program knows versions up to ${NEWEST}: `,
        ),
      );
      return true;
    });
    for (const script of ['store', 'replicate']) {
      const { status, stderr } = runScript(script, ['--once']);
      assert.equal(status, 64, script);
      assert.match(stderr, /^marketprism_hot is of schema version \d+, [^\n]*\n$/, script);
    }
    assert.deepEqual(await server.query('SELECT count() FROM marketprism_hot.stream_epochs'), [['0']]);
    const { stdout } = runScript('manage', ['diagnose']);
    assert.match(stdout, new RegExp(`^error +versions +marketprism_hot: schema version ${NEWEST + 7}, `, 'm'));
    assert.match(stdout, new RegExp(`^ok +versions +marketprism_cold: schema version ${NEWEST}$`, 'm'));
  });

  function runScript(name: string, args: string[], env: NodeJS.ProcessEnv = {}) {
    const path = join(import.meta.dirname, '..', 'scripts', `${name}.ts`);
    return spawnSync(process.execPath, ['--import', 'tsx', path, ...args], {
      encoding: 'utf8',
      // A service that goes on in vain would never end.
      timeout: READY_MS,
      env: { ...server.env, ...env },
    });
  }

  test('killed after any statement, or before a version is written down, it is repeated at the next start', async () => {
    const fresh = await freshShapes();
    // As hot was before the index by arrival: that change has statements of its own.
    const earlier = tableSql(TABLES.trade, 'hot', 'marketprism_hot').replace(/,\s+INDEX arrival .*/, '');
    for (const at of [
      'schema.statement@1',
      'schema.statement@9',
      'schema.applied@1',
      'schema.statement@16',
      'schema.applied@2',
    ]) {
      for (const kind of KINDS) await server.query(`DROP DATABASE IF EXISTS ${nameOf(kind)}`);
      await server.query('CREATE DATABASE marketprism_hot');
      await client.command({ query: earlier });
      await store(0, 100);
      const before = await rows();
      const { signal } = runScript('manage', ['init'], { MARKETPRISM_CRASH_AT: at });
      assert.equal(signal, 'SIGKILL', at);
      assert.ok((await schemaVersion(client, 'marketprism_hot')) < NEWEST, `${at}: not all is written down`);
      const { status, stderr } = runScript('manage', ['init']);
      assert.equal(status, 0, stderr);
      assert.deepEqual(await rows(), before, at);
      for (const [index, kind] of KINDS.entries()) assert.deepEqual(await shape(kind), fresh[index], `${at}: ${kind}`);
      assert.equal(await schemaVersion(client, 'marketprism_hot'), NEWEST, at);
    }
  });

  const column: Migration = {
    version: NEWEST + 1,
    name: 'a made-up column',
    apply: async (place) => {
      if (place.kind === 'hot')
        await alterTable(place, 'trades', "ADD COLUMN IF NOT EXISTS venue_note String DEFAULT 'none'");
    },
  };
  const later: Migration = {
    version: NEWEST + 2,
    name: 'a made-up change of a column',
    apply: async (place) => {
      if (place.kind === 'hot') await alterTable(place, 'trades', "MODIFY COLUMN venue_note String DEFAULT 'unknown'");
    },
  };

  test('a further one changes tables with rows in place, and rows of before and after have the column', async () => {
    await migrate(placeOf('hot'));
    await store(0, 50);
    const before = await rows();
    await migrate(placeOf('hot'), null, [...MIGRATIONS, column]);
    await store(50, 10);
    const notes = 'SELECT venue_note, count() FROM marketprism_hot.trades GROUP BY venue_note';
    assert.deepEqual(await server.query(notes), [['none', '60']]);
    const old =
      'SELECT toString(tuple(* EXCEPT venue_note)) AS row FROM marketprism_hot.trades WHERE js_seq <= 50 ORDER BY row';
    assert.deepEqual(await server.query(old), before);
    assert.deepEqual(
      await applied('hot'),
      [...MIGRATIONS, column].map(({ version }) => version),
    );
    await assert.rejects(migrate(placeOf('hot')), /is of schema version/, 'the older program');
  });

  test('one that fails stops there: what was before it is written down, and the next start goes on with it', async () => {
    await migrate(placeOf('hot'));
    const broken = { ...later, apply: () => Promise.reject(new Error('the disk is full')) };
    await assert.rejects(migrate(placeOf('hot'), null, [...MIGRATIONS, column, broken]), /the disk is full/);
    assert.equal(await schemaVersion(client, 'marketprism_hot'), column.version);
    await migrate(placeOf('hot'), null, [...MIGRATIONS, column, later]);
    const query =
      "SELECT default_expression FROM system.columns WHERE database = 'marketprism_hot' AND table = 'trades' AND name = 'venue_note'";
    assert.deepEqual(await server.query(query), [["\\'unknown\\'"]]);
  });

  test('two services that start at once, on a fresh database and on one with rows, both go on', async () => {
    const fresh = await freshShapes();
    const all = [...MIGRATIONS, column, later];
    await Promise.all(Array.from({ length: 4 }, () => migrate(placeOf('hot'))));
    assert.deepEqual(await shape('hot'), fresh[0]);
    await store(0, 50);
    const clients = Array.from({ length: 4 }, () => server.client());
    await Promise.all(clients.map((each) => migrate({ ...placeOf('hot'), client: each }, null, all)));
    assert.deepEqual(await selectText(client, 'SELECT count(), uniqExact(trade_id) FROM marketprism_hot.trades'), [
      ['50', '50'],
    ]);
    assert.deepEqual(
      await applied('hot'),
      all.map(({ version }) => version),
    );
    assert.equal(await schemaVersion(client, 'marketprism_hot'), later.version);
  });
});
