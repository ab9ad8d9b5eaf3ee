/** Rows of the harvest in their tables: each once, whatever comes between, on the real engine. */
import assert from 'node:assert/strict';
import { createServer, request } from 'node:http';
import type { AddressInfo } from 'node:net';
import { after, before, beforeEach, describe, test } from 'node:test';
import type { ClickHouseClient } from '@clickhouse/client';
import { type ClickHouseFault, ClickHouseProxy } from '../scripts/lib/chaos/clickhouse_proxy.ts';
import { createClickHouse } from '../scripts/lib/clickhouse.ts';
import { SIGNAL_KINDS, type SignalKind } from '../scripts/lib/harvest/kinds.ts';
import { type HarvestLine, harvestLock, NotStored, storeRows } from '../scripts/lib/harvest/table.ts';
import { waitFor } from '../scripts/lib/processes.ts';
import { ensureSignals } from '../scripts/lib/schema.ts';
import { HOUR, harvestRow, harvestRows } from './harvest_rows.ts';
import { Pipeline, READY_MS } from './pipeline.ts';

const DATABASE = 'marketprism_signals';
/** With the wait nothing can be seen to happen, so this is how long nothing must happen. */
const STILL_MS = 2000;
const never = new AbortController().signal;

/** Holds the first half of one insert's body at the server, and cuts the client off; everything else passes. */
class SlowLink {
  /** The next insert is held. */
  isArmed = false;
  held = 0;
  inserts = 0;
  release: () => void = () => undefined;
  private readonly server = createServer((incoming, answer) => {
    const chunks: Buffer[] = [];
    incoming.on('data', (chunk: Buffer) => chunks.push(chunk));
    incoming.on('end', () => {
      const body = Buffer.concat(chunks);
      const headers = { ...incoming.headers, 'content-length': String(body.length) };
      delete headers['transfer-encoding'];
      const outgoing = request(`${this.target}${incoming.url}`, { method: incoming.method, headers });
      outgoing.on('error', () => incoming.socket.destroy());
      const isInsert = `${decodeURIComponent(incoming.url!)}${body.subarray(0, 100)}`.includes('INSERT');
      if (isInsert) this.inserts += 1;
      if (!isInsert || !this.isArmed) {
        outgoing.on('response', (response) => {
          answer.writeHead(response.statusCode!, response.headers);
          response.pipe(answer);
        });
        outgoing.end(body);
        return;
      }
      this.isArmed = false;
      outgoing.on('response', (response) => response.resume());
      this.release = () => outgoing.end(body.subarray(body.length >> 1));
      outgoing.write(body.subarray(0, body.length >> 1), () => {
        this.held += 1;
        incoming.socket.destroy();
      });
    });
  });

  constructor(private readonly target: string) {}

  async listen(): Promise<string> {
    await new Promise<void>((done) => this.server.listen(0, '127.0.0.1', done));
    return `http://127.0.0.1:${(this.server.address() as AddressInfo).port}`;
  }

  async close(): Promise<void> {
    this.release();
    this.server.closeAllConnections();
    await new Promise((done) => this.server.close(done));
  }
}

describe('storing rows of the harvest', () => {
  const pipeline = new Pipeline();
  const proxied: ClickHouseClient[] = [];
  let client: ClickHouseClient;
  let proxy: ClickHouseProxy;
  /** Through the proxy. */
  let far: ClickHouseClient;

  before(async () => {
    await pipeline.choosePorts();
    await pipeline.startDatabase();
    client = pipeline.client();
    await ensureSignals(client, DATABASE);
    proxy = new ClickHouseProxy(pipeline.env.CLICKHOUSE_URL!);
    await proxy.listen(0);
    far = clientAt(`http://127.0.0.1:${proxy.port}`);
  });
  beforeEach(async () => {
    proxy.onRequest = () => null;
    for (const kind of SIGNAL_KINDS) await client.command({ query: `TRUNCATE TABLE ${DATABASE}.${kind}` });
  });
  after(async () => {
    for (const each of proxied) await each.close();
    await proxy?.close();
    await pipeline.close();
  });

  function clientAt(url: string): ClickHouseClient {
    const made = createClickHouse({ url, username: 'default', password: '' }, 'test');
    proxied.push(made);
    return made;
  }
  const store = (kind: SignalKind, rows: HarvestLine[], by = client) => storeRows(by, DATABASE, kind, rows, never);

  /** Rows and distinct rows. */
  async function count(kind: SignalKind): Promise<number[]> {
    const [row] = await pipeline.query(`SELECT count(), uniqExact(exchange, row_id) FROM ${DATABASE}.${kind}`);
    return row!.map(Number);
  }

  async function failure(work: Promise<unknown>): Promise<NotStored> {
    const error = await work.then(
      () => null,
      (why: unknown) => why,
    );
    assert.ok(error instanceof NotStored, String(error));
    return error;
  }

  test('rows of every kind come back to the last digit, and given again they are there once', async () => {
    for (const kind of SIGNAL_KINDS) {
      const rows = harvestRows(kind, 0, 300);
      assert.deepEqual(await store(kind, rows), { stored: 300, present: 0 }, kind);
      const more = harvestRows(kind, 200, 200);
      assert.deepEqual(await store(kind, [...more, ...more]), { stored: 100, present: 300 }, kind);
      assert.deepEqual(await count(kind), [400, 400], kind);
      const times = ['timestamp AS ts', 'received_at AS recv_ts', 'second_ts AS second_ts']
        .slice(0, kind === 'features' ? 3 : 2)
        .map((each) => each.replace(/^(\w+) AS (\w+?)(?:_ms)?$/, 'toUnixTimestamp64Milli($1) AS $2_ms'));
      const query = `SELECT *, ${times.join(', ')} FROM ${DATABASE}.${kind} ORDER BY timestamp, row_id LIMIT 1`;
      const result = await client.query({ query, format: 'JSONEachRow' });
      const [stored] = await result.json<Record<string, unknown>>();
      const { kind: _kind, date: _date, hour: _hour, source_tier: _tier, ...expected } = rows[0]!;
      for (const [name, value] of Object.entries(expected)) {
        const found = stored![name === 'second_ts' ? 'second_ts_ms' : name];
        assert.deepEqual(typeof value === 'number' ? Number(found) : found, value, `${kind}.${name}`);
      }
    }
  });

  test('rows of one id at two exchanges are two rows, and rows far apart in time are found each', async () => {
    const rows = [HOUR, HOUR - 40 * 86_400_000, HOUR - 300 * 86_400_000].flatMap((at) =>
      (['binance_derivatives', 'okx_derivatives'] as const).map((exchange) =>
        harvestRow('ofi', 1, { at, exchange, more: { row_id: 'a'.repeat(32) } }),
      ),
    );
    // One id at one exchange is one row, whatever else it says.
    assert.deepEqual(await store('ofi', rows), { stored: 2, present: 4 });
    const apart = harvestRows('cvd', 0, 200).map((row, i) => ({ ...row, ts_ms: HOUR - i * 86_400_000 }));
    assert.deepEqual(await store('cvd', apart), { stored: 200, present: 0 });
    assert.deepEqual(await store('cvd', apart.toReversed()), { stored: 0, present: 200 });
  });

  test('what the table would refuse is named row by row, and the others are stored', async () => {
    const rows = harvestRows('cvd', 0, 500);
    const wrong: [number, Record<string, unknown>, RegExp][] = [
      [3, { cvd: '1e5' }, /^TYPE_MISMATCH: cvd is no Decimal\(38, 18\): "1e5"$/],
      [4, { cvd: 12 }, /cvd is no Decimal/],
      [40, { delta: '0.1234567890123456789' }, /delta is no Decimal/],
      [41, { z_cvd: Number.NaN }, /z_cvd is no Nullable\(Float64\): null/],
      [42, { reconnect_count: -1 }, /reconnect_count is no UInt32: -1/],
      [43, { session: null }, /session is no LowCardinality\(String\): null/],
      [44, { row_id: 'x' }, /row_id is no FixedString/],
      [45, { symbol: "a'b" }, /symbol is no name/],
      [46, { z_row: 1 }, /^Unknown field found: the table cvd has no z_row/],
      [47, { kind: 'ofi' }, /^its kind is ofi, not cvd$/],
      [48, { z_raw: undefined }, /^z_raw is absent$/],
      [49, { ts_ms: 1.5 }, /ts_ms is no DateTime64/],
    ];
    for (const [i, more] of wrong) Object.assign(rows[i]!, more);
    const { refused, unconfirmed, stored } = await failure(store('cvd', rows));
    assert.deepEqual([unconfirmed.length, stored], [0, 500 - wrong.length]);
    assert.deepEqual(
      refused.map(({ row }) => rows.indexOf(row)),
      wrong.map(([i]) => i),
    );
    for (const [n, { reason }] of refused.entries()) assert.match(reason, wrong[n]![2]);
    assert.deepEqual(await count('cvd'), [500 - wrong.length, 500 - wrong.length]);
  });

  test('what only the table knows to be wrong is found by halving, in a bounded number of inserts', async () => {
    await client.command({ query: `ALTER TABLE ${DATABASE}.ofi ADD CONSTRAINT sane CHECK scale < 5` });
    try {
      const rows = harvestRows('ofi', 0, 2000);
      const bad = new Set([0, 700, 701, 1999]);
      for (const i of bad) rows[i]!.scale = 9;
      const { refused } = await failure(store('ofi', rows));
      assert.deepEqual(new Set(refused.map(({ row }) => rows.indexOf(row))), bad);
      for (const { reason } of refused) assert.match(reason, /^VIOLATED_CONSTRAINT: /);
      assert.deepEqual(await count('ofi'), [1996, 1996]);
      let inserts = 0;
      proxy.onRequest = (statement) => {
        if (statement.includes('INSERT INTO')) inserts += 1;
        return null;
      };
      const all = harvestRows('ofi', 5000, 3000).map((row) => ({ ...row, scale: 9 }));
      const last = await failure(store('ofi', all, far));
      assert.deepEqual([last.refused.length, last.stored], [3000, 0]);
      assert.ok(inserts <= 200, `${inserts} inserts`);
      assert.match(last.refused.at(-1)!.reason, /rows that were refused together/);
    } finally {
      await client.command({ query: `ALTER TABLE ${DATABASE}.ofi DROP CONSTRAINT sane` });
    }
  });

  test('an insert whose answer is lost, whose body is cut off, or that meets an error leaves each row once', async () => {
    const faults: [ClickHouseFault, SignalKind][] = [
      ['answer_lost', 'ofi'],
      ['body_cut', 'cvd'],
      ['refused', 'fusion'],
      ['unavailable', 'events'],
      ['erring', 'features'],
    ];
    const left = new Map(faults.map(([fault, kind]) => [`INSERT INTO ${DATABASE}.${kind} `, fault]));
    proxy.onRequest = (statement) => {
      const found = [...left].find(([insert]) => statement.includes(insert));
      if (found === undefined) return null;
      left.delete(found[0]);
      return found[1];
    };
    await Promise.all(
      faults.map(async ([fault, kind]) => {
        const rows = harvestRows(kind, 0, 700);
        await store(kind, rows.slice(0, 100));
        assert.deepEqual(await store(kind, rows, far), { stored: 600, present: 100 }, fault);
        assert.deepEqual(await count(kind), [700, 700], fault);
      }),
    );
    assert.equal(left.size, 0);
  });

  test('a database that is away: all rows that are not known to be stored are named, and stored once later', async () => {
    const rows = harvestRows('events', 0, 12_000);
    let inserts = 0;
    let isAway = false;
    proxy.onRequest = (statement) => {
      if (isAway) return 'refused';
      if (statement.includes('INSERT INTO')) inserts += 1;
      // The second insert is made, and its answer lost; after that nobody answers.
      isAway = inserts === 2;
      return isAway ? 'answer_lost' : null;
    };
    const { unconfirmed, stored, refused, cause } = await failure(store('events', rows, far));
    assert.deepEqual([stored, unconfirmed.length, refused.length], [10_000, 2000, 0]);
    assert.ok(cause instanceof Error);
    proxy.onRequest = () => null;
    assert.deepEqual(await store('events', [...unconfirmed], far), { stored: 0, present: 2000 });
    assert.deepEqual(await count('events'), [12_000, 12_000]);
  });

  for (const [name, kind] of [
    ['that was cut off is waited for', 'features'],
    ['that was stopped is waited for by the next call', 'cvd'],
    ['of a process that is gone is waited for by the next one', 'ofi'],
  ] as const) {
    test(`an insert ${name}, and its rows are there once`, async () => {
      const link = new SlowLink(pipeline.env.CLICKHOUSE_URL!);
      try {
        const url = await link.listen();
        const by = clientAt(url);
        const rows = harvestRows(kind, 0, 500);
        link.isArmed = true;
        const stop = new AbortController();
        const first = storeRows(by, DATABASE, kind, rows, stop.signal);
        const isLeft = kind !== 'features';
        const settled = isLeft ? failure(first) : first;
        await waitFor('the held insert', READY_MS, async () => link.held === 1);
        if (isLeft) stop.abort(new Error('stopped'));
        // What another process knows of earlier inserts, another client knows: nothing.
        const next = kind === 'ofi' ? clientAt(url) : by;
        const again = isLeft ? settled.then(() => store(kind, rows, next)) : settled;
        let isDone = false;
        const isOver = () => {
          isDone = true;
        };
        void again.then(isOver, isOver);
        await new Promise((done) => setTimeout(done, STILL_MS));
        assert.deepEqual([link.inserts, isDone], [1, false], 'no second insert while the first may happen');
        link.release();
        assert.deepEqual(await again, isLeft ? { stored: 0, present: 500 } : { stored: 500, present: 0 });
        assert.deepEqual(await count(kind), [500, 500]);
      } finally {
        await link.close();
      }
    });
  }

  test('calls side by side with the same rows store each once', async () => {
    const rows = harvestRows('cvd', 0, 3000);
    const done = await Promise.all([0, 1, 2].map((i) => store('cvd', rows.slice(i * 500))));
    assert.equal(
      done.reduce((sum, { stored }) => sum + stored, 0),
      3000,
    );
    assert.deepEqual(await count('cvd'), [3000, 3000]);
  });

  test('one process at a time writes an exchange', async () => {
    const lock = await harvestLock(pipeline.dir, 'binance_derivatives');
    await assert.rejects(harvestLock(pipeline.dir, 'binance_derivatives'), /is already held \(pid \d+/);
    await (await harvestLock(pipeline.dir, 'okx_derivatives')).release();
    await lock.release();
  });
});
