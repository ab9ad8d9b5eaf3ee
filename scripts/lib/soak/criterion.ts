/** What every criterion of a soak run is made of. */
import type { History } from './history.ts';
import { type SoakCriterion, type SoakLedger, type SoakStop, verdictOfCriterion } from './report.ts';

/** Of a note in the report. */
const NOTE_CHARACTERS = 480;

/** All that is known of a run at one moment. */
export interface Evidence {
  forMs: number;
  /** Of the run so far, at most as long as it was to be. */
  elapsedMs: number;
  /** It has ended, and nothing more comes. */
  isOver: boolean;
  history: History;
  samplesMissing: number;
  /** From one round of the alerter to the next, s; and those that did not come. */
  roundSeconds: number;
  roundsMissing: number;
  /** What the alerter could not do. */
  analysisErrors: number;
  /** Ends of processes that nobody asked for. */
  unplannedEnds: number;
  stops: readonly SoakStop[];
  /** The stops in the middle and at the end that are done. */
  stopsDone: number;
  ledger: SoakLedger | null;
}

export type Figures = Pick<SoakCriterion, 'measured' | 'samples' | 'missing' | 'note'>;

/** A criterion with its verdict. @param words in English and Chinese */
export function criterion(
  name: string,
  [title, zh]: [string, string],
  limit: SoakCriterion['limit'],
  unit: string,
  figures: Figures,
): SoakCriterion {
  const note = figures.note === null ? null : figures.note.slice(0, NOTE_CHARACTERS);
  return { name, title, zh, limit, unit, ...figures, note, verdict: verdictOfCriterion({ ...figures, limit }) };
}

/** Samples of processes that should be there and are not. */
export function missingOf({ history, samplesMissing }: Evidence): number {
  return samplesMissing + history.processes.reduce((sum, { missing }) => sum + missing, 0);
}

/** A figure as it is told, with its sign. */
export function signed(value: number): string {
  return `${value < 0 ? '−' : '+'}${rounded(Math.abs(value))}`;
}

/** Three digits that count. */
export function rounded(value: number): string {
  return String(Number(value.toPrecision(3)));
}
