/** What repair.ts is asked for over HTTP as its own flags, and what it would do, read from what it prints. Pure. */
import { createHash } from 'node:crypto';
import { dirname } from 'node:path';
import { z } from 'zod';
import { CHECKS } from '../checks/index.ts';
import type { Config } from '../config.ts';
import { REPAIR_NAMES } from '../repair/names.ts';
import { DATA_TYPES, EXCHANGES } from '../rows.ts';
import { utcTime } from './parameters.ts';
import { WebError } from './route.ts';

const DAY_MS = 86_400_000;
/** Without a time it looks at so much, as repair.ts does. */
const SPAN_MS = DAY_MS;
/** Whoever waits for the collectors for longer plans again. */
const MOST_WAIT_SECONDS = 600;

const MENDED = CHECKS.filter(({ repairs }) => repairs !== undefined).map(({ name }) => name);

export const PLAN_BODY = z.strictObject({
  only: z
    .array(z.enum(REPAIR_NAMES))
    .min(1)
    .max(REPAIR_NAMES.length)
    .optional()
    .meta({ description: 'Kinds of repair.' }),
  check: z.enum(MENDED).optional().meta({ description: 'What mends the findings of this check.' }),
  from: utcTime.optional(),
  to: utcTime.optional(),
  exchange: z.enum(EXCHANGES).optional(),
  symbol: z
    .string()
    .regex(/^[A-Za-z0-9][A-Za-z0-9_.:/-]{0,63}$/, 'takes a symbol such as BTC-USDT')
    .optional(),
  type: z.enum(DATA_TYPES).optional(),
  trust: z.enum(['hot', 'cold']).optional().meta({ description: 'Which is right where both may be.' }),
  wait_seconds: z.number().int().min(0).max(MOST_WAIT_SECONDS).optional(),
});
export type PlanAsked = z.infer<typeof PLAN_BODY>;

/** What a plan is about; its times are fixed, so that what is applied later looks at the same. */
export const PLANNED = PLAN_BODY.extend({ from: z.number(), to: z.number() });
export type Planned = z.infer<typeof PLANNED>;

/** @param now wall clock, ms @throws WebError 400 where members contradict each other */
export function plannedOf(asked: PlanAsked, now: number): Planned {
  const { only, check, from, to, exchange, symbol } = asked;
  if (only !== undefined && check !== undefined) throw new WebError(400, 'excludes only', 'check');
  if ((from === undefined) !== (to === undefined)) throw new WebError(400, 'from and to come together', 'from');
  if (from !== undefined && to !== undefined && from >= to) throw new WebError(400, 'is not before to', 'from');
  if (only?.includes('refetch') && (exchange === undefined || symbol === undefined))
    throw new WebError(400, 'refetch needs exchange and symbol', 'only');
  return { ...asked, from: from ?? now - SPAN_MS, to: to ?? now };
}

/** Flags of repair.ts, each with its value in one word, so that no value is taken for a flag. */
export function flagsOf(planned: Planned): string[] {
  const { only, check, from, to, exchange, symbol, type, trust, wait_seconds } = planned;
  const given: Record<string, string | undefined> = {
    only: only?.join(','),
    ...{ check, from: new Date(from).toISOString(), to: new Date(to).toISOString(), exchange, symbol, type, trust },
    wait: wait_seconds === undefined ? undefined : wait_seconds === 0 ? '0' : `${wait_seconds}s`,
  };
  return Object.entries(given).flatMap(([name, value]) => (value === undefined ? [] : [`--${name}=${value}`]));
}

/** Names of variables that repair.ts has no use for, and that may hold secrets. */
const SECRET = /TOKEN|SECRET|WEBHOOK|LARKBOT|SMTP|ALERT_EMAIL|^OKX_API/;

/** The environment in which repair.ts sees what this service sees. */
export function environmentOf(config: Config, env: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  const others = Object.entries(env).filter(([name]) => !SECRET.test(name));
  return {
    ...Object.fromEntries(others),
    MARKETPRISM_MODE: config.mode,
    // The demo's folder is within the one that is set.
    MARKETPRISM_DATA_DIR: config.mode === 'demo' ? dirname(config.dataDir) : config.dataDir,
    MARKETPRISM_NATS_URL: config.natsUrl,
    CLICKHOUSE_URL: config.clickhouseUrl,
    CLICKHOUSE_USER: config.clickhouseUser,
    CLICKHOUSE_PASSWORD: config.clickhousePassword,
    MARKETPRISM_COLD_CLICKHOUSE_URL: config.coldClickhouseUrl,
    MARKETPRISM_CLICKHOUSE_CLUSTER: config.clickhouseCluster ?? '',
    MARKETPRISM_HOT_DATABASE: config.hotDatabase,
    MARKETPRISM_COLD_DATABASE: config.coldDatabase,
    MARKETPRISM_SIGNALS_DATABASE: config.signalsDatabase,
    MARKETPRISM_GAP_AGE: `${config.gapAgeMs}ms`,
    // Its log would stand between what it says.
    LOG_LEVEL: 'silent',
  };
}

export const PLAN_LINE = z.object({
  repair: z.string(),
  subject: z.string(),
  what: z.string(),
  rows: z.number().nullable().describe('null: it is not known, or cannot be done.'),
  is_possible: z.boolean(),
});
export type PlanLine = z.infer<typeof PLAN_LINE>;

const NOTHING = 'nothing to mend';
const HEAD = /^(repair +)(of +)what +rows$/;
const END = /^\d+ rows; nothing was changed/;
const CANNOT = 'cannot: ';

/** What repair.ts says that it would do. @param text its output @returns null when it is none of a plan */
export function planLines(text: string): PlanLine[] | null {
  const lines = text.split('\n');
  if (lines[0] === NOTHING) return [];
  const [, first, second] = HEAD.exec(lines[0] ?? '') ?? [];
  if (first === undefined || second === undefined) return null;
  const found: PlanLine[] = [];
  for (const [i, line] of lines.entries()) {
    if (i === 0) continue;
    // The line after the table tells that it is whole.
    if (line === '') return END.test(lines[i + 1] ?? '') ? found : null;
    const [, what, rows] = /^(.*?) +(\d+|-)$/.exec(line.slice(first.length + second.length)) ?? [];
    if (what === undefined || rows === undefined) return null;
    const cannot = what.startsWith(CANNOT);
    found.push({
      repair: line.slice(0, first.length).trimEnd(),
      subject: line.slice(first.length, first.length + second.length).trimEnd(),
      what: cannot ? what.slice(CANNOT.length) : what,
      rows: rows === '-' ? null : Number(rows),
      is_possible: !cannot,
    });
  }
  return null;
}

/** Rows that a plan changes. */
export function rowsOf(lines: readonly PlanLine[]): number {
  return lines.reduce((sum, { rows }) => sum + (rows ?? 0), 0);
}

/** Known to whoever has seen a plan, and another one when anything of it is. */
export function hashOf(planned: Planned, lines: readonly PlanLine[]): string {
  return createHash('sha256')
    .update(JSON.stringify([flagsOf(planned), lines]))
    .digest('hex')
    .slice(0, 32);
}
