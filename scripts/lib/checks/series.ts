/** The series of JSONL files: each slot once, each line whole, and the newest one young. */
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { readJson } from '../files.ts';
import { isTorn, objectsOfAll } from '../jsonl.ts';
import { GZIP, rotatedSet } from '../rotated.ts';
import { SERIES_STATE, type SeriesState, STATE_FILE } from '../series.ts';
import { type Check, type Context, type Finding, NotApplicable, severityOfCompleteness } from './check.ts';
import type { Kind } from './kinds.ts';
import { plural } from './rows.ts';

const MINUTE_MS = 60_000;
const LATE_MS = 5 * MINUTE_MS;
const SILENT_MS = 30 * MINUTE_MS;

export const series: Check = {
  name: 'series',
  zh: '序列文件',
  question: 'Has each series of JSONL files every slot of its time, once, in whole lines, and does it go on?',
  limit: () => '0 missing, doubled or torn; as old as its cadence and 5 min, 30 min at the most',
  fix: 'journalctl of the script that writes it; at its next turn it completes what it missed',
  standsOn: [],
  async ask(context) {
    const directory = join(context.config.dataDir, 'state');
    const files = existsSync(directory) ? readdirSync(directory).filter((name) => STATE_FILE.test(name)) : [];
    if (files.length === 0) throw new NotApplicable('no script has written a series here');
    const findings: Finding[] = [];
    let records = 0;
    for (const name of files.sort()) {
      const path = join(directory, name);
      const state = SERIES_STATE.safeParse(readJson(path));
      if (state.success) records += await judge(state.data, context, findings);
      else
        findings.push({
          kind: 'bad_state',
          subject: name,
          what: 'is no health file of a series',
          severity: 'medium',
          evidence: path,
        });
    }
    return { figure: `${files.length} series, ${plural(records, 'record')}`, findings };
  },
};

/** @returns records that were read */
async function judge(state: SeriesState, context: Context, findings: Finding[]): Promise<number> {
  const { config, now } = context;
  const file = join(config.dataDir, state.file);
  const add = (kind: Kind, what: string, severity: Finding['severity'], evidence = file) =>
    findings.push({ kind, subject: state.name, what, severity, evidence });
  const slots = new Map<number, number>();
  const { bad, records } = await linesIn(file, context.from, slots);
  for (const [path, numbers] of bad) {
    const what = `${plural(numbers.length, 'line')} without a record: ${numbers.slice(0, 3).join(', ')}`;
    add('bad_lines', what, 'medium', path);
  }
  for (const path of rotatedSet(file, context.from)) {
    // A writer that is in the middle of a line has it whole at the next look.
    if (!path.endsWith(GZIP) && isTorn(path)) add('torn', 'its last line has no end', 'medium', path);
  }
  const [from, to] = [Math.max(context.from, state.first_slot ?? now), Math.min(context.to, state.last_slot ?? 0)];
  const first = Math.ceil((from - state.offset_ms) / state.cadence_ms) * state.cadence_ms + state.offset_ms;
  let [expected, missing] = [0, 0];
  for (let slot = first; slot <= to; slot += state.cadence_ms) {
    expected += 1;
    if (!slots.has(slot)) missing += 1;
  }
  if (missing > 0)
    add(
      'missing_slots',
      `${missing} of ${expected} slots are missing`,
      severityOfCompleteness((100 * (expected - missing)) / expected),
    );
  const doubled = [...slots].filter(([slot, times]) => slot >= from && slot <= to && times > 1).length;
  if (doubled > 0) add('double_slots', `${plural(doubled, 'slot')} written more than once`, 'medium');
  const age = now - ((state.last_slot ?? now) + state.cadence_ms + state.delay_ms);
  if (age > LATE_MS) {
    const why = state.error === null ? '' : `: ${state.error}`;
    add('silent', `the next slot is ${Math.round(age / MINUTE_MS)} min late${why}`, age > SILENT_MS ? 'high' : 'low');
  }
  return records;
}

/**
 * Counts by slot how often it was begun anew: the lines of one slot stand together, and a correction says what it is.
 * @param since ms: files that end before it are left out
 * @returns `bad`: numbers of lines without a record, by file
 */
async function linesIn(
  file: string,
  since: number,
  slots: Map<number, number>,
): Promise<{ records: number; bad: Map<string, number[]> }> {
  let [records, previous] = [0, Number.NaN];
  const bad = new Map<string, number[]>();
  for await (const line of objectsOfAll(file, since)) {
    const slot = 'value' in line ? line.value.slot : null;
    if (!('value' in line) || typeof slot !== 'number') {
      bad.set(line.path, [...(bad.get(line.path) ?? []), line.number]);
      continue;
    }
    records += 1;
    const isCorrection = line.value.correction === true;
    if (isCorrection && !slots.has(slot)) slots.set(slot, 1);
    else if (!isCorrection && slot !== previous) slots.set(slot, (slots.get(slot) ?? 0) + 1);
    previous = isCorrection ? Number.NaN : slot;
  }
  return { records, bad };
}
