import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  formatClause,
  processesReads,
  quoteString,
  readInsert,
  readKill,
  readStatement,
  type SqlError,
  substituteParams,
  tokens,
} from '../scripts/lib/sql_text.ts';

const code = (wanted: number) => (error: unknown) => (error as SqlError).code === wanted;
const params = (values: Record<string, string>) => new Map(Object.entries(values));

test('strings, comments, quoted names and heredocs are told from code', () => {
  const sql = "SELECT 'a;''b\\'c' /* ; /* in */ ; */ , `x;y`, \"q\"\"r\", $t$ ; $t$ -- ; end\n, 1.5e3 # no\n";
  assert.deepEqual(
    [...tokens(sql)].map((token) => token.text),
    ['SELECT', "'a;''b\\'c'", ',', '`x;y`', ',', '"q""r"', ',', '$t$ ; $t$', ',', '1.5e3'],
  );
});

test('a text that never ends is a syntax error', () => {
  for (const sql of ["SELECT 'a", 'SELECT /* x', 'SELECT `a', 'SELECT $$ a']) {
    assert.throws(() => [...tokens(sql)], code(62), sql);
  }
});

test('one statement may end in semicolons, two are refused, none is refused', () => {
  assert.equal(readStatement('SELECT 1 ; ;').sql, 'SELECT 1 ');
  assert.equal(readStatement("SELECT ';'").sql, "SELECT ';'");
  assert.throws(() => readStatement('SELECT 1; SELECT 2'), code(62));
  assert.throws(() => readStatement(' -- nothing\n'), code(62));
});

test('the kind of a statement is told by its words and not by its strings', () => {
  const kinds: Record<string, string> = {
    '(SELECT 1) UNION ALL (SELECT 2)': 'select',
    'WITH 1 AS x SELECT x': 'select',
    'WITH x AS (SELECT 1) INSERT INTO t SELECT * FROM x': 'insert',
    '/* INSERT */ show tables': 'read',
    'insert into t values (1)': 'insert',
    "KILL QUERY WHERE query_id = 'a'": 'kill',
    "KILL MUTATION WHERE mutation_id = 'a'": 'change',
    'SET max_threads = 1': 'session',
    'DROP TABLE t': 'change',
  };
  for (const [sql, kind] of Object.entries(kinds)) assert.equal(readStatement(sql).kind, kind, sql);
  assert.throws(() => readStatement("SELECT 1 INTO OUTFILE 'x'"), code(358));
});

test('the FORMAT clause is found where it is one, and the output clause goes before it', () => {
  const clause = (sql: string) => {
    const { format, outputAt } = formatClause(readStatement(sql));
    return [format, sql.slice(0, outputAt).trim()];
  };
  assert.deepEqual(clause('SELECT 1 FORMAT JSON'), ['JSON', 'SELECT 1']);
  assert.deepEqual(clause('SELECT 1 FORMAT JSON SETTINGS max_threads = 1'), ['JSON', 'SELECT 1']);
  assert.deepEqual(clause('SELECT 1 SETTINGS a = 1 FORMAT CSV;'), ['CSV', 'SELECT 1 SETTINGS a = 1']);
  assert.deepEqual(clause("SELECT * FROM format(CSV, '1')"), [undefined, "SELECT * FROM format(CSV, '1')"]);
  assert.deepEqual(clause("SELECT ' FORMAT JSON'"), [undefined, "SELECT ' FORMAT JSON'"]);
});

test('the head of an INSERT ends where its rows begin', () => {
  const rows = (sql: string) => {
    const insert = readInsert(sql);
    return [insert?.source, insert?.format, sql.slice(insert?.dataAt)];
  };
  assert.deepEqual(rows('INSERT INTO t FORMAT CSV\n1,2\n'), ['inline', 'CSV', '1,2\n']);
  assert.deepEqual(rows('INSERT INTO t FORMAT TSV \r\n\t1\n'), ['inline', 'TSV', '\t1\n']);
  assert.deepEqual(rows('INSERT INTO d.t (a, `b)`) SETTINGS x = 1 FORMAT JSONEachRow {"a":"\'"}'), [
    'inline',
    'JSONEachRow',
    '{"a":"\'"}',
  ]);
  assert.deepEqual(rows('INSERT INTO t FORMAT Values (1)'), ['values', 'Values', ' (1)']);
  assert.deepEqual(rows('INSERT INTO t (a) VALUES (1)'), ['values', 'Values', ' (1)']);
  assert.deepEqual(rows('INSERT INTO t SELECT 1'), ['select', undefined, '']);
  assert.deepEqual(rows('INSERT INTO format FORMAT TSV\n1'), ['inline', 'TSV', '1']);
  assert.equal(readInsert('SELECT 1'), undefined);
  assert.throws(() => readInsert("INSERT INTO t SELECT * FROM input('a UInt8') FORMAT CSV\n1"), code(48));
  assert.throws(
    () => readInsert("INSERT INTO t SELECT a FROM (SELECT * FROM input('a UInt8')) FORMAT CSV 1"),
    code(48),
  );
});

test('parameters are put in place outside of strings, as literals that the engine reads back', () => {
  const put = (sql: string, values: Record<string, string>) => substituteParams(sql, params(values));
  assert.equal(put("SELECT {a:String}, '{a:String}'", { a: "x'\\\\y\\n" }), "SELECT 'x\\'\\\\y\n', '{a:String}'");
  assert.equal(put('SELECT {a:UInt8}', { a: '5' }), "SELECT _CAST(5, 'UInt8')");
  assert.equal(put('SELECT {a:Nullable(String)}', { a: '\\N' }), 'SELECT CAST(NULL AS Nullable(String))');
  assert.equal(put('SELECT * FROM {t:Identifier}', { t: 'd.a`b' }), 'SELECT * FROM `d`.`a\\`b`');
  assert.equal(
    put('SELECT {a:Array(String)}', { a: "['x\\'y']" }),
    "SELECT CAST('[\\'x\\\\\\'y\\']' AS Array(String))",
  );
  assert.equal(put("SELECT {'a': 1}, map('b', 2)", {}), "SELECT {'a': 1}, map('b', 2)");
  assert.throws(() => put('SELECT {b:UInt8}', { a: '1' }), code(456));
});

test('a value cannot leave its quotes', () => {
  for (const value of ["'", "\\'", "\\\\'", "''; DROP TABLE t; --", '\0']) {
    const [token, ...more] = [...tokens(quoteString(value))];
    assert.equal(token?.kind, 'string');
    assert.equal(more.length, 0);
  }
});

test('reads of system.processes are found in FROM and JOIN, and as what servers of a cluster are asked for', () => {
  const found = (sql: string) => processesReads([...tokens(sql)]).map((read) => read.as);
  assert.deepEqual(found('SELECT * FROM system.processes WHERE 1'), ['table']);
  assert.deepEqual(found('SELECT * FROM `system`."processes" AS p JOIN system.processes q ON 1'), ['alias', 'alias']);
  assert.deepEqual(found("SELECT 'FROM system.processes' FROM system.one"), []);
  assert.deepEqual(found("SELECT count() FROM clusterAllReplicas('c', system.processes) WHERE 1"), ['argument']);
});

test('KILL QUERY is read with its mode and format', () => {
  const kill = (sql: string) => readKill(readStatement(sql));
  assert.deepEqual(kill("KILL QUERY WHERE query_id = 'SYNC' SYNC FORMAT JSON"), {
    condition: " query_id = 'SYNC' ",
    mode: 'SYNC',
    format: 'JSON',
  });
  assert.equal(kill('KILL QUERY WHERE 1').mode, 'ASYNC');
  assert.throws(() => kill('KILL QUERY'), code(62));
});
