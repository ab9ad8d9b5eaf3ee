/** Letters land in the deadletter, are told, and come back: each row once, with the real broker, database and store. */
import assert from 'node:assert/strict';
import { type SpawnSyncReturns, spawn } from 'node:child_process';
import { once } from 'node:events';
import fs, {
  appendFileSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, beforeEach, describe, mock, test } from 'node:test';
import { headers, type NatsConnection } from 'nats';
import { prettyRow, sinceTime } from '../scripts/deadletter.ts';
import {
  appendDeadLetters,
  causeOf,
  type DeadLetter,
  letterFiles,
  readLetter,
  shortReason,
} from '../scripts/lib/deadletter.ts';
import { type ReplayOptions, replayHealing, replayLetters } from '../scripts/lib/deadletter_replay.ts';
import { linesOf } from '../scripts/lib/jsonl.ts';
import { takeLock } from '../scripts/lib/lock.ts';
import { createLogger } from '../scripts/lib/log.ts';
import { waitFor } from '../scripts/lib/processes.ts';
import { encodeRow } from '../scripts/lib/rows.ts';
import { sampleTrade } from './fixtures.ts';
import { Pipeline, READY_MS } from './pipeline.ts';

const SUBJECT = 'trade.binance_spot.spot.BTC-USDT';
const log = createLogger('test', 'silent');
const NONE = 'no letters: everything that was accepted is stored or on its way';

const good = (id: number) => encodeRow('trade', sampleTrade(id));
const poison = (id: number) => good(id).replace('"61837.63"', '"sixty"');

type Ran = Pick<SpawnSyncReturns<string>, 'status' | 'signal' | 'stdout' | 'stderr'>;

/** Not spawnSync: the lock's holder in this process answers meanwhile. */
async function runCommand(env: NodeJS.ProcessEnv, ...args: string[]): Promise<Ran> {
  const child = spawn(process.execPath, ['--import', 'tsx', 'scripts/deadletter.ts', ...args], { env });
  const out = { stdout: '', stderr: '' };
  child.stdout.on('data', (chunk) => {
    out.stdout += chunk;
  });
  child.stderr.on('data', (chunk) => {
    out.stderr += chunk;
  });
  const [status, signal] = await once(child, 'close');
  return { status, signal, ...out };
}

describe('replaying the deadletter', () => {
  // The store must not replay beside what is tested here.
  const pipeline = new Pipeline({ MARKETPRISM_DEADLETTER_RETRY: '1d' });
  const directory = join(pipeline.dir, 'deadletter', 'trade');
  const today = () => `${new Date().toISOString().slice(0, 10)}.ndjson`;
  const deadletter = (...args: string[]) => runCommand(pipeline.env, ...args);
  let nats: NatsConnection;

  before(async () => {
    await pipeline.choosePorts();
    await pipeline.startBroker();
    await pipeline.startDatabase();
    await pipeline.startStore();
    nats = await pipeline.nats();
  });
  beforeEach(() => {
    rmSync(join(pipeline.dir, 'deadletter'), { recursive: true, force: true });
    rmSync(join(pipeline.dir, 'state', 'deadletter.json'), { force: true });
  });
  after(async () => {
    await nats?.close();
    await pipeline.close();
  });

  async function publish(lines: string[], mode = 'live'): Promise<void> {
    const head = headers();
    head.set('Mp-Mode', mode);
    await nats.jetstream().publish(SUBJECT, lines.join('\n'), { headers: head });
    await pipeline.drained();
  }

  const command = async (query: string) => pipeline.client().command({ query });

  /** Rows and distinct ids in hot. */
  async function inHot(first: number, last: number): Promise<number[]> {
    const where = `toUInt64(trade_id) BETWEEN ${first} AND ${last}`;
    const sql = `SELECT count(), uniqExact(trade_id) FROM marketprism_hot.trades WHERE ${where}`;
    return (await pipeline.query(sql))[0]!.map(Number);
  }

  const options = (more: Partial<ReplayOptions> = {}): ReplayOptions => ({
    dataDir: pipeline.dir,
    mode: 'live',
    nats,
    log,
    ...more,
  });

  const letter = (row: string, more: Partial<DeadLetter> = {}): DeadLetter => ({
    reason: 'TYPE_MISMATCH: test',
    subject: SUBJECT,
    js_epoch: 1,
    js_seq: 1,
    row,
    ...more,
  });
  const append = (letters: DeadLetter[], at = new Date()) => appendDeadLetters(pipeline.dir, 'trade', letters, at);

  /** Every file below the deadletter and its content. */
  function tree(path = join(pipeline.dir, 'deadletter')): Record<string, string> {
    const entries = readdirSync(path, { withFileTypes: true, recursive: true }).filter((each) => each.isFile());
    return Object.fromEntries(
      entries
        .map((each) => join(each.parentPath, each.name))
        .map((each) => [each.slice(path.length + 1), readFileSync(each, 'utf8')]),
    );
  }

  const rowsIn = (name: string) =>
    readFileSync(join(directory, name), 'utf8')
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line).row as string);

  test('rows that the store could not take are listed by cause and explained', async () => {
    assert.deepEqual(await deadletter('list'), { status: 0, signal: null, stdout: `${NONE}\n`, stderr: '' });
    const bad = [
      ...[1, 2, 3].map(poison),
      good(4).replace('"price":"61837.63",', ''),
      good(5).replace('"price"', '"prise"'),
      good(6).replace('"buy"', '"borrow"'),
      good(7).slice(0, -40),
      good(8).replace('"61837.63"', `"${'9'.repeat(30)}"`),
    ];
    await publish(bad);
    await publish([good(9)], 'demo');
    const listed = await deadletter('list', '--json', '--since', '1h');
    assert.equal(listed.status, 1);
    const [file, ...others] = JSON.parse(listed.stdout).files;
    assert.deepEqual([others.length, file.kind, file.file, file.rows, file.bad], [0, 'trade', today(), 9, 0]);
    const causes = file.reasons.map((each: Record<string, unknown>) => [each.rows, each.cause, each.heals]);
    assert.deepEqual(causes[0], [3, 'wrong value', false]);
    assert.deepEqual(
      causes.slice(1).sort(),
      [
        [1, 'a member is absent', false],
        [1, 'no row text', false],
        [1, 'other mode', false],
        [1, 'unknown member', true],
        [1, 'unknown word', false],
        [1, 'value too large', false],
      ].sort(),
    );
    const text = (await deadletter('list', '--kind', 'trade')).stdout;
    assert.match(text, /^ {4}3 × CANNOT_PARSE_\w+: .*while reading the value of key price/m);
    assert.match(text, /Unknown field found while parsing JSONEachRow format: prise {2}\(may heal\)/);
    const line = rowsIn(today()).indexOf(poison(1)) + 1;
    const explained = await deadletter('explain', `trade/${today()}:${line}`);
    assert.equal(explained.status, 0, explained.stderr);
    assert.match(explained.stdout, /^trade\/\S+ndjson:\d, 20.*\nreason {3}CANNOT.*sixty/);
    assert.match(explained.stdout, /\ncause {4}wrong value\nheals {4}not by a replay alone/);
    assert.match(explained.stdout, /\n {2}"price": "sixty",\n/);
    // The newest, without a file.
    assert.match((await deadletter('explain')).stdout, /\nheals {4}never, and it is not replayed\n/);
  });

  test('a dry run tells and changes nothing', async () => {
    append([letter(good(20)), letter(good(21)), letter(good(22), { reason: 'Mp-Mode is demo, this store is live' })]);
    appendFileSync(join(directory, today()), 'no json\n');
    const before = { ...tree() };
    const { last_seq } = (await (await nats.jetstreamManager()).streams.info('MARKET_DATA')).state;
    const ran = await deadletter('replay', '--dry-run');
    assert.equal(ran.status, 1);
    assert.match(ran.stdout, /^would replay 2 rows of 1 files\nbad: 1 lines.*\nrefused by mode: 1 letters/);
    assert.match(ran.stderr, /^bad line: trade\/\S+:4: no JSON: /);
    assert.deepEqual(tree(), before);
    assert.equal((await (await nats.jetstreamManager()).streams.info('MARKET_DATA')).state.last_seq, last_seq);
  });

  test('mended letters are stored once; bad lines are kept with their numbers; the other mode is refused; a file copied back doubles nothing', async () => {
    await publish([30, 31, 32, 33].map(poison));
    await publish([good(34)], 'demo');
    const path = join(directory, today());
    // As an operator would: three are mended in the file, one is left as it is.
    const letters = readFileSync(path, 'utf8').trimEnd().split('\n');
    const mended = letters.map((text, i) => (i === 0 ? text : text.replace('\\"sixty\\"', '\\"61837.63\\"')));
    const foreign = { ...letter(good(35)), at: new Date().toISOString() };
    const lines = [
      'no json',
      '',
      '{"at":"2026-11-23T08:00:00Z"}',
      JSON.stringify({ ...foreign, subject: 'trade.binance_spot.spot.BTC-USDT\r\nPUB x 0' }),
      JSON.stringify({ ...foreign, subject: 'trade.binance_spot.spot.>' }),
      JSON.stringify({ ...foreign, subject: 'orderbook.binance_spot.spot.BTC-USDT' }),
      JSON.stringify({ ...foreign, subject: '$JS.API.STREAM.DELETE.MARKET_DATA' }),
      // Says of itself that it is simulated.
      JSON.stringify({ ...foreign, row: good(36).replace('"data_source":"live"', '"data_source":"demo"') }),
      '{"at":"2026-11-',
    ];
    const whole = [...mended, ...lines].join('\n');
    writeFileSync(path, whole);
    const ran = await deadletter('replay');
    assert.equal(ran.status, 1, ran.stderr);
    assert.match(ran.stdout, /^replayed 4 rows of 1 files\nbad: 7 lines.*\nrefused by mode: 2 letters; .* is live\n/);
    await pipeline.drained();
    assert.deepEqual(await inHot(30, 36), [3, 3]);
    assert.equal(readFileSync(join(directory, 'done', today()), 'utf8'), whole);
    const bad = readFileSync(join(directory, `${today()}.bad`), 'utf8');
    const kept = bad
      .trimEnd()
      .split('\n')
      .map((line) => line.split('\t'));
    assert.deepEqual(
      kept.map(([number, , line]) => [Number(number), line]),
      [6, 8, 9, 10, 11, 12, 14].map((number) => [number, lines[number - 6]]),
    );
    // What the table still refuses has come back.
    assert.equal(rowsIn(today()).length, 1);
    // Copied back, and replayed twice: no row and no bad line twice, and nothing in done/ is overwritten.
    for (const [index, name] of [today(), 'again.ndjson'].entries()) {
      copyFileSync(join(directory, 'done', today()), join(directory, name));
      assert.equal((await replayLetters(options())).replayed, 4 + index);
      await pipeline.drained();
    }
    assert.deepEqual(await inHot(30, 36), [3, 3]);
    const numbered = today().replace('.ndjson', '.1.ndjson');
    assert.deepEqual(
      readdirSync(join(directory, 'done')).sort(),
      [numbered, today(), today().replace('.ndjson', '.2.ndjson'), 'again.ndjson'].sort(),
    );
    assert.equal(readFileSync(join(directory, `${today()}.bad`), 'utf8'), bad);
  });

  test('by itself only what may have healed is tried, a bounded number of times; the other letters stay', async () => {
    await command('ALTER TABLE marketprism_hot.trades ADD CONSTRAINT sane CHECK quantity < 1000');
    try {
      const large = (id: number) => good(id).replace('"0.5"', '"5000"');
      await publish([large(40), poison(41), large(42)]);
      const healing = (now: number) => replayHealing({ ...options(), now, maxAttempts: 3, firstWaitMs: 1000 });
      const start = Date.now();
      const first = await healing(start);
      assert.deepEqual([first.replayed, first.left, first.postponed], [2, 1, 0]);
      await pipeline.drained();
      // The constraint is still there: both have come back, beside what was left.
      assert.deepEqual(
        letterFiles(pipeline.dir)
          .map(({ name }) => name)
          .sort(),
        [today().replace('.ndjson', '.1.ndjson'), today()].sort(),
      );
      assert.deepEqual([(await healing(start + 999)).replayed, (await healing(start + 999)).postponed], [0, 1]);
      assert.equal((await healing(start + 1000)).replayed, 2);
      await pipeline.drained();
      assert.deepEqual(await inHot(40, 42), [0, 0]);
      assert.equal((await healing(start + 2999)).postponed, 1, 'the wait has doubled');
      await command('ALTER TABLE marketprism_hot.trades DROP CONSTRAINT sane');
      assert.equal((await healing(start + 3000)).replayed, 2);
      await pipeline.drained();
      assert.deepEqual(await inHot(40, 42), [2, 2]);
      append([letter(large(43), { reason: 'VIOLATED_CONSTRAINT: test' })]);
      const last = await healing(start + 1e6);
      assert.deepEqual([last.replayed, last.postponed], [0, 1], 'three attempts a day');
      // The operator's own word counts more.
      const ran = await deadletter('replay');
      assert.deepEqual([ran.status, ran.stdout.split('\n')[0]], [0, 'replayed 2 rows of 2 files']);
      await pipeline.drained();
      assert.deepEqual(await inHot(40, 43), [3, 3]);
    } finally {
      await command('ALTER TABLE marketprism_hot.trades DROP CONSTRAINT IF EXISTS sane');
    }
  });

  test('killed when all is published and nothing moved, or in the middle, the next replay goes on and each row is there once', async () => {
    const rows = Array.from({ length: 300 }, (_, i) => good(1000 + i));
    append(rows.map((row) => letter(row)));
    for (const point of ['publish.acknowledged@300', 'publish.sent@40']) {
      const died = await runCommand({ ...pipeline.env, MARKETPRISM_CRASH_AT: point }, 'replay');
      assert.equal(died.signal, 'SIGKILL', died.stderr);
      assert.deepEqual(
        readdirSync(directory).filter((name) => !name.includes('.replaying-')),
        [],
      );
      assert.equal(letterFiles(pipeline.dir).length, 1, 'it is still told');
    }
    const ran = await deadletter('replay');
    assert.deepEqual([ran.status, ran.stdout.split('\n')[0]], [0, 'replayed 300 rows of 1 files']);
    await pipeline.drained();
    assert.deepEqual(await inHot(1000, 1299), [300, 300]);
    assert.deepEqual(readdirSync(directory), ['done']);
    assert.deepEqual(rowsIn(join('done', today())), rows);
  });

  test('letters that a replay left over are found by the next one, wherever it was killed', async () => {
    const old = new Date(Date.now() - 3_600_000);
    const name = `${old.toISOString().slice(0, 10)}.ndjson`;
    append([letter(good(50))], old);
    const rest = join(directory, `${name}.replaying-${process.pid}.rest`);
    // Of a crash before the move: the file itself counts, and its rest is made anew.
    copyFileSync(join(directory, name), join(directory, `${name}.replaying-${process.pid}`));
    rmSync(join(directory, name));
    writeFileSync(rest, 'torn');
    assert.equal(letterFiles(pipeline.dir).length, 1);
    renameSync(join(directory, `${name}.replaying-${process.pid}`), rest);
    // Of a crash after it: the rest counts, and a file of the same process number does not replace it.
    append([letter(good(51))], old);
    assert.equal((await replayLetters(options({ sinceMs: Date.now() - 7_200_000 }))).replayed, 2);
    await pipeline.drained();
    assert.deepEqual(await inHot(50, 51), [2, 2]);
    assert.deepEqual(readdirSync(directory), ['done']);
  });

  test('what is appended during a replay is not lost', async () => {
    const rows = (first: number, count: number) => Array.from({ length: count }, (_, i) => good(first + i));
    append(rows(2000, 3000).map((row) => letter(row)));
    let next = 5000;
    const onProgress = () => {
      if (next < 5100) append([letter(good(next++))]);
    };
    assert.equal((await replayLetters(options({ onProgress }))).replayed, 3000);
    assert.deepEqual(rowsIn(today()), rows(5000, 100));
    assert.equal((await replayLetters(options())).replayed, 100);
    await pipeline.drained();
    assert.deepEqual(await inHot(2000, 5099), [3100, 3100]);
  });

  test('a letter that the store writes into a file which a replay took at that moment is written again', () => {
    const [first, second] = [letter(good(60)), letter(good(61))];
    append([first]);
    const taken = join(directory, `${today()}.replaying-1`);
    const { openSync } = fs;
    const opening = mock.method(fs, 'openSync', (...args: Parameters<typeof openSync>) => {
      const file = openSync(...args);
      // The replay renames, and reads to the end, between the opening and the write.
      if (String(args[0]).endsWith(today()) && !existsSync(taken)) renameSync(join(directory, today()), taken);
      return file;
    });
    syncBuiltinESMExports();
    try {
      append([second]);
    } finally {
      opening.mock.restore();
      syncBuiltinESMExports();
    }
    assert.deepEqual(rowsIn(`${today()}.replaying-1`), [first.row, second.row]);
    assert.deepEqual(rowsIn(today()), [second.row]);
  });

  test('half a line that a crash left behind does not spoil the next letter', async () => {
    append([letter(good(62))]);
    appendFileSync(join(directory, today()), '{"at":"2026-11-23T08:0');
    append([letter(good(63))]);
    const told: string[] = [];
    const onBad: ReplayOptions['onBad'] = (file, line) => told.push(`${file.base}:${line}`);
    const summary = await replayLetters(options({ nats: null, onBad }));
    assert.deepEqual([summary.replayed, summary.bad, told], [2, 1, [`${today()}:2`]]);
  });

  test('two replays do not meet', async () => {
    append([letter(good(64))]);
    const lock = await takeLock(pipeline.dir, 'deadletter');
    try {
      const ran = await deadletter('replay');
      assert.equal(ran.status, 1);
      assert.match(ran.stderr, /^deadletter in \S+ is already held \(pid \d+, since .*\): stop that one first\n$/);
    } finally {
      await lock.release();
    }
    assert.deepEqual(readdirSync(directory), [today()]);
  });

  test('a row that is larger than the broker takes is kept as a bad line', async () => {
    append([letter(good(65)), letter(good(66).replace('0.5', '0'.repeat(1_100_000)))]);
    const summary = await replayLetters(options());
    assert.deepEqual([summary.replayed, summary.bad], [1, 1]);
    assert.match(
      readFileSync(join(directory, `${today()}.bad`), 'latin1'),
      /^2\ta row of 11\d{5} bytes, the broker takes 104\d{4}\t/,
    );
  });
});

describe('a store that runs', () => {
  const pipeline = new Pipeline({ MARKETPRISM_DEADLETTER_RETRY: '2s' });
  let nats: NatsConnection;

  before(async () => {
    await pipeline.choosePorts();
    await pipeline.startBroker();
    await pipeline.startDatabase();
    await pipeline.startStore();
    nats = await pipeline.nats();
  });
  after(async () => {
    await nats?.close();
    await pipeline.close();
  });

  test('stores by itself, once, what has healed, and keeps what has not', async () => {
    const command = (query: string) => pipeline.client().command({ query });
    const letters = () =>
      letterFiles(pipeline.dir).flatMap(({ directory, name }) =>
        readFileSync(join(directory, name), 'utf8')
          .trim()
          .split('\n')
          .map((line) => JSON.parse(line).row as string),
      );
    const tried = () => pipeline.events('store', 'deadletters_replayed');
    const inHot = () => pipeline.query('SELECT trade_id FROM marketprism_hot.trades ORDER BY trade_id');
    await command('ALTER TABLE marketprism_hot.trades ADD CONSTRAINT sane CHECK quantity < 1000');
    const healing = good(1).replace('"0.5"', '"5000"');
    // Could heal, and does not: nobody adds this column.
    const unhealed = good(2).replace('"price"', '"prise"');
    const head = headers();
    head.set('Mp-Mode', 'live');
    await nats.jetstream().publish(SUBJECT, [healing, unhealed, poison(3), good(4)].join('\n'), { headers: head });
    await pipeline.drained();
    await waitFor('a first try', READY_MS, async () => tried().length > 0);
    await waitFor('all three back', READY_MS, async () => letters().length === 3);
    await command('ALTER TABLE marketprism_hot.trades DROP CONSTRAINT sane');
    await waitFor('the row that has healed', READY_MS, async () => (await inHot()).length === 2);
    assert.deepEqual(await inHot(), [['1'], ['4']]);
    await waitFor('the others', READY_MS, async () => letters().length === 2);
    assert.deepEqual(letters().sort(), [unhealed, poison(3)].sort());
    const most = Math.max(...tried().map(({ rows }) => Number(rows)));
    assert.equal(most, 2, 'the one whose cause cannot pass is never tried');
  });
});

describe('the command deadletter.ts', () => {
  const dir = mkdtempSync(join(tmpdir(), 'marketprism-'));
  const env: NodeJS.ProcessEnv = { PATH: process.env.PATH, MARKETPRISM_DATA_DIR: dir };
  const directory = join(dir, 'deadletter', 'trade');
  const deadletter = (...args: string[]) => runCommand(env, ...args);
  const one = { reason: 'r', subject: SUBJECT, js_epoch: 1, js_seq: 2, row: poison(1) };

  before(() => {
    // Nothing listens there.
    env.MARKETPRISM_NATS_URL = 'nats://user:word@127.0.0.1:1';
    appendDeadLetters(dir, 'trade', [one], new Date('2026-11-23T08:00:00Z'));
  });
  after(() => rmSync(dir, { recursive: true, force: true }));

  test('says in one line that the broker is away, with exit code 3, and leaves the files', async () => {
    const ran = await deadletter('replay');
    assert.equal(ran.status, 3);
    assert.match(ran.stderr, /^no broker answers at nats:\/\/127\.0\.0\.1:\d+: nothing was replayed .*\n$/);
    assert.equal(ran.stdout, '');
    assert.deepEqual(readdirSync(directory), ['2026-11-23.ndjson']);
  });

  test('tells wrong usage in one line, and its help', async () => {
    const wrong: [string[], RegExp][] = [
      [[], /^one of list, explain, replay comes first/],
      [['list', '--kind', '../trade'], /^--kind takes one of trade, orderbook/],
      [['replay', '--since', 'yesterday'], /^--since takes a span such as 30m/],
      [['list', '--dry-run'], /^--dry-run does not belong to list/],
      [['explain', '/etc/passwd'], /^\/etc\/passwd is not under /],
      [['explain', 'trade/2026-11-23.ndjson:2'], /^trade\/2026-11-23.ndjson has no line 2$/m],
      [['explain', 'none.ndjson'], /^there is no file none.ndjson under /],
    ];
    const ran = await Promise.all(wrong.map(([args]) => deadletter(...args)));
    for (const [i, { status, stderr }] of ran.entries()) {
      assert.equal(status, 64, stderr);
      assert.match(stderr, wrong[i]![1]);
      assert.equal(stderr.trimEnd().split('\n').length, 1);
    }
    const help = await deadletter('--help');
    assert.deepEqual([help.status, /Example: npx tsx scripts\/deadletter\.ts/.test(help.stdout)], [0, true]);
  });

  test('follows no link out of the deadletter', () => {
    const outside = join(dir, 'outside');
    mkdirSync(outside);
    writeFileSync(join(outside, 'x.ndjson'), '');
    symlinkSync(join(outside, 'x.ndjson'), join(directory, 'x.ndjson'));
    symlinkSync(outside, join(dir, 'deadletter', 'liquidation'));
    assert.deepEqual(
      letterFiles(dir).map(({ name }) => name),
      ['2026-11-23.ndjson'],
    );
  });

  test('shortens reasons to what is common', () => {
    const reasons = [1, 2].map(
      (n) =>
        `CANNOT_PARSE_TEXT: Cannot parse input: expected '"' before: 'six${n}","a\\'b":"c"}\\n': (while reading the value of key price): (at row ${n})\n: While executing X`,
    );
    assert.equal(shortReason(reasons[0]!), shortReason(reasons[1]!));
    assert.match(shortReason(reasons[0]!), /before: '…': \(while reading the value of key price\)$/);
    const digits = (n: number) => shortReason(`DECIMAL_OVERFLOW: ${n} digits were read`);
    assert.equal(digits(30), digits(31));
    assert.equal(shortReason('trade_id cannot be a key: a"b'), 'trade_id cannot be a key');
    assert.equal(shortReason(`TYPE_MISMATCH: '${'x'.repeat(490)}`), "TYPE_MISMATCH: '…'");
    assert.equal(causeOf('something new').heals, false);
  });

  test('shows a row in its own text: long ids keep their digits, and what is no JSON stays as it is', () => {
    const row = '{"a":18446744073709551615,"b":[["1.10","{2}"],["3","4"]],"c":null}';
    const pretty = '{\n  "a": 18446744073709551615,\n  "b": [["1.10","{2}"],["3","4"]],\n  "c": null\n}';
    assert.equal(prettyRow({ row }), pretty);
    assert.equal(prettyRow({ row: '{"a":' }), '{"a":');
  });

  test('reads times and spans', () => {
    assert.equal(sinceTime('2h', 10_000_000), 2_800_000);
    assert.equal(sinceTime('2026-11-23T08:00:00Z', 0), Date.parse('2026-11-23T08:00:00Z'));
  });

  test('reads lines by bytes: line separators inside a row do not end it, and a line may span reads', async () => {
    const row = `a\u2028b\rc${'d'.repeat(2 ** 20)}`;
    const path = join(dir, 'lines');
    writeFileSync(path, [JSON.stringify({ ...one, at: '2026-11-23T08:00:00Z', row }), '', ' ', 'x'].join('\n'));
    const found: [number, string][] = [];
    for await (const { number, bytes } of linesOf(path)) {
      const read = readLetter(bytes);
      found.push([number, typeof read === 'string' ? 'bad' : read.row]);
    }
    assert.deepEqual(found, [
      [1, row],
      [4, 'bad'],
    ]);
  });
});
