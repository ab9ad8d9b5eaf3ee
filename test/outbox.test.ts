/** The outbox with real files: a disk that fills up, files that are damaged, and processes that are killed at each step. */
import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import {
  cpSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { after, afterEach, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { crc32 } from 'node:zlib';
import { pino } from 'pino';
import type { CrashPoint } from '../scripts/lib/crash_points.ts';
import { Outbox, type OutboxOptions } from '../scripts/lib/outbox.ts';
import type { OutgoingMessage } from '../scripts/lib/publisher.ts';
import { MEMORY_MEGABYTES, messageOf, readIds, type SCENARIOS } from './outbox_child.ts';

const CHILD = fileURLToPath(new URL('outbox_child.ts', import.meta.url));
/** What is waited for comes within this time, or never. */
const READY_MS = 20_000;
const root = mkdtempSync(join(tmpdir(), 'marketprism-outbox-'));
after(() => rmSync(root, { recursive: true, force: true }));

async function until(what: string, holds: () => boolean): Promise<void> {
  const deadline = Date.now() + READY_MS;
  while (!holds()) {
    if (Date.now() > deadline) assert.fail(`not within ${READY_MS / 1000} s: ${what}`);
    await new Promise((done) => setTimeout(done, 2));
  }
}

/** Stands for broker and Publisher: takes what it is given, and answers when and what the test says. */
class Broker {
  /** All it was given, in order. */
  readonly ids: string[] = [];
  readonly waiting: OutgoingMessage[] = [];
  /** Whether it answers at once. */
  answers = false;
  /** Most bytes of payloads without an answer. */
  mostBytes = 0;
  outbox!: Outbox;

  publish(message: OutgoingMessage): void {
    this.ids.push(message.id);
    const n = Number(/^id:(\d+)/.exec(message.id)?.[1]);
    const { payload, rows, subject } = messageOf(n);
    assert.deepEqual(
      [message.subject, message.rows, Buffer.from(message.payload).toString()],
      [subject, rows, payload.toString()],
    );
    this.waiting.push(message);
    this.mostBytes = Math.max(
      this.mostBytes,
      this.waiting.reduce((sum, each) => sum + each.payload.length, 0),
    );
    if (this.answers) setImmediate(() => this.waiting.includes(message) && this.answer(this.waiting.indexOf(message)));
  }

  /** Answers one of those that wait. */
  answer(index = 0): void {
    const [message] = this.waiting.splice(index, 1);
    this.outbox.acknowledged(message!);
  }

  answerAll(): void {
    this.answers = true;
    while (this.waiting.length > 0) this.answer();
  }
}

interface LogLine {
  event: string;
  [member: string]: unknown;
}

/** An outbox with its directory, broker, log and clock. */
class Bench {
  readonly broker = new Broker();
  readonly lines: LogLine[] = [];
  time = 1_700_000_000_000;
  outbox!: Outbox;
  private added = 0;

  constructor(readonly dir = join(mkdtempSync(join(root, 'bench-')), 'outbox')) {}

  async open(options: Partial<OutboxOptions> = {}): Promise<this> {
    this.outbox = await Outbox.open({
      dir: this.dir,
      highWatermarkBytes: 1e6,
      maxBytes: 1e9,
      publish: (message) => this.broker.publish(message),
      now: () => this.time,
      log: pino({ level: 'info' }, { write: (line: string) => this.lines.push(JSON.parse(line)) }),
      ...options,
      limits: { tickMs: 5, syncMs: 5, retryMs: 5, ...options.limits },
    });
    this.broker.outbox = this.outbox;
    open.add(this.outbox);
    return this;
  }

  /** Adds the next `count` messages, `from` on if given. */
  add(count: number, from = this.added): void {
    for (let n = from; n < from + count; n += 1) this.outbox.add(messageOf(n));
    this.added = from + count;
  }

  async written(): Promise<void> {
    await until('everything is written', () => this.outbox.waitingBytes === 0);
  }

  async drained(): Promise<void> {
    let drained = false;
    void this.outbox.drained().then(() => {
      drained = true;
    });
    await until('everything is answered', () => drained);
  }

  async close(): Promise<void> {
    await this.outbox.close();
    open.delete(this.outbox);
  }

  events(name: string): LogLine[] {
    return this.lines.filter(({ event }) => event === name);
  }

  get segments(): string[] {
    return readdirSync(this.dir)
      .filter((name) => name.endsWith('.ndjson'))
      .sort()
      .map((name) => join(this.dir, name));
  }

  get floor(): { segment: number; offset: number; clean: boolean } {
    return JSON.parse(readFileSync(join(this.dir, 'floor.json'), 'utf8'));
  }

  /** Another run over the same directory, or a copy of it as it is now. */
  async again(options: Partial<OutboxOptions> = {}, copied = false): Promise<Bench> {
    if (!copied) return new Bench(this.dir).open(options);
    const dir = join(mkdtempSync(join(root, 'copy-')), 'outbox');
    cpSync(this.dir, dir, { recursive: true });
    return new Bench(dir).open(options);
  }
}

/** A test that failed must not leave timers. */
const open = new Set<Outbox>();
afterEach(async () => {
  for (const outbox of open) await outbox.close();
  open.clear();
});

function ids(from: number, to: number): string[] {
  return Array.from({ length: to - from }, (_, i) => `id:${from + i}`);
}

/** Where each record of a file begins, and the file's length last. */
function recordStarts(path: string): number[] {
  const bytes = readFileSync(path);
  const starts: number[] = [];
  for (let at = bytes.indexOf('{"crc":"'); at >= 0; at = bytes.indexOf('{"crc":"', at + 1)) starts.push(at);
  return [...starts, bytes.length];
}

describe('adding and answering', () => {
  test('what is added is handed on at once, and lies in a file of JSON lines with a checksum over header and payload', async () => {
    const bench = await new Bench().open();
    bench.add(3);
    assert.deepEqual(bench.broker.ids, ids(0, 3), 'before anything is written');
    await bench.close();
    const text = readFileSync(bench.segments[0]!, 'utf8');
    assert.equal(text.at(-1), '\n');
    const lines = text.slice(0, -1).split('\n');
    for (const line of lines) JSON.parse(line);
    const { payload, rows, subject, id } = messageOf(0);
    const members = `"bytes":${payload.length},"rows":${rows},"at":${bench.time},"subject":"${subject}","id":"${id}"`;
    const crc = crc32(`${members}${payload}`).toString(16).padStart(8, '0');
    assert.equal(text.slice(0, text.indexOf('\n')), `{"crc":"${crc}",${members}}`);
    assert.equal(lines.length, 3 + 1 + 2 + 3, 'a header and the rows of each');
  });

  test('above the high watermark messages stay in the files; below half of it they come back in order, then new ones go directly', async () => {
    const bench = await new Bench().open({ highWatermarkBytes: 4000, limits: { chunkBytes: 1000, rotateBytes: 5000 } });
    const { broker, outbox } = bench;
    bench.add(200);
    const direct = broker.ids.length;
    assert.ok(direct > 3 && direct < 50, `${direct} handed on`);
    await bench.written();
    assert.equal(broker.ids.length, direct, 'nothing more without an answer');
    assert.ok(outbox.state.spilledBytes > 20_000, `${outbox.state.spilledBytes} bytes spilled`);
    assert.ok(outbox.state.files > 5, 'over several files');
    while (outbox.state.unacknowledgedBytes - outbox.state.spilledBytes >= 2000) {
      // Time enough for a chunk to come back.
      await new Promise((done) => setTimeout(done, 5));
      assert.equal(broker.ids.length, direct, 'nothing is read back above half of the watermark');
      broker.answer();
    }
    await until('some are read back', () => broker.ids.length > direct);
    broker.answerAll();
    await bench.drained();
    assert.equal(outbox.state.unacknowledgedBytes, 0);
    assert.ok(broker.mostBytes < 5000, `${broker.mostBytes} bytes at one time`);
    broker.answers = false;
    bench.add(1);
    assert.deepEqual(broker.ids, ids(0, 201));
    assert.equal(outbox.state.spilledBytes, 0);
  });

  test('messages keep the order in which they were added, whatever is answered when', async () => {
    const bench = await new Bench().open({ highWatermarkBytes: 3000, limits: { chunkBytes: 700, rotateBytes: 2000 } });
    const { broker, outbox } = bench;
    // A generator of its own: a failure comes again.
    let seed = 7;
    const random = (below: number) => (seed = (seed * 1103515245 + 12345) % 2147483648) % below;
    while (broker.ids.length < 2000) {
      bench.add(random(12));
      for (let i = random(10); i > 0 && broker.waiting.length > 0; i -= 1) broker.answer(random(broker.waiting.length));
      if (random(4) === 0) outbox.allow(random(3) === 0 ? 0 : Number.POSITIVE_INFINITY);
      if (random(3) === 0) await new Promise((done) => setTimeout(done, random(4)));
    }
    outbox.allow(Number.POSITIVE_INFINITY);
    broker.answerAll();
    await bench.drained();
    assert.deepEqual(broker.ids, ids(0, broker.ids.length));
    assert.equal(new Set(broker.ids).size, broker.ids.length);
  });

  test('a publish that throws leaves the message spilled, and it is tried again before any later one', async () => {
    const bench = new Bench();
    let broken = true;
    await bench.open({
      publish: (message) => {
        if (broken) throw new Error('no connection');
        bench.broker.publish(message);
      },
    });
    bench.add(3);
    await bench.written();
    assert.equal(bench.outbox.state.lastError, 'no connection');
    broken = false;
    bench.broker.answers = true;
    await bench.drained();
    assert.deepEqual(bench.broker.ids, ids(0, 3));
    assert.equal(bench.outbox.state.lastError, null);
  });

  test('diverted messages stay in the files however much room there is, and go on in order when it is over', async () => {
    const bench = await new Bench().open();
    bench.broker.answers = true;
    bench.add(5);
    await bench.drained();
    bench.outbox.allow(0);
    bench.add(50);
    await bench.written();
    assert.deepEqual(bench.broker.ids, ids(0, 5));
    bench.outbox.allow(Number.POSITIVE_INFINITY);
    bench.add(5);
    await bench.drained();
    assert.deepEqual(bench.broker.ids, ids(0, 60));
  });

  test('health tells what lies where, since when, and at what rate it is written', async () => {
    const bench = await new Bench().open({ limits: { tickMs: 20 } });
    const { broker, outbox } = bench;
    assert.equal(outbox.state.oldestUnacknowledgedAt, null);
    const start = bench.time;
    bench.add(2);
    bench.time += 1000;
    outbox.allow(0);
    bench.add(3);
    await bench.written();
    const length = readFileSync(bench.segments[0]!).length;
    assert.equal(outbox.state.bytes, length);
    assert.equal(outbox.state.unacknowledgedBytes, length);
    assert.equal(outbox.state.spilledBytes, length - recordStarts(bench.segments[0]!)[2]!);
    await until('a rate', () => outbox.state.writeBytesPerSecond === length);
    assert.equal(outbox.state.oldestUnacknowledgedAt, start);
    broker.answer();
    broker.answer();
    assert.equal(outbox.state.oldestUnacknowledgedAt, start + 1000);
  });

  test(`${MEMORY_MEGABYTES} MB of spilled messages take no memory, neither while they lie there nor while they come back`, async () => {
    const output = await runChild(mkdtempSync(join(root, 'memory-')), 'memory', '');
    const { grown, spilledBytes, answered } = JSON.parse(output.text);
    assert.ok(spilledBytes > 0.95 * MEMORY_MEGABYTES * 1e6 && answered > 10_000, output.text);
    assert.ok(grown < 100e6, `grown by ${Math.round(grown / 1e6)} MB`);
  });
});

describe('a new run', () => {
  test('publishes what the one before left without an answer, before anything new; nothing of it is lost when that ended in a crash', async () => {
    const bench = await new Bench().open({ limits: { rotateBytes: 1000 } });
    assert.equal(bench.outbox.wasClean, true, 'a first start');
    bench.add(30);
    for (let i = 0; i < 10; i += 1) bench.broker.answer();
    await bench.written();
    // As it is now: nothing is closed.
    const crashed = await bench.again({}, true);
    assert.equal(crashed.outbox.wasClean, false);
    await bench.close();
    const next = await bench.again();
    assert.equal(next.outbox.wasClean, true);
    for (const each of [next, crashed]) {
      each.add(5, 30);
      each.broker.answers = true;
      for (let i = each.broker.waiting.length; i > 0; i -= 1) each.broker.answer();
      await each.drained();
      const [first] = each.broker.ids;
      assert.deepEqual(each.broker.ids, ids(Number(first!.slice(3)), 35), 'in order, to the last');
    }
    assert.equal(next.broker.ids[0], 'id:10', 'the floor of a clean end is exact');
    await next.close();
    const last = await next.again();
    assert.deepEqual([last.outbox.state.unacknowledgedBytes, last.outbox.wasClean], [0, true]);
  });

  test('begins at the floor: below it everything is answered, above it also what was answered comes again', async () => {
    const bench = await new Bench().open();
    bench.add(10);
    for (const index of [8, 5, 1, 0]) bench.broker.answer(index);
    await until('the floor is kept', () => bench.floor.offset > 0);
    assert.deepEqual(bench.floor, { segment: 1, offset: recordStarts(bench.segments[0]!)[2], clean: false });
    await bench.close();
    const next = await bench.again();
    next.broker.answers = true;
    await next.drained();
    assert.deepEqual(next.broker.ids, ids(2, 10));
  });

  test('publishes everything when the floor is lost or damaged, and writes nothing below a floor whose files are gone', async () => {
    const bench = await new Bench().open();
    bench.broker.answers = true;
    bench.add(10);
    await bench.drained();
    await bench.close();
    for (const damage of [
      () => rmSync(join(bench.dir, 'floor.json')),
      () => truncateSync(join(bench.dir, 'floor.json'), 7),
    ]) {
      damage();
      const next = await bench.again();
      assert.equal(next.outbox.wasClean, false);
      next.broker.answers = true;
      await next.drained();
      assert.deepEqual(next.broker.ids, ids(0, 10));
      await next.close();
    }
    const { floor } = bench;
    for (const path of bench.segments) rmSync(path);
    const emptied = await bench.again();
    emptied.add(3, 10);
    await emptied.written();
    assert.ok(Number.parseInt(basename(emptied.segments[0]!), 10) > floor.segment, 'a number of its own');
    await emptied.close();
    const last = await bench.again();
    last.broker.answers = true;
    await last.drained();
    assert.deepEqual(last.broker.ids, ids(10, 13));
  });

  test('the floor never speaks of what is not on the disk', async () => {
    const bench = await new Bench().open({ limits: { syncMs: 1e6, syncBytes: 1e9 } });
    bench.broker.answers = true;
    bench.add(10);
    await bench.drained();
    await bench.written();
    // Several ticks, in which an unclean floor could be kept.
    await new Promise((done) => setTimeout(done, 50));
    assert.equal(bench.floor.offset, 0);
    await bench.close();
    assert.equal(bench.floor.offset, readFileSync(bench.segments[0]!).length);
  });
});

describe('damaged files', () => {
  test('a last record that is cut at any byte is cut off, told, and everything before it is published', async () => {
    const bench = await new Bench().open();
    bench.add(4);
    await bench.close();
    const [path] = bench.segments as [string];
    const whole = readFileSync(path);
    const start = recordStarts(path)[3]!;
    for (let length = start; length < whole.length; length += 1) {
      writeFileSync(path, whole.subarray(0, length));
      const next = await bench.again({}, true);
      next.broker.answers = true;
      await next.drained();
      assert.deepEqual(next.broker.ids, ids(0, 3), `cut at ${length}`);
      const told = next.events('outbox_torn_tail').map(({ file, offset, bytes }) => [file, offset, bytes]);
      const torn = [join(next.dir, basename(path)), start, length - start];
      assert.deepEqual(told, length === start ? [] : [torn]);
      assert.equal(readFileSync(next.segments[0]!).length, start);
      assert.equal(next.outbox.state.damaged, 0);
      await next.close();
    }
  });

  test('a last record with wrong bytes is cut off, too', async () => {
    const bench = await new Bench().open();
    bench.add(4);
    await bench.close();
    const [path] = bench.segments as [string];
    const start = recordStarts(path)[3]!;
    const bytes = readFileSync(path);
    for (const at of [start, start + 10, start + 30, bytes.length - 3, bytes.length - 1]) {
      const changed = Buffer.from(bytes);
      changed[at]! ^= 1;
      writeFileSync(path, changed);
      const next = await bench.again({}, true);
      next.broker.answers = true;
      await next.drained();
      assert.deepEqual(next.broker.ids, ids(0, 3), `changed at ${at}`);
      assert.equal(next.events('outbox_torn_tail').length, 1);
      await next.close();
    }
  });

  test('a record damaged in the middle, at any byte, is skipped, counted and kept; all others are published in order', async () => {
    const bench = await new Bench().open();
    bench.add(4);
    await bench.close();
    const [path] = bench.segments as [string];
    const [, start, end] = recordStarts(path) as [number, number, number];
    const bytes = readFileSync(path);
    for (let at = start; at < end; at += 1) {
      const changed = Buffer.from(bytes);
      changed[at]! ^= 1;
      writeFileSync(path, changed);
      const next = await bench.again({}, true);
      next.broker.answers = true;
      await next.drained();
      assert.deepEqual(next.broker.ids, ['id:0', 'id:2', 'id:3'], `changed at ${at}`);
      assert.equal(next.outbox.state.damaged, 1);
      assert.deepEqual(readFileSync(join(next.dir, 'damaged-1.bin')), changed.subarray(start, end));
      const [told] = next.events('outbox_damaged');
      assert.deepEqual([told!.offset, told!.bytes], [start, end - start]);
      await next.close();
    }
  });

  test('damage over several records and chunks, at the end of a file that is not the last, and a file that is gone, each cost only what they hold', async () => {
    const bench = await new Bench().open({ limits: { rotateBytes: 4000 } });
    bench.add(80);
    await bench.close();
    const paths = bench.segments;
    assert.ok(paths.length >= 5, `${paths.length} files`);
    const held = paths.map((path) => readFileSync(path, 'utf8').match(/(?<="id":")id:\d+/g)!);
    const starts = recordStarts(paths[1]!);
    const bytes = readFileSync(paths[1]!);
    writeFileSync(paths[1]!, bytes.fill(0, starts[2]! + 5, starts[6]! - 5));
    truncateSync(paths[2]!, recordStarts(paths[2]!).at(-2)! + 20);
    const next = new Bench(bench.dir);
    await next.open({ limits: { chunkBytes: 300 } });
    rmSync(paths[3]!);
    next.broker.answers = true;
    await next.drained();
    const lost = new Set([...held[1]!.slice(2, 6), held[2]!.at(-1)!, ...held[3]!]);
    assert.deepEqual(
      next.broker.ids,
      ids(0, 80).filter((id) => !lost.has(id)),
    );
    assert.equal(next.outbox.state.damaged, 3);
  });

  test('a file that is damaged while the process runs does not stop what comes after', async () => {
    const bench = await new Bench().open();
    bench.outbox.allow(0);
    bench.add(10);
    await bench.written();
    const [path] = bench.segments as [string];
    const starts = recordStarts(path);
    const bytes = readFileSync(path);
    bytes.fill(120, starts[8]!, starts[10]!);
    writeFileSync(path, bytes);
    bench.broker.answers = true;
    bench.outbox.allow(Number.POSITIVE_INFINITY);
    bench.add(2);
    await bench.drained();
    assert.deepEqual(bench.broker.ids, [...ids(0, 8), ...ids(10, 12)]);
  });
});

describe('files come and go', () => {
  test('a file ends at its size or age, and goes when the broker has all of it and its last message is old enough', async () => {
    const bench = await new Bench().open({ keepMs: 240_000, limits: { rotateBytes: 3000, rotateMs: 60_000 } });
    const { broker, outbox } = bench;
    while (outbox.state.files < 3) bench.add(1);
    await bench.written();
    const first = bench.segments.length;
    const messages = broker.ids.length;
    assert.ok(first > 2, `${first} files`);
    for (const path of bench.segments) assert.ok(readFileSync(path).length <= 3000, path);
    bench.time += 59_000;
    bench.add(1);
    await bench.written();
    assert.equal(bench.segments.length, first);
    bench.time += 1000;
    bench.add(1);
    await bench.written();
    assert.equal(bench.segments.length, first + 1);
    // Old enough, but not answered.
    bench.time += 1e6;
    await ticks(bench);
    assert.equal(bench.segments.length, first + 1);
    bench.time -= 1e6;
    broker.answerAll();
    await ticks(bench);
    assert.equal(bench.segments.length, first + 1, 'answered, and not old enough');
    // Those of the first moment but the last, which had a message 59 s later.
    bench.time += 240_000 - 60_000 + 1;
    await until('the first files go', () => bench.segments.length === 2);
    await ticks(bench);
    assert.equal(bench.segments.length, 2);
    bench.time += 60_000;
    await until('the others go, the one being written included', () => bench.segments.length === 0);
    assert.deepEqual([outbox.state.bytes, outbox.state.files, outbox.state.droppedCopies], [0, 0, 0]);
    bench.add(5);
    await bench.drained();
    assert.deepEqual(broker.ids, ids(0, messages + 7));
    await bench.close();
    const next = await bench.again();
    assert.equal(next.outbox.state.unacknowledgedBytes, 0);
  });

  test('files of an earlier run go, too', async () => {
    const bench = await new Bench().open({ limits: { rotateBytes: 2000 } });
    bench.broker.answers = true;
    bench.add(20);
    await bench.drained();
    await bench.close();
    const next = new Bench(bench.dir);
    next.time = bench.time + 240_000;
    await next.open({ keepMs: 240_000 });
    await ticks(next);
    assert.equal(next.segments.length, bench.segments.length);
    // When their last message was added is known to a minute.
    next.time += 60_001;
    await until('they are gone', () => next.segments.length === 0);
  });

  test('files above the bound go early, the oldest first, and are counted; never one with a message that has no answer', async () => {
    const bench = await new Bench().open({ maxBytes: 20_000, limits: { rotateBytes: 2000 } });
    const { broker, outbox } = bench;
    broker.answers = true;
    bench.add(150);
    await bench.drained();
    await bench.written();
    await until('the bound is kept', () => outbox.state.bytes <= 20_000);
    assert.ok(outbox.state.droppedCopies > 5, `${outbox.state.droppedCopies} dropped`);
    assert.ok(outbox.state.bytes > 16_000, 'and no more than needed goes');
    const oldest = () => Number.parseInt(basename(bench.segments[0]!), 10);
    await until('each file that went is counted', () => oldest() === outbox.state.droppedCopies + 1);
    broker.answers = false;
    const before = outbox.state.droppedCopies;
    bench.add(200, 1000);
    await bench.written();
    await ticks(bench);
    const held = bench.segments.map((path) => readFileSync(path, 'utf8')).join('');
    for (const id of ids(1000, 1200)) assert.ok(held.includes(`"id":"${id}"`), id);
    assert.ok(outbox.state.bytes > 20_000, `${outbox.state.bytes} bytes`);
    assert.ok(outbox.state.droppedCopies > before, 'the copies have all gone');
  });

  test('full of messages without an answer it takes more all the same, alarms once, and says once that it is over', async () => {
    const bench = await new Bench().open({ maxBytes: 20_000, highWatermarkBytes: 2000, limits: { rotateBytes: 2000 } });
    const { broker, outbox } = bench;
    let added = 0;
    for (; !outbox.isFull; added += 1) bench.add(1);
    const { unacknowledgedBytes } = outbox.state;
    assert.ok(unacknowledgedBytes >= 20_000 && unacknowledgedBytes < 21_000, `${unacknowledgedBytes} bytes`);
    bench.add(10);
    await bench.written();
    assert.equal(bench.events('outbox_full').length, 1);
    // A little less is still full, or the alarm would flicker.
    while (outbox.state.unacknowledgedBytes > 19_500) {
      broker.answer();
      await new Promise((done) => setTimeout(done, 2));
    }
    assert.equal(bench.events('outbox_no_longer_full').length, 0);
    broker.answerAll();
    await bench.drained();
    assert.equal(outbox.isFull, false);
    assert.equal(bench.events('outbox_full').length, 1);
    assert.equal(bench.events('outbox_no_longer_full').length, 1);
    assert.deepEqual(broker.ids, ids(0, added + 10));
  });

  /** Time enough for what must not happen to happen. */
  async function ticks(bench: Bench): Promise<void> {
    await bench.written();
    await new Promise((done) => setTimeout(done, 60));
  }
});

describe('a disk that is full', () => {
  const mounts: string[] = [];
  after(() => {
    for (const mount of mounts) execFileSync('umount', ['-l', mount]);
  });

  /** A file system of its own, or null when this machine gives none. */
  function smallDisk(bytes: number): string | null {
    const mount = mkdtempSync(join(root, 'disk-'));
    try {
      execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${bytes}`, 'tmpfs', mount], { stdio: 'pipe' });
    } catch {
      return null;
    }
    mounts.push(mount);
    return mount;
  }
  const REFUSED = 'this machine lets the test mount no file system';

  test('keeps what cannot be written in memory, alarms once, cuts a partial write off, and loses nothing once there is space', async (t) => {
    const disk = smallDisk(256 * 1024);
    if (!disk) return t.skip(REFUSED);
    const ballast = join(disk, 'ballast');
    writeFileSync(ballast, Buffer.alloc(180 * 1024));
    const bench = await new Bench(join(disk, 'outbox')).open({ highWatermarkBytes: 3000 });
    bench.add(600);
    await until('it is full', () => bench.outbox.isFull);
    const { lastError, waitingBytes } = bench.outbox.state;
    assert.match(lastError!, /ENOSPC/);
    assert.ok(waitingBytes > 10_000, `${waitingBytes} bytes wait`);
    // The file ends with a whole record while the writer waits for space.
    const [path] = bench.segments as [string];
    const crashed = new Bench(join(mkdtempSync(join(root, 'copy-')), 'outbox'));
    mkdirSync(crashed.dir);
    cpSync(path, join(crashed.dir, basename(path)));
    await crashed.open();
    assert.equal(crashed.events('outbox_torn_tail').length, 0);
    assert.ok(crashed.outbox.state.bytes > 30_000, `${crashed.outbox.state.bytes} bytes`);
    bench.add(10);
    rmSync(ballast);
    await bench.written();
    assert.equal(bench.outbox.isFull, false);
    assert.equal(bench.events('outbox_full').length, 1);
    assert.equal(bench.events('outbox_no_longer_full').length, 1);
    await bench.close();
    const next = await bench.again();
    next.broker.answers = true;
    await next.drained();
    assert.deepEqual(next.broker.ids, ids(0, 610));
  });

  test('hands on from memory what cannot be written, and gives up copies that the broker has before it alarms', async (t) => {
    const disk = smallDisk(256 * 1024);
    if (!disk) return t.skip(REFUSED);
    const bench = await new Bench(join(disk, 'outbox')).open({
      highWatermarkBytes: 3000,
      limits: { rotateBytes: 16_384 },
    });
    const { broker, outbox } = bench;
    broker.answers = true;
    for (let lot = 0; lot < 40; lot += 1) {
      bench.add(50);
      await bench.drained();
      await bench.written();
    }
    assert.ok(outbox.state.droppedCopies > 5, `${outbox.state.droppedCopies} dropped`);
    assert.deepEqual(bench.events('outbox_full'), []);
    broker.answers = false;
    bench.add(1500);
    await until('it is full', () => outbox.isFull);
    broker.answerAll();
    await bench.drained();
    assert.deepEqual(broker.ids, ids(0, 3500));
    await until('it is no longer full', () => !outbox.isFull);
  });

  test('an end without space for the last messages says how many they are and is no clean one', async (t) => {
    const disk = smallDisk(128 * 1024);
    if (!disk) return t.skip(REFUSED);
    const bench = await new Bench(join(disk, 'outbox')).open({ limits: { closeMs: 50 } });
    bench.add(1000);
    await until('it is full', () => bench.outbox.isFull);
    await bench.close();
    const [told] = bench.events('outbox_unwritten');
    assert.ok((told!.messages as number) > 100, `${told!.messages}`);
    const next = await bench.again();
    assert.equal(next.outbox.wasClean, false);
    next.broker.answers = true;
    await next.drained();
    assert.deepEqual(next.broker.ids, ids(0, 1000 - (told!.messages as number)));
  });
});

test('an end with messages that no file took is no clean one, however well the floor can be kept', async () => {
  const bench = await new Bench().open({ limits: { closeMs: 50 } });
  const obstacle = join(bench.dir, '00000001.ndjson');
  mkdirSync(obstacle);
  bench.add(3);
  await until('the write fails', () => bench.outbox.isFull);
  await bench.close();
  rmSync(obstacle, { recursive: true });
  assert.equal(bench.events('outbox_unwritten')[0]!.messages, 3);
  assert.equal((await bench.again()).outbox.wasClean, false);
});

describe('publishing again', () => {
  test('takes what was added since a time, in order, under other ids, then what came meanwhile, under their own', async () => {
    const bench = await new Bench().open({ limits: { rotateBytes: 1500, chunkBytes: 500 } });
    const { broker, outbox } = bench;
    broker.answers = true;
    for (let n = 0; n < 40; n += 1) {
      bench.add(1);
      bench.time += 1000;
    }
    await bench.drained();
    await bench.written();
    const since = bench.time - 15_000;
    broker.ids.length = 0;
    outbox.republish(since);
    bench.add(5);
    assert.notEqual(outbox.state.spilledBytes, 0);
    await bench.drained();
    assert.deepEqual(broker.ids, ids(25, 45));
    bench.add(1);
    assert.equal(outbox.state.spilledBytes, 0, 'directly again');
    await bench.drained();
    await bench.close();
    const next = await bench.again();
    assert.equal(next.outbox.state.unacknowledgedBytes, 0);
  });

  test('takes also what is on its way, and what an earlier run left without an answer, whenever that was added', async () => {
    const bench = await new Bench().open({ limits: { rotateBytes: 1500 } });
    bench.add(20);
    for (let i = 0; i < 10; i += 1) bench.broker.answer();
    bench.time += 100_000;
    bench.add(5);
    await bench.close();
    const next = new Bench(bench.dir);
    next.time = bench.time;
    await next.open();
    next.outbox.republish(bench.time);
    next.add(2, 25);
    await until('all are handed on', () => next.broker.ids.length >= 17);
    assert.deepEqual(next.broker.ids, ids(10, 27));
    // And once more, now that they are all on their way.
    next.broker.ids.length = 0;
    next.outbox.republish(bench.time);
    await until('they are handed on', () => next.broker.ids.length >= 7);
    assert.deepEqual(next.broker.ids, ids(20, 27));
    next.broker.answerAll();
    await next.drained();
    assert.equal(next.outbox.state.unacknowledgedBytes, 0);
    await next.close();
    assert.equal((await bench.again()).outbox.state.unacknowledgedBytes, 0);
  });

  test('moves the floor back with it: an end in the middle loses nothing of it', async () => {
    const bench = await new Bench().open();
    bench.broker.answers = true;
    bench.add(20);
    await bench.drained();
    await until('the floor is kept', () => bench.floor.offset > 0);
    bench.broker.answers = false;
    bench.add(3);
    await bench.written();
    bench.outbox.republish(0);
    await until('all are handed on', () => bench.broker.ids.length === 46);
    // Behind the three that were on their way before.
    for (let i = 0; i < 5; i += 1) bench.broker.answer(3);
    await bench.close();
    const next = await bench.again();
    next.broker.answers = true;
    await next.drained();
    assert.deepEqual(next.broker.ids, ids(5, 23));
  });
});

type Scenario = (typeof SCENARIOS)[number];

/** Runs outbox_child.ts to its end. */
async function runChild(
  directory: string,
  scenario: Scenario,
  crashAt: string,
): Promise<{ text: string; signal: NodeJS.Signals | null }> {
  const child = spawn(process.execPath, ['--import', 'tsx', CHILD, directory, scenario], {
    env: { ...process.env, MARKETPRISM_CRASH_AT: crashAt },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let text = '';
  child.stdout.on('data', (chunk: Buffer) => {
    text += chunk.toString();
  });
  return new Promise((done) => child.on('close', (_code, signal) => done({ text, signal })));
}

describe('kill -9', () => {
  /**
   * Runs that die, each at its point, and one after them. @returns what was added and never published by any of them, and the
   * message that each of those that died had added last
   */
  async function lostBy(scenario: Scenario, ...crashes: string[]): Promise<{ lost: string[]; last: string[] }> {
    const directory = mkdtempSync(join(root, 'kill-'));
    const last: string[] = [];
    for (const crash of crashes) {
      const { signal } = await runChild(directory, scenario, crash);
      assert.equal(signal, 'SIGKILL', `${scenario} comes to ${crash}`);
      last.push(readIds(directory, 'added').at(-1)!);
    }
    const next = await new Bench(join(directory, 'outbox')).open();
    // The floor that was kept may have been the last one, of a clean end.
    if (!crashes.at(-1)!.startsWith('outbox.floor_kept')) assert.equal(next.outbox.wasClean, false);
    next.broker.answers = true;
    await next.drained();
    assert.equal(next.outbox.state.damaged, 0);
    await next.close();
    const published = new Set([...readIds(directory, 'published'), ...next.broker.ids]);
    return { lost: readIds(directory, 'added').filter((id) => !published.has(id)), last };
  }

  const POINTS: [CrashPoint, Scenario, number[]][] = [
    ['outbox.written', 'away', [1, 17]],
    ['outbox.written', 'answering', [30]],
    ['outbox.written', 'spilling', [45]],
    ['outbox.synced', 'away', [1, 9]],
    ['outbox.synced', 'answering', [9]],
    ['outbox.synced', 'spilling', [8]],
    ['outbox.floor_kept', 'answering', [1, 2, 4]],
    ['outbox.floor_kept', 'spilling', [3, 4]],
    ['outbox.read_back', 'spilling', [1, 4]],
  ];
  for (const [point, scenario, times] of POINTS) {
    test(`at ${point} loses nothing that was written (${scenario})`, async () => {
      const runs = times.map((time) => lostBy(scenario, `${point}@${time}`));
      for (const { lost, last } of await Promise.all(runs)) {
        // Only the write itself comes at a known moment; at others the next message may be on its way to the file.
        const excused = point === 'outbox.written' ? [] : last;
        assert.deepEqual(
          lost.filter((id) => !excused.includes(id)),
          [],
        );
      }
    });
  }

  test('at outbox.adding loses the message that is being added, and nothing else', async () => {
    const scenarios = ['away', 'answering', 'spilling'] as const;
    const runs = scenarios.map((scenario) => lostBy(scenario, 'outbox.adding@40'));
    for (const { lost } of await Promise.all(runs)) assert.deepEqual(lost, ['id:39']);
  });

  test('again and again over the same files loses nothing but what each was just adding', async () => {
    const crashes = ['outbox.written@20', 'outbox.floor_kept@4', 'outbox.synced@8', 'outbox.read_back@3'];
    const { lost, last } = await lostBy('spilling', ...crashes);
    assert.ok(Number(last.at(-1)!.slice(3)) > 40, `the last one added: ${last.at(-1)}`);
    assert.deepEqual(
      lost.filter((id) => !last.includes(id)),
      [],
    );
  });
});
