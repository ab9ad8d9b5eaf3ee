import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import type { ClickHouseFault } from '../scripts/lib/embedded/faults.ts';
import { ClickHouseFault as Fault } from '../scripts/lib/embedded/faults.ts';
import { mayBeQuoted, unquotedFault } from '../scripts/lib/embedded/quoted_rows.ts';
import { Pipeline, READY_MS } from './pipeline.ts';

const ROWS = 10_000;
const INSERT = 'INSERT INTO q.t FORMAT JSONEachRow';
/** A setting of its own on errors keeps the quote away: what the engine says then is what it says of the rows alone. */
const PLAIN = { input_format_allow_errors_num: '0' };

const line = (a: number | string, s = 'text') => `{"a":${a},"s":${JSON.stringify(s)}}`;
const body = (lines: string[]) => `${lines.join('\n')}\n`;
const good = Array.from({ length: ROWS }, (_, i) => line(i));

describe('an insert with many rows into the embedded engine', { timeout: READY_MS * 4 }, () => {
  const pipeline = new Pipeline();

  before(async () => {
    await pipeline.choosePorts();
    await pipeline.startDatabase();
    await sql('CREATE DATABASE q');
    await sql(
      "CREATE TABLE q.t (a UInt32 DEFAULT throwIf(1, 'a is absent'), s String, CONSTRAINT small CHECK a < 1000000) ENGINE = MergeTree ORDER BY a",
    );
  });
  after(() => pipeline.close());

  async function send(query: string, rows: string, settings: Record<string, string> = {}) {
    const own = { input_format_skip_unknown_fields: '0', input_format_null_as_default: '0', ...settings };
    const url = `${pipeline.env.CLICKHOUSE_URL}/?${new URLSearchParams({ ...own, query })}`;
    const reply = await fetch(url, { method: 'POST', body: rows });
    return { status: reply.status, text: (await reply.text()).replace(/ \([0-9a-f-]{36}\)/, '') };
  }

  async function sql(query: string): Promise<string> {
    const { status, text } = await send(query, '');
    assert.equal(status, 200, text);
    return text.trim();
  }

  /** @returns rows there, and how many different ones */
  const stored = () => sql('SELECT count(), uniqExact(a, s) FROM q.t FORMAT CSV');

  test('stores each row once, whatever quotes, comments and commands its text holds', async () => {
    const words = [
      "'",
      "''",
      '`',
      '-- { serverError 27 }',
      '/* ',
      '\\',
      '\n',
      "'; DROP TABLE q.t; --",
      '$a$',
      '\u2019',
      '',
    ];
    const rows = Array.from({ length: ROWS }, (_, i) => line(i, words[i % words.length]!));
    assert.equal((await send(INSERT, body(rows))).status, 200);
    assert.equal(await stored(), `${ROWS},${ROWS}`);
    await sql('TRUNCATE TABLE q.t');
  });

  for (const [what, bad] of [
    ['a value that cannot be read', line('"x"')],
    ['a member too many', '{"a":1,"s":"","z":1}'],
    ['a member that is absent', '{"s":""}'],
    ['no row', 'garbage'],
    ['half a row', '{"a":1'],
    ['something behind the row', `${line(1)} more`],
    ['a value that the table refuses', line(1_000_000)],
    ['a quote alone', "'"],
  ] as const) {
    test(`stores nothing with ${what} in it, wherever it stands, and says the same as of rows without a quote`, async () => {
      for (const at of [0, 1, ROWS >> 1, ROWS]) {
        const rows = body([...good.slice(0, at), bad, ...good.slice(at)]);
        const [said, plainly] = [await send(INSERT, rows), await send(INSERT, rows, PLAIN)];
        assert.notEqual(plainly.status, 200);
        assert.deepEqual(said, plainly);
        assert.equal(await stored(), '0,0');
      }
    });
  }

  test('keeps to the errors that its sender allows', async () => {
    const rows = body([...good, 'garbage']);
    assert.equal((await send(INSERT, rows, { input_format_allow_errors_num: '1' })).status, 200);
    assert.equal(await stored(), `${ROWS},${ROWS}`);
    await sql('TRUNCATE TABLE q.t');
    const own = 'INSERT INTO q.t SETTINGS input_format_allow_errors_num = 1 FORMAT JSONEachRow';
    assert.equal((await send(own, rows)).status, 200);
    assert.equal(await stored(), `${ROWS},${ROWS}`);
    await sql('TRUNCATE TABLE q.t');
  });

  test('takes an array of rows, and rows with space before them', async () => {
    assert.equal((await send(INSERT, `[${good.join(',\n')}]`)).status, 200);
    assert.equal((await send(INSERT, ` \n\n${body(good)}`)).status, 200);
    assert.equal(await stored(), `${2 * ROWS},${ROWS}`);
    await sql('TRUNCATE TABLE q.t');
  });
});

test('only many rows of JSONEachRow that begin with a row get a quote', () => {
  const rows = Buffer.from(body(good));
  const none = new Map<string, string>();
  assert.equal(mayBeQuoted(INSERT, 'JSONEachRow', none, rows), true);
  assert.equal(mayBeQuoted(INSERT, 'JSONEachRow', none, rows.subarray(0, 1000)), false);
  assert.equal(mayBeQuoted(INSERT, 'JSONCompactEachRow', none, rows), false);
  assert.equal(mayBeQuoted(INSERT, 'JSONEachRow', none, Buffer.concat([Buffer.from('['), rows])), false);
  assert.equal(mayBeQuoted(INSERT, 'JSONEachRow', new Map([['input_format_allow_errors_ratio', '0.5']]), rows), false);
  assert.equal(mayBeQuoted(`${INSERT} SETTINGS Input_Format_Allow_Errors_Num = 3`, 'JSONEachRow', none, rows), false);
});

test('a fault that names no row is left as it is', () => {
  const fault: ClickHouseFault = new Fault(60, 'UNKNOWN_TABLE', 'Table q.u does not exist');
  assert.deepEqual(
    { ...unquotedFault(fault), message: unquotedFault(fault).message },
    { ...fault, message: fault.message },
  );
});
