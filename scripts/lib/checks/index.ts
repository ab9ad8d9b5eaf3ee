/** All checks, in the order in which they are asked: what the others stand on first. */
import { candles } from './candles.ts';
import type { Check } from './check.ts';
import { completeness } from './coverage.ts';
import { disk } from './disk.ts';
import { deadLetters, schema, services, streams } from './machine.ts';
import { processes } from './processes.ts';
import { continuity, duplicates, freshness, gaps, hotAgainstCold, storageDelay } from './rows.ts';
import { series } from './series.ts';
import { trend } from './trend.ts';
import { values } from './values.ts';
import { volume } from './volume.ts';

export const CHECKS: Check[] = [
  services,
  schema,
  streams,
  freshness,
  storageDelay,
  duplicates,
  continuity,
  gaps,
  completeness,
  trend,
  hotAgainstCold,
  values,
  volume,
  candles,
  deadLetters,
  series,
  processes,
  disk,
];
