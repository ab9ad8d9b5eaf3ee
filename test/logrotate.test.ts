/** Rotation by the real logrotate: what is rotated, what is kept for how long, that no line is lost, and that every reader reads on. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { after, describe, test } from 'node:test';
import { gzipSync } from 'node:zlib';
import type { Context } from '../scripts/lib/checks/check.ts';
import { series as check } from '../scripts/lib/checks/series.ts';
import { JsonlWriter, linesOfAll, objectsOfAll } from '../scripts/lib/jsonl.ts';
import { createLogger } from '../scripts/lib/log.ts';
import { LineSource, LogFile } from '../scripts/lib/log_file.ts';
import { logrotateConfig } from '../scripts/lib/logrotate.ts';
import { removeOldResults } from '../scripts/lib/monitor.ts';
import { rotatedSet } from '../scripts/lib/rotated.ts';
import { LEAST_KEPT_DAYS, recordsOf, Series, type SeriesPlan } from '../scripts/lib/series.ts';
import { type DeskFile, pathOf } from '../scripts/lib/web/desk_files.ts';
import { DeskIndex } from '../scripts/lib/web/desk_index.ts';
import { Rotation } from './rotation.ts';
import { assertWhole, rotateUnderLoad } from './rotation_load.ts';

const DAY_MS = 86_400_000;
const MINUTE_MS = 60_000;
const LOG = createLogger('test', 'silent');
const root = mkdtempSync(join(tmpdir(), 'marketprism-logrotate-'));
const rotations: Rotation[] = [];
after(() => {
  rmSync(root, { recursive: true, force: true });
  for (const each of rotations) each.close();
});

function newRotation(change?: (text: string) => string): Rotation {
  const rotation = new Rotation(change);
  rotations.push(rotation);
  return rotation;
}

/** All that the pages read; another one in the table does not compile without a line here. */
const DESK_FILES: Record<DeskFile, 'derived' | 'kept'> = {
  ...{ escape_signal: 'derived', sar_slope: 'derived', sar_slope_summary: 'derived' },
  ...{ coin_prices: 'kept', sar_top_count: 'kept', liquidation_1h: 'kept', coin_change_total: 'kept' },
  ...{ anchor: 'kept', major_events: 'kept', correlation_alerts: 'kept' },
};
const filesOf = (kind: 'derived' | 'kept') =>
  (Object.keys(DESK_FILES) as DeskFile[]).filter((name) => DESK_FILES[name] === kind).map(pathOf);
/** Each kind of file with how it is kept. */
const KINDS = [
  { files: filesOf('derived'), everyDays: 7, keptDays: 182, isCompressed: false },
  { files: filesOf('kept'), everyDays: 31, keptDays: 3650, isCompressed: false },
  {
    files: ['alerts/alerts.jsonl', 'alerts/undelivered.jsonl', 'unified/coin_change_total.jsonl.torn'],
    ...{ everyDays: 31, keptDays: 400, isCompressed: true },
  },
  { files: ['logs/store.log'], everyDays: 1, keptDays: 14, isCompressed: true },
];

function put(path: string, daysOld = 0, text = '{"slot":0}\n'): string {
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, text);
  utimesSync(path, new Date(Date.now() - daysOld * DAY_MS), new Date(Date.now() - daysOld * DAY_MS));
  return path;
}

/** Named as logrotate does, by the day of its last line. */
function putRotated(path: string, daysOld: number): string {
  const day = new Date(Date.now() - daysOld * DAY_MS).toISOString().slice(0, 10).replaceAll('-', '');
  return put(`${path}-${day}-000000`, daysOld);
}

describe('the configuration of logrotate', () => {
  test('is valid, and takes each series, each list of alerts and each log once, of a demo, too, and nothing else', async () => {
    const rotation = newRotation();
    const { dataDir, logDir } = rotation;
    const own = KINDS.flatMap(({ files }) => files);
    const wanted = [
      ...[dataDir, join(dataDir, 'demo')].flatMap((each) => own.map((file) => join(each, file))),
      join(logDir, 'store.log'),
    ];
    for (const path of wanted) put(path);
    // Queues, journals and files with a date in their path: whoever writes them removes them.
    for (const path of [
      'harvest/date=2026-11-30/hour=08/symbol=BTC-USDT/kind=ofi.jsonl',
      'outbox/a/MARKET_DATA/00000001.ndjson',
      'deadletter/trade/20261130.ndjson',
      'repair/R1/journal.jsonl',
      'monitoring_results/monitoring_20261130.jsonl',
      'state/series-anchor.json',
      'coin_price_tracker/failed_queue.json',
      'unknown/okx.ndjson',
    ])
      put(join(dataDir, path));
    const said = await rotation.run(['--debug']);
    assert.doesNotMatch(said, /^error/m);
    assert.equal([...said.matchAll(/^warning: (?!logrotate in debug mode)/gm)].length, 0, said);
    const taken = [...said.matchAll(/^considering log (\S+)$/gm)].map(([, path]) => path!);
    // A pattern that fits nothing is told as itself.
    assert.deepEqual(taken.filter((path) => !path.includes('*')).sort(), wanted.sort());
  });

  test('can be had for other places, and for none that logrotate would misread', () => {
    const text = logrotateConfig({ dataDir: '/srv/prism', logDir: '/srv/logs', user: 'me', group: 'us' });
    assert.doesNotMatch(text, /\/var\/|su marketprism/);
    assert.equal([...text.matchAll(/^\/srv\/(prism|logs)\/\S+$/gm)].length, 22);
    assert.equal([...text.matchAll(/^ {4}su me us$/gm)].length, 4);
    for (const bad of ['/srv/my data', '/srv/*', 'srv', '/srv/', '/srv/{a,b}'])
      assert.throws(() => logrotateConfig({ dataDir: bad }), /logrotate takes absolute paths/);
    assert.equal(logrotateConfig(), readFileSync(join(import.meta.dirname, '..', 'logrotate', 'marketprism'), 'utf8'));
  });

  for (const { files, everyDays, keptDays, isCompressed } of KINDS) {
    test(`rotates ${files[0]} every ${everyDays} days, and keeps it for ${keptDays}`, async () => {
      const rotation = newRotation();
      const paths = files.map((file) => join(rotation.dataDir, file));
      const ages = [1, 3, 13, 15, 100, 181, 184, 399, 402, 3649, 3652, 5000];
      const old = paths.flatMap((path) => ages.map((age) => ({ age, path: putRotated(path, age) })));
      for (const path of paths) put(path);
      const remaining = () => old.filter(({ path }) => existsSync(path) || existsSync(`${path}.gz`));
      rotation.pretend(paths, 0);
      assert.equal(await rotation.run([]), '');
      assert.equal(remaining().length, old.length);
      for (const path of paths) assert.ok(existsSync(path), 'its time has not come');
      rotation.pretend(paths, everyDays);
      assert.equal(await rotation.run([]), '');
      const isKept = ({ age }: { age: number }) => age <= keptDays;
      assert.deepEqual(remaining(), old.filter(isKept));
      for (const path of paths) {
        assert.ok(!existsSync(path), `${path} is renamed, and begun by who writes it`);
        const newest = rotatedSet(path).at(-1)!;
        assert.match(newest, /-\d{8}-\d{6}$/, 'the newest one is not compressed yet');
      }
      assert.deepEqual(
        remaining().filter(({ path }) => existsSync(`${path}.gz`)).length > 0,
        isCompressed,
        'what a program reads here and there is not compressed',
      );
    });
  }

  test('keeps each series at least as long as one may be completed, and all of it, however often somebody rotates', async () => {
    const rotation = newRotation();
    const paths = Object.keys(DESK_FILES).map((name) => join(rotation.dataDir, pathOf(name as DeskFile)));
    const old = paths.flatMap((path) => [
      putRotated(path, LEAST_KEPT_DAYS),
      ...Array.from({ length: 60 }, (_, i) => put(`${path}-20261101-0000${String(i).padStart(2, '0')}`, 30)),
    ]);
    for (const path of paths) put(path);
    assert.equal(await rotation.force(), '');
    assert.deepEqual(
      old.filter((path) => !existsSync(path)),
      [],
    );
  });

  test('leaves rounds of checks to the monitor, which keeps 90 days', () => {
    const directory = mkdtempSync(join(root, 'results-'));
    const now = Date.UTC(2026, 10, 30, 12);
    const names = [
      'monitoring_20260831.jsonl',
      'monitoring_20260901.jsonl',
      'monitoring_20261130.jsonl',
      'other_20200101',
    ];
    for (const name of names) put(join(directory, name));
    removeOldResults(directory, now);
    assert.deepEqual(readdirSync(directory).sort(), names.slice(1));
  });
});

describe('while logrotate rotates', () => {
  test('writers at full speed, some of them killed, lose, double and tear no line', async (context) => {
    const outcome = await rotateUnderLoad(4, { kills: 2 });
    context.diagnostic(JSON.stringify({ lines: outcome.lines, files: outcome.files }));
    assertWhole(outcome, 4);
  });

  test('a line that was being written when its file was renamed and its writer killed is kept aside', () => {
    const path = join(mkdtempSync(join(root, 'torn-')), 'a.jsonl');
    writeFileSync(`${path}-20261129-000000`, '{"n":0}\n');
    writeFileSync(`${path}-20261130-000000`, '{"n":1}\n{"n":');
    const writer = new JsonlWriter(path, LOG);
    writer.append([{ n: 2 }]);
    writer.close();
    assert.equal(readFileSync(`${path}.torn`, 'utf8'), '{"n":\n');
    assert.equal(readFileSync(`${path}-20261130-000000`, 'utf8'), '{"n":1}\n');
    assert.equal(readFileSync(path, 'utf8'), '{"n":2}\n');
  });

  test('who began to read reads on to the end of what was there, each line once', async () => {
    const path = join(mkdtempSync(join(root, 'reading-')), 'a.jsonl');
    writeFileSync(`${path}-20261129-000000`, '{"n":0}\n{"n":1}\n');
    writeFileSync(path, '{"n":2}\n{"n":3}\n');
    const read: unknown[] = [];
    for await (const line of objectsOfAll(path)) {
      if (read.length === 0) {
        // All that may happen meanwhile: renamed, begun anew, compressed.
        renameSync(path, `${path}-20261130-000000`);
        writeFileSync(path, '{"n":4}\n');
        writeFileSync(`${path}-20261129-000000.gz`, gzipSync(readFileSync(`${path}-20261129-000000`)));
        rmSync(`${path}-20261129-000000`);
      }
      read.push('value' in line ? line.value.n : line.bad);
    }
    assert.deepEqual(read, [0, 1, 2, 3]);
    const again: unknown[] = [];
    for await (const line of objectsOfAll(path)) again.push('value' in line ? line.value.n : line.bad);
    assert.deepEqual(again, [0, 1, 2, 3, 4]);
  });
});

describe('readers of what was rotated', () => {
  const PLAN: SeriesPlan = { name: 'anchor', file: pathOf('anchor'), cadenceMs: MINUTE_MS, catchUpSlots: 1440 };
  const slotIndex = (path: string) =>
    new DeskIndex(path, { time: ({ slot }) => (typeof slot === 'number' ? slot : null), key: () => '' });

  async function shownBy(index: DeskIndex): Promise<Record<string, unknown>[]> {
    const records = index.of('');
    return index.read(Array.from({ length: records.size }, (_, i) => records.place(i)));
  }

  test('series, records, integrity and pages read all of it, in order, also what somebody has compressed', async () => {
    const rotation = newRotation((text) => text.replaceAll('nocompress', 'compress\n    delaycompress'));
    const { dataDir } = rotation;
    const path = join(dataDir, PLAN.file);
    const index = slotIndex(path);
    const begin = Math.floor(Date.now() / MINUTE_MS - 60) * MINUTE_MS;
    const slots = Array.from({ length: 20 }, (_, i) => begin + i * MINUTE_MS);
    let series = await Series.open(dataDir, PLAN, Date.now, LOG);
    const shown = async () => {
      await index.look();
      return shownBy(index);
    };
    for (const [i, slot] of slots.entries()) {
      // One is left out, one corrected in a later file.
      if (i === 7) continue;
      series.write(slot, [{ value: i }]);
      if (i === 12) series.correct(slots[3]!, [{ value: 'corrected' }]);
      if (i % 5 === 4) {
        assert.equal(await rotation.force(), '');
        await shown();
      }
    }
    await series.close();
    const names = readdirSync(dirname(path)).sort();
    assert.equal(names.filter((name) => name.endsWith('.gz')).length, 3);
    assert.ok(!existsSync(path), 'nothing was written since the last rotation');
    series = await Series.open(dataDir, PLAN, Date.now, LOG);
    assert.deepEqual([series.state.missing, series.state.last_slot], [[slots[7]], slots.at(-1)]);
    series.write(slots[7]!, [{ value: 7 }]);
    await series.close();
    const read: [number, unknown][] = [];
    for await (const { slot, value } of recordsOf(path, 0)) read.push([(slot - begin) / MINUTE_MS, value]);
    const written = slots.map((_, i) => [i, i] as [number, unknown]).filter(([i]) => i !== 7);
    written.splice(12, 0, [3, 'corrected']);
    assert.deepEqual(read, [...written, [7, 7]]);
    const said = await check.ask({
      ...({ config: { dataDir }, from: begin, to: slots.at(-1)! + MINUTE_MS } as Context),
      now: slots.at(-1)! + MINUTE_MS,
    });
    assert.deepEqual([said.figure, said.findings], ['1 series, 21 records', []]);
    const expected = slots.map((slot, i) => ({ slot, value: i === 3 ? 'corrected' : i }));
    const valuesOf = (records: Record<string, unknown>[]) => records.map(({ slot, value }) => ({ slot, value }));
    assert.deepEqual(valuesOf(await shown()), expected, 'pages that were open all the time');
    await index.close();
    const fresh = slotIndex(path);
    await fresh.look();
    assert.deepEqual(valuesOf(await shownBy(fresh)), expected, 'pages that are opened now');
    await fresh.close();
  });

  test('pages keep a correction, when the file of what it corrects is compressed', async () => {
    const path = join(mkdtempSync(join(root, 'pages-')), 'a.jsonl');
    const [oldest, newer] = [`${path}-20261128-000000`, `${path}-20261129-000000`];
    writeFileSync(oldest, '{"slot":1,"value":"wrong"}\n');
    writeFileSync(newer, '{"slot":1,"correction":true,"value":"right"}\n');
    writeFileSync(path, '{"slot":2,"value":"right"}\n');
    const index = slotIndex(path);
    for (const change of [
      () => undefined,
      () => writeFileSync(`${oldest}.gz`, gzipSync(readFileSync(oldest))),
      () => rmSync(oldest),
    ]) {
      change();
      await index.look();
      assert.deepEqual(
        (await shownBy(index)).map(({ value }) => value),
        ['right', 'right'],
      );
    }
    await index.close();
  });

  test('files are in the order of their dates, whatever time their last change has, and numbered ones are older', () => {
    const directory = mkdtempSync(join(root, 'order-'));
    const names = [
      'a.jsonl.10',
      'a.jsonl.9',
      'a.jsonl-20251231',
      'a.jsonl-20261129-235959.gz',
      'a.jsonl-20261130-000000',
      'a.jsonl',
    ];
    for (const [i, name] of names.entries()) put(join(directory, name), i);
    for (const other of [
      'a.jsonl.torn',
      'a.jsonl.torn-20261130-000000',
      'a.jsonl-20261130-000000.gz',
      'b.jsonl',
      'a.jsonl.1.tmp',
    ])
      put(join(directory, other));
    const path = join(directory, 'a.jsonl');
    assert.deepEqual(
      rotatedSet(path).map((each) => basename(each)),
      names,
    );
    const since = Date.UTC(2026, 10, 30);
    assert.deepEqual(
      rotatedSet(path, since).map((each) => basename(each)),
      names.filter((name) => !name.includes('2025')),
    );
    assert.deepEqual(
      rotatedSet(path, since + 365 * DAY_MS).map((each) => basename(each)),
      ['a.jsonl.10', 'a.jsonl.9', 'a.jsonl-20261130-000000', 'a.jsonl'],
    );
    assert.deepEqual(rotatedSet(join(directory, 'none', 'a.jsonl')), []);
  });

  test('a compressed file that is damaged is told, and not left out', async () => {
    const path = join(mkdtempSync(join(root, 'damaged-')), 'a.jsonl');
    writeFileSync(`${path}-20261129-000000.gz`, gzipSync('{"slot":60000}\n').subarray(0, 20));
    const read = async () => {
      for await (const _ of linesOfAll(path));
    };
    await assert.rejects(read(), /unexpected end of file/);
    await assert.rejects(slotIndex(path).look(), /unexpected end of file/);
  });
});

describe('the log of a child', () => {
  test('has the lines of both outputs whole, however they come, and an end after the last one', () => {
    const path = join(mkdtempSync(join(root, 'log-')), 'a.log');
    const file = new LogFile(path);
    const [out, err] = [new LineSource(file), new LineSource(file)];
    out.write(Buffer.from('one\ntw'));
    err.write(Buffer.from('fault\n'));
    out.write(Buffer.from('o\nthr'));
    out.write(Buffer.from('ee'));
    renameSync(path, `${path}-20261130-000000`);
    err.write(Buffer.from('a'));
    out.end();
    err.end();
    file.close();
    assert.equal(readFileSync(`${path}-20261130-000000`, 'utf8'), 'one\nfault\ntwo\n');
    assert.equal(readFileSync(path, 'utf8'), 'three\na\n');
  });

  test('says how much a full disk did not take, once it takes lines again', () => {
    const path = join(mkdtempSync(join(root, 'full-')), 'a.log');
    symlinkSync('/dev/full', path);
    const file = new LogFile(path);
    file.append(Buffer.from('lost\n'));
    file.append(Buffer.from('lost, too\n'));
    rmSync(path);
    file.append(Buffer.from('kept\n'));
    file.append(Buffer.from('also\n'));
    file.close();
    const [loss, ...rest] = readFileSync(path, 'utf8').trimEnd().split('\n');
    const { event, bytes } = JSON.parse(loss!);
    assert.deepEqual([event, bytes, rest], ['log_lines_lost', 15, ['kept', 'also']]);
  });
});

describe('SIGHUP', { timeout: 60_000 }, () => {
  const PATH = join(root, 'hup.jsonl');
  const code = `
    import { heedHangup } from ${JSON.stringify(join(import.meta.dirname, '../scripts/lib/hangup.ts'))};
    import { JsonlWriter } from ${JSON.stringify(join(import.meta.dirname, '../scripts/lib/jsonl.ts'))};
    import { createLogger } from ${JSON.stringify(join(import.meta.dirname, '../scripts/lib/log.ts'))};
    import { readdirSync, readlinkSync } from 'node:fs';
    const say = (text) => process.stdout.write(text + '\\n');
    const log = createLogger('child', 'silent');
    const writer = new JsonlWriter(${JSON.stringify(PATH)}, log);
    const held = () => readdirSync('/proc/self/fd').filter((fd) => {
      try { return readlinkSync('/proc/self/fd/' + fd).includes('hup.jsonl'); } catch { return false; }
    }).length;
    heedHangup(() => { say('stop'); process.exit(0); }, { info: () => say('reopened ' + held()) });
    process.on('SIGUSR2', () => { writer.append([{ n: 1 }]); say('written ' + held()); });
    say('pid ' + process.pid);
    setInterval(() => {}, 1000);
  `;
  /** @returns asks for the next line that the child says */
  function run(command: string, args: string[]) {
    const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'inherit'] });
    let text = '';
    let seen = 0;
    const next = async (pattern: RegExp): Promise<string> => {
      for (;;) {
        const match = pattern.exec(text.slice(seen));
        if (match) {
          seen += match.index + match[0].length;
          return match[1] ?? match[0];
        }
        assert.equal(child.exitCode ?? child.signalCode, null, text);
        await new Promise((done) => child.stdout.once('data', done).once('close', done));
      }
    };
    child.stdout.on('data', (chunk: Buffer) => {
      text += chunk.toString();
    });
    return { child, next };
  }

  test('lets go of a file that was renamed, and the next line is in a new one', async () => {
    const script = join(root, 'hup.mts');
    writeFileSync(script, code);
    const { child, next } = run(process.execPath, ['--import', 'tsx', script]);
    try {
      await next(/pid \d+/);
      renameSync(PATH, `${PATH}-20261130-000000`);
      child.kill('SIGHUP');
      assert.equal(await next(/reopened (\d)/), '0');
      child.kill('SIGUSR2');
      assert.equal(await next(/written (\d)/), '1');
      assert.deepEqual([existsSync(PATH), readFileSync(`${PATH}-20261130-000000`, 'utf8')], [true, '']);
    } finally {
      child.kill('SIGKILL');
    }
  });

  test('stops a process whose terminal was closed', async () => {
    const script = join(root, 'hup_terminal.mts');
    writeFileSync(script, code);
    const command = `${process.execPath} --import tsx ${script}`;
    const { child, next } = run('/usr/bin/script', ['-qfec', command, '/dev/null']);
    try {
      process.kill(Number(await next(/pid (\d+)/)), 'SIGHUP');
      await next(/stop/);
    } finally {
      child.kill('SIGKILL');
    }
  });
});
