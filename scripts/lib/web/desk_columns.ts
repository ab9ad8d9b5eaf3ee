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

interface ChartPlan<N extends string> {
  /** From one record to the next, ms. */
  cadenceMs: number;
  /** To show, at least 2. */
  points: number;
  /** Columns whose peaks stay; absent: all. */
  by?: readonly N[];
  /** Places in `times` that are shown besides, fewer than `points`. */
  also?: readonly number[];
}

/**
 * Columns with few points. Peaks stay (see keypoints.ts), and no two points that are neighbours afterwards have something unknown between them.
 * @param times ms, ascending
 * @param columns one value per time
 */
export function chartOf<N extends string>(
  times: readonly number[],
  columns: Record<N, Values>,
  { cadenceMs, points, by, also = [] }: ChartPlan<NoInfer<N>>,
): { times: number[]; missing_slots: number } & Record<N, Values> {
  const names = Object.keys(columns) as N[];
  const line = withHoles(
    times,
    names.map((name) => columns[name]),
    cadenceMs,
  );
  const judged = line.columns.filter((_, n) => by === undefined || by.includes(names[n]!));
  const isShown = new Uint8Array(line.times.length);
  const isWhole = line.times.length <= points;
  for (const at of keypoints(judged, isWhole ? points : points - also.length)) isShown[at] = 1;
  for (const at of also) isShown[line.placeOf(at)] = 1;
  // A point that breaks one line may be a value of another one.
  while (line.columns.some((values) => addBreaks(isShown, values)));
  const chosen = [...isShown.keys()].filter((at) => isShown[at] === 1);
  const shown = names.map((name, n) => [name, chosen.map((at) => line.columns[n]![at]!)] as const);
  return {
    ...{ missing_slots: line.missing, times: chosen.map((at) => line.times[at]!) },
    ...(Object.fromEntries(shown) as Record<N, Values>),
  };
}

/** A null in each column where records are missing, in place of the first of them. `placeOf`: where a record is then. */
function withHoles(times: readonly number[], columns: readonly Values[], cadenceMs: number) {
  let missing = 0;
  /** Records before which some are missing. */
  const after: number[] = [];
  for (let i = 1; i < times.length; i += 1) {
    const count = Math.round((times[i]! - times[i - 1]!) / cadenceMs) - 1;
    if (count <= 0) continue;
    missing += count;
    after.push(i);
  }
  const filled = <T>(values: readonly T[], hole: (place: number) => T): T[] => {
    const pieces = after.map((place, n) => [...values.slice(after[n - 1] ?? 0, place), hole(place)]);
    return ([] as T[]).concat(...pieces, values.slice(after.at(-1) ?? 0));
  };
  return {
    missing,
    times: filled(times, (place) => times[place - 1]! + cadenceMs),
    columns: columns.map((values) => filled(values, () => null)),
    placeOf: (at: number) => at + after.filter((place) => place <= at).length,
  };
}

/** Shows a null wherever a line from one point to the next would go over one. @returns whether there was any */
function addBreaks(isShown: Uint8Array, values: Values): boolean {
  let [isDrawn, unknown, isBroken] = [false, -1, false];
  for (let i = 0; i < values.length; i += 1) {
    const isKnown = values[i] !== null;
    if (isShown[i] === 1) {
      if (isDrawn && isKnown && unknown >= 0) {
        isShown[unknown] = 1;
        isBroken = true;
      }
      [isDrawn, unknown] = [isKnown, -1];
    } else if (!isKnown && unknown < 0) unknown = i;
  }
  return isBroken;
}
