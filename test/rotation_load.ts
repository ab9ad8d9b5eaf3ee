/** Real writers at full speed while the real logrotate rotates, and what became of their lines. */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdirSync, readdirSync, statSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { waitFor } from '../scripts/lib/processes.ts';
import { READY_MS } from './pipeline.ts';
import { linesByHand, Rotation } from './rotation.ts';
import { SERIES_FILE } from './rotation_writer.ts';

const WRITER = join(import.meta.dirname, 'rotation_writer.ts');
const MINUTE_MS = 60_000;
const LOG = 'talker.log';

type Range = [begin: number, end: number];

interface Writer {
  process: ChildProcess;
  output: string;
  /** Of its first life. */
  begin: number;
  ended: Promise<unknown>;
}

async function write(kind: string, place: string): Promise<Writer> {
  const child = spawn(process.execPath, ['--import', 'tsx', WRITER, kind, place], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const writer: Writer = {
    process: child,
    output: '',
    begin: Number.NaN,
    ended: new Promise((done) => child.once('close', done)),
  };
  await new Promise<void>((done, fail) => {
    child.once('close', (code) => fail(new Error(`the writer of ${kind} ended with ${code}`)));
    child.stdout!.on('data', (chunk: Buffer) => {
      writer.output += chunk.toString();
      if (/^begin \d+$/m.test(writer.output)) done();
    });
  });
  writer.begin = Number(/^begin (\d+)$/m.exec(writer.output)![1]);
  return writer;
}

export interface Outcome {
  /** Lines that are not there once, in their order, and whole; by what wrote them. */
  wrong: Record<string, number>;
  lines: Record<string, number>;
  /** `rotated`: of the file that has the fewest. */
  files: { rotated: number; compressed: number; torn: number };
  said: string;
}

/**
 * @param rotations of all files, a second apart
 * @param kills writers are killed at this rotation's beginning, while logrotate works, and started anew: every so many
 */
export async function rotateUnderLoad(
  rotations: number,
  { kills = 0, change }: { kills?: number; change?: (text: string) => string } = {},
): Promise<Outcome> {
  const rotation = new Rotation(change);
  const { dataDir, logDir } = rotation;
  mkdirSync(join(dataDir, 'unified'));
  mkdirSync(join(dataDir, 'alerts'));
  const plans: [kind: string, place: string][] = [
    ['lines', join(dataDir, 'unified', 'lines.jsonl')],
    ['lines', join(dataDir, 'alerts', 'alerts.jsonl')],
    ['series', dataDir],
    ['child', logDir],
  ];
  const written = [...plans.slice(0, 2).map(([, place]) => place), join(dataDir, SERIES_FILE), join(logDir, LOG)];
  const writers: Writer[] = [];
  // The first and the last are not told: they have to see it themselves.
  const tell = () => rotation.tell([writers[1]!, writers[2]!].map(({ process }) => process.pid!));
  let said = '';
  try {
    for (const [kind, place] of plans) writers.push(await write(kind, place));
    tell();
    for (let round = 1; round <= rotations; round += 1) {
      // An empty file is not renamed, and one that is not there proves nothing.
      await waitFor('a line in each file', READY_MS, async () => written.every((path) => sizeOf(path) > 0));
      const rotated = rotation.force();
      if (kills > 0 && round % kills === 0) {
        // Not the child's: its lines are numbered by itself, and end with it.
        const victim = (round / kills) % 3;
        await new Promise((done) => setTimeout(done, (round * 7) % 30));
        writers[victim]!.process.kill('SIGKILL');
        await writers[victim]!.ended;
        said += await rotated;
        const { begin } = writers[victim]!;
        writers[victim] = await write(...plans[victim]!);
        writers[victim]!.begin = begin;
        tell();
      } else said += await rotated;
    }
    for (const { process } of writers) process.kill('SIGTERM');
    await Promise.all(writers.map(({ ended }) => ended));
    return { ...outcome(dataDir, logDir, writers), said };
  } finally {
    for (const { process } of writers) process.kill('SIGKILL');
    rotation.close();
  }
}

function outcome(dataDir: string, logDir: string, writers: readonly Writer[]): Omit<Outcome, 'said'> {
  const rangeOf = (writer: Writer): Range => [writer.begin, Number(/^end (\d+)$/m.exec(writer.output)?.[1])];
  const wrong: Record<string, number> = {};
  const lines: Record<string, number> = {};
  const numbered = (name: string, found: readonly string[], member: string, [begin, end]: Range, step = 1) => {
    const numbers = found.map((line) => numberOn(line, member));
    lines[name] = numbers.length;
    // Beside those out of place, each that is missing at the end.
    wrong[name] =
      numbers.filter((each, i) => each !== begin + i * step).length + Math.abs((end - begin) / step - numbers.length);
  };
  numbered('a JSONL file', linesByHand(join(dataDir, 'unified'), 'lines.jsonl'), 'n', rangeOf(writers[0]!));
  numbered('a compressed one', linesByHand(join(dataDir, 'alerts'), 'alerts.jsonl'), 'n', rangeOf(writers[1]!));
  const series = linesByHand(join(dataDir, dirname(SERIES_FILE)), basename(SERIES_FILE));
  numbered('a series', series, 'slot', rangeOf(writers[2]!), MINUTE_MS);
  const log = linesByHand(logDir, LOG);
  // Said on one output, it may stand before the last lines of the other.
  const end = numberOn(log.find((line) => line.startsWith('{"end":')) ?? '', 'end');
  for (const member of ['out', 'err']) {
    const own = log.filter((line) => line.startsWith(`{"${member}":`));
    numbered(`a log, ${member}`, own, member, [0, end]);
  }
  wrong['a log, other lines'] = log.length - 1 - lines['a log, out']! - lines['a log, err']!;
  const names = [join(dataDir, 'unified'), join(dataDir, 'alerts'), logDir].flatMap((each) => readdirSync(each));
  const rotatedOf = (file: string) =>
    names.filter((name) => name.startsWith(`${file}-`) && /-\d{8}-\d{6}(\.gz)?$/.test(name)).length;
  const files = {
    rotated: Math.min(...[basename(SERIES_FILE), 'lines.jsonl', 'alerts.jsonl', LOG].map(rotatedOf)),
    compressed: names.filter((name) => name.endsWith('.gz')).length,
    torn: names.filter((name) => name.includes('.torn')).length,
  };
  return { wrong, lines, files };
}

function sizeOf(path: string): number {
  return statSync(path, { throwIfNoEntry: false })?.size ?? 0;
}

/** NaN: the line is torn. */
function numberOn(line: string, member: string): number {
  try {
    return Number(JSON.parse(line)[member]);
  } catch {
    return Number.NaN;
  }
}

/** Whatever was not rotated proves nothing. */
export function assertWhole({ wrong, lines, files, said }: Outcome, rotations: number): void {
  assert.equal(said, '', 'logrotate has nothing to complain of');
  assert.deepEqual(wrong, Object.fromEntries(Object.keys(wrong).map((name) => [name, 0])), JSON.stringify(lines));
  for (const [name, count] of Object.entries(lines)) assert.ok(count > 10 * rotations, `${name}: ${count} lines`);
  assert.equal(files.rotated, rotations);
  assert.ok(files.compressed >= 2 * (rotations - 2), `${files.compressed} compressed`);
}
