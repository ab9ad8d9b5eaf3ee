/** The limits of checks and alerts that an operator may set: one file, read by integrity.ts and by monitor.ts, so that both say the same. */
import { join } from 'node:path';
import { z } from 'zod';
import { OperatorError } from '../cli.ts';
import { readJson, writeJsonAtomic } from '../files.ts';

const positive = z.number().positive();
const severity = z.enum(['low', 'medium', 'high', 'critical']);

/** Each with its default; an unknown name is refused, so that a misspelled one is not thought to be set. */
export const LIMITS = z.strictObject({
  /** Age of the newest trade and order book, and of what comes by the clock. */
  freshness_minutes: positive.default(5),
  low_frequency_hours: positive.default(8),
  /** From the socket to hot, and from hot to cold. */
  storage_delay_minutes: positive.default(30),
  replication_lag_minutes: positive.default(60),
  open_gap_minutes: positive.default(10),
  /** Rows stored of rows expected. */
  completeness_percent: z.number().min(0).max(100).default(95),
  pending_messages: z.number().int().positive().default(10_000),
  service_memory_mib: positive.default(400),
  engine_memory_mib: positive.default(1024),
  restarts: z.number().int().min(0).default(5),
  /** Of a price from the median of its minute, and of all venues. */
  price_off_percent: positive.default(5),
  /** Of what a stream traded by our rows from what its venue's candles say. */
  volume_off_percent: positive.default(1),
  /** More than so many times the rows of earlier days, or less than one of so many. */
  volume_times: z.number().min(1).default(10),
  /** Alerts that are less severe are recorded, and nobody is notified. */
  notify_from: severity.default('low'),
  /** A standing alert that is high or critical is told again after this time; 0: never. */
  reminder_hours: z.number().min(0).default(24),
  /** An alert that was raised so often within so long flaps: nobody hears of it until it has rested for as long. */
  flap_raises: z.number().int().min(2).default(3),
  flap_minutes: positive.default(360),
});
export type Limits = z.infer<typeof LIMITS>;

const FILE = 'state/thresholds.json';

/** @throws OperatorError naming the file and the member when it holds what is no limit */
export function readLimits(dataDir: string): Limits {
  const path = join(dataDir, FILE);
  const parsed = LIMITS.safeParse(readJson(path) ?? {});
  if (parsed.success) return parsed.data;
  const { path: where, message } = parsed.error.issues[0]!;
  throw new OperatorError(`${path}: ${[where.join('.'), message].filter(Boolean).join(': ')}: mend or remove it`);
}

export function writeLimits(dataDir: string, limits: Limits): void {
  writeJsonAtomic(join(dataDir, FILE), limits);
}
