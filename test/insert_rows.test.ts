import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test } from 'node:test';
import { ClickHouseFault } from '../scripts/lib/embedded/faults.ts';
import { mayBeQuoted, unquotedFault } from '../scripts/lib/embedded/insert_rows.ts';
import { Pipeline, READY_MS } from './pipeline.ts';

/** Enough for a quote. */
const ROWS = 10_000;
const INSERT = 'INSERT INTO q.t FORMAT JSONEachRow';
/** A setting of its own on errors keeps the quote away: what the engine says then is what it says of the rows alone. */
const PLAIN = { input_format_allow_errors_num: '0' };

const line = (a: number | string, s = 'text') => `{"a":${a},"s":${JSON.stringify(s)}}`;
const body = (lines: string[]) => `${lines.join('\n')}\n`;
const good = Array.from({ length: ROWS }, (_, i) => line(i));

describe('an insert into the embedded engine', { timeout: READY_MS * 4 }, () => {
  const pipeline = new Pipeline();

  before(async () => {
    await pipeline.choosePorts();
    await pipeline.startDatabase();
    await sql('CREATE DATABASE q');
    await sql(
      "CREATE TABLE q.t (a UInt32 DEFAULT throwIf(1, 'a is absent'), s String, CONSTRAINT small CHECK a < 1000000) ENGINE = MergeTree ORDER BY a",
    );
  });
  afterEach(() => sql('TRUNCATE TABLE q.t'));
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

  const HARMLESS = ['`', '-- { serverError 27 }', '-- { error 27 }', '/* ', '\\', '\n', '\n\n', '$a$', '\u2019', ''];
  for (const [what, words] of [
    ['comments and commands', HARMLESS],
    ['quotes, comments and commands', [...HARMLESS, "'", "''", "it's -- { error 27 }", "'; DROP TABLE q.t; --"]],
  ] as const) {
    test(`stores each of many rows once, with ${what} in its text`, async () => {
      const rows = Array.from({ length: ROWS }, (_, i) => line(i, words[i % words.length]!));
      assert.equal((await send(INSERT, body(rows))).status, 200);
      assert.equal(await stored(), `${ROWS},${ROWS}`);
    });
  }

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
    test(`stores nothing of many rows with ${what} among them, wherever it stands, and says the same as of rows without a quote`, async () => {
      for (const at of [0, 1, ROWS >> 1, ROWS]) {
        const rows = body([...good.slice(0, at), bad, ...good.slice(at)]);
        const [said, plainly] = [await send(INSERT, rows), await send(INSERT, rows, PLAIN)];
        assert.notEqual(plainly.status, 200);
        assert.deepEqual(said, plainly);
        assert.equal(await stored(), '0,0');
      }
    });
  }

  for (const [format, rows] of [
    ['JSONEachRow', body([...good, line(1, "it's -- { error 27 }"), line('"x"')])],
    ['TSV', '1\t-- { clientError 27 }\nx\ty\n'],
  ] as const) {
    test(`of ${format} tells that nothing was stored, although a text reads like a hint that an error is expected`, async () => {
      const said = await send(`INSERT INTO q.t FORMAT ${format}`, rows);
      assert.equal(said.status, 400);
      assert.match(said.text, /^Code: 27\. DB::Exception: /);
      assert.equal(await stored(), '0,0');
    });
  }

  for (const lines of [good, good.slice(0, 100)]) {
    test(`passes over empty lines among ${lines.length} JSON rows, and executes nothing that stands behind one`, async () => {
      const said = await send(INSERT, `${body(lines)}\nDROP TABLE q.t\n`);
      assert.equal(said.status, 400);
      assert.equal(await stored(), '0,0');
      assert.equal((await send(INSERT, `\n\n${lines.join('\n\n\n')}\n\n`)).status, 200);
      assert.equal((await send(INSERT, ` \n\n${body(lines)}`)).status, 200);
      assert.equal(await stored(), `${2 * lines.length},${lines.length}`);
    });
  }

  for (const format of ['TSV', 'CSV', 'TabSeparatedWithNames']) {
    test(`of ${format} is refused with an empty line, which may be a row`, async () => {
      const said = await send(`INSERT INTO q.t FORMAT ${format}`, '1\tx\n\nDROP TABLE q.t\n');
      assert.equal(said.status, 501);
      assert.match(said.text, /^Code: 48\. DB::Exception: .* empty line .* after 4 bytes of /);
      assert.equal(await stored(), '0,0');
    });
  }

  for (const [query, settings] of [
    [INSERT, { input_format_allow_errors_num: '1' }],
    ['INSERT INTO q.t SETTINGS input_format_allow_errors_num = 1 FORMAT JSONEachRow', {}],
  ] as const) {
    test(`keeps to the errors that its sender allows: ${query}`, async () => {
      assert.equal((await send(query, body([...good, 'garbage']), settings)).status, 200);
      assert.equal(await stored(), `${ROWS},${ROWS}`);
    });
  }

  test('takes an array of many rows', async () => {
    assert.equal((await send(INSERT, `[${good.join(',\n')}]`)).status, 200);
    assert.equal(await stored(), `${ROWS},${ROWS}`);
  });

  test('makes parts that are merged twelve at once, not five', async () => {
    assert.equal(await sql("SELECT value FROM system.merge_tree_settings WHERE name = 'merge_selector_base'"), '12');
  });
});

test('only many rows of JSONEachRow that begin with a row, and have no quote in them, get one', () => {
  const rows = Buffer.from(body(good));
  const none = new Map<string, string>();
  assert.equal(mayBeQuoted(INSERT, 'JSONEachRow', none, rows), true);
  assert.equal(mayBeQuoted(INSERT, 'JSONEachRow', none, rows.subarray(0, 1000)), false);
  assert.equal(mayBeQuoted(INSERT, 'JSONCompactEachRow', none, rows), false);
  assert.equal(mayBeQuoted(INSERT, 'JSONEachRow', none, Buffer.concat([Buffer.from('['), rows])), false);
  assert.equal(mayBeQuoted(INSERT, 'JSONEachRow', none, Buffer.from(body([...good, line(1, "it's")]))), false);
  assert.equal(mayBeQuoted(INSERT, 'JSONEachRow', new Map([['input_format_allow_errors_ratio', '0.5']]), rows), false);
  assert.equal(mayBeQuoted(`${INSERT} SETTINGS Input_Format_Allow_Errors_Num = 3`, 'JSONEachRow', none, rows), false);
});

test('a fault that names no row is left as it is', () => {
  const { code, type, message } = unquotedFault(new ClickHouseFault(60, 'UNKNOWN_TABLE', 'Table q.u does not exist'));
  assert.deepEqual([code, type, message], [60, 'UNKNOWN_TABLE', 'Table q.u does not exist']);
});
