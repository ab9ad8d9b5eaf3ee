/** All checks, in the order in which they are asked: what the others stand on first. */
import type { Check } from './check.ts';
import { deadLetters, disk, schema, services, streams } from './machine.ts';
import { continuity, duplicates, freshness, gaps, hotAgainstCold, storageDelay } from './rows.ts';
import { values } from './values.ts';

export const CHECKS: Check[] = [
  services,
  schema,
  streams,
  freshness,
  storageDelay,
  duplicates,
  continuity,
  gaps,
  hotAgainstCold,
  values,
  deadLetters,
  disk,
];
