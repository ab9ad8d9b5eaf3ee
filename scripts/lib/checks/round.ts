/** One round of all checks, whoever asks for it: integrity.ts by hand, monitor.ts by the clock. */
import { coldServer, createClickHouse, hotServer } from '../clickhouse.ts';
import type { Config } from '../config.ts';
import { EXIT, type Verdict } from '../status.ts';
import { type Check, type Context, type Outcome, run, verdictOfAll } from './check.ts';
import { type Coverage, coverage } from './coverage.ts';
import { CHECKS } from './index.ts';
import { readLimits } from './limits.ts';

const HOUR_MS = 3_600_000;
/** How much time a round looks at, ms. */
export const SPANS = { quick: HOUR_MS, full: 24 * HOUR_MS, deep: 14 * 24 * HOUR_MS } as const;
export type Depth = keyof typeof SPANS;
/** From the shortest to the longest. */
export const DEPTHS = ['quick', 'full', 'deep'] as const satisfies Depth[];

/** The one that looks at more time. */
export function deeper(one: Depth, other: Depth): Depth {
  return DEPTHS.indexOf(one) > DEPTHS.indexOf(other) ? one : other;
}

export interface Span {
  /** ms since the epoch. */
  from: number;
  to: number;
}

export interface Round extends Span {
  verdict: Verdict;
  outcomes: Outcome[];
  /** null: it could not be counted; the check that asks for it says why. */
  covered: Coverage[] | null;
}

export interface RoundOptions {
  config: Config;
  /** Wall clock, ms. */
  now: number;
  /** Steady, ms. */
  clock(): number;
  /** The time that a check looks at. */
  spanOf(check: Check): Span;
  /** The time that the round is about: that of its coverage table. */
  span: Span;
  /** Told of each check as it is answered. */
  onOutcome?(outcome: Outcome): void;
}

/** @throws OperatorError when the thresholds cannot be read */
export async function askAll({ config, now, clock, spanOf, span, onOutcome }: RoundOptions): Promise<Round> {
  const limits = readLimits(config.dataDir);
  const hot = createClickHouse(hotServer(config), 'marketprism-integrity');
  const cold = createClickHouse(coldServer(config), 'marketprism-integrity');
  // What several checks need is asked once for the same time.
  const contexts = new Map<string, Context>();
  const contextOf = ({ from, to }: Span): Context => {
    const key = `${from} ${to}`;
    const known = contexts.get(key);
    if (known !== undefined) return known;
    const context = { config, hot, cold, now, limits, from, to };
    contexts.set(key, context);
    return context;
  };
  const outcomes: Outcome[] = [];
  try {
    for (const check of CHECKS) {
      const outcome = await run(check, contextOf(spanOf(check)), clock);
      outcomes.push(outcome);
      onOutcome?.(outcome);
    }
    const covered = await coverage(contextOf(span)).catch(() => null);
    return { ...span, verdict: verdictOfAll(outcomes), outcomes, covered };
  } finally {
    await Promise.all([hot.close(), cold.close()]);
  }
}

/** A round's head as JSON: what it is about, and what it comes to. */
export function headOf({ verdict, from, to, covered }: Round) {
  return {
    status: verdict,
    exit_code: EXIT[verdict],
    from: new Date(from).toISOString(),
    to: new Date(to).toISOString(),
    coverage: covered,
  };
}

/** An answered check as JSON. */
export function flat({ check: { name, question, fix, repairs }, ...outcome }: Outcome) {
  return { name, question, fix, repairs, ...outcome };
}
