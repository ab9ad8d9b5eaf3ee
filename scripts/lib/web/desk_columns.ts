/** Series of the desk as columns for charts: few points that keep what stands out, and a null wherever a line may not be drawn. */
import { z } from 'zod';
import type { DeskRecord, KeyRecords } from './desk_index.ts';
import { keypoints } from './keypoints.ts';
import { beijingTime, limit, wholeNumber } from './parameters.ts';

const DAY_MS = 86_400_000;
/** So many records are read for one answer at most, the newest ones: 69 days of five minutes. */
export const MOST_READ = 20_000;

export type Values = (number | null)[];

/** What each route of columns takes. */
export const COLUMNS_QUERY = {
  points: limit(1500, 5000).pipe(z.number().min(50)).describe('So many points, and a few more where a line is broken.'),
  days: wholeNumber(1, 3650).optional().describe('Up to `to` or the newest record, where there is no `from`.'),
  from: beijingTime.optional(),
  to: beijingTime.optional(),
};
export interface AskedColumns {
  points: number;
  days?: number | undefined;
  /** ms. */
  from?: number | undefined;
  to?: number | undefined;
}

export const COLUMN = z.array(z.number().nullable());
/** What each answer has besides its columns. */
export const COLUMNS_ANSWER = {
  success: z.literal(true),
  total_count: z.number().describe('Records of the time that was asked for.'),
  missing_slots: z.number().describe('Slots without a record between the first and the last of them.'),
  is_complete: z
    .boolean()
    .describe(`false: of what is read from files only the newest ${MOST_READ} records are there.`),
  times: z
    .array(z.number())
    .describe('ms, ascending; the columns have a value for each. Of slots without a record: null.'),
};

/**
 * The records that are asked for.
 * @returns their positions: from `begin` to before `end`
 */
export function spanOf(records: KeyRecords, { from, to, days }: AskedColumns): [begin: number, end: number] {
  const end = to === undefined ? records.size : records.from(to + 1);
  if (from !== undefined) return [Math.min(records.from(from), end), end];
  if (days === undefined || end === 0) return [0, end];
  return [records.from(records.time(end - 1) - days * DAY_MS + 1), end];
}

/** Times of the records of a span, ms. */
export function timesOf(records: KeyRecords, begin: number, end: number): number[] {
  return Array.from({ length: end - begin }, (_, i) => records.time(begin + i));
}

/** A column of the index over a span. */
export function indexed(records: KeyRecords, name: string, begin: number, end: number): Values {
  return Array.from({ length: end - begin }, (_, i) => records.value(name, begin + i));
}

/** A member of records that were read. */
export function memberOf(read: readonly DeskRecord[], name: string): Values {
  return read.map((record) => numberOf(record[name]));
}

export function numberOf(value: unknown): number | null {
  return typeof value === 'number' ? value : null;
}

/**
 * Columns with few points. Peaks stay (see keypoints.ts), and no two points that are neighbours afterwards have something unknown between them.
 * @param times ms, ascending
 * @param columns one value per time
 * @param cadenceMs from one record to the next
 * @param points to show, at least 2
 */
export function chartOf<N extends string>(
  times: readonly number[],
  columns: Record<N, Values>,
  { cadenceMs, points }: { cadenceMs: number; points: number },
): { times: number[]; missing_slots: number } & Record<N, Values> {
  const names = Object.keys(columns) as N[];
  const allTimes: number[] = [];
  const all = names.map((): Values => []);
  let missing_slots = 0;
  for (const [i, time] of times.entries()) {
    const before = times[i - 1];
    const missing = before === undefined ? 0 : Math.round((time - before) / cadenceMs) - 1;
    if (missing > 0) {
      missing_slots += missing;
      allTimes.push(before! + cadenceMs);
      for (const values of all) values.push(null);
    }
    allTimes.push(time);
    for (const [n, name] of names.entries()) all[n]!.push(columns[name][i]!);
  }
  const chosen = withBreaks(keypoints(all, points), all);
  const shown = names.map((name, n) => [name, chosen.map((at) => all[n]![at]!)] as const);
  return {
    ...{ missing_slots, times: chosen.map((at) => allTimes[at]!) },
    ...(Object.fromEntries(shown) as Record<N, Values>),
  };
}

/** Adds a null wherever a line from one point to the next would go over one. @param chosen ascending */
function withBreaks(chosen: readonly number[], columns: readonly Values[]): number[] {
  const points = new Set(chosen);
  // A point that breaks one line may be a value of another one.
  for (let before = -1; before !== points.size; ) {
    before = points.size;
    for (const values of columns) addBreaks(points, values);
  }
  return [...points].sort((one, other) => one - other);
}

function addBreaks(points: Set<number>, values: Values): void {
  let [isDrawn, unknown] = [false, -1];
  for (const [i, value] of values.entries()) {
    if (points.has(i)) {
      if (isDrawn && value !== null && unknown >= 0) points.add(unknown);
      [isDrawn, unknown] = [value !== null, -1];
    } else if (value === null && unknown < 0) unknown = i;
  }
}
